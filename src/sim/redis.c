/* redis.c - a Redis with Meridian's module, as a model: the keyspace room that the module runs, the
 * values of model.c, and an append-only file that is synced now and then. A crash keeps what was
 * synced and any prefix of the rest; loading replays it. The connection to the node answers after a
 * little while and breaks with either of the two. */
#include "sim/sim_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define REDIS_SYNC_US (1 * SECOND)
#define REDIS_BEAT_US (100 * MS)
#define DATA_KEYS     6
#define COUNTER_NAME  "count"
#define WITNESS_NAME  "members"

static uint64_t wall_ms(const struct sim_redis *redis)
{
        const struct sim *sim = redis->sim;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].region == redis->region)
                        return host_wall_us(sim, &sim->hosts[i]) / 1000;
        UNREACHABLE("every region has a host");
}

static struct host *redis_host(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].region == redis->region)
                        return &sim->hosts[i];
        UNREACHABLE("every region has a host");
}

static void must(struct sim_redis *redis, enum err err, const char *what)
{
        if (err != ERR_NONE)
                sim_violation(redis->sim, "Redis of region %u: %s: %s", redis->region + 1, what,
                              err_text(err));
}

static void keyspace_open(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        region_id members[REGIONS_MAX];
        struct keyspace_config config = {.origin = (region_id)(redis->region + 1),
                                         .ring_bytes = sim->swarm.small_ring ? 4096 : 1 << 20,
                                         .drift_max_ms = DRIFT_MAX_MS,
                                         .incarnation = ++redis->incarnation,
                                         .hash_key = {sim->options.seed, redis->region}};
        redis->keyspace = keyspace_new(&sim->heap, &config);
        CHECK(redis->keyspace != NULL);
        size_t count = 0;
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists)
                        members[count++] = (region_id)(i + 1);
        must(redis, keyspace_members(redis->keyspace, members, count), "members");
}

/* ---- the append-only file ---- */

static void log_add(struct sim_redis *redis, enum log_kind kind, region_id origin, uint64_t last,
                    const struct vector *vector, struct bytes data)
{
        struct log_entry *entry = heap_alloc(&redis->sim->heap, sizeof *entry + data.len);
        CHECK(entry != NULL);
        entry->kind = kind;
        entry->origin = origin;
        entry->last = last;
        if (vector != NULL)
                entry->vector = *vector;
        entry->len = data.len;
        if (data.len > 0)
                memcpy(entry->bytes, data.ptr, data.len);
        *redis->log_tail = entry;
        redis->log_tail = &entry->next;
}

/* What a keyspace wants logged. */
static void log_change(struct sim_redis *redis, enum err err, const struct keyspace_change *change)
{
        must(redis, err, "a record");
        if (err == ERR_NONE && !change->nothing)
                log_add(redis, LOG_LOCAL, 0, change->stamp.hlc, NULL, change->delta);
}

static void clock_settle(struct sim_redis *redis)
{
        if (redis->clock_pending > redis->clock_file && redis->sim->now_us >= redis->clock_at_us)
                redis->clock_file = redis->clock_pending;
}

/* Once a turn. Nobody is given this record, so a crash may take it. */
static void reserve(struct sim_redis *redis)
{
        struct keyspace_change change;
        must(redis, keyspace_reserve(redis->keyspace, wall_ms(redis), &change), "a reservation");
        if (!change.nothing)
                log_add(redis, LOG_LOCAL, 0, UINT64_MAX, NULL, change.delta);
        clock_settle(redis);
        uint64_t reserved = keyspace_reserved(redis->keyspace);
        if (keyspace_clock_bare(redis->keyspace, redis->clock_file)) {
                redis->clock_file = reserved;
        } else if (reserved > redis->clock_file && redis->clock_pending <= redis->clock_file) {
                redis->clock_pending = reserved;
                redis->clock_at_us = redis->sim->now_us + 30 * MS;
        }
}

static void life_begin(struct sim_redis *redis)
{
        struct keyspace_change change;
        clock_settle(redis);
        keyspace_floor(redis->keyspace, redis->clock_file);
        log_change(redis, keyspace_begin(redis->keyspace, wall_ms(redis), &change), &change);
        reserve(redis);
}

static void log_replay_one(struct sim_redis *redis, const struct log_entry *entry)
{
        struct keyspace_result result;
        struct bytes data = bytes_of(entry->bytes, entry->len);
        switch (entry->kind) {
        case LOG_LOCAL:
                must(redis,
                     keyspace_replay(redis->keyspace, &redis->native, data, (struct bytes){0},
                                     &result),
                     "replay");
                break;
        case LOG_BATCH:
                must(redis,
                     keyspace_apply_logged(redis->keyspace, &redis->native, entry->origin,
                                           entry->last, data, &result),
                     "apply of the log");
                break;
        case LOG_STATE:
                must(redis,
                     keyspace_merge_state(redis->keyspace, &redis->native,
                                          wall_ms(redis) + 86400000, data, &result),
                     "state of the log");
                break;
        case LOG_ADOPT:
                must(redis,
                     keyspace_adopt(redis->keyspace, &redis->native, &entry->vector, &result),
                     "vector of the log");
                break;
        }
}

