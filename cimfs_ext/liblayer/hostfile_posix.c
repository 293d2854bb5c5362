#ifndef _WIN32

#include "hostfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "to be compiled with _FILE_OFFSET_BITS=64");

const int LAYER_HOST_EXISTS = EEXIST, LAYER_HOST_STOPPED = ECANCELED, LAYER_HOST_TOO_LARGE = EFBIG;

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

int layer_host_create(layer_host_file directory, const char *name, int sparse, layer_host_file *file)
{
    (void)sparse; /* every file may be */
    *file = openat((int)directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    return *file < 0 ? errno : 0;
}

int layer_host_read(layer_host_file file, void *data, size_t size, uint64_t position, size_t *got)
{
    uint8_t *to = data;
    for (*got = 0; *got < size;) {
        ssize_t count = pread((int)file, to + *got, size - *got, (off_t)(position + *got));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? errno : 0;
        *got += (size_t)count;
    }
    return 0;
}

int layer_host_write(layer_host_file file, const uint8_t *data, size_t size, uint64_t position)
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

int layer_host_resize(layer_host_file file, uint64_t size)
{
    return ftruncate((int)file, (off_t)size) != 0 ? errno : 0;
}

int layer_host_stamp(layer_host_file file, const struct layer_host_times *times)
{
    struct timespec found[2] = {timespec_of(times->last_access), timespec_of(times->last_write)};
    return futimens((int)file, found) != 0 ? errno : 0;
}

int layer_host_close(layer_host_file file)
{
    return close((int)file) != 0 ? errno : 0;
}

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

int layer_host_rename(layer_host_file directory, const char *from, const char *to, int replace)
{
    if (!replace)
        return rename_to_new((int)directory, from, to);
    return renameat((int)directory, from, (int)directory, to) != 0 ? errno : 0;
}

void layer_host_remove(layer_host_file directory, const char *name)
{
    unlinkat((int)directory, name, 0);
}

int layer_host_is_there(layer_host_file directory, const char *name, uint64_t size, uint64_t last_write)
{
    struct timespec time = timespec_of(last_write);
    struct stat status;
    if (fstatat((int)directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
#ifdef __APPLE__
    struct timespec found = status.st_mtimespec;
#else
    struct timespec found = status.st_mtim;
#endif
    return S_ISREG(status.st_mode) && (uint64_t)status.st_size == size && found.tv_sec == time.tv_sec &&
           (found.tv_nsec == time.tv_nsec || found.tv_nsec == 0);
}

#else

/* ISO C wants something in every file. */
typedef int layer_hostfile_posix_is_for_posix;

#endif
