/* PostgreSQL on a node that is alone and its own majority: it founds, renews, fences, answers
 * requests, and takes a lease over after a restart. Clusters with faults are the
 * simulator's. */
#include "node/node_priv.h"

#define ALONE_MORE                                                                                 \
        struct world_postgres server;                                                              \
        struct world_effect done; /* the last WORLD_POSTGRES_DO */                                 \
        unsigned dones;                                                                            \
        uint64_t gate_epoch, gate_until_us;
#include "alone.h"

#include <stdio.h>

#define HEAD "cluster = test; epoch = 1;\n"
#define NODE "region r1 { id = 1; node n1 { id = 1; link = \"127.0.0.1:7401\" } }\n"

static const char with[] = HEAD NODE "postgres { nodes = [n1] }\n";
static const char asked[] = HEAD NODE "postgres { nodes = [n1]; automatic = off }\n";
static const char limited[] = HEAD NODE "postgres { nodes = [n1]; rpo = 1s }\n";
static const char without[] = HEAD NODE;

static void effect_came(const struct world_effect *effect)
{
        if (effect->kind == WORLD_POSTGRES_DO) {
                alone.done = *effect;
                alone.dones++;
        }
        if (effect->kind == WORLD_POSTGRES_GATE) {
                alone.gate_epoch = effect->gate.epoch;
                alone.gate_until_us = effect->gate.until_us;
        }
}

static void see(void)
{
        struct world_event event = {.kind = WORLD_POSTGRES_SEEN, .postgres = alone.server};
        event.postgres.gate_epoch = alone.gate_epoch;
        event.postgres.gate_until_us = alone.gate_until_us;
        step(&event);
}

/* Time passes; the server is looked at meanwhile, unless `blind`. */
static void run_for(uint64_t us, bool blind)
{
        uint64_t end_us = alone.now_us + us;
        uint64_t look_us = 0;
        while (alone.now_us < end_us) {
                struct world_event event = {.kind = WORLD_TIMER};
                step(&event);
                sync_journals();
                if (!blind && alone.now_us >= look_us) {
                        see();
                        look_us = alone.now_us + 50000;
                }
        }
}

static void finish(const char *fail)
{
        struct world_event event = {.kind = WORLD_POSTGRES_DONE};
        event.postgres_done.number = alone.done.postgres.number;
        event.postgres_done.fail = bytes_of_str(fail);
        step(&event);
        see();
}

static void must_do(enum primary_action action)
{
        if (alone.dones == 0 || alone.done.postgres.action != (uint8_t)action)
                fail_msg("%s, not %s",
                         alone.dones == 0
                                 ? "nothing"
                                 : primary_action_name(
                                           (enum primary_action)alone.done.postgres.action),
                         primary_action_name(action));
}

static void found_in(const char *topology)
{
        start(topology);
        run_for(4000000, false);
        must_do(PRIMARY_DO_INIT);
        assert_int_equal(alone.dones, 1);
        assert_true(alone.done.postgres.epoch > 0);
        assert_true(alone.gate_epoch == alone.done.postgres.epoch);
        alone.server = (struct world_postgres){.server = PRIMARY_OPEN,
                                               .system = 77,
                                               .timeline = 1,
                                               .epoch = alone.gate_epoch,
                                               .written = 1000,
                                               .committed = 1000};
        finish("");
}

static void found(void)
{
        found_in(with);
}

static void ask(enum request_postgres wish, const char *target)
{
        struct request request = {.kind = REQUEST_POSTGRES};
        struct buffer buffer;
        request.postgres.wish = wish;
        request.postgres.target = bytes_of_str(target);
        buffer_init(&buffer, &alone.heap);
        request_encode(&request, &buffer);
        struct world_event event = {.kind = WORLD_REQUEST};
        event.request.request = 1;
        event.request.data = buffer_view(&buffer);
        alone.replied = false;
        step(&event);
        buffer_fini(&buffer);
        assert_true(alone.replied);
        assert_int_equal(alone.reply.kind, REQUEST_POSTGRES);
}

