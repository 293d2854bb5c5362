#include "extract.h"

#include <string.h>

#include "libcimfs/contentcheck.h"

enum { HOLE = 1 << 16 }; /* a run of zeros of this length, at a multiple of it, is left out */

static int is_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

static int write_around_holes(intptr_t file, const uint8_t *data, size_t size, uint64_t position)
{
    for (size_t at = 0; at < size; at += HOLE) {
        size_t count = size - at < HOLE ? size - at : HOLE;
        if (!is_zero(data + at, count)) {
            int result = layer_host_write(file, data + at, count, position + at);
            if (result)
                return result;
        }
    }
    return 0;
}

int layer_extract_content(struct layer_extraction *extraction, const struct cimfs_extent *content, int holes,
                          intptr_t file)
{
    struct cimfs_content_check check = {0};
    uint8_t *buffer = extraction->buffer;
    if (content->length > (uint64_t)INT64_MAX)
        return LAYER_TOO_LARGE;
    int result = holes || content->sparse ? layer_host_resize(file, content->length) : 0;
    for (uint64_t position = 0; !result && position < content->length && !content->sparse;) {
        size_t got;
        if (*extraction->stop)
            return LAYER_STOPPED;
        CIMFS_TRY(cimfs_reader_read_checked(extraction->reader, content, &check, position, buffer, LAYER_EXTRACT_BUFFER,
                                            &extraction->error, &got));
        result =
            holes ? write_around_holes(file, buffer, got, position) : layer_host_write(file, buffer, got, position);
        position += got;
    }
    return result;
}
