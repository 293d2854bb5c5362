/* These are never made to fail. */
#undef malloc
#undef calloc
#undef realloc

#include "memory_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 128, MAX_OPEN = 128, MAX_SPARE = 16, MAX_DIRECTORIES = 8, FIRST_DIRECTORY = 1000 };

struct content {
    uint8_t *data;
    size_t size, capacity;
    int references; /* the name, and each open file */
};

struct name {
    char name[300];
    struct content *content; /* NULL: free */
};

struct memory_snapshot {
    struct {
        char name[300];
        uint8_t *data;
        size_t size;
    } files[MAX_FILES];
    int count;
};

static struct name names[MAX_FILES];
/* Buffers of removed files: asking for fresh large ones again and again is what takes time. */
static struct content spare[MAX_SPARE];
static int spare_count;
static struct content *open_files[MAX_OPEN];
enum holding { NOT_HELD, HELD_SHARED, HELD_ALONE };
static enum holding held[MAX_OPEN];
static int directories[MAX_DIRECTORIES];
static int maps;
static uint64_t calls, fail_call, syncs;
static cimfs_hresult fail_code;
static int for_good, failed;
static const char *failed_function = "";
static uint64_t allocations, fail_allocation;

/* ---- failing on purpose ---- */

void memory_fail_at(uint64_t call, cimfs_hresult code)
{
    calls = 0;
    syncs = 0;
    fail_call = call;
    fail_code = code;
    failed = 0;
    for_good = 0;
    failed_function = "";
}

void memory_fail_for_good(int yes)
{
    for_good = yes;
}

uint64_t memory_calls(void)
{
    return calls;
}

uint64_t memory_syncs(void)
{
    return syncs;
}

const char *memory_failed_function(void)
{
    return failed_function;
}

static int fails(const char *function, int writes)
{
    if (++calls == fail_call) {
        failed = 1;
        failed_function = function;
        return 1;
    }
    return writes && failed && for_good;
}

#define MAY_FAIL(writes)                                                                                               \
    do {                                                                                                               \
        if (fails(__func__, writes))                                                                                   \
            return fail_code;                                                                                          \
    } while (0)

void memory_fail_allocation(uint64_t allocation)
{
    allocations = 0;
    fail_allocation = allocation;
}

int memory_allocation_failed(void)
{
    return fail_allocation != 0 && allocations >= fail_allocation;
}

void *memory_malloc(size_t size)
{
    return ++allocations == fail_allocation ? NULL : malloc(size);
}

void *memory_calloc(size_t count, size_t size)
{
    return ++allocations == fail_allocation ? NULL : calloc(count, size);
}

void *memory_realloc(void *data, size_t size)
{
    return ++allocations == fail_allocation ? NULL : realloc(data, size);
}

/* ---- the directory ---- */

