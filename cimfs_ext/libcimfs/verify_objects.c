/*
 * The object ID files, and the bytes of each object against the content ID that they list.
 */
#include <stdlib.h>

#include "check.h"
#include "guid.h"
#include "objectid.h"

#define PROGRESS_BYTES (8ull << 20) /* between two calls of progress */
#define NEAR (4ull << 10)           /* what lies between two objects is read with them if it is no more than that */
#define PART_BYTES (4ull << 20)     /* of a part, at least; ... */
#define PART_OBJECTS 4096           /* ... unless it has as many objects */

static cimfs_hresult read_ids(struct cimfs_check *check, cimfs_file file, uint32_t number, uint32_t region,
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
        uint64_t fits = CIMFS_CHECK_PIECE / sizeof *ids;
        uint64_t now = count - done < fits ? count - done : fits;
        CIMFS_TRY(check->io->read(file, ids, (size_t)now * sizeof *ids, at + done * sizeof *ids));
        for (uint64_t i = 0; i < now; i++) {
            CIMFS_TRY(cimfs_check_step(check));
            struct cimfs_check_extent extent = {.offset = cimfs_region_offset(region, get64(ids[i].offset)),
                                                .length = get64(ids[i].length)};
            if (get64(ids[i].offset) > CIMFS_OFFSET_MASK) {
                *reason = "an object ID points behind what a region can hold";
                return CIMFS_E_FILE_CORRUPT;
            }
            memcpy(extent.hash, ids[i].hash, sizeof extent.hash);
            if (cimfs_id_is_ours(&ids[i]))
                CIMFS_TRY(cimfs_check_append(&check->listed, &extent));
        }
        done += now;
    }
    return CIMFS_OK;
}

static cimfs_hresult load_ids(struct cimfs_check *check, const struct cimfs_set *set, uint32_t number)
{
    char name[CIMFS_FILE_NAME];
    const char *reason = NULL;
    cimfs_file file;
    CIMFS_TRY(cimfs_check_step(check));
    cimfs_set_file_name("objectid", &set->id, number, name);
    cimfs_hresult result = check->io->open(cimfs_reader_directory(check->reader), name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND) {
        result = cimfs_reader_missing(check->reader, name, "the object ID file is missing", &check->error);
        return cimfs_check_problem(check, result, 0);
    } else if (cimfs_is_no_plain_file(result)) {
        reason = "the object ID file is not a plain file";
        result = CIMFS_E_FILE_CORRUPT;
    } else if (result == CIMFS_OK) {
        result = read_ids(check, file, number, set->first + number, &reason);
        check->io->close(file);
    }
    if (result < 0)
        cimfs_fail(&check->error, result, name, CIMFS_NO_OFFSET, reason);
    return cimfs_check_problem(check, result, 0);
}

cimfs_hresult cimfs_check_load_ids(struct cimfs_check *check)
{
    uint32_t count;
    const struct cimfs_set *sets = cimfs_reader_sets(check->reader, &count);
    for (uint32_t s = 0; s < count; s++)
        for (uint32_t i = 0; i < sets[s].count; i++)
            CIMFS_TRY(load_ids(check, &sets[s], i));
    return CIMFS_OK;
}

/* ---- objects against IDs ---- */

/* Who reads a part. A helper only says whether it is sound, and leaves it to the caller's thread to say what is not. */
struct pass {
    struct cimfs_check *check;
    struct cimfs_check_part *part;
    struct cimfs_error *error;
    uint8_t *piece;
    struct {
        uint64_t offset; /* in its region */
        size_t size;
        const uint8_t *data;
    } window;       /* what the piece has of a region */
    uint64_t end;   /* of the last object that was read */
    uint64_t since; /* bytes that are not counted in what all threads have read */
    int progress;   /* may it be called? */
    int problems;   /* are they reported? */
};

static cimfs_hresult problem(struct pass *pass, cimfs_hresult code, uint64_t offset)
{
    return pass->problems ? cimfs_check_problem(pass->check, code, offset) : code;
}

static cimfs_hresult corrupt(struct pass *pass, uint64_t offset, const char *reason)
{
    return problem(pass, cimfs_reader_corrupt(pass->check->reader, offset, reason, pass->error), offset);
}

/* Add what was read since the last time to what all threads have read. */
static void tell(struct pass *pass)
{
    atomic_fetch_add(&pass->check->read, pass->since);
    pass->since = 0;
}

