"""A layer tar into an image, at the speed of memory: Python sees only the entries that need policy."""

cimport cython

from cimfs_ext import errors

from libc.stdint cimport intptr_t, uint8_t, uint64_t

from cimfs_ext.builder cimport (
    LAYER_BEYOND,
    LAYER_FAILED,
    LAYER_REFUSED,
    LayerBuilder,
    layer_builder,
    layer_limits,
    layer_path,
    path_of,
)
from cimfs_ext.cimfs cimport CIMFS_E_FAIL, cimfs_file_metadata
from cimfs_ext.guard cimport check_idle


cdef extern from "liblayer/importer.h" nogil:
    struct layer_slice:
        const char *data
        size_t size

    struct layer_entry:
        uint64_t offset
        int type
        const char *other
        layer_slice name
        layer_slice link
        layer_slice sddl

    enum:
        LAYER_DIRECTORY
        LAYER_HARD_LINK

    struct layer_tar:
        int specials
        uint64_t offset
        uint64_t entry_offset
        const char *reason
        layer_entry entry

    enum layer_import_event:
        LAYER_IMPORT_NEED_INPUT
        LAYER_IMPORT_END
        LAYER_IMPORT_PLACE
        LAYER_IMPORT_SDDL
        LAYER_IMPORT_WHITEOUT
        LAYER_IMPORT_OPAQUE
        LAYER_IMPORT_STANDARD_FILE
        LAYER_IMPORT_STANDARD_DATA
        LAYER_IMPORT_STANDARD_HOLE
        LAYER_IMPORT_STANDARD_END
        LAYER_IMPORT_STANDARD_LINK
        LAYER_IMPORT_ALIGNED
        LAYER_IMPORT_PASSED_OVER
        LAYER_IMPORT_PAUSE
        LAYER_IMPORT_BAD_ENTRY
        LAYER_IMPORT_BAD_ARCHIVE
        LAYER_IMPORT_LIMIT
        LAYER_IMPORT_FAILED

    struct layer_importer:
        int plain
        int asks_aligned
        layer_tar tar
        layer_import_event error
        layer_path path
        layer_path target
        const char *unsuitable
        cimfs_file_metadata metadata
        uint64_t file_bytes
        uint64_t entries

    int layer_importer_init(layer_importer *, layer_builder *)
    void layer_importer_cleanup(layer_importer *)
    layer_import_event layer_importer_next(layer_importer *, const uint8_t **, size_t *, layer_slice *)
    void layer_importer_place(layer_importer *, int)
    int layer_importer_descriptor(layer_importer *, const uint8_t *, size_t)
    layer_import_event layer_importer_finish(layer_importer *)
    void *layer_importer_room(const layer_importer *, size_t *)


cdef extern from "hosterror.h":
    int raise_host_error(int, object) except -1

cdef extern from "liblayer/hostfile.h" nogil:
    int layer_host_read(intptr_t, void *, size_t, uint64_t, size_t *)


cdef enum:
    NO_LIMIT = 0xFFFFFFFFFFFFFFFF


cdef str shown(layer_slice text):
    return blob(text.data, text.size).decode("utf-8", "backslashreplace")


cdef bint is_utf8(layer_slice text):
    try:
        blob(text.data, text.size).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


cdef bytes blob(const void *data, size_t size):
    return (<const char *>data)[:size] if size else b""


