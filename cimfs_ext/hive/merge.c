/* Base + delta, as registry.md, Merge, has it. Bases are large: their trees are changed in place. */
#include "internal.h"

#include <string.h>

typedef struct merger {
    hive *base;
    uint32_t first_descriptor; /* where the descriptors of the source of copies begin in base */
    hive_error *error;
} merger;

static bool is_tombstone(const hive_key *key)
{
    return (key->layering & HIVE_LAYER_SEMANTICS) == HIVE_LAYER_TOMBSTONE;
}

static uint32_t map_security(const merger *m, uint32_t security, uint32_t otherwise)
{
    return security == HIVE_NO_SECURITY ? otherwise : m->first_descriptor + security;
}

static int copy_values(merger *m, hive_key *to, const hive_key *from)
{
    to->value_count = to->value_capacity = 0;
    to->values = hive_alloc(&m->base->arena, from->value_count * sizeof *to->values);
    if (!to->values)
        return hive_no_memory(m->error);
    to->value_capacity = from->value_count;
    for (uint32_t i = 0; i < from->value_count; i++) {
        if (!from->values[i].tombstone)
            to->values[to->value_count++] = from->values[i];
    }
    return HIVE_OK;
}

static int copy_key(merger *m, const hive_key *from, hive_key **out);

static int copy_subkeys(merger *m, hive_key *to, const hive_key *from)
{
    to->subkey_count = to->subkey_capacity = 0;
    to->subkeys = hive_alloc(&m->base->arena, from->subkey_count * sizeof *to->subkeys);
    if (!to->subkeys)
        return hive_no_memory(m->error);
    to->subkey_capacity = from->subkey_count;
    for (uint32_t i = 0; i < from->subkey_count; i++) {
        if (is_tombstone(from->subkeys[i]))
            continue;
        int code = copy_key(m, from->subkeys[i], &to->subkeys[to->subkey_count]);
        if (code)
            return code;
        to->subkey_count++;
    }
    return HIVE_OK;
}

/* A plain copy: without layering and tombstones. */
static int copy_key(merger *m, const hive_key *from, hive_key **out)
{
    hive_key *to = *out = hive_alloc(&m->base->arena, sizeof *to);
    if (!to)
        return hive_no_memory(m->error);
    *to = *from;
    to->layering = 0;
    to->security = map_security(m, from->security, HIVE_NO_SECURITY);
    int code = copy_values(m, to, from);
    return code ? code : copy_subkeys(m, to, from);
}

/* Changes and marks what both have; *added is how many the delta has on top. */
static void replace_values(hive_key *key, const hive_key *delta, const hive_value_index *index, uint32_t *added)
{
    *added = 0;
    for (uint32_t i = 0; i < delta->value_count; i++) {
        const hive_value *from = &delta->values[i], *found = hive_index_find(index, from);
        if (found) {
            hive_value *to = &key->values[found - key->values];
            hive_name spelling = to->name;
            *to = *from;
            to->name = spelling;
        } else {
            *added += !from->tombstone;
        }
    }
}

static int append_values(merger *m, hive_key *key, const hive_key *delta, const hive_value_index *index, uint32_t added)
{
    uint32_t count = key->value_count;
    hive_value *values = hive_alloc(&m->base->arena, ((size_t)count + added) * sizeof *values);
    if (!values)
        return hive_no_memory(m->error);
    if (count)
        memcpy(values, key->values, count * sizeof *values);
    for (uint32_t i = 0; i < delta->value_count; i++) {
        if (!delta->values[i].tombstone && !hive_index_find(index, &delta->values[i]))
            values[count++] = delta->values[i];
    }
    key->values = values;
    key->value_count = key->value_capacity = count;
    return HIVE_OK;
}

static void drop_tombstone_values(hive_key *key)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < key->value_count; i++) {
        if (!key->values[i].tombstone)
            key->values[kept++] = key->values[i];
    }
    key->value_count = kept;
}

