#include "tar.h"

#include <stdlib.h>
#include <string.h>

enum state { HEADER, RECORDS, RECORDS_PADDING, DATA, DATA_PADDING, DONE };

/* Where the fields stand in a header block: offset and width. */
struct field {
    uint16_t offset, width;
};
static const struct field NAME = {0, 100}, SIZE = {124, 12}, MTIME = {136, 12}, CHECKSUM = {148, 8}, LINK = {157, 100},
                          PREFIX = {345, 155}, GNU_ATIME = {345, 12}, GNU_CTIME = {357, 12};
enum { TYPE_OFFSET = 156, MAGIC_OFFSET = 257 };

static const int64_t UNIX_EPOCH = 116444736000000000; /* 1970-01-01 as a FILETIME */
static const int64_t TICKS = 10000000;                /* FILETIME units in a second */

void layer_tar_init(struct layer_tar *tar)
{
    memset(tar, 0, sizeof *tar);
    tar->state = HEADER;
    tar->entry_offset = UINT64_MAX;
}

static void cleanup_pax(struct layer_pax *pax)
{
    free(pax->eas);
    free(pax->text);
    memset(pax, 0, sizeof *pax);
}

void layer_tar_cleanup(struct layer_tar *tar)
{
    cleanup_pax(&tar->local);
    cleanup_pax(&tar->global);
    cleanup_pax(&tar->incoming);
    cleanup_pax(&tar->long_name);
    cleanup_pax(&tar->long_link);
    free(tar->eas);
    tar->eas = NULL;
}

/* Forget what the records said but keep the memory. */
static void reset_pax(struct layer_pax *pax)
{
    struct layer_pax kept = {
        .eas = pax->eas, .ea_capacity = pax->ea_capacity, .text = pax->text, .text_capacity = pax->text_capacity};
    *pax = kept;
}

static int fail(struct layer_tar *tar, const char *reason)
{
    tar->reason = reason;
    return -1;
}

/* ---- numbers ---- */

static int parse_base256(const uint8_t *field, size_t width, int64_t *value)
{
    /* The first bit marks the form, the second is the sign. */
    int negative = field[0] & 0x40;
    uint64_t result = negative ? UINT64_MAX : 0;
    for (size_t i = 0; i < width; i++) {
        uint8_t byte = i == 0 ? (uint8_t)(negative ? field[0] | 0x80 : field[0] & 0x7F) : field[i];
        uint8_t top = (uint8_t)(result >> 56);
        if (top != (negative ? 0xFF : 0))
            return -1;
        result = result << 8 | byte;
    }
    if ((result >> 63) != (negative ? 1u : 0u))
        return -1;
    memcpy(value, &result, sizeof result);
    return 0;
}

static int parse_number(const uint8_t *block, struct field field, int64_t *value)
{
    const uint8_t *text = block + field.offset;
    size_t i = 0;
    uint64_t result = 0;
    *value = 0;
    if (text[0] & 0x80)
        return parse_base256(text, field.width, value);
    while (i < field.width && text[i] == ' ')
        i++;
    for (; i < field.width && text[i] >= '0' && text[i] <= '7'; i++)
        result = result * 8 + (uint64_t)(text[i] - '0'); /* 12 digits cannot overflow */
    for (; i < field.width; i++)
        if (text[i] != ' ' && text[i] != 0)
            return -1;
    *value = (int64_t)result;
    return 0;
}

static int parse_decimal(struct layer_slice text, uint64_t *value)
{
    *value = 0;
    if (text.size == 0)
        return -1;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
        uint64_t digit = (uint64_t)(text.data[i] - '0');
        if (*value > (UINT64_MAX - digit) / 10)
            return -1;
        *value = *value * 10 + digit;
    }
    return 0;
}

static int filetime_from(int64_t seconds, int64_t ticks, int64_t *filetime)
{
    if (seconds > (INT64_MAX - UNIX_EPOCH) / TICKS - 1 || seconds < (INT64_MIN + UNIX_EPOCH) / TICKS + 1)
        return -1;
    int64_t time = UNIX_EPOCH + seconds * TICKS + ticks;
    if (time < 0)
        return -1;
    *filetime = time;
    return 0;
}

