/* GUIDs in their on-disk layout: the first three fields little-endian. */
#ifndef CIMFS_GUID_H
#define CIMFS_GUID_H

#include "cimfs.h"
#include "format.h"

/* Lower case, with dashes, no braces. */
void cimfs_guid_text(const struct cimfs_guid *guid, char text[CIMFS_GUID_TEXT]);

/* Mark 16 random or derived bytes as a version 4 GUID. */
void cimfs_guid_stamp(struct cimfs_guid *guid);

/* "region_<guid>_<n>" and "objectid_<guid>_<n>". */
void cimfs_set_file_name(const char *kind, const struct cimfs_guid *set, uint32_t index, char name[CIMFS_FILE_NAME]);

/* "image_<guid>_0": what the .cim file of an image of that name is called until it is complete. */
void cimfs_draft_name(const char *image_name, char name[CIMFS_FILE_NAME]);

#endif
