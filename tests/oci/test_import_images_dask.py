"""Many images with the workers of a dask cluster, one of which dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cimlayer import Event, LayerDone, LayerReused, LayerStore, import_images
from support import ROOT
from support.commands import call
from support.fleets import assert_clean, distinct, endless, family, killing
from support.platforms import needs_kill, same_everywhere

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.filterwarnings("default"), same_everywhere]  # warnings are those of its event loops


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, each a process."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    try:
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster:
            yield cluster
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


@needs_kill
def test_a_worker_that_is_killed_costs_nothing_but_time(cluster: Any, tmp_path: Path) -> None:
    sources: list[Any] = family(tmp_path / "sources", 8)
    sources[3] = killing(sources[3], tmp_path / "killed")
    events: list[Event] = []
    with distributed.Client(cluster) as client:
        executor = client.get_executor(pure=False)
        results = list(import_images(sources, tmp_path / "store", executor, sync=False, progress=events.append))
    assert (tmp_path / "killed").exists()
    assert [result.error for result in results] == [None] * 8
    # What a dead worker has made, and nobody has heard of yet, is found in the store.
    done = [event.layer for event in events if isinstance(event, (LayerDone, LayerReused))]
    assert len(done) == len(set(done)) == distinct(8)
    assert_clean(LayerStore(tmp_path / "store"), distinct(8))


def test_closing_the_iterator_stops_the_workers(cluster: Any, tmp_path: Path) -> None:
    sources: list[Any] = family(tmp_path / "sources", 2)
    sources[1] = endless(sources[1], tmp_path / "begun")
    with distributed.Client(cluster) as client:
        results = import_images(sources, tmp_path / "store", client.get_executor(pure=False), sync=False)
        assert next(results).number == 0
        results.close()  # type: ignore[attr-defined]
    assert_clean(LayerStore(tmp_path / "store"), 3)


def test_the_command_finds_a_cluster_by_its_address(cluster: Any, tmp_path: Path) -> None:
    sources = family(tmp_path / "sources", 2)
    (tmp_path / "list").write_text("\n".join(map(str, sources)), encoding="utf-8")
    address = cluster.scheduler_address
    result = call("import-images", tmp_path / "list", tmp_path / "store", "--no-sync", "-q", "--dask", address)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(line.split("  ")[1] for line in result.stdout.splitlines()) == sorted(map(str, sources))
    assert_clean(LayerStore(tmp_path / "store"), distinct(2))
