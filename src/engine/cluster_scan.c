/* The state of all shards, as if of one table.
 *
 *      begin  every shard marks its stream as complete up to the largest position of any
 *             -> tells what it has seen -> answered with a part without keys, whose vector is the
 *             least of all: it is what the receiver takes over at the end
 *      then   the shards one after the other, part by part. Their parts keep their own vector,
 *             which includes the first one, and get one name and one numbering.
 *
 * The node's cursor is (shard + 1) << 56 | the shard's own cursor. */
#include "engine/cluster_priv.h"

enum {
        CURSOR_SHARD_SHIFT = 56,
};

static struct scanning *scanning_of(struct cluster *cluster, node_id peer)
{
        struct scanning *scanning = cluster->scannings;
        while (scanning != NULL && scanning->peer != peer)
                scanning = scanning->next;
        if (scanning != NULL)
                return scanning;
        scanning = heap_alloc(cluster->engine->config.heap, sizeof *scanning);
        if (scanning == NULL)
                return NULL;
        buffer_init(&scanning->part, cluster->engine->config.heap);
        scanning->peer = peer;
        scanning->next = cluster->scannings;
        cluster->scannings = scanning;
        return scanning;
}

static void scanning_fail(struct cluster *cluster, node_id peer, enum err err)
{
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = peer;
        event.scanned.err = err;
        engine_emit(cluster->engine, &event);
}

static struct scanning *scanning_of_ticket(struct cluster *cluster, uint64_t ticket)
{
        struct scanning *scanning = cluster->scannings;
        while (scanning != NULL && !(scanning->pending && scanning->ticket == ticket))
                scanning = scanning->next;
        return scanning;
}

static uint64_t cursor_first(unsigned shard)
{
        return (uint64_t)(shard + 1) << CURSOR_SHARD_SHIFT;
}

/* The shards count alike, however many keys they have. */
static uint32_t done_permille(const struct cluster *cluster, uint64_t cursor)
{
        uint64_t shards = cursor >> CURSOR_SHARD_SHIFT;
        uint64_t inside = cursor & (((uint64_t)1 << CURSOR_SHARD_SHIFT) - 1);
        uint64_t done = inside == 0 ? 0 : keyspace_scan_permille(inside);
        if (shards == 0 || shards > cluster->count)
                return 1000;
        return (uint32_t)(((shards - 1) * 1000 + done) / cluster->count);
}

static void scanning_answer(struct cluster *cluster, struct scanning *scanning,
                            struct shards_part *part)
{
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        struct positions positions = {.count = 0};
        bool first = scanning->cursor == 0;
        scanning->pending = false;
        part->table_id = scanning->table_id;
        part->from = scanning->cursor;
        buffer_reset(&scanning->part);
        shards_part_write(part, &scanning->part);
        for (unsigned i = 1; first && i <= CLOCK_REGIONS_MAX; i++) {
                if (part->seen.vector.hlc[i] != 0)
                        positions.items[positions.count++] =
                                (struct world_position){(region_id)i, part->seen.vector.hlc[i]};
        }
        event.scanned.peer = scanning->peer;
        event.scanned.err = scanning->part.err;
        event.scanned.cursor = part->to;
        event.scanned.table = scanning->table_id;
        event.scanned.done_permille = done_permille(cluster, part->to);
        event.scanned.state = buffer_view(&scanning->part);
        event.scanned.positions = positions.items;
        event.scanned.position_count = positions.count;
        engine_emit(cluster->engine, &event);
}

/* ---- the first part ---- */

static void begin_done(struct cluster *cluster, struct scanning *scanning)
{
        struct shards_part part = {.origin = (uint8_t)cluster->engine->origin,
                                   .to = cursor_first(0),
                                   .seen = scanning->seen};
        if (scanning->failed) {
                scanning->pending = false;
                scanning_fail(cluster, scanning->peer, ERR_BUSY);
                return;
        }
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (part.seen.vector.hlc[i] > part.hlc)
                        part.hlc = part.seen.vector.hlc[i];
        }
        scanning_answer(cluster, scanning, &part);
}

static void seen_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct scanning *scanning = scanning_of_ticket(shard->cluster, call->ticket);
        struct world_event event;
        struct positions positions;
        struct shards_part part;
        if (reply == NULL || scanning == NULL)
                return;
        if (reply_scan(reply, &event, &positions) != REPLY_GOOD ||
            shards_part_read(event.scanned.state, &part) != ERR_NONE) {
                scanning->failed = true;
        } else if (!scanning->seen_there) {
                scanning->seen = part.seen;
                scanning->seen_there = true;
        } else {
                shards_seen_least(&scanning->seen, &part.seen);
        }
        if (--scanning->waiting == 0)
                begin_done(shard->cluster, scanning);
}

static void mark_answered(struct call *call, const redisReply *reply)
{
        struct scanning *scanning = scanning_of_ticket(
                ((const struct shard *)call->connection->user)->cluster, call->ticket);
        if (reply != NULL && scanning != NULL && reply->type != REDIS_REPLY_INTEGER)
                scanning->failed = true;
}

