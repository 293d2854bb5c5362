#include "error.h"

#include <stdio.h>

cimfs_hresult cimfs_fail(struct cimfs_error *error, cimfs_hresult code, const char *file, uint64_t offset,
                         const char *reason)
{
    if (error) {
        error->code = code;
        error->offset = offset;
        error->reason = reason;
        snprintf(error->file, sizeof error->file, "%s", file ? file : "");
    }
    return code;
}
