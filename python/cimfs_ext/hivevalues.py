"""Values of registry hives, and what their data means (Microsoft, "Registry Value Types").

https://learn.microsoft.com/windows/win32/sysinfo/registry-value-types
"""

from __future__ import annotations

import struct
from typing import NamedTuple

TYPE_NAMES = (
    "REG_NONE",
    "REG_SZ",
    "REG_EXPAND_SZ",
    "REG_BINARY",
    "REG_DWORD",
    "REG_DWORD_BIG_ENDIAN",
    "REG_LINK",
    "REG_MULTI_SZ",
    "REG_RESOURCE_LIST",
    "REG_FULL_RESOURCE_DESCRIPTOR",
    "REG_RESOURCE_REQUIREMENTS_LIST",
    "REG_QWORD",
)
REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_DWORD_BIG_ENDIAN, REG_LINK, REG_MULTI_SZ = range(1, 8)
REG_QWORD = 11
_STRINGS = (REG_SZ, REG_EXPAND_SZ, REG_LINK)
_INTEGERS = {REG_DWORD: "<I", REG_DWORD_BIG_ENDIAN: ">I", REG_QWORD: "<Q"}


class Value(NamedTuple):
    """A value of a key: its ``type`` is a number, and ``data`` the bytes that the hive has.

    ``name`` is empty for the default value. A ``tombstone`` stands in a delta for a value that is deleted.
    """

    name: str
    type: int
    data: bytes
    tombstone: bool

    @property
    def value(self) -> int | str | list[str] | bytes:
        """The data as its type says, or the bytes where :func:`~cimlayer.interpret` gives None."""
        meant = interpret(self)
        return self.data if meant is None else meant

    @property
    def type_name(self) -> str:
        """The name of the type, such as ``REG_SZ``."""
        return type_name(self.type)

    def __repr__(self) -> str:
        if self.tombstone:
            return f"HiveValue({self.name!r}, tombstone)"
        return f"HiveValue({self.name!r}, {self.type_name}, {self.value!r})"


Value.__module__ = "cimlayer"
Value.__name__ = Value.__qualname__ = "HiveValue"


def type_name(type_: int) -> str:
    """The name of a value type, such as ``REG_SZ``; a number in hexadecimal where there is none."""
    return TYPE_NAMES[type_] if type_ < len(TYPE_NAMES) else f"0x{type_:08x}"


def interpret(value: Value) -> int | str | list[str] | None:
    """The data of a value as its type says: a number, a string or strings.

    None: it is bytes by type, or not what its type says, as a string with a NUL before its end, or one
    that is no UTF-16. A string may lack its final NUL.
    """
    packing = _INTEGERS.get(value.type)
    if packing and len(value.data) == struct.calcsize(packing):
        number: int = struct.unpack(packing, value.data)[0]
        return number
    if value.type not in (*_STRINGS, REG_MULTI_SZ):
        return None
    try:
        text = value.data.decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    if value.type == REG_MULTI_SZ:
        strings = text.removesuffix("\0").removesuffix("\0").split("\0") if text.strip("\0") else []
        return strings if all(strings) else None
    text = text.removesuffix("\0")
    return None if "\0" in text else text