static void log_cut(struct sim_redis *redis, struct log_entry **at)
{
        struct log_entry *entry = *at;
        *at = NULL;
        redis->log_tail = at;
        while (entry != NULL) {
                struct log_entry *next = entry->next;
                heap_free(&redis->sim->heap, entry);
                entry = next;
        }
}

/* How many entries of a log's end must stay so that nobody was given more of our stream. */
static uint64_t log_given(const struct sim_redis *redis, const struct log_entry *entry)
{
        uint64_t count = 0;
        uint64_t needed = 0;
        for (; entry != NULL; entry = entry->next) {
                count++;
                if (entry->kind == LOG_LOCAL && entry->last <= redis->given)
                        needed = count;
        }
        return needed;
}

/* Any prefix of what was not synced stays. True when something is lost. */
static bool log_crash(struct sim_redis *redis)
{
        size_t loose = 0;
        struct log_entry **at =
                redis->log_synced != NULL ? &redis->log_synced->next : &redis->log_first;
        for (struct log_entry *entry = *at; entry != NULL; entry = entry->next)
                loose++;
        uint64_t kept = sim_below(redis->sim, STREAM_REDIS, loose + 1);
        if (!redis->sim->swarm.tail_loss && kept < log_given(redis, *at))
                kept = log_given(redis, *at);
        for (uint64_t i = 0; i < kept; i++) {
                CHECK(*at != NULL); /* `kept` is at most `loose` */
                redis->log_synced = *at;
                at = &(*at)->next;
        }
        log_cut(redis, at);
        return kept < loose;
}

void redis_synced(struct sim_redis *redis)
{
        for (struct log_entry *entry = redis->log_synced != NULL ? redis->log_synced
                                                                 : redis->log_first;
             entry != NULL; entry = entry->next)
                redis->log_synced = entry;
        sim_at(redis->sim, REDIS_SYNC_US, EVENT_REDIS_SYNC, redis->region, 0, 0);
}

/* ---- life ---- */

void redis_init(struct sim *sim, uint32_t region)
{
        struct sim_redis *redis = &sim->redis[region];
        redis->sim = sim;
        redis->region = region;
        redis->log_tail = &redis->log_first;
        model_native(redis);
        keyspace_open(redis);
        life_begin(redis);
        redis->up = true;
        sim_at(sim, REDIS_SYNC_US + sim_below(sim, STREAM_REDIS, REDIS_SYNC_US), EVENT_REDIS_SYNC,
               region, 0, 0);
        sim_at(sim, REDIS_BEAT_US + sim_below(sim, STREAM_REDIS, REDIS_BEAT_US), EVENT_REDIS_BEAT,
               region, 0, 0);
}

void redis_fini(struct sim_redis *redis)
{
        if (redis->sim == NULL || !redis->exists)
                return;
        keyspace_free(redis->keyspace);
        redis->keyspace = NULL;
        model_clear(redis);
        log_cut(redis, &redis->log_first);
}

static void forget_connection(struct sim_redis *redis)
{
        memset(redis->tails, 0, sizeof redis->tails);
        memset(redis->scans, 0, sizeof redis->scans);
}

static struct crdt_name name_of(const char *text)
{
        return (struct crdt_name){.db = 0, .key = bytes_of_str(text)};
}

static struct bytes member_of(const struct witness *witness, char text[16])
{
        int len = snprintf(text, 16, "m%u", witness->number);
        return bytes_of(text, (size_t)len);
}

static bool held_somewhere(struct sim *sim, const struct witness *witness)
{
        char text[16];
        struct bytes member = member_of(witness, text);
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists &&
                    model_has_member(&sim->redis[i], name_of(WITNESS_NAME), member))
                        return true;
        return false;
}

/* After a crash: what the log lost is at risk; a member that no region holds any more is lost. */
static void witnesses_crash(struct sim *sim, region_id origin, uint64_t recovered)
{
        for (uint32_t i = 0; i < sim->witness_count; i++) {
                struct witness *witness = &sim->witnesses[i];
                if (witness->origin == origin && witness->hlc > recovered)
                        witness->at_risk = true;
                if (!witness->counted && witness->at_risk)
                        witness->must = held_somewhere(sim, witness);
        }
}

