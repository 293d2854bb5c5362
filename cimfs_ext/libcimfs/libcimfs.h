/*
 * libcimfs as a shared library: the functions of cimfs.dll under their own names, on any system.
 *
 * Types, flags and codes are those of cimfs.h. Block, merged and verified images and mounting answer
 * CIMFS_E_NOTIMPL: their formats are not publicly described. CimCreateImageWith is this library's own.
 */
#ifndef LIBCIMFS_H
#define LIBCIMFS_H

#include "cimfs.h"

#if defined(_WIN32) && defined(LIBCIMFS_BUILD)
#define CIMFS_EXPORT __declspec(dllexport)
#elif defined(_WIN32)
#define CIMFS_EXPORT __declspec(dllimport)
#else
#define CIMFS_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateImage(const cimfs_wchar *containing_path,
                                                     const cimfs_wchar *existing_name, const cimfs_wchar *new_name,
                                                     cimfs_image *image);
/* The Windows SDK declares this void, but older hcsshim reads a result: it is always CIMFS_OK. */
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCloseImage(cimfs_image image);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCommitImage(cimfs_image image);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateFile(cimfs_image image, const cimfs_wchar *path,
                                                    const struct cimfs_file_metadata *metadata, cimfs_stream *stream);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimWriteStream(cimfs_stream stream, const void *buffer, uint32_t size);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCloseStream(cimfs_stream stream);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateAlternateStream(cimfs_image image, const cimfs_wchar *path,
                                                               uint64_t size, cimfs_stream *stream);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateHardLink(cimfs_image image, const cimfs_wchar *new_path,
                                                        const cimfs_wchar *existing_path);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimDeletePath(cimfs_image image, const cimfs_wchar *path);

/* Flags other than 0: NOTIMPL. */
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateImage2(const cimfs_wchar *containing_path, uint32_t flags,
                                                      const cimfs_wchar *existing_name, const cimfs_wchar *new_name,
                                                      cimfs_image *image);

CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimTombstoneFile(cimfs_image image, const cimfs_wchar *path);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimCreateMergeLink(cimfs_image image, const cimfs_wchar *new_path,
                                                         const cimfs_wchar *existing_path);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimAddFsToMergedImage(cimfs_image image, const cimfs_wchar *image_path);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimAddFsToMergedImage2(cimfs_image image, const cimfs_wchar *image_path,
                                                             uint32_t flags);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimSealImage(const cimfs_wchar *block_path, uint64_t *hash_size,
                                                   uint64_t *fixed_header_size, void *hash);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimGetVerificationInformation(const cimfs_wchar *block_path, uint32_t *is_sealed,
                                                                    uint64_t *hash_size, uint64_t *signature_size,
                                                                    uint64_t *fixed_header_size, void *hash,
                                                                    void *signature);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimMountImage(const cimfs_wchar *containing_path, const cimfs_wchar *name,
                                                    uint32_t flags, const struct cimfs_volume_id *volume);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimDismountImage(const struct cimfs_volume_id *volume);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimMergeMountImage(uint32_t count, const struct cimfs_image_path *images,
                                                         uint32_t flags, const struct cimfs_volume_id *volume);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimMountVerifiedImage(const cimfs_wchar *containing_path, const cimfs_wchar *name,
                                                            uint32_t flags, const struct cimfs_volume_id *volume,
                                                            uint16_t hash_size, const void *hash);
CIMFS_EXPORT cimfs_hresult CIMFS_CALL CimMergeMountVerifiedImage(uint32_t count, const struct cimfs_image_path *images,
                                                                 uint32_t flags, const struct cimfs_volume_id *volume,
                                                                 uint16_t hash_size, const void *hash);

/* CimCreateImage with options; options may not be NULL. */
CIMFS_EXPORT cimfs_hresult CimCreateImageWith(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                              const cimfs_wchar *new_name, const struct cimfs_options *options,
                                              cimfs_image *image);

#ifdef __cplusplus
}
#endif

#endif
