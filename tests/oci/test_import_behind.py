"""A plain tar that is a file: a thread writes its image while the caller's reads it, to where it is written from."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from cimfs_ext.importer import LayerImporter
from cimlayer.errors import FormatError, ImageError, LimitError
from cimlayer.limits import Limits
from cimlayer.oci.import_layer import import_layer
from support.faults import files_end_at
from support.images import TIME, Node, assert_sound, read_tree
from support.layers import add_base_hives
from support.platforms import posix_only
from support.tars import TarBuilder

CONTENT = random.Random(3).randbytes(9 << 20)


def layer_tar(directory: Path) -> Path:
    """Large enough for the thread; with the same content twice, of which the second is taken back."""
    tar = TarBuilder()
    add_base_hives(tar)
    for name, data in {"a": CONTENT, "b": CONTENT, "c": CONTENT[5:7000], "d": CONTENT[1 << 20 :]}.items():
        tar.file(f"Files/{name}", data)
    path = directory / "layer.tar"
    path.write_bytes(tar.finish())
    return path


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_bytes_are_those_of_one_thread(tmp_path: Path) -> None:
    tar = layer_tar(tmp_path)
    made = []
    for jobs in (1, 2):
        root = tmp_path / str(jobs)
        import_layer(tar, root / "layer", jobs=jobs, reproducible=True, scratch_disks=False)
        made.append(files_below(root))
    assert made[0] == made[1]
    assert max(map(len, made[0].values())) > 17 << 20


def test_a_file_of_the_caller_is_read_where_it_stands_and_to_its_end(tmp_path: Path) -> None:
    tar = layer_tar(tmp_path)
    made = []
    for name, before in {"path": b"", "file": b"before"}.items():
        tar.write_bytes(before + tar.read_bytes())
        with tar.open("rb", buffering=0) as file:
            file.seek(len(before))
            import_layer(
                file if before else tar, tmp_path / name / "layer", jobs=2, reproducible=True, scratch_disks=False
            )
            assert file.tell() == (tar.stat().st_size if before else 0)
        made.append(files_below(tmp_path / name))
    assert made[0] == made[1]


@pytest.mark.parametrize("cut", [700, 5 << 20, 12 << 20])
def test_a_tar_that_is_cut_is_the_same_error(tmp_path: Path, cut: int) -> None:
    tar = layer_tar(tmp_path)
    os.truncate(tar, cut)
    told = []
    for jobs in (1, 2):
        with pytest.raises(FormatError, match="ends inside an entry") as raised:
            import_layer(tar, tmp_path / "root" / "layer", jobs=jobs)
        told.append((str(raised.value), raised.value.offset))
        assert not files_below(tmp_path / "root")
    assert told[0] == told[1]


def test_limits_hold(tmp_path: Path) -> None:
    tar = layer_tar(tmp_path)
    for jobs in (1, 2):
        with pytest.raises(LimitError, match="limit"):
            import_layer(tar, tmp_path / "root" / "layer", jobs=jobs, limits=Limits(bytes=20 << 20))
        assert not files_below(tmp_path / "root")


def handle_of(descriptor: int) -> int:
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(descriptor)
    return descriptor


def image_of(directory: Path, take: Callable[[LayerImporter], None]) -> Mapping[str, Node]:
    directory.mkdir()
    with ImageWriter(directory, None, "a.cim") as image:
        image.write_behind()
        importer = LayerImporter(image, object(), time=TIME)
        take(importer)
        importer.finish()
        image.commit()
    assert_sound(directory / "a.cim")
    return read_tree(directory / "a.cim")


@pytest.mark.parametrize(("at_once", "spare"), [(1 << 30, 1 << 19), (1 << 20, 1), (70_001, 513), (4 << 20, 3 << 20)])
def test_what_is_read_is_what_is_fed(tmp_path: Path, at_once: int, spare: int) -> None:
    tar = layer_tar(tmp_path)
    fed = image_of(tmp_path / "fed", lambda importer: importer.feed(tar.read_bytes()) and None)

    def read(importer: LayerImporter) -> None:
        at, buffer = 0, bytearray(spare)
        while count := importer.read(handle_of(file.fileno()), at, at_once, buffer):
            assert count == min(at_once, tar.stat().st_size - at)
            at += count

    with tar.open("rb") as file:
        assert image_of(tmp_path / "read", read) == fed


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with ImageWriter(tmp_path, None, "a.cim") as image, tmp_path.joinpath("out").open("wb") as unreadable:
        importer = LayerImporter(image, object())
        with pytest.raises(OSError, match=r"."):
            importer.read(handle_of(unreadable.fileno()), 0, 1, bytearray(1))
        with pytest.raises(ValueError, match="an empty buffer"):
            importer.read(handle_of(unreadable.fileno()), 0, 1, bytearray())


@posix_only("limits of a process")
def test_a_full_disk_ends_the_import_and_leaves_nothing(tmp_path: Path) -> None:
    tar = layer_tar(tmp_path)
    root = tmp_path / "root"
    for size in (5 << 20, 12 << 20):
        with files_end_at(size), pytest.raises(ImageError, match="the disk is full") as raised:
            import_layer(tar, root / "layer", jobs=2, scratch_disks=False)
        assert raised.value.errno == errno.ENOSPC
        assert not files_below(root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_from_the_writer_ends_without_its_thread(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from cimlayer import ImageWriter\n"
        "data = os.urandom(1 << 20)\n"
        "with ImageWriter(sys.argv[1], None, 'a.cim') as image:\n"
        "    image.write_behind()\n"
        "    image.create_file('x', size=8 << 20)\n"
        "    for part in range(6):\n"
        "        image.write(data)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        image.close()\n"
        "        del image\n"
        "        sys.exit(0)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "    for part in range(2):\n"
        "        image.write(data)\n"
        "    image.commit()\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, timeout=60)
    assert (tmp_path / "a.cim").is_file()
