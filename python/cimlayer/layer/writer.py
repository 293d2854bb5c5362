"""CIM layers: writing one, and destroying it (hcsshim's internal/wclayer/cim is the model)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import TypedDict, get_args

from cimfs_ext.builder import Guard, LayerBuilder
from cimfs_ext.image import ImageWriter
from cimfs_ext.imagepath import inner_path
from cimfs_ext.implementation import Implementation, choose
from cimlayer.errors import ImageExistsError, PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_REPARSE_POINT, Attachments, FileBasicInfo, creation_time
from cimlayer.host.directories import make_directories, remove_directories, sync_directories
from cimlayer.host.interrupts import deferred
from cimlayer.host.paths import native_path
from cimlayer.image.files import set_ids
from cimlayer.image.garbage import remove_leftovers
from cimlayer.image.locking import held, open_patiently
from cimlayer.layer import processing
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.items import ImageFileItem, Item, RootItem, StandardFileItem, StreamItem
from cimlayer.layer.marks import Mark, MarkKind, take_abandoned
from cimlayer.layer.paths import get_cim_dir_from_layer, get_cim_name_from_layer, get_cim_path_from_layer
from cimlayer.layer.removals import Removals
from cimlayer.layer.standard import STANDARD_FILES, WRITTEN_FILES, StandardFiles


class CimLayerWriter:
    r"""Writes one layer: a base layer, or with ``parent_layer_paths`` a child of the first of them.

    The paths of the parents go from the immediate parent to the base; the immediate one is enough. The layer directory
    is made if it is missing; the image appears beside it, in ``cim-layers``, when :meth:`close` has processed and
    committed the layer. An exception in a ``with`` block, or one that leaves the data of a file incomplete, is
    followed by :meth:`abandon`: nothing of the layer remains, and its parents are untouched. A call that is refused
    before it has changed anything leaves the writer as it was.

    Names are relative to the layer's root, with backslashes or slashes, and compared without regard to case; missing
    directories above them are made. ``sync`` false does not wait for the disk. ``reproducible`` (or the environment's
    ``SOURCE_DATE_EPOCH``) makes the same input give the same bytes; the system's library cannot promise that, and
    refuses. ``implementation`` is ``portable`` or ``system``, the latter by default on a Windows that has it.
    ``utility_vm`` says what becomes of the layer's utility VM: ``process`` prepares it for booting from the image, and
    fails if a file that it needs is missing; ``auto`` prepares one that is complete (SYSTEM, SOFTWARE, BCD, boot
    manager) and newer than build 20348, and keeps any other as it is; ``keep`` changes nothing. After :meth:`close`,
    :attr:`utility_vm` has what was done: ``processed``, ``kept`` or None. ``scratch_disks=False`` makes no
    ``blank-base.vhdx`` and ``blank.vhdx`` for a base layer. :attr:`warnings` has what closing the layer noticed, such
    as a dirty hive that was read as it is.
    ``raw`` says what :meth:`write` takes: true for content as it is, false for backup streams, None for either.
    ``cancel`` stops :meth:`close` between its steps, up to the commit.
    ``lock_timeout`` is how many seconds to wait while another image is written beside this one.

    Raises :class:`~cimlayer.errors.ImageBusyError` if that takes longer, naming the process where the
    system tells, :class:`~cimlayer.errors.ImageExistsError` if the layer exists already,
    :class:`~cimlayer.errors.PathNotFoundError` if the parent's image does not, and
    :class:`~cimlayer.errors.FormatError` for malformed input.

    Calls come one after the other, from any thread. One that comes while another is at work (in another thread, or from
    a signal handler or finalizer that interrupts it) raises RuntimeError and changes nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parent_layer_paths: Sequence[str | os.PathLike[str]] = (),
        *,
        sync: bool = True,
        reproducible: bool = False,
        implementation: str | Implementation | None = None,
        utility_vm: processing.UtilityVm = "auto",
        scratch_disks: bool = True,
        raw: bool | None = None,
        lock_timeout: float = 0,
        cancel: CancellationToken | None = None,
    ) -> None:
        """Open the image: empty for a base layer, else forked off the immediate parent's."""
        if utility_vm not in get_args(processing.UtilityVm):
            raise ValueError(f"utility_vm is one of {get_args(processing.UtilityVm)}, not {utility_vm!r}")
        reproducible = reproducible or "SOURCE_DATE_EPOCH" in os.environ
        self._sync = sync
        self._raw = raw
        self._cancel = CancellationToken(cancel)
        self._implementation = choose(implementation)
        self._path = Path(native_path(path))
        if isinstance(parent_layer_paths, (str, os.PathLike)):
            raise TypeError("parent_layer_paths is a sequence of paths, not one path")
        self._parents = [Path(native_path(parent)) for parent in parent_layer_paths]
        self._time = creation_time(reproducible)
        self._seed = get_cim_name_from_layer(path).encode("utf-8", "surrogatepass") if reproducible else None
        self._guard = Guard(self._path.name, "layer writer")
        self._item: Item | None = None
        self._process_id = os.getpid()
        self._utility_vm_mode, self._scratch_disks = utility_vm, scratch_disks
        self.utility_vm: processing.UtilityVmResult | None = None
        self.warnings: list[str] = []
        self.standard = StandardFiles(LayerDirectory(self._path))
        self._made_directories: list[Path] = []
        self._mark: Mark | None = None
        self._old_mark: Mark | None = None  # of a layer that was half destroyed
        try:
            with deferred(self._cancel):
                directory = get_cim_dir_from_layer(self._path)
                self.image = open_patiently(self._open_undestroyed, directory, lock_timeout, self._cancel)
                self.builder = LayerBuilder(self.image, STANDARD_FILES, time=self._time, has_parent=bool(self._parents))
                parent = get_cim_path_from_layer(self._parents[0]) if self._parents else None
                self.removals = Removals(self.builder, parent, self._time, self._cancel)
                self._take_directory()
                if self._old_mark is not None:
                    self._old_mark.clear()  # the new one stands: a kill never leaves a directory with neither
        except BaseException:
            self._abandon()
            raise

    def _open_undestroyed(self) -> ImageWriter:
        """An earlier layer of that name may have lost its ``.cim`` file, but not yet its directory."""
        image = self._open_image_there()
        try:
            self._old_mark = take_abandoned(get_cim_path_from_layer(self._path))
        except BaseException:
            image.close()
            raise
        return image

    def _open_image_there(self) -> ImageWriter:
        while True:
            try:
                return self._open_image()
            except PathNotFoundError:
                if self._parents or get_cim_dir_from_layer(self._path).is_dir():
                    raise  # where there are parents, so is the directory that they lie in
                # Else what failed beside this has taken back the directory that it had made.

    def _open_image(self) -> ImageWriter:
        directory = get_cim_dir_from_layer(self._path)
        if self._path == directory:
            raise ValueError(f"not the path of a layer directory, but of the images: {self._path}")
        parent = self._check_parents(directory)
        make_directories(directory, self._made_directories)
        name = get_cim_name_from_layer(self._path)
        options: _ImageOptions = {
            "implementation": self._implementation,
            "sync": self._sync,
            "time": self._time,
            "seed": self._seed,
        }
        try:
            return ImageWriter(directory, parent, name, **options)
        except ImageExistsError as error:
            # A reproducible image has the same region set every time, and a crash may have left its files.
            if self._seed is None or error.image_file in ("", name):
                raise
            if not remove_leftovers(directory, error.image_file):
                with contextlib.suppress(FileNotFoundError), held(directory / error.image_file, "being removed"):
                    raise
        return ImageWriter(directory, parent, name, **options)

    def _take_directory(self) -> None:
        """Without an image beside it, what an import may have written there is that of one that was killed."""
        self._mark = Mark(get_cim_path_from_layer(self._path), MarkKind.WRITING)
        self.standard.directory.clear(WRITTEN_FILES)
        self.standard.directory.make_directory()

    def _check_parents(self, cim_directory: Path) -> str | None:
        """The immediate parent's image. ValueError for parents that are not those of its image: hives are merged."""
        images = [get_cim_path_from_layer(parent) for parent in self._parents]
        for parent, image in zip(self._parents, images, strict=True):
            if image.parent != cim_directory:
                raise ValueError(f"a layer and its parents lie in one directory: {self._path} and {parent}")
            if image == get_cim_path_from_layer(self._path):
                raise ValueError(f"a layer cannot be its own parent: {parent}")
        if images:
            chain = set_ids(images[0])
            for number, (parent, image) in enumerate(zip(self._parents, images, strict=True)):
                if set_ids(image)[:1] != chain[number : number + 1]:
                    raise ValueError(f"{parent} is not a layer below {self._parents[0]}, or not in this order")
            if len(chain) > len(images):
                from cimlayer.image.inspect import image_chain  # noqa: PLC0415  callers often name all parents

                rest = image_chain(images[0])[len(images) :]
                self._parents += [link.layer for link in rest if link.layer is not None]
        return images[0].name if images else None

    def __repr__(self) -> str:
        return f"<{'closed ' if self.image.closed else ''}{type(self).__name__} {str(self._path)!r}>"

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
        name: str | PurePath,
        file_info: FileBasicInfo,
        file_size: int,
        security_descriptor: bytes = b"",
        extended_attributes: bytes = b"",
        reparse_data: bytes = b"",
    ) -> None:
        """Add a file or directory; its data follows with :meth:`write`, as a Win32 backup stream or as it is.

        ``file_size`` is in bytes. An empty descriptor becomes the one whose DACL is null; metadata that is not given
        here may come in the backup stream.
        """
        with self._guard:
            self._finish_item()
            attachments = Attachments(security_descriptor, extended_attributes, reparse_data)
            attributes = file_info.file_attributes | (FILE_ATTRIBUTE_REPARSE_POINT if reparse_data else 0)
            decision = self.builder.add(inner_path(name), attributes)
            if decision is None:
                self._item = RootItem()
                return
            path, outside = decision
            self._admit(path)
            if outside:
                self._item = StandardFileItem(
                    self.builder, self.standard, path, file_info, file_size, attachments, self._raw
                )
            else:
                self._item = ImageFileItem(self.builder, path, file_info, file_size, attachments, self._raw)

    def _admit(self, path: str) -> None:
        """Where only some items are allowed, FormatError for the others."""

    def add_alternate_stream(self, name: str | PurePath, size: int) -> None:
        """Add the stream ``path:stream`` of a file or directory that is in the image; its data follows as for add."""
        with self._guard:
            self._finish_item()
            self._item = StreamItem(self.builder, inner_path(name), size, self._raw)

    def add_link(self, name: str | PurePath, target: str | PurePath) -> None:
        """Add a hard link; the target may be a parent layer's file."""
        with self._guard:
            self._finish_item()
            self._add_link(*self.builder.link(inner_path(name), inner_path(target)))

    def _add_link(self, path: str, target: str, outside: bool) -> None:
        if outside:
            self.standard.link(path, target)
        else:
            self.builder.make_link(path, target)

    def remove(self, name: str | PurePath) -> None:
        """Remove what the parents have at a path; a path that they do not have is no error.

        What this layer itself has added at the path, or below it, stays.
        """
        with self._guard:
            self._finish_item()
            self._remove(self.builder.remove(inner_path(name)))

    def _remove(self, path: str) -> None:
        self.removals.remove(path)

    def remove_contents(self, directory: str | PurePath) -> None:
        """Remove all that the parents have in a directory, but not the directory; an empty path is the root."""
        with self._guard:
            self._finish_item()
            self._remove_contents(self.builder.remove(inner_path(directory), contents=True))

    def _remove_contents(self, directory: str) -> None:
        self.removals.remove_contents(directory)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take the next bytes of the backup stream of what was last added, or of its content; returns their number.

        Any chunking will do. With ``raw`` None, bytes that do not begin with the header of a backup stream (Microsoft,
        "WIN32_STREAM_ID") that fits the size given are the content itself, as hcsshim's importer writes it. Content
        that itself begins with such a header needs ``raw`` true. After a link or a removal there is nothing to write
        to: ValueError.
        """
        with self._guard:
            if self._item is None:
                raise ValueError("nothing is open for writing: add a file or a stream first")
            if self.image.closed:
                raise ValueError("the layer is closed")
            try:
                self._item.write(data)
            except BaseException:
                self._abandon()
                raise
            return memoryview(data).nbytes

    # ---- the end ----

    def close(self) -> None:
        """Process the standard files and commit the image; on failure the layer is abandoned. Again: nothing."""
        with self._guard, deferred(self._cancel):
            if self.image.closed:
                return
            try:
                self._finish_item()
                self.removals.close()
                self._process()
                for operation in self.standard.in_order():
                    self._cancel.raise_if_cancelled()
                    operation.apply(self.builder)
                if self._sync:
                    self.standard.directory.sync()
                    sync_directories(self._made_directories)
                self._cancel.raise_if_cancelled()
                self._commit()
            except BaseException:
                self._abandon()
                raise
            self._end()

    def _end(self) -> None:
        """Let the next one in; a mark that stays is cleared by gc or destroy."""
        if self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.clear()
        self.image.close()

    def _commit(self) -> None:
        self.image.commit()

    def _process(self) -> None:
        context = processing.LayerContext(
            self._path.name, self.standard, self._parents, self._time, self._seed, self.warnings
        )
        steps: list[Callable[[processing.LayerContext], None]] = []
        if self.builder.has_utility_vm:
            steps.append(self._process_utility_vm)
        if self._parents:
            steps.append(processing.process_child_layer)
        else:
            steps += [processing.create_scratch_disks] * self._scratch_disks + [processing.process_base_layer]
        for step in steps:
            self._cancel.raise_if_cancelled()
            step(context)

    def _process_utility_vm(self, context: processing.LayerContext) -> None:
        self.utility_vm = processing.process_utility_vm(context, self._utility_vm_mode)

    def abandon(self) -> None:
        """Leave nothing of the layer behind: no image, no region file, nothing in the layer directory.

        A layer that was committed stays, also when an interrupt comes right behind the commit. In a forked process,
        which has no part in the layer, nothing happens.
        """
        if os.getpid() != self._process_id:
            return
        with self._guard:
            self._abandon()

    @deferred()  # which is done to its end
    def _abandon(self) -> None:
        item, self._item = self._item, None
        if item is not None:
            with contextlib.suppress(OSError):  # why the layer is abandoned is the error to tell
                item.discard()
        image: ImageWriter | None = getattr(self, "image", None)
        if image is not None and image.committed:
            self._end()
            return
        removals: Removals | None = getattr(self, "removals", None)
        with contextlib.ExitStack() as rest:  # whatever fails
            rest.callback(remove_directories, self._made_directories)
            if image is not None:
                rest.callback(image.close)  # after what lies outside it: it lets the next one in
            if self._old_mark is not None:
                rest.callback(self._old_mark.leave)
            if self._mark is not None:
                rest.callback(self._mark.clear)
            if removals is not None:
                rest.callback(removals.close)
            self.standard.directory.undo()

    def _finish_item(self) -> None:
        if self.image.closed:
            raise ValueError("the layer is closed")
        if self._item is not None:
            try:
                self._item.finish()
            except BaseException:
                self._abandon()
                raise
            self._item = None

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


class _ImageOptions(TypedDict):
    implementation: Implementation
    sync: bool
    time: int
    seed: bytes | None
