/*
 * The API of cimfs.h as one table of functions, the only way into an image that is being written.
 *
 * The table has two fillings: the portable implementation in libcimfs/ and, on Windows, the system's
 * cimfs.dll (system.h). Types are spelled without windows.h so that the same declarations serve everywhere;
 * their sizes and offsets are those of the Windows SDK (the assertions below say so for 64-bit targets).
 *
 * Return codes: 0 is success, every failure is a negative HRESULT. Outputs are cleared on entry.
 */
#ifndef CIMFS_H
#define CIMFS_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(_WIN64)
#define CIMFS_CALL __stdcall
#else
#define CIMFS_CALL
#endif

typedef int32_t cimfs_hresult;
typedef uint16_t cimfs_wchar; /* a UTF-16 code unit; strings are NUL-terminated */

#define CIMFS_HRESULT(code) ((cimfs_hresult)(code))
#define CIMFS_OK CIMFS_HRESULT(0)
#define CIMFS_E_NOTIMPL CIMFS_HRESULT(0x80004001u)
#define CIMFS_E_POINTER CIMFS_HRESULT(0x80004003u)
#define CIMFS_E_FAIL CIMFS_HRESULT(0x80004005u)
#define CIMFS_E_FILE_NOT_FOUND CIMFS_HRESULT(0x80070002u)
#define CIMFS_E_PATH_NOT_FOUND CIMFS_HRESULT(0x80070003u)
#define CIMFS_E_TOO_MANY_OPEN_FILES CIMFS_HRESULT(0x80070004u)
#define CIMFS_E_ACCESS_DENIED CIMFS_HRESULT(0x80070005u)
#define CIMFS_E_OUT_OF_MEMORY CIMFS_HRESULT(0x8007000Eu)
#define CIMFS_E_SHARING_VIOLATION CIMFS_HRESULT(0x80070020u)
#define CIMFS_E_HANDLE_EOF CIMFS_HRESULT(0x80070026u)
#define CIMFS_E_FILE_EXISTS CIMFS_HRESULT(0x80070050u)
#define CIMFS_E_INVALID_ARG CIMFS_HRESULT(0x80070057u)
#define CIMFS_E_DISK_FULL CIMFS_HRESULT(0x80070070u)
#define CIMFS_E_IO_DEVICE CIMFS_HRESULT(0x8007045Du)
#define CIMFS_E_FILE_CORRUPT CIMFS_HRESULT(0x80070570u)

/* FILE_ATTRIBUTE_* that an image can keep; all others are dropped. */
#define CIMFS_ATTRIBUTE_READONLY 0x1u
#define CIMFS_ATTRIBUTE_HIDDEN 0x2u
#define CIMFS_ATTRIBUTE_SYSTEM 0x4u
#define CIMFS_ATTRIBUTE_DIRECTORY 0x10u
#define CIMFS_ATTRIBUTE_ARCHIVE 0x20u
#define CIMFS_ATTRIBUTE_SPARSE 0x200u
#define CIMFS_ATTRIBUTE_REPARSE_POINT 0x400u

/* CIMFS_FILE_METADATA. Times are FILETIMEs: units of 100 ns since 1601-01-01 UTC. */
struct cimfs_file_metadata {
    uint32_t attributes;
    int64_t file_size;
    int64_t creation_time;
    int64_t last_write_time;
    int64_t change_time;
    int64_t last_access_time;
    const void *security_descriptor;
    uint32_t security_descriptor_size;
    const void *reparse_data;
    uint32_t reparse_data_size;
    const void *ea;
    uint32_t ea_size;
};

#if UINTPTR_MAX == UINT64_MAX
static_assert(offsetof(struct cimfs_file_metadata, file_size) == 8, "CIMFS_FILE_METADATA.FileSize");
static_assert(offsetof(struct cimfs_file_metadata, security_descriptor) == 48, "SecurityDescriptorBuffer");
static_assert(offsetof(struct cimfs_file_metadata, reparse_data) == 64, "ReparseDataBuffer");
static_assert(offsetof(struct cimfs_file_metadata, ea) == 80, "EaBuffer");
static_assert(sizeof(struct cimfs_file_metadata) == 96, "CIMFS_FILE_METADATA");
#endif

