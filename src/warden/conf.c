/* conf.c - what the server reads: meridian.conf in its data folder, written anew before each start
 * and at each change, and included by its postgresql.conf; so it holds also where somebody starts
 * the server by hand. Settings of ours that ALTER SYSTEM, or a copy from another node, left in
 * postgresql.auto.conf would win over it: they are taken out. */
#include "warden/warden_priv.h"

#include "base/buffer.h"

#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define INCLUDE   "include = 'meridian.conf'"
#define LIBRARIES "shared_preload_libraries"

enum {
        CONF_FILE_MAX = 256 << 10,
};

/* Settings that are nobody's but ours. */
static const char *const own_settings[] = {
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "hba_file",
        "ident_file",
        "meridian.gate",
        "meridian.doors",
        "primary_conninfo",
        "primary_slot_name",
        "synchronous_standby_names",
        "recovery_target_timeline",
        "restore_command",
        "archive_command",
        "archive_mode",
        "archive_library",
        LIBRARIES,
        "recovery_target",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
        "recovery_target_lsn",
        "recovery_target_action",
};

static const char conf_fixed[] = "hot_standby = on\n"
                                 "wal_level = replica\n"
                                 "wal_log_hints = on\n"
                                 "full_page_writes = on\n"
                                 "fsync = on\n"
                                 "max_wal_senders = 20\n"
                                 "max_replication_slots = 20\n"
                                 "wal_keep_size = '256MB'\n"
                                 "max_slot_wal_keep_size = '1GB'\n"
                                 "wal_sender_timeout = '10s'\n"
                                 "wal_receiver_timeout = '5s'\n"
                                 "wal_receiver_status_interval = '1s'\n"
                                 "wal_retrieve_retry_interval = '200ms'\n"
                                 "recovery_target_timeline = 'latest'\n"
                                 "tcp_keepalives_idle = 5\n"
                                 "tcp_keepalives_interval = 2\n"
                                 "tcp_keepalives_count = 3\n"
                                 "password_encryption = 'scram-sha-256'\n";

/* May a commit here wait for that one? It has to be able to become primary, and in another region,
 * where there is any: what a commit waits for is to outlive its own. */
static bool waited_for(const struct warden *warden, unsigned index)
{
        const struct peers *peers = &warden->peers;
        region_id own = 0;
        bool alone = true;
        for (unsigned i = 0; i < peers->count; i++) {
                if (peers->ids[i] == warden->config.self)
                        own = peers->regions[i];
                alone = alone && peers->regions[i] == peers->regions[0];
        }
        return peers->ids[index] != warden->config.self && !peers->never[index] &&
               (alone || peers->regions[index] != own);
}

static void sync_names(const struct warden *warden, struct buffer *text)
{
        const struct peers *peers = &warden->peers;
        bool first = true;
        buffer_format(text, "synchronous_standby_names = '");
        for (unsigned i = 0; i < peers->count && peers->sync > 0; i++) {
                if (!waited_for(warden, i))
                        continue;
                if (first)
                        buffer_format(text, "ANY %u (", peers->sync);
                buffer_format(text, "%s\"%s\"", first ? "" : ", ", peers->names[i]);
                first = false;
        }
        buffer_format(text, "%s'\n", first ? "" : ")");
}

/* In quotes, its own doubled. */
static void setting(struct buffer *text, const char *name, const char *value)
{
        buffer_format(text, "%s = '", name);
        for (const char *at = value; *at != '\0'; at++)
                buffer_format(text, "%s%c", *at == '\'' ? "'" : "", *at);
        buffer_format(text, "'\n");
}

static void archive_settings(const struct warden *warden, struct buffer *text)
{
        const char *folder = warden->config.archive;
        char command[WARDEN_PATH_SIZE * 8];
        if (folder[0] == '\0')
                return;
        /* Where more files wait than the archive keeps, the oldest is given up: it would not have
         * been kept, and log that waits for ever would fill the server's own disk. */
        (void)snprintf(command, sizeof command,
                       "cp \"%%p\" \"%s/%%f.part\" && sync \"%s/%%f.part\" && "
                       "mv \"%s/%%f.part\" \"%s/%%f\" || { rm -f \"%s/%%f.part\"; "
                       "test `ls pg_wal/archive_status | grep -c \"ready$\"` -gt %d; }",
                       folder, folder, folder, folder, folder, ARCHIVE_FILES);
        buffer_format(text, "archive_mode = on\n");
        setting(text, "archive_command", command);
        /* Histories are taken from the folder of the cluster where they are there: the epoch of a
         * promotion that is about to happen stands in that copy. */
        (void)snprintf(
                command, sizeof command,
                "case \"%%f\" in *.history) test -f \"pg_wal/%%f\" && exec cp \"pg_wal/%%f\" "
                "\"%%p\";; esac; cp \"%s/%%f\" \"%%p\"",
                folder);
        setting(text, "restore_command", command);
}

