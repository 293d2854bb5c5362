#ifdef _WIN32

#include "io.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "names.h"

#include <windows.h>
#include <bcrypt.h>

#include "win32.h"

enum { PATH_UNITS = 32768 };

/*
 * An open directory: its handle and its path. As a cimfs_file it is marked by the lowest bit, which no handle has.
 */
struct directory {
    HANDLE handle;
    size_t length;  /* of the path, in code units */
    wchar_t path[]; /* absolute, with a backslash at its end, and room for the name of a file */
};

enum { NAME_UNITS = 256, DIRECTORY_BIT = 1 };

static struct directory *directory_of(cimfs_file file)
{
    return (struct directory *)(file & ~(cimfs_file)DIRECTORY_BIT);
}

static cimfs_hresult from_error(DWORD error)
{
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
        return CIMFS_E_FILE_NOT_FOUND;
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
    case ERROR_BAD_NETPATH:
    case ERROR_DIRECTORY:
    case ERROR_FILENAME_EXCED_RANGE:
        return CIMFS_E_PATH_NOT_FOUND;
    case ERROR_ACCESS_DENIED:
    case ERROR_WRITE_PROTECT:
    case ERROR_USER_MAPPED_FILE:
        return CIMFS_E_ACCESS_DENIED;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
        return CIMFS_E_FILE_EXISTS;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case ERROR_FILE_TOO_LARGE:
        return CIMFS_E_DISK_FULL;
    case ERROR_TOO_MANY_OPEN_FILES:
        return CIMFS_E_TOO_MANY_OPEN_FILES;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
        return CIMFS_E_OUT_OF_MEMORY;
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
        return CIMFS_E_SHARING_VIOLATION;
    case ERROR_HANDLE_EOF:
        return CIMFS_E_HANDLE_EOF;
    default:
        return CIMFS_E_IO_DEVICE;
    }
}

static cimfs_hresult last_error(void)
{
    return from_error(GetLastError());
}

static HANDLE handle_of(cimfs_file file)
{
    return (HANDLE)file;
}

/* ---- paths ---- */

/* UTF-8 to a terminated wide string. */
static cimfs_hresult widen(const char *text, wchar_t *to, size_t capacity)
{
    size_t size = strlen(text);
    if (size >= capacity) /* never more code units than bytes */
        return CIMFS_E_PATH_NOT_FOUND;
    size_t length = cimfs_wide_from_utf8(text, size, (uint16_t *)to);
    if (length == SIZE_MAX)
        return CIMFS_E_PATH_NOT_FOUND;
    to[length] = 0;
    return CIMFS_OK;
}

/* Absolute, with backslashes, and with the prefix that lifts the limit to 260 characters, unless it has one. */
static cimfs_hresult absolute(const wchar_t *path, wchar_t *to)
{
    static const wchar_t LONG[] = L"\\\\?\\", SHARE[] = L"\\\\?\\UNC", DEVICE[] = L"\\\\.\\";
    enum { PREFIX = 8 };
    if (wcsncmp(path, LONG, 4) == 0 || wcsncmp(path, DEVICE, 4) == 0) {
        wcscpy(to, path);
        return CIMFS_OK;
    }
    DWORD length = GetFullPathNameW(path, PATH_UNITS - PREFIX, to + PREFIX, NULL);
    if (length == 0 || length >= PATH_UNITS - PREFIX)
        return CIMFS_E_PATH_NOT_FOUND;
    const wchar_t *full = to + PREFIX;
    const wchar_t *prefix = LONG;
    if (wcsncmp(full, LONG, 4) == 0 || wcsncmp(full, DEVICE, 4) == 0)
        prefix = L"";
    else if (full[0] == '\\' && full[1] == '\\') {
        prefix = SHARE;
        full++;
    }
    size_t size = wcslen(prefix);
    memmove(to + size, full, (wcslen(full) + 1) * sizeof *to);
    memcpy(to, prefix, size * sizeof *to);
    return CIMFS_OK;
}

/* The path of a file of an open directory; the caller frees it. */
static cimfs_hresult path_in(cimfs_file file, const char *name, wchar_t **path)
{
    const struct directory *directory = directory_of(file);
    *path = malloc((directory->length + NAME_UNITS) * sizeof **path);
    if (!*path)
        return CIMFS_E_OUT_OF_MEMORY;
    memcpy(*path, directory->path, directory->length * sizeof **path);
    cimfs_hresult result = widen(name, *path + directory->length, NAME_UNITS);
    if (result < 0) {
        free(*path);
        *path = NULL;
    }
    return result;
}

/* ---- directories and files ---- */

