"""The exceptions of cimlayer, with what they say as attributes; programs import them from ``cimlayer``."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

_SHOW_HRESULTS = sys.platform == "win32"  # elsewhere nobody can look them up
_LONGEST_SHOWN = 400  # characters of a name
_NO_MEMORY = "out of memory"  # as the parsers in C give the reason


class _Facts:
    """What an exception can say. Each is None where it does not apply or is not known."""

    operation: str | None = None
    source: str | None = None
    layer: str | None = None
    offset: int | None = None
    limit: str | None = None
    hresult: int | None = None

    @property
    def path(self) -> str | None:
        """What the error is about."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        kind, args, *_ = super().__reduce__()
        return _restored, (kind, args), self.__dict__


def _restored(kind: type[_Facts], args: tuple[object, ...]) -> _Facts:
    """An exception as pickle and copy make it again: its attributes follow, so its constructor is not called."""
    error = kind.__new__(kind, *args)
    super(_Facts, error).__init__(*args)
    return error


class _FileError(_Facts, OSError):
    """An OSError whose text is made of its attributes."""

    def __init__(
        self,
        number: int,
        reason: str,
        path: str | None = None,
        *,
        operation: str | None = None,
        layer: str | None = None,
        offset: int | None = None,
        image_file: str = "",
    ) -> None:
        """``number`` is the errno, ``reason`` what is wrong, ``path`` what it is about."""
        super().__init__(number, reason, path)
        self.reason = reason
        self.operation = operation
        self.layer = layer
        self.offset = offset
        self.image_file = image_file

    @property
    def path(self) -> str | None:
        """What the error is about: a path inside the image, an image, a key."""
        return None if self.filename is None else os.fsdecode(self.filename)

    @property
    def strerror(self) -> str:  # type: ignore[override]  # which OSError has as a variable
        """All that the error says, without ``filename``."""
        words = [self.reason]
        if self.image_file:
            from pathlib import PurePath  # noqa: PLC0415  which takes its time to load

            if self.image_file != PurePath(self.path or "").name:
                words.append(f"in {self.image_file}")
        if self.offset is not None:
            words.append(f"at offset {self.offset}")
        if self.layer is not None:
            words.append(f"(layer {self.layer})")
        if _SHOW_HRESULTS and self.hresult is not None:
            words.append(f"(0x{self.hresult:08X})")
        return (f"{self.operation}: " if self.operation else "") + " ".join(words)

    def __str__(self) -> str:
        about = "" if self.filename is None else f": {self.filename!r}"
        return f"[Errno {self.errno}] {self.strerror}{about}"


class ImageError(_FileError):
    """CimFS, or the system below it, failed.

    ``errno`` is the nearest POSIX error, ``path`` (``filename`` too) the image or the path inside it, ``image_file``
    the file at fault among those that make up an image, empty where there is none to name. Each subclass has one
    ``hresult``, an unsigned 32-bit code; this class has that of the call where no subclass fits.
    """

    __module__ = "cimlayer"
    hresult = 0x80004005  # E_FAIL


class PathNotFoundError(ImageError, FileNotFoundError):
    """A path inside an image, a directory above it, or the target of a link does not exist."""

    __module__ = "cimlayer"


class ImageNotFoundError(PathNotFoundError):
    """The image does not exist."""

    __module__ = "cimlayer"


class ImageExistsError(ImageError, FileExistsError):
    """An image of that name exists already."""

    __module__ = "cimlayer"


class ImagePermissionError(ImageError, PermissionError):
    """Access is denied, or a hard link would lead to a directory."""

    __module__ = "cimlayer"


class ImageBusyError(ImageError):
    """Somebody else writes, forks, extends or destroys the image, or a stream of it is still open."""

    __module__ = "cimlayer"


class StreamEndError(ImageError):
    """A stream got more data than the size that was given for it, or was closed with less of it."""

    __module__ = "cimlayer"


class ImageFullError(ImageError):
    """The disk is full; the image can only be closed."""

    __module__ = "cimlayer"


class InvalidCallError(ImageError, ValueError):
    """A malformed path or malformed metadata, or a call that makes no sense on this object."""

    __module__ = "cimlayer"


class UnsupportedCallError(ImageError, NotImplementedError):
    """This implementation of CimFS does not have the function."""

    __module__ = "cimlayer"


class CorruptImageError(ImageError):
    """The files of an image contradict the format; the text names the file and the offset."""

    __module__ = "cimlayer"


class KeyNotFoundError(_FileError, FileNotFoundError, KeyError):
    """A hive does not have that key or value; ``path`` begins with the name of the hive."""

    __module__ = "cimlayer"
    hresult = 0x80070002  # ERROR_FILE_NOT_FOUND, as RegOpenKeyEx and RegQueryValueEx have it

    def __init__(self, reason: str, hive: str) -> None:
        """``reason`` says what is missing, ``hive`` where: the hive, or the hive and a key."""
        super().__init__(errno.ENOENT, reason, hive)


