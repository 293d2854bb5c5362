#include <stdlib.h>

#include "check.h"

#define PROGRESS_STEPS (1u << 14) /* between two calls of progress, where little or nothing is read */

cimfs_hresult cimfs_check_append(struct cimfs_check_list *list, const struct cimfs_check_extent *item)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4096;
        struct cimfs_check_extent *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return CIMFS_E_OUT_OF_MEMORY;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = *item;
    return CIMFS_OK;
}

cimfs_hresult cimfs_check_problem(struct cimfs_check *check, cimfs_hresult code, uint64_t offset)
{
    if (code >= 0 || code == CIMFS_E_OUT_OF_MEMORY || code == CIMFS_E_TOO_MANY_OPEN_FILES || code == CIMFS_E_FAIL ||
        code == CIMFS_E_FILE_NOT_FOUND)
        return code;
    check->counts->problems++;
    return check->events->problem(check->events->context, offset, &check->error) ? CIMFS_E_FAIL : CIMFS_OK;
}

cimfs_hresult cimfs_check_corrupt(struct cimfs_check *check, uint64_t offset, const char *reason)
{
    return cimfs_check_problem(check, cimfs_reader_corrupt(check->reader, offset, reason, &check->error), offset);
}

cimfs_hresult cimfs_verify_progress(struct cimfs_check *check)
{
    uint64_t read = atomic_load(&check->read);
    if (read > check->reported)
        check->reported = read;
    check->counts->bytes = check->reported;
    if (check->events->progress(check->events->context, check->counts))
        atomic_store(&check->stopped, 1);
    return atomic_load(&check->stopped) ? CIMFS_E_FAIL : CIMFS_OK;
}

cimfs_hresult cimfs_check_step(struct cimfs_check *check)
{
    return ++check->steps % PROGRESS_STEPS == 0 ? cimfs_verify_progress(check) : CIMFS_OK;
}

/* Most files have one of a few descriptors. */
static cimfs_hresult refer(struct cimfs_check *check, uint64_t offset, uint64_t length)
{
    struct cimfs_check_extent extent = {.offset = offset, .length = length};
    struct cimfs_check_extent *recent = &check->recent[offset * UINT64_C(0x9E3779B97F4A7C15) >> 56];
    if (length == 0 || (recent->offset == offset && recent->length == length))
        return CIMFS_OK;
    *recent = extent;
    return cimfs_check_append(&check->referred, &extent);
}

/*
 * Where the table is remembered, and whether it has still to be walked. size: of the bytes to walk; tables that are
 * larger than all regions together overlap, and walking all of them would take the square of the image's size.
 */
static cimfs_hresult meet_table(struct cimfs_check *check, const struct cimfs_walked_table *table, uint64_t size,
                                uint32_t *index, int *fresh)
{
    CIMFS_TRY(cimfs_walked_meet(&check->walked, table, index, fresh));
    if (!*fresh)
        return CIMFS_OK;
    if (size > check->region_bytes - check->walked_bytes) {
        *fresh = 0;
        return cimfs_check_corrupt(check, table->offset, "the tables of the image overlap one another");
    }
    check->walked_bytes += size;
    return CIMFS_OK;
}

/* Each run is looked up, none is read: files may share their data, which is read once with the other objects. */
static cimfs_hresult visit_pe(struct cimfs_check *check, const struct cimfs_extent *stream)
{
    struct cimfs_pe_run run;
    uint32_t index;
    int fresh;
    cimfs_hresult result = cimfs_reader_locate_pe(check->reader, stream, 0, &check->error, &run);
    if (result < 0)
        return cimfs_check_problem(check, result, stream->offset);
    const struct cimfs_walked_table table = {
        .offset = stream->offset, .length = stream->length, .kind = CIMFS_TABLE_PE_MAPPINGS};
    CIMFS_TRY(meet_table(check, &table, run.header_size, &index, &fresh));
    if (!fresh)
        return CIMFS_OK;
    for (uint64_t at = run.size; at < stream->length; at += run.size) {
        CIMFS_TRY(cimfs_check_step(check));
        result = cimfs_reader_locate_pe(check->reader, stream, at, &check->error, &run);
        if (result < 0)
            return cimfs_check_problem(check, result, stream->offset);
    }
    CIMFS_TRY(refer(check, stream->offset, run.header_size));
    return refer(check, run.data_offset, run.data_size);
}

