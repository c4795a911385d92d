/* What a change costs as regions grow: all of them write to all keys in turn, and one of them
 * merges what the others say. Shown: bytes of a change on its way, processor time of a merge, and
 * bytes that the merging region remembers of a key. For a person to look at, never asserted. */
#include "base/check.h"
#include "base/hash.h"
#include "keyspace/keyspace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
        KEYS = 20000,
        ROUNDS = 4, /* of each region, over all keys */
        REGIONS_MAX = 17,
        BATCH_BYTES = 64 << 10,
        STEP = 500,            /* changes of a region between two merges, and a */
        RING_BYTES = 32 << 10, /* ring for them: rings should not count as memory of keys */
};

static const uint64_t START_MS = 1700000000000;

/* The receiver's store: what a counter must be told, and nothing else. */
static char texts[KEYS][24];
static int64_t values[REGIONS_MAX][KEYS];

static struct crdt_name name_of(size_t index, char text[static 16])
{
        int len = snprintf(text, 16, "key:%06u", (unsigned)index);
        return (struct crdt_name){0, bytes_of(text, (size_t)len)};
}

static char *text_of(struct crdt_name name)
{
        size_t index = 0;
        for (size_t i = 4; i < name.key.len; i++)
                index = index * 10 + (size_t)(name.key.ptr[i] - '0');
        CHECK(index < KEYS);
        return texts[index];
}

static bool string_get(void *context, struct crdt_name name, struct bytes *ret_value)
{
        (void)context;
        *ret_value = bytes_of_str(text_of(name));
        return ret_value->len > 0;
}

static void string_set(void *context, struct crdt_name name, struct bytes value,
                       uint64_t expire_at_ms)
{
        (void)context;
        (void)expire_at_ms;
        char *text = text_of(name);
        size_t len = value.len < sizeof texts[0] ? value.len : sizeof texts[0] - 1;
        memcpy(text, value.ptr, len);
        text[len] = 0;
}

static void hash_set(void *context, struct crdt_name name, struct bytes field, struct bytes value)
{
        (void)context, (void)name, (void)field, (void)value;
}

static void set_add(void *context, struct crdt_name name, struct bytes member)
{
        (void)context, (void)name, (void)member;
}

static const struct crdt_native native = {
        .string_get = string_get,
        .string_set = string_set,
        .hash_set = hash_set,
        .set_add = set_add,
};

static double now_ns(void)
{
        struct timespec now;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

typedef enum err change_fn(struct keyspace *keyspace, uint64_t wall_ms, size_t index,
                           unsigned region, struct keyspace_change *change);

static enum err change_set(struct keyspace *keyspace, uint64_t wall_ms, size_t index,
                           unsigned region, struct keyspace_change *change)
{
        char text[16];
        (void)region;
        return keyspace_local_set(keyspace, wall_ms, name_of(index, text),
                                  BYTES("a value of 20 bytes."), 0, change);
}

static enum err change_increment(struct keyspace *keyspace, uint64_t wall_ms, size_t index,
                                 unsigned region, struct keyspace_change *change)
{
        char text[16];
        return keyspace_local_increment(keyspace, wall_ms, name_of(index, text), 1,
                                        ++values[region][index], change);
}

static enum err change_sadd(struct keyspace *keyspace, uint64_t wall_ms, size_t index,
                            unsigned region, struct keyspace_change *change)
{
        char text[16];
        struct bytes member = BYTES("member");
        (void)region;
        return keyspace_local_set_add(keyspace, wall_ms, name_of(index, text), &member, 1, change);
}

static enum err change_hset(struct keyspace *keyspace, uint64_t wall_ms, size_t index,
                            unsigned region, struct keyspace_change *change)
{
        char text[16];
        struct keyspace_pair pair = {BYTES("field"), BYTES("a value of 20 bytes.")};
        (void)region;
        return keyspace_local_hash_set(keyspace, wall_ms, name_of(index, text), &pair, 1, change);
}

struct cost {
        double bytes, ns;
        uint64_t merged;
};

/* What `from` has said since the last time is merged. */
static void merge(struct keyspace *to, struct keyspace *from, region_id origin, uint64_t wall_ms,
                  uint64_t *position, struct cost *cost)
{
        for (;;) {
                struct keyspace_batch batch;
                static uint8_t stream[BATCH_BYTES * 4];
                CHECK(keyspace_tail(from, wall_ms, *position, BATCH_BYTES, &batch) == ERR_NONE);
                CHECK(!batch.gap);
                size_t len = batch.parts[0].len + batch.parts[1].len;
                if (batch.last == *position)
                        return;
                CHECK(len <= sizeof stream);
                memcpy(stream, batch.parts[0].ptr, batch.parts[0].len);
                if (batch.parts[1].len > 0)
                        memcpy(stream + batch.parts[0].len, batch.parts[1].ptr, batch.parts[1].len);
                struct keyspace_result result;
                double begin = now_ns();
                CHECK(keyspace_apply(to, &native, wall_ms, origin, *position, batch.last,
                                     bytes_of(stream, len), &result) == ERR_NONE);
                cost->ns += now_ns() - begin;
                cost->bytes += (double)len;
                cost->merged += batch.count;
                *position = batch.last;
        }
}

static void run(const char *what, unsigned regions, change_fn *change)
{
        struct heap heaps[REGIONS_MAX];
        struct keyspace *all[REGIONS_MAX];
        uint64_t positions[REGIONS_MAX] = {0};
        struct cost cost = {0};
        memset(texts, 0, sizeof texts);
        memset(values, 0, sizeof values);
        for (unsigned i = 0; i < regions; i++) {
                struct keyspace_config config = {.origin = (region_id)(i + 1),
                                                 .ring_bytes = RING_BYTES,
                                                 .drift_max_ms = 500,
                                                 .hash_key = {1, 2}};
                heap_init(&heaps[i], 0);
                all[i] = keyspace_new(&heaps[i], &config);
                CHECK(all[i] != NULL);
        }
        size_t empty = heaps[0].used_bytes;
        for (unsigned round = 0; round < ROUNDS; round++) {
                uint64_t wall_ms = START_MS + round * 1000ull;
                for (unsigned i = 1; i < regions; i++) {
                        struct keyspace_change ignored;
                        for (size_t k = 0; k < KEYS; k++) {
                                CHECK(change(all[i], wall_ms, k, i, &ignored) == ERR_NONE);
                                if ((k + 1) % STEP == 0)
                                        merge(all[0], all[i], (region_id)(i + 1), wall_ms,
                                              &positions[i], &cost);
                        }
                }
        }
        printf("%-6s %7u %16.1f %16.0f %16.0f\n", what, regions, cost.bytes / (double)cost.merged,
               cost.ns / (double)cost.merged, (double)(heaps[0].used_bytes - empty) / KEYS);
        for (unsigned i = 0; i < regions; i++)
                keyspace_free(all[i]);
}

int main(void)
{
        static const struct {
                const char *name;
                change_fn *change;
        } types[] = {
                {"SET", change_set},
                {"INCR", change_increment},
                {"SADD", change_sadd},
                {"HSET", change_hset},
        };
        static const unsigned counts[] = {3, 5, 9, REGIONS_MAX};
        printf("%d keys, all written by all regions; one merges\n", KEYS);
        printf("%-6s %7s %16s %16s %16s\n", "", "regions", "bytes a change", "ns a merge",
               "bytes a key");
        for (size_t t = 0; t < COUNT_OF(types); t++)
                for (size_t c = 0; c < COUNT_OF(counts); c++)
                        run(types[t].name, counts[c], types[t].change);
        return 0;
}
