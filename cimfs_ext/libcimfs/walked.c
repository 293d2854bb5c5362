#include "walked.h"

#include "error.h"

static uint64_t first_slot(const struct cimfs_walked *walked, const struct cimfs_walked_table *table)
{
    uint64_t what = table->length << 2 | table->kind;
    uint64_t hash = table->offset * (walked->seeds[0] | 1) + what * (walked->seeds[1] | 1);
    return hash >> (64 - walked->slots.bits);
}

static void insert(struct cimfs_walked *walked, uint32_t index)
{
    uint64_t slot = first_slot(walked, &walked->tables[index]);
    while (walked->slots.at[slot])
        slot = cimfs_slots_next(&walked->slots, slot);
    walked->slots.at[slot] = index + 1;
}

static cimfs_hresult grow(struct cimfs_walked *walked)
{
    CIMFS_TRY(cimfs_slots_grow(&walked->slots, 8));
    for (uint32_t i = 0; i < walked->count; i++)
        insert(walked, i);
    uint32_t capacity = (1u << walked->slots.bits) / 4 * 3;
    struct cimfs_walked_table *tables = realloc(walked->tables, capacity * sizeof *tables);
    if (!tables)
        return CIMFS_E_OUT_OF_MEMORY;
    walked->tables = tables;
    walked->capacity = capacity;
    return CIMFS_OK;
}

cimfs_hresult cimfs_walked_meet(struct cimfs_walked *walked, const struct cimfs_walked_table *table, uint32_t *index,
                                int *fresh)
{
    *fresh = 0;
    if (walked->count == walked->capacity)
        CIMFS_TRY(grow(walked));
    const struct cimfs_slots *slots = &walked->slots;
    for (uint64_t slot = first_slot(walked, table); slots->at[slot]; slot = cimfs_slots_next(slots, slot)) {
        *index = slots->at[slot] - 1;
        const struct cimfs_walked_table *known = &walked->tables[*index];
        if (known->offset == table->offset && known->length == table->length && known->kind == table->kind)
            return CIMFS_OK;
    }
    *fresh = 1;
    *index = walked->count++;
    walked->tables[*index] = *table;
    insert(walked, *index);
    return CIMFS_OK;
}

void cimfs_walked_cleanup(struct cimfs_walked *walked)
{
    free(walked->tables);
    free(walked->slots.at);
}
