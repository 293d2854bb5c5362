#include "objectid.h"

#include <stdlib.h>

#include "guid.h"

/* ---- opening ---- */

static cimfs_hresult map_table(const struct cimfs_io *io, cimfs_file file, struct cimfs_id_table *table)
{
    struct cimfs_object_id_header header;
    CIMFS_TRY(io->size(file, &table->map_size));
    if (table->map_size < sizeof header || table->map_size > SIZE_MAX)
        return CIMFS_E_FILE_CORRUPT;
    CIMFS_TRY(io->map(file, (size_t)table->map_size, &table->map));
    const uint8_t *data = table->map;
    if (io->view)
        CIMFS_TRY(io->view(table->map, 0, (size_t)table->map_size, &data));
    memcpy(&header, data, sizeof header);
    uint64_t offset = get32(header.table_offset);
    uint64_t count = get32(header.count);
    if (memcmp(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic) != 0 ||
        header.common.file_type != CIMFS_FILE_OBJECT_ID || offset > table->map_size ||
        count > (table->map_size - offset) / sizeof(struct cimfs_object_id))
        return CIMFS_E_FILE_CORRUPT;
    table->entries = (const struct cimfs_object_id *)(const void *)(data + offset);
    table->count = (uint32_t)count;
    table->type = header.type;
    return CIMFS_OK;
}

/*
 * A sample tells a sorted table; where it errs, sharing is missed and nothing else. Neighbours, so that few pages are
 * touched of a table that is large.
 */
static int looks_sorted(const struct cimfs_id_table *table)
{
    enum { PLACES = 4, NEIGHBOURS = 16 };
    const struct cimfs_object_id *last = NULL;
    uint32_t apart = table->count / PLACES > NEIGHBOURS ? table->count / PLACES : NEIGHBOURS;
    for (uint32_t i = 0; i < PLACES * NEIGHBOURS; i++) {
        uint64_t at = (uint64_t)(i / NEIGHBOURS) * apart + i % NEIGHBOURS;
        if (at >= table->count)
            break;
        const struct cimfs_object_id *entry = &table->entries[at];
        if (!cimfs_id_is_ours(entry) || (last && memcmp(last->hash, entry->hash, CIMFS_HASH_SIZE) > 0))
            return 0;
        last = entry;
    }
    return 1;
}

cimfs_hresult cimfs_id_table_open(const struct cimfs_io *io, cimfs_file directory, const char *name,
                                  struct cimfs_id_table *table)
{
    cimfs_file file;
    cimfs_hresult result = io->open(directory, name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND || cimfs_is_no_plain_file(result))
        return CIMFS_OK;
    CIMFS_TRY(result);
    result = map_table(io, file, table);
    io->close(file);
    return result == CIMFS_E_FILE_CORRUPT ? CIMFS_OK : result;
}

static cimfs_hresult open_table(struct cimfs_parent_ids *ids, cimfs_file directory, const struct cimfs_set *set,
                                uint32_t region)
{
    struct cimfs_id_table *table = &ids->tables[ids->table_count];
    char name[CIMFS_FILE_NAME];
    cimfs_set_file_name("objectid", &set->id, region, name);
    *table = (struct cimfs_id_table){.region = set->first + region};
    cimfs_hresult result = cimfs_id_table_open(ids->io, directory, name, table);
    ids->table_count += table->map != NULL;
    CIMFS_TRY(result);
    ids->entry_count += table->count;
    if (table->count > 0 && !looks_sorted(table))
        ids->search_cost = UINT64_MAX; /* only the index finds anything in it */
    return CIMFS_OK;
}

cimfs_hresult cimfs_parent_ids_open(struct cimfs_parent_ids *ids, const struct cimfs_io *io, cimfs_file directory,
                                    const struct cimfs_reader *parent, const uint64_t spread[2])
{
    uint32_t set_count;
    *ids = (struct cimfs_parent_ids){.io = io, .parent = parent, .spread = {spread[0], spread[1]}};
    if (!parent)
        return CIMFS_OK;
    const struct cimfs_set *sets = cimfs_reader_sets(parent, &set_count);
    ids->tables = calloc(cimfs_reader_region_count(parent), sizeof *ids->tables);
    if (!ids->tables)
        return CIMFS_E_OUT_OF_MEMORY;
    for (uint32_t s = 0; s < set_count; s++)
        for (uint32_t region = 0; region < sets[s].count; region++)
            CIMFS_TRY(open_table(ids, directory, &sets[s], region));
    return CIMFS_OK;
}

