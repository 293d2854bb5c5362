"""`cimlayer hive` and `cimlayer bcd`."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.regf import Hive
from support.commands import call, run, succeed
from support.hives import REG_DWORD, REG_SZ, TOMBSTONE, Builder, Node, Val, corpus, with_checksum

REG_MULTI_SZ = 7
SELECT = "\\Select\n    Current  REG_DWORD  0x1 (1)\n"


def text(value: str) -> bytes:
    return value.encode("utf-16-le") + b"\0\0"


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def old_hive() -> bytes:
    hive = Hive.empty(116444736000000000, name="old")
    hive.create_key("Select")
    hive.set_value("Select", "Current", REG_DWORD, number(1))
    hive.create_key("Software\\Old")
    hive.create_key("Software\\Vendor")
    hive.set_value("Software\\Vendor", "", REG_SZ, text("default"))
    hive.set_value("Software\\Vendor", "Gone", REG_SZ, text("gone"))
    hive.set_value("Software\\Vendor", "List", REG_MULTI_SZ, text("one") + text("two") + b"\0\0")
    hive.set_value("Software\\Vendor", "Esc\x1b[31m", REG_SZ, text("a\nb"))
    return hive.to_bytes()


def new_hive() -> bytes:
    hive = Hive.open(old_hive(), name="new")
    hive.set_value("Select", "Current", REG_DWORD, number(2))
    hive.delete_key("Software\\Old")
    hive.delete_value("Software\\Vendor", "Gone")
    hive.create_key("Software\\Vendor\\New")
    hive.set_value("Software\\Vendor\\New", "Version", REG_SZ, text("2"))
    return hive.to_bytes()


def delta_hive() -> bytes:
    builder = Builder(minor=6, layered=True)
    changed = Node("Changed", [Val("Set", REG_SZ, text("now")), Val("Unset", tombstone=True)])
    return builder.file(builder.key(Node(subkeys=[changed, Node("Dropped", layering=TOMBSTONE)])))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hive files, and two layers with an image each."""
    directory = tmp_path_factory.mktemp("hives")
    contents = {"old": old_hive(), "new": new_hive(), "delta": delta_hive()}
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    images = directory / "cim-layers"
    images.mkdir()
    for layer, system in (("1", "old"), ("2", "new")):
        (directory / layer).mkdir()
        with ImageWriter(images, None, f"{layer}.cim", sync=False) as writer:
            writer.create_file("Hives", attributes=0x10)
            for name, content in (("SYSTEM", contents[system]), ("DEFAULTUSER", contents["old"])):
                writer.create_file(f"Hives\\{name}_BASE", size=len(content))
                writer.write(content)
            writer.commit()
    (directory / "2" / "Hives").mkdir()
    (directory / "2" / "Hives" / "system_delta").write_bytes(contents["delta"])
    return directory


# ---- show ----


def test_show_lists_the_hives_of_a_layer(files: Path) -> None:
    lines = succeed("hive", "show", files / "1").splitlines()
    assert [line.split()[0] for line in lines] == ["SYSTEM", "DEFAULT"]
    assert lines[1].endswith("  Hives/DEFAULTUSER_BASE")
    image = files / "cim-layers" / "1.cim"
    records = [json.loads(line) for line in succeed("hive", "show", image, "--json").splitlines()]
    assert records[0] == {"hive": "SYSTEM", "path": "Hives/SYSTEM_BASE", "size": len(old_hive())}


@pytest.mark.parametrize("hive", ["SYSTEM", "system", "SYSTEM_BASE", r"Hives\system_base", "/Hives/SYSTEM_BASE"])
def test_show_takes_a_hive_by_name_and_by_path(files: Path, hive: str) -> None:
    assert succeed("hive", "show", files / "1", hive, "select") == SELECT.replace("Select", "select")


def test_show_of_a_key_has_its_values_and_subkeys(files: Path) -> None:
    assert succeed("hive", "show", files / "old", "Select") == SELECT
    assert succeed("hive", "show", files / "old") == "\\\n\\Select\n\\Software\n"
    shown = succeed("hive", "show", files / "old", "Software\\Vendor").splitlines()
    assert shown[0] == "\\Software\\Vendor"
    assert '    (default)  REG_SZ  "default"' in shown
    assert '    List  REG_MULTI_SZ  "one", "two"' in shown
    assert '    Esc\\x1b[31m  REG_SZ  "a\\nb"' in shown


