/*
 * Content IDs: XXH3-128 (XXH128) with seed 0 and the default secret, of a whole buffer or of a stream.
 *
 * Source of the facts: "xxHash fast digest algorithm", sections on XXH3; docs/format.md, "Choices".
 * The hash is no proof of equality: whoever finds two equal digests compares the bytes.
 */
#ifndef CIMFS_CONTENTID_H
#define CIMFS_CONTENTID_H

#include <stddef.h>
#include <stdint.h>

enum {
    CIMFS_DIGEST_SIZE = 16,
    CIMFS_HASH_BUFFER = 256, /* whole stripes, and room for the 240 bytes that have a formula of their own */
};

/* A stream being hashed. A plain value: it may be copied, and there is nothing to free. */
struct cimfs_hash {
    uint64_t acc[8];
    uint64_t total;    /* bytes given so far */
    uint32_t buffered; /* bytes at the start of `buffer` that are not in `acc` yet */
    uint32_t stripe;   /* stripes of the current block that are in `acc` */
    uint8_t buffer[CIMFS_HASH_BUFFER];
};

void cimfs_hash_init(struct cimfs_hash *hash);

/* Takes `size` bytes (`data` may be NULL when it is 0). Large pieces are hashed where they lie. */
void cimfs_hash_update(struct cimfs_hash *hash, const void *data, size_t size);

/* Stores the digest of all bytes so far in canonical (big-endian) form; the stream may go on. */
void cimfs_hash_final(const struct cimfs_hash *hash, uint8_t digest[CIMFS_DIGEST_SIZE]);

/* The digest of one buffer. */
void cimfs_hash_of(const void *data, size_t size, uint8_t digest[CIMFS_DIGEST_SIZE]);

#endif
