/* warden.c - the two sides of the warden: the loop, which takes effects and gives events, and the
 * thread, which does one thing after the other. Between them lie one command (a newer one takes the
 * place of an older; the node sends a second one only to fence), the gate, and a ring of results.
 * A full ring drops what the node learns again at the next look, never the end of an action. */
#include "warden/warden_priv.h"

#include <stdarg.h>
#include <time.h>

#include "base/check.h"

#define IDLE_MS 20

/* ---- the thread's side ---- */

void warden_out(struct warden *warden, const struct out *out)
{
        pthread_mutex_lock(&warden->lock);
        if (warden->out_count == OUTS_MAX) {
                /* The oldest that is no end of an action goes. */
                unsigned at = 0;
                while (at < OUTS_MAX - 1 &&
                       warden->outs[(warden->out_first + at) % OUTS_MAX].kind == OUT_DONE)
                        at++;
                for (; at > 0; at--)
                        warden->outs[(warden->out_first + at) % OUTS_MAX] =
                                warden->outs[(warden->out_first + at - 1) % OUTS_MAX];
                warden->out_first = (warden->out_first + 1) % OUTS_MAX;
                warden->out_count--;
        }
        warden->outs[(warden->out_first + warden->out_count++) % OUTS_MAX] = *out;
        pthread_mutex_unlock(&warden->lock);
        uv_async_send(&warden->async);
}

void warden_note(struct warden *warden, const char *name, const char *format, ...)
{
        struct out out = {.kind = OUT_NOTE, .name = name};
        va_list args;
        va_start(args, format);
        (void)vsnprintf(out.text, sizeof out.text, format, args);
        va_end(args);
        warden_out(warden, &out);
}

static void look_if_due(struct warden *warden)
{
        uint64_t now_us = gate_now_us();
        if (warden->looking || now_us < warden->look_next_us)
                return;
        warden->looking = true;
        look_tell(warden);
        warden->looking = false;
        now_us = gate_now_us();
        bool watch = now_us < atomic_load(&warden->watch_until_us);
        warden->look_next_us = now_us + (watch ? WATCH_EVERY_US : LOOK_EVERY_US);
}

bool warden_pause(struct warden *warden, unsigned ms)
{
        struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
        if (ms > 0)
                nanosleep(&time, NULL);
        if (!atomic_load(&warden->cancel))
                look_if_due(warden);
        return !atomic_load(&warden->cancel);
}

static void gate_set(struct warden *warden)
{
        struct gate *gate = warden->gate;
        uint64_t boot = atomic_load(&gate->boot);
        bool ours = warden->boot != 0 && warden->boot == boot;
        if (!ours || atomic_load(&gate->opened) != boot) {
                atomic_store(&gate->until_us, 0);
                atomic_store(&gate->held, 0);
                atomic_store(&gate->opened, ours ? boot : 0);
        }
        atomic_store(&gate->epoch, warden->gate_epoch);
        atomic_store(&gate->limited, ours && warden->gate_limited ? 1 : 0);
        atomic_store(&gate->until_us, ours ? warden->gate_until_us : 0);
}

void warden_gate_allow(struct warden *warden)
{
        pthread_mutex_lock(&warden->lock);
        if (!atomic_load(&warden->cancel)) {
                warden->boot = atomic_load(&warden->gate->boot);
                gate_set(warden);
                atomic_store(&warden->gate->held, 0);
        }
        pthread_mutex_unlock(&warden->lock);
}

/* Takes what the loop has left. */
static bool command_take(struct warden *warden, struct command *ret)
{
        pthread_mutex_lock(&warden->lock);
        if (!warden->command_waits && !warden->stop) {
                struct timespec until;
                clock_gettime(CLOCK_MONOTONIC, &until);
                bool watch = gate_now_us() < atomic_load(&warden->watch_until_us);
                until.tv_nsec += (watch ? WATCH_EVERY_US / 1000 : IDLE_MS) * 1000000L;
                until.tv_sec += until.tv_nsec / 1000000000;
                until.tv_nsec %= 1000000000;
                (void)pthread_cond_timedwait(&warden->wake, &warden->lock, &until);
        }
        if (warden->peers_taken != warden->peers_version) {
                warden->peers = warden->peers_told;
                warden->peers_taken = warden->peers_version;
                warden->peers_changed = true;
        }
        bool waits = warden->command_waits && !warden->stop;
        if (waits) {
                *ret = warden->command;
                warden->command_waits = false;
                atomic_store(&warden->cancel, false);
        }
        pthread_mutex_unlock(&warden->lock);
        return waits;
}

