/* Runs a node on a loop: events in, one at a time; effects out, in order.
 *
 * Whoever has an event calls io_driver_event. The node steps at once, and its effects are
 * carried out; an effect that brings an event (a message to a peer that breaks the link, a reply
 * that ends a client) only queues it, and the queue is worked off before the call returns. So
 * the node is never entered twice, and effects of one step are never mixed with those of
 * another. After ROUND_MAX queued events the rest waits for the next turn of the loop, so that
 * sockets get their share.
 *
 * Messages and requests wait in the queue until all sockets have been read (uv_check), and the node
 * is told of each whether more follow: what a hundred clients ask at once becomes one entry of the
 * log, one message to each peer and one write.
 *
 * Journals are written at the end of the turn (uv_prepare): one write for
 * all that was asked in it. */
#include "base/check.h"
#include "base/log.h"
#include "io/io_priv.h"

#include <errno.h>
#include <time.h>

#define ROUND_MAX   1024
#define WAKE_MS_MAX 3600000u

struct queued {
        struct queued *next;
        struct world_event event;
        uint8_t data[];
};

struct io_driver {
        uv_loop_t *loop;
        struct heap *heap;
        struct io_node node;
        struct io_ports ports;
        struct journal journals[WORLD_GROUP_COUNT];
        struct queued *first;
        struct queued *last;
        bool stepping;
        bool closing;
        bool clock_read; /* in this turn */
        uint64_t now_us;
        uint64_t wall_us;
        uint64_t wake_us; /* UINT64_MAX: none */
        uv_timer_t wake;
        uv_timer_t resume;
        uv_prepare_t prepare;
        uv_check_t check;
        uv_idle_t idle; /* runs while something waits: the loop must not sleep then */
        unsigned handles;
        void (*closed)(void *user);
        void *closed_user;
};

/* ---- clocks ---- */

static uint64_t clock_us(clockid_t clock)
{
        struct timespec at;
        int result = clock_gettime(clock, &at);
        CHECK(result == 0);
        return (uint64_t)at.tv_sec * 1000000 + (uint64_t)at.tv_nsec / 1000;
}

/* CLOCK_BOOTTIME: a lease runs out while the machine sleeps. */
static void clock_read(struct io_driver *driver)
{
        if (driver->clock_read)
                return;
        driver->now_us = clock_us(CLOCK_BOOTTIME);
        driver->wall_us = clock_us(CLOCK_REALTIME);
        driver->clock_read = true;
}

uint64_t io_driver_now_us(struct io_driver *driver)
{
        clock_read(driver);
        return driver->now_us;
}

uint64_t io_driver_wall_us(struct io_driver *driver)
{
        clock_read(driver);
        return driver->wall_us;
}

/* ---- effects ---- */

static void on_wake(uv_timer_t *timer);

static void wake_arm(struct io_driver *driver)
{
        if (driver->wake_us == UINT64_MAX || driver->closing) {
                uv_timer_stop(&driver->wake);
                return;
        }
        uint64_t wait_us = driver->wake_us > driver->now_us ? driver->wake_us - driver->now_us : 0;
        uint64_t wait_ms = wait_us / 1000 + (wait_us % 1000 != 0);
        uv_timer_start(&driver->wake, on_wake, wait_ms < WAKE_MS_MAX ? wait_ms : WAKE_MS_MAX, 0);
}

static void effect_run(struct io_driver *driver, const struct world_effect *effect)
{
        const struct io_ports *ports = &driver->ports;
        switch (effect->kind) {
        case WORLD_WAKE:
                driver->wake_us = effect->wake.at_us;
                wake_arm(driver);
                return;
        case WORLD_SEND:
                ports->send(ports->user, effect->send.peer, effect->send.class, effect->send.data);
                return;
        case WORLD_JOURNAL_APPEND:
                journal_append(&driver->journals[effect->journal.group], effect->journal.offset,
                               effect->journal.data);
                return;
        case WORLD_JOURNAL_REPLACE:
                journal_replace(&driver->journals[effect->journal.group],
                                effect->journal.generation, effect->journal.data);
                return;
        case WORLD_JOURNAL_ASIDE:
                journal_aside(&driver->journals[effect->journal.group], effect->journal.generation,
                              effect->journal.offset, effect->journal.data);
                return;
        case WORLD_JOURNAL_SWAP:
                journal_swap(&driver->journals[effect->journal.group], effect->journal.generation,
                             effect->journal.data);
                return;
        case WORLD_REPLY:
                ports->reply(ports->user, effect->reply.request, effect->reply.data);
                return;
        case WORLD_PUBLISH:
                ports->publish(ports->user);
                return;
        case WORLD_NOTE:
                ports->note(ports->user, driver->wall_us, effect->note.name, effect->note.text);
                return;
        case WORLD_REDIS_TAIL:
        case WORLD_REDIS_MERGE:
        case WORLD_REDIS_SCAN:
        case WORLD_REDIS_ACKED:
        case WORLD_REDIS_CLOSE:
        case WORLD_REDIS_AGAIN:
                ports->redis(ports->user, effect);
                return;
        case WORLD_POSTGRES_DO:
        case WORLD_POSTGRES_GATE:
        case WORLD_POSTGRES_WATCH:
                if (ports->postgres != NULL)
                        ports->postgres(ports->user, effect);
                return;
        }
        UNREACHABLE("an effect that world.h does not name");
}

