/*
 * A library with the exports of cimfs.dll that does nothing but write down what it gets.
 *
 * Each call appends a line of JSON to the file that RECORDING_CIMFS names. Structures are declared a second time,
 * as the Windows SDK declares them, so that a mistake in cimfs.h shows. RECORDING_CIMFS_FAIL is
 * "Function=hresult": that call fails, after it was recorded. With FIRST_RELEASE defined only the functions of the
 * first release are there, and CimCloseStream returns nothing, as in its header.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#define EXPORT __declspec(dllexport)
typedef WCHAR wide;
#else
#define EXPORT __attribute__((visibility("default")))
#define WINAPI
typedef int32_t HRESULT;
typedef uint32_t DWORD;
typedef uint32_t UINT32;
typedef uint64_t UINT64;
typedef int64_t INT64;
typedef uint16_t UINT16;
typedef uint8_t BYTE;
typedef uint16_t wide;
typedef union {
    struct {
        DWORD LowPart;
        int32_t HighPart;
    } u;
    int64_t QuadPart;
} LARGE_INTEGER;
typedef struct {
    uint32_t Data1;
    uint16_t Data2;
    uint16_t Data3;
    uint8_t Data4[8];
} GUID;
#endif

#include "sdk_metadata.h"

typedef struct {
    const wide *ImageDir;
    const wide *ImageName;
} CIMFS_IMAGE_PATH;

typedef void *HANDLE_;

static char IMAGE, STREAM; /* their addresses are the handles */

/* ---- the record ---- */

static FILE *begin(const char *function)
{
    const char *path = getenv("RECORDING_CIMFS");
    FILE *out = path ? fopen(path, "ab") : NULL;
    if (!out)
        abort();
    fprintf(out, "{\"call\": \"%s\"", function);
    return out;
}

static void put_number(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, ", \"%s\": %llu", name, (unsigned long long)value);
}

static void put_bytes(FILE *out, const char *name, const void *data, uint64_t size)
{
    fprintf(out, ", \"%s\": ", name);
    if (!data) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (uint64_t i = 0; i < size; i++)
        fprintf(out, "%02x", ((const BYTE *)data)[i]);
    fputc('"', out);
}

/* UTF-16 code units, as bytes. */
static void put_text(FILE *out, const char *name, const wide *text)
{
    uint64_t length = 0;
    while (text && text[length])
        length++;
    put_bytes(out, name, text, 2 * length);
}

static void put_handle(FILE *out, const char *name, HANDLE_ handle)
{
    fprintf(out, ", \"%s\": \"%s\"", name, handle == &IMAGE ? "image" : handle == &STREAM ? "stream" : "?");
}

static void put_volume(FILE *out, const GUID *volume)
{
    fprintf(out, ", \"volume\": \"%08x-%04x-%04x-", (unsigned)volume->Data1, volume->Data2, volume->Data3);
    for (int i = 0; i < 8; i++)
        fprintf(out, i == 2 ? "-%02x" : "%02x", volume->Data4[i]);
    fputc('"', out);
}

static HRESULT end(FILE *out, const char *function)
{
    fputs("}\n", out);
    fclose(out);
    const char *fail = getenv("RECORDING_CIMFS_FAIL");
    size_t length = strlen(function);
    if (!fail || strncmp(fail, function, length) != 0 || fail[length] != '=')
        return 0;
    return (HRESULT)strtoul(fail + length + 1, NULL, 0);
}

/* ---- the first release ---- */

EXPORT HRESULT WINAPI CimCreateImage(const wide *path, const wide *existing, const wide *new_name, HANDLE_ *image)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_text(out, "existing", existing);
    put_text(out, "new", new_name);
    HRESULT result = end(out, __func__);
    *image = result < 0 ? NULL : &IMAGE;
    return result;
}

EXPORT void WINAPI CimCloseImage(HANDLE_ image)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    end(out, __func__);
}

EXPORT HRESULT WINAPI CimCommitImage(HANDLE_ image)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimCreateFile(HANDLE_ image, const wide *path, const CIMFS_FILE_METADATA *metadata,
                                    HANDLE_ *stream)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    put_number(out, "attributes", metadata->Attributes);
    put_number(out, "size", (uint64_t)metadata->FileSize);
    put_number(out, "creation", (uint64_t)metadata->CreationTime.QuadPart);
    put_number(out, "last_write", (uint64_t)metadata->LastWriteTime.QuadPart);
    put_number(out, "change", (uint64_t)metadata->ChangeTime.QuadPart);
    put_number(out, "last_access", (uint64_t)metadata->LastAccessTime.QuadPart);
    put_bytes(out, "descriptor", metadata->SecurityDescriptorBuffer, metadata->SecurityDescriptorSize);
    put_bytes(out, "reparse", metadata->ReparseDataBuffer, metadata->ReparseDataSize);
    put_bytes(out, "ea", metadata->EaBuffer, metadata->EaBufferSize);
    HRESULT result = end(out, __func__);
    *stream = result < 0 ? NULL : &STREAM;
    return result;
}

