"""A layer tar into an image, at the speed of memory: Python sees only the entries that need policy."""

import os

from cimfs_ext import errors

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc

from cimfs_ext.cimfs cimport (
    CIMFS_E_FAIL,
    CIMFS_E_INVALID_ARG,
    cimfs_api,
    cimfs_file_metadata,
    cimfs_hresult,
    cimfs_image,
)
from cimfs_ext.image cimport ImageWriter, error_for, wide


cdef extern from "liblayer/importer.h" nogil:
    const unsigned int LAYER_MAX_STANDARD

    struct layer_slice:
        const char *data
        size_t size

    struct layer_entry:
        uint64_t offset
        layer_slice name
        layer_slice sddl

    struct layer_tar:
        uint64_t offset
        uint64_t entry_offset
        const char *reason
        layer_entry entry

    struct layer_wide:
        uint16_t *units
        size_t length

    struct layer_path_set:
        uint64_t seed

    struct layer_limits:
        uint64_t files
        uint64_t bytes
        uint64_t path_depth

    enum layer_limit:
        LAYER_LIMIT_FILES
        LAYER_LIMIT_BYTES
        LAYER_LIMIT_PATH_DEPTH

    struct layer_importer:
        int64_t time
        int has_parent
        int no_whiteouts
        layer_limits limits
        layer_tar tar
        const char *reason
        cimfs_hresult code
        layer_limit limit
        layer_wide path
        layer_wide target
        cimfs_file_metadata metadata
        uint64_t file_bytes
        uint64_t entries
        int utility_vm
        layer_path_set added
        layer_path_set linked
        layer_path_set above_linked

    enum layer_import_event:
        LAYER_IMPORT_NEED_INPUT
        LAYER_IMPORT_END
        LAYER_IMPORT_SDDL
        LAYER_IMPORT_WHITEOUT
        LAYER_IMPORT_OPAQUE
        LAYER_IMPORT_STANDARD_FILE
        LAYER_IMPORT_STANDARD_DATA
        LAYER_IMPORT_STANDARD_END
        LAYER_IMPORT_STANDARD_LINK
        LAYER_IMPORT_BAD_ENTRY
        LAYER_IMPORT_BAD_ARCHIVE
        LAYER_IMPORT_LIMIT
        LAYER_IMPORT_FAILED

    int layer_importer_init(layer_importer *, const cimfs_api *, cimfs_image, const uint16_t **, size_t)
    void layer_importer_cleanup(layer_importer *)
    layer_import_event layer_importer_next(layer_importer *, const uint8_t **, size_t *, layer_slice *)
    int layer_importer_descriptor(layer_importer *, const uint8_t *, size_t)
    layer_import_event layer_importer_finish(layer_importer *)
    int layer_path_set_has(const layer_path_set *, const uint16_t *, size_t)
    int layer_path_set_describes(const layer_path_set *, const uint16_t *, size_t)


cdef enum:
    NO_LIMIT = 0xFFFFFFFFFFFFFFFF


cdef bytes blob(const void *data, size_t size):
    return (<const char *>data)[:size] if size else b""


cdef str path_of(const layer_wide *path):
    return blob(path.units, path.length * 2).decode("utf-16-le", "surrogatepass")


