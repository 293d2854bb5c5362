/*
 * The tables of an image that were walked, so that each is walked once. Files of a sound image share some; those of a
 * hostile one may all share one.
 */
#ifndef CIMFS_WALKED_H
#define CIMFS_WALKED_H

#include "slots.h"

enum cimfs_table_kind { CIMFS_TABLE_CHILDREN, CIMFS_TABLE_STREAMS, CIMFS_TABLE_PE_MAPPINGS };

struct cimfs_walked_table {
    uint64_t offset;
    uint64_t length; /* of PE mappings: the stream's */
    enum cimfs_table_kind kind;
    uint32_t found; /* by whoever walked it: alternate streams; whether there are directories */
};

struct cimfs_walked {
    struct cimfs_walked_table *tables;
    uint32_t count, capacity;
    struct cimfs_slots slots;
    uint64_t seeds[2]; /* random: keeps attackers from making tables that collide */
};

/* Where it stands in tables; fresh: it was not among them. */
cimfs_hresult cimfs_walked_meet(struct cimfs_walked *walked, const struct cimfs_walked_table *table, uint32_t *index,
                                int *fresh);
void cimfs_walked_cleanup(struct cimfs_walked *walked);

#endif
