"""Images without a layer around them, from a folder or a plain tar (MSIX app attach, tests, tools)."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimfs_ext.names import upcase_key
from cimlayer.blobs.arrival import open_source
from cimlayer.blobs.readahead import tar_pieces
from cimlayer.errors import FormatError, LimitError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import (
    FILE_ATTRIBUTE_ARCHIVE,
    FILE_ATTRIBUTE_READONLY,
    creation_time,
    filetime_from_ns,
    pax_seconds,
)
from cimlayer.formats.sddl import descriptor_from_sddl
from cimlayer.host.directories import make_directories, remove_directories, sync_directories
from cimlayer.limits import DEFAULT_LIMITS, Limits

_PIECE = 1 << 20


@dataclass(slots=True, frozen=True)
class Creation:
    """What :func:`create_image` stored: entries, and the sum of the sizes of files in bytes."""

    entries: int
    bytes: int


def create_image(
    image_path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    sync: bool = True,
    reproducible: bool = False,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    cancel: CancellationToken | None = None,
) -> Creation:
    """Make the image ``image_path`` from a folder, or from a tar that may be compressed with gzip or zstd.

    Of a folder: names, content, the time of the last write (as all four times), hard links, symbolic links as they are,
    and read-only where nobody may write. Of a tar: what :func:`~cimlayer.import_layer` takes, but no
    file is special and whiteouts are an error. Entries stand in the order of their names, so that with ``reproducible``
    the same folder gives the same bytes. The image's directory, which cannot lie in the folder, is made if it is
    missing; a failure leaves nothing.

    Raises LimitError for what goes beyond ``limits``; FormatError for a malformed tar, for names that differ only in
    case and for names that Windows does not have; OSError for what cannot be read, devices and pipes among it;
    ImageExistsError if the image is there; OperationCancelledError once ``cancel`` is cancelled.
    """
    path = Path(os.path.abspath(image_path))
    cancel = cancel or CancellationToken()
    reproducible = reproducible or "SOURCE_DATE_EPOCH" in os.environ
    time = creation_time(reproducible)
    seed = path.name.encode("utf-8", "surrogatepass") if reproducible else None
    folder = Path(source) if Path(source).is_dir() else None
    if folder is not None and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"the image would lie in the folder that goes into it: {path}")
    made = make_directories(path.parent)
    try:
        with ImageWriter(path.parent, None, path.name, sync=sync, time=time, seed=seed) as image:
            importer = LayerImporter(
                image,
                _PlainPolicy(),
                (),
                time=time,
                max_files=limits.files,
                max_bytes=limits.bytes,
                max_path_depth=limits.path_depth,
            )
            for piece in _folder_as_tar(folder) if folder is not None else _pieces_of(source, jobs, limits, cancel):
                cancel.raise_if_cancelled()
                importer.feed(piece)
            importer.finish()
            if sync:
                sync_directories(made)
            image.commit()
            return Creation(importer.entries, importer.file_bytes)
    except BaseException as error:
        remove_directories(made)
        if isinstance(error, LimitError):
            raise error.in_layer(path.name) from error
        raise


def _pieces_of(
    tar: str | os.PathLike[str], jobs: int | None, limits: Limits, cancel: CancellationToken
) -> Iterator[memoryview]:
    with open_source(tar) as file, tar_pieces(file, cancel, limits=limits, jobs=jobs, name=os.fspath(tar)) as pieces:
        for data, _ in pieces:
            yield data


class _PlainPolicy:
    """A tar that is no layer: see :class:`LayerImporter` for what may be asked."""

    @staticmethod
    def descriptor_from_sddl(text: str) -> bytes:
        return descriptor_from_sddl(text)

    @staticmethod
    def whiteout(path: str) -> None:
        raise FormatError("a whiteout, which only the tar of a layer can have", path)

    opaque_whiteout = whiteout

    @staticmethod
    def begin_standard_file(*arguments: object) -> None:
        raise AssertionError("no file is special here")

    standard_data = end_standard_file = link_to_standard_file = begin_standard_file


# ---- folders ----


def _folder_as_tar(folder: Path) -> Iterator[bytes | memoryview]:
    """The entries of a folder as a tar, so that there is one way into an image."""
    links: dict[tuple[int, int], str] = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        below = []
        for entry in _sorted_entries(folder, directory):
            path = f"{directory}/{entry.name}" if directory else entry.name
            status = entry.stat(follow_symlinks=False)
            info = _header(path, entry, status)
            if info.isdir():
                below.append(path)
            elif info.isreg() and status.st_nlink > 1:
                first = links.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
            try:
                yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            except UnicodeEncodeError as error:
                raise FormatError("a name that is not UTF-8", path.encode("utf-8", "replace").decode()) from error
            if info.isreg():
                with open(entry.path, "rb", opener=_without_links) as file:
                    yield from _content(file, info.size)
        pending.extend(reversed(below))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _sorted_entries(folder: Path, directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder / directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    seen: dict[bytes, str] = {}
    for entry in entries:
        if ":" in entry.name:
            raise FormatError("a colon in a name, which Windows does not have", entry.path)
        other = seen.setdefault(upcase_key(entry.name), entry.name)
        if other != entry.name:
            raise FormatError(f"{other!r} and {entry.name!r} are one name for Windows", str(folder / directory))
    return entries


def _header(path: str, entry: os.DirEntry[str], status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.pax_headers = {"mtime": pax_seconds(filetime_from_ns(status.st_mtime_ns))}
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(Path(entry.path).readlink())
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISREG(status.st_mode):
        info.size = status.st_size
        if not status.st_mode & 0o222:
            info.pax_headers["MSWINDOWS.fileattr"] = str(FILE_ATTRIBUTE_ARCHIVE | FILE_ATTRIBUTE_READONLY)
    else:
        raise OSError(errno.EINVAL, "neither file nor directory nor symbolic link", entry.path)
    return info


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _content(file: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise OSError(errno.EIO, "the file became shorter while it was read", file.name)
        left -= len(piece)
        yield piece
    if padding := -size % tarfile.BLOCKSIZE:
        yield bytes(padding)
