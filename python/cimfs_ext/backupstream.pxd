"""``liblayer/backupstream.h`` as Cython sees it, in its order. No logic."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "liblayer/backupstream.h" nogil:
    const uint32_t LAYER_BACKUP_ID_DATA
    const uint32_t LAYER_BACKUP_ID_EA
    const uint32_t LAYER_BACKUP_ID_SECURITY
    const uint32_t LAYER_BACKUP_ID_ALTERNATE
    const uint32_t LAYER_BACKUP_ID_LINK
    const uint32_t LAYER_BACKUP_ID_REPARSE
    const uint32_t LAYER_BACKUP_ID_SPARSE_BLOCK
    const uint32_t LAYER_BACKUP_SPARSE
    const uint32_t LAYER_BACKUP_BLOCK_OFFSET_SIZE
    const uint64_t LAYER_BACKUP_SIZE_UNKNOWN

    enum layer_backup_result:
        LAYER_BACKUP_OK

    enum layer_backup_kind:
        LAYER_BACKUP_MORE
        LAYER_BACKUP_ATTACHMENT
        LAYER_BACKUP_CONTENT
        LAYER_BACKUP_ZEROS
        LAYER_BACKUP_ALTERNATE

    struct layer_backup_event:
        layer_backup_kind kind
        uint32_t id
        const uint8_t *data
        size_t size
        uint64_t offset
        uint64_t total
        const uint16_t *name
        uint32_t name_length

    struct layer_backup_parser:
        uint64_t offset
        uint64_t error_offset

    void layer_backup_init(layer_backup_parser *parser, uint64_t file_size)
    layer_backup_result layer_backup_next(layer_backup_parser *parser, const uint8_t **data, size_t *size,
                                          layer_backup_event *event)
    layer_backup_result layer_backup_finish(layer_backup_parser *parser)
    const char *layer_backup_reason(layer_backup_result result)
