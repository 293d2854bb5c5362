"""The same bytes on every platform: CIMs, hives, disks and exports of several inputs have the digests of tests/golden.

tests/test_reproducible.py says when digests may change.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cimlayer
from support import ROOT, layers
from support.hives import corpus as hive_of
from support.shared import needs_layers
from support.tars import TarBuilder, windows_pax
from support.utilityvms import add_utility_vm

GOLDEN = ROOT / "tests" / "golden" / "everywhere.sha256"
EXAMPLES = ROOT / "examples"
TIME = layers.TIME

Chain = dict[str, Path | io.BytesIO]  # layer names with their tars, from the base up


def sample_chain() -> Chain:
    return {"base": EXAMPLES / "sample-layer.tar", "child": EXAMPLES / "sample-child.tar"}


def edge_cases() -> Chain:
    """Names at the limits, every kind of metadata, links, and a child that changes, hides and merges."""
    base, child = TarBuilder(), TarBuilder()
    layers.add_base_hives(base)
    base.directory("Files/Ä", pax=windows_pax(0x10, sddl="O:BAG:SYD:(A;;FA;;;WD)", creation=TIME, mtime=TIME + 1))
    base.file("Files/Ä/" + "n" * 255, b"\0" * 70_000 + b"end", pax=windows_pax(0x21, mtime=TIME, atime=1, ctime=0))
    base.file("Files/Ä/𝄞 ß ﬀ", b"x", pax=windows_pax(0x20, eas={"A": b"1", "LXATTRB": bytes(56)}))
    base.stream("Files/Ä/𝄞 ß ﬀ", "Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    base.hardlink("Files/second name", "Files/Ä/𝄞 ß ﬀ")
    base.symlink("Files/link", "../Ä", pax=windows_pax(0x420))
    base.symlink("Files/mount", "C:/x", pax=windows_pax(0x410, mountpoint=True))
    base.file("Files/empty")
    for number in range(300):  # more than a page of names
        base.file(f"Files/many/{number}", bytes([number % 256]) * (number * 7 % 5000))
    child.directory("Files")
    child.file("Hives/Software_Delta", layers.hive(who="child", more="x" * 3000))
    child.whiteout("Files/second name")
    child.opaque("Files/many")
    child.file("Files/many/0", b"new")
    return {"base": io.BytesIO(base.finish()), "child": io.BytesIO(child.finish())}


def utility_vm() -> Chain:
    tar = TarBuilder()
    layers.add_base_hives(tar)
    add_utility_vm(tar)
    return {"vm": io.BytesIO(tar.finish())}


def digest_of(files: list[Path], root: Path) -> str:
    """One digest of the names and bytes of files."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(root).as_posix() for path in files):  # paths of Windows have another order
        digest.update(f"{name}\n".encode())
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


def digests_of(root: Path, parents: dict[str, list[str]]) -> dict[str, str]:
    """The digest of each kind of file below the directory of imported layers, and of each layer's export."""
    files = [path for path in root.rglob("*") if path.is_file()]
    disks = [path for path in files if path.suffix == ".vhdx"]
    images = [path for path in files if path.parent.name == "cim-layers"]
    rest = [path for path in files if path not in disks and path not in images]
    found = {"images": digest_of(images, root), "disks": digest_of(disks, root), "hives": digest_of(rest, root)}
    for name, above in parents.items():
        tar = io.BytesIO()
        cimlayer.export_layer(root / name, [root / parent for parent in above], tar)
        found[f"export of {name}"] = hashlib.sha256(tar.getvalue()).hexdigest()
    return found


def compare(name: str, found: dict[str, str]) -> None:
    """With the rows of the table whose names begin so."""
    rows = dict(reversed(line.split("  ", 1)) for line in GOLDEN.read_text("ascii").splitlines())
    if "CIMLAYER_UPDATE_GOLDEN" in os.environ:
        rows = {row: digest for row, digest in rows.items() if not row.startswith(f"{name}: ")}
        rows |= {f"{name}: {what}": digest for what, digest in found.items()}
        GOLDEN.write_text("".join(f"{digest}  {row}\n" for row, digest in sorted(rows.items())), "ascii", newline="\n")
    expected = {row.removeprefix(f"{name}: "): digest for row, digest in rows.items() if row.startswith(f"{name}: ")}
    assert found == expected


@pytest.mark.parametrize("chain", [sample_chain, edge_cases, utility_vm])
def test_layers(tmp_path: Path, chain: Callable[[], Chain]) -> None:
    parents: dict[str, list[str]] = {}
    for name, tar in chain().items():
        parents[name] = [*parents][::-1]
        above = [tmp_path / parent for parent in parents[name]]
        cimlayer.import_layer(tar, tmp_path / name, above, sync=False, reproducible=True)
    compare(chain.__name__, digests_of(tmp_path, parents))


@needs_layers
def test_layers_of_the_corpus(corpus: Path) -> None:
    found = {}
    for name, above in {"base": [], "edge": ["base"], "child": ["base"]}.items():
        with cimlayer.ImageReader(corpus / "cim-layers" / f"{name}.cim") as image:
            files = [corpus / "cim-layers" / file for file in image.region_sets[-1].file_names()]
        files += [path for path in (corpus / name).rglob("*") if path.is_file()]
        found[name] = digest_of([*files, corpus / "cim-layers" / f"{name}.cim"], corpus)
        tar = io.BytesIO()
        cimlayer.export_layer(corpus / name, [corpus / parent for parent in above], tar)
        found[f"export of {name}"] = hashlib.sha256(tar.getvalue()).hexdigest()
    compare("corpus", found)


@pytest.mark.filterwarnings("ignore:.*dirty")
def test_merged_hive_of_the_corpus() -> None:
    hive = cimlayer.Hive.open(hive_of("SYSTEM_WIN_10_1709"))
    hive.merge(cimlayer.Hive.open(hive_of("System_Delta")))
    compare("hive", {"merged": hashlib.sha256(hive.to_bytes()).hexdigest()})


def test_image_of_a_tar(tmp_path: Path) -> None:
    tar = TarBuilder()
    tar.file("plain", b"x" * 100_000)
    tar.symlink("d/link", "../plain")
    tar.hardlink("second", "plain")
    (tmp_path / "a.tar").write_bytes(tar.finish())
    cimlayer.create_image(tmp_path / "images" / "a.cim", tmp_path / "a.tar", sync=False, reproducible=True)
    images = tmp_path / "images"
    compare("tar", {"image": digest_of(list(images.iterdir()), images)})
