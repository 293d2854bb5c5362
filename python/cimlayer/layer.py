"""CIM layers: writing one, and destroying it (layer.md; hcsshim's internal/wclayer/cim is the model)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from cimfs_ext.backupstream import BackupStreamParser
from cimfs_ext.image import ImageWriter
from cimfs_ext.implementation import Implementation, choose
from cimfs_ext.names import upcase_key
from cimfs_ext.reader import ImageReader
from cimlayer import processing
from cimlayer.errors import FormatError, ImageError, PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.fileinfo import FileBasicInfo, creation_time
from cimlayer.layerdir import LayerDirectory
from cimlayer.paths import (
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
    native_path,
)
from cimlayer.pending import create_item
from cimlayer.standard import UTILITY_VM, StandardFiles, is_standard_file

_ZEROS = bytes(1 << 16)
_EA, _SECURITY, _REPARSE = 2, 3, 8  # stream IDs of a backup stream


class CimLayerWriter:
    r"""Writes one layer: a base layer, or with ``parent_layer_paths`` a child of the first of them.

    The paths of the parents go from the immediate parent to the base. The layer directory is made if it is missing;
    the image appears beside it, in ``cim-layers``, when :meth:`close` has processed and committed the layer. An
    exception in a ``with`` block, or one that leaves the data of a file incomplete, is followed by :meth:`abandon`:
    nothing of the layer remains, and its parents are untouched. A call that is refused before it has changed anything
    leaves the writer as it was.

    Names are relative, with backslashes, and compared without regard to case. ``sync`` false does not wait for the
    disk. ``reproducible`` (or the environment's ``SOURCE_DATE_EPOCH``) makes the same input give the same bytes; the
    system's library cannot promise that, and refuses. ``implementation`` is ``portable`` or ``system``, the latter by
    default on Windows.
    ``cancel`` stops :meth:`close` between its steps, up to the commit.

    Not thread safe. Raises :class:`~cimlayer.errors.ImageExistsError` if the layer is there already,
    :class:`~cimlayer.errors.PathNotFoundError` if the parent's image is not, and
    :class:`~cimlayer.errors.FormatError` for malformed input.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parent_layer_paths: Sequence[str | os.PathLike[str]] = (),
        *,
        sync: bool = True,
        reproducible: bool = False,
        implementation: str | Implementation | None = None,
        cancel: CancellationToken | None = None,
    ) -> None:
        """Open the image: empty for a base layer, else forked off the immediate parent's."""
        reproducible = reproducible or "SOURCE_DATE_EPOCH" in os.environ
        self._sync = sync
        self._cancel = cancel or CancellationToken()
        self._implementation = choose(implementation)
        self._path = Path(native_path(path))
        self._parents = [Path(native_path(parent)) for parent in parent_layer_paths]
        self._time = creation_time(reproducible)
        self._seed = get_cim_name_from_layer(path).encode("utf-8", "surrogatepass") if reproducible else None
        self._item: _Item | None = None
        self._has_utility_vm = False
        self.standard = StandardFiles(LayerDirectory(self._path))
        self._made_directories: list[Path] = []
        try:
            self.image = self._open_image()
            self.standard.directory.make_directory()
        except BaseException:
            self.abandon()
            raise

    def _open_image(self) -> ImageWriter:
        cim_directory = get_cim_dir_from_layer(self._path)
        parent_name = self._check_parents(cim_directory)
        self._made_directories = _make_directories(cim_directory)
        return ImageWriter(
            cim_directory,
            parent_name,
            get_cim_name_from_layer(self._path),
            implementation=self._implementation,
            sync=self._sync,
            time=self._time,
            seed=self._seed,
        )

    def _check_parents(self, cim_directory: Path) -> str | None:
        if not self._parents:
            return None
        parent = get_cim_path_from_layer(self._parents[0])
        if parent.parent != cim_directory:
            raise ValueError(
                f"a layer and its parents lie in one directory: {self._path} and {self._parents[0]}"
            )
        return parent.name

    @property
    def parents(self) -> Sequence[Path]:
        """The parents' layer directories, from the immediate parent to the base."""
        return tuple(self._parents)

    @property
    def time(self) -> int:
        """The FILETIME of files made here."""
        return self._time

    # ---- operations ----

    def add(
        self,
        name: str,
        file_info: FileBasicInfo,
        file_size: int,
        security_descriptor: bytes = b"",
        extended_attributes: bytes = b"",
        reparse_data: bytes = b"",
    ) -> None:
        """Add a file or directory; its data follows with :meth:`write`, as a Win32 backup stream.

        ``file_size`` is in bytes. An empty descriptor becomes the one whose DACL is null; metadata that is not given
        here may come in the backup stream.
        """
        self._finish_item()
        name = name.removeprefix("\\")
        if file_info.is_directory and upcase_key(name) == upcase_key(UTILITY_VM):
            self._has_utility_vm = True
        self._refuse_link_replacement(name)
        metadata = (security_descriptor, extended_attributes, reparse_data)
        if is_standard_file(name) and not file_info.is_directory:
            self._item = _StandardFileItem(self.standard, name, file_info, file_size, metadata)
        else:
            self._item = _ImageFileItem(self.image, name, file_info, file_size, metadata)

    def add_alternate_stream(self, name: str, size: int) -> None:
        """Add the stream ``path:stream`` of a file or directory that is in the image; its data follows as for add."""
        self._finish_item()
        name = name.removeprefix("\\")
        if is_standard_file(name.partition(":")[0]):
            raise FormatError("a stream on a file that is processed outside the image", name)
        self._item = _StreamItem(self.image, name, size)

    def add_link(self, name: str, target: str) -> None:
        """Add a hard link; the target may be a parent layer's file."""
        self._finish_item()
        name, target = name.removeprefix("\\"), target.removeprefix("\\")
        if is_standard_file(name):
            raise FormatError("a hard link in place of a file that is processed outside the image", name)
        self._refuse_link_replacement(name)
        if is_standard_file(target) or self.standard.is_link(target):
            self.standard.link(name, target)
        else:
            self.image.create_hard_link(name, target)

    def remove(self, name: str) -> None:
        """Remove what the parents have at a path; a path that is not there is no error."""
        self._finish_item()
        with contextlib.suppress(PathNotFoundError):
            self.image.delete_path(name)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take the next bytes of the backup stream of what was last added; returns their number.

        Any chunking will do. After a link or a remove there is nothing to write to: ValueError.
        """
        if self._item is None:
            raise ValueError("nothing is open for writing: add a file or a stream first")
        try:
            self._item.write(data)
        except BaseException:
            self.abandon()
            raise
        return memoryview(data).nbytes

    def mark_utility_vm(self) -> None:
        """Say that the layer has a utility VM, for importers that do not go through :meth:`add`."""
        self._has_utility_vm = True

    # ---- the end ----

    def close(self) -> None:
        """Process the standard files and commit the image; on failure the layer is abandoned. Again: nothing."""
        if self.image.closed:
            return
        try:
            self._finish_item()
            self._process()
            for operation in self.standard.pending:
                self._cancel.raise_if_cancelled()
                operation.apply(self.image, self._time)
            if self._sync:
                self.standard.directory.sync()
            self._cancel.raise_if_cancelled()
            self._commit()
        except BaseException:
            self.abandon()
            raise
        self.image.close()

    def _commit(self) -> None:
        self.image.commit()

    def _process(self) -> None:
        context = processing.LayerContext(
            self._path.name, self.standard, self._parents, self._time, self._seed
        )
        steps: list[Callable[[processing.LayerContext], None]] = []
        if self._has_utility_vm:
            steps.append(self._process_utility_vm)
        if self._parents:
            steps.append(processing.process_child_layer)
        else:
            steps += [processing.create_scratch_disks, processing.process_base_layer]
        for step in steps:
            self._cancel.raise_if_cancelled()
            step(context)

    def _process_utility_vm(self, context: processing.LayerContext) -> None:
        processing.process_utility_vm(context)

    def abandon(self) -> None:
        """Leave nothing of the layer behind: no image, no region file, nothing in the layer directory.

        A layer that was committed stays, also when an interrupt comes right behind the commit.
        """
        if self._item is not None:
            self._item.discard()
            self._item = None
        image: ImageWriter | None = getattr(self, "image", None)
        if image is not None:
            image.close()
            if image.committed:
                return
        self.standard.directory.undo()
        with contextlib.suppress(OSError):
            for made in self._made_directories:
                made.rmdir()

    def _finish_item(self) -> None:
        if self.image.closed:
            raise ValueError("the layer is closed")
        if self._item is not None:
            try:
                self._item.finish()
            except BaseException:
                self.abandon()
                raise
            self._item = None

    def _refuse_link_replacement(self, name: str) -> None:
        if self.standard.is_link(name):
            raise FormatError("something in place of a hard link to a file that is processed outside the image", name)

    def __enter__(self) -> CimLayerWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or abandon the layer if the block failed."""
        if kind is None:
            self.close()
        elif not self.image.closed:
            self.abandon()


