"""Container images that go to a container registry (OCI distribution specification 1.1, "Pushing")."""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from cimlayer.events import CancellationToken
from cimlayer.oci.origins import Origin
from cimlayer.oci.registry.client import Client
from cimlayer.oci.registry.connections import Exchange
from cimlayer.oci.registry.failures import RequestError, Retries
from cimlayer.oci.registry.references import RegistryReference
from cimlayer.oci.targets import Compression, Document, LayerBlob, WrittenLayer, ordinary_type

CHUNK = 16 << 20  # bytes of a blob in one request
_RECEIVED = re.compile("(?:bytes=)?0-([0-9]+)")


class _Nowhere:
    def write(self, data: Any, /) -> None:
        pass


class RegistryTarget:
    """A repository, and the tag that the image gets there.

    A layer is exported once to know its digest, and once more to be sent, if the container registry does not have it:
    neither the disk nor the memory holds it. ``client`` needs the actions pull and push.
    """

    compressions: tuple[Compression, ...] = ("gzip", "zstd", "none")

    def __init__(self, client: Client) -> None:
        self._client = client
        if client.reference.digest is not None:
            raise ValueError(f"{client.reference}: an image is pushed to a tag, its digest is what it is")

    def layer(self, blob: LayerBlob, origin: Origin) -> WrittenLayer:
        """Send a layer, unless it is there; the blob that it was imported from will do if its tar is the same."""
        written = blob.write(_Nowhere())
        original = origin.blob
        if original is not None and origin.diff_id == written.diff_id and self._has_or_mounts(original.digest, origin):
            return WrittenLayer(written.diff_id, replace(original, media_type=ordinary_type(original.media_type)))
        if not _has(self._client, written.blob.digest):
            with _Upload(self._client, written.blob.digest) as upload:
                if blob.write(upload) != written:
                    raise RuntimeError(f"{blob.layer}: two exports of one layer differ")
                upload.finish()
        return written

    def _has_or_mounts(self, digest: str, origin: Origin) -> bool:
        """Whether the repository has a blob, perhaps now, out of another one of the same host."""
        here = self._client.reference
        if _has(self._client, digest):
            return True
        if origin.host != here.host or origin.repository in ("", here.repository):
            return False
        with self._client.pulling_too(origin.repository), _Upload(self._client, digest) as upload:
            return upload.mount(origin.repository)

    def finish(self, config: Document, manifest: Document) -> str:
        """The manifest comes last, and the tag with it."""
        descriptor, data = config
        if not _has(self._client, descriptor.digest):
            with _Upload(self._client, descriptor.digest) as upload:
                upload.write(data)
                upload.finish()
        descriptor, data = manifest
        path = f"manifests/{self._client.reference.version}"
        headers = {"Content-Type": descriptor.media_type}
        what = f"manifest {descriptor.digest}"
        self._client.retried(lambda: self._client.open("PUT", path, headers, data), what).finish()
        return descriptor.digest


def _has(client: Client, digest: str) -> bool:
    """Whether the repository has a blob."""
    try:
        client.retried(lambda: client.open("HEAD", f"blobs/{digest}", {}), f"blob {digest}").finish()
    except FileNotFoundError:
        return False
    return True


