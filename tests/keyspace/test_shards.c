/* One region on several servers: slots, splitting, and the merge of the shards' streams. Random
 * histories run on a region of three shards, one of a single server and one of two shards, whose
 * clocks differ; all end with the same digest. */
#include "base/rng.h"
#include "keyspace/shards.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        HISTORIES = 300,
        STEPS = 500,
        KEYS = 40,
        WALL_MS = 1000000,
        SERVERS_MAX = 3,
};

static void slots(void **state)
{
        static const struct {
                const char *key;
                unsigned slot;
                const char *why;
        } rows[] = {
                {"123456789", 12739, "the check value of the checksum"},
                {"", 0, "no bytes"},
                {"foo", 12182, "as redis-cli tells"},
                {"{foo}bar", 12182, "the tag alone counts"},
                {"x{foo}{bar}", 12182, "the first tag"},
                {"{}foo", 9500, "an empty tag is none"},
                {"{foo", 13308, "no end, no tag"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                unsigned slot = shards_slot(bytes_of_str(rows[i].key));
                if (slot != rows[i].slot)
                        fail_msg("'%s' is in %u (%s)", rows[i].key, slot, rows[i].why);
        }
}

/* ---- a region */

struct region {
        region_id id;
        unsigned count;
        struct keyspace *servers[SERVERS_MAX];
        uint64_t skew_ms[SERVERS_MAX];
        struct shards_map map;
        struct shards_seen *seen[4]; /* by reader */
};

struct world {
        struct heap heap;
        struct rng rng;
        uint64_t now_ms;
        struct region regions[4]; /* by id, from 1 */
};

static uint64_t wall(const struct world *world, const struct region *region, unsigned server)
{
        return world->now_ms + region->skew_ms[server];
}

static struct keyspace *server_new(struct world *world, const struct region *region, unsigned at)
{
        struct keyspace_config config = {.origin = region->id,
                                         .ring_bytes = 1 << 20,
                                         .drift_max_ms = 5000,
                                         .several = region->count > 1,
                                         .incarnation = at + 1};
        struct keyspace *keyspace = keyspace_new(&world->heap, &config);
        assert_non_null(keyspace);
        assert_int_equal(keyspace_members(keyspace, (region_id[]){1, 2, 3}, 3), ERR_NONE);
        return keyspace;
}

/* One ends and comes back with what it had saved then. */
static void server_restarts(struct world *world, struct region *region)
{
        unsigned at = (unsigned)rng_below(&world->rng, region->count);
        struct buffer saved;
        buffer_init(&saved, &world->heap);
        assert_int_equal(keyspace_save(region->servers[at], true, &saved), ERR_NONE);
        keyspace_free(region->servers[at]);
        region->servers[at] = server_new(world, region, at);
        assert_int_equal(keyspace_load(region->servers[at], buffer_view(&saved)), ERR_NONE);
        buffer_fini(&saved);
}

static void region_init(struct world *world, region_id id, unsigned count)
{
        struct region *region = &world->regions[id];
        *region = (struct region){.id = id, .count = count};
        for (unsigned i = 0; i < count; i++) {
                region->servers[i] = server_new(world, region, i);
                region->skew_ms[i] = rng_below(&world->rng, 3);
        }
        region->map.count = count;
        for (unsigned slot = 0; slot < SHARDS_SLOTS; slot++)
                region->map.owner[slot] = (uint8_t)(slot % count);
        for (unsigned i = 1; i < 4; i++) {
                region->seen[i] = heap_alloc(&world->heap, sizeof *region->seen[i]);
                assert_non_null(region->seen[i]);
        }
}

static struct crdt_name key_name(char text[static 16], unsigned at)
{
        return (struct crdt_name){0, bytes_of(text, (size_t)snprintf(text, 16, "key%u", at))};
}

/* The number of a key tells its type. */
static enum err write_type(struct world *world, struct keyspace *keyspace, uint64_t now_ms,
                           struct crdt_name name, unsigned at, struct keyspace_change *change)
{
        char item[16];
        bool adds = rng_chance(&world->rng, 600);
        uint64_t number = rng_below(&world->rng, 5);
        struct bytes member =
                bytes_of(item, (size_t)snprintf(item, sizeof item, "%u", (unsigned)number));
        struct keyspace_pair pair = {member, member};
        struct keyspace_score score = {member, (double)number};
        struct keyspace_range range = {0, 1};
        switch (at % 6) {
        case 0:
                return keyspace_local_set(keyspace, now_ms, name, member, 0, change);
        case 1:
                return keyspace_local_increment(keyspace, now_ms, name, 1, 0, change);
        case 2:
                return adds ? keyspace_local_set_add(keyspace, now_ms, name, &member, 1, change)
                            : keyspace_local_set_remove(keyspace, now_ms, name, &member, 1, change);
        case 3:
                return adds ? keyspace_local_hash_set(keyspace, now_ms, name, &pair, 1, change)
                            : keyspace_local_hash_delete(keyspace, now_ms, name, &member, 1,
                                                         change);
        case 4:
                return adds ? keyspace_local_zset_add(keyspace, now_ms, name, &score, 1, change)
                            : keyspace_local_zset_remove(keyspace, now_ms, name, &member, 1,
                                                         change);
        default:
                return adds || keyspace_list_length(keyspace, name) == 0
                               ? keyspace_local_list_push(keyspace, now_ms, name, number % 2 == 0,
                                                          &member, 1, change)
                               : keyspace_local_list_remove(keyspace, now_ms, name, &range, 1,
                                                            change);
        }
}

static void write_one(struct world *world, struct region *region)
{
        char key[16];
        unsigned at = (unsigned)rng_below(&world->rng, KEYS);
        struct crdt_name name = key_name(key, at);
        unsigned server = region->map.owner[shards_slot(name.key)];
        struct keyspace *keyspace = region->servers[server];
        uint64_t now_ms = wall(world, region, server);
        struct keyspace_change change;
        enum err err;
        if (rng_chance(&world->rng, 100))
                err = keyspace_local_delete(keyspace, now_ms, name, &change);
        else
                err = write_type(world, keyspace, now_ms, name, at, &change);
        assert_int_equal(err, ERR_NONE);
}

/* Reads from one server; copies, because the next call ends the loan. */
static struct shards_stream read_one(struct world *world, const struct region *region, unsigned at,
                                     uint64_t after, uint64_t mark, struct buffer *copy)
{
        struct keyspace_batch batch;
        struct shards_stream stream = {.reach = 0};
        uint64_t now_ms = wall(world, region, at);
        size_t max = (size_t)rng_below(&world->rng, 300);
        if (mark != 0) {
                assert_int_equal(keyspace_mark(region->servers[at], now_ms, mark, &stream.reach),
                                 ERR_NONE);
                assert_true(stream.reach >= mark);
        }
        assert_int_equal(keyspace_tail(region->servers[at], now_ms, after, max, &batch), ERR_NONE);
        assert_false(batch.gap);
        buffer_reset(copy);
        buffer_bytes(copy, batch.parts[0]);
        buffer_bytes(copy, batch.parts[1]);
        stream.deltas = buffer_view(copy);
        if (batch.count > 0)
                stream.reach = batch.last;
        return stream;
}

/* The next batch of a region's stream; false where there is none. */
static bool read_region(struct world *world, struct region *region, uint64_t after,
                        struct shards_seen *seen, struct buffer *ret, uint64_t *ret_last)
{
        struct buffer copies[SERVERS_MAX];
        struct shards_stream streams[SERVERS_MAX];
        uint64_t mark = UINT64_MAX;
        for (unsigned i = 0; i < region->count; i++) {
                buffer_init(&copies[i], &world->heap);
                streams[i] = read_one(world, region, i, after, 0, &copies[i]);
                if (streams[i].reach != 0 && streams[i].reach < mark)
                        mark = streams[i].reach;
        }
        for (unsigned i = 0; i < region->count && mark != UINT64_MAX; i++) {
                if (streams[i].reach == 0)
                        streams[i] = read_one(world, region, i, after, mark, &copies[i]);
        }
        bool any = mark != UINT64_MAX;
        if (any) {
                assert_int_equal(shards_merge(streams, region->count, after, seen, ret, ret_last),
                                 ERR_NONE);
                assert_true(*ret_last > after);
        }
        for (unsigned i = 0; i < region->count; i++)
                buffer_fini(&copies[i]);
        return any;
}

static uint64_t position_of(const struct region *region, region_id origin)
{
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < region->count; i++) {
                uint64_t position = vector_get(keyspace_positions(region->servers[i]), origin);
                least = position < least ? position : least;
        }
        return least;
}

