"""What the tests of export_layer share."""

from __future__ import annotations

import base64
import hashlib
import tarfile
from decimal import Decimal
from typing import Any

from support.corpus import KEPT_ATTRIBUTES
from support.tars import FILETIME_OF_1970

DIRECTORY = 0x10


def filetime(seconds: str) -> int:
    return FILETIME_OF_1970 + int(Decimal(seconds) * 10_000_000)


def facts(member: tarfile.TarInfo, content: bytes) -> dict[str, Any]:
    """An entry of a tar in the terms of a manifest."""
    records = member.pax_headers
    return {
        "path": member.name.replace("/", "\\"),
        "attributes": int(records["MSWINDOWS.fileattr"]) & KEPT_ATTRIBUTES,
        "creation_time": filetime(records["LIBARCHIVE.creationtime"]),
        "last_write_time": filetime(records["mtime"]),
        "change_time": filetime(records["ctime"]),
        "last_access_time": filetime(records["atime"]),
        "sd": base64.b64decode(records["MSWINDOWS.rawsd"]),
        "eas": {
            key.removeprefix("MSWINDOWS.xattr."): base64.b64decode(value).hex()
            for key, value in records.items()
            if key.startswith("MSWINDOWS.xattr.")
        },
        "target": member.linkname if member.issym() else None,
        "mount_point": "MSWINDOWS.mountpoint" in records,
        "sha256": hashlib.sha256(content).hexdigest() if member.isreg() else None,
        "streams": {},
    }
