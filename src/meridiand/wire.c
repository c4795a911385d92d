/* Carries events and effects between the parts. Each function here is one wire: it
 * translates and passes on, and decides nothing. What cannot be passed on (no memory, a full
 * queue) breaks the connection that it belongs to, since a gap inside a connection would
 * break its promise of order. */
#include "base/check.h"
#include "base/log.h"
#include "board/board.h"
#include "council/council.h"
#include "kv/kv.h"
#include "meridiand/daemon.h"

#include <stdio.h>

#define BOARD_WAIT_US 5000000

/* ---- to the node ---- */

static bool event_give(struct daemon *daemon, const struct world_event *event)
{
        enum err err = io_driver_event(daemon->driver, event);
        if (err != ERR_NONE)
                LOG_ERROR("event", "an event is lost: %s", err_text(err));
        return err == ERR_NONE;
}

static void note(struct daemon *daemon, const char *name, const char *text)
{
        if (daemon->api != NULL && daemon->driver != NULL)
                api_note(daemon->api, io_driver_wall_us(daemon->driver), name, bytes_of_str(text));
}

static const char *region_name_of(struct daemon *daemon, node_id node)
{
        const struct topology_region *region =
                topology_region_of_node(node_topology(daemon->node), node);
        return region == NULL ? "?" : region->name;
}

static void link_up(void *user, node_id peer)
{
        struct daemon *daemon = user;
        char text[160];
        struct world_event event = {.kind = WORLD_PEER_UP, .peer = {peer}};
        snprintf(text, sizeof text, "the link to node %u (%s) stands", peer,
                 region_name_of(daemon, peer));
        LOG_INFO("peer-up", "%s", text);
        note(daemon, "peer-up", text);
        if (daemon->road != NULL)
                road_peer_up(daemon->road, peer);
        if (!event_give(daemon, &event))
                link_drop(daemon->link, peer, "no memory");
}

static void link_down(void *user, node_id peer, const char *why)
{
        struct daemon *daemon = user;
        char text[320];
        struct world_event event = {.kind = WORLD_PEER_DOWN, .peer = {peer}};
        snprintf(text, sizeof text, "the link to node %u (%s) is down: %s", peer,
                 region_name_of(daemon, peer), why);
        LOG_WARN("peer-down", "%s", text);
        note(daemon, "peer-down", text);
        if (daemon->road != NULL)
                road_peer_down(daemon->road, peer);
        /* Without this the node would wait for answers that never come. */
        if (!event_give(daemon, &event))
                daemon_stop(daemon, 1);
}

static void link_message(void *user, node_id peer, enum world_class class, struct bytes data)
{
        struct daemon *daemon = user;
        if (class == WORLD_CLASS_TUNNEL) {
                roads_message(daemon, peer, data);
                return;
        }
        struct world_event event = {.kind = WORLD_MESSAGE, .message = {peer, class, data}};
        if (!event_give(daemon, &event))
                link_drop(daemon->link, peer, "no memory for a message");
}

static void link_rtt(void *user, node_id peer, uint64_t rtt_us)
{
        struct daemon *daemon = user;
        struct world_event event = {.kind = WORLD_ROUND_TRIP, .round_trip = {peer, rtt_us}};
        (void)event_give(daemon, &event); /* the next measurement is near */
}

static void link_drained(void *user, node_id peer, enum world_class class)
{
        struct daemon *daemon = user;
        /* A full queue of another class breaks its connection: nobody waits. */
        if (class == WORLD_CLASS_TUNNEL && daemon->road != NULL)
                road_drained(daemon->road, peer);
}

static void link_refused(void *user, const char *who, const char *why)
{
        struct daemon *daemon = user;
        char text[320];
        snprintf(text, sizeof text, "%s was turned away: %s", who, why);
        LOG_WARN("peer-refused", "%s", text);
        note(daemon, "peer-refused", text);
}

struct link_callbacks wire_link(struct daemon *daemon)
{
        return (struct link_callbacks){
                .user = daemon,
                .up = link_up,
                .down = link_down,
                .message = link_message,
                .rtt = link_rtt,
                .drained = link_drained,
                .refused = link_refused,
        };
}

