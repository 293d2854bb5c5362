#include "extract.h"

#include <stdio.h>
#include <string.h>

#include "hostfile.h"
#include "libcimfs/contentcheck.h"

enum {
    HOLE = 1 << 16,      /* a run of zeros of this length, at a multiple of it, is left out */
    TEMPORARY_NAME = 128 /* bytes */
};

static int is_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

static int write_around_holes(layer_host_file file, const uint8_t *data, size_t size, uint64_t position)
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

/* The content from position on; the buffer has its first got bytes. */
static int write_content(struct layer_extraction *extraction, const struct cimfs_extent *content,
                         struct cimfs_content_check *check, int holes, layer_host_file file, uint8_t *buffer,
                         size_t got, struct cimfs_error *error)
{
    uint64_t position = 0;
    int result = holes || content->sparse ? layer_host_resize(file, content->length) : 0;
    while (!result && got > 0) {
        result =
            holes ? write_around_holes(file, buffer, got, position) : layer_host_write(file, buffer, got, position);
        if (result)
            return result;
        position += got;
        atomic_fetch_add_explicit(&extraction->written, got, memory_order_relaxed);
        if (position == content->length)
            return 0;
        if (atomic_load_explicit(&extraction->stop, memory_order_relaxed))
            return LAYER_HOST_STOPPED;
        CIMFS_TRY(cimfs_reader_read_checked(extraction->reader, content, check, position, buffer, LAYER_EXTRACT_PIECE,
                                            error, &got));
    }
    return result;
}

/* Where in the buffer a file's bytes are read to: neither this nor the write to its beginning shall be slow. */
static uint8_t *place_in(uint8_t *buffer, const struct cimfs_extent *content)
{
    uint64_t within = content->offset % CIMFS_HOST_PAGE, most = CIMFS_HOST_PAGE - 64;
    return cimfs_in_page(buffer, within < most ? within : most);
}

static int write_file(struct layer_extraction *extraction, const struct cimfs_extent *content, int holes,
                      const struct layer_host_times *times, layer_host_file directory, const char *name,
                      uint8_t *buffer, struct cimfs_error *error)
{
    struct cimfs_content_check check = {0};
    layer_host_file file;
    buffer = place_in(buffer, content);
    size_t got = 0;
    if (!content->sparse && content->length > 0)
        CIMFS_TRY(cimfs_reader_read_checked(extraction->reader, content, &check, 0, buffer, LAYER_EXTRACT_PIECE, error,
                                            &got));
    int result = layer_host_create(directory, name, holes || content->sparse, &file);
    if (result)
        return result;
    result = write_content(extraction, content, &check, holes, file, buffer, got, error);
    if (result == 0)
        result = layer_host_stamp(file, times);
    int closed = layer_host_close(file);
    if (result == 0)
        result = closed;
    if (result)
        layer_host_remove(directory, name);
    return result;
}

void layer_extraction_init(struct layer_extraction *extraction, const struct cimfs_reader *reader,
                           enum layer_existing existing)
{
    extraction->reader = reader;
    extraction->existing = existing;
    atomic_init(&extraction->stop, 0);
    atomic_init(&extraction->written, 0);
}

void layer_extraction_stop(struct layer_extraction *extraction)
{
    atomic_store(&extraction->stop, 1);
}

uint64_t layer_extraction_written(struct layer_extraction *extraction)
{
    return atomic_load(&extraction->written);
}

int layer_extract_file(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name,
                       uint8_t buffer[LAYER_EXTRACT_BUFFER], int *skipped, struct cimfs_error *error)
{
    struct cimfs_record record;
    char temporary[TEMPORARY_NAME];
    *skipped = 0;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, error, &record));
    struct cimfs_extent content = cimfs_extent_of(record.data);
    int holes = (get16(record.flags) & CIMFS_FLAG_SPARSE) != 0;
    struct layer_host_times times = {.last_access = get64(record.last_access_time),
                                     .last_write = get64(record.last_write_time)};
    if (content.length > (uint64_t)INT64_MAX)
        return LAYER_HOST_TOO_LARGE;
    if (atomic_load_explicit(&extraction->stop, memory_order_relaxed))
        return LAYER_HOST_STOPPED;
    if (extraction->existing == LAYER_EXISTING_SKIPPED &&
        layer_host_is_there(directory, name, content.length, times.last_write)) {
        *skipped = 1;
        return 0;
    }
    int result;
    if (content.sparse || content.length <= LAYER_EXTRACT_PIECE) {
        /* One write: renaming a file takes longer than making it, and one without its time is not taken for whole. */
        result = write_file(extraction, &content, holes, &times, directory, name, buffer, error);
        if (result != LAYER_HOST_EXISTS || extraction->existing == LAYER_EXISTING_REFUSED)
            return result;
    }
    snprintf(temporary, sizeof temporary, "%.64s%x", extraction->temporary, (unsigned)id);
    result = write_file(extraction, &content, holes, &times, directory, temporary, buffer, error);
    if (result)
        return result;
    result = layer_host_rename(directory, temporary, name, extraction->existing != LAYER_EXISTING_REFUSED);
    if (result)
        layer_host_remove(directory, temporary);
    return result;
}
