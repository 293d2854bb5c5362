"""Windows container layers as CimFS images, on any platform."""

# All public names, by the module that has them; "NAME as PUBLIC" where a module's own name is too short here. Each is
# imported when it is first asked for: a program that lists an image loads no NTFS formatter. Type checkers read
# __init__.pyi, which tests/support/rootstub.py makes of this table: they understand nothing but imports.
_MODULES = {
    "cimfs_ext.backupstream": ("BackupStreamParser", "BackupStreamWriter"),
    "cimfs_ext.entries": (
        "FileAttributes",
        "ImageEntry",
        "filetime_to_datetime",
    ),
    "cimfs_ext.errors": (
        "CorruptHiveError",
        "CorruptImageError",
        "DigestMismatchError",
        "DirtyHiveWarning",
        "FormatError",
        "ImageBusyError",
        "ImageError",
        "ImageExistsError",
        "ImageFullError",
        "ImageNotFoundError",
        "ImagePermissionError",
        "InvalidCallError",
        "KeyNotFoundError",
        "LimitError",
        "OperationCancelledError",
        "PathNotFoundError",
        "StreamEndError",
        "UnsupportedCallError",
    ),
    "cimfs_ext.image": ("ImageWriter",),
    "cimfs_ext.implementation": ("Implementation",),
    "cimfs_ext.reader": ("ImageReader", "StreamReader"),
    "cimfs_ext.reports": ("Problem", "RegionSet", "VerifyReport"),
    "cimfs_ext.streamentry": ("StreamEntry",),
    "cimfs_ext.hivevalues": ("Value as HiveValue", "interpret", "type_name as value_type_name"),
    "cimfs_ext.regf": ("Hive", "Key as HiveKey"),
    "cimlayer.events": (
        "CancellationToken",
        "Event",
        "LayerCommitting",
        "LayerDone",
        "LayerProgress",
        "LayerReused",
        "LayerStarted",
        "LayerWarning",
        "FilesProgress",
        "ProgressCallback",
        "event_record",
    ),
    "cimlayer.formats.bcd": (
        "BOOT_VOLUME",
        "BcdStore",
        "BootDevice",
        "CimfsDevice",
        "CompositeDevice",
        "Device as BcdDevice",
        "Element as BcdElement",
        "ElementValue as BcdValue",
        "GptPartition",
        "MbrPartition",
        "OtherDevice",
        "RamDisk",
        "VmbusDevice",
        "decode_device",
        "describe as describe_bcd",
        "encode_device",
        "patch_for_cim",
    ),
    "cimlayer.formats.disks": (
        "DiskIdentity",
        "create_differencing_disk",
        "create_formatted_disk",
        "create_scratch_disk",
    ),
    "cimlayer.formats.extattributes": ("ExtendedAttribute", "parse_extended_attributes"),
    "cimlayer.formats.fileinfo": ("FileBasicInfo",),
    "cimlayer.formats.hivetext": (
        "DeltaChange",
        "KeyChange",
        "ValueChange",
        "diff as diff_hives",
        "explain as explain_delta",
        "reg_file",
        "reg_text",
        "value_to_json",
    ),
    "cimlayer.formats.reparse": ("ReparsePoint", "parse_reparse_data"),
    "cimlayer.formats.sddl": ("descriptor_from_sddl", "sddl_from_descriptor"),
    "cimlayer.image.block": (
        "BlockImage",
        "BlockKind",
        "CreateFlags",
        "MergeFlags",
        "VerificationInformation",
        "create_block_image",
        "merge_block_images",
        "seal_image",
        "verification_information",
    ),
    "cimlayer.image.compare": ("Change", "diff_images"),
    "cimlayer.image.create": ("Creation", "create_image"),
    "cimlayer.image.export": ("export_image_as_tar",),
    "cimlayer.image.extract": ("extract",),
    "cimlayer.image.extraction": ("Extraction",),
    "cimlayer.image.features": (
        "WindowsSystem",
        "is_block_cim_supported",
        "is_cimfs_supported",
        "is_merged_cim_supported",
        "is_verified_cim_supported",
    ),
    "cimlayer.image.files": ("DiskFile",),
    "cimlayer.image.fuse": ("mount_with_fuse", "unmount_with_fuse"),
    "cimlayer.image.inspect": ("ChainLink", "Contents", "Inspection", "SetUse", "image_chain", "inspect_image"),
    "cimlayer.image.mount": ("MountFlags", "dismount_image", "mount_image", "mount_merged_image", "volume_path"),
    "cimlayer.image.path": ("CimPath",),
    "cimlayer.image.update": ("Change as ImageChange", "Update as ImageUpdate", "parse_changes", "update_image"),
    "cimlayer.layer.blockwriter": ("BlockCimLayerWriter",),
    "cimlayer.layer.destroy": ("destroy_cim_layer",),
    "cimlayer.layer.garbage": ("broken_images", "collect_garbage"),
    "cimlayer.layer.hivefiles": ("open_hive",),
    "cimlayer.layer.paths": (
        "get_cim_dir_from_layer",
        "get_cim_name_from_layer",
        "get_cim_path_from_layer",
        "is_cim_layer",
    ),
    "cimlayer.layer.scratch": ("create_scratch_disks",),
    "cimlayer.layer.store.layerstore": ("LayerStore", "StoreGarbage", "StoreProblem", "StoredLayer"),
    "cimlayer.layer.writer": ("CimLayerWriter",),
    "cimlayer.limits": ("Limits",),
    "cimlayer.oci.export_image": ("ExportedImage", "ExportedLayer", "export_image"),
    "cimlayer.oci.export_layer": ("export_layer",),
    "cimlayer.oci.fleet.import_images": ("import_images",),
    "cimlayer.oci.fleet.scheduler": ("ImageResult",),
    "cimlayer.oci.import_image": ("import_image",),
    "cimlayer.oci.import_layer": ("import_layer",),
    "cimlayer.oci.imported": ("ImportedImage", "ImportedLayer"),
    "cimlayer.oci.list_images": ("ListedImage", "list_images"),
    "cimlayer.oci.platforms": ("Platform",),
    "cimlayer.oci.registry.source": ("ContainerRegistry",),
    "cimlayer.oci.sources": ("BlobDescriptor", "ImageReference", "ImageSource"),
}

_HOMES = {
    name.rpartition(" as ")[2]: (module, name.partition(" as ")[0])
    for module, names in _MODULES.items()
    for name in names
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # which the stub has as a list


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # it stands in pyproject.toml alone

        value: object = version("cimlayer")
    elif name in _HOMES:
        from importlib import import_module  # noqa: PLC0415

        module, own_name = _HOMES[name]
        value = getattr(import_module(module), own_name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
