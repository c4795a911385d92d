/* seen.c - what a replica has seen: how far of each origin's stream, but for the holes in it
 * (crdt.h). Decoding refuses a hole that reaches beyond what was seen. */
#include "crdt/crdt_priv.h"

bool crdt_seen_covers(const struct crdt_seen *seen, struct stamp stamp)
{
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *hole = &seen->holes[i];
                if (stamp.origin == hole->origin && stamp.hlc > hole->low && stamp.hlc < hole->high)
                        return false;
        }
        return vector_covers(&seen->vector, stamp);
}

bool crdt_seen_through(const struct crdt_seen *seen, struct stamp stamp)
{
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *hole = &seen->holes[i];
                if (stamp.origin == hole->origin && stamp.hlc > hole->low)
                        return false;
        }
        return vector_covers(&seen->vector, stamp);
}

void crdt_seen_encode(const struct crdt_seen *seen, struct buffer *buffer)
{
        buffer_varint(buffer, seen->hole_count);
        for (unsigned i = 0; i < seen->hole_count; i++) {
                buffer_u8(buffer, seen->holes[i].origin);
                buffer_u64(buffer, seen->holes[i].low);
                buffer_u64(buffer, seen->holes[i].high);
        }
        vector_encode(&seen->vector, buffer);
}

void crdt_seen_decode(struct cursor *cursor, region_id self, struct crdt_seen *ret)
{
        struct crdt_seen seen = {.self = self};
        seen.hole_count = (uint8_t)cursor_varint_max(cursor, CRDT_HOLES_MAX);
        for (unsigned i = 0; i < seen.hole_count; i++) {
                seen.holes[i].origin = cursor_u8(cursor);
                seen.holes[i].low = cursor_u64(cursor);
                seen.holes[i].high = cursor_u64(cursor);
        }
        vector_decode(cursor, &seen.vector);
        for (unsigned i = 0; i < seen.hole_count && !cursor_failed(cursor); i++) {
                const struct crdt_hole *hole = &seen.holes[i];
                if (!region_valid(hole->origin) || hole->low >= hole->high ||
                    hole->high - 1 > vector_get(&seen.vector, hole->origin))
                        cursor_fail(cursor, ERR_MALFORMED);
        }
        if (!cursor_failed(cursor))
                *ret = seen;
}

/* Our own stream does not come to us. */
static bool comes_again(const struct crdt_env *env, struct stamp stamp)
{
        return env->level != NULL && stamp.origin != env->seen->self &&
               !vector_covers(env->level, stamp);
}

bool env_seen(const struct crdt_env *env, struct stamp stamp)
{
        return env->seen != NULL && crdt_seen_covers(env->seen, stamp) && !comes_again(env, stamp);
}

bool env_seen_through(const struct crdt_env *env, struct stamp stamp)
{
        return env->seen != NULL && crdt_seen_through(env->seen, stamp) && !comes_again(env, stamp);
}

bool env_settled(const struct crdt_env *env, struct stamp stamp)
{
        return env->settled == NULL || vector_covers(env->settled, stamp);
}
