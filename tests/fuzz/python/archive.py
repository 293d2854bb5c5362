"""Container images: any documents, whose digests fit, are imported layer by layer, and what is there is whole."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.reader import ImageReader
from cimlayer.errors import FormatError, ImageError
from cimlayer.layer.garbage import collect_garbage
from cimlayer.oci.import_image import import_image
from fuzz.python.scratch import scratch
from support.containers import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, base_tar, child_tar, digest_of

SEPARATOR = b"\n\xff\n"
LAYOUT, SKOPEO, DOCKER, TAR = range(4)
PLATFORM = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
TARS = (base_tar(a=b"1"), child_tar(b=b"2"))
REFERENCE = re.compile(rb"@(\d)")


def seeds() -> dict[str, bytes]:
    """A byte that says which form, then documents, each of which may name a later one's digest as ``@`` and its number.

    The layers' tars are numbers 8 and 9.
    """
    config = {**PLATFORM, "rootfs": {"type": "layers", "diff_ids": ["@8", "@9"]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": "@2", "size": "#2"},
        "layers": [{"mediaType": OCI_LAYER, "digest": f"@{at}", "size": f"#{at}"} for at in (8, 9)],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": "@1", "size": "#1", "platform": PLATFORM}],
    }
    outer = {"schemaVersion": 2, "manifests": [{"mediaType": OCI_INDEX, "digest": "@1", "size": "#1"}]}
    deep_manifest = json.loads(json.dumps(manifest).replace("@2", "@3").replace("#2", "#3"))
    deep_index = json.loads(json.dumps(index).replace("@1", "@2").replace("#1", "#2"))
    docker = [{"Config": "1.json", "RepoTags": ["a:1"], "Layers": ["8", "9"]}]
    return {
        "layout": _documents(LAYOUT, index, manifest, config),
        "tar": _documents(TAR, index, manifest, config),
        "nested": _documents(LAYOUT, outer, deep_index, deep_manifest, config),
        "skopeo": _documents(SKOPEO, manifest, {}, config),
        "docker": _documents(DOCKER, docker, config),
    }


def _documents(form: int, *documents: object) -> bytes:
    texts = (re.sub(r'"#(\d)"', r"#\1", json.dumps(document)) for document in documents)
    return bytes([form]) + SEPARATOR.join(text.encode() for text in texts)


def run(data: bytes) -> None:
    """Lay the documents out and import them."""
    if not data:
        return
    form = data[0] % 4
    blobs = _with_digests(data[1:].split(SEPARATOR)[:8])
    root, source, target = scratch() / "image", scratch() / "image" / "source", scratch() / "imported"
    shutil.rmtree(root, ignore_errors=True)
    for name, content in _files(form, blobs).items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    target.mkdir(exist_ok=True)
    if form == TAR:
        with tarfile.open(root / "image.tar", "w") as tar:
            tar.add(source, ".")
        source = root / "image.tar"
    try:
        _import(source, target / "layers")
    except (FormatError, ImageError, FileNotFoundError, FileExistsError, ValueError) as error:
        assert str(error)
        _check_what_is_left(target / "layers")
    finally:
        shutil.rmtree(target)


def _check_what_is_left(root: Path) -> None:
    """The layers below the one that failed stay, whole, and nothing else."""
    images = root / CIM_DIRECTORY
    layers = {path.stem for path in images.glob("*.cim")}
    assert {path.name for path in root.glob("*")} == (layers | {CIM_DIRECTORY} if layers else set())
    if layers:
        assert not collect_garbage(images)
        for layer in layers:
            with ImageReader(images / f"{layer}.cim") as image:
                assert not image.verify().problems


def _import(source: Path, target: Path) -> None:
    imported = import_image(source, target, sync=False, reproducible=True, jobs=1)
    assert imported.layers
    assert imported.top == imported.layers[-1].path
    assert all(layer.diff_id in map(digest_of, TARS) for layer in imported.layers)


def _with_digests(documents: list[bytes]) -> dict[int, bytes]:
    """The documents by number, references replaced: those to later ones first."""
    blobs = dict(enumerate(TARS, 8))
    for number, document in reversed(list(enumerate(documents))):

        def digest(match: re.Match[bytes]) -> bytes:
            return digest_of(blobs.get(int(match[1]), b"")).encode()

        def size(match: re.Match[bytes]) -> bytes:
            return b"%d" % len(blobs.get(int(match[1]), b""))

        blobs[number] = re.sub(rb"#(\d)", size, REFERENCE.sub(digest, document))
    return blobs


def _files(form: int, blobs: dict[int, bytes]) -> dict[str, bytes]:
    by_digest = {digest_of(blob): blob for blob in blobs.values()}
    if form == SKOPEO:
        files = {digest.partition(":")[2]: blob for digest, blob in by_digest.items()}
        files |= {f"{name}.manifest.json": blob for name, blob in list(files.items()) if blob not in TARS}
        return {**files, "version": b"Directory Transport Version: 1.1\n", "manifest.json": blobs.get(0, b"")}
    if form == DOCKER:
        named = {str(number): blob for number, blob in blobs.items()}
        return {**named, **{f"{n}.json": blob for n, blob in named.items()}, "manifest.json": blobs.get(0, b"")}
    files = {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in by_digest.items()}
    return {**files, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": blobs.get(0, b"")}
