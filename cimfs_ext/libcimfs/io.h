/*
 * The file operations that the library needs, as a table, so that tests can fail any one of them.
 *
 * All return 0 or a negative HRESULT; names are relative to an open directory, in UTF-8.
 */
#ifndef CIMFS_IO_H
#define CIMFS_IO_H

#include "cimfs.h"

typedef intptr_t cimfs_file;
#define CIMFS_NO_FILE ((cimfs_file) - 1)

enum cimfs_open_mode {
    CIMFS_OPEN_READ,  /* an existing file */
    CIMFS_OPEN_WRITE, /* an existing file, to be read and written */
    CIMFS_OPEN_CREATE /* a new file, to be read and written; FILE_EXISTS if it is there */
};

enum cimfs_lock {
    CIMFS_LOCK_SHARED,
    CIMFS_LOCK_ALONE,
    CIMFS_LOCK_ALONE_WAITING /* for whoever holds it: only where that is for a moment */
};

/* A thread that does one step after the other, while those who give them go on. It handles no signal. */
struct cimfs_worker;
typedef cimfs_hresult (*cimfs_step)(void *context);

struct cimfs_workers {
    /* NULL: there is none to be had. */
    struct cimfs_worker *(*start)(cimfs_step step, void *context);
    /* One step more. Those behind one that has failed are not done. */
    void (*give)(struct cimfs_worker *worker);
    /* Until at most so many are left to do: how the first one failed, if any did. */
    cimfs_hresult (*wait)(struct cimfs_worker *worker, uint64_t left);
    /* After the step under way; the others are not done. NULL does nothing. */
    void (*stop)(struct cimfs_worker *worker);
};

struct cimfs_io {
    cimfs_hresult (*open_directory)(const char *path, cimfs_file *directory);
    /* A link is PATH_NOT_FOUND; a directory or a device FILE_CORRUPT. */
    cimfs_hresult (*open)(cimfs_file directory, const char *name, enum cimfs_open_mode mode, cimfs_file *file);
    void (*close)(cimfs_file file);
    /*
     * Hold an open file until it is closed: SHARING_VIOLATION while somebody else does, FILE_NOT_FOUND if the name is
     * no longer this file's by the time it is held. A lock dies with its process.
     */
    cimfs_hresult (*lock)(cimfs_file directory, const char *name, cimfs_file file, enum cimfs_lock kind);
    cimfs_hresult (*size)(cimfs_file file, uint64_t *size);
    /* All of size bytes at offset, or HANDLE_EOF if the file ends before. */
    cimfs_hresult (*read)(cimfs_file file, void *data, size_t size, uint64_t offset);
    cimfs_hresult (*write)(cimfs_file file, const void *data, size_t size, uint64_t offset);
    /* Windows shortens no file that is mapped: there it keeps its length, which is no error. */
    cimfs_hresult (*truncate)(cimfs_file file, uint64_t size);
    /* Writes will go on in this range: take disk blocks for it now, if that makes them cheaper. A hint; may be NULL. */
    void (*reserve)(cimfs_file file, uint64_t offset, uint64_t size);
    /* Begin to write this range to the disk, which sync will wait for. A hint; may be NULL. */
    void (*write_back)(cimfs_file file, uint64_t offset, uint64_t size);
    cimfs_hresult (*sync)(cimfs_file file);
    cimfs_hresult (*sync_directory)(cimfs_file directory);
    cimfs_hresult (*rename)(cimfs_file directory, const char *from, const char *to);
    cimfs_hresult (*remove)(cimfs_file directory, const char *name);
    cimfs_hresult (*map)(cimfs_file file, size_t size, const uint8_t **data);
    void (*unmap)(const uint8_t *data, size_t size);
    /* NULL: a mapping is memory. Otherwise only a handle, of which this gives some bytes, to stay until it is unmapped.
     */
    cimfs_hresult (*view)(const uint8_t *mapping, uint64_t offset, size_t size, const uint8_t **data);
    cimfs_hresult (*random)(void *data, size_t size);
    int64_t (*now)(void);                /* FILETIME */
    const struct cimfs_workers *workers; /* NULL: there are no threads */
};

/*
 * Reads and writes of a file copy at the best rate where the bytes lie at the same offset in a page of memory as in the
 * file's: AMD's Zen 3 takes three times as long where they lie up to 63 bytes further on. Of a buffer with room for one
 * page more, where such bytes begin.
 */
enum { CIMFS_HOST_PAGE = 4096 };
static inline uint8_t *cimfs_in_page(uint8_t *buffer, uint64_t offset)
{
    return buffer + ((offset - (uintptr_t)buffer) & (CIMFS_HOST_PAGE - 1));
}

/* Is something in the file's place that is none? */
static inline int cimfs_is_no_plain_file(cimfs_hresult opened)
{
    return opened == CIMFS_E_PATH_NOT_FOUND || opened == CIMFS_E_FILE_CORRUPT;
}

/* The operating system's own. */
extern const struct cimfs_workers cimfs_system_workers;
extern const struct cimfs_io cimfs_system_io;

#endif
