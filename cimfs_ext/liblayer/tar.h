/*
 * Tar archives as they come, in pieces of any size: headers of all dialects and PAX records become entries,
 * data is handed on where it lies (go-winio, backuptar/tar.go; POSIX, "pax Interchange Format").
 *
 * Read: v7, ustar with prefix, GNU long names and links, base-256 numbers, PAX records per file and global, sparse
 * files in all of GNU's forms. Two zero blocks end the archive, what follows is ignored. Where readers differ, this
 * one reads as Go's archive/tar does, since the system's own importer is built on that.
 */
#ifndef LAYER_TAR_H
#define LAYER_TAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LAYER_TAR_BLOCK 512u
#define LAYER_UNIX_EPOCH INT64_C(116444736000000000) /* 1970-01-01 as a FILETIME */
#define LAYER_TICKS INT64_C(10000000)                /* FILETIME units in a second */
#define LAYER_TAR_MAX_RECORDS (8u << 20)             /* bytes of PAX records or of a GNU long name */
/* Bytes of global PAX records: every entry that follows has to look through them. */
#define LAYER_TAR_MAX_GLOBALS (1u << 13)
#define LAYER_TAR_MAX_REGIONS (1u << 20) /* of data in a sparse file */

struct layer_slice {
    const char *data; /* NULL: absent */
    size_t size;
};

struct layer_ea {
    struct layer_slice name;
    struct layer_slice value; /* base64 */
    size_t order;             /* of two with one name the later one counts */
};

static inline int layer_ea_compare_names(const struct layer_ea *a, const struct layer_ea *b)
{
    int order = memcmp(a->name.data, b->name.data, a->name.size < b->name.size ? a->name.size : b->name.size);
    return order ? order : (a->name.size > b->name.size) - (a->name.size < b->name.size);
}

/* By name, for qsort; of equal names the later record comes last. */
static inline int layer_ea_compare(const void *left, const void *right)
{
    const struct layer_ea *a = left, *b = right;
    int order = layer_ea_compare_names(a, b);
    return order ? order : (a->order > b->order) - (a->order < b->order);
}

/* The records that mean something to us, as they stand in the archive. */
struct layer_pax {
    struct layer_slice path, link_path, size;
    struct layer_slice mtime, atime, ctime, creation_time;
    struct layer_slice attributes, raw_descriptor, sddl, mount_point, raw_reparse, raw_eas;
    struct layer_slice sparse_major, sparse_minor, sparse_name, sparse_size, sparse_real_size, sparse_map;
    struct layer_ea *eas;
    size_t ea_count, ea_capacity;
    char *text; /* the slices point into it */
    size_t text_size, text_capacity;
};

enum layer_entry_type {
    LAYER_FILE,
    LAYER_DIRECTORY,
    LAYER_SYMLINK,
    LAYER_HARD_LINK,
    LAYER_SPECIAL, /* a device or a FIFO, where these are no errors */
    LAYER_OTHER    /* something about the archive, to be passed over */
};

struct layer_entry {
    uint64_t offset; /* of its first header in the archive */
    enum layer_entry_type type;
    const char *other;             /* what an entry of type SPECIAL or OTHER is */
    struct layer_slice name, link; /* UTF-8 as it stands there */
    uint64_t size;                 /* with the holes of a sparse file */
    int sparse;
    int64_t creation_time, last_write_time, change_time, last_access_time; /* FILETIME */
    int has_attributes;
    uint32_t attributes;
    struct layer_slice raw_descriptor, sddl; /* base64; text */
    struct layer_slice raw_reparse, raw_eas; /* base64: the buffers, whatever else is said of a link or of EAs */
    int mount_point;
    struct layer_ea *eas; /* in the order of their names, if there are global ones */
    size_t ea_count;
};

enum layer_tar_event {
    LAYER_TAR_NEED_INPUT, /* all input was used */
    LAYER_TAR_ENTRY,      /* tar->entry, valid until the next entry */
    LAYER_TAR_DATA,       /* a piece of its content */
    LAYER_TAR_HOLE,       /* zeros in its content: piece has their number alone */
    LAYER_TAR_ENTRY_END,
    LAYER_TAR_END,
    LAYER_TAR_ERROR /* tar->reason and tar->offset */
};

/* The data of a sparse file stands in the archive without its holes. */
struct layer_region {
    uint64_t offset, size;
};

struct layer_sparse {
    struct layer_region *regions; /* in order, none empty, once the entry begins */
    size_t count, capacity;
    size_t next;       /* the region that is being read, or comes next */
    uint64_t position; /* in the file */
    /* While the map is read: */
    int has_offset; /* of the next region, whose size is still to come */
    uint64_t offset, number, numbers, expected, map_size;
};

struct layer_tar {
    int specials;    /* devices and FIFOs are entries, not errors */
    uint64_t offset; /* of the next input byte in the archive */
    const char *reason;
    struct layer_entry entry;
    int state;
    uint64_t entry_offset; /* of the first header of the entry being read; UINT64_MAX: between entries */
    uint64_t left;         /* bytes of data, records or padding to come */
    uint32_t padding;
    uint32_t zero_blocks;
    uint32_t gathered; /* bytes of a header block that came in pieces */
    char record_type;
    uint8_t block[LAYER_TAR_BLOCK];
    uint8_t header[LAYER_TAR_BLOCK];  /* of the entry: names may point into it */
    char ustar_name[LAYER_TAR_BLOCK]; /* prefix/name */
    struct layer_pax local, global;
    struct layer_pax incoming;             /* a global header as it comes */
    struct layer_pax long_name, long_link; /* GNU: only the text is used */
    struct layer_sparse sparse;
    struct layer_ea *eas; /* of the entry, if it has both global and local ones */
    size_t ea_count, ea_capacity;
};

void layer_tar_init(struct layer_tar *tar);
void layer_tar_cleanup(struct layer_tar *tar);

/* The next event; takes what it uses off the input. piece is set for DATA. */
enum layer_tar_event layer_tar_next(struct layer_tar *tar, const uint8_t **input, size_t *size,
                                    struct layer_slice *piece);
/* How many bytes of an entry's content come next, as they lie; 0 for a sparse file. */
uint64_t layer_tar_content(const struct layer_tar *tar);
/* Right behind ENTRY: its content is left out of the input. Returns how many bytes that are. */
uint64_t layer_tar_skip(struct layer_tar *tar);
/* The input has ended: 0, or -1 with reason and offset if it was cut inside an entry. */
int layer_tar_finish(struct layer_tar *tar);

/* Of a block's bytes, unsigned: what a header's checksum is, where its own field counts as spaces. */
uint32_t layer_tar_sum(const uint8_t *block);
/* PAX decimal seconds since 1970 as the nearest FILETIME that there is, cut to 100 ns; -1 if malformed. */
int layer_tar_time(struct layer_slice text, int64_t *filetime);

#endif
