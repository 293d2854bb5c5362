"""What other compiled modules need of an open image."""

from libc.stdint cimport uint32_t

from cimfs_ext.libcimfs cimport cimfs_attachment, cimfs_extent, cimfs_reader, cimfs_record
from cimfs_ext.listing cimport Children, Walk

cdef class ImageReader:
    cdef cimfs_reader *reader
    cdef int busy  # calls under way: each has entered and will leave, and until then the reader stays open
    cdef readonly str directory
    cdef readonly str name
    cdef int check_open(self) except -1
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    # For callers that have entered:
    cdef uint32_t find(self, target) except? 0
    cdef object not_found(self, str path)
    cdef int find_record(self, target, cimfs_record *record) except -1
    cdef int read_record(self, uint32_t id, cimfs_record *record) except -1
    cdef Children children(self, target)
    cdef Walk walk_below(self, target)
    cdef bytes attachment(self, target, cimfs_attachment which)
    cdef int find_extent(self, target, str stream, cimfs_extent *extent) except -1

cdef str name_of(target)
