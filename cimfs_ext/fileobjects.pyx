"""The files of an image as file objects of Python: the table of ``io.h`` whose operations call them.

Only what the reader needs is there. An exception that a file object raises is kept for the thread that it was raised
in, and the operation answers E_FAIL, which ends the call; :func:`raised_by_files` gives it to whoever made the call.
"""

import io
import os
from threading import RLock, get_ident

cimport cython
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cimfs_ext.cimfs cimport (
    CIMFS_E_FAIL,
    CIMFS_E_FILE_NOT_FOUND,
    CIMFS_E_HANDLE_EOF,
    CIMFS_E_OUT_OF_MEMORY,
    CIMFS_OK,
    cimfs_error,
    cimfs_hresult,
)
from cimfs_ext.image cimport error_for
from cimfs_ext.libcimfs cimport (
    cimfs_file,
    cimfs_io,
    cimfs_open_mode,
    cimfs_reader,
    cimfs_reader_directory,
    cimfs_reader_io,
    cimfs_reader_open_at,
    cimfs_system_io,
)

cdef uint64_t BLOCK = 65536  # bytes; what is mapped is read in whole ones


@cython.final
@cython.auto_pickle(False)
cdef class _Files:
    """Stands for the directory: what opens the files, and what they raised."""

    cdef object opener
    cdef dict raised  # thread -> exception

    cdef cimfs_hresult failed(self, BaseException error):
        if isinstance(error, MemoryError):
            return CIMFS_E_OUT_OF_MEMORY
        self.raised[get_ident()] = error
        return CIMFS_E_FAIL


@cython.final
@cython.auto_pickle(False)
cdef class _File:
    """One file object. Whoever uses it holds the lock, since there is but one position."""

    cdef _Files files
    cdef object file
    cdef object lock
    cdef int users  # the reader, and mappings: the last one closes it

    cdef int release(self) except -1:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.file.close()
        return 0

    cdef bint fill(self, uint8_t *to, size_t size, uint64_t offset) except -1:
        """All of these bytes, or False if the file ends before. They are copied: a file object may keep a buffer."""
        cdef const uint8_t[::1] data
        cdef size_t got
        self.file.seek(offset)
        while size > 0:
            piece = self.file.read(size)
            if piece is None:
                raise BlockingIOError("a file of an image has no data yet: it may not be non-blocking")
            if isinstance(piece, str):
                raise TypeError("a file of an image is opened in binary mode")
            data = piece
            got = <size_t>data.shape[0]
            if got == 0:
                return False
            if got > size:
                raise OSError(f"a file of an image gave {got} bytes where {size} were asked for")
            memcpy(to, &data[0], got)
            to += got
            size -= got
        return True


