/* module.c - the extension's start: settings and hooks.
 *
 * On a primary, and in a session that does not forward, each hook is one comparison. On a standby a
 * statement that writes gets, at ExecutorStart, another plan: one node that runs the statement's
 * text on the primary (statement.c). The plan made here is kept as it was, so a session whose
 * standby is promoted goes on with it. */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#include "forward.h"

PG_MODULE_MAGIC;

void _PG_init(void);

struct forward_config forward_config;
struct forward_counters forward_counters;
int forward_depth;
bool forward_simple_protocol;
bool forward_in_utility;

static planner_hook_type next_planner;
static ExecutorStart_hook_type next_start;
static ExecutorRun_hook_type next_run;
static ExecutorFinish_hook_type next_finish;
static ProcessUtility_hook_type next_utility;

static const struct config_enum_entry consistency_names[] = {
        {"eventual", FORWARD_EVENTUAL, false},
        {"session", FORWARD_SESSION, false},
        {"global", FORWARD_GLOBAL, false},
        {NULL, 0, false},
};

bool forward_active(void)
{
        return forward_config.write_forwarding && RecoveryInProgress();
}

static PlannedStmt *plan_query(Query *query, const char *source, int options, ParamListInfo params)
{
        bool active = forward_active();
        /* before planning: it inlines functions and folds constants */
        int marks = active ? classify_query(query) : 0;
        PlannedStmt *plan;
        forward_depth++;
        PG_TRY();
        {
                plan = next_planner != NULL ? next_planner(query, source, options, params)
                                            : standard_planner(query, source, options, params);
        }
        PG_FINALLY();
        {
                forward_depth--;
        }
        PG_END_TRY();
        plan->jitFlags |= marks;
        return plan;
}

static void start_executor(QueryDesc *desc, int eflags)
{
        bool plain = (eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0 ||
                     (!forward_config.write_forwarding && !consistency_wanted());
        if (!plain && RecoveryInProgress())
                statement_start(desc, eflags);
        if (next_start != NULL)
                next_start(desc, eflags);
        else
                standard_ExecutorStart(desc, eflags);
}

static void run_executor(QueryDesc *desc, ScanDirection direction, uint64 count, bool once)
{
        forward_depth++;
        PG_TRY();
        {
                if (next_run != NULL)
                        next_run(desc, direction, count, once);
                else
                        standard_ExecutorRun(desc, direction, count, once);
        }
        PG_FINALLY();
        {
                forward_depth--;
        }
        PG_END_TRY();
}

static void finish_executor(QueryDesc *desc)
{
        forward_depth++;
        PG_TRY();
        {
                if (next_finish != NULL)
                        next_finish(desc);
                else
                        standard_ExecutorFinish(desc);
        }
        PG_FINALLY();
        {
                forward_depth--;
        }
        PG_END_TRY();
}

static void process_utility(PlannedStmt *plan, const char *source, bool read_only_tree,
                            ProcessUtilityContext context, ParamListInfo params,
                            QueryEnvironment *environment, DestReceiver *dest,
                            QueryCompletion *completion)
{
        if (IsA(plan->utilityStmt, TransactionStmt) && !RecoveryInProgress()) {
                TransactionStmtKind kind = ((TransactionStmt *)plan->utilityStmt)->kind;
                if (kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED)
                        gate_commit_prepared();
        }
        if (forward_depth == 0 && !forward_in_utility && ActivePortal != NULL)
                forward_simple_protocol = ActivePortal->cplan == NULL;
        int depth = forward_depth;
        bool outermost = !forward_in_utility;
        forward_in_utility = true;
        PG_TRY();
        {
                utility_process(plan, source, read_only_tree, context, params, environment, dest,
                                completion, next_utility);
        }
        PG_FINALLY();
        {
                forward_depth = depth;
                forward_in_utility = !outermost;
        }
        PG_END_TRY();
}

/* Plans made while nobody forwarded carry no marks. */
static void assign_forwarding(bool value, void *extra)
{
        (void)extra;
        if (value && !forward_config.write_forwarding && IsUnderPostmaster)
                ResetPlanCache();
}

static void assign_functions(bool value, void *extra)
{
        (void)extra;
        if (value != forward_config.forward_functions && IsUnderPostmaster)
                ResetPlanCache();
}

static void define_settings(void)
{
        DefineCustomBoolVariable("meridian.write_forwarding",
                                 "On a standby, statements that write run on the primary.", NULL,
                                 &forward_config.write_forwarding, false, PGC_USERSET, 0, NULL,
                                 assign_forwarding, NULL);
        DefineCustomBoolVariable("meridian.forward_functions",
                                 "Statements that call a volatile function of a user's run on the "
                                 "primary.",
                                 "Off: such functions are taken to read only; a write in one is "
                                 "refused.",
                                 &forward_config.forward_functions, true, PGC_USERSET, 0, NULL,
                                 assign_functions, NULL);
        DefineCustomStringVariable("meridian.writer",
                                   "Where the writer is: host and port, and how to be "
                                   "authenticated there (a libpq connection string).",
                                   "User and database are always the session's own.",
                                   &forward_config.writer, "", PGC_SUSET, GUC_SUPERUSER_ONLY, NULL,
                                   NULL, NULL);
        DefineCustomEnumVariable("meridian.read_consistency",
                                 "What a read on this standby waits for: eventual (nothing), "
                                 "session (own commits), global (all commits).",
                                 NULL, &forward_config.read_consistency, FORWARD_SESSION,
                                 consistency_names, PGC_USERSET, 0, NULL, NULL, NULL);
        DefineCustomStringVariable("meridian.read_after",
                                   "A commit token: reads on this standby wait until it is here.",
                                   NULL, &forward_config.read_after, "", PGC_USERSET, 0,
                                   consistency_check_token, NULL, NULL);
        DefineCustomIntVariable("meridian.read_timeout",
                                "How long a read waits for the standby to catch up.", "0: for ever",
                                &forward_config.read_timeout_ms, 10000, 0, INT_MAX, PGC_USERSET,
                                GUC_UNIT_MS, NULL, NULL, NULL);
        DefineCustomIntVariable("meridian.connect_timeout", "How long to try to reach the primary.",
                                NULL, &forward_config.connect_timeout_ms, 5000, 100, 600000,
                                PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
        gate_init();
        pass_init();
        MarkGUCPrefixReserved("meridian");
}

void _PG_init(void)
{
        define_settings();
        statement_init();
        transaction_init();
        next_planner = planner_hook;
        planner_hook = plan_query;
        next_start = ExecutorStart_hook;
        ExecutorStart_hook = start_executor;
        next_run = ExecutorRun_hook;
        ExecutorRun_hook = run_executor;
        next_finish = ExecutorFinish_hook;
        ExecutorFinish_hook = finish_executor;
        next_utility = ProcessUtility_hook;
        ProcessUtility_hook = process_utility;
}
