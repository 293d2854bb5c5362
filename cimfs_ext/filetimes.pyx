# cython: freethreading_compatible=True, cdivision=True
"""FILETIMEs as text."""

from cpython.unicode cimport PyUnicode_2BYTE_KIND, PyUnicode_FromKindAndData
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cimfs_ext.liblayer cimport LAYER_PAX_SECONDS, layer_pax_seconds

cdef enum:
    TICKS = 10_000_000  # of 100 ns in a second
    DAY = 86_400  # seconds
    FIRST_YEAR = 1601  # of a FILETIME, and of a period in which the calendar repeats
    PERIOD = 146_097  # days of 400 years
    CENTURY = 36_524  # of 100 years, but for the last of a period
    OLYMPIAD = 1_461  # of 4 years, but for the last of a century
    YEAR = 365
    LAST_DAY = 3_067_670  # 9999-12-31

cdef int64_t UNIX_EPOCH = 116_444_736_000_000_000
cdef uint32_t[12] MONTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef void write_digits(uint32_t number, int count, uint16_t *text) noexcept nogil:
    while count:
        count -= 1
        text[count] = <uint16_t>(48 + number % 10)
        number //= 10


cdef void write_date(uint32_t days, uint16_t *text) noexcept nogil:
    """The date so many days after 1601-01-01, as YYYY-MM-DD."""
    cdef uint32_t periods = days // PERIOD
    days %= PERIOD
    cdef uint32_t centuries = min(days // CENTURY, <uint32_t>3)
    days -= centuries * CENTURY
    cdef uint32_t olympiads = days // OLYMPIAD
    days %= OLYMPIAD
    cdef uint32_t years = min(days // YEAR, <uint32_t>3)
    days -= years * YEAR
    cdef bint leap = years == 3 and (olympiads != 24 or centuries == 3)
    cdef uint32_t month = 0, length = MONTHS[0]
    while days >= length:
        days -= length
        month += 1
        length = MONTHS[month] + (leap and month == 1)
    write_digits(FIRST_YEAR + 400 * periods + 100 * centuries + 4 * olympiads + years, 4, text)
    text[4] = text[7] = c"-"
    write_digits(month + 1, 2, text + 5)
    write_digits(days + 1, 2, text + 8)


cdef bint write_time(int64_t filetime, uint16_t *text) noexcept nogil:
    """``WHOLE`` code units, as ``iso_time`` has them; False, and nothing, where that is None."""
    cdef int64_t seconds = filetime // TICKS
    cdef uint32_t second
    if filetime < 0 or seconds // DAY > LAST_DAY:
        return False
    write_date(<uint32_t>(seconds // DAY), text)
    second = <uint32_t>(seconds % DAY)
    text[10] = c"T"
    write_digits(second // 3600, 2, text + 11)
    text[13] = text[16] = c":"
    write_digits(second // 60 % 60, 2, text + 14)
    write_digits(second % 60, 2, text + 17)
    text[19] = c"."
    write_digits(<uint32_t>(filetime % TICKS), 7, text + 20)
    text[27] = c"Z"
    return True


cpdef str time_text(filetime):
    """A FILETIME as RFC 3339 in UTC with seven decimals, or as ``FILETIME`` and its number where that has no year."""
    return iso_time(filetime) or f"FILETIME {filetime}"


def iso_time(filetime):
    """A FILETIME as ISO 8601 in UTC with all its seven decimals; None beyond the year 9999 or before 1601."""
    cdef uint16_t[WHOLE] text
    if filetime.bit_length() > 63 or not write_time(filetime, text):
        return None
    return PyUnicode_FromKindAndData(PyUnicode_2BYTE_KIND, text, WHOLE)


cdef uint64_t unix_seconds(int64_t filetime) noexcept nogil:
    """Whole seconds since 1970, 0 before that."""
    return <uint64_t>((filetime - UNIX_EPOCH) // TICKS) if filetime > UNIX_EPOCH else 0


def pax_seconds(filetime):
    """A FILETIME as the decimal seconds since 1970 of a PAX record, exact to 100 ns.

    A number that does not fit in 64 bits counts as the nearest one that does.
    """
    cdef uint8_t[LAYER_PAX_SECONDS] text
    cdef size_t count = layer_pax_seconds(min(max(filetime, INT64_MIN), INT64_MAX), text)
    return (<const char *>text)[:count].decode("ascii")
