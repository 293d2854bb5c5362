"""Locks on open files that exclude other processes, and other open files of this one; they end with the process.

libcimfs takes the same ones (``io_posix.c``, ``io_win32.c``), so the two exclude each other.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _FAIL_IMMEDIATELY, _EXCLUSIVE = 1, 2
    _LOCK_VIOLATION, _IO_PENDING = 33, 997
    _BEYOND_ANY_FILE = 1 << 30  # the high half of the locked byte's offset: locked bytes cannot be read by others

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this holder alone; False if another has it."""
        where = _Overlapped(offset_high=_BEYOND_ANY_FILE)
        handle = wintypes.HANDLE(msvcrt.get_osfhandle(descriptor))
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        if kernel32.LockFileEx(handle, _FAIL_IMMEDIATELY | _EXCLUSIVE, 0, 1, 0, ctypes.byref(where)):
            return True
        error = ctypes.get_last_error()
        if error in (_LOCK_VIOLATION, _IO_PENDING):
            return False
        raise ctypes.WinError(error)

    def unlock_and_close(descriptor: int) -> None:
        """End the lock and close the file."""
        os.close(descriptor)

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this holder alone; False if another has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_and_close(descriptor: int) -> None:
        """End the lock and close the file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not end it while a forked process has the file
        os.close(descriptor)
