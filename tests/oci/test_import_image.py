"""Whole images: chains of layers, reuse, and what is left when something is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.events import Event, LayerDone, LayerReused, LayerStarted
from cimlayer.oci.import_image import RECORD
from support.containers import (
    DOCKER_FOREIGN,
    DOCKER_LAYER,
    OCI_FOREIGN,
    OCI_LAYER,
    Layer,
    Store,
    base_tar,
    chain_ids,
    child_tar,
    docker_files,
    gzipped,
    packed,
    plain,
    tar_of,
    write,
)
from support.shared import SHARED_LAYERS, needs_layers

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BASE = base_tar(**{"a.txt": b"base" * 5000, "gone.txt": b"gone"})
MIDDLE = child_tar(**{"a.txt": b"middle" * 9000, "b.txt": b"b"})
TOP = child_tar(**{"c.txt": b"top" * 7000})
CONTENT = {"a.txt": b"middle" * 9000, "gone.txt": b"gone", "b.txt": b"b", "c.txt": b"top" * 7000}


def zstd_layer(tar: bytes) -> Layer:
    return Layer(tar, zstd.compress(tar), f"{OCI_LAYER}+zstd")


LAYERS = [gzipped(BASE), plain(MIDDLE), zstd_layer(TOP)]
CHAIN = [digest.partition(":")[2] for digest in chain_ids(LAYERS)]


def layout(folder: Path) -> Path:
    store = Store()
    return store.layout(folder, [store.image(LAYERS)])


def docker_layout(folder: Path) -> Path:
    """As docker-save of today: an OCI layout with a manifest.json beside it."""
    layers = [Layer(layer.tar, layer.tar, DOCKER_LAYER) for layer in LAYERS]
    store = Store()
    top = store.image(layers, docker=True)
    config = json.loads(store.blobs[top["digest"]])["config"]["digest"]
    paths = [f"blobs/{layer.digest.replace(':', '/')}" for layer in layers]
    entry = {"Config": f"blobs/{config.replace(':', '/')}", "RepoTags": ["a:1"], "Layers": paths}
    store.layout(folder, [top])
    return write(folder, {"manifest.json": json.dumps([entry]).encode()})


def sha512_layout(folder: Path) -> Path:
    store = Store()
    layers = [gzipped(BASE, algorithm="sha512"), plain(MIDDLE, algorithm="sha512"), zstd_layer(TOP)]
    return store.layout(folder, [store.image(layers)])


def skopeo(folder: Path) -> Path:
    store = Store()
    return store.skopeo(folder, store.image(LAYERS))


def skopeo_of_all(folder: Path) -> Path:
    store = Store()
    linux = {"os": "linux", "architecture": "amd64"}
    entries = [store.image(LAYERS[:1], docker=True, platform=linux), store.image(LAYERS, docker=True)]
    return store.skopeo(folder, store.index(entries, docker=True))


def archive(folder: Path) -> Path:
    return packed(layout(folder), folder.with_suffix(".tar"))


def docker_archive(folder: Path) -> Path:
    return tar_of(docker_files(LAYERS), folder.with_suffix(".tar"))


def unpacked_docker_archive(folder: Path) -> Path:
    return write(folder, docker_files(LAYERS))


def docker_archive_with_links(folder: Path) -> Path:
    """Docker writes a tar that two layers share once, and a symbolic link for the other."""
    files: dict[str, bytes | str] = dict(docker_files(LAYERS))
    path = json.loads(files["manifest.json"])[0]["Layers"][1]
    files["shared/layer.tar"] = files[path]
    files[path] = "../shared/layer.tar"
    return tar_of(files, folder.with_suffix(".tar"))


FORMS = [
    layout,
    sha512_layout,
    archive,
    docker_layout,
    docker_archive,
    docker_archive_with_links,
    unpacked_docker_archive,
    skopeo,
    skopeo_of_all,
]


def content(layer: Path) -> dict[str, bytes]:
    """The files directly below Files."""
    with cimlayer.ImageReader(cimlayer.get_cim_path_from_layer(layer)) as image:
        assert image.verify().ok
        return {
            entry.name: image.read(f"Files\\{entry.name}") for entry in image.listdir("Files") if not entry.is_directory
        }


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")} if root.exists() else set()


def stored(root: Path) -> list[str]:
    """The layers that are there, from the base up; anything beside them is a failure."""
    found = [name for name in CHAIN if cimlayer.is_cim_layer(root / name)]
    sets = []
    for name in found:
        with cimlayer.ImageReader(root / "cim-layers" / f"{name}.cim") as image:
            assert image.verify().ok
            sets += image.region_sets[-1].file_names()
    images = {f"{name}.cim" for name in found}
    actual = {path.name for path in (root / "cim-layers").iterdir()} if found else set()
    assert images <= actual <= images | set(sets)
    expected = {*found, "cim-layers"} if found else set()
    assert ({path.name for path in root.iterdir()} if root.exists() else set()) == expected
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_form_gives_the_same_chain(tmp_path: Path, form: Callable[[Path], Path], jobs: int) -> None:
    result = cimlayer.import_image(form(tmp_path / "source"), tmp_path / "layers", sync=False, jobs=jobs)
    assert [layer.path for layer in result.layers] == [tmp_path / "layers" / name for name in CHAIN]
    assert [layer.chain_id for layer in result.layers] == chain_ids(LAYERS)
    assert [layer.diff_id for layer in result.layers] == [layer.diff_id for layer in LAYERS]
    assert not any(layer.reused for layer in result.layers)
    assert result.top == result.layers[-1].path
    assert content(result.top) == CONTENT
    assert content(result.layers[0].path) == {"a.txt": b"base" * 5000, "gone.txt": b"gone"}
    assert stored(tmp_path / "layers") == CHAIN


def test_reproducible_images_are_those_of_single_imports(tmp_path: Path) -> None:
    cimlayer.import_image(layout(tmp_path / "source"), tmp_path / "a", sync=False, reproducible=True)
    (tmp_path / "b").mkdir()
    parents: list[Path] = []
    for name, tar in zip(CHAIN, (BASE, MIDDLE, TOP), strict=True):
        (tmp_path / "layer.tar").write_bytes(tar)
        layer = tmp_path / "b" / name
        cimlayer.import_layer(tmp_path / "layer.tar", layer, parents, sync=False, reproducible=True)
        parents.insert(0, layer)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b") | {f"{name}/{RECORD}" for name in CHAIN}
    for name in files_below(tmp_path / "b"):
        if (tmp_path / "b" / name).is_file():
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# ---- wrong bytes ----


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("number", range(3))
def test_a_flipped_byte_in_a_layer_names_the_blob_and_leaves_nothing_of_it(
    tmp_path: Path, number: int, at: float, jobs: int
) -> None:
    source = layout(tmp_path / "source")
    digest = LAYERS[number].digest
    flip(source / "blobs" / digest.replace(":", "/"), at)
    with pytest.raises(DigestMismatchError, match=digest) as caught:
        cimlayer.import_image(source, tmp_path / "layers", sync=False, jobs=jobs)
    assert caught.value.expected == f"digest {digest}"
    assert stored(tmp_path / "layers") == CHAIN[:number]


def test_a_flipped_byte_in_a_document_names_the_blob(tmp_path: Path) -> None:
    store = Store()
    inner = store.image(LAYERS)
    top = store.index([inner])
    documents = [digest for digest in store.blobs if digest not in {layer.digest for layer in LAYERS}]
    assert len(documents) == 3
    for number, digest in enumerate(documents):
        source = store.layout(tmp_path / str(number), [top])
        flip(source / "blobs" / digest.replace(":", "/"), 0.5)
        with pytest.raises(DigestMismatchError, match=digest):
            cimlayer.import_image(source, tmp_path / "layers")
        assert not (tmp_path / "layers").exists()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("at", [0.02, 0.5, 1.0])
def test_a_flipped_byte_in_a_docker_archive_names_the_layer(tmp_path: Path, number: int, at: float) -> None:
    files = docker_files(LAYERS)
    path = json.loads(files["manifest.json"])[0]["Layers"][number]
    source = write(tmp_path / "source", files)
    flip(source / path, at)
    with pytest.raises(DigestMismatchError, match=LAYERS[number].diff_id):
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert stored(tmp_path / "layers") == CHAIN[:number]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_wrong_diff_id_is_found_although_the_blob_is_right(tmp_path: Path, algorithm: str) -> None:
    store = Store()
    wrong = f"{algorithm}:{hashlib.new(algorithm, b'something else').hexdigest()}"
    for number, layer in enumerate((gzipped(BASE), plain(BASE))):
        config = {"rootfs": {"type": "layers", "diff_ids": [wrong]}}
        source = store.layout(tmp_path / str(number), [store.image([layer], config=config)])
        with pytest.raises(DigestMismatchError, match=wrong) as caught:
            cimlayer.import_image(source, tmp_path / "layers", sync=False)
        assert layer.digest in str(caught.value)
        assert not (tmp_path / "layers").exists()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_blob_of_another_size_is_refused_before_anything_is_made(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    source = layout(tmp_path / "source")
    path = source / "blobs" / LAYERS[2].digest.replace(":", "/")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DigestMismatchError, match=LAYERS[2].digest):
        cimlayer.import_image(source, tmp_path / "layers")
    assert not (tmp_path / "layers").exists()


def test_a_malformed_tar_with_right_digests_names_its_layer(tmp_path: Path) -> None:
    bad = plain(b"this is no tar" * 100)
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([LAYERS[0], bad])])
    with pytest.raises(FormatError, match=f"layer {bad.digest}") as caught:
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert not isinstance(caught.value, DigestMismatchError)
    assert stored(tmp_path / "layers") == CHAIN[:1]


def test_a_cut_gzip_stream_with_right_digests_names_its_layer(tmp_path: Path) -> None:
    bad = Layer(MIDDLE, gzip.compress(MIDDLE)[:-20], f"{OCI_LAYER}+gzip")
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([LAYERS[0], bad])])
    with pytest.raises(FormatError, match=f"layer {bad.digest}: the gzip stream is cut"):
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert stored(tmp_path / "layers") == CHAIN[:1]


def test_bytes_behind_the_end_of_the_archive_are_verified_too(tmp_path: Path) -> None:
    layer = gzipped(BASE + bytes(1 << 20))
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([layer])])
    assert cimlayer.import_image(source, tmp_path / "a", sync=False).layers[0].diff_id == layer.diff_id
    changed = Layer(layer.tar, gzip.compress(BASE + bytes((1 << 20) - 1) + b"\1"), layer.media_type)
    store = Store()
    source = store.layout(tmp_path / "changed", [store.image([changed])])
    with pytest.raises(DigestMismatchError, match=layer.diff_id):
        cimlayer.import_image(source, tmp_path / "b", sync=False)


# ---- layers that are there, or are not ----


def test_layers_that_are_there_are_used_again(tmp_path: Path) -> None:
    store = Store()
    first = store.layout(tmp_path / "first", [store.image(LAYERS[:2])])
    cimlayer.import_image(first, tmp_path / "layers", sync=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "layers").rglob("*") if path.is_file()}
    events: list[Event] = []
    result = cimlayer.import_image(layout(tmp_path / "all"), tmp_path / "layers", sync=False, progress=events.append)
    assert [layer.reused for layer in result.layers] == [True, True, False]
    assert [layer.bytes for layer in result.layers] == [5 * 8192 + 20004, 54001, 21000]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [type(event) for event in events if not hasattr(event, "bytes_read")][:2] == [LayerReused, LayerReused]
    assert [event.number for event in events if isinstance(event, LayerStarted)] == [3]
    assert content(result.top) == CONTENT
    again = cimlayer.import_image(tmp_path / "all", tmp_path / "layers")
    assert all(layer.reused for layer in again.layers)


def test_blobs_of_layers_that_are_there_are_not_needed(tmp_path: Path) -> None:
    source = layout(tmp_path / "source")
    cimlayer.import_image(source, tmp_path / "layers", sync=False)
    for layer in LAYERS:
        (source / "blobs" / layer.digest.replace(":", "/")).unlink()
    assert all(layer.reused for layer in cimlayer.import_image(source, tmp_path / "layers").layers)


def test_an_import_goes_on_where_a_failed_one_stopped(tmp_path: Path) -> None:
    source = layout(tmp_path / "source")
    blob = source / "blobs" / LAYERS[1].digest.replace(":", "/")
    flip(blob, 0.5)
    with pytest.raises(DigestMismatchError):
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    flip(blob, 0.5)
    result = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert [layer.reused for layer in result.layers] == [True, False, False]
    assert content(result.top) == CONTENT


def spoil_record(layers: Path) -> None:
    (layers / CHAIN[1] / RECORD).write_text('{"chain_id": "sha256:0", "diff_id": "", "bytes": 1}', encoding="utf-8")


def unreadable_record(layers: Path) -> None:
    (layers / CHAIN[1] / RECORD).write_text("[" * 20_000, encoding="utf-8")


def record_of_a_list(layers: Path) -> None:
    (layers / CHAIN[1] / RECORD).write_text("[1]", encoding="utf-8")


def remove_record(layers: Path) -> None:
    (layers / CHAIN[1] / RECORD).unlink()


def cut_image(layers: Path) -> None:
    path = layers / "cim-layers" / f"{CHAIN[1]}.cim"
    path.write_bytes(path.read_bytes()[:20])


def lose_region(layers: Path) -> None:
    with cimlayer.ImageReader(layers / "cim-layers" / f"{CHAIN[1]}.cim") as image:
        name = image.region_sets[-1].file_names()[0]
    (layers / "cim-layers" / name).unlink()


def replace_parent(layers: Path) -> None:
    """The same base once more: its region set has another ID, which the layers above do not know."""
    cimlayer.destroy_cim_layer(layers / CHAIN[0], force=True)
    (layers.parent / "base.tar").write_bytes(BASE)
    cimlayer.import_layer(layers.parent / "base.tar", layers / CHAIN[0], sync=False)
    record = {"chain_id": f"sha256:{CHAIN[0]}", "diff_id": f"sha256:{CHAIN[0]}", "bytes": 1}
    (layers / CHAIN[0] / RECORD).write_text(json.dumps(record), encoding="utf-8")


def remove_parent(layers: Path) -> None:
    cimlayer.destroy_cim_layer(layers / CHAIN[0], force=True)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_record,
        unreadable_record,
        record_of_a_list,
        remove_record,
        cut_image,
        lose_region,
        replace_parent,
        remove_parent,
    ],
)
def test_another_layer_in_the_place_is_neither_used_nor_touched(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    source, layers = layout(tmp_path / "source"), tmp_path / "layers"
    cimlayer.import_image(source, layers, sync=False)
    spoil(layers)
    before = files_below(layers)
    with pytest.raises(FileExistsError) as caught:
        cimlayer.import_image(source, layers, sync=False)
    assert str(caught.value.filename) == str(layers / CHAIN[1])
    assert files_below(layers) == before


def test_what_a_crash_left_in_a_layer_directory_is_no_hindrance(tmp_path: Path) -> None:
    write(tmp_path / "layers" / CHAIN[0], {RECORD: b"cut", "layout": b"x", "Files/Windows/System32/config/SAM": b"x"})
    result = cimlayer.import_image(layout(tmp_path / "source"), tmp_path / "layers", sync=False)
    assert content(result.top) == CONTENT


def test_an_image_that_fails_in_its_base_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([plain(MIDDLE)])])
    with pytest.raises(FormatError, match="without"):
        cimlayer.import_image(source, tmp_path / "new", sync=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(FormatError, match="without"):
        cimlayer.import_image(source, tmp_path / "old", sync=False)
    assert files_below(tmp_path / "old") == set()


def test_two_layers_of_equal_content_are_two_layers(tmp_path: Path) -> None:
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([LAYERS[0], LAYERS[2], LAYERS[2]])])
    result = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert len({layer.path for layer in result.layers}) == 3
    assert result.layers[1].diff_id == result.layers[2].diff_id


@pytest.mark.parametrize("media_type", [f"{OCI_FOREIGN}+gzip", f"{DOCKER_FOREIGN}.gzip", f"{OCI_LAYER}+gzip"])
def test_a_foreign_layer_that_is_absent_is_told_with_its_url(tmp_path: Path, media_type: str) -> None:
    url = "https://mcr.example/v2/windows/blobs/base"
    base = gzipped(BASE, media_type, urls=(url, "https://second.example/"), absent=True)
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([base, LAYERS[1]])])
    with pytest.raises(FileNotFoundError) as caught:
        cimlayer.import_image(source, tmp_path / "layers")
    assert base.digest in str(caught.value)
    assert url in str(caught.value)
    assert "https://second.example/" in str(caught.value)
    assert not (tmp_path / "layers").exists()


def test_a_foreign_layer_that_is_there_is_imported(tmp_path: Path) -> None:
    base = gzipped(BASE, f"{DOCKER_FOREIGN}.gzip", urls=("https://mcr.example/",))
    store = Store()
    source = store.layout(tmp_path / "source", [store.image([base], docker=True)])
    assert content(cimlayer.import_image(source, tmp_path / "layers", sync=False).top)


def test_a_missing_blob_is_told_by_its_digest_before_anything_is_made(tmp_path: Path) -> None:
    source = layout(tmp_path / "source")
    (source / "blobs" / LAYERS[2].digest.replace(":", "/")).unlink()
    with pytest.raises(FileNotFoundError, match=LAYERS[2].digest):
        cimlayer.import_image(source, tmp_path / "layers")
    assert not (tmp_path / "layers").exists()


def test_nothing_is_unpacked_beside_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "layers", "temporary"}
    assert files_below(tmp_path / "temporary") == set()


# ---- the corpus ----


@needs_layers
def test_the_corpus_as_a_layout_and_as_a_docker_archive(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "child", "grandchild", "greatgrandchild"):
        blob = (SHARED_LAYERS / f"{name}.tar.gz").read_bytes()
        layers.append(Layer(gzip.decompress(blob), blob, f"{OCI_LAYER}+gzip"))
    store = Store()
    one = cimlayer.import_image(
        packed(store.layout(tmp_path / "layout", [store.image(layers)]), tmp_path / "layout.tar"),
        tmp_path / "one",
        sync=False,
        reproducible=True,
    )
    two = cimlayer.import_image(
        tar_of(docker_files(layers), tmp_path / "docker.tar"), tmp_path / "two", sync=False, reproducible=True
    )
    assert [layer.chain_id for layer in one.layers] == chain_ids(layers)
    for name, layer in zip(("base", "child", "grandchild", "greatgrandchild"), one.layers, strict=True):
        manifest = json.loads((SHARED_LAYERS / f"{name}.manifest.json").read_text("utf-8"))
        assert (layer.diff_id, layer.digest) == (manifest["diff_id"], manifest["blob_digest"])
    images = [{p.name: p.read_bytes() for p in (x.top.parent / "cim-layers").iterdir()} for x in (one, two)]
    assert images[0] == images[1]
    (tmp_path / "single").mkdir()
    parents: list[Path] = []
    for name, layer in zip(("base", "child", "grandchild", "greatgrandchild"), one.layers, strict=True):
        path = tmp_path / "single" / layer.path.name
        cimlayer.import_layer(SHARED_LAYERS / f"{name}.tar.gz", path, parents, sync=False, reproducible=True)
        parents.insert(0, path)
    single = {path.name: path.read_bytes() for path in (tmp_path / "single" / "cim-layers").iterdir()}
    assert images[0] == single


def test_done_events_carry_what_the_result_says(tmp_path: Path) -> None:
    events: list[Event] = []
    result = cimlayer.import_image(layout(tmp_path / "source"), tmp_path / "layers", sync=False, progress=events.append)
    done = [event for event in events if isinstance(event, LayerDone)]
    assert [(event.layer, event.bytes, event.seconds) for event in done] == [
        (layer.path.name, layer.bytes, layer.seconds) for layer in result.layers
    ]
