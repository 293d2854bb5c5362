#include "objects.h"

#include <stdlib.h>

#include "guid.h"

#define SCRATCH (64u << 10) /* bytes compared at a time, twice */

/* Where the bytes of an object to be compared are: in memory, or what a region got last. */
struct source {
    const uint8_t *data; /* NULL: in the region */
    const struct cimfs_region *region;
    uint64_t start;
};

static struct cimfs_region *region_for(struct cimfs_objects *objects, enum cimfs_object_kind kind, uint64_t size)
{
    if (kind == CIMFS_OBJECT_METADATA)
        return &objects->regions[CIMFS_REGION_METADATA];
    return &objects->regions[size < CIMFS_PAGE ? CIMFS_REGION_SMALL : CIMFS_REGION_DATA];
}

static uint32_t alignment_of(const struct cimfs_region *region)
{
    return region->index == CIMFS_REGION_DATA ? CIMFS_PAGE : 8;
}

/* ---- finding equal objects ---- */

static cimfs_hresult read_stored(struct cimfs_objects *objects, uint64_t offset, uint8_t *to, size_t size)
{
    uint32_t index = (uint32_t)(offset >> CIMFS_OFFSET_BITS);
    if (index >= objects->first_region && index - objects->first_region < CIMFS_OWN_REGIONS)
        return cimfs_region_read(&objects->regions[index - objects->first_region], to, size,
                                 offset & CIMFS_OFFSET_MASK);
    return cimfs_reader_fetch(objects->parent, offset, to, size, NULL);
}

/* A candidate that cannot be read is no match: an ID is only a hint. */
static int equal_bytes(struct cimfs_objects *objects, uint64_t offset, uint64_t length, const struct source *source)
{
    uint8_t *stored = objects->scratch;
    uint8_t *fresh = objects->scratch + SCRATCH;
    for (uint64_t done = 0; done < length;) {
        size_t count = length - done < SCRATCH ? (size_t)(length - done) : SCRATCH;
        const uint8_t *mine = source->data ? source->data + done : fresh;
        if (!source->data && cimfs_region_read(source->region, fresh, count, source->start + done) < 0)
            return 0;
        if (read_stored(objects, offset + done, stored, count) < 0 || memcmp(stored, mine, count) != 0)
            return 0;
        done += count;
    }
    return 1;
}

/* What a candidate of the parents is compared with. */
struct comparison {
    struct cimfs_objects *objects;
    const struct source *source;
    uint64_t length;
};

static int same_bytes(void *context, uint64_t offset)
{
    const struct comparison *with = context;
    return equal_bytes(with->objects, offset, with->length, with->source);
}

static uint64_t slot_of(const struct cimfs_objects *objects, const uint8_t hash[CIMFS_HASH_SIZE])
{
    return cimfs_id_slot(objects->spread, hash, objects->slots.bits);
}

static int find_own(struct cimfs_objects *objects, const struct cimfs_object *wanted, const struct source *source,
                    uint64_t region, uint64_t *offset)
{
    const struct cimfs_slots *slots = &objects->slots;
    if (slots->bits == 0)
        return 0;
    for (uint64_t slot = slot_of(objects, wanted->hash); slots->at[slot]; slot = cimfs_slots_next(slots, slot)) {
        const struct cimfs_object *object = &objects->own[slots->at[slot] - 1];
        if (object->length == wanted->length && memcmp(object->hash, wanted->hash, sizeof object->hash) == 0 &&
            object->offset >> CIMFS_OFFSET_BITS == region &&
            equal_bytes(objects, object->offset, object->length, source)) {
            *offset = object->offset;
            return 1;
        }
    }
    return 0;
}

static cimfs_hresult find(struct cimfs_objects *objects, const struct cimfs_object *object,
                          const struct cimfs_region *region, const struct source *source, uint64_t *offset, int *found)
{
    *found = find_own(objects, object, source, (uint64_t)objects->first_region + region->index, offset);
    if (*found)
        return CIMFS_OK;
    struct comparison with = {objects, source, object->length};
    struct cimfs_wanted wanted = {.length = object->length,
                                  .hash = object->hash,
                                  .alignment = alignment_of(region),
                                  .metadata = region->index == CIMFS_REGION_METADATA,
                                  .same_bytes = same_bytes,
                                  .context = &with};
    return cimfs_parent_ids_find(&objects->parent_ids, &wanted, offset, found);
}

