/* What the files that call Windows share: handles, and its three ways to report an error, as Win32 error codes. */
#ifndef LAYER_WINHANDLE_H
#define LAYER_WINHANDLE_H

#include "winfiles.h"

#include <windows.h>
#include <winioctl.h>
#include <winternl.h>

static inline HANDLE handle_of(layer_win_file file)
{
    return (HANDLE)file;
}

static inline int failed(NTSTATUS status)
{
    return status < 0 ? (int)RtlNtStatusToDosError(status) : 0;
}

static inline int last_error(BOOL done)
{
    return done ? 0 : (int)GetLastError();
}

static inline int lacks_rights(int error)
{
    return error == ERROR_ACCESS_DENIED || error == ERROR_PRIVILEGE_NOT_HELD;
}

static inline int control(layer_win_file file, DWORD code, const void *in, size_t in_size, void *out, size_t out_size,
                          DWORD *got)
{
    return last_error(
        DeviceIoControl(handle_of(file), code, (void *)(uintptr_t)in, (DWORD)in_size, out, (DWORD)out_size, got, NULL));
}

#endif
