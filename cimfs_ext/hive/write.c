/* Writing a tree in one pass, depth first. When the memory is full the pass goes on measuring. */
#include "format.h"
#include "internal.h"

#include <stdlib.h>

typedef struct security_cell {
    uint32_t same_as; /* the first descriptor of equal content */
    uint32_t offset, references;
} security_cell;

typedef struct writer {
    const hive *h;
    uint8_t *bins;     /* NULL: measure only */
    uint64_t capacity; /* of bins */
    uint64_t used;     /* end of the last cell */
    uint64_t end;      /* end of the last bin */
    security_cell *security;
    uint32_t *written; /* descriptors in the order in which they were written */
    uint32_t written_count;
    bool too_many_segments;
} writer;

static uint64_t round_up(uint64_t size, uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* What is left of the last bin becomes a free cell. */
static void close_bin(writer *w)
{
    if (w->bins && w->used < w->end) {
        memset(w->bins + w->used, 0, w->end - w->used);
        store32(w->bins + w->used, (uint32_t)(w->end - w->used));
    }
    w->used = w->end;
}

static void open_bin(writer *w, uint64_t cell_size)
{
    close_bin(w);
    uint64_t size = round_up(REGF_BIN_HEADER + cell_size, REGF_BIN_ALIGN);
    if (size > w->capacity - w->end)
        w->bins = NULL;
    if (w->bins) {
        uint8_t *bin = w->bins + w->used;
        memset(bin, 0, REGF_BIN_HEADER);
        memcpy(bin, "hbin", 4);
        store32(bin + 4, (uint32_t)w->used);
        store32(bin + 8, (uint32_t)size);
    }
    w->used += REGF_BIN_HEADER;
    w->end += size;
}

/* A new cell; whoever fills it fills body_size bytes. *body is NULL when measuring. Offsets beyond 32 bits occur only
 * then. */
static uint32_t new_cell(writer *w, uint64_t body_size, uint8_t **body)
{
    uint64_t size = round_up(body_size + 4, REGF_CELL_ALIGN);
    if (w->end - w->used < size)
        open_bin(w, size);
    uint32_t offset = (uint32_t)w->used;
    *body = NULL;
    if (w->bins) {
        store64(w->bins + offset + size - REGF_CELL_ALIGN, 0); /* the padding */
        store32(w->bins + offset, 0u - (uint32_t)size);
        *body = w->bins + offset + 4;
    }
    w->used += size;
    return offset;
}

static uint32_t write_bytes(writer *w, const uint8_t *bytes, uint32_t size)
{
    uint8_t *body;
    uint32_t offset = new_cell(w, size, &body);
    if (body && size)
        memcpy(body, bytes, size);
    return offset;
}

static uint32_t write_big_data(writer *w, const uint8_t *data, uint32_t size)
{
    uint8_t *db, *list;
    uint32_t count = (size + REGF_SEGMENT - 1) / REGF_SEGMENT;
    uint32_t offset = new_cell(w, 8, &db), list_offset = new_cell(w, (uint64_t)count * 4, &list);
    w->too_many_segments |= count > UINT16_MAX;
    if (db) {
        memcpy(db, "db", 2);
        store16(db + 2, (uint16_t)count);
        store32(db + 4, list_offset);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *body;
        uint32_t part = size < REGF_SEGMENT ? size : REGF_SEGMENT;
        /* As Windows does, a segment has its full size and four bytes more; hivex counts on it. */
        uint32_t segment = new_cell(w, REGF_SEGMENT + 4, &body);
        if (body) {
            memcpy(body, data, part);
            memset(body + part, 0, REGF_SEGMENT + 4 - part);
            store32(list + 4 * (size_t)i, segment);
        }
        data += part;
        size -= part;
    }
    return offset;
}

static uint32_t write_value(writer *w, const hive_value *value)
{
    uint8_t *vk, small[4] = {0};
    bool tombstone = value->tombstone && w->h->layered;
    uint32_t offset = new_cell(w, VK_NAME + (uint64_t)value->name.size, &vk), size = value->data_size, data;
    if (tombstone) {
        data = REGF_NONE;
    } else if (size <= 4) {
        if (size)
            memcpy(small, value->data, size);
        data = load32(small);
        size |= VK_DATA_INLINE;
    } else {
        data = (size > REGF_SEGMENT ? write_big_data : write_bytes)(w, value->data, size);
    }
    if (!vk)
        return offset;
    memcpy(vk, "vk", 2);
    store16(vk + VK_NAME_SIZE, value->name.size);
    store32(vk + VK_DATA_SIZE, size);
    store32(vk + VK_DATA, data);
    store32(vk + VK_TYPE, value->type);
    store16(vk + VK_FLAGS, (uint16_t)((value->name.latin1 ? VK_FLAG_LATIN1 : 0) | (tombstone ? VK_FLAG_TOMBSTONE : 0)));
    store16(vk + VK_SPARE, 0);
    if (value->name.size)
        memcpy(vk + VK_NAME, value->name.bytes, value->name.size);
    return offset;
}

static uint32_t write_values(writer *w, const hive_key *key)
{
    uint8_t *list;
    if (key->value_count == 0)
        return REGF_NONE;
    uint32_t offset = new_cell(w, (uint64_t)key->value_count * 4, &list);
    for (uint32_t i = 0; i < key->value_count; i++) {
        uint32_t value = write_value(w, &key->values[i]);
        if (list)
            store32(list + 4 * (size_t)i, value);
    }
    return offset;
}

static uint32_t write_security(writer *w, uint32_t index)
{
    if (index == HIVE_NO_SECURITY)
        return REGF_NONE;
    index = w->security[index].same_as;
    security_cell *cell = &w->security[index];
    if (cell->references++)
        return cell->offset;
    uint8_t *sk;
    hive_bytes descriptor = w->h->descriptors[index];
    cell->offset = new_cell(w, SK_DESCRIPTOR + (uint64_t)descriptor.size, &sk);
    w->written[w->written_count++] = index;
    if (sk) {
        memset(sk, 0, SK_DESCRIPTOR);
        memcpy(sk, "sk", 2);
        store32(sk + SK_SIZE, (uint32_t)descriptor.size);
        if (descriptor.size)
            memcpy(sk + SK_DESCRIPTOR, descriptor.data, descriptor.size);
    }
    return cell->offset;
}

/* The security cells form a ring. */
static void link_security(const writer *w)
{
    for (uint32_t i = 0, count = w->written_count; w->bins && i < count; i++) {
        const security_cell *cell = &w->security[w->written[i]];
        uint8_t *sk = w->bins + cell->offset + 4;
        store32(sk + SK_NEXT, w->security[w->written[(i + 1) % count]].offset);
        store32(sk + SK_PREVIOUS, w->security[w->written[(i + count - 1) % count]].offset);
        store32(sk + SK_REFERENCES, cell->references);
    }
}

static uint32_t write_key(writer *w, const hive_key *key, uint32_t parent);

static uint32_t write_leaf(writer *w, hive_key *const *subkeys, uint32_t count, uint32_t parent)
{
    uint8_t *list;
    uint32_t offset = new_cell(w, 4 + (uint64_t)count * 8, &list);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t child = write_key(w, subkeys[i], parent);
        if (list) {
            store32(list + 4 + 8 * (size_t)i, child);
            store32(list + 8 + 8 * (size_t)i, hive_hash_name(&subkeys[i]->name));
        }
    }
    if (list) {
        memcpy(list, "lh", 2);
        store16(list + 2, (uint16_t)count);
    }
    return offset;
}

