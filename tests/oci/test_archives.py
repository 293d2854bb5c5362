"""Archives of images, and what is no image."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cimlayer.blobs.digests import Digest
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.oci.files import TarArchive
from support.containers import Layer, Store, digest_of, packed, tar_of
from support.documents import LAYER, select
from support.platforms import same_everywhere

pytestmark = same_everywhere

# ---- what is no image ----


def test_a_missing_source_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        select(tmp_path / "none")


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no container image"):
        select(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b\x08" + bytes(600), "gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd"),
        (b"no tar" * 200, "not a tar"),
        (b"", "no container image"),
        (bytes(10240), "no container image"),
    ],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        select(tmp_path / "a.tar")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    archive = tar_of({"manifest.json": b"[]", "layer.tar": bytes(100_000)}, tmp_path / "a.tar")
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(FormatError, match=r"a\.tar"):
        select(archive)


# ---- archives ----


def test_links_in_an_archive_stay_in_it_and_do_not_turn_in_circles(tmp_path: Path) -> None:
    archive = TarArchive(
        tar_of(
            {"a/x": b"1", "a/y": "x", "z": "a/y", "loop": "loop", "one": "two", "two": "one", "out": "../../etc/hosts"},
            tmp_path / "a.tar",
        ),
        CancellationToken(),
    )
    assert archive.size("z") == 1
    with archive.open("z") as file:
        assert file.read() == b"1"
    for name in ("loop", "one", "out", "missing"):
        assert archive.size(name) is None
        with pytest.raises(FileNotFoundError):
            archive.open(name)


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for data in (b"first", b"second one"):
            member = tarfile.TarInfo("./x")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    archive = TarArchive(tmp_path / "a.tar", CancellationToken())
    with archive.open("x") as file:
        assert file.read() == b"second one"


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_all_forms_are_read(tmp_path: Path, format: int) -> None:
    store = Store()
    folder = store.layout(tmp_path / "a", [store.image([LAYER])])
    assert select(packed(folder, tmp_path / "a.tar", format)).layers[0].blob.size == len(LAYER.blob)


def test_a_digest_of_sha512_is_read() -> None:
    text = digest_of(b"", "sha512")
    assert str(Digest.parse(text, "x")) == text
    assert Layer(b"", b"", "", algorithm="sha512").digest == text
