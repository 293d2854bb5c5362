"""``cimfs.h`` as Cython sees it, in its order. No logic."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "cimfs.h" nogil:
    ctypedef int32_t cimfs_hresult
    ctypedef uint16_t cimfs_wchar

    const cimfs_hresult CIMFS_OK
    const cimfs_hresult CIMFS_E_NOTIMPL
    const cimfs_hresult CIMFS_E_POINTER
    const cimfs_hresult CIMFS_E_FAIL
    const cimfs_hresult CIMFS_E_FILE_NOT_FOUND
    const cimfs_hresult CIMFS_E_PATH_NOT_FOUND
    const cimfs_hresult CIMFS_E_ACCESS_DENIED
    const cimfs_hresult CIMFS_E_OUT_OF_MEMORY
    const cimfs_hresult CIMFS_E_SHARING_VIOLATION
    const cimfs_hresult CIMFS_E_TOO_MANY_OPEN_FILES
    const cimfs_hresult CIMFS_E_HANDLE_EOF
    const cimfs_hresult CIMFS_E_FILE_EXISTS
    const cimfs_hresult CIMFS_E_INVALID_ARG
    const cimfs_hresult CIMFS_E_DISK_FULL
    const cimfs_hresult CIMFS_E_FILE_CORRUPT

    const uint32_t CIMFS_ATTRIBUTE_DIRECTORY
    const uint32_t CIMFS_ATTRIBUTE_REPARSE_POINT

    struct cimfs_file_metadata:
        uint32_t attributes
        int64_t file_size
        int64_t creation_time
        int64_t last_write_time
        int64_t change_time
        int64_t last_access_time
        const void *security_descriptor
        uint32_t security_descriptor_size
        const void *reparse_data
        uint32_t reparse_data_size
        const void *ea
        uint32_t ea_size

    const uint8_t CIMFS_NULL_DACL[20]

    struct cimfs_image_path:
        const cimfs_wchar *directory
        const cimfs_wchar *name

    struct cimfs_volume_id:
        pass

    const uint32_t CIMFS_ROOT_HASH_SIZE

    struct cimfs_image_s "cimfs_image"
    struct cimfs_stream_s "cimfs_stream"
    ctypedef cimfs_image_s *cimfs_image
    ctypedef cimfs_stream_s *cimfs_stream

    struct cimfs_error:
        cimfs_hresult code
        uint64_t offset
        const char *reason
        char file[256]

    struct cimfs_io  # libcimfs.pxd has what is in it

    struct cimfs_options:
        int no_sync
        int64_t time
        const void *seed
        size_t seed_size
        cimfs_error *error
        const cimfs_io *io

    struct cimfs_api:
        const char *name
        int close_stream_answers
        cimfs_hresult (*create_image)(
            const cimfs_wchar *, const cimfs_wchar *, const cimfs_wchar *, cimfs_image *) noexcept nogil
        void (*close_image)(cimfs_image) noexcept nogil
        cimfs_hresult (*commit_image)(cimfs_image) noexcept nogil
        cimfs_hresult (*create_file)(
            cimfs_image, const cimfs_wchar *, const cimfs_file_metadata *, cimfs_stream *) noexcept nogil
        cimfs_hresult (*write_stream)(cimfs_stream, const void *, uint32_t) noexcept nogil
        cimfs_hresult (*close_stream)(cimfs_stream) noexcept nogil
        cimfs_hresult (*create_alternate_stream)(
            cimfs_image, const cimfs_wchar *, uint64_t, cimfs_stream *) noexcept nogil
        cimfs_hresult (*create_hard_link)(cimfs_image, const cimfs_wchar *, const cimfs_wchar *) noexcept nogil
        cimfs_hresult (*delete_path)(cimfs_image, const cimfs_wchar *) noexcept nogil
        cimfs_hresult (*create_image2)(
            const cimfs_wchar *, uint32_t, const cimfs_wchar *, const cimfs_wchar *, cimfs_image *) noexcept nogil
        cimfs_hresult (*tombstone_file)(cimfs_image, const cimfs_wchar *) noexcept nogil
        cimfs_hresult (*create_merge_link)(cimfs_image, const cimfs_wchar *, const cimfs_wchar *) noexcept nogil
        cimfs_hresult (*add_to_merged_image)(cimfs_image, const cimfs_wchar *) noexcept nogil
        cimfs_hresult (*add_to_merged_image2)(cimfs_image, const cimfs_wchar *, uint32_t) noexcept nogil
        cimfs_hresult (*seal_image)(const cimfs_wchar *, uint64_t *, uint64_t *, void *) noexcept nogil
        cimfs_hresult (*get_verification_information)(
            const cimfs_wchar *, uint32_t *, uint64_t *, uint64_t *, uint64_t *, void *, void *) noexcept nogil
        cimfs_hresult (*mount_image)(
            const cimfs_wchar *, const cimfs_wchar *, uint32_t, const cimfs_volume_id *) noexcept nogil
        cimfs_hresult (*dismount_image)(const cimfs_volume_id *) noexcept nogil
        cimfs_hresult (*merge_mount_image)(
            uint32_t, const cimfs_image_path *, uint32_t, const cimfs_volume_id *) noexcept nogil
        cimfs_hresult (*mount_verified_image)(
            const cimfs_wchar *, const cimfs_wchar *, uint32_t, const cimfs_volume_id *, uint16_t,
            const void *) noexcept nogil
        cimfs_hresult (*merge_mount_verified_image)(
            uint32_t, const cimfs_image_path *, uint32_t, const cimfs_volume_id *, uint16_t,
            const void *) noexcept nogil
        cimfs_hresult (*create_image_with)(
            const cimfs_wchar *, const cimfs_wchar *, const cimfs_wchar *,
            const cimfs_options *, cimfs_image *) noexcept nogil
        cimfs_hresult (*write_behind)(cimfs_image) noexcept nogil
        void *(*stream_room)(cimfs_stream, uint32_t *) noexcept nogil

    cimfs_hresult cimfs_close_stream(const cimfs_api *, cimfs_stream)
    const cimfs_api *cimfs_portable_api()
