"""Block images, their layers and mounting, on a library that records its calls; features by build; native paths."""

import os
from pathlib import Path
from uuid import UUID

import pytest

from cimfs_ext.implementation import Implementation, load
from cimlayer.errors import FormatError, ImageError, UnsupportedCallError
from cimlayer.formats.fileinfo import FileBasicInfo, creation_time
from cimlayer.host.paths import native_path
from cimlayer.image.block import (
    BlockImage,
    BlockKind,
    create_block_image,
    merge_block_images,
    seal_image,
    verification_information,
)
from cimlayer.image.features import (
    WindowsSystem,
    is_block_cim_supported,
    is_cimfs_supported,
    is_merged_cim_supported,
    is_verified_cim_supported,
)
from cimlayer.image.mount import (
    MountFlags,
    dismount_image,
    mount_image,
    mount_merged_image,
    mount_volume,
    volume_of,
    volume_path,
)
from cimlayer.layer.blockwriter import BlockCimLayerWriter
from support.libraries import Recorder, build_recording, needs_dlopen, wide
from support.platforms import posix_only

VOLUME = UUID("01234567-89ab-cdef-fedc-ba9876543210")
ROOT_HASH = bytes(range(0xA0, 0xC0))
FILE = FileBasicInfo(1, 2, 3, 4, 0x20)
FOLDER = FileBasicInfo(1, 2, 3, 4, 0x10)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Implementation:
    return load(str(build_recording(tmp_path_factory.mktemp("library") / "recording.so")))


def names(calls: Recorder) -> list[object]:
    return [call["call"] for call in calls()]


# ---- block images ----


@needs_dlopen
@pytest.mark.parametrize(
    ("kind", "verified", "flags"),
    [
        (BlockKind.SINGLE_FILE, False, 0x18),
        (BlockKind.SINGLE_FILE, True, 0x58),
        (BlockKind.DEVICE, False, 0x14),
        (BlockKind.DEVICE, True, 0x54),
    ],
)
def test_block_image_is_created_consistent_and_of_its_kind(
    recording: Implementation, calls: Recorder, kind: BlockKind, verified: bool, flags: int
) -> None:
    create_block_image(BlockImage("/b/file", "a.cim", kind), verified=verified, implementation=recording).close()
    assert calls()[0] == {
        "call": "CimCreateImage2",
        "path": wide("/b/file"),
        "flags": flags,
        "existing": None,
        "new": wide("a.cim"),
    }


@needs_dlopen
def test_merging_adds_the_sources_in_their_order_and_seals(recording: Implementation, calls: Recorder) -> None:
    top, base = BlockImage("/b/2", "top.cim"), BlockImage("/b/1", "base.cim")
    merge_block_images(BlockImage("/b/m", "m.cim"), [top, base], verified=True, implementation=recording)
    assert calls()[0]["flags"] == 0x58
    assert [(call["path"], call["flags"]) for call in calls()[1:3]] == [
        (wide("/b/2\\top.cim"), 5),
        (wide("/b/1\\base.cim"), 5),
    ]
    assert names(calls)[3:] == ["CimCommitImage", "CimCloseImage", "CimSealImage"]


@needs_dlopen
def test_failed_merge_is_not_committed(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimAddFsToMergedImage2=0x80070002")
    sources = [BlockImage("/b/2", "2.cim"), BlockImage("/b/1", "1.cim")]
    with pytest.raises(ImageError):
        merge_block_images(BlockImage("/b/m", "m.cim"), sources, implementation=recording)
    assert names(calls) == ["CimCreateImage2", "CimAddFsToMergedImage2", "CimCloseImage"]


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [BlockImage("/b/1", "1.cim")],
        [BlockImage("/b/1", "1.cim"), BlockImage("/b/2", "2.cim", BlockKind.DEVICE)],
    ],
)
def test_merging_needs_two_sources_of_one_kind(sources: list[BlockImage]) -> None:
    with pytest.raises(ValueError, match=r"at least two sources|is on a device"):
        merge_block_images(BlockImage("/b/m", "m.cim"), sources)


@needs_dlopen
def test_seal_and_verification_information(recording: Implementation, calls: Recorder) -> None:
    assert seal_image("/b/file", implementation=recording) == ROOT_HASH
    found = verification_information("/b/file", implementation=recording)
    assert (found.sealed, found.root_hash, found.signature_size, found.fixed_header_size) == (
        True,
        ROOT_HASH,
        77,
        8192,
    )


def test_portable_implementation_makes_no_block_images(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCallError, match="27766"):
        create_block_image(BlockImage(tmp_path / "file", "a.cim"), implementation="portable")


# ---- mounting ----


