#include "importer.h"

#include <string.h>

#include "base64.h"
#include "ea.h"
#include "libcimfs/format.h"
#include "libcimfs/names.h"
#include "reparse.h"

enum state {
    BETWEEN,     /* no entry is open */
    TO_IMAGE,    /* its data goes to the open stream */
    TO_STANDARD, /* its data goes to whoever asked for standard files */
    PLACING,     /* its place was asked for */
    AWAITING,    /* its descriptor was asked for */
    SKIP         /* it has no data of interest */
};

enum { REGULAR_ATTRIBUTES = CIMFS_ATTRIBUTE_ARCHIVE, ZEROS_AT_ONCE = 1 << 16, ZEROS_BETWEEN_PAUSES = 1 << 24 };

int layer_importer_init(struct layer_importer *importer, struct layer_builder *builder)
{
    memset(importer, 0, sizeof *importer);
    importer->builder = builder;
    layer_tar_init(&importer->tar);
    return layer_path_init(&importer->path) < 0 || layer_path_init(&importer->target) < 0 ? -1 : 0;
}

void layer_importer_cleanup(struct layer_importer *importer)
{
    layer_tar_cleanup(&importer->tar);
    layer_path_cleanup(&importer->path);
    layer_path_cleanup(&importer->target);
    free(importer->descriptor.data);
    free(importer->reparse.data);
    free(importer->ea.data);
    for (size_t i = 0; i < LAYER_KNOWN_DESCRIPTORS; i++) {
        free(importer->known[i].text.data);
        free(importer->known[i].descriptor.data);
    }
    memset(importer, 0, sizeof *importer);
}

static enum layer_import_event bad(struct layer_importer *importer, const char *reason)
{
    importer->builder->reason = reason;
    return LAYER_IMPORT_BAD_ENTRY;
}

/* What the builder has decided, as an event; inside and outside are those for what was not refused. */
static enum layer_import_event event_for(enum layer_decision decision, enum layer_import_event inside,
                                         enum layer_import_event outside)
{
    switch (decision) {
    case LAYER_OUTSIDE:
        return outside;
    case LAYER_REFUSED:
        return LAYER_IMPORT_BAD_ENTRY;
    case LAYER_BEYOND:
        return LAYER_IMPORT_LIMIT;
    case LAYER_FAILED:
        return LAYER_IMPORT_FAILED;
    default:
        return inside;
    }
}

static enum layer_import_event proceed(enum layer_decision decision)
{
    return event_for(decision, LAYER_IMPORT_NEED_INPUT, LAYER_IMPORT_NEED_INPUT);
}

/* ---- whiteouts ---- */

static const char WHITEOUT_PREFIX[] = ".wh.";
static const char OPAQUE_NAME[] = ".wh..wh..opq";

static int has_text(const uint16_t *units, size_t length, const char *text, size_t size)
{
    if (length < size)
        return 0;
    for (size_t i = 0; i < size; i++)
        if (units[i] != (uint16_t)text[i])
            return 0;
    return 1;
}

/* The last component's position, or SIZE_MAX if it is not a whiteout. */
static size_t whiteout_at(const struct layer_path *path)
{
    size_t parent = layer_path_parent(path->units, path->length), leaf = parent ? parent + 1 : 0;
    int is_one = has_text(path->units + leaf, path->length - leaf, WHITEOUT_PREFIX, sizeof WHITEOUT_PREFIX - 1);
    return is_one ? leaf : SIZE_MAX;
}

static enum layer_import_event take_whiteout(struct layer_importer *importer, size_t leaf)
{
    struct layer_path *path = &importer->path;
    size_t length = path->length - leaf, prefix = sizeof WHITEOUT_PREFIX - 1;
    if (length == sizeof OPAQUE_NAME - 1 && has_text(path->units + leaf, length, OPAQUE_NAME, length)) {
        path->length = leaf ? leaf - 1 : 0;
        path->units[path->length] = 0;
        return event_for(layer_builder_remove(importer->builder, path, 1), LAYER_IMPORT_OPAQUE, LAYER_IMPORT_OPAQUE);
    }
    if (length == prefix)
        return bad(importer, "a whiteout of nothing");
    memmove(path->units + leaf, path->units + leaf + prefix, (length - prefix + 1) * sizeof *path->units);
    path->length -= prefix;
    if (layer_path_stream(path) < path->length)
        return bad(importer, "a colon in the name of a whiteout");
    return event_for(layer_builder_remove(importer->builder, path, 0), LAYER_IMPORT_WHITEOUT, LAYER_IMPORT_WHITEOUT);
}