void cimfs_parent_ids_unmap(struct cimfs_parent_ids *ids)
{
    for (uint32_t t = 0; t < ids->table_count; t++)
        if (ids->tables[t].map)
            ids->io->unmap(ids->tables[t].map, (size_t)ids->tables[t].map_size);
    ids->table_count = 0;
}

void cimfs_parent_ids_close(struct cimfs_parent_ids *ids)
{
    cimfs_parent_ids_unmap(ids);
    free(ids->tables);
    free(ids->index);
    *ids = (struct cimfs_parent_ids){0};
}

const struct cimfs_id_table *cimfs_parent_ids_table(const struct cimfs_parent_ids *ids, uint32_t region)
{
    for (uint32_t t = 0; t < ids->table_count; t++)
        if (ids->tables[t].region == region)
            return &ids->tables[t];
    return NULL;
}

/* ---- finding ---- */

/* Does entry stand for the wanted object, in a region where such an object belongs? */
static int matches(const struct cimfs_parent_ids *ids, const struct cimfs_id_table *table, uint32_t entry,
                   const struct cimfs_wanted *wanted, uint64_t *offset)
{
    const struct cimfs_object_id *id = &table->entries[entry];
    uint64_t within = get64(id->offset), size;
    uint8_t type;
    if (get64(id->length) != wanted->length || !cimfs_id_is_ours(id) ||
        memcmp(id->hash, wanted->hash, sizeof id->hash) != 0)
        return 0;
    if ((within & (wanted->alignment - 1)) != 0 ||
        cimfs_reader_region(ids->parent, table->region, NULL, &size, &type) < 0 ||
        (type == CIMFS_REGION_METADATA) != wanted->metadata)
        return 0;
    /* Beyond what the parent has there may lie the very object that is looked for, not kept yet. */
    if (within > size || wanted->length > size - within)
        return 0;
    *offset = cimfs_region_offset(table->region, within);
    return wanted->same_bytes(wanted->context, *offset);
}

static int is_less(const struct cimfs_id_table *table, uint32_t entry, const uint8_t hash[CIMFS_HASH_SIZE])
{
    return memcmp(table->entries[entry].hash, hash, CIMFS_HASH_SIZE) < 0;
}

/*
 * The first entry of a sorted table whose hash is not less. Hashes are spread evenly, so it lies near where it would
 * be if they were so exactly: a search from there touches a page or two, one from the middle several.
 */
