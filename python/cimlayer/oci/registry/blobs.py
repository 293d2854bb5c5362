"""A blob as it arrives from a container registry, whatever happens to the connection."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from cimlayer.limits import MOST_BYTES
from cimlayer.oci.registry.client import Client
from cimlayer.oci.registry.connections import Exchange
from cimlayer.oci.registry.failures import RequestError, Retries
from cimlayer.oci.sources import BlobDescriptor

_SKIPPED_AT_ONCE = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class BlobStream(io.RawIOBase):
    """The bytes of a blob from an offset on, in order, each once.

    Where the connection breaks or stalls, the next one goes on from there by Range; of a server that does not know
    ranges, or answers with another one, bytes are skipped. Nothing is verified: whoever reads hashes the whole. Of a
    blob that is too long, one byte too many is read. The repository is asked first, then ``urls``, one after the other.
    An OSError names repository, blob and offset.
    """

    def __init__(self, client: Client, blob: BlobDescriptor, urls: Sequence[str] = (), offset: int = 0) -> None:
        super().__init__()
        self._client = client
        self._blob = blob
        self._urls = list(urls)
        self._url: str | None = None  # where the blob comes from, if not from the repository
        self._position = offset
        self._skip = 0
        self._ranges = True
        self._retries = Retries(client.cancel)
        self._exchange: Exchange | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Take what has arrived; 0 at the end."""
        while True:
            try:
                if self._left < 1 or (self._complete and self._position and self._exchange is None):
                    return 0  # that is too much already, or it broke after the last byte
                if self._exchange is None:
                    self._exchange = self._open()
                data = self._exchange.read(min(self._skip, _SKIPPED_AT_ONCE) or min(self._left, len(buffer)))
                partial = not self._exchange.framed or self._exchange.status == HTTPStatus.PARTIAL_CONTENT
                if not data and partial and not self._complete:
                    raise RequestError("the connection was closed early", transient=True)
            except RequestError as error:
                self._recover(error)
                continue
            if self._skip and data:
                self._skip -= len(data)
                continue
            self._position += len(data)
            self._retries.progressed(len(data))
            buffer[: len(data)] = data
            return len(data)

    @property
    def _left(self) -> int:
        """Bytes that may be read, up to one more than the blob should have."""
        return MOST_BYTES if self._blob.size is None else self._blob.size + 1 - self._position

    @property
    def _complete(self) -> bool:
        return self._left <= 1

    def _open(self) -> Exchange:
        wanted = self._position if self._ranges else 0
        headers = {"Range": f"bytes={wanted}-"} if wanted else {}
        try:
            exchange = self._request(headers)
        except RequestError as error:
            if error.status == 416 and wanted:
                self._ranges = False
                error.transient = True
            raise
        start = 0
        if exchange.status == 206:
            content_range = _CONTENT_RANGE.fullmatch(exchange.headers.get("Content-Range", ""))
            start = int(content_range[1]) if content_range else -1
        if exchange.status not in (200, 206) or not 0 <= start <= self._position:
            exchange.close()
            self._ranges = False
            raise RequestError("the answer has another range than was asked for", transient=bool(wanted))
        self._skip = self._position - start
        return exchange

    def _request(self, headers: dict[str, str]) -> Exchange:
        if self._url is None:
            return self._client.open("GET", f"blobs/{self._blob.digest}", headers)
        return self._client.open_elsewhere(self._url, headers)

    def _recover(self, error: RequestError) -> None:
        """Wait for the next try, or turn to the next place; OSError if there is none."""
        self._drop()
        try:
            self._retries.wait(error)
        except RequestError as final:
            if not self._urls:
                raise self._client.failed(final, f"blob {self._blob.digest}", self._position) from final
            self._url = self._urls.pop(0)
            self._ranges = True
            self._retries = Retries(self._client.cancel)

    def _drop(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def close(self) -> None:
        """Close, and keep the connection if all was read."""
        self._drop()
        super().close()
