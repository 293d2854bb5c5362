#include "reader.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "guid.h"

/* A region file; opened and mapped when first needed, then constant. */
struct region_map {
    cimfs_file file;
    const uint8_t *data;
    uint64_t size;
    uint32_t header_length;
    uint8_t type;
};

struct cimfs_reader {
    const struct cimfs_io *io;
    cimfs_file directory;
    struct cimfs_set *sets;
    uint32_t set_count;
    uint32_t region_count;
    uint32_t version;
    uint32_t header_length;
    _Atomic(struct region_map *) *regions;
    uint64_t filesystem_offset;
    uint64_t upcase_offset;
    uint64_t directory_offset;
    uint32_t table_count;
    uint32_t root;
    uint16_t upcase[CIMFS_UPCASE_UNITS];
    char name[256];
};

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

static void free_map(const struct cimfs_io *io, struct region_map *map)
{
    if (!map)
        return;
    if (map->data)
        io->unmap(map->data, (size_t)map->size);
    if (map->file != CIMFS_NO_FILE)
        io->close(map->file);
    free(map);
}

static cimfs_hresult check_common(const struct cimfs_common_header *common, uint8_t file_type, uint32_t least,
                                  const char **reason)
{
    uint32_t major = get32(common->version_major);
    if (memcmp(common->magic, CIMFS_MAGIC, sizeof common->magic) != 0)
        *reason = "the magic is not cimfile0";
    else if (major < CIMFS_VERSION_MAJOR || major > CIMFS_VERSION_MAJOR_NEWEST)
        *reason = "a version other than 2 and 3";
    else if (common->file_type != file_type)
        *reason = "another type of file than its name says";
    else if (get32(common->header_length) < least)
        *reason = "the header is too short";
    else
        return CIMFS_OK;
    return CIMFS_E_FILE_CORRUPT;
}

static cimfs_hresult load_region(const struct cimfs_reader *reader, uint32_t index, const char *name,
                                 struct region_map *map, const char **reason)
{
    const struct cimfs_io *io = reader->io;
    struct cimfs_region_header header;
    CIMFS_TRY(io->open(reader->directory, name, CIMFS_OPEN_READ, &map->file));
    CIMFS_TRY(io->size(map->file, &map->size));
    if (map->size < sizeof header || map->size > CIMFS_OFFSET_MASK || map->size > SIZE_MAX) {
        *reason = "the file is too short for a region";
        return CIMFS_E_FILE_CORRUPT;
    }
    CIMFS_TRY(io->read(map->file, &header, sizeof header, 0));
    CIMFS_TRY(check_common(&header.common, CIMFS_FILE_REGION, sizeof header, reason));
    if (get16(header.index) != index - set_of(reader, index)->first) {
        *reason = "the region's number is not the one in its name";
        return CIMFS_E_FILE_CORRUPT;
    }
    map->type = header.type;
    map->header_length = get32(header.common.header_length);
    return io->map(map->file, (size_t)map->size, &map->data);
}

/* Threads that come at once may each load the region; one of them keeps it. */
static cimfs_hresult get_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                const struct region_map **region)
{
    *region = atomic_load_explicit(&reader->regions[index], memory_order_acquire);
    if (*region)
        return CIMFS_OK;
    char name[CIMFS_FILE_NAME];
    cimfs_reader_file_name(reader, cimfs_region_offset(index, 0), name);
    struct region_map *map = malloc(sizeof *map);
    if (!map)
        return cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, name, CIMFS_NO_OFFSET, NULL);
    *map = (struct region_map){.file = CIMFS_NO_FILE};
    const char *reason = NULL;
    cimfs_hresult result = load_region(reader, index, name, map, &reason);
    if (result < 0) {
        free_map(reader->io, map);
        if (result == CIMFS_E_FILE_NOT_FOUND || result == CIMFS_E_HANDLE_EOF) {
            reason = "the region file is not there";
            result = CIMFS_E_FILE_CORRUPT;
        }
        return cimfs_fail(error, result, name, CIMFS_NO_OFFSET, reason);
    }
    struct region_map *expected = NULL;
    if (atomic_compare_exchange_strong(&reader->regions[index], &expected, map)) {
        *region = map;
    } else {
        free_map(reader->io, map);
        *region = expected;
    }
    return CIMFS_OK;
}

