/* What the files of the hive engine share; programs include hive.h. */
#ifndef HIVE_INTERNAL_H
#define HIVE_INTERNAL_H

#include "hive.h"

/* Fills *error and returns code. */
int hive_fail(hive_error *error, int code, uint64_t offset, const char *reason);
int hive_no_memory(hive_error *error);

/* Memory, aligned for any structure of hive.h, that lives as long as the arena; NULL when there is none. */
void *hive_alloc(hive_arena *arena, size_t size);
void hive_arena_cleanup(hive_arena *arena);
/* Makes room for one more in an array of the arena; the old array stays where it is. False: no memory. */
bool hive_grow(hive_arena *arena, void **array, uint32_t count, uint32_t *capacity, size_t item_size);
int hive_add_descriptor(hive *h, hive_bytes descriptor, uint32_t *index, hive_error *error);

/* Names: order and equality are those of the upper-case UTF-16 code units. */
uint16_t hive_upcase(uint16_t unit);
int hive_compare_names(const hive_name *a, const hive_name *b);
uint64_t hive_name_prefix(const hive_name *name);
int hive_compare_keys(const hive_key *a, const hive_key *b);
uint32_t hive_hash_name(const hive_name *name); /* as lh lists have it */
uint32_t hive_fingerprint(const hive_name *name);
/* Length in UTF-16 code units. */
static inline uint32_t hive_name_length(const hive_name *name)
{
    return name->latin1 ? name->size : name->size / 2u;
}

/* Stable merge sort of pointers, because qsort may take quadratic time; scratch has room for count. */
typedef int hive_compare(const void *a, const void *b);
void hive_sort(const void **items, const void **scratch, size_t count, hive_compare *compare);

/* Finds the values of a key by name: few by looking at each, many through a sorted index. */
typedef struct hive_value_index {
    const hive_value *values;
    const void **sorted; /* of hive_value; NULL for few */
    uint32_t count;
} hive_value_index;
bool hive_index_values(hive_value_index *index, const hive_value *values, uint32_t count);
const hive_value *hive_index_find(const hive_value_index *index, const hive_value *like);
void hive_index_cleanup(hive_value_index *index);

/* Sorts the children of a key if need be; *twice is then a child whose name stands twice, or NULL. */
bool hive_order_subkeys(hive_key *key, const hive_key **twice);
/* Looks for a name that stands twice among the values of a key. */
bool hive_check_values(const hive_key *key, const hive_value **twice);

/* Applies the logs that fit to a dirty hive. *image is the result, to be freed, or NULL if none fitted. */
int hive_recover(hive_bytes file, const hive_bytes *logs, size_t log_count, uint8_t **image, size_t *image_size,
                 hive_error *error);
uint64_t hive_marvin32(const uint8_t *data, size_t size);

#endif