/* To some of the target's shards or to all, once or twice. */
static void deliver(struct world *world, struct region *target, region_id origin, uint64_t after,
                    uint64_t last, struct bytes deltas, bool all)
{
        struct buffer parts[SERVERS_MAX];
        struct keyspace_result result;
        for (unsigned i = 0; i < target->count; i++)
                buffer_init(&parts[i], &world->heap);
        assert_int_equal(shards_split(&target->map, deltas, parts), ERR_NONE);
        for (unsigned i = 0; i < target->count; i++) {
                for (unsigned times = all ? 1 : (unsigned)rng_below(&world->rng, 3); times > 0;
                     times--) {
                        assert_int_equal(keyspace_apply(target->servers[i], NULL,
                                                        wall(world, target, i), origin, after, last,
                                                        buffer_view(&parts[i]), &result),
                                         ERR_NONE);
                        assert_false(result.gap);
                }
                buffer_fini(&parts[i]);
        }
}

static bool ship(struct world *world, struct region *source, struct region *target, bool all)
{
        struct buffer deltas;
        uint64_t last = 0;
        uint64_t after = position_of(target, source->id);
        buffer_init(&deltas, &world->heap);
        bool any = read_region(world, source, after, source->seen[target->id], &deltas, &last);
        if (any)
                deliver(world, target, source->id, after, last, buffer_view(&deltas), all);
        buffer_fini(&deltas);
        return any;
}

