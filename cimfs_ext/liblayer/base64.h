/* Base64 as PAX records carry it: the standard alphabet, padded, no line breaks. */
#ifndef LAYER_BASE64_H
#define LAYER_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that size characters decode to at the most. */
static inline size_t layer_base64_room(size_t size)
{
    return size / 4 * 3;
}

/* The decoded length, or SIZE_MAX if the text is malformed; to has room as above. */
size_t layer_base64_decode(const char *text, size_t size, uint8_t *to);

#endif
