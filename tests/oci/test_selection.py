"""Which image of several is meant: by version, by reference, and beside images that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.oci.list_images import list_images
from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import Platform
from cimlayer.oci.selection import ContainerImage, select
from support.containers import (
    DOCKER_LAYER,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Layer,
    Object,
    Store,
    base_tar,
    child_tar,
    docker_files,
    gzipped,
    plain,
    tar_of,
    write,
)

LAYER = gzipped(base_tar())
REF_NAME, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"


def choose(source: Path | str, platform: str = "windows", **wish: str) -> ContainerImage:
    with opened_source(source, wish.get("reference")) as (images, reference):
        return select(images, Platform.wanted(platform, wish.get("os_version")), reference)


def windows(version: str | None, architecture: str = "amd64") -> Object:
    more = {} if version is None else {"os.version": version}
    return {"os": "windows", "architecture": architecture, **more}


def image(store: Store, version: str | None, name: str = "", **more: object) -> Object:
    entry = store.image([LAYER], platform=windows(version), config={"made": f"{version} {name}"})
    entry["platform"] = windows(version)
    return entry | ({"annotations": {REF_NAME: name}} if name else {}) | more


@pytest.mark.parametrize(
    ("versions", "wish", "found"),
    [
        (["10.0.20348.5", "10.0.20348.40", "10.0.20348.9"], "10.0.20348", "10.0.20348.40"),
        (["10.0.20348.5", "10.0.20348.40"], None, "10.0.20348.40"),
        (["10.0.20348.5", "10.0.20348.40"], "10.0.20348.5", "10.0.20348.5"),
        ([None, "10.0.20348.5"], "10.0.20348", "10.0.20348.5"),
        ([None, "10.0.20348.5"], "10.0.26100", ""),
        ([None], "10.0.26100.1", ""),
        ([None], None, ""),
        (["10.0.17763.1", "10.0.20348.5"], "10.0.17763", "10.0.17763.1"),
        (["10.0.20348.x", "10.0.20348.1"], "10.0.20348.x", "10.0.20348.x"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_newest_revision_of_the_build_is_taken(
    tmp_path: Path, versions: list[str | None], wish: str | None, found: str, nested: bool
) -> None:
    store = Store()
    entries = [image(store, version) for version in versions]
    source = store.layout(tmp_path / "a", [store.index(entries)] if nested else entries)
    more = {} if wish is None else {"os_version": wish}
    assert choose(source, **more).platform.os_version == found


@pytest.mark.parametrize(
    ("versions", "wish", "message"),
    [
        (["10.0.20348.5"], "10.0.2034", r"no container image .*10\.0\.20348\.5"),
        (["10.0.20348.5"], "10.0.20348.50", "no container image"),
        (["10.0.17763.1", "10.0.20348.5"], None, "more than one"),
        (["10.0.17763.1", "10.0.20348.5"], "10.0", "more than one"),
        ([None, "10.0.20348.5"], None, r"more than one .*10\.0\.20348\.5"),
    ],
)
def test_builds_are_not_chosen_between(
    tmp_path: Path, versions: list[str | None], wish: str | None, message: str
) -> None:
    store = Store()
    source = store.layout(tmp_path / "a", [image(store, version) for version in versions])
    with pytest.raises(ValueError, match=message):
        choose(source, **({} if wish is None else {"os_version": wish}))


def test_a_version_that_the_index_leaves_out_is_that_of_the_configuration(tmp_path: Path) -> None:
    store = Store()
    entries = [image(store, version) | {"platform": windows(None)} for version in ("10.0.17763.1", "10.0.20348.5")]
    source = store.layout(tmp_path / "a", [store.index(entries)])
    assert choose(source, os_version="10.0.20348").platform == Platform("windows", "amd64", "10.0.20348.5")
    with pytest.raises(ValueError, match="no container image"):
        choose(source, os_version="10.0.26100")


def test_a_newer_revision_under_another_name_is_another_image(tmp_path: Path) -> None:
    store = Store()
    source = store.layout(tmp_path / "a", [image(store, "10.0.20348.5", "one"), image(store, "10.0.20348.9", "two")])
    with pytest.raises(ValueError, match=r"more than one .*20348\.5 one, .*20348\.9 two"):
        choose(source)
    assert choose(source, reference="one").platform.os_version == "10.0.20348.5"


def test_two_versions_in_one_wish_are_refused() -> None:
    with pytest.raises(ValueError, match="another version"):
        Platform.wanted("windows/amd64/10.0.20348", "10.0.17763")
    assert Platform.wanted("windows/amd64/10.0.20348", "10.0.20348").os_version == "10.0.20348"


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Entries as skopeo, containerd and Docker name them, one in an index."""
    store = Store()
    full = "docker.io/library/app:v1"
    entries = [
        image(store, "10.0.1.0", "one"),
        image(store, "10.0.2.0", annotations={CONTAINERD_NAME: full, REF_NAME: "v1"}),
        store.index([image(store, "10.0.3.0"), image(store, "10.0.4.0")], annotations={REF_NAME: "many"}),
        image(store, "10.0.5.0", annotations={CONTAINERD_NAME: "host:5000/team/app:v2", REF_NAME: "v2"}),
    ]
    return store.layout(tmp_path / "named", entries)


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("one", "10.0.1.0"),
        ("v1", "10.0.2.0"),
        ("docker.io/library/app:v1", "10.0.2.0"),
        ("app:v1", "10.0.2.0"),
        ("docker.io/app:v1", "10.0.2.0"),
        ("host:5000/team/app:v2", "10.0.5.0"),
        ("@0", "10.0.1.0"),
        ("@3", "10.0.5.0"),
    ],
)
def test_a_reference_chooses(named: Path, reference: str, version: str) -> None:
    assert choose(named, reference=reference).platform.os_version == version
    assert choose(f"oci:{named}:{reference}").platform.os_version == version