@needs_dlopen
def test_image_is_mounted_for_the_length_of_the_block(recording: Implementation, calls: Recorder) -> None:
    with mount_image("/layers/cim-layers/1.cim", flags=MountFlags.ENABLE_DAX, implementation=recording) as path:
        (mounted,) = calls()
        assert path == rf"\\?\Volume{{{mounted['volume']}}}" + "\\"
    assert mounted["path"] == wide("/layers/cim-layers")
    assert mounted["name"] == wide("1.cim")
    assert mounted["flags"] == 2
    assert calls()[1:] == [{"call": "CimDismountImage", "volume": mounted["volume"]}]


@needs_dlopen
def test_mounted_volume_stays_until_it_is_dismounted(recording: Implementation, calls: Recorder) -> None:
    volume = mount_volume("/layers/cim-layers/1.cim", implementation=recording)
    assert names(calls) == ["CimMountImage"]
    dismount_image(volume_of(volume_path(volume)), implementation=recording)
    assert calls()[1] == {"call": "CimDismountImage", "volume": str(volume)}


@pytest.mark.parametrize("text", [volume_path(VOLUME), volume_path(VOLUME)[:-1], f"{{{VOLUME}}}", str(VOLUME).upper()])
def test_volumes_are_known_by_their_paths(text: str) -> None:
    assert volume_of(text) == VOLUME


@pytest.mark.parametrize("text", ["", "mnt", "C:\\", volume_path(VOLUME) + "x", r"\\?\Volume{01234567}"])
def test_other_paths_are_of_no_volume(text: str) -> None:
    with pytest.raises(ValueError, match="not the path of a volume"):
        volume_of(text)


@needs_dlopen
def test_block_images_are_mounted_with_their_kind_and_hash(recording: Implementation, calls: Recorder) -> None:
    file, device = BlockImage("/b/file", "a.cim"), BlockImage("/b/device", "b.cim", BlockKind.DEVICE)
    with mount_image(file, implementation=recording), mount_image(device, implementation=recording):
        pass
    with mount_image(file, root_hash=ROOT_HASH, volume=VOLUME, implementation=recording) as path:
        assert path == volume_path(VOLUME)
    assert [(call["call"], call["flags"]) for call in calls() if "flags" in call] == [
        ("CimMountImage", 0x20),
        ("CimMountImage", 0x10),
        ("CimMountVerifiedImage", 0x20),
    ]
    assert calls()[4]["hash"] == ROOT_HASH.hex()


@needs_dlopen
@pytest.mark.parametrize("root_hash", [None, ROOT_HASH])
def test_merged_image_is_mounted_with_its_sources(
    recording: Implementation, calls: Recorder, root_hash: bytes | None
) -> None:
    merged, *sources = (BlockImage(f"/b/{name}", f"{name}.cim") for name in ("m", "2", "1"))
    with mount_merged_image(merged, sources, root_hash=root_hash, volume=VOLUME, implementation=recording):
        pass
    mounted = calls()[0]
    assert mounted["call"] == ("CimMergeMountVerifiedImage" if root_hash else "CimMergeMountImage")
    assert [mounted[f"name{i}"] for i in range(3)] == [wide("m.cim"), wide("2.cim"), wide("1.cim")]
    assert mounted["flags"] == 0x20
    assert names(calls)[1:] == ["CimDismountImage"]


