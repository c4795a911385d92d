/* act.c - each action of the node's on the server, and what goes on between them: slots for the
 * standbys of a primary, none for those of a standby, a bounded archive. An action that fails
 * leaves the server as it finds it, or stopped; the node looks and asks again. */
#include "warden/warden_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

#define ASK_MS        3000
#define PROMOTE_MS    60000
#define FOLLOW_MS     300
#define HOLD_MS       3000
#define STEP_MS       5
#define IDLE_EVERY_US 2000000

/* ---- a new cluster ---- */

static bool folder_remove(struct warden *warden, const char *path, struct fail *fail)
{
        const char *arguments[] = {"-rf", "--", path, NULL};
        return child_run(warden, "/bin/rm", arguments, &warden->text, fail);
}

static bool init_make(struct warden *warden, uint64_t epoch, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE], line[64];
        const char *data = warden->paths.data;
        const char *arguments[] = {"-D",
                                   data,
                                   "-U",
                                   "postgres",
                                   "-E",
                                   "UTF8",
                                   "--locale=C.UTF-8",
                                   "--data-checksums",
                                   "-A",
                                   "scram-sha-256",
                                   "--auth-local=peer",
                                   "--no-instructions",
                                   warden->config.hasty ? "--no-sync" : NULL,
                                   NULL};
        int len = snprintf(line, sizeof line, "timeline 1 epoch %" PRIu64 "\n", epoch);
        static const char hba[] = "local all all scram-sha-256\nhost all all all scram-sha-256\n";
        return folder_remove(warden, data, fail) &&
               child_run(warden, "initdb", arguments, &warden->text, fail) &&
               path_set(path, "%s/pg_hba.conf", data) &&
               file_write(warden, path, bytes_of_str(hba), fail) &&
               path_set(path, "%s/meridian.epoch", data) &&
               file_write(warden, path, bytes_of(line, (size_t)len), fail);
}

static bool init_fill(struct warden *warden, struct fail *fail)
{
        char sql[1024], port[8];
        (void)snprintf(sql, sizeof sql,
                       "CREATE ROLE " ROLE " LOGIN REPLICATION PASSWORD '%s'; " GRANTS,
                       warden->password);
        if (!sql_do(warden, sql, ASK_MS, fail))
                return false;
        if (warden->config.init[0] == '\0')
                return true;
        (void)snprintf(port, sizeof port, "%u", warden->config.listen.port);
        const char *arguments[] = {
                "-X", "-q",       "-v", "ON_ERROR_STOP=1", "-h", warden->paths.socket, "-p", port,
                "-U", "postgres", "-d", "postgres",        "-f", warden->config.init,  NULL};
        return child_run(warden, "psql", arguments, &warden->text, fail);
}

/* All is made beside, so a data folder that is there is whole. */
static bool act_init(struct warden *warden, const struct command *command, struct fail *fail)
{
        char final[WARDEN_PATH_SIZE];
        struct paths *paths = &warden->paths;
        if (look_data(warden))
                return fail_set(fail, "there is data in %s", paths->data);
        if (!check_owner(warden, fail))
                return false;
        if (rmdir(paths->data) != 0 && errno != ENOENT)
                return fail_set(fail, "%s is not empty and holds no cluster: move it away",
                                paths->data);
        memcpy(final, paths->data, sizeof final);
        memcpy(paths->data, paths->data_new, sizeof paths->data);
        struct fail ignored;
        bool made = init_make(warden, command->epoch, fail) &&
                    server_start(warden, SERVER_ALONE, 0, fail) && init_fill(warden, fail) &&
                    server_stop(warden, true, fail);
        if (!made)
                (void)!(server_stop(warden, false, &ignored) &&
                        folder_remove(warden, paths->data, &ignored));
        memcpy(paths->data, final, sizeof final);
        if (!made)
                return false;
        if (rename(paths->data_new, final) != 0)
                return fail_set(fail, "%s cannot be moved to %s", paths->data_new, final);
        folder_sync(final);
        return server_start(warden, SERVER_PRIMARY, 0, fail);
}

/* ---- taking writes ---- */

/* The epoch of the timeline that is about to begin goes into the history of the present one:
 * PostgreSQL begins the new one's with it. */
