/* rejoin.c - making a standby of what there is: a copy of the primary (clone), the same cluster
 * taken back to where it left the primary's line (rewind), or a copy in the place of what cannot be
 * taken back (rebuild). What only this server had is kept aside first, in a folder with a report;
 * where that fails nothing is changed. The newest folders are kept, the others go.
 *
 * A clone lies beside until it is whole. A rewind that PostgreSQL's program refuses becomes a
 * rebuild, unless the primary cannot be reached. One that breaks off leaves data that is good for
 * nothing: a file says so from before it begins until it has ended well, and while that file is
 * there, there is no data here, and a clone takes its place. */
#include "warden/warden_priv.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"

#define CONNECT_MS   4000
#define ASK_MS       4000
#define KEEP_DEFAULT 3
#define FOLDERS_MAX  256

static bool run(struct warden *warden, const char *program, const char *const *arguments,
                struct fail *fail)
{
        return child_run(warden, program, arguments, &warden->text, fail);
}

/* ---- the other server ---- */

/* What is known of the server that is followed. */
struct source {
        uint64_t system;
        uint64_t lsn;
        struct history history;
};

static uint64_t own_first_epoch(struct warden *warden)
{
        struct history history;
        struct fail fail;
        return look_history(warden, 1, &history, &fail) ? history.epoch : 0;
}

static bool source_history(struct warden *warden, PGconn *connection, uint32_t timeline,
                           struct source *ret, struct fail *fail)
{
        char text[64];
        struct bytes file = bytes_of(NULL, 0);
        PGresult *result = NULL;
        if (timeline > 1) {
                (void)snprintf(text, sizeof text, "TIMELINE_HISTORY %u", timeline);
                result = sql_ask(warden, connection, text, ASK_MS, fail);
                if (result == NULL)
                        return false;
                if (PQntuples(result) == 1 && PQnfields(result) == 2)
                        file = bytes_of(PQgetvalue(result, 0, 1),
                                        (size_t)PQgetlength(result, 0, 1));
        }
        bool good = history_parse(file, timeline, own_first_epoch(warden), &ret->history);
        PQclear(result);
        return good || fail_set(fail, "the primary's history cannot be read");
}

static bool source_look(struct warden *warden, node_id upstream, struct source *ret,
                        struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        uint32_t timeline = 0;
        if (!sql_upstream(warden, upstream, "replication=true", conninfo))
                return fail_set(fail, "node %u has no address in the topology", upstream);
        PGconn *connection = sql_connect(warden, conninfo, CONNECT_MS, fail);
        if (connection == NULL)
                return false;
        bool good = look_identify(warden, connection, &ret->system, &timeline, &ret->lsn, fail) &&
                    source_history(warden, connection, timeline, ret, fail);
        PQfinish(connection);
        return good;
}

/* pg_rewind believes the primary's last checkpoint, which has to be of its present timeline. */
static bool source_settled(struct warden *warden, node_id upstream, uint32_t timeline,
                           struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        if (!sql_upstream(warden, upstream, "dbname=postgres", conninfo))
                return fail_set(fail, "node %u has no address in the topology", upstream);
        PGconn *connection = sql_connect(warden, conninfo, CONNECT_MS, fail);
        if (connection == NULL)
                return false;
        PGresult *result = sql_ask(warden, connection,
                                   "SELECT timeline_id FROM pg_control_checkpoint()", ASK_MS, fail);
        bool settled = result != NULL && PQntuples(result) == 1 &&
                       strtoul(PQgetvalue(result, 0, 0), NULL, 10) == timeline;
        if (result != NULL && !settled)
                (void)fail_set(fail, "the primary has made no checkpoint since its promotion yet");
        PQclear(result);
        PQfinish(connection);
        return settled;
}

/* ---- kept aside ---- */

