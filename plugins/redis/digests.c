/* digests.c - MERIDIAN.DIGESTS: what `meridian verify` compares between regions.
 *
 *   DIGESTS 0 prefix         begins a walk that sums the keys up, by bucket (verify/verify.h)
 *   DIGESTS 0 prefix map     begins one that names the keys of the buckets in `map`
 *   DIGESTS walk             goes on; each call takes about half a millisecond
 *   DIGESTS POSITIONS        how far this server has come: u64 newest own delta, u64 keys, then u8
 *                            origin, u64 position each
 *
 * The answer is [walk, keys, payload]; walk is 0 at the end. The payload of sums, which come when
 * the walk is over: u32 bucket, u64 keys, u64 sum each. Of names: records.
 *
 *   remembered --the table of keys is through--> held --all databases are through--> telling
 *
 * `remembered` takes the keys that the keyspace shows, `held` those that Redis has and the keyspace
 * does not know. What is written meanwhile is met or missed. A walk that is not gone on with is
 * forgotten when others begin. Fails only by running out of memory, which stops the server. */
#include "digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
        WALKS_MAX = 4,
        SLICE_US = 500,
        PAYLOAD_MAX = 64 << 10,
        SCAN_COUNT = 32,
        LENGTH_REMEMBERED_MAX = 4096, /* of a longer value only the content counts */
};

enum phase {
        PHASE_REMEMBERED,
        PHASE_HELD,
        PHASE_TELLING,
        PHASE_OVER,
};

struct bucket {
        uint64_t sum;
        uint64_t keys;
};

struct walk {
        uint64_t id;            /* 0: free */
        uint64_t used;          /* when it was gone on with, by count */
        struct bucket *buckets; /* NULL: keys are named */
        uint8_t *map;
        struct buffer prefix;
        enum phase phase;
        uint64_t cursor; /* of the table; of the page that is told next */
        char scan[24];   /* of SCAN */
        int db;
        bool through;        /* the last names of this phase are in `names` */
        struct buffer names; /* to be looked at: u32 db, slice key */
        size_t names_at;
        struct reading reading;
        struct verify_record record; /* of `reading`; its key is in `key` */
        struct buffer key;
        uint64_t seen; /* keys in this call */
        struct buffer payload;
};

static struct walk walks[WALKS_MAX];
static uint64_t walks_count;

