"""What more than one module of tests needs once."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import cimlayer
from support.corpus import PARENTS
from support.libraries import Recorder, read_record
from support.platforms import examples
from support.report import Report
from support.shared import SHARED_LAYERS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", metavar="FILE", type=Path, help="write a report that can be attached to an issue")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("CIMLAYER_IMPLEMENTATION", "portable")  # on Windows, too: tests of the system's say so
    if config.getoption("--report") and not hasattr(config, "workerinput"):  # which processes of pytest-xdist have
        config.pluginmanager.register(Report(config.getoption("--report")))
    # No deadline: what is measured on a busy machine is the machine.
    settings.register_profile("tests", deadline=None, max_examples=examples(settings().max_examples))
    settings.load_profile("tests")
    # A shell has what it starts in the background ignore interrupts, and so would the processes of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _encodable(data: Any) -> Any:
    """The same with half surrogate pairs, which names have here and UTF-8 has not, as escapes."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {_encodable(key): _encodable(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(map(_encodable, data))
    return data


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A failure that shows such a name would otherwise end the run, since pytest-xdist sends reports as UTF-8."""
    return _encodable((yield))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layers of the corpus, imported reproducibly; nobody changes them."""
    if not SHARED_LAYERS.is_dir():
        pytest.skip("the layer corpus is not here")
    root = tmp_path_factory.mktemp("corpus")
    for name, parents in PARENTS.items():
        above = [root / parent for parent in parents]
        cimlayer.import_layer(SHARED_LAYERS / f"{name}.tar.gz", root / name, above, sync=False, reproducible=True)
    return root


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What a recording library has written down since the fixture was made."""
    record = tmp_path / "record.json"
    record.touch()
    monkeypatch.setenv("RECORDING_CIMFS", str(record))
    return lambda: read_record(record)
