"""What is written after an addition: a backup stream or the content itself, told apart by its first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import CimLayerWriter, FileBasicInfo
from cimlayer.errors import FormatError
from cimlayer.layer.standard import HIVES
from support import layers
from support.layers import TIME, image_of

FILE = FileBasicInfo.at(TIME, 0x20)
DIRECTORY = FileBasicInfo.at(TIME, 0x10)
CONTENTS = [b"x", b"x" * 19, b"MZ" + bytes(18), bytes(20), b"\1" + bytes(19), b"text of a file\r\n" * 5000]
HIVE = HIVES[2].path


def layer(path: Path, raw: bool | None = None) -> CimLayerWriter:
    writer = CimLayerWriter(path, sync=False, raw=raw)
    for hive in HIVES:
        data = layers.hive(who=hive.name)
        writer.add(hive.path, FILE, len(data))
        write(writer, data if raw else b"".join(Stream.data(data)))
    return writer


def write(writer: CimLayerWriter, data: bytes, piece: int = 1 << 20) -> None:
    for at in range(0, len(data), piece):
        assert writer.write(data[at : at + piece]) == len(data[at : at + piece])


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CimLayerWriter]:
    writer = layer(tmp_path / "l")
    yield writer
    writer.abandon()


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("raw", [None, True, False])
def test_content_is_taken_in_both_forms(tmp_path: Path, raw: bool | None, piece: int) -> None:
    with layer(tmp_path / "l", raw) as writer:
        for number, content in enumerate(CONTENTS):
            for form in {None: ("raw", "stream"), True: ("raw",), False: ("stream",)}[raw]:
                data = content if form == "raw" else b"".join(Stream.data(content))
                writer.add(f"{form}{number}", FILE, len(content))
                write(writer, data[:1000], piece)
                write(writer, data[1000:])
                writer.add_alternate_stream(f"{form}{number}:s", len(content))
                write(writer, data[:1000], piece)
                write(writer, data[1000:])
    found = image_of(tmp_path / "l")
    for number, content in enumerate(CONTENTS):
        for form in ("raw", "stream"):
            if f"{form}{number}" in found:
                assert found[f"{form}{number}"].data == content
                assert found[f"{form}{number}"].streams == {"s": content}


def test_hive_as_it_is(tmp_path: Path) -> None:
    layer(tmp_path / "l", raw=True).close()
    assert image_of(tmp_path / "l")[HIVE].data == layers.hive(who=HIVES[2].name)


def test_content_that_is_itself_a_backup_stream(tmp_path: Path) -> None:
    content = b"".join(Stream.security(bytes([1, 0, 4, 0x80]) + bytes(16)))
    with layer(tmp_path / "l", raw=True) as writer:
        writer.add("f", FILE, len(content))
        writer.write(content)
    assert image_of(tmp_path / "l")["f"].data == content


@pytest.mark.parametrize("data", [b"x" * 29, b"x" * 31, b"x" * 19, b"", bytes(100)])
def test_bytes_that_are_neither_are_refused(writer: CimLayerWriter, data: bytes) -> None:
    writer.add("f", FILE, 30)
    with pytest.raises(FormatError) as caught:
        writer.write(data)
        writer.close()
    assert caught.value.what == "f"
    if len(data) > 20:
        assert "no backup stream (" in str(caught.value)


def test_content_of_a_directory_is_refused(tmp_path: Path) -> None:
    writer = layer(tmp_path / "l", raw=True)
    writer.add("d", DIRECTORY, 0)
    with pytest.raises(FormatError, match="more than the 0 bytes"):
        writer.write(b"x")


def test_backup_stream_is_demanded(tmp_path: Path) -> None:
    writer = layer(tmp_path / "l", raw=False)
    writer.add("f", FILE, 30)
    with pytest.raises(FormatError):
        writer.write(b"x" * 30)


def test_link_before_the_file_that_it_is_to(tmp_path: Path) -> None:
    with CimLayerWriter(tmp_path / "l", sync=False) as writer:
        writer.add_link("early", HIVE)
        writer.add_link("to the link", "early")
        for hive in HIVES:
            writer.add(hive.path, FILE, 4)
            writer.write(b"hive")
    found = image_of(tmp_path / "l")
    assert found["early"].data == b"hive"
    assert found["early"].file_id == found["to the link"].file_id == found[HIVE].file_id


def test_names_that_end_in_a_backslash(tmp_path: Path) -> None:
    with layer(tmp_path / "l") as writer:
        writer.add("Files\\d\\", DIRECTORY, 0)
        writer.add_alternate_stream("Files\\d\\:s:$DATA", 1)
        writer.write(b"1")
        writer.add_link("Files\\link\\", HIVE + "\\")
        writer.remove("Files\\gone\\")
    found = image_of(tmp_path / "l")
    assert found["Files\\d"].streams == {"s": b"1"}
    assert found["Files\\link"].file_id == found[HIVE].file_id
