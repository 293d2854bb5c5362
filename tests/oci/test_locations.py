"""Where an image lies: skopeo's notation, compressed archives, pipes, what other tools write, and hints."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import FormatError, LimitError
from cimlayer.limits import Limits
from cimlayer.oci.locations import opened_source
from cimlayer.oci.selection import select
from support.containers import Store, base_tar, child_tar, docker_files, gzipped, packed, plain, tar_of, write
from support.platforms import WINDOWS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LAYERS = [gzipped(base_tar(a=b"a" * 10_000)), plain(child_tar(b=b"b"))]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "temporary"


def archive(tmp_path: Path) -> Path:
    store = Store()
    return packed(store.layout(tmp_path / "layout", [store.image(LAYERS)]), tmp_path / "layout.tar")


def imported(source: str | Path, layers: Path) -> int:
    return len(cimlayer.import_image(source, layers, sync=False).layers)


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("form", ["", "oci-archive:", "docker"])
def test_compressed_archives_are_imported(
    tmp_path: Path, temporary: Path, compress: Callable[[bytes], bytes], form: str
) -> None:
    plain_archive = tar_of(docker_files(LAYERS), tmp_path / "d.tar") if form == "docker" else archive(tmp_path)
    source = tmp_path / "compressed"
    source.write_bytes(compress(plain_archive.read_bytes()))
    assert imported(f"{'docker-archive:' if form == 'docker' else form}{source}", tmp_path / "layers") == 2
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_standard_input_is_imported(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(archive(tmp_path).read_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    assert imported("-", tmp_path / "layers") == 2
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_pipe_is_imported(tmp_path: Path) -> None:
    data = archive(tmp_path).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    assert imported(tmp_path / "pipe", tmp_path / "layers") == 2
    writer.join()


def test_an_archive_that_decompresses_to_too_much_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(LimitError, match=r"bomb\.tar\.gz: too many|ratio"):
        cimlayer.import_image(tmp_path / "bomb.tar.gz", tmp_path / "layers", limits=Limits(ratio=20))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("data", [b"PK\3\4" + bytes(2000), b"BZh9" + bytes(2000), b"text" * 500])
def test_a_file_that_is_no_tar_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    for name, content in (("plain", data), ("compressed", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=f"{name}: not a tar"):
            imported(tmp_path / name, tmp_path / "layers")


# ---- the notation ----


def test_each_notation_takes_its_form(tmp_path: Path) -> None:
    store = Store()
    top = store.image(LAYERS, annotations={"org.opencontainers.image.ref.name": "v:1"})
    colon = "" if WINDOWS else ":"  # which every absolute path has there
    layout = store.layout(tmp_path / f"a{colon}b", [top])
    sources = [
        f"oci:{layout}",
        f"oci:{layout}:v:1",
        f"oci-archive:{packed(layout, tmp_path / f'c{colon}d.tar')}:v:1",
        f"dir:{store.skopeo(tmp_path / f'e{colon}f', top)}",
        f"docker-archive:{tar_of(docker_files(LAYERS), tmp_path / 'g.tar')}:a:1",
        f"docker-archive:{tmp_path / 'g.tar'}:docker.io/library/a:1",
        str(layout),
    ]
    assert [imported(source, tmp_path / "layers") for source in sources] == [2] * len(sources)


def test_a_notation_for_another_form_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", docker_files(LAYERS))
    with pytest.raises((FormatError, FileNotFoundError)):
        imported(f"oci:{folder}", tmp_path / "layers")
    with pytest.raises(FormatError):
        imported(f"dir:{folder}", tmp_path / "layers")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("docker-daemon:windows:1", ValueError, "skopeo copy"),
        ("docker-daemon:a:1", ValueError, "docker save"),
        ("containers-storage:a", ValueError, "oci-archive:FILE"),
        ("https://host/a", ValueError, "SOURCE is"),
        ("oci:", ValueError, "no path"),
        ("windows:ltsc2022", FileNotFoundError, "SOURCE is"),
        ("oci:nothing", FileNotFoundError, "No such file"),
        ("oci:nothing:v1", FileNotFoundError, "No such file"),
        ("nothing", FileNotFoundError, "No such file"),
    ],
)
def test_a_source_that_is_not_understood_gets_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        imported(source, tmp_path / "layers")


def test_two_references_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two references"), opened_source(f"oci:{tmp_path}/x:a", "b"):
        pass


def test_what_is_no_image_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(base_tar())
    folder = write(tmp_path / "outer", {"inner/index.json": b"{}"})
    old = write(tmp_path / "old", {"repositories": b"{}"})
    cimlayer.import_layer(tmp_path / "layer.tar", tmp_path / "store" / "1", sync=False)
    for source, hint in (
        (tmp_path / "layer.tar", "a single layer"),
        (folder, "there is one in inner"),
        (packed(folder, tmp_path / "outer.tar"), "there is one in inner"),
        (old, "before 1.10"),
        (tmp_path / "store", "CIM layers"),
        (tmp_path / "store" / "1", "CIM layers"),
    ):
        with pytest.raises(FormatError, match=f"no container image: .*{hint}"):
            imported(source, tmp_path / "layers")


# ---- what other tools write ----


def renamed(config: str, layer: str, compress: Callable[[bytes], bytes] = bytes) -> dict[str, bytes]:
    """A docker archive with other names: ``{}`` is the hex digest of the file."""
    files = docker_files(LAYERS)
    entry = json.loads(files["manifest.json"])[0]
    config_data = files[entry["Config"]]
    blobs = [compress(files[path]) for path in entry["Layers"]]
    entry["Config"] = config.format(hashlib.sha256(config_data).hexdigest())
    entry["Layers"] = [layer.format(hashlib.sha256(blob).hexdigest()) for blob in blobs]
    named = dict(zip(entry["Layers"], blobs, strict=True))
    return named | {entry["Config"]: config_data, "manifest.json": json.dumps([entry]).encode()}


NAMES = {
    "imgutil": ("/{}.json", "/{}.tar", bytes),
    "crane": ("sha256:{}", "{}.tar.gz", gzip.compress),
    "podman": ("{}.json", "{}.tar", bytes),
    "compressed without a digest": ("config.json", "layers/{:.8}.tar", gzip.compress),
    "docker 25": ("blobs/sha256/{}", "blobs/sha256/{}", bytes),
    "buildx": ("blobs/sha256/{}", "blobs/sha256/{}", zstd.compress),
}


@pytest.mark.parametrize("tool", NAMES)
@pytest.mark.parametrize("unpacked", [False, True])
def test_names_in_docker_archives(tmp_path: Path, tool: str, unpacked: bool) -> None:
    files = renamed(*NAMES[tool])
    if unpacked:
        if os.name == "nt" and tool == "crane":
            pytest.skip("no such names on Windows")
        source = write(tmp_path / "a", {name.lstrip("/"): data for name, data in files.items()})
    else:
        rooted = {f"/{name.lstrip('/')}": data for name, data in files.items()} if tool == "imgutil" else files
        source = tar_of(rooted, tmp_path / "a.tar")
    result = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert [layer.diff_id for layer in result.layers] == [layer.diff_id for layer in LAYERS]


@pytest.mark.parametrize(("version", "suffix"), [("1.0", ".tar"), ("1.1", "")])
def test_skopeo_folders_of_both_versions(tmp_path: Path, version: str, suffix: str) -> None:
    store = Store()
    top = store.image(LAYERS)
    folder = store.skopeo(tmp_path / "a", top)
    (folder / "version").write_text(f"Directory Transport Version: {version}\n", encoding="utf-8")
    for path in folder.iterdir():
        if len(path.name) == 64:
            path.rename(f"{path}{suffix}")
    assert imported(folder, tmp_path / "layers") == 2


def test_a_skopeo_folder_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    store = Store()
    folder = store.skopeo(tmp_path / "a", store.image(LAYERS))
    (folder / "version").write_text("Directory Transport Version: 2.0\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"version 2\.0"), opened_source(folder) as (images, _):
        select(images)
