r"""The standard files of a layer: kept outside the image while it is written, because closing the layer changes them.

Source: hcsshim, internal/wclayer/cim/LayerWriter.go.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from cimfs_ext.names import upcase_key
from cimlayer.formats.fileinfo import Attachments, FileBasicInfo
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.pending import PendingFile, PendingLink, PendingOperation


@dataclass(slots=True, frozen=True)
class HiveNames:
    """Where one of the five registry hives lies in a layer."""

    name: str
    base: str
    delta: str

    @property
    def path(self) -> str:
        """The hive itself, in a base layer."""
        return rf"Files\Windows\System32\config\{self.name}"

    @property
    def base_path(self) -> str:
        """The layer's full hive."""
        return rf"Hives\{self.base}"

    @property
    def delta_path(self) -> str:
        """What the layer changes, as its tar brought it."""
        return rf"Hives\{self.delta}"


HIVES = (
    HiveNames("SYSTEM", "SYSTEM_BASE", "SYSTEM_DELTA"),
    HiveNames("SOFTWARE", "SOFTWARE_BASE", "SOFTWARE_DELTA"),
    HiveNames("SAM", "SAM_BASE", "SAM_DELTA"),
    HiveNames("SECURITY", "SECURITY_BASE", "SECURITY_DELTA"),
    HiveNames("DEFAULT", "DEFAULTUSER_BASE", "DEFAULTUSER_DELTA"),
)

UTILITY_VM = "UtilityVM"
UTILITY_VM_SYSTEM = r"UtilityVM\Files\Windows\System32\config\SYSTEM"
UTILITY_VM_SOFTWARE = r"UtilityVM\Files\Windows\System32\config\SOFTWARE"
UTILITY_VM_BCD = r"UtilityVM\Files\EFI\Microsoft\Boot\BCD"
UTILITY_VM_BOOT_MANAGER = r"UtilityVM\Files\EFI\Microsoft\Boot\bootmgfw.efi"
UTILITY_VM_FILES = (UTILITY_VM_SYSTEM, UTILITY_VM_SOFTWARE, UTILITY_VM_BCD, UTILITY_VM_BOOT_MANAGER)

STANDARD_FILES = (*(hive.path for hive in HIVES), *(hive.delta_path for hive in HIVES), *UTILITY_VM_FILES)

# What an import makes beside them.
LAYOUT = "layout"
UTILITY_VM_BUILD = "uvmbuildversion"
SCRATCH_BASE, SCRATCH = "blank-base.vhdx", "blank.vhdx"
TEMPLATE_BASE, TEMPLATE = "SystemTemplateBase.vhdx", "SystemTemplate.vhdx"  # at first; at last in the utility VM's
RECORD = "cimlayer.json"  # what the layer was made from

# Whatever an import may write to a layer directory, and so what one that was killed may have left there.
WRITTEN_FILES = (
    *STANDARD_FILES, *(hive.base_path for hive in HIVES), LAYOUT, UTILITY_VM_BUILD, SCRATCH_BASE, SCRATCH,
    *(directory + disk for directory in ("", f"{UTILITY_VM}\\") for disk in (TEMPLATE_BASE, TEMPLATE)), RECORD,
)  # fmt: skip

_STANDARD_KEYS = frozenset(map(upcase_key, STANDARD_FILES))


def is_standard_file(path: str) -> bool:
    """Whether a path (relative, with backslashes, in any case) is a standard file's."""
    return upcase_key(path) in _STANDARD_KEYS


class StandardFiles:
    """The standard files that a layer brought, and what is pending for the image because of them."""

    __slots__ = ("_paths", "directory", "pending")

    def __init__(self, directory: LayerDirectory) -> None:
        """``directory`` is where the files go."""
        self.directory = directory
        self.pending: list[PendingOperation] = []
        self._paths: set[bytes] = set()

    def add(self, path: str, info: FileBasicInfo, attachments: Attachments) -> tuple[io.FileIO, PendingFile]:
        """Begin a standard file: where its content goes, and the operation that will bring it into the image."""
        file = self.directory.create(path)
        operation = PendingFile(path, self.directory, info, attachments)
        self.pending.append(operation)
        self._paths.add(upcase_key(path))
        return file, operation

    def link(self, path: str, target: str) -> None:
        """A hard link in the image to a standard file, or to a link to one."""
        self.pending.append(PendingLink(path, target))

    def has(self, path: str) -> bool:
        """Whether this layer brought the file."""
        return upcase_key(path) in self._paths
