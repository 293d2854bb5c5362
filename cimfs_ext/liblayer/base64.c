#include "base64.h"

/* A character's value and one more; 0 for what is none. */
static const uint8_t DIGITS[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

/* Three bytes of four characters; -1 if one of them is no digit. */
static int decode_group(const char *text, uint8_t *to)
{
    uint32_t bits = 0;
    for (size_t k = 0; k < 4; k++) {
        uint32_t digit = DIGITS[(uint8_t)text[k]];
        if (digit == 0)
            return -1;
        bits = bits << 6 | (digit - 1);
    }
    to[0] = (uint8_t)(bits >> 16);
    to[1] = (uint8_t)(bits >> 8);
    to[2] = (uint8_t)bits;
    return 0;
}

size_t layer_base64_decode(const char *text, size_t size, uint8_t *to)
{
    if (size % 4 != 0)
        return SIZE_MAX;
    if (size == 0)
        return 0;
    size_t padding = (size_t)(text[size - 1] == '=') + (text[size - 1] == '=' && text[size - 2] == '=');
    size_t whole = padding ? size - 4 : size, length = whole / 4 * 3;
    for (size_t i = 0; i < whole; i += 4)
        if (decode_group(text + i, to + i / 4 * 3) < 0)
            return SIZE_MAX;
    if (padding == 0)
        return length;
    char last[4] = {text[whole], text[whole + 1], padding == 2 ? 'A' : text[whole + 2], 'A'};
    uint8_t bytes[3];
    if (decode_group(last, bytes) < 0)
        return SIZE_MAX;
    for (size_t k = 0; k < 3 - padding; k++)
        to[length++] = bytes[k];
    return length;
}

static void encode_group(const uint8_t *data, char *to)
{
    static const char characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = (uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2];
    to[0] = characters[bits >> 18];
    to[1] = characters[bits >> 12 & 63];
    to[2] = characters[bits >> 6 & 63];
    to[3] = characters[bits & 63];
}

void layer_base64_encode(const uint8_t *data, size_t size, char *to)
{
    for (; size >= 3; data += 3, to += 4, size -= 3)
        encode_group(data, to);
    if (size > 0) {
        uint8_t last[3] = {data[0], size > 1 ? data[1] : 0, 0};
        encode_group(last, to);
        to[3] = '=';
        if (size == 1)
            to[2] = '=';
    }
}
