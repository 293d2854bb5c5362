#include "backupstream.h"

#include <string.h>

#include "libcimfs/format.h"

enum { GATHER_HEADER, GATHER_NAME, GATHER_BLOCK_OFFSET, HAND_ON };
enum { NOT_SPARSE, TAKES_BLOCKS, CLOSED };

struct stream_header {
    le32 id;
    le32 attributes;
    le64 size;
    le32 name_size; /* in bytes */
};
_Static_assert(sizeof(struct stream_header) == LAYER_BACKUP_HEADER_SIZE, "WIN32_STREAM_ID");
_Static_assert(sizeof(le64) == LAYER_BACKUP_BLOCK_OFFSET_SIZE, "offset of a sparse block");

#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        enum layer_backup_result result_ = (expression);                                                               \
        if (result_ != LAYER_BACKUP_OK)                                                                                \
            return result_;                                                                                            \
    } while (0)

static enum layer_backup_result fail(struct layer_backup_parser *parser, enum layer_backup_result error,
                                     uint64_t offset)
{
    parser->error = error;
    parser->error_offset = offset;
    return error;
}

/* The stream whose header was read last is at fault. */
static enum layer_backup_result refuse(struct layer_backup_parser *parser, enum layer_backup_result error)
{
    return fail(parser, error, parser->header_offset);
}

static void expect(struct layer_backup_parser *parser, int state, uint32_t needed)
{
    parser->state = state;
    parser->needed = needed;
    parser->gathered = 0;
}

static void advance(struct layer_backup_parser *parser, const uint8_t **data, size_t *size, size_t count)
{
    *data += count;
    *size -= count;
    parser->offset += count;
}

/* Whether all the bytes needed are together. */
static int gather(struct layer_backup_parser *parser, const uint8_t **data, size_t *size)
{
    size_t missing = parser->needed - parser->gathered;
    size_t count = *size < missing ? *size : missing;
    memcpy(parser->gather + parser->gathered, *data, count);
    parser->gathered += (uint32_t)count;
    advance(parser, data, size, count);
    return parser->gathered == parser->needed;
}

/* The data of the current stream comes next. */
static void hand_on(struct layer_backup_parser *parser)
{
    if (parser->left > 0)
        parser->state = HAND_ON;
    else
        expect(parser, GATHER_HEADER, LAYER_BACKUP_HEADER_SIZE);
}

/* Another stream than a block follows, or nothing: sparse content must be complete. */
static enum layer_backup_result end_sparse(struct layer_backup_parser *parser, uint64_t offset)
{
    int begun = parser->position > 0 || (parser->content_id == LAYER_BACKUP_ID_DATA && parser->file_size > 0);
    if (parser->sparse == TAKES_BLOCKS && begun)
        return fail(parser, LAYER_BACKUP_E_NOT_CLOSED, offset);
    parser->sparse = NOT_SPARSE;
    return LAYER_BACKUP_OK;
}

static void begin_content(struct layer_backup_parser *parser)
{
    parser->content_id = parser->id;
    parser->sparse = parser->size == 0 && parser->attributes & LAYER_BACKUP_SPARSE ? TAKES_BLOCKS : NOT_SPARSE;
    parser->position = 0;
}

static enum layer_backup_result begin_data(struct layer_backup_parser *parser)
{
    if (parser->content_id != 0)
        return refuse(parser, LAYER_BACKUP_E_LATE_DATA);
    begin_content(parser);
    if (parser->sparse == NOT_SPARSE && parser->size != parser->file_size)
        return refuse(parser, LAYER_BACKUP_E_FILE_SIZE);
    return LAYER_BACKUP_OK;
}

/* Drop the type behind a bare name, in which no colon can stand. */
static int drop_type(const uint16_t *name, uint32_t *length)
{
    static const char type[] = ":$DATA";
    const uint32_t type_length = sizeof type - 1;
    uint32_t end = 0;
    while (end < *length && name[end] != ':')
        end++;
    if (end < *length) {
        if (*length - end != type_length)
            return 0;
        for (uint32_t i = 0; i < type_length; i++) {
            uint16_t unit = name[end + i];
            if (unit >= 'a' && unit <= 'z')
                unit = (uint16_t)(unit - 'a' + 'A');
            if (unit != (uint16_t)type[i])
                return 0;
        }
    }
    *length = end;
    return 1;
}

static int is_stream_name(const uint16_t *name, uint32_t length)
{
    if (length == 0 || length > LAYER_BACKUP_MAX_NAME)
        return 0;
    for (uint32_t i = 0; i < length; i++)
        if (name[i] == 0 || name[i] == '\\' || name[i] == '/')
            return 0;
    return 1;
}