static cimfs_hresult visit_stream(struct cimfs_check *check, const struct cimfs_extent *stream)
{
    if (stream->length == 0 || stream->sparse)
        return CIMFS_OK;
    if (stream->type == CIMFS_STREAM_DATA)
        return refer(check, stream->offset, stream->length);
    if (stream->type != CIMFS_STREAM_PE_IMAGE)
        return cimfs_check_corrupt(check, stream->offset, "a stream of unknown type");
    return visit_pe(check, stream);
}

static cimfs_hresult visit_attachments(struct cimfs_check *check, const struct cimfs_record *record)
{
    static const enum cimfs_attachment kinds[] = {CIMFS_SECURITY_DESCRIPTOR, CIMFS_EA_BUFFER, CIMFS_REPARSE_DATA};
    const le64 offsets[] = {record->security_descriptor, record->ea, record->reparse};
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *data;
        uint32_t size;
        uint64_t offset = get64(offsets[i]);
        cimfs_hresult result = cimfs_reader_attachment(check->reader, record, kinds[i], &check->error, &data, &size);
        if (result < 0) {
            CIMFS_TRY(cimfs_check_problem(check, result, offset));
            continue;
        }
        if (offset != 0)
            CIMFS_TRY(refer(check, offset, size + (kinds[i] == CIMFS_EA_BUFFER ? 0 : sizeof(le16))));
    }
    return CIMFS_OK;
}

