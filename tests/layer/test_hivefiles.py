"""Of a file that may be a hive only what a hive can be is read."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer.errors import CorruptHiveError
from cimlayer.layer.directory import LayerDirectory
from cimlayer.layer.hivefiles import open_in_directory, open_in_image, read_hive
from support.hives import REG_BINARY, Node, Val, build, new_log
from support.images import add, writer
from support.layers import hive

HIVE = hive(a="b")


def state(number: int) -> bytes:
    """A dirty hive after a write, which its value tells."""
    node = Node(values=[Val("written", REG_BINARY, bytes([number]) * 8)])
    return build(node, sequences=(number + 1, number), timestamp=number)


LOG = new_log(state(2), 2, [(2, state(2)), (3, state(3))])


def test_logs_in_a_layer_directory_are_used(tmp_path: Path) -> None:
    (tmp_path / "Hives").mkdir()
    (tmp_path / "Hives" / "SYSTEM_DELTA").write_bytes(state(2))
    (tmp_path / "Hives" / "system_delta.log1").write_bytes(LOG)
    found = open_in_directory(LayerDirectory(tmp_path), r"Hives\SYSTEM_DELTA", "name")
    assert found.value("", "written").data == bytes([3]) * 8


def test_logs_in_an_image_are_used(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "hive", state(2))
        add(image, "HIVE.log1", LOG)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        assert open_in_image(reader, "hive", "name").value("", "written").data == bytes([3]) * 8


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_a_file_of_no_bytes_is_a_hive_only_where_one_may_be(tmp_path: Path, may_be_empty: bool) -> None:
    (tmp_path / "hive").write_bytes(b"")
    directory = LayerDirectory(tmp_path)
    if may_be_empty:
        assert open_in_directory(directory, "hive", "name", may_be_empty=True).root.subkeys() == []
    else:
        with pytest.raises(CorruptHiveError, match="name: the file ends"):
            open_in_directory(directory, "hive", "name")


def claiming(size: int) -> bytes:
    return HIVE[:40] + size.to_bytes(4, "little") + HIVE[44:]


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (HIVE, HIVE),
        (HIVE + bytes(100_000), HIVE),
        (HIVE[:-1], HIVE[:-1]),
        (claiming(0x7FFFF000), claiming(0x7FFFF000)),
        (claiming(0x80000000), claiming(0x80000000)[:4096]),
        (b"x" * 100_000, b"x" * 4096),
        (b"regf", b"regf"),
        (b"", b""),
    ],
)
def test_a_hive_is_read_as_far_as_it_says(data: bytes, read: bytes) -> None:
    assert read_hive(io.BytesIO(data)) == read


def test_a_hole_of_an_image_is_no_hive_and_takes_no_memory(tmp_path: Path) -> None:
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "hive", HIVE)
        image.create_file("hole", size=1 << 47)
        image.commit()
    with cimlayer.ImageReader(tmp_path / "image.cim") as reader:
        assert open_in_image(reader, "hive", "name").to_bytes() == Hive.open(HIVE).to_bytes()
        tracemalloc.start()
        try:
            with pytest.raises(CorruptHiveError, match="name: not a registry hive"):
                open_in_image(reader, "hole", "name")
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


# ---- open_hive, and a hive as a mapping ----


def text(value: str) -> bytes:
    return value.encode("utf-16-le") + b"\0\0"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer directory, and an image with a hive of Windows."""
    software = Hive.empty(0)
    software.set_value(r"Microsoft\Windows NT\CurrentVersion", "ProductName", 1, text("Windows Server"))
    software.set_value(r"Microsoft\Windows NT\CurrentVersion", "Build", 4, bytes([1, 0, 0, 0]))
    software.set_value(r"Microsoft\Windows NT\CurrentVersion", "Names", 7, text("a") + text("b") + b"\0\0")
    software.set_value(r"Microsoft\Windows NT\CurrentVersion", "Id", 3, b"\1\2")
    software.create_key("Classes")
    (tmp_path / "cim-layers").mkdir()
    (tmp_path / "1").mkdir()
    with writer(tmp_path / "cim-layers", None, "1.cim") as image:
        add(image, "Hives", attributes=0x10)
        add(image, "Hives\\SOFTWARE_BASE", software.to_bytes())
        image.commit()
    return tmp_path / "1"


