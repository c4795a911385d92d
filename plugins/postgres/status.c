/* status.c - the SQL functions of the extension; meridian--1.0.sql declares them. */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/xlog.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "consistency.h"
#include "forward.h"

PG_FUNCTION_INFO_V1(meridian_commit_token);
PG_FUNCTION_INFO_V1(meridian_wait_for);
PG_FUNCTION_INFO_V1(meridian_status);
PG_FUNCTION_INFO_V1(meridian_mapping_validator);

/* The session's last commit: forwarded, or on a primary all that is committed by now. */
Datum meridian_commit_token(PG_FUNCTION_ARGS)
{
        struct consistency_token token;
        (void)fcinfo;
        if (RecoveryInProgress())
                token = consistency_own();
        else
                token = (struct consistency_token){.timeline = GetWALInsertionTimeLine(),
                                                   .position = GetXLogInsertRecPtr()};
        if (token.position == InvalidXLogRecPtr)
                PG_RETURN_NULL();
        PG_RETURN_TEXT_P(cstring_to_text(consistency_text(token)));
}

Datum meridian_wait_for(PG_FUNCTION_ARGS)
{
        struct consistency_token token;
        const char *given = TextDatumGetCString(PG_GETARG_DATUM(0));
        if (!consistency_parse(given, &token))
                ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                                errmsg("\"%s\" is not a commit token", given),
                                errhint("A commit token looks like 00000001:0/3000148.")));
        consistency_wait_token(token);
        PG_RETURN_VOID();
}

Datum meridian_status(PG_FUNCTION_ARGS)
{
        TupleDesc shape;
        Datum values[9] = {0};
        bool nulls[9] = {false};
        bool connected = remote.conn != NULL;
        if (get_call_result_type(fcinfo, NULL, &shape) != TYPEFUNC_COMPOSITE)
                elog(ERROR, "meridian.status() must return a row");
        values[0] = BoolGetDatum(RecoveryInProgress());
        values[1] = BoolGetDatum(forward_active());
        values[2] = BoolGetDatum(connected);
        nulls[3] = nulls[4] = nulls[5] = !connected;
        if (connected) {
                const char *host = PQhost(remote.conn);
                values[3] = CStringGetTextDatum(
                        psprintf("%s:%s", host != NULL ? host : "", PQport(remote.conn)));
                values[4] = Int32GetDatum(remote.pid);
                values[5] = Int64GetDatum((int64)remote.timeline);
        }
        values[6] = Int64GetDatum((int64)forward_counters.statements);
        values[7] = Int64GetDatum((int64)forward_counters.transactions);
        values[8] = Int64GetDatum((int64)forward_counters.waits);
        HeapTuple row = heap_form_tuple(BlessTupleDesc(shape), values, nulls);
        PG_RETURN_DATUM(HeapTupleGetDatum(row));
}

/* A user mapping says how its user logs in on the primary, and nothing else. */
Datum meridian_mapping_validator(PG_FUNCTION_ARGS)
{
        List *options = untransformRelOptions(PG_GETARG_DATUM(0));
        Oid catalog = PG_GETARG_OID(1);
        ListCell *cell;
        foreach (cell, options) {
                DefElem *option = lfirst(cell);
                if (catalog != UserMappingRelationId || strcmp(option->defname, "password") != 0)
                        ereport(ERROR,
                                (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
                                 errmsg("invalid option \"%s\"", option->defname),
                                 errhint("A user mapping has the option password; the rest is "
                                         "said by meridian.writer.")));
        }
        PG_RETURN_VOID();
}
