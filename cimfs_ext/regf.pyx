"""Registry hives: read, edit, merge and write them. The work is done in ``hive/``, without the GIL.

Each call on a hive either reads or changes it, and says so before it looks at the tree: Python code that runs in
between (a finalizer, a signal handler, another thread) can call the same hive.
"""

import os
import warnings

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_XDECREF

from cimfs_ext.guard cimport check_idle
from cimfs_ext.hive cimport (
    HIVE_CORRUPT, HIVE_KEY_SYMLINK, HIVE_MAX_DEPTH, HIVE_NO_MEMORY, HIVE_NO_OFFSET, HIVE_NO_SECURITY, hive,
    hive_add_subkey, hive_block_size, hive_bytes, hive_create, hive_destroy, hive_error, hive_find_subkey,
    hive_find_value, hive_key, hive_merge, hive_read, hive_remove_subkey, hive_remove_value, hive_set_value,
    hive_use_huge_pages, hive_value, hive_write,
)
from cimfs_ext.hivemapping cimport KeyMapping
from cimfs_ext.hivenames cimport as_name, decode, encode, split, view, view_bytes
from cimfs_ext.public cimport show_as

from cimfs_ext.errors import CorruptHiveError, DirtyHiveWarning, FormatError, KeyNotFoundError
from cimfs_ext.hivesource import load, load_log, name_of
from cimfs_ext.hivevalues import Value


cdef extern from "Python.h":
    # As pointers, because only bytes with one reference can be resized.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING"(PyObject *block)
    int _PyBytes_Resize(PyObject **block, Py_ssize_t size) except -1


cdef object MADE_HERE = object()  # no caller has it: there are no hives without a tree


cdef object as_value(const hive_value *value):
    return Value(decode(&value.name), value.type, <bytes>value.data[:value.data_size], bool(value.tombstone))


cdef class Key(KeyMapping):
    """A key of a hive. It shows what the key is at the time of asking; a deleted one shows what it last was.

    Everything here reads the hive; :class:`Hive` says which calls may run at the same time.
    """

    cdef Hive hive
    cdef hive_key *node
    cdef str above  # the path of the parent: the keys right below one share it, for a path can be long
    cdef str given  # the whole path as a caller had it, or None

    cdef hive_key *held(self) except NULL:
        """The key, to be looked at before anything runs that could change the hive."""
        if self.hive is None:  # checked here, and not in a constructor: keys are made by the hundred thousand
            raise TypeError("a key that no hive has made")
        self.hive.check()
        return self.node

    @property
    def path(self) -> str:
        """The names from below the root down to the key."""
        if self.given is not None:
            return self.given
        if self.hive is None:
            raise TypeError("a key that no hive has made")
        name = decode(&self.node.name)
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
        cdef uint32_t index = self.held().security
        if index == HIVE_NO_SECURITY:
            return b""
        cdef hive_bytes found = self.hive.hive.descriptors[index]
        return <bytes>found.data[:found.size]

    @property
    def layering(self) -> int:
        """The layered-key byte (docs/format.md, "Delta hives"); 0 in a hive that is not layered."""
        return self.held().layering

    @property
    def symlink(self) -> bool:
        """Whether the key is a symbolic link."""
        return bool(self.held().flags & HIVE_KEY_SYMLINK)

    def subkeys(self) -> list[Key]:
        """The keys right below, sorted by upper-case name."""
        cdef uint32_t i
        cdef hive_key *key = self.held()
        cdef Hive owner = self.hive
        owner.begin_reading()
        try:
            path = self.path
            return [owner.wrap(key.subkeys[i], path, None) for i in range(key.subkey_count)]
        finally:
            owner.end_reading()

    def key(self, str path not None) -> Key:
        """The key at a path below this one, as ``key[path]`` is. KeyNotFoundError: there is none."""
        cdef hive_key *top = self.held()
        return self.hive.key_below(top, self.path, path)

    def values(self) -> list[Value]:
        """The values in the order of the hive; the default value's name is empty."""
        cdef uint32_t i
        cdef hive_key *key = self.held()
        cdef Hive owner = self.hive
        owner.begin_reading()
        try:
            return [as_value(&key.values[i]) for i in range(key.value_count)]
        finally:
            owner.end_reading()

    def value(self, str name not None) -> Value:
        """The value of that name. KeyNotFoundError: there is none."""
        cdef bytes encoded = encode(name)
        cdef hive_value *found = hive_find_value(self.held(), as_name(name, encoded))
        if found == NULL:
            raise self.hive.missing(f"no value {name!r}", self.path)
        return as_value(found)

    def __repr__(self) -> str:
        if self.hive is None:
            return "<Key of no hive>"
        return f"<Key {self.path!r} of {self.hive.name!r}>"