/* ---- remembering objects ---- */

static void insert_slot(struct cimfs_objects *objects, uint32_t own)
{
    const struct cimfs_slots *slots = &objects->slots;
    const uint8_t *hash = objects->own[own].hash;
    uint64_t slot = slot_of(objects, hash);
    for (unsigned equal = 0; slots->at[slot]; slot = cimfs_slots_next(slots, slot))
        if (memcmp(objects->own[slots->at[slot] - 1].hash, hash, CIMFS_HASH_SIZE) == 0 &&
            ++equal == CIMFS_MAX_EQUAL_IDS)
            return;
    slots->at[slot] = own + 1;
}

static cimfs_hresult remember(struct cimfs_objects *objects, const struct cimfs_object *object)
{
    if (objects->own_count == objects->own_capacity) {
        uint32_t capacity = objects->own_capacity ? objects->own_capacity + objects->own_capacity / 2 : 512;
        struct cimfs_object *own =
            capacity > objects->own_capacity ? realloc(objects->own, capacity * sizeof *own) : NULL;
        if (!own)
            return CIMFS_E_OUT_OF_MEMORY;
        objects->own = own;
        objects->own_capacity = capacity;
    }
    if (!cimfs_slots_suffice(&objects->slots, objects->own_count)) {
        CIMFS_TRY(cimfs_slots_grow(&objects->slots, 10));
        for (uint32_t i = 0; i < objects->own_count; i++)
            insert_slot(objects, i);
    }
    objects->own[objects->own_count] = *object;
    insert_slot(objects, objects->own_count++);
    return CIMFS_OK;
}

/* ---- storing ---- */

cimfs_hresult cimfs_objects_put(struct cimfs_objects *objects, enum cimfs_object_kind kind, const void *data,
                                size_t size, uint64_t *offset)
{
    struct cimfs_region *region = region_for(objects, kind, size);
    struct cimfs_object object = {.length = size};
    struct source source = {.data = data};
    int found;
    cimfs_hash_of(data, size, object.hash);
    CIMFS_TRY(find(objects, &object, region, &source, offset, &found));
    if (found)
        return CIMFS_OK;
    CIMFS_TRY(cimfs_region_align(region, alignment_of(region)));
    object.offset = cimfs_region_offset(objects->first_region + region->index, cimfs_region_end(region));
    CIMFS_TRY(cimfs_region_append(region, data, size));
    *offset = object.offset;
    return remember(objects, &object);
}

void cimfs_object_begin(struct cimfs_object_writer *writer, struct cimfs_objects *objects, uint64_t size)
{
    writer->objects = objects;
    writer->region = region_for(objects, CIMFS_OBJECT_CONTENT, size);
    writer->size = size;
    writer->written = 0;
    writer->offset = 0;
}

cimfs_hresult cimfs_object_write(struct cimfs_object_writer *writer, const void *data, size_t size)
{
    if (size == 0)
        return CIMFS_OK;
    if (writer->written == 0) {
        if (size == writer->size) {
            CIMFS_TRY(cimfs_objects_put(writer->objects, CIMFS_OBJECT_CONTENT, data, size, &writer->offset));
            writer->written = size;
            return CIMFS_OK;
        }
        writer->before = cimfs_region_end(writer->region);
        CIMFS_TRY(cimfs_region_align(writer->region, alignment_of(writer->region)));
        writer->start = cimfs_region_end(writer->region);
        cimfs_hash_init(&writer->hash);
    }
    cimfs_hash_update(&writer->hash, data, size);
    CIMFS_TRY(cimfs_region_append(writer->region, data, size));
    writer->written += size;
    return CIMFS_OK;
}

void *cimfs_object_room(const struct cimfs_object_writer *writer, uint32_t *size)
{
    uint64_t left = writer->size - writer->written;
    void *room = writer->written > 0 ? cimfs_region_room(writer->region, size) : NULL; /* it is aligned by then */
    if (room && *size > left)
        *size = (uint32_t)left;
    return room;
}

