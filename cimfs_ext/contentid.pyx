"""XXH3-128 of bytes: the content IDs of objects (docs/format.md, "Choices")."""

from libc.stdint cimport uint8_t

from cimfs_ext.guard cimport check_idle


cdef extern from "libcimfs/contentid.h" nogil:
    enum:
        CIMFS_DIGEST_SIZE

    struct cimfs_hash:
        pass

    void cimfs_hash_init(cimfs_hash *hash)
    void cimfs_hash_update(cimfs_hash *hash, const void *data, size_t size)
    void cimfs_hash_final(const cimfs_hash *hash, uint8_t *digest)
    void cimfs_hash_of(const void *data, size_t size, uint8_t *digest)


cdef class ContentHash:
    """The XXH3-128 digest (seed 0) of bytes that come in pieces.

    One call at a time: while one is under way, in whatever thread, every other one raises RuntimeError.
    """

    cdef cimfs_hash _hash
    cdef int busy  # whether an update is under way

    def __cinit__(self):
        cimfs_hash_init(&self._hash)

    def update(self, data) -> None:
        """Take the next bytes: any contiguous buffer, of any length."""
        cdef const uint8_t[::1] view = memoryview(data).cast("B")
        cdef size_t size = <size_t>view.shape[0]
        check_idle(self.busy, "ContentHash", "hash")
        self.busy += 1
        if size:
            with nogil:
                cimfs_hash_update(&self._hash, &view[0], size)
        self.busy -= 1

    def digest(self) -> bytes:
        """The digest of all bytes so far: 16 bytes, big-endian. More may follow."""
        cdef uint8_t digest[CIMFS_DIGEST_SIZE]
        check_idle(self.busy, "ContentHash", "hash")
        cimfs_hash_final(&self._hash, digest)
        return digest[:CIMFS_DIGEST_SIZE]


def content_id(data) -> bytes:
    """The XXH3-128 digest (seed 0) of one contiguous buffer: 16 bytes, big-endian."""
    cdef const uint8_t[::1] view = memoryview(data).cast("B")
    cdef size_t size = <size_t>view.shape[0]
    cdef uint8_t digest[CIMFS_DIGEST_SIZE]
    cdef const uint8_t *start = &view[0] if size else NULL
    with nogil:
        cimfs_hash_of(start, size, digest)
    return digest[:CIMFS_DIGEST_SIZE]
