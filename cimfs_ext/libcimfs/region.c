#include "region.h"

#include <stdlib.h>

#include "error.h"
#include "guid.h"

#define RESERVE_FROM (4u << 20)     /* a smaller file is not worth the call */
#define RESERVE_AT_MOST (64u << 20) /* beyond what is written */
#define WRITE_BACK (8u << 20)       /* the disk works while the rest is made */
#define BEHIND_FROM (4u << 20)      /* a smaller file needs no thread */
#define BUFFERS 4                   /* in turn: one is filled, the others are written */

static cimfs_hresult get_buffers(struct cimfs_region *region, size_t count)
{
    void *memory = malloc(count * CIMFS_REGION_BUFFER + CIMFS_HOST_PAGE);
    if (!memory)
        return CIMFS_E_OUT_OF_MEMORY;
    free(region->memory);
    region->memory = memory;
    region->buffer = cimfs_in_page(memory, 0);
    return CIMFS_OK;
}

static cimfs_hresult allocate(struct cimfs_region *region, const struct cimfs_io *io, const struct cimfs_guid *set,
                              uint16_t index)
{
    *region = (struct cimfs_region){.io = io, .file = CIMFS_NO_FILE, .index = index};
    cimfs_set_file_name("region", set, index, region->name);
    return get_buffers(region, 1);
}

/* Start the buffer at the page that holds offset end, with what the file already has of it. */
static cimfs_hresult load_last_page(struct cimfs_region *region, uint64_t end)
{
    region->flushed = end & ~(uint64_t)(CIMFS_PAGE - 1);
    region->first = region->written = region->flushed;
    region->buffer = cimfs_in_page(region->memory, 0);
    region->used = (uint32_t)(end - region->flushed);
    return region->io->read(region->file, region->buffer, region->used, region->flushed);
}

cimfs_hresult cimfs_region_create(struct cimfs_region *region, const struct cimfs_io *io, cimfs_file directory,
                                  const struct cimfs_guid *set, uint16_t index)
{
    CIMFS_TRY(allocate(region, io, set, index));
    CIMFS_TRY(io->open(directory, region->name, CIMFS_OPEN_CREATE, &region->file));
    struct cimfs_region_header header = {.index = put16(index), .type = (uint8_t)index};
    memcpy(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic);
    header.common.header_length = put32(sizeof header);
    header.common.file_type = CIMFS_FILE_REGION;
    header.common.version_major = put32(CIMFS_VERSION_MAJOR);
    return cimfs_region_append(region, &header, sizeof header);
}

cimfs_hresult cimfs_region_extend(struct cimfs_region *region, const struct cimfs_io *io, cimfs_file directory,
                                  const struct cimfs_guid *set, uint16_t index)
{
    CIMFS_TRY(allocate(region, io, set, index));
    CIMFS_TRY(io->open(directory, region->name, CIMFS_OPEN_WRITE, &region->file));
    CIMFS_TRY(io->size(region->file, &region->committed));
    region->on_its_way = region->committed;
    return load_last_page(region, region->committed);
}

void cimfs_region_stop(struct cimfs_region *region)
{
    if (region->worker)
        region->io->workers->stop(region->worker);
    region->worker = NULL;
}

void cimfs_region_close(struct cimfs_region *region)
{
    cimfs_region_stop(region);
    if (region->memory && region->file != CIMFS_NO_FILE)
        region->io->close(region->file);
    free(region->memory);
    region->memory = NULL;
    region->buffer = NULL;
    region->file = CIMFS_NO_FILE;
}

/*
 * Write whole pages, for good unless they are cut. A large file reserves as much as it has again, up to a limit. What
 * this changes of the region is the worker's alone while it has something to do.
 */
static cimfs_hresult write_pages(struct cimfs_region *region, const uint8_t *data, size_t size, uint64_t offset)
{
    uint64_t end = offset + size;
    if (region->io->reserve && end > region->reserved && offset >= RESERVE_FROM) {
        uint64_t ahead = offset < RESERVE_AT_MOST ? offset : RESERVE_AT_MOST;
        region->io->reserve(region->file, offset, size + ahead);
        region->reserved = end + ahead;
    }
    CIMFS_TRY(region->io->write(region->file, data, size, offset));
    if (region->sync && region->io->write_back && end - region->on_its_way >= WRITE_BACK) {
        region->io->write_back(region->file, region->on_its_way, end - region->on_its_way);
        region->on_its_way = end;
    }
    return CIMFS_OK;
}

/* Where bytes from that offset on are gathered. */
static uint8_t *buffer_at(const struct cimfs_region *region, uint64_t offset)
{
    return cimfs_in_page(region->memory, 0) + (offset - region->first) % (BUFFERS * CIMFS_REGION_BUFFER);
}

static cimfs_hresult write_next(void *context)
{
    struct cimfs_region *region = context;
    CIMFS_TRY(write_pages(region, buffer_at(region, region->written), CIMFS_REGION_BUFFER, region->written));
    region->written += CIMFS_REGION_BUFFER;
    return CIMFS_OK;
}

