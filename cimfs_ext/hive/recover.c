/* Recovery of a dirty hive from its transaction logs, in the two formats that Windows has had.
 *
 * Old (.LOG; types 1 and 2): a copy of the base block in a sector; "DIRT" and a bitmap with one bit per
 * sector of the bins; from the next sector on, the sectors whose bits are set. New (.LOG1 and .LOG2, type 6):
 * a base block in a sector; then entries "HvLE" with numbered sequence, each with the size of the bins after
 * it, references to pages and the pages, protected by two Marvin32 hashes. The two logs take turns, so the
 * entries to apply begin in one and may go on in the other.
 */
#include "format.h"
#include "internal.h"

#include <stdlib.h>

enum {
    LOG_TYPE_NEW = 6,
    ENTRY_SIZE = 4,
    ENTRY_SEQUENCE = 12,
    ENTRY_BINS_SIZE = 16,
    ENTRY_PAGE_COUNT = 20,
    ENTRY_HASH = 24,
    ENTRY_HEADER_HASH = 32,
    ENTRY_PAGES = 40, /* references: offset in the bins, size */
};

#define MARVIN_SEED UINT64_C(0x82EF4D887A4E55C5)

typedef struct image {
    uint8_t *bytes;
    size_t size, limit; /* bins grow by pages that stand in a log: the limit is the sum of all files */
    uint32_t sequence;  /* of the last entry applied */
    bool applied;
} image;

static uint32_t rotate(uint32_t value, int by)
{
    return value << by | value >> (32 - by);
}

static void marvin_mix(uint32_t state[2], uint32_t word)
{
    state[0] += word;
    state[1] ^= state[0];
    state[0] = rotate(state[0], 20) + state[1];
    state[1] = rotate(state[1], 9) ^ state[0];
    state[0] = rotate(state[0], 27) + state[1];
    state[1] = rotate(state[1], 19);
}

uint64_t hive_marvin32(const uint8_t *data, size_t size)
{
    uint32_t state[2] = {(uint32_t)MARVIN_SEED, (uint32_t)(MARVIN_SEED >> 32)};
    size_t whole = size & ~(size_t)3;
    for (size_t i = 0; i < whole; i += 4)
        marvin_mix(state, load32(data + i));
    uint32_t last = 0x80;
    for (size_t i = size; i > whole; i--)
        last = last << 8 | data[i - 1];
    marvin_mix(state, last);
    marvin_mix(state, 0);
    return state[0] | (uint64_t)state[1] << 32;
}

static bool base_is_sound(hive_bytes file)
{
    return file.size >= REGF_SECTOR && has_signature(file.data, "regf", 4) &&
           load32(file.data + BASE_CHECKSUM) == regf_checksum(file.data);
}

static bool sequences_differ(const uint8_t *base)
{
    return load32(base + BASE_SEQUENCE1) != load32(base + BASE_SEQUENCE2);
}

/* Gives the bins a size; false when it is impossible, and then nothing has changed. The limit has room for the base
 * block. */
static bool resize(image *to, uint32_t bins_size)
{
    if (bins_size % REGF_BIN_ALIGN || bins_size > INT32_MAX || bins_size > to->limit - REGF_BASE_BLOCK)
        return false;
    size_t size = REGF_BASE_BLOCK + (size_t)bins_size;
    to->size = size > to->size ? size : to->size;
    return true;
}

/* Whether a whole entry with right hashes, and pages inside the bins, stands at offset. */
static bool entry_is_sound(hive_bytes log, size_t offset)
{
    if (log.size - offset < REGF_SECTOR)
        return false;
    const uint8_t *entry = log.data + offset;
    uint32_t size = load32(entry + ENTRY_SIZE), count = load32(entry + ENTRY_PAGE_COUNT);
    uint32_t bins_size = load32(entry + ENTRY_BINS_SIZE);
    if (!has_signature(entry, "HvLE", 4) || size < REGF_SECTOR || size % REGF_SECTOR || size > log.size - offset ||
        count > (size - ENTRY_PAGES) / 8)
        return false;
    size_t room = size - ENTRY_PAGES - (size_t)count * 8;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = load32(entry + ENTRY_PAGES + 8 * (size_t)i);
        uint32_t length = load32(entry + ENTRY_PAGES + 8 * (size_t)i + 4);
        if (length > room || at > bins_size || length > bins_size - at)
            return false;
        room -= length;
    }
    return load64(entry + ENTRY_HEADER_HASH) == hive_marvin32(entry, ENTRY_HEADER_HASH) &&
           load64(entry + ENTRY_HASH) == hive_marvin32(entry + ENTRY_PAGES, size - ENTRY_PAGES);
}

static void apply_entry(image *to, const uint8_t *entry)
{
    uint32_t count = load32(entry + ENTRY_PAGE_COUNT);
    const uint8_t *reference = entry + ENTRY_PAGES, *page = reference + (size_t)count * 8;
    if (!resize(to, load32(entry + ENTRY_BINS_SIZE)))
        return;
    for (uint32_t i = 0; i < count; i++, reference += 8) {
        uint32_t size = load32(reference + 4);
        memcpy(to->bytes + REGF_BASE_BLOCK + load32(reference), page, size);
        page += size;
    }
    to->sequence = load32(entry + ENTRY_SEQUENCE);
    to->applied = true;
    store32(to->bytes + BASE_BINS_SIZE, load32(entry + ENTRY_BINS_SIZE));
}

