/*
 * Preloaded into a process, this writes down what the process changes below the directory RECORD_ROOT: a line in the
 * file RECORD_JOURNAL for each call that succeeded, its words apart by tabs, paths relative to the root.
 *     open ID PATH            a regular file, which is made if nothing has that path
 *     write ID OFFSET HEX     truncate ID SIZE        sync ID
 *     mkdir PATH              remove PATH             link PATH NEW          rename PATH NEW
 *     sync_directory PATH
 * A file's ID is its inode, so that it stays the same through any number of descriptors.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static FILE *journal(void)
{
    static FILE *file;
    if (!file)
        file = fopen(getenv("RECORD_JOURNAL"), "w");
    if (!file)
        abort();
    return file;
}

/* ---- what a call is about ---- */

/* The path relative to the root; 0 if it lies elsewhere. */
static int below_root(const char *path, char relative[PATH_MAX])
{
    const char *root = getenv("RECORD_ROOT");
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

/* Whether a descriptor is that of something below the root, and of what. */
static int examine(int fd, struct stat *status, char relative[PATH_MAX])
{
    char path[PATH_MAX];
    return fstat(fd, status) == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) &&
           path_of_descriptor(fd, path) && below_root(path, relative);
}

/* ---- files ---- */

static int record_open(int directory, const char *path, int flags, mode_t mode)
{
    char relative[PATH_MAX];
    struct stat status;
    pthread_mutex_lock(&lock);
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && examine(fd, &status, relative) && S_ISREG(status.st_mode)) {
        fprintf(journal(), "open\t%llu\t%s\n", (unsigned long long)status.st_ino, relative);
        if (flags & O_TRUNC)
            fprintf(journal(), "truncate\t%llu\t0\n", (unsigned long long)status.st_ino);
        fflush(journal());
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENS(name, directory_parameter, directory)                                                                    \
    int name(directory_parameter const char *path, int flags, ...)                                                     \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, unsigned) : 0;                              \
        va_end(rest);                                                                                                  \
        return record_open(directory, path, flags, mode);                                                              \
    }
#define NOTHING
#define DIRECTORY int from,
OPENS(open, NOTHING, AT_FDCWD)
OPENS(open64, NOTHING, AT_FDCWD)
OPENS(openat, DIRECTORY, from)
OPENS(openat64, DIRECTORY, from)

static void record_data(int fd, const uint8_t *data, ssize_t size, int64_t offset)
{
    struct stat status;
    char relative[PATH_MAX];
    if (size <= 0 || !examine(fd, &status, relative))
        return;
    fprintf(journal(), "write\t%llu\t%lld\t", (unsigned long long)status.st_ino, (long long)offset);
    for (ssize_t i = 0; i < size; i++)
        fprintf(journal(), "%02x", data[i]);
    fputc('\n', journal());
    fflush(journal());
}

ssize_t write(int fd, const void *data, size_t size)
{
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_write, fd, data, size);
    if (written > 0)
        record_data(fd, data, written, lseek(fd, 0, SEEK_CUR) - written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_pwrite64, fd, data, size, offset);
    record_data(fd, data, written, offset);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

/* A call that is about a file, or a directory, and not about its path. */
static int recorded(long result, int fd, const char *kind, long long number)
{
    struct stat status;
    char relative[PATH_MAX];
    if (result == 0 && examine(fd, &status, relative)) {
        if (S_ISDIR(status.st_mode))
            fprintf(journal(), "%s_directory\t%s\n", kind, relative);
        else
            fprintf(journal(), "%s\t%llu\t%lld\n", kind, (unsigned long long)status.st_ino, number);
        fflush(journal());
    }
    pthread_mutex_unlock(&lock);
    return (int)result;
}

int ftruncate(int fd, off_t size)
{
    pthread_mutex_lock(&lock);
    return recorded(syscall(SYS_ftruncate, fd, size), fd, "truncate", size);
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int fsync(int fd)
{
    pthread_mutex_lock(&lock);
    return recorded(syscall(SYS_fsync, fd), fd, "sync", 0);
}

int fdatasync(int fd)
{
    pthread_mutex_lock(&lock);
    return recorded(syscall(SYS_fdatasync, fd), fd, "sync", 0);
}

/* ---- names ---- */

static int renamed(long result, const char *kind, int directory, const char *path, int to, const char *new_path)
{
    char from[PATH_MAX], into[PATH_MAX];
    if (result == 0 && find(directory, path, from)) {
        fprintf(journal(), "%s\t%s", kind, from);
        if (new_path && find(to, new_path, into))
            fprintf(journal(), "\t%s", into);
        fputc('\n', journal());
        fflush(journal());
    }
    pthread_mutex_unlock(&lock);
    return (int)result;
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    pthread_mutex_lock(&lock);
    return renamed(syscall(SYS_mkdirat, directory, path, mode), "mkdir", directory, path, 0, NULL);
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int directory, const char *path, int flags)
{
    pthread_mutex_lock(&lock);
    return renamed(syscall(SYS_unlinkat, directory, path, flags), "remove", directory, path, 0, NULL);
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int renameat(int directory, const char *path, int to, const char *new_path)
{
    pthread_mutex_lock(&lock);
    long result = syscall(SYS_renameat2, directory, path, to, new_path, 0);
    return renamed(result, "rename", directory, path, to, new_path);
}

int rename(const char *path, const char *new_path)
{
    return renameat(AT_FDCWD, path, AT_FDCWD, new_path);
}

int linkat(int directory, const char *path, int to, const char *new_path, int flags)
{
    pthread_mutex_lock(&lock);
    long result = syscall(SYS_linkat, directory, path, to, new_path, flags);
    return renamed(result, "link", directory, path, to, new_path);
}

int link(const char *path, const char *new_path)
{
    return linkat(AT_FDCWD, path, AT_FDCWD, new_path, 0);
}
