/* classify.c - which statements must run on the primary.
 *
 * What the grammar says (INSERT, UPDATE, DELETE, MERGE, FOR UPDATE, WITH ... DML) is in the plan.
 * What functions do is not, so a query that is planned on a standby is walked once and marked: a
 * built-in function of the table below, or a volatile function of the user's, must run on the
 * primary. A volatile function may only read; it runs there all the same, because nobody can
 * know (meridian.forward_functions = off trusts them to read). */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "forward.h"

/* Built-in functions with an effect on the cluster, or on a session that must be the primary's:
 * sequences, large objects, notifications, transaction numbers, advisory locks (one that is held
 * on this standby alone would keep nobody out). Sorted by number for the search. */
static const Oid primary_functions[] = {
        F_LO_CREATE,
        F_LO_IMPORT_TEXT,
        F_LO_EXPORT,
        F_LO_IMPORT_TEXT_OID,
        F_LO_OPEN,
        F_LO_CLOSE,
        F_LOREAD,
        F_LOWRITE,
        F_LO_LSEEK,
        F_LO_CREAT,
        F_LO_TELL,
        F_LO_UNLINK,
        F_LO_TRUNCATE,
        F_NEXTVAL,
        F_CURRVAL,
        F_SETVAL_REGCLASS_INT8,
        F_SETVAL_REGCLASS_INT8_BOOL,
        F_LASTVAL,
        F_PG_ADVISORY_LOCK_INT8,
        F_PG_ADVISORY_LOCK_SHARED_INT8,
        F_PG_TRY_ADVISORY_LOCK_INT8,
        F_PG_TRY_ADVISORY_LOCK_SHARED_INT8,
        F_PG_ADVISORY_UNLOCK_INT8,
        F_PG_ADVISORY_UNLOCK_SHARED_INT8,
        F_PG_ADVISORY_LOCK_INT4_INT4,
        F_PG_ADVISORY_LOCK_SHARED_INT4_INT4,
        F_PG_TRY_ADVISORY_LOCK_INT4_INT4,
        F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4,
        F_PG_ADVISORY_UNLOCK_INT4_INT4,
        F_PG_ADVISORY_UNLOCK_SHARED_INT4_INT4,
        F_PG_ADVISORY_UNLOCK_ALL,
        F_TXID_CURRENT,
        F_PG_NOTIFY,
        F_PG_ADVISORY_XACT_LOCK_INT8,
        F_PG_ADVISORY_XACT_LOCK_SHARED_INT8,
        F_PG_TRY_ADVISORY_XACT_LOCK_INT8,
        F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT8,
        F_PG_ADVISORY_XACT_LOCK_INT4_INT4,
        F_PG_ADVISORY_XACT_LOCK_SHARED_INT4_INT4,
        F_PG_TRY_ADVISORY_XACT_LOCK_INT4_INT4,
        F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT4_INT4,
        F_LO_LSEEK64,
        F_LO_TELL64,
        F_LO_TRUNCATE64,
        F_LO_FROM_BYTEA,
        F_LO_PUT,
        F_PG_LOGICAL_EMIT_MESSAGE_BOOL_TEXT_TEXT,
        F_PG_LOGICAL_EMIT_MESSAGE_BOOL_TEXT_BYTEA,
        F_PG_CURRENT_XACT_ID,
};

struct walk {
        int marks;
        bool sets;   /* set_config() is called */
        bool tables; /* a table, view or sub-query is read */
};

static bool function_primary(Oid function)
{
        size_t low = 0;
        size_t high = lengthof(primary_functions);
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (primary_functions[middle] == function)
                        return true;
                if (primary_functions[middle] < function)
                        low = middle + 1;
                else
                        high = middle;
        }
        return false;
}

static bool see_function(Oid function, void *context)
{
        struct walk *walk = context;
        if (function == F_SET_CONFIG)
                walk->sets = true;
        if (function < FirstNormalObjectId) {
                if (function_primary(function))
                        walk->marks |= FORWARD_MARK_PRIMARY;
        } else if (forward_config.forward_functions &&
                   func_volatile(function) == PROVOLATILE_VOLATILE) {
                walk->marks |= FORWARD_MARK_PRIMARY;
        }
        return false;
}

static bool see_node(Node *node, void *context)
{
        struct walk *walk = context;
        if (node == NULL)
                return false;
        if (IsA(node, Query)) {
                Query *query = (Query *)node;
                walk->tables |= query->rtable != NIL;
                return query_tree_walker(query, see_node, context, 0);
        }
        if (IsA(node, CurrentOfExpr))
                walk->marks |= FORWARD_MARK_CURRENT_OF;
        check_functions_in_node(node, see_function, context);
        return expression_tree_walker(node, see_node, context);
}

int classify_query(Query *query)
{
        struct walk walk = {0};
        see_node((Node *)query, &walk);
        if (query->querySource != QSRC_ORIGINAL)
                walk.marks |= FORWARD_MARK_RULE;
        if (walk.sets && !walk.tables)
                walk.marks |= FORWARD_MARK_SETTING;
        return walk.marks;
}

bool classify_writes(const PlannedStmt *plan)
{
        return plan->commandType != CMD_SELECT || plan->hasModifyingCTE || plan->rowMarks != NIL ||
               (plan->jitFlags & FORWARD_MARK_PRIMARY) != 0;
}
