/* gap.c - is the log that a standby needs next still anywhere? A standby that was away for longer
 * than its slot holds back, and has no archive, asks for it again and again. So the server that it
 * follows is asked for the same, by a connection that nobody counts as a standby; only the plain
 * answer that a file of the log was removed counts, whatever else fails is no answer. */
#include "warden/warden_priv.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#define CONNECT_MS 1000
#define ANSWER_MS  1000
#define SLICE_MS   20
#define LOST_US    2500000 /* not streaming for so long, */
#define EVERY_US   5000000 /* and from then on so often */
#define LINES_MAX  16
#define FILE_NONE  "58P01" /* of a file that is not there */

enum answer {
        ANSWER_NONE,
        ANSWER_THERE,
        ANSWER_REMOVED,
        ANSWER_NEXT, /* that timeline ends there: ask for the next one */
};

/* A place in the log. */
struct place {
        uint32_t timeline;
        uint64_t lsn;
};

/* The next result; NULL: there is none in time. */
static PGresult *result_wait(struct warden *warden, PGconn *connection, uint64_t until_us)
{
        struct pollfd fd = {PQsocket(connection), POLLIN, 0};
        while (PQisBusy(connection)) {
                if (gate_now_us() >= until_us || atomic_load(&warden->cancel))
                        return NULL;
                if (poll(&fd, 1, SLICE_MS) > 0 && PQconsumeInput(connection) != 1)
                        return NULL;
        }
        return PQgetResult(connection);
}

static enum answer error_read(const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        return state != NULL && strcmp(state, FILE_NONE) == 0 ? ANSWER_REMOVED : ANSWER_NONE;
}

/* The stream has begun: its first message, or the error that ends it. */
static enum answer stream_read(struct warden *warden, PGconn *connection, uint64_t until_us)
{
        struct pollfd fd = {PQsocket(connection), POLLIN, 0};
        for (;;) {
                char *message = NULL;
                int len = PQgetCopyData(connection, &message, 1);
                bool log = len > 0 && message[0] == 'w';
                PQfreemem(message);
                if (log)
                        return ANSWER_THERE;
                if (len < 0)
                        break;
                if (gate_now_us() >= until_us || atomic_load(&warden->cancel))
                        return ANSWER_NONE;
                if (len == 0 && poll(&fd, 1, SLICE_MS) > 0 && PQconsumeInput(connection) != 1)
                        return ANSWER_NONE;
        }
        PGresult *result = result_wait(warden, connection, until_us);
        enum answer answer =
                PQresultStatus(result) == PGRES_FATAL_ERROR ? error_read(result) : ANSWER_NONE;
        PQclear(result);
        return answer;
}

static bool next_read(const PGresult *result, struct place *place)
{
        uint64_t lsn = 0;
        if (PQntuples(result) != 1 || PQnfields(result) != 2 ||
            !history_lsn_parse(bytes_of_str(PQgetvalue(result, 0, 1)), &lsn))
                return false;
        place->timeline = (uint32_t)strtoul(PQgetvalue(result, 0, 0), NULL, 10);
        place->lsn = lsn;
        return true;
}

static enum answer ask_once(struct warden *warden, PGconn *connection, struct place *place)
{
        char text[96];
        uint64_t until_us = gate_now_us() + 1000ull * ANSWER_MS;
        enum answer answer = ANSWER_NONE;
        (void)snprintf(text, sizeof text, "START_REPLICATION PHYSICAL %X/%X TIMELINE %u",
                       (unsigned)(place->lsn >> 32), (unsigned)place->lsn, place->timeline);
        if (PQsendQuery(connection, text) != 1)
                return ANSWER_NONE;
        PGresult *result = result_wait(warden, connection, until_us);
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_COPY_BOTH)
                answer = stream_read(warden, connection, until_us);
        else if (status == PGRES_FATAL_ERROR)
                answer = error_read(result);
        else if (status == PGRES_TUPLES_OK && next_read(result, place))
                answer = ANSWER_NEXT;
        PQclear(result);
        while (answer == ANSWER_NEXT &&
               (result = result_wait(warden, connection, until_us)) != NULL)
                PQclear(result);
        return answer;
}

static uint64_t segment_bytes(struct warden *warden)
{
        struct fail fail;
        uint64_t bytes = 0;
        PGresult *result = !sql_own(warden, &fail)
                                   ? NULL
                                   : sql_ask(warden, warden->sql,
                                             "SELECT setting FROM pg_settings WHERE name = "
                                             "'wal_segment_size'",
                                             ANSWER_MS, &fail);
        if (result != NULL && PQntuples(result) == 1)
                bytes = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        PQclear(result);
        return bytes;
}

static bool archived(const struct warden *warden, const struct place *place, uint64_t segment)
{
        uint64_t per_id = ((uint64_t)1 << 32) / segment;
        uint64_t file = place->lsn / segment;
        return warden->config.archive[0] != '\0' &&
               file_there("%s/%08" PRIX32 "%08" PRIX64 "%08" PRIX64, warden->config.archive,
                          place->timeline, file / per_id, file % per_id);
}

/* A refusal that does not go away by itself. */
static void login_judge(struct warden *warden, struct fail *fail)
{
        static const char *const words[] = {"authentication failed", "pg_hba.conf",
                                            "does not exist", "password", "certificate"};
        warden->login.text[0] = '\0';
        for (size_t i = 0; i < COUNT_OF(words); i++) {
                if (strstr(fail->text, words[i]) == NULL)
                        continue;
                check_advise(warden, fail);
                warden->login = *fail;
                return;
        }
}

/* As the server's own receiver asks: from the beginning of the file. */
static bool removed(struct warden *warden, struct place place)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        struct fail fail;
        enum answer answer = ANSWER_NEXT;
        uint64_t segment = segment_bytes(warden);
        if (segment == 0 ||
            !sql_upstream(warden, warden->upstream,
                          "replication=true application_name=meridian_probe", conninfo))
                return false;
        PGconn *connection = sql_connect(warden, conninfo, CONNECT_MS, &fail);
        if (connection == NULL) {
                login_judge(warden, &fail);
                return false;
        }
        warden->login.text[0] = '\0';
        for (unsigned i = 0; i < LINES_MAX && answer == ANSWER_NEXT; i++) {
                place.lsn -= place.lsn % segment;
                answer = ask_once(warden, connection, &place);
        }
        PQfinish(connection);
        return answer == ANSWER_REMOVED && !archived(warden, &place, segment);
}

void gap_look(struct warden *warden)
{
        const struct world_postgres *seen = &warden->seen;
        uint64_t now_us = gate_now_us();
        if (seen->server != PRIMARY_STANDBY || seen->upstream != 0 || warden->upstream == 0 ||
            warden->upstream != warden->gap_upstream) {
                warden->gap_upstream = seen->server == PRIMARY_STANDBY ? warden->upstream : 0;
                warden->gap_next_us = now_us + LOST_US;
                warden->gap = false;
                warden->login.text[0] = '\0';
                return;
        }
        if (now_us < warden->gap_next_us)
                return;
        warden->gap = removed(warden, (struct place){seen->timeline, seen->written});
        warden->gap_next_us = gate_now_us() + EVERY_US;
}
