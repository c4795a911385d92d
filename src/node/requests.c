/* requests.c - what clients ask, from arrival to the one answer.
 *
 *   arrive --decode--> answered here          (bad requests)
 *                  |-> read                   (reads.c: from a state that is current)
 *                  |-> proposed to the group  (locks of the group, states, topology)
 *                  |      here when this node leads, else to the leader; again after a while, with
 *                  |      the same identity, so that the council applies it once
 *                  `-> forwarded to a node of the region that decides, which answers
 *
 * The answer comes when this node applies the command itself, so a leader that dies after the
 * decision costs nothing; the result of a lock command also comes from the leader as soon as that
 * has applied it, which saves the wait for the next message of the log. The first of both counts.
 * No leader within an election timeout, and nothing was proposed: refused with NOMAJORITY.
 * Proposed, and nothing comes back in time: TIMEOUT, it may or may not have happened. Every request
 * is answered within its deadline. */
#include "node/node_priv.h"

#include <stdio.h>

#define RETRY_US           200000
#define REQUEST_TIMEOUT_US 3000000
#define FORWARD_SLACK_US   500000
#define RESULT_BYTES_MAX   65536 /* larger ones come with the log only */

static uint64_t request_timeout_us(const struct node *node)
{
        return node->config.request_timeout_us != 0 ? node->config.request_timeout_us
                                                    : REQUEST_TIMEOUT_US;
}

/* What this node asked itself. */
static void own_answered(struct node *node, uint64_t id, const struct reply *reply)
{
        if ((id & LOCK_COPY_ASK) != 0)
                lock_copy_answered(node, id, reply);
        else
                postgres_answered(node, id, reply);
}

static void answer(struct node *node, struct asker asker, const struct reply *reply)
{
        if (asker.from == node->config.self) {
                own_answered(node, asker.from_id, reply);
                return;
        }
        buffer_reset(&node->scratch2);
        reply_encode(reply, &node->scratch2);
        if (node->scratch2.err != ERR_NONE)
                return;
        if (asker.from != 0) {
                struct envelope envelope = {.kind = ENVELOPE_ANSWER, .id = asker.from_id};
                envelope.body = buffer_view(&node->scratch2);
                node_send(node, asker.from, &envelope);
        } else if (asker.request != 0) {
                outbox_reply(&node->outbox, asker.request, buffer_view(&node->scratch2));
        }
        if (reply->code != REPLY_OK)
                node->counters.requests_refused++;
}

void request_refuse(struct node *node, struct asker asker, enum request_kind kind,
                    enum reply_code code, const char *text)
{
        struct reply reply = {.kind = kind, .code = code, .text = bytes_of_str(text)};
        answer(node, asker, &reply);
}

void request_answer(struct node *node, struct asker asker, const struct reply *reply)
{
        answer(node, asker, reply);
}

static struct asker asker_of(const struct pending *pending)
{
        return (struct asker){pending->request, pending->from, pending->from_id};
}

void pending_answer(struct node *node, struct pending *pending, const struct reply *reply)
{
        answer(node, asker_of(pending), reply);
        pending_drop(node, pending);
}

void pending_refuse(struct node *node, struct pending *pending, enum reply_code code,
                    const char *text)
{
        request_refuse(node, asker_of(pending), pending->kind, code, text);
        pending_drop(node, pending);
}

/* ---- proposing ---- */

/* What this node put into its log as the leader stays there for as long as it leads. */
static bool logged_here(const struct pending *pending, const struct node_group *group)
{
        return pending->term != 0 && group->leading && group->status.term == pending->term;
}

static bool propose_here(struct node *node, struct pending *pending, struct node_group *group)
{
        struct council_command command;
        if (logged_here(pending, group))
                return true;
        if (council_command_decode(pending->command, &command) != ERR_NONE ||
            !group_propose(node, group, &command))
                return false;
        pending->term = group->status.term;
        return true;
}

static bool propose_there(struct node *node, struct pending *pending, struct node_group *group)
{
        node_id leader = group->status.leader;
        struct node_peer *peer = leader != 0 ? node_peer_of(node, leader) : NULL;
        if (peer == NULL || !peer->up || leader == node->config.self)
                return false;
        struct envelope envelope = {.kind = ENVELOPE_PROPOSE, .group = group->group};
        envelope.body = pending->command;
        node_send(node, leader, &envelope);
        node->counters.requests_forwarded++;
        return true;
}

