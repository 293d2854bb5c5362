"""Images being written: the calls of ``cimfs.h``, with handles as objects and HRESULTs as exceptions."""

import errno
import os

from cimfs_ext import errors
from cimfs_ext.imagepath import inner_path

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport (
    CIMFS_NULL_DACL,
    CIMFS_OK,
    cimfs_close_stream,
    cimfs_file_metadata,
    cimfs_options,
    cimfs_wchar,
)
from cimfs_ext.guard cimport check_idle
from cimfs_ext.implementation cimport choose
from cimfs_ext.public cimport show_as

cdef uint64_t NO_OFFSET = <uint64_t>-1

cdef unsigned int forks = 0  # how many lie between the first process and this one


def _count_fork():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef object error_for(cimfs_hresult code, const cimfs_error *error, str operation, str path):
    """The exception for a failed call: what was done, to which path, and what the library knows of the cause."""
    reason = file = ""
    offset = None
    if error != NULL and error.code == code:
        reason = error.reason.decode() if error.reason != NULL else ""
        file = error.file.decode("utf-8", "surrogateescape")
        offset = error.offset if error.offset != NO_OFFSET else None
    return errors.image_error(code, operation, path, reason, file, offset)


cdef str separated(path):
    """A path in an image with backslashes, whatever separates its names."""
    return (<str>inner_path(path)).replace("/", "\\")


cdef bytes wide(str text):
    """UTF-16 code units with their terminator; lone surrogates pass."""
    if "\0" in text:
        raise errors.InvalidCallError(errno.EINVAL, "a NUL in a path", text)
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


