/* request_locks.c - what clients ask about locks and sessions, as commands of the group that
 * decides, and what the table said, as their answers. What is only looked at is read (reads.c). */
#include "base/check.h"
#include "base/cursor.h"
#include "node/node_priv.h"

static void lock_command_of(const struct request *request, struct lock_command *ret)
{
        static const enum lock_op ops[REQUEST_KIND_COUNT] = {
                [REQUEST_LOCK_ACQUIRE] = LOCK_ACQUIRE,
                [REQUEST_LOCK_RENEW] = LOCK_RENEW,
                [REQUEST_LOCK_RELEASE] = LOCK_RELEASE,
                [REQUEST_LOCK_BREAK] = LOCK_BREAK,
                [REQUEST_LOCK_LOOK] = LOCK_LOOK,
                [REQUEST_LOCK_SEIZE] = LOCK_SEIZE,
                [REQUEST_SESSION_OPEN] = LOCK_SESSION_OPEN,
                [REQUEST_SESSION_KEEP] = LOCK_SESSION_KEEP,
                [REQUEST_SESSION_CLOSE] = LOCK_SESSION_CLOSE,
        };
        *ret = (struct lock_command){.op = ops[request->kind],
                                     .key = request->lock.key,
                                     .owner = request->lock.owner,
                                     .token = {request->lock.token},
                                     .ttl_ms = request->lock.ttl_ms,
                                     .wait_ms = request->lock.wait_ms,
                                     .slots = request->lock.slots,
                                     .flags = request->lock.flags,
                                     .delay_ms = request->lock.delay_ms,
                                     .session = request->lock.session,
                                     .also = request->lock.also};
        if (request->kind == REQUEST_LOCK_ACQUIRE && request->lock.also.len > 0)
                ret->op = LOCK_ACQUIRE_ALL;
}

static bool is_session(enum request_kind kind)
{
        return kind == REQUEST_SESSION_OPEN || kind == REQUEST_SESSION_KEEP ||
               kind == REQUEST_SESSION_CLOSE;
}

/* All locks of one request are one group's, and its nodes must know of such. */
static bool sets_refused(struct node *node, struct asker asker, const struct request *request,
                         const struct node_group *group)
{
        struct cursor cursor = cursor_of(request->lock.also);
        size_t len = 0;
        while (request->lock.key.ptr[len++] != ':')
                continue;
        struct bytes name = bytes_of(request->lock.key.ptr, len);
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor))
                if (!bytes_starts_with(cursor_slice(&cursor), name)) {
                        request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                                       "Locks that are asked for together belong to one group: "
                                       "they begin with the same name and a colon.");
                        return true;
                }
        return level_refuses(node, asker, request->kind, group, COUNCIL_LEVEL_SETS);
}

/* Planted. */
static bool answered_early(const struct node *node, enum request_kind kind)
{
        return ((node->config.bugs & NODE_BUG_EARLY_ANSWER) != 0 && kind == REQUEST_LOCK_RELEASE) ||
               ((node->config.bugs & NODE_BUG_KEEP_EARLY) != 0 && kind == REQUEST_SESSION_KEEP);
}

void request_lock_came(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data)
{
        bool list = request->kind == REQUEST_LOCK_LIST;
        struct bytes key = list ? request->list.key : request->lock.key;
        struct bytes region;
        enum council_place place =
                request_place(node, list || is_session(request->kind), key, &region);
        uint64_t wait_ms = request->kind == REQUEST_LOCK_ACQUIRE ? request->lock.wait_ms : 0;
        if (place == COUNCIL_PLACE_INVALID) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, council_place_help());
                return;
        }
        if (place == COUNCIL_PLACE_ELSEWHERE) {
                request_forward_region(node, asker, request, data, region, wait_ms);
                return;
        }
        enum world_group which =
                place == COUNCIL_PLACE_GLOBAL ? WORLD_GROUP_GLOBAL : WORLD_GROUP_REGION;
        struct node_group *group = &node->groups[which];
        if (!list && request->lock.also.len > 0 && sets_refused(node, asker, request, group))
                return;
        if (request_no_majority(node, asker, request->kind, group))
                return;
        if (read_is(request->kind)) {
                read_begin(node, asker, request, which);
                return;
        }
        struct council_command command = {.kind = COUNCIL_LOCK};
        if (request->kind == REQUEST_LOCK_BREAK || request->kind == REQUEST_LOCK_SEIZE)
                command.actor = request->lock.actor;
        lock_command_of(request, &command.lock);
        const char *fault = lock_command_fault(&command.lock);
        if (fault != NULL) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, fault);
                return;
        }
        struct pending *pending = pending_for(node, asker, request->kind, which, wait_ms);
        if (pending == NULL)
                return;
        if ((command.lock.flags & LOCK_DETECT) != 0 &&
            council_level(group->council) >= COUNCIL_LEVEL_SLOTS)
                command.lock.flags |= LOCK_DETECT_SLOTS;
        if ((node->config.bugs & NODE_BUG_SET_FIRST) != 0 && command.lock.op == LOCK_ACQUIRE_ALL)
                command.lock.op = LOCK_ACQUIRE;
        if (answered_early(node, request->kind)) {
                struct reply reply = {.kind = request->kind, .code = REPLY_OK};
                request_answer(node, asker, &reply);
                pending_forget_request(node, pending);
                pending->from = 0;
        }
        pending_begin(node, pending, &command);
}

