#include "importer.h"

#include <string.h>

#include "base64.h"
#include "ea.h"
#include "libcimfs/descriptor.h"
#include "libcimfs/error.h"
#include "libcimfs/names.h"
#include "libcimfs/upcase.h"
#include "reparse.h"

enum state {
    BETWEEN,     /* no entry is open */
    TO_IMAGE,    /* its data goes to the open stream */
    TO_STANDARD, /* its data goes to whoever asked for standard files */
    AWAITING,    /* its descriptor was asked for */
    SKIP         /* it has no data of interest */
};

enum { REGULAR_ATTRIBUTES = CIMFS_ATTRIBUTE_ARCHIVE };

int layer_importer_init(struct layer_importer *importer, const struct cimfs_api *api, cimfs_image image,
                        const uint16_t *const *standard, size_t standard_count)
{
    memset(importer, 0, sizeof *importer);
    if (standard_count > LAYER_MAX_STANDARD)
        return -1;
    importer->api = api;
    importer->image = image;
    importer->standard = standard;
    importer->standard_count = standard_count;
    for (size_t s = 0; s < standard_count; s++)
        importer->standard_lengths[s] = cimfs_wide_length(standard[s], LAYER_MAX_PATH);
    importer->limits = (struct layer_limits){UINT64_MAX, UINT64_MAX, UINT64_MAX};
    layer_tar_init(&importer->tar);
    struct layer_wide *wides[] = {&importer->path, &importer->target, &importer->previous};
    for (size_t i = 0; i < 3; i++) {
        wides[i]->units = calloc(LAYER_MAX_NAME_BYTES + 1, sizeof *wides[i]->units);
        if (!wides[i]->units)
            return -1;
    }
    return 0;
}

void layer_importer_cleanup(struct layer_importer *importer)
{
    layer_tar_cleanup(&importer->tar);
    layer_path_set_cleanup(&importer->added);
    layer_path_set_cleanup(&importer->linked);
    layer_path_set_cleanup(&importer->above_linked);
    free(importer->path.units);
    free(importer->target.units);
    free(importer->previous.units);
    free(importer->descriptor.data);
    free(importer->reparse.data);
    free(importer->ea.data);
    for (size_t i = 0; i < LAYER_SDDL_CACHE; i++) {
        free(importer->cache[i].text.data);
        free(importer->cache[i].descriptor.data);
    }
    memset(importer, 0, sizeof *importer);
}

static enum layer_import_event bad(struct layer_importer *importer, const char *reason)
{
    importer->reason = reason;
    return LAYER_IMPORT_BAD_ENTRY;
}

static enum layer_import_event beyond(struct layer_importer *importer, enum layer_limit limit)
{
    importer->limit = limit;
    return LAYER_IMPORT_LIMIT;
}

static enum layer_import_event failed(struct layer_importer *importer, cimfs_hresult code)
{
    if (importer->limit)
        return LAYER_IMPORT_LIMIT;
    importer->code = code;
    return LAYER_IMPORT_FAILED;
}

/* ---- limits ---- */

/* The limit that the entry goes beyond, by what its header claims. */
static enum layer_limit check_limits(struct layer_importer *importer)
{
    uint64_t size = importer->tar.entry.size;
    if (importer->made >= importer->limits.files)
        return LAYER_LIMIT_FILES;
    importer->made++;
    if (size > importer->limits.bytes - importer->claimed)
        return LAYER_LIMIT_BYTES;
    importer->claimed += size;
    return importer->path.depth > importer->limits.path_depth ? LAYER_LIMIT_PATH_DEPTH : LAYER_LIMIT_NONE;
}

/* ---- names ---- */

