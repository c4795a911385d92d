/* The doors and the clock. A client that comes is a way of its own from then on (guest.c). A
 * timer looks after all limits of time, and is stopped while there is no way at all. When the roles
 * change, ways that lead to the wrong server are cut and those that wait try again, at once. */
#include "road/road_priv.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>

enum {
        CONNECTIONS_DEFAULT = 500,
        WAIT_MS_DEFAULT = 10000,
        SLOTS_MAX = 1 << 16, /* the low half of an id */
};

uint64_t road_now_us(const struct road *road)
{
        (void)road;
        return uv_hrtime() / 1000;
}

/* ---- slots of tunnels ---- */

static bool slots_grow(struct road *road)
{
        uint32_t count = road->slot_count == 0 ? 64 : road->slot_count * 2;
        if (count > SLOTS_MAX)
                return false;
        struct way **slots = heap_resize(road->heap, road->slots, count * sizeof(struct way *));
        if (slots == NULL)
                return false;
        for (uint32_t i = road->slot_count; i < count; i++)
                slots[i] = NULL;
        road->slots = slots;
        road->slot_last = road->slot_count;
        road->slot_count = count;
        return true;
}

/* The search goes on where the last one ended, so that a place is not used again at once. */
bool road_slot_take(struct road *road, struct way *way)
{
        CHECK(way->tunnel.id == 0);
        for (unsigned round = 0; round < 2; round++) {
                for (uint32_t i = 0; i < road->slot_count; i++) {
                        uint32_t slot = (road->slot_last + i) % road->slot_count;
                        if (road->slots[slot] != NULL)
                                continue;
                        road->slots[slot] = way;
                        road->slot_last = slot + 1;
                        road->generation = road->generation % 0xffff + 1;
                        way->tunnel.id = road->generation << 16 | slot;
                        return true;
                }
                if (!slots_grow(road))
                        return false;
        }
        return false;
}

void road_slot_free(struct road *road, struct way *way)
{
        if (way->tunnel.id == 0)
                return;
        CHECK(road->slots[way->tunnel.id & 0xffff] == way);
        road->slots[way->tunnel.id & 0xffff] = NULL;
        way->tunnel = (struct tunnel){0};
}

/* ---- time ---- */

static void on_tick(uv_timer_t *timer)
{
        struct road *road = timer->data;
        uint64_t now_us = road_now_us(road);
        way_reap(road);
        for (struct way *way = road->ways; way != NULL; way = way->next) {
                if (way->near && !way->courier)
                        guest_tick(way, now_us);
                else if (way->state == WAY_OPENING && now_us >= way->until_us)
                        way_connected(way, &way->plugs[0], false);
                else if (way->courier && now_us >= way->until_us)
                        way_close(way);
        }
        if (road->ways == NULL)
                uv_timer_stop(timer);
}

void road_timer_run(struct road *road)
{
        if (!road->closing && !uv_is_active((uv_handle_t *)&road->timer))
                uv_timer_start(&road->timer, on_tick, TICK_MS, TICK_MS);
}

/* ---- doors ---- */

static void on_client(uv_stream_t *listener, int status)
{
        struct door *door = listener->data;
        struct road *road = door->road;
        struct road_counters *counters = &road->counters;
        if (status != 0)
                return;
        struct way *way = way_new(road, door->door, true);
        if (way == NULL)
                return; /* it is taken with the next one */
        counters->open[door->door]++;
        if (plug_make(&way->plugs[0]) != ERR_NONE ||
            uv_accept(listener, (uv_stream_t *)&way->plugs[0].tcp) != 0 ||
            counters->open[door->door] > road->connections_max + REFUSERS_MAX) {
                way_close(way);
                return;
        }
        plug_tune(&way->plugs[0]);
        way->refuse_many = counters->open[door->door] > road->connections_max;
        guest_begin(way);
}

static bool address_parse(const struct road_address *address, struct sockaddr_storage *ret)
{
        memset(ret, 0, sizeof *ret);
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        if (uv_ip4_addr(address->host, address->port, &in) == 0) {
                memcpy(ret, &in, sizeof in);
                return true;
        }
        if (uv_ip6_addr(address->host, address->port, &in6) != 0)
                return false;
        memcpy(ret, &in6, sizeof in6);
        return true;
}

static const char *const door_names[ROAD_DOOR_COUNT] = {"write", "read", "follow"};

