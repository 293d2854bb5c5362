# cython: cdivision=True
"""The entries of an image as those of a tar, with the PAX records of go-winio's backuptar/tar.go."""

from array import array

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport bsearch, free, qsort, realloc
from libc.string cimport memcpy, memset, strlen

from cimfs_ext.cimfs cimport CIMFS_E_OUT_OF_MEMORY, cimfs_error, cimfs_hresult
from cimfs_ext.filetimes cimport unix_seconds
from cimfs_ext.libcimfs cimport (
    CIMFS_READAHEAD_SMALL,
    CIMFS_SECURITY_DESCRIPTOR,
    CIMFS_STREAM_DATA,
    cimfs_attributes_of,
    cimfs_content_check,
    cimfs_extent,
    cimfs_extent_of,
    cimfs_is_directory,
    cimfs_link,
    cimfs_readahead,
    cimfs_readahead_cleanup,
    cimfs_readahead_find,
    cimfs_readahead_read,
    cimfs_reader_attachment,
    cimfs_reader_check_whole,
    cimfs_reader_read_checked,
    cimfs_record,
    cimfs_utf8_from_wide,
    get64,
)
from cimfs_ext.liblayer cimport (
    LAYER_DECIMAL,
    LAYER_PAX_SECONDS,
    LAYER_TAR_AROUND,
    LAYER_TAR_BLOCK,
    LAYER_TAR_NAME,
    layer_buffer,
    layer_buffer_reserve,
    layer_decimal,
    layer_pax_seconds,
    layer_tar_begin_record,
    layer_tar_end_records,
    layer_tar_fits,
    layer_tar_header,
    layer_tar_write_header,
)
from cimfs_ext.listing cimport Walk, decode, decode_units, reader_error
from cimfs_ext.reader cimport ImageReader


cdef extern from "liblayer/base64.h" nogil:
    size_t layer_base64_length(size_t)
    void layer_base64_encode(const uint8_t *, size_t, char *)


cdef enum:
    BETWEEN_CHECKS = 4096  # entries
    FEW_UNITS = 256  # of a path that counts as one entry
    UTF8_OF_UNIT = 3  # bytes at most
    RECORDS = 8  # of an ordinary entry at most
    MOST_OF_RECORD = LAYER_TAR_AROUND + 23 + LAYER_PAX_SECONDS  # without a path or a descriptor; the longest keyword
    FILE_ATTRIBUTE_NORMAL = 0x80
    KEPT = 128  # descriptors


cdef bint is_ordinary(const cimfs_record *record, const uint16_t *path, size_t length) noexcept nogil:
    """Whether an entry has nothing but content, attributes, times and a descriptor, and a path of whole characters."""
    cdef cimfs_extent data = cimfs_extent_of(record.data)
    cdef size_t i
    if get64(record.ea) or get64(record.reparse) or get64(record.streams):
        return False
    if data.length and not data.offset and not cimfs_is_directory(record):  # nothing but a hole
        return False
    for i in range(length):
        if path[i] & 0xF800 == 0xD800:
            return False
    return True


cdef str name_in(const uint16_t *path, size_t length):
    """The last component."""
    cdef size_t start = length
    while start and path[start - 1] != c"\\":
        start -= 1
    return decode_units(path + start, length - start)


cdef bint is_ascii(const uint16_t *path, size_t length) noexcept nogil:
    cdef uint16_t all_bits = 0
    cdef size_t i
    for i in range(length):
        all_bits |= path[i]
    return all_bits < 0x80


cdef uint8_t *write_text(const char *keyword, const uint8_t *text, size_t length, uint8_t *to) noexcept nogil:
    to = layer_tar_begin_record(keyword, strlen(keyword), length, to)
    memcpy(to, text, length)
    return to + length + 1


cdef uint8_t *write_number(const char *keyword, uint64_t number, uint8_t *to) noexcept nogil:
    cdef uint8_t[LAYER_DECIMAL] text
    return write_text(keyword, text, layer_decimal(number, text), to)


