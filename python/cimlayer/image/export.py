"""A whole image as a plain tar with all that the image holds: the counterpart of :mod:`cimlayer.image.create`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimfs_ext.tarheader import tar_header
from cimlayer.blobs.outputs import Output, whole_writes, widen_pipe
from cimlayer.blobs.writebehind import WriteBehind
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.host.interrupts import deferred
from cimlayer.host.paths import errors_name
from cimlayer.image.kinds import EXTENDED_ATTRIBUTES, REPARSE_DATA, Records, as_base64, value_kinds
from cimlayer.image.meter import Meter
from cimlayer.image.tarentries import TarWriter, counted_entries
from cimlayer.limits import DEFAULT_LIMITS, Limits, Usage

_ONE_HOLE = b"0\n".ljust(tarfile.BLOCKSIZE, b"\0")  # the map of a sparse file without data
_EXACT = {REPARSE_DATA.name: "CIMLAYER.reparse", EXTENDED_ATTRIBUTES.name: "CIMLAYER.ea"}


def export_image_as_tar(
    image_path: str | os.PathLike[str],
    output: str | os.PathLike[str] | BinaryIO,
    *,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> int:
    """Write a whole image as an uncompressed tar, and return the sum of the sizes of the files in it, in bytes.

    :func:`~cimlayer.create_image` makes an equal image of it. Entries have the PAX records of go-winio's backuptar, and
    those of docs/files.md for what these lack; other programs get files, directories, hard links, and symbolic links
    where one says where they lead. ``output`` is a path, which must not exist yet, or a binary file. The same image
    gives the same bytes. ``progress`` is called with :class:`~cimlayer.FilesProgress`.

    CorruptImageError for a name that would change the meaning of a path. LimitError for an entry that exceeds
    ``limits`` (ratio does not apply), before any of it is written. OperationCancelledError once ``cancel`` is
    cancelled. Whatever fails or interrupts, an output given as a path is removed.
    """
    cancel = CancellationToken(cancel)
    with ExitStack() as stack:
        if isinstance(output, (str, os.PathLike)):  # a stream may wait for its reader, and leaves nothing
            stack.enter_context(deferred(cancel))
        image = stack.enter_context(ImageReader(image_path))
        usage = Usage(limits, image.name)
        meter = Meter(image.name, progress, cancel)
        tar = _ExactTarWriter(image, stack.enter_context(opened_output(output)), usage, meter)
        written: dict[int, str] = {}  # file ID -> the path of its first name
        for path, entry in tar.others(counted_entries(image, usage, cancel)):
            first = path if entry.is_directory else written.setdefault(entry.file_id, path)
            if first == path:
                tar.entry(path, entry)
            else:
                tar.hard_link(path, first)
        tar.finish()
        return tar.file_bytes


@contextmanager
def opened_output(output: str | os.PathLike[str] | BinaryIO) -> Iterator[Output]:
    """The output of an export; a file that was made for it goes again when the export fails.

    Only such a file is written in a thread: another one may be a pipe that keeps it waiting for good.
    """
    if not isinstance(output, (str, os.PathLike)):
        widen_pipe(output)
        yield whole_writes(output)
        return
    file = open(output, "xb")  # noqa: SIM115  closing it may fail too: the disk is full
    try:
        with errors_name(output), file, WriteBehind(file) as behind:
            yield behind
    except BaseException:
        Path(output).unlink()
        raise


class _ExactTarWriter(TarWriter):
    """Whatever the records of backuptar cannot say stands in others."""

    def records(self, info: tarfile.TarInfo, entry: ImageEntry) -> Records:
        """Those of backuptar as far as they go, and the buffers themselves of what they might change."""
        records: Records = {}
        for kind in value_kinds():
            value = kind.value(self._image, entry)
            with suppress(FormatError):
                records |= kind.export(info, entry, value)
            if value and kind.name in _EXACT:
                records[_EXACT[kind.name]] = as_base64(value)
        if info.issym() and entry.is_directory and self._image.listdir(entry):
            info.type, info.linkname = tarfile.DIRTYPE, ""  # where programs can put what it holds
        return records

    def put(self, info: tarfile.TarInfo, entry: ImageEntry, stream: str | None) -> None:
        """A stream that is stored nowhere is one hole (GNU tar, "Storing Sparse Files", version 1.0)."""
        if not info.size or self._image.location(entry, stream)[0]:
            super().put(info, entry, stream)
            return
        hole = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(info.size)}
        info.pax_headers = {**info.pax_headers, **hole}
        info.size = len(_ONE_HOLE)
        self._header(info, entry)
        self._stream.put(_ONE_HOLE)

    def encoded(self, info: tarfile.TarInfo, path: str) -> bytes:
        """Half a surrogate pair in a name is written like any other character."""
        info.name, info.linkname = (
            text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
            for text in (info.name, info.linkname)
        )
        return tar_header(info)
