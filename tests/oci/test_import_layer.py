"""Import of layer tars that the tests build, read back by an independent reader and compared with a model."""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.importer import LayerImporter
from cimlayer.errors import FormatError, ImageError, OperationCancelledError
from cimlayer.formats.sddl import descriptor_from_sddl
from support import layers, tars
from support.images import NULL_DACL, read_files, writer
from support.layers import Model, differences, image_of, snapshot
from support.tars import TarBuilder, windows_pax

MANAGED = ("Hives", "layout", "UtilityVM")
OWNED = bytes.fromhex("01000480140000000000000000000000000000000102000000000005200000002002 0000".replace(" ", ""))


def base_tar() -> bytes:
    tar = TarBuilder()
    tar.directory("Files", pax=windows_pax(0x10, sd=OWNED, creation=layers.TIME))
    layers.add_base_hives(tar)
    for directory in ("a", "b", "b/deep", "c"):
        tar.directory(f"Files/{directory}", mtime=1000)
        for n in range(6):
            tar.file(f"Files/{directory}/f{n}", f"base {directory} {n}".encode() * (n + 1), mtime=2000 + n)
    tar.hardlink("Files/c/link", "Files/a/f1")
    tar.file("Files/b/streamed", b"s", pax=windows_pax(0x21, eas={"ONE": b"1", "TWO": bytes(300)}))
    tar.stream("Files/b/streamed", "zone:$DATA", b"zone")
    tar.symlink("Files/b/symlink", "../a/f0")
    return tar.finish()


@pytest.fixture(scope="module")
def imported_base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    root = tmp_path_factory.mktemp("base")
    model = Model()
    size = cimlayer.import_layer(io.BytesIO(base_tar()), root / "base", sync=False, reproducible=True).bytes
    assert size == model.apply(base_tar())
    assert differences(model, image_of(root / "base"), MANAGED) == []
    return root, model


