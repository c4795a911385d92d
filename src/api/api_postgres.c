/* api_postgres.c - the PostgreSQL cluster, as JSON and as metrics, and what may be asked of it.
 * What is not known is null: the lag of a standby that does not stream is not known. */
#include "api/api_priv.h"

#include "node/status.h"
#include "primary/primary.h"
#include "topology/topology.h"

static const char *node_name(const struct api *api, node_id id)
{
        const struct topology_node *node =
                topology_node_by_id(api->host.topology(api->host.context), id);
        return node == NULL ? NULL : node->name;
}

static const char *region_name(const struct node_status *status, region_id id)
{
        for (size_t i = 0; i < status->region_count; i++) {
                if (status->regions[i].id == id)
                        return status->regions[i].name;
        }
        return NULL;
}

static json_t *text_or_null(const char *text)
{
        return text == NULL ? json_null() : json_string(text);
}

static json_t *number_or_null(bool known, uint64_t value)
{
        return known ? json_integer((json_int_t)value) : json_null();
}

static json_t *milliseconds(bool known, uint64_t us)
{
        uint64_t hundredths = us / 10;
        return known ? json_real((double)hundredths / 100) : json_null();
}

static bool is_writer(const struct node_status_server *server)
{
        return server->known &&
               (server->server_value == PRIMARY_OPEN || server->server_value == PRIMARY_HELD);
}

static bool is_standby(const struct node_status_server *server)
{
        return server->known && server->server_value == PRIMARY_STANDBY;
}

static const char *role_of(const struct node_status_server *server)
{
        if (server == NULL || !server->known)
                return NULL;
        return is_writer(server) ? "primary" : is_standby(server) ? "standby" : "stopped";
}

static bool lag_known(const struct node_status_server *server)
{
        return is_standby(server) && server->following && server->lag_known;
}

/* A region's best one: its primary, else the standby that is least behind. */
static const struct node_status_server *server_of(const struct node_status_postgres *postgres,
                                                  region_id region)
{
        const struct node_status_server *best = NULL;
        for (size_t i = 0; i < postgres->server_count; i++) {
                const struct node_status_server *server = &postgres->servers[i];
                if (server->region != region)
                        continue;
                bool better = best == NULL || is_writer(server) ||
                              (is_standby(server) && !is_writer(best) &&
                               (!is_standby(best) || server->behind_bytes < best->behind_bytes));
                if (better)
                        best = server;
        }
        return best;
}

json_t *api_json_postgres_region(const struct node_status *status, region_id region)
{
        const struct node_status_server *server = server_of(&status->postgres, region);
        bool standby = server != NULL && is_standby(server);
        return json_pack("{s:o, s:o, s:o}", "role", text_or_null(role_of(server)), "lag_ms",
                         milliseconds(server != NULL && lag_known(server),
                                      server == NULL ? 0 : server->lag_us),
                         "lag_bytes",
                         number_or_null(standby && server->behind_known,
                                        standby ? server->behind_bytes : 0));
}

