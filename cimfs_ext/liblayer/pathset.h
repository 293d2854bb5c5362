/*
 * The paths that a layer has added so far, and the directories above them, as 63-bit hashes of their upcased form
 * and a bit for those that an entry describes: enough to know what a whiteout must leave alone.
 */
#ifndef LAYER_PATHSET_H
#define LAYER_PATHSET_H

#include <stddef.h>
#include <stdint.h>

struct layer_path_set {
    uint64_t *slots; /* 0: free; the lowest bit: an entry describes it */
    uint32_t bits;   /* there are 2 to this power; 0: none */
    size_t count;
    uint64_t seed;           /* random: keeps attackers from choosing paths that collide */
    uint64_t last_directory; /* hash of the directory that was added last */
};

void layer_path_set_cleanup(struct layer_path_set *set);
/* The path and every directory above it; -1 without memory. */
int layer_path_set_add(struct layer_path_set *set, const uint16_t *path, size_t length);
/* The path alone. */
int layer_path_set_add_one(struct layer_path_set *set, const uint16_t *path, size_t length);
/* An entry was about the path itself, not only about something below it. */
int layer_path_set_describes(const struct layer_path_set *set, const uint16_t *path, size_t length);
int layer_path_set_has(const struct layer_path_set *set, const uint16_t *path, size_t length);
/* A directory above the path is in the set. */
int layer_path_set_has_above(const struct layer_path_set *set, const uint16_t *path, size_t length);

#endif
