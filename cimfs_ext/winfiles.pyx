"""Files of Windows, by one name in an open directory: see ``liblayer/winfiles.h``. Windows only.

Directories are handles, names are bytes: UTF-8, lone surrogates as three bytes, which os.fsencode makes of them.
OSErrors know the name alone.
"""

import errno
import os

from libc.stdint cimport int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef extern from "hosterror.h":
    int raise_host_error(int, object) except -1

cdef extern from "liblayer/winfiles.h" nogil:
    enum layer_win_kind:
        LAYER_WIN_ANY
        LAYER_WIN_FILE
        LAYER_WIN_DIRECTORY

    enum layer_win_access:
        LAYER_WIN_LIST
        LAYER_WIN_READ
        LAYER_WIN_WRITE
        LAYER_WIN_MARK

    uint32_t LAYER_WIN_DESCRIPTORS, LAYER_WIN_SPARSE, LAYER_WIN_REPARSE, LAYER_WIN_STREAMS, LAYER_WIN_HARD_LINKS
    uint32_t LAYER_WIN_EAS

    struct layer_win_stamps:
        int set_attributes
        uint32_t attributes
        int64_t creation_time
        int64_t last_write_time
        int64_t change_time
        int64_t last_access_time

    struct layer_win_info:
        uint32_t attributes
        uint32_t reparse_tag
        uint32_t links
        uint32_t directory
        uint64_t size
        int64_t creation_time
        int64_t last_write_time
        int64_t change_time
        int64_t last_access_time
        uint64_t volume
        uint8_t id[16]

    void layer_win_use_privileges(int)
    int layer_win_open_top(const char *, intptr_t *)
    int layer_win_open(intptr_t, const char *, layer_win_kind, layer_win_access, intptr_t *)
    int layer_win_create(intptr_t, const char *, layer_win_kind, intptr_t *)
    int layer_win_open_stream(intptr_t, const char *, const uint16_t *, size_t, int, intptr_t *)
    int layer_win_duplicate(intptr_t, intptr_t *)
    void layer_win_close(intptr_t)
    int layer_win_link(intptr_t, intptr_t, const char *)
    int layer_win_remove(intptr_t)
    int layer_win_features(intptr_t, uint32_t *)
    int layer_win_open_to_hold(const char *, int, intptr_t *)
    int layer_win_hold(intptr_t)
    uint32_t layer_win_holder(intptr_t)
    int layer_win_set_reparse(intptr_t, const void *, size_t)
    int layer_win_let_read(const uint16_t *, const char *)
    int layer_win_rename(intptr_t, intptr_t, const char *, int)
    int layer_win_make_sparse(intptr_t)
    int layer_win_stamp(intptr_t, const layer_win_stamps *)
    int layer_win_set_descriptor(intptr_t, const void *, size_t, int *)
    int layer_win_set_eas(intptr_t, const uint8_t *, size_t, int *)
    int layer_win_next_range(intptr_t, uint64_t, uint64_t, uint64_t *, uint64_t *)
    int layer_win_describe(intptr_t, layer_win_info *)
    int layer_win_descriptor(intptr_t, void *, size_t, size_t *)
    int layer_win_eas(intptr_t, void *, size_t, size_t *)
    int layer_win_reparse(intptr_t, void *, size_t, size_t *)
    int layer_win_list(intptr_t, int, void *, size_t)
    int layer_win_streams(intptr_t, void *, size_t)

cdef extern from "liblayer/buffer.h" nogil:
    struct layer_buffer:
        uint8_t *data
        size_t size

cdef extern from "liblayer/reparse.h" nogil:
    int layer_reparse_link(const uint16_t *, size_t, int, layer_buffer *, const char **)

cdef extern from *:
    """
    enum { NO_MORE_FILES = 18, LOCK_VIOLATION = 33 };
    """
    int NO_MORE_FILES, LOCK_VIOLATION

DESCRIPTORS = LAYER_WIN_DESCRIPTORS
SPARSE = LAYER_WIN_SPARSE
REPARSE_POINTS = LAYER_WIN_REPARSE
STREAMS = LAYER_WIN_STREAMS
HARD_LINKS = LAYER_WIN_HARD_LINKS
EXTENDED_ATTRIBUTES = LAYER_WIN_EAS

