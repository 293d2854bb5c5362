"""A store of layers: keys, claims, layers that appear as a whole and go as a whole, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimlayer import FormatError, LayerStore, destroy_cim_layer, import_layer
from cimlayer.blobs.digests import Digest
from cimlayer.events import CancellationToken
from cimlayer.image.files import ImageDirectory
from cimlayer.layer.garbage import collect_garbage
from cimlayer.layer.store import claims
from cimlayer.layer.store.claims import Claim
from cimlayer.layer.store.garbage import remove_layers
from cimlayer.layer.store.keys import ByteOptions, is_key
from cimlayer.layer.store.staging import ParentGoneError, Staging, settle
from support.containers import base_tar, child_tar, plain
from support.fleets import assert_clean, family, fill, layout_of

CHAIN_ID = "sha256:" + "0a" * 32
KEY, OTHER = "0a" * 32, "0b" * 32


# ---- keys ----


def test_the_default_options_add_nothing_to_the_chain_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert LayerStore.key(CHAIN_ID) == KEY
    assert LayerStore.key("sha512:" + "0a" * 64) == "0a" * 64
    variants: list[dict[str, Any]] = [
        {"reproducible": True},
        {"utility_vm": "keep"},
        {"utility_vm": "process"},
        {"scratch_disks": False},
        {"reproducible": True, "scratch_disks": False},
    ]
    keys = [LayerStore.key(CHAIN_ID, **options) for options in variants]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    keys += [LayerStore.key(CHAIN_ID), LayerStore.key(CHAIN_ID, reproducible=True)]
    assert len({KEY, *keys}) == 8
    assert all(is_key(key) and key.startswith(f"{KEY}-") for key in keys)


def test_keys_stay_what_they_are() -> None:
    """Stores of earlier versions have them."""
    key = ByteOptions(reproducible=True, utility_vm="keep", scratch_disks=False, source_date_epoch="1")
    assert key.key(Digest("sha256", KEY)) == f"{KEY}-ab6cba8951cd91b7"


@pytest.mark.parametrize("wrong", ["", "sha256:0", "md5:" + "0" * 32, "../x"])
def test_what_is_no_digest_has_no_key(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        LayerStore.key(wrong)
    with pytest.raises(ValueError, match="key"):
        LayerStore(tmp_path).pin(wrong)


# ---- claims ----


def take(root: Path, settle: Callable[[Path], None] = lambda work: None) -> Claim | None:
    return Claim.take(root, KEY, settle)


def taken(root: Path) -> Claim:
    claim = take(root)
    assert claim is not None
    return claim


def test_a_claim_is_one_holders_until_it_is_released(tmp_path: Path) -> None:
    claim = taken(tmp_path)
    (claim.path / "work").touch()
    assert take(tmp_path) is None
    claim.release()
    assert list(tmp_path.iterdir()) == []
    taken(tmp_path).release()


@pytest.mark.skipif(os.name == "nt", reason="locks do not tell there")
def test_a_claim_of_a_process_that_is_gone_is_taken_at_once_and_its_paths_lead_nowhere(tmp_path: Path) -> None:
    gone = taken(tmp_path)
    (gone.path / "work").touch()
    os.close(gone._descriptor)  # as its end does
    seen: list[list[str]] = []
    claim = take(tmp_path, lambda work: seen.append(sorted(os.listdir(work))))
    assert claim is not None
    assert seen == [["holder", "work"]]
    assert not gone.path.exists()
    assert claim.path.exists()


def test_a_claim_from_another_machine_is_taken_when_it_was_not_touched_for_long(tmp_path: Path) -> None:
    claim = taken(tmp_path)
    holder = claim.path / "holder"
    holder.write_text("another machine", encoding="utf-8")
    assert take(tmp_path) is None
    for path in (holder, claim.path.parent):
        os.utime(path, (0, holder.stat().st_mtime - claims.ABANDONED + 5))
    assert take(tmp_path) is None
    os.utime(holder, (0, holder.stat().st_mtime - 10))
    os.utime(claim.path.parent, (0, holder.stat().st_mtime))
    assert take(tmp_path) is not None
    claim.release()
    assert claim.lost


def test_a_holder_notices_that_its_claim_was_lost_or_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_LOOK", 0.001)
    monkeypatch.setattr(claims, "_BEAT", 0.001)
    for lose in (True, False):
        claim, cancel = taken(tmp_path), CancellationToken()
        wanted = [True]
        with claim.kept(cancel, lambda: wanted[0]):  # noqa: B023
            if lose:
                claims.evict(tmp_path, KEY, lambda work: None)
            wanted[0] = lose
            while not cancel.cancelled:
                pass
        assert claim.lost == lose
        claim.release()


# ---- a layer, from the claim into the store ----


BASE, CHILD = plain(base_tar(a=b"a" * 5000)), plain(child_tar(b=b"b" * 5000))


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    store = LayerStore(tmp_path / "store")
    store.layout.make()
    return store


def staged(store: LayerStore, tar: bytes, key: str, parent: str | None = None) -> tuple[Claim, Staging]:
    claim = Claim.take(store.layout.claims, key, lambda work: settle(store.layout, work))
    assert claim is not None
    staging = Staging(store.layout, key, parent, claim)
    path = store.path.parent / "layer.tar"
    path.write_bytes(tar)
    import_layer(path, staging.layer, staging.parents, sync=False)
    (staging.layer / "cimlayer.json").write_text(json.dumps({"chain_id": f"sha256:{key}"}), encoding="utf-8")
    return claim, staging


def publish(store: LayerStore, tar: bytes, key: str, parent: str | None = None) -> None:
    claim, staging = staged(store, tar, key, parent)
    staging.publish(sync=True, cancel=CancellationToken())
    claim.release()


def everything(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def test_a_layer_and_its_child_are_those_of_a_plain_import(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    publish(store, CHILD.tar, OTHER, KEY)
    assert_clean(store, 2)
    assert [(layer.key, layer.parent) for layer in sorted(store.layers(), key=lambda layer: layer.key)] == [
        (KEY, None),
        (OTHER, KEY),
    ]
    with cimlayer.ImageReader(store.layout.image(OTHER)) as image:
        assert image.read("Files\\a") + image.read("Files\\b") == b"a" * 5000 + b"b" * 5000


def test_nothing_is_seen_of_a_layer_before_it_is_complete(store: LayerStore) -> None:
    before = everything(store.path) - everything(store.layout.claims)
    claim, _ = staged(store, BASE.tar, KEY)
    assert everything(store.path) - everything(store.layout.claims) == before
    assert store.find(KEY) is None
    assert store.layers() == []
    claim.release()
    assert everything(store.path) == before


def test_whoever_lost_the_claim_cannot_publish(store: LayerStore) -> None:
    claim, staging = staged(store, BASE.tar, KEY)
    claims.evict(store.layout.claims, KEY, lambda work: None)
    before = everything(store.path)
    with pytest.raises(FileNotFoundError):
        staging.publish(sync=False, cancel=CancellationToken())
    claim.release()
    assert everything(store.path) == before


def test_a_layer_whose_parent_was_removed_is_not_published(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    claim, staging = staged(store, CHILD.tar, OTHER, KEY)
    destroy_cim_layer(store.path / KEY)  # which knows no claims
    before = everything(store.path)
    with pytest.raises(ParentGoneError):
        staging.publish(sync=False, cancel=CancellationToken())
    assert everything(store.path) == before
    claim.release()
    with pytest.raises(ParentGoneError):
        staged(store, CHILD.tar, OTHER, KEY)


def test_a_second_layer_of_the_same_key_is_refused_and_the_first_one_stays(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    before = everything(store.path)
    claim, staging = staged(store, BASE.tar, KEY)
    with pytest.raises(FileExistsError):
        staging.publish(sync=False, cancel=CancellationToken())
    claim.release()
    assert everything(store.path) == before
    assert_clean(store, 1)


def test_what_is_left_in_a_layers_place_is_no_hindrance(store: LayerStore) -> None:
    (store.path / KEY / "Hives").mkdir(parents=True)
    (store.path / KEY / "Hives" / "SYSTEM_BASE").write_bytes(b"cut")
    publish(store, BASE.tar, KEY)
    assert (store.path / KEY / "Hives" / "SYSTEM_BASE").read_bytes() != b"cut"
    assert_clean(store, 1)


def test_plain_garbage_collection_leaves_alone_what_is_being_published(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, staging = staged(store, BASE.tar, KEY)
    move_in = staging._move_in

    def collect_first() -> None:
        assert ImageDirectory(store.layout.images).orphans()
        assert collect_garbage(store.layout.images, delete=True) == []
        assert store.collect_garbage().remains == ()
        move_in()

    monkeypatch.setattr(staging, "_move_in", collect_first)
    staging.publish(sync=False, cancel=CancellationToken())
    claim.release()
    assert_clean(store, 1)


# ---- removing layers ----


def test_the_least_recently_used_go_first_and_parents_after_their_children(store: LayerStore, tmp_path: Path) -> None:
    keys = fill(store, family(tmp_path / "sources", 4))
    for age, chain in enumerate(keys):
        os.utime(store.layout.image(chain[-1]), (0, 1000 - age))
    tops = [chain[-1] for chain in keys]
    sizes = {layer.key: layer.size for layer in store.layers()}
    total = sum(sizes.values())
    assert store.collect_garbage(total).layers == ()
    dry = store.collect_garbage(total - 1, dry_run=True)
    assert store.collect_garbage(total - 1) == dry
    assert dry.layers == (tops[3],)
    assert dry.bytes == sizes[tops[3]]
    assert store.collect_garbage(total - dry.bytes - 1).layers[0] in (keys[3][1], tops[2])
    store.pin(tops[0])
    assert set(store.collect_garbage(0).layers).isdisjoint(keys[0])
    assert_clean(store, 3)
    store.unpin(tops[0])
    assert store.collect_garbage(0).layers == tuple(keys[0][::-1])
    assert_clean(store, 0)
    assert {path.name for path in store.path.iterdir()} == {".cimlayer", "cim-layers"}


def test_finding_a_layer_is_using_it(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    os.utime(store.layout.image(KEY), (0, 1000))
    assert store.find(OTHER) is None
    assert store.layers()[0].used == 1000
    assert store.find(KEY) == store.path / KEY
    assert store.layers()[0].used > 1_000_000_000


def test_a_layer_that_an_import_is_building_on_stays(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    claim, staging = staged(store, CHILD.tar, OTHER, KEY)
    assert store.collect_garbage(0).layers == ()
    staging.publish(sync=False, cancel=CancellationToken())
    assert remove_layers(store.layout, [KEY]) == []  # chosen before it had a child
    claim.release()
    assert remove_layers(store.layout, [KEY]) == []
    assert_clean(store, 2)
    assert remove_layers(store.layout, [OTHER, KEY]) == [OTHER, KEY]


def test_a_layer_that_was_pinned_meanwhile_stays(store: LayerStore) -> None:
    publish(store, BASE.tar, KEY)
    store.pin(KEY)
    assert remove_layers(store.layout, [KEY]) == []
    assert_clean(store, 1)
    with pytest.raises(FileNotFoundError):
        store.pin(OTHER)
    with pytest.raises(FileNotFoundError):
        store.unpin(OTHER)


# ---- killed at any file operation ----


def die_in_the(number: int, root: Path, act: Callable[[], object]) -> bool:
    """Do something in a process that ends at its file operation of that number in a directory; whether it came to it.

    Operations are those of Python: publishing and removing are made of nothing else.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "open", "os.utime"):
                count += any(str(argument).startswith(str(root)) for argument in arguments[:2])
                if count > number:
                    os._exit(9)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return os.waitstatus_to_exitcode(status) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.parametrize("reproducible", [False, True])
