#include "format.h"
#include "internal.h"
#include "libcimfs/upcase.h"

/* ASCII names are the rule. */
uint16_t hive_upcase(uint16_t unit)
{
    if (unit < 0x80)
        return unit >= 'a' && unit <= 'z' ? (uint16_t)(unit - 0x20) : unit;
    return cimfs_upcase(unit);
}

static inline uint16_t unit_at(const hive_name *name, uint32_t index)
{
    return name->latin1 ? name->bytes[index] : load16(name->bytes + 2 * (size_t)index);
}

static int compare_units(const hive_name *a, const hive_name *b, uint32_t from, uint32_t common)
{
    for (uint32_t i = from; i < common; i++) {
        uint16_t x = unit_at(a, i), y = unit_at(b, i);
        if (x == y)
            continue;
        x = hive_upcase(x);
        y = hive_upcase(y);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

int hive_compare_names(const hive_name *a, const hive_name *b)
{
    uint32_t a_length = hive_name_length(a), b_length = hive_name_length(b), same = 0;
    uint32_t common = a_length < b_length ? a_length : b_length;
    if (a->latin1 && b->latin1) {
        while (same < common && a->bytes[same] == b->bytes[same])
            same++;
    }
    int order = compare_units(a, b, same, common);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

uint32_t hive_fingerprint(const hive_name *name)
{
    uint32_t length = hive_name_length(name);
    if (length == 0)
        return 0;
    return (uint32_t)hive_upcase(unit_at(name, 0)) << 16 ^ (uint32_t)hive_upcase(unit_at(name, length / 2)) << 11 ^
           (uint32_t)hive_upcase(unit_at(name, length - 1)) << 5 ^ length;
}

/* The first four code units, so that numbers are in the order of names as far as they differ. */
uint64_t hive_name_prefix(const hive_name *name)
{
    uint32_t length = hive_name_length(name);
    uint64_t prefix = 0;
    for (uint32_t i = 0; i < 4; i++)
        prefix = prefix << 16 | (i < length ? hive_upcase(unit_at(name, i)) : 0u);
    return prefix;
}

int hive_compare_keys(const hive_key *a, const hive_key *b)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return hive_compare_names(&a->name, &b->name);
}

uint32_t hive_hash_name(const hive_name *name)
{
    uint32_t length = hive_name_length(name), hash = 0;
    for (uint32_t i = 0; i < length; i++)
        hash = hash * 37 + hive_upcase(unit_at(name, i));
    return hash;
}