cdef enum:
    LIST_BUFFER = 1 << 16
    LARGEST_STREAMS = 1 << 20
    # Of FILE_ID_BOTH_DIR_INFO and FILE_STREAM_INFO, [MS-FSCC] 2.4.17 and 2.4.43:
    NAME_LENGTH = 60
    NAME = 104
    STREAM_NAME_LENGTH = 4
    STREAM_SIZE = 8
    STREAM_NAME = 24


cdef int check(int code, name) except -1:
    if code:
        raise_host_error(code, os.fsdecode(name))
    return 0


cdef uint32_t number_at(const uint8_t *data) noexcept:
    cdef uint32_t number
    memcpy(&number, data, sizeof(number))
    return number


cdef bytes name_at(const uint8_t *data, uint32_t size):
    return (<const char *>data)[:size].decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def use_privileges(bint use):
    """Use the privileges for backup, restore and auditing that the account has, or stop using them."""
    layer_win_use_privileges(use)


def open_top(str path not None):
    """The handle of a directory by its path, which may lead through links."""
    cdef intptr_t handle
    cdef bytes text = path.encode("utf-8", "surrogatepass")
    check(layer_win_open_top(text, &handle), path)
    return handle


def open_directory(bytes name not None, intptr_t directory):
    """The handle of a directory in an open one; NotADirectoryError for a link in its place."""
    cdef intptr_t handle
    check(layer_win_open(directory, name, LAYER_WIN_DIRECTORY, LAYER_WIN_LIST, &handle), name)
    return handle


def duplicate(intptr_t handle):
    """Another handle of the same directory."""
    cdef intptr_t copy
    check(layer_win_duplicate(handle, &copy), b"")
    return copy


def close(intptr_t handle):
    """Close a handle."""
    layer_win_close(handle)


def features(intptr_t handle):
    """What the volume can hold, as bits: DESCRIPTORS and so on."""
    cdef uint32_t found
    check(layer_win_features(handle, &found), b"")
    return found


def make_directory(bytes name not None, intptr_t directory):
    """Make a directory."""
    cdef intptr_t handle
    check(layer_win_create(directory, name, LAYER_WIN_DIRECTORY, &handle), name)
    layer_win_close(handle)


def link(bytes name not None, intptr_t directory, bytes new_name not None, intptr_t new_directory):
    """Give a file one more name."""
    cdef intptr_t handle
    check(layer_win_open(directory, name, LAYER_WIN_FILE, LAYER_WIN_MARK, &handle), name)
    try:
        check(layer_win_link(handle, new_directory, new_name), new_name)
    finally:
        layer_win_close(handle)