int layer_tar_time(struct layer_slice text, int64_t *filetime)
{
    int negative = text.size > 0 && text.data[0] == '-';
    size_t start = (size_t)negative, dot = start;
    uint64_t seconds;
    int64_t ticks = 0, unit = TICKS;
    while (dot < text.size && text.data[dot] != '.')
        dot++;
    if (parse_decimal((struct layer_slice){text.data + start, dot - start}, &seconds) < 0 || seconds > INT64_MAX)
        return -1;
    for (size_t i = dot + 1; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
        unit /= 10; /* digits beyond 100 ns are cut */
        ticks += (text.data[i] - '0') * unit;
    }
    return negative ? filetime_from(-(int64_t)seconds, -ticks, filetime)
                    : filetime_from((int64_t)seconds, ticks, filetime);
}

/* ---- PAX records ---- */

static const struct {
    const char *key;
    size_t field;
} KEYS[] = {
    {"path", offsetof(struct layer_pax, path)},
    {"linkpath", offsetof(struct layer_pax, link_path)},
    {"size", offsetof(struct layer_pax, size)},
    {"mtime", offsetof(struct layer_pax, mtime)},
    {"atime", offsetof(struct layer_pax, atime)},
    {"ctime", offsetof(struct layer_pax, ctime)},
    {"LIBARCHIVE.creationtime", offsetof(struct layer_pax, creation_time)},
    {"MSWINDOWS.fileattr", offsetof(struct layer_pax, attributes)},
    {"MSWINDOWS.rawsd", offsetof(struct layer_pax, raw_descriptor)},
    {"MSWINDOWS.sd", offsetof(struct layer_pax, sddl)},
    {"MSWINDOWS.mountpoint", offsetof(struct layer_pax, mount_point)},
    {"GNU.sparse.major", offsetof(struct layer_pax, sparse)},
    {"GNU.sparse.size", offsetof(struct layer_pax, sparse)},
};
static const char EA_PREFIX[] = "MSWINDOWS.xattr.";

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

/* No list of 65,535 bytes holds more: header, a name of one byte and its NUL, a value of one byte. */
enum { MAX_EAS = 65535 / 12 };

static int take_record(struct layer_tar *tar, struct layer_pax *pax, struct layer_slice key, struct layer_slice value)
{
    size_t prefix = sizeof EA_PREFIX - 1;
    if (key.size > prefix && memcmp(key.data, EA_PREFIX, prefix) == 0) {
        if (pax->ea_count == MAX_EAS)
            return fail(tar, "more extended attributes than a list of 65,535 bytes holds");
        struct layer_ea ea = {{key.data + prefix, key.size - prefix}, value, 0};
        if (add_ea(&pax->eas, &pax->ea_count, &pax->ea_capacity, ea) < 0)
            return fail(tar, "out of memory");
        return 0;
    }
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        if (strlen(KEYS[i].key) == key.size && memcmp(KEYS[i].key, key.data, key.size) == 0) {
            memcpy((char *)pax + KEYS[i].field, &value, sizeof value);
            return 0;
        }
    }
    return 0;
}

/* "LENGTH KEY=VALUE\n", one after the other. */
static int parse_records(struct layer_tar *tar, struct layer_pax *pax)
{
    const char *text = pax->text;
    size_t left = pax->text_size;
    while (left > 0) {
        size_t digits = 0;
        uint64_t length;
        while (digits < left && digits < 20 && text[digits] != ' ')
            digits++;
        if (digits == left || text[digits] != ' ' || parse_decimal((struct layer_slice){text, digits}, &length) < 0 ||
            length > left || length < digits + 3 || text[length - 1] != '\n')
            return fail(tar, "a malformed PAX record");
        struct layer_slice key = {text + digits + 1, 0};
        const char *equals = memchr(key.data, '=', (size_t)length - digits - 2);
        if (!equals)
            return fail(tar, "a PAX record without a key");
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

/* Both lists as one in tar->eas, in order. Those that came first are in order: they come again with every entry. */
static int merge_eas(struct layer_tar *tar, const struct layer_pax *first, struct layer_pax *later)
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
            return fail(tar, "out of memory");
    }
    return 0;
}

