#include "tree.h"

#include <stdlib.h>

#include "upcase.h"

cimfs_hresult cimfs_tree_open(struct cimfs_tree *tree, const struct cimfs_io *io, struct cimfs_objects *objects,
                              const struct cimfs_reader *base, const struct cimfs_record *root,
                              struct cimfs_error *error)
{
    *tree = (struct cimfs_tree){.base = base, .objects = objects};
    if (base) {
        tree->upcase = cimfs_reader_upcase(base);
        tree->root = cimfs_reader_root(base);
    } else {
        tree->own_upcase = malloc(CIMFS_UPCASE_UNITS * sizeof *tree->own_upcase);
        if (!tree->own_upcase)
            return CIMFS_E_OUT_OF_MEMORY;
        cimfs_upcase_table(tree->own_upcase);
        tree->upcase = tree->own_upcase;
    }
    CIMFS_TRY(cimfs_overlay_open(&tree->overlay, io, tree->upcase, error));
    CIMFS_TRY(cimfs_file_tables_open(&tree->files, base, error));
    return base ? CIMFS_OK : cimfs_file_tables_add(&tree->files, root, &tree->root);
}

void cimfs_tree_close(struct cimfs_tree *tree)
{
    cimfs_overlay_close(&tree->overlay);
    cimfs_file_tables_close(&tree->files);
    free(tree->own_upcase);
    free(tree->cached_path);
    *tree = (struct cimfs_tree){0};
}

cimfs_hresult cimfs_tree_record(const struct cimfs_tree *tree, uint32_t id, struct cimfs_record *record)
{
    return cimfs_file_tables_get(&tree->files, id, record);
}

cimfs_hresult cimfs_tree_update(struct cimfs_tree *tree, uint32_t id, const struct cimfs_record *record)
{
    return cimfs_file_tables_set(&tree->files, id, record);
}

/* The table that the parent has for an owner: empty for what is new here. */
static cimfs_hresult base_links(struct cimfs_tree *tree, uint32_t id, enum cimfs_owner_kind kind,
                                struct cimfs_links *links)
{
    struct cimfs_record record;
    struct cimfs_error *error = tree->overlay.error;
    CIMFS_TRY(cimfs_tree_record(tree, id, &record));
    /* Records made here point to no table before the commit, so no base reader is asked for one. */
    return kind == CIMFS_OWNER_CHILDREN ? cimfs_reader_children(tree->base, &record, error, links)
                                        : cimfs_reader_streams(tree->base, &record, error, links);
}

static cimfs_hresult change(struct cimfs_tree *tree, uint32_t id, enum cimfs_owner_kind kind,
                            struct cimfs_owner **owner)
{
    *owner = cimfs_overlay_owner(&tree->overlay, id, kind);
    if (*owner)
        return CIMFS_OK;
    struct cimfs_links base;
    CIMFS_TRY(base_links(tree, id, kind, &base));
    return cimfs_overlay_change(&tree->overlay, id, kind, &base, owner);
}

/* Is the name there, in the overlay or else in the parent? value: of the overlay, or the file ID. */
static cimfs_hresult find_name(struct cimfs_tree *tree, uint32_t id, enum cimfs_owner_kind kind, struct cimfs_name name,
                               int *found, uint32_t *value)
{
    struct cimfs_links base;
    struct cimfs_link link;
    const struct cimfs_owner *owner = cimfs_overlay_owner(&tree->overlay, id, kind);
    *found = 0;
    *value = 0;
    if (owner) {
        const struct cimfs_overlay_name *entry = cimfs_overlay_find(&tree->overlay, owner, name);
        if (entry) {
            *found = entry->value != 0;
            *value = entry->value;
            return CIMFS_OK;
        }
        base = owner->base;
    } else {
        CIMFS_TRY(base_links(tree, id, kind, &base));
    }
    if (base.count == 0)
        return CIMFS_OK;
    CIMFS_TRY(cimfs_links_find(&base, name, tree->overlay.error, &link, found));
    if (*found && kind == CIMFS_OWNER_CHILDREN)
        return cimfs_links_file_id(&base, &link, tree->overlay.error, value);
    return CIMFS_OK;
}

cimfs_hresult cimfs_tree_find(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name, uint32_t *id)
{
    int found;
    return find_name(tree, directory, CIMFS_OWNER_CHILDREN, name, &found, id);
}

static cimfs_hresult remember_path(struct cimfs_tree *tree, struct cimfs_name path, uint32_t id)
{
    if (path.length > tree->cached_capacity) {
        uint16_t *grown = realloc(tree->cached_path, path.length * 2 * sizeof *grown);
        if (!grown)
            return CIMFS_E_OUT_OF_MEMORY;
        tree->cached_path = grown;
        tree->cached_capacity = path.length * 2;
    }
    memcpy(tree->cached_path, path.units, path.length * sizeof *path.units);
    tree->cached_length = path.length;
    tree->cached_id = id;
    return CIMFS_OK;
}

cimfs_hresult cimfs_tree_directory(struct cimfs_tree *tree, struct cimfs_name path, uint32_t *id)
{
    struct cimfs_name whole = path, component;
    *id = tree->root;
    if (path.length == 0)
        return CIMFS_OK;
    uint32_t cached = tree->cached_length;
    if (tree->cached_id && cached <= path.length && (cached == path.length || path.units[cached] == '\\') &&
        memcmp(tree->cached_path, path.units, cached * sizeof *path.units) == 0) {
        *id = tree->cached_id;
        if (cached == path.length)
            return CIMFS_OK;
        path = (struct cimfs_name){path.units + cached + 1, path.length - cached - 1};
    }
    while (cimfs_path_next(&path, &component)) {
        struct cimfs_record record;
        CIMFS_TRY(cimfs_tree_find(tree, *id, component, id));
        if (*id == 0)
            return CIMFS_E_PATH_NOT_FOUND;
        CIMFS_TRY(cimfs_tree_record(tree, *id, &record));
        if (!cimfs_is_directory(&record))
            return CIMFS_E_PATH_NOT_FOUND;
    }
    return remember_path(tree, whole, *id);
}

