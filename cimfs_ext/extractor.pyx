"""Files of an image to an open directory of the host, many at a time and without the GIL. POSIX only."""

import os

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error
from cimfs_ext.image cimport error_for
from cimfs_ext.reader cimport ImageReader, cimfs_reader


cdef extern from "liblayer/extract.h" nogil:
    const size_t LAYER_EXTRACT_BUFFER
    int layer_extract_file(const cimfs_reader *, uint32_t, int, const char *, uint8_t *, const volatile int *,
                           cimfs_error *)


cdef struct Job:
    uint32_t file_id
    const char *name


cdef class FileExtractor:
    """Writes files of one image. Threads may share it, as they may the image, which must stay open meanwhile."""

    cdef ImageReader image
    cdef int stopped

    def __cinit__(self, ImageReader image not None):
        image.check_open()
        self.image = image

    def stop(self):
        """Let every call that is under way, in whatever thread, end soon with ECANCELED."""
        self.stopped = 1

    def write(self, int directory, list files not None):
        """Make each ``(file ID, name as bytes)`` in the open directory, with content, access and write time.

        The names must be single components. What is there already is neither replaced nor followed: FileExistsError.
        Raises OSError for the destination, naming the file, and ImageError for the image.
        """
        cdef size_t count = <size_t>len(files), i, done = 0
        cdef cimfs_error error
        cdef int result = 0
        cdef uint8_t *buffer
        cdef Job *jobs
        self.image.check_open()
        for _, name in files:
            if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
                raise ValueError(f"not a file name: {name!r}")
        jobs = <Job *>malloc((count + 1) * sizeof(Job))
        buffer = <uint8_t *>malloc(LAYER_EXTRACT_BUFFER)
        try:
            if jobs == NULL or buffer == NULL:
                raise MemoryError
            for i in range(count):
                file_id, name = files[<Py_ssize_t>i]
                jobs[i] = Job(file_id, <const char *>(<bytes>name))
            memset(&error, 0, sizeof(error))
            self.image.busy += 1
            with nogil:
                while result == 0 and done < count:
                    result = layer_extract_file(self.image.reader, jobs[done].file_id, directory, jobs[done].name,
                                                buffer, &self.stopped, &error)
                    done += 1
            self.image.busy -= 1
        finally:
            free(jobs)
            free(buffer)
        if result == 0:
            return
        name = os.fsdecode(files[<Py_ssize_t>done - 1][1])
        if result < 0:
            raise error_for(result, &error, "extract", name)
        raise MemoryError(name) if result == ENOMEM else OSError(result, os.strerror(result), name)
