/*
 * libFuzzer entry: however a layer tar is cut, the importer makes the same calls on the image in the same order,
 * each one well-formed, and ends in the same way, within its limits; who passes over the content finds the same
 * entries; the portable library takes the same tar without harm.
 *
 * The input: a byte that picks the cuts, the limits and whether there is a parent, then the tar, whose blocks that look
 * like headers get the right checksum. A byte of 0xF0 and above brings in the portable library, in a temporary
 * directory.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "liblayer/importer.h"
#include "libcimfs/names.h"
#include "checks.h"

enum { MAX_DIRECTORIES = 512 };

/* An image that remembers what it was told, as a hash, and which directories it has. */
struct cimfs_image {
    uint64_t hash;
    uint64_t directories[MAX_DIRECTORIES];
    size_t directory_count;
    int streaming;
    int is_directory;
    uint64_t left; /* of the open stream */
};

static void mix_number(uint64_t *hash, uint64_t number)
{
    mix(hash, &number, sizeof number);
}

static uint64_t hash_of_units(const uint16_t *units, size_t length)
{
    uint64_t hash = HASH_OF_NOTHING;
    mix(&hash, units, length * sizeof *units);
    return hash;
}

/* Every path that reaches an image is relative and without tricks. */
static struct cimfs_path checked(const cimfs_wchar *text)
{
    struct cimfs_path path;
    const char *reason;
    REQUIRE(text[0] != '\\');
    REQUIRE(cimfs_path_parse(text, &path, &reason) == CIMFS_OK);
    return path;
}

static int has_directory(const struct cimfs_image *image, struct cimfs_name name)
{
    uint64_t hash = hash_of_units(name.units, name.length);
    for (size_t i = 0; i < image->directory_count; i++)
        if (image->directories[i] == hash)
            return 1;
    return name.length == 0 || image->directory_count == MAX_DIRECTORIES;
}

static void require_readable(const void *data, uint32_t size)
{
    uint64_t hash = 0;
    REQUIRE(size <= UINT16_MAX);
    mix(&hash, data, size);
}

static cimfs_stream open_stream(struct cimfs_image *image, uint64_t size, int is_directory)
{
    image->streaming = 1;
    image->is_directory = is_directory;
    image->left = size;
    return (cimfs_stream)(void *)image;
}

static cimfs_hresult create_file(cimfs_image image, const cimfs_wchar *text, const struct cimfs_file_metadata *metadata,
                                 cimfs_stream *stream)
{
    struct cimfs_path path = checked(text);
    size_t length = cimfs_wide_length(text, CIMFS_MAX_PATH + 1);
    int is_directory = (metadata->attributes & CIMFS_ATTRIBUTE_DIRECTORY) != 0;
    REQUIRE(!image->streaming && path.stream.length == 0 && metadata->file_size >= 0);
    REQUIRE(((metadata->attributes & CIMFS_ATTRIBUTE_REPARSE_POINT) != 0) == (metadata->reparse_data_size > 0));
    REQUIRE(metadata->creation_time >= 0 && metadata->last_write_time >= 0);
    require_readable(metadata->security_descriptor, metadata->security_descriptor_size);
    require_readable(metadata->reparse_data, metadata->reparse_data_size);
    require_readable(metadata->ea, metadata->ea_size);
    if (!has_directory(image, path.directory))
        return CIMFS_E_PATH_NOT_FOUND;
    if (is_directory && image->directory_count < MAX_DIRECTORIES)
        image->directories[image->directory_count++] = hash_of_units(text, length);
    mix(&image->hash, text, length * sizeof *text);
    mix_number(&image->hash, metadata->attributes);
    mix_number(&image->hash, (uint64_t)metadata->file_size);
    mix_number(&image->hash, (uint64_t)metadata->last_write_time);
    mix(&image->hash, metadata->security_descriptor, metadata->security_descriptor_size);
    mix(&image->hash, metadata->reparse_data, metadata->reparse_data_size);
    mix(&image->hash, metadata->ea, metadata->ea_size);
    *stream = open_stream(image, (uint64_t)metadata->file_size, is_directory);
    return CIMFS_OK;
}

static cimfs_hresult create_alternate_stream(cimfs_image image, const cimfs_wchar *text, uint64_t size,
                                             cimfs_stream *stream)
{
    struct cimfs_path path = checked(text);
    REQUIRE(!image->streaming && path.stream.length > 0);
    mix(&image->hash, text, cimfs_wide_length(text, CIMFS_MAX_PATH + 300) * sizeof *text);
    mix_number(&image->hash, size);
    *stream = open_stream(image, size, 0);
    return CIMFS_OK;
}

static cimfs_hresult write_stream(cimfs_stream stream, const void *buffer, uint32_t size)
{
    struct cimfs_image *image = (struct cimfs_image *)(void *)stream;
    REQUIRE(image->streaming && !image->is_directory && size > 0 && size <= image->left);
    mix(&image->hash, buffer, size);
    image->left -= size;
    return CIMFS_OK;
}

