"""Claims: who is at work on a layer of a store, anywhere.

A claim is the directory ``claims/KEY``, which a rename puts there: where one is already, with something in it, that
fails, on network file systems too. Its holder works in ``claims/KEY/TOKEN``, whose name nobody else has, and touches
the file in it again and again. A claim whose holder is gone is renamed away; should the holder be alive after all, its
paths lead nowhere from then on, so that nothing it still does can reach the store.

Locks say sooner that a holder is gone, on its own machine; nothing depends on them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cimlayer.events import CancellationToken
from cimlayer.host.filelocks import try_lock

ABANDONED = 120.0  # seconds without a touch
_BEAT = 10.0  # seconds between touches
_LOOK = 0.5  # seconds between looks at whether the work is still wanted
_HOLDER = "holder"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TRIES = 100


def _machine() -> str:
    """This machine since it was started; containers on it are the same machine."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        import platform  # noqa: PLC0415

        return platform.node()


def random_name() -> str:
    """One that nobody else has."""
    return os.urandom(8).hex()  # what secrets.token_hex does, which loads much more


class Claim:
    """One key, held by one process until it is released."""

    def __init__(self, claims: Path, key: str, token: str, descriptor: int) -> None:
        """See :meth:`take`."""
        self._place = claims / key
        self.path = self._place / token
        self._descriptor = descriptor
        self.lost = False

    @classmethod
    def take(cls, claims: Path, key: str, settle: Callable[[Path], None]) -> Claim | None:
        """Claim a key; None if somebody else has it.

        Of a holder that is gone, ``settle`` gets the directory that it worked in, which is removed afterwards.
        """
        token = random_name()
        prepared = claims / f".{token}"
        (prepared / token).mkdir(parents=True)
        descriptor = _new_holder(prepared / token / _HOLDER)
        try:
            for _ in range(_TRIES):
                with contextlib.suppress(OSError):  # where it is taken: which error that is depends on the system
                    prepared.rename(claims / key)
                    return cls(claims, key, token, descriptor)
                if not (claims / key).exists():
                    continue
                if not _abandoned(claims / key, now=_touch(prepared / token / _HOLDER)):
                    break
                evict(claims, key, settle)
        except BaseException:
            _close(descriptor)
            shutil.rmtree(prepared, ignore_errors=True)
            raise
        _close(descriptor)
        shutil.rmtree(prepared, ignore_errors=True)
        return None

    @contextlib.contextmanager
    def kept(self, cancel: CancellationToken, wanted: Callable[[], bool]) -> Iterator[None]:
        """While the block runs, show that the holder is alive; cancel when the claim is lost or no longer wanted."""
        over = threading.Event()

        def beat() -> None:
            since = 0.0
            while not over.wait(_LOOK):
                since += _LOOK
                if since >= _BEAT:
                    since = 0.0
                    try:
                        _touch(self.path / _HOLDER)
                    except FileNotFoundError:
                        self.lost = True
                    except OSError:
                        pass  # it may work the next time
                if self.lost or not wanted():
                    cancel.cancel()

        thread = threading.Thread(target=beat, name="cimlayer-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def release(self) -> None:
        """Let others have the key, and remove what is left of the work."""
        gone = self._place.with_name(f".{self.path.name}")
        try:
            self.lost = self.lost or not self.path.exists()
            if not self.lost:  # else the place is another's
                self._place.rename(gone)
        except FileNotFoundError:
            self.lost = True
        finally:
            _close(self._descriptor)
        shutil.rmtree(gone, ignore_errors=True)


def evict(claims: Path, key: str, settle: Callable[[Path], None]) -> None:
    """Take a claim away from a holder that is gone."""
    gone = claims / f".{random_name()}"
    try:
        (claims / key).rename(gone)
    except FileNotFoundError:
        return
    for work in _inner(gone):
        settle(work)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(claims: Path, settle: Callable[[Path], None], *, delete: bool) -> list[str]:
    """The claims, and remains of claims, whose holders are gone; they are removed if ``delete`` is set."""
    found: list[str] = []
    if not claims.is_dir():
        return found
    token = random_name()
    prepared = claims / f".{token}"
    (prepared / token).mkdir(parents=True)
    (prepared / token / _HOLDER).touch()
    try:
        now = _touch(prepared / token / _HOLDER)
        for name in sorted(os.listdir(claims)):
            if name == prepared.name or not _abandoned(claims / name, now):
                continue
            found.append(name)
            if delete and name.startswith("."):
                for work in _inner(claims / name):
                    settle(work)
                shutil.rmtree(claims / name, ignore_errors=True)
            elif delete:
                evict(claims, name, settle)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    return found


def workplaces(claims: Path) -> list[Path]:
    """The directories that holders of claims work in."""
    try:
        names = os.listdir(claims)
    except FileNotFoundError:
        return []
    return [work for name in names for work in _inner(claims / name)]


def _inner(place: Path) -> list[Path]:
    try:
        return [place / name for name in os.listdir(place)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _new_holder(path: Path) -> int:
    """A file that is held as long as this process lives. Windows cannot rename the directory of an open file."""
    if os.name == "nt":
        path.touch()
        return -1
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try_lock(descriptor)  # before it says whose it is: what says nothing is nobody's to judge
    os.write(descriptor, _machine().encode("ascii", "replace"))
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)  # which ends the lock, unless a forked process has the file: then the touches end


def _touch(path: Path) -> float:
    """Now, by the clock of whoever has the file system."""
    os.utime(path)
    return path.stat().st_mtime


def _abandoned(place: Path, now: float) -> bool:
    """Whether the holder of a claim is gone."""
    works = _inner(place)
    try:
        last = max([place.stat().st_mtime, *((work / _HOLDER).stat().st_mtime for work in works)])
        return now - last > ABANDONED or any(_unlocked(work / _HOLDER) for work in works)
    except FileNotFoundError:
        return not works and _is_old(place, now)


def _is_old(place: Path, now: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return now - place.stat().st_mtime > ABANDONED
    return False


def _unlocked(holder: Path) -> bool:
    """Whether the holder was on this machine and has ended."""
    if os.name == "nt":
        return False
    descriptor = os.open(holder, os.O_RDONLY)
    try:
        return os.read(descriptor, 100).decode("ascii", "replace") == _machine() and try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
