/* The council: compare-and-swap, repeats, audit, snapshots, and random histories on two replicas,
 * one of which is restored from a snapshot again and again. */
#include "council/council.h"

#include "base/rng.h"
#include "kv/kv.h"

#include "../cmocka_all.h"

#include <stdio.h>

static struct heap heap;

enum {
        STATES = 4,
};

/* Up by one or down to 0. */
static bool may_move(uint8_t from, uint8_t to)
{
        return to == 0 || to == from + 1;
}

static struct council *council_open(uint64_t seed)
{
        struct council_config config = {.seed = seed,
                                        .region_state_initial = 1,
                                        .region_state_count = STATES,
                                        .may_move = may_move};
        struct council *council = NULL;
        assert_int_equal(council_new(&heap, &config, &council), ERR_NONE);
        return council;
}

static struct lock_origin origin_of(uint64_t sequence)
{
        return (struct lock_origin){.node = 3, .incarnation = 10, .sequence = sequence};
}

/* The bytes of the last command: outcomes may borrow from them. */
static struct bytes applied;

static size_t apply(struct council *council, uint64_t index, const struct council_command *command,
                    const struct council_outcome **ret)
{
        struct buffer out;
        size_t count = 0;
        heap_free_bytes(&heap, applied);
        buffer_init(&out, &heap);
        council_command_encode(command, &out);
        /* A copy of the exact size, so that a sanitizer sees what is read too far. */
        assert_true(heap_copy(&heap, buffer_view(&out), &applied));
        buffer_fini(&out);
        assert_int_equal(council_apply(council, index, 1, applied, ret, &count), ERR_NONE);
        return count;
}

static struct council_command set_topology(uint64_t sequence, uint64_t expected,
                                           struct bytes document)
{
        struct council_command command = {.kind = COUNCIL_SET_TOPOLOGY,
                                          .origin = origin_of(sequence),
                                          .wall_us = 1000 + sequence,
                                          .actor = BYTES("operator")};
        command.topology.epoch_expected = expected;
        command.topology.document = document;
        return command;
}

static struct council_command set_region(uint64_t sequence, region_id region, uint8_t from,
                                         uint8_t to)
{
        struct council_command command = {.kind = COUNCIL_SET_REGION_STATE,
                                          .origin = origin_of(sequence),
                                          .actor = BYTES("us-east-1")};
        command.region.region = region;
        command.region.from = from;
        command.region.to = to;
        command.region.row = 12;
        command.region.evidence = BYTES("nobody hears it");
        return command;
}

static struct council_command acquire(uint64_t sequence, const char *owner, uint64_t now,
                                      uint64_t wait)
{
        struct council_command command = {.kind = COUNCIL_LOCK, .origin = origin_of(sequence)};
        command.lock.op = LOCK_ACQUIRE;
        command.lock.now_ms = now;
        command.lock.key = BYTES("global:k");
        command.lock.owner = bytes_of_str(owner);
        command.lock.ttl_ms = 100;
        command.lock.wait_ms = wait;
        return command;
}

static void test_topology(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        const struct council_outcome *o;
        struct council_command command = set_topology(1, 0, BYTES("one"));
        uint64_t epoch = 9;
        assert_int_equal(council_topology(council, &epoch).len, 0);
        assert_int_equal(epoch, 0);
        assert_int_equal(apply(council, 1, &command, &o), 2);
        assert_int_equal(o[0].kind, COUNCIL_DONE);
        assert_int_equal(o[0].epoch, 1);
        assert_int_equal(o[0].origin.sequence, 1);
        assert_int_equal(o[1].kind, COUNCIL_TOPOLOGY_EVENT);
        assert_int_equal(o[1].origin.node, 0);
        command = set_topology(2, 0, BYTES("two"));
        assert_int_equal(apply(council, 2, &command, &o), 1);
        assert_int_equal(o[0].kind, COUNCIL_REFUSED);
        assert_int_equal(o[0].err, ERR_BUSY);
        assert_int_equal(o[0].epoch, 1);
        assert_true(bytes_equal(council_topology(council, &epoch), BYTES("one")));
        command = set_topology(3, 1, BYTES("two"));
        assert_int_equal(apply(council, 3, &command, &o), 2);
        assert_true(bytes_equal(council_topology(council, &epoch), BYTES("two")));
        assert_int_equal(epoch, 2);
        assert_int_equal(council_audit_count(council), 2);
        assert_true(bytes_equal(council_audit_at(council, 1).what, BYTES("topology epoch 2")));
        assert_true(bytes_equal(council_audit_at(council, 1).actor, BYTES("operator")));
        council_free(council);
}

