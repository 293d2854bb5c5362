/* CIMFS_FILE_METADATA as the Windows SDK declares it. The types of windows.h are declared by whoever includes this. */
#ifndef SDK_METADATA_H
#define SDK_METADATA_H

typedef struct {
    UINT32 Attributes;
    INT64 FileSize;
    LARGE_INTEGER CreationTime;
    LARGE_INTEGER LastWriteTime;
    LARGE_INTEGER ChangeTime;
    LARGE_INTEGER LastAccessTime;
    const void *SecurityDescriptorBuffer;
    UINT32 SecurityDescriptorSize;
    const void *ReparseDataBuffer;
    UINT32 ReparseDataSize;
    const void *EaBuffer;
    UINT32 EaBufferSize;
} CIMFS_FILE_METADATA;

#endif