static cimfs_hresult close_stream(cimfs_stream stream)
{
    struct cimfs_image *image = (struct cimfs_image *)(void *)stream;
    REQUIRE(image->streaming);
    image->streaming = 0;
    return CIMFS_OK;
}

static cimfs_hresult create_hard_link(cimfs_image image, const cimfs_wchar *text, const cimfs_wchar *target)
{
    struct cimfs_path path = checked(text), existing = checked(target);
    REQUIRE(!image->streaming && path.stream.length == 0 && existing.stream.length == 0);
    if (!has_directory(image, path.directory) || !has_directory(image, existing.directory))
        return CIMFS_E_PATH_NOT_FOUND;
    mix(&image->hash, text, cimfs_wide_length(text, CIMFS_MAX_PATH + 1) * sizeof *text);
    mix(&image->hash, target, cimfs_wide_length(target, CIMFS_MAX_PATH + 1) * sizeof *target);
    return CIMFS_OK;
}

static const struct cimfs_api RECORDER = {.name = "recorder",
                                          .create_file = create_file,
                                          .create_alternate_stream = create_alternate_stream,
                                          .write_stream = write_stream,
                                          .close_stream = close_stream,
                                          .create_hard_link = create_hard_link};

static const uint16_t SYSTEM[] = u"HIVES\\SYSTEM_DELTA";
static const uint16_t *const STANDARD[] = {SYSTEM};
static const uint8_t DESCRIPTOR[20] = {1, 0, 4, 0x80};

/* What is independent of the cuts. */
struct outcome {
    enum layer_import_event last;
    const char *reason;
    uint64_t hash; /* of what was asked of the caller */
    uint64_t file_bytes, entries, offset;
};

static void mix_path(struct outcome *outcome, const struct layer_path *path)
{
    REQUIRE(path->units[path->length] == 0);
    if (path->length > 0)
        REQUIRE(checked(path->units).stream.length == 0);
    mix(&outcome->hash, path->units, path->length * sizeof *path->units);
}

/* 1 if the import goes on. */
static int answer(struct layer_importer *importer, enum layer_import_event event, struct layer_slice piece,
                  struct outcome *outcome)
{
    outcome->last = event;
    switch (event) {
    case LAYER_IMPORT_SDDL:
        REQUIRE(importer->tar.entry.sddl.size > 0);
        REQUIRE(layer_importer_descriptor(importer, DESCRIPTOR, sizeof DESCRIPTOR) == 0);
        return 1;
    case LAYER_IMPORT_STANDARD_LINK:
        mix_path(outcome, &importer->target);
        mix_path(outcome, &importer->path);
        return 1;
    case LAYER_IMPORT_WHITEOUT:
    case LAYER_IMPORT_OPAQUE:
    case LAYER_IMPORT_STANDARD_FILE:
        mix_number(&outcome->hash, (uint64_t)event);
        mix_path(outcome, &importer->path);
        layer_path_set_has(&importer->builder->added, importer->path.units, importer->path.length);
        return 1;
    case LAYER_IMPORT_STANDARD_DATA:
        mix(&outcome->hash, piece.data, piece.size);
        return 1;
    case LAYER_IMPORT_STANDARD_END:
        mix_number(&outcome->hash, (uint64_t)event);
        return 1;
    case LAYER_IMPORT_BAD_ENTRY:
        REQUIRE(importer->builder->reason);
        outcome->reason = importer->builder->reason;
        return 0;
    case LAYER_IMPORT_BAD_ARCHIVE:
        REQUIRE(importer->tar.reason);
        outcome->reason = importer->tar.reason;
        return 0;
    default:
        return 0;
    }
}

/* Every piece is a buffer of its own, so that a read beyond it is seen. 1 if the import goes on. */
static int feed(struct layer_importer *importer, const uint8_t *data, size_t size, struct outcome *outcome)
{
    uint8_t *copy = malloc(size);
    REQUIRE(copy);
    memcpy(copy, data, size);
    const uint8_t *at = copy;
    struct layer_slice piece = {NULL, 0};
    int more;
    do
        more = answer(importer, layer_importer_next(importer, &at, &size, &piece), piece, outcome);
    while (more);
    REQUIRE(size == 0 || outcome->last != LAYER_IMPORT_NEED_INPUT);
    free(copy);
    return outcome->last == LAYER_IMPORT_NEED_INPUT;
}

