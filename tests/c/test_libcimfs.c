/*
 * The library without Python: scenarios through the function table, and each of them again and again with one more
 * file operation failing each time. Prints what went wrong; the exit code is 0 if nothing did.
 */
#include <stdlib.h>
#include <string.h>
#include <uchar.h>

#include "check.h"
#include "memory_images.h"
#include "libcimfs/verify.h"

int failures;

static cimfs_hresult add_directory(cimfs_image image, const cimfs_wchar *path)
{
    static const uint8_t reparse[] = {0x0C, 0, 0, 0xA0, 4, 0, 0, 0, 'a', 'b', 'c', 'd'};
    static const uint8_t ea[] = {0, 0, 0, 0, 0, 1, 2, 0, 'E', 0, 'x', 'y'};
    cimfs_stream stream;
    struct cimfs_file_metadata metadata = {.attributes = CIMFS_ATTRIBUTE_DIRECTORY,
                                           .reparse_data = reparse,
                                           .reparse_data_size = sizeof reparse,
                                           .ea = ea,
                                           .ea_size = sizeof ea};
    CIMFS_TRY(api->create_file(image, path, &metadata, &stream));
    return api->close_stream(stream);
}

/* ---- scenarios: each opens, changes and commits one image ---- */

static cimfs_hresult fill_new(cimfs_image image)
{
    cimfs_stream stream;
    CIMFS_TRY(add_directory(image, W("d")));
    CIMFS_TRY(add(image, W("d\\small"), noise, 100, 100));
    CIMFS_TRY(add(image, W("d\\large"), noise, LARGE, 300001));
    CIMFS_TRY(add(image, W("d\\again"), noise, LARGE, 70001));
    CIMFS_TRY(add(image, W("d\\empty"), noise, 0, 1));
    CIMFS_TRY(add(image, W("x"), noise + 5, 5000, 777));
    CIMFS_TRY(api->create_alternate_stream(image, W("x:s"), 5, &stream));
    CIMFS_TRY(write_pieces(stream, noise, 5, 5));
    CIMFS_TRY(api->create_hard_link(image, W("d\\link"), W("x")));
    CIMFS_TRY(add(image, W("gone"), noise, 10, 10));
    CIMFS_TRY(api->delete_path(image, W("gone")));
    return api->commit_image(image);
}

static cimfs_hresult change(cimfs_image image)
{
    cimfs_stream stream;
    CIMFS_TRY(add(image, W("d\\large2"), noise, LARGE, 300001));
    CIMFS_TRY(add(image, W("d\\other"), noise + 9, LARGE, LARGE));
    CIMFS_TRY(add(image, W("d\\small"), noise + 1, 100, 10));
    CIMFS_TRY(api->create_alternate_stream(image, W("d\\link:s:$DATA"), 3000, &stream));
    CIMFS_TRY(write_pieces(stream, noise + 77, 3000, 1000));
    CIMFS_TRY(api->create_alternate_stream(image, W("d:t"), 30, &stream));
    CIMFS_TRY(write_pieces(stream, noise + 77, 30, 30));
    CIMFS_TRY(api->delete_path(image, W("d\\empty")));
    CIMFS_TRY(add_directory(image, W("e")));
    return api->commit_image(image);
}

static cimfs_hresult change_little(cimfs_image image)
{
    CIMFS_TRY(add(image, W("y"), noise + 3, 6000, 6000));
    return api->commit_image(image);
}

struct scenario {
    const char *name;
    const char16_t *existing;
    const char16_t *new_name;
    cimfs_hresult (*work)(cimfs_image image);
};

static const struct scenario scenarios[] = {
    {"new", NULL, u"n.cim", fill_new},
    {"fork", u"p.cim", u"n.cim", change},
    {"extend", u"p.cim", NULL, change},
    {"fork of a fork", u"q.cim", u"n.cim", change},
    {"extend a fork", u"q.cim", u"q.cim", change},
};

