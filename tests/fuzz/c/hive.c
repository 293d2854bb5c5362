/* Feeds the hive engine with anything: what it reads it must be able to write, read again and merge.
 *
 * An input is a hive, or "LOGS", the size of a hive (u32, little-endian), that hive, and one log. The
 * checksums and hashes that would stop nearly every mutation are made right first.
 */
#include "hive/format.h"
#include "hive/internal.h"
#include "checks.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix_base(uint8_t *base, size_t size)
{
    if (size >= REGF_SECTOR)
        store32(base + BASE_CHECKSUM, regf_checksum(base));
}

static void fix_log(uint8_t *log, size_t size)
{
    fix_base(log, size);
    for (size_t at = REGF_SECTOR; at + REGF_SECTOR <= size;) {
        uint32_t length = load32(log + at + 4);
        if (length < REGF_SECTOR || length > size - at)
            return;
        store64(log + at + 24, hive_marvin32(log + at + 40, length - 40));
        store64(log + at + 32, hive_marvin32(log + at, 32));
        at += length;
    }
}

static uint64_t count_keys(const hive_key *key)
{
    uint64_t count = 1;
    for (uint32_t i = 0; i < key->subkey_count; i++)
        count += count_keys(key->subkeys[i]);
    return count;
}

static uint8_t *written(const hive *h, size_t *size)
{
    hive_error error;
    REQUIRE(hive_write(h, NULL, 0, size, &error) == HIVE_OK);
    uint8_t *out = malloc(*size);
    REQUIRE(out);
    size_t again;
    REQUIRE(hive_write(h, out, *size, &again, &error) == HIVE_OK && again == *size);
    return out;
}

static void exercise(hive_bytes file, const hive_bytes *logs, size_t log_count)
{
    hive *h, *again, *delta;
    hive_error error = {0};
    if (hive_read(file, logs, log_count, &h, &error)) {
        REQUIRE(h == NULL && error.reason);
        return;
    }
    size_t size, merged_size;
    uint8_t *out = written(h, &size);
    REQUIRE(hive_read((hive_bytes){out, size}, NULL, 0, &again, &error) == HIVE_OK);
    REQUIRE(count_keys(again->root) == count_keys(h->root));
    REQUIRE(hive_read((hive_bytes){out, size}, NULL, 0, &delta, &error) == HIVE_OK);
    if (hive_merge(again, delta, &error) == HIVE_OK)
        free(written(again, &merged_size));
    hive_destroy(again);
    hive_destroy(delta);
    free(out);
    hive_destroy(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    REQUIRE(copy);
    if (size)
        memcpy(copy, data, size);
    if (size >= 8 && has_signature(copy, "LOGS", 4) && load32(copy + 4) <= size - 8) {
        uint32_t hive_size = load32(copy + 4);
        hive_bytes log = {copy + 8 + hive_size, size - 8 - hive_size};
        fix_base(copy + 8, hive_size);
        fix_log(copy + 8 + hive_size, log.size);
        exercise((hive_bytes){copy + 8, hive_size}, &log, 1);
    } else {
        fix_base(copy, size);
        exercise((hive_bytes){copy, size}, NULL, 0);
    }
    free(copy);
    return 0;
}
