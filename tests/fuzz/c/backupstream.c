/*
 * libFuzzer entry: however a backup stream is cut, it gives the same events and the same error, and content
 * that is accepted adds up to the file's size.
 *
 * The input: a byte that picks the cuts, two bytes of file size (little-endian), then the backup stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "liblayer/backupstream.h"
#include "checks.h"

/* What is independent of the cuts. */
struct summary {
    enum layer_backup_result result;
    uint64_t error_offset;
    uint64_t taken;
    uint64_t hash;        /* of all bytes and all beginnings, in order */
    uint64_t file_length; /* content and zeros of the default stream */
    uint64_t length;      /* of the alternate stream begun last */
    uint64_t announced;   /* its size */
    int alternate;        /* whether one has begun */
};

static void check_complete(const struct summary *summary)
{
    if (summary->alternate && summary->announced != LAYER_BACKUP_SIZE_UNKNOWN)
        REQUIRE(summary->length == summary->announced);
}

static void add_event(struct summary *summary, const struct layer_backup_event *event)
{
    uint64_t *length = summary->alternate ? &summary->length : &summary->file_length;
    switch (event->kind) {
    case LAYER_BACKUP_ATTACHMENT:
        REQUIRE(event->total <= LAYER_BACKUP_MAX_ATTACHMENT);
        REQUIRE(event->offset <= event->total && event->size <= event->total - event->offset);
        if (event->offset == 0)
            mix(&summary->hash, &event->id, sizeof event->id);
        mix(&summary->hash, event->data, event->size);
        break;
    case LAYER_BACKUP_CONTENT:
        REQUIRE(event->size > 0);
        mix(&summary->hash, event->data, event->size);
        *length += event->size;
        break;
    case LAYER_BACKUP_ZEROS:
        REQUIRE(event->total > 0);
        mix(&summary->hash, &event->total, sizeof event->total);
        *length += event->total;
        break;
    case LAYER_BACKUP_ALTERNATE:
        REQUIRE(event->name_length > 0 && event->name_length <= LAYER_BACKUP_MAX_NAME);
        check_complete(summary);
        mix(&summary->hash, event->name, event->name_length * sizeof *event->name);
        mix(&summary->hash, &event->total, sizeof event->total);
        summary->alternate = 1;
        summary->announced = event->total;
        summary->length = 0;
        break;
    default:
        abort();
    }
}

/* Every write is a buffer of its own, so that a read beyond it is seen. */
static enum layer_backup_result feed(struct layer_backup_parser *parser, const uint8_t *data, size_t size,
                                     struct summary *summary)
{
    uint8_t *copy = malloc(size);
    REQUIRE(copy);
    memcpy(copy, data, size);
    const uint8_t *at = copy;
    struct layer_backup_event event;
    enum layer_backup_result result;
    for (;;) {
        result = layer_backup_next(parser, &at, &size, &event);
        if (result != LAYER_BACKUP_OK || event.kind == LAYER_BACKUP_MORE)
            break;
        add_event(summary, &event);
    }
    REQUIRE(result != LAYER_BACKUP_OK || size == 0);
    free(copy);
    return result;
}

static struct summary parse(const uint8_t *data, size_t size, uint64_t file_size, size_t cut)
{
    struct layer_backup_parser parser;
    struct summary summary = {.hash = HASH_OF_NOTHING};
    layer_backup_init(&parser, file_size);
    size_t taken = 0;
    while (taken < size && summary.result == LAYER_BACKUP_OK) {
        size_t count = size - taken < cut ? size - taken : cut;
        summary.result = feed(&parser, data + taken, count, &summary);
        taken += count;
    }
    if (summary.result == LAYER_BACKUP_OK)
        summary.result = layer_backup_finish(&parser);
    if (summary.result == LAYER_BACKUP_OK) {
        REQUIRE(parser.offset == size);
        REQUIRE(summary.file_length == file_size);
        check_complete(&summary);
    } else {
        REQUIRE(layer_backup_finish(&parser) == summary.result);
        REQUIRE(strcmp(layer_backup_reason(summary.result), "unknown error") != 0);
        summary.error_offset = parser.error_offset;
        REQUIRE(summary.error_offset <= parser.offset);
    }
    summary.taken = parser.offset;
    return summary;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    uint64_t file_size = (uint64_t)data[1] | (uint64_t)data[2] << 8;
    size_t cut = 1 + (size_t)data[0] % 64;
    struct summary whole = parse(data + 3, size - 3, file_size, SIZE_MAX);
    struct summary cut_up = parse(data + 3, size - 3, file_size, cut);
    REQUIRE(whole.result == cut_up.result);
    REQUIRE(whole.error_offset == cut_up.error_offset);
    REQUIRE(whole.taken == cut_up.taken);
    REQUIRE(whole.hash == cut_up.hash);
    return 0;
}
