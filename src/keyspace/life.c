/* Lives of a stream, and the holes that they leave.
 *
 * A store that crashes may lose the end of its own stream, of which others hold a part. So each
 * life begins with a record in the stream: what it recovered, and, by its own clock, where it goes
 * on. Between the two is a hole. Everybody who reads on opens the hole too, from where he is, for
 * he lacks what comes after it: of what lies in a hole nobody claims to have seen anything, so
 * nobody takes what he does not have there for removed.
 *
 *      own stream   ....recovered)        hole        (first of the new life ....
 *      a reader     .............position)   hole     (the same
 *
 * A hole is filled by a state transfer from somebody who has seen what is in it. When every other
 * member has told what it holds, and nothing of it is missing, the origin says so by another
 * record: then the rest of the hole is empty everywhere, and closes.
 *
 * Running totals of counters are of their origin, so one of the new life would take the place of
 * one in the hole that is larger and comes later. So while there is a hole in our own stream, a
 * counter's increments go to a part of the life (struct crdt_count). When the holes are closed,
 * all that there is of our parts is here, and increments go on in the one of no life.
 * CRDT_LIVES_MAX crashes in a row, before any hole has closed, come to the number of a life of
 * which something may be missing: its total then takes the place of what was lost there.
 *
 * The clock of a new life must be beyond all stamps of the older ones, whatever the wall clock says
 * by then and however much of the log is lost. So the clock is reserved some way ahead, and the
 * host keeps that durably beside the log: nothing that is stamped beyond it is given out. It is in
 * the log too, for the replicas of the region. Its lowest bits are the number of the life, so the
 * next one is another, also where the whole of this one is lost. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

enum {
        RESERVE_MS = 1500, /* how far ahead of the wall clock */
        RESERVE_PART = 3,  /* renewed when that part has passed */

        /* Of a clock that is ahead of the wall clock, which is where a life after a quick restart
         * begins: it moves by 1 ms in 65,536 stamps. Small, for each life begins beyond it. */
        RESERVE_COUNTED_MS = 100,
};

/* ---- sets of stamps: a vector less its holes */

_Static_assert((int)CRDT_HOLES_MAX > (int)CLOCK_REGIONS_MAX, "two of one origin can be joined");

/* Clocks between two holes of one origin, in either order; 0 where they meet. */
static uint64_t hole_gap(const struct crdt_hole *one, const struct crdt_hole *other)
{
        const struct crdt_hole *low = one->low < other->low ? one : other;
        const struct crdt_hole *high = low == one ? other : one;
        return high->low > low->high ? high->low - low->high : 0;
}

/* Makes room: the two holes of one origin with the least between them become one. What lies between
 * is here, but no longer claimed, so it is asked for again. */
static void holes_join(struct crdt_seen *seen, struct vector *mixed)
{
        unsigned a = 0;
        unsigned b = 0;
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < seen->hole_count; i++) {
                for (unsigned k = 0; k < i; k++) {
                        uint64_t gap = hole_gap(&seen->holes[i], &seen->holes[k]);
                        if (seen->holes[i].origin == seen->holes[k].origin && gap < least) {
                                least = gap;
                                a = k;
                                b = i;
                        }
                }
        }
        CHECK(a != b); /* more holes than origins */
        struct crdt_hole *to = &seen->holes[a];
        const struct crdt_hole *from = &seen->holes[b];
        to->low = from->low < to->low ? from->low : to->low;
        to->high = from->high > to->high ? from->high : to->high;
        vector_advance(mixed, to->origin, to->high);
        seen->holes[b] = seen->holes[--seen->hole_count];
}

void hole_open(struct crdt_seen *seen, struct vector *mixed, region_id origin, uint64_t low,
               uint64_t high)
{
        if (low + 1 >= high)
                return;
        if (seen->hole_count == CRDT_HOLES_MAX)
                holes_join(seen, mixed);
        seen->holes[seen->hole_count++] = (struct crdt_hole){low, high, origin};
}