static uint64_t now_us(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- walks */

static void walk_end(struct walk *walk)
{
        reading_end(&walk->reading);
        heap_free(&plugin.heap, walk->buckets);
        heap_free(&plugin.heap, walk->map);
        struct buffer *all[] = {&walk->prefix, &walk->names, &walk->key, &walk->payload};
        for (size_t i = 0; i < COUNT_OF(all); i++)
                buffer_fini(all[i]);
        *walk = (struct walk){0};
}

static struct walk *walk_begin(struct bytes prefix, struct bytes map)
{
        struct walk *walk = &walks[0];
        for (size_t i = 1; i < WALKS_MAX && walk->id != 0; i++)
                walk = walks[i].id == 0 || walks[i].used < walk->used ? &walks[i] : walk;
        if (walk->id != 0)
                walk_end(walk);
        struct buffer *all[] = {&walk->prefix, &walk->names, &walk->key, &walk->payload};
        for (size_t i = 0; i < COUNT_OF(all); i++)
                buffer_init(all[i], &plugin.heap);
        buffer_bytes(&walk->prefix, prefix);
        plugin_must(walk->prefix.err, "a prefix");
        if (map.len == VERIFY_MAP_LEN) {
                walk->map = plugin_array(VERIFY_MAP_LEN, 1, "buckets");
                memcpy(walk->map, map.ptr, VERIFY_MAP_LEN);
        } else {
                walk->buckets = plugin_array(VERIFY_BUCKETS, sizeof(*walk->buckets), "buckets");
        }
        /* Not a number that an earlier process gave. */
        if (walks_count == 0)
                walks_count = plugin.config.incarnation >> 16;
        walk->id = ++walks_count;
        memcpy(walk->scan, "0", 2);
        return walk;
}

static struct walk *walk_find(uint64_t id)
{
        for (size_t i = 0; i < WALKS_MAX; i++)
                if (id != 0 && walks[i].id == id)
                        return &walks[i];
        return NULL;
}

/* ---- names */

static bool name_wanted(const struct walk *walk, struct crdt_name name)
{
        struct bytes prefix = buffer_view(&walk->prefix);
        if (name.key.len < prefix.len ||
            (prefix.len > 0 && memcmp(name.key.ptr, prefix.ptr, prefix.len) != 0))
                return false;
        unsigned bucket = verify_bucket(verify_name(name.db, name.key));
        return walk->map == NULL || (walk->map[bucket / 8] >> bucket % 8 & 1) != 0;
}

static void name_add(struct walk *walk, struct crdt_name name)
{
        if (!name_wanted(walk, name))
                return;
        buffer_u32(&walk->names, name.db);
        buffer_slice(&walk->names, name.key);
        plugin_must(walk->names.err, "names");
}

static void remembered(void *context, const struct keyspace_key *key)
{
        if (key->type != CRDT_NONE)
                name_add(context, key->name);
}

static bool is_known(struct crdt_name name, struct keyspace_key *ret)
{
        return keyspace_find(plugin.keyspace, name, ret) && ret->type != CRDT_NONE;
}

static void held(struct walk *walk, struct redis_reply *names)
{
        for (size_t i = 0; i < redis.CallReplyLength(names); i++) {
                size_t len = 0;
                struct keyspace_key key;
                const char *text =
                        redis.CallReplyStringPtr(redis.CallReplyArrayElement(names, i), &len);
                struct crdt_name name = {(uint32_t)walk->db, bytes_of(text, len)};
                if (text != NULL && !is_known(name, &key))
                        name_add(walk, name);
        }
}

/* The next names that Redis has. */
static void names_held(struct walk *walk, struct redis_context *ctx)
{
        if (redis.SelectDb(ctx, walk->db) != REDIS_OK) {
                walk->through = true;
                return;
        }
        struct redis_reply *reply =
                redis.Call(ctx, "SCAN", "ccl", walk->scan, "COUNT", (long long)SCAN_COUNT);
        size_t len = 0;
        bool good = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY &&
                    redis.CallReplyLength(reply) == 2;
        const char *next = NULL;
        if (good)
                next = redis.CallReplyStringPtr(redis.CallReplyArrayElement(reply, 0), &len);
        if (next == NULL || len >= sizeof(walk->scan)) {
                next = "0";
                len = 1;
        }
        memcpy(walk->scan, next, len);
        walk->scan[len] = 0;
        if (good)
                held(walk, redis.CallReplyArrayElement(reply, 1));
        if (reply != NULL)
                redis.FreeCallReply(reply);
        if (len == 1 && walk->scan[0] == '0') {
                walk->db++;
                walk->through = walk->db > CRDT_DB_MAX || cluster_enabled();
        }
}

static void names_fetch(struct walk *walk, struct redis_context *ctx)
{
        buffer_reset(&walk->names);
        walk->names_at = 0;
        if (walk->through) {
                walk->through = false;
                walk->cursor = 0;
                walk->phase = walk->phase == PHASE_REMEMBERED ? PHASE_HELD
                              : walk->buckets == NULL         ? PHASE_OVER
                                                              : PHASE_TELLING;
        } else if (walk->phase == PHASE_REMEMBERED) {
                walk->cursor = keyspace_each(plugin.keyspace, walk->cursor, 16, remembered, walk);
                walk->through = walk->cursor == 0;
        } else {
                names_held(walk, ctx);
        }
}

/* ---- keys */

static void key_begin(struct walk *walk, struct redis_context *ctx, struct crdt_name name)
{
        struct keyspace_key key;
        struct reading *reading = &walk->reading;
        /* To look at an expired key deletes it. */
        reading_begin(reading, ctx, name);
        bool known = is_known(name, &key);
        if (known != (walk->phase == PHASE_REMEMBERED) ||
            (!known && reading->type == REDIS_KEY_EMPTY)) {
                reading_end(reading);
                return;
        }
        walk->seen++;
        walk->record = (struct verify_record){.db = name.db,
                                              .begin = true,
                                              .type = (uint8_t)reading->type,
                                              .hlc = known ? key.stamp.hlc : 0,
                                              .origin = known ? key.stamp.origin : 0};
        if (known &&
            (reading->type == REDIS_KEY_STRING || reading->length <= LENGTH_REMEMBERED_MAX))
                walk->record.memory = keyspace_key_digest(plugin.keyspace, name);
        buffer_reset(&walk->key);
        buffer_bytes(&walk->key, name.key);
        plugin_must(walk->key.err, "a name");
}

/* What was read so far goes out. */
static void key_tell(struct walk *walk)
{
        struct reading *reading = &walk->reading;
        struct verify_record *record = &walk->record;
        if (walk->buckets != NULL) {
                struct bucket *bucket = &walk->buckets[verify_bucket(reading->name)];
                bucket->sum += reading->sum;
                if (record->begin) {
                        bucket->keys++;
                        bucket->sum += verify_memory(reading->name, record->memory);
                }
        } else {
                record->key = buffer_view(&walk->key);
                record->value = reading->sum;
                verify_record_write(&walk->payload, record);
                plugin_must(walk->payload.err, "digests");
        }
        record->begin = false;
        reading->sum = 0;
}

static void key_next(struct walk *walk, struct redis_context *ctx)
{
        struct bytes names = buffer_view(&walk->names);
        struct cursor cursor =
                cursor_of(bytes_of(names.ptr + walk->names_at, names.len - walk->names_at));
        struct crdt_name name = local_listed(&cursor);
        walk->names_at = names.len - cursor_left(&cursor);
        key_begin(walk, ctx, name);
}

/* The sums of one page of buckets. */
static void tell_page(struct walk *walk)
{
        uint32_t end = (uint32_t)walk->cursor + VERIFY_PAGE;
        for (uint32_t i = (uint32_t)walk->cursor; i < end; i++) {
                if (walk->buckets[i].keys == 0 && walk->buckets[i].sum == 0)
                        continue;
                buffer_u32(&walk->payload, i);
                buffer_u64(&walk->payload, walk->buckets[i].keys);
                buffer_u64(&walk->payload, walk->buckets[i].sum);
        }
        plugin_must(walk->payload.err, "digests");
        walk->cursor = end;
        walk->phase = end == VERIFY_BUCKETS ? PHASE_OVER : PHASE_TELLING;
}

static void walk_step(struct walk *walk, struct redis_context *ctx)
{
        struct reading *reading = &walk->reading;
        if (reading->key == NULL && walk->names_at < walk->names.len)
                key_next(walk, ctx);
        else if (reading->key == NULL)
                names_fetch(walk, ctx);
        if (reading->key == NULL)
                return;
        if (!reading->whole)
                reading_step(reading, ctx);
        if (!reading->whole)
                return;
        key_tell(walk);
        reading_end(reading);
}

static void walk_run(struct walk *walk, struct redis_context *ctx)
{
        uint64_t until = now_us() + SLICE_US;
        buffer_reset(&walk->payload);
        walk->seen = 0;
        walk->used = ++walks_count;
        do {
                if (walk->phase == PHASE_TELLING) {
                        tell_page(walk);
                        return;
                }
                walk_step(walk, ctx);
        } while (walk->phase != PHASE_OVER && walk->payload.len < PAYLOAD_MAX && now_us() < until);
}

/* ---- the command */

static int reply(struct redis_context *ctx, uint64_t walk, uint64_t keys, struct bytes payload)
{
        redis.ReplyWithArray(ctx, 3);
        redis.ReplyWithLongLong(ctx, (long long)walk);
        redis.ReplyWithLongLong(ctx, (long long)keys);
        return redis.ReplyWithStringBuffer(ctx, payload.len == 0 ? "" : (const char *)payload.ptr,
                                           payload.len);
}

static int reply_positions(struct redis_context *ctx)
{
        struct buffer payload;
        const struct vector *positions = keyspace_positions(plugin.keyspace);
        uint64_t keys = keyspace_stats(plugin.keyspace).keys;
        buffer_init(&payload, &plugin.heap);
        buffer_u64(&payload, keyspace_ring_last(plugin.keyspace));
        buffer_u64(&payload, keys);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (positions->hlc[i] == 0)
                        continue;
                buffer_u8(&payload, (uint8_t)i);
                buffer_u64(&payload, positions->hlc[i]);
        }
        plugin_must(payload.err, "positions");
        int status = reply(ctx, 0, keys, buffer_view(&payload));
        buffer_fini(&payload);
        return status;
}