/* ---- events ---- */

static void step_one(struct io_driver *driver, struct world_event *event)
{
        struct world_effects effects = {NULL, 0};
        event->now_us = driver->now_us;
        event->wall_us = driver->wall_us;
        driver->node.step(driver->node.node, event, &effects);
        for (size_t i = 0; i < effects.count; i++)
                effect_run(driver, &effects.items[i]);
}

/* Many of these come at once, and nothing is lost when they wait for the end of a turn. */
static bool may_wait(enum world_event_kind kind)
{
        return kind == WORLD_MESSAGE || kind == WORLD_REQUEST || kind == WORLD_REQUEST_GONE;
}

/* Works the queue off, up to a bound. */
static void queue_run(struct io_driver *driver)
{
        for (unsigned i = 0; i < ROUND_MAX && driver->first != NULL; i++) {
                struct queued *queued = driver->first;
                driver->first = queued->next;
                if (driver->first == NULL)
                        driver->last = NULL;
                queued->event.more =
                        driver->first != NULL && i + 1 < ROUND_MAX && may_wait(queued->event.kind);
                step_one(driver, &queued->event);
                heap_free(driver->heap, queued);
        }
}

static void on_resume(uv_timer_t *timer);

/* One entry from the loop: the event (NULL: only what is queued), then all that follows from it. */
static void turn(struct io_driver *driver, const struct world_event *event)
{
        CHECK(!driver->stepping);
        driver->stepping = true;
        clock_read(driver);
        if (event != NULL) {
                struct world_event copy = *event;
                step_one(driver, &copy);
        }
        queue_run(driver);
        driver->stepping = false;
        if (driver->first != NULL && !driver->closing)
                uv_timer_start(&driver->resume, on_resume, 0, 0);
        if (driver->ports.turned != NULL)
                driver->ports.turned(driver->ports.user);
}

static void on_resume(uv_timer_t *timer)
{
        struct io_driver *driver = timer->data;
        if (!driver->closing)
                turn(driver, NULL);
}

static void on_wake(uv_timer_t *timer)
{
        struct io_driver *driver = timer->data;
        /* The loop's clock is coarse and may run ahead of what was read in this turn. */
        driver->clock_read = false;
        clock_read(driver);
        if (driver->now_us < driver->wake_us) {
                wake_arm(driver);
                return;
        }
        driver->wake_us = UINT64_MAX;
        struct world_event event = {.kind = WORLD_TIMER};
        turn(driver, &event);
}

/* The slice of an event, if it has one. */
static struct bytes *event_slice(struct world_event *event)
{
        switch (event->kind) {
        case WORLD_MESSAGE:
                return &event->message.data;
        case WORLD_REQUEST:
                return &event->request.data;
        case WORLD_PROBED:
                return &event->probed.why;
        case WORLD_REDIS_TAILED:
                return &event->tailed.deltas;
        case WORLD_REDIS_SCANNED:
                return &event->scanned.state;
        case WORLD_REDIS_UP:
                return &event->redis_up.holes;
        case WORLD_REDIS_MERGED:
                return &event->merged.holes;
        case WORLD_POSTGRES_DONE:
                return &event->postgres_done.fail;
        case WORLD_START:
        case WORLD_TIMER:
        case WORLD_PEER_UP:
        case WORLD_PEER_DOWN:
        case WORLD_ROUND_TRIP:
        case WORLD_JOURNAL_SYNCED:
        case WORLD_JOURNAL_FAILED:
        case WORLD_REQUEST_GONE:
        case WORLD_REDIS_DOWN:
        case WORLD_POSTGRES_SEEN:
                return NULL;
        }
        UNREACHABLE("an event that world.h does not name");
}

