"""Hives: edits, memory, files and threads."""

from __future__ import annotations

import functools
import gc
import os
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

from cimfs_ext.errors import CorruptHiveError, FormatError, KeyNotFoundError
from cimfs_ext.regf import Hive, Key
from support import hives
from support.hives import REG_BINARY, REG_DWORD, REG_SZ, Builder, Node, Val, build
from support.platforms import examples
from support.regf import SAMPLE, opened

# ---- edits ----


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

    @settings(max_examples=examples(60), deadline=None)
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


# ---- memory, files and threads ----


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
        return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")

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
    done = subprocess.run([sys.executable, "-c", SHORT_READS, file], capture_output=True, encoding="utf-8", check=False)
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
    done = subprocess.run(
        [sys.executable, "-c", MERGE_WITHOUT_MEMORY], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["no memory", *["refused"] * 9, ""]


def test_clean_hive_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Hive.open(build(SAMPLE))