static cimfs_hresult open_path(struct directory *directory, const char *path)
{
    wchar_t *given = malloc(PATH_UNITS * sizeof *given);
    if (!given)
        return CIMFS_E_OUT_OF_MEMORY;
    cimfs_hresult result = widen(path, given, PATH_UNITS);
    if (result == CIMFS_OK)
        result = absolute(given, directory->path);
    free(given);
    CIMFS_TRY(result);
    directory->length = wcslen(directory->path);
    if (directory->path[directory->length - 1] != '\\')
        wcscpy(directory->path + directory->length++, L"\\");
    directory->handle =
        CreateFileW(directory->path, FILE_LIST_DIRECTORY, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                    OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (directory->handle != INVALID_HANDLE_VALUE)
        return CIMFS_OK;
    result = last_error();
    return result == CIMFS_E_FILE_NOT_FOUND ? CIMFS_E_PATH_NOT_FOUND : result;
}

static cimfs_hresult win32_open_directory(const char *path, cimfs_file *file)
{
    *file = CIMFS_NO_FILE;
    struct directory *directory = malloc(sizeof *directory + (PATH_UNITS + NAME_UNITS) * sizeof *directory->path);
    if (!directory)
        return CIMFS_E_OUT_OF_MEMORY;
    cimfs_hresult result = open_path(directory, path);
    if (result < 0)
        free(directory);
    else
        *file = (cimfs_file)directory | DIRECTORY_BIT;
    return result;
}

static cimfs_hresult win32_open(cimfs_file directory, const char *name, enum cimfs_open_mode mode, cimfs_file *file)
{
    *file = CIMFS_NO_FILE;
    wchar_t *path;
    CIMFS_TRY(path_in(directory, name, &path));
    DWORD access = mode == CIMFS_OPEN_READ ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE;
    DWORD creation = mode == CIMFS_OPEN_CREATE ? CREATE_NEW : OPEN_EXISTING;
    /* No link stands in for a file of an image: the reparse point itself is opened, or a directory, and refused. */
    HANDLE handle = CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, creation,
                                FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    DWORD error = GetLastError();
    free(path);
    if (handle == INVALID_HANDLE_VALUE)
        return from_error(error);
    FILE_ATTRIBUTE_TAG_INFO info;
    if (!GetFileInformationByHandleEx(handle, FileAttributeTagInfo, &info, sizeof info) ||
        (info.FileAttributes & (FILE_ATTRIBUTE_REPARSE_POINT | FILE_ATTRIBUTE_DIRECTORY))) {
        CloseHandle(handle);
        return CIMFS_E_FILE_CORRUPT;
    }
    *file = (cimfs_file)handle;
    return CIMFS_OK;
}

/* Is the name still that of the open file? */
static cimfs_hresult check_name(cimfs_file directory, const char *name, cimfs_file file)
{
    BY_HANDLE_FILE_INFORMATION held, named;
    cimfs_file other;
    CIMFS_TRY(win32_open(directory, name, CIMFS_OPEN_READ, &other));
    int known =
        GetFileInformationByHandle(handle_of(file), &held) && GetFileInformationByHandle(handle_of(other), &named);
    CloseHandle(handle_of(other));
    if (!known)
        return CIMFS_E_IO_DEVICE;
    return held.dwVolumeSerialNumber == named.dwVolumeSerialNumber && held.nFileIndexHigh == named.nFileIndexHigh &&
                   held.nFileIndexLow == named.nFileIndexLow
               ? CIMFS_OK
               : CIMFS_E_FILE_NOT_FOUND;
}

static cimfs_hresult win32_lock(cimfs_file directory, const char *name, cimfs_file file, enum cimfs_lock kind)
{
    DWORD flags = kind == CIMFS_LOCK_SHARED ? 0 : LOCKFILE_EXCLUSIVE_LOCK;
    if (kind != CIMFS_LOCK_ALONE_WAITING)
        flags |= LOCKFILE_FAIL_IMMEDIATELY;
    if (!cimfs_win_lock(handle_of(file), flags))
        return last_error();
    return check_name(directory, name, file);
}

static void win32_close(cimfs_file file)
{
    if (!(file & DIRECTORY_BIT)) {
        CloseHandle(handle_of(file));
        return;
    }
    struct directory *directory = directory_of(file);
    CloseHandle(directory->handle);
    free(directory);
}

static cimfs_hresult win32_size(cimfs_file file, uint64_t *size)
{
    *size = 0;
    LARGE_INTEGER found;
    if (!GetFileSizeEx(handle_of(file), &found))
        return last_error();
    *size = (uint64_t)found.QuadPart;
    return CIMFS_OK;
}

enum { PIECE = 1 << 30 }; /* ReadFile and WriteFile count in 32 bits */

static cimfs_hresult win32_read(cimfs_file file, void *data, size_t size, uint64_t offset)
{
    uint8_t *to = data;
    while (size > 0) {
        OVERLAPPED where = cimfs_win_at(offset);
        DWORD got;
        if (!ReadFile(handle_of(file), to, size < PIECE ? (DWORD)size : PIECE, &got, &where))
            return last_error();
        if (got == 0)
            return CIMFS_E_HANDLE_EOF;
        to += got;
        size -= got;
        offset += got;
    }
    return CIMFS_OK;
}

static cimfs_hresult win32_write(cimfs_file file, const void *data, size_t size, uint64_t offset)
{
    const uint8_t *from = data;
    while (size > 0) {
        OVERLAPPED where = cimfs_win_at(offset);
        DWORD put;
        if (!WriteFile(handle_of(file), from, size < PIECE ? (DWORD)size : PIECE, &put, &where))
            return last_error();
        from += put;
        size -= put;
        offset += put;
    }
    return CIMFS_OK;
}

static cimfs_hresult win32_truncate(cimfs_file file, uint64_t size)
{
    FILE_END_OF_FILE_INFO info = {.EndOfFile.QuadPart = (LONGLONG)size};
    if (SetFileInformationByHandle(handle_of(file), FileEndOfFileInfo, &info, sizeof info) ||
        GetLastError() == ERROR_USER_MAPPED_FILE)
        return CIMFS_OK;
    return last_error();
}

static cimfs_hresult win32_sync(cimfs_file file)
{
    return FlushFileBuffers(handle_of(file)) ? CIMFS_OK : last_error();
}

/* Renaming has written through already, and a directory cannot be flushed without the right to change it. */
static cimfs_hresult win32_sync_directory(cimfs_file directory)
{
    (void)directory;
    return CIMFS_OK;
}

static cimfs_hresult win32_rename(cimfs_file directory, const char *from, const char *to)
{
    wchar_t *source, target[NAME_UNITS];
    CIMFS_TRY(widen(to, target, NAME_UNITS));
    CIMFS_TRY(path_in(directory, from, &source));
    HANDLE file = CreateFileW(source, DELETE | SYNCHRONIZE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                              NULL, OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_WRITE_THROUGH, NULL);
    cimfs_hresult result = file == INVALID_HANDLE_VALUE ? last_error() : CIMFS_OK;
    free(source);
    CIMFS_TRY(result);
    NTSTATUS status = cimfs_win_rename(file, 1, directory_of(directory)->handle, target, wcslen(target));
    CloseHandle(file);
    return status < 0 ? from_error(RtlNtStatusToDosError(status)) : CIMFS_OK;
}

static cimfs_hresult win32_remove(cimfs_file directory, const char *name)
{
    wchar_t *path;
    CIMFS_TRY(path_in(directory, name, &path));
    cimfs_hresult result = DeleteFileW(path) ? CIMFS_OK : last_error();
    free(path);
    return result;
}

/* ---- memory, chance and time ---- */

static cimfs_hresult win32_map(cimfs_file file, size_t size, const uint8_t **data)
{
    *data = NULL;
    DWORD high = (DWORD)((uint64_t)size >> 32), low = (DWORD)size;
    HANDLE mapping = CreateFileMappingW(handle_of(file), NULL, PAGE_READONLY, high, low, NULL);
    if (!mapping)
        return last_error();
    *data = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, size);
    cimfs_hresult result = *data ? CIMFS_OK : last_error();
    CloseHandle(mapping); /* the view keeps it */
    return result;
}

static void win32_unmap(const uint8_t *data, size_t size)
{
    (void)size;
    UnmapViewOfFile(data);
}

static cimfs_hresult win32_random(void *data, size_t size)
{
    if (size > ULONG_MAX || BCryptGenRandom(NULL, data, (ULONG)size, BCRYPT_USE_SYSTEM_PREFERRED_RNG) < 0)
        return CIMFS_E_IO_DEVICE;
    return CIMFS_OK;
}

static int64_t win32_now(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    return (int64_t)((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime);
}

const struct cimfs_io cimfs_system_io = {
    .open_directory = win32_open_directory,
    .open = win32_open,
    .close = win32_close,
    .lock = win32_lock,
    .size = win32_size,
    .read = win32_read,
    .write = win32_write,
    .truncate = win32_truncate,
    .sync = win32_sync,
    .sync_directory = win32_sync_directory,
    .rename = win32_rename,
    .remove = win32_remove,
    .map = win32_map,
    .unmap = win32_unmap,
    .random = win32_random,
    .now = win32_now,
    .workers = &cimfs_system_workers,
};

#else

/* ISO C wants something in every file. */
typedef int cimfs_io_win32_is_for_windows;

#endif
