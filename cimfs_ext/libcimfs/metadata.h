/*
 * What a caller says of a file: checked, and stored as a record with the objects that it points to.
 */
#ifndef CIMFS_METADATA_H
#define CIMFS_METADATA_H

#include "objects.h"

/* What is wrong with it; NULL: nothing. */
const char *cimfs_metadata_problem(const struct cimfs_file_metadata *metadata);
/* The record has everything but the default stream and the parent. */
cimfs_hresult cimfs_metadata_store(struct cimfs_objects *objects, const struct cimfs_file_metadata *metadata,
                                   struct cimfs_record *record);

#endif