/* What a global header says holds until a later one says otherwise: keep what still counts, in a text of its own. */
static int merge_globals(struct layer_tar *tar)
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
    if (merge_eas(tar, global, later) < 0)
        return -1;
    global->ea_count = 0;
    for (size_t i = 0; i < tar->ea_count; i++) {
        int hidden = i + 1 < tar->ea_count && layer_ea_compare_names(&tar->eas[i], &tar->eas[i + 1]) == 0;
        if (hidden || tar->eas[i].value.size == 0)
            continue;
        if (add_ea(&global->eas, &global->ea_count, &global->ea_capacity, tar->eas[i]) < 0)
            return fail(tar, "out of memory");
        total += sizeof EA_PREFIX + tar->eas[i].name.size + tar->eas[i].value.size;
    }
    if (total > LAYER_TAR_MAX_GLOBALS)
        return fail(tar, "global PAX records of more than 8,192 bytes");
    char *text = malloc(total + 1), *to = text;
    if (!text)
        return fail(tar, "out of memory");
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        struct layer_slice *known = (struct layer_slice *)(void *)((char *)global + KEYS[i].field);
        if (i == 0 || KEYS[i].field != KEYS[i - 1].field)
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

/* ---- headers ---- */

static struct layer_slice text_field(const uint8_t *block, struct field field)
{
    const char *text = (const char *)block + field.offset;
    const char *end = memchr(text, 0, field.width);
    return (struct layer_slice){text, end ? (size_t)(end - text) : field.width};
}

static int checksum_fits(const uint8_t *block)
{
    int64_t expected;
    uint32_t sum = 0, negative = 0; /* of unsigned characters; how many are negative as signed ones */
    if (parse_number(block, CHECKSUM, &expected) < 0)
        return 0;
    for (uint32_t i = 0; i < LAYER_TAR_BLOCK; i++) {
        sum += block[i];
        negative += block[i] >> 7;
    }
    for (uint32_t i = CHECKSUM.offset; i < CHECKSUM.offset + CHECKSUM.width; i++) { /* this field counts as spaces */
        sum += ' ' - (uint32_t)block[i];
        negative -= block[i] >> 7;
    }
    /* Some old writers summed signed characters. */
    return expected == (int64_t)sum || expected == (int64_t)sum - 256 * (int64_t)negative;
}

/* A record of the file, else the global one; an empty value cancels both. */
static struct layer_slice pick(const struct layer_tar *tar, size_t field)
{
    struct layer_slice local, global;
    memcpy(&local, (const char *)&tar->local + field, sizeof local);
    memcpy(&global, (const char *)&tar->global + field, sizeof global);
    struct layer_slice chosen = local.data ? local : global;
    return chosen.size ? chosen : (struct layer_slice){NULL, 0};
}
#define PICK(tar, name) pick(tar, offsetof(struct layer_pax, name))

static int pick_time(struct layer_tar *tar, struct layer_slice text, int64_t otherwise, int64_t *time)
{
    *time = otherwise;
    if (text.data && layer_tar_time(text, time) < 0)
        return fail(tar, "a time that is malformed or out of range");
    return 0;
}

/* GNU headers may carry two more times; zero, or what is no number, means that they do not. */
static int gnu_time(const uint8_t *block, struct field field, int64_t *time)
{
    int64_t seconds;
    if (parse_number(block, field, &seconds) < 0 || seconds == 0)
        return 0;
    return filetime_from(seconds, 0, time);
}

