/* answer.c - what crosses the connection becomes what it would have been here: errors and notices
 * with all their fields, values through the types' own receive or input functions, parameters
 * through their send or output functions. The standby has the primary's catalogs, byte for byte, so
 * numbers of types mean the same on both sides. A column whose type can only be written, never
 * read (an anonymous record, mostly), is refused by name before anything is sent. */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "forward.h"

struct answer_column {
        FmgrInfo read;
        Oid io_param;
        int32 typmod;
};

struct answer_reader {
        TupleDesc shape;
        bool binary;
        struct answer_column *columns;
        Datum *values;
        bool *nulls;
        MemoryContext scratch; /* reset after each row */
};

/* ---- errors ---- */

struct report {
        int level;
        int code;
        const char *message;
        const char *detail;
        const char *hint;
        const char *context;
        int position; /* characters from the begin of the statement, from 1; 0: none */
        const char *position_inside;
        const char *query_inside;
        const char *names[5]; /* in the order of name_fields */
};

static const struct {
        int libpq;
        int ours;
} name_fields[] = {
        {PG_DIAG_SCHEMA_NAME, PG_DIAG_SCHEMA_NAME},
        {PG_DIAG_TABLE_NAME, PG_DIAG_TABLE_NAME},
        {PG_DIAG_COLUMN_NAME, PG_DIAG_COLUMN_NAME},
        {PG_DIAG_DATATYPE_NAME, PG_DIAG_DATATYPE_NAME},
        {PG_DIAG_CONSTRAINT_NAME, PG_DIAG_CONSTRAINT_NAME},
};

static const struct {
        const char *name;
        int level;
} levels[] = {
        {"DEBUG", DEBUG1}, {"LOG", LOG}, {"INFO", INFO}, {"NOTICE", NOTICE}, {"WARNING", WARNING},
};

static const char *field(const PGresult *result, int code)
{
        const char *text = PQresultErrorField(result, code);
        return text == NULL ? NULL : pstrdup(text);
}

static int number_of(const char *text)
{
        return text == NULL ? 0 : (int)strtol(text, NULL, 10);
}

/* A level below ERROR is kept, all above becomes ERROR: a FATAL ends the session there only. */
static int level_of(const char *severity)
{
        for (size_t i = 0; severity != NULL && i < lengthof(levels); i++)
                if (strcmp(severity, levels[i].name) == 0)
                        return levels[i].level;
        return ERROR;
}

static struct report report_of(const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        struct report report = {
                .level = level_of(PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED)),
                .code = ERRCODE_CONNECTION_FAILURE,
                .message = field(result, PG_DIAG_MESSAGE_PRIMARY),
                .detail = field(result, PG_DIAG_MESSAGE_DETAIL),
                .hint = field(result, PG_DIAG_MESSAGE_HINT),
                .context = field(result, PG_DIAG_CONTEXT),
                .position = number_of(PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION)),
                .position_inside = field(result, PG_DIAG_INTERNAL_POSITION),
                .query_inside = field(result, PG_DIAG_INTERNAL_QUERY),
        };
        if (state != NULL && strlen(state) == 5)
                report.code = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
        if (report.message == NULL)
                report.message = pchomp(PQresultErrorMessage(result));
        for (size_t i = 0; i < lengthof(name_fields); i++)
                report.names[i] = field(result, name_fields[i].libpq);
        return report;
}

static int report_names(const struct report *report)
{
        for (size_t i = 0; i < lengthof(name_fields); i++)
                if (report->names[i] != NULL)
                        err_generic_string(name_fields[i].ours, report->names[i]);
        return 0;
}

static int report_place(const struct report *report, const struct answer_place *place)
{
        if (report->position > 0 && place != NULL && place->source != NULL)
                errposition(pg_mbstrlen_with_len(place->source, place->offset) + report->position);
        if (report->query_inside != NULL) {
                internalerrquery(report->query_inside);
                internalerrposition(number_of(report->position_inside));
        }
        return 0;
}

static void throw(const struct report *report, const struct answer_place *place)
{
        ereport(report->level,
                (errcode(report->code), errmsg_internal("%s", report->message),
                 report->detail != NULL ? errdetail_internal("%s", report->detail) : 0,
                 report->hint != NULL ? errhint("%s", report->hint) : 0,
                 report->context != NULL ? errcontext("%s", report->context) : 0,
                 report_place(report, place), report_names(report)));
}

void answer_throw(PGresult *error, const struct answer_place *place)
{
        struct report report = report_of(error);
        PQclear(error);
        report.level = ERROR;
        throw(&report, place);
        pg_unreachable();
}

void answer_notice(void *context, const PGresult *result)
{
        (void)context;
        struct report report = report_of(result);
        if (report.level < ERROR)
                throw(&report, NULL);
}

uint64 answer_tag_count(const char *tag, size_t *ret_name_len)
{
        size_t len = strlen(tag);
        size_t digits = len;
        while (digits > 0 && tag[digits - 1] >= '0' && tag[digits - 1] <= '9')
                digits--;
        uint64 count = digits < len ? strtou64(tag + digits, NULL, 10) : 0;
        while (digits > 0 && (tag[digits - 1] == ' ' || (tag[digits - 1] == '0' && digits < len &&
                                                         digits > 1 && tag[digits - 2] == ' ')))
                digits--;
        *ret_name_len = digits;
        return count;
}

