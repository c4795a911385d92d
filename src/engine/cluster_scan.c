/* The state of all shards, as if of one table.
 *
 *      begin  every shard marks its stream as complete up to the largest position of any
 *             -> tells what it has seen -> answered with a part without keys, whose vector is the
 *             least of all: it is what the receiver takes over at the end
 *      then   the shards one after the other, part by part. Their parts keep their own vector,
 *             which includes the first one, and get one name and one numbering.
 *
 *      end    before the last part is given: whether all slots are where they were at the begin
 *
 * A slot that moves takes keys from a shard that is still to be scanned to one that has been; so
 * the scan fails after a while where the layouts have changed or a shard imports, and the node
 * begins anew. The name of the table is made of the shards' own tables and layouts: a scan goes on
 * where it broke off, also by another daemon, unless one of these is another one now.
 *
 * The node's cursor is (shard + 1) << 56 | the shard's own cursor. */
#include "base/hash.h"
#include "engine/cluster_priv.h"

enum {
        CURSOR_SHARD_SHIFT = 56,
        MOVED_WAIT_MS = 500, /* before a scan in vain is given up */
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

static void scanning_emit(struct cluster *cluster, struct scanning *scanning, uint64_t to)
{
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        struct positions positions = {.count = 0};
        bool first = scanning->cursor == 0;
        scanning->pending = false;
        for (unsigned i = 1; first && i <= CLOCK_REGIONS_MAX; i++) {
                if (scanning->seen.vector.hlc[i] != 0)
                        positions.items[positions.count++] =
                                (struct world_position){(region_id)i, scanning->seen.vector.hlc[i]};
        }
        event.scanned.peer = scanning->peer;
        event.scanned.err = scanning->part.err;
        event.scanned.cursor = to;
        event.scanned.table = scanning->table_id;
        event.scanned.done_permille = done_permille(cluster, to);
        event.scanned.state = buffer_view(&scanning->part);
        event.scanned.positions = positions.items;
        event.scanned.position_count = positions.count;
        engine_emit(cluster->engine, &event);
}

static void look(struct cluster *cluster, struct scanning *scanning, enum look what);

static void scanning_answer(struct cluster *cluster, struct scanning *scanning,
                            struct shards_part *part)
{
        part->table_id = scanning->table_id;
        part->from = scanning->cursor;
        buffer_reset(&scanning->part);
        shards_part_write(part, &scanning->part);
        if (part->to == 0)
                look(cluster, scanning, LOOK_END);
        else
                scanning_emit(cluster, scanning, part->to);
}

/* ---- the first part ---- */

static void part_ask(struct cluster *cluster, struct scanning *scanning);

/* The name of all tables as one; never 0. */
static uint64_t table_name(const struct cluster *cluster, const struct scanning *scanning)
{
        uint64_t hash = HASH_FNV_START;
        for (unsigned i = 0; i < cluster->count; i++) {
                hash = hash_fnv_u64(hash, scanning->tables[i]);
                hash = hash_fnv_u64(hash, scanning->layouts[i]);
        }
        return hash | 1;
}

static void look_done(struct cluster *cluster, struct scanning *scanning)
{
        if (scanning->look == LOOK_RESUME && !scanning->failed) {
                scanning->table_id = table_name(cluster, scanning);
                scanning->known = true;
                part_ask(cluster, scanning);
        } else if (scanning->look == LOOK_END && !scanning->failed && !scanning->moved) {
                scanning_emit(cluster, scanning, 0);
        } else if (scanning->look == LOOK_END && !scanning->failed) {
                scanning->known = false;
                scanning->fail_ms = cluster_now_ms(cluster) + MOVED_WAIT_MS;
        } else {
                scanning->pending = false;
                scanning_fail(cluster, scanning->peer, ERR_BUSY);
        }
}

static void begin_done(struct cluster *cluster, struct scanning *scanning)
{
        if (scanning->look != LOOK_BEGIN) {
                look_done(cluster, scanning);
                return;
        }
        scanning->table_id = table_name(cluster, scanning);
        scanning->known = !scanning->failed;
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
        if (reply == NULL || scanning == NULL || shard->index >= SHARDS_MAX)
                return;
        if (reply_scan(reply, &event, &positions) != REPLY_GOOD ||
            shards_part_read(event.scanned.state, &part) != ERR_NONE) {
                scanning->failed = true;
        } else if (scanning->look == LOOK_RESUME) {
                scanning->tables[shard->index] = part.table_id;
        } else if (!scanning->seen_there) {
                scanning->tables[shard->index] = part.table_id;
                scanning->seen = part.seen;
                scanning->seen_there = true;
        } else {
                scanning->tables[shard->index] = part.table_id;
                shards_seen_least(&scanning->seen, &part.seen);
        }
        if (--scanning->waiting == 0)
                begin_done(shard->cluster, scanning);
}

static void layout_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct scanning *scanning = scanning_of_ticket(shard->cluster, call->ticket);
        struct shard told;
        if (reply == NULL || scanning == NULL || shard->index >= SHARDS_MAX)
                return;
        bool good = shard_layout_read(&told, reply);
        bool end = scanning->look == LOOK_END;
        scanning->failed = scanning->failed || !good;
        if (good && end)
                scanning->moved = scanning->moved || told.importing ||
                                  told.layout != scanning->layouts[shard->index];
        else if (good)
                scanning->layouts[shard->index] = told.layout;
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

/* What all shards are asked at the begin, before a scan goes on, and at its end. */
static void look(struct cluster *cluster, struct scanning *scanning, enum look what)
{
        char clock[NUMBER_SIZE];
        struct call call_mark = {.done = mark_answered, .ticket = scanning->ticket};
        struct call call = {.done = seen_answered, .ticket = scanning->ticket};
        struct call call_layout = {.done = layout_answered, .ticket = scanning->ticket};
        struct bytes marks[] = {BYTES("MERIDIAN.MARK"), cluster_number(scanning->mark, clock)};
        struct bytes looks[] = {BYTES("MERIDIAN.SCAN"), BYTES("0"), BYTES("1")};
        struct bytes layouts[] = {BYTES("MERIDIAN.SHARD")};
        scanning->look = what;
        scanning->failed = scanning->moved = false;
        scanning->waiting = 1; /* for this function */
        for (unsigned i = 0; i < cluster->count; i++) {
                struct connection *reads = &cluster->shards[i]->reads;
                bool sent = what != LOOK_BEGIN ||
                            connection_send(reads, &call_mark, COUNT_OF(marks), marks);
                if (sent && what != LOOK_END) {
                        sent = connection_send(reads, &call, COUNT_OF(looks), looks);
                        scanning->waiting += sent;
                }
                sent = sent && connection_send(reads, &call_layout, COUNT_OF(layouts), layouts);
                scanning->waiting += sent;
                scanning->failed = scanning->failed || !sent;
        }
        if (--scanning->waiting == 0)
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
                look(shard->cluster, scanning, LOOK_BEGIN);
}

static void scanning_begin(struct cluster *cluster, struct scanning *scanning)
{
        struct call call = {.done = positions_answered, .ticket = scanning->ticket};
        struct bytes argv[] = {BYTES("MERIDIAN.POSITIONS")};
        scanning->look = LOOK_BEGIN;
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
        obstacle_heard(call, reply);
        (void)reply_scan(reply, &event, &positions);
        enum err err = event.scanned.err;
        if (err == ERR_NONE)
                err = shards_part_read(event.scanned.state, &part);
        if (err == ERR_NONE && part.table_id != scanning->tables[shard->index])
                err = ERR_BUSY; /* it was restarted meanwhile */
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

static void part_ask(struct cluster *cluster, struct scanning *scanning)
{
        char cursor[NUMBER_SIZE], bytes_max[NUMBER_SIZE];
        uint64_t index = (scanning->cursor >> CURSOR_SHARD_SHIFT) - 1;
        uint64_t own = scanning->cursor & (((uint64_t)1 << CURSOR_SHARD_SHIFT) - 1);
        struct call call = {.done = part_answered, .ticket = scanning->ticket, .slow = true};
        struct bytes argv[] = {BYTES("MERIDIAN.SCAN"), cluster_number(own, cursor),
                               cluster_number(scanning->bytes_max, bytes_max)};
        if (index < cluster->count &&
            connection_send(&cluster->shards[index]->reads, &call, COUNT_OF(argv), argv))
                return;
        scanning->pending = false;
        scanning_fail(cluster, scanning->peer, ERR_CLOSED);
}

void cluster_scan(struct cluster *cluster, const struct world_effect *effect)
{
        struct scanning *scanning = scanning_of(cluster, effect->scan.peer);
        if (scanning == NULL) {
                scanning_fail(cluster, effect->scan.peer, ERR_CLOSED);
                return;
        }
        scanning->pending = true;
        scanning->cursor = effect->scan.cursor;
        scanning->bytes_max = effect->scan.bytes_max;
        scanning->fail_ms = 0;
        scanning->ticket = ++cluster->tickets;
        if (scanning->cursor == 0)
                scanning_begin(cluster, scanning);
        else if (!scanning->known)
                look(cluster, scanning, LOOK_RESUME);
        else
                part_ask(cluster, scanning);
}

void cluster_scan_timed(struct cluster *cluster)
{
        for (struct scanning *at = cluster->scannings; at != NULL; at = at->next) {
                if (!at->pending || at->fail_ms == 0 || cluster_now_ms(cluster) < at->fail_ms)
                        continue;
                at->pending = false;
                scanning_fail(cluster, at->peer, ERR_BUSY);
        }
}

void cluster_scan_drop(struct cluster *cluster)
{
        for (struct scanning *at = cluster->scannings; at != NULL; at = at->next)
                at->pending = at->known = false;
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
