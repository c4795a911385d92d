/* watchers.c - those who watch locks, each at a node that it changes now and then. All are told the
 * same story: every change once, in order, without gaps, whichever node tells it. What one was told
 * first is kept, and what others are told of the same stretch must be equal. The story itself must
 * make sense: an exclusive lock is not granted while it is held, and tokens grow. And what a user
 * was granted is in it.
 *
 * Where a node has forgotten what a watcher wants, which it says, it goes on from now; what lies
 * between is not judged. */
#include "lock/lock.h"
#include "sim/sets_priv.h"

#define ANSWER_WAIT_US (8 * SECOND)

static void think(struct sim *sim, struct set_watcher *watcher, uint64_t after_us)
{
        sim_at(sim, after_us, EVENT_SETS, SET_USERS + watcher->index, 0, ++watcher->generation);
}

void watchers_init(struct sim *sim)
{
        for (uint32_t i = 0; i < SET_WATCHERS; i++) {
                struct set_watcher *watcher = &sim->sets->watchers[i];
                watcher->index = i;
                watcher->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
                think(sim, watcher, sim_below(sim, STREAM_SETS, 2 * SECOND));
        }
}

void watcher_step(struct sim *sim, uint32_t index, uint64_t generation)
{
        struct set_watcher *watcher = &sim->sets->watchers[index];
        if (watcher->generation != generation || watcher->request != 0)
                return;
        struct host *host = &sim->hosts[watcher->host];
        if (host->node == NULL) {
                watcher->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
                think(sim, watcher, 200 * MS);
                return;
        }
        struct request request = {.kind = REQUEST_LOCK_WATCH};
        request.lock.key = BYTES("global:set");
        request.lock.flags = REQUEST_WATCH_PREFIX;
        request.lock.wait_ms = sim_below(sim, STREAM_SETS, 1500);
        request.lock.token =
                watcher->begun || watcher->after == 0 ? watcher->after : REQUEST_WATCH_NOW;
        watcher->asked = request.lock.token;
        watcher->request = clients_ask(sim, host, &request);
        sim_at(sim, ANSWER_WAIT_US, EVENT_SETS_TIMEOUT, SET_USERS + index, 0, watcher->request);
}

static void again(struct sim *sim, struct set_watcher *watcher)
{
        watcher->request = 0;
        if (sim_chance(sim, STREAM_SETS, 300)) {
                watcher->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
                sim_cover(sim, COVER_WATCH_MOVED);
        }
        think(sim, watcher, sim_below(sim, STREAM_SETS, 300 * MS));
}

void watcher_timeout(struct sim *sim, uint32_t index, uint64_t request)
{
        if (sim->sets->watchers[index].request == request)
                again(sim, &sim->sets->watchers[index]);
}

void watchers_host_down(struct sim *sim, const struct host *host)
{
        for (uint32_t i = 0; i < SET_WATCHERS; i++)
                if (sim->sets->watchers[i].request != 0 &&
                    sim->sets->watchers[i].host == host->index)
                        again(sim, &sim->sets->watchers[i]);
}

/* ---- the story ---- */

static void story_begin(struct sets *sets, uint64_t after)
{
        sets->low = sets->high = after;
        sets->event_count = sets->grant_count = 0;
        memset(sets->told, 0, sizeof sets->told);
}

/* One more event of the story. */
static void story_grow(struct sim *sim, const struct set_event *event)
{
        struct sets *sets = sim->sets;
        struct set_told *told = &sets->told[event->key];
        sets->events[sets->event_count++] = *event;
        switch (event->kind) {
        case LOCK_GRANTED:
                if (told->held || event->token <= told->token)
                        sim_violation(
                                sim, "watch: %s is granted by token %llu while it is %s by %llu",
                                set_key_name(event->key), (unsigned long long)event->token,
                                told->held ? "held" : "past", (unsigned long long)told->token);
                *told = (struct set_told){.token = event->token, .held = true};
                break;
        case LOCK_RELEASED:
        case LOCK_EXPIRED:
        case LOCK_BROKEN:
                if (told->token != 0 && (!told->held || event->token != told->token))
                        sim_violation(sim, "watch: %s ends by token %llu, it was granted by %llu",
                                      set_key_name(event->key), (unsigned long long)event->token,
                                      (unsigned long long)told->token);
                told->held = false;
                break;
        default: /* who waits, and waits no more */
                break;
        }
}

static bool event_equal(const struct set_event *a, const struct set_event *b)
{
        return a->id == b->id && a->kind == b->kind && a->key == b->key && a->owner == b->owner &&
               a->token == b->token;
}

/* The first event after that id, in the story. */
static size_t story_find(const struct sets *sets, uint64_t after)
{
        size_t at = 0;
        while (at < sets->event_count && sets->events[at].id <= after)
                at++;
        return at;
}

