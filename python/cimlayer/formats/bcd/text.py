"""A store as text, in the manner of ``bcdedit /enum all``."""

from __future__ import annotations

from uuid import UUID

from cimlayer.formats.bcd.devices import NO_GUID, Device
from cimlayer.formats.bcd.store import BOOT_MANAGER, BcdStore, Element, ElementValue

_NAME_WIDTH = 24

_ALIASES = {
    BOOT_MANAGER: "bootmgr",
    UUID("a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba"): "fwbootmgr",
    UUID("b2721d73-1db4-4c62-bf78-c548a880142d"): "memdiag",
    UUID("466f5a88-0af2-4f76-9038-095b170dc21c"): "ntldr",
    UUID("7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e"): "globalsettings",
    UUID("6efb52bf-1766-41db-a6b3-0ee5eff72bd7"): "bootloadersettings",
    UUID("1afa9c49-16ab-4a5c-901b-212802da9460"): "resumeloadersettings",
    UUID("4636856e-540f-4170-a130-a84776f4c654"): "dbgsettings",
    UUID("0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9"): "emssettings",
    UUID("5189b25c-5558-4bf2-bca4-289b11bd29e2"): "badmemory",
    UUID("7ff607e0-4395-11db-b0de-0800200c9a66"): "hypervisorsettings",
    UUID("ae5534e0-a924-466c-b836-758539a3ee3a"): "ramdiskoptions",
}

_SETTINGS_TITLES = {
    "emssettings": "EMS Settings",
    "dbgsettings": "Debugger Settings",
    "badmemory": "RAM Defects",
    "hypervisorsettings": "Hypervisor Settings",
}

_TITLES = {
    0x10100001: "Firmware Boot Manager",
    0x10100002: "Windows Boot Manager",
    0x10200003: "Windows Boot Loader",
    0x10200004: "Resume from Hibernate",
    0x10200005: "Windows Memory Tester",
    0x10300006: "Windows Legacy OS Loader",
    0x101FFFFF: "Firmware Application (101fffff)",
    0x20100000: "Global Settings",
    0x20200003: "Boot Loader Settings",
    0x20200004: "Resume Loader Settings",
    0x30000000: "Device options",
}

_NAMES = {
    0x11000001: "device",
    0x12000002: "path",
    0x12000004: "description",
    0x12000005: "locale",
    0x14000006: "inherit",
    0x15000007: "truncatememory",
    0x14000008: "recoverysequence",
    0x16000009: "recoveryenabled",
    0x1700000A: "badmemorylist",
    0x1600000B: "badmemoryaccess",
    0x16000010: "bootdebug",
    0x15000011: "debugtype",
    0x15000013: "debugport",
    0x15000014: "baudrate",
    0x16000020: "bootems",
    0x12000030: "loadoptions",
    0x16000040: "advancedoptions",
    0x16000041: "optionsedit",
    0x16000048: "nointegritychecks",
    0x16000049: "testsigning",
    0x16000053: "restartonfailure",
    0x16000054: "highestmode",
    0x16000060: "isolatedcontext",
    0x15000065: "displaymessage",
    0x15000066: "displaymessageoverride",
    0x17000077: "allowedinmemorysettings",
    0x31000003: "ramdisksdidevice",
    0x32000004: "ramdisksdipath",
    0x3100000E: "primarydevice",
    0x3100000F: "secondarydevice",
    0x32000011: "cimfsrootdirectory",
    0x31000012: "cimfsparentdevice",
}