/* A name of the archive as a path: without ./ in front, slashes turned, every component checked. */
static const char *take_path(struct layer_slice name, struct layer_wide *path)
{
    const char *text = name.data;
    size_t size = name.size, start = 0, to = 0;
    path->length = path->depth = 0;
    if (size > 0 && text[0] == '/')
        return "an absolute name";
    if (memchr(text, '\\', size))
        return "a backslash in a name";
    if (memchr(text, 0, size))
        return "a NUL in a name";
    if (size > LAYER_MAX_NAME_BYTES)
        return "a path longer than 32,767 code units";
    for (size_t i = 0; i <= size; i++) {
        if (i < size && text[i] != '/')
            continue;
        size_t length = i - start;
        if (length > 0 && !(length == 1 && text[start] == '.')) {
            if (to > 0)
                path->units[to++] = '\\';
            size_t units = cimfs_wide_from_utf8(text + start, length, path->units + to);
            if (units == SIZE_MAX)
                return "a name that is not UTF-8";
            to += units;
            path->depth++;
        }
        start = i + 1;
    }
    path->units[to] = 0;
    path->length = to;
    if (to >= 2 && path->units[1] == ':' && (to == 2 || path->units[2] == '\\'))
        return "a drive letter";
    return NULL;
}

static const char *check_path(const struct layer_wide *path)
{
    struct cimfs_path parsed;
    const char *reason;
    return cimfs_path_parse(path->units, &parsed, &reason) < 0 ? reason : NULL;
}

static int has_stream_name(const struct layer_wide *path)
{
    for (size_t i = 0; i < path->length; i++)
        if (path->units[i] == ':')
            return 1;
    return 0;
}

/* A path that is a file's or a directory's, never a stream's. */
static const char *check_file_path(const struct layer_wide *path)
{
    const char *reason = check_path(path);
    return reason || !has_stream_name(path) ? reason : "a colon in a name";
}

enum relation { UNRELATED, SAME, ABOVE, BELOW };

/* How the path stands to a standard file's. */
static enum relation relation_to(const struct layer_importer *importer, const struct layer_wide *path,
                                 unsigned standard)
{
    const uint16_t *name = importer->standard[standard];
    size_t length = importer->standard_lengths[standard];
    size_t shorter = length < path->length ? length : path->length;
    /* Nearly all paths are told apart by this: one can be above the other only if that goes on with a separator. */
    if (length != path->length && (length < path->length ? path->units[shorter] : name[shorter]) != '\\')
        return UNRELATED;
    for (size_t i = 0; i < shorter; i++)
        if (cimfs_upcase(path->units[i]) != name[i])
            return UNRELATED;
    return length == path->length ? SAME : length > path->length ? ABOVE : BELOW;
}

/* The index of the standard file of that path, or LAYER_MAX_STANDARD. */
static unsigned find_standard(const struct layer_importer *importer, const struct layer_wide *path)
{
    for (unsigned s = 0; s < importer->standard_count; s++)
        if (importer->standard_lengths[s] == path->length && relation_to(importer, path, s) == SAME)
            return s;
    return LAYER_MAX_STANDARD;
}

static int is_linked(const struct layer_importer *importer, const struct layer_wide *path)
{
    return layer_path_set_has(&importer->linked, path->units, path->length);
}

static const char REPLACES_LINK[] = "something in place of a hard link to a file that is processed outside the image";
static const char REPLACES_STANDARD[] = "something in place of a file that is processed outside the image";

/*
 * Standard files and links to them come into the image only when they are final. Until then the image knows nothing of
 * them, and what comes later must not take their place: the last entry of a path would not be the one that counts.
 */
static const char *check_place(const struct layer_importer *importer, int is_directory)
{
    const struct layer_wide *path = &importer->path;
    for (unsigned s = 0; s < importer->standard_count; s++) {
        if (!(importer->brought >> s & 1))
            continue;
        enum relation relation = relation_to(importer, path, s);
        if (relation == BELOW || (relation == ABOVE && !is_directory) ||
            (relation == SAME && importer->tar.entry.type != LAYER_FILE))
            return REPLACES_STANDARD;
    }
    if (importer->linked.count == 0)
        return NULL;
    int replaces = is_linked(importer, path) ||
                   layer_path_set_has_above(&importer->linked, path->units, path->length) ||
                   (!is_directory && layer_path_set_has(&importer->above_linked, path->units, path->length));
    return replaces ? REPLACES_LINK : NULL;
}

