#include "reparse.h"

#include <string.h>

enum { HEADER = 8, MOUNT_POINT_FIELDS = 8, SYMLINK_FIELDS = 12, MAX_TARGET = 8000 };

static void put16(uint8_t *to, size_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static size_t put_units(uint8_t *to, const uint16_t *units, size_t length)
{
    for (size_t i = 0; i < length; i++)
        put16(to + 2 * i, units[i]);
    return 2 * length;
}

static size_t put_ascii(uint8_t *to, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        put16(to + 2 * i, (uint8_t)text[i]);
    return 2 * length;
}

static int is_letter(uint16_t unit)
{
    return (unit >= 'A' && unit <= 'Z') || (unit >= 'a' && unit <= 'z');
}

/* How the substitute name begins, and how much of the target that replaces; NULL: the link is relative. */
static const char *substitute_prefix(const uint16_t *target, size_t length, size_t *replaced)
{
    *replaced = 0;
    if (length >= 4 && target[0] == '\\' && target[1] == '\\' && target[2] == '?' && target[3] == '\\') {
        *replaced = 4;
        return "\\??\\";
    }
    if (length >= 2 && target[0] == '\\' && target[1] == '\\') {
        *replaced = 2;
        return "\\??\\UNC\\";
    }
    if (length >= 2 && is_letter(target[0]) && target[1] == ':')
        return "\\??\\";
    return NULL;
}

int layer_reparse_link(const uint16_t *target, size_t length, int mount_point, struct layer_buffer *to,
                       const char **reason)
{
    size_t replaced;
    const char *prefix = substitute_prefix(target, length, &replaced);
    size_t names = HEADER + (mount_point ? MOUNT_POINT_FIELDS : SYMLINK_FIELDS);
    if (length > MAX_TARGET) {
        *reason = "a link target of more than 8,000 code units";
        return -1;
    }
    if (layer_buffer_reserve(to, names + 4 * length + 32) < 0) {
        *reason = "out of memory";
        return -1;
    }
    uint8_t *data = to->data;
    memset(data, 0, names);
    size_t substitute = prefix ? put_ascii(data + names, prefix) : 0;
    substitute += put_units(data + names + substitute, target + replaced, length - replaced);
    put16(data + names + substitute, 0);
    size_t print = put_units(data + names + substitute + 2, target, length);
    put16(data + names + substitute + 2 + print, 0);
    to->size = names + substitute + 2 + print + 2;
    put16(data, mount_point ? 0x0003 : 0x000C); /* IO_REPARSE_TAG_MOUNT_POINT, IO_REPARSE_TAG_SYMLINK */
    put16(data + 2, 0xA000);
    put16(data + 4, to->size - HEADER);
    put16(data + 10, substitute);
    put16(data + 12, substitute + 2);
    put16(data + 14, print);
    if (!mount_point)
        data[16] = prefix ? 0 : 1; /* SYMLINK_FLAG_RELATIVE */
    return 0;
}
