/* remote.c - the session's connection to the primary.
 *
 * It is the session user's own login, made at the first forwarded statement and kept. Everything
 * but COPY is a batch: queries are added, sent as one write, and answered in one round trip
 * (libpq's pipeline). Waits end at the socket or the latch. A cancel is passed on and the answer
 * still awaited, so that nobody is told "canceled" of what was committed; only when the primary
 * does not answer within CANCEL_GRACE_MS is the connection given up.
 *
 * Failures: a connection that cannot be made is an error (connect.c). One that breaks sets
 * `lost` in the batch; what that means is told by transaction.c, which knows what was under way. */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

#include "connect.h"
#include "forward.h"

#define CANCEL_GRACE_MS 5000

struct remote remote;

/* The queries that were sent and whose answers are not all read. */
static struct {
        enum remote_step *steps;
        int count;
        int next;
        int room;
} queue;

static PGresult *held; /* never more than one result is alive across a throw */

static void hold(PGresult *result)
{
        PQclear(held);
        held = result;
}

void remote_close(void)
{
        hold(NULL);
        if (remote.conn != NULL)
                PQfinish(remote.conn);
        remote.conn = NULL;
        queue.count = queue.next = 0;
        if (remote.begun)
                remote.lost = true;
        remote.begun = false;
        settings_forget();
}

static void note_lost(struct remote_batch *batch)
{
        if (remote.last_error != NULL)
                pfree(remote.last_error);
        remote.last_error = MemoryContextStrdup(TopMemoryContext, PQerrorMessage(remote.conn));
        remote_close();
        if (batch != NULL)
                batch->lost = true;
}

/* ---- waiting ---- */

static void pass_cancel_on(void)
{
        char error[256];
        PGcancel *cancel = PQgetCancel(remote.conn);
        remote.cancel_sent = true;
        if (cancel == NULL)
                return;
        if (!PQcancel(cancel, error, sizeof error))
                ereport(WARNING, (errmsg("the cancel did not reach the primary"),
                                  errdetail_internal("%s", error)));
        PQfreeCancel(cancel);
}

struct wait {
        bool quiet;           /* interrupts are left for later */
        TimestampTz deadline; /* 0: none */
        bool cancelled;
};

static long wait_ms(const struct wait *wait)
{
        if (wait->deadline == 0)
                return -1;
        return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wait->deadline);
}

static void wait_interrupts(struct wait *wait)
{
        if (wait->quiet || !InterruptPending)
                return;
        if (ProcDiePending || !QueryCancelPending) {
                CHECK_FOR_INTERRUPTS();
        } else if (!wait->cancelled) {
                wait->cancelled = true;
                wait->deadline =
                        TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CANCEL_GRACE_MS);
                pass_cancel_on();
        }
}

/* False when the deadline passed. */
static bool wait_socket(struct wait *wait, int events)
{
        wait_interrupts(wait);
        long ms = wait_ms(wait);
        events |= WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
        if (ms >= 0)
                events |= WL_TIMEOUT;
        int what = WaitLatchOrSocket(MyLatch, events, PQsocket(remote.conn), ms, PG_WAIT_EXTENSION);
        if ((what & WL_LATCH_SET) != 0)
                ResetLatch(MyLatch);
        return (what & WL_TIMEOUT) == 0;
}

/* True when it is no answer: libpq itself made it up, as the connection is gone, or the primary
 * ends the session and does not know what becomes of the commit (gate.c). */
static bool made_up(const PGresult *result)
{
        const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (code != NULL && strcmp(code, "08007") == 0)
                return true;
        return PQstatus(remote.conn) == CONNECTION_BAD &&
               (result == NULL || (PQresultStatus(result) == PGRES_FATAL_ERROR && code == NULL));
}

