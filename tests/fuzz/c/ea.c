/*
 * libFuzzer entry: extended attributes of any names and values, given in any order, become a list that a walk over it
 * finds whole and sorted, with the last of each name, and base64 decodes to what was encoded.
 *
 * The input: records of a byte of flags, a byte and two bytes of sizes (little-endian), a name and a value. A value
 * whose flag 1 is set stands as it is; others are encoded first, since base64 of any length is hard to guess.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "liblayer/base64.h"
#include "liblayer/ea.h"
#include "checks.h"

enum { MAX_RECORDS = 64, RECORD_HEADER = 4, ENTRY_HEADER = 8, MAX_NAME = 254, MAX_LIST = 65535, AS_IT_STANDS = 1 };

/* A record as it was given. The bytes are those that were encoded, or what an independent decoder makes of the text. */
struct record {
    uint8_t *bytes;
    size_t size;
    int is_valid;
};

/* Every text is a buffer of its own, so that a read beyond it is seen. */
static char *copied(const void *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    REQUIRE(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static struct layer_slice encoded(const uint8_t *data, size_t size)
{
    size_t length = (size + 2) / 3 * 4;
    char *text = malloc(length ? length : 1);
    REQUIRE(text);
    for (size_t i = 0, at = 0; at < length; i += 3, at += 4) {
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= i + 2 < size ? data[i + 2] : 0;
        for (size_t k = 0; k < 4; k++)
            text[at + k] = ALPHABET[bits >> (18 - 6 * k) & 63];
        if (i + 1 >= size)
            text[at + 2] = '=';
        if (i + 2 >= size)
            text[at + 3] = '=';
    }
    return (struct layer_slice){text, length};
}

/* Bit by bit, unlike the decoder that is looked at. */
static struct record decoded(const char *text, size_t size)
{
    struct record record = {malloc(size ? size : 1), 0, size % 4 == 0};
    size_t digits = size, bits = 0;
    REQUIRE(record.bytes);
    for (int padding = 0; padding < 2 && record.is_valid && digits > 0 && text[digits - 1] == '='; padding++)
        digits--;
    memset(record.bytes, 0, size);
    for (size_t i = 0; record.is_valid && i < digits; i++) {
        const char *found = text[i] ? strchr(ALPHABET, text[i]) : NULL;
        if (!found) {
            record.is_valid = 0;
            break;
        }
        for (int bit = 5; bit >= 0; bit--, bits++)
            if ((found - ALPHABET) >> bit & 1)
                record.bytes[bits / 8] |= (uint8_t)(0x80 >> bits % 8);
    }
    record.size = bits / 8;
    return record;
}

static size_t take_records(const uint8_t *data, size_t size, struct layer_ea *eas, struct record *records)
{
    size_t count = 0;
    while (count < MAX_RECORDS && size >= RECORD_HEADER) {
        size_t name_size = data[1], value_size = (size_t)data[2] | (size_t)data[3] << 8;
        int flags = data[0];
        data += RECORD_HEADER, size -= RECORD_HEADER;
        name_size = name_size < size ? name_size : size;
        const uint8_t *name = data;
        data += name_size, size -= name_size;
        value_size = value_size < size ? value_size : size;
        eas[count].name = (struct layer_slice){copied(name, name_size), name_size};
        eas[count].value = flags & AS_IT_STANDS ? (struct layer_slice){copied(data, value_size), value_size}
                                                : encoded(data, value_size);
        eas[count].order = count;
        records[count] = decoded(eas[count].value.data, eas[count].value.size);
        if (!(flags & AS_IT_STANDS))
            REQUIRE(records[count].size == value_size &&
                    (value_size == 0 || memcmp(records[count].bytes, data, value_size) == 0));
        data += value_size, size -= value_size;
        count++;
    }
    return count;
}

/* One entry of the list against the record it came from; where the entry ends, before padding. */
static size_t check_entry(const struct layer_buffer *list, size_t at, const struct layer_ea *ea,
                          const struct record *record)
{
    const uint8_t *entry = list->data + at;
    REQUIRE(list->size - at >= ENTRY_HEADER);
    size_t value_size = (size_t)entry[6] | (size_t)entry[7] << 8;
    size_t end = at + ENTRY_HEADER + ea->name.size + 1 + value_size;
    REQUIRE(end <= list->size);
    REQUIRE(entry[4] == 0 && entry[5] == ea->name.size && entry[ENTRY_HEADER + ea->name.size] == 0);
    REQUIRE(memcmp(entry + ENTRY_HEADER, ea->name.data, ea->name.size) == 0);
    REQUIRE(record->is_valid && value_size == record->size);
    REQUIRE(memcmp(entry + ENTRY_HEADER + ea->name.size + 1, record->bytes, value_size) == 0);
    return end;
}

static int is_same_name(const struct layer_ea *a, const struct layer_ea *b)
{
    return a->name.size == b->name.size && memcmp(a->name.data, b->name.data, a->name.size) == 0;
}

/* eas is sorted now: each is in the list if its value is not empty and none of its name comes after it. */
static void check_list(const struct layer_buffer *list, const struct layer_ea *eas, size_t count,
                       const struct record *records)
{
    size_t at = 0, next = 0;
    REQUIRE(list->size <= MAX_LIST && list->size % 4 == 0 && list->size <= list->capacity);
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count && is_same_name(&eas[i], &eas[i + 1])) {
            REQUIRE(eas[i].order < eas[i + 1].order);
            continue;
        }
        if (eas[i].value.size == 0)
            continue;
        at = next;
        size_t end = check_entry(list, at, &eas[i], &records[eas[i].order]);
        uint32_t offset = 0;
        for (size_t k = 4; k-- > 0;)
            offset = offset << 8 | list->data[at + k];
        next = (end + 3) / 4 * 4;
        for (; end < next; end++)
            REQUIRE(list->data[end] == 0);
        REQUIRE(next == list->size ? offset == 0 : offset == next - at);
    }
    REQUIRE(next == list->size);
}

/* Whether there is nothing to refuse. */
static int is_fine(const struct layer_ea *eas, size_t count, const struct record *records)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (eas[i].name.size > MAX_NAME || !records[i].is_valid)
            return 0;
        total += ENTRY_HEADER + eas[i].name.size + 1 + records[i].size + 3;
    }
    return total <= MAX_LIST;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct layer_ea eas[MAX_RECORDS];
    struct record records[MAX_RECORDS];
    struct layer_buffer list = {NULL, 0, 0};
    const char *reason = NULL;
    size_t count = take_records(data, size, eas, records);
    int fine = is_fine(eas, count, records);
    if (layer_ea_list(eas, count, &list, &reason) == 0)
        check_list(&list, eas, count, records);
    else
        REQUIRE(reason != NULL && !fine);
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)eas[i].name.data);
        free((void *)(uintptr_t)eas[i].value.data);
        free(records[i].bytes);
    }
    free(list.data);
    return 0;
}