/* Regions as bits: 1 is region 1, 2 region 2, 4 region 3. */
static enum err topology_of(struct council *council, uint64_t regions, uint64_t removed,
                            region_id *ret_again)
{
        uint64_t epoch;
        uint64_t index = council_applied_index(council) + 1;
        const struct council_outcome *o;
        (void)council_topology(council, &epoch);
        struct council_command command = set_topology(index, epoch, BYTES("document"));
        command.topology.regions = regions;
        command.topology.removed = removed;
        (void)apply(council, index, &command, &o);
        *ret_again = o[0].kind == COUNCIL_REFUSED ? o[0].region : 0;
        return o[0].kind == COUNCIL_REFUSED ? o[0].err : ERR_NONE;
}

static struct council *restored(struct council *council)
{
        struct buffer out;
        buffer_init(&out, &heap);
        struct council *fresh = council_open(1001);
        council_snapshot(council, &out);
        assert_int_equal(council_restore(fresh, buffer_view(&out)), ERR_NONE);
        council_free(council);
        buffer_fini(&out);
        return fresh;
}

static void test_removed_ids(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        region_id again;
        assert_int_equal(topology_of(council, 0, 0, &again), ERR_NONE); /* nothing was told */
        council = restored(council);
        assert_int_equal(council_removed(council), 0);
        assert_int_equal(topology_of(council, 3, 4, &again), ERR_NONE);
        assert_int_equal(council_removed(council), 4);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(topology_of(council, 7, 0, &again), ERR_REFUSED);
                assert_int_equal(again, 3);
                assert_int_equal(topology_of(council, 3 | 8, 0, &again), ERR_NONE);
                council = restored(council);
                assert_int_equal(council_removed(council), 4);
        }
        assert_int_equal(topology_of(council, 1, 2, &again), ERR_NONE);
        assert_int_equal(topology_of(council, 7, 0, &again), ERR_REFUSED);
        assert_int_equal(again, 2); /* the least */
        council_free(council);
        assert_int_equal(council_region_least(0), 0);
        assert_int_equal(council_region_least(1ull << 63), 64);
}

static void test_regions(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        const struct council_outcome *o;
        struct council_region region;
        assert_int_equal(council_region(council, 2).state, 1);
        assert_false(council_region_at(council, 0, &region));
        struct council_command command = set_region(1, 2, 1, 2);
        assert_int_equal(apply(council, 7, &command, &o), 2);
        assert_int_equal(o[0].kind, COUNCIL_DONE);
        assert_int_equal(o[1].kind, COUNCIL_REGION_EVENT);
        assert_int_equal(o[1].region, 2);
        assert_int_equal(o[1].from, 1);
        assert_int_equal(o[1].to, 2);
        assert_int_equal(o[1].row, 12);
        assert_true(bytes_equal(o[1].text, BYTES("nobody hears it")));
        static const struct {
                uint8_t from;
                uint8_t to;
                enum err err;
        } refused[] = {
                {1, 2, ERR_BUSY},    /* it is 2 by now */
                {2, 2, ERR_REFUSED}, /* no move */
                {2, 1, ERR_REFUSED}, /* not in the table */
                {2, 200, ERR_REFUSED},
        };
        for (uint64_t i = 0; i < COUNT_OF(refused); i++) {
                command = set_region(2 + i, 2, refused[i].from, refused[i].to);
                assert_int_equal(apply(council, 8 + i, &command, &o), 1);
                assert_int_equal(o[0].kind, COUNCIL_REFUSED);
                assert_int_equal(o[0].err, refused[i].err);
                assert_int_equal(o[0].from, 2);
        }
        assert_true(council_region_at(council, 0, &region));
        assert_int_equal(region.region, 2);
        assert_int_equal(region.index, 7);
        assert_false(council_region_at(council, 1, &region));
        command = set_region(9, 2, 2, 3);
        assert_int_equal(apply(council, 20, &command, &o), 2);
        command = set_region(10, 2, 3, 4); /* there is no state 4 */
        assert_int_equal(apply(council, 21, &command, &o), 1);
        assert_int_equal(o[0].err, ERR_REFUSED);
        council_free(council);
}

