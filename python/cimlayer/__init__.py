"""Windows container layers as CimFS images, on any platform."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cimfs_ext.entries import ImageEntry, StreamEntry, VerifyReport
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from cimlayer.block import BlockImage
from cimlayer.blocklayer import BlockCimLayerWriter
from cimlayer.cleaning import collect_garbage
from cimlayer.comparing import Change, diff_images
from cimlayer.events import CancellationToken
from cimlayer.extracting import Extraction, extract
from cimlayer.fileinfo import FileBasicInfo
from cimlayer.images import ImportedImage, ImportedLayer, import_image
from cimlayer.importing import import_layer
from cimlayer.inspecting import Inspection, image_chain, inspect_image
from cimlayer.layer import CimLayerWriter, destroy_cim_layer
from cimlayer.mounting import mount_image
from cimlayer.paths import (
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)

if TYPE_CHECKING:
    from cimlayer.creating import create_image
    from cimlayer.exporting import export_layer

__all__ = [
    "BlockCimLayerWriter",
    "BlockImage",
    "CancellationToken",
    "Change",
    "CimLayerWriter",
    "Extraction",
    "FileBasicInfo",
    "ImageEntry",
    "ImageReader",
    "ImageWriter",
    "ImportedImage",
    "ImportedLayer",
    "Inspection",
    "StreamEntry",
    "VerifyReport",
    "collect_garbage",
    "create_image",
    "destroy_cim_layer",
    "diff_images",
    "export_layer",
    "extract",
    "get_cim_dir_from_layer",
    "get_cim_name_from_layer",
    "get_cim_path_from_layer",
    "image_chain",
    "import_image",
    "import_layer",
    "inspect_image",
    "is_cim_layer",
    "mount_image",
]

_LATE = {"create_image": "cimlayer.creating", "export_layer": "cimlayer.exporting"}  # they need tarfile


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
