/* rng.h - random streams for simulation and jitter, never for secrets. One seed, many streams, so
 * that taking a fault class away does not shift the others. xoshiro256** seeded by splitmix64
 * (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021). */
#ifndef MERIDIAN_BASE_RNG_H
#define MERIDIAN_BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
        uint64_t state[4];
};

/* The stream `stream` of `seed`. */
void rng_init(struct rng *rng, uint64_t seed, uint64_t stream);

uint64_t rng_next(struct rng *rng);

/* A value in [0, bound); 0 when bound is 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);

/* A value in [low, high], low <= high. */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);

/* True `per_mille` times in a thousand. */
bool rng_chance(struct rng *rng, unsigned per_mille);

#endif