static void test_founds_and_renews(void **state)
{
        (void)state;
        found();
        for (int i = 0; i < 50; i++) {
                run_for(100000, false);
                /* Writes are allowed now, and never for longer than the lease less its margin. */
                assert_true(alone.gate_until_us > alone.now_us);
                assert_true(alone.gate_until_us <= alone.now_us + 1800000);
        }
        assert_int_equal(alone.dones, 1);
}

static void test_not_seen_not_renewed(void **state)
{
        (void)state;
        found();
        run_for(8000000, true);
        assert_true(alone.gate_until_us < alone.now_us);
        uint64_t epoch = alone.gate_epoch;
        must_do(PRIMARY_DO_FENCE);
        assert_int_equal(alone.dones, 2);
        alone.server.server = PRIMARY_CLOSED;
        finish("");
        run_for(5000000, false);
        /* The timeline of the lease that has ended is not gone on with. */
        must_do(PRIMARY_DO_START);
        alone.server.server = PRIMARY_STANDBY;
        finish("");
        run_for(1000000, false);
        must_do(PRIMARY_DO_PROMOTE);
        assert_true(alone.done.postgres.epoch > epoch);
        assert_true(alone.gate_epoch == alone.done.postgres.epoch);
        assert_true(alone.gate_until_us > alone.now_us);
}

static void test_failed_action_is_tried_again(void **state)
{
        (void)state;
        start(with);
        run_for(4000000, false);
        must_do(PRIMARY_DO_INIT);
        finish("initdb: no space");
        run_for(900000, false);
        assert_int_equal(alone.dones, 1);
        run_for(300000, false);
        assert_int_equal(alone.dones, 2);
        must_do(PRIMARY_DO_INIT);
}

static unsigned notes_of(const struct node_status *status, const char *name)
{
        unsigned count = 0;
        for (size_t i = 0; i < status->note_count; i++)
                count += strcmp(status->notes[i].name, name) == 0;
        return count;
}

/* What fails again in the same way is in the status, and told once a minute. */
static void test_failures_are_told_once(void **state)
{
        struct node_status *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        start(with);
        run_for(4000000, false);
        for (unsigned i = 0; i < 5; i++) {
                must_do(PRIMARY_DO_INIT);
                finish("initdb: no space");
                run_for(1200000, false);
        }
        node_status(alone.node, alone.now_us, 0, status);
        assert_int_equal(notes_of(status, "postgres-failed"), 1);
        assert_string_equal(status->postgres.failed, "init failed: initdb: no space");
        finish("initdb: no memory");
        node_status(alone.node, alone.now_us, 0, status);
        assert_int_equal(notes_of(status, "postgres-failed"), 2);
        run_for(1200000, false);
        finish("");
        node_status(alone.node, alone.now_us, 0, status);
        assert_string_equal(status->postgres.failed, "");
        free(status);
}

static void test_restart_goes_on(void **state)
{
        (void)state;
        found();
        run_for(1000000, false);
        uint64_t epoch = alone.gate_epoch;
        node_free(alone.node);
        start(with);
        run_for(6000000, false);
        assert_int_equal(alone.dones, 1);
        assert_true(alone.gate_epoch == epoch);
        assert_true(alone.gate_until_us > alone.now_us);
}

static void test_restart_late_fences(void **state)
{
        (void)state;
        found();
        run_for(1000000, false);
        node_free(alone.node);
        alone.now_us += 1900000;
        start(with);
        run_for(200000, false);
        must_do(PRIMARY_DO_FENCE);
}

/* Writes that were held when the node went are held on, or let go: the lease is taken over. */
static void test_restart_while_held(void **state)
{
        (void)state;
        found();
        run_for(1000000, false);
        node_free(alone.node);
        alone.server.server = PRIMARY_HELD;
        start(with);
        run_for(300000, false);
        must_do(PRIMARY_DO_OPEN); /* nobody asks for a switchover any more */
        alone.server.server = PRIMARY_OPEN;
        finish("");
        run_for(2000000, false);
        assert_int_equal(alone.dones, 2);
        assert_true(alone.gate_until_us > alone.now_us);
}

