/* A database that was emptied: every content that the flusher had seen goes, what it had not seen
 * stays. A flush names no keys; it is applied to each key that is there, and again to each key for
 * which a write comes that it had seen. What it takes is the same in whatever order that happens:
 * a value, an opaque value, a field or a member dies by its own stamp, which is also what an
 * expiry would kill at. Only these can be judged by their stamps alone. Of other content, running
 * totals and HyperLogLogs for instance, a part may have been seen, so the flusher deletes such
 * keys one by one (crdt_flush_judges). */
#include "crdt/crdt_priv.h"
#include "crdt/zset.h"

bool crdt_flush_judges(const struct crdt *crdt)
{
        switch (crdt_type(crdt)) {
        case CRDT_STRING:
        case CRDT_HASH:
        case CRDT_SET:
        case CRDT_ZSET:
        case CRDT_OPAQUE:
                return !crdt_has_cuts(crdt) && !crdt_has_elements(crdt) && !crdt_has_scores(crdt);
        case CRDT_NONE:
                return !crdt->evicted && !crdt->partial;
        case CRDT_LIST:
        case CRDT_HLL:
        case CRDT_STREAM:
        case CRDT_SIBLINGS:
                break;
        }
        return false;
}

static void kill_seen(struct crdt *crdt, const struct crdt_seen *seen, struct stamp stamp)
{
        if (stamp_is(stamp) && crdt_seen_covers(seen, stamp))
                crdt->killed = stamp_max(crdt->killed, stamp);
}

void crdt_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen)
{
        change_begin(env, crdt);
        kill_seen(crdt, seen, crdt->base);
        kill_seen(crdt, seen, crdt->last[CRDT_OPAQUE]);
        if (stamp_is(crdt->ttl) && crdt_seen_covers(seen, crdt->ttl))
                ttl_join(crdt, crdt->ttl, 0);
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
        fields_flush(env, crdt, seen);
        members_flush(env, crdt, seen);
        zset_flush(env, crdt, seen);
        change_end(env, crdt);
}
