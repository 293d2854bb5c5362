/*
 * The functions of cimfs.h: create, fork, extend, write, commit, abandon.
 */
#include <stdlib.h>

#include "guid.h"
#include "metadata.h"
#include "tree.h"

enum state { OPEN, FAILED, COMMITTED };

struct cimfs_stream {
    struct cimfs_image *image;
    struct cimfs_object_writer writer;
    uint32_t file;
    int is_directory;
    uint16_t name[CIMFS_MAX_NAME]; /* of an alternate stream */
    uint32_t name_length;          /* 0: the file's own content */
};

struct cimfs_image {
    const struct cimfs_io *io;
    struct cimfs_error *error;
    cimfs_file directory;
    enum state state;
    int no_sync;
    int64_t time;
    cimfs_file existing; /* the .cim file that is forked or extended: held, so that it stays */
    struct cimfs_reader *base;
    struct cimfs_objects objects;
    struct cimfs_tree tree;
    int streaming;
    struct cimfs_stream stream;  /* the one that may be open */
    char name[256];              /* of the .cim file */
    char draft[CIMFS_FILE_NAME]; /* of the .cim file until it is complete */
    cimfs_file draft_file;       /* held: whoever has it is the one writer of the image */
};

/* Say what failed, unless something below has said it more precisely in this call. */
static cimfs_hresult fail(struct cimfs_image *image, cimfs_hresult code, const char *reason)
{
    if (image->error && image->error->code == code)
        return code;
    return cimfs_fail(image->error, code, image->name, CIMFS_NO_OFFSET, reason);
}

/* The same for what is written: a disk without room is what people can do something about. */
static cimfs_hresult fail_to_store(struct cimfs_image *image, cimfs_hresult code, const char *reason)
{
    return fail(image, code, code == CIMFS_E_DISK_FULL ? "the disk is full" : reason);
}

static void forget_error(struct cimfs_image *image)
{
    if (image->error)
        image->error->code = CIMFS_OK;
}

/* ---- opening ---- */

/* A wide string as UTF-8; INVALID_ARG if it does not fit. */
static cimfs_hresult narrow(const cimfs_wchar *text, size_t length, char *to, size_t capacity)
{
    if (length == SIZE_MAX || cimfs_utf8_from_wide(text, length, to, capacity) >= capacity)
        return CIMFS_E_INVALID_ARG;
    return CIMFS_OK;
}

static cimfs_hresult image_name(struct cimfs_image *image, const cimfs_wchar *text, char name[256])
{
    struct cimfs_path path;
    const char *reason;
    if (cimfs_path_parse(text, &path, &reason) < 0 || path.directory.length || path.stream.length ||
        narrow(path.leaf.units, path.leaf.length, name, 256) < 0)
        return cimfs_fail(image->error, CIMFS_E_INVALID_ARG, name, CIMFS_NO_OFFSET, "not the name of an image");
    return CIMFS_OK;
}

static cimfs_hresult choose_set(struct cimfs_image *image, const struct cimfs_options *options, int extends,
                                struct cimfs_guid *set)
{
    uint32_t count = 0;
    const struct cimfs_set *sets = image->base ? cimfs_reader_sets(image->base, &count) : NULL;
    if (extends) {
        *set = sets[count - 1].id;
        if (sets[count - 1].count != CIMFS_OWN_REGIONS)
            return fail(image, CIMFS_E_NOTIMPL, "only an image with three regions of its own can be extended");
        return CIMFS_OK;
    }
    if (sets && cimfs_reader_region_count(image->base) + CIMFS_OWN_REGIONS > CIMFS_MAX_REGIONS)
        return fail(image, CIMFS_E_DISK_FULL, "the image would have more than 65,536 regions");
    if (options->seed) {
        struct cimfs_hash hash;
        cimfs_hash_init(&hash);
        cimfs_hash_update(&hash, options->seed, options->seed_size);
        if (sets)
            cimfs_hash_update(&hash, &sets[count - 1].id, sizeof sets->id);
        cimfs_hash_update(&hash, image->name, strlen(image->name));
        cimfs_hash_final(&hash, set->b);
    } else {
        CIMFS_TRY(image->io->random(set->b, sizeof set->b));
    }
    cimfs_guid_stamp(set);
    return CIMFS_OK;
}

static cimfs_hresult root_record(struct cimfs_image *image, struct cimfs_record *root)
{
    struct cimfs_file_metadata metadata = {.creation_time = image->time,
                                           .last_write_time = image->time,
                                           .change_time = image->time,
                                           .last_access_time = image->time};
    CIMFS_TRY(cimfs_metadata_store(&image->objects, &metadata, root));
    root->parent = put32(1);
    root->data.length_type_flags = put64((uint64_t)CIMFS_STREAM_LINKS << CIMFS_STREAM_TYPE_SHIFT);
    return CIMFS_OK;
}

