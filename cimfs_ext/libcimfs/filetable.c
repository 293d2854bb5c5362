#include "filetable.h"

#include <stdlib.h>

/* File IDs stay below this, so that they and the number of tables fit wherever they are counted. */
#define MAX_TABLES (1u << 21)

static cimfs_hresult reserve(struct cimfs_file_tables *tables, uint32_t count)
{
    if (count <= tables->capacity)
        return CIMFS_OK;
    if (count > MAX_TABLES)
        return CIMFS_E_DISK_FULL;
    uint32_t capacity = count + count / 2 + 8;
    struct cimfs_file_table *grown = realloc(tables->tables, capacity * sizeof *grown);
    if (!grown)
        return CIMFS_E_OUT_OF_MEMORY;
    tables->tables = grown;
    tables->capacity = capacity;
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_open(struct cimfs_file_tables *tables, const struct cimfs_reader *base,
                                     struct cimfs_error *error)
{
    *tables = (struct cimfs_file_tables){.base = base, .error = error};
    if (!base)
        return CIMFS_OK;
    uint32_t count = cimfs_reader_table_count(base);
    CIMFS_TRY(reserve(tables, count));
    for (uint32_t i = 0; i < count; i++) {
        struct cimfs_table_entry entry;
        const uint8_t *records;
        CIMFS_TRY(cimfs_reader_table(base, i, error, &entry, &records));
        if (get16(entry.entry_size) > CIMFS_LARGEST_RECORD)
            return cimfs_fail(error, CIMFS_E_FILE_CORRUPT, NULL, CIMFS_NO_OFFSET,
                              "file records of more than 1,024 bytes");
        tables->tables[i] = (struct cimfs_file_table){
            .count = get16(entry.count), .entry_size = get16(entry.entry_size), .offset = get64(entry.table)};
    }
    tables->count = count;
    return CIMFS_OK;
}

void cimfs_file_tables_close(struct cimfs_file_tables *tables)
{
    for (uint32_t i = 0; i < tables->count; i++)
        free(tables->tables[i].records);
    free(tables->tables);
    *tables = (struct cimfs_file_tables){0};
}

/* Give a table a copy of its own. Records shorter than ours grow; longer ones keep what we do not know. */
static cimfs_hresult own(struct cimfs_file_tables *tables, uint32_t index)
{
    struct cimfs_file_table *table = &tables->tables[index];
    if (table->records)
        return CIMFS_OK;
    uint16_t size =
        table->entry_size < sizeof(struct cimfs_record) ? (uint16_t)sizeof(struct cimfs_record) : table->entry_size;
    uint8_t *records = calloc(CIMFS_FILES_PER_TABLE, size);
    if (!records)
        return CIMFS_E_OUT_OF_MEMORY;
    if (table->count > 0) {
        const uint8_t *old;
        cimfs_hresult result = cimfs_reader_view(tables->base, table->offset,
                                                 (uint64_t)table->count * table->entry_size, tables->error, &old);
        if (result < 0) {
            free(records);
            return result;
        }
        for (uint32_t i = 0; i < table->count; i++)
            memcpy(records + (size_t)i * size, old + (size_t)i * table->entry_size, table->entry_size);
    }
    table->records = records;
    table->entry_size = size;
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_get(const struct cimfs_file_tables *tables, uint32_t id, struct cimfs_record *record)
{
    uint32_t index = (id - 1) / CIMFS_FILES_PER_TABLE;
    if (id == 0 || index >= tables->count || !tables->tables[index].records) {
        if (tables->base)
            return cimfs_reader_record(tables->base, id, tables->error, record);
        return CIMFS_E_FILE_CORRUPT;
    }
    const struct cimfs_file_table *table = &tables->tables[index];
    uint32_t within = (id - 1) % CIMFS_FILES_PER_TABLE;
    if (within >= table->count)
        return cimfs_fail(tables->error, CIMFS_E_FILE_CORRUPT, NULL, CIMFS_NO_OFFSET,
                          "a file ID beyond the end of its file table");
    memcpy(record, table->records + (size_t)within * table->entry_size, sizeof *record);
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_set(struct cimfs_file_tables *tables, uint32_t id, const struct cimfs_record *record)
{
    uint32_t index = (id - 1) / CIMFS_FILES_PER_TABLE;
    CIMFS_TRY(own(tables, index));
    struct cimfs_file_table *table = &tables->tables[index];
    memcpy(table->records + (size_t)((id - 1) % CIMFS_FILES_PER_TABLE) * table->entry_size, record, sizeof *record);
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_add(struct cimfs_file_tables *tables, const struct cimfs_record *record, uint32_t *id)
{
    if (tables->count == 0 || tables->tables[tables->count - 1].count == CIMFS_FILES_PER_TABLE) {
        CIMFS_TRY(reserve(tables, tables->count + 1));
        tables->tables[tables->count++] = (struct cimfs_file_table){.entry_size = sizeof *record};
    }
    uint32_t index = tables->count - 1;
    CIMFS_TRY(own(tables, index));
    *id = index * CIMFS_FILES_PER_TABLE + tables->tables[index].count + 1;
    tables->tables[index].count++;
    return cimfs_file_tables_set(tables, *id, record);
}

static cimfs_hresult store(struct cimfs_file_tables *tables, struct cimfs_objects *objects,
                           struct cimfs_table_entry *entries)
{
    for (uint32_t i = 0; i < tables->count; i++) {
        struct cimfs_file_table *table = &tables->tables[i];
        uint64_t offset = table->offset;
        if (table->records)
            CIMFS_TRY(cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, table->records,
                                        (size_t)table->count * table->entry_size, &offset));
        entries[i].table = put64(offset);
        entries[i].count = put16(table->count);
        entries[i].entry_size = put16(table->entry_size);
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_commit(struct cimfs_file_tables *tables, struct cimfs_objects *objects,
                                       uint64_t *directory)
{
    struct cimfs_table_entry *entries = calloc(tables->count, sizeof *entries);
    if (!entries)
        return CIMFS_E_OUT_OF_MEMORY;
    cimfs_hresult result = store(tables, objects, entries);
    if (result == CIMFS_OK)
        result = cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, entries, tables->count * sizeof *entries, directory);
    free(entries);
    return result;
}