static void pending_propose(struct node *node, struct pending *pending)
{
        struct node_group *group = &node->groups[pending->group];
        pending->retry_us = node->now_us + RETRY_US;
        pending_times(node, pending);
        if (group->failed || group->consensus == NULL)
                return;
        if (propose_here(node, pending, group) || propose_there(node, pending, group))
                pending->submitted = true;
        else
                pending->retry_us = node->now_us + RETRY_US / 8;
        pending_times(node, pending);
}

/* Takes over a command for a group: `pending` is complete but for the command's bytes. */
void pending_begin(struct node *node, struct pending *pending, struct council_command *command)
{
        command->origin = (struct lock_origin){.node = node->config.self,
                                               .incarnation = node->incarnation,
                                               .sequence = pending->sequence};
        command->wall_us = node->wall_us;
        buffer_reset(&node->scratch);
        council_command_encode(command, &node->scratch);
        if (node->scratch.err != ERR_NONE ||
            !heap_copy(node->heap, buffer_view(&node->scratch), &pending->command)) {
                pending_refuse(node, pending, REPLY_LIMIT, "This node is out of memory.");
                return;
        }
        pending_propose(node, pending);
}

void propose_came(struct node *node, node_id from, const struct envelope *envelope)
{
        struct council_command command;
        if (council_command_decode(envelope->body, &command) != ERR_NONE ||
            command.origin.node != from) {
                node->counters.messages_malformed++;
                return;
        }
        (void)group_propose(node, &node->groups[envelope->group], &command);
}

/* ---- arrival ---- */

struct pending *pending_for(struct node *node, struct asker asker, enum request_kind kind,
                            enum world_group group, uint64_t wait_ms)
{
        if (wait_ms > 0 && node->waiting_count >= NODE_WAITING_MAX) {
                request_refuse(node, asker, kind, REPLY_LIMIT, "Too many requests wait for locks.");
                return NULL;
        }
        bool own = asker.from == node->config.self;
        bool full = node->pending_count >= NODE_PENDING_MAX - NODE_PENDING_OWN;
        struct pending *pending = full && !own ? NULL : pending_new(node, asker);
        if (pending == NULL) {
                request_refuse(node, asker, kind, REPLY_LIMIT,
                               "Too many requests wait for a decision.");
                return NULL;
        }
        pending->waits = wait_ms > 0;
        if (pending->waits)
                node->waiting_count++;
        pending->kind = kind;
        pending->group = group;
        if (wait_ms > LOCK_WAIT_MS_MAX)
                wait_ms = LOCK_WAIT_MS_MAX;
        pending->deadline_us = node->now_us + request_timeout_us(node) + wait_ms * 1000;
        return pending;
}

static void forward_to(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data, node_id target, uint64_t wait_ms)
{
        struct pending *pending =
                pending_for(node, asker, request->kind, WORLD_GROUP_REGION, wait_ms);
        if (pending == NULL)
                return;
        pending->elsewhere = true;
        pending->target = target;
        pending->deadline_us += FORWARD_SLACK_US;
        pending->retry_us = UINT64_MAX;
        pending_times(node, pending);
        struct envelope envelope = {.kind = ENVELOPE_FORWARD, .id = pending->sequence};
        envelope.body = data;
        node_send(node, target, &envelope);
        node->counters.requests_forwarded++;
}

void request_forward(struct node *node, struct asker asker, const struct request *request,
                     struct bytes data, node_id target)
{
        forward_to(node, asker, request, data, target, 0);
}

/* There is no such region; these are. */
static void refuse_region(struct node *node, struct asker asker, enum request_kind kind)
{
        char text[REQUEST_TEXT_BYTES_MAX];
        size_t len =
                (size_t)snprintf(text, sizeof text, "There is no such region; there are global");
        for (uint32_t i = 0; i < node->topology->region_count && len < sizeof text; i++)
                len += (size_t)snprintf(text + len, sizeof text - len, ", %s",
                                        node->topology->regions[i].name);
        request_refuse(node, asker, kind, REPLY_UNKNOWN_REGION, text);
}

void request_forward_region(struct node *node, struct asker asker, const struct request *request,
                            struct bytes data, struct bytes region_name, uint64_t wait_ms)
{
        const struct topology_region *region = topology_region_by_name(node->topology, region_name);
        if (region == NULL) {
                refuse_region(node, asker, request->kind);
                return;
        }
        node_id target = 0;
        for (size_t i = 0; i < node->peer_count && target == 0; i++)
                if (node->peers[i].region == region->id && node->peers[i].up)
                        target = node->peers[i].id;
        if (target == 0 || (asker.from != 0 && asker.from != node->config.self)) {
                request_refuse(node, asker, request->kind, REPLY_UNREACHABLE,
                               "The region that decides about this lock cannot be reached.");
                return;
        }
        forward_to(node, asker, request, data, target, wait_ms);
}

