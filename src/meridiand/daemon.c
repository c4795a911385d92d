/* Starts the parts in the order in which they need each other, runs the loop, and stops them.
 *
 * The happy path: topology, certificate, data folder, node, view, link, api, driver (which steps
 * the node for the first time), loop. Whatever fails before the loop is said in one line, and what
 * was started is stopped again the same way as at the end. */
#include "meridiand/daemon.h"
#include "base/check.h"
#include "base/log.h"
#include "meridiand/restore.h"
#include "node/node.h"
#include "pki/pki.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define SECOND_MS 1000

static const int stop_signals[] = {SIGTERM, SIGINT};
_Static_assert(COUNT_OF(stop_signals) == COUNT_OF(((struct daemon *)0)->signals), "one each");

/* ---- checks ---- */

static struct pki_files files_of(const struct config *config)
{
        return (struct pki_files){
                .ca = config->pki_ca,
                .cert = config->pki_cert,
                .key = config->pki_key,
                .crl = config->pki_crl[0] == '\0' ? NULL : config->pki_crl,
        };
}

static bool topology_read(struct daemon *daemon)
{
        struct io_error error;
        struct topology_error fault;
        char text[512];
        const char *path = daemon->config.topology;
        if (io_file_read(&daemon->heap, path, TOPOLOGY_BYTES_MAX, &daemon->document,
                         &daemon->document_len, &error) != ERR_NONE) {
                LOG_ERROR("topology", "%s", error.text);
                return false;
        }
        if (!topology_parse(bytes_of(daemon->document, daemon->document_len), &daemon->topology,
                            &fault)) {
                LOG_ERROR("topology", "%s: %s", path,
                          topology_error_text(&fault, text, sizeof text));
                return false;
        }
        return true;
}

/* The newest topology that this node knew is kept beside its journals: what it was given may be so
 * old that nobody of it is there any more. */
static void topology_kept(struct daemon *daemon)
{
        struct io_error error;
        struct topology_error fault;
        char path[CONFIG_TEXT_MAX + 16];
        uint8_t *kept = NULL;
        size_t len = 0;
        struct topology *topology = heap_alloc(&daemon->heap, sizeof *topology);
        snprintf(path, sizeof path, "%s/topology", daemon->config.data_dir);
        if (topology != NULL &&
            io_file_read(&daemon->heap, path, TOPOLOGY_BYTES_MAX, &kept, &len, &error) ==
                    ERR_NONE &&
            topology_parse(bytes_of(kept, len), topology, &fault) &&
            topology->epoch > daemon->topology.epoch &&
            strcmp(topology->cluster, daemon->topology.cluster) == 0 &&
            topology_region_of_node(topology, daemon->config.node) != NULL) {
                LOG_INFO("topology", "%s of epoch %llu is newer than %s", path,
                         (unsigned long long)topology->epoch, daemon->config.topology);
                heap_free(&daemon->heap, daemon->document);
                daemon->document = kept;
                daemon->document_len = len;
                daemon->topology = *topology;
                kept = NULL;
        }
        heap_free(&daemon->heap, kept);
        heap_free(&daemon->heap, topology);
}

/* Configuration and topology speak of the same node. */
static bool identity_check(const struct daemon *daemon)
{
        const struct config *config = &daemon->config;
        const struct topology_region *region =
                topology_region_of_node(&daemon->topology, config->node);
        if (strcmp(daemon->topology.cluster, config->cluster) != 0) {
                LOG_ERROR("config",
                          "the cluster is '%s' in the configuration and '%s' in %s; make "
                          "them the same",
                          config->cluster, daemon->topology.cluster, config->topology);
                return false;
        }
        if (region == NULL || strcmp(region->name, config->region) != 0) {
                LOG_ERROR("config",
                          "%s has no node %u in region '%s'; correct node or region in "
                          "the configuration, or add it there",
                          config->topology, config->node, config->region);
                return false;
        }
        return true;
}

