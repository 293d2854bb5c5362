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

/* Characters that size bytes become. */
static inline size_t layer_base64_length(size_t size)
{
    return (size + 2) / 3 * 4;
}

/* to has room for as many characters as that. */
void layer_base64_encode(const uint8_t *data, size_t size, char *to);

/* The decoded length, or SIZE_MAX if the text is malformed; to has room as above. */
size_t layer_base64_decode(const char *text, size_t size, uint8_t *to);

#endif
