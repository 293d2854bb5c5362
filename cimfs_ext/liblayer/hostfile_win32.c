#ifdef _WIN32

#include "hostfile.h"

#include "winfiles.h"

#include <windows.h>

const int LAYER_HOST_EXISTS = ERROR_ALREADY_EXISTS, LAYER_HOST_STOPPED = ERROR_CANCELLED,
          LAYER_HOST_TOO_LARGE = ERROR_FILE_TOO_LARGE;

static const int64_t SECOND = 10000000; /* of a FILETIME */

int layer_host_create(layer_host_file directory, const char *name, int sparse, layer_host_file *file)
{
    int result = layer_win_create(directory, name, LAYER_WIN_FILE, file);
    if (!result && sparse)
        layer_win_make_sparse(*file); /* or its zeros are stored */
    return result;
}

int layer_host_read(layer_host_file file, void *data, size_t size, uint64_t position, size_t *got)
{
    return layer_win_read(file, data, size, position, got);
}

int layer_host_write(layer_host_file file, const uint8_t *data, size_t size, uint64_t position)
{
    return layer_win_write(file, data, size, position);
}

int layer_host_resize(layer_host_file file, uint64_t size)
{
    return layer_win_resize(file, size);
}

int layer_host_stamp(layer_host_file file, const struct layer_host_times *times)
{
    struct layer_win_stamps stamps = {.last_access_time = (int64_t)times->last_access,
                                      .last_write_time = (int64_t)times->last_write};
    return layer_win_stamp(file, &stamps);
}

int layer_host_close(layer_host_file file)
{
    layer_win_close(file);
    return 0;
}

int layer_host_rename(layer_host_file directory, const char *from, const char *to, int replace)
{
    layer_win_file file;
    int result = layer_win_open(directory, from, LAYER_WIN_ANY, LAYER_WIN_WRITE, &file);
    if (result)
        return result;
    result = layer_win_rename(file, directory, to, replace);
    layer_win_close(file);
    return result;
}

void layer_host_remove(layer_host_file directory, const char *name)
{
    layer_win_file file;
    if (layer_win_open(directory, name, LAYER_WIN_ANY, LAYER_WIN_WRITE, &file))
        return;
    layer_win_remove(file);
    layer_win_close(file);
}

int layer_host_is_there(layer_host_file directory, const char *name, uint64_t size, uint64_t last_write)
{
    struct layer_win_info info;
    layer_win_file file;
    if (layer_win_open(directory, name, LAYER_WIN_FILE, LAYER_WIN_MARK, &file))
        return 0;
    int result = layer_win_describe(file, &info);
    layer_win_close(file);
    if (result || info.attributes & FILE_ATTRIBUTE_REPARSE_POINT || info.size != size)
        return 0;
    int64_t late = (int64_t)last_write - info.last_write_time;
    return late == 0 || (info.last_write_time % SECOND == 0 && late > 0 && late < SECOND);
}

#else

/* ISO C wants something in every file. */
typedef int layer_hostfile_win32_is_for_windows;

#endif
