#include "format.h"
#include "internal.h"

#include <stdlib.h>

enum { PAGE = 4096, PAGE_UNITS = PAGE / REGF_CELL_ALIGN };

typedef struct reader {
    hive *h;
    const uint8_t *bins;
    uint32_t size;          /* of the bins */
    uint64_t *claimed;      /* one bit for each 8 bytes of the bins that have an owner */
    uint32_t **descriptors; /* by page, then by cell offset / 8 in it: index in hive.descriptors + 1; NULL for most */
    hive_error *error;
} reader;

typedef struct cell {
    const uint8_t *body;
    uint32_t size; /* of the body */
} cell;

static int corrupt(const reader *r, uint64_t offset, const char *reason)
{
    return hive_fail(r->error, HIVE_CORRUPT, REGF_BASE_BLOCK + offset, reason);
}

static uint64_t offset_of(const reader *r, const void *p)
{
    return (uint64_t)((const uint8_t *)p - r->bins);
}

/* Both ends are multiples of 8 inside the bins. False: part of it has an owner already. */
static bool claim(reader *r, uint32_t offset, uint32_t size)
{
    uint32_t first = offset / REGF_CELL_ALIGN, end = first + size / REGF_CELL_ALIGN;
    while (first < end) {
        uint32_t bit = first % 64, count = 64 - bit < end - first ? 64 - bit : end - first;
        uint64_t mask = (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1) << bit;
        if (r->claimed[first / 64] & mask)
            return false;
        r->claimed[first / 64] |= mask;
        first += count;
    }
    return true;
}

/* Takes the cell at offset, which must be in use, nobody else's, and have need bytes. */
static int take_cell(reader *r, uint32_t offset, uint32_t need, cell *out)
{
    *out = (cell){r->bins, 0};
    if (offset % REGF_CELL_ALIGN || offset > r->size || r->size - offset < REGF_CELL_ALIGN)
        return corrupt(r, offset, "a reference leads out of the hive bins or to no cell");
    uint32_t raw = load32(r->bins + offset), size = 0u - raw;
    if (raw < 0x80000000u)
        return corrupt(r, offset, "a reference leads to a free cell");
    if (size < REGF_CELL_ALIGN || size % REGF_CELL_ALIGN || size > r->size - offset)
        return corrupt(r, offset, "the size of a cell is wrong");
    if (size - 4 < need)
        return corrupt(r, offset, "a cell is too small for what it should hold");
    if (!claim(r, offset, size))
        return corrupt(r, offset, "a cell belongs to two owners");
    *out = (cell){r->bins + offset + 4, size - 4};
    return HIVE_OK;
}

/* Windows reads longer names than it lets anyone create, so their length is bounded by their cells alone. */
static int check_name(const reader *r, hive_name name)
{
    if (!name.latin1 && name.size % 2)
        return corrupt(r, offset_of(r, name.bytes), "a UTF-16 name has an odd number of bytes");
    return HIVE_OK;
}

/* Big data is put together in the arena; all other data stays in the file's buffer. */
static int read_big_data(reader *r, uint32_t offset, hive_value *value)
{
    cell db, list, segment;
    uint32_t count = (value->data_size + REGF_SEGMENT - 1) / REGF_SEGMENT;
    int code = take_cell(r, offset, 8, &db);
    if (code)
        return code;
    if (!has_signature(db.body, "db", 2) || load16(db.body + 2) != count)
        return corrupt(r, offset, "a big data record is malformed");
    code = take_cell(r, load32(db.body + 4), count * 4, &list);
    if (code)
        return code;
    if (value->data_size > r->size)
        return corrupt(r, offset, "big data exceeds the hive");
    uint8_t *data = hive_alloc(&r->h->arena, value->data_size);
    if (!data)
        return hive_no_memory(r->error);
    value->data = data;
    for (uint32_t i = 0, left = value->data_size; i < count; i++) {
        uint32_t part = left < REGF_SEGMENT ? left : REGF_SEGMENT;
        code = take_cell(r, load32(list.body + 4 * (size_t)i), part, &segment);
        if (code)
            return code;
        memcpy(data, segment.body, part);
        data += part;
        left -= part;
    }
    return HIVE_OK;
}

