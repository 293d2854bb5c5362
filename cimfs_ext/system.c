#include "system.h"

#include <string.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

enum {
    FIRST_RELEASE = 19041,  /* Windows 10 2004 */
    BLOCK_IMAGES = 27766,   /* as hcsshim's IsBlockCimSupported has it */
    VERIFIED_IMAGES = 27800 /* as hcsshim's IsVerifiedCimSupported has it */
};

#define ENTRY(member) offsetof(struct cimfs_api, member)

static const struct cimfs_function FUNCTIONS[] = {
    {"CimCreateImage", ENTRY(create_image), 1, FIRST_RELEASE},
    {"CimCloseImage", ENTRY(close_image), 1, FIRST_RELEASE},
    {"CimCommitImage", ENTRY(commit_image), 1, FIRST_RELEASE},
    {"CimCreateFile", ENTRY(create_file), 1, FIRST_RELEASE},
    {"CimWriteStream", ENTRY(write_stream), 1, FIRST_RELEASE},
    {"CimCloseStream", ENTRY(close_stream), 1, FIRST_RELEASE},
    {"CimCreateAlternateStream", ENTRY(create_alternate_stream), 1, FIRST_RELEASE},
    {"CimCreateHardLink", ENTRY(create_hard_link), 1, FIRST_RELEASE},
    {"CimDeletePath", ENTRY(delete_path), 1, FIRST_RELEASE},
    {"CimCreateImage2", ENTRY(create_image2), 1, BLOCK_IMAGES},
    {"CimTombstoneFile", ENTRY(tombstone_file), 1, BLOCK_IMAGES},
    {"CimCreateMergeLink", ENTRY(create_merge_link), 1, BLOCK_IMAGES},
    {"CimAddFsToMergedImage", ENTRY(add_to_merged_image), 1, BLOCK_IMAGES},
    {"CimAddFsToMergedImage2", ENTRY(add_to_merged_image2), 1, BLOCK_IMAGES},
    {"CimSealImage", ENTRY(seal_image), 1, VERIFIED_IMAGES},
    {"CimGetVerificationInformation", ENTRY(get_verification_information), 0, VERIFIED_IMAGES},
    {"CimMountImage", ENTRY(mount_image), 0, FIRST_RELEASE},
    {"CimDismountImage", ENTRY(dismount_image), 0, FIRST_RELEASE},
    {"CimMergeMountImage", ENTRY(merge_mount_image), 0, BLOCK_IMAGES},
    {"CimMountVerifiedImage", ENTRY(mount_verified_image), 0, VERIFIED_IMAGES},
    {"CimMergeMountVerifiedImage", ENTRY(merge_mount_verified_image), 0, VERIFIED_IMAGES},
    {"CimCreateImageWith", ENTRY(create_image_with), 1, 0},
};

const struct cimfs_function *cimfs_functions(size_t *count)
{
    *count = sizeof FUNCTIONS / sizeof *FUNCTIONS;
    return FUNCTIONS;
}

/* ---- the loader of each system ---- */

typedef void (*address)(void);

#ifdef _WIN32

/* Programs bring cimwriter.dll along beside themselves, which for Python is beside its interpreter. */
static void *open_writer(void)
{
    void *library = LoadLibraryExW(L"cimwriter.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (library)
        return library;
    /* What it needs itself lies in the system directory. */
    return LoadLibraryExW(L"cimwriter.dll", NULL, LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32);
}

static cimfs_hresult open_libraries(struct cimfs_system *system, const char *path)
{
    if (path)
        return CIMFS_E_INVALID_ARG;
    system->writer = open_writer();
    system->library = LoadLibraryExW(L"cimfs.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    return system->writer || system->library ? CIMFS_OK : CIMFS_E_FILE_NOT_FOUND;
}

static address find(void *library, const char *name)
{
    return (address)GetProcAddress(library, name);
}

static void close_library(void *library)
{
    FreeLibrary(library);
}

#else

static cimfs_hresult open_libraries(struct cimfs_system *system, const char *path)
{
    system->library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    return system->library ? CIMFS_OK : CIMFS_E_FILE_NOT_FOUND;
}

static address find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    address found;
    _Static_assert(sizeof found == sizeof symbol, "functions and data have pointers of one size");
    memcpy(&found, &symbol, sizeof found);
    return found;
}

static void close_library(void *library)
{
    dlclose(library);
}

#endif

/* ---- the table ---- */

/* An image belongs to the library that made it, so the writing half comes from one library as a whole. */
static void fill(struct cimfs_system *system)
{
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        const struct cimfs_function *function = &FUNCTIONS[i];
        void *library = function->writes && system->writer ? system->writer : system->library;
        address found = library ? find(library, function->name) : NULL;
        memcpy((char *)&system->api + function->entry, &found, sizeof found);
        if (!found && function->writes && function->build == FIRST_RELEASE)
            system->missing = function->name;
    }
}

cimfs_hresult cimfs_system_load(struct cimfs_system *system, const char *path)
{
    *system = (struct cimfs_system){.api.name = "system"};
    cimfs_hresult result = open_libraries(system, path);
    if (result < 0)
        return result;
    fill(system);
    /* The headers that declare CimCloseStream as void are older than this function. */
    system->api.close_stream_answers = system->api.create_image2 != NULL;
    if (!system->missing)
        return CIMFS_OK;
    const char *missing = system->missing;
    cimfs_system_unload(system);
    system->missing = missing;
    return CIMFS_E_NOTIMPL;
}

void cimfs_system_unload(struct cimfs_system *system)
{
    if (system->writer)
        close_library(system->writer);
    if (system->library)
        close_library(system->library);
    *system = (struct cimfs_system){.library = NULL};
}
