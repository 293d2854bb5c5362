"""The calls of ``cimfs.h`` on images that are finished: mounting, sealing, verification information."""

from libc.stdint cimport UINT16_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cimfs_ext import errors

from cimfs_ext.cimfs cimport (
    CIMFS_ROOT_HASH_SIZE,
    cimfs_hresult,
    cimfs_image_path,
    cimfs_volume_id,
    cimfs_wchar,
)
from cimfs_ext.image cimport error_for, wide
from cimfs_ext.implementation cimport Implementation, choose


cdef cimfs_volume_id volume_id(volume) except *:
    """A uuid.UUID as a GUID."""
    cdef cimfs_volume_id result
    cdef bytes fields = volume.bytes_le
    if len(fields) != sizeof(result):
        raise ValueError(f"not a volume ID: {volume!r}")
    memcpy(&result, <const char *>fields, sizeof(result))
    return result


cdef const cimfs_wchar *units(bytes text):
    return <const cimfs_wchar *><const char *>text


cdef int check(cimfs_hresult code, str operation, str path) except -1:
    if code < 0:
        raise error_for(code, NULL, operation, path)
    return 0


cdef uint16_t hash_size(bytes root_hash) except? 0:
    if len(root_hash) > UINT16_MAX:
        raise ValueError(f"a root hash has {CIMFS_ROOT_HASH_SIZE} bytes, not {len(root_hash)}")
    return <uint16_t>len(root_hash)


def mount(str directory, str name, volume, *, uint32_t flags=0, bytes root_hash=None, implementation=None):
    """Mount an image as the volume of that ID; with ``root_hash`` every read is verified against it.

    ``directory`` holds the image, or is the block device or file that does.
    """
    cdef Implementation calls = choose(implementation)
    cdef bytes directory_text = wide(directory), name_text = wide(name)
    cdef cimfs_volume_id id = volume_id(volume)
    cdef cimfs_hresult code
    cdef const char *hash_bytes
    cdef uint16_t size
    cdef const cimfs_wchar *where = units(directory_text)
    cdef const cimfs_wchar *what = units(name_text)
    if root_hash is None:
        calls.require(calls.api.mount_image != NULL, "CimMountImage", name)
        with nogil:
            code = calls.api.mount_image(where, what, flags, &id)
    else:
        calls.require(calls.api.mount_verified_image != NULL, "CimMountVerifiedImage", name)
        size = hash_size(root_hash)
        hash_bytes = root_hash
        with nogil:
            code = calls.api.mount_verified_image(where, what, flags, &id, size, hash_bytes)
    check(code, "mount", name)


def mount_merged(images, volume, *, uint32_t flags=0, bytes root_hash=None, implementation=None):
    """Mount images as one volume: (directory, name) of the merged image, then those that it merges, in their order."""
    cdef Implementation calls = choose(implementation)
    cdef cimfs_volume_id id = volume_id(volume)
    images = list(images)
    cdef list texts = [(wide(directory), wide(name)) for directory, name in images]
    cdef uint32_t count = <uint32_t>len(texts)
    cdef uint32_t i
    cdef cimfs_hresult code
    cdef const char *hash_bytes = NULL
    cdef uint16_t size = 0
    cdef cimfs_image_path *paths
    if not texts:
        raise ValueError("no image to mount")
    name = images[0][1]
    if root_hash is None:
        calls.require(calls.api.merge_mount_image != NULL, "CimMergeMountImage", name)
    else:
        calls.require(calls.api.merge_mount_verified_image != NULL, "CimMergeMountVerifiedImage", name)
        size = hash_size(root_hash)
        hash_bytes = root_hash
    paths = <cimfs_image_path *>malloc(count * sizeof(cimfs_image_path))
    if paths == NULL:
        raise MemoryError
    try:
        for i in range(count):
            paths[i].directory = units(texts[i][0])
            paths[i].name = units(texts[i][1])
        with nogil:
            if hash_bytes == NULL:
                code = calls.api.merge_mount_image(count, paths, flags, &id)
            else:
                code = calls.api.merge_mount_verified_image(count, paths, flags, &id, size, hash_bytes)
    finally:
        free(paths)
    check(code, "mount merged", name)


def dismount(volume, *, implementation=None):
    """Dismount the volume of that ID."""
    cdef Implementation calls = choose(implementation)
    cdef cimfs_volume_id id = volume_id(volume)
    cdef cimfs_hresult code
    calls.require(calls.api.dismount_image != NULL, "CimDismountImage", str(volume))
    with nogil:
        code = calls.api.dismount_image(&id)
    check(code, "dismount", str(volume))


def seal(str block_path, *, implementation=None):
    """Seal the block image at that path: nothing can be written to it any more. Returns its root hash, 32 bytes."""
    cdef Implementation calls = choose(implementation)
    cdef uint8_t[32] root_hash
    cdef uint64_t size = 0, header_size = 0
    cdef bytes text = wide(block_path)
    cdef const cimfs_wchar *path = units(text)
    cdef cimfs_hresult code
    calls.require(calls.api.seal_image != NULL, "CimSealImage", block_path)
    with nogil:
        code = calls.api.seal_image(path, &size, &header_size, root_hash)
    check(code, "seal", block_path)
    return checked_hash(root_hash, size, block_path)


def verification_information(str block_path, *, implementation=None):
    """Whether the block image is sealed, its root hash, and the sizes in bytes of its signature and fixed header."""
    cdef Implementation calls = choose(implementation)
    cdef uint8_t[32] root_hash
    cdef uint32_t sealed = 0
    cdef uint64_t size = 0, signature_size = 0, header_size = 0
    cdef bytes text = wide(block_path)
    cdef const cimfs_wchar *path = units(text)
    cdef cimfs_hresult code
    calls.require(calls.api.get_verification_information != NULL, "CimGetVerificationInformation", block_path)
    with nogil:
        code = calls.api.get_verification_information(path, &sealed, &size, &signature_size, &header_size,
                                                      root_hash, NULL)
    check(code, "verification information", block_path)
    found = checked_hash(root_hash, size, block_path) if sealed else b""
    return bool(sealed), found, signature_size, header_size


cdef bytes checked_hash(const uint8_t *root_hash, uint64_t size, str path):
    if size != CIMFS_ROOT_HASH_SIZE:
        raise errors.CorruptImageError(0, f"a root hash of {size} bytes instead of {CIMFS_ROOT_HASH_SIZE}", path)
    return (<const char *>root_hash)[:size]
