"""Which library does the work of ``cimfs.h``: the system's own, or the portable one that is part of this package."""

import errno
import os
import sys

from cimfs_ext import errors

from cimfs_ext.cimfs cimport CIMFS_E_NOTIMPL, cimfs_portable_api
from cimfs_ext.public cimport show_as

# A library stays loaded: images that are still open call into it.
cdef dict LOADED = {}
cdef object MADE_HERE = object()  # no caller has it: there are no objects without a table


cdef str build_needed(str name):
    """What a user can do about a function that is not there."""
    cdef size_t count, i
    cdef const cimfs_function *functions = cimfs_functions(&count)
    for i in range(count):
        if functions[i].name.decode() == name and functions[i].build:
            return f"Windows has it from build {functions[i].build} on"
    return "no Windows has it"


cdef object unsupported(str reason, str path):
    return errors.UnsupportedCallError(errno.ENOSYS, reason, path)


cdef class Implementation:
    """One filling of the function table of ``cimfs.h``; obtained by :func:`choose` or :func:`load`."""

    def __cinit__(self, made_here=None):
        if made_here is not MADE_HERE:
            raise TypeError("use choose() or load()")

    @property
    def name(self):
        """``portable`` or ``system``."""
        return self.api.name.decode()

    @property
    def has_writer_library(self):
        """Whether the writing half is that of cimwriter.dll."""
        return self.system.writer != NULL

    def functions(self):
        """The names, as cimfs.dll exports them, of the functions that this implementation has."""
        cdef size_t count, i
        cdef const cimfs_function *functions = cimfs_functions(&count)
        return frozenset(functions[i].name.decode() for i in range(count)
                         if (<void *const *>(<const char *>self.api + functions[i].entry))[0] != NULL)

    cdef int require(self, bint present, str function, str path) except -1:
        """Raise UnsupportedCallError if a function is not there."""
        if not present:
            raise unsupported(f"the {self.name} implementation has no {function}: {build_needed(function)}", path)
        return 0


cdef Implementation present(str path):
    """What :func:`load` returns; None if there is no such library."""
    cdef Implementation result
    cdef cimfs_hresult code
    cdef bytes text = None if path is None else os.fsencode(path)
    if path in LOADED:
        return LOADED[path]
    result = Implementation.__new__(Implementation, MADE_HERE)
    result.path = path or ""
    code = cimfs_system_load(&result.system, NULL if text is None else <const char *>text)
    if code == CIMFS_E_NOTIMPL:
        name = result.system.missing.decode()
        raise unsupported(f"the library has no {name}: {build_needed(name)}", path)
    if code < 0:
        return None
    result.api = &result.system.api
    LOADED[path] = result
    return result


def load(str path=None):
    """The system's implementation, or with a path another library that exports the same functions.

    On Windows the library comes from the system directory only: a path is refused there. Raises
    :class:`~cimlayer.UnsupportedCallError` if there is no such library, or if it lacks a function that the
    first release had.
    """
    library = present(path)
    if library is None:
        hint = "implementation='portable' or CIMLAYER_IMPLEMENTATION=portable does without it"
        raise unsupported(f"the system's CimFS library cannot be loaded: {hint}", path)
    return library


cdef Implementation portable():
    cdef Implementation result
    if "portable" not in LOADED:
        result = Implementation.__new__(Implementation, MADE_HERE)
        result.path = ""
        result.api = cimfs_portable_api()
        LOADED["portable"] = result
    return LOADED["portable"]


cpdef Implementation choose(implementation=None):
    """The implementation of that name: ``portable`` or ``system``, or the object itself if it is one.

    None stands for the environment's CIMLAYER_IMPLEMENTATION, and without it for ``system`` on a Windows that has a
    CimFS library, and ``portable`` everywhere else. On other systems than Windows, ``system`` is the library that
    CIMLAYER_CIMFS_LIBRARY names.
    """
    if isinstance(implementation, Implementation):
        return implementation
    name = implementation or os.environ.get("CIMLAYER_IMPLEMENTATION")
    if not name:
        return (present(None) if sys.platform == "win32" else None) or portable()
    if name == "portable":
        return portable()
    if name != "system":
        raise ValueError(f"an implementation is 'portable' or 'system', not {name!r}")
    return load(None if sys.platform == "win32" else os.environ.get("CIMLAYER_CIMFS_LIBRARY"))


show_as(Implementation, "cimlayer", "cimlayer.Implementation")