static void api_request(void *context, uint64_t request, struct bytes data)
{
        struct daemon *daemon = context;
        struct world_event event = {.kind = WORLD_REQUEST, .request = {request, data}};
        (void)event_give(daemon, &event); /* the client has its own time limit */
}

static void api_request_gone(void *context, uint64_t request)
{
        struct daemon *daemon = context;
        struct world_event event = {.kind = WORLD_REQUEST_GONE, .request = {.request = request}};
        (void)event_give(daemon, &event); /* a late answer is ignored */
}

static const struct node_status *api_status(void *context)
{
        struct daemon *daemon = context;
        node_status(daemon->node, io_driver_now_us(daemon->driver),
                    io_driver_wall_us(daemon->driver), &daemon->status);
        return &daemon->status;
}

static const struct topology *api_topology(void *context)
{
        struct daemon *daemon = context;
        return node_topology(daemon->node);
}

static enum err api_backup(void *context, uint64_t ticket)
{
        struct daemon *daemon = context;
        struct world_event event = {.kind = WORLD_TIMER};
        enum err err = node_backup_begin(daemon->node);
        if (err != ERR_NONE)
                return err;
        daemon->backup_ticket = ticket;
        (void)event_give(daemon, &event); /* lost: it begins at the next turn */
        return ERR_NONE;
}

static void backup_look(struct daemon *daemon)
{
        struct buffer backup;
        enum err err;
        if (node_backup_take(daemon->node, &err, &backup))
                api_backed_up(daemon->api, daemon->backup_ticket, err, &backup);
}

static enum err region_impair(struct daemon *daemon, const struct topology_region *region,
                              const struct link_impairment *impairment)
{
        enum err err = ERR_NONE;
        for (uint32_t i = 0; i < region->node_count && err == ERR_NONE; i++) {
                if (region->nodes[i].id != daemon->config.node)
                        err = link_impair(daemon->link, region->nodes[i].id, impairment);
        }
        return err;
}

static enum err api_impair(void *context, struct bytes region_name,
                           const struct api_impairment *impairment)
{
        struct daemon *daemon = context;
        const struct topology_region *region =
                topology_region_by_name(node_topology(daemon->node), region_name);
        struct link_impairment wish = {
                .delay_us = impairment->delay_us,
                .slow_us = impairment->slow_us,
                .loss_per_mille = impairment->loss_per_mille,
                .cut = impairment->cut,
        };
        if (region == NULL)
                return ERR_NOT_FOUND;
        enum err err = region_impair(daemon, region, &wish);
        LOG_INFO("impair", "link to %s: %llu us one way, %llu us more, %u per mille lost%s: %s",
                 region->name, (unsigned long long)wish.delay_us, (unsigned long long)wish.slow_us,
                 wish.loss_per_mille, wish.cut ? ", cut" : "", err_text(err));
        return err;
}

static const char *api_verify(void *context, uint64_t ticket, const struct api_verify *ask)
{
        struct daemon *daemon = context;
        struct engine_verify wish = {
                .shard = ask->shard,
                .positions = ask->positions,
                .walk = ask->walk,
                .prefix = ask->prefix,
                .map = ask->map,
        };
        return engine_verify(daemon->engine, &wish, ticket);
}

struct api_host wire_api(struct daemon *daemon)
{
        return (struct api_host){
                .context = daemon,
                .request = api_request,
                .request_gone = api_request_gone,
                .status = api_status,
                .topology = api_topology,
                .backup = api_backup,
                .impair = api_impair,
                .verify = api_verify,
                .metrics = roads_metrics,
                .doors = roads_sessions,
        };
}

void wire_engine_event(void *user, const struct world_event *event)
{
        struct daemon *daemon = user;
        /* The node waits for this answer: without it, a stream would stand still for ever. */
        if (!event_give(daemon, event) && event->kind != WORLD_PROBED)
                daemon_stop(daemon, 1);
}

void wire_engine_note(void *user, const char *name, const char *text)
{
        struct daemon *daemon = user;
        LOG_INFO(name, "%s", text);
        note(daemon, name, text);
}

