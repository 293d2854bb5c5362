#include "builder.h"

#include <string.h>

#include "libcimfs/descriptor.h"
#include "libcimfs/error.h"
#include "libcimfs/names.h"
#include "libcimfs/upcase.h"

int layer_builder_init(struct layer_builder *builder, const struct cimfs_api *api, cimfs_image image,
                       cimfs_stream *stream, const uint16_t *const *standard, size_t standard_count)
{
    memset(builder, 0, sizeof *builder);
    if (standard_count > LAYER_MAX_STANDARD)
        return -1;
    builder->api = api;
    builder->image = image;
    builder->stream = stream;
    builder->standard = standard;
    builder->standard_count = standard_count;
    for (size_t s = 0; s < standard_count; s++)
        builder->standard_lengths[s] = cimfs_wide_length(standard[s], LAYER_MAX_PATH);
    builder->limits = (struct layer_limits){UINT64_MAX, UINT64_MAX, UINT64_MAX};
    return layer_path_init(&builder->previous);
}

void layer_builder_cleanup(struct layer_builder *builder)
{
    layer_path_set_cleanup(&builder->added);
    layer_path_set_cleanup(&builder->linked);
    layer_path_set_cleanup(&builder->above_linked);
    layer_path_cleanup(&builder->previous);
    memset(builder, 0, sizeof *builder);
}

static enum layer_decision refuse(struct layer_builder *builder, const char *reason)
{
    builder->reason = reason;
    return LAYER_REFUSED;
}

static enum layer_decision beyond(struct layer_builder *builder, enum layer_limit limit)
{
    builder->limit = limit;
    return LAYER_BEYOND;
}

static enum layer_decision outcome(struct layer_builder *builder, cimfs_hresult code)
{
    if (code >= 0)
        return LAYER_INSIDE;
    if (builder->limit)
        return LAYER_BEYOND;
    builder->code = code;
    return LAYER_FAILED;
}

enum layer_decision layer_builder_count(struct layer_builder *builder, const struct layer_path *path, uint64_t size)
{
    if (builder->made >= builder->limits.files)
        return beyond(builder, LAYER_LIMIT_FILES);
    builder->made++;
    if (size > builder->limits.bytes - builder->claimed)
        return beyond(builder, LAYER_LIMIT_BYTES);
    builder->claimed += size;
    return path->depth > builder->limits.path_depth ? beyond(builder, LAYER_LIMIT_PATH_DEPTH) : LAYER_INSIDE;
}

/* ---- places ---- */

enum relation { UNRELATED, SAME, ABOVE, BELOW };

/* How the path stands to one that is upcased. */
static enum relation relate(const struct layer_path *path, const uint16_t *name, size_t length)
{
    size_t shorter = length < path->length ? length : path->length;
    /* Nearly all paths are told apart by this: one can be above the other only if that goes on with a separator. */
    if (length != path->length && (length < path->length ? path->units[shorter] : name[shorter]) != '\\')
        return UNRELATED;
    for (size_t i = 0; i < shorter; i++)
        if (cimfs_upcase(path->units[i]) != name[i])
            return UNRELATED;
    return length == path->length ? SAME : length > path->length ? ABOVE : BELOW;
}

/* The index of the standard file whose path begins the given one, which ends at length; or LAYER_MAX_STANDARD. */
static unsigned find_standard(const struct layer_builder *builder, const struct layer_path *path, size_t length)
{
    const struct layer_path file = {path->units, length, 0};
    for (unsigned s = 0; s < builder->standard_count; s++)
        if (builder->standard_lengths[s] == length &&
            relate(&file, builder->standard[s], builder->standard_lengths[s]) == SAME)
            return s;
    return LAYER_MAX_STANDARD;
}

static int is_standard(const struct layer_builder *builder, const struct layer_path *path)
{
    return find_standard(builder, path, path->length) < LAYER_MAX_STANDARD;
}

