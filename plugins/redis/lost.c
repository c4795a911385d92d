/* lost.c - keys whose slot went to another server of the region's Redis Cluster without them.
 *
 * A server that hears that a slot with keys is another one's now deletes them: where a slot was
 * given away by hand, or two servers claim one after a partition. To this region their values are
 * lost, as in any cluster; the other regions have them still. So these deletes are none of ours:
 *
 *      Valkey, Redis from 7.2   tell them as "del", outside of any command
 *      Redis 7.0                tells nothing: what is remembered of keys in slots that are not
 *                               here is looked for, some time after slots have changed
 *
 * Both times the key is forgotten here, so that the digests differ, and `meridian verify` names it.
 * Where the slots cannot be told, nothing is done. */
#include "plugin.h"

#include "keyspace/shards.h"

enum {
        LOOK_MS = 1000,
        CALM_MS = 3000,    /* after slots have changed: many move one after the other */
        WALK_STEPS = 1024, /* buckets a turn */
};

static struct {
        uint8_t slots[SHARDS_SLOTS / 8]; /* that are here, or come */
        uint64_t look_ms;                /* when they are to be asked for */
        uint64_t walk_ms;                /* when the walk is to begin; 0: none is */
        bool walking;
        uint64_t cursor;
        uint64_t count; /* lost in this walk */
        struct buffer names;
} lost;

static bool slot_in(const uint8_t *slots, struct bytes key)
{
        unsigned slot = shards_slot(key);
        return (slots[slot / 8] >> slot % 8 & 1) != 0;
}

static void forget(struct crdt_name name)
{
        keyspace_forget(plugin.keyspace, name);
        log_forget(name);
}

static void tell(struct redis_context *ctx, uint64_t count, struct bytes key)
{
        redis.Log(
                ctx, "warning",
                "meridian: %llu keys (%.*s ...) were in slots that are another server's now, which "
                "has them not: their values are lost to this region; `meridian verify` names them, "
                "the other regions have them",
                (unsigned long long)count, BYTES_ARGS(key));
}

bool lost_key(struct redis_context *ctx, struct crdt_name name)
{
        static uint64_t told_ms;
        uint8_t slots[SHARDS_SLOTS / 8];
        if (!cluster_enabled() || name.db != 0 || cluster_answers(ctx, name.key) ||
            !cluster_slots(ctx, slots) || slot_in(slots, name.key))
                return false;
        forget(name);
        if (plugin_now_ms() >= told_ms + LOOK_MS)
                tell(ctx, 1, name.key);
        told_ms = plugin_now_ms();
        return true;
}

static void each(void *context, const struct keyspace_key *key)
{
        (void)context;
        if (key->type != CRDT_NONE && !slot_in(lost.slots, key->name.key))
                local_dirty(&lost.names, key->name);
}

static void walk(struct redis_context *ctx)
{
        uint8_t slots[SHARDS_SLOTS / 8];
        lost.walking = cluster_slots(ctx, slots) && memcmp(slots, lost.slots, sizeof slots) == 0;
        if (!lost.walking)
                return; /* they have changed: it begins anew later */
        if (lost.names.heap == NULL)
                buffer_init(&lost.names, &plugin.heap);
        buffer_reset(&lost.names);
        lost.cursor = keyspace_each(plugin.keyspace, lost.cursor, WALK_STEPS, each, NULL);
        struct bytes last = {0};
        struct cursor cursor = cursor_of(buffer_view(&lost.names));
        while (cursor_left(&cursor) > 0) {
                struct crdt_name name = local_listed(&cursor);
                if (migrate_name_there(ctx, name))
                        continue;
                forget(name);
                lost.count++;
                last = name.key;
        }
        if (last.len > 0)
                tell(ctx, lost.count, last);
        lost.walking = lost.cursor != 0;
}

void lost_turn(struct redis_context *ctx)
{
        uint8_t slots[SHARDS_SLOTS / 8];
        uint64_t now_ms = plugin_now_ms();
        if (!cluster_enabled())
                return;
        if (lost.walking)
                walk(ctx);
        if (now_ms < lost.look_ms)
                return;
        lost.look_ms = now_ms + LOOK_MS;
        if (!cluster_slots(ctx, slots))
                return;
        if (memcmp(slots, lost.slots, sizeof slots) != 0) {
                memcpy(lost.slots, slots, sizeof slots);
                lost.walking = false;
                lost.walk_ms = now_ms + CALM_MS;
        } else if (lost.walk_ms != 0 && now_ms >= lost.walk_ms) {
                lost.walk_ms = 0;
                lost.walking = true;
                lost.cursor = 0;
                lost.count = 0;
        }
}
