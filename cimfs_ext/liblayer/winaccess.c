#ifdef _WIN32

#include "winfiles.h"

#include <windows.h>

#include <aclapi.h>
#include <sddl.h>

int layer_win_let_read(const uint16_t *path, const char *group)
{
    wchar_t *name = (wchar_t *)path; /* which the functions take without const */
    PSECURITY_DESCRIPTOR descriptor = NULL;
    PSID sid = NULL;
    PACL present = NULL, wanted = NULL;
    DWORD result = ConvertStringSidToSidA(group, &sid) ? 0 : GetLastError();
    if (!result)
        result = GetNamedSecurityInfoW(name, SE_FILE_OBJECT, DACL_SECURITY_INFORMATION, NULL, NULL, &present, NULL,
                                       &descriptor);
    if (!result) {
        EXPLICIT_ACCESSW access = {
            .grfAccessPermissions = FILE_GENERIC_READ,
            .grfAccessMode = GRANT_ACCESS,
            .Trustee = {.TrusteeForm = TRUSTEE_IS_SID, .TrusteeType = TRUSTEE_IS_GROUP, .ptstrName = sid},
        };
        result = SetEntriesInAclW(1, &access, present, &wanted);
    }
    if (!result)
        result = SetNamedSecurityInfoW(name, SE_FILE_OBJECT, DACL_SECURITY_INFORMATION, NULL, NULL, wanted, NULL);
    LocalFree(wanted);
    LocalFree(descriptor);
    LocalFree(sid);
    return (int)result;
}

#else

/* ISO C wants something in every file. */
typedef int layer_winaccess_is_for_windows;

#endif