/* The part of a hole that `other` has not seen either. Its own holes may cut it into several; what
 * lies beyond its position is one more. */
static void hole_share(const struct crdt_hole *hole, const struct crdt_seen *other,
                       struct crdt_seen *into, struct vector *mixed)
{
        uint64_t position = vector_get(&other->vector, hole->origin);
        for (unsigned i = 0; i <= other->hole_count; i++) {
                bool beyond = i == other->hole_count;
                const struct crdt_hole *with = &other->holes[i];
                if (!beyond && with->origin != hole->origin)
                        continue;
                uint64_t low = beyond ? position : with->low;
                uint64_t high = beyond ? UINT64_MAX : with->high;
                hole_open(into, mixed, hole->origin, low > hole->low ? low : hole->low,
                          high < hole->high ? high : hole->high);
        }
}

static bool hole_same(const struct crdt_seen *seen, const struct crdt_hole *hole)
{
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *with = &seen->holes[i];
                if (with->origin == hole->origin && with->low == hole->low &&
                    with->high == hole->high)
                        return true;
        }
        return false;
}

/* How far up the stream of `origin` something is seen now that was not. */
static uint64_t filled_to(const struct crdt_seen *was, const struct crdt_seen *now,
                          region_id origin)
{
        uint64_t to = 0;
        uint64_t position = vector_get(&now->vector, origin);
        if (position > vector_get(&was->vector, origin))
                return position;
        for (unsigned i = 0; i < was->hole_count; i++) {
                const struct crdt_hole *hole = &was->holes[i];
                if (hole->origin != origin || hole_same(now, hole))
                        continue;
                uint64_t up = hole->high - 1;
                for (unsigned k = 0; k < now->hole_count; k++) {
                        const struct crdt_hole *rest = &now->holes[k];
                        if (rest->origin == origin && rest->high == hole->high)
                                up = rest->low;
                }
                to = up > to ? up : to;
        }
        return to;
}

void keyspace_learn(struct keyspace *keyspace, const struct crdt_seen *theirs)
{
        struct crdt_seen was = keyspace->seen;
        struct crdt_seen now = {.vector = was.vector, .self = was.self};
        vector_merge(&now.vector, &theirs->vector);
        for (unsigned i = 0; i < was.hole_count; i++)
                hole_share(&was.holes[i], theirs, &now, &keyspace->hinted);
        /* What the other lacks beyond our position is missing here too. */
        for (unsigned i = 0; i < theirs->hole_count; i++) {
                const struct crdt_hole *hole = &theirs->holes[i];
                uint64_t position = vector_get(&was.vector, hole->origin);
                hole_open(&now, &keyspace->hinted, hole->origin,
                          position > hole->low ? position : hole->low, hole->high);
        }
        keyspace->seen = now;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                uint64_t to = filled_to(&was, &now, (region_id)i);
                if (to == 0)
                        continue;
                /* It came as a state: a reader that is below must take it as one, too. */
                if (i != keyspace->config.origin)
                        relay_forget(keyspace, (region_id)i, to);
                else
                        ring_forget(&keyspace->ring, to);
                if (i == keyspace->config.origin && to > keyspace->recovered)
                        keyspace->recovered = to;
        }
}

uint64_t seen_solid(const struct crdt_seen *seen, region_id origin)
{
        uint64_t solid = vector_get(&seen->vector, origin);
        for (unsigned i = 0; i < seen->hole_count; i++)
                if (seen->holes[i].origin == origin && seen->holes[i].low < solid)
                        solid = seen->holes[i].low;
        return solid;
}

const struct crdt_seen *keyspace_seen(const struct keyspace *keyspace)
{
        return &keyspace->seen;
}

