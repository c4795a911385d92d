/* node.c - one turn: the event goes to the rooms that it concerns, time goes to all of them, then
 * what the groups, the decisions and the view want is carried out, and last the time of the next
 * turn is asked for.
 *
 * Failures stay where they are: a group whose journal failed stops, damaged messages are counted
 * and dropped, and only memory that runs out in the middle of a step, or a journal that is damaged
 * at the start, ends the node, since a promise may have been lost. */
#include "node/node.h"

#include "base/check.h"
#include "base/hash.h"
#include "node/node_priv.h"

#include <stdarg.h>
#include <stdio.h>

#define LOOK_EVERY_US 50000

void node_note(struct node *node, const char *name, const char *format, ...)
{
        struct node_status_note *note = &node->notes[node->note_count % NODE_STATUS_NOTES_MAX];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(note->text, sizeof note->text, format, args);
        va_end(args);
        note->name = name;
        note->wall_us = node->wall_us;
        note->index = ++node->note_count;
        outbox_note(&node->outbox, name, "%s", note->text);
}

void node_send(struct node *node, node_id peer, const struct envelope *envelope)
{
        struct buffer buffer;
        buffer_init(&buffer, node->heap);
        if (node->config.life != 0) {
                buffer_u8(&buffer, ENVELOPE_LIFE);
                buffer_u64(&buffer, node->config.life);
        }
        envelope_encode(envelope, &buffer);
        if (buffer.err != ERR_NONE)
                node->outbox.err = buffer.err;
        else
                outbox_send(&node->outbox, peer, WORLD_CLASS_CONTROL, buffer_view(&buffer));
        buffer_fini(&buffer);
}

const char *node_region_name(const struct node *node, region_id id)
{
        const struct topology_region *region = topology_region_by_id(node->topology, id);
        return region != NULL ? region->name : "?";
}

/* ---- life ---- */

static enum err replication_open(struct node *node)
{
        struct replication_peer peers[REPLICATION_PEERS_MAX];
        struct replication_config config = {.self = node->region_id, .peers = peers};
        enum err err = peers_of_replication(node, peers, &config.peer_count);
        if (err != ERR_NONE)
                return err;
        config.window_bytes = node->config.replication_window_bytes;
        config.batch_bytes_max = node->config.replication_batch_bytes;
        config.piece_bytes = node->config.replication_piece_bytes;
        config.bugs = node->config.replication_bugs;
        node->replication = replication_new(node->heap, &config);
        return node->replication == NULL ? ERR_NOMEM : ERR_NONE;
}

static enum err node_open(struct node *node, struct bytes document)
{
        struct topology_error error;
        node->topology = heap_alloc(node->heap, sizeof *node->topology);
        node->spare = heap_alloc(node->heap, sizeof *node->spare);
        node->health = heap_alloc(node->heap, sizeof *node->health);
        if (node->topology == NULL || node->spare == NULL || node->health == NULL ||
            !pendings_open(node) || !heap_copy(node->heap, document, &node->document))
                return ERR_NOMEM;
        if (!topology_parse(document, node->topology, &error))
                return ERR_MALFORMED;
        node->region = topology_region_of_node(node->topology, node->config.self);
        if (node->region == NULL)
                return ERR_INVALID;
        node->region_id = node->region->id;
        members_note_founders(node);
        enum err err = peers_fill(node, NULL);
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        if (err == ERR_NONE && members_first(node, WORLD_GROUP_GLOBAL, members) == 0)
                err = ERR_LIMIT;
        for (int i = 0; i < WORLD_GROUP_COUNT && err == ERR_NONE; i++)
                err = group_open(node, (enum world_group)i);
        if (err == ERR_NONE)
                err = replication_open(node);
        return err;
}

enum err node_new(struct heap *heap, const struct node_config *config, struct node **ret_node)
{
        struct node *node = heap_alloc(heap, sizeof *node);
        if (node == NULL)
                return ERR_NOMEM;
        node->heap = heap;
        node->config = *config;
        node->config.topology = bytes_of(NULL, 0);
        outbox_init(&node->outbox, heap);
        buffer_init(&node->scratch, heap);
        buffer_init(&node->scratch2, heap);
        enum err err = node_open(node, config->topology);
        if (err != ERR_NONE) {
                node_free(node);
                return err;
        }
        *ret_node = node;
        return ERR_NONE;
}