static enum layer_backup_result begin_alternate(struct layer_backup_parser *parser, struct layer_backup_event *event)
{
    uint32_t length = parser->gathered / 2;
    for (uint32_t i = 0; i < length; i++)
        parser->name[i] = (uint16_t)(parser->gather[2 * i] | parser->gather[2 * i + 1] << 8);
    if (parser->content_id == 0 && parser->file_size > 0)
        return refuse(parser, LAYER_BACKUP_E_NO_DATA);
    if (length == 0 || parser->name[0] != ':')
        return refuse(parser, LAYER_BACKUP_E_NAME);
    length--;
    if (!drop_type(parser->name + 1, &length))
        return refuse(parser, LAYER_BACKUP_E_STREAM_TYPE);
    if (!is_stream_name(parser->name + 1, length))
        return refuse(parser, LAYER_BACKUP_E_NAME);
    begin_content(parser);
    event->kind = LAYER_BACKUP_ALTERNATE;
    event->name = parser->name + 1;
    event->name_length = length;
    event->total = parser->sparse == TAKES_BLOCKS ? LAYER_BACKUP_SIZE_UNKNOWN : parser->size;
    return LAYER_BACKUP_OK;
}

/* The block's offset was gathered; what is left of its data is content. */
static enum layer_backup_result begin_block(struct layer_backup_parser *parser, struct layer_backup_event *event)
{
    le64 field;
    memcpy(&field, parser->gather, sizeof field);
    uint64_t at = get64(field);
    uint64_t end = parser->content_id == LAYER_BACKUP_ID_DATA ? parser->file_size : (uint64_t)INT64_MAX;
    if (at < parser->position)
        return refuse(parser, LAYER_BACKUP_E_BLOCK_ORDER);
    if (at > end || parser->left > end - at)
        return refuse(parser, LAYER_BACKUP_E_BLOCK_BEYOND_END);
    if (parser->left == 0) {
        if (parser->content_id == LAYER_BACKUP_ID_DATA && at != end)
            return refuse(parser, LAYER_BACKUP_E_BLOCK_CLOSES_EARLY);
        parser->sparse = CLOSED;
    }
    if (at > parser->position) {
        event->kind = LAYER_BACKUP_ZEROS;
        event->total = at - parser->position;
    }
    parser->position = at + parser->left;
    hand_on(parser);
    return LAYER_BACKUP_OK;
}

static enum layer_backup_result expect_block_offset(struct layer_backup_parser *parser)
{
    if (parser->sparse != TAKES_BLOCKS)
        return refuse(parser, parser->sparse == CLOSED ? LAYER_BACKUP_E_BLOCK_AFTER_CLOSE : LAYER_BACKUP_E_STRAY_BLOCK);
    if (parser->size < LAYER_BACKUP_BLOCK_OFFSET_SIZE)
        return refuse(parser, LAYER_BACKUP_E_BLOCK_SIZE);
    parser->left -= LAYER_BACKUP_BLOCK_OFFSET_SIZE;
    expect(parser, GATHER_BLOCK_OFFSET, LAYER_BACKUP_BLOCK_OFFSET_SIZE);
    return LAYER_BACKUP_OK;
}

static enum layer_backup_result begin_attachment(struct layer_backup_parser *parser, struct layer_backup_event *event)
{
    if (parser->size > LAYER_BACKUP_MAX_ATTACHMENT)
        return refuse(parser, LAYER_BACKUP_E_ATTACHMENT_SIZE);
    if (parser->size == 0) {
        event->kind = LAYER_BACKUP_ATTACHMENT;
        event->id = parser->id;
    }
    return LAYER_BACKUP_OK;
}

/* Header and name are there. */
static enum layer_backup_result begin_stream(struct layer_backup_parser *parser, struct layer_backup_event *event)
{
    if (parser->id == LAYER_BACKUP_ID_SPARSE_BLOCK)
        return expect_block_offset(parser);
    TRY(end_sparse(parser, parser->header_offset));
    switch (parser->id) {
    case LAYER_BACKUP_ID_DATA:
        TRY(begin_data(parser));
        break;
    case LAYER_BACKUP_ID_ALTERNATE:
        TRY(begin_alternate(parser, event));
        break;
    case LAYER_BACKUP_ID_EA:
    case LAYER_BACKUP_ID_SECURITY:
    case LAYER_BACKUP_ID_REPARSE:
        TRY(begin_attachment(parser, event));
        break;
    default:
        break;
    }
    hand_on(parser);
    return LAYER_BACKUP_OK;
}

static enum layer_backup_result read_header(struct layer_backup_parser *parser, struct layer_backup_event *event)
{
    struct stream_header header;
    memcpy(&header, parser->gather, sizeof header);
    parser->id = get32(header.id);
    parser->attributes = get32(header.attributes);
    parser->size = get64(header.size);
    parser->left = parser->size;
    parser->header_offset = parser->offset - sizeof header;
    uint32_t name_size = get32(header.name_size);
    if (parser->id == 0 || parser->id > LAYER_BACKUP_ID_GHOSTED)
        return refuse(parser, LAYER_BACKUP_E_UNKNOWN_ID);
    if (parser->size > INT64_MAX)
        return refuse(parser, LAYER_BACKUP_E_STREAM_SIZE);
    if (name_size % 2 != 0 || name_size > sizeof parser->gather)
        return refuse(parser, LAYER_BACKUP_E_NAME_LENGTH);
    expect(parser, GATHER_NAME, name_size);
    return name_size > 0 ? LAYER_BACKUP_OK : begin_stream(parser, event);
}

