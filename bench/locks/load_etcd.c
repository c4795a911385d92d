/* load_etcd.c - etcd's door: gRPC, which is HTTP/2 by nghttp2 with messages of protocol buffers
 * that are written and read by hand. Clients share connections, as those of etcd's own clients do.
 *
 *   etcd       Lock and Unlock of its lock service, with a lease for each client
 *   etcd-txn   the least that is a lock: "if absent, put under my lease", then delete
 *   etcd-values  put and linearizable range
 *   etcd-reads, etcd-stale  linearizable and serializable range */
#include "load.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        TTL_S = 3600,
        MESSAGE_MAX = 512,
};

/* One call under way. */
struct call {
        struct load_client *client;
        uint8_t send[MESSAGE_MAX];
        size_t send_len, send_at;
        uint8_t came[MESSAGE_MAX];
        size_t came_len;
        bool good; /* grpc-status 0 */
};

static uint32_t etcd_conns(uint32_t clients, uint32_t conns)
{
        if (conns == 0)
                conns = 100;
        return clients < conns ? clients : conns;
}

/* ---- protocol buffers ---- */

struct message {
        uint8_t data[MESSAGE_MAX];
        size_t len;
};

static void put_varint(struct message *message, uint64_t value)
{
        for (; value >= 128; value >>= 7)
                message->data[message->len++] = (uint8_t)(value | 128);
        message->data[message->len++] = (uint8_t)value;
}

static void put_number(struct message *message, unsigned field, uint64_t value)
{
        put_varint(message, field << 3);
        put_varint(message, value);
}

static void put_bytes(struct message *message, unsigned field, const void *data, size_t len)
{
        if (message->len + len + 16 > MESSAGE_MAX)
                load_die("a message is too long");
        put_varint(message, field << 3 | 2);
        put_varint(message, len);
        memcpy(message->data + message->len, data, len);
        message->len += len;
}

static void put_message(struct message *message, unsigned field, const struct message *part)
{
        put_bytes(message, field, part->data, part->len);
}

static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
        *ret = 0;
        for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
                uint8_t byte = *(*at)++;
                *ret |= (uint64_t)(byte & 127) << shift;
                if (byte < 128)
                        return true;
        }
        return false;
}

/* The value or the bytes of a field; false: it is not there. */
static bool get_field(const struct call *call, unsigned field, uint64_t *ret_value,
                      const uint8_t **ret_data)
{
        const uint8_t *at = call->came + 5, *end = call->came + call->came_len;
        uint64_t tag, value;
        while (at < end && get_varint(&at, end, &tag) && get_varint(&at, end, &value)) {
                const uint8_t *data = at;
                if ((tag & 7) == 2)
                        at += value;
                if (at > end)
                        return false;
                if (tag >> 3 == field) {
                        *ret_value = value;
                        *ret_data = data;
                        return true;
                }
        }
        return false;
}

/* ---- calls ---- */

static ssize_t call_read(nghttp2_session *session, int32_t stream, uint8_t *buf, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
        struct call *call = source->ptr;
        size_t len = call->send_len - call->send_at;
        (void)session;
        (void)stream;
        (void)user;
        if (len > size)
                len = size;
        memcpy(buf, call->send + call->send_at, len);
        call->send_at += len;
        if (call->send_at == call->send_len)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)len;
}

static nghttp2_nv header(const char *name, const char *value)
{
        nghttp2_nv nv = {.flags = NGHTTP2_NV_FLAG_NONE};
        union {
                const char *in;
                uint8_t *out;
        } left = {name}, right = {value};
        nv.name = left.out;
        nv.namelen = strlen(name);
        nv.value = right.out;
        nv.valuelen = strlen(value);
        return nv;
}

/* Not while nghttp2 calls back: before the bytes of a turn leave. */
static void etcd_fill(struct load_conn *conn)
{
        const uint8_t *data;
        for (;;) {
                ssize_t len = nghttp2_session_mem_send(conn->door, &data);
                if (len < 0)
                        load_die("nghttp2: %s", nghttp2_strerror((int)len));
                if (len == 0)
                        return;
                load_write(conn, data, (size_t)len);
        }
}

static void call_send(struct load_client *client, const char *path, const struct message *message)
{
        struct call *call = calloc(1, sizeof *call);
        if (call == NULL)
                load_die("out of memory");
        call->client = client;
        uint32_t len = (uint32_t)message->len;
        uint8_t head[5] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                           (uint8_t)len};
        memcpy(call->send, head, sizeof head);
        if (len + sizeof head > sizeof call->send)
                load_die("a message is too long");
        memcpy(call->send + sizeof head, message->data, len);
        call->send_len = sizeof head + len;
        nghttp2_nv headers[] = {header(":method", "POST"),
                                header(":scheme", "http"),
                                header(":path", path),
                                header(":authority", "etcd"),
                                header("content-type", "application/grpc"),
                                header("te", "trailers")};
        nghttp2_data_provider provider = {.source.ptr = call, .read_callback = call_read};
        int32_t stream =
                nghttp2_submit_request(client->conn->door, NULL, headers,
                                       sizeof headers / sizeof headers[0], &provider, call);
        if (stream < 0)
                load_die("nghttp2: %s", nghttp2_strerror(stream));
        load_write(client->conn, "", 0);
}

static void lease_ask(struct load_client *client)
{
        struct message message = {.len = 0};
        put_number(&message, 1, TTL_S);
        call_send(client, "/etcdserverpb.Lease/LeaseGrant", &message);
}