void redis_crash(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        if (!redis->exists || !redis->up)
                return;
        sim_trace(sim, "Redis of region %u crashes", redis->region + 1);
        sim_cover(sim, COVER_REDIS_CRASH);
        redis->up = false;
        struct host *host = redis_host(redis);
        if (host->redis_told && host->node != NULL) {
                struct world_event event = {.kind = WORLD_REDIS_DOWN};
                sim_post(sim, host, MS, parcel_new(sim, &event, bytes_of(NULL, 0)));
        }
        host->redis_told = host->redis_ready = false;
        forget_connection(redis);
        bool lost = log_crash(redis);
        clock_settle(redis);
        redis->clock_pending = 0;
        keyspace_free(redis->keyspace);
        model_clear(redis);
        keyspace_open(redis);
        for (struct log_entry *entry = redis->log_first; entry != NULL; entry = entry->next)
                log_replay_one(redis, entry);
        region_id origin = (region_id)(redis->region + 1);
        if (lost)
                sim_cover(sim, COVER_REDIS_TAIL_LOST);
        sim_trace(sim, "Redis of region %u has recovered %llu", redis->region + 1,
                  (unsigned long long)vector_get(keyspace_positions(redis->keyspace), origin));
        witnesses_crash(sim, origin, vector_get(keyspace_positions(redis->keyspace), origin));
}

void redis_start(struct sim_redis *redis)
{
        if (!redis->exists || redis->up)
                return;
        sim_trace(redis->sim, "Redis of region %u starts", redis->region + 1);
        redis->up = true;
        life_begin(redis);
        redis_tell(redis);
}

/* ---- the connection to the node ---- */

static size_t positions_of(const struct vector *vector, struct world_position *ret)
{
        size_t count = 0;
        for (unsigned i = 1; i <= REGIONS_MAX; i++)
                if (vector->hlc[i] != 0)
                        ret[count++] = (struct world_position){(region_id)i, vector->hlc[i]};
        return count;
}

/* The node connects, and learns the positions. */
void redis_tell(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        if (sim == NULL || !redis->exists || !redis->up)
                return;
        struct host *host = redis_host(redis);
        if (host->node == NULL || host->redis_told)
                return;
        host->redis_told = true;
        forget_connection(redis);
        struct world_event event = {.kind = WORLD_REDIS_UP};
        event.redis_up.incarnation = redis->incarnation;
        event.redis_up.recovered = keyspace_recovered(redis->keyspace);
        event.redis_up.first = keyspace_first(redis->keyspace);
        struct buffer holes;
        buffer_init(&holes, &sim->heap);
        keyspace_holes_encode(redis->keyspace, &holes);
        struct parcel *parcel = parcel_new(sim, &event, buffer_view(&holes));
        buffer_fini(&holes);
        parcel->event.redis_up.holes = bytes_of(parcel->bytes, parcel->len);
        parcel->event.redis_up.positions = parcel->positions;
        parcel->event.redis_up.count =
                positions_of(keyspace_positions(redis->keyspace), parcel->positions);
        sim_post(sim, host, 2 * MS, parcel);
}

static uint64_t redis_delay(struct sim_redis *redis)
{
        return 50 + sim_below(redis->sim, STREAM_REDIS, 300);
}

static void tail_answer(struct sim_redis *redis, struct tail_wait *wait, bool end)
{
        struct sim *sim = redis->sim;
        struct keyspace_batch batch;
        if (end && wait->origin == 0) {
                struct keyspace_change change;
                (void)keyspace_heartbeat(redis->keyspace, wall_ms(redis), &change);
                log_change(redis, ERR_NONE, &change);
                reserve(redis);
        }
        enum err err = wait->origin == 0 ? keyspace_tail(redis->keyspace, wall_ms(redis),
                                                         wait->after, wait->bytes_max, &batch)
                                         : keyspace_relay(redis->keyspace, wait->origin,
                                                          wait->after, wait->bytes_max, &batch);
        struct world_event event = {.kind = WORLD_REDIS_TAILED};
        event.tailed.peer = wait->peer;
        event.tailed.origin = wait->origin;
        event.tailed.after = wait->after;
        event.tailed.last = wait->after;
        event.tailed.gap = err != ERR_NONE || batch.gap;
        if (event.tailed.gap)
                sim_cover(sim, COVER_GAP);
        else if (batch.last > wait->after)
                event.tailed.last = batch.last;
        if (wait->origin == 0 && event.tailed.last > redis->given)
                redis->given = event.tailed.last;
        if (!end && !event.tailed.gap && event.tailed.last == wait->after)
                return;
        struct buffer deltas;
        buffer_init(&deltas, &sim->heap);
        if (!event.tailed.gap) {
                buffer_bytes(&deltas, batch.parts[0]);
                buffer_bytes(&deltas, batch.parts[1]);
        }
        CHECK(deltas.err == ERR_NONE);
        struct parcel *parcel = parcel_new(sim, &event, buffer_view(&deltas));
        parcel->event.tailed.deltas = bytes_of(parcel->bytes, parcel->len);
        buffer_fini(&deltas);
        sim_post(sim, redis_host(redis), redis_delay(redis), parcel);
        wait->used = false;
}