static struct outcome import(const struct cimfs_api *api, cimfs_image image, uint8_t choice, const uint8_t *data,
                             size_t size, size_t cut)
{
    struct layer_builder builder;
    struct layer_importer importer;
    cimfs_stream stream = NULL;
    struct outcome outcome = {.last = LAYER_IMPORT_NEED_INPUT, .hash = HASH_OF_NOTHING};
    REQUIRE(layer_builder_init(&builder, api, image, &stream, STANDARD, 1) == 0);
    REQUIRE(layer_importer_init(&importer, &builder) == 0);
    builder.has_parent = choice & 1;
    if (choice & 2)
        builder.limits = (struct layer_limits){
            .files = choice >> 2, .bytes = (uint64_t)choice << 6, .path_depth = 1 + (choice >> 5)};
    size_t done = 0;
    int more = 1;
    while (more && done < size) {
        size_t count = size - done < cut ? size - done : cut;
        more = feed(&importer, data + done, count, &outcome);
        done += count;
    }
    if (more)
        answer(&importer, layer_importer_finish(&importer), (struct layer_slice){NULL, 0}, &outcome);
    outcome.file_bytes = importer.file_bytes;
    outcome.entries = importer.entries;
    REQUIRE((outcome.last == LAYER_IMPORT_LIMIT) == (builder.limit != LAYER_LIMIT_NONE));
    REQUIRE(builder.made <= builder.limits.files && builder.claimed <= builder.limits.bytes);
    if (outcome.last != LAYER_IMPORT_END)
        outcome.offset = importer.tar.entry.offset;
    layer_importer_cleanup(&importer);
    layer_builder_cleanup(&builder);
    return outcome;
}

static void import_for_real(const uint8_t *data, size_t size, size_t cut)
{
    char directory[] = "tar-XXXXXX";
    uint16_t wide[sizeof directory];
    const struct cimfs_api *api = cimfs_portable_api();
    struct cimfs_options options = {.no_sync = 1, .time = 1};
    cimfs_image image;
    REQUIRE(mkdtemp(directory));
    for (size_t i = 0; i < sizeof directory; i++)
        wide[i] = (uint8_t)directory[i];
    REQUIRE(api->create_image_with(wide, NULL, u"a.cim", &options, &image) == CIMFS_OK);
    import(api, image, 0, data, size, cut); /* neither parent nor limits */
    api->close_image(image);
    REQUIRE(rmdir(directory) == 0); /* nothing is left of an image that was not committed */
}

/* The entries as a hash, also of how the tar ends. Their content is read, or passed over as if it lay in a file. */
static uint64_t index_of(const uint8_t *data, size_t size, int passes_over)
{
    struct layer_tar tar;
    uint64_t hash = HASH_OF_NOTHING;
    enum layer_tar_event event;
    struct layer_slice content;
    layer_tar_init(&tar);
    do {
        size_t left = tar.offset < size ? size - (size_t)tar.offset : 0;
        const uint8_t *at = data + (size - left);
        event = layer_tar_next(&tar, &at, &left, &content);
        if (event == LAYER_TAR_ENTRY) {
            mix_number(&hash, (uint64_t)tar.entry.type);
            mix_number(&hash, tar.entry.offset);
            mix_number(&hash, tar.entry.size);
            mix(&hash, tar.entry.name.data, tar.entry.name.size);
            mix(&hash, tar.entry.link.data, tar.entry.link.size);
            if (passes_over)
                REQUIRE(layer_tar_skip(&tar) == tar.entry.size);
        }
    } while (event == LAYER_TAR_ENTRY || event == LAYER_TAR_DATA || event == LAYER_TAR_ENTRY_END);
    mix_number(&hash, (uint64_t)event);
    layer_tar_cleanup(&tar);
    return hash;
}

/* Otherwise hardly any change of a header would come further than its checksum. */
static void correct_checksums(uint8_t *tar, size_t size)
{
    for (; size >= LAYER_TAR_BLOCK; tar += LAYER_TAR_BLOCK, size -= LAYER_TAR_BLOCK) {
        unsigned sum = 0;
        if (memcmp(tar + 257, "ustar", 5) != 0)
            continue;
        memset(tar + 148, ' ', 8);
        for (size_t i = 0; i < LAYER_TAR_BLOCK; i++)
            sum += tar[i];
        for (size_t i = 0; i < 6; i++)
            tar[153 - i] = (uint8_t)('0' + (sum >> 3 * i & 7));
        tar[154] = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static struct cimfs_image whole, cut_up;
    if (size < 1)
        return 0;
    uint8_t *data = malloc(size);
    REQUIRE(data);
    memcpy(data, input, size);
    correct_checksums(data + 1, size - 1);
    size_t cut = 1 + (size_t)data[0] % 61 * 13;
    memset(&whole, 0, sizeof whole);
    memset(&cut_up, 0, sizeof cut_up);
    struct outcome a = import(&RECORDER, &whole, data[0], data + 1, size - 1, SIZE_MAX);
    struct outcome b = import(&RECORDER, &cut_up, data[0], data + 1, size - 1, cut);
    REQUIRE(a.last == b.last && a.reason == b.reason && a.offset == b.offset);
    REQUIRE(a.hash == b.hash && whole.hash == cut_up.hash);
    REQUIRE(a.file_bytes == b.file_bytes && a.entries == b.entries);
    REQUIRE(index_of(data + 1, size - 1, 0) == index_of(data + 1, size - 1, 1));
    if (data[0] >= 0xF0)
        import_for_real(data + 1, size - 1, cut);
    free(data);
    return 0;
}
