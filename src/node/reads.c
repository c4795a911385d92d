/* reads.c - questions about a group's state, answered without an entry in its log.
 *
 *   ask --> this node leads: its consensus says when the state is current --> answer
 *       `-> another leads: it is asked, answers by itself, and is asked again after a while
 *
 * So an answer tells the state as of some moment between question and answer (linearizable), and
 * costs a round of messages to a majority, but no disk. No clock is believed: the leader asks the
 * others each time, many questions at once. (The consensus could answer on the word of clocks at
 * once; nothing here uses that.)
 *
 * Who is asked and does not lead says so, and is asked again, or another is, until the deadline;
 * without a majority the refusal comes within an election timeout. A core that knows no reads (the
 * library) writes an entry that does nothing, and the answer is given when that is applied. */
#include "base/check.h"
#include "node/node_priv.h"

#define RETRY_US       200000
#define RETRY_SOON_US  25000
#define READ_NUMBERING (1ull << 63) /* commands have numbers without holes, as the council wants */

/* ---- answers ---- */

/* Milliseconds that have passed since the table's time, by the leader's clock. */
static uint64_t table_age_ms(const struct node *node, const struct node_group *group)
{
        uint64_t table_ms = lock_table_time(council_locks(group->council));
        if (!group->leading)
                return 0;
        struct lock_clock clock = group->clock;
        uint64_t at_ms = lock_clock_read(&clock, node->now_us);
        return at_ms > table_ms ? at_ms - table_ms : 0;
}

/* A lease that is due ends when the log says so, very soon: until then somebody holds it. */
static uint64_t left_ms(uint64_t ttl_ms, uint64_t age_ms)
{
        return ttl_ms > age_ms ? ttl_ms - age_ms : 1;
}

static void reply_lock_of(struct bytes key, const struct lock_info *info, uint64_t age_ms,
                          struct reply_lock *ret)
{
        *ret = (struct reply_lock){.key = key,
                                   .owner = info->owner,
                                   .token = info->token.value,
                                   .ttl_ms = left_ms(info->ttl_ms, age_ms),
                                   .waiters = info->waiters};
}

static void lock_info(struct node *node, struct asker asker, const struct node_group *group,
                      const struct request *request)
{
        struct reply reply = {.kind = request->kind, .code = REPLY_OK};
        struct lock_info info;
        struct lock_token token = {0};
        if (request->kind == REQUEST_LOCK_LOOK)
                token.value = request->lock.token;
        if (lock_find_holder(council_locks(group->council), request->lock.key, token, &info)) {
                reply_lock_of(request->lock.key, &info, table_age_ms(node, group), &reply.lock);
                request_answer(node, asker, &reply);
        } else if (token.value != 0) {
                request_refuse(node, asker, request->kind, REPLY_NOT_OWNER,
                               "This owner does not hold it by this token.");
        } else {
                request_refuse(node, asker, request->kind, REPLY_NOT_FOUND,
                               "Nobody holds this lock.");
        }
}

static void lock_list(struct node *node, struct asker asker, const struct node_group *group,
                      const struct request *request)
{
        struct reply reply = {.kind = REQUEST_LOCK_LIST, .code = REPLY_OK};
        struct reply_lock *items = heap_alloc_array(node->heap, REQUEST_LIST_MAX, sizeof *items);
        if (items == NULL) {
                request_refuse(node, asker, request->kind, REPLY_LIMIT,
                               "This node is out of memory.");
                return;
        }
        uint64_t age_ms = table_age_ms(node, group);
        uint64_t limit = request->list.limit;
        if (limit == 0 || limit > REQUEST_LIST_MAX)
                limit = REQUEST_LIST_MAX;
        uint64_t at = request->list.after;
        struct bytes key;
        struct lock_info info;
        size_t count = 0;
        while (count < limit && lock_next(council_locks(group->council), at, &key, &info)) {
                if (bytes_starts_with(key, request->list.key))
                        reply_lock_of(key, &info, age_ms, &items[count++]);
                at = info.place;
        }
        reply.list.items = items;
        reply.list.count = count;
        reply.list.next = count == limit ? at : 0;
        request_answer(node, asker, &reply);
        heap_free(node->heap, items);
}

/* Who answers what, by a state that is current. */
typedef void read_answer(struct node *node, struct asker asker, const struct node_group *group,
                         const struct request *request);

static read_answer *const answers[REQUEST_KIND_COUNT] = {
        [REQUEST_LOCK_INFO] = lock_info,
        [REQUEST_LOCK_LOOK] = lock_info,
        [REQUEST_LOCK_LIST] = lock_list,
        [REQUEST_KV] = values_read,
};

bool read_is(enum request_kind kind)
{
        return (unsigned)kind < REQUEST_KIND_COUNT && answers[kind] != NULL;
}

/* ---- asking ---- */

void read_again(struct node *node, struct pending *pending, uint64_t after_us)
{
        pending->retry_us = node->now_us + after_us;
        pending_times(node, pending);
}

static void read_refuse(struct node *node, struct pending *pending, enum reply_code code,
                        const char *text)
{
        struct asker asker = {pending->request, pending->from, pending->from_id};
        enum request_kind kind = pending->kind;
        pending_drop(node, pending);
        request_refuse(node, asker, kind, code, text);
}

/* An entry of the log that does nothing: what is applied with it is current. */
static void read_by_log(struct node *node, struct pending *pending, struct node_group *group)
{
        if (pending->barrier == 0)
                pending->barrier = ++node->sequence;
        struct council_command command = {.kind = COUNCIL_NOOP, .wall_us = node->wall_us};
        command.origin = (struct lock_origin){.node = node->config.self,
                                              .incarnation = node->incarnation,
                                              .sequence = pending->barrier};
        if (!group_propose(node, group, &command))
                read_again(node, pending, RETRY_SOON_US);
}

