"""Files of an image to an open directory of the host, many at a time and without the GIL."""

import os

cimport cython
from libc.stdint cimport intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error
from cimfs_ext.libcimfs cimport (
    cimfs_attributes_of,
    cimfs_extent_of,
    cimfs_is_directory,
    cimfs_link,
    cimfs_reader,
    cimfs_record,
    get32,
    get64,
)
from cimfs_ext.listing cimport Children, decode, reader_error
from cimfs_ext.names cimport is_file_name
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


cdef Py_ssize_t SURE_NAME = 128  # bytes that every file system takes


cdef bint is_ordinary(const cimfs_record *record, const cimfs_link *link) noexcept:
    """Whether this is a file without reparse data and alternate streams, under a name that is not too long."""
    cdef uint32_t i
    if (cimfs_is_directory(record) or get64(record.reparse) or get32(record.reparse_tag) or get64(record.streams)
            or not 0 < link.length <= SURE_NAME):
        return False
    for i in range(link.length):
        if link.units[i] & 0xF800 == 0xD800:  # half of a character, where Python counts one
            return False
    return True


cdef bytes ordinary_name(Children children):
    """The name in UTF-8 of an ordinary file, or None."""
    if not is_ordinary(&children.record, children.link):
        return None
    cdef str name = decode(children.link)
    if not is_file_name(name):
        return None
    cdef bytes encoded = name.encode("utf-8", "surrogatepass")
    return encoded if len(encoded) <= SURE_NAME else None


@cython.no_gc_clear  # without its image it is of no use
cdef class OrdinaryFiles:
    """Sorts out the ordinary files of directories, which need nothing but to be written, without an object for each.

    ``alike`` counts those that were sorted out by the metadata that tells what is lost of them: each value is a list of
    the number and of one entry that has it.

    Not for several threads.
    """

    cdef ImageReader image
    cdef readonly dict alike

    def __cinit__(self, ImageReader image not None):
        self.image = image
        self.alike = {}

    def take(self, directory, dict first_names not None, place, *, room):
        """What a directory holds: ``(others, files, count, size)``.

        ``files`` are the ``(file ID, name as bytes)`` of ordinary files that ``first_names`` does not have yet, which
        gets ``place`` for the ID of each; they count as ``count`` entries and have ``size`` bytes of content. All other
        entries are ``others``.

        ``room`` has what may be counted: the most entries and bytes, and how many characters stand before each name,
        and make a path count as one entry more. Where it may not suffice for all that the directory holds, all entries
        are ``others``, so that each is counted in its turn.
        """
        cdef Children children
        cdef uint64_t count = 0, size = 0, before = room[2], per = room[3]
        cdef list others = [], files = []
        cdef bytes name
        self.image.enter()
        try:
            if not self.fits(self.image.children(directory), room):
                return self.image.children(directory).rest(), files, 0, 0
            children = self.image.children(directory)
            while children.advance():
                name = ordinary_name(children)
                if name is None or children.id in first_names:
                    others.append(children.entry())
                    continue
                first_names[children.id] = place
                files.append((children.id, name))
                count += 1 + (before + children.link.length) // per
                size += cimfs_extent_of(children.record.data).length
                self.note(children)
        finally:
            self.image.leave()
        return others, files, count, size

    cdef bint fits(self, Children children, tuple room) except -1:
        cdef uint64_t entries, size, before, per, content
        entries, size, before, per = room
        while children.advance():
            content = 0 if cimfs_is_directory(&children.record) else cimfs_extent_of(children.record.data).length
            if 1 + (before + children.link.length) // per > entries or content > size:
                return False
            entries -= 1 + (before + children.link.length) // per
            size -= content
        return True

    cdef int note(self, Children children) except -1:
        cdef const cimfs_record *record = &children.record
        key = (cimfs_attributes_of(record), get64(record.security_descriptor), get64(record.ea) != 0,
               get64(record.creation_time) == get64(record.last_write_time) == get64(record.change_time))
        counted = self.alike.get(key)
        if counted is None:
            counted = self.alike[key] = [0, children.entry()]
        counted[0] += 1
        return 0

    def name_of(self, directory, uint32_t file_id):
        """The name, as bytes, under which :meth:`take` found a file of a directory."""
        cdef Children children
        cdef bytes name
        self.image.enter()
        try:
            children = self.image.children(directory)
            while children.advance():
                name = ordinary_name(children) if children.id == file_id else None
                if name is not None:
                    return name
        finally:
            self.image.leave()
        raise self.image.not_found(f"file {file_id}")
