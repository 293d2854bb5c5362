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
    from cimlayer.layer.scratch import create_scratch_disks
    from cimlayer.layer.writer import CimLayerWriter
    from cimlayer.limits import Limits
    from cimlayer.oci.export_layer import export_layer
    from cimlayer.oci.import_image import ImportedImage, ImportedLayer, import_image
    from cimlayer.oci.import_layer import import_layer

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
    "create_scratch_disks",
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
    "BlockCimLayerWriter": "cimlayer.layer.blockwriter",
    "BlockImage": "cimlayer.image.block",
    "CancellationToken": "cimlayer.events",
    "Change": "cimlayer.image.compare",
    "CimLayerWriter": "cimlayer.layer.writer",
    "Extraction": "cimlayer.image.extract",
    "FileBasicInfo": "cimlayer.formats.fileinfo",
    "ImageEntry": "cimfs_ext.entries",
    "ImageReader": "cimfs_ext.reader",
    "ImageWriter": "cimfs_ext.image",
    "ImportedImage": "cimlayer.oci.import_image",
    "ImportedLayer": "cimlayer.oci.import_image",
    "Inspection": "cimlayer.image.inspect",
    "Limits": "cimlayer.limits",
    "StreamEntry": "cimfs_ext.entries",
    "VerifyReport": "cimfs_ext.entries",
    "collect_garbage": "cimlayer.image.garbage",
    "create_image": "cimlayer.image.create",
    "create_scratch_disks": "cimlayer.layer.scratch",
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
    "mount_image": "cimlayer.image.mount",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
