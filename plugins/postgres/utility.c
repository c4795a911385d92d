/* utility.c - commands that have no plan: what is forwarded, what stays here, what is refused.
 *
 * A table says it by the kind of statement; what is not in the table changes the cluster (DDL, DO,
 * GRANT, VACUUM ...) and is forwarded as text. After DDL that committed by itself the session waits
 * until the change is replayed here, as the next statement is parsed by this standby's catalogs. */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/prepare.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/cmdtag.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "forward.h"

#define ALONE  1 /* cannot run inside a transaction: nothing goes before it */
#define SCHEMA 2 /* the next statement needs it here */
#define ROWS   4 /* may give rows */

enum where {
        HERE,
        THERE,
        REFUSED,
        LOOK, /* depends; look_at() knows */
};

/* Kinds that do not follow the rule. */
static const struct {
        NodeTag kind;
        enum where where;
        int flags;
        const char *hint; /* for what is refused */
} kinds[] = {
        {T_TransactionStmt, LOOK, 0, NULL},
        {T_VariableSetStmt, HERE, 0, NULL},
        {T_VariableShowStmt, HERE, 0, NULL},
        {T_FetchStmt, HERE, 0, NULL},
        {T_ClosePortalStmt, HERE, 0, NULL},
        {T_DeclareCursorStmt, HERE, 0, NULL},
        {T_PrepareStmt, HERE, 0, NULL},
        {T_ExecuteStmt, HERE, 0, NULL},
        {T_DeallocateStmt, HERE, 0, NULL},
        {T_LoadStmt, HERE, 0, NULL},
        {T_CheckPointStmt, HERE, 0, NULL},
        {T_AlterSystemStmt, HERE, 0, NULL},
        {T_UnlistenStmt, HERE, 0, NULL},
        {T_DiscardStmt, HERE, 0, NULL},
        {T_ListenStmt, REFUSED, 0,
         "Listen on a connection to the writer; NOTIFY can be sent from here."},
        {T_NotifyStmt, THERE, 0, NULL},
        {T_CopyStmt, LOOK, 0, NULL},
        {T_ExplainStmt, LOOK, ROWS, NULL},
        {T_ConstraintsSetStmt, THERE, 0, NULL},
        {T_LockStmt, THERE, 0, NULL},
        {T_DoStmt, THERE, SCHEMA, NULL},
        {T_CallStmt, THERE, ALONE | ROWS | SCHEMA, NULL},
        {T_VacuumStmt, THERE, ALONE, NULL},
        {T_ClusterStmt, THERE, ALONE, NULL},
        {T_ReindexStmt, THERE, ALONE, NULL},
        {T_CreatedbStmt, THERE, ALONE, NULL},
        {T_DropdbStmt, THERE, ALONE, NULL},
        {T_CreateTableSpaceStmt, THERE, ALONE, NULL},
        {T_DropTableSpaceStmt, THERE, ALONE, NULL},
        {T_AlterDatabaseStmt, THERE, ALONE, NULL},
        {T_CreateSubscriptionStmt, THERE, ALONE, NULL},
        {T_DropSubscriptionStmt, THERE, ALONE, NULL},
        {T_IndexStmt, THERE, ALONE | SCHEMA, NULL},
        {T_DropStmt, THERE, ALONE | SCHEMA, NULL},
        {T_AlterEnumStmt, THERE, SCHEMA, NULL},
};

static void refuse(const char *what, const char *hint)
{
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("%s cannot be forwarded to the primary", what),
                        hint != NULL ? errhint("%s", hint) : 0));
}

static bool relation_temporary(const RangeVar *relation)
{
        return relation != NULL &&
               (relation->relpersistence == RELPERSISTENCE_TEMP ||
                (relation->schemaname != NULL && strcmp(relation->schemaname, "pg_temp") == 0));
}