void redis_tail_end(struct sim_redis *redis, uint32_t slot, uint64_t id)
{
        for (size_t i = 0; i <= REGIONS_MAX; i++) {
                struct tail_wait *wait = &redis->tails[slot][i];
                if (redis->up && wait->used && wait->id == id)
                        tail_answer(redis, wait, true);
        }
}

static void wake_tails(struct sim_redis *redis)
{
        for (size_t i = 0; i < HOSTS_MAX; i++)
                for (size_t k = 0; k <= REGIONS_MAX; k++)
                        if (redis->tails[i][k].used)
                                tail_answer(redis, &redis->tails[i][k], false);
}

static uint32_t slot_of(struct sim *sim, node_id peer)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].id == peer)
                        return i;
        UNREACHABLE("peers are hosts");
}

static void take_tail(struct sim_redis *redis, const struct world_effect *effect)
{
        uint32_t slot = slot_of(redis->sim, effect->tail.peer);
        struct tail_wait *wait = &redis->tails[slot][effect->tail.origin];
        if (wait->used) {
                sim_violation(redis->sim, "contract: a second tail for node %u", effect->tail.peer);
                return;
        }
        *wait = (struct tail_wait){.used = true,
                                   .peer = effect->tail.peer,
                                   .origin = effect->tail.origin,
                                   .after = effect->tail.after,
                                   .bytes_max = effect->tail.bytes_max,
                                   .id = ++redis->tail_id};
        tail_answer(redis, wait, false);
        if (wait->used)
                sim_at(redis->sim, effect->tail.block_ms * MS, EVENT_TAIL_END, redis->region, slot,
                       wait->id);
}

static void vector_of(const struct world_effect *effect, struct vector *ret)
{
        memset(ret, 0, sizeof *ret);
        for (size_t i = 0; i < effect->merge.position_count; i++)
                vector_advance(ret, effect->merge.positions[i].origin,
                               effect->merge.positions[i].hlc);
}

static enum err merge_state(struct sim_redis *redis, const struct world_effect *effect,
                            struct keyspace_result *result)
{
        enum err err = keyspace_merge_state(redis->keyspace, &redis->native, wall_ms(redis),
                                            effect->merge.data, result);
        if (err == ERR_NONE)
                log_add(redis, LOG_STATE, 0, 0, NULL, effect->merge.data);
        if (err != ERR_NONE || !effect->merge.state_end)
                return err;
        struct vector vector;
        vector_of(effect, &vector);
        err = keyspace_adopt(redis->keyspace, &redis->native, &vector, result);
        if (err == ERR_NONE) {
                log_add(redis, LOG_ADOPT, 0, 0, &vector, bytes_of(NULL, 0));
                sim_cover(redis->sim, COVER_STATE_TRANSFER);
        }
        return err;
}

static void take_merge(struct sim_redis *redis, const struct world_effect *effect)
{
        sim_trace(redis->sim, "Redis of region %u merges from %u: %llu to %llu%s",
                  redis->region + 1, effect->merge.origin, (unsigned long long)effect->merge.after,
                  (unsigned long long)effect->merge.last,
                  effect->merge.state_end ? ", end of state"
                  : effect->merge.state   ? ", state"
                                          : "");
        struct keyspace_result result = {0};
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        event.merged.origin = effect->merge.origin;
        if (effect->merge.state) {
                event.merged.err = merge_state(redis, effect, &result);
        } else {
                event.merged.err = keyspace_apply(redis->keyspace, &redis->native, wall_ms(redis),
                                                  effect->merge.origin, effect->merge.after,
                                                  effect->merge.last, effect->merge.data, &result);
                event.merged.gap = result.gap;
                if (event.merged.err == ERR_NONE && !result.gap)
                        log_add(redis, LOG_BATCH, effect->merge.origin, effect->merge.last, NULL,
                                effect->merge.data);
        }
        if (event.merged.err == ERR_MALFORMED || event.merged.err == ERR_TRUNCATED)
                sim_violation(redis->sim, "Redis of region %u cannot read what region %u sent",
                              redis->region + 1, effect->merge.origin);
        event.merged.position =
                vector_get(keyspace_positions(redis->keyspace), effect->merge.origin);
        struct buffer holes;
        buffer_init(&holes, &redis->sim->heap);
        keyspace_holes_encode(redis->keyspace, &holes);
        struct parcel *parcel = parcel_new(redis->sim, &event, buffer_view(&holes));
        buffer_fini(&holes);
        parcel->event.merged.holes = bytes_of(parcel->bytes, parcel->len);
        if (effect->merge.state_end && event.merged.err == ERR_NONE) {
                parcel->event.merged.positions = parcel->positions;
                parcel->event.merged.position_count =
                        positions_of(keyspace_positions(redis->keyspace), parcel->positions);
        }
        sim_post(redis->sim, redis_host(redis), redis_delay(redis), parcel);
        reserve(redis);
        wake_tails(redis);
}

