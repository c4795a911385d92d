/* connect.c - opening the connection to the primary.
 *
 * The login is the session user's own, to the session's own database: whatever text is sent later,
 * the primary gives it that user's rights and no more. How the user is authenticated there is said
 * by meridian.writer (a passfile, a certificate) or by a user mapping for the server
 * meridian_writer (a password). The options of meridian.writer that would change who, or what runs,
 * are refused.
 *
 * A server that answers is believed only when it has this cluster's identifier, is not in recovery
 * and its timeline is not older than this standby's: a former primary that came back is not it. */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#include "connect.h"
#include "forward.h"

#define WRITER_SERVER "meridian_writer"
#define OPTIONS_MAX   64

/* Not the administrator's to choose here: they are the session's, or ours. */
static const char *const refused_options[] = {
        "user",
        "dbname",
        "options",
        "replication",
        "client_encoding",
        "service",
        "application_name",
        "fallback_application_name",
};

static const struct {
        const char *keyword;
        const char *value;
} default_options[] = {
        {"target_session_attrs", "primary"}, {"gssencmode", "disable"},
        {"tcp_user_timeout", "10000"},       {"keepalives_idle", "10"},
        {"keepalives_interval", "5"},        {"keepalives_count", "3"},
};

struct options {
        const char *keywords[OPTIONS_MAX + 1];
        const char *values[OPTIONS_MAX + 1];
        int count;
};

static void option_add(struct options *options, const char *keyword, const char *value)
{
        if (options->count < OPTIONS_MAX) {
                options->keywords[options->count] = keyword;
                options->values[options->count] = value;
                options->count++;
        }
}

static bool option_there(const struct options *options, const char *keyword)
{
        for (int i = 0; i < options->count; i++)
                if (strcmp(options->keywords[i], keyword) == 0)
                        return true;
        return false;
}

static void refuse_option(const char *keyword)
{
        for (size_t i = 0; i < lengthof(refused_options); i++)
                if (strcmp(keyword, refused_options[i]) == 0)
                        ereport(ERROR,
                                (errcode(ERRCODE_CONFIG_FILE_ERROR),
                                 errmsg("meridian.writer must not have the option \"%s\"", keyword),
                                 errdetail("User and database are the session's own.")));
}

static void options_of_writer(struct options *options)
{
        char *error = NULL;
        if (forward_config.writer == NULL || forward_config.writer[0] == '\0')
                ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR),
                                errmsg("meridian.writer is not set, so nothing can be forwarded"),
                                errhint("Set it to the host and port of the writer.")));
        PQconninfoOption *parsed = PQconninfoParse(forward_config.writer, &error);
        if (parsed == NULL) {
                char *detail = pchomp(error != NULL ? error : "out of memory");
                PQfreemem(error);
                ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR),
                                errmsg("meridian.writer is not a connection string"),
                                errdetail_internal("%s", detail)));
        }
        struct options seen = {0};
        for (PQconninfoOption *option = parsed; option->keyword != NULL; option++)
                if (option->val != NULL)
                        option_add(&seen, pstrdup(option->keyword), pstrdup(option->val));
        PQconninfoFree(parsed);
        for (int i = 0; i < seen.count; i++)
                refuse_option(seen.keywords[i]);
        *options = seen;
}

/* The password of the user's mapping, if there is one. */
static void options_of_mapping(struct options *options, Oid user)
{
        Oid server = get_foreign_server_oid(WRITER_SERVER, true);
        if (!OidIsValid(server) ||
            !SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
                                   ObjectIdGetDatum(server)))
                return;
        ListCell *cell;
        foreach (cell, GetUserMapping(user, server)->options) {
                DefElem *option = lfirst(cell);
                option_add(options, option->defname, defGetString(option));
        }
}

static void throw_unreachable(const char *why)
{
        ereport(ERROR,
                (errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
                 errmsg("the primary cannot be reached as \"%s\"",
                        GetUserNameFromId(GetSessionUserId(), false)),
                 errdetail_internal("%s", why),
                 errhint("meridian.writer says where it is; a passfile, a certificate or a user "
                         "mapping for " WRITER_SERVER " says how to log in.")));
}

static void poll_until(PGconn *conn, TimestampTz deadline)
{
        PostgresPollingStatusType status = PGRES_POLLING_WRITING;
        while (status != PGRES_POLLING_OK) {
                if (status == PGRES_POLLING_FAILED || PQstatus(conn) == CONNECTION_BAD)
                        throw_unreachable(pchomp(PQerrorMessage(conn)));
                long ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
                int wanted =
                        status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_CONNECTED;
                int what = WaitLatchOrSocket(
                        MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | wanted,
                        PQsocket(conn), ms, PG_WAIT_EXTENSION);
                if ((what & WL_LATCH_SET) != 0) {
                        ResetLatch(MyLatch);
                        CHECK_FOR_INTERRUPTS();
                }
                if ((what & wanted) != 0)
                        status = PQconnectPoll(conn);
                else if (ms == 0)
                        throw_unreachable("It did not answer within meridian.connect_timeout.");
        }
}

