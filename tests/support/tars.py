"""Builds layer tars byte by byte, so that odd and wrong forms can be written as well as right ones."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

BLOCK = 512

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (str(kind).encode() for kind in range(7))
PAX_FILE, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK = b"x", b"g", b"L", b"K"
V7_FILE = b"\0"

USTAR_MAGIC = b"ustar\x0000"
GNU_MAGIC = b"ustar  \0"
V7_MAGIC = bytes(8)

ATTRIBUTE_READ_ONLY, ATTRIBUTE_HIDDEN, ATTRIBUTE_SYSTEM = 1, 2, 4
ATTRIBUTE_DIRECTORY, ATTRIBUTE_ARCHIVE = 0x10, 0x20
ATTRIBUTE_SPARSE, ATTRIBUTE_REPARSE_POINT = 0x200, 0x400

FILETIME_OF_1970 = 116444736000000000

PaxRecords = Mapping[str, str | bytes]


def octal(value: int, width: int) -> bytes:
    """A number as digits and a NUL."""
    text = b"%0*o\0" % (width - 1, value)
    if value < 0 or len(text) > width:
        raise ValueError(f"{value} does not fit {width} bytes of octal digits")
    return text


def base256(value: int, width: int) -> bytes:
    """A number in GNU's binary form: big-endian two's complement behind a marker bit."""
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] = raw[0] & 0x7F | 0x80
    return bytes(raw)


def number(value: int, width: int) -> bytes:
    """Octal where it fits, else base-256."""
    return octal(value, width) if 0 <= value < 8 ** (width - 1) else base256(value, width)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes,
    size: int | bytes = 0,
    kind: bytes = FILE,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = USTAR_MAGIC,
    owner: bytes = b"",
    group: bytes = b"",
    device: bytes = bytes(16),
    prefix: bytes = b"",
    checksum: int | bytes | None = None,
) -> bytes:
    """One header block. Bytes in place of a number are written as they are; too long fields are an error."""

    def text(value: bytes, width: int) -> bytes:
        if len(value) > width:
            raise ValueError(f"{value!r} does not fit {width} bytes")
        return value.ljust(width, b"\0")

    def digits(value: int | bytes, width: int) -> bytes:
        return text(value, width) if isinstance(value, bytes) else number(value, width)

    start = text(name, 100) + digits(mode, 8) + digits(uid, 8) + digits(gid, 8)
    start += digits(size, 12) + digits(mtime, 12)
    end = kind + text(link, 100) + text(magic, 8) + text(owner, 32) + text(group, 32) + text(device, 16)
    end += text(prefix, 155)
    if checksum is None:
        checksum = sum(start) + 8 * ord(" ") + sum(end)
    if isinstance(checksum, int):
        checksum = b"%06o\0 " % checksum
    return (start + text(checksum, 8) + end).ljust(BLOCK, b"\0")


def pax_record(key: str, value: str | bytes) -> bytes:
    """`length key=value` and a line feed; the length counts itself."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    rest = b" " + key.encode() + b"=" + raw + b"\n"
    size = len(rest)
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode() + rest


def pax_body(records: PaxRecords) -> bytes:
    return b"".join(pax_record(key, value) for key, value in records.items())


def pax_time(filetime: int) -> str:
    """A FILETIME as PAX decimal seconds."""
    seconds = Decimal(filetime - FILETIME_OF_1970) / 10**7
    return format(seconds, "f")


def windows_pax(
    attributes: int | None = None,
    *,
    sd: bytes | None = None,
    sddl: str | None = None,
    creation: int | None = None,
    mtime: int | None = None,
    atime: int | None = None,
    ctime: int | None = None,
    eas: Mapping[str, bytes] | None = None,
    mountpoint: bool = False,
) -> dict[str, str]:
    """The records of Microsoft's exporter (go-winio, backuptar/tar.go); times as FILETIMEs."""
    records = {}
    if attributes is not None:
        records["MSWINDOWS.fileattr"] = str(attributes)
    if sd is not None:
        records["MSWINDOWS.rawsd"] = base64.b64encode(sd).decode()
    if sddl is not None:
        records["MSWINDOWS.sd"] = sddl
    times = {"LIBARCHIVE.creationtime": creation, "mtime": mtime, "atime": atime, "ctime": ctime}
    records |= {key: pax_time(time) for key, time in times.items() if time is not None}
    for name, value in (eas or {}).items():
        records[f"MSWINDOWS.xattr.{name}"] = base64.b64encode(value).decode()
    if mountpoint:
        records["MSWINDOWS.mountpoint"] = "1"
    return records


