/* api.c - the requests that wait for the node, the events, and the life of both doors.
 *
 * A request's number is (use << 16 | index) + 1 of an entry in a table; entries are used again,
 * with the next `use`, so an answer that comes after its client has gone matches no entry. */
#include "api/api_priv.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Static_assert(API_REQUESTS_MAX == 1 << 16, "a number has 16 bits of index");

static uint64_t number_of(const struct api *api, uint32_t index)
{
        return ((uint64_t)api->pending[index].use << 16 | index) + 1;
}

static struct api_pending *pending_find(struct api *api, uint64_t number)
{
        if (number == 0)
                return NULL;
        uint32_t index = (uint32_t)((number - 1) & (API_REQUESTS_MAX - 1));
        if (index >= api->pending_made || number_of(api, index) != number ||
            api->pending[index].waiter.answer == NULL)
                return NULL;
        return &api->pending[index];
}

static bool pending_take(struct api *api, uint32_t *ret_index)
{
        if (api->pending_free != API_REQUESTS_MAX) {
                *ret_index = api->pending_free;
                api->pending_free = api->pending[*ret_index].next_free;
        } else if (api->pending_made < API_REQUESTS_MAX) {
                *ret_index = api->pending_made++;
        } else {
                return false;
        }
        api->pending_count++;
        return true;
}

static void pending_give(struct api *api, struct api_pending *pending)
{
        pending->waiter = (struct api_waiter){0};
        pending->use++;
        pending->next_free = api->pending_free;
        api->pending_free = (uint32_t)(pending - api->pending);
        api->pending_count--;
}

uint64_t api_ask(struct api *api, const struct request *request, struct api_waiter waiter,
                 uint64_t *ret_number)
{
        uint32_t index = 0;
        CHECK(waiter.answer != NULL);
        *ret_number = 0;
        buffer_reset(&api->scratch);
        request_encode(request, &api->scratch);
        if (api->scratch.err != ERR_NONE || !pending_take(api, &index))
                return 0;
        api->pending[index].waiter = waiter;
        api->requests++;
        uint64_t number = number_of(api, index);
        *ret_number = number;
        api->host.request(api->host.context, number, buffer_view(&api->scratch));
        return number;
}

void api_drop(struct api *api, uint64_t number)
{
        struct api_pending *pending = pending_find(api, number);
        if (pending == NULL)
                return;
        pending_give(api, pending);
        api->host.request_gone(api->host.context, number);
}

void api_reply(struct api *api, uint64_t request, struct bytes data)
{
        static struct reply_lock items[REQUEST_LIST_MAX];
        struct api_pending *pending = pending_find(api, request);
        struct reply reply;
        if (pending == NULL)
                return;
        struct api_waiter waiter = pending->waiter;
        pending_give(api, pending);
        if (reply_decode(data, &reply, items, COUNT_OF(items)) != ERR_NONE)
                reply = (struct reply){.code = REPLY_INTERNAL,
                                       .text = BYTES("the node's answer cannot be read")};
        waiter.answer(waiter.who, &reply);
}

void api_note(struct api *api, uint64_t wall_us, const char *name, struct bytes text)
{
        struct api_event *event = &api->events[api->event_count % API_EVENTS_MAX];
        event->index = ++api->event_count;
        event->wall_us = wall_us;
        event->name = name;
        snprintf(event->text, sizeof event->text, "%.*s", BYTES_ARGS(text));
}

uint16_t api_admin_port(const struct api *api)
{
        return api_admin_bound(api->admin);
}

uint16_t api_locks_port(const struct api *api)
{
        return api_locks_bound(api->locks);
}

static void api_free(struct api *api)
{
        api_conflicts_fini(api);
        api_shown_fini(api);
        buffer_fini(&api->scratch);
        buffer_fini(&api->txn);
        buffer_fini(&api->bytes);
        heap_free(&api->heap, api->pending);
        heap_free(&api->heap, api->events);
        free(api);
}

void api_door_closed(struct api *api)
{
        CHECK(api->closing > 0);
        if (--api->closing > 0)
                return;
        void (*closed)(void *context) = api->closed;
        void *context = api->closed_context;
        api_free(api);
        if (closed != NULL)
                closed(context);
}

enum err api_new(uv_loop_t *loop, const struct api_config *config, struct api **ret_api, char *why,
                 size_t why_size)
{
        char nowhere[256];
        struct api *api = calloc(1, sizeof *api);
        if (why == NULL) {
                why = nowhere;
                why_size = sizeof nowhere;
        }
        snprintf(why, why_size, "out of memory");
        if (api == NULL)
                return ERR_NOMEM;
        api->loop = loop;
        api->host = config->host;
        api->geo = config->geo;
        api->lab = config->lab;
        api->pending_free = API_REQUESTS_MAX;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        api->conflict_since_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
        heap_init(&api->heap, API_HEAP_MAX);
        buffer_init(&api->scratch, &api->heap);
        buffer_init(&api->txn, &api->heap);
        buffer_init(&api->bytes, &api->heap);
        api->pending = heap_alloc_array(&api->heap, API_REQUESTS_MAX, sizeof *api->pending);
        api->events = heap_alloc_array(&api->heap, API_EVENTS_MAX, sizeof *api->events);
        enum err err = api->pending == NULL || api->events == NULL ? ERR_NOMEM : ERR_NONE;
        if (err == ERR_NONE)
                err = api_admin_new(api, config->admin_host, config->admin_port, &api->admin, why,
                                    why_size);
        if (err != ERR_NONE) {
                api_free(api);
                return err;
        }
        err = api_locks_new(api, config->locks_host, config->locks_port, &api->locks, why,
                            why_size);
        if (err != ERR_NONE) {
                /* The loop still holds the other door: it is freed when that has closed. */
                api->closing = 1;
                api_admin_close(api->admin);
                return err;
        }
        *ret_api = api;
        return ERR_NONE;
}

void api_close(struct api *api, void (*closed)(void *context), void *context)
{
        api->closed = closed;
        api->closed_context = context;
        api->closing = 2;
        api_locks_close(api->locks);
        api_admin_close(api->admin);
}

void api_backed_up(struct api *api, uint64_t ticket, enum err err, struct buffer *backup)
{
        if (api->admin != NULL)
                api_admin_backed_up(api->admin, ticket, err, backup);
        buffer_fini(backup);
}

void api_verified(struct api *api, uint64_t ticket, const struct api_verified *verified)
{
        if (api->admin != NULL)
                api_admin_verified(api->admin, ticket, verified);
}
