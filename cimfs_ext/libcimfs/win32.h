/* What io_win32.c and liblayer/winfiles.c do alike with files of Windows. */
#ifndef CIMFS_WIN32_H
#define CIMFS_WIN32_H

#include <stdint.h>
#include <string.h>

#include <windows.h>
#include <winternl.h>

/* Not in every winternl.h. */
NTSTATUS NTAPI NtSetInformationFile(HANDLE, PIO_STATUS_BLOCK, PVOID, ULONG, FILE_INFORMATION_CLASS);

static inline OVERLAPPED cimfs_win_at(uint64_t offset)
{
    return (OVERLAPPED){.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
}

/* ---- names ---- */

enum { CIMFS_WIN_NAME = 255 }; /* code units of a name on a disk */

/* FileRenameInformation, FileLinkInformation and FileRenameInformationEx, [MS-FSCC] 2.4.42, 2.4.27 and 2.4.43. */
#define CIMFS_WIN_RENAME ((FILE_INFORMATION_CLASS)10)
#define CIMFS_WIN_LINK ((FILE_INFORMATION_CLASS)11)
#define CIMFS_WIN_RENAME_EX ((FILE_INFORMATION_CLASS)65)
enum { CIMFS_WIN_REPLACE = 1, CIMFS_WIN_POSIX = 2 };

/* Give an open file a name in an open directory, or one more. */
static inline NTSTATUS cimfs_win_set_name(HANDLE file, FILE_INFORMATION_CLASS what, ULONG flags, HANDLE directory,
                                          const wchar_t *name, size_t length)
{
    struct {
        ULONG flags;
        HANDLE directory;
        ULONG size; /* in bytes */
        wchar_t name[CIMFS_WIN_NAME];
    } info = {.flags = flags, .directory = directory, .size = (ULONG)(length * sizeof *name)};
    IO_STATUS_BLOCK io;
    if (length > CIMFS_WIN_NAME)
        return (NTSTATUS)0xC0000106u; /* STATUS_NAME_TOO_LONG */
    memcpy(info.name, name, info.size);
    return NtSetInformationFile(file, &io, &info, sizeof info, what);
}

/*
 * As rename(2) does it: others may have a file open that is replaced, and keep it. What knows no better, such as FAT or
 * wine 8, refuses to replace an open file.
 */
static inline NTSTATUS cimfs_win_rename(HANDLE file, int replace, HANDLE directory, const wchar_t *name, size_t length)
{
    ULONG flags = replace ? CIMFS_WIN_REPLACE : 0;
    NTSTATUS status = cimfs_win_set_name(file, CIMFS_WIN_RENAME_EX, flags | CIMFS_WIN_POSIX, directory, name, length);
    switch ((ULONG)status) {
    case 0xC0000002u: /* STATUS_NOT_IMPLEMENTED */
    case 0xC0000003u: /* STATUS_INVALID_INFO_CLASS */
    case 0xC000000Du: /* STATUS_INVALID_PARAMETER */
    case 0xC00000BBu: /* STATUS_NOT_SUPPORTED */
        return cimfs_win_set_name(file, CIMFS_WIN_RENAME, flags, directory, name, length);
    default:
        return status;
    }
}

/* ---- locks ----
 *
 * A locked byte cannot be read by others, so it lies beyond every file's end. Windows does not say who has locked it:
 * the holder locks a second byte, whose place is its process ID, and whoever wants to know looks for that.
 */

static const uint64_t CIMFS_WIN_LOCK = (uint64_t)1 << 62;
static const uint64_t CIMFS_WIN_HOLDERS = ((uint64_t)1 << 62) + 1;

/* LockFileEx with its flags; both locks end with the handle. */
static inline int cimfs_win_lock(HANDLE file, DWORD flags)
{
    OVERLAPPED lock = cimfs_win_at(CIMFS_WIN_LOCK);
    OVERLAPPED holder = cimfs_win_at(CIMFS_WIN_HOLDERS + GetCurrentProcessId());
    if (!LockFileEx(file, flags, 0, 1, 0, &lock))
        return 0;
    if (flags & LOCKFILE_EXCLUSIVE_LOCK)
        LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &holder);
    return 1;
}

/* Does nobody hold one of count bytes behind first? */
static inline int cimfs_win_is_free(HANDLE file, uint64_t first, uint64_t count)
{
    OVERLAPPED range = cimfs_win_at(CIMFS_WIN_HOLDERS + first);
    if (!LockFileEx(file, LOCKFILE_FAIL_IMMEDIATELY, 0, (DWORD)count, (DWORD)(count >> 32), &range))
        return 0;
    UnlockFileEx(file, 0, (DWORD)count, (DWORD)(count >> 32), &range);
    return 1;
}

/* The process that holds the file, by another handle; 0 if there is none. */
static inline DWORD cimfs_win_holder(HANDLE file)
{
    uint64_t first = 0, count = (uint64_t)1 << 32;
    if (cimfs_win_is_free(file, first, count))
        return 0;
    for (; count > 1; count /= 2)
        if (cimfs_win_is_free(file, first, count / 2))
            first += count / 2;
    return (DWORD)first;
}

#endif
