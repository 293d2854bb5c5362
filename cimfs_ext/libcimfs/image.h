/*
 * An image that is being written, as the files that fill cimfs.h see it: image_open.c creates, forks and extends it,
 * image.c takes the calls, image_commit.c makes it visible.
 */
#ifndef CIMFS_IMAGE_H
#define CIMFS_IMAGE_H

#include "tree.h"

enum cimfs_image_state { CIMFS_IMAGE_OPEN, CIMFS_IMAGE_FAILED, CIMFS_IMAGE_COMMITTED };

struct cimfs_stream_writer {
    struct cimfs_image_writer *image;
    struct cimfs_object_writer writer;
    uint32_t file;
    int is_directory;
    uint16_t name[CIMFS_MAX_NAME]; /* of an alternate stream */
    uint32_t name_length;          /* 0: the file's own content */
    cimfs_wchar path[256];         /* as it was given, cut if longer: for messages */
    uint32_t path_length;
};

struct cimfs_image_writer {
    const struct cimfs_io *io;
    struct cimfs_error *error;
    cimfs_file directory;
    enum cimfs_image_state state;
    int no_sync;
    int64_t time;
    cimfs_file existing; /* the .cim file that is forked or extended: held, so that it stays */
    struct cimfs_reader *base;
    struct cimfs_objects objects;
    struct cimfs_tree tree;
    int streaming;
    struct cimfs_stream_writer stream; /* the one that may be open */
    struct cimfs_error cut_short;      /* about the last stream that was closed before it had its announced size */
    char cut_short_reason[80];
    char name[256];              /* of the .cim file */
    char draft[CIMFS_FILE_NAME]; /* of the .cim file until it is complete */
    cimfs_file draft_file;       /* held: whoever has it is the one writer of the image */
};

/* Say what failed, unless something below has said it more precisely in this call. */
cimfs_hresult cimfs_image_fail(struct cimfs_image_writer *image, cimfs_hresult code, const char *reason);
/* The same for what is written: a disk without room is what people can do something about. */
cimfs_hresult cimfs_image_fail_to_store(struct cimfs_image_writer *image, cimfs_hresult code, const char *reason);
/* Each call starts with this. */
void cimfs_image_forget_error(struct cimfs_image_writer *image);

/* create_image_with and close_image of cimfs.h. */
cimfs_hresult cimfs_image_open(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                               const cimfs_wchar *new_name, const struct cimfs_options *options, cimfs_image *out);
void CIMFS_CALL cimfs_image_close(cimfs_image image);

/* Let go of the draft, and remove it; of the image that was forked or extended. */
void cimfs_image_close_draft(struct cimfs_image_writer *image, int remove);
void cimfs_image_close_existing(struct cimfs_image_writer *image);

/* The image appears last: everything it names is on the disk before the .cim file gets its name. */
cimfs_hresult cimfs_image_commit(struct cimfs_image_writer *image);

#endif
