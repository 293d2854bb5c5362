"""Registry hives: read, edit, merge and write them. The work is done in ``hive/``, without the GIL."""

import errno
import os
import stat
import warnings
from collections import namedtuple

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_XDECREF

from cimfs_ext.errors import CorruptHiveError, DirtyHiveWarning, FormatError, KeyNotFoundError

from cimfs_ext.public cimport show_as


cdef extern from "Python.h":
    # As pointers, because only bytes with one reference can be resized.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING"(PyObject *block)
    int _PyBytes_Resize(PyObject **block, Py_ssize_t size) except -1


cdef extern from "hive/hive.h" nogil:
    int HIVE_NO_MEMORY, HIVE_CORRUPT, HIVE_MAX_DEPTH, HIVE_KEY_SYMLINK
    uint32_t HIVE_NO_SECURITY
    uint64_t HIVE_NO_OFFSET

    ctypedef struct hive_error:
        const char *reason
        uint64_t offset

    ctypedef struct hive_bytes:
        const uint8_t *data
        size_t size

    ctypedef struct hive_name:
        const uint8_t *bytes
        uint16_t size
        bint latin1

    ctypedef struct hive_value:
        hive_name name
        const uint8_t *data
        uint32_t data_size
        uint32_t type
        bint tombstone

    ctypedef struct hive_key:
        hive_name name
        const uint8_t *class_name
        hive_key **subkeys
        hive_value *values
        uint64_t last_written
        uint32_t subkey_count
        uint32_t value_count
        uint32_t security
        uint16_t class_size
        uint16_t flags
        uint8_t layering

    ctypedef struct hive:
        hive_key *root
        hive_bytes *descriptors
        uint64_t last_written
        uint32_t minor_version
        size_t source_size
        bint layered
        bint dirty
        uint8_t *recovered

    int hive_read(hive_bytes file, const hive_bytes *logs, size_t log_count, hive **out, hive_error *error)
    int hive_create(uint64_t last_written, hive **out, hive_error *error)
    void hive_destroy(hive *h)
    hive_key *hive_find_subkey(const hive_key *parent, hive_name name)
    int hive_add_subkey(hive *h, hive_key *parent, hive_name name, uint64_t last_written, hive_key **out,
                        hive_error *error)
    bint hive_remove_subkey(hive_key *parent, hive_name name)
    hive_value *hive_find_value(const hive_key *key, hive_name name)
    int hive_set_value(hive *h, hive_key *key, hive_name name, uint32_t type, hive_bytes data, hive_error *error)
    bint hive_remove_value(hive_key *key, hive_name name)
    int hive_merge(hive *base, const hive *delta, hive_error *error)
    int hive_write(const hive *h, uint8_t *out, size_t capacity, size_t *size, hive_error *error)
    void hive_use_huge_pages(void *block, size_t size)


Value = namedtuple("HiveValue", "name type data tombstone", module="cimlayer")

cdef object MADE_HERE = object()  # no caller has it: there are no hives without a tree
cdef uint64_t MAX_FILE = 4096 + (1 << 31)  # base block and bins, where the top bit of an offset means volatile storage


cdef bytes allocate(size_t size):
    """Bytes that nobody else has seen yet, to be filled."""
    cdef bytes block = PyBytes_FromStringAndSize(NULL, size)
    hive_use_huge_pages(PyBytes_AS_STRING(block), size)
    return block


cdef object load(source):
    """The buffer itself, or the bytes of the regular file at a path."""
    cdef bytes block
    cdef size_t size
    if not isinstance(source, (str, os.PathLike)):
        return source
    with open(source, "rb") as file:  # buffered, which reads on where the system gives less than it was asked for
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(source))
        if status.st_size > MAX_FILE:
            raise CorruptHiveError("the file is larger than a hive can be", os.fspath(source), MAX_FILE)
        size = status.st_size
        if size == 0:
            return b""
        block = allocate(size)
        if file.readinto(<uint8_t[:size]> <uint8_t *>PyBytes_AS_STRING(block)) != size:
            raise OSError(f"{source}: the file changed while it was read")
    return block


cdef hive_bytes view(const uint8_t[::1] data):
    """Where a buffer lies; whoever asks keeps the buffer."""
    cdef hive_bytes found = hive_bytes(NULL, <size_t>data.shape[0])
    if data.shape[0]:
        found.data = &data[0]
    return found


cdef bytes encode(str name):
    cdef bytes encoded = name.encode("utf-16-le", "surrogatepass")
    if len(encoded) > 0xFFFF:
        raise FormatError("a name is too long", name[:40] + "...")
    return encoded


