/* look.c - how the server is: by queries where it runs, by pg_controldata and pg_waldump where it
 * does not. What cannot be known at a look is not told: after some seconds without a word the node
 * takes the server for unseen. */
#include "warden/warden_priv.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#define ASK_MS 2000

bool look_data(const struct warden *warden)
{
        return !file_there("%s", warden->paths.rewinding) &&
               file_there("%s/global/pg_control", warden->paths.data);
}

/* ---- histories ---- */

static uint64_t first_epoch(const struct warden *warden)
{
        char path[WARDEN_PATH_SIZE], text[128];
        uint64_t epoch = 0;
        size_t len;
        if (!path_set(path, "%s/meridian.epoch", warden->paths.data) ||
            !file_read(path, text, sizeof text, &len) ||
            !history_epoch_parse(bytes_of(text, len), &epoch))
                return 0;
        return epoch;
}

bool look_history(struct warden *warden, uint32_t timeline, struct history *ret, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        char *text = malloc(HISTORY_FILE_MAX);
        size_t len = 0;
        bool read = text != NULL &&
                    path_set(path, "%s/pg_wal/%08X.history", warden->paths.data, timeline) &&
                    file_read(path, text, HISTORY_FILE_MAX, &len);
        bool good = (read || timeline == 1) && history_parse(bytes_of(text, read ? len : 0),
                                                             timeline, first_epoch(warden), ret);
        free(text);
        return good || fail_set(fail, "the history of timeline %u cannot be read", timeline);
}

/* ---- its log ---- */

static const char no_record[] = "could not find a valid record after";

/* Has the timeline a file at `lsn` or behind it? */
static bool wal_there(const struct warden *warden, uint32_t timeline, uint64_t lsn,
                      uint32_t segment_bytes)
{
        char path[WARDEN_PATH_SIZE], first[32];
        uint64_t per_id = ((uint64_t)1 << 32) / segment_bytes;
        bool found = false;
        (void)snprintf(first, sizeof first, "%08" PRIX32 "%08" PRIX64 "%08" PRIX64, timeline,
                       lsn / segment_bytes / per_id, lsn / segment_bytes % per_id);
        DIR *dir = path_set(path, "%s/pg_wal", warden->paths.data) ? opendir(path) : NULL;
        if (dir == NULL)
                return true;
        for (struct dirent *entry = dir_next(dir); entry != NULL && !found; entry = dir_next(dir))
                found = strlen(entry->d_name) == 24 && memcmp(entry->d_name, first, 8) == 0 &&
                        strcmp(entry->d_name, first) >= 0;
        closedir(dir);
        return found;
}

/* Where the log of a timeline ends, read from `from`: a record's place. *ret_none where there is no
 * whole record from there on (NULL: that is a failure as any other). */
static bool wal_end(struct warden *warden, uint32_t timeline, uint64_t from, uint32_t segment_bytes,
                    uint64_t *ret_end, bool *ret_none, struct fail *ret_fail)
{
        char wal[WARDEN_PATH_SIZE], number[16], place[32];
        struct child_text text;
        struct fail fail;
        uint64_t last = 0;
        uint64_t per_id = ((uint64_t)1 << 32) / segment_bytes;
        uint64_t file = from / segment_bytes;
        /* pg_waldump waits five seconds for a file that is not there. */
        if (!file_there("%s/pg_wal/%08" PRIX32 "%08" PRIX64 "%08" PRIX64, warden->paths.data,
                        timeline, file / per_id, file % per_id))
                return fail_set(ret_fail,
                                "the log of timeline %" PRIu32 " from %" PRIX64 " on is not there",
                                timeline, from);
        (void)path_set(wal, "%s/pg_wal", warden->paths.data);
        (void)snprintf(number, sizeof number, "%u", timeline);
        (void)snprintf(place, sizeof place, "%X/%X", (unsigned)(from >> 32), (unsigned)from);
        const char *all[] = {"-q", "-p", wal, "-t", number, "-s", place, NULL};
        /* It ends with an error where the log ends. */
        bool whole = child_run(warden, "pg_waldump", all, &text, &fail);
        /* It may end with a file: the next one was not made yet. */
        if (!whole &&
            history_waldump_missing(bytes_of(text.err, text.err_len), timeline, segment_bytes,
                                    ret_end) &&
            *ret_end > from && !wal_there(warden, timeline, *ret_end, segment_bytes))
                return true;
        if (whole || !history_waldump_last(bytes_of(text.err, text.err_len), &last) ||
            last < from) {
                if (ret_none != NULL)
                        *ret_none = !whole && memmem(text.err, text.err_len, no_record,
                                                     strlen(no_record)) != NULL;
                return fail_set(ret_fail,
                                "where the log of timeline %u ends cannot be told: %.300s",
                                timeline, fail.text);
        }
        (void)snprintf(place, sizeof place, "%X/%X", (unsigned)(last >> 32), (unsigned)last);
        const char *one[] = {"-p", wal, "-t", number, "-s", place, "-n", "1", NULL};
        return child_run(warden, "pg_waldump", one, &text, &fail) &&
               history_waldump_end(bytes_of(text.out, text.out_len), segment_bytes, ret_end);
}

