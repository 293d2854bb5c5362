"""What the running Windows can do with CimFS, according to its build number.

The numbers are those of hcsshim's pkg/cimfs (IsCimFSSupported, IsBlockCimSupported, IsVerifiedCimSupported): CimFS for
container layers was added to Windows Server 2022 in revision 2031, and is part of Server 2025; the block formats have
not been released yet, so the numbers are those of preview builds. ``cimwriter.dll`` adds writing to older systems.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from cimfs_ext import implementation
from cimlayer.errors import UnsupportedCallError

SERVER_2022 = 20348
SERVER_2022_REVISION = 2031
SERVER_2025 = 26100
BLOCK_IMAGES = 27766
VERIFIED_IMAGES = 27800


@dataclass(slots=True, frozen=True)
class WindowsSystem:
    """A Windows version: build (20348 is Server 2022), revision, and which of the libraries it has."""

    build: int
    revision: int = 0
    has_cimfs: bool = True
    has_cimwriter: bool = False

    @classmethod
    def current(cls) -> WindowsSystem | None:
        """The running system; None if it is not Windows."""
        if sys.platform != "win32":
            return None
        import winreg  # noqa: PLC0415 - there is none elsewhere

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Windows NT\CurrentVersion") as key:
            revision = int(winreg.QueryValueEx(key, "UBR")[0])
        build = sys.getwindowsversion().platform_version[2]
        try:
            library = implementation.load()
        except UnsupportedCallError:
            return cls(build, revision, has_cimfs=False)
        return cls(build, revision, "CimMountImage" in library.functions(), library.has_writer_library)


def is_cimfs_supported(system: WindowsSystem | None) -> bool:
    """Whether container layers can be CIMs there; None (not Windows) is always False."""
    if system is None or not system.has_cimfs:
        return False
    backported = system.build == SERVER_2022 and system.revision >= SERVER_2022_REVISION
    return system.build >= SERVER_2025 or backported


def is_block_cim_supported(system: WindowsSystem | None, *, writing: bool = False) -> bool:
    """Whether images inside a file or block device can be mounted or, with ``writing``, written."""
    return _from_build(system, BLOCK_IMAGES, writing)


def is_merged_cim_supported(system: WindowsSystem | None, *, writing: bool = False) -> bool:
    """Whether merged images can be mounted, or written.

    Merging is older than the block formats, but links across merged images are not, so hcsshim requires the same build.
    """
    return is_block_cim_supported(system, writing=writing)


def is_verified_cim_supported(system: WindowsSystem | None, *, writing: bool = False) -> bool:
    """Whether sealed images can be mounted with their root hash verified, or written."""
    return _from_build(system, VERIFIED_IMAGES, writing)


def _from_build(system: WindowsSystem | None, build: int, writing: bool) -> bool:
    if system is None:
        return False
    return (system.has_cimfs and system.build >= build) or (writing and system.has_cimwriter)
