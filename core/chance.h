/* chance: what looks random and follows from a seed: the same numbers on every machine.
 *
 * Provides  struct chance and the numbers that it gives; the mixer, for hashes
 * Uses      nothing of ours
 * Pure. SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): any
 * seed will do. One number tells all that follow: for models of networks, never for secrets. */
#ifndef CORE_CHANCE_H
#define CORE_CHANCE_H

#include <stdint.h>

struct chance {
    uint64_t state; /* the seed, at first */
};

static inline uint64_t chance_mix(uint64_t word) {
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
    return word ^ (word >> 31);
}

static inline uint64_t chance_next(struct chance *chance) {
    return chance_mix(chance->state += 0x9E3779B97F4A7C15u);
}

/* 0 to count - 1. */
static inline uint32_t chance_below(struct chance *chance, uint32_t count) {
    return (uint32_t)(((chance_next(chance) >> 32) * count) >> 32);
}

/* 0 to 1, 1 not included. */
static inline double chance_share(struct chance *chance) {
    return (double)(chance_next(chance) >> 11) * 0x1p-53;
}

#endif
