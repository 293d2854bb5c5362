"""Reading, editing and writing hives, against independent readers and a corpus of real and broken hives."""

from __future__ import annotations

import functools
import gc
import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimfs_ext.errors import CorruptHiveError, DirtyHiveWarning, FormatError, KeyNotFoundError
from cimfs_ext.regf import Hive, Key
from support import hives
from support.hives import REG_BINARY, REG_DWORD, REG_SZ, Builder, Node, Val, build, corpus

NO_HIVEX = {"System_Delta"}  # libhivex cannot read value tombstones
NO_REGIPY_NAMES = {"ExtendedASCIIHive"}  # regipy reads Latin-1 names as ASCII


def opened(name: str) -> Hive:
    if name not in hives.DIRTY:
        return Hive.open(corpus(name), name=name)
    with pytest.warns(DirtyHiveWarning, match=name):
        return Hive.open(corpus(name), name=name)


@pytest.mark.parametrize("name", hives.GOOD)
def test_every_key_and_value_is_what_dissect_sees(name: str) -> None:
    hive = opened(name)
    seen = hives.our_tree(hive)
    assert seen == hives.dissect_tree(corpus(name))
    assert seen == hives.dissect_tree(hive.to_bytes())


@pytest.mark.parametrize("name", [name for name in hives.GOOD if name != "SYSTEM_WIN_10_1709"])
def test_what_is_written_reads_the_same_with_regipy(name: str) -> None:
    hive = opened(name)
    seen = sorted(hives.regipy_keys(hive.to_bytes()))
    assert seen == sorted(hives.regipy_keys(corpus(name)))
    if name not in NO_REGIPY_NAMES:
        assert seen == sorted((path, key[1], len(key[2])) for path, key in hives.our_tree(hive).items())


@pytest.mark.parametrize("name", [n for n in hives.GOOD if n not in NO_HIVEX and n != "SYSTEM_WIN_10_1709"])
def test_what_is_written_reads_the_same_with_hivexsh(name: str) -> None:
    hive = opened(name)
    paths = [key.path for key in hive.walk()]
    listing = hives.hivexsh(hive.to_bytes(), paths)
    assert listing == hives.hivexsh(corpus(name), paths)
    assert len(listing.splitlines()) >= len(paths) - 1


@pytest.mark.parametrize("name", hives.GOOD)
def test_writing_keeps_everything_and_is_deterministic(name: str) -> None:
    hive = opened(name)
    written = hive.to_bytes()
    again = Hive.open(written)
    assert again.to_bytes() == written
    assert (again.layered, again.timestamp) == (hive.layered, hive.timestamp)
    for ours, theirs in zip(again.walk(), hive.walk(), strict=True):
        assert (ours.path, ours.security, ours.layering, ours.symlink) == (
            theirs.path, theirs.security, theirs.layering, theirs.symlink,
        )  # fmt: skip
        assert ours.values() == theirs.values()


def test_real_delta_has_layered_keys_and_tombstones() -> None:
    delta = opened("System_Delta")
    assert delta.layered
    assert delta.minor_version == 6
    services = "ControlSet001\\Services"
    assert delta.key(f"{services}\\xboxgipsvc").layering == 0x83
    assert delta.key(f"{services}\\XBOXGIPSVC\\a_subkey").layering == 3
    assert delta.key(f"{services}\\XBOXGIP").layering == 1
    assert delta.value(f"{services}\\XboxNetApiSvc", "displayname").tombstone
    assert not delta.value(f"{services}\\XboxNetApiSvc", "start").tombstone


# Broken hives of the corpus: what is said, and where.
BROKEN = [
    ("BadListHive", "two owners", 4816),
    ("BadSubkeyHive", "two owners", 5232),
    ("DuplicateSubkeysHive", "a subkey name stands twice", 441904),
    ("TruncatedHive", "ends inside the hive bins", 12288),
    ("GarbageHive", "checksum", 508),
]