static int name_compare(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Removes the oldest folders; their names begin with the time. */
static void aside_prune(struct warden *warden)
{
        char *names[FOLDERS_MAX], path[WARDEN_PATH_SIZE + 300];
        unsigned count = 0;
        unsigned keep = warden->config.keep == 0 ? KEEP_DEFAULT : warden->config.keep;
        DIR *dir = opendir(warden->paths.aside);
        if (dir == NULL)
                return;
        for (struct dirent *entry = dir_next(dir); entry != NULL && count < FOLDERS_MAX;
             entry = dir_next(dir))
                if (entry->d_name[0] != '.' && (names[count] = strdup(entry->d_name)) != NULL)
                        count++;
        closedir(dir);
        qsort(names, count, sizeof names[0], name_compare);
        for (unsigned i = 0; i < count; i++) {
                struct fail fail;
                (void)snprintf(path, sizeof path, "%s/%s", warden->paths.aside, names[i]);
                const char *arguments[] = {"-rf", "--", path, NULL};
                if (i + keep < count && run(warden, "/bin/rm", arguments, &fail))
                        warden_note(warden, "postgres-kept-aside",
                                    "PostgreSQL: %.300s was removed, as %u newer ones are kept",
                                    path, keep);
                free(names[i]);
        }
}

static bool aside_folder(struct warden *warden, const char *why, char path[static WARDEN_PATH_SIZE],
                         struct fail *fail)
{
        char stamp[32];
        struct timespec now;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &now);
        if (gmtime_r(&now.tv_sec, &parts) == NULL ||
            strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%S", &parts) == 0)
                return fail_set(fail, "the time cannot be told");
        if (!path_set(path, "%s/%s.%03ld-%s", warden->paths.aside, stamp, now.tv_nsec / 1000000,
                      why))
                return fail_set(fail, "the path is too long");
        return folder_make(warden, path, fail);
}

static bool of_history(const struct history *history, uint32_t timeline, uint32_t from)
{
        for (unsigned i = 0; i < history->count; i++)
                if (history->lines[i].timeline == timeline && timeline >= from)
                        return true;
        return history->timeline == timeline;
}

/* Copies the files of the log from the fork on. */
static bool wal_copy(struct warden *warden, const struct history *own, uint32_t timeline,
                     uint64_t lsn, const char *folder, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE], first[32];
        uint64_t segment = warden->stopped.control.segment_bytes;
        uint64_t per_id = ((uint64_t)1 << 32) / segment;
        bool copied = true;
        (void)snprintf(first, sizeof first, "%08" PRIX64 "%08" PRIX64, lsn / segment / per_id,
                       lsn / segment % per_id);
        DIR *dir = path_set(path, "%s/pg_wal", warden->paths.data) ? opendir(path) : NULL;
        if (dir == NULL)
                return fail_set(fail, "%s cannot be read", path);
        for (struct dirent *entry = dir_next(dir); entry != NULL && copied; entry = dir_next(dir)) {
                const char *name = entry->d_name;
                char begin[9] = "";
                bool file = strlen(name) == 24 && strspn(name, "0123456789ABCDEF") == 24;
                if (!file || strcmp(name + 8, first) < 0)
                        continue;
                memcpy(begin, name, 8);
                if (!of_history(own, (uint32_t)strtoul(begin, NULL, 16), timeline))
                        continue;
                if (!path_set(path, "%s/pg_wal/%s", warden->paths.data, name))
                        continue;
                const char *arguments[] = {"--", path, folder, NULL};
                copied = run(warden, "/bin/cp", arguments, fail);
        }
        closedir(dir);
        return copied;
}

