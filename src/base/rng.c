/* rng.c - xoshiro256**, seeded by splitmix64. Nothing fails. */
#include "base/rng.h"

#include "base/check.h"

static uint64_t splitmix(uint64_t *state)
{
        uint64_t z = *state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t value, unsigned by)
{
        return value << by | value >> (64 - by);
}

void rng_init(struct rng *rng, uint64_t seed, uint64_t stream)
{
        uint64_t mixed_stream = stream + 1;
        uint64_t state = seed ^ splitmix(&mixed_stream);
        for (unsigned i = 0; i < 4; i++)
                rng->state[i] = splitmix(&state);
}

uint64_t rng_next(struct rng *rng)
{
        uint64_t *s = rng->state;
        uint64_t result = rotate_left(s[1] * 5, 7) * 9;
        uint64_t t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotate_left(s[3], 45);
        return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
        return bound == 0 ? 0 : rng_next(rng) % bound;
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
        CHECK(low <= high);
        return low + (high - low == UINT64_MAX ? rng_next(rng) : rng_below(rng, high - low + 1));
}

bool rng_chance(struct rng *rng, unsigned per_mille)
{
        return rng_below(rng, 1000) < per_mille;
}
