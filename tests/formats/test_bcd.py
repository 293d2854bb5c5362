from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regipy.registry import RegistryHive

from cimfs_ext.regf import Hive
from cimlayer.errors import CorruptHiveError, FormatError, KeyNotFoundError
from cimlayer.formats.bcd import (
    BcdStore,
    BootDevice,
    CimfsDevice,
    CompositeDevice,
    Device,
    Element,
    GptPartition,
    MbrPartition,
    OtherDevice,
    RamDisk,
    VmbusDevice,
    decode_device,
    describe,
    encode_device,
    patch_for_cim,
)
from cimlayer.formats.bcd.store import BOOT_MANAGER, DEVICE_OPTIONS, ElementValue
from cimlayer.formats.disks import DiskIdentity, create_formatted_disk
from support.hives import corpus, dissect_tree
from support.platforms import same_everywhere

DISK = DiskIdentity(UUID("11111111-2222-4333-8444-555555555555"), UUID("66666666-7777-4888-9999-aaaaaaaaaaaa"))
DEFAULT = UUID("733b62e5-f608-11eb-825c-c112f60133ab")
CIMFS_OPTIONS = UUID("763e9fea-502d-434f-aad9-5fabe9c91a7b")
COMPOSITE_OPTIONS = UUID("e1787220-d17f-49e7-977a-d8fe4c8537e2")
SOME, OTHER = UUID(int=1 << 100 | 5), UUID(int=1 << 90 | 7)

guids = st.uuids(version=4)
devices: st.SearchStrategy[Device] = st.one_of(
    st.builds(BootDevice, options=guids),
    st.builds(GptPartition, guids, guids, options=guids),
    st.builds(MbrPartition, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), options=guids),
    st.builds(VmbusDevice, guids, guids, options=guids),
    st.builds(CompositeDevice, options=guids),
    st.builds(CimfsDevice, guids, options=guids),
    st.builds(RamDisk, st.builds(GptPartition, guids, guids), st.text(max_size=20), options=guids),
    st.builds(RamDisk, st.builds(BootDevice), st.text(max_size=20), options=guids),
)


def corpus_store() -> BcdStore:
    return BcdStore.open(corpus("BCD"), name="BCD")


def empty_store() -> BcdStore:
    hive = Hive.empty(0, name="the store")
    hive.create_key("Objects")
    return BcdStore(hive)


# Devices


@same_everywhere
@given(devices)
def test_devices_survive_encoding(device: Device) -> None:
    assert decode_device(encode_device(device)) == device


@given(device=devices, at=st.integers(16, 60), byte=st.integers(0, 255), tail=st.binary(max_size=9))
def test_whatever_is_decoded_encodes_to_the_same_bytes(device: Device, at: int, byte: int, tail: bytes) -> None:
    data = bytearray(encode_device(device) + tail)
    data[at % len(data)] = byte
    assert encode_device(decode_device(bytes(data))) == data


def test_partition_decodes_from_what_windows_wrote() -> None:
    written = bytes.fromhex(
        "00000000000000000000000000000000 06000000 00000000 48000000 00000000"
        "382c0f8eeae4ba47b7fc9d8c74dccf0b 0000000000000000"
        "a994230b5e097d488d48719ecd4d78ca 00000000000000000000000000000000"
    )
    partition = GptPartition(UUID("0b2394a9-095e-487d-8d48-719ecd4d78ca"), UUID("8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b"))
    assert decode_device(written) == partition
    assert encode_device(partition) == written


@pytest.mark.parametrize(
    ("device", "fields"),
    [
        (BootDevice(), {0x00: "05000000 00000000 48000000 00000000", 0x10: "00" * 0x38}),
        (
            MbrPartition(0xDEADBEEF, 0x100000),
            {
                0x00: "06000000 00000000 48000000",
                0x10: "0000100000000000",
                0x20: "00000000 01000000 efbeadde",
            },
        ),
        (
            VmbusDevice(SOME, OTHER),
            {0x00: "07000000 00000000 48000000", 0x10: SOME.bytes_le.hex(), 0x20: OTHER.bytes_le.hex()},
        ),
        (CompositeDevice(), {0x00: "0a000000 00000000 2c000000 00000000", 0x10: "00" * 0x1C}),
        (
            CimfsDevice(SOME),
            {
                0x00: "0b000000 00000000 30000000 00000000",
                0x10: "02000000 00000000 00000000 00000000",
                0x20: SOME.bytes_le.hex(),
            },
        ),
    ],
)
def test_devices_have_the_documented_layout(device: Device, fields: dict[int, str]) -> None:
    data = encode_device(device)
    assert data[:16] == bytes(16)
    (size,) = struct.unpack_from("<I", data, 16 + 8)
    assert size == len(data) - 16
    for offset, expected in fields.items():
        wanted = bytes.fromhex(expected)
        assert data[16 + offset : 16 + offset + len(wanted)] == wanted


