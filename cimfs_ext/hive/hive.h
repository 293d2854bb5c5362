/* Registry hives (regf 1.3 to 1.6): read one into a tree, edit it, merge a delta onto it, write it.
 *
 * A tree refers to names and data inside the buffers that it was read from: a buffer must outlive its hive,
 * and a hive that was merged onto another must outlive that one. Nothing here is safe for two threads on one
 * hive.
 *
 * What an untrusted hive may and may not contain (docs/format.md, "Hives"):
 *  - every cell has one owner, except security cells; a second reference to any byte of a cell is an error.
 * This rules out cycles, shared lists and keys, and overlapping cells, and bounds the work by the size of the
 * file.
 *  - keys nest at most HIVE_MAX_DEPTH levels below the root.
 *  - a name stands once under its key, without regard to case. Lists out of order are sorted.
 *  - what no reference reaches is not looked at; bytes after the hive bins are ignored.
 *  - the parent that a key names, the hashes in lists and the reference counts are not trusted and not
 * checked.
 *  - only a hive of version 1.6 whose base block says so has layered keys: in others the bytes mean nothing.
 */
#ifndef HIVE_H
#define HIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HIVE_OK = 0,
    HIVE_NO_MEMORY = -1,
    HIVE_CORRUPT = -2,   /* the input contradicts the format: hive_error tells where */
    HIVE_TOO_LARGE = -3, /* the result would exceed a limit of the format */
};

enum {
    HIVE_MAX_DEPTH = 512,
    HIVE_MAX_KEY_NAME = 255,     /* of a new key, in UTF-16 code units */
    HIVE_MAX_VALUE_NAME = 16383, /* of a new value, in UTF-16 code units */
};

enum { /* hive_key.flags */
       HIVE_KEY_ROOT = 0x04,
       HIVE_KEY_NO_DELETE = 0x08,
       HIVE_KEY_SYMLINK = 0x10,
       HIVE_KEY_LATIN1 = 0x20,
       HIVE_KEY_PREDEFINED = 0x40, /* the value count is a handle, there are no values (Perflib\009) */
};

enum { /* hive_key.layering */
       HIVE_LAYER_SEMANTICS = 0x03,
       HIVE_LAYER_MERGE = 0,
       HIVE_LAYER_TOMBSTONE = 1,
       HIVE_LAYER_SUPERSEDE_LOCAL = 2,
       HIVE_LAYER_SUPERSEDE_TREE = 3,
       HIVE_LAYER_INHERIT_CLASS = 0x80,
};

#define HIVE_NO_SECURITY UINT32_MAX
#define HIVE_NO_OFFSET UINT64_MAX

typedef struct hive_error {
    const char *reason;
    uint64_t offset; /* in the file, or HIVE_NO_OFFSET */
} hive_error;

typedef struct hive_bytes {
    const uint8_t *data;
    size_t size;
} hive_bytes;

/* A name as hives store it: Latin-1, or UTF-16 little-endian. */
typedef struct hive_name {
    const uint8_t *bytes;
    uint16_t size; /* bytes */
    bool latin1;
} hive_name;

typedef struct hive_value {
    hive_name name;
    const uint8_t *data;
    uint32_t data_size;
    uint32_t type;
    uint32_t fingerprint; /* of the name: equal names have equal ones */
    bool tombstone;
} hive_value;

typedef struct hive_key {
    hive_name name;
    uint64_t prefix;           /* of the name, in upper case: tells most keys apart without a look at their names */
    const uint8_t *class_name; /* UTF-16 */
    struct hive_key **subkeys; /* sorted by name */
    hive_value *values;        /* in the order of the file */
    uint64_t last_written;     /* FILETIME */
    uint32_t subkey_count, subkey_capacity;
    uint32_t value_count, value_capacity;
    uint32_t security; /* index in hive.descriptors */
    uint32_t predefined_handle;
    uint16_t class_size; /* bytes */
    uint16_t flags;
    uint16_t user_flags; /* the flag bits at 54 and 55 */
    uint8_t access_bits;
    uint8_t layering;
} hive_key;

typedef struct hive_arena {
    struct hive_chunk *chunks;
    size_t used, size;
} hive_arena;

typedef struct hive {
    hive_arena arena;
    hive_key *root;
    hive_bytes *descriptors;
    uint32_t descriptor_count, descriptor_capacity;
    uint64_t last_written; /* FILETIME */
    uint32_t sequence;
    uint32_t minor_version; /* of the file read */
    uint8_t file_name[64];
    bool layered;       /* the base block says that keys are layered, and the version allows it */
    size_t source_size; /* of what the tree was made from: about what it takes to write */
    bool dirty;         /* read as it was although its sequence numbers differ */
    uint8_t *recovered; /* the hive after its logs were applied, or NULL */
} hive;

/* What returns int returns HIVE_OK or a negative code, and then fills *error and leaves *out NULL. */

/* Reads a hive. A dirty one is first recovered from those of its logs (in any order) that fit. */
int hive_read(hive_bytes file, const hive_bytes *logs, size_t log_count, hive **out, hive_error *error);
/* An empty hive whose times are all last_written. */
int hive_create(uint64_t last_written, hive **out, hive_error *error);
void hive_destroy(hive *h);

/* Names in calls are copied; Latin-1 is chosen where it suffices. */
hive_key *hive_find_subkey(const hive_key *parent, hive_name name);
int hive_add_subkey(hive *h, hive_key *parent, hive_name name, uint64_t last_written, hive_key **out,
                    hive_error *error);
bool hive_remove_subkey(hive_key *parent, hive_name name);
hive_value *hive_find_value(const hive_key *key, hive_name name);
int hive_set_value(hive *h, hive_key *key, hive_name name, uint32_t type, hive_bytes data, hive_error *error);
bool hive_remove_value(hive_key *key, hive_name name);

/* Turns base into base + delta (docs/format.md, "Delta hives"). After an error base can only be destroyed. */
int hive_merge(hive *base, const hive *delta, hive_error *error);

/* Writes the hive into out if it fits into capacity; *size is what it takes in any case. */
int hive_write(const hive *h, uint8_t *out, size_t capacity, size_t *size, hive_error *error);
/* The size to allocate for a large block so that huge pages cover all of it: the system aligns multiples of a huge page
 * alone. With small pages, the page faults take longer than filling the block. */
size_t hive_block_size(size_t size);
/* For a large block that will be filled at once. */
void hive_use_huge_pages(void *block, size_t size);

#endif