static bool look_control(struct warden *warden, struct history_control *ret)
{
        struct child_text text;
        const char *arguments[] = {"-D", warden->paths.data, NULL};
        if (!child_run(warden, "pg_controldata", arguments, &text, &warden->blind))
                return false;
        return history_control_parse(bytes_of(text.out, text.out_len), ret) ||
               fail_set(&warden->blind,
                        "%s/global/pg_control is damaged: restore it, or move the folder away, and "
                        "it is made anew from the primary",
                        warden->paths.data);
}

/* ---- a server that runs ---- */

static bool value_lsn(const PGresult *result, int column, uint64_t *ret)
{
        return PQgetisnull(result, 0, column) == 0 &&
               history_lsn_parse(bytes_of_str(PQgetvalue(result, 0, column)), ret);
}

static bool value_u64(const PGresult *result, int column, int base, uint64_t *ret)
{
        const char *text = PQgetvalue(result, 0, column);
        char *end = NULL;
        if (PQgetisnull(result, 0, column) != 0 || text[0] < '0' || text[0] > 'F')
                return false;
        *ret = strtoull(text, &end, base);
        return *end == '\0';
}

/* The rows of a query to the own server; its connection is given up where there are none. */
static PGresult *ask(struct warden *warden, const char *text)
{
        struct fail fail;
        if (!sql_own(warden, &fail))
                return NULL;
        PGresult *result = sql_ask(warden, warden->sql, text, ASK_MS, &fail);
        if (result == NULL || PQntuples(result) != 1) {
                if (result == NULL)
                        warden->blind = fail;
                PQclear(result);
                sql_close(warden);
                return NULL;
        }
        return result;
}

static bool history_fill(struct warden *warden, uint32_t timeline, struct world_postgres *ret)
{
        struct history history;
        if (!look_history(warden, timeline, &history, &warden->blind))
                return false;
        history_tell(&history, ret);
        return true;
}

static bool look_primary(struct warden *warden, struct world_postgres *ret)
{
        static const char text[] =
                "SELECT s.system_identifier, substr(pg_walfile_name(l.lsn), 1, 8), l.lsn "
                "FROM pg_control_system() s, (SELECT pg_current_wal_flush_lsn() AS lsn) l";
        uint64_t timeline = 0;
        struct commits commits;
        const struct gate *gate = warden->gate;
        uint64_t boot = atomic_load(&gate->boot);
        uint64_t until_us = atomic_load(&gate->until_us);
        bool opened = boot != 0 && atomic_load(&gate->opened) == boot;
        ret->server = PRIMARY_FENCED;
        if (opened && atomic_load(&gate->held) != 0)
                ret->server = PRIMARY_HELD;
        else if (opened && gate_now_us() < until_us)
                ret->server = PRIMARY_OPEN;
        bool closes = ret->server == PRIMARY_HELD && atomic_load(&gate->held) == GATE_HELD;
        if (ret->server == PRIMARY_OPEN || (closes && gate_now_us() < until_us)) {
                ret->gate_epoch = atomic_load(&gate->epoch);
                ret->gate_until_us = until_us;
        }
        ret->limited = atomic_load(&gate->limited) != 0;
        commits_before(warden, &commits);
        PGresult *result = ask(warden, text);
        bool good = result != NULL && value_u64(result, 0, 10, &ret->system) &&
                    value_u64(result, 1, 16, &timeline) && value_lsn(result, 2, &ret->written);
        PQclear(result);
        ret->replayed = ret->written;
        if (!good || !history_fill(warden, (uint32_t)timeline, ret))
                return false;
        commits_after(warden, &commits, ret);
        slots_look(warden, ret);
        return true;
}

