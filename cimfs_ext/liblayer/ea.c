#include "ea.h"

#include <string.h>

#include "base64.h"

enum { HEADER = 8, MAX_NAME = 254, MAX_VALUE = 65535, MAX_LIST = 65535 };

static int append(const struct layer_ea *ea, struct layer_buffer *to, size_t *last, const char **reason)
{
    if (ea->name.size > MAX_NAME) {
        *reason = "an EA name of more than 254 bytes";
        return -1;
    }
    if (ea->value.size / 4 * 3 > MAX_LIST + 2) {
        *reason = "extended attributes of more than 65,535 bytes";
        return -1;
    }
    size_t start = to->size;
    if (layer_buffer_reserve(to, start + HEADER + ea->name.size + 1 + layer_base64_room(ea->value.size) + 4) < 0) {
        *reason = "out of memory";
        return -1;
    }
    uint8_t *entry = to->data + start;
    size_t length = layer_base64_decode(ea->value.data, ea->value.size, entry + HEADER + ea->name.size + 1);
    if (length > MAX_VALUE) {
        *reason = "an EA value that is not base64, or of more than 65,535 bytes";
        return -1;
    }
    memset(entry, 0, HEADER);
    entry[5] = (uint8_t)ea->name.size;
    entry[6] = (uint8_t)length;
    entry[7] = (uint8_t)(length >> 8);
    memcpy(entry + HEADER, ea->name.data, ea->name.size);
    entry[HEADER + ea->name.size] = 0;
    size_t end = start + HEADER + ea->name.size + 1 + length;
    while (end % 4 != 0)
        to->data[end++] = 0;
    if (end > MAX_LIST) {
        *reason = "extended attributes of more than 65,535 bytes";
        return -1;
    }
    to->size = end;
    if (*last != SIZE_MAX) {
        size_t next = start - *last;
        to->data[*last] = (uint8_t)next;
        to->data[*last + 1] = (uint8_t)(next >> 8);
    }
    *last = start;
    return 0;
}

/* Global attributes come again with every entry, and in order. */
static int is_sorted(const struct layer_ea *eas, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (layer_ea_compare(&eas[i - 1], &eas[i]) > 0)
            return 0;
    return 1;
}

int layer_ea_list(struct layer_ea *eas, size_t count, struct layer_buffer *to, const char **reason)
{
    size_t last = SIZE_MAX;
    to->size = 0;
    if (!is_sorted(eas, count))
        qsort(eas, count, sizeof *eas, layer_ea_compare);
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count && layer_ea_compare_names(&eas[i], &eas[i + 1]) == 0)
            continue;
        if (eas[i].value.size > 0 && append(&eas[i], to, &last, reason) < 0)
            return -1;
    }
    return 0;
}
