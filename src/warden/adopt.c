/* adopt.c - a cluster that somebody else made becomes one of ours. Its configuration may lie
 * elsewhere, as Debian has it: then it is copied into the data folder, but for what says where
 * things lie, so that the copies on other nodes read the same. The role for replication is added by
 * a server that nobody else can reach. Before any of it warden_plan tells what would change. */
#include "warden/warden_priv.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

#define ASK_MS 3000

enum {
        FILE_MAX = 256 << 10,
        EXTRA_MAX = 32, /* files of conf.d */
};

/* Where things lie: another node's copy lies elsewhere. */
static const char *const places[] = {
        "data_directory", "hba_file", "ident_file", "external_pid_file", "include_dir",
};

/* A line "name = value # ..." of a configuration file, its parts borrowed. False: it sets
 * nothing. */
static bool setting_read(struct bytes line, struct bytes *ret_name, struct bytes *ret_value)
{
        size_t at = 0, end = 0;
        while (at < line.len && (line.ptr[at] == ' ' || line.ptr[at] == '\t'))
                at++;
        for (end = at; end < line.len && strchr(" \t=#\r\n", line.ptr[end]) == NULL; end++)
                ;
        if (end == at)
                return false;
        *ret_name = bytes_of(line.ptr + at, end - at);
        for (at = end; at < line.len && strchr(" \t=", line.ptr[at]) != NULL; at++)
                ;
        bool quoted = false;
        for (end = at; end < line.len && line.ptr[end] != '\n' && line.ptr[end] != '\r'; end++) {
                if (line.ptr[end] == '\'')
                        quoted = !quoted;
                if (line.ptr[end] == '#' && !quoted)
                        break;
        }
        while (end > at && (line.ptr[end - 1] == ' ' || line.ptr[end - 1] == '\t'))
                end--;
        *ret_value = bytes_of(line.ptr + at, end - at);
        return true;
}

static bool is_place(struct bytes line)
{
        struct bytes name, value;
        if (!setting_read(line, &name, &value))
                return false;
        for (size_t i = 0; i < COUNT_OF(places); i++)
                if (bytes_equal(name, bytes_of_str(places[i])))
                        return true;
        return false;
}

/* Adds a file's lines but those that say where things lie. */
static bool file_add(const char *path, char *store, struct buffer *text)
{
        size_t len = 0;
        if (!file_read(path, store, FILE_MAX, &len))
                return false;
        for (struct bytes rest = bytes_of(store, len); rest.len > 0;) {
                struct bytes line = line_take(&rest);
                buffer_format(text, "%s", is_place(line) ? "# " : "");
                buffer_bytes(text, line);
        }
        buffer_format(text, "\n");
        return text->err == ERR_NONE;
}

