/*
 * A reader, as its files see it: reader.c opens the .cim file and decodes records, reader_regions.c opens and maps the
 * region files.
 */
#ifndef CIMFS_READER_REGIONS_H
#define CIMFS_READER_REGIONS_H

#include <stdatomic.h>

#include "contentcheck.h"
#include "reader.h"

/* A region file, mapped when first needed; constant but for the open file, which only some of them keep. */
struct cimfs_region_map {
    _Atomic(cimfs_file) file; /* CIMFS_NO_FILE: to be opened for each read */
    const uint8_t *data;
    uint64_t size;
    uint32_t header_length;
    uint8_t type;
    _Atomic(struct cimfs_listed *) listed; /* its content IDs, once one was asked for */
};

struct cimfs_regions {
    atomic_uint open; /* files that are kept open */
    _Atomic(struct cimfs_region_map *) maps[];
};

struct cimfs_reader {
    const struct cimfs_io *io;
    cimfs_file directory;
    struct cimfs_set *sets;
    uint32_t set_count;
    uint32_t region_count;
    uint32_t version;
    uint32_t header_length;
    struct cimfs_regions *regions;
    uint64_t filesystem_offset;
    uint64_t upcase_offset;
    uint64_t directory_offset;
    uint32_t table_count;
    uint32_t root;
    uint16_t upcase[CIMFS_UPCASE_UNITS];
    char name[256];
    char directory_path[]; /* as it was given */
};

/* What all files of an image start with; reason says what is wrong with it. */
cimfs_hresult cimfs_reader_check_common(const struct cimfs_common_header *common, uint8_t file_type, uint32_t least,
                                        const char **reason);

/* A region file; opens and maps it on first use. */
cimfs_hresult cimfs_reader_get_region(const struct cimfs_reader *reader, uint32_t index, struct cimfs_error *error,
                                      struct cimfs_region_map **region);
void cimfs_reader_object_id_name(const struct cimfs_reader *reader, uint32_t index, char name[CIMFS_FILE_NAME]);

/* Every region file that was opened. */
void cimfs_reader_close_regions(struct cimfs_reader *reader);

#endif
