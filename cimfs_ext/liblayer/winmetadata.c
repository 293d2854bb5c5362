#ifdef _WIN32

#include "winfiles.h"

#include <stdlib.h>
#include <string.h>

#include "winhandle.h"

/* What winternl.h may lack. */
NTSTATUS NTAPI NtQueryEaFile(HANDLE, PIO_STATUS_BLOCK, PVOID, ULONG, BOOLEAN, PVOID, ULONG, PULONG, BOOLEAN);
NTSTATUS NTAPI NtSetEaFile(HANDLE, PIO_STATUS_BLOCK, PVOID, ULONG);

int layer_win_describe(layer_win_file file, struct layer_win_info *info)
{
    FILE_BASIC_INFO basic;
    FILE_STANDARD_INFO standard;
    FILE_ATTRIBUTE_TAG_INFO tag;
    FILE_ID_INFO id;
    HANDLE handle = handle_of(file);
    if (!GetFileInformationByHandleEx(handle, FileBasicInfo, &basic, sizeof basic) ||
        !GetFileInformationByHandleEx(handle, FileStandardInfo, &standard, sizeof standard) ||
        !GetFileInformationByHandleEx(handle, FileAttributeTagInfo, &tag, sizeof tag) ||
        !GetFileInformationByHandleEx(handle, FileIdInfo, &id, sizeof id))
        return (int)GetLastError();
    *info = (struct layer_win_info){
        .attributes = basic.FileAttributes,
        .reparse_tag = tag.ReparseTag,
        .links = standard.NumberOfLinks,
        .directory = standard.Directory,
        .size = (uint64_t)standard.EndOfFile.QuadPart,
        .creation_time = basic.CreationTime.QuadPart,
        .last_write_time = basic.LastWriteTime.QuadPart,
        .change_time = basic.ChangeTime.QuadPart,
        .last_access_time = basic.LastAccessTime.QuadPart,
        .volume = id.VolumeSerialNumber,
    };
    memcpy(info->id, &id.FileId, sizeof info->id);
    return 0;
}

/* Negative times mean something else to SetFileInformationByHandle, and no NTFS file has one. */
static LARGE_INTEGER time_of(int64_t time)
{
    return (LARGE_INTEGER){.QuadPart = time > 0 ? time : 0};
}

int layer_win_stamp(layer_win_file file, const struct layer_win_stamps *stamps)
{
    FILE_BASIC_INFO info = {.CreationTime = time_of(stamps->creation_time),
                            .LastAccessTime = time_of(stamps->last_access_time),
                            .LastWriteTime = time_of(stamps->last_write_time),
                            .ChangeTime = time_of(stamps->change_time)};
    if (stamps->set_attributes) /* 0 would leave them */
        info.FileAttributes = stamps->attributes ? stamps->attributes : FILE_ATTRIBUTE_NORMAL;
    return last_error(SetFileInformationByHandle(handle_of(file), FileBasicInfo, &info, sizeof info));
}

static SECURITY_INFORMATION parts_of(const SECURITY_DESCRIPTOR_RELATIVE *descriptor)
{
    SECURITY_INFORMATION parts = 0;
    if (descriptor->Owner)
        parts |= OWNER_SECURITY_INFORMATION;
    if (descriptor->Group)
        parts |= GROUP_SECURITY_INFORMATION;
    if (descriptor->Control & SE_SACL_PRESENT)
        parts |= SACL_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION |
                 (descriptor->Control & SE_SACL_PROTECTED ? PROTECTED_SACL_SECURITY_INFORMATION
                                                          : UNPROTECTED_SACL_SECURITY_INFORMATION);
    if (descriptor->Control & SE_DACL_PRESENT)
        parts |= DACL_SECURITY_INFORMATION |
                 (descriptor->Control & SE_DACL_PROTECTED ? PROTECTED_DACL_SECURITY_INFORMATION
                                                          : UNPROTECTED_DACL_SECURITY_INFORMATION);
    return parts;
}

