"""Sources of a program's own, and what the protocol promises to them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

import cimlayer
from cimlayer import BlobDescriptor, ImageReference, ImageSource
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.oci.documents import DOCUMENT_LIMIT
from cimlayer.oci.locations import opened_source
from support import ROOT
from support.containers import Object, Store, base_tar, child_tar, docker_files, gzipped, packed, plain, tar_of, write

LAYERS = [gzipped(base_tar(a=b"a" * 100_000)), plain(child_tar(b=b"b"))]


class Arriving(io.RawIOBase):
    """A blob as a network has it: in pieces of any size, and without a position."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._left = data
        self._next = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        count = min(len(buffer), self._next, len(self._left))
        self._next = self._next % 977 + 13
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class Own:
    """A store that notes what it is asked for."""

    name = "a store of its own"

    def __init__(self, store: Store, *tops: Object) -> None:
        self.blobs = store.blobs
        self.tops = tops
        self.asked: list[str] = []
        self.limits: set[int] = set()
        self.far = False

    def references(self) -> Iterator[ImageReference]:
        for number, top in enumerate(self.tops):
            yield ImageReference((f"name:{number}",), BlobDescriptor(top["digest"]))

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        self.limits.add(limit)
        return self._blob(descriptor)

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        if self.far:
            return descriptor.size
        blob = self.blobs.get(descriptor.digest)
        return None if blob is None else len(blob)

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        return Arriving(self._blob(descriptor)[offset:])  # type: ignore[return-value]

    def _blob(self, descriptor: BlobDescriptor) -> bytes:
        self.asked.append(descriptor.digest)
        if descriptor.digest not in self.blobs:
            raise FileNotFoundError(f"no {descriptor.digest} here")
        return self.blobs[descriptor.digest]


@pytest.mark.parametrize("jobs", [1, 2])
def test_blobs_are_imported_as_they_arrive(tmp_path: Path, jobs: int) -> None:
    store = Store()
    source = Own(store, store.index([store.image(LAYERS)]))
    result = cimlayer.import_image(source, tmp_path / "layers", sync=False, jobs=jobs)
    assert [layer.digest for layer in result.layers] == [layer.digest for layer in LAYERS]
    assert [source.asked.count(layer.digest) for layer in LAYERS] == [1, 1]
    assert source.limits == {DOCUMENT_LIMIT}
    with cimlayer.ImageReader(cimlayer.get_cim_path_from_layer(result.top)) as image:
        assert image.read("Files/b") == b"b"


def test_layers_that_are_there_are_not_asked_for(tmp_path: Path) -> None:
    store = Store()
    source = Own(store, store.image(LAYERS))
    cimlayer.import_image(source, tmp_path / "layers", sync=False)
    source.asked.clear()
    source.far = True
    cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert not {layer.digest for layer in LAYERS} & set(source.asked)


def test_a_name_of_several_is_chosen(tmp_path: Path) -> None:
    store = Store()
    source = Own(store, store.image(LAYERS[:1]), store.image(LAYERS))
    result = cimlayer.import_image(source, tmp_path / "layers", reference="name:1", sync=False)
    assert len(result.layers) == 2
    with pytest.raises(ValueError, match=r"a store of its own: more than one .* name:0, .* name:1"):
        cimlayer.import_image(source, tmp_path / "layers")


@pytest.mark.parametrize("far", [False, True])
def test_a_blob_that_is_not_there_leaves_nothing_of_its_layer(tmp_path: Path, far: bool) -> None:
    store = Store()
    source = Own(store, store.image(LAYERS))
    source.far = far
    del source.blobs[LAYERS[1].digest]
    with pytest.raises(FileNotFoundError, match=LAYERS[1].digest):
        cimlayer.import_image(source, tmp_path / "layers", sync=False)
    found = [path.name for path in (tmp_path / "layers").iterdir()] if far else []
    assert (tmp_path / "layers").exists() == far
    assert len(found) == (2 if far else 0)  # the layer below, and cim-layers


def test_nothing_that_a_source_says_is_believed(tmp_path: Path) -> None:
    store = Store()
    top = store.image(LAYERS)
    for digest, data in list(store.blobs.items()):
        source = Own(store, top)
        source.blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(DigestMismatchError, match=digest):
            cimlayer.import_image(source, tmp_path / "layers", sync=False)
        source.blobs[digest] = data
    with pytest.raises(FormatError, match="too many for a document"):
        source = Own(store, {"digest": top["digest"]})
        source.blobs[top["digest"]] = bytes(DOCUMENT_LIMIT + 1)
        cimlayer.import_image(source, tmp_path / "layers", sync=False)


def test_an_error_of_the_source_ends_the_import(tmp_path: Path) -> None:
    class Broken(Own):
        def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
            raise ConnectionResetError("the line is dead")

    store = Store()
    with pytest.raises(ConnectionResetError, match="dead"):
        cimlayer.import_image(Broken(store, store.image(LAYERS)), tmp_path / "layers")


@pytest.mark.parametrize("form", ["layout", "archive", "skopeo", "docker", "docker archive"])
def test_every_source_gives_blobs_from_an_offset(tmp_path: Path, form: str) -> None:
    store = Store()
    top = store.image([plain(layer.tar) for layer in LAYERS])
    forms = {
        "layout": lambda: store.layout(tmp_path / "a", [top]),
        "archive": lambda: packed(store.layout(tmp_path / "a", [top]), tmp_path / "a.tar"),
        "skopeo": lambda: store.skopeo(tmp_path / "a", top),
        "docker": lambda: write(tmp_path / "a", docker_files(LAYERS)),
        "docker archive": lambda: tar_of(docker_files(LAYERS), tmp_path / "a.tar"),
    }
    with opened_source(forms[form]()) as (source, _):
        check_offsets(source)


def check_offsets(source: ImageSource) -> None:
    (reference,) = source.references()
    manifest = json.loads(source.document(reference.descriptor, DOCUMENT_LIMIT))
    for layer, entry in zip(LAYERS, manifest["layers"], strict=True):
        descriptor = BlobDescriptor(entry["digest"], entry["size"])
        assert source.blob_size(descriptor) == len(layer.tar)
        for offset in (0, 1, 512, len(layer.tar) - 1, len(layer.tar)):
            with source.open_blob(descriptor, offset) as blob:
                data = b""
                while piece := blob.read(10_000):
                    data += piece
            assert data == layer.tar[offset:]
    absent = BlobDescriptor(f"sha256:{'0' * 64}", 1)
    assert source.blob_size(absent) is None
    with pytest.raises(FileNotFoundError):
        source.open_blob(absent)


def test_the_example_imports_an_image_from_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.image_from_memory", str(tmp_path / "layers")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8", timeout=60)
    base, child = map(Path, done.stdout.splitlines())
    assert cimlayer.is_cim_layer(base)
    with cimlayer.ImageReader(cimlayer.get_cim_path_from_layer(child)) as image:
        assert image.exists("Files/App/new.txt")
