/*
 * Files in memory behind struct cimfs_io, one directory in all, for tests: what the library does to a directory can be
 * compared byte by byte, and any one call can be made to fail.
 */
#ifndef MEMORY_IO_H
#define MEMORY_IO_H

#include "libcimfs/io.h"

extern const struct cimfs_io memory_io;

/* The call of this number (from 1, over all functions that can fail) fails with code; 0: none does. */
void memory_fail_at(uint64_t call, cimfs_hresult code);
/* From then on, does every later call that changes a file fail too? As a disk does that is full. */
void memory_fail_for_good(int for_good);
uint64_t memory_calls(void);
uint64_t memory_syncs(void);
/* The function that failed last; "" if none did. */
const char *memory_failed_function(void);

/*
 * Allocations of sources compiled with -Dmalloc=memory_malloc and so on: the one of this number (from 1) fails; 0: none
 * does.
 */
void memory_fail_allocation(uint64_t allocation);
/* Has it failed? */
int memory_allocation_failed(void);
void *memory_malloc(size_t size);
void *memory_calloc(size_t count, size_t size);
void *memory_realloc(void *data, size_t size);

/* Everything closed and unmapped, and nobody holds the directory? */
int memory_is_idle(void);

void memory_clear(void);
void memory_put(const char *name, const void *data, size_t size);
/* NULL if there is no such file. */
const uint8_t *memory_get(const char *name, size_t *size);

/* A copy of the directory, to compare with later. */
struct memory_snapshot;
struct memory_snapshot *memory_take(void);
/* The same files with the same bytes? Files whose names begin with skip may differ, but must be there (NULL: none). */
int memory_same(const struct memory_snapshot *snapshot, const char *skip);
void memory_restore(const struct memory_snapshot *snapshot);
void memory_drop(struct memory_snapshot *snapshot);

#endif
