"""``cimlayer tree``."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimlayer.cli.entries import entry_lines, size_options, size_text
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.output import Output, counted
from cimlayer.errors import CorruptImageError
from cimlayer.image.entrynames import shown
from cimlayer.image.selection import each_named

_LINES = ("├── ", "│   ", "└── ", "    ")  # before an entry and what is below it; before the last entry and so on
_ASCII_LINES = ("|-- ", "|   ", "`-- ", "    ")


@click.command("tree")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option("-L", "--level", metavar="N", type=click.IntRange(min=1), help="Show at most N levels.")
@click.option("-d", "--directory", is_flag=True, help="Show directories only.")
@click.option("-s", "--size", is_flag=True, help="Show the size of each file.")
@size_options(human=True)
def command(image: str, paths: tuple[str, ...], level: int | None, directory: bool, size: bool, human: bool) -> None:
    """Show the contents of a CIM as a tree.

    PATH is a path or a pattern; without it, the whole CIM is shown.
    """
    output = Output()
    files = directories = 0
    with open_image(image) as reader, entry_lines(reader, output, "target") as lines:
        for path, top in list(each_named(reader, paths or [""])):
            lines.add(shown(path).rstrip("/"), top, target=False)
            for line, entry in _tree(reader, path, top, level, directory):
                files += not entry.is_directory
                directories += entry.is_directory
                length = f"[{size_text(entry.size, human):>10}]  " if size and not entry.is_directory else ""
                lines.add(entry.name, entry, line + length)
    total = counted(directories, "directory", "directories")
    output.line()
    output.line(total if directory else f"{total}, {counted(files, 'file')}")


def _tree(
    image: ImageReader, path: str, top: ImageEntry, level: int | None, only_directories: bool
) -> Iterator[tuple[str, ImageEntry]]:
    """Each entry below, depth first, with the lines that lead to it."""

    def children(directory: ImageEntry) -> list[ImageEntry]:
        found = image.listdir(directory) if directory.is_directory else []
        return [entry for entry in reversed(found) if entry.is_directory or not only_directories]

    branch, trunk, last_branch, no_trunk = _drawing()
    pending = [("", children(top))]  # of each directory that leads here: its lines, what is left of it in reverse
    seen = {top.file_id}
    while pending:
        lines, left = pending[-1]
        if not left:
            pending.pop()
            continue
        entry = left.pop()
        yield lines + (branch if left else last_branch), entry
        if entry.is_directory and level != len(pending):
            if entry.file_id in seen:
                raise CorruptImageError(errno.EBADMSG, "a directory has two names, or lies in itself", entry.name)
            seen.add(entry.file_id)
            pending.append((lines + (trunk if left else no_trunk), children(entry)))


def _drawing() -> tuple[str, ...]:
    try:
        "".join(_LINES).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _ASCII_LINES
    return _LINES