static unsigned carried;

/* What `by` has merged of the source's stream, put together from all of its servers. */
static void carry(struct world *world, const struct region *source, struct region *by,
                  struct region *target)
{
        struct buffer copies[SERVERS_MAX];
        struct shards_stream streams[SERVERS_MAX];
        struct buffer deltas;
        uint64_t last = 0;
        uint64_t after = position_of(target, source->id);
        bool gap = false;
        buffer_init(&deltas, &world->heap);
        for (unsigned i = 0; i < by->count; i++) {
                struct keyspace_batch batch;
                size_t max = (size_t)rng_below(&world->rng, 300);
                assert_int_equal(keyspace_relay(by->servers[i], source->id, after, max, &batch),
                                 ERR_NONE);
                buffer_init(&copies[i], &world->heap);
                buffer_bytes(&copies[i], batch.parts[0]);
                buffer_bytes(&copies[i], batch.parts[1]);
                streams[i] = (struct shards_stream){buffer_view(&copies[i]), batch.reach};
                gap = gap || batch.gap;
                assert_true(batch.reach >= batch.last);
        }
        if (!gap) {
                assert_int_equal(shards_merge(streams, by->count, after, NULL, &deltas, &last),
                                 ERR_NONE);
                assert_true(last <= position_of(by, source->id) || deltas.len == 0);
                carried += deltas.len > 0;
                if (deltas.len > 0)
                        deliver(world, target, source->id, after, last, buffer_view(&deltas),
                                false);
        }
        for (unsigned i = 0; i < by->count; i++)
                buffer_fini(&copies[i]);
        buffer_fini(&deltas);
}

static uint64_t digest_of(const struct region *region)
{
        uint64_t sum = 0;
        for (unsigned i = 0; i < region->count; i++)
                sum += keyspace_digest(region->servers[i]);
        return sum;
}

