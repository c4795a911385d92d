/* A batch of another region, or a part of its state, to the shards that it is for.
 *
 *      split by key -> every shard that imports no slot: its part, and the batch's end
 *                   -> those that import slots: their part, and what the others gave back because
 *                      the key has left them
 *                   -> answered with the least position
 *
 * Servers that import slots come last, so that none of them is ever ahead of a server from which a
 * key comes to it: a key that arrives brings the metadata of that other server, which then includes
 * every delta that the importing one has seen. A shard whose slots have changed since we asked
 * refuses the batch (LAYOUT) before applying any of it; then the slots are asked for again and the
 * whole batch is sent once more, as often as it takes a while. What a shard has already it skips by
 * position, and still gives back what is of keys that have left it. */
#include "engine/cluster_priv.h"

enum {
        TRIES_MAX = 100,
        MERGE_RETRY_MS = 20,
        MERGE_ARGC_MAX = 2 * TOPOLOGY_REGION_ID_MAX + 3,
};

static struct merging *merging_of(struct cluster *cluster, region_id origin)
{
        struct heap *heap = cluster->engine->config.heap;
        struct merging *merging = cluster->mergings[origin];
        if (merging != NULL)
                return merging;
        merging = heap_alloc(heap, sizeof *merging);
        if (merging == NULL)
                return NULL;
        buffer_init(&merging->data, heap);
        for (unsigned i = 0; i < SHARDS_MAX; i++) {
                buffer_init(&merging->parts[i], heap);
                buffer_init(&merging->moved[i], heap);
        }
        cluster->mergings[origin] = merging;
        return merging;
}

static void merging_answer(struct cluster *cluster, struct merging *merging)
{
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        merging->pending = false;
        event.merged.origin = merging->origin;
        event.merged.gap = merging->gap;
        event.merged.err = merging->err;
        bool told = merging->gap || merging->err == ERR_NONE;
        event.merged.position = told && merging->position != UINT64_MAX ? merging->position : 0;
        engine_emit(cluster->engine, &event);
}

static void merging_again(struct cluster *cluster, struct merging *merging)
{
        if (++merging->tries > TRIES_MAX) {
                merging->err = ERR_BUSY;
                engine_note(cluster->engine, "redis-refused",
                            "changes of region %u are for slots that no server of the cluster "
                            "takes: see CLUSTER NODES for slots that are half moved",
                            merging->origin);
                merging_answer(cluster, merging);
                return;
        }
        merging->retry_ms = cluster_now_ms(cluster) + MERGE_RETRY_MS;
}

/* ---- answers ---- */

static void merging_stage(struct cluster *cluster, struct merging *merging, bool last_stage);

static bool any_importing(const struct cluster *cluster)
{
        for (unsigned i = 0; i < cluster->count; i++) {
                if (cluster->shards[i]->importing)
                        return true;
        }
        return false;
}

static bool any_moved(const struct cluster *cluster, const struct merging *merging)
{
        for (unsigned i = 0; i < cluster->count; i++) {
                if (merging->moved[i].len > 0)
                        return true;
        }
        return false;
}

static void merging_stage_done(struct cluster *cluster, struct merging *merging)
{
        bool fatal = merging->gap || merging->err != ERR_NONE;
        bool lost = merging->last_stage || !any_importing(cluster);
        if (!fatal && (merging->stale || (lost && any_moved(cluster, merging))))
                merging_again(cluster, merging);
        else if (!fatal && !lost)
                merging_stage(cluster, merging, true);
        else
                merging_answer(cluster, merging);
}

static void merging_part_done(struct cluster *cluster, struct merging *merging)
{
        CHECK(merging->waiting > 0);
        merging->waiting--;
        if (merging->waiting == 0)
                merging_stage_done(cluster, merging);
}

static bool reply_starts(const redisReply *reply, const char *word)
{
        return reply->type == REDIS_REPLY_ERROR &&
               bytes_starts_with(bytes_of(reply->str, reply->len), bytes_of_str(word));
}

/* [position, deltas of keys that are not here] */
static bool reply_moved(const redisReply *reply, struct buffer *moved, uint64_t *ret_position)
{
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
            reply->element[0]->type != REDIS_REPLY_INTEGER || reply->element[0]->integer < 0 ||
            reply->element[1]->type != REDIS_REPLY_STRING)
                return false;
        *ret_position = (uint64_t)reply->element[0]->integer;
        buffer_reset(moved);
        buffer_bytes(moved, bytes_of(reply->element[1]->str, reply->element[1]->len));
        return moved->err == ERR_NONE;
}

