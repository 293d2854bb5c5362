"""Operations on an image that wait until the files outside it are final; applied in order when a layer is closed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from cimfs_ext.image import ImageWriter
from cimlayer.errors import PathNotFoundError
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_DIRECTORY, NO_ATTACHMENTS, Attachments, FileBasicInfo
from cimlayer.layer.directory import LayerDirectory

_PIECE = 1 << 20


class PendingOperation(Protocol):
    """Something to be done to the image."""

    def apply(self, image: ImageWriter, time: int) -> None:
        """Do it; ``time`` is the FILETIME of directories that are made for it."""


@dataclass(slots=True)
class PendingFile:
    """Add a file that lies at the same path of the layer directory."""

    path: str
    directory: LayerDirectory
    info: FileBasicInfo
    attachments: Attachments = NO_ATTACHMENTS

    def apply(self, image: ImageWriter, time: int) -> None:
        """Copy the file into the image as it is now."""
        with self.directory.open(self.path) as source:
            size = os.fstat(source.fileno()).st_size
            create_item(image, self.path, self.info, size, self.attachments, parents_time=time)
            while piece := source.read(_PIECE):
                image.write(piece)
        image.close_stream()


@dataclass(slots=True)
class PendingDirectory:
    """Add a directory made by the layer writer."""

    path: str
    info: FileBasicInfo

    def apply(self, image: ImageWriter, time: int) -> None:
        """Add it; one that is there keeps its children."""
        create_item(image, self.path, self.info, 0, parents_time=time)


@dataclass(slots=True)
class PendingLink:
    """Add a hard link to a file that is itself pending."""

    path: str
    target: str

    def apply(self, image: ImageWriter, time: int) -> None:
        """Link it."""
        try:
            image.create_hard_link(self.path, self.target)
        except PathNotFoundError:
            if not _make_parents(image, self.path, time):
                raise
            image.create_hard_link(self.path, self.target)


def create_item(
    image: ImageWriter,
    path: str,
    info: FileBasicInfo,
    size: int,
    attachments: Attachments = NO_ATTACHMENTS,
    *,
    parents_time: int | None = None,
) -> None:
    """``ImageWriter.create_file`` with its arguments as a layer has them.

    With ``parents_time``, a FILETIME, missing directories above are made. Each is tried only because something below
    could not be made for want of it, so no directory that exists is touched.
    """
    try:
        image.create_file(
            path,
            attributes=info.file_attributes,
            size=size,
            creation_time=info.creation_time,
            last_write_time=info.last_write_time,
            change_time=info.change_time,
            last_access_time=info.last_access_time,
            security_descriptor=attachments.security_descriptor,
            extended_attributes=attachments.extended_attributes,
            reparse_data=attachments.reparse_data,
        )
    except PathNotFoundError:
        if parents_time is None or not _make_parents(image, path, parents_time):
            raise
        create_item(image, path, info, size, attachments)


def _make_parents(image: ImageWriter, path: str, time: int) -> bool:
    """Make the missing directories above a path, however many; false if there is none above it to be missing."""
    info = FileBasicInfo.at(time, FILE_ATTRIBUTE_DIRECTORY)
    missing: list[int] = []  # where they end in the path
    end = path.rfind("\\")
    while end > 0:
        try:
            create_item(image, path[:end], info, 0)
            break
        except PathNotFoundError:
            missing.append(end)
            end = path.rfind("\\", 0, end)
    for end in reversed(missing):
        create_item(image, path[:end], info, 0)
    return "\\" in path