def symlink(str target not None, bytes name not None, intptr_t directory, *, bint is_directory):
    """Make a symbolic link, which on Windows leads to a directory or to a file."""
    cdef bytes units = target.replace("/", "\\").encode("utf-16-le", "surrogatepass")
    cdef layer_buffer data
    cdef const char *reason = NULL
    cdef intptr_t handle
    cdef int code
    memset(&data, 0, sizeof(data))
    layer_reparse_link(<const uint16_t *><const char *>units, <size_t>len(units) // 2, 0, &data, &reason)
    try:
        if reason != NULL:
            raise OSError(errno.EINVAL, reason.decode(), os.fsdecode(name))
        check(layer_win_create(directory, name, LAYER_WIN_DIRECTORY if is_directory else LAYER_WIN_FILE, &handle), name)
        code = layer_win_set_reparse(handle, data.data, data.size)
        if code:
            layer_win_remove(handle)
        layer_win_close(handle)
        check(code, name)
    finally:
        free(data.data)


def remove(bytes name not None, intptr_t directory):
    """Remove a file, a link or an empty directory."""
    cdef intptr_t handle
    check(layer_win_open(directory, name, LAYER_WIN_ANY, LAYER_WIN_WRITE, &handle), name)
    try:
        check(layer_win_remove(handle), name)
    finally:
        layer_win_close(handle)


def open_to_hold(str path not None, bint create):
    """The handle of a file to be held, which others may move and remove; made if it is missing, with ``create``."""
    cdef intptr_t handle
    cdef bytes text = path.encode("utf-8", "surrogatepass")
    check(layer_win_open_to_hold(text, create, &handle), path)
    return handle


def hold(intptr_t handle):
    """Lock an open file for this holder alone until it is closed; False if another has it."""
    cdef int code = layer_win_hold(handle)
    if code == LOCK_VIOLATION:
        return False
    check(code, b"")
    return True


def holder(intptr_t handle):
    """The process that holds a file by another handle; 0 if none does."""
    return layer_win_holder(handle)


def let_read(str path not None, bytes group not None):
    """Let a group, which a SID in text names, read a file besides those who may."""
    cdef bytes units = (path + "\0").encode("utf-16-le", "surrogatepass")
    check(layer_win_let_read(<const uint16_t *><const char *>units, group), path)


def names(intptr_t directory):
    """The names in an open directory, in the order of the volume."""
    cdef list found = []
    cdef uint8_t *buffer = <uint8_t *>malloc(LIST_BUFFER)
    cdef int code, restart = 1
    cdef uint8_t *at
    cdef bytes name
    if buffer == NULL:
        raise MemoryError
    try:
        while True:
            with nogil:
                code = layer_win_list(directory, restart, buffer, LIST_BUFFER)
            if code == NO_MORE_FILES:
                return found
            check(code, b"")
            restart = 0
            at = buffer
            while True:
                name = name_at(at + NAME, number_at(at + NAME_LENGTH))
                if name not in (b".", b".."):
                    found.append(name)
                if number_at(at) == 0:
                    break
                at += number_at(at)
    finally:
        free(buffer)


def rename(bytes name not None, intptr_t directory, bytes new_name not None):
    """Give an entry another name in its directory; what has that name is replaced."""
    cdef intptr_t handle
    check(layer_win_open(directory, name, LAYER_WIN_ANY, LAYER_WIN_WRITE, &handle), name)
    try:
        check(layer_win_rename(handle, directory, new_name, 1), new_name)
    finally:
        layer_win_close(handle)


def open_to_read(bytes name not None, intptr_t directory, str stream=None):
    """The handle of a file, or of one of its alternate streams."""
    cdef intptr_t handle
    if stream is None:
        check(layer_win_open(directory, name, LAYER_WIN_FILE, LAYER_WIN_READ, &handle), name)
        return handle
    return open_stream(name, directory, stream, False)


def create_stream(bytes name not None, intptr_t directory, str stream not None):
    """The handle of a new alternate stream, to be written."""
    return open_stream(name, directory, stream, True)


cdef intptr_t open_stream(bytes name, intptr_t directory, str stream, bint create) except? -1:
    cdef intptr_t handle
    cdef bytes units = stream.encode("utf-16-le", "surrogatepass")
    check(layer_win_open_stream(directory, name, <const uint16_t *><const char *>units, <size_t>len(units) // 2, create,
                                &handle), name)
    return handle


def regions(intptr_t handle, uint64_t end, Py_ssize_t most):
    """Where a file has data up to a position, as offsets and sizes; everywhere if that is in too many places."""
    cdef list found = []
    cdef uint64_t position = 0, start, size
    while position < end:
        check(layer_win_next_range(handle, position, end, &start, &size), b"")
        if size == 0:
            break
        if len(found) == most:
            return [(0, end)]
        size = min(size, end - start)
        found.append((start, size))
        position = start + size
    return found


cdef class OpenFile:
    """The metadata of a file or directory: of itself, never of what a link leads to. Close it, or use it in ``with``.

    Times are FILETIMEs: creation, last write, change and last access. What is set is so as far as the caller may and
    the volume can: the methods say whether it is whole.
    """

    cdef intptr_t handle
    cdef bint is_open
    cdef bytes name
    cdef layer_win_info info

    def __cinit__(self, bytes name not None, intptr_t directory, *, bint write=False):
        self.name = name
        check(layer_win_open(directory, name, LAYER_WIN_ANY, LAYER_WIN_MARK if write else LAYER_WIN_READ, &self.handle),
              name)
        self.is_open = True
        check(layer_win_describe(self.handle, &self.info), name)

    def __dealloc__(self):
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    cpdef close(self):
        """Close it; any number of times."""
        if self.is_open:
            self.is_open = False
            layer_win_close(self.handle)

    @property
    def attributes(self):
        """FILE_ATTRIBUTE bits."""
        return self.info.attributes

    @property
    def reparse_tag(self):
        """The tag of a reparse point; 0 for any other file."""
        return self.info.reparse_tag

    @property
    def is_directory(self):
        """Whether it is a directory, or a link in the shape of one."""
        return bool(self.info.directory)

    @property
    def links(self):
        """How many names it has."""
        return self.info.links

    @property
    def size(self):
        """Bytes of content."""
        return self.info.size

    @property
    def times(self):
        """Creation, last write, change and last access."""
        return (self.info.creation_time, self.info.last_write_time, self.info.change_time, self.info.last_access_time)

    @property
    def identity(self):
        """What tells it apart from all files of this machine: the number of its volume, and its own there."""
        return self.info.volume, int.from_bytes((<const char *>self.info.id)[:16], "little")

    def security_descriptor(self):
        """The self-relative descriptor, as far as the caller may see it."""
        return self.buffer(layer_win_descriptor)

    def extended_attributes(self):
        """A list of FILE_FULL_EA_INFORMATION; empty if there are none."""
        return self.buffer(layer_win_eas)

    def reparse_data(self):
        """The REPARSE_DATA_BUFFER of a reparse point."""
        return self.buffer(layer_win_reparse)

    cdef bytes buffer(self, int (*get)(intptr_t, void *, size_t, size_t *) noexcept nogil):
        cdef size_t size = 0
        cdef void *data = malloc(LIST_BUFFER)
        if data == NULL:
            raise MemoryError
        try:
            check(get(self.handle, data, LIST_BUFFER, &size), self.name)
            return (<const char *>data)[:size]
        finally:
            free(data)

    def streams(self):
        """The bare names and the sizes of the alternate streams."""
        cdef list found = []
        cdef uint8_t *data = <uint8_t *>malloc(LARGEST_STREAMS)
        cdef uint8_t *at = data
        cdef uint64_t size
        cdef str text
        if data == NULL:
            raise MemoryError
        try:
            check(layer_win_streams(self.handle, data, LARGEST_STREAMS), self.name)
            while number_at(at + STREAM_NAME_LENGTH):
                text = name_at(at + STREAM_NAME, number_at(at + STREAM_NAME_LENGTH)).decode("utf-8", "surrogatepass")
                memcpy(&size, at + STREAM_SIZE, sizeof(size))
                stream, _, kind = text.removeprefix(":").rpartition(":")
                if stream and kind == "$DATA":
                    found.append((stream, size))
                if number_at(at) == 0:
                    break
                at += number_at(at)
            return found
        finally:
            free(data)

    def set_security_descriptor(self, bytes data not None):
        """Owner, group and both ACLs."""
        cdef int whole = 0
        return not layer_win_set_descriptor(self.handle, <const char *>data, <size_t>len(data), &whole) and whole

    def set_extended_attributes(self, bytes data not None):
        """A list of FILE_FULL_EA_INFORMATION."""
        cdef int whole = 0
        cdef const uint8_t *bytes_of = <const uint8_t *><const char *>data
        return not layer_win_set_eas(self.handle, bytes_of, <size_t>len(data), &whole) and whole

    def set_reparse_data(self, bytes data not None):
        """A REPARSE_DATA_BUFFER."""
        return not layer_win_set_reparse(self.handle, <const char *>data, <size_t>len(data))

    def make_sparse(self):
        """From now on, zeros that are not written take no room."""
        return not layer_win_make_sparse(self.handle)

    def set_stamps(self, attributes, times not None):
        """Attributes, unless they are None, and times, which stay where they are 0; OSError if that fails."""
        cdef layer_win_stamps stamps
        stamps.set_attributes = attributes is not None
        stamps.attributes = attributes or 0
        stamps.creation_time, stamps.last_write_time, stamps.change_time, stamps.last_access_time = times
        check(layer_win_stamp(self.handle, &stamps), self.name)
