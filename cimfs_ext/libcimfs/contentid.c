#include "contentid.h"

#include <string.h>

/*
 * CIMFS_PLAIN_C leaves nothing but standard C11, the way a compiler without GNU extensions sees this file;
 * the tests build it so to hold both ways against each other.
 */
#if defined(__GNUC__) && !defined(CIMFS_PLAIN_C)
#ifdef __x86_64__
#define X86_VECTORS 1
#include <immintrin.h>
#endif
#ifdef __SIZEOF_INT128__
#define HAVE_INT128 1
#endif
#endif

enum {
    STRIPE = 64,
    STRIPES_PER_BLOCK = 16,
    SECRET_SIZE = 192,
    SECRET_STEP = 8, /* how far the secret moves from stripe to stripe */
    LANES = 8,
};

#define PRIME32_1 UINT64_C(0x9E3779B1)
#define PRIME32_2 UINT64_C(0x85EBCA77)
#define PRIME32_3 UINT64_C(0xC2B2AE3D)
#define PRIME64_1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME64_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME64_3 UINT64_C(0x165667B19E3779F9)
#define PRIME64_4 UINT64_C(0x85EBCA77C2B2AE63)
#define PRIME64_5 UINT64_C(0x27D4EB2F165667C5)
#define PRIME_MX1 UINT64_C(0x165667919E3779F9)
#define PRIME_MX2 UINT64_C(0x9FB21C651E98DF25)

static const uint8_t secret[SECRET_SIZE] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

struct pair {
    uint64_t low;
    uint64_t high;
};

static uint32_t load32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t load64(const uint8_t *at)
{
    return load32(at) | (uint64_t)load32(at + 4) << 32;
}

