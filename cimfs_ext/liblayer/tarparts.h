/* The parts of the tar reader, for each other alone: numbers, PAX records, headers, and the iterator that calls them.
 */
#ifndef LAYER_TARPARTS_H
#define LAYER_TARPARTS_H

#include "tar.h"

enum layer_tar_state { HEADER, RECORDS, RECORDS_PADDING, DATA, DATA_PADDING, DONE };

/* Where a field stands in a header block: offset and width. */
struct layer_tar_field {
    uint16_t offset, width;
};

/* Functions that can fail return -1, with tar->reason set if they take the tar. */
static inline int layer_tar_fail(struct layer_tar *tar, const char *reason)
{
    tar->reason = reason;
    return -1;
}

/* A record of the file, else the global one; an empty value cancels both. */
#define PICK(tar, name) layer_tar_pick(tar, offsetof(struct layer_pax, name))

static inline struct layer_slice layer_tar_pick(const struct layer_tar *tar, size_t field)
{
    struct layer_slice local, global;
    memcpy(&local, (const char *)&tar->local + field, sizeof local);
    memcpy(&global, (const char *)&tar->global + field, sizeof global);
    struct layer_slice chosen = local.data ? local : global;
    return chosen.size ? chosen : (struct layer_slice){NULL, 0};
}

/* Octal, or GNU's base 256. */
int layer_tar_number(const uint8_t *block, struct layer_tar_field field, int64_t *value);
int layer_tar_decimal(struct layer_slice text, uint64_t *value);
/* From seconds since 1970 and units of 100 ns; -1 if it is out of range. */
int layer_tar_filetime(int64_t seconds, int64_t ticks, int64_t *filetime);

/* Forget what the records said but keep the memory. */
void layer_tar_reset_records(struct layer_pax *pax);
void layer_tar_free_records(struct layer_pax *pax);
/* The text of pax, "LENGTH KEY=VALUE\n", one after the other. */
int layer_tar_parse_records(struct layer_tar *tar, struct layer_pax *pax);
/* Both lists as one in tar->eas, in order. Those that came first are in order: they come again with every entry. */
int layer_tar_merge_eas(struct layer_tar *tar, const struct layer_pax *first, struct layer_pax *later);
/* What a global header says holds until a later one says otherwise: keep what still counts, in a text of its own. */
int layer_tar_merge_globals(struct layer_tar *tar);

/* Where the records of the kind that is being read go. */
struct layer_pax *layer_tar_records(struct layer_tar *tar);
/* Take tar->block; 1: an entry begins, 0: go on, -1: an error. */
int layer_tar_take_header(struct layer_tar *tar);

#endif