/* A temporary object would be in the session there, where no statement parsed here can name it. */
static bool creates_temporary(Node *node)
{
        if (IsA(node, CreateStmt))
                return relation_temporary(((CreateStmt *)node)->relation);
        if (IsA(node, CreateTableAsStmt))
                return relation_temporary(((CreateTableAsStmt *)node)->into->rel);
        if (IsA(node, ViewStmt))
                return relation_temporary(((ViewStmt *)node)->view);
        if (IsA(node, CreateSeqStmt))
                return relation_temporary(((CreateSeqStmt *)node)->sequence);
        return false;
}

static bool prepared_inside(Node *node)
{
        if (!IsA(node, CreateTableAsStmt))
                return false;
        Query *query = (Query *)((CreateTableAsStmt *)node)->query;
        return IsA(query, Query) && query->commandType == CMD_UTILITY &&
               IsA(query->utilityStmt, ExecuteStmt);
}

static bool query_writes(Node *node)
{
        Query *query = (Query *)node;
        if (node == NULL || !IsA(node, Query))
                return true;
        if (query->commandType == CMD_UTILITY)
                return IsA(query->utilityStmt, CreateTableAsStmt);
        return query->commandType != CMD_SELECT || query->hasModifyingCTE || query->hasForUpdate ||
               (classify_query(query) & FORWARD_MARK_PRIMARY) != 0;
}

/* A COPY's query is not analyzed yet. What begins with SELECT and has no DML in WITH, and what is a
 * table, is read here; functions in it are not looked at, as COPY plans it through our planner, at
 * whose start the write is refused by name. */
static bool copy_writes(const CopyStmt *copy)
{
        if (copy->query == NULL)
                return false;
        if (!IsA(copy->query, SelectStmt))
                return true;
        SelectStmt *select = (SelectStmt *)copy->query;
        if (select->lockingClause != NIL)
                return true;
        ListCell *cell;
        if (select->withClause != NULL)
                foreach (cell, select->withClause->ctes)
                        if (!IsA(((CommonTableExpr *)lfirst(cell))->ctequery, SelectStmt))
                                return true;
        return false;
}

static bool explain_option(const ExplainStmt *explain, const char *name)
{
        ListCell *cell;
        foreach (cell, explain->options) {
                DefElem *option = lfirst(cell);
                if (strcmp(option->defname, name) == 0)
                        return defGetBoolean(option);
        }
        return false;
}

static enum where look_at(Node *node)
{
        if (IsA(node, CopyStmt)) {
                CopyStmt *copy = (CopyStmt *)node;
                if (copy->filename != NULL && (copy->is_from || transaction_remote()))
                        refuse("COPY with a file of the server",
                               "Use COPY FROM STDIN (\\copy in psql).");
                return copy->is_from || copy_writes(copy) || transaction_remote() ? THERE : HERE;
        }
        if (IsA(node, ExplainStmt)) {
                ExplainStmt *explain = (ExplainStmt *)node;
                Query *query = (Query *)explain->query;
                if (!explain_option(explain, "analyze"))
                        return HERE;
                bool there = transaction_remote() || query_writes(explain->query);
                if (there && query->commandType == CMD_UTILITY &&
                    IsA(query->utilityStmt, ExecuteStmt))
                        refuse("EXPLAIN ANALYZE EXECUTE", "Explain the statement itself.");
                return there ? THERE : HERE;
        }
        return HERE;
}

static enum where where_of(Node *node, int *ret_flags)
{
        *ret_flags = SCHEMA;
        for (size_t i = 0; i < lengthof(kinds); i++) {
                if (kinds[i].kind != nodeTag(node))
                        continue;
                *ret_flags = kinds[i].flags;
                if (kinds[i].where == REFUSED)
                        refuse(GetCommandTagName(CreateCommandTag(node)), kinds[i].hint);
                return kinds[i].where == LOOK ? look_at(node) : kinds[i].where;
        }
        if (creates_temporary(node))
                refuse("a temporary table, view or sequence",
                       "Connect to the writer to use temporary objects.");
        if (prepared_inside(node))
                refuse("CREATE TABLE AS EXECUTE", "Name the query itself.");
        return THERE;
}

/* ---- forwarding ---- */