@pytest.mark.parametrize(("name", "reason", "offset"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken_hive_is_refused_with_name_and_offset(name: str, reason: str, offset: int) -> None:
    with pytest.raises(CorruptHiveError, match=reason) as caught:
        Hive.open(corpus(name), name=name)
    assert (caught.value.what, caught.value.offset) == (name, offset)


def test_garbage_after_the_bins_is_ignored() -> None:
    hive = Hive.open(hives.with_checksum(corpus("GarbageHive")))
    assert hives.our_tree(hive) == hives.our_tree(opened("EmptyHive"))


class TestDirtyHives:
    LOG1, LOG2 = "NewDirtyHive1.LOG1", "NewDirtyHive1.LOG2"

    @pytest.mark.parametrize("logs", [(LOG1, LOG2), (LOG2, LOG1)])
    def test_new_logs_give_what_windows_recovered(self, logs: tuple[str, str]) -> None:
        hive = Hive.open(corpus("NewDirtyHive1.hive"), logs=[corpus(log) for log in logs])
        assert hive.recovered
        assert not hive.dirty
        expected = Hive.open(corpus("NewDirtyHive1.RecoveredHive_Windows10"))
        assert hives.our_tree(hive) == hives.our_tree(expected)

    def test_without_logs_it_is_read_as_it_is_with_a_warning(self) -> None:
        with pytest.warns(DirtyHiveWarning):
            hive = Hive.open(corpus("NewDirtyHive1.hive"))
        assert hive.dirty
        assert hives.our_tree(hive) == hives.dissect_tree(corpus("NewDirtyHive1.hive"))

    def test_damaged_entry_ends_the_log(self) -> None:
        log = bytearray(corpus(self.LOG1))
        log[0x200 + 100] ^= 1
        with pytest.warns(DirtyHiveWarning):
            hive = Hive.open(corpus("NewDirtyHive1.hive"), logs=[bytes(log)])
        assert hive.dirty
        assert not hive.recovered

    def test_torn_base_block_is_taken_from_the_log(self) -> None:
        torn = bytearray(corpus("NewDirtyHive1.hive"))
        torn[36:44] = b"\xff" * 8
        logs = [corpus(self.LOG1), corpus(self.LOG2)]
        hive = Hive.open(bytes(torn), logs=logs)
        assert hives.our_tree(hive) == hives.our_tree(Hive.open(corpus("NewDirtyHive1.hive"), logs=logs))

    def test_logs_of_a_clean_hive_are_not_looked_at(self) -> None:
        assert not Hive.open(corpus("EmptyHive"), logs=[corpus(self.LOG1)]).recovered

    def test_entries_after_a_damaged_first_one_are_not_applied(self) -> None:
        log = bytearray(corpus(self.LOG1))
        log[0x200 + 100] ^= 1
        with pytest.warns(DirtyHiveWarning):
            hive = Hive.open(corpus("NewDirtyHive1.hive"), logs=[bytes(log), corpus(self.LOG2)])
        assert hive.dirty
        assert not hive.recovered

    @staticmethod
    def states(count: int) -> list[bytes]:
        """What a hive was after each of its writes: the same cells, other data."""
        values = [Val("written", REG_BINARY, bytes(8)), Val("pad", REG_BINARY, bytes(5000))]
        files = []
        for number in range(count):
            values[0].data = bytes([number]) * 8
            files.append(build(Node(values=values), sequences=(number + 1, number), timestamp=number))
        return files

    @pytest.mark.parametrize("turned", [False, True])
    def test_torn_base_block_leaves_an_older_log_behind_a_gap_alone(self, turned: bool) -> None:
        files = self.states(10)
        logs = [
            hives.new_log(files[2], 2, [(2, files[2]), (3, files[3])]),
            hives.new_log(files[7], 7, [(7, files[7]), (8, files[8]), (4, files[4])]),
        ]
        torn = files[6][:36] + b"\xff" * 8 + files[6][44:]
        hive = Hive.open(torn, logs=logs[::-1] if turned else logs)
        assert hive.recovered
        assert hive.value("", "written").data == bytes([8]) * 8

    def test_torn_base_block_leaves_what_the_log_had_before_alone(self) -> None:
        files = self.states(10)
        torn = files[7][:36] + b"\xff" * 8 + files[7][44:]
        log = hives.new_log(files[7], 7, [(4, files[4]), (5, files[5])])
        with pytest.raises(CorruptHiveError, match="checksum"):
            Hive.open(torn, logs=[log])

    def test_torn_base_block_takes_logs_that_follow_one_another(self) -> None:
        files = self.states(10)
        torn = files[2][:36] + b"\xff" * 8 + files[2][44:]
        logs = [
            hives.new_log(files[3], 3, [(3, files[3]), (4, files[4])]),
            hives.new_log(files[5], 5, []),
        ]
        assert Hive.open(torn, logs=logs).value("", "written").data == bytes([4]) * 8

    @staticmethod
    def old_log(hive: bytes, changed: bytes, sequence: int) -> bytes:
        """A log of the old kind that turns the bins of one hive into those of another."""
        bins = changed[4096:]
        sectors = [i for i in range(len(bins) // 512) if bins[i * 512 :][:512] != hive[4096 + i * 512 :][:512]]
        bitmap = bytearray(len(bins) // 4096)
        for i in sectors:
            bitmap[i // 8] |= 1 << i % 8
        header = bytearray(changed[:512])
        struct.pack_into("<II", header, 4, sequence, sequence)
        struct.pack_into("<I", header, 28, 1)
        head = hives.with_checksum(header) + b"DIRT" + bitmap
        return head + bytes(-len(head) % 512) + b"".join(bins[i * 512 :][:512] for i in sectors)

    def test_old_log_replaces_sectors_and_may_grow_the_hive(self) -> None:
        values = [Val("one", REG_BINARY, bytes(range(250)) * 8)]
        before = build(Node(subkeys=[Node("A", values)]), sequences=(5, 4))
        after = build(Node(subkeys=[Node("A", values), Node("B", values), Node("C", [Val("x", 3, bytes(9000))])]))
        assert len(after) > len(before)
        log = self.old_log(before, after, 5)
        hive = Hive.open(before, logs=[log])
        assert hive.recovered
        assert hives.our_tree(hive) == hives.dissect_tree(after)

    def test_old_log_of_an_earlier_write_is_not_applied(self) -> None:
        before = build(Node(subkeys=[Node("A")]), sequences=(5, 4))
        log = self.old_log(before, build(Node(subkeys=[Node("B")])), 4)
        with pytest.warns(DirtyHiveWarning):
            hive = Hive.open(before, logs=[log])
        assert "A" in hive

    def test_old_log_of_an_earlier_time_is_not_applied(self) -> None:
        before = build(Node(subkeys=[Node("A")]), sequences=(5, 4), timestamp=20)
        log = self.old_log(before, build(Node(subkeys=[Node("B")]), timestamp=19), 9)
        with pytest.warns(DirtyHiveWarning):
            hive = Hive.open(before, logs=[log])
        assert "A" in hive


SAMPLE = Node(
    timestamp=131_000_000_000_000_000,
    class_name="of the root",
    values=[
        Val("", REG_SZ, "default\0".encode("utf-16-le")),
        Val("naïve", REG_DWORD, b"\1\0\0\0"),
        Val("Привет", REG_BINARY, b"\1\2\3"),
        Val("empty", REG_BINARY),
        Val("five", REG_BINARY, b"12345"),
        Val("edge", REG_BINARY, bytes(range(256)) * 63 + bytes(16344 - 63 * 256)),
        Val("big", REG_BINARY, bytes(range(251)) * 66),
        Val("bigger", REG_BINARY, bytes(range(241)) * 300),
    ],
    subkeys=[
        Node(
            "Ключ",
            timestamp=5,
            security=b"\1\0\4\x80" + b"\1" * 16,
            subkeys=[Node("a"), Node("B"), Node("_")],
        ),
        *(Node(f"k{i}", timestamp=i, class_name="c" * (i % 3)) for i in range(40)),
        Node("ëigenaardig", flags=0x10, subkeys=[Node("deep", subkeys=[Node("deeper", [Val("x")])])]),
    ],
)


@pytest.mark.parametrize("minor", [3, 4, 5, 6])
@pytest.mark.parametrize("leaf", [b"li", b"lf", b"lh"])
@pytest.mark.parametrize("leaf_size", [507, 7])
def test_every_version_and_list_kind_is_read(minor: int, leaf: bytes, leaf_size: int) -> None:
    data = build(SAMPLE, minor=minor, leaf=leaf, leaf_size=leaf_size)
    hive = Hive.open(data)
    assert hive.minor_version == minor
    if minor != 4:  # dissect takes 1.4 for a version without big data
        assert hives.our_tree(hive) == hives.dissect_tree(data)
    assert hives.our_tree(hive) == hives.dissect_tree(hive.to_bytes())
    assert hive.key("ËIGENAARDIG").symlink
    assert hive.value("", "BIGGER").data == SAMPLE.values[-1].data


def cells(data: bytes) -> dict[int, bytes]:
    """Every cell in use by offset, after checking that bins and cells leave no gap."""
    bins, found, at = data[4096:], {}, 0
    assert len(bins) == struct.unpack_from("<I", data, 40)[0]
    while at < len(bins):
        signature, offset, size = struct.unpack_from("<4sII", bins, at)
        assert (signature, offset, size % 4096) == (b"hbin", at, 0)
        cell, at = at + 32, at + size
        while cell < at:
            (length,) = struct.unpack_from("<i", bins, cell)
            assert length
            assert length % 8 == 0
            if length < 0:
                found[cell] = bins[cell + 4 : cell - length]
            cell += abs(length)
        assert cell == at
    return found


class TestWriter:
    def test_base_block(self) -> None:
        data = build(SAMPLE, timestamp=77)
        written = Hive.open(data).to_bytes()
        magic, first, second, time, major, minor = struct.unpack_from("<4sIIQII", written)
        assert (magic, first, second, time, major, minor) == (b"regf", 7, 7, 77, 1, 5)
        assert hives.with_checksum(written) == written

    def test_security_cells_are_shared_counted_and_linked(self) -> None:
        written = Hive.open(build(SAMPLE)).to_bytes()
        found = cells(written)
        users: dict[int, int] = {}
        for body in found.values():
            if body[:2] == b"nk":
                sk = struct.unpack_from("<I", body, 44)[0]
                users[sk] = users.get(sk, 0) + 1
        security = {offset: struct.unpack_from("<III", body, 4) for offset, body in found.items() if body[:2] == b"sk"}
        assert {offset: count for offset, (_, _, count) in security.items()} == users
        assert len(users) == 2
        for offset, (following, previous, _) in security.items():
            assert security[following][1] == offset
            assert security[previous][0] == offset

    def test_equal_descriptors_of_different_cells_become_one(self) -> None:
        builder = Builder()
        first = builder.key(Node("A"), "A")
        builder.security.clear()
        second = builder.key(Node("B"), "B")
        root = builder.key(Node())
        listed = builder.list_of([first, second])
        builder.patch(root, 20, struct.pack("<I", 2))
        builder.patch(root, 28, struct.pack("<I", listed))
        written = Hive.open(builder.file(root)).to_bytes()
        assert sum(body[:2] == b"sk" for body in cells(written).values()) == 1

    @pytest.mark.parametrize(("count", "lists"), [(507, [507]), (508, [507, 1]), (1200, [507, 507, 186])])
    def test_lists_are_lh_with_right_hashes_below_ri(self, count: int, lists: list[int]) -> None:
        names = [f"Key{i:05}é" for i in range(count)]
        written = Hive.open(build(Node(subkeys=[Node(name) for name in names]))).to_bytes()
        found = cells(written)
        root = found[struct.unpack_from("<I", written, 36)[0]]
        offset = struct.unpack_from("<I", root, 28)[0]
        leaves = [offset]
        if len(lists) > 1:
            assert found[offset][:4] == struct.pack("<2sH", b"ri", len(lists))
            leaves = list(struct.unpack_from(f"<{len(lists)}I", found[offset], 4))
        seen = []
        for leaf, size in zip(leaves, lists, strict=True):
            assert found[leaf][:4] == struct.pack("<2sH", b"lh", size)
            for key, value in struct.iter_unpack("<II", found[leaf][4 : 4 + 8 * size]):
                body = found[key]
                name = body[76 : 76 + struct.unpack_from("<H", body, 72)[0]].decode("latin-1")
                expected = 0
                for character in name.upper():
                    expected = (expected * 37 + ord(character)) & 0xFFFFFFFF
                assert value == expected
                seen.append(name)
        assert seen == names

    def test_largest_fields(self) -> None:
        written = Hive.open(build(SAMPLE)).to_bytes()
        root = cells(written)[struct.unpack_from("<I", written, 36)[0]]
        assert struct.unpack_from("<H", root, 52)[0] == 2 * len("ëigenaardig")
        assert struct.unpack_from("<III", root, 56) == (4, 2 * len("bigger"), 241 * 300)

    def test_minor_3_data_becomes_big_data(self) -> None:
        hive = Hive.open(build(SAMPLE, minor=3))
        kinds = [body[:4] for body in cells(hive.to_bytes()).values() if body[:2] == b"db"]
        assert kinds == [struct.pack("<2sH", b"db", 2), struct.pack("<2sH", b"db", 5)]

    def test_unsorted_subkeys_are_sorted(self) -> None:
        builder = Builder()
        keys = [builder.key(Node(name), name) for name in ("b", "C", "_", "a")]
        root = builder.key(Node())
        builder.patch(root, 20, struct.pack("<I", 4))
        builder.patch(root, 28, struct.pack("<I", builder.list_of(keys)))
        hive = Hive.open(builder.file(root))
        assert [key.name for key in hive.root.subkeys()] == ["a", "b", "C", "_"]
        assert hive.key("A").name == "a"

    def test_predefined_handle_is_kept(self) -> None:
        builder = Builder()
        root = builder.key(Node(flags=0x40))
        builder.patch(root, 36, struct.pack("<I", 0x80000050))
        written = Hive.open(builder.file(root)).to_bytes()
        body = cells(written)[struct.unpack_from("<I", written, 36)[0]]
        assert struct.unpack_from("<H", body, 2)[0] & 0x40
        assert struct.unpack_from("<I", body, 36)[0] == 0x80000050


class TestNamesThatNobodyMayCreate:
    """Windows reads longer names than it lets anyone create."""

    @pytest.mark.parametrize("letter", ["k", "Ж"])
    def test_long_key_name(self, letter: str) -> None:
        long = letter * 256
        hive = Hive.open(build(Node(subkeys=[Node(long, [Val("v")]), Node("next")])))
        again = Hive.open(hive.to_bytes())
        assert {key.path for key in again.walk()} == {"", long, "next"}
        again.set_value(long, "w", REG_SZ, b"")  # it is there: nothing is created
        assert [value.name for value in again.key(long.lower()).values()] == ["v", "w"]
        with pytest.raises(FormatError, match="1 to 255"):
            again.create_key(long + "x")

    @pytest.mark.parametrize("name", ["v" * 16384, "v" * 65535, "Ж" * 32767])
    def test_long_value_name(self, name: str) -> None:
        hive = Hive.open(build(Node(values=[Val(name, REG_BINARY, b"12345"), Val("w")])))
        hive.set_value("", name, REG_DWORD, b"\1\0\0\0")
        again = Hive.open(hive.to_bytes())
        assert again.value("", name.upper())[:3] == (name, REG_DWORD, b"\1\0\0\0")
        again.delete_value("", name)
        with pytest.raises(FormatError, match="16,383"):
            again.set_value("", name, REG_SZ, b"")
        base = Hive.empty(0)
        base.merge(hive)
        assert Hive.open(base.to_bytes()).value("", name).name == name

    def test_largest_name_is_bounded_by_its_field(self) -> None:
        written = Hive.open(build(Node(subkeys=[Node("k" * 40000)]))).to_bytes()
        root = cells(written)[struct.unpack_from("<I", written, 36)[0]]
        assert struct.unpack_from("<H", root, 52)[0] == 0xFFFF


def with_flags(data: bytes, flags: int) -> bytes:
    """The hive with other flags in its base block."""
    changed = bytearray(data)
    struct.pack_into("<I", changed, 144, flags)
    return hives.with_checksum(changed)


class TestHivesThatAreNotLayered:
    """What makes a delta of a delta means nothing in a hive that does not say that it is one, or is too old for it."""

    MARKS = (1, 2, 3, 0x80, 103, 150)

    def hive(self, *, minor: int, flags: int) -> Hive:
        keys = [Node(f"k{mark}", layering=mark, class_name="c") for mark in self.MARKS]
        values = [Val("mark", REG_BINARY, b"123456"), Val("plain", REG_SZ)]
        builder = Builder(minor=minor)
        root = builder.key(Node(values=values, subkeys=keys))
        vk = next(offset for offset, body in builder.by_offset.items() if body[:2] == b"vk" and b"mark" in body)
        builder.patch(vk, 16, struct.pack("<H", 3))  # Latin-1, and what would be a tombstone
        return Hive.open(with_flags(builder.file(root), flags))

    @pytest.mark.parametrize(("minor", "flags"), [(3, 0), (5, 0), (6, 0), (6, 1), (5, 2), (4, 3), (3, 2)])
    def test_marks_are_spare_bits(self, minor: int, flags: int) -> None:
        hive = self.hive(minor=minor, flags=flags)
        assert not hive.layered
        assert {key.layering for key in hive.walk()} == {0}
        assert [(value.data, value.tombstone) for value in hive.root.values()] == [(b"123456", False), (b"", False)]
        written = hive.to_bytes()
        assert struct.unpack_from("<I", written, 24)[0] == 5
        assert struct.unpack_from("<I", written, 144)[0] == 0
        assert hives.our_tree(Hive.open(written)) == hives.our_tree(hive)
        base = self.hive(minor=5, flags=0)
        base.set_value("k1", "kept", REG_SZ, b"")
        base.merge(hive)
        assert [key.name for key in base.root.subkeys()] == [key.name for key in hive.root.subkeys()]
        assert base.value("k1", "kept").name == "kept"
        assert base.value("", "mark").data == b"123456"

    @pytest.mark.parametrize("flags", [2, 3])
    def test_of_version_6_that_says_so_they_count(self, flags: int) -> None:
        hive = self.hive(minor=6, flags=flags)
        assert hive.layered
        assert {key.layering for key in hive.walk()} == {0, *self.MARKS}
        assert hive.value("", "mark").tombstone


def test_class_size_without_a_class_is_no_class() -> None:
    builder = Builder()
    root = builder.key(Node(subkeys=[Node("K"), Node("L", class_name="of L")]))
    builder.patch(builder.keys["K"], 74, struct.pack("<H", 20))
    hive = Hive.open(builder.file(root))
    assert [(key.name, key.class_name) for key in hive.root.subkeys()] == [("K", ""), ("L", "of L")]
    assert hives.our_tree(Hive.open(hive.to_bytes())) == hives.our_tree(hive)


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


class TestEdits:
    def test_empty_hive_is_readable_by_all(self) -> None:
        hive = Hive.empty(132_000_000_000_000_000)
        data = hive.to_bytes()
        assert data == Hive.empty(132_000_000_000_000_000).to_bytes()
        assert hives.dissect_tree(data) == {"": ("", 132_000_000_000_000_000, {})}
        assert hives.regipy_keys(data) == [("", 132_000_000_000_000_000, 0)]
        assert hives.hivexsh(data, [""]).strip() == ""
        assert len(data) == 8192
        assert Hive.open(data).root.security == opened("System_Delta").root.security

    def test_keys_are_created_when_missing(self) -> None:
        hive = Hive.empty(10)
        hive.set_value("ControlSet001\\Services\\wcifs", "Start", REG_DWORD, b"\4\0\0\0", timestamp=20)
        hive.set_value("\\controlset001\\SERVICES\\", "x", REG_SZ, b"")
        assert hives.dissect_tree(hive.to_bytes()) == {
            "": ("", 10, {}),
            "ControlSet001": ("", 20, {}),
            "ControlSet001\\Services": ("", 20, {"x": (REG_SZ, b"")}),
            "ControlSet001\\Services\\wcifs": ("", 20, {"Start": (REG_DWORD, b"\4\0\0\0")}),
        }

    def test_new_key_has_its_parents_security(self) -> None:
        hive = Hive.open(build(SAMPLE))
        hive.create_key("Ключ\\новый")
        assert hive.key("ключ\\НОВЫЙ").security == hive.key("Ключ").security

    def test_set_replaces_and_keeps_the_spelling(self) -> None:
        hive = Hive.open(build(SAMPLE))
        before = [value.name for value in hive.root.values()]
        hive.set_value("", "FIVE", REG_DWORD, b"abcd")
        assert [value.name for value in hive.root.values()] == before
        assert hive.value("", "five")[:3] == ("five", REG_DWORD, b"abcd")

    def test_delete(self) -> None:
        hive = Hive.open(build(SAMPLE))
        key = hive.key("k1")
        hive.delete_key("K1")
        hive.delete_value("", "NAÏVE")
        assert "k1" not in hive
        assert key.name == "k1"
        with pytest.raises(KeyNotFoundError, match="no value 'naïve'"):
            hive.value("", "naïve")
        for missing in ("k1", "k1\\x", "nowhere\\k2"):
            with pytest.raises(KeyNotFoundError, match="no such key") as caught:
                hive.delete_key(missing)
            assert (caught.value.reason, caught.value.path) == ("no such key", f"hive: {missing}")
        with pytest.raises(KeyNotFoundError):
            hive.delete_value("", "naïve")
        with pytest.raises(ValueError, match="root"):
            hive.delete_key("\\")
        assert hives.our_tree(Hive.open(hive.to_bytes())) == hives.our_tree(hive)

    def test_only_backslashes_separate_keys(self) -> None:
        hive = Hive.empty(0)
        hive.set_value("Session Manager\\I/O System", "v", REG_DWORD, b"\1\0\0\0")
        assert [key.path for key in hive.walk()] == ["", "Session Manager", "Session Manager\\I/O System"]
        assert "Session Manager/I/O System" not in hive
        assert hive.key("session manager\\i/o system").value("V").data == b"\1\0\0\0"

    def test_limits_of_names(self) -> None:
        hive = Hive.empty(0)
        hive.set_value("k" * 255, "v" * 16383, REG_SZ, b"")
        assert hives.our_tree(Hive.open(hive.to_bytes())) == hives.our_tree(hive)
        for path, name in (("k" * 256, "v"), ("k", "v" * 16384), ("k", "v" * 70000), ("a\\\\b", "v")):
            with pytest.raises(FormatError):
                hive.set_value(path, name, REG_SZ, b"")
        with pytest.raises(FormatError, match="nest too deeply"):
            hive.create_key("\\".join(["k"] * 513))

    def test_lone_surrogates_survive(self) -> None:
        hive = Hive.empty(0)
        hive.set_value("k\ud800", "v\udfff", REG_SZ, b"")
        again = Hive.open(hive.to_bytes())
        assert [key.path for key in again.walk()] == ["", "k\ud800"]
        assert again.key("k\ud800").values()[0].name == "v\udfff"

    def test_constructor_is_closed(self) -> None:
        with pytest.raises(TypeError, match=r"Hive\.open"):
            Hive()

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.lists(st.sampled_from(["a", "A", "b", "Ж", "ж", "_x"]), min_size=1, max_size=3),
                st.sampled_from(["", "v", "V", "Я", "я"]),
                st.binary(max_size=9),
            ),
            max_size=30,
        )
    )
    def test_edits_do_what_a_dictionary_does(self, edits: list[tuple[bool, list[str], str, bytes]]) -> None:
        hive, model = Hive.empty(0), {"": {}}
        for is_set, names, value, data in edits:
            path = "\\".join(names).upper()
            if is_set:
                for depth in range(len(names)):
                    model.setdefault("\\".join(names[: depth + 1]).upper(), {})
                model[path][value.upper()] = data
                hive.set_value("\\".join(names), value, REG_BINARY, data)
            elif path in model:
                hive.delete_key("\\".join(names))
                model = {k: v for k, v in model.items() if k != path and not k.startswith(path + "\\")}
        seen = hives.our_tree(Hive.open(hive.to_bytes()))
        assert {
            path.upper(): {name.upper(): data for name, (_, data) in values.items()}
            for path, (_, _, values) in seen.items()
        } == model


def test_a_hive_from_a_path_is_named_after_it(tmp_path) -> None:
    file = tmp_path / "SOFTWARE"
    file.write_bytes(b"nothing")
    with pytest.raises(CorruptHiveError, match="SOFTWARE"):
        Hive.open(file)
    file.write_bytes(build(SAMPLE))
    assert Hive.open(file).name == str(file)


def test_keys_far_below_the_root_share_the_long_part_of_their_paths() -> None:
    builder = Builder()
    below = [builder.key(Node(f"{number:04}"), "x") for number in range(2000)]
    listed, count = builder.subkeys(below), len(below)
    for depth in range(500, -1, -1):
        top = builder.key(Node("n" * 255 if depth else "ROOT"), "x" if depth else "")
        builder.patch(top, 20, struct.pack("<II", count, 0) + struct.pack("<I", listed))
        listed, count = builder.list_of([top]), 1
    hive = Hive.open(builder.file(top))
    tracemalloc.start()
    try:
        assert sum(len(key.path) for key in hive.walk()) > 2000 * 500 * 256
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_logs_that_are_no_buffers_leave_no_memory_behind() -> None:
    def used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not say how much memory a process has")
    data, logs = build(Node()), [b""] * 8000 + [None]

    def refused(times: int) -> None:
        for _ in range(times):
            with pytest.raises(TypeError, match="bytes-like"):
                Hive.open(data, logs=logs)

    refused(10)
    before = used()
    refused(150)
    assert used() - before < 8 << 20


SHORT_READS = """
import builtins, io, sys

class Short(io.FileIO):
    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:4096])

def short_open(path, mode, buffering=-1):
    return io.BufferedReader(Short(path)) if buffering else Short(path)

builtins.open = short_open
from cimfs_ext.regf import Hive
Hive.open(sys.argv[1])
"""


def test_a_file_that_takes_several_reads_is_read_whole(tmp_path: Path) -> None:
    # As the largest hives: Linux gives 4 KiB less than 2 GiB at once.
    file = tmp_path / "hive"
    file.write_bytes(build(Node("ROOT", [Val("v", REG_BINARY, bytes(200_000))])))
    done = subprocess.run([sys.executable, "-c", SHORT_READS, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_buffer_is_not_copied_and_kept_alive() -> None:
    data = bytearray(build(SAMPLE))
    hive = Hive.open(data)
    with pytest.raises(BufferError):
        data.append(0)
    expected = hives.dissect_tree(bytes(data))
    del data
    assert hives.our_tree(hive) == expected


def test_hives_and_keys_come_from_nowhere_else() -> None:
    for make in (Hive, lambda: Hive.__new__(Hive)):
        with pytest.raises(TypeError, match=r"Hive\.open or Hive\.empty"):
            make()
    key = Key.__new__(Key)
    looks = [lambda: key.path, lambda: key.name, lambda: key.security, lambda: key.value("")]
    for look in (*looks, key.subkeys, key.values):
        with pytest.raises(TypeError, match="no hive"):
            look()
    assert repr(key) == "<Key of no hive>"


def many_keys(count: int) -> Node:
    return Node(subkeys=[Node(f"k{i}", [Val(f"v{j}", 3, bytes(40)) for j in range(20)]) for i in range(count)])


def in_threads(*jobs: Callable[[], object]) -> None:
    """Run each in a thread of its own, all at once; a failure in one is a failure."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        try:
            start.wait()
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_read_a_hive_together() -> None:
    hive = Hive.open(build(many_keys(100)))
    expected, tree = hive.to_bytes(), hives.our_tree(hive)

    def write() -> None:
        for _ in range(10):
            assert hive.to_bytes() == expected

    def look() -> None:
        assert hives.our_tree(hive) == tree

    in_threads(write, look, write, look)


def test_threads_that_change_a_hive_work_or_are_told_that_it_is_in_use() -> None:
    hive, deltas = Hive.empty(0), [Hive.open(build(many_keys(n))) for n in (3, 30, 300)]

    def trying(*calls: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for call in calls * 40:
                try:
                    call()
                except KeyNotFoundError:
                    pass
                except RuntimeError as error:
                    assert "in use" in str(error)

        return run

    in_threads(
        trying(*(functools.partial(hive.merge, delta) for delta in deltas)),
        trying(lambda: [key.values() for key in hive.walk()], hive.to_bytes),
        trying(lambda: hive.delete_key("k7"), lambda: hive.set_value("k7", "v", REG_SZ, b"x")),
        trying(hive.root.subkeys, lambda: "k7" in hive, lambda: hive.delete_value("k8", "v1")),
        trying(*(functools.partial(delta.set_value, "k1", "n", REG_SZ, b"") for delta in deltas)),
        trying(lambda: hive.key("k9").security, lambda: hive.root.class_name, lambda: hive.timestamp),
        trying(lambda: hive.create_key("new\\key"), lambda: hive.value("k5", "v1")),
        trying(*(functools.partial(delta.merge, Hive.empty(1)) for delta in deltas)),
    )
    assert hives.our_tree(Hive.open(hive.to_bytes())) == hives.our_tree(hive)


class Finalized:
    """A cycle that only the garbage collector frees; calls a function then."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call, self.cycle = call, self

    def __del__(self) -> None:
        self.call()


@pytest.mark.parametrize("look", ["subkeys", "values"])
def test_a_finalizer_cannot_change_a_hive_under_who_reads_it(look: str) -> None:
    hive = Hive.open(build(many_keys(2000) if look == "subkeys" else Node(values=[Val(f"v{i}") for i in range(2000)])))
    replaced = Builder(layered=True)
    delta = Hive.open(replaced.file(replaced.key(Node(layering=hives.SUPERSEDE_TREE))))
    refused: list[str] = []

    def merge() -> None:
        try:
            hive.merge(delta)
        except RuntimeError as error:
            refused.append(str(error))

    thresholds = gc.get_threshold()
    gc.collect()
    Finalized(merge)
    gc.set_threshold(10, 1, 1)
    try:
        found = getattr(hive.root, look)()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len({each.name for each in found}) == 2000
    if refused:  # newer versions of Python collect between the calls, when nobody reads
        assert "in use" in refused[0]
        hive.merge(delta)
    assert getattr(hive.root, look)() == []


MERGE_WITHOUT_MEMORY = """
import resource
from cimfs_ext.regf import Hive

base, delta = Hive.empty(0, name="base"), Hive.empty(0)
for number in range(40_000):
    delta.create_key(f"k{number}")
root, expected = base.root, len(delta.to_bytes())
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))
try:
    base.merge(delta)
except MemoryError:
    print("no memory")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
calls = (base.to_bytes, root.subkeys, root.values, lambda: base.root, lambda: base.merge(delta), lambda: "k1" in base,
         lambda: base.create_key("new"), lambda: root.security, lambda: Hive.empty(0).merge(base))
for call in calls:
    try:
        call()
    except RuntimeError as error:
        assert str(error).startswith("base: the hive is of no use"), error
        print("refused")
assert len(delta.to_bytes()) == expected
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is used")
def test_a_merge_that_runs_out_of_memory_is_a_memory_error_and_the_hive_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", MERGE_WITHOUT_MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["no memory", *["refused"] * 9, ""]


def test_clean_hive_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Hive.open(build(SAMPLE))