/* The password and the certificates by which Redis is reached. */
static bool redis_check(struct daemon *daemon)
{
        const struct config *config = &daemon->config;
        struct engine_tls files = {
                .ca = config->redis_ca, .cert = config->redis_cert, .key = config->redis_key};
        struct engine_tls_error error;
        if (config->redis_password[0] != '\0' &&
            !secret_read(config->redis_password, daemon->redis_password,
                         sizeof daemon->redis_password))
                return false;
        if (!config->redis_tls)
                return true;
        daemon->redis_tls = engine_tls_new(&files, &error);
        if (daemon->redis_tls == NULL)
                LOG_ERROR("redis-tls", "%s", error.text);
        return daemon->redis_tls != NULL;
}

bool daemon_check(struct daemon *daemon, int64_t *ret_days_left)
{
        const struct config *config = &daemon->config;
        struct pki_identity self;
        struct pki_error error;
        struct pki_files files = files_of(config);
        if (!topology_read(daemon))
                return false;
        topology_kept(daemon);
        if (!identity_check(daemon))
                return false;
        if (!redis_check(daemon))
                return false;
        enum err err = pki_identity_set(&self, config->cluster, config->region, config->node);
        CHECK(err == ERR_NONE); /* the configuration and the topology allow no other names */
        if (pki_node_verify(&files, &self, ret_days_left, &error) != ERR_NONE) {
                LOG_ERROR("certificate", "%s", error.text);
                return false;
        }
        return true;
}

/* ---- parts ---- */

static bool folders_open(struct daemon *daemon)
{
        struct io_error error;
        if (io_dir_make(daemon->config.data_dir, &error) == ERR_NONE &&
            io_dir_make(daemon->config.run_dir, &error) == ERR_NONE &&
            io_dir_lock(daemon->config.data_dir, &daemon->lock_fd, &error) == ERR_NONE &&
            io_incarnation_next(daemon->config.data_dir, &daemon->incarnation, &error) == ERR_NONE)
                return true;
        LOG_ERROR("data", "%s", error.text);
        return false;
}

static bool node_open(struct daemon *daemon)
{
        struct node_config config = {
                .self = daemon->config.node,
                .topology = bytes_of(daemon->document, daemon->document_len),
                .early_votes = true,
                .lock_copies = true,
                .level_max = (uint8_t)daemon->config.level,
        };
        if (!restore_life(&daemon->heap, daemon->config.data_dir, &config.life))
                return false;
        enum err err = node_new(&daemon->heap, &config, &daemon->node);
        if (err != ERR_NONE)
                LOG_ERROR("node", "the node cannot be made: %s", err_text(err));
        return err == ERR_NONE && restore_begin(&daemon->heap, daemon->config.data_dir,
                                                daemon->node, &daemon->incarnation);
}

static bool view_open(struct daemon *daemon)
{
        char path[CONFIG_TEXT_MAX + 8], why[512];
        snprintf(path, sizeof path, "%s/view", daemon->config.run_dir);
        enum err err = view_writer_open(path, VIEW_GROUP_DEFAULT, &daemon->view, why, sizeof why);
        if (err != ERR_NONE) {
                LOG_ERROR("view", "%s", why);
                return false;
        }
        struct board board;
        view_writer_page(daemon->view, &daemon->board);
        if (board_open(buffer_view(&daemon->board), &board) == ERR_NONE)
                daemon->board_revision = board.revision;
        else
                buffer_reset(&daemon->board);
        return true;
}

/* A database that is not there yet is no reason not to start: it is looked for every second. */
static bool geo_open(struct daemon *daemon)
{
        char why[512];
        if (daemon->config.geo[0] == '\0')
                return true;
        daemon->geo = geo_new(daemon->config.geo);
        if (daemon->geo == NULL)
                return false;
        if (geo_refresh(daemon->geo, NULL, why, sizeof why) != ERR_NONE)
                LOG_WARN("geo", "%s", why);
        return true;
}

static bool link_open(struct daemon *daemon)
{
        const struct config *config = &daemon->config;
        struct pki_error error;
        struct link_callbacks callbacks = wire_link(daemon);
        struct link_config wish = {
                .heap = &daemon->heap,
                .self = config->node,
                .cluster = config->cluster,
                .region = config->region,
                .host = config->link.host,
                .port = config->link.port,
                .files = files_of(config),
                .peers = daemon->peers,
                .peer_count = wire_peers(daemon, node_topology(daemon->node)),
                .seed = system_seed(),
                .allow_impairments = config->impairments,
        };
        enum err err = link_new(&daemon->loop, &wish, &callbacks, &daemon->link, &error);
        if (err != ERR_NONE)
                LOG_ERROR("link", "%s", error.text);
        return err == ERR_NONE;
}