struct rows {
        struct answer_reader *reader;
        Tuplestorestate *store;
};

static void take_row(void *context, const PGresult *result)
{
        struct rows *rows = context;
        answer_rows(rows->reader, result, rows->store);
}

static void give_rows(struct rows *rows, TupleDesc shape, DestReceiver *dest)
{
        TupleTableSlot *slot = MakeSingleTupleTableSlot(shape, &TTSOpsMinimalTuple);
        dest->rStartup(dest, CMD_SELECT, shape);
        while (tuplestore_gettupleslot(rows->store, true, false, slot))
                dest->receiveSlot(slot, dest);
        dest->rShutdown(dest);
        ExecDropSingleTupleTableSlot(slot);
        tuplestore_end(rows->store);
}

static void set_tag(QueryCompletion *completion, const char *tag)
{
        size_t name_len;
        uint64 count = answer_tag_count(tag, &name_len);
        if (completion != NULL && name_len > 0)
                SetQueryCompletion(completion, GetCommandTagEnum(pnstrdup(tag, name_len)), count);
}

/* CONCURRENTLY, and the like, cannot follow a BEGIN; what can, must not be torn from the pipeline
 * that it stands in. */
static bool really_alone(Node *node, int flags)
{
        if (IsA(node, IndexStmt))
                return ((IndexStmt *)node)->concurrent;
        if (IsA(node, DropStmt))
                return ((DropStmt *)node)->concurrent;
        return (flags & ALONE) != 0;
}

static void forward(PlannedStmt *plan, const char *source, int flags, ParamListInfo params,
                    DestReceiver *dest, QueryCompletion *completion)
{
        Node *node = plan->utilityStmt;
        struct statement cut = statement_cut(source, plan->stmt_location, plan->stmt_len);
        if (transaction_read_only())
                PreventCommandIfReadOnly(GetCommandTagName(CreateCommandTag(node)));
        if (IsA(node, CopyStmt)) {
                copy_forward((CopyStmt *)node, cut.text, &cut.place, completion);
                return;
        }
        TupleDesc shape = UtilityReturnsTuples(node) ? UtilityTupleDescriptor(node) : NULL;
        struct rows rows = {0};
        struct remote_batch batch = {.text = cut.text, .params = answer_params(params)};
        if (shape != NULL) {
                rows.reader = answer_reader_new(shape);
                rows.store = tuplestore_begin_heap(false, false, work_mem);
                batch.binary = answer_reader_binary(rows.reader);
                batch.row = take_row;
                batch.context = &rows;
        }
        bool in_block = IsTransactionBlock();
        transaction_run(&batch, &cut.place, really_alone(node, flags));
        if (shape != NULL)
                give_rows(&rows, shape, dest);
        set_tag(completion, batch.tag);
        if ((flags & SCHEMA) != 0 && transaction_remote())
                transaction_changed_schema();
        else if ((flags & SCHEMA) != 0 && !in_block &&
                 !consistency_wait_own(forward_config.read_timeout_ms))
                ereport(WARNING, (errmsg("the change is made, but this standby has not replayed it "
                                         "within meridian.read_timeout")));
}

/* ---- what stays here, with something to note ---- */

static const char *string_of(const DefElem *option)
{
        if (option->arg == NULL || !IsA(option->arg, A_Const) ||
            !IsA(&((A_Const *)option->arg)->val, String))
                return "";
        return strVal(&((A_Const *)option->arg)->val);
}

static bool number_of(const DefElem *option)
{
        return option->arg != NULL && IsA(option->arg, A_Const) &&
               intVal(&((A_Const *)option->arg)->val) != 0;
}

static DefElem *repeatable_read(int location)
{
        A_Const *value = makeNode(A_Const);
        value->val.sval.type = T_String;
        value->val.sval.sval = pstrdup("repeatable read");
        value->location = location;
        return makeDefElem(pstrdup("transaction_isolation"), (Node *)value, location);
}

/* A standby has neither READ WRITE nor SERIALIZABLE; the primary has. The options that only it can
 * keep are noted for it and left out here. */
