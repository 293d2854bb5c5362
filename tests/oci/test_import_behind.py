"""A plain tar that is a file: a thread writes its image while the caller's reads it."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cimlayer.errors import ImageError
from cimlayer.oci.import_layer import import_layer
from support.faults import files_end_at
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