static void read_elsewhere(struct node *node, struct pending *pending,
                           const struct node_group *group)
{
        node_id leader = group->status.leader;
        const struct node_peer *peer = leader != 0 ? node_peer_of(node, leader) : NULL;
        if (pending->direct) {
                read_refuse(node, pending, REPLY_NOT_LEADER, "Another node leads.");
                return;
        }
        if (peer == NULL || !peer->up || leader == node->config.self) {
                read_again(node, pending, RETRY_SOON_US);
                return;
        }
        pending->target = leader;
        struct envelope envelope = {.kind = ENVELOPE_READ,
                                    .id = pending->sequence,
                                    .group = group->group,
                                    .body = pending->question};
        node_send(node, leader, &envelope);
        node->counters.requests_forwarded++;
}

void read_try(struct node *node, struct pending *pending)
{
        struct node_group *group = &node->groups[pending->group];
        read_again(node, pending, RETRY_US);
        if (group->failed || group->consensus == NULL)
                return;
        enum err err =
                consensus_read(group->consensus, node->now_us / 1000, pending->sequence, false);
        if (err == ERR_NONE)
                pending->retry_us = UINT64_MAX; /* an answer or a refusal comes */
        else if (err == ERR_UNSUPPORTED && group->leading)
                read_by_log(node, pending, group);
        else if (err == ERR_UNSUPPORTED || err == ERR_NOT_LEADER)
                read_elsewhere(node, pending, group);
        else
                read_again(node, pending, RETRY_SOON_US);
}

static void read_open(struct node *node, struct asker asker, const struct request *request,
                      enum world_group group, bool direct)
{
        struct pending *pending = pending_for(node, asker, request->kind, group, 0);
        if (pending == NULL)
                return;
        pending->read = true;
        pending->direct = direct;
        CHECK(pending->sequence == node->sequence);
        node->sequence--;
        pending_number(node, pending, READ_NUMBERING | ++node->read_last);
        buffer_reset(&node->scratch);
        request_encode(request, &node->scratch);
        if (node->scratch.err != ERR_NONE ||
            !heap_copy(node->heap, buffer_view(&node->scratch), &pending->question)) {
                read_refuse(node, pending, REPLY_LIMIT, "This node is out of memory.");
                return;
        }
        read_try(node, pending);
}

void read_begin(struct node *node, struct asker asker, const struct request *request,
                enum world_group group)
{
        read_open(node, asker, request, group, false);
}

void read_came(struct node *node, node_id from, const struct envelope *envelope)
{
        struct request request;
        struct asker asker = {.from = from, .from_id = envelope->id};
        if (request_decode(envelope->body, &request) != ERR_NONE || !read_is(request.kind)) {
                node->counters.messages_malformed++;
                return;
        }
        read_open(node, asker, &request, envelope->group, true);
}

bool read_answered(struct node *node, struct pending *pending, node_id from, struct bytes data)
{
        struct reply reply;
        if (!pending->read)
                return false;
        if (pending->target != from)
                return true;
        /* A list does not fit into no places: then it is one, and an answer. */
        if (reply_decode(data, &reply, NULL, 0) == ERR_NONE && reply.code == REPLY_NOT_LEADER)
                read_again(node, pending, RETRY_SOON_US);
        else
                request_pass_on(node, pending, data);
        return true;
}

/* ---- the state is current ---- */

/* A lock whose lease is due is asked for in the log, which ends the lease first. */
static bool read_overdue(const struct node *node, const struct node_group *group,
                         const struct request *request)
{
        struct lock_info info;
        struct lock_token token = {request->lock.token};
        return request->kind == REQUEST_LOCK_LOOK &&
               lock_find_holder(council_locks(group->council), request->lock.key, token, &info) &&
               table_age_ms(node, group) >= info.ttl_ms;
}

static void read_give(struct node *node, struct pending *pending)
{
        const struct node_group *group = &node->groups[pending->group];
        struct asker asker = {pending->request, pending->from, pending->from_id};
        struct bytes question = pending->question;
        struct request request;
        enum err err = request_decode(question, &request);
        CHECK(err == ERR_NONE && read_is(request.kind));
        pending->question = bytes_of(NULL, 0);
        if (read_overdue(node, group, &request)) {
                pending->read = false;
                pending_number(node, pending, ++node->sequence);
                request_look_by_log(node, pending, &request);
        } else {
                pending_drop(node, pending); /* before the answer, which may ask anew */
                answers[request.kind](node, asker, group, &request);
        }
        heap_free_bytes(node->heap, question);
}

/* An answer may ask again, and so disturb what the consensus has lent: a copy is looked at. */
void read_ready(struct node *node, const struct node_group *group,
                const struct consensus_ready *ready, size_t count)
{
        if (count == 0)
                return;
        struct consensus_ready *items = heap_alloc_array(node->heap, count, sizeof *items);
        if (items == NULL) {
                node->failed = ERR_NOMEM;
                return;
        }
        memcpy(items, ready, count * sizeof *items);
        for (size_t i = 0; i < count; i++) {
                struct pending *pending = pending_of_sequence(node, items[i].id);
                if (pending == NULL || !pending->read || pending->group != group->group)
                        continue;
                if (items[i].err == ERR_NONE)
                        read_give(node, pending);
                else
                        read_again(node, pending, 0);
        }
        heap_free(node->heap, items);
}

bool read_outcome(struct node *node, const struct council_outcome *outcome)
{
        struct pending *pending = node->pending_first;
        while (pending != NULL && (!pending->read || pending->barrier != outcome->origin.sequence))
                pending = pending->next;
        if (pending != NULL)
                read_give(node, pending);
        return pending != NULL;
}
