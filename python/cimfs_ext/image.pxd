"""What other compiled modules need of an image that is being written."""

from cimfs_ext.cimfs cimport cimfs_api, cimfs_error, cimfs_hresult, cimfs_image, cimfs_stream, cimfs_wchar
from cimfs_ext.implementation cimport Implementation

ctypedef cimfs_hresult (*path_call)(cimfs_image, const cimfs_wchar *) noexcept nogil
ctypedef cimfs_hresult (*link_call)(cimfs_image, const cimfs_wchar *, const cimfs_wchar *) noexcept nogil

cdef object error_for(cimfs_hresult code, const cimfs_error *error, str operation, str path)
cdef bytes wide(str text)

cdef class ImageWriter:
    cdef Implementation calls  # keeps the table alive
    cdef const cimfs_api *api
    cdef cimfs_image image
    cdef cimfs_stream stream
    cdef cimfs_error error
    cdef int busy  # whether a call is under way: it has entered and will leave, and until then no other one can
    cdef readonly str directory
    cdef readonly str name
    cdef readonly bint committed
    cdef str streaming_path
    cdef unsigned int forks  # of the process that opened it
    cdef bint is_closed(self) noexcept
    cdef int check_open(self) except -1
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef int check(self, cimfs_hresult code, str operation, str path) except -1
    # For callers that have entered:
    cdef int end_stream(self) except -1
    cdef int change_path(self, path_call call, str path, str operation) except -1
    cdef int change_link(self, link_call call, str new_path, str existing_path, str operation) except -1
