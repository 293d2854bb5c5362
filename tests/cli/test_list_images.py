"""`cimlayer images`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from support.commands import call, run, succeed, text_of
from support.containers import Object, Store, base_tar, docker_files, gzipped, packed, plain, tar_of

LAYER = gzipped(base_tar())
NAME = "org.opencontainers.image.ref.name"


def windows(version: str) -> Object:
    return {"os": "windows", "architecture": "amd64", "os.version": version}


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, list[str]]:
    """An index with two versions, an attestation and an image that is not here; and an image without a name."""
    store = Store()
    entries = [store.image([LAYER], platform=windows(f"10.0.{number}.1")) for number in (1, 2, 3)]
    for number, entry in enumerate(entries, 1):
        entry["platform"] = windows(f"10.0.{number}.1")
    unknown = {"os": "unknown", "architecture": "unknown"}
    attestation = store.image([plain(b"{}", "application/vnd.in-toto+json")], platform=unknown) | {"platform": unknown}
    top = store.index([*entries, attestation], annotations={NAME: "v1"})
    other = store.image([LAYER], platform={"os": "linux", "architecture": "arm64"})
    del store.blobs[entries[2]["digest"]]
    del store.blobs[LAYER.digest]  # no layer is read
    return store.layout(tmp_path / "a", [top, other]), [*(entry["digest"] for entry in entries), other["digest"]]


def test_each_image_is_a_line(source: tuple[Path, list[str]]) -> None:
    layout, digests = source
    assert succeed("images", layout).splitlines() == [
        f"windows/amd64  10.0.1.1  v1  {digests[0]}",
        f"windows/amd64  10.0.2.1  v1  {digests[1]}",
        f"windows/amd64  10.0.3.1  v1  {digests[2]}  (the source does not contain blob {digests[2]})",
        f"linux/arm64    -         @1  {digests[3]}",
    ]


def test_json_is_an_object_in_a_line(source: tuple[Path, list[str]]) -> None:
    layout, digests = source
    records = [json.loads(line) for line in succeed("images", layout, "--json").splitlines()]
    assert [record["digest"] for record in records] == digests
    assert records[0] == {
        "os": "windows",
        "architecture": "amd64",
        "os_version": "10.0.1.1",
        "references": ["v1", "@0"],
        "digest": digests[0],
        "problem": None,
    }
    assert records[3]["references"] == ["@1"]


def test_a_reference_limits_the_list(source: tuple[Path, list[str]]) -> None:
    layout, digests = source
    assert [line.split()[3] for line in succeed("images", f"oci:{layout}:v1").splitlines()] == digests[:3]
    assert succeed("images", f"oci:{layout}:{digests[1]}") == f"windows/amd64  10.0.2.1  v1  {digests[1]}\n"


def test_archives_and_standard_input_are_listed(source: tuple[Path, list[str]], tmp_path: Path) -> None:
    data = packed(source[0], tmp_path / "a.tar").read_bytes()
    listed = succeed("images", source[0])
    assert text_of(run("images", "-", input=gzip.compress(data)).stdout) == listed
    docker = tar_of(docker_files([LAYER], tags=["x:1"]), tmp_path / "d.tar")
    assert succeed("images", docker) == "windows/amd64  -  x:1  -\n"


def test_a_source_without_images_lists_nothing(tmp_path: Path) -> None:
    assert succeed("images", Store().layout(tmp_path / "a", [])) == ""
    assert succeed("images", tmp_path / "a", "--json") == ""


@pytest.mark.parametrize("arguments", [["nothing"], ["docker://host/a"], ["oci:nothing:v1"]])
def test_failures_are_one_line(arguments: list[str]) -> None:
    result = call("images", *arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
