/* statement.c - a plan that runs on the primary, in place of the one made here.
 *
 * The substitute has the command, the columns and the place in the text of the original, so the
 * portal, the tag, the row description and the client's formats are made by PostgreSQL as ever. Its
 * only node sends the text with the parameters, keeps all rows in a tuple store (in binary where
 * each type can be received so) and hands them out. It reads no table here and holds no snapshot
 * that matters. Errors are thrown as the primary's. */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/gramparse.h"
#include "parser/scanner.h"
#include "tcop/cmdtag.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "forward.h"

struct forward_scan {
        CustomScanState css; /* first: PostgreSQL sees this one */
        struct statement statement;
        struct answer_reader *reader;
        Tuplestorestate *rows;
        TupleTableSlot *slot;
        bool ran;
};

/* PREPARE name [(types)] AS ..., DECLARE name ... FOR ...: the word after which the statement
 * begins. Words inside parentheses are types. */
static int prefix_end(const char *text, int *ret_skip)
{
        core_yy_extra_type extra;
        core_YYSTYPE value;
        YYLTYPE place;
        core_yyscan_t scanner = scanner_init(text, &extra, &ScanKeywords, ScanKeywordTokens);
        int first = core_yylex(&value, &place, scanner);
        int wanted = first == PREPARE ? AS : first == DECLARE ? FOR : 0;
        int depth = 0;
        *ret_skip = 0;
        for (int token = first; wanted != 0 && token != 0;) {
                token = core_yylex(&value, &place, scanner);
                depth += token == '(' ? 1 : token == ')' ? -1 : 0;
                if (token == wanted && depth == 0) {
                        core_yylex(&value, &place, scanner);
                        *ret_skip = place;
                        break;
                }
        }
        scanner_finish(scanner);
        return wanted;
}

struct statement statement_cut(const char *source, int location, int length)
{
        int offset = Max(location, 0);
        if (length <= 0)
                length = (int)strlen(source + offset);
        struct statement cut = {.text = pnstrdup(source + offset, (Size)length)};
        int skip;
        prefix_end(cut.text, &skip);
        cut.text += skip;
        cut.place.source = source;
        cut.place.offset = offset + skip;
        return cut;
}

static void scan_begin(CustomScanState *node, EState *estate, int eflags)
{
        (void)node;
        (void)estate;
        (void)eflags;
}

static void scan_row(void *context, const PGresult *result)
{
        struct forward_scan *scan = context;
        answer_rows(scan->reader, result, scan->rows);
}

static void scan_run(struct forward_scan *scan)
{
        EState *estate = scan->css.ss.ps.state;
        TupleDesc shape = scan->css.ss.ps.ps_ResultTupleDesc;
        MemoryContext before = MemoryContextSwitchTo(estate->es_query_cxt);
        bool rows_wanted = shape->natts > 0;
        scan->reader = answer_reader_new(shape);
        scan->rows = tuplestore_begin_heap(true, false, work_mem);
        struct remote_batch batch = {
                .text = scan->statement.text,
                .params = answer_params(estate->es_param_list_info),
                .binary = answer_reader_binary(scan->reader),
                .row = rows_wanted ? scan_row : NULL,
                .context = scan,
        };
        transaction_run(&batch, &scan->statement.place, false);
        size_t name_len;
        if (estate->es_plannedstmt->commandType != CMD_SELECT)
                estate->es_processed = answer_tag_count(batch.tag, &name_len);
        MemoryContextSwitchTo(before);
}

static TupleTableSlot *scan_next(CustomScanState *node)
{
        struct forward_scan *scan = (struct forward_scan *)node;
        if (!scan->ran) {
                scan->ran = true;
                scan_run(scan);
        }
        bool forward = !ScanDirectionIsBackward(node->ss.ps.state->es_direction);
        if (!tuplestore_gettupleslot(scan->rows, forward, false, scan->slot))
                return NULL;
        return scan->slot;
}

static void scan_end(CustomScanState *node)
{
        struct forward_scan *scan = (struct forward_scan *)node;
        if (scan->rows != NULL)
                tuplestore_end(scan->rows);
        scan->rows = NULL;
}

static void scan_again(CustomScanState *node)
{
        struct forward_scan *scan = (struct forward_scan *)node;
        if (scan->rows != NULL)
                tuplestore_rescan(scan->rows);
}

static const CustomExecMethods exec_methods = {
        .CustomName = "Meridian Forward",
        .BeginCustomScan = scan_begin,
        .ExecCustomScan = scan_next,
        .EndCustomScan = scan_end,
        .ReScanCustomScan = scan_again,
};

static Node *scan_create(CustomScan *plan);

static const CustomScanMethods scan_methods = {
        .CustomName = "Meridian Forward",
        .CreateCustomScanState = scan_create,
};

/* The statement travels in the plan as constants that copyObject knows: text and place. */
static Node *scan_create(CustomScan *plan)
{
        struct forward_scan *scan = palloc0(sizeof *scan);
        NodeSetTag(scan, T_CustomScanState);
        scan->css.flags = plan->flags;
        scan->css.methods = &exec_methods;
        scan->statement.text = strVal(linitial(plan->custom_private));
        scan->statement.place.source = strVal(lsecond(plan->custom_private));
        scan->statement.place.offset = intVal(lthird(plan->custom_private));
        TupleDesc shape = ExecTypeFromTL(plan->scan.plan.targetlist);
        scan->slot = MakeSingleTupleTableSlot(shape, &TTSOpsMinimalTuple);
        return (Node *)scan;
}