void wire_engine_conflict(void *user, const char *endpoint, uint64_t missed, struct bytes text)
{
        struct daemon *daemon = user;
        if (daemon->api != NULL)
                api_conflict(daemon->api, endpoint, missed, text);
}

void wire_engine_shown(void *user, unsigned shard, unsigned count, const char *endpoint,
                       struct bytes text)
{
        struct daemon *daemon = user;
        if (daemon->api != NULL)
                api_shown(daemon->api, shard, count, endpoint, text);
}

void wire_engine_verified(void *user, uint64_t ticket, const struct engine_verified *verified)
{
        struct daemon *daemon = user;
        struct api_verified answer = {
                .why = verified->why,
                .shards = verified->shards,
                .walk = verified->walk,
                .keys = verified->keys,
                .payload = verified->payload,
        };
        if (daemon->api != NULL)
                api_verified(daemon->api, ticket, &answer);
}

void wire_warden_event(void *user, const struct world_event *event)
{
        struct daemon *daemon = user;
        /* What was seen is soon seen again; for the end of an action the node would wait. */
        if (!event_give(daemon, event) && event->kind == WORLD_POSTGRES_DONE)
                daemon_stop(daemon, 1);
}

void wire_warden_note(void *user, const char *name, const char *text)
{
        struct daemon *daemon = user;
        LOG_INFO(name, "%s", text);
        note(daemon, name, text);
}

void wire_warden_upstream(void *user, node_id node)
{
        struct daemon *daemon = user;
        if (daemon->road != NULL)
                road_follow(daemon->road, node);
}

/* ---- from the node ---- */

static void port_send(void *user, node_id peer, enum world_class class, struct bytes data)
{
        struct daemon *daemon = user;
        enum err err = link_send(daemon->link, peer, class, data);
        if (err == ERR_NONE || err == ERR_CLOSED)
                return;
        if (err == ERR_INVALID)
                LOG_ERROR("send", "a message of %zu bytes to node %u cannot be sent", data.len,
                          peer);
        else
                link_drop(daemon->link, peer, err_text(err));
}

static void port_reply(void *user, uint64_t request, struct bytes data)
{
        struct daemon *daemon = user;
        if (daemon->api != NULL)
                api_reply(daemon->api, request, data);
}

static void port_publish(void *user)
{
        struct daemon *daemon = user;
        daemon->publish_due = true;
}

static void port_note(void *user, uint64_t wall_us, const char *name, struct bytes text)
{
        struct daemon *daemon = user;
        LOG_INFO(name, "%.*s", BYTES_ARGS(text));
        if (daemon->api != NULL)
                api_note(daemon->api, wall_us, name, text);
}

static void port_redis(void *user, const struct world_effect *effect)
{
        struct daemon *daemon = user;
        engine_redis(daemon->engine, effect);
}

static void port_postgres(void *user, const struct world_effect *effect)
{
        struct daemon *daemon = user;
        if (daemon->warden != NULL)
                warden_effect(daemon->warden, effect);
}

/* ---- what follows from a turn ---- */

/* Who leaves the groups keeps its link for so long. */
static size_t wire_leaving(struct daemon *daemon, size_t count)
{
        size_t leaving = node_leaving(daemon->node, daemon->leaving, COUNT_OF(daemon->leaving));
        for (size_t i = 0; i < leaving && count < COUNT_OF(daemon->peers); i++) {
                const struct node_leaving *node = &daemon->leaving[i];
                if (node->link.address.family == 0 || node->id == daemon->config.node)
                        continue;
                topology_address_text(&node->link.address, daemon->peer_hosts[count]);
                daemon->peers[count] = (struct link_peer){
                        .id = node->id,
                        .region = node->region,
                        .host = daemon->peer_hosts[count],
                        .port = node->link.port,
                };
                count++;
        }
        return count;
}

size_t wire_peers(struct daemon *daemon, const struct topology *topology)
{
        size_t count = 0;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                const struct topology_region *region = &topology->regions[i];
                for (uint32_t j = 0; j < region->node_count; j++) {
                        const struct topology_node *node = &region->nodes[j];
                        if (node->id == daemon->config.node || node->link.address.family == 0)
                                continue;
                        topology_address_text(&node->link.address, daemon->peer_hosts[count]);
                        daemon->peers[count] = (struct link_peer){
                                .id = node->id,
                                .region = region->name,
                                .host = daemon->peer_hosts[count],
                                .port = node->link.port,
                        };
                        count++;
                }
        }
        return wire_leaving(daemon, count);
}

