"""What the tests of CimLayerWriter share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from cimfs_ext.backupstream import BackupStreamWriter as Stream
from cimlayer import (
    CimLayerWriter,
    FileBasicInfo,
)
from cimlayer.layer.standard import HIVES
from support import layers
from support.layers import TIME

FILE = FileBasicInfo.at(TIME, 0x20)


DIRECTORY = FileBasicInfo.at(TIME, 0x10)


OWNED = bytes.fromhex("0100048014000000000000000000000000000000010200000000000520000000 20020000".replace(" ", ""))


EAS = bytes([0, 0, 0, 0, 0, 1, 1, 0]) + b"A\0v"


def directories(writer: CimLayerWriter, path: str) -> None:
    parts = path.split("\\")
    for n in range(1, len(parts)):
        writer.add("\\".join(parts[:n]), DIRECTORY, 0)


def put(writer: CimLayerWriter, path: str, data: bytes = b"", info: FileBasicInfo = FILE, **metadata: bytes) -> None:
    writer.add(path, info, len(data), **metadata)
    feed(writer, Stream.data(data))


def feed(writer: CimLayerWriter, *streams: Iterable[bytes], piece: int = 1 << 20) -> None:
    data = b"".join(b"".join(stream) for stream in streams)
    for at in range(0, len(data), piece):
        assert writer.write(data[at : at + piece]) == len(data[at : at + piece])


def base_writer(path: Path) -> CimLayerWriter:
    writer = CimLayerWriter(path, sync=False, reproducible=True)
    directories(writer, HIVES[0].path)
    for hive in HIVES:
        put(writer, hive.path, layers.hive(who=hive.name))
    return writer


@pytest.fixture(scope="module")
def made_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layers")
    with base_writer(root / "base") as writer:
        put(writer, r"Files\x", b"base x")
        put(writer, r"Files\y", b"base y")
        writer.add(r"Files\dir", DIRECTORY, 0)
        put(writer, r"Files\dir\z", b"base z")
    return root


@pytest.fixture
def root(made_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(made_base, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def writer(root: Path) -> CimLayerWriter:
    return CimLayerWriter(root / "child", [root / "base"], sync=False, reproducible=True)
