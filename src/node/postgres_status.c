/* postgres_status.c - what people are told of PostgreSQL: at this node, and by each node to all
 * others beside the words on which decisions rest (postgres_word.c). It is told twice a second; a
 * node of an older build does not know such messages and drops them. */
#include "node/node_priv.h"

#include "base/cursor.h"

#define DETAIL_VERSION  1
#define DETAIL_EVERY_US 500000
#define DETAIL_FRESH_US 3000000

enum {
        FLAG_PAUSED = 1,
        FLAG_EXPOSED = 2,
        FLAG_OVER = 4,
        FLAG_HELD = 8,
        FLAG_COMMIT = 16,
        SLOT_ACTIVE = 1,
        SLOT_LOST = 2,
};

/* ---- between nodes ----
 *
 *      u8 version, u8 flags, varint exposed_us, varint exposed_bytes, varint slot_max, u8 slots,
 *      (u8 name length, name, u8 flags, varint retained) each, with FLAG_COMMIT varint commit_us,
 *      and what later versions add */

void postgres_detail_encode(const struct postgres_detail *detail, struct buffer *out)
{
        buffer_u8(out, DETAIL_VERSION);
        buffer_u8(out, (uint8_t)((detail->paused ? FLAG_PAUSED : 0) |
                                 (detail->exposed_known ? FLAG_EXPOSED : 0) |
                                 (detail->exposed_over ? FLAG_OVER : 0) |
                                 (detail->exposed_held ? FLAG_HELD : 0) |
                                 (detail->commit_known ? FLAG_COMMIT : 0)));
        buffer_varint(out, detail->exposed_us);
        buffer_varint(out, detail->exposed_bytes);
        buffer_varint(out, detail->slot_max);
        buffer_u8(out, (uint8_t)detail->slot_count);
        for (uint32_t i = 0; i < detail->slot_count; i++) {
                const struct world_postgres_slot *slot = &detail->slots[i];
                struct bytes name = bytes_of_str(slot->name);
                buffer_u8(out, (uint8_t)name.len);
                buffer_bytes(out, name);
                buffer_u8(out, (uint8_t)((slot->active ? SLOT_ACTIVE : 0) |
                                         (slot->lost ? SLOT_LOST : 0)));
                buffer_varint(out, slot->retained);
        }
        if (detail->commit_known)
                buffer_varint(out, detail->commit_us);
}

static void slot_decode(struct cursor *cursor, struct world_postgres_slot *ret)
{
        size_t len = cursor_u8(cursor);
        struct bytes name = cursor_bytes(cursor, len);
        unsigned flags = cursor_u8(cursor);
        ret->retained = cursor_varint(cursor);
        bool text = len > 0 && len < sizeof ret->name;
        for (size_t i = 0; i < name.len && text; i++)
                text = (name.ptr[i] >= 'a' && name.ptr[i] <= 'z') || name.ptr[i] == '_' ||
                       (name.ptr[i] >= '0' && name.ptr[i] <= '9');
        if (!text)
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return;
        memcpy(ret->name, name.ptr, name.len);
        ret->name[name.len] = '\0';
        ret->active = (flags & SLOT_ACTIVE) != 0;
        ret->lost = (flags & SLOT_LOST) != 0;
}

enum err postgres_detail_decode(struct bytes data, struct postgres_detail *ret)
{
        struct cursor cursor = cursor_of(data);
        struct postgres_detail detail = {0};
        if (cursor_u8(&cursor) < DETAIL_VERSION && !cursor_failed(&cursor))
                return ERR_VERSION;
        unsigned flags = cursor_u8(&cursor);
        detail.paused = (flags & FLAG_PAUSED) != 0;
        detail.exposed_known = (flags & FLAG_EXPOSED) != 0;
        detail.exposed_over = (flags & FLAG_OVER) != 0;
        detail.exposed_held = (flags & FLAG_HELD) != 0;
        detail.commit_known = (flags & FLAG_COMMIT) != 0;
        detail.exposed_us = cursor_varint(&cursor);
        detail.exposed_bytes = cursor_varint(&cursor);
        detail.slot_max = cursor_varint(&cursor);
        detail.slot_count = cursor_u8(&cursor);
        if (detail.slot_count > WORLD_POSTGRES_SLOTS_MAX)
                cursor_fail(&cursor, ERR_MALFORMED);
        for (uint32_t i = 0; i < detail.slot_count && !cursor_failed(&cursor); i++)
                slot_decode(&cursor, &detail.slots[i]);
        if (detail.commit_known)
                detail.commit_us = cursor_varint(&cursor);
        if (cursor_failed(&cursor))
                return cursor.err;
        *ret = detail;
        return ERR_NONE;
}

