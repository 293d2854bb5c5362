/*
 * Link tables: the names of a directory or of a file's streams, and paths looked up through them.
 */
#include "reader.h"

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
    const uint16_t *upcase = cimfs_reader_upcase(links->reader);
    CIMFS_TRY(cimfs_links_at(links, index, error, link));
    if (index > 0 && cimfs_name_compare(upcase, (struct cimfs_name){before->units, before->length},
                                        (struct cimfs_name){link->units, link->length}) >= 0)
        return cimfs_reader_corrupt(links->reader, links->offset, "the names of a link table are out of order", error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_links_find(const struct cimfs_links *links, struct cimfs_name name, struct cimfs_error *error,
                               struct cimfs_link *link, int *found)
{
    const uint16_t *upcase = cimfs_reader_upcase(links->reader);
    uint32_t low = 0, high = links->count;
    *found = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        CIMFS_TRY(cimfs_links_at(links, middle, error, link));
        struct cimfs_name other = {link->units, link->length};
        int order = cimfs_name_compare(upcase, name, other);
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
    if (*id == 0 || table >= cimfs_reader_table_count(links->reader))
        return cimfs_reader_corrupt(links->reader, links->offset, "a directory names a file ID that does not exist",
                                    error);
    return CIMFS_OK;
}

cimfs_hresult cimfs_reader_lookup(const struct cimfs_reader *reader, struct cimfs_name path, struct cimfs_error *error,
                                  uint32_t *id)
{
    struct cimfs_name component;
    struct cimfs_link link;
    *id = cimfs_reader_root(reader);
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
            return cimfs_fail(error, CIMFS_E_PATH_NOT_FOUND, cimfs_reader_name(reader), CIMFS_NO_OFFSET, NULL);
        CIMFS_TRY(cimfs_links_file_id(&links, &link, error, id));
    }
    return CIMFS_OK;
}
