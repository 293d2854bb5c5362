"""Importing an OCI layer tar as a CIM layer (OCI image-spec, layer.md; hcsshim, pkg/ociwclayer/cim/import.go)."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cimfs_ext.cpus import available_cpus
from cimfs_ext.implementation import Implementation
from cimfs_ext.importer import LayerImporter
from cimlayer.blobs.arrival import PIECE, STANDARD_INPUT, opened_source, source_name
from cimlayer.blobs.decompression import TAR_BLOCK, check_tar_start, plain_file
from cimlayer.blobs.digests import Digest
from cimlayer.blobs.readahead import Piece, tar_pieces
from cimlayer.errors import DigestMismatchError, FormatError, ImageError, LimitError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.formats.fileinfo import Attachments, FileBasicInfo
from cimlayer.formats.sddl import descriptor_from_sddl
from cimlayer.host.interrupts import deferred
from cimlayer.host.memory import whole_pages
from cimlayer.layer.directory import write_through
from cimlayer.layer.processing import UtilityVm
from cimlayer.layer.writer import CimLayerWriter
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.imported import ImportedLayer
from cimlayer.oci.plaintar import PlainTar
from cimlayer.tasks import LayerTask
from cimlayer.tracing import span

Source = str | os.PathLike[str] | BinaryIO


def import_layer(
    source: Source,
    layer_path: str | os.PathLike[str],
    parent_layer_paths: Sequence[str | os.PathLike[str]] = (),
    *,
    sync: bool = True,
    reproducible: bool = False,
    implementation: str | Implementation | None = None,
    utility_vm: UtilityVm = "auto",
    scratch_disks: bool = True,
    jobs: int | None = None,
    digest: str | None = None,
    diff_id: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    lock_timeout: float = 0,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> ImportedLayer:
    """Import one layer tar, plain or compressed with gzip or zstd.

    ``source`` is a path, ``"-"`` for standard input, or a binary file that is read to its end from where it stands;
    the compression is recognised by the content. ``parent_layer_paths`` go from the immediate parent to the base; the
    immediate one is enough, since its image records the others.
    ``jobs`` is the number of threads: with 1 the caller's alone works; with more, which is the default where there is
    more than one CPU, reading and decompressing run ahead of it, or, for a plain tar in a regular file that is imported
    without ``digest``, writing runs behind it. The result does not depend on it.

    ``digest`` and ``diff_id`` (``sha256:...`` or ``sha512:...``) are what the source and the tar in it must have; both
    are checked in the same pass, before the layer is committed. ``progress`` is called in the caller's thread with
    the events of ``cimlayer.events``, ``cancel`` stops the import from anywhere.
    ``utility_vm`` (``auto``, ``process``, ``keep``) and ``scratch_disks`` are as for :class:`~cimlayer.CimLayerWriter`.
    ``limits`` is what the layer may cost: entries, bytes, depth and ratio of decompression (:class:`~cimlayer.Limits`).
    ``lock_timeout`` is how many seconds to wait while another process holds the layer or its parent; then
    :class:`~cimlayer.errors.ImageBusyError`.

    What a signal's handler raises, such as KeyboardInterrupt, stops the import as ``cancel`` does, and is raised when
    nothing of the layer is left.

    On a file system with reflinks (XFS, Btrfs), files of 64 KiB or more of a plain tar that is a file there share their
    disk blocks with it where they lie on a block boundary in the tar, which is one in eight; without ``sync`` none do.
    The image is the same byte for byte.

    A failure leaves nothing of the layer: :class:`~cimlayer.errors.FormatError` for a malformed tar, with the entry
    and its offset, as :class:`~cimlayer.errors.DigestMismatchError` for wrong bytes, and as
    :class:`~cimlayer.errors.LimitError` for what goes beyond the limits;
    :class:`~cimlayer.errors.ImageError` and other OSErrors for what cannot be read or written;
    :class:`~cimlayer.errors.OperationCancelledError`.
    """
    expected_digest = Digest.parse(digest, "digest") if digest is not None else None
    expected_diff_id = Digest.parse(diff_id, "diff_id") if diff_id is not None else None
    cancel = CancellationToken(cancel)
    name = Path(os.path.abspath(layer_path)).name
    with deferred(cancel), opened_source(source) as file, span("import_layer", layer=name):
        task = LayerTask(name, 1, 1, digest or diff_id, _size_of(file), progress)
        found = plain_file(file)
        plain = PlainTar.of(found) if sync else None  # sharing its blocks would wait for the disk
        # Reading takes little time, and bytes are used fastest by the core that read them: the second thread writes.
        threads = jobs if jobs is not None else available_cpus()
        behind = found if threads > 1 and expected_digest is None else None
        with contextlib.ExitStack() as stack:
            tar: Iterator[Piece] | _TarFile
            if behind is not None and expected_diff_id is None and _is_opened_here(source):
                tar = _TarFile(*behind, source_name(source))
            else:
                pieces = tar_pieces(
                    file,
                    cancel,
                    digest=expected_digest,
                    diff_id=expected_diff_id,
                    limits=limits,
                    jobs=1 if behind is not None else jobs,
                    name=source_name(source),
                )
                tar = stack.enter_context(pieces)
            task.started()
            with CimLayerWriter(
                layer_path,
                parent_layer_paths,
                sync=sync,
                reproducible=reproducible,
                implementation=implementation,
                utility_vm=utility_vm,
                scratch_disks=scratch_disks,
                lock_timeout=lock_timeout,
                cancel=cancel,
            ) as writer:
                if behind is not None:
                    writer.image.write_behind()
                file_bytes = write_layer(tar, writer, task, limits, cancel, plain)
            if plain is not None:
                plain.share_blocks(layer_path)
            finish_task(task, writer, file_bytes)
    path, seconds, result = Path(layer_path), task.seconds, writer.utility_vm
    return ImportedLayer(path, None, diff_id, digest, False, file_bytes, seconds, result)


@dataclass(frozen=True, slots=True)
class _TarFile:
    """A plain tar in a regular file, open as a descriptor, of which no digest is wanted. It begins at ``start``."""

    descriptor: int
    start: int
    name: str


def write_layer(
    tar: Iterator[Piece] | _TarFile,
    writer: CimLayerWriter,
    task: LayerTask,
    limits: Limits,
    cancel: CancellationToken,
    plain: PlainTar | None = None,
) -> int:
    """Feed a tar to an open layer, which the caller closes; returns the sum of the files' sizes in bytes.

    ``plain`` gets to know what it can share with the layer.
    """
    with _TarPolicy(writer, task, cancel) as policy:
        if plain is not None:
            policy.aligned_file = plain.aligned_file
        importer = LayerImporter(
            writer.builder,
            policy,
            max_files=limits.files,
            max_bytes=limits.bytes,
            max_path_depth=limits.path_depth,
        )
        try:
            if isinstance(tar, _TarFile):
                _read(importer, tar, task, limits, cancel)
            else:
                _feed(importer, tar, task, cancel)
        except DigestMismatchError:
            raise  # it names the layer already
        except (FormatError, ImageError) as error:
            error.layer = task.digest or task.name
            raise
        cancel.raise_if_cancelled()
        task.committing(importer.entries)
        return importer.file_bytes


def finish_task(task: LayerTask, writer: CimLayerWriter, file_bytes: int) -> None:
    """Report a layer that was committed, with what closing it took notice of."""
    for text in writer.warnings:
        task.warn(text)
    task.done(file_bytes, writer.utility_vm)


def _feed(importer: LayerImporter, pieces: Iterator[Piece], task: LayerTask, cancel: CancellationToken) -> None:
    try:
        for data, position in pieces:
            cancel.raise_if_cancelled()
            importer.feed(data)
            task.read(position)
        importer.finish()
    except LimitError:
        raise
    except ValueError:
        if task.digest is not None:
            for _ in pieces:  # where the blob is damaged, that is the error to tell
                cancel.raise_if_cancelled()
        raise


def _read(importer: LayerImporter, tar: _TarFile, task: LayerTask, limits: Limits, cancel: CancellationToken) -> None:
    """As :func:`_feed`; nobody else needs the bytes, so content goes from the file to where it is written from."""
    check_tar_start(os.pread(tar.descriptor, TAR_BLOCK, tar.start), tar.name)
    buffer = whole_pages(PIECE)
    size = 0
    while count := importer.read(tar.descriptor, tar.start + size, PIECE, buffer):
        cancel.raise_if_cancelled()
        size += count
        limits.check_tar(size, size)
        task.read(size)
    importer.finish()


class _TarPolicy:
    """What the entries of a layer tar need beyond items of the layer: see :class:`LayerImporter`."""

    def __init__(self, writer: CimLayerWriter, task: LayerTask, cancel: CancellationToken) -> None:
        self._standard = writer.standard
        self._task = task
        self.pause = cancel.raise_if_cancelled
        self._file: io.FileIO | None = None
        self.whiteout = writer.removals.remove
        self.opaque_whiteout = writer.removals.remove_contents
        self.link_to_standard_file = writer.standard.link
        self.aligned_file: Callable[[str, int], None]  # only where it is wanted

    def __enter__(self) -> _TarPolicy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # why it was left open is the error to tell
                self._file.close()

    @staticmethod
    def descriptor_from_sddl(text: str) -> bytes:
        return descriptor_from_sddl(text)

    def begin_standard_file(
        self,
        path: str,
        size: int,
        attributes: int,
        times: tuple[int, int, int, int],
        security_descriptor: bytes,
        extended_attributes: bytes,
    ) -> None:
        creation, last_write, change, last_access = times
        info = FileBasicInfo(creation, last_access, last_write, change, attributes)
        attachments = Attachments(security_descriptor, extended_attributes)
        self._file, _ = self._standard.add(path, info, attachments)

    def standard_data(self, data: memoryview) -> None:
        assert self._file is not None
        write_through(self._file, data)

    def standard_hole(self, size: int) -> None:
        assert self._file is not None
        self._file.seek(size, os.SEEK_CUR)
        self._file.truncate()

    def end_standard_file(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def passed_over(self, name: str, what: str) -> None:
        self._task.warn(f"{name}: {what}, passed over")


def _is_opened_here(source: Source) -> bool:
    """If not, whoever opened it may look where it stands afterwards."""
    return isinstance(source, (str, os.PathLike)) and source != STANDARD_INPUT


def _size_of(file: BinaryIO) -> int | None:
    """The bytes from where a regular file stands to its end."""
    try:
        status = os.fstat(file.fileno())
        return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None
    except (OSError, AttributeError):
        return None