/* CIMFS_IMAGE_PATH: one of the images that are mounted together. */
struct cimfs_image_path {
    const cimfs_wchar *directory; /* or the block device or file that holds the image */
    const cimfs_wchar *name;
};

#if UINTPTR_MAX == UINT64_MAX
static_assert(offsetof(struct cimfs_image_path, name) == 8, "ImageName");
static_assert(sizeof(struct cimfs_image_path) == 16, "CIMFS_IMAGE_PATH");
#endif

/* A GUID as Windows passes it: the volume that an image is mounted as. */
struct cimfs_volume_id {
    uint32_t data1;
    uint16_t data2;
    uint16_t data3;
    uint8_t data4[8];
};

static_assert(sizeof(cimfs_wchar) == 2, "WCHAR");
static_assert(sizeof(cimfs_hresult) == 4, "HRESULT");
static_assert(offsetof(struct cimfs_volume_id, data4) == 8, "GUID.Data4");
static_assert(sizeof(struct cimfs_volume_id) == 16, "GUID");

/* Flags of create_image2. */
#define CIMFS_CREATE_NO_PE_EXPANSION 0x1u
#define CIMFS_CREATE_FIXED_SIZE_CHUNKS 0x2u
#define CIMFS_CREATE_BLOCK_DEVICE 0x4u
#define CIMFS_CREATE_SINGLE_FILE 0x8u
#define CIMFS_CREATE_CONSISTENT 0x10u
#define CIMFS_CREATE_VERIFIED 0x40u

/* Flags of the mounting calls. */
#define CIMFS_MOUNT_ENABLE_DAX 0x2u
#define CIMFS_MOUNT_BLOCK_DEVICE 0x10u
#define CIMFS_MOUNT_SINGLE_FILE 0x20u
#define CIMFS_MOUNT_VERIFIED 0x80u

/* Flags of add_to_merged_image2. */
#define CIMFS_MERGE_SINGLE_FILE 0x1u
#define CIMFS_MERGE_BLOCK_DEVICE 0x2u
#define CIMFS_MERGE_VERIFIED 0x4u

#define CIMFS_ROOT_HASH_SIZE 32u /* of a verified image */

/* The descriptor whose DACL is null. A file without any makes an image that Windows cannot use: pass this one. */
static const uint8_t CIMFS_NULL_DACL[20] = {1, 0, 4, 0x80};

typedef struct cimfs_image_writer *cimfs_image;
typedef struct cimfs_stream_writer *cimfs_stream;

/* What went wrong beyond the HRESULT: which file of the image, where in it, and why. */
struct cimfs_error {
    cimfs_hresult code;
    uint64_t offset;    /* in bytes; UINT64_MAX if it has no meaning */
    const char *reason; /* lives as long as the image, or as the library; or NULL */
    char file[256];     /* the file's name in UTF-8, cut if longer */
};

struct cimfs_io;

/* Options of the portable implementation; zero everywhere is what CimCreateImage does. */
struct cimfs_options {
    int no_sync;      /* commit without waiting for the disk */
    int64_t time;     /* FILETIME of what the library makes itself (the root); 0: now */
    const void *seed; /* the region set's GUID is derived from these bytes; NULL: random */
    size_t seed_size;
    struct cimfs_error *error; /* filled by every failing call on the image while it lives; or NULL */
    const struct cimfs_io *io; /* replaces the operating system's file functions in tests; or NULL */
};

/*
 * Calls of newer systems are NULL where the implementation does not have them. A path of a block image is that of
 * the device or file; the image inside it is the name, or the last component.
 */
struct cimfs_api {
    const char *name;
    int close_stream_answers; /* else close_stream is declared void there, and what it returns means nothing */

