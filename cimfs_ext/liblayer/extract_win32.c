#ifdef _WIN32

#include "extract.h"

#include <string.h>

#include "winfiles.h"

#include <windows.h>

const int LAYER_STOPPED = ERROR_CANCELLED, LAYER_TOO_LARGE = ERROR_FILE_TOO_LARGE;

int layer_host_write(intptr_t file, const uint8_t *data, size_t size, uint64_t position)
{
    return layer_win_write(file, data, size, position);
}

int layer_host_resize(intptr_t file, uint64_t size)
{
    return layer_win_resize(file, size);
}

/* A file or directory of the destination, open, and what it shall be like. */
struct target {
    struct layer_extraction *extraction;
    const struct cimfs_record *record;
    layer_win_file directory, file;
    const char *name;
};

static int write_stream(const struct target *to, const struct cimfs_link *link)
{
    struct cimfs_raw_stream raw;
    memcpy(&raw, link->value, sizeof raw);
    struct cimfs_extent content = cimfs_extent_of(raw);
    layer_win_file stream;
    int result = layer_win_open_stream(to->directory, to->name, link->units, link->length, 1, &stream);
    if (result)
        return result;
    if (content.sparse)
        layer_win_make_sparse(stream); /* or its zeros are stored */
    result = layer_extract_content(to->extraction, &content, 0, stream);
    layer_win_close(stream);
    return result;
}

static int write_streams(const struct target *to)
{
    struct layer_extraction *extraction = to->extraction;
    struct cimfs_links links;
    CIMFS_TRY(cimfs_reader_streams(extraction->reader, to->record, &extraction->error, &links));
    if (links.count > 0 && !(extraction->keep & LAYER_KEEP_STREAMS))
        extraction->lost.streams++;
    else
        for (uint32_t i = 0; i < links.count; i++) {
            struct cimfs_link link;
            CIMFS_TRY(cimfs_links_at(&links, i, &extraction->error, &link));
            int result = write_stream(to, &link);
            if (result)
                return result;
        }
    return 0;
}

static int set_buffer(const struct target *to, enum cimfs_attachment which)
{
    struct layer_extraction *extraction = to->extraction;
    const uint8_t *data;
    uint32_t size;
    int whole = 0;
    CIMFS_TRY(cimfs_reader_attachment(extraction->reader, to->record, which, &extraction->error, &data, &size));
    if (size == 0)
        return 0;
    switch (which) {
    case CIMFS_SECURITY_DESCRIPTOR:
        if (!(extraction->keep & LAYER_KEEP_DESCRIPTOR) || layer_win_set_descriptor(to->file, data, size, &whole) ||
            !whole)
            extraction->lost.descriptors++;
        break;
    case CIMFS_EA_BUFFER:
        if (!(extraction->keep & LAYER_KEEP_EAS) || layer_win_set_eas(to->file, data, size, &whole) || !whole)
            extraction->lost.eas++;
        break;
    case CIMFS_REPARSE_DATA:
        if (!(extraction->keep & LAYER_KEEP_REPARSE) || layer_win_set_reparse(to->file, data, size))
            extraction->lost.reparse_points++;
        break;
    }
    return 0;
}

/* The times last: all else changes them. Nothing but times and links is asked for where no metadata is kept. */
static int set_metadata(const struct target *to)
{
    unsigned keep = to->extraction->keep;
    struct layer_win_stamps stamps = {.last_write_time = (int64_t)get64(to->record->last_write_time),
                                      .last_access_time = (int64_t)get64(to->record->last_access_time)};
    if (keep & LAYER_KEEP_STAMPS) {
        CIMFS_TRY(set_buffer(to, CIMFS_EA_BUFFER));
        stamps.creation_time = (int64_t)get64(to->record->creation_time);
        stamps.change_time = (int64_t)get64(to->record->change_time);
        stamps.attributes = cimfs_attributes_of(to->record);
        stamps.set_attributes = 1;
    }
    if (keep & (LAYER_KEEP_STAMPS | LAYER_KEEP_REPARSE))
        CIMFS_TRY(set_buffer(to, CIMFS_REPARSE_DATA));
    if (keep & LAYER_KEEP_STAMPS)
        CIMFS_TRY(set_buffer(to, CIMFS_SECURITY_DESCRIPTOR));
    return layer_win_stamp(to->file, &stamps);
}

static int write_file(const struct target *to)
{
    struct cimfs_extent content = cimfs_extent_of(to->record->data);
    int sparse = (get16(to->record->flags) & CIMFS_FLAG_SPARSE) != 0;
    if (sparse || content.sparse)
        layer_win_make_sparse(to->file); /* or its zeros are stored */
    int result = layer_extract_content(to->extraction, &content, sparse, to->file);
    if (!result && to->extraction->keep & LAYER_KEEP_STAMPS)
        result = write_streams(to);
    return result ? result : set_metadata(to);
}

int layer_extract_file(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name)
{
    struct cimfs_record record;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, &extraction->error, &record));
    struct target to = {.extraction = extraction, .record = &record, .directory = directory, .name = name};
    int result = layer_win_create(directory, name, LAYER_WIN_FILE, &to.file);
    if (result)
        return result;
    result = write_file(&to);
    if (result)
        layer_win_remove(to.file);
    layer_win_close(to.file);
    return result;
}

int layer_extract_metadata(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name)
{
    struct cimfs_record record;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, &extraction->error, &record));
    struct target to = {.extraction = extraction, .record = &record, .directory = directory, .name = name};
    int result = layer_win_open(directory, name, LAYER_WIN_ANY, LAYER_WIN_MARK, &to.file);
    if (result)
        return result;
    if (extraction->keep & LAYER_KEEP_STAMPS)
        result = write_streams(&to);
    if (!result)
        result = set_metadata(&to);
    layer_win_close(to.file);
    return result;
}

#else

/* ISO C wants something in every file. */
typedef int layer_extract_win32_is_for_windows;

#endif