/* The buffer is empty. Without a worker, or memory for it, all goes on as before. */
static void start_worker(struct cimfs_region *region)
{
    region->behind = 0;
    if (get_buffers(region, BUFFERS) < 0)
        return;
    region->first = region->written = region->flushed;
    region->worker = region->io->workers->start(write_next, region);
}

/* Until no more than this many buffers of what was handed on are left to be written. */
static cimfs_hresult wait_for_worker(const struct cimfs_region *region, uint64_t left)
{
    return region->worker ? region->io->workers->wait(region->worker, left) : CIMFS_OK;
}

/* Hand on the whole buffer, which is full. */
static cimfs_hresult write_buffer(struct cimfs_region *region)
{
    if (!region->worker)
        CIMFS_TRY(write_pages(region, region->buffer, CIMFS_REGION_BUFFER, region->flushed));
    region->flushed += CIMFS_REGION_BUFFER;
    region->used = 0;
    if (region->worker) {
        region->io->workers->give(region->worker);
        CIMFS_TRY(wait_for_worker(region, BUFFERS - 1));
        region->buffer = buffer_at(region, region->flushed);
    } else if (region->behind && region->flushed >= BEHIND_FROM) {
        start_worker(region);
    }
    return CIMFS_OK;
}

void *cimfs_region_room(const struct cimfs_region *region, uint32_t *size)
{
    *size = CIMFS_REGION_BUFFER - region->used;
    return region->worker ? region->buffer + region->used : NULL; /* without one, large data goes out as it lies */
}

cimfs_hresult cimfs_region_append(struct cimfs_region *region, const void *data, size_t size)
{
    const uint8_t *from = data;
    if (size > CIMFS_OFFSET_MASK - cimfs_region_end(region))
        return CIMFS_E_DISK_FULL;
    while (size > 0) {
        if (region->used == 0 && size >= CIMFS_REGION_BUFFER / 4 && !region->worker) {
            /* Large data goes out as it lies, in whole pages. */
            size_t whole = size & ~(size_t)(CIMFS_PAGE - 1);
            CIMFS_TRY(write_pages(region, from, whole, region->flushed));
            region->flushed += whole;
            from += whole;
            size -= whole;
            continue;
        }
        size_t room = CIMFS_REGION_BUFFER - region->used;
        size_t count = size < room ? size : room;
        if (from != region->buffer + region->used) /* not put there already */
            memcpy(region->buffer + region->used, from, count);
        region->used += (uint32_t)count;
        from += count;
        size -= count;
        if (region->used == CIMFS_REGION_BUFFER)
            CIMFS_TRY(write_buffer(region));
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_region_align(struct cimfs_region *region, uint32_t alignment)
{
    static const uint8_t zeros[CIMFS_PAGE];
    uint32_t beyond = (uint32_t)(cimfs_region_end(region) & (alignment - 1));
    return beyond ? cimfs_region_append(region, zeros, alignment - beyond) : CIMFS_OK;
}

cimfs_hresult cimfs_region_cut(struct cimfs_region *region, uint64_t end)
{
    if (end >= region->flushed) {
        region->used = (uint32_t)(end - region->flushed);
        return CIMFS_OK;
    }
    CIMFS_TRY(wait_for_worker(region, 0));
    CIMFS_TRY(region->io->truncate(region->file, end));
    region->cut = 1;
    region->reserved = end;
    if (region->on_its_way > end)
        region->on_its_way = end;
    return load_last_page(region, end);
}

cimfs_hresult cimfs_region_read(const struct cimfs_region *region, void *data, size_t size, uint64_t offset)
{
    uint8_t *to = data;
    if (offset > cimfs_region_end(region) || size > cimfs_region_end(region) - offset)
        return CIMFS_E_HANDLE_EOF;
    if (offset < region->flushed) {
        uint64_t before = region->flushed - offset;
        size_t count = size < before ? size : (size_t)before;
        CIMFS_TRY(wait_for_worker(region, (before - count) / CIMFS_REGION_BUFFER));
        CIMFS_TRY(region->io->read(region->file, to, count, offset));
        to += count;
        size -= count;
        offset += count;
    }
    if (size > 0)
        memcpy(to, region->buffer + (offset - region->flushed), size);
    return CIMFS_OK;
}

cimfs_hresult cimfs_region_flush(struct cimfs_region *region)
{
    CIMFS_TRY(wait_for_worker(region, 0));
    CIMFS_TRY(region->io->write(region->file, region->buffer, region->used, region->flushed));
    return region->io->truncate(region->file, cimfs_region_end(region));
}

void cimfs_region_trim(struct cimfs_region *region)
{
    uint64_t size, end = cimfs_region_end(region);
    if (region->cut && region->io->size(region->file, &size) == CIMFS_OK && size > end)
        region->io->truncate(region->file, end);
}
