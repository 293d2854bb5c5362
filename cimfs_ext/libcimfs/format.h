/*
 * The on-disk structures of a CIM, version 2 (docs/format.md; hcsshim, pkg/cimfs/format/format.go).
 *
 * An image is a .cim file, which names region sets and the filesystem object, and the sets' region files.
 * Objects in a region are found by region offsets: the low 48 bits are a byte offset, the high 16 the index
 * into the image's list of regions (the parents' sets in order, then its own).
 *
 * Every field is an array of bytes in little-endian order, so that a structure can lie over any address of
 * a mapped file on any machine.
 */
#ifndef CIMFS_FORMAT_H
#define CIMFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint8_t b[2];
} le16;
typedef struct {
    uint8_t b[4];
} le32;
typedef struct {
    uint8_t b[8];
} le64;

static inline uint16_t get16(le16 v)
{
    return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t get32(le32 v)
{
    return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
}

static inline uint64_t get64(le64 v)
{
    uint64_t low = (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
    uint64_t high = (uint32_t)v.b[4] | (uint32_t)v.b[5] << 8 | (uint32_t)v.b[6] << 16 | (uint32_t)v.b[7] << 24;
    return low | high << 32;
}

static inline le16 put16(uint16_t v)
{
    return (le16){{(uint8_t)v, (uint8_t)(v >> 8)}};
}

static inline le32 put32(uint32_t v)
{
    return (le32){{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)}};
}

static inline le64 put64(uint64_t v)
{
    return (le64){{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24), (uint8_t)(v >> 32),
                   (uint8_t)(v >> 40), (uint8_t)(v >> 48), (uint8_t)(v >> 56)}};
}

#define CIMFS_MAGIC "cimfile0"
#define CIMFS_VERSION_MAJOR 2u
#define CIMFS_VERSION_MAJOR_NEWEST 3u /* readers accept it: the structures below parse both */

enum { CIMFS_FILE_FILESYSTEM = 0, CIMFS_FILE_REGION = 1, CIMFS_FILE_OBJECT_ID = 2 };

/* The regions of a set, by index; also the region type in their headers. */
enum { CIMFS_REGION_METADATA = 0, CIMFS_REGION_DATA = 1, CIMFS_REGION_SMALL = 2, CIMFS_OWN_REGIONS = 3 };

#define CIMFS_PAGE 4096u
#define CIMFS_MAX_REGIONS 0x10000u
#define CIMFS_OFFSET_BITS 48
#define CIMFS_OFFSET_MASK (((uint64_t)1 << CIMFS_OFFSET_BITS) - 1)
#define CIMFS_MAX_NAME 255u   /* UTF-16 code units of one component */
#define CIMFS_MAX_PATH 32767u /* UTF-16 code units */

struct cimfs_guid {
    uint8_t b[16];
};

struct cimfs_common_header {
    uint8_t magic[8];
    le32 header_length;
    uint8_t file_type;
    uint8_t reserved1;
    le16 reserved2;
    le32 version_major;
    le32 version_minor;
    le64 reserved3;
};
_Static_assert(sizeof(struct cimfs_common_header) == 32, "common header");

struct cimfs_region_set {
    struct cimfs_guid id;
    le16 count;
    le16 reserved1;
    le32 reserved2;
};
_Static_assert(sizeof(struct cimfs_region_set) == 24, "region set");

struct cimfs_filesystem_header {
    struct cimfs_common_header common;
    struct cimfs_guid set_id;
    le16 region_count;
    le16 reserved1;
    le32 reserved2;
    le64 filesystem; /* region offset */
    le32 reserved3;
    le16 reserved4;
    le16 parent_count; /* this many struct cimfs_region_set follow */
};
_Static_assert(offsetof(struct cimfs_filesystem_header, filesystem) == 56, "filesystem offset");
_Static_assert(offsetof(struct cimfs_filesystem_header, parent_count) == 70, "parent count");
_Static_assert(sizeof(struct cimfs_filesystem_header) == 72, "filesystem header");

struct cimfs_region_header {
    struct cimfs_common_header common;
    le16 index;
    uint8_t type;
    uint8_t reserved1;
    le32 reserved2;
};
_Static_assert(sizeof(struct cimfs_region_header) == 40, "region header");