/* The log as text; returns how many commits it has. It ends with an error where the log ends. */
static unsigned wal_text(struct warden *warden, uint32_t timeline, uint64_t lsn, const char *folder)
{
        char program[WARDEN_PATH_SIZE], wal[WARDEN_PATH_SIZE], out[WARDEN_PATH_SIZE], number[16],
                place[32];
        struct fail fail;
        unsigned commits = 0;
        if (!path_set(program, "%s/pg_waldump", warden->config.bin) ||
            !path_set(wal, "%s/pg_wal", warden->paths.data) ||
            !path_set(out, "%s/waldump.txt", folder))
                return 0;
        (void)snprintf(number, sizeof number, "%u", timeline);
        (void)snprintf(place, sizeof place, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
        const char *arguments[] = {
                "-c",    "exec \"$0\" -p \"$1\" -t \"$2\" -s \"$3\" >> \"$4\" 2>&1",
                program, wal,
                number,  place,
                out,     NULL};
        (void)!run(warden, "/bin/sh", arguments, &fail);
        FILE *file = fopen(out, "re");
        char *line = NULL;
        size_t size = 0;
        while (file != NULL && getline(&line, &size, file) > 0)
                commits += strstr(line, "desc: COMMIT") != NULL;
        free(line);
        if (file != NULL)
                fclose(file);
        return commits;
}

static bool report_write(struct warden *warden, const char *folder, const char *text,
                         struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        return path_set(path, "%s/report.txt", folder) &&
               file_write(warden, path, bytes_of_str(text), fail);
}

/* Before a rewind: the log that only this server has. */
static bool aside_wal(struct warden *warden, node_id upstream, const struct world_postgres *seen,
                      const struct history *own, uint32_t timeline, uint64_t lsn, struct fail *fail)
{
        char folder[WARDEN_PATH_SIZE], text[2048];
        if (seen->written <= lsn && seen->timeline == timeline)
                return true;
        if (!aside_folder(warden, "rewind", folder, fail) ||
            !wal_copy(warden, own, timeline, lsn, folder, fail))
                return false;
        unsigned commits = wal_text(warden, timeline, lsn, folder);
        if (seen->timeline != timeline)
                commits += wal_text(warden, seen->timeline,
                                    own->count > 0 ? own->lines[own->count - 1].end : lsn, folder);
        (void)snprintf(text, sizeof text,
                       "What only this server had, before it was taken back to the line of node "
                       "%u.\n\ncluster    %" PRIu64 "\ntimeline   %u, begun under epoch %" PRIu64
                       "\nleft it at %X/%X of timeline %u\nhad up to  %X/%X\ncommits    %u\n\n"
                       "The files of 24 digits are the log; waldump.txt is the same as text.\n",
                       upstream, seen->system, seen->timeline, seen->epoch, (unsigned)(lsn >> 32),
                       (unsigned)lsn, timeline, (unsigned)(seen->written >> 32),
                       (unsigned)seen->written, commits);
        if (!report_write(warden, folder, text, fail))
                return false;
        warden_note(warden, "postgres-kept-aside",
                    "PostgreSQL: %u commits (%" PRIu64 " bytes of log) that only this server had "
                    "are kept aside in %.300s",
                    commits, seen->written - lsn, folder);
        return true;
}

/* ---- clone ---- */

static bool remove_new(struct warden *warden, struct fail *fail)
{
        const char *arguments[] = {"-rf", "--", warden->paths.data_new, NULL};
        return run(warden, "/bin/rm", arguments, fail);
}

/* A copy of the primary's data, each file compared with what the primary said of it. */
static bool base_backup(struct warden *warden, node_id upstream, struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        const char *to = warden->paths.data_new;
        if (!sql_upstream(warden, upstream, "", conninfo))
                return fail_set(fail, "node %u has no address in the topology", upstream);
        const char *copy[] = {"-D",     to,     "-d",
                              conninfo, "-X",   "stream",
                              "-c",     "fast", warden->config.hasty ? "--no-sync" : NULL,
                              NULL};
        const char *verify[] = {"-e", "-q", "-n", to, NULL};
        return run(warden, "pg_basebackup", copy, fail) &&
               run(warden, "pg_verifybackup", verify, fail);
}

/* What was left of a rewind that broke off; what only this server had is kept aside already. */
static bool data_remove(struct warden *warden, struct fail *fail)
{
        const char *arguments[] = {"-rf", "--", warden->paths.data, NULL};
        return server_stop(warden, false, fail) && run(warden, "/bin/rm", arguments, fail);
}

static void rewinding_end(struct warden *warden)
{
        if (unlink(warden->paths.rewinding) == 0)
                folder_sync(warden->paths.rewinding);
}

/* Makes a standby's data beside; where that fails the room is given back at once. */
static bool copy_make(struct warden *warden, node_id upstream, struct fail *fail)
{
        const struct paths *paths = &warden->paths;
        char signal[WARDEN_PATH_SIZE];
        struct fail ignored;
        if (!remove_new(warden, fail))
                return false;
        if (base_backup(warden, upstream, fail) &&
            path_set(signal, "%s/standby.signal", paths->data_new) &&
            file_write(warden, signal, bytes_of(NULL, 0), fail) &&
            conf_write(warden, paths->data_new, upstream, fail))
                return true;
        (void)!remove_new(warden, &ignored);
        return false;
}

/* Starts it in its place. */
static bool copy_take(struct warden *warden, node_id upstream, struct fail *fail)
{
        const struct paths *paths = &warden->paths;
        bool ruined = file_there("%s", paths->rewinding);
        if (ruined && !data_remove(warden, fail))
                return false;
        if ((rmdir(paths->data) != 0 && errno != ENOENT) ||
            rename(paths->data_new, paths->data) != 0)
                return fail_set(fail, "%s is not empty and holds no cluster: move it away",
                                paths->data);
        folder_sync(paths->data);
        rewinding_end(warden);
        warden->upstream = upstream;
        return server_start(warden, SERVER_STANDBY, upstream, fail);
}

bool rejoin_clone(struct warden *warden, node_id upstream, struct fail *fail)
{
        if (look_data(warden))
                return fail_set(fail, "there is data in %s", warden->paths.data);
        return check_owner(warden, fail) && copy_make(warden, upstream, fail) &&
               copy_take(warden, upstream, fail);
}

/* ---- rebuild ---- */

static bool aside_data(struct warden *warden, node_id upstream, struct fail *fail)
{
        char folder[WARDEN_PATH_SIZE], to[WARDEN_PATH_SIZE], text[1024];
        const struct world_postgres *seen = &warden->seen;
        if (!aside_folder(warden, "rebuild", folder, fail) || !path_set(to, "%s/data", folder))
                return false;
        (void)snprintf(text, sizeof text,
                       "The whole data of this server, before it was made anew from node %u.\n\n"
                       "cluster    %" PRIu64 "\ntimeline   %u, begun under epoch %" PRIu64
                       "\nhad up to  %X/%X\n",
                       upstream, seen->system, seen->timeline, seen->epoch,
                       (unsigned)(seen->written >> 32), (unsigned)seen->written);
        if (!report_write(warden, folder, text, fail))
                return false;
        if (rename(warden->paths.data, to) != 0)
                return fail_set(fail, "%s cannot be moved to %s (another file system?)",
                                warden->paths.data, to);
        folder_sync(warden->paths.data);
        warden_note(warden, "postgres-kept-aside",
                    "PostgreSQL: the old data of this server is kept aside in %.300s", folder);
        return true;
}

/* Nobody's data is written over: not for a copy that does not come, nor for another cluster's. */
bool rejoin_rebuild(struct warden *warden, node_id upstream, struct fail *fail)
{
        struct source source = {0};
        uint64_t own = warden->seen.system;
        if (!file_there("%s/global/pg_control", warden->paths.data))
                return rejoin_clone(warden, upstream, fail);
        if (!source_look(warden, upstream, &source, fail))
                return false;
        if (own != 0 && source.system != own)
                return fail_set(fail,
                                "%s holds another cluster (%" PRIu64 ") than node %u's (%" PRIu64
                                "): move it away by hand, and it is made anew",
                                warden->paths.data, own, upstream, source.system);
        if (!copy_make(warden, upstream, fail) || !server_stop(warden, false, fail) ||
            !aside_data(warden, upstream, fail))
                return false;
        rewinding_end(warden);
        aside_prune(warden);
        return copy_take(warden, upstream, fail);
}

/* ---- rewind ---- */

static bool rewind_run(struct warden *warden, node_id upstream, struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2], signal[WARDEN_PATH_SIZE];
        if (!sql_upstream(warden, upstream, "dbname=postgres", conninfo) ||
            !path_set(signal, "%s/standby.signal", warden->paths.data))
                return fail_set(fail, "node %u has no address in the topology", upstream);
        if (!file_write(warden, warden->paths.rewinding, BYTES("data\n"), fail))
                return false;
        /* Its recovery, which ends in a clean log, is none of a standby's. */
        (void)unlink(signal);
        const char *arguments[] = {"--target-pgdata",
                                   warden->paths.data,
                                   "--source-server",
                                   conninfo,
                                   warden->config.archive[0] != '\0' ? "--restore-target-wal"
                                                                     : NULL,
                                   NULL};
        return run(warden, "pg_rewind", arguments, fail);
}

