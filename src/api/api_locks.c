/* api_locks.c - the lock service's door: RESP over TCP.
 *
 * A client's bytes go through resp_read; each command either has its answer at once or becomes a
 * request to the node. Answers leave in the order of the commands: while an earlier one waits, a
 * later one rests in a slot of the client's queue.
 *
 *   bytes -> input -> command -> [slot, slot, slot] -> output -> sending -> bytes
 *
 * Bounds: a client that has API_PENDING_MAX slots or API_OUTPUT_MAX bytes of output is not read
 * from until it has less. A client that breaks the protocol gets its earlier answers, the error,
 * and is closed. One that leaves has its requests dropped. */
#include "api/api_priv.h"
#include "api/resp.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

#define INPUT_CHUNK ((size_t)16 * 1024)

struct client;

/* A command whose turn to be answered has not come. */
struct slot {
        struct slot *next;
        struct client *client; /* NULL: it has gone */
        uint64_t number;       /* of the request; 0: none waits */
        enum request_kind kind;
        enum api_form form;
        bool done;
        struct buffer reply;
};

struct client {
        uv_tcp_t tcp; /* first: handles are cast back */
        uv_write_t write;
        struct api_locks *locks;
        struct client *previous;
        struct client *next;
        uint64_t id;
        int protocol; /* 2 or 3 */
        char name[64];
        struct resp_reader reader;
        struct buffer input;
        struct buffer output;
        struct buffer sending;
        struct slot *slots;
        struct slot **slots_end;
        size_t slot_count;
        bool reading;
        bool writing;
        bool stepping; /* in client_step: answers wait for its end */
        bool last;     /* nothing more is read; close when all is answered */
        bool closing;
};

struct api_locks {
        uv_tcp_t server; /* first */
        struct api *api;
        struct client *clients;
        size_t client_count;
        uint64_t client_id;
        struct api_scripts scripts;
        bool closing;
        bool server_closed;
};

static void client_step(struct client *client);
static void client_close(struct client *client);

/* ---- answers ---- */

/* Adds a place to the end of the queue, done for now; NULL where memory ran out: the client is then
 * closed after what it has. */
static struct slot *slot_add(struct client *client)
{
        struct slot *slot = heap_alloc(&client->locks->api->heap, sizeof *slot);
        if (slot == NULL) {
                client->last = true;
                return NULL;
        }
        buffer_init(&slot->reply, &client->locks->api->heap);
        slot->client = client;
        slot->done = true;
        *client->slots_end = slot;
        client->slots_end = &slot->next;
        client->slot_count++;
        return slot;
}

/* Where an answer at once goes: to the output when nothing waits before it. NULL as above. */
static struct buffer *reply_begin(struct client *client)
{
        if (client->slots == NULL)
                return &client->output;
        struct slot *slot = slot_add(client);
        return slot == NULL ? NULL : &slot->reply;
}

static void slot_free(struct client *client, struct slot *slot)
{
        buffer_fini(&slot->reply);
        heap_free(&client->locks->api->heap, slot);
}

/* Moves answers whose turn has come to the output. */
static void slots_flush(struct client *client)
{
        while (client->slots != NULL && client->slots->done) {
                struct slot *slot = client->slots;
                client->slots = slot->next;
                if (client->slots == NULL)
                        client->slots_end = &client->slots;
                client->slot_count--;
                buffer_bytes(&client->output, buffer_view(&slot->reply));
                slot_free(client, slot);
        }
}

static void write_done(uv_write_t *write, int status)
{
        struct client *client = (struct client *)write->handle;
        client->writing = false;
        buffer_reset(&client->sending);
        if (client->closing)
                return;
        if (status < 0)
                client_close(client);
        else
                client_step(client);
}

static void output_send(struct client *client)
{
        if (client->output.err != ERR_NONE) {
                client_close(client);
                return;
        }
        if (client->writing || client->output.len == 0)
                return;
        struct buffer empty = client->sending;
        client->sending = client->output;
        client->output = empty;
        uv_buf_t buf = uv_buf_init((char *)client->sending.ptr, (unsigned)client->sending.len);
        client->writing =
                uv_write(&client->write, (uv_stream_t *)&client->tcp, &buf, 1, write_done) == 0;
        if (!client->writing)
                client_close(client);
}

