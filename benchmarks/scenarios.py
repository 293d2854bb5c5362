"""Small, repeatable pieces of work whose instructions are counted (see instructions.py).

`python -m benchmarks.scenarios NAME DIRECTORY` does the work alone, in a directory that was prepared for it.
"""

import argparse
import random
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import DESCRIPTORS, add_hives, random_layer
from cimfs_ext.backupstream import BackupStreamParser, BackupStreamWriter
from cimfs_ext.contentid import ContentHash, content_id
from cimfs_ext.mounted import MountedFiles
from cimfs_ext.reader import ImageReader
from cimfs_ext.regf import Hive
from cimlayer import export_layer, extract, import_layer
from cimlayer.cli.program import commands
from cimlayer.image.entrynames import target_inside
from examples.layer_tar import LayerTar

MIB = 1 << 20
FILETIME = 133_000_000_000_000_000
REG_SZ, REG_DWORD = 1, 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """`work` is counted, `prepare` is not; both get the same empty directory."""

    work: Callable[[Path], None]
    prepare: Callable[[Path], None] = lambda directory: None


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a process: all its instructions count, of the interpreter too, beyond those of `floor`.

    Both are programs in Python. They run in the directory that was prepared.
    """

    program: str
    floor: str
    arguments: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda directory: None


def _prepare_small_files(directory: Path) -> None:
    (directory / "base.tar").write_bytes(random_layer(2000, 1000))


def _prepare_large_files(directory: Path) -> None:
    (directory / "base.tar").write_bytes(random_layer(8, 2 * MIB))


def _prepare_deep_path(directory: Path) -> None:
    with (directory / "base.tar").open("wb") as out, LayerTar(out) as layer:
        add_hives(layer)
        layer.file("/".join(["d"] * 1000), b"below 999 directories that no entry describes", DESCRIPTORS[0])


def _import_base(directory: Path) -> None:
    import_layer(directory / "base.tar", directory / "1", sync=False)


def _prepare_child(directory: Path) -> None:
    _prepare_small_files(directory)
    _import_base(directory)
    (directory / "child.tar").write_bytes(random_layer(10, 1000, hives=False))


def _import_child(directory: Path) -> None:
    import_layer(directory / "child.tar", directory / "2", [directory / "1"], sync=False)


def _prepare_image(directory: Path) -> None:
    _prepare_small_files(directory)
    _import_base(directory)


def _prepare_tiny_image(directory: Path) -> None:
    (directory / "base.tar").write_bytes(random_layer(10, 100))
    _import_base(directory)


def _command(*words: str) -> Callable[[Path], None]:
    """A command of cimlayer on the image that was prepared."""

    def work(directory: Path) -> None:
        image = directory / "cim-layers" / "1.cim"
        commands([*words[:1], str(image), *words[1:]], standalone_mode=False)

    return work


def _extract(directory: Path) -> None:
    with ImageReader(directory / "cim-layers" / "1.cim") as image:
        extract(image, "", directory / "tree")


def _export(directory: Path) -> None:
    export_layer(directory / "1", None, directory / "tar")


def _list_mounted(directory: Path) -> None:
    """What `ls -lR` of a mounted image asks, without the kernel."""
    with ImageReader(directory / "cim-layers" / "1.cim") as image:
        files = MountedFiles(image, target_inside, max_names=1 << 20, owner=0, group=0)
        nodes = [1]
        while nodes:
            node = nodes.pop()
            at = 0
            while entries := files.read_directory(node, at, 1 << 16, plus=True):
                place = 0
                while place < len(entries):
                    inner, mode, at, length = struct.unpack_from("=Q92xI32xQI", entries, place)
                    if stat.S_ISDIR(mode):
                        nodes.append(inner)
                    place += (152 + length + 7) // 8 * 8


def _prepare_hives(directory: Path) -> None:
    for name, keys in (("base", range(2000)), ("delta", range(1500, 2500))):
        hive = Hive.empty(FILETIME)
        for number in keys:
            path = f"Software\\Vendor {number % 50}\\Product {number}"
            hive.set_value(path, "InstallPath", REG_SZ, f"C:\\{name}\\{number}\0".encode("utf-16-le"))
            hive.set_value(path, "Start", REG_DWORD, number.to_bytes(4, "little"))
        (directory / name).write_bytes(hive.to_bytes())


def _merge_hives(directory: Path) -> None:
    hive = Hive.open(directory / "base")
    hive.merge(Hive.open(directory / "delta"))
    hive.to_bytes()


def _parse_backup_streams(directory: Path) -> None:
    data = random.Random(1).randbytes(5000)
    stream = b"".join([*BackupStreamWriter.security(DESCRIPTORS[0]), *BackupStreamWriter.data(data)])
    for _ in range(500):
        parser = BackupStreamParser(len(data), "file")
        parser.feed(stream)
        parser.finish()


def _hash(directory: Path) -> None:
    data = random.Random(1).randbytes(MIB)
    stream = ContentHash()
    for _ in range(4):
        stream.update(data)
    stream.digest()
    for size in range(0, 1000, 7):
        content_id(data[:size])


SCENARIOS = {
    "hash": Scenario(_hash),
    "import-small-files": Scenario(_import_base, _prepare_small_files),
    "import-large-files": Scenario(_import_base, _prepare_large_files),
    "import-deep-path": Scenario(_import_base, _prepare_deep_path),
    "import-child": Scenario(_import_child, _prepare_child),
    "extract": Scenario(_extract, _prepare_image),
    "export": Scenario(_export, _prepare_image),
    "merge-hives": Scenario(_merge_hives, _prepare_hives),
    "parse-backup-streams": Scenario(_parse_backup_streams),
    "list-mounted": Scenario(_list_mounted, _prepare_image),
    "list": Scenario(_command("ls", "-l", "-R"), _prepare_image),
    "list-json": Scenario(_command("ls", "-R", "--json"), _prepare_image),
    "verify": Scenario(_command("verify"), _prepare_image),
}

_COMMAND = "from cimlayer.cli import main; main()"
_CLICK = "import click, os; os._exit(0)"  # as the command ends, without freeing what it has

STARTS = {
    "start-ls": Start(_COMMAND, _CLICK, ("ls", "cim-layers/1.cim"), _prepare_tiny_image),
    "start-import": Start(_COMMAND, _CLICK, ("import", "--no-sync", "--jobs=1", "base.tar", "2"), _prepare_tiny_image),
    "start-verify": Start(_COMMAND, _CLICK, ("verify", "cim-layers/1.cim"), _prepare_tiny_image),
    "start-export": Start(_COMMAND, _CLICK, ("export", "1", "-o", "tar"), _prepare_tiny_image),
    "start-worker": Start("import cimlayer.oci.fleet.jobs, os; os._exit(0)", "import os; os._exit(0)"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Do the work of one scenario.")
    parser.add_argument("name", choices=SCENARIOS)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    SCENARIOS[options.name].work(options.directory)


if __name__ == "__main__":
    main()