static const char REPLACES_LINK[] = "something in place of a hard link to a file that is processed outside the image";
static const char REPLACES_STANDARD[] = "something in place of a file that is processed outside the image";

static const char *check_place(const struct layer_builder *builder, const struct layer_path *path, int is_directory,
                               int is_file)
{
    for (unsigned s = 0; s < builder->standard_count; s++) {
        if (!(builder->brought >> s & 1))
            continue;
        enum relation relation = relate(path, builder->standard[s], builder->standard_lengths[s]);
        if (relation == BELOW || (relation == ABOVE && !is_directory) || (relation == SAME && !is_file))
            return REPLACES_STANDARD;
    }
    if (builder->linked.count == 0)
        return NULL;
    int replaces = layer_path_set_has(&builder->linked, path->units, path->length) ||
                   layer_path_set_has_above(&builder->linked, path->units, path->length) ||
                   (!is_directory && layer_path_set_has(&builder->above_linked, path->units, path->length));
    return replaces ? REPLACES_LINK : NULL;
}

static cimfs_hresult remember_added(struct layer_builder *builder, const struct layer_path *path, int is_directory)
{
    static const uint16_t name[] = {'U', 'T', 'I', 'L', 'I', 'T', 'Y', 'V', 'M'};
    enum relation relation = relate(path, name, sizeof name / sizeof *name);
    builder->utility_vm |= relation == BELOW || (relation == SAME && is_directory);
    if (builder->has_parent && layer_path_set_add(&builder->added, path->units, path->length) < 0)
        return CIMFS_E_OUT_OF_MEMORY;
    return CIMFS_OK;
}

static cimfs_hresult remember_linked(struct layer_builder *builder, const struct layer_path *path)
{
    size_t parent = layer_path_parent(path->units, path->length);
    CIMFS_TRY(remember_added(builder, path, 0));
    if (layer_path_set_add_one(&builder->linked, path->units, path->length) < 0 ||
        (parent > 0 && layer_path_set_add(&builder->above_linked, path->units, parent) < 0))
        return CIMFS_E_OUT_OF_MEMORY;
    return CIMFS_OK;
}

/* ---- items ---- */