static void settle(struct world *world)
{
        for (bool any = true; any;) {
                any = false;
                for (unsigned from = 1; from < 4; from++) {
                        for (unsigned to = 1; to < 4; to++)
                                any = (from != to && ship(world, &world->regions[from],
                                                          &world->regions[to], true)) ||
                                      any;
                }
        }
}

static void tell_seen(struct world *world, struct region *region)
{
        struct keyspace_change change;
        for (unsigned i = 0; i < region->count; i++) {
                keyspace_heartbeat(region->servers[i], wall(world, region, i), &change);
                (void)keyspace_collect(region->servers[i], SIZE_MAX);
        }
}

static unsigned moved, ahead;

/* A slot goes to another shard of its region, as plugins/redis/migrate.c does it: also in the midst
 * of a batch that one of the two has and the other one not. */
static void slot_moves(struct world *world, struct region *region)
{
        char text[16];
        struct buffer seen, state;
        bool less;
        unsigned slot = shards_slot(key_name(text, (unsigned)rng_below(&world->rng, KEYS)).key);
        unsigned source = region->map.owner[slot];
        unsigned target = (source + 1) % region->count;
        struct keyspace *from = region->servers[source];
        struct keyspace *to = region->servers[target];
        buffer_init(&seen, &world->heap);
        buffer_init(&state, &world->heap);
        assert_int_equal(
                keyspace_clock_observe(to, wall(world, region, target), keyspace_clock(from)),
                ERR_NONE);
        keyspace_seen_out(from, &seen);
        assert_int_equal(keyspace_seen_in(to, buffer_view(&seen), &less), ERR_NONE);
        ahead += less;
        for (unsigned i = 0; i < KEYS; i++) {
                struct crdt_name name = key_name(text, i);
                buffer_reset(&state);
                if (shards_slot(name.key) != slot ||
                    keyspace_move_out(from, name, &state) == ERR_NOT_FOUND)
                        continue;
                assert_int_equal(keyspace_move_in(to, NULL, buffer_view(&state)), ERR_NONE);
                keyspace_forget(from, name);
                moved++;
        }
        region->map.owner[slot] = (uint8_t)target;
        buffer_fini(&seen);
        buffer_fini(&state);
}

static void history(uint64_t seed)
{
        static struct world world;
        world = (struct world){.now_ms = WALL_MS};
        heap_init(&world.heap, 0);
        rng_init(&world.rng, seed, 1);
        for (region_id id = 1; id < 4; id++)
                region_init(&world, id, id == 1 ? 3 : id == 2 ? 1 : 2);
        for (unsigned step = 0; step < STEPS; step++) {
                struct region *region = &world.regions[rng_between(&world.rng, 1, 3)];
                struct region *other = &world.regions[rng_between(&world.rng, 1, 3)];
                if (rng_chance(&world.rng, 300))
                        world.now_ms += rng_below(&world.rng, 400);
                if (rng_chance(&world.rng, 30))
                        tell_seen(&world, region);
                if (rng_chance(&world.rng, 20))
                        server_restarts(&world, region);
                if (region->count > 1 && rng_chance(&world.rng, 30))
                        slot_moves(&world, region);
                if (rng_chance(&world.rng, 600))
                        write_one(&world, region);
                else if (region != other && rng_chance(&world.rng, 300))
                        carry(&world, region, &world.regions[6 - region->id - other->id], other);
                else if (region != other)
                        (void)ship(&world, region, other, false);
        }
        settle(&world);
        uint64_t wanted = digest_of(&world.regions[1]);
        for (unsigned id = 2; id < 4; id++) {
                if (digest_of(&world.regions[id]) != wanted)
                        fail_msg("seed %llu: region %u differs", (unsigned long long)seed, id);
        }
        for (unsigned id = 1; id < 4; id++) {
                for (unsigned i = 0; i < world.regions[id].count; i++)
                        keyspace_free(world.regions[id].servers[i]);
                for (unsigned i = 1; i < 4; i++)
                        heap_free(&world.heap, world.regions[id].seen[i]);
        }
        assert_int_equal(world.heap.used_bytes, 0);
}

