"""Headers of a tar with their PAX records (POSIX, "pax Interchange Format"), the same from every version of Python.

The bytes are those of :mod:`tarfile` in Python 3.11, which takes several times as long to make them.
"""

from __future__ import annotations

import tarfile
import zlib
from functools import lru_cache

_MOST_SIZE = 8**11 - 1  # of what fits in twelve bytes, as octal digits and a NUL
_MAX_NAME = 100
_CHECKSUM_AT = 148
_BEHIND_LINK = b"ustar\x0000".ljust(tarfile.BLOCKSIZE - 257, b"\0")


def tar_header(info: tarfile.TarInfo) -> bytes:
    """The header of a file, directory or link that belongs to nobody, with a block of records if it needs any.

    Half a surrogate pair from "surrogateescape" is the byte that it stands for; UnicodeEncodeError for another one.
    """
    name = f"{info.name}/" if info.type == tarfile.DIRTYPE and not info.name.endswith("/") else info.name
    records = dict(info.pax_headers)
    for keyword, text in (("path", name), ("linkpath", info.linkname)):
        if (not text.isascii() or len(text) > _MAX_NAME) and keyword not in records:
            records[keyword] = text
    numbers = {"size": info.size, "mtime": int(info.mtime)}
    for keyword, number in numbers.items():
        if not 0 <= number <= _MOST_SIZE:
            records.setdefault(keyword, str(number))
            numbers[keyword] = 0
    before = _records(records) if records else b""
    return before + _block(name, info.mode & 0o7777, numbers["size"], numbers["mtime"], info.type, info.linkname)


def _block(name: str, mode: int, size: int, mtime: int, kind: bytes, linkname: str) -> bytes:
    block = b"".join(
        (
            name.encode("ascii", "replace")[:_MAX_NAME].ljust(_MAX_NAME, b"\0"),
            b"%07o\x000000000\x000000000\0%011o\0%011o\0        " % (mode, size, mtime),
            kind,
            linkname.encode("ascii", "replace")[:_MAX_NAME].ljust(_MAX_NAME, b"\0"),
            _BEHIND_LINK,
        )
    )
    checksum = (zlib.adler32(block) & 0xFFFF) - 1  # the sum of the bytes: all are ASCII, so it is below 65,521
    return block[:_CHECKSUM_AT] + b"%06o\0 " % checksum + block[_CHECKSUM_AT + 8 :]


@lru_cache(1024)
def _block_of_records(size: int) -> bytes:
    return _block("././@PaxHeader", 0, size, 0, tarfile.XHDTYPE, "")


def _records(records: dict[str, str]) -> bytes:
    try:
        data = b"".join([_record(keyword, text, "strict") for keyword, text in records.items()])
    except UnicodeEncodeError:
        records = {"hdrcharset": "BINARY", **records}
        data = b"".join([_record(keyword, text, "surrogateescape") for keyword, text in records.items()])
    return _block_of_records(len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


@lru_cache(256)  # files share descriptors, attributes and times
def _record(keyword: str, text: str, errors: str) -> bytes:
    """The length that a record begins with is its own, that of these digits too."""
    record = f" {keyword}={text}\n".encode("utf-8", errors)
    size = len(record) + len(str(len(record)))
    if len(str(size)) > len(str(len(record))):
        size += 1
    return b"%d%b" % (size, record)