/* The positions of an event: where its pointer is, and how many bytes. NULL: it has none. */
static const struct world_position **event_positions(struct world_event *event, size_t *ret_bytes)
{
        *ret_bytes = 0;
        if (event->kind == WORLD_REDIS_UP) {
                *ret_bytes = event->redis_up.count * sizeof(struct world_position);
                return &event->redis_up.positions;
        }
        if (event->kind == WORLD_REDIS_MERGED) {
                *ret_bytes = event->merged.position_count * sizeof(struct world_position);
                return &event->merged.positions;
        }
        if (event->kind == WORLD_REDIS_SCANNED) {
                *ret_bytes = event->scanned.position_count * sizeof(struct world_position);
                return &event->scanned.positions;
        }
        return NULL;
}

/* A copy of the event with all that it points at: positions first, which must be aligned. */
static struct queued *queued_new(struct io_driver *driver, const struct world_event *event)
{
        struct world_event copy = *event;
        size_t positions_len;
        const struct world_position **positions = event_positions(&copy, &positions_len);
        struct bytes *slice = event_slice(&copy);
        size_t slice_len = slice == NULL ? 0 : slice->len;
        struct queued *queued =
                heap_alloc(driver->heap, sizeof *queued + positions_len + slice_len);
        if (queued == NULL)
                return NULL;
        if (positions_len > 0) {
                memcpy(queued->data, *positions, positions_len);
                *positions = (const void *)queued->data;
        }
        if (slice_len > 0) {
                memcpy(queued->data + positions_len, slice->ptr, slice_len);
                slice->ptr = queued->data + positions_len;
        }
        queued->event = copy;
        return queued;
}

static enum err queue_push(struct io_driver *driver, const struct world_event *event)
{
        CHECK(event->kind != WORLD_START);
        struct queued *queued = queued_new(driver, event);
        if (queued == NULL)
                return ERR_NOMEM;
        if (driver->last == NULL)
                driver->first = queued;
        else
                driver->last->next = queued;
        driver->last = queued;
        return ERR_NONE;
}

static void on_idle(uv_idle_t *idle)
{
        (void)idle;
}

/* All sockets have been read. */
static void on_check(uv_check_t *check)
{
        struct io_driver *driver = check->data;
        uv_idle_stop(&driver->idle);
        if (driver->first != NULL && !driver->closing)
                turn(driver, NULL);
}

_Static_assert(offsetof(struct queued, data) % _Alignof(struct world_position) == 0,
               "positions may lie behind a queued event");

enum err io_driver_event(struct io_driver *driver, const struct world_event *event)
{
        if (driver->closing)
                return ERR_NONE;
        /* What is queued came first. */
        if (driver->stepping || driver->first != NULL)
                return queue_push(driver, event);
        if (may_wait(event->kind)) {
                uv_idle_start(&driver->idle, on_idle);
                return queue_push(driver, event);
        }
        turn(driver, event);
        return ERR_NONE;
}

/* ---- journals ---- */

static void on_synced(void *user, struct journal *journal, uint64_t generation, uint64_t offset)
{
        struct io_driver *driver = user;
        struct world_event event = {.kind = WORLD_JOURNAL_SYNCED,
                                    .synced = {journal->group, generation, offset}};
        enum err err = io_driver_event(driver, &event);
        if (err != ERR_NONE)
                LOG_ERROR("journal", "no memory to say that %s is durable", journal->path);
}

static void on_failed(void *user, struct journal *journal, enum err err)
{
        struct io_driver *driver = user;
        LOG_ERROR(
                "journal-failed",
                "cannot write %s: %s; this node takes no more part in agreement. %s, then restart "
                "meridiand",
                journal->path, uv_strerror(-errno),
                err == ERR_NOSPACE ? "Free some space on the disk"
                                   : "Check the disk and its file system");
        struct world_event event = {.kind = WORLD_JOURNAL_FAILED,
                                    .journal_failed = {journal->group, err}};
        err = io_driver_event(driver, &event);
        CHECK(err == ERR_NONE); /* a node that does not hear of this would lie to its peers */
}

/* ---- life ---- */

static void closed_when_idle(struct io_driver *driver)
{
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                if (journal_busy(&driver->journals[i]))
                        return;
        }
        if (driver->handles == 0)
                driver->closed(driver->closed_user);
}

static void on_handle_closed(uv_handle_t *handle)
{
        struct io_driver *driver = handle->data;
        driver->handles--;
        closed_when_idle(driver);
}

