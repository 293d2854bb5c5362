"""Marks of work on a layer that has begun: empty files beside its image, which a killed process leaves.

``NAME.new`` stands while a layer is written, ``NAME.old`` while it is destroyed; both are held meanwhile. Where
``NAME.cim`` is missing, the first says that the layer directory has what an import wrote, the second that all of it is
to go.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from enum import Enum
from pathlib import Path

from cimlayer.errors import ImageBusyError
from cimlayer.host.filelocks import open_to_lock, try_lock, unlock_and_close
from cimlayer.image.locking import name_holder

_TRIES = 100  # each is lost to somebody who takes the mark away in between


class MarkKind(Enum):
    """What is being done; the value takes the place of ``.cim``, so that no name is longer than the image's."""

    WRITING = ".new"
    DESTROYING = ".old"

    def path(self, image_path: Path) -> Path:
        """Where the mark of a layer stands."""
        return image_path.with_suffix(self.value)


class Mark:
    """One mark, set and held until it is cleared; ImageBusyError if another process holds it."""

    __slots__ = ("_descriptor", "_owner", "path")

    def __init__(self, image_path: Path, kind: MarkKind) -> None:
        """Set it, or take over the one that a killed process has left."""
        self.path = kind.path(image_path)
        self._owner = os.getpid()
        self._descriptor = _hold(self.path)

    def clear(self) -> None:
        """The work is done. Not in a forked process, which has no part in it; once is enough."""
        if self._descriptor < 0 or os.getpid() != self._owner:
            return
        try:
            with suppress(FileNotFoundError):
                self.path.unlink()
        finally:
            self.leave()

    def leave(self) -> None:
        """Hold it no longer: whoever comes next may finish the work."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            unlock_and_close(descriptor)


def take_abandoned(image_path: Path) -> Mark | None:
    """Take over the mark, if there is one, of a process that was killed while it destroyed the layer.

    ImageBusyError if one is at work on it still: what is written to the layer directory would go as well.
    """
    return Mark(image_path, MarkKind.DESTROYING) if is_marked(image_path, MarkKind.DESTROYING) else None


def is_marked(image_path: Path, kind: MarkKind) -> bool:
    """Whether the mark is there: a file of that name that holds something is somebody else's."""
    with suppress(FileNotFoundError):
        return not kind.path(image_path).stat(follow_symlinks=False).st_size
    return False


def marked_images(directory: Path) -> list[tuple[Path, MarkKind]]:
    """The marks in a directory of images, with the paths of their images."""
    found = []
    for path in sorted(directory.iterdir()):
        image_path = path.with_suffix(".cim")
        found += [(image_path, kind) for kind in MarkKind if kind.value == path.suffix and is_marked(image_path, kind)]
    return found


def _hold(path: Path) -> int:
    for _ in range(_TRIES):
        descriptor, got = open_to_lock(path, create=True), False
        try:
            got = try_lock(descriptor)
            if got and os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            if got:
                with suppress(OSError):
                    path.unlink()
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not got:
            break
    error = ImageBusyError(errno.EBUSY, "the layer is being written or destroyed", str(path))
    name_holder(error, path)
    raise error
