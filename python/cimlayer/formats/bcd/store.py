"""A BCD store: objects and their typed elements in a registry hive (Microsoft, "BCD WMI Provider Reference")."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeAlias
from uuid import UUID

from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError, KeyNotFoundError
from cimlayer.formats.bcd.devices import Device, decode_device, encode_device
from cimlayer.formats.hivelogs import open_hive_file

REG_SZ, REG_BINARY, REG_DWORD, REG_MULTI_SZ = 1, 3, 4, 7

BOOT_MANAGER = UUID("9dea862c-5cdd-4e70-acc1-f32b344d4795")
DEVICE_OPTIONS = 0x30000000

_ELEMENT = re.compile("[0-9A-Fa-f]{8}")

ElementValue: TypeAlias = str | bool | int | UUID | list[UUID] | list[int] | Device


class Element(IntEnum):
    """The elements that are read or written here; a store has many more."""

    DEVICE = 0x11000001
    PATH = 0x12000002
    DESCRIPTION = 0x12000004
    RESTART_ON_FAILURE = 0x16000053
    OS_DEVICE = 0x21000001
    SYSTEM_ROOT = 0x22000002
    DEFAULT_OBJECT = 0x23000003
    PRIMARY_DEVICE = 0x3100000E
    SECONDARY_DEVICE = 0x3100000F
    CIMFS_ROOT_DIRECTORY = 0x32000011
    CIMFS_PARENT_DEVICE = 0x31000012


class Format(IntEnum):
    """What an element holds: the second hexadecimal digit of its number."""

    DEVICE = 1
    STRING = 2
    OBJECT = 3
    OBJECT_LIST = 4
    INTEGER = 5
    BOOLEAN = 6
    INTEGER_LIST = 7


def element_format(element: int) -> int:
    """Return the ``Format`` of ``element``, or a number that is none."""
    return element >> 24 & 0xF


class BcdStore:
    """A store in memory. Errors name it: ``KeyNotFoundError`` for a missing object, else ``FormatError``."""

    def __init__(self, hive: Hive) -> None:
        if "Objects" not in hive:
            raise FormatError("not a boot configuration store: the hive has no key 'Objects'", hive.name)
        self._hive = hive

    @classmethod
    def open(cls, source: bytes | str | os.PathLike[str], *, name: str = "") -> BcdStore:
        """Read a store from its bytes or from its file, with the logs beside it; ``name`` is for errors.

        ``CorruptHiveError`` when it is no hive, ``FormatError`` when the hive is no store.
        """
        if isinstance(source, bytes):
            return cls(Hive.open(source, name=name or "BCD"))
        return cls(open_hive_file(source, name=name))

    @property
    def name(self) -> str:
        """What errors call the store."""
        return str(self._hive.name)

    def to_bytes(self) -> bytes:
        """Return the store as a hive file."""
        return self._hive.to_bytes()

    def __iter__(self) -> Iterator[UUID]:
        """The identifiers of all objects, in order of their text."""
        for key in self._hive.key("Objects").subkeys():
            yield self._guid(key.name, key.path)

    def __contains__(self, identifier: UUID) -> bool:
        return _object_path(identifier) in self._hive

    def resolve(self, alias: str) -> UUID:
        """Return the identifier of the object that ``{default}``, ``{bootmgr}`` or a GUID in braces names."""
        if alias == "{bootmgr}":
            identifier = BOOT_MANAGER
        elif alias == "{default}":
            target = self.get(self.resolve("{bootmgr}"), Element.DEFAULT_OBJECT)
            if not isinstance(target, UUID):
                raise FormatError("the boot manager names no default object", self.name)
            identifier = target
        else:
            identifier = self._guid(alias, "identifier")
        if identifier not in self:
            raise KeyNotFoundError(f"no object {alias} ({{{identifier}}})", self.name)
        return identifier

    def object_type(self, identifier: UUID) -> int:
        """Return the type number of an object."""
        path = f"{self._existing(identifier)}\\Description"
        try:
            data = self._hive.value(path, "Type").data
        except KeyNotFoundError:
            data = b""
        if len(data) != 4:
            raise FormatError(f"{path}: no type", self.name)
        return int.from_bytes(data, "little")

    def create_object(self, identifier: UUID, kind: int, description: str) -> None:
        """Make an object of type ``kind``, in place of one with that identifier."""
        path = _object_path(identifier)
        if path in self._hive:
            self._hive.delete_key(path)
        self._hive.set_value(f"{path}\\Description", "Type", REG_DWORD, kind.to_bytes(4, "little"))
        self._hive.create_key(f"{path}\\Elements")
        self.set(identifier, Element.DESCRIPTION, description)

    def elements(self, identifier: UUID) -> list[int]:
        """Return the numbers of the elements that an object has, in ascending order."""
        path = f"{self._existing(identifier)}\\Elements"
        if path not in self._hive:
            return []
        return sorted(self._element_number(key.name, key.path) for key in self._hive.key(path).subkeys())

    def get(self, identifier: UUID, element: int) -> ElementValue | None:
        """Return the value of an element as its format has it, None when the object lacks it.

        A number whose format is not known gives its bytes as hexadecimal text.
        """
        path = f"{self._existing(identifier)}\\Elements\\{element:08x}"
        try:
            value = self._hive.value(path, "Element")
        except KeyNotFoundError:
            return None
        return _decode(element, value.data, f"{self.name}: {path}")

    def set(self, identifier: UUID, element: int, value: ElementValue) -> None:
        """Set an element. ``TypeError`` when ``value`` is not of the kind that the element's format holds."""
        kind, data = _encode(element, value)
        self._hive.set_value(f"{self._existing(identifier)}\\Elements\\{element:08x}", "Element", kind, data)

    def _existing(self, identifier: UUID) -> str:
        if identifier not in self:
            raise KeyNotFoundError(f"no object {{{identifier}}}", self.name)
        return _object_path(identifier)

    def _guid(self, text: str, where: str) -> UUID:
        try:
            return _parse_guid(text)
        except ValueError:
            raise FormatError(f"{where}: {text!r} is not a GUID in braces", self.name) from None

    def _element_number(self, text: str, where: str) -> int:
        if not _ELEMENT.fullmatch(text):  # int() takes more, such as 0x and underscores, which get() would not find
            raise FormatError(f"{where}: {text!r} is not an element number", self.name)
        return int(text, 16)