static int is_utility_vm(const struct layer_wide *path)
{
    static const char name[] = "UTILITYVM";
    size_t length = sizeof name - 1;
    if (path->length < length || (path->length > length && path->units[length] != '\\'))
        return 0;
    for (size_t i = 0; i < length; i++)
        if (cimfs_upcase(path->units[i]) != (uint16_t)name[i])
            return 0;
    return 1;
}

/* Is path a stream of what came right before it? */
static int follows_its_file(const struct layer_importer *importer)
{
    size_t length = importer->previous.length;
    return length > 0 && importer->path.length > length && importer->path.units[length] == ':' &&
           memcmp(importer->path.units, importer->previous.units, length * sizeof(uint16_t)) == 0;
}

static const char WHITEOUT_PREFIX[] = ".wh.";
static const char OPAQUE_NAME[] = ".wh..wh..opq";

/* The last component's position, or SIZE_MAX if it is not a whiteout. */
static size_t whiteout_at(const struct layer_wide *path)
{
    size_t leaf = path->length;
    while (leaf > 0 && path->units[leaf - 1] != '\\')
        leaf--;
    for (size_t i = 0; i < sizeof WHITEOUT_PREFIX - 1; i++)
        if (leaf + i >= path->length || path->units[leaf + i] != (uint16_t)WHITEOUT_PREFIX[i])
            return SIZE_MAX;
    return leaf;
}

static enum layer_import_event take_whiteout(struct layer_importer *importer, size_t leaf)
{
    struct layer_wide *path = &importer->path;
    size_t length = path->length - leaf;
    int opaque = length == sizeof OPAQUE_NAME - 1;
    for (size_t i = 0; opaque && i < length; i++)
        opaque = path->units[leaf + i] == (uint16_t)OPAQUE_NAME[i];
    if (opaque) {
        path->length = leaf ? leaf - 1 : 0;
        path->units[path->length] = 0;
        const char *wrong = leaf ? check_file_path(path) : NULL;
        return wrong ? bad(importer, wrong) : LAYER_IMPORT_OPAQUE;
    }
    size_t prefix = sizeof WHITEOUT_PREFIX - 1;
    if (length == prefix)
        return bad(importer, "a whiteout of nothing");
    memmove(path->units + leaf, path->units + leaf + prefix, (length - prefix + 1) * sizeof *path->units);
    path->length -= prefix;
    const char *reason = check_file_path(path);
    return reason ? bad(importer, reason) : LAYER_IMPORT_WHITEOUT;
}

/* ---- metadata ---- */

static const char *decode_descriptor(struct layer_importer *importer)
{
    struct layer_slice text = importer->tar.entry.raw_descriptor;
    if (layer_buffer_reserve(&importer->descriptor, layer_base64_room(text.size) + 1) < 0)
        return "out of memory";
    size_t size = layer_base64_decode(text.data, text.size, importer->descriptor.data);
    if (size == SIZE_MAX || size == 0 || size > UINT16_MAX)
        return "a security descriptor that is not base64, or longer than 65,535 bytes";
    importer->descriptor.size = size;
    return NULL;
}

static int cached_descriptor(struct layer_importer *importer)
{
    struct layer_slice text = importer->tar.entry.sddl;
    for (size_t i = 0; i < LAYER_SDDL_CACHE; i++) {
        const struct layer_sddl *known = &importer->cache[i];
        if (known->text.size != text.size || memcmp(known->text.data, text.data, text.size) != 0)
            continue;
        if (layer_buffer_reserve(&importer->descriptor, known->descriptor.size + 1) < 0)
            return 0;
        memcpy(importer->descriptor.data, known->descriptor.data, known->descriptor.size);
        importer->descriptor.size = known->descriptor.size;
        return 1;
    }
    return 0;
}

