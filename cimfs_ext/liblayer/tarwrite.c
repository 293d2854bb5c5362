#include "tarwrite.h"

enum { MODE = 100, UID = 108, GID = 116, SIZE = 124, MTIME = 136, CHECKSUM = 148, KIND = 156, LINK = 157, MAGIC = 257 };

/* ---- numbers ---- */

/* The last `count` digits of a number. */
static void write_digits(uint64_t number, size_t count, uint8_t *to)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    for (; count > 1; number /= 100) {
        count -= 2;
        memcpy(to + count, pairs + number % 100 * 2, 2);
    }
    if (count > 0)
        to[0] = (uint8_t)('0' + number % 10);
}

static size_t count_digits(uint64_t number)
{
    size_t count = 1;
    for (; number >= 10000; number /= 10000)
        count += 4;
    return count + (number >= 10) + (number >= 100) + (number >= 1000);
}

size_t layer_decimal(uint64_t number, uint8_t *to)
{
    size_t count = count_digits(number);
    write_digits(number, count, to);
    return count;
}

size_t layer_pax_seconds(int64_t filetime, uint8_t *to)
{
    enum { DECIMALS = 7 };
    size_t count = 0;
    uint64_t ticks = (uint64_t)filetime - LAYER_UNIX_EPOCH;
    if (filetime < LAYER_UNIX_EPOCH) {
        ticks = 0 - ticks;
        to[count++] = '-';
    }
    count += layer_decimal(ticks / LAYER_TICKS, to + count);
    if (ticks % LAYER_TICKS == 0)
        return count;
    to[count] = '.';
    write_digits(ticks % LAYER_TICKS, DECIMALS, to + count + 1);
    count += 1 + DECIMALS;
    while (to[count - 1] == '0')
        count--;
    return count;
}

/* ---- headers ---- */

static void write_octal(uint64_t number, size_t digits, uint8_t *to)
{
    for (; digits > 0; number >>= 3)
        to[--digits] = (uint8_t)('0' + (number & 7));
}

static size_t cut_off(size_t length)
{
    return length < LAYER_TAR_NAME ? length : LAYER_TAR_NAME;
}

uint8_t *layer_tar_write_header(const struct layer_tar_header *header, uint8_t *to)
{
    memset(to, 0, LAYER_TAR_BLOCK);
    memcpy(to, header->name, cut_off(header->name_length));
    write_octal(header->mode, 7, to + MODE);
    memset(to + UID, '0', 7);
    memset(to + GID, '0', 7);
    write_octal(layer_tar_fits(header->size) ? header->size : 0, 11, to + SIZE);
    write_octal(layer_tar_fits(header->mtime) ? header->mtime : 0, 11, to + MTIME);
    memset(to + CHECKSUM, ' ', 8);
    to[KIND] = header->kind;
    memcpy(to + LINK, header->link, cut_off(header->link_length));
    memcpy(to + MAGIC, "ustar\00000", 8);
    write_octal(layer_tar_sum(to), 6, to + CHECKSUM);
    to[CHECKSUM + 6] = 0;
    return to + LAYER_TAR_BLOCK;
}

/* ---- records ---- */

/* The length that a record begins with is its own, that of these digits too. */
uint8_t *layer_tar_begin_record(const char *keyword, size_t keyword_length, size_t length, uint8_t *to)
{
    size_t rest = keyword_length + length + 3;               /* a space, = and a newline */
    size_t digits = count_digits(rest + count_digits(rest)); /* which may have made it longer by one */
    to += layer_decimal(rest + digits, to);
    *to++ = ' ';
    memcpy(to, keyword, keyword_length);
    to += keyword_length;
    *to++ = '=';
    to[length] = '\n';
    return to;
}

uint8_t *layer_tar_end_records(uint8_t *start, uint8_t *end)
{
    static const char name[] = "././@PaxHeader";
    size_t size = (size_t)(end - start) - LAYER_TAR_BLOCK, padding = (0 - size) % LAYER_TAR_BLOCK;
    struct layer_tar_header header = {
        .kind = 'x', .size = size, .name = (const uint8_t *)name, .name_length = sizeof name - 1};
    header.link = header.name; /* of which nothing is taken */
    layer_tar_write_header(&header, start);
    memset(end, 0, padding);
    return end + padding;
}
