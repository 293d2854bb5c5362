"""Every fault of a container registry ends in success, or in one line that says where, and leaves nothing."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from support.commands import call
from support.containers import Layer, Store, base_tar, gzipped
from support.platforms import same_everywhere
from support.registries import FakeRegistry, Request

pytestmark = same_everywhere

Fault = Callable[[Request, bytes], object]


def flipped(data: bytes) -> bytes:
    return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]


def stalled(request: Request, data: bytes) -> None:
    request.start(200, {"Content-Length": str(len(data))})
    request.send(data[:100])
    request.rfile.read(1)  # until the client gives up


FAULTS: dict[str, tuple[Fault, str]] = {
    "another content": (lambda r, d: r.answer(200, flipped(d)), r"expected digest .* \(at offset \d+\)"),
    "no content": (lambda r, d: r.answer(200, b""), r"expected \d+ bytes, but it has 0 bytes \(at offset 0\)"),
    "too short": (lambda r, d: r.answer(200, d[:5000]), r"but it has 5000 bytes \(at offset 5000\)"),
    "too long": (lambda r, d: r.answer(200, d + b"x"), r"but it has more bytes \(at offset \d+\)"),
    "nothing like it": (lambda r, d: r.answer(200, b"<html>" * 100), r"but it has 600 bytes"),
    "cut again and again": (lambda r, d: r.answer(200, d, cut=900), r"offset 900: .*closed early \(tried 6 times\)"),
    "wrong ranges": (lambda r, d: r.answer(206, d, {"Content-Range": "bytes 7-8/9"}), "offset 0: .* another range"),
    "no success": (lambda r, d: r.answer(304), "offset 0: 304 Not Modified"),
    "refused": (lambda r, d: r.fail(403, "DENIED"), r"offset 0: 403 Forbidden \(DENIED\)"),
    "missing": (lambda r, d: r.fail(404, "BLOB_UNKNOWN"), r"offset 0: 404 Not Found \(BLOB_UNKNOWN\)"),
    "busy": (lambda r, d: r.fail(503, "UNAVAILABLE"), r"offset 0: 503 .* \(tried 6 times\)"),
    "asked to wait": (lambda r, d: r.fail(429, "X", {"Retry-After": "999"}), "offset 0: 429 .* wait for 999 s"),
    "hung up": (lambda r, d: r.hang_up(), r"offset 0: .* \(tried 6 times\)"),
    "in circles": (lambda r, d: r.answer(302, b"", {"Location": r.path}), "offset 0: more than 10 redirects"),
    "stalled": (stalled, r"offset 100: no progress for 0 s \(tried 6 times\)"),
}


def import_with(registry: FakeRegistry, image: str, directory: Path, digest: str, fault: Fault) -> str:
    """The one line that an import ends with."""
    data = registry.store.blobs[digest]

    def hook(request: Request) -> bool:
        if request.command == "GET" and request.path.endswith(digest):
            fault(request, data)
            return True
        return False

    registry.hook = hook
    result = call("import-image", image, directory, "--tls-verify=false", "--no-sync", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cimlayer: {image}: ")
    return line


@pytest.fixture
def one(registry: FakeRegistry) -> tuple[str, str]:
    """An image of one layer, and that layer's digest."""
    layer = gzipped(base_tar(noise=random.Random(1).randbytes(100_000)))
    return registry.tag("win/app:v1", registry.store.image([layer])), layer.digest


@pytest.mark.parametrize("name", FAULTS)
def test_a_layer_that_cannot_be_had(
    registry: FakeRegistry, one: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, reason = FAULTS[name]
    monkeypatch.setitem(cimlayer.ContainerRegistry.__init__.__kwdefaults__, "stall_timeout", 0.05)
    image, digest = one
    line = import_with(registry, image, tmp_path / "layers", digest, fault)
    assert digest in line
    assert re.search(reason, line)
    assert not (tmp_path / "layers").exists()


@pytest.mark.parametrize("name", ["manifests", "config"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda r, d: r.answer(200, d + b" "), r"expected .* but it has .* \(at offset \d+\)"),
        (lambda r, d: r.fail(404, "MANIFEST_UNKNOWN"), "404 Not Found"),
        (lambda r, d: r.answer(200, d, cut=9), "closed early"),
        (lambda r, d: r.answer(200, bytes((8 << 20) + 1)), "too many"),
    ],
)
def test_a_document_that_cannot_be_had(
    registry: FakeRegistry, one: tuple[str, str], tmp_path: Path, name: str, fault: Fault, reason: str
) -> None:
    image, _ = one
    digest = registry.tags["win/app:v1"]
    if name == "manifests":
        image = image.replace(":v1", f"@{digest}")
    else:
        digest = json.loads(registry.store.blobs[digest])["config"]["digest"]
    line = import_with(registry, image, tmp_path / "layers", digest, fault)
    assert digest in line.removeprefix(f"cimlayer: {image}: ")
    assert re.search(reason, line)
    assert not (tmp_path / "layers").exists()


def test_a_wrong_diff_id(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    layer = gzipped(base_tar(a=b"a"))
    wrong = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}
    image = registry.tag("win/app:v1", store.image([layer], config=wrong))
    line = import_with(registry, image, tmp_path / "layers", layer.digest, lambda r, d: r.blob(d))
    assert re.search(rf"layer sha256:0{{64}} of blob {layer.digest}: expected diff ID .* \(at offset \d+\)", line)
    assert not (tmp_path / "layers").exists()


def test_a_tar_beyond_the_limits(registry: FakeRegistry, one: tuple[str, str], tmp_path: Path) -> None:
    image, digest = one
    result = call("import-image", image, tmp_path / "layers", "--tls-verify=false", "--limit", "files=3", "--quiet")
    (line,) = result.stderr.splitlines()
    assert re.search(rf"{re.escape(image)}: layer {digest}: .*the limit of files is 3", line)
    assert not (tmp_path / "layers").exists()


def test_ranges_of_a_server_that_gives_less_are_put_together(
    registry: FakeRegistry, layers: list[Layer], image: str, tmp_path: Path
) -> None:
    digest, data = layers[1].digest, layers[1].blob

    def hook(request: Request) -> bool:
        if request.command != "GET" or not request.path.endswith(digest):
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 100_000, len(data))
        request.answer(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
        return True

    registry.hook = hook
    with cimlayer.ContainerRegistry(image, tls_verify=False) as source:
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert len(registry.asked("GET", digest)) == -(-len(data) // 100_000)


def test_an_error_as_json_has_the_source(registry: FakeRegistry, one: tuple[str, str], tmp_path: Path) -> None:
    image, digest = one
    registry.store.blobs[digest] = flipped(registry.store.blobs[digest])
    result = call("import-image", image, tmp_path / "layers", "--tls-verify=false", "--json")
    error: dict[str, Any] = json.loads(result.stderr.splitlines()[-1])
    assert (error["source"], error["path"]) == (image, f"blob {digest}")
    assert error["offset"] == len(registry.store.blobs[digest])