cdef hive_name as_name(bytes encoded):
    return hive_name(<const uint8_t *>PyBytes_AS_STRING(encoded), <uint16_t>len(encoded), False)


cdef str decode(const hive_name *name):
    cdef bytes raw = name.bytes[:name.size]
    return raw.decode("latin-1") if name.latin1 else raw.decode("utf-16-le", "surrogatepass")


cdef list split(path):
    """The names in a key's path; a backslash at either end is ignored."""
    path = path.strip("\\")
    return path.split("\\") if path else []


cdef object as_value(const hive_value *value):
    return Value(decode(&value.name), value.type, <bytes>value.data[:value.data_size], bool(value.tombstone))


cdef class Key:
    """A key of a hive. It shows what the key is at the time of asking; a deleted one shows what it last was."""

    cdef Hive hive
    cdef hive_key *key
    cdef str above  # the path of the parent: the keys right below one share it, for a path can be long
    cdef str given  # the whole path as a caller had it, or None

    cdef hive_key *held(self) except NULL:
        if self.hive is None:  # checked here, and not in a constructor: keys are made by the hundred thousand
            raise TypeError("a key that no hive has made")
        self.hive.check()
        return self.key

    @property
    def path(self) -> str:
        """The names from below the root down to the key."""
        if self.given is not None:
            return self.given
        if self.hive is None:
            raise TypeError("a key that no hive has made")
        name = decode(&self.key.name)
        return f"{self.above}\\{name}" if self.above else name

    @property
    def name(self) -> str:
        """The name as spelled in the hive."""
        return decode(&self.held().name)

    @property
    def class_name(self) -> str:
        """The class name; empty: none."""
        cdef hive_key *key = self.held()
        cdef bytes raw = key.class_name[:key.class_size] if key.class_size else b""
        return raw.decode("utf-16-le", "replace")

    @property
    def timestamp(self) -> int:
        """When the key was last written, a FILETIME."""
        return self.held().last_written

    @property
    def security(self) -> bytes:
        """The self-relative security descriptor; empty: none."""
        if self.held().security == HIVE_NO_SECURITY:
            return b""
        cdef hive_bytes found = self.hive.hive.descriptors[self.held().security]
        return <bytes>found.data[:found.size]

    @property
    def layering(self) -> int:
        """The layered-key byte: semantics in bits 0 and 1, inherit class 0x80 (docs/format.md, "Delta hives")."""
        return self.held().layering

    @property
    def symlink(self) -> bool:
        """Whether the key is a symbolic link."""
        return bool(self.held().flags & HIVE_KEY_SYMLINK)

    def subkeys(self) -> list[Key]:
        """The keys right below, sorted by upper-case name."""
        cdef uint32_t i
        cdef hive_key *key = self.held()
        path = self.path
        return [self.hive.wrap(key.subkeys[i], path, None) for i in range(key.subkey_count)]

    def values(self) -> list[Value]:
        """The values in the order of the hive; the default value's name is empty."""
        cdef uint32_t i
        cdef hive_key *key = self.held()
        return [as_value(&key.values[i]) for i in range(key.value_count)]

    def value(self, str name not None) -> Value:
        """The value of that name. KeyNotFoundError: there is none."""
        cdef bytes encoded = encode(name)
        cdef hive_value *found = hive_find_value(self.held(), as_name(encoded))
        if found == NULL:
            raise KeyNotFoundError(f"{self.path}: no value {name!r}", self.hive.name)
        return as_value(found)

    def __repr__(self) -> str:
        if self.hive is None:
            return "<Key of no hive>"
        return f"<Key {self.path!r} of {self.hive.name!r}>"