static void test_audit_is_bounded(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        const struct council_outcome *o;
        for (uint64_t i = 1; i <= COUNCIL_AUDIT_MAX + 10; i++) {
                struct council_command command = set_topology(i, i - 1, BYTES("doc"));
                assert_int_equal(apply(council, i, &command, &o), 2);
        }
        assert_int_equal(council_audit_count(council), COUNCIL_AUDIT_MAX);
        assert_int_equal(council_audit_at(council, 0).index, 11);
        assert_int_equal(council_audit_at(council, COUNCIL_AUDIT_MAX - 1).index,
                         COUNCIL_AUDIT_MAX + 10);
        council_free(council);
}

/* A repeat is answered as before and applied no more, however late it comes. */
static void test_repeats(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        const struct council_outcome *o;
        struct council_command a = acquire(1, "a", 0, 0);
        assert_int_equal(apply(council, 1, &a, &o), 1);
        assert_int_equal(o[0].lock.kind, LOCK_GRANTED);
        assert_int_equal(o[0].lock.token.value, 1);
        assert_false(o[0].repeat);

        struct council_command release = {.kind = COUNCIL_LOCK, .origin = origin_of(2)};
        release.lock.op = LOCK_RELEASE;
        release.lock.key = BYTES("global:k");
        release.lock.owner = BYTES("a");
        release.lock.token.value = 1;
        assert_int_equal(apply(council, 2, &release, &o), 1);
        assert_int_equal(o[0].lock.kind, LOCK_RELEASED);

        /* The acquire once more, after its release: it must not lock again. */
        assert_int_equal(apply(council, 3, &a, &o), 1);
        assert_true(o[0].repeat);
        assert_int_equal(o[0].lock.kind, LOCK_GRANTED);
        assert_int_equal(o[0].lock.token.value, 1);
        assert_true(lock_table_idle(council_locks(council)));
        assert_int_equal(apply(council, 4, &release, &o), 1);
        assert_int_equal(o[0].lock.kind, LOCK_RELEASED);

        /* Out of order within the window is new; a window later nobody knows. */
        a.origin.sequence = COUNCIL_REPEATS_MAX + 2;
        assert_int_equal(apply(council, 5, &a, &o), 1);
        assert_int_equal(o[0].lock.kind, LOCK_GRANTED);
        a.origin.sequence = 3;
        assert_int_equal(apply(council, 6, &a, &o), 1);
        assert_false(o[0].repeat);
        a.origin.sequence = 2;
        assert_int_equal(apply(council, 7, &a, &o), 1);
        assert_int_equal(o[0].kind, COUNCIL_REFUSED);
        assert_int_equal(o[0].err, ERR_EXISTS);

        /* A restarted node counts anew; what its older self sent is refused. */
        a.origin = (struct lock_origin){3, 11, 1};
        assert_int_equal(apply(council, 8, &a, &o), 1);
        assert_int_equal(o[0].kind, COUNCIL_LOCK_RESULT);
        a.origin = (struct lock_origin){3, 10, 5000};
        assert_int_equal(apply(council, 9, &a, &o), 1);
        assert_int_equal(o[0].err, ERR_EXISTS);

        /* Another node's numbers are its own. */
        a.origin = (struct lock_origin){4, 1, 1};
        assert_int_equal(apply(council, 10, &a, &o), 1);
        assert_int_equal(o[0].kind, COUNCIL_LOCK_RESULT);
        council_free(council);
}

/* A wait is answered later; a repeat gets the newest answer. */
static void test_repeat_of_a_wait(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        const struct council_outcome *o;
        struct council_command a = acquire(1, "a", 0, 0);
        struct council_command b = acquire(2, "b", 0, 500);
        assert_int_equal(apply(council, 1, &a, &o), 1);
        assert_int_equal(apply(council, 2, &b, &o), 1);
        assert_int_equal(o[0].lock.kind, LOCK_QUEUED);
        assert_int_equal(apply(council, 3, &b, &o), 1);
        assert_true(o[0].repeat);
        assert_int_equal(o[0].lock.kind, LOCK_QUEUED);
        struct council_command time = {.kind = COUNCIL_LOCK};
        time.lock.op = LOCK_TIME;
        time.lock.now_ms = 100;
        assert_int_equal(apply(council, 4, &time, &o), 2);
        assert_int_equal(o[0].lock.kind, LOCK_EXPIRED);
        assert_int_equal(o[0].origin.node, 0);
        assert_int_equal(o[1].lock.kind, LOCK_GRANTED);
        assert_int_equal(o[1].origin.sequence, 2);
        assert_int_equal(apply(council, 5, &b, &o), 1);
        assert_true(o[0].repeat);
        assert_int_equal(o[0].lock.kind, LOCK_GRANTED);
        assert_int_equal(o[0].lock.token.value, 4);
        assert_true(bytes_equal(o[0].lock.key, BYTES("global:k")));
        council_free(council);
}