static int fill(struct layer_buffer *buffer, const void *data, size_t size)
{
    if (layer_buffer_reserve(buffer, size + 1) < 0)
        return -1;
    if (size)
        memcpy(buffer->data, data, size);
    buffer->size = size;
    return 0;
}

int layer_importer_descriptor(struct layer_importer *importer, const uint8_t *data, size_t size)
{
    struct layer_slice text = importer->tar.entry.sddl;
    struct layer_sddl *slot = &importer->cache[importer->cache_next++ % LAYER_SDDL_CACHE];
    slot->text.size = 0;
    if (fill(&slot->descriptor, data, size) < 0 || fill(&slot->text, text.data, text.size) < 0)
        return -1;
    return fill(&importer->descriptor, data, size);
}

static const char *take_link_target(struct layer_importer *importer)
{
    struct layer_slice link = importer->tar.entry.link;
    uint16_t *units = importer->target.units;
    const char *reason = NULL;
    if (link.size == 0)
        return "a symbolic link without a target";
    if (link.size > LAYER_MAX_PATH)
        return "a link target of more than 32,767 bytes";
    size_t length = cimfs_wide_from_utf8(link.data, link.size, units);
    if (length == SIZE_MAX || memchr(link.data, 0, link.size))
        return "a link target that is not UTF-8";
    for (size_t i = 0; i < length; i++)
        if (units[i] == '/')
            units[i] = '\\';
    layer_reparse_link(units, length, importer->tar.entry.mount_point, &importer->reparse, &reason);
    return reason;
}

static uint32_t attributes_of(const struct layer_entry *entry)
{
    uint32_t attributes = entry->attributes;
    if (!entry->has_attributes && entry->type != LAYER_DIRECTORY)
        attributes = REGULAR_ATTRIBUTES;
    attributes &= ~CIMFS_ATTRIBUTE_REPARSE_POINT;
    if (entry->type == LAYER_SYMLINK)
        return attributes | CIMFS_ATTRIBUTE_REPARSE_POINT;
    return entry->type == LAYER_DIRECTORY ? attributes | CIMFS_ATTRIBUTE_DIRECTORY
                                          : attributes & ~CIMFS_ATTRIBUTE_DIRECTORY;
}

/* Everything but the descriptor, which may have to be asked for. */
static const char *take_metadata(struct layer_importer *importer)
{
    const struct layer_entry *entry = &importer->tar.entry;
    const char *reason = NULL;
    importer->reparse.size = 0;
    if (entry->type == LAYER_SYMLINK && (reason = take_link_target(importer)) != NULL)
        return reason;
    if (layer_ea_list(entry->eas, entry->ea_count, &importer->ea, &reason) < 0)
        return reason;
    importer->metadata = (struct cimfs_file_metadata){
        .attributes = attributes_of(entry),
        .file_size = (int64_t)entry->size,
        .creation_time = entry->creation_time,
        .last_write_time = entry->last_write_time,
        .change_time = entry->change_time,
        .last_access_time = entry->last_access_time,
        .reparse_data = importer->reparse.data,
        .reparse_data_size = (uint32_t)importer->reparse.size,
        .ea = importer->ea.data,
        .ea_size = (uint32_t)importer->ea.size,
    };
    return NULL;
}

/* ---- calls on the image ---- */

static cimfs_hresult add_item(struct layer_importer *importer, const uint16_t *path,
                              struct cimfs_file_metadata metadata, cimfs_stream *stream)
{
    if (metadata.security_descriptor_size == 0) {
        metadata.security_descriptor = CIMFS_NULL_DACL;
        metadata.security_descriptor_size = sizeof CIMFS_NULL_DACL;
    }
    return importer->api->create_file(importer->image, path, &metadata, stream);
}