def test_a_reference_to_an_index_leaves_the_choice_in_it(named: Path) -> None:
    with pytest.raises(ValueError, match="more than one"):
        choose(named, reference="many")
    assert choose(f"oci:{named}:many", os_version="10.0.4").platform.os_version == "10.0.4.0"
    assert choose(f"oci:{named}:@2", os_version="10.0.3").platform.os_version == "10.0.3.0"


def test_digests_of_manifests_and_indexes_choose(named: Path) -> None:
    entries = json.loads((named / "index.json").read_text("utf-8"))["manifests"]
    assert choose(f"oci:{named}:{entries[1]['digest']}").platform.os_version == "10.0.2.0"
    assert choose(f"oci:{named}:{entries[2]['digest']}", os_version="10.0.3").platform.os_version == "10.0.3.0"
    inner = next(each.digest for each in list_images(named) if each.platform.os_version == "10.0.4.0")
    assert choose(named, reference=inner).platform.os_version == "10.0.4.0"
    with pytest.raises(ValueError, match=r"no manifest or index has the digest sha256:0"):
        choose(named, reference=f"sha256:{'0' * 64}")


@pytest.mark.parametrize("reference", ["three", "@4", "@-1", "@", "@x", "app:v9", "", "latest"])
def test_an_unknown_reference_is_refused_with_what_there_is(named: Path, reference: str) -> None:
    with pytest.raises(ValueError, match=r"nothing is called .* one, docker\.io/library/app:v1|there are 4"):
        choose(named, reference=reference)


def test_images_of_a_docker_archive_are_chosen_by_tag(tmp_path: Path) -> None:
    files = docker_files([LAYER], tags=["first:1", "first:latest"])
    other = docker_files([LAYER, plain(child_tar())], tags=["second:2"])
    both = json.loads(files["manifest.json"]) + json.loads(other["manifest.json"])
    archive = tar_of(files | other | {"manifest.json": json.dumps(both).encode()}, tmp_path / "a.tar")
    assert len(choose(f"docker-archive:{archive}:second:2").layers) == 2
    for reference in ("first:1", "first", "docker.io/library/first:latest", "@0"):
        assert len(choose(f"docker-archive:{archive}:{reference}").layers) == 1
    assert [(each.references, each.digest) for each in list_images(archive)] == [
        (("first:1", "first:latest", "@0"), None),
        (("second:2", "@1"), None),
    ]


