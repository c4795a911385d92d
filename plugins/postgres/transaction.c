/* transaction.c - one transaction here is one transaction there.
 *
 *      here                            there
 *      single statement, autocommit    the same, in one round trip: statement, its number, commit,
 *                                      position of the log
 *      BEGIN, reads                    nothing
 *      first write                     BEGIN, savepoints so far, the statement: one round trip;
 *                                      all later statements run there too
 *      COMMIT                          COMMIT, before the one here
 *      ROLLBACK, or an error           ROLLBACK
 *
 * With REPEATABLE READ and SERIALIZABLE already the first read goes there, unless the transaction
 * is READ ONLY. Whether a single statement may commit by itself is known from the protocol: the
 * simple one tells at once, the extended one by the Sync that follows; where it has not come yet
 * (a client that pipelines), the transaction there is closed when the Sync ends the one here.
 *
 * A connection that breaks before COMMIT was sent: nothing is changed there, 08006. While
 * COMMIT is under way: the transaction's number, asked for before, tells on a new connection what
 * became of it (pg_xact_status). Only where that cannot be asked, 08007 says so. */
#include "postgres.h"

#include "access/xact.h"

/* the server's own header wants Kerberos's where that is compiled in; nothing of it is used here */
#undef ENABLE_GSS
#include "libpq/libpq.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "forward.h"

#define ROLLBACK_MS    3000
#define SCHEMA_WAIT_MS 1000

#define XID_TEXT       "SELECT pg_catalog.pg_current_xact_id_if_assigned()"
/* A commit that waited for the disk lies before what is flushed; any other, before what is
 * inserted. */
#define POSITION_TEXT                                                                              \
        "SELECT CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' "                 \
        "THEN pg_catalog.pg_current_wal_insert_lsn() "                                             \
        "ELSE pg_catalog.pg_current_wal_flush_lsn() END"

static struct {
        bool said_read_only;
        bool said_read_write;
        bool said_serializable;
        bool schema_changed;
        List *savepoints; /* names, oldest first; of TopTransactionContext */
} state;

bool transaction_remote(void)
{
        return remote.begun || remote.lost;
}

bool transaction_read_only(void)
{
        return state.said_read_only || (DefaultXactReadOnly && !state.said_read_write);
}

bool transaction_one_snapshot(void)
{
        return IsolationUsesXactSnapshot();
}

void transaction_said_read_only(bool read_only)
{
        state.said_read_only = read_only;
        state.said_read_write = !read_only;
}

void transaction_said_serializable(bool serializable)
{
        state.said_serializable = serializable;
}

void transaction_changed_schema(void)
{
        state.schema_changed = true;
}

/* ---- what a failure means ---- */

static void throw_rolled_back(void)
{
        ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                        errmsg("the connection to the primary was lost; the transaction was rolled "
                               "back there"),
                        remote.last_error != NULL ? errdetail_internal("%s", remote.last_error) : 0,
                        errhint("Nothing of it was kept; it can be tried again.")));
}

static void throw_unknown(void)
{
        ereport(ERROR, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
                        errmsg("the connection to the primary was lost during commit; whether the "
                               "transaction was committed is not known"),
                        remote.last_error != NULL ? errdetail_internal("%s", remote.last_error) : 0,
                        errhint("Look for its effects before trying it again.")));
}

/* The connection broke while a commit was under way: returns when it is known to have happened. */
static void resolve(uint64 xid, TimeLineID timeline)
{
        char *why = remote.last_error != NULL ? pstrdup(remote.last_error) : NULL;
        char outcome = remote_outcome(xid, timeline);
        if (remote.last_error == NULL && why != NULL)
                remote.last_error = MemoryContextStrdup(TopMemoryContext, why);
        if (outcome == 'a')
                throw_rolled_back();
        if (outcome != 'c')
                throw_unknown();
        consistency_committed(timeline, InvalidXLogRecPtr);
}

/* A cancel that came back as the primary's error is told in the words of its cause here. */
static void throw_error(struct remote_batch *batch, const struct answer_place *place)
{
        const char *code = PQresultErrorField(batch->error, PG_DIAG_SQLSTATE);
        if (code != NULL && strcmp(code, "57014") == 0 && QueryCancelPending) {
                PQclear(batch->error);
                CHECK_FOR_INTERRUPTS();
                ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
                                errmsg("canceling statement due to user request")));
        }
        answer_throw(batch->error, place);
}

/* ---- statements ---- */

static bool sync_follows(void)
{
        if (!pq_buffer_has_data())
                return false;
        pq_startmsgread();
        int next = pq_peekbyte();
        pq_endmsgread();
        return next == 'S';
}

static bool commits_by_itself(bool alone)
{
        if (IsTransactionBlock() || IsSubTransaction() || remote.begun ||
            ((unsigned)MyXactFlags & XACT_FLAGS_PIPELINING) != 0)
                return false;
        return alone || forward_simple_protocol || whereToSendOutput != DestRemote ||
               sync_follows();
}