/* What was given back has left a closed gate. */
static void test_restart_while_held_without_a_gate(void **state)
{
        (void)state;
        found();
        run_for(1000000, false);
        node_free(alone.node);
        alone.server.server = PRIMARY_HELD;
        alone.gate_until_us = 0;
        start(with);
        run_for(300000, false);
        must_do(PRIMARY_DO_FENCE);
}

/* Its server is a standby, and nobody holds the lease. */
static void stand_by(void)
{
        found_in(asked);
        run_for(8000000, true);
        must_do(PRIMARY_DO_FENCE);
        alone.server.server = PRIMARY_STANDBY;
        alone.gate_until_us = 0;
        finish("");
        run_for(5000000, false);
        must_do(PRIMARY_DO_FENCE); /* it waits for a person */
}

static void test_an_order_outlives_the_node(void **state)
{
        struct node_status_postgres *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        stand_by();
        ask(REQUEST_FAILOVER, "");
        assert_int_equal(alone.reply.code, REPLY_OK);
        run_for(1000000, false);
        must_do(PRIMARY_DO_PROMOTE);
        node_postgres(alone.node, alone.now_us, status);
        assert_true(status->order.recorded);
        unsigned dones = alone.dones;
        for (int i = 0; i < 2; i++) {
                node_free(alone.node);
                start(asked);
                run_for(8000000, false);
                must_do(PRIMARY_DO_PROMOTE);
                assert_int_equal(alone.dones, ++dones);
        }
        memset(status, 0, sizeof *status);
        node_postgres(alone.node, alone.now_us, status);
        assert_true(status->order.recorded);
        assert_int_equal(status->order.number, 1);
        assert_string_equal(status->order.state, "waits");
        alone.server.server = PRIMARY_OPEN;
        alone.server.epoch = alone.done.postgres.epoch;
        finish("");
        run_for(1000000, false);
        memset(status, 0, sizeof *status);
        node_postgres(alone.node, alone.now_us, status);
        assert_string_equal(status->order.state, "done");
        free(status);
}

static void test_an_order_that_is_over_does_not_come_back(void **state)
{
        (void)state;
        stand_by();
        ask(REQUEST_FAILOVER, "");
        run_for(1000000, false);
        must_do(PRIMARY_DO_PROMOTE);
        unsigned dones = alone.dones;
        ask(REQUEST_POSTGRES_ABORT, "");
        assert_int_equal(alone.reply.code, REPLY_OK);
        run_for(1000000, false);
        node_free(alone.node);
        start(asked);
        run_for(8000000, false);
        assert_int_equal(alone.dones, dones);
}

/* Asked for twice it is one order; one by force takes its place, and is recorded at once. */
static void test_a_failover_is_asked_for_again(void **state)
{
        struct node_status_postgres *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        stand_by();
        node_postgres(alone.node, alone.now_us, status);
        assert_true(status->servers[0].heard && status->servers[0].loss_known);
        assert_int_equal(status->servers[0].loss_bytes, 0);
        for (int i = 0; i < 2; i++) {
                ask(REQUEST_FAILOVER, "");
                assert_int_equal(alone.reply.code, REPLY_OK);
                run_for(300000, false);
        }
        memset(status, 0, sizeof *status);
        node_postgres(alone.node, alone.now_us, status);
        assert_int_equal(status->order.number, 1);
        assert_true(status->order.recorded);
        ask(REQUEST_FAILOVER_FORCE, "r1");
        run_for(1000000, false);
        memset(status, 0, sizeof *status);
        node_postgres(alone.node, alone.now_us, status);
        assert_int_equal(status->order.number, 2);
        assert_true(status->order.recorded);
        assert_string_equal(status->wish, "force");
        must_do(PRIMARY_DO_PROMOTE);
        free(status);
}

static void test_what_is_not_seen_takes_over_by_no_force(void **state)
{
        (void)state;
        stand_by();
        run_for(4000000, true);
        ask(REQUEST_FAILOVER_FORCE, "n1");
        assert_int_equal(alone.reply.code, REPLY_CONFLICT);
}