size_t keyspace_holes(const struct keyspace *keyspace, struct keyspace_hole *ret)
{
        const struct crdt_seen *seen = &keyspace->seen;
        size_t count = 0;
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *hole = &seen->holes[i];
                bool mixed = vector_get(&keyspace->hinted, hole->origin) > hole->low;
                ret[count++] = (struct keyspace_hole){hole->origin, mixed, hole->low, hole->high};
        }
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                uint64_t position = seen->vector.hlc[i];
                if (keyspace->hinted.hlc[i] > position)
                        ret[count++] = (struct keyspace_hole){(region_id)i, true, position,
                                                              keyspace->hinted.hlc[i] + 1};
        }
        return count;
}

void keyspace_holes_encode(const struct keyspace *keyspace, struct buffer *buffer)
{
        struct keyspace_hole holes[KEYSPACE_HOLES_MAX];
        size_t count = keyspace_holes(keyspace, holes);
        for (size_t i = 0; i < count; i++) {
                buffer_u8(buffer, holes[i].origin);
                buffer_u8(buffer, holes[i].mixed);
                buffer_u64(buffer, holes[i].low);
                buffer_u64(buffer, holes[i].high);
        }
}

/* ---- the records */

static enum err life_publish(struct keyspace *keyspace, struct stamp stamp, enum crdt_life kind,
                             uint64_t low, uint64_t high, struct keyspace_change *ret)
{
        struct buffer *delta = &keyspace->delta;
        buffer_reset(delta);
        crdt_delta_head(delta, stamp.hlc, CRDT_OP_LIFE, 0, (struct crdt_name){0});
        buffer_u8(delta, (uint8_t)kind);
        buffer_u64(delta, low);
        buffer_u64(delta, high);
        if (delta->err != ERR_NONE)
                return delta->err;
        if (kind == CRDT_LIFE_RESERVED)
                *ret = (struct keyspace_change){.stamp = stamp, .delta = buffer_view(delta)};
        else
                change_publish(keyspace, stamp, ret);
        return ERR_NONE;
}

/* Which life reserved the clock. */
static unsigned life_of(uint64_t reserved)
{
        return (unsigned)(reserved % (CRDT_LIVES_MAX + 1));
}

uint8_t keyspace_life(const struct keyspace *keyspace)
{
        for (unsigned i = 0; i < keyspace->seen.hole_count; i++) {
                if (keyspace->seen.holes[i].origin == keyspace->config.origin)
                        return keyspace->life;
        }
        return 0;
}

enum err keyspace_begin(struct keyspace *keyspace, uint64_t wall_ms, struct keyspace_change *ret)
{
        region_id self = keyspace->config.origin;
        uint64_t low = vector_get(&keyspace->seen.vector, self);
        struct hlc *hlc = &keyspace->hlc;
        hlc->last = keyspace->reserved > hlc->last ? keyspace->reserved : hlc->last;
        struct stamp stamp = {hlc_now(hlc, wall_ms), self};
        CHECK(stamp.hlc > low);
        keyspace->recovered = low;
        keyspace->life = (uint8_t)(life_of(keyspace->reserved) % CRDT_LIVES_MAX + 1);
        keyspace->issued = true;
        keyspace->first = stamp.hlc;
        keyspace->given = stamp.hlc;
        hole_open(&keyspace->seen, &keyspace->hinted, self, low, stamp.hlc);
        vector_advance(&keyspace->seen.vector, self, stamp.hlc);
        return life_publish(keyspace, stamp, CRDT_LIFE_BEGIN, low, keyspace->config.several, ret);
}

