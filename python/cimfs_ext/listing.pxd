"""The children of directories, for callers that keep the images open meanwhile."""

from libc.stdint cimport uint32_t

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport cimfs_link, cimfs_links, cimfs_reader, cimfs_record

cdef class Children:
    cdef const cimfs_reader *reader
    cdef str image  # its name, for errors
    cdef cimfs_links links
    cdef uint32_t next
    cdef cimfs_link pair[2]  # the entry and the one before it
    cdef cimfs_link *link  # NULL: behind the last one
    cdef uint32_t id
    cdef cimfs_record record
    cdef bint advance(self) except -1
    cdef object entry(self)
    cdef list rest(self)

cdef object reader_error(const cimfs_reader *reader, cimfs_hresult code, const cimfs_error *error, str operation,
                         str path)
cdef Children open_children(const cimfs_reader *reader, str image, const cimfs_record *record, str path)
cdef list compare_children(Children ours, Children theirs, bint related)
cdef object entry_of(uint32_t id, str name, const cimfs_record *record)
cdef str decode(const cimfs_link *link)