/* Count bytes that were read; the caller of verify may want to stop. */
static cimfs_hresult advance(struct pass *pass, size_t count)
{
    struct cimfs_check *check = pass->check;
    pass->part->bytes += count;
    pass->since += count;
    if (pass->since < (pass->progress ? PROGRESS_BYTES : CIMFS_CHECK_PIECE))
        return CIMFS_OK;
    tell(pass);
    if (pass->progress)
        return cimfs_verify_progress(check);
    return atomic_load(&check->stopped) ? CIMFS_E_FAIL : CIMFS_OK;
}

static cimfs_hresult fill_window(struct pass *pass, uint64_t offset, uint64_t size)
{
    uint8_t *data = cimfs_in_page(pass->piece, offset);
    pass->window.size = 0;
    CIMFS_TRY(cimfs_reader_fetch(pass->check->reader, offset, data, (size_t)size, pass->error));
    pass->window.offset = offset;
    pass->window.size = (size_t)size;
    pass->window.data = data;
    return CIMFS_OK;
}

/* How many bytes to read at once from an object's byte on: those of the objects behind it too, as most are small. */
static uint64_t reach(const struct pass *pass, const struct cimfs_check_extent *object, uint64_t from)
{
    const struct cimfs_check_extent *last = pass->check->referred.items + pass->part->last;
    uint64_t start = object->offset + from, size = object->length - from;
    for (const struct cimfs_check_extent *next = object + 1; next < last && size < CIMFS_CHECK_PIECE; next++) {
        uint64_t before = next->offset - start;
        if (before > size + NEAR || next->length > CIMFS_CHECK_PIECE)
            break;
        if (before + next->length > size)
            size = before + next->length;
    }
    return size < CIMFS_CHECK_PIECE ? size : CIMFS_CHECK_PIECE;
}

/* Read an object from some byte on, into the hash. */
static cimfs_hresult read_object(struct pass *pass, const struct cimfs_check_extent *object, uint64_t from,
                                 struct cimfs_hash *hash)
{
    while (from < object->length) {
        uint64_t offset = object->offset + from, left = object->length - from;
        if (offset - pass->window.offset >= pass->window.size) {
            cimfs_hresult result = fill_window(pass, offset, reach(pass, object, from));
            if (result < 0 && result != CIMFS_E_FAIL) /* which may be due to the objects behind it */
                result = fill_window(pass, offset, left < CIMFS_CHECK_PIECE ? left : CIMFS_CHECK_PIECE);
            CIMFS_TRY(result);
        }
        uint64_t before = offset - pass->window.offset, count = pass->window.size - before;
        if (count > left)
            count = left;
        cimfs_hash_update(hash, pass->window.data + before, (size_t)count);
        from += count;
        CIMFS_TRY(advance(pass, (size_t)count));
    }
    return CIMFS_OK;
}

/*
 * Objects with our IDs never overlap, and of others each byte is read once, and none of those that do not lie in their
 * region: the time is that of reading the regions, whatever the tables say.
 */
static cimfs_hresult compare_object(struct pass *pass, const struct cimfs_check_extent *object,
                                    const struct cimfs_check_extent *listed)
{
    uint8_t digest[CIMFS_HASH_SIZE];
    struct cimfs_hash hash;
    uint64_t known = pass->end > object->offset ? pass->end - object->offset : 0;
    pass->part->objects++;
    pass->part->unjudged += !listed;
    if (listed && known > 0)
        return corrupt(pass, object->offset, "an object overlaps another one");
    CIMFS_TRY(pass->progress ? cimfs_check_step(pass->check) : CIMFS_OK);
    cimfs_hresult result = cimfs_reader_check_place(pass->check->reader, object->offset, object->length, pass->error);
    if (result < 0)
        return problem(pass, result, object->offset);
    if (known < object->length)
        pass->end = object->offset + object->length;
    cimfs_hash_init(&hash);
    result = read_object(pass, object, known, &hash);
    if (result < 0)
        return problem(pass, result, object->offset);
    cimfs_hash_final(&hash, digest);
    if (listed && memcmp(digest, listed->hash, sizeof digest) != 0)
        return corrupt(pass, object->offset, "an object's bytes do not match its content ID");
    return CIMFS_OK;
}

/* Does an ID of ours stand for a part of the object, or for more than it? We make none that does: it is damaged. */
static int overlaps_listed(const struct cimfs_check_list *listed, size_t next, const struct cimfs_check_extent *object)
{
    const struct cimfs_check_extent *items = listed->items;
    return (next < listed->count && items[next].offset - object->offset < object->length) ||
           (next > 0 && object->offset - items[next - 1].offset < items[next - 1].length);
}