/* Commands cut or damaged are skipped by council_apply, and change nothing but the index. */
static void test_commands(void **state)
{
        (void)state;
        struct council *council = council_open(1);
        struct council_command commands[] = {set_topology(1, 0, BYTES("document")),
                                             set_region(2, 2, 1, 2), acquire(3, "a", 5, 9),
                                             set_topology(4, 0, BYTES("document"))};
        commands[3].topology.regions = 5;
        commands[3].topology.removed = 2;
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                struct buffer out;
                struct buffer again;
                struct council_command back;
                const struct council_outcome *outcomes;
                size_t count;
                buffer_init(&out, &heap);
                buffer_init(&again, &heap);
                council_command_encode(&commands[i], &out);
                assert_int_equal(council_command_decode(buffer_view(&out), &back), ERR_NONE);
                council_command_encode(&back, &again);
                assert_true(bytes_equal(buffer_view(&out), buffer_view(&again)));
                for (size_t len = 0; len < out.len; len++) {
                        struct bytes part = bytes_of(out.ptr, len);
                        assert_int_not_equal(council_command_decode(part, &back), ERR_NONE);
                        assert_int_equal(council_apply(council, 1, 1, part, &outcomes, &count),
                                         ERR_NONE);
                        assert_int_equal(count, 0);
                }
                for (size_t bit = 0; bit < out.len * 8; bit++) {
                        out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        (void)!council_command_decode(buffer_view(&out), &back);
                        out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
                buffer_fini(&out);
                buffer_fini(&again);
        }
        council_free(council);
}

static struct council_command choose(struct rng *rng, uint64_t *now, uint64_t *sequences)
{
        static const char *const owners[] = {"a", "b", "c"};
        uint32_t node = (uint32_t)rng_between(rng, 1, 3);
        struct council_command command;
        *now += rng_below(rng, 20);
        switch (rng_below(rng, 6)) {
        case 0:
                command = set_topology(1, rng_below(rng, 20), BYTES("document"));
                break;
        case 1:
                command = set_region(1, (region_id)rng_between(rng, 1, 5),
                                     (uint8_t)rng_below(rng, STATES),
                                     (uint8_t)rng_below(rng, STATES));
                break;
        default:
                command = acquire(1, owners[rng_below(rng, 3)], *now,
                                  rng_chance(rng, 500) ? rng_below(rng, 200) : 0);
                if (rng_chance(rng, 200))
                        command.lock.op = LOCK_BREAK;
                break;
        }
        if (!rng_chance(rng, 200))
                sequences[node]++;
        if (sequences[node] == 0)
                sequences[node] = 1;
        command.origin = (struct lock_origin){node, 1, sequences[node]};
        return command;
}

/* Nothing is seen of it before the end. */
static void restore_in_steps(struct council *council, struct bytes state, uint64_t seed)
{
        uint64_t before = council_digest(council);
        for (int again = 0; again < 2; again++) {
                size_t bytes = 1 + (size_t)(seed % 97);
                size_t steps = 0;
                assert_int_equal(council_restore_begin(council, state), ERR_NONE);
                for (; !council_restore_step(council, bytes); steps++) {
                        assert_true(council_restoring(council));
                        if (steps % 16 == 0)
                                assert_true(council_digest(council) == before);
                        if (again == 0 && steps == seed % 30)
                                break; /* another one comes */
                }
        }
        assert_true(council_digest(council) == before);
        assert_int_equal(council_restore_end(council), ERR_NONE);
        assert_false(council_restoring(council));
        while (council_sweeping(council))
                council_sweep(council, 1 + (size_t)(seed % 997));
}

