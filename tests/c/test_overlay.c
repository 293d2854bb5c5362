/*
 * Merging a link table that changes between two reads, as that of a damaged or a busy file may.
 */
#include <stdlib.h>
#include <string.h>
#include <uchar.h>

#include "libcimfs/overlay.c" /* for what is static there; not linked again */
#include "check.h"

/* Children "d" and "x" of a directory; what stands behind the last name belongs to no name. */
static const uint8_t TWO_NAMES[] = {40, 0, 0, 0, 2, 0, 0,   0, 1, 0, 0,   0, 1,   0, 0,   0, 24,  0, 0,   0,
                                    28, 0, 0, 0, 1, 0, 'd', 0, 1, 0, 'x', 0, 'y', 0, 'y', 0, 'y', 0, 'y', 0};
enum { FIRST_UNIT = 26, SECOND_LENGTH = 28 };

/* Measures the table with one name set over it, changes one byte of it, and fills what was measured. */
static cimfs_hresult fill_a_changed_table(const struct cimfs_reader *reader, const char16_t *name, uint32_t value,
                                          size_t at, uint8_t before, uint8_t after)
{
    uint8_t bytes[sizeof TWO_NAMES];
    struct cimfs_links links = {.table = bytes, .length = sizeof bytes, .count = 2, .value_size = 4, .reader = reader};
    struct cimfs_error error;
    struct cimfs_overlay overlay;
    struct cimfs_owner *owner;
    uint64_t size = 0;
    uint32_t count;
    memcpy(bytes, TWO_NAMES, sizeof bytes);
    bytes[at] = before;
    CHECK(cimfs_overlay_open(&overlay, &memory_io, cimfs_reader_upcase(reader), &error) == CIMFS_OK);
    CHECK(cimfs_overlay_change(&overlay, 1, CIMFS_OWNER_CHILDREN, &links, &owner) == CIMFS_OK);
    CHECK(cimfs_overlay_set(&overlay, owner, (struct cimfs_name){(const uint16_t *)name, 1}, value) == CIMFS_OK);
    struct merge merge = {.overlay = &overlay, .owner = owner};
    CHECK(sorted_names(&overlay, owner, &merge.names, &merge.name_count) == CIMFS_OK);
    CHECK(measure(merge, &count, &size) == CIMFS_OK);
    bytes[at] = after;
    uint8_t *table = malloc((size_t)size);
    cimfs_hresult result = table ? fill(merge, table, count, (uint32_t)size) : CIMFS_E_OUT_OF_MEMORY;
    free(table);
    free(merge.names);
    cimfs_overlay_close(&overlay);
    return result;
}

void test_changing_link_table(const struct cimfs_reader *reader)
{
    static const struct {
        const char16_t *name; /* in the overlay; value 0: deleted */
        uint32_t value;
        size_t at;
        uint8_t before, after;
        cimfs_hresult result;
    } cases[] = {
        {u"m", 7, SECOND_LENGTH, 1, 1, CIMFS_OK},
        {u"m", 7, SECOND_LENGTH, 1, 5, CIMFS_E_FILE_CORRUPT},  /* a name grows */
        {u"m", 7, SECOND_LENGTH, 5, 1, CIMFS_E_FILE_CORRUPT},  /* and shrinks */
        {u"m", 7, FIRST_UNIT, 'd', 'm', CIMFS_E_FILE_CORRUPT}, /* one name less: it is the overlay's now */
        {u"d", 0, FIRST_UNIT, 'd', 'c', CIMFS_E_FILE_CORRUPT}, /* one more: it is no longer the deleted one */
        {u"d", 0, FIRST_UNIT, 'd', 'z', CIMFS_E_FILE_CORRUPT}, /* out of order */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(fill_a_changed_table(reader, cases[i].name, cases[i].value, cases[i].at, cases[i].before,
                                   cases[i].after) == cases[i].result);
}
