/*
 * Sparse files (GNU tar, "Storing Sparse Files"): type S of old GNU headers, and formats 0.0, 0.1 and 1.0 of PAX
 * records. All say which regions of the file have data; the archive has the data of these alone.
 */
#include "tarparts.h"

#include <stdlib.h>

static const struct layer_tar_field REAL_SIZE = {483, 12};
/* Where a header block lists regions, an offset and a size of 12 bytes each, and says whether another one follows. */
static const struct part {
    uint16_t regions, count, more;
} IN_HEADER = {386, 4, 482}, IN_EXTENSION = {0, 21, 504};

static int fail(struct layer_tar *tar)
{
    return layer_tar_fail(tar, "a malformed map of a sparse file");
}

static int add_region(struct layer_tar *tar, uint64_t offset, uint64_t size)
{
    struct layer_sparse *sparse = &tar->sparse;
    const struct layer_region *last = sparse->count ? &sparse->regions[sparse->count - 1] : NULL;
    if (size > INT64_MAX || offset > INT64_MAX - size || (last && offset < last->offset + last->size))
        return fail(tar);
    if (size == 0)
        return 0; /* as at the end of a file that ends in a hole */
    if (sparse->count == LAYER_TAR_MAX_REGIONS)
        return layer_tar_fail(tar, "a sparse file of more than 1,048,576 regions");
    if (sparse->count == sparse->capacity) {
        size_t grown = sparse->capacity ? sparse->capacity * 2 : 64;
        struct layer_region *regions = realloc(sparse->regions, grown * sizeof *regions);
        if (!regions)
            return layer_tar_fail(tar, "out of memory");
        sparse->regions = regions;
        sparse->capacity = grown;
    }
    sparse->regions[sparse->count++] = (struct layer_region){offset, size};
    return 0;
}

/* The numbers of all PAX formats are offset and size by turns. */
static int add_number(struct layer_tar *tar, uint64_t number)
{
    struct layer_sparse *sparse = &tar->sparse;
    sparse->has_offset = !sparse->has_offset;
    if (!sparse->has_offset)
        return add_region(tar, sparse->offset, number);
    sparse->offset = number;
    return 0;
}

int layer_tar_sparse_record(struct layer_tar *tar, int is_size, struct layer_slice value)
{
    uint64_t number;
    if (is_size != tar->sparse.has_offset || layer_tar_decimal(value, &number) < 0)
        return fail(tar);
    return add_number(tar, number);
}

/* Format 0.1: "offset,size,offset,size" in one record. */
static int take_list(struct layer_tar *tar, struct layer_slice list)
{
    layer_tar_reset_sparse(tar);
    while (list.size > 0) {
        const char *comma = memchr(list.data, ',', list.size);
        struct layer_slice text = {list.data, comma ? (size_t)(comma - list.data) : list.size};
        uint64_t number;
        if (layer_tar_decimal(text, &number) < 0)
            return fail(tar);
        if (add_number(tar, number) < 0)
            return -1;
        size_t used = text.size + (comma != NULL);
        list = (struct layer_slice){list.data + used, list.size - used};
    }
    return 0;
}

/* The map is complete: the entry begins. */
static int begin(struct layer_tar *tar)
{
    const struct layer_sparse *sparse = &tar->sparse;
    const struct layer_region *last = sparse->count ? &sparse->regions[sparse->count - 1] : NULL;
    uint64_t data = 0;
    for (size_t i = 0; i < sparse->count; i++)
        data += sparse->regions[i].size; /* at most the last one's end: they are in order */
    if (sparse->has_offset || data != tar->left || (last && last->offset + last->size > tar->entry.size))
        return fail(tar);
    tar->entry.sparse = 1;
    tar->state = DATA;
    return 1;
}

/* ---- type S ---- */

static int take_regions(struct layer_tar *tar, const uint8_t *block, struct part part)
{
    for (uint16_t i = 0; i < part.count; i++) {
        struct layer_tar_field offset = {(uint16_t)(part.regions + 24 * i), 12};
        struct layer_tar_field size = {(uint16_t)(offset.offset + 12), 12};
        int64_t from, count;
        if (block[offset.offset] == 0)
            break;
        if (layer_tar_number(block, offset, &from) < 0 || layer_tar_number(block, size, &count) < 0 || from < 0 ||
            count < 0)
            return fail(tar);
        if (add_region(tar, (uint64_t)from, (uint64_t)count) < 0)
            return -1;
    }
    if (!block[part.more])
        return begin(tar);
    tar->state = SPARSE_HEADER;
    return 0;
}

int layer_tar_take_sparse_header(struct layer_tar *tar)
{
    return take_regions(tar, tar->block, IN_EXTENSION);
}