/* Entries that the hive has had are skipped; the first gap ends the log. */
static void apply_new_log(image *to, hive_bytes log, uint32_t sequence_on_disk)
{
    for (size_t offset = REGF_SECTOR; offset < log.size && entry_is_sound(log, offset);) {
        const uint8_t *entry = log.data + offset;
        uint32_t sequence = load32(entry + ENTRY_SEQUENCE);
        if (to->applied ? sequence == to->sequence + 1 : sequence >= sequence_on_disk)
            apply_entry(to, entry);
        else if (to->applied && sequence > to->sequence)
            return;
        offset += load32(entry + ENTRY_SIZE);
    }
}

static void apply_old_log(image *to, hive_bytes log)
{
    uint32_t bins_size = load32(log.data + BASE_BINS_SIZE), sectors = bins_size / REGF_SECTOR;
    size_t bitmap = REGF_SECTOR + 4;
    size_t page = (bitmap + sectors / 8 + REGF_SECTOR - 1) / REGF_SECTOR * REGF_SECTOR, needed = page;
    if (bins_size % REGF_BIN_ALIGN || log.size < page || !has_signature(log.data + REGF_SECTOR, "DIRT", 4))
        return;
    for (uint32_t i = 0; i < sectors; i++)
        needed += log.data[bitmap + i / 8] >> i % 8 & 1 ? REGF_SECTOR : 0;
    if (needed > log.size || !resize(to, bins_size))
        return;
    for (uint32_t i = 0; i < sectors; i++) {
        if (log.data[bitmap + i / 8] >> i % 8 & 1) {
            memcpy(to->bytes + REGF_BASE_BLOCK + (size_t)i * REGF_SECTOR, log.data + page, REGF_SECTOR);
            page += REGF_SECTOR;
        }
    }
    memcpy(to->bytes, log.data, REGF_SECTOR);
    to->sequence = load32(log.data + BASE_SEQUENCE1);
    to->applied = true;
}

/* The log whose sequence number is the lowest above *after, or NULL. */
static const hive_bytes *next_log(const hive_bytes *logs, size_t count, uint64_t *after)
{
    const hive_bytes *next = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!base_is_sound(logs[i]) || sequences_differ(logs[i].data))
            continue;
        uint32_t sequence = load32(logs[i].data + BASE_SEQUENCE1);
        if (sequence + UINT64_C(1) > *after && (!next || sequence < load32(next->data + BASE_SEQUENCE1)))
            next = &logs[i];
    }
    if (next)
        *after = load32(next->data + BASE_SEQUENCE1) + UINT64_C(1);
    return next;
}

/* The number after the last of a log's entries that follow one another from its first on. */
static uint32_t end_of_log(hive_bytes log)
{
    uint32_t next = load32(log.data + BASE_SEQUENCE1);
    for (size_t offset = REGF_SECTOR; offset < log.size && entry_is_sound(log, offset);) {
        if (load32(log.data + offset + ENTRY_SEQUENCE) != next)
            break;
        next++;
        offset += load32(log.data + offset + ENTRY_SIZE);
    }
    return next;
}

/* The first of the logs that lead to the latest one without a gap, by its number. */
static uint32_t first_that_leads_on(const hive_bytes *logs, size_t log_count)
{
    uint64_t after = 0;
    uint32_t first = 0, end = 0;
    for (const hive_bytes *log; (log = next_log(logs, log_count, &after));) {
        uint32_t sequence = load32(log->data + BASE_SEQUENCE1);
        first = sequence == end ? first : sequence;
        end = end_of_log(*log);
    }
    return first;
}

/* What a log that was left from an earlier time has would undo what was written since. */
static bool old_log_fits(const image *to, hive_bytes log, uint32_t on_disk)
{
    return load32(log.data + BASE_SEQUENCE1) > on_disk &&
           load64(log.data + BASE_LAST_WRITTEN) >= load64(to->bytes + BASE_LAST_WRITTEN);
}

static void apply_logs(image *to, const hive_bytes *logs, size_t log_count, bool sound)
{
    uint32_t on_disk = sound ? load32(to->bytes + BASE_SEQUENCE2) : first_that_leads_on(logs, log_count);
    uint64_t after = sound ? 0 : on_disk;
    for (const hive_bytes *log; (log = next_log(logs, log_count, &after));) {
        if (!sound && !to->applied) /* the base block was torn: the log has a copy */
            memcpy(to->bytes, log->data, REGF_SECTOR);
        if (load32(log->data + BASE_TYPE) == LOG_TYPE_NEW) {
            apply_new_log(to, *log, on_disk);
            if (!to->applied && load32(log->data + BASE_SEQUENCE1) >= on_disk)
                return; /* its first entry is damaged: later ones build on it */
        } else if (!sound || old_log_fits(to, *log, on_disk)) {
            apply_old_log(to, *log);
        }
    }
}

int hive_recover(hive_bytes file, const hive_bytes *logs, size_t log_count, uint8_t **image_bytes, size_t *image_size,
                 hive_error *error)
{
    *image_bytes = NULL;
    bool sound = base_is_sound(file);
    if (log_count == 0 || file.size < REGF_BASE_BLOCK || (sound && !sequences_differ(file.data)))
        return HIVE_OK;
    image to = {.size = file.size, .limit = file.size};
    for (size_t i = 0; i < log_count; i++)
        to.limit += logs[i].size;
    to.bytes = calloc(1, to.limit);
    if (!to.bytes)
        return hive_no_memory(error);
    memcpy(to.bytes, file.data, file.size);
    apply_logs(&to, logs, log_count, sound);
    if (!to.applied) {
        free(to.bytes);
        return HIVE_OK;
    }
    store32(to.bytes + BASE_SEQUENCE1, to.sequence);
    store32(to.bytes + BASE_SEQUENCE2, to.sequence);
    store32(to.bytes + BASE_TYPE, 0);
    store32(to.bytes + BASE_CHECKSUM, regf_checksum(to.bytes));
    *image_bytes = to.bytes;
    *image_size = to.size;
    return HIVE_OK;
}