/* ---- rows ---- */

static bool type_binary(Oid type)
{
        HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
        if (!HeapTupleIsValid(tuple))
                elog(ERROR, "type %u is not known here", type);
        bool binary = OidIsValid(((Form_pg_type)GETSTRUCT(tuple))->typreceive);
        ReleaseSysCache(tuple);
        return binary;
}

static void refuse_type(Form_pg_attribute column)
{
        if (column->atttypid != RECORDOID && column->atttypid != RECORDARRAYOID)
                return;
        ereport(ERROR,
                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                 errmsg("column \"%s\" is an anonymous record, which cannot be forwarded to the "
                        "primary",
                        NameStr(column->attname)),
                 errhint("Give it a type, or call the function in FROM, which makes columns.")));
}

struct answer_reader *answer_reader_new(TupleDesc shape)
{
        struct answer_reader *reader = palloc0(sizeof *reader);
        int count = shape->natts;
        reader->shape = shape;
        reader->binary = true;
        reader->columns = palloc0(sizeof *reader->columns * (Size)Max(count, 1));
        reader->values = palloc0(sizeof *reader->values * (Size)Max(count, 1));
        reader->nulls = palloc0(sizeof *reader->nulls * (Size)Max(count, 1));
        reader->scratch = AllocSetContextCreate(CurrentMemoryContext, "meridian rows",
                                                ALLOCSET_DEFAULT_SIZES);
        for (int i = 0; i < count; i++) {
                refuse_type(TupleDescAttr(shape, i));
                reader->binary &= type_binary(TupleDescAttr(shape, i)->atttypid);
        }
        for (int i = 0; i < count; i++) {
                struct answer_column *column = &reader->columns[i];
                Oid function;
                column->typmod = TupleDescAttr(shape, i)->atttypmod;
                if (reader->binary)
                        getTypeBinaryInputInfo(TupleDescAttr(shape, i)->atttypid, &function,
                                               &column->io_param);
                else
                        getTypeInputInfo(TupleDescAttr(shape, i)->atttypid, &function,
                                         &column->io_param);
                fmgr_info(function, &column->read);
        }
        return reader;
}

bool answer_reader_binary(const struct answer_reader *reader)
{
        return reader->binary;
}

static Datum read_value(struct answer_reader *reader, int number, const PGresult *result, int row)
{
        struct answer_column *column = &reader->columns[number];
        char *text = PQgetvalue(result, row, number);
        if (!reader->binary)
                return InputFunctionCall(&column->read, text, column->io_param, column->typmod);
        StringInfoData bytes;
        initStringInfo(&bytes);
        appendBinaryStringInfo(&bytes, text, PQgetlength(result, row, number));
        return ReceiveFunctionCall(&column->read, &bytes, column->io_param, column->typmod);
}

void answer_rows(struct answer_reader *reader, const PGresult *result, Tuplestorestate *rows)
{
        int count = reader->shape->natts;
        if (PQnfields(result) != count)
                ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
                                errmsg("the primary sent %d columns where %d were expected",
                                       PQnfields(result), count),
                                errhint("Its tables changed meanwhile; try again.")));
        for (int row = 0; row < PQntuples(result); row++) {
                MemoryContext before = MemoryContextSwitchTo(reader->scratch);
                for (int i = 0; i < count; i++) {
                        reader->nulls[i] = PQgetisnull(result, row, i) != 0;
                        if (!reader->nulls[i])
                                reader->values[i] = read_value(reader, i, result, row);
                }
                tuplestore_putvalues(rows, reader->shape, reader->values, reader->nulls);
                MemoryContextSwitchTo(before);
                MemoryContextReset(reader->scratch);
        }
}

/* ---- parameters ---- */

static void write_param(struct remote_params *params, int i, ParamExternData *param)
{
        Oid function;
        bool varlena;
        params->types[i] = param->ptype;
        if (param->isnull || !OidIsValid(param->ptype))
                return;
        if (type_binary(param->ptype)) {
                getTypeBinaryOutputInfo(param->ptype, &function, &varlena);
                bytea *bytes = OidSendFunctionCall(function, param->value);
                params->values[i] = VARDATA(bytes);
                params->lengths[i] = (int)(VARSIZE(bytes) - VARHDRSZ);
                params->formats[i] = 1;
        } else {
                getTypeOutputInfo(param->ptype, &function, &varlena);
                params->values[i] = OidOutputFunctionCall(function, param->value);
        }
}

struct remote_params *answer_params(ParamListInfo list)
{
        if (list == NULL || list->numParams == 0)
                return NULL;
        Size count = (Size)list->numParams;
        struct remote_params *params = palloc0(sizeof *params);
        params->count = list->numParams;
        params->types = palloc0(sizeof *params->types * count);
        params->values = palloc0(sizeof *params->values * count);
        params->lengths = palloc0(sizeof *params->lengths * count);
        params->formats = palloc0(sizeof *params->formats * count);
        for (int i = 0; i < list->numParams; i++) {
                ParamExternData space;
                ParamExternData *param = &list->params[i];
                if (list->paramFetch != NULL)
                        param = list->paramFetch(list, i + 1, false, &space);
                write_param(params, i, param);
        }
        return params;
}