void node_free(struct node *node)
{
        if (node == NULL)
                return;
        struct heap *heap = node->heap;
        pending_drop_all(node);
        backup_fini(node);
        lock_copy_fini(node);
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                group_close(&node->groups[i]);
        replication_free(node->replication);
        outbox_fini(&node->outbox);
        buffer_fini(&node->scratch);
        buffer_fini(&node->scratch2);
        union {
                const uint8_t *in;
                uint8_t *out;
        } document = {.in = node->document.ptr};
        heap_free(heap, document.out);
        heap_free_bytes(heap, node->learned);
        heap_free(heap, node->peers);
        heap_free(heap, node->health);
        heap_free(heap, node->spare);
        heap_free(heap, node->topology);
        heap_free(heap, node);
}

static void node_start(struct node *node, const struct world_event *event)
{
        CHECK(!node->started);
        node->incarnation = event->start.incarnation;
        node->started_us = event->now_us;
        node->seed = event->start.seed;
        health_init(node->health, node->topology, node->config.self, node->now_us);
        node->started = true;
        carrier_start(node);
        regions_sync(node);
        for (int i = 0; i < WORLD_GROUP_COUNT; i++) {
                enum err err = group_start(node, &node->groups[i], event->start.journals[i],
                                           event->start.known[i]);
                if (err != ERR_NONE) {
                        node->failed = err;
                        return;
                }
                group_pump(node, &node->groups[i]);
        }
        members_meet(node);
        regions_sync(node);
}

/* ---- events ---- */

/* Takes the mark of a restored cluster off. False: the sender is of another life. */
static bool life_take(const struct node *node, struct bytes *data)
{
        if (node->config.life == 0)
                return data->len == 0 || data->ptr[0] != ENVELOPE_LIFE;
        struct cursor cursor = cursor_of(*data);
        bool same = cursor_u8(&cursor) == ENVELOPE_LIFE && cursor_u64(&cursor) == node->config.life;
        if (same)
                *data = bytes_of(data->ptr + 9, data->len - 9);
        return same && !cursor_failed(&cursor);
}

/* The groups are told of a link. */
static void link_told(struct node *node, node_id peer, bool up)
{
        for (int i = 0; i < WORLD_GROUP_COUNT; i++) {
                struct consensus *consensus = node->groups[i].consensus;
                if (consensus != NULL && up)
                        consensus_peer_back(consensus, node->now_us / 1000, peer);
                else if (consensus != NULL)
                        consensus_peer_gone(consensus, node->now_us / 1000, peer);
        }
}

static void message_came(struct node *node, const struct world_event *event)
{
        struct node_peer *peer = node_peer_of(node, event->message.peer);
        struct envelope envelope;
        if (peer == NULL || peer->id == node->config.self)
                return;
        node->counters.messages_in++;
        health_heard(node->health, peer->id, node->now_us);
        if (event->message.class != WORLD_CLASS_CONTROL)
                return;
        struct bytes data = event->message.data;
        if (!life_take(node, &data) || envelope_decode(data, &envelope) != ERR_NONE) {
                node->counters.messages_malformed++;
                return;
        }
        enum err err = ERR_NONE;
        switch (envelope.kind) {
        case ENVELOPE_RAFT_GLOBAL:
                err = consensus_receive(node->groups[WORLD_GROUP_GLOBAL].consensus,
                                        node->now_us / 1000, peer->id, envelope.body);
                break;
        case ENVELOPE_RAFT_REGION:
                if (node->groups[WORLD_GROUP_REGION].consensus != NULL)
                        err = consensus_receive(node->groups[WORLD_GROUP_REGION].consensus,
                                                node->now_us / 1000, peer->id, envelope.body);
                break;
        case ENVELOPE_GOSSIP:
                gossip_came(node, peer, envelope.body);
                break;
        case ENVELOPE_PROPOSE:
                propose_came(node, peer->id, &envelope);
                break;
        case ENVELOPE_FORWARD:
                request_came(node, 0, peer->id, envelope.id, envelope.body);
                break;
        case ENVELOPE_ANSWER:
                request_answered(node, peer->id, envelope.id, envelope.body);
                break;
        case ENVELOPE_RESULT:
                request_result_came(node, peer->id, &envelope);
                break;
        case ENVELOPE_POSTGRES:
                err = postgres_came(node, peer->id, envelope.body);
                break;
        case ENVELOPE_DETAIL:
                err = postgres_detail_came(node, peer->id, envelope.body);
                break;
        case ENVELOPE_READ:
                read_came(node, peer->id, &envelope);
                break;
        case ENVELOPE_MEMBER:
                err = member_word_came(node, peer, envelope.body);
                break;
        case ENVELOPE_STATES:
                err = member_states_came(node, peer->id, envelope.body);
                break;
        case ENVELOPE_TOPOLOGY:
                err = member_topology_came(node, envelope.body);
                break;
        case ENVELOPE_KIND_COUNT:
                break;
        }
        if (err != ERR_NONE)
                node->counters.messages_malformed++;
}

