"""What the reader needs to have file objects as the files of an image."""

from cimfs_ext.cimfs cimport cimfs_hresult
from cimfs_ext.libcimfs cimport cimfs_reader

cdef cimfs_reader *open_reader(str name, opener) except NULL
cdef object raised_by_files(const cimfs_reader *reader, cimfs_hresult code)
