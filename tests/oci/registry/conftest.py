"""A fake container registry that has one image, and a client that does not wait long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import Layer, Store, base_tar, child_tar, gzipped
from support.registries import FakeRegistry, running


@pytest.fixture(autouse=True)
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials and no proxies of whoever runs the tests, and tries follow each other at once."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "nobody.json"))
    (tmp_path / "nobody.json").write_text("{}", encoding="utf-8")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("cimlayer.oci.registry.failures._FIRST_WAIT", 0.001)


@pytest.fixture(scope="session")
def layers() -> list[Layer]:
    return [gzipped(base_tar()), gzipped(child_tar(noise=random.Random(1).randbytes(600_000)))]


@pytest.fixture
def store(layers: list[Layer]) -> Store:
    return Store()


@pytest.fixture
def registry(store: Store) -> Iterator[FakeRegistry]:
    with running(store) as server:
        yield server


@pytest.fixture
def image(registry: FakeRegistry, store: Store, layers: list[Layer]) -> str:
    """What to pull."""
    return registry.tag("win/app:v1", store.image(layers))
