"""Where the bytes of a hive and of its logs come from: a buffer, or a file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cimfs_ext.errors import CorruptHiveError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_FILE = 4096 + (1 << 31)  # base block and bins, where the top bit of an offset means volatile storage


def load(source: Buffer | str | os.PathLike[str]) -> Buffer:
    """The buffer itself, or the bytes of the regular file at a path."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(source))
        if status.st_size > _MAX_FILE:
            raise CorruptHiveError("the file is larger than a hive can be", os.fspath(source), _MAX_FILE)
        return file.read()


def load_log(source: Buffer | str | os.PathLike[str]) -> bytes:
    """A log's content, copied where it could change while it is applied."""
    data = load(source)
    return data if type(data) is bytes else bytes(memoryview(data))
