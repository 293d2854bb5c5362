#include "metadata.h"

#include <stdlib.h>

#include "descriptor.h"

static int descriptor_is_valid(const struct cimfs_file_metadata *metadata)
{
    uint32_t size = metadata->security_descriptor_size;
    return size == 0 || cimfs_descriptor_is_valid(metadata->security_descriptor, size);
}

static int reparse_is_valid(const struct cimfs_file_metadata *metadata)
{
    enum { HEADER = 8, GUID_HEADER = 24 };
    const uint8_t *data = metadata->reparse_data;
    uint32_t size = metadata->reparse_data_size;
    if (size == 0)
        return 1;
    if (!data || size < HEADER || size > UINT16_MAX)
        return 0;
    uint32_t length = (uint32_t)data[4] | (uint32_t)data[5] << 8;
    int microsoft = data[3] & 0x80;
    return size == length + (microsoft ? HEADER : GUID_HEADER);
}

static int ea_is_valid(const struct cimfs_file_metadata *metadata)
{
    enum { HEADER = 8 };
    const uint8_t *data = metadata->ea;
    uint32_t size = metadata->ea_size;
    if (size == 0)
        return 1;
    if (!data || size > UINT16_MAX)
        return 0;
    for (uint32_t at = 0;;) {
        if (size - at < HEADER)
            return 0;
        uint32_t next = (uint32_t)data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16 |
                        (uint32_t)data[at + 3] << 24;
        uint32_t length = HEADER + 1 + data[at + 5] + ((uint32_t)data[at + 6] | (uint32_t)data[at + 7] << 8);
        if (length > size - at || data[at + 5] == 0)
            return 0;
        if (next == 0)
            return 1;
        if (next < length || next > size - at || next % 4 != 0)
            return 0;
        at += next;
    }
}

const char *cimfs_metadata_problem(const struct cimfs_file_metadata *metadata)
{
    if (metadata->file_size < 0 || (uint64_t)metadata->file_size > CIMFS_OFFSET_MASK)
        return "a file size that is negative or has more than 48 bits";
    if (!descriptor_is_valid(metadata))
        return "the security descriptor is malformed";
    if (!reparse_is_valid(metadata))
        return "the reparse data is malformed";
    if (!ea_is_valid(metadata))
        return "the EA buffer is malformed";
    return NULL;
}

/* A descriptor or reparse buffer stands behind its length. */
static cimfs_hresult put_prefixed(struct cimfs_objects *objects, const void *data, uint32_t size, uint64_t *offset)
{
    uint8_t small[512];
    uint8_t *buffer = size + sizeof(le16) <= sizeof small ? small : malloc(size + sizeof(le16));
    le16 prefix = put16((uint16_t)size);
    if (!buffer)
        return CIMFS_E_OUT_OF_MEMORY;
    memcpy(buffer, &prefix, sizeof prefix);
    memcpy(buffer + sizeof prefix, data, size);
    cimfs_hresult result = cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, buffer, size + sizeof prefix, offset);
    if (buffer != small)
        free(buffer);
    return result;
}

static uint16_t flags_of(uint32_t attributes)
{
    uint32_t flags = attributes & (CIMFS_FLAG_READONLY | CIMFS_FLAG_HIDDEN | CIMFS_FLAG_SYSTEM);
    if (attributes & CIMFS_ATTRIBUTE_ARCHIVE)
        flags |= CIMFS_FLAG_ARCHIVE;
    if (attributes & CIMFS_ATTRIBUTE_SPARSE)
        flags |= CIMFS_FLAG_SPARSE;
    return (uint16_t)flags;
}

cimfs_hresult cimfs_metadata_store(struct cimfs_objects *objects, const struct cimfs_file_metadata *metadata,
                                   struct cimfs_record *record)
{
    const void *descriptor = metadata->security_descriptor_size ? metadata->security_descriptor : CIMFS_NULL_DACL;
    uint32_t descriptor_size =
        metadata->security_descriptor_size ? metadata->security_descriptor_size : sizeof CIMFS_NULL_DACL;
    uint64_t offset;
    *record = (struct cimfs_record){.flags = put16(flags_of(metadata->attributes)),
                                    .ea_length = put16((uint16_t)metadata->ea_size),
                                    .creation_time = put64((uint64_t)metadata->creation_time),
                                    .last_write_time = put64((uint64_t)metadata->last_write_time),
                                    .change_time = put64((uint64_t)metadata->change_time),
                                    .last_access_time = put64((uint64_t)metadata->last_access_time)};
    CIMFS_TRY(put_prefixed(objects, descriptor, descriptor_size, &offset));
    record->security_descriptor = put64(offset);
    if (metadata->reparse_data_size) {
        memcpy(&record->reparse_tag, metadata->reparse_data, sizeof record->reparse_tag);
        CIMFS_TRY(put_prefixed(objects, metadata->reparse_data, metadata->reparse_data_size, &offset));
        record->reparse = put64(offset);
    }
    if (metadata->ea_size) {
        CIMFS_TRY(cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, metadata->ea, metadata->ea_size, &offset));
        record->ea = put64(offset);
    }
    return CIMFS_OK;
}