/* ---- PAX ---- */

int layer_tar_take_sparse_map(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    struct layer_sparse *sparse = &tar->sparse;
    while (*size > 0) {
        uint8_t byte = **input;
        int complete = sparse->numbers > 0 && sparse->numbers == sparse->expected;
        (*input)++;
        (*size)--;
        tar->offset++;
        tar->left--;
        sparse->map_size++;
        if (!complete && byte >= '0' && byte <= '9') {
            if (sparse->number > INT64_MAX / 10 - 1)
                return fail(tar);
            sparse->number = sparse->number * 10 + (uint64_t)(byte - '0');
        } else if (!complete && byte == '\n') {
            /* The first number says how many regions there are. */
            if (sparse->numbers++ > 0) {
                if (add_number(tar, sparse->number) < 0)
                    return -1;
            } else if (sparse->number > LAYER_TAR_MAX_REGIONS) {
                return layer_tar_fail(tar, "a sparse file of more than 1,048,576 regions");
            } else {
                sparse->expected = 1 + 2 * sparse->number;
            }
            sparse->number = 0;
        } else if (!complete) {
            return fail(tar);
        }
        if (sparse->numbers > 0 && sparse->numbers == sparse->expected && sparse->map_size % LAYER_TAR_BLOCK == 0)
            return begin(tar);
        if (tar->left == 0)
            return fail(tar);
    }
    return 0;
}

static int is_text(struct layer_slice slice, const char *text)
{
    return slice.size == strlen(text) && memcmp(slice.data, text, slice.size) == 0;
}

static int start_pax(struct layer_tar *tar)
{
    const struct layer_pax *pax = &tar->local;
    struct layer_slice size = pax->sparse_size.size ? pax->sparse_size : pax->sparse_real_size;
    int numbered = pax->sparse_major.size || pax->sparse_minor.size;
    int in_data = is_text(pax->sparse_major, "1") && is_text(pax->sparse_minor, "0");
    int in_records =
        is_text(pax->sparse_major, "0") && (is_text(pax->sparse_minor, "0") || is_text(pax->sparse_minor, "1"));
    if (numbered && !in_data && !in_records)
        return layer_tar_fail(tar, "a sparse file of unknown format");
    if (layer_tar_decimal(size, &tar->entry.size) < 0 || tar->entry.size > INT64_MAX - LAYER_TAR_BLOCK)
        return layer_tar_fail(tar, "a sparse file whose size is missing or malformed");
    if (pax->sparse_name.size)
        tar->entry.name = pax->sparse_name;
    if (in_data) {
        layer_tar_reset_sparse(tar);
        tar->state = SPARSE_MAP;
        return tar->left > 0 ? 0 : fail(tar);
    }
    if (pax->sparse_map.size && take_list(tar, pax->sparse_map) < 0)
        return -1;
    return begin(tar);
}

int layer_tar_start_sparse(struct layer_tar *tar, char type)
{
    const struct layer_pax *pax = &tar->local;
    if (type == 'S') {
        int64_t size;
        if (!layer_tar_is_gnu(tar->header))
            return layer_tar_fail(tar, "a sparse file of unknown format");
        if (layer_tar_number(tar->header, REAL_SIZE, &size) < 0 || size < 0 || size > INT64_MAX - LAYER_TAR_BLOCK)
            return layer_tar_fail(tar, "a sparse file whose size is missing or malformed");
        tar->entry.size = (uint64_t)size;
        layer_tar_reset_sparse(tar);
        return take_regions(tar, tar->header, IN_HEADER);
    }
    if (pax->sparse_major.size || pax->sparse_minor.size || pax->sparse_size.size || pax->sparse_map.size)
        return start_pax(tar);
    layer_tar_reset_sparse(tar); /* records without a size mean nothing */
    return 1;
}

/* ---- content ---- */

size_t layer_tar_take_hole(struct layer_tar *tar)
{
    struct layer_sparse *sparse = &tar->sparse;
    if (layer_tar_run(tar) == 0 && sparse->next < sparse->count)
        sparse->next++;
    uint64_t end = sparse->next < sparse->count ? sparse->regions[sparse->next].offset : tar->entry.size;
    uint64_t hole = end > sparse->position ? end - sparse->position : 0;
    size_t count = hole < SIZE_MAX ? (size_t)hole : SIZE_MAX;
    sparse->position += count;
    return count;
}

uint64_t layer_tar_run(const struct layer_tar *tar)
{
    const struct layer_sparse *sparse = &tar->sparse;
    if (sparse->next == sparse->count)
        return 0;
    return sparse->regions[sparse->next].offset + sparse->regions[sparse->next].size - sparse->position;
}
