/*
 * A whole image from one input: opened, walked, read, verified, then forked, changed and committed, and extended. The
 * library may refuse at any point; it must not touch memory that is not its own, leak, or leave files open.
 *
 * The input is a row of 32-bit sizes and then the files of those sizes, all little-endian: how many there are (one
 * byte), where in the first region the upcase table belongs (four bytes; it is left out of the input, being large and
 * dull), the sizes, the .cim file, the region files and the object ID files in the order of the image's region list.
 */
#include <stdlib.h>
#include <string.h>
#include <uchar.h>

#include "libcimfs/guid.h"
#include "libcimfs/reader.h"
#include "libcimfs/upcase.h"
#include "libcimfs/verify.h"
#include "memory_io.h"

enum { MAX_INPUT_FILES = 25, MAX_LOOKS = 300, UPCASE_BYTES = CIMFS_UPCASE_UNITS * 2 };

static struct cimfs_error error;

/* ---- taking the input apart ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t take32(struct input *input)
{
    le32 value = {{0}};
    size_t size = input->left < sizeof value ? input->left : sizeof value;
    memcpy(&value, input->at, size);
    input->at += size;
    input->left -= size;
    return get32(value);
}

/* The name of the region of that index, or "" if the .cim file lists none. */
static void region_name(const uint8_t *cim, size_t size, const char *kind, uint32_t index, char name[CIMFS_FILE_NAME])
{
    struct cimfs_filesystem_header header;
    name[0] = 0;
    if (size < sizeof header)
        return;
    memcpy(&header, cim, sizeof header);
    for (uint32_t i = 0; i < get16(header.parent_count); i++) {
        struct cimfs_region_set set;
        if (size - sizeof header < (i + 1) * sizeof set)
            return;
        memcpy(&set, cim + sizeof header + i * sizeof set, sizeof set);
        if (index < get16(set.count)) {
            cimfs_set_file_name(kind, &set.id, index, name);
            return;
        }
        index -= get16(set.count);
    }
    if (index < get16(header.region_count))
        cimfs_set_file_name(kind, &header.set_id, index, name);
}

static void put_first_region(const char *name, const uint8_t *data, size_t size, size_t upcase_at)
{
    static uint16_t table[CIMFS_UPCASE_UNITS];
    if (upcase_at == 0 || upcase_at > size) {
        memory_put(name, data, size);
        return;
    }
    uint8_t *whole = malloc(size + UPCASE_BYTES);
    if (!whole)
        abort();
    cimfs_upcase_table(table);
    memcpy(whole, data, upcase_at);
    for (size_t i = 0; i < CIMFS_UPCASE_UNITS; i++) {
        le16 unit = put16(table[i]);
        memcpy(whole + upcase_at + 2 * i, &unit, sizeof unit);
    }
    memcpy(whole + upcase_at + UPCASE_BYTES, data + upcase_at, size - upcase_at);
    memory_put(name, whole, size + UPCASE_BYTES);
    free(whole);
}

static void put_files(const uint8_t *data, size_t size)
{
    struct input input = {data + 1, size - 1};
    uint32_t count = data[0] % MAX_INPUT_FILES, sizes[MAX_INPUT_FILES];
    uint32_t regions = count / 2, upcase_at = take32(&input);
    const uint8_t *cim = NULL;
    for (uint32_t i = 0; i < count; i++)
        sizes[i] = take32(&input);
    for (uint32_t i = 0; i < count; i++) {
        char name[CIMFS_FILE_NAME] = "a.cim";
        size_t length = sizes[i] < input.left ? sizes[i] : input.left;
        if (i == 0)
            cim = input.at;
        else if (i <= regions)
            region_name(cim, sizes[0], "region", i - 1, name);
        else
            region_name(cim, sizes[0], "objectid", i - 1 - regions, name);
        if (i == 0)
            sizes[0] = (uint32_t)length;
        if (i == 1)
            put_first_region(name, input.at, length, upcase_at);
        else
            memory_put(name, input.at, length);
        input.at += length;
        input.left -= length;
    }
}

/* ---- looking at everything ---- */

static void read_stream(const struct cimfs_reader *reader, struct cimfs_raw_stream raw)
{
    struct cimfs_extent extent = cimfs_extent_of(raw);
    static const uint64_t positions[] = {0, 1, 4095, 100000};
    uint8_t *buffer = malloc(5000);
    size_t got;
    if (!buffer)
        abort();
    for (size_t i = 0; i < 4; i++)
        cimfs_reader_read(reader, &extent, positions[i], buffer, 5000, &error, &got);
    if (extent.length > 0)
        cimfs_reader_read(reader, &extent, extent.length - 1, buffer, 5000, &error, &got);
    free(buffer);
}

static unsigned sum(const uint8_t *data, size_t size)
{
    unsigned total = 0;
    for (size_t i = 0; i < size; i++)
        total += data[i];
    return total;
}

static volatile unsigned sink;

