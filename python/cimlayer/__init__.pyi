# Made by tests/support/rootstub.py of the table in __init__.py.
from cimfs_ext.backupstream import (
    BackupStreamParser,
    BackupStreamWriter,
)
from cimfs_ext.entries import (
    FileAttributes,
    ImageEntry,
    filetime_to_datetime,
)
from cimfs_ext.errors import (
    CorruptHiveError,
    CorruptImageError,
    DigestMismatchError,
    DirtyHiveWarning,
    FormatError,
    ImageBusyError,
    ImageError,
    ImageExistsError,
    ImageFullError,
    ImageNotFoundError,
    ImagePermissionError,
    InvalidCallError,
    KeyNotFoundError,
    LimitError,
    OperationCancelledError,
    PathNotFoundError,
    StreamEndError,
    UnsupportedCallError,
)
from cimfs_ext.image import (
    ImageWriter,
)
from cimfs_ext.implementation import (
    Implementation,
)
from cimfs_ext.reader import (
    ImageReader,
    StreamReader,
)
from cimfs_ext.reports import (
    Problem,
    RegionSet,
    VerifyReport,
)
from cimfs_ext.streamentry import (
    StreamEntry,
)
from cimfs_ext.hivevalues import (
    Value as HiveValue,
    interpret,
    type_name as value_type_name,
)
from cimfs_ext.regf import (
    Hive,
    Key as HiveKey,
)
from cimlayer.events import (
    CancellationToken,
    Event,
    LayerCommitting,
    LayerDone,
    LayerProgress,
    LayerReused,
    LayerStarted,
    LayerWarning,
    FilesProgress,
    ProgressCallback,
    event_record,
)
from cimlayer.formats.bcd import (
    BOOT_VOLUME,
    BcdStore,
    BootDevice,
    CimfsDevice,
    CompositeDevice,
    Device as BcdDevice,
    Element as BcdElement,
    ElementValue as BcdValue,
    GptPartition,
    MbrPartition,
    OtherDevice,
    RamDisk,
    VmbusDevice,
    decode_device,
    describe as describe_bcd,
    encode_device,
    patch_for_cim,
)
from cimlayer.formats.disks import (
    DiskIdentity,
    create_differencing_disk,
    create_formatted_disk,
    create_scratch_disk,
)
from cimlayer.formats.extattributes import (
    ExtendedAttribute,
    parse_extended_attributes,
)
from cimlayer.formats.fileinfo import (
    FileBasicInfo,
)
from cimlayer.formats.hivetext import (
    DeltaChange,
    KeyChange,
    ValueChange,
    diff as diff_hives,
    explain as explain_delta,
    reg_file,
    reg_text,
    value_to_json,
)
from cimlayer.formats.reparse import (
    ReparsePoint,
    parse_reparse_data,
)
from cimlayer.formats.sddl import (
    descriptor_from_sddl,
    sddl_from_descriptor,
)
from cimlayer.image.block import (
    BlockImage,
    BlockKind,
    CreateFlags,
    MergeFlags,
    VerificationInformation,
    create_block_image,
    merge_block_images,
    seal_image,
    verification_information,
)
from cimlayer.image.compare import (
    Change,
    diff_images,
)
from cimlayer.image.create import (
    Creation,
    create_image,
)
from cimlayer.image.export import (
    export_image_as_tar,
)
from cimlayer.image.extract import (
    extract,
)
from cimlayer.image.extraction import (
    Extraction,
)
from cimlayer.image.features import (
    WindowsSystem,
    is_block_cim_supported,
    is_cimfs_supported,
    is_merged_cim_supported,
    is_verified_cim_supported,
)
from cimlayer.image.files import (
    DiskFile,
)
from cimlayer.image.fuse import (
    mount_with_fuse,
    unmount_with_fuse,
)
from cimlayer.image.inspect import (
    ChainLink,
    Contents,
    Inspection,
    SetUse,
    image_chain,
    inspect_image,
)
from cimlayer.image.mount import (
    MountFlags,
    dismount_image,
    mount_image,
    mount_merged_image,
    volume_path,
)
from cimlayer.image.path import (
    CimPath,
)
from cimlayer.image.update import (
    Change as ImageChange,
    Update as ImageUpdate,
    parse_changes,
    update_image,
)
from cimlayer.layer.blockwriter import (
    BlockCimLayerWriter,
)
from cimlayer.layer.destroy import (
    destroy_cim_layer,
)
from cimlayer.layer.garbage import (
    broken_images,
    collect_garbage,
)
from cimlayer.layer.hivefiles import (
    open_hive,
)
from cimlayer.layer.paths import (
    get_cim_dir_from_layer,
    get_cim_name_from_layer,
    get_cim_path_from_layer,
    is_cim_layer,
)
from cimlayer.layer.scratch import (
    create_scratch_disks,
)
from cimlayer.layer.store.layerstore import (
    LayerStore,
    StoreGarbage,
    StoreProblem,
    StoredLayer,
)
from cimlayer.layer.writer import (
    CimLayerWriter,
)
from cimlayer.limits import (
    Limits,
)
from cimlayer.oci.export_image import (
    ExportedImage,
    ExportedLayer,
    export_image,
)
from cimlayer.oci.export_layer import (
    export_layer,
)
from cimlayer.oci.fleet.import_images import (
    import_images,
)
from cimlayer.oci.fleet.scheduler import (
    ImageResult,
)
from cimlayer.oci.import_image import (
    import_image,
)
from cimlayer.oci.import_layer import (
    import_layer,
)
from cimlayer.oci.imported import (
    ImportedImage,
    ImportedLayer,
)
from cimlayer.oci.list_images import (
    ListedImage,
    list_images,
)
from cimlayer.oci.platforms import (
    Platform,
)
from cimlayer.oci.registry.source import (
    ContainerRegistry,
)
from cimlayer.oci.sources import (
    BlobDescriptor,
    ImageReference,
    ImageSource,
)

