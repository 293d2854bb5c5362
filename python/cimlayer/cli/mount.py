"""``cimlayer mount``."""

from __future__ import annotations

import signal

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.limiting import limit_option
from cimlayer.image.fuse import mount_with_fuse
from cimlayer.limits import Limits


@click.command("mount")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("-f", "--foreground", is_flag=True, help="Serve the CIM from this process, until Ctrl-C or an unmount.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mounted files.")
@click.option("--streams-as-files", is_flag=True, help="Show alternate streams as files NAME:STREAM too.")
@limit_option
def command(
    image: str, directory: str, foreground: bool, allow_other: bool, streams_as_files: bool, limits: Limits
) -> None:
    """Mount a CIM as a read-only file system.

    DIR must be an empty directory. The command returns once the CIM is mounted; `cimlayer unmount DIR` ends it.
    Requires FUSE (the package fuse3).
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    mount_with_fuse(
        image,
        directory,
        background=not foreground,
        allow_other=allow_other,
        streams_as_files=streams_as_files,
        limits=limits,
    )
