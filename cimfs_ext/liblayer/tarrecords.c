#include "tarparts.h"

#include <stdlib.h>

void layer_tar_free_records(struct layer_pax *pax)
{
    free(pax->eas);
    free(pax->text);
    memset(pax, 0, sizeof *pax);
}

void layer_tar_reset_records(struct layer_pax *pax)
{
    struct layer_pax kept = {
        .eas = pax->eas, .ea_capacity = pax->ea_capacity, .text = pax->text, .text_capacity = pax->text_capacity};
    *pax = kept;
}

#define KEY(text, member) {text, sizeof text - 1, offsetof(struct layer_pax, member)}
static const struct {
    const char *key;
    size_t size;
    size_t field;
} KEYS[] = {
    KEY("path", path),
    KEY("linkpath", link_path),
    KEY("size", size),
    KEY("mtime", mtime),
    KEY("atime", atime),
    KEY("ctime", ctime),
    KEY("LIBARCHIVE.creationtime", creation_time),
    KEY("MSWINDOWS.fileattr", attributes),
    KEY("MSWINDOWS.rawsd", raw_descriptor),
    KEY("MSWINDOWS.sd", sddl),
    KEY("MSWINDOWS.mountpoint", mount_point),
    KEY("CIMLAYER.reparse", raw_reparse),
    KEY("CIMLAYER.ea", raw_eas),
    KEY("GNU.sparse.major", sparse_major),
    KEY("GNU.sparse.minor", sparse_minor),
    KEY("GNU.sparse.name", sparse_name),
    KEY("GNU.sparse.size", sparse_size),
    KEY("GNU.sparse.realsize", sparse_real_size),
    KEY("GNU.sparse.map", sparse_map),
};
static const char EA_PREFIX[] = "MSWINDOWS.xattr.";
static const char SPARSE_OFFSET[] = "GNU.sparse.offset", SPARSE_SIZE[] = "GNU.sparse.numbytes";

static int add_ea(struct layer_ea **eas, size_t *count, size_t *capacity, struct layer_ea ea)
{
    if (*count == *capacity) {
        size_t grown = *capacity ? *capacity * 2 : 16;
        struct layer_ea *list = realloc(*eas, grown * sizeof *list);
        if (!list)
            return -1;
        *eas = list;
        *capacity = grown;
    }
    (*eas)[*count] = ea;
    (*eas)[*count].order = *count;
    (*count)++;
    return 0;
}

static int is_key(struct layer_slice key, const char *name)
{
    return strlen(name) == key.size && memcmp(name, key.data, key.size) == 0;
}

/* No list of 65,535 bytes holds more: header, a name of one byte and its NUL, a value of one byte. */
enum { MAX_EAS = 65535 / 12 };

static int take_record(struct layer_tar *tar, struct layer_pax *pax, struct layer_slice key, struct layer_slice value)
{
    size_t prefix = sizeof EA_PREFIX - 1;
    if (key.size > prefix && memcmp(key.data, EA_PREFIX, prefix) == 0) {
        if (pax->ea_count == MAX_EAS)
            return layer_tar_fail(tar, "more extended attributes than a list of 65,535 bytes holds");
        struct layer_ea ea = {{key.data + prefix, key.size - prefix}, value, 0};
        if (add_ea(&pax->eas, &pax->ea_count, &pax->ea_capacity, ea) < 0)
            return layer_tar_fail(tar, "out of memory");
        return 0;
    }
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        if (KEYS[i].size == key.size && memcmp(KEYS[i].key, key.data, key.size) == 0) {
            memcpy((char *)pax + KEYS[i].field, &value, sizeof value);
            return 0;
        }
    }
    /* A map is that of one file. */
    if (pax == &tar->local && (is_key(key, SPARSE_OFFSET) || is_key(key, SPARSE_SIZE)))
        return layer_tar_sparse_record(tar, is_key(key, SPARSE_SIZE), value);
    return 0;
}

