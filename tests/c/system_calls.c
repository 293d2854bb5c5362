/*
 * Preloaded into a process, this stands between it and the system's calls about what lies below the directory
 * CALLS_ROOT. It does any of this:
 *
 * - CALLS_JOURNAL is a file that gets a line for each change, its words apart by tabs, paths relative to the root:
 *       open ID PATH            a regular file, which is made if nothing has that path
 *       write ID OFFSET HEX     truncate ID SIZE        sync ID
 *       mkdir PATH              remove PATH             link PATH NEW          rename PATH NEW
 *       sync_directory PATH
 *   A file's ID is its inode, so that it stays the same through any number of descriptors.
 * - CALLS_RELUCTANT: reads and writes do half of what they are asked for, and every other one is interrupted.
 * - fail_call(n): the n-th call from then on, from 0, fails with an error that it has. calls_made() is how many there
 *   were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Held while a change is made and written down, so that the journal has their order. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static _Atomic long calls, failing_call = -1;
static _Atomic unsigned turns;

void fail_call(long number)
{
    calls = 0;
    failing_call = number;
}

long calls_made(void)
{
    return calls;
}

/* ---- what a call is about ---- */

/* The path relative to the root; 0 if it lies elsewhere. */
static int below_root(const char *path, char relative[PATH_MAX])
{
    const char *root = getenv("CALLS_ROOT");
    size_t length = root ? strlen(root) : 0;
    if (length == 0 || strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return 0;
    snprintf(relative, PATH_MAX, "%s", path[length] == '/' ? path + length + 1 : "");
    return 1;
}

static int path_of_descriptor(int fd, char path[PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return 1;
}

static int find(int directory, const char *path, char relative[PATH_MAX])
{
    char base[PATH_MAX], whole[2 * PATH_MAX];
    if (path[0] == '/')
        return below_root(path, relative);
    if (directory == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of_descriptor(directory, base))
        return 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return below_root(whole, relative);
}

/* Whether a descriptor is that of a file or directory below the root, and of which. */
static int examine(int fd, struct stat *status, char relative[PATH_MAX])
{
    int kept = errno;
    char path[PATH_MAX];
    int known = fstat(fd, status) == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) &&
                path_of_descriptor(fd, path) && below_root(path, relative);
    errno = kept;
    return known;
}

/* ---- what becomes of it ---- */

static int fails(int error)
{
    if (calls++ != failing_call)
        return 0;
    errno = error;
    return 1;
}

static int interrupted(void)
{
    if (!getenv("CALLS_RELUCTANT") || turns++ % 2)
        return 0;
    errno = EINTR;
    return 1;
}

static size_t as_much_as_it_must(size_t size)
{
    return getenv("CALLS_RELUCTANT") && size > 1 ? size / 2 : size;
}

__attribute__((format(printf, 1, 2))) static void write_down(const char *format, ...)
{
    static FILE *file;
    int kept = errno;
    const char *name = getenv("CALLS_JOURNAL");
    if (!name)
        return;
    if (!file)
        file = fopen(name, "w");
    if (!file)
        abort();
    va_list words;
    va_start(words, format);
    vfprintf(file, format, words);
    va_end(words);
    fflush(file);
    errno = kept;
}

/* ---- files ---- */

static int open_file(int directory, const char *path, int flags, mode_t mode)
{
    char relative[PATH_MAX];
    struct stat status;
    if (find(directory, path, relative) && fails(flags & O_CREAT ? ENOSPC : EIO))
        return -1;
    pthread_mutex_lock(&order);
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && examine(fd, &status, relative) && S_ISREG(status.st_mode)) {
        write_down("open\t%llu\t%s\n", (unsigned long long)status.st_ino, relative);
        if (flags & O_TRUNC)
            write_down("truncate\t%llu\t0\n", (unsigned long long)status.st_ino);
    }
    pthread_mutex_unlock(&order);
    return fd;
}

#define OPENS(name, from_parameter, from)                                                                              \
    int name(from_parameter const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? (mode_t)va_arg(rest, unsigned) : 0;                                            \
        va_end(rest);                                                                                                  \
        return open_file(from, path, flags, mode);                                                                     \
    }
#define NOTHING
#define DIRECTORY int directory,
OPENS(open, NOTHING, AT_FDCWD)
OPENS(open64, NOTHING, AT_FDCWD)
OPENS(openat, DIRECTORY, directory)
OPENS(openat64, DIRECTORY, directory)

static ssize_t read_data(int fd, void *data, size_t size, off_t offset, int has_offset)
{
    char relative[PATH_MAX];
    struct stat status;
    if (examine(fd, &status, relative)) {
        if (fails(EIO) || interrupted())
            return -1;
        size = as_much_as_it_must(size);
    }
    return has_offset ? syscall(SYS_pread64, fd, data, size, offset) : syscall(SYS_read, fd, data, size);
}

