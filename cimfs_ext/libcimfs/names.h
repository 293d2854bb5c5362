/*
 * Names and paths: UTF-16 code units, compared after upcasing each one through a table of 65,536 units.
 *
 * A path is relative, its components are separated by backslashes, and a colon may stand before a stream's
 * name in the last one (docs/format.md, "Paths").
 */
#ifndef CIMFS_NAMES_H
#define CIMFS_NAMES_H

#include "cimfs.h"
#include "format.h"

struct cimfs_name {
    const uint16_t *units;
    uint32_t length; /* in code units */
};

/* A checked path, split in place: directory\leaf or directory\leaf:stream. */
struct cimfs_path {
    struct cimfs_name directory; /* empty: the root */
    struct cimfs_name leaf;
    struct cimfs_name stream; /* empty: none */
};

/* Split and check; INVALID_ARG with a reason if the path is malformed. */
cimfs_hresult cimfs_path_parse(const cimfs_wchar *text, struct cimfs_path *path, const char **reason);

/* Take the first component off a directory path; 0 when none is left. */
int cimfs_path_next(struct cimfs_name *directory, struct cimfs_name *component);

int cimfs_name_compare(const uint16_t *upcase, struct cimfs_name a, struct cimfs_name b);

/* A 32-bit hash of the upcased name; the seed keeps attackers from choosing names that collide. */
uint32_t cimfs_name_hash(const uint16_t *upcase, struct cimfs_name name, uint64_t seed);

/* Code units before the terminator; SIZE_MAX if there is none within limit. */
size_t cimfs_wide_length(const cimfs_wchar *text, size_t limit);

/*
 * UTF-16 to UTF-8, always terminated; returns the bytes that the whole text needs without the terminator.
 * A lone surrogate U+DC80..U+DCFF becomes the one byte that Python's "surrogateescape" made it from.
 */
size_t cimfs_utf8_from_wide(const uint16_t *units, size_t length, char *to, size_t capacity);

/*
 * UTF-8 to UTF-16; returns the code units (at most size), or SIZE_MAX if the text is not UTF-8.
 * Surrogates encoded as three bytes (as Go and Windows write lone ones) are taken as they are.
 */
size_t cimfs_wide_from_utf8(const char *text, size_t size, uint16_t *to);

#endif