static void write_info(struct buffer *out, int protocol, const struct reply_lock *lock)
{
        resp_write_map(out, protocol, 5);
        resp_write_bulk(out, BYTES("key"));
        resp_write_bulk(out, lock->key);
        resp_write_bulk(out, BYTES("owner"));
        resp_write_bulk(out, lock->owner);
        resp_write_bulk(out, BYTES("token"));
        resp_write_integer(out, lock->token);
        resp_write_bulk(out, BYTES("ttl_ms"));
        resp_write_integer(out, lock->ttl_ms);
        resp_write_bulk(out, BYTES("waiters"));
        resp_write_integer(out, lock->waiters);
}

static void write_done_reply(struct buffer *out, int protocol, const struct reply *reply)
{
        switch (reply->kind) {
        case REQUEST_LOCK_ACQUIRE:
        case REQUEST_SESSION_OPEN:
                resp_write_array(out, 2);
                resp_write_integer(out, reply->lock.token);
                resp_write_integer(out, reply->lock.ttl_ms);
                return;
        case REQUEST_LOCK_RENEW:
        case REQUEST_SESSION_KEEP:
                resp_write_integer(out, reply->lock.ttl_ms);
                return;
        case REQUEST_LOCK_SEIZE:
                resp_write_integer(out, reply->lock.token);
                return;
        case REQUEST_LOCK_RELEASE:
        case REQUEST_LOCK_BREAK:
        case REQUEST_LOCK_LOOK:
        case REQUEST_SESSION_CLOSE:
                resp_write_integer(out, 1);
                return;
        case REQUEST_LOCK_INFO:
                write_info(out, protocol, &reply->lock);
                return;
        case REQUEST_LOCK_LIST:
                resp_write_array(out, reply->list.count);
                for (size_t i = 0; i < reply->list.count; i++)
                        write_info(out, protocol, &reply->list.items[i]);
                return;
        case REQUEST_TOPOLOGY_GET:
        case REQUEST_TOPOLOGY_APPLY:
        case REQUEST_REGION:
        case REQUEST_POSTGRES:
        case REQUEST_KIND_COUNT:
                break;
        }
        resp_write_error(out, "INTERNAL the node answered another question");
}

/* What a refusal is in RESP: nil and 0 are answers, the rest are errors that
 * begin with their word. */
static void write_reply(struct buffer *out, int protocol, enum request_kind asked,
                        const struct reply *reply)
{
        enum reply_code code = reply->code;
        bool none = (asked == REQUEST_LOCK_ACQUIRE && code == REPLY_HELD) ||
                    (asked == REQUEST_LOCK_INFO && code == REPLY_NOT_FOUND);
        bool not_released = (asked == REQUEST_LOCK_RELEASE || asked == REQUEST_LOCK_BREAK ||
                             asked == REQUEST_LOCK_SEIZE || asked == REQUEST_LOCK_LOOK) &&
                            (code == REPLY_NOT_OWNER || code == REPLY_NOT_FOUND);
        if (code == REPLY_OK && reply->kind == asked)
                write_done_reply(out, protocol, reply);
        else if (none)
                resp_write_null(out, protocol);
        else if (not_released)
                resp_write_integer(out, 0);
        else
                resp_write_error(out, "%s %.*s",
                                 code == REPLY_OK ? "INTERNAL" : reply_code_word(code),
                                 BYTES_ARGS(reply->text));
}

static void slot_answer(void *who, const struct reply *reply)
{
        struct slot *slot = who;
        struct client *client = slot->client;
        slot->number = 0;
        slot->done = true;
        if (!api_redis_write(&slot->reply, client->protocol, slot->form, reply))
                write_reply(&slot->reply, client->protocol, slot->kind, reply);
        if (slot->reply.err != ERR_NONE)
                client->last = true;
        if (!client->stepping)
                client_step(client);
}

/* ---- commands ---- */

struct command {
        struct client *client;
        struct bytes input;
        const struct resp_reader *reader;
        struct buffer *out; /* for those that answer at once */
        enum api_form form; /* of the answer to come */
};

static struct bytes arg(const struct command *command, size_t index)
{
        return resp_arg(command->reader, command->input, index);
}

