# cython: freethreading_compatible=True
"""Names without regard to case, the way Windows compares them (docs/format.md, "Link table")."""

from libc.stdint cimport uint8_t, uint16_t


cdef extern from "libcimfs/upcase.h" nogil:
    enum:
        CIMFS_UPCASE_UNITS

    void cimfs_upcase_table(uint16_t *table)
    uint16_t cimfs_upcase(uint16_t unit)


def upcase_table() -> bytes:
    """The upper-case forms of the 65,536 UTF-16 code units, two little-endian bytes each, as in $UpCase."""
    cdef bytearray out = bytearray(2 * CIMFS_UPCASE_UNITS)
    cdef uint8_t[::1] view = out
    cdef uint16_t *table = <uint16_t *>&view[0]
    cdef uint16_t unit
    cdef Py_ssize_t i
    with nogil:
        cimfs_upcase_table(table)
        for i in range(CIMFS_UPCASE_UNITS):
            unit = table[i]
            view[2 * i] = <uint8_t>(unit & 0xFF)
            view[2 * i + 1] = <uint8_t>(unit >> 8)
    return bytes(out)


def upcase_key(str name not None) -> bytes:
    """The upcased code units of ``name`` in UTF-16LE: equal for names that Windows takes for the same.

    Lone surrogates pass as they are. The keys do not sort as an image's names do: there the code units count,
    here the bytes.
    """
    cdef bytearray out = bytearray(name.encode("utf-16-le", "surrogatepass"))
    cdef uint8_t[::1] view = out
    cdef Py_ssize_t i
    cdef uint16_t unit
    with nogil:
        for i in range(0, view.shape[0], 2):
            unit = cimfs_upcase(<uint16_t>(view[i] | view[i + 1] << 8))
            view[i] = <uint8_t>(unit & 0xFF)
            view[i + 1] = <uint8_t>(unit >> 8)
    return bytes(out)


cpdef bint is_file_name(str name) except -1:
    """Whether a file of Windows can have this name, of those that a reader lets through: no separator, no NUL."""
    return name != "." and name != ".." and ":" not in name
