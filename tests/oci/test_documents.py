"""Image sources: which image is chosen, and documents that lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cimlayer
from cimlayer.errors import DigestMismatchError, FormatError, OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.oci.documents import DOCUMENT_LIMIT
from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import Platform
from cimlayer.oci.selection import DEEPEST_INDEX
from cimlayer.oci.selection import select as select_image
from support.containers import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Object,
    Store,
    base_tar,
    child_tar,
    digest_of,
    docker_files,
    gzipped,
    packed,
    plain,
    tar_of,
    write,
)
from support.documents import LAYER, select
from support.platforms import examples, needs_symlinks, posix_only, same_everywhere

pytestmark = same_everywhere

LINUX = {"os": "linux", "architecture": "amd64"}


def windows(version: str, architecture: str = "amd64") -> Object:
    return {"os": "windows", "architecture": architecture, "os.version": version}


# ---- the choice ----


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An index of the platforms that Microsoft's images have, beside an attestation."""
    store = Store()
    entries = []
    for platform in (LINUX, windows("10.0.17763.5"), windows("10.0.20348.7"), windows("10.0.20348.7", "arm64")):
        entries.append(store.image([LAYER], platform=platform) | {"platform": platform})
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries.append(store.image([plain(b"")], platform=unknown) | {"platform": unknown})
    entries.append(store.put({"signature": 1}, "application/vnd.of.nobody+json"))
    return store.layout(tmp_path / "many", [store.index(entries)])


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("windows/amd64/10.0.17763", "windows/amd64/10.0.17763.5"),
        ("windows/amd64/10.0.20348.7", "windows/amd64/10.0.20348.7"),
        ("windows/arm64", "windows/arm64/10.0.20348.7"),
        ("linux", "linux/amd64"),
    ],
)
def test_the_platform_chooses(many: Path, wish: str, found: str) -> None:
    assert str(select(many, wish).platform) == found


@pytest.mark.parametrize("wish", ["windows/amd64/10.0.1776", "windows/amd64/10.0.17763.50", "windows/riscv64", "plan9"])
def test_a_platform_that_is_not_there_is_told_with_those_that_are(many: Path, wish: str) -> None:
    with pytest.raises(ValueError, match="no container image for") as caught:
        select(many, wish)
    assert "windows/amd64/10.0.17763.5" in str(caught.value)
    assert "linux/amd64" in str(caught.value)


def test_more_than_one_image_for_windows_is_told_with_all_of_them(many: Path) -> None:
    with pytest.raises(ValueError, match="more than one") as caught:
        select(many)
    for version in ("10.0.17763.5", "10.0.20348.7"):
        assert version in str(caught.value)
    assert "linux" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "/", "windows/", "windows//1", "a/b/c/d"])
def test_a_platform_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a platform"):
        Platform.parse(text)


def test_an_index_entry_without_a_platform_has_that_of_its_configuration(tmp_path: Path) -> None:
    store = Store()
    entries = [store.image([LAYER], platform=LINUX), store.image([LAYER])]
    assert select(store.layout(tmp_path / "a", entries)).platform == Platform("windows", "amd64", "10.0.20348.1")


def test_only_the_image_that_is_there_counts(tmp_path: Path) -> None:
    """An archive of one platform keeps the index of all of them."""
    store = Store()
    entries = []
    for platform in (windows("10.0.17763.5"), windows("10.0.20348.7")):
        entries.append(store.image([LAYER], platform=platform) | {"platform": platform})
    del store.blobs[entries[0]["digest"]]
    source = store.layout(tmp_path / "a", [store.index(entries)])
    assert select(source).platform.os_version == "10.0.20348.7"
    with pytest.raises(FileNotFoundError, match=entries[0]["digest"]):
        select(source, "windows/amd64/10.0.17763")


def test_indexes_may_lie_in_indexes(tmp_path: Path) -> None:
    store = Store()
    entry = store.image([LAYER])
    for _ in range(DEEPEST_INDEX - 1):
        entry = store.index([entry, entry])
    assert select(store.layout(tmp_path / "a", [entry])).layers
    source = store.layout(tmp_path / "b", [store.index([entry])])
    with pytest.raises(FormatError, match="deep"):
        select(source)