/* For the next start; a copy that is missing costs nothing but that. */
static void topology_keep(struct daemon *daemon, const struct topology *topology)
{
        struct io_error error;
        struct buffer text;
        char path[CONFIG_TEXT_MAX + 16];
        buffer_init(&text, &daemon->heap);
        topology_write(topology, &text);
        snprintf(path, sizeof path, "%s/topology", daemon->config.data_dir);
        if (text.err != ERR_NONE ||
            io_file_write(path, buffer_view(&text), 0644, &error) != ERR_NONE)
                LOG_WARN("topology", "%s cannot be written", path);
        buffer_fini(&text);
}

/* The council agreed on another topology, or the node has just read its own copy. */
static void topology_follow(struct daemon *daemon)
{
        const struct topology *topology = node_topology(daemon->node);
        uint64_t peers = node_peers_version(daemon->node);
        if (topology == daemon->topology_set && topology->epoch == daemon->topology_epoch &&
            peers == daemon->peers_version)
                return;
        daemon->peers_version = peers;
        enum err err = link_set_peers(daemon->link, daemon->peers, wire_peers(daemon, topology));
        if (err != ERR_NONE)
                LOG_ERROR("topology", "the link cannot follow the topology: %s", err_text(err));
        const struct topology_region *own = topology_region_of_node(topology, daemon->config.node);
        err = own == NULL ? ERR_NONE : engine_topology(daemon->engine, topology, own->id);
        if (err != ERR_NONE)
                LOG_ERROR("topology", "some backends are not looked at: %s", err_text(err));
        if (daemon->warden != NULL)
                warden_topology(daemon->warden, topology);
        if (topology->epoch > 1 && topology->epoch != daemon->topology_epoch)
                topology_keep(daemon, topology);
        if (topology->epoch != daemon->topology_epoch)
                LOG_INFO("topology", "epoch %llu is in force", (unsigned long long)topology->epoch);
        daemon->topology_set = topology;
        daemon->topology_epoch = topology->epoch;
}

static const struct node_status_region *status_region(const struct node_status *status,
                                                      region_id id)
{
        for (size_t i = 0; i < status->region_count; i++) {
                if (status->regions[i].id == id)
                        return &status->regions[i];
        }
        return NULL;
}

/* The round trip from the own region to region `to`, by the matrix of the status. */
static uint32_t status_rtt_us(const struct node_status *status, region_id to)
{
        const struct node_status_region *self = status_region(status, status->region);
        for (size_t i = 0; self != NULL && i < status->region_count; i++) {
                if (status->regions[i].id == to && self->rtt_known[i])
                        return self->rtt_us[i] < UINT32_MAX ? (uint32_t)self->rtt_us[i]
                                                            : UINT32_MAX;
        }
        return ROUTING_RTT_UNKNOWN;
}

static struct view_region_now region_now(const struct node_status *status, region_id id)
{
        const struct node_status_region *region = status_region(status, id);
        struct view_region_now now = {.state = REGION_DOWN,
                                      .load_per_mille = ROUTING_LOAD_UNKNOWN,
                                      .rtt_us = ROUTING_RTT_UNKNOWN};
        if (region == NULL)
                return now;
        now.state = (enum region_state)region->state_value;
        now.routable = region->routable;
        now.rtt_us = status_rtt_us(status, id);
        now.backends_healthy = region->backends_healthy;
        return now;
}

/* Says it once, until it is another sentence or none. */
static void board_say(struct daemon *daemon, const char *what)
{
        if (strcmp(daemon->board_said, what) == 0)
                return;
        (void)snprintf(daemon->board_said, sizeof daemon->board_said, "%s", what);
        if (what[0] != '\0')
                LOG_ERROR("board", "%s", what);
}

/* After a restart the group's copy may be behind what this node knew before: it is that of the last
 * snapshot until a leader has told how far the log is decided, which without a majority is never.
 * Until then, what was published stays. */
