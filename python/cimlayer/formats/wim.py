"""Images of a WIM, through wimlib: its metadata, where its content lies, and the decompression of that.

Sources: wimlib.h (https://wimlib.net/apidoc/) for all calls; for how resources are stored Microsoft, "Windows Imaging
File Format (WIM)", and for solid ones wimlib, include/wimlib/resource.h.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from cimlayer.errors import FormatError, UnsupportedCallError

MAGICS = (b"MSWIM\0\0\0", b"WLPWM\0\0\0")

_RECURSIVE = 1  # WIMLIB_ITERATE_DIR_TREE_FLAG_RECURSIVE
_STOPPED = -1  # what a callback returns; no error code of wimlib
_PIPABLE, _HAS_RPFIX = 1 << 9, 1 << 3  # of wimlib_wim_info
_COMPRESSED, _MISSING, _SOLID = 1 << 0, 1 << 4, 1 << 5  # of wimlib_resource_entry
_LARGEST_CHUNK = 1 << 27  # bytes; wimlib's largest is 2**26 by default, and more has not been seen
_SOLID_HEADER = struct.Struct("<QII")
_KEPT_CHUNKS = 2  # decompressed: what follows in an image often lies in the same one


class _Info(ctypes.Structure):
    _fields_ = [
        ("guid", ctypes.c_uint8 * 16),
        ("image_count", ctypes.c_uint32),
        ("boot_index", ctypes.c_uint32),
        ("wim_version", ctypes.c_uint32),
        ("chunk_size", ctypes.c_uint32),
        ("part_number", ctypes.c_uint16),
        ("total_parts", ctypes.c_uint16),
        ("compression_type", ctypes.c_int32),
        ("total_bytes", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 9),
    ]


class _Resource(ctypes.Structure):
    _fields_ = [
        ("uncompressed_size", ctypes.c_uint64),
        ("compressed_size", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sha1_hash", ctypes.c_uint8 * 20),
        ("part_number", ctypes.c_uint32),
        ("reference_count", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("raw_resource_offset_in_wim", ctypes.c_uint64),
        ("raw_resource_compressed_size", ctypes.c_uint64),
        ("raw_resource_uncompressed_size", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64),
    ]


class _Stream(ctypes.Structure):
    _fields_ = [("stream_name", ctypes.c_char_p), ("resource", _Resource), ("reserved", ctypes.c_uint64 * 4)]


class _Time(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _Entry(ctypes.Structure):
    _fields_ = [
        ("filename", ctypes.c_char_p),
        ("dos_name", ctypes.c_char_p),
        ("full_path", ctypes.c_char_p),
        ("depth", ctypes.c_size_t),
        ("security_descriptor", ctypes.c_void_p),
        ("security_descriptor_size", ctypes.c_size_t),
        ("attributes", ctypes.c_uint32),
        ("reparse_tag", ctypes.c_uint32),
        ("num_links", ctypes.c_uint32),
        ("num_named_streams", ctypes.c_uint32),
        ("hard_link_group_id", ctypes.c_uint64),
        ("creation_time", _Time),
        ("last_write_time", _Time),
        ("last_access_time", _Time),
        ("unix", ctypes.c_uint32 * 4),
        ("object_id", ctypes.c_uint8 * 64),
        ("times_high", ctypes.c_int32 * 4),
        ("reserved", ctypes.c_uint64 * 4),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Entry), ctypes.c_void_p)


@dataclass(slots=True, frozen=True)
class WimBlob:
    """Where the bytes of a stream lie. ``raw`` is the solid resource that they are in: its offset and size."""

    size: int
    offset: int
    compressed_size: int
    compressed: bool
    sha1: bytes
    raw: tuple[int, int] | None


@dataclass(slots=True, frozen=True)
class WimEntry:
    """A name in an image. ``path`` has slashes; times are in nanoseconds since 1970.

    ``content`` is that of a file, or of a reparse point its data without the header of 8 bytes; None if it is empty.
    ``links`` is what all names of a file share, 0 if there is only one.
    """

    path: str
    attributes: int
    reparse_tag: int
    links: int
    creation_time: int
    last_write_time: int
    last_access_time: int
    security_descriptor: bytes
    content: WimBlob | None
    streams: tuple[tuple[str, WimBlob | None], ...]


class WimFile:
    """A WIM that is open. UnsupportedCallError where wimlib is missing, FormatError for what cannot be read here."""

    def __init__(self, path: str) -> None:
        self._name = path
        self._library = _load()
        self._wim = ctypes.c_void_p()
        self._check(self._library.wimlib_open_wim(os.fsencode(path), 0, ctypes.byref(self._wim)))
        self._decompressors: dict[tuple[int, int], ctypes.c_void_p] = {}
        self._chunks: dict[tuple[int, int], bytes] = {}
        self._tables: dict[int, tuple[int, int, list[int]]] = {}  # of solid resources: type, chunk size, offsets
        self._file = -1
        try:
            self._info = _Info()
            self._check(self._library.wimlib_get_wim_info(self._wim, ctypes.byref(self._info)))
            if self._info.total_parts > 1:
                raise FormatError("one part of a split WIM: join them first (wimlib-imagex join)", path)
            if self._info.flags & _PIPABLE:
                raise FormatError("a pipable WIM: convert it first (wimlib-imagex optimize --not-pipable)", path)
            self._file = os.open(path, os.O_RDONLY)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WimFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Closing twice is fine."""
        for decompressor in self._decompressors.values():
            self._library.wimlib_free_decompressor(decompressor)
        self._decompressors.clear()
        self._library.wimlib_free(self._wim)
        self._wim = ctypes.c_void_p()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def image(self, wanted: str | None) -> int:
        """The number of the image with that name or number, of the only one for None; ValueError if there is none."""
        count = self._info.image_count
        if wanted is None and count == 1:
            return 1
        number = 0 if wanted is None else self._library.wimlib_resolve_image(self._wim, wanted.encode("utf-8"))
        if number > 0:
            return int(number)
        names = [self._library.wimlib_get_image_name(self._wim, one) or b"" for one in range(1, count + 1)]
        listed = ", ".join(f"{one} ({name.decode('utf-8', 'replace')})" for one, name in enumerate(names, 1))
        missing = "choose an image" if wanted is None else f"there is no image {wanted!r}"
        raise ValueError(f"{self._name}: {missing}: {listed or 'it has none'}")

    def walk(self, image: int, visit: Callable[[WimEntry], None]) -> None:
        """Call ``visit`` with everything below the root of an image, each directory before what it holds."""
        raised: list[BaseException] = []

        def call(entry: ctypes._Pointer[_Entry], _context: object) -> int:
            try:
                if entry.contents.depth:
                    visit(_entry_of(entry))
            except BaseException as error:
                raised.append(error)
                return _STOPPED
            return 0

        code = self._library.wimlib_iterate_dir_tree(self._wim, image, b"/", _RECURSIVE, _CALLBACK(call), None)
        if raised:
            raise raised[0]
        self._check(code)

    def read(self, blob: WimBlob | None, path: str) -> Iterator[bytes]:
        """The bytes of a stream in pieces; FormatError, which names the entry, if they are damaged."""
        import hashlib  # noqa: PLC0415  OpenSSL takes its time to load

        if blob is None:
            return
        digest = hashlib.sha1(usedforsecurity=False)
        left = blob.size
        pieces = self._solid_pieces(blob, path) if blob.raw else self._pieces(blob, path)
        for piece in pieces:
            digest.update(piece)
            left -= len(piece)
            yield piece
        if left or digest.digest() != blob.sha1:
            raise FormatError("its content is damaged: it does not match its SHA-1", path)

    # ---- resources ----

    def _pieces(self, blob: WimBlob, path: str) -> Iterator[bytes]:
        """A resource of its own: a table of where all chunks but the first begin, then the chunks."""
        chunk_size = self._info.chunk_size if blob.compressed else 1 << 20
        count = -(-blob.size // chunk_size)
        if not blob.compressed:
            for start in range(0, blob.size, chunk_size):
                yield self._at(blob.offset + start, min(chunk_size, blob.size - start), path)
            return
        width = 8 if blob.size > 0xFFFF_FFFF else 4
        table_size = width * (count - 1)
        if table_size > blob.compressed_size:
            raise FormatError("its content is damaged: the table of chunks does not fit", path)
        table = self._at(blob.offset, table_size, path)
        starts = [0, *(start for (start,) in struct.iter_unpack("<Q" if width == 8 else "<I", table))]
        starts.append(blob.compressed_size - table_size)
        for number in range(count):
            size = min(chunk_size, blob.size - number * chunk_size)
            where = blob.offset + table_size + starts[number]
            stored = starts[number + 1] - starts[number]
            yield self._chunk(where, stored, size, (self._info.compression_type, chunk_size), path)

    def _solid_pieces(self, blob: WimBlob, path: str) -> Iterator[bytes]:
        """A part of a resource that many share: a header, a table of the sizes of all chunks, then the chunks."""
        assert blob.raw is not None
        offset, compressed_size = blob.raw
        if offset not in self._tables:
            size, chunk_size, kind = _SOLID_HEADER.unpack(self._at(offset, _SOLID_HEADER.size, path))
            count = -(-size // chunk_size) if 0 < chunk_size <= _LARGEST_CHUNK else compressed_size
            if _SOLID_HEADER.size + 4 * count > compressed_size:
                raise FormatError("its content is damaged: the table of chunks does not fit", path)
            table = self._at(offset + _SOLID_HEADER.size, 4 * count, path)
            starts = [offset + _SOLID_HEADER.size + 4 * count]
            for (stored,) in struct.iter_unpack("<I", table):
                starts.append(starts[-1] + stored)
            self._tables[offset] = kind, chunk_size, [*starts, size]
        kind, chunk_size, (*starts, size) = self._tables[offset]
        position, end = blob.offset, blob.offset + blob.size
        if end > size:
            raise FormatError("its content is damaged: it lies beyond the end of its resource", path)
        while position < end:
            number = position // chunk_size
            chunk = self._chunks.get((offset, number))
            if chunk is None:
                whole = min(chunk_size, size - number * chunk_size)
                stored = starts[number + 1] - starts[number]
                chunk = self._chunk(starts[number], stored, whole, (kind, chunk_size), path)
                while len(self._chunks) >= _KEPT_CHUNKS:
                    self._chunks.pop(next(iter(self._chunks)))
                self._chunks[offset, number] = chunk
            start = position - number * chunk_size
            piece = chunk[start : start + end - position]
            position += len(piece)
            yield piece

    def _chunk(self, offset: int, stored: int, size: int, how: tuple[int, int], path: str) -> bytes:
        """One chunk, which is stored as it is if it would not become smaller."""
        if not 0 <= stored <= size:
            raise FormatError("its content is damaged: a chunk is longer than what it holds", path)
        data = self._at(offset, stored, path)
        if stored == size:
            return data
        decompressor = self._decompressors.get(how)
        if decompressor is None:
            decompressor = ctypes.c_void_p()
            self._check(self._library.wimlib_create_decompressor(how[0], how[1], ctypes.byref(decompressor)))
            self._decompressors[how] = decompressor
        to = ctypes.create_string_buffer(size)
        if self._library.wimlib_decompress(data, stored, to, size, decompressor):
            raise FormatError("its content is damaged: it cannot be decompressed", path)
        return to.raw

    def _at(self, offset: int, size: int, path: str) -> bytes:
        data = os.pread(self._file, size, offset) if size else b""
        if len(data) != size:
            raise FormatError("its content is damaged: it lies beyond the end of the WIM", path)
        return data

    def _check(self, code: int) -> None:
        if code:
            message = self._library.wimlib_get_error_string(code) or b"an unknown error"
            raise FormatError(f"wimlib: {message.decode('utf-8', 'replace')}", self._name)


def _load() -> ctypes.CDLL:
    name = ctypes.util.find_library("wim") or "libwim.so.15"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        message = f"reading a WIM needs wimlib: install wimtools, or libwim ({error})"
        raise UnsupportedCallError(errno.ENOSYS, message) from error
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for call, result, arguments in (
        ("wimlib_open_wim", ctypes.c_int, [text, ctypes.c_int, ctypes.POINTER(pointer)]),
        ("wimlib_get_wim_info", ctypes.c_int, [pointer, ctypes.POINTER(_Info)]),
        ("wimlib_resolve_image", ctypes.c_int, [pointer, text]),
        ("wimlib_get_image_name", text, [pointer, ctypes.c_int]),
        (
            "wimlib_iterate_dir_tree",
            ctypes.c_int,
            [pointer, ctypes.c_int, text, ctypes.c_int, _CALLBACK, pointer],
        ),
        ("wimlib_create_decompressor", ctypes.c_int, [ctypes.c_int, size, ctypes.POINTER(pointer)]),
        ("wimlib_decompress", ctypes.c_int, [text, size, text, size, pointer]),
        ("wimlib_free_decompressor", None, [pointer]),
        ("wimlib_free", None, [pointer]),
        ("wimlib_get_error_string", text, [ctypes.c_int]),
    ):
        function = getattr(library, call)
        function.restype, function.argtypes = result, arguments
    return library


def _entry_of(pointer: ctypes._Pointer[_Entry]) -> WimEntry:
    entry = pointer.contents
    address = ctypes.addressof(entry) + ctypes.sizeof(_Entry)
    streams = (_Stream * (1 + entry.num_named_streams)).from_address(address)
    path = _text(entry.full_path)
    descriptor = ctypes.string_at(entry.security_descriptor, entry.security_descriptor_size)
    return WimEntry(
        path.strip("/"),
        entry.attributes,
        entry.reparse_tag,
        entry.hard_link_group_id if entry.num_links > 1 else 0,
        _nanoseconds(entry.creation_time),
        _nanoseconds(entry.last_write_time),
        _nanoseconds(entry.last_access_time),
        descriptor if entry.security_descriptor_size else b"",
        _blob(streams[0].resource, path),
        tuple((_text(stream.stream_name), _blob(stream.resource, path)) for stream in streams[1:]),
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _nanoseconds(time: _Time) -> int:
    return int(time.tv_sec) * 10**9 + int(time.tv_nsec)


def _blob(resource: _Resource, path: str) -> WimBlob | None:
    if resource.flags & _MISSING:
        raise FormatError("its content is not in this WIM", path.strip("/"))
    if not resource.uncompressed_size:
        return None
    return WimBlob(
        resource.uncompressed_size,
        resource.offset,
        resource.compressed_size,
        bool(resource.flags & _COMPRESSED),
        bytes(resource.sha1_hash),
        (resource.raw_resource_offset_in_wim, resource.raw_resource_compressed_size)
        if resource.flags & _SOLID
        else None,
    )