__version__: str
__all__ = [
    "BOOT_VOLUME",
    "BackupStreamParser",
    "BackupStreamWriter",
    "BcdDevice",
    "BcdElement",
    "BcdStore",
    "BcdValue",
    "BlobDescriptor",
    "BlockCimLayerWriter",
    "BlockImage",
    "BlockKind",
    "BootDevice",
    "CancellationToken",
    "ChainLink",
    "Change",
    "CimLayerWriter",
    "CimPath",
    "CimfsDevice",
    "CompositeDevice",
    "ContainerRegistry",
    "Contents",
    "CorruptHiveError",
    "CorruptImageError",
    "CreateFlags",
    "Creation",
    "DeltaChange",
    "DigestMismatchError",
    "DirtyHiveWarning",
    "DiskFile",
    "DiskIdentity",
    "Event",
    "ExportedImage",
    "ExportedLayer",
    "ExtendedAttribute",
    "Extraction",
    "FileAttributes",
    "FileBasicInfo",
    "FilesProgress",
    "FormatError",
    "GptPartition",
    "Hive",
    "HiveKey",
    "HiveValue",
    "ImageBusyError",
    "ImageChange",
    "ImageEntry",
    "ImageError",
    "ImageExistsError",
    "ImageFullError",
    "ImageNotFoundError",
    "ImagePermissionError",
    "ImageReader",
    "ImageReference",
    "ImageResult",
    "ImageSource",
    "ImageUpdate",
    "ImageWriter",
    "Implementation",
    "ImportedImage",
    "ImportedLayer",
    "Inspection",
    "InvalidCallError",
    "KeyChange",
    "KeyNotFoundError",
    "LayerCommitting",
    "LayerDone",
    "LayerProgress",
    "LayerReused",
    "LayerStarted",
    "LayerStore",
    "LayerWarning",
    "LimitError",
    "Limits",
    "ListedImage",
    "MbrPartition",
    "MergeFlags",
    "MountFlags",
    "OperationCancelledError",
    "OtherDevice",
    "PathNotFoundError",
    "Platform",
    "Problem",
    "ProgressCallback",
    "RamDisk",
    "RegionSet",
    "ReparsePoint",
    "SetUse",
    "StoreGarbage",
    "StoreProblem",
    "StoredLayer",
    "StreamEndError",
    "StreamEntry",
    "StreamReader",
    "UnsupportedCallError",
    "ValueChange",
    "VerificationInformation",
    "VerifyReport",
    "VmbusDevice",
    "WindowsSystem",
    "broken_images",
    "collect_garbage",
    "create_block_image",
    "create_differencing_disk",
    "create_formatted_disk",
    "create_image",
    "create_scratch_disk",
    "create_scratch_disks",
    "decode_device",
    "describe_bcd",
    "descriptor_from_sddl",
    "destroy_cim_layer",
    "diff_hives",
    "diff_images",
    "dismount_image",
    "encode_device",
    "event_record",
    "explain_delta",
    "export_image",
    "export_image_as_tar",
    "export_layer",
    "extract",
    "filetime_to_datetime",
    "get_cim_dir_from_layer",
    "get_cim_name_from_layer",
    "get_cim_path_from_layer",
    "image_chain",
    "import_image",
    "import_images",
    "import_layer",
    "inspect_image",
    "interpret",
    "is_block_cim_supported",
    "is_cim_layer",
    "is_cimfs_supported",
    "is_merged_cim_supported",
    "is_verified_cim_supported",
    "list_images",
    "merge_block_images",
    "mount_image",
    "mount_merged_image",
    "mount_with_fuse",
    "open_hive",
    "parse_changes",
    "parse_extended_attributes",
    "parse_reparse_data",
    "patch_for_cim",
    "reg_file",
    "reg_text",
    "sddl_from_descriptor",
    "seal_image",
    "unmount_with_fuse",
    "update_image",
    "value_to_json",
    "value_type_name",
    "verification_information",
    "volume_path",
]
