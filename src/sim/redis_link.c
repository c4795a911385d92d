/* redis_link.c - the connection between a simulated Redis and its node: what the module answers to
 * the daemon. It answers after a little while, and breaks with either of the two. */
#include "sim/redis_priv.h"

/* A connection breaks: what was asked on it is not answered. */
static void link_break(struct sim_redis *redis, struct host *host)
{
        if (host->redis_told && host->node != NULL) {
                struct world_event event = {.kind = WORLD_REDIS_DOWN};
                sim_post(redis->sim, host, MS, parcel_new(redis->sim, &event, bytes_of(NULL, 0)));
        }
        host->redis_told = host->redis_ready = false;
        memset(&redis->links[host->index], 0, sizeof redis->links[0]);
}

void redis_forget_links(struct sim_redis *redis)
{
        for (uint32_t i = 0; i < redis->sim->host_count; i++)
                if (redis->sim->hosts[i].region == redis->region)
                        link_break(redis, &redis->sim->hosts[i]);
}

static size_t positions_of(const struct vector *vector, struct world_position *ret)
{
        size_t count = 0;
        for (unsigned i = 1; i <= REGIONS_MAX; i++)
                if (vector->hlc[i] != 0)
                        ret[count++] = (struct world_position){(region_id)i, vector->hlc[i]};
        return count;
}

static void tell_host(struct sim_redis *redis, struct host *host)
{
        struct sim *sim = redis->sim;
        if (host->node == NULL || host->redis_told)
                return;
        host->redis_told = true;
        memset(&redis->links[host->index], 0, sizeof redis->links[0]);
        struct world_event event = {.kind = WORLD_REDIS_UP};
        event.redis_up.incarnation = redis->incarnation;
        event.redis_up.recovered = keyspace_recovered(redis->keyspace);
        event.redis_up.first = keyspace_first(redis->keyspace);
        struct keyspace_resume resume;
        if (keyspace_resume(redis->keyspace, &resume)) {
                event.redis_up.resume_of = resume.origin;
                event.redis_up.resume =
                        (struct world_resume){resume.table, resume.cursor, resume.position};
        }
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

/* The nodes of the region connect, and learn the positions. */
void redis_tell(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        if (sim == NULL || !redis->exists || !redis->up)
                return;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].region == redis->region)
                        tell_host(redis, &sim->hosts[i]);
}

/* A node takes the region's data over, and wants to know where it stands. */
void redis_again(struct sim_redis *redis, struct host *host)
{
        if (!redis->exists)
                return;
        if (redis->sim->now_us > SECOND)
                sim_cover(redis->sim, COVER_CARRIER);
        link_break(redis, host);
        redis_tell(redis);
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
                (void)keyspace_heartbeat(redis->keyspace, redis_wall_ms(redis), &change);
                redis_log_change(redis, ERR_NONE, &change);
                redis_reserve(redis);
        }
        enum err err = wait->origin == 0 ? keyspace_tail(redis->keyspace, redis_wall_ms(redis),
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
        sim_post(sim, &sim->hosts[wait->host], redis_delay(redis), parcel);
        wait->used = false;
}

void redis_tail_end(struct sim_redis *redis, uint32_t slot, uint64_t id)
{
        for (size_t i = 0; i < HOSTS_MAX; i++) {
                for (size_t k = 0; k <= REGIONS_MAX; k++) {
                        struct tail_wait *wait = &redis->links[i].tails[slot][k];
                        if (redis->up && wait->used && wait->id == id)
                                tail_answer(redis, wait, true);
                }
        }
}

void redis_wake_tails(struct sim_redis *redis)
{
        for (size_t host = 0; host < redis->sim->host_count; host++) {
                if (redis->sim->hosts[host].region != redis->region)
                        continue;
                for (size_t i = 0; i < HOSTS_MAX; i++)
                        for (size_t k = 0; k <= REGIONS_MAX; k++)
                                if (redis->links[host].tails[i][k].used)
                                        tail_answer(redis, &redis->links[host].tails[i][k], false);
        }
}

static uint32_t slot_of(struct sim *sim, node_id peer)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].id == peer)
                        return i;
        UNREACHABLE("peers are hosts");
}