static json_t *json_lsn(bool known, uint64_t lsn)
{
        char text[32];
        (void)snprintf(text, sizeof text, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
        return known ? json_string(text) : json_null();
}

static json_t *json_server(const struct api *api, const struct node_status *status,
                           const struct node_status_server *server)
{
        return json_pack(
                "{s:o, s:o, s:o, s:s, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                "node", text_or_null(node_name(api, server->node)), "region",
                text_or_null(region_name(status, server->region)), "role",
                text_or_null(role_of(server)), "server", server->server, "eligible",
                (int)server->eligible, "following", (int)server->following, "timeline",
                number_or_null(server->known, server->timeline), "epoch",
                number_or_null(server->known, server->epoch), "written",
                json_lsn(server->known, server->written), "replayed",
                json_lsn(is_standby(server), server->replayed), "lag_ms",
                milliseconds(lag_known(server), server->lag_us), "lag_bytes",
                number_or_null(is_standby(server) && server->behind_known, server->behind_bytes),
                "replay_paused", is_standby(server) ? json_boolean(server->paused) : json_null(),
                "heard_ms", milliseconds(server->heard, server->heard_us), "commit_age_ms",
                milliseconds(server->known && server->commit_known, server->commit_us),
                "loss_bytes", number_or_null(server->loss_known, server->loss_bytes));
}

/* The sentence of the row that holds at this node now, as in docs/primary-rows.md. */
static json_t *json_why(const struct api *api, const struct node_status *status)
{
        const struct node_status_postgres *postgres = &status->postgres;
        char text[PRIMARY_SENTENCE_SIZE];
        const struct primary_row *row =
                postgres->row == NULL ? NULL : primary_row_by_id(bytes_of_str(postgres->row));
        if (row == NULL)
                return json_null();
        node_id other = postgres->designated != 0 ? postgres->designated : postgres->holder;
        const char *self_name = node_name(api, status->node), *other_name = node_name(api, other);
        (void)primary_sentence(row, self_name == NULL ? "this node" : self_name,
                               other_name == NULL ? "another" : other_name,
                               postgres->loss_known ? postgres->loss_bytes : UINT64_MAX, text);
        return text[0] == '\0' ? json_null() : json_string(text);
}

static json_t *json_order(const struct api *api, const struct node_status_order *order)
{
        const char *why = order->why[0] == 0 ? NULL : order->why;
        return json_pack("{s:I, s:o, s:s, s:b, s:o}", "number", (json_int_t)order->number, "target",
                         text_or_null(node_name(api, order->target)), "state",
                         order->state == NULL ? "none" : order->state, "recorded",
                         (int)order->recorded, "why", text_or_null(why));
}

/* What no other region has of the writer's commits, beside the limit. */
static json_t *json_exposed(const struct node_status_postgres *postgres)
{
        bool known = postgres->exposed_known;
        return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "age_ms",
                         milliseconds(known, postgres->exposed_us), "bytes",
                         number_or_null(known, postgres->exposed_bytes), "limit_ms",
                         milliseconds(postgres->limit_us != 0, postgres->limit_us), "limit_bytes",
                         number_or_null(postgres->limit_bytes != 0, postgres->limit_bytes), "over",
                         known ? json_boolean(postgres->exposed_over) : json_null(), "held",
                         known ? json_boolean(postgres->exposed_held) : json_null());
}

static json_t *json_slots(const struct node_status_postgres *postgres)
{
        json_t *slots = json_array();
        for (size_t i = 0; i < postgres->slot_count; i++) {
                const struct world_postgres_slot *slot = &postgres->slots[i];
                json_array_append_new(
                        slots,
                        json_pack("{s:s, s:b, s:b, s:I, s:o}", "name", slot->name, "active",
                                  (int)slot->active, "lost", (int)slot->lost, "retained_bytes",
                                  (json_int_t)slot->retained, "limit_bytes",
                                  number_or_null(postgres->slot_max != 0, postgres->slot_max)));
        }
        return slots;
}

json_t *api_json_postgres(const struct api *api, const struct node_status *status)
{
        const struct node_status_postgres *postgres = &status->postgres;
        const struct topology_postgres *rules = &api->host.topology(api->host.context)->postgres;
        const struct node_status_server *writer = NULL;
        json_t *servers = json_array();
        if (!postgres->present) {
                json_decref(servers);
                return json_null();
        }
        for (size_t i = 0; i < postgres->server_count; i++) {
                const struct node_status_server *server = &postgres->servers[i];
                json_array_append_new(servers, json_server(api, status, server));
                if (is_writer(server) && server->node == postgres->grantee)
                        writer = server;
        }
        json_t *lease = json_pack("{s:s, s:o, s:o, s:o, s:b, s:o, s:I}", "hold", postgres->hold,
                                  "holder", text_or_null(node_name(api, postgres->holder)),
                                  "grantee", text_or_null(node_name(api, postgres->grantee)),
                                  "epoch", number_or_null(postgres->grant != 0, postgres->grant),
                                  "may_write", (int)postgres->may_write, "left_ms",
                                  milliseconds(postgres->left_known, postgres->left_us), "ttl_ms",
                                  (json_int_t)rules->lease_ms);
        return json_pack(
                "{s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o}",
                "self", text_or_null(node_name(api, status->node)), "writer",
                text_or_null(writer == NULL ? NULL : node_name(api, writer->node)), "writer_region",
                text_or_null(writer == NULL ? NULL : region_name(status, writer->region)), "lease",
                lease, "wish", postgres->wish, "designated",
                text_or_null(node_name(api, postgres->designated)), "order",
                json_order(api, &postgres->order), "row", text_or_null(postgres->row), "why",
                json_why(api, status), "failed",
                text_or_null(postgres->failed[0] == '\0' ? NULL : postgres->failed), "loss_bytes",
                number_or_null(postgres->loss_known, postgres->loss_bytes), "rank",
                text_or_null(postgres->rank), "sync", (json_int_t)rules->sync, "exposed",
                json_exposed(postgres), "slots", json_slots(postgres), "servers", servers);
}

