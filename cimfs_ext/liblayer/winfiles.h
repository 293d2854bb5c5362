/*
 * Files of Windows by one name in an open directory, as openat(2) and its family reach those of POSIX.
 *
 * The name is never a path, and may be one that Win32 cannot open (CON, a dot or a space at its end). What it names is
 * opened itself, never what a link leads to: NtCreateFile with RootDirectory and FILE_OPEN_REPARSE_POINT (Microsoft,
 * "NtCreateFile function"). Names are UTF-8, lone surrogates three bytes. All return 0 or a Win32 error code.
 */
#ifndef LAYER_WINFILES_H
#define LAYER_WINFILES_H

#include <stddef.h>
#include <stdint.h>

typedef intptr_t layer_win_file; /* a HANDLE */

enum layer_win_kind { LAYER_WIN_ANY, LAYER_WIN_FILE, LAYER_WIN_DIRECTORY };

/* What a caller may ask of a file. With less right or privilege than that, it gets what there is. */
enum layer_win_access {
    LAYER_WIN_LIST,  /* a directory: to be entered, listed and written into */
    LAYER_WIN_READ,  /* content and metadata */
    LAYER_WIN_WRITE, /* content and metadata */
    LAYER_WIN_MARK   /* metadata alone */
};

/* What a volume can hold: bits of FILE_FS_ATTRIBUTE_INFORMATION. */
enum {
    LAYER_WIN_DESCRIPTORS = 0x8,
    LAYER_WIN_SPARSE = 0x40,
    LAYER_WIN_REPARSE = 0x80,
    LAYER_WIN_STREAMS = 0x40000,
    LAYER_WIN_HARD_LINKS = 0x400000,
    LAYER_WIN_EAS = 0x800000
};

/* Use the privileges for backup, restore and auditing, as far as the account has them, or stop using them. */
void layer_win_use_privileges(int use);

/* An existing directory by its path, which may lead through links. */
int layer_win_open_top(const char *path, layer_win_file *directory);
/* An existing file or directory; ERROR_DIRECTORY for a link in the place of a DIRECTORY that is listed. */
int layer_win_open(layer_win_file directory, const char *name, enum layer_win_kind kind, enum layer_win_access access,
                   layer_win_file *file);
/* A new one, which was not there in any form. */
int layer_win_create(layer_win_file directory, const char *name, enum layer_win_kind kind, layer_win_file *file);
/* An alternate stream of a file of the directory, by its bare name in UTF-16: existing, to be read, or new. */
int layer_win_open_stream(layer_win_file directory, const char *name, const uint16_t *stream, size_t length, int create,
                          layer_win_file *file);
int layer_win_duplicate(layer_win_file file, layer_win_file *copy);
void layer_win_close(layer_win_file file);

int layer_win_link(layer_win_file file, layer_win_file directory, const char *new_name);
/* ERROR_ALREADY_EXISTS if the name is taken, unless it may be replaced. */
int layer_win_rename(layer_win_file file, layer_win_file directory, const char *new_name, int replace);
/* Remove an open file or empty directory once it is closed. */
int layer_win_remove(layer_win_file file);

int layer_win_features(layer_win_file file, uint32_t *features);

/* ---- locks: see libcimfs/win32.h ---- */

/* A file to be held, which others may move and remove meanwhile; made if it is missing and create is set. */
int layer_win_open_to_hold(const char *path, int create, layer_win_file *file);
/* Hold it alone until it is closed; ERROR_LOCK_VIOLATION if somebody else does. */
int layer_win_hold(layer_win_file file);
uint32_t layer_win_holder(layer_win_file file);

/* ---- content ---- */

/* Less than size only at the end of the file. */
int layer_win_read(layer_win_file file, void *data, size_t size, uint64_t position, size_t *got);
int layer_win_write(layer_win_file file, const void *data, size_t size, uint64_t position);
int layer_win_resize(layer_win_file file, uint64_t size);
int layer_win_make_sparse(layer_win_file file);
/* The next range that has data, from a position on; size 0 if there is none. */
int layer_win_next_range(layer_win_file file, uint64_t position, uint64_t end, uint64_t *start, uint64_t *size);

/* ---- metadata ---- */

struct layer_win_info {
    uint32_t attributes;
    uint32_t reparse_tag;
    uint32_t links;
    uint32_t directory;
    uint64_t size;
    int64_t creation_time, last_write_time, change_time, last_access_time; /* FILETIME */
    uint64_t volume;
    uint8_t id[16];
};
int layer_win_describe(layer_win_file file, struct layer_win_info *info);

/* A time of 0 stays what it is, and so do the attributes with set_attributes 0. */
struct layer_win_stamps {
    int set_attributes;
    uint32_t attributes;
    int64_t creation_time, last_write_time, change_time, last_access_time;
};
int layer_win_stamp(layer_win_file file, const struct layer_win_stamps *stamps);

/* A self-relative descriptor; *whole is 0 if only a part of it could be set. */
int layer_win_set_descriptor(layer_win_file file, const void *descriptor, size_t size, int *whole);
/* A list of FILE_FULL_EA_INFORMATION, which was checked; *whole as above. */
int layer_win_set_eas(layer_win_file file, const uint8_t *list, size_t size, int *whole);
int layer_win_set_reparse(layer_win_file file, const void *data, size_t size);
/* Let a group, which a SID in text names, read a file besides those who may; the path is UTF-16. */
int layer_win_let_read(const uint16_t *path, const char *group);

/* Up to capacity bytes; size 0 if there are none; ERROR_MORE_DATA if they are more. */
int layer_win_descriptor(layer_win_file file, void *data, size_t capacity, size_t *size);
int layer_win_eas(layer_win_file file, void *data, size_t capacity, size_t *size);
int layer_win_reparse(layer_win_file file, void *data, size_t capacity, size_t *size);

/* The names in a directory or of the streams of a file, a buffer full at a time: FILE_ID_BOTH_DIR_INFO and
 * FILE_STREAM_INFO records. ERROR_NO_MORE_FILES behind the last names. */
int layer_win_list(layer_win_file directory, int restart, void *buffer, size_t capacity);
int layer_win_streams(layer_win_file file, void *buffer, size_t capacity);

#endif