/* The visible columns of the original plan, as columns of the one scan. */
static List *columns_of(const Plan *tree, List **ret_scanned)
{
        List *columns = NIL;
        ListCell *cell;
        AttrNumber number = 0;
        *ret_scanned = NIL;
        foreach (cell, tree->targetlist) {
                TargetEntry *entry = lfirst(cell);
                if (entry->resjunk)
                        continue;
                Oid type = exprType((Node *)entry->expr);
                int32 typmod = exprTypmod((Node *)entry->expr);
                Oid collation = exprCollation((Node *)entry->expr);
                number++;
                Expr *empty = (Expr *)makeNullConst(type, typmod, collation);
                Var *var = makeVar(INDEX_VAR, number, type, typmod, collation, 0);
                *ret_scanned = lappend(*ret_scanned,
                                       makeTargetEntry(empty, number, entry->resname, false));
                columns = lappend(columns,
                                  makeTargetEntry((Expr *)var, number, entry->resname, false));
        }
        return columns;
}

static PlannedStmt *substitute(const QueryDesc *desc)
{
        const PlannedStmt *original = desc->plannedstmt;
        struct statement cut =
                statement_cut(desc->sourceText, original->stmt_location, original->stmt_len);
        CustomScan *scan = makeNode(CustomScan);
        bool shaped = original->commandType == CMD_SELECT || original->hasReturning;
        if (shaped)
                scan->scan.plan.targetlist =
                        columns_of(original->planTree, &scan->custom_scan_tlist);
        scan->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
        scan->methods = &scan_methods;
        scan->custom_private =
                list_make3(makeString(cut.text), makeString(pstrdup(cut.place.source)),
                           makeInteger(cut.place.offset));
        PlannedStmt *plan = makeNode(PlannedStmt);
        plan->commandType = original->commandType;
        plan->queryId = original->queryId;
        plan->hasReturning = original->hasReturning;
        plan->canSetTag = original->canSetTag;
        plan->planTree = (Plan *)scan;
        plan->stmt_location = original->stmt_location;
        plan->stmt_len = original->stmt_len;
        return plan;
}

static void refuse(const char *what, const char *hint)
{
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("%s cannot be forwarded to the primary", what),
                        hint != NULL ? errhint("%s", hint) : 0));
}

/* What must run on the primary and cannot; each by its name. */
static void refuse_unforwardable(const QueryDesc *desc, bool top)
{
        const PlannedStmt *plan = desc->plannedstmt;
        if (!top)
                refuse("a write inside of a function or command that runs on this standby",
                       "Declare the function VOLATILE and leave meridian.forward_functions on: the "
                       "statement that calls it then runs on the primary.");
        if ((plan->jitFlags & FORWARD_MARK_RULE) != 0 || list_length(ActivePortal->stmts) > 1)
                refuse("a statement that a rewrite rule changes",
                       "Connect to the writer, or use a trigger in place of the rule.");
        if ((plan->jitFlags & FORWARD_MARK_CURRENT_OF) != 0)
                refuse("WHERE CURRENT OF", "Name the row by its key.");
}

/* The snapshot was taken before the wait; the statement must see what came meanwhile. It is let go
 * before: one that is held can stop the very replay that is waited for. */
static void wait_and_look_again(QueryDesc *desc)
{
        if (!ActiveSnapshotSet())
                return;
        UnregisterSnapshot(desc->snapshot);
        desc->snapshot = InvalidSnapshot;
        PopActiveSnapshot();
        consistency_wait();
        PushActiveSnapshot(GetTransactionSnapshot());
        desc->snapshot = RegisterSnapshot(GetActiveSnapshot());
}

static bool must_forward(const QueryDesc *desc, bool top)
{
        if (classify_writes(desc->plannedstmt))
                return true;
        if (!top || (desc->plannedstmt->jitFlags & FORWARD_MARK_SETTING) != 0)
                return false;
        /* all of a transaction with one snapshot must see the same moment of the same server */
        bool one_snapshot = transaction_one_snapshot() && !transaction_read_only();
        if (transaction_remote() || (one_snapshot && IsTransactionBlock()))
                return true;
        return one_snapshot && consistency_wanted();
}

void statement_start(QueryDesc *desc, int eflags)
{
        (void)eflags;
        bool top = forward_depth == 0 && ActivePortal != NULL &&
                   desc->sourceText == ActivePortal->sourceText;
        if (top && !forward_in_utility)
                forward_simple_protocol = ActivePortal->cplan == NULL;
        if (forward_config.write_forwarding && must_forward(desc, top)) {
                /* PostgreSQL's own words for it: cannot execute ... in a read-only transaction */
                if (classify_writes(desc->plannedstmt) && transaction_read_only())
                        PreventCommandIfReadOnly(
                                GetCommandTagName(CreateCommandTag((Node *)desc->plannedstmt)));
                refuse_unforwardable(desc, top);
                desc->plannedstmt = substitute(desc);
                return;
        }
        if (top && !transaction_one_snapshot() && consistency_wanted())
                wait_and_look_again(desc);
}

void statement_init(void)
{
        RegisterCustomScanMethods(&scan_methods);
}