def _object_path(identifier: UUID) -> str:
    return f"Objects\\{{{identifier}}}"


def _parse_guid(text: str) -> UUID:
    if len(text) != 38 or text[0] + text[-1] != "{}":
        raise ValueError(text)
    return UUID(text)


def _encode(element: int, value: ElementValue) -> tuple[int, bytes]:
    """Return registry type and data."""
    match element_format(element), value:
        case Format.STRING, str():
            return REG_SZ, _text(value)
        case Format.OBJECT, UUID():
            return REG_SZ, _text(f"{{{value}}}")
        case Format.OBJECT_LIST, list():
            return REG_MULTI_SZ, b"".join(_text(f"{{{item}}}") for item in value) + _text("")
        case Format.BOOLEAN, bool():
            return REG_BINARY, bytes([value])
        case Format.INTEGER, int() if not isinstance(value, bool):
            return REG_BINARY, value.to_bytes(8, "little")
        case Format.INTEGER_LIST, list():
            return REG_BINARY, b"".join(int(item).to_bytes(8, "little") for item in value)
        case Format.DEVICE, _ if isinstance(value, Device):
            return REG_BINARY, encode_device(value)
    raise TypeError(f"element {element:08x} cannot hold {value!r}")


def _decode(element: int, data: bytes, what: str) -> ElementValue:
    match element_format(element):
        case Format.DEVICE:
            return decode_device(data, what)
        case Format.STRING:
            return _strings(data)[0]
        case Format.OBJECT:
            return _guids(data, what)[0]
        case Format.OBJECT_LIST:
            return _guids(data, what) if data.strip(b"\0") else []
        case Format.INTEGER:
            if not 0 < len(data) <= 8:
                raise FormatError(f"not an integer: data of length {len(data)}", what)
            return int.from_bytes(data, "little")
        case Format.BOOLEAN:
            if len(data) != 1:
                raise FormatError(f"not a boolean: data of length {len(data)}", what)
            return data != b"\0"
        case Format.INTEGER_LIST:
            return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    return data.hex()


def _text(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")


def _strings(data: bytes) -> list[str]:
    return data.decode("utf-16-le", "replace").rstrip("\0").split("\0")


def _guids(data: bytes, what: str) -> list[UUID]:
    guids = []
    for text in _strings(data):
        try:
            guids.append(_parse_guid(text))
        except ValueError:
            raise FormatError(f"{text!r} is not a GUID in braces", what) from None
    return guids