static void detail_own(const struct node *node, struct postgres_detail *ret)
{
        const struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        const struct primary_exposure *exposure = &postgres->exposure;
        *ret = (struct postgres_detail){.paused = server->paused,
                                        .commit_known = server->commit_known,
                                        .commit_us = server->commit_us};
        if (exposure->count > 0) {
                ret->exposed_known = true;
                ret->exposed_over = exposure->over;
                ret->exposed_held = postgres->limited;
                ret->exposed_us = primary_exposure_age_us(exposure, node->now_us);
                ret->exposed_bytes = primary_exposure_bytes(exposure);
        }
        if (!postgres_writes((enum primary_server)server->server))
                return;
        ret->slot_max = server->slot_max;
        ret->slot_count = server->slot_count < WORLD_POSTGRES_SLOTS_MAX ? server->slot_count
                                                                        : WORLD_POSTGRES_SLOTS_MAX;
        memcpy(ret->slots, server->slots, ret->slot_count * sizeof ret->slots[0]);
}

void postgres_detail_tell(struct node *node)
{
        struct postgres_detail detail;
        node->postgres.detail_next_us = node->now_us + DETAIL_EVERY_US;
        detail_own(node, &detail);
        buffer_reset(&node->scratch2);
        postgres_detail_encode(&detail, &node->scratch2);
        if (node->scratch2.err != ERR_NONE)
                return;
        struct envelope envelope = {.kind = ENVELOPE_DETAIL, .body = buffer_view(&node->scratch2)};
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].up && node->peers[i].id != node->config.self)
                        node_send(node, node->peers[i].id, &envelope);
}

enum err postgres_detail_came(struct node *node, node_id from, struct bytes data)
{
        struct postgres_detailed *place = NULL;
        struct postgres_detail detail;
        enum err err = postgres_detail_decode(data, &detail);
        if (err != ERR_NONE || !postgres_listed(node, from))
                return err;
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                struct postgres_detailed *other = &node->postgres.details[i];
                if (other->node == from) {
                        place = other;
                        break;
                }
                if (place == NULL && (other->node == 0 || !postgres_listed(node, other->node)))
                        place = other;
        }
        if (place != NULL)
                *place = (struct postgres_detailed){from, node->now_us, detail};
        return ERR_NONE;
}

/* What is known of that node, told lately. False: nothing. */
static bool detail_of(const struct node *node, node_id id, struct postgres_detail *ret)
{
        if (id == node->config.self && node->postgres.seen) {
                detail_own(node, ret);
                return true;
        }
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                const struct postgres_detailed *other = &node->postgres.details[i];
                if (other->node != id || id == 0 || node->now_us > other->at_us + DETAIL_FRESH_US)
                        continue;
                *ret = other->detail;
                return true;
        }
        return false;
}

/* ---- at this node ---- */

/* How long ago a node told of its server. */
static void status_heard(const struct node *node, node_id id, uint64_t now_us,
                         struct node_status_server *ret)
{
        uint64_t at_us = node->postgres.seen_us;
        ret->heard = id == node->config.self && node->postgres.seen;
        for (size_t i = 0; i < PRIMARY_NODES_MAX && !ret->heard; i++) {
                const struct postgres_heard *heard = &node->postgres.heard[i];
                ret->heard = heard->node == id && id != 0;
                at_us = heard->at_us;
        }
        ret->heard_us = ret->heard && now_us > at_us ? now_us - at_us : 0;
}

/* What a takeover by that one would cost. */
static void status_cost(const struct node *node, const struct primary_report *report,
                        const struct primary_rules *rules, struct node_status_server *ret)
{
        struct postgres_detail detail;
        uint64_t loss = rules != NULL ? primary_loss(report, rules) : UINT64_MAX;
        ret->loss_known = report->server != PRIMARY_ABSENT && loss != UINT64_MAX;
        ret->loss_bytes = ret->loss_known ? loss : 0;
        if (report->server != PRIMARY_STANDBY || !detail_of(node, report->node, &detail))
                return;
        ret->commit_known = detail.commit_known;
        ret->commit_us = detail.commit_us;
}