/*
 * A directory that loses its name is never seen again. Tables that were changed below it before are stored all
 * the same: telling which ones they are would mean to trust the parent IDs of an untrusted image.
 */
static cimfs_hresult forget(struct cimfs_tree *tree, uint32_t id)
{
    struct cimfs_record record;
    struct cimfs_owner *owner;
    CIMFS_TRY(cimfs_tree_record(tree, id, &record));
    if (!cimfs_is_directory(&record))
        return CIMFS_OK;
    tree->cached_id = 0;
    CIMFS_TRY(change(tree, id, CIMFS_OWNER_CHILDREN, &owner));
    owner->dead = 1;
    return CIMFS_OK;
}

/* Give the name to another file, or with id 0 to none. */
static cimfs_hresult set_name(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name, uint32_t id)
{
    struct cimfs_owner *owner;
    uint32_t old;
    CIMFS_TRY(cimfs_tree_find(tree, directory, name, &old));
    if (old == 0 && id == 0)
        return CIMFS_E_PATH_NOT_FOUND;
    if (old != 0 && old != id)
        CIMFS_TRY(forget(tree, old));
    CIMFS_TRY(change(tree, directory, CIMFS_OWNER_CHILDREN, &owner));
    return cimfs_overlay_set(&tree->overlay, owner, name, id);
}

cimfs_hresult cimfs_tree_add(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name,
                             struct cimfs_record *record, uint32_t *id)
{
    record->parent = put32(directory);
    CIMFS_TRY(cimfs_file_tables_add(&tree->files, record, id));
    return set_name(tree, directory, name, *id);
}

cimfs_hresult cimfs_tree_link(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name, uint32_t id)
{
    return set_name(tree, directory, name, id);
}

cimfs_hresult cimfs_tree_unlink(struct cimfs_tree *tree, uint32_t directory, struct cimfs_name name)
{
    return set_name(tree, directory, name, 0);
}

cimfs_hresult cimfs_tree_set_stream(struct cimfs_tree *tree, uint32_t id, struct cimfs_name name,
                                    struct cimfs_raw_stream stream)
{
    struct cimfs_owner *owner;
    uint32_t value;
    CIMFS_TRY(change(tree, id, CIMFS_OWNER_STREAMS, &owner));
    CIMFS_TRY(cimfs_overlay_stream(&tree->overlay, stream, &value));
    return cimfs_overlay_set(&tree->overlay, owner, name, value);
}

cimfs_hresult cimfs_tree_remove_stream(struct cimfs_tree *tree, uint32_t id, struct cimfs_name name)
{
    struct cimfs_owner *owner;
    uint32_t value;
    int found;
    CIMFS_TRY(find_name(tree, id, CIMFS_OWNER_STREAMS, name, &found, &value));
    if (!found)
        return CIMFS_E_PATH_NOT_FOUND;
    CIMFS_TRY(change(tree, id, CIMFS_OWNER_STREAMS, &owner));
    return cimfs_overlay_set(&tree->overlay, owner, name, 0);
}

/* ---- commit ---- */

static cimfs_hresult store_links(struct cimfs_tree *tree, struct cimfs_owner *owner)
{
    struct cimfs_record record;
    uint64_t offset;
    uint32_t length;
    CIMFS_TRY(cimfs_overlay_store(&tree->overlay, owner, tree->objects, &offset, &length));
    CIMFS_TRY(cimfs_tree_record(tree, owner->id, &record));
    if (owner->kind == CIMFS_OWNER_STREAMS)
        record.streams = put64(offset);
    else
        record.data = (struct cimfs_raw_stream){
            put64(offset), put64(length | (uint64_t)CIMFS_STREAM_LINKS << CIMFS_STREAM_TYPE_SHIFT)};
    return cimfs_tree_update(tree, owner->id, &record);
}

cimfs_hresult cimfs_tree_commit(struct cimfs_tree *tree, uint64_t *filesystem)
{
    struct cimfs_overlay *overlay = &tree->overlay;
    for (uint32_t i = 0; i < overlay->owner_count; i++) {
        if (!overlay->owners[i].dead)
            CIMFS_TRY(store_links(tree, &overlay->owners[i]));
    }
    struct cimfs_filesystem object = {.root = put32(tree->root), .table_count = put32(tree->files.count)};
    uint64_t directory, upcase;
    CIMFS_TRY(cimfs_file_tables_commit(&tree->files, tree->objects, &directory));
    object.table_directory = put64(directory);
    if (tree->base) {
        upcase = cimfs_reader_upcase_offset(tree->base);
    } else {
        le16 *units = malloc(CIMFS_UPCASE_UNITS * sizeof *units);
        if (!units)
            return CIMFS_E_OUT_OF_MEMORY;
        for (uint32_t i = 0; i < CIMFS_UPCASE_UNITS; i++)
            units[i] = put16(tree->upcase[i]);
        cimfs_hresult result =
            cimfs_objects_put(tree->objects, CIMFS_OBJECT_METADATA, units, CIMFS_UPCASE_UNITS * sizeof *units, &upcase);
        free(units);
        CIMFS_TRY(result);
    }
    object.upcase = put64(upcase);
    return cimfs_objects_put(tree->objects, CIMFS_OBJECT_METADATA, &object, sizeof object, filesystem);
}
