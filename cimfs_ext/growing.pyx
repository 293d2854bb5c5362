"""Files that grow at their end."""

from libc.stdint cimport uint64_t

from cimfs_ext.libcimfs cimport cimfs_file, cimfs_io, cimfs_system_io


cdef extern from "libcimfs/reserve.h" nogil:
    void cimfs_reserve_ahead(const cimfs_io *, cimfs_file, uint64_t, uint64_t, uint64_t *)


cdef class Reservation:
    """The disk blocks that a file has beyond its end; truncating it to its length gives them back."""

    cdef cimfs_file file
    cdef uint64_t reserved

    def __cinit__(self, int descriptor):
        self.file = descriptor

    def extend(self, uint64_t offset, uint64_t size):
        """Have blocks for that many bytes, which come next, and for some more, if that makes writing cheaper."""
        with nogil:
            cimfs_reserve_ahead(&cimfs_system_io, self.file, offset, size, &self.reserved)
