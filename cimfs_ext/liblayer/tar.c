#include "tarparts.h"

#include <stdlib.h>

void layer_tar_init(struct layer_tar *tar)
{
    memset(tar, 0, sizeof *tar);
    tar->state = HEADER;
    tar->entry_offset = UINT64_MAX;
}

void layer_tar_cleanup(struct layer_tar *tar)
{
    layer_tar_free_records(&tar->local);
    layer_tar_free_records(&tar->global);
    layer_tar_free_records(&tar->incoming);
    layer_tar_free_records(&tar->long_name);
    layer_tar_free_records(&tar->long_link);
    free(tar->eas);
    tar->eas = NULL;
    free(tar->sparse.regions);
    tar->sparse = (struct layer_sparse){0};
}

static void use(struct layer_tar *tar, const uint8_t **input, size_t *size, size_t count)
{
    *input += count;
    *size -= count;
    tar->offset += count;
}

static size_t at_most(size_t size, uint64_t limit)
{
    return size < limit ? size : (size_t)limit;
}

static void gather_header(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    size_t count = at_most(*size, LAYER_TAR_BLOCK - tar->gathered);
    memcpy(tar->block + tar->gathered, *input, count);
    tar->gathered += (uint32_t)count;
    use(tar, input, size, count);
}

static void gather_records(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    struct layer_pax *pax = layer_tar_records(tar);
    size_t count = at_most(*size, tar->left);
    if (count)
        memcpy(pax->text + pax->text_size, *input, count);
    pax->text_size += count;
    tar->left -= count;
    use(tar, input, size, count);
}

/* The entry was taken: what was said for it alone is over. */
static void end_entry(struct layer_tar *tar)
{
    layer_tar_reset_records(&tar->local);
    layer_tar_reset_records(&tar->long_name);
    layer_tar_reset_records(&tar->long_link);
    layer_tar_reset_sparse(tar);
    tar->entry_offset = UINT64_MAX;
    tar->state = HEADER;
}

static int skip_padding(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    size_t count = at_most(*size, tar->padding);
    tar->padding -= (uint32_t)count;
    use(tar, input, size, count);
    return tar->padding == 0;
}

/* What comes next if it is not data: an event, or NEED_INPUT with input left to go on with. */
static enum layer_tar_event step(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    int result = 0;
    switch (tar->state) {
    case HEADER:
        gather_header(tar, input, size);
        if (tar->gathered == LAYER_TAR_BLOCK) {
            tar->gathered = 0;
            result = layer_tar_take_header(tar);
        }
        break;
    case RECORDS:
        gather_records(tar, input, size);
        if (tar->left == 0) {
            tar->state = RECORDS_PADDING;
            if (tar->record_type != 'L' && tar->record_type != 'K')
                result = layer_tar_parse_records(tar, layer_tar_records(tar));
            if (result == 0 && tar->record_type == 'g')
                result = layer_tar_merge_globals(tar);
        }
        break;
    case RECORDS_PADDING:
        if (skip_padding(tar, input, size)) {
            tar->state = HEADER;
            if (tar->record_type == 'g')
                tar->entry_offset = UINT64_MAX;
        }
        break;
    case SPARSE_HEADER:
        gather_header(tar, input, size);
        if (tar->gathered == LAYER_TAR_BLOCK) {
            tar->gathered = 0;
            result = layer_tar_take_sparse_header(tar);
        }
        break;
    case SPARSE_MAP:
        result = layer_tar_take_sparse_map(tar, input, size);
        break;
    default: /* DATA_PADDING */
        if (skip_padding(tar, input, size))
            end_entry(tar);
        break;
    }
    return result < 0 ? LAYER_TAR_ERROR : result > 0 ? LAYER_TAR_ENTRY : LAYER_TAR_NEED_INPUT;
}

enum layer_tar_event layer_tar_next(struct layer_tar *tar, const uint8_t **input, size_t *size,
                                    struct layer_slice *piece)
{
    for (;;) {
        if (tar->reason)
            return LAYER_TAR_ERROR;
        if (tar->state == DONE) {
            use(tar, input, size, *size);
            return LAYER_TAR_END;
        }
        uint64_t run = tar->left;
        if (tar->state == DATA && tar->entry.sparse) {
            *piece = (struct layer_slice){NULL, layer_tar_take_hole(tar)};
            if (piece->size > 0)
                return LAYER_TAR_HOLE;
            run = layer_tar_run(tar);
        }
        if (tar->state == DATA && tar->left == 0) {
            tar->state = DATA_PADDING;
            return LAYER_TAR_ENTRY_END;
        }
        /* These go on without input: nothing is left of their padding or their records. */
        int free_step = (tar->state == RECORDS && tar->left == 0) ||
                        ((tar->state == RECORDS_PADDING || tar->state == DATA_PADDING) && tar->padding == 0);
        if (*size == 0 && !free_step)
            return LAYER_TAR_NEED_INPUT;
        if (tar->state == DATA) {
            *piece = (struct layer_slice){(const char *)*input, at_most(*size, run)};
            tar->left -= piece->size;
            tar->sparse.position += piece->size;
            use(tar, input, size, piece->size);
            return LAYER_TAR_DATA;
        }
        enum layer_tar_event event = step(tar, input, size);
        if (event != LAYER_TAR_NEED_INPUT)
            return event;
    }
}

uint64_t layer_tar_content(const struct layer_tar *tar)
{
    return tar->state == DATA && !tar->entry.sparse ? tar->left : 0;
}

uint64_t layer_tar_skip(struct layer_tar *tar)
{
    uint64_t count = tar->left;
    tar->left = 0;
    tar->offset += count;
    tar->sparse.next = tar->sparse.count;
    tar->sparse.position = tar->entry.size;
    return count;
}

int layer_tar_finish(struct layer_tar *tar)
{
    if (tar->reason)
        return -1;
    int between = tar->state == DONE ||
                  (tar->state == HEADER && tar->gathered == 0 && tar->entry_offset == UINT64_MAX) ||
                  (tar->state == DATA_PADDING && tar->left == 0);
    return between ? 0 : layer_tar_fail(tar, "the archive ends inside an entry");
}
