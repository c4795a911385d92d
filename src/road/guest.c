/* A client until it has a server.
 *
 *     FIRST ----> WAITING <----> OPENING ----> OPEN ----> PASSED (pass.c)
 *       |            |
 *       +------------+----> REFUSING
 *
 * FIRST ends with a first packet (guest_came), WAITING with a server to try (guest_seek), OPENING
 * with its answer (way_open, guest_refused). A refused one tries again a little later, or when the
 * roles change; a read door goes through all readers first. What has waited too long is told so:
 * after a request for encryption the client hears that there is none, and gets the error in answer
 * to what it says then. */
#include "road/road_priv.h"

void guest_begin(struct way *way)
{
        way->state = WAY_FIRST;
        way->until_us = road_now_us(way->road) + FIRST_US;
        plug_read(&way->plugs[0]);
}

/* ---- refusing ---- */

static void refuse_say(struct way *way)
{
        struct buffer text;
        buffer_init(&text, way->road->heap);
        startup_refuse(way->refuse_many ? REFUSAL_TOO_MANY : REFUSAL_NO_SERVER, way->door, &text);
        if (text.err == ERR_NONE)
                plug_write(&way->plugs[0], buffer_view(&text));
        buffer_fini(&text);
        if (way->state == WAY_REFUSING)
                plug_finish(&way->plugs[0]);
}

static void refuse_look(struct way *way)
{
        static const uint8_t no = 'N';
        enum startup said = startup_look(buffer_view(&way->first));
        if (said == STARTUP_ENCRYPT) {
                buffer_consume(&way->first, 8);
                plug_write(&way->plugs[0], bytes_of(&no, 1));
                if (way->state == WAY_REFUSING)
                        plug_read(&way->plugs[0]);
        } else if (said == STARTUP_SESSION) {
                plug_pause(&way->plugs[0]);
                refuse_say(way);
        } else if (said == STARTUP_MORE) {
                plug_read(&way->plugs[0]);
        } else {
                way_close(way);
        }
}

static void guest_refuse(struct way *way)
{
        way->road->counters.refused[way->door]++;
        tunnel_close(way);
        plug_close(&way->plugs[1]);
        way->state = WAY_REFUSING;
        way->until_us = road_now_us(way->road) + REFUSING_US;
        refuse_look(way);
}

/* ---- choosing ---- */

static node_id target_of(const struct way *way)
{
        const struct road *road = way->road;
        const struct road_roles *roles = &road->roles;
        switch (way->door) {
        case ROAD_WRITE:
                return roles->writer == road->self && !roles->own_writes ? 0 : roles->writer;
        case ROAD_READ:
                return way->tried < roles->reader_count ? roles->readers[way->tried] : 0;
        case ROAD_FOLLOW:
                return road->follow;
        case ROAD_DOOR_COUNT:
                break;
        }
        return 0;
}

static bool server_open(struct way *way)
{
        struct road *road = way->road;
        if (way->target != road->self)
                return tunnel_open(way, way->target);
        return road->server_known && !way->plugs[1].made &&
               plug_connect(&way->plugs[1], (const struct sockaddr *)&road->server) == ERR_NONE;
}

static void guest_wait(struct way *way)
{
        way->state = WAY_WAITING;
        way->retry_us = road_now_us(way->road) + RETRY_US;
        way->tried = 0;
        plug_read(&way->plugs[0]); /* its end is noticed; what it says is kept */
}

void guest_seek(struct way *way)
{
        struct road *road = way->road;
        for (;;) {
                node_id target = target_of(way);
                if (target == 0) {
                        guest_wait(way);
                        return;
                }
                way->target = target;
                way->epoch = road->roles.epoch;
                way->state = WAY_OPENING;
                way->until_us = road_now_us(road) + OPENING_US;
                plug_pause(&way->plugs[0]);
                if (server_open(way))
                        return;
                plug_close(&way->plugs[1]);
                if (way->plugs[1].made || way->door != ROAD_READ) {
                        guest_wait(way);
                        return;
                }
                way->tried++;
        }
}

/* The handle of a socket that could not connect has to close before the next try: the retry waits
 * for that. */
