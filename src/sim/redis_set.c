/* redis_set.c - sets. */
#include "sim/redis_priv.h"

static void change_set(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char text[8];
        struct bytes member = redis_draw_field(redis->sim, text);
        if (key != NULL && key->type != CRDT_SET)
                return;
        enum err err;
        if (turn == 1) {
                if (!model_has_member(redis, name, member))
                        return;
                redis->native.set_remove(redis, name, member);
                err = keyspace_local_set_remove(redis->keyspace, redis_wall_ms(redis), name,
                                                &member, 1, &change);
        } else {
                redis->native.set_add(redis, name, member);
                err = keyspace_local_set_add(redis->keyspace, redis_wall_ms(redis), name, &member,
                                             1, &change);
        }
        redis_logged(redis, err, &change);
}

const struct redis_type redis_sets = {
        .name = "sets", .type = CRDT_SET, .weight = 2, .act = change_set};