bool look_identify(struct warden *warden, PGconn *connection, uint64_t *ret_system,
                   uint32_t *ret_timeline, uint64_t *ret_lsn, struct fail *fail)
{
        uint64_t timeline = 0;
        PGresult *result = sql_ask(warden, connection, "IDENTIFY_SYSTEM", ASK_MS, fail);
        if (result == NULL)
                return false;
        bool good = PQntuples(result) == 1 && value_u64(result, 0, 10, ret_system) &&
                    value_u64(result, 1, 10, &timeline) && timeline <= UINT32_MAX &&
                    value_lsn(result, 2, ret_lsn);
        *ret_timeline = (uint32_t)timeline;
        PQclear(result);
        return good || fail_set(fail, "the server does not say who it is");
}

static bool replication_own(struct warden *warden, struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        if (warden->replication != NULL && PQstatus(warden->replication) == CONNECTION_OK)
                return true;
        PQfinish(warden->replication);
        (void)snprintf(conninfo, sizeof conninfo,
                       "host='%s' port=%u user=postgres dbname=postgres replication=database "
                       "application_name=meridian",
                       warden->paths.socket, warden->config.listen.port);
        warden->replication = sql_connect(warden, conninfo, ASK_MS, fail);
        return warden->replication != NULL;
}

/* What was received of a newer timeline, and is not replayed up to there, counts as well: commits
 * may have been acknowledged for it. */
static void received_take(struct warden *warden, const PGresult *result, struct world_postgres *ret)
{
        uint64_t timeline = 0, start = 0, received = 0;
        if (!value_u64(result, 5, 10, &start))
                return;
        if ((int64_t)start != warden->received_start)
                warden->received_timeline = 0;
        warden->received_start = (int64_t)start;
        if (value_u64(result, 2, 10, &timeline))
                warden->received_timeline = (uint32_t)timeline;
        if (!value_lsn(result, 0, &received) || received <= ret->written)
                return;
        if (warden->received_timeline > ret->timeline) {
                if (history_fill(warden, warden->received_timeline, ret))
                        ret->written = received;
        } else if (warden->received_timeline == ret->timeline) {
                ret->written = received;
        }
}

/* A record that was cut in its middle is received, and never replayed: the log of a primary that
 * died ends so on its standbys, each at another place. Only its whole records are data. Looked into
 * where nothing has moved since the look before. */
static void whole_look(struct warden *warden, struct world_postgres *ret)
{
        struct remnant *remnant = &warden->remnant;
        struct history_control control;
        struct fail fail;
        bool none = false;
        if (ret->written <= ret->replayed)
                return;
        if (remnant->timeline != ret->timeline || remnant->replayed != ret->replayed ||
            remnant->written != ret->written) {
                *remnant = (struct remnant){ret->timeline, ret->replayed, ret->written, 0};
                return;
        }
        if (remnant->whole == 0 && (!look_control(warden, &control) ||
                                    !wal_end(warden, ret->timeline, ret->replayed,
                                             control.segment_bytes, &remnant->whole, &none, &fail)))
                remnant->whole = none ? ret->replayed : ret->written;
        ret->whole = remnant->whole;
}