static void merge_take(struct merging *merging, unsigned index, const redisReply *reply)
{
        struct world_event event;
        struct positions positions;
        uint64_t position;
        if (reply_starts(reply, "LAYOUT") || reply_starts(reply, "CLUSTERDOWN")) {
                merging->stale = true;
                return;
        }
        if (!merging->state && reply_moved(reply, &merging->moved[index], &position)) {
                merging->position = position < merging->position ? position : merging->position;
                return;
        }
        (void)reply_merge(reply, &event, &positions);
        merging->gap = merging->gap || event.merged.gap;
        if (event.merged.err != ERR_NONE)
                merging->err = event.merged.err;
        else if (!merging->state && event.merged.position < merging->position)
                merging->position = event.merged.position;
}

static void merge_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        struct merging *merging = cluster->mergings[call->origin];
        if (reply == NULL || merging == NULL || !merging->pending ||
            merging->ticket != call->ticket || shard->index >= SHARDS_MAX)
                return;
        obstacle_heard(call, reply);
        merge_take(merging, shard->index, reply);
        merging_part_done(cluster, merging);
}

static void asking_answered(struct call *call, const redisReply *reply)
{
        (void)call;
        (void)reply;
}

/* ---- requests ---- */

/* The part of a server that comes last, with what the others gave back, in clock order. */
static bool part_complete(struct cluster *cluster, struct merging *merging, unsigned index)
{
        struct shards_stream streams[SHARDS_MAX] = {{{0}, 0}};
        unsigned count = 0;
        uint64_t last;
        struct buffer whole;
        streams[count++] =
                (struct shards_stream){buffer_view(&merging->parts[index]), merging->last};
        for (unsigned i = 0; i < cluster->count && count < SHARDS_MAX; i++) {
                if (i != index && merging->moved[i].len > 0)
                        streams[count++] = (struct shards_stream){buffer_view(&merging->moved[i]),
                                                                  merging->last};
        }
        if (count == 1)
                return true;
        buffer_init(&whole, cluster->engine->config.heap);
        enum err err = shards_merge(streams, count, 0, NULL, &whole, &last);
        if (err == ERR_NONE) {
                buffer_reset(&merging->parts[index]);
                buffer_bytes(&merging->parts[index], buffer_view(&whole));
                err = merging->parts[index].err;
        }
        buffer_fini(&whole);
        return err == ERR_NONE;
}

static bool batch_send(struct merging *merging, struct shard *shard, bool last_stage)
{
        char origin[NUMBER_SIZE], after[NUMBER_SIZE], last[NUMBER_SIZE], layout[NUMBER_SIZE];
        struct call asking = {.done = asking_answered};
        struct call call = {
                .done = merge_answered, .origin = merging->origin, .ticket = merging->ticket};
        struct bytes words[] = {BYTES("ASKING")};
        struct bytes argv[] = {BYTES("MERIDIAN.MERGE"),
                               cluster_number(merging->origin, origin),
                               cluster_number(merging->after, after),
                               cluster_number(merging->last, last),
                               buffer_view(&merging->parts[shard->index]),
                               BYTES("LAYOUT"),
                               cluster_number(shard->layout, layout),
                               BYTES("LAST")};
        if (last_stage && !connection_send(&shard->control, &asking, 1, words))
                return false;
        return connection_send(&shard->control, &call, COUNT_OF(argv) - (last_stage ? 0 : 1), argv);
}

static bool state_send(struct merging *merging, struct shard *shard)
{
        char texts[2 * TOPOLOGY_REGION_ID_MAX][NUMBER_SIZE];
        struct bytes argv[MERGE_ARGC_MAX] = {BYTES("MERIDIAN.MERGESTATE"),
                                             buffer_view(&merging->parts[shard->index]),
                                             BYTES("END")};
        struct call call = {
                .done = merge_answered, .origin = merging->origin, .ticket = merging->ticket};
        size_t count = merging->state_end ? 3 : 2;
        for (size_t i = 0; merging->state_end && i < merging->positions.count; i++) {
                const struct world_position *position = &merging->positions.items[i];
                argv[count++] = cluster_number(position->origin, texts[2 * i]);
                argv[count++] = cluster_number(position->hlc, texts[2 * i + 1]);
        }
        return connection_send(&shard->control, &call, count, argv);
}

