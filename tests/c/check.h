/* What holds is checked, and what does not is printed and counted. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

#include "libcimfs/reader.h"
#include "memory_io.h"

extern int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s (failing call %s)\n", __FILE__, __LINE__, #condition, memory_failed_function());         \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* The other files of this program. */
void test_calls(void);
void test_readahead(void);
/* A link table of the image that changes while it is merged. */
void test_changing_link_table(const struct cimfs_reader *reader);
/* Images that a thread writes. */
void test_writing_behind(void);

#endif