cdef class LayerImporter:
    """Feeds the bytes of one uncompressed layer tar to an image.

    ``handler`` gets what needs policy, as calls of these methods (paths are relative, with backslashes):

    - ``descriptor_from_sddl(text) -> bytes``
    - ``whiteout(path)`` and ``opaque_whiteout(directory)``
    - ``begin_standard_file(path, size, attributes, times, security_descriptor, extended_attributes)``, then
      ``standard_data(memoryview)`` for each piece, then ``end_standard_file()``; ``times`` are the creation, last
      write, change and last access FILETIME
    - ``link_to_standard_file(path, target)``

    ``standard_files`` are the paths, at most 64, that are not written to the image at once; ``time`` is the FILETIME
    of directories that no entry describes; without ``whiteouts``, their names are names like any other; ``max_files``,
    ``max_bytes`` and ``max_path_depth`` are those of ``cimlayer.Limits``, and beyond them is a
    :class:`~cimfs_ext.errors.LimitError`. A malformed tar or entry is a
    :class:`~cimfs_ext.errors.FormatError` with the entry's name and its offset in the tar, a failing image an
    :class:`~cimfs_ext.errors.ImageError`. Not thread safe.
    """

    cdef layer_importer importer
    cdef const uint16_t **standard
    cdef list standard_texts
    cdef ImageWriter writer
    cdef object handler
    cdef bint ended

    def __cinit__(self, ImageWriter writer not None, handler, standard_files, *, int64_t time=0, bint has_parent=False,
                  bint whiteouts=True,
                  uint64_t max_files=NO_LIMIT, uint64_t max_bytes=NO_LIMIT, uint64_t max_path_depth=NO_LIMIT):
        writer.check_open()
        self.writer = writer
        self.handler = handler
        if len(standard_files) > LAYER_MAX_STANDARD:
            raise ValueError(f"at most {LAYER_MAX_STANDARD} standard files")
        self.standard_texts = [wide(name.upper()) for name in standard_files]
        self.standard = <const uint16_t **>malloc((len(self.standard_texts) + 1) * sizeof(uint16_t *))
        if self.standard == NULL:
            raise MemoryError
        for i, text in enumerate(self.standard_texts):
            self.standard[<size_t>i] = <const uint16_t *><const char *>(<bytes>text)
        if layer_importer_init(&self.importer, writer.api, writer.image, self.standard,
                               <size_t>len(self.standard_texts)) < 0:
            raise MemoryError
        self.importer.time = time
        self.importer.has_parent = has_parent
        self.importer.no_whiteouts = not whiteouts
        self.importer.limits = layer_limits(max_files, max_bytes, max_path_depth)
        self.importer.added.seed = int.from_bytes(os.urandom(8), "little")
        self.importer.linked.seed = self.importer.above_linked.seed = self.importer.added.seed

    def __dealloc__(self):
        layer_importer_cleanup(&self.importer)
        free(self.standard)

    @property
    def file_bytes(self):
        """Sum of the sizes of the files so far, in bytes; streams and links not counted."""
        return self.importer.file_bytes

    @property
    def entries(self):
        """Number of tar entries so far."""
        return self.importer.entries

    @property
    def offset(self):
        """Bytes of the tar taken so far."""
        return self.importer.tar.offset

    @property
    def has_utility_vm(self):
        """Whether an entry at or below ``UtilityVM`` was seen."""
        return bool(self.importer.utility_vm)

    def was_added(self, str path):
        """Whether this layer has added the path or something below it."""
        cdef bytes units = wide(path)
        return bool(layer_path_set_has(&self.importer.added, <const uint16_t *><const char *>units,
                                       <size_t>(len(units) // 2 - 1)))

    def was_described(self, str path):
        """Whether an entry of this layer was about the path itself."""
        cdef bytes units = wide(path)
        return bool(layer_path_set_describes(&self.importer.added, <const uint16_t *><const char *>units,
                                             <size_t>(len(units) // 2 - 1)))

    def feed(self, data):
        """Take the next bytes of the tar. Returns whether the archive has ended: what follows is ignored."""
        cdef const unsigned char[::1] view = data
        cdef const uint8_t *at
        cdef size_t left = <size_t>view.shape[0]
        cdef layer_import_event event
        cdef layer_slice piece
        self.writer.check_open()
        if self.ended or left == 0:
            return self.ended
        at = &view[0]
        while True:
            with nogil:
                event = layer_importer_next(&self.importer, &at, &left, &piece)
            if event == LAYER_IMPORT_NEED_INPUT:
                return False
            if event == LAYER_IMPORT_END:
                self.ended = True
                return True
            self.handle(event, &piece)
            self.writer.check_open()

    def finish(self):
        """Say that the tar has ended; FormatError if it was cut inside an entry."""
        cdef layer_slice piece
        cdef layer_import_event event = layer_importer_finish(&self.importer)
        if event != LAYER_IMPORT_END:
            self.handle(event, &piece)

    cdef int handle(self, layer_import_event event, const layer_slice *piece) except -1:
        if event >= LAYER_IMPORT_BAD_ENTRY:
            raise self.error(event)
        try:
            return self.ask(event, piece)
        except BaseException:
            self.importer.code = CIMFS_E_FAIL  # what was refused is not gone on with
            raise

    cdef int ask(self, layer_import_event event, const layer_slice *piece) except -1:
        cdef const cimfs_file_metadata *metadata = &self.importer.metadata
        if event == LAYER_IMPORT_SDDL:
            self.answer_sddl()
        elif event == LAYER_IMPORT_STANDARD_DATA:
            self.handler.standard_data(memoryview(blob(piece.data, piece.size)))
        elif event == LAYER_IMPORT_STANDARD_END:
            self.handler.end_standard_file()
        elif event == LAYER_IMPORT_WHITEOUT:
            self.handler.whiteout(path_of(&self.importer.path))
        elif event == LAYER_IMPORT_OPAQUE:
            self.handler.opaque_whiteout(path_of(&self.importer.path))
        elif event == LAYER_IMPORT_STANDARD_LINK:
            self.handler.link_to_standard_file(path_of(&self.importer.path), path_of(&self.importer.target))
        elif event == LAYER_IMPORT_STANDARD_FILE:
            self.handler.begin_standard_file(
                path_of(&self.importer.path), metadata.file_size, metadata.attributes,
                (metadata.creation_time, metadata.last_write_time, metadata.change_time, metadata.last_access_time),
                blob(metadata.security_descriptor, metadata.security_descriptor_size),
                blob(metadata.ea, metadata.ea_size))
        return 0

    cdef int answer_sddl(self) except -1:
        text = self.importer.tar.entry.sddl
        try:
            descriptor = self.handler.descriptor_from_sddl(blob(text.data, text.size).decode("utf-8"))
        except ValueError as error:
            raise errors.FormatError(f"a descriptor in SDDL that cannot be used: {error}", self.entry_name(),
                                     self.importer.tar.entry.offset) from error
        cdef const unsigned char[::1] view = descriptor
        if layer_importer_descriptor(&self.importer, &view[0], <size_t>view.shape[0]) < 0:
            raise MemoryError
        return 0

    cdef str entry_name(self):
        cdef layer_slice name = self.importer.tar.entry.name
        return blob(name.data, name.size).decode("utf-8", "backslashreplace")

    cdef object limit_error(self):
        cdef const layer_limits *limits = &self.importer.limits
        name, value = {
            LAYER_LIMIT_FILES: ("files", limits.files),
            LAYER_LIMIT_BYTES: ("bytes", limits.bytes),
            LAYER_LIMIT_PATH_DEPTH: ("path_depth", limits.path_depth),
        }[self.importer.limit]
        return errors.LimitError(name, value, self.entry_name(), self.importer.tar.entry.offset)

    cdef object error(self, layer_import_event event):
        cdef const layer_tar *tar = &self.importer.tar
        cdef cimfs_hresult code = self.importer.code
        if event == LAYER_IMPORT_BAD_ARCHIVE:
            known = tar.entry_offset == tar.entry.offset and tar.entry.name.data != NULL
            return errors.malformed(tar.reason.decode(), self.entry_name() if known else "tar",
                                    tar.offset if tar.entry_offset == <uint64_t>-1 else tar.entry_offset)
        if event == LAYER_IMPORT_LIMIT:
            return self.limit_error()
        if event == LAYER_IMPORT_BAD_ENTRY:
            return errors.malformed(self.importer.reason.decode(), self.entry_name(), tar.entry.offset)
        if code == CIMFS_E_INVALID_ARG and self.writer.error.reason != NULL:
            return errors.FormatError(self.writer.error.reason.decode(), self.entry_name(), tar.entry.offset)
        return error_for(code, &self.writer.error, "import", path_of(&self.importer.path))
