"""Headers of tars, which must be those of tarfile."""

from __future__ import annotations

import io
import re
import tarfile
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cimfs_ext.filetimes import pax_seconds
from cimfs_ext.tarheader import tar_header
from support.tars import FILETIME_OF_1970

NUMBERS_DEVICES = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)[329] != 0
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=120)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
NUMBERS = st.one_of(st.integers(0, 2**40), st.sampled_from([8**11 - 1, 8**11, 2**63 - 1]))


def info_of(name: str, kind: bytes, link: str, size: int, mtime: int, records: dict[str, str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime, info.pax_headers = kind, link, size, mtime, records
    return info


@pytest.mark.skipif(NUMBERS_DEVICES, reason="this one writes the numbers of devices that there are not")
@given(TEXT, KINDS, TEXT, NUMBERS, NUMBERS, st.dictionaries(TEXT.filter(lambda key: "=" not in key), TEXT, max_size=4))
@example("n" * 100, tarfile.REGTYPE, "l" * 101, 0, 0, {"mtime": "1.5"})
@example("n" * 100, tarfile.DIRTYPE, "", 0, -5, {})
@example("\x7f" * 100, tarfile.LNKTYPE, "\x7f" * 100, 8**11 - 1, 8**11 - 1, {})
def test_bytes_are_those_of_tarfile(
    name: str, kind: bytes, link: str, size: int, mtime: int, records: dict[str, str]
) -> None:
    info = info_of(name, kind, link, size, mtime, records)
    assert tar_header(info) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@pytest.mark.parametrize("length", [*range(90, 105), *range(985, 1005), 9990, 9991, 9992, 9993])
def test_records_know_their_own_length(length: int) -> None:
    header = tar_header(info_of("name", tarfile.REGTYPE, "", 0, 0, {"k": "v" * length}))
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as tar:
        assert tar.getmembers()[0].pax_headers["k"] == "v" * length


def test_bytes_that_are_no_text() -> None:
    header = tar_header(info_of("\udced\udca0\udc80", tarfile.REGTYPE, "", 0, 0, {}))
    assert b"21 hdrcharset=BINARY\n12 path=\xed\xa0\x80\n" in header
    with pytest.raises(UnicodeEncodeError):
        tar_header(info_of("\ud800", tarfile.REGTYPE, "", 0, 0, {}))


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(FILETIME_OF_1970 - 10**8, FILETIME_OF_1970 + 10**8))
@example(FILETIME_OF_1970 - 1)
@example(FILETIME_OF_1970)
@example(-(2**63))
def test_seconds_are_exact_and_as_short_as_can_be(filetime: int) -> None:
    text = pax_seconds(filetime)
    assert re.fullmatch(r"(?!-0$)-?(0|[1-9]\d*)(\.\d*[1-9])?", text, re.ASCII)
    assert Fraction(text) == Fraction(filetime - FILETIME_OF_1970, 10**7)


@pytest.mark.parametrize(("filetime", "nearest"), [(2**64, 2**63 - 1), (-(2**64), -(2**63))])
def test_seconds_of_what_is_no_filetime_are_those_of_the_nearest(filetime: int, nearest: int) -> None:
    assert pax_seconds(filetime) == pax_seconds(nearest)