static void handles_close(struct io_driver *driver)
{
        uv_close((uv_handle_t *)&driver->wake, on_handle_closed);
        uv_close((uv_handle_t *)&driver->resume, on_handle_closed);
        uv_close((uv_handle_t *)&driver->prepare, on_handle_closed);
        uv_close((uv_handle_t *)&driver->check, on_handle_closed);
        uv_close((uv_handle_t *)&driver->idle, on_handle_closed);
}

/* The end of a turn. */
static void on_prepare(uv_prepare_t *prepare)
{
        struct io_driver *driver = prepare->data;
        bool busy = false;
        driver->clock_read = false;
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                journal_write(&driver->journals[i]);
                busy = busy || journal_busy(&driver->journals[i]);
        }
        if (driver->closing && !busy)
                handles_close(driver);
}

static void driver_free_parts(struct io_driver *driver)
{
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++)
                journal_close(&driver->journals[i]);
        while (driver->first != NULL) {
                struct queued *queued = driver->first;
                driver->first = queued->next;
                heap_free(driver->heap, queued);
        }
}

static void handles_init(struct io_driver *driver)
{
        /* None of them can fail. */
        uv_timer_init(driver->loop, &driver->wake);
        uv_timer_init(driver->loop, &driver->resume);
        uv_prepare_init(driver->loop, &driver->prepare);
        uv_check_init(driver->loop, &driver->check);
        uv_idle_init(driver->loop, &driver->idle);
        driver->wake.data = driver->resume.data = driver->prepare.data = driver;
        driver->check.data = driver->idle.data = driver;
        driver->handles = 5;
        uv_prepare_start(&driver->prepare, on_prepare);
        uv_check_start(&driver->check, on_check);
}

/* Opens both journals; their bytes are to be freed by the caller in every case. */
static enum err journals_open(struct io_driver *driver, const struct io_config *config,
                              uint8_t *data[WORLD_GROUP_COUNT], struct world_event *start,
                              struct io_error *error)
{
        enum err err = ERR_NONE;
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++)
                driver->journals[i].fd = -1;
        for (unsigned i = 0; err == ERR_NONE && i < WORLD_GROUP_COUNT; i++) {
                struct journal *journal = &driver->journals[i];
                size_t len = 0;
                err = journal_open(journal, config->loop, config->heap, config->data_dir,
                                   (enum world_group)i, config->journal_known, &data[i], &len,
                                   error);
                journal->synced = on_synced;
                journal->fail = on_failed;
                journal->user = driver;
                start->start.journals[i] = bytes_of(data[i], len);
                start->start.known[i] = journal->marked;
        }
        return err;
}

enum err io_driver_new(const struct io_config *config, struct io_driver **ret_driver,
                       struct io_error *error)
{
        uint8_t *data[WORLD_GROUP_COUNT] = {NULL};
        struct world_event start = {.kind = WORLD_START};
        start.start.seed = config->seed;
        start.start.incarnation = config->incarnation;
        struct io_driver *driver = heap_alloc(config->heap, sizeof *driver);
        if (driver == NULL)
                return io_fail(error, ERR_NOMEM, "no memory for the driver");
        driver->loop = config->loop;
        driver->heap = config->heap;
        driver->node = config->node;
        driver->ports = config->ports;
        driver->wake_us = UINT64_MAX;
        enum err err = journals_open(driver, config, data, &start, error);
        if (err == ERR_NONE) {
                handles_init(driver);
                *ret_driver = driver;
                turn(driver, &start);
        } else {
                driver_free_parts(driver);
                heap_free(config->heap, driver);
        }
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++)
                heap_free(config->heap, data[i]);
        return err;
}

void io_driver_close(struct io_driver *driver, void (*closed)(void *user), void *user)
{
        CHECK(!driver->closing);
        if (!driver->stepping)
                turn(driver, NULL); /* what came before is heard */
        driver->closing = true;
        uv_idle_stop(&driver->idle);
        driver->closed = closed;
        driver->closed_user = user;
        uv_timer_stop(&driver->wake);
        uv_timer_stop(&driver->resume);
        /* The loop must turn once more for what waits in the journals, even
         * if nothing else is left. */
        uv_timer_start(&driver->resume, on_resume, 0, 0);
}

void io_driver_free(struct io_driver *driver)
{
        if (driver == NULL)
                return;
        struct heap *heap = driver->heap;
        CHECK(driver->handles == 0);
        driver_free_parts(driver);
        heap_free(heap, driver);
}