static size_t arg_count(const struct command *command)
{
        return command->reader->arg_count;
}

static bool arg_number(const struct command *command, size_t index, const char *what,
                       uint64_t *ret_value)
{
        if (resp_number(arg(command, index), UINT64_MAX >> 1, ret_value))
                return true;
        resp_write_error(command->out, "ERR %s is not a number in range: write it in digits", what);
        return false;
}

struct command_row;

#define ACQUIRE_USAGE                                                                              \
        "key owner ttl-ms [WAIT ms] [SHARED | SLOTS n] [DELAY ms] [SESSION id] [DETECT] [FRESH]"

/* Fills a request from the arguments; false when the error has been written. */
typedef bool command_request(struct command *command, struct request *request);
typedef void command_answer(const struct command *command);

struct command_row {
        const char *name;
        int args_min; /* the name included */
        int args_max;
        const char *usage;
        enum request_kind kind; /* of a request to the node, else REQUEST_KIND_COUNT */
        command_request *request;
        command_answer *answer;
};

/* One option of LOCK.ACQUIRE, whose number is the argument after it. */
static bool acquire_option(struct command *command, size_t *at, struct request *request)
{
        const char *what;
        uint64_t slots = request->lock.slots;
        uint64_t *value = NULL;
        struct bytes name = arg(command, *at);
        if (resp_is(name, "SHARED")) {
                request->lock.slots = LOCK_SHARED;
                return true;
        }
        if (resp_is(name, "FRESH") || resp_is(name, "DETECT")) {
                request->lock.flags |= resp_is(name, "FRESH") ? LOCK_FRESH : LOCK_DETECT;
                return true;
        }
        if (resp_is(name, "WAIT")) {
                what = "the time to wait";
                value = &request->lock.wait_ms;
        } else if (resp_is(name, "DELAY")) {
                what = "the delay after an expiry";
                value = &request->lock.delay_ms;
        } else if (resp_is(name, "SESSION")) {
                what = "the session";
                value = &request->lock.session;
        } else if (resp_is(name, "SLOTS")) {
                what = "the number of slots";
                value = &slots;
        }
        if (value == NULL || *at + 1 >= arg_count(command)) {
                resp_write_error(command->out, "ERR syntax: LOCK.ACQUIRE " ACQUIRE_USAGE);
                return false;
        }
        *at += 1;
        if (!arg_number(command, *at, what, value))
                return false;
        if (value == &slots && (slots == 0 || slots > LOCK_SLOTS_MAX)) {
                resp_write_error(command->out, "ERR a semaphore has 1 to %d slots",
                                 (int)LOCK_SLOTS_MAX);
                return false;
        }
        request->lock.slots = (uint32_t)slots;
        return true;
}

static bool request_acquire(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.owner = arg(command, 2);
        if (!arg_number(command, 3, "the time to live", &request->lock.ttl_ms))
                return false;
        for (size_t i = 4; i < arg_count(command); i++)
                if (!acquire_option(command, &i, request))
                        return false;
        return true;
}

static bool request_renew(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.owner = arg(command, 2);
        return arg_number(command, 3, "the token", &request->lock.token) &&
               arg_number(command, 4, "the time to live", &request->lock.ttl_ms);
}

static bool request_release(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.owner = arg(command, 2);
        return arg_number(command, 3, "the token", &request->lock.token);
}

static bool request_info(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        return true;
}

static bool request_list(struct command *command, struct request *request)
{
        request->list.key = arg(command, 1);
        request->list.limit = 100;
        if (arg_count(command) > 2 &&
            !arg_number(command, 2, "the token to begin after", &request->list.after))
                return false;
        return arg_count(command) < 4 || arg_number(command, 3, "the limit", &request->list.limit);
}

static bool request_check(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        if (!arg_number(command, 2, "the token", &request->lock.token))
                return false;
        if (request->lock.token != 0)
                return true;
        resp_write_error(command->out, "ERR no token is 0");
        return false;
}

static bool request_break(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.actor = arg(command, 2);
        return true;
}

static bool request_open(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.owner = arg(command, 2);
        return arg_number(command, 3, "the time to live", &request->lock.ttl_ms);
}

