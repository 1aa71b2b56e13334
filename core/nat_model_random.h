/* nat_model_random: the randomness of a model, all of it from its seed.
 *
 * Provides  struct nat_random, numbers that are the same on every machine; the mixer of hashes
 * Uses      nothing of ours
 * Pure. SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
#ifndef CORE_NAT_MODEL_RANDOM_H
#define CORE_NAT_MODEL_RANDOM_H

#include <stdint.h>

struct nat_random {
    uint64_t state;
};

static inline uint64_t nat_mix(uint64_t word) {
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
    return word ^ (word >> 31);
}

static inline uint64_t nat_random_next(struct nat_random *random) {
    return nat_mix(random->state += 0x9E3779B97F4A7C15u);
}

/* 0 to count - 1. */
static inline uint32_t nat_random_below(struct nat_random *random, uint32_t count) {
    return (uint32_t)(((nat_random_next(random) >> 32) * count) >> 32);
}

/* 0 to 1, 1 not included. */
static inline double nat_random_part(struct nat_random *random) {
    return (double)(nat_random_next(random) >> 11) * 0x1p-53;
}

#endif