@needs_dlopen
def test_failed_mount_is_not_dismounted(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimMountImage=0x80070005")
    with pytest.raises(PermissionError), mount_image("/d/a.cim", implementation=recording):
        pytest.fail("the block was entered")
    assert names(calls) == ["CimMountImage"]


@needs_dlopen
def test_exception_in_the_block_is_what_is_raised(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimDismountImage=0x80070005")
    with pytest.raises(KeyError), mount_image("/d/a.cim", implementation=recording):
        raise KeyError
    assert names(calls) == ["CimMountImage", "CimDismountImage"]
    with pytest.raises(PermissionError), mount_image("/d/a.cim", implementation=recording):
        pass
    with pytest.raises(PermissionError):
        dismount_image(VOLUME, implementation=recording)


def test_root_hash_is_for_block_images_and_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="only a block image"), mount_image("/d/a.cim", root_hash=ROOT_HASH):
        pass
    with pytest.raises(ValueError, match="32 bytes, not 31"), mount_image(BlockImage("/b", "a"), root_hash=bytes(31)):
        pass


def test_portable_implementation_mounts_nothing() -> None:
    with pytest.raises(UnsupportedCallError, match="CimMountImage"), mount_image("/d/a.cim", implementation="portable"):
        pass


# ---- layers ----


@pytest.fixture
def child(tmp_path: Path, recording: Implementation, calls: Recorder) -> BlockCimLayerWriter:
    parent = BlockImage(tmp_path / "1" / "block", "layer.cim")
    return BlockCimLayerWriter(
        BlockImage(tmp_path / "2" / "block", "layer.cim"), [parent], sync=False, implementation=recording
    )


def item(call: dict[str, object]) -> tuple[object, ...]:
    """A call with its paths as text."""
    paths = [call[key] for key in ("path", "new", "existing") if key in call]
    return (call["call"], *(bytes.fromhex(str(path)).decode("utf-16-le") if path else None for path in paths))


@needs_dlopen
def test_removal_is_a_tombstone_and_a_link_across_layers_a_merge_link(
    tmp_path: Path, child: BlockCimLayerWriter, calls: Recorder
) -> None:
    with child:
        child.add_link("early", "Later")  # its target comes behind it
        child.add("later", FILE, 0)
        child.add_link("second", "EARLY")
        child.add_link("across", "parent's")
        child.remove("gone")
    assert [item(call) for call in calls()] == [
        ("CimCreateImage2", str(tmp_path / "2" / "block"), "layer.cim", None),
        ("CimCreateFile", "later"),
        ("CimCloseStream",),
        ("CimTombstoneFile", "gone"),
        ("CimCreateHardLink", "early", "Later"),
        ("CimCreateHardLink", "second", "EARLY"),
        ("CimCreateMergeLink", "across", "parent's"),
        ("CimCommitImage",),
        ("CimCloseImage",),
    ]


@needs_dlopen
def test_file_and_link_take_the_place_of_a_link_of_their_name(child: BlockCimLayerWriter, calls: Recorder) -> None:
    with child:
        child.add_link("file", "parent's")
        child.add_link("link", "parent's")
        child.add("FILE", FILE, 0)
        child.add_link("other", "parent's")
        child.add_link("Link", "other")
    assert [item(call) for call in calls()][1:-2] == [
        ("CimCreateFile", "FILE"),
        ("CimCloseStream",),
        ("CimCreateMergeLink", "other", "parent's"),
        ("CimCreateMergeLink", "Link", "other"),
    ]


@needs_dlopen
def test_verified_layer_is_sealed_after_its_image_is_closed(
    tmp_path: Path, recording: Implementation, calls: Recorder
) -> None:
    image, parent = BlockImage(tmp_path / "2" / "block", "a.cim"), BlockImage(tmp_path / "1" / "block", "a.cim")
    with BlockCimLayerWriter(image, [parent], verified=True, sync=False, implementation=recording) as writer:
        assert writer.root_hash == b""
    assert names(calls) == ["CimCreateImage2", "CimCommitImage", "CimCloseImage", "CimSealImage"]
    assert calls()[0]["flags"] == 0x58
    assert writer.root_hash == ROOT_HASH


@needs_dlopen
def test_layer_that_cannot_be_sealed_stays_committed(
    tmp_path: Path, recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimSealImage=0x80070005")
    image, parent = BlockImage(tmp_path / "2" / "block", "a.cim"), BlockImage(tmp_path / "1" / "block", "a.cim")
    writer = BlockCimLayerWriter(image, [parent], verified=True, sync=False, implementation=recording)
    (tmp_path / "2" / "block").touch()  # as the system's library would
    with pytest.raises(PermissionError):
        writer.close()
    assert os.listdir(tmp_path / "2") == ["block"]


@needs_dlopen
def test_failed_block_layer_leaves_nothing(
    tmp_path: Path, child: BlockCimLayerWriter, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimTombstoneFile=0x80070070")
    (tmp_path / "2" / "block").touch()  # as the system's library would
    with pytest.raises(ImageError), child:
        child.remove("gone")
    assert sorted(os.listdir(tmp_path)) == ["record.json"]
    assert "CimCommitImage" not in names(calls)


@needs_dlopen
def test_block_file_that_was_there_before_stays_when_a_layer_fails(
    tmp_path: Path, recording: Implementation, calls: Recorder
) -> None:
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "block").touch()
    writer = BlockCimLayerWriter(BlockImage(tmp_path / "2" / "block", "b.cim"), implementation=recording)
    writer.abandon()
    assert os.listdir(tmp_path / "2") == ["block"]


@needs_dlopen
@pytest.mark.parametrize("name", ["UtilityVM", r"utilityvm\Files"])
def test_utility_vm_in_a_child_block_layer_is_kept(child: BlockCimLayerWriter, calls: Recorder, name: str) -> None:
    with child:
        child.add(name, FOLDER, 0)
    assert ("CimCreateFile", name) in map(item, calls())
    assert child.utility_vm == "kept"


@needs_dlopen
def test_delta_without_a_hive_in_any_parent_is_an_error(child: BlockCimLayerWriter) -> None:
    with pytest.raises(FormatError, match="no ancestor has"), child:
        child.add(r"Hives\System_Delta", FILE, 0)


def test_layer_on_a_block_device_is_refused(tmp_path: Path) -> None:
    device = BlockImage(tmp_path / "device", "a.cim", BlockKind.DEVICE)
    file = BlockImage(tmp_path / "file", "a.cim")
    for arguments in ((device,), (file, [device])):
        with pytest.raises(ValueError, match="not on a device"):
            BlockCimLayerWriter(*arguments, implementation="portable")


def test_block_layer_without_the_system_library_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCallError, match="CimCreateImage2"):
        BlockCimLayerWriter(BlockImage(tmp_path / "1" / "block", "a.cim"), implementation="portable")
    assert os.listdir(tmp_path) == []


# ---- features ----


@pytest.mark.parametrize(
    ("build", "revision", "expected"),
    [
        (19041, 9999, (False, False, False, False)),
        (20348, 2030, (False, False, False, False)),
        (20348, 2031, (True, False, False, False)),
        (22631, 9999, (False, False, False, False)),
        (25398, 9999, (False, False, False, False)),
        (26100, 0, (True, False, False, False)),
        (27765, 0, (True, False, False, False)),
        (27766, 0, (True, True, True, False)),
        (27799, 0, (True, True, True, False)),
        (27800, 0, (True, True, True, True)),
    ],
)
def test_features_follow_the_build(build: int, revision: int, expected: tuple[bool, ...]) -> None:
    queries = (is_cimfs_supported, is_block_cim_supported, is_merged_cim_supported, is_verified_cim_supported)
    assert tuple(query(WindowsSystem(build, revision)) for query in queries) == expected
    assert not any(query(WindowsSystem(build, revision, has_cimfs=False)) for query in queries)


def test_writer_library_brings_writing_but_no_mounting_to_older_systems() -> None:
    old = WindowsSystem(20348, 0, has_cimwriter=True)
    for query in (is_block_cim_supported, is_merged_cim_supported, is_verified_cim_supported):
        assert query(old, writing=True)
        assert not query(old)
        assert not query(None, writing=True)


@needs_dlopen
def test_there_is_no_windows_here() -> None:
    assert WindowsSystem.current() is None
    assert not is_cimfs_supported(WindowsSystem.current())


# ---- paths ----

LONG = "\\".join("d" * 60 for _ in range(4))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (r"C:\layers\1", r"C:\layers\1"),
        ("C:/layers/./x/../1/", r"C:\layers\1"),
        (r"\\server\share\1", r"\\server\share\1"),
        ("//server/share/1", r"\\server\share\1"),
        ("C:/" + LONG, "\\\\?\\C:\\" + LONG),
        (rf"\\server\share\{LONG}", rf"\\?\UNC\server\share\{LONG}"),
        (r"\\?\C:\layers\1", r"\\?\C:\layers\1"),
        (rf"\\?\C:\{LONG}", rf"\\?\C:\{LONG}"),
        (r"\\.\PhysicalDrive2", r"\\.\PhysicalDrive2"),
    ],
)
def test_windows_path_is_absolute_with_backslashes_and_a_prefix_if_long(given: str, expected: str) -> None:
    assert native_path(given, windows=True) == expected


@posix_only("names and files that Windows does not have")
def test_other_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert native_path("a\\b/../c", windows=False) == str(tmp_path / "c")


@needs_dlopen
@pytest.mark.parametrize("verified", [False, True])
def test_merged_image_replaces_no_file(
    tmp_path: Path, recording: Implementation, calls: Recorder, verified: bool
) -> None:
    sources = [BlockImage(tmp_path / name, "a.cim") for name in ("1", "2")]
    (tmp_path / "merged").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        merge_block_images(
            BlockImage(tmp_path / "merged", "m.cim"), sources, verified=verified, implementation=recording
        )
    assert (tmp_path / "merged").read_bytes() == b"other"


@needs_dlopen
def test_verified_layer_has_no_time_of_the_clock(tmp_path: Path, recording: Implementation, calls: Recorder) -> None:
    image, parent = BlockImage(tmp_path / "2" / "block", "a.cim"), BlockImage(tmp_path / "1" / "block", "a.cim")
    for verified in (True, False):
        writer = BlockCimLayerWriter(image, [parent], verified=verified, sync=False, implementation=recording)
        assert (writer.time == creation_time(reproducible=True)) == verified
        writer.abandon()
