/* forward.h - the parts of the write forwarding extension, and what they ask of each other.
 *
 *      module.c       settings, hooks, start
 *      classify.c     which statements must run on the primary
 *      statement.c    a plan that runs on the primary, in place of the one made here
 *      utility.c      the same for commands without a plan (DDL, DO, COPY, BEGIN ...)
 *      copy.c         COPY between client and primary
 *      transaction.c  one transaction here is one transaction there
 *      settings.c     the session there has the settings of the session here
 *      remote.c       the connection: open, send many, read all, cancel
 *      answer.c       what came back: errors, rows, tags
 *      consistency.c  positions: own commits, tokens, waiting for replay
 *      status.c       SQL functions
 *      gate.c         on a primary: no commit without the daemon's word
 *      pass.c         a session that came by a door takes its client over from it
 *
 * Every .c includes postgres.h first. Errors are PostgreSQL's: a function that fails does not
 * return. Memory is that of the current context unless said otherwise. */
#ifndef MERIDIAN_POSTGRES_FORWARD_H
#define MERIDIAN_POSTGRES_FORWARD_H

#include "access/xlogdefs.h"
#include "executor/execdesc.h"
#include "libpq-fe.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

enum forward_consistency {
        FORWARD_EVENTUAL,
        FORWARD_SESSION,
        FORWARD_GLOBAL,
};

/* The settings, by their names after `meridian.` (module.c has ranges and units). */
struct forward_config {
        bool write_forwarding;
        bool forward_functions;
        char *writer;
        char *read_after;
        int read_consistency;
        int read_timeout_ms;
        int connect_timeout_ms;
};
extern struct forward_config forward_config;

/* What the session has done; meridian.status() shows it. */
struct forward_counters {
        uint64 statements;
        uint64 transactions;
        uint64 connects;
        uint64 waits;
};
extern struct forward_counters forward_counters;

/* Depth of executor, planner and utility calls: 0 is what the client itself asked for. */
extern int forward_depth;

/* Whether the client speaks the simple protocol in this statement; told by the outermost call. */
extern bool forward_simple_protocol;
/* Inside a utility command: its portal is not the client's. */
extern bool forward_in_utility;

/* True on a standby when this session forwards. Cheap. */
bool forward_active(void);

/* ---- classify.c ---- */

/* Bits of PlannedStmt.jitFlags, far above PostgreSQL's own: they survive the plan cache. */
enum {
        FORWARD_MARK_PRIMARY = 1 << 24,    /* calls a function that must run on the primary */
        FORWARD_MARK_RULE = 1 << 25,       /* made by a rewrite rule */
        FORWARD_MARK_CURRENT_OF = 1 << 26, /* WHERE CURRENT OF: the cursor is here */
        FORWARD_MARK_SETTING = 1 << 27,    /* set_config() and no table */
};

/* The marks of a query that is about to be planned. */
int classify_query(Query *query);

/* True when the plan writes, locks rows or calls what only the primary may run. */
bool classify_writes(const PlannedStmt *plan);

/* ---- remote.c: the connection ---- */

/* What one query of a batch is for. */
enum remote_step {
        REMOTE_QUIET,     /* settings, BEGIN, SAVEPOINT: only an error matters */
        REMOTE_STATEMENT, /* the user's own */
        REMOTE_XID,       /* the transaction's number, if it has one */
        REMOTE_COMMIT,    /* COMMIT of an explicit transaction */
        REMOTE_LSN,       /* where the log of the primary ends */
        REMOTE_SYNC,      /* end of a segment; commits where no transaction is open */
};

struct remote_params {
        int count;
        Oid *types;
        const char **values;
        int *lengths;
        int *formats;
};

/* How far a batch came, for whoever must tell what a lost connection means. */
struct remote_batch {
        const char *text;                                   /* of the statement; NULL: none */
        const struct remote_params *params;                 /* NULL: none */
        bool binary;                                        /* rows are wanted in binary */
        void (*row)(void *context, const PGresult *result); /* each row; NULL: none is wanted */
        void *context;
        char tag[COMPLETION_TAG_BUFSIZE]; /* out: the command's tag */
        bool answered;                    /* out: the statement's answer is here in full */
        bool committed;                   /* out: the primary has committed */
        bool lost;                        /* out: the connection broke */
        XLogRecPtr position;              /* out: of REMOTE_LSN; Invalid: not known */
        PGresult *error;                  /* out: first error, or NULL; remote_error_throw frees */
};

struct remote {
        PGconn *conn;
        Oid user;
        TimeLineID timeline;
        int pid;
        bool begun;       /* a transaction block is open there */
        bool lost;        /* it was, and the connection broke: the transaction here must end */
        uint64 xid;       /* of that block, or of the statement under way; 0: none or unknown */
        bool cancel_sent; /* for the batch under way */
        char *last_error; /* why the connection was lost, for messages */
};
extern struct remote remote;

/* Opens the connection unless it is open and good; also ends what an error left unread. */
void remote_ready(void);

/* Closes it; nothing is told to anybody. */
void remote_close(void);

/* Reads what an error left unread, at most `ms`; closes the connection if that is not enough.
 * Never throws. */
