"""Arguments that are paths on the host."""

from __future__ import annotations

import click

# Opening the path finds out whether it exists; the type is for shell completion of file names.
HOST_PATH = click.Path(readable=False)