def test_the_same_image_under_two_names_is_one_image(tmp_path: Path) -> None:
    store = Store()
    entry = store.image([LAYER])
    names = [{"annotations": {"org.opencontainers.image.ref.name": name}} for name in ("a", "b")]
    assert select(store.layout(tmp_path / "a", [entry | names[0], entry | names[1]])).layers


def test_two_images_of_one_platform_are_told_by_their_names(tmp_path: Path) -> None:
    files = docker_files([LAYER], tags=["first:1"])
    other = docker_files([LAYER, plain(child_tar())], tags=["second:2"])
    both = json.loads(files["manifest.json"]) + json.loads(other["manifest.json"])
    source = tar_of(files | other | {"manifest.json": json.dumps(both).encode()}, tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"first:1.*second:2"):
        select(source)


@pytest.mark.parametrize(
    "media_type",
    [f"{OCI_LAYER}", f"{OCI_LAYER}+gzip", f"{OCI_LAYER}+zstd", DOCKER_LAYER, f"{DOCKER_LAYER}.gzip",
     f"{DOCKER_LAYER}.zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
     "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"],
)  # fmt: skip
def test_media_types_of_layers_are_known(tmp_path: Path, media_type: str) -> None:
    store = Store()
    source = store.layout(tmp_path / "a", [store.image([gzipped(base_tar(), media_type)])])
    assert select(source).layers[0].blob.digest == LAYER.digest


@pytest.mark.parametrize(
    "media_type",
    ["", "application/octet-stream", f"{OCI_LAYER}+xz", f"{OCI_LAYER}+gzip\n", f"x{OCI_LAYER}",
     "application/vnd.in-toto+json", f"{OCI_LAYER}.gzip", f"{DOCKER_LAYER}+gzip"],
)  # fmt: skip
def test_a_layer_of_another_media_type_is_refused(tmp_path: Path, media_type: str) -> None:
    store = Store()
    source = store.layout(tmp_path / "a", [store.image([gzipped(base_tar(), media_type)])])
    with pytest.raises(FormatError, match="not a layer of"):
        select(source)


def test_documents_need_not_have_a_media_type_of_their_own(tmp_path: Path) -> None:
    store = Store()
    inner = store.image([LAYER])
    document = json.loads(store.blobs[inner["digest"]])
    del document["mediaType"]
    entry = store.put(document, OCI_MANIFEST)
    assert select(store.layout(tmp_path / "a", [entry])).layers


# ---- documents that lie ----


def hostile(tmp_path: Path, change: Callable[[Object], object], which: str = "manifest") -> Path:
    """A layout whose manifest or configuration was changed, with digests that are right."""
    store = Store()
    entry = store.image([LAYER])
    manifest = json.loads(store.blobs[entry["digest"]])
    if which == "manifest":
        change(manifest)
    else:
        config = json.loads(store.blobs[manifest["config"]["digest"]])
        change(config)
        manifest["config"] = store.put(config, OCI_CONFIG)
    return store.layout(tmp_path / "hostile", [store.put(manifest, OCI_MANIFEST)])


