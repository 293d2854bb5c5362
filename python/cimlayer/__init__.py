"""Windows container layers as CimFS images, on any platform."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cimfs_ext.entries import ImageEntry, StreamEntry, VerifyReport
    from cimfs_ext.image import ImageWriter
    from cimfs_ext.reader import ImageReader
    from cimlayer.block import BlockImage
    from cimlayer.blocklayer import BlockCimLayerWriter
    from cimlayer.cleaning import collect_garbage
    from cimlayer.comparing import Change, diff_images
    from cimlayer.creating import create_image
    from cimlayer.events import CancellationToken
    from cimlayer.exporting import export_layer
    from cimlayer.extracting import Extraction, extract
    from cimlayer.fileinfo import FileBasicInfo
    from cimlayer.images import ImportedImage, ImportedLayer, import_image
    from cimlayer.importing import import_layer
    from cimlayer.inspecting import Inspection, image_chain, inspect_image
    from cimlayer.layer import CimLayerWriter, destroy_cim_layer
    from cimlayer.limits import Limits
    from cimlayer.mounting import mount_image
    from cimlayer.paths import get_cim_dir_from_layer, get_cim_name_from_layer, get_cim_path_from_layer, is_cim_layer

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
    "Limits",
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

# Each name is imported when it is first asked for: a program that lists an image loads no NTFS formatter.
_HOMES = {
    "BlockCimLayerWriter": "cimlayer.blocklayer",
    "BlockImage": "cimlayer.block",
    "CancellationToken": "cimlayer.events",
    "Change": "cimlayer.comparing",
    "CimLayerWriter": "cimlayer.layer",
    "Extraction": "cimlayer.extracting",
    "FileBasicInfo": "cimlayer.fileinfo",
    "ImageEntry": "cimfs_ext.entries",
    "ImageReader": "cimfs_ext.reader",
    "ImageWriter": "cimfs_ext.image",
    "ImportedImage": "cimlayer.images",
    "ImportedLayer": "cimlayer.images",
    "Inspection": "cimlayer.inspecting",
    "Limits": "cimlayer.limits",
    "StreamEntry": "cimfs_ext.entries",
    "VerifyReport": "cimfs_ext.entries",
    "collect_garbage": "cimlayer.cleaning",
    "create_image": "cimlayer.creating",
    "destroy_cim_layer": "cimlayer.layer",
    "diff_images": "cimlayer.comparing",
    "export_layer": "cimlayer.exporting",
    "extract": "cimlayer.extracting",
    "get_cim_dir_from_layer": "cimlayer.paths",
    "get_cim_name_from_layer": "cimlayer.paths",
    "get_cim_path_from_layer": "cimlayer.paths",
    "image_chain": "cimlayer.inspecting",
    "import_image": "cimlayer.images",
    "import_layer": "cimlayer.importing",
    "inspect_image": "cimlayer.inspecting",
    "is_cim_layer": "cimlayer.paths",
    "mount_image": "cimlayer.mounting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
