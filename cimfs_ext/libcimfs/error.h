/*
 * The one way to report errors inside the library: a function fails with a negative HRESULT, and the first
 * to know says where and why in a struct cimfs_error.
 */
#ifndef CIMFS_ERROR_H
#define CIMFS_ERROR_H

#include "cimfs.h"

#define CIMFS_NO_OFFSET UINT64_MAX

/* Fill error (may be NULL) and return code. */
cimfs_hresult cimfs_fail(struct cimfs_error *error, cimfs_hresult code, const char *file, uint64_t offset,
                         const char *reason);

#define CIMFS_TRY(expression)                                                                                          \
    do {                                                                                                               \
        cimfs_hresult result_ = (expression);                                                                          \
        if (result_ < 0)                                                                                               \
            return result_;                                                                                            \
    } while (0)

#endif