enum layer_decision layer_builder_add(struct layer_builder *builder, const struct layer_path *path, uint32_t attributes)
{
    int is_directory = (attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0;
    int is_link = (attributes & CIMFS_ATTRIBUTE_REPARSE_POINT) != 0;
    int is_file = !is_directory && !is_link;
    if (path->length == 0)
        return is_directory && !is_link ? LAYER_ROOT : refuse(builder, "a file without a name");
    const char *reason = layer_path_check_file(path);
    unsigned standard = reason ? LAYER_MAX_STANDARD : find_standard(builder, path, path->length);
    if (!reason && is_link && standard < LAYER_MAX_STANDARD)
        reason = "a symbolic link in place of a file that is processed outside the image";
    if (!reason)
        reason = check_place(builder, path, is_directory, is_file);
    if (reason)
        return refuse(builder, reason);
    cimfs_hresult result = remember_added(builder, path, is_directory);
    if (result < 0)
        return outcome(builder, result);
    memcpy(builder->previous.units, path->units, (path->length + 1) * sizeof *path->units);
    builder->previous.length = path->length;
    builder->previous_is_standard = is_file && standard < LAYER_MAX_STANDARD;
    if (!builder->previous_is_standard)
        return LAYER_INSIDE;
    builder->brought |= UINT64_C(1) << standard;
    return LAYER_OUTSIDE;
}

/* What a link names comes into the image later: a standard file that the layer brings, or a link to one. */
static int is_pending(const struct layer_builder *builder, const struct layer_path *path)
{
    unsigned s = find_standard(builder, path, path->length);
    if (s == LAYER_MAX_STANDARD)
        return layer_path_set_has(&builder->linked, path->units, path->length);
    return !builder->has_parent || (builder->brought >> s & 1); /* a base layer has to bring it */
}

enum layer_decision layer_builder_link(struct layer_builder *builder, const struct layer_path *path,
                                       const struct layer_path *target)
{
    if (target->depth > builder->limits.path_depth)
        return beyond(builder, LAYER_LIMIT_PATH_DEPTH);
    const char *reason = path->length == 0 ? "a file without a name" : layer_path_check_file(path);
    if (!reason && target->length == 0)
        reason = "a hard link without a target";
    if (!reason)
        reason = layer_path_check_file(target);
    if (!reason && is_standard(builder, path))
        reason = "a hard link in place of a file that is processed outside the image";
    if (!reason)
        reason = check_place(builder, path, 0, 0);
    if (reason)
        return refuse(builder, reason);
    builder->previous.length = 0;
    if (!is_pending(builder, target))
        return LAYER_INSIDE;
    cimfs_hresult result = remember_linked(builder, path);
    return result < 0 ? outcome(builder, result) : LAYER_OUTSIDE;
}

enum layer_decision layer_builder_stream(struct layer_builder *builder, const struct layer_path *path, uint64_t size)
{
    const struct layer_path *previous = &builder->previous;
    size_t file = layer_path_stream(path);
    const char *reason = path->length == 0 ? "a stream without a name" : layer_path_check(path);
    if (reason)
        return refuse(builder, reason);
    int follows = file == previous->length && memcmp(path->units, previous->units, file * sizeof *path->units) == 0;
    int outside = follows ? builder->previous_is_standard
                          : find_standard(builder, path, file) < LAYER_MAX_STANDARD ||
                                layer_path_set_has(&builder->linked, path->units, file);
    if (outside)
        return refuse(builder, "a stream on a file that is processed outside the image");
    enum layer_decision decision = layer_builder_close_stream(builder);
    if (decision != LAYER_INSIDE)
        return decision;
    cimfs_hresult result = builder->api->create_alternate_stream(builder->image, path->units, size, builder->stream);
    return outcome(builder, result < 0 ? result : remember_added(builder, path, 0));
}

enum layer_decision layer_builder_remove(struct layer_builder *builder, const struct layer_path *path, int contents)
{
    if (contents && path->length == 0)
        return LAYER_INSIDE;
    const char *reason = path->length == 0 ? "a removal without a name"
                         : contents        ? layer_path_check_file(path)
                                           : layer_path_check(path);
    return reason ? refuse(builder, reason) : LAYER_INSIDE;
}

enum layer_decision layer_builder_check_descriptor(struct layer_builder *builder, const void *data, size_t size)
{
    /* The image would say so too, but of a standard file only when nobody knows the item any more. */
    if (size > 0 && !cimfs_descriptor_is_valid(data, size))
        return refuse(builder, "the security descriptor is malformed");
    return LAYER_INSIDE;
}

/* ---- calls on the image ---- */

static cimfs_hresult close_stream(struct layer_builder *builder)
{
    cimfs_stream stream = *builder->stream;
    *builder->stream = NULL;
    return stream ? cimfs_close_stream(builder->api, stream) : CIMFS_OK;
}

static cimfs_hresult create(struct layer_builder *builder, const uint16_t *path, struct cimfs_file_metadata metadata)
{
    if (metadata.security_descriptor_size == 0) {
        metadata.security_descriptor = builder->descriptor ? builder->descriptor : CIMFS_NULL_DACL;
        metadata.security_descriptor_size =
            builder->descriptor ? (uint32_t)builder->descriptor_size : (uint32_t)sizeof CIMFS_NULL_DACL;
    }
    return builder->api->create_file(builder->image, path, &metadata, builder->stream);
}

static cimfs_hresult make_directory(struct layer_builder *builder, const uint16_t *path)
{
    if (builder->made >= builder->limits.files) {
        builder->limit = LAYER_LIMIT_FILES;
        return CIMFS_E_FAIL;
    }
    CIMFS_TRY(create(builder, path,
                     (struct cimfs_file_metadata){.attributes = CIMFS_ATTRIBUTE_DIRECTORY,
                                                  .creation_time = builder->time,
                                                  .last_write_time = builder->time,
                                                  .change_time = builder->time,
                                                  .last_access_time = builder->time}));
    builder->made++;
    return close_stream(builder);
}

/*
 * The directory above path is not there: make it, after those above it. Each is tried only because something
 * below it could not be made for want of it, so none that exists is touched.
 */
static cimfs_hresult make_parents(struct layer_builder *builder, struct layer_path *path)
{
    uint16_t *units = path->units;
    size_t length = path->length, at = length;
    cimfs_hresult result = CIMFS_E_PATH_NOT_FOUND;
    while (result == CIMFS_E_PATH_NOT_FOUND && at > 0) {
        at = layer_path_parent(units, at);
        if (at == 0)
            return result;
        units[at] = 0;
        result = make_directory(builder, units);
        units[at] = '\\';
    }
    for (at++; result == CIMFS_OK && at < length; at++) {
        if (units[at] != '\\')
            continue;
        units[at] = 0;
        result = make_directory(builder, units);
        units[at] = '\\';
    }
    return result;
}

static cimfs_hresult create_with_parents(struct layer_builder *builder, struct layer_path *path,
                                         const struct cimfs_file_metadata *metadata)
{
    CIMFS_TRY(close_stream(builder));
    cimfs_hresult result = create(builder, path->units, *metadata);
    if (result != CIMFS_E_PATH_NOT_FOUND)
        return result;
    CIMFS_TRY(make_parents(builder, path));
    return create(builder, path->units, *metadata);
}

enum layer_decision layer_builder_create(struct layer_builder *builder, struct layer_path *path,
                                         const struct cimfs_file_metadata *metadata)
{
    return outcome(builder, create_with_parents(builder, path, metadata));
}

static cimfs_hresult link_with_parents(struct layer_builder *builder, struct layer_path *path,
                                       const struct layer_path *target)
{
    CIMFS_TRY(close_stream(builder));
    cimfs_hresult result = builder->api->create_hard_link(builder->image, path->units, target->units);
    if (result != CIMFS_E_PATH_NOT_FOUND)
        return result;
    /* Either the target or the directory is missing. If it is the target, the second attempt fails as well. */
    CIMFS_TRY(make_parents(builder, path));
    return builder->api->create_hard_link(builder->image, path->units, target->units);
}

enum layer_decision layer_builder_make_link(struct layer_builder *builder, struct layer_path *path,
                                            const struct layer_path *target)
{
    cimfs_hresult result = link_with_parents(builder, path, target);
    if (result == CIMFS_E_PATH_NOT_FOUND || result == CIMFS_E_FILE_NOT_FOUND)
        return refuse(builder, "the target of the hard link does not exist");
    if (result == CIMFS_E_ACCESS_DENIED)
        return refuse(builder, "a hard link to a directory");
    return outcome(builder, result < 0 ? result : remember_added(builder, path, 0));
}

void *layer_builder_room(const struct layer_builder *builder, uint32_t *size)
{
    return builder->api->stream_room && *builder->stream ? builder->api->stream_room(*builder->stream, size) : NULL;
}

enum layer_decision layer_builder_write(struct layer_builder *builder, const void *data, size_t size)
{
    const uint8_t *from = data;
    cimfs_hresult result = *builder->stream || size == 0 ? CIMFS_OK : CIMFS_E_FAIL; /* somebody else has closed it */
    while (size > 0 && result >= 0) {
        uint32_t count = size < (1u << 30) ? (uint32_t)size : 1u << 30;
        result = builder->api->write_stream(*builder->stream, from, count);
        from += count;
        size -= count;
    }
    return outcome(builder, result);
}

enum layer_decision layer_builder_close_stream(struct layer_builder *builder)
{
    return outcome(builder, close_stream(builder));
}
