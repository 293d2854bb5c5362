#include "overlay.h"

#include <stdlib.h>

#define CHUNK_WORD_BITS 18 /* 1 MiB chunks */
#define CHUNK_WORDS (1u << CHUNK_WORD_BITS)
#define MAX_CHUNKS (1u << (32 - CHUNK_WORD_BITS))

cimfs_hresult cimfs_overlay_open(struct cimfs_overlay *overlay, const struct cimfs_io *io, const uint16_t *upcase,
                                 struct cimfs_error *error)
{
    *overlay = (struct cimfs_overlay){.upcase = upcase, .error = error};
    return io->random(&overlay->seed, sizeof overlay->seed);
}

void cimfs_overlay_close(struct cimfs_overlay *overlay)
{
    for (uint32_t i = 0; i < overlay->chunk_count; i++)
        free(overlay->chunks[i]);
    free(overlay->chunks);
    free(overlay->slots.at);
    free(overlay->owners);
    free(overlay->owner_slots.at);
    free(overlay->streams);
    *overlay = (struct cimfs_overlay){0};
}

/* ---- the arena ---- */

static struct cimfs_overlay_name *name_at(const struct cimfs_overlay *overlay, uint32_t reference)
{
    uint32_t *chunk = overlay->chunks[reference >> CHUNK_WORD_BITS];
    return (struct cimfs_overlay_name *)(void *)(chunk + (reference & (CHUNK_WORDS - 1)));
}

static cimfs_hresult add_chunk(struct cimfs_overlay *overlay)
{
    if (overlay->chunk_count == overlay->chunk_capacity) {
        uint32_t capacity = overlay->chunk_capacity ? overlay->chunk_capacity * 2 : 8;
        uint32_t **chunks = capacity <= MAX_CHUNKS ? realloc(overlay->chunks, capacity * sizeof *chunks) : NULL;
        if (!chunks)
            return CIMFS_E_OUT_OF_MEMORY;
        overlay->chunks = chunks;
        overlay->chunk_capacity = capacity;
    }
    uint32_t *chunk = malloc(CHUNK_WORDS * sizeof *chunk);
    if (!chunk)
        return CIMFS_E_OUT_OF_MEMORY;
    overlay->chunk_used = overlay->chunk_count == 0; /* reference 0 means none */
    overlay->chunks[overlay->chunk_count++] = chunk;
    return CIMFS_OK;
}

static cimfs_hresult allocate_name(struct cimfs_overlay *overlay, uint32_t length, uint32_t *reference)
{
    uint32_t bytes = (uint32_t)(offsetof(struct cimfs_overlay_name, units) + length * sizeof(uint16_t));
    uint32_t words = (bytes + 3) / 4;
    if (overlay->chunk_count == 0 || overlay->chunk_used + words > CHUNK_WORDS)
        CIMFS_TRY(add_chunk(overlay));
    *reference = (overlay->chunk_count - 1) << CHUNK_WORD_BITS | overlay->chunk_used;
    overlay->chunk_used += words;
    return CIMFS_OK;
}

/* ---- owners ---- */

static uint64_t owner_slot(const struct cimfs_overlay *overlay, uint32_t id, uint32_t kind)
{
    uint64_t key = ((uint64_t)id << 1 | kind) * (overlay->seed | 1);
    return key >> (64 - overlay->owner_slots.bits);
}

struct cimfs_owner *cimfs_overlay_owner(const struct cimfs_overlay *overlay, uint32_t id, enum cimfs_owner_kind kind)
{
    const struct cimfs_slots *slots = &overlay->owner_slots;
    if (slots->bits == 0)
        return NULL;
    for (uint64_t slot = owner_slot(overlay, id, kind); slots->at[slot]; slot = cimfs_slots_next(slots, slot)) {
        struct cimfs_owner *owner = &overlay->owners[slots->at[slot] - 1];
        if (owner->id == id && owner->kind == kind)
            return owner;
    }
    return NULL;
}

static void insert_owner(struct cimfs_overlay *overlay, uint32_t index)
{
    const struct cimfs_slots *slots = &overlay->owner_slots;
    uint64_t slot = owner_slot(overlay, overlay->owners[index].id, overlay->owners[index].kind);
    while (slots->at[slot])
        slot = cimfs_slots_next(slots, slot);
    slots->at[slot] = index + 1;
}