static void take_close(struct sim_redis *redis, const struct world_effect *effect)
{
        struct keyspace_change change;
        enum err err = keyspace_close(redis->keyspace, wall_ms(redis), effect->close.low,
                                      effect->close.high, &change);
        if (err == ERR_NONE)
                sim_cover(redis->sim, COVER_HOLE_CLOSED);
        log_change(redis, err == ERR_INVALID ? ERR_NONE : err, &change);
        wake_tails(redis);
}

static void take_scan(struct sim_redis *redis, const struct world_effect *effect)
{
        struct sim *sim = redis->sim;
        redis->given = UINT64_MAX;
        struct scan_run *run = &redis->scans[slot_of(sim, effect->scan.peer)];
        if (effect->scan.cursor == 0) {
                run->peer = effect->scan.peer;
                run->vector = *keyspace_positions(redis->keyspace);
        }
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = effect->scan.peer;
        event.scanned.cursor = effect->scan.cursor;
        struct buffer state;
        buffer_init(&state, &sim->heap);
        must(redis,
             keyspace_scan(redis->keyspace, &redis->native, &event.scanned.cursor,
                           effect->scan.bytes_max, &state),
             "scan");
        struct parcel *parcel = parcel_new(sim, &event, buffer_view(&state));
        parcel->event.scanned.state = bytes_of(parcel->bytes, parcel->len);
        parcel->event.scanned.positions = parcel->positions;
        parcel->event.scanned.position_count = positions_of(&run->vector, parcel->positions);
        buffer_fini(&state);
        sim_post(sim, redis_host(redis), redis_delay(redis), parcel);
}

void redis_effect(struct sim_redis *redis, struct host *host, const struct world_effect *effect)
{
        (void)host;
        if (!redis->exists || !redis->up)
                return;
        if (effect->kind == WORLD_REDIS_TAIL)
                take_tail(redis, effect);
        else if (effect->kind == WORLD_REDIS_MERGE)
                take_merge(redis, effect);
        else if (effect->kind == WORLD_REDIS_SCAN)
                take_scan(redis, effect);
        else if (effect->kind == WORLD_REDIS_CLOSE)
                take_close(redis, effect);
        else
                keyspace_acked(redis->keyspace, effect->acked.peer, effect->acked.position);
}

/* ---- clients ---- */

