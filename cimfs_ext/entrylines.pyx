"""Entries of an image as lines of text, for people and as JSON, many at a time."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen

from cimfs_ext.cimfs cimport CIMFS_ATTRIBUTE_DIRECTORY, CIMFS_ATTRIBUTE_REPARSE_POINT
from cimfs_ext.filetimes cimport SECONDS, WHOLE, time_text, write_time
from cimfs_ext.libcimfs cimport cimfs_attributes_of, cimfs_extent_of, cimfs_record, get32, get64
from cimfs_ext.liblayer cimport LAYER_DECIMAL, layer_decimal
from cimfs_ext.listing cimport Walk, decode_units
from cimfs_ext.reader cimport ImageReader


cdef enum Form:
    NAME
    TARGET
    LONG
    JSON


cdef enum:
    FULL = 1 << 16  # code units that are written together
    SIZE_WIDTH = 12

cdef dict FORMS = {"name": NAME, "target": TARGET, "long": LONG, "json": JSON}


cdef struct Listed:
    uint32_t attributes
    uint32_t id
    uint32_t reparse_tag
    uint64_t size
    int64_t last_write_time


cdef Listed listed_record(uint32_t id, const cimfs_record *record) noexcept:
    cdef uint32_t attributes = cimfs_attributes_of(record)
    return Listed(attributes, id, get32(record.reparse_tag),
                  0 if attributes & CIMFS_ATTRIBUTE_DIRECTORY else cimfs_extent_of(record.data).length,
                  <int64_t>get64(record.last_write_time))


cdef size_t write_number(uint64_t number, uint16_t *text) noexcept nogil:
    """In decimal, at most ``LAYER_DECIMAL`` code units; returns how many."""
    cdef uint8_t[LAYER_DECIMAL] digits
    cdef size_t count = layer_decimal(number, digits), i
    for i in range(count):
        text[i] = digits[i]
    return count


cdef size_t write_escaped(const uint16_t *units, size_t length, uint16_t backslash, uint16_t *text) noexcept nogil:
    """As they stand in a JSON string, in ASCII; six code units for one at most. Returns how many."""
    cdef const char *hexadecimal = "0123456789abcdef"
    cdef const char *short_forms = "btn.fr"  # of 8 to 13
    cdef size_t count = 0, i
    cdef uint16_t unit
    for i in range(length):
        unit = backslash if units[i] == c"\\" else units[i]
        if unit == c'"' or unit == c"\\":
            text[count] = c"\\"
            text[count + 1] = unit
            count += 2
        elif c" " <= unit <= c"~":
            text[count] = unit
            count += 1
        elif 8 <= unit <= 13 and unit != 11:
            text[count] = c"\\"
            text[count + 1] = short_forms[unit - 8]
            count += 2
        else:
            text[count] = c"\\"
            text[count + 1] = c"u"
            text[count + 2] = hexadecimal[unit >> 12]
            text[count + 3] = hexadecimal[unit >> 8 & 15]
            text[count + 4] = hexadecimal[unit >> 4 & 15]
            text[count + 5] = hexadecimal[unit & 15]
            count += 6
    return count


cdef bytes utf16(str text):
    return text.encode("utf-16-le", "surrogatepass")


@cython.final
@cython.no_gc_clear  # without its image it cannot go on
cdef class EntryLines:
    """Lines about entries of one image, which must stay open meanwhile. Used by one thread at a time.

    ``form`` says what they are: ``name``, ``target`` (the name, and where a link leads), ``long`` (attributes, size
    and time before that) or ``json``. ``write`` gets whole lines, some ten thousand code units at a time, and at the
    end of a ``with`` block, however that ends, all that are left.

    ``attributes`` makes of FILE_ATTRIBUTE bits what stands for them in these lines, ``size`` of a number of bytes
    (default: its digits) what stands in its column; ``target`` says where a reparse point leads. ``show``, which gets
    a text and the name of its style (``directory``, ``link`` or none), is for names that are not written as they are.
    """

    cdef ImageReader image
    cdef int form
    cdef object write, attributes, target, size, show
    cdef dict columns  # attribute bits -> bytes
    cdef uint16_t *text
    cdef size_t whole  # code units of whole lines; what follows them is the line that is being made, or one that failed
    cdef size_t used, capacity

    def __cinit__(self, ImageReader image not None, str form not None, *, write, attributes, target, size=None,
                  show=None):
        self.image = image
        self.form = FORMS[form]
        self.write, self.attributes, self.target, self.size, self.show = write, attributes, target, size, show
        self.columns = {}

    def __dealloc__(self):
        free(self.text)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.flush()

    def flush(self):
        """Write what is left."""
        cdef str text
        if self.whole:
            text = decode_units(self.text, self.whole)
            self.whole = 0
            self.write(text)

    def add(self, str name not None, entry, str before not None="", *, bint target=True):
        """A line for one entry, under that name or path; ``before`` stands before it. The target may be left out."""
        cdef bytes units = utf16(name)
        cdef Listed about = Listed(entry.attributes, entry.file_id, entry.reparse_tag, entry.size,
                                   entry.last_write_time)
        self.used = self.whole
        self.put_text(before)
        self.put_line(<const uint16_t *><const char *>units, len(units) // sizeof(uint16_t), &about,
                      entry if target else None)

    def add_below(self, str path not None, *, bint recursive):
        """A line for each entry of a directory, or of all below it: with ``recursive`` and in JSON under its path."""
        cdef Walk walk
        cdef Listed about
        self.image.enter()
        try:
            walk = self.image.walk_below(path)
            walk.deep = recursive
            while walk.advance():
                self.used = self.whole
                about = listed_record(walk.here.id, &walk.here.record)
                entry = walk.here.entry() if about.attributes & CIMFS_ATTRIBUTE_REPARSE_POINT else None
                if recursive or self.form == JSON:
                    self.put_line(walk.path, walk.length, &about, entry)
                else:
                    self.put_line(walk.here.link.units, walk.here.link.length, &about, entry)
        finally:
            self.image.leave()

    cdef int put_line(self, const uint16_t *name, size_t length, const Listed *about, entry) except -1:
        """``entry`` is for the targets of reparse points."""
        if self.form == JSON:
            self.put_object(name, length, about, entry)
        else:
            if self.form == LONG:
                self.put_columns(about)
            self.put_name(name, length, about.attributes)
            if self.form != NAME and entry is not None and about.attributes & CIMFS_ATTRIBUTE_REPARSE_POINT:
                target = self.target(entry)
                if target:
                    self.put_text(f" -> {target}" if self.show is None else self.show(f" -> {target}", ""))
        self.put_ascii("\n")
        self.whole = self.used
        if self.whole >= FULL:
            self.flush()
        return 0

    cdef int put_name(self, const uint16_t *name, size_t length, uint32_t attributes) except -1:
        """With slashes, and behind a directory one more."""
        cdef bint directory = (attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0
        cdef uint16_t *text = self.room(length + 1)
        cdef size_t i
        for i in range(length):
            text[i] = c"/" if name[i] == c"\\" else name[i]
        text[length] = c"/"
        if self.show is None:
            self.used += length + directory
            return 0
        style = "link" if attributes & CIMFS_ATTRIBUTE_REPARSE_POINT else "directory" if directory else ""
        self.put_text(self.show(decode_units(text, length + directory), style))
        return 0

    cdef int put_columns(self, const Listed *about) except -1:
        cdef uint16_t[WHOLE] time
        self.put_attributes(about.attributes)
        self.put_ascii(" ")
        if about.attributes & CIMFS_ATTRIBUTE_DIRECTORY:
            self.put_spaces(SIZE_WIDTH)
        elif self.size is None:
            self.put_number(about.size, SIZE_WIDTH)
        else:
            self.put_text(self.size(about.size).rjust(SIZE_WIDTH))
        self.put_ascii(" ")
        if write_time(about.last_write_time, time):
            time[10] = c" "
            self.put(time, SECONDS)
        else:
            self.put_ascii("-")
            self.put_spaces(SECONDS - 1)
        self.put_ascii(" ")
        return 0

    cdef int put_object(self, const uint16_t *name, size_t length, const Listed *about, entry) except -1:
        """What ``ls`` and ``find`` have in docs/json-schema.json. No number here is too large for other readers."""
        cdef uint16_t[WHOLE] time
        self.put_ascii('{"path": ')
        self.put_string(name, length, c"/")
        self.put_ascii(', "type": "')
        if about.attributes & CIMFS_ATTRIBUTE_DIRECTORY:
            self.put_ascii("directory")
        else:
            self.put_ascii("file")
        self.put_ascii('", "size": ')
        self.put_number(about.size, 0)
        self.put_ascii(', "attributes": ')
        self.put_attributes(about.attributes)
        self.put_ascii(', "last_write_time": "')
        if write_time(about.last_write_time, time):
            self.put(time, WHOLE)
        else:
            self.put_text(time_text(about.last_write_time))
        self.put_ascii('", "file_id": ')
        self.put_number(about.id, 0)
        if about.attributes & CIMFS_ATTRIBUTE_REPARSE_POINT:
            self.put_ascii(', "reparse_tag": ')
            self.put_number(about.reparse_tag, 0)
            self.put_ascii(', "target": ')
            self.put_target_string(self.target(entry))
        self.put_ascii("}")
        return 0

    cdef int put_target_string(self, str target) except -1:
        cdef bytes units
        if target is None:
            self.put_ascii("null")
            return 0
        units = utf16(target)
        self.put_string(<const uint16_t *><const char *>units, len(units) // sizeof(uint16_t), c"\\")
        return 0

    cdef int put_string(self, const uint16_t *units, size_t length, uint16_t backslash) except -1:
        """In JSON; ``backslash`` is what stands for one."""
        cdef uint16_t *text = self.room(6 * length + 2)
        cdef size_t written = write_escaped(units, length, backslash, text + 1)
        text[0] = text[written + 1] = c'"'
        self.used += written + 2
        return 0

    cdef int put_attributes(self, uint32_t attributes) except -1:
        column = self.columns.get(attributes)
        if column is None:
            column = self.columns[attributes] = utf16(self.attributes(attributes))
        return self.put_bytes(column)

    cdef int put_number(self, uint64_t number, size_t width) except -1:
        """In decimal, on the right of that many columns."""
        cdef uint16_t[LAYER_DECIMAL] text
        cdef size_t count = write_number(number, text)
        if count < width:
            self.put_spaces(width - count)
        return self.put(text, count)

    cdef int put_spaces(self, size_t count) except -1:
        cdef uint16_t *text = self.room(count)
        cdef size_t i
        for i in range(count):
            text[i] = c" "
        self.used += count
        return 0

    cdef int put_ascii(self, const char *characters) except -1:
        cdef size_t count = strlen(characters), i
        cdef uint16_t *text = self.room(count)
        for i in range(count):
            text[i] = characters[i]
        self.used += count
        return 0

    cdef int put_text(self, str text) except -1:
        return self.put_bytes(utf16(text))

    cdef int put_bytes(self, bytes units) except -1:
        return self.put(<const uint16_t *><const char *>units, len(units) // sizeof(uint16_t))

    cdef int put(self, const uint16_t *units, size_t count) except -1:
        memcpy(self.room(count), units, count * sizeof(uint16_t))
        self.used += count
        return 0

    cdef uint16_t *room(self, size_t count) except NULL:
        """For so many code units more."""
        cdef size_t needed = self.used + count + 1
        cdef uint16_t *grown
        if needed > self.capacity:
            needed += needed // 2 + FULL
            grown = <uint16_t *>realloc(self.text, needed * sizeof(uint16_t))
            if grown == NULL:
                raise MemoryError
            self.text = grown
            self.capacity = needed
        return self.text + self.used