/* The next result, or NULL at the end of a query; sets `*ret_lost` when there is no more. */
static PGresult *next_result(struct wait *wait, bool *ret_lost)
{
        for (;;) {
                int left = PQflush(remote.conn);
                if (!PQisBusy(remote.conn)) {
                        PGresult *result = PQgetResult(remote.conn);
                        if (!made_up(result))
                                return result;
                        PQclear(result);
                        break;
                }
                if (left < 0 || PQstatus(remote.conn) != CONNECTION_OK ||
                    !wait_socket(wait, WL_SOCKET_READABLE | (left > 0 ? WL_SOCKET_WRITEABLE : 0)))
                        break;
                if (!PQconsumeInput(remote.conn) && PQisBusy(remote.conn))
                        break;
        }
        *ret_lost = true;
        return NULL;
}

/* ---- batches ---- */

void remote_batch_begin(void)
{
        queue.count = queue.next = 0;
        remote.cancel_sent = false;
        if (!PQenterPipelineMode(remote.conn))
                elog(ERROR, "the connection to the primary is busy");
}

static void push(enum remote_step step)
{
        if (queue.count == queue.room) {
                int room = queue.room == 0 ? 32 : queue.room * 2;
                Size bytes = sizeof *queue.steps * (Size)room;
                queue.steps = queue.steps == NULL ? MemoryContextAlloc(TopMemoryContext, bytes)
                                                  : repalloc(queue.steps, bytes);
                queue.room = room;
        }
        queue.steps[queue.count++] = step;
}

void remote_batch_add(enum remote_step step, const char *text, const struct remote_params *params,
                      bool binary)
{
        static const struct remote_params none;
        int sent;
        if (params == NULL)
                params = &none;
        if (step == REMOTE_SYNC)
                sent = PQpipelineSync(remote.conn);
        else
                sent = PQsendQueryParams(remote.conn, text, params->count, params->types,
                                         params->values, params->lengths, params->formats, binary);
        if (sent && step == REMOTE_XID)
                sent = PQsendFlushRequest(remote.conn);
        /* a failure shows again, with its reason, when the answers are read */
        if (sent)
                push(step);
        else
                push(REMOTE_SYNC);
}

/* Whether a step's failure is another step's. */
static bool is_error(const PGresult *result)
{
        ExecStatusType status = PQresultStatus(result);
        return status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE ||
               status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

static void take_statement(struct remote_batch *batch, PGresult *result)
{
        switch (PQresultStatus(result)) {
        case PGRES_SINGLE_TUPLE:
                if (batch->row != NULL)
                        batch->row(batch->context, result);
                break;
        case PGRES_TUPLES_OK:
                if (batch->row != NULL && PQntuples(result) > 0)
                        batch->row(batch->context, result);
                strlcpy(batch->tag, PQcmdStatus(result), sizeof batch->tag);
                batch->answered = true;
                break;
        case PGRES_COMMAND_OK:
                strlcpy(batch->tag, PQcmdStatus(result), sizeof batch->tag);
                batch->answered = true;
                break;
        case PGRES_EMPTY_QUERY:
        case PGRES_PIPELINE_ABORTED:
        case PGRES_PIPELINE_SYNC:
        case PGRES_BAD_RESPONSE:
        case PGRES_NONFATAL_ERROR:
        case PGRES_FATAL_ERROR:
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
                break;
        }
}

static XLogRecPtr position_of(const PGresult *result)
{
        if (PQntuples(result) != 1 || PQgetisnull(result, 0, 0))
                return InvalidXLogRecPtr;
        return DatumGetLSN(
                DirectFunctionCall1(pg_lsn_in, CStringGetDatum(PQgetvalue(result, 0, 0))));
}

static void take(struct remote_batch *batch, enum remote_step step, PGresult *result)
{
        if (is_error(result)) {
                if (batch->error == NULL) {
                        batch->error = result;
                        held = NULL;
                }
                return;
        }
        if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED)
                return;
        switch (step) {
        case REMOTE_STATEMENT:
                take_statement(batch, result);
                break;
        case REMOTE_XID:
                if (PQntuples(result) == 1 && !PQgetisnull(result, 0, 0))
                        remote.xid = strtou64(PQgetvalue(result, 0, 0), NULL, 10);
                break;
        case REMOTE_COMMIT:
                strlcpy(batch->tag, PQcmdStatus(result), sizeof batch->tag);
                batch->answered = true;
                batch->committed = strcmp(batch->tag, "COMMIT") == 0;
                break;
        case REMOTE_LSN:
                batch->position = position_of(result);
                break;
        case REMOTE_SYNC:
                if (!remote.begun && batch->answered && batch->error == NULL)
                        batch->committed = true;
                break;
        case REMOTE_QUIET:
                break;
        }
}

