"""Times as text, for other compiled modules."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

cdef enum:
    SECONDS = 19  # code units of a time without its decimals
    WHOLE = 28

cpdef str time_text(filetime)
cdef bint write_time(int64_t filetime, uint16_t *text) noexcept nogil
cdef uint64_t unix_seconds(int64_t filetime) noexcept nogil
