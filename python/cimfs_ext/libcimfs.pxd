"""``libcimfs/reader.h`` and ``verify.h`` as Cython sees them. No logic."""

from libc.stdint cimport int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult

cdef extern from "libcimfs/format.h" nogil:
    ctypedef struct le16:
        pass
    ctypedef struct le32:
        pass
    ctypedef struct le64:
        pass
    uint16_t get16(le16)
    uint32_t get32(le32)
    uint64_t get64(le64)
    struct cimfs_guid:
        uint8_t b[16]
    struct cimfs_raw_stream:
        pass
    struct cimfs_record:
        le32 reparse_tag
        le64 creation_time
        le64 last_write_time
        le64 change_time
        le64 last_access_time
        cimfs_raw_stream data
        le64 security_descriptor
        le64 ea
        le64 reparse
        le64 streams
        le32 parent
    struct cimfs_table_entry:
        le16 count
    const uint32_t CIMFS_FILES_PER_TABLE
    const int CIMFS_OFFSET_BITS
    const uint8_t CIMFS_STREAM_DATA
    const uint32_t CIMFS_MAX_NAME
    const uint32_t CIMFS_MAX_PATH

cdef extern from "libcimfs/io.h" nogil:
    ctypedef intptr_t cimfs_file
    enum cimfs_open_mode:
        pass
    struct cimfs_io:
        cimfs_hresult (*open)(cimfs_file, const char *, cimfs_open_mode, cimfs_file *) noexcept nogil
        void (*close)(cimfs_file) noexcept nogil
        cimfs_hresult (*size)(cimfs_file, uint64_t *) noexcept nogil
        cimfs_hresult (*read)(cimfs_file, void *, size_t, uint64_t) noexcept nogil
        cimfs_hresult (*map)(cimfs_file, size_t, const uint8_t **) noexcept nogil
        void (*unmap)(const uint8_t *, size_t) noexcept nogil
        cimfs_hresult (*view)(const uint8_t *, uint64_t, size_t, const uint8_t **) noexcept nogil
        cimfs_hresult (*random)(void *, size_t) noexcept nogil
        int64_t (*now)() noexcept nogil
    const cimfs_io cimfs_system_io

cdef extern from "libcimfs/names.h" nogil:
    struct cimfs_name:
        const uint16_t *units
        uint32_t length
    int cimfs_name_compare(const uint16_t *, cimfs_name, cimfs_name)
    size_t cimfs_utf8_from_wide(const uint16_t *, size_t, char *, size_t)

cdef extern from "libcimfs/upcase.h" nogil:
    enum:
        CIMFS_UPCASE_UNITS

