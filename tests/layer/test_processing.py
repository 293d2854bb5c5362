"""What closing a layer makes of its utility VM, and scratch disks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer.errors import FormatError
from cimlayer.events import LayerDone, LayerWarning
from cimlayer.formats.bcd import (
    BcdStore,
    CimfsDevice,
    CompositeDevice,
    Element,
    GptPartition,
    VmbusDevice,
    decode_device,
)
from cimlayer.formats.bcd.store import BOOT_MANAGER
from cimlayer.formats.disks import gpt
from cimlayer.layer.standard import (
    HIVES,
    UTILITY_VM_BCD,
    UTILITY_VM_BOOT_MANAGER,
    UTILITY_VM_SOFTWARE,
    UTILITY_VM_SYSTEM,
)
from support import layers
from support.closedlayers import (
    add,
    add_and_hear,
    made_base,  # noqa: F401  fixtures
    root,  # noqa: F401
)
from support.disks import GIB, opened
from support.hives import dissect_tree
from support.layers import REG_SZ, TIME, image_of, snapshot
from support.platforms import same_everywhere
from support.shared import SHARED_LAYERS, needs_layers
from support.tars import TarBuilder
from support.utilityvms import add_utility_vm

DEFAULT = UUID("733b62e5-f608-11eb-825c-c112f60133ab")
CIMFS_OPTIONS = UUID("763e9fea-502d-434f-aad9-5fabe9c91a7b")
COMPOSITE_OPTIONS = UUID("e1787220-d17f-49e7-977a-d8fe4c8537e2")
CIM_VOLUME = UUID("b890454c-80de-4e98-a7ab-56b74b4fbd0c")

# ---- the utility VM ----


def software(build: str | None, kind: int = REG_SZ) -> bytes:
    hive = Hive.empty(TIME)
    hive.create_key(r"Microsoft\Windows NT\CurrentVersion", TIME)
    if build is not None:
        hive.set_value(r"Microsoft\Windows NT\CurrentVersion", "CurrentBuild", kind, f"{build}\0".encode("utf-16-le"))
    return hive.to_bytes()


def boot_store(default: bool = True) -> bytes:
    hive = Hive.empty(TIME, name="BCD")
    hive.create_key("Objects")
    store = BcdStore(hive)
    store.create_object(BOOT_MANAGER, 0x10100002, "Windows Boot Manager")
    store.create_object(DEFAULT, 0x10200003, "Windows")
    if default:
        store.set(BOOT_MANAGER, Element.DEFAULT_OBJECT, DEFAULT)
    return store.to_bytes()


def utility_vm_files(build: str | None = "26100") -> dict[str, bytes]:
    system = Hive.empty(TIME)
    system.create_key(r"ControlSet001\Services\wcifs", TIME)
    return {
        UTILITY_VM_SOFTWARE: software(build),
        UTILITY_VM_SYSTEM: system.to_bytes(),
        UTILITY_VM_BCD: boot_store(),
        UTILITY_VM_BOOT_MANAGER: b"MZ boot manager",
    }


def utility_vm_tar(files: dict[str, bytes]) -> TarBuilder:
    tar = TarBuilder()
    layers.add_base_hives(tar)
    tar.directory("UtilityVM")
    for path, data in files.items():
        tar.file(path.replace("\\", "/"), data)
    tar.hardlink("UtilityVM/Files/Windows/Boot/EFI/bootmgfw.efi", UTILITY_VM_BOOT_MANAGER.replace("\\", "/"))
    return tar


def guids_on(disk: Path) -> tuple[UUID, UUID]:
    """Disk GUID, and GUID of the basic data partition, as the disk's own GPT says."""
    with opened(disk) as file:
        header = file.seek(512) and file.read(512)
        assert header[:8] == b"EFI PART"
        disk_guid = UUID(bytes_le=header[56:72])
        file.seek(int.from_bytes(header[72:80], "little") * 512)
        entries = [file.read(128) for _ in range(4)]
    data_type = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7").bytes_le
    (partition,) = (entry for entry in entries if entry[:16] == data_type)
    return disk_guid, UUID(bytes_le=partition[16:32])