void guest_refused(struct way *way)
{
        if (way->cancel) {
                way_close(way);
                return;
        }
        tunnel_close(way);
        plug_close(&way->plugs[1]);
        uint32_t tried = way->tried + 1;
        bool next = way->door == ROAD_READ && tried < way->road->roles.reader_count;
        guest_wait(way);
        if (!next)
                return;
        way->tried = tried;
        if (!way->plugs[1].made)
                guest_seek(way);
        else
                way->retry_us = 0;
}

/* ---- cancelling ---- */

/* Of the servers that this door has led to, that with most of its connections; all others in
 * `others`. 0: there is none. */
static node_id cancel_targets(const struct way *guest, node_id others[ROAD_SERVERS_MAX],
                              uint32_t *ret_count)
{
        uint32_t counts[ROAD_SERVERS_MAX] = {0}, count = 0, best = 0;
        for (const struct way *way = guest->road->ways; way != NULL; way = way->next) {
                uint32_t at = 0;
                if (!way->near || way->courier || way->door != guest->door ||
                    (way->state != WAY_OPEN && way->state != WAY_PASSED) || way->cancel)
                        continue;
                while (at < count && others[at] != way->target)
                        at++;
                if (at == ROAD_SERVERS_MAX)
                        continue;
                if (at == count)
                        others[count++] = way->target;
                if (++counts[at] > counts[best])
                        best = at;
        }
        if (count == 0)
                return 0;
        node_id target = others[best];
        others[best] = others[--count];
        *ret_count = count;
        return target;
}

static void guest_cancel(struct way *way)
{
        struct road *road = way->road;
        node_id others[ROAD_SERVERS_MAX];
        uint32_t count = 0;
        node_id target = cancel_targets(way, others, &count);
        struct bytes packet = bytes_of(way->first.ptr, CANCEL_BYTES);
        way->cancel = true;
        for (uint32_t i = 0; i < count; i++) {
                if (others[i] == road->self)
                        courier_send(road, way->door, packet);
                else
                        tunnel_cancel(road, others[i], way->door, packet);
        }
        way->target = target;
        way->epoch = road->roles.epoch;
        way->state = WAY_OPENING;
        way->until_us = road_now_us(road) + OPENING_US;
        if (target == 0 || !server_open(way))
                way_close(way);
}

/* ---- what comes ---- */

static void first_look(struct way *way)
{
        switch (startup_look(buffer_view(&way->first))) {
        case STARTUP_MORE:
                break;
        case STARTUP_BAD:
                way_close(way);
                break;
        case STARTUP_CANCEL:
                plug_pause(&way->plugs[0]);
                guest_cancel(way);
                break;
        case STARTUP_SESSION:
        case STARTUP_ENCRYPT:
        case STARTUP_TLS:
                plug_pause(&way->plugs[0]);
                way->wait_until_us = road_now_us(way->road) + way->road->wait_us;
                if (way->refuse_many)
                        guest_refuse(way);
                else
                        guest_seek(way);
                break;
        }
}

void guest_came(struct way *way, struct bytes data)
{
        if (way->first.len + data.len > ROAD_FIRST_MAX + 64) {
                way_close(way);
                return;
        }
        buffer_bytes(&way->first, data);
        if (way->first.err != ERR_NONE)
                way_close(way);
        else if (way->state == WAY_FIRST)
                first_look(way);
        else if (way->state == WAY_REFUSING)
                refuse_look(way);
}

/* The state's own limit of time has passed. */
static bool is_late(const struct way *way, uint64_t now_us)
{
        return way->state != WAY_WAITING && way->state != WAY_OPEN && now_us >= way->until_us;
}

void guest_tick(struct way *way, uint64_t now_us)
{
        bool seeking = way->state == WAY_WAITING || way->state == WAY_OPENING;
        if (way->state == WAY_CLOSED || way->state == WAY_OPEN || way->state == WAY_PASSED)
                return;
        if (is_late(way, now_us) && (way->cancel || !seeking))
                way_close(way);
        else if (seeking && !way->cancel && now_us >= way->wait_until_us)
                guest_refuse(way);
        else if (is_late(way, now_us))
                guest_refused(way);
        else if (way->state == WAY_WAITING && now_us >= way->retry_us && !way->plugs[1].made)
                guest_seek(way);
}