static bool api_open(struct daemon *daemon)
{
        char why[512];
        struct api_config config = {
                .admin_host = daemon->config.admin.host,
                .admin_port = daemon->config.admin.port,
                .locks_host = daemon->config.locks.host,
                .locks_port = daemon->config.locks.port,
                .lab = daemon->config.impairments,
                .geo = daemon->geo,
                .host = wire_api(daemon),
        };
        enum err err = api_new(&daemon->loop, &config, &daemon->api, why, sizeof why);
        if (err != ERR_NONE)
                LOG_ERROR("api", "%s", why);
        return err == ERR_NONE;
}

static struct topology_endpoint endpoint_of(const struct config_address *address)
{
        struct topology_endpoint endpoint = {0};
        if (address->host[0] == '\0')
                return endpoint;
        bool parsed = topology_address_parse(bytes_of_str(address->host), &endpoint.address);
        CHECK(parsed); /* the configuration takes nothing else */
        endpoint.port = address->port;
        return endpoint;
}

static bool engine_open(struct daemon *daemon)
{
        struct engine_config config = {
                .loop = &daemon->loop,
                .heap = &daemon->heap,
                .seed = system_seed(),
                .redis = endpoint_of(&daemon->config.redis),
                .redis_cluster = daemon->config.redis_cluster,
                .redis_node_count = daemon->config.redis_nodes.count,
                .redis_password = daemon->redis_password,
                .redis_user = daemon->config.redis_user,
                .redis_tls = daemon->redis_tls,
                .dns = endpoint_of(&daemon->config.dns),
                .edge = endpoint_of(&daemon->config.edge),
                .user = daemon,
                .event = wire_engine_event,
                .note = wire_engine_note,
                .conflict = wire_engine_conflict,
                .shown = wire_engine_shown,
                .verified = wire_engine_verified,
        };
        _Static_assert((int)CONFIG_NODES_MAX <= (int)ENGINE_NODES_MAX, "all that are configured");
        memcpy(config.redis_master, daemon->config.redis_master, sizeof config.redis_master);
        for (size_t i = 0; i < config.redis_node_count; i++)
                config.redis_nodes[i] = endpoint_of(&daemon->config.redis_nodes.items[i]);
        enum err err = engine_new(&config, &daemon->engine);
        if (err != ERR_NONE)
                LOG_ERROR("engine", "the region's servers cannot be looked at: %s", err_text(err));
        return err == ERR_NONE;
}

static void path_copy(char *to, const char *from)
{
        _Static_assert((int)WARDEN_PATH_SIZE == (int)CONFIG_TEXT_MAX, "any path fits");
        memcpy(to, from, WARDEN_PATH_SIZE);
}

static void warden_wish(const struct config *config, struct warden_config *ret)
{
        const struct config_warden *wish = &config->warden;
        *ret = (struct warden_config){
                .self = config->node,
                .keep = wish->keep,
                .hasty = config->hasty,
                .listen = endpoint_of(&config->postgres),
                .tunnel = endpoint_of(&config->postgres_follow),
        };
        _Static_assert(sizeof ret->user == sizeof wish->user, "any name fits");
        memcpy(ret->user, wish->user, sizeof ret->user);
        path_copy(ret->bin, wish->bin);
        path_copy(ret->home, wish->home);
        path_copy(ret->data, wish->data);
        path_copy(ret->password, wish->password);
        path_copy(ret->library, wish->library);
        path_copy(ret->init, wish->init);
        path_copy(ret->settings, wish->settings);
        path_copy(ret->archive, wish->archive);
        path_copy(ret->adopt, wish->adopt);
}

static void plan_print(void *user, const char *text)
{
        (void)user;
        printf("%s\n", text);
}

