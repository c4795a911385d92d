/* redis.c - a Redis with Meridian's module, as a model: the keyspace room that the module runs, the
 * values of model.c, and an append-only file that is synced now and then. A crash keeps what was
 * synced and any prefix of the rest; loading replays it. */
#include "sim/redis_priv.h"

#define REDIS_SYNC_US (1 * SECOND)
#define REDIS_BEAT_US (100 * MS)

uint64_t redis_wall_ms(const struct sim_redis *redis)
{
        const struct sim *sim = redis->sim;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].region == redis->region)
                        return host_wall_us(sim, &sim->hosts[i]) / 1000;
        UNREACHABLE("every region has a host");
}

void redis_must(struct sim_redis *redis, enum err err, const char *what)
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
        redis_must(redis, keyspace_members(redis->keyspace, members, count), "members");
}

/* ---- the append-only file ---- */

void redis_log(struct sim_redis *redis, enum log_kind kind, region_id origin, uint64_t last,
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
void redis_log_change(struct sim_redis *redis, enum err err, const struct keyspace_change *change)
{
        redis_must(redis, err, "a record");
        if (err == ERR_NONE && !change->nothing)
                redis_log(redis, LOG_LOCAL, 0, change->stamp.hlc, NULL, change->delta);
}

static void clock_settle(struct sim_redis *redis)
{
        if (redis->clock_pending > redis->clock_file && redis->sim->now_us >= redis->clock_at_us)
                redis->clock_file = redis->clock_pending;
}

/* Once a turn. Nobody is given this record, so a crash may take it. */
void redis_reserve(struct sim_redis *redis)
{
        struct keyspace_change change;
        redis_must(redis, keyspace_reserve(redis->keyspace, redis_wall_ms(redis), &change),
                   "a reservation");
        if (!change.nothing)
                redis_log(redis, LOG_LOCAL, 0, UINT64_MAX, NULL, change.delta);
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
        redis_log_change(redis, keyspace_begin(redis->keyspace, redis_wall_ms(redis), &change),
                         &change);
        redis_reserve(redis);
}

static void log_replay_one(struct sim_redis *redis, const struct log_entry *entry)
{
        struct keyspace_result result;
        struct bytes data = bytes_of(entry->bytes, entry->len);
        switch (entry->kind) {
        case LOG_LOCAL:
                redis_must(redis,
                           keyspace_replay(redis->keyspace, &redis->native, data, (struct bytes){0},
                                           &result),
                           "replay");
                break;
        case LOG_BATCH:
                redis_must(redis,
                           keyspace_apply_logged(redis->keyspace, &redis->native, entry->origin, 0,
                                                 entry->last, data, &result),
                           "apply of the log");
                break;
        case LOG_STATE:
                redis_must(redis,
                           keyspace_merge_state(redis->keyspace, &redis->native,
                                                redis_wall_ms(redis) + 86400000, data, &result),
                           "state of the log");
                break;
        case LOG_ADOPT:
                redis_must(redis,
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

static void natives(struct sim_redis *redis)
{
        size_t count;
        const struct redis_type *const *types = redis_types(&count);
        model_native(redis);
        for (size_t i = 0; i < count; i++)
                if (types[i]->native != NULL)
                        types[i]->native(&redis->native);
}

void redis_init(struct sim *sim, uint32_t region)
{
        struct sim_redis *redis = &sim->redis[region];
        redis->sim = sim;
        redis->region = region;
        redis->log_tail = &redis->log_first;
        buffer_init(&redis->room, &sim->heap);
        natives(redis);
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
        buffer_fini(&redis->room);
        log_cut(redis, &redis->log_first);
}

void redis_crash(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        if (!redis->exists || !redis->up)
                return;
        sim_trace(sim, "Redis of region %u crashes", redis->region + 1);
        sim_cover(sim, COVER_REDIS_CRASH);
        redis->up = false;
        redis_forget_links(redis);
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
        witness_crash(sim, origin, vector_get(keyspace_positions(redis->keyspace), origin));
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

/* True where it was due. */
static bool strike(struct sim_redis *redis, const struct model_key *key)
{
        uint8_t text[sizeof key->name];
        struct keyspace_change change;
        if (key->expire_at_ms == 0 || key->expire_at_ms > redis_wall_ms(redis))
                return false;
        memcpy(text, key->name, key->name_len);
        struct crdt_name name = {key->db, bytes_of(text, key->name_len)};
        redis->native.key_delete(redis, name);
        sim_cover(redis->sim, COVER_EXPIRED_KEY);
        redis_logged(redis,
                     keyspace_local_expired(redis->keyspace, redis_wall_ms(redis), name, &change),
                     &change);
        return true;
}

void redis_strike(struct sim_redis *redis, struct crdt_name name)
{
        const struct model_key *key = model_find(redis, name);
        if (key != NULL)
                (void)strike(redis, key);
}

/* Keys expire, tombstones go. */
void redis_beat(struct sim_redis *redis)
{
        sim_at(redis->sim, REDIS_BEAT_US, EVENT_REDIS_BEAT, redis->region, 0, 0);
        if (!redis->up)
                return;
        for (size_t i = 0; i < redis->key_count;)
                if (!strike(redis, &redis->keys[i]))
                        i++;
        (void)keyspace_collect(redis->keyspace, 16);
}
