/* Ways through the link. Each message is a frame:
 *
 *     offset  size  meaning
 *          0     1  kind
 *          1     4  the receiver's id of the tunnel, little-endian; of OPEN the sender's
 *          5        by kind:
 *                   OPEN     u8 door, u64 epoch, the client's first packet
 *                   OPENED   u32 the sender's id
 *                   REFUSED  nothing
 *                   DATA     bytes
 *                   CREDIT   u32 bytes that may be sent beyond what was allowed so far
 *                   END      nothing: no more DATA comes
 *                   RESET    nothing: it is over
 *                   CANCEL   (id 0) u8 door, a request to cancel
 *
 * Both ends know the window by the door. A frame for an id that is not there any more is ignored,
 * as both ends may end a tunnel at once; one that makes no sense is ERR_MALFORMED. The near end
 * sends nothing between OPEN and OPENED. A reset that overtakes OPENED names no id of the far end;
 * its OPENED is answered by another RESET. */
#include "road/road_priv.h"

enum frame {
        FRAME_OPEN = 1,
        FRAME_OPENED,
        FRAME_REFUSED,
        FRAME_DATA,
        FRAME_CREDIT,
        FRAME_END,
        FRAME_RESET,
        FRAME_CANCEL,
};

static size_t window_of(enum road_door door)
{
        return door == ROAD_FOLLOW ? ROAD_WINDOW_FOLLOW : ROAD_WINDOW;
}

/* ---- sending ---- */

static bool send_bytes(struct road *road, node_id peer, struct bytes data)
{
        return road->callbacks.send(road->callbacks.user, peer, data) == ERR_NONE;
}

/* A frame with up to four bytes of body. What cannot be sent breaks the connection to that node,
 * and that every tunnel: see road_callbacks. */
static bool send_small(struct road *road, node_id peer, enum frame kind, uint32_t to,
                       const uint32_t *body)
{
        struct buffer frame;
        buffer_init(&frame, road->heap);
        buffer_u8(&frame, (uint8_t)kind);
        buffer_u32(&frame, to);
        if (body != NULL)
                buffer_u32(&frame, *body);
        bool sent = frame.err == ERR_NONE && send_bytes(road, peer, buffer_view(&frame));
        buffer_fini(&frame);
        return sent;
}

static void tunnel_fill(struct way *way, node_id peer, uint32_t far)
{
        struct tunnel *tunnel = &way->tunnel;
        uint32_t id = tunnel->id;
        size_t window = window_of(way->door);
        *tunnel = (struct tunnel){
                .peer = peer, .id = id, .far = far, .window = window, .credit = window};
}

bool tunnel_open(struct way *way, node_id peer)
{
        struct road *road = way->road;
        struct buffer frame;
        if (road_barred(road, peer) || !road_slot_take(road, way))
                return false;
        tunnel_fill(way, peer, 0);
        buffer_init(&frame, road->heap);
        buffer_u8(&frame, FRAME_OPEN);
        buffer_u32(&frame, way->tunnel.id);
        buffer_u8(&frame, (uint8_t)way->door);
        buffer_u64(&frame, way->epoch);
        buffer_bytes(&frame, buffer_view(&way->first));
        bool sent = frame.err == ERR_NONE && send_bytes(road, peer, buffer_view(&frame));
        buffer_fini(&frame);
        if (!sent)
                road_slot_free(road, way);
        return sent;
}

void tunnel_opened(struct way *way)
{
        struct tunnel *tunnel = &way->tunnel;
        if (way->near || tunnel->id == 0)
                return;
        if (!send_small(way->road, tunnel->peer, FRAME_OPENED, tunnel->far, &tunnel->id))
                way_close(way);
}

void tunnel_refuse(struct way *way)
{
        struct tunnel *tunnel = &way->tunnel;
        if (way->near || tunnel->id == 0)
                return;
        (void)send_small(way->road, tunnel->peer, FRAME_REFUSED, tunnel->far, NULL);
        road_slot_free(way->road, way);
}

size_t tunnel_room(struct way *way)
{
        struct road *road = way->road;
        size_t credit = way->tunnel.credit;
        if (credit == 0)
                return 0;
        size_t room = road->callbacks.room(road->callbacks.user, way->tunnel.peer);
        return room < credit ? room : credit;
}

void tunnel_send(struct way *way, uint8_t *frame, size_t data_len)
{
        struct tunnel *tunnel = &way->tunnel;
        CHECK(data_len <= tunnel->credit);
        frame[0] = FRAME_DATA;
        for (unsigned i = 0; i < 4; i++)
                frame[1 + i] = (uint8_t)(tunnel->far >> (8 * i));
        tunnel->credit -= data_len;
        if (!send_bytes(way->road, tunnel->peer, bytes_of(frame, FRAME_HEAD + data_len)))
                way_cut(way);
        else if (tunnel_room(way) == 0)
                plug_pause(&way->plugs[0]);
}

