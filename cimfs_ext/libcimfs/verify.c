#include "verify.h"

#include <stdlib.h>

#include "contentid.h"
#include "guid.h"
#include "walked.h"

#define PIECE (256u << 10)          /* bytes read and hashed at a time: they stay in the cache */
#define PROGRESS_BYTES (8ull << 20) /* between two calls of progress */
#define PROGRESS_STEPS (1u << 14)   /* the same, where little or nothing is read */

/* An object that the image refers to, or one that an object ID file lists. */
struct extent {
    uint64_t offset;
    uint64_t length;
    uint8_t hash[CIMFS_HASH_SIZE]; /* of listed ones */
};

struct list {
    struct extent *items;
    size_t count, capacity;
};

struct check {
    const struct cimfs_io *io;
    const struct cimfs_reader *reader;
    const struct cimfs_verify_events *events;
    struct cimfs_verify_counts *counts;
    struct list referred;
    struct list listed;
    uint8_t *seen; /* a bit per file ID */
    uint64_t seen_ids;
    uint32_t *stack; /* directories to visit */
    size_t stack_count, stack_capacity;
    struct cimfs_walked walked;
    uint64_t walked_bytes, region_bytes;
    uint8_t *piece;
    uint64_t reported; /* bytes at the last call of progress */
    uint32_t steps;
    struct cimfs_error error;
};

static cimfs_hresult append(struct list *list, const struct extent *item)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4096;
        struct extent *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return CIMFS_E_OUT_OF_MEMORY;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = *item;
    return CIMFS_OK;
}

static cimfs_hresult refer(struct check *check, uint64_t offset, uint64_t length)
{
    struct extent extent = {.offset = offset, .length = length};
    return length == 0 ? CIMFS_OK : append(&check->referred, &extent);
}

/* Report what a reader function said, unless it says nothing of the image: that something ran out, or to stop. */
static cimfs_hresult problem(struct check *check, cimfs_hresult code, uint64_t offset)
{
    if (code >= 0 || code == CIMFS_E_OUT_OF_MEMORY || code == CIMFS_E_TOO_MANY_OPEN_FILES || code == CIMFS_E_FAIL)
        return code;
    check->counts->problems++;
    return check->events->problem(check->events->context, offset, &check->error) ? CIMFS_E_FAIL : CIMFS_OK;
}

static cimfs_hresult corrupt(struct check *check, uint64_t offset, const char *reason)
{
    return problem(check, cimfs_reader_corrupt(check->reader, offset, reason, &check->error), offset);
}

/* Count bytes that were read; the caller of verify may want to stop. */
static cimfs_hresult advance(struct check *check, size_t count)
{
    check->counts->bytes += count;
    if (check->counts->bytes - check->reported < PROGRESS_BYTES)
        return CIMFS_OK;
    check->reported = check->counts->bytes;
    return check->events->progress(check->events->context, check->counts) ? CIMFS_E_FAIL : CIMFS_OK;
}

static cimfs_hresult step(struct check *check)
{
    if (++check->steps % PROGRESS_STEPS != 0)
        return CIMFS_OK;
    return check->events->progress(check->events->context, check->counts) ? CIMFS_E_FAIL : CIMFS_OK;
}

/* ---- what the image refers to ---- */

/*
 * Where the table is remembered, and whether it has still to be walked. size: of the bytes to walk; tables that are
 * larger than all regions together overlap, and walking all of them would take the square of the image's size.
 */
static cimfs_hresult meet_table(struct check *check, const struct cimfs_walked_table *table, uint64_t size,
                                uint32_t *index, int *fresh)
{
    CIMFS_TRY(cimfs_walked_meet(&check->walked, table, index, fresh));
    if (!*fresh)
        return CIMFS_OK;
    if (size > check->region_bytes - check->walked_bytes) {
        *fresh = 0;
        return corrupt(check, table->offset, "the tables of the image overlap one another");
    }
    check->walked_bytes += size;
    return CIMFS_OK;
}

