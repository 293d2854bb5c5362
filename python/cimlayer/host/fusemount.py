"""Mounting and unmounting a file system that this process serves, with the helper of FUSE for Linux.

fusermount3 mounts for whoever may, and hands the connection to the kernel over a socket (libfuse, util/fusermount.c and
doc/kernel.txt, "fusermount").
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cimlayer.errors import UnsupportedCallError

_HELPERS = ("fusermount3", "fusermount")
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks (proc(5))
_SUBTYPE = "cimlayer"
_OPTIONS = f"ro,nosuid,nodev,default_permissions,fsname=cimlayer,subtype={_SUBTYPE}"


def mount(directory: str, *, allow_other: bool) -> int:
    """Mount on a directory; returns the connection to the kernel, where requests must be answered from now on.

    UnsupportedCallError where FUSE is not to be had, another OSError with what the helper said.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        options = _OPTIONS + (",allow_other" if allow_other else "")
        _run(
            ["-o", options, "--", directory],
            directory,
            environment={"_FUSE_COMMFD": str(theirs.fileno())},
            descriptors=[theirs.fileno()],
        )
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def unmount(directory: str, *, lazily: bool = False) -> None:
    """Unmount a directory; ``lazily`` also while files are open there: it is gone once they are closed."""
    _run(["-u", *(["-z"] if lazily else []), "--", directory], directory)


def is_mounted(directory: str) -> bool:
    """Whether a CIM is mounted on a directory, whose server may have died."""
    path = Path(directory)
    place = os.path.realpath(path.parent) + "/" + path.name  # what is mounted may not answer
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            fields, _, kind = os.fsdecode(line).partition(" - ")
            if kind.startswith(f"fuse.{_SUBTYPE} ") and _unescaped(fields.split(" ")[4]) == place:
                return True
    return False


def _unescaped(field: str) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: chr(int(match[1], 8)), field))


def _run(
    arguments: list[str],
    directory: str,
    *,
    environment: dict[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> None:
    helper = next(filter(None, map(shutil.which, _HELPERS)), None)
    if helper is None:
        raise UnsupportedCallError(errno.ENOSYS, "mounting needs FUSE: install fuse3", directory)
    done = subprocess.run(
        [helper, *arguments],
        env=os.environ | {"LC_ALL": "C"} | (environment or {}),
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
        reason = said[-1].partition(": ")[2] if said else f"exit code {done.returncode}"
        reason = reason.removeprefix(f"failed to unmount {directory}: ")
        kind = UnsupportedCallError if "device not found" in reason else OSError
        raise kind(errno.EPERM if "not permitted" in reason.lower() else errno.EIO, reason, directory)
