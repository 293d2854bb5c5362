#include "upcase.h"

#include <stddef.h>

/* Every `step`-th code unit from `first` to `last` has `delta` added, modulo 65,536; sorted, no overlaps. */
static const struct {
    uint16_t first;
    uint16_t last;
    uint16_t step;
    uint16_t delta;
} ranges[] = {
#include "upcase_ranges.h"
};

static const size_t range_count = sizeof ranges / sizeof ranges[0];

void cimfs_upcase_table(uint16_t table[CIMFS_UPCASE_UNITS])
{
    for (uint32_t unit = 0; unit < CIMFS_UPCASE_UNITS; unit++)
        table[unit] = (uint16_t)unit;
    for (size_t i = 0; i < range_count; i++)
        for (uint32_t unit = ranges[i].first; unit <= ranges[i].last; unit += ranges[i].step)
            table[unit] = (uint16_t)(unit + ranges[i].delta);
}

uint16_t cimfs_upcase(uint16_t unit)
{
    if (unit < 0x80)
        return unit >= 'a' && unit <= 'z' ? (uint16_t)(unit - ('a' - 'A')) : unit;
    size_t low = 0;
    size_t high = range_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < unit)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == range_count || unit < ranges[low].first || (unit - ranges[low].first) % ranges[low].step != 0)
        return unit;
    return (uint16_t)(unit + ranges[low].delta);
}
