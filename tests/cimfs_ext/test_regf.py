"""Hives: reading."""

from __future__ import annotations

import struct

import pytest

from cimfs_ext.errors import CorruptHiveError, DirtyHiveWarning, FormatError
from cimfs_ext.regf import Hive
from support import hives
from support.hives import REG_BINARY, REG_DWORD, REG_SZ, Builder, Node, Val, build, corpus
from support.platforms import same_everywhere
from support.regf import SAMPLE, opened

NO_HIVEX = {"System_Delta"}  # libhivex cannot read value tombstones


NO_REGIPY_NAMES = {"ExtendedASCIIHive"}  # regipy reads Latin-1 names as ASCII


@pytest.mark.parametrize("name", hives.GOOD)
@same_everywhere
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
