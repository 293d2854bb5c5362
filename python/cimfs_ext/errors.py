"""The exceptions that the compiled modules raise; ``cimlayer.errors`` is where programs import them from."""

from __future__ import annotations


class ImageError(OSError):
    """A call of ``cimfs.h`` failed.

    ``errno`` is the nearest POSIX error, ``filename`` the image or the path inside it that the call was about,
    ``hresult`` the unsigned 32-bit code (cimfs-api, "Errors"), ``image_file`` the name of the file at fault among those
    that make up an image, empty where there is none to name.
    """

    hresult: int = 0x80004005
    image_file: str = ""


class PathNotFoundError(ImageError, FileNotFoundError):
    """The image, a parent directory, a link target or a path to delete is not there."""


class ImageExistsError(ImageError, FileExistsError):
    """The new image's name is taken."""


class ImagePermissionError(ImageError, PermissionError):
    """No rights, or a hard link to a directory."""


class ImageBusyError(ImageError):
    """Another image handle holds the directory, or a stream of this image is still open."""


class StreamEndError(ImageError):
    """More was written than the file's size."""


class ImageFullError(ImageError):
    """The disk is full; the image can only be closed."""


class InvalidCallError(ImageError, ValueError):
    """A malformed path or metadata, or a call that makes no sense on this object."""


class UnsupportedCallError(ImageError, NotImplementedError):
    """This implementation of ``cimfs.h`` does not have the function."""


class CorruptImageError(ImageError):
    """The files of an image contradict the format; the message names the file and the offset."""


class FormatError(ValueError):
    """Input from outside (a tar, a backup stream, a hive, a descriptor) is malformed.

    ``what`` names the thing (an entry, a hive, a stream), ``offset`` the byte offset in it (-1: unknown). The text
    leaves out the middle of a very long name; ``what`` has it whole.
    """

    def __init__(self, message: str, what: str = "", offset: int = -1) -> None:
        """Build the message from its parts, so that each error names the same things in the same order."""
        place = f"{_shortened(what)}: " if what else ""
        where = f" (at offset {offset})" if offset >= 0 else ""
        super().__init__(f"{place}{message}{where}")
        self.reason = message
        self.what = what
        self.offset = offset


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST_SHOWN:
        return name
    kept = _LONGEST_SHOWN // 2
    return f"{name[:kept]}[{len(name) - 2 * kept} more]{name[-kept:]}"


_LONGEST_SHOWN = 400  # characters


class LimitError(FormatError):
    """Input asks for more than a limit of ``cimlayer.Limits`` allows.

    ``limit`` is the limit's name and ``value`` its value, ``layer`` the layer or image, ``entry`` what in it goes
    beyond (empty where it is the tar as a whole), ``offset`` where that stands in the layer's tar.
    """

    def __init__(self, limit: str, value: int, entry: str = "", offset: int = -1, layer: str = "") -> None:
        """Say which limit, and its value, so that who trusts the input can raise it."""
        message = f"{_TOO_MUCH[limit]}: the limit of {limit} is {value}"
        super().__init__(message, ": ".join(filter(None, (layer and f"layer {layer}", entry))), offset)
        self.limit = limit
        self.value = value
        self.entry = entry
        self.layer = layer

    def in_layer(self, layer: str) -> LimitError:
        """The same error with the name of the layer."""
        return LimitError(self.limit, self.value, self.entry, self.offset, layer)

    def __reduce__(self) -> tuple[type[LimitError], tuple[str, int, str, int, str]]:
        return LimitError, (self.limit, self.value, self.entry, self.offset, self.layer)


_TOO_MUCH = {
    "files": "too many entries",
    "bytes": "too many bytes",
    "path_depth": "too deep a path",
    "ratio": "too many bytes out of so few",
}


class CorruptHiveError(FormatError):
    """A registry hive cannot be read."""


class DirtyHiveWarning(UserWarning):
    """A hive that was not written to its end is read as it is: its logs were not given or do not fit."""