static cimfs_hresult make_directory(struct layer_importer *importer, const uint16_t *path)
{
    if (importer->made >= importer->limits.files) {
        importer->limit = LAYER_LIMIT_FILES;
        return CIMFS_E_FAIL;
    }
    struct cimfs_file_metadata metadata = {.attributes = CIMFS_ATTRIBUTE_DIRECTORY,
                                           .creation_time = importer->time,
                                           .last_write_time = importer->time,
                                           .change_time = importer->time,
                                           .last_access_time = importer->time};
    cimfs_stream stream;
    CIMFS_TRY(add_item(importer, path, metadata, &stream));
    importer->made++;
    return cimfs_close_stream(importer->api, stream);
}

/*
 * The directory above path is not there: make it, after those above it. Each is tried only because something
 * below it could not be made for want of it, so none that exists is touched.
 */
static cimfs_hresult make_parents(struct layer_importer *importer)
{
    uint16_t *units = importer->path.units;
    size_t length = importer->path.length, at = length;
    cimfs_hresult result = CIMFS_E_PATH_NOT_FOUND;
    while (result == CIMFS_E_PATH_NOT_FOUND && at > 0) {
        while (at > 0 && units[at - 1] != '\\')
            at--;
        if (at == 0)
            return result;
        units[--at] = 0;
        result = make_directory(importer, units);
        units[at] = '\\';
    }
    for (at++; result == CIMFS_OK && at < length; at++) {
        if (units[at] != '\\')
            continue;
        units[at] = 0;
        result = make_directory(importer, units);
        units[at] = '\\';
    }
    return result;
}

static cimfs_hresult create_file(struct layer_importer *importer)
{
    const uint16_t *path = importer->path.units;
    cimfs_hresult result = add_item(importer, path, importer->metadata, &importer->stream);
    if (result != CIMFS_E_PATH_NOT_FOUND)
        return result;
    CIMFS_TRY(make_parents(importer));
    return add_item(importer, path, importer->metadata, &importer->stream);
}

static cimfs_hresult close_stream(struct layer_importer *importer)
{
    cimfs_stream stream = importer->stream;
    importer->stream = NULL;
    return cimfs_close_stream(importer->api, stream);
}

static cimfs_hresult create_link(struct layer_importer *importer)
{
    const uint16_t *path = importer->path.units;
    const uint16_t *target = importer->target.units;
    cimfs_hresult result = importer->api->create_hard_link(importer->image, path, target);
    if (result != CIMFS_E_PATH_NOT_FOUND)
        return result;
    /* Either the target or the directory is missing. If it is the target, the second attempt fails as well. */
    CIMFS_TRY(make_parents(importer));
    return importer->api->create_hard_link(importer->image, path, target);
}

