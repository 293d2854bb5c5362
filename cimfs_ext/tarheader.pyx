# cython: freethreading_compatible=True, cdivision=True
"""Headers of a tar with their PAX records (POSIX, "pax Interchange Format"), the same from every version of Python.

The bytes are those of :mod:`tarfile` in Python 3.11.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from cimfs_ext.liblayer cimport (
    LAYER_TAR_AROUND,
    LAYER_TAR_BLOCK,
    LAYER_TAR_NAME,
    layer_tar_begin_record,
    layer_tar_end_records,
    layer_tar_header,
    layer_tar_write_header,
)


cdef bytes records_of(dict records, str errors):
    cdef list encoded = [(key.encode("utf-8", errors), value.encode("utf-8", errors))
                         for key, value in records.items()]
    cdef size_t most = sum([len(key) + len(value) + LAYER_TAR_AROUND for key, value in encoded])
    cdef bytes data = PyBytes_FromStringAndSize(NULL, LAYER_TAR_BLOCK + most + LAYER_TAR_BLOCK)
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(data)
    cdef uint8_t *at = start + LAYER_TAR_BLOCK
    cdef bytes keyword, text
    for keyword, text in encoded:
        at = layer_tar_begin_record(keyword, len(keyword), len(text), at)
        memcpy(at, <const char *>text, len(text))
        at += len(text) + 1
    return data[:layer_tar_end_records(start, at) - start]


def tar_header(info):
    """The header of a file, directory or link that belongs to nobody, with a block of records if it needs any.

    ``info`` is a :class:`tarfile.TarInfo`. Half a surrogate pair from "surrogateescape" is the byte that it stands for;
    UnicodeEncodeError for another one.
    """
    cdef layer_tar_header header
    cdef bytes name, link, data, before = b""
    cdef str path = info.name
    cdef dict records = dict(info.pax_headers)
    cdef dict numbers = {"size": info.size, "mtime": int(info.mtime)}
    if info.type == b"5" and not path.endswith("/"):
        path += "/"
    for keyword, text in (("path", path), ("linkpath", info.linkname)):
        if (not text.isascii() or len(text) > LAYER_TAR_NAME) and keyword not in records:
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
    data = PyBytes_FromStringAndSize(NULL, LAYER_TAR_BLOCK)
    layer_tar_write_header(&header, <uint8_t *>PyBytes_AS_STRING(data))
    return before + data
