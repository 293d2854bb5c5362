"""MSIX and APPX packages: how a package is called.

Sources: Microsoft, "An overview of Package Identity in Windows apps" (the full name and the publisher ID in it) and
"App package manifest" (Identity); msix-packaging (AppxManifestObject.cpp, Encoding.cpp).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

from cimlayer.errors import FormatError

MANIFEST = "AppxManifest.xml"
BUNDLE_MANIFEST = "AppxMetadata/AppxBundleManifest.xml"
BLOCK_MAP = "AppxBlockMap.xml"
LARGEST_MANIFEST = 16 << 20  # bytes

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, in lower case
_NAME = re.compile(r"[-.A-Za-z0-9]+")
_VERSION = re.compile(r"\d+(\.\d+){3}")


def package_full_name(manifest: bytes) -> str:
    """``Name_Version_Architecture_ResourceId_PublisherId`` from an AppxManifest.xml; FormatError if that says none."""
    identity: dict[str, str] = {}
    parser = expat.ParserCreate(namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(" ")[2] == "Identity" and not identity:
            identity.update(attributes)

    def refuse(*_arguments: object) -> None:
        raise FormatError("a document type declaration", MANIFEST)

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(manifest, True)
    except expat.ExpatError as error:
        raise FormatError(f"no XML: {error}", MANIFEST) from error
    name, version, publisher = (identity.get(key, "") for key in ("Name", "Version", "Publisher"))
    architecture = identity.get("ProcessorArchitecture", "neutral")
    resource = identity.get("ResourceId", "")
    fits = _NAME.fullmatch(name) and _VERSION.fullmatch(version) and _NAME.fullmatch(architecture) and publisher
    if not fits or (resource and not _NAME.fullmatch(resource)):
        raise FormatError("no Identity with Name, Version and Publisher", MANIFEST)
    return f"{name}_{version}_{architecture}_{resource}_{publisher_id(publisher)}"


def publisher_id(publisher: str) -> str:
    """The 13 characters that stand for a publisher: the first 64 bits of the SHA-256 of its UTF-16, in base 32."""
    import hashlib  # noqa: PLC0415  OpenSSL takes its time to load

    bits = int.from_bytes(hashlib.sha256(publisher.encode("utf-16-le")).digest()[:8], "big") << 1  # 65: 13 times 5
    return "".join(_ALPHABET[bits >> shift & 31] for shift in range(60, -1, -5))


def decoded_name(name: str) -> str:
    """The name of a file in a package, where it is percent-encoded (OPC, part names); FormatError if it is no UTF-8."""
    try:
        return unquote_to_bytes(name.encode("utf-8", "surrogatepass")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("a percent-encoded name that is not UTF-8", name) from error
