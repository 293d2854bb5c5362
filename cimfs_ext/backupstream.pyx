"""Win32 backup streams: events of one that comes in pieces, and the pieces of one that is made."""

import struct
import sys

from cimfs_ext.errors import FormatError

from cpython.unicode cimport PyUnicode_DecodeUTF16
from libc.stdint cimport uint8_t, uint64_t

from cimfs_ext.guard cimport check_idle
from cimfs_ext.public cimport show_as

cdef object HEADER = struct.Struct("<IIQI")  # WIN32_STREAM_ID: ID, attributes, size, bytes of the name
cdef object BLOCK_OFFSET = struct.Struct("<Q")
cdef int NATIVE_ORDER = -1 if sys.byteorder == "little" else 1


cdef class BackupStreamParser:
    """Reads the backup stream of one file (Microsoft, "WIN32_STREAM_ID").

    ``file_size`` is the size in bytes that the content of the file must add up to, ``what`` names the file in
    errors: :class:`~cimlayer.FormatError`, whose offset is that of the header at fault in the backup
    stream, or of the end of what came. After an error every call raises it again.

    One call at a time: while one is under way, in whatever thread, every other one raises RuntimeError.
    """

    cdef layer_backup_parser parser
    cdef str what
    cdef bytearray attachment
    cdef int busy  # whether a call is under way

    def __cinit__(self, uint64_t file_size, str what):
        layer_backup_init(&self.parser, file_size)
        self.what = what
        self.attachment = bytearray()

    @property
    def offset(self):
        """Bytes of the backup stream taken so far."""
        return self.parser.offset

    def feed(self, data):
        """Take the next bytes, any contiguous buffer of any length, and list the events in them:

        - ``("attachment", stream_id, content)``: EAs (2), a descriptor (3) or reparse data (8), complete;
        - ``("data", view)``: a piece of content, of the file or of the alternate stream begun last. The view
          lies in ``data``: it is good for as long as ``data`` does not change;
        - ``("zeros", count)``: that many zero bytes of the same content;
        - ``("stream", name, size)``: an alternate stream begins, under its bare name. ``size`` is None when
          the stream is sparse: nothing before its data says how much it will be.

        Content is cut only where ``data`` ends or a sparse block does. If this raises, the events before the
        error are lost.
        """
        view = memoryview(data).cast("B").toreadonly()
        cdef const uint8_t[::1] content = view
        cdef size_t left = <size_t>content.shape[0]
        if left == 0:
            return []
        cdef const uint8_t *start = &content[0]
        check_idle(self.busy, self.what, "parser")
        self.busy += 1
        try:
            return self.events(view, start, left)
        finally:
            self.busy -= 1

    cdef list events(self, view, const uint8_t *start, size_t left):
        cdef const uint8_t *at = start
        cdef layer_backup_event event
        cdef list events = []
        while True:
            self.check(layer_backup_next(&self.parser, &at, &left, &event))
            if event.kind == LAYER_BACKUP_MORE:
                return events
            if event.kind == LAYER_BACKUP_CONTENT:
                events.append(("data", view[event.data - start:event.data - start + <Py_ssize_t>event.size]))
            elif event.kind == LAYER_BACKUP_ZEROS:
                events.append(("zeros", event.total))
            elif event.kind == LAYER_BACKUP_ALTERNATE:
                events.append(("stream", stream_name(&event),
                               None if event.total == LAYER_BACKUP_SIZE_UNKNOWN else event.total))
            else:
                self.attachment += event.data[:event.size]
                if event.offset + event.size == event.total:
                    events.append(("attachment", event.id, bytes(self.attachment)))
                    self.attachment.clear()

    def finish(self):
        """The backup stream ends here: raises unless everything that was declared has come."""
        check_idle(self.busy, self.what, "parser")
        self.check(layer_backup_finish(&self.parser))

    cdef int check(self, layer_backup_result result) except -1:
        if result != LAYER_BACKUP_OK:
            raise FormatError(layer_backup_reason(result).decode(), self.what, self.parser.error_offset)
        return 0


