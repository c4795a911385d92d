/* copy.c - COPY between the client and the primary, through this session.
 *
 * The client's messages are passed on as they are: this side reads no row. The primary is told the
 * client's encoding for the time. A client that gives up (CopyFail), or an error of the primary's
 * in the middle, ends as it would there; what is left of the client's data is read and dropped, as
 * the protocol asks. */
#include "postgres.h"

#include "access/xact.h"

/* the server's own header wants Kerberos's where that is compiled in; nothing of it is used here */
#undef ENABLE_GSS
#include "libpq/libpq.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "tcop/cmdtag.h"
#include "utils/memutils.h"

#include "forward.h"

#define MESSAGE_MAX (PQ_LARGE_MESSAGE_LIMIT)

static void tell_client(char kind, const PGresult *result)
{
        StringInfoData message;
        int columns = PQnfields(result);
        pq_beginmessage(&message, kind);
        pq_sendbyte(&message, (uint8)PQbinaryTuples(result));
        pq_sendint16(&message, (uint16)columns);
        for (int i = 0; i < columns; i++)
                pq_sendint16(&message, (uint16)PQfformat(result, i));
        pq_endmessage(&message);
        pq_flush();
}

static void put(const char *bytes, int len)
{
        int sent;
        while ((sent = PQputCopyData(remote.conn, bytes, len)) == 0)
                remote_flush();
        if (sent < 0)
                ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                                errmsg("the connection to the primary was lost during COPY"),
                                errdetail_internal("%s", pchomp(PQerrorMessage(remote.conn)))));
}

static void put_end(const char *why)
{
        int sent;
        while ((sent = PQputCopyEnd(remote.conn, why)) == 0)
                remote_flush();
        remote_flush();
}

/* One message of the client's; its kind. */
static int client_message(StringInfo message)
{
        HOLD_CANCEL_INTERRUPTS();
        pq_startmsgread();
        int kind = pq_getbyte();
        if (kind == EOF)
                ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                                errmsg("unexpected EOF on client connection with an open "
                                       "transaction")));
        bool known = strchr("dcfHS", kind) != NULL && kind != '\0';
        if (pq_getmessage(message, known ? MESSAGE_MAX : PQ_SMALL_MESSAGE_LIMIT) != 0)
                ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                                errmsg("unexpected EOF on client connection with an open "
                                       "transaction")));
        RESUME_CANCEL_INTERRUPTS();
        if (!known)
                ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
                                errmsg("unexpected message type 0x%02X during COPY from stdin",
                                       (unsigned)kind)));
        return kind;
}

static void client_to_primary(const PGresult *result)
{
        StringInfoData message;
        initStringInfo(&message);
        tell_client('G', result);
        for (;;) {
                CHECK_FOR_INTERRUPTS();
                int kind = client_message(&message);
                if (kind == 'd') {
                        put(message.data, message.len);
                        remote_flush();
                } else if (kind == 'c') {
                        put_end(NULL);
                        return;
                } else if (kind == 'f') {
                        put_end(pq_getmsgstring(&message));
                        return;
                }
        }
}

static void primary_to_client(const PGresult *result)
{
        char *bytes = NULL;
        int len;
        tell_client('H', result);
        while ((len = remote_copy_get(&bytes)) > 0) {
                int failed = pq_putmessage('d', bytes, (size_t)len);
                PQfreemem(bytes);
                if (failed != 0)
                        break;
                CHECK_FOR_INTERRUPTS();
        }
        pq_putemptymessage('c');
}

/* Reads to the end of the command; its tag, or the error thrown. */
static void finish(PGresult *first, const struct answer_place *place, char *ret_tag, size_t size)
{
        PGresult *error = NULL;
        for (PGresult *result = first; result != NULL; result = remote_plain_result()) {
                ExecStatusType status = PQresultStatus(result);
                if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
                        strlcpy(ret_tag, PQcmdStatus(result), size);
                if (status == PGRES_FATAL_ERROR && error == NULL)
                        error = result;
                else
                        PQclear(result);
        }
        if (error != NULL)
                answer_throw(error, place);
}

void copy_forward(CopyStmt *statement, const char *text, const struct answer_place *place,
                  QueryCompletion *completion)
{
        char tag[COMPLETION_TAG_BUFSIZE] = "";
        (void)statement;
        if (whereToSendOutput != DestRemote)
                ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                errmsg("COPY cannot be forwarded without a client")));
        bool own_commit = transaction_enter();
        remote_plain_send(text);
        PGresult *result = remote_plain_result();
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_COPY_IN)
                client_to_primary(result);
        else if (status == PGRES_COPY_OUT)
                primary_to_client(result);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT) {
                PQclear(result);
                result = remote_plain_result();
        }
        finish(result, place, tag, sizeof tag);
        transaction_entered_done(own_commit);
        size_t name_len;
        uint64 count = answer_tag_count(tag, &name_len);
        if (completion != NULL)
                SetQueryCompletion(completion, CMDTAG_COPY, count);
}