cdef uint8_t *write_time(const char *keyword, uint64_t filetime, uint8_t *to) noexcept nogil:
    cdef uint8_t[LAYER_PAX_SECONDS] text
    return write_text(keyword, text, layer_pax_seconds(<int64_t>filetime, text), to)


cdef int write_descriptor(const uint8_t *data, size_t size, layer_buffer *to) noexcept nogil:
    """The record of a descriptor, nothing without one; -1 without memory."""
    cdef const char *keyword = "MSWINDOWS.rawsd"
    cdef size_t length = layer_base64_length(size)
    cdef uint8_t *text
    to.size = 0
    if size == 0:
        return 0
    if layer_buffer_reserve(to, MOST_OF_RECORD + length) < 0:
        return -1
    text = layer_tar_begin_record(keyword, strlen(keyword), length, to.data)
    layer_base64_encode(data, size, <char *>text)
    to.size = <size_t>(text + length + 1 - to.data)
    return 0


cdef uint8_t *write_path(const uint16_t *path, size_t length, size_t size, bint directory, uint8_t *to) noexcept nogil:
    """A path of ``size`` bytes in UTF-8."""
    cdef size_t i
    to = layer_tar_begin_record("path", 4, size + directory, to)
    cimfs_utf8_from_wide(path, length, <char *>to, size + 1)
    for i in range(size):
        if to[i] == c"\\":
            to[i] = c"/"
    to += size
    if directory:
        to[0] = c"/"
        to += 1
    to[0] = c"\n"  # where the text was terminated
    return to + 1


cdef size_t most_of_header(size_t length, size_t descriptor_size) noexcept nogil:
    """Bytes that ``write_header`` needs for a path of so many code units."""
    return 3 * LAYER_TAR_BLOCK + RECORDS * MOST_OF_RECORD + UTF8_OF_UNIT * length + 1 + descriptor_size


cdef size_t write_header(const uint16_t *path, size_t length, const cimfs_record *record,
                         const layer_buffer *descriptor, uint8_t *to) noexcept nogil:
    """That of an ordinary entry, as ``tar_header`` has it; ``descriptor`` is a whole record. Returns how many bytes."""
    cdef bint directory = cimfs_is_directory(record)
    cdef uint64_t size = 0 if directory else cimfs_extent_of(record.data).length
    cdef uint64_t last_write = get64(record.last_write_time)
    cdef size_t path_size = length if is_ascii(path, length) else cimfs_utf8_from_wide(path, length, NULL, 0), i
    cdef uint8_t[LAYER_TAR_NAME + 1] name
    cdef uint8_t *at = to + LAYER_TAR_BLOCK
    cdef layer_tar_header header
    at = write_number("MSWINDOWS.fileattr", cimfs_attributes_of(record) or FILE_ATTRIBUTE_NORMAL, at)
    at = write_time("LIBARCHIVE.creationtime", get64(record.creation_time), at)
    at = write_time("atime", get64(record.last_access_time), at)
    at = write_time("ctime", get64(record.change_time), at)
    if descriptor.size:
        memcpy(at, descriptor.data, descriptor.size)
        at += descriptor.size
    at = write_time("mtime", last_write, at)
    if path_size != length or path_size + directory > LAYER_TAR_NAME:
        at = write_path(path, length, path_size, directory, at)
    if not layer_tar_fits(size):
        at = write_number("size", size, at)
    at = layer_tar_end_records(to, at)

    header.name_length = min(length, <size_t>LAYER_TAR_NAME)
    for i in range(header.name_length):
        name[i] = c"/" if path[i] == c"\\" else c"?" if path[i] >= 0x80 else <uint8_t>path[i]
    if directory:
        name[header.name_length] = c"/"
        header.name_length += 1
    header.name = header.link = name
    header.link_length = 0
    header.kind, header.mode = (c"5", 0o755) if directory else (c"0", 0o644)
    header.size, header.mtime = size, unix_seconds(<int64_t>last_write)
    return layer_tar_write_header(&header, at) - to


