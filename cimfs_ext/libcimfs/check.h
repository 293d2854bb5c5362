/*
 * A check of an image, as its files see it: verify.c follows what the image refers to, verify_objects.c reads it and
 * compares it with the object ID files.
 */
#ifndef CIMFS_CHECK_H
#define CIMFS_CHECK_H

#include <stdatomic.h>

#include "contentcheck.h"
#include "verify.h"
#include "walked.h"

#define CIMFS_CHECK_RECENT 256
#define CIMFS_CHECK_PIECE (256u << 10) /* bytes read and hashed at a time: they stay in the cache */

struct cimfs_check_list {
    struct cimfs_check_extent *items;
    size_t count, capacity;
};

/* A run of the objects that no object of another one overlaps, for one thread to read. */
struct cimfs_check_part {
    size_t first, last; /* of the objects that are referred to; last is not one of them */
    uint64_t objects, bytes, unjudged;
    int sound; /* read without a problem */
};

struct cimfs_check {
    const struct cimfs_io *io;
    const struct cimfs_reader *reader;
    const struct cimfs_verify_events *events;
    struct cimfs_verify_counts *counts;
    struct cimfs_check_list referred;
    struct cimfs_check_list listed;
    struct cimfs_check_extent recent[CIMFS_CHECK_RECENT]; /* which were just referred to, by a hash of the place */
    uint8_t *seen;                                        /* a bit per file ID */
    uint64_t seen_ids;
    uint32_t *stack; /* directories to visit */
    size_t stack_count, stack_capacity;
    struct cimfs_walked walked;
    uint64_t walked_bytes, region_bytes;
    uint8_t *piece; /* CIMFS_CHECK_PIECE bytes, and a page */
    struct cimfs_check_part *parts;
    size_t part_count;
    atomic_size_t next_part;   /* that no thread has taken */
    atomic_uint_fast64_t read; /* bytes, by all threads */
    uint64_t reported;         /* bytes at the last call of progress: they never become fewer */
    atomic_int stopped;
    uint32_t steps;
    struct cimfs_error error;
};

cimfs_hresult cimfs_check_append(struct cimfs_check_list *list, const struct cimfs_check_extent *item);
/* Report what a reader function said, unless it says nothing of the image: that something ran out, or to stop. */
cimfs_hresult cimfs_check_problem(struct cimfs_check *check, cimfs_hresult code, uint64_t offset);
cimfs_hresult cimfs_check_corrupt(struct cimfs_check *check, uint64_t offset, const char *reason);
/* A step in which little or nothing is read. */
cimfs_hresult cimfs_check_step(struct cimfs_check *check);

/* What the object ID files list. */
cimfs_hresult cimfs_check_load_ids(struct cimfs_check *check);
/* Sort what is listed and what is referred to, and divide it into parts. */
cimfs_hresult cimfs_check_divide(struct cimfs_check *check);
/* Read the parts that were not found to be sound, and report all problems in order. */
cimfs_hresult cimfs_check_objects(struct cimfs_check *check);

#endif