bool daemon_plan(const struct config *config)
{
        struct warden_config wish;
        if (config->warden.home[0] == '\0')
                return true;
        warden_wish(config, &wish);
        return warden_plan(&wish, plan_print, NULL);
}

static bool warden_open(struct daemon *daemon)
{
        char why[512];
        struct warden_config config;
        if (daemon->config.warden.home[0] == '\0')
                return true;
        warden_wish(&daemon->config, &config);
        config.loop = &daemon->loop;
        config.heap = &daemon->heap;
        config.upstream = wire_warden_upstream;
        config.user_data = daemon;
        config.event = wire_warden_event;
        config.note = wire_warden_note;
        enum err err = warden_new(&config, &daemon->warden, why, sizeof why);
        if (err == ERR_NONE)
                roads_pass_open(daemon);
        if (err == ERR_NONE)
                err = warden_start(daemon->warden);
        if (err != ERR_NONE)
                LOG_ERROR("postgres", "%s", daemon->warden != NULL ? err_text(err) : why);
        return err == ERR_NONE;
}

static void step(void *node, const struct world_event *event, struct world_effects *ret_effects)
{
        node_step(node, event, ret_effects);
}

static bool driver_open(struct daemon *daemon)
{
        struct io_error error;
        struct io_config config = {
                .loop = &daemon->loop,
                .heap = &daemon->heap,
                .data_dir = daemon->config.data_dir,
                .incarnation = daemon->incarnation,
                .seed = system_seed(),
                .journal_known = consensus_journal_known,
                .node = {daemon->node, step},
                .ports = wire_ports(daemon),
        };
        enum err err = io_driver_new(&config, &daemon->driver, &error);
        if (err != ERR_NONE)
                LOG_ERROR("data", "%s", error.text);
        return err == ERR_NONE;
}

/* ---- the loop ---- */

/* Once a second: a view that is not old, a geo database that was replaced. */
static void on_second(uv_timer_t *timer)
{
        struct daemon *daemon = timer->data;
        bool changed = false;
        char why[512];
        wire_publish(daemon);
        if (daemon->geo != NULL &&
            geo_refresh(daemon->geo, &changed, why, sizeof why) == ERR_NONE && changed)
                LOG_INFO("geo", "%s is in use", daemon->config.geo);
}

static void on_signal(uv_signal_t *signal, int number)
{
        struct daemon *daemon = signal->data;
        if (daemon->stopping) {
                LOG_WARN("stop", "signal %d again: ending at once", number);
                _exit(1);
        }
        LOG_INFO("stop", "signal %d: stopping", number);
        daemon_stop(daemon, 0);
}

static bool handles_open(struct daemon *daemon)
{
        if (uv_timer_init(&daemon->loop, &daemon->second) != 0)
                return false;
        daemon->second.data = daemon;
        daemon->handles++;
        uv_timer_start(&daemon->second, on_second, SECOND_MS, SECOND_MS);
        for (size_t i = 0; i < COUNT_OF(stop_signals); i++) {
                if (uv_signal_init(&daemon->loop, &daemon->signals[i]) != 0)
                        return false;
                daemon->signals[i].data = daemon;
                daemon->handles++;
                if (uv_signal_start(&daemon->signals[i], on_signal, stop_signals[i]) != 0)
                        return false;
        }
        return true;
}

static bool daemon_open(struct daemon *daemon)
{
        if (uv_loop_init(&daemon->loop) != 0) {
                LOG_ERROR("loop", "the loop cannot be made: are too many files open?");
                return false;
        }
        daemon->loop_open = true;
        return folders_open(daemon) && node_open(daemon) && view_open(daemon) && geo_open(daemon) &&
               link_open(daemon) && roads_open(daemon) && api_open(daemon) && engine_open(daemon) &&
               warden_open(daemon) && driver_open(daemon) && handles_open(daemon);
}

/* ---- the end ---- */

static void on_driver_closed(void *user)
{
        struct daemon *daemon = user;
        daemon->driver_closed = true;
}

static void on_link_closed(void *user)
{
        struct daemon *daemon = user;
        daemon->link_closed = true;
}

static void on_road_closed(void *user)
{
        struct daemon *daemon = user;
        daemon->road_closed = true;
}