/* The region of an offset, with size bytes checked to lie inside it. */
static cimfs_hresult locate(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                            struct cimfs_error *error, const struct region_map **region, uint64_t *within)
{
    *within = offset & CIMFS_OFFSET_MASK;
    if (region_index(offset) >= reader->region_count)
        return cimfs_reader_corrupt(reader, offset, NULL, error);
    CIMFS_TRY(get_region(reader, region_index(offset), error, region));
    if (*within > (*region)->size || size > (*region)->size - *within)
        return cimfs_reader_corrupt(reader, offset, "an object reaches beyond the end of its region", error);
    if (*within < sizeof(struct cimfs_region_header) && size > 0)
        return cimfs_reader_corrupt(reader, offset, "an object lies in the region's header", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_view(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                                struct cimfs_error *error, const uint8_t **data)
{
    const struct region_map *region = NULL;
    uint64_t within;
    *data = NULL;
    CIMFS_TRY(locate(reader, offset, size, error, &region, &within));
    *data = region->data + within;
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_fetch(const struct cimfs_reader *reader, uint64_t offset, void *data, size_t size,
                                 struct cimfs_error *error)
{
    const struct region_map *region = NULL;
    uint64_t within;
    CIMFS_TRY(locate(reader, offset, size, error, &region, &within));
    cimfs_hresult result = reader->io->read(region->file, data, size, within);
    if (result < 0) {
        result = result == CIMFS_E_HANDLE_EOF ? CIMFS_E_FILE_CORRUPT : result; /* it was cut since it was opened */
        char name[CIMFS_FILE_NAME];
        cimfs_reader_file_name(reader, offset, name);
        return cimfs_fail(error, result, name, within, "the region file cannot be read");
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                  uint64_t *size, uint8_t *type)
{
    const struct region_map *region = NULL;
    *size = 0;
    *type = 0;
    CIMFS_TRY(get_region(reader, index, error, &region));
    *size = region->size;
    *type = region->type;
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_check_region_header(const struct cimfs_reader *reader, uint32_t index,
                                               struct cimfs_error *error)
{
    const struct region_map *region = NULL;
    uint64_t start = cimfs_region_offset(index, 0);
    CIMFS_TRY(get_region(reader, index, error, &region));
    if (region->header_length != sizeof(struct cimfs_region_header))
        return cimfs_reader_corrupt(reader, start, "the header has another length than it says", error);
    if (region->type >= CIMFS_OWN_REGIONS)
        return cimfs_reader_corrupt(reader, start, "a region of unknown type", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_check_filesystem_header(const struct cimfs_reader *reader, struct cimfs_error *error)
{
    size_t length =
        sizeof(struct cimfs_filesystem_header) + (reader->set_count - 1) * sizeof(struct cimfs_region_set);
    if (reader->header_length == length)
        return CIMFS_OK;
    return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, reader->name, offsetof(struct cimfs_common_header, header_length),
                      "the header has another length than it says");
}

/* ---- opening ---- */

static cimfs_hresult read_sets(struct cimfs_reader *reader, cimfs_file file, const char **reason)
{
    struct cimfs_filesystem_header header;
    const struct cimfs_io *io = reader->io;
    CIMFS_TRY(io->read(file, &header, sizeof header, 0));
    CIMFS_TRY(check_common(&header.common, CIMFS_FILE_FILESYSTEM, sizeof header, reason));
    uint32_t parents = get16(header.parent_count);
    struct cimfs_region_set *raw = calloc(parents + 1, sizeof *raw);
    reader->sets = calloc(parents + 1, sizeof *reader->sets);
    cimfs_hresult result = raw && reader->sets ? CIMFS_OK : CIMFS_E_OUT_OF_MEMORY;
    if (result == CIMFS_OK)
        result = io->read(file, raw, parents * sizeof *raw, sizeof header);
    if (result == CIMFS_OK) {
        raw[parents].id = header.set_id;
        raw[parents].count = header.region_count;
        for (uint32_t i = 0; i <= parents; i++) {
            reader->sets[i] = (struct cimfs_set){raw[i].id, get16(raw[i].count), reader->region_count};
            reader->region_count += reader->sets[i].count;
        }
        reader->set_count = parents + 1;
        if (reader->region_count > CIMFS_MAX_REGIONS || reader->region_count == 0) {
            *reason = "no regions, or more than 65,536";
            result = CIMFS_E_FILE_CORRUPT;
        }
    }
    free(raw);
    reader->version = get32(header.common.version_major);
    reader->header_length = get32(header.common.header_length);
    reader->filesystem_offset = get64(header.filesystem);
    return result;
}

static cimfs_hresult read_filesystem_file(struct cimfs_reader *reader, struct cimfs_error *error)
{
    cimfs_file file;
    const char *reason = NULL;
    cimfs_hresult result = reader->io->open(reader->directory, reader->name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_OK) {
        result = read_sets(reader, file, &reason);
        reader->io->close(file);
    }
    if (result == CIMFS_E_HANDLE_EOF) {
        result = CIMFS_E_FILE_CORRUPT;
        reason = "the file ends inside its header";
    }
    return result < 0 ? cimfs_fail(error, result, reader->name, CIMFS_NO_OFFSET, reason) : CIMFS_OK;
}

static cimfs_hresult read_filesystem(struct cimfs_reader *reader, struct cimfs_error *error)
{
    const uint8_t *data;
    struct cimfs_filesystem filesystem;
    if (reader->filesystem_offset == 0)
        return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, reader->name, offsetof(struct cimfs_filesystem_header, filesystem),
                          "no filesystem object");
    CIMFS_TRY(cimfs_reader_view(reader, reader->filesystem_offset, sizeof filesystem, error, &data));
    memcpy(&filesystem, data, sizeof filesystem);
    reader->upcase_offset = get64(filesystem.upcase);
    reader->directory_offset = get64(filesystem.table_directory);
    reader->table_count = get32(filesystem.table_count);
    reader->root = get32(filesystem.root);
    CIMFS_TRY(cimfs_reader_view(reader, reader->directory_offset,
                                (uint64_t)reader->table_count * sizeof(struct cimfs_table_entry), error, &data));
    CIMFS_TRY(cimfs_reader_view(reader, reader->upcase_offset, CIMFS_UPCASE_UNITS * sizeof(le16), error, &data));
    for (uint32_t i = 0; i < CIMFS_UPCASE_UNITS; i++) {
        le16 unit;
        memcpy(&unit, data + i * sizeof unit, sizeof unit);
        reader->upcase[i] = get16(unit);
    }
    struct cimfs_record root;
    CIMFS_TRY(cimfs_reader_record(reader, reader->root, error, &root));
    if (!cimfs_is_directory(&root))
        return cimfs_reader_corrupt(reader, reader->filesystem_offset, "the root is not a directory", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_open(const struct cimfs_io *io, const char *directory, const char *file_name,
                                struct cimfs_error *error, struct cimfs_reader **out)
{
    *out = NULL;
    struct cimfs_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, file_name, CIMFS_NO_OFFSET, NULL);
    reader->io = io;
    reader->directory = CIMFS_NO_FILE;
    cimfs_hresult result;
    size_t length = strlen(file_name);
    if (length == 0 || length >= sizeof reader->name || strchr(file_name, '/')) {
        result = cimfs_fail(error, CIMFS_E_INVALID_ARG, file_name, CIMFS_NO_OFFSET, "not the name of a file");
        goto done;
    }
    memcpy(reader->name, file_name, length + 1);
    result = io->open_directory(directory, 0, &reader->directory);
    if (result < 0) {
        cimfs_fail(error, result, directory, CIMFS_NO_OFFSET, "the directory cannot be opened");
        goto done;
    }
    result = read_filesystem_file(reader, error);
    if (result < 0)
        goto done;
    reader->regions = calloc(reader->region_count, sizeof *reader->regions);
    result = reader->regions ? read_filesystem(reader, error)
                             : cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, file_name, CIMFS_NO_OFFSET, NULL);
done:
    if (result < 0)
        cimfs_reader_close(reader);
    else
        *out = reader;
    return result;
}

void cimfs_reader_close(struct cimfs_reader *reader)
{
    if (!reader)
        return;
    for (uint32_t i = 0; reader->regions && i < reader->region_count; i++)
        free_map(reader->io, atomic_load(&reader->regions[i]));
    if (reader->directory != CIMFS_NO_FILE)
        reader->io->close(reader->directory);
    free(reader->regions);
    free(reader->sets);
    free(reader);
}

const struct cimfs_set *cimfs_reader_sets(const struct cimfs_reader *reader, uint32_t *count)
{
    *count = reader->set_count;
    return reader->sets;
}

uint32_t cimfs_reader_region_count(const struct cimfs_reader *reader)
{
    return reader->region_count;
}

uint32_t cimfs_reader_version(const struct cimfs_reader *reader)
{
    return reader->version;
}

const uint16_t *cimfs_reader_upcase(const struct cimfs_reader *reader)
{
    return reader->upcase;
}

uint64_t cimfs_reader_upcase_offset(const struct cimfs_reader *reader)
{
    return reader->upcase_offset;
}

uint64_t cimfs_reader_filesystem_offset(const struct cimfs_reader *reader)
{
    return reader->filesystem_offset;
}

uint64_t cimfs_reader_directory_offset(const struct cimfs_reader *reader)
{
    return reader->directory_offset;
}

uint32_t cimfs_reader_root(const struct cimfs_reader *reader)
{
    return reader->root;
}

uint32_t cimfs_reader_table_count(const struct cimfs_reader *reader)
{
    return reader->table_count;
}

/* ---- records ---- */

cimfs_hresult cimfs_reader_table(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                 struct cimfs_table_entry *entry, const uint8_t **records)
{
    const uint8_t *data;
    uint64_t offset = reader->directory_offset + (uint64_t)index * sizeof *entry;
    CIMFS_TRY(cimfs_reader_view(reader, offset, sizeof *entry, error, &data));
    memcpy(entry, data, sizeof *entry);
    uint32_t count = get16(entry->count);
    if (count > CIMFS_FILES_PER_TABLE)
        return cimfs_reader_corrupt(reader, offset, "a file table with more than 1024 files", error);
    if (count > 0 && get16(entry->entry_size) == 0)
        return cimfs_reader_corrupt(reader, offset, "a file table whose records have no size", error);
    if (count == 0) {
        *records = NULL;
        return CIMFS_OK;
    }
    return cimfs_reader_view(reader, get64(entry->table), (uint64_t)count * get16(entry->entry_size), error, records);
}

cimfs_hresult cimfs_reader_record(const struct cimfs_reader *reader, uint32_t id, struct cimfs_error *error,
                                  struct cimfs_record *record)
{
    struct cimfs_table_entry entry;
    const uint8_t *records;
    memset(record, 0, sizeof *record);
    uint32_t table = (id - 1) / CIMFS_FILES_PER_TABLE;
    if (id == 0 || table >= reader->table_count)
        return cimfs_reader_corrupt(reader, reader->filesystem_offset, "a file ID that no file table has", error);
    CIMFS_TRY(cimfs_reader_table(reader, table, error, &entry, &records));
    uint32_t index = (id - 1) % CIMFS_FILES_PER_TABLE;
    if (index >= get16(entry.count))
        return cimfs_reader_corrupt(reader, get64(entry.table), "a file ID beyond the end of its file table", error);
    uint32_t size = get16(entry.entry_size);
    memcpy(record, records + (size_t)index * size, size < sizeof *record ? size : sizeof *record);
    return CIMFS_OK;
}

struct cimfs_extent cimfs_extent_of(struct cimfs_raw_stream raw)
{
    uint64_t bits = get64(raw.length_type_flags);
    return (struct cimfs_extent){.offset = get64(raw.offset),
                                 .length = bits & CIMFS_OFFSET_MASK,
                                 .type = (uint8_t)(bits >> CIMFS_STREAM_TYPE_SHIFT),
                                 .sparse = (bits & CIMFS_STREAM_SPARSE) != 0};
}

uint32_t cimfs_attributes_of(const struct cimfs_record *record)
{
    uint32_t flags = get16(record->flags);
    uint32_t attributes = flags & (CIMFS_FLAG_READONLY | CIMFS_FLAG_HIDDEN | CIMFS_FLAG_SYSTEM);
    if (flags & CIMFS_FLAG_ARCHIVE)
        attributes |= CIMFS_ATTRIBUTE_ARCHIVE;
    if (flags & CIMFS_FLAG_SPARSE)
        attributes |= CIMFS_ATTRIBUTE_SPARSE;
    if (cimfs_is_directory(record))
        attributes |= CIMFS_ATTRIBUTE_DIRECTORY;
    if (get64(record->reparse) != 0)
        attributes |= CIMFS_ATTRIBUTE_REPARSE_POINT;
    return attributes;
}

cimfs_hresult cimfs_reader_attachment(const struct cimfs_reader *reader, const struct cimfs_record *record,
                                      enum cimfs_attachment which, struct cimfs_error *error, const uint8_t **data,
                                      uint32_t *size)
{
    *data = NULL;
    *size = 0;
    uint64_t offset = get64(which == CIMFS_SECURITY_DESCRIPTOR ? record->security_descriptor
                            : which == CIMFS_EA_BUFFER         ? record->ea
                                                               : record->reparse);
    if (offset == 0)
        return CIMFS_OK;
    uint32_t length = get16(record->ea_length);
    if (which != CIMFS_EA_BUFFER) {
        le16 prefix;
        CIMFS_TRY(cimfs_reader_view(reader, offset, sizeof prefix, error, data));
        memcpy(&prefix, *data, sizeof prefix);
        length = get16(prefix);
        offset += sizeof prefix;
    }
    CIMFS_TRY(cimfs_reader_view(reader, offset, length, error, data));
    *size = length;
    return CIMFS_OK;
}

/* ---- link tables ---- */

static le32 load32(const uint8_t *from)
{
    le32 value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* expected: the table's length as its owner says, 0 if it does not. */
static cimfs_hresult open_links(const struct cimfs_reader *reader, uint64_t offset, uint32_t value_size,
                                uint64_t expected, struct cimfs_error *error, struct cimfs_links *links)
{
    const uint8_t *data;
    *links = (struct cimfs_links){.value_size = value_size, .offset = offset, .reader = reader};
    CIMFS_TRY(cimfs_reader_view(reader, offset, sizeof(struct cimfs_link_table), error, &data));
    uint32_t length = get32(load32(data));
    uint32_t count = get32(load32(data + 4));
    uint64_t fixed = sizeof(struct cimfs_link_table) + (uint64_t)count * (value_size + sizeof(le32));
    if (fixed > length || (expected != 0 && expected != length))
        return cimfs_reader_corrupt(reader, offset, "the length of a link table does not fit its content", error);
    CIMFS_TRY(cimfs_reader_view(reader, offset, length, error, &data));
    links->table = data;
    links->length = length;
    links->count = count;
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_children(const struct cimfs_reader *reader, const struct cimfs_record *directory,
                                    struct cimfs_error *error, struct cimfs_links *links)
{
    struct cimfs_extent extent = cimfs_extent_of(directory->data);
    *links = (struct cimfs_links){.value_size = sizeof(le32), .reader = reader};
    if (extent.length == 0)
        return CIMFS_OK;
    return open_links(reader, extent.offset, sizeof(le32), extent.length, error, links);
}

cimfs_hresult cimfs_reader_streams(const struct cimfs_reader *reader, const struct cimfs_record *file,
                                   struct cimfs_error *error, struct cimfs_links *links)
{
    uint64_t offset = get64(file->streams);
    *links = (struct cimfs_links){.value_size = sizeof(struct cimfs_raw_stream), .reader = reader};
    return offset == 0 ? CIMFS_OK : open_links(reader, offset, sizeof(struct cimfs_raw_stream), 0, error, links);
}

cimfs_hresult cimfs_links_at(const struct cimfs_links *links, uint32_t index, struct cimfs_error *error,
                             struct cimfs_link *link)
{
    size_t values = sizeof(struct cimfs_link_table);
    size_t offsets = values + (size_t)links->count * links->value_size;
    uint32_t at = get32(load32(links->table + offsets + (size_t)index * sizeof(le32)));
    if (at > links->length || links->length - at < sizeof(le16))
        return cimfs_reader_corrupt(links->reader, links->offset, "a name lies outside its link table", error);
    le16 prefix;
    memcpy(&prefix, links->table + at, sizeof prefix);
    uint32_t length = get16(prefix);
    if (length == 0 || length > CIMFS_MAX_NAME || links->length - at - sizeof prefix < length * sizeof(le16))
        return cimfs_reader_corrupt(links->reader, links->offset, "a name of a link table has a bad length", error);
    for (uint32_t i = 0; i < length; i++) {
        le16 unit;
        memcpy(&unit, links->table + at + sizeof prefix + i * sizeof unit, sizeof unit);
        link->units[i] = get16(unit);
        if (link->units[i] == 0 || link->units[i] == '/' || link->units[i] == '\\')
            return cimfs_reader_corrupt(links->reader, links->offset, "a name of a link table has a separator in it",
                                        error);
    }
    link->length = length;
    link->value = links->table + values + (size_t)index * links->value_size;
    return CIMFS_OK;
}

cimfs_hresult cimfs_links_next(const struct cimfs_links *links, uint32_t index, const struct cimfs_link *before,
                               struct cimfs_error *error, struct cimfs_link *link)
{
    CIMFS_TRY(cimfs_links_at(links, index, error, link));
    if (index > 0 && cimfs_name_compare(links->reader->upcase, (struct cimfs_name){before->units, before->length},
                                        (struct cimfs_name){link->units, link->length}) >= 0)
        return cimfs_reader_corrupt(links->reader, links->offset, "the names of a link table are out of order", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_links_find(const struct cimfs_links *links, struct cimfs_name name, struct cimfs_error *error,
                               struct cimfs_link *link, int *found)
{
    uint32_t low = 0, high = links->count;
    *found = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        CIMFS_TRY(cimfs_links_at(links, middle, error, link));
        struct cimfs_name other = {link->units, link->length};
        int order = cimfs_name_compare(links->reader->upcase, name, other);
        if (order == 0) {
            *found = 1;
            return CIMFS_OK;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_links_file_id(const struct cimfs_links *links, const struct cimfs_link *link,
                                  struct cimfs_error *error, uint32_t *id)
{
    *id = get32(load32(link->value));
    uint32_t table = (*id - 1) / CIMFS_FILES_PER_TABLE;
    if (*id == 0 || table >= links->reader->table_count)
        return cimfs_reader_corrupt(links->reader, links->offset, "a directory names a file ID that does not exist",
                                    error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_lookup(const struct cimfs_reader *reader, struct cimfs_name path,
                                  struct cimfs_error *error, uint32_t *id)
{
    struct cimfs_name component;
    struct cimfs_link link;
    *id = reader->root;
    while (cimfs_path_next(&path, &component)) {
        struct cimfs_record record;
        struct cimfs_links links;
        int found = 0;
        CIMFS_TRY(cimfs_reader_record(reader, *id, error, &record));
        if (cimfs_is_directory(&record)) {
            CIMFS_TRY(cimfs_reader_children(reader, &record, error, &links));
            CIMFS_TRY(cimfs_links_find(&links, component, error, &link, &found));
        }
        if (!found)
            return cimfs_fail(error, CIMFS_E_PATH_NOT_FOUND, reader->name, CIMFS_NO_OFFSET, NULL);
        CIMFS_TRY(cimfs_links_file_id(&links, &link, error, id));
    }
    return CIMFS_OK;
}

/* ---- content ---- */

static struct cimfs_pe_mapping mapping_at(const uint8_t *mappings, uint32_t index)
{
    struct cimfs_pe_mapping mapping;
    memcpy(&mapping, mappings + (size_t)index * sizeof mapping, sizeof mapping);
    return mapping;
}

/* How many of the mappings, which stand in the order of their file offsets, begin at or before position. */
static uint32_t mappings_before(const uint8_t *mappings, uint32_t count, uint64_t position)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (get32(mapping_at(mappings, middle).file_offset) <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

cimfs_hresult cimfs_reader_locate_pe(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                     uint64_t position, struct cimfs_error *error, struct cimfs_pe_run *run)
{
    struct cimfs_pe_image image;
    const uint8_t *data;
    CIMFS_TRY(cimfs_reader_view(reader, stream->offset, sizeof image, error, &data));
    memcpy(&image, data, sizeof image);
    uint32_t count = get16(image.mapping_count);
    run->header_size = sizeof image + (uint64_t)count * sizeof(struct cimfs_pe_mapping);
    CIMFS_TRY(cimfs_reader_view(reader, stream->offset, run->header_size, error, &data));
    data += sizeof image;
    uint32_t next = mappings_before(data, count, position);
    uint64_t end = next < count ? get32(mapping_at(data, next).file_offset) : stream->length;
    uint64_t delta = next > 0 ? get32(mapping_at(data, next - 1).delta) : 0;
    run->data_offset = get64(image.data_offset);
    run->data_size = get64(image.data_length) & ~CIMFS_PE_LENGTH_FLAG;
    run->size = (end < stream->length ? end : stream->length) - position;
    if (run->data_size > CIMFS_OFFSET_MASK - (run->data_offset & CIMFS_OFFSET_MASK) || position > run->data_size ||
        delta > run->data_size - position || run->size > run->data_size - position - delta)
        return cimfs_reader_corrupt(reader, stream->offset, "a mapping of a PE image points beyond its data", error);
    run->offset = run->data_offset + position + delta;
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_read(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                uint64_t position, void *data, size_t size, struct cimfs_error *error, size_t *got)
{
    *got = 0;
    if (position >= stream->length)
        return CIMFS_OK;
    if (size > stream->length - position)
        size = (size_t)(stream->length - position);
    if (stream->sparse) {
        memset(data, 0, size);
        *got = size;
        return CIMFS_OK;
    }
    uint8_t *to = data;
    while (size > 0) {
        uint64_t run = size;
        uint64_t offset = stream->offset;
        if (stream->type == CIMFS_STREAM_PE_IMAGE) {
            struct cimfs_pe_run found;
            CIMFS_TRY(cimfs_reader_locate_pe(reader, stream, position, error, &found));
            offset = found.offset;
            run = found.size;
        } else if (stream->type != CIMFS_STREAM_DATA) {
            return cimfs_reader_corrupt(reader, offset, "a stream of unknown type", error);
        } else {
            if ((offset & CIMFS_OFFSET_MASK) > CIMFS_OFFSET_MASK - position)
                return cimfs_reader_corrupt(reader, offset, "a stream reaches beyond its region", error);
            offset += position;
        }
        size_t count = run < size ? (size_t)run : size;
        CIMFS_TRY(cimfs_reader_fetch(reader, offset, to, count, error));
        to += count;
        position += count;
        size -= count;
        *got += count;
    }
    return CIMFS_OK;
}
