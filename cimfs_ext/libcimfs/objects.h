/*
 * The objects of an image that is being written: stored once each, wherever the same bytes lie already in
 * the image or in one of its parents.
 *
 * An object's content ID finds candidates: in a table of what this image stored, and in the object ID files
 * of the parents. The bytes themselves are compared before an object is shared.
 */
#ifndef CIMFS_OBJECTS_H
#define CIMFS_OBJECTS_H

#include "objectid.h"
#include "region.h"
#include "slots.h"

/* An object that this image stored. */
struct cimfs_object {
    uint64_t length;
    uint64_t offset; /* region offset */
    uint8_t hash[CIMFS_HASH_SIZE];
};

struct cimfs_objects {
    const struct cimfs_io *io;
    cimfs_file directory;
    struct cimfs_guid set;
    int extends;                       /* the region files belong to a committed image too */
    int sync;                          /* a commit waits for the disk */
    uint32_t first_region;             /* index of our region 0 in the image's list */
    const struct cimfs_reader *parent; /* NULL: a new image */
    struct cimfs_region regions[CIMFS_OWN_REGIONS];
    uint32_t created; /* how many region files there are to clean up */

    struct cimfs_object *own;
    uint32_t own_count, own_capacity;
    struct cimfs_slots slots; /* 1 + index into own */
    struct cimfs_parent_ids parent_ids;
    uint64_t spread[2]; /* random and odd, for both halves of a hash: nobody can choose what collides in a table */
    uint8_t *scratch;
};

enum cimfs_object_kind { CIMFS_OBJECT_METADATA, CIMFS_OBJECT_CONTENT };

/* An object whose bytes come piece by piece. Only one at a time. */
struct cimfs_object_writer {
    struct cimfs_objects *objects;
    struct cimfs_region *region;
    uint64_t size;   /* as announced */
    uint64_t before; /* end of the region before the object and its padding */
    uint64_t start;
    uint64_t written;
    uint64_t offset; /* set when the object was stored in one piece */
    struct cimfs_hash hash;
};

/*
 * Open or make the region files of set; a commit waits for the disk if sync. On failure the caller still calls abandon
 * and close.
 */
cimfs_hresult cimfs_objects_open(struct cimfs_objects *objects, const struct cimfs_io *io, cimfs_file directory,
                                 const struct cimfs_guid *set, const struct cimfs_reader *parent, int extends,
                                 int sync);
/* From now on, threads write the regions that grow large. */
void cimfs_objects_write_behind(struct cimfs_objects *objects);
/* Write out everything but the .cim: regions, object ID files. */
cimfs_hresult cimfs_objects_commit(struct cimfs_objects *objects);
/* After a commit, when nothing of the regions is mapped any more. */
void cimfs_objects_trim(struct cimfs_objects *objects);
/* Undo what open and the writing did to the directory. */
void cimfs_objects_abandon(struct cimfs_objects *objects);
void cimfs_objects_close(struct cimfs_objects *objects);

/* Store one object whose bytes are at hand; size is at least 1. */
cimfs_hresult cimfs_objects_put(struct cimfs_objects *objects, enum cimfs_object_kind kind, const void *data,
                                size_t size, uint64_t *offset);

/* Store content piece by piece. end fills up with zeros; after it offset is that of the object. */
void cimfs_object_begin(struct cimfs_object_writer *writer, struct cimfs_objects *objects, uint64_t size);
/* stream_room of cimfs.h. */
void *cimfs_object_room(const struct cimfs_object_writer *writer, uint32_t *size);
cimfs_hresult cimfs_object_write(struct cimfs_object_writer *writer, const void *data, size_t size);
cimfs_hresult cimfs_object_end(struct cimfs_object_writer *writer, uint64_t *offset);

#endif
