/* clock.h - hybrid logical clocks, stamps and version vectors.
 *
 * A hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks and
 * Consistent Snapshots in Globally Distributed Databases", 2014) is one number:
 * Unix milliseconds << 16 | counter. It is larger than everything it has seen, and close to the
 * wall clock. (clock, region of origin) is a stamp: unique, totally ordered, in causal order. */
#ifndef MERIDIAN_CLOCK_CLOCK_H
#define MERIDIAN_CLOCK_CLOCK_H

#include "base/buffer.h"
#include "base/cursor.h"

/* The same type as in world/world.h: a small number given by the topology, 0 is none. Only
 * 1 .. CLOCK_REGIONS_MAX may write data. */
typedef uint8_t region_id;

enum {
        CLOCK_REGIONS_MAX = 64,
        CLOCK_COUNTER_BITS = 16,
};

/* When and where a write was made. {0, 0} is before every write. */
struct stamp {
        uint64_t hlc;
        region_id origin;
};

/* < 0, 0 or > 0: by clock, then by origin. */
static inline int stamp_compare(struct stamp a, struct stamp b)
{
        if (a.hlc != b.hlc)
                return a.hlc < b.hlc ? -1 : 1;
        return (a.origin > b.origin) - (a.origin < b.origin);
}

static inline bool stamp_before(struct stamp a, struct stamp b)
{
        return stamp_compare(a, b) < 0;
}

static inline struct stamp stamp_max(struct stamp a, struct stamp b)
{
        return stamp_before(a, b) ? b : a;
}

static inline bool region_valid(uint64_t region)
{
        return region >= 1 && region <= CLOCK_REGIONS_MAX;
}

/* The clock reading that belongs to a wall clock in Unix milliseconds, and back. */
static inline uint64_t hlc_of_ms(uint64_t wall_ms)
{
        return wall_ms << CLOCK_COUNTER_BITS;
}

static inline uint64_t hlc_ms(uint64_t hlc)
{
        return hlc >> CLOCK_COUNTER_BITS;
}

/* A hybrid logical clock. Zeroed is a valid start; set `last` to what was persisted. */
struct hlc {
        uint64_t last; /* the largest reading given out or observed */
};

/* The next reading: larger than every earlier one, even when the wall clock goes back. `wall_ms` is
 * Unix time in milliseconds, < 2^48. */
uint64_t hlc_now(struct hlc *hlc, uint64_t wall_ms);

/* Takes a remote reading into account, so that every later hlc_now is larger. ERR_REFUSED when the
 * remote clock is more than `drift_max_ms` ahead of `wall_ms`: nothing is adopted then, and the
 * caller should hold back that record and tell the operator. Old readings are always fine. */
MUST_USE enum err hlc_observe(struct hlc *hlc, uint64_t remote, uint64_t wall_ms,
                              uint64_t drift_max_ms);

/* A version vector: for each origin the clock up to which all its writes are known. Zeroed is
 * empty. 520 bytes. */
struct vector {
        uint64_t hlc[CLOCK_REGIONS_MAX + 1]; /* by region_id; [0] stays 0 */
};

/* The position of `origin`, 0 for an origin that is none. */
uint64_t vector_get(const struct vector *vector, region_id origin);

/* Raises the position of `origin` to `hlc`; never lowers it. An invalid origin is ignored. */
void vector_advance(struct vector *vector, region_id origin, uint64_t hlc);

/* The larger of both, origin by origin. */
void vector_merge(struct vector *vector, const struct vector *other);

/* The largest of its clocks. */
uint64_t vector_newest(const struct vector *vector);

/* True where the write with that stamp is known. {0, 0} is covered by every vector. */
bool vector_covers(const struct vector *vector, struct stamp stamp);

/* True where `vector` is at least `other` in every origin. */
bool vector_includes(const struct vector *vector, const struct vector *other);

/* Varint count, then (u8 origin, u64 hlc) by rising origin; zeros are left out. */
void vector_encode(const struct vector *vector, struct buffer *buffer);

/* Reads what vector_encode wrote. Origins that are out of range, repeated or not rising, and zero
 * clocks, mark the cursor malformed; *ret is then not to be used. */
void vector_decode(struct cursor *cursor, struct vector *ret);

#endif