def test_options_stand_before_the_device() -> None:
    assert encode_device(CompositeDevice(SOME))[:16] == SOME.bytes_le


@pytest.mark.parametrize(
    "device",
    [
        bytes.fromhex("03000000 00000000 10000000 00000000"),
        encode_device(CimfsDevice(SOME))[16:].replace(b"\2\0\0\0", b"\1\0\0\0"),
        encode_device(GptPartition(SOME, OTHER))[16:-1],
        encode_device(CompositeDevice())[16:] + b"child",
    ],
    ids=["a ramdisk", "another CimFS version", "cut short", "with more behind it"],
)
def test_a_device_in_another_form_stays_raw(device: bytes) -> None:
    assert decode_device(SOME.bytes_le + device) == OtherDevice(device, SOME)


# As Windows 10 set up its recovery environment: a file on a partition.
RAM_DISK = bytes.fromhex(
    "0000000001000000b800000000000000"
    "03000000000000000000000000000000000000000000000001000000900000000500000006000000000000004800000000000000"
    "69cddf6c75de90448f995a84bf2649170000000000000000a994230b5e097d488d48719ecd4d78ca"
    "00000000000000000000000000000000"
    "5c005200650063006f0076006500720079005c00570069006e0064006f0077007300520045005c00570069006e00720065002e"
    "00770069006d000000"
)


def test_ram_disk_is_decoded_and_shown() -> None:
    device = decode_device(SOME.bytes_le + RAM_DISK)
    partition = GptPartition(UUID("0b2394a9-095e-487d-8d48-719ecd4d78ca"), UUID("6cdfcd69-de75-4490-8f99-5a84bf264917"))
    assert device == RamDisk(partition, r"\Recovery\WindowsRE\Winre.wim", SOME)
    assert encode_device(device) == SOME.bytes_le + RAM_DISK
    assert str(device) == rf"ramdisk=[{partition}]\Recovery\WindowsRE\Winre.wim"


@pytest.mark.parametrize(
    ("at", "data"),
    [(4, b"\0"), (0x10, b"\4"), (0x30, b"\4"), (0x34, b"\0"), (0x3C, b"\xff\xff"), (0x3C, b"\0"), (0xB6, b"x")],
)
def test_a_ram_disk_in_another_form_stays_raw(at: int, data: bytes) -> None:
    changed = RAM_DISK[:at] + data + RAM_DISK[at + len(data) :]
    assert decode_device(SOME.bytes_le + changed) == OtherDevice(changed, SOME)
    for size in range(16, len(RAM_DISK)):
        assert encode_device(decode_device(SOME.bytes_le + RAM_DISK[:size])) == SOME.bytes_le + RAM_DISK[:size]


def test_ram_disk_on_a_device_without_a_class_here() -> None:
    other = OtherDevice(bytes.fromhex("03000000 00000000 14000000 00000000 01020304"))
    device = RamDisk(other, "\\file", SOME)
    assert decode_device(encode_device(device)) == device


@pytest.mark.parametrize("size", [0, 15, 31])
def test_too_few_bytes_for_a_device_are_an_error(size: int) -> None:
    with pytest.raises(FormatError, match=f"some element: {size} bytes are too few"):
        decode_device(bytes(size), "some element")


# Stores


def test_aliases_resolve_in_a_real_store() -> None:
    store = corpus_store()
    assert store.resolve("{bootmgr}") == BOOT_MANAGER
    assert store.resolve("{default}") == DEFAULT
    assert store.resolve(f"{{{DEFAULT}}}") == DEFAULT
    assert store.object_type(DEFAULT) == 0x10200003
    assert len(list(store)) == 17


