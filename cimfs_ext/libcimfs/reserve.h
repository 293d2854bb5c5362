/* Disk blocks for a file that grows at its end, taken before the bytes come where that makes writing cheaper. */
#ifndef CIMFS_RESERVE_H
#define CIMFS_RESERVE_H

#include "io.h"

/*
 * The bytes from offset on, size of them, are about to be written, and reserved is how far the file has blocks, 0 at
 * first: where they end beyond, take as much again as the file has, up to a limit. Truncating the file to its length at
 * the end gives back what is left.
 */
void cimfs_reserve_ahead(const struct cimfs_io *io, cimfs_file file, uint64_t offset, uint64_t size,
                         uint64_t *reserved);

#endif