static cimfs_hresult run(const struct scenario *scenario)
{
    cimfs_image image;
    cimfs_hresult result = open_image(wide(scenario->existing), wide(scenario->new_name), &image);
    if (result < 0) {
        CHECK(image == NULL);
        return result;
    }
    result = scenario->work(image);
    api->close_image(image);
    return result;
}

static int ignore_problem(void *context, uint64_t offset, const struct cimfs_error *error)
{
    printf("verify: %s at %llu: %s\n", error->file, (unsigned long long)error->offset, error->reason);
    (void)offset;
    ++*(int *)context;
    return 0;
}

static int ignore_progress(void *context, const struct cimfs_verify_counts *counts)
{
    (void)context;
    (void)counts;
    return 0;
}

/* Of a part of the objects, as another thread does it, before the end. */
static cimfs_hresult verify_shared(const struct cimfs_reader *reader, const struct cimfs_verify_events *events,
                                   struct cimfs_verify_counts *counts)
{
    struct cimfs_check *check;
    CIMFS_TRY(cimfs_verify_begin(&memory_io, reader, events, counts, &last_error, &check));
    cimfs_verify_share(check, 0);
    cimfs_hresult result = cimfs_verify_end(check, &last_error);
    cimfs_verify_close(check);
    return result;
}

/* The number of problems; -1 if the image does not open. */
static int verify(const char *name, struct cimfs_verify_counts *counts)
{
    struct cimfs_reader *reader;
    int problems = 0;
    struct cimfs_verify_events events = {&problems, ignore_problem, ignore_progress};
    if (cimfs_reader_open(&memory_io, "/memory", name, &last_error, &reader) < 0)
        return -1;
    struct cimfs_verify_counts alone;
    cimfs_hresult result = verify_shared(reader, &events, counts);
    if (result == CIMFS_OK) {
        int shared = problems;
        problems = 0;
        result = cimfs_verify(&memory_io, reader, &events, &alone, &last_error);
        CHECK(problems == shared && memcmp(&alone, counts, sizeof alone) == 0);
    }
    cimfs_reader_close(reader);
    return result < 0 ? -1 : problems;
}

/* p.cim, and q.cim forked from it. */
static void set_up(void)
{
    static struct memory_snapshot *made;
    static const struct scenario parent = {"parent", NULL, u"p.cim", fill_new};
    static const struct scenario child = {"child", u"p.cim", u"q.cim", change_little};
    memory_clear();
    if (made) {
        memory_restore(made);
        return;
    }
    CHECK(run(&parent) == CIMFS_OK);
    CHECK(run(&child) == CIMFS_OK);
    made = memory_take(); /* reachable until the end: no leak */
}

static const char *file_name(const struct scenario *scenario)
{
    return scenario->new_name && scenario->new_name[0] == u'n' ? "n.cim" : scenario->new_name ? "q.cim" : "p.cim";
}

static void check_result(const struct scenario *scenario)
{
    struct cimfs_verify_counts counts;
    const char *name = file_name(scenario);
    CHECK(verify(name, &counts) == 0);
    CHECK(counts.unjudged == 0);
    CHECK(memory_is_idle());
    if (scenario->work == change) {
        check_content(name, u"d\\large2", noise, LARGE);
        check_content(name, u"d\\other", noise + 9, LARGE);
        check_content(name, u"d\\small", noise + 1, 100);
    } else {
        check_content(name, u"d\\small", noise, 100);
        check_content(name, u"d\\again", noise, LARGE);
    }
    check_content(name, u"X", noise + 5, 5000);
}

static void test_scenarios(void)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        set_up();
        CHECK(run(&scenarios[i]) == CIMFS_OK);
        check_result(&scenarios[i]);
    }
}

/* ---- one failing file operation ---- */

/* Comparing new content with what is stored, and cutting off what turns out to be a duplicate. */
static int only_saves_space(const char *function)
{
    static const char *const functions[] = {"open_file", "map_file", "size_of", "read_file"};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(function, functions[i]) == 0)
            return 1;
    return 0;
}