@cython.final
@cython.auto_pickle(False)
cdef class _Mapping:
    """Stands for a mapped file: memory of its size, filled block by block with what is looked at."""

    cdef _File file
    cdef uint8_t *data
    cdef uint64_t size
    cdef bytearray filled  # by block

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    cdef cimfs_hresult view(self, uint64_t offset, size_t size) except? -1:
        cdef uint64_t block, end, start, stop
        if self.data == NULL:
            self.filled = bytearray((self.size + BLOCK - 1) // BLOCK)
            self.data = <uint8_t *>PyMem_RawCalloc(<size_t>self.size, 1)
            if self.data == NULL:
                return CIMFS_E_OUT_OF_MEMORY
        block = offset // BLOCK
        end = (offset + size + BLOCK - 1) // BLOCK if size else block
        while block < end:
            start = block
            while block < end and not self.filled[block]:
                block += 1
            if block > start:
                stop = min(block * BLOCK, self.size)
                if not self.file.fill(self.data + start * BLOCK, <size_t>(stop - start * BLOCK), start * BLOCK):
                    return CIMFS_E_HANDLE_EOF
                self.filled[start:block] = b"\1" * (block - start)
            else:
                block += 1
        return CIMFS_OK


cdef cimfs_hresult open_file(
        cimfs_file directory, const char *name, cimfs_open_mode mode, cimfs_file *file) noexcept with gil:
    files = <_Files><void *>directory
    cdef _File opened
    try:
        opened = _File.__new__(_File)
        opened.files = files
        opened.lock = RLock()
        opened.file = files.opener(name.decode("utf-8", "surrogateescape"))
        for method in ("close", "read", "seek", "tell"):
            if not callable(getattr(opened.file, method, None)):
                raise TypeError(f"files must return binary files, not {type(opened.file).__name__}")
        if isinstance(opened.file, io.TextIOBase):
            raise TypeError("files must return files that are opened in binary mode")
        opened.users = 1
    except FileNotFoundError:
        return CIMFS_E_FILE_NOT_FOUND
    except BaseException as error:
        return files.failed(error)
    Py_INCREF(opened)
    file[0] = <cimfs_file><void *>opened
    return CIMFS_OK


cdef void close_file(cimfs_file file) noexcept with gil:
    closed = <object><void *>file
    Py_DECREF(closed)
    if isinstance(closed, _File):
        (<_File>closed).release()  # an exception has nowhere to go: it is reported as unraisable


cdef cimfs_hresult file_size(cimfs_file file, uint64_t *size) noexcept with gil:
    asked = <_File><void *>file
    try:
        with asked.lock:
            asked.file.seek(0, io.SEEK_END)
            size[0] = asked.file.tell()
    except BaseException as error:
        return asked.files.failed(error)
    return CIMFS_OK


cdef cimfs_hresult read_file(cimfs_file file, void *data, size_t size, uint64_t offset) noexcept with gil:
    read = <_File><void *>file
    try:
        with read.lock:
            return CIMFS_OK if read.fill(<uint8_t *>data, size, offset) else CIMFS_E_HANDLE_EOF
    except BaseException as error:
        return read.files.failed(error)


cdef cimfs_hresult map_file(cimfs_file file, size_t size, const uint8_t **data) noexcept with gil:
    mapped = <_File><void *>file
    cdef _Mapping mapping
    try:
        mapping = _Mapping.__new__(_Mapping)
        mapping.file = mapped
        mapping.size = size
        with mapped.lock:
            mapped.users += 1
    except BaseException as error:
        return mapped.files.failed(error)
    Py_INCREF(mapping)
    data[0] = <const uint8_t *><void *>mapping
    return CIMFS_OK


cdef void unmap_file(const uint8_t *data, size_t size) noexcept with gil:
    mapping = <_Mapping><void *>data
    Py_DECREF(mapping)
    mapping.file.release()


cdef cimfs_hresult view_mapping(
        const uint8_t *mapped, uint64_t offset, size_t size, const uint8_t **data) noexcept with gil:
    mapping = <_Mapping><void *>mapped
    cdef cimfs_hresult code = CIMFS_E_FAIL
    try:
        with mapping.file.lock:
            code = mapping.view(offset, size)
    except BaseException as error:
        return mapping.file.files.failed(error)
    data[0] = mapping.data + offset
    return code


cdef cimfs_io file_object_io
file_object_io.open = open_file
file_object_io.close = close_file
file_object_io.size = file_size
file_object_io.read = read_file
file_object_io.map = map_file
file_object_io.unmap = unmap_file
file_object_io.view = view_mapping
file_object_io.random = cimfs_system_io.random
file_object_io.now = cimfs_system_io.now


cdef cimfs_reader *open_reader(str name, opener) except NULL:
    """The image of that name among the files that ``opener`` opens by name."""
    cdef cimfs_error error
    cdef cimfs_hresult code
    cdef cimfs_reader *reader = NULL
    cdef bytes encoded = os.fsencode(name)
    cdef const char *text = encoded
    cdef _Files files = _Files.__new__(_Files)
    if not callable(opener):
        raise TypeError(f"files must be a callable, not {type(opener).__name__}")
    if "\0" in name:
        raise ValueError("embedded null byte")
    files.opener = opener
    files.raised = {}
    Py_INCREF(files)  # which the reader releases
    cdef cimfs_file directory = <cimfs_file><void *>files
    memset(&error, 0, sizeof(error))
    with nogil:
        code = cimfs_reader_open_at(&file_object_io, directory, text, &error, &reader)
    if code < 0:
        raised = raised_in(directory) if code == CIMFS_E_FAIL else None
        raise error_for(code, &error, "open image", name) if raised is None else raised
    return reader


cdef object raised_in(cimfs_file directory):
    """What a file of this directory raised in this thread, if anything; asked for once."""
    return (<_Files><void *>directory).raised.pop(get_ident(), None)


cdef object raised_by_files(const cimfs_reader *reader, cimfs_hresult code):
    """The exception behind a code, where it came from a file object."""
    if code != CIMFS_E_FAIL or cimfs_reader_io(reader) != &file_object_io:
        return None
    return raised_in(cimfs_reader_directory(reader))
