"""Names and bytes of Python as ``hive.h`` takes them; whoever calls keeps the object that is referred to."""

from libc.stdint cimport uint8_t, uint16_t
from cpython.bytes cimport PyBytes_AS_STRING

from cimfs_ext.hive cimport hive_bytes, hive_name

from cimfs_ext.errors import FormatError


cdef extern from "Python.h":
    int PyUnicode_KIND(str text)
    int PyUnicode_1BYTE_KIND


cdef inline hive_bytes view(const uint8_t[::1] data):
    """Where a buffer lies; whoever asks keeps the buffer."""
    cdef hive_bytes found = hive_bytes(NULL, <size_t>data.shape[0])
    if data.shape[0]:
        found.data = &data[0]
    return found


cdef inline hive_bytes view_bytes(bytes data):
    return hive_bytes(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>len(data))


cdef inline bytes encode(str name):
    """A name as hives store it: in Latin-1 if that has all of its characters, else in UTF-16."""
    cdef bytes encoded
    if PyUnicode_KIND(name) == PyUnicode_1BYTE_KIND:
        encoded = name.encode("latin-1")
    else:
        encoded = name.encode("utf-16-le", "surrogatepass")
    if len(encoded) > 0xFFFF:
        raise FormatError("a name is too long", name[:40] + "...")
    return encoded


cdef inline hive_name as_name(str name, bytes encoded):
    return hive_name(<const uint8_t *>PyBytes_AS_STRING(encoded), <uint16_t>len(encoded), len(encoded) == len(name))


cdef inline str decode(const hive_name *name):
    cdef bytes raw = name.bytes[:name.size]
    return raw.decode("latin-1") if name.latin1 else raw.decode("utf-16-le", "surrogatepass")


cdef inline list split(str path):
    """The names in a key's path: backslashes alone separate them, and those at either end are ignored."""
    path = path.strip("\\")
    return path.split("\\") if path else []
