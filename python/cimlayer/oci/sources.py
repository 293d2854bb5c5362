"""Where a container image comes from: the protocol that every kind of source fills."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from cimlayer.oci.platforms import Platform


@dataclass(slots=True, frozen=True)
class BlobDescriptor:
    """What a document or a layer must be (OCI image specification, "Content Descriptors").

    ``digest`` is ``sha256:HEX`` or ``sha512:HEX``; ``size``, in bytes, is checked unless it is None. ``urls`` say where
    else a layer can be had. An entry of an index says for which ``platform`` it is, or leaves that to the
    image's configuration.
    """

    digest: str
    size: int | None = None
    media_type: str = ""
    urls: tuple[str, ...] = ()
    platform: Platform | None = None


@dataclass(slots=True, frozen=True)
class ImageReference:
    """An entry of a source: ``names`` (none, or several for one) for a manifest, or for an index of manifests."""

    names: tuple[str, ...]
    descriptor: BlobDescriptor


class ImageSource(Protocol):
    """Where container images come from; :func:`~cimlayer.import_image` takes any object with these members.

    A source finds bytes and believes nothing: the caller checks each digest and size, follows indexes in indexes,
    and chooses by platform. Methods are called by one thread at a time, but not always by the same one; a stream of
    ``open_blob`` is read in one thread while other methods are called in another. Where they raise OSError
    (FileNotFoundError for what is not there) or ValueError, the import ends with that error.
    """

    @property
    def name(self) -> str:
        """What messages call the source."""

    def references(self) -> Iterable[ImageReference]:
        """What the source has, in its own order. One that was opened for a single name has just that."""

    def document(self, descriptor: BlobDescriptor, limit: int) -> bytes:
        """A manifest, an index or a configuration, which the media type tells apart as far as documents say it.

        A document of more than ``limit`` bytes is refused: nothing beyond them needs to be read.
        """

    def blob_size(self, descriptor: BlobDescriptor) -> int | None:
        """The bytes of a layer's blob; None if the source does not have it.

        Asked for all layers before the first is imported. A source that would have to go far for the answer returns
        ``descriptor.size``.
        """

    def open_blob(self, descriptor: BlobDescriptor, offset: int = 0) -> BinaryIO:
        """A layer's blob from a byte on, as it is, compressed or not. The caller reads it to its end and closes it.

        It may be a stream that arrives: its ``readinto``, or ``read`` if it has no other, returns what is there
        and waits for more. A source that loses its connection goes on by itself where it was.
        """
