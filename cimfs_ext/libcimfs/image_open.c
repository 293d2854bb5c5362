/*
 * Create, fork and extend; and close, which takes back what was not committed.
 */
#include <stdlib.h>

#include "guid.h"
#include "image.h"
#include "metadata.h"

/* A wide string as UTF-8; INVALID_ARG if it does not fit. */
static cimfs_hresult narrow(const cimfs_wchar *text, size_t length, char *to, size_t capacity)
{
    if (length == SIZE_MAX || cimfs_utf8_from_wide(text, length, to, capacity) >= capacity)
        return CIMFS_E_INVALID_ARG;
    return CIMFS_OK;
}

static cimfs_hresult image_name(struct cimfs_image_writer *image, const cimfs_wchar *text, char name[256])
{
    struct cimfs_path path;
    const char *reason;
    if (cimfs_path_parse(text, &path, &reason) < 0 || path.directory.length || path.stream.length ||
        narrow(path.leaf.units, path.leaf.length, name, 256) < 0)
        return cimfs_fail(image->error, CIMFS_E_INVALID_ARG, name, CIMFS_NO_OFFSET, "not the name of an image");
    return CIMFS_OK;
}

static cimfs_hresult choose_set(struct cimfs_image_writer *image, const struct cimfs_options *options, int extends,
                                struct cimfs_guid *set)
{
    uint32_t count = 0;
    const struct cimfs_set *sets = image->base ? cimfs_reader_sets(image->base, &count) : NULL;
    if (extends) {
        *set = sets[count - 1].id;
        if (sets[count - 1].count != CIMFS_OWN_REGIONS)
            return cimfs_image_fail(image, CIMFS_E_NOTIMPL,
                                    "only an image with three regions of its own can be extended");
        return CIMFS_OK;
    }
    if (sets && cimfs_reader_region_count(image->base) + CIMFS_OWN_REGIONS > CIMFS_MAX_REGIONS)
        return cimfs_image_fail(image, CIMFS_E_DISK_FULL, "the image would have more than 65,536 regions");
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

static cimfs_hresult root_record(struct cimfs_image_writer *image, struct cimfs_record *root)
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

static cimfs_hresult check_absent(struct cimfs_image_writer *image)
{
    cimfs_file file;
    cimfs_hresult result = image->io->open(image->directory, image->name, CIMFS_OPEN_READ, &file);
    if (result == CIMFS_E_FILE_NOT_FOUND)
        return CIMFS_OK;
    if (result == CIMFS_OK)
        image->io->close(file);
    else if (result == CIMFS_E_IO_DEVICE || result == CIMFS_E_TOO_MANY_OPEN_FILES || result == CIMFS_E_OUT_OF_MEMORY)
        return cimfs_image_fail(image, result, "cannot check whether the name is taken");
    return cimfs_image_fail(image, CIMFS_E_FILE_EXISTS, "a CIM with that name already exists");
}

/* Open a file and hold it; what replaces it meanwhile is held instead. *file is CIMFS_NO_FILE if that fails. */
static cimfs_hresult hold(struct cimfs_image_writer *image, const char *name, enum cimfs_open_mode mode,
                          enum cimfs_lock kind, cimfs_file *file)
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
static cimfs_hresult claim_name(struct cimfs_image_writer *image)
{
    cimfs_draft_name(image->name, image->draft);
    cimfs_hresult result = hold(image, image->draft, CIMFS_OPEN_CREATE, CIMFS_LOCK_ALONE, &image->draft_file);
    if (result == CIMFS_E_SHARING_VIOLATION)
        return cimfs_fail(image->error, result, image->draft, CIMFS_NO_OFFSET, "the image is being written");
    return result < 0 ? cimfs_image_fail(image, result, "the image's draft cannot be made") : result;
}

/* What is forked or extended stays as it is: nobody extends or destroys it meanwhile. */
static cimfs_hresult open_existing(struct cimfs_image_writer *image, const char *path, const char *existing,
                                   int extends)
{
    cimfs_hresult result = hold(image, existing, extends ? CIMFS_OPEN_WRITE : CIMFS_OPEN_READ,
                                extends ? CIMFS_LOCK_ALONE : CIMFS_LOCK_SHARED, &image->existing);
    if (result == CIMFS_E_SHARING_VIOLATION)
        return cimfs_fail(image->error, result, existing, CIMFS_NO_OFFSET,
                          extends ? "the image is being forked, extended or destroyed"
                                  : "the image is being extended or destroyed");
    CIMFS_TRY(cimfs_reader_open(image->io, path, existing, image->error, &image->base)); /* which says what is wrong */
    return result < 0 ? cimfs_image_fail(image, result, "the image cannot be held") : result;
}

static cimfs_hresult open_image(struct cimfs_image_writer *image, const char *path, const cimfs_wchar *existing_name,
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
    result =
        cimfs_objects_open(&image->objects, image->io, image->directory, &set, image->base, extends, !image->no_sync);
    if (result == CIMFS_E_FILE_EXISTS)
        return cimfs_fail(image->error, result, image->objects.regions[image->objects.created].name, CIMFS_NO_OFFSET,
                          "a region file of this set already exists, without its image");
    if (result < 0)
        return cimfs_image_fail(image, result,
                                result == CIMFS_E_SHARING_VIOLATION ? "its region files were taken for garbage"
                                                                    : "the region files cannot be opened");
    if (!image->base)
        CIMFS_TRY(root_record(image, &root));
    return cimfs_tree_open(&image->tree, image->io, &image->objects, image->base, &root, image->error);
}

void cimfs_image_close_draft(struct cimfs_image_writer *image, int remove)
{
    if (image->draft_file == CIMFS_NO_FILE)
        return;
    if (remove)
        image->io->remove(image->directory, image->draft); /* while it is held: afterwards it may be another's */
    image->io->close(image->draft_file);
    image->draft_file = CIMFS_NO_FILE;
}

void cimfs_image_close_existing(struct cimfs_image_writer *image)
{
    if (image->existing != CIMFS_NO_FILE)
        image->io->close(image->existing);
    image->existing = CIMFS_NO_FILE;
}

void CIMFS_CALL cimfs_image_close(cimfs_image image)
{
    if (!image)
        return;
    cimfs_tree_close(&image->tree);
    cimfs_reader_close(image->base); /* before anything is truncated: Windows cuts no file that is mapped */
    if (image->state == CIMFS_IMAGE_COMMITTED)
        cimfs_objects_trim(&image->objects);
    else if (image->directory != CIMFS_NO_FILE)
        cimfs_objects_abandon(&image->objects);
    cimfs_objects_close(&image->objects);
    cimfs_image_close_draft(image, image->state != CIMFS_IMAGE_COMMITTED);
    cimfs_image_close_existing(image);
    if (image->directory != CIMFS_NO_FILE)
        image->io->close(image->directory);
    free(image);
}

cimfs_hresult cimfs_image_open(const cimfs_wchar *containing_path, const cimfs_wchar *existing_name,
                               const cimfs_wchar *new_name, const struct cimfs_options *options, cimfs_image *out)
{
    enum { PATH_BYTES = 16384 };
    *out = NULL;
    if (!containing_path || (!existing_name && !new_name))
        return cimfs_fail(options->error, CIMFS_E_INVALID_ARG, NULL, CIMFS_NO_OFFSET, "no path, or no name");
    struct cimfs_image_writer *image = calloc(1, sizeof *image);
    if (!image)
        return cimfs_fail(options->error, CIMFS_E_OUT_OF_MEMORY, NULL, CIMFS_NO_OFFSET, NULL);
    image->io = options->io ? options->io : &cimfs_system_io;
    image->error = options->error;
    cimfs_image_forget_error(image);
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
        cimfs_image_close(image);
    else
        *out = image;
    return result;
}
