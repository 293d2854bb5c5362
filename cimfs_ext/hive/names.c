#include "format.h"
#include "internal.h"

/* Upper case of one code unit. ASCII, Latin-1, Greek and Cyrillic. */
uint16_t hive_upcase(uint16_t unit) {
    if (unit < 0x80)
        return unit >= 'a' && unit <= 'z' ? (uint16_t)(unit - 0x20) : unit;
    if (unit >= 0xE0 && unit <= 0xFE)
        return unit == 0xF7 ? unit : (uint16_t)(unit - 0x20);
    if (unit == 0xFF)
        return 0x178;
    if (unit >= 0x3B1 && unit <= 0x3CB && unit != 0x3C2)
        return (uint16_t)(unit - 0x20);
    if (unit >= 0x430 && unit <= 0x44F)
        return (uint16_t)(unit - 0x20);
    if (unit >= 0x450 && unit <= 0x45F)
        return (uint16_t)(unit - 0x50);
    return unit;
}

static inline uint16_t unit_at(const hive_name *name, uint32_t index) {
    return name->latin1 ? name->bytes[index] : load16(name->bytes + 2 * (size_t)index);
}

int hive_compare_names(const hive_name *a, const hive_name *b) {
    uint32_t a_length = hive_name_length(a), b_length = hive_name_length(b);
    uint32_t common = a_length < b_length ? a_length : b_length;
    for (uint32_t i = 0; i < common; i++) {
        uint16_t x = unit_at(a, i), y = unit_at(b, i);
        if (x == y)
            continue;
        x = hive_upcase(x);
        y = hive_upcase(y);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return (a_length > b_length) - (a_length < b_length);
}

uint32_t hive_hash_name(const hive_name *name) {
    uint32_t length = hive_name_length(name), hash = 0;
    for (uint32_t i = 0; i < length; i++)
        hash = hash * 37 + hive_upcase(unit_at(name, i));
    return hash;
}
