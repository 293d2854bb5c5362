"""Case-insensitive names: the upcase table of Windows."""

import hashlib
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimfs_ext.names import upcase_key, upcase_table
from support import ROOT

LIBCIMFS = ROOT / "cimfs_ext" / "libcimfs"
TABLE = struct.unpack("<65536H", upcase_table())


def key_from_table(name: str) -> bytes:
    units = memoryview(name.encode("utf-16-le", "surrogatepass"))
    return b"".join(struct.pack("<H", TABLE[unit]) for (unit,) in struct.iter_unpack("<H", units))


def test_table_is_the_one_of_windows() -> None:
    assert hashlib.sha256(upcase_table()).hexdigest() == (
        "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742"
    )


def test_table_is_what_a_formatted_volume_holds(tmp_path: Path) -> None:
    places = "/usr/sbin:/sbin:/usr/bin:/bin"
    mkntfs, ntfscat = (shutil.which(tool, path=places) for tool in ("mkntfs", "ntfscat"))
    if mkntfs is None or ntfscat is None:
        pytest.skip("the tools of ntfs-3g are not installed")
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run([mkntfs, "-F", "-Q", "-q", str(volume)], check=True, capture_output=True)
    shown = subprocess.run([ntfscat, "-f", "-i", "10", str(volume)], check=True, capture_output=True)
    assert shown.stdout == upcase_table()


def test_generator_gives_the_ranges_in_the_tree() -> None:
    shown = subprocess.run(
        [sys.executable, str(LIBCIMFS / "make_upcase.py")], check=True, capture_output=True, encoding="utf-8"
    )
    assert shown.stdout == (LIBCIMFS / "upcase_ranges.h").read_text("utf-8")


def test_lookup_of_each_unit_agrees_with_the_table() -> None:
    every_unit = struct.pack("<65536H", *range(65536)).decode("utf-16-le", "surrogatepass")
    units = [unit for unit in range(65536) if not 0xD800 <= unit <= 0xDFFF]
    assert upcase_key("".join(map(chr, units))) == struct.pack(f"<{len(units)}H", *(TABLE[u] for u in units))
    assert upcase_key(every_unit) == upcase_table()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Foo.TXT", "fOO.txt"), ("é", "É"), ("ÿ", "Ÿ"), ("жук", "ЖУК"), ("σ", "Σ"), ("ǆ", "Ǆ"), ("ａ", "Ａ")],  # noqa: RUF001
)
def test_names_that_differ_in_case_have_one_key(one: str, other: str) -> None:
    assert upcase_key(one) == upcase_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ı", "I"),  # noqa: RUF001
        ("ß", "SS"),
        ("ς", "Σ"),  # a final sigma has no upper-case form of its own
        ("µ", "Μ"),  # noqa: RUF001
        ("ǅ", "Ǆ"),
        ("\U00010428", "\U00010400"),  # outside the BMP nothing is mapped
        ("é", "e\u0301"),  # no normalisation
    ],
)
def test_names_that_windows_tells_apart_have_two_keys(one: str, other: str) -> None:
    assert upcase_key(one) != upcase_key(other)


@given(st.text(st.characters(exclude_categories=())))
def test_key_is_the_table_applied_to_each_unit(name: str) -> None:
    assert upcase_key(name) == key_from_table(name)


def test_lone_surrogates_pass() -> None:
    assert upcase_key("a\ud800\udc00\udfff") == b"A\0\x00\xd8\x00\xdc\xff\xdf"


def test_empty_name_has_an_empty_key() -> None:
    assert upcase_key("") == b""


def test_names_other_than_text_are_refused() -> None:
    with pytest.raises(TypeError):
        upcase_key(b"name")
    with pytest.raises(TypeError):
        upcase_key(None)