static bool request_session(struct command *command, struct request *request)
{
        request->lock.key = arg(command, 1);
        request->lock.owner = arg(command, 2);
        return arg_number(command, 3, "the session", &request->lock.session);
}

static struct api_idiom idiom_of(const struct command *command, struct request *request)
{
        return (struct api_idiom){
                .reader = command->reader,
                .input = command->input,
                .out = command->out,
                .scripts = &command->client->locks->scripts,
                .request = request,
        };
}

static bool request_idiom(struct command *command, struct request *request,
                          bool (*fill)(struct api_idiom *idiom))
{
        struct api_idiom idiom = idiom_of(command, request);
        bool filled = fill(&idiom);
        command->form = idiom.form;
        return filled;
}

static bool request_set(struct command *command, struct request *request)
{
        return request_idiom(command, request, api_redis_set);
}

static bool request_get(struct command *command, struct request *request)
{
        return request_idiom(command, request, api_redis_get);
}

static bool request_eval(struct command *command, struct request *request)
{
        return request_idiom(command, request, api_redis_eval);
}

static bool request_evalsha(struct command *command, struct request *request)
{
        return request_idiom(command, request, api_redis_evalsha);
}

static void answer_script(const struct command *command)
{
        struct api_idiom idiom = idiom_of(command, NULL);
        api_redis_script(&idiom);
}

static void answer_ping(const struct command *command)
{
        if (arg_count(command) == 1)
                resp_write_simple(command->out, "PONG");
        else
                resp_write_bulk(command->out, arg(command, 1));
}

static void answer_echo(const struct command *command)
{
        resp_write_bulk(command->out, arg(command, 1));
}

static void answer_quit(const struct command *command)
{
        resp_write_simple(command->out, "OK");
        command->client->last = true;
}

static void answer_auth(const struct command *command)
{
        resp_write_error(command->out,
                         "ERR no password is set for this port: connect without AUTH");
}

static void answer_select(const struct command *command)
{
        if (bytes_equal(arg(command, 1), BYTES("0")))
                resp_write_simple(command->out, "OK");
        else
                resp_write_error(command->out, "ERR there is only database 0 here");
}

static void answer_reset(const struct command *command)
{
        command->client->protocol = 2;
        command->client->name[0] = '\0';
        resp_write_simple(command->out, "RESET");
}

static void name_set(struct client *client, struct bytes name)
{
        snprintf(client->name, sizeof client->name, "%.*s", BYTES_ARGS(name));
}

static void write_hello(const struct command *command)
{
        struct buffer *out = command->out;
        int protocol = command->client->protocol;
        resp_write_map(out, protocol, 7);
        resp_write_bulk(out, BYTES("server"));
        resp_write_bulk(out, BYTES("meridian"));
        resp_write_bulk(out, BYTES("version"));
        resp_write_bulk(out, BYTES(MERIDIAN_VERSION));
        resp_write_bulk(out, BYTES("proto"));
        resp_write_integer(out, (uint64_t)protocol);
        resp_write_bulk(out, BYTES("id"));
        resp_write_integer(out, command->client->id);
        resp_write_bulk(out, BYTES("mode"));
        resp_write_bulk(out, BYTES("standalone"));
        resp_write_bulk(out, BYTES("role"));
        resp_write_bulk(out, BYTES("master"));
        resp_write_bulk(out, BYTES("modules"));
        resp_write_array(out, 0);
}

static void answer_hello(const struct command *command)
{
        uint64_t version = (uint64_t)command->client->protocol;
        struct bytes name = {0};
        if (arg_count(command) > 1 &&
            (!resp_number(arg(command, 1), 99, &version) || version < 2 || version > 3)) {
                resp_write_error(command->out, "NOPROTO unsupported protocol version: 2 and 3 are");
                return;
        }
        for (size_t i = 2; i < arg_count(command);) {
                if (resp_is(arg(command, i), "SETNAME") && i + 1 < arg_count(command)) {
                        name = arg(command, i + 1);
                        i += 2;
                } else if (resp_is(arg(command, i), "AUTH")) {
                        answer_auth(command);
                        return;
                } else {
                        resp_write_error(command->out, "ERR syntax: HELLO [2|3 [SETNAME name]]");
                        return;
                }
        }
        command->client->protocol = (int)version;
        if (name.len > 0)
                name_set(command->client, name);
        write_hello(command);
}

