#include "tarparts.h"

static int64_t parse_base256(const uint8_t *field, size_t width)
{
    /* The first bit marks the form, the second is the sign. */
    int negative = field[0] & 0x40;
    uint64_t result = negative ? UINT64_MAX : 0;
    for (size_t i = 0; i < width; i++) {
        uint8_t byte = i == 0 ? (uint8_t)(negative ? field[0] | 0x80 : field[0] & 0x7F) : field[i];
        uint8_t top = (uint8_t)(result >> 56);
        if (top != (negative ? 0xFF : 0))
            return negative ? INT64_MIN : INT64_MAX;
        result = result << 8 | byte;
    }
    if ((result >> 63) != (negative ? 1u : 0u))
        return negative ? INT64_MIN : INT64_MAX;
    int64_t value;
    memcpy(&value, &result, sizeof result);
    return value;
}

int layer_tar_number(const uint8_t *block, struct layer_tar_field field, int64_t *value)
{
    const uint8_t *text = block + field.offset;
    size_t i = 0;
    uint64_t result = 0;
    *value = 0;
    if (text[0] & 0x80) {
        *value = parse_base256(text, field.width);
        return 0;
    }
    while (i < field.width && text[i] == ' ')
        i++;
    for (; i < field.width && text[i] >= '0' && text[i] <= '7'; i++)
        result = result * 8 + (uint64_t)(text[i] - '0'); /* 12 digits cannot overflow */
    for (; i < field.width; i++)
        if (text[i] != ' ' && text[i] != 0)
            return -1;
    *value = (int64_t)result;
    return 0;
}

uint32_t layer_tar_sum(const uint8_t *block)
{
    const uint64_t every_other = 0x00FF00FF00FF00FF;
    uint64_t sums = 0, eight; /* four of 16 bits, which 128 bytes each do not fill */
    for (size_t i = 0; i < LAYER_TAR_BLOCK; i += sizeof eight) {
        memcpy(&eight, block + i, sizeof eight);
        sums += (eight & every_other) + (eight >> 8 & every_other);
    }
    return (uint32_t)((sums & 0xFFFF) + (sums >> 16 & 0xFFFF) + (sums >> 32 & 0xFFFF) + (sums >> 48));
}

int layer_tar_decimal(struct layer_slice text, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint64_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9 || *value > (UINT64_MAX - digit) / 10)
            return -1;
        *value = *value * 10 + digit;
    }
    return text.size > 0 ? 0 : -1;
}

int64_t layer_tar_filetime(int64_t seconds, int64_t ticks)
{
    if (seconds > (INT64_MAX - LAYER_UNIX_EPOCH) / LAYER_TICKS)
        return INT64_MAX;
    if (seconds < -LAYER_UNIX_EPOCH / LAYER_TICKS)
        return 0;
    int64_t whole = LAYER_UNIX_EPOCH + seconds * LAYER_TICKS;
    if (ticks > INT64_MAX - whole)
        return INT64_MAX;
    return whole + ticks < 0 ? 0 : whole + ticks;
}

int layer_tar_time(struct layer_slice text, int64_t *filetime)
{
    size_t negative = text.size > 0 && text.data[0] == '-', i = negative;
    int64_t seconds = 0, ticks = 0, unit = LAYER_TICKS;
    for (; i < text.size && text.data[i] != '.'; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9)
            return -1;
        seconds = seconds > (INT64_MAX - 9) / 10 ? INT64_MAX : seconds * 10 + digit; /* beyond all times anyway */
    }
    if (i == negative)
        return -1;
    for (i++; i < text.size; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9)
            return -1;
        unit /= 10; /* digits beyond 100 ns are cut */
        ticks += digit * unit;
    }
    *filetime = negative ? layer_tar_filetime(-seconds, -ticks) : layer_tar_filetime(seconds, ticks);
    return 0;
}
