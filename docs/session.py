"""The picture of a session in README.md, of what the commands of its quick start print: `python docs/session.py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "session.svg"
_SESSION = (
    "cimlayer import examples/sample-layer.tar layers/1",
    "cimlayer ls -l -R layers/1",
    "cimlayer verify layers/1",
)
_WIDTH = 88
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # fonts from another host
_SECONDS = re.compile(r"\b[0-9]+\.[0-9]{2} s$", re.MULTILINE)


def session() -> str:
    """The commands and their output, in colour; the time that the import takes is always the same."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1577836800", "COLUMNS": str(_WIDTH)}
    environment.pop("NO_COLOR", None)
    text = ""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(ROOT / "examples", Path(directory, "examples"))
        for typed in _SESSION:
            program, *arguments = typed.split()
            command = [sys.executable, "-m", program, *arguments, "--color", "always"]
            done = subprocess.run(
                command, cwd=directory, env=environment, check=True, stdout=subprocess.PIPE, encoding="utf-8"
            )
            text += f"$ {typed}\n{done.stdout}"
    return _SECONDS.sub("0.02 s", text)


def picture(text: str) -> str:
    """A terminal with this text as SVG; needs the extra `docs`."""
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_WIDTH, file=nowhere, force_terminal=True, color_system="standard")
        console.print(Text.from_ansi(text.rstrip()), highlight=False)
    return _FONT_FACE.sub("", console.export_svg(title="cimlayer", unique_id="session"))


if __name__ == "__main__":
    PICTURE.write_bytes(picture(session()).encode())
