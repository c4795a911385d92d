/* values.c - users of values: reads, writes, deletes, compare-and-swap and transactions of two
 * keys, by any node, under all faults. All of it is recorded, and the history must be linearizable
 * (linear/linear.h). A client that gets no answer asks again, often another node, with the same id,
 * so each write happens at most once; what it gives up may have happened at any time. */
#include "kv/kv.h"
#include "linear/linear.h"
#include "sim/sim_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define REPLY_WAIT_US (4 * SECOND)
#define TRIES_MAX     12

/* Which seeds have such clients: the others keep their histories. */
#define SEEDS_EVERY   4

static const char *const names[VALUE_KEYS] = {"global:v0", "global:v1", "global:v2", "r1:v"};

static void think(struct sim *sim, struct value_client *client, uint64_t after_us)
{
        sim_at(sim, after_us, EVENT_VALUE_CLIENT, client->index, 0, ++client->generation);
}

void value_clients_init(struct sim *sim)
{
        if (sim->options.seed % SEEDS_EVERY != 0)
                return;
        for (uint32_t i = 0; i < VALUE_CLIENTS; i++) {
                sim->value_clients[i].index = i;
                think(sim, &sim->value_clients[i], sim_below(sim, STREAM_VALUES, SECOND));
        }
}

/* ---- asking ---- */

static void pair_add(struct linear_pairs *pairs, struct linear_pair *room, uint32_t key,
                     uint64_t value)
{
        room[pairs->count++] = (struct linear_pair){key, value};
        pairs->items = room;
}

/* What is compared with: mostly what a client has just seen, or the condition would never hold. */
static uint64_t guess(struct sim *sim, uint32_t key)
{
        return sim_chance(sim, STREAM_VALUES, 150) ? 0 : sim->value_seen[key];
}

static void op_draw(struct sim *sim, struct value_op *op, uint64_t number)
{
        uint32_t key = (uint32_t)sim_below(sim, STREAM_VALUES, VALUE_KEYS);
        uint32_t other = (key + 1) % (VALUE_KEYS - 1); /* of the same group */
        bool joined = key < VALUE_KEYS - 1 && sim_chance(sim, STREAM_VALUES, 400);
        uint64_t what = sim_below(sim, STREAM_VALUES, 100);
        struct linear_txn *txn = &op->op.txn;
        op->gets[op->get_count++] = key;
        if (joined)
                op->gets[op->get_count++] = other;
        if (what < 35) {
                op->reads = true;
                return;
        }
        if (what < 75)
                pair_add(&txn->when, op->when, key, guess(sim, key));
        pair_add(&txn->then, op->then, key, what >= 90 ? 0 : number);
        if (joined)
                pair_add(&txn->then, op->then, other, number);
}

static struct bytes value_text(uint64_t value, char text[24])
{
        int len = snprintf(text, 24, "%llu", (unsigned long long)value);
        return bytes_of(text, (size_t)len);
}

static void build_conditions(const struct value_op *op, struct kv_build *build)
{
        for (size_t i = 0; i < op->op.txn.when.count; i++) {
                char text[24];
                const struct linear_pair *pair = &op->op.txn.when.items[i];
                struct kv_condition condition = {.key = bytes_of_str(names[pair->key]),
                                                 .what = KV_VERSION,
                                                 .relation = KV_IS};
                if (pair->value != 0) {
                        condition.what = KV_VALUE;
                        condition.value = value_text(pair->value, text);
                }
                kv_build_condition(build, &condition);
        }
}

static void build_steps(const struct value_op *op, struct kv_build *build)
{
        for (int otherwise = 0; otherwise < 2; otherwise++) {
                for (size_t i = 0; i < op->get_count; i++) {
                        struct kv_step get = {.op = KV_GET,
                                              .key = bytes_of_str(names[op->gets[i]])};
                        kv_build_step(build, otherwise == 1, &get);
                }
        }
        for (size_t i = 0; i < op->op.txn.then.count; i++) {
                char text[24];
                const struct linear_pair *pair = &op->op.txn.then.items[i];
                struct kv_step step = {.op = KV_DELETE, .key = bytes_of_str(names[pair->key])};
                if (pair->value != 0) {
                        step.op = KV_PUT;
                        step.value = value_text(pair->value, text);
                }
                kv_build_step(build, false, &step);
        }
}

static void ask(struct sim *sim, struct value_client *client)
{
        struct host *host = &sim->hosts[client->host];
        const struct value_op *op = &sim->value_ops[client->op];
        struct kv_build build;
        struct buffer txn;
        char id[24];
        if (host->node == NULL) {
                client->host = (uint32_t)sim_below(sim, STREAM_VALUES, sim->host_count);
                think(sim, client, 100 * MS);
                return;
        }
        buffer_init(&txn, &sim->heap);
        kv_build_init(&build, &sim->heap);
        if (!op->reads)
                build.id = value_text(client->op + 1, id);
        build_conditions(op, &build);
        build_steps(op, &build);
        CHECK(kv_build_end(&build, &txn) == ERR_NONE);
        kv_build_fini(&build);
        struct request request = {.kind = REQUEST_KV};
        request.kv.key = bytes_of_str(names[op->gets[0]]);
        request.kv.txn = buffer_view(&txn);
        client->request = clients_ask(sim, host, &request);
        buffer_fini(&txn);
        sim_at(sim, REPLY_WAIT_US, EVENT_VALUE_TIMEOUT, client->index, 0, client->request);
}

/* No answer, or one that says nothing: again, or never mind. */
static void retry(struct sim *sim, struct value_client *client)
{
        client->request = 0;
        if (sim_chance(sim, STREAM_VALUES, 500))
                client->host = (uint32_t)sim_below(sim, STREAM_VALUES, sim->host_count);
        if (++client->tries >= TRIES_MAX)
                client->busy = false;
        think(sim, client, 50 * MS + sim_below(sim, STREAM_VALUES, 500 * MS));
}