static void reload(struct council **council, uint64_t seed)
{
        struct buffer out;
        buffer_init(&out, &heap);
        struct council *fresh = council_open(seed + 1000);
        council_snapshot(*council, &out);
        restore_in_steps(fresh, buffer_view(&out), seed);
        assert_true(council_digest(fresh) == council_digest(*council));
        assert_int_equal(council_applied_index(fresh), council_applied_index(*council));
        council_free(*council);
        *council = fresh;
        buffer_fini(&out);
}

/* A capture in steps gives the bytes of the moment at which it began. */
static void capture(struct council *council, struct rng *rng, struct buffer *whole)
{
        if (!council_capturing(council)) {
                buffer_reset(whole);
                council_snapshot(council, whole);
                buffer_u64(whole, council_applied_index(council));
                council_capture_begin(council);
        }
        if (!council_capture_step(council, 1 + (size_t)rng_below(rng, 40)))
                return;
        struct buffer steps;
        uint64_t index;
        assert_int_equal(council_capture_end(council, &steps, &index), ERR_NONE);
        buffer_u64(&steps, index);
        assert_true(bytes_equal(buffer_view(whole), buffer_view(&steps)));
        buffer_fini(&steps);
}

static void test_replicas(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct rng rng;
                uint64_t now = 0;
                uint64_t sequences[4] = {0};
                rng_init(&rng, seed, 0);
                struct council *one = council_open(1);
                struct council *two = council_open(2);
                struct buffer whole;
                buffer_init(&whole, &heap);
                for (uint64_t index = 1; index <= 300; index++) {
                        struct council_command command = choose(&rng, &now, sequences);
                        const struct council_outcome *o1;
                        const struct council_outcome *o2;
                        struct buffer out;
                        size_t n1;
                        size_t n2;
                        buffer_init(&out, &heap);
                        council_command_encode(&command, &out);
                        assert_int_equal(council_apply(one, index, 1, buffer_view(&out), &o1, &n1),
                                         ERR_NONE);
                        assert_int_equal(council_apply(two, index, 1, buffer_view(&out), &o2, &n2),
                                         ERR_NONE);
                        assert_int_equal(n1, n2);
                        for (size_t i = 0; i < n1; i++) {
                                assert_int_equal(o1[i].kind, o2[i].kind);
                                assert_int_equal(o1[i].repeat, o2[i].repeat);
                                assert_int_equal(o1[i].lock.kind, o2[i].lock.kind);
                                assert_true(o1[i].lock.token.value == o2[i].lock.token.value);
                        }
                        if (council_digest(one) != council_digest(two))
                                fail_msg("seed %llu: replicas differ after %llu",
                                         (unsigned long long)seed, (unsigned long long)index);
                        lock_table_check(council_locks(two));
                        capture(one, &rng, &whole);
                        if (rng_chance(&rng, 100))
                                reload(&two, seed);
                        buffer_fini(&out);
                }
                assert_true(council_audit_count(one) > 0);
                council_free(one);
                council_free(two);
                buffer_fini(&whole);
        }
}

static struct council *busy(void)
{
        struct rng rng;
        uint64_t now = 0;
        uint64_t sequences[4] = {0};
        rng_init(&rng, 5, 0);
        struct council *council = council_open(1);
        for (uint64_t index = 1; index <= 40; index++) {
                struct council_command command = choose(&rng, &now, sequences);
                const struct council_outcome *outcomes;
                (void)apply(council, index, &command, &outcomes);
        }
        return council;
}

