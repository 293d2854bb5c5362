#include "extract.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include "libcimfs/contentcheck.h"

_Static_assert(sizeof(off_t) == 8, "to be compiled with _FILE_OFFSET_BITS=64");

enum {
    HOLE = 1 << 16,      /* a run of zeros of this length, at a multiple of it, is left out */
    TEMPORARY_NAME = 128 /* bytes */
};

static const int64_t UNIX_EPOCH = 116444736000000000; /* 1970-01-01 as a FILETIME */
static const int64_t TICKS = 10000000;                /* of 100 ns */

static struct timespec timespec_of(uint64_t filetime)
{
    int64_t time = (int64_t)filetime;
    int64_t ticks = time < INT64_MIN + UNIX_EPOCH ? INT64_MIN : time - UNIX_EPOCH;
    int64_t seconds = ticks / TICKS, rest = ticks % TICKS;
    if (rest < 0) {
        rest += TICKS;
        seconds--;
    }
    return (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(rest * 100)};
}

static int is_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

static int write_all(int file, const uint8_t *data, size_t size, uint64_t position)
{
    while (size > 0) {
        ssize_t put = pwrite(file, data, size, (off_t)position);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        data += put;
        size -= (size_t)put;
        position += (uint64_t)put;
    }
    return 0;
}

static int write_around_holes(int file, const uint8_t *data, size_t size, uint64_t position)
{
    for (size_t at = 0; at < size; at += HOLE) {
        size_t count = size - at < HOLE ? size - at : HOLE;
        if (!is_zero(data + at, count)) {
            int result = write_all(file, data + at, count, position + at);
            if (result)
                return result;
        }
    }
    return 0;
}

/* The content from position on; the buffer has its first got bytes. */
static int write_content(struct layer_extraction *extraction, const struct cimfs_extent *content,
                         struct cimfs_content_check *check, int holes, int file, uint8_t *buffer, size_t got,
                         struct cimfs_error *error)
{
    uint64_t position = 0;
    if ((holes || content->sparse) && ftruncate(file, (off_t)content->length) != 0)
        return errno;
    while (got > 0) {
        int result = holes ? write_around_holes(file, buffer, got, position) : write_all(file, buffer, got, position);
        if (result)
            return result;
        position += got;
        atomic_fetch_add_explicit(&extraction->written, got, memory_order_relaxed);
        if (position == content->length)
            return 0;
        if (atomic_load_explicit(&extraction->stop, memory_order_relaxed))
            return ECANCELED;
        CIMFS_TRY(cimfs_reader_read_checked(extraction->reader, content, check, position, buffer, LAYER_EXTRACT_BUFFER,
                                            error, &got));
    }
    return 0;
}

/* Is the file whole? It got its name and this time only then; some file systems keep whole seconds. */
static int is_there(int directory, const char *name, uint64_t size, struct timespec time)
{
    struct stat status;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
#ifdef __APPLE__
    struct timespec found = status.st_mtimespec;
#else
    struct timespec found = status.st_mtim;
#endif
    return S_ISREG(status.st_mode) && (uint64_t)status.st_size == size && found.tv_sec == time.tv_sec &&
           (found.tv_nsec == time.tv_nsec || found.tv_nsec == 0);
}

/* An errno, EEXIST if the name is taken. */
static int rename_to_new(int directory, const char *from, const char *to)
{
#ifdef SYS_renameat2
    const unsigned no_replace = 1; /* RENAME_NOREPLACE, which needs headers of GNU */
    if (syscall(SYS_renameat2, directory, from, directory, to, no_replace) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
#endif
    if (linkat(directory, from, directory, to, 0) == 0)
        return unlinkat(directory, from, 0) != 0 ? errno : 0;
    struct stat status;
    if (errno == EEXIST || fstatat(directory, to, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return EEXIST;
    return renameat(directory, from, directory, to) != 0 ? errno : 0;
}

static int write_file(struct layer_extraction *extraction, const struct cimfs_extent *content, int holes,
                      const struct timespec times[2], int directory, const char *name, uint8_t *buffer,
                      struct cimfs_error *error)
{
    struct cimfs_content_check check = {0};
    size_t got = 0;
    if (!content->sparse && content->length > 0)
        CIMFS_TRY(cimfs_reader_read_checked(extraction->reader, content, &check, 0, buffer, LAYER_EXTRACT_BUFFER, error,
                                            &got));
    int file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return errno;
    int result = write_content(extraction, content, &check, holes, file, buffer, got, error);
    if (result == 0 && futimens(file, times) != 0)
        result = errno;
    if (close(file) != 0 && result == 0)
        result = errno;
    if (result)
        unlinkat(directory, name, 0);
    return result;
}

void layer_extraction_init(struct layer_extraction *extraction, const struct cimfs_reader *reader,
                           enum layer_existing existing)
{
    extraction->reader = reader;
    extraction->existing = existing;
    atomic_init(&extraction->stop, 0);
    atomic_init(&extraction->written, 0);
}

void layer_extraction_stop(struct layer_extraction *extraction)
{
    atomic_store(&extraction->stop, 1);
}

uint64_t layer_extraction_written(struct layer_extraction *extraction)
{
    return atomic_load(&extraction->written);
}

int layer_extract_file(struct layer_extraction *extraction, uint32_t id, int directory, const char *name,
                       uint8_t buffer[LAYER_EXTRACT_BUFFER], int *skipped, struct cimfs_error *error)
{
    struct cimfs_record record;
    char temporary[TEMPORARY_NAME];
    *skipped = 0;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, error, &record));
    struct cimfs_extent content = cimfs_extent_of(record.data);
    int holes = (get16(record.flags) & CIMFS_FLAG_SPARSE) != 0;
    struct timespec times[2] = {timespec_of(get64(record.last_access_time)),
                                timespec_of(get64(record.last_write_time))};
    if (content.length > (uint64_t)INT64_MAX)
        return EFBIG;
    if (atomic_load_explicit(&extraction->stop, memory_order_relaxed))
        return ECANCELED;
    if (extraction->existing == LAYER_EXISTING_SKIPPED && is_there(directory, name, content.length, times[1])) {
        *skipped = 1;
        return 0;
    }
    int result;
    if (content.sparse || content.length <= LAYER_EXTRACT_BUFFER) {
        /* One write: renaming a file takes longer than making it, and one without its time is not taken for whole. */
        result = write_file(extraction, &content, holes, times, directory, name, buffer, error);
        if (result != EEXIST || extraction->existing == LAYER_EXISTING_REFUSED)
            return result;
    }
    snprintf(temporary, sizeof temporary, "%.64s%x", extraction->temporary, (unsigned)id);
    result = write_file(extraction, &content, holes, times, directory, temporary, buffer, error);
    if (result)
        return result;
    if (extraction->existing == LAYER_EXISTING_REFUSED)
        result = rename_to_new(directory, temporary, name);
    else
        result = renameat(directory, temporary, directory, name) != 0 ? errno : 0;
    if (result)
        unlinkat(directory, temporary, 0);
    return result;
}