def test_show_recursive_has_all_keys_below(files: Path) -> None:
    shown = succeed("hive", "show", "-R", files / "new", "Software")
    assert [line for line in shown.splitlines() if line.startswith("\\")] == [
        "\\Software",
        "\\Software\\Vendor",
        "\\Software\\Vendor\\New",
    ]


def test_show_json_is_one_object_a_key(files: Path) -> None:
    (line,) = succeed("hive", "show", files / "old", "Select", "--json").splitlines()
    key = json.loads(line)
    assert key["path"] == "Select"
    assert key["values"] == [{"name": "Current", "type": "REG_DWORD", "data": 1}]
    assert key["last_write_time"] == "1970-01-01T00:00:00.0000000Z"
    assert key["security"].startswith("O:")
    root, select, *_ = succeed("hive", "show", "-R", files / "old", "--json").splitlines()
    assert json.loads(root)["subkeys"] == ["Select", "Software"]
    assert json.loads(select) == key


def test_show_says_what_a_deltas_keys_do(files: Path) -> None:
    assert "\\Dropped  (deletes this key)\n" in succeed("hive", "show", files / "delta")
    assert "    Unset  (deleted)\n" in succeed("hive", "show", files / "delta", "Changed")


def test_the_earlier_name_of_the_command_works_but_is_not_listed(files: Path) -> None:
    assert succeed("registry", "show", files / "old", "Select") == SELECT
    assert "registry  " not in succeed("--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["old", "Nothing\\There"], "old: Nothing\\There: no such key"),
        (["old", "Nothing/There"], "old: Nothing/There: no such key (backslashes separate keys)"),
        (["1", "SAM"], "SAM: no such hive in 1.cim (it has: SYSTEM, DEFAULT)"),
        (["missing"], "missing: No such file or directory"),
        (["3"], "3: not a CIM layer: "),
    ],
)
def test_show_of_what_is_not_there_fails(files: Path, arguments: list[str], message: str) -> None:
    (files / "3").mkdir(exist_ok=True)
    result = call("hive", "show", files / arguments[0], *arguments[1:])
    assert result.exit_code == 1
    assert result.stderr.startswith("cimlayer: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "old", "Select", "Current", "x"],
        ["show", "1", "SYSTEM", "a", "b", "c"],
        ["show", "1", "HKLM\\SYSTEM\\a", "b", "c"],
        ["show", "-R", "old", "Select", "Current"],
        ["export", "old", "SYSTEM", "Select"],
        ["export", "1", "SYSTEM", "a", "b"],
    ],
)
def test_too_many_names_are_a_wrong_call(files: Path, arguments: list[str]) -> None:
    words = [files / word if word in ("old", "1") else word for word in arguments]
    assert call("hive", *words).exit_code == 2


VALUES = {
    ("Select", "Current"): "1\n",
    ("\\Software\\Vendor\\", "(default)"): "default\n",
    ("software\\vendor", "LIST"): "one\ntwo\n",
    ("Software\\Vendor", "Esc\x1b[31m"): "a\\nb\n",
}


@pytest.mark.parametrize("place", VALUES)
def test_show_of_a_value_is_its_data_alone(files: Path, place: tuple[str, str]) -> None:
    assert succeed("hive", "show", files / "old", *place) == VALUES[place]
    assert succeed("hive", "show", files / "1", "SYSTEM", *place) == VALUES[place]
    for root in ("HKLM", "hkey_local_machine"):
        key = f"{root}\\SYSTEM\\{place[0].strip(chr(92))}"
        assert succeed("hive", "show", files / "1", key, place[1]) == VALUES[place]
    name = json.loads(succeed("hive", "show", files / "old", *place, "--json"))["name"]
    assert (name or "(default)").lower() == place[1].lower()


def test_show_of_a_value_that_is_bytes_or_missing(tmp_path: Path) -> None:
    hive = Hive.empty(0)
    hive.set_value("", "bytes", 3, b"\1\xff")
    (tmp_path / "hive").write_bytes(hive.to_bytes())
    assert succeed("hive", "show", tmp_path / "hive", "\\", "bytes") == "01ff\n"
    missing = call("hive", "show", tmp_path / "hive", "\\", "x")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no value 'x'" in missing.stderr


