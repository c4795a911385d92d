/* Regions that were removed: when is it certain that nothing more of their streams will come?
 *
 * A tombstone may go when every member has seen it, and whatever it killed. Of a member's stream
 * that is certain by positions, for it goes on. The stream of a region that was removed ends
 * somewhere else at each of the others; what one has more goes round among them as a state. Until
 * then its positions hold tombstones back, as a member's do. So each member tells which regions are
 * members to it, and for each of the others a *mark*: a number of how far it has that one's stream,
 * with its holes. When every member has told that this region is none, all by the same mark, then
 * no one can get any more of it: nobody takes it from the region itself any more, and nobody has
 * more than the others. Its positions then count no longer.
 *
 * A member that was not heard since the removal holds tombstones back, as it would by its own
 * stream. So does one of which it is not known to whom it listens: a region that joins is a member
 * to some before it is one to the others, and these must not forget what its first writes are to
 * meet. */
#include "keyspace/keyspace_priv.h"

static uint64_t mark_number(uint64_t hash, uint64_t number)
{
        return hash_fnv_u64(hash, number);
}

/* 0: nothing of it is here. A sum over the holes, so that their order does not count. */
static uint64_t removed_mark(const struct keyspace *keyspace, region_id origin)
{
        const struct crdt_seen *seen = &keyspace->seen;
        uint64_t position = vector_get(&seen->vector, origin);
        uint64_t hinted = vector_get(&keyspace->hinted, origin);
        if (position == 0 && hinted == 0)
                return 0;
        uint64_t mark = mark_number(HASH_FNV_START, position);
        mark = mark_number(mark, hinted > position ? hinted : 0);
        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *hole = &seen->holes[i];
                if (hole->origin == origin)
                        mark += mark_number(mark_number(HASH_FNV_START, hole->low), hole->high);
        }
        return mark == 0 ? 1 : mark;
}

void removed_tell(const struct keyspace *keyspace, struct crdt_gone *ret)
{
        *ret = (struct crdt_gone){.members = keyspace->members};
        for (unsigned origin = 1; origin <= CLOCK_REGIONS_MAX; origin++)
                if (!member_is(keyspace, origin))
                        ret->marks.hlc[origin] = removed_mark(keyspace, (region_id)origin);
}

bool removed_settled(const struct keyspace *keyspace, region_id origin)
{
        uint64_t mark = removed_mark(keyspace, origin);
        for (unsigned member = 1; member <= CLOCK_REGIONS_MAX; member++) {
                const struct crdt_gone *told = &keyspace->gone[member];
                if (member == keyspace->config.origin || !member_is(keyspace, member))
                        continue;
                bool none = told->members != 0 && (told->members >> (origin - 1) & 1) == 0;
                if (!none || told->marks.hlc[origin] != mark)
                        return false;
        }
        return true;
}