/* One step's results, up to the NULL that ends it (a sync has none). */
static bool read_step(struct remote_batch *batch, struct wait *wait, enum remote_step step)
{
        bool lost = false;
        if (step == REMOTE_STATEMENT && batch->row != NULL)
                PQsetSingleRowMode(remote.conn);
        for (;;) {
                PGresult *result = next_result(wait, &lost);
                if (lost)
                        return false;
                if (result == NULL)
                        return step != REMOTE_SYNC;
                bool sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
                hold(result);
                take(batch, step, result);
                hold(NULL);
                if (sync)
                        return true;
        }
}

void remote_batch_run(struct remote_batch *batch)
{
        struct wait wait = {0};
        while (queue.next < queue.count) {
                enum remote_step step = queue.steps[queue.next];
                if (!read_step(batch, &wait, step)) {
                        /* an error that closed the connection is kept: it says why */
                        note_lost(batch);
                        return;
                }
                queue.next++;
        }
        PQexitPipelineMode(remote.conn);
        if (wait.cancelled && batch->error == NULL)
                QueryCancelPending = false; /* it came too late: the answer stands */
}

/* ---- after an error ---- */

static void skip_copy(void)
{
        char *bytes = NULL;
        switch (PQtransactionStatus(remote.conn)) {
        case PQTRANS_ACTIVE:
                if (PQputCopyEnd(remote.conn, "the session failed") < 0)
                        return;
                while (PQgetCopyData(remote.conn, &bytes, 1) > 0)
                        PQfreemem(bytes);
                break;
        case PQTRANS_IDLE:
        case PQTRANS_INTRANS:
        case PQTRANS_INERROR:
        case PQTRANS_UNKNOWN:
                break;
        }
}

bool remote_idle(void)
{
        return remote.conn != NULL && queue.next == queue.count &&
               PQtransactionStatus(remote.conn) != PQTRANS_ACTIVE;
}

static bool drain_batch(struct wait *wait)
{
        bool lost = false;
        while (queue.next < queue.count) {
                PGresult *result = next_result(wait, &lost);
                if (lost)
                        return false;
                bool sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
                bool step_sync = queue.steps[queue.next] == REMOTE_SYNC;
                if (sync || (result == NULL && !step_sync))
                        queue.next++;
                PQclear(result);
        }
        return PQexitPipelineMode(remote.conn) != 0;
}

static bool drain_plain(struct wait *wait)
{
        bool lost = false;
        skip_copy();
        for (;;) {
                PGresult *result = next_result(wait, &lost);
                if (result == NULL)
                        return !lost;
                ExecStatusType status = PQresultStatus(result);
                PQclear(result);
                if (status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
                        return false;
                if (status == PGRES_COPY_IN)
                        skip_copy();
        }
}

void remote_drain(int ms)
{
        hold(NULL);
        if (remote.conn == NULL || remote_idle())
                return;
        struct wait wait = {.quiet = true,
                            .deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms)};
        if (!remote.cancel_sent)
                pass_cancel_on();
        bool good = PQpipelineStatus(remote.conn) != PQ_PIPELINE_OFF ? drain_batch(&wait)
                                                                     : drain_plain(&wait);
        if (!good)
                remote_close();
}

