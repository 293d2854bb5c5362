/* What a self-relative security descriptor begins with, and how much of one an image can hold. */
#ifndef CIMFS_DESCRIPTOR_H
#define CIMFS_DESCRIPTOR_H

#include <stddef.h>
#include <stdint.h>

static inline int cimfs_descriptor_is_valid(const uint8_t *data, size_t size)
{
    enum { HEADER = 20, SELF_RELATIVE = 0x80 };
    return data && size >= HEADER && size <= UINT16_MAX && data[0] == 1 && (data[3] & SELF_RELATIVE);
}

#endif
