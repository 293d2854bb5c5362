"""Bytes from files to a consumer: decompression by content, and verification."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from typing import BinaryIO, Protocol, TypeVar

from cimlayer.blobs.digests import Digest
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.events import CancellationToken
from cimlayer.limits import DEFAULT_LIMITS, Limits

_T = TypeVar("_T")

PIECE = 1 << 19  # bytes handed on at a time: of the sizes tried, the fastest where two cores share the work

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))
LONGEST_WAIT = 0.1  # seconds between two looks at the cancellation token


def open_source(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to read a tar from, without a buffer."""
    return open(path, "rb", buffering=0, opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to yet is waited for where it is read: there it can be cancelled."""
    if os.name != "posix":
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


class Readable(Protocol):
    """A binary stream as its consumers here use it."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of the buffer; 0 at the end."""


class _Blob(io.RawIOBase):
    """The bytes of a blob as they come: counted, hashed, and given up when the operation is cancelled."""

    def __init__(self, stream: BinaryIO, digest: Digest | None, cancel: CancellationToken) -> None:
        super().__init__()
        self._stream = stream
        self._readinto = getattr(stream, "readinto", None)
        self._arrival = _arrival(stream)
        self._cancel = cancel
        self._prefix = b""
        self.hash = digest.new_hash() if digest is not None else None
        self.position = 0

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        """The first bytes, which will be read again."""
        while len(self._prefix) < size:
            piece = memoryview(bytearray(size - len(self._prefix)))
            count = self._fill(piece)
            if not count:
                break
            self._prefix += piece[:count]
        return self._prefix

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._prefix:
            count = min(len(buffer), len(self._prefix))
            buffer[:count] = self._prefix[:count]
            self._prefix = self._prefix[count:]
            return count
        return self._fill(buffer)

    def drain(self) -> None:
        """Read what is left: it counts, though nobody needs it."""
        piece = memoryview(bytearray(PIECE))
        while self.readinto(piece):
            pass

    def _fill(self, buffer: memoryview) -> int:
        self._cancel.raise_if_cancelled()
        while self._arrival is not None and not self._arrival.poll(LONGEST_WAIT * 1000):
            self._cancel.raise_if_cancelled()
        if self._readinto is not None:
            count = int(_present(self._readinto(buffer)))
        else:
            data = _present(self._stream.read(len(buffer)))
            count = len(data)
            buffer[:count] = data
        if self.hash is not None:
            self.hash.update(buffer[:count])
        self.position += count
        return count


def _present(result: _T | None) -> _T:
    """What a read gave; a stream that has nothing yet must not be taken for one that has ended."""
    if result is None:
        raise BlockingIOError(errno.EAGAIN, "the source must be a stream that waits for its data")
    return result


def _arrival(stream: BinaryIO) -> select.poll | None:
    """What tells of bytes to read, for the unbuffered file of a pipe or a terminal: a read there may wait for ever.

    Any other stream may have bytes of which its descriptor does not tell, as one of TLS does.
    """
    if os.name != "posix" or not isinstance(stream, io.FileIO):
        return None
    descriptor = stream.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll


class _Decompressing:
    """A decompressor whose complaints are FormatErrors."""

    def __init__(self, what: str, stream: Readable, *complaints: type[Exception]) -> None:
        self._what = what
        self._stream = stream
        self._complaints = complaints

    def readinto(self, buffer: memoryview, /) -> int | None:
        try:
            return self._stream.readinto(buffer)
        except self._complaints as error:
            raise FormatError(f"the {self._what} stream is damaged or cut: {error}", self._what) from error


def _decompressed(blob: _Blob) -> Readable:
    """The plain bytes of a blob that is plain, gzip (any number of members) or zstd (any number of frames)."""
    magic = blob.peek(4)
    if magic[:2] == _GZIP_MAGIC:
        from isal import igzip, isal_zlib  # noqa: PLC0415  only where a gzip file is read

        stream = igzip.IGzipFile(fileobj=blob, mode="rb")  # type: ignore[no-untyped-call]
        return _Decompressing("gzip", stream, igzip.BadGzipFile, EOFError, OverflowError, isal_zlib.error)  # type: ignore[arg-type]
    if magic == _ZSTD_MAGIC or magic in _ZSTD_SKIPPABLE:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415
        return _Decompressing("zstd", zstd.ZstdFile(blob, "rb"), zstd.ZstdError, EOFError)
    return blob


class LayerStream:
    """The tar of one layer, from the bytes of its blob; what was promised of both is checked in the same pass.

    ``digest`` and ``size`` (in bytes) are those of the blob, ``diff_id`` is the tar's digest; all may be None.
    ``readinto`` says that the tar has ended only after everything was found to be right: else it raises
    :class:`~cimlayer.errors.DigestMismatchError`, also where a damaged blob could not be decompressed. Of a tar that
    goes beyond ``limits`` nothing more is read: :class:`~cimlayer.errors.LimitError`.
    """

    def __init__(
        self,
        blob: BinaryIO,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        diff_id: Digest | None = None,
        limits: Limits = DEFAULT_LIMITS,
        cancel: CancellationToken,
    ) -> None:
        self._digest, self._size, self._diff_id = digest, size, diff_id
        self._limits = limits
        self._tar_size = 0
        self._blob = _Blob(blob, digest, cancel)
        self._hash = diff_id.new_hash() if diff_id is not None else None
        self._tar: Readable | None = None

    @property
    def position(self) -> int:
        """Bytes of the blob read so far."""
        return self._blob.position

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; less only at the end."""
        try:
            tar = self._tar = self._tar or self._open()
            filled = 0
            while filled < len(buffer) and (count := tar.readinto(buffer[filled:])):
                filled += count
        except FormatError:
            self._verify_blob()
            raise
        self._tar_size += filled
        self._limits.check_tar(self._tar_size, self.position)
        if self._hash is not None:
            self._hash.update(buffer[:filled])
        if self._size is not None and self.position > self._size:
            self._verify_blob()
        if filled < len(buffer):
            self._verify_blob()
            self._verify_tar()
        return filled

    def _open(self) -> Readable:
        tar = _decompressed(self._blob)
        algorithms = {digest.algorithm for digest in (self._digest, self._diff_id) if digest is not None}
        if tar is self._blob and self._digest is not None and len(algorithms) == 1:
            self._hash = None  # the blob is the tar, and is hashed already
        return tar

    def _verify_blob(self) -> None:
        name = f"blob {self._digest}"
        if self._size is not None:
            if self.position <= self._size:
                self._blob.drain()
            if self.position != self._size:
                actual_size = "more" if self.position > self._size else str(self.position)
                raise DigestMismatchError(name, f"{self._size} bytes", f"{actual_size} bytes")
        if self._digest is not None and self._blob.hash is not None:
            self._blob.drain()
            actual = Digest(self._digest.algorithm, self._blob.hash.hexdigest())
            if actual != self._digest:
                raise DigestMismatchError(name, f"digest {self._digest}", f"digest {actual}")

    def _verify_tar(self) -> None:
        if self._diff_id is None:
            return
        found = self._hash or self._blob.hash
        assert found is not None
        actual = Digest(self._diff_id.algorithm, found.hexdigest())
        if actual != self._diff_id:
            of = f" of blob {self._digest}" if self._digest else ""
            raise DigestMismatchError(f"layer {self._diff_id}{of}", f"diff ID {self._diff_id}", f"diff ID {actual}")
