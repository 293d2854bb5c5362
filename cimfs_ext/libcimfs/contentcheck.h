/*
 * The content of files against its content IDs, while it is read from its beginning to its end.
 *
 * Object ID files are only looked at for that. What they do not list, as in images from Windows, is not judged.
 */
#ifndef CIMFS_CONTENTCHECK_H
#define CIMFS_CONTENTCHECK_H

#include "contentid.h"
#include "reader.h"

/* An object that an object ID file lists, or one that an image refers to. */
struct cimfs_check_extent {
    uint64_t offset; /* region offset */
    uint64_t length;
    uint8_t hash[CIMFS_HASH_SIZE]; /* of listed ones */
};

/* Those of a region that have an ID of ours, by place. */
struct cimfs_listed {
    size_t count;
    struct cimfs_check_extent items[];
};

/* For bsearch. */
int cimfs_by_place(const void *a, const void *b);
/* In linear time, as long as few have the same offset and different lengths. */
cimfs_hresult cimfs_sort_by_place(struct cimfs_check_extent *items, size_t count);

/* How far a stream was read; zeroed at first. */
struct cimfs_content_check {
    uint64_t position;
    int known; /* has it an ID that can be compared? */
    uint8_t id[CIMFS_HASH_SIZE];
    struct cimfs_hash hash;
};

/*
 * cimfs_reader_read, which fails with FILE_CORRUPT at the end of a stream that was read piece after piece from its
 * beginning and does not match its content ID. Reads at other positions may come in between. One call at a time on a
 * check.
 */
cimfs_hresult cimfs_reader_read_checked(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                        struct cimfs_content_check *check, uint64_t position, void *data, size_t size,
                                        struct cimfs_error *error, size_t *got);
/* The same check of a whole stream that was read at once. */
cimfs_hresult cimfs_reader_check_whole(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                       const void *data, struct cimfs_error *error);

#endif
