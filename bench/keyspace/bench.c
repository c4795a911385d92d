/* Nanoseconds of processor time per local change of keys that exist: for a person to
 * look at, never asserted. */
#include "base/check.h"
#include "keyspace/keyspace.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
        KEYS = 100000,
        ROUNDS = 2000000,
        NAME_LEN = 16,
};

static char names[KEYS][NAME_LEN + 1];
static uint64_t order = 88172645463325252u;

static double now_ns(void)
{
        struct timespec now;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int64_t values[KEYS];

static struct crdt_name name_of(size_t index)
{
        return (struct crdt_name){0, bytes_of(names[index], NAME_LEN)};
}

static size_t index_random(void)
{
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        return order % KEYS;
}

static void change_set(struct keyspace *keyspace, uint64_t wall_ms, size_t index)
{
        struct keyspace_change change;
        CHECK(keyspace_local_set(keyspace, wall_ms, name_of(index),
                                 BYTES("a value of 24 bytes, xyz"), 0, &change) == ERR_NONE);
}

static void change_increment(struct keyspace *keyspace, uint64_t wall_ms, size_t index)
{
        struct keyspace_change change;
        CHECK(keyspace_local_increment(keyspace, wall_ms, name_of(index), 1, ++values[index],
                                       &change) == ERR_NONE);
}

static void change_sadd(struct keyspace *keyspace, uint64_t wall_ms, size_t index)
{
        struct keyspace_change change;
        struct bytes member = BYTES("member");
        CHECK(keyspace_local_set_add(keyspace, wall_ms, name_of(index), &member, 1, &change) ==
              ERR_NONE);
}

static void change_hset(struct keyspace *keyspace, uint64_t wall_ms, size_t index)
{
        struct keyspace_change change;
        struct keyspace_pair pair = {BYTES("field"), BYTES("a value of 24 bytes, xyz")};
        CHECK(keyspace_local_hash_set(keyspace, wall_ms, name_of(index), &pair, 1, &change) ==
              ERR_NONE);
}

static void run(const char *what,
                void (*change)(struct keyspace *keyspace, uint64_t wall_ms, size_t index))
{
        struct heap heap;
        heap_init(&heap, 0);
        struct keyspace_config config = {
                .origin = 1, .ring_bytes = 16u << 20, .drift_max_ms = 500, .hash_key = {1, 2}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        CHECK(keyspace != NULL);
        size_t empty = heap.used_bytes;
        for (size_t i = 0; i < KEYS; i++)
                change(keyspace, 1700000000000, i);
        uint64_t calls = heap.calls;
        double begin = now_ns();
        for (unsigned i = 0; i < ROUNDS; i++)
                change(keyspace, 1700000000000 + i / 1000, index_random());
        double ns = (now_ns() - begin) / ROUNDS;
        printf("%-6s %6.0f ns, %5.1f bytes a key, %.3f allocations\n", what, ns,
               (double)(heap.used_bytes - empty) / KEYS, (double)(heap.calls - calls) / ROUNDS);
        keyspace_free(keyspace);
}

int main(void)
{
        for (int i = 0; i < KEYS; i++)
                snprintf(names[i], sizeof names[i], "key:%012d", i);
        printf("%d keys of %d bytes, %d changes each\n", KEYS, NAME_LEN, ROUNDS);
        run("SET", change_set);
        run("INCR", change_increment);
        run("SADD", change_sadd);
        run("HSET", change_hset);
        return 0;
}
