"""``liblayer/tarwrite.h`` and ``buffer.h`` as Cython sees it. No logic."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "liblayer/buffer.h" nogil:
    struct layer_buffer:
        uint8_t *data
        size_t size
    int layer_buffer_reserve(layer_buffer *, size_t)

cdef extern from "liblayer/tarwrite.h" nogil:
    const size_t LAYER_TAR_BLOCK
    enum:
        LAYER_DECIMAL
        LAYER_PAX_SECONDS
        LAYER_TAR_NAME
        LAYER_TAR_AROUND
    struct layer_tar_header:
        uint8_t kind
        uint32_t mode
        uint64_t size
        uint64_t mtime
        const uint8_t *name
        size_t name_length
        const uint8_t *link
        size_t link_length
    bint layer_tar_fits(uint64_t)
    size_t layer_decimal(uint64_t, uint8_t *)
    size_t layer_pax_seconds(int64_t, uint8_t *)
    uint8_t *layer_tar_write_header(const layer_tar_header *, uint8_t *)
    uint8_t *layer_tar_begin_record(const char *, size_t, size_t, uint8_t *)
    uint8_t *layer_tar_end_records(uint8_t *, uint8_t *)
