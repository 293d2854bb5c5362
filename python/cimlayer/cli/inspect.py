"""``cimlayer inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.output import Output, amount, counted
from cimlayer.image.files import DiskFile, ImageDirectory
from cimlayer.image.inspect import Contents, Inspection, SetUse, inspect_image


@click.command("inspect")
@click.argument("image", metavar="CIM|DIR", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object, with the size of every file.")
def command(image: str, as_json: bool) -> None:
    """Show the region files, sizes and sharing of a CIM.

    For a CIM: its region sets and their files, which other CIMs use them, how much it contains, what it adds to its
    parent, and how much de-duplication saved. For a directory of CIMs: which files belong to which CIM, and which to
    none.
    """
    output = Output()
    if Path(image).is_dir() and any(Path(image).glob("*.cim")):
        directory = ImageDirectory(image)
        if as_json:
            output.json(_directory_facts(directory))
        else:
            _print_directory(output, directory)
        return
    found = inspect_image(image)
    if as_json:
        output.json(_facts(found))
    else:
        _print(output, found)


# ---- a CIM ----


def _print(output: Output, found: Inspection) -> None:
    contents = found.contents
    facts = {
        "CIM": str(found.path),
        "format": f"version {found.version}",
        "contents": _counts(contents),
        "size": amount(contents.bytes),
        "stored": f"{amount(contents.stored_bytes)}, {amount(contents.saved_bytes)} saved by de-duplication",
        "adds": f"{counted(contents.own_files, 'file')}, {amount(contents.own_stored_bytes)} of content",
    }
    if contents.shared_files:
        blocks = f"{amount(contents.shared_bytes)} in disk blocks that other files share"
        facts["shares"] = f"{counted(contents.shared_files, 'file')}, {blocks}"
    output.fields(facts)
    for number, one in enumerate(found.sets):
        output.line()
        last = number == len(found.sets) - 1
        output.line(f"{'own' if last else 'parent'} region set {one.set_id}, {amount(one.size)}")
        _print_set(output, one)


def _print_set(output: Output, one: SetUse) -> None:
    output.line(f"    written by {one.owner or 'a CIM that no longer exists'}, used by {', '.join(one.users)}")
    for file in one.files:
        output.line(f"    {_file(file)}")


def _file(file: DiskFile) -> str:
    return f"{file.name}  {'missing' if file.size is None else amount(file.size)}"


def _counts(contents: Contents) -> str:
    return (
        f"{counted(contents.files, 'file')}, {counted(contents.directories, 'directory', 'directories')}, "
        f"{counted(contents.hard_links, 'hard link')}, {counted(contents.reparse_points, 'reparse point')}, "
        f"{counted(contents.streams, 'alternate stream')}"
    )


def _facts(found: Inspection) -> dict[str, object]:
    return {
        "image": str(found.path),
        "version": found.version,
        "region_sets": [
            {
                "id": str(one.set_id),
                "owner": one.owner,
                "users": list(one.users),
                "size": one.size,
                "files": [asdict(file) for file in one.files],
            }
            for one in found.sets
        ],
        "contents": asdict(found.contents) | {"saved_bytes": found.contents.saved_bytes},
    }


# ---- a directory of CIMs ----


def _print_directory(output: Output, directory: ImageDirectory) -> None:
    for name, sets in directory.region_sets.items():
        parents = [directory.owner(one.set_id) or str(one.set_id) for one in reversed(sets[:-1])]
        output.line(name + (f", on {', '.join(parents)}" if parents else ""))
        for file in directory.files_of(sets[-1]):
            output.line(f"    {_file(file)}")
    for name, error in directory.unreadable.items():
        output.line(f"{name}: cannot be read: {error.strerror}")
    if orphans := directory.orphans():
        output.line("not referenced by any" + (" readable CIM" if directory.unreadable else " CIM"))
        for file in orphans:
            output.line(f"    {_file(file)}")


def _directory_facts(directory: ImageDirectory) -> dict[str, object]:
    return {
        "images": [
            {
                "name": name,
                "region_set": str(sets[-1].set_id),
                "parents": [{"id": str(one.set_id), "image": directory.owner(one.set_id)} for one in sets[:-1]],
                "files": [asdict(file) for file in directory.files_of(sets[-1])],
            }
            for name, sets in directory.region_sets.items()
        ],
        "unreadable": {name: str(error) for name, error in directory.unreadable.items()},
        "orphans": [asdict(file) for file in directory.orphans()],
    }