static int read_value(reader *r, uint32_t offset, hive_value *value)
{
    cell vk, data;
    int code = take_cell(r, offset, VK_NAME, &vk);
    if (code)
        return code;
    uint16_t flags = load16(vk.body + VK_FLAGS);
    *value = (hive_value){
        .name = {vk.body + VK_NAME, load16(vk.body + VK_NAME_SIZE), flags & VK_FLAG_LATIN1},
        .data = vk.body + VK_DATA,
        .data_size = load32(vk.body + VK_DATA_SIZE),
        .type = load32(vk.body + VK_TYPE),
        .tombstone = r->h->layered && flags & VK_FLAG_TOMBSTONE,
    };
    if (!has_signature(vk.body, "vk", 2))
        return corrupt(r, offset, "a value cell has no signature");
    if (value->name.size > vk.size - VK_NAME)
        return corrupt(r, offset, "a value name exceeds its cell");
    code = check_name(r, value->name);
    if (code)
        return code;
    value->fingerprint = hive_fingerprint(&value->name);
    if (value->tombstone) { /* whatever data it names means nothing */
        value->data_size = 0;
        return HIVE_OK;
    }
    if (value->data_size & VK_DATA_INLINE) {
        value->data_size &= ~VK_DATA_INLINE;
        return value->data_size > 4 ? corrupt(r, offset, "inline data exceeds four bytes") : HIVE_OK;
    }
    if (value->data_size == 0)
        return HIVE_OK;
    if (value->data_size > REGF_SEGMENT && r->h->minor_version > 3)
        return read_big_data(r, load32(vk.body + VK_DATA), value);
    code = take_cell(r, load32(vk.body + VK_DATA), value->data_size, &data);
    value->data = data.body;
    return code;
}

static int read_values(reader *r, const uint8_t *nk, hive_key *key)
{
    uint32_t count = load32(nk + NK_VALUE_COUNT), offset = load32(nk + NK_VALUE_LIST);
    if (key->flags & HIVE_KEY_PREDEFINED) {
        key->predefined_handle = count;
        return HIVE_OK;
    }
    if (count == 0)
        return HIVE_OK;
    if (count > r->size / VK_NAME)
        return corrupt(r, offset_of(r, nk), "a key has more values than the hive has room for");
    cell list;
    int code = take_cell(r, offset, count * 4, &list);
    if (code)
        return code;
    key->values = hive_alloc(&r->h->arena, count * sizeof *key->values);
    if (!key->values)
        return hive_no_memory(r->error);
    key->value_capacity = count;
    for (uint32_t i = 0; i < count; i++) {
        code = read_value(r, load32(list.body + 4 * (size_t)i), &key->values[i]);
        if (code)
            return code;
    }
    key->value_count = count;
    const hive_value *twice;
    if (!hive_check_values(key, &twice))
        return hive_no_memory(r->error);
    return twice ? corrupt(r, offset_of(r, twice->name.bytes), "a value name stands twice in a key") : HIVE_OK;
}

static int read_security(reader *r, uint32_t offset, uint32_t *index)
{
    *index = HIVE_NO_SECURITY;
    if (offset == REGF_NONE)
        return HIVE_OK;
    bool possible = offset < r->size && offset % REGF_CELL_ALIGN == 0;
    uint32_t unit = offset % PAGE / REGF_CELL_ALIGN, **page = &r->descriptors[possible ? offset / PAGE : 0];
    if (possible && *page && (*page)[unit]) {
        *index = (*page)[unit] - 1;
        return HIVE_OK;
    }
    cell sk;
    int code = take_cell(r, offset, SK_DESCRIPTOR, &sk);
    if (code)
        return code;
    uint32_t size = load32(sk.body + SK_SIZE);
    if (!has_signature(sk.body, "sk", 2) || size > sk.size - SK_DESCRIPTOR)
        return corrupt(r, offset, "a security cell is malformed");
    if (!*page)
        *page = calloc(PAGE_UNITS, sizeof **page);
    if (!*page)
        return hive_no_memory(r->error);
    code = hive_add_descriptor(r->h, (hive_bytes){sk.body + SK_DESCRIPTOR, size}, index, r->error);
    if (code == HIVE_OK)
        (*page)[unit] = *index + 1;
    return code;
}

static int read_class(reader *r, const uint8_t *nk, hive_key *key)
{
    uint32_t offset = load32(nk + NK_CLASS);
    key->class_size = offset == REGF_NONE ? 0 : load16(nk + NK_CLASS_SIZE); /* a size may be left without a cell */
    if (key->class_size == 0)
        return HIVE_OK;
    cell name;
    int code = take_cell(r, offset, key->class_size, &name);
    key->class_name = name.body;
    return code;
}

static int read_key(reader *r, uint32_t offset, int depth, hive_key **out);