def check_processed(layer: Path, build: str) -> None:
    """Everything that hcsshim's process.go does for a layer that boots from its image."""
    assert (layer / "uvmbuildversion").read_bytes() == build.encode()
    image = image_of(layer)
    outside = {path: (layer / path.replace("\\", "/")).read_bytes() for path in (UTILITY_VM_BCD, UTILITY_VM_SYSTEM)}
    assert {path: image[path].data for path in outside} == outside

    disk, partition = guids_on(layer / "UtilityVM" / "SystemTemplateBase.vhdx")
    with opened(layer / "UtilityVM" / "SystemTemplate.vhdx") as template:
        assert template.size == 10 * GIB
        assert template.parent is not None
        template.seek(gpt.DATA_OFFSET)
        assert template.read(11)[3:] == b"NTFS    "

    tree = {path.upper(): values for path, (_, _, values) in dissect_tree(outside[UTILITY_VM_BCD]).items()}

    def element(guid: UUID, number: int) -> tuple[int, bytes]:
        return tree[rf"OBJECTS\{{{guid}}}\ELEMENTS\{number:08X}".upper()]["Element"]

    def text(guid: UUID, number: int) -> str:
        return element(guid, number)[1].decode("utf-16-le").rstrip("\0")

    default = UUID(text(BOOT_MANAGER, 0x23000003))
    for number in (0x11000001, 0x21000001):
        assert decode_device(element(default, number)[1]) == CompositeDevice(COMPOSITE_OPTIONS)
    assert element(default, 0x16000053)[1][0] == 1
    assert text(default, 0x12000002) == r"\UtilityVM\Files\Windows\System32\winload.efi"
    assert text(default, 0x22000002) == r"\UtilityVM\Files\Windows"
    assert decode_device(element(COMPOSITE_OPTIONS, 0x3100000E)[1]) == GptPartition(disk, partition)
    assert decode_device(element(COMPOSITE_OPTIONS, 0x3100000F)[1]) == CimfsDevice(CIM_VOLUME, CIMFS_OPTIONS)
    assert isinstance(decode_device(element(CIMFS_OPTIONS, 0x31000012)[1]), VmbusDevice)
    assert text(CIMFS_OPTIONS, 0x32000011) == rf"\cim-layers\{layer.name}.cim"

    values = {key.upper(): key_values for key, (_, _, key_values) in dissect_tree(outside[UTILITY_VM_SYSTEM]).items()}
    assert values[r"CONTROLSET001\CONTROL"]["BootContainerGuid"] == (1, f"{{{CIM_VOLUME}}}\0".encode("utf-16-le"))
    assert values[r"CONTROLSET001\SERVICES\UNIONFS"]["Start"] == (4, bytes(4))
    assert values[r"CONTROLSET001\SERVICES\WCIFS"]["Start"] == (4, bytes([4, 0, 0, 0]))
    assert values["SETUP"]["BootPathOverride"] == (1, "\\Windows\\\0".encode("utf-16-le"))


def check_left_alone(layer: Path, build: str, originals: dict[str, bytes]) -> None:
    assert (layer / "uvmbuildversion").read_bytes() == build.encode()
    assert not list((layer / "UtilityVM").glob("*.vhdx"))
    image = image_of(layer)
    for path, data in originals.items():
        assert (layer / path.replace("\\", "/")).read_bytes() == image[path].data == data


@pytest.mark.parametrize("build", ["20349", "26100"])
def test_newer_utility_vm_is_made_to_boot_from_the_image(tmp_path: Path, build: str) -> None:
    layer = add(tmp_path, utility_vm_tar(utility_vm_files(build)), "uvm")
    check_processed(layer, build)
    image = image_of(layer)
    link = image[r"UtilityVM\Files\Windows\Boot\EFI\bootmgfw.efi"]
    assert link.file_id == image[UTILITY_VM_BOOT_MANAGER].file_id
    assert link.data == b"MZ boot manager"