cdef extern from "libcimfs/reader.h" nogil:
    struct cimfs_reader
    struct cimfs_set:
        cimfs_guid id
        uint32_t count
        uint32_t first
    struct cimfs_extent:
        uint64_t offset
        uint64_t length
        uint8_t type
        uint8_t sparse
    struct cimfs_links:
        uint32_t count
    struct cimfs_link:
        const uint8_t *value
        uint32_t length
        uint16_t units[256]
    cimfs_hresult cimfs_reader_open(const cimfs_io *, const char *, const char *, cimfs_error *, cimfs_reader **)
    cimfs_hresult cimfs_reader_open_list(const cimfs_io *, const char *, const char *, cimfs_error *, cimfs_reader **)
    cimfs_hresult cimfs_reader_open_at(const cimfs_io *, cimfs_file, const char *, cimfs_error *, cimfs_reader **)
    void cimfs_reader_close(cimfs_reader *)
    const cimfs_io *cimfs_reader_io(const cimfs_reader *)
    cimfs_file cimfs_reader_directory(const cimfs_reader *)
    const char *cimfs_reader_name(const cimfs_reader *)
    const char *cimfs_reader_directory_path(const cimfs_reader *)
    const cimfs_set *cimfs_reader_sets(const cimfs_reader *, uint32_t *)
    uint32_t cimfs_reader_version(const cimfs_reader *)
    const uint16_t *cimfs_reader_upcase(const cimfs_reader *)
    uint64_t cimfs_reader_upcase_offset(const cimfs_reader *)
    uint32_t cimfs_reader_root(const cimfs_reader *)
    uint32_t cimfs_reader_table_count(const cimfs_reader *)
    cimfs_hresult cimfs_reader_table(const cimfs_reader *, uint32_t, cimfs_error *, cimfs_table_entry *,
                                     const uint8_t **)
    cimfs_hresult cimfs_reader_region(const cimfs_reader *, uint32_t, cimfs_error *, uint64_t *, uint8_t *)
    cimfs_hresult cimfs_reader_record(const cimfs_reader *, uint32_t, cimfs_error *, cimfs_record *)
    cimfs_extent cimfs_extent_of(cimfs_raw_stream)
    int cimfs_is_directory(const cimfs_record *)
    uint32_t cimfs_attributes_of(const cimfs_record *)
    cimfs_hresult cimfs_reader_children(const cimfs_reader *, const cimfs_record *, cimfs_error *, cimfs_links *)
    cimfs_hresult cimfs_reader_streams(const cimfs_reader *, const cimfs_record *, cimfs_error *, cimfs_links *)
    cimfs_hresult cimfs_links_at(const cimfs_links *, uint32_t, cimfs_error *, cimfs_link *)
    cimfs_hresult cimfs_links_next(const cimfs_links *, uint32_t, const cimfs_link *, cimfs_error *, cimfs_link *)
    cimfs_hresult cimfs_links_find(const cimfs_links *, cimfs_name, cimfs_error *, cimfs_link *, int *)
    cimfs_hresult cimfs_links_file_id(const cimfs_links *, const cimfs_link *, cimfs_error *, uint32_t *)
    cimfs_hresult cimfs_reader_lookup(const cimfs_reader *, cimfs_name, cimfs_error *, uint32_t *)
    enum cimfs_attachment:
        CIMFS_SECURITY_DESCRIPTOR
        CIMFS_EA_BUFFER
        CIMFS_REPARSE_DATA
    cimfs_hresult cimfs_reader_attachment(const cimfs_reader *, const cimfs_record *, cimfs_attachment,
                                          cimfs_error *, const uint8_t **, uint32_t *)
    cimfs_hresult cimfs_reader_read(const cimfs_reader *, const cimfs_extent *, uint64_t, void *, size_t,
                                    cimfs_error *, size_t *)
    void cimfs_reader_file_name(const cimfs_reader *, uint64_t, char *)

cdef extern from "libcimfs/contentcheck.h" nogil:
    struct cimfs_content_check:
        uint64_t position
    cimfs_hresult cimfs_reader_read_checked(const cimfs_reader *, const cimfs_extent *, cimfs_content_check *, uint64_t,
                                            void *, size_t, cimfs_error *, size_t *)
    cimfs_hresult cimfs_reader_check_whole(const cimfs_reader *, const cimfs_extent *, const void *, cimfs_error *)

cdef extern from "libcimfs/readahead.h" nogil:
    const uint64_t CIMFS_READAHEAD_SMALL
    struct cimfs_readahead:
        pass
    const uint8_t *cimfs_readahead_find(cimfs_readahead *, const cimfs_extent *)
    cimfs_hresult cimfs_readahead_read(cimfs_readahead *, const cimfs_reader *, const cimfs_extent *, cimfs_error *,
                                       const uint8_t **)
    void cimfs_readahead_cleanup(cimfs_readahead *)

cdef extern from "libcimfs/verify.h" nogil:
    struct cimfs_verify_counts:
        uint64_t files
        uint64_t directories
        uint64_t streams
        uint64_t objects
        uint64_t bytes
        uint64_t unjudged
        uint64_t problems
    struct cimfs_verify_events:
        void *context
        int (*problem)(void *, uint64_t, const cimfs_error *) noexcept nogil
        int (*progress)(void *, const cimfs_verify_counts *) noexcept nogil
    struct cimfs_check:
        pass
    cimfs_hresult cimfs_verify_begin(const cimfs_io *, const cimfs_reader *, const cimfs_verify_events *,
                                     cimfs_verify_counts *, cimfs_error *, cimfs_check **)
    size_t cimfs_verify_parts(const cimfs_check *)
    void cimfs_verify_share(cimfs_check *, int)
    cimfs_hresult cimfs_verify_progress(cimfs_check *)
    void cimfs_verify_stop(cimfs_check *)
    cimfs_hresult cimfs_verify_end(cimfs_check *, cimfs_error *)
    void cimfs_verify_close(cimfs_check *)
