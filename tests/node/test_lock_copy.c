/* What a node keeps of another region's locks. The other region is played: its node is one that
 * answers as the test says. */
#include "node/node_priv.h"

#define ALONE_LOCK_COPIES
#define ALONE_MORE                                                                                 \
        struct {                                                                                   \
                size_t count;                                                                      \
                uint64_t id;                                                                       \
                uint64_t after, wait_ms;                                                           \
        } asked; /* node 2, about its locks */                                                     \
        size_t asked_other;
#include "alone.h"

static const char topology[] =
        "cluster = test; epoch = 1;\n"
        "region r1 { id = 1; node n1 { id = 1; link = \"127.0.0.1:7401\" } }\n"
        "region r2 { id = 2; node n2 { id = 2; link = \"127.0.0.2:7401\" } }\n"
        "region r3 { id = 3; role = witness; node n3 { id = 3; link = \"127.0.0.3:7401\" } }\n";

static void effect_came(const struct world_effect *effect)
{
        struct envelope envelope;
        struct request request;
        if (effect->kind != WORLD_SEND || effect->send.class != WORLD_CLASS_CONTROL ||
            envelope_decode(effect->send.data, &envelope) != ERR_NONE ||
            envelope.kind != ENVELOPE_FORWARD)
                return;
        assert_int_equal(request_decode(envelope.body, &request), ERR_NONE);
        if (effect->send.peer != 2) {
                alone.asked_other++;
                return;
        }
        assert_int_equal(request.kind, REQUEST_LOCK_WATCH);
        assert_true(bytes_equal(request.lock.key, BYTES("r2:")));
        assert_int_equal(request.lock.flags, REQUEST_WATCH_PREFIX);
        alone.asked.count++;
        alone.asked.id = envelope.id;
        alone.asked.after = request.lock.token;
        alone.asked.wait_ms = request.lock.wait_ms;
}

static void run_for(uint64_t us)
{
        for (uint64_t end_us = alone.now_us + us; alone.now_us < end_us;) {
                struct world_event event = {.kind = WORLD_TIMER};
                step(&event);
                sync_journals();
        }
}

static void peer(node_id id, bool up)
{
        struct world_event event = {.kind = up ? WORLD_PEER_UP : WORLD_PEER_DOWN};
        event.peer.peer = id;
        step(&event);
}

static int setup_started(void **state)
{
        int failed = setup(state);
        start(topology);
        return failed;
}

/* Until node 2 is asked once more. */
static void wait_asked(void)
{
        size_t before = alone.asked.count;
        for (int i = 0; i < 20000 && alone.asked.count == before; i++)
                run_for(1000);
        assert_true(alone.asked.count > before);
}

/* Node 2 answers what it was asked last. */
static void answer(enum reply_code code, struct bytes changes, uint64_t revision, bool more)
{
        struct reply reply = {.kind = REQUEST_LOCK_WATCH, .code = code};
        struct buffer body, data;
        buffer_init(&body, &alone.heap);
        buffer_init(&data, &alone.heap);
        reply.watch.changes = changes;
        reply.watch.revision = revision;
        reply.watch.more = more;
        reply_encode(&reply, &body);
        struct envelope envelope = {.kind = ENVELOPE_ANSWER, .id = alone.asked.id};
        envelope.body = buffer_view(&body);
        envelope_encode(&envelope, &data);
        struct world_event event = {.kind = WORLD_MESSAGE};
        event.message.peer = 2;
        event.message.class = WORLD_CLASS_CONTROL;
        event.message.data = buffer_view(&data);
        step(&event);
        buffer_fini(&body);
        buffer_fini(&data);
}

static void answer_granted(uint64_t id, uint64_t revision, bool more)
{
        struct buffer changes;
        buffer_init(&changes, &alone.heap);
        buffer_varint(&changes, id);
        buffer_u8(&changes, LOCK_GRANTED);
        buffer_slice(&changes, BYTES("r2:a"));
        buffer_slice(&changes, BYTES("me"));
        buffer_varint(&changes, id);
        answer(REPLY_OK, buffer_view(&changes), revision, more);
        buffer_fini(&changes);
}

