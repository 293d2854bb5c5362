/*
 * The functions of cimfs.h on an open image: files, streams, links, removals, commit.
 */
#include "image.h"

#include <inttypes.h>
#include <stdio.h>

#include "metadata.h"

cimfs_hresult cimfs_image_fail(struct cimfs_image_writer *image, cimfs_hresult code, const char *reason)
{
    if (image->error && image->error->code == code)
        return code;
    return cimfs_fail(image->error, code, image->name, CIMFS_NO_OFFSET, reason);
}

cimfs_hresult cimfs_image_fail_to_store(struct cimfs_image_writer *image, cimfs_hresult code, const char *reason)
{
    return cimfs_image_fail(image, code, code == CIMFS_E_DISK_FULL ? "the disk is full" : reason);
}

void cimfs_image_forget_error(struct cimfs_image_writer *image)
{
    if (image->error)
        image->error->code = CIMFS_OK;
}

/* What every call checks first: the image takes calls, and no stream is open. */
static cimfs_hresult check_idle(struct cimfs_image_writer *image)
{
    if (!image)
        return CIMFS_E_INVALID_ARG;
    cimfs_image_forget_error(image);
    if (image->state != CIMFS_IMAGE_OPEN)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, "the image can only be closed");
    if (image->streaming)
        return cimfs_image_fail(image, CIMFS_E_SHARING_VIOLATION, "a stream is open");
    return CIMFS_OK;
}

/*
 * After a failure in the middle of a change (a full disk, a parent that cannot be read) the image can only be
 * closed; a call that was wrong from the start leaves it as it was.
 */
static cimfs_hresult settle(struct cimfs_image_writer *image, cimfs_hresult result)
{
    switch (result) {
    case CIMFS_OK:
    case CIMFS_E_INVALID_ARG:
    case CIMFS_E_PATH_NOT_FOUND:
    case CIMFS_E_ACCESS_DENIED:
    case CIMFS_E_HANDLE_EOF:
        return result;
    default:
        image->state = CIMFS_IMAGE_FAILED;
        return result;
    }
}

static cimfs_hresult parse(struct cimfs_image_writer *image, const cimfs_wchar *text, int stream_allowed,
                           struct cimfs_path *path)
{
    const char *reason;
    if (!text)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, "no path");
    if (cimfs_path_parse(text, path, &reason) < 0)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, reason);
    if (path->stream.length && !stream_allowed)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, "a stream name where a file's is expected");
    return CIMFS_OK;
}

static struct cimfs_raw_stream sparse_stream(uint64_t length)
{
    return (struct cimfs_raw_stream){put64(0), put64(length ? length | CIMFS_STREAM_SPARSE : 0)};
}

static void start_stream(struct cimfs_image_writer *image, uint32_t file, uint64_t size, int is_directory,
                         const cimfs_wchar *text, const struct cimfs_path *path, cimfs_stream *stream)
{
    enum { LONGEST = sizeof image->stream.path / sizeof *image->stream.path };
    struct cimfs_stream_writer *opened = &image->stream;
    const struct cimfs_name *name = &path->stream, *last = name->length ? name : &path->leaf;
    size_t length = (size_t)(last->units + last->length - text);
    opened->image = image;
    opened->file = file;
    opened->is_directory = is_directory;
    opened->name_length = name->length;
    if (name->length)
        memcpy(opened->name, name->units, name->length * sizeof *name->units);
    opened->path_length = (uint32_t)(length < LONGEST ? length : LONGEST);
    memcpy(opened->path, text, opened->path_length * sizeof *text);
    cimfs_object_begin(&opened->writer, &image->objects, size);
    image->streaming = 1;
    *stream = opened;
}

