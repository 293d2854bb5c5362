"""What a file of NTFS has besides its content, where ntfs-3g shows it as extended attributes.

Sources: ntfs-3g(8), "Streams"; its include/ntfs-3g/xattrs.h and libntfs-3g/{xattrs,ea,inode}.c. Nothing here is
followed: an entry is named within its directory, which is open, and links are the reparse points that they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
from collections.abc import Iterator, Mapping

_PREFIX = "system.ntfs_"
_STREAM = "user."  # with streams_interface=xattr, which is the default
_ATTRIBUTES, _TIMES = struct.Struct("<I"), struct.Struct("<4Q")
_EA = struct.Struct("<IBBH")
_LARGEST = 1 << 16  # bytes of a value on Linux
_NONE = (errno.ENODATA, errno.EOPNOTSUPP, errno.EINVAL)  # has no such attribute, or knows none of the name
_OWN = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOENT)  # of the disk, not of what was to be kept
_BUFFERS = {
    "security_descriptor": "acl",
    "extended_attributes": "ea",
    "reparse_data": "reparse_data",
}
_UNTOLD = 0x80  # FILE_ATTRIBUTE_NORMAL: there are no others


def _name(directory: int, name: bytes) -> bytes:
    """There are no calls for the attributes of an entry of an open directory."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _get(directory: int, name: bytes, attribute: str) -> bytes | None:
    """One attribute; None if there is none.

    :func:`os.getxattr` tries a buffer of 128 bytes first, and ntfs-3g fills more than it gets, which Linux calls EIO.
    """
    libc = _libc()
    buffer = ctypes.create_string_buffer(_LARGEST)
    path, key = _name(directory, name), attribute.encode("utf-8", "surrogateescape")
    for is_last in (False, True):  # EIO is also said once of what has become another kind of file: a reparse point
        size: int = libc.lgetxattr(path, key, buffer, ctypes.c_size_t(_LARGEST))
        if size >= 0:
            return buffer.raw[:size]
        code = ctypes.get_errno()
        if code in _NONE:
            return None
        if code != errno.EIO or is_last:
            raise OSError(code, os.strerror(code), os.fsdecode(name))
    raise AssertionError


def _set(directory: int, name: bytes, attribute: str, value: bytes) -> bool:
    """Whether the volume took it."""
    try:
        os.setxattr(_name(directory, name), attribute.encode("utf-8", "surrogatepass"), value, follow_symlinks=False)
    except OSError as error:
        if error.errno in _OWN:
            raise
        return False
    return True


def is_ntfs(directory: int) -> bool:
    """Whether an open directory is one of a volume that ntfs-3g has mounted."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        return len(os.getxattr(directory, _PREFIX + "attrib")) == _ATTRIBUTES.size
    except OSError:
        return False


def read_values(directory: int, name: bytes) -> dict[str, object]:
    """What an entry has, by kinds: attributes, times (creation, last write, change, last access) and buffers."""
    values: dict[str, object] = {}
    if data := _get(directory, name, _PREFIX + "attrib"):
        (values["attributes"],) = _ATTRIBUTES.unpack(data)
    if (times := _times(directory, name)) is not None:
        values["times"] = times
    for kind, attribute in _BUFFERS.items():
        if data := _get(directory, name, _PREFIX + attribute):
            values[kind] = _from_disk(data) if attribute == "ea" else data
    return values


def _times(directory: int, name: bytes) -> tuple[int, int, int, int] | None:
    data = _get(directory, name, _PREFIX + "times")
    if not data:
        return None
    creation, last_write, last_access, change = _TIMES.unpack(data)
    return creation, last_write, change, last_access


def read_streams(directory: int, name: bytes) -> Iterator[tuple[str, bytes]]:
    """The alternate streams: names and contents. Those of a link cannot be read."""
    try:
        found = os.listxattr(_name(directory, name), follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return
        raise
    for attribute in sorted(found):
        if attribute.startswith(_STREAM):
            content = _get(directory, name, attribute)
            if content is not None:
                stream = os.fsencode(attribute.removeprefix(_STREAM)).decode("utf-8", "surrogatepass")
                yield stream, content


def write_stream(directory: int, name: bytes, stream: str, content: bytes) -> bool:
    """Whether the volume took an alternate stream; one of more than 64 KiB is more than Linux lets through."""
    return _set(directory, name, _STREAM + stream, content)


def write_values(directory: int, name: bytes, values: Mapping[str, object]) -> list[str]:
    """Give an entry what :func:`read_values` reads; returns the kinds that the volume did not take as they are.

    A reparse point hides the entry that carries it. The time of the change is always that of now.
    """
    lost = []
    for kind, value in values.items():
        if isinstance(value, bytes):
            data = _to_disk(value) if kind == "extended_attributes" else value
            kept = not value or (data is not None and _set(directory, name, _PREFIX + _BUFFERS[kind], data))
        elif isinstance(value, int):
            _set(directory, name, _PREFIX + "attrib", _ATTRIBUTES.pack(value))
            found = _get(directory, name, _PREFIX + "attrib")
            kept = found is not None and not (_ATTRIBUTES.unpack(found)[0] ^ value) & ~_UNTOLD
        else:
            assert isinstance(value, tuple)
            creation, last_write, change, last_access = (time & 0xFFFF_FFFF_FFFF_FFFF for time in value)
            _set(directory, name, _PREFIX + "times", _TIMES.pack(creation, last_write, last_access, change))
            kept = _times(directory, name) == value
        if kind == "reparse_data" and value and kept:
            _forget(directory, name)
        if not kept:
            lost.append(kind)
    return lost


def _forget(directory: int, name: bytes) -> None:
    """The kernel takes it for the file or directory that it was, and says EIO once, until it has looked."""
    with contextlib.suppress(OSError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)


# On the disk, every entry of a list of EAs is padded and says where the next one would begin, the last one too.


def _to_disk(data: bytes) -> bytes | None:
    result = bytearray(data)
    at = 0
    while True:
        if at + _EA.size > len(result):
            return None
        following, _, name_size, value_size = _EA.unpack_from(result, at)
        if following:
            at += following
            continue
        size = (_EA.size + name_size + 1 + value_size + 3) & ~3
        result[at + size :] = b""
        result += bytes(at + size - len(result))
        result[at : at + 4] = size.to_bytes(4, "little")
        return bytes(result)


def _from_disk(data: bytes) -> bytes:
    at = 0
    while at + _EA.size <= len(data):
        following = int.from_bytes(data[at : at + 4], "little")
        if not following or at + following >= len(data):
            return data[:at] + bytes(4) + data[at + 4 :]
        at += following
    return data