static void test_damaged_snapshots(void **state)
{
        (void)state;
        struct council *council = busy();
        struct council *other = council_open(3);
        struct buffer out;
        buffer_init(&out, &heap);
        council_snapshot(council, &out);
        uint64_t empty = council_digest(other);
        for (size_t len = 0; len < out.len; len++) {
                assert_int_not_equal(council_restore(other, bytes_of(out.ptr, len)), ERR_NONE);
                assert_true(council_digest(other) == empty);
        }
        for (size_t bit = 0; bit < out.len * 8; bit += 3) {
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (council_restore(other, buffer_view(&out)) == ERR_NONE)
                        lock_table_check(council_locks(other));
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        out.ptr[0] = 9;
        assert_int_equal(council_restore(other, buffer_view(&out)), ERR_VERSION);
        council_free(council);
        council_free(other);
        buffer_fini(&out);
}

static void test_places(void **state)
{
        (void)state;
        static const struct {
                const char *key;
                enum council_place place;
                const char *region;
        } cases[] = {
                {"global:config", COUNCIL_PLACE_GLOBAL, "global"},
                {"us-east:order:12345", COUNCIL_PLACE_HERE, "us-east"},
                {"eu-west:x", COUNCIL_PLACE_ELSEWHERE, "eu-west"},
                {"us-eas:x", COUNCIL_PLACE_ELSEWHERE, "us-eas"},
                {"globa:x", COUNCIL_PLACE_ELSEWHERE, "globa"},
                {"global", COUNCIL_PLACE_INVALID, NULL},
                {"global:", COUNCIL_PLACE_INVALID, NULL},
                {":x", COUNCIL_PLACE_INVALID, NULL},
                {"", COUNCIL_PLACE_INVALID, NULL},
                {"order", COUNCIL_PLACE_INVALID, NULL},
                {"US-EAST:x", COUNCIL_PLACE_INVALID, NULL},
                {"us east:x", COUNCIL_PLACE_INVALID, NULL},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct bytes region = {0};
                enum council_place place =
                        council_group_of(bytes_of_str(cases[i].key), BYTES("us-east"), &region);
                if (place != cases[i].place)
                        fail_msg("\"%s\": %d", cases[i].key, place);
                if (cases[i].region != NULL)
                        assert_true(bytes_equal(region, bytes_of_str(cases[i].region)));
        }
        char name[COUNCIL_NAME_BYTES_MAX + 3];
        memset(name, 'a', sizeof name);
        name[COUNCIL_NAME_BYTES_MAX] = ':';
        assert_int_equal(council_group_of(bytes_of(name, sizeof name), BYTES("x"), NULL),
                         COUNCIL_PLACE_ELSEWHERE);
        name[COUNCIL_NAME_BYTES_MAX] = 'a';
        name[COUNCIL_NAME_BYTES_MAX + 1] = ':';
        assert_int_equal(council_group_of(bytes_of(name, sizeof name), BYTES("x"), NULL),
                         COUNCIL_PLACE_INVALID);
}

/* Every allocation fails once: told, and nothing leaks. */
static void test_memory(void **state)
{
        (void)state;
        uint64_t calls = 0;
        struct heap small;
        struct buffer bytes[40];
        struct rng rng;
        uint64_t now = 0;
        uint64_t sequences[4] = {0};
        rng_init(&rng, 5, 0);
        for (size_t i = 0; i < COUNT_OF(bytes); i++) {
                struct council_command command = choose(&rng, &now, sequences);
                buffer_init(&bytes[i], &heap);
                council_command_encode(&command, &bytes[i]);
        }
        for (uint64_t fail = 0; fail == 0 || fail <= calls; fail++) {
                struct council_config config = {.region_state_initial = 1};
                struct council *council = NULL;
                heap_init(&small, 0);
                small.fail_at = fail;
                bool told = council_new(&small, &config, &council) != ERR_NONE;
                for (size_t i = 0; !told && i < COUNT_OF(bytes); i++) {
                        const struct council_outcome *outcomes;
                        size_t count;
                        told = council_apply(council, i + 1, 1, buffer_view(&bytes[i]), &outcomes,
                                             &count) != ERR_NONE;
                }
                assert_int_equal(told, fail != 0);
                council_free(council);
                assert_int_equal(small.used_bytes, 0);
                if (fail == 0)
                        calls = small.calls;
        }
        for (size_t i = 0; i < COUNT_OF(bytes); i++)
                buffer_fini(&bytes[i]);
        assert_true(calls > 20);
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        heap_free_bytes(&heap, applied);
        return heap.used_bytes == 0 ? 0 : 1;
}

/* ---- values ---- */

static size_t apply_put(struct council *council, uint64_t index, uint64_t sequence,
                        const struct kv_step *step, const struct council_outcome **ret)
{
        struct kv_build build;
        struct buffer txn;
        buffer_init(&txn, &heap);
        kv_build_init(&build, &heap);
        build.owner = BYTES("me");
        kv_build_step(&build, false, step);
        assert_int_equal(kv_build_end(&build, &txn), ERR_NONE);
        kv_build_fini(&build);
        struct council_command command = {.kind = COUNCIL_KV,
                                          .actor = BYTES("ann"),
                                          .wall_us = 77,
                                          .origin = origin_of(sequence),
                                          .kv = buffer_view(&txn)};
        size_t count = apply(council, index, &command, ret);
        buffer_fini(&txn);
        return count;
}

static void restore_into(struct council *from, struct council *into, uint8_t version)
{
        struct buffer out;
        buffer_init(&out, &heap);
        council_snapshot(from, &out);
        assert_int_equal(out.ptr[0], version);
        assert_int_equal(council_restore(into, buffer_view(&out)), ERR_NONE);
        assert_true(council_digest(into) == council_digest(from));
        buffer_fini(&out);
}

static void test_values(void **state)
{
        struct council *council = council_open(1);
        struct council *other = council_open(2);
        const struct council_outcome *outcomes = NULL;
        struct kv_item item;
        (void)state;
        restore_into(council, other, 1); /* what older nodes read, while values are not used */
        struct kv_step nameless = {.op = KV_PUT, .key = BYTES("global:"), .value = BYTES("old")};
        assert_int_equal(apply_put(council, 4, 9, &nameless, &outcomes), 1);
        assert_int_equal(outcomes[0].kind, COUNCIL_KV_RESULT); /* logs may hold it */
        restore_into(council, other, 3);
        assert_true(kv_find(council_kv(other), BYTES("global:"), &item));
        struct lock_command open = {.op = LOCK_SESSION_OPEN,
                                    .key = BYTES("global:"),
                                    .owner = BYTES("me"),
                                    .ttl_ms = 100,
                                    .now_ms = 10};
        struct council_command command = {.kind = COUNCIL_LOCK, .origin = origin_of(1)};
        command.lock = open;
        assert_int_equal(apply(council, 5, &command, &outcomes), 1);
        uint64_t session = outcomes[0].lock.token.value;

        struct kv_step step = {.op = KV_PUT, .key = BYTES("global:s"), .session = session + 1};
        assert_int_equal(apply_put(council, 6, 2, &step, &outcomes), 1);
        assert_int_equal(outcomes[0].kv->kind, KV_NO_SESSION);
        step.session = session;
        assert_int_equal(apply_put(council, 7, 3, &step, &outcomes), 1);
        assert_int_equal(outcomes[0].kind, COUNCIL_KV_RESULT);
        assert_int_equal(outcomes[0].kv->revision, 7);
        assert_true(kv_find(council_kv(council), BYTES("global:s"), &item));
        assert_true(bytes_equal(item.actor, BYTES("ann")));
        assert_int_equal(item.wall_us, 77);

        /* the same again is not applied again, on this replica and on a restored one */
        restore_into(council, other, 3);
        step.value = BYTES("another");
        struct council *replicas[] = {council, other};
        for (size_t i = 0; i < COUNT_OF(replicas); i++) {
                assert_int_equal(apply_put(replicas[i], 8, 3, &step, &outcomes), 1);
                assert_true(outcomes[0].repeat);
                assert_int_equal(outcomes[0].kv->revision, 7);
                assert_true(outcomes[0].kv->succeeded);
                assert_true(kv_find(council_kv(replicas[i]), BYTES("global:s"), &item));
                assert_int_equal(item.value.len, 0);
        }
        /* the session's end takes the key along, wherever it is applied */
        command = (struct council_command){.kind = COUNCIL_LOCK};
        command.lock = (struct lock_command){.op = LOCK_TIME, .now_ms = 110};
        for (size_t i = 0; i < COUNT_OF(replicas); i++) {
                (void)apply(replicas[i], 9, &command, &outcomes);
                assert_false(kv_find(council_kv(replicas[i]), BYTES("global:s"), &item));
        }
        assert_true(council_digest(council) == council_digest(other));
        council_free(council);
        council_free(other);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_topology),
                cmocka_unit_test(test_regions),
                cmocka_unit_test(test_audit_is_bounded),
                cmocka_unit_test(test_repeats),
                cmocka_unit_test(test_repeat_of_a_wait),
                cmocka_unit_test(test_commands),
                cmocka_unit_test(test_removed_ids),
                cmocka_unit_test(test_replicas),
                cmocka_unit_test(test_damaged_snapshots),
                cmocka_unit_test(test_places),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_memory),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
