/*
 * The object ID files, and the bytes of each object against the content ID that they list.
 */
#include <stdlib.h>

#include "check.h"
#include "guid.h"
#include "objectid.h"

#define PROGRESS_BYTES (8ull << 20) /* between two calls of progress */
#define NEAR (4ull << 10)           /* what lies between two objects is read with them if it is no more than that */

/* Count bytes that were read; the caller of verify may want to stop. */
static cimfs_hresult advance(struct cimfs_check *check, size_t count)
{
    check->counts->bytes += count;
    if (check->counts->bytes - check->reported < PROGRESS_BYTES)
        return CIMFS_OK;
    check->reported = check->counts->bytes;
    return check->events->progress(check->events->context, check->counts) ? CIMFS_E_FAIL : CIMFS_OK;
}

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

static cimfs_hresult fill_window(struct cimfs_check *check, uint64_t offset, uint64_t size)
{
    uint8_t *data = cimfs_in_page(check->piece, offset);
    check->window.size = 0;
    CIMFS_TRY(cimfs_reader_fetch(check->reader, offset, data, (size_t)size, &check->error));
    check->window.offset = offset;
    check->window.size = (size_t)size;
    check->window.data = data;
    return CIMFS_OK;
}

/* How many bytes to read at once from an object's byte on: those of the objects behind it too, as most are small. */
static uint64_t reach(const struct cimfs_check *check, const struct cimfs_check_extent *object, uint64_t from)
{
    const struct cimfs_check_extent *last = check->referred.items + check->referred.count;
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
static cimfs_hresult read_object(struct cimfs_check *check, const struct cimfs_check_extent *object, uint64_t from,
                                 struct cimfs_hash *hash)
{
    while (from < object->length) {
        uint64_t offset = object->offset + from, left = object->length - from;
        if (offset - check->window.offset >= check->window.size) {
            cimfs_hresult result = fill_window(check, offset, reach(check, object, from));
            if (result < 0 && result != CIMFS_E_FAIL) /* which may be due to the objects behind it */
                result = fill_window(check, offset, left < CIMFS_CHECK_PIECE ? left : CIMFS_CHECK_PIECE);
            CIMFS_TRY(result);
        }
        uint64_t before = offset - check->window.offset, count = check->window.size - before;
        if (count > left)
            count = left;
        cimfs_hash_update(hash, check->window.data + before, (size_t)count);
        from += count;
        CIMFS_TRY(advance(check, (size_t)count));
    }
    return CIMFS_OK;
}

/*
 * end: of the last object that was read. Objects with our IDs never overlap, and of others each byte is read once, and
 * none of those that do not lie in their region: the time is that of reading the regions, whatever the tables say.
 */
static cimfs_hresult compare_object(struct cimfs_check *check, const struct cimfs_check_extent *object,
                                    const struct cimfs_check_extent *listed, uint64_t *end)
{
    uint8_t digest[CIMFS_HASH_SIZE];
    struct cimfs_hash hash;
    uint64_t known = *end > object->offset ? *end - object->offset : 0;
    check->counts->objects++;
    check->counts->unjudged += !listed;
    if (listed && known > 0)
        return cimfs_check_corrupt(check, object->offset, "an object overlaps another one");
    CIMFS_TRY(cimfs_check_step(check));
    cimfs_hresult result = cimfs_reader_check_place(check->reader, object->offset, object->length, &check->error);
    if (result < 0)
        return cimfs_check_problem(check, result, object->offset);
    if (known < object->length)
        *end = object->offset + object->length;
    cimfs_hash_init(&hash);
    result = read_object(check, object, known, &hash);
    if (result < 0)
        return cimfs_check_problem(check, result, object->offset);
    cimfs_hash_final(&hash, digest);
    if (listed && memcmp(digest, listed->hash, sizeof digest) != 0)
        return cimfs_check_corrupt(check, object->offset, "an object's bytes do not match its content ID");
    return CIMFS_OK;
}

/* Does an ID of ours stand for a part of the object, or for more than it? We make none that does: it is damaged. */
static int overlaps_listed(const struct cimfs_check_list *listed, size_t next, const struct cimfs_check_extent *object)
{
    const struct cimfs_check_extent *items = listed->items;
    return (next < listed->count && items[next].offset - object->offset < object->length) ||
           (next > 0 && object->offset - items[next - 1].offset < items[next - 1].length);
}

/* Object ID files that we write are in order. */
static void sort(struct cimfs_check_list *list)
{
    for (size_t i = 1; i < list->count; i++) {
        if (cimfs_by_place(&list->items[i - 1], &list->items[i]) > 0) {
            qsort(list->items, list->count, sizeof *list->items, cimfs_by_place);
            return;
        }
    }
}

cimfs_hresult cimfs_check_objects(struct cimfs_check *check)
{
    struct cimfs_check_list *referred = &check->referred, *listed = &check->listed;
    sort(referred);
    sort(listed);
    size_t at = 0;
    uint64_t end = 0;
    for (size_t i = 0; i < referred->count; i++) {
        const struct cimfs_check_extent *object = &referred->items[i];
        if (i > 0 && cimfs_by_place(object, object - 1) == 0)
            continue;
        while (at < listed->count && cimfs_by_place(&listed->items[at], object) < 0)
            at++;
        int found = at < listed->count && cimfs_by_place(&listed->items[at], object) == 0;
        if (!found && overlaps_listed(listed, at, object))
            CIMFS_TRY(
                cimfs_check_corrupt(check, object->offset, "a content ID is that of a part of an object, or of more"));
        CIMFS_TRY(compare_object(check, object, found ? &listed->items[at] : NULL, &end));
    }
    return CIMFS_OK;
}
