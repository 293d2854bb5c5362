/*
 * Link tables that change: for each owner (the children of a directory, the streams of a file) the names that
 * were added, replaced or deleted, over the table that the parent image has. One hash table finds any name of
 * any owner; an owner's names also form a list in the order they came.
 */
#ifndef CIMFS_OVERLAY_H
#define CIMFS_OVERLAY_H

#include "objects.h"

enum cimfs_owner_kind { CIMFS_OWNER_CHILDREN, CIMFS_OWNER_STREAMS };

struct cimfs_owner {
    uint32_t id;          /* file ID */
    uint32_t first, last; /* names, as arena references; 0: none */
    uint8_t kind;
    uint8_t dead;            /* a directory that lost its name: its table is stored no more */
    struct cimfs_links base; /* empty for what is new */
};

/* A name in the arena. */
struct cimfs_overlay_name {
    uint32_t owner; /* index */
    uint32_t next;
    uint32_t value; /* 0: deleted; a file ID, or 1 + index into streams */
    uint16_t length;
    uint16_t units[]; /* as last written; replaced in place, since upcasing keeps the length */
};

struct cimfs_overlay {
    const uint16_t *upcase;
    uint64_t seed;
    struct cimfs_error *error;

    uint32_t **chunks; /* the arena, in words; a reference is chunk and word */
    uint32_t chunk_count, chunk_capacity, chunk_used;

    struct cimfs_slots slots; /* names: arena references */
    uint32_t name_count;

    struct cimfs_owner *owners;
    uint32_t owner_count, owner_capacity;
    struct cimfs_slots owner_slots; /* 1 + index */

    struct cimfs_raw_stream *streams;
    uint32_t stream_count, stream_capacity;
};

cimfs_hresult cimfs_overlay_open(struct cimfs_overlay *overlay, const struct cimfs_io *io, const uint16_t *upcase,
                                 struct cimfs_error *error);
void cimfs_overlay_close(struct cimfs_overlay *overlay);

/* The owner of a changed table, or NULL. */
struct cimfs_owner *cimfs_overlay_owner(const struct cimfs_overlay *overlay, uint32_t id, enum cimfs_owner_kind kind);
/* The same, made if it is not there; base is its table in the parent. */
cimfs_hresult cimfs_overlay_change(struct cimfs_overlay *overlay, uint32_t id, enum cimfs_owner_kind kind,
                                   const struct cimfs_links *base, struct cimfs_owner **owner);

/* The entry of a name in the overlay alone, or NULL. */
struct cimfs_overlay_name *cimfs_overlay_find(const struct cimfs_overlay *overlay, const struct cimfs_owner *owner,
                                              struct cimfs_name name);
/* Set or, with value 0, delete a name. */
cimfs_hresult cimfs_overlay_set(struct cimfs_overlay *overlay, struct cimfs_owner *owner, struct cimfs_name name,
                                uint32_t value);
/* Remember a stream field; value is what set takes. */
cimfs_hresult cimfs_overlay_stream(struct cimfs_overlay *overlay, struct cimfs_raw_stream stream, uint32_t *value);

/* Merge an owner's names with its base table and store the result; offset and length are 0 if it is empty. */
cimfs_hresult cimfs_overlay_store(struct cimfs_overlay *overlay, struct cimfs_owner *owner,
                                  struct cimfs_objects *objects, uint64_t *offset, uint32_t *length);

#endif