static int take_times(struct layer_tar *tar, struct layer_entry *entry)
{
    const uint8_t *block = tar->header;
    int64_t seconds, time = 0;
    if (!PICK(tar, mtime).data && (parse_number(block, MTIME, &seconds) < 0 || filetime_from(seconds, 0, &time) < 0))
        return fail(tar, "a modification time that is malformed or out of range");
    if (pick_time(tar, PICK(tar, mtime), time, &time) < 0)
        return -1;
    int64_t access = time, change = time;
    if (memcmp(block + MAGIC_OFFSET, "ustar  ", 8) == 0) {
        if (gnu_time(block, GNU_ATIME, &access) < 0 || gnu_time(block, GNU_CTIME, &change) < 0)
            return fail(tar, "a time that is malformed or out of range");
    }
    entry->last_write_time = time;
    if (pick_time(tar, PICK(tar, atime), access, &entry->last_access_time) < 0 ||
        pick_time(tar, PICK(tar, ctime), change, &entry->change_time) < 0)
        return -1;
    return pick_time(tar, PICK(tar, creation_time), time, &entry->creation_time);
}

static void take_names(struct layer_tar *tar, struct layer_entry *entry)
{
    const uint8_t *block = tar->header;
    struct layer_slice name = text_field(block, NAME);
    struct layer_slice prefix = text_field(block, PREFIX);
    /* Only POSIX headers have a prefix; GNU keeps other things there. */
    if (memcmp(block + MAGIC_OFFSET, "ustar", 6) == 0 && prefix.size > 0) {
        memcpy(tar->ustar_name, prefix.data, prefix.size);
        tar->ustar_name[prefix.size] = '/';
        memcpy(tar->ustar_name + prefix.size + 1, name.data, name.size);
        name = (struct layer_slice){tar->ustar_name, prefix.size + 1 + name.size};
    }
    struct layer_slice link = text_field(block, LINK);
    if (tar->long_name.text_size)
        name = (struct layer_slice){tar->long_name.text, strnlen(tar->long_name.text, tar->long_name.text_size)};
    if (tar->long_link.text_size)
        link = (struct layer_slice){tar->long_link.text, strnlen(tar->long_link.text, tar->long_link.text_size)};
    entry->name = PICK(tar, path).data ? PICK(tar, path) : name;
    entry->link = PICK(tar, link_path).data ? PICK(tar, link_path) : link;
}

static int take_eas(struct layer_tar *tar, struct layer_entry *entry)
{
    const struct layer_pax *only = tar->global.ea_count == 0 ? &tar->local : &tar->global;
    entry->eas = only->eas;
    entry->ea_count = only->ea_count;
    if (tar->global.ea_count == 0 || tar->local.ea_count == 0)
        return 0;
    if (merge_eas(tar, &tar->global, &tar->local) < 0)
        return -1;
    entry->eas = tar->eas;
    entry->ea_count = tar->ea_count;
    return 0;
}

static int take_type(struct layer_tar *tar, char type, struct layer_entry *entry)
{
    int slash = entry->name.size > 0 && entry->name.data[entry->name.size - 1] == '/';
    switch (type) {
    case 0:
    case '0':
    case '7':
        entry->type = slash ? LAYER_DIRECTORY : LAYER_FILE; /* as v7 wrote directories */
        return 0;
    case '1':
        entry->type = LAYER_HARD_LINK;
        return 0;
    case '2':
        entry->type = LAYER_SYMLINK;
        return 0;
    case '5':
        entry->type = LAYER_DIRECTORY;
        return 0;
    case '3':
        return fail(tar, "a character device");
    case '4':
        return fail(tar, "a block device");
    case '6':
        return fail(tar, "a FIFO");
    case 'S':
        return fail(tar, "a sparse file in GNU's own form");
    default:
        return fail(tar, "an entry of unknown type");
    }
}