/* It is tried again and again, but gives others their turn meanwhile; and it comes back. */
static void test_who_does_not_start_keeps_no_lease(void **state)
{
        struct node_status_postgres *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        found();
        run_for(1000000, false);
        alone.server.server = PRIMARY_ASLEEP;
        alone.gate_until_us = 0;
        unsigned fails = 0;
        for (uint64_t end_us = alone.now_us + 12000000; alone.now_us < end_us;) {
                unsigned dones = alone.dones;
                run_for(100000, false);
                if (alone.dones == dones)
                        continue;
                must_do(PRIMARY_DO_START);
                finish("it does not start");
                fails++;
        }
        assert_in_range(fails, 5, 13);
        node_postgres(alone.node, alone.now_us, status);
        assert_string_equal(status->hold, "free");
        assert_false(status->servers[0].eligible);
        run_for(2000000, false);
        must_do(PRIMARY_DO_START);
        alone.server.server = PRIMARY_STANDBY;
        finish("");
        run_for(2000000, false);
        must_do(PRIMARY_DO_PROMOTE);
        free(status);
}

/* In no other region is what is committed here: of that people are told, and of its end. */
static void test_limit_is_told(void **state)
{
        struct node_status *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        found_in(limited);
        run_for(3000000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_true(status->postgres.exposed_known && !status->postgres.exposed_over);
        assert_int_equal(notes_of(status, "postgres-alarm"), 0);
        alone.server.committed = 1400;
        run_for(900000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_false(status->postgres.exposed_over);
        assert_int_equal(status->postgres.exposed_bytes, 400);
        run_for(400000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_true(status->postgres.exposed_over && !status->postgres.exposed_held);
        assert_in_range(status->postgres.exposed_us, 1000001, 1500000);
        assert_int_equal(notes_of(status, "postgres-alarm"), 1);
        free(status);
}

static void test_alarms(void **state)
{
        struct node_status *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        found();
        alone.server.slot_max = 1000;
        alone.server.slot_count = 1;
        alone.server.slots[0] = (struct world_postgres_slot){.name = "meridian_9", .retained = 750};
        run_for(1000000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_int_equal(notes_of(status, "postgres-alarm"), 0);
        assert_int_equal(status->postgres.slot_count, 1);
        assert_int_equal(status->postgres.slots[0].retained, 750);
        alone.server.slots[0].retained = 751;
        run_for(1000000, false);
        alone.server.slots[0].retained = 100;
        run_for(1000000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_int_equal(notes_of(status, "postgres-alarm"), 1);
        free(status);
}

static void test_requests(void **state)
{
        static const struct {
                enum request_postgres wish;
                const char *target;
                enum reply_code code;
        } rows[] = {
                {REQUEST_SWITCHOVER, "n1", REPLY_CONFLICT},
                {REQUEST_SWITCHOVER, "nowhere", REPLY_CONFLICT},
                {REQUEST_FAILOVER, "", REPLY_CONFLICT},
                {REQUEST_FAILOVER_FORCE, "r1", REPLY_CONFLICT},
                {REQUEST_POSTGRES_ABORT, "", REPLY_CONFLICT},
        };
        (void)state;
        found();
        run_for(1000000, false);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                ask(rows[i].wish, rows[i].target);
                assert_int_equal(alone.reply.code, rows[i].code);
                assert_true(alone.reply.text.len > 0);
        }
        assert_int_equal(alone.dones, 1);
}

static void test_status(void **state)
{
        struct node_status *status = calloc(1, sizeof *status);
        (void)state;
        assert_non_null(status);
        found();
        run_for(1000000, false);
        node_status(alone.node, alone.now_us, 0, status);
        assert_true(status->postgres.present);
        assert_string_equal(status->postgres.hold, "mine");
        assert_int_equal(status->postgres.holder, 1);
        assert_true(status->postgres.left_known && status->postgres.left_us > 0);
        assert_int_equal(status->postgres.server_count, 1);
        assert_true(status->postgres.servers[0].known);
        assert_string_equal(status->postgres.order.state, "none");
        assert_string_equal(status->postgres.servers[0].server, "open");
        assert_int_equal(status->postgres.servers[0].written, 1000);
        free(status);
}

static void test_inert_without_block(void **state)
{
        (void)state;
        start(without);
        run_for(3000000, false);
        alone.server = (struct world_postgres){.server = PRIMARY_OPEN, .system = 1, .timeline = 1};
        run_for(3000000, false);
        assert_int_equal(alone.dones, 0);
        assert_int_equal(alone.gate_until_us, 0);
        ask(REQUEST_FAILOVER, "");
        assert_int_equal(alone.reply.code, REPLY_NOT_FOUND);
}

static void test_senseless_server(void **state)
{
        (void)state;
        start(with);
        alone.server.server = 200;
        run_for(2000000, false);
        alone.server = (struct world_postgres){.server = PRIMARY_STANDBY};
        run_for(2000000, false);
        alone.server = (struct world_postgres){
                .server = PRIMARY_OPEN, .system = 1, .timeline = 1, .line_count = 200};
        run_for(2000000, false);
        assert_int_equal(alone.dones, 0);
}

static bool lease_find(struct lock_info *ret)
{
        char key[POSTGRES_KEY_MAX];
        const struct council *council = alone.node->groups[WORLD_GROUP_GLOBAL].council;
        return lock_find(council_locks(council), postgres_lease_key(alone.node, key), ret);
}

/* As if this node led since now, and had got the log's newest entry at that time. */
static void heir_from(uint64_t since_ms)
{
        alone.node->groups[WORLD_GROUP_GLOBAL].status.inherited_ms = since_ms;
        postgres_heir_begin(alone.node);
}

/* A lease that is found ends when its length has passed since it was seen, and not where its holder
 * is heard before. */
static void test_heir(void **state)
{
        (void)state;
        struct lock_info before, after;
        struct postgres_heir *heir;
        uint64_t now_ms;
        found();
        heir = &alone.node->postgres.heir;
        now_ms = alone.now_us / 1000;
        assert_true(lease_find(&before));
        heir_from(0);
        assert_int_equal(heir->token, 0);
        heir_from(now_ms - 700);
        assert_int_equal(heir->token, before.token.value);
        assert_int_equal(heir->due_us, (now_ms - 700 + before.ttl_ms + 1) * 1000);
        run_for(10000000, false);
        assert_true(lease_find(&after));
        assert_int_equal(after.token.value, before.token.value);
        assert_int_equal(heir->token, 0);
        /* Silent: before it is due nothing happens. */
        now_ms = alone.now_us / 1000;
        assert_true(lease_find(&before));
        heir_from(now_ms - before.ttl_ms);
        postgres_heir_tick(alone.node);
        assert_int_equal(node_counters(alone.node).heirs, 0);
        alone.now_us += 1000;
        run_for(1000, true);
        sync_journals();
        assert_int_equal(node_counters(alone.node).heirs, 1);
        assert_true(!lease_find(&after) || after.token.value > before.token.value);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_founds_and_renews),
                CASE(test_not_seen_not_renewed),
                CASE(test_failed_action_is_tried_again),
                CASE(test_failures_are_told_once),
                CASE(test_restart_goes_on),
                CASE(test_restart_late_fences),
                CASE(test_requests),
                CASE(test_status),
                CASE(test_inert_without_block),
                CASE(test_senseless_server),
                CASE(test_restart_while_held),
                CASE(test_restart_while_held_without_a_gate),
                CASE(test_an_order_outlives_the_node),
                CASE(test_an_order_that_is_over_does_not_come_back),
                CASE(test_a_failover_is_asked_for_again),
                CASE(test_what_is_not_seen_takes_over_by_no_force),
                CASE(test_who_does_not_start_keeps_no_lease),
                CASE(test_limit_is_told),
                CASE(test_alarms),
                CASE(test_heir),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
