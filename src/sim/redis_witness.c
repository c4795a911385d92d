/* redis_witness.c - changes that a client was told of, and that are looked for at the end:
 * increments of one counter, members of one set. What a crash took before anybody had it is at
 * risk. */
#include "sim/redis_priv.h"

#include <stdio.h>

#define REDIS_COUNTER "count"
#define REDIS_WITNESS "members"

static struct bytes witness_member(const struct witness *witness, char text[16])
{
        int len = snprintf(text, 16, "m%u", witness->number);
        return bytes_of(text, (size_t)len);
}

static bool held_somewhere(struct sim *sim, const struct witness *witness)
{
        char text[16];
        struct bytes member = witness_member(witness, text);
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists &&
                    model_has_member(&sim->redis[i], redis_name(REDIS_WITNESS), member))
                        return true;
        return false;
}

static bool claimed_somewhere(struct sim *sim, const struct witness *witness)
{
        struct stamp stamp = {witness->hlc, witness->origin};
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists &&
                    crdt_seen_covers(keyspace_seen(sim->redis[i].keyspace), stamp))
                        return true;
        return false;
}

/* After a crash: what the log lost is at risk; a member that no region holds any more is lost, and
 * an increment that none claims to have seen may be. */
void witness_crash(struct sim *sim, region_id origin, uint64_t recovered)
{
        for (uint32_t i = 0; i < sim->witness_count; i++) {
                struct witness *witness = &sim->witnesses[i];
                if (witness->origin == origin && witness->hlc > recovered)
                        witness->at_risk = true;
                if (witness->counted)
                        witness->must = witness->must && claimed_somewhere(sim, witness);
                else if (witness->at_risk)
                        witness->must = held_somewhere(sim, witness);
        }
}

static void witness_add(struct sim_redis *redis, const struct keyspace_change *change, bool counted,
                        uint32_t number)
{
        struct sim *sim = redis->sim;
        CHECK(sim->witness_count < WITNESSES_MAX);
        sim->witnesses[sim->witness_count++] = (struct witness){
                .origin = change->stamp.origin,
                .hlc = change->stamp.hlc,
                .counted = counted,
                .number = number,
                .must = true,
        };
}

static void add_witness_member(struct sim_redis *redis)
{
        struct witness witness = {.number = ++redis->sim->member_next};
        struct crdt_name name = redis_name(REDIS_WITNESS);
        struct keyspace_change change;
        char text[16];
        struct bytes member = witness_member(&witness, text);
        redis->native.set_add(redis, name, member);
        enum err err = keyspace_local_set_add(redis->keyspace, redis_wall_ms(redis), name, &member,
                                              1, &change);
        if (err == ERR_NONE)
                witness_add(redis, &change, false, witness.number);
        redis_logged(redis, err, &change);
}

static void add_witness_increment(struct sim_redis *redis)
{
        uint32_t amount = 1 + (uint32_t)sim_below(redis->sim, STREAM_DATA, 5);
        struct keyspace_change change;
        enum err err = redis_increment(redis, redis_name(REDIS_COUNTER), amount, &change);
        if (err == ERR_NONE)
                witness_add(redis, &change, true, amount);
        redis_logged(redis, err, &change);
}

static void change_witness(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        (void)name;
        if (redis->sim->witness_count == WITNESSES_MAX)
                return;
        if (turn < 2)
                add_witness_increment(redis);
        else
                add_witness_member(redis);
}

static void check_counter(struct sim *sim, struct sim_redis *redis)
{
        int64_t sum = 0;
        int64_t risk = 0;
        for (uint32_t i = 0; i < sim->witness_count; i++) {
                const struct witness *witness = &sim->witnesses[i];
                if (!witness->counted)
                        continue;
                sum += witness->number;
                if (!witness->must)
                        risk += witness->number;
        }
        int64_t value = redis_number(model_find(redis, redis_name(REDIS_COUNTER)));
        if (value > sum || value < sum - risk)
                sim_violation(sim,
                              "counter: region %u has %lld, acknowledged are %lld of which %lld "
                              "nobody had when the end of a log was lost",
                              redis->region + 1, (long long)value, (long long)sum, (long long)risk);
}

static void check_member(struct sim *sim, struct sim_redis *redis, const struct witness *witness)
{
        char text[16];
        struct bytes member = witness_member(witness, text);
        if (!witness->counted && witness->must &&
            !model_has_member(redis, redis_name(REDIS_WITNESS), member))
                sim_violation(sim, "lost write: region %u lacks member %u of region %u",
                              redis->region + 1, witness->number, witness->origin);
}

void witness_check(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        check_counter(sim, redis);
        for (uint32_t i = 0; i < sim->witness_count && !sim->over; i++)
                check_member(sim, redis, &sim->witnesses[i]);
}

void witness_explain(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        for (uint32_t i = 0; i < sim->witness_count; i++) {
                const struct witness *witness = &sim->witnesses[i];
                char text[16];
                if (!witness->counted && !model_has_member(redis, redis_name(REDIS_WITNESS),
                                                           witness_member(witness, text)))
                        sim_trace(sim, "    lacks member %u of region %u, written at %llu",
                                  witness->number, witness->origin,
                                  (unsigned long long)witness->hlc);
        }
}

const struct redis_type redis_witnesses = {.name = "witnesses", .weight = 4, .act = change_witness};