/* As much of the current stream's data as lies in the buffer, which is not empty. */
static void hand_on_piece(struct layer_backup_parser *parser, const uint8_t **data, size_t *size,
                          struct layer_backup_event *event)
{
    size_t count = *size < parser->left ? *size : (size_t)parser->left;
    switch (parser->id) {
    case LAYER_BACKUP_ID_DATA:
    case LAYER_BACKUP_ID_ALTERNATE:
    case LAYER_BACKUP_ID_SPARSE_BLOCK:
        *event = (struct layer_backup_event){.kind = LAYER_BACKUP_CONTENT, .data = *data, .size = count};
        break;
    case LAYER_BACKUP_ID_EA:
    case LAYER_BACKUP_ID_SECURITY:
    case LAYER_BACKUP_ID_REPARSE:
        *event = (struct layer_backup_event){.kind = LAYER_BACKUP_ATTACHMENT,
                                             .id = parser->id,
                                             .data = *data,
                                             .size = count,
                                             .offset = parser->size - parser->left,
                                             .total = parser->size};
        break;
    default:
        break;
    }
    advance(parser, data, size, count);
    parser->left -= count;
    hand_on(parser);
}

/* One step; it may or may not make an event. */
static enum layer_backup_result step(struct layer_backup_parser *parser, const uint8_t **data, size_t *size,
                                     struct layer_backup_event *event)
{
    if (parser->state == HAND_ON) {
        hand_on_piece(parser, data, size, event);
        return LAYER_BACKUP_OK;
    }
    if (!gather(parser, data, size))
        return LAYER_BACKUP_OK;
    switch (parser->state) {
    case GATHER_HEADER:
        return read_header(parser, event);
    case GATHER_NAME:
        return begin_stream(parser, event);
    default:
        return begin_block(parser, event);
    }
}

void layer_backup_init(struct layer_backup_parser *parser, uint64_t file_size)
{
    memset(parser, 0, sizeof *parser);
    parser->file_size = file_size;
    expect(parser, GATHER_HEADER, LAYER_BACKUP_HEADER_SIZE);
}

enum layer_backup_result layer_backup_next(struct layer_backup_parser *parser, const uint8_t **data, size_t *size,
                                           struct layer_backup_event *event)
{
    memset(event, 0, sizeof *event);
    TRY(parser->error);
    while (event->kind == LAYER_BACKUP_MORE && *size > 0)
        TRY(step(parser, data, size, event));
    return LAYER_BACKUP_OK;
}

enum layer_backup_result layer_backup_finish(struct layer_backup_parser *parser)
{
    TRY(parser->error);
    if (parser->state != GATHER_HEADER || parser->gathered > 0)
        return fail(parser, LAYER_BACKUP_E_TRUNCATED, parser->offset);
    TRY(end_sparse(parser, parser->offset));
    if (parser->content_id == 0 && parser->file_size > 0)
        return fail(parser, LAYER_BACKUP_E_NO_DATA, parser->offset);
    return LAYER_BACKUP_OK;
}

const char *layer_backup_reason(enum layer_backup_result result)
{
    static const char *const reasons[LAYER_BACKUP_RESULTS] = {
        [LAYER_BACKUP_OK] = "no error",
        [LAYER_BACKUP_E_UNKNOWN_ID] = "unknown stream ID",
        [LAYER_BACKUP_E_STREAM_SIZE] = "stream size has more than 63 bits",
        [LAYER_BACKUP_E_ATTACHMENT_SIZE] = "security, EA or reparse data is too large",
        [LAYER_BACKUP_E_NAME_LENGTH] = "stream name has an odd or too large length",
        [LAYER_BACKUP_E_NAME] = "alternate stream has no valid name",
        [LAYER_BACKUP_E_STREAM_TYPE] = "alternate stream is of another type than $DATA",
        [LAYER_BACKUP_E_LATE_DATA] = "data stream after another stream with content",
        [LAYER_BACKUP_E_FILE_SIZE] = "data stream is not of the file's size",
        [LAYER_BACKUP_E_NO_DATA] = "file has a size, but no data stream came",
        [LAYER_BACKUP_E_STRAY_BLOCK] = "sparse block follows no sparse stream",
        [LAYER_BACKUP_E_BLOCK_AFTER_CLOSE] = "sparse block after the closing one",
        [LAYER_BACKUP_E_BLOCK_SIZE] = "sparse block has no room for its offset",
        [LAYER_BACKUP_E_BLOCK_ORDER] = "sparse block begins before the end of the previous one",
        [LAYER_BACKUP_E_BLOCK_BEYOND_END] = "sparse block goes beyond the end of the file",
        [LAYER_BACKUP_E_BLOCK_CLOSES_EARLY] = "closing sparse block is not at the end of the file",
        [LAYER_BACKUP_E_NOT_CLOSED] = "sparse stream has no closing block",
        [LAYER_BACKUP_E_TRUNCATED] = "backup stream is cut short",
    };
    return (unsigned)result < LAYER_BACKUP_RESULTS ? reasons[result] : "unknown error";
}