static void take_tail(struct sim_redis *redis, struct host *host, const struct world_effect *effect)
{
        uint32_t slot = slot_of(redis->sim, effect->tail.peer);
        struct tail_wait *wait = &redis->links[host->index].tails[slot][effect->tail.origin];
        if (wait->used) {
                sim_violation(redis->sim, "contract: a second tail for node %u", effect->tail.peer);
                return;
        }
        *wait = (struct tail_wait){.used = true,
                                   .host = host->index,
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

static void strike_named(void *context, struct crdt_name name)
{
        redis_strike(context, name);
}

static enum err merge_state(struct sim_redis *redis, const struct world_effect *effect,
                            struct keyspace_result *result)
{
        enum err err = keyspace_merge_state(redis->keyspace, &redis->native, redis_wall_ms(redis),
                                            effect->merge.data, result);
        if (err == ERR_NONE)
                redis_log(redis, LOG_STATE, 0, 0, NULL, effect->merge.data);
        if (err == ERR_NONE && result->broken)
                err = ERR_INVALID;
        if (err != ERR_NONE || !effect->merge.state_end)
                return err;
        struct vector vector;
        vector_of(effect, &vector);
        err = keyspace_adopt(redis->keyspace, &redis->native, &vector, result);
        if (err == ERR_NONE) {
                redis_log(redis, LOG_ADOPT, 0, 0, &vector, bytes_of(NULL, 0));
                sim_cover(redis->sim, COVER_STATE_TRANSFER);
        }
        return err;
}

static void take_merge(struct sim_redis *redis, struct host *host,
                       const struct world_effect *effect)
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
        if (effect->merge.state)
                keyspace_state_names(effect->merge.data, strike_named, redis);
        else
                keyspace_names(effect->merge.data, strike_named, redis);
        if (effect->merge.state) {
                event.merged.err = merge_state(redis, effect, &result);
        } else {
                event.merged.err = keyspace_apply(
                        redis->keyspace, &redis->native, redis_wall_ms(redis), effect->merge.origin,
                        effect->merge.after, effect->merge.last, effect->merge.data, &result);
                event.merged.gap = result.gap;
                if (event.merged.err == ERR_NONE && !result.gap)
                        redis_log(redis, LOG_BATCH, effect->merge.origin, effect->merge.last, NULL,
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
        sim_post(redis->sim, host, redis_delay(redis), parcel);
        redis_reserve(redis);
        redis_wake_tails(redis);
}

static void take_close(struct sim_redis *redis, const struct world_effect *effect)
{
        struct keyspace_change change;
        enum err err = keyspace_close(redis->keyspace, redis_wall_ms(redis), effect->close.low,
                                      effect->close.high, &change);
        if (err == ERR_NONE)
                sim_cover(redis->sim, COVER_HOLE_CLOSED);
        redis_log_change(redis, err == ERR_INVALID ? ERR_NONE : err, &change);
        redis_wake_tails(redis);
}

static void take_scan(struct sim_redis *redis, struct host *host, const struct world_effect *effect)
{
        struct sim *sim = redis->sim;
        redis->given = UINT64_MAX;
        struct scan_run *run = &redis->links[host->index].scans[slot_of(sim, effect->scan.peer)];
        if (effect->scan.cursor == 0) {
                run->peer = effect->scan.peer;
                run->vector = *keyspace_positions(redis->keyspace);
        }
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = effect->scan.peer;
        event.scanned.cursor = effect->scan.cursor;
        struct buffer state;
        buffer_init(&state, &sim->heap);
        redis_must(redis,
                   keyspace_scan(redis->keyspace, &redis->native, &event.scanned.cursor,
                                 effect->scan.bytes_max, &state),
                   "scan");
        struct parcel *parcel = parcel_new(sim, &event, buffer_view(&state));
        parcel->event.scanned.state = bytes_of(parcel->bytes, parcel->len);
        parcel->event.scanned.table = keyspace_state_table(parcel->event.scanned.state);
        parcel->event.scanned.positions = parcel->positions;
        parcel->event.scanned.position_count = positions_of(&run->vector, parcel->positions);
        buffer_fini(&state);
        sim_post(sim, host, redis_delay(redis), parcel);
}

void redis_effect(struct sim_redis *redis, struct host *host, const struct world_effect *effect)
{
        if (!redis->exists || !redis->up)
                return;
        if (effect->kind == WORLD_REDIS_TAIL)
                take_tail(redis, host, effect);
        else if (effect->kind == WORLD_REDIS_MERGE)
                take_merge(redis, host, effect);
        else if (effect->kind == WORLD_REDIS_SCAN)
                take_scan(redis, host, effect);
        else if (effect->kind == WORLD_REDIS_CLOSE)
                take_close(redis, effect);
        else
                keyspace_acked(redis->keyspace, effect->acked.peer, effect->acked.position);
}
