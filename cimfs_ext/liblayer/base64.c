#include "base64.h"

/* Value of a character, 64 and above for what is none. */
static uint32_t digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

size_t layer_base64_decode(const char *text, size_t size, uint8_t *to)
{
    size_t length = 0;
    if (size % 4 != 0)
        return SIZE_MAX;
    for (size_t i = 0; i < size; i += 4) {
        size_t padding = i + 4 < size ? 0 : (size_t)(text[i + 3] == '=') + (text[i + 2] == '=' && text[i + 3] == '=');
        uint32_t bits = 0;
        for (size_t k = 0; k < 4 - padding; k++) {
            uint32_t value = digit(text[i + k]);
            if (value > 63)
                return SIZE_MAX;
            bits |= value << (18 - 6 * k);
        }
        for (size_t k = 0; k < 3 - padding; k++)
            to[length++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    return length;
}