static void status_server(const struct node *node, node_id id, uint64_t now_us,
                          const struct primary_report *primary, const struct primary_rules *rules,
                          struct node_status_server *ret)
{
        const struct postgres *postgres = &node->postgres;
        const struct topology_region *region = topology_region_of_node(node->topology, id);
        const struct postgres_word *word = postgres_word_of(node, id);
        struct primary_report report;
        struct postgres_detail detail;
        *ret = (struct node_status_server){.node = id, .server = "unknown"};
        ret->region = region != NULL ? region->id : 0;
        status_heard(node, id, now_us, ret);
        if (id == node->config.self && postgres->seen) {
                postgres_report(node, &report);
                ret->lag_known = postgres->server.lag_known;
                ret->lag_us = postgres->server.lag_us;
        } else if (word != NULL) {
                report = word->report;
                ret->lag_known = word->lag_known;
                ret->lag_us = word->lag_us;
        } else {
                return;
        }
        ret->known = true;
        ret->paused =
                report.server == PRIMARY_STANDBY && detail_of(node, id, &detail) && detail.paused;
        ret->server = primary_server_name(report.server);
        ret->server_value = (int)report.server;
        ret->eligible = report.eligible && postgres_eligible(node, id);
        ret->following = report.following;
        ret->timeline = report.timeline;
        ret->epoch = report.epoch;
        ret->written = report.written;
        ret->replayed = report.replayed;
        ret->behind_known = primary != NULL && primary->system == report.system &&
                            primary->epoch == report.epoch;
        if (ret->behind_known && primary->written > report.written)
                ret->behind_bytes = primary->written - report.written;
        status_cost(node, &report, rules, ret);
}

/* Of the server that takes writes. */
static void status_writer(const struct node *node, node_id id, struct node_status_postgres *ret)
{
        const struct topology_postgres *rules = &node->topology->postgres;
        struct postgres_detail detail;
        ret->limit_us = 1000ull * rules->rpo_ms;
        ret->limit_bytes = rules->rpo_bytes;
        if (!detail_of(node, id, &detail))
                return;
        ret->exposed_known = detail.exposed_known;
        ret->exposed_over = detail.exposed_over;
        ret->exposed_held = detail.exposed_held;
        ret->exposed_us = detail.exposed_us;
        ret->exposed_bytes = detail.exposed_bytes;
        ret->slot_max = detail.slot_max;
        ret->slot_count = detail.slot_count;
        memcpy(ret->slots, detail.slots, detail.slot_count * sizeof ret->slots[0]);
}

void postgres_status(const struct node *node, uint64_t now_us, struct node_status_postgres *ret)
{
        const struct postgres *postgres = &node->postgres;
        const struct topology_postgres *rules = &node->topology->postgres;
        const struct postgres_word *word = postgres_word_of(node, postgres->holder);
        struct primary_report primary = {0};
        struct primary_rules ranks;
        bool vacant = rules->node_count > 0 && postgres->holder == 0;
        ret->present = rules->node_count > 0;
        ret->hold = primary_hold_name(postgres->hold);
        ret->holder = postgres->holder;
        ret->grant = postgres->grant;
        ret->grantee = postgres->grant_node;
        ret->may_write = postgres->hold == PRIMARY_MINE &&
                         postgres->lease.token == postgres->grant &&
                         primary_lease_hold(&postgres->lease, now_us, postgres_margin_us(node)) ==
                                 PRIMARY_MINE;
        ret->wish = primary_wish_name(postgres->wish);
        ret->designated = postgres->designated;
        ret->order = postgres->order;
        if (ret->order.state == NULL)
                ret->order.state = "none";
        ret->row = postgres->row != NULL ? postgres->row->id : NULL;
        memcpy(ret->failed, postgres->failed, sizeof postgres->failed);
        uint64_t until_us = postgres->lease.until_us;
        uint64_t end_us = now_us + postgres_margin_us(node);
        ret->left_known = postgres->lease.token != 0;
        ret->left_us = ret->left_known && until_us > end_us ? until_us - end_us : 0;
        ret->rank = primary_rank_name(postgres->standing.rank);
        ret->loss_known = postgres->standing.rank != PRIMARY_RANK_UNSURE &&
                          postgres->standing.loss != UINT64_MAX;
        ret->loss_bytes = ret->loss_known ? postgres->standing.loss : 0;
        status_writer(node, postgres->holder, ret);
        if (vacant)
                postgres_rules(node, &ranks);
        if (postgres->holder == node->config.self)
                postgres_report(node, &primary);
        else if (word != NULL)
                primary = word->report;
        for (uint32_t i = 0; i < rules->node_count && i < NODE_STATUS_REGIONS_MAX; i++)
                status_server(node, rules->nodes[i], now_us, primary.system != 0 ? &primary : NULL,
                              vacant ? &ranks : NULL, &ret->servers[ret->server_count++]);
}