enum err keyspace_reserve(struct keyspace *keyspace, uint64_t wall_ms, struct keyspace_change *ret)
{
        uint64_t ahead_ms = RESERVE_MS;
        if (ahead_ms > keyspace->config.drift_max_ms / 2)
                ahead_ms = keyspace->config.drift_max_ms / 2;
        uint64_t part_ms = ahead_ms / RESERVE_PART;
        uint64_t last_ms = hlc_ms(keyspace->hlc.last);
        bool counted = last_ms > wall_ms + part_ms;
        uint64_t slack_ms = counted ? RESERVE_COUNTED_MS / 2 : ahead_ms - part_ms;
        uint64_t want_ms = (last_ms > wall_ms ? last_ms : wall_ms) + ahead_ms;
        *ret = (struct keyspace_change){.nothing = true};
        if (last_ms + slack_ms <= hlc_ms(keyspace->reserved) &&
            life_of(keyspace->reserved) == keyspace->life)
                return ERR_NONE;
        want_ms = counted ? last_ms + RESERVE_COUNTED_MS : want_ms;
        keyspace->reserved = hlc_of_ms(want_ms) | keyspace->life;
        struct stamp stamp = {keyspace->reserved, keyspace->config.origin};
        return life_publish(keyspace, stamp, CRDT_LIFE_RESERVED, 0, keyspace->reserved, ret);
}

uint64_t keyspace_reserved(const struct keyspace *keyspace)
{
        return keyspace->reserved;
}

bool keyspace_clock_bare(const struct keyspace *keyspace, uint64_t durable)
{
        return keyspace->hlc.last > durable;
}

void keyspace_floor(struct keyspace *keyspace, uint64_t reserved)
{
        if (reserved > keyspace->reserved)
                keyspace->reserved = reserved;
}

/* A hole that lies in (low, high) is empty; one that begins below it keeps that part. */
static void holes_close(struct keyspace *keyspace, region_id origin, uint64_t low, uint64_t high)
{
        struct crdt_seen *seen = &keyspace->seen;
        struct crdt_seen now = {.vector = seen->vector, .self = seen->self};
        for (unsigned i = 0; i < seen->hole_count; i++) {
                struct crdt_hole hole = seen->holes[i];
                if (hole.origin != origin || hole.high > high || hole.high <= low)
                        hole_open(&now, &keyspace->hinted, hole.origin, hole.low, hole.high);
                else
                        hole_open(&now, &keyspace->hinted, origin, hole.low, low + 1);
        }
        *seen = now;
}

enum err keyspace_close(struct keyspace *keyspace, uint64_t wall_ms, uint64_t low, uint64_t high,
                        struct keyspace_change *ret)
{
        struct crdt_seen *seen = &keyspace->seen;
        region_id self = keyspace->config.origin;
        uint64_t from = UINT64_MAX;
        *ret = (struct keyspace_change){.nothing = true};
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *own = &seen->holes[i];
                if (own->origin == self && own->low >= low && own->high <= high && own->low < from)
                        from = own->low;
        }
        if (from == UINT64_MAX)
                return ERR_INVALID;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        /* Where something may have come that we never claimed, the others take our state for it:
         * none of their holes is inside of nothing. */
        bool mixed = vector_get(&keyspace->hinted, self) > from;
        holes_close(keyspace, self, from, high);
        return life_publish(keyspace, stamp, CRDT_LIFE_CLOSED, mixed ? high - 1 : from, high, ret);
}

void keyspace_lived(struct keyspace *keyspace, const struct crdt_delta *delta)
{
        region_id origin = delta->stamp.origin;
        uint64_t position = vector_get(&keyspace->seen.vector, origin);
        uint64_t low = delta->low > position ? delta->low : position;
        if (delta->life == CRDT_LIFE_BEGIN && delta->high != 0 && low > delta->low) {
                /* The position came with what the origin's other servers wrote meanwhile. */
                vector_advance(&keyspace->hinted, origin, low);
                low = delta->low;
        }
        if (delta->life == CRDT_LIFE_BEGIN)
                hole_open(&keyspace->seen, &keyspace->hinted, origin, low, delta->stamp.hlc);
        else if (delta->life == CRDT_LIFE_CLOSED)
                holes_close(keyspace, origin, delta->low, delta->high);
        else if (origin == keyspace->config.origin && delta->high > keyspace->reserved)
                keyspace->reserved = delta->high;
}