static enum err door_open(struct road *road, enum road_door which,
                          const struct road_address *address, char *why, size_t why_size)
{
        struct door *door = &road->doors[which];
        struct sockaddr_storage place;
        if (address->host == NULL || address->host[0] == '\0')
                return ERR_NONE;
        if (!address_parse(address, &place)) {
                (void)snprintf(why, why_size, "'%s' is not an IP address to listen on",
                               address->host);
                return ERR_INVALID;
        }
        *door = (struct door){.road = road, .door = which};
        if (uv_tcp_init(road->loop, &door->tcp) != 0)
                return ERR_NOMEM;
        door->tcp.data = door;
        door->made = true;
        road->handles++;
        int result = uv_tcp_bind(&door->tcp, (const struct sockaddr *)&place, 0);
        if (result == 0)
                result = uv_listen((uv_stream_t *)&door->tcp, LISTEN_BACKLOG, on_client);
        if (result == 0)
                return ERR_NONE;
        (void)snprintf(why, why_size,
                       "cannot open the PostgreSQL door '%s' on %s port %u: %s; see who has the "
                       "port with: ss -ltnp 'sport = :%u'",
                       door_names[which], address->host, address->port, uv_strerror(result),
                       address->port);
        return result == UV_EADDRINUSE ? ERR_EXISTS : ERR_IO;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
        return value == 0 ? otherwise : value;
}

static enum err road_fill(struct road *road, const struct road_config *config, char *why,
                          size_t why_size)
{
        road->server_known = config->server.host != NULL && config->server.host[0] != '\0';
        if (road->server_known && !address_parse(&config->server, &road->server)) {
                (void)snprintf(why, why_size, "'%s' is not the IP address of a server",
                               config->server.host);
                return ERR_INVALID;
        }
        if (uv_timer_init(road->loop, &road->timer) != 0)
                return ERR_NOMEM;
        road->timer.data = road;
        road->timer_made = true;
        road->handles++;
        enum err err = ERR_NONE;
        for (unsigned i = 0; i < ROAD_DOOR_COUNT && err == ERR_NONE; i++)
                err = door_open(road, (enum road_door)i, &config->doors[i], why, why_size);
        return err;
}

static void free_when_closed(void *user)
{
        road_free(user);
}

enum err road_new(const struct road_config *config, const struct road_callbacks *callbacks,
                  struct road **ret_road, char *why, size_t why_size)
{
        (void)snprintf(why, why_size, "no memory for the roads to PostgreSQL");
        struct road *road = heap_alloc(config->heap, sizeof *road);
        if (road == NULL)
                return ERR_NOMEM;
        road->heap = config->heap;
        road->loop = config->loop;
        road->self = config->self;
        road->passes.fd = -1;
        road->callbacks = *callbacks;
        road->connections_max = or_default(config->connections_max, CONNECTIONS_DEFAULT);
        road->wait_us = 1000ull * or_default(config->wait_ms, WAIT_MS_DEFAULT);
        enum err err = road_fill(road, config, why, why_size);
        if (err != ERR_NONE)
                road_close(road, free_when_closed, road);
        else
                *ret_road = road;
        return err;
}

/* ---- roles ---- */

static bool write_wrong(const struct road *road, const struct way *way)
{
        const struct road_roles *roles = &road->roles;
        bool own_holds = (roles->own_writes || roles->own_stays) && roles->epoch == way->epoch;
        if (!way->near || way->target == road->self)
                return !own_holds;
        return roles->epoch > way->epoch || (roles->writer != 0 && roles->writer != way->target);
}

bool road_barred(const struct road *road, node_id peer)
{
        const struct road_callbacks *callbacks = &road->callbacks;
        return callbacks->barred != NULL && callbacks->barred(callbacks->user, peer);
}

static bool way_wrong(const struct road *road, const struct way *way)
{
        bool own = !way->near || way->target == road->self;
        if (way->courier ||
            (way->state != WAY_OPEN && way->state != WAY_PASSED && way->state != WAY_OPENING))
                return false;
        if (way->tunnel.id != 0 && road_barred(road, way->tunnel.peer))
                return true;
        switch (way->door) {
        case ROAD_WRITE:
                return write_wrong(road, way);
        case ROAD_READ:
                return own && !road->roles.own_reads;
        case ROAD_FOLLOW:
                return way->near && way->target != road->follow;
        case ROAD_DOOR_COUNT:
                break;
        }
        return false;
}

