"""The check of an image, for callers that keep it open meanwhile."""

from cimfs_ext.libcimfs cimport cimfs_reader

cdef object verify_image(const cimfs_reader *reader, str name, progress, cancel, jobs)