static void answer_client(const struct command *command)
{
        struct bytes what = arg(command, 1);
        struct client *client = command->client;
        if (resp_is(what, "ID")) {
                resp_write_integer(command->out, client->id);
        } else if (resp_is(what, "GETNAME")) {
                resp_write_bulk(command->out, bytes_of_str(client->name));
        } else if (resp_is(what, "SETNAME") && arg_count(command) == 3) {
                name_set(client, arg(command, 2));
                resp_write_simple(command->out, "OK");
        } else if ((resp_is(what, "SETINFO") && arg_count(command) == 4) ||
                   resp_is(what, "NO-EVICT") || resp_is(what, "NO-TOUCH")) {
                resp_write_simple(command->out, "OK");
        } else if (resp_is(what, "INFO") || resp_is(what, "LIST")) {
                char text[160];
                snprintf(text, sizeof text, "id=%llu name=%s resp=%d\n",
                         (unsigned long long)client->id, client->name, client->protocol);
                resp_write_bulk(command->out, bytes_of_str(text));
        } else {
                resp_write_error(command->out, "ERR unknown or wrong CLIENT sub-command '%.*s'",
                                 BYTES_ARGS(what));
        }
}

static void answer_info(const struct command *command)
{
        char text[512];
        const struct api_locks *locks = command->client->locks;
        snprintf(text, sizeof text,
                 "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n"
                 "meridian_version:%s\r\nloading:0\r\n# Clients\r\nconnected_clients:%zu\r\n"
                 "# Replication\r\nrole:master\r\n",
                 MERIDIAN_VERSION, locks->client_count);
        resp_write_bulk(command->out, bytes_of_str(text));
}

static void answer_command(const struct command *command);

static const struct command_row command_rows[] = {
        {"LOCK.ACQUIRE", 4, 16, ACQUIRE_USAGE, REQUEST_LOCK_ACQUIRE, request_acquire, NULL},
        {"LOCK.RENEW", 5, 5, "key owner token ttl-ms", REQUEST_LOCK_RENEW, request_renew, NULL},
        {"LOCK.RELEASE", 4, 4, "key owner token", REQUEST_LOCK_RELEASE, request_release, NULL},
        {"LOCK.INFO", 2, 2, "key", REQUEST_LOCK_INFO, request_info, NULL},
        {"LOCK.LIST", 2, 4, "prefix [after-token [limit]]", REQUEST_LOCK_LIST, request_list, NULL},
        {"LOCK.CHECK", 3, 3, "key token", REQUEST_LOCK_LOOK, request_check, NULL},
        {"LOCK.BREAK", 3, 3, "key who", REQUEST_LOCK_SEIZE, request_break, NULL},
        {"SESSION.OPEN", 4, 4, "prefix owner ttl-ms", REQUEST_SESSION_OPEN, request_open, NULL},
        {"SESSION.KEEP", 4, 4, "prefix owner session", REQUEST_SESSION_KEEP, request_session, NULL},
        {"SESSION.CLOSE", 4, 4, "prefix owner session", REQUEST_SESSION_CLOSE, request_session,
         NULL},
        {"SET", 3, 8, "key value NX PX ms", REQUEST_LOCK_ACQUIRE, request_set, NULL},
        {"GET", 2, 2, "key", REQUEST_LOCK_LOOK, request_get, NULL},
        {"EVAL", 4, 7, "script 1 key owner [ttl-ms [0|1]]", REQUEST_LOCK_RELEASE, request_eval,
         NULL},
        {"EVALSHA", 4, 7, "digest 1 key owner [ttl-ms [0|1]]", REQUEST_LOCK_RELEASE,
         request_evalsha, NULL},
        {"SCRIPT", 2, RESP_ARGS_MAX, "LOAD script | EXISTS digest | FLUSH", REQUEST_KIND_COUNT,
         NULL, answer_script},
        {"PING", 1, 2, "[text]", REQUEST_KIND_COUNT, NULL, answer_ping},
        {"ECHO", 2, 2, "text", REQUEST_KIND_COUNT, NULL, answer_echo},
        {"HELLO", 1, RESP_ARGS_MAX, "[2|3 [SETNAME name]]", REQUEST_KIND_COUNT, NULL, answer_hello},
        {"CLIENT", 2, RESP_ARGS_MAX, "sub-command", REQUEST_KIND_COUNT, NULL, answer_client},
        {"COMMAND", 1, RESP_ARGS_MAX, "[COUNT|DOCS]", REQUEST_KIND_COUNT, NULL, answer_command},
        {"INFO", 1, RESP_ARGS_MAX, "[section]", REQUEST_KIND_COUNT, NULL, answer_info},
        {"SELECT", 2, 2, "0", REQUEST_KIND_COUNT, NULL, answer_select},
        {"AUTH", 2, 3, "password", REQUEST_KIND_COUNT, NULL, answer_auth},
        {"RESET", 1, 1, "", REQUEST_KIND_COUNT, NULL, answer_reset},
        {"QUIT", 1, 1, "", REQUEST_KIND_COUNT, NULL, answer_quit},
};

