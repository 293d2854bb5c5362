#include "memory_images.h"

#include <string.h>

#include "check.h"

const struct cimfs_api *api;
struct cimfs_error last_error;
uint8_t noise[NOISE];

void memory_images_init(void)
{
    uint32_t state = 1;
    api = cimfs_portable_api();
    for (size_t i = 0; i < NOISE; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = (uint8_t)(state >> 24);
    }
}

cimfs_hresult open_image(const cimfs_wchar *existing, const cimfs_wchar *name, cimfs_image *image)
{
    const struct cimfs_options options = {.error = &last_error, .io = &memory_io, .seed = "seed", .seed_size = 4};
    last_error.code = CIMFS_OK;
    return api->create_image_with(W("/memory"), existing, name, &options, image);
}

cimfs_hresult write_pieces(cimfs_stream stream, const uint8_t *data, size_t size, size_t piece)
{
    cimfs_hresult result = CIMFS_OK;
    for (size_t at = 0; at < size && result == CIMFS_OK; at += piece)
        result = api->write_stream(stream, data + at, (uint32_t)(size - at < piece ? size - at : piece));
    CHECK(last_error.code == result);
    cimfs_hresult closed = api->close_stream(stream);
    return result < 0 ? result : closed;
}

cimfs_hresult add(cimfs_image image, const cimfs_wchar *path, const uint8_t *data, size_t size, size_t piece)
{
    cimfs_stream stream;
    struct cimfs_file_metadata metadata = {.file_size = (int64_t)size, .creation_time = 7};
    CIMFS_TRY(api->create_file(image, path, &metadata, &stream));
    return write_pieces(stream, data, size, piece);
}

static cimfs_hresult read_all(const char *name, const char16_t *path, uint8_t *to, size_t room, size_t *size)
{
    struct cimfs_reader *reader;
    struct cimfs_record record;
    uint32_t id, length = 0;
    while (path[length])
        length++;
    *size = 0;
    CIMFS_TRY(cimfs_reader_open(&memory_io, "/memory", name, &last_error, &reader));
    struct cimfs_name units = {(const uint16_t *)path, length};
    cimfs_hresult result = cimfs_reader_lookup(reader, units, &last_error, &id);
    if (result == CIMFS_OK)
        result = cimfs_reader_record(reader, id, &last_error, &record);
    if (result == CIMFS_OK) {
        struct cimfs_extent extent = cimfs_extent_of(record.data);
        result = cimfs_reader_read(reader, &extent, 0, to, room, &last_error, size);
    }
    cimfs_reader_close(reader);
    return result;
}

void check_content(const char *name, const char16_t *path, const uint8_t *data, size_t size)
{
    static uint8_t got[NOISE];
    size_t read;
    CHECK(read_all(name, path, got, sizeof got, &read) == CIMFS_OK);
    CHECK(read == size && memcmp(got, data, size) == 0);
}