EXPORT HRESULT WINAPI CimWriteStream(HANDLE_ stream, const void *buffer, UINT32 size)
{
    FILE *out = begin(__func__);
    put_handle(out, "stream", stream);
    put_bytes(out, "data", buffer, size);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimCloseStream(HANDLE_ stream)
{
    FILE *out = begin(__func__);
    put_handle(out, "stream", stream);
    HRESULT result = end(out, __func__);
#ifdef FIRST_RELEASE
    result = (HRESULT)0x8BADF00D; /* what a register may hold after a function that returns nothing */
#endif
    return result;
}

EXPORT HRESULT WINAPI CimCreateAlternateStream(HANDLE_ image, const wide *path, UINT64 size, HANDLE_ *stream)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    put_number(out, "size", size);
    HRESULT result = end(out, __func__);
    *stream = result < 0 ? NULL : &STREAM;
    return result;
}

EXPORT HRESULT WINAPI CimCreateHardLink(HANDLE_ image, const wide *new_path, const wide *existing_path)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "new", new_path);
    put_text(out, "existing", existing_path);
    return end(out, __func__);
}

#ifndef WITHOUT_DELETE_PATH
EXPORT HRESULT WINAPI CimDeletePath(HANDLE_ image, const wide *path)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    return end(out, __func__);
}
#endif

#ifndef WITHOUT_MOUNTING
EXPORT HRESULT WINAPI CimMountImage(const wide *path, const wide *name, UINT32 flags, const GUID *volume)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_text(out, "name", name);
    put_number(out, "flags", flags);
    put_volume(out, volume);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimDismountImage(const GUID *volume)
{
    FILE *out = begin(__func__);
    put_volume(out, volume);
    return end(out, __func__);
}
#endif

/* ---- newer systems ---- */

#ifndef FIRST_RELEASE

static void put_images(FILE *out, UINT32 count, const CIMFS_IMAGE_PATH *images)
{
    put_number(out, "count", count);
    for (UINT32 i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "directory%u", (unsigned)i);
        put_text(out, name, images[i].ImageDir);
        snprintf(name, sizeof name, "name%u", (unsigned)i);
        put_text(out, name, images[i].ImageName);
    }
}

EXPORT HRESULT WINAPI CimCreateImage2(const wide *path, UINT32 flags, const wide *existing, const wide *new_name,
                                      HANDLE_ *image)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_number(out, "flags", flags);
    put_text(out, "existing", existing);
    put_text(out, "new", new_name);
    HRESULT result = end(out, __func__);
    *image = result < 0 ? NULL : &IMAGE;
    return result;
}

EXPORT HRESULT WINAPI CimTombstoneFile(HANDLE_ image, const wide *path)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimCreateMergeLink(HANDLE_ image, const wide *new_path, const wide *existing_path)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "new", new_path);
    put_text(out, "existing", existing_path);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimAddFsToMergedImage(HANDLE_ image, const wide *path)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimAddFsToMergedImage2(HANDLE_ image, const wide *path, UINT32 flags)
{
    FILE *out = begin(__func__);
    put_handle(out, "image", image);
    put_text(out, "path", path);
    put_number(out, "flags", flags);
    return end(out, __func__);
}

static void answer_hash(UINT64 *hash_size, void *hash)
{
    const char *size = getenv("RECORDING_CIMFS_HASH_SIZE");
    *hash_size = size ? strtoul(size, NULL, 0) : 32;
    for (int i = 0; i < 32; i++)
        ((BYTE *)hash)[i] = (BYTE)(0xA0 + i);
}

EXPORT HRESULT WINAPI CimSealImage(const wide *path, UINT64 *hash_size, UINT64 *fixed_header_size, void *hash)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_number(out, "hash_size", *hash_size);
    answer_hash(hash_size, hash);
    *fixed_header_size = 4096;
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimGetVerificationInformation(const wide *path, UINT32 *is_sealed, UINT64 *hash_size,
                                                    UINT64 *signature_size, UINT64 *fixed_header_size, void *hash,
                                                    void *signature)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_number(out, "hash_size", *hash_size);
    put_bytes(out, "signature", signature, 0);
    answer_hash(hash_size, hash);
    *is_sealed = getenv("RECORDING_CIMFS_UNSEALED") == NULL;
    *signature_size = 77;
    *fixed_header_size = 8192;
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimMergeMountImage(UINT32 count, const CIMFS_IMAGE_PATH *images, UINT32 flags, const GUID *volume)
{
    FILE *out = begin(__func__);
    put_images(out, count, images);
    put_number(out, "flags", flags);
    put_volume(out, volume);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimMountVerifiedImage(const wide *path, const wide *name, UINT32 flags, const GUID *volume,
                                            UINT16 hash_size, const void *hash)
{
    FILE *out = begin(__func__);
    put_text(out, "path", path);
    put_text(out, "name", name);
    put_number(out, "flags", flags);
    put_volume(out, volume);
    put_bytes(out, "hash", hash, hash_size);
    return end(out, __func__);
}

EXPORT HRESULT WINAPI CimMergeMountVerifiedImage(UINT32 count, const CIMFS_IMAGE_PATH *images, UINT32 flags,
                                                 const GUID *volume, UINT16 hash_size, const void *hash)
{
    FILE *out = begin(__func__);
    put_images(out, count, images);
    put_number(out, "flags", flags);
    put_volume(out, volume);
    put_bytes(out, "hash", hash, hash_size);
    return end(out, __func__);
}

#endif
