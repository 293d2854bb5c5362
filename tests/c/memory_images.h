/* Images in memory, and what is written to them. */
#ifndef MEMORY_IMAGES_H
#define MEMORY_IMAGES_H

#include <uchar.h>

#include "cimfs.h"

static inline const cimfs_wchar *wide(const char16_t *text)
{
    return (const cimfs_wchar *)text;
}

#define W(text) wide(u##text)

/* The syncs of a commit: regions, object IDs, the .cim; the directory before and after its rename. */
enum { SYNCS = 3 + 3 + 1 + 2 };
enum { NOISE = 2 << 20, LARGE = 330000 }; /* LARGE: more than is buffered (CIMFS_REGION_BUFFER) */

extern const struct cimfs_api *api;
extern struct cimfs_error last_error;
extern uint8_t noise[NOISE];

/* Before all else. */
void memory_images_init(void);
cimfs_hresult open_image(const cimfs_wchar *existing, const cimfs_wchar *name, cimfs_image *image);
/* The bytes of a stream, so many at a time. */
cimfs_hresult write_pieces(cimfs_stream stream, const uint8_t *data, size_t size, size_t piece);
/* A file. */
cimfs_hresult add(cimfs_image image, const cimfs_wchar *path, const uint8_t *data, size_t size, size_t piece);
void check_content(const char *name, const char16_t *path, const uint8_t *data, size_t size);

#endif