/* ---- metrics ---- */

struct gauge {
        const char *name;
        const char *help;
        bool (*known)(const struct node_status_server *server);
        double (*value)(const struct node_status_server *server);
};

static bool is_known(const struct node_status_server *server)
{
        return server->known;
}

static bool is_behind_known(const struct node_status_server *server)
{
        return is_standby(server) && server->behind_known;
}

static double value_primary(const struct node_status_server *server)
{
        return is_writer(server) ? 1 : 0;
}

static double value_timeline(const struct node_status_server *server)
{
        return server->timeline;
}

static double value_following(const struct node_status_server *server)
{
        return server->following ? 1 : 0;
}

static double value_lag(const struct node_status_server *server)
{
        return (double)server->lag_us / 1e6;
}

static double value_behind(const struct node_status_server *server)
{
        return (double)server->behind_bytes;
}

static double value_paused(const struct node_status_server *server)
{
        return server->paused ? 1 : 0;
}

static const struct gauge gauges[] = {
        {"meridian_postgres_primary", "1 where a server takes writes.", is_known, value_primary},
        {"meridian_postgres_timeline", "A server's timeline.", is_known, value_timeline},
        {"meridian_postgres_following", "1 where a standby streams from the lease's holder.",
         is_standby, value_following},
        {"meridian_postgres_lag_seconds", "Age of the last commit that a standby shows.", lag_known,
         value_lag},
        {"meridian_postgres_lag_bytes", "What the primary has written and a standby has not.",
         is_behind_known, value_behind},
        {"meridian_postgres_replay_paused", "1 where somebody has paused a standby's replay.",
         is_standby, value_paused},
};

static void gauge_write(const struct api *api, const struct node_status *status,
                        const struct gauge *gauge, struct buffer *out)
{
        buffer_format(out, "# HELP %s %s\n# TYPE %s gauge\n", gauge->name, gauge->help,
                      gauge->name);
        for (size_t i = 0; i < status->postgres.server_count; i++) {
                const struct node_status_server *server = &status->postgres.servers[i];
                const char *node = node_name(api, server->node);
                const char *region = region_name(status, server->region);
                if (gauge->known(server) && node != NULL && region != NULL)
                        buffer_format(out, "%s{node=\"%s\",region=\"%s\"} %.10g\n", gauge->name,
                                      node, region, gauge->value(server));
        }
}

static void metrics_exposed(const struct node_status_postgres *postgres, struct buffer *out)
{
        if (!postgres->exposed_known)
                return;
        buffer_format(out,
                      "# HELP meridian_postgres_exposed_seconds Age of the oldest commit of the "
                      "writer's that no other region has.\n"
                      "# TYPE meridian_postgres_exposed_seconds gauge\n"
                      "meridian_postgres_exposed_seconds %.3f\n"
                      "# HELP meridian_postgres_exposed_bytes Log of such commits.\n"
                      "# TYPE meridian_postgres_exposed_bytes gauge\n"
                      "meridian_postgres_exposed_bytes %llu\n"
                      "# HELP meridian_postgres_exposed_over 1 beyond the limit (rpo).\n"
                      "# TYPE meridian_postgres_exposed_over gauge\n"
                      "meridian_postgres_exposed_over %d\n"
                      "# HELP meridian_postgres_held 1 while commits wait for other regions "
                      "(rpo_hold).\n"
                      "# TYPE meridian_postgres_held gauge\nmeridian_postgres_held %d\n",
                      (double)postgres->exposed_us / 1e6,
                      (unsigned long long)postgres->exposed_bytes, postgres->exposed_over ? 1 : 0,
                      postgres->exposed_held ? 1 : 0);
}