def test_values_of_every_format_are_read_from_a_real_store() -> None:
    store = corpus_store()
    device = store.get(DEFAULT, Element.DEVICE)
    assert isinstance(device, GptPartition)
    assert device.partition_guid == UUID("8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b")
    assert store.get(DEFAULT, Element.PATH) == r"\Windows\system32\winload.efi"
    assert store.get(BOOT_MANAGER, Element.DEFAULT_OBJECT) == DEFAULT
    assert store.get(BOOT_MANAGER, 0x24000001) == [DEFAULT]
    assert store.get(BOOT_MANAGER, 0x25000004) == 30
    assert store.get(DEFAULT, 0x16000009) is True
    assert store.get(DEFAULT, 0x17000077) == [0x15000075]
    assert store.get(DEFAULT, Element.RESTART_ON_FAILURE) is None


@pytest.mark.parametrize(
    ("element", "value", "kind", "data"),
    [
        (0x12000004, "Größe", 1, "Größe\0".encode("utf-16-le")),
        (0x23000003, SOME, 1, f"{{{SOME}}}\0".encode("utf-16-le")),
        (0x24000001, [SOME, OTHER], 7, f"{{{SOME}}}\0{{{OTHER}}}\0\0".encode("utf-16-le")),
        (0x24000001, [], 7, b"\0\0"),
        (0x25000004, 30, 3, bytes([30, 0, 0, 0, 0, 0, 0, 0])),
        (0x26000005, True, 3, b"\1"),
        (0x26000005, False, 3, b"\0"),
        (0x17000077, [1, 2], 3, bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])),
        (0x11000001, BootDevice(), 3, encode_device(BootDevice())),
    ],
)
def test_elements_are_stored_as_their_format_asks(element: int, value: ElementValue, kind: int, data: bytes) -> None:
    store = empty_store()
    store.create_object(SOME, DEVICE_OPTIONS, "options")
    store.set(SOME, element, value)
    assert store.get(SOME, element) == value
    _, _, values = dissect_tree(store.to_bytes())[f"Objects\\{{{SOME}}}\\Elements\\{element:08x}"]
    assert values == {"Element": (kind, data)}


@pytest.mark.parametrize(
    ("element", "value"),
    [
        (0x11000001, "boot"),
        (0x12000004, 5),
        (0x23000003, "{default}"),
        (0x24000001, SOME),
        (0x25000004, True),
        (0x26000005, 1),
        (0x28000001, "no such format"),
    ],
)
def test_a_value_that_the_element_cannot_hold_is_an_error(element: int, value: ElementValue) -> None:
    store = empty_store()
    store.create_object(SOME, DEVICE_OPTIONS, "options")
    with pytest.raises(TypeError, match=f"{element:08x}"):
        store.set(SOME, element, value)


def test_a_created_object_replaces_what_was_there() -> None:
    store = corpus_store()
    store.create_object(DEFAULT, DEVICE_OPTIONS, "new")
    assert store.object_type(DEFAULT) == DEVICE_OPTIONS
    assert store.elements(DEFAULT) == [Element.DESCRIPTION]


def test_new_keys_take_their_security_from_the_parent() -> None:
    store = corpus_store()
    store.create_object(SOME, DEVICE_OPTIONS, "options")
    hive = Hive.open(store.to_bytes())
    objects = hive.key("Objects").security
    for key in hive.walk(f"Objects\\{{{SOME}}}"):
        assert key.security == objects


def without_default() -> BcdStore:
    store = empty_store()
    store.create_object(BOOT_MANAGER, 0x10100002, "Windows Boot Manager")
    return store


def with_dangling_default() -> BcdStore:
    store = without_default()
    store.set(BOOT_MANAGER, Element.DEFAULT_OBJECT, SOME)
    return store


@pytest.mark.parametrize(
    ("store", "error", "reason"),
    [
        (empty_store(), KeyNotFoundError, f"no object {{bootmgr}} ({{{BOOT_MANAGER}}})"),
        (without_default(), FormatError, "the boot manager names no default object"),
        (with_dangling_default(), KeyNotFoundError, f"no object {{default}} ({{{SOME}}})"),
    ],
)
def test_a_store_without_a_default_entry_is_an_error_and_stays_as_it_is(
    store: BcdStore, error: type[FormatError | KeyNotFoundError], reason: str
) -> None:
    before = store.to_bytes()
    with pytest.raises(error) as caught:
        patch_for_cim(store, r"cim-layers\7.cim", DISK)
    assert (caught.value.reason, caught.value.path) == (reason, "the store")
    assert store.to_bytes() == before


@pytest.mark.parametrize("text", ["default", "", "{}", "{no-guid}", str(SOME), f"{{{SOME}", "{globalsettings}"])
def test_an_alias_that_names_nothing_is_an_error(text: str) -> None:
    with pytest.raises((FormatError, KeyNotFoundError), match="the store"):
        empty_store().resolve(text)