static int merge_values(merger *m, hive_key *key, const hive_key *delta)
{
    if (delta->value_count == 0)
        return HIVE_OK;
    hive_value_index index;
    uint32_t added;
    int code = HIVE_OK;
    if (hive_index_values(&index, key->values, key->value_count)) {
        replace_values(key, delta, &index, &added);
        if (added)
            code = append_values(m, key, delta, &index, added);
        drop_tombstone_values(key);
    } else {
        code = hive_no_memory(m->error);
    }
    hive_index_cleanup(&index);
    return code;
}

/* The order of the next two children of two sorted lists. */
static int next_pair(const hive_key *key, uint32_t i, const hive_key *delta, uint32_t j)
{
    if (i == key->subkey_count)
        return 1;
    if (j == delta->subkey_count)
        return -1;
    return hive_compare_keys(key->subkeys[i], delta->subkeys[j]);
}

static int merge_key(merger *m, hive_key *key, const hive_key *delta);

static int merge_subkeys(merger *m, hive_key *key, const hive_key *delta)
{
    if (delta->subkey_count == 0)
        return HIVE_OK;
    uint32_t count = 0, capacity = key->subkey_count + delta->subkey_count;
    hive_key **merged = hive_alloc(&m->base->arena, capacity * sizeof *merged);
    if (!merged)
        return hive_no_memory(m->error);
    for (uint32_t i = 0, j = 0; i < key->subkey_count || j < delta->subkey_count;) {
        int order = next_pair(key, i, delta, j), code = HIVE_OK;
        bool kept = order < 0 || !is_tombstone(delta->subkeys[j]);
        if (kept && order > 0) {
            code = copy_key(m, delta->subkeys[j], &merged[count]);
        } else if (kept) {
            merged[count] = key->subkeys[i];
            if (order == 0)
                code = merge_key(m, merged[count], delta->subkeys[j]);
        }
        if (code)
            return code;
        count += kept;
        i += order <= 0;
        j += order >= 0;
    }
    key->subkeys = merged;
    key->subkey_count = count;
    key->subkey_capacity = capacity;
    return HIVE_OK;
}

static void merge_properties(const merger *m, hive_key *key, const hive_key *delta)
{
    const uint16_t own = HIVE_KEY_ROOT | HIVE_KEY_NO_DELETE | HIVE_KEY_LATIN1;
    if (!(delta->layering & HIVE_LAYER_INHERIT_CLASS)) {
        key->class_name = delta->class_name;
        key->class_size = delta->class_size;
    }
    if (delta->flags & HIVE_KEY_PREDEFINED)
        key->predefined_handle = delta->predefined_handle;
    key->security = map_security(m, delta->security, key->security);
    key->last_written = delta->last_written > key->last_written ? delta->last_written : key->last_written;
    key->flags = (uint16_t)((key->flags & (own | HIVE_KEY_PREDEFINED)) | (delta->flags & ~own));
    key->user_flags = delta->user_flags;
}

static int merge_key(merger *m, hive_key *key, const hive_key *delta)
{
    int semantics = delta->layering & HIVE_LAYER_SEMANTICS;
    merge_properties(m, key, delta);
    int code = semantics == HIVE_LAYER_MERGE ? merge_values(m, key, delta) : copy_values(m, key, delta);
    if (code)
        return code;
    return semantics == HIVE_LAYER_SUPERSEDE_TREE ? copy_subkeys(m, key, delta) : merge_subkeys(m, key, delta);
}

int hive_merge(hive *base, const hive *delta, hive_error *error)
{
    merger m = {.base = base, .error = error};
    if (is_tombstone(delta->root))
        return hive_fail(error, HIVE_CORRUPT, HIVE_NO_OFFSET, "the root key of a delta is a tombstone");
    int code = HIVE_OK;
    if (base->layered)
        code = copy_key(&m, base->root, &base->root);
    m.first_descriptor = base->descriptor_count;
    for (uint32_t i = 0; i < delta->descriptor_count && code == HIVE_OK; i++)
        code = hive_add_descriptor(base, delta->descriptors[i], &(uint32_t){0}, error);
    if (code == HIVE_OK)
        code = merge_key(&m, base->root, delta->root);
    base->layered = false;
    base->source_size += delta->source_size;
    if (delta->last_written > base->last_written)
        base->last_written = delta->last_written;
    return code;
}
