/* holes.c - what a position claims and its owner has not, and whether somebody can fill it. */
#include "base/cursor.h"
#include "replication/replication_priv.h"

bool holes_decode(struct bytes data, struct hole *ret, size_t *ret_count)
{
        struct cursor cursor = cursor_of(data);
        size_t count = data.len / WORLD_HOLE_LEN;
        if (data.ptr == NULL || data.len % WORLD_HOLE_LEN != 0 || count > WORLD_HOLES_MAX)
                return false;
        for (size_t i = 0; i < count; i++) {
                ret[i].origin = cursor_u8(&cursor);
                ret[i].mixed = cursor_u8(&cursor) != 0;
                ret[i].low = cursor_u64(&cursor);
                ret[i].high = cursor_u64(&cursor);
        }
        *ret_count = count;
        return true;
}

/* The first clock from `clock` on that is in none of its holes. */
static uint64_t past_holes(struct holdings holdings, uint64_t clock)
{
        for (size_t i = 0; i < holdings.hole_count;) {
                const struct hole *hole = &holdings.holes[i++];
                if (hole->origin != holdings.origin || clock <= hole->low || clock >= hole->high)
                        continue;
                clock = hole->high;
                i = 0;
        }
        return clock;
}

bool holes_fillable(struct holdings other, struct holdings holder)
{
        for (size_t i = 0; i < other.hole_count; i++) {
                const struct hole *hole = &other.holes[i];
                if (hole->origin != other.origin || hole->low >= other.position)
                        continue;
                uint64_t clock = past_holes(holder, hole->low + 1);
                if (clock < hole->high && clock <= holder.position)
                        return true;
        }
        return false;
}

bool holes_mixed(struct holdings other, struct holdings holder)
{
        for (size_t i = 0; i < other.hole_count; i++) {
                const struct hole *hole = &other.holes[i];
                if (hole->origin != other.origin || hole->low >= other.position)
                        continue;
                for (size_t k = 0; k < holder.hole_count; k++) {
                        const struct hole *with = &holder.holes[k];
                        if (with->origin == hole->origin && with->mixed &&
                            with->low < hole->high - 1 && with->high - 1 > hole->low)
                                return true;
                }
        }
        return false;
}

bool holes_hinted(struct holdings other, struct holdings holder)
{
        uint64_t top = other.position + 1;
        for (size_t i = 0; i < other.hole_count; i++)
                if (other.holes[i].origin == other.origin && other.holes[i].mixed &&
                    other.holes[i].high > top)
                        top = other.holes[i].high;
        for (size_t i = 0; i < holder.hole_count; i++)
                if (holder.holes[i].origin == other.origin && holder.holes[i].mixed &&
                    holder.holes[i].high > top)
                        return true;
        return false;
}

struct holdings replication_own(const struct replication *r, region_id origin)
{
        struct holdings own = {origin, r->own_position, r->holes, r->hole_count};
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].region == origin)
                        own.position = r->peers[i].receiver.position;
        return own;
}
