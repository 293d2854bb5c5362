"""What the parts of one extraction share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cimfs_ext.entries import ImageEntry
from cimfs_ext.extractor import OrdinaryFiles
from cimfs_ext.reader import ImageReader
from cimlayer.errors import ImageError
from cimlayer.events import CancellationToken
from cimlayer.formats.fileinfo import unix_nanoseconds
from cimlayer.image.directories import Directories, Location
from cimlayer.image.losses import Losses
from cimlayer.image.metadata import HostMetadata
from cimlayer.image.sidecar import Sidecar
from cimlayer.image.writers import Place, Writers
from cimlayer.limits import Usage


@dataclass(slots=True)
class Extraction:
    """What :func:`extract` made. ``bytes`` counts file content, a hard-linked file once.

    ``renamed`` says under which path, relative to the destination, an entry lies whose name is too long for the host;
    ``unresolved_links`` are the symbolic links that, though links were asked for, became an empty file or directory.
    ``hard_links`` are the names beyond the first one of a file, copies where the host has no hard links. ``skipped``
    are files that were whole already, ``excluded`` entries that patterns left out, a directory with all below as one.

    ``lost`` is what the destination does not hold, by kind: ``attributes``, ``times`` (those of creation and change),
    ``security_descriptor``, ``extended_attributes`` and ``reparse_data`` count files and directories, ``hard_links``
    and ``streams`` those that are missing.
    """

    files: int = 0
    directories: int = 0
    hard_links: int = 0
    symbolic_links: int = 0
    bytes: int = 0
    skipped: int = 0
    excluded: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    unresolved_links: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Item:
    """An entry, its path in the image, and its place on the host."""

    path: str
    entry: ImageEntry
    directory: Location
    name: bytes
    renamed: bool = False

    @property
    def times(self) -> tuple[int, int]:
        """Of the last access and write, in nanoseconds since 1970."""
        return unix_nanoseconds(self.entry.last_access_time), unix_nanoseconds(self.entry.last_write_time)


@dataclass(slots=True)
class Listing:
    """A directory whose ordinary files were taken together."""

    path: str
    directory: ImageEntry
    location: Location


@dataclass(slots=True)
class Work:
    """The image, the destination, and how one goes to the other."""

    image: ImageReader
    directories: Directories
    writers: Writers
    metadata: HostMetadata | None
    sidecar: Sidecar | None
    symlinks: bool
    rebase: bool
    existing: str
    usage: Usage
    cancel: CancellationToken
    result: Extraction
    losses: Losses
    ordinary: OrdinaryFiles
    sizes: dict[int, int] = field(default_factory=dict)  # of files that are being written, by ID

    @contextmanager
    def entered(self, item: Item) -> Iterator[int]:
        """The open directory of an entry; errors name the entry as the host does, not a component or a descriptor."""
        self.cancel.raise_if_cancelled()
        fd = self.directories.enter(item.directory)
        try:
            yield fd
        except ImageError:
            raise
        except OSError as error:
            error.filename = self.directories.path(item.directory, item.name)
            raise

    def write_copy(self, item: Item) -> None:
        """Write one file, and wait for it."""
        self.usage.add_content(item.path, item.entry.size)
        where = Place(item.path.rpartition("\\")[0], self.directories.path(item.directory))
        self.writers.submit(self.directories.enter(item.directory), [(item.entry.file_id, item.name)], where)
        self.writers.finish()