static void logged(struct sim_redis *redis, enum err err, const struct keyspace_change *change)
{
        must(redis, err, "a local change");
        struct crdt_delta delta;
        if (err == ERR_NONE && !change->nothing && redis->sim->options.trace &&
            crdt_delta_decode(change->delta, change->stamp.origin, &delta) == ERR_NONE)
                sim_trace(redis->sim, "Redis of region %u changes %.*s by %d at %llu",
                          redis->region + 1, BYTES_ARGS(delta.name.key), (int)delta.op,
                          (unsigned long long)delta.stamp.hlc);
        if (err != ERR_NONE || change->nothing)
                return;
        log_add(redis, LOG_LOCAL, 0, change->stamp.hlc, NULL, change->delta);
        reserve(redis);
        wake_tails(redis);
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

static int64_t number_of(const struct model_key *key)
{
        char text[24] = "0";
        if (key != NULL && key->text_len < sizeof text) {
                memcpy(text, key->text, key->text_len);
                text[key->text_len] = '\0';
        }
        errno = 0;
        long long value = strtoll(text, NULL, 10);
        return errno == 0 ? value : 0;
}

static void increment(struct sim_redis *redis, struct crdt_name name, uint32_t amount, bool counted)
{
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char text[24];
        if (key != NULL && key->type != CRDT_STRING)
                return;
        int64_t after = number_of(key) + amount;
        int len = snprintf(text, sizeof text, "%lld", (long long)after);
        uint64_t expire_at_ms = key != NULL ? key->expire_at_ms : 0;
        redis->native.string_set(redis, name, bytes_of(text, (size_t)len), expire_at_ms);
        enum err err = keyspace_local_increment(redis->keyspace, wall_ms(redis), name, amount,
                                                after, &change);
        if (err == ERR_NONE && counted)
                witness_add(redis, &change, true, amount);
        logged(redis, err, &change);
}

static void add_witness_member(struct sim_redis *redis)
{
        struct witness witness = {.number = ++redis->sim->member_next};
        struct crdt_name name = name_of(WITNESS_NAME);
        struct keyspace_change change;
        char text[16];
        struct bytes member = member_of(&witness, text);
        redis->native.set_add(redis, name, member);
        enum err err =
                keyspace_local_set_add(redis->keyspace, wall_ms(redis), name, &member, 1, &change);
        if (err == ERR_NONE)
                witness_add(redis, &change, false, witness.number);
        logged(redis, err, &change);
}

static void set_string(struct sim_redis *redis, struct crdt_name name)
{
        struct sim *sim = redis->sim;
        struct keyspace_change change;
        char text[16];
        int len = snprintf(text, sizeof text, "%u", (unsigned)sim_below(sim, STREAM_DATA, 100));
        uint64_t expire_at_ms = 0;
        if (sim_chance(sim, STREAM_DATA, 200))
                expire_at_ms = wall_ms(redis) + 100 + sim_below(sim, STREAM_DATA, 3000);
        redis->native.string_set(redis, name, bytes_of(text, (size_t)len), expire_at_ms);
        enum err err = keyspace_local_set(redis->keyspace, wall_ms(redis), name,
                                          bytes_of(text, (size_t)len), expire_at_ms, &change);
        logged(redis, err, &change);
}

static void delete_key(struct sim_redis *redis, struct crdt_name name)
{
        struct keyspace_change change;
        if (model_find(redis, name) == NULL)
                return;
        redis->native.key_delete(redis, name);
        enum err err = keyspace_local_delete(redis->keyspace, wall_ms(redis), name, &change);
        logged(redis, err, &change);
}

static void expire_key(struct sim_redis *redis, struct crdt_name name)
{
        struct sim *sim = redis->sim;
        struct keyspace_change change;
        if (model_find(redis, name) == NULL)
                return;
        uint64_t at_ms = sim_chance(sim, STREAM_DATA, 300)
                                 ? 0
                                 : wall_ms(redis) + 50 + sim_below(sim, STREAM_DATA, 2000);
        redis->native.expire_set(redis, name, at_ms);
        enum err err = keyspace_local_expire(redis->keyspace, wall_ms(redis), name, at_ms, &change);
        logged(redis, err, &change);
}

static struct bytes draw_field(struct sim *sim, char text[8])
{
        int len = snprintf(text, 8, "f%u", (unsigned)sim_below(sim, STREAM_DATA, 5));
        return bytes_of(text, (size_t)len);
}

static void change_hash(struct sim_redis *redis, struct crdt_name name, bool remove)
{
        struct sim *sim = redis->sim;
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char field_text[8];
        char value[16];
        struct bytes field = draw_field(sim, field_text);
        if (key != NULL && key->type != CRDT_HASH)
                return;
        enum err err;
        if (remove) {
                struct bytes old;
                if (!redis->native.hash_get(redis, name, field, &old))
                        return;
                redis->native.hash_delete(redis, name, field);
                err = keyspace_local_hash_delete(redis->keyspace, wall_ms(redis), name, &field, 1,
                                                 &change);
        } else {
                int len = snprintf(value, sizeof value, "%u",
                                   (unsigned)sim_below(sim, STREAM_DATA, 1000));
                struct keyspace_pair pair = {field, bytes_of(value, (size_t)len)};
                redis->native.hash_set(redis, name, field, pair.value);
                err = keyspace_local_hash_set(redis->keyspace, wall_ms(redis), name, &pair, 1,
                                              &change);
        }
        logged(redis, err, &change);
}

static void change_set(struct sim_redis *redis, struct crdt_name name, bool remove)
{
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char text[8];
        struct bytes member = draw_field(redis->sim, text);
        if (key != NULL && key->type != CRDT_SET)
                return;
        enum err err;
        if (remove) {
                if (!model_has_member(redis, name, member))
                        return;
                redis->native.set_remove(redis, name, member);
                err = keyspace_local_set_remove(redis->keyspace, wall_ms(redis), name, &member, 1,
                                                &change);
        } else {
                redis->native.set_add(redis, name, member);
                err = keyspace_local_set_add(redis->keyspace, wall_ms(redis), name, &member, 1,
                                             &change);
        }
        logged(redis, err, &change);
}

static struct bytes draw_element(struct sim *sim, char text[16])
{
        int len = snprintf(text, 16, "e%u", (unsigned)sim_below(sim, STREAM_DATA, 100000));
        return bytes_of(text, (size_t)len);
}

static void push(struct sim_redis *redis, struct crdt_name name, uint64_t length)
{
        struct keyspace_change change;
        char text[2][16];
        struct bytes values[2] = {draw_element(redis->sim, text[0]),
                                  draw_element(redis->sim, text[1])};
        bool head = sim_chance(redis->sim, STREAM_DATA, 300);
        size_t count = 1 + (size_t)sim_below(redis->sim, STREAM_DATA, 2);
        for (size_t i = 0; i < count; i++)
                redis->native.list_insert(redis, name, head ? i : length + i, values[i]);
        enum err err = keyspace_local_list_push(redis->keyspace, wall_ms(redis), name, head, values,
                                                count, &change);
        logged(redis, err, &change);
}

/* A value in the middle, or a new one for what is there. */
static void change_element(struct sim_redis *redis, struct crdt_name name, uint64_t index)
{
        struct keyspace_change change;
        char text[16];
        struct bytes value = draw_element(redis->sim, text);
        enum err err;
        if (index > 0 && sim_chance(redis->sim, STREAM_DATA, 500)) {
                err = keyspace_local_list_insert(redis->keyspace, wall_ms(redis), name, index,
                                                 value, &change);
                if (err == ERR_LIMIT)
                        return;
                redis->native.list_insert(redis, name, index, value);
        } else {
                redis->native.list_set(redis, name, index, value);
                err = keyspace_local_list_set(redis->keyspace, wall_ms(redis), name, index, value,
                                              &change);
        }
        logged(redis, err, &change);
}

static void pop(struct sim_redis *redis, struct crdt_name name, uint64_t length)
{
        struct keyspace_change change;
        struct keyspace_range range = {0, 1};
        if (sim_chance(redis->sim, STREAM_DATA, 300))
                range.index = sim_below(redis->sim, STREAM_DATA, length);
        if (sim_chance(redis->sim, STREAM_DATA, 200))
                range.count = length - range.index;
        redis->native.list_remove(redis, name, range.index, range.count);
        enum err err = keyspace_local_list_remove(redis->keyspace, wall_ms(redis), name, &range, 1,
                                                  &change);
        logged(redis, err, &change);
}

static void change_list(struct sim_redis *redis, struct crdt_name name)
{
        struct sim *sim = redis->sim;
        const struct model_key *key = model_find(redis, name);
        uint64_t length = key == NULL ? 0 : key->item_count;
        if (key != NULL && key->type != CRDT_LIST)
                return;
        if (keyspace_list_length(redis->keyspace, name) != length)
                sim_violation(sim,
                              "Redis of region %u: a list of %llu elements is not what the "
                              "metadata says",
                              redis->region + 1, (unsigned long long)length);
        else if (length == 0 || (length < 30 && sim_chance(sim, STREAM_DATA, 450)))
                push(redis, name, length);
        else if (sim_chance(sim, STREAM_DATA, 500))
                change_element(redis, name, sim_below(sim, STREAM_DATA, length));
        else
                pop(redis, name, length);
}

static void client_act(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        char text[8];
        (void)snprintf(text, sizeof text, "k%u", (unsigned)sim_below(sim, STREAM_DATA, DATA_KEYS));
        struct crdt_name name = name_of(text);
        bool room = sim->witness_count < WITNESSES_MAX;
        switch (sim_below(sim, STREAM_DATA, 15)) {
        case 0:
        case 1:
                if (room)
                        increment(redis, name_of(COUNTER_NAME),
                                  1 + (uint32_t)sim_below(sim, STREAM_DATA, 5), true);
                break;
        case 2:
        case 3:
                if (room)
                        add_witness_member(redis);
                break;
        case 4:
                set_string(redis, name);
                break;
        case 5:
                increment(redis, name, 1, false);
                break;
        case 6:
                change_hash(redis, name, false);
                break;
        case 7:
                change_hash(redis, name, true);
                break;
        case 8:
                change_set(redis, name, false);
                break;
        case 9:
                change_set(redis, name, true);
                break;
        case 10:
                delete_key(redis, name);
                break;
        case 11:
        case 12:
        case 13:
                change_list(redis, sim_chance(sim, STREAM_DATA, 800) ? name_of("list") : name);
                break;
        default:
                expire_key(redis, name);
                break;
        }
}

void redis_client(struct sim *sim)
{
        struct sim_redis *redis = &sim->redis[sim_below(sim, STREAM_DATA, sim->swarm.region_count)];
        if (redis->exists && redis->up)
                client_act(redis);
        if (sim->now_us < sim->swarm.load_end_us)
                sim_at(sim, 1 + sim_below(sim, STREAM_DATA, 2 * sim->swarm.data_every_us),
                       EVENT_DATA_CLIENT, 0, 0, 0);
}

/* Keys expire, tombstones go. */
void redis_beat(struct sim_redis *redis)
{
        sim_at(redis->sim, REDIS_BEAT_US, EVENT_REDIS_BEAT, redis->region, 0, 0);
        if (!redis->up)
                return;
        for (size_t i = 0; i < redis->key_count;) {
                struct model_key *key = &redis->keys[i];
                if (key->expire_at_ms == 0 || key->expire_at_ms > wall_ms(redis)) {
                        i++;
                        continue;
                }
                uint8_t text[sizeof key->name];
                memcpy(text, key->name, key->name_len);
                struct crdt_name name = {key->db, bytes_of(text, key->name_len)};
                struct keyspace_change change;
                redis->native.key_delete(redis, name);
                sim_cover(redis->sim, COVER_EXPIRED_KEY);
                enum err err =
                        keyspace_local_expired(redis->keyspace, wall_ms(redis), name, &change);
                logged(redis, err, &change);
        }
        (void)keyspace_collect(redis->keyspace, 16);
}

/* ---- checks ---- */

bool redis_all_equal(struct sim *sim)
{
        const struct sim_redis *first = NULL;
        uint64_t values = 0;
        uint64_t metadata = 0;
        for (uint32_t i = 0; i < sim->swarm.region_count; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                if (!redis->up)
                        return false;
                uint64_t digest = model_digest(redis);
                uint64_t meta = keyspace_digest(redis->keyspace);
                if (first == NULL) {
                        first = redis;
                        values = digest;
                        metadata = meta;
                } else if (digest != values || meta != metadata) {
                        return false;
                }
        }
        return true;
}

/* How far behind one region is with the stream of another, by that one's clock. */
uint64_t redis_lag_ms(struct sim *sim, uint32_t region, uint32_t origin)
{
        struct sim_redis *redis = &sim->redis[region];
        struct sim_redis *other = &sim->redis[origin];
        if (!redis->exists || !other->exists || region == origin)
                return 0;
        uint64_t at_ms =
                hlc_ms(vector_get(keyspace_positions(redis->keyspace), (region_id)(origin + 1)));
        uint64_t now_ms = wall_ms(other);
        return now_ms > at_ms ? now_ms - at_ms : 0;
}

uint64_t redis_behind_ms(struct sim *sim, uint32_t region, uint32_t origin)
{
        struct sim_redis *redis = &sim->redis[region];
        struct sim_redis *other = &sim->redis[origin];
        struct keyspace_batch batch;
        if (!redis->exists || !other->exists || !redis->up || !other->up)
                return 0;
        uint64_t at = vector_get(keyspace_positions(redis->keyspace), (region_id)(origin + 1));
        if (keyspace_tail(other->keyspace, wall_ms(other), at, 1, &batch) != ERR_NONE ||
            batch.gap || batch.count == 0)
                return 0;
        uint64_t now_ms = wall_ms(other);
        return now_ms > hlc_ms(batch.last) ? now_ms - hlc_ms(batch.last) : 0;
}

/* For a person who looks for the cause. */
void redis_explain(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->swarm.region_count && sim->options.trace; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                sim_trace(sim, "Redis of region %u: values %016llx, metadata %016llx", i + 1,
                          (unsigned long long)model_digest(redis),
                          (unsigned long long)keyspace_digest(redis->keyspace));
                const struct vector *vector = keyspace_positions(redis->keyspace);
                for (uint32_t k = 1; k <= sim->swarm.region_count; k++)
                        sim_trace(sim, "    position of %u: %llu", k,
                                  (unsigned long long)vector->hlc[k]);
                for (uint32_t k = 0; k < sim->witness_count; k++) {
                        const struct witness *witness = &sim->witnesses[k];
                        char text[16];
                        if (!witness->counted && !model_has_member(redis, name_of(WITNESS_NAME),
                                                                   member_of(witness, text)))
                                sim_trace(sim, "    lacks member %u of region %u, written at %llu",
                                          witness->number, witness->origin,
                                          (unsigned long long)witness->hlc);
                }
                for (size_t k = 0; k < redis->key_count; k++) {
                        const struct model_key *key = &redis->keys[k];
                        sim_trace(sim, "    %.*s type %d expires %llu: %.*s, %zu items",
                                  (int)key->name_len, (const char *)key->name, (int)key->type,
                                  (unsigned long long)key->expire_at_ms, (int)key->text_len,
                                  (const char *)key->text, key->item_count);
                }
        }
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
                if (witness->at_risk)
                        risk += witness->number;
        }
        int64_t value = number_of(model_find(redis, name_of(COUNTER_NAME)));
        if (value > sum || value < sum - risk)
                sim_violation(sim,
                              "counter: region %u has %lld, acknowledged are %lld of which %lld "
                              "were in the lost end of a log",
                              redis->region + 1, (long long)value, (long long)sum, (long long)risk);
}

void redis_check_converged(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->swarm.region_count && !sim->over; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                check_counter(sim, redis);
                for (uint32_t k = 0; k < sim->witness_count && !sim->over; k++) {
                        const struct witness *witness = &sim->witnesses[k];
                        char text[16];
                        if (witness->counted || !witness->must)
                                continue;
                        if (!model_has_member(redis, name_of(WITNESS_NAME),
                                              member_of(witness, text)))
                                sim_violation(sim,
                                              "lost write: region %u lacks member %u of region %u",
                                              redis->region + 1, witness->number, witness->origin);
                }
        }
}
