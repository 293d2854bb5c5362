/* The regf format ("Windows registry file format specification"): positions, constants, and loads and stores. */
#ifndef HIVE_FORMAT_H
#define HIVE_FORMAT_H

#include <stdint.h>
#include <string.h>

#define REGF_NONE UINT32_MAX

enum {
    REGF_BASE_BLOCK = 4096,
    REGF_BIN_ALIGN = 4096,
    REGF_BIN_HEADER = 32,
    REGF_SECTOR = 512,
    REGF_CELL_ALIGN = 8,
    REGF_SEGMENT = 16344,  /* data bytes in a segment of big data */
    REGF_LIST_MAX = 507,   /* as many lh entries as fill a bin of 4096 bytes */
    REGF_FLAG_LAYERED = 2, /* base block flags */
    REGF_MINOR_LAYERED = 6,
};

enum { /* base block */
       BASE_SEQUENCE1 = 4,
       BASE_SEQUENCE2 = 8,
       BASE_LAST_WRITTEN = 12,
       BASE_MAJOR = 20,
       BASE_MINOR = 24,
       BASE_TYPE = 28,
       BASE_FORMAT = 32,
       BASE_ROOT = 36,
       BASE_BINS_SIZE = 40,
       BASE_CLUSTERING = 44,
       BASE_FILE_NAME = 48,
       BASE_FLAGS = 144,
       BASE_CHECKSUM = 508,
};

enum { /* key cell */
       NK_FLAGS = 2,
       NK_LAST_WRITTEN = 4,
       NK_ACCESS_BITS = 12,
       NK_LAYERING = 13,
       NK_PARENT = 16,
       NK_SUBKEY_COUNT = 20,
       NK_SUBKEY_LIST = 28,
       NK_VOLATILE_LIST = 32,
       NK_VALUE_COUNT = 36,
       NK_VALUE_LIST = 40,
       NK_SECURITY = 44,
       NK_CLASS = 48,
       NK_LARGEST_SUBKEY_NAME = 52,
       NK_USER_FLAGS = 54,
       NK_LARGEST_CLASS = 56,
       NK_LARGEST_VALUE_NAME = 60,
       NK_LARGEST_VALUE_DATA = 64,
       NK_NAME_SIZE = 72,
       NK_CLASS_SIZE = 74,
       NK_NAME = 76,
};

enum { /* value cell */
       VK_NAME_SIZE = 2,
       VK_DATA_SIZE = 4,
       VK_DATA = 8,
       VK_TYPE = 12,
       VK_FLAGS = 16,
       VK_SPARE = 18,
       VK_NAME = 20,
       VK_FLAG_LATIN1 = 1,
       VK_FLAG_TOMBSTONE = 2,
};
#define VK_DATA_INLINE 0x80000000u

enum { /* security cell */
       SK_NEXT = 4,
       SK_PREVIOUS = 8,
       SK_REFERENCES = 12,
       SK_SIZE = 16,
       SK_DESCRIPTOR = 20,
};

static inline uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load64(const uint8_t *p)
{
    return load32(p) | (uint64_t)load32(p + 4) << 32;
}

static inline void store16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void store32(uint8_t *p, uint32_t value)
{
    store16(p, (uint16_t)value);
    store16(p + 2, (uint16_t)(value >> 16));
}

static inline void store64(uint8_t *p, uint64_t value)
{
    store32(p, (uint32_t)value);
    store32(p + 4, (uint32_t)(value >> 32));
}

static inline int has_signature(const uint8_t *p, const char *signature, size_t size)
{
    return memcmp(p, signature, size) == 0;
}

/* The checksum of a base block: XOR of the words before it, never 0 or all ones. */
static inline uint32_t regf_checksum(const uint8_t *base)
{
    uint32_t sum = 0;
    for (int i = 0; i < BASE_CHECKSUM; i += 4)
        sum ^= load32(base + i);
    return sum == UINT32_MAX ? UINT32_MAX - 1 : sum == 0 ? 1 : sum;
}

#endif
