"""``cimlayer update``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from cimfs_ext.imagepath import image_path
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.cli.output import Output, amount, counted, warn
from cimlayer.cli.stopping import stoppable
from cimlayer.cli.waiting import wait_option
from cimlayer.image.update import parse_changes, update_image
from cimlayer.limits import Limits


@click.command("update")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("file", metavar="[FILE]", type=HOST_PATH, required=False)
@click.option("-c", "--command", "commands", multiple=True, metavar="COMMAND", help="One change, instead of FILE.")
@click.option("-o", "--output", metavar="CIM", type=HOST_PATH, help="The CIM to create beside the first, which stays.")
@click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk.")
@wait_option
@limit_option
@click.option("as_json", "--json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    image: str,
    file: str | None,
    commands: tuple[str, ...],
    output: str | None,
    no_sync: bool,
    lock_timeout: float,
    limits: Limits,
    as_json: bool,
) -> None:
    """Add, delete and rename files in a CIM.

    FILE has one change in each line, as `wimlib-imagex update` takes them; - is standard input:

    \b
      add SOURCE PATH          a file or folder of the host
      delete [--force] PATH    with all that it holds
      rename PATH NEWPATH

    The CIM is replaced once all changes are made; if one fails, it stays as it was.
    """
    if bool(file) == bool(commands):
        raise click.UsageError("Either FILE or --command says what to change.")
    if commands:
        changes = parse_changes(commands, "--command")
    elif file == "-":
        changes = parse_changes(sys.stdin, "standard input")
    else:
        with open(str(file), encoding="utf-8", errors="surrogateescape") as lines:
            changes = parse_changes(lines, str(file))
    printed = Output()
    path = image_path(image)
    with stoppable() as cancel:
        done = update_image(
            path, changes, output=output, sync=not no_sync, limits=limits, lock_timeout=lock_timeout, cancel=cancel
        )
    for text in done.warnings:
        warn(text)
    result = output or path
    with printed.after(f"{result} was written"):
        if as_json:
            printed.json({"image": str(result)} | asdict(done))
        else:
            added = f"{counted(done.added, 'entry', 'entries')} added, {amount(done.bytes)} of files"
            printed.line(f"{result}: {added}; {done.deleted} deleted, {done.renamed} renamed")
