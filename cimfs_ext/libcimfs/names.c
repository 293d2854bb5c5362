#include "names.h"

#include "error.h"

static int reserved(uint16_t unit)
{
    switch (unit) {
    case '"':
    case '*':
    case '/':
    case '<':
    case '>':
    case '?':
    case '|':
        return 1;
    default:
        return unit < 0x20;
    }
}

static int dots_only(struct cimfs_name name)
{
    return (name.length == 1 && name.units[0] == '.') ||
           (name.length == 2 && name.units[0] == '.' && name.units[1] == '.');
}

static int equals_data_type(const uint16_t *units, size_t length)
{
    static const char type[] = "$DATA";
    if (length != 5)
        return 0;
    for (size_t i = 0; i < 5; i++) {
        uint16_t unit = units[i];
        if (unit >= 'a' && unit <= 'z')
            unit = (uint16_t)(unit - 32);
        if (unit != (uint16_t)type[i])
            return 0;
    }
    return 1;
}

/* text is what follows the first colon: "name" or "name:$DATA". */
static cimfs_hresult parse_stream(const uint16_t *text, size_t length, struct cimfs_path *path, const char **reason)
{
    size_t name = 0;
    while (name < length && text[name] != ':')
        name++;
    if (name < length && !equals_data_type(text + name + 1, length - name - 1)) {
        *reason = "a stream type other than $DATA";
        return CIMFS_E_INVALID_ARG;
    }
    if (name == 0 || name > CIMFS_MAX_NAME) {
        *reason = "a stream name has 1 to 255 code units";
        return CIMFS_E_INVALID_ARG;
    }
    path->stream = (struct cimfs_name){text, (uint32_t)name};
    return CIMFS_OK;
}

static cimfs_hresult check_component(struct cimfs_name name, const char **reason)
{
    if (name.length == 0)
        *reason = "an empty component";
    else if (name.length > CIMFS_MAX_NAME)
        *reason = "a component longer than 255 code units";
    else if (dots_only(name))
        *reason = "a component . or ..";
    else
        return CIMFS_OK;
    return CIMFS_E_INVALID_ARG;
}

cimfs_hresult cimfs_path_parse(const cimfs_wchar *text, struct cimfs_path *path, const char **reason)
{
    *path = (struct cimfs_path){{NULL, 0}, {NULL, 0}, {NULL, 0}};
    *reason = NULL;
    if (text[0] == '\\')
        text++;
    size_t start = 0; /* of the current component */
    size_t i = 0;
    for (; text[i] != 0 && text[i] != ':'; i++) {
        if (i >= CIMFS_MAX_PATH) {
            *reason = "a path longer than 32,767 code units";
            return CIMFS_E_INVALID_ARG;
        }
        if (reserved(text[i])) {
            *reason = "a reserved character";
            return CIMFS_E_INVALID_ARG;
        }
        if (text[i] == '\\' && i > start && (text[i + 1] == 0 || text[i + 1] == ':'))
            break; /* a directory's, at the end of its name */
        if (text[i] == '\\') {
            CIMFS_TRY(check_component((struct cimfs_name){text + start, (uint32_t)(i - start)}, reason));
            start = i + 1;
        }
    }
    path->leaf = (struct cimfs_name){text + start, (uint32_t)(i - start)};
    i += text[i] == '\\';
    path->directory = (struct cimfs_name){text, start ? (uint32_t)start - 1 : 0};
    CIMFS_TRY(check_component(path->leaf, reason));
    if (text[i] == 0)
        return CIMFS_OK;
    size_t stream = ++i;
    for (; text[i] != 0; i++) {
        if (i - stream > CIMFS_MAX_NAME + sizeof ":$DATA" || reserved(text[i]) || text[i] == '\\') {
            *reason = "a malformed stream name";
            return CIMFS_E_INVALID_ARG;
        }
    }
    return parse_stream(text + stream, i - stream, path, reason);
}

