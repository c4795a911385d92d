/* One node alone: what it answers when nobody else is there, whatever it is told, and what it does
 * with damaged journals and messages. Clusters are the simulator's. */
#include "kv/kv.h"
#include "node/node_priv.h"

#include "base/rng.h"

#include <stdio.h>

struct answer {
        bool came;
        enum reply_code code;
        uint64_t revision;
        uint64_t changes;
};

#define ALONE_MORE struct answer answers[16]; /* about values, by request */
#include "alone.h"

static const char topology[] =
        "cluster = test; epoch = 1;\n"
        "region r1 { id = 1; node n1 { id = 1; link = \"127.0.0.1:7401\" } }\n"
        "region r2 { id = 2; node n2 { id = 2; link = \"127.0.0.2:7401\" } }\n"
        "region r3 { id = 3; node n3 { id = 3; link = \"127.0.0.3:7401\" } }\n";

static void answer_note(uint64_t request)
{
        struct kv_reading reading;
        struct kv_answer_step answer_step;
        if (request >= COUNT_OF(alone.answers) ||
            (alone.reply.kind != REQUEST_KV && alone.reply.kind != REQUEST_KV_WATCH &&
             alone.reply.kind != REQUEST_LOCK_WATCH))
                return;
        struct answer *answer = &alone.answers[request];
        assert_false(answer->came);
        *answer = (struct answer){.came = true, .code = alone.reply.code};
        if (alone.reply.code != REPLY_OK)
                return;
        if (alone.reply.kind == REQUEST_LOCK_WATCH) {
                struct lock_event event;
                struct cursor cursor = cursor_of(alone.reply.watch.changes);
                answer->revision = alone.reply.watch.revision;
                while (lock_change_decode(&cursor, &event))
                        answer->changes++;
                return;
        }
        assert_int_equal(kv_result_open(alone.reply.kv.result, &reading), ERR_NONE);
        answer->revision = reading.head.revision;
        if (kv_result_step(&reading, &answer_step))
                answer->changes = answer_step.total;
}

static void effect_came(const struct world_effect *effect)
{
        if (effect->kind == WORLD_REPLY)
                answer_note(effect->reply.request);
}

static void run_for(uint64_t us)
{
        uint64_t end_us = alone.now_us + us;
        while (alone.now_us < end_us) {
                struct world_event event = {.kind = WORLD_TIMER};
                step(&event);
                sync_journals();
        }
}

static int setup_started(void **state)
{
        int failed = setup(state);
        start(topology);
        return failed;
}

static void ask(enum request_kind kind, const char *key, uint64_t token)
{
        struct request request = {.kind = kind};
        struct buffer buffer;
        request.lock.key = bytes_of_str(key);
        request.lock.owner = BYTES("me");
        request.lock.token = token;
        request.lock.ttl_ms = 1000;
        buffer_init(&buffer, &alone.heap);
        request_encode(&request, &buffer);
        struct world_event event = {.kind = WORLD_REQUEST};
        event.request.request = 1;
        event.request.data = buffer_view(&buffer);
        alone.replied = false;
        step(&event);
        buffer_fini(&buffer);
        for (int i = 0; i < 5000 && !alone.replied; i++) {
                sync_journals();
                run_for(1000);
        }
        assert_true(alone.replied);
}

static void test_region_goes_on_alone(void **state)
{
        (void)state;
        run_for(1000000);
        ask(REQUEST_LOCK_ACQUIRE, "r1:a", 0);
        assert_int_equal(alone.reply.code, REPLY_OK);
        uint64_t token = alone.reply.lock.token;
        assert_true(token > 0);
        ask(REQUEST_LOCK_INFO, "r1:a", 0);
        assert_int_equal(alone.reply.code, REPLY_OK);
        assert_true(alone.reply.lock.token == token);
        ask(REQUEST_LOCK_RELEASE, "r1:a", token + 1);
        assert_int_equal(alone.reply.code, REPLY_NOT_OWNER);
        ask(REQUEST_LOCK_RELEASE, "r1:a", token);
        assert_int_equal(alone.reply.code, REPLY_OK);
}

static void say(uint64_t number, const struct request *request)
{
        struct buffer buffer;
        buffer_init(&buffer, &alone.heap);
        request_encode(request, &buffer);
        struct world_event event = {.kind = WORLD_REQUEST};
        event.request.request = number;
        event.request.data = buffer_view(&buffer);
        step(&event);
        buffer_fini(&buffer);
}

