"""The CIMs that commands are given, and paths inside them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cimfs_ext.reader import ImageReader
from cimlayer.layer.paths import get_cim_path_from_layer, is_cim_layer

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def image_path(path: str) -> Path:
    """The ``.cim`` file for a command's argument: the path itself, or that of a layer directory."""
    if not Path(path).is_dir():
        return Path(path)
    cim = get_cim_path_from_layer(path)
    if not cim.exists():
        raise FileNotFoundError(errno.ENOENT, f"not a CIM layer: {cim} does not exist", path)
    return cim


def open_image(path: str) -> ImageReader:
    """Open a ``.cim`` file, or the CIM of a layer directory."""
    return ImageReader(image_path(path))


def require_layer(path: str) -> None:
    """Raise FileNotFoundError unless this is a layer with a CIM, complete or not."""
    if not is_cim_layer(path):
        raise FileNotFoundError(errno.ENOENT, f"not a CIM layer: {get_cim_path_from_layer(path)} does not exist", path)


class InnerPath(click.ParamType):  # type: ignore[type-arg]  # which takes none before click 8.4
    """A path inside the CIM that the argument ``image`` names; a shell completes it from there."""

    name = "path in the CIM"

    def convert(self, value: Any, _parameter: click.Parameter | None, _context: click.Context | None) -> Any:
        """As it is."""
        return value

    def shell_complete(
        self, context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The entries that begin with what is typed."""
        from cimlayer.cli.completing import inner_paths  # noqa: PLC0415

        return inner_paths(context.params.get("image"), incomplete)


INNER_PATH = InnerPath()
