"""Images without a layer around them, from a folder or a plain tar (MSIX app attach, tests, tools)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimlayer.blobs.arrival import open_source
from cimlayer.blobs.readahead import tar_pieces
from cimlayer.errors import LimitError, PathNotFoundError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import creation_time
from cimlayer.formats.sddl import descriptor_from_sddl
from cimlayer.host.directories import make_directories, sync_directories, taken_back
from cimlayer.host.interrupts import deferred
from cimlayer.image.folder import folder_as_tar
from cimlayer.image.locking import open_patiently
from cimlayer.limits import DEFAULT_LIMITS, Limits


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
    lock_timeout: float = 0,
    cancel: CancellationToken | None = None,
) -> Creation:
    """Make the image ``image_path`` from a folder, or from a tar that may be compressed with gzip or zstd.

    Of a folder: names, content, the time of the last write (as all four times), hard links, symbolic links as they are,
    those that lead to directories as links of directories, and read-only where nobody may write. Of a tar: what
    :func:`~cimlayer.import_layer` takes, but no file is special, and none is a whiteout. Entries stand in the order
    of their names, so that with ``reproducible`` the same folder gives the same bytes. The image's directory, which
    cannot lie in the folder, is made if it is missing; a failure or an interrupt leaves nothing. ``lock_timeout`` is
    how many seconds to wait while another process writes an image of that name; then ImageBusyError.

    Raises LimitError for what goes beyond ``limits``; FormatError for a malformed tar, for names that differ only in
    case and for names that Windows does not have; OSError for what cannot be read, devices and pipes among it;
    ImageExistsError if the image is there; OperationCancelledError once ``cancel`` is cancelled.
    """
    path = Path(os.path.abspath(image_path))
    cancel = CancellationToken(cancel)
    reproducible = reproducible or "SOURCE_DATE_EPOCH" in os.environ
    time = creation_time(reproducible)
    seed = path.name.encode("utf-8", "surrogatepass") if reproducible else None
    folder = Path(source) if Path(source).is_dir() else None
    if folder is not None and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"the image would lie in the folder that goes into it: {path}")
    made: list[Path] = []

    def open_image() -> ImageWriter:
        while True:
            make_directories(path.parent, made)
            try:
                return ImageWriter(path.parent, None, path.name, sync=sync, time=time, seed=seed)
            except PathNotFoundError:
                if path.parent.is_dir():
                    raise  # Else what failed beside this has taken back the directory that it had made.

    with (
        deferred(cancel),
        _limits_named(path.name),
        taken_back(made),
        open_patiently(open_image, path.parent, lock_timeout, cancel) as image,
    ):
        importer = LayerImporter(
            image,
            _PlainPolicy(),
            (),
            time=time,
            whiteouts=False,
            max_files=limits.files,
            max_bytes=limits.bytes,
            max_path_depth=limits.path_depth,
        )
        for piece in folder_as_tar(folder) if folder is not None else _pieces_of(source, jobs, limits, cancel):
            cancel.raise_if_cancelled()
            importer.feed(piece)
        importer.finish()
        if sync:
            sync_directories(made)
        image.commit()
        return Creation(importer.entries, importer.file_bytes)


@contextmanager
def _limits_named(name: str) -> Iterator[None]:
    try:
        yield
    except LimitError as error:
        error.layer = name
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
    def whiteout(*arguments: object) -> None:
        raise AssertionError("no file is special here")

    opaque_whiteout = whiteout
    begin_standard_file = standard_data = end_standard_file = link_to_standard_file = whiteout
