#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* O:BAG:BAD:(A;CI;KA;;;SY)(A;CI;KA;;;BA)(A;CI;KR;;;WD)(A;CI;KR;;;RC), as on the root of a real delta. */
/* clang-format off */
static const uint8_t default_descriptor[] = {
    1, 0, 4, 0x80, 0x70, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, /* control, offsets */
    2, 0, 0x5C, 0, 4, 0, 0, 0,                                             /* ACL of four entries */
    0, 2, 0x14, 0, 0x3F, 0, 0x0F, 0, 1, 1, 0, 0, 0, 0, 0, 5, 0x12, 0, 0, 0,
    0, 2, 0x18, 0, 0x3F, 0, 0x0F, 0, 1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0,
    0, 2, 0x14, 0, 0x19, 0, 2, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
    0, 2, 0x14, 0, 0x19, 0, 2, 0, 1, 1, 0, 0, 0, 0, 0, 5, 0x0C, 0, 0, 0,
    1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0,                  /* owner */
    1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0,                  /* group */
};
/* clang-format on */

int hive_create(uint64_t last_written, hive **out, hive_error *error)
{
    static const uint8_t root_name[] = {'R', 'O', 'O', 'T'};
    *out = NULL;
    hive *h = calloc(1, sizeof *h);
    if (!h)
        return hive_no_memory(error);
    h->last_written = last_written;
    h->sequence = 1;
    h->minor_version = 5;
    int code =
        hive_add_descriptor(h, (hive_bytes){default_descriptor, sizeof default_descriptor}, &(uint32_t){0}, error);
    h->root = code ? NULL : hive_alloc(&h->arena, sizeof *h->root);
    if (!h->root) {
        hive_destroy(h);
        return hive_no_memory(error);
    }
    *h->root = (hive_key){
        .name = {root_name, sizeof root_name, true},
        .last_written = last_written,
        .flags = HIVE_KEY_ROOT | HIVE_KEY_NO_DELETE,
    };
    *out = h;
    return HIVE_OK;
}

void hive_destroy(hive *h)
{
    if (!h)
        return;
    hive_arena_cleanup(&h->arena);
    free(h->recovered);
    free(h);
}

int hive_add_descriptor(hive *h, hive_bytes descriptor, uint32_t *index, hive_error *error)
{
    void *array = h->descriptors;
    if (!hive_grow(&h->arena, &array, h->descriptor_count, &h->descriptor_capacity, sizeof descriptor))
        return hive_no_memory(error);
    h->descriptors = array;
    *index = h->descriptor_count++;
    h->descriptors[*index] = descriptor;
    return HIVE_OK;
}

/* The first child that does not stand before name; *found: it has that name. */
static uint32_t lower_bound(const hive_key *parent, const hive_name *name, bool *found)
{
    hive_key like = {.name = *name, .prefix = hive_name_prefix(name)};
    uint32_t low = 0, high = parent->subkey_count;
    *found = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = hive_compare_keys(parent->subkeys[middle], &like);
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
            *found |= order == 0;
        }
    }
    return low;
}

hive_key *hive_find_subkey(const hive_key *parent, hive_name name)
{
    bool found;
    uint32_t at = lower_bound(parent, &name, &found);
    return found ? parent->subkeys[at] : NULL;
}

static bool copy_name(hive *h, hive_name name, hive_name *out)
{
    uint32_t length = hive_name_length(&name);
    bool narrow = !name.latin1;
    for (uint32_t i = 0; i < length && narrow; i++)
        narrow = name.bytes[2 * i + 1] == 0;
    uint8_t *bytes = hive_alloc(&h->arena, name.size);
    if (!bytes)
        return false;
    for (uint32_t i = 0; i < (narrow ? length : name.size); i++)
        bytes[i] = name.bytes[narrow ? 2 * i : i];
    *out = (hive_name){bytes, (uint16_t)(narrow ? length : name.size), narrow || name.latin1};
    return true;
}

int hive_add_subkey(hive *h, hive_key *parent, hive_name name, uint64_t last_written, hive_key **out, hive_error *error)
{
    bool found;
    uint32_t at = lower_bound(parent, &name, &found);
    *out = found ? parent->subkeys[at] : NULL;
    if (found)
        return HIVE_OK;
    if (hive_name_length(&name) == 0 || hive_name_length(&name) > HIVE_MAX_KEY_NAME)
        return hive_fail(error, HIVE_TOO_LARGE, HIVE_NO_OFFSET, "a key name has 1 to 255 characters");
    void *array = parent->subkeys;
    hive_key *key = hive_alloc(&h->arena, sizeof *key);
    hive_name own;
    if (!key || !copy_name(h, name, &own) ||
        !hive_grow(&h->arena, &array, parent->subkey_count, &parent->subkey_capacity, sizeof key))
        return hive_no_memory(error);
    parent->subkeys = array;
    *key = (hive_key){
        .name = own,
        .prefix = hive_name_prefix(&own),
        .last_written = last_written,
        .security = parent->security,
    };
    memmove(parent->subkeys + at + 1, parent->subkeys + at, (parent->subkey_count - at) * sizeof key);
    parent->subkeys[at] = *out = key;
    parent->subkey_count++;
    return HIVE_OK;
}

bool hive_remove_subkey(hive_key *parent, hive_name name)
{
    bool found;
    uint32_t at = lower_bound(parent, &name, &found);
    if (!found)
        return false;
    parent->subkey_count--;
    memmove(parent->subkeys + at, parent->subkeys + at + 1, (parent->subkey_count - at) * sizeof(hive_key *));
    return true;
}

hive_value *hive_find_value(const hive_key *key, hive_name name)
{
    uint32_t fingerprint = hive_fingerprint(&name);
    for (uint32_t i = 0; i < key->value_count; i++) {
        if (key->values[i].fingerprint == fingerprint && hive_compare_names(&key->values[i].name, &name) == 0)
            return &key->values[i];
    }
    return NULL;
}

int hive_set_value(hive *h, hive_key *key, hive_name name, uint32_t type, hive_bytes data, hive_error *error)
{
    hive_value *value = hive_find_value(key, name);
    if (!value && hive_name_length(&name) > HIVE_MAX_VALUE_NAME)
        return hive_fail(error, HIVE_TOO_LARGE, HIVE_NO_OFFSET, "a value name has at most 16,383 characters");
    if (data.size > INT32_MAX)
        return hive_fail(error, HIVE_TOO_LARGE, HIVE_NO_OFFSET, "the data of a value would exceed 1 GiB");
    uint8_t *copy = hive_alloc(&h->arena, data.size);
    if (!copy)
        return hive_no_memory(error);
    if (data.size)
        memcpy(copy, data.data, data.size);
    if (!value) {
        void *array = key->values;
        hive_name own;
        if (!copy_name(h, name, &own) ||
            !hive_grow(&h->arena, &array, key->value_count, &key->value_capacity, sizeof *value))
            return hive_no_memory(error);
        key->values = array;
        value = &key->values[key->value_count++];
        value->name = own;
    }
    *value = (hive_value){
        .name = value->name,
        .data = copy,
        .data_size = (uint32_t)data.size,
        .type = type,
        .fingerprint = hive_fingerprint(&value->name),
    };
    key->flags &= (uint16_t)~HIVE_KEY_PREDEFINED;
    return HIVE_OK;
}

bool hive_remove_value(hive_key *key, hive_name name)
{
    hive_value *value = hive_find_value(key, name);
    if (!value)
        return false;
    size_t at = (size_t)(value - key->values);
    key->value_count--;
    memmove(value, value + 1, (key->value_count - at) * sizeof *value);
    return true;
}
