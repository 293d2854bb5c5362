#include "filetable.h"

#include <stdlib.h>

/* File IDs stay below this, so that they and the number of tables fit wherever they are counted. */
#define MAX_TABLES (1u << 21)

/* Of a table, that are kept apart: a copy of the whole is sixty times as large. */
#define FEW_CHANGES 16

struct cimfs_record_change {
    uint32_t within; /* its table */
    struct cimfs_record record;
};

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
    for (uint32_t i = 0; i < tables->count; i++) {
        free(tables->tables[i].records);
        free(tables->tables[i].changes);
    }
    free(tables->tables);
    *tables = (struct cimfs_file_tables){0};
}

/* Of a changed table: records shorter than ours grow; longer ones keep what we do not know. */
static uint16_t new_size(const struct cimfs_file_table *table)
{
    return table->entry_size < sizeof(struct cimfs_record) ? (uint16_t)sizeof(struct cimfs_record) : table->entry_size;
}

/* The parent's records with the changes, each of the new size. */
static cimfs_hresult copy_records(const struct cimfs_file_tables *tables, const struct cimfs_file_table *table,
                                  uint8_t *to)
{
    const uint8_t *old;
    uint16_t size = new_size(table);
    if (table->count == 0)
        return CIMFS_OK;
    CIMFS_TRY(cimfs_reader_view(tables->base, table->offset, (uint64_t)table->count * table->entry_size, tables->error,
                                &old));
    if (size == table->entry_size)
        memcpy(to, old, (size_t)table->count * size);
    for (uint32_t i = 0; size != table->entry_size && i < table->count; i++) {
        memcpy(to + (size_t)i * size, old + (size_t)i * table->entry_size, table->entry_size);
        memset(to + (size_t)i * size + table->entry_size, 0, (size_t)(size - table->entry_size));
    }
    for (uint32_t i = 0; i < table->change_count; i++)
        memcpy(to + (size_t)table->changes[i].within * size, &table->changes[i].record, sizeof(struct cimfs_record));
    return CIMFS_OK;
}

/* Give a table a copy of its own. */
static cimfs_hresult own(struct cimfs_file_tables *tables, struct cimfs_file_table *table)
{
    if (table->records)
        return CIMFS_OK;
    uint8_t *records = calloc(CIMFS_FILES_PER_TABLE, new_size(table));
    if (!records)
        return CIMFS_E_OUT_OF_MEMORY;
    cimfs_hresult result = copy_records(tables, table, records);
    if (result < 0) {
        free(records);
        return result;
    }
    table->records = records;
    table->entry_size = new_size(table);
    free(table->changes);
    table->changes = NULL;
    table->change_count = 0;
    return CIMFS_OK;
}

/* The change of a record, or NULL. */
static struct cimfs_record_change *find_change(const struct cimfs_file_table *table, uint32_t within)
{
    for (uint32_t i = 0; i < table->change_count; i++)
        if (table->changes[i].within == within)
            return &table->changes[i];
    return NULL;
}

cimfs_hresult cimfs_file_tables_get(const struct cimfs_file_tables *tables, uint32_t id, struct cimfs_record *record)
{
    uint32_t index = (id - 1) / CIMFS_FILES_PER_TABLE, within = (id - 1) % CIMFS_FILES_PER_TABLE;
    const struct cimfs_file_table *table = id == 0 || index >= tables->count ? NULL : &tables->tables[index];
    const struct cimfs_record_change *change = table ? find_change(table, within) : NULL;
    if (change) {
        *record = change->record;
        return CIMFS_OK;
    }
    if (!table || !table->records) {
        if (tables->base)
            return cimfs_reader_record(tables->base, id, tables->error, record);
        return CIMFS_E_FILE_CORRUPT;
    }
    if (within >= table->count)
        return cimfs_fail(tables->error, CIMFS_E_FILE_CORRUPT, NULL, CIMFS_NO_OFFSET,
                          "a file ID beyond the end of its file table");
    memcpy(record, table->records + (size_t)within * table->entry_size, sizeof *record);
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_set(struct cimfs_file_tables *tables, uint32_t id, const struct cimfs_record *record)
{
    struct cimfs_file_table *table = &tables->tables[(id - 1) / CIMFS_FILES_PER_TABLE];
    uint32_t within = (id - 1) % CIMFS_FILES_PER_TABLE;
    struct cimfs_record_change *change = find_change(table, within);
    if (!change && !table->records && table->change_count < FEW_CHANGES) {
        if (!table->changes)
            table->changes = malloc(FEW_CHANGES * sizeof *table->changes);
        if (!table->changes)
            return CIMFS_E_OUT_OF_MEMORY;
        change = &table->changes[table->change_count++];
        change->within = within;
    }
    if (change) {
        change->record = *record;
        return CIMFS_OK;
    }
    CIMFS_TRY(own(tables, table));
    memcpy(table->records + (size_t)within * table->entry_size, record, sizeof *record);
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_add(struct cimfs_file_tables *tables, const struct cimfs_record *record, uint32_t *id)
{
    if (tables->count == 0 || tables->tables[tables->count - 1].count == CIMFS_FILES_PER_TABLE) {
        CIMFS_TRY(reserve(tables, tables->count + 1));
        tables->tables[tables->count++] = (struct cimfs_file_table){.entry_size = sizeof *record};
    }
    uint32_t index = tables->count - 1;
    CIMFS_TRY(own(tables, &tables->tables[index]));
    *id = index * CIMFS_FILES_PER_TABLE + tables->tables[index].count + 1;
    tables->tables[index].count++;
    return cimfs_file_tables_set(tables, *id, record);
}

/* The scratch has room for any table. */
static cimfs_hresult store(struct cimfs_file_tables *tables, struct cimfs_objects *objects,
                           struct cimfs_table_entry *entries, uint8_t *scratch)
{
    for (uint32_t i = 0; i < tables->count; i++) {
        const struct cimfs_file_table *table = &tables->tables[i];
        const uint8_t *records = table->records;
        uint64_t offset = table->offset;
        uint16_t size = table->entry_size;
        if (table->change_count > 0) {
            CIMFS_TRY(copy_records(tables, table, scratch));
            records = scratch;
            size = new_size(table);
        }
        if (records)
            CIMFS_TRY(cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, records, (size_t)table->count * size, &offset));
        entries[i].table = put64(offset);
        entries[i].count = put16(table->count);
        entries[i].entry_size = put16(size);
    }
    return CIMFS_OK;
}

cimfs_hresult cimfs_file_tables_commit(struct cimfs_file_tables *tables, struct cimfs_objects *objects,
                                       uint64_t *directory)
{
    struct cimfs_table_entry *entries = calloc(tables->count, sizeof *entries);
    uint8_t *scratch = malloc((size_t)CIMFS_FILES_PER_TABLE * CIMFS_LARGEST_RECORD);
    cimfs_hresult result = entries && scratch ? store(tables, objects, entries, scratch) : CIMFS_E_OUT_OF_MEMORY;
    if (result == CIMFS_OK)
        result = cimfs_objects_put(objects, CIMFS_OBJECT_METADATA, entries, tables->count * sizeof *entries, directory);
    free(scratch);
    free(entries);
    return result;
}
