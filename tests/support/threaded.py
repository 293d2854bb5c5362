"""What the tests of Calls that overlap share."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cimfs_ext.image import ImageWriter
from support.images import add, make_image, writer

FILES: dict[str, bytes | None] = {"d": None, **{f"d\\f{i:03}": b"%d" % i * 500 for i in range(200)}}


Call = Callable[[], object]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "a.cim") as changed:
        add(changed, "new", b"n" * 100_000)
        add(changed, "d\\f001", b"other")
        changed.create_alternate_stream("new:s", 5)
        changed.write(b"12345")
        changed.commit()
    return tmp_path / "a.cim"


def writer_alone(directory: Path) -> ImageWriter:
    """One in a directory of its own: there is one at a time in each."""
    return writer(Path(tempfile.mkdtemp(dir=directory)), None, "a.cim")


def a_tar(count: int = 50) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"Files/{'n' * 150}{number}")
            member.size = 10_000
            tar.addfile(member, io.BytesIO(bytes(10_000)))
    return out.getvalue()
