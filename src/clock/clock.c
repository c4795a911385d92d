/* Clocks and vectors. Nothing here fails but hlc_observe, which refuses a clock that is too far
 * ahead, and vector_decode, which marks its cursor. */
#include "clock/clock.h"

#include "base/check.h"

uint64_t hlc_now(struct hlc *hlc, uint64_t wall_ms)
{
        uint64_t wall = hlc_of_ms(wall_ms);
        CHECK(hlc->last < UINT64_MAX);
        /* A counter that runs over moves into the milliseconds, which keeps the order. */
        hlc->last = wall > hlc->last ? wall : hlc->last + 1;
        return hlc->last;
}

enum err hlc_observe(struct hlc *hlc, uint64_t remote, uint64_t wall_ms, uint64_t drift_max_ms)
{
        uint64_t remote_ms = hlc_ms(remote);
        if (remote_ms > wall_ms && remote_ms - wall_ms > drift_max_ms)
                return ERR_REFUSED;
        if (remote > hlc->last)
                hlc->last = remote;
        return ERR_NONE;
}

uint64_t vector_get(const struct vector *vector, region_id origin)
{
        return region_valid(origin) ? vector->hlc[origin] : 0;
}

void vector_advance(struct vector *vector, region_id origin, uint64_t hlc)
{
        if (region_valid(origin) && hlc > vector->hlc[origin])
                vector->hlc[origin] = hlc;
}

void vector_merge(struct vector *vector, const struct vector *other)
{
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                vector_advance(vector, (region_id)i, other->hlc[i]);
}

uint64_t vector_newest(const struct vector *vector)
{
        uint64_t newest = 0;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                newest = vector->hlc[i] > newest ? vector->hlc[i] : newest;
        return newest;
}

bool vector_covers(const struct vector *vector, struct stamp stamp)
{
        return stamp.hlc <= vector_get(vector, stamp.origin);
}

bool vector_includes(const struct vector *vector, const struct vector *other)
{
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (vector->hlc[i] < other->hlc[i])
                        return false;
        }
        return true;
}

void vector_encode(const struct vector *vector, struct buffer *buffer)
{
        unsigned count = 0;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                count += vector->hlc[i] != 0;
        buffer_varint(buffer, count);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (vector->hlc[i] == 0)
                        continue;
                buffer_u8(buffer, (uint8_t)i);
                buffer_u64(buffer, vector->hlc[i]);
        }
}

void vector_decode(struct cursor *cursor, struct vector *ret)
{
        struct vector vector = {0};
        uint64_t count = cursor_varint_max(cursor, CLOCK_REGIONS_MAX);
        region_id last = 0;
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                region_id origin = cursor_u8(cursor);
                uint64_t hlc = cursor_u64(cursor);
                if (!region_valid(origin) || origin <= last || hlc == 0) {
                        cursor_fail(cursor, ERR_MALFORMED);
                        return;
                }
                vector.hlc[origin] = hlc;
                last = origin;
        }
        *ret = vector;
}
