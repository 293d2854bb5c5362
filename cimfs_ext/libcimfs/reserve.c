#include "reserve.h"

#define RESERVE_FROM (4u << 20)     /* a smaller file is not worth the call */
#define RESERVE_AT_MOST (64u << 20) /* beyond what is written */

void cimfs_reserve_ahead(const struct cimfs_io *io, cimfs_file file, uint64_t offset, uint64_t size, uint64_t *reserved)
{
    uint64_t end = offset + size;
    if (!io->reserve || end <= *reserved || offset < RESERVE_FROM)
        return;
    uint64_t ahead = offset < RESERVE_AT_MOST ? offset : RESERVE_AT_MOST;
    io->reserve(file, offset, size + ahead);
    *reserved = end + ahead;
}
