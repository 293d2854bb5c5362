/*
 * The functions of the table one by one: what they refuse, and what a failure leaves.
 */
#include <string.h>

#include "check.h"
#include "memory_images.h"

static void test_one_stream_at_a_time(void)
{
    cimfs_image image, second;
    cimfs_stream stream, other;
    struct cimfs_file_metadata metadata = {.file_size = 10};
    memory_clear();
    CHECK(open_image(NULL, W("a.cim"), &image) == CIMFS_OK);
    CHECK(open_image(NULL, W("a.cim"), &second) == CIMFS_E_SHARING_VIOLATION && second == NULL);
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
    CHECK(api->create_file(image, W("y"), &metadata, &other) == CIMFS_E_SHARING_VIOLATION && other == NULL);
    CHECK(api->create_alternate_stream(image, W("x:s"), 1, &other) == CIMFS_E_SHARING_VIOLATION && other == NULL);
    CHECK(api->create_hard_link(image, W("y"), W("x")) == CIMFS_E_SHARING_VIOLATION);
    CHECK(api->delete_path(image, W("x")) == CIMFS_E_SHARING_VIOLATION);
    CHECK(api->commit_image(image) == CIMFS_E_SHARING_VIOLATION);
    CHECK(last_error.code == CIMFS_E_SHARING_VIOLATION);
    CHECK(api->write_stream(stream, "abcdefghij", 10) == CIMFS_OK);
    CHECK(api->close_stream(stream) == CIMFS_OK);
    CHECK(api->close_stream(stream) == CIMFS_E_INVALID_ARG);
    CHECK(api->write_stream(stream, "abc", 3) == CIMFS_E_INVALID_ARG);
    CHECK(api->commit_image(image) == CIMFS_OK);
    CHECK(api->commit_image(image) == CIMFS_E_INVALID_ARG);
    api->close_image(image);
    check_content("a.cim", u"x", (const uint8_t *)"abcdefghij", 10);
    CHECK(memory_is_idle());
}

/* Callers that take close_stream for void learn it from the commit. */
static void test_stream_cut_short(void)
{
    cimfs_image image;
    cimfs_stream stream;
    struct cimfs_file_metadata metadata = {.file_size = 5};
    memory_clear();
    CHECK(open_image(NULL, W("a.cim"), &image) == CIMFS_OK);
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
    CHECK(api->close_stream(stream) == CIMFS_OK); /* nothing of it: on purpose */
    CHECK(api->create_alternate_stream(image, W("x:s"), 10, &stream) == CIMFS_OK);
    CHECK(api->write_stream(stream, "abc", 3) == CIMFS_OK);
    CHECK(api->close_stream(stream) == CIMFS_E_HANDLE_EOF);
    CHECK(strcmp(last_error.file, "x:s") == 0);
    CHECK(add(image, W("y"), (const uint8_t *)"abc", 3, 3) == CIMFS_OK);
    for (int i = 0; i < 2; i++) {
        CHECK(api->commit_image(image) == CIMFS_E_HANDLE_EOF);
        CHECK(last_error.code == CIMFS_E_HANDLE_EOF && strcmp(last_error.file, "x:s") == 0);
        CHECK(strcmp(last_error.reason, "a stream was closed after 3 of its 10 bytes") == 0);
    }
    api->close_image(image);
    struct memory_snapshot *after = memory_take();
    memory_clear();
    CHECK(memory_same(after, NULL)); /* there was nothing to clear */
    memory_drop(after);
}