@cython.no_gc_clear  # what releases the image calls through the table of the implementation
cdef class ImageWriter:
    """An image that is being written: new, forked from another one, or extended in place.

    ``directory`` is the containing directory, ``existing_name`` the image to start from (None: an empty one),
    ``new_name`` the image to make (None: extend the existing one). Nothing is visible under the new name before
    :meth:`commit`; :meth:`close` without it leaves nothing behind. As a context manager it only closes: committing is
    always said. Paths inside the image are str, with either slash, or PurePath; they are relative, and compared without
    regard to case.

    ``flags`` are those of CimCreateImage2 (:class:`cimlayer.CreateFlags`): with one, ``directory`` may be a block
    device or a file that holds images. ``implementation`` is ``portable``, ``system``, or None for the default
    (CIMLAYER_IMPLEMENTATION, else the system's on a Windows that has it).

    Options of the portable implementation: ``sync`` false commits without waiting for the disk. ``time`` (a FILETIME)
    is that of what the library makes itself, and ``seed`` gives a region set ID that depends on it, the parent and the
    name alone; both serve reproducible images. The system's library has no such options: there ``sync`` and ``time``
    change nothing, and ``seed`` is an error.

    One call at a time: while one is under way, in whatever thread, every other one raises RuntimeError, :meth:`close`
    too, and changes nothing. Threads may take turns. Properties may be read at any time. In a process that was forked
    the image is another process's: calls raise ValueError there, and :meth:`close` does nothing.

    Errors are :class:`cimlayer.ImageError`.
    """

    def __cinit__(self, directory, existing_name=None, new_name=None, *, uint32_t flags=0, implementation=None,
                  bint sync=True, int64_t time=0, bytes seed=None):
        cdef cimfs_options options
        cdef bytes path_text, existing_text, new_text
        cdef cimfs_hresult code
        cdef cimfs_image image = NULL
        cdef const cimfs_wchar *existing = NULL
        cdef const cimfs_wchar *new = NULL
        self.calls = choose(implementation)
        self.api = self.calls.api
        self.forks = forks
        self.streaming_path = ""
        memset(&self.error, 0, sizeof(self.error))
        memset(&options, 0, sizeof(options))
        self.directory = os.fsdecode(directory)
        self.name = new_name if new_name is not None else existing_name or ""
        if flags:
            self.calls.require(self.api.create_image2 != NULL, "CimCreateImage2", self.name)
        elif seed is not None:
            self.calls.require(self.api.create_image_with != NULL, "CimCreateImageWith", self.name)
        options.no_sync = not sync
        options.time = time
        options.error = &self.error
        if seed is not None:
            options.seed = <const char *>seed
            options.seed_size = <size_t>len(seed)
        path_text = wide(self.directory)
        cdef const cimfs_wchar *path = <const cimfs_wchar *><const char *>path_text
        if existing_name is not None:
            existing_text = wide(existing_name)
            existing = <const cimfs_wchar *><const char *>existing_text
        if new_name is not None:
            new_text = wide(new_name)
            new = <const cimfs_wchar *><const char *>new_text
        with nogil:
            if flags:
                code = self.api.create_image2(path, flags, existing, new, &image)
            elif self.api.create_image_with != NULL:
                code = self.api.create_image_with(path, existing, new, &options, &image)
            else:
                code = self.api.create_image(path, existing, new, &image)
        self.check(code, "create image", self.name)
        self.image = image  # whoever finds the object before takes it for a closed one

    def __dealloc__(self):
        if not self.is_closed():
            self.api.close_image(self.image)
            self.image = NULL

    cdef bint is_closed(self) noexcept:
        """A forked process has no part in it: its copy must not remove what the other one still writes."""
        return self.image == NULL or self.forks != forks

    cdef int check_open(self) except -1:
        if self.is_closed():
            raise ValueError("the image is closed" if self.image == NULL else "the image is another process's")
        return 0

    cdef int enter(self) except -1:
        """Begin a call, of which there may be one: Python code may run at any time in it."""
        self.check_open()
        check_idle(self.busy, self.name, "image")
        self.busy += 1
        return 0

    cdef void leave(self) noexcept:
        self.busy -= 1

    cdef int check(self, cimfs_hresult code, str operation, str path) except -1:
        if code < 0:
            raise error_for(code, &self.error, operation, path)
        return 0

    @property
    def implementation(self):
        """Which filling of the function table this image uses: ``portable`` or ``system``."""
        return self.calls.name

    def __repr__(self):
        state = "closed " if self.is_closed() else ""
        return f"<{state}cimlayer.ImageWriter {self.name!r} in {self.directory!r}>"

    @property
    def closed(self):
        """Whether the image was closed, or belongs to the process that this one was forked from."""
        return self.is_closed()

    def write_behind(self):
        """From now on, let threads of the library's own write to the disk what others hand over meanwhile.

        Each of the image's files has one, once it has grown to some MiB. What they cannot write is raised by a later
        call, at the latest by :meth:`commit`. The system's library knows nothing of it: there this does nothing.
        """
        cdef cimfs_hresult code
        self.enter()
        try:
            self.end_stream()
            if self.api.write_behind != NULL:
                code = self.api.write_behind(self.image)
                self.check(code, "write behind", self.name)
        finally:
            self.leave()

    def create_file(self, path, *, uint32_t attributes=0, uint64_t size=0, int64_t creation_time=0,
                    int64_t last_write_time=0, int64_t change_time=0, int64_t last_access_time=0,
                    security_descriptor=b"", reparse_data=b"", extended_attributes=b""):
        """Add a file or directory and open its default stream for :meth:`write`.

        ``attributes`` are FILE_ATTRIBUTE bits, times are FILETIMEs (100 ns since 1601), ``size`` is in bytes: all of
        them are written before the stream is closed, or none, for a sparse file that reads as zeros. The buffers are a
        self-relative descriptor (none: the one whose DACL is null), a REPARSE_DATA_BUFFER and a
        FILE_FULL_EA_INFORMATION list. An open stream is closed first.
        """
        cdef cimfs_file_metadata metadata
        cdef cimfs_hresult code
        cdef const unsigned char[::1] sd = security_descriptor
        cdef const unsigned char[::1] reparse = reparse_data
        cdef const unsigned char[::1] ea = extended_attributes
        cdef bytes text
        cdef const cimfs_wchar *units
        path = separated(path)
        if size > <uint64_t>INT64_MAX:
            raise OverflowError("a file size has at most 63 bits")
        memset(&metadata, 0, sizeof(metadata))
        metadata.attributes = attributes
        metadata.file_size = <int64_t>size
        metadata.creation_time = creation_time
        metadata.last_write_time = last_write_time
        metadata.change_time = change_time
        metadata.last_access_time = last_access_time
        metadata.security_descriptor = CIMFS_NULL_DACL
        metadata.security_descriptor_size = sizeof(CIMFS_NULL_DACL)
        if sd.shape[0]:
            metadata.security_descriptor = &sd[0]
            metadata.security_descriptor_size = <uint32_t>min(sd.shape[0], 0xFFFFFFFF)
        if reparse.shape[0]:
            metadata.reparse_data = &reparse[0]
            metadata.reparse_data_size = <uint32_t>min(reparse.shape[0], 0xFFFFFFFF)
        if ea.shape[0]:
            metadata.ea = &ea[0]
            metadata.ea_size = <uint32_t>min(ea.shape[0], 0xFFFFFFFF)
        self.enter()
        try:
            self.end_stream()
            text = wide(path)
            units = <const cimfs_wchar *><const char *>text
            with nogil:
                code = self.api.create_file(self.image, units, &metadata, &self.stream)
            self.check(code, "create file", path)
            self.streaming_path = path
        finally:
            self.leave()

    def create_alternate_stream(self, path, uint64_t size):
        """Add the stream ``path:name`` (or ``path:name:$DATA``) of ``size`` bytes and open it for :meth:`write`."""
        cdef cimfs_hresult code
        cdef bytes text
        cdef const cimfs_wchar *units
        path = separated(path)
        self.enter()
        try:
            self.end_stream()
            text = wide(path)
            units = <const cimfs_wchar *><const char *>text
            with nogil:
                code = self.api.create_alternate_stream(self.image, units, size, &self.stream)
            self.check(code, "create alternate stream", path)
            self.streaming_path = path
        finally:
            self.leave()

    def write(self, data not None):
        """Append bytes to the stream that was opened last; returns their number."""
        cdef const unsigned char[::1] view = data
        cdef const unsigned char *at
        cdef size_t left = <size_t>view.shape[0]
        cdef uint32_t count
        cdef cimfs_hresult code = CIMFS_OK
        self.enter()
        try:
            if self.stream == NULL:
                raise ValueError("no stream is open for writing")
            if left == 0:
                return 0
            at = &view[0]
            with nogil:
                while left > 0 and code >= 0:
                    count = <uint32_t>left if left < 0x40000000 else 0x40000000
                    code = self.api.write_stream(self.stream, at, count)
                    at += count
                    left -= count
            self.check(code, "write", self.streaming_path)
            return view.shape[0]
        finally:
            self.leave()

    cdef int end_stream(self) except -1:
        """Finish the open stream, if there is one; for callers that have entered."""
        cdef cimfs_hresult code
        cdef cimfs_stream stream = self.stream
        if stream == NULL:
            return 0
        self.stream = NULL
        with nogil:
            code = cimfs_close_stream(self.api, stream)
        return self.check(code, "close stream", self.streaming_path)

    def close_stream(self):
        """Finish the open stream, if there is one.

        StreamEndError if it got fewer bytes than its size, but some: the image can be committed no more, and
        :meth:`commit` says the same.
        """
        self.enter()
        try:
            self.end_stream()
        finally:
            self.leave()

    cdef int change_path(self, path_call call, str path, str operation) except -1:
        cdef cimfs_hresult code
        cdef bytes text
        cdef const cimfs_wchar *units
        self.end_stream()
        text = wide(path)
        units = <const cimfs_wchar *><const char *>text
        with nogil:
            code = call(self.image, units)
        return self.check(code, operation, path)

    cdef int change_link(self, link_call call, str new_path, str existing_path, str operation) except -1:
        cdef cimfs_hresult code
        cdef bytes new_text, existing_text
        cdef const cimfs_wchar *new
        cdef const cimfs_wchar *existing
        self.end_stream()
        new_text = wide(new_path)
        existing_text = wide(existing_path)
        new = <const cimfs_wchar *><const char *>new_text
        existing = <const cimfs_wchar *><const char *>existing_text
        with nogil:
            code = call(self.image, new, existing)
        return self.check(code, operation, new_path)

    def create_hard_link(self, new_path, existing_path):
        """Give an existing file one more name; a file that has that name already is replaced."""
        new_path, existing_path = separated(new_path), separated(existing_path)
        self.enter()
        try:
            self.change_link(self.api.create_hard_link, new_path, existing_path, f"link to {existing_path}")
        finally:
            self.leave()

    def delete_path(self, path):
        """Remove a file, a link, a stream, or a directory with all that it holds."""
        path = separated(path)
        self.enter()
        try:
            self.change_path(self.api.delete_path, path, "delete")
        finally:
            self.leave()

    def tombstone(self, path):
        """Hide a path that the images below have, once this one is merged with them (CimTombstoneFile)."""
        path = separated(path)
        self.enter()
        try:
            self.calls.require(self.api.tombstone_file != NULL, "CimTombstoneFile", path)
            self.change_path(self.api.tombstone_file, path, "tombstone")
        finally:
            self.leave()

    def create_merge_link(self, new_path, existing_path):
        """A hard link whose target may lie in an image below; it is looked up when they are merged."""
        new_path, existing_path = separated(new_path), separated(existing_path)
        self.enter()
        try:
            self.calls.require(self.api.create_merge_link != NULL, "CimCreateMergeLink", new_path)
            self.change_link(self.api.create_merge_link, new_path, existing_path, f"merge link to {existing_path}")
        finally:
            self.leave()

    def add_to_merged_image(self, image_path, *, uint32_t flags=0):
        """Add one of the images that this one merges: the topmost first, the base last.

        ``flags`` are those of CimAddFsToMergedImage2; without any CimAddFsToMergedImage is called.
        """
        cdef cimfs_hresult code
        cdef bytes text
        cdef const cimfs_wchar *units
        cdef str path = os.fsdecode(image_path)
        self.enter()
        try:
            if not flags:
                self.calls.require(self.api.add_to_merged_image != NULL, "CimAddFsToMergedImage", path)
                self.change_path(self.api.add_to_merged_image, path, "add to merged image")
                return
            self.calls.require(self.api.add_to_merged_image2 != NULL, "CimAddFsToMergedImage2", path)
            self.end_stream()
            text = wide(path)
            units = <const cimfs_wchar *><const char *>text
            with nogil:
                code = self.api.add_to_merged_image2(self.image, units, flags)
            self.check(code, "add to merged image", path)
        finally:
            self.leave()

    def commit(self):
        """Make the image; only :meth:`close` is allowed afterwards."""
        cdef cimfs_hresult code
        self.enter()
        try:
            self.end_stream()
            with nogil:
                code = self.api.commit_image(self.image)
            self.check(code, "commit", self.name)
            self.committed = True
        finally:
            self.leave()

    def close(self):
        """Release the image; if it was not committed, it leaves nothing behind. Closing twice is fine.

        RuntimeError while another call is under way: the image stays open.
        """
        cdef cimfs_image image = self.image
        if self.is_closed():
            return
        check_idle(self.busy, self.name, "image")
        self.image = NULL
        self.stream = NULL
        with nogil:
            self.api.close_image(image)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


show_as(ImageWriter, "cimlayer", "cimlayer.ImageWriter")