void tunnel_end(struct way *way)
{
        struct tunnel *tunnel = &way->tunnel;
        if (tunnel->ended_out)
                return;
        tunnel->ended_out = true;
        if (!send_small(way->road, tunnel->peer, FRAME_END, tunnel->far, NULL))
                way_cut(way);
}

/* In quarters of the window, so that a busy tunnel costs few frames. */
void tunnel_give_back(struct way *way)
{
        struct tunnel *tunnel = &way->tunnel;
        size_t pending = plug_pending(&way->plugs[0]);
        size_t free_len = tunnel->taken > pending ? tunnel->taken - pending : 0;
        uint32_t credit = (uint32_t)free_len;
        if (free_len < tunnel->window / 4 || tunnel->ended_in)
                return;
        tunnel->taken -= free_len;
        if (!send_small(way->road, tunnel->peer, FRAME_CREDIT, tunnel->far, &credit))
                way_cut(way);
}

void tunnel_close(struct way *way)
{
        struct tunnel *tunnel = &way->tunnel;
        if (tunnel->id == 0)
                return;
        bool over = way->near ? tunnel->ended_in : tunnel->ended_out;
        if (tunnel->far != 0 && !over)
                (void)send_small(way->road, tunnel->peer, FRAME_RESET, tunnel->far, NULL);
        road_slot_free(way->road, way);
}

void tunnel_cancel(struct road *road, node_id peer, enum road_door door, struct bytes packet)
{
        struct buffer frame;
        buffer_init(&frame, road->heap);
        buffer_u8(&frame, FRAME_CANCEL);
        buffer_u32(&frame, 0);
        buffer_u8(&frame, (uint8_t)door);
        buffer_bytes(&frame, packet);
        if (frame.err == ERR_NONE)
                (void)send_bytes(road, peer, buffer_view(&frame));
        buffer_fini(&frame);
}

/* ---- the far end ---- */

static bool may_enter(const struct road *road, node_id peer, enum road_door door, uint64_t epoch)
{
        const struct road_roles *roles = &road->roles;
        if (!road->server_known || road->closing || road_barred(road, peer) ||
            road->counters.tunnels_in >= road->connections_max * ROAD_DOOR_COUNT)
                return false;
        if (door == ROAD_WRITE)
                return roles->own_writes && roles->epoch == epoch;
        return door == ROAD_FOLLOW || roles->own_reads;
}

static struct way *far_new(struct road *road, node_id peer, enum road_door door, uint32_t far)
{
        struct way *way = way_new(road, door, false);
        if (way == NULL)
                return NULL;
        road->counters.tunnels_in++;
        way->state = WAY_OPENING;
        way->until_us = road_now_us(road) + OPENING_US;
        way->epoch = road->roles.epoch;
        way->target = road->self;
        if (!road_slot_take(road, way)) {
                way_close(way);
                return NULL;
        }
        tunnel_fill(way, peer, far);
        return way;
}

static enum err came_open(struct road *road, node_id peer, uint32_t far, struct cursor body)
{
        uint8_t door = cursor_u8(&body);
        uint64_t epoch = cursor_u64(&body);
        struct bytes first = cursor_bytes(&body, cursor_left(&body));
        if (cursor_failed(&body) || door >= ROAD_DOOR_COUNT || far == 0 ||
            first.len > ROAD_FIRST_MAX + 64)
                return ERR_MALFORMED;
        struct way *way = NULL;
        if (may_enter(road, peer, (enum road_door)door, epoch))
                way = far_new(road, peer, (enum road_door)door, far);
        if (way == NULL) {
                (void)send_small(road, peer, FRAME_REFUSED, far, NULL);
                return ERR_NONE;
        }
        buffer_bytes(&way->first, first);
        if (way->first.err != ERR_NONE ||
            plug_connect(&way->plugs[0], (const struct sockaddr *)&road->server) != ERR_NONE) {
                tunnel_refuse(way);
                way_close(way);
        }
        return ERR_NONE;
}

void courier_send(struct road *road, enum road_door door, struct bytes packet)
{
        struct way *way = road->server_known ? way_new(road, door, true) : NULL;
        if (way == NULL)
                return;
        way->courier = true;
        way->state = WAY_OPENING;
        way->until_us = road_now_us(road) + OPENING_US;
        buffer_bytes(&way->first, packet);
        if (way->first.err != ERR_NONE ||
            plug_connect(&way->plugs[0], (const struct sockaddr *)&road->server) != ERR_NONE)
                way_close(way);
}

