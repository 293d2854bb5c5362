# cython: freethreading_compatible=True
"""CRC-32C (Castagnoli) of bytes, as VHDX structures carry it (MS-VHDX, 2.2.2)."""

from libc.stdint cimport uint8_t, uint32_t

# What four bits at the low end of a sum do to the rest of it; the polynomial is 0x1EDC6F41, reflected.
cdef const uint32_t *NIBBLES = [
    0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
    0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
]


def crc32c(data) -> int:
    """The checksum of one contiguous buffer."""
    cdef const uint8_t[::1] view = memoryview(data).cast("B")
    cdef uint32_t crc = 0xFFFFFFFF
    cdef Py_ssize_t at
    with nogil:
        for at in range(view.shape[0]):
            crc ^= view[at]
            crc = NIBBLES[crc & 15] ^ crc >> 4
            crc = NIBBLES[crc & 15] ^ crc >> 4
    return crc ^ 0xFFFFFFFF