@pytest.fixture
def root(imported_base: tuple[Path, Model], tmp_path: Path) -> Path:
    """A directory of layers with the base layer, the test's own."""
    shutil.copytree(imported_base[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def model(imported_base: tuple[Path, Model]) -> Model:
    """The base layer as the model has it."""
    fresh = Model()
    fresh.apply(base_tar())
    return fresh


def add(root: Path, tar: TarBuilder | bytes, name: str = "child", parents: tuple[str, ...] = ("base",)) -> int:
    data = tar if isinstance(tar, bytes) else tar.finish()
    deep = cimlayer.Limits(path_depth=1 << 15)  # as names have it: limits are test_limits.py's
    above = [root / parent for parent in parents]
    return cimlayer.import_layer(io.BytesIO(data), root / name, above, sync=False, reproducible=True, limits=deep).bytes


def paths(root: Path, name: str = "child") -> set[str]:
    return set(image_of(root / name))


# ---- against the model ----


class RandomLayer:
    """A tar of entries as layers have them, in an order that means the same to the model and to an import.

    Whiteouts come before and behind what they must not hide.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.tar = TarBuilder()
        self.added: list[str] = []

    def path(self) -> str:
        names = ("a", "b", "c", "deep", "f1", "f2", "f3", "new", "ünïcode", "x" * 60)
        parts = self.rng.choices(names, k=self.rng.randint(1, 3))
        return "/".join(("Files", *parts))

    def records(self) -> dict[str, str] | None:
        if self.rng.random() < 0.3:
            return None
        eas = {name: self.rng.randbytes(30) for name in self.rng.choices("XYZ", k=self.rng.randint(0, 2))}
        time = layers.TIME + self.rng.randrange(10**12)
        return windows_pax(0x22, sd=OWNED, mtime=time, creation=time - 5, atime=time + 7, ctime=time + 9, eas=eas)

    def free(self, path: str) -> bool:
        """Neither added before nor below or above what was, so that nothing replaces this layer's own."""
        return not any(path == old or path.startswith(old + "/") or old.startswith(path + "/") for old in self.added)

    def step(self) -> None:
        path = self.path()
        kind = self.rng.randrange(10)
        if kind < 2:
            (self.tar.whiteout, self.tar.opaque)[kind](path)
        elif self.free(path):
            self.add(kind, path)
            self.added.append(path)

    def add(self, kind: int, path: str) -> None:
        if kind == 2 and self.added_files:
            self.tar.hardlink(path, self.rng.choice(self.added_files))
        elif kind == 3:
            self.tar.symlink(path, "../somewhere/else", pax=self.records())
        else:
            size = self.rng.choice((0, 1, 511, 512, 5000))
            self.tar.file(path, self.rng.randbytes(size), pax=self.records(), mtime=99)
            if kind == 4:
                self.tar.stream(path, "stream", self.rng.randbytes(700))
            self.added_files.append(path)

    added_files: list[str]

    def build(self, steps: int) -> bytes:
        self.added_files = []
        for _ in range(steps):
            self.step()
        return self.tar.finish()


@pytest.mark.parametrize("seed", range(12))
def test_chain_of_random_layers_equals_the_model(root: Path, model: Model, seed: int) -> None:
    rng = random.Random(seed)
    parents: tuple[str, ...] = ("base",)
    for name in ("one", "two", "three"):
        tar = RandomLayer(rng).build(60)
        assert add(root, tar, name, parents) == model.apply(tar)
        assert differences(model, image_of(root / name), MANAGED) == []
        parents = (name, *parents)
    with cimlayer.ImageReader(root / "cim-layers" / "three.cim") as image:
        assert image.verify().ok


def test_all_forms_of_headers_and_records_are_read(root: Path, model: Model) -> None:
    tar = TarBuilder()
    tar.pax_global({"LIBARCHIVE.creationtime": "77.5", "comment": "nothing"})
    tar.pax_global({"atime": "-3.25"})  # what the first one said still holds
    tar.file("Files/v7", b"v7", kind=tars.V7_FILE, magic=tars.V7_MAGIC, mtime=5)
    tar.file("Files/contiguous", b"7", kind=b"7")
    tar.directory("Files/with a slash")
    tar.file("name", b"prefix", prefix=b"Files/prefix")
    tar.gnu_long_name("Files/" + "l" * 200)
    tar.file("cut", b"long", magic=tars.GNU_MAGIC)
    tar.gnu_long_name("Files/long link")
    tar.gnu_long_link("Files/" + "l" * 200)
    tar.node("cut", tars.HARD_LINK, magic=tars.GNU_MAGIC, link=b"cut")
    tar.file("Files/base256", b"numbers", size=tars.base256(7, 12), mtime=tars.base256(-100, 12))
    tar.file("Files/size in a record", b"x" * 600, size=0, pax={"size": "600"})
    tar.file("Files/fractions", pax={"mtime": "-0.1234567899", "ctime": "12.5", "LIBARCHIVE.creationtime": "1"})
    tar.file("Files/absent", pax={"LIBARCHIVE.creationtime": "", "MSWINDOWS.fileattr": ""})
    tar.file("./Files/./dots//and slashes", b"dots")
    tar.file("Files/emoji \U0001f600", b"pair")
    data = tar.finish(end=b"")  # a missing end is no error
    assert add(root, data) == model.apply(data)
    # Python's reader lets an empty record hide the header's own only where it knows the record.
    absent = model.tree[layers.key_of(r"Files\absent")].node
    absent.times = (absent.times[1], *absent.times[1:])
    assert differences(model, image_of(root / "child"), MANAGED) == []


def test_what_follows_the_end_is_ignored(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x", b"x")
    add(root, tar.finish() + b"rubbish" * 1000)
    assert "Files\\x" in paths(root)


def test_descriptor_as_text_is_used_unless_there_is_a_raw_one(root: Path) -> None:
    tar = TarBuilder()
    sddl = "O:BAG:SYD:P(A;;FA;;;SY)"
    for n in range(3):
        tar.file(f"Files/text{n}", pax=windows_pax(0x20, sddl=sddl))
    tar.file("Files/both", pax=windows_pax(0x20, sddl=sddl, sd=OWNED))
    add(root, tar)
    image = image_of(root / "child")
    assert {image[f"Files\\text{n}"].sd for n in range(3)} == {descriptor_from_sddl(sddl)}
    assert image["Files\\both"].sd == OWNED


def test_attributes_of_links_follow_what_they_are(root: Path) -> None:
    tar = TarBuilder()
    tar.symlink("Files/plain", "x", pax=windows_pax(0x20))
    tar.symlink("Files/linux", "x")
    tar.symlink("Files/to a directory", "x", pax=windows_pax(0x430))
    tar.symlink("Files/mount", r"\\?\Volume{1}\\", pax=windows_pax(0x410, mountpoint=True))
    tar.file("Files/no link", pax=windows_pax(0x420))
    tar.directory("Files/no link either", pax=windows_pax(0x420))
    add(root, tar)
    image = image_of(root / "child")
    assert {name: (image[f"Files\\{name}"].attributes, image[f"Files\\{name}"].reparse_tag) for name in (
        "plain", "linux", "to a directory", "mount", "no link", "no link either")} == {
        "plain": (0x420, 0xA000000C),
        "linux": (0x420, 0xA000000C),
        "to a directory": (0x430, 0xA000000C),
        "mount": (0x410, 0xA0000003),
        "no link": (0x20, 0),
        "no link either": (0x30, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "substitute", "relative"),
    [
        ("up/file", r"up\file", True),
        ("/rooted", r"\rooted", True),
        ("C:/x", r"\??\C:\x", False),
        ("//server/share", r"\??\UNC\server\share", False),
        (r"\\?\C:\x", r"\??\C:\x", False),
    ],
)
def test_link_target_becomes_both_names_of_the_buffer(root: Path, target: str, substitute: str, relative: bool) -> None:
    tar = TarBuilder()
    tar.symlink("Files/link", target)
    add(root, tar)
    buffer = image_of(root / "child")["Files\\link"].reparse
    first, first_size, second, second_size = (int.from_bytes(buffer[at : at + 2], "little") for at in range(8, 16, 2))
    assert buffer[20 + first : 20 + first + first_size].decode("utf-16-le") == substitute
    assert buffer[20 + second : 20 + second + second_size].decode("utf-16-le") == target.replace("/", "\\")
    assert int.from_bytes(buffer[16:20], "little") == relative


# ---- whiteouts ----


def test_whiteouts_hide_the_parents_and_spare_the_layers_own_in_any_order(root: Path) -> None:
    def entries() -> list[Callable[[TarBuilder], None]]:
        return [
            lambda tar: tar.whiteout("Files/a"),
            lambda tar: tar.file("Files/A/F1", b"own"),
            lambda tar: tar.whiteout("Files/a/f1"),
            lambda tar: tar.opaque("Files/b"),
            lambda tar: tar.file("Files/b/deep/own", b"own"),
            lambda tar: tar.whiteout("Files/c/link"),
            lambda tar: tar.whiteout("Files/nobody has this"),
            lambda tar: tar.opaque("Files/nor this"),
            lambda tar: tar.whiteout("nor/that/deeper"),
        ]

    for seed in range(8):
        order = entries()
        random.Random(seed).shuffle(order)
        tar = TarBuilder()
        for write in order:
            write(tar)
        add(root, tar, f"child{seed}")
        left = {path.upper() for path in paths(root, f"child{seed}") if path.upper().startswith("FILES\\")}
        assert left - {path for path in left if path.startswith("FILES\\WINDOWS")} == {
            "FILES\\A", "FILES\\A\\F1", "FILES\\B", "FILES\\B\\DEEP", "FILES\\B\\DEEP\\OWN",
            "FILES\\C", *(f"FILES\\C\\F{n}" for n in range(6)),
        }  # fmt: skip


@pytest.mark.parametrize("whiteout_is_first", [True, False])
def test_directories_that_a_whiteout_hides_are_new_wherever_it_stands(root: Path, whiteout_is_first: bool) -> None:
    below = TarBuilder()
    for directory in ("d", "d/undescribed", "d/described", "d/described/undescribed"):
        below.directory(directory, pax=windows_pax(0x12, sd=OWNED, creation=layers.TIME))
        below.stream(directory, "old", b"old")
    add(root, below, "one")
    tar = TarBuilder()
    if whiteout_is_first:
        tar.whiteout("d")
    tar.file("d/undescribed/x")
    tar.directory("d/described", pax=windows_pax(0x11, sd=OWNED, creation=layers.TIME + 1))
    tar.stream("d/described", "new:$DATA", b"new")
    tar.file("d/described/undescribed/x")
    if not whiteout_is_first:
        tar.whiteout("d")
    add(root, tar, "two", ("one", "base"))
    image = image_of(root / "two")
    for path in ("d", "d\\undescribed", "d\\described\\undescribed"):
        new = image[path]
        assert (new.attributes, new.sd, new.alternate_streams) == (0x10, layers.NULL_DACL, {}), path
    described = image["d\\described"]
    assert (described.attributes, described.sd, list(described.alternate_streams)) == (0x11, OWNED, ["new"])


def test_opaque_directory_keeps_its_own_metadata(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/c/own", b"own")
    tar.opaque("Files/c")
    add(root, tar)
    old, new = image_of(root / "base")["Files\\c"], image_of(root / "child")["Files\\c"]
    assert (new.attributes, new.sd, new.creation_time) == (old.attributes, old.sd, old.creation_time)


@pytest.mark.parametrize("whiteout_is_first", [True, False])
def test_hard_link_over_a_directory_replaces_the_tree(root: Path, whiteout_is_first: bool) -> None:
    tar = TarBuilder()
    tar.file("Files/own", b"own")
    if whiteout_is_first:
        tar.whiteout("Files/b")
    tar.hardlink("Files/B", "Files/own")
    if not whiteout_is_first:
        tar.whiteout("Files/b")
    add(root, tar)
    image = image_of(root / "child")
    assert {path for path in image if path.upper().startswith("FILES\\B")} == {"Files\\B"}
    assert image["Files\\B"].file_id == image["Files\\own"].file_id


def test_opaque_root_hides_everything_below(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/own", b"")
    tar.file(".wh..wh..opq")
    add(root, tar)
    assert paths(root) == {"", "Files", "Files\\own"}


def test_whiteout_in_a_base_layer_does_nothing(tmp_path: Path) -> None:
    tar = TarBuilder()
    layers.add_base_hives(tar)
    tar.file("Files/x")
    tar.whiteout("Files/x")
    tar.opaque("Files")
    cimlayer.import_layer(io.BytesIO(tar.finish()), tmp_path / "base", sync=False)
    assert "Files\\x" in paths(tmp_path, "base")


def test_link_to_a_parents_file_survives_its_whiteout(root: Path) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/kept", "Files/a/f1")
    tar.whiteout("Files/a/f1")
    add(root, tar)
    image = image_of(root / "child")
    assert image["Files\\kept"].data == image_of(root / "base")["Files\\a\\f1"].data
    assert image["Files\\kept"].file_id == image["Files\\c\\link"].file_id
    assert "Files\\a\\f1" not in image


def test_repeated_opaque_whiteouts_are_done_once(root: Path) -> None:
    big = TarBuilder()
    for n in range(3000):
        big.file(f"Files/big/{n}")
    add(root, big, "one")
    tar = TarBuilder()
    tar.file("Files/big/own")
    for _ in range(20_000):
        tar.opaque("Files/big")
    add(root, tar, "two", ("one", "base"))
    assert {path for path in paths(root, "two") if path.startswith("Files\\big\\")} == {"Files\\big\\own"}


def test_cancelled_whiteout_is_not_gone_on_with(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = cimlayer.CancellationToken()
    removed = []

    def remove(_: object, path: str) -> None:
        removed.append(path)
        cancel.cancel()

    monkeypatch.setattr("cimlayer.layer.removals.Removals._delete", remove)
    tar = TarBuilder()
    tar.opaque("Files/a")
    with pytest.raises(OperationCancelledError):
        cimlayer.import_layer(io.BytesIO(tar.finish()), root / "child", [root / "base"], cancel=cancel)
    assert len(removed) == 1


# ---- links to standard files ----


def test_links_to_standard_files_share_them(root: Path) -> None:
    tar = TarBuilder()
    tar.file("files/windows/system32/CONFIG/software", b"new")
    tar.hardlink("fresh/dir/link", "Files/Windows/System32/config/SOFTWARE")
    tar.hardlink("Files/a/f1", "fresh/dir/link")
    tar.hardlink("Files/third", "Files/a/f1")
    add(root, tar)
    image = image_of(root / "child")
    names = (r"Files\Windows\System32\config\software", r"fresh\dir\link", r"Files\a\f1", r"Files\third")
    assert {image[name].data for name in names} == {b"new"}
    assert len({image[name].file_id for name in names}) == 1


# ---- refusals ----

BAD_NAMES = {
    "parent": ("Files/../x", "component . or .."),
    "parent first": ("../x", "component . or .."),
    "absolute": ("/Files/x", "absolute"),
    "drive": ("C:/x", "drive letter"),
    "drive alone": ("C:", "drive letter"),
    "backslash": ("Files\\x", "backslash"),
    "star": ("Files/a*", "reserved"),
    "question mark": ("Files/?", "reserved"),
    "pipe": ("a|b/x", "reserved"),
    "control": ("Files/a\x1f", "reserved"),
    "component": ("Files/" + "n" * 256, "255"),
    "path": ("/".join(["d" * 200] * 164), "32,767"),
    "longer than the buffer": ("d/" * 70_000 + "x", "32,767"),
    "whole buffer": ("d/" * 16_000 + "e" * 1030 + "/f", "."),
    "colon": ("Files/stream:of nothing", "colon"),
    "stream in the middle": ("Files/a:b/c", "."),
    "whiteout of the parent": ("Files/.wh...", "component . or .."),
    "whiteout above": ("../.wh.x", "component . or .."),
    "whiteout of nothing": ("Files/.wh.", "whiteout of nothing"),
    "whiteout of a stream": ("Files/.wh.a:b", "colon"),
    "opaque above": ("../.wh..wh..opq", "component . or .."),
    "opaque stream": ("a:b/.wh..wh..opq", "."),
    "only a dot": (".", "without a name"),
}


def fails(root: Path, tar: TarBuilder | bytes, reason: str, **where: object) -> FormatError:
    """An import fails for that reason, names the entry and its offset, and leaves nothing."""
    before = snapshot(root)
    with pytest.raises(FormatError, match=reason) as caught:
        add(root, tar)
    assert snapshot(root) == before
    for name, value in where.items():
        assert getattr(caught.value, name) == value
    return caught.value


BEFORE_1601 = tars.base256(-12_000_000_000, 12)


@pytest.mark.parametrize(
    "times", [BEFORE_1601, bytes(12) + BEFORE_1601, tars.base256(1 << 60, 12), tars.base256(5, 12) + BEFORE_1601]
)
def test_times_of_a_gnu_header_that_are_out_of_range_are_refused(root: Path, times: bytes) -> None:
    fails(root, tars.header(b"Files/f", magic=tars.GNU_MAGIC, prefix=times), "time that is malformed", what="Files/f")


@pytest.mark.parametrize(
    ("field", "access", "change"),
    [
        (tars.base256(5, 12) + tars.base256(-6, 12), 5, -6),
        (bytes(12) + tars.octal(6, 12), 1, 6),
        (b"a prefix, as some write it there", 1, 1),
    ],
)
def test_times_of_a_gnu_header(root: Path, field: bytes, access: int, change: int) -> None:
    add(root, tars.header(b"Files/f", magic=tars.GNU_MAGIC, mtime=1, prefix=field) + bytes(1024))
    with cimlayer.ImageReader(root / "cim-layers" / "child.cim") as image:
        entry = image.stat("Files\\f")
    epoch = 116_444_736_000_000_000
    times = [(time - epoch) / 10**7 for time in (entry.last_write_time, entry.last_access_time, entry.change_time)]
    assert times == [1, access, change]


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_name_is_refused_and_named(root: Path, case: str) -> None:
    name, reason = BAD_NAMES[case]
    tar = TarBuilder()
    tar.file("Files/before", b"x" * 100)
    tar.pax({"path": name})
    tar.file("cut", b"")
    fails(root, tar, reason, what=name, offset=1024)


@pytest.mark.parametrize(("name", "reason"), [(b"Files/\xff", "UTF-8"), (b"Files/\xc0\xaf", "UTF-8"), (b"a\0b", "NUL")])
def test_name_that_is_no_text_is_refused(root: Path, name: bytes, reason: str) -> None:
    tar = TarBuilder()
    tar.pax({"path": name})
    tar.file("x")
    fails(root, tar, reason, offset=0)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../../etc/passwd", "component . or .."),
        ("/etc/passwd", "absolute"),
        ("C:/x", "drive letter"),
        ("Files/missing", "does not exist"),
        ("missing/dir/x", "does not exist"),
        ("Files/self", "does not exist"),
        ("Files/a", "directory"),
        ("Files/b/streamed:zone", "colon"),
        ("", "without a target"),
    ],
)
def test_bad_hard_link_is_refused_and_named(root: Path, target: str, reason: str) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/self", target)
    fails(root, tar, reason, what="Files/self", offset=0)


def test_hard_link_in_place_of_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.hardlink("Hives/SYSTEM_delta", "Files/a/f1")
    fails(root, tar, "processed outside", what="Hives/SYSTEM_delta")


def test_file_in_place_of_a_link_to_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", b"x")
    tar.hardlink("Files/l", "Files/Windows/System32/config/SAM")
    tar.file("Files/L", b"y")
    fails(root, tar, "in place of a hard link", what="Files/L")


SAM = "Files/Windows/System32/config/SAM"
LATER = {
    "below a standard file": lambda tar: tar.file(f"{SAM.lower()}/x"),
    "a directory as a standard file": lambda tar: tar.directory(SAM),
    "a symbolic link as a standard file": lambda tar: tar.symlink(SAM, "x"),
    "a hard link below a standard file": lambda tar: tar.hardlink(f"{SAM}/x", "Files/a/f1"),
    "a file above a standard file": lambda tar: tar.file("files/windows"),
    "a symbolic link above a standard file": lambda tar: tar.symlink("Files/Windows/System32", "x"),
    "below a link": lambda tar: tar.file("Files/New/Link/deep/x"),
    "a directory below a link": lambda tar: tar.directory("Files/New/link/d"),
    "a directory as a link": lambda tar: tar.directory("Files/new/link"),
    "a file above a link": lambda tar: tar.file("files/new"),
    "a hard link above a link": lambda tar: tar.hardlink("Files/new", "Files/a/f1"),
}


@pytest.mark.parametrize("case", LATER)
def test_what_would_be_lost_to_a_pending_file_is_refused(root: Path, case: str) -> None:
    """It comes into the image at the end, over whatever is there by then."""
    tar = TarBuilder()
    tar.file(SAM, b"x")
    tar.hardlink("Files/new/link", SAM)
    LATER[case](tar)
    fails(root, tar, "in place of .* processed outside")


def test_directories_above_pending_files_are_described_at_any_time(root: Path) -> None:
    tar = TarBuilder()
    tar.file(SAM, b"x")
    tar.hardlink("Files/new/link", SAM)
    for path in ("Files/Windows/System32/config", "Files", "Files/new", "Files/Windows/System32/confi"):
        tar.directory(path)
    tar.file("Files/Windows/System32/config/SAM2", b"y")
    tar.file(SAM, b"again")
    add(root, tar)
    image = image_of(root / "child")
    assert (image[r"Files\new\link"].data, image[r"Files\Windows\System32\config\SAM2"].data) == (b"again", b"y")


@pytest.mark.parametrize("hidden", [False, True])
def test_link_to_a_parents_standard_file_is_made_at_once(root: Path, hidden: bool) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/link", SAM)
    if hidden:
        tar.whiteout(SAM)
    else:
        tar.file(SAM, b"new")
    tar.file("Files/link/no longer a link")
    add(root, tar)
    tar = TarBuilder()
    tar.hardlink("Files/link", SAM)
    tar.whiteout(SAM)
    add(root, tar, "other")
    assert image_of(root / "other")[r"Files\link"].data == image_of(root / "base")[SAM.replace("/", "\\")].data
    assert r"Files\link\no longer a link" in image_of(root / "child")


def test_link_to_a_standard_file_that_no_layer_has_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.hardlink("Files/link", "Hives/SAM_DELTA")
    fails(root, tar, "does not exist", what="Files/link", offset=0)


def test_stream_on_a_standard_file_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", b"x")
    tar.stream("Files/Windows/System32/config/SAM", "zone", b"y")
    fails(root, tar, "stream on a file that is processed outside")


def test_stream_must_follow_its_file(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x")
    tar.file("Files/y")
    tar.stream("Files/x", "zone", b"y")
    fails(root, tar, "right before", what="Files/x:zone")


def test_stream_of_another_type_is_refused(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x")
    tar.stream("Files/x", "zone:$INDEX", b"y")
    fails(root, tar, r"type other than \$DATA", what="Files/x:zone:$INDEX")


def test_streams_of_directories_are_kept(root: Path) -> None:
    tar = TarBuilder()
    tar.directory("Files/dir")
    tar.stream("Files/dir", "zone", b"y" * 1000)
    tar.stream("Files/dir", "other:$DATA", b"")
    add(root, tar)
    assert image_of(root / "child")["Files\\dir"].streams == {"zone": b"y" * 1000, "other": b""}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tars.CHARACTER, "character device"),
        (tars.BLOCK_DEVICE, "block device"),
        (tars.FIFO, "FIFO"),
        (b"S", "sparse"),
        (b"V", "unknown type"),
    ],
)
def test_special_file_is_refused_and_named(root: Path, kind: bytes, reason: str) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.node("Files/special", kind)
    fails(root, tar, reason, what="Files/special", offset=512)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"MSWINDOWS.rawsd": "!!!!"}, "base64"),
        ({"MSWINDOWS.rawsd": "QUJD"}, "descriptor is malformed"),
        ({"MSWINDOWS.rawsd": "QUFB" * 30_000}, "65,535"),
        ({"MSWINDOWS.sd": "O:??"}, "SDDL"),
        ({"MSWINDOWS.sd": "D:" + "(A;;FA;;;SY)" * 30_000}, "262,144"),
        ({"MSWINDOWS.fileattr": "0x20"}, "attributes"),
        ({"MSWINDOWS.fileattr": "4294967296"}, "attributes"),
        ({"mtime": "soon"}, "time"),
        ({"mtime": "-99999999999"}, "time"),
        ({"LIBARCHIVE.creationtime": "1e5"}, "time"),
        ({"size": "-1"}, "size"),
        ({"size": "99999999999999999999"}, "size"),
        ({"MSWINDOWS.xattr.A": "?"}, "base64"),
        ({"MSWINDOWS.xattr." + "n" * 255: "QQ=="}, "254"),
        ({f"MSWINDOWS.xattr.{n}": "QUFB" * 1000 for n in range(40)}, "65,535"),
        ({f"MSWINDOWS.xattr.{n}": "" for n in range(6000)}, "65,535"),
        ({"GNU.sparse.major": "1"}, "sparse"),
    ],
)
def test_bad_record_is_refused_and_named(root: Path, records: dict[str, str], reason: str) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.file("Files/bad", pax=records)
    error = fails(root, tar, reason)
    assert error.offset == 512
    assert error.what in {"Files/bad", "tar"}


