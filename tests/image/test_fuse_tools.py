"""What copies of a mounted image have is what an extraction has."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from support.commands import succeed
from support.image_layers import link_data
from support.images import DIRECTORY, METADATA, NULL_DACL, TIME, add, writer
from support.mounts import mounted

COPIES = {
    "cp": "cp -a {mount}/. {copy}",
    "rsync": "rsync -aHAX {mount}/ {copy}",
    "tar": "tar --xattrs --xattrs-include='user.*' --format=posix -C {mount} -c . | tar --xattrs"
    " --xattrs-include='user.*' -C {copy} -x",
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    times = {f"{name}_time": TIME + number for number, name in enumerate(("creation", "change"))}
    times |= {"last_write_time": TIME + 10**7 + 5, "last_access_time": TIME + 7}
    with writer(tmp_path, None, "image.cim") as image:
        add(image, "d", attributes=DIRECTORY, **times)
        add(image, "d\\f", b"content" * 10_000, **times)
        image.create_alternate_stream("d\\f:zone", 4)
        image.write(b"data")
        image.create_hard_link("d\\g", "d\\f")
        add(image, "d\\e", attributes=DIRECTORY, security_descriptor=NULL_DACL, **times)
        image.create_hard_link("d\\e\\h", "d\\f")
        add(image, "d\\all", b"x", **(METADATA | times | {"attributes": 0x20}))
        add(image, "link", reparse_data=link_data(r"d\f"), **times)
        image.create_file("hole", size=1 << 20, **times)
        add(image, "ü\U0001f600", b"", **times)
        image.commit()
    return tmp_path / "image.cim"


def facts_of(root: Path) -> dict[str, tuple[object, ...]]:
    """All that a copy has; of a directory, the time of the last write and the attributes."""
    facts: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        names = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        first = None if path.is_dir() else inodes.setdefault(status.st_ino, str(path.relative_to(root)))
        links = 0 if path.is_dir() else status.st_nlink
        facts[str(path.relative_to(root))] = (kind, content, names, status.st_mtime_ns, links, first)
    return facts


@pytest.mark.parametrize("program", COPIES)
def test_copy_is_what_extract_gives(tmp_path: Path, image: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    copy = tmp_path / "copy"
    copy.mkdir()
    try:
        os.setxattr(copy, "user.test", b"x")
        os.removexattr(copy, "user.test")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    succeed("extract", image, "/", tmp_path / "extracted", "--metadata", "xattr", "--symlinks")
    with mounted(image, tmp_path / "mount") as mount:
        command = COPIES[program].format(mount=mount, copy=copy)
        subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
        listed = subprocess.run(
            ["find", mount, "-type", "f", "-links", "+1", "-printf", "%P\\n"], check=True, capture_output=True
        )
        usage = subprocess.run(["du", "-s", "--block-size=1", mount], check=True, capture_output=True)
    assert facts_of(copy) == facts_of(tmp_path / "extracted")
    assert sorted(listed.stdout.split()) == [b"d/e/h", b"d/f", b"d/g"]
    assert 70_000 <= int(usage.stdout.split()[0]) < 80_000  # once, and the hole is none
    if program == "cp":
        assert (copy / "hole").stat().st_blocks < 100  # those of its attributes
