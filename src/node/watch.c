/* watch.c - who follows changes, of values or of locks.
 *
 *   arrive -> there are some: answered at once, from this node's copy
 *         |-> none, but it may wait: told when there are some, or at its end that there are none
 *         `-> of another region: forwarded to a node there
 *
 * A watch is one question and one answer: it names the revision up to which it knows, the answer
 * the one to go on with, at this node or another. So nothing is kept for those who are slow: who
 * asks for what is forgotten meanwhile is refused (COMPACTED). Changes come in order and without
 * gaps, but a node that is cut off tells them late. */
#include "base/check.h"
#include "node/node_priv.h"

/* Fills the answer. False: there is nothing to tell, and it is not `due` anyway. */
typedef bool watch_look(struct node *node, const struct node_group *group,
                        const struct request *request, bool due, struct reply *ret);

static bool values_look(struct node *node, const struct node_group *group,
                        const struct request *request, bool due, struct reply *ret)
{
        const struct kv_result *result =
                council_kv_changes(group->council, request->kv.key, request->kv.after);
        /* What is ahead of this node's copy is ahead of what it has heard so far, no more. */
        bool nothing = result != NULL && ((result->kind == KV_DONE && result->item_count == 0) ||
                                          result->kind == KV_FUTURE);
        if (nothing && !due)
                return false;
        values_reply(node, request->kind, result, ret);
        return true;
}

static bool locks_look(struct node *node, const struct node_group *group,
                       const struct request *request, bool due, struct reply *ret)
{
        struct lock_watch watch = {.key = request->lock.key,
                                   .prefix = (request->lock.flags & REQUEST_WATCH_PREFIX) != 0,
                                   .after = request->lock.token};
        struct lock_changes changes;
        buffer_reset(&node->scratch);
        lock_changes_encode(council_locks(group->council), &watch, &changes, &node->scratch);
        if (changes.count == 0 && !changes.forgotten && !due)
                return false;
        *ret = (struct reply){.kind = request->kind, .code = REPLY_OK};
        ret->watch.changes = buffer_view(&node->scratch);
        ret->watch.revision = changes.last;
        ret->watch.more = changes.more;
        if (changes.forgotten) {
                ret->code = REPLY_COMPACTED;
                ret->text = BYTES("Changes since then are forgotten: watch from now, and read who "
                                  "holds what.");
        } else if (node->scratch.err != ERR_NONE) {
                ret->code = REPLY_LIMIT;
                ret->text = BYTES("This node is out of memory.");
        }
        return true;
}

static bool copies_look(struct node *node, const struct node_group *group,
                        const struct request *request, bool due, struct reply *ret)
{
        (void)group;
        return lock_copy_look(node, request, due, ret);
}

static enum watch_subject subject_of(const struct request *request)
{
        if (request->kind == REQUEST_KV_WATCH)
                return WATCH_VALUES;
        return (request->lock.flags & REQUEST_WATCH_COPY) != 0 ? WATCH_COPIES : WATCH_LOCKS;
}

static uint64_t wait_of(const struct request *request)
{
        return request->kind == REQUEST_KV_WATCH ? request->kv.wait_ms : request->lock.wait_ms;
}

static bool look(struct node *node, const struct node_group *group, const struct request *request,
                 bool due, struct reply *ret)
{
        static watch_look *const looks[WATCH_COUNT] = {
                [WATCH_VALUES] = values_look,
                [WATCH_LOCKS] = locks_look,
                [WATCH_COPIES] = copies_look,
        };
        return looks[subject_of(request)](node, group, request, due, ret);
}

/* Answers where there is something to tell, or where it is `due` anyway. */
static void look_again(struct node *node, struct pending *pending, bool due)
{
        struct request request;
        struct reply reply;
        if (request_decode(pending->command, &request) != ERR_NONE)
                pending_refuse(node, pending, REPLY_INTERNAL, "The request was lost.");
        else if (look(node, &node->groups[pending->group], &request, due, &reply))
                pending_answer(node, pending, &reply);
}

void watch_end(struct node *node, struct pending *pending)
{
        look_again(node, pending, true);
}

void watch_tell(struct node *node, const struct node_group *group, enum watch_subject subject)
{
        size_t left = group->watch_counts[subject];
        struct pending *next;
        for (struct pending *pending = node->pending_first; pending != NULL && left > 0;
             pending = next) {
                next = pending->next;
                if (pending->watch != subject || pending->group != group->group)
                        continue;
                left--;
                look_again(node, pending, false);
        }
}

void watch_locks_changed(struct node *node, struct node_group *group)
{
        uint64_t last = lock_event_last(council_locks(group->council));
        if (group->locks_seen == last)
                return;
        group->locks_seen = last;
        watch_tell(node, group, WATCH_LOCKS);
}

static void watch_wait(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data, struct node_group *group)
{
        enum watch_subject subject = subject_of(request);
        uint64_t wait_ms = wait_of(request);
        if (wait_ms > LOCK_WAIT_MS_MAX)
                wait_ms = LOCK_WAIT_MS_MAX;
        if (subject != WATCH_VALUES && group->watch_counts[subject] >= NODE_WATCHES_MAX) {
                request_refuse(node, asker, request->kind, REPLY_LIMIT,
                               "Too many clients watch locks here: ask another node.");
                return;
        }
        struct pending *pending = pending_for(node, asker, request->kind, group->group, wait_ms);
        if (pending == NULL)
                return;
        pending->watch = subject;
        group->watch_counts[subject]++;
        pending->retry_us = UINT64_MAX;
        pending->deadline_us = node->now_us + wait_ms * 1000;
        pending_times(node, pending);
        if (!heap_copy(node->heap, data, &pending->command))
                pending_refuse(node, pending, REPLY_LIMIT, "This node is out of memory.");
}

void watch_came(struct node *node, struct asker asker, const struct request *request,
                struct bytes data, struct node_group *group)
{
        struct reply reply;
        if (look(node, group, request, wait_of(request) == 0, &reply))
                request_answer(node, asker, &reply);
        else
                watch_wait(node, asker, request, data, group);
}

void watch_locks_came(struct node *node, struct asker asker, const struct request *request,
                      struct bytes data)
{
        struct bytes region;
        struct request from = *request;
        enum council_place place = request_place(node, true, request->lock.key, &region);
        if (place == COUNCIL_PLACE_INVALID) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, council_place_help());
                return;
        }
        if ((request->lock.flags & REQUEST_WATCH_COPY) != 0) {
                lock_copy_came(node, asker, request);
                return;
        }
        if (place == COUNCIL_PLACE_ELSEWHERE) {
                request_forward_region(node, asker, request, data, region, request->lock.wait_ms);
                return;
        }
        struct node_group *group =
                &node->groups[place == COUNCIL_PLACE_GLOBAL ? WORLD_GROUP_GLOBAL
                                                            : WORLD_GROUP_REGION];
        if (from.lock.token == REQUEST_WATCH_NOW || (node->config.bugs & NODE_BUG_WATCH_NOW) != 0) {
                from.lock.token = lock_event_last(council_locks(group->council));
                buffer_reset(&node->scratch2);
                request_encode(&from, &node->scratch2);
                if (node->scratch2.err != ERR_NONE) {
                        request_refuse(node, asker, request->kind, REPLY_LIMIT,
                                       "This node is out of memory.");
                        return;
                }
                data = buffer_view(&node->scratch2);
        }
        watch_came(node, asker, &from, data, group);
}
