"""What the reader needs to have file objects as the files of an image."""

from cimfs_ext.cimfs cimport cimfs_hresult
from cimfs_ext.libcimfs cimport cimfs_file, cimfs_io, cimfs_reader

cdef const cimfs_io *io_of_files()
cdef cimfs_file directory_of(opener) except -1
cdef object raised_in(cimfs_file directory)
cdef object raised_by_files(const cimfs_reader *reader, cimfs_hresult code)