static void etcd_ask(struct load_client *client)
{
        struct message message = {.len = 0};
        if (client->step == LOAD_SETUP) {
                lease_ask(client);
        } else if (client->step == LOAD_ACQUIRE) {
                put_bytes(&message, 1, client->key, strlen(client->key));
                put_number(&message, 2, client->token);
                call_send(client, "/v3lockpb.Lock/Lock", &message);
        } else {
                put_bytes(&message, 1, client->owned, client->owned_len);
                call_send(client, "/v3lockpb.Lock/Unlock", &message);
        }
}

static void txn_ask(struct load_client *client)
{
        struct message message = {.len = 0}, compare = {.len = 0}, put = {.len = 0},
                       op = {.len = 0};
        if (client->step == LOAD_SETUP) {
                lease_ask(client);
        } else if (client->step == LOAD_ACQUIRE) {
                put_number(&compare, 2, 1); /* created at */
                put_bytes(&compare, 3, client->key, strlen(client->key));
                put_number(&compare, 5, 0); /* never */
                put_bytes(&put, 1, client->key, strlen(client->key));
                put_bytes(&put, 2, "client", 6);
                put_number(&put, 3, client->token);
                put_message(&op, 2, &put);
                put_message(&message, 1, &compare);
                put_message(&message, 2, &op);
                call_send(client, "/etcdserverpb.KV/Txn", &message);
        } else {
                put_bytes(&message, 1, client->key, strlen(client->key));
                call_send(client, "/etcdserverpb.KV/DeleteRange", &message);
        }
}

static void values_ask(struct load_client *client)
{
        struct message message = {.len = 0};
        put_bytes(&message, 1, client->key, strlen(client->key));
        if (client->step == LOAD_ACQUIRE)
                put_bytes(&message, 2, "0123456789abcdef0123456789abcdef", 32);
        call_send(client,
                  client->step == LOAD_ACQUIRE ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range",
                  &message);
}

/* A value is put once, then read over and over; `stale`: as the asked node knows it. */
static void reads_ask(struct load_client *client, bool stale)
{
        struct message message = {.len = 0};
        put_bytes(&message, 1, client->key, strlen(client->key));
        if (client->step == LOAD_SETUP)
                put_bytes(&message, 2, "0123456789abcdef0123456789abcdef", 32);
        else if (stale)
                put_number(&message, 7, 1); /* serializable */
        call_send(client,
                  client->step == LOAD_SETUP ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range",
                  &message);
}

static void fresh_ask(struct load_client *client)
{
        reads_ask(client, false);
}

static void stale_ask(struct load_client *client)
{
        reads_ask(client, true);
}

static bool call_judge(struct call *call)
{
        struct load_client *client = call->client;
        uint64_t value = 0;
        const uint8_t *data = NULL;
        if (!call->good || call->came_len < 5)
                return false;
        if (client->step == LOAD_SETUP && load_door->ask != fresh_ask &&
            load_door->ask != stale_ask) {
                bool known = get_field(call, 2, &value, &data);
                client->token = value;
                return known;
        }
        if (load_door == &load_etcd && client->step == LOAD_ACQUIRE) {
                bool known = get_field(call, 2, &value, &data) && value <= sizeof client->owned;
                if (known)
                        memcpy(client->owned, data, value);
                client->owned_len = known ? value : 0;
                return known;
        }
        if (load_door == &load_etcd_txn)
                return get_field(call, 2, &value, &data) && value == 1;
        return true;
}

/* ---- what nghttp2 tells ---- */

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t len, void *user)
{
        struct call *call = nghttp2_session_get_stream_user_data(session, stream);
        (void)flags;
        (void)user;
        if (call == NULL || call->came_len + len > sizeof call->came)
                load_die("an answer is too long");
        memcpy(call->came + call->came_len, data, len);
        call->came_len += len;
        return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
        struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        (void)flags;
        (void)user;
        if (call != NULL && name_len == 11 && memcmp(name, "grpc-status", 11) == 0)
                call->good = value_len == 1 && value[0] == '0';
        return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
        struct call *call = nghttp2_session_get_stream_user_data(session, stream);
        (void)user;
        if (call == NULL)
                return 0;
        bool good = code == 0 && call_judge(call);
        struct load_client *client = call->client;
        free(call);
        load_answered(client, good);
        return 0;
}

static void etcd_open(struct load_conn *conn)
{
        nghttp2_session_callbacks *callbacks;
        nghttp2_session *session;
        if (nghttp2_session_callbacks_new(&callbacks) != 0)
                load_die("out of memory");
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
        if (nghttp2_session_client_new(&session, callbacks, conn) != 0)
                load_die("out of memory");
        nghttp2_session_callbacks_del(callbacks);
        conn->door = session;
        nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
        nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 1);
        load_write(conn, "", 0);
}

static void etcd_came(struct load_conn *conn, const uint8_t *data, size_t len)
{
        ssize_t used = nghttp2_session_mem_recv(conn->door, data, len);
        if (used < 0)
                load_die("nghttp2: %s", nghttp2_strerror((int)used));
        load_write(conn, "", 0);
}

const struct load_door load_etcd = {"etcd",    etcd_conns, etcd_open, etcd_ask,
                                    etcd_came, etcd_fill,  true};
const struct load_door load_etcd_txn = {"etcd-txn", etcd_conns, etcd_open, txn_ask,
                                        etcd_came,  etcd_fill,  true};
const struct load_door load_etcd_values = {"etcd-values", etcd_conns, etcd_open, values_ask,
                                           etcd_came,     etcd_fill,  false};
const struct load_door load_etcd_reads = {"etcd-reads", etcd_conns, etcd_open, fresh_ask,
                                          etcd_came,    etcd_fill,  true};
const struct load_door load_etcd_stale = {"etcd-stale", etcd_conns, etcd_open, stale_ask,
                                          etcd_came,    etcd_fill,  true};
