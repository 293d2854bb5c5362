"""``cimlayer inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import image_path
from cimlayer.cli.output import Output, amount
from cimlayer.image.files import DiskFile, ImageDirectory
from cimlayer.image.inspect import Contents, Inspection, SetUse, inspect_image


@click.command("inspect")
@click.argument("image", metavar="IMAGE|DIR", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="One JSON object, with the size of every file.")
def command(image: str, as_json: bool) -> None:
    """Show what an image consists of and shares.

    Of an image: its region sets with their files, the images that use them too, how much it holds, what it adds to
    its parent and what storing equal content once saved. Of a directory with images: which files belong to which
    image, and which to none.
    """
    output = Output()
    if Path(image).is_dir() and any(Path(image).glob("*.cim")):
        directory = ImageDirectory(image)
        if as_json:
            output.json(_directory_facts(directory))
        else:
            _print_directory(output, directory)
        return
    found = inspect_image(image_path(image))
    if as_json:
        output.json(_facts(found))
    else:
        _print(output, found)


# ---- an image ----


def _print(output: Output, found: Inspection) -> None:
    contents = found.contents
    output.fields(
        {
            "image": str(found.path),
            "format": f"version {found.version}",
            "holds": _counts(contents),
            "size": amount(contents.bytes),
            "stored": f"{amount(contents.stored_bytes)}, {amount(contents.saved_bytes)} saved as equal content",
            "adds": f"{contents.own_files} files with {amount(contents.own_stored_bytes)} of content of its own",
        }
    )
    for number, one in enumerate(found.sets):
        output.line()
        last = number == len(found.sets) - 1
        output.line(f"{'own' if last else 'parent'} region set {one.set_id}, {amount(one.size)}")
        _print_set(output, one)


def _print_set(output: Output, one: SetUse) -> None:
    output.line(f"    written by {one.owner or 'an image that is not there'}, used by {', '.join(one.users)}")
    for file in one.files:
        output.line(f"    {_file(file)}")


def _file(file: DiskFile) -> str:
    return f"{file.name}  {'missing' if file.size is None else amount(file.size)}"


def _counts(contents: Contents) -> str:
    return (
        f"{contents.files} files, {contents.directories} directories, {contents.hard_links} hard links, "
        f"{contents.reparse_points} reparse points, {contents.streams} alternate streams"
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


# ---- a directory of images ----


def _print_directory(output: Output, directory: ImageDirectory) -> None:
    for name, sets in directory.region_sets.items():
        parents = [directory.owner(one.set_id) or str(one.set_id) for one in reversed(sets[:-1])]
        output.line(name + (f", on {', '.join(parents)}" if parents else ""))
        for file in directory.files_of(sets[-1]):
            output.line(f"    {_file(file)}")
    for name, error in directory.unreadable.items():
        output.line(f"{name}: cannot be read: {error.strerror}")
    if orphans := directory.orphans():
        output.line("of no image" + (" that can be read" if directory.unreadable else ""))
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