bool remote_command_quiet(const char *text, int ms)
{
        struct wait wait = {.quiet = true,
                            .deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms)};
        bool lost = false;
        bool good = true;
        remote_drain(ms);
        if (remote.conn == NULL || !PQsendQuery(remote.conn, text))
                return false;
        for (;;) {
                PGresult *result = next_result(&wait, &lost);
                if (result == NULL)
                        break;
                good &= PQresultStatus(result) == PGRES_COMMAND_OK;
                PQclear(result);
        }
        return good && !lost;
}

/* ---- COPY ---- */

static void lost_throw(void)
{
        note_lost(NULL);
        ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                        errmsg("the connection to the primary was lost during COPY"),
                        errdetail_internal("%s", remote.last_error)));
}

void remote_plain_send(const char *text)
{
        queue.count = queue.next = 0;
        remote.cancel_sent = false;
        if (!PQsendQueryParams(remote.conn, text, 0, NULL, NULL, NULL, NULL, 0))
                lost_throw();
}

PGresult *remote_plain_result(void)
{
        struct wait wait = {0};
        bool lost = false;
        PGresult *result = next_result(&wait, &lost);
        if (lost)
                lost_throw();
        return result;
}

void remote_flush(void)
{
        struct wait wait = {0};
        int left;
        while ((left = PQflush(remote.conn)) > 0) {
                if (!wait_socket(&wait, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE) ||
                    !PQconsumeInput(remote.conn))
                        left = -1;
                if (left < 0)
                        break;
        }
        if (left < 0)
                lost_throw();
}

int remote_copy_get(char **ret)
{
        struct wait wait = {0};
        for (;;) {
                int len = PQgetCopyData(remote.conn, ret, 1);
                if (len != 0)
                        return len;
                if (!wait_socket(&wait, WL_SOCKET_READABLE) || !PQconsumeInput(remote.conn))
                        lost_throw();
        }
}

/* ---- ready ---- */

/* A connection that the primary has closed while nobody used it shows as readable, with an end. */
static bool still_there(void)
{
        /* the first reads what was said last, the second sees the end */
        if (PQstatus(remote.conn) != CONNECTION_OK || !PQconsumeInput(remote.conn) ||
            !PQconsumeInput(remote.conn))
                return false;
        PGnotify *notify;
        while ((notify = PQnotifies(remote.conn)) != NULL)
                PQfreemem(notify);
        return PQstatus(remote.conn) == CONNECTION_OK;
}

void remote_ready(void)
{
        remote_drain(1000);
        if (remote.conn != NULL && remote.user != GetSessionUserId() && !remote.begun)
                remote_close();
        if (remote.conn != NULL && remote.user != GetSessionUserId())
                ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                errmsg("SET SESSION AUTHORIZATION inside a transaction that runs "
                                       "on the primary cannot be forwarded")));
        if (remote.conn != NULL && !still_there()) {
                bool begun = remote.begun;
                note_lost(NULL);
                if (!begun)
                        ereport(DEBUG1, (errmsg_internal("reconnecting to the primary: %s",
                                                         remote.last_error)));
        }
        if (remote.lost)
                return;
        if (remote.conn == NULL)
                connect_open(forward_config.connect_timeout_ms);
}

XLogRecPtr remote_position(void)
{
        remote_ready();
        remote_batch_begin();
        remote_batch_add(REMOTE_LSN, "SELECT pg_catalog.pg_current_wal_insert_lsn()", NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        struct remote_batch batch = {0};
        remote_batch_run(&batch);
        if (batch.error != NULL && !batch.lost)
                answer_throw(batch.error, NULL);
        if (batch.lost)
                ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                                errmsg("the connection to the primary was lost"),
                                errdetail_internal("%s", remote.last_error)));
        return batch.position;
}
