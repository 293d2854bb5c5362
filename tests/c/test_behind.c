/*
 * Images whose regions a thread writes: here one that does a step only when somebody waits for it, so that as much as
 * possible is still to be written at any time, in the same order in every run.
 */
#include <stdlib.h>
#include <string.h>
#include <uchar.h>

#include "check.h"

struct cimfs_worker {
    cimfs_step step;
    void *context;
    uint64_t left;
    cimfs_hresult result;
};

static int workers_started, rooms_used;

static struct cimfs_worker *start(cimfs_step step, void *context)
{
    struct cimfs_worker *worker = calloc(1, sizeof *worker);
    if (worker)
        *worker = (struct cimfs_worker){.step = step, .context = context};
    workers_started += worker != NULL;
    return worker;
}

static struct cimfs_worker *start_none(cimfs_step step, void *context)
{
    (void)step;
    (void)context;
    return NULL;
}

static void give(struct cimfs_worker *worker)
{
    worker->left++;
}

static cimfs_hresult wait_for(struct cimfs_worker *worker, uint64_t left)
{
    for (; worker->left > left; worker->left--)
        if (worker->result == CIMFS_OK)
            worker->result = worker->step(worker->context);
    return worker->result;
}

static void stop(struct cimfs_worker *worker)
{
    free(worker);
}

static const struct cimfs_workers late = {.start = start, .give = give, .wait = wait_for, .stop = stop};
static const struct cimfs_workers none = {.start = start_none};

static const struct content {
    const char16_t *name;
    size_t from, size, piece;
} contents[] = {
    {u"one piece", 0, 5 << 20, 5 << 20},
    {u"small", 77, 100, 100},
    {u"pieces", 5 << 20, 2 << 20, 100000},
    {u"pieces again", 5 << 20, 2 << 20, 70001}, /* is taken back, with what has been handed on of it */
    {u"one piece again", 0, 5 << 20, 5 << 20},
    {u"pieces in one", 5 << 20, 2 << 20, 2 << 20},
    {u"last", 7 << 20, 1 << 20, 65536},
    {u"beginning of the last", 7 << 20, 400000, 65536},
    {u"last again", 7 << 20, 1 << 20, 65536},
};

static cimfs_hresult fill(const struct cimfs_api *api, cimfs_image image, const uint8_t *bytes)
{
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        const struct content *content = &contents[i];
        struct cimfs_file_metadata metadata = {.file_size = (int64_t)content->size};
        cimfs_stream stream;
        CIMFS_TRY(api->create_file(image, (const cimfs_wchar *)content->name, &metadata, &stream));
        for (size_t at = 0, count; at < content->size; at += count) {
            size_t left = content->size - at;
            const uint8_t *from = bytes + content->from + at;
            uint32_t size;
            void *room = i % 3 == 2 ? NULL : api->stream_room(stream, &size);
            count = left < content->piece ? left : content->piece;
            if (room) {
                rooms_used++;
                count = size < count ? size : count;
                from = memcpy(room, from, count);
            }
            CIMFS_TRY(api->write_stream(stream, from, (uint32_t)count));
        }
        CIMFS_TRY(api->close_stream(stream));
    }
    return api->commit_image(image);
}

static cimfs_hresult make(const struct cimfs_api *api, const uint8_t *bytes, const struct cimfs_workers *workers)
{
    struct cimfs_io io = memory_io;
    io.workers = workers;
    const struct cimfs_options options = {.io = &io, .seed = "seed", .seed_size = 4};
    cimfs_image image;
    const cimfs_wchar *directory = (const cimfs_wchar *)u"/memory";
    CIMFS_TRY(api->create_image_with(directory, NULL, (const cimfs_wchar *)u"a.cim", &options, &image));
    cimfs_hresult result = api->write_behind(image);
    if (result == CIMFS_OK)
        result = fill(api, image, bytes);
    api->close_image(image);
    return result;
}

void test_writing_behind(void)
{
    const struct cimfs_api *api = cimfs_portable_api();
    size_t size = 8 << 20;
    uint8_t *bytes = malloc(size);
    uint32_t state = 2;
    CHECK(bytes);
    for (size_t i = 0; bytes && i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
    memory_clear();
    memory_fail_at(0, CIMFS_OK);
    struct memory_snapshot *nothing = memory_take();
    CHECK(make(api, bytes, NULL) == CIMFS_OK && workers_started == 0 && rooms_used == 0);
    struct memory_snapshot *expected = memory_take();
    memory_clear();
    CHECK(make(api, bytes, &none) == CIMFS_OK && memory_same(expected, NULL));
    memory_clear();
    CHECK(make(api, bytes, &late) == CIMFS_OK && memory_same(expected, NULL));
    CHECK(workers_started == 1); /* only one region is large */
    CHECK(rooms_used > 0);
    int failing = 1;
    for (uint64_t call = 1; failing; call += 3) { /* all of them would take three times as long */
        memory_clear();
        memory_fail_at(call, CIMFS_E_DISK_FULL);
        cimfs_hresult result = make(api, bytes, &late);
        failing = memory_failed_function()[0] != 0;
        CHECK(failing || result == CIMFS_OK);
        CHECK(memory_is_idle());
        CHECK(result == CIMFS_OK || memory_same(nothing, NULL));
    }
    memory_fail_at(0, CIMFS_OK);
    memory_clear();
    memory_drop(expected);
    memory_drop(nothing);
    free(bytes);
}