bool rejoin_rewind(struct warden *warden, node_id upstream, struct fail *fail)
{
        struct source source = {0};
        struct history own;
        struct world_postgres seen;
        struct fail why;
        uint32_t timeline = 0;
        uint64_t lsn = 0;
        if (!source_look(warden, upstream, &source, fail) ||
            !source_settled(warden, upstream, source.history.timeline, fail) ||
            !server_stop(warden, false, fail))
                return false;
        if (!look(warden, &seen) || !look_history(warden, seen.timeline, &own, fail))
                return fail_set(fail, "what this server has cannot be read");
        if (source.system != seen.system)
                return fail_set(fail,
                                "%s holds another cluster (%" PRIu64 ") than node %u's (%" PRIu64
                                "): move it away by hand, and it is made anew",
                                warden->paths.data, seen.system, upstream, source.system);
        if (!warden->stopped.sure ||
            !history_fork(&own, seen.written, &source.history, source.lsn, &timeline, &lsn))
                return rejoin_rebuild(warden, upstream, fail);
        if (!aside_wal(warden, upstream, &seen, &own, timeline, lsn, fail))
                return false;
        aside_prune(warden);
        if (rewind_run(warden, upstream, &why)) {
                rewinding_end(warden);
                warden->upstream = upstream;
                return server_start(warden, SERVER_STANDBY, upstream, fail);
        }
        if (atomic_load(&warden->cancel) || !source_look(warden, upstream, &source, fail))
                return fail_set(fail, "%s", why.text);
        warden_note(warden, "postgres-rewind", "PostgreSQL: no rewind (%.360s): it is made anew",
                    why.text);
        return rejoin_rebuild(warden, upstream, fail);
}
