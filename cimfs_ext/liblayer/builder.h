/*
 * The rules of a layer, once for whoever brings its items (hcsshim, internal/wclayer/cim): each item is decided on, and
 * what belongs in the image is made there by calls on cimfs.h.
 *
 * The image knows nothing of the standard files, nor of links to them, before they are final: they stay pending
 * outside it, and nothing that comes later may take their place, or the last item of a path would not be the one that
 * counts.
 */
#ifndef LAYER_BUILDER_H
#define LAYER_BUILDER_H

#include "cimfs.h"
#include "path.h"
#include "pathset.h"

#define LAYER_MAX_STANDARD 64u

/* What becomes of an item. Only FAILED leaves the image in doubt: after the others the next item may come. */
enum layer_decision {
    LAYER_INSIDE,  /* it belongs in the image */
    LAYER_OUTSIDE, /* it is pending: a standard file, or a hard link to one */
    LAYER_ROOT,    /* it is the root directory, which is there already */
    LAYER_REFUSED, /* reason says why */
    LAYER_BEYOND,  /* limit says which one it goes beyond */
    LAYER_FAILED   /* code is that of a call on cimfs.h */
};

/* What a layer may cost. */
struct layer_limits {
    uint64_t files;      /* items, and directories that are made because an item needs them */
    uint64_t bytes;      /* sum of the sizes that the items claim */
    uint64_t path_depth; /* components of a path */
};

enum layer_limit { LAYER_LIMIT_NONE, LAYER_LIMIT_FILES, LAYER_LIMIT_BYTES, LAYER_LIMIT_PATH_DEPTH };

struct layer_builder {
    const struct cimfs_api *api;
    cimfs_image image;
    cimfs_stream *stream; /* the image's open stream, which others who write to the image share */
    int64_t time;         /* FILETIME of directories that no item describes */
    int has_parent;
    struct layer_limits limits;
    const void *descriptor; /* of what has none; NULL: the one whose DACL is null */
    size_t descriptor_size;

    const uint16_t *const *standard; /* upcased, NUL-terminated paths of standard files */
    size_t standard_count, standard_lengths[LAYER_MAX_STANDARD];
    uint64_t brought;                   /* a bit for each standard file that the layer has brought so far */
    struct layer_path_set added;        /* kept where there is a parent */
    struct layer_path_set linked;       /* hard links to standard files that this layer brings */
    struct layer_path_set above_linked; /* the directories above them */
    struct layer_path previous;         /* the file or directory that was added last; empty behind anything else */
    int previous_is_standard;
    int utility_vm; /* there is a directory UtilityVM, or something below it */

    uint64_t made, claimed; /* what the limits of files and of bytes are about, so far */
    const char *reason;
    enum layer_limit limit;
    cimfs_hresult code;
};

/*
 * -1 without memory, or with more than LAYER_MAX_STANDARD standard files, whose paths must live as long as the builder.
 * There are no limits at first.
 */
int layer_builder_init(struct layer_builder *builder, const struct cimfs_api *api, cimfs_image image,
                       cimfs_stream *stream, const uint16_t *const *standard, size_t standard_count);
void layer_builder_cleanup(struct layer_builder *builder);

/* One more item that claims so many bytes: INSIDE or BEYOND. To be asked before the item is decided on. */
enum layer_decision layer_builder_count(struct layer_builder *builder, const struct layer_path *path, uint64_t size);

/*
 * A file, a directory, or with REPARSE_POINT a symbolic link. What is INSIDE is then made by layer_builder_create,
 * once all of its metadata is known.
 */
enum layer_decision layer_builder_add(struct layer_builder *builder, const struct layer_path *path,
                                      uint32_t attributes);
/* A hard link. What is INSIDE is then made by layer_builder_make_link. */
enum layer_decision layer_builder_link(struct layer_builder *builder, const struct layer_path *path,
                                       const struct layer_path *target);
/* An alternate stream, directory\file:stream: it is made, and open for its data. */
enum layer_decision layer_builder_stream(struct layer_builder *builder, const struct layer_path *path, uint64_t size);
/* What the parents have at the path, or with contents in that directory, is to be hidden: INSIDE or REFUSED. */
enum layer_decision layer_builder_remove(struct layer_builder *builder, const struct layer_path *path, int contents);

/* INSIDE or REFUSED. An empty descriptor is that of what has none. */
enum layer_decision layer_builder_check_descriptor(struct layer_builder *builder, const void *data, size_t size);

/* In the image, with the directories above that are missing; the stream is open for its data. */
enum layer_decision layer_builder_create(struct layer_builder *builder, struct layer_path *path,
                                         const struct cimfs_file_metadata *metadata);
enum layer_decision layer_builder_make_link(struct layer_builder *builder, struct layer_path *path,
                                            const struct layer_path *target);
/* stream_room of cimfs.h, for what is written next. */
void *layer_builder_room(const struct layer_builder *builder, uint32_t *size);
enum layer_decision layer_builder_write(struct layer_builder *builder, const void *data, size_t size);
enum layer_decision layer_builder_close_stream(struct layer_builder *builder);

#endif
