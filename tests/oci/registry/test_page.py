"""The page about container registries: what its sessions show is what the commands say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import cimlayer
from support import ROOT
from support.commands import call
from support.registries import docker_registry

PAGE = (ROOT / "docs" / "container-registries.md").read_text("utf-8")


def comparable(text: str) -> str:
    """Without what differs from run to run: times, directories, and digests, which depend on the version of zlib."""
    text = re.sub(r"in \d+\.\d s", "in 0.0 s", text)
    text = re.sub(r"^/.*/", "/src/", text, flags=re.MULTILINE)
    return re.sub(r"\b[0-9a-f]{12,64}\b", "#", text)


def test_the_sessions_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = tmp_path / "layers"
    cimlayer.import_layer(ROOT / "examples" / "sample-layer.tar", layers / "1", sync=False)
    cimlayer.import_layer(ROOT / "examples" / "sample-child.tar", layers / "2", [layers / "1"], sync=False)
    monkeypatch.chdir(tmp_path)
    sessions = re.findall(r"^\$ cimlayer (.*)\n((?:(?!\$ |```).*\n)*)", PAGE, re.MULTILINE)
    assert len(sessions) > 5
    with docker_registry(tmp_path) as host:
        here = f"localhost:{host.rpartition(':')[2]}"
        for command, shown in sessions:
            result = call(*shlex.split(command.replace("localhost:5000", here)))
            said = (result.stderr + result.stdout).replace(here, "localhost:5000")
            assert comparable(said) == comparable(shown), command
