/* An error of the operating system as Python's: for the bindings alone. */
#ifndef CIMLAYER_HOSTERROR_H
#define CIMLAYER_HOSTERROR_H

#include <Python.h>
#include <errno.h>

#ifdef _WIN32

/* Raise what a Win32 error code means, about a file; returns -1. */
static inline int raise_host_error(int code, PyObject *file)
{
    if (code == 8 || code == 14) /* ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY */
        PyErr_NoMemory();
    else
        PyErr_SetExcFromWindowsErrWithFilenameObject(PyExc_OSError, code, file);
    return -1;
}

#else

/* Raise what an errno means, about a file; returns -1. */
static inline int raise_host_error(int code, PyObject *file)
{
    if (code == ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    errno = code;
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, file);
    return -1;
}

#endif

#endif
