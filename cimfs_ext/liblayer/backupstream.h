/*
 * Win32 backup streams, read as they come (Microsoft, "WIN32_STREAM_ID").
 *
 * A backup stream is a sequence of streams, each a header (WIN32_STREAM_ID, then perhaps a name in UTF-16)
 * and its data. What a stream holds is told by its ID: the content of the file, or of one of its alternate
 * streams, or metadata that is attached to the file.
 *
 * Content that is sparse begins with an empty stream that is marked so. Sparse blocks follow at once, each
 * with the offset where its bytes belong; an empty block at the offset where the content ends closes it. A
 * block belongs to the content stream begun last, so alternate streams can be sparse as well. The size of
 * such an alternate stream is known only when its closing block comes.
 *
 * The parser is pulled: it takes from the caller's buffer what makes up the next event. Content is never
 * copied: events point into that buffer. What it copies are headers, which may come in any number of pieces.
 */
#ifndef LAYER_BACKUPSTREAM_H
#define LAYER_BACKUPSTREAM_H

#include <stddef.h>
#include <stdint.h>

enum layer_backup_id {
    LAYER_BACKUP_ID_DATA = 1,
    LAYER_BACKUP_ID_EA = 2,
    LAYER_BACKUP_ID_SECURITY = 3,
    LAYER_BACKUP_ID_ALTERNATE = 4,
    LAYER_BACKUP_ID_LINK = 5,
    LAYER_BACKUP_ID_PROPERTY = 6,
    LAYER_BACKUP_ID_OBJECT_ID = 7,
    LAYER_BACKUP_ID_REPARSE = 8,
    LAYER_BACKUP_ID_SPARSE_BLOCK = 9,
    LAYER_BACKUP_ID_TXF = 10,
    LAYER_BACKUP_ID_GHOSTED = 11,
};

enum { LAYER_BACKUP_SPARSE = 8 }; /* the one stream attribute that changes how the data is read */

#define LAYER_BACKUP_HEADER_SIZE 20u
#define LAYER_BACKUP_BLOCK_OFFSET_SIZE 8u
#define LAYER_BACKUP_MAX_NAME 255u           /* code units of a stream's bare name */
#define LAYER_BACKUP_MAX_FULL_NAME 262u      /* the same with a colon before it and ":$DATA" after it */
#define LAYER_BACKUP_MAX_ATTACHMENT 0x10400u /* an ACL below 64 KiB, with what stands around it */
#define LAYER_BACKUP_SIZE_UNKNOWN UINT64_MAX

enum layer_backup_result {
    LAYER_BACKUP_OK = 0,
    LAYER_BACKUP_E_UNKNOWN_ID,
    LAYER_BACKUP_E_STREAM_SIZE,
    LAYER_BACKUP_E_ATTACHMENT_SIZE,
    LAYER_BACKUP_E_NAME_LENGTH,
    LAYER_BACKUP_E_NAME,
    LAYER_BACKUP_E_STREAM_TYPE,
    LAYER_BACKUP_E_LATE_DATA,
    LAYER_BACKUP_E_FILE_SIZE,
    LAYER_BACKUP_E_NO_DATA,
    LAYER_BACKUP_E_STRAY_BLOCK,
    LAYER_BACKUP_E_BLOCK_AFTER_CLOSE,
    LAYER_BACKUP_E_BLOCK_SIZE,
    LAYER_BACKUP_E_BLOCK_ORDER,
    LAYER_BACKUP_E_BLOCK_BEYOND_END,
    LAYER_BACKUP_E_BLOCK_CLOSES_EARLY,
    LAYER_BACKUP_E_NOT_CLOSED,
    LAYER_BACKUP_E_TRUNCATED,
    LAYER_BACKUP_RESULTS
};

enum layer_backup_kind {
    LAYER_BACKUP_MORE,       /* the buffer is used up */
    LAYER_BACKUP_ATTACHMENT, /* a piece of the metadata stream id: data, size, offset, total; one at least */
    LAYER_BACKUP_CONTENT,    /* a piece of the content stream begun last: data, size */
    LAYER_BACKUP_ZEROS,      /* total zero bytes of it */
    LAYER_BACKUP_ALTERNATE,  /* an alternate stream begins: name, name_length, total (or SIZE_UNKNOWN) */
};

/* Fields that a kind does not name are zero. */
struct layer_backup_event {
    enum layer_backup_kind kind;
    uint32_t id;
    const uint8_t *data;
    size_t size;
    uint64_t offset; /* of the piece in its stream; it is the last one when offset + size == total */
    uint64_t total;
    const uint16_t *name; /* bare, without terminator; valid until the next call */
    uint32_t name_length; /* in code units */
};

struct layer_backup_parser {
    uint64_t file_size;
    uint64_t offset;       /* bytes taken so far */
    uint64_t error_offset; /* in the backup stream: the header at fault, or the end of what came */
    enum layer_backup_result error;

    int state;         /* what is being gathered or handed on */
    uint32_t needed;   /* bytes to gather */
    uint32_t gathered; /* bytes of them that are there */
    uint32_t id;       /* of the current stream */
    uint32_t attributes;
    uint64_t header_offset;
    uint64_t size; /* of the current stream's data */
    uint64_t left; /* of it, still to come */

    uint32_t content_id; /* the content stream begun last: 0 (none yet), DATA or ALTERNATE */
    int sparse;          /* whether that one takes blocks */
    uint64_t position;   /* in that one, when it is sparse */

    uint8_t gather[LAYER_BACKUP_MAX_FULL_NAME * 2];
    uint16_t name[LAYER_BACKUP_MAX_FULL_NAME];
};

/* file_size is that of the default stream, which the content must add up to. */
void layer_backup_init(struct layer_backup_parser *parser, uint64_t file_size);

/*
 * Take the next event from size bytes at data, both of which advance past what was taken. MORE is given only
 * when size is 0. A failed parser stays failed: every later call returns the same error.
 */
enum layer_backup_result layer_backup_next(struct layer_backup_parser *parser, const uint8_t **data, size_t *size,
                                           struct layer_backup_event *event);

/* The end of the backup stream: fails unless it ends between two streams and everything declared has come. */
enum layer_backup_result layer_backup_finish(struct layer_backup_parser *parser);

/* A result in words. */
const char *layer_backup_reason(enum layer_backup_result result);

#endif