static struct name *find(const char *name)
{
    for (int i = 0; i < MAX_FILES; i++)
        if (names[i].content && strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

static void release(struct content *content)
{
    if (--content->references > 0)
        return;
    if (spare_count < MAX_SPARE)
        spare[spare_count++] = *content;
    else
        free(content->data);
    free(content);
}

static struct content *create(const char *name)
{
    for (int i = 0; i < MAX_FILES; i++) {
        if (names[i].content)
            continue;
        names[i].content = calloc(1, sizeof(struct content));
        if (!names[i].content)
            abort();
        names[i].content->references = 1;
        snprintf(names[i].name, sizeof names[i].name, "%s", name);
        return names[i].content;
    }
    abort();
}

/* At least one byte, so that an empty file has an address too. */
static void resize(struct content *content, size_t size)
{
    for (int i = 0; size + 1 > content->capacity && size >= 4096 && i < spare_count; i++) {
        if (spare[i].capacity <= size)
            continue;
        memcpy(spare[i].data, content->data ? content->data : spare[i].data, content->size);
        free(content->data);
        content->data = spare[i].data;
        content->capacity = spare[i].capacity;
        spare[i] = spare[--spare_count];
    }
    if (size + 1 > content->capacity) {
        content->capacity = size + size / 2 + 64;
        content->data = realloc(content->data, content->capacity);
        if (!content->data)
            abort();
    }
    if (size > content->size)
        memset(content->data + content->size, 0, size - content->size);
    content->size = size;
}

static void unlink_name(struct name *name)
{
    release(name->content);
    name->content = NULL;
}

static cimfs_hresult open_directory(const char *path, cimfs_file *directory)
{
    *directory = CIMFS_NO_FILE;
    MAY_FAIL(0);
    if (strcmp(path, "/memory") != 0)
        return CIMFS_E_PATH_NOT_FOUND;
    for (int i = 0; i < MAX_DIRECTORIES; i++) {
        if (directories[i])
            continue;
        directories[i] = 1;
        *directory = FIRST_DIRECTORY + i;
        return CIMFS_OK;
    }
    return CIMFS_E_TOO_MANY_OPEN_FILES;
}

static struct content *content_of(cimfs_file file)
{
    if (file < 0 || file >= MAX_OPEN || !open_files[file])
        abort(); /* a closed file */
    return open_files[file];
}

static cimfs_hresult open_file(cimfs_file directory, const char *name, enum cimfs_open_mode mode, cimfs_file *file)
{
    *file = CIMFS_NO_FILE;
    if (directory < FIRST_DIRECTORY || !directories[directory - FIRST_DIRECTORY])
        abort();
    MAY_FAIL(mode == CIMFS_OPEN_CREATE);
    struct name *entry = find(name);
    if (!entry && mode != CIMFS_OPEN_CREATE)
        return CIMFS_E_FILE_NOT_FOUND;
    if (entry && mode == CIMFS_OPEN_CREATE)
        return CIMFS_E_FILE_EXISTS;
    for (int i = 0; i < MAX_OPEN; i++) {
        if (open_files[i])
            continue;
        open_files[i] = entry ? entry->content : create(name);
        open_files[i]->references++;
        *file = i;
        return CIMFS_OK;
    }
    return CIMFS_E_TOO_MANY_OPEN_FILES;
}

static void close_file(cimfs_file file)
{
    if (file >= FIRST_DIRECTORY) {
        if (!directories[file - FIRST_DIRECTORY])
            abort(); /* closed twice */
        directories[file - FIRST_DIRECTORY] = 0;
        return;
    }
    release(content_of(file));
    open_files[file] = NULL;
    held[file] = NOT_HELD;
}

static cimfs_hresult lock_file(cimfs_file directory, const char *name, cimfs_file file, enum cimfs_lock kind)
{
    (void)directory;
    MAY_FAIL(0);
    enum holding wanted = kind == CIMFS_LOCK_SHARED ? HELD_SHARED : HELD_ALONE;
    for (int i = 0; i < MAX_OPEN; i++)
        if (i != file && open_files[i] == content_of(file) && held[i] != NOT_HELD &&
            (wanted == HELD_ALONE || held[i] == HELD_ALONE))
            return CIMFS_E_SHARING_VIOLATION;
    const struct name *entry = find(name);
    if (!entry || entry->content != content_of(file))
        return CIMFS_E_FILE_NOT_FOUND;
    held[file] = wanted;
    return CIMFS_OK;
}

static cimfs_hresult size_of(cimfs_file file, uint64_t *size)
{
    *size = 0;
    MAY_FAIL(0);
    *size = content_of(file)->size;
    return CIMFS_OK;
}

static cimfs_hresult read_file(cimfs_file file, void *data, size_t size, uint64_t offset)
{
    struct content *content = content_of(file);
    MAY_FAIL(0);
    if (size == 0)
        return CIMFS_OK;
    if (offset > content->size || size > content->size - offset)
        return CIMFS_E_HANDLE_EOF;
    memcpy(data, content->data + offset, size);
    return CIMFS_OK;
}

static cimfs_hresult write_file(cimfs_file file, const void *data, size_t size, uint64_t offset)
{
    struct content *content = content_of(file);
    if (fails(__func__, 1)) {
        /* Half of it has reached the disk. */
        if (size / 2 > 0 && offset <= content->size) {
            if (offset + size / 2 > content->size)
                resize(content, (size_t)offset + size / 2);
            memcpy(content->data + offset, data, size / 2);
        }
        return fail_code;
    }
    if (size == 0)
        return CIMFS_OK;
    if (offset + size > content->size)
        resize(content, (size_t)offset + size);
    memcpy(content->data + offset, data, size);
    return CIMFS_OK;
}

/* What undoes a change (cutting a file back, removing one) works on a full disk too. */
static cimfs_hresult truncate_file(cimfs_file file, uint64_t size)
{
    MAY_FAIL(size > content_of(file)->size);
    resize(content_of(file), (size_t)size);
    return CIMFS_OK;
}

static cimfs_hresult sync_file(cimfs_file file)
{
    content_of(file);
    MAY_FAIL(1);
    syncs++;
    return CIMFS_OK;
}

static cimfs_hresult sync_directory(cimfs_file directory)
{
    if (directory < FIRST_DIRECTORY)
        abort();
    MAY_FAIL(1);
    syncs++;
    return CIMFS_OK;
}

static cimfs_hresult rename_file(cimfs_file directory, const char *from, const char *to)
{
    (void)directory;
    MAY_FAIL(1);
    struct name *source = find(from), *target = find(to);
    if (!source)
        return CIMFS_E_FILE_NOT_FOUND;
    if (target)
        unlink_name(target);
    snprintf(source->name, sizeof source->name, "%s", to);
    return CIMFS_OK;
}

static cimfs_hresult remove_file(cimfs_file directory, const char *name)
{
    (void)directory;
    struct name *entry = find(name);
    if (!entry)
        return CIMFS_E_FILE_NOT_FOUND;
    unlink_name(entry);
    return CIMFS_OK;
}

/* A copy that ends exactly where the file ended: a read behind it is an error that a sanitizer sees. */
static cimfs_hresult map_file(cimfs_file file, size_t size, const uint8_t **data)
{
    struct content *content = content_of(file);
    *data = NULL;
    MAY_FAIL(0);
    if (size == 0 || size > content->size)
        abort();
    uint8_t *copy = malloc(size);
    if (!copy)
        return CIMFS_E_OUT_OF_MEMORY;
    memcpy(copy, content->data, size);
    maps++;
    *data = copy;
    return CIMFS_OK;
}

static void unmap_file(const uint8_t *data, size_t size)
{
    (void)size;
    free((void *)(uintptr_t)data);
    maps--;
}

static cimfs_hresult some_random(void *data, size_t size)
{
    static uint8_t next = 1;
    MAY_FAIL(0);
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)data)[i] = next = (uint8_t)(next * 5 + 3);
    return CIMFS_OK;
}

