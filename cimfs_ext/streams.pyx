"""What a file's record leads to: its alternate streams, where all of it lies, and the files that read one stream."""

import io

from cimfs_ext import entries

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
    memset(&error, 0, sizeof(error))
    cdef cimfs_hresult code = cimfs_reader_streams(reader, record, &error, &links)
    for i in range(links.count if code >= 0 else 0):
        link = &pair[i % 2]
        code = cimfs_links_next(&links, i, &pair[(i + 1) % 2], &error, link)
        if code < 0:
            break
        result.append(entries.StreamEntry(decode(link), extent_at(link).length))
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


class StreamReader(io.RawIOBase):
    """A read-only, seekable binary file over one stream of an image; :meth:`ImageReader.open` makes it.

    It has one position, which its calls move: threads may share it, but which of them gets which bytes is open.
    """

    def __init__(self, cursor):
        super().__init__()
        self._cursor = cursor
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


StreamReader.__module__ = "cimlayer"
