"""For the classes above it."""

cdef class KeyMapping:
    pass
