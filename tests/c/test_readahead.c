/*
 * Small contents that are read many at a time, in and out of order, and where a read fails.
 */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "libcimfs/contentcheck.h"
#include "libcimfs/readahead.h"
#include "memory_images.h"

enum { FILES = 60, SIZE = 20000, STEP = 7 }; /* each begins with other bytes; all are more than a piece */
enum { FIRST_NAME = 0x4E00 };                /* names of one unit without case */

static struct cimfs_reader *open_files(struct cimfs_extent extents[FILES])
{
    cimfs_image image;
    struct cimfs_reader *reader;
    memory_clear();
    CHECK(open_image(NULL, W("a.cim"), &image) == CIMFS_OK);
    for (int i = 0; i < FILES; i++)
        CHECK(add(image, (const cimfs_wchar[]){(cimfs_wchar)(FIRST_NAME + i), 0}, noise + STEP * i, SIZE, SIZE) ==
              CIMFS_OK);
    CHECK(api->commit_image(image) == CIMFS_OK);
    api->close_image(image);
    CHECK(cimfs_reader_open(&memory_io, "/memory", "a.cim", &last_error, &reader) == CIMFS_OK);
    for (uint16_t i = 0; i < FILES; i++) {
        struct cimfs_record record;
        uint32_t id;
        const uint16_t unit = (uint16_t)(FIRST_NAME + i);
        CHECK(cimfs_reader_lookup(reader, (struct cimfs_name){&unit, 1}, &last_error, &id) == CIMFS_OK);
        CHECK(cimfs_reader_record(reader, id, &last_error, &record) == CIMFS_OK);
        extents[i] = cimfs_extent_of(record.data);
    }
    return reader;
}

/* Was it there already? */
static int check_read(struct cimfs_readahead *ahead, const struct cimfs_reader *reader,
                      const struct cimfs_extent *extents, int file)
{
    const uint8_t *data = cimfs_readahead_find(ahead, &extents[file]);
    int found = data != NULL;
    if (!found)
        CHECK(cimfs_readahead_read(ahead, reader, &extents[file], &last_error, &data) == CIMFS_OK);
    CHECK(memcmp(data, noise + STEP * file, SIZE) == 0);
    CHECK(cimfs_reader_check_whole(reader, &extents[file], data, &last_error) == CIMFS_OK);
    return found;
}

static void test_orders(const struct cimfs_reader *reader, const struct cimfs_extent *extents)
{
    struct cimfs_readahead ahead = {0};
    int found = 0;
    for (int i = 0; i < FILES; i++)
        found += check_read(&ahead, reader, extents, i);
    CHECK(found > FILES * 3 / 4);
    found = 0;
    for (int i = FILES - 1; i >= 0; i--) /* the last piece is still there */
        found += check_read(&ahead, reader, extents, i);
    CHECK(found < FILES / 4);
    for (int i = 0; i < FILES; i++)
        check_read(&ahead, reader, extents, i * 37 % FILES);
    cimfs_readahead_cleanup(&ahead);
}

/* What cannot be read is an error of the file that it belongs to. */
static void test_failing_reads(const struct cimfs_reader *reader, const struct cimfs_extent *extents)
{
    struct cimfs_readahead ahead = {0};
    const uint8_t *data;
    check_read(&ahead, reader, extents, 0);
    memory_fail_at(1, CIMFS_E_IO_DEVICE); /* together with those that follow; alone it can */
    CHECK(!check_read(&ahead, reader, extents, 1));
    memory_fail_at(1, CIMFS_E_FAIL); /* which ends the call */
    CHECK(cimfs_readahead_read(&ahead, reader, &extents[2], &last_error, &data) == CIMFS_E_FAIL);
    memory_fail_at(1, CIMFS_E_IO_DEVICE);
    CHECK(cimfs_readahead_read(&ahead, reader, &extents[9], &last_error, &data) == CIMFS_E_IO_DEVICE);
    CHECK(last_error.offset == (extents[9].offset & CIMFS_OFFSET_MASK));
    memory_fail_at(0, CIMFS_OK);
    CHECK(cimfs_readahead_find(&ahead, &extents[9]) == NULL);
    check_read(&ahead, reader, extents, 9);
    cimfs_readahead_cleanup(&ahead);
}

static void test_contents_that_do_not_match(const struct cimfs_reader *reader, struct cimfs_extent extent)
{
    uint8_t data[SIZE];
    memcpy(data, noise, SIZE);
    data[SIZE / 2] ^= 1;
    CHECK(cimfs_reader_check_whole(reader, &extent, data, &last_error) == CIMFS_E_FILE_CORRUPT);
    extent.length--; /* no object is listed for that */
    CHECK(cimfs_reader_check_whole(reader, &extent, data, &last_error) == CIMFS_OK);
}

void test_readahead(void)
{
    struct cimfs_extent extents[FILES];
    struct cimfs_reader *reader = open_files(extents);
    test_orders(reader, extents);
    test_failing_reads(reader, extents);
    test_contents_that_do_not_match(reader, extents[0]);
    cimfs_reader_close(reader);
    CHECK(memory_is_idle());
}
