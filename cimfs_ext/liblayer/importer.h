/*
 * A layer tar into an image: each entry becomes calls on cimfs.h, its bytes go from the input buffer to the
 * image as they lie (hcsshim, pkg/ociwclayer/cim/import.go).
 *
 * What needs policy comes back as an event: standard files and links to them, whiteouts, descriptors in text.
 */
#ifndef LAYER_IMPORTER_H
#define LAYER_IMPORTER_H

#include "buffer.h"
#include "cimfs.h"
#include "pathset.h"
#include "tar.h"

#define LAYER_MAX_PATH 32767u
#define LAYER_MAX_NAME_BYTES ((LAYER_MAX_PATH + 263u) * 3u) /* UTF-8, of a path and a stream's name */
#define LAYER_SDDL_CACHE 64u
#define LAYER_MAX_STANDARD 64u
#define LAYER_MAX_SDDL (1u << 18) /* bytes; a descriptor of 65,535 bytes takes less */

enum layer_import_event {
    LAYER_IMPORT_NEED_INPUT,
    LAYER_IMPORT_END,
    LAYER_IMPORT_SDDL,          /* tar.entry.sddl: answer with layer_importer_descriptor */
    LAYER_IMPORT_WHITEOUT,      /* path: what is to be hidden */
    LAYER_IMPORT_OPAQUE,        /* path: the directory whose content is to be hidden */
    LAYER_IMPORT_STANDARD_FILE, /* path, metadata; DATA and STANDARD_END follow */
    LAYER_IMPORT_STANDARD_DATA,
    LAYER_IMPORT_STANDARD_END,
    LAYER_IMPORT_STANDARD_LINK, /* path, target */
    LAYER_IMPORT_BAD_ENTRY,     /* reason; tar.entry names it */
    LAYER_IMPORT_BAD_ARCHIVE,   /* tar.reason, tar.offset */
    LAYER_IMPORT_LIMIT,         /* limit: which; tar.entry is the entry that goes beyond it */
    LAYER_IMPORT_FAILED         /* code: of a call on cimfs.h about path */
};

struct layer_wide {
    uint16_t *units; /* NUL-terminated */
    size_t length;
    size_t depth; /* components */
};

/* What a layer may cost. Each is looked at before anything of an entry is written. */
struct layer_limits {
    uint64_t files;      /* entries, and directories that are made because an entry needs them */
    uint64_t bytes;      /* sum of the sizes that the headers claim */
    uint64_t path_depth; /* components of a path */
};

enum layer_limit { LAYER_LIMIT_NONE, LAYER_LIMIT_FILES, LAYER_LIMIT_BYTES, LAYER_LIMIT_PATH_DEPTH };

struct layer_sddl {
    struct layer_buffer text, descriptor;
};

struct layer_importer {
    const struct cimfs_api *api;
    cimfs_image image;
    int64_t time; /* FILETIME of directories that no entry describes */
    int has_parent;
    int no_whiteouts; /* the tar is no layer's: names of whiteouts are names like any other */
    const uint16_t *const *standard; /* upcased, NUL-terminated paths of standard files */
    size_t standard_count, standard_lengths[LAYER_MAX_STANDARD];
    uint64_t brought; /* a bit for each standard file that the layer has brought so far */
    struct layer_limits limits;

    struct layer_tar tar;
    int state;
    const char *reason;
    cimfs_hresult code;
    enum layer_limit limit;                   /* the one that the entry goes beyond */
    uint64_t made, claimed;                   /* what the limits of files and of bytes are about, so far */
    struct layer_wide path, target, previous; /* previous: the file or directory that streams may follow */
    int previous_is_standard;
    struct cimfs_file_metadata metadata;
    cimfs_stream stream;
    uint64_t file_bytes; /* sum of the sizes of files; streams and links not counted */
    uint64_t entries;
    int utility_vm; /* something at or below UtilityVM was seen */
    struct layer_path_set added;
    struct layer_path_set linked;       /* hard links to standard files that this layer brings */
    struct layer_path_set above_linked; /* the directories above them */
    struct layer_buffer descriptor, reparse, ea;
    struct layer_sddl cache[LAYER_SDDL_CACHE];
    size_t cache_next;
};

/* -1 without memory. standard, at most LAYER_MAX_STANDARD, must live as long as the importer; limits are none. */
int layer_importer_init(struct layer_importer *importer, const struct cimfs_api *api, cimfs_image image,
                        const uint16_t *const *standard, size_t standard_count);
void layer_importer_cleanup(struct layer_importer *importer);

/* The next event; takes what it uses off the input. piece is set for STANDARD_DATA. */
enum layer_import_event layer_importer_next(struct layer_importer *importer, const uint8_t **input, size_t *size,
                                            struct layer_slice *piece);
/* The answer to SDDL: a self-relative descriptor. */
int layer_importer_descriptor(struct layer_importer *importer, const uint8_t *data, size_t size);
/* The input has ended. END, BAD_ARCHIVE if it was cut, or another error. */
enum layer_import_event layer_importer_finish(struct layer_importer *importer);

#endif
