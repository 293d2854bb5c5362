/*
 * Paths of the items of a layer, canonical before anything looks at them: relative, with one backslash between
 * components, without components that are empty or a dot.
 */
#ifndef LAYER_PATH_H
#define LAYER_PATH_H

#include <stddef.h>
#include <stdint.h>

#define LAYER_MAX_PATH 32767u
#define LAYER_MAX_NAME_BYTES ((LAYER_MAX_PATH + 263u) * 3u) /* UTF-8, of a path and a stream's name */

struct layer_path {
    uint16_t *units; /* NUL-terminated; room for LAYER_MAX_NAME_BYTES and the NUL */
    size_t length;
    size_t depth; /* components */
};

/* 0, or -1 without memory. */
int layer_path_init(struct layer_path *path);
void layer_path_cleanup(struct layer_path *path);

/* A name of a tar, UTF-8 with slashes. NULL, or why it is none; path is then empty. */
const char *layer_path_from_tar(struct layer_path *path, const char *name, size_t size);
/* A path of a call, UTF-16 with backslashes or slashes, also in front. */
const char *layer_path_from_call(struct layer_path *path, const uint16_t *units, size_t length);

/* NULL, or what is wrong with a path that is not empty; it may be a stream's. */
const char *layer_path_check(const struct layer_path *path);
/* The same for the path of a file or directory. */
const char *layer_path_check_file(const struct layer_path *path);

/* Where the name of a stream begins, at its colon; the path's length if there is none. */
size_t layer_path_stream(const struct layer_path *path);
/* The length of the path of the directory above; 0 for what lies in the root. */
size_t layer_path_parent(const uint16_t *units, size_t length);

#endif