int cimfs_path_next(struct cimfs_name *directory, struct cimfs_name *component)
{
    if (directory->length == 0)
        return 0;
    uint32_t i = 0;
    while (i < directory->length && directory->units[i] != '\\')
        i++;
    *component = (struct cimfs_name){directory->units, i};
    uint32_t used = i < directory->length ? i + 1 : i;
    *directory = (struct cimfs_name){directory->units + used, directory->length - used};
    return 1;
}

int cimfs_name_compare(const uint16_t *upcase, struct cimfs_name a, struct cimfs_name b)
{
    uint32_t common = a.length < b.length ? a.length : b.length;
    for (uint32_t i = 0; i < common; i++) {
        if (a.units[i] == b.units[i])
            continue;
        int difference = (int)upcase[a.units[i]] - (int)upcase[b.units[i]];
        if (difference != 0)
            return difference;
    }
    return (int)a.length - (int)b.length;
}

uint32_t cimfs_name_hash(const uint16_t *upcase, struct cimfs_name name, uint64_t seed)
{
    uint64_t hash = seed;
    for (uint32_t i = 0; i < name.length; i++)
        hash = (hash ^ upcase[name.units[i]]) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(hash >> 32);
}

size_t cimfs_wide_length(const cimfs_wchar *text, size_t limit)
{
    for (size_t i = 0; i <= limit; i++)
        if (text[i] == 0)
            return i;
    return SIZE_MAX;
}

static size_t encode_utf8(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xC0 | point >> 6);
        out[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xE0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 0x3F));
        out[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 0x3F));
    out[2] = (char)(0x80 | (point >> 6 & 0x3F));
    out[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}

size_t cimfs_utf8_from_wide(const uint16_t *units, size_t length, char *to, size_t capacity)
{
    size_t needed = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t point = units[i];
        char bytes[4];
        size_t count;
        if (point >= 0xD800 && point < 0xDC00 && i + 1 < length && units[i + 1] >= 0xDC00 && units[i + 1] < 0xE000)
            point = 0x10000 + ((point - 0xD800) << 10) + (units[++i] - 0xDC00u);
        if (point >= 0xDC80 && point <= 0xDCFF) {
            bytes[0] = (char)(point - 0xDC00);
            count = 1;
        } else {
            count = encode_utf8(point, bytes);
        }
        if (capacity > 0 && needed + count < capacity)
            memcpy(to + needed, bytes, count);
        else if (capacity > needed)
            capacity = needed + 1; /* never resume after a gap */
        needed += count;
    }
    if (capacity > 0)
        to[needed < capacity ? needed : capacity - 1] = 0;
    return needed;
}

static uint32_t decode_utf8(const uint8_t *text, size_t size, size_t *used)
{
    static const struct {
        uint8_t mask, lead;
        uint32_t least;
    } forms[] = {{0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};
    for (size_t more = 1; more <= 3; more++) {
        if ((text[0] & forms[more - 1].mask) != forms[more - 1].lead)
            continue;
        if (more >= size)
            return UINT32_MAX;
        uint32_t point = text[0] & (uint32_t)(uint8_t)~forms[more - 1].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((text[i] & 0xC0) != 0x80)
                return UINT32_MAX;
            point = point << 6 | (text[i] & 0x3Fu);
        }
        if (point < forms[more - 1].least || point > 0x10FFFF)
            return UINT32_MAX;
        *used = more + 1;
        return point;
    }
    return UINT32_MAX;
}

size_t cimfs_wide_from_utf8(const char *text, size_t size, uint16_t *to)
{
    const uint8_t *from = (const uint8_t *)text;
    size_t units = 0;
    for (size_t i = 0; i < size;) {
        if (from[i] < 0x80) {
            to[units++] = from[i++];
            continue;
        }
        size_t used = 0;
        uint32_t point = decode_utf8(from + i, size - i, &used);
        if (point == UINT32_MAX)
            return SIZE_MAX;
        i += used;
        if (point < 0x10000) {
            to[units++] = (uint16_t)point;
        } else {
            to[units++] = (uint16_t)(0xD800 + ((point - 0x10000) >> 10));
            to[units++] = (uint16_t)(0xDC00 + ((point - 0x10000) & 0x3FF));
        }
    }
    return units;
}
