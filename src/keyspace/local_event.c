/* Messages that go with the stream: no key changes, so there is nothing to merge, and no place for
 * them in a state. */
#include "keyspace/keyspace_priv.h"

enum err keyspace_local_event(struct keyspace *keyspace, uint64_t wall_ms, struct bytes channel,
                              struct bytes message, bool shard, struct keyspace_change *ret)
{
        struct crdt_name name = {0, channel};
        if (!name_fits(name) || message.len > CRDT_NAME_LEN_MAX)
                return ERR_LIMIT;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_EVENT, shard ? CRDT_FLAG_SHARD : 0, name);
        buffer_bytes(delta, message);
        if (delta->err != ERR_NONE)
                return ERR_NOMEM;
        change_publish(keyspace, stamp, ret);
        return ERR_NONE;
}