def test_an_import_that_is_killed_anywhere_leaves_nothing_that_is_seen_and_can_be_done_again(
    tmp_path: Path, reproducible: bool
) -> None:
    sources = [layout_of(tmp_path / "source", [BASE, CHILD])]
    chance, number, last = random.Random(1), 0, False
    while not last:
        store = LayerStore(tmp_path / f"store{number}")
        last = not die_in_the(number, store.path, lambda: fill(store, sources, reproducible=reproducible))  # noqa: B023
        if store.layout.images.exists():
            assert store.check(content=True) == []
            assert len(store.layers()) <= 2
        if chance.random() < 0.5 and store.path.exists():
            store.collect_garbage()
            assert store.check() == []
        fill(store, sources, reproducible=reproducible)
        for run in store.layout.runs.iterdir():
            os.utime(run, (0, 0))
        store.collect_garbage()
        assert_clean(store, 2)
        number += chance.randrange(5, 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_removal_that_is_killed_anywhere_leaves_whole_layers_alone(tmp_path: Path) -> None:
    sources = [layout_of(tmp_path / "source", [BASE, CHILD])]
    number, last = 0, False
    while not last:
        store = LayerStore(tmp_path / f"store{number}")
        fill(store, sources)
        last = not die_in_the(number, store.path, lambda: store.collect_garbage(0))  # noqa: B023
        assert all(problem.reason == "a parent layer is missing" for problem in store.check(content=True))
        store.collect_garbage()
        left = len(store.layers())
        assert_clean(store, left)
        fill(store, sources)
        assert_clean(store, 2)
        number += 5


# ---- check ----


def spoil_record(store: LayerStore, key: str) -> None:
    (store.path / key / "cimlayer.json").write_text('{"chain_id": "sha256:0"}', encoding="utf-8")


def lose_record(store: LayerStore, key: str) -> None:
    (store.path / key / "cimlayer.json").unlink()


def cut_image(store: LayerStore, key: str) -> None:
    store.layout.image(key).write_bytes(b"cut")


def lose_region(store: LayerStore, key: str) -> None:
    next(store.layout.images.glob("region_*")).unlink()


def lose_parent(store: LayerStore, key: str) -> None:
    next(path for path in store.layout.images.glob("*.cim") if path.stem != key).unlink()


def pin_nothing(store: LayerStore, key: str) -> None:
    (store.layout.pins / KEY).touch()


@pytest.mark.parametrize("spoil", [spoil_record, lose_record, cut_image, lose_region, lose_parent, pin_nothing])
def test_check_finds_what_is_wrong(store: LayerStore, tmp_path: Path, spoil: Callable[[LayerStore, str], None]) -> None:
    (keys,) = fill(store, [layout_of(tmp_path / "source", [BASE, CHILD])])
    assert store.check(content=True) == []
    spoil(store, keys[-1])
    assert store.check() != []


def test_a_flipped_byte_is_found_in_the_content_alone(store: LayerStore, tmp_path: Path) -> None:
    fill(store, [layout_of(tmp_path / "source", [BASE])])
    region = next(path for path in store.layout.images.glob("region_*") if b"a" * 5000 in path.read_bytes())
    data = bytearray(region.read_bytes())
    data[data.index(b"a" * 5000)] ^= 1
    region.write_bytes(data)
    assert store.check() == []
    assert store.check(content=True) != []


@pytest.mark.parametrize("call", [LayerStore.layers, LayerStore.check, LayerStore.collect_garbage])
def test_a_store_that_is_not_there_is_an_error(tmp_path: Path, call: Callable[[LayerStore], Any]) -> None:
    with pytest.raises(FileNotFoundError):
        call(LayerStore(tmp_path / "missing"))
