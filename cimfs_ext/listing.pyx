"""The children of directories: one after the other, those of two images side by side, and all that lies below one."""

import errno
import os
from operator import itemgetter

from cimfs_ext import entries, errors

cimport cython
from cpython.object cimport PyObject_GenericSetAttr
from cpython.unicode cimport PyUnicode_DecodeUTF16
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from cimfs_ext.cimfs cimport CIMFS_E_FILE_NOT_FOUND, cimfs_error, cimfs_hresult
from cimfs_ext.fileobjects cimport raised_by_files
from cimfs_ext.image cimport error_for
from cimfs_ext.libcimfs cimport (
    CIMFS_MAX_PATH,
    CIMFS_UPCASE_UNITS,
    cimfs_attributes_of,
    cimfs_extent,
    cimfs_extent_of,
    cimfs_is_directory,
    cimfs_link,
    cimfs_links_file_id,
    cimfs_links_next,
    cimfs_name,
    cimfs_name_compare,
    cimfs_reader,
    cimfs_reader_children,
    cimfs_reader_directory_path,
    cimfs_reader_name,
    cimfs_reader_record,
    cimfs_reader_upcase,
    cimfs_reader_upcase_offset,
    cimfs_record,
    get32,
    get64,
)


cdef object reader_error(const cimfs_reader *reader, cimfs_hresult code, const cimfs_error *error, str operation,
                         str path):
    """``error_for`` a call on an open image: of one that was removed meanwhile the path is what matters."""
    raised = raised_by_files(reader, code)
    if raised is not None:
        return raised
    if code == CIMFS_E_FILE_NOT_FOUND:
        path = os.path.join(os.fsdecode(cimfs_reader_directory_path(reader)), os.fsdecode(cimfs_reader_name(reader)))
    return error_for(code, error, operation, path)


cdef str decode(const cimfs_link *link):
    """A name."""
    return decode_units(link.units, link.length)


cdef str decode_units(const uint16_t *units, size_t length):
    cdef int order = -1
    return PyUnicode_DecodeUTF16(<const char *>units, length * sizeof(uint16_t), "surrogatepass", &order)


cdef object new_object = object.__new__
cdef dict flags = {}  # number -> FileAttributes: there are few, and making one takes longer than an entry


cdef object attributes_of(const cimfs_record *record):
    bits = cimfs_attributes_of(record)
    found = flags.get(bits)
    if found is None:
        found = flags[bits] = entries.FileAttributes(bits)
    return found


cdef object entry_of(uint32_t id, str name, const cimfs_record *record):
    cdef cimfs_extent data = cimfs_extent_of(record.data)
    cdef bint directory = cimfs_is_directory(record)
    cdef object entry = new_object(entries.ImageEntry)  # its own __init__ would take four times as long
    PyObject_GenericSetAttr(entry, "name", name)
    PyObject_GenericSetAttr(entry, "file_id", id)
    PyObject_GenericSetAttr(entry, "attributes", attributes_of(record))
    PyObject_GenericSetAttr(entry, "size", 0 if directory else data.length)
    PyObject_GenericSetAttr(entry, "creation_time", <int64_t>get64(record.creation_time))
    PyObject_GenericSetAttr(entry, "last_write_time", <int64_t>get64(record.last_write_time))
    PyObject_GenericSetAttr(entry, "change_time", <int64_t>get64(record.change_time))
    PyObject_GenericSetAttr(entry, "last_access_time", <int64_t>get64(record.last_access_time))
    PyObject_GenericSetAttr(entry, "reparse_tag", get32(record.reparse_tag))
    PyObject_GenericSetAttr(entry, "parent_id", get32(record.parent))
    PyObject_GenericSetAttr(entry, "sparse", bool(data.sparse))
    return entry


cdef Children open_children(const cimfs_reader *reader, str image, const cimfs_record *record, str path):
    """Begin before the first child of a directory; NotADirectoryError for a file."""
    cdef Children children = Children.__new__(Children)
    cdef cimfs_error error
    if not cimfs_is_directory(record):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
    children.reader = reader
    children.image = image
    memset(&error, 0, sizeof(error))
    cdef cimfs_hresult code = cimfs_reader_children(reader, record, &error, &children.links)
    if code < 0:
        raise reader_error(reader, code, &error, "list directory", path)
    return children


@cython.final
@cython.auto_pickle(False)
cdef class Children:
    """Those of one directory, in the order of their names. Not for Python code, which cannot keep the image open."""

    cdef bint advance(self) except -1 nogil:
        """Go on to the next child; False behind the last one."""
        cdef uint32_t index = self.next
        cdef cimfs_error error
        cdef cimfs_hresult code
        if index == self.links.count:
            self.link = NULL
            return False
        memset(&error, 0, sizeof(error))
        self.next += 1
        self.link = &self.pair[index % 2]
        code = cimfs_links_next(&self.links, index, &self.pair[(index + 1) % 2], &error, self.link)
        if code >= 0:
            code = cimfs_links_file_id(&self.links, self.link, &error, &self.id)
        if code >= 0:
            code = cimfs_reader_record(self.reader, self.id, &error, &self.record)
        if code < 0:
            with gil:
                raise reader_error(self.reader, code, &error, "list directory", self.image)
        return True

    cdef object entry(self):
        return entry_of(self.id, decode(self.link), &self.record)

    cdef list rest(self):
        """The entries of all that are still to come."""
        result = []
        while self.advance():
            result.append(self.entry())
        return result


