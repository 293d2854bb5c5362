"""`cimlayer store`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cimlayer import LayerStore
from support.commands import call, succeed
from support.fleets import family, fill


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    store = LayerStore(tmp_path / "store")
    (keys,) = fill(store, family(tmp_path / "sources", 1))
    for age, key in enumerate(keys):
        os.utime(store.layout.image(key), (0, age * 86400))
    return store


def keys(store: LayerStore) -> list[str]:
    return [layer.key for layer in store.layers()]


def test_ls_lists_layers_by_their_last_use(store: LayerStore) -> None:
    store.pin(keys(store)[1])
    os.utime(store.layout.image(keys(store)[-1]), (0, 86400 * 7))
    lines = succeed("store", "ls", store.path).splitlines()
    assert [line[:16] for line in lines] == ["1970-01-01 00:00", "1970-01-03 00:00", "1970-01-08 00:00"]
    assert [line.split("  ")[-1] == "pinned" for line in lines].count(True) == 1
    records = [json.loads(line) for line in succeed("store", "ls", store.path, "--json").splitlines()]
    assert [record["key"] for record in records] == keys(store)
    assert [record["pinned"] for record in records].count(True) == 1
    assert {record["parent"] for record in records} < {None, *keys(store)}


def test_gc_removes_layers_and_says_which(store: LayerStore) -> None:
    every = keys(store)
    dry = succeed("store", "gc", store.path, "--keep", "0", "--dry-run").splitlines()
    assert dry[:3] == every[::-1]
    assert dry[3].endswith("would be removed")
    assert keys(store) == every
    succeed("store", "pin", store.path, every[1])
    record = json.loads(succeed("store", "gc", store.path, "--keep", "0KiB", "--json"))
    assert record["layers"] == every[:1:-1]
    assert record["bytes"] > 0
    succeed("store", "unpin", store.path, store.path / every[1])
    assert succeed("store", "gc", store.path, "--keep", "1T").startswith("0 layers")
    assert succeed("store", "gc", store.path, "--keep", "1").startswith(f"{every[1]}\n{every[0]}\n2 layers")


def test_check_is_silent_until_something_is_wrong(store: LayerStore) -> None:
    assert succeed("store", "check", store.path, "--content") == ""
    store.layout.image(keys(store)[0]).write_bytes(b"cut")
    result = call("store", "check", store.path)
    assert result.exit_code == 1
    assert ".cim: " in result.stdout
    assert json.loads(call("store", "check", store.path, "--json").stdout.splitlines()[0])["reason"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("gc STORE --keep 5Q", 2),
        ("gc STORE --keep", 2),
        ("ls", 2),
        ("ls missing", 1),
        ("check missing", 1),
        ("pin STORE x", 1),
        ("pin STORE " + "0" * 64, 1),
        ("unpin STORE " + "0" * 64, 1),
    ],
)
def test_wrong_calls(store: LayerStore, arguments: str, code: int) -> None:
    result = call("store", *arguments.replace("STORE", str(store.path)).split())
    assert result.exit_code == code
    assert code == 2 or result.stderr.count("\n") == 1
    assert len(keys(store)) == 3
