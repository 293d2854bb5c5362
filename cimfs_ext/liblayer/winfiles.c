#ifdef _WIN32

#include "winfiles.h"

#include <stdlib.h>
#include <string.h>

#include "libcimfs/names.h"

#include "winhandle.h" /* with windows.h, which win32.h needs */

#include "libcimfs/win32.h"

enum { PIECE = 1 << 30 }; /* ReadFile and WriteFile count in 32 bits */
enum { MAX_NAME = CIMFS_WIN_NAME, MAX_STREAM = 255 };

#define SHARE_ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)

void layer_win_use_privileges(int use)
{
    static const wchar_t *const NAMES[] = {L"SeBackupPrivilege", L"SeRestorePrivilege", L"SeSecurityPrivilege",
                                           L"SeCreateSymbolicLinkPrivilege"};
    HANDLE token;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES, &token))
        return;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        TOKEN_PRIVILEGES wanted = {.PrivilegeCount = 1};
        wanted.Privileges[0].Attributes = use ? SE_PRIVILEGE_ENABLED : 0;
        if (LookupPrivilegeValueW(NULL, NAMES[i], &wanted.Privileges[0].Luid))
            AdjustTokenPrivileges(token, FALSE, &wanted, 0, NULL, NULL);
    }
    CloseHandle(token);
}

/* ---- names ---- */

struct name {
    wchar_t units[MAX_NAME + 1 + MAX_STREAM]; /* with a colon and a stream */
    size_t length;
};

/* One component: no separator, nothing that leads up or to a stream. */
static int take_name(const char *text, struct name *name)
{
    char longest[3 * MAX_NAME + 1];
    size_t size = strlen(text);
    if (size == 0 || size >= sizeof longest || strpbrk(text, "\\/:") || strcmp(text, ".") == 0 ||
        strcmp(text, "..") == 0)
        return ERROR_INVALID_NAME;
    uint16_t units[sizeof longest];
    size_t length = cimfs_wide_from_utf8(text, size, units);
    if (length == SIZE_MAX || length > MAX_NAME)
        return ERROR_INVALID_NAME;
    memcpy(name->units, units, length * sizeof *units);
    name->length = length;
    return 0;
}

static int add_stream(struct name *name, const uint16_t *stream, size_t length)
{
    if (length == 0 || length > MAX_STREAM)
        return ERROR_INVALID_NAME;
    for (size_t i = 0; i < length; i++)
        if (stream[i] == ':' || stream[i] == '\\' || stream[i] == '/' || stream[i] == 0)
            return ERROR_INVALID_NAME;
    name->units[name->length++] = ':';
    memcpy(name->units + name->length, stream, length * sizeof *stream);
    name->length += length;
    return 0;
}

/* ---- opening ---- */

static NTSTATUS open_name(layer_win_file directory, struct name *name, ACCESS_MASK access, ULONG disposition,
                          ULONG options, layer_win_file *file)
{
    USHORT bytes = (USHORT)(name->length * sizeof *name->units);
    UNICODE_STRING text = {.Length = bytes, .MaximumLength = bytes, .Buffer = name->units};
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes,
                                    .RootDirectory = handle_of(directory),
                                    .ObjectName = &text,
                                    .Attributes = OBJ_CASE_INSENSITIVE};
    IO_STATUS_BLOCK io;
    HANDLE handle = NULL;
    NTSTATUS status = NtCreateFile(
        &handle, access | SYNCHRONIZE, &attributes, &io, NULL, FILE_ATTRIBUTE_NORMAL, SHARE_ALL, disposition,
        options | FILE_SYNCHRONOUS_IO_NONALERT | FILE_OPEN_REPARSE_POINT | FILE_OPEN_FOR_BACKUP_INTENT, NULL, 0);
    *file = (layer_win_file)handle;
    return status;
}

static ULONG kind_option(enum layer_win_kind kind)
{
    return kind == LAYER_WIN_DIRECTORY ? FILE_DIRECTORY_FILE : kind == LAYER_WIN_FILE ? FILE_NON_DIRECTORY_FILE : 0;
}

/* Ask for more rights than needed, then for fewer: what is beyond the needed ones serves descriptors alone. */
static int open_with(layer_win_file directory, struct name *name, ACCESS_MASK needed, const ACCESS_MASK *wanted,
                     size_t count, ULONG disposition, ULONG options, layer_win_file *file)
{
    int result = ERROR_ACCESS_DENIED;
    for (size_t i = 0; i < count && lacks_rights(result); i++)
        result = failed(open_name(directory, name, needed | wanted[i], disposition, options, file));
    return result;
}

static const ACCESS_MASK TO_SET[] = {WRITE_DAC | WRITE_OWNER | FILE_WRITE_EA | ACCESS_SYSTEM_SECURITY,
                                     WRITE_DAC | WRITE_OWNER | FILE_WRITE_EA, WRITE_DAC | FILE_WRITE_EA, FILE_WRITE_EA,
                                     0};
