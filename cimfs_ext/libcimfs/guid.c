#include "guid.h"

#include <stdio.h>
#include <string.h>

#include "contentid.h"

void cimfs_guid_text(const struct cimfs_guid *guid, char text[CIMFS_GUID_TEXT])
{
    const uint8_t *b = guid->b;
    snprintf(text, CIMFS_GUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[3], b[2],
             b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

void cimfs_guid_stamp(struct cimfs_guid *guid)
{
    guid->b[7] = (uint8_t)((guid->b[7] & 0x0F) | 0x40);
    guid->b[8] = (uint8_t)((guid->b[8] & 0x3F) | 0x80);
}

void cimfs_set_file_name(const char *kind, const struct cimfs_guid *set, uint32_t index, char name[CIMFS_FILE_NAME])
{
    char guid[CIMFS_GUID_TEXT];
    cimfs_guid_text(set, guid);
    snprintf(name, CIMFS_FILE_NAME, "%s_%s_%u", kind, guid, index);
}

void cimfs_draft_name(const char *image_name, char name[CIMFS_FILE_NAME])
{
    struct cimfs_hash hash;
    struct cimfs_guid guid;
    cimfs_hash_init(&hash);
    cimfs_hash_update(&hash, image_name, strlen(image_name));
    cimfs_hash_final(&hash, guid.b);
    cimfs_guid_stamp(&guid);
    cimfs_set_file_name("image", &guid, 0, name);
}
