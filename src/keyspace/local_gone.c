/* Deletes and expiries made here. A delete takes what was observed of the key, and tells that; one
 * of a plain string tells no more than the key. Fails by running out of memory alone, with the key
 * as it was. */
#include "keyspace/keyspace_priv.h"

bool entry_holds(const struct entry *entry)
{
        return entry != NULL &&
               (entry_type(entry) != CRDT_NONE ||
                (entry->node.kind == ENTRY_FULL && (entry->crdt->evicted || entry->crdt->partial)));
}

static uint8_t observed_flags(const struct crdt *crdt)
{
        return (uint8_t)((crdt_has_cuts(crdt) ? CRDT_FLAG_CUTS : 0) |
                         (crdt_has_bounds(crdt) ? CRDT_FLAG_BOUNDS : 0) |
                         (crdt_has_scores(crdt) ? CRDT_FLAG_SCORES : 0) |
                         (crdt_has_elements(crdt) ? CRDT_FLAG_ELEMENTS : 0));
}

static void scores_encode(struct keyspace *keyspace, const struct crdt *crdt, struct buffer *delta)
{
        buffer_reset(&keyspace->text);
        crdt_scores_encode(crdt, &keyspace->text);
        if (keyspace->text.err != ERR_NONE)
                delta->err = keyspace->text.err;
        buffer_slice(delta, buffer_view(&keyspace->text));
}

static void observed_encode(struct keyspace *keyspace, const struct crdt *crdt, uint8_t flags,
                            struct buffer *delta)
{
        if ((flags & CRDT_FLAG_CUTS) != 0)
                crdt_cuts_encode(crdt, delta);
        if ((flags & CRDT_FLAG_BOUNDS) != 0)
                crdt_bounds_encode(crdt, delta);
        if ((flags & CRDT_FLAG_SCORES) != 0)
                scores_encode(keyspace, crdt, delta);
        if ((flags & CRDT_FLAG_ELEMENTS) != 0)
                crdt_elements_encode(crdt, delta);
}

static void stamp_encode(struct buffer *buffer, struct stamp stamp)
{
        buffer_u64(buffer, stamp.hlc);
        buffer_u8(buffer, stamp.origin);
}

/* A delete or expiry of siblings takes away those that were seen, and no others. */
static enum err siblings_remove(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                struct keyspace_change *ret)
{
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_SIBLING, CRDT_FLAG_REMOVED, entry_name(entry));
        crdt_siblings_cuts(entry->crdt, delta);
        stamp_encode(delta, entry->crdt->ttl);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

void entry_kill(struct keyspace *keyspace, struct entry *entry, struct stamp stamp)
{
        entry_count(keyspace, CRDT_STRING, CRDT_NONE);
        entry->node.kind = ENTRY_DEAD;
        entry->more = entry->hlc;
        entry->more_origin = entry->origin;
        entry->hlc = stamp.hlc;
        entry->origin = stamp.origin;
}

enum err delete_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        struct keyspace_change *ret)
{
        struct crdt room;
        if (!entry_shorten(keyspace, entry) && !entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        if (entry_type(entry) == CRDT_SIBLINGS)
                return siblings_remove(keyspace, stamp, entry, ret);
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        uint8_t flags = observed_flags(crdt);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_DEL, flags, entry_name(entry));
        observed_encode(keyspace, crdt, flags, delta);
        if (entry->node.kind == ENTRY_FULL)
                return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
        if (delta->err != ERR_NONE)
                return delta->err;
        entry_kill(keyspace, entry, stamp);
        change_publish(keyspace, stamp, ret);
        return ERR_NONE;
}

enum err entry_delete(struct keyspace *keyspace, uint64_t wall_ms, struct entry *entry,
                      struct keyspace_change *ret)
{
        if (!entry_holds(entry))
                return change_nothing(ret);
        return delete_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, ret);
}

enum err keyspace_local_delete(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                               struct keyspace_change *ret)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        return entry_delete(keyspace, wall_ms, entry, ret);
}

/* A store may strike with a clock that is a little ahead of ours; a HyperLogLog's expiry kills at
 * its own time, which must not be later than the stamp. */
static uint64_t expired_wall_ms(const struct entry *entry, uint64_t wall_ms)
{
        enum {
                AHEAD_MS_MAX = 1000,
        };
        if (entry_type(entry) != CRDT_HLL)
                return wall_ms;
        uint64_t at_ms = crdt_expire_at(entry->crdt);
        return at_ms > wall_ms && at_ms - wall_ms <= AHEAD_MS_MAX ? at_ms : wall_ms;
}

enum err keyspace_local_expired(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                struct keyspace_change *ret)
{
        struct crdt room;
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (!entry_holds(entry))
                return change_nothing(ret);
        if (!entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        if (entry_type(entry) == CRDT_SIBLINGS)
                return siblings_remove(keyspace, keyspace_issue(keyspace, wall_ms), entry, ret);
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        uint8_t flags = observed_flags(crdt);
        struct stamp stamp = keyspace_issue(keyspace, expired_wall_ms(entry, wall_ms));
        struct stamp killed =
                entry_type(entry) == CRDT_HLL ? crdt_hll_expiry(crdt, stamp) : crdt_observed(crdt);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_EXPIRED, flags, name);
        stamp_encode(delta, killed);
        stamp_encode(delta, crdt->ttl);
        observed_encode(keyspace, crdt, flags, delta);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

bool entry_expire(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                  uint64_t expire_at_ms)
{
        if (entry->node.kind == ENTRY_PACK)
                return crdt_pack_expire(&keyspace->env, &entry->pack, stamp, expire_at_ms);
        if (entry->node.kind != ENTRY_STRING || entry->hlc == 0)
                return false;
        struct crdt_pack *pack = crdt_pack_string_new(&keyspace->env, stamp, expire_at_ms);
        if (pack == NULL)
                return false;
        entry->node.kind = ENTRY_PACK;
        entry->pack = pack;
        entry->more_origin = 0;
        return true;
}

enum err expire_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        uint64_t expire_at_ms, struct keyspace_change *ret)
{
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_EXPIRE, 0, entry_name(entry));
        buffer_varint(delta, expire_at_ms);
        if (delta->err != ERR_NONE || !entry_expire(keyspace, entry, stamp, expire_at_ms))
                return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
        change_publish(keyspace, stamp, ret);
        return ERR_NONE;
}

enum err keyspace_local_expire(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                               uint64_t expire_at_ms, struct keyspace_change *ret)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (!entry_holds(entry))
                return change_nothing(ret);
        return expire_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, expire_at_ms,
                              ret);
}
