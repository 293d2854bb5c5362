"""ImageWriter: sharing, copy-on-write."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from support import cimoracle
from support.images import (
    DIRECTORY,
    add,
    assert_sound,
    make_image,
    read_files,
    writer,
)
from support.written import (
    NOISE,
    committed,
    image,  # noqa: F401  fixtures
    region_bytes,
)

# ---- sharing ----


def pieces(image: ImageWriter, path: str, data: bytes, piece: int) -> None:
    image.create_file(path, size=len(data))
    for at in range(0, len(data), piece):
        image.write(data[at : at + piece])


@pytest.mark.parametrize("piece", [1 << 30, 1000, 100_000])
@pytest.mark.parametrize("size", [100, 4095, 4096, 300_000, (2 << 20) + 3])
def test_equal_content_is_stored_once(tmp_path: Path, size: int, piece: int) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        for i in range(5):
            pieces(image, f"{i}", NOISE[:size], piece)
            pieces(image, f"between{i}", NOISE[i + 1 : 11 + i], 3)
        assert set(committed(image).values()) == {NOISE[:size], *(NOISE[i + 1 : 11 + i] for i in range(5))}
    assert region_bytes(tmp_path) < 150_000 + size + 4096


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("piece", [1 << 30, 1000])
@pytest.mark.parametrize("size", [100, 4095, 4096, 300_000, (2 << 20) + 3])
def test_content_of_all_parents_is_shared(tmp_path: Path, size: int, piece: int, extend: bool) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:size]})
    make_image(tmp_path, "b.cim", {"y": NOISE[9 : 9 + size]}, parent="a.cim")
    before = region_bytes(tmp_path)
    with writer(tmp_path, "b.cim", None if extend else "c.cim") as image:
        pieces(image, "x2", NOISE[:size], piece)
        pieces(image, "y2", NOISE[9 : 9 + size], piece)
        assert committed(image) == {
            "x": NOISE[:size],
            "x2": NOISE[:size],
            "y": NOISE[9 : 9 + size],
            "y2": NOISE[9 : 9 + size],
        }
    assert region_bytes(tmp_path) - before < 4096


def entries_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    table, count = struct.unpack_from("<II", data, 40)
    return [data[table + 40 * i : table + 40 * i + 40] for i in range(count)]


def rewrite_ids(path: Path, entries: list[bytes], table: int = 48) -> None:
    header = bytearray(path.read_bytes()[:48])
    struct.pack_into("<II", header, 40, table, len(entries))
    path.write_bytes(header + bytes(table - 48) + b"".join(entries))


FOREIGN = struct.pack("<Q24sQ", 5000, b"f" * 24, 4096)


ID_TABLES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "unsorted": lambda entries: entries[::-1],
    "foreign entries among ours": lambda entries: [FOREIGN, *entries, FOREIGN],
    "only foreign entries": lambda entries: [entry[:8] + bytes(8) + entry[16:] for entry in entries],
    "wrong offsets": lambda entries: [entry[:32] + struct.pack("<Q", 4096 * i) for i, entry in enumerate(entries)],
    "wild offsets": lambda entries: [entry[:32] + struct.pack("<Q", 2**64 - 1 - i) for i, entry in enumerate(entries)],
    "offsets beyond the end": lambda entries: [entry[:32] + struct.pack("<Q", 1 << 40) for entry in entries],
    "wrong lengths": lambda entries: [struct.pack("<Q", 2**64 - 1) + entry[8:] for entry in entries],
    "digests swapped": lambda entries: [
        entry[:8] + other[8:32] + entry[32:] for entry, other in zip(entries, entries[::-1], strict=True)
    ],
    "each entry many times": lambda entries: [entry for entry in entries for _ in range(40)],
    "no entries": lambda entries: [],
}


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("change", ID_TABLES)
def test_object_ids_of_a_parent_are_only_hints(tmp_path: Path, change: str, extend: bool) -> None:
    files: dict[str, bytes | None] = {f"{i}": NOISE[i * 10 : i * 10 + 150 * i] for i in range(100)}
    make_image(tmp_path, "a.cim", files)
    for path in tmp_path.glob("objectid_*"):
        rewrite_ids(path, ID_TABLES[change](entries_of(path)), 48 + 13)
    with writer(tmp_path, "a.cim", None if extend else "b.cim") as image:
        for name, data in files.items():
            pieces(image, f"copy{name}", data or b"", 1 << 30 if int(name) % 2 else 999)
            pieces(image, f"other{name}", (data or b"")[::-1], 777)
        image.commit()
    expected = dict(files)
    expected.update({f"copy{name}": data for name, data in files.items()})
    expected.update({f"other{name}": (data or b"")[::-1] for name, data in files.items()})
    # Read by somebody who does not compare content with IDs, which are wrong here.
    found = cimoracle.read_image(tmp_path, image.name)
    assert {path: entry.data for path, entry in found.items() if path} == expected


@pytest.mark.parametrize("change", ["unsorted", "foreign entries among ours", "each entry many times"])
def test_sharing_survives_odd_id_tables(tmp_path: Path, change: str) -> None:
    files: dict[str, bytes | None] = {f"{i}": NOISE[i * 10_000 : (i + 1) * 10_000] for i in range(200)}
    make_image(tmp_path, "a.cim", files)
    for path in tmp_path.glob("objectid_*"):
        rewrite_ids(path, ID_TABLES[change](entries_of(path)))
    before = region_bytes(tmp_path)
    make_image(tmp_path, "b.cim", {f"copy{name}": data for name, data in files.items()}, parent="a.cim")
    assert region_bytes(tmp_path) - before < 200_000


@pytest.mark.parametrize("damage", [b"", b"x" * 47, b"cimfile1" + bytes(40)])
def test_damaged_object_id_file_costs_sharing_alone(tmp_path: Path, damage: bytes) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:9999]})
    for path in tmp_path.glob("objectid_*"):
        path.write_bytes(damage)
    path = make_image(tmp_path, "b.cim", {"y": NOISE[:9999]}, parent="a.cim")
    assert read_files(path) == {"x": NOISE[:9999], "y": NOISE[:9999]}


def test_missing_object_id_files_cost_sharing_alone(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": NOISE[:9999]})
    for path in tmp_path.glob("objectid_*"):
        path.unlink()
    make_image(tmp_path, "a.cim", {"y": NOISE[:9999]}, parent="a.cim")
    assert read_files(tmp_path / "a.cim") == {"x": NOISE[:9999], "y": NOISE[:9999]}


@pytest.mark.parametrize("size", [3000, 30_000])
def test_id_that_points_to_where_the_next_object_will_lie(tmp_path: Path, size: int) -> None:
    """What a commit leaves that failed between its renames: IDs that are new, regions that were cut back."""
    make_image(tmp_path, "a.cim", {"x": b"1"})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    make_image(tmp_path, "a.cim", {"y": NOISE[:size], "z": NOISE[1 : size + 1]}, parent="a.cim")
    for path, data in before.items():
        if not path.name.startswith("objectid_"):
            path.write_bytes(data)
    with writer(tmp_path, "a.cim") as image:
        pieces(image, "y", NOISE[:size], 1000)
        pieces(image, "w", NOISE[5 : size + 5], 1000)
        assert committed(image) == {"w": NOISE[5 : size + 5], "x": b"1", "y": NOISE[:size]}


def test_many_generations(tmp_path: Path) -> None:
    expected: dict[str, bytes | None] = {}
    parent = None
    for i in range(12):
        expected[f"{i}"] = NOISE[i : i + 5000]
        make_image(tmp_path, f"{i}.cim", {f"{i}": NOISE[i : i + 5000]}, parent=parent)
        parent = f"{i}.cim"
    assert read_files(tmp_path / "11.cim") == dict(sorted(expected.items()))
    assert_sound(tmp_path / "11.cim")


# ---- copy-on-write ----


def test_fork_writes_only_what_changed(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {f"d{i}": None for i in range(60)}
    files |= {f"d{i}\\{j}": b"%d %d" % (i, j) for i in range(60) for j in range(100)}
    make_image(tmp_path, "a.cim", files)
    before = region_bytes(tmp_path)
    make_image(tmp_path, "b.cim", {"d7\\new": b"x"}, parent="a.cim")
    assert region_bytes(tmp_path) - before < 2 * 96 * 1024 + 10_000
    assert read_files(tmp_path / "b.cim") == dict(sorted({**files, "d7\\new": b"x"}.items()))


def test_file_ids_go_on_where_the_parent_stopped(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {"x": b"1", "y": b"2"})
    with writer(tmp_path, "a.cim", "b.cim") as image:
        image.delete_path("y")
        add(image, "z", b"3")
        image.commit()
    with ImageReader(tmp_path / "a.cim") as old, ImageReader(tmp_path / "b.cim") as new:
        assert new.stat("x").file_id == old.stat("x").file_id
        assert new.stat("z").file_id == old.stat("y").file_id + 1


def test_a_backslash_may_end_the_name_of_a_directory(image: ImageWriter) -> None:
    add(image, "d\\", attributes=DIRECTORY)
    add(image, "d\\e\\", attributes=DIRECTORY)
    add(image, "d\\e\\f", b"1")
    image.create_alternate_stream("d\\e\\:s:$DATA", 1)
    image.write(b"2")
    image.close_stream()
    image.commit()
    with ImageReader(Path(image.directory) / image.name) as reader:
        assert reader.read("d\\e\\f") == b"1"
        assert reader.read("d\\e", "s") == b"2"


def test_everything_of_a_large_parent_is_found_again(tmp_path: Path) -> None:
    """More content IDs than a search begins with."""
    files = {f"{number}": b"content %d" % number for number in range(3000)}
    make_image(tmp_path, "parent.cim", files)
    before = set(tmp_path.iterdir())
    child = make_image(tmp_path, "child.cim", {f"again-{name}": data for name, data in files.items()}, "parent.cim")
    [content] = [
        path for path in set(tmp_path.iterdir()) - before if path.name[:7] == "region_" and path.name[-2:] == "_2"
    ]
    assert content.stat().st_size < 100
    assert_sound(child)


@pytest.mark.parametrize("count", [1, 16, 17, 60])
def test_records_that_change_in_one_table_of_the_parent(tmp_path: Path, count: int) -> None:
    parents: dict[str, bytes | None] = {f"d{number}": None for number in range(60)}
    make_image(tmp_path, "parent.cim", {**parents, "last": b"1"})
    added = {f"d{number}\\new": b"%d" % number for number in range(count)}
    child = make_image(tmp_path, "child.cim", {**added, "last": b"2"}, "parent.cim")
    assert read_files(child) == {**parents, **added, "last": b"2"}
    assert_sound(child)