/* The first that does not lie before the object. */
static size_t find_listed(const struct cimfs_check_list *listed, const struct cimfs_check_extent *object)
{
    size_t low = 0, high = listed->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cimfs_by_place(&listed->items[middle], object) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static cimfs_hresult read_part(struct pass *pass, struct cimfs_check_part *part)
{
    const struct cimfs_check_list *listed = &pass->check->listed;
    const struct cimfs_check_extent *objects = pass->check->referred.items;
    size_t at = find_listed(listed, &objects[part->first]);
    part->objects = part->bytes = part->unjudged = 0;
    pass->part = part;
    pass->end = 0;
    for (size_t i = part->first; i < part->last; i++) {
        const struct cimfs_check_extent *object = &objects[i];
        if (i > part->first && cimfs_by_place(object, object - 1) == 0)
            continue;
        while (at < listed->count && cimfs_by_place(&listed->items[at], object) < 0)
            at++;
        int found = at < listed->count && cimfs_by_place(&listed->items[at], object) == 0;
        if (!found && overlaps_listed(listed, at, object))
            CIMFS_TRY(corrupt(pass, object->offset, "a content ID is that of a part of an object, or of more"));
        CIMFS_TRY(compare_object(pass, object, found ? &listed->items[at] : NULL));
    }
    return CIMFS_OK;
}

/* ---- parts ---- */

static cimfs_hresult append_part(struct cimfs_check *check, size_t *capacity, size_t first, size_t last)
{
    if (check->part_count == *capacity) {
        size_t more = *capacity ? *capacity * 2 : 64;
        struct cimfs_check_part *parts = realloc(check->parts, more * sizeof *parts);
        if (!parts)
            return CIMFS_E_OUT_OF_MEMORY;
        check->parts = parts;
        *capacity = more;
    }
    check->parts[check->part_count++] = (struct cimfs_check_part){.first = first, .last = last};
    return CIMFS_OK;
}

cimfs_hresult cimfs_check_divide(struct cimfs_check *check)
{
    const struct cimfs_check_list *referred = &check->referred;
    CIMFS_TRY(cimfs_sort_by_place(referred->items, referred->count));
    CIMFS_TRY(cimfs_sort_by_place(check->listed.items, check->listed.count));
    size_t capacity = 0, first = 0;
    uint64_t end = 0, bytes = 0;
    for (size_t i = 0; i < referred->count; i++) {
        const struct cimfs_check_extent *object = &referred->items[i];
        if ((bytes >= PART_BYTES || i - first >= PART_OBJECTS) && object->offset >= end) {
            CIMFS_TRY(append_part(check, &capacity, first, i));
            first = i;
            bytes = 0;
        }
        /* No end is beyond that of the offsets, whatever the tables say. */
        uint64_t length = object->length < UINT64_MAX - object->offset ? object->length : UINT64_MAX - object->offset;
        bytes = length < UINT64_MAX - bytes ? bytes + length : UINT64_MAX;
        if (object->offset + length > end)
            end = object->offset + length;
    }
    return referred->count > 0 ? append_part(check, &capacity, first, referred->count) : CIMFS_OK;
}

void cimfs_verify_share(struct cimfs_check *check, int progress)
{
    struct cimfs_error error;
    struct pass pass = {.check = check, .error = &error, .progress = progress};
    pass.piece = malloc(CIMFS_CHECK_PIECE + CIMFS_HOST_PAGE);
    while (pass.piece && !atomic_load(&check->stopped)) {
        size_t next = atomic_fetch_add(&check->next_part, 1);
        if (next >= check->part_count)
            break;
        struct cimfs_check_part *part = &check->parts[next];
        part->sound = read_part(&pass, part) == CIMFS_OK;
        if (!part->sound) {
            tell(&pass);
            atomic_fetch_sub(&check->read, part->bytes); /* which are read once more */
        }
    }
    free(pass.piece);
}

cimfs_hresult cimfs_check_objects(struct cimfs_check *check)
{
    struct pass pass = {.check = check, .error = &check->error, .piece = check->piece, .progress = 1, .problems = 1};
    cimfs_hresult result = atomic_load(&check->stopped) ? CIMFS_E_FAIL : CIMFS_OK;
    uint64_t bytes = 0;
    for (size_t i = 0; i < check->part_count && result == CIMFS_OK; i++) {
        struct cimfs_check_part *part = &check->parts[i];
        if (!part->sound)
            result = read_part(&pass, part);
        check->counts->objects += part->objects;
        check->counts->unjudged += part->unjudged;
        bytes += part->bytes;
    }
    check->counts->bytes = bytes;
    return result;
}
