/*
 * What hcsshim does with the library when it makes layers: its calls, in its order, with its structures, found by name
 * (Microsoft/hcsshim: internal/winapi/cimfs, internal/winapi/cimwriter, pkg/cimfs, internal/wclayer/cim). Nothing of
 * ours is included, so that it is the exports alone that fit.
 *
 *   hcsshim_client.exe which DIRECTORY  says which library has the writing half
 *   hcsshim_client.exe layers DIRECTORY writes test.cim, base.cim and child.cim
 *   hcsshim_client.exe errors DIRECTORY what goes wrong, and what hcsshim makes of it
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include <windows.h>

/* types.CimFsFileMetadata: a windows.Filetime is two halves, a FILETIME; pointers are unsafe.Pointers. */
struct metadata {
    uint32_t attributes;
    int64_t file_size;
    FILETIME creation_time, last_write_time, change_time, last_access_time;
    const void *security_descriptor;
    uint32_t security_descriptor_size;
    const void *reparse_data;
    uint32_t reparse_data_size;
    const void *extended_attributes;
    uint32_t ea_count; /* in bytes, whatever its name says */
};

_Static_assert(offsetof(struct metadata, file_size) == 8, "FileSize");
_Static_assert(offsetof(struct metadata, creation_time) == 16, "CreationTime");
_Static_assert(offsetof(struct metadata, security_descriptor) == 48, "SecurityDescriptorBuffer");
_Static_assert(offsetof(struct metadata, reparse_data) == 64, "ReparseDataBuffer");
_Static_assert(offsetof(struct metadata, extended_attributes) == 80, "ExtendedAttributes");
_Static_assert(sizeof(struct metadata) == 96, "CimFsFileMetadata");

/* syscall.SyscallN: each argument is as wide as a register, and the low half of the result is the HRESULT. */
typedef uintptr_t(WINAPI *function)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t);

enum { CHUNK = 32768 }; /* bytes that io.Copy moves at a time */

