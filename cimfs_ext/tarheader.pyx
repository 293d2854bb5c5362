# cython: freethreading_compatible=True, cdivision=True
"""Headers of a tar with their PAX records (POSIX, "pax Interchange Format"), the same from every version of Python.

The bytes are those of :mod:`tarfile` in Python 3.11.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cimfs_ext.filetimes cimport DECIMAL, write_decimal


cdef enum:  # where the fields of a header stand
    MODE = 100
    UID = 108
    GID = 116
    SIZE = 124
    MTIME = 136
    CHECKSUM = 148
    KIND = 156
    LINK = 157
    MAGIC = 257

cdef void write_octal(uint64_t number, int digits, uint8_t *to) noexcept nogil:
    while digits:
        digits -= 1
        to[digits] = <uint8_t>(c"0" + (number & 7))
        number >>= 3


cdef uint8_t *write_block(const Header *header, uint8_t *to) noexcept nogil:
    """The header of what belongs to nobody, without its records; returns the end of it."""
    cdef uint32_t checksum = 0
    cdef int i
    memset(to, 0, BLOCK)
    memcpy(to, header.name, min(header.name_length, <size_t>MOST_NAME))
    write_octal(header.mode, 7, to + MODE)
    write_octal(0, 7, to + UID)
    write_octal(0, 7, to + GID)
    write_octal(header.size if fits(header.size) else 0, 11, to + SIZE)
    write_octal(header.mtime if fits(header.mtime) else 0, 11, to + MTIME)
    memset(to + CHECKSUM, c" ", 8)
    to[KIND] = header.kind
    memcpy(to + LINK, header.link, min(header.link_length, <size_t>MOST_NAME))
    memcpy(to + MAGIC, b"ustar\x0000", 8)
    for i in range(BLOCK):  # in vectors
        checksum += to[i]
    write_octal(checksum, 6, to + CHECKSUM)
    to[CHECKSUM + 6] = 0
    return to + BLOCK


cdef uint8_t *begin_record(const char *keyword, size_t keyword_length, size_t length, uint8_t *to) noexcept nogil:
    """All of a record but its text of ``length`` bytes; returns where that belongs. The next one begins a byte behind.

    The length that a record begins with is its own, that of these digits too.
    """
    cdef uint8_t[DECIMAL] digits
    cdef size_t rest = keyword_length + length + 3  # a space, = and a newline
    cdef size_t count = write_decimal(rest + write_decimal(rest, digits), digits)
    count = write_decimal(rest + count, digits)  # which may have made it longer by one
    memcpy(to, digits, count)
    to += count
    to[0] = c" "
    memcpy(to + 1, keyword, keyword_length)
    to += 1 + keyword_length
    to[0] = c"="
    to[1 + length] = c"\n"
    return to + 1


cdef uint8_t *end_records(uint8_t *start, uint8_t *end) noexcept nogil:
    """Announce the records, for whose header there is room at ``start``, and pad them; returns the end of that."""
    cdef size_t size = end - start - BLOCK
    cdef size_t padding = -size % BLOCK
    cdef Header header
    header.kind, header.mode, header.size, header.mtime = c"x", 0, size, 0
    header.name = header.link = b"././@PaxHeader"
    header.name_length, header.link_length = 14, 0
    write_block(&header, start)
    memset(end, 0, padding)
    return end + padding


cdef bytes records_of(dict records, str errors):
    cdef list encoded = [(key.encode("utf-8", errors), value.encode("utf-8", errors))
                         for key, value in records.items()]
    cdef size_t most = sum([len(key) + len(value) + MOST_AROUND for key, value in encoded])
    cdef bytes data = PyBytes_FromStringAndSize(NULL, BLOCK + most + BLOCK)
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(data)
    cdef uint8_t *at = start + BLOCK
    cdef bytes keyword, text
    for keyword, text in encoded:
        at = begin_record(keyword, len(keyword), len(text), at)
        memcpy(at, <const char *>text, len(text))
        at += len(text) + 1
    return data[:end_records(start, at) - start]


def tar_header(info):
    """The header of a file, directory or link that belongs to nobody, with a block of records if it needs any.

    ``info`` is a :class:`tarfile.TarInfo`. Half a surrogate pair from "surrogateescape" is the byte that it stands for;
    UnicodeEncodeError for another one.
    """
    cdef Header header
    cdef bytes name, link, data, before = b""
    cdef str path = info.name
    cdef dict records = dict(info.pax_headers)
    cdef dict numbers = {"size": info.size, "mtime": int(info.mtime)}
    if info.type == b"5" and not path.endswith("/"):
        path += "/"
    for keyword, text in (("path", path), ("linkpath", info.linkname)):
        if (not text.isascii() or len(text) > MOST_NAME) and keyword not in records:
            records[keyword] = text
    for keyword, number in numbers.items():
        if not 0 <= number < 8**11:
            records.setdefault(keyword, str(number))
            numbers[keyword] = 0
    if records:
        try:
            before = records_of(records, "strict")
        except UnicodeEncodeError:
            before = records_of({"hdrcharset": "BINARY", **records}, "surrogateescape")
    name, link = path.encode("ascii", "replace"), info.linkname.encode("ascii", "replace")
    header.kind, header.mode = ord(info.type), info.mode & 0o7777
    header.size, header.mtime = numbers["size"], numbers["mtime"]
    header.name, header.name_length = name, len(name)
    header.link, header.link_length = link, len(link)
    data = PyBytes_FromStringAndSize(NULL, BLOCK)
    write_block(&header, <uint8_t *>PyBytes_AS_STRING(data))
    return before + data
