"""The check of a whole image, with its callbacks into Python."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport (
    cimfs_reader,
    cimfs_reader_io,
    cimfs_verify,
    cimfs_verify_counts,
    cimfs_verify_events,
)
from cimfs_ext.listing cimport reader_error

cdef uint64_t NO_OFFSET = <uint64_t>-1
cdef int MAX_PROBLEMS = 1000  # kept in a report; the rest are only counted


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


cdef object verify_image(const cimfs_reader *reader, str name, progress, cancel):
    """``ImageReader.verify``."""
    cdef cimfs_verify_counts counts
    cdef cimfs_verify_events events
    cdef cimfs_error error
    cdef cimfs_hresult code
    if cancel is not None:
        cancel.raise_if_cancelled()
    check = _Check(progress, cancel)
    events.context = <void *>check
    events.problem = on_problem
    events.progress = on_progress
    memset(&error, 0, sizeof(error))
    with nogil:
        code = cimfs_verify(cimfs_reader_io(reader), reader, &events, &counts, &error)
    if check.raised is not None:
        raise check.raised
    if code < 0:
        raise reader_error(reader, code, &error, "verify", name)
    from cimfs_ext.reports import VerifyReport
    return VerifyReport(counts.files, counts.directories, counts.streams, counts.objects, counts.bytes,
                        counts.unjudged, counts.problems, tuple(check.problems))
