/* redis_zset.c - sorted sets: the value of a model's item is the bytes of its score. */
#include "sim/redis_priv.h"

static void native_zset_add(void *context, struct crdt_name name, struct bytes member, double score)
{
        struct model_key *key = model_make(context, name, CRDT_ZSET);
        struct model_item *item = model_item_make(context, key, member);
        model_copy(context, &item->value, &item->value_len,
                   bytes_of((const uint8_t *)&score, sizeof score));
}

static void native_zset_remove(void *context, struct crdt_name name, struct bytes member)
{
        model_item_remove(context, name, CRDT_ZSET, member);
}

static void natives(struct crdt_native *native)
{
        native->zset_add = native_zset_add;
        native->zset_remove = native_zset_remove;
}

static double score_of(const struct model_item *item)
{
        double score = 0;
        if (item != NULL)
                memcpy(&score, item->value, sizeof score);
        return score;
}

static double draw_amount(struct sim *sim)
{
        double whole = (double)sim_below(sim, STREAM_DATA, 30) - 10;
        return sim_chance(sim, STREAM_DATA, 300) ? whole / 7 : whole;
}

enum {
        TURN_REMOVE,
        TURN_INCREMENT,
        TURNS = 4, /* the others add */
};

static enum err change(struct sim_redis *redis, struct crdt_name name, struct bytes member,
                       struct model_key *key, unsigned turn, struct keyspace_change *ret)
{
        struct model_item *item = key == NULL ? NULL : model_item(key, member);
        uint64_t now_ms = redis_wall_ms(redis);
        double amount = draw_amount(redis->sim);
        if (turn == TURN_REMOVE) {
                *ret = (struct keyspace_change){.nothing = true};
                if (item == NULL)
                        return ERR_NONE;
                native_zset_remove(redis, name, member);
                return keyspace_local_zset_remove(redis->keyspace, now_ms, name, &member, 1, ret);
        }
        if (turn == TURN_INCREMENT) {
                double after = score_of(item) + amount;
                native_zset_add(redis, name, member, after);
                return keyspace_local_zset_increment(redis->keyspace, now_ms, name, member, amount,
                                                     after, ret);
        }
        struct keyspace_score score = {member, amount};
        native_zset_add(redis, name, member, amount);
        return keyspace_local_zset_add(redis->keyspace, now_ms, name, &score, 1, ret);
}

static void change_zset(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        struct model_key *key = model_find(redis, name);
        struct keyspace_change made;
        char text[8];
        struct bytes member = redis_draw_field(redis->sim, text);
        if (key == NULL || key->type == CRDT_ZSET)
                redis_logged(redis, change(redis, name, member, key, turn, &made), &made);
}

static bool check_zset(struct sim_redis *redis, const struct model_key *key)
{
        struct crdt_name name = {key->db, bytes_of(key->name, key->name_len)};
        if (keyspace_zset_length(redis->keyspace, name) != key->item_count)
                return false;
        for (size_t i = 0; i < key->item_count; i++) {
                const struct model_item *item = &key->items[i];
                double known = 0;
                if (keyspace_zset_look(redis->keyspace, name,
                                       bytes_of(item->field, item->field_len), 0,
                                       &known) == CRDT_MEMBER_ABSENT ||
                    memcmp(&known, item->value, sizeof known) != 0)
                        return false;
        }
        return true;
}

const struct redis_type redis_zsets = {
        .name = "sorted sets",
        .type = CRDT_ZSET,
        .key = "zset",
        .weight = TURNS,
        .act = change_zset,
        .native = natives,
        .check = check_zset,
};