static void transact(uint64_t number, const char *group, const struct kv_step *of, bool stale)
{
        struct kv_build build;
        struct buffer txn;
        buffer_init(&txn, &alone.heap);
        kv_build_init(&build, &alone.heap);
        kv_build_step(&build, false, of);
        assert_int_equal(kv_build_end(&build, &txn), ERR_NONE);
        struct request request = {.kind = REQUEST_KV};
        request.kv.key = bytes_of_str(group);
        request.kv.txn = buffer_view(&txn);
        request.kv.stale = stale;
        say(number, &request);
        kv_build_fini(&build);
        buffer_fini(&txn);
}

static void watch(uint64_t number, const char *prefix, uint64_t after, uint64_t wait_ms)
{
        struct request request = {.kind = REQUEST_KV_WATCH};
        request.kv.key = bytes_of_str(prefix);
        request.kv.after = after;
        request.kv.wait_ms = wait_ms;
        say(number, &request);
}

static void test_values(void **state)
{
        const struct kv_step put = {.op = KV_PUT, .key = BYTES("r1:k"), .value = BYTES("v")};
        const struct kv_step get = {.op = KV_GET, .key = BYTES("global:k")};
        const struct answer *answers = alone.answers;
        (void)state;
        run_for(1000000);
        transact(1, "r1:", &put, false);
        run_for(100000);
        assert_true(answers[1].came && answers[1].code == REPLY_OK);
        /* what is there already is told at once; what comes later when it comes */
        watch(2, "r1:", answers[1].revision - 1, 5000);
        assert_true(answers[2].came && answers[2].changes == 1);
        watch(3, "r1:", answers[1].revision, 5000);
        watch(4, "r1:other", answers[1].revision, 500);
        watch(5, "r1:", answers[1].revision, 0);
        watch(6, "r1:", answers[1].revision, 5000);
        assert_false(answers[3].came || answers[4].came);
        assert_true(answers[5].came && answers[5].changes == 0);
        struct world_event gone = {.kind = WORLD_REQUEST_GONE};
        gone.request.request = 6;
        step(&gone);
        transact(7, "r1:", &put, false);
        run_for(100000);
        assert_true(answers[7].came && answers[7].code == REPLY_OK);
        assert_true(answers[3].came && answers[3].changes == 1);
        assert_int_equal(answers[3].revision, answers[7].revision);
        assert_false(answers[4].came || answers[6].came);
        run_for(600000);
        assert_true(answers[4].came && answers[4].changes == 0); /* its time is over */
        assert_int_equal(answers[4].revision, answers[7].revision);
        /* without a majority: stale reads only */
        transact(8, "global:", &get, true);
        assert_true(answers[8].came && answers[8].code == REPLY_OK);
        run_for(3000000);
        transact(9, "global:", &get, false);
        assert_true(answers[9].came && answers[9].code == REPLY_NO_MAJORITY);
        transact(10, "r1:", &put, true);
        assert_int_equal(answers[10].code, REPLY_BAD_REQUEST); /* no write is stale */
        transact(11, "global:", &put, false);
        assert_int_equal(answers[11].code, REPLY_BAD_REQUEST); /* another group's key */
        transact(12, "nowhere", &put, false);
        assert_int_equal(answers[12].code, REPLY_BAD_REQUEST);
        transact(13, "r9:", &put, false);
        assert_int_equal(answers[13].code, REPLY_UNKNOWN_REGION);
        watch(14, "r2:", 0, 100);
        assert_int_equal(answers[14].code, REPLY_UNREACHABLE);
        run_for(10000000);
        assert_false(answers[6].came);
}