/* cimwriter.Supported: the system directory and the program's own, nothing else. */
static HMODULE load(void)
{
    HMODULE writer =
        LoadLibraryExW(L"cimwriter.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32 | LOAD_LIBRARY_SEARCH_APPLICATION_DIR);
    return writer ? writer : LoadLibraryExW(L"cimfs.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
}

static HMODULE library;

/* 0, a system error code as syscall.Errno, or another HRESULT as it is. */
static uint32_t call(const char *name, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e)
{
    FARPROC found = GetProcAddress(library, name);
    function address;
    if (!found) {
        printf("%s is missing\n", name);
        return 127; /* ERROR_PROC_NOT_FOUND */
    }
    memcpy(&address, &found, sizeof address);
    uint32_t result = (uint32_t)address(a, b, c, d, e);
    if ((int32_t)result >= 0)
        return 0;
    return (result & 0x1FFF0000u) == 0x00070000u ? result & 0xFFFFu : result;
}

/* What is the receiver in Go: cimfs.CimFsWriter. */
struct writer {
    uintptr_t handle, stream;
    uint64_t left;
};

#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        uint32_t code_ = (expression);                                                                                 \
        if (code_) {                                                                                                   \
            printf("%d: %s: %#x\n", __LINE__, #expression, (unsigned)code_);                                           \
            return code_;                                                                                              \
        }                                                                                                              \
    } while (0)

static uint32_t create(struct writer *writer, const wchar_t *directory, const wchar_t *old, const wchar_t *new)
{
    memset(writer, 0, sizeof *writer);
    return call("CimCreateImage", (uintptr_t)directory, (uintptr_t)old, (uintptr_t)new, (uintptr_t)&writer->handle, 0);
}

static uint32_t close_stream(struct writer *writer)
{
    uint32_t result = writer->stream ? call("CimCloseStream", writer->stream, 0, 0, 0, 0) : 0;
    writer->stream = 0;
    writer->left = 0;
    return result;
}

static FILETIME filetime(uint64_t time)
{
    return (FILETIME){.dwLowDateTime = (DWORD)time, .dwHighDateTime = (DWORD)(time >> 32)};
}

static const uint64_t TIME = 133000000000000000;

static uint32_t add_file(struct writer *writer, const wchar_t *path, uint32_t attributes, uint64_t size)
{
    /* A security descriptor of no length makes an image that Windows cannot use, so it passes this one. */
    static const uint8_t NULL_SD[20] = {1, 0, 4, 0x80};
    TRY(close_stream(writer));
    struct metadata metadata = {.attributes = attributes,
                                .file_size = (int64_t)size,
                                .creation_time = filetime(TIME),
                                .last_write_time = filetime(TIME + 1),
                                .change_time = filetime(TIME + 2),
                                .last_access_time = filetime(TIME + 3),
                                .security_descriptor = NULL_SD,
                                .security_descriptor_size = sizeof NULL_SD};
    TRY(call("CimCreateFile", writer->handle, (uintptr_t)path, (uintptr_t)&metadata, (uintptr_t)&writer->stream, 0));
    writer->left = attributes & FILE_ATTRIBUTE_DIRECTORY ? 0 : size;
    return 0;
}

static uint32_t write_all(struct writer *writer, const uint8_t *data, size_t size)
{
    for (size_t done = 0; done < size; done += CHUNK) {
        size_t piece = size - done < CHUNK ? size - done : CHUNK;
        TRY(call("CimWriteStream", writer->stream, (uintptr_t)(data + done), (uintptr_t)piece, 0, 0));
        writer->left -= piece;
    }
    return 0;
}

static uint32_t add_text(struct writer *writer, const wchar_t *path, const char *text)
{
    TRY(add_file(writer, path, FILE_ATTRIBUTE_NORMAL, strlen(text)));
    return write_all(writer, (const uint8_t *)text, strlen(text));
}

static uint32_t add_stream(struct writer *writer, const wchar_t *path, const char *text)
{
    TRY(close_stream(writer));
    TRY(call("CimCreateAlternateStream", writer->handle, (uintptr_t)path, (uintptr_t)strlen(text),
             (uintptr_t)&writer->stream, 0));
    return write_all(writer, (const uint8_t *)text, strlen(text));
}

static uint32_t add_link(struct writer *writer, const wchar_t *old_path, const wchar_t *new_path)
{
    TRY(close_stream(writer));
    return call("CimCreateHardLink", writer->handle, (uintptr_t)new_path, (uintptr_t)old_path, 0, 0);
}

static uint32_t unlink_path(struct writer *writer, const wchar_t *path)
{
    TRY(close_stream(writer));
    return call("CimDeletePath", writer->handle, (uintptr_t)path, 0, 0, 0);
}

static uint32_t close_image(struct writer *writer)
{
    TRY(close_stream(writer));
    TRY(call("CimCommitImage", writer->handle, 0, 0, 0, 0));
    return call("CimCloseImage", writer->handle, 0, 0, 0, 0);
}

/* ---- what it makes ---- */

/* cim_test.go, TestCimReadWrite. */
static uint32_t write_test(const wchar_t *directory)
{
    struct writer writer;
    TRY(create(&writer, directory, NULL, L"test.cim"));
    TRY(add_text(&writer, L"foobar.txt", "foobar test data"));
    TRY(add_file(&writer, L"foo", FILE_ATTRIBUTE_DIRECTORY, 0));
    TRY(add_text(&writer, L"foo\\bar.txt", "bar test data"));
    return close_image(&writer);
}

/* A base layer as LayerWriter writes it, then the second opening of the same image in which it puts in the hives. */
static uint32_t write_base(const wchar_t *directory)
{
    static uint8_t noise[100001];
    struct writer writer;
    for (size_t i = 0, state = 1; i < sizeof noise; i++, state = state * 1664525u + 1013904223u)
        noise[i] = (uint8_t)(state >> 16);
    TRY(create(&writer, directory, NULL, L"base.cim"));
    TRY(add_file(&writer, L"Files", FILE_ATTRIBUTE_DIRECTORY, 0));
    TRY(add_file(&writer, L"Files\\large", FILE_ATTRIBUTE_NORMAL, sizeof noise));
    TRY(write_all(&writer, noise, sizeof noise));
    TRY(add_stream(&writer, L"Files\\large:zone", "[ZoneTransfer]"));
    TRY(add_link(&writer, L"Files\\large", L"Files\\link"));
    TRY(add_text(&writer, L"Files\\gone", "gone"));
    TRY(close_image(&writer));
    TRY(create(&writer, directory, L"base.cim", NULL));
    TRY(add_file(&writer, L"Hives", FILE_ATTRIBUTE_DIRECTORY, 0));
    TRY(add_text(&writer, L"Hives\\SYSTEM_BASE", "regf"));
    return close_image(&writer);
}

/* A child: a fork, with whiteouts; removing what is not there is no error to hcsshim if it is "not exist". */
static uint32_t write_child(const wchar_t *directory)
{
    struct writer writer;
    TRY(create(&writer, directory, L"base.cim", L"child.cim"));
    TRY(unlink_path(&writer, L"Files\\gone"));
    uint32_t missing = unlink_path(&writer, L"Files\\never");
    if (missing != ERROR_FILE_NOT_FOUND && missing != ERROR_PATH_NOT_FOUND)
        TRY(missing);
    TRY(add_file(&writer, L"Files", FILE_ATTRIBUTE_DIRECTORY, 0));
    TRY(add_text(&writer, L"Files\\new", "new"));
    return close_image(&writer);
}

static uint32_t write_layers(const wchar_t *directory)
{
    TRY(write_test(directory));
    TRY(write_base(directory));
    return write_child(directory);
}

static uint32_t show_errors(const wchar_t *directory)
{
    struct writer writer, other;
    printf("no directory: %u\n", (unsigned)create(&writer, L"C:\\none", NULL, L"x.cim"));
    printf("no parent: %u\n", (unsigned)create(&writer, directory, L"none.cim", L"x.cim"));
    printf("no names: %u\n", (unsigned)create(&writer, directory, NULL, NULL));
    TRY(create(&writer, directory, NULL, L"x.cim"));
    printf("second writer: %u\n", (unsigned)create(&other, directory, NULL, L"x.cim"));
    TRY(add_file(&writer, L"d", FILE_ATTRIBUTE_DIRECTORY, 0));
    TRY(close_stream(&writer));
    printf("link to a directory: %u\n", (unsigned)add_link(&writer, L"d", L"link"));
    printf("link to nothing: %u\n", (unsigned)add_link(&writer, L"none", L"link"));
    printf("malformed path: %u\n", (unsigned)unlink_path(&writer, L"a\\..\\b"));
    TRY(add_file(&writer, L"f", FILE_ATTRIBUTE_NORMAL, 3));
    printf("open stream: %u\n", (unsigned)call("CimDeletePath", writer.handle, (uintptr_t)L"d", 0, 0, 0));
    printf("too much: %u\n", (unsigned)call("CimWriteStream", writer.stream, (uintptr_t)"abcd", 4, 0, 0));
    TRY(close_stream(&writer));
    printf("tombstone: %#x\n", (unsigned)call("CimTombstoneFile", writer.handle, (uintptr_t)L"f", 0, 0, 0));
    printf("block image: %#x\n", (unsigned)call("CimCreateImage2", (uintptr_t)directory, 0x18, 0, (uintptr_t)L"b.cim",
                                                (uintptr_t)&other.handle));
    return call("CimCloseImage", writer.handle, 0, 0, 0, 0); /* nothing is left behind */
}

int wmain(int count, wchar_t **words)
{
    library = load();
    if (count != 3 || !library) {
        printf("%s\n", library ? "which, layers or errors, and a directory" : "no library");
        return 2;
    }
    if (wcscmp(words[1], L"which") == 0) {
        wchar_t path[MAX_PATH];
        GetModuleFileNameW(library, path, MAX_PATH);
        return wprintf(L"%ls\n", path) < 0;
    }
    return (wcscmp(words[1], L"layers") == 0 ? write_layers : show_errors)(words[2]) != 0;
}
