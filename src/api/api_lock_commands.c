/* api_lock_commands.c - the commands of the lock service's door, a row each. One either has its
 * answer at once or becomes a request to the node; what cannot be read is answered with a sentence.
 * */
#include "api/api_door.h"

struct bytes command_arg(const struct command *command, size_t index)
{
        return resp_arg(command->reader, command->input, index);
}

size_t command_args(const struct command *command)
{
        return command->reader->arg_count;
}

bool command_number(const struct command *command, size_t index, const char *what,
                    uint64_t *ret_value)
{
        if (resp_number(command_arg(command, index), UINT64_MAX >> 1, ret_value))
                return true;
        resp_write_error(command->out, "ERR %s is not a number in range: write it in digits", what);
        return false;
}

#define WATCH_USAGE "key [PREFIX] [COPY] [AFTER revision] [WAIT ms]"
#define ACQUIRE_USAGE                                                                              \
        "key owner ttl-ms [WAIT ms] [SHARED | SLOTS n] [DELAY ms] [SESSION id] [DETECT] [FRESH] "  \
        "[ALSO key]..."

/* One option of LOCK.ACQUIRE, whose number is the argument after it. */
static bool acquire_option(struct command *command, size_t *at, struct request *request)
{
        const char *what;
        uint64_t slots = request->lock.slots;
        uint64_t *value = NULL;
        struct bytes name = command_arg(command, *at);
        if ((resp_is(name, "SHARED") || resp_is(name, "SLOTS")) && slots != 0) {
                resp_write_error(command->out, "ERR SHARED or SLOTS, and once");
                return false;
        }
        if (resp_is(name, "SHARED")) {
                request->lock.slots = LOCK_SHARED;
                return true;
        }
        if (resp_is(name, "FRESH") || resp_is(name, "DETECT")) {
                request->lock.flags |= resp_is(name, "FRESH") ? LOCK_FRESH : LOCK_DETECT;
                return true;
        }
        if (resp_is(name, "ALSO") && *at + 1 < command_args(command)) {
                *at += 1;
                buffer_slice(&command->client->locks->api->txn, command_arg(command, *at));
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
        if (value == NULL || *at + 1 >= command_args(command)) {
                resp_write_error(command->out, "ERR syntax: LOCK.ACQUIRE " ACQUIRE_USAGE);
                return false;
        }
        *at += 1;
        if (!command_number(command, *at, what, value))
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
        request->lock.key = command_arg(command, 1);
        request->lock.owner = command_arg(command, 2);
        if (!command_number(command, 3, "the time to live", &request->lock.ttl_ms))
                return false;
        struct buffer *also = &command->client->locks->api->txn;
        buffer_reset(also);
        for (size_t i = 4; i < command_args(command); i++)
                if (!acquire_option(command, &i, request))
                        return false;
        request->lock.also = buffer_view(also);
        if (also->err != ERR_NONE)
                resp_write_error(command->out, "LIMIT this node is out of memory");
        return also->err == ERR_NONE;
}

static bool request_renew(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.owner = command_arg(command, 2);
        return command_number(command, 3, "the token", &request->lock.token) &&
               command_number(command, 4, "the time to live", &request->lock.ttl_ms);
}

static bool request_release(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.owner = command_arg(command, 2);
        return command_number(command, 3, "the token", &request->lock.token);
}

static bool request_info(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        return true;
}

static bool request_list(struct command *command, struct request *request)
{
        request->list.key = command_arg(command, 1);
        request->list.limit = 100;
        if (command_args(command) > 2 &&
            !command_number(command, 2, "the token to begin after", &request->list.after))
                return false;
        return command_args(command) < 4 ||
               command_number(command, 3, "the limit", &request->list.limit);
}

static bool request_watch(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.token = REQUEST_WATCH_NOW;
        for (size_t i = 2; i < command_args(command); i++) {
                struct bytes name = command_arg(command, i);
                bool after = resp_is(name, "AFTER");
                if (resp_is(name, "PREFIX")) {
                        request->lock.flags |= REQUEST_WATCH_PREFIX;
                } else if (resp_is(name, "COPY")) {
                        request->lock.flags |= REQUEST_WATCH_COPY;
                } else if ((after || resp_is(name, "WAIT")) && i + 1 < command_args(command)) {
                        i++;
                        if (!command_number(command, i, after ? "the revision" : "the time to wait",
                                            after ? &request->lock.token : &request->lock.wait_ms))
                                return false;
                } else {
                        resp_write_error(command->out, "ERR syntax: LOCK.WATCH " WATCH_USAGE);
                        return false;
                }
        }
        return true;
}

static bool request_check(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        if (!command_number(command, 2, "the token", &request->lock.token))
                return false;
        if (request->lock.token != 0)
                return true;
        resp_write_error(command->out, "ERR no token is 0");
        return false;
}

static bool request_break(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.actor = command_arg(command, 2);
        if (request->lock.actor.len > 0 && request->lock.actor.len <= REQUEST_NAME_BYTES_MAX)
                return true;
        resp_write_error(command->out,
                         "ERR who breaks it has a name of 1 to %d bytes, for the audit",
                         (int)REQUEST_NAME_BYTES_MAX);
        return false;
}

static bool request_open(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.owner = command_arg(command, 2);
        return command_number(command, 3, "the time to live", &request->lock.ttl_ms);
}

static bool request_session(struct command *command, struct request *request)
{
        request->lock.key = command_arg(command, 1);
        request->lock.owner = command_arg(command, 2);
        return command_number(command, 3, "the session", &request->lock.session);
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

static bool request_kv(struct command *command, struct request *request)
{
        const struct client *client = command->client;
        struct api_kv kv = {
                .reader = command->reader,
                .input = command->input,
                .actor = bytes_of_str(client->name[0] == '\0' ? "resp" : client->name),
                .out = command->out,
                .txn = &client->locks->api->txn,
                .request = request,
        };
        if (kv.actor.len > REQUEST_NAME_BYTES_MAX)
                kv.actor.len = REQUEST_NAME_BYTES_MAX;
        bool filled = api_kv_request(&kv);
        command->form = kv.form;
        return filled;
}

static void answer_script(const struct command *command)
{
        struct api_idiom idiom = idiom_of(command, NULL);
        api_redis_script(&idiom);
}

static void answer_command(const struct command *command);

#define KV_WRITE_USAGE " [SESSION id OWNER name] [ID text] [KEEP] [ACTOR name]"

static const struct command_row command_rows[] = {
        {"LOCK.ACQUIRE", 4, 16 + 2 * (LOCK_SET_MAX - 1), ACQUIRE_USAGE, REQUEST_LOCK_ACQUIRE,
         request_acquire, NULL},
        {"LOCK.RENEW", 5, 5, "key owner token ttl-ms", REQUEST_LOCK_RENEW, request_renew, NULL},
        {"LOCK.RELEASE", 4, 4, "key owner token", REQUEST_LOCK_RELEASE, request_release, NULL},
        {"LOCK.INFO", 2, 2, "key", REQUEST_LOCK_INFO, request_info, NULL},
        {"LOCK.LIST", 2, 4, "prefix [after-token [limit]]", REQUEST_LOCK_LIST, request_list, NULL},
        {"LOCK.WATCH", 2, 8, WATCH_USAGE, REQUEST_LOCK_WATCH, request_watch, NULL},
        {"LOCK.CHECK", 3, 3, "key token", REQUEST_LOCK_LOOK, request_check, NULL},
        {"LOCK.BREAK", 3, 3, "key who", REQUEST_LOCK_SEIZE, request_break, NULL},
        {"SESSION.OPEN", 4, 4, "prefix owner ttl-ms", REQUEST_SESSION_OPEN, request_open, NULL},
        {"SESSION.KEEP", 4, 4, "prefix owner session", REQUEST_SESSION_KEEP, request_session, NULL},
        {"SESSION.CLOSE", 4, 4, "prefix owner session", REQUEST_SESSION_CLOSE, request_session,
         NULL},
        {"KV.GET", 2, 5, "key [REVISION n] [STALE]", REQUEST_KV, request_kv, NULL},
        {"KV.PUT", 3, 12, "key value" KV_WRITE_USAGE, REQUEST_KV, request_kv, NULL},
        {"KV.CAS", 4, 13, "key revision value" KV_WRITE_USAGE, REQUEST_KV, request_kv, NULL},
        {"KV.DEL", 2, 7, "key [PREFIX] [ID text] [ACTOR name]", REQUEST_KV, request_kv, NULL},
        {"KV.RANGE", 2, 10, "prefix [AFTER key] [LIMIT n] [REVISION n] [KEYS] [STALE]", REQUEST_KV,
         request_kv, NULL},
        {"KV.HISTORY", 2, 5, "key [LIMIT n] [STALE]", REQUEST_KV, request_kv, NULL},
        {"KV.WATCH", 3, 5, "prefix revision [WAIT ms]", REQUEST_KV_WATCH, request_kv, NULL},
        {"KV.TXN", 2, RESP_ARGS_MAX, "[IF key what op operand]... [THEN step...] [ELSE step...]",
         REQUEST_KV, request_kv, NULL},
        {"KV.COMPACT", 3, 5, "prefix revision [ACTOR name]", REQUEST_KV, request_kv, NULL},
        {"SET", 3, 8, "key value NX PX ms", REQUEST_LOCK_ACQUIRE, request_set, NULL},
        {"GET", 2, 2, "key", REQUEST_LOCK_LOOK, request_get, NULL},
        {"EVAL", 4, 7, "script 1 key owner [ttl-ms [0|1]]", REQUEST_LOCK_RELEASE, request_eval,
         NULL},
        {"EVALSHA", 4, 7, "digest 1 key owner [ttl-ms [0|1]]", REQUEST_LOCK_RELEASE,
         request_evalsha, NULL},
        {"SCRIPT", 2, RESP_ARGS_MAX, "LOAD script | EXISTS digest | FLUSH", REQUEST_KIND_COUNT,
         NULL, answer_script},
        {"COMMAND", 1, RESP_ARGS_MAX, "[COUNT|DOCS]", REQUEST_KIND_COUNT, NULL, answer_command},
};

#define ROWS (COUNT_OF(command_rows) + hello_row_count)

static const struct command_row *row_at(size_t i)
{
        return i < COUNT_OF(command_rows) ? &command_rows[i]
                                          : &hello_rows[i - COUNT_OF(command_rows)];
}

static void answer_command(const struct command *command)
{
        struct buffer *out = command->out;
        if (command_args(command) > 1 && resp_is(command_arg(command, 1), "COUNT")) {
                resp_write_integer(out, ROWS);
                return;
        }
        if (command_args(command) > 1 && resp_is(command_arg(command, 1), "DOCS")) {
                resp_write_map(out, command->client->protocol, 0);
                return;
        }
        if (command_args(command) > 1) {
                resp_write_error(out, "ERR unknown COMMAND sub-command '%.*s'",
                                 BYTES_ARGS(command_arg(command, 1)));
                return;
        }
        resp_write_array(out, ROWS);
        for (size_t i = 0; i < ROWS; i++) {
                const struct command_row *row = row_at(i);
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
        for (size_t i = 0; i < ROWS; i++) {
                if (resp_is(name, row_at(i)->name))
                        return row_at(i);
        }
        return NULL;
}

/* Bytes that an answer may have; 0: few. */
static size_t answer_bytes_max(enum request_kind kind, enum api_form form)
{
        static const size_t kinds[REQUEST_KIND_COUNT] = {
                [REQUEST_LOCK_LIST] = (size_t)1024 * 1024,
                [REQUEST_LOCK_WATCH] = LOCK_CHANGES_BYTES,
        };
        static const size_t forms[API_FORM_COUNT] = {
                [API_FORM_KV_GET] = KV_VALUE_BYTES_MAX,
                [API_FORM_KV_RANGE] = KV_ITEMS_BYTES_MAX,
                [API_FORM_KV_HISTORY] = KV_ITEMS_BYTES_MAX,
                [API_FORM_KV_CHANGES] = KV_ITEMS_BYTES_MAX,
                [API_FORM_KV_TXN] = KV_ITEMS_BYTES_MAX,
        };
        return kinds[kind] > forms[form] ? kinds[kind] : forms[form];
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
        slot->expected = answer_bytes_max(slot->kind, slot->form);
        if (slot->expected > 0 && api->heap.used_bytes >= API_HEAP_LARGE) {
                slot->expected = 0;
                resp_write_error(&slot->reply, "LIMIT this node is full of answers that nobody has "
                                               "read yet: try again");
                return;
        }
        command->client->expected += slot->expected;
        slot->done = false;
        struct api_waiter waiter = {slot, slot_answer};
        if (api_ask(api, &request, waiter, &slot->number) == 0) {
                slot->done = true;
                resp_write_error(&slot->reply, "LIMIT too many requests wait: try again");
        }
}

void command_run(struct client *client, struct bytes input)
{
        struct slot *slot = NULL;
        struct command command = {
                .client = client, .input = input, .reader = &client->reader, .form = API_FORM_LOCK};
        if (client->reader.arg_count == 0)
                return;
        struct bytes name = command_arg(&command, 0);
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
