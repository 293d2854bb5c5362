"""The reads of one stream of an open image."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport cimfs_content_check, cimfs_extent, cimfs_reader_read, cimfs_reader_read_checked
from cimfs_ext.listing cimport reader_error
from cimfs_ext.reader cimport ImageReader, name_of


@cython.no_gc_clear  # a cursor without its image is none
cdef class StreamCursor:
    """Reads of one stream, position by position, without the GIL; checked when all of it comes in order."""

    cdef ImageReader image
    cdef str path  # for errors
    cdef cimfs_extent extent
    cdef cimfs_content_check check
    cdef bint checking  # whether a call is under way that has the check

    def __cinit__(self, ImageReader image not None, target, stream):
        self.image = image
        self.path = name_of(target) if stream is None else f"{name_of(target)}:{stream}"
        memset(&self.check, 0, sizeof(self.check))
        image.enter()
        try:
            image.find_extent(target, stream, &self.extent)
        finally:
            image.leave()

    @property
    def size(self):
        return self.extent.length

    @property
    def name(self):
        return self.path

    def read_bytes(self, uint64_t position, Py_ssize_t size):
        """Those bytes, or as many as there are."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        got = self.read_into(position, PyBytes_AS_STRING(data), <size_t>size)
        return data if got == <size_t>size else data[:got]

    def read_at(self, uint64_t position, buffer):
        """Fill the writable buffer from a position on; returns how many bytes there were."""
        cdef unsigned char[::1] view = buffer
        cdef size_t size = <size_t>view.shape[0]
        return self.read_into(position, &view[0] if size else NULL, size)

    cdef size_t read_into(self, uint64_t position, void *to, size_t size) except? 0:
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef size_t got = 0
        self.image.check_open()
        if size == 0:
            return 0
        memset(&error, 0, sizeof(error))
        cdef bint alone = not self.checking
        self.image.enter()
        try:
            if alone:
                self.checking = True
            with nogil:
                if alone:
                    code = cimfs_reader_read_checked(
                        self.image.reader, &self.extent, &self.check, position, to, size, &error, &got)
                else:
                    code = cimfs_reader_read(self.image.reader, &self.extent, position, to, size, &error, &got)
            if code < 0:
                raise reader_error(self.image.reader, code, &error, "read", self.path)
        finally:
            if alone:
                self.checking = False
            self.image.leave()
        return got