cdef str stream_name(const layer_backup_event *event):
    cdef int order = NATIVE_ORDER
    return PyUnicode_DecodeUTF16(<const char *>event.name, event.name_length * 2, "surrogatepass", &order)


def _header(stream_id, size, attributes=0, name=""):
    full_name = f":{name}:$DATA".encode("utf-16-le", "surrogatepass") if name else b""
    return HEADER.pack(stream_id, attributes, size, len(full_name)) + full_name


def _metadata(stream_id, data):
    yield _header(stream_id, len(data))
    yield bytes(data)


def _whole(stream_id, name, content, size):
    if size is None:
        size = memoryview(content).nbytes
        content = (content,)
    yield _header(stream_id, size, name=name)
    left = size
    for chunk in content:
        left -= memoryview(chunk).nbytes
        yield chunk
    if left != 0:
        raise ValueError(f"the content has {size - left} bytes, but {size} were announced")


def _sparse(stream_id, name, size, ranges):
    ranges = [(start, memoryview(content).cast("B")) for start, content in ranges]
    ranges = [(start, content) for start, content in ranges if len(content) > 0]
    end = 0
    for start, content in ranges:
        if start < end or start + len(content) > size:
            raise ValueError(f"the range at {start} is out of order or goes beyond the end")
        end = start + len(content)
    if len(ranges) == 1 and len(ranges[0][1]) == size:
        yield from _whole(stream_id, name, ranges[0][1], None)
        return
    yield _header(stream_id, 0, LAYER_BACKUP_SPARSE, name)
    if size > 0:
        for start, content in [*ranges, (size, b"")]:
            block = _header(LAYER_BACKUP_ID_SPARSE_BLOCK, LAYER_BACKUP_BLOCK_OFFSET_SIZE + len(content))
            yield block + BLOCK_OFFSET.pack(start)
            yield content


class BackupStreamWriter:
    """Makes the backup stream of one file, each method one stream of it as an iterator over chunks of bytes.

    The order is the caller's: the data before any alternate stream, metadata anywhere between. Content is one
    buffer, or with ``size`` (in bytes) an iterable of buffers that add up to it: if they do not, ValueError.
    Ranges are pairs of an offset in bytes and a buffer, in ascending order, without overlaps: else ValueError
    (Microsoft, "WIN32_STREAM_ID").
    """

    @staticmethod
    def extended_attributes(data):
        """A FILE_FULL_EA_INFORMATION list."""
        return _metadata(LAYER_BACKUP_ID_EA, data)

    @staticmethod
    def security(descriptor):
        """A self-relative security descriptor."""
        return _metadata(LAYER_BACKUP_ID_SECURITY, descriptor)

    @staticmethod
    def reparse(data):
        """A REPARSE_DATA_BUFFER."""
        return _metadata(LAYER_BACKUP_ID_REPARSE, data)

    @staticmethod
    def links(*names):
        """The names of hard links, a stream for each; restoring ignores them."""
        for name in names:
            yield from _metadata(LAYER_BACKUP_ID_LINK, name.encode("utf-16-le", "surrogatepass"))

    @staticmethod
    def data(content, size=None):
        """The content of the file."""
        return _whole(LAYER_BACKUP_ID_DATA, "", content, size)

    @staticmethod
    def sparse_data(size, ranges):
        """The content of a sparse file of ``size`` bytes: zeros except in ``ranges``."""
        return _sparse(LAYER_BACKUP_ID_DATA, "", size, ranges)

    @staticmethod
    def alternate_stream(name, content, size=None):
        """An alternate stream, given by its bare name, and its content."""
        return _whole(LAYER_BACKUP_ID_ALTERNATE, name, content, size)

    @staticmethod
    def sparse_alternate_stream(name, size, ranges):
        """An alternate stream of ``size`` bytes that are zeros except in ``ranges``."""
        return _sparse(LAYER_BACKUP_ID_ALTERNATE, name, size, ranges)


show_as(BackupStreamParser, "cimlayer", "cimlayer.BackupStreamParser")
BackupStreamWriter.__module__ = "cimlayer"
