"""``cimlayer scratch``."""

from __future__ import annotations

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.layer.scratch import create_scratch_disks


@click.command("scratch")
@click.argument("directory", metavar="DIR", type=HOST_PATH)
@click.option("--no-sync", is_flag=True, help="Do not wait for the data to reach the disk.")
def command(directory: str, no_sync: bool) -> None:
    """Create scratch disks for all layers of a store.

    DIR gets blank-base.vhdx, a formatted disk of 20 GiB, and blank.vhdx, a differencing disk on it: the pair that
    containerd keeps at the root of its snapshots. Disks that exist already are not replaced.
    """
    create_scratch_disks(directory, sync=not no_sync)
