/* The newest deltas of the others, kept for those whom their origin does not reach: the survivors
 * of a region that died, or a region whose link to it is cut. One ring an origin, made when the
 * first of its deltas comes. A ring is whole from where it begins to the position: what came by a
 * state transfer is not in it, so a reader that is below that takes a state transfer too. */
#include "keyspace/keyspace_priv.h"

enum {
        RELAY_PART = 8, /* of the own ring's size, for each origin */
        RELAY_BYTES_MIN = 4096,
};

void relay_append(struct keyspace *keyspace, region_id origin, uint64_t hlc, struct bytes delta)
{
        struct ring *ring = &keyspace->relays[origin];
        if (ring->data == NULL) {
                uint64_t size = keyspace->config.ring_bytes / RELAY_PART;
                size = size < RELAY_BYTES_MIN ? RELAY_BYTES_MIN : size;
                if (!ring_init(ring, keyspace->heap, size)) {
                        ring_fini(ring); /* they take the whole state then */
                        return;
                }
                ring->dropped = ring->last = vector_get(&keyspace->seen.vector, origin);
        }
        if (hlc <= ring->dropped)
                return; /* it came before, and is forgotten */
        uint8_t *at = ring_append(ring, hlc, delta.len);
        if (at != NULL)
                memcpy(at, delta.ptr, delta.len);
}

void relay_forget(struct keyspace *keyspace, region_id origin, uint64_t hlc)
{
        if (keyspace->relays[origin].data != NULL)
                ring_forget(&keyspace->relays[origin], hlc);
}

void relay_fini(struct keyspace *keyspace)
{
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                ring_fini(&keyspace->relays[i]);
}

enum err keyspace_relay(const struct keyspace *keyspace, region_id origin, uint64_t after,
                        size_t bytes_max, struct keyspace_batch *ret)
{
        *ret = (struct keyspace_batch){.last = after, .reach = after};
        if (!region_valid(origin) || origin == keyspace->config.origin)
                return ERR_INVALID;
        const struct ring *ring = &keyspace->relays[origin];
        uint64_t position = vector_get(&keyspace->seen.vector, origin);
        if (after >= position)
                return ERR_NONE;
        if (ring->data == NULL || after < ring->dropped || after < keyspace->collected_to) {
                ret->gap = true;
                return ERR_NONE;
        }
        struct ring_read read = ring_read(ring, after, bytes_max);
        ret->parts[0] = read.parts[0];
        ret->parts[1] = read.parts[1];
        ret->count = read.count;
        ret->last = read.last;
        bool all = read.count == 0 || read.last >= ring->last;
        ret->reach = all && position > read.last ? position : read.last;
        return ERR_NONE;
}
