/*
 * libFuzzer entry: the reparse buffer of any link target is well-formed, shows the target as it was given, and says
 * whether it is relative.
 *
 * The input: a byte whose lowest bit makes a mount point, then the target in UTF-16 (little-endian).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "liblayer/reparse.h"
#include "checks.h"

enum { MAX_TARGET = 8000 };

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static void check_buffer(const struct layer_buffer *buffer, const uint16_t *target, size_t length, int mount_point)
{
    const uint8_t *data = buffer->data;
    size_t names = mount_point ? 16 : 20;
    REQUIRE(buffer->size <= buffer->capacity && buffer->size >= names + 4);
    REQUIRE(get16(data) == (mount_point ? 0x0003 : 0x000C) && get16(data + 2) == 0xA000);
    REQUIRE(get16(data + 4) == buffer->size - 8 && get16(data + 6) == 0);
    size_t substitute_size = get16(data + 10), print_at = get16(data + 12), print_size = get16(data + 14);
    REQUIRE(get16(data + 8) == 0 && print_at == substitute_size + 2);
    REQUIRE(names + print_at + print_size + 2 == buffer->size);
    REQUIRE(get16(data + names + substitute_size) == 0 && get16(data + names + print_at + print_size) == 0);
    REQUIRE(print_size == 2 * length);
    for (size_t i = 0; i < length; i++)
        REQUIRE(get16(data + names + print_at + 2 * i) == target[i]);
    int is_native = substitute_size >= 8 && memcmp(data + names, u"\\??\\", 8) == 0;
    int is_as_shown = substitute_size == print_size && memcmp(data + names, data + names + print_at, print_size) == 0;
    REQUIRE(is_native || is_as_shown);
    if (!mount_point)
        REQUIRE(get16(data + 16) <= 1 && get16(data + 18) == 0 && (get16(data + 16) ? is_as_shown : is_native));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t length = (size - 1) / 2;
    uint16_t *target = malloc(length ? 2 * length : 1); /* of its own, so that a read beyond it is seen */
    struct layer_buffer buffer = {NULL, 0, 0};
    const char *reason = NULL;
    REQUIRE(target);
    for (size_t i = 0; i < length; i++)
        target[i] = get16(data + 1 + 2 * i);
    if (layer_reparse_link(target, length, data[0] & 1, &buffer, &reason) == 0)
        check_buffer(&buffer, target, length, data[0] & 1);
    else
        REQUIRE(reason != NULL && length > MAX_TARGET);
    free(target);
    free(buffer.data);
    return 0;
}
