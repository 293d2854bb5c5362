/*
 * A layer tar into a layer builder: each entry becomes an item, its bytes go from the input buffer to the image as
 * they lie (hcsshim, pkg/ociwclayer/cim/import.go).
 *
 * What needs policy comes back as an event: standard files and links to them, whiteouts, descriptors in text.
 */
#ifndef LAYER_IMPORTER_H
#define LAYER_IMPORTER_H

#include "buffer.h"
#include "builder.h"
#include "tar.h"

#define LAYER_KNOWN_DESCRIPTORS 64u
#define LAYER_LARGE (1u << 16)    /* bytes: of a file that is worth a call to share its blocks with the tar */
#define LAYER_MAX_SDDL (1u << 18) /* bytes; a descriptor of 65,535 bytes takes less */

enum layer_import_event {
    LAYER_IMPORT_NEED_INPUT,
    LAYER_IMPORT_END,
    LAYER_IMPORT_PLACE,         /* tar.entry, path or why it has none, target: answer with layer_importer_place */
    LAYER_IMPORT_SDDL,          /* tar.entry.sddl: answer with layer_importer_descriptor */
    LAYER_IMPORT_WHITEOUT,      /* path: what is to be hidden */
    LAYER_IMPORT_OPAQUE,        /* path: the directory whose content is to be hidden */
    LAYER_IMPORT_STANDARD_FILE, /* path, metadata; DATA and STANDARD_END follow */
    LAYER_IMPORT_STANDARD_DATA,
    LAYER_IMPORT_STANDARD_HOLE, /* piece has the number of zeros alone */
    LAYER_IMPORT_STANDARD_END,
    LAYER_IMPORT_STANDARD_LINK, /* path, target */
    LAYER_IMPORT_ALIGNED,       /* path: a large file whose content begins on a page of the tar */
    LAYER_IMPORT_PASSED_OVER,   /* tar.entry is nothing for an image: tar.entry.other says what it is */
    LAYER_IMPORT_PAUSE,         /* many zeros have been written, and more follow: a moment to be interrupted */
    LAYER_IMPORT_BAD_ENTRY,     /* builder->reason; tar.entry names it */
    LAYER_IMPORT_BAD_ARCHIVE,   /* tar.reason, tar.offset */
    LAYER_IMPORT_LIMIT,         /* builder->limit: which; tar.entry is the entry that goes beyond it */
    LAYER_IMPORT_FAILED         /* builder->code: of a call on cimfs.h about path */
};

/* As a tar says it, in base64 or SDDL, and self-relative. */
struct layer_known_descriptor {
    struct layer_buffer text, descriptor;
};

struct layer_importer {
    struct layer_builder *builder;
    int plain; /* the tar is no layer's: names of whiteouts are names like any other, and all places are asked for */
    int asks_aligned; /* ALIGNED is wanted */
    struct layer_tar tar;
    int state;
    enum layer_import_event error; /* the last event if it was one: it comes again whatever follows */
    struct layer_path path, target;
    const char *unsuitable; /* why the entry that is asked about can have no place, or NULL */
    struct cimfs_file_metadata metadata;
    uint64_t file_bytes; /* sum of the sizes of files; streams and links not counted */
    uint64_t entries;
    uint64_t zeros; /* to be written before the data that comes next */
    int has_data;   /* some of the entry's content was written to the image */
    struct layer_buffer descriptor, reparse, ea;
    struct layer_known_descriptor known[LAYER_KNOWN_DESCRIPTORS];
    size_t next_known;
};

/* -1 without memory. The builder must live as long as the importer. */
int layer_importer_init(struct layer_importer *importer, struct layer_builder *builder);
void layer_importer_cleanup(struct layer_importer *importer);

/* The next event; takes what it uses off the input. piece is set for STANDARD_DATA. */
enum layer_import_event layer_importer_next(struct layer_importer *importer, const uint8_t **input, size_t *size,
                                            struct layer_slice *piece);
/* Where the next bytes of the tar would be copied to, if they are content of a large file; else NULL. */
void *layer_importer_room(const struct layer_importer *importer, size_t *size);
/* The answer to PLACE: the entry goes to what path and target are by now, or is left out. */
void layer_importer_place(struct layer_importer *importer, int leave_out);
/* The answer to SDDL: a self-relative descriptor. */
int layer_importer_descriptor(struct layer_importer *importer, const uint8_t *data, size_t size);
/* The input has ended. END, BAD_ARCHIVE if it was cut, or another error. */
enum layer_import_event layer_importer_finish(struct layer_importer *importer);

#endif
