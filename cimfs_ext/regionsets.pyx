"""The region sets of an image: what its ``.cim`` file lists."""

import os

from cimfs_ext.imagepath import split_path

from libc.stdint cimport uint32_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.image cimport error_for
from cimfs_ext.libcimfs cimport (
    cimfs_reader,
    cimfs_reader_close,
    cimfs_reader_open_list,
    cimfs_reader_sets,
    cimfs_set,
    cimfs_system_io,
)


cdef list sets_of(const cimfs_reader *reader):
    from uuid import UUID  # both take their time to load

    from cimfs_ext.reports import RegionSet
    cdef uint32_t count, i
    cdef const cimfs_set *sets = cimfs_reader_sets(reader, &count)
    return [RegionSet(UUID(bytes_le=(<char *>sets[i].id.b)[:16]), sets[i].count) for i in range(count)]


def read_region_sets(path):
    """``ImageReader.region_sets`` of the image of that path, with its errors, from its ``.cim`` file alone.

    That the regions are there is not looked at.
    """
    cdef cimfs_error error
    cdef cimfs_reader *reader = NULL
    directory_name, file_name = split_path(path)
    cdef bytes directory_bytes = os.fsencode(directory_name), name_bytes = os.fsencode(file_name)
    cdef const char *directory = directory_bytes
    cdef const char *name = name_bytes
    cdef cimfs_hresult code
    memset(&error, 0, sizeof(error))
    with nogil:
        code = cimfs_reader_open_list(&cimfs_system_io, directory, name, &error, &reader)
    if code < 0:
        raise error_for(code, &error, "open image", os.fspath(path))
    try:
        return sets_of(reader)
    finally:
        cimfs_reader_close(reader)