static cimfs_hresult grow_owners(struct cimfs_overlay *overlay)
{
    CIMFS_TRY(cimfs_slots_grow(&overlay->owner_slots, 6));
    for (uint32_t i = 0; i < overlay->owner_count; i++)
        insert_owner(overlay, i);
    uint32_t capacity = (1u << overlay->owner_slots.bits) / 4 * 3;
    struct cimfs_owner *owners = realloc(overlay->owners, capacity * sizeof *owners);
    if (!owners)
        return CIMFS_E_OUT_OF_MEMORY;
    overlay->owners = owners;
    overlay->owner_capacity = capacity;
    return CIMFS_OK;
}

cimfs_hresult cimfs_overlay_change(struct cimfs_overlay *overlay, uint32_t id, enum cimfs_owner_kind kind,
                                   const struct cimfs_links *base, struct cimfs_owner **owner)
{
    *owner = cimfs_overlay_owner(overlay, id, kind);
    if (*owner)
        return CIMFS_OK;
    if (overlay->owner_count == overlay->owner_capacity)
        CIMFS_TRY(grow_owners(overlay));
    *owner = &overlay->owners[overlay->owner_count];
    **owner = (struct cimfs_owner){.id = id, .kind = (uint8_t)kind, .base = *base};
    insert_owner(overlay, overlay->owner_count++);
    return CIMFS_OK;
}

/* ---- names ---- */

static uint64_t name_slot(const struct cimfs_overlay *overlay, uint32_t owner, struct cimfs_name name)
{
    uint64_t seed = overlay->seed ^ (uint64_t)owner * 0x9E3779B97F4A7C15u;
    return cimfs_name_hash(overlay->upcase, name, seed) >> (32 - overlay->slots.bits);
}

struct cimfs_overlay_name *cimfs_overlay_find(const struct cimfs_overlay *overlay, const struct cimfs_owner *owner,
                                              struct cimfs_name name)
{
    const struct cimfs_slots *slots = &overlay->slots;
    if (slots->bits == 0)
        return NULL;
    uint32_t index = (uint32_t)(owner - overlay->owners);
    for (uint64_t slot = name_slot(overlay, index, name); slots->at[slot]; slot = cimfs_slots_next(slots, slot)) {
        struct cimfs_overlay_name *entry = name_at(overlay, slots->at[slot]);
        struct cimfs_name other = {entry->units, entry->length};
        if (entry->owner == index && entry->length == name.length &&
            cimfs_name_compare(overlay->upcase, name, other) == 0)
            return entry;
    }
    return NULL;
}

static void insert_name(struct cimfs_overlay *overlay, uint32_t reference)
{
    const struct cimfs_overlay_name *entry = name_at(overlay, reference);
    struct cimfs_name name = {entry->units, entry->length};
    const struct cimfs_slots *slots = &overlay->slots;
    uint64_t slot = name_slot(overlay, entry->owner, name);
    while (slots->at[slot])
        slot = cimfs_slots_next(slots, slot);
    slots->at[slot] = reference;
}

static cimfs_hresult grow_names(struct cimfs_overlay *overlay)
{
    CIMFS_TRY(cimfs_slots_grow(&overlay->slots, 8));
    for (uint32_t i = 0; i < overlay->owner_count; i++)
        for (uint32_t name = overlay->owners[i].first; name; name = name_at(overlay, name)->next)
            insert_name(overlay, name);
    return CIMFS_OK;
}

cimfs_hresult cimfs_overlay_set(struct cimfs_overlay *overlay, struct cimfs_owner *owner, struct cimfs_name name,
                                uint32_t value)
{
    struct cimfs_overlay_name *entry = cimfs_overlay_find(overlay, owner, name);
    if (entry) {
        if (value)
            memcpy(entry->units, name.units, name.length * sizeof *name.units);
        entry->value = value;
        return CIMFS_OK;
    }
    if (!cimfs_slots_suffice(&overlay->slots, overlay->name_count))
        CIMFS_TRY(grow_names(overlay));
    uint32_t reference;
    CIMFS_TRY(allocate_name(overlay, name.length, &reference));
    entry = name_at(overlay, reference);
    entry->owner = (uint32_t)(owner - overlay->owners);
    entry->next = 0;
    entry->value = value;
    entry->length = (uint16_t)name.length;
    memcpy(entry->units, name.units, name.length * sizeof *name.units);
    if (owner->last)
        name_at(overlay, owner->last)->next = reference;
    else
        owner->first = reference;
    owner->last = reference;
    overlay->name_count++;
    insert_name(overlay, reference);
    return CIMFS_OK;
}