static void answer_command(const struct command *command)
{
        struct buffer *out = command->out;
        if (arg_count(command) > 1 && resp_is(arg(command, 1), "COUNT")) {
                resp_write_integer(out, COUNT_OF(command_rows));
                return;
        }
        if (arg_count(command) > 1 && resp_is(arg(command, 1), "DOCS")) {
                resp_write_map(out, command->client->protocol, 0);
                return;
        }
        if (arg_count(command) > 1) {
                resp_write_error(out, "ERR unknown COMMAND sub-command '%.*s'",
                                 BYTES_ARGS(arg(command, 1)));
                return;
        }
        resp_write_array(out, COUNT_OF(command_rows));
        for (size_t i = 0; i < COUNT_OF(command_rows); i++) {
                const struct command_row *row = &command_rows[i];
                bool fixed = row->args_min == row->args_max;
                resp_write_array(out, 6);
                resp_write_bulk(out, bytes_of_str(row->name));
                buffer_format(out, ":%d\r\n", fixed ? row->args_min : -row->args_min);
                resp_write_array(out, 0);
                resp_write_integer(out, 0);
                resp_write_integer(out, 0);
                resp_write_integer(out, 0);
        }
}

static const struct command_row *command_find(struct bytes name)
{
        for (size_t i = 0; i < COUNT_OF(command_rows); i++) {
                if (resp_is(name, command_rows[i].name))
                        return &command_rows[i];
        }
        return NULL;
}

/* Hands a lock request to the node; its slot stays in the queue until the answer. */
static void command_ask(struct command *command, const struct command_row *row, struct slot *slot)
{
        struct request request = {.kind = row->kind};
        struct api *api = command->client->locks->api;
        if (!row->request(command, &request))
                return;
        slot->kind = request.kind;
        slot->form = command->form;
        slot->done = false;
        struct api_waiter waiter = {slot, slot_answer};
        if (api_ask(api, &request, waiter, &slot->number) == 0) {
                slot->done = true;
                resp_write_error(&slot->reply, "LIMIT too many requests wait: try again");
        }
}

static void command_run(struct client *client, struct bytes input)
{
        struct slot *slot = NULL;
        struct command command = {
                .client = client, .input = input, .reader = &client->reader, .form = API_FORM_LOCK};
        if (client->reader.arg_count == 0)
                return;
        struct bytes name = arg(&command, 0);
        const struct command_row *row = command_find(name);
        client->locks->api->lock_commands++;
        int count = (int)client->reader.arg_count;
        bool fits = row != NULL && count >= row->args_min && count <= row->args_max;
        if (fits && row->request != NULL) {
                slot = slot_add(client);
                command.out = slot == NULL ? NULL : &slot->reply;
        } else {
                command.out = reply_begin(client);
        }
        if (command.out == NULL)
                return;
        if (row == NULL)
                resp_write_error(command.out, "ERR unknown command '%.*s'",
                                 (int)(name.len < 64 ? name.len : 64), (const char *)name.ptr);
        else if (!fits)
                resp_write_error(command.out, "ERR wrong number of arguments: %s %s", row->name,
                                 row->usage);
        else if (slot != NULL)
                command_ask(&command, row, slot);
        else
                row->answer(&command);
}

