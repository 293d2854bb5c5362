#include "extract.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libcimfs/contentcheck.h"

_Static_assert(sizeof(off_t) == 8, "to be compiled with _FILE_OFFSET_BITS=64");

enum { HOLE = 1 << 16 }; /* a run of zeros of this length, at a multiple of it, is left out */

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

static int write_content(const struct cimfs_reader *reader, const struct cimfs_extent *content, int holes, int file,
                         uint8_t *buffer, const volatile int *stop, struct cimfs_error *error)
{
    struct cimfs_content_check check = {0};
    if (content->length > (uint64_t)INT64_MAX)
        return EFBIG;
    if ((holes || content->sparse) && ftruncate(file, (off_t)content->length) != 0)
        return errno;
    for (uint64_t position = 0; position < content->length && !content->sparse;) {
        size_t got;
        if (*stop)
            return ECANCELED;
        cimfs_hresult code =
            cimfs_reader_read_checked(reader, content, &check, position, buffer, LAYER_EXTRACT_BUFFER, error, &got);
        if (code < 0)
            return code;
        int result = holes ? write_around_holes(file, buffer, got, position) : write_all(file, buffer, got, position);
        if (result)
            return result;
        position += got;
    }
    return 0;
}

int layer_extract_file(const struct cimfs_reader *reader, uint32_t id, int directory, const char *name,
                       uint8_t buffer[LAYER_EXTRACT_BUFFER], const volatile int *stop, struct cimfs_error *error)
{
    struct cimfs_record record;
    CIMFS_TRY(cimfs_reader_record(reader, id, error, &record));
    struct cimfs_extent content = cimfs_extent_of(record.data);
    int holes = (get16(record.flags) & CIMFS_FLAG_SPARSE) != 0;
    int file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return errno;
    int result = write_content(reader, &content, holes, file, buffer, stop, error);
    struct timespec times[2] = {timespec_of(get64(record.last_access_time)),
                                timespec_of(get64(record.last_write_time))};
    if (result == 0 && futimens(file, times) != 0)
        result = errno;
    if (close(file) != 0 && result == 0)
        result = errno;
    if (result)
        unlinkat(directory, name, 0);
    return result;
}
