"""What an uncompressed tar in a file holds, and where it lies: headers are read, content is passed over."""

from cimfs_ext import errors

from libc.stdint cimport uint8_t, uint64_t

from cimfs_ext.guard cimport check_idle


cdef extern from "liblayer/tar.h" nogil:
    struct layer_slice:
        const char *data
        size_t size

    enum layer_entry_type:
        LAYER_FILE
        LAYER_DIRECTORY
        LAYER_SYMLINK
        LAYER_HARD_LINK
        LAYER_OTHER

    struct layer_entry:
        layer_entry_type type
        layer_slice name
        layer_slice link
        uint64_t size
        int sparse

    struct layer_tar:
        uint64_t offset
        uint64_t entry_offset
        const char *reason
        layer_entry entry

    enum layer_tar_event:
        LAYER_TAR_NEED_INPUT
        LAYER_TAR_ENTRY
        LAYER_TAR_END
        LAYER_TAR_ERROR

    void layer_tar_init(layer_tar *)
    void layer_tar_cleanup(layer_tar *)
    layer_tar_event layer_tar_next(layer_tar *, const uint8_t **, size_t *, layer_slice *)
    uint64_t layer_tar_skip(layer_tar *)
    int layer_tar_finish(layer_tar *)


FILE, DIRECTORY, SYMLINK, HARD_LINK = LAYER_FILE, LAYER_DIRECTORY, LAYER_SYMLINK, LAYER_HARD_LINK

cdef enum:
    PIECE = 1 << 16
    LONGEST_NAME = 4096  # bytes; global records could give each entry a long one at no cost


cdef class TarIndex:
    """Iterates over ``(kind, name, link, offset, size)`` of the entries of a seekable binary file.

    The file is read from its beginning; ``what`` names it in errors. ``offset`` is where the content lies in it, which
    may be beyond its end: the file may be cut. FormatError for what is no tar, and for names of more than 4,096 bytes.

    One call at a time: while one is under way, in whatever thread, or calls the file, another raises RuntimeError.
    """

    cdef layer_tar tar
    cdef object file
    cdef str what
    cdef bytes piece
    cdef size_t at
    cdef int busy  # whether a call is under way

    def __cinit__(self, file, str what not None):
        layer_tar_init(&self.tar)
        self.file = file
        self.what = what
        self.piece = b""

    def __dealloc__(self):
        layer_tar_cleanup(&self.tar)

    def __iter__(self):
        return self

    def __next__(self):
        check_idle(self.busy, self.what, "index")
        self.busy += 1
        try:
            return self.next_member()
        finally:
            self.busy -= 1

    cdef object next_member(self):
        while True:
            event = self.next_event()
            if event == LAYER_TAR_ENTRY:
                member = self.member()
                if self.tar.entry.type != LAYER_OTHER:
                    return member
            if event == LAYER_TAR_END:
                raise StopIteration
            if event == LAYER_TAR_ERROR:
                raise self.error()
            if event == LAYER_TAR_NEED_INPUT and not self.fill():
                if layer_tar_finish(&self.tar) < 0:
                    raise self.error()
                raise StopIteration

    cdef layer_tar_event next_event(self):
        cdef size_t size = <size_t>len(self.piece), left = size - self.at
        cdef const uint8_t *data = <const uint8_t *><const char *>self.piece + self.at
        cdef layer_slice content
        cdef layer_tar_event event = layer_tar_next(&self.tar, &data, &left, &content)
        self.at = size - left
        return event

    cdef bint fill(self) except -1:
        self.file.seek(self.tar.offset)
        self.piece = self.file.read(PIECE)
        self.at = 0
        return len(self.piece) > 0

    cdef object member(self):
        cdef const layer_entry *entry = &self.tar.entry
        cdef uint64_t offset = self.tar.offset, size
        if entry.sparse:
            self.tar.reason = "a sparse file in GNU's own form"
            raise self.error()
        name, link = self.text(entry.name), self.text(entry.link)
        size = layer_tar_skip(&self.tar)
        if size <= <uint64_t>len(self.piece) - self.at:
            self.at += <size_t>size
        else:
            self.at = <size_t>len(self.piece)
        return entry.type, name, link, offset, size

    cdef str text(self, layer_slice text):
        if text.size > LONGEST_NAME:
            self.tar.reason = "a name of more than 4,096 bytes"
            raise self.error()
        return (text.data[:text.size] if text.size else b"").decode("utf-8", "surrogateescape")

    cdef object error(self):
        cdef const layer_tar *tar = &self.tar
        cdef uint64_t offset = tar.offset if tar.entry_offset == <uint64_t>-1 else tar.entry_offset
        return errors.malformed(f"not a readable tar: {tar.reason.decode()}", self.what, offset)