cdef class Hive(KeyMapping):
    """A registry hive in memory.

    ``name`` stands in errors. Key paths are separated by backslashes, names compare without regard to case, and the
    empty path is the root.

    Calls that read a hive may run at the same time, in any threads. A call that changes it (``create_key``,
    ``delete_key``, ``set_value``, ``delete_value``, ``merge``) raises RuntimeError while another call on the hive is
    running, in another thread or in the same one (a finalizer or a signal handler may make calls); until it returns,
    every other call does too. ``merge`` reads its delta.
    """

    cdef hive *hive
    cdef Py_ssize_t readers  # calls that are looking at the tree
    cdef bint changing
    cdef bint lost           # a merge ran out of memory half-way
    cdef list sources        # what the tree refers to: the file's bytes and the deltas that were merged
    cdef readonly str name

    def __cinit__(self, made_here=None):
        if made_here is not MADE_HERE:
            raise TypeError("use Hive.open or Hive.empty")
        self.sources = []
        self.name = ""
        self.changing = True  # until there is a tree

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
        cdef list log_data = [load_log(log) for log in logs]
        cdef hive_bytes file = view(data)
        cdef size_t i, count = len(log_data)
        cdef hive_bytes *views = <hive_bytes *>malloc((count + 1) * sizeof(hive_bytes))
        cdef hive_error error
        cdef int code
        if views == NULL:
            raise MemoryError
        try:
            self.name = name or name_of(source)
            for i in range(count):
                views[i] = view_bytes(log_data[i])
            with nogil:
                code = hive_read(file, views, count, &self.hive, &error)
        finally:
            free(views)
        if code:
            self.fail(code, error)
        self.sources.append(data)
        self.changing = False
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
        self.changing = False
        return self

    # ---- the calls under way: none looks at the tree while another one changes it ----

    cdef int check(self) except -1:
        check_idle(self.changing, self.name, "hive")
        if self.lost:
            raise RuntimeError(f"{self.name}: the hive is of no use: memory ran out during a merge onto it")

    cdef int begin_reading(self) except -1:
        self.check()
        self.readers += 1

    cdef void end_reading(self) noexcept:
        self.readers -= 1

    cdef int begin_changing(self) except -1:
        self.check()
        check_idle(self.readers > 0, self.name, "hive")
        self.changing = True

    cdef void end_changing(self) noexcept:
        self.changing = False

    cdef fail(self, int code, hive_error error):
        if code == HIVE_NO_MEMORY:
            raise MemoryError
        offset = -1 if error.offset == HIVE_NO_OFFSET else error.offset
        kind = CorruptHiveError if code == HIVE_CORRUPT else FormatError
        raise kind(error.reason.decode("ascii"), self.name, offset)

    cdef object missing(self, str reason, str path):
        return KeyNotFoundError(reason, f"{self.name}: {path}" if path else self.name)

    # ---- the tree, between begin and end ----

    cdef Key wrap(self, hive_key *key, str above, str given):
        cdef Key wrapped = Key.__new__(Key)
        wrapped.hive = self
        wrapped.node = key
        wrapped.above = above
        wrapped.given = given
        return wrapped

    cdef hive_key *find(self, hive_key *key, list parts) except? NULL:
        """The key of that path below this one, or NULL."""
        cdef bytes encoded
        cdef str part
        for part in parts:
            encoded = encode(part)
            key = hive_find_subkey(key, as_name(part, encoded))
            if key == NULL:
                return NULL
        return key

    cdef hive_key *make(self, list parts, uint64_t time) except NULL:
        """The key of that path, made with its missing parents if it is not there."""
        cdef hive_key *key = self.hive.root
        cdef hive_error error
        cdef bytes encoded
        cdef str part
        cdef int code
        if len(parts) > HIVE_MAX_DEPTH:
            raise FormatError("keys nest too deeply", self.name)
        for part in parts:
            encoded = encode(part)
            code = hive_add_subkey(self.hive, key, as_name(part, encoded), time, &key, &error)
            if code:
                self.fail(code, error)
        return key

    # ---- reading ----

    @property
    def timestamp(self) -> int:
        """When the hive was last written, a FILETIME."""
        self.check()
        return self.hive.last_written

    @property
    def minor_version(self) -> int:
        """3 to 6, of the file that was read."""
        self.check()
        return self.hive.minor_version

    @property
    def layered(self) -> bool:
        """Whether the keys are layered, as in deltas: the hive says so, and is of version 1.6."""
        self.check()
        return bool(self.hive.layered)

    @property
    def dirty(self) -> bool:
        """Whether a dirty hive was read as it is."""
        self.check()
        return bool(self.hive.dirty)

    @property
    def recovered(self) -> bool:
        """Whether transaction logs were applied."""
        self.check()
        return self.hive.recovered != NULL

    @property
    def root(self) -> Key:
        """The root key; its path is empty."""
        self.check()
        return self.wrap(self.hive.root, None, "")

    def key(self, str path not None) -> Key:
        """The key at ``path``, as ``hive[path]`` is. KeyNotFoundError: there is none."""
        self.check()
        return self.key_below(self.hive.root, "", path)

    cdef Key key_below(self, hive_key *top, str above, str path):
        cdef list parts = split(path)
        cdef hive_key *key
        self.begin_reading()
        try:
            key = self.find(top, parts)
        finally:
            self.end_reading()
        whole = "\\".join([above, *parts] if above else parts)
        if key == NULL:
            raise self.missing("no such key", whole if above else path)
        return self.wrap(key, None, whole)

    def subkeys(self) -> list[Key]:
        """The keys right below the root."""
        return self.root.subkeys()

    def __repr__(self) -> str:
        return f"<Hive {self.name!r}>"

    def value(self, str path not None, str name not None) -> Value:
        """The value ``name`` of the key at ``path``. KeyNotFoundError: there is no such key or value."""
        return self.key(path).value(name)

    def to_bytes(self) -> bytes:
        """The hive as a compact file of version 1.5, or 1.6 if it is layered; the same hive gives the same bytes.

        Raises FormatError if it would exceed 2 GiB, beyond which offsets mean volatile storage.
        """
        cdef hive_error error
        cdef size_t size = 0, capacity = hive_block_size(self.hive.source_size + self.hive.source_size // 8 + 65536)
        cdef PyObject *out = NULL
        cdef uint8_t *data
        cdef int code
        self.begin_reading()
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
            self.end_reading()
            Py_XDECREF(out)

    # ---- changing ----

    def create_key(self, str path not None, timestamp: int | None = None) -> Key:
        """The key at ``path``, made with its missing parents if it is not there.

        New keys get ``timestamp`` (a FILETIME; without it the hive's) and the security of their parent.
        Raises FormatError for a new name that is empty or has more than 255 characters (a hive that is read may have
        longer ones), or a path of more than 512 names.
        """
        cdef list parts = split(path)
        cdef uint64_t time = self.hive.last_written if timestamp is None else timestamp
        cdef hive_key *key
        self.begin_changing()
        try:
            key = self.make(parts, time)
        finally:
            self.end_changing()
        return self.wrap(key, None, "\\".join(parts))

    def delete_key(self, str path not None) -> None:
        """Delete a key and all below it. KeyNotFoundError: there is none. ValueError: it is the root."""
        cdef list parts = split(path)
        if not parts:
            raise ValueError(f"{self.name}: the root key cannot be deleted")
        cdef str name = parts.pop()
        cdef bytes encoded = encode(name)
        cdef hive_key *parent
        self.begin_changing()
        try:
            parent = self.find(self.hive.root, parts)
            if parent == NULL or not hive_remove_subkey(parent, as_name(name, encoded)):
                raise self.missing("no such key", path)
        finally:
            self.end_changing()

    def set_value(
        self, str path not None, str name not None, uint32_t type, bytes data not None, timestamp: int | None = None
    ) -> None:
        """Set a value, making its key if it is not there. An existing value keeps the spelling of its name.

        ``timestamp`` (a FILETIME) becomes the key's; without it the key keeps its own.
        Raises FormatError for a new name of more than 16,383 characters (a hive that is read may have longer ones).
        """
        cdef list parts = split(path)
        cdef bytes encoded = encode(name)
        cdef uint64_t time = self.hive.last_written if timestamp is None else timestamp
        cdef hive_key *key
        cdef hive_error error
        cdef int code
        self.begin_changing()
        try:
            key = self.make(parts, time)
            code = hive_set_value(self.hive, key, as_name(name, encoded), type, view_bytes(data), &error)
            if code:
                self.fail(code, error)
            if timestamp is not None:
                key.last_written = time
        finally:
            self.end_changing()

    def delete_value(self, str path not None, str name not None) -> None:
        """Delete a value. KeyNotFoundError: there is no such key or value."""
        cdef list parts = split(path)
        cdef bytes encoded = encode(name)
        cdef hive_key *key
        self.begin_changing()
        try:
            key = self.find(self.hive.root, parts)
            if key == NULL:
                raise self.missing("no such key", path)
            if not hive_remove_value(key, as_name(name, encoded)):
                raise self.missing(f"no value {name!r}", path)
        finally:
            self.end_changing()

    def merge(self, Hive delta not None) -> None:
        """Merge ``delta`` onto this hive, which stays a plain one (docs/format.md, "Delta hives"). The delta is kept.

        Raises CorruptHiveError if the delta's root is a tombstone; this hive is unchanged then. After a MemoryError
        this hive is of no use: all calls raise RuntimeError.
        """
        cdef hive_error error
        cdef int code
        if delta is self:
            raise ValueError(f"{self.name}: a hive cannot be merged onto itself")
        delta.begin_reading()
        try:
            self.begin_changing()
            try:
                self.sources.append(delta)
                with nogil:
                    code = hive_merge(self.hive, delta.hive, &error)
                self.lost = code == HIVE_NO_MEMORY
            finally:
                self.end_changing()
        finally:
            delta.end_reading()
        if code:
            delta.fail(code, error)


show_as(Hive, "cimlayer", "cimlayer.Hive")
show_as(Key, "cimlayer", "cimlayer.HiveKey")
