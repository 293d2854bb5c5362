/*
 * The function table of cimfs.h, filled from the operating system's libraries.
 *
 * On Windows these are cimwriter.dll for the writing half, if it is in the system directory or the program's own, where
 * hcsshim looks for it too (internal/winapi/cimwriter), and cimfs.dll from the system directory alone. Neither is ever
 * loaded from the current directory or from PATH. Elsewhere a shared library with the
 * same exports takes their place (libcimfs itself, a recording library in tests).
 */
#ifndef CIMFS_SYSTEM_H
#define CIMFS_SYSTEM_H

#include "cimfs.h"

/* One function of the libraries. */
struct cimfs_function {
    const char *name;     /* as exported */
    size_t entry;         /* its offset in struct cimfs_api */
    unsigned char writes; /* cimwriter.dll has it too */
    uint32_t build;       /* the first Windows build that has it; 0: none, libcimfs alone */
};

/* All of them, in the order of struct cimfs_api. */
const struct cimfs_function *cimfs_functions(size_t *count);

struct cimfs_system {
    struct cimfs_api api;
    const char *missing; /* a function of the first release that is not there, or NULL */
    void *writer;        /* cimwriter.dll, or NULL */
    void *library;
};

/*
 * Fill the table. path is NULL on Windows and the library's path elsewhere. FILE_NOT_FOUND: there is no library,
 * NOTIMPL: it lacks a function of the first release (missing says which), INVALID_ARG: a path on Windows.
 */
cimfs_hresult cimfs_system_load(struct cimfs_system *system, const char *path);

/* Nothing that came from the table may be used afterwards. */
void cimfs_system_unload(struct cimfs_system *system);

#endif
