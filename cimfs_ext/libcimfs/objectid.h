/*
 * Object ID files: those of an image's parents, where objects with the same content are looked for, and the ones
 * that an image writes about its own regions.
 *
 * An ID is only a hint, so whoever looks for an object compares the bytes. A file that is missing or damaged costs
 * sharing and nothing else: the image itself is whole without it.
 */
#ifndef CIMFS_OBJECTID_H
#define CIMFS_OBJECTID_H

#include "contentid.h"
#include "reader.h"

#define CIMFS_MAX_EQUAL_IDS 8 /* objects with one ID that are looked at: more can only be made on purpose */

/* An object ID file of a parent, mapped. Ours are sorted by digest; others are only ever indexed. */
struct cimfs_id_table {
    const uint8_t *map;
    uint64_t map_size;
    const struct cimfs_object_id *entries;
    uint32_t count;
    uint32_t region; /* index in the image's list of regions */
    uint8_t type;    /* CIMFS_REGION_*, as it says itself */
};

/* The object ID files of all parents. */
struct cimfs_parent_ids {
    const struct cimfs_io *io;
    const struct cimfs_reader *parent; /* NULL: there is none */
    uint64_t spread[2];
    struct cimfs_id_table *tables;
    uint32_t table_count;
    uint64_t entry_count; /* in all tables */
    uint64_t search_cost; /* spent on searching tables one by one */
    uint64_t *index;      /* once searching has cost as much as this: table << 32 | entry, plus 1 */
    uint32_t index_bits;
};

/* What is looked for. */
struct cimfs_wanted {
    uint64_t length;
    const uint8_t *hash;
    uint32_t alignment;
    int metadata;                                      /* belongs into a metadata region; otherwise, into another */
    int (*same_bytes)(void *context, uint64_t offset); /* do the wanted bytes stand at a region offset? */
    void *context;
};

/* Where in a table of 2 to the power bits a hash belongs; spread is random and odd, so nobody can choose collisions. */
static inline uint64_t cimfs_id_slot(const uint64_t spread[2], const uint8_t hash[CIMFS_HASH_SIZE], uint32_t bits)
{
    uint64_t half[2];
    memcpy(half, hash, sizeof half);
    return (half[0] * spread[0] + half[1] * spread[1]) >> (64 - bits);
}

static inline int cimfs_id_is_ours(const struct cimfs_object_id *id)
{
    return memcmp(id->prefix, CIMFS_DIGEST_PREFIX, CIMFS_DIGEST_PREFIX_SIZE) == 0;
}

/* Into a zeroed table, whose map the caller takes down; one that is missing or damaged has no entries. */
cimfs_hresult cimfs_id_table_open(const struct cimfs_io *io, cimfs_file directory, const char *name,
                                  struct cimfs_id_table *table);

/* On failure the caller still calls close. */
cimfs_hresult cimfs_parent_ids_open(struct cimfs_parent_ids *ids, const struct cimfs_io *io, cimfs_file directory,
                                    const struct cimfs_reader *parent, const uint64_t spread[2]);
cimfs_hresult cimfs_parent_ids_find(struct cimfs_parent_ids *ids, const struct cimfs_wanted *wanted, uint64_t *offset,
                                    int *found);
/* The table about one region, or NULL. */
const struct cimfs_id_table *cimfs_parent_ids_table(const struct cimfs_parent_ids *ids, uint32_t region);
/* No table is used any more: Windows replaces no file that is mapped. */
void cimfs_parent_ids_unmap(struct cimfs_parent_ids *ids);
void cimfs_parent_ids_close(struct cimfs_parent_ids *ids);

/* Sort the entries and write the file about an image's region; wait for the disk if sync. */
cimfs_hresult cimfs_id_file_write(const struct cimfs_io *io, cimfs_file directory, const char *name, uint32_t region,
                                  struct cimfs_object_id *entries, uint32_t count, int sync);

#endif
