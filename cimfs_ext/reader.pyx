"""Committed images: look up, list, read, check. Any image that the format document describes, Windows' own too."""

import errno
import os

from cimfs_ext import entries, errors
from cimfs_ext.imagepath import host_path, inner_path, split_path
from cimfs_ext.streams import StreamReader

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport CIMFS_E_PATH_NOT_FOUND, cimfs_error, cimfs_hresult
from cimfs_ext.fileobjects cimport open_reader
from cimfs_ext.guard cimport check_idle
from cimfs_ext.image cimport error_for
from cimfs_ext.libcimfs cimport (
    CIMFS_EA_BUFFER,
    CIMFS_FILES_PER_TABLE,
    CIMFS_OFFSET_BITS,
    CIMFS_REPARSE_DATA,
    CIMFS_SECURITY_DESCRIPTOR,
    cimfs_attachment,
    cimfs_extent,
    cimfs_extent_of,
    cimfs_is_directory,
    cimfs_name,
    cimfs_reader,
    cimfs_reader_attachment,
    cimfs_reader_close,
    cimfs_reader_lookup,
    cimfs_reader_open,
    cimfs_reader_record,
    cimfs_reader_table,
    cimfs_reader_table_count,
    cimfs_reader_version,
    cimfs_record,
    cimfs_system_io,
    cimfs_table_entry,
    get16,
    get64,
)
from cimfs_ext.listing cimport (
    Children,
    Walk,
    compare_children,
    decode_units,
    entry_of,
    open_children,
    open_walk,
    reader_error,
)
from cimfs_ext.public cimport show_as
from cimfs_ext.regionsets cimport sets_of
from cimfs_ext.streams cimport find_stream, list_streams, offsets_of
from cimfs_ext.verify cimport verify_image


REGION_SHIFT = CIMFS_OFFSET_BITS  # a region offset is the number of a region, and below this bit the place in it


cpdef str path_text(path):
    """A path in an image, with backslashes, without any at its ends; a slash can be in no name, so it separates too."""
    if not isinstance(path, str):
        path = inner_path(path)
    return (<str>path).replace("/", "\\").strip("\\")