static void look(const char *key, uint64_t after, uint64_t wait_ms)
{
        struct request request = {.kind = REQUEST_LOCK_WATCH};
        struct buffer buffer;
        request.lock.key = bytes_of_str(key);
        request.lock.token = after;
        request.lock.wait_ms = wait_ms;
        request.lock.flags = REQUEST_WATCH_PREFIX | REQUEST_WATCH_COPY;
        buffer_init(&buffer, &alone.heap);
        request_encode(&request, &buffer);
        struct world_event event = {.kind = WORLD_REQUEST};
        event.request.request = 1;
        event.request.data = buffer_view(&buffer);
        alone.replied = false;
        step(&event);
        buffer_fini(&buffer);
}

static void assert_told(uint64_t revision, uint64_t known)
{
        assert_true(alone.replied);
        assert_int_equal(alone.reply.code, REPLY_OK);
        assert_true(alone.reply.watch.copy);
        assert_int_equal(alone.reply.watch.revision, revision);
        assert_int_equal(alone.reply.watch.known, known);
}

static const struct node_copy *copy_of_2(void)
{
        const struct node_copy *copy = lock_copy_of(alone.node, 2);
        assert_non_null(copy);
        return copy;
}

static void test_outlives_its_region(void **state)
{
        (void)state;
        run_for(1000000);
        look("r2:", 0, 0);
        assert_int_equal(alone.reply.code, REPLY_UNREACHABLE); /* never heard */
        peer(2, true);
        peer(3, true);
        wait_asked();
        assert_true(alone.asked.after == 0 && alone.asked.wait_ms > 0);
        answer_granted(70000, 70001, true);
        wait_asked();
        if (alone.asked.after == REQUEST_WATCH_NOW) { /* whether it was made anew */
                answer(REPLY_OK, bytes_of(NULL, 0), 70001, false);
                wait_asked();
        }
        assert_int_equal(alone.asked.after, 70001);
        look("r2:", 70001, 20000); /* who waits is told as soon as the node is */
        assert_false(alone.replied);
        answer_granted(80000, 80000, false);
        assert_told(80000, 80000);
        peer(2, false);
        run_for(5000000);
        look("r2:a", 0, 0);
        assert_told(80000, 80000);
        assert_true(alone.reply.watch.age_ms >= 5000 && alone.reply.watch.age_ms < 6000);
        assert_true(alone.reply.watch.changes.len > 0);
        look("r2:", REQUEST_WATCH_NOW, 0);
        assert_told(80000, 80000);
        assert_int_equal(alone.reply.watch.changes.len, 0);
        look("r2:", 80000, 100);
        assert_false(alone.replied);
        run_for(200000);
        assert_told(80000, 80000);
        assert_int_equal(alone.asked_other, 0); /* a witness has no locks of its own */
        struct node_status *status = malloc(sizeof *status);
        assert_non_null(status);
        node_status(alone.node, alone.now_us, 0, status);
        assert_true(status->regions[1].copy_known && status->regions[1].copy_changes == 2);
        assert_true(status->regions[1].copy_revision == 80000 &&
                    status->regions[1].copy_gaps == 0 && !status->regions[0].copy_known &&
                    !status->regions[2].copy_known);
        free(status);
}

