/*
 * What the shared library exports; the Python modules are linked without this file.
 */
#define LIBCIMFS_BUILD
#include "libcimfs.h"

cimfs_hresult CIMFS_CALL CimCreateImage(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                        const cimfs_wchar *new_name, cimfs_image *image)
{
    return cimfs_portable_api()->create_image(containing_path, existing_name, new_name, image);
}

cimfs_hresult CIMFS_CALL CimCloseImage(cimfs_image image)
{
    cimfs_portable_api()->close_image(image);
    return CIMFS_OK;
}

cimfs_hresult CIMFS_CALL CimCommitImage(cimfs_image image)
{
    return cimfs_portable_api()->commit_image(image);
}

cimfs_hresult CIMFS_CALL CimCreateFile(cimfs_image image, const cimfs_wchar *path,
                                       const struct cimfs_file_metadata *metadata, cimfs_stream *stream)
{
    return cimfs_portable_api()->create_file(image, path, metadata, stream);
}

cimfs_hresult CIMFS_CALL CimWriteStream(cimfs_stream stream, const void *buffer, uint32_t size)
{
    return cimfs_portable_api()->write_stream(stream, buffer, size);
}

cimfs_hresult CIMFS_CALL CimCloseStream(cimfs_stream stream)
{
    return cimfs_portable_api()->close_stream(stream);
}

cimfs_hresult CIMFS_CALL CimCreateAlternateStream(cimfs_image image, const cimfs_wchar *path, uint64_t size,
                                                  cimfs_stream *stream)
{
    return cimfs_portable_api()->create_alternate_stream(image, path, size, stream);
}

cimfs_hresult CIMFS_CALL CimCreateHardLink(cimfs_image image, const cimfs_wchar *new_path,
                                           const cimfs_wchar *existing_path)
{
    return cimfs_portable_api()->create_hard_link(image, new_path, existing_path);
}

cimfs_hresult CIMFS_CALL CimDeletePath(cimfs_image image, const cimfs_wchar *path)
{
    return cimfs_portable_api()->delete_path(image, path);
}

cimfs_hresult CIMFS_CALL CimCreateImage2(const cimfs_wchar *containing_path, uint32_t flags,
                                         const cimfs_wchar *existing_name, const cimfs_wchar *new_name,
                                         cimfs_image *image)
{
    /* PE images are never expanded, and content is never cut at positions that depend on it. */
    const uint32_t satisfied = CIMFS_CREATE_NO_PE_EXPANSION | CIMFS_CREATE_FIXED_SIZE_CHUNKS;
    *image = NULL;
    return flags & ~satisfied ? CIMFS_E_NOTIMPL : CimCreateImage(containing_path, existing_name, new_name, image);
}

cimfs_hresult CimCreateImageWith(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                 const cimfs_wchar *new_name, const struct cimfs_options *options, cimfs_image *image)
{
    return cimfs_portable_api()->create_image_with(containing_path, existing_name, new_name, options, image);
}

/* ---- what the portable implementation does not have ---- */

cimfs_hresult CIMFS_CALL CimTombstoneFile(cimfs_image image, const cimfs_wchar *path)
{
    (void)image, (void)path;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimCreateMergeLink(cimfs_image image, const cimfs_wchar *new_path,
                                            const cimfs_wchar *existing_path)
{
    (void)image, (void)new_path, (void)existing_path;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimAddFsToMergedImage(cimfs_image image, const cimfs_wchar *image_path)
{
    (void)image, (void)image_path;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimAddFsToMergedImage2(cimfs_image image, const cimfs_wchar *image_path, uint32_t flags)
{
    (void)image, (void)image_path, (void)flags;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimSealImage(const cimfs_wchar *block_path, uint64_t *hash_size, uint64_t *fixed_header_size,
                                      void *hash)
{
    (void)block_path, (void)hash;
    *hash_size = *fixed_header_size = 0;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimGetVerificationInformation(const cimfs_wchar *block_path, uint32_t *is_sealed,
                                                       uint64_t *hash_size, uint64_t *signature_size,
                                                       uint64_t *fixed_header_size, void *hash, void *signature)
{
    (void)block_path, (void)hash, (void)signature;
    *is_sealed = 0;
    *hash_size = *signature_size = *fixed_header_size = 0;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimMountImage(const cimfs_wchar *containing_path, const cimfs_wchar *name, uint32_t flags,
                                       const struct cimfs_volume_id *volume)
{
    (void)containing_path, (void)name, (void)flags, (void)volume;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimDismountImage(const struct cimfs_volume_id *volume)
{
    (void)volume;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimMergeMountImage(uint32_t count, const struct cimfs_image_path *images, uint32_t flags,
                                            const struct cimfs_volume_id *volume)
{
    (void)count, (void)images, (void)flags, (void)volume;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimMountVerifiedImage(const cimfs_wchar *containing_path, const cimfs_wchar *name,
                                               uint32_t flags, const struct cimfs_volume_id *volume, uint16_t hash_size,
                                               const void *hash)
{
    (void)containing_path, (void)name, (void)flags, (void)volume, (void)hash_size, (void)hash;
    return CIMFS_E_NOTIMPL;
}

cimfs_hresult CIMFS_CALL CimMergeMountVerifiedImage(uint32_t count, const struct cimfs_image_path *images,
                                                    uint32_t flags, const struct cimfs_volume_id *volume,
                                                    uint16_t hash_size, const void *hash)
{
    (void)count, (void)images, (void)flags, (void)volume, (void)hash_size, (void)hash;
    return CIMFS_E_NOTIMPL;
}