/* An entry of a list: its offset is the first four bytes. *stride is 0 for a list of lists. */
static int take_list(reader *r, uint32_t offset, cell *list, uint32_t *count, uint32_t *stride)
{
    int code = take_cell(r, offset, 4, list);
    if (code)
        return code;
    *count = load16(list->body + 2);
    if (has_signature(list->body, "lh", 2) || has_signature(list->body, "lf", 2))
        *stride = 8;
    else if (has_signature(list->body, "li", 2))
        *stride = 4;
    else if (has_signature(list->body, "ri", 2))
        *stride = 0;
    else
        return corrupt(r, offset, "a subkey list has no signature");
    if (*count * (*stride ? *stride : 4) > list->size - 4)
        return corrupt(r, offset, "a subkey list exceeds its cell");
    return HIVE_OK;
}

static int read_leaf(reader *r, uint64_t place, const cell *list, uint32_t count, uint32_t stride, int depth,
                     hive_key *key)
{
    if (count > key->subkey_capacity - key->subkey_count)
        return corrupt(r, place, "the subkey lists of a key hold more than its count says");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t offset = load32(list->body + 4 + (size_t)i * stride);
        int code = read_key(r, offset, depth, &key->subkeys[key->subkey_count]);
        if (code)
            return code;
        key->subkey_count++;
    }
    return HIVE_OK;
}

static int read_lists(reader *r, uint32_t offset, int depth, hive_key *key)
{
    cell list, leaf;
    uint32_t count, stride, leaf_count;
    int code = take_list(r, offset, &list, &count, &stride);
    if (code)
        return code;
    if (stride)
        return read_leaf(r, offset, &list, count, stride, depth, key);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t leaf_offset = load32(list.body + 4 + 4 * (size_t)i);
        code = take_list(r, leaf_offset, &leaf, &leaf_count, &stride);
        if (code)
            return code;
        if (!stride)
            return corrupt(r, leaf_offset, "a list of subkey lists holds another one of its kind");
        code = read_leaf(r, leaf_offset, &leaf, leaf_count, stride, depth, key);
        if (code)
            return code;
    }
    return HIVE_OK;
}

static int read_subkeys(reader *r, const uint8_t *nk, int depth, hive_key *key)
{
    uint32_t count = load32(nk + NK_SUBKEY_COUNT);
    uint64_t place = offset_of(r, nk);
    if (count == 0)
        return HIVE_OK;
    if (depth == HIVE_MAX_DEPTH)
        return corrupt(r, place, "keys nest too deeply");
    if (count > r->size / NK_NAME)
        return corrupt(r, place, "a key has more subkeys than the hive has room for");
    key->subkeys = hive_alloc(&r->h->arena, count * sizeof *key->subkeys);
    if (!key->subkeys)
        return hive_no_memory(r->error);
    key->subkey_capacity = count;
    int code = read_lists(r, load32(nk + NK_SUBKEY_LIST), depth + 1, key);
    if (code)
        return code;
    if (key->subkey_count != count)
        return corrupt(r, place, "the subkey lists of a key hold less than its count says");
    const hive_key *twice;
    if (!hive_order_subkeys(key, &twice))
        return hive_no_memory(r->error);
    return twice ? corrupt(r, offset_of(r, twice->name.bytes), "a subkey name stands twice in a key") : HIVE_OK;
}

static int read_key(reader *r, uint32_t offset, int depth, hive_key **out)
{
    cell nk;
    int code = take_cell(r, offset, NK_NAME, &nk);
    if (code)
        return code;
    if (!has_signature(nk.body, "nk", 2))
        return corrupt(r, offset, "a key cell has no signature");
    hive_key *key = *out = hive_alloc(&r->h->arena, sizeof *key);
    if (!key)
        return hive_no_memory(r->error);
    uint16_t flags = load16(nk.body + NK_FLAGS);
    *key = (hive_key){
        .name = {nk.body + NK_NAME, load16(nk.body + NK_NAME_SIZE), flags & HIVE_KEY_LATIN1},
        .last_written = load64(nk.body + NK_LAST_WRITTEN),
        .flags = flags,
        .user_flags = load16(nk.body + NK_USER_FLAGS),
        .access_bits = nk.body[NK_ACCESS_BITS],
        .layering = r->h->layered ? nk.body[NK_LAYERING] : 0, /* else a spare byte */
    };
    if (key->name.size > nk.size - NK_NAME || (key->name.size == 0 && depth > 0))
        return corrupt(r, offset, "a key name is empty or exceeds its cell");
    code = check_name(r, key->name);
    key->prefix = code ? 0 : hive_name_prefix(&key->name);
    if (code == HIVE_OK)
        code = read_class(r, nk.body, key);
    if (code == HIVE_OK)
        code = read_security(r, load32(nk.body + NK_SECURITY), &key->security);
    if (code == HIVE_OK)
        code = read_values(r, nk.body, key);
    return code ? code : read_subkeys(r, nk.body, depth, key);
}

