/* lock_copy.c - what happens to the locks of other regions, kept by each data node for the audit:
 * who held what is known also when all of that region is gone.
 *
 *   ask (a watch of all its locks after the last revision, through the usual forwarding)
 *     |-> changes, more at once: taken over, asked on at once
 *     |-> changes: taken over, asked on after a pause, so that they come in batches
 *     |-> forgotten there: asked what is now; a gap is marked, and it goes on from there
 *     `-> refused, unreachable, no answer: the same again after a pause
 *
 * The region does what it does for any client that watches, one question at a time: a node that
 * cannot keep up misses changes, which it says, and holds nobody up. A region that was made anew
 * is behind what is known here; a node of it that is late is behind for a moment only. So now and
 * then it is asked for its now, and the copy begins anew where that stays behind. */
#include "base/check.h"
#include "node/node_priv.h"

#include <stdio.h>

#define ASK_WAIT_MS    2000
#define PAUSE_US       100000  /* between two questions: 10 a second at most */
#define RETRY_US       1000000 /* after a refusal */
#define LOOK_US        1000000 /* at the topology */
#define CHECK_US       10000000
#define BEHIND_LONG_US 60000000

static const char no_copy_text[] =
        "This node has no copy yet of what happens to that region's locks: it was not heard.";
static const char own_text[] = "A copy is kept of other regions' locks: leave COPY out, this "
                               "node's own region and the global ones are watched as they are.";

static struct node_copy *copy_of(struct node *node, region_id region)
{
        for (size_t i = 0; i < node->copy_count; i++)
                if (node->copies[i].region == region)
                        return &node->copies[i];
        return NULL;
}

const struct node_copy *lock_copy_of(const struct node *node, region_id region)
{
        for (size_t i = 0; i < node->copy_count; i++)
                if (node->copies[i].region == region)
                        return &node->copies[i];
        return NULL;
}

const struct lock_copy *node_lock_copy(const struct node *node, region_id region)
{
        const struct node_copy *copy = lock_copy_of(node, region);
        return copy == NULL ? NULL : copy->copy;
}

/* ---- which regions ---- */

static bool is_followed(const struct node *node, const struct topology_region *region)
{
        return region != NULL && region->role == TOPOLOGY_ROLE_DATA &&
               region->id != node->region_id && node->region->role == TOPOLOGY_ROLE_DATA;
}

static void copies_drop(struct node *node)
{
        for (size_t i = node->copy_count; i-- > 0;) {
                struct node_copy *copy = &node->copies[i];
                if (is_followed(node, topology_region_by_id(node->topology, copy->region)))
                        continue;
                lock_copy_free(copy->copy);
                *copy = node->copies[--node->copy_count];
        }
}

static void copies_sync(struct node *node)
{
        copies_drop(node);
        for (size_t i = 0; i < node->topology->region_count; i++) {
                const struct topology_region *region = &node->topology->regions[i];
                if (!is_followed(node, region) || copy_of(node, region->id) != NULL)
                        continue;
                CHECK(node->copy_count < TOPOLOGY_REGIONS_MAX);
                struct lock_copy *copy = lock_copy_new(node->heap);
                if (copy == NULL)
                        return;
                node->copies[node->copy_count++] =
                        (struct node_copy){.region = region->id, .copy = copy};
        }
}

/* ---- following ---- */

static void copy_ask(struct node *node, struct node_copy *copy)
{
        const struct topology_region *region = topology_region_by_id(node->topology, copy->region);
        char prefix[TOPOLOGY_NAME_SIZE + 2];
        (void)snprintf(prefix, sizeof prefix, "%s:", region->name);
        bool idle_check = copy->heard && node->now_us >= copy->check_us;
        struct request request = {.kind = REQUEST_LOCK_WATCH};
        request.lock.key = bytes_of_str(prefix);
        request.lock.flags = REQUEST_WATCH_PREFIX;
        copy->asks_now = copy->forgotten || idle_check;
        request.lock.token = copy->asks_now ? REQUEST_WATCH_NOW : lock_copy_state(copy->copy).last;
        request.lock.wait_ms = copy->asks_now ? 0 : ASK_WAIT_MS;
        struct buffer data;
        buffer_init(&data, node->heap);
        request_encode(&request, &data);
        copy->next_us = node->now_us + RETRY_US;
        if (data.err == ERR_NONE) {
                struct asker asker = {.from = node->config.self};
                asker.from_id = copy->ask = LOCK_COPY_ASK | ++node->copy_ask_last;
                copy->asks = true;
                watch_locks_came(node, asker, &request, buffer_view(&data));
        }
        buffer_fini(&data);
}