ssize_t read(int fd, void *data, size_t size)
{
    return read_data(fd, data, size, 0, 0);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return read_data(fd, data, size, offset, 1);
}

ssize_t pread64(int fd, void *data, size_t size, off_t offset)
{
    return read_data(fd, data, size, offset, 1);
}

static void write_down_data(ino_t file, const uint8_t *data, size_t size, off_t offset)
{
    if (!getenv("CALLS_JOURNAL"))
        return;
    char *text = malloc(2 * size + 1);
    if (!text)
        abort();
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", data[i]);
    write_down("write\t%llu\t%lld\t%s\n", (unsigned long long)file, (long long)offset, text);
    free(text);
}

static ssize_t write_data(int fd, const void *data, size_t size, off_t offset, int has_offset)
{
    char relative[PATH_MAX];
    struct stat status;
    if (!examine(fd, &status, relative))
        return has_offset ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    if (fails(ENOSPC) || interrupted())
        return -1;
    size = as_much_as_it_must(size);
    pthread_mutex_lock(&order);
    ssize_t written;
    if (has_offset) {
        written = syscall(SYS_pwrite64, fd, data, size, offset);
    } else {
        offset = lseek(fd, 0, SEEK_CUR);
        written = syscall(SYS_write, fd, data, size);
    }
    if (written > 0)
        write_down_data(status.st_ino, data, (size_t)written, offset);
    pthread_mutex_unlock(&order);
    return written;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return write_data(fd, data, size, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_data(fd, data, size, offset, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return write_data(fd, data, size, offset, 1);
}

static int change_file(long number, int fd, off_t size, const char *kind, int error)
{
    char relative[PATH_MAX];
    struct stat status;
    int known = examine(fd, &status, relative);
    if (known && fails(error))
        return -1;
    pthread_mutex_lock(&order);
    long result = syscall(number, fd, size);
    if (known && result == 0 && S_ISDIR(status.st_mode))
        write_down("%s_directory\t%s\n", kind, relative);
    else if (known && result == 0)
        write_down("%s\t%llu\t%lld\n", kind, (unsigned long long)status.st_ino, (long long)size);
    pthread_mutex_unlock(&order);
    return (int)result;
}

int ftruncate(int fd, off_t size)
{
    return change_file(SYS_ftruncate, fd, size, "truncate", ENOSPC);
}

int ftruncate64(int fd, off_t size)
{
    return change_file(SYS_ftruncate, fd, size, "truncate", ENOSPC);
}

int fsync(int fd)
{
    return change_file(SYS_fsync, fd, 0, "sync", EIO);
}

int fdatasync(int fd)
{
    return change_file(SYS_fdatasync, fd, 0, "sync", EIO);
}

/* ---- names ---- */

int mkdirat(int directory, const char *path, mode_t mode)
{
    char relative[PATH_MAX];
    int known = find(directory, path, relative);
    if (known && fails(ENOSPC))
        return -1;
    pthread_mutex_lock(&order);
    long result = syscall(SYS_mkdirat, directory, path, mode);
    if (known && result == 0)
        write_down("mkdir\t%s\n", relative);
    pthread_mutex_unlock(&order);
    return (int)result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int directory, const char *path, int flags)
{
    char relative[PATH_MAX];
    int known = find(directory, path, relative);
    if (known && fails(EIO))
        return -1;
    pthread_mutex_lock(&order);
    long result = syscall(SYS_unlinkat, directory, path, flags);
    if (known && result == 0)
        write_down("remove\t%s\n", relative);
    pthread_mutex_unlock(&order);
    return (int)result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

static int name_again(long number, int directory, const char *path, int to, const char *new_path, int flags,
                      const char *kind, int error)
{
    char old[PATH_MAX], new[PATH_MAX];
    int known = find(directory, path, old) && find(to, new_path, new);
    if (known && fails(error))
        return -1;
    pthread_mutex_lock(&order);
    long result = syscall(number, directory, path, to, new_path, flags);
    if (known && result == 0)
        write_down("%s\t%s\t%s\n", kind, old, new);
    pthread_mutex_unlock(&order);
    return (int)result;
}

int renameat(int directory, const char *path, int to, const char *new_path)
{
    return name_again(SYS_renameat2, directory, path, to, new_path, 0, "rename", EIO);
}

int rename(const char *path, const char *new_path)
{
    return renameat(AT_FDCWD, path, AT_FDCWD, new_path);
}

int linkat(int directory, const char *path, int to, const char *new_path, int flags)
{
    return name_again(SYS_linkat, directory, path, to, new_path, flags, "link", ENOSPC);
}

int link(const char *path, const char *new_path)
{
    return linkat(AT_FDCWD, path, AT_FDCWD, new_path, 0);
}