static const ACCESS_MASK TO_GET[] = {READ_CONTROL | ACCESS_SYSTEM_SECURITY, READ_CONTROL};

static int open_path(const char *path, DWORD access, DWORD creation, DWORD flags, layer_win_file *file)
{
    size_t size = strlen(path);
    wchar_t *wide = malloc((size + 1) * sizeof *wide);
    if (!wide)
        return ERROR_OUTOFMEMORY;
    size_t length = cimfs_wide_from_utf8(path, size, (uint16_t *)wide);
    int result = ERROR_INVALID_NAME;
    if (length != SIZE_MAX) {
        wide[length] = 0;
        HANDLE handle = CreateFileW(wide, access, SHARE_ALL, NULL, creation, flags, NULL);
        result = last_error(handle != INVALID_HANDLE_VALUE);
        *file = (layer_win_file)handle;
    }
    free(wide);
    return result;
}

int layer_win_open_top(const char *path, layer_win_file *directory)
{
    return open_path(path, FILE_LIST_DIRECTORY | FILE_TRAVERSE | FILE_READ_ATTRIBUTES, OPEN_EXISTING,
                     FILE_FLAG_BACKUP_SEMANTICS, directory);
}

/* A link may stand where a directory does: whoever enters it would be elsewhere. */
static int check_no_link(layer_win_file file)
{
    FILE_ATTRIBUTE_TAG_INFO info;
    if (!GetFileInformationByHandleEx(handle_of(file), FileAttributeTagInfo, &info, sizeof info))
        return (int)GetLastError();
    int is_directory = (info.FileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    return is_directory && !(info.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) ? 0 : ERROR_DIRECTORY;
}

int layer_win_open(layer_win_file directory, const char *name, enum layer_win_kind kind, enum layer_win_access access,
                   layer_win_file *file)
{
    struct name wide;
    int result = take_name(name, &wide);
    if (result)
        return result;
    ULONG options = kind_option(kind);
    switch (access) {
    case LAYER_WIN_LIST:
        result = failed(open_name(directory, &wide, FILE_LIST_DIRECTORY | FILE_TRAVERSE | FILE_READ_ATTRIBUTES,
                                  FILE_OPEN, options, file));
        if (!result && (result = check_no_link(*file)) != 0)
            layer_win_close(*file);
        return result;
    case LAYER_WIN_READ:
        return open_with(directory, &wide, FILE_READ_DATA | FILE_READ_ATTRIBUTES | FILE_READ_EA, TO_GET,
                         sizeof TO_GET / sizeof *TO_GET, FILE_OPEN, options, file);
    case LAYER_WIN_WRITE:
        return open_with(directory, &wide, FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES | FILE_WRITE_DATA | DELETE,
                         TO_SET, sizeof TO_SET / sizeof *TO_SET, FILE_OPEN, options, file);
    default:
        return open_with(directory, &wide, FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES, TO_SET,
                         sizeof TO_SET / sizeof *TO_SET, FILE_OPEN, options, file);
    }
}

int layer_win_create(layer_win_file directory, const char *name, enum layer_win_kind kind, layer_win_file *file)
{
    struct name wide;
    int result = take_name(name, &wide);
    if (result)
        return result;
    return open_with(directory, &wide, FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES | FILE_WRITE_DATA | DELETE, TO_SET,
                     sizeof TO_SET / sizeof *TO_SET, FILE_CREATE, kind_option(kind), file);
}

int layer_win_open_stream(layer_win_file directory, const char *name, const uint16_t *stream, size_t length, int create,
                          layer_win_file *file)
{
    struct name wide;
    int result = take_name(name, &wide);
    if (!result)
        result = add_stream(&wide, stream, length);
    if (result)
        return result;
    ACCESS_MASK access = create ? FILE_WRITE_DATA | FILE_WRITE_ATTRIBUTES : FILE_READ_DATA | FILE_READ_ATTRIBUTES;
    return failed(open_name(directory, &wide, access, create ? FILE_CREATE : FILE_OPEN, 0, file));
}

int layer_win_duplicate(layer_win_file file, layer_win_file *copy)
{
    HANDLE handle = NULL, self = GetCurrentProcess();
    BOOL done = DuplicateHandle(self, handle_of(file), self, &handle, 0, FALSE, DUPLICATE_SAME_ACCESS);
    *copy = (layer_win_file)handle;
    return last_error(done);
}

void layer_win_close(layer_win_file file)
{
    CloseHandle(handle_of(file));
}

int layer_win_link(layer_win_file file, layer_win_file directory, const char *new_name)
{
    struct name wide;
    int result = take_name(new_name, &wide);
    if (result)
        return result;
    return failed(
        cimfs_win_set_name(handle_of(file), CIMFS_WIN_LINK, 0, handle_of(directory), wide.units, wide.length));
}

int layer_win_rename(layer_win_file file, layer_win_file directory, const char *new_name, int replace)
{
    struct name wide;
    int result = take_name(new_name, &wide);
    if (result)
        return result;
    return failed(cimfs_win_rename(handle_of(file), replace, handle_of(directory), wide.units, wide.length));
}

int layer_win_remove(layer_win_file file)
{
    FILE_DISPOSITION_INFO info = {.DeleteFile = TRUE};
    return last_error(SetFileInformationByHandle(handle_of(file), FileDispositionInfo, &info, sizeof info));
}

int layer_win_features(layer_win_file file, uint32_t *features)
{
    DWORD flags = 0;
    BOOL done = GetVolumeInformationByHandleW(handle_of(file), NULL, 0, NULL, NULL, &flags, NULL, 0);
    *features = flags;
    return last_error(done);
}

/* ---- locks ---- */

int layer_win_open_to_hold(const char *path, int create, layer_win_file *file)
{
    return open_path(path, create ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ, create ? OPEN_ALWAYS : OPEN_EXISTING,
                     FILE_FLAG_OPEN_REPARSE_POINT, file);
}

int layer_win_hold(layer_win_file file)
{
    return last_error(cimfs_win_lock(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY));
}

uint32_t layer_win_holder(layer_win_file file)
{
    return cimfs_win_holder(handle_of(file));
}

/* ---- content ---- */

int layer_win_read(layer_win_file file, void *data, size_t size, uint64_t position, size_t *got)
{
    uint8_t *to = data;
    DWORD count = 1;
    for (*got = 0; *got < size && count > 0; *got += count) {
        OVERLAPPED where = cimfs_win_at(position + *got);
        DWORD wanted = size - *got < PIECE ? (DWORD)(size - *got) : PIECE;
        if (!ReadFile(handle_of(file), to + *got, wanted, &count, &where)) {
            DWORD error = GetLastError();
            if (error != ERROR_HANDLE_EOF)
                return (int)error;
            count = 0;
        }
    }
    return 0;
}

int layer_win_write(layer_win_file file, const void *data, size_t size, uint64_t position)
{
    const uint8_t *from = data;
    while (size > 0) {
        OVERLAPPED where = cimfs_win_at(position);
        DWORD put;
        if (!WriteFile(handle_of(file), from, size < PIECE ? (DWORD)size : PIECE, &put, &where))
            return (int)GetLastError();
        from += put;
        size -= put;
        position += put;
    }
    return 0;
}

int layer_win_resize(layer_win_file file, uint64_t size)
{
    FILE_END_OF_FILE_INFO info = {.EndOfFile.QuadPart = (LONGLONG)size};
    return last_error(SetFileInformationByHandle(handle_of(file), FileEndOfFileInfo, &info, sizeof info));
}

int layer_win_make_sparse(layer_win_file file)
{
    DWORD got;
    return control(file, FSCTL_SET_SPARSE, NULL, 0, NULL, 0, &got);
}

int layer_win_next_range(layer_win_file file, uint64_t position, uint64_t end, uint64_t *start, uint64_t *size)
{
    FILE_ALLOCATED_RANGE_BUFFER wanted = {.FileOffset.QuadPart = (LONGLONG)position,
                                          .Length.QuadPart = (LONGLONG)(end - position)};
    FILE_ALLOCATED_RANGE_BUFFER found;
    DWORD got;
    int result = control(file, FSCTL_QUERY_ALLOCATED_RANGES, &wanted, sizeof wanted, &found, sizeof found, &got);
    if (result == ERROR_MORE_DATA) /* there are more ranges behind it */
        result = 0;
    int any = result == 0 && got >= sizeof found;
    *start = any ? (uint64_t)found.FileOffset.QuadPart : end;
    *size = any ? (uint64_t)found.Length.QuadPart : 0;
    return result;
}

/* ---- listing ---- */

int layer_win_list(layer_win_file directory, int restart, void *buffer, size_t capacity)
{
    FILE_INFO_BY_HANDLE_CLASS what = restart ? FileIdBothDirectoryRestartInfo : FileIdBothDirectoryInfo;
    return last_error(GetFileInformationByHandleEx(handle_of(directory), what, buffer, (DWORD)capacity));
}

int layer_win_streams(layer_win_file file, void *buffer, size_t capacity)
{
    int result = last_error(GetFileInformationByHandleEx(handle_of(file), FileStreamInfo, buffer, (DWORD)capacity));
    if (result == ERROR_HANDLE_EOF) /* a directory has none at all */
        memset(buffer, 0, sizeof(FILE_STREAM_INFO));
    return result == ERROR_HANDLE_EOF ? 0 : result;
}

#else

/* ISO C wants something in every file. */
typedef int layer_winfiles_is_for_windows;

#endif
