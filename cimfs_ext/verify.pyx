"""The check of a whole image, with its callbacks into Python."""

import _thread

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport (
    cimfs_check,
    cimfs_reader,
    cimfs_reader_io,
    cimfs_verify_begin,
    cimfs_verify_close,
    cimfs_verify_counts,
    cimfs_verify_end,
    cimfs_verify_events,
    cimfs_verify_parts,
    cimfs_verify_progress,
    cimfs_verify_share,
    cimfs_verify_stop,
)
from cimfs_ext.listing cimport reader_error

cdef uint64_t NO_OFFSET = <uint64_t>-1
cdef int MAX_PROBLEMS = 1000  # kept in a report; the rest are only counted
cdef double LONGEST_WAIT = 0.1  # seconds between two calls of progress while other threads end


@cython.final
@cython.auto_pickle(False)
cdef class _Check:
    """What the callbacks of one check share."""

    cdef object progress
    cdef object cancel
    cdef list problems
    cdef object raised

    def __cinit__(self, progress=None, cancel=None):
        self.progress = progress
        self.cancel = cancel
        self.problems = []


cdef int on_problem(void *context, uint64_t offset, const cimfs_error *error) noexcept with gil:
    check = <_Check>context
    try:
        from cimfs_ext.reports import Problem
        if len(check.problems) < MAX_PROBLEMS:
            reason = error.reason.decode() if error.reason != NULL else f"0x{<uint32_t>error.code:08X}"
            check.problems.append(Problem(
                error.file.decode("utf-8", "surrogateescape"),
                None if error.offset == NO_OFFSET else error.offset, reason, offset))
    except BaseException as raised:
        check.raised = raised
        return 1
    return 0


cdef int on_progress(void *context, const cimfs_verify_counts *counts) noexcept with gil:
    check = <_Check>context
    try:
        PyErr_CheckSignals()
        if check.cancel is not None:
            check.cancel.raise_if_cancelled()
        if check.progress is not None:
            check.progress(counts.bytes)
    except BaseException as raised:
        check.raised = raised
        return 1
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class _Helper:
    """A thread that shares the work of a check, which outlives it."""

    cdef cimfs_check *check
    cdef object running  # a lock, held until the thread is done

    def share(self):
        with nogil:
            cimfs_verify_share(self.check, 0)
        self.running.release()


cdef _Helper new_helper(cimfs_check *check):
    helper = _Helper()
    helper.check = check
    helper.running = _thread.allocate_lock()
    helper.running.acquire()
    return helper


cdef list start_helpers(cimfs_check *check, size_t count):
    """As many as the system has threads for."""
    cdef size_t index
    helpers = [new_helper(check) for _ in range(count)]
    for index in range(count):
        try:
            _thread.start_new_thread(helpers[index].share, ())
        except (MemoryError, RuntimeError):
            return helpers[:index]
    return helpers


cdef object wait_for(list helpers, cimfs_check *check):
    """Wait until all are done, whatever is raised meanwhile; returns that."""
    cdef _Helper helper
    raised = None
    for helper in helpers:
        done = False
        while not done:
            try:
                done = helper.running.acquire(timeout=LONGEST_WAIT)
                if not done:
                    cimfs_verify_progress(check)
            except BaseException as error:  # KeyboardInterrupt
                raised = error
                cimfs_verify_stop(check)
    return raised


cdef object share(cimfs_check *check, size_t jobs):
    """Read with so many threads, the caller's among them; returns what was raised meanwhile."""
    cdef size_t threads = min(jobs, cimfs_verify_parts(check))
    if threads < 2:
        return None
    helpers = start_helpers(check, threads - 1)
    with nogil:
        cimfs_verify_share(check, 1)
    return wait_for(helpers, check)


cdef object verify_image(const cimfs_reader *reader, str name, progress, cancel, jobs):
    """``ImageReader.verify``."""
    cdef cimfs_verify_counts counts
    cdef cimfs_verify_events events
    cdef cimfs_error error
    cdef cimfs_hresult code
    cdef cimfs_check *check
    from cimfs_ext.cpus import available_cpus
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    if cancel is not None:
        cancel.raise_if_cancelled()
    running = _Check(progress, cancel)
    events.context = <void *>running
    events.problem = on_problem
    events.progress = on_progress
    memset(&error, 0, sizeof(error))
    with nogil:
        code = cimfs_verify_begin(cimfs_reader_io(reader), reader, &events, &counts, &error, &check)
    if code >= 0:
        try:
            raised = share(check, jobs or available_cpus())
            if raised is not None:
                raise raised
            with nogil:
                code = cimfs_verify_end(check, &error)
        finally:
            cimfs_verify_close(check)
    if running.raised is not None:
        raise running.raised
    if code < 0:
        raise reader_error(reader, code, &error, "verify", name)
    from cimfs_ext.reports import VerifyReport
    return VerifyReport(counts.files, counts.directories, counts.streams, counts.objects, counts.bytes,
                        counts.unjudged, counts.problems, tuple(running.problems))