static void merging_stage(struct cluster *cluster, struct merging *merging, bool last_stage)
{
        merging->last_stage = last_stage;
        merging->waiting = 1; /* for this function */
        for (unsigned i = 0; i < cluster->count; i++) {
                struct shard *shard = cluster->shards[i];
                bool sent;
                if (!merging->state && shard->importing != last_stage)
                        continue;
                if (merging->state)
                        sent = state_send(merging, shard);
                else
                        sent = (!last_stage || part_complete(cluster, merging, i)) &&
                               batch_send(merging, shard, last_stage);
                if (sent)
                        merging->waiting++;
                else
                        merging->err = ERR_NOMEM;
        }
        merging_part_done(cluster, merging);
}

/* Splits and sends, from the beginning. */
static void merging_run(struct cluster *cluster, struct merging *merging)
{
        struct bytes data = buffer_view(&merging->data);
        merging->stale = merging->gap = false;
        merging->retry_ms = 0;
        merging->position = UINT64_MAX;
        merging->ticket = ++cluster->tickets;
        for (unsigned i = 0; i < SHARDS_MAX; i++) {
                buffer_reset(&merging->parts[i]);
                buffer_reset(&merging->moved[i]);
        }
        enum err err = ERR_NONE;
        if (data.len > 0)
                err = merging->state ? shards_state_split(&cluster->nodes.map, data, merging->parts)
                                     : shards_split(&cluster->nodes.map, data, merging->parts);
        merging->err = err == ERR_REFUSED ? ERR_NONE : err;
        if (err == ERR_REFUSED)
                merging_again(cluster, merging);
        else if (err != ERR_NONE)
                merging_answer(cluster, merging);
        else
                merging_stage(cluster, merging, false);
}

void cluster_merge(struct cluster *cluster, const struct world_effect *effect)
{
        struct merging *merging = merging_of(cluster, effect->merge.origin);
        if (merging != NULL) {
                buffer_reset(&merging->data);
                buffer_bytes(&merging->data, effect->merge.data);
        }
        if (merging == NULL || merging->data.err != ERR_NONE) {
                struct world_event event = {.kind = WORLD_REDIS_MERGED};
                event.merged.origin = effect->merge.origin;
                event.merged.err = ERR_NOMEM;
                engine_emit(cluster->engine, &event);
                return;
        }
        CHECK(effect->merge.position_count <= COUNT_OF(merging->positions.items));
        merging->pending = true;
        merging->tries = 0;
        merging->origin = effect->merge.origin;
        merging->state = effect->merge.state;
        merging->state_end = effect->merge.state && effect->merge.state_end;
        merging->after = effect->merge.after;
        merging->last = effect->merge.last;
        merging->positions.count = effect->merge.position_count;
        for (size_t i = 0; i < effect->merge.position_count; i++)
                merging->positions.items[i] = effect->merge.positions[i];
        merging_run(cluster, merging);
}

void cluster_merge_timed(struct cluster *cluster)
{
        for (unsigned i = 0; i < COUNT_OF(cluster->mergings); i++) {
                const struct merging *merging = cluster->mergings[i];
                if (merging != NULL && merging->pending && merging->retry_ms != 0 &&
                    cluster_now_ms(cluster) >= merging->retry_ms)
                        cluster_refresh(cluster);
        }
}

void cluster_merge_refreshed(struct cluster *cluster)
{
        for (unsigned i = 0; i < COUNT_OF(cluster->mergings); i++) {
                struct merging *merging = cluster->mergings[i];
                if (merging != NULL && merging->pending && merging->retry_ms != 0)
                        merging_run(cluster, merging);
        }
}

void cluster_merge_drop(struct cluster *cluster)
{
        for (unsigned i = 0; i < COUNT_OF(cluster->mergings); i++) {
                if (cluster->mergings[i] != NULL)
                        cluster->mergings[i]->pending = false;
        }
}

void cluster_merge_fini(struct cluster *cluster)
{
        for (unsigned i = 0; i < COUNT_OF(cluster->mergings); i++) {
                struct merging *merging = cluster->mergings[i];
                if (merging == NULL)
                        continue;
                buffer_fini(&merging->data);
                for (unsigned k = 0; k < SHARDS_MAX; k++) {
                        buffer_fini(&merging->parts[k]);
                        buffer_fini(&merging->moved[k]);
                }
                heap_free(cluster->engine->config.heap, merging);
                cluster->mergings[i] = NULL;
        }
}