void lock_copy_tick(struct node *node)
{
        if (!node->config.lock_copies || node->now_us < node->copies_next_us)
                return;
        node->copies_next_us = node->now_us + LOOK_US;
        copies_sync(node);
        for (size_t i = 0; i < node->copy_count; i++) {
                struct node_copy *copy = &node->copies[i];
                bool room = node->pending_count < NODE_PENDING_MAX - NODE_PENDING_OWN;
                if (!copy->asks && node->now_us >= copy->next_us && room)
                        copy_ask(node, copy);
        }
        for (size_t i = 0; i < node->copy_count; i++) {
                uint64_t next_us = node->copies[i].next_us;
                if (!node->copies[i].asks && next_us < node->copies_next_us)
                        node->copies_next_us = next_us;
        }
}

uint64_t lock_copy_wake_us(const struct node *node)
{
        return node->config.lock_copies ? node->copies_next_us : UINT64_MAX;
}

void lock_copy_fini(struct node *node)
{
        while (node->copy_count > 0)
                lock_copy_free(node->copies[--node->copy_count].copy);
}

/* What the region says of now. */
static void now_came(struct node *node, struct node_copy *copy, uint64_t revision)
{
        uint64_t last = lock_copy_state(copy->copy).last;
        copy->check_us = node->now_us + CHECK_US;
        if (revision >= last) {
                copy->behind_us = 0;
                unsigned silent = copy->forgotten ? NODE_BUG_COPY_NO_GAP : NODE_BUG_COPY_AHEAD;
                if ((node->config.bugs & silent) != 0)
                        CHECK(lock_copy_take(copy->copy, bytes_of(NULL, 0), revision));
                else if (copy->forgotten && revision > last)
                        lock_copy_skip(copy->copy, revision);
                copy->forgotten = false;
        } else if (copy->behind_us == 0) {
                copy->behind_us = node->now_us;
        } else if (node->now_us >= copy->behind_us + BEHIND_LONG_US) {
                lock_copy_restart(copy->copy, revision);
                copy->behind_us = 0;
                copy->forgotten = false;
        }
}

/* True: the next question is due at once. */
static bool take(struct node *node, struct node_copy *copy, const struct reply *reply)
{
        if (reply->code == REPLY_COMPACTED) {
                copy->forgotten = true;
                return true;
        }
        copy->heard = true;
        copy->heard_us = node->now_us;
        if (copy->asks_now) {
                now_came(node, copy, reply->watch.revision);
                return false;
        }
        if (lock_copy_take(copy->copy, reply->watch.changes, reply->watch.revision))
                return reply->watch.more;
        node->counters.messages_malformed++;
        return false;
}

void lock_copy_answered(struct node *node, uint64_t id, const struct reply *reply)
{
        struct node_copy *copy = NULL;
        for (size_t i = 0; i < node->copy_count && copy == NULL; i++)
                if (node->copies[i].asks &&
                    (node->copies[i].ask == id || (node->config.bugs & NODE_BUG_COPY_MIXED) != 0))
                        copy = &node->copies[i];
        if (copy == NULL)
                return;
        bool refused = reply == NULL || reply->code != REPLY_OK;
        copy->asks = refused && (node->config.bugs & NODE_BUG_COPY_STOPS) != 0;
        copy->next_us = node->now_us + RETRY_US;
        if (reply != NULL && reply->kind == REQUEST_LOCK_WATCH &&
            (reply->code == REPLY_OK || reply->code == REPLY_COMPACTED)) {
                uint64_t last = lock_copy_state(copy->copy).last;
                copy->next_us = node->now_us + (take(node, copy, reply) ? 0 : PAUSE_US);
                if (lock_copy_state(copy->copy).last != last)
                        watch_tell(node, &node->groups[WORLD_GROUP_REGION], WATCH_COPIES);
        }
        if (copy->next_us < node->copies_next_us)
                node->copies_next_us = copy->next_us;
}