static cimfs_hresult check_absent(struct cimfs_image *image)
{
    cimfs_file file;
    cimfs_hresult result = image->io->open(image->directory, image->name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND)
        return CIMFS_OK;
    if (result == CIMFS_OK)
        image->io->close(file);
    else if (result == CIMFS_E_IO_DEVICE || result == CIMFS_E_TOO_MANY_OPEN_FILES || result == CIMFS_E_OUT_OF_MEMORY)
        return fail(image, result, "whether the name is taken cannot be told");
    return fail(image, CIMFS_E_FILE_EXISTS, "an image of that name is there");
}

/* Open a file and hold it; what replaces it meanwhile is held instead. *file is CIMFS_NO_FILE if that fails. */
static cimfs_hresult hold(struct cimfs_image *image, const char *name, enum cimfs_open_mode mode, enum cimfs_lock kind,
                          cimfs_file *file)
{
    enum { TRIES = 100 }; /* each is lost to somebody who removes the file in between */
    const struct cimfs_io *io = image->io;
    for (int i = 0; i < TRIES; i++) {
        cimfs_hresult result = io->open(image->directory, name, mode, file);
        int made = mode == CIMFS_OPEN_CREATE && result == CIMFS_OK;
        if (result == CIMFS_E_FILE_EXISTS)
            result = io->open(image->directory, name, CIMFS_OPEN_WRITE, file);
        if (result == CIMFS_E_FILE_NOT_FOUND && mode == CIMFS_OPEN_CREATE)
            continue;
        CIMFS_TRY(result);
        result = io->lock(image->directory, name, *file, kind);
        if (result == CIMFS_OK)
            return result;
        if (made && result != CIMFS_E_SHARING_VIOLATION && result != CIMFS_E_FILE_NOT_FOUND)
            io->remove(image->directory, name); /* else it is another's by now */
        io->close(*file);
        *file = CIMFS_NO_FILE;
        if (result != CIMFS_E_FILE_NOT_FOUND)
            return result;
    }
    return CIMFS_E_SHARING_VIOLATION;
}

/* Become the one writer of the image: its draft has a name that follows from the image's, and is held. */
static cimfs_hresult claim_name(struct cimfs_image *image)
{
    cimfs_draft_name(image->name, image->draft);
    cimfs_hresult result = hold(image, image->draft, CIMFS_OPEN_CREATE, CIMFS_LOCK_ALONE, &image->draft_file);
    if (result == CIMFS_E_SHARING_VIOLATION)
        return cimfs_fail(image->error, result, image->draft, CIMFS_NO_OFFSET, "the image is being written");
    return result < 0 ? fail(image, result, "the image's draft cannot be made") : result;
}

/* What is forked or extended stays as it is: nobody extends or destroys it meanwhile. */
static cimfs_hresult open_existing(struct cimfs_image *image, const char *path, const char *existing, int extends)
{
    cimfs_hresult result = hold(image, existing, extends ? CIMFS_OPEN_WRITE : CIMFS_OPEN_READ,
                                extends ? CIMFS_LOCK_ALONE : CIMFS_LOCK_SHARED, &image->existing);
    if (result == CIMFS_E_SHARING_VIOLATION)
        return cimfs_fail(image->error, result, existing, CIMFS_NO_OFFSET,
                          extends ? "the image is being forked, extended or destroyed"
                                  : "the image is being extended or destroyed");
    CIMFS_TRY(cimfs_reader_open(image->io, path, existing, image->error, &image->base)); /* which says what is wrong */
    return result < 0 ? fail(image, result, "the image cannot be held") : result;
}

