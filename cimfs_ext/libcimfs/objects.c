#include "objects.h"

#include <stdlib.h>

#include "guid.h"

#define SCRATCH (64u << 10) /* bytes compared at a time, twice */
#define MAX_ZEROS (1u << 30) /* hashed at the end of an object; with more it gets no ID, or a size could cost hours */
#define MAX_EQUAL_IDS 8      /* objects with one ID that are remembered: more can only be made on purpose */

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

static uint64_t slot_of(const struct cimfs_objects *objects, const uint8_t hash[CIMFS_HASH_SIZE], uint32_t bits)
{
    uint64_t half[2];
    memcpy(half, hash, sizeof half);
    return (half[0] * objects->spread[0] + half[1] * objects->spread[1]) >> (64 - bits);
}

static int find_own(struct cimfs_objects *objects, const struct cimfs_object *wanted, const struct source *source,
                    uint64_t region, uint64_t *offset)
{
    if (objects->slot_bits == 0)
        return 0;
    uint64_t mask = ((uint64_t)1 << objects->slot_bits) - 1;
    uint64_t slot = slot_of(objects, wanted->hash, objects->slot_bits);
    for (; objects->slots[slot]; slot = (slot + 1) & mask) {
        const struct cimfs_object *object = &objects->own[objects->slots[slot] - 1];
        if (object->length == wanted->length && memcmp(object->hash, wanted->hash, sizeof object->hash) == 0 &&
            object->offset >> CIMFS_OFFSET_BITS == region &&
            equal_bytes(objects, object->offset, object->length, source)) {
            *offset = object->offset;
            return 1;
        }
    }
    return 0;
}

static int is_ours(const struct cimfs_object_id *entry)
{
    return memcmp(entry->prefix, CIMFS_DIGEST_PREFIX, CIMFS_DIGEST_PREFIX_SIZE) == 0;
}

/* Does entry stand for the wanted object, in a region where such an object belongs? */
static int matches(struct cimfs_objects *objects, const struct cimfs_id_table *table, uint32_t entry,
                   const struct cimfs_object *wanted, uint32_t alignment, int metadata, const struct source *source,
                   uint64_t *offset)
{
    const struct cimfs_object_id *id = &table->entries[entry];
    uint64_t within = get64(id->offset), size;
    uint8_t type;
    if (get64(id->length) != wanted->length || !is_ours(id) || memcmp(id->hash, wanted->hash, sizeof id->hash) != 0)
        return 0;
    if ((within & (alignment - 1)) != 0 ||
        cimfs_reader_region(objects->parent, table->region, NULL, &size, &type) < 0 ||
        (type == CIMFS_REGION_METADATA) != metadata)
        return 0;
    /* Beyond what the parent has there may lie the very object that is looked for, not kept yet. */
    if (within > size || wanted->length > size - within)
        return 0;
    *offset = cimfs_region_offset(table->region, within);
    return equal_bytes(objects, *offset, wanted->length, source);
}

