#include <stdlib.h>

#include "reader_regions.h"

cimfs_hresult cimfs_reader_check_common(const struct cimfs_common_header *common, uint8_t file_type, uint32_t least,
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

cimfs_hresult cimfs_reader_check_filesystem_header(const struct cimfs_reader *reader, struct cimfs_error *error)
{
    size_t length = sizeof(struct cimfs_filesystem_header) + (reader->set_count - 1) * sizeof(struct cimfs_region_set);
    if (reader->header_length == length)
        return CIMFS_OK;
    return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, reader->name, offsetof(struct cimfs_common_header, header_length),
                      "the header has another length than it says");
}

/* ---- opening ---- */

static int by_id(const void *a, const void *b)
{
    return memcmp(&((const struct cimfs_region_set *)a)->id, &((const struct cimfs_region_set *)b)->id,
                  sizeof(struct cimfs_guid));
}

/* Sorts them. A set that stood in the list again and again would cost its files each time. */
static int has_duplicates(struct cimfs_region_set *sets, uint32_t count)
{
    qsort(sets, count, sizeof *sets, by_id);
    for (uint32_t i = 1; i < count; i++)
        if (by_id(&sets[i - 1], &sets[i]) == 0)
            return 1;
    return 0;
}

static cimfs_hresult read_sets(struct cimfs_reader *reader, cimfs_file file, const char **reason)
{
    struct cimfs_filesystem_header header;
    const struct cimfs_io *io = reader->io;
    CIMFS_TRY(io->read(file, &header, sizeof header, 0));
    CIMFS_TRY(cimfs_reader_check_common(&header.common, CIMFS_FILE_FILESYSTEM, sizeof header, reason));
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
        } else if (has_duplicates(raw, reader->set_count)) {
            *reason = "a region set stands in the list twice";
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
    } else if (cimfs_is_no_plain_file(result)) {
        result = CIMFS_E_FILE_CORRUPT;
        reason = "not a regular file";
    }
    if (result == CIMFS_E_HANDLE_EOF) {
        result = CIMFS_E_FILE_CORRUPT;
        reason = "the file ends inside its header";
    }
    return result < 0 ? cimfs_fail(error, result, reader->name, CIMFS_NO_OFFSET, reason) : CIMFS_OK;
}

/* The image that has the name now: extending replaces the .cim file, but keeps the region sets. */
static cimfs_hresult is_still_there(const struct cimfs_reader *reader, int *there)
{
    *there = 0;
    struct cimfs_reader *now = calloc(1, sizeof *now);
    if (!now)
        return CIMFS_E_OUT_OF_MEMORY;
    now->io = reader->io;
    now->directory = reader->directory;
    memcpy(now->name, reader->name, sizeof now->name);
    cimfs_hresult result = read_filesystem_file(now, NULL);
    if (result == CIMFS_OK)
        *there = memcmp(&now->sets[now->set_count - 1].id, &reader->sets[reader->set_count - 1].id,
                        sizeof now->sets->id) == 0;
    else
        *there = result != CIMFS_E_FILE_NOT_FOUND;
    now->directory = CIMFS_NO_FILE;
    cimfs_reader_close(now);
    int unknown = result == CIMFS_E_TOO_MANY_OPEN_FILES || result == CIMFS_E_OUT_OF_MEMORY || result == CIMFS_E_FAIL;
    return unknown ? result : CIMFS_OK;
}

cimfs_hresult cimfs_reader_missing(const struct cimfs_reader *reader, const char *name, const char *reason,
                                   struct cimfs_error *error)
{
    int there;
    cimfs_hresult result = is_still_there(reader, &there);
    if (result < 0)
        return cimfs_fail(error, result, reader->name, CIMFS_NO_OFFSET, NULL);
    if (!there)
        return cimfs_fail(error, CIMFS_E_FILE_NOT_FOUND, reader->name, CIMFS_NO_OFFSET,
                          "the image was removed while it was being read");
    return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, name, CIMFS_NO_OFFSET, reason);
}