def test_paths_of_the_registry_name_a_hive_of_a_layer(files: Path) -> None:
    assert succeed("hive", "show", files / "1", "HKLM\\SYSTEM\\Select") == SELECT
    assert succeed("hive", "show", files / "1", "HKU\\.DEFAULT") == succeed("hive", "show", files / "1", "DEFAULT")
    assert "HIVE\\Select" in call("hive", "export", files / "1", "HKLM\\SYSTEM\\Select").stdout_bytes.decode("utf-16")
    for key in ("HKCU\\Software", "HKEY_CURRENT_USER\\Software", "HKLM", "HKU\\S-1-5-18"):
        assert call("hive", "show", files / "1", key).exit_code == 1


def test_a_hive_from_standard_input(files: Path) -> None:
    content = (files / "old").read_bytes()
    assert succeed("hive", "show", "-", "Select", input=content) == SELECT
    assert succeed("hive", "show", "-", "Select", "Current", input=content) == "1\n"
    assert succeed("hive", "diff", "-", files / "old", input=content) == ""
    broken = call("hive", "show", "-", input=b"no hive")
    assert (broken.exit_code, broken.stderr.startswith("cimlayer: standard input: ")) == (1, True)


def test_show_of_a_dirty_hive_uses_the_logs_beside_it(tmp_path: Path) -> None:
    hive = tmp_path / "hive"
    hive.write_bytes(corpus("NewDirtyHive1.hive"))
    result = call("hive", "show", hive, "-R")
    assert result.stderr == f"cimlayer: warning: {hive}: a dirty hive is read as it is\n"
    for log in ("LOG1", "LOG2"):
        (tmp_path / f"hive.{log}").write_bytes(corpus(f"NewDirtyHive1.{log}"))
    recovered = succeed("hive", "show", hive, "-R")
    assert recovered != result.stdout
    hive.write_bytes(corpus("NewDirtyHive1.RecoveredHive_Windows10"))
    assert succeed("hive", "show", hive, "-R") == recovered


def test_show_takes_names_with_slashes(tmp_path: Path) -> None:
    hive = Hive.empty(0)
    hive.set_value("Control\\I/O System", "v", 4, b"\1\0\0\0")
    (tmp_path / "hive").write_bytes(hive.to_bytes())
    assert "v  REG_DWORD  0x1 (1)" in succeed("hive", "show", tmp_path / "hive", "Control\\I/O System")
    exported = run("hive", "export", tmp_path / "hive", "\\Control\\I/O System\\").stdout.decode("utf-16")
    assert "Control\\I/O System]\r\n" in exported


def test_bcd_show_of_a_dirty_store_warns_in_one_line(tmp_path: Path) -> None:
    hive = Hive.empty(0)
    hive.create_key("Objects")
    dirty = bytearray(hive.to_bytes())
    dirty[8:12] = bytes(4)
    (tmp_path / "BCD").write_bytes(with_checksum(bytes(dirty)))
    result = call("bcd", "show", tmp_path / "BCD")
    assert result.exit_code == 0
    assert result.stderr == f"cimlayer: warning: {tmp_path / 'BCD'}: a dirty hive is read as it is\n"


def test_a_corrupt_hive_fails_with_its_name_and_the_offset(tmp_path: Path) -> None:
    hive = tmp_path / "hive"
    hive.write_bytes(old_hive()[:5000])
    result = call("hive", "show", hive)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cimlayer: {hive}: ")
    assert "(at offset " in result.stderr


# ---- diff ----

DIFFERENCES = """\
~ \\Select
    ~ Current  REG_DWORD  0x2 (2)  (was REG_DWORD  0x1 (1))
~ \\Software\\Vendor
    - Gone
+ \\Software\\Vendor\\New
    + Version  REG_SZ  "2"
- \\Software\\Old
"""


def test_diff_of_two_hives(files: Path) -> None:
    assert succeed("hive", "diff", files / "old", files / "new") == DIFFERENCES
    assert succeed("hive", "diff", files / "old", files / "old") == ""
    records = succeed("hive", "diff", files / "old", files / "new", "--json").splitlines()
    assert [json.loads(record)["kind"] for record in records] == ["changed", "changed", "added", "deleted"]