@cython.no_gc_clear
cdef class LayerImporter:
    """Feeds the bytes of one uncompressed layer tar to a layer builder, or to an image that has none.

    ``handler`` gets what needs policy, as calls of these methods (paths are relative, with backslashes):

    - ``descriptor_from_sddl(text) -> bytes``
    - ``whiteout(path)`` and ``opaque_whiteout(directory)``
    - ``begin_standard_file(path, size, attributes, times, security_descriptor, extended_attributes)``, then
      ``standard_data(memoryview)`` for each piece and ``standard_hole(size)`` for each run of zeros, then
      ``end_standard_file()``; ``times`` are the creation, last write, change and last access FILETIME
    - ``link_to_standard_file(path, target)``
    - ``aligned_file(path, offset)``, if there is such a method: the content of a file of 64 KiB or more begins at
      that offset in the tar, a multiple of 4,096
    - ``passed_over(name, what)``: an entry that has no place in an image
    - ``pause()``, now and then while the zeros of a large hole are written: what it raises ends the import

    For an image, ``options`` are those of :class:`~cimfs_ext.builder.LayerBuilder`. The tar of one that is ``plain``,
    not of a layer, has no whiteouts: their names are names like any other, and ``handler`` is asked where entries go:

    - ``place(path, directory, name, offset, unsuitable) -> str | None``: None leaves it out; ``path`` is empty, and
      ``unsuitable`` says why, if the entry can have no place
    - ``place_of(path) -> str``: where the target of a hard link went

    ``max_files``, ``max_bytes`` and
    ``max_path_depth`` are those of ``cimlayer.Limits``, and beyond them is a
    :class:`~cimlayer.LimitError`. A malformed tar or entry is a :class:`~cimlayer.FormatError` with the
    entry's name and its offset in the tar, a failing image an :class:`~cimlayer.ImageError`.

    Any thread may call anything at any time. :meth:`feed` and :meth:`finish` raise RuntimeError while one of them is at
    work, also when the handler calls them; what they write to cannot be closed or written to by others meanwhile,
    except by the handler.
    """

    cdef layer_importer importer
    cdef LayerBuilder builder
    cdef object handler
    cdef bint ended
    cdef bint feeding

    def __cinit__(self, target not None, handler, standard_files=(), *, bint plain=False,
                  uint64_t max_files=NO_LIMIT, uint64_t max_bytes=NO_LIMIT, uint64_t max_path_depth=NO_LIMIT,
                  **options):
        self.builder = target if isinstance(target, LayerBuilder) else LayerBuilder(target, standard_files, **options)
        self.handler = handler
        if layer_importer_init(&self.importer, &self.builder.builder) < 0:
            raise MemoryError
        self.importer.plain = self.importer.tar.specials = plain
        self.importer.asks_aligned = hasattr(handler, "aligned_file")
        self.builder.builder.limits = layer_limits(max_files, max_bytes, max_path_depth)

    def __dealloc__(self):
        layer_importer_cleanup(&self.importer)

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

    def feed(self, data):
        """Take the next bytes of the tar. Returns whether the archive has ended: what follows is ignored."""
        cdef const unsigned char[::1] view = data
        cdef const uint8_t *at
        cdef size_t left = <size_t>view.shape[0]
        self.enter()
        try:
            self.builder.image.check_open()
            if left > 0 and not self.ended:
                at = &view[0]
                self.take(at, left)
            return self.ended
        finally:
            self.feeding = False

    def read(self, intptr_t file, uint64_t offset, uint64_t size, buffer):
        """Take the next bytes of the tar from an open file: ``size`` of them, or less at its end. Returns how many.

        ``file`` is a descriptor, on Windows a handle; it is read at ``offset``, not where it stands. ``buffer`` is
        overwritten. Content of large files is read to where it is written from, and is not copied, after
        :meth:`~cimfs_ext.image.ImageWriter.write_behind`.
        """
        cdef unsigned char[::1] spare = buffer
        cdef uint8_t *at
        cdef uint64_t taken = 0
        cdef size_t count, got = 1
        cdef int failed
        if spare.shape[0] == 0:
            raise ValueError("an empty buffer")
        self.enter()
        try:
            self.builder.image.check_open()
            while taken < size and got > 0:
                self.builder.enter()
                with nogil:
                    at = <uint8_t *>layer_importer_room(&self.importer, &count)
                    if at == NULL:
                        at = &spare[0]
                        count = <size_t>spare.shape[0]
                    if count > size - taken:
                        count = <size_t>(size - taken)
                    failed = layer_host_read(file, at, count, offset + taken, &got)
                self.builder.leave()
                if failed:
                    raise_host_error(failed, None)
                if got > 0 and not self.ended:
                    self.take(at, got)
                taken += got
            return taken
        finally:
            self.feeding = False

    def finish(self):
        """Say that the tar has ended; FormatError if it was cut inside an entry."""
        cdef layer_import_event event
        self.enter()
        try:
            event = layer_importer_finish(&self.importer)
            if event != LAYER_IMPORT_END:
                raise self.error(event)
            self.builder.builder.limits = layer_limits(NO_LIMIT, NO_LIMIT, NO_LIMIT)  # they are those of the tar
        finally:
            self.feeding = False

    cdef int enter(self) except -1:
        check_idle(self.feeding, self.builder.image.name, "importer")
        self.feeding = True
        return 0

    cdef int take(self, const uint8_t *at, size_t left) except -1:
        cdef layer_import_event event
        cdef layer_slice piece
        self.builder.enter()
        while True:
            with nogil:
                event = layer_importer_next(&self.importer, &at, &left, &piece)
            self.builder.leave()
            if event == LAYER_IMPORT_NEED_INPUT:
                return 0
            if event == LAYER_IMPORT_END:
                self.ended = True
                return 0
            if event >= LAYER_IMPORT_BAD_ENTRY:
                raise self.error(event)
            try:
                self.ask(event, &piece)
                self.builder.enter()
            except BaseException:
                self.importer.error = LAYER_IMPORT_FAILED  # the rest of the data is lost
                self.builder.builder.code = CIMFS_E_FAIL
                raise

    cdef int ask(self, layer_import_event event, const layer_slice *piece) except -1:
        cdef const cimfs_file_metadata *metadata = &self.importer.metadata
        if event == LAYER_IMPORT_PLACE:
            self.place()
        elif event == LAYER_IMPORT_SDDL:
            self.answer_sddl()
        elif event == LAYER_IMPORT_STANDARD_DATA:
            self.handler.standard_data(memoryview(blob(piece.data, piece.size)))
        elif event == LAYER_IMPORT_STANDARD_HOLE:
            self.handler.standard_hole(piece.size)
        elif event == LAYER_IMPORT_STANDARD_END:
            self.handler.end_standard_file()
        elif event == LAYER_IMPORT_WHITEOUT:
            self.handler.whiteout(path_of(&self.importer.path))
        elif event == LAYER_IMPORT_OPAQUE:
            self.handler.opaque_whiteout(path_of(&self.importer.path))
        elif event == LAYER_IMPORT_STANDARD_LINK:
            self.handler.link_to_standard_file(path_of(&self.importer.path), path_of(&self.importer.target))
        elif event == LAYER_IMPORT_ALIGNED:
            self.handler.aligned_file(path_of(&self.importer.path), self.importer.tar.offset)
        elif event == LAYER_IMPORT_PASSED_OVER:
            self.handler.passed_over(self.entry_name(), self.importer.tar.entry.other.decode())
        elif event == LAYER_IMPORT_PAUSE:
            self.handler.pause()
        elif event == LAYER_IMPORT_STANDARD_FILE:
            self.handler.begin_standard_file(
                path_of(&self.importer.path), metadata.file_size, metadata.attributes,
                (metadata.creation_time, metadata.last_write_time, metadata.change_time, metadata.last_access_time),
                blob(metadata.security_descriptor, metadata.security_descriptor_size),
                blob(metadata.ea, metadata.ea_size))
        return 0

    cdef int place(self) except -1:
        cdef const layer_entry *entry = &self.importer.tar.entry
        unsuitable = None if self.importer.unsuitable == NULL else self.importer.unsuitable.decode()
        if unsuitable is not None and is_utf8(entry.name) and not is_utf8(entry.link):
            unsuitable = f"a link target that is not UTF-8: {shown(entry.link)}"
        path = "" if unsuitable is not None else path_of(&self.importer.path)
        place = self.handler.place(path, entry.type == LAYER_DIRECTORY, self.entry_name(), entry.offset, unsuitable)
        layer_importer_place(&self.importer, place is None)
        if place is None:
            return 0
        if place != path:
            self.builder.take(place, &self.importer.path)
        if entry.type == LAYER_HARD_LINK:
            target = path_of(&self.importer.target)
            place = self.handler.place_of(target)
            if place != target:
                self.builder.take(place, &self.importer.target)
        return 0

    cdef int answer_sddl(self) except -1:
        text = self.importer.tar.entry.sddl
        try:
            descriptor = self.handler.descriptor_from_sddl(blob(text.data, text.size).decode("utf-8"))
        except ValueError as error:
            raise errors.FormatError(f"a descriptor in SDDL that cannot be used: {error}", self.entry_name(),
                                     self.importer.tar.entry.offset) from error
        cdef bytes content = bytes(descriptor)
        if layer_importer_descriptor(&self.importer, <const uint8_t *><const char *>content, <size_t>len(content)) < 0:
            raise MemoryError
        return 0

    cdef str entry_name(self):
        return shown(self.importer.tar.entry.name)

    cdef object error(self, layer_import_event event):
        cdef const layer_tar *tar = &self.importer.tar
        if event == LAYER_IMPORT_BAD_ARCHIVE:
            known = tar.entry_offset == tar.entry.offset and tar.entry.name.data != NULL
            return errors.malformed(tar.reason.decode(), self.entry_name() if known else "tar",
                                    tar.offset if tar.entry_offset == <uint64_t>-1 else tar.entry_offset)
        if event == LAYER_IMPORT_BAD_ENTRY and is_utf8(tar.entry.name) and not is_utf8(tar.entry.link):
            return errors.malformed(f"a link target that is not UTF-8: {shown(tar.entry.link)}", self.entry_name(),
                                    tar.entry.offset)
        decision = (LAYER_REFUSED if event == LAYER_IMPORT_BAD_ENTRY else
                    LAYER_BEYOND if event == LAYER_IMPORT_LIMIT else LAYER_FAILED)
        return self.builder.error(decision, "import", path_of(&self.importer.path), self.entry_name(), tar.entry.offset)
