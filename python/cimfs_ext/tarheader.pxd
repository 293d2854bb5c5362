"""The parts of a tar's header, for other compiled modules."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    BLOCK = 512
    MOST_NAME = 100  # bytes that fit in a header
    MOST_AROUND = 23  # bytes of a record besides its keyword and its text

cdef struct Header:
    uint8_t kind
    uint32_t mode
    uint64_t size  # 0 is written for what does not fit, as for the time
    uint64_t mtime
    const uint8_t *name  # in ASCII; what is longer than fits is cut off
    size_t name_length
    const uint8_t *link
    size_t link_length

cdef uint8_t *begin_record(const char *keyword, size_t keyword_length, size_t length, uint8_t *to) noexcept nogil
cdef uint8_t *end_records(uint8_t *start, uint8_t *end) noexcept nogil
cdef uint8_t *write_block(const Header *header, uint8_t *to) noexcept nogil
cdef inline bint fits(uint64_t number) noexcept nogil:
    """Whether a size or time can be written as eleven octal digits."""
    return number >> 33 == 0