static enum layer_import_event remember_added(struct layer_importer *importer)
{
    if (importer->has_parent && layer_path_set_add(&importer->added, importer->path.units, importer->path.length) < 0)
        return failed(importer, CIMFS_E_OUT_OF_MEMORY);
    return LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event remember_linked(struct layer_importer *importer)
{
    const struct layer_wide *path = &importer->path;
    size_t parent = path->length;
    while (parent > 0 && path->units[parent] != '\\')
        parent--;
    if (layer_path_set_add_one(&importer->linked, path->units, path->length) < 0 ||
        (parent > 0 && layer_path_set_add(&importer->above_linked, path->units, parent) < 0))
        return failed(importer, CIMFS_E_OUT_OF_MEMORY);
    return LAYER_IMPORT_STANDARD_LINK;
}

/* ---- entries ---- */

/* What a link names comes into the image later: a standard file that the layer brings, or a link to one. */
static int is_pending(const struct layer_importer *importer, const struct layer_wide *path)
{
    unsigned s = find_standard(importer, path);
    if (s == LAYER_MAX_STANDARD)
        return is_linked(importer, path);
    return !importer->has_parent || (importer->brought >> s & 1); /* a base layer has to bring it */
}

static enum layer_import_event start_link(struct layer_importer *importer)
{
    const char *reason = take_path(importer->tar.entry.link, &importer->target);
    if (!reason && importer->target.depth > importer->limits.path_depth)
        return beyond(importer, LAYER_LIMIT_PATH_DEPTH);
    if (!reason && importer->target.length == 0)
        reason = "a hard link without a target";
    if (!reason)
        reason = check_file_path(&importer->target);
    if (!reason && find_standard(importer, &importer->path) < LAYER_MAX_STANDARD)
        reason = "a hard link in place of a file that is processed outside the image";
    if (!reason)
        reason = check_place(importer, 0);
    if (reason)
        return bad(importer, reason);
    enum layer_import_event event = remember_added(importer);
    if (event != LAYER_IMPORT_NEED_INPUT)
        return event;
    importer->state = SKIP;
    importer->previous.length = 0;
    if (is_pending(importer, &importer->target))
        return remember_linked(importer);
    cimfs_hresult result = create_link(importer);
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return bad(importer, "the target of the hard link is not there");
    if (result == CIMFS_E_ACCESS_DENIED)
        return bad(importer, "a hard link to a directory");
    return result < 0 ? failed(importer, result) : LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event start_stream(struct layer_importer *importer)
{
    if (importer->tar.entry.type != LAYER_FILE || !follows_its_file(importer))
        return bad(importer, "a colon in a name that is not a stream of the file right before it");
    if (importer->previous_is_standard)
        return bad(importer, "a stream on a file that is processed outside the image");
    cimfs_hresult result = importer->api->create_alternate_stream(importer->image, importer->path.units,
                                                                  importer->tar.entry.size, &importer->stream);
    if (result < 0)
        return failed(importer, result);
    importer->state = TO_IMAGE;
    return remember_added(importer);
}

/* The entry's descriptor is known: make the file. */
static enum layer_import_event start_file(struct layer_importer *importer)
{
    const char *reason = check_place(importer, (importer->metadata.attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0);
    /* The image would say so too, but of a standard file only when nobody knows the entry any more. */
    if (!reason && importer->descriptor.size &&
        !cimfs_descriptor_is_valid(importer->descriptor.data, importer->descriptor.size))
        reason = "the security descriptor is malformed";
    if (reason)
        return bad(importer, reason);
    importer->metadata.security_descriptor = importer->descriptor.data;
    importer->metadata.security_descriptor_size = (uint32_t)importer->descriptor.size;
    enum layer_import_event event = remember_added(importer);
    if (event != LAYER_IMPORT_NEED_INPUT)
        return event;
    memcpy(importer->previous.units, importer->path.units, (importer->path.length + 1) * sizeof(uint16_t));
    importer->previous.length = importer->path.length;
    importer->file_bytes += importer->tar.entry.size;
    importer->utility_vm |= is_utility_vm(&importer->path);
    unsigned standard =
        importer->tar.entry.type == LAYER_FILE ? find_standard(importer, &importer->path) : LAYER_MAX_STANDARD;
    importer->previous_is_standard = standard < LAYER_MAX_STANDARD;
    if (importer->previous_is_standard) {
        importer->brought |= UINT64_C(1) << standard;
        importer->state = TO_STANDARD;
        return LAYER_IMPORT_STANDARD_FILE;
    }
    cimfs_hresult result = create_file(importer);
    if (result < 0)
        return failed(importer, result);
    importer->state = TO_IMAGE;
    return LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event start_entry(struct layer_importer *importer)
{
    const struct layer_entry *entry = &importer->tar.entry;
    const char *reason = take_path(entry->name, &importer->path);
    enum layer_limit limit = check_limits(importer);
    importer->entries++;
    importer->state = SKIP;
    if (limit)
        return beyond(importer, limit);
    if (reason)
        return bad(importer, reason);
    if (importer->path.length == 0)
        return entry->type == LAYER_DIRECTORY ? LAYER_IMPORT_NEED_INPUT /* "./": the root is there already */
                                              : bad(importer, "a file without a name");
    size_t leaf = importer->no_whiteouts ? SIZE_MAX : whiteout_at(&importer->path);
    if (leaf != SIZE_MAX)
        return take_whiteout(importer, leaf);
    reason = check_path(&importer->path);
    if (reason)
        return bad(importer, reason);
    if (has_stream_name(&importer->path))
        return start_stream(importer);
    if (entry->type == LAYER_HARD_LINK)
        return start_link(importer);
    reason = take_metadata(importer);
    importer->descriptor.size = 0;
    if (!reason && entry->raw_descriptor.data)
        reason = decode_descriptor(importer);
    if (reason)
        return bad(importer, reason);
    if (!entry->raw_descriptor.data && entry->sddl.size > LAYER_MAX_SDDL)
        return bad(importer, "a descriptor in SDDL of more than 262,144 bytes");
    if (!entry->raw_descriptor.data && entry->sddl.data && !cached_descriptor(importer)) {
        importer->state = AWAITING;
        return LAYER_IMPORT_SDDL;
    }
    return start_file(importer);
}

static enum layer_import_event end_entry(struct layer_importer *importer)
{
    int state = importer->state;
    importer->state = BETWEEN;
    if (state == TO_STANDARD)
        return LAYER_IMPORT_STANDARD_END;
    if (state == TO_IMAGE) {
        cimfs_hresult result = close_stream(importer);
        if (result < 0)
            return failed(importer, result);
    }
    return LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event take_data(struct layer_importer *importer, struct layer_slice piece)
{
    if (importer->state == TO_STANDARD)
        return LAYER_IMPORT_STANDARD_DATA;
    for (size_t done = 0; importer->state == TO_IMAGE && done < piece.size;) {
        size_t left = piece.size - done;
        uint32_t count = left < (1u << 30) ? (uint32_t)left : 1u << 30;
        cimfs_hresult result = importer->api->write_stream(importer->stream, piece.data + done, count);
        if (result < 0)
            return failed(importer, result);
        done += count;
    }
    return LAYER_IMPORT_NEED_INPUT;
}

/* An error is final: it comes again whatever follows. */
static enum layer_import_event error_before(const struct layer_importer *importer)
{
    if (importer->limit)
        return LAYER_IMPORT_LIMIT;
    if (importer->reason)
        return LAYER_IMPORT_BAD_ENTRY;
    return importer->code < 0 ? LAYER_IMPORT_FAILED : LAYER_IMPORT_NEED_INPUT;
}

enum layer_import_event layer_importer_next(struct layer_importer *importer, const uint8_t **input, size_t *size,
                                            struct layer_slice *piece)
{
    enum layer_import_event event = error_before(importer);
    if (event != LAYER_IMPORT_NEED_INPUT)
        return event;
    if (importer->state == AWAITING)
        event = start_file(importer);
    while (event == LAYER_IMPORT_NEED_INPUT) {
        switch (layer_tar_next(&importer->tar, input, size, piece)) {
        case LAYER_TAR_NEED_INPUT:
            return LAYER_IMPORT_NEED_INPUT;
        case LAYER_TAR_ENTRY:
            event = start_entry(importer);
            break;
        case LAYER_TAR_DATA:
            event = take_data(importer, *piece);
            break;
        case LAYER_TAR_ENTRY_END:
            event = end_entry(importer);
            break;
        case LAYER_TAR_END:
            return LAYER_IMPORT_END;
        case LAYER_TAR_ERROR:
            return LAYER_IMPORT_BAD_ARCHIVE;
        }
    }
    return event;
}

enum layer_import_event layer_importer_finish(struct layer_importer *importer)
{
    enum layer_import_event event = error_before(importer);
    if (event != LAYER_IMPORT_NEED_INPUT)
        return event;
    return layer_tar_finish(&importer->tar) < 0 ? LAYER_IMPORT_BAD_ARCHIVE : LAYER_IMPORT_END;
}
