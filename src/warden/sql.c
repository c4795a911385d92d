/* sql.c - libpq with time limits. A connection whose query did not end in time is of no use any
 * more and is given up; the sentence is the server's own where there is one. */
#include "warden/warden_priv.h"

#include <poll.h>

#define SLICE_MS   20
#define CONNECT_MS 3000

static bool fail_libpq(struct fail *fail, const char *what, const char *message)
{
        size_t len = strcspn(message, "\n");
        return fail_set(fail, "%s: %.*s", what, len > 0 ? (int)len : 9,
                        len > 0 ? message : "no answer");
}

static bool socket_wait(struct warden *warden, PGconn *connection, bool writes, uint64_t until_us)
{
        struct pollfd fd = {PQsocket(connection), (short)(writes ? POLLOUT : POLLIN), 0};
        while (gate_now_us() < until_us) {
                if (poll(&fd, 1, SLICE_MS) > 0)
                        return true;
                if (atomic_load(&warden->cancel))
                        return false;
        }
        return false;
}

PGconn *sql_connect(struct warden *warden, const char *conninfo, unsigned timeout_ms,
                    struct fail *fail)
{
        uint64_t until_us = gate_now_us() + 1000ull * timeout_ms;
        PGconn *connection = PQconnectStart(conninfo);
        if (connection == NULL) {
                (void)fail_set(fail, "no memory");
                return NULL;
        }
        PostgresPollingStatusType state = PGRES_POLLING_WRITING;
        while (PQstatus(connection) != CONNECTION_BAD && state != PGRES_POLLING_OK &&
               state != PGRES_POLLING_FAILED) {
                if (!socket_wait(warden, connection, state == PGRES_POLLING_WRITING, until_us))
                        break;
                state = PQconnectPoll(connection);
        }
        if (state == PGRES_POLLING_OK && PQstatus(connection) == CONNECTION_OK)
                return connection;
        (void)fail_libpq(fail, "no connection to the server", PQerrorMessage(connection));
        PQfinish(connection);
        return NULL;
}

static bool result_good(const PGresult *result)
{
        ExecStatusType status = PQresultStatus(result);
        return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

PGresult *sql_ask(struct warden *warden, PGconn *connection, const char *text, unsigned timeout_ms,
                  struct fail *fail)
{
        uint64_t until_us = gate_now_us() + 1000ull * timeout_ms;
        PGresult *last = NULL;
        if (PQsendQuery(connection, text) != 1) {
                (void)fail_libpq(fail, "the server", PQerrorMessage(connection));
                return NULL;
        }
        for (;;) {
                while (PQisBusy(connection)) {
                        if (!socket_wait(warden, connection, false, until_us) ||
                            PQconsumeInput(connection) != 1) {
                                (void)fail_libpq(fail, "the server", PQerrorMessage(connection));
                                PQclear(last);
                                return NULL;
                        }
                }
                PGresult *next = PQgetResult(connection);
                if (next == NULL)
                        break;
                PQclear(last);
                last = next;
        }
        if (last == NULL || !result_good(last)) {
                (void)fail_libpq(fail, "the server",
                                 last == NULL ? "" : PQresultErrorMessage(last));
                PQclear(last);
                return NULL;
        }
        return last;
}

bool sql_own(struct warden *warden, struct fail *fail)
{
        char conninfo[WARDEN_PATH_SIZE * 2];
        if (warden->sql != NULL && PQstatus(warden->sql) == CONNECTION_OK)
                return true;
        sql_close(warden);
        (void)snprintf(conninfo, sizeof conninfo,
                       "host='%s' port=%u user=postgres dbname=postgres application_name=meridian "
                       "options='-c statement_timeout=0 -c synchronous_commit=local'",
                       warden->paths.socket, warden->config.listen.port);
        warden->sql = sql_connect(warden, conninfo, CONNECT_MS, fail);
        return warden->sql != NULL;
}

bool sql_do(struct warden *warden, const char *text, unsigned timeout_ms, struct fail *fail)
{
        if (!sql_own(warden, fail))
                return false;
        PGresult *result = sql_ask(warden, warden->sql, text, timeout_ms, fail);
        PQclear(result);
        if (result == NULL)
                sql_close(warden);
        return result != NULL;
}

void sql_close(struct warden *warden)
{
        PQfinish(warden->sql);
        PQfinish(warden->replication);
        warden->sql = NULL;
        warden->replication = NULL;
}

bool sql_upstream(const struct warden *warden, node_id upstream, const char *more,
                  char text[static WARDEN_PATH_SIZE * 2])
{
        const struct topology_endpoint *tunnel = &warden->config.tunnel;
        const struct peers *peers = &warden->peers;
        char host[TOPOLOGY_ADDRESS_TEXT] = "";
        const char *name = "meridian";
        unsigned port = WARDEN_PORT;
        for (unsigned i = 0; i < peers->count; i++) {
                if (peers->ids[i] == upstream)
                        memcpy(host, peers->hosts[i], sizeof host);
                if (peers->ids[i] == warden->config.self)
                        name = peers->names[i];
        }
        if (tunnel->address.family != 0) {
                (void)topology_address_text(&tunnel->address, host);
                port = tunnel->port;
        }
        int len =
                snprintf(text, (size_t)WARDEN_PATH_SIZE * 2,
                         "host=%s port=%u user=" ROLE " passfile='%s' application_name=%s "
                         "connect_timeout=5 keepalives_idle=5 keepalives_interval=2 "
                         "keepalives_count=3%s%s",
                         host, port, warden->paths.pgpass, name, more[0] != '\0' ? " " : "", more);
        return host[0] != '\0' && len > 0 && len < WARDEN_PATH_SIZE * 2;
}