    cimfs_hresult(CIMFS_CALL *create_image)(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                            const cimfs_wchar *new_name, cimfs_image *image);
    void(CIMFS_CALL *close_image)(cimfs_image image);
    cimfs_hresult(CIMFS_CALL *commit_image)(cimfs_image image);
    cimfs_hresult(CIMFS_CALL *create_file)(cimfs_image image, const cimfs_wchar *path,
                                           const struct cimfs_file_metadata *metadata, cimfs_stream *stream);
    cimfs_hresult(CIMFS_CALL *write_stream)(cimfs_stream stream, const void *buffer, uint32_t size);
    /* Called through cimfs_close_stream. */
    cimfs_hresult(CIMFS_CALL *close_stream)(cimfs_stream stream);
    cimfs_hresult(CIMFS_CALL *create_alternate_stream)(cimfs_image image, const cimfs_wchar *path, uint64_t size,
                                                       cimfs_stream *stream);
    cimfs_hresult(CIMFS_CALL *create_hard_link)(cimfs_image image, const cimfs_wchar *new_path,
                                                const cimfs_wchar *existing_path);
    cimfs_hresult(CIMFS_CALL *delete_path)(cimfs_image image, const cimfs_wchar *path);

    /* Newer systems: writing. */
    cimfs_hresult(CIMFS_CALL *create_image2)(const cimfs_wchar *containing_path, uint32_t flags,
                                             const cimfs_wchar *existing_name, const cimfs_wchar *new_name,
                                             cimfs_image *image);
    cimfs_hresult(CIMFS_CALL *tombstone_file)(cimfs_image image, const cimfs_wchar *path);
    cimfs_hresult(CIMFS_CALL *create_merge_link)(cimfs_image image, const cimfs_wchar *new_path,
                                                 const cimfs_wchar *existing_path);
    cimfs_hresult(CIMFS_CALL *add_to_merged_image)(cimfs_image image, const cimfs_wchar *image_path);
    cimfs_hresult(CIMFS_CALL *add_to_merged_image2)(cimfs_image image, const cimfs_wchar *image_path, uint32_t flags);
    cimfs_hresult(CIMFS_CALL *seal_image)(const cimfs_wchar *block_path, uint64_t *hash_size,
                                          uint64_t *fixed_header_size, void *hash);
    cimfs_hresult(CIMFS_CALL *get_verification_information)(const cimfs_wchar *block_path, uint32_t *is_sealed,
                                                            uint64_t *hash_size, uint64_t *signature_size,
                                                            uint64_t *fixed_header_size, void *hash, void *signature);

    /* Mounting; the portable implementation has none of it. */
    cimfs_hresult(CIMFS_CALL *mount_image)(const cimfs_wchar *containing_path, const cimfs_wchar *name, uint32_t flags,
                                           const struct cimfs_volume_id *volume);
    cimfs_hresult(CIMFS_CALL *dismount_image)(const struct cimfs_volume_id *volume);
    cimfs_hresult(CIMFS_CALL *merge_mount_image)(uint32_t count, const struct cimfs_image_path *images, uint32_t flags,
                                                 const struct cimfs_volume_id *volume);
    cimfs_hresult(CIMFS_CALL *mount_verified_image)(const cimfs_wchar *containing_path, const cimfs_wchar *name,
                                                    uint32_t flags, const struct cimfs_volume_id *volume,
                                                    uint16_t hash_size, const void *hash);
    cimfs_hresult(CIMFS_CALL *merge_mount_verified_image)(uint32_t count, const struct cimfs_image_path *images,
                                                          uint32_t flags, const struct cimfs_volume_id *volume,
                                                          uint16_t hash_size, const void *hash);

    /* create_image with options; NULL where the implementation has none. */
    cimfs_hresult (*create_image_with)(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                       const cimfs_wchar *new_name, const struct cimfs_options *options,
                                       cimfs_image *image);
    /* From now on, a thread may write to the disk while others call. NULL where the implementation does not. */
    cimfs_hresult (*write_behind)(cimfs_image image);
    /*
     * Where the next bytes of the stream would be copied to, and how many: until the next call they may be put there
     * and written from there. NULL if they would not lie in one place, or where the implementation has no such thing.
     */
    void *(*stream_room)(cimfs_stream stream, uint32_t *size);
};

/* Close a stream; OK where the system does not say. */
static inline cimfs_hresult cimfs_close_stream(const struct cimfs_api *api, cimfs_stream stream)
{
    cimfs_hresult result = api->close_stream(stream);
    return api->close_stream_answers ? result : CIMFS_OK;
}

/* The portable implementation. */
const struct cimfs_api *cimfs_portable_api(void);

#endif