@pytest.mark.parametrize("build", ["17763", "20348"])
def test_older_utility_vm_is_only_noted(tmp_path: Path, build: str) -> None:
    files = utility_vm_files(build)
    check_left_alone(add(tmp_path, utility_vm_tar(files), "uvm"), build, files)


def without(path: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.pop(path) and None


def with_data(path: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({path: data})


@pytest.mark.parametrize(
    ("mode", "build", "result"),
    [
        ("auto", "26100", "processed"),
        ("process", "26100", "processed"),
        ("keep", "26100", "kept"),
        ("auto", "20348", "kept"),
        ("process", "20348", "kept"),
        ("keep", "20348", "kept"),
    ],
)
def test_the_caller_chooses_what_becomes_of_the_utility_vm(tmp_path: Path, mode: str, build: str, result: str) -> None:
    files = utility_vm_files(build)
    (done,) = add_and_hear(tmp_path, utility_vm_tar(files), "uvm", utility_vm=mode)
    assert isinstance(done, LayerDone)
    assert done.utility_vm == result
    if result == "processed":
        check_processed(tmp_path / "uvm", build)
        return
    assert (tmp_path / "uvm" / "uvmbuildversion").exists() == (mode != "keep")
    image = image_of(tmp_path / "uvm")
    assert {path: image[path].data for path in files} == files
    assert not list((tmp_path / "uvm" / "UtilityVM").glob("*.vhdx"))


def test_another_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="utility_vm is one of"):
        cimlayer.CimLayerWriter(tmp_path / "a", utility_vm="never")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


INCOMPLETE = {
    "no files": [],
    "BCD alone": [UTILITY_VM_BCD],
    "no boot manager": [UTILITY_VM_BCD, UTILITY_VM_SOFTWARE, UTILITY_VM_SYSTEM],
    "hives alone": [UTILITY_VM_SOFTWARE, UTILITY_VM_SYSTEM],
}


@pytest.mark.parametrize("with_directory", [False, True])
@pytest.mark.parametrize("in_child", [False, True])
@pytest.mark.parametrize("case", INCOMPLETE)
def test_incomplete_utility_vm_is_kept_as_it_is(root: Path, case: str, in_child: bool, with_directory: bool) -> None:
    files = {path: data for path, data in utility_vm_files().items() if path in INCOMPLETE[case]}
    tar = TarBuilder()
    if not in_child:
        layers.add_base_hives(tar)
    if with_directory:
        tar.directory("UtilityVM")
    tar.file("UtilityVM/Files/other", b"other")
    for path, data in files.items():
        tar.file(path.replace("\\", "/"), data)
    (done,) = add_and_hear(root, tar, "uvm", ["base"] if in_child else [])
    assert isinstance(done, LayerDone)
    assert done.utility_vm == "kept"
    image = image_of(root / "uvm")
    assert image[r"UtilityVM\Files\other"].data == b"other"
    assert {path: image[path].data for path in files} == files
    assert not (root / "uvm" / "uvmbuildversion").exists()
    assert not list((root / "uvm").glob("UtilityVM/*.vhdx"))


def test_complete_utility_vm_of_a_child_is_processed(root: Path) -> None:
    tar = TarBuilder()
    add_utility_vm(tar)
    (done,) = add_and_hear(root, tar, "child", ["base"])
    assert isinstance(done, LayerDone)
    assert done.utility_vm == "processed"
    assert (root / "child" / "UtilityVM" / "SystemTemplate.vhdx").exists()


@pytest.mark.parametrize("data", [b"MZ", b"", software(None), software("11x"), software("9" * 5000)])
def test_utility_vm_whose_build_cannot_be_told_is_kept_with_an_event(tmp_path: Path, data: bytes) -> None:
    files = utility_vm_files() | {UTILITY_VM_SOFTWARE: data}
    warned, done = add_and_hear(tmp_path, utility_vm_tar(files), "uvm")
    assert isinstance(warned, LayerWarning)
    assert "the utility VM is kept as it is" in warned.text
    assert UTILITY_VM_SOFTWARE in warned.text
    assert isinstance(done, LayerDone)
    assert done.utility_vm == "kept"
    image = image_of(tmp_path / "uvm")
    assert {path: image[path].data for path in files} == files


BAD: dict[str, tuple[Callable[[dict[str, bytes]], None], str, str]] = {
    "no BCD": (without(UTILITY_VM_BCD), UTILITY_VM_BCD, ""),
    "no SOFTWARE": (without(UTILITY_VM_SOFTWARE), UTILITY_VM_SOFTWARE, ""),
    "no SYSTEM": (without(UTILITY_VM_SYSTEM), UTILITY_VM_SYSTEM, ""),
    "BCD without default": (with_data(UTILITY_VM_BCD, boot_store(default=False)), UTILITY_VM_BCD, "default"),
    "BCD that is no hive": (with_data(UTILITY_VM_BCD, b"MZ"), UTILITY_VM_BCD, ""),
    "SYSTEM that is no hive": (with_data(UTILITY_VM_SYSTEM, b"MZ"), UTILITY_VM_SYSTEM, ""),
    "no build": (with_data(UTILITY_VM_SOFTWARE, software(None)), UTILITY_VM_SOFTWARE, "CurrentBuild"),
    "no files at all": (dict.clear, UTILITY_VM_SOFTWARE, "without"),
    "a build of many digits": (with_data(UTILITY_VM_SOFTWARE, software("9" * 5000)), UTILITY_VM_SOFTWARE, "number"),
    "a build that is no number": (with_data(UTILITY_VM_SOFTWARE, software("11x")), UTILITY_VM_SOFTWARE, "number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_utility_vm_is_an_error_that_names_layer_and_file_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    change, path, reason = BAD[case]
    files = utility_vm_files()
    change(files)
    tar = utility_vm_tar(files)
    with pytest.raises(FormatError) as caught:
        add(tmp_path, tar, "some-layer", utility_vm="process")
    message = str(caught.value)
    assert "some-layer" in message
    assert path in message
    assert re.search(reason, message)
    assert list(tmp_path.iterdir()) == []


# ---- scratch disks ----


def test_scratch_disks_of_a_base_layer_can_be_left_out(tmp_path: Path) -> None:
    tar = TarBuilder()
    layers.add_base_hives(tar)
    add(tmp_path, tar, "base", scratch_disks=False)
    assert not list(tmp_path.glob("**/*.vhdx"))
    assert (tmp_path / "base" / "layout").exists()


# ---- the corpus ----


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    chain: list[Path] = []
    for name in ("base", "child", "grandchild", "greatgrandchild"):
        cimlayer.import_layer(SHARED_LAYERS / f"{name}.tar.gz", root / name, chain, sync=False)
        chain.insert(0, root / name)
    for name in ("uvm-base", "uvm-2022"):
        cimlayer.import_layer(SHARED_LAYERS / f"{name}.tar.gz", root / name, sync=False)
    return root


@needs_layers
@same_everywhere
def test_real_utility_vms_are_processed_by_their_build(corpus: Path) -> None:
    check_processed(corpus / "uvm-base", "26100")
    assert (corpus / "uvm-2022" / "uvmbuildversion").read_bytes() == b"20348"
    assert not list((corpus / "uvm-2022" / "UtilityVM").glob("*.vhdx"))


@needs_layers
@pytest.mark.parametrize("name", ["child", "grandchild", "greatgrandchild"])
def test_real_chain_has_its_merged_hives_in_the_directory_and_in_the_image(corpus: Path, name: str) -> None:
    image = image_of(corpus / name)
    compared = 0
    for hive in HIVES:
        path = corpus / name / hive.base_path.replace("\\", "/")
        if path.exists():
            assert image[hive.base_path].data == path.read_bytes()
            compared += 1
        delta = any(entry.upper() == hive.delta_path.upper() for entry in snapshot(corpus / name))
        assert path.exists() or not delta
    assert compared or name == "grandchild"