/* A web page that makes a browser send HTTP here must not get a command through in the body. */
static bool is_http(const struct client *client, struct bytes input)
{
        if (client->reader.arg_count == 0 || input.ptr[0] == '*')
                return false;
        struct bytes name = resp_arg(&client->reader, input, 0);
        return resp_is(name, "POST") || resp_is(name, "HOST:") || resp_is(name, "GET");
}

static void protocol_error(struct client *client, const char *text)
{
        struct buffer *out = reply_begin(client);
        if (out != NULL)
                resp_write_error(out, "ERR %s", text);
        client->last = true;
}

static bool client_full(const struct client *client)
{
        return client->slot_count >= API_PENDING_MAX ||
               client->output.len + client->sending.len >= API_OUTPUT_MAX;
}

static void commands_take(struct client *client)
{
        size_t used = 0;
        while (!client->last && !client_full(client)) {
                struct bytes rest = bytes_of(client->input.ptr + used, client->input.len - used);
                if (rest.len == 0)
                        break;
                enum resp_result result = resp_read(&client->reader, rest);
                if (result == RESP_MORE)
                        break;
                if (result == RESP_INVALID || is_http(client, rest)) {
                        protocol_error(client, result == RESP_INVALID
                                                       ? client->reader.error
                                                       : "this port speaks RESP, not HTTP");
                        break;
                }
                command_run(client, rest);
                used += client->reader.at;
                resp_reader_reset(&client->reader);
                slots_flush(client);
        }
        buffer_consume(&client->input, used);
}

static void input_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
        struct client *client = (struct client *)handle;
        uint8_t *room = buffer_reserve(&client->input, INPUT_CHUNK);
        (void)size;
        *buf = uv_buf_init((char *)room, room == NULL ? 0 : (unsigned)INPUT_CHUNK);
}

static void input_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
        struct client *client = (struct client *)stream;
        (void)buf;
        if (len < 0) {
                client_close(client);
                return;
        }
        buffer_commit(&client->input, (size_t)len);
        client_step(client);
}

/* Everything that may go on does: commands, answers, output, reading. */
static void client_step(struct client *client)
{
        if (client->stepping || client->closing)
                return;
        client->stepping = true;
        slots_flush(client);
        commands_take(client);
        slots_flush(client);
        client->stepping = false;
        output_send(client);
        if (client->closing)
                return;
        if (client->last && client->slots == NULL && !client->writing) {
                client_close(client);
                return;
        }
        bool wanted = !client->last && !client_full(client);
        if (wanted && !client->reading)
                wanted = uv_read_start((uv_stream_t *)&client->tcp, input_alloc, input_read) == 0;
        if (!wanted && client->reading)
                uv_read_stop((uv_stream_t *)&client->tcp);
        client->reading = wanted;
}

/* ---- the life of a client and of the door ---- */

static void locks_finish(struct api_locks *locks)
{
        if (!locks->closing || !locks->server_closed || locks->clients != NULL)
                return;
        struct api *api = locks->api;
        free(locks);
        api_door_closed(api);
}

static void client_closed(uv_handle_t *handle)
{
        struct client *client = (struct client *)handle;
        struct api_locks *locks = client->locks;
        if (client->previous == NULL)
                locks->clients = client->next;
        else
                client->previous->next = client->next;
        if (client->next != NULL)
                client->next->previous = client->previous;
        buffer_fini(&client->input);
        buffer_fini(&client->output);
        buffer_fini(&client->sending);
        heap_free(&locks->api->heap, client);
        locks->client_count--;
        locks_finish(locks);
}

static void client_close(struct client *client)
{
        struct api *api = client->locks->api;
        if (client->closing)
                return;
        client->closing = true;
        while (client->slots != NULL) {
                struct slot *slot = client->slots;
                client->slots = slot->next;
                if (slot->number != 0 && !client->locks->closing)
                        api_drop(api, slot->number);
                slot_free(client, slot);
        }
        uv_close((uv_handle_t *)&client->tcp, client_closed);
}

static void refuse_closed(uv_handle_t *handle)
{
        free(handle);
}