cimfs_hresult cimfs_object_end(struct cimfs_object_writer *writer, uint64_t *offset)
{
    struct cimfs_objects *objects = writer->objects;
    struct cimfs_region *region = writer->region;
    int found;
    *offset = writer->offset;
    if (writer->offset != 0)
        return CIMFS_OK;
    struct cimfs_object object = {
        .length = writer->size,
        .offset = cimfs_region_offset(objects->first_region + region->index, writer->start),
    };
    struct source source = {.region = region, .start = writer->start};
    *offset = object.offset;
    cimfs_hash_final(&writer->hash, object.hash);
    CIMFS_TRY(find(objects, &object, region, &source, offset, &found));
    if (found)
        return cimfs_region_cut(region, writer->before);
    *offset = object.offset;
    return remember(objects, &object);
}

/* The parent's reader opens the regions that are to be extended while they have the length that it knows. */
static cimfs_hresult pin_regions(struct cimfs_objects *objects)
{
    uint64_t size;
    uint8_t type;
    for (uint32_t i = 0; objects->extends && i < CIMFS_OWN_REGIONS; i++)
        CIMFS_TRY(cimfs_reader_region(objects->parent, objects->first_region + i, NULL, &size, &type));
    return CIMFS_OK;
}

/*
 * While the first region file is held, the set is that of a running writer, and none of its files is left over. Whoever
 * collects garbage holds it for a moment, to find that out; if that has removed it, the caller tries again.
 */
static cimfs_hresult hold_set(const struct cimfs_objects *objects)
{
    const struct cimfs_region *first = &objects->regions[0];
    cimfs_hresult result = objects->io->lock(objects->directory, first->name, first->file, CIMFS_LOCK_ALONE_WAITING);
    return result == CIMFS_E_FILE_NOT_FOUND ? CIMFS_E_SHARING_VIOLATION : result;
}

cimfs_hresult cimfs_objects_open(struct cimfs_objects *objects, const struct cimfs_io *io, cimfs_file directory,
                                 const struct cimfs_guid *set, const struct cimfs_reader *parent, int extends, int sync)
{
    *objects = (struct cimfs_objects){
        .io = io, .directory = directory, .set = *set, .extends = extends, .sync = sync, .parent = parent};
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        objects->regions[i].file = CIMFS_NO_FILE;
    if (parent)
        objects->first_region = cimfs_reader_region_count(parent) - (extends ? CIMFS_OWN_REGIONS : 0);
    objects->scratch = malloc((size_t)SCRATCH * 2);
    if (!objects->scratch)
        return CIMFS_E_OUT_OF_MEMORY;
    CIMFS_TRY(io->random(objects->spread, sizeof objects->spread));
    objects->spread[0] |= 1;
    objects->spread[1] |= 1;
    CIMFS_TRY(pin_regions(objects));
    CIMFS_TRY(cimfs_parent_ids_open(&objects->parent_ids, io, directory, parent, objects->spread));
    for (uint16_t i = 0; i < CIMFS_OWN_REGIONS; i++) {
        cimfs_hresult result = extends ? cimfs_region_extend(&objects->regions[i], io, directory, set, i)
                                       : cimfs_region_create(&objects->regions[i], io, directory, set, i);
        objects->created += objects->regions[i].file != CIMFS_NO_FILE;
        objects->regions[i].sync = sync;
        CIMFS_TRY(result);
        if (i == 0)
            CIMFS_TRY(hold_set(objects));
    }
    return CIMFS_OK;
}

void cimfs_objects_write_behind(struct cimfs_objects *objects)
{
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        objects->regions[i].behind = objects->io->workers != NULL;
}

/* Not left by a commit that failed after it had renamed the object ID files. */
static int lies_in_parent(const struct cimfs_objects *objects, uint32_t region, const struct cimfs_object_id *entry)
{
    uint64_t committed = objects->regions[region].committed, offset = get64(entry->offset);
    return offset <= committed && get64(entry->length) <= committed - offset;
}

