"""What a hive and a key of it have in common: when they were written, and the keys below, found as in a mapping."""

cimport cython

from cimfs_ext.entries import filetime_to_datetime
from cimfs_ext.errors import KeyNotFoundError


@cython.auto_pickle(False)
cdef class KeyMapping:
    """Above classes with ``timestamp``, ``key(path)`` and ``subkeys()``."""

    @property
    def last_write_datetime(self):
        """``timestamp`` as :func:`~cimlayer.filetime_to_datetime` gives it."""
        return filetime_to_datetime(self.timestamp)

    def walk(self, str path not None=""):
        """The key at ``path`` and all below it, parents first."""
        waiting = [self.key(path)]
        while waiting:
            key = waiting.pop()
            yield key
            waiting += reversed(key.subkeys())

    def __getitem__(self, path):
        """The key at a path below. KeyNotFoundError: there is none."""
        return self.key(path)

    def get(self, path, default=None):
        """The key at a path below, or the default."""
        try:
            return self.key(path)
        except KeyNotFoundError:
            return default

    def __contains__(self, path):
        return self.get(path) is not None

    def __iter__(self):
        """The names of the keys right below."""
        return iter([key.name for key in self.subkeys()])

    def __len__(self):
        return len(self.subkeys())

    def __bool__(self):
        return True  # without subkeys too