cimfs_hresult cimfs_overlay_stream(struct cimfs_overlay *overlay, struct cimfs_raw_stream stream, uint32_t *value)
{
    if (overlay->stream_count == overlay->stream_capacity) {
        uint32_t capacity = overlay->stream_capacity ? overlay->stream_capacity * 2 : 64;
        struct cimfs_raw_stream *streams =
            capacity > overlay->stream_capacity ? realloc(overlay->streams, capacity * sizeof *streams) : NULL;
        if (!streams)
            return CIMFS_E_OUT_OF_MEMORY;
        overlay->streams = streams;
        overlay->stream_capacity = capacity;
    }
    overlay->streams[overlay->stream_count++] = stream;
    *value = overlay->stream_count;
    return CIMFS_OK;
}

/* ---- storing ---- */

static int in_order(const struct cimfs_overlay *overlay, const struct cimfs_overlay_name *a,
                    const struct cimfs_overlay_name *b)
{
    return cimfs_name_compare(overlay->upcase, (struct cimfs_name){a->units, a->length},
                              (struct cimfs_name){b->units, b->length}) <= 0;
}

/* Merge sort, since the comparison needs the upcase table and the library has no globals. */
static void sort_names(const struct cimfs_overlay *overlay, struct cimfs_overlay_name **names, uint32_t count,
                       struct cimfs_overlay_name **spare)
{
    if (count < 2)
        return;
    uint32_t half = count / 2;
    sort_names(overlay, names, half, spare);
    sort_names(overlay, names + half, count - half, spare);
    if (in_order(overlay, names[half - 1], names[half]))
        return;
    memcpy(spare, names, half * sizeof *names);
    uint32_t left = 0, right = half, to = 0;
    while (left < half)
        names[to++] = right < count && !in_order(overlay, spare[left], names[right]) ? names[right++] : spare[left++];
}

static cimfs_hresult sorted_names(struct cimfs_overlay *overlay, const struct cimfs_owner *owner,
                                  struct cimfs_overlay_name ***names, uint32_t *count)
{
    uint32_t total = 0;
    for (uint32_t name = owner->first; name; name = name_at(overlay, name)->next)
        total++;
    *names = malloc(((size_t)total + total / 2 + 1) * sizeof **names);
    if (!*names)
        return CIMFS_E_OUT_OF_MEMORY;
    *count = 0;
    for (uint32_t name = owner->first; name; name = name_at(overlay, name)->next)
        (*names)[(*count)++] = name_at(overlay, name);
    sort_names(overlay, *names, total, *names + total);
    return CIMFS_OK;
}

/* Walks the merged table: a name of the overlay hides the same name of the base. */
struct merge {
    const struct cimfs_overlay *overlay;
    const struct cimfs_owner *owner;
    struct cimfs_overlay_name **names;
    uint32_t name_count, name_next;
    uint32_t base_next;
    int base_loaded;
    struct cimfs_link base;
    /* what next found */
    struct cimfs_name name;
    uint8_t value[sizeof(struct cimfs_raw_stream)];
};

/* Bring the next base entry into merge->base, checking that the table is in order. */
static cimfs_hresult load_base(struct merge *merge)
{
    const struct cimfs_links *links = &merge->owner->base;
    if (merge->base_loaded || merge->base_next >= links->count)
        return CIMFS_OK;
    struct cimfs_link before = merge->base;
    CIMFS_TRY(cimfs_links_next(links, merge->base_next, &before, merge->overlay->error, &merge->base));
    merge->base_loaded = 1;
    return CIMFS_OK;
}

static void take_overlay(struct merge *merge, const struct cimfs_overlay_name *entry)
{
    merge->name = (struct cimfs_name){entry->units, entry->length};
    if (merge->owner->kind == CIMFS_OWNER_CHILDREN) {
        le32 id = put32(entry->value);
        memcpy(merge->value, &id, sizeof id);
    } else {
        memcpy(merge->value, &merge->overlay->streams[entry->value - 1], sizeof merge->value);
    }
}