static uint32_t swap32(uint32_t x)
{
    return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

static uint64_t swap64(uint64_t x)
{
    return (uint64_t)swap32((uint32_t)x) << 32 | swap32((uint32_t)(x >> 32));
}

static struct pair multiply(uint64_t a, uint64_t b)
{
#ifdef HAVE_INT128
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (struct pair){(uint64_t)product, (uint64_t)(product >> 64)};
#else
    const uint64_t mask = 0xffffffff;
    uint64_t low = (a & mask) * (b & mask);
    uint64_t cross = (a >> 32) * (b & mask) + (low >> 32);
    uint64_t middle = (a & mask) * (b >> 32) + (cross & mask);
    return (struct pair){middle << 32 | (low & mask), (a >> 32) * (b >> 32) + (cross >> 32) + (middle >> 32)};
#endif
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    struct pair product = multiply(a, b);
    return product.low ^ product.high;
}

static uint64_t avalanche(uint64_t x)
{
    x = (x ^ x >> 37) * PRIME_MX1;
    return x ^ x >> 32;
}

static uint64_t avalanche_xxh64(uint64_t x)
{
    x = (x ^ x >> 33) * PRIME64_2;
    x = (x ^ x >> 29) * PRIME64_3;
    return x ^ x >> 32;
}

/* The secret's words at two neighbouring places, combined the way the short formulas want them. */
static uint64_t secret_xor(size_t offset)
{
    return load64(secret + offset) ^ load64(secret + offset + 8);
}

/* Short inputs: one formula per range of lengths. */

static struct pair hash_1to3(const uint8_t *data, size_t size)
{
    uint32_t combined =
        data[size - 1] | (uint32_t)size << 8 | (uint32_t)data[0] << 16 | (uint32_t)data[size >> 1] << 24;
    uint32_t swapped = swap32(combined);
    uint64_t low = (load32(secret) ^ load32(secret + 4)) ^ combined;
    uint64_t high = (load32(secret + 8) ^ load32(secret + 12)) ^ (swapped << 13 | swapped >> 19);
    return (struct pair){avalanche_xxh64(low), avalanche_xxh64(high)};
}

static struct pair hash_4to8(const uint8_t *data, size_t size)
{
    uint64_t combined = load32(data) | (uint64_t)load32(data + size - 4) << 32;
    struct pair mixed = multiply(secret_xor(16) ^ combined, PRIME64_1 + ((uint64_t)size << 2));
    mixed.high += mixed.low << 1;
    mixed.low ^= mixed.high >> 3;
    mixed.low = (mixed.low ^ mixed.low >> 35) * PRIME_MX2;
    return (struct pair){mixed.low ^ mixed.low >> 28, avalanche(mixed.high)};
}

static struct pair hash_9to16(const uint8_t *data, size_t size)
{
    uint64_t last = load64(data + size - 8);
    uint64_t upper = secret_xor(48) ^ last;
    struct pair mixed = multiply(secret_xor(32) ^ load64(data) ^ last, PRIME64_1);
    mixed.low += (uint64_t)(size - 1) << 54;
    mixed.high += upper + (upper & 0xffffffff) * (PRIME32_2 - 1);
    struct pair again = multiply(mixed.low ^ swap64(mixed.high), PRIME64_2);
    return (struct pair){avalanche(again.low), avalanche(again.high + mixed.high * PRIME64_2)};
}

/* Medium inputs: two accumulators, fed 16 + 16 bytes at a time. */

static uint64_t mix(const uint8_t *data, size_t offset, uint64_t seed)
{
    return fold(load64(data) ^ (load64(secret + offset) + seed),
                load64(data + 8) ^ (load64(secret + offset + 8) - seed));
}

static void mix_two(struct pair *acc, const uint8_t *first, const uint8_t *second, size_t offset, uint64_t seed)
{
    acc->low += mix(first, offset, seed);
    acc->low ^= load64(second) + load64(second + 8);
    acc->high += mix(second, offset + 16, seed);
    acc->high ^= load64(first) + load64(first + 8);
}

static struct pair finish_medium(struct pair acc, size_t size)
{
    uint64_t high = acc.low * PRIME64_1 + acc.high * PRIME64_4 + (uint64_t)size * PRIME64_2;
    return (struct pair){avalanche(acc.low + acc.high), 0 - avalanche(high)};
}

static struct pair hash_17to128(const uint8_t *data, size_t size)
{
    struct pair acc = {(uint64_t)size * PRIME64_1, 0};
    for (size_t i = (size - 1) / 32 + 1; i-- > 0;)
        mix_two(&acc, data + 16 * i, data + size - 16 * i - 16, 32 * i, 0);
    return finish_medium(acc, size);
}

static struct pair hash_129to240(const uint8_t *data, size_t size)
{
    struct pair acc = {(uint64_t)size * PRIME64_1, 0};
    for (size_t i = 0; i < 4; i++)
        mix_two(&acc, data + 32 * i, data + 32 * i + 16, 32 * i, 0);
    acc = (struct pair){avalanche(acc.low), avalanche(acc.high)};
    for (size_t i = 4; i < size / 32; i++)
        mix_two(&acc, data + 32 * i, data + 32 * i + 16, 32 * (i - 4) + 3, 0);
    mix_two(&acc, data + size - 16, data + size - 32, 103, 0);
    return finish_medium(acc, size);
}

static struct pair hash_short(const uint8_t *data, size_t size)
{
    if (size > 128)
        return hash_129to240(data, size);
    if (size > 16)
        return hash_17to128(data, size);
    if (size > 8)
        return hash_9to16(data, size);
    if (size > 3)
        return hash_4to8(data, size);
    if (size > 0)
        return hash_1to3(data, size);
    return (struct pair){avalanche_xxh64(secret_xor(64)), avalanche_xxh64(secret_xor(80))};
}

/* Long inputs: stripes into eight accumulators. */

static void accumulate(uint64_t acc[LANES], const uint8_t *stripe, const uint8_t *key)
{
    for (size_t i = 0; i < LANES; i++) {
        uint64_t lane = load64(stripe + 8 * i);
        uint64_t keyed = lane ^ load64(key + 8 * i);
        acc[i ^ 1] += lane;
        acc[i] += (keyed & 0xffffffff) * (keyed >> 32);
    }
}

/*
 * consume takes `stripes` whole stripes, at least one byte of input being behind them: the last stripe of all
 * is treated otherwise, and so is a last block (no scrambling behind it).
 */
#ifdef X86_VECTORS

/* The same for each width of vectors. MULTIPLY takes the lanes' lower halves, SWAP trades the lanes of a
 * pair. */
#define DEFINE_CONSUME(NAME, ISA, RAW, MULTIPLY, SWAP)                                                                 \
    __attribute__((target(ISA))) static void NAME(struct cimfs_hash *hash, const uint8_t *data, size_t stripes)        \
    {                                                                                                                  \
        typedef uint64_t vector __attribute__((vector_size(sizeof(RAW))));                                             \
        enum { COUNT = STRIPE / sizeof(vector) };                                                                      \
        vector acc[COUNT];                                                                                             \
        uint32_t at = hash->stripe;                                                                                    \
        memcpy(acc, hash->acc, sizeof acc);                                                                            \
        for (; stripes > 0; stripes--, data += STRIPE) {                                                               \
            const uint8_t *key = secret + SECRET_STEP * at;                                                            \
            for (size_t i = 0; i < COUNT; i++) {                                                                       \
                vector lanes, keyed;                                                                                   \
                memcpy(&lanes, data + i * sizeof lanes, sizeof lanes);                                                 \
                memcpy(&keyed, key + i * sizeof keyed, sizeof keyed);                                                  \
                keyed ^= lanes;                                                                                        \
                acc[i] += (vector)SWAP((RAW)lanes, 0x4e);                                                              \
                acc[i] += (vector)MULTIPLY((RAW)keyed, (RAW)(keyed >> 32));                                            \
            }                                                                                                          \
            if (++at == STRIPES_PER_BLOCK) {                                                                           \
                at = 0;                                                                                                \
                for (size_t i = 0; i < COUNT; i++) {                                                                   \
                    vector last_key;                                                                                   \
                    memcpy(&last_key, secret + SECRET_SIZE - STRIPE + i * sizeof last_key, sizeof last_key);           \
                    acc[i] = (acc[i] ^ acc[i] >> 47 ^ last_key) * PRIME32_1;                                           \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        memcpy(hash->acc, acc, sizeof acc);                                                                            \
        hash->stripe = at;                                                                                             \
    }

DEFINE_CONSUME(consume_avx512, "avx512f", __m512i, _mm512_mul_epu32, _mm512_shuffle_epi32)
DEFINE_CONSUME(consume_avx2, "avx2", __m256i, _mm256_mul_epu32, _mm256_shuffle_epi32)
DEFINE_CONSUME(consume_sse2, "sse2", __m128i, _mm_mul_epu32, _mm_shuffle_epi32)

static void consume(struct cimfs_hash *hash, const uint8_t *data, size_t stripes)
{
    if (__builtin_cpu_supports("avx512f"))
        consume_avx512(hash, data, stripes);
    else if (__builtin_cpu_supports("avx2"))
        consume_avx2(hash, data, stripes);
    else
        consume_sse2(hash, data, stripes);
}

#else

static void scramble(uint64_t acc[LANES])
{
    const uint8_t *key = secret + SECRET_SIZE - STRIPE;
    for (size_t i = 0; i < LANES; i++)
        acc[i] = (acc[i] ^ acc[i] >> 47 ^ load64(key + 8 * i)) * PRIME32_1;
}

static void consume(struct cimfs_hash *hash, const uint8_t *data, size_t stripes)
{
    for (; stripes > 0; stripes--, data += STRIPE) {
        accumulate(hash->acc, data, secret + SECRET_STEP * hash->stripe);
        if (++hash->stripe == STRIPES_PER_BLOCK) {
            hash->stripe = 0;
            scramble(hash->acc);
        }
    }
}

#endif

static uint64_t merge(const uint64_t acc[LANES], uint64_t start, size_t offset)
{
    const uint8_t *key = secret + offset;
    for (size_t i = 0; i < LANES; i += 2)
        start += fold(acc[i] ^ load64(key + 8 * i), acc[i + 1] ^ load64(key + 8 * i + 8));
    return avalanche(start);
}

/* `last_stripe`: the last 64 bytes of the input, whether or not some of them were consumed before. */
static struct pair finish_long(struct cimfs_hash *hash, const uint8_t *last_stripe)
{
    accumulate(hash->acc, last_stripe, secret + SECRET_SIZE - STRIPE - 7);
    return (struct pair){merge(hash->acc, hash->total * PRIME64_1, 11),
                         merge(hash->acc, ~(hash->total * PRIME64_2), SECRET_SIZE - STRIPE - 11)};
}

static void store_digest(struct pair value, uint8_t digest[CIMFS_DIGEST_SIZE])
{
    for (unsigned i = 0; i < 8; i++) {
        digest[i] = (uint8_t)(value.high >> (56 - 8 * i));
        digest[8 + i] = (uint8_t)(value.low >> (56 - 8 * i));
    }
}

enum { SHORT_LIMIT = 240 }; /* the longest input that has a formula of its own */

void cimfs_hash_init(struct cimfs_hash *hash)
{
    static const uint64_t start[LANES] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                          PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    memcpy(hash->acc, start, sizeof start);
    hash->total = 0;
    hash->buffered = 0;
    hash->stripe = 0;
}

void cimfs_hash_update(struct cimfs_hash *hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t room = CIMFS_HASH_BUFFER - hash->buffered;
    if (size == 0)
        return;
    hash->total += size;
    if (size <= room) {
        memcpy(hash->buffer + hash->buffered, bytes, size);
        hash->buffered += (uint32_t)size;
        return;
    }
    if (hash->buffered > 0) {
        memcpy(hash->buffer + hash->buffered, bytes, room);
        consume(hash, hash->buffer, CIMFS_HASH_BUFFER / STRIPE);
        bytes += room;
        size -= room;
    }
    if (size > CIMFS_HASH_BUFFER) {
        size_t stripes = (size - 1) / STRIPE;
        consume(hash, bytes, stripes);
        bytes += stripes * STRIPE;
        size -= stripes * STRIPE;
        /* The last stripe of all may reach back into this one: it stays where a full buffer would have it. */
        memcpy(hash->buffer + CIMFS_HASH_BUFFER - STRIPE, bytes - STRIPE, STRIPE);
    }
    memcpy(hash->buffer, bytes, size);
    hash->buffered = (uint32_t)size;
}

void cimfs_hash_final(const struct cimfs_hash *hash, uint8_t digest[CIMFS_DIGEST_SIZE])
{
    if (hash->total <= SHORT_LIMIT) {
        store_digest(hash_short(hash->buffer, (size_t)hash->total), digest);
        return;
    }
    struct cimfs_hash copy = *hash;
    uint8_t last_stripe[STRIPE];
    size_t kept = copy.buffered < STRIPE ? copy.buffered : STRIPE;
    size_t back = STRIPE - kept;
    consume(&copy, copy.buffer, (copy.buffered - 1) / STRIPE);
    memcpy(last_stripe, copy.buffer + CIMFS_HASH_BUFFER - back, back);
    memcpy(last_stripe + back, copy.buffer + copy.buffered - kept, kept);
    store_digest(finish_long(&copy, last_stripe), digest);
}

void cimfs_hash_of(const void *data, size_t size, uint8_t digest[CIMFS_DIGEST_SIZE])
{
    const uint8_t *bytes = data;
    if (size <= SHORT_LIMIT) {
        store_digest(hash_short(bytes, size), digest);
        return;
    }
    struct cimfs_hash hash;
    cimfs_hash_init(&hash);
    hash.total = size;
    consume(&hash, bytes, (size - 1) / STRIPE);
    store_digest(finish_long(&hash, bytes + size - STRIPE), digest);
}
