"""Operations on an image that wait until the files outside it are final; applied in order when a layer is closed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from cimfs_ext.builder import LayerBuilder
from cimlayer.formats.fileinfo import NO_ATTACHMENTS, Attachments, FileBasicInfo
from cimlayer.layer.directory import LayerDirectory

_PIECE = 1 << 20


class PendingOperation(Protocol):
    """Something to be done to the image."""

    def apply(self, builder: LayerBuilder) -> None:
        """Do it."""


@dataclass(slots=True)
class PendingFile:
    """Add a file that lies at the same path of the layer directory."""

    path: str
    directory: LayerDirectory
    info: FileBasicInfo
    attachments: Attachments = NO_ATTACHMENTS

    def apply(self, builder: LayerBuilder) -> None:
        """Copy the file into the image as it is now."""
        with self.directory.open(self.path) as source:
            size = os.fstat(source.fileno()).st_size
            builder.create(self.path, self.info, size, self.attachments)
            while piece := source.read(_PIECE):
                builder.image.write(piece)
        builder.image.close_stream()


@dataclass(slots=True)
class PendingDirectory:
    """Add a directory made by the layer writer."""

    path: str
    info: FileBasicInfo

    def apply(self, builder: LayerBuilder) -> None:
        """Add it; one that is there keeps its children."""
        builder.create(self.path, self.info, 0, NO_ATTACHMENTS)


@dataclass(slots=True)
class PendingLink:
    """Add a hard link to a file that is itself pending."""

    path: str
    target: str

    def apply(self, builder: LayerBuilder) -> None:
        """Link it."""
        builder.make_link(self.path, self.target)