/* What is written has a name; what has none from before is read and deleted. */
static void test_nameless_values(void **state)
{
        static const struct {
                const char *group;
                struct bytes key;
                enum kv_op op;
                enum reply_code code;
        } rows[] = {
                {"r1:", BYTES_INIT("r1:"), KV_PUT, REPLY_BAD_REQUEST},
                {"r1:", BYTES_INIT("r1:x"), KV_PUT, REPLY_OK},
                {"r1:", BYTES_INIT("r1:/"), KV_PUT, REPLY_OK},
                {"r1:", BYTES_INIT("r1:"), KV_GET, REPLY_OK},
                {"r1:", BYTES_INIT("r1:"), KV_DELETE, REPLY_OK},
                {"global:", BYTES_INIT("global:"), KV_PUT, REPLY_BAD_REQUEST},
                {"global:", BYTES_INIT("global:flag/"), KV_PUT, REPLY_BAD_REQUEST},
                {"global:", BYTES_INIT("global:config/"), KV_PUT, REPLY_BAD_REQUEST},
                {"global:", BYTES_INIT("global:service/"), KV_PUT, REPLY_BAD_REQUEST},
                {"global:", BYTES_INIT("global:config"), KV_PUT, REPLY_NO_MAJORITY},
                {"global:", BYTES_INIT("global:config/x"), KV_PUT, REPLY_NO_MAJORITY},
        };
        (void)state;
        run_for(10000000);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct kv_step of = {.op = rows[i].op, .key = rows[i].key};
                transact(i + 1, rows[i].group, &of, false);
                run_for(100000);
                if (!alone.answers[i + 1].came)
                        fail_msg("row %zu: no answer", i);
                assert_int_equal(alone.answers[i + 1].code, rows[i].code);
        }
}

static void watch_locks(uint64_t number, const char *key, uint64_t after, uint64_t wait_ms)
{
        struct request request = {.kind = REQUEST_LOCK_WATCH};
        request.lock.key = bytes_of_str(key);
        request.lock.token = after;
        request.lock.wait_ms = wait_ms;
        request.lock.flags = REQUEST_WATCH_PREFIX;
        say(number, &request);
}

static void test_watched_locks(void **state)
{
        const struct answer *answers = alone.answers;
        (void)state;
        run_for(1000000);
        watch_locks(1, "r1:", REQUEST_WATCH_NOW, 0);
        assert_true(answers[1].came && answers[1].changes == 0);
        watch_locks(2, "r1:a", REQUEST_WATCH_NOW, 5000);
        watch_locks(3, "r1:b", answers[1].revision, 500);
        watch_locks(4, "r1:a", REQUEST_WATCH_NOW, 5000);
        assert_false(answers[2].came || answers[3].came || answers[4].came);
        struct world_event gone = {.kind = WORLD_REQUEST_GONE};
        gone.request.request = 4;
        step(&gone);
        ask(REQUEST_LOCK_ACQUIRE, "r1:a", 0);
        assert_true(answers[2].came && answers[2].changes == 1);
        run_for(600000);
        assert_true(answers[3].came && answers[3].changes == 0); /* its time is over */
        watch_locks(5, "r1:", answers[1].revision, 5000);        /* what was, at once */
        assert_true(answers[5].came && answers[5].changes == 1);
        watch_locks(6, "r2:", 0, 100);
        assert_int_equal(answers[6].code, REPLY_UNREACHABLE);
        watch_locks(7, "nothing", 0, 100);
        assert_int_equal(answers[7].code, REPLY_BAD_REQUEST);
        assert_false(answers[4].came);
        /* too many of them: refused, and nothing is kept */
        for (uint64_t i = 0; i < NODE_WATCHES_MAX; i++)
                watch_locks(100 + i, "r1:", answers[5].revision, 5000);
        watch_locks(8, "r1:", answers[5].revision, 5000);
        assert_int_equal(answers[8].code, REPLY_LIMIT);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *key;
                enum reply_code code;
        } rows[] = {
                {"global:a", REPLY_NO_MAJORITY},
                {"r2:a", REPLY_UNREACHABLE},
                {"nowhere:a", REPLY_UNKNOWN_REGION},
                {"nothing", REPLY_BAD_REQUEST},
        };
        (void)state;
        run_for(5000000);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                uint64_t before_us = alone.now_us;
                ask(REQUEST_LOCK_ACQUIRE, rows[i].key, 0);
                if (alone.reply.code != rows[i].code)
                        fail_msg("%s: %s", rows[i].key, reply_code_word(alone.reply.code));
                assert_true(alone.now_us < before_us + 3000000);
        }
}

static void test_restart_keeps_a_lock(void **state)
{
        (void)state;
        run_for(1000000);
        ask(REQUEST_LOCK_ACQUIRE, "r1:kept", 0);
        uint64_t token = alone.reply.lock.token;
        node_free(alone.node);
        start(topology);
        assert_int_equal(node_failed(alone.node), ERR_NONE);
        run_for(400000);
        ask(REQUEST_LOCK_INFO, "r1:kept", 0);
        assert_int_equal(alone.reply.code, REPLY_OK);
        assert_true(alone.reply.lock.token == token);
}