static cimfs_hresult next_merged(struct merge *merge, int *more)
{
    const struct cimfs_links *links = &merge->owner->base;
    *more = 1;
    for (;;) {
        CIMFS_TRY(load_base(merge));
        struct cimfs_overlay_name *entry = merge->name_next < merge->name_count ? merge->names[merge->name_next] : NULL;
        if (!entry && !merge->base_loaded) {
            *more = 0;
            return CIMFS_OK;
        }
        struct cimfs_name base = {merge->base.units, merge->base.length};
        int order = !entry                ? 1
                    : !merge->base_loaded ? -1
                                          : cimfs_name_compare(merge->overlay->upcase,
                                                               (struct cimfs_name){entry->units, entry->length}, base);
        if (order >= 0) {
            merge->base_loaded = 0;
            merge->base_next++;
        }
        if (order > 0) {
            merge->name = base;
            memcpy(merge->value, merge->base.value, links->value_size);
            return CIMFS_OK;
        }
        merge->name_next++;
        if (entry->value) {
            take_overlay(merge, entry);
            return CIMFS_OK;
        }
    }
}

static cimfs_hresult measure(struct merge merge, uint32_t *count, uint64_t *size)
{
    int more;
    *count = 0;
    *size = sizeof(struct cimfs_link_table);
    for (;;) {
        CIMFS_TRY(next_merged(&merge, &more));
        if (!more)
            return *size > UINT32_MAX ? CIMFS_E_DISK_FULL : CIMFS_OK;
        *size += merge.owner->base.value_size + sizeof(le32) + sizeof(le16) + merge.name.length * sizeof(le16);
        (*count)++;
    }
}

static cimfs_hresult changed(const struct merge *merge)
{
    const struct cimfs_links *base = &merge->owner->base;
    return cimfs_reader_corrupt(base->reader, base->offset, "a link table changed while it was read",
                                merge->overlay->error);
}

/* The base lies in a mapped file, which others may write: what was measured may hold no longer. */
static cimfs_hresult fill(struct merge merge, uint8_t *table, uint32_t count, uint32_t size)
{
    uint32_t value_size = merge.owner->base.value_size;
    uint32_t values = sizeof(struct cimfs_link_table);
    uint32_t offsets = values + count * value_size;
    uint32_t names = offsets + count * (uint32_t)sizeof(le32);
    struct cimfs_link_table header = {.length = put32(size), .count = put32(count)};
    memcpy(table, &header, sizeof header);
    for (uint32_t i = 0;; i++) {
        int more;
        CIMFS_TRY(next_merged(&merge, &more));
        if (!more)
            return i == count && names == size ? CIMFS_OK : changed(&merge);
        le32 at = put32(names);
        le16 length = put16((uint16_t)merge.name.length);
        if (i == count || size - names < sizeof length + merge.name.length * sizeof(le16))
            return changed(&merge);
        memcpy(table + values + (size_t)i * value_size, merge.value, value_size);
        memcpy(table + offsets + (size_t)i * sizeof at, &at, sizeof at);
        memcpy(table + names, &length, sizeof length);
        names += (uint32_t)sizeof length;
        for (uint32_t u = 0; u < merge.name.length; u++, names += (uint32_t)sizeof(le16)) {
            le16 unit = put16(merge.name.units[u]);
            memcpy(table + names, &unit, sizeof unit);
        }
    }
}

static cimfs_hresult store(const struct merge *merge, struct cimfs_objects *objects, uint64_t *offset, uint32_t *length)
{
    uint32_t count;
    uint64_t size;
    CIMFS_TRY(measure(*merge, &count, &size));
    if (count == 0)
        return CIMFS_OK;
    uint8_t *table = malloc((size_t)size);
    if (!table)
        return CIMFS_E_OUT_OF_MEMORY;
    cimfs_hresult result = fill(*merge, table, count, (uint32_t)size);
    if (result == CIMFS_OK)
        result = cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, table, (size_t)size, offset);
    free(table);
    if (result == CIMFS_OK)
        *length = (uint32_t)size;
    return result;
}

cimfs_hresult cimfs_overlay_store(struct cimfs_overlay *overlay, struct cimfs_owner *owner,
                                  struct cimfs_objects *objects, uint64_t *offset, uint32_t *length)
{
    struct merge merge = {.overlay = overlay, .owner = owner};
    *offset = 0;
    *length = 0;
    CIMFS_TRY(sorted_names(overlay, owner, &merge.names, &merge.name_count));
    cimfs_hresult result = store(&merge, objects, offset, length);
    free(merge.names);
    return result;
}