void remote_drain(int ms);

/* A batch: begin, add queries, then send and read all answers. */
void remote_batch_begin(void);
void remote_batch_add(enum remote_step step, const char *text, const struct remote_params *params,
                      bool binary);
void remote_batch_run(struct remote_batch *batch);

/* The same for the end of a transaction that failed: never throws, gives up after `ms`. */
bool remote_command_quiet(const char *text, int ms);

/* For COPY, outside of batches: sends the text; waits for one result; waits until written. */
void remote_plain_send(const char *text);
PGresult *remote_plain_result(void);
void remote_flush(void);
/* Next piece of COPY OUT: length, or -1 at the end. `*ret` is freed with PQfreemem. */
int remote_copy_get(char **ret);
/* Throws away what is unread until the connection is idle; true when it is. */
bool remote_idle(void);

/* The position at the end of the primary's log, in one round trip. */
XLogRecPtr remote_position(void);

/* The status of a transaction of timeline `timeline`, asked on a new connection: 'c' committed,
 * 'a' aborted, '?' cannot be known. */
char remote_outcome(uint64 xid, TimeLineID timeline);

/* ---- answer.c ---- */

/* Where the statement begins in the client's text, for error positions; -1: not known. */
struct answer_place {
        const char *source;
        int offset;
};

/* Throws the error of the batch as if it were ours; frees the result. */
pg_attribute_noreturn() void answer_throw(PGresult *error, const struct answer_place *place);
void answer_notice(void *context, const PGresult *result);
/* Count at the end of a tag; `*ret_name_len` is the length of the words before it. */
uint64 answer_tag_count(const char *tag, size_t *ret_name_len);

struct answer_reader;
/* A reader of rows of the given shape: values of the primary become values here. */
struct answer_reader *answer_reader_new(TupleDesc shape);
bool answer_reader_binary(const struct answer_reader *reader);
/* Adds each row of the result to the store. */
void answer_rows(struct answer_reader *reader, const PGresult *result, Tuplestorestate *rows);
/* The parameters of a statement; NULL when there are none. */
struct remote_params *answer_params(ParamListInfo params);

/* ---- statement.c ---- */

struct statement {
        char *text;
        struct answer_place place;
};
/* The statement alone: cut out of the client's text, without PREPARE ... AS, DECLARE ... FOR. */
struct statement statement_cut(const char *source, int location, int length);
void statement_start(QueryDesc *desc, int eflags);
void statement_init(void);

/* ---- transaction.c ---- */

void transaction_init(void);
/* True when the transaction here runs on the primary, or ran and was lost. */
bool transaction_remote(void);
/* True when this statement must be refused as the user asked for READ ONLY. */
bool transaction_read_only(void);
/* Whether the snapshots of this transaction are of one moment (REPEATABLE READ and above). */
bool transaction_one_snapshot(void);
/* Runs one statement on the primary, in the transaction that it belongs to. `alone`: it cannot
 * run inside a transaction. The batch's outputs are set; errors are thrown. */
void transaction_run(struct remote_batch *batch, const struct answer_place *place, bool alone);
/* Opens the transaction there, for a COPY; true when the statement commits by itself. */
bool transaction_enter(void);
/* After that COPY, with what transaction_enter gave. */
void transaction_entered_done(bool own_commit);
/* What BEGIN and SET TRANSACTION said. */
void transaction_said_read_only(bool read_only);
void transaction_said_serializable(bool serializable);
/* The primary's schema was changed in this transaction. */
void transaction_changed_schema(void);
/* SAVEPOINT, ROLLBACK TO and RELEASE, after they were done here. */
void transaction_savepoint(TransactionStmt *statement);

/* ---- settings.c ---- */

/* Adds to the batch what differs; true if anything was added. `encoding`: what the primary is to
 * use with us, by name. */
bool settings_add(const char *encoding);
void settings_forget(void);
/* A transaction in which settings were sent has ended there. */
void settings_ended(bool committed);

/* ---- utility.c ---- */

void utility_process(PlannedStmt *plan, const char *source, bool read_only_tree,
                     ProcessUtilityContext context, ParamListInfo params,
                     QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion,
                     ProcessUtility_hook_type next);

/* ---- copy.c ---- */

void copy_forward(CopyStmt *statement, const char *text, const struct answer_place *place,
                  QueryCompletion *completion);

/* ---- consistency.c ---- */

void consistency_init(void);
/* The primary committed for us at this position (Invalid: not known, to be asked). */
void consistency_committed(TimeLineID timeline, XLogRecPtr position);
/* Waits as the settings ask; snapshots must not be held. */
void consistency_wait(void);
/* True when consistency_wait would have something to do. */
bool consistency_wanted(void);
/* After DDL: waits at most `ms` until it is here; false when it is not. */
bool consistency_wait_own(int ms);
bool consistency_check_token(char **text, void **extra, GucSource source);

/* ---- gate.c ---- */

void gate_init(void);
/* Before COMMIT PREPARED and ROLLBACK PREPARED: they ask as a commit does, now and at their end. */
void gate_commit_prepared(void);

/* ---- pass.c ---- */

void pass_init(void);

#endif