static bool look_standby(struct warden *warden, struct world_postgres *ret)
{
        static const char text[] =
                "SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), r.received_tli, "
                "coalesce(r.status = 'streaming', false), "
                "greatest(0, extract(epoch FROM clock_timestamp() - "
                "pg_last_xact_replay_timestamp()) * 1000000)::bigint, "
                "extract(epoch FROM pg_postmaster_start_time())::bigint, pg_is_wal_replay_paused() "
                "FROM (SELECT 1) one LEFT JOIN pg_stat_get_wal_receiver() r ON r.pid IS NOT NULL";
        struct fail fail;
        uint32_t timeline = 0;
        uint64_t received = 0;
        ret->server = PRIMARY_STANDBY;
        if (!replication_own(warden, &fail) ||
            !look_identify(warden, warden->replication, &ret->system, &timeline, &ret->written,
                           &fail)) {
                PQfinish(warden->replication);
                warden->replication = NULL;
                return false;
        }
        PGresult *result = ask(warden, text);
        if (result == NULL || !history_fill(warden, timeline, ret)) {
                PQclear(result);
                return false;
        }
        (void)value_lsn(result, 1, &ret->replayed);
        received_take(warden, result, ret);
        if (PQgetvalue(result, 0, 3)[0] == 't')
                ret->upstream = warden->upstream;
        ret->paused = PQgetvalue(result, 0, 6)[0] == 't';
        ret->gap = warden->gap && ret->upstream == 0;
        whole_look(warden, ret);
        ret->lag_known = value_u64(result, 4, 10, &ret->lag_us);
        ret->commit_known = ret->lag_known;
        ret->commit_us = ret->lag_us;
        if (value_lsn(result, 0, &received) && ret->replayed >= received) {
                ret->lag_known = true;
                ret->lag_us = 0;
        }
        PQclear(result);
        return true;
}

static bool look_running(struct warden *warden, struct world_postgres *ret)
{
        PGresult *result = ask(warden, "SELECT pg_is_in_recovery()");
        if (result == NULL)
                return false;
        bool recovers = PQgetvalue(result, 0, 0)[0] == 't';
        PQclear(result);
        if (!recovers && warden->replication != NULL) {
                PQfinish(warden->replication);
                warden->replication = NULL;
        }
        return recovers ? look_standby(warden, ret) : look_primary(warden, ret);
}

/* ---- a server that does not run ---- */

/* The newest timeline below `limit` in pg_wal that has a history in which `timeline` was left at
 * `end` or before; 0: none. */
static uint32_t timeline_newer(struct warden *warden, uint32_t timeline, uint64_t end,
                               uint32_t limit, uint64_t *ret_left)
{
        char path[WARDEN_PATH_SIZE];
        uint32_t found = 0;
        DIR *dir = path_set(path, "%s/pg_wal", warden->paths.data) ? opendir(path) : NULL;
        if (dir == NULL)
                return 0;
        for (struct dirent *entry = dir_next(dir); entry != NULL; entry = dir_next(dir)) {
                struct history history;
                struct fail fail;
                char *rest = NULL;
                unsigned long number = strtoul(entry->d_name, &rest, 16);
                if (strlen(entry->d_name) != strlen("00000001.history") ||
                    strcmp(rest, ".history") != 0 || number <= timeline || number <= found ||
                    number >= limit || !look_history(warden, (uint32_t)number, &history, &fail))
                        continue;
                for (unsigned i = 0; i < history.count; i++) {
                        if (history.lines[i].timeline != timeline || history.lines[i].end > end)
                                continue;
                        found = (uint32_t)number;
                        *ret_left = history.lines[history.count - 1].end;
                }
        }
        closedir(dir);
        return found;
}

/* A standby's log may go on in newer timelines. Their histories come before their log, so the
 * newest of which there is some counts. */
static void stopped_go_on(struct warden *warden, struct stopped *stopped)
{
        uint32_t from = stopped->timeline;
        uint64_t from_end = stopped->written;
        uint64_t left = 0;
        uint64_t end = 0;
        uint32_t newer = UINT32_MAX;
        struct fail fail;
        while ((newer = timeline_newer(warden, from, from_end, newer, &left)) != 0) {
                if (!wal_end(warden, newer, left, stopped->control.segment_bytes, &end, NULL,
                             &fail))
                        continue;
                stopped->timeline = newer;
                stopped->written = end;
                return;
        }
}

/* Where the end of a standby's log cannot be read, less is told than there is. Of a primary that
 * would be to lose what only it has, so nothing is told; nor where something else came first. */