/* Each run is looked up, none is read: files may share their data, which is read once with the other objects. */
static cimfs_hresult visit_pe(struct check *check, const struct cimfs_extent *stream)
{
    struct cimfs_pe_run run;
    uint32_t index;
    int fresh;
    cimfs_hresult result = cimfs_reader_locate_pe(check->reader, stream, 0, &check->error, &run);
    if (result < 0)
        return problem(check, result, stream->offset);
    const struct cimfs_walked_table table = {
        .offset = stream->offset, .length = stream->length, .kind = CIMFS_TABLE_PE_MAPPINGS};
    CIMFS_TRY(meet_table(check, &table, run.header_size, &index, &fresh));
    if (!fresh)
        return CIMFS_OK;
    for (uint64_t at = run.size; at < stream->length; at += run.size) {
        CIMFS_TRY(step(check));
        result = cimfs_reader_locate_pe(check->reader, stream, at, &check->error, &run);
        if (result < 0)
            return problem(check, result, stream->offset);
    }
    CIMFS_TRY(refer(check, stream->offset, run.header_size));
    return refer(check, run.data_offset, run.data_size);
}

static cimfs_hresult visit_stream(struct check *check, const struct cimfs_extent *stream)
{
    if (stream->length == 0 || stream->sparse)
        return CIMFS_OK;
    if (stream->type == CIMFS_STREAM_DATA)
        return refer(check, stream->offset, stream->length);
    if (stream->type != CIMFS_STREAM_PE_IMAGE)
        return corrupt(check, stream->offset, "a stream of unknown type");
    return visit_pe(check, stream);
}

static cimfs_hresult visit_attachments(struct check *check, const struct cimfs_record *record)
{
    static const enum cimfs_attachment kinds[] = {CIMFS_SECURITY_DESCRIPTOR, CIMFS_EA_BUFFER, CIMFS_REPARSE_DATA};
    const le64 offsets[] = {record->security_descriptor, record->ea, record->reparse};
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *data;
        uint32_t size;
        uint64_t offset = get64(offsets[i]);
        cimfs_hresult result = cimfs_reader_attachment(check->reader, record, kinds[i], &check->error, &data, &size);
        if (result < 0) {
            CIMFS_TRY(problem(check, result, offset));
            continue;
        }
        if (offset != 0)
            CIMFS_TRY(refer(check, offset, size + (kinds[i] == CIMFS_EA_BUFFER ? 0 : sizeof(le16))));
    }
    return CIMFS_OK;
}