static const char *begin_text(void)
{
        static const char *const levels[] = {
                [XACT_READ_UNCOMMITTED] = "READ UNCOMMITTED",
                [XACT_READ_COMMITTED] = "READ COMMITTED",
                [XACT_REPEATABLE_READ] = "REPEATABLE READ",
                [XACT_SERIALIZABLE] = "SERIALIZABLE",
        };
        int level = state.said_serializable ? XACT_SERIALIZABLE : XactIsoLevel;
        return psprintf("BEGIN ISOLATION LEVEL %s, READ WRITE%s", levels[level],
                        XactDeferrable ? ", DEFERRABLE" : "");
}

static void check_not_lost(void)
{
        if (remote.lost)
                throw_rolled_back();
}

static void add_savepoints(void)
{
        ListCell *cell;
        foreach (cell, state.savepoints)
                remote_batch_add(REMOTE_QUIET,
                                 psprintf("SAVEPOINT %s", quote_identifier(lfirst(cell))), NULL,
                                 false);
}

/* BEGIN where it is needed, and the settings: after it, as they would take the snapshot that it
 * decides on; in one segment with the statement, so that none of it runs where one part fails. */
static void prepare_batch(const char *encoding, bool own_commit)
{
        bool begins = !own_commit && !remote.begun;
        remote_ready();
        check_not_lost();
        remote_batch_begin();
        if (!remote.begun)
                remote.xid = 0;
        if (begins) {
                remote_batch_add(REMOTE_QUIET, begin_text(), NULL, false);
                remote.begun = true;
                forward_counters.transactions++;
        }
        settings_add(encoding);
        if (begins)
                add_savepoints();
}

/* Settings alone, for a statement that bears nothing before itself. */
static void run_settings(const char *encoding, bool own_commit)
{
        struct remote_batch batch = {0};
        prepare_batch(encoding, own_commit);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        remote_batch_run(&batch);
        if (batch.error != NULL)
                throw_error(&batch, NULL);
        if (batch.lost)
                throw_rolled_back();
        if (own_commit)
                settings_ended(true);
}

/* The statement committed and only the answers after that were lost. */
static void after_loss(struct remote_batch *batch, bool own_commit, TimeLineID timeline)
{
        uint64 xid = remote.xid;
        const char *code =
                batch->error == NULL ? NULL : PQresultErrorField(batch->error, PG_DIAG_SQLSTATE);
        if (code != NULL)
                return; /* the primary said why it ended the session: that was no commit */
        if (!own_commit)
                throw_rolled_back();
        if (!batch->committed)
                resolve(batch->answered ? xid : 0, timeline);
        batch->committed = true;
}

