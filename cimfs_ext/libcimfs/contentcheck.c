#include "contentcheck.h"

#include <stdlib.h>

#include "objectid.h"
#include "reader_regions.h"

int cimfs_by_place(const void *a, const void *b)
{
    const struct cimfs_check_extent *left = a, *right = b;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return left->length < right->length ? -1 : left->length > right->length;
}

static int is_sorted(const struct cimfs_check_extent *items, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (cimfs_by_place(&items[i - 1], &items[i]) > 0)
            return 0;
    return 1;
}

/* Those with the same offset, by length. */
static void sort_equals(struct cimfs_check_extent *items, size_t count)
{
    for (size_t first = 0, last; first < count; first = last) {
        for (last = first + 1; last < count && items[last].offset == items[first].offset; last++)
            ;
        if (!is_sorted(items + first, last - first))
            qsort(items + first, last - first, sizeof *items, cimfs_by_place);
    }
}

/* A radix sort: byte after byte of the offset, without those that are the same in all. */
cimfs_hresult cimfs_sort_by_place(struct cimfs_check_extent *items, size_t count)
{
    enum { BYTES = sizeof items->offset, VALUES = 256 };
    size_t starts[BYTES][VALUES] = {{0}};
    if (is_sorted(items, count))
        return CIMFS_OK;
    struct cimfs_check_extent *other = malloc(count * sizeof *other), *from = items, *to = other;
    if (!other)
        return CIMFS_E_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++)
        for (unsigned byte = 0; byte < BYTES; byte++)
            starts[byte][items[i].offset >> 8 * byte & (VALUES - 1)]++;
    for (unsigned byte = 0; byte < BYTES; byte++) {
        size_t *start = starts[byte], before = 0;
        if (start[items->offset >> 8 * byte & (VALUES - 1)] == count)
            continue;
        for (unsigned value = 0; value < VALUES; value++) {
            size_t here = start[value];
            start[value] = before;
            before += here;
        }
        for (size_t i = 0; i < count; i++)
            to[start[from[i].offset >> 8 * byte & (VALUES - 1)]++] = from[i];
        struct cimfs_check_extent *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
    free(other);
    sort_equals(items, count);
    return CIMFS_OK;
}

static struct cimfs_listed *list_table(const struct cimfs_id_table *table, uint32_t region)
{
    struct cimfs_listed *listed = malloc(sizeof *listed + table->count * sizeof *listed->items);
    if (!listed)
        return NULL;
    listed->count = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        const struct cimfs_object_id *id = &table->entries[i];
        if (!cimfs_id_is_ours(id) || get64(id->offset) > CIMFS_OFFSET_MASK)
            continue;
        struct cimfs_check_extent *item = &listed->items[listed->count++];
        item->offset = cimfs_region_offset(region, get64(id->offset));
        item->length = get64(id->length);
        memcpy(item->hash, id->hash, sizeof item->hash);
    }
    if (cimfs_sort_by_place(listed->items, listed->count) == CIMFS_OK)
        return listed;
    free(listed);
    return NULL;
}

/* An object ID file that is missing or damaged lists nothing: verify says so. */
static cimfs_hresult load_listed(const struct cimfs_reader *reader, uint32_t region, struct cimfs_error *error,
                                 struct cimfs_listed **listed)
{
    struct cimfs_id_table table = {.region = region};
    char name[CIMFS_FILE_NAME];
    cimfs_reader_object_id_name(reader, region, name);
    cimfs_hresult result = cimfs_id_table_open(reader->io, reader->directory, name, &table);
    if (result >= 0)
        *listed = list_table(&table, region);
    if (table.map)
        reader->io->unmap(table.map, (size_t)table.map_size);
    if (result == CIMFS_E_HANDLE_EOF)
        return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, name, CIMFS_NO_OFFSET, "the object ID file cannot be read");
    if (result < 0)
        return cimfs_fail(error, result, name, CIMFS_NO_OFFSET, NULL);
    return *listed ? CIMFS_OK : cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, name, CIMFS_NO_OFFSET, NULL);
}

/* Threads that come at once may each load the list; one of them keeps it. */
static cimfs_hresult get_listed(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                const struct cimfs_listed **listed)
{
    struct cimfs_region_map *region;
    struct cimfs_listed *loaded = NULL, *expected = NULL;
    CIMFS_TRY(cimfs_reader_get_region(reader, index, error, &region));
    *listed = atomic_load_explicit(&region->listed, memory_order_acquire);
    if (*listed)
        return CIMFS_OK;
    CIMFS_TRY(load_listed(reader, index, error, &loaded));
    *listed = loaded;
    if (!atomic_compare_exchange_strong(&region->listed, &expected, loaded)) {
        free(loaded);
        *listed = expected;
    }
    return CIMFS_OK;
}

/* The hash in the content ID of a stream, or NULL if it has none that can be compared. */
static cimfs_hresult find_hash(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                               struct cimfs_error *error, const uint8_t **hash)
{
    const struct cimfs_listed *listed;
    *hash = NULL;
    if (stream->sparse || stream->type != CIMFS_STREAM_DATA)
        return CIMFS_OK;
    CIMFS_TRY(get_listed(reader, (uint32_t)(stream->offset >> CIMFS_OFFSET_BITS), error, &listed));
    struct cimfs_check_extent wanted = {.offset = stream->offset, .length = stream->length};
    const struct cimfs_check_extent *found =
        bsearch(&wanted, listed->items, listed->count, sizeof wanted, cimfs_by_place);
    if (found)
        *hash = found->hash;
    return CIMFS_OK;
}

static cimfs_hresult compare(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                             const uint8_t digest[CIMFS_HASH_SIZE], const uint8_t *hash, struct cimfs_error *error)
{
    if (memcmp(digest, hash, CIMFS_HASH_SIZE) != 0)
        return cimfs_reader_corrupt(reader, stream->offset, "the content does not match its content ID", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_check_whole(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                       const void *data, struct cimfs_error *error)
{
    const uint8_t *hash;
    uint8_t digest[CIMFS_HASH_SIZE];
    CIMFS_TRY(find_hash(reader, stream, error, &hash));
    if (!hash)
        return CIMFS_OK;
    cimfs_hash_of(data, (size_t)stream->length, digest);
    return compare(reader, stream, digest, hash, error);
}

static cimfs_hresult begin(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                           struct cimfs_content_check *check, struct cimfs_error *error)
{
    const uint8_t *hash;
    check->position = 0;
    check->known = 0;
    CIMFS_TRY(find_hash(reader, stream, error, &hash));
    if (!hash)
        return CIMFS_OK;
    check->known = 1;
    memcpy(check->id, hash, sizeof check->id);
    cimfs_hash_init(&check->hash);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_read_checked(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                        struct cimfs_content_check *check, uint64_t position, void *data, size_t size,
                                        struct cimfs_error *error, size_t *got)
{
    uint8_t digest[CIMFS_HASH_SIZE];
    CIMFS_TRY(cimfs_reader_read(reader, stream, position, data, size, error, got));
    if (*got == 0)
        return CIMFS_OK;
    if (position == 0)
        CIMFS_TRY(begin(reader, stream, check, error));
    if (position != check->position)
        return CIMFS_OK;
    check->position += *got;
    if (!check->known)
        return CIMFS_OK;
    cimfs_hash_update(&check->hash, data, *got);
    if (check->position < stream->length)
        return CIMFS_OK;
    cimfs_hash_final(&check->hash, digest);
    return compare(reader, stream, digest, check->id, error);
}
