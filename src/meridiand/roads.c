/* Tells the roads who is what. After each turn of the node what it knows of PostgreSQL becomes a
 * struct road_roles; the roads compare it with the last. What a node says of its own server counts
 * there, at once; what it was told by others counts here, as long as it is fresh. */
#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "meridiand/daemon.h"
#include "primary/primary.h"
#include "topology/state.h"

#include <stdio.h>

enum {
        READ_LAG_MS_DEFAULT = 10000,
        RTT_SAME_US = 100,        /* of a server in the own region */
        RTT_UNKNOWN_US = 1 << 28, /* twice that is no overflow */
        RTT_STEP_US = 5000,       /* round trips that differ by less are equal: no to and fro */
};

/* ---- who may be read, and in which order ---- */

struct reader {
        node_id node;
        uint32_t cost; /* the least first */
};

static uint32_t rtt_us(const struct daemon *daemon, const struct node_status_server *server)
{
        struct link_status status;
        const struct topology_region *own =
                topology_region_of_node(node_topology(daemon->node), daemon->config.node);
        if (server->node == daemon->config.node)
                return 0;
        if (own != NULL && own->id == server->region)
                return RTT_SAME_US;
        if (link_status_get(daemon->link, server->node, &status) != ERR_NONE || !status.up)
                return RTT_UNKNOWN_US;
        uint64_t us = status.rtt_known ? status.rtt_us_min : RTT_UNKNOWN_US / 2;
        us = (us / RTT_STEP_US + 1) * RTT_STEP_US;
        return us < RTT_UNKNOWN_US ? (uint32_t)us : RTT_UNKNOWN_US;
}

static bool may_be_read(const struct daemon *daemon, const struct node_status_server *server)
{
        uint32_t limit_ms = daemon->config.postgres_read_lag_ms;
        uint64_t limit_us = 1000ull * (limit_ms != 0 ? limit_ms : READ_LAG_MS_DEFAULT);
        if (!server->known)
                return false;
        if (server->server_value == PRIMARY_OPEN || server->server_value == PRIMARY_HELD)
                return true;
        if (server->server_value != PRIMARY_STANDBY)
                return false;
        if (!server->following)
                return server->node == daemon->config.node;
        return !server->lag_known || server->lag_us <= limit_us;
}

/* Nearest first; of those that are equally near standbys before the primary. The own standby
 * is the last resort where it does not stream: a region that is cut off goes on reading. */
static uint32_t reader_cost(const struct daemon *daemon, const struct node_status_server *server)
{
        uint32_t cost = rtt_us(daemon, server) * 2;
        if (server->server_value == PRIMARY_STANDBY && !server->following)
                return UINT32_MAX;
        return server->server_value == PRIMARY_STANDBY ? cost : cost + 2 * RTT_SAME_US + 1;
}

static void readers_fill(const struct daemon *daemon, const struct node_status_postgres *postgres,
                         struct road_roles *roles)
{
        struct reader readers[ROAD_SERVERS_MAX];
        uint32_t count = 0;
        for (size_t i = 0; i < postgres->server_count && count < ROAD_SERVERS_MAX; i++) {
                const struct node_status_server *server = &postgres->servers[i];
                if (!may_be_read(daemon, server))
                        continue;
                struct reader reader = {server->node, reader_cost(daemon, server)};
                uint32_t at = count++;
                for (; at > 0 && readers[at - 1].cost > reader.cost; at--)
                        readers[at] = readers[at - 1];
                readers[at] = reader;
        }
        for (uint32_t i = 0; i < count; i++)
                roles->readers[i] = readers[i].node;
        roles->reader_count = count;
}

/* ---- roles ---- */

static const struct node_status_server *server_of(const struct node_status_postgres *postgres,
                                                  node_id node)
{
        for (size_t i = 0; i < postgres->server_count; i++) {
                if (postgres->servers[i].node == node && postgres->servers[i].known)
                        return &postgres->servers[i];
        }
        return NULL;
}

/* An isolated region gives no data away and takes none; inside of it all goes on. */
static bool isolated(const struct daemon *daemon, region_id region)
{
        int state = node_region_state(daemon->node, region);
        return state >= 0 && state < REGION_STATE_COUNT &&
               !region_state_replicates((enum region_state)state);
}

static bool road_barred_by(void *user, node_id peer)
{
        const struct daemon *daemon = user;
        const struct topology *topology = node_topology(daemon->node);
        const struct topology_region *own = topology_region_of_node(topology, daemon->config.node);
        const struct topology_region *other = topology_region_of_node(topology, peer);
        if (own == NULL || other == NULL || own == other)
                return false;
        return isolated(daemon, own->id) || isolated(daemon, other->id);
}