static int take_entry(struct layer_tar *tar, char type)
{
    struct layer_entry *entry = &tar->entry;
    int64_t size;
    uint64_t attributes;
    *entry = (struct layer_entry){.offset = tar->entry_offset};
    take_names(tar, entry);
    if (take_type(tar, type, entry) < 0 || take_times(tar, entry) < 0 || take_eas(tar, entry) < 0)
        return -1;
    struct layer_slice text = PICK(tar, size);
    if (text.data ? parse_decimal(text, &entry->size) < 0 : parse_number(tar->header, SIZE, &size) < 0 || size < 0)
        return fail(tar, "a malformed size");
    if (!text.data)
        entry->size = (uint64_t)size;
    if (entry->size > INT64_MAX - LAYER_TAR_BLOCK)
        return fail(tar, "a size beyond all limits");
    if (PICK(tar, sparse).data)
        return fail(tar, "a sparse file in GNU's own form");
    text = PICK(tar, attributes);
    if (text.data) {
        if (parse_decimal(text, &attributes) < 0 || attributes > UINT32_MAX)
            return fail(tar, "malformed file attributes");
        entry->has_attributes = 1;
        entry->attributes = (uint32_t)attributes;
    }
    entry->raw_descriptor = PICK(tar, raw_descriptor);
    entry->sddl = PICK(tar, sddl);
    entry->mount_point = PICK(tar, mount_point).data != NULL;
    return 0;
}

static struct layer_pax *records_of(struct layer_tar *tar)
{
    switch (tar->record_type) {
    case 'g':
        return &tar->incoming;
    case 'L':
        return &tar->long_name;
    case 'K':
        return &tar->long_link;
    default:
        return &tar->local;
    }
}

static int start_records(struct layer_tar *tar, char type)
{
    tar->record_type = type;
    struct layer_pax *pax = records_of(tar);
    int64_t size;
    if (parse_number(tar->block, SIZE, &size) < 0 || size < 0 || size > (int64_t)LAYER_TAR_MAX_RECORDS)
        return fail(tar, "PAX records or a long name of more than 8 MiB");
    reset_pax(pax); /* a second header of the kind replaces what the first one said */
    if ((size_t)size > pax->text_capacity) {
        char *text = realloc(pax->text, (size_t)size);
        if (!text)
            return fail(tar, "out of memory");
        pax->text = text;
        pax->text_capacity = (size_t)size;
    }
    tar->left = (uint64_t)size;
    tar->padding = (uint32_t)(-(uint64_t)size % LAYER_TAR_BLOCK);
    tar->state = RECORDS;
    return 0;
}

static int is_zero(const uint8_t *block)
{
    for (uint32_t i = 0; i < LAYER_TAR_BLOCK; i++)
        if (block[i])
            return 0;
    return 1;
}

/* Take tar->block; 1: an entry begins, 0: go on, -1: an error. */
static int take_header(struct layer_tar *tar)
{
    const uint8_t *block = tar->block;
    uint64_t offset = tar->offset - LAYER_TAR_BLOCK;
    if (is_zero(block)) {
        if (++tar->zero_blocks == 2)
            tar->state = DONE;
        return 0;
    }
    tar->zero_blocks = 0;
    if (tar->entry_offset == UINT64_MAX)
        tar->entry_offset = offset;
    if (!checksum_fits(block))
        return fail(tar, "a header with a wrong checksum");
    char type = (char)block[TYPE_OFFSET];
    if (type == 'x' || type == 'X' || type == 'g' || type == 'L' || type == 'K')
        return start_records(tar, type);
    memcpy(tar->header, block, LAYER_TAR_BLOCK);
    if (take_entry(tar, type) < 0)
        return -1;
    /* Only files bring data; a size in another header means nothing, except that old writers gave links one. */
    tar->left = tar->entry.type == LAYER_FILE ? tar->entry.size : 0;
    tar->entry.size = tar->left;
    tar->padding = (uint32_t)(-tar->left % LAYER_TAR_BLOCK);
    tar->state = DATA;
    return 1;
}

/* ---- the state machine ---- */

static void use(struct layer_tar *tar, const uint8_t **input, size_t *size, size_t count)
{
    *input += count;
    *size -= count;
    tar->offset += count;
}

static size_t at_most(size_t size, uint64_t limit)
{
    return size < limit ? size : (size_t)limit;
}