bool conf_text(const struct warden *warden, node_id upstream, struct buffer *text)
{
        char host[TOPOLOGY_ADDRESS_TEXT], conninfo[WARDEN_PATH_SIZE * 2] = "";
        const struct warden_config *config = &warden->config;
        buffer_format(text, "# Written by meridiand: changes are lost. Settings of your own belong "
                            "into postgresql.conf, or the file of the key 'postgres settings'.\n");
        buffer_format(text, "listen_addresses = '%s'\nport = %u\n",
                      topology_address_text(&config->listen.address, host), config->listen.port);
        setting(text, "unix_socket_directories", warden->paths.socket);
        setting(text, "hba_file", warden->paths.hba);
        setting(text, "ident_file", warden->paths.ident);
        setting(text, "shared_preload_libraries",
                config->library[0] != '\0' ? config->library : "meridian");
        setting(text, "meridian.gate", warden->paths.gate);
        setting(text, "meridian.doors", warden->paths.doors);
        buffer_format(text, "%s", conf_fixed);
        sync_names(warden, text);
        archive_settings(warden, text);
        if (upstream != 0 && !sql_upstream(warden, upstream, "", conninfo))
                return false;
        setting(text, "primary_conninfo", conninfo);
        buffer_format(text, "primary_slot_name = 'meridian_%u'\n", config->self);
        if (config->settings[0] != '\0')
                setting(text, "include", config->settings);
        return text->err == ERR_NONE;
}

/* ---- rights ---- */

static void user_name(uid_t uid, char name[static WARDEN_NAME_SIZE])
{
        char store[4096];
        struct passwd entry;
        struct passwd *found = NULL;
        if (getpwuid_r(uid, &entry, store, sizeof store, &found) == 0 && found != NULL)
                (void)snprintf(name, WARDEN_NAME_SIZE, "%s", found->pw_name);
        else
                (void)snprintf(name, WARDEN_NAME_SIZE, "%u", uid);
}

static bool rights_write(struct warden *warden, const char *data, struct buffer *text,
                         struct fail *fail)
{
        static const char own[] = "local all postgres peer map=meridian\n"
                                  "local replication postgres peer map=meridian\n"
                                  "host replication " ROLE " all scram-sha-256\n"
                                  "host postgres " ROLE " all scram-sha-256\n"
                                  "host all " ROLE " all reject\n";
        char name[WARDEN_NAME_SIZE], path[WARDEN_PATH_SIZE], *theirs;
        size_t len = 0;
        buffer_reset(text);
        user_name(geteuid(), name);
        buffer_format(text, "meridian \"%s\" postgres\n", name);
        user_name(warden->uid, name);
        buffer_format(text, "meridian \"%s\" postgres\n", name);
        if (!file_write(warden, warden->paths.ident, buffer_view(text), fail))
                return false;
        buffer_reset(text);
        buffer_format(text,
                      "# Written by meridiand: its own lines, then those of %s/pg_hba.conf.\n%s",
                      warden->paths.data, own);
        theirs = malloc(CONF_FILE_MAX);
        if (theirs != NULL && path_set(path, "%s/pg_hba.conf", data) &&
            file_read(path, theirs, CONF_FILE_MAX, &len))
                buffer_bytes(text, bytes_of(theirs, len));
        free(theirs);
        return text->err == ERR_NONE &&
               file_write(warden, warden->paths.hba, buffer_view(text), fail);
}

/* ---- making PostgreSQL read it ---- */

