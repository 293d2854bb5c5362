"""Where a container image lies: a path whose content says what it is."""

from __future__ import annotations

import os

from cimlayer.errors import FormatError
from cimlayer.events import CancellationToken
from cimlayer.oci.dockerarchive import DockerArchive
from cimlayer.oci.documents import parse
from cimlayer.oci.files import Files, open_files
from cimlayer.oci.layouts import OciLayout, SkopeoFolder, read_file
from cimlayer.oci.sources import ImageSource


def open_image_source(path: str | os.PathLike[str], cancel: CancellationToken | None = None) -> ImageSource:
    """An OCI layout, a docker archive or a skopeo folder; as a folder or as an uncompressed tar.

    FormatError for anything else, OperationCancelledError once ``cancel`` is cancelled, here and in what the source
    does.
    """
    if os.fspath(path) == "-":
        raise ValueError("an image cannot be read from standard input, only a single layer: save it to a file")
    return _recognised(open_files(path, cancel or CancellationToken()))


def _recognised(files: Files) -> ImageSource:
    if files.size("index.json") is not None:
        return OciLayout(files)
    if files.size("manifest.json") is None:
        raise FormatError("no image: neither an index.json nor a manifest.json is in it", files.name)
    if isinstance(parse(read_file(files, "manifest.json"), "manifest.json"), list):
        return DockerArchive(files)
    return SkopeoFolder(files)