def test_a_hive_of_a_layer_by_name(layer: Path) -> None:
    image_path = layer.parent / "cim-layers" / "1.cim"
    with cimlayer.ImageReader(layer) as image:
        for source in (layer, str(layer), image_path, image):
            for name in ("SOFTWARE", "software", "HKLM\\SOFTWARE", "SOFTWARE_BASE", "Hives/SOFTWARE_BASE"):
                assert "Classes" in cimlayer.open_hive(source, name)
    with pytest.raises(FileNotFoundError, match=r"it has: SOFTWARE"):
        cimlayer.open_hive(layer, "SYSTEM")
    with pytest.raises(FileNotFoundError, match="not a CIM layer"):
        cimlayer.open_hive(layer.parent, "SOFTWARE")
    with pytest.raises(ValueError, match="a key in it"):
        cimlayer.open_hive(layer, "HKLM\\SOFTWARE\\Microsoft")
    with pytest.raises(FileNotFoundError, match="not in a hive of a layer"):
        cimlayer.open_hive(layer, "HKCU\\Software")
    for wrong in (b"SOFTWARE", None, 5):
        with pytest.raises(TypeError):
            cimlayer.open_hive(layer, wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            cimlayer.open_hive(wrong, "SOFTWARE")  # type: ignore[arg-type]


def test_keys_are_found_as_in_a_mapping(layer: Path) -> None:
    hive = cimlayer.open_hive(layer, "SOFTWARE")
    key = hive["microsoft\\Windows NT\\CurrentVersion"]
    assert key["\\"].path == key.path
    assert hive["Microsoft"]["\\Windows NT\\"]["currentversion"].name == "CurrentVersion"
    assert hive["Microsoft"]["Windows NT\\CurrentVersion"].value("Build").value == 1
    assert (list(hive), len(hive), list(hive["Microsoft"])) == (["Classes", "Microsoft"], 2, ["Windows NT"])
    assert ("Windows nt" in hive["Microsoft"], "x" in hive["Microsoft"], "x" in hive) == (True, False, False)
    assert (hive.get("x"), hive.get("x", 5), key.get("x")) == (None, 5, None)
    assert hive.get("Classes") is not None
    assert (bool(hive["Classes"]), len(hive["Classes"]), bool(Hive.empty(0))) == (True, 0, True)
    assert (repr(hive), repr(hive["Classes"])) == (
        "<Hive '1.cim:Hives\\\\SOFTWARE_BASE'>",
        "<Key 'Classes' of '1.cim:Hives\\\\SOFTWARE_BASE'>",
    )
    for missing in (lambda: hive["x"], lambda: hive["Microsoft"]["x\\y"], lambda: hive["Classes"].value("x")):
        for kind in (KeyError, FileNotFoundError, cimlayer.KeyNotFoundError):
            with pytest.raises(kind, match=r"no such key|no value"):
                missing()
    with pytest.raises(cimlayer.KeyNotFoundError, match=r"SOFTWARE_BASE: Microsoft.*x.*y"):
        hive["Microsoft"]["x\\y"]
    for wrong in (b"Microsoft", None, 0):
        with pytest.raises(TypeError):
            hive[wrong]  # type: ignore[index]
        with pytest.raises(TypeError):
            key[wrong]  # type: ignore[index]


def test_values_are_what_their_types_say(layer: Path) -> None:
    key = cimlayer.open_hive(layer, "SOFTWARE")[r"Microsoft\Windows NT\CurrentVersion"]
    assert {value.name: value.value for value in key.values()} == {
        "ProductName": "Windows Server",
        "Build": 1,
        "Names": ["a", "b"],
        "Id": b"\1\2",
    }
    assert repr(key.value("productname")) == "HiveValue('ProductName', REG_SZ, 'Windows Server')"
    assert (key.value("Build").type_name, key.value("Build").type) == ("REG_DWORD", 4)
    assert cimlayer.HiveValue("x", 1, b"\0\0\0\0\0\0", False).value == b"\0\0\0\0\0\0"
    assert key.last_write_datetime is not None


def test_a_hive_from_an_open_file(layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cimlayer.ImageReader(layer) as image:
        content = image.read("Hives/SOFTWARE_BASE")
        with image.open("Hives/SOFTWARE_BASE") as raw:
            hive = Hive.open(raw)
            assert (hive.name, "Classes" in hive) == ("Hives/SOFTWARE_BASE", True)
    assert "Classes" in Hive.open(io.BytesIO(content))
    assert Hive.open(io.BytesIO(content)).name == "hive"
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        assert Hive.open(file).name == str(tmp_path / "file")
    monkeypatch.setattr("cimfs_ext.hivesource._MAX_FILE", 4 << 20)  # 2 GiB take their time
    with pytest.raises(CorruptHiveError, match="larger than a hive"):
        Hive.open(Endless())
    for wrong in (None, 5, io.StringIO("regf")):
        with pytest.raises(TypeError):
            Hive.open(wrong)  # type: ignore[arg-type]


class Endless(io.RawIOBase):
    """More than a hive can be, all of it one piece of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = bytes(1 << 20)

    def read(self, size: int = -1) -> bytes:
        return self.piece
