"""The options that every command has."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cimlayer.cli.output import COLOR, QUIET, VERBOSE


def add_common_options(command: click.Command) -> click.Command:
    """Give them to a command, or to all commands of a group; one that has an option of that name keeps its own."""
    for each in _leaves(command):
        own = {name for parameter in each.params for name in parameter.opts}
        each.params += [option for option in _options() if not own & set(option.opts)]
    return command


def _leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    for each in command.commands.values():
        yield from _leaves(each)


def _options() -> list[click.Option]:
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_keep_quiet,
            help="Print only the result: no progress, no warnings.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_keep_verbose,
            help="Show the log, and where a failure comes from.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            expose_value=False,
            is_eager=True,
            callback=_keep_color,
            help="Colours: on a terminal unless NO_COLOR is set (auto), always or never.",
        ),
    ]


def _keep_quiet(context: click.Context, _parameter: click.Parameter, quiet: bool) -> None:
    context.meta[QUIET] = quiet


def _keep_color(context: click.Context, _parameter: click.Parameter, color: str) -> None:
    context.meta[COLOR] = color


def _keep_verbose(context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    context.meta[VERBOSE] = verbose
    if verbose:
        import logging  # noqa: PLC0415

        from cimlayer.cli.output import escaped  # noqa: PLC0415

        class Line(logging.StreamHandler):  # type: ignore[type-arg]
            def format(self, record: logging.LogRecord) -> str:
                return f"{record.relativeCreated / 1000:8.3f} {escaped(record.getMessage())}"

        log = logging.getLogger("cimlayer")
        log.setLevel(logging.DEBUG)
        log.handlers[:] = [Line()]
