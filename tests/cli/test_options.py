"""The options that all commands have, colours, and suggestions."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from cimlayer.cli.program import commands
from support import ROOT
from support.clitests import (
    image,  # noqa: F401  fixtures
)
from support.commands import call, run, succeed
from support.terminals import shown_on_a_terminal

ESCAPE = "\x1b["


def leaves(group: click.Group) -> list[click.Command]:
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        found += leaves(command) if isinstance(command, click.Group) else [command]
    return [command for command in found if command is not None]


def test_every_command_has_the_common_options_once() -> None:
    for command in leaves(commands):
        names = [name for parameter in command.params for name in parameter.opts if isinstance(parameter, click.Option)]
        assert len(names) == len(set(names)), command.name
        assert {"--quiet", "--verbose", "--color"} <= set(names), command.name


@pytest.mark.parametrize(
    ("option", "environment", "colored"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {}, False),
    ],
)
def test_colours_of_a_terminal(image: Path, option: str, environment: dict[str, str], colored: bool) -> None:
    shown = shown_on_a_terminal("ls", image, f"--color={option}", environment={"TERM": "xterm"} | environment)
    assert ("\x1b[1;34mFiles/\x1b[0m" in shown) is colored
    assert "Files/" in shown


def test_a_pipe_gets_colours_only_if_asked(image: Path) -> None:
    assert ESCAPE not in succeed("ls", image)
    colored = succeed("ls", image, "Odd", "--color=always")
    assert "csi\\x9b31m" in colored  # escaped as for a terminal, where it will end up
    other = run("ls", image, "missing", "--color", "always").stderr
    assert other.startswith(b"\x1b[1;31mcimlayer:\x1b[0m missing: ")


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["lss"], "No such command 'lss'. Did you mean ls?"),
        (["verfy", "x"], "Did you mean verify?"),
        (["regstry"], "Did you mean registry or destroy?"),
        (["qwertz"], "No such command 'qwertz'.\n"),
        (["ls", "x", "--jsn"], "--json"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(arguments: list[str], suggestion: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert suggestion in result.stderr


def test_verbose_shows_the_log_and_where_a_failure_comes_from(tmp_path: Path) -> None:
    done = run("import", ROOT / "examples" / "sample-layer.tar", tmp_path / "1", "--no-sync", "-v")
    assert done.returncode == 0
    assert b"import_layer (layer 1)" in done.stderr
    missing = run("ls", tmp_path / "missing", "-v").stderr
    assert missing.startswith(b"Traceback")
    assert missing.splitlines()[-1].startswith(b"cimlayer: ")


def test_h_is_help_unless_a_command_has_sizes(image: Path) -> None:
    assert run("-h").stdout == run("--help").stdout  # programs: click keeps the help option of the first call
    assert run("cat", "-h").stdout.startswith(b"Usage: cimlayer cat")
    assert succeed("ls", image, "-h") == succeed("ls", image)