/* Answers at once where no decision can come: true when it did. */
bool request_no_majority(struct node *node, struct asker asker, enum request_kind kind,
                         const struct node_group *group)
{
        const struct topology_timing *timing = &node->topology->timing;
        uint64_t election_us =
                1000ull * (group->group == WORLD_GROUP_GLOBAL ? timing->election_ms
                                                              : timing->region_election_ms);
        bool leaderless =
                group->leaderless_us != 0 && node->now_us >= group->leaderless_us + 2 * election_us;
        if (!group->failed && !leaderless)
                return false;
        request_refuse(node, asker, kind, REPLY_NO_MAJORITY,
                       group->failed ? "This node takes no part in agreement; ask another."
                                     : "No majority can be reached.");
        return true;
}

/* A list or a session is asked for by what keys begin with, "us-east:" at least. */
enum council_place request_place(const struct node *node, bool list, struct bytes key,
                                 struct bytes *ret_region)
{
        struct bytes own = bytes_of_str(node->region->name);
        uint8_t whole[REQUEST_NAME_BYTES_MAX + 1];
        enum council_place place = council_group_of(key, own, ret_region);
        if (place != COUNCIL_PLACE_INVALID || !list || key.len == 0 || key.len >= sizeof whole)
                return place;
        memcpy(whole, key.ptr, key.len);
        whole[key.len] = 'x';
        place = council_group_of(bytes_of(whole, key.len + 1), own, ret_region);
        *ret_region =
                place == COUNCIL_PLACE_INVALID ? *ret_region : bytes_of(key.ptr, ret_region->len);
        return place;
}

/* A witness has no state to answer from: all that is not its region's goes to the leader. */
static bool witness_forwards(struct node *node, struct asker asker, const struct request *request,
                             struct bytes data)
{
        const struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        const struct node_peer *leader = node_peer_of(node, group->status.leader);
        struct bytes key = request->lock.key;
        struct bytes region;
        bool waits = request->kind == REQUEST_LOCK_ACQUIRE || request->kind == REQUEST_LOCK_WATCH;
        uint64_t wait_ms = waits ? request->lock.wait_ms : 0;
        bool keyless = request->kind == REQUEST_TOPOLOGY_GET ||
                       request->kind == REQUEST_TOPOLOGY_APPLY || request->kind == REQUEST_REGION ||
                       request->kind == REQUEST_POSTGRES;
        if (request->kind == REQUEST_LOCK_LIST)
                key = request->list.key;
        if (request->kind == REQUEST_KV || request->kind == REQUEST_KV_WATCH) {
                key = request->kv.key;
                wait_ms = request->kv.wait_ms;
        }
        if (!node_stateless(node) || leader == NULL || !leader->up ||
            leader->id == node->config.self ||
            (!keyless && request_place(node, true, key, &region) != COUNCIL_PLACE_GLOBAL))
                return false;
        forward_to(node, asker, request, data, leader->id, wait_ms);
        return true;
}

void request_came(struct node *node, uint64_t request_id, node_id from, uint64_t from_id,
                  struct bytes data)
{
        struct asker asker = {request_id, from, from_id};
        struct request request;
        node->counters.requests++;
        if (request_decode(data, &request) != ERR_NONE) {
                request_refuse(
                        node, asker, REQUEST_LOCK_INFO, REPLY_BAD_REQUEST,
                        "The request cannot be read. A key has at most 512 bytes, an owner 256.");
                return;
        }
        if (asker.from == 0 && witness_forwards(node, asker, &request, data))
                return;
        switch (request.kind) {
        case REQUEST_LOCK_ACQUIRE:
        case REQUEST_LOCK_RENEW:
        case REQUEST_LOCK_RELEASE:
        case REQUEST_LOCK_INFO:
        case REQUEST_LOCK_LIST:
        case REQUEST_LOCK_BREAK:
        case REQUEST_LOCK_LOOK:
        case REQUEST_LOCK_SEIZE:
        case REQUEST_SESSION_OPEN:
        case REQUEST_SESSION_KEEP:
        case REQUEST_SESSION_CLOSE:
                request_lock_came(node, asker, &request, data);
                break;
        case REQUEST_TOPOLOGY_GET:
        case REQUEST_TOPOLOGY_APPLY:
                request_topology_came(node, asker, &request);
                break;
        case REQUEST_REGION:
                request_region_came(node, asker, &request);
                break;
        case REQUEST_POSTGRES:
                postgres_request(node, asker, &request, data);
                break;
        case REQUEST_KV:
        case REQUEST_KV_WATCH:
                values_came(node, asker, &request, data);
                break;
        case REQUEST_LOCK_WATCH:
                watch_locks_came(node, asker, &request, data);
                break;
        case REQUEST_KIND_COUNT:
                break;
        }
}

