"""Windows container layers as CimFS images, on any platform."""

from cimfs_ext.entries import ImageEntry, StreamEntry, VerifyReport
from cimfs_ext.image import ImageWriter
from cimfs_ext.reader import ImageReader
from cimlayer.block import BlockImage
from cimlayer.blocklayer import BlockCimLayerWriter
from cimlayer.events import CancellationToken
from cimlayer.fileinfo import FileBasicInfo
from cimlayer.images import ImportedImage, ImportedLayer, import_image
from cimlayer.importing import import_layer
from cimlayer.layer import CimLayerWriter, destroy_cim_layer
from cimlayer.mounting import mount_image
from cimlayer.paths import (
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)

__all__ = [
    "BlockCimLayerWriter",
    "BlockImage",
    "CancellationToken",
    "CimLayerWriter",
    "FileBasicInfo",
    "ImageEntry",
    "ImageReader",
    "ImageWriter",
    "ImportedImage",
    "ImportedLayer",
    "StreamEntry",
    "VerifyReport",
    "destroy_cim_layer",
    "get_cim_dir_from_layer",
    "get_cim_name_from_layer",
    "get_cim_path_from_layer",
    "import_image",
    "import_layer",
    "is_cim_layer",
    "mount_image",
]
