/* See ring.h. Nothing fails but ring_init; a delta that is too large empties the ring, and readers
 * then see that it begins later than they are. */
#include "keyspace/ring.h"

#include "base/check.h"

enum {
        RING_PREFIX_MAX = 10,
        RING_BYTES_FIRST = 64 << 10,
};

static uint64_t marks_for(uint64_t size)
{
        return size / RING_MARK_BYTES + 2;
}

/* Makes both arrays larger, or leaves the ring as it is. */
static bool ring_resize(struct ring *ring, uint64_t size)
{
        size_t marks_bytes = 0;
        if (__builtin_mul_overflow(marks_for(size), sizeof *ring->marks, &marks_bytes))
                return false;
        struct ring_mark *marks = heap_resize(ring->heap, ring->marks, marks_bytes);
        if (marks == NULL)
                return false;
        ring->marks = marks;
        uint8_t *data = heap_resize(ring->heap, ring->data, size);
        if (data == NULL)
                return false;
        ring->data = data;
        ring->size = size;
        ring->mark_size = marks_for(size);
        return true;
}

bool ring_init(struct ring *ring, struct heap *heap, uint64_t limit)
{
        *ring = (struct ring){.heap = heap, .limit = limit};
        return ring_resize(ring, limit < RING_BYTES_FIRST ? limit : RING_BYTES_FIRST);
}

void ring_fini(struct ring *ring)
{
        heap_free(ring->heap, ring->data);
        heap_free(ring->heap, ring->marks);
        *ring = (struct ring){0};
}

/* At the end of the memory: grows so that `need` fits, while it has never gone round. Where memory
 * is short it goes round from now on. */
static void ring_grow(struct ring *ring, uint64_t need)
{
        uint64_t size = ring->size;
        while (size < ring->limit && size - ring->head_at < need)
                size = size < ring->limit / 2 ? size * 2 : ring->limit;
        if (size != ring->size && !ring_resize(ring, size))
                ring->limit = ring->size;
}

static size_t prefix_len(size_t len)
{
        size_t count = 1;
        for (; len >= 0x80; len >>= 7)
                count++;
        return count;
}

static uint8_t *prefix_write(uint8_t *at, size_t len)
{
        for (; len >= 0x80; len >>= 7)
                *at++ = (uint8_t)(len | 0x80);
        *at++ = (uint8_t)len;
        return at;
}

/* Where the delta at `place` has its body, and its length. */
static const uint8_t *delta_at(const struct ring *ring, uint64_t place, size_t *ret_len)
{
        const uint8_t *at = ring->data + place % ring->size;
        size_t len = 0;
        for (unsigned shift = 0; shift < 7 * RING_PREFIX_MAX; shift += 7) {
                uint8_t byte = *at++;
                len |= (size_t)(byte & 0x7f) << shift;
                if (byte < 0x80)
                        break;
        }
        *ret_len = len;
        return at;
}

static uint64_t clock_at(const uint8_t *body)
{
        uint64_t hlc = 0;
        for (unsigned i = 8; i > 0; i--)
                hlc = hlc << 8 | body[i - 1];
        return hlc;
}

/* The place after the delta at `place`, past the gap at the end. */
static uint64_t place_next(const struct ring *ring, uint64_t place)
{
        size_t len = 0;
        const uint8_t *body = delta_at(ring, place, &len);
        uint64_t next = place + (uint64_t)(body - (ring->data + place % ring->size)) + len;
        if (ring->seamed && next == ring->seam)
                next += ring->size - next % ring->size;
        return next;
}

static uint64_t place_clock(const struct ring *ring, uint64_t place)
{
        size_t len = 0;
        return clock_at(delta_at(ring, place, &len));
}

static void ring_drop(struct ring *ring)
{
        CHECK(ring->count > 0);
        uint64_t next = place_next(ring, ring->tail);
        ring->dropped = place_clock(ring, ring->tail);
        if (ring->seamed && next > ring->seam)
                ring->seamed = false;
        ring->tail = next;
        ring->count--;
        while (ring->mark_tail < ring->mark_head &&
               ring->marks[ring->mark_tail % ring->mark_size].at < ring->tail)
                ring->mark_tail++;
}

static void ring_clear(struct ring *ring)
{
        ring->dropped = ring->last;
        ring->tail = ring->head;
        ring->count = 0;
        ring->seamed = false;
        ring->mark_tail = ring->mark_head;
}

void ring_forget(struct ring *ring, uint64_t hlc)
{
        while (ring->count > 0 && place_clock(ring, ring->tail) <= hlc)
                ring_drop(ring);
        ring->last = hlc > ring->last ? hlc : ring->last;
        ring->dropped = hlc > ring->dropped ? hlc : ring->dropped;
}

static void ring_mark(struct ring *ring, uint64_t hlc, uint64_t place)
{
        bool none = ring->mark_head == ring->mark_tail;
        if (!none && place - ring->marked < RING_MARK_BYTES)
                return;
        ring->marked = place;
        CHECK(ring->mark_head - ring->mark_tail < ring->mark_size);
        ring->marks[ring->mark_head++ % ring->mark_size] =
                (struct ring_mark){hlc, place, ring->appended};
}

