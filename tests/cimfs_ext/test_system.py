"""Loaded libraries: each call passes what cimfs.h says, errors, older systems, the choice."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext import volumes
from cimfs_ext.errors import (
    CorruptImageError,
    ImageError,
    ImageExistsError,
    ImagePermissionError,
    UnsupportedCallError,
)
from cimfs_ext.image import ImageWriter
from cimfs_ext.implementation import Implementation, choose, load
from cimlayer.layer.writer import CimLayerWriter
from support.images import NULL_DACL, add
from support.libraries import Recorder, build_recording, needs_dlopen, wide
from support.systemlibraries import (
    FIRST_RELEASE,
    NEWER,
    VOLUME,
    directory,  # noqa: F401  fixtures
)

pytestmark = needs_dlopen


CREATED = {"call": "CimCreateImage", "path": wide("/где"), "existing": None, "new": wide("a.cim")}


CLOSED = {"call": "CimCloseImage", "image": "image"}


DESCRIPTOR = bytes([1, 0, 4, 0x80]) + bytes(range(16, 40))


@pytest.fixture(scope="module")
def recording(directory: Path) -> Implementation:
    return load(str(build_recording(directory / "recording.so")))


@pytest.fixture(scope="module")
def first_release(directory: Path) -> Implementation:
    return load(str(build_recording(directory / "first.so", "-DFIRST_RELEASE")))


# ---- each call passes what cimfs.h says ----


def test_create_passes_null_for_a_name_that_is_not_given(recording: Implementation, calls: Recorder) -> None:
    ImageWriter("/где", None, "a.cim", implementation=recording).close()
    ImageWriter("/где", "a.cim", implementation=recording).close()
    ImageWriter("/где", "a.cim", "\U0001f600.cim", implementation=recording).close()
    assert calls() == [
        CREATED,
        CLOSED,
        {**CREATED, "existing": wide("a.cim"), "new": None},
        CLOSED,
        {**CREATED, "existing": wide("a.cim"), "new": wide("\U0001f600.cim")},
        CLOSED,
    ]


def test_lone_surrogates_are_passed_as_they_are(recording: Implementation, calls: Recorder) -> None:
    with ImageWriter("/где", None, "a.cim", implementation=recording) as image:
        image.delete_path("a\ud800b\udc00")
    assert calls()[1]["path"] == "610000d8620000dc"


def test_every_field_of_the_metadata_arrives(recording: Implementation, calls: Recorder) -> None:
    with ImageWriter("/где", None, "a.cim", implementation=recording) as image:
        image.create_file(
            "d\\файл",
            attributes=0x2427,
            size=0x1_2345_6789,
            creation_time=0x0111_1111_2222_2222,
            last_write_time=0x0333_3333_4444_4444,
            change_time=-1,
            last_access_time=0x0777_7777_0888_8888,
            security_descriptor=DESCRIPTOR,
            reparse_data=b"\x01reparse",
            extended_attributes=b"\x02ea",
        )
    assert calls() == [
        CREATED,
        {
            "call": "CimCreateFile",
            "image": "image",
            "path": wide("d\\файл"),
            "attributes": 0x2427,
            "size": 0x1_2345_6789,
            "creation": 0x0111_1111_2222_2222,
            "last_write": 0x0333_3333_4444_4444,
            "change": 0xFFFF_FFFF_FFFF_FFFF,
            "last_access": 0x0777_7777_0888_8888,
            "descriptor": DESCRIPTOR.hex(),
            "reparse": b"\x01reparse".hex(),
            "ea": b"\x02ea".hex(),
        },
        CLOSED,
    ]


def test_file_without_descriptor_gets_the_null_dacl(recording: Implementation, calls: Recorder) -> None:
    with ImageWriter("/где", None, "a.cim", implementation=recording) as image:
        image.create_file("x")
    found = calls()[1]
    assert (found["descriptor"], found["reparse"], found["ea"]) == (NULL_DACL.hex(), None, None)


def test_streams_links_and_deletions_pass_their_arguments(recording: Implementation, calls: Recorder) -> None:
    with ImageWriter("/где", None, "a.cim", implementation=recording) as image:
        add(image, "x", b"\x00\xffdata")
        image.create_alternate_stream("x:поток", 1 << 40)
        image.write(b"s")
        image.create_hard_link("y", "x")
        image.delete_path("z")
        image.commit()
    assert [call["call"] for call in calls()] == [
        "CimCreateImage",
        "CimCreateFile",
        "CimWriteStream",
        "CimCloseStream",
        "CimCreateAlternateStream",
        "CimWriteStream",
        "CimCloseStream",
        "CimCreateHardLink",
        "CimDeletePath",
        "CimCommitImage",
        "CimCloseImage",
    ]
    assert calls()[2:10] == [
        {"call": "CimWriteStream", "stream": "stream", "data": b"\x00\xffdata".hex()},
        {"call": "CimCloseStream", "stream": "stream"},
        {"call": "CimCreateAlternateStream", "image": "image", "path": wide("x:поток"), "size": 1 << 40},
        {"call": "CimWriteStream", "stream": "stream", "data": b"s".hex()},
        {"call": "CimCloseStream", "stream": "stream"},
        {"call": "CimCreateHardLink", "image": "image", "new": wide("y"), "existing": wide("x")},
        {"call": "CimDeletePath", "image": "image", "path": wide("z")},
        {"call": "CimCommitImage", "image": "image"},
    ]


def test_calls_of_newer_systems_pass_their_arguments(recording: Implementation, calls: Recorder) -> None:
    with ImageWriter("/где", None, "a.cim", flags=0x58, implementation=recording) as image:
        image.tombstone("gone")
        image.create_merge_link("new", "old")
        image.add_to_merged_image("/b/1.cim")
        image.add_to_merged_image("/b/2.cim", flags=5)
    assert calls() == [
        {**CREATED, "call": "CimCreateImage2", "flags": 0x58},
        {"call": "CimTombstoneFile", "image": "image", "path": wide("gone")},
        {"call": "CimCreateMergeLink", "image": "image", "new": wide("new"), "existing": wide("old")},
        {"call": "CimAddFsToMergedImage", "image": "image", "path": wide("/b/1.cim")},
        {"call": "CimAddFsToMergedImage2", "image": "image", "path": wide("/b/2.cim"), "flags": 5},
        CLOSED,
    ]


def test_mounting_passes_the_volume_in_the_layout_of_a_guid(recording: Implementation, calls: Recorder) -> None:
    root_hash = bytes(range(32))
    pair = [("/d", "m.cim"), ("/e", "s.cim")]
    volumes.mount("/d", "a.cim", VOLUME, flags=2, implementation=recording)
    volumes.mount("/d", "a.cim", VOLUME, flags=0x20, root_hash=root_hash, implementation=recording)
    volumes.mount_merged(pair, VOLUME, flags=0x20, implementation=recording)
    volumes.mount_merged(pair, VOLUME, flags=0x10, root_hash=root_hash, implementation=recording)
    volumes.dismount(VOLUME, implementation=recording)
    one = {"path": wide("/d"), "name": wide("a.cim"), "volume": str(VOLUME)}
    two = {
        "count": 2,
        "directory0": wide("/d"),
        "name0": wide("m.cim"),
        "directory1": wide("/e"),
        "name1": wide("s.cim"),
        "volume": str(VOLUME),
    }
    assert calls() == [
        {"call": "CimMountImage", "flags": 2, **one},
        {"call": "CimMountVerifiedImage", "flags": 0x20, "hash": root_hash.hex(), **one},
        {"call": "CimMergeMountImage", "flags": 0x20, **two},
        {"call": "CimMergeMountVerifiedImage", "flags": 0x10, "hash": root_hash.hex(), **two},
        {"call": "CimDismountImage", "volume": str(VOLUME)},
    ]


def test_seal_and_verification_information_return_what_the_system_says(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root_hash = bytes(range(0xA0, 0xC0))
    assert volumes.seal("/b", implementation=recording) == root_hash
    assert volumes.verification_information("/b", implementation=recording) == (True, root_hash, 77, 8192)
    monkeypatch.setenv("RECORDING_CIMFS_UNSEALED", "1")
    assert volumes.verification_information("/b", implementation=recording) == (False, b"", 77, 8192)
    assert calls()[0] == {"call": "CimSealImage", "path": wide("/b"), "hash_size": 0}
    assert calls()[1] == {
        "call": "CimGetVerificationInformation",
        "path": wide("/b"),
        "hash_size": 0,
        "signature": None,
    }


def test_root_hash_of_another_size_is_refused(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_HASH_SIZE", "64")
    with pytest.raises(CorruptImageError, match="a root hash of 64 bytes instead of 32"):
        volumes.seal("/b", implementation=recording)


# ---- errors ----


OPERATIONS: dict[str, Callable[[ImageWriter], object]] = {
    "CimCreateFile": lambda image: image.create_file("there", size=1),
    "CimWriteStream": lambda image: add(image, "there", b"x"),
    "CimCloseStream": lambda image: (image.create_file("there"), image.close_stream()),
    "CimCreateAlternateStream": lambda image: image.create_alternate_stream("there", 1),
    "CimCreateHardLink": lambda image: image.create_hard_link("there", "x"),
    "CimDeletePath": lambda image: image.delete_path("there"),
    "CimTombstoneFile": lambda image: image.tombstone("there"),
    "CimCreateMergeLink": lambda image: image.create_merge_link("there", "x"),
    "CimAddFsToMergedImage": lambda image: image.add_to_merged_image("there"),
    "CimAddFsToMergedImage2": lambda image: image.add_to_merged_image("there", flags=1),
    "CimCommitImage": lambda image: image.commit(),
}


@pytest.mark.parametrize("function", OPERATIONS)
def test_failure_is_an_exception_with_code_and_path(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", f"{function}=0x80070005")
    with (
        ImageWriter("/d", None, "there", implementation=recording) as image,
        pytest.raises(ImagePermissionError) as caught,
    ):
        OPERATIONS[function](image)
    assert caught.value.hresult == 0x80070005
    assert caught.value.filename == "there"
    assert [call["call"] for call in calls()][-2:] == [function, "CimCloseImage"]


def test_failed_creation_leaves_nothing_to_close(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimCreateImage=0x80070050")
    with pytest.raises(ImageExistsError):
        ImageWriter("/d", None, "a.cim", implementation=recording)
    assert [call["call"] for call in calls()] == ["CimCreateImage"]


def test_unknown_code_is_an_image_error_that_keeps_it(
    recording: Implementation, calls: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING_CIMFS_FAIL", "CimMountImage=0xC0DE0001")
    with pytest.raises(ImageError, match="mount: ") as caught:
        volumes.mount("/d", "a.cim", VOLUME, implementation=recording)
    assert caught.value.hresult == 0xC0DE0001


# ---- older systems ----


def test_all_functions_of_a_library_are_found(recording: Implementation, first_release: Implementation) -> None:
    assert recording.functions() == FIRST_RELEASE | NEWER
    assert first_release.functions() == FIRST_RELEASE


def test_value_of_a_close_that_returns_nothing_is_ignored(first_release: Implementation, calls: Recorder) -> None:
    with ImageWriter("/d", None, "a.cim", implementation=first_release) as image:
        image.create_file("x")
        image.close_stream()
    assert calls()[2]["call"] == "CimCloseStream"


@pytest.mark.parametrize(
    ("call", "function", "build"),
    [
        (lambda i: ImageWriter("/d", None, "a", flags=8, implementation=i), "CimCreateImage2", 27766),
        (lambda i: volumes.seal("/b", implementation=i), "CimSealImage", 27800),
        (lambda i: volumes.verification_information("/b", implementation=i), "CimGetVerificationInformation", 27800),
        (lambda i: volumes.mount_merged([("a", "b")], VOLUME, implementation=i), "CimMergeMountImage", 27766),
        (
            lambda i: volumes.mount_merged([("a", "b")], VOLUME, root_hash=bytes(32), implementation=i),
            "CimMergeMountVerifiedImage",
            27800,
        ),
        (
            lambda i: volumes.mount("a", "b", VOLUME, root_hash=bytes(32), implementation=i),
            "CimMountVerifiedImage",
            27800,
        ),
    ],
)
def test_missing_function_names_the_build_that_has_it(
    first_release: Implementation, calls: Recorder, call: Callable[[Implementation], object], function: str, build: int
) -> None:
    with pytest.raises(UnsupportedCallError, match=rf"no {function}: Windows has it from build {build}") as caught:
        call(first_release)
    assert caught.value.hresult == 0x80004001
    assert calls() == []


@pytest.mark.parametrize("function", ["CimTombstoneFile", "CimCreateMergeLink", "CimAddFsToMergedImage"])
@pytest.mark.parametrize("name", ["first_release", "portable"])
def test_missing_function_leaves_the_image_usable(
    first_release: Implementation, calls: Recorder, tmp_path: Path, function: str, name: str
) -> None:
    chosen = first_release if name == "first_release" else choose("portable")
    with ImageWriter(tmp_path, None, "a.cim", implementation=chosen) as image:
        image.create_file("x", size=1)
        with pytest.raises(UnsupportedCallError, match=function):
            OPERATIONS[function](image)
        image.write(b"1")
        image.commit()


def test_library_without_a_function_of_the_first_release_is_refused(directory: Path) -> None:
    library = build_recording(directory / "without.so", "-DWITHOUT_DELETE_PATH")
    with pytest.raises(UnsupportedCallError, match="no CimDeletePath: Windows has it from build 19041"):
        load(str(library))


def test_writing_half_alone_is_enough_to_write(directory: Path, calls: Recorder) -> None:
    writer = load(str(build_recording(directory / "writer.so", "-DWITHOUT_MOUNTING")))
    ImageWriter("/d", None, "a.cim", implementation=writer).close()
    with pytest.raises(UnsupportedCallError, match="no CimMountImage"):
        volumes.mount("/d", "a.cim", VOLUME, implementation=writer)


# ---- the choice ----


def test_system_without_a_library_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIMLAYER_CIMFS_LIBRARY", raising=False)
    with pytest.raises(UnsupportedCallError, match="implementation='portable'"):
        choose("system")
    with pytest.raises(UnsupportedCallError, match="cannot be loaded"):
        load("/nowhere/cimfs.so")


def test_environment_and_argument_choose(
    recording: Implementation, calls: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIMLAYER_IMPLEMENTATION", "system")
    monkeypatch.setenv("CIMLAYER_CIMFS_LIBRARY", recording.path)
    assert choose() is recording
    with ImageWriter(tmp_path, None, "a.cim") as image:
        assert image.implementation == "system"
    with ImageWriter(tmp_path, None, "a.cim", implementation="portable") as image:
        assert image.implementation == "portable"
    with pytest.raises(ValueError, match="not 'other'"):
        choose("other")


def test_seed_is_refused_where_it_would_change_nothing(
    recording: Implementation, calls: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedCallError, match="CimCreateImageWith"):
        ImageWriter(tmp_path, None, "a.cim", seed=b"seed", implementation=recording)


def test_failed_layer_leaves_nothing_when_the_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIMLAYER_CIMFS_LIBRARY", raising=False)
    with pytest.raises(UnsupportedCallError):
        CimLayerWriter(tmp_path / "1", implementation="system")
    assert os.listdir(tmp_path) == []
