/* server.c - starts and ends the server. It is no child of the daemon: it is known by the pid that
 * it wrote down, and by its folder, since that pid may by now be a stranger's. A server that does
 * not start says why in its log, whose end is in the sentence. */
#include "warden/warden_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define START_MS     60000
#define BORN_MS      5000
#define STOP_MS      6000
#define STOP_FAST_MS 60000
#define STEP_MS      5
#define ASK_EVERY_MS 15
#define REMAINS_MS   3000

pid_t server_pid(const struct warden *warden)
{
        char path[WARDEN_PATH_SIZE], text[512], target[WARDEN_PATH_SIZE], real[PATH_MAX];
        if (!path_set(path, "%s/postmaster.pid", warden->paths.data) ||
            !file_read(path, text, sizeof text, NULL))
                return 0;
        long pid = strtol(text, NULL, 10);
        if (pid <= 1 || pid > INT32_MAX || realpath(warden->paths.data, real) == NULL)
                return 0;
        (void)snprintf(path, sizeof path, "/proc/%ld/cwd", pid);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len <= 0)
                return 0;
        target[len] = '\0';
        return strcmp(target, real) == 0 ? (pid_t)pid : 0;
}

/* The end of the server's log, in one line. */
static bool log_fails(const struct warden *warden, struct fail *fail)
{
        char text[401];
        size_t len = 0;
        FILE *file = fopen(warden->paths.log, "re");
        if (file != NULL) {
                if (fseek(file, -400, SEEK_END) != 0)
                        rewind(file);
                len = fread(text, 1, sizeof text - 1, file);
                fclose(file);
        }
        while (len > 0 && text[len - 1] == '\n')
                len--;
        text[len] = '\0';
        const char *begin = strchr(text, '\n');
        begin = begin == NULL || len < 400 ? text : begin + 1;
        for (char *at = text; *at != '\0'; at++)
                *at = *at == '\n' || *at == '\t' ? ' ' : *at;
        return fail_set(fail, "the server does not start: %s",
                        len > 0 ? begin : "no word in its log");
}

static bool signal_set(struct warden *warden, bool standby, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE];
        if (!path_set(path, "%s/recovery.signal", warden->paths.data))
                return fail_set(fail, "the path is too long");
        (void)unlink(path);
        if (!path_set(path, "%s/standby.signal", warden->paths.data))
                return fail_set(fail, "the path is too long");
        if (standby)
                return file_there("%s", path) || file_write(warden, path, bytes_of(NULL, 0), fail);
        if (unlink(path) != 0 && errno != ENOENT)
                return fail_set(fail, "%s cannot be removed", path);
        folder_sync(path);
        return true;
}

/* The postmaster begins where pg_ctl was run, and goes into the data folder before it writes down
 * its pid. So where nobody lives in either, it has ended without a word to anybody but its log. */
static bool stillborn(const struct warden *warden)
{
        char home[PATH_MAX], data[PATH_MAX];
        return realpath(warden->config.home, home) != NULL &&
               realpath(warden->paths.data, data) != NULL && child_signal_in(home, 0) == 0 &&
               child_signal_in(data, 0) == 0 && server_pid(warden) == 0;
}

static bool wait_for_answer(struct warden *warden, struct fail *fail)
{
        uint64_t begin_us = gate_now_us();
        bool born = false;
        struct fail last = {"it is still starting"};
        while (gate_now_us() < begin_us + 1000ull * START_MS) {
                if (server_pid(warden) != 0) {
                        born = true;
                        if (sql_own(warden, &last))
                                return true;
                } else if (born || stillborn(warden) ||
                           gate_now_us() > begin_us + 1000ull * BORN_MS) {
                        return log_fails(warden, fail);
                }
                if (!warden_pause(warden, ASK_EVERY_MS))
                        return fail_set(fail, "something else came first");
        }
        return fail_set(fail, "the server does not answer yet: %.300s", last.text);
}

/* Without our library nothing would keep it from taking writes: only then is there no such setting
 * in that view, whatever the files say. */
static bool gate_stands(struct warden *warden, enum server_mode mode, struct fail *fail)
{
        struct fail ignored;
        if (mode == SERVER_ALONE)
                return true;
        PGresult *result = sql_ask(warden, warden->sql,
                                   "SELECT count(*) FROM pg_settings WHERE name = 'meridian.gate' "
                                   "AND setting <> ''",
                                   3000, fail);
        bool told = result != NULL;
        bool stands = told && PQgetvalue(result, 0, 0)[0] == '1';
        PQclear(result);
        if (!told || stands)
                return stands;
        (void)!server_stop(warden, false, &ignored);
        return fail_set(fail, "the server ran without the library of Meridian, so it was stopped: "
                              "name it in shared_preload_libraries where a file of yours sets "
                              "that");
}

/* Removes a file of PostgreSQL's that begins with the pid of a zombie. */
static void zombie_forget(const char *path)
{
        char text[512], stat[512], proc[64];
        if (!file_read(path, text, sizeof text, NULL))
                return;
        (void)snprintf(proc, sizeof proc, "/proc/%ld/stat", strtol(text, NULL, 10));
        const char *end = file_read(proc, stat, sizeof stat, NULL) ? strrchr(stat, ')') : NULL;
        if (end != NULL && strncmp(end, ") Z", 3) == 0)
                (void)unlink(path);
}