static bool stopped_read(struct warden *warden, struct stopped *stopped)
{
        const struct history_control *control = &stopped->control;
        bool standby = file_there("%s/standby.signal", warden->paths.data);
        struct fail fail;
        if (!look_control(warden, &stopped->control))
                return false;
        stopped->timeline = control->timeline;
        stopped->sure = wal_end(warden, stopped->timeline, control->redo, control->segment_bytes,
                                &stopped->written, NULL, &fail);
        if (!stopped->sure) {
                if (atomic_load(&warden->cancel))
                        return false;
                if (!warden->log_noted)
                        warden_note(warden, "postgres-log", "PostgreSQL: %.400s", fail.text);
                warden->log_noted = true;
                warden->blind = fail;
                if (!standby)
                        return false;
                stopped->written = control->redo;
        }
        if (!standby)
                return true;
        if (stopped->sure)
                stopped_go_on(warden, stopped);
        if (control->recovered > stopped->written) {
                stopped->timeline = control->recovered_timeline;
                stopped->written = control->recovered;
        }
        return !atomic_load(&warden->cancel);
}

static bool look_stopped(struct warden *warden, struct world_postgres *ret)
{
        struct stopped *stopped = &warden->stopped;
        char path[WARDEN_PATH_SIZE];
        struct stat info;
        if (!path_set(path, "%s/global/pg_control", warden->paths.data) || stat(path, &info) != 0)
                return false;
        int64_t changed_ns =
                (int64_t)info.st_mtim.tv_sec * 1000000000 + (int64_t)info.st_mtim.tv_nsec;
        if (!stopped->known || stopped->changed_ns != changed_ns || stopped->inode != info.st_ino) {
                *stopped = (struct stopped){.changed_ns = changed_ns, .inode = info.st_ino};
                stopped->known = stopped_read(warden, stopped);
                if (!stopped->known)
                        return false;
        }
        ret->server = file_there("%s/standby.signal", warden->paths.data) ? PRIMARY_ASLEEP
                                                                          : PRIMARY_CLOSED;
        ret->system = stopped->control.system;
        ret->written = ret->replayed = stopped->written;
        return history_fill(warden, stopped->timeline, ret);
}

/* ---- both ---- */

bool look(struct warden *warden, struct world_postgres *ret)
{
        *ret = (struct world_postgres){.server = PRIMARY_ABSENT, .looked_us = gate_now_us()};
        if (!look_data(warden))
                return true;
        if (server_pid(warden) != 0) {
                warden->stopped.known = false;
                if (look_running(warden, ret))
                        return true;
                /* While it starts: what is in its files. */
                struct fail fail;
                if (warden->sql != NULL || sql_own(warden, &fail))
                        return false;
                warden->blind = fail;
                if (!file_there("%s/meridian.conf", warden->paths.data) && !warden->log_noted) {
                        warden->log_noted = true;
                        warden_note(warden, "postgres-foreign",
                                    "PostgreSQL: a server that Meridian did not start runs in "
                                    "%.200s: stop it, and it is adopted",
                                    warden->paths.data);
                }
                *ret = (struct world_postgres){.server = PRIMARY_ABSENT};
                bool known = strstr(fail.text, "starting up") != NULL && look_stopped(warden, ret);
                warden->stopped.known = false;
                return known;
        }
        sql_close(warden);
        return look_stopped(warden, ret);
}

static bool is_well(const struct world_postgres *seen)
{
        return seen->server == PRIMARY_OPEN || seen->server == PRIMARY_HELD ||
               (seen->server == PRIMARY_STANDBY && seen->upstream != 0);
}

void look_tell(struct warden *warden)
{
        struct out out = {.kind = OUT_SEEN};
        if (warden->frozen && warden->fences)
                return;
        if (!warden->frozen) {
                if (!look(warden, &out.seen)) {
                        if (warden->blind_since_us == 0)
                                warden->blind_since_us = gate_now_us();
                        return;
                }
                warden->blind_since_us = 0;
                warden->seen = out.seen;
                warden->seen_any = true;
        }
        if (!warden->seen_any)
                return;
        out.seen = warden->seen;
        warden_out(warden, &out);
        out = (struct out){.kind = OUT_PROBED, .healthy = is_well(&out.seen)};
        if (!out.healthy)
                (void)snprintf(out.text, sizeof out.text, "the server is %s",
                               primary_server_name((enum primary_server)warden->seen.server));
        warden_out(warden, &out);
}