/* One small query on a connection that is not in use yet; NULL on any failure. */
static PGresult *ask(PGconn *conn, const char *text, TimestampTz deadline)
{
        PGresult *last = NULL;
        if (!PQsendQuery(conn, text))
                return NULL;
        for (;;) {
                PQflush(conn);
                if (!PQisBusy(conn)) {
                        PGresult *result = PQgetResult(conn);
                        if (result == NULL)
                                return last;
                        PQclear(last);
                        last = result;
                        continue;
                }
                long ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
                if (ms == 0 || PQstatus(conn) != CONNECTION_OK)
                        break;
                int what = WaitLatchOrSocket(MyLatch,
                                             WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT |
                                                     WL_SOCKET_READABLE,
                                             PQsocket(conn), ms, PG_WAIT_EXTENSION);
                if ((what & WL_LATCH_SET) != 0) {
                        ResetLatch(MyLatch);
                        CHECK_FOR_INTERRUPTS();
                }
                if (!PQconsumeInput(conn) && PQisBusy(conn))
                        break;
        }
        PQclear(last);
        return NULL;
}

static void check_identity(PGconn *conn, TimestampTz deadline)
{
        PGresult *result =
                ask(conn,
                    "SELECT system_identifier, pg_catalog.pg_walfile_name("
                    "pg_catalog.pg_current_wal_insert_lsn()), pg_catalog.pg_backend_pid() "
                    "FROM pg_catalog.pg_control_system()",
                    deadline);
        if (result == NULL || PQntuples(result) != 1) {
                char *why = result != NULL ? pchomp(PQresultErrorMessage(result))
                                           : pchomp(PQerrorMessage(conn));
                PQclear(result);
                throw_unreachable(why);
        }
        uint64 identifier = (uint64)strtoi64(PQgetvalue(result, 0, 0), NULL, 10);
        char timeline_hex[9];
        strlcpy(timeline_hex, PQgetvalue(result, 0, 1), sizeof timeline_hex);
        int pid = (int)strtol(PQgetvalue(result, 0, 2), NULL, 10);
        PQclear(result);
        TimeLineID timeline = (TimeLineID)strtoul(timeline_hex, NULL, 16);
        TimeLineID ours;
        GetXLogReplayRecPtr(&ours);
        if (identifier != GetSystemIdentifier())
                throw_unreachable("The server there belongs to another cluster.");
        if (RecoveryInProgress() && timeline < ours)
                throw_unreachable("The server there is a former primary: its timeline is older "
                                  "than this standby's.");
        remote.timeline = timeline;
        remote.pid = pid;
}

void connect_open(int ms)
{
        Oid user = GetSessionUserId();
        struct options options;
        TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
        options_of_writer(&options);
        options_of_mapping(&options, user);
        for (size_t i = 0; i < lengthof(default_options); i++)
                if (!option_there(&options, default_options[i].keyword))
                        option_add(&options, default_options[i].keyword, default_options[i].value);
        option_add(&options, "user", GetUserNameFromId(user, false));
        option_add(&options, "dbname", get_database_name(MyDatabaseId));
        option_add(&options, "client_encoding", GetDatabaseEncodingName());
        option_add(&options, "application_name", "meridian");
        PGconn *conn = PQconnectStartParams(options.keywords, options.values, 0);
        PG_TRY();
        {
                if (conn == NULL)
                        throw_unreachable("There is no memory for a connection.");
                poll_until(conn, deadline);
                check_identity(conn, deadline);
                if (PQsetnonblocking(conn, 1) != 0)
                        throw_unreachable(pchomp(PQerrorMessage(conn)));
        }
        PG_CATCH();
        {
                PQfinish(conn);
                PG_RE_THROW();
        }
        PG_END_TRY();
        PQsetNoticeReceiver(conn, answer_notice, NULL);
        remote.conn = conn;
        remote.user = user;
        forward_counters.connects++;
}

/* The answer is only good on the timeline of the question: another primary may have given the
 * number to another transaction. */
static char outcome_once(uint64 xid, TimeLineID timeline, TimestampTz deadline)
{
        char text[128];
        if (remote.timeline != timeline)
                return '?';
        snprintf(text, sizeof text,
                 "SELECT pg_catalog.pg_xact_status('" UINT64_FORMAT "'::pg_catalog.xid8)", xid);
        PGresult *result = ask(remote.conn, text, deadline);
        char outcome = '?';
        if (result != NULL && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0))
                outcome = PQgetvalue(result, 0, 0)[0];
        PQclear(result);
        return outcome;
}

static char outcome_until(uint64 xid, TimeLineID timeline, TimestampTz deadline)
{
        for (;;) {
                if (remote.conn == NULL) {
                        connect_open((int)Max(100, TimestampDifferenceMilliseconds(
                                                           GetCurrentTimestamp(), deadline)));
                }
                char outcome = outcome_once(xid, timeline, deadline);
                if (outcome != 'i' || GetCurrentTimestamp() >= deadline)
                        return outcome == 'i' ? '?' : outcome;
                pg_usleep(20000);
                CHECK_FOR_INTERRUPTS();
        }
}

char remote_outcome(uint64 xid, TimeLineID timeline)
{
        MemoryContext before = CurrentMemoryContext;
        TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
                                                           forward_config.connect_timeout_ms);
        char outcome = '?';
        if (xid == 0)
                return outcome;
        for (;;) {
                PG_TRY();
                {
                        outcome = outcome_until(xid, timeline, deadline);
                }
                PG_CATCH();
                {
                        /* not reachable yet; a session that is told to end does not come here */
                        MemoryContextSwitchTo(before);
                        FlushErrorState();
                        remote_close();
                        outcome = ' ';
                }
                PG_END_TRY();
                if (outcome != ' ' || GetCurrentTimestamp() >= deadline)
                        break;
                pg_usleep(100000);
        }
        return outcome == ' ' ? '?' : outcome;
}