@pytest.mark.parametrize(("data", "error"), [(b"", CorruptHiveError), (b"regf" * 4096, CorruptHiveError)])
def test_a_file_that_is_no_hive_is_an_error_that_names_it(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="layer 7: BCD"):
        BcdStore.open(data, name="layer 7: BCD")


def test_a_hive_that_is_no_store_is_an_error_that_names_it() -> None:
    with pytest.raises(FormatError, match="layer 7: BCD: not a boot configuration store"):
        BcdStore.open(corpus("EmptyHive"), name="layer 7: BCD")


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="BCD"):
        BcdStore.open(tmp_path / "BCD")


@pytest.mark.parametrize(
    ("element", "data"),
    [
        (0x11000001, b"short"),
        (0x23000003, b"x\0"),
        (0x25000004, b""),
        (0x25000004, bytes(9)),
        (0x26000005, b""),
    ],
)
def test_an_element_whose_data_is_not_of_its_format_is_an_error_that_names_it(element: int, data: bytes) -> None:
    store = corpus_store()
    store._hive.set_value(f"Objects\\{{{DEFAULT}}}\\Elements\\{element:08x}", "Element", 3, data)
    with pytest.raises(FormatError, match=f"{DEFAULT}.*{element:08x}"):
        store.get(DEFAULT, element)


@pytest.mark.parametrize("name", ["0x1200004", "1200_0004", "012000004", "description"])
def test_an_element_whose_name_is_not_a_number_is_an_error_that_names_it(name: str) -> None:
    store = corpus_store()
    store._hive.create_key(f"Objects\\{{{DEFAULT}}}\\Elements\\{name}", 0)
    with pytest.raises(FormatError, match=f"{DEFAULT}.*{name}"):
        store.elements(DEFAULT)


# Booting from a CIM


def patched() -> BcdStore:
    store = corpus_store()
    patch_for_cim(store, r"cim-layers\7.cim", DISK)
    return BcdStore.open(store.to_bytes())


def test_patched_store_boots_the_default_entry_from_the_cim() -> None:
    store = patched()
    system = CompositeDevice(COMPOSITE_OPTIONS)
    expected: dict[tuple[UUID, Element], ElementValue] = {
        (DEFAULT, Element.RESTART_ON_FAILURE): True,
        (DEFAULT, Element.DEVICE): system,
        (DEFAULT, Element.OS_DEVICE): system,
        (DEFAULT, Element.PATH): r"\UtilityVM\Files\Windows\System32\winload.efi",
        (DEFAULT, Element.SYSTEM_ROOT): r"\UtilityVM\Files\Windows",
        (CIMFS_OPTIONS, Element.DESCRIPTION): "CimFS Device Options",
        (CIMFS_OPTIONS, Element.CIMFS_ROOT_DIRECTORY): r"\cim-layers\7.cim",
        (CIMFS_OPTIONS, Element.CIMFS_PARENT_DEVICE): VmbusDevice(UUID("c63c9bdf-5fa5-4208-b03f-6b458b365592")),
        (COMPOSITE_OPTIONS, Element.DESCRIPTION): "Composite Device Options",
        (COMPOSITE_OPTIONS, Element.PRIMARY_DEVICE): GptPartition(DISK.disk_guid, DISK.partition_guid),
        (COMPOSITE_OPTIONS, Element.SECONDARY_DEVICE): CimfsDevice(
            UUID("b890454c-80de-4e98-a7ab-56b74b4fbd0c"), CIMFS_OPTIONS
        ),
    }
    assert {place: store.get(*place) for place in expected} == expected
    assert store.object_type(CIMFS_OPTIONS) == store.object_type(COMPOSITE_OPTIONS) == DEVICE_OPTIONS
    assert len(store.elements(CIMFS_OPTIONS)) == len(store.elements(COMPOSITE_OPTIONS)) == 3


def test_patching_changes_nothing_else() -> None:
    before, after = dissect_tree(corpus("BCD")), dissect_tree(patched().to_bytes())
    changed = {path for path, key in after.items() if before.get(path, ("", 0, {}))[2] != key[2]}
    ours = (str(CIMFS_OPTIONS), str(COMPOSITE_OPTIONS))
    elements = f"Objects\\{{{DEFAULT}}}\\Elements\\"
    assert {path for path in changed if not any(guid in path for guid in ours)} == {
        elements + number for number in ("11000001", "12000002", "16000053", "21000001", "22000002")
    }
    assert not set(before) - set(after)