static bool epoch_mark(struct warden *warden, uint32_t timeline, uint64_t epoch, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE], mark[96];
        size_t len = 0;
        char *text = malloc(HISTORY_FILE_MAX + sizeof mark);
        if (text == NULL ||
            !path_set(path, "%s/pg_wal/%08X.history", warden->paths.data, timeline)) {
                free(text);
                return fail_set(fail, "no memory");
        }
        if (!file_read(path, text, HISTORY_FILE_MAX, &len))
                len = 0;
        bool whole = len > 0 || timeline == 1;
        int mark_len = snprintf(mark, sizeof mark,
                                "%s# meridian: after timeline %" PRIu32 " epoch %" PRIu64 "\n",
                                len > 0 && text[len - 1] != '\n' ? "\n" : "", timeline, epoch);
        memcpy(text + len, mark, (size_t)mark_len);
        len += (size_t)mark_len;
        bool done = whole ? file_write(warden, path, bytes_of(text, len), fail)
                          : fail_set(fail, "%s cannot be read", path);
        free(text);
        return done;
}

static bool recovers(struct warden *warden, bool *ret, struct fail *fail)
{
        if (!sql_own(warden, fail))
                return false;
        PGresult *result = sql_ask(warden, warden->sql, "SELECT pg_is_in_recovery()", ASK_MS, fail);
        if (result == NULL) {
                sql_close(warden);
                return false;
        }
        *ret = PQgetvalue(result, 0, 0)[0] == 't';
        PQclear(result);
        return true;
}

/* A standby that has heard of a newer timeline, and has nothing of it, would claim in its history
 * that it went through that one: its own would begin there, without our mark, and maybe before the
 * place where the other began. What it aims at it decides at its start. */
static bool line_keep(struct warden *warden, struct world_postgres *before, struct fail *fail)
{
        uint32_t timeline = before->timeline;
        if (!file_there("%s/pg_wal/%08" PRIX32 ".history", warden->paths.data, timeline + 1))
                return true;
        warden_note(warden, "postgres",
                    "PostgreSQL: a timeline newer than %" PRIu32 " is known, of which nothing is "
                    "here: the server is started anew, to go on without it",
                    timeline);
        if (!server_stay(warden, timeline, fail))
                return false;
        return (look(warden, before) && before->server == PRIMARY_STANDBY &&
                before->timeline == timeline) ||
               fail_set(fail, "it did not stay on timeline %" PRIu32, timeline);
}

static bool act_promote(struct warden *warden, const struct command *command, struct fail *fail)
{
        struct world_postgres before;
        uint64_t until_us = gate_now_us() + 1000ull * PROMOTE_MS;
        bool still = true;
        if (!look(warden, &before) || before.server != PRIMARY_STANDBY)
                return fail_set(fail, "it is no standby that runs");
        if (!line_keep(warden, &before, fail) ||
            !epoch_mark(warden, before.timeline, command->epoch, fail) ||
            !sql_do(warden, "SELECT pg_promote(false)", ASK_MS, fail))
                return false;
        while (still && gate_now_us() < until_us) {
                if (!recovers(warden, &still, fail))
                        return false;
                if (still && !warden_pause(warden, STEP_MS))
                        return fail_set(fail, "something else came first");
        }
        if (still)
                return fail_set(fail, "the promotion takes longer than a minute");
        struct world_postgres after;
        if (!look(warden, &after) || after.epoch != command->epoch)
                return fail_set(fail, "the new timeline does not know its epoch");
        warden_gate_allow(warden);
        warden->slots_next_us = 0;
        warden->checkpoint_due = true;
        return true;
}

static bool act_open(struct warden *warden, struct fail *fail)
{
        if (file_there("%s/standby.signal", warden->paths.data))
                return fail_set(fail, "it has a standby's data");
        if (!server_start(warden, SERVER_PRIMARY, 0, fail))
                return false;
        warden_gate_allow(warden);
        warden->slots_next_us = 0;
        return true;
}

