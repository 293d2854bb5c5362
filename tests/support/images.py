"""Small ways to make an image and to look at all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader

NULL_DACL = bytes([1, 0, 4, 0x80]) + bytes(16)
DIRECTORY = 0x10
TIME = 133_000_000_000_000_000
METADATA = {  # of each kind; times apart
    "attributes": 0x27,
    "security_descriptor": NULL_DACL + b"\0",
    "reparse_data": b"\x0c\0\0\xa0\4\0\0\0abcd",
    "extended_attributes": b"\0\0\0\0\0\1\2\0E\0ab",
}


FORGED_NAMES = ("..", ".", "a/b", "a\\b", "a:b", "a\0b", "/b", "C:")  # none of them can be written


@dataclass(frozen=True)
class Node:
    """All that a reader tells of one name, except its file ID and parent."""

    is_directory: bool
    attributes: int
    times: tuple[int, int, int, int]
    data: bytes
    streams: Mapping[str, bytes]
    security_descriptor: bytes
    reparse_data: bytes
    extended_attributes: bytes


def writer(directory: Path, existing: str | None = None, new: str | None = None) -> ImageWriter:
    """An image whose commit does not wait for the disk."""
    return ImageWriter(directory, existing, new, sync=False)


def add(image: ImageWriter, path: str, data: bytes = b"", **metadata: object) -> None:
    """A file with its whole content, or with DIRECTORY in `attributes` a directory."""
    image.create_file(path, size=len(data), **metadata)
    image.write(data)


def make_image(directory: Path, name: str, files: Mapping[str, bytes | None], parent: str | None = None) -> Path:
    """An image of these files; None makes a directory."""
    with writer(directory, parent, name) as image:
        for path, data in files.items():
            add(image, path, data or b"", attributes=DIRECTORY if data is None else 0)
        image.commit()
    return directory / name


def forge_name(directory: Path, honest: str, forged: str) -> None:
    """Give what one entry or stream of a committed image is called a name of that length that no writer takes."""
    length = len(honest).to_bytes(2, "little")
    old, new = (length + name.encode("utf-16-le") for name in (honest, forged))
    assert len(old) == len(new)
    regions = {path: path.read_bytes() for path in directory.glob("region_*")}
    assert sum(data.count(old) for data in regions.values()) == 1
    for path, data in regions.items():
        path.write_bytes(data.replace(old, new))


def read_tree(path: Path, top: str = "") -> dict[str, Node]:
    """Everything below the root, or another directory, by path."""
    with ImageReader(path) as image:
        return {
            name: Node(
                entry.is_directory,
                entry.attributes,
                (entry.creation_time, entry.last_write_time, entry.change_time, entry.last_access_time),
                b"" if entry.is_directory else image.read(entry),
                {stream.name: image.read(entry, stream.name) for stream in image.streams(entry)},
                image.security_descriptor(entry),
                image.reparse_data(entry),
                image.extended_attributes(entry),
            )
            for name, entry in image.walk(top)
        }


def read_files(path: Path) -> dict[str, bytes | None]:
    """Content by path; None for a directory."""
    return {name: None if node.is_directory else node.data for name, node in read_tree(path).items()}


def names_in(directory: Path) -> list[str]:
    """The names of a directory's files."""
    return sorted(path.name for path in directory.iterdir())


def snapshot(directory: Path) -> dict[str, bytes]:
    """The bytes of every file of a directory."""
    return {name: (directory / name).read_bytes() for name in names_in(directory)}


def assert_sound(path: Path) -> None:
    """verify finds nothing wrong and knows the ID of every object."""
    with ImageReader(path) as image:
        report = image.verify()
    assert report.problems == ()
    assert report.unjudged == 0