static cimfs_hresult open_image(struct cimfs_image *image, const char *path, const cimfs_wchar *existing_name,
                                const cimfs_wchar *new_name, const struct cimfs_options *options)
{
    char existing[256] = "";
    struct cimfs_guid set;
    struct cimfs_record root = {0};
    if (existing_name)
        CIMFS_TRY(image_name(image, existing_name, existing));
    CIMFS_TRY(image_name(image, new_name ? new_name : existing_name, image->name));
    int extends = existing_name && strcmp(existing, image->name) == 0;
    cimfs_hresult result = image->io->open_directory(path, &image->directory);
    if (result < 0)
        return cimfs_fail(image->error, result, path, CIMFS_NO_OFFSET, "the directory cannot be opened");
    if (!extends)
        CIMFS_TRY(check_absent(image)); /* without waiting for one that replaces it */
    CIMFS_TRY(claim_name(image));
    if (!extends)
        CIMFS_TRY(check_absent(image));
    if (existing_name)
        CIMFS_TRY(open_existing(image, path, existing, extends));
    CIMFS_TRY(choose_set(image, options, extends, &set));
    result = cimfs_objects_open(&image->objects, image->io, image->directory, &set, image->base, extends);
    if (result == CIMFS_E_FILE_EXISTS)
        return cimfs_fail(image->error, result, image->objects.regions[image->objects.created].name, CIMFS_NO_OFFSET,
                          "a region file of that set is there, without its image");
    if (result < 0)
        return fail(image, result,
                    result == CIMFS_E_SHARING_VIOLATION ? "its region files were taken for garbage"
                                                        : "the region files cannot be opened");
    if (!image->base)
        CIMFS_TRY(root_record(image, &root));
    return cimfs_tree_open(&image->tree, image->io, &image->objects, image->base, &root, image->error);
}

static void close_draft(struct cimfs_image *image, int remove)
{
    if (image->draft_file == CIMFS_NO_FILE)
        return;
    if (remove)
        image->io->remove(image->directory, image->draft); /* while it is held: afterwards it may be another's */
    image->io->close(image->draft_file);
    image->draft_file = CIMFS_NO_FILE;
}

static void close_existing(struct cimfs_image *image)
{
    if (image->existing != CIMFS_NO_FILE)
        image->io->close(image->existing);
    image->existing = CIMFS_NO_FILE;
}

static void CIMFS_CALL close_image(cimfs_image image)
{
    if (!image)
        return;
    cimfs_tree_close(&image->tree);
    cimfs_reader_close(image->base); /* before anything is truncated: Windows cuts no file that is mapped */
    if (image->state != COMMITTED && image->directory != CIMFS_NO_FILE)
        cimfs_objects_abandon(&image->objects);
    cimfs_objects_close(&image->objects);
    close_draft(image, image->state != COMMITTED);
    close_existing(image);
    if (image->directory != CIMFS_NO_FILE)
        image->io->close(image->directory);
    free(image);
}

static cimfs_hresult create_image_with(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                       const cimfs_wchar *new_name, const struct cimfs_options *options,
                                       cimfs_image *out)
{
    enum { PATH_BYTES = 16384 };
    *out = NULL;
    if (!containing_path || (!existing_name && !new_name))
        return cimfs_fail(options->error, CIMFS_E_INVALID_ARG, NULL, CIMFS_NO_OFFSET, "no path, or no name");
    struct cimfs_image *image = calloc(1, sizeof *image);
    if (!image)
        return CIMFS_E_OUT_OF_MEMORY;
    image->io = options->io ? options->io : &cimfs_system_io;
    image->error = options->error;
    forget_error(image);
    image->directory = image->existing = image->draft_file = CIMFS_NO_FILE;
    image->no_sync = options->no_sync;
    image->time = options->time ? options->time : image->io->now();
    for (uint32_t i = 0; i < CIMFS_OWN_REGIONS; i++)
        image->objects.regions[i].file = CIMFS_NO_FILE;
    char *path = malloc(PATH_BYTES);
    cimfs_hresult result = CIMFS_E_OUT_OF_MEMORY;
    if (path)
        result = narrow(containing_path, cimfs_wide_length(containing_path, PATH_BYTES), path, PATH_BYTES);
    if (result == CIMFS_OK)
        result = open_image(image, path, existing_name, new_name, options);
    free(path);
    if (result < 0)
        close_image(image);
    else
        *out = image;
    return result;
}

static cimfs_hresult CIMFS_CALL create_image(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                                             const cimfs_wchar *new_name, cimfs_image *image)
{
    static const struct cimfs_options defaults;
    return create_image_with(containing_path, existing_name, new_name, &defaults, image);
}

/* ---- calls on an open image ---- */

/* What every call checks first: the image takes calls, and no stream is open. */
static cimfs_hresult check_idle(struct cimfs_image *image)
{
    if (!image)
        return CIMFS_E_INVALID_ARG;
    forget_error(image);
    if (image->state != OPEN)
        return fail(image, CIMFS_E_INVALID_ARG, "the image can only be closed");
    if (image->streaming)
        return fail(image, CIMFS_E_SHARING_VIOLATION, "a stream is open");
    return CIMFS_OK;
}

/*
 * After a failure in the middle of a change (a full disk, a parent that cannot be read) the image can only be
 * closed; a call that was wrong from the start leaves it as it was.
 */
