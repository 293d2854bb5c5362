"""Arguments that are paths of the host."""

from __future__ import annotations

import click

# Whoever opens one finds out whether it is there; the type is for the shell, which completes names of files.
HOST_PATH = click.Path(readable=False)