/* ---- answers ---- */

void request_pass_on(struct node *node, struct pending *pending, struct bytes reply)
{
        struct reply own;
        if (pending->from == node->config.self) {
                uint64_t id = pending->from_id;
                bool copy = (id & LOCK_COPY_ASK) != 0;
                pending_drop(node, pending);
                if (reply_decode(reply, &own, NULL, 0) == ERR_NONE)
                        own_answered(node, id, &own);
                else if (copy) /* it is asked again */
                        lock_copy_answered(node, id, NULL);
                return;
        }
        if (pending->from != 0) {
                struct envelope envelope = {.kind = ENVELOPE_ANSWER, .id = pending->from_id};
                envelope.body = reply;
                node_send(node, pending->from, &envelope);
        } else if (pending->request != 0) {
                outbox_reply(&node->outbox, pending->request, reply);
        }
        pending_drop(node, pending);
}

void request_answered(struct node *node, node_id from, uint64_t id, struct bytes reply)
{
        struct pending *pending = pending_of_sequence(node, id);
        if (pending == NULL || read_answered(node, pending, from, reply) || !pending->elsewhere ||
            pending->target != from)
                return;
        request_pass_on(node, pending, reply);
}

void request_peer_down(struct node *node, node_id peer)
{
        struct pending *next;
        for (struct pending *pending = node->pending_first; pending != NULL; pending = next) {
                next = pending->next;
                if (pending->read && pending->target == peer)
                        read_again(node, pending, 0);
                else if (pending->elsewhere && pending->target == peer)
                        pending_refuse(node, pending, REPLY_TIMEOUT,
                                       "The region that decides went away; ask again.");
                else if (pending->from == peer)
                        pending->from = 0;
        }
}

void request_result_send(struct node *node, const struct council_outcome *outcome)
{
        const struct node_peer *peer = node_peer_of(node, outcome->origin.node);
        bool lock = outcome->kind == COUNCIL_LOCK_RESULT && outcome->lock.kind != LOCK_QUEUED;
        if ((!lock && outcome->kind != COUNCIL_KV_RESULT) || peer == NULL || !peer->up)
                return;
        struct reply reply = {.kind = REQUEST_KV};
        if (lock)
                reply = request_lock_reply(REQUEST_LOCK_ACQUIRE, outcome);
        else
                values_reply(node, REQUEST_KV, outcome->kv, &reply);
        if (!lock && reply.kv.result.len > RESULT_BYTES_MAX)
                return;
        buffer_reset(&node->scratch2);
        reply_encode(&reply, &node->scratch2);
        if (node->scratch2.err != ERR_NONE)
                return;
        struct envelope envelope = {.kind = ENVELOPE_RESULT,
                                    .id = outcome->origin.sequence,
                                    .incarnation = outcome->origin.incarnation,
                                    .body = buffer_view(&node->scratch2)};
        node_send(node, outcome->origin.node, &envelope);
}

void request_result_came(struct node *node, node_id from, const struct envelope *envelope)
{
        struct pending *pending = pending_of_sequence(node, envelope->id);
        if (envelope->incarnation != node->incarnation || pending == NULL || pending->elsewhere ||
            node->groups[pending->group].status.leader != from)
                return;
        struct reply reply;
        if (reply_decode(envelope->body, &reply, NULL, 0) != ERR_NONE ||
            (reply.kind == REQUEST_KV) != (pending->kind == REQUEST_KV) ||
            (reply.kind != REQUEST_LOCK_ACQUIRE && reply.kind != REQUEST_KV)) {
                node->counters.messages_malformed++;
                return;
        }
        reply.kind = pending->kind;
        pending_answer(node, pending, &reply);
}