/* A postmaster that was killed leaves processes behind for a moment, and maybe itself as a zombie,
 * which PostgreSQL takes for alive. Nothing is done where any process still lives in the folder. */
static bool remains_end(struct warden *warden, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE], real[PATH_MAX];
        uint64_t begin_us = gate_now_us();
        if (realpath(warden->paths.data, real) == NULL)
                return fail_set(fail, "%s is not there", warden->paths.data);
        while (child_signal_in(real, 0) > 0) {
                if (gate_now_us() > begin_us + 1000ull * REMAINS_MS)
                        (void)child_signal_in(real, SIGKILL);
                if (gate_now_us() > begin_us + 2000ull * REMAINS_MS)
                        return fail_set(fail, "processes of an older server do not end");
                if (!warden_pause(warden, STEP_MS))
                        return fail_set(fail, "something else came first");
        }
        if (path_set(path, "%s/postmaster.pid", warden->paths.data))
                zombie_forget(path);
        if (path_set(path, "%s/.s.PGSQL.%u.lock", warden->paths.socket, warden->config.listen.port))
                zombie_forget(path);
        return true;
}

static bool spawn(struct warden *warden, enum server_mode mode, uint32_t timeline,
                  struct fail *fail)
{
        static const char alone[] = "-c meridian.gate= -c listen_addresses= "
                                    "-c synchronous_standby_names= -c archive_mode=off";
        char stays[64];
        (void)snprintf(stays, sizeof stays, "-c recovery_target_timeline=%" PRIu32, timeline);
        const char *more = mode == SERVER_ALONE ? alone : timeline != 0 ? stays : NULL;
        const char *arguments[] = {
                "start", "-D", warden->paths.data,         "-l", warden->paths.log,
                "-W",    "-s", more != NULL ? "-o" : NULL, more, NULL};
        char older[WARDEN_PATH_SIZE];
        if (path_set(older, "%s.1", warden->paths.log))
                (void)rename(warden->paths.log, older);
        return child_run(warden, "pg_ctl", arguments, &warden->text, fail);
}

/* Does it run as what it is to be? */
static bool runs_as(struct warden *warden, enum server_mode mode)
{
        struct fail fail;
        if (mode == SERVER_ALONE || !sql_own(warden, &fail))
                return false;
        PGresult *result = sql_ask(warden, warden->sql, "SELECT pg_is_in_recovery()", 3000, &fail);
        bool recovers = result != NULL && PQgetvalue(result, 0, 0)[0] == 't';
        bool fits = result != NULL && recovers == (mode == SERVER_STANDBY);
        PQclear(result);
        return fits;
}

/* `timeline`: of a standby that follows no newer one; 0: it follows the newest. */
static bool begin(struct warden *warden, enum server_mode mode, node_id upstream, uint32_t timeline,
                  struct fail *fail)
{
        sql_close(warden);
        return check_folder(warden, fail) && remains_end(warden, fail) &&
               (mode == SERVER_ALONE || check_address(warden, fail)) &&
               signal_set(warden, mode == SERVER_STANDBY, fail) &&
               conf_write(warden, warden->paths.data, upstream, fail) &&
               spawn(warden, mode, timeline, fail) && wait_for_answer(warden, fail) &&
               gate_stands(warden, mode, fail);
}

bool server_start(struct warden *warden, enum server_mode mode, node_id upstream, struct fail *fail)
{
        if (server_pid(warden) != 0) {
                if (mode == SERVER_STANDBY && file_there("%s/standby.signal", warden->paths.data) &&
                    wait_for_answer(warden, fail) && runs_as(warden, mode))
                        return gate_stands(warden, mode, fail) &&
                               conf_reload(warden, upstream, fail);
                if (mode == SERVER_PRIMARY &&
                    !file_there("%s/standby.signal", warden->paths.data) &&
                    wait_for_answer(warden, fail) && runs_as(warden, mode))
                        return gate_stands(warden, mode, fail) &&
                               conf_reload(warden, upstream, fail);
                if (!server_stop(warden, false, fail))
                        return false;
        }
        return begin(warden, mode, upstream, 0, fail);
}

bool server_stay(struct warden *warden, uint32_t timeline, struct fail *fail)
{
        return server_stop(warden, false, fail) && begin(warden, SERVER_STANDBY, 0, timeline, fail);
}

bool server_stop(struct warden *warden, bool fast, struct fail *fail)
{
        pid_t pid = server_pid(warden);
        uint64_t begin_us = gate_now_us();
        unsigned most_ms = fast ? STOP_FAST_MS : STOP_MS;
        sql_close(warden);
        if (pid == 0)
                return true;
        (void)kill(pid, fast ? SIGINT : SIGQUIT);
        while (server_pid(warden) == pid) {
                if (gate_now_us() > begin_us + 1000ull * most_ms)
                        (void)kill(pid, SIGKILL);
                if (gate_now_us() > begin_us + 1000ull * (most_ms + STOP_MS))
                        return fail_set(fail, "the server (pid %d) does not end", (int)pid);
                if (!warden_pause(warden, STEP_MS))
                        return fail_set(fail, "something else came first");
        }
        return true;
}
