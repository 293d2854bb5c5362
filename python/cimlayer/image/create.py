"""Images without a layer around them, from a folder or a plain tar (MSIX app attach, tests, tools)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cimfs_ext.builder import LayerBuilder
from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimlayer.blobs.arrival import STANDARD_INPUT
from cimlayer.errors import PathNotFoundError
from cimlayer.events import CancellationToken, ProgressCallback
from cimlayer.formats.fileinfo import creation_time
from cimlayer.formats.sddl import descriptor_from_sddl
from cimlayer.host.directories import make_directories, sync_directories, taken_back
from cimlayer.host.interrupts import deferred
from cimlayer.image.archives import archive_pieces
from cimlayer.image.folder import FolderSource
from cimlayer.image.forking import limits_named, name_beside
from cimlayer.image.locking import open_patiently
from cimlayer.image.meter import Meter
from cimlayer.image.patterns import Patterns
from cimlayer.image.placing import Placement
from cimlayer.image.stores import Metadata, check_metadata, metadata_of_folder
from cimlayer.limits import DEFAULT_LIMITS, Limits


@dataclass(slots=True, frozen=True)
class Creation:
    """What :func:`create_image` stored: entries, and the sum of the sizes of files in bytes.

    ``warnings`` tell of what has no place in an image or could not be read, ``skipped`` of what ``skip_special`` left
    out, each with the reason; ``renamed`` are the new paths of entries that differed from others in case only;
    ``excluded`` is how many entries ``exclude`` left out, a directory of a folder as one.
    """

    entries: int
    bytes: int
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    excluded: int = 0


def create_image(
    image_path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    metadata: Metadata = "auto",
    exclude: Iterable[str] = (),
    case_rename: bool = False,
    skip_special: bool = False,
    parent: str | os.PathLike[str] | None = None,
    root_directory: str = "",
    security_descriptor: str | None = None,
    wim_image: str | None = None,
    sync: bool = True,
    reproducible: bool = False,
    jobs: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    lock_timeout: float = 0,
    progress: ProgressCallback | None = None,
    cancel: CancellationToken | None = None,
) -> Creation:
    """Make the image ``image_path`` from a folder, a tar that may be compressed with gzip or zstd, a ZIP or a WIM.

    Of a folder: names, content and holes, the time of the last write (as all four times), hard links, symbolic links as
    they are, those that lead to directories as links of directories, and read-only where nobody may write; and what
    ``metadata`` finds: ``auto`` takes the sidecar ``SOURCE.metadata`` that :func:`~cimlayer.extract` makes, if there is
    one, else all that an NTFS volume has which ntfs-3g has mounted, or the extended attributes ``user.cimlayer.*``.
    ``sidecar``, ``native`` and ``xattr`` take only these, ``none`` nothing. A file that was written since it was
    extracted has the times of that. Of a tar, which ``"-"`` reads from standard input: what
    :func:`~cimlayer.import_layer` takes, but no file is special, and none is a whiteout. Of a ZIP: names, content,
    times, DOS attributes and symbolic links; an MSIX or APPX package lies in a directory with its full name. Of a WIM,
    through wimlib: all that it has of the image ``wim_image``, a name or a number; of several, one must be chosen.

    ``parent`` is an image in the same directory that the new one is forked from: entries come on top of what it has,
    and are stored alone. ``root_directory`` is where all lies in the image; ``security_descriptor``, in SDDL, is that
    of everything that has none.

    ``exclude`` are patterns as in gitignore(5) of what to leave out. With ``case_rename``, of names that differ only in
    case all but the first get a number (``name~2.txt``); with ``skip_special``, devices, FIFOs, sockets and names that
    an image cannot hold are left out. ``progress`` is called with :class:`~cimlayer.FilesProgress`.

    Entries stand in the order of their names, so that with ``reproducible`` the same folder gives the same bytes. The
    image's directory, which cannot lie in the folder, is made if it is missing; a failure or an interrupt leaves
    nothing. ``lock_timeout`` is how many seconds to wait while another process writes an image of that name; then
    ImageBusyError.

    Raises LimitError for what goes beyond ``limits``; FormatError for a malformed tar or sidecar, for names that differ
    only in case, and for what an image cannot hold; OSError for what cannot be read, UnsupportedCallError for a
    WIM without wimlib; ImageNotFoundError if there is no ``parent``; ImageExistsError if the image is
    there; ValueError for a malformed pattern or descriptor, a
    parent elsewhere, and no such ``wim_image``; OperationCancelledError once ``cancel`` is cancelled.
    """
    check_metadata(metadata)
    patterns = Patterns(exclude)
    descriptor = b"" if security_descriptor is None else descriptor_from_sddl(security_descriptor)
    path = Path(os.path.abspath(image_path))
    cancel = CancellationToken(cancel)
    reproducible = reproducible or "SOURCE_DATE_EPOCH" in os.environ
    time = creation_time(reproducible)
    seed = path.name.encode("utf-8", "surrogatepass") if reproducible else None
    parent_name = None if parent is None else name_beside(path, parent)
    folder = Path(os.path.abspath(source)) if os.fspath(source) != STANDARD_INPUT and Path(source).is_dir() else None
    if folder is not None and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"the image would lie in the folder that goes into it: {path}")
    if folder is not None and wim_image is not None:
        raise ValueError(f"not a WIM, which an image could be chosen from: {folder}")
    meter = Meter(path.name, progress, cancel)
    made: list[Path] = []

    def open_image() -> ImageWriter:
        while True:
            make_directories(path.parent, made)
            try:
                return ImageWriter(path.parent, parent_name, path.name, sync=sync, time=time, seed=seed)
            except PathNotFoundError:
                if path.parent.is_dir():
                    raise  # Else what failed beside this has taken back the directory that it had made.

    with (
        deferred(cancel),
        limits_named(path.name),
        taken_back(made),
        open_patiently(open_image, path.parent, lock_timeout, cancel) as image,
    ):
        builder = LayerBuilder(
            image,
            time=time,
            descriptor=descriptor,
            max_files=limits.files,
            max_bytes=limits.bytes,
            max_path_depth=limits.path_depth,
        )
        placement = Placement(
            Patterns() if folder is not None else patterns,
            case_rename=case_rename,
            skip_special=skip_special,
            below=root_directory.replace("/", "\\").strip("\\"),
        )
        if folder is not None:
            done = _add_folder(folder, builder, placement, patterns, metadata, meter)
        else:
            done = _add_archive(source, wim_image, builder, placement, jobs, limits, meter, cancel)
        image.close_stream()
        meter.finish()
        if sync:
            sync_directories(made)
        image.commit()
        return done


def _add_folder(
    folder: Path, builder: LayerBuilder, placement: Placement, exclude: Patterns, metadata: Metadata, meter: Meter
) -> Creation:
    store, sidecar = metadata_of_folder(folder, metadata)
    source = FolderSource(folder, builder, placement, exclude, store, sidecar, meter.step)
    source.add()
    return _creation(source.entries, source.bytes, source.warnings, placement)


def _add_archive(
    source: str | os.PathLike[str],
    wim_image: str | None,
    builder: LayerBuilder,
    placement: Placement,
    jobs: int | None,
    limits: Limits,
    meter: Meter,
    cancel: CancellationToken,
) -> Creation:
    policy = _PlainPolicy(placement, cancel)
    importer = LayerImporter(
        builder,
        policy,
        plain=True,
        max_files=limits.files,
        max_bytes=limits.bytes,
        max_path_depth=limits.path_depth,
    )
    with archive_pieces(source, wim_image, jobs, limits, cancel) as pieces:
        for piece in pieces:
            meter.step(importer.entries, importer.file_bytes)
            importer.feed(piece)
        importer.finish()
    meter.step(importer.entries, importer.file_bytes)
    return _creation(importer.entries, importer.file_bytes, policy.warnings, placement)


def _creation(entries: int, size: int, warnings: list[str], placement: Placement) -> Creation:
    skipped = tuple(placement.skipped)
    return Creation(entries, size, tuple(warnings), skipped, placement.renamed, placement.excluded)


class _PlainPolicy:
    """A tar that is no layer: see :class:`LayerImporter` for what may be asked."""

    def __init__(self, placement: Placement, cancel: CancellationToken) -> None:
        self.warnings: list[str] = []
        self.place, self.place_of = placement.place, placement.place_of
        self.pause = cancel.raise_if_cancelled

    def passed_over(self, name: str, what: str) -> None:
        self.warnings.append(f"{name}: {what}, passed over")

    @staticmethod
    def descriptor_from_sddl(text: str) -> bytes:
        return descriptor_from_sddl(text)

    @staticmethod
    def whiteout(*arguments: object) -> None:
        raise AssertionError("no file is special here")

    opaque_whiteout = whiteout
    begin_standard_file = standard_data = standard_hole = end_standard_file = link_to_standard_file = whiteout