void request_look_by_log(struct node *node, struct pending *pending, const struct request *request)
{
        struct council_command command = {.kind = COUNCIL_LOCK};
        lock_command_of(request, &command.lock);
        pending_begin(node, pending, &command);
}

void request_lock_own(struct node *node, uint64_t id, const struct request *request)
{
        struct asker asker = {.from = node->config.self, .from_id = id};
        request_lock_came(node, asker, request, bytes_of(NULL, 0));
}

struct lock_answer {
        enum reply_code code;
        const char *text;
};

static struct lock_answer lock_answer_of(enum lock_result_kind kind)
{
        static const struct lock_answer answers[LOCK_RESULT_COUNT] = {
                [LOCK_GRANTED] = {REPLY_OK, ""},
                [LOCK_RENEWED] = {REPLY_OK, ""},
                [LOCK_RELEASED] = {REPLY_OK, ""},
                [LOCK_BROKEN] = {REPLY_OK, ""},
                [LOCK_HELD] = {REPLY_HELD, "Somebody else holds it."},
                [LOCK_TIMED_OUT] = {REPLY_HELD, "The wait ended before it was free."},
                [LOCK_NOT_OWNER] = {REPLY_NOT_OWNER, "This owner does not hold it by this token."},
                [LOCK_FREE] = {REPLY_NOT_FOUND, "Nobody holds this lock."},
                [LOCK_CANCELLED] = {REPLY_TIMEOUT, "The owner asked again; that answer counts."},
                [LOCK_INVALID] = {REPLY_BAD_REQUEST, "Up to 16 locks are asked for at once, "
                                                     "each by its key of 1 to 512 bytes, and none "
                                                     "twice."},
                [LOCK_LIMIT] = {REPLY_LIMIT, "A limit is reached: 1024 wait for one lock, 65536 "
                                             "for all, 4000000 are held, of one session 4096, or "
                                             "there are 65536 sessions."},
                [LOCK_EXPIRED] = {REPLY_INTERNAL, "An event is no answer."},
                [LOCK_QUEUED] = {REPLY_INTERNAL, "Waiting is no answer."},
                [LOCK_SEEN] = {REPLY_OK, ""},
                [LOCK_DEADLOCK] = {REPLY_DEADLOCK,
                                   "Whoever holds it waits for this owner: release something."},
                [LOCK_NO_SESSION] = {REPLY_NO_SESSION,
                                     "This owner's session has ended, and its locks with it."},
                [LOCK_OPENED] = {REPLY_OK, ""},
                [LOCK_KEPT] = {REPLY_OK, ""},
                [LOCK_CLOSED] = {REPLY_OK, ""},
                [LOCK_GAP] = {REPLY_INTERNAL, "A gap is no answer."},
        };
        CHECK((unsigned)kind < LOCK_RESULT_COUNT && answers[kind].text != NULL);
        return answers[kind];
}

struct reply request_lock_reply(enum request_kind kind, const struct council_outcome *outcome)
{
        struct lock_answer said = lock_answer_of(outcome->lock.kind);
        struct reply reply = {.kind = kind, .code = said.code, .text = bytes_of_str(said.text)};
        reply.lock = (struct reply_lock){.key = outcome->lock.key,
                                         .owner = outcome->lock.owner,
                                         .token = outcome->lock.token.value,
                                         .ttl_ms = outcome->lock.ttl_ms};
        return reply;
}

void request_lock_outcome(struct node *node, struct pending *pending,
                          const struct council_outcome *outcome)
{
        if (outcome->lock.kind == LOCK_QUEUED) {
                pending->queued = true;
                pending->submitted = true;
                pending->retry_us = UINT64_MAX;
                return;
        }
        struct reply reply = request_lock_reply(pending->kind, outcome);
        pending_answer(node, pending, &reply);
}
