"""The plain bytes of gzip and zstd streams, recognised by their content, and what other content is called.

Sources of the forms: RFC 1952 (gzip: a file is one member after another), RFC 8878 (zstd: one frame after another, some
of them skippable).
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from cimlayer.blobs.arrival import ArrivingBlob
from cimlayer.errors import FormatError

_GZIP = b"\x1f\x8b"
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16)))  # and skippable frames
_MAGIC = 4  # bytes that tell a compressed stream
_NOT_TARS = (
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
    (b"\x1f\x9d", "compress"),
    (b"PK\3\4", "zip"),
    (b"PK\5\6", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (_GZIP, "gzip, compressed twice"),
    (_ZSTD[0], "zstd, compressed twice"),
)
TAR_BLOCK = 512  # bytes of a tar's header
_INPUT = 1 << 17  # bytes of a blob taken at a time
_OUTPUT = 104 << 10  # bytes made at a time, a fifth of a piece: from 128 KiB on, malloc may map new memory each time
_FIRST_INPUT = 1 << 14  # what is behind a member is copied, and members may be small


class Readable(Protocol):
    """A binary stream as its consumers here use it."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of the buffer; 0 at the end."""


def is_compressed(data: bytes) -> bool:
    """Whether a file that begins so is decompressed here."""
    return data.startswith((_GZIP, *_ZSTD))


def plain_file(source: BinaryIO) -> tuple[int, int] | None:
    """The descriptor of a regular file that is not compressed, and the offset where it is read from; else None."""
    try:
        file, start = source.fileno(), source.tell()
        if stat.S_ISREG(os.fstat(file).st_mode) and not is_compressed(os.pread(file, _MAGIC, start)):
            return file, start
    except (OSError, AttributeError):  # no file at all; or a system without pread
        pass
    return None


def decompressed(blob: ArrivingBlob, name: str = "") -> Readable:
    """The plain bytes of a blob that is plain, gzip or zstd; ``name`` is what errors call it."""
    magic = blob.peek(_MAGIC)
    if magic.startswith(_GZIP):
        return _Members("gzip", "member", (_GZIP,), blob, name, *_inflaters())
    if magic in _ZSTD:
        from cimlayer.blobs.zstd import ZstdDecompressor, ZstdError  # noqa: PLC0415

        return _Members("zstd", "frame", _ZSTD, blob, name, ZstdDecompressor, ZstdError)
    return blob


def check_tar_start(data: memoryview | bytes, name: str = "") -> None:
    """FormatError that says what the first bytes of a file are, where they cannot begin a tar; none at all may."""
    block = bytes(data[:TAR_BLOCK])
    if not block or block[257:262] == b"ustar" or not any(block) or _has_checksum(block):
        return
    short = ": it ends inside an entry" if len(block) < TAR_BLOCK else ""
    kind = next((f": {kind}" for magic, kind in _NOT_TARS if block.startswith(magic)), short)
    raise FormatError(f"not a tar{kind}", name, len(block) if kind is short and short else -1)


def _has_checksum(block: bytes) -> bool:
    """Whether the header's checksum is the sum of its bytes, as POSIX has it (ustar Interchange Format)."""
    text = block[148:156].replace(b"\0", b" ").strip()
    if len(block) < TAR_BLOCK or not text or not all(digit in b"01234567" for digit in text):
        return False
    counted = block[:148] + b" " * 8 + block[156:]
    return int(text, 8) in (sum(counted), sum(counted) - 256 * sum(byte > 127 for byte in counted))


def _inflaters() -> tuple[Callable[[], Any], type[Exception]]:
    """What makes decompressors of gzip members, and what they raise."""
    try:
        from isal import igzip_lib  # noqa: PLC0415  only where a gzip file is read
    except ImportError:
        return _Inflater, zlib.error

    def member() -> Any:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    return member, igzip_lib.error  # type: ignore[return-value]


class _Inflater:
    """zlib's decompressor with the methods of isal's, which does not exist for Windows on ARM."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)  # of gzip alone
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: memoryview | bytes, size: int) -> bytes:
        made = self._stream.decompress(self._stream.unconsumed_tail or data, size)
        self.needs_input = not self._stream.unconsumed_tail and len(made) < size
        return made


class _Members:
    """A compressed stream of members, of which each is decompressed by itself, one after the other."""

    def __init__(
        self,
        format: str,
        part: str,
        magics: tuple[bytes, ...],
        blob: ArrivingBlob,
        name: str,
        decompressor: Callable[[], Any],
        complaint: type[Exception],
    ) -> None:
        self._format, self._part, self._magics, self._name = format, part, magics, name
        self._blob = blob
        self._new = decompressor
        self._complaint = complaint
        self._member: Any = None
        self._input = memoryview(bytearray(_INPUT))
        self._at = self._end = 0
        self._begin = 0  # of the input, in the blob
        self._take = _FIRST_INPUT

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            if self._member is None and not self._begin_member():
                return 0
            data = self._decompress(min(len(buffer), _OUTPUT))
            if self._member.eof:
                self._at -= len(self._member.unused_data)
                self._member = None
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _begin_member(self) -> bool:
        """Whether there is one more; what is neither a member nor zeros, as of a tape, does not belong here."""
        longest = len(self._magics[0])
        while self._end - self._at < longest and self._fill():
            pass
        if any(self._input[self._at : self._end][:longest] == magic for magic in self._magics):
            self._member = self._new()
            self._take = _FIRST_INPUT
            return True
        while self._at < self._end or self._fill():
            piece = bytes(self._input[self._at : self._end])
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self._at += zeros
            if zeros < len(piece):
                what = f"something else is behind the last {self._format} {self._part}"
                raise FormatError(what, self._name, self._position)
        return False

    def _decompress(self, size: int) -> Any:
        piece: memoryview | bytes = b""
        if self._member.needs_input:
            if self._at == self._end and not self._fill():
                raise FormatError(f"the {self._format} stream is cut inside a {self._part}", self._name, self._position)
            piece = self._input[self._at : min(self._end, self._at + self._take)]
            self._at += len(piece)
            self._take = _INPUT
        try:
            return self._member.decompress(piece, size)
        except self._complaint as error:
            raise FormatError(f"the {self._format} stream is damaged: {error}", self._name, self._position) from error

    def _fill(self) -> int:
        """Get more of the blob behind what is left of it."""
        left = self._end - self._at
        self._begin += self._at
        self._input[:left] = bytes(self._input[self._at : self._end])
        count = self._blob.readinto(self._input[left:])
        self._at, self._end = 0, left + count
        return count

    @property
    def _position(self) -> int:
        """Where in the blob the input stands."""
        return self._begin + self._at