static cimfs_hresult settle(struct cimfs_image *image, cimfs_hresult result)
{
    switch (result) {
    case CIMFS_OK:
    case CIMFS_E_INVALID_ARG:
    case CIMFS_E_PATH_NOT_FOUND:
    case CIMFS_E_ACCESS_DENIED:
    case CIMFS_E_HANDLE_EOF:
        return result;
    default:
        image->state = FAILED;
        return result;
    }
}

static cimfs_hresult parse(struct cimfs_image *image, const cimfs_wchar *text, int stream_allowed,
                           struct cimfs_path *path)
{
    const char *reason;
    if (!text)
        return fail(image, CIMFS_E_INVALID_ARG, "no path");
    if (cimfs_path_parse(text, path, &reason) < 0)
        return fail(image, CIMFS_E_INVALID_ARG, reason);
    if (path->stream.length && !stream_allowed)
        return fail(image, CIMFS_E_INVALID_ARG, "a stream name where a file's is expected");
    return CIMFS_OK;
}

static struct cimfs_raw_stream sparse_stream(uint64_t length)
{
    return (struct cimfs_raw_stream){put64(0), put64(length ? length | CIMFS_STREAM_SPARSE : 0)};
}

static void start_stream(struct cimfs_image *image, uint32_t file, uint64_t size, int is_directory,
                         struct cimfs_name name, cimfs_stream *stream)
{
    struct cimfs_stream *opened = &image->stream;
    opened->image = image;
    opened->file = file;
    opened->is_directory = is_directory;
    opened->name_length = name.length;
    if (name.length)
        memcpy(opened->name, name.units, name.length * sizeof *name.units);
    cimfs_object_begin(&opened->writer, &image->objects, size);
    image->streaming = 1;
    *stream = opened;
}

static cimfs_hresult add_file(struct cimfs_image *image, const struct cimfs_path *path,
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
        return fail(image, CIMFS_E_POINTER, "no metadata");
    const char *problem = cimfs_metadata_problem(metadata);
    if (problem)
        return fail(image, CIMFS_E_INVALID_ARG, problem);
    cimfs_hresult result = settle(image, add_file(image, &path, metadata, &id));
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return fail(image, result, "the parent directory is not there");
    CIMFS_TRY(result);
    int is_directory = (metadata->attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0;
    start_stream(image, id, is_directory ? 0 : (uint64_t)metadata->file_size, is_directory,
                 (struct cimfs_name){NULL, 0}, stream);
    return CIMFS_OK;
}

/* The file or directory that a path names. */
static cimfs_hresult find_path(struct cimfs_image *image, const struct cimfs_path *path, uint32_t *id)
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
        return fail(image, CIMFS_E_INVALID_ARG, "not path:stream, or a size of more than 48 bits");
    cimfs_hresult result = settle(image, find_path(image, &path, &id));
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return fail(image, result, "the file of the stream is not there");
    CIMFS_TRY(result);
    CIMFS_TRY(settle(image, cimfs_tree_set_stream(&image->tree, id, path.stream, sparse_stream(size))));
    start_stream(image, id, size, 0, path.stream, stream);
    return CIMFS_OK;
}

static cimfs_hresult CIMFS_CALL write_stream(cimfs_stream stream, const void *buffer, uint32_t size)
{
    if (!stream || !stream->image->streaming || stream->image->state != OPEN)
        return CIMFS_E_INVALID_ARG;
    struct cimfs_image *image = stream->image;
    forget_error(image);
    if (stream->is_directory)
        return fail(image, CIMFS_E_INVALID_ARG, "a directory has no content to write");
    if (!buffer)
        return fail(image, CIMFS_E_POINTER, "no buffer");
    uint64_t room = stream->writer.size - stream->writer.written;
    uint32_t fits = size < room ? size : (uint32_t)room;
    cimfs_hresult result = cimfs_object_write(&stream->writer, buffer, fits);
    if (result < 0) {
        image->state = FAILED;
        return fail_to_store(image, result, "the data cannot be stored");
    }
    return fits < size ? fail(image, CIMFS_E_HANDLE_EOF, "more data than the stream's size") : CIMFS_OK;
}

static cimfs_hresult finish_stream(struct cimfs_stream *stream)
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

static cimfs_hresult CIMFS_CALL close_stream(cimfs_stream stream)
{
    if (!stream || !stream->image->streaming)
        return CIMFS_E_INVALID_ARG;
    struct cimfs_image *image = stream->image;
    forget_error(image);
    image->streaming = 0;
    if (image->state != OPEN)
        return CIMFS_OK;
    cimfs_hresult result = finish_stream(stream);
    if (result < 0) {
        image->state = FAILED;
        return fail_to_store(image, result, "the stream cannot be stored");
    }
    return CIMFS_OK;
}