/* An extend that fails between its renames leaves newer object ID files: they are hints, all else is as before. */
static void inject(const struct scenario *scenario, uint64_t call, cimfs_hresult code, int for_good, int *finished)
{
    struct cimfs_verify_counts counts;
    set_up();
    struct memory_snapshot *before = memory_take();
    memory_fail_at(call, code);
    memory_fail_for_good(for_good);
    cimfs_hresult result = run(scenario);
    int failed = memory_failed_function()[0] != 0;
    int extends = strcmp(file_name(scenario), "n.cim") != 0;
    int late = extends && strcmp(memory_failed_function(), "sync_directory") == 0 && memory_syncs() == SYNCS - 1;
    *finished = !failed;
    CHECK(memory_is_idle());
    if (failed && !only_saves_space(memory_failed_function()))
        CHECK(result == code);
    if (result < 0 && !late)
        CHECK(memory_same(before, extends ? "objectid_" : NULL));
    memory_fail_for_good(0);
    memory_fail_at(0, CIMFS_OK);
    CHECK(verify("p.cim", &counts) == 0);
    CHECK(verify("q.cim", &counts) == 0);
    if (result < 0 && !late)
        CHECK(run(scenario) == CIMFS_OK); /* what failed can be tried again */
    check_result(scenario);
    memory_drop(before);
}

static void test_fault_injection(const struct scenario *scenario, cimfs_hresult code, int for_good)
{
    uint64_t call = 1;
    for (int finished = 0; !finished; call++) {
        int before = failures;
        inject(scenario, call, code, for_good, &finished);
        if (failures != before)
            printf("  in scenario \"%s\", call %llu\n", scenario->name, (unsigned long long)call);
    }
    printf("%s: %llu calls made to fail\n", scenario->name, (unsigned long long)call - 2);
}

/* ---- one failing allocation ---- */

/* Without memory for a parent's region, content that lies there is stored again. */
static void test_failing_allocations(const struct scenario *scenario)
{
    uint64_t allocation = 1;
    int extends = strcmp(file_name(scenario), "n.cim") != 0;
    for (int finished = 0; !finished; allocation++) {
        set_up();
        struct memory_snapshot *before = memory_take();
        memory_fail_allocation(allocation);
        cimfs_hresult result = run(scenario);
        finished = !memory_allocation_failed();
        memory_fail_allocation(0);
        CHECK(result == CIMFS_OK || (!finished && result == CIMFS_E_OUT_OF_MEMORY));
        CHECK(memory_is_idle());
        if (result < 0) {
            CHECK(memory_same(before, extends ? "objectid_" : NULL));
            CHECK(run(scenario) == CIMFS_OK);
        }
        check_result(scenario);
        memory_drop(before);
    }
    printf("%s: %llu allocations made to fail\n", scenario->name, (unsigned long long)allocation - 2);
}

static void test_abandon_with_an_open_stream(void)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        cimfs_image image;
        cimfs_stream stream;
        struct cimfs_file_metadata metadata = {.file_size = 2000000};
        set_up();
        struct memory_snapshot *before = memory_take();
        CHECK(open_image(wide(scenarios[i].existing), wide(scenarios[i].new_name), &image) == CIMFS_OK);
        CHECK(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
        CHECK(api->write_stream(stream, noise, 1999999) == CIMFS_OK);
        api->close_image(image);
        CHECK(memory_same(before, NULL));
        CHECK(memory_is_idle());
        memory_drop(before);
    }
}

static void test_link_tables(void)
{
    struct cimfs_reader *reader;
    set_up();
    CHECK(cimfs_reader_open(&memory_io, "/memory", "p.cim", &last_error, &reader) == CIMFS_OK);
    test_changing_link_table(reader);
    cimfs_reader_close(reader);
}

int main(void)
{
    memory_images_init();
    test_calls();
    test_readahead();
    test_scenarios();
    test_abandon_with_an_open_stream();
    test_link_tables();
    test_writing_behind();
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        test_fault_injection(&scenarios[i], CIMFS_E_IO_DEVICE, 0);
        test_fault_injection(&scenarios[i], CIMFS_E_DISK_FULL, 1);
        test_failing_allocations(&scenarios[i]);
    }
    memory_clear();
    printf("%d failures\n", failures);
    return failures != 0;
}
