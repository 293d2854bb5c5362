r"""What a utility VM's registry hives say, and what is set in them so that it boots from a CIM.

Sources: hcsshim, internal/wclayer/cim/process.go and registry.go.
"""

from __future__ import annotations

import re

from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, KeyNotFoundError
from cimlayer.formats.bcd import BOOT_VOLUME

__all__ = ["CURRENT_VERSION", "LAST_BUILD_LEFT_ALONE", "build_number", "patch_system_hive"]

LAST_BUILD_LEFT_ALONE = 20348
"""Utility VMs up to this build cannot boot from a CIM and stay as they are."""

_REG_SZ, _REG_DWORD = 1, 4
CURRENT_VERSION = r"Microsoft\Windows NT\CurrentVersion"
_BUILD = "CurrentBuild"
_SHOWN = 100  # characters of untrusted text in a message

_SYSTEM_PATCHES: tuple[tuple[str, str, str | int], ...] = (
    (r"ControlSet001\Control", "BootContainerGuid", f"{{{BOOT_VOLUME}}}"),
    (r"ControlSet001\Services\UnionFS", "Start", 0),  # at boot
    (r"ControlSet001\Services\wcifs", "Start", 4),  # never
    ("Setup", "BootPathOverride", "\\Windows\\"),
)


def build_number(software: Hive) -> int:
    """Return the Windows build that a SOFTWARE hive belongs to.

    ``FormatError`` when ``CurrentBuild`` is missing or no number.
    """
    try:
        value = software.value(CURRENT_VERSION, _BUILD)
    except KeyNotFoundError:
        raise FormatError(f"no value {CURRENT_VERSION}\\\\{_BUILD}", software.name) from None
    text = value.data.decode("utf-16-le", "replace").rstrip("\0") if value.type == _REG_SZ else ""
    if not re.fullmatch("[0-9]{1,10}", text):  # as a DWORD may have
        raise FormatError(f"{_BUILD} is not a build number: {(text or value.data.hex())[:_SHOWN]!r}", software.name)
    return int(text)


def patch_system_hive(hive: Hive) -> None:
    """Set the values in a SYSTEM hive that make its Windows boot from a CIM; missing keys are made."""
    for path, value_name, value in _SYSTEM_PATCHES:
        if isinstance(value, int):
            hive.set_value(path, value_name, _REG_DWORD, value.to_bytes(4, "little"))
        else:
            hive.set_value(path, value_name, _REG_SZ, f"{value}\0".encode("utf-16-le"))