static uint32_t write_subkeys(writer *w, const hive_key *key, uint32_t parent)
{
    uint32_t count = key->subkey_count;
    if (count == 0)
        return REGF_NONE;
    if (count <= REGF_LIST_MAX)
        return write_leaf(w, key->subkeys, count, parent);
    uint8_t *list;
    uint32_t leaves = (count + REGF_LIST_MAX - 1) / REGF_LIST_MAX;
    uint32_t offset = new_cell(w, 4 + (uint64_t)leaves * 4, &list);
    for (uint32_t i = 0, first = 0; i < leaves; i++, first += REGF_LIST_MAX) {
        uint32_t size = count - first < REGF_LIST_MAX ? count - first : REGF_LIST_MAX;
        uint32_t leaf = write_leaf(w, key->subkeys + first, size, parent);
        if (list)
            store32(list + 4 + 4 * (size_t)i, leaf);
    }
    if (list) {
        memcpy(list, "ri", 2);
        store16(list + 2, (uint16_t)leaves);
    }
    return offset;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The "largest" fields, which size the buffers of those who enumerate. Names count as UTF-16. */
static void store_largest(uint8_t *nk, const hive_key *key)
{
    uint32_t subkey_name = 0, class_size = 0, value_name = 0, value_data = 0;
    for (uint32_t i = 0; i < key->subkey_count; i++) {
        subkey_name = larger(subkey_name, 2 * hive_name_length(&key->subkeys[i]->name));
        class_size = larger(class_size, key->subkeys[i]->class_size);
    }
    for (uint32_t i = 0; i < key->value_count; i++) {
        value_name = larger(value_name, 2 * hive_name_length(&key->values[i].name));
        value_data = larger(value_data, key->values[i].data_size);
    }
    store16(nk + NK_LARGEST_SUBKEY_NAME, subkey_name > UINT16_MAX ? UINT16_MAX : (uint16_t)subkey_name);
    store32(nk + NK_LARGEST_CLASS, class_size);
    store32(nk + NK_LARGEST_VALUE_NAME, value_name);
    store32(nk + NK_LARGEST_VALUE_DATA, value_data);
}

static uint16_t flags_of(const hive_key *key, bool root)
{
    const unsigned computed = HIVE_KEY_ROOT | HIVE_KEY_LATIN1 | HIVE_KEY_PREDEFINED;
    unsigned flags = key->flags & ~computed;
    flags |= root ? HIVE_KEY_ROOT | HIVE_KEY_NO_DELETE : 0;
    flags |= key->name.latin1 ? HIVE_KEY_LATIN1 : 0;
    return (uint16_t)(flags | (key->value_count ? 0 : key->flags & HIVE_KEY_PREDEFINED));
}

static uint32_t write_key(writer *w, const hive_key *key, uint32_t parent)
{
    uint8_t *nk;
    uint32_t offset = new_cell(w, NK_NAME + (uint64_t)key->name.size, &nk);
    uint32_t class_name = key->class_size ? write_bytes(w, key->class_name, key->class_size) : REGF_NONE;
    uint32_t security = write_security(w, key->security);
    uint32_t values = write_values(w, key);
    uint32_t subkeys = write_subkeys(w, key, offset);
    if (!nk)
        return offset;
    uint16_t flags = flags_of(key, key == w->h->root);
    memset(nk, 0, NK_NAME);
    memcpy(nk, "nk", 2);
    store16(nk + NK_FLAGS, flags);
    store64(nk + NK_LAST_WRITTEN, key->last_written);
    nk[NK_ACCESS_BITS] = key->access_bits;
    nk[NK_LAYERING] = w->h->layered ? key->layering : 0;
    store32(nk + NK_PARENT, parent);
    store32(nk + NK_SUBKEY_COUNT, key->subkey_count);
    store32(nk + NK_SUBKEY_LIST, subkeys);
    store32(nk + NK_VOLATILE_LIST, REGF_NONE);
    store32(nk + NK_VALUE_COUNT, flags & HIVE_KEY_PREDEFINED ? key->predefined_handle : key->value_count);
    store32(nk + NK_VALUE_LIST, values);
    store32(nk + NK_SECURITY, security);
    store32(nk + NK_CLASS, class_name);
    store_largest(nk, key);
    store16(nk + NK_USER_FLAGS, key->user_flags);
    store16(nk + NK_NAME_SIZE, key->name.size);
    store16(nk + NK_CLASS_SIZE, key->class_size);
    memcpy(nk + NK_NAME, key->name.bytes, key->name.size);
    return offset;
}

static int compare_descriptors(const void *a, const void *b)
{
    const hive_bytes *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return x->size ? memcmp(x->data, y->data, x->size) : 0;
}

/* Equal descriptors get one cell: the first one stands for all. */
static bool share_descriptors(writer *w)
{
    uint32_t count = w->h->descriptor_count;
    const hive_bytes *all = w->h->descriptors;
    w->security = calloc((size_t)count + 1, sizeof *w->security);
    w->written = calloc((size_t)count + 1, sizeof *w->written);
    const void **sorted = calloc((size_t)count + 1, 2 * sizeof *sorted);
    bool ok = w->security && w->written && sorted;
    for (uint32_t i = 0; ok && i < count; i++)
        sorted[i] = &all[i];
    if (ok)
        hive_sort(sorted, sorted + count, count, compare_descriptors);
    for (uint32_t i = 0, first = 0; ok && i < count; i++) {
        if (compare_descriptors(sorted[first], sorted[i]) != 0)
            first = i;
        w->security[(const hive_bytes *)sorted[i] - all].same_as = (uint32_t)((const hive_bytes *)sorted[first] - all);
    }
    free(sorted);
    return ok;
}

static void write_base(const hive *h, uint8_t *base, uint32_t root, uint32_t bins_size)
{
    memset(base, 0, REGF_BASE_BLOCK);
    memcpy(base, "regf", 4);
    store32(base + BASE_SEQUENCE1, h->sequence);
    store32(base + BASE_SEQUENCE2, h->sequence);
    store64(base + BASE_LAST_WRITTEN, h->last_written);
    store32(base + BASE_MAJOR, 1);
    store32(base + BASE_MINOR, h->layered ? REGF_MINOR_LAYERED : 5);
    store32(base + BASE_FORMAT, 1);
    store32(base + BASE_ROOT, root);
    store32(base + BASE_BINS_SIZE, bins_size);
    store32(base + BASE_CLUSTERING, 1);
    memcpy(base + BASE_FILE_NAME, h->file_name, sizeof h->file_name);
    store32(base + BASE_FLAGS, h->layered ? REGF_FLAG_LAYERED : 0);
    store32(base + BASE_CHECKSUM, regf_checksum(base));
}

int hive_write(const hive *h, uint8_t *out, size_t capacity, size_t *size, hive_error *error)
{
    writer w = {.h = h};
    int code = HIVE_OK;
    *size = 0;
    if (capacity >= REGF_BASE_BLOCK) {
        w.bins = out + REGF_BASE_BLOCK;
        w.capacity = capacity - REGF_BASE_BLOCK;
    }
    if (share_descriptors(&w)) {
        /* The parent of the root means nothing. */
        uint32_t root = write_key(&w, h->root, 0);
        close_bin(&w);
        link_security(&w);
        *size = REGF_BASE_BLOCK + (size_t)w.end;
        if (w.end > INT32_MAX) /* offsets with the top bit set lead to volatile storage */
            code = hive_fail(error, HIVE_TOO_LARGE, HIVE_NO_OFFSET, "the hive would exceed 2 GiB");
        else if (w.too_many_segments)
            code = hive_fail(error, HIVE_TOO_LARGE, HIVE_NO_OFFSET, "the data of a value would exceed 1 GiB");
        else if (w.bins)
            write_base(h, out, root, (uint32_t)w.end);
    } else {
        code = hive_no_memory(error);
    }
    free(w.security);
    free(w.written);
    return code;
}