static cimfs_hresult add_file(struct cimfs_image_writer *image, const struct cimfs_path *path,
                              const struct cimfs_file_metadata *metadata, uint32_t *id)
{
    uint32_t directory, existing;
    struct cimfs_record record, old;
    int is_directory = (metadata->attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0;
    CIMFS_TRY(cimfs_tree_directory(&image->tree, path->directory, &directory));
    CIMFS_TRY(cimfs_metadata_store(&image->objects, metadata, &record));
    if (!is_directory) {
        record.data = sparse_stream((uint64_t)metadata->file_size);
        return cimfs_tree_add(&image->tree, directory, path->leaf, &record, id);
    }
    CIMFS_TRY(cimfs_tree_find(&image->tree, directory, path->leaf, &existing));
    if (existing) {
        CIMFS_TRY(cimfs_tree_record(&image->tree, existing, &old));
        if (cimfs_is_directory(&old)) {
            /* A directory over a directory: new metadata, the same children. */
            record.data = old.data;
            record.parent = old.parent;
            record.base_region = old.base_region;
            record.streams = old.streams;
            *id = existing;
            return cimfs_tree_update(&image->tree, existing, &record);
        }
    }
    record.data.length_type_flags = put64((uint64_t)CIMFS_STREAM_LINKS << CIMFS_STREAM_TYPE_SHIFT);
    return cimfs_tree_add(&image->tree, directory, path->leaf, &record, id);
}

static cimfs_hresult CIMFS_CALL create_file(cimfs_image image, const cimfs_wchar *text,
                                            const struct cimfs_file_metadata *metadata, cimfs_stream *stream)
{
    struct cimfs_path path;
    uint32_t id = 0;
    *stream = NULL;
    CIMFS_TRY(check_idle(image));
    CIMFS_TRY(parse(image, text, 0, &path));
    if (!metadata)
        return cimfs_image_fail(image, CIMFS_E_POINTER, "no metadata");
    const char *problem = cimfs_metadata_problem(metadata);
    if (problem)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, problem);
    cimfs_hresult result = settle(image, add_file(image, &path, metadata, &id));
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return cimfs_image_fail(image, result, "the parent directory does not exist");
    CIMFS_TRY(result);
    int is_directory = (metadata->attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0;
    start_stream(image, id, is_directory ? 0 : (uint64_t)metadata->file_size, is_directory, text, &path, stream);
    return CIMFS_OK;
}

/* The file or directory that a path names. */
static cimfs_hresult find_path(struct cimfs_image_writer *image, const struct cimfs_path *path, uint32_t *id)
{
    uint32_t directory;
    CIMFS_TRY(cimfs_tree_directory(&image->tree, path->directory, &directory));
    CIMFS_TRY(cimfs_tree_find(&image->tree, directory, path->leaf, id));
    return *id ? CIMFS_OK : CIMFS_E_PATH_NOT_FOUND;
}

static cimfs_hresult CIMFS_CALL create_alternate_stream(cimfs_image image, const cimfs_wchar *text, uint64_t size,
                                                        cimfs_stream *stream)
{
    struct cimfs_path path;
    uint32_t id = 0;
    *stream = NULL;
    CIMFS_TRY(check_idle(image));
    CIMFS_TRY(parse(image, text, 1, &path));
    if (path.stream.length == 0 || size > CIMFS_OFFSET_MASK)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, "not path:stream, or a size of more than 48 bits");
    cimfs_hresult result = settle(image, find_path(image, &path, &id));
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return cimfs_image_fail(image, result, "the file of the stream does not exist");
    CIMFS_TRY(result);
    CIMFS_TRY(settle(image, cimfs_tree_set_stream(&image->tree, id, path.stream, sparse_stream(size))));
    start_stream(image, id, size, 0, text, &path, stream);
    return CIMFS_OK;
}

static cimfs_hresult CIMFS_CALL write_stream(cimfs_stream stream, const void *buffer, uint32_t size)
{
    if (!stream || !stream->image->streaming || stream->image->state != CIMFS_IMAGE_OPEN)
        return CIMFS_E_INVALID_ARG;
    struct cimfs_image_writer *image = stream->image;
    cimfs_image_forget_error(image);
    if (stream->is_directory)
        return cimfs_image_fail(image, CIMFS_E_INVALID_ARG, "a directory has no content to write");
    if (!buffer)
        return cimfs_image_fail(image, CIMFS_E_POINTER, "no buffer");
    uint64_t room = stream->writer.size - stream->writer.written;
    uint32_t fits = size < room ? size : (uint32_t)room;
    cimfs_hresult result = cimfs_object_write(&stream->writer, buffer, fits);
    if (result < 0) {
        image->state = CIMFS_IMAGE_FAILED;
        return cimfs_image_fail_to_store(image, result, "the data cannot be stored");
    }
    return fits < size ? cimfs_image_fail(image, CIMFS_E_HANDLE_EOF, "more data than the stream's size") : CIMFS_OK;
}

static void *stream_room(cimfs_stream stream, uint32_t *size)
{
    if (!stream || !stream->image->streaming || stream->image->state != CIMFS_IMAGE_OPEN || stream->is_directory)
        return NULL;
    return cimfs_object_room(&stream->writer, size);
}

static cimfs_hresult finish_stream(struct cimfs_stream_writer *stream)
{
    struct cimfs_tree *tree = &stream->image->tree;
    struct cimfs_raw_stream field;
    uint64_t offset;
    if (stream->writer.written == 0)
        return CIMFS_OK; /* it was recorded as empty or sparse when it was made */
    CIMFS_TRY(cimfs_object_end(&stream->writer, &offset));
    field = (struct cimfs_raw_stream){put64(offset), put64(stream->writer.size)};
    if (stream->name_length)
        return cimfs_tree_set_stream(tree, stream->file, (struct cimfs_name){stream->name, stream->name_length}, field);
    struct cimfs_record record;
    CIMFS_TRY(cimfs_tree_record(tree, stream->file, &record));
    record.data = field;
    return cimfs_tree_update(tree, stream->file, &record);
}

/* Whoever announced more bytes was interrupted. What close_stream returns may not be looked at: commit says it again.
 */
static void cut_short(struct cimfs_stream_writer *stream)
{
    struct cimfs_image_writer *image = stream->image;
    char path[sizeof image->cut_short.file];
    cimfs_utf8_from_wide(stream->path, stream->path_length, path, sizeof path);
    snprintf(image->cut_short_reason, sizeof image->cut_short_reason,
             "a stream was closed after %" PRIu64 " of its %" PRIu64 " bytes", stream->writer.written,
             stream->writer.size);
    cimfs_fail(&image->cut_short, CIMFS_E_HANDLE_EOF, path, CIMFS_NO_OFFSET, image->cut_short_reason);
}

