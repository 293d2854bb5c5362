/*
 * Check everything that an image holds: every table, every object inside its region, every object's bytes
 * against its content ID where the ID is ours.
 */
#ifndef CIMFS_VERIFY_H
#define CIMFS_VERIFY_H

#include "reader.h"

struct cimfs_verify_counts {
    uint64_t files; /* without directories; a file with several names counts once */
    uint64_t directories;
    uint64_t streams; /* alternate ones */
    uint64_t objects;
    uint64_t bytes;    /* read and hashed */
    uint64_t unjudged; /* objects without an ID of ours */
    uint64_t problems;
};

/* Both return nonzero to stop the check. */
struct cimfs_verify_events {
    void *context;
    /* offset is the region offset of the object at fault, 0 if there is none. */
    int (*problem)(void *context, uint64_t offset, const struct cimfs_error *error);
    int (*progress)(void *context, const struct cimfs_verify_counts *counts);
};

/*
 * OK however many problems were found, the last of which may be that the image was removed meanwhile; a failure only if
 * the check itself could not go on, for want of memory or descriptors, or was stopped (E_FAIL).
 */
cimfs_hresult cimfs_verify(const struct cimfs_io *io, const struct cimfs_reader *reader,
                           const struct cimfs_verify_events *events, struct cimfs_verify_counts *counts,
                           struct cimfs_error *error);

#endif