static cimfs_hresult link_file(struct cimfs_image *image, const struct cimfs_path *new_path,
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
        return fail(image, result, "a hard link to a directory");
    if (result == CIMFS_E_PATH_NOT_FOUND)
        return fail(image, result, "the link's target or its directory is not there");
    return result;
}

static cimfs_hresult remove_path(struct cimfs_image *image, const struct cimfs_path *path)
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
    return result == CIMFS_E_PATH_NOT_FOUND ? fail(image, result, "the path is not there") : result;
}

/* ---- commit ---- */

static cimfs_hresult fill_cim_file(struct cimfs_image *image, cimfs_file file, uint64_t filesystem)
{
    uint32_t count = 0, parents = 0;
    const struct cimfs_set *sets = image->base ? cimfs_reader_sets(image->base, &count) : NULL;
    parents = image->objects.extends ? count - 1 : count;
    size_t size = sizeof(struct cimfs_filesystem_header) + parents * sizeof(struct cimfs_region_set);
    uint8_t *buffer = calloc(1, size);
    if (!buffer)
        return CIMFS_E_OUT_OF_MEMORY;
    struct cimfs_filesystem_header header = {.set_id = image->objects.set,
                                             .region_count = put16(CIMFS_OWN_REGIONS),
                                             .filesystem = put64(filesystem),
                                             .parent_count = put16((uint16_t)parents)};
    memcpy(header.common.magic, CIMFS_MAGIC, sizeof header.common.magic);
    header.common.header_length = put32((uint32_t)size);
    header.common.file_type = CIMFS_FILE_FILESYSTEM;
    header.common.version_major = put32(CIMFS_VERSION_MAJOR);
    memcpy(buffer, &header, sizeof header);
    for (uint32_t i = 0; i < parents; i++) {
        struct cimfs_region_set set = {.id = sets[i].id, .count = put16((uint16_t)sets[i].count)};
        memcpy(buffer + sizeof header + i * sizeof set, &set, sizeof set);
    }
    cimfs_hresult result = image->io->write(file, buffer, size, 0);
    free(buffer);
    if (result == CIMFS_OK && !image->no_sync)
        result = image->io->sync(file);
    return result;
}

/* The image appears last: everything it names is on the disk before the .cim file gets its name. */
static cimfs_hresult commit(struct cimfs_image *image)
{
    const struct cimfs_io *io = image->io;
    uint64_t filesystem;
    CIMFS_TRY(cimfs_tree_commit(&image->tree, &filesystem));
    CIMFS_TRY(cimfs_objects_commit(&image->objects, !image->no_sync));
    CIMFS_TRY(io->truncate(image->draft_file, 0)); /* it may be what a crash left */
    CIMFS_TRY(fill_cim_file(image, image->draft_file, filesystem));
    if (!image->no_sync)
        CIMFS_TRY(io->sync_directory(image->directory)); /* the names of the region files, too */
    if (image->objects.extends)
        close_existing(image); /* Windows replaces no file that is open; the draft keeps others from the image */
    CIMFS_TRY(io->rename(image->directory, image->draft, image->name));
    image->state = COMMITTED; /* visible: from here on its files stay */
    close_draft(image, 0);    /* which is the .cim file now, to be forked */
    cimfs_hresult result = image->no_sync ? CIMFS_OK : io->sync_directory(image->directory);
    if (result < 0 && !image->objects.extends && io->remove(image->directory, image->name) == CIMFS_OK)
        image->state = FAILED; /* taken back */
    return result;
}

static cimfs_hresult CIMFS_CALL commit_image(cimfs_image image)
{
    CIMFS_TRY(check_idle(image));
    image->state = FAILED; /* until it succeeds */
    cimfs_hresult result = commit(image);
    return result < 0 ? fail_to_store(image, result, "the image cannot be committed") : CIMFS_OK;
}

static const struct cimfs_api PORTABLE = {
    .name = "portable",
    .close_stream_answers = 1,
    .create_image = create_image,
    .close_image = close_image,
    .commit_image = commit_image,
    .create_file = create_file,
    .write_stream = write_stream,
    .close_stream = close_stream,
    .create_alternate_stream = create_alternate_stream,
    .create_hard_link = create_hard_link,
    .delete_path = delete_path,
    .create_image_with = create_image_with,
};

const struct cimfs_api *cimfs_portable_api(void)
{
    return &PORTABLE;
}
