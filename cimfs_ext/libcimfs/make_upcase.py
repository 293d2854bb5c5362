"""Prints the rows of upcase_ranges.h: python3 make_upcase.py > upcase_ranges.h

The table that Windows 6.1 (Windows 7) and later write into $UpCase follows from Unicode by three rules:

- code units alone: nothing outside the BMP is mapped, no mapping to more than one character is used;
- a mapping counts only if it can be undone, that is, if the lower-case form of its result is the character
  it started from. This drops U+00B5, U+0131, U+017F, U+03C2, the title-case letters and the symbols that look
  like letters (U+03D0 and others);
- a pair counts only if Unicode 5.1 had both of its letters: NEWER lists those that later versions brought.

The result is compared with the digest of the real table, so a newer Unicode in the running Python cannot
change it unnoticed: it takes another row of NEWER then.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator

REAL_TABLE_SHA256 = "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742"

# (first, last) of letters whose pair is younger than Unicode 5.1; for each pair, the younger or either side.
NEWER = [
    (0x037F, 0x037F),  # Greek yot
    (0x0524, 0x052F),  # Cyrillic supplement: pe with descender and what follows
    (0x10C7, 0x10CD),  # Georgian capital yn and aen
    (0x13A0, 0x13FD),  # Cherokee became a script with two cases
    (0x1C80, 0x1CBF),  # Georgian mtavruli capitals, Cyrillic letter variants
    (0x2C2F, 0x2C2F),  # Glagolitic caudate chrivi
    (0x2C70, 0x2C70),  # Latin capital turned alpha
    (0x2C7E, 0x2C7F),  # Latin capitals with swash tail
    (0x2CEB, 0x2CF3),  # Coptic
    (0xA660, 0xA661),  # Cyrillic reversed tse
    (0xA698, 0xA69B),  # Cyrillic double o, crossed o
    (0xA78D, 0xA7F6),  # Latin extended-D from turned h on
]


def simple_upper(unit: int) -> int:
    """Unicode's simple upper-case form of a code unit, which a full mapping to several characters hides."""
    character = chr(unit)
    for form in (character.upper(), character.title()):
        if len(form) == 1:
            return ord(form)
    return unit


def windows_upper(unit: int) -> int:
    """What the table of Windows holds for a code unit."""
    upper = simple_upper(unit)
    newer = any(first <= upper <= last for first, last in NEWER)
    if 0xD800 <= unit <= 0xDFFF or upper > 0xFFFF or newer or chr(upper).lower() != chr(unit):
        return unit
    return upper


def ranges(table: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, step, delta): every step-th unit from first to last has delta added, modulo 65,536."""
    changed = [unit for unit in range(0x10000) if table[unit] != unit]
    while changed:
        first = changed[0]
        delta = table[first] - first
        run = {step: [first] for step in (1, 2)}
        for step, units in run.items():
            while table[units[-1] + step] - (units[-1] + step) == delta:
                units.append(units[-1] + step)
            # Between the units of a stepped range nothing may change: rows must not overlap.
            if step == 2 and any(table[unit + 1] != unit + 1 for unit in units[:-1]):
                del units[1:]
        step = 1 if len(run[1]) >= len(run[2]) else 2
        yield first, run[step][-1], step, delta % 0x10000
        changed = changed[len(run[step]) :]


def main() -> None:
    """Make the table, compare it with the real one's digest, print the rows."""
    table = [windows_upper(unit) for unit in range(0x10000)]
    if hashlib.sha256(struct.pack("<65536H", *table)).hexdigest() != REAL_TABLE_SHA256:
        sys.exit("this Python's Unicode data gives another table: NEWER lacks letters")
    print("/* Made by make_upcase.py: first, last, step, delta (added modulo 65,536). */")
    for first, last, step, delta in ranges(table):
        print(f"{{0x{first:04X}, 0x{last:04X}, {step}, 0x{delta:04X}}},")


if __name__ == "__main__":
    main()