class _Item(Protocol):
    """What the bytes of ``write`` belong to."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def finish(self) -> None: ...

    def discard(self) -> None: ...


_Metadata = tuple[bytes, bytes, bytes]  # descriptor, EAs, reparse data


class _Attachments:
    """Metadata that may be given with ``add``, or come in the backup stream, or both if it is the same."""

    def __init__(self, name: str, metadata: _Metadata) -> None:
        self._name = name
        self._values = dict(zip((_SECURITY, _EA, _REPARSE), metadata, strict=True))

    def take(self, stream: int, data: bytes) -> None:
        if self._values[stream] not in (b"", data):
            kind = {_SECURITY: "security descriptor", _EA: "EA buffer", _REPARSE: "reparse data"}[stream]
            raise FormatError(f"the backup stream has another {kind} than the one that was given", self._name)
        self._values[stream] = data

    def has(self, stream: int) -> bool:
        return bool(self._values[stream])

    @property
    def values(self) -> _Metadata:
        return self._values[_SECURITY], self._values[_EA], self._values[_REPARSE]


class _ImageFileItem:
    """A file that goes to the image; it is made there when its data begins, since metadata may come first."""

    def __init__(
        self, image: ImageWriter, name: str, info: FileBasicInfo, size: int, metadata: _Metadata
    ) -> None:
        self._image, self._name, self._info, self._size = image, name, info, size
        self._attachments = _Attachments(name, metadata)
        self._parser = BackupStreamParser(size, name)
        self._target: _OpenStream | _GatheredStream = _OpenStream(image)
        self._created = False
        self._written = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written = True
        for event in self._parser.feed(data):
            if event[0] == "attachment":
                self._take_attachment(event[1], event[2])
                continue
            self._create()
            if event[0] == "stream":
                self._begin_stream(f"{self._name}:{event[1]}", event[2])
            elif event[0] == "data":
                self._target.write(event[1])
            else:
                self._target.skip(event[1])

    def _begin_stream(self, name: str, size: int | None) -> None:
        self._target.finish()
        if size is None:
            self._target = _GatheredStream(self._image, name)
        else:
            self._image.create_alternate_stream(name, size)
            self._target = _OpenStream(self._image)

    def _take_attachment(self, stream: int, data: bytes) -> None:
        if self._created and not self._attachments.has(stream):
            raise FormatError("metadata behind the data in a backup stream", self._name)
        self._attachments.take(stream, data)

    def _create(self) -> None:
        if not self._created:
            create_item(self._image, self._name, self._info, self._size, *self._attachments.values)
            self._created = True

    def finish(self) -> None:
        if self._written or self._size:
            self._parser.finish()
        self._create()
        self._target.finish()
        self._image.close_stream()

    def discard(self) -> None:
        self._target.discard()


class _OpenStream:
    """The stream of the image that is open. Zeros wait for data behind them: without any they need not be written."""

    def __init__(self, image: ImageWriter) -> None:
        self._image = image
        self._zeros = 0

    def skip(self, count: int) -> None:
        self._zeros += count

    def write(self, data: bytes | memoryview) -> None:
        while self._zeros > 0:
            piece = min(self._zeros, len(_ZEROS))
            self._image.write(memoryview(_ZEROS)[:piece])
            self._zeros -= piece
        self._image.write(data)

    def finish(self) -> None:
        """The image closes it when the next one is opened."""

    def discard(self) -> None:
        """The image is abandoned as a whole."""


class _GatheredStream:
    """A sparse alternate stream: its size is known at its end, and an image asks for it at the beginning."""

    def __init__(self, image: ImageWriter, name: str) -> None:
        self._image, self._name = image, name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by finish or discard

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)

    def skip(self, count: int) -> None:
        self._file.seek(count, os.SEEK_CUR)

    def finish(self) -> None:
        with self._file:
            size = self._file.tell()
            self._file.truncate(size)
            self._file.seek(0)
            self._image.create_alternate_stream(self._name, size)
            while piece := self._file.read(1 << 20):
                self._image.write(piece)

    def discard(self) -> None:
        self._file.close()


class _StreamItem:
    """An alternate stream; its data comes as a data stream or as the stream itself."""

    def __init__(self, image: ImageWriter, name: str, size: int) -> None:
        self._image, self._name, self._size = image, name, size
        self._parser = BackupStreamParser(size, name)
        self._content = _OpenStream(image)
        self._written = False
        image.create_alternate_stream(name, size)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written = True
        for event in self._parser.feed(data):
            if event[0] == "data":
                self._content.write(event[1])
            elif event[0] == "zeros":
                self._content.skip(event[1])
            else:
                raise FormatError("an alternate stream takes nothing but its data", self._name)

    def finish(self) -> None:
        if self._written or self._size:
            self._parser.finish()
        self._image.close_stream()

    def discard(self) -> None:
        """The image is abandoned as a whole."""


class _StandardFileItem:
    """A standard file: its data goes to the layer directory."""

    def __init__(
        self, standard: StandardFiles, name: str, info: FileBasicInfo, size: int, metadata: _Metadata
    ) -> None:
        self._name, self._size = name, size
        self._parser = BackupStreamParser(size, name)
        self._attachments = _Attachments(name, metadata)
        self._file, self._operation = standard.add(name, info, *metadata)
        self._written = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written = True
        for event in self._parser.feed(data):
            if event[0] == "attachment":
                self._attachments.take(event[1], event[2])
            elif event[0] == "data":
                self._file.write(event[1])
            elif event[0] == "zeros":
                self._file.seek(event[1], os.SEEK_CUR)
            else:
                raise FormatError("a stream on a file that is processed outside the image", self._name)

    def finish(self) -> None:
        with self._file:
            if self._written or self._size:
                self._parser.finish()
            self._file.truncate(self._size)
        operation = self._operation
        operation.security_descriptor, operation.extended_attributes, operation.reparse_data = (
            self._attachments.values
        )

    def discard(self) -> None:
        self._file.close()


def _make_directories(path: Path) -> list[Path]:
    """Make a directory and those above it; returns what was missing, the innermost first."""
    missing = list(itertools.takewhile(lambda directory: not directory.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    return missing


def destroy_cim_layer(layer_path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Remove a layer: its image's own files, the ``.cim`` file and the layer directory.

    If the layer's image does not exist, nothing happens: callers pass the root of all layers by mistake. A layer that
    other images are forked from stays, with an OSError (ENOTEMPTY) that names them, unless ``force`` is set. The
    parents' files are never touched.
    """
    if not is_cim_layer(layer_path):
        return
    image_path = get_cim_path_from_layer(layer_path)
    with ImageReader(image_path) as image:
        own = image.region_sets[-1]
    children = [path.name for path in sorted(image_path.parent.glob("*.cim")) if _forks(path, image_path, own.set_id)]
    if children and not force:
        raise OSError(errno.ENOTEMPTY, f"layers are forked from it: {', '.join(children)}", str(image_path))
    image_path.unlink()  # first: an image without its regions would look damaged
    for name in own.file_names():
        with contextlib.suppress(FileNotFoundError):
            (image_path.parent / name).unlink()
    if Path(layer_path).is_dir():
        shutil.rmtree(layer_path)


def _forks(path: Path, image_path: Path, set_id: object) -> bool:
    if path == image_path:
        return False
    try:
        with ImageReader(path) as image:
            return any(parent.set_id == set_id for parent in image.region_sets[:-1])
    except (ImageError, OSError):
        return False

