"""The streams of a file, for callers that keep the image open meanwhile."""

from cimfs_ext.libcimfs cimport cimfs_extent, cimfs_reader, cimfs_record

cdef list list_streams(const cimfs_reader *reader, const cimfs_record *record, str path)
cdef bint find_stream(const cimfs_reader *reader, const cimfs_record *record, str name, str path,
                      cimfs_extent *extent) except -1
cdef set offsets_of(const cimfs_reader *reader, const cimfs_record *record)
