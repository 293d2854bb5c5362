"""Layer tars imported, read by an independent reader: against the model, whiteouts, links to standard files."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from cimlayer.errors import OperationCancelledError
from cimlayer.formats.sddl import descriptor_from_sddl
from support import layers, tars
from support.imports import MANAGED, OWNED, add, described, imported_base, model, root  # noqa: F401  fixtures
from support.layers import Model, differences, image_of
from support.tars import TarBuilder, windows_pax


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
