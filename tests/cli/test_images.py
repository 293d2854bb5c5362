"""`cimlayer` inspect, diff, chain, extract, export, create, destroy and gc."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from support.commands import call, program, run, succeed
from support.image_layers import base_tar, import_tar
from support.tars import TarBuilder


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """base and child."""
    builder = base_tar()
    builder.file("Files/old.txt", b"old")
    builder.file("Files/text.txt", b"text")
    builder.symlink("Files/link", "text.txt")
    import_tar(tmp_path, "base", builder)
    changes = TarBuilder()
    changes.file("Files/new.txt", b"new")
    changes.file("Files/text.txt", b"changed")
    changes.whiteout("Files/old.txt")
    import_tar(tmp_path, "child", changes, ["base"])
    return tmp_path


def test_inspect_shows_an_image(layers: Path) -> None:
    shown = succeed("inspect", layers / "child")
    assert "own region set" in shown
    assert "written by base.cim, used by base.cim, child.cim" in shown
    facts = json.loads(succeed("inspect", layers / "child", "--json"))
    assert [one["owner"] for one in facts["region_sets"]] == ["base.cim", "child.cim"]
    assert facts["contents"]["own_files"] == 2


def test_inspect_shows_a_directory(layers: Path) -> None:
    cims = layers / "cim-layers"
    (cims / "broken.cim").write_bytes(b"x")
    (cims / "image_00000000-0000-0000-0000-000000000000_0").write_bytes(b"x")
    shown = succeed("inspect", cims)
    assert "child.cim, on base.cim\n    region_" in shown
    assert "broken.cim: cannot be read" in shown
    assert shown.endswith("image_00000000-0000-0000-0000-000000000000_0  1 byte\n")
    facts = json.loads(succeed("inspect", cims, "--json"))
    assert [one["name"] for one in facts["images"]] == ["base.cim", "child.cim"]
    assert facts["unreadable"].keys() == {"broken.cim"}


def test_diff_lists_what_changed(layers: Path) -> None:
    lines = succeed("diff", layers / "base", layers / "child").splitlines()
    assert lines == ["+ Files/new.txt", "- Files/old.txt", "M Files/text.txt (content)"]
    as_json = [json.loads(line) for line in succeed("diff", layers / "base", layers / "child", "--json").splitlines()]
    assert as_json[2] == {"change": "changed", "path": "Files/text.txt", "aspects": ["content"]}


def test_diff_shows_the_root_as_a_slash(tmp_path: Path) -> None:
    for name, time in (("old", 1), ("new", 2)):
        with ImageWriter(tmp_path, None, f"{name}.cim", time=time, sync=False) as writer:
            writer.commit()
    assert succeed("diff", tmp_path / "old.cim", tmp_path / "new.cim") == "M / (times)\n"


def test_chain_lists_layers_down_to_the_base(layers: Path) -> None:
    assert succeed("chain", layers / "child").splitlines() == [str(layers / "child"), str(layers / "base")]
    (layers / "cim-layers/base.cim").unlink()
    lines = succeed("chain", layers / "child").splitlines()
    assert lines[1].startswith("(missing: region set ")
    assert [json.loads(line)["image"] for line in succeed("chain", layers / "child", "--json").splitlines()] == [
        str(layers / "cim-layers/child.cim"), None
    ]  # fmt: skip


def test_extract_takes_an_optional_path(layers: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = succeed("extract", layers / "child", "Files", out, "--symlinks")
    assert "1 symbolic link" in shown
    assert (out / "link").read_bytes() == b"changed"
    facts = json.loads(succeed("extract", layers / "base", tmp_path / "all", "--json", "--metadata", "sidecar"))
    assert facts["symbolic_links"] == 0
    assert (tmp_path / "all.metadata/entries.jsonl").exists()
    assert (tmp_path / "all/Files/old.txt").read_bytes() == b"old"


def test_extract_takes_several_paths_and_leaves_out(layers: Path, tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("# links\nlink\n", encoding="utf-8")
    words = ["--exclude-from", tmp_path / "patterns", "--exclude", "!link", "--exclude", "*.bak", "--strip", "1"]
    succeed("extract", layers / "base", "Files/old.txt", "Files", tmp_path / "out", *words)
    assert (tmp_path / "out/old.txt").read_bytes() == b"old"
    assert call("extract", layers / "base", "Files/old.txt", tmp_path / "out", "--strip", "1").exit_code == 1
    done = succeed("extract", layers / "base", "Files/old.txt", tmp_path / "out", "--strip", "1", "--skip-existing")
    assert "1 file already there" in done
    both = call("extract", layers / "base", tmp_path / "out", "--overwrite", "--skip-existing")
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr


def test_create_says_what_it_skips_and_renames(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a", "A", "b:c", "d"):
        (tmp_path / "folder" / name).touch()
    words = ["--case-rename", "--skip-special", "--exclude", "d"]
    result = call("create", tmp_path / "a.cim", tmp_path / "folder", *words)
    assert result.exit_code == 0
    assert "a stored as a~2" in result.stdout
    assert "skipped" in result.stderr and "b:c: a colon" in result.stderr


def test_extract_of_what_exists_names_the_path(layers: Path, tmp_path: Path) -> None:
    succeed("extract", layers / "base", tmp_path / "out")
    result = call("extract", layers / "base", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "File exists" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["-o", "-"], ["--output=-"]])
def test_export_finds_the_parents_and_writes_to_a_pipe(layers: Path, options: list[str]) -> None:
    done = run("export", layers / "child", *options, cwd=layers)
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["Files/new.txt", "Files/.wh.old.txt", "Files/text.txt"]
    assert not (layers / "-").exists()


def test_export_to_a_file_does_not_replace_it(layers: Path, tmp_path: Path) -> None:
    assert succeed("export", layers / "child", "-o", tmp_path / "layer.tar", "--parent", layers / "base") == ""
    result = call("export", layers / "child", "-o", tmp_path / "layer.tar")
    assert (result.exit_code, "layer.tar: File exists" in result.stderr) == (1, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_export_to_a_full_disk_fails_in_one_line(layers: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(program("export", layers / "child"), stdout=full, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"cimlayer: No space left on device\n")


def test_export_of_no_layer_says_so(tmp_path: Path) -> None:
    result = call("export", tmp_path / "none")
    assert (result.exit_code, "not a CIM layer" in result.stderr) == (1, True)


def test_export_without_its_parent_says_so(layers: Path) -> None:
    (layers / "cim-layers/base.cim").unlink()
    result = call("export", layers / "child")
    assert result.exit_code == 1
    assert "the parent with region set" in result.stderr


def test_create_makes_an_image_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"content")
    image = tmp_path / "app.cim"
    assert succeed("create", image, tmp_path / "folder", "--no-sync") == f"{image}: 1 entry, 7 bytes of files\n"
    assert succeed("cat", image, "file") == "content"
    facts = json.loads(succeed("create", tmp_path / "b.cim", tmp_path / "folder", "--json"))
    assert facts == {"image": str(tmp_path / "b.cim"), "entries": 1, "bytes": 7} | {
        "warnings": [],
        "skipped": [],
        "renamed": {},
        "excluded": 0,
    }


def test_destroy_keeps_what_others_need_unless_forced(layers: Path) -> None:
    result = call("destroy", layers / "base")
    assert result.exit_code == 1
    assert "child.cim" in result.stderr
    assert succeed("destroy", layers / "child") == ""
    assert succeed("destroy", layers / "base") == ""
    assert os.listdir(layers / "cim-layers") == []
    assert not (layers / "base").exists()


def test_destroy_of_no_layer_fails_and_removes_nothing(layers: Path) -> None:
    result = call("destroy", layers / "cim-layers")
    assert result.exit_code == 1
    assert "not a CIM layer" in result.stderr
    assert (layers / "cim-layers/base.cim").exists()


def test_gc_lists_first_and_removes_when_told(layers: Path) -> None:
    assert succeed("gc", layers) == "nothing to delete\n"
    orphan = layers / "cim-layers/region_00000000-0000-0000-0000-000000000000_1"
    orphan.write_bytes(bytes(2048))
    assert succeed("gc", layers) == (f"{orphan.name}  2.0 KiB\n1 file, 2.0 KiB, can be deleted with --delete\n")
    assert orphan.exists()
    facts = json.loads(succeed("gc", layers / "cim-layers", "--delete", "--json"))
    assert facts == {"deleted": True, "files": [{"name": orphan.name, "size": 2048}], "bytes": 2048, "broken": {}}
    assert not orphan.exists()
