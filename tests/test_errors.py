"""Exceptions carry what they say, their texts are made of it, and all of it survives a pickle and a copy."""

from __future__ import annotations

import copy
import errno
import inspect
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext import errors
from cimlayer.errors import (
    CorruptHiveError,
    CorruptImageError,
    DigestMismatchError,
    DirtyHiveWarning,
    FormatError,
    ImageError,
    ImageFullError,
    ImageNotFoundError,
    KeyNotFoundError,
    LimitError,
    OperationCancelledError,
    PathNotFoundError,
)
from cimlayer.errors import __all__ as names

CLASSES = [getattr(cimlayer.errors, name) for name in names]
IMAGE_ERRORS = [kind for kind in CLASSES if issubclass(kind, ImageError)]
FACTS = ("operation", "path", "layer", "offset", "limit", "hresult")


def image_error(kind: type[ImageError]) -> ImageError:
    return kind(errno.EIO, "why", r"Files\a", operation="create file", layer="3", offset=4096, image_file="region_0")


def in_layer(error: FormatError) -> FormatError:
    error.layer = "base"
    return error


EXAMPLES: list[Exception] = [
    *map(image_error, IMAGE_ERRORS),
    KeyNotFoundError("no key 'Select'", "SYSTEM"),
    in_layer(FormatError("cut short", "entry", 7)),
    CorruptHiveError("no hive", "SAM", 0),
    in_layer(LimitError("files", 10, "entry", 512)),
    DigestMismatchError("blob sha256:00", "5 bytes", "6 bytes"),
    OperationCancelledError("cancelled"),
    DirtyHiveWarning("dirty"),
]


def test_every_class_has_an_example() -> None:
    assert {type(error) for error in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_says_the_same(error: Exception, again: Callable[[Exception], Exception]) -> None:
    twin = again(error)
    assert type(twin) is type(error)
    assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
    attributes = (*FACTS, "errno", "strerror", "filename", "image_file", "reason", "what", "entry", "value")
    for name in (*attributes, "expected", "actual"):
        assert getattr(twin, name, ...) == getattr(error, name, ...)
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES[:-1], ids=lambda error: type(error).__name__)
def test_an_error_has_all_facts_and_none_for_those_that_do_not_apply(error: Exception) -> None:
    facts = {name: getattr(error, name) for name in FACTS}
    if isinstance(error, OperationCancelledError):
        assert set(facts.values()) == {None}
    assert facts["limit"] == ("files" if isinstance(error, LimitError) else None)


def test_an_offset_that_is_not_known_is_none() -> None:
    assert FormatError("why", "what", -1).offset is None
    assert str(FormatError("why", "what", -1)) == "what: why"


def test_the_text_names_layer_entry_and_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_SHOW_HRESULTS", False)
    assert str(in_layer(FormatError("cut short", r"Files\a", 7))) == r"layer base: Files\a: cut short (at offset 7)"
    error = image_error(CorruptImageError)
    assert error.strerror == "create file: why in region_0 at offset 4096 (layer 3)"
    assert (
        str(error) == rf"[Errno {errno.EIO}] create file: why in region_0 at offset 4096 (layer 3): {error.filename!r}"
    )


@pytest.mark.parametrize("shown", [False, True])
def test_hresults_stand_in_the_text_on_windows_alone(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_SHOW_HRESULTS", shown)
    error = PathNotFoundError(errno.ENOENT, "not there", "x")
    assert error.strerror == ("not there (0x80070003)" if shown else "not there")


@pytest.mark.parametrize("kind", IMAGE_ERRORS)
def test_a_class_has_one_hresult_whoever_raises_it(kind: type[ImageError]) -> None:
    raised_here = kind(errno.EIO, "why")
    raised_below = errors.image_error(kind.hresult, "do", "x")
    assert type(raised_below) is kind
    assert raised_here.hresult == raised_below.hresult == kind.hresult
    if kind is not ImageError:
        assert raised_below.errno not in (None, errno.EIO)


def test_a_code_without_a_class_of_its_own_is_kept() -> None:
    error = errors.image_error(-0x3F21FFFF, "do", "x")
    assert (type(error), error.hresult, error.errno) == (ImageError, 0xC0DE0001, errno.EIO)
    assert ImageError.hresult == 0x80004005


@pytest.mark.parametrize("code", [0x8007000E, 0x80070008])
def test_memory_that_runs_out_is_no_fault_of_an_image(code: int) -> None:
    assert type(errors.image_error(code - (1 << 32), "do", "x")) is MemoryError


def test_memory_that_runs_out_is_no_fault_of_a_tar() -> None:
    assert type(errors.malformed("out of memory", "entry", 5)) is MemoryError
    assert type(errors.malformed("not a readable tar: out of memory", "a.tar", 5)) is MemoryError
    assert type(errors.malformed("a colon in a name", "entry", 5)) is FormatError


def test_parsers_in_c_give_that_reason_alone_for_memory() -> None:
    sources = [path.read_text("utf-8") for path in (cimlayer_sources() / "liblayer").glob("*.c")]
    assert sum(source.count(f'"{errors._NO_MEMORY}"') for source in sources) > 1


def cimlayer_sources() -> Path:
    return Path(__file__).parents[1] / "cimfs_ext"


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_shows_itself_under_its_public_name(kind: type[Exception]) -> None:
    assert (kind.__module__, kind.__qualname__) == ("cimlayer", kind.__name__)
    assert getattr(cimlayer, kind.__name__) is kind
    assert inspect.getdoc(kind)


def test_a_missing_image_and_a_missing_path_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError) as caught:
        cimlayer.ImageReader(tmp_path / "none.cim")
    assert caught.value.operation == "open image"
    assert caught.value.path == str(tmp_path / "none.cim")
    with cimlayer.ImageWriter(tmp_path, None, "a.cim") as image:
        with pytest.raises(PathNotFoundError) as below:
            image.create_file(r"none\file")
        assert type(below.value) is PathNotFoundError
        assert (below.value.operation, below.value.path) == ("create file", r"none\file")


def test_a_missing_key_or_value_is_a_file_that_is_not_found() -> None:
    hive = cimlayer.Hive.empty(0, name="SYSTEM")
    for missing in (lambda: hive.key("Select"), lambda: hive.value("", "Current"), lambda: hive.delete_key("Select")):
        with pytest.raises(FileNotFoundError) as caught:
            missing()
        assert isinstance(caught.value, KeyNotFoundError)
        assert caught.value.errno == errno.ENOENT
        assert (caught.value.path or "").startswith("SYSTEM")


def test_a_full_disk_is_an_oserror_with_its_errno(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_SHOW_HRESULTS", False)
    error = errors.image_error(0x80070070, "write", "x")
    assert isinstance(error, ImageFullError)
    assert (error.errno, error.strerror) == (errno.ENOSPC, f"write: {os.strerror(errno.ENOSPC)}")
