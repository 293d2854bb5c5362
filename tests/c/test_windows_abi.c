/*
 * The Windows side of cimfs.h: layouts against the types of windows.h, and system.c with the libraries that stand in
 * the system directory.
 *
 *   test_windows_abi.exe load            says which library has which half
 *   test_windows_abi.exe image DIRECTORY writes a fixed image, and a fork that it extends
 *   test_windows_abi.exe calls           makes one call of each kind with fixed arguments
 *   test_windows_abi.exe lock DIRECTORY  two writers in one directory
 */
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include <windows.h>

#include "sdk_metadata.h"
#include "system.h"

#define SAME(field, Field)                                                                                             \
    _Static_assert(offsetof(struct cimfs_file_metadata, field) == offsetof(CIMFS_FILE_METADATA, Field), #Field)

SAME(attributes, Attributes);
SAME(file_size, FileSize);
SAME(creation_time, CreationTime);
SAME(last_write_time, LastWriteTime);
SAME(change_time, ChangeTime);
SAME(last_access_time, LastAccessTime);
SAME(security_descriptor, SecurityDescriptorBuffer);
SAME(security_descriptor_size, SecurityDescriptorSize);
SAME(reparse_data, ReparseDataBuffer);
SAME(reparse_data_size, ReparseDataSize);
SAME(ea, EaBuffer);
SAME(ea_size, EaBufferSize);
_Static_assert(sizeof(struct cimfs_file_metadata) == sizeof(CIMFS_FILE_METADATA), "CIMFS_FILE_METADATA");
_Static_assert(offsetof(struct cimfs_volume_id, data2) == offsetof(GUID, Data2), "GUID.Data2");
_Static_assert(offsetof(struct cimfs_volume_id, data3) == offsetof(GUID, Data3), "GUID.Data3");
_Static_assert(offsetof(struct cimfs_volume_id, data4) == offsetof(GUID, Data4), "GUID.Data4");
_Static_assert(sizeof(struct cimfs_volume_id) == sizeof(GUID), "GUID");
_Static_assert(sizeof(cimfs_wchar) == sizeof(WCHAR) && sizeof(cimfs_hresult) == sizeof(HRESULT), "WCHAR, HRESULT");

/* Wide literals as the API's strings. */
#define W(literal) ((const cimfs_wchar *)(L"" literal))

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                     \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static const int64_t TIME = 133000000000000000;

/* ---- writing ---- */

static int add(const struct cimfs_api *api, cimfs_image image, const cimfs_wchar *path, uint32_t attributes,
               const void *data, uint32_t size)
{
    struct cimfs_file_metadata metadata = {.attributes = attributes,
                                           .file_size = size,
                                           .creation_time = TIME,
                                           .last_write_time = TIME + 1,
                                           .change_time = TIME + 2,
                                           .last_access_time = TIME + 3,
                                           .security_descriptor = CIMFS_NULL_DACL,
                                           .security_descriptor_size = sizeof CIMFS_NULL_DACL};
    cimfs_stream stream;
    EXPECT(api->create_file(image, path, &metadata, &stream) == CIMFS_OK);
    if (size)
        EXPECT(api->write_stream(stream, data, size) == CIMFS_OK);
    EXPECT(cimfs_close_stream(api, stream) == CIMFS_OK);
    return 0;
}

static int open_image(const struct cimfs_api *api, const wchar_t *directory, const cimfs_wchar *existing,
                      const cimfs_wchar *name, cimfs_image *image)
{
    static struct cimfs_error error; /* the image keeps its address */
    struct cimfs_options options = {.time = TIME, .seed = "seed", .seed_size = 4, .error = &error};
    cimfs_hresult result = api->create_image_with((const cimfs_wchar *)directory, existing, name, &options, image);
    if (result < 0)
        printf("%08lx %s: %s\n", (unsigned long)result, error.file, error.reason ? error.reason : "");
    EXPECT(result == CIMFS_OK);
    return 0;
}

static int finish(const struct cimfs_api *api, cimfs_image image)
{
    cimfs_hresult result = api->commit_image(image);
    api->close_image(image);
    if (result < 0)
        printf("commit: %08lx\n", (unsigned long)result);
    EXPECT(result == CIMFS_OK);
    return 0;
}

static int write_images(const struct cimfs_api *api, const wchar_t *directory)
{
    static uint8_t noise[3 << 20];
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    cimfs_image image;
    cimfs_stream stream;
    EXPECT(open_image(api, directory, NULL, W("a.cim"), &image) == 0);
    EXPECT(add(api, image, W("Folder"), CIMFS_ATTRIBUTE_DIRECTORY, NULL, 0) == 0);
    EXPECT(add(api, image, W("Folder\\\x0444\x0430\x0439\x043b.txt"), 0x20, "small", 5) == 0);
    EXPECT(add(api, image, W("noise"), 0, noise, sizeof noise) == 0);
    EXPECT(add(api, image, W("same"), 0, noise, sizeof noise) == 0);
    EXPECT(api->create_alternate_stream(image, W("noise:stream"), 4, &stream) == CIMFS_OK);
    EXPECT(api->write_stream(stream, "data", 4) == CIMFS_OK);
    EXPECT(api->write_stream(stream, "more", 4) == CIMFS_E_HANDLE_EOF);
    EXPECT(cimfs_close_stream(api, stream) == CIMFS_OK);
    EXPECT(api->create_hard_link(image, W("folder\\link"), W("NOISE")) == CIMFS_OK);
    EXPECT(finish(api, image) == 0);

    EXPECT(open_image(api, directory, W("a.cim"), W("b.cim"), &image) == 0);
    EXPECT(add(api, image, W("Folder\\fork"), 0, noise + 1, 70000) == 0);
    EXPECT(api->delete_path(image, W("same")) == CIMFS_OK);
    EXPECT(api->delete_path(image, W("missing")) == CIMFS_E_PATH_NOT_FOUND);
    EXPECT(finish(api, image) == 0);

    EXPECT(open_image(api, directory, W("b.cim"), NULL, &image) == 0);
    EXPECT(add(api, image, W("extension"), 0, noise + 2, 70000) == 0);
    EXPECT(finish(api, image) == 0);

    EXPECT(open_image(api, directory, W("b.cim"), NULL, &image) == 0);
    EXPECT(add(api, image, W("abandoned"), 0, noise + 3, 2 << 20) == 0);
    api->close_image(image); /* leaves nothing behind */
    return 0;
}

static int refuse_second_writer(const struct cimfs_api *api, const wchar_t *directory)
{
    const cimfs_wchar *path = (const cimfs_wchar *)directory;
    cimfs_image first, second;
    EXPECT(api->create_image(path, NULL, W("a.cim"), &first) == CIMFS_OK);
    EXPECT(api->create_image(path, NULL, W("a.cim"), &second) == CIMFS_E_SHARING_VIOLATION);
    EXPECT(second == NULL);
    EXPECT(api->create_image(path, NULL, W("b.cim"), &second) == CIMFS_OK);
    api->close_image(second);
    api->close_image(first);
    EXPECT(api->create_image(path, NULL, W("a.cim"), &second) == CIMFS_OK);
    api->close_image(second);
    EXPECT(api->create_image(W("C:\\nowhere\\at all"), NULL, W("a.cim"), &first) == CIMFS_E_PATH_NOT_FOUND);
    return 0;
}

/* ---- one call of each kind, for the record ---- */

static int make_calls(const struct cimfs_api *api)
{
    static const uint8_t reparse[] = {1, 2, 3}, ea[] = {4, 5}, hash[CIMFS_ROOT_HASH_SIZE] = {9, 8, 7};
    static const struct cimfs_volume_id volume = {0x01234567, 0x89AB, 0xCDEF, {1, 2, 3, 4, 5, 6, 7, 8}};
    const struct cimfs_image_path images[2] = {{W("C:\\d"), W("m.cim")}, {W("C:\\e"), W("s.cim")}};
    const struct cimfs_file_metadata metadata = {.attributes = 0x2427,
                                                 .file_size = 0x123456789,
                                                 .creation_time = 0x0111111122222222,
                                                 .last_write_time = 0x0333333344444444,
                                                 .change_time = -1,
                                                 .last_access_time = 0x0777777708888888,
                                                 .security_descriptor = CIMFS_NULL_DACL,
                                                 .security_descriptor_size = sizeof CIMFS_NULL_DACL,
                                                 .reparse_data = reparse,
                                                 .reparse_data_size = sizeof reparse,
                                                 .ea = ea,
                                                 .ea_size = sizeof ea};
    cimfs_image image;
    cimfs_stream stream;
    uint64_t hash_size = 0, header_size = 0, signature_size = 0;
    uint32_t sealed = 0;
    uint8_t root[CIMFS_ROOT_HASH_SIZE];
    EXPECT(api->create_image(W("C:\\\x0433\x0434\x0435"), NULL, W("a.cim"), &image) == CIMFS_OK);
    EXPECT(api->create_image2(W("C:\\b"), 0x58, NULL, W("a.cim"), &image) == CIMFS_OK);
    EXPECT(api->create_file(image, W("x"), &metadata, &stream) == CIMFS_OK);
    EXPECT(api->write_stream(stream, "data", 4) == CIMFS_OK);
    EXPECT(cimfs_close_stream(api, stream) == CIMFS_OK);
    EXPECT(api->create_alternate_stream(image, W("x:s"), 1ull << 40, &stream) == CIMFS_OK);
    EXPECT(api->create_hard_link(image, W("new"), W("x")) == CIMFS_OK);
    EXPECT(api->delete_path(image, W("x")) == CIMFS_OK);
    EXPECT(api->tombstone_file(image, W("gone")) == CIMFS_OK);
    EXPECT(api->create_merge_link(image, W("new"), W("old")) == CIMFS_OK);
    EXPECT(api->add_to_merged_image(image, W("C:\\1")) == CIMFS_OK);
    EXPECT(api->add_to_merged_image2(image, W("C:\\2"), 5) == CIMFS_OK);
    EXPECT(api->commit_image(image) == CIMFS_OK);
    api->close_image(image);
    EXPECT(api->seal_image(W("C:\\b"), &hash_size, &header_size, root) == CIMFS_OK);
    EXPECT(hash_size == 32 && header_size == 4096 && root[0] == 0xA0 && root[31] == 0xBF);
    EXPECT(api->get_verification_information(W("C:\\b"), &sealed, &hash_size, &signature_size, &header_size, root,
                                             NULL) == CIMFS_OK);
    EXPECT(sealed == 1 && hash_size == 32 && signature_size == 77 && header_size == 8192);
    EXPECT(api->mount_image(W("C:\\d"), W("a.cim"), 2, &volume) == CIMFS_OK);
    EXPECT(api->mount_verified_image(W("C:\\d"), W("a.cim"), 0x20, &volume, sizeof hash, hash) == CIMFS_OK);
    EXPECT(api->merge_mount_image(2, images, 0x20, &volume) == CIMFS_OK);
    EXPECT(api->merge_mount_verified_image(2, images, 0x10, &volume, sizeof hash, hash) == CIMFS_OK);
    EXPECT(api->dismount_image(&volume) == CIMFS_OK);
    return 0;
}

int wmain(int count, wchar_t **arguments)
{
    struct cimfs_system system;
    EXPECT(count >= 2);
    EXPECT(cimfs_system_load(&system, "C:\\cimfs.dll") == CIMFS_E_INVALID_ARG);
    cimfs_hresult result = cimfs_system_load(&system, NULL);
    int status = 2;
    if (wcscmp(arguments[1], L"load") == 0) {
        printf("%08lx writer=%d library=%d mount=%d close=%d\n", (unsigned long)result, system.writer != NULL,
               system.library != NULL, system.api.mount_image != NULL, system.api.close_stream_answers);
        status = 0;
    } else if (result == CIMFS_OK && wcscmp(arguments[1], L"calls") == 0) {
        status = make_calls(&system.api);
    } else if (result == CIMFS_OK && count == 3 && wcscmp(arguments[1], L"image") == 0) {
        status = write_images(&system.api, arguments[2]);
    } else if (result == CIMFS_OK && count == 3 && wcscmp(arguments[1], L"lock") == 0) {
        status = refuse_second_writer(&system.api, arguments[2]);
    }
    cimfs_system_unload(&system);
    return status;
}