MANIFESTS: dict[str, Callable[[Object], object]] = {
    "no layers": lambda m: m.update(layers=[]),
    "layers missing": lambda m: m.pop("layers"),
    "layers no list": lambda m: m.update(layers={"0": m["layers"][0]}),
    "layer no object": lambda m: m.update(layers=["x"]),
    "layer null": lambda m: m.update(layers=[None]),
    "more layers than diff IDs": lambda m: m.update(layers=m["layers"] * 2),
    "digest missing": lambda m: m["layers"][0].pop("digest"),
    "digest a number": lambda m: m["layers"][0].update(digest=1),
    "digest with a path": lambda m: m["layers"][0].update(digest="sha256:../../../../etc/passwd"),
    "digest of path length": lambda m: m["layers"][0].update(digest="sha256:" + "../" * 21 + "a"),
    "digest in capitals": lambda m: m["layers"][0].update(digest=m["layers"][0]["digest"].upper()),
    "digest too short": lambda m: m["layers"][0].update(digest="sha256:00"),
    "digest with a line feed": lambda m: m["layers"][0].update(digest=m["layers"][0]["digest"][:-1] + "\n"),
    "unknown digest": lambda m: m["layers"][0].update(digest="md5:" + "0" * 32),
    "size missing": lambda m: m["layers"][0].pop("size"),
    "size negative": lambda m: m["layers"][0].update(size=-1),
    "size a text": lambda m: m["layers"][0].update(size="1"),
    "size true": lambda m: m["layers"][0].update(size=True),
    "size a fraction": lambda m: m["layers"][0].update(size=1.5),
    "size wrong": lambda m: m["layers"][0].update(size=10**30),
    "urls no list": lambda m: m["layers"][0].update(urls="https://x/"),
    "urls of numbers": lambda m: m["layers"][0].update(urls=[1]),
    "config missing": lambda m: m.pop("config"),
    "config null": lambda m: m.update(config=None),
    "config of another type": lambda m: m["config"].update(mediaType="application/vnd.x.config+json"),
    "config size wrong": lambda m: m["config"].update(size=3),
    "both an index and a manifest": lambda m: m.update(manifests=[]),
    "says it is an index": lambda m: m.update(mediaType=OCI_INDEX),
    "says it is Docker's": lambda m: m.update(mediaType=DOCKER_MANIFEST),
    "media type a number": lambda m: m.update(mediaType=5),
}


CONFIGS: dict[str, Callable[[Object], object]] = {
    "rootfs missing": lambda c: c.pop("rootfs"),
    "rootfs no object": lambda c: c.update(rootfs=[]),
    "rootfs of another type": lambda c: c["rootfs"].update(type="base"),
    "diff IDs missing": lambda c: c["rootfs"].pop("diff_ids"),
    "diff IDs empty": lambda c: c["rootfs"].update(diff_ids=[]),
    "diff IDs a text": lambda c: c["rootfs"].update(diff_ids="sha256:"),
    "too many diff IDs": lambda c: c["rootfs"].update(diff_ids=c["rootfs"]["diff_ids"] * 5000),
    "diff ID with a path": lambda c: c["rootfs"].update(diff_ids=["sha256:" + "../" * 21 + "x"]),
    "diff ID null": lambda c: c["rootfs"].update(diff_ids=[None]),
    "os a number": lambda c: c.update(os=1),
    "os.version a list": lambda c: c.update({"os.version": []}),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_lies_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"sha256:|no container image for windows") as caught:
        select(hostile(tmp_path, MANIFESTS[name]))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_lies_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="configuration") as caught:
        select(hostile(tmp_path, CONFIGS[name], "config"))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000, b'{"manifests": ' + b"1" * 5000 + b"}",
     b'{"manifests": {}}', b'{"manifests": [1]}', b'{"manifests": null}', b"{}"],
)  # fmt: skip
def test_a_malformed_index_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    source = write(tmp_path, {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": data})
    with pytest.raises(FormatError, match=r"index\.json"):
        select(source)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"imageLayoutVersion": "2.0.0"}'])
def test_a_layout_of_another_version_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError, match="oci-layout"):
        select(write(tmp_path, {"oci-layout": data, "index.json": b"{}"}))


