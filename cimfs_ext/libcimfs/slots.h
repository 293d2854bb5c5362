/*
 * A hash table's slots by open addressing: numbers that stand for what is stored elsewhere; 0 is a free slot.
 * Whoever owns the table hashes, compares and, after it has grown, inserts everything again.
 */
#ifndef CIMFS_SLOTS_H
#define CIMFS_SLOTS_H

#include <stdlib.h>

#include "cimfs.h"

struct cimfs_slots {
    uint32_t *at;
    uint32_t bits; /* there are 2 to this power; 0: none */
};

static inline uint64_t cimfs_slots_next(const struct cimfs_slots *slots, uint64_t slot)
{
    return (slot + 1) & (((uint64_t)1 << slots->bits) - 1);
}

/* Is there room for one more than count? */
static inline int cimfs_slots_suffice(const struct cimfs_slots *slots, uint32_t count)
{
    return slots->bits != 0 && count < ((uint64_t)3 << slots->bits) / 4;
}

/* Twice as many slots, or 2 to the power first, all free. */
static inline cimfs_hresult cimfs_slots_grow(struct cimfs_slots *slots, uint32_t first)
{
    uint32_t bits = slots->bits ? slots->bits + 1 : first;
    uint32_t *at = bits < 32 ? calloc((size_t)1 << bits, sizeof *at) : NULL;
    if (!at)
        return CIMFS_E_OUT_OF_MEMORY;
    free(slots->at);
    slots->at = at;
    slots->bits = bits;
    return CIMFS_OK;
}

#endif
