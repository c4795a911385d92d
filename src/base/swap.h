/* swap.h - replacing something that other threads read, without making them wait. A fixed number of
 * slots; one is current. A reader enters the current slot and leaves it again; the one writer fills
 * a slot that nobody is in and makes it current. The caller keeps the things themselves, in an
 * array of SWAP_SLOTS.
 *
 * Readers: two additions on a cache line of their own (choose `shard` by thread; sharing one is
 * correct, only slower), no lock, no system call. A reader that never leaves costs a slot, never
 * correctness. Writers must exclude each other.
 *
 * Why it holds: all operations below are sequentially consistent. A reader counts itself in and
 * then looks again whether the slot is current; a writer first takes a slot out of use and then
 * looks whether it is empty. Whichever comes first, one of the two sees the other. */
#ifndef MERIDIAN_BASE_SWAP_H
#define MERIDIAN_BASE_SWAP_H

#include "base/bytes.h"

#include <stdatomic.h>

#define SWAP_SLOTS  4
#define SWAP_SHARDS 16
#define SWAP_NONE   (-1)

struct swap_count {
        _Alignas(64) atomic_uint readers;
};

struct swap {
        atomic_int current;
        struct swap_count counts[SWAP_SLOTS][SWAP_SHARDS];
};

static inline void swap_init(struct swap *swap)
{
        atomic_init(&swap->current, SWAP_NONE);
        for (int slot = 0; slot < SWAP_SLOTS; slot++) {
                for (int shard = 0; shard < SWAP_SHARDS; shard++)
                        atomic_init(&swap->counts[slot][shard].readers, 0u);
        }
}

/* The current slot, which stays as it is until swap_leave; SWAP_NONE when there is
 * none (then do not leave). */
MUST_USE static inline int swap_enter(struct swap *swap, unsigned shard)
{
        for (;;) {
                int slot = atomic_load(&swap->current);
                if (slot == SWAP_NONE)
                        return SWAP_NONE;
                atomic_uint *readers = &swap->counts[slot][shard % SWAP_SHARDS].readers;
                atomic_fetch_add(readers, 1u);
                if (atomic_load(&swap->current) == slot)
                        return slot;
                atomic_fetch_sub(readers, 1u);
        }
}

static inline void swap_leave(struct swap *swap, unsigned shard, int slot)
{
        atomic_fetch_sub(&swap->counts[slot][shard % SWAP_SHARDS].readers, 1u);
}

/* True when the slot is not current and nobody is in it. For the writer. */
MUST_USE static inline bool swap_idle(struct swap *swap, int slot)
{
        if (atomic_load(&swap->current) == slot)
                return false;
        for (int shard = 0; shard < SWAP_SHARDS; shard++) {
                if (atomic_load(&swap->counts[slot][shard].readers) != 0)
                        return false;
        }
        return true;
}

/* An idle slot, or SWAP_NONE: try again later. For the writer. */
MUST_USE static inline int swap_idle_find(struct swap *swap)
{
        for (int slot = 0; slot < SWAP_SLOTS; slot++) {
                if (swap_idle(swap, slot))
                        return slot;
        }
        return SWAP_NONE;
}

/* Makes a filled idle slot current, or SWAP_NONE to take it away. For the writer. */
static inline void swap_set(struct swap *swap, int slot)
{
        atomic_store(&swap->current, slot);
}

#endif