NAMES_ARE_BYTES = posix_only("names are bytes")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"1", b"[1]", b"[{}]", b'[{"Config": 1}]', b'[{"Config": "c.json", "Layers": 1}]',
     b'[{"Config": "../c.json", "Layers": []}]',
     b'[{"Config": "a\\u0000b", "Layers": []}]', b'[{"Config": "C:\\\\x", "Layers": []}]',
     b'[{"Config": "c.json", "Layers": [], "RepoTags": [1]}]',
     pytest.param(b'[{"Config": "\\ud800", "Layers": []}]', marks=NAMES_ARE_BYTES),
     pytest.param(b'[{"Config": "c.json", "Layers": ["\\ud800"]}]', marks=NAMES_ARE_BYTES)],
)  # fmt: skip
def test_a_malformed_docker_manifest_is_refused(tmp_path: Path, data: bytes) -> None:
    config = {"os": "windows", "rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id]}}
    source = write(tmp_path / "a", {"manifest.json": data, "c.json": json.dumps(config).encode()})
    with pytest.raises(FormatError):
        select(source)


def test_layers_of_a_docker_manifest_do_not_lead_out_of_a_folder(tmp_path: Path) -> None:
    files = docker_files([LAYER])
    manifest = json.loads(files["manifest.json"])
    manifest[0]["Layers"] = ["../secret"]
    (tmp_path / "secret").write_bytes(LAYER.tar)
    source = write(tmp_path / "a", files | {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(FormatError, match="lead out"):
        select(source)


def test_a_name_that_is_too_long_is_of_nothing(tmp_path: Path) -> None:
    source = write(tmp_path, {"manifest.json": json.dumps([{"Config": "c" * 5000, "Layers": []}]).encode()})
    with pytest.raises(FileNotFoundError, match="does not contain ccc") as caught:
        select(source)
    assert len(str(caught.value)) < 600


@needs_symlinks
def test_a_link_to_itself_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "index.json").symlink_to("index.json")
    with pytest.raises(FormatError, match="no container image"):
        select(tmp_path)


@pytest.mark.parametrize("form", ["layout", "skopeo", "docker", "archive"])
def test_documents_are_not_read_once_cancelled(tmp_path: Path, form: str) -> None:
    store = Store()
    entry = store.image([LAYER])
    sources: dict[str, Callable[[], Path]] = {
        "layout": lambda: store.layout(tmp_path / "a", [entry]),
        "skopeo": lambda: store.skopeo(tmp_path / "a", entry),
        "docker": lambda: write(tmp_path / "a", docker_files([LAYER])),
        "archive": lambda: packed(store.layout(tmp_path / "a", [entry]), tmp_path / "a.tar"),
    }
    source = sources[form]()
    token = CancellationToken()
    with opened_source(source, cancel=token) as (images, _):
        token.cancel()
        with pytest.raises(OperationCancelledError):
            select_image(images)
    with pytest.raises(OperationCancelledError), opened_source(source, cancel=token) as (images, _):
        select_image(images)
    with pytest.raises(OperationCancelledError):
        cimlayer.import_image(source, tmp_path / "layers", cancel=token)
    assert not (tmp_path / "layers").exists()


def test_schema_1_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="schema 1"):
        select(write(tmp_path, {"manifest.json": b'{"schemaVersion": 1, "fsLayers": []}'}))


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}) / "index.json"
    with path.open("wb") as file:
        file.truncate(DOCUMENT_LIMIT + 1)
    with pytest.raises(FormatError, match="too many"):
        select(tmp_path)


def test_a_manifest_with_another_digest_is_told(tmp_path: Path) -> None:
    store = Store()
    entry = store.image([LAYER])
    store.blobs[entry["digest"]] = store.blobs[entry["digest"]].replace(b"schemaVersion", b"schemaversion")
    with pytest.raises(DigestMismatchError, match=entry["digest"]):
        select(store.layout(tmp_path / "a", [entry]))


def test_a_docker_configuration_has_the_digest_that_it_is_named_by(tmp_path: Path) -> None:
    files = docker_files([LAYER])
    name = json.loads(files["manifest.json"])[0]["Config"]
    files[name] = files[name].replace(b"amd64", b"arm64")
    with pytest.raises(DigestMismatchError, match=name.removesuffix(".json")):
        select(write(tmp_path / "a", files))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manifests", "layers", "config", "digest", "size", "mediaType", "platform", "os", "urls"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=examples(200))
@given(value=JSON)
def test_no_document_does_more_than_fail(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = json.dumps(value).encode()
    folder = tmp_path_factory.getbasetemp() / "documents"
    store = Store()
    entry = store.put(data, OCI_MANIFEST)
    top = {"manifests": [entry]}
    for name, files in {
        "index": {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": data},
        "inner": {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(top).encode()}
        | {f"blobs/{entry['digest'].replace(':', '/')}": data},
        "skopeo": {"manifest.json": data},
    }.items():
        with pytest.raises((ValueError, FileNotFoundError)):
            select(write(folder / name, files))


def test_messages_stay_short_whatever_an_index_holds(tmp_path: Path) -> None:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(b"%d" % n), "size": 1, "platform": {"os": f"{n}{'x' * 10_000}"}}
        for n in range(100)
    ]
    with pytest.raises(ValueError, match="and 80 more") as caught:
        select(Store().layout(tmp_path, entries))
    assert len(str(caught.value)) < 3000
