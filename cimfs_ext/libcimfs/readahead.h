/*
 * Small contents read many at a time, for whoever comes to them in about the order in which they lie in their regions.
 */
#ifndef CIMFS_READAHEAD_H
#define CIMFS_READAHEAD_H

#include "reader.h"

enum {
    CIMFS_READAHEAD_SMALL = 64 << 10,  /* bytes of content at most */
    CIMFS_READAHEAD_PIECE = 256 << 10, /* read at a time; stays in the cache of a core */
    CIMFS_READAHEAD_REGIONS = 4        /* a power of two; an image has at most three regions of its own */
};

/* The bytes of a region from one region offset to another. */
struct cimfs_readahead_piece {
    uint64_t start, end;
    uint64_t next; /* where the last content that was asked for ended */
    uint8_t *buffer, *data;
};

/* Zeroed at first. Used by one thread at a time. */
struct cimfs_readahead {
    struct cimfs_readahead_piece pieces[CIMFS_READAHEAD_REGIONS];
};

/* A whole content that was read already, or NULL. It stays until the next read. */
const uint8_t *cimfs_readahead_find(struct cimfs_readahead *ahead, const struct cimfs_extent *stream);
/*
 * Read a content of at most CIMFS_READAHEAD_SMALL bytes that lies as it is (CIMFS_STREAM_DATA, not sparse): with what
 * follows it if it follows what was asked for before, else alone. Errors are those of cimfs_reader_fetch.
 */
cimfs_hresult cimfs_readahead_read(struct cimfs_readahead *ahead, const struct cimfs_reader *reader,
                                   const struct cimfs_extent *stream, struct cimfs_error *error, const uint8_t **data);
void cimfs_readahead_cleanup(struct cimfs_readahead *ahead);

#endif