static void test_damaged_journal_stops(void **state)
{
        (void)state;
        run_for(1000000);
        ask(REQUEST_LOCK_ACQUIRE, "r1:a", 0);
        node_free(alone.node);
        alone.journals[WORLD_GROUP_REGION].ptr[alone.journals[WORLD_GROUP_REGION].len / 4] ^= 1;
        start(topology);
        assert_int_equal(node_failed(alone.node), ERR_CORRUPT);
}

/* So does one that is gone: alone there is nobody who could fill it again. */
static void test_lost_journal_stops(void **state)
{
        (void)state;
        run_for(1000000);
        node_free(alone.node);
        buffer_reset(&alone.journals[WORLD_GROUP_REGION]);
        alone.known = true;
        start(topology);
        assert_int_equal(node_failed(alone.node), ERR_CORRUPT);
}

static void test_failed_journal_stops_the_group(void **state)
{
        struct node_status *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        run_for(1000000);
        struct world_event event = {.kind = WORLD_JOURNAL_FAILED};
        event.journal_failed.group = WORLD_GROUP_REGION;
        event.journal_failed.err = ERR_NOSPACE;
        step(&event);
        ask(REQUEST_LOCK_ACQUIRE, "r1:a", 0);
        assert_int_equal(alone.reply.code, REPLY_NO_MAJORITY);
        node_status(alone.node, alone.now_us, 0, status);
        assert_true(status->stopped);
        assert_false(status->majority);
        assert_int_equal(status->region_count, 3);
        assert_string_equal(status->regions[0].name, "r1");
        assert_true(status->regions[0].self);
        assert_true(status->note_count > 0);
        free(status);
}

static void test_noise_from_a_peer(void **state)
{
        struct rng rng;
        uint8_t bytes[200];
        (void)state;
        rng_init(&rng, 3, 0);
        struct world_event event = {.kind = WORLD_PEER_UP};
        event.peer.peer = 2;
        step(&event);
        for (int round = 0; round < 20000; round++) {
                size_t len = rng_below(&rng, sizeof bytes);
                for (size_t i = 0; i < len; i++)
                        bytes[i] = (uint8_t)rng_next(&rng);
                if (len > 1) {
                        bytes[0] = 1;
                        bytes[1] = (uint8_t)(1 + rng_below(&rng, ENVELOPE_KIND_COUNT - 1));
                }
                event = (struct world_event){.kind = WORLD_MESSAGE};
                event.message.peer = 2;
                event.message.class = (enum world_class)rng_below(&rng, WORLD_CLASS_COUNT);
                event.message.data = bytes_of(bytes, len);
                step(&event);
        }
        assert_int_equal(node_failed(alone.node), ERR_NONE);
        assert_true(node_counters(alone.node).messages_malformed > 0);
}

static void hear(node_id peer, enum envelope_kind kind, struct bytes body)
{
        struct buffer buffer;
        struct envelope envelope = {.kind = kind, .body = body};
        struct world_event event = {.kind = WORLD_MESSAGE};
        buffer_init(&buffer, &alone.heap);
        envelope_encode(&envelope, &buffer);
        event.message.peer = peer;
        event.message.class = WORLD_CLASS_CONTROL;
        event.message.data = buffer_view(&buffer);
        step(&event);
        buffer_fini(&buffer);
}

static void hear_gossip(node_id peer)
{
        struct gossip gossip = {.report.node = peer};
        struct buffer buffer;
        buffer_init(&buffer, &alone.heap);
        gossip_encode(&gossip, &buffer);
        hear(peer, ENVELOPE_GOSSIP, buffer_view(&buffer));
        buffer_fini(&buffer);
}

static const struct consensus_member *region_member(node_id id)
{
        static struct consensus_member members[CONSENSUS_VOTERS_MAX];
        size_t count = consensus_members(alone.node->groups[WORLD_GROUP_REGION].consensus, members,
                                         COUNT_OF(members));
        for (size_t i = 0; i < count; i++)
                if (members[i].node == id)
                        return &members[i];
        return NULL;
}

#define TOPOLOGY_OF(epoch, nodes)                                                                  \
        "cluster = test; epoch = " #epoch ";\n"                                                    \
        "region r1 { id = 1; " nodes " }\n"                                                        \
        "region r2 { id = 2; node n2 { id = 2; link = \"127.0.0.2:7401\" } }\n"                    \
        "region r3 { id = 3; node n3 { id = 3; link = \"127.0.0.3:7401\" } }\n"
#define NODE_1 "node n1 { id = 1; link = \"127.0.0.1:7401\" }"
#define NODE_4 "node n4 { id = 4; link = \"127.0.0.4:7401\" }"