static uint64_t bars_of(const struct daemon *daemon)
{
        const struct topology *topology = node_topology(daemon->node);
        uint64_t bars = HASH_FNV_START;
        for (uint32_t i = 0; i < topology->region_count; i++)
                if (isolated(daemon, topology->regions[i].id))
                        bars = hash_fnv_u64(bars, topology->regions[i].id);
        return bars;
}

static bool is_now(const struct node_status_server *server, enum primary_server what)
{
        return server != NULL && server->server_value == (int)what;
}

static void roles_fill(const struct daemon *daemon, const struct node_status_postgres *postgres,
                       struct road_roles *roles)
{
        const struct node_status_server *own = server_of(postgres, daemon->config.node);
        const struct node_status_server *writer = server_of(postgres, postgres->grantee);
        *roles = (struct road_roles){0};
        roles->epoch = postgres->grant;
        if (is_now(writer, PRIMARY_OPEN))
                roles->writer = postgres->grantee;
        roles->own_writes = postgres->may_write && is_now(own, PRIMARY_OPEN);
        roles->own_stays = postgres->may_write && is_now(own, PRIMARY_HELD);
        roles->own_reads = is_now(own, PRIMARY_STANDBY) || is_now(own, PRIMARY_OPEN) ||
                           is_now(own, PRIMARY_HELD);
        readers_fill(daemon, postgres, roles);
        roles->bars = bars_of(daemon);
}

void roads_look(struct daemon *daemon)
{
        struct road_roles roles;
        if (daemon->road == NULL || daemon->closing)
                return;
        node_postgres(daemon->node, io_driver_now_us(daemon->driver), &daemon->postgres);
        roles_fill(daemon, &daemon->postgres, &roles);
        road_roles_set(daemon->road, &roles);
}

/* ---- the link ---- */

static enum err road_send(void *user, node_id peer, struct bytes data)
{
        struct daemon *daemon = user;
        enum err err = link_send(daemon->link, peer, WORLD_CLASS_TUNNEL, data);
        if (err != ERR_NONE && err != ERR_CLOSED && err != ERR_INVALID)
                link_drop(daemon->link, peer, err_text(err));
        return err;
}

/* The last part of the queue is left for what is not data. */
static size_t road_room(void *user, node_id peer)
{
        struct daemon *daemon = user;
        size_t room = link_room(daemon->link, peer, WORLD_CLASS_TUNNEL);
        return room < LINK_MESSAGE_TUNNEL ? 0 : ROAD_MESSAGE_MAX;
}
_Static_assert((size_t)ROAD_MESSAGE_MAX <= LINK_MESSAGE_TUNNEL, "a message fits the link");

void roads_message(struct daemon *daemon, node_id peer, struct bytes data)
{
        enum err err = daemon->road == NULL ? ERR_REFUSED : road_message(daemon->road, peer, data);
        if (err == ERR_REFUSED)
                return; /* the other end's client waits, and asks elsewhere */
        if (err != ERR_NONE)
                link_drop(daemon->link, peer, "a tunnel's message makes no sense");
}

/* ---- metrics ---- */

struct road_metric {
        const char *name;
        const char *type;
        const char *help;
        uint64_t values[ROAD_DOOR_COUNT];
};

void roads_metrics(void *context, struct buffer *out)
{
        static const char *const doors[ROAD_DOOR_COUNT] = {"write", "read", "follow"};
        struct daemon *daemon = context;
        const struct config *config = &daemon->config;
        bool open = config->postgres_write.host[0] != '\0' ||
                    config->postgres_read.host[0] != '\0' || config->postgres.host[0] != '\0';
        if (daemon->road == NULL || !open)
                return;
        struct road_counters now = road_counters(daemon->road);
        const struct road_metric metrics[] = {
                {"meridian_postgres_connections",
                 "gauge",
                 "Connections by a door, now.",
                 {now.open[0], now.open[1], now.open[2]}},
                {"meridian_postgres_connections_waiting",
                 "gauge",
                 "Of these, for a server.",
                 {now.waiting[0], now.waiting[1], now.waiting[2]}},
                {"meridian_postgres_connections_passed",
                 "gauge",
                 "Of these, that the own server has taken over.",
                 {now.passed[0], now.passed[1], now.passed[2]}},
                {"meridian_postgres_connections_total",
                 "counter",
                 "That reached a server.",
                 {now.opened[0], now.opened[1], now.opened[2]}},
                {"meridian_postgres_refused_total",
                 "counter",
                 "That got an error instead.",
                 {now.refused[0], now.refused[1], now.refused[2]}},
                {"meridian_postgres_cut_total",
                 "counter",
                 "Cut, as a role changed or a link broke.",
                 {now.cut[0], now.cut[1], now.cut[2]}},
        };
        for (size_t i = 0; i < COUNT_OF(metrics); i++) {
                buffer_format(out, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help,
                              metrics[i].name, metrics[i].type);
                for (unsigned door = 0; door < ROAD_DOOR_COUNT; door++)
                        buffer_format(out, "%s{door=\"%s\"} %llu\n", metrics[i].name, doors[door],
                                      (unsigned long long)metrics[i].values[door]);
        }
        buffer_format(out,
                      "# HELP meridian_postgres_bytes_total Bytes that passed by the doors.\n"
                      "# TYPE meridian_postgres_bytes_total counter\n"
                      "meridian_postgres_bytes_total %llu\n",
                      (unsigned long long)now.bytes);
}

