/*
 * The bytes of streams: data as it lies, and PE images through their mappings.
 */
#include "reader.h"

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

cimfs_hresult cimfs_reader_read(const struct cimfs_reader *reader, const struct cimfs_extent *stream, uint64_t position,
                                void *data, size_t size, struct cimfs_error *error, size_t *got)
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