static void gather_header(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    size_t count = at_most(*size, LAYER_TAR_BLOCK - tar->gathered);
    memcpy(tar->block + tar->gathered, *input, count);
    tar->gathered += (uint32_t)count;
    use(tar, input, size, count);
}

static void gather_records(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    struct layer_pax *pax = records_of(tar);
    size_t count = at_most(*size, tar->left);
    if (count)
        memcpy(pax->text + pax->text_size, *input, count);
    pax->text_size += count;
    tar->left -= count;
    use(tar, input, size, count);
}

/* The entry was taken: what was said for it alone is over. */
static void end_entry(struct layer_tar *tar)
{
    reset_pax(&tar->local);
    reset_pax(&tar->long_name);
    reset_pax(&tar->long_link);
    tar->entry_offset = UINT64_MAX;
    tar->state = HEADER;
}

static int skip_padding(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    size_t count = at_most(*size, tar->padding);
    tar->padding -= (uint32_t)count;
    use(tar, input, size, count);
    return tar->padding == 0;
}

/* What comes next if it is not data: an event, or NEED_INPUT with input left to go on with. */
static enum layer_tar_event step(struct layer_tar *tar, const uint8_t **input, size_t *size)
{
    int result = 0;
    switch (tar->state) {
    case HEADER:
        gather_header(tar, input, size);
        if (tar->gathered == LAYER_TAR_BLOCK) {
            tar->gathered = 0;
            result = take_header(tar);
        }
        break;
    case RECORDS:
        gather_records(tar, input, size);
        if (tar->left == 0) {
            tar->state = RECORDS_PADDING;
            if (tar->record_type != 'L' && tar->record_type != 'K')
                result = parse_records(tar, records_of(tar));
            if (result == 0 && tar->record_type == 'g')
                result = merge_globals(tar);
        }
        break;
    case RECORDS_PADDING:
        if (skip_padding(tar, input, size)) {
            tar->state = HEADER;
            if (tar->record_type == 'g')
                tar->entry_offset = UINT64_MAX;
        }
        break;
    default: /* DATA_PADDING */
        if (skip_padding(tar, input, size))
            end_entry(tar);
        break;
    }
    return result < 0 ? LAYER_TAR_ERROR : result > 0 ? LAYER_TAR_ENTRY : LAYER_TAR_NEED_INPUT;
}

enum layer_tar_event layer_tar_next(struct layer_tar *tar, const uint8_t **input, size_t *size,
                                    struct layer_slice *piece)
{
    for (;;) {
        if (tar->reason)
            return LAYER_TAR_ERROR;
        if (tar->state == DONE) {
            use(tar, input, size, *size);
            return LAYER_TAR_END;
        }
        if (tar->state == DATA && tar->left == 0) {
            tar->state = DATA_PADDING;
            return LAYER_TAR_ENTRY_END;
        }
        /* These go on without input: nothing is left of their padding or their records. */
        int free_step = (tar->state == RECORDS && tar->left == 0) ||
                        ((tar->state == RECORDS_PADDING || tar->state == DATA_PADDING) && tar->padding == 0);
        if (*size == 0 && !free_step)
            return LAYER_TAR_NEED_INPUT;
        if (tar->state == DATA) {
            *piece = (struct layer_slice){(const char *)*input, at_most(*size, tar->left)};
            tar->left -= piece->size;
            use(tar, input, size, piece->size);
            return LAYER_TAR_DATA;
        }
        enum layer_tar_event event = step(tar, input, size);
        if (event != LAYER_TAR_NEED_INPUT)
            return event;
    }
}

uint64_t layer_tar_skip(struct layer_tar *tar)
{
    uint64_t count = tar->left;
    tar->left = 0;
    tar->offset += count;
    return count;
}

int layer_tar_finish(struct layer_tar *tar)
{
    if (tar->reason)
        return -1;
    int between = tar->state == DONE ||
                  (tar->state == HEADER && tar->gathered == 0 && tar->entry_offset == UINT64_MAX) ||
                  (tar->state == DATA_PADDING && tar->left == 0);
    return between ? 0 : fail(tar, "the archive ends inside an entry");
}
