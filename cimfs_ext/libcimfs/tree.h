/*
 * The namespace of an image that is being written: directories, files, hard links and streams, copy-on-write
 * over the parent's tables.
 */
#ifndef CIMFS_TREE_H
#define CIMFS_TREE_H

#include "filetable.h"
#include "overlay.h"

struct cimfs_tree {
    const struct cimfs_reader *base; /* NULL: a new image */
    struct cimfs_objects *objects;
    struct cimfs_file_tables files;
    struct cimfs_overlay overlay;
    const uint16_t *upcase;
    uint16_t *own_upcase;
    uint32_t root;
    /* The directory that was resolved last: files come directory by directory, and a new path level by level. */
    uint16_t *cached_path;
    uint32_t cached_length, cached_capacity;
    uint32_t cached_id; /* 0: nothing cached */
};

/* root: the record of the root directory if the image is new. */
cimfs_hresult cimfs_tree_open(struct cimfs_tree *tree, const struct cimfs_io *io, struct cimfs_objects *objects,
                              const struct cimfs_reader *base, const struct cimfs_record *root,
                              struct cimfs_error *error);
void cimfs_tree_close(struct cimfs_tree *tree);

/* The file ID of a directory; PATH_NOT_FOUND if it is missing or no directory. */
cimfs_hresult cimfs_tree_directory(struct cimfs_tree *tree, struct cimfs_name path, uint32_t *id);
/* The file of that name in a directory; 0: none. */
cimfs_hresult cimfs_tree_find(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name, uint32_t *id);

cimfs_hresult cimfs_tree_record(const struct cimfs_tree *tree, uint32_t id, struct cimfs_record *record);
cimfs_hresult cimfs_tree_update(struct cimfs_tree *tree, uint32_t id, const struct cimfs_record *record);

/* Make a file and its name; whatever had the name loses it. */
cimfs_hresult cimfs_tree_add(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name,
                             struct cimfs_record *record, uint32_t *id);
cimfs_hresult cimfs_tree_link(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name, uint32_t id);
/* PATH_NOT_FOUND if the name is not there. A directory goes with all that it holds. */
cimfs_hresult cimfs_tree_unlink(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name);

cimfs_hresult cimfs_tree_set_stream(struct cimfs_tree *tree, uint32_t id, struct cimfs_name name,
                                    struct cimfs_raw_stream stream);
cimfs_hresult cimfs_tree_remove_stream(struct cimfs_tree *tree, uint32_t id, struct cimfs_name name);

/* Store every changed table and the filesystem object. */
cimfs_hresult cimfs_tree_commit(struct cimfs_tree *tree, uint64_t *filesystem);

#endif