# An application's own elements mean something else in each application: the low bits of the object's type.
_FIRMWARE, _BOOT_MANAGER, _LOADER, _RESUME = 1, 2, 3, 4
_APPLICATION_NAMES = {
    (_FIRMWARE, 0x24000001): "displayorder",
    (_FIRMWARE, 0x24000002): "bootsequence",
    (_FIRMWARE, 0x25000004): "timeout",
    (_BOOT_MANAGER, 0x24000001): "displayorder",
    (_BOOT_MANAGER, 0x24000002): "bootsequence",
    (_BOOT_MANAGER, 0x23000003): "default",
    (_BOOT_MANAGER, 0x25000004): "timeout",
    (_BOOT_MANAGER, 0x26000005): "resume",
    (_BOOT_MANAGER, 0x23000006): "resumeobject",
    (_BOOT_MANAGER, 0x24000010): "toolsdisplayorder",
    (_BOOT_MANAGER, 0x26000020): "displaybootmenu",
    (_LOADER, 0x21000001): "osdevice",
    (_LOADER, 0x22000002): "systemroot",
    (_LOADER, 0x23000003): "resumeobject",
    (_LOADER, 0x26000010): "detecthal",
    (_LOADER, 0x22000011): "kernel",
    (_LOADER, 0x22000012): "hal",
    (_LOADER, 0x25000020): "nx",
    (_LOADER, 0x25000021): "pae",
    (_LOADER, 0x26000022): "winpe",
    (_LOADER, 0x260000A0): "debug",
    (_LOADER, 0x260000B0): "ems",
    (_LOADER, 0x250000C2): "bootmenupolicy",
    (_LOADER, 0x250000E0): "bootstatuspolicy",
    (_LOADER, 0x250000F0): "hypervisorlaunchtype",
    (_LOADER, 0x250000F3): "hypervisordebugtype",
    (_LOADER, 0x250000F4): "hypervisordebugport",
    (_LOADER, 0x250000F5): "hypervisorbaudrate",
    (_RESUME, 0x21000001): "filedevice",
    (_RESUME, 0x22000002): "filepath",
    (_RESUME, 0x25000008): "bootmenupolicy",
    (_RESUME, 0x26000006): "debugoptionenabled",
}

_DEBUG_TRANSPORTS = ("Serial", "1394", "USB", "NET", "Local")
_CHOICES = {
    "nx": ("OptIn", "OptOut", "AlwaysOff", "AlwaysOn"),
    "bootmenupolicy": ("Legacy", "Standard"),
    "debugtype": _DEBUG_TRANSPORTS,
    "displaymessage": ("Default", "Resume", "HyperV", "Recovery"),
    "displaymessageoverride": ("Default", "Resume", "HyperV", "Recovery"),
}


def describe(store: BcdStore) -> str:
    """Return every object of ``store`` with its elements by name, devices decoded, one element a line.

    Elements without a name here appear as ``custom:`` and their number, as bcdedit has it.
    ``FormatError`` when an element's data is not of its format.
    """
    default = _default(store)
    objects = sorted(store, key=lambda identifier: (store.object_type(identifier), identifier.hex))
    return "\n".join(_describe_object(store, identifier, default) for identifier in objects)


def _default(store: BcdStore) -> UUID | None:
    if BOOT_MANAGER not in store:
        return None
    default = store.get(BOOT_MANAGER, Element.DEFAULT_OBJECT)
    return default if isinstance(default, UUID) else None


def _describe_object(store: BcdStore, identifier: UUID, default: UUID | None) -> str:
    kind = store.object_type(identifier)
    title = _SETTINGS_TITLES.get(_ALIASES.get(identifier, "")) or _TITLES.get(kind, f"Type {kind:08x}")
    lines = [title, "-" * len(title), f"{'identifier':<{_NAME_WIDTH}}{_alias(identifier, default)}"]
    for element in store.elements(identifier):
        value = store.get(identifier, element)
        if value is None:
            continue
        name = _name(kind, element)
        for line in _value_lines(name, value, default):
            lines.append(f"{name:<{_NAME_WIDTH}}{line}".rstrip())
            name = ""
    return "\n".join(lines) + "\n"


def _name(kind: int, element: int) -> str:
    own = _APPLICATION_NAMES.get((kind & 0xFFFFF, element))
    return own or _NAMES.get(element) or f"custom:{element:08x}"


def _alias(identifier: UUID, default: UUID | None) -> str:
    if identifier == default:
        return "{default}"
    return f"{{{_ALIASES.get(identifier, identifier)}}}"


def _value_lines(name: str, value: ElementValue, default: UUID | None) -> list[str]:
    match value:
        case bool():
            return ["Yes" if value else "No"]
        case str():
            return [value]
        case int():
            choices = _CHOICES.get(name, ())
            return [choices[value] if value < len(choices) else str(value)]
        case UUID():
            return [_alias(value, default)]
        case list():
            return [_alias(item, default) if isinstance(item, UUID) else f"0x{item:x}" for item in value] or [""]
        case _:
            return [_device_text(value, default)]


def _device_text(device: Device, default: UUID | None) -> str:
    if device.options == NO_GUID:
        return str(device)
    return f"{device},{_alias(device.options, default)}"