static void on_engine_closed(void *user)
{
        struct daemon *daemon = user;
        daemon->engine_closed = true;
}

static void on_warden_closed(void *user)
{
        struct daemon *daemon = user;
        daemon->warden_closed = true;
}

static void on_api_closed(void *context)
{
        struct daemon *daemon = context;
        daemon->api = NULL;
}

static void handles_close(struct daemon *daemon)
{
        if (daemon->handles > 0)
                uv_close((uv_handle_t *)&daemon->second, NULL);
        for (unsigned i = 0; i + 1 < daemon->handles; i++)
                uv_close((uv_handle_t *)&daemon->signals[i], NULL);
        daemon->handles = 0;
}

static void parts_close(struct daemon *daemon)
{
        if (daemon->closing)
                return;
        daemon->closing = true;
        system_notify("STOPPING=1");
        if (daemon->driver != NULL)
                io_driver_close(daemon->driver, on_driver_closed, daemon);
        if (daemon->road != NULL)
                road_close(daemon->road, on_road_closed, daemon);
        if (daemon->link != NULL)
                link_close(daemon->link, on_link_closed, daemon);
        if (daemon->engine_started)
                engine_close(daemon->engine, on_engine_closed, daemon);
        if (daemon->warden != NULL)
                warden_close(daemon->warden, on_warden_closed, daemon);
        if (daemon->api != NULL)
                api_close(daemon->api, on_api_closed, daemon);
        uv_timer_stop(&daemon->second);
}

/* A node may fail in its very first step, while the parts are being opened: then they are closed
 * once the opening is over, when all that there is to close is known. */
void daemon_stop(struct daemon *daemon, int exit_status)
{
        if (!daemon->stopping)
                daemon->exit_status = exit_status;
        daemon->stopping = true;
        if (daemon->opened)
                parts_close(daemon);
}

static void daemon_close(struct daemon *daemon)
{
        daemon_stop(daemon, 1);
        handles_close(daemon);
        if (daemon->loop_open) {
                uv_run(&daemon->loop, UV_RUN_DEFAULT);
                int result = uv_loop_close(&daemon->loop);
                if (result != 0)
                        LOG_ERROR("loop", "something was left open: %s", uv_strerror(result));
        }
        CHECK(IMPLIES(daemon->driver != NULL, daemon->driver_closed));
        CHECK(IMPLIES(daemon->link != NULL, daemon->link_closed));
        CHECK(IMPLIES(daemon->road != NULL, daemon->road_closed));
        CHECK(IMPLIES(daemon->engine_started, daemon->engine_closed));
        CHECK(IMPLIES(daemon->warden != NULL, daemon->warden_closed));
        io_driver_free(daemon->driver);
        road_free(daemon->road);
        link_free(daemon->link);
        engine_free(daemon->engine);
        engine_tls_free(daemon->redis_tls);
        warden_free(daemon->warden);
        geo_free(daemon->geo);
        view_writer_close(daemon->view);
        buffer_fini(&daemon->board);
        node_free(daemon->node);
        if (daemon->lock_fd >= 0)
                io_dir_unlock(daemon->lock_fd);
}

/* Turns until somebody stops it. The signal handles keep the loop alive. */
static void daemon_turn(struct daemon *daemon)
{
        while (!daemon->stopping)
                uv_run(&daemon->loop, UV_RUN_ONCE);
}

int daemon_run(struct daemon *daemon)
{
        bool open = daemon_open(daemon);
        daemon->opened = true;
        if (open && !daemon->stopping) {
                LOG_INFO("started",
                         "node %u in %s, start %llu: link %s:%u, admin %s:%u, locks %s:%u",
                         daemon->config.node, daemon->config.region,
                         (unsigned long long)daemon->incarnation, daemon->config.link.host,
                         daemon->config.link.port, daemon->config.admin.host,
                         daemon->config.admin.port, daemon->config.locks.host,
                         daemon->config.locks.port);
                engine_start(daemon->engine);
                daemon->engine_started = true;
                system_notify("READY=1");
                daemon_turn(daemon);
        }
        daemon_close(daemon);
        LOG_INFO("stopped", "exit status %d", daemon->exit_status);
        return daemon->exit_status;
}
