"""What is measured side by side: one line per tool, as shell commands.

In a command `{input}` is the tar, `{out}` a fresh directory, `{prepared}` what the task's preparation made,
`{python}` this interpreter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmarks.images import REGISTRY, served


class Role(Enum):
    """What a tool is there for: a bound that nobody can beat, one that does the same job, or ours."""

    LIMIT = "limit"
    PEER = "peer"
    OURS = "ours"


class Form(Enum):
    """How a tar is compressed, by the first bytes of its file."""

    PLAIN = b""
    GZIP = b"\x1f\x8b"
    ZSTD = b"\x28\xb5\x2f\xfd"

    @classmethod
    def of(cls, path: Path) -> Form:
        with path.open("rb") as file:
            head = file.read(4)
        return next(form for form in reversed(cls) if head.startswith(form.value))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool's commands by the form of the input; one that is missing has no business with it."""

    name: str
    role: Role
    commands: Mapping[Form, str]
    version: str
    """Prints the version in its first line, and fails where the tool is missing or too old for the job."""


@dataclass(frozen=True, slots=True)
class Task:
    """Tools that do the same job; ratios are to the time of the baseline for the kind of input."""

    tools: tuple[Tool, ...]
    baselines: Mapping[Form, str]
    preparation: str = ""
    times: int = 1
    """How often each command does the job, where once is too short to be measured."""
    service: Callable[[Path], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Runs during the preparation and all rounds; its files are in the directory `{prepared}`."""


def _any(name: str, role: Role, command: str, version: str) -> Tool:
    return Tool(name, role, dict.fromkeys(Form, command), version)


def _each(baseline: str) -> Mapping[Form, str]:
    return dict.fromkeys(Form, baseline)


COREUTILS = "cp --version"
IGZIP = "igzip --version"
GUNZIP = "igzip -dc {input} |"
SQFSTAR = " sqfstar -quiet -no-progress -noI -noD -noF -noX {out}/image"
PYTHON_ISAL = "{python} -c 'import isal; print(f\"python-isal {{isal.__version__}}\")'"
CIMLAYER = "cimlayer --version"

IMPORT = Task(
    tools=(
        Tool("read", Role.LIMIT, {Form.PLAIN: "dd if={input} of=/dev/null bs=1M"}, COREUTILS),
        Tool("cat", Role.LIMIT, {Form.PLAIN: "cat {input} > {out}/copy"}, COREUTILS),
        Tool("dd bs=1M", Role.LIMIT, {Form.PLAIN: "dd if={input} of={out}/copy bs=1M"}, COREUTILS),
        Tool("cp", Role.LIMIT, {Form.PLAIN: "cp {input} {out}/copy"}, COREUTILS),
        Tool("cp, sync", Role.LIMIT, {Form.PLAIN: "cp {input} {out}/copy && sync {out}/copy"}, COREUTILS),
        Tool("igzip", Role.LIMIT, {Form.GZIP: "igzip -dc {input} > /dev/null"}, IGZIP),
        Tool("zstd -T1", Role.LIMIT, {Form.ZSTD: "zstd -dqc -T1 {input} > /dev/null"}, "zstd --version"),
        Tool(
            "python-isal",
            Role.LIMIT,
            {Form.GZIP: "{python} -m isal.igzip -dc {input} > /dev/null"},
            PYTHON_ISAL,
        ),
        _any("cimlayer", Role.OURS, "cimlayer import {input} {out}/1", CIMLAYER),
        _any("cimlayer --no-sync", Role.OURS, "cimlayer import --no-sync {input} {out}/1", CIMLAYER),
        Tool(
            "mkfs.erofs",
            Role.PEER,
            {
                Form.PLAIN: "mkfs.erofs --quiet --tar=f --sort=none -Enoinline_data {out}/image {input}",
                Form.GZIP: "mkfs.erofs --quiet --tar=f --gzip --sort=none -Enoinline_data {out}/image {input}",
            },
            "mkfs.erofs --help 2>&1 | grep -q -e --tar && mkfs.erofs --version",
        ),
        Tool(
            "igzip, mkfs.erofs",
            Role.PEER,
            {Form.GZIP: GUNZIP + " mkfs.erofs --quiet --tar=f --sort=none -Enoinline_data {out}/image"},
            "mkfs.erofs --help 2>&1 | grep -q -e --tar && mkfs.erofs --version",
        ),
        _any("tar2sqfs", Role.PEER, "tar2sqfs -q -c lz4 {out}/image < {input}", "tar2sqfs --version"),
        Tool(
            "sqfstar",
            Role.PEER,
            {
                Form.PLAIN: SQFSTAR + " < {input}",
                Form.GZIP: GUNZIP + SQFSTAR,
                Form.ZSTD: "zstd -dqc -T1 {input} |" + SQFSTAR,
            },
            "sqfstar -version",
        ),
        _any("bsdtar", Role.PEER, "bsdtar -xf {input} -C {out}", "bsdtar --version"),
        _any("GNU tar", Role.PEER, "tar --warning=no-unknown-keyword -xf {input} -C {out}", "tar --version"),
        _any(
            "Python tarfile",
            Role.PEER,
            "{python} -c 'import sys, tarfile;"
            ' tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="fully_trusted")\' {input} {out}',
            "{python} --version",
        ),
    ),
    baselines={Form.PLAIN: "cp", Form.GZIP: "igzip", Form.ZSTD: "zstd -T1"},
)

VERIFY = Task(
    preparation="cimlayer import --no-sync {input} {prepared}/1",
    tools=(
        _any("cat", Role.LIMIT, "cat {prepared}/cim-layers/* > /dev/null", COREUTILS),
        _any("cimlayer verify", Role.OURS, "cimlayer verify {prepared}/cim-layers/1.cim", CIMLAYER),
        _any("cimlayer verify --jobs 1", Role.OURS, "cimlayer verify --jobs 1 {prepared}/cim-layers/1.cim", CIMLAYER),
    ),
    baselines=_each("cat"),
)

EXTRACT = Task(
    preparation="cimlayer import --no-sync {input} {prepared}/1 && mkdir {prepared}/tree"
    " && bsdtar -xf {input} -C {prepared}/tree",
    tools=(
        _any("cp -r", Role.LIMIT, "cp -r {prepared}/tree {out}/tree", COREUTILS),
        _any("cimlayer extract", Role.OURS, "cimlayer extract {prepared}/cim-layers/1.cim {out}/tree", CIMLAYER),
        _any("bsdtar", Role.PEER, "bsdtar -xf {input} -C {out}", "bsdtar --version"),
        _any("GNU tar", Role.PEER, "tar --warning=no-unknown-keyword -xf {input} -C {out}", "tar --version"),
    ),
    baselines=_each("cp -r"),
)

_EXPORTED = "cimlayer import --no-sync {input} {prepared}/1 && cimlayer export {prepared}/1 -o {prepared}/tar"

EXPORT = Task(
    preparation=_EXPORTED,
    tools=(
        _any("cp", Role.LIMIT, "cp {prepared}/tar {out}/tar", COREUTILS),
        _any("cat", Role.LIMIT, "cat {prepared}/tar | cat > /dev/null", COREUTILS),
        _any("cimlayer export", Role.OURS, "cimlayer export {prepared}/1 -o {out}/tar", CIMLAYER),
        _any("cimlayer export | cat", Role.OURS, "cimlayer export {prepared}/1 | cat > /dev/null", CIMLAYER),
    ),
    baselines=_each("cp"),
)

EXPORT_IMAGE = Task(
    preparation=_EXPORTED,
    tools=(
        _any("igzip", Role.LIMIT, "igzip -2 -c {prepared}/tar > {out}/tar.gz", IGZIP),
        _any("cimlayer export-image", Role.OURS, "cimlayer export-image -q {prepared}/1 dir:{out}/image", CIMLAYER),
        _any(
            "python-isal, all cores",
            Role.PEER,
            "{python} -c 'import os, shutil, sys; from isal import igzip_threaded;"
            ' shutil.copyfileobj(open(sys.argv[1], "rb"),'
            ' igzip_threaded.open(sys.argv[2], "wb", threads=os.cpu_count()), 1 << 20)\' {prepared}/tar {out}/tar.gz',
            PYTHON_ISAL,
        ),
        _any("pigz -6", Role.PEER, "pigz -6 -c {prepared}/tar > {out}/tar.gz", "pigz --version"),
        _any("pigz -1", Role.PEER, "pigz -1 -c {prepared}/tar > {out}/tar.gz", "pigz --version"),
    ),
    baselines=_each("igzip"),
)

IN_THREE_FORMS = (
    "cimlayer import --no-sync {input} {prepared}/1 && mkdir {prepared}/tree"
    " && bsdtar -xf {input} -C {prepared}/tree && mksquashfs {prepared}/tree {prepared}/squashfs -quiet -no-progress"
)

LISTED = "ls -lR {out}/mount > {out}/list"

MOUNT = Task(
    preparation=IN_THREE_FORMS,
    tools=(
        _any("ls -lR", Role.LIMIT, "ls -lR {prepared}/tree > {out}/list", COREUTILS),
        _any(
            "cimlayer mount, ls -lR",
            Role.OURS,
            "mkdir {out}/mount && cimlayer mount {prepared}/cim-layers/1.cim {out}/mount"
            f" && {LISTED}; cimlayer unmount {{out}}/mount",
            CIMLAYER,
        ),
        *(
            _any(
                f"{name}, ls -lR",
                Role.PEER,
                f"mkdir {{out}}/mount && {name} {{prepared}}/squashfs {{out}}/mount"
                f" && {LISTED}; fusermount -u {{out}}/mount",
                f"{name} 2>&1 | grep -i squashfuse",
            )
            for name in ("squashfuse", "squashfuse_ll")
        ),
    ),
    baselines=_each("ls -lR"),
)

_TO_PIPE = "| cat > {out}/list && test -s {out}/list"

LIST = Task(
    preparation=IN_THREE_FORMS,
    tools=(
        _any("find", Role.LIMIT, f"find {{prepared}}/tree {_TO_PIPE}", "find --version"),
        _any("ls -lR", Role.LIMIT, f"ls -lR {{prepared}}/tree {_TO_PIPE}", COREUTILS),
        *(
            _any(f"cimlayer {words}", Role.OURS, f"cimlayer {words} {{prepared}}/cim-layers/1.cim {_TO_PIPE}", CIMLAYER)
            for words in ("ls -R", "ls -lR", "ls -R --json", "find", "tree")
        ),
        _any(
            "unsquashfs -l",
            Role.PEER,
            f"unsquashfs -l {{prepared}}/squashfs {_TO_PIPE}",
            "unsquashfs -version | grep unsquashfs",
        ),
        _any(
            "unsquashfs -ll",
            Role.PEER,
            f"unsquashfs -ll {{prepared}}/squashfs {_TO_PIPE}",
            "unsquashfs -version | grep unsquashfs",
        ),
        _any("bsdtar -t", Role.PEER, f"bsdtar -tf {{input}} {_TO_PIPE}", "bsdtar --version"),
    ),
    baselines=_each("find"),
)


FORK = Task(
    preparation="{python} -m benchmarks.forks {input} {prepared}",
    tools=tuple(
        _any(
            f"{parent} parent, {place}",
            role,
            # beside its parent, where a fork has to lie; every run adds another one
            f"cimlayer import --no-sync {{prepared}}/{parent}/{place}.tar {{prepared}}/{parent}/{place}-$$"
            f" --parent {{prepared}}/{parent}/1",
            CIMLAYER,
        )
        for parent, role in (("small", Role.LIMIT), ("large", Role.OURS))
        for place in ("near", "far")
    ),
    baselines=_each("small parent, near"),
)

_TIMES = 10


def _repeated(command: str) -> str:
    numbers = " ".join(map(str, range(_TIMES)))
    return f"for n in {numbers}; do {command} > {{out}}/said || exit; done"


START = Task(
    preparation="cimlayer import --no-sync examples/sample-layer.tar {prepared}/1",
    times=_TIMES,
    tools=(
        _any("python -c pass", Role.LIMIT, _repeated("{python} -c pass"), "{python} --version"),
        _any(
            "python -c 'import click'",
            Role.LIMIT,
            _repeated("{python} -c 'import click'"),
            '{python} -c \'from importlib.metadata import version; print("click", version("click"))\'',
        ),
        _any("cimlayer ls", Role.OURS, _repeated("cimlayer ls {prepared}/cim-layers/1.cim"), CIMLAYER),
    ),
    baselines=_each("python -c pass"),
)

_IMAGE = f"docker://{REGISTRY}/image:1"
_IMPORT_IMAGE = "cimlayer import-image --quiet --no-sync"

PULL = Task(
    service=served,
    preparation="{python} -m benchmarks.images {input} {prepared}/oci"
    f" && skopeo copy -q --dest-tls-verify=false oci:{{prepared}}/oci:1 {_IMAGE}",
    tools=(
        _any("import-image oci:", Role.OURS, _IMPORT_IMAGE + " oci:{prepared}/oci:1 {out}/layers", CIMLAYER),
        _any(
            "import-image docker://",
            Role.OURS,
            f"{_IMPORT_IMAGE} --tls-verify=false {_IMAGE} {{out}}/layers",
            "docker-registry --version",
        ),
        _any(
            "skopeo, import-image oci:",
            Role.PEER,
            f"skopeo copy -q --src-tls-verify=false {_IMAGE} oci:{{out}}/oci:1"
            f" && {_IMPORT_IMAGE} oci:{{out}}/oci:1 {{out}}/layers",
            "skopeo --version",
        ),
    ),
    baselines=_each("import-image oci:"),
)

TASKS = {
    "import": IMPORT,
    "verify": VERIFY,
    "extract": EXTRACT,
    "export": EXPORT,
    "export-image": EXPORT_IMAGE,
    "fork": FORK,
    "pull": PULL,
    "mount": MOUNT,
    "list": LIST,
    "start": START,
}
