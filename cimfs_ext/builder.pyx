"""The rules of a layer, for whoever brings its items by calls: what belongs in the image, what waits outside it."""

import os

cimport cython

from cimfs_ext import errors

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from cimfs_ext.cimfs cimport CIMFS_E_INVALID_ARG, cimfs_file_metadata
from cimfs_ext.guard cimport check_idle
from cimfs_ext.image cimport ImageWriter, error_for, wide


cdef class Guard:
    """Lets one call at a time into an object: ``with guard:`` raises RuntimeError while another one is in it.

    That other call may be another thread's, or be interrupted by this one: a signal handler, a finalizer, a callback.
    """

    cdef bint taken
    cdef str name
    cdef str kind

    def __cinit__(self, str name not None, str kind not None):
        self.name = name
        self.kind = kind

    def __enter__(self):
        check_idle(self.taken, self.name, self.kind)
        self.taken = True

    def __exit__(self, *exc_info):
        self.taken = False


cdef str path_of(const layer_path *path):
    return (<const char *>path.units)[:path.length * 2].decode("utf-16-le", "surrogatepass") if path.length else ""


@cython.no_gc_clear
cdef class LayerBuilder:
    """Decides on the items of one layer, and makes in the image what belongs there (hcsshim, internal/wclayer/cim).

    Paths are taken with backslashes or slashes, and given back in their canonical form: relative, with one backslash
    between components. ``standard_files`` are the paths, at most 64, of files that are kept outside the image until
    the layer is closed; ``time`` is the FILETIME of directories that no item describes; ``has_parent`` says whether
    there is anything below to be hidden; ``descriptor``, self-relative, is that of what has none, by default the one
    whose DACL is null. ``max_files``, ``max_bytes`` and ``max_path_depth`` are those of
    ``cimlayer.Limits``.

    An item that is refused is a :class:`~cimfs_ext.errors.FormatError`, and leaves the builder as it was; a failing
    image is an :class:`~cimfs_ext.errors.ImageError`. Any thread may call anything at any time: while a call is at work
    on the image, others get RuntimeError.
    """

    def __cinit__(self, ImageWriter image not None, standard_files=(), *, int64_t time=0, bint has_parent=False,
                  bytes descriptor=b"", uint64_t max_files=0xFFFFFFFFFFFFFFFF, uint64_t max_bytes=0xFFFFFFFFFFFFFFFF,
                  uint64_t max_path_depth=0xFFFFFFFFFFFFFFFF):
        self.image = image
        image.check_open()
        self.standard_texts = [wide(name.upper()) for name in standard_files]
        if len(self.standard_texts) > LAYER_MAX_STANDARD:
            raise ValueError(f"at most {LAYER_MAX_STANDARD} standard files")
        self.standard = <const uint16_t **>malloc((len(self.standard_texts) + 1) * sizeof(uint16_t *))
        if self.standard == NULL:
            raise MemoryError
        for i, text in enumerate(self.standard_texts):
            self.standard[<size_t>i] = <const uint16_t *><const char *>(<bytes>text)
        if (layer_builder_init(&self.builder, image.api, image.image, &image.stream, self.standard,
                               <size_t>len(self.standard_texts)) < 0
                or layer_path_init(&self.path) < 0 or layer_path_init(&self.target) < 0):
            raise MemoryError
        self.builder.time = time
        self.builder.limits = layer_limits(max_files, max_bytes, max_path_depth)
        self.builder.has_parent = has_parent
        self.descriptor = descriptor
        if descriptor:
            self.builder.descriptor = <const char *>self.descriptor
            self.builder.descriptor_size = <size_t>len(descriptor)
        self.builder.added.seed = int.from_bytes(os.urandom(8), "little")
        self.builder.linked.seed = self.builder.above_linked.seed = self.builder.added.seed

    def __dealloc__(self):
        layer_builder_cleanup(&self.builder)
        layer_path_cleanup(&self.path)
        layer_path_cleanup(&self.target)
        free(self.standard)

    @property
    def has_utility_vm(self):
        """Whether the layer has a directory ``UtilityVM``, or something below it."""
        return bool(self.builder.utility_vm)

    def count(self, str path not None, uint64_t size):
        """One more item that claims so many bytes; LimitError if that is beyond a limit. To be called before the item."""
        self.enter()
        try:
            self.take(path, &self.path)
            self.check(layer_builder_count(&self.builder, &self.path, size), "add", path)
        finally:
            self.leave()

    def add(self, str path not None, uint32_t attributes):
        """Decide on a file, a directory, or with REPARSE_POINT a symbolic link: its path, and whether it goes outside.

        What goes into the image is made there by :meth:`create`, once its metadata is known. None stands for the root
        directory, which is there already.
        """
        cdef layer_decision decision
        self.enter()
        try:
            self.take(path, &self.path)
            decision = layer_builder_add(&self.builder, &self.path, attributes)
            self.check(decision, "add", path)
            return None if decision == LAYER_ROOT else (path_of(&self.path), decision == LAYER_OUTSIDE)
        finally:
            self.leave()

    def link(self, str path not None, str target not None):
        """Decide on a hard link: its path, its target, and whether it waits outside with what it is a link to.

        What goes into the image is made there by :meth:`make_link`.
        """
        cdef layer_decision decision
        self.enter()
        try:
            self.take(path, &self.path)
            self.take_target(target, path)
            decision = layer_builder_link(&self.builder, &self.path, &self.target)
            self.check(decision, "link", path)
            return path_of(&self.path), path_of(&self.target), decision == LAYER_OUTSIDE
        finally:
            self.leave()

    def remove(self, str path not None, *, bint contents=False):
        """Decide on a removal of what the parents have at a path, or with ``contents`` in a directory: its path."""
        self.enter()
        try:
            self.take(path, &self.path)
            self.check(layer_builder_remove(&self.builder, &self.path, contents), "remove", path)
            return path_of(&self.path)
        finally:
            self.leave()

    def add_stream(self, str path not None, uint64_t size):
        """Make the alternate stream ``path:name`` of ``size`` bytes; it is then the image's open stream."""
        cdef layer_decision decision
        self.enter()
        try:
            self.take(path, &self.path)
            with nogil:
                decision = layer_builder_stream(&self.builder, &self.path, size)
            self.check(decision, "create alternate stream", path)
            self.image.streaming_path = path
        finally:
            self.leave()

    def create(self, str path not None, info, size, attachments):
        """Make a file or directory in the image, and what is missing above it; it is then the image's open stream.

        ``info`` has what a FileBasicInfo has, ``attachments`` a descriptor (empty: the one whose DACL is null), an EA
        and a reparse buffer; ``size`` is in bytes.
        """
        cdef layer_decision decision
        cdef cimfs_file_metadata metadata
        cdef bytes descriptor = bytes(attachments.security_descriptor)
        cdef bytes ea = bytes(attachments.extended_attributes)
        cdef bytes reparse = bytes(attachments.reparse_data)
        metadata.attributes = info.file_attributes
        metadata.file_size = size
        metadata.creation_time = info.creation_time
        metadata.last_write_time = info.last_write_time
        metadata.change_time = info.change_time
        metadata.last_access_time = info.last_access_time
        metadata.security_descriptor = <const char *>descriptor
        metadata.security_descriptor_size = <uint32_t>min(len(descriptor), 0xFFFFFFFF)
        metadata.ea = <const char *>ea
        metadata.ea_size = <uint32_t>min(len(ea), 0xFFFFFFFF)
        metadata.reparse_data = <const char *>reparse
        metadata.reparse_data_size = <uint32_t>min(len(reparse), 0xFFFFFFFF)
        self.enter()
        try:
            self.take(path, &self.path)
            with nogil:
                decision = layer_builder_check_descriptor(&self.builder, metadata.security_descriptor,
                                                          metadata.security_descriptor_size)
                if decision == LAYER_INSIDE:
                    decision = layer_builder_create(&self.builder, &self.path, &metadata)
            self.check(decision, "create file", path)
            self.image.streaming_path = path
        finally:
            self.leave()

    def make_link(self, str path not None, str target not None):
        """Give a file of the image one more name, in a directory that is made if it is missing."""
        cdef layer_decision decision
        self.enter()
        try:
            self.take(path, &self.path)
            self.take_target(target, path)
            with nogil:
                decision = layer_builder_make_link(&self.builder, &self.path, &self.target)
            self.check(decision, f"link to {target}", path)
        finally:
            self.leave()

    def check_descriptor(self, str path not None, bytes descriptor not None):
        """FormatError if a self-relative descriptor is malformed."""
        self.enter()
        try:
            self.check(layer_builder_check_descriptor(&self.builder, <const char *>descriptor,
                                                      <size_t>len(descriptor)), "add", path)
        finally:
            self.leave()

    def was_added(self, str path not None):
        """Whether this layer has added the path or something below it; always false without a parent."""
        self.enter()
        try:
            self.take(path, &self.path)
            return bool(layer_path_set_has(&self.builder.added, self.path.units, self.path.length))
        finally:
            self.leave()

    def was_described(self, str path not None):
        """Whether an item of this layer was about the path itself; always false without a parent."""
        self.enter()
        try:
            self.take(path, &self.path)
            return bool(layer_path_set_describes(&self.builder.added, self.path.units, self.path.length))
        finally:
            self.leave()

    cdef int enter(self) except -1:
        """Begin a call on the image, which is then open until :meth:`leave`, and nobody else's."""
        self.image.check_open()
        self.image.enter()
        return 0

    cdef void leave(self) noexcept:
        self.image.leave()

    cdef int take(self, str text, layer_path *path) except -1:
        cdef bytes units = text.encode("utf-16-le", "surrogatepass")
        cdef const char *reason = layer_path_from_call(
            path, <const uint16_t *><const char *>units, <size_t>(len(units) // 2))
        if reason != NULL:
            raise errors.FormatError(reason.decode(), text)
        return 0

    cdef int take_target(self, str target, str path) except -1:
        try:
            return self.take(target, &self.target)
        except errors.FormatError as error:
            raise errors.FormatError(error.reason, path) from None

    cdef int check(self, layer_decision decision, str operation, str path) except -1:
        if decision >= LAYER_REFUSED:
            raise self.error(decision, operation, path, path)
        return 0

    cdef object error(self, layer_decision decision, str operation, str path, str item="", offset=None):
        """The exception for what was decided; ``item`` and ``offset`` are how the layer's source names the item."""
        cdef const layer_limits *limits = &self.builder.limits
        cdef const char *reason = self.builder.reason
        if decision == LAYER_BEYOND:
            name, value = {
                LAYER_LIMIT_FILES: ("files", limits.files),
                LAYER_LIMIT_BYTES: ("bytes", limits.bytes),
                LAYER_LIMIT_PATH_DEPTH: ("path_depth", limits.path_depth),
            }[self.builder.limit]
            return errors.LimitError(name, value, item, offset)
        if decision == LAYER_FAILED:
            reason = self.image.error.reason if self.builder.code == CIMFS_E_INVALID_ARG else NULL
        if reason == NULL:
            return error_for(self.builder.code, &self.image.error, operation, path)
        return errors.malformed(reason.decode(), item, offset)