static void command_run(struct warden *warden, const struct command *command)
{
        struct out out = {.kind = OUT_DONE, .number = command->number};
        struct fail fail = {""};
        if (!act(warden, command, &fail)) {
                check_advise(warden, &fail);
                (void)snprintf(out.text, sizeof out.text, "%s",
                               fail.text[0] != '\0' ? fail.text : "it failed");
        }
        warden->frozen = false;
        warden_out(warden, &out);
        warden->look_next_us = 0;
}

static void *run(void *argument)
{
        struct warden *warden = argument;
        struct command command;
        child_orphans_end(warden);
        for (;;) {
                bool waits = command_take(warden, &command);
                pthread_mutex_lock(&warden->lock);
                bool stop = warden->stop;
                pthread_mutex_unlock(&warden->lock);
                if (stop)
                        break;
                if (waits)
                        command_run(warden, &command);
                look_if_due(warden);
                act_idle(warden);
        }
        sql_close(warden);
        return NULL;
}

/* ---- the loop's side ---- */

static void event_done(struct warden *warden, const struct out *out)
{
        struct world_event event = {.kind = WORLD_POSTGRES_DONE};
        event.postgres_done.number = out->number;
        event.postgres_done.fail = bytes_of_str(out->text);
        warden->config.event(warden->config.user_data, &event);
}

static void out_give(struct warden *warden, const struct out *out)
{
        struct world_event event = {.kind = WORLD_POSTGRES_SEEN, .postgres = out->seen};
        switch (out->kind) {
        case OUT_SEEN:
                warden->config.event(warden->config.user_data, &event);
                break;
        case OUT_DONE:
                event_done(warden, out);
                break;
        case OUT_NOTE:
                if (warden->config.note != NULL)
                        warden->config.note(warden->config.user_data, out->name, out->text);
                break;
        case OUT_PROBED:
                event = (struct world_event){.kind = WORLD_PROBED};
                event.probed.part = WORLD_PART_POSTGRES;
                event.probed.healthy = out->healthy;
                event.probed.why = bytes_of_str(out->text);
                warden->config.event(warden->config.user_data, &event);
                break;
        }
}

static void on_async(uv_async_t *async)
{
        struct warden *warden = async->data;
        for (unsigned i = 0; i < OUTS_MAX && !warden->closing; i++) {
                struct out out;
                pthread_mutex_lock(&warden->lock);
                bool any = warden->out_count > 0;
                if (any) {
                        out = warden->outs[warden->out_first];
                        warden->out_first = (warden->out_first + 1) % OUTS_MAX;
                        warden->out_count--;
                }
                pthread_mutex_unlock(&warden->lock);
                if (!any)
                        return;
                out_give(warden, &out);
        }
        if (!warden->closing)
                uv_async_send(async);
}

enum err warden_new(const struct warden_config *config, struct warden **ret_warden, char *why,
                    size_t size)
{
        struct fail fail = {"no memory"};
        CHECK(config->loop != NULL);
        CHECK(config->event != NULL);
        struct warden *warden = heap_alloc(config->heap, sizeof *warden);
        enum err err = warden == NULL ? ERR_NOMEM : ERR_INVALID;
        if (warden != NULL) {
                warden->config = *config;
                if (files_open(warden, &fail)) {
                        *ret_warden = warden;
                        return ERR_NONE;
                }
        }
        (void)snprintf(why, size, "%s", fail.text);
        heap_free(config->heap, warden);
        return err;
}

const char *warden_doors(const struct warden *warden, uid_t *ret_uid)
{
        *ret_uid = warden->uid;
        return warden->paths.doors;
}

static bool sync_open(struct warden *warden)
{
        pthread_condattr_t attributes;
        if (pthread_mutex_init(&warden->lock, NULL) != 0)
                return false;
        if (pthread_condattr_init(&attributes) == 0) {
                bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                            pthread_cond_init(&warden->wake, &attributes) == 0;
                pthread_condattr_destroy(&attributes);
                if (made)
                        return true;
        }
        pthread_mutex_destroy(&warden->lock);
        return false;
}

enum err warden_start(struct warden *warden)
{
        CHECK(!warden->started);
        if (!sync_open(warden))
                return ERR_NOMEM;
        /* An older daemon had let the server that runs now take writes: its lease may go on. */
        uint64_t boot = atomic_load(&warden->gate->boot);
        if (boot != 0 && atomic_load(&warden->gate->opened) == boot) {
                warden->boot = boot;
                warden->gate_epoch = atomic_load(&warden->gate->epoch);
                warden->gate_until_us = atomic_load(&warden->gate->until_us);
                warden->gate_limited = atomic_load(&warden->gate->limited) != 0;
        }
        if (uv_async_init(warden->config.loop, &warden->async, on_async) != 0) {
                pthread_cond_destroy(&warden->wake);
                pthread_mutex_destroy(&warden->lock);
                return ERR_NOMEM;
        }
        warden->async.data = warden;
        warden->started = true;
        warden->joined = pthread_create(&warden->thread, NULL, run, warden) != 0;
        return warden->joined ? ERR_NOMEM : ERR_NONE;
}

