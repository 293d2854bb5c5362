/* REPARSE_DATA_BUFFERs of symbolic links and mount points ([MS-FSCC] 2.1.2). */
#ifndef LAYER_REPARSE_H
#define LAYER_REPARSE_H

#include "buffer.h"

/* target: UTF-16 with backslashes, as the link shows it. 0, or -1 with a reason. */
int layer_reparse_link(const uint16_t *target, size_t length, int mount_point, struct layer_buffer *to,
                       const char **reason);

#endif