static List *take_options(List *options)
{
        List *left = NIL;
        ListCell *cell;
        foreach (cell, options) {
                DefElem *option = lfirst(cell);
                if (strcmp(option->defname, "transaction_read_only") == 0) {
                        transaction_said_read_only(number_of(option));
                        if (!number_of(option))
                                continue;
                } else if (strcmp(option->defname, "transaction_isolation") == 0) {
                        bool serializable = strcmp(string_of(option), "serializable") == 0;
                        transaction_said_serializable(serializable);
                        if (serializable)
                                option = repeatable_read(option->location);
                }
                left = lappend(left, option);
        }
        return left;
}

static PlannedStmt *without_options(PlannedStmt *plan)
{
        PlannedStmt *copy = copyObject(plan);
        Node *node = copy->utilityStmt;
        if (IsA(node, TransactionStmt))
                ((TransactionStmt *)node)->options =
                        take_options(((TransactionStmt *)node)->options);
        else
                ((VariableSetStmt *)node)->args = take_options(((VariableSetStmt *)node)->args);
        return copy;
}

static bool sets_transaction(Node *node)
{
        if (IsA(node, TransactionStmt)) {
                TransactionStmtKind kind = ((TransactionStmt *)node)->kind;
                return kind == TRANS_STMT_BEGIN || kind == TRANS_STMT_START;
        }
        return IsA(node, VariableSetStmt) && ((VariableSetStmt *)node)->kind == VAR_SET_MULTI &&
               strcmp(((VariableSetStmt *)node)->name, "TRANSACTION") == 0;
}

static void refuse_two_phase(Node *node)
{
        if (!IsA(node, TransactionStmt))
                return;
        TransactionStmtKind kind = ((TransactionStmt *)node)->kind;
        if (kind == TRANS_STMT_PREPARE || kind == TRANS_STMT_COMMIT_PREPARED ||
            kind == TRANS_STMT_ROLLBACK_PREPARED)
                refuse("two-phase commit", "Connect to the writer.");
}

static void after_here(Node *node)
{
        if (IsA(node, DiscardStmt) && ((DiscardStmt *)node)->target == DISCARD_ALL)
                remote_close();
        if (!IsA(node, TransactionStmt))
                return;
        TransactionStmt *statement = (TransactionStmt *)node;
        if (statement->kind == TRANS_STMT_SAVEPOINT || statement->kind == TRANS_STMT_RELEASE ||
            statement->kind == TRANS_STMT_ROLLBACK_TO)
                transaction_savepoint(statement);
        /* before the snapshot is taken that all of the transaction reads by */
        if (sets_transaction(node) && transaction_one_snapshot() && transaction_read_only() &&
            consistency_wanted())
                consistency_wait();
}

static bool same_depth(Node *node)
{
        /* these start an executor for what the client itself asked for */
        return IsA(node, ExecuteStmt) || IsA(node, DeclareCursorStmt);
}

void utility_process(PlannedStmt *plan, const char *source, bool read_only_tree,
                     ProcessUtilityContext context, ParamListInfo params,
                     QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion,
                     ProcessUtility_hook_type next)
{
        Node *node = plan->utilityStmt;
        bool active = forward_depth == 0 && forward_active();
        int flags = 0;
        if (active) {
                refuse_two_phase(node);
                if (where_of(node, &flags) == THERE) {
                        forward(plan, source, flags, params, dest, completion);
                        return;
                }
                if (sets_transaction(node))
                        plan = without_options(plan);
        }
        if (forward_depth == 0 && IsA(node, CopyStmt) && !transaction_one_snapshot() &&
            consistency_wanted() && RecoveryInProgress())
                consistency_wait();
        if (!same_depth(node))
                forward_depth++;
        if (next != NULL)
                next(plan, source, read_only_tree, context, params, environment, dest, completion);
        else
                standard_ProcessUtility(plan, source, read_only_tree, context, params, environment,
                                        dest, completion);
        if (active)
                after_here(plan->utilityStmt);
}