static void metrics_slots(const struct node_status_postgres *postgres, struct buffer *out)
{
        if (postgres->slot_count == 0)
                return;
        buffer_format(out, "# HELP meridian_postgres_slot_retained_bytes Log that the writer keeps "
                           "for a slot.\n"
                           "# TYPE meridian_postgres_slot_retained_bytes gauge\n");
        for (size_t i = 0; i < postgres->slot_count; i++)
                buffer_format(out, "meridian_postgres_slot_retained_bytes{slot=\"%s\"} %llu\n",
                              postgres->slots[i].name,
                              (unsigned long long)postgres->slots[i].retained);
        buffer_format(out, "# HELP meridian_postgres_slot_active 1 while somebody reads by it.\n"
                           "# TYPE meridian_postgres_slot_active gauge\n");
        for (size_t i = 0; i < postgres->slot_count; i++)
                buffer_format(out, "meridian_postgres_slot_active{slot=\"%s\"} %d\n",
                              postgres->slots[i].name, postgres->slots[i].active ? 1 : 0);
        if (postgres->slot_max != 0)
                buffer_format(out,
                              "# HELP meridian_postgres_slot_limit_bytes What one may retain "
                              "(max_slot_wal_keep_size).\n"
                              "# TYPE meridian_postgres_slot_limit_bytes gauge\n"
                              "meridian_postgres_slot_limit_bytes %llu\n",
                              (unsigned long long)postgres->slot_max);
}

void api_metrics_postgres(const struct api *api, const struct node_status *status,
                          struct buffer *out)
{
        const struct node_status_postgres *postgres = &status->postgres;
        if (!postgres->present)
                return;
        buffer_format(out,
                      "# HELP meridian_postgres_epoch Token of the newest lease known.\n"
                      "# TYPE meridian_postgres_epoch gauge\nmeridian_postgres_epoch %llu\n"
                      "# HELP meridian_postgres_may_write 1 while this node's own lease stands.\n"
                      "# TYPE meridian_postgres_may_write gauge\nmeridian_postgres_may_write %d\n",
                      (unsigned long long)postgres->grant, postgres->may_write ? 1 : 0);
        if (postgres->left_known)
                buffer_format(out,
                              "# HELP meridian_postgres_lease_left_seconds How long this node may "
                              "write without a renewal.\n"
                              "# TYPE meridian_postgres_lease_left_seconds gauge\n"
                              "meridian_postgres_lease_left_seconds %.3f\n",
                              (double)postgres->left_us / 1e6);
        for (size_t i = 0; i < COUNT_OF(gauges); i++)
                gauge_write(api, status, &gauges[i], out);
        metrics_exposed(postgres, out);
        metrics_slots(postgres, out);
}

/* ---- what may be asked ---- */

static const struct {
        const char *path;
        bool force;
        enum request_postgres wish;
} wishes[] = {
        {"/postgres/switchover", false, REQUEST_SWITCHOVER},
        {"/postgres/failover", false, REQUEST_FAILOVER},
        {"/postgres/failover", true, REQUEST_FAILOVER_FORCE},
        {"/postgres/abort", false, REQUEST_POSTGRES_ABORT},
};

bool api_postgres_post(const char *path, bool force, struct request *request)
{
        for (size_t i = 0; i < COUNT_OF(wishes); i++) {
                if (strcmp(path, wishes[i].path) != 0 || force != wishes[i].force)
                        continue;
                request->kind = REQUEST_POSTGRES;
                request->postgres.wish = wishes[i].wish;
                return true;
        }
        return false;
}

json_t *api_json_postgres_reply(const struct api *api, const struct reply *reply)
{
        return json_pack("{s:o, s:o}", "node", text_or_null(node_name(api, reply->postgres.node)),
                         "text", json_stringn((const char *)reply->text.ptr, reply->text.len));
}
