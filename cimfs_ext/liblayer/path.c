#include "path.h"

#include <stdlib.h>
#include <string.h>

#include "libcimfs/names.h"

static const char TOO_LONG[] = "a path longer than 32,767 code units";

int layer_path_init(struct layer_path *path)
{
    *path = (struct layer_path){calloc(LAYER_MAX_NAME_BYTES + 1, sizeof *path->units), 0, 0};
    return path->units ? 0 : -1;
}

void layer_path_cleanup(struct layer_path *path)
{
    free(path->units);
    memset(path, 0, sizeof *path);
}

static int separates(uint16_t unit)
{
    return unit == '\\' || unit == '/';
}

/* The first length units, in place. */
static const char *canonicalize(struct layer_path *path, size_t length)
{
    uint16_t *units = path->units;
    size_t start = 0, to = 0, depth = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i < length && !separates(units[i]))
            continue;
        size_t count = i - start;
        if (count > 0 && !(count == 1 && units[start] == '.')) {
            if (to > 0)
                units[to++] = '\\';
            if (to < start)
                memmove(units + to, units + start, count * sizeof *units);
            to += count;
            depth++;
        }
        start = i + 1;
    }
    units[to] = 0;
    if (to >= 2 && units[1] == ':' && (to == 2 || units[2] == '\\'))
        return "a drive letter";
    path->length = to;
    path->depth = depth;
    return NULL;
}

const char *layer_path_from_tar(struct layer_path *path, const char *name, size_t size)
{
    path->length = path->depth = 0;
    path->units[0] = 0;
    if (size > 0 && name[0] == '/')
        return "an absolute name";
    if (memchr(name, '\\', size))
        return "a backslash in a name";
    if (memchr(name, 0, size))
        return "a NUL in a name";
    if (size > LAYER_MAX_NAME_BYTES)
        return TOO_LONG;
    size_t length = cimfs_wide_from_utf8(name, size, path->units);
    if (length == SIZE_MAX)
        return "a name that is not UTF-8";
    return canonicalize(path, length);
}

const char *layer_path_from_call(struct layer_path *path, const uint16_t *units, size_t length)
{
    path->length = path->depth = 0;
    path->units[0] = 0;
    if (length > LAYER_MAX_NAME_BYTES)
        return TOO_LONG;
    for (size_t i = 0; i < length; i++)
        if (units[i] == 0)
            return "a NUL in a name";
    if (length > 0)
        memcpy(path->units, units, length * sizeof *units);
    return canonicalize(path, length);
}

const char *layer_path_check(const struct layer_path *path)
{
    struct cimfs_path parsed;
    const char *reason;
    return cimfs_path_parse(path->units, &parsed, &reason) < 0 ? reason : NULL;
}

const char *layer_path_check_file(const struct layer_path *path)
{
    struct cimfs_path parsed;
    const char *reason;
    if (cimfs_path_parse(path->units, &parsed, &reason) < 0)
        return reason;
    return parsed.stream.length > 0 ? "a colon in a name" : NULL;
}

size_t layer_path_stream(const struct layer_path *path)
{
    size_t i = 0;
    while (i < path->length && path->units[i] != ':')
        i++;
    return i;
}

size_t layer_path_parent(const uint16_t *units, size_t length)
{
    while (length > 0 && units[length - 1] != '\\')
        length--;
    return length > 0 ? length - 1 : 0;
}