uint8_t *ring_append_slow(struct ring *ring, uint64_t hlc, size_t len)
{
        CHECK(hlc >= ring->last);
        CHECK(len >= sizeof hlc);
        uint64_t need = prefix_len(len) + len;
        if (need <= ring->limit && ring->size - ring->head_at < need)
                ring_grow(ring, need);
        if (need > ring->size) {
                ring->last = hlc;
                ring_clear(ring);
                return NULL;
        }
        uint64_t left = ring->size - ring->head_at;
        uint64_t start = left < need ? ring->head + left : ring->head;
        uint64_t start_at = left < need ? 0 : ring->head_at;
        while (ring->count > 0 && start + need - ring->tail > ring->size)
                ring_drop(ring);
        if (ring->count == 0) {
                ring->tail = start;
                ring->seamed = false;
        } else if (start != ring->head) {
                ring->seam = ring->head;
                ring->seamed = true;
        }
        ring_mark(ring, hlc, start);
        ring->head = start + need;
        ring->head_at = start_at + need;
        if (ring->head_at == ring->size && ring->size == ring->limit)
                ring->head_at = 0;
        ring->count++;
        ring->appended++;
        ring->last = hlc;
        return prefix_write(ring->data + start_at, len);
}

/* The place of the first delta with a clock > `after`; head where there is none; and its number. */
static uint64_t ring_seek(const struct ring *ring, uint64_t after, uint64_t *ret_number)
{
        uint64_t low = ring->mark_tail;
        uint64_t high = ring->mark_head;
        uint64_t place = ring->tail;
        uint64_t number = ring->appended - ring->count;
        while (low < high) {
                uint64_t middle = low + (high - low) / 2;
                const struct ring_mark *mark = &ring->marks[middle % ring->mark_size];
                if (mark->hlc <= after) {
                        place = mark->at;
                        number = mark->number;
                        low = middle + 1;
                } else {
                        high = middle;
                }
        }
        for (; place < ring->head && place_clock(ring, place) <= after; number++)
                place = place_next(ring, place);
        *ret_number = number;
        return place;
}

void ring_cut(struct ring *ring, uint64_t hlc)
{
        uint64_t number;
        if (ring->count == 0 || hlc > ring->last)
                return;
        uint64_t place = ring_seek(ring, hlc == 0 ? 0 : hlc - 1, &number);
        while (ring->mark_head > ring->mark_tail &&
               ring->marks[(ring->mark_head - 1) % ring->mark_size].at >= place)
                ring->mark_head--;
        bool marked = ring->mark_head > ring->mark_tail;
        const struct ring_mark *mark = &ring->marks[(ring->mark_head - 1) % ring->mark_size];
        ring->marked = marked ? mark->at : 0;
        ring->last = ring->dropped;
        for (uint64_t at = marked ? mark->at : ring->tail; at < place; at = place_next(ring, at))
                ring->last = place_clock(ring, at);
        ring->count -= ring->appended - number;
        ring->appended = number;
        ring->seamed = ring->seamed && ring->seam < place;
        ring->head = place;
        ring->head_at = place % ring->size;
}

struct ring_rest ring_rest(const struct ring *ring, uint64_t after)
{
        uint64_t number;
        if (ring->count == 0 || after >= ring->last)
                return (struct ring_rest){0};
        uint64_t place = ring_seek(ring, after, &number);
        return (struct ring_rest){.count = ring->appended - number,
                                  .bytes = ring->head - place,
                                  .first = place_clock(ring, place)};
}

struct ring_read ring_read(const struct ring *ring, uint64_t after, size_t bytes_max)
{
        struct ring_read read = {.last = after};
        if (ring->count == 0 || after >= ring->last)
                return read;
        uint64_t number;
        uint64_t from = ring_seek(ring, after, &number);
        uint64_t place = from;
        uint64_t end = from;
        unsigned part = 0;
        while (place < ring->head && (read.count == 0 || place - from < bytes_max ||
                                      place_clock(ring, place) == read.last)) {
                /* Past the gap, or past the end of the memory where a delta filled it exactly. */
                if (read.count > 0 && place % ring->size == 0)
                        part = 1;
                from += place - end;
                size_t len = 0;
                const uint8_t *begin = ring->data + place % ring->size;
                const uint8_t *body = delta_at(ring, place, &len);
                if (read.parts[part].len == 0)
                        read.parts[part].ptr = begin;
                read.parts[part].len += (size_t)(body - begin) + len;
                read.last = clock_at(body);
                read.count++;
                end = place + (uint64_t)(body - begin) + len;
                place = place_next(ring, place);
        }
        return read;
}

uint64_t ring_first(const struct ring *ring)
{
        return ring->count == 0 ? 0 : place_clock(ring, ring->tail);
}
