r"""The version of Windows that is in a layer, as its SOFTWARE hive has it.

Source of the names: Microsoft, "Windows container version compatibility" (MAJOR.MINOR.BUILD.REVISION, and the values of
``HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion``).
"""

from __future__ import annotations

from pathlib import Path

from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, KeyNotFoundError, PathNotFoundError
from cimlayer.layer.hivefiles import open_in_image
from cimlayer.layer.paths import get_cim_path_from_layer
from cimlayer.layer.standard import HIVES
from cimlayer.layer.utilityvm import CURRENT_VERSION, build_number

_REG_DWORD = 4
_HIVE = next(hive.base_path for hive in HIVES if hive.name == "SOFTWARE")


def windows_version(layer: Path) -> str:
    """``MAJOR.MINOR.BUILD.REVISION`` of a layer with all below it, such as ``10.0.20348.2700``; empty if unknown."""
    with ImageReader(get_cim_path_from_layer(layer)) as image:
        try:
            return version_of(open_in_image(image, _HIVE, _HIVE))
        except (PathNotFoundError, KeyNotFoundError, FormatError):
            return ""


def version_of(software: Hive) -> str:
    """The same of a SOFTWARE hive; KeyNotFoundError or FormatError where it does not say."""
    major, minor = (_number(software, f"Current{part}VersionNumber") for part in ("Major", "Minor"))
    return f"{major}.{minor}.{build_number(software)}.{_number(software, 'UBR')}"


def _number(software: Hive, name: str) -> int:
    value = software.value(CURRENT_VERSION, name)
    if value.type != _REG_DWORD or len(value.data) != 4:
        raise FormatError(f"{name} is not a number", software.name)
    return int.from_bytes(value.data, "little")