/* The headers of the bins become nobody's, so that no cell can reach over one. */
static int check_bins(reader *r)
{
    for (uint32_t offset = 0; offset < r->size;) {
        const uint8_t *bin = r->bins + offset;
        uint32_t size = load32(bin + 8);
        if (!has_signature(bin, "hbin", 4) || load32(bin + 4) != offset || size == 0 || size % REGF_BIN_ALIGN ||
            size > r->size - offset)
            return corrupt(r, offset, "a hive bin is malformed");
        claim(r, offset, REGF_BIN_HEADER);
        offset += size;
    }
    return HIVE_OK;
}

/* Layered keys came with version 1.6: up to 1.5 the same flag says that the hive was defragmented. */
static bool says_layered(const uint8_t *base)
{
    return load32(base + BASE_MINOR) >= REGF_MINOR_LAYERED && load32(base + BASE_FLAGS) & REGF_FLAG_LAYERED;
}

/* *bins_size is read once, here: the buffer is the caller's. */
static int check_base(hive_bytes file, uint32_t *bins_size, hive_error *error)
{
    const uint8_t *base = file.data;
    if (file.size < REGF_BASE_BLOCK)
        return hive_fail(error, HIVE_CORRUPT, file.size, "the file ends inside the base block");
    if (!has_signature(base, "regf", 4))
        return hive_fail(error, HIVE_CORRUPT, 0, "not a registry hive");
    if (load32(base + BASE_CHECKSUM) != regf_checksum(base))
        return hive_fail(error, HIVE_CORRUPT, BASE_CHECKSUM, "the checksum of the base block is wrong");
    uint32_t minor = load32(base + BASE_MINOR), size = *bins_size = load32(base + BASE_BINS_SIZE);
    if (load32(base + BASE_MAJOR) != 1 || minor < 3 || minor > 6)
        return hive_fail(error, HIVE_CORRUPT, BASE_MAJOR, "not a version from 1.3 to 1.6");
    if (load32(base + BASE_FORMAT) != 1)
        return hive_fail(error, HIVE_CORRUPT, BASE_FORMAT, "unknown hive format");
    if (size == 0 || size % REGF_BIN_ALIGN || size > INT32_MAX)
        return hive_fail(error, HIVE_CORRUPT, BASE_BINS_SIZE, "the size of the hive bins is wrong");
    if (size > file.size - REGF_BASE_BLOCK)
        return hive_fail(error, HIVE_CORRUPT, file.size, "the file ends inside the hive bins");
    return HIVE_OK;
}

static int read_tree(hive *h, hive_bytes file, hive_error *error)
{
    uint32_t bins_size = 0;
    int code = check_base(file, &bins_size, error);
    if (code)
        return code;
    const uint8_t *base = file.data;
    h->minor_version = load32(base + BASE_MINOR);
    h->sequence = load32(base + BASE_SEQUENCE1);
    h->last_written = load64(base + BASE_LAST_WRITTEN);
    h->source_size = file.size;
    h->arena.size = file.size / 8; /* so that the first chunk, twice that, is large enough for huge pages */
    h->layered = says_layered(base);
    h->dirty = h->sequence != load32(base + BASE_SEQUENCE2);
    memcpy(h->file_name, base + BASE_FILE_NAME, sizeof h->file_name);
    reader r = {.h = h, .bins = base + REGF_BASE_BLOCK, .size = bins_size, .error = error};
    uint32_t pages = r.size / PAGE;
    r.claimed = calloc(pages + 1, PAGE_UNITS / 8);
    r.descriptors = calloc(pages, sizeof *r.descriptors);
    code = r.claimed && r.descriptors ? check_bins(&r) : hive_no_memory(error);
    if (code == HIVE_OK)
        code = read_key(&r, load32(base + BASE_ROOT), 0, &h->root);
    for (uint32_t i = 0; r.descriptors && i < pages; i++)
        free(r.descriptors[i]);
    free(r.claimed);
    free(r.descriptors);
    return code;
}

int hive_read(hive_bytes file, const hive_bytes *logs, size_t log_count, hive **out, hive_error *error)
{
    *out = NULL;
    hive *h = calloc(1, sizeof *h);
    if (!h)
        return hive_no_memory(error);
    size_t size = 0;
    int code = hive_recover(file, logs, log_count, &h->recovered, &size, error);
    if (code == HIVE_OK)
        code = read_tree(h, h->recovered ? (hive_bytes){h->recovered, size} : file, error);
    if (code) {
        hive_destroy(h);
        return code;
    }
    *out = h;
    return HIVE_OK;
}