static cimfs_hresult walk_streams(struct check *check, const struct cimfs_links *links, uint32_t *found)
{
    struct cimfs_link pair[2];
    CIMFS_TRY(refer(check, links->offset, links->length));
    for (uint32_t i = 0; i < links->count; i++) {
        CIMFS_TRY(step(check));
        cimfs_hresult result = cimfs_links_next(links, i, &pair[(i + 1) % 2], &check->error, &pair[i % 2]);
        if (result < 0)
            return problem(check, result, links->offset);
        struct cimfs_raw_stream raw;
        memcpy(&raw, pair[i % 2].value, sizeof raw);
        struct cimfs_extent stream = cimfs_extent_of(raw);
        ++*found;
        CIMFS_TRY(visit_stream(check, &stream));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_streams(struct check *check, const struct cimfs_record *record)
{
    struct cimfs_links links;
    uint32_t index, found = 0;
    int fresh;
    cimfs_hresult result = cimfs_reader_streams(check->reader, record, &check->error, &links);
    if (result < 0)
        return problem(check, result, get64(record->streams));
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

static cimfs_hresult push(struct check *check, uint32_t id)
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
static cimfs_hresult visit_file(struct check *check, uint32_t id, uint64_t owner)
{
    struct cimfs_record record;
    cimfs_hresult result = cimfs_reader_record(check->reader, id, &check->error, &record);
    if (result < 0)
        return problem(check, result, owner);
    int seen = check->seen[(id - 1) / 8] >> ((id - 1) % 8) & 1;
    check->seen[(id - 1) / 8] |= (uint8_t)(1 << ((id - 1) % 8));
    if (cimfs_is_directory(&record)) {
        if (seen)
            return corrupt(check, owner, TWO_NAMES);
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

static cimfs_hresult walk_children(struct check *check, const struct cimfs_links *links)
{
    struct cimfs_link pair[2];
    CIMFS_TRY(refer(check, links->offset, links->length));
    for (uint32_t i = 0; i < links->count; i++) {
        uint32_t child;
        CIMFS_TRY(step(check));
        cimfs_hresult result = cimfs_links_next(links, i, &pair[(i + 1) % 2], &check->error, &pair[i % 2]);
        if (result == CIMFS_OK)
            result = cimfs_links_file_id(links, &pair[i % 2], &check->error, &child);
        if (result < 0)
            return problem(check, result, links->offset);
        CIMFS_TRY(visit_file(check, child, links->offset));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_directory(struct check *check, uint32_t id)
{
    struct cimfs_record record;
    struct cimfs_links links;
    uint32_t index;
    int fresh;
    CIMFS_TRY(cimfs_reader_record(check->reader, id, &check->error, &record));
    cimfs_hresult result = cimfs_reader_children(check->reader, &record, &check->error, &links);
    if (result < 0)
        return problem(check, result, cimfs_extent_of(record.data).offset);
    if (links.length == 0)
        return CIMFS_OK;
    const struct cimfs_walked_table table = {
        .offset = links.offset, .length = links.length, .kind = CIMFS_TABLE_CHILDREN};
    CIMFS_TRY(meet_table(check, &table, links.length, &index, &fresh));
    if (!fresh)
        return check->walked.tables[index].found ? corrupt(check, links.offset, TWO_NAMES) : CIMFS_OK;
    uint64_t before = check->counts->directories;
    CIMFS_TRY(walk_children(check, &links));
    check->walked.tables[index].found = check->counts->directories != before;
    return CIMFS_OK;
}

static cimfs_hresult visit_tables(struct check *check)
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
            CIMFS_TRY(problem(check, result, cimfs_reader_directory_offset(reader)));
        else
            CIMFS_TRY(refer(check, get64(entry.table), (uint64_t)get16(entry.count) * get16(entry.entry_size)));
    }
    return CIMFS_OK;
}

static cimfs_hresult visit_tree(struct check *check)
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

/* ---- headers, and what the object ID files list ---- */

/* Of the regions, too, that hold nothing which the image refers to. */
static cimfs_hresult check_headers(struct check *check)
{
    CIMFS_TRY(problem(check, cimfs_reader_check_filesystem_header(check->reader, &check->error), 0));
    for (uint32_t i = 0; i < cimfs_reader_region_count(check->reader); i++) {
        uint64_t size;
        uint8_t type;
        CIMFS_TRY(step(check));
        cimfs_hresult result = cimfs_reader_check_region_header(check->reader, i, &check->error);
        CIMFS_TRY(problem(check, result, cimfs_region_offset(i, 0)));
        if (cimfs_reader_region(check->reader, i, &check->error, &size, &type) == CIMFS_OK)
            check->region_bytes += size;
    }
    return CIMFS_OK;
}

static cimfs_hresult read_ids(struct check *check, cimfs_file file, uint32_t number, uint32_t region,
                              const char **reason)
{
    struct cimfs_object_id_header header;
    struct cimfs_error ignored;
    uint64_t size, region_size;
    uint8_t type;
    CIMFS_TRY(check->io->size(file, &size));
    *reason = "the object ID file's header is damaged";
    if (size < sizeof header)
        return CIMFS_E_FILE_CORRUPT;
    CIMFS_TRY(check->io->read(file, &header, sizeof header, 0));
    uint64_t at = get32(header.table_offset), count = get32(header.count);
    if (memcmp(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic) != 0 ||
        header.common.file_type != CIMFS_FILE_OBJECT_ID || get16(header.index) != number ||
        get32(header.common.version_major) < CIMFS_VERSION_MAJOR ||
        get32(header.common.version_major) > CIMFS_VERSION_MAJOR_NEWEST ||
        get32(header.common.header_length) != sizeof header)
        return CIMFS_E_FILE_CORRUPT;
    *reason = "the object ID file has another type than its region";
    if (cimfs_reader_region(check->reader, region, &ignored, &region_size, &type) == CIMFS_OK && header.type != type)
        return CIMFS_E_FILE_CORRUPT;
    *reason = "the object ID table does not fit into its file";
    if (at < sizeof header || at > size || count > (size - at) / sizeof(struct cimfs_object_id))
        return CIMFS_E_FILE_CORRUPT;
    *reason = NULL;
    for (uint64_t done = 0; done < count;) {
        struct cimfs_object_id *ids = (struct cimfs_object_id *)(void *)check->piece;
        uint64_t fits = PIECE / sizeof *ids;
        uint64_t now = count - done < fits ? count - done : fits;
        CIMFS_TRY(check->io->read(file, ids, (size_t)now * sizeof *ids, at + done * sizeof *ids));
        for (uint64_t i = 0; i < now; i++) {
            CIMFS_TRY(step(check));
            struct extent extent = {.offset = cimfs_region_offset(region, get64(ids[i].offset)),
                                    .length = get64(ids[i].length)};
            if (get64(ids[i].offset) > CIMFS_OFFSET_MASK) {
                *reason = "an object ID points behind what a region can hold";
                return CIMFS_E_FILE_CORRUPT;
            }
            memcpy(extent.hash, ids[i].hash, sizeof extent.hash);
            if (memcmp(ids[i].prefix, CIMFS_DIGEST_PREFIX, CIMFS_DIGEST_PREFIX_SIZE) == 0)
                CIMFS_TRY(append(&check->listed, &extent));
        }
        done += now;
    }
    return CIMFS_OK;
}

static cimfs_hresult load_ids(struct check *check, const struct cimfs_set *set, uint32_t number)
{
    char name[CIMFS_FILE_NAME];
    const char *reason = NULL;
    cimfs_file file;
    CIMFS_TRY(step(check));
    cimfs_set_file_name("objectid", &set->id, number, name);
    cimfs_hresult result = check->io->open(cimfs_reader_directory(check->reader), name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND) {
        reason = "the object ID file is not there";
        result = CIMFS_E_FILE_CORRUPT;
    } else if (cimfs_is_no_plain_file(result)) {
        reason = "the object ID file is not a plain file";
        result = CIMFS_E_FILE_CORRUPT;
    } else if (result == CIMFS_OK) {
        result = read_ids(check, file, number, set->first + number, &reason);
        check->io->close(file);
    }
    if (result < 0)
        cimfs_fail(&check->error, result, name, CIMFS_NO_OFFSET, reason);
    return problem(check, result, 0);
}

static cimfs_hresult load_all_ids(struct check *check)
{
    uint32_t count;
    const struct cimfs_set *sets = cimfs_reader_sets(check->reader, &count);
    for (uint32_t s = 0; s < count; s++)
        for (uint32_t i = 0; i < sets[s].count; i++)
            CIMFS_TRY(load_ids(check, &sets[s], i));
    return CIMFS_OK;
}

/* ---- comparing both ---- */

static int by_place(const void *a, const void *b)
{
    const struct extent *left = a, *right = b;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return left->length < right->length ? -1 : left->length > right->length;
}

/* Read an object from some byte on, into the hash. */
static cimfs_hresult read_object(struct check *check, const struct extent *object, uint64_t from,
                                 struct cimfs_hash *hash)
{
    for (uint64_t done = from; done < object->length;) {
        size_t count = object->length - done < PIECE ? (size_t)(object->length - done) : PIECE;
        CIMFS_TRY(cimfs_reader_fetch(check->reader, object->offset + done, check->piece, count, &check->error));
        cimfs_hash_update(hash, check->piece, count);
        done += count;
        CIMFS_TRY(advance(check, count));
    }
    return CIMFS_OK;
}

/*
 * end: of the last object that was read. Objects with our IDs never overlap, and of others each byte is read once, and
 * none of those that do not lie in their region: the time is that of reading the regions, whatever the tables say.
 */
static cimfs_hresult compare_object(struct check *check, const struct extent *object, const struct extent *listed,
                                    uint64_t *end)
{
    uint8_t digest[CIMFS_HASH_SIZE];
    struct cimfs_hash hash;
    const uint8_t *data;
    uint64_t known = *end > object->offset ? *end - object->offset : 0;
    check->counts->objects++;
    check->counts->unjudged += !listed;
    if (listed && known > 0)
        return corrupt(check, object->offset, "an object overlaps another one");
    CIMFS_TRY(step(check));
    cimfs_hresult result = cimfs_reader_view(check->reader, object->offset, object->length, &check->error, &data);
    if (result < 0)
        return problem(check, result, object->offset);
    if (known < object->length)
        *end = object->offset + object->length;
    cimfs_hash_init(&hash);
    result = read_object(check, object, known, &hash);
    if (result < 0)
        return problem(check, result, object->offset);
    cimfs_hash_final(&hash, digest);
    if (listed && memcmp(digest, listed->hash, sizeof digest) != 0)
        return corrupt(check, object->offset, "an object's bytes do not match its content ID");
    return CIMFS_OK;
}

/* Does an ID of ours stand for a part of the object, or for more than it? We make none that does: it is damaged. */
static int overlaps_listed(const struct list *listed, size_t next, const struct extent *object)
{
    const struct extent *items = listed->items;
    return (next < listed->count && items[next].offset - object->offset < object->length) ||
           (next > 0 && object->offset - items[next - 1].offset < items[next - 1].length);
}

static cimfs_hresult compare_all(struct check *check)
{
    struct list *referred = &check->referred, *listed = &check->listed;
    if (referred->count)
        qsort(referred->items, referred->count, sizeof *referred->items, by_place);
    if (listed->count)
        qsort(listed->items, listed->count, sizeof *listed->items, by_place);
    size_t at = 0;
    uint64_t end = 0;
    for (size_t i = 0; i < referred->count; i++) {
        const struct extent *object = &referred->items[i];
        if (i > 0 && by_place(object, object - 1) == 0)
            continue;
        while (at < listed->count && by_place(&listed->items[at], object) < 0)
            at++;
        int found = at < listed->count && by_place(&listed->items[at], object) == 0;
        if (!found && overlaps_listed(listed, at, object))
            CIMFS_TRY(corrupt(check, object->offset, "a content ID is that of a part of an object, or of more"));
        CIMFS_TRY(compare_object(check, object, found ? &listed->items[at] : NULL, &end));
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_verify(const struct cimfs_io *io, const struct cimfs_reader *reader,
                           const struct cimfs_verify_events *events, struct cimfs_verify_counts *counts,
                           struct cimfs_error *error)
{
    struct check check = {.io = io, .reader = reader, .events = events, .counts = counts};
    *counts = (struct cimfs_verify_counts){0};
    check.piece = malloc(PIECE);
    cimfs_hresult result =
        check.piece ? io->random(check.walked.seeds, sizeof check.walked.seeds) : CIMFS_E_OUT_OF_MEMORY;
    if (result == CIMFS_OK)
        result = check_headers(&check);
    if (result == CIMFS_OK)
        result = visit_tables(&check);
    if (result == CIMFS_OK)
        result = visit_tree(&check);
    if (result == CIMFS_OK)
        result = load_all_ids(&check);
    if (result == CIMFS_OK)
        result = compare_all(&check);
    free(check.referred.items);
    free(check.listed.items);
    free(check.seen);
    free(check.stack);
    cimfs_walked_cleanup(&check.walked);
    if (result < 0)
        *error = check.error;
    free(check.piece);
    return result;
}
