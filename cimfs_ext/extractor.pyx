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

    enum layer_existing:
        LAYER_EXISTING_REFUSED
        LAYER_EXISTING_SKIPPED
        LAYER_EXISTING_REPLACED

    struct layer_extraction:
        const char *temporary

    void layer_extraction_init(layer_extraction *, const cimfs_reader *, layer_existing)
    void layer_extraction_stop(layer_extraction *)
    uint64_t layer_extraction_written(layer_extraction *)
    int layer_extract_file(layer_extraction *, uint32_t, intptr_t, const char *, uint8_t *, int *, cimfs_error *)


EXISTING = {
    "refuse": LAYER_EXISTING_REFUSED,
    "skip": LAYER_EXISTING_SKIPPED,
    "overwrite": LAYER_EXISTING_REPLACED,
}


cdef struct Job:
    uint32_t file_id
    const char *name


@cython.no_gc_clear  # an extractor without its image is none
cdef class FileExtractor:
    """Writes files of one image, which must stay open meanwhile: closing it then is a RuntimeError.

    ``existing`` says what becomes of files that are there: ``refuse`` (FileExistsError), ``skip`` those that have the
    size and the write time and replace others, or ``overwrite``. Nothing is followed. A file that takes more than one
    write has a name that begins with ``.cimlayer-`` until all of it is there.

    Threads may share it, and call everything together.
    """

    cdef ImageReader image
    cdef layer_extraction extraction
    cdef bytes temporary

    def __cinit__(self, ImageReader image not None, str existing not None="refuse"):
        image.check_open()
        self.image = image
        self.temporary = b".cimlayer-%s-" % os.urandom(6).hex().encode()
        layer_extraction_init(&self.extraction, image.reader, EXISTING[existing])
        self.extraction.temporary = self.temporary

    @property
    def written(self):
        """Bytes of content that were written so far, by whatever thread."""
        return layer_extraction_written(&self.extraction)

    def stop(self):
        """Let every call that is under way, in whatever thread, end soon with ECANCELED."""
        layer_extraction_stop(&self.extraction)

    def write(self, intptr_t directory, list files not None):
        """Make each ``(file ID, name as bytes)`` in the open directory, with content, access and write time.

        The names must be single components. Returns the names of those that were skipped. Raises OSError for the
        destination, naming the file, and ImageError for the image. The list is looked at before the first file is made:
        what becomes of it then changes nothing.
        """
        cdef list names = []  # the jobs point into them
        cdef bytes name
        cdef uint32_t file_id
        cdef size_t count = 0, done = 0, i
        cdef cimfs_error error
        cdef int result = 0
        cdef int *skipped = NULL
        cdef uint8_t *buffer = NULL
        cdef Job *jobs = NULL
        cdef tuple wanted = tuple(files)
        self.image.enter()
        try:
            jobs = <Job *>malloc((<size_t>len(wanted) + 1) * sizeof(Job))
            skipped = <int *>malloc((<size_t>len(wanted) + 1) * sizeof(int))
            buffer = <uint8_t *>malloc(LAYER_EXTRACT_BUFFER)
            if jobs == NULL or skipped == NULL or buffer == NULL:
                raise MemoryError
            for file_id, name in wanted:
                if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
                    raise ValueError(f"not a file name: {name!r}")
                names.append(name)
                jobs[count] = Job(file_id, <const char *>name)
                count += 1
            memset(&error, 0, sizeof(error))
            with nogil:
                while result == 0 and done < count:
                    result = layer_extract_file(&self.extraction, jobs[done].file_id, directory, jobs[done].name,
                                                buffer, &skipped[done], &error)
                    done += 1
            if result == 0:
                return [names[<Py_ssize_t>i] for i in range(count) if skipped[i]]
        finally:
            self.image.leave()
            free(jobs)
            free(skipped)
            free(buffer)
        path = os.fsdecode(names[<Py_ssize_t>done - 1])
        if result < 0:
            raise reader_error(self.image.reader, result, &error, "extract", path)
        raise_host_error(result, path)