int layer_win_set_descriptor(layer_win_file file, const void *descriptor, size_t size, int *whole)
{
    static const SECURITY_INFORMATION GIVEN_UP[] = {
        0,
        SACL_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION | PROTECTED_SACL_SECURITY_INFORMATION |
            UNPROTECTED_SACL_SECURITY_INFORMATION,
        OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION,
        DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION | UNPROTECTED_DACL_SECURITY_INFORMATION,
    };
    *whole = 0;
    if (size < sizeof(SECURITY_DESCRIPTOR_RELATIVE) || size > UINT16_MAX)
        return ERROR_INVALID_SECURITY_DESCR;
    SECURITY_DESCRIPTOR_RELATIVE *copy = malloc(size);
    if (!copy)
        return ERROR_OUTOFMEMORY;
    memcpy(copy, descriptor, size);
    int result = IsValidSecurityDescriptor(copy) ? 0 : ERROR_INVALID_SECURITY_DESCR;
    if (!result) {
        /* Without the request, the system drops what says that an ACL was inherited. */
        if (copy->Control & SE_DACL_AUTO_INHERITED)
            copy->Control |= SE_DACL_AUTO_INHERIT_REQ;
        if (copy->Control & SE_SACL_AUTO_INHERITED)
            copy->Control |= SE_SACL_AUTO_INHERIT_REQ;
        SECURITY_INFORMATION parts = parts_of(copy);
        result = ERROR_ACCESS_DENIED;
        for (size_t i = 0; i < sizeof GIVEN_UP / sizeof *GIVEN_UP && result; i++) {
            parts &= ~GIVEN_UP[i];
            result = parts ? last_error(SetKernelObjectSecurity(handle_of(file), parts, copy)) : 0;
            *whole = i == 0 && !result;
        }
    }
    free(copy);
    return result;
}

struct ea { /* FILE_FULL_EA_INFORMATION */
    ULONG next;
    UCHAR flags, name_length;
    USHORT value_length;
};

int layer_win_set_eas(layer_win_file file, const uint8_t *list, size_t size, int *whole)
{
    int result = 0;
    uint8_t *one = malloc(size + 1);
    *whole = 1;
    if (!one)
        return ERROR_OUTOFMEMORY;
    while (size > sizeof(struct ea)) {
        struct ea ea;
        memcpy(&ea, list, sizeof ea);
        size_t length = sizeof ea + ea.name_length + 1u + ea.value_length;
        size_t step = ea.next ? ea.next : size;
        if (length > size || step > size || (ea.next && step < length)) {
            result = ERROR_EA_LIST_INCONSISTENT;
            break;
        }
        memcpy(one, list, length);
        memset(one, 0, sizeof ea.next);
        /* One by one: those of the kernel ($KERNEL.*), which programs cannot set, keep none of the others away. */
        IO_STATUS_BLOCK io;
        if (NtSetEaFile(handle_of(file), &io, one, (ULONG)length) < 0)
            *whole = 0;
        list += step;
        size -= step;
    }
    free(one);
    return result;
}

int layer_win_set_reparse(layer_win_file file, const void *data, size_t size)
{
    DWORD got;
    return control(file, FSCTL_SET_REPARSE_POINT, data, size, NULL, 0, &got);
}

int layer_win_descriptor(layer_win_file file, void *data, size_t capacity, size_t *size)
{
    SECURITY_INFORMATION all = OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    DWORD needed = 0;
    int result = last_error(GetKernelObjectSecurity(
        handle_of(file), all | SACL_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION, data, (DWORD)capacity, &needed));
    if (lacks_rights(result))
        result = last_error(
            GetKernelObjectSecurity(handle_of(file), all | LABEL_SECURITY_INFORMATION, data, (DWORD)capacity, &needed));
    *size = needed;
    return result == ERROR_INSUFFICIENT_BUFFER ? ERROR_MORE_DATA : result;
}

int layer_win_eas(layer_win_file file, void *data, size_t capacity, size_t *size)
{
    IO_STATUS_BLOCK io = {.Information = 0};
    NTSTATUS status =
        NtQueryEaFile(handle_of(file), &io, data, (ULONG)capacity, FALSE, NULL, 0, NULL, TRUE /* from the start */);
    int result = failed(status);
    *size = result ? 0 : (size_t)io.Information;
    if ((ULONG)status == 0x80000005u) /* STATUS_BUFFER_OVERFLOW: the list did not fit */
        return ERROR_MORE_DATA;
    return result == ERROR_FILE_NOT_FOUND || (ULONG)status == 0xC0000052u /* STATUS_NO_EAS_ON_FILE */ ? 0 : result;
}

int layer_win_reparse(layer_win_file file, void *data, size_t capacity, size_t *size)
{
    DWORD got = 0;
    int result = control(file, FSCTL_GET_REPARSE_POINT, NULL, 0, data, capacity, &got);
    *size = result ? 0 : got;
    return result;
}

#else

/* ISO C wants something in every file. */
typedef int layer_winmetadata_is_for_windows;

#endif
