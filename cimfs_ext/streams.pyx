"""What a file's record leads to: its alternate streams, where all of it lies, and the files that read one stream."""

import io
from operator import index

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy, memset

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport (
    cimfs_extent,
    cimfs_extent_of,
    cimfs_link,
    cimfs_links,
    cimfs_links_at,
    cimfs_links_find,
    cimfs_links_next,
    cimfs_name,
    cimfs_raw_stream,
    cimfs_reader,
    cimfs_reader_streams,
    cimfs_record,
    get64,
)
from cimfs_ext.listing cimport decode, reader_error


cdef cimfs_extent extent_at(const cimfs_link *link) noexcept:
    cdef cimfs_raw_stream raw
    memcpy(&raw, link.value, sizeof(raw))
    return cimfs_extent_of(raw)


cdef list list_streams(const cimfs_reader *reader, const cimfs_record *record, str path):
    """The alternate streams, in the order of their names."""
    cdef cimfs_links links
    cdef cimfs_link pair[2]
    cdef cimfs_link *link
    cdef cimfs_error error
    cdef uint32_t i
    result = []
    if get64(record.streams) == 0:
        return result
    from cimfs_ext.streamentry import StreamEntry
    memset(&error, 0, sizeof(error))
    cdef cimfs_hresult code = cimfs_reader_streams(reader, record, &error, &links)
    for i in range(links.count if code >= 0 else 0):
        link = &pair[i % 2]
        code = cimfs_links_next(&links, i, &pair[(i + 1) % 2], &error, link)
        if code < 0:
            break
        result.append(StreamEntry(decode(link), extent_at(link).length))
    if code < 0:
        raise reader_error(reader, code, &error, "list streams", path)
    return result


cdef bint find_stream(const cimfs_reader *reader, const cimfs_record *record, str name, str path,
                      cimfs_extent *extent) except -1:
    """Where the alternate stream of that bare name lies; False if there is none."""
    cdef cimfs_links links
    cdef cimfs_link link
    cdef cimfs_error error
    cdef cimfs_name wanted
    cdef int found = 0
    cdef bytes units = name.encode("utf-16-le", "surrogatepass")
    wanted.units = <const uint16_t *><const char *>units
    wanted.length = <uint32_t>(len(units) // 2)
    memset(&error, 0, sizeof(error))
    cdef cimfs_hresult code = cimfs_reader_streams(reader, record, &error, &links)
    if code >= 0 and links.count:
        code = cimfs_links_find(&links, wanted, &error, &link, &found)
    if code < 0:
        raise reader_error(reader, code, &error, "open stream", f"{path}:{name}")
    if found:
        extent[0] = extent_at(&link)
    return found


cdef set offsets_of(const cimfs_reader *reader, const cimfs_record *record):
    """``ImageReader.object_offsets``."""
    cdef cimfs_links links
    cdef cimfs_link link
    cdef cimfs_error error
    cdef uint32_t i
    offsets = {cimfs_extent_of(record.data).offset, get64(record.security_descriptor), get64(record.ea),
               get64(record.reparse), get64(record.streams)}
    memset(&error, 0, sizeof(error))
    if get64(record.streams) and cimfs_reader_streams(reader, record, &error, &links) >= 0:
        for i in range(links.count):
            if cimfs_links_at(&links, i, &error, &link) < 0:
                break
            offsets.add(extent_at(&link).offset)
    offsets.discard(0)
    return offsets


cdef Py_ssize_t AT_ONCE = 1 << 26  # bytes that `readall` asks memory for before it has read any


class StreamReader(io.RawIOBase):
    """A read-only, seekable binary file over one stream of an image; :meth:`ImageReader.open` makes it.

    Like :class:`io.FileIO`, but without a file descriptor. It has one position, which its calls move: threads may
    share it, but which of them gets which bytes is open.
    """

    mode = "rb"

    def __init__(self, cursor):
        super().__init__()
        self._cursor = cursor
        self._position = 0

    @property
    def name(self):
        """The path in the image, as it was asked for; ``path:stream`` for an alternate stream."""
        return self._cursor.name

    @property
    def size(self):
        """The stream's length in bytes."""
        return self._cursor.size

    def readable(self):
        self._check_open()
        return True

    def seekable(self):
        self._check_open()
        return True

    def readinto(self, buffer):
        self._check_open()
        view = memoryview(buffer).cast("B")
        if self._position >= self._cursor.size:  # which may be beyond what a position is, there
            return 0
        got = self._cursor.read_at(self._position, view)
        self._position += got
        return got

    def readall(self):
        self._check_open()
        left = max(self._cursor.size - self._position, 0)
        if left > AT_ONCE:
            return super().readall()
        data = self._cursor.read_bytes(self._position, left) if left else b""
        self._position += len(data)
        return data

    def seek(self, offset, whence=io.SEEK_SET):
        self._check_open()
        if whence == io.SEEK_SET:
            position = index(offset)
        elif whence == io.SEEK_CUR:
            position = self._position + index(offset)
        elif whence == io.SEEK_END:
            position = self._cursor.size + index(offset)
        else:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def tell(self):
        self._check_open()
        return self._position

    def write(self, data):
        raise io.UnsupportedOperation("not writable")

    def _check_open(self):
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __repr__(self):
        return f"<{'closed ' if self.closed else ''}cimlayer.StreamReader name={self.name!r} mode='rb'>"


StreamReader.__module__ = "cimlayer"
