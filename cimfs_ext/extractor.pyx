"""Files of an image to an open directory of the host, many at a time and without the GIL."""

import os

cimport cython
from libc.stdint cimport intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error
from cimfs_ext.libcimfs cimport cimfs_reader
from cimfs_ext.listing cimport reader_error
from cimfs_ext.reader cimport ImageReader


cdef extern from "hosterror.h":
    int raise_host_error(int, object) except -1

cdef extern from "liblayer/extract.h" nogil:
    const size_t LAYER_EXTRACT_BUFFER
    unsigned LAYER_KEEP_STAMPS, LAYER_KEEP_DESCRIPTOR, LAYER_KEEP_EAS, LAYER_KEEP_STREAMS, LAYER_KEEP_REPARSE

    struct layer_losses:
        uint64_t descriptors
        uint64_t eas
        uint64_t streams
        uint64_t reparse_points

    struct layer_extraction:
        const cimfs_reader *reader
        unsigned keep
        const volatile int *stop
        uint8_t *buffer
        layer_losses lost
        cimfs_error error

    int layer_extract_file(layer_extraction *, uint32_t, intptr_t, const char *)
    int layer_extract_metadata(layer_extraction *, uint32_t, intptr_t, const char *)


KEEP_STAMPS = LAYER_KEEP_STAMPS
KEEP_DESCRIPTOR = LAYER_KEEP_DESCRIPTOR
KEEP_EAS = LAYER_KEEP_EAS
KEEP_STREAMS = LAYER_KEEP_STREAMS
KEEP_REPARSE = LAYER_KEEP_REPARSE


cdef struct Job:
    uint32_t file_id
    const char *name


cdef int check_name(bytes name) except -1:
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise ValueError(f"not a file name: {name!r}")
    return 0


@cython.no_gc_clear  # an extractor without its image is none
cdef class FileExtractor:
    """Writes files of one image, which must stay open meanwhile: closing it then is a RuntimeError.

    Threads may share it, and call everything together. Directories are descriptors; on Windows they are handles, and
    ``keep`` says with bits KEEP_* what of the metadata is written, and counted in ``lost`` where it cannot be.
    """

    cdef ImageReader image
    cdef int stopped
    cdef unsigned keep
    cdef layer_losses losses

    def __cinit__(self, ImageReader image not None, unsigned keep=0):
        image.check_open()
        self.image = image
        self.keep = keep

    @property
    def lost(self):
        """Kinds of metadata that files or directories could not have, with their numbers."""
        counts = {"security_descriptor": self.losses.descriptors, "extended_attributes": self.losses.eas,
                  "streams": self.losses.streams, "reparse_data": self.losses.reparse_points}
        return {kind: count for kind, count in counts.items() if count}

    def stop(self):
        """Let every call that is under way, in whatever thread, end soon with ECANCELED."""
        self.stopped = 1

    def write(self, intptr_t directory, list files not None):
        """Make each ``(file ID, name as bytes)`` in the open directory, with content, access and write time.

        The names must be single components. What is there already is neither replaced nor followed: FileExistsError.
        Raises OSError for the destination, naming the file, and ImageError for the image. The list is looked at before
        the first file is made: what becomes of it then changes nothing.
        """
        cdef list names = []  # the jobs point into them
        cdef bytes name
        cdef uint32_t file_id
        cdef size_t count = 0, done = 0
        cdef layer_extraction extraction
        cdef int result = 0
        cdef Job *jobs = NULL
        cdef tuple wanted = tuple(files)
        self.begin(&extraction)
        try:
            jobs = <Job *>malloc((<size_t>len(wanted) + 1) * sizeof(Job))
            if jobs == NULL:
                raise MemoryError
            for file_id, name in wanted:
                check_name(name)
                names.append(name)
                jobs[count] = Job(file_id, <const char *>name)
                count += 1
            with nogil:
                while result == 0 and done < count:
                    result = layer_extract_file(&extraction, jobs[done].file_id, directory, jobs[done].name)
                    done += 1
        finally:
            self.end(&extraction)
            free(jobs)
        self.check(result, &extraction, names[<Py_ssize_t>done - 1] if done else b"")

    def write_metadata(self, intptr_t directory, bytes name not None, uint32_t file_id):
        """Give a file or directory of the open directory what :meth:`write` gives files beside their content.

        For directories that are full, whose times nothing changes any more. Errors are those of :meth:`write`.
        """
        cdef layer_extraction extraction
        cdef const char *text = name
        cdef int result
        check_name(name)
        self.begin(&extraction)
        try:
            with nogil:
                result = layer_extract_metadata(&extraction, file_id, directory, text)
        finally:
            self.end(&extraction)
        self.check(result, &extraction, name)

    cdef int begin(self, layer_extraction *extraction) except -1:
        memset(extraction, 0, sizeof(extraction[0]))
        self.image.enter()
        extraction.buffer = <uint8_t *>malloc(LAYER_EXTRACT_BUFFER)
        if extraction.buffer == NULL:
            self.image.leave()
            raise MemoryError
        extraction.reader = self.image.reader
        extraction.keep = self.keep
        extraction.stop = &self.stopped
        return 0

    cdef void end(self, layer_extraction *extraction) noexcept:
        self.image.leave()
        free(extraction.buffer)
        self.losses.descriptors += extraction.lost.descriptors
        self.losses.eas += extraction.lost.eas
        self.losses.streams += extraction.lost.streams
        self.losses.reparse_points += extraction.lost.reparse_points

    cdef int check(self, int result, layer_extraction *extraction, bytes name) except -1:
        if result < 0:
            raise reader_error(self.image.reader, result, &extraction.error, "extract", os.fsdecode(name))
        if result > 0:
            raise_host_error(result, os.fsdecode(name))
        return 0