cdef bint have_one_order(Children ours, Children theirs, bint related) noexcept:
    """Whether names stand in one order in both images: that of their upcase tables, which a fork shares."""
    if related and cimfs_reader_upcase_offset(ours.reader) == cimfs_reader_upcase_offset(theirs.reader):
        return True
    return memcmp(cimfs_reader_upcase(ours.reader), cimfs_reader_upcase(theirs.reader),
                  CIMFS_UPCASE_UNITS * sizeof(uint16_t)) == 0


cdef int compare_names(const uint16_t *upcase, const cimfs_link *left, const cimfs_link *right) noexcept:
    """The order of two names; NULL stands behind all."""
    cdef cimfs_name a, b
    if left == NULL or right == NULL:
        return 1 if left == NULL else -1
    a.units, a.length = left.units, left.length
    b.units, b.length = right.units, right.length
    return cimfs_name_compare(upcase, a, b)


cdef bint same_child(Children left, Children right) noexcept:
    return (left.id == right.id and left.link.length == right.link.length
            and memcmp(left.link.units, right.link.units, left.link.length * sizeof(uint16_t)) == 0
            and memcmp(&left.record, &right.record, sizeof(cimfs_record)) == 0)


cdef bytes upcased(str name, const uint16_t *upcase):
    """In big-endian units: in the order of names."""
    cdef const uint8_t[:] units = name.encode("utf-16-be", "surrogatepass")
    cdef bytearray key = bytearray()
    cdef Py_ssize_t i
    cdef uint16_t unit
    for i in range(0, units.shape[0], 2):
        unit = upcase[units[i] << 8 | units[i + 1]]
        key.append(unit >> 8)
        key.append(unit & 0xFF)
    return bytes(key)


cdef list paired(list ours, list theirs, const uint16_t *upcase):
    """Entries of the same name by this upcase table, in its order; ``theirs`` may stand in another one."""
    older = {}
    for entry in theirs:
        older.setdefault(upcased(entry.name, upcase), []).append(entry)
    rows = []
    for entry in ours:
        key = upcased(entry.name, upcase)
        same = older.get(key)
        rows.append((key, entry, same.pop(0) if same else None))
    rows.extend([(key, None, entry) for key, rest in older.items() for entry in rest])
    rows.sort(key=itemgetter(0))
    return [row[1:] for row in rows]


cdef list compare_children(Children ours, Children theirs, bint related):
    """``ImageReader.compare_directories``."""
    cdef const uint16_t *upcase = cimfs_reader_upcase(ours.reader)
    cdef int order
    if not have_one_order(ours, theirs, related):
        return paired(ours.rest(), theirs.rest(), upcase)
    ours.advance()
    theirs.advance()
    result = []
    while ours.link != NULL or theirs.link != NULL:
        order = compare_names(upcase, ours.link, theirs.link)
        if order == 0 and related and same_child(ours, theirs):
            if cimfs_is_directory(&ours.record):
                entry = ours.entry()
                result.append((entry, entry))
        else:
            result.append((ours.entry() if order <= 0 else None, theirs.entry() if order >= 0 else None))
        if order <= 0:
            ours.advance()
        if order >= 0:
            theirs.advance()
    return result


@cython.final
@cython.auto_pickle(False)
cdef class Walk:
    """All that lies below a directory, depth first, with its path. Not for Python code, as :class:`Children`."""

    def __cinit__(self):
        self.path = <uint16_t *>malloc((CIMFS_MAX_PATH + 1) * sizeof(uint16_t))
        if self.path == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.path)

    cdef bint advance(self) except -1 nogil:
        """Go on to the next entry; False behind the last one."""
        cdef uint32_t start
        cdef const cimfs_link *link
        if self.deep and self.here.link != NULL and cimfs_is_directory(&self.here.record):
            with gil:
                self.descend()
        while not self.here.advance():
            with gil:
                if not self.outer:
                    return False
                self.here = self.outer.pop()
            self.above -= 1
            while self.above > 0 and self.path[self.above] != u"\\":
                self.above -= 1
        start = self.above + 1 if self.above else 0
        link = self.here.link
        if start + link.length > CIMFS_MAX_PATH:
            with gil:
                raise self.corrupt("a path longer than 32,767 code units", self.above)
        if start:
            self.path[self.above] = u"\\"
        memcpy(self.path + start, link.units, link.length * sizeof(uint16_t))
        self.length = start + link.length
        return True

    cdef int descend(self) except -1:
        """Go on to the first child of this directory."""
        if self.here.id in self.seen:
            raise self.corrupt("a directory has two names, or lies in itself", self.length)
        self.seen.add(self.here.id)
        self.outer.append(self.here)
        self.here = open_children(self.here.reader, self.here.image, &self.here.record, decode(self.here.link))
        self.above = self.length
        return 0

    cdef object corrupt(self, str reason, uint32_t length):
        return errors.CorruptImageError(errno.EBADMSG, reason, decode_units(self.path, length))


cdef Walk open_walk(Children top, str path, uint32_t id):
    """Begin before the first entry below a directory, given its children, path and file ID."""
    cdef Walk walk = Walk.__new__(Walk)
    cdef bytes units = path.encode("utf-16-le", "surrogatepass")
    walk.above = <uint32_t>min(len(units) // sizeof(uint16_t), CIMFS_MAX_PATH)
    memcpy(walk.path, <const char *>units, walk.above * sizeof(uint16_t))
    walk.here = top
    walk.outer = []
    walk.seen = {id}
    walk.deep = True
    return walk