static cimfs_hresult walk_streams(struct cimfs_check *check, const struct cimfs_links *links, uint32_t *found)
{
    struct cimfs_link pair[2];
    CIMFS_TRY(refer(check, links->offset, links->length));
    for (uint32_t i = 0; i < links->count; i++) {
        CIMFS_TRY(cimfs_check_step(check));
        cimfs_hresult result = cimfs_links_next(links, i, &pair[(i + 1) % 2], &check->error, &pair[i % 2]);
        if (result < 0)
            return cimfs_check_problem(check, result, links->offset);
        struct cimfs_raw_stream raw;
        memcpy(&raw, pair[i % 2].value, sizeof raw);
        struct cimfs_extent stream = cimfs_extent_of(raw);
        ++*found;
        CIMFS_TRY(visit_stream(check, &stream));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_streams(struct cimfs_check *check, const struct cimfs_record *record)
{
    struct cimfs_links links;
    uint32_t index, found = 0;
    int fresh;
    cimfs_hresult result = cimfs_reader_streams(check->reader, record, &check->error, &links);
    if (result < 0)
        return cimfs_check_problem(check, result, get64(record->streams));
    if (links.length == 0)
        return CIMFS_OK;
    const struct cimfs_walked_table table = {
        .offset = links.offset, .length = links.length, .kind = CIMFS_TABLE_STREAMS};
    CIMFS_TRY(meet_table(check, &table, links.length, &index, &fresh));
    if (fresh) {
        CIMFS_TRY(walk_streams(check, &links, &found));
        check->walked.tables[index].found = found;
    }
    check->counts->streams += check->walked.tables[index].found;
    return CIMFS_OK;
}

static cimfs_hresult push(struct cimfs_check *check, uint32_t id)
{
    if (check->stack_count == check->stack_capacity) {
        size_t capacity = check->stack_capacity ? check->stack_capacity * 2 : 256;
        uint32_t *stack = realloc(check->stack, capacity * sizeof *stack);
        if (!stack)
            return CIMFS_E_OUT_OF_MEMORY;
        check->stack = stack;
        check->stack_capacity = capacity;
    }
    check->stack[check->stack_count++] = id;
    return CIMFS_OK;
}

static const char TWO_NAMES[] = "a directory has two names, or lies in itself";

/* A file that a directory names; owner is the link table's offset. */
static cimfs_hresult visit_file(struct cimfs_check *check, uint32_t id, uint64_t owner)
{
    struct cimfs_record record;
    cimfs_hresult result = cimfs_reader_record(check->reader, id, &check->error, &record);
    if (result < 0)
        return cimfs_check_problem(check, result, owner);
    int seen = check->seen[(id - 1) / 8] >> ((id - 1) % 8) & 1;
    check->seen[(id - 1) / 8] |= (uint8_t)(1 << ((id - 1) % 8));
    if (cimfs_is_directory(&record)) {
        if (seen)
            return cimfs_check_corrupt(check, owner, TWO_NAMES);
        check->counts->directories++;
        CIMFS_TRY(push(check, id));
    } else if (seen) {
        return CIMFS_OK;
    } else {
        struct cimfs_extent stream = cimfs_extent_of(record.data);
        check->counts->files++;
        CIMFS_TRY(visit_stream(check, &stream));
    }
    CIMFS_TRY(visit_attachments(check, &record));
    return visit_streams(check, &record);
}

static cimfs_hresult walk_children(struct cimfs_check *check, const struct cimfs_links *links)
{
    struct cimfs_link pair[2];
    CIMFS_TRY(refer(check, links->offset, links->length));
    for (uint32_t i = 0; i < links->count; i++) {
        uint32_t child;
        CIMFS_TRY(cimfs_check_step(check));
        cimfs_hresult result = cimfs_links_next(links, i, &pair[(i + 1) % 2], &check->error, &pair[i % 2]);
        if (result == CIMFS_OK)
            result = cimfs_links_file_id(links, &pair[i % 2], &check->error, &child);
        if (result < 0)
            return cimfs_check_problem(check, result, links->offset);
        CIMFS_TRY(visit_file(check, child, links->offset));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_directory(struct cimfs_check *check, uint32_t id)
{
    struct cimfs_record record;
    struct cimfs_links links;
    uint32_t index;
    int fresh;
    CIMFS_TRY(cimfs_reader_record(check->reader, id, &check->error, &record));
    cimfs_hresult result = cimfs_reader_children(check->reader, &record, &check->error, &links);
    if (result < 0)
        return cimfs_check_problem(check, result, cimfs_extent_of(record.data).offset);
    if (links.length == 0)
        return CIMFS_OK;
    const struct cimfs_walked_table table = {
        .offset = links.offset, .length = links.length, .kind = CIMFS_TABLE_CHILDREN};
    CIMFS_TRY(meet_table(check, &table, links.length, &index, &fresh));
    if (!fresh)
        return check->walked.tables[index].found ? cimfs_check_corrupt(check, links.offset, TWO_NAMES) : CIMFS_OK;
    uint64_t before = check->counts->directories;
    CIMFS_TRY(walk_children(check, &links));
    check->walked.tables[index].found = check->counts->directories != before;
    return CIMFS_OK;
}

static cimfs_hresult visit_tables(struct cimfs_check *check)
{
    const struct cimfs_reader *reader = check->reader;
    uint32_t count = cimfs_reader_table_count(reader);
    CIMFS_TRY(refer(check, cimfs_reader_filesystem_offset(reader), sizeof(struct cimfs_filesystem)));
    CIMFS_TRY(refer(check, cimfs_reader_upcase_offset(reader), CIMFS_UPCASE_UNITS * sizeof(le16)));
    CIMFS_TRY(refer(check, cimfs_reader_directory_offset(reader), (uint64_t)count * sizeof(struct cimfs_table_entry)));
    for (uint32_t i = 0; i < count; i++) {
        struct cimfs_table_entry entry;
        const uint8_t *records;
        cimfs_hresult result = cimfs_reader_table(reader, i, &check->error, &entry, &records);
        if (result < 0)
            CIMFS_TRY(cimfs_check_problem(check, result, cimfs_reader_directory_offset(reader)));
        else
            CIMFS_TRY(refer(check, get64(entry.table), (uint64_t)get16(entry.count) * get16(entry.entry_size)));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_tree(struct cimfs_check *check)
{
    check->seen_ids = (uint64_t)cimfs_reader_table_count(check->reader) * CIMFS_FILES_PER_TABLE;
    check->seen = calloc((size_t)(check->seen_ids / 8), 1);
    if (!check->seen)
        return CIMFS_E_OUT_OF_MEMORY;
    CIMFS_TRY(visit_file(check, cimfs_reader_root(check->reader), 0));
    while (check->stack_count > 0)
        CIMFS_TRY(visit_directory(check, check->stack[--check->stack_count]));
    return CIMFS_OK;
}

/* ---- headers ---- */

/* Of the regions, too, that hold nothing which the image refers to. */
static cimfs_hresult check_headers(struct cimfs_check *check)
{
    CIMFS_TRY(cimfs_check_problem(check, cimfs_reader_check_filesystem_header(check->reader, &check->error), 0));
    for (uint32_t i = 0; i < cimfs_reader_region_count(check->reader); i++) {
        uint64_t size;
        uint8_t type;
        CIMFS_TRY(cimfs_check_step(check));
        cimfs_hresult result = cimfs_reader_check_region_header(check->reader, i, &check->error);
        CIMFS_TRY(cimfs_check_problem(check, result, cimfs_region_offset(i, 0)));
        if (cimfs_reader_region(check->reader, i, &check->error, &size, &type) == CIMFS_OK)
            check->region_bytes += size;
    }
    return CIMFS_OK;
}

/* ---- the whole ---- */

/* If the image was removed meanwhile, there is nothing left to check. */
static cimfs_hresult conclude(struct cimfs_check *check, cimfs_hresult result)
{
    if (result != CIMFS_E_FILE_NOT_FOUND)
        return result;
    check->part_count = 0;
    check->counts->problems++;
    return check->events->problem(check->events->context, 0, &check->error) ? CIMFS_E_FAIL : CIMFS_OK;
}

static cimfs_hresult follow(struct cimfs_check *check)
{
    check->piece = malloc(CIMFS_CHECK_PIECE + CIMFS_HOST_PAGE);
    if (!check->piece)
        return CIMFS_E_OUT_OF_MEMORY;
    CIMFS_TRY(check->io->random(check->walked.seeds, sizeof check->walked.seeds));
    CIMFS_TRY(check_headers(check));
    CIMFS_TRY(visit_tables(check));
    CIMFS_TRY(visit_tree(check));
    CIMFS_TRY(cimfs_check_load_ids(check));
    return cimfs_check_divide(check);
}

cimfs_hresult cimfs_verify_begin(const struct cimfs_io *io, const struct cimfs_reader *reader,
                                 const struct cimfs_verify_events *events, struct cimfs_verify_counts *counts,
                                 struct cimfs_error *error, struct cimfs_check **out)
{
    struct cimfs_check *check = calloc(1, sizeof *check);
    *out = NULL;
    *counts = (struct cimfs_verify_counts){0};
    if (!check)
        return CIMFS_E_OUT_OF_MEMORY;
    check->io = io;
    check->reader = reader;
    check->events = events;
    check->counts = counts;
    cimfs_hresult result = conclude(check, follow(check));
    if (result < 0) {
        *error = check->error;
        cimfs_verify_close(check);
        return result;
    }
    *out = check;
    return CIMFS_OK;
}

size_t cimfs_verify_parts(const struct cimfs_check *check)
{
    return check->io->view ? 1 : check->part_count; /* file objects are read by one thread */
}

void cimfs_verify_stop(struct cimfs_check *check)
{
    atomic_store(&check->stopped, 1);
}

cimfs_hresult cimfs_verify_end(struct cimfs_check *check, struct cimfs_error *error)
{
    cimfs_hresult result = conclude(check, cimfs_check_objects(check));
    if (result < 0)
        *error = check->error;
    return result;
}

void cimfs_verify_close(struct cimfs_check *check)
{
    if (!check)
        return;
    free(check->referred.items);
    free(check->listed.items);
    free(check->parts);
    free(check->seen);
    free(check->stack);
    cimfs_walked_cleanup(&check->walked);
    free(check->piece);
    free(check);
}

cimfs_hresult cimfs_verify(const struct cimfs_io *io, const struct cimfs_reader *reader,
                           const struct cimfs_verify_events *events, struct cimfs_verify_counts *counts,
                           struct cimfs_error *error)
{
    struct cimfs_check *check;
    CIMFS_TRY(cimfs_verify_begin(io, reader, events, counts, error, &check));
    cimfs_hresult result = cimfs_verify_end(check, error);
    cimfs_verify_close(check);
    return result;
}