static bool event_read(struct sim *sim, struct cursor *cursor, struct set_event *ret)
{
        struct lock_event event;
        if (!lock_change_decode(cursor, &event)) {
                if (cursor_failed(cursor))
                        sim_violation(sim, "contract: changes that cannot be read");
                return false;
        }
        *ret = (struct set_event){.id = event.id,
                                  .kind = event.kind,
                                  .key = set_key_of(event.key),
                                  .owner = set_owner_of(event.owner),
                                  .token = event.token.value};
        if (ret->key < SET_KEYS)
                return true;
        sim_violation(sim, "watch: told of a lock that is not watched");
        return false;
}

/* An answer tells of all after `after` up to `revision`. */
static void story_told(struct sim *sim, struct bytes changes, uint64_t after, uint64_t revision)
{
        struct sets *sets = sim->sets;
        struct cursor cursor = cursor_of(changes);
        struct set_event event;
        uint64_t last = after;
        if (after > sets->high)
                story_begin(sets, after);
        size_t at = story_find(sets, after);
        while (!sim->over && event_read(sim, &cursor, &event)) {
                if (event.id <= last || event.id > revision)
                        sim_violation(sim, "watch: event %llu is out of order",
                                      (unsigned long long)event.id);
                last = event.id;
                if (event.id <= sets->low)
                        continue; /* from before the story */
                if (event.id <= sets->high &&
                    (at == sets->event_count || !event_equal(&event, &sets->events[at])))
                        sim_violation(sim, "watch: event %llu was told otherwise before",
                                      (unsigned long long)event.id);
                at++;
                if (event.id > sets->high && sets->event_count == SET_EVENTS_MAX)
                        return;
                if (event.id > sets->high)
                        story_grow(sim, &event);
        }
        uint64_t end = revision < sets->high ? revision : sets->high;
        if (at < sets->event_count && sets->events[at].id <= end)
                sim_violation(sim, "watch: event %llu is left out",
                              (unsigned long long)sets->events[at].id);
        if (revision > sets->high)
                sets->high = revision;
}

bool watchers_reply(struct sim *sim, uint64_t request, const struct reply *reply)
{
        if (reply->kind != REQUEST_LOCK_WATCH)
                return false;
        for (uint32_t i = 0; i < SET_WATCHERS; i++) {
                struct set_watcher *watcher = &sim->sets->watchers[i];
                if (watcher->request != request)
                        continue;
                bool now = watcher->asked == REQUEST_WATCH_NOW;
                if (reply->code == REPLY_COMPACTED) {
                        watcher->begun = false;
                        watcher->after = UINT64_MAX;
                } else if (reply->code == REPLY_OK) {
                        if (!now && reply->watch.revision < watcher->asked)
                                sim_violation(sim, "watch: revision %llu after %llu",
                                              (unsigned long long)reply->watch.revision,
                                              (unsigned long long)watcher->asked);
                        if (!now)
                                story_told(sim, reply->watch.changes, watcher->asked,
                                           reply->watch.revision);
                        watcher->after = reply->watch.revision;
                        watcher->begun = true;
                }
                again(sim, watcher);
        }
        return true;
}

/* ---- what users were told ---- */

void watchers_granted(struct sim *sim, uint32_t key, uint64_t owner, uint64_t token)
{
        struct sets *sets = sim->sets;
        if (sets->grant_count == SET_GRANTS_MAX)
                return;
        sets->grants[sets->grant_count++] = (struct set_event){
                .kind = LOCK_GRANTED, .key = key, .owner = owner, .token = token};
}

static bool story_has(const struct sets *sets, const struct set_event *grant)
{
        bool later = false;
        for (size_t i = 0; i < sets->event_count; i++) {
                const struct set_event *event = &sets->events[i];
                if (event->kind != LOCK_GRANTED || event->key != grant->key)
                        continue;
                if (event->token == grant->token && event->owner == grant->owner)
                        return true;
                later = later || event->token > grant->token;
        }
        return !later; /* it may still be told */
}

/* At the end. A grant from before the story's begin is not in it. */
void watchers_check(struct sim *sim)
{
        const struct sets *sets = sim->sets;
        uint64_t first[SET_KEYS] = {0};
        for (size_t i = sets->event_count; i-- > 0;)
                if (sets->events[i].kind == LOCK_GRANTED)
                        first[sets->events[i].key] = sets->events[i].token;
        for (size_t i = 0; i < sets->grant_count && !sim->over; i++) {
                const struct set_event *grant = &sets->grants[i];
                bool before = sets->low > 0 && grant->token < first[grant->key];
                if (!before && !story_has(sets, grant))
                        sim_violation(sim,
                                      "watch: %s was granted to owner %llu by token %llu, and who "
                                      "watches was not told",
                                      set_key_name(grant->key), (unsigned long long)grant->owner,
                                      (unsigned long long)grant->token);
        }
}