/* ---- answers ---- */

static uint64_t number_of(struct bytes text)
{
        char copy[24] = "";
        if (text.len < sizeof copy)
                memcpy(copy, text.ptr, text.len);
        return strtoull(copy, NULL, 10);
}

static void answered(struct sim *sim, struct value_client *client, struct bytes result)
{
        struct value_op *op = &sim->value_ops[client->op];
        struct kv_reading reading;
        struct kv_answer_step step;
        struct kv_item item;
        CHECK(kv_result_open(result, &reading) == ERR_NONE); /* reply_decode has looked at it */
        op->op.returned = sim->now_us;
        op->op.txn.held = reading.head.succeeded;
        for (size_t i = 0; i < op->get_count && kv_result_step(&reading, &step); i++) {
                uint64_t value = kv_result_item(&reading, &item) ? number_of(item.value) : 0;
                pair_add(&op->op.txn.saw, op->saw, op->gets[i], value);
                sim->value_seen[op->gets[i]] = value;
        }
        if (reading.head.repeat)
                sim_cover(sim, COVER_VALUE_REPEATED);
        client->busy = false;
        think(sim, client, sim_below(sim, STREAM_VALUES, 600 * MS));
}

bool value_clients_reply(struct sim *sim, uint64_t request, const struct reply *reply)
{
        if (reply->kind != REQUEST_KV)
                return false;
        for (uint32_t i = 0; i < VALUE_CLIENTS; i++) {
                struct value_client *client = &sim->value_clients[i];
                if (client->request != request)
                        continue;
                client->request = 0;
                bool lost = !sim->swarm.calm && sim_chance(sim, STREAM_VALUES, 50);
                if (reply->code == REPLY_OK && !lost)
                        answered(sim, client, reply->kv.result);
                else if (reply->code == REPLY_BAD_REQUEST)
                        sim_violation(sim, "values: refused: %.*s", BYTES_ARGS(reply->text));
                else
                        retry(sim, client);
                return true;
        }
        return true;
}

void value_client_timeout(struct sim *sim, uint32_t index, uint64_t request)
{
        struct value_client *client = &sim->value_clients[index];
        if (client->request == request)
                retry(sim, client);
}

void value_clients_host_down(struct sim *sim, const struct host *host)
{
        for (uint32_t i = 0; i < VALUE_CLIENTS; i++) {
                struct value_client *client = &sim->value_clients[i];
                if (client->request != 0 && client->host == host->index)
                        retry(sim, client);
        }
}

void value_client_step(struct sim *sim, uint32_t index, uint64_t generation)
{
        struct value_client *client = &sim->value_clients[index];
        if (client->generation != generation || client->request != 0)
                return;
        if (!client->busy) {
                if (sim->value_op_count == VALUE_OPS || sim->now_us >= sim->swarm.load_end_us)
                        return;
                client->op = sim->value_op_count++;
                client->host = (uint32_t)sim_below(sim, STREAM_VALUES, sim->host_count);
                client->busy = true;
                client->tries = 0;
                struct value_op *op = &sim->value_ops[client->op];
                op->op.called = sim->now_us;
                op->op.returned = LINEAR_NEVER;
                op_draw(sim, op, client->op + 1);
        }
        ask(sim, client);
}

/* ---- the judge ---- */

static void pairs_print(struct buffer *out, const char *what, const struct linear_pairs *pairs)
{
        char text[64];
        for (size_t i = 0; i < pairs->count; i++) {
                int len =
                        snprintf(text, sizeof text, " %s:%s=%llu", what, names[pairs->items[i].key],
                                 (unsigned long long)pairs->items[i].value);
                buffer_bytes(out, bytes_of(text, (size_t)len));
        }
}

/* A line of what was asked and heard, for a person who looks for the cause. */
static void op_explain(struct sim *sim, size_t number, const struct linear_op *op)
{
        struct buffer line;
        buffer_init(&line, &sim->heap);
        pairs_print(&line, "if", &op->txn.when);
        pairs_print(&line, "then", &op->txn.then);
        pairs_print(&line, "saw", &op->txn.saw);
        CHECK(line.err == ERR_NONE);
        sim_trace(sim, "value: operation %zu: %llu %lld%s%.*s", number,
                  (unsigned long long)op->called, (long long)op->returned,
                  op->txn.held ? "" : " no", BYTES_ARGS(buffer_view(&line)));
        buffer_fini(&line);
}

void value_clients_check(struct sim *sim)
{
        size_t count = 0;
        struct linear_op *ops;
        if (sim->value_op_count == 0)
                return;
        ops = heap_alloc_array(&sim->heap, sim->value_op_count, sizeof *ops);
        CHECK(ops != NULL);
        for (size_t i = 0; i < sim->value_op_count; i++) {
                const struct value_op *op = &sim->value_ops[i];
                if (op->op.returned != LINEAR_NEVER || !op->reads)
                        ops[count++] = op->op;
        }
        struct linear_report report =
                linear_check(&sim->heap, LINEAR_VALUES, ops, count, VALUE_KEYS);
        if (report.verdict == LINEAR_GOOD)
                sim_cover(sim, COVER_VALUES);
        for (size_t i = 0; report.verdict == LINEAR_BAD && i < count; i++)
                op_explain(sim, i, &ops[i]);
        if (report.verdict == LINEAR_BAD)
                sim_violation(
                        sim,
                        "values: not linearizable: the answer to operation %llu at %llu us fits "
                        "no order",
                        (unsigned long long)report.op, (unsigned long long)ops[report.op].returned);
        heap_free(&sim->heap, ops);
}
