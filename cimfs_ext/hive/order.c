/* Order of subkeys, uniqueness of names, lookup among many values. */
#include "internal.h"

#include <stdlib.h>

enum { FEW = 16 };

static int compare_keys(const void *a, const void *b)
{
    return hive_compare_keys(a, b);
}

static int compare_values(const void *a, const void *b)
{
    const hive_value *x = a, *y = b;
    if (x->fingerprint != y->fingerprint)
        return x->fingerprint < y->fingerprint ? -1 : 1;
    return hive_compare_names(&x->name, &y->name);
}

/* The first child that does not stand after the one before it, or NULL. */
static const hive_key *first_out_of_order(const hive_key *key)
{
    for (uint32_t i = 1; i < key->subkey_count; i++) {
        if (compare_keys(key->subkeys[i - 1], key->subkeys[i]) >= 0)
            return key->subkeys[i];
    }
    return NULL;
}

bool hive_order_subkeys(hive_key *key, const hive_key **twice)
{
    *twice = first_out_of_order(key);
    if (!*twice)
        return true;
    const void **scratch = malloc(key->subkey_count * sizeof *scratch);
    if (!scratch)
        return false;
    hive_sort((const void **)key->subkeys, scratch, key->subkey_count, compare_keys);
    free(scratch);
    *twice = first_out_of_order(key);
    return true;
}

bool hive_index_values(hive_value_index *index, const hive_value *values, uint32_t count)
{
    *index = (hive_value_index){.values = values, .count = count};
    if (count <= FEW)
        return true;
    const void **scratch = malloc(count * sizeof *scratch);
    index->sorted = malloc(count * sizeof *index->sorted);
    bool ok = scratch && index->sorted;
    if (ok) {
        for (uint32_t i = 0; i < count; i++)
            index->sorted[i] = &values[i];
        hive_sort(index->sorted, scratch, count, compare_values);
    }
    free(scratch);
    return ok;
}

const hive_value *hive_index_find(const hive_value_index *index, const hive_value *like)
{
    if (!index->sorted) {
        for (uint32_t i = 0; i < index->count; i++) {
            if (compare_values(&index->values[i], like) == 0)
                return &index->values[i];
        }
        return NULL;
    }
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_values(index->sorted[middle], like);
        if (order == 0)
            return index->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void hive_index_cleanup(hive_value_index *index)
{
    free(index->sorted);
}

bool hive_check_values(const hive_key *key, const hive_value **twice)
{
    *twice = NULL;
    if (key->value_count <= FEW) {
        for (uint32_t i = 1; i < key->value_count; i++) {
            for (uint32_t j = 0; j < i; j++) {
                if (compare_values(&key->values[i], &key->values[j]) == 0)
                    *twice = &key->values[i];
            }
        }
        return true;
    }
    hive_value_index index;
    bool ok = hive_index_values(&index, key->values, key->value_count);
    for (uint32_t i = 1; ok && i < key->value_count; i++) {
        if (compare_values(index.sorted[i - 1], index.sorted[i]) == 0)
            *twice = index.sorted[i];
    }
    hive_index_cleanup(&index);
    return ok;
}