void transaction_run(struct remote_batch *batch, const struct answer_place *place, bool alone)
{
        bool own_commit = commits_by_itself(alone);
        if (alone && own_commit)
                run_settings(GetDatabaseEncodingName(), true);
        prepare_batch(GetDatabaseEncodingName(), own_commit);
        TimeLineID timeline = remote.timeline;
        remote_batch_add(REMOTE_STATEMENT, batch->text, batch->params, batch->binary);
        if (remote.xid == 0)
                remote_batch_add(REMOTE_XID, XID_TEXT, NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        if (own_commit) {
                remote_batch_add(REMOTE_LSN, POSITION_TEXT, NULL, false);
                remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        }
        forward_counters.statements++;
        remote_batch_run(batch);
        if (batch->lost)
                after_loss(batch, own_commit, timeline);
        if (batch->error != NULL)
                throw_error(batch, place);
        if (own_commit) {
                forward_counters.transactions++;
                settings_ended(true);
                /* without a number it has changed nothing */
                if (remote.xid != 0 || alone)
                        consistency_committed(timeline, batch->position);
                remote.xid = 0;
                /* what follows in a pipeline is another transaction, here as there */
                MyXactFlags |= (int)XACT_FLAGS_NEEDIMMEDIATECOMMIT;
        }
}

bool transaction_enter(void)
{
        bool own_commit = commits_by_itself(forward_simple_protocol);
        run_settings(pg_get_client_encoding_name(), own_commit);
        forward_counters.statements++;
        return own_commit;
}

/* The number of the block that a COPY may have given it: COMMIT must be able to ask for it. */
static void ask_number(void)
{
        struct remote_batch batch = {0};
        if (remote.xid != 0)
                return;
        remote_ready();
        check_not_lost();
        remote_batch_begin();
        remote_batch_add(REMOTE_XID, XID_TEXT, NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        remote_batch_run(&batch);
        if (batch.error != NULL)
                throw_error(&batch, NULL);
        check_not_lost();
}

void transaction_entered_done(bool own_commit)
{
        if (!own_commit) {
                ask_number();
                return;
        }
        forward_counters.transactions++;
        consistency_committed(remote.timeline, InvalidXLogRecPtr);
        MyXactFlags |= (int)XACT_FLAGS_NEEDIMMEDIATECOMMIT;
}

/* ---- savepoints ---- */

/* The place of the newest savepoint of that name; -1: none, which PostgreSQL has refused. */
static int savepoint_place(const char *name)
{
        for (int i = list_length(state.savepoints) - 1; i >= 0; i--)
                if (strcmp(list_nth(state.savepoints, i), name) == 0)
                        return i;
        return -1;
}

static void savepoint_note(const TransactionStmt *statement)
{
        MemoryContext before = MemoryContextSwitchTo(TopTransactionContext);
        const char *name = statement->savepoint_name;
        int place = savepoint_place(name);
        if (statement->kind == TRANS_STMT_SAVEPOINT)
                state.savepoints = lappend(state.savepoints, pstrdup(name));
        else if (place >= 0)
                state.savepoints =
                        list_truncate(state.savepoints,
                                      statement->kind == TRANS_STMT_RELEASE ? place : place + 1);
        MemoryContextSwitchTo(before);
}

void transaction_savepoint(TransactionStmt *statement)
{
        const char *name = quote_identifier(statement->savepoint_name);
        const char *verb = statement->kind == TRANS_STMT_SAVEPOINT ? "SAVEPOINT"
                           : statement->kind == TRANS_STMT_RELEASE ? "RELEASE SAVEPOINT"
                                                                   : "ROLLBACK TO SAVEPOINT";
        if (!transaction_remote()) {
                savepoint_note(statement);
                return;
        }
        struct remote_batch batch = {.text = psprintf("%s %s", verb, name)};
        remote_ready();
        check_not_lost();
        remote_batch_begin();
        remote_batch_add(REMOTE_STATEMENT, batch.text, NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        remote_batch_run(&batch);
        if (batch.error != NULL)
                throw_error(&batch, NULL);
        if (batch.lost)
                throw_rolled_back();
        if (statement->kind == TRANS_STMT_ROLLBACK_TO)
                settings_ended(false);
        savepoint_note(statement);
}

/* ---- the end ---- */

static void commit_remote(void)
{
        uint64 xid = remote.xid;
        TimeLineID timeline = remote.timeline;
        struct remote_batch batch = {0};
        remote_ready();
        check_not_lost();
        remote_batch_begin();
        remote_batch_add(REMOTE_COMMIT, "COMMIT", NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        remote_batch_add(REMOTE_LSN, POSITION_TEXT, NULL, false);
        remote_batch_add(REMOTE_SYNC, NULL, NULL, false);
        remote_batch_run(&batch);
        bool told =
                batch.error != NULL && PQresultErrorField(batch.error, PG_DIAG_SQLSTATE) != NULL;
        if (batch.lost) {
                remote.lost = false;
                /* a transaction without a number has changed nothing */
                if (!batch.committed && !told && xid != 0)
                        resolve(xid, timeline);
                batch.committed |= !told;
        }
        remote.begun = false;
        if (told)
                throw_error(&batch, NULL);
        if (!batch.committed)
                ereport(ERROR, (errcode(ERRCODE_TRANSACTION_ROLLBACK),
                                errmsg("the primary rolled the transaction back")));
        settings_ended(true);
        if (xid != 0)
                consistency_committed(timeline, batch.position);
        if (state.schema_changed)
                consistency_wait_own(SCHEMA_WAIT_MS);
}

static void before_commit(void)
{
        check_not_lost();
        if (remote.begun)
                commit_remote();
}

static void forget(void)
{
        memset(&state, 0, sizeof state);
        remote.lost = false;
        remote.xid = 0;
}

static void after_abort(void)
{
        remote_drain(ROLLBACK_MS);
        if (remote.begun) {
                bool good = remote_command_quiet("ROLLBACK", ROLLBACK_MS);
                remote.begun = false;
                if (!good)
                        remote_close();
        }
        settings_ended(false);
}

static void on_transaction(XactEvent event, void *context)
{
        (void)context;
        switch (event) {
        case XACT_EVENT_PRE_COMMIT:
                before_commit();
                break;
        case XACT_EVENT_PRE_PREPARE:
                if (transaction_remote())
                        ereport(ERROR,
                                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                 errmsg("PREPARE TRANSACTION cannot be forwarded to the primary")));
                break;
        case XACT_EVENT_ABORT:
                after_abort();
                forget();
                break;
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_PREPARE:
                forget();
                break;
        case XACT_EVENT_PARALLEL_PRE_COMMIT:
        case XACT_EVENT_PARALLEL_COMMIT:
        case XACT_EVENT_PARALLEL_ABORT:
                break;
        }
}

/* What a failed statement left unread must be read before ROLLBACK TO can be sent. */
static void on_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
                              void *context)
{
        (void)mine;
        (void)parent;
        (void)context;
        if (event == SUBXACT_EVENT_ABORT_SUB)
                remote_drain(ROLLBACK_MS);
}

void transaction_init(void)
{
        RegisterXactCallback(on_transaction, NULL);
        RegisterSubXactCallback(on_subtransaction, NULL);
}
