"""Container images that come from a container registry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

from cimlayer.blobs.digests import Digest
from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.oci.documents import DOCUMENT_LIMIT, INDEXES, MANIFESTS, is_foreign
from cimlayer.oci.registry.blobs import BlobStream
from cimlayer.oci.registry.client import Client
from cimlayer.oci.registry.connections import STALL_TIMEOUT
from cimlayer.oci.registry.failures import RequestError
from cimlayer.oci.registry.references import RegistryReference
from cimlayer.oci.sources import BlobDescriptor, ImageReference

_ACCEPT = {"Accept": ", ".join(sorted(type_ for type_ in INDEXES | MANIFESTS if "cimlayer" not in type_))}
_KEPT = 8 << 20  # bytes of documents
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class ContainerRegistry:
    """A container image in a container registry; an :class:`~cimlayer.ImageSource` and a context manager.

    ``reference`` is ``docker://HOST[:PORT]/NAME[:TAG][@DIGEST]``. The tag is ``latest`` by default; of a tag and a
    digest, the digest counts. With ``tls_verify`` false, certificates are not checked, and plain HTTP is used if the
    server does not speak TLS. ``cert_dir`` has CAs to trust in addition to the system's (``*.crt``) and client
    certificates (``*.cert`` with ``*.key``). Credentials come from ``authfile``, else from the file that
    REGISTRY_AUTH_FILE names, else from podman's and docker's files; they are sent only to the host that they are for
    and to the token server that it names. Proxies are those of the environment.

    A connection that breaks, or on which almost nothing arrives for ``stall_timeout`` seconds, is replaced, and a blob
    continues where it was; six failures in a row without progress are final. Foreign layers are taken from the
    container registry, or from their URLs if it does not have them.

    ValueError for an invalid reference, FileNotFoundError for what does not exist, PermissionError without the right
    credentials, another OSError for a failing network. OperationCancelledError once ``cancel`` is cancelled or the
    source is closed.

    It needs urllib3 (the extra ``registry``).
    """

    def __init__(
        self,
        reference: str,
        *,
        tls_verify: bool = True,
        cert_dir: str | os.PathLike[str] | None = None,
        authfile: str | os.PathLike[str] | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        cancel: CancellationToken | None = None,
    ) -> None:
        self._reference = RegistryReference.parse(reference)
        self._cancel = CancellationToken(cancel)
        self._client = Client(
            self._reference,
            self._cancel,
            tls_verify=tls_verify,
            cert_dir=cert_dir,
            authfile=authfile,
            stall_timeout=stall_timeout,
        )
        self._documents: dict[str, bytes] = {}  # by digest, to be asked for once; whoever gets one verifies it

    def __enter__(self) -> ContainerRegistry:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close all connections; whoever still reads a blob gets an OperationCancelledError."""
        self._cancel.cancel()
        self._client.close()

    @property
    def name(self) -> str:
        """The whole reference."""
        return str(self._reference)

    def references(self) -> Iterator[ImageReference]:
        """The one manifest or index that the reference names. Its digest is computed: headers prove nothing."""
        version = self._reference.version
        headers, data = self._client.read(f"manifests/{version}", DOCUMENT_LIMIT, _ACCEPT, what=f"manifest {version}")
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type.startswith(_SCHEMA_1):
            raise FormatError("a manifest of schema 1, which nothing can verify", self.name)
        digest = self._reference.digest or str(Digest.of("sha256", data))
        self._documents[digest] = data
        media_type = media_type if media_type in INDEXES | MANIFESTS else ""
        tag = self._reference.tag
        yield ImageReference((tag,) if tag else (), BlobDescriptor(digest, len(data), media_type))

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        """A manifest, or a configuration, which is a blob."""
        data = self._documents.get(descriptor.digest)
        if data is None:
            kind = "manifests" if descriptor.media_type in INDEXES | MANIFESTS else "blobs"
            accept = _ACCEPT if kind == "manifests" else {}
            what = f"{kind[:-1]} {descriptor.digest}"
            _, data = self._client.read(f"{kind}/{descriptor.digest}", limit, accept, what=what)
            if sum(map(len, self._documents.values())) + len(data) <= _KEPT:
                self._documents[descriptor.digest] = data
        return data

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        """What the descriptor says; only without that the container registry is asked."""
        if descriptor.size is not None:
            return descriptor.size
        try:
            exchange = self._client.open("HEAD", f"blobs/{descriptor.digest}", {})
        except RequestError as error:
            if error.status == 404:
                return None
            raise self._client.failed(error, f"blob {descriptor.digest}") from error
        exchange.close()
        length = exchange.headers.get("Content-Length", "")
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else 0

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        """The blob from a byte on, as it arrives."""
        urls = descriptor.urls if is_foreign(descriptor.media_type) else ()
        return BlobStream(self._client, descriptor, urls, offset)  # type: ignore[return-value]
