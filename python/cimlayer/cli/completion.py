"""``cimlayer completion``."""

from __future__ import annotations

import click

from cimlayer.cli.completing import SHELLS


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the script that completes words in a shell.

    SHELL is bash, zsh or fish. Commands, options and their values, paths of the host, and paths inside CIMs are
    completed. To have it in every session, add a line to the start-up file of the shell, for example to ~/.bashrc:
    eval "$(cimlayer completion bash)".
    """
    from cimlayer.cli.program import commands  # noqa: PLC0415

    click.echo(SHELLS[shell](commands, {}, "cimlayer", "_CIMLAYER_COMPLETE").source(), nl=False)