/* The entries of one region: what the file of an extended image had, then ours. */
static cimfs_hresult collect_ids(struct cimfs_objects *objects, uint32_t region, struct cimfs_object_id **entries,
                                 uint32_t *count)
{
    uint32_t index = objects->first_region + region;
    const struct cimfs_id_table *old = cimfs_parent_ids_table(&objects->parent_ids, index);
    uint64_t total = old ? old->count : 0;
    for (uint32_t i = 0; i < objects->own_count; i++)
        total += objects->own[i].offset >> CIMFS_OFFSET_BITS == index;
    if (total > UINT32_MAX || total > SIZE_MAX / sizeof **entries)
        return CIMFS_E_DISK_FULL;
    *entries = malloc((size_t)total * sizeof **entries + 1);
    if (!*entries)
        return CIMFS_E_OUT_OF_MEMORY;
    struct cimfs_object_id *to = *entries;
    for (uint32_t i = 0; old && i < old->count; i++)
        if (lies_in_parent(objects, region, &old->entries[i]))
            *to++ = old->entries[i];
    for (uint32_t i = 0; i < objects->own_count; i++) {
        const struct cimfs_object *object = &objects->own[i];
        if (object->offset >> CIMFS_OFFSET_BITS != index)
            continue;
        to->length = put64(object->length);
        memcpy(to->prefix, CIMFS_DIGEST_PREFIX, CIMFS_DIGEST_PREFIX_SIZE);
        memcpy(to->hash, object->hash, CIMFS_HASH_SIZE);
        to->offset = put64(object->offset & CIMFS_OFFSET_MASK);
        to++;
    }
    *count = (uint32_t)(to - *entries);
    return CIMFS_OK;
}

static void id_file_names(const struct cimfs_objects *objects, uint32_t region, char name[CIMFS_FILE_NAME],
                          char temporary[CIMFS_FILE_NAME + 4])
{
    cimfs_set_file_name("objectid", &objects->set, region, name);
    memcpy(temporary, name, CIMFS_FILE_NAME);
    memcpy(temporary + strlen(name), ".tmp", 5);
}

static cimfs_hresult write_id_file(struct cimfs_objects *objects, uint32_t region)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    struct cimfs_object_id *entries = NULL;
    uint32_t count;
    id_file_names(objects, region, name, temporary);
    const char *file = objects->extends ? temporary : name;
    objects->io->remove(objects->directory, file); /* left by a crash: the set's region files are new, or ours */
    CIMFS_TRY(collect_ids(objects, region, &entries, &count));
    cimfs_hresult result =
        cimfs_id_file_write(objects->io, objects->directory, file, region, entries, count, objects->sync);
    free(entries);
    return result;
}

cimfs_hresult cimfs_objects_commit(struct cimfs_objects *objects)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        CIMFS_TRY(cimfs_region_flush(&objects->regions[i]));
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS && objects->sync; i++)
        CIMFS_TRY(objects->io->sync(objects->regions[i].file)); /* the first one takes most of the others along */
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        CIMFS_TRY(write_id_file(objects, i));
    cimfs_parent_ids_unmap(&objects->parent_ids);
    for (uint32_t i = 0; objects->extends && i < CIMFS_OWN_REGIONS; i++) {
        id_file_names(objects, i, name, temporary);
        CIMFS_TRY(objects->io->rename(objects->directory, temporary, name));
    }
    return CIMFS_OK;
}

void cimfs_objects_trim(struct cimfs_objects *objects)
{
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        cimfs_region_trim(&objects->regions[i]);
}

void cimfs_objects_abandon(struct cimfs_objects *objects)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    for (uint32_t i = 0; i < objects->created; i++) {
        struct cimfs_region *region = &objects->regions[i];
        cimfs_region_stop(region);
        id_file_names(objects, i, name, temporary);
        if (objects->extends) {
            if (region->committed > 0)
                objects->io->truncate(region->file, region->committed);
            objects->io->remove(objects->directory, temporary);
        } else {
            objects->io->remove(objects->directory, region->name);
            objects->io->remove(objects->directory, name);
        }
    }
}

void cimfs_objects_close(struct cimfs_objects *objects)
{
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        cimfs_region_close(&objects->regions[i]);
    cimfs_parent_ids_close(&objects->parent_ids);
    free(objects->own);
    free(objects->slots.at);
    free(objects->scratch);
    *objects = (struct cimfs_objects){0};
}