static void peer_changed(struct node *node, const struct world_event *event)
{
        struct node_peer *peer = node_peer_of(node, event->peer.peer);
        if (peer == NULL || peer->id == node->config.self)
                return;
        peer->up = event->kind == WORLD_PEER_UP;
        link_told(node, peer->id, peer->up);
        if (peer->up) {
                health_heard(node->health, peer->id, node->now_us);
                node->gossip_wanted = true;
        } else {
                peer->rtt_known = false;
                request_peer_down(node, peer->id);
        }
}

static void probed(struct node *node, const struct world_event *event)
{
        static const enum health_part parts[WORLD_PART_COUNT] = {
                [WORLD_PART_REDIS] = HEALTH_PART_REDIS,
                [WORLD_PART_DNS] = HEALTH_PART_DNS,
                [WORLD_PART_EDGE] = HEALTH_PART_EDGE,
                [WORLD_PART_POSTGRES] = HEALTH_PART_POSTGRES,
                [WORLD_PART_BACKEND] = HEALTH_PART_BACKEND,
        };
        uint32_t index = event->probed.part == WORLD_PART_BACKEND ? event->probed.index : 0;
        if (index >= TOPOLOGY_BACKENDS_MAX)
                return;
        enum health_part part = parts[event->probed.part];
        if (!health_looked(node->health, part, index, event->probed.healthy))
                return;
        node->gossip_wanted = true;
        bool known = false;
        bool up = health_part_up(node->health, part, index, &known);
        if (event->probed.part == WORLD_PART_BACKEND) {
                uint64_t bit = 1ull << index;
                node->backends_up = up ? node->backends_up | bit : node->backends_up & ~bit;
        }
        bool backend = event->probed.part == WORLD_PART_BACKEND;
        bool why = event->probed.why.len > 0;
        char number[16] = "";
        if (backend) /* of several, in the order of the topology */
                (void)snprintf(number, sizeof number, " %u", index + 1);
        node_note(node, up ? "part-up" : "part-down", "%s%s: %s%s%.*s",
                  backend ? "backend" : health_part_name(part), number, up ? "up" : "down",
                  why ? ", " : "", BYTES_ARGS(event->probed.why));
}

static void redis_changed(struct node *node, bool up)
{
        if (!node->redis_known || node->redis_up != up)
                node_note(node, up ? "redis-up" : "redis-down", "Redis of this region is %s.",
                          up ? "there" : "away");
        node->redis_known = true;
        node->redis_up = up;
        node->gossip_wanted = true;
}

static void round_trip(struct node *node, const struct world_event *event)
{
        struct node_peer *peer = node_peer_of(node, event->round_trip.peer);
        if (peer == NULL)
                return;
        peer->rtt_known = true;
        peer->rtt_us = event->round_trip.rtt_us;
        health_heard(node->health, peer->id, node->now_us);
}

