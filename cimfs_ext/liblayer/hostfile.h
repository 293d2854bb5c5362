/*
 * What extract.c needs of the host's file system: hostfile_posix.c and hostfile_win32.c.
 *
 * Directories and files are descriptors, on Windows handles. Names are single components, and nothing is followed. All
 * return 0 or the host's error: an errno, on Windows a Win32 error code.
 */
#ifndef LAYER_HOSTFILE_H
#define LAYER_HOSTFILE_H

#include <stddef.h>
#include <stdint.h>

typedef intptr_t layer_host_file;

extern const int LAYER_HOST_EXISTS, LAYER_HOST_STOPPED, LAYER_HOST_TOO_LARGE;

/* FILETIMEs. */
struct layer_host_times {
    uint64_t last_access, last_write;
};

/* A new file, to be written; sparse: what is not written shall take no room. */
int layer_host_create(layer_host_file directory, const char *name, int sparse, layer_host_file *file);
/* Less than size only at the end of the file. */
int layer_host_read(layer_host_file file, void *data, size_t size, uint64_t position, size_t *got);
int layer_host_write(layer_host_file file, const uint8_t *data, size_t size, uint64_t position);
int layer_host_resize(layer_host_file file, uint64_t size);
int layer_host_stamp(layer_host_file file, const struct layer_host_times *times);
int layer_host_close(layer_host_file file);

/* LAYER_HOST_EXISTS if the name is taken, unless it may be replaced. */
int layer_host_rename(layer_host_file directory, const char *from, const char *to, int replace);
void layer_host_remove(layer_host_file directory, const char *name);
/* Is the file of that name one of this size and write time? Some file systems keep whole seconds. */
int layer_host_is_there(layer_host_file directory, const char *name, uint64_t size, uint64_t last_write);

#endif