static int64_t some_time(void)
{
    return 133000000000000000;
}

const struct cimfs_io memory_io = {
    .open_directory = open_directory,
    .open = open_file,
    .close = close_file,
    .lock = lock_file,
    .size = size_of,
    .read = read_file,
    .write = write_file,
    .truncate = truncate_file,
    .sync = sync_file,
    .sync_directory = sync_directory,
    .rename = rename_file,
    .remove = remove_file,
    .map = map_file,
    .unmap = unmap_file,
    .random = some_random,
    .now = some_time,
};

/* ---- looking from outside ---- */

int memory_is_idle(void)
{
    for (int i = 0; i < MAX_OPEN; i++)
        if (open_files[i])
            return 0;
    for (int i = 0; i < MAX_DIRECTORIES; i++)
        if (directories[i])
            return 0;
    return maps == 0;
}

void memory_clear(void)
{
    for (int i = 0; i < MAX_FILES; i++)
        if (names[i].content)
            unlink_name(&names[i]);
    memory_fail_at(0, CIMFS_OK);
}

void memory_put(const char *name, const void *data, size_t size)
{
    struct content *content = find(name) ? find(name)->content : create(name);
    resize(content, size);
    if (size > 0)
        memcpy(content->data, data, size);
}

const uint8_t *memory_get(const char *name, size_t *size)
{
    struct name *entry = find(name);
    *size = entry ? entry->content->size : 0;
    return entry ? entry->content->data : NULL;
}

struct memory_snapshot *memory_take(void)
{
    struct memory_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        abort();
    for (int i = 0; i < MAX_FILES; i++) {
        if (!names[i].content)
            continue;
        struct content *content = names[i].content;
        int n = snapshot->count++;
        memcpy(snapshot->files[n].name, names[i].name, sizeof names[i].name);
        snapshot->files[n].size = content->size;
        snapshot->files[n].data = malloc(content->size + 1);
        if (!snapshot->files[n].data)
            abort();
        if (content->size > 0)
            memcpy(snapshot->files[n].data, content->data, content->size);
    }
    return snapshot;
}

int memory_same(const struct memory_snapshot *snapshot, const char *skip)
{
    int count = 0;
    for (int i = 0; i < MAX_FILES; i++)
        count += names[i].content != NULL;
    for (int i = 0; i < snapshot->count; i++) {
        size_t size;
        if (skip && strncmp(snapshot->files[i].name, skip, strlen(skip)) == 0 && find(snapshot->files[i].name))
            continue;
        const uint8_t *data = memory_get(snapshot->files[i].name, &size);
        if (!data && !find(snapshot->files[i].name))
            return 0;
        if (size != snapshot->files[i].size || (size && memcmp(data, snapshot->files[i].data, size) != 0))
            return 0;
    }
    return count == snapshot->count;
}

void memory_drop(struct memory_snapshot *snapshot)
{
    for (int i = 0; i < snapshot->count; i++)
        free(snapshot->files[i].data);
    free(snapshot);
}

void memory_restore(const struct memory_snapshot *snapshot)
{
    memory_clear();
    for (int i = 0; i < snapshot->count; i++)
        memory_put(snapshot->files[i].name, snapshot->files[i].data, snapshot->files[i].size);
}