static void dispatch(struct node *node, const struct world_event *event)
{
        switch (event->kind) {
        case WORLD_START:
                node_start(node, event);
                break;
        case WORLD_TIMER:
                break;
        case WORLD_PEER_UP:
        case WORLD_PEER_DOWN:
                peer_changed(node, event);
                break;
        case WORLD_MESSAGE:
                message_came(node, event);
                break;
        case WORLD_ROUND_TRIP:
                round_trip(node, event);
                break;
        case WORLD_JOURNAL_SYNCED:
                consensus_synced(node->groups[event->synced.group].consensus, node->now_us / 1000,
                                 event->synced.generation, event->synced.offset);
                break;
        case WORLD_JOURNAL_FAILED:
                group_fail(node, &node->groups[event->journal_failed.group],
                           err_text(event->journal_failed.err));
                break;
        case WORLD_REQUEST:
                request_came(node, event->request.request, 0, 0, event->request.data);
                break;
        case WORLD_REQUEST_GONE:
                request_gone(node, event->request.request);
                break;
        case WORLD_PROBED:
                probed(node, event);
                break;
        case WORLD_REDIS_UP:
        case WORLD_REDIS_DOWN:
                redis_changed(node, event->kind == WORLD_REDIS_UP);
                break;
        case WORLD_REDIS_TAILED:
        case WORLD_REDIS_MERGED:
        case WORLD_REDIS_SCANNED:
                break;
        case WORLD_POSTGRES_SEEN:
        case WORLD_POSTGRES_DONE:
                postgres_event(node, event);
                break;
        }
}

/* ---- the turn ---- */

static void pump(struct node *node)
{
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                group_pump(node, &node->groups[i]);
}

static void turn(struct node *node)
{
        struct health_step step = health_step(node->health, node->now_us);
        members_begin(node);
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                if (node->groups[i].consensus != NULL)
                        consensus_tick(node->groups[i].consensus, node->now_us / 1000);
        pump(node);
        request_tick(node);
        for (int i = 0; i < WORLD_GROUP_COUNT; i++) {
                group_tick(node, &node->groups[i]);
                members_tick(node, &node->groups[i]);
                level_tick(node, &node->groups[i]);
        }
        /* Looking at all regions is the dearest part of a turn: only when something may be new. */
        bool look = step.changed || node->gossip_wanted || node->look ||
                    node->now_us >= node->look_next_us;
        if (look) {
                node->look = false;
                node->look_next_us = node->now_us + LOOK_EVERY_US;
                regions_tick(node);
        }
        postgres_tick(node);
        backup_tick(node);
        lock_copy_tick(node);
        pump(node);
        node->health_next_us = step.next_us;
        if (step.changed || node->gossip_wanted || node->now_us >= node->gossip_next_us)
                gossip_send(node);
        if (look || node->look)
                regions_publish(node);
}

static uint64_t turn_next_us(const struct node *node)
{
        uint64_t wishes[] = {
                node->gossip_next_us,
                node->health_next_us,
                replication_wake_us(node->replication),
                request_wake_us(node),
                postgres_wake_us(node),
                backup_wake_us(node),
                lock_copy_wake_us(node),
                group_wake_us(node, &node->groups[WORLD_GROUP_GLOBAL]),
                group_wake_us(node, &node->groups[WORLD_GROUP_REGION]),
        };
        uint64_t next_us = UINT64_MAX;
        for (size_t i = 0; i < COUNT_OF(wishes); i++)
                if (wishes[i] < next_us)
                        next_us = wishes[i];
        return next_us > node->now_us ? next_us : node->now_us + 1;
}

void node_step(struct node *node, const struct world_event *event,
               struct world_effects *ret_effects)
{
        outbox_reset(&node->outbox);
        if (event->now_us > node->now_us)
                node->now_us = event->now_us;
        node->wall_us = event->wall_us;
        if (node->failed == ERR_NONE) {
                CHECK(node->started || event->kind == WORLD_START);
                struct world_event seen = *event;
                seen.now_us = node->now_us;
                dispatch(node, &seen);
                if (node->failed == ERR_NONE) {
                        carrier_look(node);
                        if (carrier_hears(node, &seen))
                                replication_step(node->replication, &seen, &node->outbox);
                        if (!event->more) {
                                turn(node);
                                outbox_wake(&node->outbox, turn_next_us(node));
                        }
                }
                if (node->outbox.err != ERR_NONE)
                        node->failed = node->outbox.err;
        }
        *ret_effects =
                (struct world_effects){.items = node->outbox.items, .count = node->outbox.count};
}

enum err node_failed(const struct node *node)
{
        return node->failed;
}

const struct topology *node_topology(const struct node *node)
{
        return node->topology;
}

const struct council *node_council(const struct node *node, enum world_group group)
{
        return node->groups[group].council;
}

struct node_counters node_counters(const struct node *node)
{
        return node->counters;
}

struct replication_counters node_replication_counters(const struct node *node)
{
        return replication_counters(node->replication);
}
