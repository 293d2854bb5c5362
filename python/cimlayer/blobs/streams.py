"""The tar of a layer from its blob: decompressed by content, and verified in the same pass."""

from __future__ import annotations

from typing import BinaryIO

from cimlayer.blobs.arrival import ArrivingBlob
from cimlayer.blobs.decompression import Readable, check_tar_start, decompressed
from cimlayer.blobs.digests import Digest
from cimlayer.errors import DigestMismatchError, FormatError
from cimlayer.events import CancellationToken
from cimlayer.limits import DEFAULT_LIMITS, Limits


class LayerStream:
    """The tar of one layer, from the bytes of its blob; what was promised of both is checked in the same pass.

    ``digest`` and ``size`` (in bytes) are those of the blob, ``diff_id`` is the tar's digest; all may be None. ``name``
    is what errors call the blob.

    What was read is hashed by :meth:`used`, and compared by :meth:`finish`, which another thread may call than the one
    that reads: decompressing is what takes longest.
    The tar has ended only after everything was found to be right: else there is a
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
        name: str = "",
    ) -> None:
        self._digest, self._size, self._diff_id = digest, size, diff_id
        self._limits = limits
        self._name = name
        self._tar_size = 0
        self._blob = ArrivingBlob(blob, digest, cancel)
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
            if self._tar_size == 0:
                check_tar_start(buffer[:filled], self._name)
        except FormatError:
            self._verify_blob()
            raise
        self._tar_size += filled
        self._limits.check_tar(self._tar_size, self.position)
        if filled < len(buffer) or (self._size is not None and self.position > self._size):
            self._verify_blob()
        return filled

    def used(self, piece: memoryview) -> None:
        """Take the next piece of the tar into its digest."""
        if self._hash is not None:
            self._hash.update(piece)

    def finish(self) -> None:
        """Check the tar's digest, after its last piece."""
        if self._diff_id is None:
            return
        found = self._hash or self._blob.hash
        assert found is not None
        actual = Digest(self._diff_id.algorithm, found.hexdigest())
        if actual != self._diff_id:
            of = f" of blob {self._digest}" if self._digest else ""
            raise DigestMismatchError(
                f"layer {self._diff_id}{of}", f"diff ID {self._diff_id}", f"diff ID {actual}", self._tar_size
            )

    def _open(self) -> Readable:
        tar = decompressed(self._blob, self._name)
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
                raise DigestMismatchError(name, f"{self._size} bytes", f"{actual_size} bytes", self.position)
        if self._digest is not None and self._blob.hash is not None:
            self._blob.drain()
            actual = Digest(self._digest.algorithm, self._blob.hash.hexdigest())
            if actual != self._digest:
                raise DigestMismatchError(name, f"digest {self._digest}", f"digest {actual}", self.position)