/* Of ours, or NULL. A list of libraries that has ours in it may stay: ours closes the gate. */
static const char *own_setting_of(struct bytes line)
{
        static const char ours[] = "meridian";
        while (line.len > 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
                line = bytes_of(line.ptr + 1, line.len - 1);
        for (size_t i = 0; i < COUNT_OF(own_settings); i++) {
                size_t len = strlen(own_settings[i]);
                bool found =
                        line.len > len && memcmp(line.ptr, own_settings[i], len) == 0 &&
                        (line.ptr[len] == ' ' || line.ptr[len] == '=' || line.ptr[len] == '\t');
                if (found && (strcmp(own_settings[i], LIBRARIES) != 0 ||
                              memmem(line.ptr, line.len, ours, strlen(ours)) == NULL))
                        return own_settings[i];
        }
        return NULL;
}

static bool own_setting(struct bytes line)
{
        return own_setting_of(line) != NULL;
}

/* Copies the lines of a file but those that `drop` names. Returns how many were dropped. */
static unsigned lines_copy(struct bytes rest, bool (*drop)(struct bytes line), struct buffer *text)
{
        unsigned dropped = 0;
        buffer_reset(text);
        while (rest.len > 0) {
                struct bytes line = line_take(&rest);
                if (drop(line))
                        dropped++;
                else
                        buffer_bytes(text, line);
        }
        return dropped;
}

static bool is_include(struct bytes line)
{
        return bytes_starts_with(line, BYTES(INCLUDE));
}

static bool included(struct warden *warden, const char *data, char *store, struct buffer *text,
                     struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        size_t len;
        if (!path_set(path, "%s/postgresql.conf", data) ||
            !file_read(path, store, CONF_FILE_MAX, &len))
                return fail_set(fail,
                                "%s/postgresql.conf is not there: move the configuration of this "
                                "cluster into its data folder",
                                data);
        if (lines_copy(bytes_of(store, len), is_include, text) == 0) {
                buffer_format(text, "\n" INCLUDE " # by meridiand; the last line counts\n");
                if (text->err != ERR_NONE || !file_write(warden, path, buffer_view(text), fail))
                        return false;
        }
        if (!path_set(path, "%s/postgresql.auto.conf", data) ||
            !file_read(path, store, CONF_FILE_MAX, &len))
                return true;
        return lines_copy(bytes_of(store, len), own_setting, text) == 0 ||
               file_write(warden, path, buffer_view(text), fail);
}

bool conf_write(struct warden *warden, const char *data, node_id upstream, struct fail *fail)
{
        struct heap heap;
        struct buffer text;
        char path[WARDEN_PATH_SIZE];
        char *store = malloc(CONF_FILE_MAX);
        heap_init(&heap, 0);
        buffer_init(&text, &heap);
        bool done = store != NULL && path_set(path, "%s/meridian.conf", data);
        if (done && !conf_text(warden, upstream, &text))
                done = fail_set(fail, "node %u has no address in the topology", upstream);
        done = done && file_write(warden, path, buffer_view(&text), fail) &&
               included(warden, data, store, &text, fail) &&
               rights_write(warden, data, &text, fail);
        buffer_fini(&text);
        free(store);
        return done;
}

const char *conf_overridden(struct warden *warden)
{
        char path[WARDEN_PATH_SIZE], *store;
        const char *found = NULL;
        struct stat info;
        size_t len = 0;
        if (!path_set(path, "%s/postgresql.auto.conf", warden->paths.data) ||
            stat(path, &info) != 0)
                return NULL;
        int64_t changed_ns =
                (int64_t)info.st_mtim.tv_sec * 1000000000 + (int64_t)info.st_mtim.tv_nsec;
        if (changed_ns == warden->overrides_ns && info.st_ino == warden->overrides_inode)
                return NULL;
        store = malloc(CONF_FILE_MAX);
        if (store != NULL && file_read(path, store, CONF_FILE_MAX, &len)) {
                struct bytes rest = bytes_of(store, len);
                while (rest.len > 0 && found == NULL)
                        found = own_setting_of(line_take(&rest));
                warden->overrides_ns = changed_ns;
                warden->overrides_inode = info.st_ino;
        }
        free(store);
        return found;
}

bool conf_reload(struct warden *warden, node_id upstream, struct fail *fail)
{
        return conf_write(warden, warden->paths.data, upstream, fail) &&
               sql_do(warden, "SELECT pg_reload_conf()", 3000, fail);
}