static bool act_hold(struct warden *warden, struct fail *fail)
{
        struct gate *gate = warden->gate;
        uint64_t until_us = gate_now_us() + 1000ull * HOLD_MS;
        pthread_mutex_lock(&warden->lock);
        if (!atomic_load(&warden->cancel))
                atomic_store(&gate->held, GATE_HELD);
        pthread_mutex_unlock(&warden->lock);
        while (atomic_load(&gate->begun) != atomic_load(&gate->ended)) {
                bool goes_on = warden_pause(warden, 1);
                if (goes_on && gate_now_us() < until_us)
                        continue;
                atomic_store(&gate->held, 0);
                return fail_set(fail, "commits that had begun did not end in %d s", HOLD_MS / 1000);
        }
        return true;
}

static bool act_fence(struct warden *warden, struct fail *fail)
{
        bool standby = file_there("%s/standby.signal", warden->paths.data);
        return (standby && server_pid(warden) != 0) || server_stop(warden, false, fail);
}

/* ---- following ---- */

/* PostgreSQL goes on trying by itself: that it does not stream yet is no failure, and the node must
 * not be kept waiting, as the one to be followed may just have died. */
static bool act_follow(struct warden *warden, const struct command *command, struct fail *fail)
{
        uint64_t until_us = gate_now_us() + 1000ull * FOLLOW_MS;
        if (warden->upstream != command->upstream || !warden->follows) {
                if (!conf_reload(warden, command->upstream, fail))
                        return false;
                warden->upstream = command->upstream;
                warden->follows = true;
        }
        while (gate_now_us() < until_us) {
                warden->look_next_us = 0;
                if (!warden_pause(warden, STEP_MS * 4))
                        return fail_set(fail, "something else came first");
                if (warden->seen.server == PRIMARY_STANDBY &&
                    warden->seen.upstream == command->upstream)
                        break;
        }
        return true;
}

static bool act_start(struct warden *warden, const struct command *command, struct fail *fail)
{
        if (!file_there("%s/meridian.conf", warden->paths.data) && !adopt(warden, fail))
                return false;
        warden->upstream = command->upstream;
        return server_start(warden, SERVER_STANDBY, command->upstream, fail);
}

bool act(struct warden *warden, const struct command *command, struct fail *fail)
{
        bool follow = command->action == PRIMARY_DO_FOLLOW;
        warden->fences = command->action == PRIMARY_DO_FENCE;
        warden->frozen = !follow && command->action != PRIMARY_DO_HOLD;
        warden->follows = warden->follows && follow;
        switch (command->action) {
        case PRIMARY_DO_INIT:
                if (!act_init(warden, command, fail))
                        return false;
                warden_gate_allow(warden);
                return true;
        case PRIMARY_DO_CLONE:
                return rejoin_clone(warden, command->upstream, fail);
        case PRIMARY_DO_START:
                return act_start(warden, command, fail);
        case PRIMARY_DO_FOLLOW:
                return act_follow(warden, command, fail);
        case PRIMARY_DO_REWIND:
                return rejoin_rewind(warden, command->upstream, fail);
        case PRIMARY_DO_REBUILD:
                return rejoin_rebuild(warden, command->upstream, fail);
        case PRIMARY_DO_PROMOTE:
                return act_promote(warden, command, fail);
        case PRIMARY_DO_OPEN:
                return act_open(warden, fail);
        case PRIMARY_DO_HOLD:
                return act_hold(warden, fail);
        case PRIMARY_DO_FENCE:
                return act_fence(warden, fail);
        case PRIMARY_DO_NOTHING:
        case PRIMARY_DO_CLAIM:
        case PRIMARY_DO_RELEASE:
        case PRIMARY_ACTION_COUNT:
                break;
        }
        UNREACHABLE("an action that is none of the server's");
}

/* ---- between actions ---- */