static bool named(const uint32_t *ids, uint32_t count, uint32_t id)
{
        for (uint32_t i = 0; i < count; i++)
                if (ids[i] == id)
                        return true;
        return false;
}

void warden_topology(struct warden *warden, const struct topology *topology)
{
        const struct topology_postgres *rules = &topology->postgres;
        struct peers peers = {.sync = rules->sync};
        for (uint32_t i = 0; i < rules->node_count; i++) {
                const struct topology_node *node = topology_node_by_id(topology, rules->nodes[i]);
                if (node == NULL)
                        continue;
                unsigned at = peers.count++;
                const struct topology_region *region = topology_region_of_node(topology, node->id);
                peers.ids[at] = node->id;
                peers.regions[at] = region != NULL ? region->id : 0;
                peers.never[at] = named(rules->never, rules->never_count, node->id);
                memcpy(peers.names[at], node->name, sizeof peers.names[at]);
                if (node->link.address.family != 0)
                        (void)topology_address_text(&node->link.address, peers.hosts[at]);
        }
        if (!warden->started)
                return;
        pthread_mutex_lock(&warden->lock);
        if (warden->peers_version == 0 || memcmp(&peers, &warden->peers_told, sizeof peers) != 0) {
                warden->peers_told = peers;
                warden->peers_version++;
        }
        pthread_mutex_unlock(&warden->lock);
}

static bool copies(enum primary_action action)
{
        return action == PRIMARY_DO_CLONE || action == PRIMARY_DO_START ||
               action == PRIMARY_DO_FOLLOW || action == PRIMARY_DO_REWIND ||
               action == PRIMARY_DO_REBUILD;
}

static void command_give(struct warden *warden, const struct world_effect *effect)
{
        enum primary_action action = (enum primary_action)effect->postgres.action;
        if (copies(action) && warden->config.upstream != NULL)
                warden->config.upstream(warden->config.user_data, effect->postgres.upstream);
        pthread_mutex_lock(&warden->lock);
        if (action == PRIMARY_DO_FENCE) {
                warden->boot = 0;
                warden->gate_until_us = 0;
                warden->gate_limited = false;
                gate_set(warden);
        }
        atomic_store(&warden->cancel, true);
        warden->command = (struct command){.number = effect->postgres.number,
                                           .action = action,
                                           .upstream = effect->postgres.upstream,
                                           .epoch = effect->postgres.epoch};
        warden->command_waits = true;
        pthread_cond_signal(&warden->wake);
        pthread_mutex_unlock(&warden->lock);
}

void warden_effect(struct warden *warden, const struct world_effect *effect)
{
        if (!warden->started || warden->closing)
                return;
        if (effect->kind == WORLD_POSTGRES_DO) {
                command_give(warden, effect);
                return;
        }
        if (effect->kind == WORLD_POSTGRES_WATCH) {
                atomic_store(&warden->watch_until_us, effect->watch.until_us);
                return;
        }
        CHECK(effect->kind == WORLD_POSTGRES_GATE);
        pthread_mutex_lock(&warden->lock);
        warden->gate_epoch = effect->gate.epoch;
        warden->gate_until_us = effect->gate.until_us;
        warden->gate_limited = effect->gate.limited;
        if (warden->boot != 0)
                gate_set(warden);
        pthread_mutex_unlock(&warden->lock);
}

static void on_closed(uv_handle_t *handle)
{
        struct warden *warden = handle->data;
        if (warden->closed != NULL)
                warden->closed(warden->closed_user);
}

void warden_close(struct warden *warden, void (*closed)(void *user), void *user)
{
        CHECK(!warden->closing);
        warden->closing = true;
        warden->closed = closed;
        warden->closed_user = user;
        if (!warden->started) {
                closed(user);
                return;
        }
        pthread_mutex_lock(&warden->lock);
        warden->stop = true;
        atomic_store(&warden->cancel, true);
        pthread_cond_signal(&warden->wake);
        pthread_mutex_unlock(&warden->lock);
        /* A child is ended, a query is left: some tens of milliseconds, seconds for a stubborn
         * child. */
        if (!warden->joined)
                (void)pthread_join(warden->thread, NULL);
        warden->joined = true;
        uv_close((uv_handle_t *)&warden->async, on_closed);
}

void warden_free(struct warden *warden)
{
        if (warden == NULL)
                return;
        CHECK(!warden->started || warden->joined);
        if (warden->started) {
                pthread_cond_destroy(&warden->wake);
                pthread_mutex_destroy(&warden->lock);
        }
        files_close(warden);
        heap_free(warden->config.heap, warden);
}
