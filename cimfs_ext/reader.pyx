"""Committed images: look up, list, read, check. Any image that the format document describes, Windows' own too."""

import errno
import io
import os
from operator import itemgetter
from uuid import UUID

from cimfs_ext import entries, errors

from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_DecodeUTF16
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cimfs_ext.cimfs cimport CIMFS_E_PATH_NOT_FOUND, cimfs_error, cimfs_hresult
from cimfs_ext.image cimport error_for
from cimfs_ext.public cimport show_as

cdef uint64_t OFFSET_MASK = (<uint64_t>1 << 48) - 1
cdef uint64_t NO_OFFSET = <uint64_t>-1
cdef int MAX_PROBLEMS = 1000  # kept in a report; the rest are only counted


cdef str decode(const uint16_t *units, uint32_t length):
    cdef int order = -1
    return PyUnicode_DecodeUTF16(<char *>units, length * 2, "surrogatepass", &order)


cdef int compare_names(const uint16_t *upcase, const cimfs_link *left, const cimfs_link *right) noexcept:
    """The order of two names; NULL stands behind all."""
    cdef cimfs_name a, b
    if left == NULL or right == NULL:
        return 1 if left == NULL else -1
    a.units, a.length = left.units, left.length
    b.units, b.length = right.units, right.length
    return cimfs_name_compare(upcase, a, b)


cdef bint same_child(const _Children *left, const _Children *right) noexcept:
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


cdef bytes path_units(str path):
    """Backslashed UTF-16 without leading or trailing separators; a slash can be in no name, so it separates too."""
    return path.replace("/", "\\").strip("\\").encode("utf-16-le", "surrogatepass")


cdef tuple split(path):
    """The directory and the name of an image's file."""
    directory, name = os.path.split(os.fsdecode(path))
    if "\0" in directory or "\0" in name:
        raise ValueError("embedded null byte")
    return directory or os.curdir, name


cdef list sets_of(const cimfs_reader *reader):
    cdef uint32_t count, i
    cdef const cimfs_set *sets = cimfs_reader_sets(reader, &count)
    return [entries.RegionSet(UUID(bytes_le=(<char *>sets[i].id.b)[:16]), sets[i].count) for i in range(count)]


def read_region_sets(path):
    """:attr:`ImageReader.region_sets` of the image of that path, with its errors, from its ``.cim`` file alone.

    That the regions are there is not looked at.
    """
    cdef cimfs_error error
    cdef cimfs_reader *reader = NULL
    cdef str directory_name, file_name
    directory_name, file_name = split(path)
    cdef bytes directory_bytes = os.fsencode(directory_name), name_bytes = os.fsencode(file_name)
    cdef const char *directory = directory_bytes
    cdef const char *name = name_bytes
    cdef cimfs_hresult code
    memset(&error, 0, sizeof(error))
    with nogil:
        code = cimfs_reader_open_list(&cimfs_system_io, directory, name, &error, &reader)
    if code < 0:
        raise error_for(code, &error, "open image", os.fsdecode(path))
    try:
        return sets_of(reader)
    finally:
        cimfs_reader_close(reader)


