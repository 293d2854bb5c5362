"""An image as a file system of fsspec, protocol ``cim``.

fsspec finds it by an entry point (https://filesystem-spec.readthedocs.io/en/latest/developer.html), so nobody imports
this module, which needs the extra ``fsspec``.
"""

from __future__ import annotations

import errno
import io
import os
from datetime import datetime
from typing import Any, NoReturn

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimfs_ext.reader import ImageReader, path_text
from cimlayer.image.path import CimPath


class CimFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A read-only file system over an image or a layer, wherever fsspec finds it.

    Paths have slashes and compare without regard to case; patterns are fsspec's, which regard it. Of a symbolic link
    or mount point, the type is ``link``; it is not followed, and has no content. ``info`` also has ``created`` and
    ``modified`` (aware datetimes, or None), ``attributes`` (FileAttributes) and ``islink``.
    """

    protocol = "cim"
    root_marker = ""
    cachable = False  # a layer may be destroyed, and another one imported in its place

    def __init__(
        self,
        fo: str | os.PathLike[str] = "",
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """``fo`` is the path or URL of a ``.cim`` file or of a layer directory, on the target file system.

        In a chained URL, such as ``cim://Files/x::s3://bucket/layers/2``, fsspec fills in all of them.
        """
        super().__init__(**options)
        if target_protocol is not None:
            target_options = {"protocol": target_protocol, **(target_options or {})}
        store, path = url_to_fs(os.fspath(fo), **(target_options or {}))
        self.image = _open_image(store, path)

    def close(self) -> None:
        """Close the image."""
        self.image.close()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = os.fspath(path).removeprefix("cim://")
        return path_text(text.partition("::")[0]).replace("\\", "/")

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """What is known of one path; FileNotFoundError if nothing is there."""
        found = CimPath(self.image, self._strip_protocol(path))
        return _info(found)

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        """What a directory holds, or the file itself."""
        top = CimPath(self.image, self._strip_protocol(path))
        found = [_info(child) for child in (top.iterdir() if top.stat().is_directory else [top])]
        return found if detail else [info["name"] for info in found]

    def created(self, path: str) -> datetime | None:
        """When the file was created."""
        time: datetime | None = self.info(path)["created"]
        return time

    def modified(self, path: str) -> datetime | None:
        """When the content was last written."""
        time: datetime | None = self.info(path)["modified"]
        return time

    def _open(self, path: str, mode: str = "rb", **_options: Any) -> io.BufferedReader:
        if mode != "rb":
            self._refuse()
        return io.BufferedReader(self.image.open(path))

    def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise OSError(errno.EROFS, "an image is read-only", self.image.name)

    mkdir = makedirs = rmdir = rm_file = cp_file = touch = pipe_file = put_file = mv = _refuse


def _open_image(store: AbstractFileSystem, path: str) -> ImageReader:
    if isinstance(store, LocalFileSystem):
        return ImageReader(path)
    directory, _, name = path.rstrip("/").rpartition("/")
    if not name.endswith(".cim"):
        directory, name = f"{directory}/{CIM_DIRECTORY}", f"{name}.cim"
    return ImageReader(name, files=lambda file: store.open(f"{directory}/{file}", "rb"))


def _info(path: CimPath) -> dict[str, Any]:
    entry = path.stat()
    link = path.is_symlink() or path.is_junction()
    return {
        "name": path.as_posix(),
        "size": entry.size,
        "type": "link" if link else "directory" if entry.is_directory else "file",
        "islink": link,
        "created": entry.creation_datetime,
        "modified": entry.last_write_datetime,
        "attributes": entry.attributes,
    }