static void test_bad_arguments(void)
{
    cimfs_image image;
    cimfs_stream stream;
    struct cimfs_file_metadata metadata = {.file_size = -1};
    const struct cimfs_options options = {.io = &memory_io};
    memory_clear();
    CHECK(api->create_image_with(NULL, NULL, W("a"), &options, &image) == CIMFS_E_INVALID_ARG && !image);
    CHECK(api->create_image_with(W("/memory"), NULL, NULL, &options, &image) == CIMFS_E_INVALID_ARG && !image);
    CHECK(api->create_image(W("/nowhere at all"), NULL, W("a"), &image) == CIMFS_E_PATH_NOT_FOUND && !image);
    CHECK(api->create_image_with(W("/memory"), NULL, W("a"), &options, &image) == CIMFS_OK);
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_E_INVALID_ARG && !stream);
    CHECK(api->create_file(image, W("x"), NULL, &stream) == CIMFS_E_POINTER && !stream);
    CHECK(api->create_file(image, NULL, &metadata, &stream) == CIMFS_E_INVALID_ARG && !stream);
    CHECK(api->create_file(NULL, W("x"), &metadata, &stream) == CIMFS_E_INVALID_ARG && !stream);
    metadata.file_size = 3;
    metadata.security_descriptor_size = 40; /* and no descriptor */
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_E_INVALID_ARG && !stream);
    metadata.security_descriptor_size = 0;
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
    CHECK(api->write_stream(stream, NULL, 1) == CIMFS_E_POINTER);
    CHECK(api->write_stream(stream, "abcde", 5) == CIMFS_E_HANDLE_EOF);
    CHECK(api->close_stream(stream) == CIMFS_OK);
    CHECK(api->write_stream(NULL, "a", 1) == CIMFS_E_INVALID_ARG);
    CHECK(api->close_stream(NULL) == CIMFS_E_INVALID_ARG);
    CHECK(api->create_hard_link(image, NULL, W("x")) == CIMFS_E_INVALID_ARG);
    CHECK(api->create_hard_link(image, W("x"), NULL) == CIMFS_E_INVALID_ARG);
    CHECK(api->delete_path(image, NULL) == CIMFS_E_INVALID_ARG);
    CHECK(api->delete_path(NULL, W("x")) == CIMFS_E_INVALID_ARG);
    CHECK(api->commit_image(NULL) == CIMFS_E_INVALID_ARG);
    api->close_image(NULL);
    CHECK(api->commit_image(image) == CIMFS_OK);
    api->close_image(image);
    check_content("a", u"x", (const uint8_t *)"abc", 3);
}

static void test_full_disk_leaves_an_image_that_can_only_be_closed(void)
{
    cimfs_image image;
    cimfs_stream stream;
    struct cimfs_file_metadata metadata = {.file_size = 2000000};
    memory_clear();
    CHECK(open_image(NULL, W("a.cim"), &image) == CIMFS_OK);
    CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
    memory_fail_at(1, CIMFS_E_DISK_FULL);
    cimfs_hresult result = api->write_stream(stream, noise, 1999999);
    CHECK(result == CIMFS_E_DISK_FULL && last_error.code == CIMFS_E_DISK_FULL);
    CHECK(strcmp(last_error.reason, "the disk is full") == 0);
    CHECK(api->write_stream(stream, noise, 1) == CIMFS_E_INVALID_ARG);
    CHECK(api->close_stream(stream) == CIMFS_OK);
    CHECK(api->create_file(image, W("y"), &metadata, &stream) == CIMFS_E_INVALID_ARG);
    CHECK(api->commit_image(image) == CIMFS_E_INVALID_ARG);
    api->close_image(image);
    struct memory_snapshot *after = memory_take();
    memory_clear();
    CHECK(memory_same(after, NULL)); /* there was nothing to clear */
    memory_drop(after);
}

static void test_sync(void)
{
    for (int no_sync = 0; no_sync < 2; no_sync++) {
        const struct cimfs_options options = {.io = &memory_io, .no_sync = no_sync};
        cimfs_image image;
        memory_clear();
        CHECK(api->create_image_with(W("/memory"), NULL, W("a"), &options, &image) == CIMFS_OK);
        CHECK(memory_syncs() == 0);
        CHECK(api->commit_image(image) == CIMFS_OK);
        CHECK(memory_syncs() == (no_sync ? 0 : SYNCS));
        api->close_image(image);
    }
}

void test_calls(void)
{
    test_one_stream_at_a_time();
    test_stream_cut_short();
    test_bad_arguments();
    test_full_disk_leaves_an_image_that_can_only_be_closed();
    test_sync();
}