static void seen_ask(struct cluster *cluster, struct scanning *scanning)
{
        char clock[NUMBER_SIZE];
        struct call call_mark = {.done = mark_answered, .ticket = scanning->ticket};
        struct call call = {.done = seen_answered, .ticket = scanning->ticket};
        struct bytes marks[] = {BYTES("MERIDIAN.MARK"), cluster_number(scanning->mark, clock)};
        struct bytes looks[] = {BYTES("MERIDIAN.SCAN"), BYTES("0"), BYTES("1")};
        scanning->waiting = 0;
        for (unsigned i = 0; i < cluster->count; i++) {
                struct connection *reads = &cluster->shards[i]->reads;
                if (connection_send(reads, &call_mark, COUNT_OF(marks), marks) &&
                    connection_send(reads, &call, COUNT_OF(looks), looks))
                        scanning->waiting++;
                else
                        scanning->failed = true;
        }
        if (scanning->waiting == 0)
                begin_done(cluster, scanning);
}

static void positions_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct scanning *scanning = scanning_of_ticket(shard->cluster, call->ticket);
        struct world_event event;
        struct positions positions;
        region_id origin = 0;
        if (reply == NULL || scanning == NULL)
                return;
        if (reply_positions(reply, &origin, &event, &positions) != REPLY_GOOD)
                scanning->failed = true;
        else
                for (size_t i = 0; i < positions.count; i++) {
                        if (positions.items[i].origin == origin &&
                            positions.items[i].hlc > scanning->mark)
                                scanning->mark = positions.items[i].hlc;
                }
        if (--scanning->waiting == 0)
                seen_ask(shard->cluster, scanning);
}

static void scanning_begin(struct cluster *cluster, struct scanning *scanning)
{
        struct call call = {.done = positions_answered, .ticket = scanning->ticket};
        struct bytes argv[] = {BYTES("MERIDIAN.POSITIONS")};
        scanning->table_id = rng_next(&cluster->engine->rng);
        scanning->failed = scanning->seen_there = false;
        scanning->mark = 0;
        scanning->waiting = 0;
        for (unsigned i = 0; i < cluster->count; i++) {
                if (connection_send(&cluster->shards[i]->reads, &call, COUNT_OF(argv), argv))
                        scanning->waiting++;
                else
                        scanning->failed = true;
        }
        if (scanning->waiting == 0)
                begin_done(cluster, scanning);
}

/* ---- the others ---- */

static void part_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        struct scanning *scanning = scanning_of_ticket(cluster, call->ticket);
        struct world_event event;
        struct positions positions;
        struct shards_part part;
        if (reply == NULL || scanning == NULL || shard->index >= SHARDS_MAX)
                return;
        (void)reply_scan(reply, &event, &positions);
        enum err err = event.scanned.err;
        if (err == ERR_NONE)
                err = shards_part_read(event.scanned.state, &part);
        if (err != ERR_NONE) {
                scanning->pending = false;
                scanning_fail(cluster, scanning->peer, err);
                return;
        }
        if (event.scanned.cursor != 0)
                part.to = cursor_first(shard->index) | event.scanned.cursor;
        else
                part.to = shard->index + 1 < cluster->count ? cursor_first(shard->index + 1) : 0;
        scanning_answer(cluster, scanning, &part);
}

void cluster_scan(struct cluster *cluster, const struct world_effect *effect)
{
        struct scanning *scanning = scanning_of(cluster, effect->scan.peer);
        uint64_t index = (effect->scan.cursor >> CURSOR_SHARD_SHIFT) - 1;
        bool begin = effect->scan.cursor == 0;
        if (scanning == NULL || (!begin && index >= cluster->count)) {
                scanning_fail(cluster, effect->scan.peer, ERR_CLOSED);
                return;
        }
        scanning->pending = true;
        scanning->cursor = effect->scan.cursor;
        scanning->ticket = ++cluster->tickets;
        if (begin) {
                scanning_begin(cluster, scanning);
                return;
        }
        char cursor[NUMBER_SIZE], bytes_max[NUMBER_SIZE];
        uint64_t own = effect->scan.cursor & (((uint64_t)1 << CURSOR_SHARD_SHIFT) - 1);
        struct call call = {.done = part_answered, .ticket = scanning->ticket};
        struct bytes argv[] = {BYTES("MERIDIAN.SCAN"), cluster_number(own, cursor),
                               cluster_number(effect->scan.bytes_max, bytes_max)};
        if (connection_send(&cluster->shards[index]->reads, &call, COUNT_OF(argv), argv))
                return;
        scanning->pending = false;
        scanning_fail(cluster, scanning->peer, ERR_CLOSED);
}

void cluster_scan_drop(struct cluster *cluster)
{
        for (struct scanning *at = cluster->scannings; at != NULL; at = at->next)
                at->pending = false;
}

void cluster_scan_fini(struct cluster *cluster)
{
        while (cluster->scannings != NULL) {
                struct scanning *scanning = cluster->scannings;
                cluster->scannings = scanning->next;
                buffer_fini(&scanning->part);
                heap_free(cluster->engine->config.heap, scanning);
        }
}
