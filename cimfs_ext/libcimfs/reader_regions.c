#include <stdlib.h>

#include "guid.h"
#include "reader_regions.h"

static uint32_t region_index(uint64_t offset)
{
    return (uint32_t)(offset >> CIMFS_OFFSET_BITS);
}

static const struct cimfs_set *set_of(const struct cimfs_reader *reader, uint32_t index)
{
    const struct cimfs_set *set = reader->sets;
    while (index - set->first >= set->count)
        set++;
    return set;
}

void cimfs_reader_file_name(const struct cimfs_reader *reader, uint64_t offset, char name[CIMFS_FILE_NAME])
{
    uint32_t index = region_index(offset);
    name[0] = 0;
    if (index < reader->region_count) {
        const struct cimfs_set *set = set_of(reader, index);
        cimfs_set_file_name("region", &set->id, index - set->first, name);
    }
}

void cimfs_reader_object_id_name(const struct cimfs_reader *reader, uint32_t index, char name[CIMFS_FILE_NAME])
{
    const struct cimfs_set *set = set_of(reader, index);
    cimfs_set_file_name("objectid", &set->id, index - set->first, name);
}

cimfs_hresult cimfs_reader_corrupt(const struct cimfs_reader *reader, uint64_t offset, const char *reason,
                                   struct cimfs_error *error)
{
    char name[CIMFS_FILE_NAME];
    cimfs_reader_file_name(reader, offset, name);
    if (name[0] == 0)
        return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, reader->name, CIMFS_NO_OFFSET,
                          "a region offset names a region that the image does not have");
    return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, name, offset & CIMFS_OFFSET_MASK, reason);
}

static void free_map(const struct cimfs_io *io, struct cimfs_region_map *map)
{
    if (!map)
        return;
    if (map->data)
        io->unmap(map->data, (size_t)map->size);
    if (map->file != CIMFS_NO_FILE)
        io->close(map->file);
    free(map->listed);
    free(map);
}

static cimfs_hresult open_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                 cimfs_file *file)
{
    char name[CIMFS_FILE_NAME];
    cimfs_reader_file_name(reader, cimfs_region_offset(index, 0), name);
    cimfs_hresult result = reader->io->open(reader->directory, name, CIMFS_OPEN_READ, file);
    if (result == CIMFS_E_FILE_NOT_FOUND)
        return cimfs_reader_missing(reader, name, "the region file is missing", error);
    if (cimfs_is_no_plain_file(result))
        return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, name, CIMFS_NO_OFFSET, "the region file is not a plain file");
    return result < 0 ? cimfs_fail(error, result, name, CIMFS_NO_OFFSET, NULL) : CIMFS_OK;
}

/* Keep the file open for the reads to come, if few enough are. */
static void put_away(const struct cimfs_reader *reader, struct cimfs_region_map *map, cimfs_file file)
{
    enum { MAX_OPEN = 64 }; /* of 256 descriptors, the least that a process is given, most are left for others */
    cimfs_file none = CIMFS_NO_FILE;
    if (atomic_fetch_add(&reader->regions->open, 1) < MAX_OPEN &&
        atomic_compare_exchange_strong(&map->file, &none, file))
        return;
    atomic_fetch_sub(&reader->regions->open, 1);
    reader->io->close(file);
}

static cimfs_hresult load_region(const struct cimfs_reader *reader, uint32_t index, cimfs_file file,
                                 struct cimfs_region_map *map, const char **reason)
{
    const struct cimfs_io *io = reader->io;
    struct cimfs_region_header header;
    CIMFS_TRY(io->size(file, &map->size));
    if (map->size < sizeof header || map->size > CIMFS_OFFSET_MASK || map->size > SIZE_MAX) {
        *reason = "the file is too short for a region";
        return CIMFS_E_FILE_CORRUPT;
    }
    CIMFS_TRY(io->read(file, &header, sizeof header, 0));
    CIMFS_TRY(cimfs_reader_check_common(&header.common, CIMFS_FILE_REGION, sizeof header, reason));
    if (get16(header.index) != index - set_of(reader, index)->first) {
        *reason = "the region's number is not the one in its name";
        return CIMFS_E_FILE_CORRUPT;
    }
    map->type = header.type;
    map->header_length = get32(header.common.header_length);
    return io->map(file, (size_t)map->size, &map->data);
}

