/*
 * The upcase table of Windows: the upper-case form of each UTF-16 code unit, by which names are compared and
 * ordered (docs/format.md, "Link table").
 *
 * It is the table that Windows 6.1 (Windows 7) writes to a volume's $UpCase, as the ntfs-3g tools reproduce
 * it. An image brings its own table, so a reader asks the image and not these functions. Not known from
 * public material: whether the newest Windows adds letters for the images that it writes.
 */
#ifndef CIMFS_UPCASE_H
#define CIMFS_UPCASE_H

#include <stdint.h>

enum { CIMFS_UPCASE_UNITS = 65536 };

/* Fills the whole table, in the byte order of the machine. */
void cimfs_upcase_table(uint16_t table[CIMFS_UPCASE_UNITS]);

/* The upper-case form of one code unit; surrogates are their own. */
uint16_t cimfs_upcase(uint16_t unit);

#endif