/* The first entry of a sorted table whose hash is not less. */
static uint32_t lower_bound(const struct cimfs_id_table *table, const uint8_t hash[CIMFS_HASH_SIZE])
{
    uint32_t low = 0, high = table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (memcmp(table->entries[middle].hash, hash, CIMFS_HASH_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void index_entry(struct cimfs_objects *objects, uint32_t table, uint32_t entry)
{
    const uint8_t *hash = objects->tables[table].entries[entry].hash;
    uint64_t mask = ((uint64_t)1 << objects->index_bits) - 1;
    uint64_t slot = slot_of(objects, hash, objects->index_bits);
    for (unsigned equal = 0; objects->index[slot]; slot = (slot + 1) & mask) {
        uint64_t other = objects->index[slot] - 1;
        const struct cimfs_object_id *id = &objects->tables[other >> 32].entries[(uint32_t)other];
        if (memcmp(id->hash, hash, CIMFS_HASH_SIZE) == 0 && ++equal == MAX_EQUAL_IDS)
            return;
    }
    objects->index[slot] = ((uint64_t)table << 32 | entry) + 1;
}

/* One hash table over the IDs of all parents, so that the time for an object does not grow with their number. */
static cimfs_hresult build_index(struct cimfs_objects *objects)
{
    uint32_t bits = 4;
    while ((uint64_t)1 << bits < objects->entry_count * 2)
        bits++;
    objects->index = calloc((size_t)1 << bits, sizeof *objects->index);
    if (!objects->index)
        return CIMFS_E_OUT_OF_MEMORY;
    objects->index_bits = bits;
    for (uint32_t t = 0; t < objects->table_count; t++)
        for (uint32_t i = 0; i < objects->tables[t].count; i++)
            if (is_ours(&objects->tables[t].entries[i]))
                index_entry(objects, t, i);
    return CIMFS_OK;
}

static int find_indexed(struct cimfs_objects *objects, const struct cimfs_object *wanted, uint32_t alignment,
                        int metadata, const struct source *source, uint64_t *offset)
{
    uint64_t mask = ((uint64_t)1 << objects->index_bits) - 1;
    uint64_t slot = slot_of(objects, wanted->hash, objects->index_bits);
    for (; objects->index[slot]; slot = (slot + 1) & mask) {
        uint64_t value = objects->index[slot] - 1;
        if (matches(objects, &objects->tables[value >> 32], (uint32_t)value, wanted, alignment, metadata, source,
                    offset))
            return 1;
    }
    return 0;
}

static cimfs_hresult find_in_parents(struct cimfs_objects *objects, const struct cimfs_object *wanted,
                                     uint32_t alignment, int metadata, const struct source *source,
                                     uint64_t *offset, int *found)
{
    enum { PROBES = 16 }; /* of one binary search, about */
    *found = 0;
    if (objects->entry_count == 0)
        return CIMFS_OK;
    if (!objects->index && objects->search_cost >= objects->entry_count)
        CIMFS_TRY(build_index(objects));
    if (objects->index) {
        *found = find_indexed(objects, wanted, alignment, metadata, source, offset);
        return CIMFS_OK;
    }
    objects->search_cost += (uint64_t)objects->table_count * PROBES;
    for (uint32_t t = 0; t < objects->table_count && !*found; t++) {
        const struct cimfs_id_table *table = &objects->tables[t];
        uint32_t first = lower_bound(table, wanted->hash);
        for (uint32_t i = first; i < table->count && i - first < MAX_EQUAL_IDS && !*found; i++)
            *found = matches(objects, table, i, wanted, alignment, metadata, source, offset);
    }
    return CIMFS_OK;
}

static cimfs_hresult find(struct cimfs_objects *objects, const struct cimfs_object *wanted,
                          const struct cimfs_region *region, const struct source *source, uint64_t *offset,
                          int *found)
{
    *found = find_own(objects, wanted, source, (uint64_t)objects->first_region + region->index, offset);
    if (*found)
        return CIMFS_OK;
    return find_in_parents(objects, wanted, alignment_of(region), region->index == CIMFS_REGION_METADATA, source,
                           offset, found);
}

/* ---- remembering objects ---- */

static void insert_slot(struct cimfs_objects *objects, uint32_t own)
{
    const uint8_t *hash = objects->own[own].hash;
    uint64_t mask = ((uint64_t)1 << objects->slot_bits) - 1;
    uint64_t slot = slot_of(objects, hash, objects->slot_bits);
    for (unsigned equal = 0; objects->slots[slot]; slot = (slot + 1) & mask)
        if (memcmp(objects->own[objects->slots[slot] - 1].hash, hash, CIMFS_HASH_SIZE) == 0 &&
            ++equal == MAX_EQUAL_IDS)
            return;
    objects->slots[slot] = own + 1;
}

static cimfs_hresult grow_slots(struct cimfs_objects *objects)
{
    uint32_t bits = objects->slot_bits ? objects->slot_bits + 1 : 10;
    uint32_t *slots = bits < 32 ? calloc((size_t)1 << bits, sizeof *slots) : NULL;
    if (!slots)
        return CIMFS_E_OUT_OF_MEMORY;
    free(objects->slots);
    objects->slots = slots;
    objects->slot_bits = bits;
    for (uint32_t i = 0; i < objects->own_count; i++)
        insert_slot(objects, i);
    return CIMFS_OK;
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
    if (objects->slot_bits == 0 || objects->own_count >= ((uint64_t)3 << objects->slot_bits) / 4)
        CIMFS_TRY(grow_slots(objects));
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

/* What was announced and never written reads as zeros. */
static cimfs_hresult fill_up(struct cimfs_object_writer *writer)
{
    static const uint8_t zeros[CIMFS_PAGE];
    uint64_t missing = writer->size - writer->written;
    for (uint64_t left = missing <= MAX_ZEROS ? missing : 0; left > 0;) {
        size_t count = left < sizeof zeros ? (size_t)left : sizeof zeros;
        cimfs_hash_update(&writer->hash, zeros, count);
        left -= count;
    }
    return cimfs_region_append_zeros(writer->region, missing);
}

cimfs_hresult cimfs_object_end(struct cimfs_object_writer *writer, uint64_t *offset)
{
    struct cimfs_objects *objects = writer->objects;
    struct cimfs_region *region = writer->region;
    int found;
    *offset = writer->offset;
    if (writer->offset != 0)
        return CIMFS_OK;
    CIMFS_TRY(fill_up(writer));
    struct cimfs_object object = {
        .length = writer->size,
        .offset = cimfs_region_offset(objects->first_region + region->index, writer->start),
    };
    struct source source = {.region = region, .start = writer->start};
    *offset = object.offset;
    if (writer->size - writer->written > MAX_ZEROS)
        return CIMFS_OK;
    cimfs_hash_final(&writer->hash, object.hash);
    CIMFS_TRY(find(objects, &object, region, &source, offset, &found));
    if (found)
        return cimfs_region_cut(region, writer->before);
    *offset = object.offset;
    return remember(objects, &object);
}

/* ---- the object ID files ---- */

static cimfs_hresult map_table(struct cimfs_objects *objects, cimfs_file file, struct cimfs_id_table *table)
{
    const struct cimfs_io *io = objects->io;
    struct cimfs_object_id_header header;
    CIMFS_TRY(io->size(file, &table->map_size));
    if (table->map_size < sizeof header || table->map_size > SIZE_MAX)
        return CIMFS_E_FILE_CORRUPT;
    CIMFS_TRY(io->map(file, (size_t)table->map_size, &table->map));
    memcpy(&header, table->map, sizeof header);
    uint64_t offset = get32(header.table_offset);
    uint64_t count = get32(header.count);
    if (memcmp(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic) != 0 ||
        header.common.file_type != CIMFS_FILE_OBJECT_ID || offset > table->map_size ||
        count > (table->map_size - offset) / sizeof(struct cimfs_object_id))
        return CIMFS_E_FILE_CORRUPT;
    table->entries = (const struct cimfs_object_id *)(const void *)(table->map + offset);
    table->count = (uint32_t)count;
    return CIMFS_OK;
}

/* A sample tells a sorted table; where it errs, sharing is missed and nothing else. */
static int looks_sorted(const struct cimfs_id_table *table)
{
    enum { SAMPLES = 64 };
    const struct cimfs_object_id *last = NULL;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint32_t at = (uint32_t)((uint64_t)i * table->count / SAMPLES);
        if (at >= table->count)
            break;
        const struct cimfs_object_id *entry = &table->entries[at];
        if (!is_ours(entry) || (last && memcmp(last->hash, entry->hash, CIMFS_HASH_SIZE) > 0))
            return 0;
        last = entry;
    }
    return 1;
}

/* An object ID file that is missing or damaged costs sharing; the image itself is whole without it. */
static cimfs_hresult open_table(struct cimfs_objects *objects, const struct cimfs_set *set, uint32_t region)
{
    struct cimfs_id_table *table = &objects->tables[objects->table_count];
    char name[CIMFS_FILE_NAME];
    cimfs_file file;
    cimfs_set_file_name("objectid", &set->id, region, name);
    *table = (struct cimfs_id_table){.region = set->first + region};
    cimfs_hresult result = objects->io->open(objects->directory, name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND || result == CIMFS_E_FILE_CORRUPT)
        return CIMFS_OK;
    CIMFS_TRY(result);
    objects->table_count++;
    result = map_table(objects, file, table);
    objects->io->close(file);
    if (result != CIMFS_E_FILE_CORRUPT)
        CIMFS_TRY(result);
    table->sorted = looks_sorted(table);
    objects->entry_count += table->count;
    if (!table->sorted)
        objects->search_cost = UINT64_MAX; /* only the index finds anything in it */
    return CIMFS_OK;
}

static cimfs_hresult open_tables(struct cimfs_objects *objects)
{
    uint32_t set_count;
    if (!objects->parent)
        return CIMFS_OK;
    const struct cimfs_set *sets = cimfs_reader_sets(objects->parent, &set_count);
    objects->tables = calloc(cimfs_reader_region_count(objects->parent), sizeof *objects->tables);
    if (!objects->tables)
        return CIMFS_E_OUT_OF_MEMORY;
    for (uint32_t s = 0; s < set_count; s++)
        for (uint32_t region = 0; region < sets[s].count; region++)
            CIMFS_TRY(open_table(objects, &sets[s], region));
    return CIMFS_OK;
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

cimfs_hresult cimfs_objects_open(struct cimfs_objects *objects, const struct cimfs_io *io, cimfs_file directory,
                                 const struct cimfs_guid *set, const struct cimfs_reader *parent, int extends)
{
    *objects = (struct cimfs_objects){.io = io, .directory = directory, .set = *set, .extends = extends,
                                      .parent = parent};
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
    CIMFS_TRY(open_tables(objects));
    for (uint16_t i = 0; i < CIMFS_OWN_REGIONS; i++) {
        cimfs_hresult result = extends ? cimfs_region_extend(&objects->regions[i], io, directory, set, i)
                                       : cimfs_region_create(&objects->regions[i], io, directory, set, i);
        objects->created += objects->regions[i].file != CIMFS_NO_FILE;
        CIMFS_TRY(result);
    }
    return CIMFS_OK;
}

static int by_hash(const void *a, const void *b)
{
    const struct cimfs_object_id *left = a, *right = b;
    int order = memcmp(left->prefix, right->prefix, sizeof left->prefix + sizeof left->hash);
    /* Equal IDs are rare; their order must still be the same in every run. */
    return order ? order : memcmp(left->offset.b, right->offset.b, sizeof left->offset);
}

/* Not left by a commit that failed after it had renamed the object ID files. */
static int lies_in_parent(const struct cimfs_objects *objects, uint32_t region, const struct cimfs_object_id *entry)
{
    uint64_t committed = objects->regions[region].committed, offset = get64(entry->offset);
    return offset <= committed && get64(entry->length) <= committed - offset;
}

/* The entries of one region: what the file of an extended image had, then ours, all sorted by digest. */
static cimfs_hresult collect_ids(struct cimfs_objects *objects, uint32_t region, struct cimfs_object_id **entries,
                                 uint32_t *count)
{
    const struct cimfs_id_table *old = NULL;
    uint32_t index = objects->first_region + region;
    uint64_t total = 0;
    for (uint32_t t = 0; objects->extends && t < objects->table_count; t++)
        if (objects->tables[t].region == index)
            old = &objects->tables[t];
    total += old ? old->count : 0;
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
    qsort(*entries, *count, sizeof **entries, by_hash);
    return CIMFS_OK;
}

static void id_file_names(const struct cimfs_objects *objects, uint32_t region, char name[CIMFS_FILE_NAME],
                          char temporary[CIMFS_FILE_NAME + 4])
{
    cimfs_set_file_name("objectid", &objects->set, region, name);
    memcpy(temporary, name, CIMFS_FILE_NAME);
    memcpy(temporary + strlen(name), ".tmp", 5);
}

static cimfs_hresult fill_id_file(struct cimfs_objects *objects, cimfs_file file, uint32_t region, int sync)
{
    struct cimfs_object_id *entries = NULL;
    uint32_t count = 0;
    struct cimfs_object_id_header header = {.index = put16((uint16_t)region), .type = (uint8_t)region};
    cimfs_hresult result = collect_ids(objects, region, &entries, &count);
    memcpy(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic);
    header.common.header_length = put32(sizeof header);
    header.common.file_type = CIMFS_FILE_OBJECT_ID;
    header.common.version_major = put32(CIMFS_VERSION_MAJOR);
    header.table_offset = put32(sizeof header);
    header.count = put32(count);
    if (result == CIMFS_OK)
        result = objects->io->write(file, &header, sizeof header, 0);
    if (result == CIMFS_OK)
        result = objects->io->write(file, entries, count * sizeof *entries, sizeof header);
    if (result == CIMFS_OK && sync)
        result = objects->io->sync(file);
    free(entries);
    return result;
}

static cimfs_hresult write_id_file(struct cimfs_objects *objects, uint32_t region, int sync)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    const struct cimfs_io *io = objects->io;
    cimfs_file file;
    id_file_names(objects, region, name, temporary);
    if (objects->extends)
        io->remove(objects->directory, temporary); /* left by a crash */
    CIMFS_TRY(io->open(objects->directory, objects->extends ? temporary : name, CIMFS_OPEN_CREATE, &file));
    cimfs_hresult result = fill_id_file(objects, file, region, sync);
    io->close(file);
    return result;
}

static void unmap_tables(struct cimfs_objects *objects)
{
    for (uint32_t t = 0; t < objects->table_count; t++) {
        if (objects->tables[t].map)
            objects->io->unmap(objects->tables[t].map, (size_t)objects->tables[t].map_size);
        objects->tables[t].map = NULL;
    }
}

cimfs_hresult cimfs_objects_commit(struct cimfs_objects *objects, int sync)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++) {
        CIMFS_TRY(cimfs_region_flush(&objects->regions[i]));
        if (sync)
            CIMFS_TRY(objects->io->sync(objects->regions[i].file));
    }
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        CIMFS_TRY(write_id_file(objects, i, sync));
    unmap_tables(objects); /* Windows replaces no file that is mapped */
    for (uint32_t i = 0; objects->extends && i < CIMFS_OWN_REGIONS; i++) {
        id_file_names(objects, i, name, temporary);
        CIMFS_TRY(objects->io->rename(objects->directory, temporary, name));
    }
    return CIMFS_OK;
}

void cimfs_objects_abandon(struct cimfs_objects *objects)
{
    char name[CIMFS_FILE_NAME], temporary[CIMFS_FILE_NAME + 4];
    for (uint32_t i = 0; i < objects->created; i++) {
        struct cimfs_region *region = &objects->regions[i];
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
    unmap_tables(objects);
    free(objects->tables);
    free(objects->own);
    free(objects->slots);
    free(objects->index);
    free(objects->scratch);
    *objects = (struct cimfs_objects){0};
}