/* Threads that come at once may each load the region; one of them keeps it. */
cimfs_hresult cimfs_reader_get_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                      struct cimfs_region_map **region)
{
    _Atomic(struct cimfs_region_map *) *at = &reader->regions->maps[index];
    *region = atomic_load_explicit(at, memory_order_acquire);
    if (*region)
        return CIMFS_OK;
    cimfs_file file;
    CIMFS_TRY(open_region(reader, index, error, &file));
    struct cimfs_region_map *map = malloc(sizeof *map), *expected = NULL;
    const char *reason = NULL;
    cimfs_hresult result = CIMFS_E_OUT_OF_MEMORY;
    if (map) {
        *map = (struct cimfs_region_map){.file = CIMFS_NO_FILE};
        result = load_region(reader, index, file, map, &reason);
    }
    if (result < 0) {
        char name[CIMFS_FILE_NAME];
        reader->io->close(file);
        free_map(reader->io, map);
        if (result == CIMFS_E_HANDLE_EOF) {
            reason = "the region file cannot be read";
            result = CIMFS_E_FILE_CORRUPT;
        }
        cimfs_reader_file_name(reader, cimfs_region_offset(index, 0), name);
        return cimfs_fail(error, result, name, CIMFS_NO_OFFSET, reason);
    }
    if (atomic_compare_exchange_strong(at, &expected, map)) {
        *region = map;
    } else {
        free_map(reader->io, map);
        *region = expected;
    }
    if ((*region)->type == CIMFS_REGION_METADATA)
        reader->io->close(file); /* which is hardly ever read, since it is mapped */
    else
        put_away(reader, *region, file);
    return CIMFS_OK;
}

/* The region of an offset, with size bytes checked to lie inside it. */
static cimfs_hresult locate(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                            struct cimfs_error *error, struct cimfs_region_map **region, uint64_t *within)
{
    *within = offset & CIMFS_OFFSET_MASK;
    if (region_index(offset) >= reader->region_count)
        return cimfs_reader_corrupt(reader, offset, NULL, error);
    CIMFS_TRY(cimfs_reader_get_region(reader, region_index(offset), error, region));
    if (*within > (*region)->size || size > (*region)->size - *within)
        return cimfs_reader_corrupt(reader, offset, "an object reaches beyond the end of its region", error);
    if (*within < sizeof(struct cimfs_region_header) && size > 0)
        return cimfs_reader_corrupt(reader, offset, "an object lies in the region's header", error);
    return CIMFS_OK;
}

static cimfs_hresult unreadable(const struct cimfs_reader *reader, uint64_t offset, cimfs_hresult result,
                                struct cimfs_error *error)
{
    char name[CIMFS_FILE_NAME];
    cimfs_reader_file_name(reader, offset, name);
    if (result == CIMFS_E_HANDLE_EOF) /* it was cut since it was opened */
        result = CIMFS_E_FILE_CORRUPT;
    return cimfs_fail(error, result, name, offset & CIMFS_OFFSET_MASK, "the region file cannot be read");
}

cimfs_hresult cimfs_reader_view(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                                struct cimfs_error *error, const uint8_t **data)
{
    struct cimfs_region_map *region = NULL;
    uint64_t within;
    *data = NULL;
    CIMFS_TRY(locate(reader, offset, size, error, &region, &within));
    if (!reader->io->view) {
        *data = region->data + within;
        return CIMFS_OK;
    }
    cimfs_hresult result = reader->io->view(region->data, within, (size_t)size, data);
    return result < 0 ? unreadable(reader, offset, result, error) : CIMFS_OK;
}

cimfs_hresult cimfs_reader_check_place(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                                       struct cimfs_error *error)
{
    struct cimfs_region_map *region = NULL;
    uint64_t within;
    return locate(reader, offset, size, error, &region, &within);
}

cimfs_hresult cimfs_reader_fetch(const struct cimfs_reader *reader, uint64_t offset, void *data, size_t size,
                                 struct cimfs_error *error)
{
    struct cimfs_region_map *region = NULL;
    uint64_t within;
    CIMFS_TRY(locate(reader, offset, size, error, &region, &within));
    cimfs_file kept = atomic_load(&region->file), file = kept;
    if (kept == CIMFS_NO_FILE)
        CIMFS_TRY(open_region(reader, region_index(offset), error, &file));
    cimfs_hresult result = reader->io->read(file, data, size, within);
    if (kept == CIMFS_NO_FILE)
        put_away(reader, region, file);
    return result < 0 ? unreadable(reader, offset, result, error) : CIMFS_OK;
}

cimfs_hresult cimfs_reader_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                  uint64_t *size, uint8_t *type)
{
    struct cimfs_region_map *region = NULL;
    *size = 0;
    *type = 0;
    CIMFS_TRY(cimfs_reader_get_region(reader, index, error, &region));
    *size = region->size;
    *type = region->type;
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_check_region_header(const struct cimfs_reader *reader, uint32_t index,
                                               struct cimfs_error *error)
{
    struct cimfs_region_map *region = NULL;
    uint64_t start = cimfs_region_offset(index, 0);
    CIMFS_TRY(cimfs_reader_get_region(reader, index, error, &region));
    if (region->header_length != sizeof(struct cimfs_region_header))
        return cimfs_reader_corrupt(reader, start, "the header has another length than it says", error);
    if (region->type >= CIMFS_OWN_REGIONS)
        return cimfs_reader_corrupt(reader, start, "a region of unknown type", error);
    return CIMFS_OK;
}

void cimfs_reader_close_regions(struct cimfs_reader *reader)
{
    for (uint32_t i = 0; reader->regions && i < reader->region_count; i++)
        free_map(reader->io, atomic_load(&reader->regions->maps[i]));
    free(reader->regions);
}
