"""The sessions of docs/cli.md are what a user sees: all of them run here, one after another, in one shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import ROOT
from support.hives import corpus
from support.shared import SHARED_HIVES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sessions are those of a POSIX shell")

PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")
CLONE = "/src/cimlayer"
PROGRAMS = ("bsdtar", "getfattr", "jq")
CORPUS = {"SYSTEM": "SYSTEM_WIN_10_1709", "System_Delta": "System_Delta", "BCD": "BCD"}
UNTIL_IT_WRITES = "until [ $(ls layers/cim-layers/region_*_2 | wc -l) -gt 3 ]; do sleep 0.05; done; sleep 1"
GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Command:
    """A command of a section, as typed, and what the page says that it prints."""

    section: str
    text: str
    output: str

    @property
    def missing(self) -> str:
        """What the command needs and this machine does not have; empty if it has everything."""
        if self.section == "mount" and not (Path("/dev/fuse").exists() and shutil.which("fusermount3")):
            return "FUSE"
        if not SHARED_HIVES.is_dir() and any(name in self.text.split() for name in CORPUS):
            return "hives of Windows"
        return next((name for name in PROGRAMS if name in self.text.split() and not shutil.which(name)), "")


def commands() -> list[Command]:
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        for session in re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            for text in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
                lines = text.split("\n")
                typed = 1 + next(n for n, line in enumerate(lines[1:]) if not line.startswith("> "))
                joined = "\n".join([lines[0], *(line[2:] for line in lines[1:typed])])
                found.append(Command(section.partition("\n")[0], joined, "\n".join(lines[typed:])))
    return found


COMMANDS = commands()
SECTIONS = list(dict.fromkeys(command.section for command in COMMANDS))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[Command, str]:
    """What each command prints in a directory with what a clone has. Takes as long as its eighty programs."""
    root = tmp_path_factory.mktemp("clone").resolve()
    shutil.copytree(ROOT / "examples", root / "examples")
    if SHARED_HIVES.is_dir():
        for name, sample in CORPUS.items():
            (root / name).write_bytes(corpus(sample))
    programs = tmp_path_factory.mktemp("bin")
    (programs / "cimlayer").write_text(
        f"#!{sys.executable}\nfrom cimlayer.cli import main\nif __name__ == '__main__':\n    main()\n", encoding="utf-8"
    )
    (programs / "cimlayer").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "SOURCE_"))}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "120"}
    run = [command for command in COMMANDS if not command.missing]
    typed = [command.text.replace("& sleep 1;", f"& {UNTIL_IT_WRITES};") for command in run]
    script = "umask 022; exec 2>&1 </dev/null\n" + "".join(f"{text}\nprintf '\\1\\n'\n" for text in typed)
    file = programs / "output"  # no pipe: what a command leaves in the background would keep it open
    try:
        with file.open("wb") as output:
            subprocess.run(["bash", "-c", script], cwd=root, env=environment, stdout=output, check=True, timeout=120)
    finally:
        subprocess.run(["fusermount3", "-qu", root / "mnt"], check=False)
    printed = file.read_text("utf-8").replace(str(root), CLONE).split("\1\n")
    assert len(printed) == len(run) + 1, printed[-1]
    return dict(zip(run, printed, strict=False))


class Names:
    """Gives what differs on every run a name, the same one wherever it comes back."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def named(self, text: str) -> str:
        text = re.sub(GUID, lambda found: self._names.setdefault(found[0], f"GUID {len(self._names)}"), text)
        text = re.sub(r'\b[0-9]+\.[0-9]+ s$|(?<="seconds": )[0-9.]+', "TIME", text, flags=re.MULTILINE)
        text = re.sub(r"^bash: line.*\bKilled\b.*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"\bsha256:[0-9a-f]{64}", "DIGEST", text)  # of layers as this version of zlib compresses them
        text = re.sub(r"^[0-9-]{10} [0-9]{2}:[0-9]{2}(?= )", "DATE AND TIME", text, flags=re.MULTILINE)
        text = re.sub(r"^total [0-9]+$", "total SIZE", text, flags=re.MULTILINE)  # which the file system decides
        return re.sub(r"^(d[rwx-]{9} +\d+) \S+ \S+ +\d+|^(-[rwx-]{9} +\d+) \S+ \S+", r"\1\2", text, flags=re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_sessions_of_a_section_are_real(outputs: dict[Command, str], section: str) -> None:
    written, seen = Names(), Names()
    of_section = [command for command in COMMANDS if command.section == section]
    for command in of_section:
        if command in outputs:
            seen_lines, lines = (seen.named(outputs[command]).split("\n"), written.named(command.output).split("\n"))
            if "import-images" in command.text:  # whose processes say in any order what they have done
                seen_lines, lines = sorted(seen_lines), sorted(lines)
            assert seen_lines == lines, command.text
    missing = {command.missing for command in of_section} - {""}
    if missing:
        pytest.skip(f"not all of it: no {', '.join(sorted(missing))}")