int layer_tar_parse_records(struct layer_tar *tar, struct layer_pax *pax)
{
    const char *text = pax->text;
    size_t left = pax->text_size;
    while (left > 0) {
        size_t digits = 0;
        uint64_t length;
        while (digits < left && digits < 20 && text[digits] != ' ')
            digits++;
        if (digits == left || text[digits] != ' ' ||
            layer_tar_decimal((struct layer_slice){text, digits}, &length) < 0 || length > left ||
            length < digits + 3 || text[length - 1] != '\n')
            return layer_tar_fail(tar, "a malformed PAX record");
        struct layer_slice key = {text + digits + 1, 0};
        const char *equals = memchr(key.data, '=', (size_t)length - digits - 2);
        if (!equals)
            return layer_tar_fail(tar, "a PAX record without a key");
        key.size = (size_t)(equals - key.data);
        struct layer_slice value = {equals + 1, (size_t)(text + length - 1 - (equals + 1))};
        if (take_record(tar, pax, key, value) < 0)
            return -1;
        text += length;
        left -= (size_t)length;
    }
    return 0;
}

/* The value as it will stand in the text that begins at *to, which advances. */
static struct layer_slice moved(struct layer_slice value, char **to)
{
    struct layer_slice copy = {*to, value.size};
    if (value.size)
        memcpy(*to, value.data, value.size);
    *to += value.size;
    return value.data ? copy : value;
}

int layer_tar_merge_eas(struct layer_tar *tar, const struct layer_pax *first, struct layer_pax *later)
{
    size_t i = 0, k = 0;
    if (later->ea_count > 0)
        qsort(later->eas, later->ea_count, sizeof *later->eas, layer_ea_compare);
    tar->ea_count = 0;
    while (i < first->ea_count || k < later->ea_count) {
        int from_later =
            i == first->ea_count || (k < later->ea_count && layer_ea_compare_names(&later->eas[k], &first->eas[i]) < 0);
        struct layer_ea ea = from_later ? later->eas[k++] : first->eas[i++];
        if (add_ea(&tar->eas, &tar->ea_count, &tar->ea_capacity, ea) < 0)
            return layer_tar_fail(tar, "out of memory");
    }
    return 0;
}

int layer_tar_merge_globals(struct layer_tar *tar)
{
    struct layer_pax *global = &tar->global, *later = &tar->incoming;
    size_t total = 0;
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        struct layer_slice *known = (struct layer_slice *)(void *)((char *)global + KEYS[i].field);
        const struct layer_slice *said = (const struct layer_slice *)(const void *)((char *)later + KEYS[i].field);
        if (said->data)
            *known = *said;
        total += known->size;
    }
    if (layer_tar_merge_eas(tar, global, later) < 0)
        return -1;
    global->ea_count = 0;
    for (size_t i = 0; i < tar->ea_count; i++) {
        int hidden = i + 1 < tar->ea_count && layer_ea_compare_names(&tar->eas[i], &tar->eas[i + 1]) == 0;
        if (hidden || tar->eas[i].value.size == 0)
            continue;
        if (add_ea(&global->eas, &global->ea_count, &global->ea_capacity, tar->eas[i]) < 0)
            return layer_tar_fail(tar, "out of memory");
        total += sizeof EA_PREFIX + tar->eas[i].name.size + tar->eas[i].value.size;
    }
    if (total > LAYER_TAR_MAX_GLOBALS)
        return layer_tar_fail(tar, "global PAX records of more than 8,192 bytes");
    char *text = malloc(total + 1), *to = text;
    if (!text)
        return layer_tar_fail(tar, "out of memory");
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        struct layer_slice *known = (struct layer_slice *)(void *)((char *)global + KEYS[i].field);
        *known = moved(*known, &to);
    }
    for (size_t i = 0; i < global->ea_count; i++) {
        global->eas[i].name = moved(global->eas[i].name, &to);
        global->eas[i].value = moved(global->eas[i].value, &to);
    }
    free(global->text);
    global->text = text;
    return 0;
}