static cimfs_hresult read_filesystem(struct cimfs_reader *reader, struct cimfs_error *error)
{
    const uint8_t *data;
    struct cimfs_filesystem filesystem;
    if (reader->filesystem_offset == 0)
        return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, reader->name,
                          offsetof(struct cimfs_filesystem_header, filesystem), "no filesystem object");
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

/* The .cim file alone, in a directory that is open; whatever comes of it, the reader has the directory. */
static cimfs_hresult open_list(const struct cimfs_io *io, cimfs_file directory, const char *directory_path,
                               const char *file_name, struct cimfs_error *error, struct cimfs_reader **out)
{
    *out = NULL;
    size_t path_size = strlen(directory_path) + 1;
    struct cimfs_reader *reader = calloc(1, sizeof *reader + path_size);
    if (!reader) {
        io->close(directory);
        return cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, file_name, CIMFS_NO_OFFSET, NULL);
    }
    reader->io = io;
    reader->directory = directory;
    memcpy(reader->directory_path, directory_path, path_size);
    cimfs_hresult result;
    size_t length = strlen(file_name);
    if (length == 0 || length >= sizeof reader->name || strchr(file_name, '/')) {
        result = cimfs_fail(error, CIMFS_E_INVALID_ARG, file_name, CIMFS_NO_OFFSET, "not the name of a file");
    } else {
        memcpy(reader->name, file_name, length + 1);
        result = read_filesystem_file(reader, error);
    }
    if (result < 0)
        cimfs_reader_close(reader);
    else
        *out = reader;
    return result;
}

cimfs_hresult cimfs_reader_open_list(const struct cimfs_io *io, const char *directory, const char *file_name,
                                     struct cimfs_error *error, struct cimfs_reader **out)
{
    cimfs_file opened;
    *out = NULL;
    cimfs_hresult result = io->open_directory(directory, &opened);
    if (result < 0)
        return cimfs_fail(error, result, directory, CIMFS_NO_OFFSET, "the directory cannot be opened");
    return open_list(io, opened, directory, file_name, error, out);
}

static cimfs_hresult open_tree(struct cimfs_reader *reader, struct cimfs_error *error, struct cimfs_reader **out)
{
    reader->regions = calloc(1, sizeof *reader->regions + reader->region_count * sizeof *reader->regions->maps);
    cimfs_hresult result = reader->regions
                               ? read_filesystem(reader, error)
                               : cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, reader->name, CIMFS_NO_OFFSET, NULL);
    if (result < 0)
        cimfs_reader_close(reader);
    else
        *out = reader;
    return result;
}

cimfs_hresult cimfs_reader_open(const struct cimfs_io *io, const char *directory, const char *file_name,
                                struct cimfs_error *error, struct cimfs_reader **out)
{
    struct cimfs_reader *reader;
    *out = NULL;
    CIMFS_TRY(cimfs_reader_open_list(io, directory, file_name, error, &reader));
    return open_tree(reader, error, out);
}

cimfs_hresult cimfs_reader_open_at(const struct cimfs_io *io, cimfs_file directory, const char *file_name,
                                   struct cimfs_error *error, struct cimfs_reader **out)
{
    struct cimfs_reader *reader;
    *out = NULL;
    CIMFS_TRY(open_list(io, directory, "", file_name, error, &reader));
    return open_tree(reader, error, out);
}

void cimfs_reader_close(struct cimfs_reader *reader)
{
    if (!reader)
        return;
    cimfs_reader_close_regions(reader);
    if (reader->directory != CIMFS_NO_FILE)
        reader->io->close(reader->directory);
    free(reader->sets);
    free(reader);
}

const char *cimfs_reader_name(const struct cimfs_reader *reader)
{
    return reader->name;
}

const struct cimfs_io *cimfs_reader_io(const struct cimfs_reader *reader)
{
    return reader->io;
}

cimfs_file cimfs_reader_directory(const struct cimfs_reader *reader)
{
    return reader->directory;
}

const char *cimfs_reader_directory_path(const struct cimfs_reader *reader)
{
    return reader->directory_path;
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