/* One that has not reached its server yet looks for another; all others are cut. */
static void way_review(struct road *road, struct way *way)
{
        if (way->state == WAY_WAITING && !way->plugs[1].made) {
                guest_seek(way);
                return;
        }
        if (!way_wrong(road, way))
                return;
        if (way->near && way->state == WAY_OPENING)
                guest_refused(way);
        else
                way_cut(way);
}

static void ways_review(struct road *road)
{
        uint64_t cut = 0;
        for (unsigned i = 0; i < ROAD_DOOR_COUNT; i++)
                cut -= road->counters.cut[i];
        for (struct way *way = road->ways; way != NULL; way = way->next)
                way_review(road, way);
        for (unsigned i = 0; i < ROAD_DOOR_COUNT; i++)
                cut += road->counters.cut[i];
        if (cut == 0)
                return;
        char text[128];
        (void)snprintf(text, sizeof text,
                       "PostgreSQL: %llu connection%s cut, as a server's role or a region's state "
                       "changed.",
                       (unsigned long long)cut, cut == 1 ? " is" : "s are");
        road->callbacks.note(road->callbacks.user, "postgres-cut", text);
}

static bool roles_same(const struct road_roles *a, const struct road_roles *b)
{
        bool same = a->writer == b->writer && a->epoch == b->epoch &&
                    a->own_writes == b->own_writes && a->own_stays == b->own_stays &&
                    a->own_reads == b->own_reads && a->reader_count == b->reader_count &&
                    a->bars == b->bars;
        for (uint32_t i = 0; same && i < a->reader_count; i++)
                same = a->readers[i] == b->readers[i];
        return same;
}

void road_roles_set(struct road *road, const struct road_roles *roles)
{
        CHECK(roles->reader_count <= ROAD_SERVERS_MAX);
        if (roles_same(&road->roles, roles))
                return;
        road->roles = *roles;
        ways_review(road);
}

void road_follow(struct road *road, node_id node)
{
        if (road->follow == node)
                return;
        road->follow = node;
        ways_review(road);
}

node_id road_following(const struct road *road)
{
        return road->follow;
}

/* ---- the link ---- */

void road_peer_up(struct road *road, node_id peer)
{
        (void)peer;
        ways_review(road);
}

void road_peer_down(struct road *road, node_id peer)
{
        for (struct way *way = road->ways; way != NULL; way = way->next) {
                if (way->tunnel.id == 0 || way->tunnel.peer != peer)
                        continue;
                way->tunnel.far = 0; /* nobody to be told */
                if (way->near && way->state == WAY_OPENING)
                        guest_refused(way);
                else
                        way_cut(way);
        }
}

void road_drained(struct road *road, node_id peer)
{
        for (struct way *way = road->ways; way != NULL; way = way->next) {
                if (way->tunnel.id != 0 && way->tunnel.peer == peer)
                        way_resume(way);
        }
}

struct road_counters road_counters(const struct road *road)
{
        struct road_counters counters = road->counters;
        for (const struct way *way = road->ways; way != NULL; way = way->next) {
                counters.waiting[way->door] += way->state == WAY_WAITING;
                counters.passed[way->door] += way->state == WAY_PASSED;
                counters.bytes += way->state == WAY_PASSED ? pass_bytes(way) : 0;
        }
        return counters;
}

/* ---- the end ---- */

void road_way_gone(struct road *road)
{
        if (road->closing && road->ways == NULL && road->handles == 0 &&
            road->passes.askers == NULL)
                road->closed(road->closed_user);
}

static void on_door_closed(uv_handle_t *handle)
{
        struct door *door = handle->data;
        door->road->handles--;
        road_way_gone(door->road);
}

static void on_timer_closed(uv_handle_t *handle)
{
        struct road *road = handle->data;
        way_reap(road);
        road->handles--;
        road_way_gone(road);
}

void road_close(struct road *road, void (*closed)(void *user), void *user)
{
        CHECK(!road->closing);
        road->closing = true;
        road->closed = closed;
        road->closed_user = user;
        for (struct way *way = road->ways; way != NULL; way = way->next)
                way_close(way);
        passes_close(road);
        for (unsigned i = 0; i < ROAD_DOOR_COUNT; i++) {
                if (road->doors[i].made)
                        uv_close((uv_handle_t *)&road->doors[i].tcp, on_door_closed);
        }
        if (road->timer_made)
                uv_close((uv_handle_t *)&road->timer, on_timer_closed);
        else
                closed(user);
}

void road_free(struct road *road)
{
        if (road == NULL)
                return;
        CHECK(road->ways == NULL);
        heap_free(road->heap, road->slots);
        heap_free(road->heap, road);
}