static void converge(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= HISTORIES; seed++)
                history(seed);
        assert_true(carried > HISTORIES);
        assert_true(moved > HISTORIES);
}

/* ---- the merge by itself */

static void delta_add(struct buffer *stream, uint64_t hlc, const char *key)
{
        struct buffer delta;
        buffer_init(&delta, stream->heap);
        crdt_delta_head(&delta, hlc, CRDT_OP_SET, 0, (struct crdt_name){0, bytes_of_str(key)});
        buffer_slice(stream, buffer_view(&delta));
        buffer_fini(&delta);
}

static void seen_add(struct buffer *stream, uint64_t hlc, uint64_t of_two, uint64_t of_three)
{
        struct vector vector = {{0}};
        struct buffer delta;
        vector.hlc[2] = of_two;
        vector.hlc[3] = of_three;
        buffer_init(&delta, stream->heap);
        crdt_delta_head(&delta, hlc, CRDT_OP_SEEN, 0, (struct crdt_name){0});
        vector_encode(&vector, &delta);
        buffer_slice(stream, buffer_view(&delta));
        buffer_fini(&delta);
}

struct pair {
        struct heap heap;
        struct buffer streams[2];
        struct buffer out;
        struct shards_seen seen;
        uint64_t last;
};

static void pair_init(struct pair *pair)
{
        memset(pair, 0, sizeof *pair);
        heap_init(&pair->heap, 0);
        buffer_init(&pair->streams[0], &pair->heap);
        buffer_init(&pair->streams[1], &pair->heap);
        buffer_init(&pair->out, &pair->heap);
}

static void pair_fini(struct pair *pair)
{
        buffer_fini(&pair->streams[0]);
        buffer_fini(&pair->streams[1]);
        buffer_fini(&pair->out);
        assert_int_equal(pair->heap.used_bytes, 0);
}

static enum err pair_merge(struct pair *pair, uint64_t after, uint64_t reach_0, uint64_t reach_1)
{
        struct shards_stream streams[] = {{buffer_view(&pair->streams[0]), reach_0},
                                          {buffer_view(&pair->streams[1]), reach_1}};
        buffer_reset(&pair->out);
        return shards_merge(streams, 2, after, &pair->seen, &pair->out, &pair->last);
}

/* The clocks and keys of what came out: "5a 7b ". */
static const char *pair_told(const struct pair *pair)
{
        static char text[256];
        size_t len = 0;
        struct cursor cursor = cursor_of(buffer_view(&pair->out));
        text[0] = 0;
        while (cursor_left(&cursor) > 0) {
                struct cursor delta = cursor_of(cursor_slice(&cursor));
                uint64_t hlc = cursor_u64(&delta);
                cursor_u8(&delta);
                cursor_varint(&delta);
                struct bytes key = cursor_slice(&delta);
                len += (size_t)snprintf(text + len, sizeof text - len, "%u%.*s ", (unsigned)hlc,
                                        BYTES_ARGS(key));
        }
        return text;
}

static void watermark(void **state)
{
        static struct pair pair;
        (void)state;
        pair_init(&pair);
        delta_add(&pair.streams[0], 5, "a");
        delta_add(&pair.streams[0], 7, "b");
        delta_add(&pair.streams[0], 9, "c");
        delta_add(&pair.streams[1], 7, "x");
        delta_add(&pair.streams[1], 8, "y");
        assert_int_equal(pair_merge(&pair, 0, 9, 8), ERR_NONE);
        assert_string_equal(pair_told(&pair), "5a 7b 7x 8y ");
        assert_int_equal(pair.last, 8);
        assert_int_equal(pair_merge(&pair, 5, 9, 20), ERR_NONE);
        assert_string_equal(pair_told(&pair), "7b 7x 8y 9c ");
        assert_int_equal(pair.last, 9);
        /* One clock stays together, whichever shard has reached it. */
        assert_int_equal(pair_merge(&pair, 6, 9, 8), ERR_NONE);
        assert_string_equal(pair_told(&pair), "7b 7x 8y ");
        /* A shard that came back behind what was told holds the stream. */
        buffer_reset(&pair.streams[1]);
        assert_int_equal(pair_merge(&pair, 8, 9, 4), ERR_NONE);
        assert_string_equal(pair_told(&pair), "");
        assert_true(pair.last <= 8);
        pair_fini(&pair);
}