/* ---- reading ---- */

static const struct node_copy *copy_asked(struct node *node, const struct request *request)
{
        struct bytes name;
        if (request_place(node, true, request->lock.key, &name) != COUNCIL_PLACE_ELSEWHERE)
                return NULL;
        const struct topology_region *region = topology_region_by_name(node->topology, name);
        return region == NULL ? NULL : lock_copy_of(node, region->id);
}

bool lock_copy_look(struct node *node, const struct request *request, bool due, struct reply *ret)
{
        const struct node_copy *copy = copy_asked(node, request);
        *ret = (struct reply){.kind = request->kind, .code = REPLY_OK};
        if (copy == NULL || !copy->heard) {
                ret->code = REPLY_UNREACHABLE;
                ret->text = bytes_of_str(no_copy_text);
                return true;
        }
        struct lock_watch watch = {.key = request->lock.key,
                                   .prefix = (request->lock.flags & REQUEST_WATCH_PREFIX) != 0,
                                   .after = request->lock.token};
        struct lock_changes changes;
        buffer_reset(&node->scratch);
        lock_copy_encode(copy->copy, &watch, &changes, &node->scratch);
        if (changes.count == 0 && !due)
                return false;
        if (node->scratch.err != ERR_NONE) {
                ret->code = REPLY_LIMIT;
                ret->text = BYTES("This node is out of memory.");
                return true;
        }
        ret->watch.changes = buffer_view(&node->scratch);
        ret->watch.revision = changes.last;
        ret->watch.more = changes.more;
        ret->watch.copy = true;
        ret->watch.known = lock_copy_state(copy->copy).last;
        ret->watch.age_ms = (node->now_us - copy->heard_us) / 1000;
        return true;
}

void lock_copy_came(struct node *node, struct asker asker, const struct request *request)
{
        struct bytes name;
        if (request_place(node, true, request->lock.key, &name) != COUNCIL_PLACE_ELSEWHERE) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, own_text);
                return;
        }
        if (topology_region_by_name(node->topology, name) == NULL) {
                request_refuse(node, asker, request->kind, REPLY_UNKNOWN_REGION,
                               "There is no such region.");
                return;
        }
        struct request from = *request;
        const struct node_copy *copy = copy_asked(node, request);
        if (from.lock.token == REQUEST_WATCH_NOW && copy != NULL)
                from.lock.token = lock_copy_state(copy->copy).last;
        struct buffer data;
        buffer_init(&data, node->heap);
        request_encode(&from, &data);
        if (data.err != ERR_NONE)
                request_refuse(node, asker, request->kind, REPLY_LIMIT,
                               "This node is out of memory.");
        else
                watch_came(node, asker, &from, buffer_view(&data),
                           &node->groups[WORLD_GROUP_REGION]);
        buffer_fini(&data);
}

void lock_copy_status(const struct node *node, uint64_t now_us, struct node_status_region *ret)
{
        const struct node_copy *copy = lock_copy_of(node, ret->id);
        if (copy == NULL)
                return;
        struct lock_copy_state state = lock_copy_state(copy->copy);
        ret->copy_known = true;
        ret->copy_heard = copy->heard;
        ret->copy_revision = state.last;
        ret->copy_age_us = copy->heard && now_us > copy->heard_us ? now_us - copy->heard_us : 0;
        ret->copy_changes = state.count;
        ret->copy_gaps = state.gaps;
}