/* ---- metadata ---- */

/* NULL; or the reason given for what is no base64, or too long for any image. */
static const char *decode(struct layer_slice text, struct layer_buffer *to, const char *reason)
{
    if (layer_buffer_reserve(to, layer_base64_room(text.size) + 1) < 0)
        return "out of memory";
    size_t size = layer_base64_decode(text.data, text.size, to->data);
    if (size == SIZE_MAX || size == 0 || size > UINT16_MAX)
        return reason;
    to->size = size;
    return NULL;
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

/* Base64 or SDDL. No text is both: SDDL has colons. */
static struct layer_slice descriptor_text(const struct layer_entry *entry)
{
    return entry->raw_descriptor.data ? entry->raw_descriptor : entry->sddl;
}

/* Whether an entry before had the same descriptor; if so, it is taken from there. */
static int recall_descriptor(struct layer_importer *importer, struct layer_slice text)
{
    for (size_t i = 0; i < LAYER_KNOWN_DESCRIPTORS; i++) {
        const struct layer_known_descriptor *known = &importer->known[i];
        if (known->text.size == text.size && memcmp(known->text.data, text.data, text.size) == 0)
            return fill(&importer->descriptor, known->descriptor.data, known->descriptor.size) == 0;
    }
    return 0;
}

static int remember_descriptor(struct layer_importer *importer)
{
    struct layer_slice text = descriptor_text(&importer->tar.entry);
    struct layer_known_descriptor *slot = &importer->known[importer->next_known++ % LAYER_KNOWN_DESCRIPTORS];
    slot->text.size = 0;
    if (fill(&slot->descriptor, importer->descriptor.data, importer->descriptor.size) < 0)
        return -1;
    return fill(&slot->text, text.data, text.size);
}

int layer_importer_descriptor(struct layer_importer *importer, const uint8_t *data, size_t size)
{
    return fill(&importer->descriptor, data, size) < 0 ? -1 : remember_descriptor(importer);
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
    if (entry->sparse && !entry->has_attributes)
        attributes |= CIMFS_ATTRIBUTE_SPARSE;
    if (entry->type == LAYER_SYMLINK || entry->raw_reparse.data)
        attributes |= CIMFS_ATTRIBUTE_REPARSE_POINT;
    if (entry->type == LAYER_SYMLINK)
        return attributes;
    return entry->type == LAYER_DIRECTORY ? attributes | CIMFS_ATTRIBUTE_DIRECTORY
                                          : attributes & ~CIMFS_ATTRIBUTE_DIRECTORY;
}

/* Everything but the descriptor, which may have to be asked for. */
static const char *take_metadata(struct layer_importer *importer)
{
    const struct layer_entry *entry = &importer->tar.entry;
    const char *reason = NULL;
    importer->reparse.size = 0;
    if (entry->raw_reparse.data)
        reason = decode(entry->raw_reparse, &importer->reparse,
                        "a reparse point that is not base64, or longer than 65,535 bytes");
    else if (entry->type == LAYER_SYMLINK)
        reason = take_link_target(importer);
    if (reason)
        return reason;
    if (entry->raw_eas.data)
        reason = decode(entry->raw_eas, &importer->ea,
                        "extended attributes that are not base64, or longer than 65,535 bytes");
    else
        layer_ea_list(entry->eas, entry->ea_count, &importer->ea, &reason);
    if (reason)
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

/* ---- entries ---- */

static enum layer_import_event start_link(struct layer_importer *importer)
{
    enum layer_decision decision = layer_builder_link(importer->builder, &importer->path, &importer->target);
    if (decision == LAYER_INSIDE)
        decision = layer_builder_make_link(importer->builder, &importer->path, &importer->target);
    return event_for(decision, LAYER_IMPORT_NEED_INPUT, LAYER_IMPORT_STANDARD_LINK);
}

/* Is path a stream of what came right before it? */
static int follows_its_file(const struct layer_importer *importer)
{
    const struct layer_path *previous = &importer->builder->previous;
    return previous->length > 0 && importer->path.length > previous->length &&
           importer->path.units[previous->length] == ':' &&
           memcmp(importer->path.units, previous->units, previous->length * sizeof(uint16_t)) == 0;
}

static enum layer_import_event start_stream(struct layer_importer *importer)
{
    const char *reason = layer_path_check(&importer->path);
    if (!reason && (importer->tar.entry.type != LAYER_FILE || !follows_its_file(importer)))
        reason = "a colon in a name that is not a stream of the file right before it";
    if (reason)
        return bad(importer, reason);
    importer->state = TO_IMAGE;
    return proceed(layer_builder_stream(importer->builder, &importer->path, importer->tar.entry.size));
}

static int is_aligned(const struct layer_importer *importer)
{
    const struct layer_tar *tar = &importer->tar;
    return importer->asks_aligned && tar->entry.size >= LAYER_LARGE && !tar->entry.sparse &&
           tar->offset % CIMFS_PAGE == 0;
}

/* The entry's descriptor is known: make the file. */
static enum layer_import_event start_file(struct layer_importer *importer)
{
    struct layer_builder *builder = importer->builder;
    enum layer_decision decision = layer_builder_add(builder, &importer->path, importer->metadata.attributes);
    int outside = decision == LAYER_OUTSIDE;
    if (decision == LAYER_INSIDE || outside)
        decision = layer_builder_check_descriptor(builder, importer->descriptor.data, importer->descriptor.size);
    if (decision != LAYER_INSIDE)
        return proceed(decision);
    importer->metadata.security_descriptor = importer->descriptor.data;
    importer->metadata.security_descriptor_size = (uint32_t)importer->descriptor.size;
    importer->file_bytes += importer->tar.entry.size;
    importer->state = outside ? TO_STANDARD : TO_IMAGE;
    if (outside)
        return LAYER_IMPORT_STANDARD_FILE;
    decision = layer_builder_create(builder, &importer->path, &importer->metadata);
    return event_for(decision, is_aligned(importer) ? LAYER_IMPORT_ALIGNED : LAYER_IMPORT_NEED_INPUT,
                     LAYER_IMPORT_NEED_INPUT);
}

/* All but the entry's descriptor is known. */
static enum layer_import_event start_undescribed(struct layer_importer *importer)
{
    struct layer_slice raw = importer->tar.entry.raw_descriptor, text = descriptor_text(&importer->tar.entry);
    importer->descriptor.size = 0;
    if (text.size > 0 && recall_descriptor(importer, text))
        return start_file(importer);
    if (raw.data) {
        const char *reason =
            decode(raw, &importer->descriptor, "a security descriptor that is not base64, or longer than 65,535 bytes");
        if (!reason && remember_descriptor(importer) < 0)
            reason = "out of memory";
        return reason ? bad(importer, reason) : start_file(importer);
    }
    if (text.size == 0)
        return start_file(importer);
    if (text.size > LAYER_MAX_SDDL)
        return bad(importer, "a descriptor in SDDL of more than 262,144 bytes");
    importer->state = AWAITING;
    return LAYER_IMPORT_SDDL;
}

/* Where the entry is to go is known. */
static enum layer_import_event start_placed(struct layer_importer *importer, const char *reason)
{
    const struct layer_entry *entry = &importer->tar.entry;
    enum layer_decision counted = layer_builder_count(importer->builder, &importer->path, entry->size);
    importer->entries++;
    importer->state = SKIP;
    importer->has_data = 0;
    if (counted != LAYER_INSIDE)
        return proceed(counted);
    if (entry->type == LAYER_OTHER)
        return LAYER_IMPORT_PASSED_OVER;
    if (reason)
        return bad(importer, reason);
    if (importer->path.length == 0 && entry->type == LAYER_DIRECTORY)
        return LAYER_IMPORT_NEED_INPUT; /* "./": the root is there already, whatever is said of it */
    size_t leaf = importer->plain ? SIZE_MAX : whiteout_at(&importer->path);
    if (leaf != SIZE_MAX)
        return take_whiteout(importer, leaf);
    if (layer_path_stream(&importer->path) < importer->path.length)
        return start_stream(importer);
    if (entry->type == LAYER_HARD_LINK)
        return start_link(importer);
    reason = take_metadata(importer);
    return reason ? bad(importer, reason) : start_undescribed(importer);
}

static enum layer_import_event start_entry(struct layer_importer *importer)
{
    const struct layer_entry *entry = &importer->tar.entry;
    const char *reason = layer_path_from_tar(&importer->path, entry->name.data, entry->name.size);
    if (!reason && entry->type == LAYER_HARD_LINK)
        reason = layer_path_from_tar(&importer->target, entry->link.data, entry->link.size);
    int is_root = importer->path.length == 0 && entry->type == LAYER_DIRECTORY;
    if (!importer->plain || entry->type == LAYER_OTHER || (!reason && is_root))
        return start_placed(importer, reason);
    if (!reason && importer->path.length > 0)
        reason = layer_path_check(&importer->path);
    importer->unsuitable = entry->type == LAYER_SPECIAL ? entry->other : reason;
    importer->state = PLACING;
    return LAYER_IMPORT_PLACE;
}

void layer_importer_place(struct layer_importer *importer, int leave_out)
{
    if (leave_out)
        importer->state = SKIP;
}

static enum layer_import_event end_entry(struct layer_importer *importer)
{
    int state = importer->state;
    importer->state = BETWEEN;
    if (state == TO_STANDARD)
        return LAYER_IMPORT_STANDARD_END;
    return state == TO_IMAGE ? proceed(layer_builder_close_stream(importer->builder)) : LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event take_data(struct layer_importer *importer, struct layer_slice piece)
{
    if (importer->state == TO_STANDARD)
        return LAYER_IMPORT_STANDARD_DATA;
    if (importer->state != TO_IMAGE)
        return LAYER_IMPORT_NEED_INPUT;
    importer->has_data = 1;
    return proceed(layer_builder_write(importer->builder, piece.data, piece.size));
}

/* A file that is one hole is not written at all, which makes it sparse. */
static enum layer_import_event take_hole(struct layer_importer *importer, size_t size)
{
    if (importer->state == TO_STANDARD)
        return LAYER_IMPORT_STANDARD_HOLE;
    if (importer->state == TO_IMAGE && (importer->tar.left > 0 || importer->has_data))
        importer->zeros = size;
    return LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event write_zeros(struct layer_importer *importer)
{
    static const uint8_t zeros[ZEROS_AT_ONCE];
    for (uint64_t written = 0; importer->zeros > 0; written += ZEROS_AT_ONCE) {
        if (written == ZEROS_BETWEEN_PAUSES)
            return LAYER_IMPORT_PAUSE;
        size_t count = importer->zeros < sizeof zeros ? (size_t)importer->zeros : sizeof zeros;
        enum layer_decision decision = layer_builder_write(importer->builder, zeros, count);
        if (decision != LAYER_INSIDE)
            return proceed(decision);
        importer->zeros -= count;
    }
    return LAYER_IMPORT_NEED_INPUT;
}

static enum layer_import_event take_event(struct layer_importer *importer, enum layer_tar_event event,
                                          struct layer_slice piece)
{
    switch (event) {
    case LAYER_TAR_ENTRY:
        return start_entry(importer);
    case LAYER_TAR_DATA:
        return take_data(importer, piece);
    case LAYER_TAR_HOLE:
        return take_hole(importer, piece.size);
    case LAYER_TAR_ENTRY_END:
        return end_entry(importer);
    case LAYER_TAR_END:
        return LAYER_IMPORT_END;
    default:
        return LAYER_IMPORT_BAD_ARCHIVE;
    }
}

enum layer_import_event layer_importer_next(struct layer_importer *importer, const uint8_t **input, size_t *size,
                                            struct layer_slice *piece)
{
    enum layer_import_event event = importer->error;
    if (event == LAYER_IMPORT_NEED_INPUT && importer->state == PLACING)
        event = start_placed(importer, importer->unsuitable);
    else if (event == LAYER_IMPORT_NEED_INPUT && importer->state == AWAITING)
        event = start_file(importer);
    while (event == LAYER_IMPORT_NEED_INPUT) {
        if (importer->zeros > 0) {
            event = write_zeros(importer);
            continue;
        }
        enum layer_tar_event found = layer_tar_next(&importer->tar, input, size, piece);
        if (found == LAYER_TAR_NEED_INPUT)
            return LAYER_IMPORT_NEED_INPUT;
        event = take_event(importer, found, *piece);
    }
    if (event >= LAYER_IMPORT_BAD_ENTRY)
        importer->error = event;
    return event;
}

void *layer_importer_room(const struct layer_importer *importer, size_t *size)
{
    uint32_t room;
    uint64_t left = layer_tar_content(&importer->tar);
    if (importer->state != TO_IMAGE || importer->zeros > 0 || left < LAYER_LARGE)
        return NULL;
    void *to = layer_builder_room(importer->builder, &room);
    *size = to && room < left ? room : (size_t)left;
    return to;
}

enum layer_import_event layer_importer_finish(struct layer_importer *importer)
{
    if (importer->error != LAYER_IMPORT_NEED_INPUT)
        return importer->error;
    return layer_tar_finish(&importer->tar) < 0 ? LAYER_IMPORT_BAD_ARCHIVE : LAYER_IMPORT_END;
}
