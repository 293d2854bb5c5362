"""``hive/hive.h`` as Cython sees it. No logic."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "hive/hive.h" nogil:
    int HIVE_NO_MEMORY, HIVE_CORRUPT, HIVE_MAX_DEPTH, HIVE_KEY_SYMLINK
    uint32_t HIVE_NO_SECURITY
    uint64_t HIVE_NO_OFFSET

    ctypedef struct hive_error:
        const char *reason
        uint64_t offset

    ctypedef struct hive_bytes:
        const uint8_t *data
        size_t size

    ctypedef struct hive_name:
        const uint8_t *bytes
        uint16_t size
        bint latin1

    ctypedef struct hive_value:
        hive_name name
        const uint8_t *data
        uint32_t data_size
        uint32_t type
        bint tombstone

    ctypedef struct hive_key:
        hive_name name
        const uint8_t *class_name
        hive_key **subkeys
        hive_value *values
        uint64_t last_written
        uint32_t subkey_count
        uint32_t value_count
        uint32_t security
        uint16_t class_size
        uint16_t flags
        uint8_t layering

    ctypedef struct hive:
        hive_key *root
        hive_bytes *descriptors
        uint64_t last_written
        uint32_t minor_version
        size_t source_size
        bint layered
        bint dirty
        uint8_t *recovered

    int hive_read(hive_bytes file, const hive_bytes *logs, size_t log_count, hive **out, hive_error *error)
    int hive_create(uint64_t last_written, hive **out, hive_error *error)
    void hive_destroy(hive *h)
    hive_key *hive_find_subkey(const hive_key *parent, hive_name name)
    int hive_add_subkey(hive *h, hive_key *parent, hive_name name, uint64_t last_written, hive_key **out,
                        hive_error *error)
    bint hive_remove_subkey(hive_key *parent, hive_name name)
    hive_value *hive_find_value(const hive_key *key, hive_name name)
    int hive_set_value(hive *h, hive_key *key, hive_name name, uint32_t type, hive_bytes data, hive_error *error)
    bint hive_remove_value(hive_key *key, hive_name name)
    int hive_merge(hive *base, const hive *delta, hive_error *error)
    int hive_write(const hive *h, uint8_t *out, size_t capacity, size_t *size, hive_error *error)
    size_t hive_block_size(size_t size)
    void hive_use_huge_pages(void *block, size_t size)
