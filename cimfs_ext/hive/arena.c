#include "internal.h"

#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    FIRST_CHUNK = 4096,
    LARGEST_CHUNK = 1 << 25,
    HUGE_BLOCK = 1 << 22,
    HUGE_PAGE = 1 << 21,
    OVERHEAD = 64, /* what malloc and the object around a block take, at most */
    PAGE = 4096,
};

typedef struct hive_chunk {
    struct hive_chunk *next;
    size_t mapped; /* its size if it is a mapping of its own, else 0 */
    _Alignas(16) unsigned char bytes[];
} hive_chunk;

int hive_fail(hive_error *error, int code, uint64_t offset, const char *reason)
{
    *error = (hive_error){.reason = reason, .offset = offset};
    return code;
}

int hive_no_memory(hive_error *error)
{
    return hive_fail(error, HIVE_NO_MEMORY, HIVE_NO_OFFSET, "out of memory");
}

size_t hive_block_size(size_t size)
{
    if (size < HUGE_BLOCK || size > SIZE_MAX / 2)
        return size;
    return (size + OVERHEAD + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE - OVERHEAD;
}

void hive_use_huge_pages(void *block, size_t size)
{
#ifdef MADV_HUGEPAGE
    uintptr_t start = (uintptr_t)block & ~(uintptr_t)(PAGE - 1);
    uintptr_t end = ((uintptr_t)block + size + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    if (size >= HUGE_BLOCK)
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE); /* advice: it may be refused */
#else
    (void)block;
    (void)size;
#endif
}

/* A large chunk is mapped here: malloc writes in front of a block, and that first touch would come before the advice.
 */
static hive_chunk *new_chunk(size_t size)
{
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_BLOCK) {
        void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            return NULL;
        hive_use_huge_pages(block, size);
        hive_chunk *mapped = block;
        mapped->mapped = size;
        return mapped;
    }
#endif
    hive_chunk *chunk = malloc(size);
    if (chunk)
        chunk->mapped = 0;
    return chunk;
}

static void free_chunk(hive_chunk *chunk)
{
#ifdef MADV_HUGEPAGE
    if (chunk->mapped) {
        (void)munmap(chunk, chunk->mapped);
        return;
    }
#endif
    free(chunk);
}

/* The chunk in use stands first in the list; arena.used and arena.size speak of it. */
void *hive_alloc(hive_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + 7) & ~(size_t)7;
    if (!arena->chunks || size > arena->size - arena->used) {
        size_t next = arena->size * 2 < FIRST_CHUNK ? FIRST_CHUNK : arena->size * 2;
        next = next > LARGEST_CHUNK ? LARGEST_CHUNK : next;
        next = next > size ? hive_block_size(next) : size;
        hive_chunk *chunk = new_chunk(sizeof *chunk + next);
        if (!chunk)
            return NULL;
        if (size == next && arena->chunks) { /* filled at once: the chunk in use keeps its place */
            chunk->next = arena->chunks->next;
            arena->chunks->next = chunk;
            return chunk->bytes;
        }
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->size = next;
        arena->used = 0;
    }
    void *result = arena->chunks->bytes + arena->used;
    arena->used += size;
    return result;
}

void hive_arena_cleanup(hive_arena *arena)
{
    while (arena->chunks) {
        hive_chunk *next = arena->chunks->next;
        free_chunk(arena->chunks);
        arena->chunks = next;
    }
}

bool hive_grow(hive_arena *arena, void **array, uint32_t count, uint32_t *capacity, size_t item_size)
{
    if (count < *capacity)
        return true;
    if (count > UINT32_MAX / 2 - 4)
        return false;
    uint32_t larger = count < 4 ? 4 : count * 2;
    void *moved = hive_alloc(arena, larger * item_size);
    if (!moved)
        return false;
    if (count)
        memcpy(moved, *array, count * item_size);
    *array = moved;
    *capacity = larger;
    return true;
}

static void merge_runs(const void **out, const void **items, size_t middle, size_t count, hive_compare *compare)
{
    size_t left = 0, right = middle;
    for (size_t i = 0; i < count; i++) {
        bool from_left = left < middle && (right == count || compare(items[left], items[right]) <= 0);
        out[i] = items[from_left ? left++ : right++];
    }
}

void hive_sort(const void **items, const void **scratch, size_t count, hive_compare *compare)
{
    if (count < 2)
        return;
    size_t middle = count / 2;
    hive_sort(items, scratch, middle, compare);
    hive_sort(items + middle, scratch + middle, count - middle, compare);
    memcpy(scratch, items, count * sizeof *items);
    merge_runs(items, scratch, middle, count, compare);
}