def test_diff_of_two_layers_names_the_hive(files: Path) -> None:
    expected = "".join(
        line.replace("\\", "SYSTEM\\", 1) if line[0] in "~+-" else line
        for line in DIFFERENCES.splitlines(keepends=True)
    )
    assert succeed("hive", "diff", files / "1", files / "2") == expected
    assert succeed("hive", "diff", files / "1", files / "2", "--hive", "default") == ""
    assert succeed("hive", "diff", files / "1", files / "2", "--hive", "system") == DIFFERENCES
    first = succeed("hive", "diff", files / "1", files / "2", "--json").splitlines()[0]
    assert json.loads(first)["hive"] == "SYSTEM"


def test_diff_of_a_hive_with_that_of_a_layer(files: Path) -> None:
    assert succeed("hive", "diff", files / "old", files / "2", "--hive", "SYSTEM") == DIFFERENCES
    assert call("hive", "diff", files / "old", files / "2").exit_code == 2


def test_diff_of_a_delta_alone_shows_what_it_does(files: Path) -> None:
    expected = '~ \\Changed\n    ~ Set  REG_SZ  "now"\n    - Unset\n- \\Dropped\n'
    assert succeed("hive", "diff", files / "delta") == expected
    of_layer = succeed("hive", "diff", files / "2")
    assert of_layer == expected.replace("~ \\", "~ SYSTEM\\").replace("- \\", "- SYSTEM\\")
    assert succeed("hive", "diff", files / "1") == ""
    assert call("hive", "diff", files / "cim-layers" / "2.cim").exit_code == 2


@pytest.mark.parametrize("layers", [["1"], ["2"], ["1", "2"]])
def test_diff_of_a_hive_that_no_layer_has_fails(files: Path, layers: list[str]) -> None:
    result = call("hive", "diff", *(files / layer for layer in layers), "--hive", "bogus")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("cimlayer: bogus: no such hive")
    assert result.stderr.count("\n") == 1


def test_diff_of_a_layer_shows_the_delta_of_one_hive(files: Path) -> None:
    assert succeed("hive", "diff", files / "2", "--hive", "system") == succeed("hive", "diff", files / "2")
    assert succeed("hive", "diff", files / "2", "--hive", "SAM") == ""


# ---- export ----


def test_export_is_what_regedit_takes(files: Path) -> None:
    done = run("hive", "export", files / "1", "SYSTEM", "Select")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\xff\xfe")
    expected = [
        "Windows Registry Editor Version 5.00",
        "",
        "[HKEY_LOCAL_MACHINE\\HIVE\\Select]",
        '"Current"=dword:00000001',
        "",
    ]
    assert done.stdout[2:].decode("utf-16-le").split("\r\n")[:5] == expected


def test_export_under_another_root(files: Path) -> None:
    done = run("hive", "export", files / "old", "Select", "--root", "HKEY_USERS\\X")
    assert "[HKEY_USERS\\X\\Select]".encode("utf-16-le") in done.stdout


def test_export_of_a_layer_needs_a_hive(files: Path) -> None:
    assert call("hive", "export", files / "1").exit_code == 2


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no names of open files")
@pytest.mark.parametrize("words", [("show",), ("show", "Select"), ("diff",), ("export",)])
def test_a_pipe_is_no_source(words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.write(write, old_hive())
    os.close(write)
    result = call("hive", words[0], f"/dev/fd/{read}", *words[1:])
    os.close(read)
    assert (result.exit_code, result.stderr) == (1, f"cimlayer: /dev/fd/{read}: not a regular file\n")


# ---- bcd ----


def test_bcd_show_prints_a_store(tmp_path: Path) -> None:
    store = tmp_path / "BCD"
    store.write_bytes(corpus("BCD"))
    shown = succeed("bcd", "show", store)
    assert "Windows Boot Manager\n--------------------\nidentifier              {bootmgr}\n" in shown
    assert "partition={36be3955-63bf-4068-a6ab-00195cca3a22}" in shown
    assert shown.endswith("\n") and not shown.endswith("\n\n")


def test_bcd_show_of_another_hive_fails(files: Path) -> None:
    result = call("bcd", "show", files / "old")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cimlayer: {files / 'old'}: not a boot configuration store")
