#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "to be compiled with _FILE_OFFSET_BITS=64");

static const int64_t UNIX_EPOCH = 116444736000000000; /* 1970-01-01 as a FILETIME */

static cimfs_hresult from_errno(int error)
{
    switch (error) {
    case ENOENT:
        return CIMFS_E_FILE_NOT_FOUND;
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
        return CIMFS_E_PATH_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return CIMFS_E_ACCESS_DENIED;
    case EEXIST:
        return CIMFS_E_FILE_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return CIMFS_E_DISK_FULL;
    case EMFILE:
    case ENFILE:
        return CIMFS_E_TOO_MANY_OPEN_FILES;
    case ENOMEM:
        return CIMFS_E_OUT_OF_MEMORY;
    case EWOULDBLOCK:
        return CIMFS_E_SHARING_VIOLATION;
    default:
        return CIMFS_E_IO_DEVICE;
    }
}

static cimfs_hresult posix_open_directory(const char *path, cimfs_file *directory)
{
    *directory = CIMFS_NO_FILE;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? CIMFS_E_PATH_NOT_FOUND : from_errno(errno);
    *directory = fd;
    return CIMFS_OK;
}

static cimfs_hresult posix_open(cimfs_file directory, const char *name, enum cimfs_open_mode mode, cimfs_file *file)
{
    *file = CIMFS_NO_FILE;
    int flags = mode == CIMFS_OPEN_READ ? O_RDONLY : mode == CIMFS_OPEN_WRITE ? O_RDWR : O_RDWR | O_CREAT | O_EXCL;
    /* No symbolic link and no device stands in for a file of an image; non-blocking so that a FIFO cannot hang. */
    int fd = openat((int)directory, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (fd < 0)
        return from_errno(errno);
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        return CIMFS_E_FILE_CORRUPT;
    }
    *file = fd;
    return CIMFS_OK;
}

/*
 * flock belongs to this open file: it dies with the process, unless that was forked, and excludes other images of this
 * process too.
 */
static cimfs_hresult posix_lock(cimfs_file directory, const char *name, cimfs_file file, enum cimfs_lock kind)
{
    int operation = (kind == CIMFS_LOCK_SHARED ? LOCK_SH : LOCK_EX) | (kind == CIMFS_LOCK_ALONE_WAITING ? 0 : LOCK_NB);
    while (flock((int)file, operation) != 0)
        if (errno != EINTR)
            return from_errno(errno);
    struct stat held, named;
    if (fstat((int)file, &held) != 0 || fstatat((int)directory, name, &named, AT_SYMLINK_NOFOLLOW) != 0)
        return from_errno(errno);
    return held.st_dev == named.st_dev && held.st_ino == named.st_ino ? CIMFS_OK : CIMFS_E_FILE_NOT_FOUND;
}

static void posix_close(cimfs_file file)
{
    flock((int)file, LOCK_UN); /* closing does not end it while a forked process has the file */
    close((int)file);
}

static cimfs_hresult posix_size(cimfs_file file, uint64_t *size)
{
    *size = 0;
    struct stat status;
    if (fstat((int)file, &status) != 0)
        return from_errno(errno);
    *size = (uint64_t)status.st_size;
    return CIMFS_OK;
}

static cimfs_hresult posix_read(cimfs_file file, void *data, size_t size, uint64_t offset)
{
    uint8_t *to = data;
    while (size > 0) {
        ssize_t got = pread((int)file, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return from_errno(errno);
        if (got == 0)
            return CIMFS_E_HANDLE_EOF;
        to += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return CIMFS_OK;
}

static cimfs_hresult posix_write(cimfs_file file, const void *data, size_t size, uint64_t offset)
{
    const uint8_t *from = data;
    while (size > 0) {
        ssize_t put = pwrite((int)file, from, size, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return from_errno(errno);
        from += put;
        size -= (size_t)put;
        offset += (uint64_t)put;
    }
    return CIMFS_OK;
}

static cimfs_hresult posix_truncate(cimfs_file file, uint64_t size)
{
    int result;
    do
        result = ftruncate((int)file, (off_t)size);
    while (result != 0 && errno == EINTR);
    return result == 0 ? CIMFS_OK : from_errno(errno);
}

#ifdef __linux__
enum { EXT4_MAGIC = 0xEF53 };

/*
 * Only on ext4, where writes into blocks that are already there take a third less time. XFS gains nothing, tmpfs and
 * btrfs lose. What is reserved beyond the end of the file goes when it is truncated, unless that lengthens it.
 */
static void posix_reserve(cimfs_file file, uint64_t offset, uint64_t size)
{
    struct statfs filesystem;
    if (fstatfs((int)file, &filesystem) == 0 && filesystem.f_type == EXT4_MAGIC)
        (void)fallocate((int)file, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
}

static void posix_write_back(cimfs_file file, uint64_t offset, uint64_t size)
{
    (void)sync_file_range((int)file, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
}
#endif

static cimfs_hresult posix_sync(cimfs_file file)
{
    int result;
    do
        result = fsync((int)file);
    while (result != 0 && errno == EINTR);
    return result == 0 ? CIMFS_OK : from_errno(errno);
}

static cimfs_hresult posix_rename(cimfs_file directory, const char *from, const char *to)
{
    return renameat((int)directory, from, (int)directory, to) == 0 ? CIMFS_OK : from_errno(errno);
}

static cimfs_hresult posix_remove(cimfs_file directory, const char *name)
{
    return unlinkat((int)directory, name, 0) == 0 ? CIMFS_OK : from_errno(errno);
}

static cimfs_hresult posix_map(cimfs_file file, size_t size, const uint8_t **data)
{
    *data = NULL;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, (int)file, 0);
    if (map == MAP_FAILED)
        return from_errno(errno);
    *data = map;
    return CIMFS_OK;
}

static void posix_unmap(const uint8_t *data, size_t size)
{
    munmap((void *)(uintptr_t)data, size);
}

static cimfs_hresult posix_random(void *data, size_t size)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return from_errno(errno);
    uint8_t *to = data;
    cimfs_hresult result = CIMFS_OK;
    while (size > 0 && result == CIMFS_OK) {
        ssize_t got = read(fd, to, size);
        if (got > 0) {
            to += got;
            size -= (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            result = CIMFS_E_IO_DEVICE;
        }
    }
    close(fd);
    return result;
}

static int64_t posix_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return UNIX_EPOCH + (int64_t)now.tv_sec * 10000000 + now.tv_nsec / 100;
}

const struct cimfs_io cimfs_system_io = {
    .open_directory = posix_open_directory,
    .open = posix_open,
    .close = posix_close,
    .lock = posix_lock,
    .size = posix_size,
    .read = posix_read,
    .write = posix_write,
    .truncate = posix_truncate,
#ifdef __linux__
    .reserve = posix_reserve,
    .write_back = posix_write_back,
#endif
    .sync = posix_sync,
    .sync_directory = posix_sync,
    .rename = posix_rename,
    .remove = posix_remove,
    .map = posix_map,
    .unmap = posix_unmap,
    .random = posix_random,
    .now = posix_now,
    .workers = &cimfs_system_workers,
};