cdef class ImageReader:
    """A committed image, opened by the path of its ``.cim`` file.

    Paths inside the image are relative, separated by backslashes or slashes, compared without regard to case; the
    empty path is the root. Wherever a path is taken, an :class:`~cimlayer.ImageEntry` serves as well.

    Raises :class:`~cimlayer.PathNotFoundError` for what is not there and
    :class:`~cimlayer.CorruptImageError` for a file that contradicts the format, with the file and the offset.
    An open reader never changes: threads may share it. The files must not be shortened while it is open.
    """

    def __cinit__(self, path):
        cdef cimfs_error error
        cdef cimfs_hresult code
        self.reader = NULL
        self.directory, self.name = split(path)
        cdef bytes directory_bytes = os.fsencode(self.directory), name_bytes = os.fsencode(self.name)
        cdef const char *directory = directory_bytes
        cdef const char *name = name_bytes
        memset(&error, 0, sizeof(error))
        with nogil:
            code = cimfs_reader_open(&cimfs_system_io, directory, name, &error, &self.reader)
        if code < 0:
            raise error_for(code, &error, "open image", os.fsdecode(path))

    def __dealloc__(self):
        if self.reader != NULL:
            cimfs_reader_close(self.reader)
            self.reader = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Release the files. Must not be called while another thread uses the reader.

        RuntimeError if it reads or checks at the moment, as in what :meth:`verify` calls: it stays open.
        """
        cdef cimfs_reader *reader = self.reader
        if self.busy:
            raise RuntimeError(f"{self.name}: the image is in use")
        self.reader = NULL
        if reader != NULL:
            cimfs_reader_close(reader)

    @property
    def version(self):
        """The format's major version."""
        self.check_open()
        return cimfs_reader_version(self.reader)

    @property
    def region_sets(self):
        """The image's region sets, parents first, its own last."""
        self.check_open()
        return sets_of(self.reader)

    @property
    def last_file_id(self):
        """The highest file ID; those of deleted files stay unused."""
        cdef cimfs_error error
        cdef cimfs_table_entry table
        cdef const uint8_t *records
        self.check_open()
        cdef uint32_t count = cimfs_reader_table_count(self.reader)
        if count == 0:
            return 0
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_table(self.reader, count - 1, &error, &table, &records)
        if code < 0:
            raise error_for(code, &error, "read image", self.name)
        return (count - 1) * CIMFS_FILES_PER_TABLE + get16(table.count)

    cdef int check_open(self) except -1:
        if self.reader == NULL:
            raise ValueError("the image is closed")
        return 0

    cdef int open_file(self, uint32_t id, cimfs_record *record) except -1:
        cdef cimfs_error error
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_record(self.reader, id, &error, record)
        if code < 0:
            raise error_for(code, &error, "read image", self.name)
        return 0

    cdef object entry(self, uint32_t id, str name, const cimfs_record *record):
        cdef cimfs_extent data = cimfs_extent_of(record.data)
        cdef bint directory = cimfs_is_directory(record)
        return entries.ImageEntry(
            name, id, cimfs_attributes_of(record), 0 if directory else data.length,
            <int64_t>get64(record.creation_time), <int64_t>get64(record.last_write_time),
            <int64_t>get64(record.change_time), <int64_t>get64(record.last_access_time),
            get32(record.reparse_tag), get32(record.parent), bool(data.sparse))

    cdef uint32_t find(self, target) except? 0:
        """The file ID of a path or an entry."""
        cdef cimfs_error error
        cdef cimfs_name name
        cdef uint32_t id = 0
        self.check_open()
        if isinstance(target, entries.ImageEntry):
            return target.file_id
        units = path_units(target)
        name.units = <const uint16_t *><const char *>units
        name.length = <uint32_t>(len(units) // 2)
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_lookup(self.reader, name, &error, &id)
        if code == CIMFS_E_PATH_NOT_FOUND:
            raise errors.PathNotFoundError(errno.ENOENT, f"not found in {self.name}", target)
        if code < 0:
            raise error_for(code, &error, "look up", target)
        return id

    def stat(self, str path):
        """The entry at a path; its ``name`` is the path's last component as it was asked for."""
        cdef cimfs_record record
        cdef uint32_t id = self.find(path)
        self.open_file(id, &record)
        return self.entry(id, path.replace("/", "\\").strip("\\").rpartition("\\")[2], &record)

    def exists(self, str path):
        """Whether a path is there."""
        try:
            self.find(path)
        except errors.PathNotFoundError:
            return False
        return True

    cdef int open_children(self, target, _Children *children) except -1:
        """Begin with the children of a directory; NotADirectoryError for a file."""
        cdef cimfs_record record
        cdef cimfs_error error
        self.open_file(self.find(target), &record)
        if not cimfs_is_directory(&record):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", _name_of(target))
        memset(&error, 0, sizeof(error))
        children.next = 0
        cdef cimfs_hresult code = cimfs_reader_children(self.reader, &record, &error, &children.links)
        if code < 0:
            raise error_for(code, &error, "list directory", _name_of(target))
        return 0

    cdef bint next_child(self, _Children *children) except -1:
        """Go on to the next child; False behind the last one."""
        cdef uint32_t index = children.next
        cdef cimfs_error error
        cdef cimfs_hresult code
        if index == children.links.count:
            children.link = NULL
            return False
        memset(&error, 0, sizeof(error))
        children.next += 1
        children.link = &children.pair[index % 2]
        code = cimfs_links_next(&children.links, index, &children.pair[(index + 1) % 2], &error, children.link)
        if code >= 0:
            code = cimfs_links_file_id(&children.links, children.link, &error, &children.id)
        if code >= 0:
            code = cimfs_reader_record(self.reader, children.id, &error, &children.record)
        if code < 0:
            raise error_for(code, &error, "list directory", self.name)
        return True

    cdef object child_entry(self, const _Children *child):
        return self.entry(child.id, decode(child.link.units, child.link.length), &child.record)

    def listdir(self, directory=""):
        """The entries of a directory in the order of their names; NotADirectoryError for a file."""
        cdef _Children children
        self.open_children(directory, &children)
        result = []
        while self.next_child(&children):
            result.append(self.child_entry(&children))
        return result

    def is_fork_of(self, ImageReader older not None):
        """Whether the other image is this one's parent, or its parent's, and so on.

        Then file IDs and region offsets mean the same in both (docs/format.md, "Files").
        """
        sets = older.region_sets
        return len(sets) < len(self.region_sets) and self.region_sets[:len(sets)] == sets

    cdef bint has_order_of(self, ImageReader older, bint related) noexcept:
        """Whether names stand in one order in both images: that of their upcase tables, which a fork shares."""
        if related and cimfs_reader_upcase_offset(self.reader) == cimfs_reader_upcase_offset(older.reader):
            return True
        return memcmp(cimfs_reader_upcase(self.reader), cimfs_reader_upcase(older.reader),
                      CIMFS_UPCASE_UNITS * sizeof(uint16_t)) == 0

    def compare_directories(self, directory, ImageReader older not None, older_directory, *, bint related):
        """What a directory of this image and one of another have, as ``(entry, older_entry)`` in the order of names.

        None stands for a name that only one side has. With ``related``, which says that this image is a fork of the
        other, what is the same file with the same record under the same spelling is left out, unless it is a
        directory: that comes as one entry twice, since something below it may have changed.
        """
        cdef _Children ours, theirs
        cdef int order
        self.open_children(directory, &ours)
        older.open_children(older_directory, &theirs)
        cdef const uint16_t *upcase = cimfs_reader_upcase(self.reader)
        if not self.has_order_of(older, related):
            return paired(self.listdir(directory), older.listdir(older_directory), upcase)
        self.next_child(&ours)
        older.next_child(&theirs)
        result = []
        while ours.link != NULL or theirs.link != NULL:
            order = compare_names(upcase, ours.link, theirs.link)
            if order == 0 and related and same_child(&ours, &theirs):
                if cimfs_is_directory(&ours.record):
                    entry = self.child_entry(&ours)
                    result.append((entry, entry))
            else:
                result.append((self.child_entry(&ours) if order <= 0 else None,
                               older.child_entry(&theirs) if order >= 0 else None))
            if order <= 0:
                self.next_child(&ours)
            if order >= 0:
                older.next_child(&theirs)
        return result

    def walk(self, top=""):
        """Yield ``(path, entry)`` for everything below a directory, each directory before what it holds.

        A hostile image in which a directory lies in itself gives a CorruptImageError.
        """
        path = "" if not isinstance(top, str) else top.replace("/", "\\").strip("\\")
        directory = top
        names = [path] if path else []  # whose join is the path of the directory: one path, however many are to come
        pending = []
        seen = {self.find(top)}
        while True:
            found = []
            for entry in self.listdir(directory):
                inner = f"{path}\\{entry.name}" if path else entry.name
                if len(inner) > CIMFS_MAX_PATH:
                    raise _corrupt("a path longer than 32,767 code units", path)
                yield inner, entry
                if entry.is_directory:
                    if entry.file_id in seen:
                        raise _corrupt("a directory has two names, or lies in itself", inner)
                    seen.add(entry.file_id)
                    found.append((len(names), entry))
            pending.extend(reversed(found))
            if not pending:
                return
            depth, directory = pending.pop()
            names[depth:] = [directory.name]
            path = "\\".join(names)

    def streams(self, target):
        """The alternate streams of a file or directory, in the order of their names."""
        cdef cimfs_record record
        cdef cimfs_links links
        cdef cimfs_link pair[2]
        cdef cimfs_link *link
        cdef cimfs_error error
        cdef cimfs_raw_stream raw
        cdef uint32_t i
        self.open_file(self.find(target), &record)
        if get64(record.streams) == 0:
            return []
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_streams(self.reader, &record, &error, &links)
        result = []
        for i in range(links.count if code >= 0 else 0):
            link = &pair[i % 2]
            code = cimfs_links_next(&links, i, &pair[(i + 1) % 2], &error, link)
            if code < 0:
                break
            memcpy(&raw, link.value, sizeof(raw))
            result.append(entries.StreamEntry(decode(link.units, link.length), cimfs_extent_of(raw).length))
        if code < 0:
            raise error_for(code, &error, "list streams", _name_of(target))
        return result

    cdef bytes attachment(self, target, cimfs_attachment which):
        cdef cimfs_record record
        cdef cimfs_error error
        cdef const uint8_t *data
        cdef uint32_t size
        self.open_file(self.find(target), &record)
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_attachment(self.reader, &record, which, &error, &data, &size)
        if code < 0:
            raise error_for(code, &error, "read metadata", _name_of(target))
        return (<const char *>data)[:size] if size else b""

    def security_descriptor(self, target):
        """The self-relative security descriptor."""
        return self.attachment(target, CIMFS_SECURITY_DESCRIPTOR)

    def extended_attributes(self, target):
        """The FILE_FULL_EA_INFORMATION list; empty if there is none."""
        return self.attachment(target, CIMFS_EA_BUFFER)

    def reparse_data(self, target):
        """The whole REPARSE_DATA_BUFFER; empty if there is none."""
        return self.attachment(target, CIMFS_REPARSE_DATA)

    def object_offsets(self, target):
        """The region offsets of what a file or directory refers to: where a :class:`~cimlayer.Problem` lies.

        Content or link table, descriptor, EAs, reparse data, the table of alternate streams and their contents. A
        stream table that cannot be read counts as itself alone.
        """
        cdef cimfs_record record
        cdef cimfs_links links
        cdef cimfs_link link
        cdef cimfs_error error
        cdef cimfs_raw_stream raw
        cdef uint32_t i
        self.open_file(self.find(target), &record)
        offsets = {cimfs_extent_of(record.data).offset, get64(record.security_descriptor), get64(record.ea),
                   get64(record.reparse), get64(record.streams)}
        memset(&error, 0, sizeof(error))
        if get64(record.streams) and cimfs_reader_streams(self.reader, &record, &error, &links) >= 0:
            for i in range(links.count):
                if cimfs_links_at(&links, i, &error, &link) < 0:
                    break
                memcpy(&raw, link.value, sizeof(raw))
                offsets.add(cimfs_extent_of(raw).offset)
        offsets.discard(0)
        return offsets

    cdef int open_extent(self, target, stream, cimfs_extent *extent) except -1:
        cdef cimfs_record record
        cdef cimfs_links links
        cdef cimfs_link link
        cdef cimfs_error error
        cdef cimfs_raw_stream raw
        cdef cimfs_name name
        cdef int found = 0
        self.open_file(self.find(target), &record)
        if stream is None:
            if cimfs_is_directory(&record):
                raise IsADirectoryError(errno.EISDIR, "is a directory", _name_of(target))
            extent[0] = cimfs_extent_of(record.data)
            return 0
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_streams(self.reader, &record, &error, &links)
        units = stream.encode("utf-16-le", "surrogatepass")
        name.units = <const uint16_t *><const char *>units
        name.length = <uint32_t>(len(units) // 2)
        if code >= 0 and links.count:
            code = cimfs_links_find(&links, name, &error, &link, &found)
        if code < 0:
            raise error_for(code, &error, "open stream", f"{_name_of(target)}:{stream}")
        if not found:
            raise errors.PathNotFoundError(errno.ENOENT, f"not found in {self.name}", f"{_name_of(target)}:{stream}")
        memcpy(&raw, link.value, sizeof(raw))
        extent[0] = cimfs_extent_of(raw)
        return 0

    def location(self, target, stream=None):
        """Where the content or an alternate stream is stored: its region offset (0: nowhere) and length in bytes."""
        cdef cimfs_extent extent
        self.open_extent(target, stream, &extent)
        return extent.offset, extent.length

    def open(self, target, stream=None):
        """A raw binary file over the content, or over the alternate stream of that bare name.

        The image must stay open for as long as the file is used.
        """
        return StreamReader(self, target, stream)

    def read(self, target, stream=None):
        """All bytes of the content or of an alternate stream."""
        with StreamReader(self, target, stream) as file:
            return file.readall()

    def verify(self, progress=None):
        """Check every table and object of the image, and content against its object IDs.

        ``progress`` is called with the number of bytes checked so far; raising in it stops the check. Returns a
        :class:`~cimlayer.VerifyReport`; a damaged image is a report with problems, not an exception.
        """
        cdef cimfs_verify_counts counts
        cdef cimfs_verify_events events
        cdef cimfs_error error
        cdef cimfs_hresult code
        self.check_open()
        check = _Check(progress, [])
        events.context = <void *>check
        events.problem = on_problem
        events.progress = on_progress
        memset(&error, 0, sizeof(error))
        self.busy += 1
        with nogil:
            code = cimfs_verify(&cimfs_system_io, self.reader, &events, &counts, &error)
        self.busy -= 1
        if check.raised is not None:
            raise check.raised
        if code < 0:
            raise error_for(code, &error, "verify", self.name)
        return entries.VerifyReport(counts.files, counts.directories, counts.streams, counts.objects, counts.bytes,
                                    counts.unjudged, counts.problems, tuple(check.problems))


def _corrupt(reason, path):
    return errors.CorruptImageError(errno.EBADMSG, reason, path)


def _name_of(target):
    return target if isinstance(target, str) else target.name


cdef class _Check:
    """What the callbacks of one check share."""

    cdef object progress
    cdef list problems
    cdef object raised

    def __init__(self, progress, problems):
        self.progress = progress
        self.problems = problems
        self.raised = None


cdef int on_problem(void *context, uint64_t offset, const cimfs_error *error) noexcept with gil:
    check = <_Check>context
    try:
        if len(check.problems) < MAX_PROBLEMS:
            reason = error.reason.decode() if error.reason != NULL else f"0x{<uint32_t>error.code:08X}"
            check.problems.append(entries.Problem(
                error.file.decode("utf-8", "surrogateescape"),
                None if error.offset == NO_OFFSET else error.offset, reason, offset))
    except BaseException as raised:
        check.raised = raised
        return 1
    return 0


cdef int on_progress(void *context, const cimfs_verify_counts *counts) noexcept with gil:
    check = <_Check>context
    try:
        PyErr_CheckSignals()
        if check.progress is not None:
            check.progress(counts.bytes)
    except BaseException as raised:
        check.raised = raised
        return 1
    return 0


cdef class _StreamCursor:
    """Reads of one stream, position by position, without the GIL."""

    cdef ImageReader image
    cdef cimfs_extent extent

    def __cinit__(self, ImageReader image not None, target, stream):
        self.image = image
        image.open_extent(target, stream, &self.extent)

    @property
    def size(self):
        return self.extent.length

    def read_at(self, uint64_t position, buffer):
        """Fill the writable buffer from a position on; returns how many bytes there were."""
        cdef unsigned char[::1] view = buffer
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef size_t got = 0, size = <size_t>view.shape[0]
        cdef void *to
        self.image.check_open()
        if size == 0:
            return 0
        to = &view[0]
        memset(&error, 0, sizeof(error))
        self.image.busy += 1
        with nogil:
            code = cimfs_reader_read(self.image.reader, &self.extent, position, to, size, &error, &got)
        self.image.busy -= 1
        if code < 0:
            raise error_for(code, &error, "read", self.image.name)
        return got


class StreamReader(io.RawIOBase):
    """A read-only, seekable binary file over one stream of an image."""

    def __init__(self, image, target, stream=None):
        super().__init__()
        self._cursor = _StreamCursor(image, target, stream)
        self._position = 0

    @property
    def size(self):
        """The stream's length in bytes."""
        return self._cursor.size

    def readable(self):
        return True

    def seekable(self):
        return True

    def readinto(self, buffer):
        if self.closed:
            raise ValueError("the stream is closed")
        got = self._cursor.read_at(self._position, memoryview(buffer).cast("B"))
        self._position += got
        return got

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._cursor.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self):
        return self._position


show_as(ImageReader, "cimlayer", "cimlayer.ImageReader")
StreamReader.__module__ = "cimlayer"
