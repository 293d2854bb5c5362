/*
 * One change to a directory of images, with every file operation that changes the directory written down:
 *     record_writes DIRECTORY JOURNAL create|fork|extend
 * A line of the journal is an operation that succeeded; files are numbered by their open handle.
 */
#include <stdio.h>
#include <string.h>
#include <uchar.h>

#include "libcimfs/error.h"
#include "libcimfs/io.h"

static FILE *journal;
static const struct cimfs_api *api;

#define W(text) ((const cimfs_wchar *)u##text)

/* ---- the operating system's operations, recorded ---- */

static cimfs_hresult record_open(cimfs_file directory, const char *name, enum cimfs_open_mode mode, cimfs_file *file)
{
    CIMFS_TRY(cimfs_system_io.open(directory, name, mode, file));
    if (mode != CIMFS_OPEN_READ)
        fprintf(journal, "%s %d %s\n", mode == CIMFS_OPEN_CREATE ? "create" : "open", (int)*file, name);
    return CIMFS_OK;
}

static cimfs_hresult record_write(cimfs_file file, const void *data, size_t size, uint64_t offset)
{
    CIMFS_TRY(cimfs_system_io.write(file, data, size, offset));
    fprintf(journal, "write %d %llu ", (int)file, (unsigned long long)offset);
    for (size_t i = 0; i < size; i++)
        fprintf(journal, "%02x", ((const uint8_t *)data)[i]);
    fputc('\n', journal);
    return CIMFS_OK;
}

static cimfs_hresult record_truncate(cimfs_file file, uint64_t size)
{
    CIMFS_TRY(cimfs_system_io.truncate(file, size));
    fprintf(journal, "truncate %d %llu\n", (int)file, (unsigned long long)size);
    return CIMFS_OK;
}

static cimfs_hresult record_sync(cimfs_file file)
{
    CIMFS_TRY(cimfs_system_io.sync(file));
    fprintf(journal, "sync %d\n", (int)file);
    return CIMFS_OK;
}

static cimfs_hresult record_sync_directory(cimfs_file directory)
{
    CIMFS_TRY(cimfs_system_io.sync_directory(directory));
    fprintf(journal, "sync_directory\n");
    return CIMFS_OK;
}

static cimfs_hresult record_rename(cimfs_file directory, const char *from, const char *to)
{
    CIMFS_TRY(cimfs_system_io.rename(directory, from, to));
    fprintf(journal, "rename %s %s\n", from, to);
    return CIMFS_OK;
}

static cimfs_hresult record_remove(cimfs_file directory, const char *name)
{
    CIMFS_TRY(cimfs_system_io.remove(directory, name));
    fprintf(journal, "remove %s\n", name);
    return CIMFS_OK;
}

/* ---- the changes ---- */

static cimfs_hresult add(cimfs_image image, const cimfs_wchar *path, const char *data, size_t size)
{
    cimfs_stream stream;
    const struct cimfs_file_metadata metadata = {.file_size = (int64_t)size};
    CIMFS_TRY(api->create_file(image, path, &metadata, &stream));
    size_t half = size / 2; /* in two pieces: what turns out to be there already is taken back */
    CIMFS_TRY(api->write_stream(stream, data, (uint32_t)half));
    CIMFS_TRY(api->write_stream(stream, data + half, (uint32_t)(size - half)));
    return api->close_stream(stream);
}

static cimfs_hresult fill(cimfs_image image, char mark)
{
    static char text[20000];
    cimfs_stream stream;
    const struct cimfs_file_metadata directory = {.attributes = CIMFS_ATTRIBUTE_DIRECTORY};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(mark + (char)(i / 4096));
    CIMFS_TRY(api->create_file(image, W("d"), &directory, &stream));
    CIMFS_TRY(api->close_stream(stream));
    CIMFS_TRY(add(image, W("d\\large"), text, sizeof text));
    CIMFS_TRY(add(image, W("d\\equal"), text, sizeof text));
    CIMFS_TRY(add(image, W("d\\small"), text, 100));
    CIMFS_TRY(api->create_alternate_stream(image, W("d\\small:s"), 50, &stream));
    CIMFS_TRY(api->write_stream(stream, text, 50));
    CIMFS_TRY(api->close_stream(stream));
    return api->create_hard_link(image, W("link"), W("d\\small"));
}

static cimfs_hresult change(const cimfs_wchar *directory, const char *kind, const struct cimfs_options *options)
{
    cimfs_image image;
    int creates = strcmp(kind, "create") == 0, forks = strcmp(kind, "fork") == 0;
    CIMFS_TRY(api->create_image_with(directory, creates ? NULL : forks ? W("base.cim") : W("fork.cim"),
                               creates ? W("base.cim") : forks ? W("fork.cim") : NULL, options, &image));
    cimfs_hresult result = fill(image, creates ? 'a' : forks ? 'h' : 'o');
    if (result == CIMFS_OK)
        result = api->commit_image(image);
    api->close_image(image);
    return result;
}

int main(int count, char **words)
{
    static cimfs_wchar directory[4096];
    struct cimfs_io io = cimfs_system_io;
    struct cimfs_error error = {0};
    const struct cimfs_options options = {.error = &error, .io = &io, .time = 1};
    if (count != 4 || strlen(words[1]) >= sizeof directory / sizeof *directory)
        return 2;
    for (size_t i = 0; words[1][i]; i++)
        directory[i] = (cimfs_wchar)words[1][i]; /* a test's directory has an ASCII name */
    journal = fopen(words[2], "w");
    if (!journal)
        return 2;
    io.open = record_open;
    io.write = record_write;
    io.truncate = record_truncate;
    io.sync = record_sync;
    io.sync_directory = record_sync_directory;
    io.rename = record_rename;
    io.remove = record_remove;
    api = cimfs_portable_api();
    cimfs_hresult result = change(directory, words[3], &options);
    if (result < 0)
        fprintf(stderr, "%08X %s %s\n", (unsigned)result, error.file, error.reason ? error.reason : "");
    return fclose(journal) == 0 && result == CIMFS_OK ? 0 : 1;
}
