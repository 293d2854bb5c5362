"""The devices that a device element can name, and their bytes (docs/format.md, "Device elements").

An element is the GUID of an options object (zero: none) and then the device: type, flags, size and padding of
32 bits each, and what belongs to the type. The layouts of composite, CimFS and VMBus devices come from public
sources and have not been compared with what bcdedit writes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias
from uuid import UUID

from cimlayer.errors import FormatError

NO_GUID = UUID(int=0)

_GUID_SIZE = 16
_HEADER = struct.Struct("<IIII")
_HARD_DISK = 0
_GPT, _MBR = 0, 1
_CIMFS_VERSION = 2

_FILE_PATH = struct.Struct("<III")  # version, size with this header, kind of the path
_RAM_DISK = struct.Struct("<IQQIIII")  # kind of the local device, image's base, size and offset, the file's path
_RAM_DISK_KIND = 3
_RAM_DISK_FLAGS = 1
_DEVICE_AND_PATH = 5


@dataclass(frozen=True, slots=True)
class BootDevice:
    """The device that the firmware booted from."""

    TYPE: ClassVar[int] = 5
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return bytes(0x38)

    def __str__(self) -> str:
        return "boot"


@dataclass(frozen=True, slots=True)
class GptPartition:
    """A partition of a GPT disk."""

    TYPE: ClassVar[int] = 6
    disk_guid: UUID
    partition_guid: UUID
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return struct.pack("<16sII16s16x", self.partition_guid.bytes_le, _HARD_DISK, _GPT, self.disk_guid.bytes_le)

    def __str__(self) -> str:
        return f"partition={{{self.partition_guid}}} on disk {{{self.disk_guid}}}"


@dataclass(frozen=True, slots=True)
class MbrPartition:
    """A partition of an MBR disk, by its offset in bytes and the disk's signature."""

    TYPE: ClassVar[int] = 6
    disk_signature: int
    offset: int
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return struct.pack("<Q8xIII28x", self.offset, _HARD_DISK, _MBR, self.disk_signature)

    def __str__(self) -> str:
        return f"partition at {self.offset} on disk {self.disk_signature:08x}"


@dataclass(frozen=True, slots=True)
class VmbusDevice:
    """A device that the virtual machine's host offers over VMBus."""

    TYPE: ClassVar[int] = 7
    interface_type: UUID
    interface_instance: UUID = NO_GUID
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return struct.pack("<16s16s24x", self.interface_type.bytes_le, self.interface_instance.bytes_le)

    def __str__(self) -> str:
        return f"vmbus={{{self.interface_type}}}"


@dataclass(frozen=True, slots=True)
class CompositeDevice:
    """Two devices laid over each other; the options object names them."""

    TYPE: ClassVar[int] = 10
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return bytes(0x1C)

    def __str__(self) -> str:
        return "composite=0"


@dataclass(frozen=True, slots=True)
class CimfsDevice:
    """A CimFS image; the options object says where it is."""

    TYPE: ClassVar[int] = 11
    volume: UUID
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        return struct.pack("<IIII16s", _CIMFS_VERSION, 0, 0, 0, self.volume.bytes_le)

    def __str__(self) -> str:
        return f"cimfs={{{self.volume}}}"


@dataclass(frozen=True, slots=True)
class RamDisk:
    """A disk in memory whose content is a file, such as the image of the recovery environment.

    Source: ReactOS, boot/environ/include/bl.h (BL_LOCAL_DEVICE, BL_FILE_PATH_DESCRIPTOR); compared with what Windows
    10 wrote for its recovery environment.
    """

    TYPE: ClassVar[int] = 0  # a local device
    device: Device
    path: str
    options: UUID = NO_GUID

    def _body(self) -> bytes:
        file = _encode_plain(self.device) + f"{self.path}\0".encode("utf-16-le", "surrogatepass")
        return _RAM_DISK.pack(_RAM_DISK_KIND, 0, 0, 0, 1, _FILE_PATH.size + len(file), _DEVICE_AND_PATH) + file

    def __str__(self) -> str:
        return f"ramdisk=[{self.device}]{self.path}"


@dataclass(frozen=True, slots=True)
class OtherDevice:
    """A device of a type or in a form that has no class here; ``data`` is all of it, header included."""

    data: bytes
    options: UUID = NO_GUID

    def __str__(self) -> str:
        return f"type {int.from_bytes(self.data[:4], 'little')}: {self.data.hex()}"


Device: TypeAlias = (
    BootDevice | GptPartition | MbrPartition | VmbusDevice | CompositeDevice | CimfsDevice | RamDisk | OtherDevice
)


def encode_device(device: Device) -> bytes:
    """Return the bytes of a device element."""
    return device.options.bytes_le + _encode_plain(device)


def _encode_plain(device: Device) -> bytes:
    """The device without its options."""
    if isinstance(device, OtherDevice):
        return device.data
    body = device._body()
    flags = _RAM_DISK_FLAGS if isinstance(device, RamDisk) else 0
    return _HEADER.pack(device.TYPE, flags, _HEADER.size + len(body), 0) + body


def decode_device(data: bytes, what: str = "device element") -> Device:
    """Return the device that an element's bytes stand for: encoded again it gives the same bytes.

    ``FormatError``, naming ``what``, when they are too few for a device.
    """
    if len(data) < _GUID_SIZE + _HEADER.size:
        raise FormatError(f"{len(data)} bytes are too few for a device", what, len(data))
    options = UUID(bytes_le=data[:_GUID_SIZE])
    device = _known_device(data[_GUID_SIZE:], options)
    if device is None or encode_device(device) != data:
        return OtherDevice(data[_GUID_SIZE:], options)
    return device


def _known_device(device: bytes, options: UUID) -> Device | None:
    """Return the device by the fields that tell one from another; the caller sees whether the rest fits."""

    def guid(offset: int) -> UUID:
        return UUID(bytes_le=device[offset : offset + _GUID_SIZE].ljust(_GUID_SIZE, b"\0"))

    kind = device[0]
    if kind == BootDevice.TYPE:
        return BootDevice(options)
    if kind == GptPartition.TYPE and device[0x24:0x28] == struct.pack("<I", _GPT):
        return GptPartition(guid(0x28), guid(0x10), options)
    if kind == MbrPartition.TYPE:
        offset, signature = device[0x10:0x18], device[0x28:0x2C]
        return MbrPartition(int.from_bytes(signature, "little"), int.from_bytes(offset, "little"), options)
    if kind == VmbusDevice.TYPE:
        return VmbusDevice(guid(0x10), guid(0x20), options)
    if kind == CompositeDevice.TYPE:
        return CompositeDevice(options)
    if kind == CimfsDevice.TYPE:
        return CimfsDevice(guid(0x20), options)
    if kind == RamDisk.TYPE:
        return _ram_disk(device, options)
    return None


def _ram_disk(device: bytes, options: UUID) -> RamDisk | None:
    inner = device[_HEADER.size + _RAM_DISK.size :]
    if len(inner) < _HEADER.size:
        return None
    kind, _, size, _ = _HEADER.unpack_from(inner)
    if kind == RamDisk.TYPE or not _HEADER.size <= size <= len(inner):  # none lies on another one
        return None
    try:
        path = inner[size:].decode("utf-16-le", "surrogatepass").removesuffix("\0")
    except UnicodeDecodeError:
        return None
    below = _known_device(inner[:size], NO_GUID)
    if below is None or _encode_plain(below) != inner[:size]:
        below = OtherDevice(inner[:size])
    return RamDisk(below, path, options)
