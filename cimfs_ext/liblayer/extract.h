/* Files of an image written to open directories of the host. */
#ifndef LAYER_EXTRACT_H
#define LAYER_EXTRACT_H

#include <stdatomic.h>

#include "libcimfs/reader.h"

enum {
    LAYER_EXTRACT_PIECE = 1 << 18, /* bytes; stays in the cache between the read and the write */
    LAYER_EXTRACT_BUFFER = LAYER_EXTRACT_PIECE + CIMFS_HOST_PAGE
};

/* What becomes of a file that is there already. */
enum layer_existing {
    LAYER_EXISTING_REFUSED,
    LAYER_EXISTING_SKIPPED, /* if it has the size and the write time; replaced if not */
    LAYER_EXISTING_REPLACED
};

/* Shared by all threads of an extraction. */
struct layer_extraction {
    const struct cimfs_reader *reader;
    const char *temporary; /* how the name of a large file begins until all of it is there */
    enum layer_existing existing;
    atomic_int stop;
    atomic_ullong written; /* bytes of content so far */
};

void layer_extraction_init(struct layer_extraction *extraction, const struct cimfs_reader *reader,
                           enum layer_existing existing);
void layer_extraction_stop(struct layer_extraction *extraction);
uint64_t layer_extraction_written(struct layer_extraction *extraction);

/*
 * Make the file name in directory (see hostfile.h) with the content and the times of file id; the content is checked
 * against its content ID. A stream that stores nothing, and zeros in a file that is marked sparse, become holes. A file
 * that takes more than one write gets its name when all of it is there. *skipped is set if the file was left as it is.
 * Returns 0, an error of the host (LAYER_HOST_STOPPED once the extraction is stopped), or a negative HRESULT about the
 * image with error filled.
 */
int layer_extract_file(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name,
                       uint8_t buffer[LAYER_EXTRACT_BUFFER], int *skipped, struct cimfs_error *error);

#endif
