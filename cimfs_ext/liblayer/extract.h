/* One file of an image written to an open directory of the host: POSIX only. */
#ifndef LAYER_EXTRACT_H
#define LAYER_EXTRACT_H

#include "libcimfs/reader.h"

enum { LAYER_EXTRACT_BUFFER = 1 << 18 }; /* bytes; stays in the cache between the read and the write */

/*
 * Make the file name in directory, which must not be there yet in any form, with the content and the times of
 * file id, which is checked against its content ID. A stream that stores nothing, and zeros in a file that is marked
 * sparse, become holes. Returns 0, an errno of the destination (ECANCELED once *stop is set), or a negative HRESULT
 * about the image with error filled; after a failure the file is gone again.
 */
int layer_extract_file(const struct cimfs_reader *reader, uint32_t id, int directory, const char *name,
                       uint8_t buffer[LAYER_EXTRACT_BUFFER], const volatile int *stop, struct cimfs_error *error);

#endif