static enum err came_cancel(struct road *road, struct cursor body)
{
        uint8_t door = cursor_u8(&body);
        struct bytes packet = cursor_bytes(&body, CANCEL_BYTES);
        if (cursor_done(&body) != ERR_NONE || door >= ROAD_DOOR_COUNT ||
            startup_look(packet) != STARTUP_CANCEL)
                return ERR_MALFORMED;
        courier_send(road, (enum road_door)door, packet);
        return ERR_NONE;
}

/* ---- what comes ---- */

static enum err came_opened(struct way *way, struct cursor body)
{
        uint32_t far = cursor_u32(&body);
        if (cursor_done(&body) != ERR_NONE || far == 0 || !way->near || way->tunnel.far != 0 ||
            way->state != WAY_OPENING)
                return ERR_MALFORMED;
        way->tunnel.far = far;
        way_open(way);
        return ERR_NONE;
}

static enum err came_data(struct way *way, struct bytes data)
{
        struct tunnel *tunnel = &way->tunnel;
        if (way->state != WAY_OPEN || tunnel->ended_in || data.len > tunnel->window - tunnel->taken)
                return ERR_MALFORMED;
        tunnel->taken += data.len;
        way->road->counters.bytes += way->near ? data.len : 0;
        plug_write(&way->plugs[0], data);
        if (way->state == WAY_OPEN)
                tunnel_give_back(way);
        return ERR_NONE;
}

static enum err came_credit(struct way *way, struct cursor body)
{
        struct tunnel *tunnel = &way->tunnel;
        uint32_t credit = cursor_u32(&body);
        if (cursor_done(&body) != ERR_NONE || way->state != WAY_OPEN ||
            credit > tunnel->window - tunnel->credit)
                return ERR_MALFORMED;
        tunnel->credit += credit;
        way_resume(way);
        return ERR_NONE;
}

static enum err came_end(struct way *way)
{
        if (way->tunnel.ended_in)
                return ERR_MALFORMED;
        way->tunnel.ended_in = true;
        if (way->state == WAY_OPEN)
                plug_finish(&way->plugs[0]);
        else
                way_close(way);
        return ERR_NONE;
}

static enum err came_refused(struct way *way)
{
        if (!way->near || way->state != WAY_OPENING)
                return ERR_MALFORMED;
        guest_refused(way);
        return ERR_NONE;
}

static struct way *way_find(const struct road *road, node_id peer, uint32_t id)
{
        uint32_t slot = id & 0xffff;
        struct way *way = slot < road->slot_count ? road->slots[slot] : NULL;
        return way != NULL && way->tunnel.id == id && way->tunnel.peer == peer ? way : NULL;
}

/* The near end went away before it knew our id. */
static void opened_in_vain(struct road *road, node_id peer, struct cursor body)
{
        uint32_t far = cursor_u32(&body);
        if (cursor_done(&body) == ERR_NONE && far != 0)
                (void)send_small(road, peer, FRAME_RESET, far, NULL);
}

enum err road_message(struct road *road, node_id peer, struct bytes data)
{
        struct cursor cursor = cursor_of(data);
        uint8_t kind = cursor_u8(&cursor);
        uint32_t id = cursor_u32(&cursor);
        if (cursor_failed(&cursor) || kind < FRAME_OPEN || kind > FRAME_CANCEL)
                return ERR_MALFORMED;
        if (kind == FRAME_OPEN)
                return came_open(road, peer, id, cursor);
        if (kind == FRAME_CANCEL)
                return came_cancel(road, cursor);
        struct way *way = way_find(road, peer, id);
        if (way == NULL) {
                if (kind == FRAME_OPENED)
                        opened_in_vain(road, peer, cursor);
                return ERR_NONE;
        }
        switch ((enum frame)kind) {
        case FRAME_OPENED:
                return came_opened(way, cursor);
        case FRAME_REFUSED:
                return came_refused(way);
        case FRAME_DATA:
                return came_data(way, cursor_bytes(&cursor, cursor_left(&cursor)));
        case FRAME_CREDIT:
                return came_credit(way, cursor);
        case FRAME_END:
                return came_end(way);
        case FRAME_RESET:
                if (way->near)
                        way_cut(way); /* by the server's node */
                else
                        way_close(way); /* the client went away */
                return ERR_NONE;
        case FRAME_OPEN:
        case FRAME_CANCEL:
                break;
        }
        return ERR_MALFORMED;
}