static bool board_behind(struct daemon *daemon, uint64_t revision, bool majority)
{
        uint64_t now_us = io_driver_now_us(daemon->driver);
        if (revision >= daemon->board_revision)
                return false;
        if (!majority)
                daemon->board_wait_us = 0;
        else if (daemon->board_wait_us == 0)
                daemon->board_wait_us = now_us + BOARD_WAIT_US;
        return !majority || now_us < daemon->board_wait_us;
}

/* Flags, configuration and services, anew where they changed. */
static void board_collect_now(struct daemon *daemon, bool majority)
{
        const struct kv *kv = council_kv(node_council(daemon->node, WORLD_GROUP_GLOBAL));
        char refused[FLAG_WHY_SIZE];
        char text[FLAG_WHY_SIZE + 64];
        bool cut = false;
        if (daemon->board.len > 0 && (daemon->board_revision == kv_revision(kv) ||
                                      board_behind(daemon, kv_revision(kv), majority)))
                return;
        buffer_reset(&daemon->board);
        if (board_collect(kv, &daemon->heap, &daemon->board, &cut, refused) != ERR_NONE) {
                buffer_reset(&daemon->board);
                return;
        }
        daemon->board_revision = kv_revision(kv);
        text[0] = '\0';
        if (refused[0] != '\0')
                (void)snprintf(text, sizeof text, "a value is left out of the view: %s; correct it",
                               refused);
        else if (cut)
                (void)snprintf(text, sizeof text,
                               "not all values have room in the view: more than %zu bytes",
                               (size_t)BOARD_BYTES_MAX);
        board_say(daemon, text);
}

void wire_publish(struct daemon *daemon)
{
        const struct node_status *status = api_status(daemon);
        const struct topology *topology = node_topology(daemon->node);
        for (uint32_t i = 0; i < topology->region_count; i++)
                daemon->regions[i] = region_now(status, topology->regions[i].id);
        board_collect_now(daemon, status->majority);
        struct view_content content = {
                .self = status->region,
                .wall_us = io_driver_wall_us(daemon->driver),
                .topology = topology,
                .regions = daemon->regions,
                .page = buffer_view(&daemon->board),
        };
        enum err err = view_publish(daemon->view, &content);
        if (err == ERR_LIMIT && content.page.len > 0) {
                board_say(daemon, "there is no room in the view for flags, configuration and "
                                  "services beside this topology");
                content.page = bytes_of(NULL, 0);
                err = view_publish(daemon->view, &content);
        }
        if (err != ERR_NONE && !daemon->published_failed)
                LOG_ERROR("view",
                          "the view cannot be published: %s; the servers go on with the last "
                          "one",
                          err_text(err));
        daemon->published_failed = err != ERR_NONE;
        daemon->publish_due = false;
}

/* What to do where the node cannot go on. */
static const char *failed_cure(enum err err)
{
        if (err == ERR_CORRUPT)
                return "see its journals in the data folder";
        if (err == ERR_REFUSED)
                return "the data folder is another node's: give each node one of its own";
        if (err == ERR_VERSION)
                return "the data folder is of a newer meridiand: go on with that";
        return "see its memory";
}

static void port_turned(void *user)
{
        struct daemon *daemon = user;
        enum err err = node_failed(daemon->node);
        if (err != ERR_NONE && !daemon->stopping) {
                LOG_ERROR("failed", "this node cannot go on: %s; %s", err_text(err),
                          failed_cure(err));
                daemon_stop(daemon, 1);
        }
        if (daemon->stopping || daemon->driver == NULL)
                return;
        topology_follow(daemon);
        roads_look(daemon);
        if (daemon->api != NULL)
                backup_look(daemon);
        if (daemon->publish_due)
                wire_publish(daemon);
}

struct io_ports wire_ports(struct daemon *daemon)
{
        return (struct io_ports){
                .user = daemon,
                .send = port_send,
                .reply = port_reply,
                .publish = port_publish,
                .note = port_note,
                .redis = port_redis,
                .postgres = port_postgres,
                .turned = port_turned,
        };
}