/* ---- sessions ---- */

struct listing {
        const struct daemon *daemon;
        struct buffer *out;
        bool first;
};

/* Names of nodes hold letters, digits and the like only: nothing to escape. */
static const char *name_of(const struct daemon *daemon, node_id id)
{
        const struct topology_node *node = topology_node_by_id(node_topology(daemon->node), id);
        return node == NULL ? "" : node->name;
}

static void session_print(void *user, const struct road_session *session)
{
        static const char *const doors[ROAD_DOOR_COUNT] = {"write", "read", "follow"};
        struct listing *listing = user;
        struct buffer *out = listing->out;
        bool v6 = strchr(session->client, ':') != NULL;
        buffer_format(out, "%s{\"door\": \"%s\", \"state\": \"%s\", \"passed\": %s, ",
                      listing->first ? "" : ",\n ", doors[session->door], session->state,
                      strcmp(session->state, "passed") == 0 ? "true" : "false");
        listing->first = false;
        if (session->peer != 0)
                buffer_format(out, "\"client\": \"by %s\", ",
                              name_of(listing->daemon, session->peer));
        else
                buffer_format(out, "\"client\": \"%s%s%s:%u\", ", v6 ? "[" : "", session->client,
                              v6 ? "]" : "", session->client_port);
        if (session->server != 0)
                buffer_format(out, "\"server\": \"%s\", ",
                              name_of(listing->daemon, session->server));
        else
                buffer_format(out, "\"server\": null, ");
        buffer_format(
                out,
                "\"epoch\": %llu, \"seconds\": %llu, \"bytes_from_client\": %llu, "
                "\"bytes_to_client\": %llu}",
                (unsigned long long)session->epoch, (unsigned long long)(session->age_us / 1000000),
                (unsigned long long)session->from_client, (unsigned long long)session->to_client);
}

void roads_sessions(void *context, struct buffer *out)
{
        struct daemon *daemon = context;
        struct listing listing = {daemon, out, true};
        buffer_format(out, "{\"node\": \"%s\", \"sessions\": [",
                      name_of(daemon, daemon->config.node));
        if (daemon->road != NULL)
                road_sessions(daemon->road, session_print, &listing);
        buffer_format(out, "]}\n");
}

/* ---- opening ---- */

static struct road_address address_of(const struct config_address *address)
{
        return (struct road_address){address->host, address->port};
}

/* Without it sessions stay on their way through the daemon. */
void roads_pass_open(struct daemon *daemon)
{
        uid_t uid;
        const char *path = warden_doors(daemon->warden, &uid);
        enum err err = daemon->road == NULL ? ERR_NONE : road_pass_open(daemon->road, path, uid);
        if (err != ERR_NONE)
                LOG_WARN("postgres",
                         "%s: %s; clients of PostgreSQL's doors stay on their way "
                         "through the daemon",
                         path, err_text(err));
}

bool roads_open(struct daemon *daemon)
{
        const struct config *config = &daemon->config;
        char why[512];
        struct road_callbacks callbacks = {daemon, road_send, road_room, wire_engine_note,
                                           road_barred_by};
        struct road_config wish = {
                .heap = &daemon->heap,
                .loop = &daemon->loop,
                .self = config->node,
                .server = address_of(&config->postgres),
                .doors = {[ROAD_WRITE] = address_of(&config->postgres_write),
                          [ROAD_READ] = address_of(&config->postgres_read),
                          [ROAD_FOLLOW] = address_of(&config->postgres_follow)},
                .connections_max = config->postgres_connections,
                .wait_ms = config->postgres_wait_ms,
        };
        if (road_new(&wish, &callbacks, &daemon->road, why, sizeof why) == ERR_NONE)
                return true;
        LOG_ERROR("postgres", "%s", why);
        return false;
}