cdef class Hive:
    """A registry hive in memory.

    ``name`` stands in errors. Key paths are separated by backslashes, names compare without regard to case, and the
    empty path is the root. A hive serves one thread at a time: while one method runs without the GIL, others raise
    RuntimeError.
    """

    cdef hive *hive
    cdef bint busy
    cdef list sources  # what the tree refers to: the file's bytes and the deltas that were merged
    cdef readonly str name

    def __cinit__(self, made_here=None):
        if made_here is not MADE_HERE:
            raise TypeError("use Hive.open or Hive.empty")
        self.sources = []
        self.name = ""

    def __dealloc__(self):
        hive_destroy(self.hive)

    @staticmethod
    def open(source: bytes | str | os.PathLike[str], *, logs=(), str name="") -> Hive:
        """Read a hive of version 1.3 to 1.6, applying its transaction logs if it is dirty.

        ``source`` is a path or a buffer; a buffer (bytes, a mapped file) is not copied and must not change as long
        as the hive lives.
        ``logs`` are the contents or paths of ``.LOG``, ``.LOG1`` or ``.LOG2``, in any order; those that do not fit are
        ignored. A hive that stays dirty is read as it is, with a DirtyHiveWarning. ``name`` is the path if not given.
        Raises CorruptHiveError with the offset in the file (what counts as corrupt: hive/hive.h), and OSError.
        """
        cdef Hive self = Hive.__new__(Hive, MADE_HERE)
        cdef const uint8_t[::1] data = load(source)
        cdef list log_data = [memoryview(load(log)) for log in logs]
        cdef hive_bytes file = view(data)
        cdef size_t i, count = len(log_data)
        cdef hive_bytes *views = <hive_bytes *>malloc((count + 1) * sizeof(hive_bytes))
        cdef hive_error error
        cdef int code
        if views == NULL:
            raise MemoryError
        try:
            self.name = name or (os.fspath(source) if isinstance(source, (str, os.PathLike)) else "hive")
            for i in range(count):
                views[i] = view(log_data[i])
            with nogil:
                code = hive_read(file, views, count, &self.hive, &error)
        finally:
            free(views)
        if code:
            self.fail(code, error)
        self.sources.append(data)
        if self.hive.dirty:
            warnings.warn(f"{self.name}: a dirty hive is read as it is", DirtyHiveWarning, stacklevel=2)
        return self

    @staticmethod
    def empty(uint64_t timestamp, *, str name="hive") -> Hive:
        """A hive of a root key alone, named ``ROOT``; ``timestamp`` is the FILETIME of the hive and the key.

        Administrators and the system have all rights to it, everybody may read.
        """
        cdef Hive self = Hive.__new__(Hive, MADE_HERE)
        cdef hive_error error
        self.name = name
        cdef int code = hive_create(timestamp, &self.hive, &error)
        if code:
            self.fail(code, error)
        return self

    cdef check(self):
        if self.busy:
            raise RuntimeError(f"{self.name}: the hive is in use by another thread")

    cdef fail(self, int code, hive_error error):
        if code == HIVE_NO_MEMORY:
            raise MemoryError
        offset = -1 if error.offset == HIVE_NO_OFFSET else error.offset
        kind = CorruptHiveError if code == HIVE_CORRUPT else FormatError
        raise kind(error.reason.decode("ascii"), self.name, offset)

    cdef Key wrap(self, hive_key *key, str above, str given):
        cdef Key wrapped = Key.__new__(Key)
        wrapped.hive = self
        wrapped.key = key
        wrapped.above = above
        wrapped.given = given
        return wrapped

    cdef hive_key *find(self, path) except? NULL:
        """The key at path, or NULL."""
        cdef hive_key *key = self.hive.root
        cdef bytes encoded
        self.check()
        for part in split(path):
            encoded = encode(part)
            key = hive_find_subkey(key, as_name(encoded))
            if key == NULL:
                return NULL
        return key

    cdef hive_key *get(self, path) except NULL:
        cdef hive_key *key = self.find(path)
        if key == NULL:
            raise KeyNotFoundError(f"no key {path!r}", self.name)
        return key

    @property
    def timestamp(self) -> int:
        """When the hive was last written, a FILETIME."""
        return self.hive.last_written

    @property
    def minor_version(self) -> int:
        """3 to 6, of the file that was read."""
        return self.hive.minor_version

    @property
    def layered(self) -> bool:
        """Whether the hive says that its keys are layered, as deltas do."""
        return bool(self.hive.layered)

    @property
    def dirty(self) -> bool:
        """Whether a dirty hive was read as it is."""
        return bool(self.hive.dirty)

    @property
    def recovered(self) -> bool:
        """Whether transaction logs were applied."""
        return self.hive.recovered != NULL

    @property
    def root(self) -> Key:
        """The root key; its path is empty."""
        return self.wrap(self.hive.root, None, "")

    def __contains__(self, str path not None) -> bool:
        return self.find(path) != NULL

    def key(self, str path not None) -> Key:
        """The key at ``path``. KeyNotFoundError: there is none."""
        return self.wrap(self.get(path), None, "\\".join(split(path)))

    def walk(self, str path not None="") -> Iterator[Key]:
        """The key at ``path`` and all below it, parents first."""
        waiting = [self.key(path)]
        while waiting:
            key = waiting.pop()
            yield key
            waiting += reversed(key.subkeys())

    def create_key(self, str path not None, timestamp: int | None = None) -> Key:
        """The key at ``path``, made with its missing parents if it is not there.

        New keys get ``timestamp`` (a FILETIME; without it the hive's) and the security of their parent.
        Raises FormatError for a name that is empty or has more than 255 characters, or a path of more than 512 names.
        """
        cdef hive_key *key = self.hive.root
        cdef uint64_t time = self.hive.last_written if timestamp is None else timestamp
        cdef hive_error error
        cdef bytes encoded
        cdef int code
        cdef list parts = split(path)
        self.check()
        if len(parts) > HIVE_MAX_DEPTH:
            raise FormatError("keys nest too deeply", self.name)
        for part in parts:
            encoded = encode(part)
            code = hive_add_subkey(self.hive, key, as_name(encoded), time, &key, &error)
            if code:
                self.fail(code, error)
        return self.wrap(key, None, "\\".join(parts))

    def delete_key(self, str path not None) -> None:
        """Delete a key and all below it. KeyNotFoundError: there is none. ValueError: it is the root."""
        parent, _, name = path.strip("\\").rpartition("\\")
        cdef bytes encoded = encode(name)
        if not name:
            raise ValueError(f"{self.name}: the root key cannot be deleted")
        if not hive_remove_subkey(self.get(parent), as_name(encoded)):
            raise KeyNotFoundError(f"no key {path!r}", self.name)

    def value(self, str path not None, str name not None) -> Value:
        """The value ``name`` of the key at ``path``. KeyNotFoundError: there is no such key or value."""
        return self.key(path).value(name)

    def set_value(
        self, str path not None, str name not None, uint32_t type, bytes data not None, timestamp: int | None = None
    ) -> None:
        """Set a value, making its key if it is not there. An existing value keeps the spelling of its name.

        ``timestamp`` (a FILETIME) becomes the key's; without it the key keeps its own.
        Raises FormatError for a name of more than 16,383 characters.
        """
        cdef Key key = self.create_key(path, timestamp)
        cdef bytes encoded = encode(name)
        cdef hive_error error
        cdef int code = hive_set_value(self.hive, key.key, as_name(encoded), type, view(data), &error)
        if code:
            self.fail(code, error)
        if timestamp is not None:
            key.key.last_written = timestamp

    def delete_value(self, str path not None, str name not None) -> None:
        """Delete a value. KeyNotFoundError: there is no such key or value."""
        cdef bytes encoded = encode(name)
        if not hive_remove_value(self.get(path), as_name(encoded)):
            raise KeyNotFoundError(f"{path}: no value {name!r}", self.name)

    def merge(self, Hive delta not None) -> None:
        """Merge ``delta`` onto this hive, which stays a plain one (docs/format.md, "Delta hives"). The delta is kept.

        Raises CorruptHiveError if the delta's root is a tombstone. After a MemoryError this hive is of no use.
        """
        cdef hive_error error
        cdef int code
        if delta is self:
            raise ValueError(f"{self.name}: a hive cannot be merged onto itself")
        self.check()
        delta.check()
        self.sources.append(delta)
        self.busy = delta.busy = True
        with nogil:
            code = hive_merge(self.hive, delta.hive, &error)
        self.busy = delta.busy = False
        if code:
            delta.fail(code, error)

    def to_bytes(self) -> bytes:
        """The hive as a compact file of version 1.5, or 1.6 if it is layered; the same hive gives the same bytes.

        Raises FormatError if it would exceed 2 GiB, beyond which offsets mean volatile storage.
        """
        cdef hive_error error
        cdef size_t size = 0, capacity = self.hive.source_size + self.hive.source_size // 8 + 65536
        cdef PyObject *out = NULL
        cdef uint8_t *data
        cdef int code
        self.check()
        self.busy = True
        try:
            while True:
                out = new_bytes(NULL, capacity)
                data = <uint8_t *>bytes_data(out)
                hive_use_huge_pages(data, capacity)
                with nogil:
                    code = hive_write(self.hive, data, capacity, &size, &error)
                if code:
                    self.fail(code, error)
                if size <= capacity:
                    _PyBytes_Resize(&out, size)
                    return <object>out
                Py_CLEAR(out)
                capacity = size
        finally:
            self.busy = False
            Py_XDECREF(out)


show_as(Hive, "cimlayer", "cimlayer.Hive")
show_as(Key, "cimlayer", "cimlayer.HiveKey")
