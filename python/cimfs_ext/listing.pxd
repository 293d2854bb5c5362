"""The children of directories, for callers that keep the images open meanwhile."""

from libc.stdint cimport uint16_t, uint32_t

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
    cdef bint advance(self) except -1 nogil
    cdef object entry(self)
    cdef list rest(self)

cdef class Walk:
    cdef Children here  # of the directory that the entry is in
    cdef list outer  # the same for each directory above it, up to the top
    cdef bint deep  # else only what the top itself holds
    cdef set seen  # file IDs of directories
    cdef uint16_t *path  # that of the entry, from the root
    cdef uint32_t length  # of the path
    cdef uint32_t above  # of that, the directory's path, without the separator
    cdef bint advance(self) except -1 nogil
    cdef int descend(self) except -1
    cdef object corrupt(self, str reason, uint32_t length)

cdef object reader_error(const cimfs_reader *reader, cimfs_hresult code, const cimfs_error *error, str operation,
                         str path)
cdef Children open_children(const cimfs_reader *reader, str image, const cimfs_record *record, str path)
cdef list compare_children(Children ours, Children theirs, bint related)
cdef object entry_of(uint32_t id, str name, const cimfs_record *record)
cdef str decode(const cimfs_link *link)
cdef str decode_units(const uint16_t *units, size_t length)
cdef Walk open_walk(Children top, str path, uint32_t id)