static uint32_t lower_bound(const struct cimfs_id_table *table, const uint8_t hash[CIMFS_HASH_SIZE])
{
    uint32_t low = 0, high = table->count, step = 512;
    uint64_t part = (uint64_t)hash[0] << 24 | (uint64_t)hash[1] << 16 | (uint64_t)hash[2] << 8 | hash[3];
    uint32_t guess = (uint32_t)(part * high >> 32);
    if (high > 0 && is_less(table, guess, hash)) {
        low = guess + 1;
        for (; step < high - low && is_less(table, low + step, hash); step *= 2)
            low += step + 1;
        if (step < high - low)
            high = low + step;
    } else if (high > 0) {
        high = guess;
        for (; step < high && !is_less(table, high - step - 1, hash); step *= 2)
            high -= step + 1;
        if (step < high)
            low = high - step;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_less(table, middle, hash))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void index_entry(struct cimfs_parent_ids *ids, uint32_t table, uint32_t entry)
{
    const uint8_t *hash = ids->tables[table].entries[entry].hash;
    uint64_t mask = ((uint64_t)1 << ids->index_bits) - 1;
    uint64_t slot = cimfs_id_slot(ids->spread, hash, ids->index_bits);
    for (unsigned equal = 0; ids->index[slot]; slot = (slot + 1) & mask) {
        uint64_t other = ids->index[slot] - 1;
        const struct cimfs_object_id *id = &ids->tables[other >> 32].entries[(uint32_t)other];
        if (memcmp(id->hash, hash, CIMFS_HASH_SIZE) == 0 && ++equal == CIMFS_MAX_EQUAL_IDS)
            return;
    }
    ids->index[slot] = ((uint64_t)table << 32 | entry) + 1;
}

/* One hash table over the IDs of all parents, so that the time for an object does not grow with their number. */
static cimfs_hresult build_index(struct cimfs_parent_ids *ids)
{
    uint32_t bits = 4;
    while ((uint64_t)1 << bits < ids->entry_count * 2)
        bits++;
    ids->index = calloc((size_t)1 << bits, sizeof *ids->index);
    if (!ids->index)
        return CIMFS_E_OUT_OF_MEMORY;
    ids->index_bits = bits;
    for (uint32_t t = 0; t < ids->table_count; t++)
        for (uint32_t i = 0; i < ids->tables[t].count; i++)
            if (cimfs_id_is_ours(&ids->tables[t].entries[i]))
                index_entry(ids, t, i);
    return CIMFS_OK;
}

static int find_indexed(const struct cimfs_parent_ids *ids, const struct cimfs_wanted *wanted, uint64_t *offset)
{
    uint64_t mask = ((uint64_t)1 << ids->index_bits) - 1;
    uint64_t slot = cimfs_id_slot(ids->spread, wanted->hash, ids->index_bits);
    for (; ids->index[slot]; slot = (slot + 1) & mask) {
        uint64_t value = ids->index[slot] - 1;
        if (matches(ids, &ids->tables[value >> 32], (uint32_t)value, wanted, offset))
            return 1;
    }
    return 0;
}

cimfs_hresult cimfs_parent_ids_find(struct cimfs_parent_ids *ids, const struct cimfs_wanted *wanted, uint64_t *offset,
                                    int *found)
{
    enum { PROBES = 16 }; /* of one binary search, about */
    *found = 0;
    if (ids->entry_count == 0)
        return CIMFS_OK;
    if (!ids->index && ids->search_cost >= ids->entry_count)
        CIMFS_TRY(build_index(ids));
    if (ids->index) {
        *found = find_indexed(ids, wanted, offset);
        return CIMFS_OK;
    }
    ids->search_cost += (uint64_t)ids->table_count * PROBES;
    for (uint32_t t = 0; t < ids->table_count && !*found; t++) {
        const struct cimfs_id_table *table = &ids->tables[t];
        if ((table->type == CIMFS_REGION_METADATA) != wanted->metadata)
            continue;
        uint32_t first = lower_bound(table, wanted->hash);
        for (uint32_t i = first; i < table->count && i - first < CIMFS_MAX_EQUAL_IDS && !*found; i++)
            *found = matches(ids, table, i, wanted, offset);
    }
    return CIMFS_OK;
}

/* ---- writing ---- */

static int by_hash(const void *a, const void *b)
{
    const struct cimfs_object_id *left = a, *right = b;
    int order = memcmp(left->prefix, right->prefix, sizeof left->prefix);
    if (order == 0)
        order = memcmp(left->hash, right->hash, sizeof left->hash);
    /* Equal IDs are rare; their order must still be the same in every run. */
    return order ? order : memcmp(left->offset.b, right->offset.b, sizeof left->offset);
}

cimfs_hresult cimfs_id_file_write(const struct cimfs_io *io, cimfs_file directory, const char *name, uint32_t region,
                                  struct cimfs_object_id *entries, uint32_t count, int sync)
{
    cimfs_file file;
    struct cimfs_object_id_header header = {.index = put16((uint16_t)region), .type = (uint8_t)region};
    memcpy(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic);
    header.common.header_length = put32(sizeof header);
    header.common.file_type = CIMFS_FILE_OBJECT_ID;
    header.common.version_major = put32(CIMFS_VERSION_MAJOR);
    header.table_offset = put32(sizeof header);
    header.count = put32(count);
    qsort(entries, count, sizeof *entries, by_hash);
    CIMFS_TRY(io->open(directory, name, CIMFS_OPEN_CREATE, &file));
    cimfs_hresult result = io->write(file, &header, sizeof header, 0);
    if (result == CIMFS_OK)
        result = io->write(file, entries, count * sizeof *entries, sizeof header);
    if (result == CIMFS_OK && sync)
        result = io->sync(file);
    io->close(file);
    return result;
}
