/*
 * How every function of this library reports errors.
 *
 * - It returns a cimfs_hresult: 0, or a negative HRESULT and nothing else. One that cannot fail returns its value.
 * - Whoever first knows what failed fills the struct cimfs_error, through cimfs_fail: the file, the offset in it and
 *   a reason that is static text (that of a stream cut short belongs to its image). Callers pass the code on
 * (CIMFS_TRY) and fill it no more. A function without that parameter, or with `const char **reason`, knows neither file
 * nor offset: its caller fills it.
 * - Memory that runs out is CIMFS_E_OUT_OF_MEMORY, whoever notices: the code says all, and the struct may stay empty.
 * - Outputs mean something only after success. Those of cimfs.h, and handles and pointers, are cleared on entry.
 * - A function that holds something has one way out, where it lets go of it: results are carried there in `result`.
 * - _close undoes _open, and _cleanup frees what a struct gathered that needs no opening. Neither can fail; both accept
 *   what is zeroed or was opened halfway, and NULL where the object is a pointer.
 * - After a failure in the middle of a change an object can only be closed; a call that was wrong from the start, with
 *   an invalid argument, leaves it as it was.
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