static int name_compare(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

/* conf.d/, in the order in which PostgreSQL reads it. */
static void extras_add(const char *folder, char *store, struct buffer *text)
{
        char path[WARDEN_PATH_SIZE], *names[EXTRA_MAX];
        unsigned count = 0;
        DIR *dir = path_set(path, "%s/conf.d", folder) ? opendir(path) : NULL;
        if (dir == NULL)
                return;
        for (struct dirent *entry = dir_next(dir); entry != NULL && count < EXTRA_MAX;
             entry = dir_next(dir)) {
                size_t len = strlen(entry->d_name);
                if (entry->d_name[0] != '.' && len > 5 &&
                    strcmp(entry->d_name + len - 5, ".conf") == 0 &&
                    (names[count] = strdup(entry->d_name)) != NULL)
                        count++;
        }
        closedir(dir);
        qsort(names, count, sizeof names[0], name_compare);
        for (unsigned i = 0; i < count; i++) {
                buffer_format(text, "# conf.d/%s\n", names[i]);
                if (path_set(path, "%s/conf.d/%s", folder, names[i]))
                        (void)!file_add(path, store, text);
                free(names[i]);
        }
}

/* The whole configuration of the cluster, without what says where things lie. */
static bool configuration(const char *folder, char *store, struct buffer *text, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        buffer_reset(text);
        buffer_format(text, "# Copied by meridiand from %s, where it is read no more.\n", folder);
        if (!path_set(path, "%s/postgresql.conf", folder) || !file_add(path, store, text))
                return fail_set(fail,
                                "%s cannot be read, or is too long: correct the key 'postgres "
                                "adopt'",
                                path);
        extras_add(folder, store, text);
        return text->err == ERR_NONE || fail_set(fail, "no memory");
}

static bool copy_in(struct warden *warden, const char *name, struct bytes data, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        return path_set(path, "%s/%s", warden->paths.data, name) &&
               file_write(warden, path, data, fail);
}

static bool take_in(struct warden *warden, char *store, struct buffer *text, struct fail *fail)
{
        const char *folder = warden->config.adopt;
        char path[WARDEN_PATH_SIZE];
        size_t len = 0;
        if (!path_set(path, "%s/pg_hba.conf", folder) || !file_read(path, store, FILE_MAX, &len))
                return fail_set(fail, "%s cannot be read: correct the key 'postgres adopt'", path);
        /* postgresql.conf last: it says that all is there. */
        return copy_in(warden, "pg_hba.conf", bytes_of(store, len), fail) &&
               configuration(folder, store, text, fail) &&
               copy_in(warden, "postgresql.conf", buffer_view(text), fail);
}

static bool configuration_there(struct warden *warden, struct fail *fail)
{
        struct heap heap;
        struct buffer text;
        if (file_there("%s/postgresql.conf", warden->paths.data))
                return true;
        if (warden->config.adopt[0] == '\0')
                return fail_set(fail,
                                "%s has no postgresql.conf: name the folder that has it, with "
                                "pg_hba.conf, by the key 'postgres adopt' (Debian: "
                                "/etc/postgresql/15/main)",
                                warden->paths.data);
        char *store = malloc(FILE_MAX);
        heap_init(&heap, 0);
        buffer_init(&text, &heap);
        bool done =
                store == NULL ? fail_set(fail, "no memory") : take_in(warden, store, &text, fail);
        buffer_fini(&text);
        free(store);
        return done;
}

bool adopt(struct warden *warden, struct fail *fail)
{
        char sql[1024];
        if (!check_folder(warden, fail) || !configuration_there(warden, fail))
                return false;
        (void)snprintf(sql, sizeof sql,
                       "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '" ROLE
                       "') THEN CREATE ROLE " ROLE "; END IF; END $$; "
                       "ALTER ROLE " ROLE " LOGIN REPLICATION PASSWORD '%s'; " GRANTS,
                       warden->password);
        if (!server_start(warden, SERVER_ALONE, 0, fail) || !sql_do(warden, sql, ASK_MS, fail) ||
            !server_stop(warden, true, fail))
                return false;
        warden_note(warden, "postgres-adopted", "PostgreSQL: the cluster in %.300s is adopted",
                    warden->paths.data);
        return true;
}

/* ---- what it would be ---- */

struct plan {
        void (*line)(void *user, const char *text);
        void *user;
        bool clear; /* nothing is in the way */
};

static void say(struct plan *plan, const char *format, ...) PRINTF_LIKE(2, 3);

static void say(struct plan *plan, const char *format, ...)
{
        char text[WARDEN_TEXT_SIZE * 2];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        plan->line(plan->user, text);
}

/* The last value of a setting in a text; empty: it is not set. */
static struct bytes value_of(struct bytes text, struct bytes wanted)
{
        struct bytes found = bytes_of(NULL, 0), name, value;
        while (text.len > 0)
                if (setting_read(line_take(&text), &name, &value) && bytes_equal(name, wanted))
                        found = value;
        return found;
}

/* Without the quotes, as 5 and '5' are one. */
static struct bytes bare(struct bytes value)
{
        if (value.len >= 2 && value.ptr[0] == '\'' && value.ptr[value.len - 1] == '\'')
                return bytes_of(value.ptr + 1, value.len - 2);
        return value;
}

static void settings_say(struct plan *plan, struct bytes ours, struct bytes theirs)
{
        struct bytes name, value;
        while (ours.len > 0) {
                if (!setting_read(line_take(&ours), &name, &value) ||
                    bytes_equal(name, BYTES("include")))
                        continue;
                struct bytes before = value_of(theirs, name);
                if (before.len > 0 && !bytes_equal(bare(before), bare(value)))
                        say(plan, "  ~ %.*s: %.*s becomes %.*s", BYTES_ARGS(name),
                            BYTES_ARGS(bare(before)), BYTES_ARGS(bare(value)));
        }
}

/* What its files set, ALTER SYSTEM's last. */
static bool theirs_read(const struct warden *warden, char *store, struct buffer *text,
                        struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        bool inside = file_there("%s/postgresql.conf", warden->paths.data);
        const char *folder = inside ? warden->paths.data : warden->config.adopt;
        if (folder[0] == '\0')
                return fail_set(fail,
                                "%s has no postgresql.conf: name the folder that has it by the "
                                "key 'postgres adopt'",
                                warden->paths.data);
        if (!configuration(folder, store, text, fail))
                return false;
        if (path_set(path, "%s/postgresql.auto.conf", warden->paths.data))
                (void)!file_add(path, store, text);
        return true;
}

static void adoption_say(struct plan *plan, struct warden *warden, char *store,
                         struct buffer *theirs, struct buffer *ours)
{
        const char *data = warden->paths.data, *folder = warden->config.adopt;
        struct fail fail = {""};
        bool inside = file_there("%s/postgresql.conf", data);
        say(plan, "PostgreSQL: the cluster in %s is adopted when meridiand starts:", data);
        if (!check_folder(warden, &fail) || !theirs_read(warden, store, theirs, &fail)) {
                plan->clear = false;
                say(plan, "  ! %s", fail.text);
                return;
        }
        if (server_pid(warden) != 0) {
                plan->clear = false;
                say(plan, "  ! a server runs there: stop it (pg_ctlcluster, systemctl), and see "
                          "that nobody else starts it again (Debian: 'manual' in start.conf)");
        }
        if (!inside)
                say(plan,
                    "  + postgresql.conf, conf.d and pg_hba.conf of %s are copied into it, without "
                    "data_directory, hba_file, ident_file, external_pid_file, include_dir",
                    folder);
        say(plan,
            "  + postgresql.conf includes meridian.conf at its end; %s is read before the "
            "cluster's own pg_hba.conf",
            warden->paths.hba);
        if (conf_text(warden, 0, ours))
                settings_say(plan, buffer_view(ours), buffer_view(theirs));
        say(plan, "  + the role " ROLE " (LOGIN, REPLICATION, what pg_rewind reads) in all of it");
        say(plan, "  + it takes writes only while this node holds the lease");
}

static void data_say(struct plan *plan, struct warden *warden)
{
        struct heap heap;
        struct buffer theirs, ours;
        const char *data = warden->paths.data;
        if (!look_data(warden)) {
                say(plan,
                    "PostgreSQL: %s has no cluster: it is copied from the primary, or, where "
                    "nobody has data and the topology's first is this node, made (initdb)",
                    data);
                return;
        }
        if (file_there("%s/meridian.conf", data)) {
                say(plan, "PostgreSQL: %s is Meridian's already", data);
                return;
        }
        char *store = malloc(FILE_MAX);
        heap_init(&heap, 0);
        buffer_init(&theirs, &heap);
        buffer_init(&ours, &heap);
        if (store != NULL)
                adoption_say(plan, warden, store, &theirs, &ours);
        buffer_fini(&theirs);
        buffer_fini(&ours);
        free(store);
}

bool warden_plan(const struct warden_config *config, void (*line)(void *user, const char *text),
                 void *user)
{
        struct plan plan = {.line = line, .user = user, .clear = true};
        struct fail fail = {""};
        struct warden *warden = calloc(1, sizeof *warden);
        if (warden == NULL)
                return false;
        warden->config = *config;
        if (files_find(warden, &fail)) {
                data_say(&plan, warden);
        } else {
                plan.clear = false;
                say(&plan, "PostgreSQL: %s", fail.text);
        }
        free(warden);
        return plan.clear;
}
