"""Manual pages made from the help of the commands: ``python -m cimlayer.cli.manpages DIR``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cimlayer.cli.program import commands


def pages(command: click.Command, name: str = "cimlayer") -> Iterator[tuple[str, str]]:
    """File name and text in man(7) of the page of a command and of each one in it."""
    context = click.Context(command, info_name=name)
    yield f"{name.replace(' ', '-')}.1", _page(command, context, name)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            if inner is not None:
                yield from pages(inner, f"{name} {each}")


def _page(command: click.Command, context: click.Context, name: str) -> str:
    title = name.replace(" ", "-")
    parts = [f'.TH "{title.upper()}" 1', ".SH NAME", f"{_text(title)} \\- {_text(command.get_short_help_str(200))}"]
    parts += [".SH SYNOPSIS", f".B {_text(name)}", _text(" ".join(command.collect_usage_pieces(context)))]
    parts.append(".SH DESCRIPTION")
    for paragraph in (command.help or "").replace("\b", "").split("\n\n"):
        parts += [".PP", _text(" ".join(paragraph.split()))]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    if any(records):
        parts.append(".SH OPTIONS")
    for record in filter(None, records):
        parts += [".TP", f".B {_text(record[0])}", _text(record[1])]
    if isinstance(command, click.Group):
        names = (f"{title}-{each}" for each in command.list_commands(context))
        parts += [".SH SEE ALSO", ", ".join(f"\\fB{_text(each)}\\fR(1)" for each in names)]
    return "\n".join([*parts, ""])


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in pages(commands):
        (directory / file).write_text(content, "utf-8")
