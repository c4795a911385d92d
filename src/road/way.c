/* One connection. Bytes of one end go to the other as far as that has room; an end that says no
 * more closes that direction of the other; when both have, the way is done. Whatever breaks, breaks
 * both ends: half a connection is of no use to anybody. */
#include "road/road_priv.h"

struct way *way_new(struct road *road, enum road_door door, bool near)
{
        struct way *way = heap_alloc(road->heap, sizeof *way);
        if (way == NULL)
                return NULL;
        way->road = road;
        way->door = door;
        way->near = near;
        way->begun_us = road_now_us(road);
        plug_init(&way->plugs[0], way);
        plug_init(&way->plugs[1], way);
        buffer_init(&way->first, road->heap);
        way->next = road->ways;
        if (road->ways != NULL)
                road->ways->before = way;
        road->ways = way;
        road_timer_run(road);
        return way;
}

static void way_free(struct way *way)
{
        struct road *road = way->road;
        if (way->next != NULL)
                way->next->before = way->before;
        if (way->before != NULL)
                way->before->next = way->next;
        else
                road->ways = way->next;
        for (size_t i = 0; i < 2; i++) {
                buffer_fini(&way->plugs[i].out);
                buffer_fini(&way->plugs[i].out_writing);
        }
        buffer_fini(&way->first);
        heap_free(road->heap, way);
        road_way_gone(road);
}

void way_handle_closed(struct way *way)
{
        CHECK(way->handles > 0);
        if (--way->handles == 0 && way->state == WAY_CLOSED)
                way_free(way);
}

void way_reap(struct road *road)
{
        struct way *next;
        for (struct way *way = road->ways; way != NULL; way = next) {
                next = way->next;
                if (way->handles == 0 && way->state == WAY_CLOSED)
                        way_free(way);
        }
}

void way_close(struct way *way)
{
        struct road_counters *counters = &way->road->counters;
        if (way->state == WAY_CLOSED)
                return;
        tunnel_close(way);
        if (way->state == WAY_PASSED)
                pass_end(way);
        way->state = WAY_CLOSED;
        if (way->near && !way->courier)
                counters->open[way->door]--;
        else if (!way->near)
                counters->tunnels_in--;
        plug_close(&way->plugs[0]);
        plug_close(&way->plugs[1]);
}

void way_cut(struct way *way)
{
        if (way->state == WAY_OPEN || way->state == WAY_PASSED)
                way->road->counters.cut[way->door]++;
        way_close(way);
}

/* ---- opening ---- */

static bool is_remote(const struct way *way)
{
        return way->tunnel.id != 0;
}

static struct plug *plug_other(struct way *way, const struct plug *plug)
{
        return plug == &way->plugs[0] ? &way->plugs[1] : &way->plugs[0];
}

void way_open(struct way *way)
{
        CHECK(way->state == WAY_OPENING);
        way->state = WAY_OPEN;
        if (way->near && !way->courier)
                way->road->counters.opened[way->door]++;
        /* A near tunnel carried the first packet with its opening. */
        struct plug *server = way->near && !way->courier ? &way->plugs[1] : &way->plugs[0];
        if (server->made && way->first.len > 0)
                plug_write(server, buffer_view(&way->first));
        buffer_fini(&way->first);
        buffer_init(&way->first, way->road->heap);
        if (way->state == WAY_OPEN)
                way_resume(way);
}

void way_connected(struct way *way, struct plug *plug, bool well)
{
        (void)plug;
        if (way->state != WAY_OPENING)
                return;
        if (!well && way->near && !way->courier) {
                guest_refused(way);
                return;
        }
        if (!well) {
                tunnel_refuse(way);
                way_close(way);
                return;
        }
        tunnel_opened(way);
        way_open(way);
}

/* ---- passing ---- */

size_t way_room(struct way *way, const struct plug *from)
{
        (void)from;
        if (way->state != WAY_OPEN)
                return way->near ? READ_BYTES : 0;
        return is_remote(way) ? tunnel_room(way) : READ_BYTES;
}

void way_came(struct way *way, struct plug *from, struct bytes data)
{
        if (way->state == WAY_FIRST || way->state == WAY_REFUSING || way->state == WAY_WAITING) {
                guest_came(way, data);
                return;
        }
        if (way->state != WAY_OPEN || way->courier)
                return;
        way->road->counters.bytes += data.len;
        if (is_remote(way)) {
                tunnel_send(way, way->road->scratch, data.len);
                return;
        }
        struct plug *other = plug_other(way, from);
        plug_write(other, data);
        if (way->state == WAY_OPEN && plug_pending(other) > 0)
                plug_pause(from);
}

void way_drained(struct way *way, struct plug *plug)
{
        if (way->state == WAY_REFUSING) {
                way_look_done(way);
                return;
        }
        if (way->state != WAY_OPEN || way->courier)
                return;
        if (is_remote(way))
                tunnel_give_back(way);
        else if (!plug->finishing)
                way_resume(way);
}

/* One that has said its last is not asked again. */
void way_resume(struct way *way)
{
        if (way->state != WAY_OPEN)
                return;
        if (is_remote(way)) {
                if (!way->tunnel.ended_out && tunnel_room(way) > 0)
                        plug_read(&way->plugs[0]);
                return;
        }
        for (size_t i = 0; i < 2; i++) {
                struct plug *other = &way->plugs[1 - i];
                if (!other->finishing && plug_pending(other) == 0)
                        plug_read(&way->plugs[i]);
        }
}

/* ---- the end ---- */

/* PostgreSQL's servers never say half a goodbye: when the server's end has closed, and the client
 * has all that came, nothing is left to do. */
void way_look_done(struct way *way)
{
        bool done = way->near ? way->plugs[0].finished : way->tunnel.ended_out;
        if (done && (way->state == WAY_OPEN || way->state == WAY_REFUSING))
                way_close(way);
}

void way_ended(struct way *way, struct plug *from)
{
        if (way->state != WAY_OPEN || way->courier) {
                /* A client that went away, or a server that has taken a cancel. */
                way_close(way);
                return;
        }
        if (is_remote(way))
                tunnel_end(way);
        else
                plug_finish(plug_other(way, from));
        if (way->state == WAY_OPEN)
                way_look_done(way);
}

void way_broke(struct way *way, struct plug *from)
{
        (void)from;
        way_close(way);
}
