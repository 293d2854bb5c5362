"""Ordinary files, which are written without a look at each: as they are where each entry is looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cimlayer.errors import LimitError
from cimlayer.image.extract import Extraction
from cimlayer.limits import Limits
from support.extractions import DIRECTORY, extracted
from support.image_layers import link_data
from support.images import METADATA, NULL_DACL, TIME, add, writer
from support.platforms import WINDOWS, WINE

LOOK_AT_EACH = {"exclude": ["no entry has this name"]}
LONG = "l" * 120 + "é" * 20
NAMES = [
    "ascii",
    "été",
    "雪" * 43,
    "n" * 128,
    "n" * 129,
    LONG,
    *([] if WINE else ["lone \ud800"]),
]  # 128 bytes are the most of an ordinary one


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with writer(tmp_path, None, "image.cim") as image:
        for directory in ("", "d\\", "d\\e\\"):
            if directory:
                add(image, directory[:-1], attributes=DIRECTORY, last_write_time=TIME)
            for number, name in enumerate(NAMES):
                add(image, directory + name, b"x" * number, last_write_time=TIME + number)
            for number, (kind, value) in enumerate(METADATA.items()):
                add(image, f"{directory}has {kind}", b"y" * number, last_write_time=TIME, **{kind: value})
            add(image, f"{directory}plain", attributes=0x20, security_descriptor=NULL_DACL, last_write_time=TIME)
            add(image, f"{directory}created", last_write_time=TIME, creation_time=TIME - 1)
            if not WINDOWS:  # where a time of 0 means to leave the present one
                add(image, f"{directory}no times")
            add(image, f"{directory}streams", last_write_time=TIME)
            image.create_alternate_stream(f"{directory}streams:s", 2)
            image.write(b"12")
            add(image, f"{directory}link", last_write_time=TIME, reparse_data=link_data("ascii"))
        image.create_hard_link(r"d\0 before its first name", r"d\ascii")
        image.create_hard_link(r"d\e\again", r"d\ascii")
        image.create_hard_link(f"d\\a {LONG}", r"d\e\ascii")
        image.create_hard_link(r"d\e\a " + LONG, r"d\e\été")
        image.create_hard_link(r"d\e\z", r"d\streams")
        image.commit()
    return tmp_path / "image.cim"


def state(directory: Path) -> dict[str, object]:
    """Of each entry: content, time and the names that it has."""
    found: dict[str, object] = {}
    inodes: dict[int, list[str]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        name = path.relative_to(directory).as_posix()
        inodes.setdefault(status.st_ino, []).append(name)
        content = path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        found[name] = (content, status.st_mtime_ns, inodes[status.st_ino])
    return found


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"symlinks": True}, {"strip": 1}, {"existing": "overwrite"}, {"existing": "skip"}, {"metadata": "sidecar"}],
)
def test_nothing_differs(image: Path, tmp_path: Path, options: dict[str, object], jobs: int) -> None:
    results: list[Extraction] = []
    for name, more in (("each", LOOK_AT_EACH), ("ordinary", {})):
        results.append(extracted(image, tmp_path / name, jobs=jobs, **{**options, **more}))
    assert results[0] == results[1]
    assert len(results[1].renamed) == 0 and results[1].lost == results[0].lost
    assert state(tmp_path / "each") == state(tmp_path / "ordinary")


@pytest.mark.parametrize("path", ["", "d", r"d\e"])
def test_any_directory_may_be_the_top(image: Path, tmp_path: Path, path: str) -> None:
    results = [
        extracted(image, tmp_path / name, path, **more) for name, more in (("each", LOOK_AT_EACH), ("ordinary", {}))
    ]
    assert results[0] == results[1]
    assert state(tmp_path / "each") == state(tmp_path / "ordinary")


@pytest.mark.parametrize(
    "limits", [*(Limits(files=count) for count in range(1, 50)), *(Limits(bytes=count) for count in range(1, 60, 3))]
)
def test_limits_name_the_same_entry(image: Path, tmp_path: Path, limits: Limits) -> None:
    outcomes = []
    for name, more in (("each", LOOK_AT_EACH), ("ordinary", {})):
        try:
            outcomes.append(replace(extracted(image, tmp_path / name, limits=limits, **more)))
        except LimitError as error:
            outcomes.append((error.entry, error.limit))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_is_limited(image: Path, tmp_path: Path, depth: int) -> None:
    errors = []
    for name, more in (("each", LOOK_AT_EACH), ("ordinary", {})):
        try:
            extracted(image, tmp_path / name, limits=Limits(path_depth=depth), **more)
        except LimitError as error:
            errors.append((error.entry, str(error)))
    assert len(errors) == (2 if depth < 3 else 0)
    assert errors[:1] == errors[1:]
