/* trouble.c - what goes wrong at a server without an action having failed: a disk that fills up,
 * log that cannot be archived, data that cannot be read, a standby that nobody lets in. Each is
 * told when it begins, with what is to be done, and when it is over. It changes nothing by itself.
 */
#include "warden/warden_priv.h"

#include <inttypes.h>
#include <stdarg.h>

#define EVERY_US  1000000
#define BLIND_US  3500000
#define ASK_MS    1000
#define ROOM_MIN  (128ull << 20) /* less than a few files of the log */
#define ROOM_MAX  (2ull << 30)
#define ROOM_PART 50 /* a fiftieth of the disk, within these */

static void trouble_set(struct warden *warden, enum trouble trouble, bool there, const char *format,
                        ...) PRINTF_LIKE(4, 5);

static void trouble_set(struct warden *warden, enum trouble trouble, bool there, const char *format,
                        ...)
{
        char text[WARDEN_TEXT_SIZE - 64];
        va_list args;
        if (warden->troubles[trouble] == there)
                return;
        warden->troubles[trouble] = there;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        warden_note(warden, there ? "postgres-alarm" : "postgres", "PostgreSQL: %s%s", text,
                    there ? "" : " (over)");
}

static void room_look(struct warden *warden, enum trouble trouble, const char *path)
{
        uint64_t room = 0, size = 0;
        if (!check_room(path, &room, &size))
                return;
        uint64_t least = size / ROOM_PART;
        if (least < ROOM_MIN)
                least = ROOM_MIN;
        if (least > ROOM_MAX)
                least = ROOM_MAX;
        /* A small disk is not full for being small. */
        if (least > size / 4)
                least = size / 4;
        /* Not told anew at each file that comes and goes. */
        bool there = room < (warden->troubles[trouble] ? least + least / 4 : least);
        trouble_set(warden, trouble, there,
                    "%" PRIu64 " of %" PRIu64 " MB are left where %.200s is: make room there, "
                    "before the server stops",
                    room >> 20, size >> 20, path);
}

/* Does the newest attempt to archive fail? */
static void archive_look(struct warden *warden)
{
        struct fail fail;
        bool fails = false;
        char file[64] = "";
        if (warden->config.archive[0] == '\0')
                return;
        room_look(warden, TROUBLE_ARCHIVE_ROOM, warden->config.archive);
        if (warden->seen.server != PRIMARY_OPEN || !sql_own(warden, &fail))
                return;
        PGresult *result = sql_ask(warden, warden->sql,
                                   "SELECT last_failed_time > coalesce(last_archived_time, "
                                   "'-infinity'), last_failed_wal, last_archived_wal "
                                   "FROM pg_stat_archiver",
                                   ASK_MS, &fail);
        if (result == NULL) {
                sql_close(warden);
                return;
        }
        fails = PQntuples(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';
        /* One that was given up counts as archived for PostgreSQL. */
        if (warden->troubles[TROUBLE_ARCHIVE] && !fails &&
            !file_there("%s/%s", warden->config.archive, PQgetvalue(result, 0, 2)))
                fails = true;
        if (fails)
                (void)snprintf(file, sizeof file, "%s", PQgetvalue(result, 0, 1));
        PQclear(result);
        trouble_set(warden, TROUBLE_ARCHIVE, fails,
                    "the finished log %s cannot be copied to %.200s, as %.100s says: make room "
                    "there, or correct the key 'postgres archive'",
                    file, warden->config.archive, warden->paths.log);
}

static void blind_look(struct warden *warden)
{
        bool there = warden->blind_since_us != 0 && !warden->frozen &&
                     gate_now_us() > warden->blind_since_us + BLIND_US;
        trouble_set(warden, TROUBLE_BLIND, there,
                    "how the server in %.100s is cannot be seen: %.250s", warden->paths.data,
                    warden->blind.text[0] != '\0' ? warden->blind.text : "it does not answer");
}

static void login_look(struct warden *warden)
{
        trouble_set(warden, TROUBLE_LOGIN, warden->login.text[0] != '\0',
                    "the standby is not let in at the server that it follows: %.330s",
                    warden->login.text);
}

void trouble_look(struct warden *warden)
{
        uint64_t now_us = gate_now_us();
        if (now_us < warden->trouble_next_us)
                return;
        warden->trouble_next_us = now_us + EVERY_US;
        room_look(warden, TROUBLE_ROOM,
                  file_there("%s", warden->paths.data) ? warden->paths.data : warden->config.home);
        archive_look(warden);
        blind_look(warden);
        login_look(warden);
}