# HRESULT -> the class that stands for it, errno. Where a class stands twice, the first code is its own.
_CODES: dict[int, tuple[type[ImageError], int]] = {
    0x80004001: (UnsupportedCallError, errno.ENOSYS),  # E_NOTIMPL
    0x80004003: (ImageError, errno.EFAULT),  # E_POINTER
    0x80070002: (ImageNotFoundError, errno.ENOENT),  # ERROR_FILE_NOT_FOUND
    0x80070003: (PathNotFoundError, errno.ENOENT),  # ERROR_PATH_NOT_FOUND
    0x80070004: (ImageError, errno.EMFILE),  # ERROR_TOO_MANY_OPEN_FILES
    0x80070005: (ImagePermissionError, errno.EACCES),  # ERROR_ACCESS_DENIED
    0x80070020: (ImageBusyError, errno.EBUSY),  # ERROR_SHARING_VIOLATION
    0x80070026: (StreamEndError, errno.EFBIG),  # ERROR_HANDLE_EOF
    0x80070050: (ImageExistsError, errno.EEXIST),  # ERROR_FILE_EXISTS
    0x80070057: (InvalidCallError, errno.EINVAL),  # E_INVALIDARG
    0x80070070: (ImageFullError, errno.ENOSPC),  # ERROR_DISK_FULL
    0x80070570: (CorruptImageError, errno.EBADMSG),  # ERROR_FILE_CORRUPT
}
for _code, (_kind, _) in _CODES.items():
    if _kind is not ImageError:
        _kind.hresult = _code
_OUT_OF_MEMORY = (0x8007000E, 0x80070008)  # E_OUTOFMEMORY, ERROR_NOT_ENOUGH_MEMORY


def image_error(
    code: int, operation: str, path: str, reason: str = "", image_file: str = "", offset: int | None = None
) -> ImageError | MemoryError:
    """The exception for a call that failed with an HRESULT, and for what is known of the cause."""
    code &= 0xFFFFFFFF
    if code in _OUT_OF_MEMORY:
        return MemoryError(f"{operation}: {path}")
    kind, number = _CODES.get(code, (ImageError, errno.EIO))
    reason = reason or os.strerror(number)
    error = kind(number, reason, path, operation=operation, offset=offset, image_file=image_file)
    if kind is ImageError:
        error.hresult = code
    return error


class FormatError(_Facts, ValueError):
    """Input from outside (a tar, a backup stream, a hive, a security descriptor) is malformed.

    ``path`` is what is malformed, such as an entry, a hive or a buffer (``what`` is the same, empty where there is none
    to name), ``offset`` a byte offset in it; ``source`` is the source of container images that it is in. The text
    leaves out the middle of a very long name; ``path`` has it whole.
    """

    __module__ = "cimlayer"

    def __init__(self, reason: str, what: str = "", offset: int | None = None, *, layer: str | None = None) -> None:
        """``offset`` may be -1 where it is not known."""
        super().__init__(reason)
        self.reason = reason
        self.what = what
        self.offset = None if offset is None or offset < 0 else offset
        self.layer = layer

    @property
    def path(self) -> str | None:
        """What is malformed."""
        return self.what or None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"layer {self.layer}"
        where = "" if self.offset is None else f" (at offset {self.offset})"
        text = ": ".join(filter(None, (layer, _shortened(self.what), self.reason))) + where
        return text if self.source is None or self.source in text else f"{self.source}: {text}"


def malformed(reason: str, what: str, offset: int | None = None) -> FormatError | MemoryError:
    """The exception for what a parser in C says; that memory ran out is no fault of its input."""
    return MemoryError(what) if reason.endswith(_NO_MEMORY) else FormatError(reason, what, offset)


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST_SHOWN:
        return name
    kept = _LONGEST_SHOWN // 2
    return f"{name[:kept]}[{len(name) - 2 * kept} more]{name[-kept:]}"


class LimitError(FormatError):
    """Input asks for more than :class:`cimlayer.Limits` allow.

    ``limit`` is the limit's name and ``value`` its value; ``entry`` is what in the layer or image goes beyond it, empty
    where that is the tar as a whole, and ``offset`` where it begins in the layer's tar.
    """

    __module__ = "cimlayer"

    def __init__(
        self, limit: str, value: int, entry: str = "", offset: int | None = None, layer: str | None = None
    ) -> None:
        """Say which limit, and its value, so that who trusts the input can raise it."""
        super().__init__(f"{_TOO_MUCH[limit]}: the limit of {limit} is {value}", entry, offset, layer=layer)
        self.limit = limit
        self.value = value

    @property
    def entry(self) -> str:
        """The entry that goes beyond the limit."""
        return self.what


_TOO_MUCH = {
    "files": "too many entries",
    "bytes": "too many bytes",
    "path_depth": "too deep a path",
    "ratio": "too many bytes out of so few",
}


class DigestMismatchError(FormatError):
    """The bytes are not those that a digest or a size promised: ``expected`` and ``actual`` have both.

    ``offset`` is where that was noticed, which is the end for a digest.
    """

    __module__ = "cimlayer"

    def __init__(self, what: str, expected: str, actual: str, offset: int | None = None) -> None:
        """``what`` names the blob or the layer."""
        super().__init__(f"expected {expected}, but it has {actual}", what, offset)
        self.expected = expected
        self.actual = actual


class CorruptHiveError(FormatError):
    """A hive is damaged."""

    __module__ = "cimlayer"


class OperationCancelledError(_Facts, Exception):
    """A :class:`cimlayer.CancellationToken` stopped the operation; nothing half-made is left."""

    __module__ = "cimlayer"


class DirtyHiveWarning(UserWarning):
    """A hive whose last writes never reached it is read as it is: its logs were not given or do not fit."""

    __module__ = "cimlayer"
