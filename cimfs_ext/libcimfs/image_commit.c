/*
 * Commit: the .cim file, which makes the image visible.
 */
#include <stdlib.h>

#include "image.h"

static cimfs_hresult fill_cim_file(struct cimfs_image_writer *image, cimfs_file file, uint64_t filesystem)
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

cimfs_hresult cimfs_image_commit(struct cimfs_image_writer *image)
{
    const struct cimfs_io *io = image->io;
    uint64_t filesystem;
    CIMFS_TRY(cimfs_tree_commit(&image->tree, &filesystem));
    CIMFS_TRY(cimfs_objects_commit(&image->objects));
    CIMFS_TRY(io->truncate(image->draft_file, 0)); /* it may be what a crash left */
    CIMFS_TRY(fill_cim_file(image, image->draft_file, filesystem));
    if (!image->no_sync)
        CIMFS_TRY(io->sync_directory(image->directory)); /* the names of the region files, too */
    if (image->objects.extends)
        cimfs_image_close_existing(
            image); /* Windows replaces no file that is open; the draft keeps others from the image */
    CIMFS_TRY(io->rename(image->directory, image->draft, image->name));
    image->state = CIMFS_IMAGE_COMMITTED; /* visible: from here on its files stay */
    cimfs_image_close_draft(image, 0);    /* which is the .cim file now, to be forked */
    cimfs_hresult result = image->no_sync ? CIMFS_OK : io->sync_directory(image->directory);
    if (result < 0 && !image->objects.extends && io->remove(image->directory, image->name) == CIMFS_OK)
        image->state = CIMFS_IMAGE_FAILED; /* taken back */
    return result;
}
