"""The option --wait, for commands that need what others may hold."""

from __future__ import annotations

import math

import click

wait_option = click.option(
    "lock_timeout",
    "--wait",
    metavar="[SECONDS]",
    type=click.FloatRange(min=0),
    is_flag=False,
    flag_value=math.inf,
    default=0,
    help="Wait while another process uses the CIM or its parent, indefinitely or for this many seconds.",
)
