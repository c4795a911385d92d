/* promote.c - what a server remembers of changes that it had not logged when it stopped being the
 * primary (FAILOVER, REPLICAOF, CLUSTER FAILOVER), and how its region comes to remember the same.
 *
 * The native commands of a turn reach the replicas as they run, the LOG record at its end, and not
 * at all while clients are paused. So the replica that takes over may hold changes without a
 * record: they are in its `dirty`, and are stamped anew. Where the old primary goes on from the
 * same offset, without a snapshot, its memory holds them under their first stamps, which nobody
 * else has ever seen: a counter would count them twice. So
 *
 *   the old one    takes the deltas back from its ring, and lists their keys as `unlogged`;
 *   the new one    logs, behind what it stamps anew, all that is remembered of each such key, which
 *                  then takes the place of what a replica remembers (log_forget, log_moved);
 *   whoever becomes primary with a list that nobody has made good stamps those keys anew himself;
 *                  where the failover came to nothing, what was not told may be a delete, so
 *                  that the readers get the state.
 *
 * A snapshot that is loaded makes all of it good. */
#include "plugin.h"

static struct buffer unlogged; /* keys: u32 db, slice key */
static bool alone;             /* nobody has stamped any of them anew, and not all are mere adds */
static bool promoted;          /* since then nothing has been stamped anew */

static void list_key(struct crdt_name name)
{
        if (unlogged.heap == NULL)
                buffer_init(&unlogged, &plugin.heap);
        local_dirty(&unlogged, name);
}

void promote_left(void)
{
        struct log_unsaid unsaid;
        log_pending(&unsaid, list_key);
        if (unsaid.any)
                keyspace_unlogged(plugin.keyspace, unsaid.first);
        alone = alone || unsaid.changed;
}

void promote_begin(void)
{
        promoted = true;
        if (alone)
                keyspace_unlogged(plugin.keyspace, 0);
        alone = false;
        buffer_bytes(&plugin.dirty, buffer_view(&unlogged));
        plugin_must(plugin.dirty.err, "the list of changed keys");
        buffer_reset(&unlogged);
}

bool promote_refuses(struct redis_context *ctx)
{
        if (unlogged.len == 0)
                return false;
        redis.ReplyWithError(ctx, "MERIDIAN this server has changes that its primary lacks");
        return true;
}

void promote_stamped(struct crdt_name name)
{
        if (!promoted)
                return;
        struct buffer state;
        buffer_init(&state, &plugin.heap);
        enum err err = keyspace_move_out(plugin.keyspace, name, &state);
        log_forget(name);
        if (err == ERR_NONE)
                log_moved(keyspace_clock(plugin.keyspace), buffer_view(&state));
        buffer_fini(&state);
        plugin_must(err == ERR_NOT_FOUND ? ERR_NONE : err, "a key that is stamped anew");
}

void promote_end(void)
{
        promoted = false;
}

void promote_good(struct crdt_name name)
{
        struct buffer rest;
        alone = false;
        if (unlogged.len == 0)
                return;
        buffer_init(&rest, &plugin.heap);
        struct cursor cursor = cursor_of(buffer_view(&unlogged));
        while (cursor_left(&cursor) > 0) {
                struct crdt_name other = local_listed(&cursor);
                CHECK(!cursor_failed(&cursor));
                if (other.db != name.db || !bytes_equal(other.key, name.key))
                        local_dirty(&rest, other);
        }
        buffer_fini(&unlogged);
        unlogged = rest;
}

void promote_reset(void)
{
        promoted = alone = false;
        if (unlogged.heap != NULL)
                buffer_reset(&unlogged);
}
