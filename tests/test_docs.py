"""What the documentation says is so: its Python runs, and its lists are complete."""

from __future__ import annotations

import ast
import gzip
import hashlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import click
import fsspec
import pytest

import cimlayer
from cimlayer.cli.program import commands
from support import ROOT
from support.platforms import same_everywhere

pytestmark = same_everywhere

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BASE, CHILD = (ROOT / "examples" / f"sample-{name}.tar" for name in ("layer", "child"))

README = (ROOT / "README.md").read_text("utf-8")
API, COMMAND_LINE = ((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("api", "cli"))


def python_of(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def test_the_python_of_the_readme_runs_in_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(python_of(README), {})
    assert capsys.readouterr().out.endswith("True\n")


def test_the_python_of_the_api_page_runs_on_layers_of_those_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = CHILD.read_bytes()
    (tmp_path / "base.tar.gz").write_bytes(gzip.compress(BASE.read_bytes()))
    (tmp_path / "app.tar.zst").write_bytes(zstd.compress(child))
    (tmp_path / "untrusted.tar.gz").write_bytes(gzip.compress(child))
    monkeypatch.chdir(tmp_path)
    # As the entry point does, which an installation of an older state does not have yet.
    fsspec.register_implementation("cim", "cimlayer.image.filesystem.CimFileSystem", clobber=True)
    names: dict[str, object] = {}
    exec(python_of(API).replace("sha256:...", f"sha256:{hashlib.sha256(child).hexdigest()}"), names)
    assert names["content"] == b"hello"
    assert (tmp_path / "images" / "new.cim").exists()


def parameters_of(name: str) -> str:
    """As the page has them: without types, and with defaults as they would be written in a call."""
    words = []
    for parameter in inspect.signature(getattr(cimlayer, name)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        default = parameter.default
        if default is parameter.empty:
            words.append(parameter.name)
        elif isinstance(default, cimlayer.Limits):
            words.append(f"{parameter.name}=Limits()")
        elif isinstance(default, Enum):
            words.append(f"{parameter.name}={type(default).__name__}.{default.name}")
        else:
            words.append(f"{parameter.name}={default!r}".replace("'", '"'))
    return ", ".join(words)


COMPILED = {"BackupStreamParser", "ImageReader", "ImageWriter"}  # their constructors have no signature at run time
SIGNATURES = dict(re.findall(r"^\| `(\w+)\(([^`]*)\)` \|", API, re.MULTILINE))
FUNCTIONS = [name for name in cimlayer.__all__ if inspect.isfunction(getattr(cimlayer, name))]


def test_the_api_page_has_the_signature_of_every_function() -> None:
    assert set(FUNCTIONS) - set(SIGNATURES) == set()


@pytest.mark.parametrize("name", sorted(set(SIGNATURES) - COMPILED))
def test_the_signatures_of_the_api_page_are_complete(name: str) -> None:
    assert SIGNATURES[name] == parameters_of(name)


def every_command(group: click.Group, words: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += every_command(command, (*words, name))
        else:
            found.append((" ".join((*words, name)), command))
    return found


@pytest.mark.parametrize(("name", "command"), every_command(commands))
def test_the_page_of_the_command_line_has_every_option(name: str, command: click.Command) -> None:
    for_all, *sections = re.split(r"^## ", COMMAND_LINE, flags=re.MULTILINE)
    section = next(text for text in sections if text.startswith(name.partition(" ")[0] + "\n"))
    options = [parameter.opts for parameter in command.params if isinstance(parameter, click.Option)]
    assert [opts for opts in options if not any(opt in for_all + section for opt in opts)] == []


def test_the_tests_that_pages_and_workflows_name_exist() -> None:
    pages = [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob(".github/workflows/*.yml"),
        ROOT / "CONTRIBUTING.md",
    ]
    names = {name for page in pages for name in re.findall(r"\btests/[\w/]+\.(?:py|c)\b", page.read_text("utf-8"))}
    assert {name for name in names if not (ROOT / name).is_file()} - {
        "tests/fuzz/python/NAME.py",
        "tests/fuzz/c/NAME.c",
    } == set()


def test_the_page_of_windows_lists_each_reason_to_skip() -> None:
    page = (ROOT / "docs" / "windows.md").read_text("utf-8")
    marks = re.compile(r'(posix_only|not_under_wine)\("([^"]+)"')
    prefixes = {"posix_only": "POSIX only", "not_under_wine": "not under wine"}
    found = {
        f"{prefixes[mark]}: {reason}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for mark, reason in marks.findall(path.read_text("utf-8"))
    }
    assert found and [reason for reason in found if f"`{reason}`" not in page] == []


def test_the_page_of_the_architecture_says_what_each_dependency_is_for() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    libraries = page.partition("\n## Libraries\n")[2].partition("\n## ")[0]
    listed = (ROOT / "pyproject.toml").read_text("utf-8")
    names = set(re.findall(r'"([\w.-]+)(?:\[\w+\])?[>=]=', listed))
    assert {"click", "Cython", "jsonschema", "ruff"} <= names
    assert {name for name in names if not re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", libraries)} == set()


# The names of what skips a test, and how the reason begins that each one makes of what it is given.
SKIPS = {
    "posix_only": "POSIX only: ",
    "not_under_wine": "not under wine: ",
    "skip": "",
    "skipif": "",
    "importorskip": "",
}


def skip_reasons(source: str) -> Iterator[str]:
    """The reasons in a module of tests that stand there as they are reported."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            name = ast.unparse(call.func).rpartition(".")[2]
            words = [word.value for word in call.keywords if word.arg == "reason"]
            if name in ("posix_only", "not_under_wine", "skip"):
                words += call.args[:1]
            yield from (
                SKIPS[name] + str(word.value) for word in words if name in SKIPS and isinstance(word, ast.Constant)
            )


def test_the_page_of_windows_has_every_reason_to_skip_a_test() -> None:
    page = (ROOT / "docs" / "windows.md").read_text("utf-8")
    modules = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    reasons = {reason for module in modules for reason in skip_reasons(module)}
    assert len(reasons) > 50
    kinds = re.compile(r".* is not installed|Windows only: .*")
    assert {reason for reason in reasons if f"`{reason}`" not in page and not kinds.fullmatch(reason)} == set()