int digests_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        unsigned long long id = 0;
        batch_drain();
        if (argc == 2 && bytes_equal(plugin_bytes(argv[1]), BYTES("POSITIONS")))
                return reply_positions(ctx);
        struct bytes map = argc == 4 ? plugin_bytes(argv[3]) : bytes_of(NULL, 0);
        if (argc < 2 || argc > 4 || redis.StringToULongLong(argv[1], &id) != REDIS_OK ||
            (argc == 2) != (id != 0) || (argc == 4 && map.len != VERIFY_MAP_LEN))
                return redis.ReplyWithError(
                        ctx, "ERR usage: MERIDIAN.DIGESTS 0 prefix [map] | walk | POSITIONS");
        if (cluster_refuses(ctx))
                return REDIS_OK;
        struct walk *walk = id == 0 ? walk_begin(plugin_bytes(argv[2]), map) : walk_find(id);
        if (walk == NULL)
                return redis.ReplyWithError(ctx, "MERIDIAN there is no such walk: begin again");
        (void)native_of(ctx);
        walk_run(walk, native_context());
        bool over = walk->phase == PHASE_OVER;
        int status = reply(ctx, over ? 0 : walk->id, walk->seen, buffer_view(&walk->payload));
        if (over)
                walk_end(walk);
        return status;
}