static void seen_of(const struct pair *pair, size_t at, struct vector *ret)
{
        struct cursor cursor = cursor_of(buffer_view(&pair->out));
        struct crdt_delta delta;
        for (size_t i = 0; i < at; i++)
                cursor_slice(&cursor);
        assert_int_equal(crdt_delta_decode(cursor_slice(&cursor), 1, &delta), ERR_NONE);
        assert_int_equal(delta.op, CRDT_OP_SEEN);
        *ret = delta.seen;
}

/* A region has seen what each of its shards has. */
static void seen_is_the_least(void **state)
{
        static struct pair pair;
        struct vector vector;
        (void)state;
        pair_init(&pair);
        seen_add(&pair.streams[0], 5, 40, 50);
        seen_add(&pair.streams[1], 6, 30, 60);
        seen_add(&pair.streams[0], 7, 45, 55);
        assert_int_equal(pair_merge(&pair, 0, 7, 7), ERR_NONE);
        seen_of(&pair, 0, &vector);
        assert_int_equal(vector.hlc[2], 0); /* the other shard has not told yet */
        seen_of(&pair, 1, &vector);
        assert_int_equal(vector.hlc[2], 30);
        assert_int_equal(vector.hlc[3], 50);
        seen_of(&pair, 2, &vector);
        assert_int_equal(vector.hlc[2], 30);
        assert_int_equal(vector.hlc[3], 55);
        pair_fini(&pair);
}

static void damaged(void **state)
{
        static struct pair pair;
        static struct shards_map map = {.count = 2};
        (void)state;
        pair_init(&pair);
        delta_add(&pair.streams[0], 5, "a");
        delta_add(&pair.streams[0], 4, "b");
        assert_int_equal(pair_merge(&pair, 0, 9, 9), ERR_MALFORMED); /* clocks do not fall */
        buffer_reset(&pair.streams[0]);
        delta_add(&pair.streams[0], 5, "a");
        seen_add(&pair.streams[0], 6, 1, 2);
        assert_int_equal(pair_merge(&pair, 0, 5, 9), ERR_MALFORMED); /* beyond what it told */
        struct bytes whole = buffer_view(&pair.streams[0]);
        for (size_t len = 1; len < whole.len; len++) {
                struct buffer parts[2];
                struct shards_stream streams[] = {{bytes_of(whole.ptr, len), 9}, {{0}, 9}};
                buffer_init(&parts[0], &pair.heap);
                buffer_init(&parts[1], &pair.heap);
                bool cut = len != (size_t)whole.ptr[0] + 1;
                enum err err = shards_split(&map, bytes_of(whole.ptr, len), parts);
                assert_int_equal(err != ERR_NONE, cut);
                buffer_reset(&pair.out);
                err = shards_merge(streams, 2, 0, &pair.seen, &pair.out, &pair.last);
                assert_int_equal(err != ERR_NONE, cut);
                buffer_fini(&parts[0]);
                buffer_fini(&parts[1]);
        }
        map.owner[shards_slot(BYTES("a"))] = SHARDS_NOBODY;
        assert_int_equal(shards_split(&map, whole, pair.streams), ERR_REFUSED);
        pair_fini(&pair);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(slots),
                cmocka_unit_test(watermark),
                cmocka_unit_test(seen_is_the_least),
                cmocka_unit_test(damaged),
                cmocka_unit_test(converge),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
