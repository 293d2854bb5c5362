"""Windows container layers as CimFS images, on any platform."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cimfs_ext.entries import ImageEntry, StreamEntry, VerifyReport
    from cimfs_ext.image import ImageWriter
    from cimfs_ext.reader import ImageReader
    from cimlayer.events import CancellationToken
    from cimlayer.formats.fileinfo import FileBasicInfo
    from cimlayer.image.block import BlockImage
    from cimlayer.image.compare import Change, diff_images
    from cimlayer.image.create import create_image
    from cimlayer.image.extract import Extraction, extract
    from cimlayer.image.garbage import collect_garbage
    from cimlayer.image.inspect import Inspection, image_chain, inspect_image
    from cimlayer.image.mount import mount_image
    from cimlayer.layer.blockwriter import BlockCimLayerWriter
    from cimlayer.layer.destroy import destroy_cim_layer
    from cimlayer.layer.paths import (
        get_cim_dir_from_layer,
        get_cim_name_from_layer,
        get_cim_path_from_layer,
        is_cim_layer,
    )
    from cimlayer.layer.writer import CimLayerWriter
    from cimlayer.limits import Limits
    from cimlayer.oci.export_layer import export_layer
    from cimlayer.oci.import_image import import_image
    from cimlayer.oci.import_layer import import_layer
    from cimlayer.oci.imported import ImportedImage, ImportedLayer
    from cimlayer.oci.list_images import ListedImage, list_images
    from cimlayer.oci.platforms import Platform
    from cimlayer.oci.sources import BlobDescriptor, ImageReference, ImageSource

__all__ = [
    "BlobDescriptor",
    "BlockCimLayerWriter",
    "BlockImage",
    "CancellationToken",
    "Change",
    "CimLayerWriter",
    "Extraction",
    "FileBasicInfo",
    "ImageEntry",
    "ImageReader",
    "ImageReference",
    "ImageSource",
    "ImageWriter",
    "ImportedImage",
    "ImportedLayer",
    "Inspection",
    "Limits",
    "ListedImage",
    "Platform",
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
    "list_images",
    "mount_image",
]

# Each name is imported when it is first asked for: a program that lists an image loads no NTFS formatter.
_HOMES = {
    "BlobDescriptor": "cimlayer.oci.sources",
    "BlockCimLayerWriter": "cimlayer.layer.blockwriter",
    "BlockImage": "cimlayer.image.block",
    "CancellationToken": "cimlayer.events",
    "Change": "cimlayer.image.compare",
    "CimLayerWriter": "cimlayer.layer.writer",
    "Extraction": "cimlayer.image.extract",
    "FileBasicInfo": "cimlayer.formats.fileinfo",
    "ImageEntry": "cimfs_ext.entries",
    "ImageReader": "cimfs_ext.reader",
    "ImageReference": "cimlayer.oci.sources",
    "ImageSource": "cimlayer.oci.sources",
    "ImageWriter": "cimfs_ext.image",
    "ImportedImage": "cimlayer.oci.imported",
    "ImportedLayer": "cimlayer.oci.imported",
    "Inspection": "cimlayer.image.inspect",
    "Limits": "cimlayer.limits",
    "ListedImage": "cimlayer.oci.list_images",
    "Platform": "cimlayer.oci.platforms",
    "StreamEntry": "cimfs_ext.entries",
    "VerifyReport": "cimfs_ext.entries",
    "collect_garbage": "cimlayer.image.garbage",
    "create_image": "cimlayer.image.create",
    "destroy_cim_layer": "cimlayer.layer.destroy",
    "diff_images": "cimlayer.image.compare",
    "export_layer": "cimlayer.oci.export_layer",
    "extract": "cimlayer.image.extract",
    "get_cim_dir_from_layer": "cimlayer.layer.paths",
    "get_cim_name_from_layer": "cimlayer.layer.paths",
    "get_cim_path_from_layer": "cimlayer.layer.paths",
    "image_chain": "cimlayer.image.inspect",
    "import_image": "cimlayer.oci.import_image",
    "import_layer": "cimlayer.oci.import_layer",
    "inspect_image": "cimlayer.image.inspect",
    "is_cim_layer": "cimlayer.layer.paths",
    "list_images": "cimlayer.oci.list_images",
    "mount_image": "cimlayer.image.mount",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