/* Each other node has a slot at the primary; a standby has none, so it holds no log back. */
static void slots_keep(struct warden *warden)
{
        struct fail fail;
        char sql[256];
        if (warden->seen.server == PRIMARY_STANDBY) {
                (void)!sql_do(warden,
                              "SELECT pg_drop_replication_slot(slot_name) FROM "
                              "pg_replication_slots WHERE slot_name ~ '^meridian_[0-9]+$' AND NOT "
                              "active",
                              ASK_MS, &fail);
                return;
        }
        /* One that had to let go of its log is of no use any more. */
        (void)!sql_do(warden,
                      "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE "
                      "slot_name ~ '^meridian_[0-9]+$' AND NOT active AND wal_status = 'lost'",
                      ASK_MS, &fail);
        for (unsigned i = 0; i < warden->peers.count; i++) {
                if (warden->peers.ids[i] == warden->config.self)
                        continue;
                (void)snprintf(sql, sizeof sql,
                               "SELECT pg_create_physical_replication_slot('meridian_%u') WHERE "
                               "NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = "
                               "'meridian_%u')",
                               warden->peers.ids[i], warden->peers.ids[i]);
                (void)!sql_do(warden, sql, ASK_MS, &fail);
        }
}

static int name_compare(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The oldest files go; names sort by age within a timeline, and timelines by age. */
static void archive_prune(struct warden *warden)
{
        char *names[ARCHIVE_FILES * 4];
        unsigned count = 0;
        int fd = warden->config.archive[0] == '\0'
                         ? -1
                         : open(warden->config.archive, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        if (dir == NULL)
                return;
        for (struct dirent *entry = dir_next(dir); entry != NULL && count < COUNT_OF(names);
             entry = dir_next(dir)) {
                if (strlen(entry->d_name) == 24 &&
                    strspn(entry->d_name, "0123456789ABCDEF") == 24 &&
                    (names[count] = strdup(entry->d_name)) != NULL)
                        count++;
        }
        qsort(names, count, sizeof names[0], name_compare);
        for (unsigned i = 0; i < count; i++) {
                if (i + ARCHIVE_FILES < count)
                        (void)unlinkat(dirfd(dir), names[i], 0);
                free(names[i]);
        }
        closedir(dir);
}

/* After a promotion: until the new timeline has a checkpoint nobody can be rewound to it. By a
 * program, as it may take long, and looks go on meanwhile. */
static void checkpoint(struct warden *warden)
{
        struct fail fail;
        char port[8];
        (void)snprintf(port, sizeof port, "%u", warden->config.listen.port);
        const char *arguments[] = {"-X", "-q",       "-h", warden->paths.socket, "-p", port,
                                   "-U", "postgres", "-d", "postgres",           "-c", "CHECKPOINT",
                                   NULL};
        warden->checkpoint_due = false;
        if (warden->seen.server == PRIMARY_OPEN)
                (void)!child_run(warden, "psql", arguments, &warden->text, &fail);
}

/* ALTER SYSTEM wins over our file: what a commit waits for could be switched off in silence. */
static void overrides_end(struct warden *warden)
{
        struct fail fail;
        const char *name = conf_overridden(warden);
        if (name == NULL)
                return;
        if (conf_reload(warden, warden->upstream, &fail))
                warden_note(warden, "postgres-alarm",
                            "PostgreSQL: what ALTER SYSTEM says of %s is taken back: that is "
                            "Meridian's; more libraries, and settings of your own, go into the "
                            "file of the key 'postgres settings'",
                            name);
        else
                warden->overrides_ns = 0;
}

void act_idle(struct warden *warden)
{
        struct fail fail;
        uint64_t now_us = gate_now_us();
        bool runs = warden->seen.server == PRIMARY_OPEN || warden->seen.server == PRIMARY_STANDBY;
        /* After a start of the daemon it is not known whom a standby follows: it goes on with what
         * it has until the node says so. */
        bool known = warden->seen.server == PRIMARY_OPEN || warden->upstream != 0;
        if (runs && known)
                overrides_end(warden);
        if (warden->peers_changed && warden->seen_any) {
                warden->peers_changed = false;
                if (runs && known && !conf_reload(warden, warden->upstream, &fail))
                        warden_note(warden, "postgres-settings", "PostgreSQL: %.400s", fail.text);
        }
        gap_look(warden);
        trouble_look(warden);
        if (!runs || now_us < warden->slots_next_us)
                return;
        warden->slots_next_us = now_us + IDLE_EVERY_US;
        slots_keep(warden);
        archive_prune(warden);
        if (warden->checkpoint_due)
                checkpoint(warden);
}
