"""The region sets of an open image."""

from cimfs_ext.libcimfs cimport cimfs_reader

cdef list sets_of(const cimfs_reader *reader)
