/*
 * Committed images, from this library or from Windows (versions 2 and 3).
 *
 * Everything that comes from a file is checked against the size of what it points into before it is used; a
 * file that contradicts the format gives FILE_CORRUPT with the file and the offset. Metadata is read in the
 * mapped region files, content with reads, so that a failing disk is an error and not a signal. A reader
 * never changes once it is open: any number of threads may use it.
 *
 * Region files are opened when they are first needed, and only some of them stay open, so that a long chain of layers
 * needs few descriptors. Where that finds an image removed meanwhile, the call fails with FILE_NOT_FOUND.
 */
#ifndef CIMFS_READER_H
#define CIMFS_READER_H

#include "error.h"
#include "format.h"
#include "io.h"
#include "names.h"
#include "upcase.h"

struct cimfs_reader;

/* One region set of the image's list. */
struct cimfs_set {
    struct cimfs_guid id;
    uint32_t count;
    uint32_t first; /* index of its region 0 in the image's list of regions */
};

/* A decoded stream field. */
struct cimfs_extent {
    uint64_t offset; /* region offset */
    uint64_t length; /* bytes */
    uint8_t type;    /* CIMFS_STREAM_* */
    uint8_t sparse;
};

/* A link table that was checked as a whole: its entries are looked at one by one. */
struct cimfs_links {
    const uint8_t *table; /* NULL: empty */
    uint32_t length;
    uint32_t count;
    uint32_t value_size;
    uint64_t offset; /* region offset, for error messages */
    const struct cimfs_reader *reader;
};

/* One entry; the name is copied out because a table may lie at any address. */
struct cimfs_link {
    const uint8_t *value;
    uint32_t length;
    uint16_t units[CIMFS_MAX_NAME + 1];
};

/* file_name is the .cim file's name in the directory, in UTF-8. */
cimfs_hresult cimfs_reader_open(const struct cimfs_io *io, const char *directory, const char *file_name,
                                struct cimfs_error *error, struct cimfs_reader **reader);
/* In a directory that is open, which is the reader's from here on: closed with it, or when this fails. */
cimfs_hresult cimfs_reader_open_at(const struct cimfs_io *io, cimfs_file directory, const char *file_name,
                                   struct cimfs_error *error, struct cimfs_reader **reader);
/* Only the .cim file, to be asked for its name, version and sets; the regions may be missing. */
cimfs_hresult cimfs_reader_open_list(const struct cimfs_io *io, const char *directory, const char *file_name,
                                     struct cimfs_error *error, struct cimfs_reader **reader);
void cimfs_reader_close(struct cimfs_reader *reader);

/* The .cim file's name, for messages. */
const char *cimfs_reader_name(const struct cimfs_reader *reader);
/* The operations on its files. E_FAIL of one of them ends any call, verify too: whoever made the table knows why. */
const struct cimfs_io *cimfs_reader_io(const struct cimfs_reader *reader);
/* The directory that its files are opened in, wherever it has been moved to since. */
cimfs_file cimfs_reader_directory(const struct cimfs_reader *reader);
/* The path that it was opened by, for messages. */
const char *cimfs_reader_directory_path(const struct cimfs_reader *reader);
/*
 * The error for a file of the image that is not there: FILE_NOT_FOUND about the .cim file if that is gone too, or is
 * another image's by now; otherwise FILE_CORRUPT, with the reason.
 */
cimfs_hresult cimfs_reader_missing(const struct cimfs_reader *reader, const char *name, const char *reason,
                                   struct cimfs_error *error);
/* What the image consists of. Sets stand in the order of the region list, the image's own last. */
const struct cimfs_set *cimfs_reader_sets(const struct cimfs_reader *reader, uint32_t *count);
uint32_t cimfs_reader_region_count(const struct cimfs_reader *reader);
uint32_t cimfs_reader_version(const struct cimfs_reader *reader);
const uint16_t *cimfs_reader_upcase(const struct cimfs_reader *reader);
uint64_t cimfs_reader_upcase_offset(const struct cimfs_reader *reader);
uint64_t cimfs_reader_filesystem_offset(const struct cimfs_reader *reader);
uint64_t cimfs_reader_directory_offset(const struct cimfs_reader *reader);
uint32_t cimfs_reader_root(const struct cimfs_reader *reader);
uint32_t cimfs_reader_table_count(const struct cimfs_reader *reader);

/* The size and type of a region file; opens it on first use. */
cimfs_hresult cimfs_reader_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                  uint64_t *size, uint8_t *type);

/* Is the header of the .cim file, or of a region, whole in what a reader does not need: its length, the region's type?
 */
cimfs_hresult cimfs_reader_check_filesystem_header(const struct cimfs_reader *reader, struct cimfs_error *error);
cimfs_hresult cimfs_reader_check_region_header(const struct cimfs_reader *reader, uint32_t index,
                                               struct cimfs_error *error);

