"""What an image can be made of besides a folder, as the pieces of a tar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cimlayer.blobs.arrival import opened_source, source_name
from cimlayer.blobs.readahead import tar_pieces
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.formats import wim
from cimlayer.image import zipsource
from cimlayer.image.wimsource import wim_as_tar
from cimlayer.image.zipsource import zip_as_tar
from cimlayer.limits import Limits


@contextmanager
def archive_pieces(
    source: str | os.PathLike[str] | BinaryIO,
    wim_image: str | None,
    jobs: int | None,
    limits: Limits,
    cancel: CancellationToken,
) -> Iterator[Iterator[bytes | memoryview]]:
    """The pieces of a tar, or of one with what a ZIP, a package or an image of a WIM holds; the file's content decides.

    Errors about an entry have the offset in a tar alone.
    """
    name = source_name(source)
    with opened_source(source) as file:
        magic = b""
        if name and Path(name).is_file():  # what comes from a pipe can only be a tar
            magic = os.pread(file.fileno(), 8, 0)
        if wim_image is not None and magic not in wim.MAGICS:
            raise ValueError(f"not a WIM, which an image could be chosen from: {name}")
        if magic in wim.MAGICS:
            with _without_offsets():
                yield wim_as_tar(name, wim_image, limits)
        elif magic.startswith(zipsource.MAGICS):
            with open(name, "rb") as archive, _without_offsets():
                yield zip_as_tar(archive, name, limits)
        else:
            with tar_pieces(file, cancel, limits=limits, jobs=jobs, name=name) as pieces:
                yield (piece for piece, _ in pieces)


@contextmanager
def _without_offsets() -> Iterator[None]:
    """Nobody sees the tar that they would be about."""
    try:
        yield
    except FormatError as error:
        error.offset = None
        raise