def test_patching_twice_gives_the_same_bytes() -> None:
    once = patched()
    before = once.to_bytes()
    patch_for_cim(once, "/cim-layers/7.cim", DISK)
    assert once.to_bytes() == before


def test_device_elements_name_the_guids_that_the_disk_has(tmp_path: Path) -> None:
    from dissect.volume.disk import Disk

    from support.disks import MIB, opened

    path = tmp_path / "SystemTemplateBase.vhdx"
    store = corpus_store()
    patch_for_cim(store, r"cim-layers\7.cim", create_formatted_disk(path, 64 * MIB))
    primary = store.get(COMPOSITE_OPTIONS, Element.PRIMARY_DEVICE)
    assert isinstance(primary, GptPartition)
    with opened(path) as disk:
        assert Disk(disk).partitions[1].guid == primary.partition_guid
        disk.seek(512 + 56)
        assert UUID(bytes_le=disk.read(16)) == primary.disk_guid


def test_regipy_reads_the_patched_elements(tmp_path: Path) -> None:
    path = tmp_path / "BCD"
    path.write_bytes(patched().to_bytes())
    hive = RegistryHive(str(path))

    def element(identifier: UUID, number: str) -> object:
        return hive.get_key(f"\\Objects\\{{{identifier}}}\\Elements\\{number}").get_value("Element")

    device = element(DEFAULT, "21000001")
    assert isinstance(device, bytes | str)
    assert (bytes.fromhex(device) if isinstance(device, str) else device) == encode_device(
        CompositeDevice(COMPOSITE_OPTIONS)
    )
    assert element(DEFAULT, "22000002") == r"\UtilityVM\Files\Windows"
    assert element(CIMFS_OPTIONS, "32000011") == r"\cim-layers\7.cim"


# Text


def block(text: str, identifier: str) -> list[str]:
    """The lines of one object."""
    heading = f"identifier              {identifier}"
    return next(lines for part in text.split("\n\n") if heading in (lines := part.splitlines()))


def test_description_of_a_real_store_reads_as_that_of_bcdedit() -> None:
    text = describe(corpus_store())
    assert block(text, "{bootmgr}") == [
        "Windows Boot Manager",
        "--------------------",
        "identifier              {bootmgr}",
        "device                  partition={36be3955-63bf-4068-a6ab-00195cca3a22}"
        " on disk {0b2394a9-095e-487d-8d48-719ecd4d78ca}",
        "path                    \\EFI\\Microsoft\\Boot\\bootmgfw.efi",
        "description             Windows Boot Manager",
        "locale                  en-US",
        "inherit                 {globalsettings}",
        "default                 {default}",
        "resumeobject            {733b62e4-f608-11eb-825c-c112f60133ab}",
        "displayorder            {default}",
        "toolsdisplayorder       {memdiag}",
        "timeout                 30",
    ]
    assert block(text, "{globalsettings}")[3:] == [
        "inherit                 {dbgsettings}",
        "                        {emssettings}",
        "                        {badmemory}",
    ]
    assert "custom:46000010         Yes" in block(text, "{733b62e6-f608-11eb-825c-c112f60133ab}")
    assert "nx                      OptIn" in block(text, "{default}")
    assert text.count("identifier ") == 17


def test_description_shows_composite_and_cimfs_devices() -> None:
    text = describe(patched())
    assert f"osdevice                composite=0,{{{COMPOSITE_OPTIONS}}}" in block(text, "{default}")
    assert block(text, f"{{{CIMFS_OPTIONS}}}")[3:] == [
        "description             CimFS Device Options",
        "cimfsparentdevice       vmbus={c63c9bdf-5fa5-4208-b03f-6b458b365592}",
        "cimfsrootdirectory      \\cim-layers\\7.cim",
    ]
    assert f"secondarydevice         cimfs={{b890454c-80de-4e98-a7ab-56b74b4fbd0c}},{{{CIMFS_OPTIONS}}}" in block(
        text, f"{{{COMPOSITE_OPTIONS}}}"
    )


def test_description_names_an_element_that_is_an_empty_list() -> None:
    store = corpus_store()
    store.set(DEFAULT, 0x14000006, [])
    assert "inherit" in block(describe(store), "{default}")


def test_description_of_an_empty_store_is_empty() -> None:
    assert describe(empty_store()) == ""