# ---- beside images that cannot be used ----


def test_what_is_wrong_with_another_image_is_no_hindrance(tmp_path: Path) -> None:
    store = Store()
    wanted = store.image([LAYER])
    linux = {"os": "linux", "architecture": "amd64"}
    spoilt = [store.image([plain(b"%d" % number)], platform=linux) for number in range(4)]
    configs = [json.loads(store.blobs[each["digest"]])["config"]["digest"] for each in spoilt]
    del store.blobs[configs[0]]
    store.blobs[configs[1]] = b"{"
    store.blobs[spoilt[2]["digest"]] += b" "
    store.blobs[spoilt[3]["digest"]] = b"[]"
    source = store.layout(tmp_path / "a", [*spoilt, wanted])
    assert choose(source).digest == wanted["digest"]
    problems = [each.problem for each in list_images(source)]
    assert [problem is None for problem in problems] == [False] * 4 + [True]
    assert configs[0] in str(problems[0])
    with pytest.raises((FormatError, FileNotFoundError)):
        choose(source, "linux")


def test_what_is_wrong_with_the_newest_of_a_build_is_reported(tmp_path: Path) -> None:
    store = Store()
    old, new = image(store, "10.0.20348.1"), image(store, "10.0.20348.2")
    store.blobs[new["digest"]] += b" "
    with pytest.raises(DigestMismatchError, match=new["digest"]):
        choose(store.layout(tmp_path / "a", [old, new]))


def test_an_entry_of_a_docker_archive_without_its_configuration_is_no_hindrance(tmp_path: Path) -> None:
    files = docker_files([LAYER])
    entries = json.loads(files["manifest.json"])
    entries.insert(0, {"Config": "gone.json", "RepoTags": ["gone:1"], "Layers": []})
    entries.insert(0, {"Config": 5})
    source = write(tmp_path / "a", files | {"manifest.json": json.dumps(entries).encode()})
    assert choose(source).layers
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        choose(f"docker-archive:{source}:gone:1")


@pytest.mark.parametrize("media_type", ["application/octet-stream", "application/json", "text/html", "", OCI_CONFIG])
def test_configurations_are_called_as_moby_takes_them(tmp_path: Path, media_type: str) -> None:
    store = Store()
    manifest = json.loads(store.blobs[store.image([LAYER])["digest"]])
    manifest["config"]["mediaType"] = media_type
    if not media_type:
        del manifest["config"]["mediaType"]
    source = store.layout(tmp_path / "a", [store.put(manifest, OCI_MANIFEST)])
    assert choose(source).platform.os == "windows"


def test_layers_in_another_order_than_their_diff_ids_are_put_in_order(tmp_path: Path) -> None:
    layers = [Layer(tar, tar, OCI_LAYER) for tar in (base_tar(), child_tar(a=b"a"), child_tar(b=b"b"))]
    layers.append(layers[1])
    store = Store()
    manifest = json.loads(store.blobs[store.image(layers)["digest"]])
    manifest["layers"].reverse()
    found = choose(store.layout(tmp_path / "a", [store.put(manifest, OCI_MANIFEST)])).layers
    assert [layer.blob.digest for layer in found] == [str(layer.diff_id) for layer in found]


@pytest.mark.parametrize("manifests", [None, []])
def test_an_archive_of_docker_25_without_an_index_is_read_by_its_manifest(
    tmp_path: Path, manifests: list[Object] | None
) -> None:
    files = docker_files([plain(base_tar(), DOCKER_LAYER)])
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    files |= {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    assert len(choose(tar_of(files, tmp_path / "a.tar")).layers) == 1
