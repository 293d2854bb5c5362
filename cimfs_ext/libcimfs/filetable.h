/*
 * The file records of an image that is being written: the parent's tables as they lie, the few records that change in
 * them, and a copy of each table that gains records or has many that change.
 */
#ifndef CIMFS_FILETABLE_H
#define CIMFS_FILETABLE_H

#include "objects.h"

struct cimfs_file_table {
    uint8_t *records;                    /* NULL: the parent's, but for the changes */
    struct cimfs_record_change *changes; /* NULL: none */
    uint16_t change_count;
    uint16_t count;
    uint16_t entry_size;
    uint64_t offset; /* region offset in the parent */
};

struct cimfs_file_tables {
    const struct cimfs_reader *base; /* NULL: a new image */
    struct cimfs_error *error;
    struct cimfs_file_table *tables;
    uint32_t count, capacity;
};

cimfs_hresult cimfs_file_tables_open(struct cimfs_file_tables *tables, const struct cimfs_reader *base,
                                     struct cimfs_error *error);
void cimfs_file_tables_close(struct cimfs_file_tables *tables);

cimfs_hresult cimfs_file_tables_get(const struct cimfs_file_tables *tables, uint32_t id, struct cimfs_record *record);
cimfs_hresult cimfs_file_tables_set(struct cimfs_file_tables *tables, uint32_t id, const struct cimfs_record *record);
/* The next file ID. */
cimfs_hresult cimfs_file_tables_add(struct cimfs_file_tables *tables, const struct cimfs_record *record, uint32_t *id);
/* Store the changed tables and the file table directory. */
cimfs_hresult cimfs_file_tables_commit(struct cimfs_file_tables *tables, struct cimfs_objects *objects,
                                       uint64_t *directory);

#endif
