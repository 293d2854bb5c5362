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

/*
 * The same with many threads: begin, which follows all references; then share in each of them; end when all have
 * returned. What is found is the same for any number of threads, none too: end does all that is left.
 */
struct cimfs_check;
cimfs_hresult cimfs_verify_begin(const struct cimfs_io *io, const struct cimfs_reader *reader,
                                 const struct cimfs_verify_events *events, struct cimfs_verify_counts *counts,
                                 struct cimfs_error *error, struct cimfs_check **check);
/* How many threads can share the work. */
size_t cimfs_verify_parts(const struct cimfs_check *check);
/* Read and compare objects until none is left. progress: this thread calls the event, which only one may. */
void cimfs_verify_share(struct cimfs_check *check, int progress);
/* Call the event progress, in that thread; E_FAIL if that or stop ended the check. */
cimfs_hresult cimfs_verify_progress(struct cimfs_check *check);
/* Soon, all threads return from share, and end fails. */
void cimfs_verify_stop(struct cimfs_check *check);
cimfs_hresult cimfs_verify_end(struct cimfs_check *check, struct cimfs_error *error);
void cimfs_verify_close(struct cimfs_check *check);

#endif
