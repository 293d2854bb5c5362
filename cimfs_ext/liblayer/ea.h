/* FILE_FULL_EA_INFORMATION lists from PAX records ([MS-FSCC] 2.4.16). */
#ifndef LAYER_EA_H
#define LAYER_EA_H

#include "buffer.h"
#include "tar.h"

/*
 * The list, in the order of the names; of records with one name the last counts, an empty value cancels it.
 * eas is sorted in place. 0, or -1 with a reason.
 */
int layer_ea_list(struct layer_ea *eas, size_t count, struct layer_buffer *to, const char **reason);

#endif