@pytest.mark.parametrize(
    "records", [{"MSWINDOWS.rawsd": "QUJD"}, {"MSWINDOWS.sd": "".join(p + "(A;;FA;;;SY)" * 3000 for p in ("D:", "S:"))}]
)
def test_malformed_descriptor_of_a_standard_file_is_refused_where_it_stands(
    root: Path, records: dict[str, str]
) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.file("Hives/SYSTEM_Delta", layers.hive(), pax=records)
    fails(root, tar, "descriptor is malformed", what="Hives/SYSTEM_Delta", offset=512)


@pytest.mark.parametrize("body", [b"9 a=b\n", b"x a=b\n", b"6 a=b", b"5 ab\n", b"0 a=b\n", b"9" * 20 + b" a=b\n"])
def test_malformed_records_are_refused(root: Path, body: bytes) -> None:
    tar = TarBuilder()
    tar.file("Files/before")
    tar.pax_raw(body)
    tar.file("Files/x")
    fails(root, tar, "PAX record", offset=512)


def test_wrong_checksum_is_refused_with_its_offset(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x", b"x" * 600)
    tar.file("Files/y", checksum=1)
    fails(root, tar, "wrong checksum", offset=1536)


def test_archive_that_is_cut_is_an_error_only_inside_an_entry(root: Path) -> None:
    tar = TarBuilder()
    tar.file("Files/x", b"x" * 600)
    tar.file("Files/y", b"y" * 600, pax=windows_pax(0x20))
    data = tar.finish()
    for cut in (1, 511, 512, 513, 1111, 1112, 1113, 1536, 1537, 2048, 2560, 3000, 3072, 3171, 3672, 3673, 4096, 4608):
        if cut in (1112, 1113, 1536, 3672, 3673, 4096, 4608):
            add(root, data[:cut], f"cut{cut}")
        else:
            in_header = cut in (1, 511, 1537)
            offset = cut if in_header else 0 if cut < 1536 else 1536
            fails(root, data[:cut], "ends inside an entry", offset=offset)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_no_room_for_a_standard_file_names_it(root: Path) -> None:
    code = (
        "import resource, sys, cimlayer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: cimlayer.import_layer(sys.argv[1], sys.argv[2], [sys.argv[3]], jobs=1)\n"
        "except OSError as error: print(error)"
    )
    tar = TarBuilder()
    tar.file("Hives/SAM_DELTA", bytes(3 << 20))
    (root / "child.tar").write_bytes(tar.finish())
    words = [sys.executable, "-c", code, *map(str, (root / "child.tar", root / "child", root / "base"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert str(root / "child" / "Hives" / "SAM_DELTA") in done.stdout


def test_missing_hives_of_a_base_layer_are_named(tmp_path: Path) -> None:
    tar = TarBuilder()
    layers.add_base_hives(tar, leave_out="SAM")
    with pytest.raises(FormatError, match=r"layer base: a base layer without Files\\Windows\\System32\\config\\SAM"):
        cimlayer.import_layer(io.BytesIO(tar.finish()), tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_layer_that_exists_is_left_alone(root: Path) -> None:
    before = snapshot(root)
    with pytest.raises(FileExistsError):
        cimlayer.import_layer(io.BytesIO(base_tar()), root / "base")
    assert snapshot(root) == before


def test_parent_without_an_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cimlayer.import_layer(io.BytesIO(base_tar()), tmp_path / "child", [tmp_path / "base"])
    assert list(tmp_path.iterdir()) == []


def test_link_to_a_standard_file_may_be_deeper_than_the_interpreter_can_recurse(root: Path) -> None:
    path = "/".join(["d"] * 2 * sys.getrecursionlimit())
    tar = TarBuilder()
    tar.file("Files/Windows/System32/config/SAM", bytes(8192))
    tar.hardlink(path, "Files/Windows/System32/config/SAM")
    add(root, tar)
    image = image_of(root / "child")
    assert image[path.replace("/", "\\")].data == bytes(8192)


def test_parents_that_no_entry_describes_are_made(root: Path) -> None:
    tar = TarBuilder()
    tar.file("new/very/deep/file", b"x", mtime=10**9)
    tar.file("Files/a/f1/below a file", b"x")
    add(root, tar)
    image = image_of(root / "child")
    assert image["new\\very\\deep\\file"].data == b"x"
    assert (image["new\\very"].attributes, image["new\\very"].sd) == (0x10, layers.NULL_DACL)
    assert image["Files\\a\\f1"].is_directory


# ---- sources ----


def big_tar() -> bytes:
    tar = TarBuilder()
    rng = random.Random(1)
    for n in range(40):
        tar.file(f"Files/big/{n}", rng.randbytes(100_003))
    return tar.finish()


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module.compress(data)


def skippable_frame(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip members": lambda data: b"".join(gzip.compress(data[at : at + 70_001]) for at in range(0, len(data), 70_001)),
    "zstd": zstd,
    "zstd frames": lambda data: zstd(data[:99_999]) + skippable_frame(b"note") + zstd(data[99_999:]),
    "zstd after a skippable frame": lambda data: skippable_frame(b"note") + zstd(data),
}


class Trickle(io.RawIOBase):
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.inner = io.BytesIO(data)
        self.rng = random.Random(2)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.inner.read(min(len(buffer), self.rng.choice((1, 3, 511, 4096, 65_536))))
        buffer[: len(piece)] = piece
        return len(piece)


class ReadOnly:
    """No more than a method `read`."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 9999) if size >= 0 else -1)


@pytest.fixture(scope="module")
def expected(
    imported_base: tuple[Path, Model], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, bytes]]:
    """The bytes of the layer that every source must give."""
    root = tmp_path_factory.mktemp("expected")
    shutil.copytree(imported_base[0], root, dirs_exist_ok=True)
    add(root, big_tar())
    return snapshot(root)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_compression_and_number_of_jobs_gives_the_same_bytes(
    root: Path, expected: dict[str, tuple[str, bytes]], encoding: str, jobs: int
) -> None:
    file = root.parent / f"{root.name}.tar"
    file.write_bytes(ENCODINGS[encoding](big_tar()))
    size = cimlayer.import_layer(file, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs).bytes
    file.unlink()
    assert size == 40 * 100_003
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("make", [Trickle, ReadOnly])
@pytest.mark.parametrize("encoding", ["plain", "gzip", "zstd"])
def test_file_objects_with_short_reads_are_taken(
    root: Path, expected: dict[str, tuple[str, bytes]], make: type, encoding: str, jobs: int
) -> None:
    source = make(ENCODINGS[encoding](big_tar()))
    cimlayer.import_layer(source, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs)
    assert snapshot(root) == expected


def test_pipe_is_taken(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(big_tar())

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as pipe:
        cimlayer.import_layer(pipe, root / "child", [root / "base"], sync=False, reproducible=True)
    thread.join()
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_stream_that_holds_more_than_its_descriptor_tells_is_read(
    root: Path, expected: dict[str, tuple[str, bytes]], jobs: int
) -> None:
    class Deciphered(Trickle):
        """As an unbuffered file of a TLS socket."""

        def fileno(self) -> int:
            return reading

    reading, writing = os.pipe()
    cancel = cimlayer.CancellationToken()
    guard = threading.Timer(30, cancel.cancel)
    guard.start()
    try:
        source = Deciphered(big_tar())
        cimlayer.import_layer(
            source, root / "child", [root / "base"], sync=False, reproducible=True, jobs=jobs, cancel=cancel
        )
    finally:
        guard.cancel()
        os.close(reading)
        os.close(writing)
    assert snapshot(root) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_pipe_that_nobody_writes_to_yet_is_waited_for_until_cancelled(
    root: Path, expected: dict[str, tuple[str, bytes]]
) -> None:
    os.mkfifo(root / "pipe")
    cancel = cimlayer.CancellationToken()
    threading.Timer(0.2, cancel.cancel).start()
    with pytest.raises(OperationCancelledError):
        cimlayer.import_layer(root / "pipe", root / "a" / "child", [], cancel=cancel)
    writing = threading.Timer(0.2, lambda: (root / "pipe").write_bytes(big_tar()))
    writing.start()
    cimlayer.import_layer(root / "pipe", root / "child", [root / "base"], sync=False, reproducible=True)
    writing.join()
    (root / "pipe").unlink()
    assert snapshot(root) == expected


def test_standard_input_is_taken(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    program = (
        "import cimlayer, sys;cimlayer.import_layer('-', sys.argv[1], [sys.argv[2]], sync=False, reproducible=True)"
    )
    subprocess.run(
        [sys.executable, "-c", program, root / "child", root / "base"], input=gzip.compress(big_tar()), check=True
    )
    assert snapshot(root) == expected


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed", "cut in the header"])
def test_damaged_compression_is_an_error_that_leaves_nothing(root: Path, encoding: str, damage: str, jobs: int) -> None:
    data = bytearray(ENCODINGS[encoding](big_tar()))
    if damage == "changed":
        data[len(data) // 2] ^= 0xFF
        data[len(data) // 2 + 1] ^= 0xFF
        data[-3] ^= 0xFF
    else:
        del data[len(data) // 2 if damage == "cut" else 6 :]
    before = snapshot(root)
    with pytest.raises(FormatError):
        cimlayer.import_layer(io.BytesIO(data), root / "child", [root / "base"], jobs=jobs)
    assert snapshot(root) == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_error_of_the_source_is_raised_and_leaves_nothing(root: Path, jobs: int) -> None:
    class Failing(Trickle):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if self.inner.tell() > 1 << 20:
                raise OSError(5, "the disk is gone")
            return super().readinto(buffer)

    before = snapshot(root)
    with pytest.raises(OSError, match="the disk is gone"):
        cimlayer.import_layer(Failing(big_tar()), root / "child", [root / "base"], jobs=jobs)  # type: ignore[arg-type]
    assert snapshot(root) == before


def test_source_that_does_not_block_is_waited_for(root: Path, expected: dict[str, tuple[str, bytes]]) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def feed() -> None:
        data = big_tar()
        with os.fdopen(writing, "wb") as pipe:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                pipe.write(half)
                pipe.flush()
                threading.Event().wait(0.1)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as source:
        cimlayer.import_layer(source, root / "child", [root / "base"], sync=False, reproducible=True)
    thread.join()
    assert snapshot(root) == expected


def test_error_in_the_tar_does_not_wait_for_the_end_of_a_pipe(root: Path) -> None:
    class Endless(io.RawIOBase):
        """An archive with a bad entry, followed by bytes without end that come slowly."""

        def __init__(self) -> None:
            super().__init__()
            bad = TarBuilder()
            bad.node("fifo", tars.FIFO)
            self.archive = io.BytesIO(bad.finish(end=b"").ljust(1 << 20, b"\1"))
            self.reads = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.reads += 1
            count = self.archive.readinto(buffer)
            if count == 0:
                threading.Event().wait(0.05)
                buffer[0], count = 1, 1
            return count

    source = Endless()
    with pytest.raises(FormatError, match="FIFO"):
        cimlayer.import_layer(source, root / "child", [root / "base"], jobs=2)  # type: ignore[arg-type]
    assert source.reads < 100


# ---- bounds ----

MEASURE = """
import resource, sys
import cimlayer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    cimlayer.import_layer("-", sys.argv[1], [sys.argv[2]], sync=False, jobs=int(sys.argv[3]))
except cimlayer.errors.FormatError as error:
    print("refused", error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def growth(root: Path, pieces: Iterator[bytes], jobs: int = 2) -> int:
    """MiB by which a process grows that imports what comes through a pipe."""
    command = [sys.executable, "-c", MEASURE, root / "child", root / "base", str(jobs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for piece in pieces:
                process.stdin.write(piece)
            process.stdin.close()
        except BrokenPipeError:
            pass
        answer = process.stdout.read()
    assert process.returncode == 0
    return int(answer) >> 10


def test_memory_does_not_grow_with_the_size_of_files(root: Path) -> None:
    def tar() -> Iterator[bytes]:
        yield tars.header(b"Files/huge", 300 << 20)
        for n in range(300):
            yield n.to_bytes(4, "little") * (1 << 18)
        yield bytes(1024)

    assert growth(root, tar()) < 40


def test_memory_for_headers_of_records_is_bounded(root: Path) -> None:
    record = tars.pax_record("comment", "c" * ((8 << 20) - 100))

    def tar() -> Iterator[bytes]:
        for n in range(12):
            for kind in (tars.PAX_GLOBAL, tars.PAX_FILE):
                yield tars.header(b"x", len(record), kind) + tars.padded(record)
            yield tars.header(f"Files/{n}".encode())
        yield bytes(1024)

    assert growth(root, tar()) < 60


def test_records_beyond_all_limits_are_refused(root: Path) -> None:
    fails(root, tars.header(b"x", (8 << 20) + 1, tars.PAX_FILE), "8 MiB", offset=0)
    tar = TarBuilder()
    tar.pax_global({"path": "x" * 8_193})
    fails(root, tar, "8,192", offset=0)
    tar = TarBuilder()
    for n in range(10):  # all of which hold for what follows
        tar.pax_global({f"MSWINDOWS.xattr.{n}.{i:04}": "QQ==" for i in range(100)})
    fails(root, tar, "8,192")


def test_many_entries_of_one_name_are_cheap(root: Path) -> None:
    entry = tars.header(b"Files/same")

    def tar() -> Iterator[bytes]:
        for _ in range(50):
            yield entry * 2000
        yield bytes(1024)

    assert growth(root, tar(), jobs=1) < 60


def attribute_records(attributes: dict[str, str]) -> dict[str, str]:
    return {f"MSWINDOWS.xattr.{name}": base64.b64encode(value.encode()).decode() for name, value in attributes.items()}


@pytest.mark.parametrize(
    ("globals_", "local", "expected"),
    [
        ([{"c": "1", "a": "2", "b": "3"}], {}, {"a": "2", "b": "3", "c": "1"}),
        ([], {"c": "1", "a": "2"}, {"a": "2", "c": "1"}),
        ([{"c": "1", "a": "2"}], {"d": "4", "b": "3"}, {"a": "2", "b": "3", "c": "1", "d": "4"}),
        ([{"c": "1", "a": "2"}], {"c": "5"}, {"a": "2", "c": "5"}),
        ([{"c": "1", "a": "2"}], {"c": ""}, {"a": "2"}),
        ([{"c": "1", "a": "2"}, {"b": "3", "a": "4"}], {"ab": "5"}, {"a": "4", "ab": "5", "b": "3", "c": "1"}),
        ([{"c": "1", "a": "2"}, {"a": ""}], {"b": "3"}, {"b": "3", "c": "1"}),
        ([{"c": "1", "a": "2"}, {"a": ""}, {"a": "3"}], {}, {"a": "3", "c": "1"}),
    ],
)
def test_attributes_of_all_entries_and_of_one(
    root: Path, globals_: list[dict[str, str]], local: dict[str, str], expected: dict[str, str]
) -> None:
    """By name; of one name the latest counts, and those of the entry come after all others."""
    tar = TarBuilder()
    for attributes in globals_:
        tar.pax_global(attribute_records(attributes))
    for n in range(2):
        tar.file(f"Files/{n}", pax=attribute_records(local))
    add(root, tar)
    with cimlayer.ImageReader(root / "cim-layers" / "child.cim") as image:
        for n in range(2):
            assert list(attributes_in(image.extended_attributes(rf"Files\{n}")).items()) == list(expected.items())


def attributes_in(data: bytes) -> dict[str, str]:
    """The names and values of a FILE_FULL_EA_INFORMATION list."""
    found = {}
    while data:
        following, _, name_size, value_size = struct.unpack_from("<IBBH", data)
        name, value = data[8 : 8 + name_size], data[9 + name_size : 9 + name_size + value_size]
        found[name.decode()] = value.decode()
        data = data[following:] if following else b""
    return found


# ---- the importer by itself ----


class Handler:
    """Answers as it is told."""

    def __init__(self, **answers: Callable[..., object]) -> None:
        self.__dict__.update(answers)


def described(name: str) -> bytes:
    tar = TarBuilder()
    tar.file(name, pax={"MSWINDOWS.sd": "D:"})
    return tar.finish()


def refuse(*_: object) -> bytes:
    raise ValueError("not this one")


def test_what_the_handler_refused_is_not_gone_on_with(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        importer = LayerImporter(image, Handler(descriptor_from_sddl=refuse), [])
        with pytest.raises(FormatError, match="not this one"):
            importer.feed(described("f"))
        for call in (lambda: importer.feed(bytes(1024)), importer.finish):
            with pytest.raises(ImageError):
                call()
        image.commit()
    assert read_files(tmp_path / "a.cim") == {}


def test_a_handler_may_close_the_image(tmp_path: Path) -> None:
    image = writer(tmp_path, None, "a.cim")

    def close(_: object) -> bytes:
        image.close()
        return NULL_DACL

    importer = LayerImporter(image, Handler(descriptor_from_sddl=close), [])
    with pytest.raises(ValueError, match="closed"):
        importer.feed(described("f"))


def test_an_importer_needs_an_image() -> None:
    with pytest.raises(TypeError):
        LayerImporter(None, None, [])


def test_an_importer_has_a_limit_of_standard_files(tmp_path: Path) -> None:
    with writer(tmp_path, None, "a.cim") as image:
        LayerImporter(image, None, [f"file{number}" for number in range(64)])
        with pytest.raises(ValueError, match="64"):
            LayerImporter(image, None, [f"file{number}" for number in range(65)])
