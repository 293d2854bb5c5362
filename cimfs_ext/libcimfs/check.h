/*
 * A check of an image, as its files see it: verify.c follows what the image refers to, verify_objects.c reads it and
 * compares it with the object ID files.
 */
#ifndef CIMFS_CHECK_H
#define CIMFS_CHECK_H

#include "contentcheck.h"
#include "verify.h"
#include "walked.h"

#define CIMFS_CHECK_PIECE (256u << 10) /* bytes read and hashed at a time: they stay in the cache */

struct cimfs_check_list {
    struct cimfs_check_extent *items;
    size_t count, capacity;
};

struct cimfs_check {
    const struct cimfs_io *io;
    const struct cimfs_reader *reader;
    const struct cimfs_verify_events *events;
    struct cimfs_verify_counts *counts;
    struct cimfs_check_list referred;
    struct cimfs_check_list listed;
    uint8_t *seen; /* a bit per file ID */
    uint64_t seen_ids;
    uint32_t *stack; /* directories to visit */
    size_t stack_count, stack_capacity;
    struct cimfs_walked walked;
    uint64_t walked_bytes, region_bytes;
    uint8_t *piece; /* CIMFS_CHECK_PIECE bytes, and a page */
    struct {
        uint64_t offset; /* in its region */
        size_t size;
        const uint8_t *data;
    } window;          /* what the piece has of a region */
    uint64_t reported; /* bytes at the last call of progress */
    uint32_t steps;
    struct cimfs_error error;
};

cimfs_hresult cimfs_check_append(struct cimfs_check_list *list, const struct cimfs_check_extent *item);
/* Report what a reader function said, unless it says nothing of the image: that something ran out, or to stop. */
cimfs_hresult cimfs_check_problem(struct cimfs_check *check, cimfs_hresult code, uint64_t offset);
cimfs_hresult cimfs_check_corrupt(struct cimfs_check *check, uint64_t offset, const char *reason);
/* A step in which little or nothing is read; the caller of verify may want to stop. */
cimfs_hresult cimfs_check_step(struct cimfs_check *check);

/* What the object ID files list, and then each object that the image refers to against it. */
cimfs_hresult cimfs_check_load_ids(struct cimfs_check *check);
cimfs_hresult cimfs_check_objects(struct cimfs_check *check);

#endif
