#ifndef _WIN32

#include "extract.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "to be compiled with _FILE_OFFSET_BITS=64");

const int LAYER_STOPPED = ECANCELED, LAYER_TOO_LARGE = EFBIG;

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

int layer_host_write(intptr_t file, const uint8_t *data, size_t size, uint64_t position)
{
    while (size > 0) {
        ssize_t put = pwrite((int)file, data, size, (off_t)position);
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

int layer_host_resize(intptr_t file, uint64_t size)
{
    return ftruncate((int)file, (off_t)size) == 0 ? 0 : errno;
}

int layer_extract_file(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name)
{
    struct cimfs_record record;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, &extraction->error, &record));
    struct cimfs_extent content = cimfs_extent_of(record.data);
    int holes = (get16(record.flags) & CIMFS_FLAG_SPARSE) != 0;
    int file = openat((int)directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return errno;
    int result = layer_extract_content(extraction, &content, holes, file);
    struct timespec times[2] = {timespec_of(get64(record.last_access_time)),
                                timespec_of(get64(record.last_write_time))};
    if (result == 0 && futimens(file, times) != 0)
        result = errno;
    if (close(file) != 0 && result == 0)
        result = errno;
    if (result)
        unlinkat((int)directory, name, 0);
    return result;
}

int layer_extract_metadata(struct layer_extraction *extraction, uint32_t id, intptr_t directory, const char *name)
{
    struct cimfs_record record;
    CIMFS_TRY(cimfs_reader_record(extraction->reader, id, &extraction->error, &record));
    struct timespec times[2] = {timespec_of(get64(record.last_access_time)),
                                timespec_of(get64(record.last_write_time))};
    return utimensat((int)directory, name, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

#else

/* ISO C wants something in every file. */
typedef int layer_extract_posix_is_for_posix;

#endif