cdef class ImageReader:
    """A committed image, opened by the path of its ``.cim`` file or of a layer directory.

    With ``files``, its files are file objects, on other hosts too: ``path`` is the name of the ``.cim`` file, and
    ``files`` opens a file by its name, for reading in binary mode, as often as it is asked to. What it returns needs
    ``seek``, ``tell``, ``read`` and ``close``, and is used by one thread at a time. Metadata is read in blocks of
    64 KiB, and content as it is asked for. What the file objects raise is raised unchanged, but a FileNotFoundError of
    ``files`` itself means that the file is missing; a file that ends before its size is a CorruptImageError.

    Paths inside the image are str, separated by backslashes or slashes, or PurePath; they are relative to its root (a
    separator at either end means nothing) and compared without regard to case, and the empty path is the root.
    Wherever one is taken but in :meth:`stat` and :meth:`exists`, an :class:`~cimlayer.ImageEntry` serves as well.

    Raises :class:`~cimlayer.PathNotFoundError` for what is not there,
    :class:`~cimlayer.CorruptImageError` for a file that contradicts the format, with the file and the offset, and
    :class:`~cimlayer.ImageNotFoundError` with the path of the ``.cim`` if the image was removed meanwhile and what is
    asked for was not read before. The files must not be shortened while it is open.

    However many layers an image has, at most 64 of its files are open at a time.

    An open reader never changes: threads may share it, with all that it has opened, and call everything together.
    Only :meth:`close` must come alone: while another call is under way it raises RuntimeError.
    """

    def __cinit__(self, path, *, files=None):
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef cimfs_reader *reader = NULL
        if files is not None:
            self.directory, self.name = "", host_path(path)
            self.reader = open_reader(self.name, files)
            return
        self.directory, self.name = split_path(path)
        cdef bytes directory_bytes = os.fsencode(self.directory), name_bytes = os.fsencode(self.name)
        cdef const char *directory = directory_bytes
        cdef const char *name = name_bytes
        memset(&error, 0, sizeof(error))
        with nogil:
            code = cimfs_reader_open(&cimfs_system_io, directory, name, &error, &reader)
        if code < 0:
            raise error_for(code, &error, "open image", os.fspath(path))
        self.reader = reader  # whoever finds the object before takes it for a closed one

    def __repr__(self):
        state = "" if self.reader != NULL else "closed "
        where = f" in {self.directory!r}" if self.directory else ""
        return f"<{state}cimlayer.ImageReader {self.name!r}{where}>"

    @property
    def closed(self):
        """Whether it was closed."""
        return self.reader == NULL

    def __dealloc__(self):
        if self.reader != NULL:
            cimfs_reader_close(self.reader)
            self.reader = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Release the files. Closing twice is fine.

        RuntimeError while another call is under way, in a thread or around this one (as when :meth:`verify` calls
        ``progress``): the reader stays open.
        """
        cdef cimfs_reader *reader = self.reader
        check_idle(self.busy, self.name, "image")
        self.reader = NULL
        if reader != NULL:
            cimfs_reader_close(reader)

    cdef int check_open(self) except -1:
        if self.reader == NULL:
            raise ValueError("the image is closed")
        return 0

    cdef int enter(self) except -1:
        """Begin a call. Python code may run at any time in it, if only because an object is made."""
        self.check_open()
        self.busy += 1
        return 0

    cdef void leave(self) noexcept:
        self.busy -= 1

    @property
    def version(self):
        """The format's major version."""
        self.check_open()
        return cimfs_reader_version(self.reader)

    @property
    def region_sets(self):
        """The image's region sets, parents first, its own last."""
        self.enter()
        try:
            return sets_of(self.reader)
        finally:
            self.leave()

    @property
    def last_file_id(self):
        """The highest file ID; those of deleted files stay unused."""
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef cimfs_table_entry table
        cdef const uint8_t *records
        cdef uint32_t count
        self.enter()
        try:
            count = cimfs_reader_table_count(self.reader)
            if count == 0:
                return 0
            memset(&error, 0, sizeof(error))
            code = cimfs_reader_table(self.reader, count - 1, &error, &table, &records)
            if code < 0:
                raise reader_error(self.reader, code, &error, "read image", self.name)
        finally:
            self.leave()
        return (count - 1) * CIMFS_FILES_PER_TABLE + get16(table.count)

    cdef int read_record(self, uint32_t id, cimfs_record *record) except -1:
        cdef cimfs_error error
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_record(self.reader, id, &error, record)
        if code < 0:
            raise reader_error(self.reader, code, &error, "read image", self.name)
        return 0

    cdef uint32_t find(self, target) except? 0:
        """The file ID of a path or an entry."""
        cdef cimfs_error error
        cdef cimfs_name name
        cdef uint32_t id = 0
        cdef bytes units
        if not isinstance(target, str) and isinstance(target, entries.ImageEntry):
            return target.file_id
        units = path_text(target).encode("utf-16-le", "surrogatepass")
        name.units = <const uint16_t *><const char *>units
        name.length = <uint32_t>(len(units) // 2)
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_lookup(self.reader, name, &error, &id)
        if code == CIMFS_E_PATH_NOT_FOUND:
            raise self.not_found(name_of(target))
        if code < 0:
            raise reader_error(self.reader, code, &error, "look up", name_of(target))
        return id

    cdef object not_found(self, str path):
        return errors.PathNotFoundError(errno.ENOENT, f"not found in {self.name}", path)

    cdef int find_record(self, target, cimfs_record *record) except -1:
        return self.read_record(self.find(target), record)

    cdef Children children(self, target):
        cdef cimfs_record record
        self.find_record(target, &record)
        return open_children(self.reader, self.name, &record, name_of(target))

    def stat(self, path):
        """The entry at a path; its ``name`` is the path's last component as it was asked for."""
        cdef cimfs_record record
        cdef uint32_t id
        cdef str text = path_text(path)
        self.enter()
        try:
            id = self.find(path)
            self.read_record(id, &record)
        finally:
            self.leave()
        return entry_of(id, text.rpartition("\\")[2], &record)

    def exists(self, path):
        """Whether a path is there."""
        self.enter()
        try:
            self.find(path)
        except errors.PathNotFoundError:
            return False
        finally:
            self.leave()
        return True

    def listdir(self, directory=""):
        """The entries of a directory in the order of their names; NotADirectoryError for a file."""
        self.enter()
        try:
            return self.children(directory).rest()
        finally:
            self.leave()

    def is_fork_of(self, ImageReader older not None):
        """Whether the other image is this one's parent, or its parent's, and so on.

        Then file IDs and region offsets mean the same in both (docs/format.md, "Files").
        """
        sets = older.region_sets
        return len(sets) < len(self.region_sets) and self.region_sets[:len(sets)] == sets

    def compare_directories(self, directory, ImageReader older not None, older_directory, *, bint related):
        """What a directory of this image and one of another have, as ``(entry, older_entry)`` in the order of names.

        None stands for a name that only one side has. With ``related``, which says that this image is a fork of the
        other, what is the same file with the same record under the same spelling is left out, unless it is a
        directory: that comes as one entry twice, since something below it may have changed.
        """
        self.enter()
        try:
            older.enter()
            try:
                return compare_children(self.children(directory), older.children(older_directory), related)
            finally:
                older.leave()
        finally:
            self.leave()

    def walk(self, top=""):
        """Yield ``(path, entry)`` for everything below a directory, depth first: what a directory holds follows it.

        A hostile image in which a directory lies in itself gives a CorruptImageError. Between two entries the reader
        may be closed: then the next one is a ValueError.
        """
        self.enter()
        try:
            walk = self.walk_below(top)
        finally:
            self.leave()
        return _walked(self, walk)

    cdef Walk walk_below(self, target):
        cdef cimfs_record record
        cdef uint32_t id = self.find(target)
        self.read_record(id, &record)
        cdef Children top = open_children(self.reader, self.name, &record, name_of(target))
        return open_walk(top, "" if isinstance(target, entries.ImageEntry) else path_text(target), id)

    def streams(self, target):
        """The alternate streams of a file or directory, in the order of their names."""
        cdef cimfs_record record
        self.enter()
        try:
            self.find_record(target, &record)
            return list_streams(self.reader, &record, name_of(target))
        finally:
            self.leave()

    def attached(self, target):
        """The region offsets of descriptor, EAs, reparse data and streams; 0 for what an entry does not have."""
        cdef cimfs_record record
        self.enter()
        try:
            self.find_record(target, &record)
        finally:
            self.leave()
        return get64(record.security_descriptor), get64(record.ea), get64(record.reparse), get64(record.streams)

    cdef bytes attachment(self, target, cimfs_attachment which):
        cdef cimfs_record record
        cdef cimfs_error error
        cdef cimfs_hresult code
        cdef const uint8_t *data
        cdef uint32_t size
        self.enter()
        try:
            self.find_record(target, &record)
            memset(&error, 0, sizeof(error))
            code = cimfs_reader_attachment(self.reader, &record, which, &error, &data, &size)
            if code < 0:
                raise reader_error(self.reader, code, &error, "read metadata", name_of(target))
            return (<const char *>data)[:size] if size else b""
        finally:
            self.leave()

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
        self.enter()
        try:
            self.find_record(target, &record)
            return offsets_of(self.reader, &record)
        finally:
            self.leave()

    cdef int find_extent(self, target, str stream, cimfs_extent *extent) except -1:
        cdef cimfs_record record
        self.find_record(target, &record)
        if stream is not None:
            if not find_stream(self.reader, &record, stream, name_of(target), extent):
                raise self.not_found(f"{name_of(target)}:{stream}")
        elif cimfs_is_directory(&record):
            raise IsADirectoryError(errno.EISDIR, "is a directory", name_of(target))
        else:
            extent[0] = cimfs_extent_of(record.data)
        return 0

    def location(self, target, stream=None):
        """Where the content or an alternate stream is stored: its region offset (0: nowhere) and length in bytes."""
        cdef cimfs_extent extent
        self.enter()
        try:
            self.find_extent(target, stream, &extent)
        finally:
            self.leave()
        return extent.offset, extent.length

    def open(self, target, mode="rb", *, stream=None):
        """A raw binary file over the content, or over the alternate stream of that bare name.

        It can be read and sought as :class:`io.FileIO` can, and handed to whatever takes a binary file: ``zipfile``,
        ``tarfile``, :class:`io.BufferedReader`, :class:`io.TextIOWrapper`. ``mode`` is ``"rb"``, or ValueError.

        The image must stay open for as long as the file is used: afterwards reading raises ValueError. Whoever reads
        it in order to its end gets a :class:`~cimlayer.CorruptImageError` there if the content does not match its
        content ID (images written by Windows have none that can be compared).
        """
        if mode != "rb":
            raise ValueError(f"a file of an image is opened in mode 'rb', not {mode!r}")
        from cimfs_ext.cursor import StreamCursor  # which needs this module
        return StreamReader(StreamCursor(self, target, stream))

    def read(self, target, stream=None):
        """All bytes of the content or of an alternate stream, checked as by :meth:`open`."""
        with self.open(target, stream=stream) as file:
            return file.readall()

    def verify(self, progress=None, *, jobs=None, cancel=None):
        """Check every table and object of the image, and content against its object IDs.

        ``progress`` is called with the number of bytes checked so far; raising in it stops the check. It may use the
        reader, but not close it. ``jobs`` is the number of threads that read, by default one per CPU; file objects are
        read by one. :class:`~cimlayer.OperationCancelledError` once ``cancel``, a
        :class:`~cimlayer.CancellationToken`, is cancelled. Returns a :class:`~cimlayer.VerifyReport`, the same for any
        number of threads; a damaged image is a report with problems, not an exception. One that is removed meanwhile
        is a report whose last problem says so.
        """
        self.enter()
        try:
            return verify_image(self.reader, self.name, progress, cancel, jobs)
        finally:
            self.leave()


def _walked(ImageReader image, Walk walk):
    while True:
        image.enter()
        try:
            if not walk.advance():
                return
            found = decode_units(walk.path, walk.length), walk.here.entry()
        finally:
            image.leave()
        yield found


cdef str name_of(target):
    """What errors call a path or an entry."""
    return target.name if isinstance(target, entries.ImageEntry) else str(target)


show_as(ImageReader, "cimlayer", "cimlayer.ImageReader")
