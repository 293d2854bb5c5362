"""Hives: untrusted hives."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from cimfs_ext.errors import CorruptHiveError
from cimfs_ext.regf import Hive
from support import hives
from support.hives import REG_BINARY, Builder, Node, Val, build
from support.regf import SAMPLE


class TestHostileHives:
    """Each case breaks one thing of a good hive: what is said, and the cell that the offset names."""

    @staticmethod
    def refused(builder: Builder, root: int, match: str) -> int:
        with pytest.raises(CorruptHiveError, match=match) as caught:
            Hive.open(builder.file(root), name="hostile")
        assert caught.value.what == "hostile"
        return caught.value.offset - 4096

    def sample(self) -> tuple[Builder, int]:
        builder = Builder()
        root = builder.key(Node(values=[Val("v", REG_BINARY, b"123456")], subkeys=[Node("A", subkeys=[Node("B")])]))
        return builder, root

    def test_cycle(self) -> None:
        builder, root = self.sample()
        loop = builder.list_of([root])
        builder.patch(builder.keys["A\\B"], 20, struct.pack("<I4xI", 1, loop))
        assert self.refused(builder, root, "two owners") == root

    def test_key_in_two_lists(self) -> None:
        builder, root = self.sample()
        other = builder.list_of([builder.keys["A\\B"], builder.keys["A"]])
        builder.patch(root, 20, struct.pack("<I4xI", 2, other))
        assert self.refused(builder, root, "two owners") == builder.keys["A\\B"]

    def test_overlapping_cells(self) -> None:
        builder, root = self.sample()
        inside = builder.keys["A"] + 8
        builder.patch(builder.keys["A"], 4, struct.pack("<i", -8))
        builder.patch(root, 48, struct.pack("<I", inside))
        builder.patch(root, 74, struct.pack("<H", 2))
        assert self.refused(builder, root, "two owners") == builder.keys["A"]

    def test_keys_nest_512_levels_and_no_more(self) -> None:
        def nested(depth: int) -> bytes:
            builder = Builder()
            below = builder.key(Node("k"), "leaf")
            for _ in range(depth - 1):
                key = builder.key(Node("k"), "key")
                builder.patch(key, 20, struct.pack("<I4xI", 1, builder.list_of([below])))
                below = key
            root = builder.key(Node())
            builder.patch(root, 20, struct.pack("<I4xI", 1, builder.list_of([below])))
            return builder.file(root)

        hive = Hive.open(nested(512))
        assert "\\".join(["k"] * 512) in hive
        assert Hive.open(hive.to_bytes()).to_bytes() == hive.to_bytes()
        with pytest.raises(CorruptHiveError, match="nest too deeply"):
            Hive.open(nested(513))

    @pytest.mark.parametrize(
        ("field", "value", "match"),
        [
            (20, 0xFFFFFFFF, "more subkeys than the hive has room for"),
            (20, 2, "hold less than its count"),
            (28, 0xFFFFFFF8, "out of the hive bins"),
            (28, 33, "out of the hive bins"),
            (36, 0x7FFFFFFF, "more values than the hive has room for"),
            (36, 9, "too small"),
            (40, 0x100000, "out of the hive bins"),
            (44, 0, "two owners|free cell|size of a cell"),
            (48, 0x100000, None),
        ],
    )
    def test_wrong_field_of_a_key(self, field: int, value: int, match: str | None) -> None:
        builder, root = self.sample()
        builder.patch(root, field, struct.pack("<I", value))
        if match:
            self.refused(builder, root, match)
        else:  # a class of length zero has no cell
            assert Hive.open(builder.file(root)).root.class_name == ""

    def test_value_names_that_differ_in_case_alone(self) -> None:
        for count in (2, 40):
            values = [Val(f"v{i}") for i in range(count)] + [Val("V1")]
            builder = Builder()
            self.refused(builder, builder.key(Node(values=values)), "a value name stands twice")

    def test_nested_ri(self) -> None:
        builder, root = self.sample()
        inner = builder.cell(struct.pack("<2sHI", b"ri", 1, 0))
        outer = builder.cell(struct.pack("<2sHI", b"ri", 1, inner))
        builder.patch(root, 28, struct.pack("<I", outer))
        assert self.refused(builder, root, "another one of its kind") == inner

    def test_big_data_with_a_shared_segment(self) -> None:
        builder = Builder()
        segment = builder.cell(bytes(16344))
        builder.cell(bytes(16344))
        listed = builder.cell(struct.pack("<2I", segment, segment))
        record = builder.cell(struct.pack("<2sHI", b"db", 2, listed))
        value = builder.cell(struct.pack("<2sHIIIHHc", b"vk", 1, 32688, record, 3, 1, 0, b"v"))
        root = builder.key(Node())
        builder.patch(root, 36, struct.pack("<II", 1, builder.cell(struct.pack("<I", value))))
        assert self.refused(builder, root, "two owners") == segment

    def test_every_truncation_is_an_error(self) -> None:
        data = build(SAMPLE)
        for size in (0, 3, 511, 4095, 4096, 8191, len(data) - 4096, len(data) - 1):
            with pytest.raises(CorruptHiveError, match=r"the file ends|not a registry hive"):
                Hive.open(data[:size])

    def test_every_damaged_byte_of_the_cells_is_survived(self) -> None:
        data = build(Node(values=[Val("v", 3, b"123456")], subkeys=[Node("A", class_name="c", subkeys=[Node("B")])]))
        for at in range(4096, 4096 + 700):
            for value in (0, 0x7F, 0x80, 0xFF):
                damaged = bytearray(data)
                damaged[at] = value
                try:
                    hive = Hive.open(bytes(damaged))
                except CorruptHiveError as error:
                    assert error.offset >= 4096
                else:
                    assert hives.our_tree(Hive.open(hive.to_bytes())) == hives.our_tree(hive)

    @pytest.mark.parametrize("size", [(1 << 31) + 4097, 1 << 40])
    def test_a_file_that_is_larger_than_any_hive_is_not_read(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.write(build(Node()))
            file.truncate(size)
        with pytest.raises(CorruptHiveError, match=re.escape(f"{path}: the file is larger than a hive can be")):
            Hive.open(path)

    @pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no names of open files")
    def test_a_pipe_is_no_file(self) -> None:
        read, write = os.pipe()
        os.write(write, build(Node()))
        os.close(write)
        with pytest.raises(OSError, match="not a regular file") as caught:
            Hive.open(f"/dev/fd/{read}")
        os.close(read)
        assert caught.value.filename == f"/dev/fd/{read}"