void request_outcome(struct node *node, const struct node_group *group,
                     const struct council_outcome *outcome)
{
        struct pending *pending = pending_of_sequence(node, outcome->origin.sequence);
        if (pending == NULL && read_outcome(node, outcome))
                return;
        if (pending == NULL || pending->elsewhere || pending->group != group->group)
                return;
        struct reply reply = {.kind = pending->kind, .code = REPLY_OK};
        char text[160];
        switch (outcome->kind) {
        case COUNCIL_LOCK_RESULT:
                request_lock_outcome(node, pending, outcome);
                break;
        case COUNCIL_KV_RESULT:
                values_outcome(node, pending, outcome->kv);
                break;
        case COUNCIL_DONE:
                if (pending->kind == REQUEST_REGION)
                        reply.region.state = council_region(group->council, pending->region).state;
                else
                        reply.topology.epoch = outcome->epoch;
                pending_answer(node, pending, &reply);
                break;
        case COUNCIL_REFUSED:
                if (pending->kind == REQUEST_TOPOLOGY_APPLY && outcome->region != 0)
                        pending_refuse(node, pending, REPLY_BAD_REQUEST,
                                       request_removed_text(outcome->region, text, sizeof text));
                else
                        pending_refuse(node, pending,
                                       outcome->err == ERR_EXISTS ? REPLY_TIMEOUT : REPLY_CONFLICT,
                                       err_text(outcome->err));
                break;
        case COUNCIL_TOPOLOGY_EVENT:
        case COUNCIL_REGION_EVENT:
                break;
        }
}

/* ---- time, and clients that go ---- */

static void pending_cancel(struct node *node, const struct pending *waiting)
{
        struct council_command old;
        struct pending *pending;
        if (council_command_decode(waiting->command, &old) != ERR_NONE || old.kind != COUNCIL_LOCK)
                return;
        pending = pending_new(node, (struct asker){0});
        if (pending == NULL)
                return;
        pending->kind = waiting->kind;
        pending->group = waiting->group;
        pending->deadline_us = node->now_us + request_timeout_us(node);
        struct council_command command = {.kind = COUNCIL_LOCK};
        command.lock.op = LOCK_CANCEL;
        command.lock.key = old.lock.key;
        command.lock.owner = old.lock.owner;
        command.lock.cancelled = old.origin;
        pending_begin(node, pending, &command);
}

void request_gone(struct node *node, uint64_t request)
{
        struct pending *pending = pending_of_request(node, request);
        if (pending == NULL)
                return;
        pending_forget_request(node, pending);
        if (pending->queued)
                pending_cancel(node, pending);
        else if (pending->watch)
                pending_drop(node, pending);
}

bool request_lock_withdraw(struct node *node, uint64_t id)
{
        for (struct pending *at = node->pending_first; at != NULL; at = at->next) {
                if (at->from != node->config.self || at->from_id != id || !at->queued)
                        continue;
                pending_cancel(node, at);
                return true;
        }
        return false;
}

static void pending_tick(struct node *node, struct pending *pending, bool alone)
{
        const struct topology_timing *timing = &node->topology->timing;
        uint64_t election_us =
                1000ull * (pending->group == WORLD_GROUP_GLOBAL ? timing->election_ms
                                                                : timing->region_election_ms);
        if (node->now_us >= pending->deadline_us && pending->watch) {
                watch_end(node, pending);
                return;
        }
        if (node->now_us >= pending->deadline_us) {
                if (pending->queued)
                        pending_cancel(node, pending);
                pending_refuse(node, pending, REPLY_TIMEOUT,
                               "No answer in time; it may or may not have happened.");
                return;
        }
        if (pending->elsewhere || pending->queued || pending->watch)
                return;
        if (alone && node->now_us >= pending->arrived_us + election_us) {
                pending_refuse(node, pending, REPLY_NO_MAJORITY,
                               pending->submitted
                                       ? "The majority was lost; it may or may not have happened."
                                       : "No majority can be reached.");
                return;
        }
        if (node->now_us < pending->retry_us)
                return;
        if (pending->read)
                read_try(node, pending);
        else
                pending_propose(node, pending);
}

static bool group_alone(const struct node *node, const struct node_group *group)
{
        return group->failed || group->consensus == NULL ||
               !consensus_has_majority(group->consensus, node->now_us / 1000);
}

void request_tick(struct node *node)
{
        bool alone[WORLD_GROUP_COUNT];
        bool any = false;
        if (node->pending_first == NULL)
                return;
        for (int i = 0; i < WORLD_GROUP_COUNT; i++) {
                alone[i] = group_alone(node, &node->groups[i]);
                any = any || alone[i];
        }
        if (!any && node->now_us < node->pending_next_us)
                return;
        /* Whatever is made meanwhile goes to the end; nothing but the one in hand is dropped. */
        struct pending *next;
        node->pending_next_us = UINT64_MAX;
        for (struct pending *pending = node->pending_first; pending != NULL; pending = next) {
                next = pending->next;
                pending_tick(node, pending, alone[pending->group]);
        }
        for (struct pending *pending = node->pending_first; pending != NULL; pending = next) {
                next = pending->next;
                pending_times(node, pending);
        }
}

uint64_t request_wake_us(const struct node *node)
{
        return node->pending_first == NULL ? UINT64_MAX : node->pending_next_us;
}
