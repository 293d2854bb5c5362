"""What commands and workers load before they begin: it is most of the time that a short command takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.clitests import image  # noqa: F401  a fixture

SAMPLE = ROOT / "examples" / "sample-layer.tar"
COMMAND = """
from cimlayer.cli.program import commands
try:
    commands()
except SystemExit as end:
    assert not end.code
"""

# All that `ls` needs. Whatever is added here makes each call of each reading command slower: measure it first.
OF_LS = {
    "cimfs_ext", "cimfs_ext._shared", "cimfs_ext.entries", "cimfs_ext.entrylines", "cimfs_ext.errors",
    "cimfs_ext.fileobjects", "cimfs_ext.filetimes", "cimfs_ext.image", "cimfs_ext.imagepath",
    "cimfs_ext.implementation", "cimfs_ext.listing", "cimfs_ext.names", "cimfs_ext.reader", "cimfs_ext.regionsets",
    "cimfs_ext.streams", "cimfs_ext.verify", "cimlayer", "cimlayer.errors", "cimlayer.cli", "cimlayer.cli.common",
    "cimlayer.cli.entries", "cimlayer.cli.hostpaths", "cimlayer.cli.images", "cimlayer.cli.innerpaths",
    "cimlayer.cli.ls", "cimlayer.cli.output", "cimlayer.cli.program", "cimlayer.image", "cimlayer.image.entrynames",
    "cimlayer.image.patterns", "cimlayer.image.selection",
}  # fmt: skip

# Of the standard library and others, beyond what click has loaded: each takes 1 to 50 ms.
SLOW = {
    "asyncio", "base64", "bisect", "concurrent.futures", "hashlib", "hmac", "http.client", "importlib.metadata",
    "json", "logging", "multiprocessing", "pathlib", "pickle", "queue", "random", "secrets", "shutil", "socket",
    "ssl", "string", "subprocess", "tarfile", "tempfile", "textwrap", "traceback", "uuid", "xml.etree", "zipfile",
    "zlib", "isal", "tqdm", "urllib3", "fsspec", "distributed", "opentelemetry",
}  # fmt: skip


def loaded(program: str, *arguments: str | Path, before: str = "click") -> set[str]:
    """The modules that a program has at its end, without those that it would have by importing one."""
    probe = (
        f"import sys, {before}\nbefore = set(sys.modules)\n{program}\n"
        "print(*sys.modules.keys() - before, file=sys.stderr)"
    )
    words = [sys.executable, "-c", probe, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True, timeout=60)
    return set(done.stderr.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in ("cimlayer", "cimfs_ext")}


def test_ls_loads_what_it_needs_and_nothing_else(image: Path) -> None:
    modules = loaded(COMMAND, "ls", image)
    assert ours(modules) <= OF_LS
    assert modules & {*SLOW, "difflib", "click.shell_completion"} == set()


@pytest.mark.parametrize("options", [["-R"], ["Files"]])
def test_ls_with_options_loads_no_more(image: Path, options: list[str]) -> None:
    assert ours(loaded(COMMAND, "ls", image, *options)) <= OF_LS


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_a_layer_directory_takes_nothing_slow_either(image: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(image.parent, tmp_path / "cim-layers")
    (tmp_path / image.stem).mkdir()
    modules = loaded(COMMAND, command, tmp_path / image.stem)
    assert modules & {*SLOW, "cimlayer.events"} == set()


def test_a_plain_import_loads_no_container_images_and_nothing_slow(tmp_path: Path) -> None:
    modules = loaded(COMMAND, "import", SAMPLE, tmp_path / "1", "--no-sync", "--jobs=1")
    assert modules & SLOW <= {"pathlib", "queue", "zlib"}
    assert ours(modules) & {"cimlayer.oci.documents", "cimlayer.image.inspect", "cimfs_ext.reports"} == set()
    assert not any(name.startswith(("cimlayer.oci.registry", "cimlayer.oci.fleet")) for name in modules)


def test_a_worker_loads_neither_a_command_line_nor_http() -> None:
    modules = loaded("import cimlayer.oci.fleet.jobs, cimlayer.cli.registrychoice", before="os")
    assert modules & {"click", "tqdm", "urllib3", "http.client", "ssl", "asyncio", "hashlib", "logging"} == set()
    assert not any(name.startswith("cimlayer.formats.disks") for name in modules)
    assert ours(modules) & {"cimlayer.image.inspect", "cimfs_ext.reports", "cimlayer.oci.registry.client"} == set()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_forks_of_the_server_have_loaded_what_a_worker_needs() -> None:
    program = (
        "import multiprocessing, sys\nfrom cimlayer.oci.fleet import forkserver\nforkserver.start()\n"
        "context = multiprocessing.get_context('forkserver')\n"
        "if __name__ == '__main__':\n    with context.Pool(1) as pool:\n"
        "        there = pool.apply(eval, ('{*__import__(\"sys\").modules}',))\n"
        "    print({*forkserver._NEEDED} - there)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "set()\n", done.stderr
