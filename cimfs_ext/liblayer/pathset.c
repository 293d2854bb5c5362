#include "pathset.h"

#include <stdlib.h>
#include <string.h>

#include "libcimfs/upcase.h"

static uint64_t step(uint64_t hash, uint16_t unit)
{
    hash = (hash ^ cimfs_upcase(unit)) * 0xD6E8FEB86659FD93u;
    return hash ^ hash >> 32;
}

static const uint64_t START = 0x9E3779B97F4A7C15u;
static const uint64_t DESCRIBED = 1;

void layer_path_set_cleanup(struct layer_path_set *set)
{
    free(set->slots);
    memset(set, 0, sizeof *set);
}

static uint64_t slot_of(const struct layer_path_set *set, uint64_t hash)
{
    return hash * 0x9E3779B97F4A7C15u >> (64 - set->bits);
}

static uint64_t *find(const struct layer_path_set *set, uint64_t hash)
{
    uint64_t mask = ((uint64_t)1 << set->bits) - 1;
    uint64_t slot = slot_of(set, hash);
    while (set->slots[slot] && (set->slots[slot] & ~DESCRIBED) != hash)
        slot = (slot + 1) & mask;
    return &set->slots[slot];
}

static int grow(struct layer_path_set *set)
{
    struct layer_path_set old = *set;
    set->bits = old.bits ? old.bits + 1 : 10;
    set->slots = calloc((size_t)1 << set->bits, sizeof *set->slots);
    if (!set->slots) {
        *set = old;
        return -1;
    }
    for (uint64_t i = 0; old.bits && i < (uint64_t)1 << old.bits; i++)
        if (old.slots[i])
            *find(set, old.slots[i] & ~DESCRIBED) = old.slots[i];
    free(old.slots);
    return 0;
}

static int insert(struct layer_path_set *set, uint64_t hash, uint64_t described)
{
    if ((set->bits == 0 || set->count >= ((uint64_t)3 << set->bits) / 4) && grow(set) < 0)
        return -1;
    uint64_t *slot = find(set, hash);
    set->count += *slot == 0;
    *slot |= hash | described;
    return 0;
}

static uint64_t finish(uint64_t hash)
{
    hash &= ~DESCRIBED;
    return hash ? hash : 2;
}

int layer_path_set_add(struct layer_path_set *set, const uint16_t *path, size_t length)
{
    size_t leaf = length;
    while (leaf > 0 && path[leaf - 1] != '\\')
        leaf--;
    uint64_t hash = START ^ set->seed, directory = hash;
    for (size_t i = 0; i < length; i++) {
        if (i + 1 == leaf)
            directory = finish(hash);
        hash = step(hash, path[i]);
    }
    /* Files come directory by directory: the directories above are there already. */
    if (leaf > 0 && directory != set->last_directory) {
        uint64_t above = START ^ set->seed;
        for (size_t i = 0; i < leaf; i++) {
            if (path[i] == '\\' && insert(set, finish(above), 0) < 0)
                return -1;
            above = step(above, path[i]);
        }
        set->last_directory = directory;
    }
    return insert(set, finish(hash), DESCRIBED);
}

static uint64_t hash_of(const struct layer_path_set *set, const uint16_t *path, size_t length)
{
    uint64_t hash = START ^ set->seed;
    for (size_t i = 0; i < length; i++)
        hash = step(hash, path[i]);
    return finish(hash);
}

int layer_path_set_add_one(struct layer_path_set *set, const uint16_t *path, size_t length)
{
    return insert(set, hash_of(set, path, length), DESCRIBED);
}

int layer_path_set_has(const struct layer_path_set *set, const uint16_t *path, size_t length)
{
    return set->bits > 0 && *find(set, hash_of(set, path, length)) != 0;
}

int layer_path_set_has_above(const struct layer_path_set *set, const uint16_t *path, size_t length)
{
    uint64_t hash = START ^ set->seed;
    for (size_t i = 0; set->bits > 0 && i < length; i++) {
        if (path[i] == '\\' && *find(set, finish(hash)) != 0)
            return 1;
        hash = step(hash, path[i]);
    }
    return 0;
}

int layer_path_set_describes(const struct layer_path_set *set, const uint16_t *path, size_t length)
{
    return set->bits > 0 && (*find(set, hash_of(set, path, length)) & DESCRIBED) != 0;
}