/* Over the limit: accepted and closed, so that it does not stay in the backlog. */
static void client_refuse(uv_stream_t *server)
{
        uv_tcp_t *tcp = calloc(1, sizeof *tcp);
        if (tcp == NULL)
                return;
        uv_tcp_init(server->loop, tcp);
        if (uv_accept(server, (uv_stream_t *)tcp) == 0) {
                char text[] = "-LIMIT too many clients: try again later\r\n";
                uv_buf_t buf = uv_buf_init(text, sizeof text - 1);
                (void)uv_try_write((uv_stream_t *)tcp, &buf, 1);
        }
        uv_close((uv_handle_t *)tcp, refuse_closed);
}

static void client_accept(uv_stream_t *server, int status)
{
        struct api_locks *locks = (struct api_locks *)server;
        struct api *api = locks->api;
        if (status < 0 || locks->closing)
                return;
        struct client *client = locks->client_count >= API_CLIENTS_MAX
                                        ? NULL
                                        : heap_alloc(&api->heap, sizeof *client);
        if (client == NULL) {
                client_refuse(server);
                return;
        }
        uv_tcp_init(server->loop, &client->tcp);
        client->locks = locks;
        client->id = ++locks->client_id;
        client->protocol = 2;
        client->slots_end = &client->slots;
        buffer_init(&client->input, &api->heap);
        buffer_init(&client->output, &api->heap);
        buffer_init(&client->sending, &api->heap);
        client->next = locks->clients;
        if (locks->clients != NULL)
                locks->clients->previous = client;
        locks->clients = client;
        locks->client_count++;
        api->lock_clients++;
        if (uv_accept(server, (uv_stream_t *)&client->tcp) != 0) {
                client_close(client);
                return;
        }
        uv_tcp_nodelay(&client->tcp, 1);
        uv_tcp_keepalive(&client->tcp, 1, 60);
        client_step(client);
}

static enum err locks_listen(struct api_locks *locks, const char *host, uint16_t port, char *why,
                             size_t why_size)
{
        struct sockaddr_storage name = {0};
        int err = uv_ip4_addr(host, port, (struct sockaddr_in *)&name);
        if (err != 0)
                err = uv_ip6_addr(host, port, (struct sockaddr_in6 *)&name);
        if (err == 0)
                err = uv_tcp_bind(&locks->server, (const struct sockaddr *)&name, 0);
        if (err == 0)
                err = uv_listen((uv_stream_t *)&locks->server, 511, client_accept);
        if (err == 0)
                return ERR_NONE;
        snprintf(why, why_size, "locks: cannot listen on %s port %u: %s%s", host, port,
                 uv_strerror(err),
                 err == UV_EADDRINUSE ? "; end what uses it, or set another one" : "");
        return err == UV_EADDRINUSE ? ERR_EXISTS : ERR_IO;
}

static void failed_closed(uv_handle_t *handle)
{
        free(handle);
}

enum err api_locks_new(struct api *api, const char *host, uint16_t port,
                       struct api_locks **ret_locks, char *why, size_t why_size)
{
        struct api_locks *locks = calloc(1, sizeof *locks);
        if (locks == NULL)
                return ERR_NOMEM;
        locks->api = api;
        uv_tcp_init(api->loop, &locks->server);
        enum err err = locks_listen(locks, host, port, why, why_size);
        if (err != ERR_NONE) {
                uv_close((uv_handle_t *)&locks->server, failed_closed);
                return err;
        }
        *ret_locks = locks;
        return ERR_NONE;
}

uint16_t api_locks_bound(const struct api_locks *locks)
{
        struct sockaddr_storage name = {0};
        int len = sizeof name;
        if (uv_tcp_getsockname(&locks->server, (struct sockaddr *)&name, &len) != 0)
                return 0;
        if (name.ss_family == AF_INET6)
                return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
        return ntohs(((struct sockaddr_in *)&name)->sin_port);
}

static void server_closed(uv_handle_t *handle)
{
        struct api_locks *locks = (struct api_locks *)handle;
        locks->server_closed = true;
        locks_finish(locks);
}

void api_locks_close(struct api_locks *locks)
{
        locks->closing = true;
        for (struct client *client = locks->clients; client != NULL; client = client->next)
                client_close(client);
        uv_close((uv_handle_t *)&locks->server, server_closed);
}