static cimfs_hresult check_whole(struct cimfs_image_writer *image)
{
    if (image->error && image->cut_short.code < 0)
        *image->error = image->cut_short;
    return image->cut_short.code;
}

static cimfs_hresult CIMFS_CALL close_stream(cimfs_stream stream)
{
    if (!stream || !stream->image->streaming)
        return CIMFS_E_INVALID_ARG;
    struct cimfs_image_writer *image = stream->image;
    cimfs_image_forget_error(image);
    image->streaming = 0;
    if (image->state != CIMFS_IMAGE_OPEN)
        return CIMFS_OK;
    if (stream->writer.written > 0 && stream->writer.written < stream->writer.size) {
        cut_short(stream);
        return check_whole(image);
    }
    cimfs_hresult result = finish_stream(stream);
    if (result < 0) {
        image->state = CIMFS_IMAGE_FAILED;
        return cimfs_image_fail_to_store(image, result, "the stream cannot be stored");
    }
    return CIMFS_OK;
}

static cimfs_hresult link_file(struct cimfs_image_writer *image, const struct cimfs_path *new_path,
                               const struct cimfs_path *existing)
{
    uint32_t id, directory;
    struct cimfs_record record;
    CIMFS_TRY(find_path(image, existing, &id));
    CIMFS_TRY(cimfs_tree_record(&image->tree, id, &record));
    if (cimfs_is_directory(&record))
        return CIMFS_E_ACCESS_DENIED;
    CIMFS_TRY(cimfs_tree_directory(&image->tree, new_path->directory, &directory));
    return cimfs_tree_link(&image->tree, directory, new_path->leaf, id);
}

static cimfs_hresult CIMFS_CALL create_hard_link(cimfs_image image, const cimfs_wchar *new_text,
                                                 const cimfs_wchar *existing_text)
{
    struct cimfs_path new_path, existing;
    CIMFS_TRY(check_idle(image));
    CIMFS_TRY(parse(image, new_text, 0, &new_path));
    CIMFS_TRY(parse(image, existing_text, 0, &existing));
    cimfs_hresult result = settle(image, link_file(image, &new_path, &existing));
    if (result == CIMFS_E_ACCESS_DENIED)
        return cimfs_image_fail(image, result, "a hard link to a directory");
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return cimfs_image_fail(image, result, "the link's target or its directory does not exist");
    return result;
}

static cimfs_hresult remove_path(struct cimfs_image_writer *image, const struct cimfs_path *path)
{
    uint32_t id;
    if (path->stream.length) {
        CIMFS_TRY(find_path(image, path, &id));
        return cimfs_tree_remove_stream(&image->tree, id, path->stream);
    }
    CIMFS_TRY(cimfs_tree_directory(&image->tree, path->directory, &id));
    return cimfs_tree_unlink(&image->tree, id, path->leaf);
}

static cimfs_hresult CIMFS_CALL delete_path(cimfs_image image, const cimfs_wchar *text)
{
    struct cimfs_path path;
    CIMFS_TRY(check_idle(image));
    CIMFS_TRY(parse(image, text, 1, &path));
    cimfs_hresult result = settle(image, remove_path(image, &path));
    return result == CIMFS_E_PATH_NOT_FOUND ? cimfs_image_fail(image, result, "the path does not exist") : result;
}

static cimfs_hresult CIMFS_CALL commit_image(cimfs_image image)
{
    CIMFS_TRY(check_idle(image));
    CIMFS_TRY(check_whole(image));
    image->state = CIMFS_IMAGE_FAILED; /* until it succeeds */
    cimfs_hresult result = cimfs_image_commit(image);
    return result < 0 ? cimfs_image_fail_to_store(image, result, "the image cannot be committed") : CIMFS_OK;
}

static cimfs_hresult write_behind(cimfs_image image)
{
    CIMFS_TRY(check_idle(image));
    cimfs_objects_write_behind(&image->objects);
    return CIMFS_OK;
}

static cimfs_hresult CIMFS_CALL create_image(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                             const cimfs_wchar *new_name, cimfs_image *image)
{
    static const struct cimfs_options defaults;
    return cimfs_image_open(containing_path, existing_name, new_name, &defaults, image);
}

static const struct cimfs_api PORTABLE = {
    .name = "portable",
    .close_stream_answers = 1,
    .create_image = create_image,
    .close_image = cimfs_image_close,
    .commit_image = commit_image,
    .create_file = create_file,
    .write_stream = write_stream,
    .close_stream = close_stream,
    .create_alternate_stream = create_alternate_stream,
    .create_hard_link = create_hard_link,
    .delete_path = delete_path,
    .create_image_with = cimfs_image_open,
    .write_behind = write_behind,
    .stream_room = stream_room,
};

const struct cimfs_api *cimfs_portable_api(void)
{
    return &PORTABLE;
}
