"""Where the metadata of files of Windows is kept on the host: the ways, and which one it is."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Literal, get_args

from cimlayer.host import beneath, ntfs
from cimlayer.image.metadata import HostMetadata, NtfsMetadata, XattrMetadata
from cimlayer.image.sidecar import SidecarReader, sidecar_of

if sys.platform == "win32":
    from cimlayer.image.windows import WindowsMetadata

Metadata = Literal["auto", "none", "sidecar", "xattr", "native"]


def check_metadata(metadata: str) -> None:
    """ValueError for no such way, NotImplementedError for one that this system has not."""
    if metadata not in get_args(Metadata):
        raise ValueError(f"metadata is kept as one of {', '.join(get_args(Metadata))}, not {metadata!r}")
    if metadata == "xattr" and not hasattr(os, "setxattr"):
        raise NotImplementedError("this system has no calls for extended attributes: use a sidecar")


def metadata_on_host(directory: int, metadata: Metadata, path: str) -> HostMetadata | None:
    """The way to keep metadata with the files below an open directory. OSError if it must be NTFS and is not."""
    if sys.platform == "win32":
        return WindowsMetadata(directory) if metadata in ("auto", "native") else None
    if metadata in ("auto", "native"):
        if ntfs.is_ntfs(directory):
            return NtfsMetadata()
        if metadata == "native":
            raise OSError(errno.EOPNOTSUPP, "not on NTFS, mounted with ntfs-3g, which alone has native metadata", path)
    return XattrMetadata() if metadata == "xattr" else None


def metadata_of_folder(folder: Path, metadata: Metadata) -> tuple[HostMetadata | None, SidecarReader | None]:
    """What there may be to be read of the files of a folder: with them, and beside them."""
    sidecar = None
    if metadata == "sidecar" or (metadata == "auto" and sidecar_of(folder).is_dir()):
        sidecar = SidecarReader(sidecar_of(folder))
    if metadata in ("none", "sidecar"):
        return None, sidecar
    fd = beneath.open_top(folder)
    try:
        store = metadata_on_host(fd, metadata, os.fspath(folder))
    finally:
        beneath.close(fd)
    if store is None and hasattr(os, "getxattr"):
        store = XattrMetadata()
    return store, sidecar