/* A node that is to leave its region, and is alone in the region's group, takes its heir in: nobody
 * else has what the group holds. */
static void test_who_leaves_takes_its_heir_in(void **state)
{
        static const char next[] = TOPOLOGY_OF(2, NODE_4);
        (void)state;
        run_for(1000000);
        struct world_event event = {.kind = WORLD_PEER_UP};
        event.peer.peer = 2;
        step(&event);
        hear(2, ENVELOPE_TOPOLOGY, bytes_of_str(next));
        event = (struct world_event){.kind = WORLD_PEER_UP};
        event.peer.peer = 4;
        step(&event);
        for (int i = 0; i < 5; i++) {
                hear_gossip(4);
                run_for(100000);
        }
        const struct consensus_member *heir = region_member(4);
        if (heir == NULL) {
                fail_msg("it was not taken in");
                return;
        }
        assert_int_equal(heir->role, CONSENSUS_LEARNER);
        assert_int_equal(heir->wanted, CONSENSUS_VOTER);
        assert_non_null(region_member(1));
}

static void hear_word(node_id peer, uint8_t flags, uint64_t epoch)
{
        struct buffer buffer;
        buffer_init(&buffer, &alone.heap);
        buffer_u8(&buffer, 1);
        buffer_u8(&buffer, flags);
        buffer_varint(&buffer, epoch);
        buffer_u8(&buffer, 1);
        hear(peer, ENVELOPE_MEMBER, buffer_view(&buffer));
        buffer_fini(&buffer);
}

/* One that has begun to take part in its region's group, and votes there not yet, has not what the
 * group holds: were it left alone, the group would begin anew. */
static void test_who_stays_has_the_state(void **state)
{
        static const struct {
                uint8_t flags; /* of the word: takes part, votes */
                enum reply_code code;
        } rows[] = {{0, REPLY_BAD_REQUEST}, {1, REPLY_BAD_REQUEST}, {1 | 8, REPLY_NO_MAJORITY}};
        static const char two[] = TOPOLOGY_OF(2, NODE_1 " " NODE_4);
        static const char last[] = TOPOLOGY_OF(3, NODE_4);
        (void)state;
        run_for(1000000);
        for (node_id peer = 2; peer <= 4; peer++) {
                struct world_event event = {.kind = WORLD_PEER_UP};
                event.peer.peer = peer;
                step(&event);
                if (peer == 2)
                        hear(2, ENVELOPE_TOPOLOGY, bytes_of_str(two));
        }
        run_for(4000000);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct request request = {.kind = REQUEST_TOPOLOGY_APPLY};
                for (node_id peer = 2; peer <= 4; peer++)
                        hear_gossip(peer);
                hear_word(4, rows[i].flags, 2);
                request.topology.document = bytes_of_str(last);
                request.topology.actor = BYTES("operator");
                alone.replied = false;
                say(1, &request);
                assert_true(alone.replied);
                assert_int_equal(alone.reply.code, rows[i].code);
        }
}

static void test_bad_topology(void **state)
{
        struct heap heap;
        struct node *node = NULL;
        (void)state;
        heap_init(&heap, 0);
        struct node_config config = {.self = 1, .topology = BYTES("cluster = ")};
        assert_int_equal(node_new(&heap, &config, &node), ERR_MALFORMED);
        config = (struct node_config){.self = 9, .topology = bytes_of_str(topology)};
        assert_int_equal(node_new(&heap, &config, &node), ERR_INVALID);
        assert_int_equal(heap.used_bytes, 0);
        for (uint64_t n = 1; n < 30; n++) {
                config.self = 1;
                heap.calls = 0;
                heap.fail_at = n;
                node = NULL;
                if (node_new(&heap, &config, &node) == ERR_NONE)
                        node_free(node);
                assert_int_equal(heap.used_bytes, 0);
        }
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_started, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_region_goes_on_alone),
                CASE(test_refusals),
                CASE(test_values),
                CASE(test_nameless_values),
                CASE(test_watched_locks),
                CASE(test_restart_keeps_a_lock),
                CASE(test_damaged_journal_stops),
                CASE(test_lost_journal_stops),
                CASE(test_failed_journal_stops_the_group),
                CASE(test_noise_from_a_peer),
                CASE(test_who_leaves_takes_its_heir_in),
                CASE(test_who_stays_has_the_state),
                cmocka_unit_test(test_bad_topology),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