class TarBuilder:
    """Collects entries; `finish` gives the archive.

    Names and link targets that do not fit a header get PAX records by themselves. `fields` are those of
    `header` and win over what the method would write.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.parts.append(data)

    def pax(self, records: PaxRecords, kind: bytes = PAX_FILE) -> None:
        """An extended header for the next entry (or PAX_GLOBAL: for all that follow)."""
        self.pax_raw(pax_body(records), kind)

    def pax_raw(self, body: bytes, kind: bytes = PAX_FILE) -> None:
        """An extended header with a body of any form."""
        self.raw(header(b"PaxHeader", len(body), kind) + padded(body))

    def pax_global(self, records: PaxRecords) -> None:
        self.pax(records, PAX_GLOBAL)

    def gnu_long_name(self, name: str) -> None:
        self._gnu_long(name, GNU_LONG_NAME)

    def gnu_long_link(self, target: str) -> None:
        self._gnu_long(target, GNU_LONG_LINK)

    def _gnu_long(self, text: str, kind: bytes) -> None:
        body = text.encode() + b"\0"
        self.raw(header(b"././@LongLink", len(body), kind, magic=GNU_MAGIC) + padded(body))

    def file(self, name: str, data: bytes = b"", *, pax: PaxRecords | None = None, **fields: Any) -> None:
        self._entry(name, FILE, fields, pax, data=data)

    def directory(self, name: str, *, pax: PaxRecords | None = None, **fields: Any) -> None:
        name = name if name.endswith("/") else name + "/"
        self._entry(name, DIRECTORY, {"mode": 0o755, **fields}, pax)

    def symlink(self, name: str, target: str, *, pax: PaxRecords | None = None, **fields: Any) -> None:
        self._entry(name, SYMLINK, {"mode": 0o777, **fields}, pax, link=target)

    def hardlink(self, name: str, target: str, *, pax: PaxRecords | None = None, **fields: Any) -> None:
        self._entry(name, HARD_LINK, fields, pax, link=target)

    def stream(self, name: str, stream: str, data: bytes = b"", **fields: Any) -> None:
        """An alternate stream of the file that was written last: `stream` is `zone` or `zone:$DATA`."""
        self.file(f"{name}:{stream}", data, **fields)

    def whiteout(self, path: str) -> None:
        """Removes `path` of the lower layers."""
        directory, slash, name = path.rpartition("/")
        self.file(f"{directory}{slash}.wh.{name}")

    def opaque(self, directory: str) -> None:
        """Hides all that lower layers have below `directory`."""
        self.file(f"{directory}/.wh..wh..opq")

    def node(self, name: str, kind: bytes, **fields: Any) -> None:
        """A device, FIFO or any other type of entry, without data."""
        self._entry(name, kind, fields)

    def finish(self, *, end: bytes = bytes(2 * BLOCK)) -> bytes:
        return b"".join(self.parts) + end

    def _entry(
        self,
        name: str,
        kind: bytes,
        fields: Mapping[str, Any],
        pax: PaxRecords | None = None,
        *,
        data: bytes = b"",
        link: str = "",
    ) -> None:
        raw_name, raw_link = name.encode("utf-8", "surrogateescape"), link.encode("utf-8", "surrogateescape")
        records: dict[str, str | bytes] = {}
        if len(raw_name) > 100 or not raw_name.isascii():
            records["path"] = raw_name
        if len(raw_link) > 100 or not raw_link.isascii():
            records["linkpath"] = raw_link
        records |= pax or {}
        if records:
            self.pax(records)
        own = {"size": len(data), "kind": kind, "link": raw_link[:100]}
        self.raw(header(raw_name[:100], **(own | dict(fields))) + padded(data))


# ---- sparse files ----

Regions = list[tuple[int, bytes]]  # of data: offsets and content
SPARSE_FORMS = ("S", "0.0", "0.1", "1.0")


def sparse_tar(form: str, size: int, regions: Regions, name: str = "sparse") -> bytes:
    """One sparse file as GNU tar stores it, and a plain file behind it."""
    pairs = [(start, len(data)) for start, data in regions]
    if not regions or sum(pairs[-1]) < size:
        pairs.append((size, 0))
    numbers = [number for pair in pairs for number in pair]
    data = b"".join(content for _, content in regions)
    tar = TarBuilder()
    if form == "S":
        tar.raw(_old_headers(name.encode(), size, pairs, len(data)) + padded(data))
    elif form == "1.0":
        start = padded("".join(f"{number}\n" for number in (len(pairs), *numbers)).encode())
        records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
        tar.file("GNUSparseFile.1/x", start + data, pax={**records, "GNU.sparse.name": name})
    elif form == "0.1":
        records = {"GNU.sparse.size": str(size), "GNU.sparse.numblocks": str(len(pairs))}
        records |= {"GNU.sparse.map": ",".join(map(str, numbers)), "GNU.sparse.name": name}
        tar.file("GNUSparseFile.1/x", data, pax=records)
    else:
        body = pax_record("GNU.sparse.size", str(size)) + pax_record("GNU.sparse.numblocks", str(len(pairs)))
        for start, count in pairs:
            body += pax_record("GNU.sparse.offset", str(start)) + pax_record("GNU.sparse.numbytes", str(count))
        tar.pax_raw(body)
        tar.file(name, data)
    tar.file("after", b"after")
    return tar.finish()


def _old_headers(name: bytes, size: int, pairs: list[tuple[int, int]], stored: int) -> bytes:
    """A header of type S with four regions, and as many blocks of 21 as it takes."""

    def listed(some: list[tuple[int, int]], room: int) -> bytes:
        return b"".join(number(value, 12) for pair in some for value in pair).ljust(24 * room, b"\0")

    head = bytearray(header(name, stored, b"S", magic=GNU_MAGIC))
    head[386:495] = listed(pairs[:4], 4) + bytes([len(pairs) > 4]) + number(size, 12)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    result = bytes(head)
    for at in range(4, len(pairs), 21):
        more = len(pairs) > at + 21
        result += (listed(pairs[at : at + 21], 21) + bytes([more])).ljust(512, b"\0")
    return result