cdef struct Descriptor:
    uint64_t offset
    layer_buffer record


@cython.final
@cython.no_gc_clear  # without its image it cannot go on
cdef class TarStream:
    """A tar of entries of one image, which must stay open meanwhile. Used by one thread at a time.

    The bytes are collected in one of the ``buffers`` after the other and go to ``write`` as memoryviews of them, all
    but the last full; what it got stays as it is until all other buffers have followed. Before each call ``step`` gets
    the number of entries and the bytes of content so far.
    """

    cdef ImageReader image
    cdef object write, step
    cdef list buffers
    cdef uint8_t[::1] page  # the first of them, which is being filled
    cdef size_t filled
    cdef layer_buffer header  # that is being made
    cdef Descriptor[KEPT] descriptors
    cdef cimfs_readahead ahead
    cdef readonly uint64_t entries, content_bytes
    cdef Walk walk
    cdef const uint32_t[::1] left_out  # in order

    def __cinit__(self, ImageReader image not None, list buffers not None, *, write, step):
        self.image = image
        self.buffers = list(buffers)
        self.page = self.buffers[0]
        self.write, self.step = write, step

    def __dealloc__(self):
        cdef size_t i
        free(self.header.data)
        for i in range(KEPT):
            free(self.descriptors[i].record.data)
        cimfs_readahead_cleanup(&self.ahead)

    # ---- bytes ----

    def put(self, const uint8_t[::1] data not None):
        """Bytes of the tar as they are."""
        if data.shape[0]:
            self.put_bytes(&data[0], <size_t>data.shape[0])

    def put_header(self, const uint8_t[::1] header not None):
        """Begin an entry."""
        self.entries += 1
        self.put(header)

    def put_content(self, entry, str stream=None):
        """The content of a file, or an alternate stream, with padding."""
        cdef cimfs_extent extent
        cdef str name = entry.name if stream is None else f"{entry.name}:{stream}"
        cdef bytes units = name.encode("utf-16-le", "surrogatepass")
        self.image.enter()
        try:
            self.image.find_extent(entry, stream, &extent)
            self.put_extent(&extent, <const uint16_t *><const char *>units, len(units) // sizeof(uint16_t))
        finally:
            self.image.leave()

    def flush(self):
        """Write what was collected."""
        cdef size_t filled = self.filled
        self.step(self.entries, self.content_bytes)
        if filled:
            self.write(memoryview(self.buffers[0])[:filled])
            self.buffers.append(self.buffers.pop(0))
            self.page = self.buffers[0]
            self.filled = 0

    cdef size_t room(self) except 0 nogil:
        """How many bytes the page can take before it is full."""
        if self.filled == <size_t>self.page.shape[0]:
            with gil:
                self.flush()
        return <size_t>self.page.shape[0] - self.filled

    cdef int put_bytes(self, const uint8_t *data, size_t size) except -1 nogil:
        """NULL stands for zeros."""
        cdef size_t count
        while size:
            count = min(size, self.room())
            if data == NULL:
                memset(&self.page[self.filled], 0, count)
            else:
                memcpy(&self.page[self.filled], data, count)
                data += count
            self.filled += count
            size -= count
        return 0

    cdef int put_extent(self, const cimfs_extent *extent, const uint16_t *path, size_t length) except -1 nogil:
        """Of a file with that path or name."""
        cdef cimfs_error error
        cdef cimfs_hresult code
        memset(&error, 0, sizeof(error))
        if extent.type == CIMFS_STREAM_DATA and not extent.sparse and 0 < extent.length <= CIMFS_READAHEAD_SMALL:
            code = self.put_small(extent, &error)
        else:
            code = self.put_large(extent, &error)
        if code < 0:
            with gil:
                raise reader_error(self.image.reader, code, &error, "read", name_in(path, length))
        return self.put_bytes(NULL, <size_t>(-extent.length % LAYER_TAR_BLOCK))

    cdef cimfs_hresult put_small(self, const cimfs_extent *extent, cimfs_error *error) except? -1 nogil:
        cdef cimfs_hresult code = 0
        cdef const uint8_t *data = cimfs_readahead_find(&self.ahead, extent)
        if data == NULL:
            code = cimfs_readahead_read(&self.ahead, self.image.reader, extent, error, &data)
        if code >= 0:
            code = cimfs_reader_check_whole(self.image.reader, extent, data, error)
        if code >= 0:
            self.content_bytes += extent.length
            self.put_bytes(data, <size_t>extent.length)
        return code

    cdef cimfs_hresult put_large(self, const cimfs_extent *extent, cimfs_error *error) except? -1 nogil:
        cdef cimfs_content_check check
        cdef cimfs_hresult code = 0
        cdef uint64_t position = 0
        cdef size_t room, got = 0
        memset(&check, 0, sizeof(check))
        while code >= 0 and position < extent.length:
            room = self.room()
            code = cimfs_reader_read_checked(
                self.image.reader, extent, &check, position, &self.page[self.filled], room, error, &got)
            if code >= 0:
                position += got
                self.filled += got
                self.content_bytes += got
        return code

    # ---- ordinary entries ----

    def add(self, str path not None, entry, uint64_t room):
        """Write an entry with its content if it is ordinary and has at most ``room`` bytes; returns whether it was."""
        cdef cimfs_record record
        cdef bytes units = path.encode("utf-16-le", "surrogatepass")
        cdef const uint16_t *start = <const uint16_t *><const char *>units
        cdef size_t length = len(units) // sizeof(uint16_t)
        self.image.enter()
        try:
            self.image.find_record(entry, &record)
            if not is_ordinary(&record, start, length) or entry.size > room:
                return False
            self.put_entry(start, length, &record)
        finally:
            self.image.leave()
        return True

    def begin(self, set left_out not None):
        """Start over with the first entry of the image; files with an ID in ``left_out`` count as not ordinary."""
        self.image.enter()
        try:
            self.walk = self.image.walk_below("")
        finally:
            self.image.leave()
        self.left_out = array("I", sorted(left_out))

    def add_more(self, uint64_t room):
        """Write ordinary entries, of ``room`` bytes at most, up to one that is not or is a whiteout by its name.

        Returns their size and the path and entry of that one, which is left to the caller, or None at the end.
        """
        cdef Walk walk = self.walk
        cdef uint64_t size, left = room
        cdef bint other = False
        self.image.enter()
        try:
            with nogil:
                while walk.advance():
                    size = 0 if cimfs_is_directory(&walk.here.record) else cimfs_extent_of(walk.here.record.data).length
                    if size > left or self.is_left_out(walk):
                        other = True
                        break
                    left -= size
                    self.put_entry(walk.path, walk.length, &walk.here.record)
            return room - left, (decode_units(walk.path, walk.length), walk.here.entry()) if other else None
        finally:
            self.image.leave()

    cdef bint is_left_out(self, Walk walk) except -1 nogil:
        cdef const cimfs_link *link = walk.here.link
        cdef const uint16_t *name = link.units
        if link.length >= 4 and name[0] == c"." and name[1] == c"w" and name[2] == c"h" and name[3] == c".":
            return True
        return not is_ordinary(&walk.here.record, walk.path, walk.length) or self.is_named(walk.here.id)

    cdef bint is_named(self, uint32_t id) noexcept nogil:
        """Whether an ID is one of those to leave out."""
        cdef size_t count = <size_t>self.left_out.shape[0]
        return count and bsearch(&id, &self.left_out[0], count, sizeof(id), by_number) != NULL

    cdef int put_entry(self, const uint16_t *path, size_t length, const cimfs_record *record) except -1 nogil:
        """An ordinary entry."""
        cdef cimfs_extent data = cimfs_extent_of(record.data)
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef const layer_buffer *descriptor
        memset(&error, 0, sizeof(error))
        code = self.find_descriptor(record, &error, &descriptor)
        if code >= 0 and layer_buffer_reserve(&self.header, most_of_header(length, descriptor.size)) < 0:
            code = CIMFS_E_OUT_OF_MEMORY
        if code < 0:
            with gil:
                raise reader_error(self.image.reader, code, &error, "read metadata", name_in(path, length))
        self.entries += 1
        self.put_bytes(self.header.data, write_header(path, length, record, descriptor, self.header.data))
        if not cimfs_is_directory(record) and data.length:
            self.put_extent(&data, path, length)
        return 0

    cdef cimfs_hresult find_descriptor(self, const cimfs_record *record, cimfs_error *error,
                                       const layer_buffer **found) noexcept nogil:
        """The record of an entry's descriptor, which many entries share; it stays until the next one is looked for."""
        cdef uint64_t offset = get64(record.security_descriptor)
        cdef Descriptor *kept = &self.descriptors[offset // 8 % KEPT]
        cdef cimfs_hresult code
        cdef const uint8_t *descriptor
        cdef uint32_t size = 0
        found[0] = &kept.record
        if kept.offset == offset:
            return 0
        kept.offset = kept.record.size = 0
        code = cimfs_reader_attachment(self.image.reader, record, CIMFS_SECURITY_DESCRIPTOR, error, &descriptor, &size)
        if code < 0:
            return code
        if write_descriptor(descriptor, size, &kept.record) < 0:
            return CIMFS_E_OUT_OF_MEMORY
        kept.offset = offset
        return 0


# ---- what there is ----


cdef int by_number(const void *a, const void *b) noexcept nogil:
    cdef uint32_t left = (<const uint32_t *>a)[0], right = (<const uint32_t *>b)[0]
    return (left > right) - (left < right)


cdef bint counts_as_one(Walk walk, uint64_t most_deep) noexcept:
    """Whether an entry has a short path with nothing in it that needs a closer look."""
    cdef const cimfs_link *link = walk.here.link
    cdef uint32_t i
    if walk.length >= FEW_UNITS or <uint64_t>len(walk.outer) >= most_deep or link.units[0] == c".":
        return False
    for i in range(link.length):
        if link.units[i] == c":":
            return False
    return True


def survey(ImageReader image not None, look, go_on, *, uint64_t room, uint64_t depth):
    """Go through an image: the number of entries that count, and the IDs of files with several names.

    ``look`` gets the number of those that were counted since the last call, and the path and name of one that needs a
    look: because of its name, because it has ``depth`` directories above it or counts for more than one, or because
    ``room`` entries were counted. It returns what there is room for then. ``go_on`` is called from time to time.
    """
    cdef Walk walk
    cdef uint64_t counted = 0
    cdef size_t files = 0, capacity = 0, i
    cdef uint32_t *numbers = NULL
    cdef uint32_t *grown
    cdef set several = set()
    image.enter()
    try:
        walk = image.walk_below("")
        while walk.advance():
            if counted % BETWEEN_CHECKS == 0:
                go_on()
            if not cimfs_is_directory(&walk.here.record):
                if files == capacity:
                    capacity = 2 * capacity + BETWEEN_CHECKS
                    grown = <uint32_t *>realloc(numbers, capacity * sizeof(uint32_t))
                    if grown == NULL:
                        raise MemoryError
                    numbers = grown
                numbers[files] = walk.here.id
                files += 1
            if counted < room and counts_as_one(walk, depth):
                counted += 1
            else:
                room = look(counted, decode_units(walk.path, walk.length), decode(walk.here.link))
                counted = 0
        if files:
            qsort(numbers, files, sizeof(uint32_t), by_number)
        for i in range(1, files):
            if numbers[i] == numbers[i - 1]:
                several.add(numbers[i])
    finally:
        image.leave()
        free(numbers)
    return counted, several
