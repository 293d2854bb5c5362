/* Files of an image written to an open directory of the host. */
#ifndef LAYER_EXTRACT_H
#define LAYER_EXTRACT_H

#include "libcimfs/reader.h"

enum { LAYER_EXTRACT_BUFFER = 1 << 18 }; /* bytes; stays in the cache between the read and the write */

/* What of a file's metadata goes onto a file of Windows (elsewhere, nothing but times does). */
enum {
    LAYER_KEEP_STAMPS = 1, /* attributes and all four times */
    LAYER_KEEP_DESCRIPTOR = 2,
    LAYER_KEEP_EAS = 4,
    LAYER_KEEP_STREAMS = 8,
    LAYER_KEEP_REPARSE = 16
};

/* How many files lost what, since the caller or the volume could not have it. */
struct layer_losses {
    uint64_t descriptors, eas, streams, reparse_points;
};

struct layer_extraction {
    const struct cimfs_reader *reader;
    unsigned keep;
    const volatile int *stop; /* once set, calls end with LAYER_STOPPED */
    uint8_t *buffer;          /* of LAYER_EXTRACT_BUFFER bytes */
    struct layer_losses lost;
    struct cimfs_error error; /* filled with a negative result */
};

/*
 * Make the file name in directory (a descriptor, or a handle of Windows), which must not be there yet in any form, with
 * the content of file id, which is checked against its content ID, and with its metadata. A stream that stores nothing,
 * and zeros in a file that is marked sparse, become holes. Returns 0, an error of the destination (errno, or a Win32
 * error code), or a negative HRESULT about the image; after a failure the file is gone again.
 */
int layer_extract_file(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name);

/* Give a file or directory that is there the times, and what else is kept, of file id. */
int layer_extract_metadata(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name);

/* ---- for the halves of the systems ---- */

/* The content of an open file of the host. */
int layer_extract_content(struct layer_extraction *extraction, const struct cimfs_extent *content, int holes,
                          intptr_t file);

/* By each system; results as above. */
extern const int LAYER_STOPPED, LAYER_TOO_LARGE;
int layer_host_write(intptr_t file, const uint8_t *data, size_t size, uint64_t position);
int layer_host_resize(intptr_t file, uint64_t size);

#endif