class _Upload:
    """A blob that is sent: as a whole if it is small, else in chunks. Each request goes where the last answer said.

    An upload that is not finished is cancelled at the end of the ``with`` block.
    """

    def __init__(self, client: Client, digest: str) -> None:
        self._client = client
        self._digest = digest
        self._buffer = bytearray()
        self._sent = 0
        self._location: urllib.parse.SplitResult | None = None

    def __enter__(self) -> _Upload:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._location is not None:
            self._client.abandon(self._location)

    def mount(self, repository: str) -> bool:
        """Whether the server takes the blob over from another repository; it need not, nor say why not."""
        query = urllib.parse.urlencode({"mount": self._digest, "from": repository})
        try:
            exchange = self._client.open("POST", f"blobs/uploads/?{query}", {"Content-Length": "0"})
            if exchange.status != HTTPStatus.CREATED:
                self._moved(exchange)
                return False
            exchange.finish()
        except RequestError:
            return False
        return True

    def write(self, data: Any, /) -> None:
        """Send what makes a whole chunk."""
        data = memoryview(data)
        while data:
            count = CHUNK - len(self._buffer)
            self._buffer += data[:count]
            data = data[count:]
            if len(self._buffer) == CHUNK and data:
                self._send("PATCH")

    def finish(self) -> None:
        """Send the rest, with the digest of all."""
        self._send("PUT")
        self._location = None

    def _send(self, method: str) -> None:
        """Send the buffer, as far as it has not arrived."""
        retries = Retries(self._client.cancel)
        while True:
            try:
                try:
                    self._request(method)
                    return
                except RequestError as error:
                    retries.wait(error)
                    if self._skip_received(error):
                        return
            except RequestError as error:
                raise self._client.failed(error, f"blob {self._digest}", self._sent) from error

    def _request(self, method: str) -> None:
        if self._location is None:
            self._moved(self._client.open("POST", "blobs/uploads/", {"Content-Length": "0"}))
        assert self._location is not None
        if method == "PATCH" and not self._buffer:
            return  # all of it had arrived
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(self._buffer))}
        url = self._location
        if self._buffer and (method == "PATCH" or self._sent):
            headers["Content-Range"] = f"{self._sent}-{self._sent + len(self._buffer) - 1}"
        if method == "PUT":
            digest = f"digest={urllib.parse.quote(self._digest, safe='')}"
            url = url._replace(query="&".join(filter(None, (url.query, digest))))
        exchange = self._client.open_url(method, url, headers, bytes(self._buffer))
        if method == "PUT":
            exchange.finish()
        else:
            self._moved(exchange)
        self._sent += len(self._buffer)
        self._buffer.clear()

    def _moved(self, exchange: Exchange) -> None:
        """Where the upload goes on; a location may be relative, and its query is part of it."""
        location = exchange.headers.get("Location")
        exchange.finish()
        if not location:
            if self._location is None:
                raise RequestError("an answer to an upload without a Location")
            return
        here = self._location or self._client.url("blobs/uploads/")
        self._location = urllib.parse.urlsplit(urllib.parse.urljoin(here.geturl(), location))

    def _skip_received(self, error: RequestError) -> bool:
        """Ask how much has arrived, and leave that out; True if it is the whole blob. Else the error is final."""
        if self._location is None:
            return False
        try:
            exchange = self._client.open_url("GET", self._location, {}, None)
        except RequestError as lost:
            if lost.transient:
                return False
            if _has(self._client, self._digest):  # only the last answer was lost
                return True
            raise error from lost
        received = _RECEIVED.fullmatch(exchange.headers.get("Range", ""))
        self._moved(exchange)
        count = (int(received[1]) + 1 if received and received[1] != "0" else 0) - self._sent
        if not 0 <= count <= len(self._buffer):
            raise error
        del self._buffer[:count]
        self._sent += count
        return False


@contextlib.contextmanager
def registry_target(
    reference: str,
    *,
    tls_verify: bool = True,
    cert_dir: str | os.PathLike[str] | None = None,
    authfile: str | os.PathLike[str] | None = None,
    cancel: CancellationToken | None = None,
) -> Iterator[RegistryTarget]:
    """A target for ``docker://HOST[:PORT]/NAME[:TAG]``; the options are those of ContainerRegistry."""
    client = Client(
        RegistryReference.parse(reference),
        CancellationToken(cancel),
        actions="pull,push",
        tls_verify=tls_verify,
        cert_dir=cert_dir,
        authfile=authfile,
    )
    try:
        yield RegistryTarget(client)
    finally:
        client.close()
