"""``cimlayer ls``."""

from __future__ import annotations

import click

from cimlayer.cli.entries import Form, entry_lines, size_options
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.innerpaths import INNER_PATH
from cimlayer.cli.output import Output
from cimlayer.image.entrynames import shown
from cimlayer.image.patterns import has_wildcards
from cimlayer.image.selection import each_named


@click.command("ls")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=INNER_PATH)
@click.option("long", "-l", is_flag=True, help="Show attributes, size, last write time (UTC) and link targets.")
@click.option("-R", "--recursive", is_flag=True, help="List everything below, depth first, with paths from the root.")
@click.option("-d", "--directory", is_flag=True, help="List directories themselves, not their contents.")
@size_options(human=False)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per entry, one per line.")
def command(
    image: str, paths: tuple[str, ...], long: bool, recursive: bool, directory: bool, human: bool, as_json: bool
) -> None:
    r"""List the contents of a CIM.

    PATH is a path or a pattern, such as 'Files/**/*.dll'. Several are listed one after another, first the files among
    them, each directory under its name. Directories end with a slash. Attribute letters of -l: d directory, a
    archive, r read-only, h hidden, s system, l reparse point, p sparse.
    """
    output = Output()
    form: Form = "json" if as_json else "long" if long else "name"
    with open_image(image) as reader, entry_lines(reader, output, form, human) as lines:
        found = list(each_named(reader, paths or [""]))
        several = len(paths) > 1 or any(map(has_wildcards, paths))
        opened = [path for path, entry in found if entry.is_directory and not directory]
        alone = [(path, entry) for path, entry in found if not entry.is_directory or directory]
        for path, entry in alone:
            lines.add(shown(path) if several or as_json else entry.name or "/", entry)
        for number, path in enumerate(opened):
            if several and not recursive and not as_json:
                lines.flush()
                if number or alone:
                    output.line()
                output.line((f"{shown(path)}:", "place"))
            lines.add_below(path, recursive=recursive)