/* size bytes at a region offset, in the mapped file. */
cimfs_hresult cimfs_reader_view(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                                struct cimfs_error *error, const uint8_t **data);
/* The same by reading. */
cimfs_hresult cimfs_reader_fetch(const struct cimfs_reader *reader, uint64_t offset, void *data, size_t size,
                                 struct cimfs_error *error);
/* Only whether they lie inside the region. */
cimfs_hresult cimfs_reader_check_place(const struct cimfs_reader *reader, uint64_t offset, uint64_t size,
                                       struct cimfs_error *error);

/* One entry of the file table directory, and its table checked to lie inside its region. */
cimfs_hresult cimfs_reader_table(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                 struct cimfs_table_entry *entry, const uint8_t **records);
/* The record of a file; fields that an older image lacks are zero. */
cimfs_hresult cimfs_reader_record(const struct cimfs_reader *reader, uint32_t id, struct cimfs_error *error,
                                  struct cimfs_record *record);

struct cimfs_extent cimfs_extent_of(struct cimfs_raw_stream raw);
static inline int cimfs_is_directory(const struct cimfs_record *record)
{
    return cimfs_extent_of(record->data).type == CIMFS_STREAM_LINKS;
}
/* FILE_ATTRIBUTE_* as a reader shows them. */
uint32_t cimfs_attributes_of(const struct cimfs_record *record);

/* The link table of a directory (values: file IDs), or of a file's alternate streams. */
cimfs_hresult cimfs_reader_children(const struct cimfs_reader *reader, const struct cimfs_record *directory,
                                    struct cimfs_error *error, struct cimfs_links *links);
cimfs_hresult cimfs_reader_streams(const struct cimfs_reader *reader, const struct cimfs_record *file,
                                   struct cimfs_error *error, struct cimfs_links *links);
cimfs_hresult cimfs_links_at(const struct cimfs_links *links, uint32_t index, struct cimfs_error *error,
                             struct cimfs_link *link);
/* The same, checked to stand behind before, the entry of the preceding index (not looked at if that is none). */
cimfs_hresult cimfs_links_next(const struct cimfs_links *links, uint32_t index, const struct cimfs_link *before,
                               struct cimfs_error *error, struct cimfs_link *link);
/* Binary search; found is 0 if the name is not there. */
cimfs_hresult cimfs_links_find(const struct cimfs_links *links, struct cimfs_name name, struct cimfs_error *error,
                               struct cimfs_link *link, int *found);
/* A file ID that stands in a link table, checked to be one of the image's. */
cimfs_hresult cimfs_links_file_id(const struct cimfs_links *links, const struct cimfs_link *link,
                                  struct cimfs_error *error, uint32_t *id);

/* A relative path with backslashes (empty: the root); PATH_NOT_FOUND if it is not there. */
cimfs_hresult cimfs_reader_lookup(const struct cimfs_reader *reader, struct cimfs_name path, struct cimfs_error *error,
                                  uint32_t *id);

enum cimfs_attachment { CIMFS_SECURITY_DESCRIPTOR, CIMFS_EA_BUFFER, CIMFS_REPARSE_DATA };
/* A view of the descriptor, EA buffer or reparse buffer; size 0 if the file has none. */
cimfs_hresult cimfs_reader_attachment(const struct cimfs_reader *reader, const struct cimfs_record *record,
                                      enum cimfs_attachment which, struct cimfs_error *error, const uint8_t **data,
                                      uint32_t *size);

/* Up to size bytes of a stream from position on; got is less only at the stream's end. */
cimfs_hresult cimfs_reader_read(const struct cimfs_reader *reader, const struct cimfs_extent *stream, uint64_t position,
                                void *data, size_t size, struct cimfs_error *error, size_t *got);

/* What one mapping of a PE image says of the bytes from a position on. */
struct cimfs_pe_run {
    uint64_t offset;                 /* region offset of the byte at the position */
    uint64_t size;                   /* for how many bytes that holds; at least 1 */
    uint64_t data_offset, data_size; /* all data that the image's mappings may point to */
    uint64_t header_size;            /* at the stream's own offset, mappings included */
};
/* position lies in the stream. */
cimfs_hresult cimfs_reader_locate_pe(const struct cimfs_reader *reader, const struct cimfs_extent *stream,
                                     uint64_t position, struct cimfs_error *error, struct cimfs_pe_run *run);

/* For messages: the file that a region offset lies in. */
void cimfs_reader_file_name(const struct cimfs_reader *reader, uint64_t offset, char name[CIMFS_FILE_NAME]);
/* FILE_CORRUPT about what stands at a region offset. */
cimfs_hresult cimfs_reader_corrupt(const struct cimfs_reader *reader, uint64_t offset, const char *reason,
                                   struct cimfs_error *error);

#endif