static void test_says_what_it_missed(void **state)
{
        (void)state;
        peer(2, true);
        wait_asked();
        answer_granted(500, 500, false);
        wait_asked();
        while (alone.asked.after == REQUEST_WATCH_NOW) {
                answer(REPLY_OK, bytes_of(NULL, 0), 500, false);
                wait_asked();
        }
        answer(REPLY_COMPACTED, bytes_of(NULL, 0), 0, false);
        wait_asked();
        assert_true(alone.asked.after == REQUEST_WATCH_NOW && alone.asked.wait_ms == 0);
        answer(REPLY_OK, bytes_of(NULL, 0), 900, false);
        wait_asked();
        assert_int_equal(alone.asked.after, 900);
        answer_granted(901, 901, false);
        look("r2:", 0, 0);
        assert_told(901, 901);
        assert_int_equal(lock_copy_state(copy_of_2()->copy).gaps, 1);
        assert_int_equal(lock_copy_state(copy_of_2()->copy).count, 3);
}

/* Its revisions are behind what is known here: for a moment that is a late node of it. */
static void test_begins_anew_with_its_region(void **state)
{
        (void)state;
        peer(2, true);
        wait_asked();
        answer_granted(5000, 5000, false);
        uint64_t begin_us = alone.now_us;
        while (lock_copy_state(copy_of_2()->copy).last == 5000) {
                wait_asked();
                bool now = alone.asked.after == REQUEST_WATCH_NOW;
                answer(REPLY_OK, bytes_of(NULL, 0), now ? 10 : alone.asked.after, false);
                assert_true(alone.now_us < begin_us + 200000000);
        }
        assert_true(alone.now_us > begin_us + 50000000);
        assert_int_equal(lock_copy_state(copy_of_2()->copy).last, 10);
        wait_asked();
        assert_int_equal(alone.asked.after, 10);
        answer_granted(11, 11, false);
        look("r2:", 0, 0);
        assert_told(11, 11);
}

/* With a region its copy goes, and what was asked for it is answered to nobody. */
static void test_goes_with_its_region(void **state)
{
        static const char without[] =
                "cluster = test; epoch = 2;\n"
                "region r1 { id = 1; node n1 { id = 1; link = \"127.0.0.1:7401\" } }\n"
                "region r3 { id = 3; role = witness; node n3 { id = 3; link = \"127.0.0.3:7401\" } "
                "}\n"
                "region r4 { id = 4; node n4 { id = 4; link = \"127.0.0.4:7401\" } }\n";
        (void)state;
        peer(2, true);
        wait_asked();
        answer_granted(5000, 5000, false);
        wait_asked();
        look("r2:", 5000, 20000);
        assert_false(alone.replied);
        size_t before = alone.asked.count;
        node_adopt_topology(alone.node, bytes_of_str(without));
        run_for(3000000);
        assert_null(lock_copy_of(alone.node, 2));
        assert_non_null(lock_copy_of(alone.node, 4));
        answer_granted(6000, 6000, false);
        run_for(20000000);
        assert_true(alone.replied); /* who waited for it */
        assert_int_equal(alone.reply.code, REPLY_UNREACHABLE);
        assert_int_equal(alone.asked.count, before);
        look("r2:", 0, 0);
        assert_int_equal(alone.reply.code, REPLY_UNKNOWN_REGION);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *key;
                enum reply_code code;
        } rows[] = {
                {"r1:", REPLY_BAD_REQUEST},     {"global:", REPLY_BAD_REQUEST},
                {"r3:", REPLY_UNREACHABLE},     {"nowhere:", REPLY_UNKNOWN_REGION},
                {"nothing", REPLY_BAD_REQUEST},
        };
        (void)state;
        peer(2, true);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                look(rows[i].key, 0, 100);
                assert_true(alone.replied);
                assert_int_equal(alone.reply.code, rows[i].code);
        }
        /* Whatever the region's node says, it is asked again. */
        for (int code = 0; code < REPLY_CODE_COUNT; code++) {
                wait_asked();
                answer((enum reply_code)code, BYTES("\1"), 5, false);
        }
        wait_asked();
        assert_int_equal(lock_copy_state(copy_of_2()->copy).count, 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_started, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_outlives_its_region),
                CASE(test_says_what_it_missed),
                CASE(test_begins_anew_with_its_region),
                CASE(test_goes_with_its_region),
                CASE(test_refusals),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
