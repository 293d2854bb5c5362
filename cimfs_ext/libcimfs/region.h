/*
 * A region file that is being appended to. Bytes are gathered into large writes that start on page
 * boundaries; what was appended last can be taken back, which is how a stream that turns out to be a
 * duplicate disappears again. A thread may do the writing, so that the next bytes are gathered meanwhile.
 */
#ifndef CIMFS_REGION_H
#define CIMFS_REGION_H

#include "format.h"
#include "io.h"

#define CIMFS_REGION_BUFFER (256u << 10)

struct cimfs_region {
    const struct cimfs_io *io;
    cimfs_file file;
    uint64_t committed;  /* the file's length before this image touched it */
    uint64_t flushed;    /* page-aligned offset of buffer[0] in the file: what lies before has been handed on */
    uint64_t reserved;   /* the file may have disk blocks up to here */
    uint64_t on_its_way; /* to the disk, up to here */
    int sync;            /* all of it will be waited for */
    int cut;             /* something that was written was taken back */
    int behind;          /* a thread is to write, once the file has grown */
    uint32_t used;       /* bytes in the buffer */
    uint8_t *buffer;
    void *memory; /* of the buffer, or of the worker's, which take turns */
    struct cimfs_worker *worker;
    uint64_t first;   /* offset of the first of the worker's buffers */
    uint64_t written; /* by the worker, up to here */
    uint16_t index;
    char name[CIMFS_FILE_NAME];
};

/* A new region file with its header. */
cimfs_hresult cimfs_region_create(struct cimfs_region *region, const struct cimfs_io *io, cimfs_file directory,
                                  const struct cimfs_guid *set, uint16_t index);
/* An existing one, to be continued at its end. */
cimfs_hresult cimfs_region_extend(struct cimfs_region *region, const struct cimfs_io *io, cimfs_file directory,
                                  const struct cimfs_guid *set, uint16_t index);
/* Write no more; what is left in memory is lost. */
void cimfs_region_stop(struct cimfs_region *region);
/* Close; safe on a zeroed region and twice. */
void cimfs_region_close(struct cimfs_region *region);

static inline uint64_t cimfs_region_end(const struct cimfs_region *region)
{
    return region->flushed + region->used;
}

/* Pad with zeros to a multiple of alignment, a power of two up to a page. */
cimfs_hresult cimfs_region_align(struct cimfs_region *region, uint32_t alignment);
/* Where the next bytes would be copied to, or NULL; append copies nothing that lies there. */
void *cimfs_region_room(const struct cimfs_region *region, uint32_t *size);
cimfs_hresult cimfs_region_append(struct cimfs_region *region, const void *data, size_t size);
/* Take back everything from offset end on. */
cimfs_hresult cimfs_region_cut(struct cimfs_region *region, uint64_t end);
/* Read back what was appended: all of size bytes, or HANDLE_EOF. */
cimfs_hresult cimfs_region_read(const struct cimfs_region *region, void *data, size_t size, uint64_t offset);
/* Bring the file to its full length on the way to a commit. */
cimfs_hresult cimfs_region_flush(struct cimfs_region *region);
/* Cut what truncate could not cut while the file was mapped. */
void cimfs_region_trim(struct cimfs_region *region);

#endif