static void look_at_file(const struct cimfs_reader *reader, const struct cimfs_record *record)
{
    struct cimfs_links links;
    struct cimfs_link pair[2];
    for (int which = CIMFS_SECURITY_DESCRIPTOR; which <= CIMFS_REPARSE_DATA; which++) {
        const uint8_t *data;
        uint32_t size;
        if (cimfs_reader_attachment(reader, record, (enum cimfs_attachment)which, &error, &data, &size) == CIMFS_OK)
            sink += sum(data, size);
    }
    sink += cimfs_attributes_of(record);
    if (!cimfs_is_directory(record))
        read_stream(reader, record->data);
    if (cimfs_reader_streams(reader, record, &error, &links) < 0)
        return;
    for (uint32_t i = 0; i < links.count && i < MAX_LOOKS; i++) {
        struct cimfs_raw_stream raw;
        if (cimfs_links_next(&links, i, &pair[(i + 1) % 2], &error, &pair[i % 2]) < 0)
            return;
        memcpy(&raw, pair[i % 2].value, sizeof raw);
        read_stream(reader, raw);
    }
}

static void walk(const struct cimfs_reader *reader, uint32_t id, int *looks, int depth)
{
    struct cimfs_record record;
    struct cimfs_links links;
    struct cimfs_link pair[2];
    if (--*looks < 0 || depth > 20 || cimfs_reader_record(reader, id, &error, &record) < 0)
        return;
    look_at_file(reader, &record);
    if (!cimfs_is_directory(&record) || cimfs_reader_children(reader, &record, &error, &links) < 0)
        return;
    for (uint32_t i = 0; i < links.count; i++) {
        struct cimfs_link *link = &pair[i % 2], found;
        uint32_t child;
        int there;
        if (cimfs_links_next(&links, i, &pair[(i + 1) % 2], &error, link) < 0 ||
            cimfs_links_file_id(&links, link, &error, &child) < 0)
            return;
        cimfs_links_find(&links, (struct cimfs_name){link->units, link->length}, &error, &found, &there);
        walk(reader, child, looks, depth + 1);
    }
}

static int stop_never(void *context, uint64_t offset, const struct cimfs_error *problem)
{
    (void)context;
    sink += (unsigned)offset + (unsigned)strlen(problem->file) + (unsigned)strlen(problem->reason);
    return 0;
}

static int go_on(void *context, const struct cimfs_verify_counts *counts)
{
    (void)context;
    sink += (unsigned)counts->bytes;
    return 0;
}

static void read_image(const char *name)
{
    struct cimfs_reader *reader;
    struct cimfs_verify_counts counts;
    struct cimfs_check *check;
    const struct cimfs_verify_events events = {NULL, stop_never, go_on};
    int looks = MAX_LOOKS;
    if (cimfs_reader_open(&memory_io, "/memory", name, &error, &reader) < 0)
        return;
    walk(reader, cimfs_reader_root(reader), &looks, 0);
    if (cimfs_verify_begin(&memory_io, reader, &events, &counts, &error, &check) == CIMFS_OK) {
        cimfs_verify_share(check, 1);
        cimfs_verify_end(check, &error);
        cimfs_verify_close(check);
    }
    cimfs_reader_close(reader);
}

/* ---- changing it ---- */

#define W(text) ((const cimfs_wchar *)(u##text))

static void add(const struct cimfs_api *api, cimfs_image image, const cimfs_wchar *path, uint32_t attributes,
                uint32_t size)
{
    static const uint8_t content[9000] = {1, 2, 3};
    struct cimfs_file_metadata metadata = {.attributes = attributes, .file_size = size};
    cimfs_stream stream;
    if (api->create_file(image, path, &metadata, &stream) < 0)
        return;
    if (size > 0) {
        api->write_stream(stream, content, size / 2);
        api->write_stream(stream, content, size - size / 2);
    }
    api->close_stream(stream);
}

static void change(const cimfs_wchar *existing, const cimfs_wchar *name)
{
    const struct cimfs_api *api = cimfs_portable_api();
    const struct cimfs_options options = {.error = &error, .io = &memory_io, .seed = "s", .seed_size = 1};
    cimfs_image image;
    cimfs_stream stream;
    if (api->create_image_with(W("/memory"), existing, name, &options, &image) < 0)
        return;
    add(api, image, W("d"), CIMFS_ATTRIBUTE_DIRECTORY, 0);
    add(api, image, W("d\\new"), 0, 9000);
    add(api, image, W("d\\a"), 0, 100);
    if (api->create_alternate_stream(image, W("full:t"), 5, &stream) == CIMFS_OK)
        api->close_stream(stream);
    api->create_hard_link(image, W("link"), W("d\\b"));
    api->delete_path(image, W("d\\c"));
    api->delete_path(image, W("full:s"));
    api->delete_path(image, W("e"));
    api->commit_image(image);
    api->close_image(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    memory_clear();
    put_files(data, size);
    read_image("a.cim");
    change(W("a.cim"), W("b.cim"));
    read_image("b.cim");
    change(W("a.cim"), NULL);
    read_image("a.cim");
    if (!memory_is_idle())
        abort();
    memory_clear();
    return 0;
}