struct cimfs_object_id_header {
    struct cimfs_common_header common;
    le16 index;
    uint8_t type;
    uint8_t reserved1;
    le32 reserved2;
    le32 table_offset;
    le32 count;
};
_Static_assert(sizeof(struct cimfs_object_id_header) == 48, "object ID header");

/* Our content IDs: this prefix, then the canonical XXH3-128 of the object. Others are left alone. */
#define CIMFS_DIGEST_PREFIX "cimlayer"
#define CIMFS_DIGEST_PREFIX_SIZE 8u
#define CIMFS_HASH_SIZE 16u

struct cimfs_object_id {
    le64 length;
    uint8_t prefix[CIMFS_DIGEST_PREFIX_SIZE];
    uint8_t hash[CIMFS_HASH_SIZE];
    le64 offset;
};
_Static_assert(sizeof(struct cimfs_object_id) == 40, "object ID");

struct cimfs_filesystem {
    le64 upcase;
    le64 table_directory;
    le32 table_count;
    le32 root;
};
_Static_assert(sizeof(struct cimfs_filesystem) == 24, "filesystem object");

#define CIMFS_FILES_PER_TABLE 1024u
/* Ours have 96 bytes, and those of later versions may have more: what a fork copies a table of, for one change in it.
 */
#define CIMFS_LARGEST_RECORD 1024u

struct cimfs_table_entry {
    le64 table;
    le16 count;
    le16 entry_size;
    le32 reserved;
};
_Static_assert(sizeof(struct cimfs_table_entry) == 16, "file table directory entry");

enum { CIMFS_STREAM_DATA = 0, CIMFS_STREAM_LINKS = 1, CIMFS_STREAM_PE_IMAGE = 2 };
#define CIMFS_STREAM_TYPE_SHIFT 48
#define CIMFS_STREAM_SPARSE ((uint64_t)1 << 56)

struct cimfs_raw_stream {
    le64 offset;
    le64 length_type_flags;
};
_Static_assert(sizeof(struct cimfs_raw_stream) == 16, "stream");

enum {
    CIMFS_FLAG_READONLY = 1,
    CIMFS_FLAG_HIDDEN = 2,
    CIMFS_FLAG_SYSTEM = 4,
    CIMFS_FLAG_ARCHIVE = 8,
    CIMFS_FLAG_SPARSE = 0x10
};

struct cimfs_record {
    le16 flags;
    le16 ea_length;
    le32 reparse_tag;
    le64 creation_time;
    le64 last_write_time;
    le64 change_time;
    le64 last_access_time;
    struct cimfs_raw_stream data;
    le64 security_descriptor; /* -> u16 length, descriptor */
    le64 ea;                  /* -> ea_length bytes */
    le64 reparse;             /* -> u16 length, REPARSE_DATA_BUFFER */
    le64 streams;             /* -> link table whose values are streams */
    le32 parent;
    le16 base_region;
    le16 reserved;
};
_Static_assert(offsetof(struct cimfs_record, data) == 40, "default stream");
_Static_assert(offsetof(struct cimfs_record, parent) == 88, "parent file ID");
_Static_assert(sizeof(struct cimfs_record) == 96, "file record");

struct cimfs_link_table {
    le32 length; /* of the whole table */
    le32 count;  /* then count values, count name offsets, the names (u16 length, code units) */
};
_Static_assert(sizeof(struct cimfs_link_table) == 8, "link table");

struct cimfs_pe_image {
    le64 data_offset;
    le64 data_length; /* top bit to be ignored */
    le32 image_length;
    le16 mapping_count;
    le16 flags;
};
_Static_assert(sizeof(struct cimfs_pe_image) == 24, "PE image");
#define CIMFS_PE_LENGTH_FLAG ((uint64_t)1 << 63)

struct cimfs_pe_mapping {
    le32 file_offset;
    le32 delta;
};

static inline uint64_t cimfs_region_offset(uint32_t region, uint64_t offset)
{
    return (uint64_t)region << CIMFS_OFFSET_BITS | offset;
}

/* A digit-only GUID text buffer is 36 characters and a NUL. */
#define CIMFS_GUID_TEXT 37
/* "objectid_<guid>_65535" and its NUL. */
#define CIMFS_FILE_NAME 64

#endif
