/* What a tar is written of: numbers as text, headers, and PAX records (POSIX, "pax Interchange Format"). */
#ifndef LAYER_TARWRITE_H
#define LAYER_TARWRITE_H

#include "tar.h"

enum {
    LAYER_DECIMAL = 20,     /* characters of a number at most */
    LAYER_PAX_SECONDS = 22, /* of a time */
    LAYER_TAR_NAME = 100,   /* bytes that fit in a header */
    LAYER_TAR_AROUND = 23   /* bytes of a record besides its keyword and its text */
};

/* The header of what belongs to nobody. */
struct layer_tar_header {
    uint8_t kind;
    uint32_t mode;
    uint64_t size, mtime; /* 0 is written for what does not fit */
    const uint8_t *name;  /* in ASCII; what is longer than fits is cut off */
    size_t name_length;
    const uint8_t *link;
    size_t link_length;
};

/* Can a size or a time be written as eleven octal digits? */
static inline int layer_tar_fits(uint64_t number)
{
    return number >> 33 == 0;
}

/* Returns how many characters. */
size_t layer_decimal(uint64_t number, uint8_t *to);
/* A FILETIME as the seconds since 1970 of a record, exact to 100 ns and as short as can be; returns the same. */
size_t layer_pax_seconds(int64_t filetime, uint8_t *to);

/* One block; returns the end of it. */
uint8_t *layer_tar_write_header(const struct layer_tar_header *header, uint8_t *to);
/* All of a record but its text of length bytes; returns where that belongs. The next one begins a byte behind. */
uint8_t *layer_tar_begin_record(const char *keyword, size_t keyword_length, size_t length, uint8_t *to);
/* Announce the records, for whose header there is a block at start, and pad them; returns the end of that. */
uint8_t *layer_tar_end_records(uint8_t *start, uint8_t *end);

#endif
