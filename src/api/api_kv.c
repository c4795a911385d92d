/* api_kv.c - values over RESP: KV.* commands, each one transaction (kv/kv.h).
 *
 *   KV.GET key                      [value, revision], or nil
 *   KV.PUT key value                the revision
 *   KV.CAS key revision value       the revision, or nil where the key's is another; 0: no such key
 *   KV.DEL key [PREFIX]             how many keys were deleted
 *   KV.RANGE prefix                 [revision, more (0 or 1), [[key, value, revision, version]...]]
 *   KV.HISTORY key                  [[revision, version, value or nil, writer, time in ms]...]
 *   KV.WATCH prefix revision        [revision, [["put" or "del", key, value, revision]...]]
 *   KV.TXN [IF key what op operand]... [THEN step...] [ELSE step...]
 *                                   [1 or 0, revision, [answer of each step...]]
 *   KV.COMPACT prefix revision      the revision
 *
 * What a condition looks at is VERSION, REVISION, CREATED, SESSION or VALUE, its op =, !=, < or >.
 * Steps are GET key, PUT key value, DEL key, RANGE prefix. */
#include "api/api_priv.h"

#include <stdio.h>

/* A command being read. */
struct reading {
        struct api_kv *kv;
        struct kv_build build;
        struct kv_step step; /* options change it */
        size_t at;
};

static struct bytes arg(const struct reading *reading, size_t index)
{
        return resp_arg(reading->kv->reader, reading->kv->input, index);
}

static size_t left(const struct reading *reading)
{
        return reading->kv->reader->arg_count - reading->at;
}

static bool number(const struct reading *reading, size_t index, const char *what, uint64_t *ret)
{
        if (resp_number(arg(reading, index), UINT64_MAX >> 1, ret))
                return true;
        resp_write_error(reading->kv->out, "ERR %s is not a number in range: write it in digits",
                         what);
        return false;
}

/* ---- options ---- */

enum option_kind {
        OPTION_FLAG,
        OPTION_STALE,
        OPTION_LIMIT,
        OPTION_REVISION,
        OPTION_SESSION,
        OPTION_WAIT,
        OPTION_AFTER,
        OPTION_ID,
        OPTION_OWNER,
        OPTION_ACTOR,
};

static const struct option {
        const char *name;
        enum option_kind kind;
        uint32_t flag;
        const char *number; /* what the argument after it is; NULL: text, or none */
} options[] = {
        {"STALE", OPTION_STALE, 0, NULL},
        {"PREFIX", OPTION_FLAG, KV_PREFIX, NULL},
        {"KEYS", OPTION_FLAG, KV_KEYS_ONLY, NULL},
        {"KEEP", OPTION_FLAG, KV_KEEP, NULL},
        {"LIMIT", OPTION_LIMIT, 0, "the limit"},
        {"REVISION", OPTION_REVISION, 0, "the revision"},
        {"SESSION", OPTION_SESSION, 0, "the session"},
        {"WAIT", OPTION_WAIT, 0, "the time to wait"},
        {"AFTER", OPTION_AFTER, 0, NULL},
        {"ID", OPTION_ID, 0, NULL},
        {"OWNER", OPTION_OWNER, 0, NULL},
        {"ACTOR", OPTION_ACTOR, 0, NULL},
};

static const struct option *option_find(struct bytes name)
{
        for (size_t i = 0; i < COUNT_OF(options); i++) {
                if (resp_is(name, options[i].name))
                        return &options[i];
        }
        return NULL;
}

static bool option_take(struct reading *reading, const struct option *option)
{
        struct request *request = reading->kv->request;
        uint64_t value = 0;
        reading->at++;
        if (option->kind == OPTION_STALE) {
                request->kv.stale = true;
                return true;
        }
        if (option->kind == OPTION_FLAG) {
                reading->step.flags |= option->flag;
                return true;
        }
        if (left(reading) == 0) {
                resp_write_error(reading->kv->out, "ERR syntax: %s wants an argument",
                                 option->name);
                return false;
        }
        struct bytes text = arg(reading, reading->at);
        if (option->number != NULL && !number(reading, reading->at, option->number, &value))
                return false;
        reading->at++;
        switch (option->kind) {
        case OPTION_LIMIT:
                reading->step.limit = value;
                return true;
        case OPTION_REVISION:
                reading->step.revision = value;
                return true;
        case OPTION_SESSION:
                reading->step.session = value;
                return true;
        case OPTION_WAIT:
                request->kv.wait_ms = value;
                return true;
        case OPTION_AFTER:
                reading->step.end = text;
                return true;
        case OPTION_ID:
                reading->build.id = text;
                return true;
        case OPTION_OWNER:
                reading->build.owner = text;
                return true;
        case OPTION_ACTOR:
                request->kv.actor = text;
                return true;
        case OPTION_FLAG:
        case OPTION_STALE:
                break;
        }
        return true;
}

/* The options from here on, of those that `allowed` names. */
static bool options_take(struct reading *reading, uint32_t allowed)
{
        while (left(reading) > 0) {
                struct bytes name = arg(reading, reading->at);
                const struct option *option = option_find(name);
                if (option == NULL || (allowed & 1u << (option - options)) == 0) {
                        resp_write_error(reading->kv->out, "ERR syntax: unknown option '%.*s' here",
                                         (int)(name.len < 32 ? name.len : 32),
                                         (const char *)name.ptr);
                        return false;
                }
                if (!option_take(reading, option))
                        return false;
        }
        return true;
}

/* Bits of `allowed`, in the order of the table. */
enum {
        MAY_STALE = 1,
        MAY_PREFIX = 2,
        MAY_KEYS = 4,
        MAY_KEEP = 8,
        MAY_LIMIT = 16,
        MAY_REVISION = 32,
        MAY_SESSION = 64,
        MAY_WAIT = 128,
        MAY_AFTER = 256,
        MAY_ID = 512,
        MAY_OWNER = 1024,
        MAY_ACTOR = 2048,
        MAY_WRITE = MAY_KEEP | MAY_SESSION | MAY_ID | MAY_OWNER | MAY_ACTOR,
};

/* ---- commands ---- */

static bool one_step(struct reading *reading, enum kv_op op, uint32_t allowed)
{
        reading->step.op = op;
        if (!options_take(reading, allowed))
                return false;
        kv_build_step(&reading->build, false, &reading->step);
        return true;
}

static bool read_get(struct reading *reading)
{
        reading->at = 2;
        return one_step(reading, KV_GET, MAY_STALE | MAY_REVISION);
}

static bool read_put(struct reading *reading)
{
        reading->step.value = arg(reading, 2);
        reading->at = 3;
        return one_step(reading, KV_PUT, MAY_WRITE);
}

static bool read_cas(struct reading *reading)
{
        struct kv_condition condition = {
                .key = reading->step.key, .what = KV_REVISION, .relation = KV_IS};
        if (!number(reading, 2, "the revision", &condition.number))
                return false;
        kv_build_condition(&reading->build, &condition);
        reading->step.value = arg(reading, 3);
        reading->at = 4;
        return one_step(reading, KV_PUT, MAY_WRITE);
}

static bool read_del(struct reading *reading)
{
        reading->at = 2;
        return one_step(reading, KV_DELETE, MAY_PREFIX | MAY_ID | MAY_ACTOR);
}

static bool read_range(struct reading *reading)
{
        reading->at = 2;
        reading->step.flags = KV_PREFIX;
        return one_step(reading, KV_RANGE,
                        MAY_STALE | MAY_KEYS | MAY_LIMIT | MAY_REVISION | MAY_AFTER);
}

static bool read_history(struct reading *reading)
{
        reading->at = 2;
        return one_step(reading, KV_HISTORY, MAY_STALE | MAY_LIMIT);
}

static bool read_compact(struct reading *reading)
{
        reading->at = 3;
        return number(reading, 2, "the revision", &reading->step.revision) &&
               one_step(reading, KV_COMPACT, MAY_ACTOR);
}

static bool read_watch(struct reading *reading)
{
        struct request *request = reading->kv->request;
        request->kind = REQUEST_KV_WATCH;
        reading->at = 3;
        return number(reading, 2, "the revision", &request->kv.after) &&
               options_take(reading, MAY_WAIT);
}

/* ---- KV.TXN ---- */

static bool txn_wrong(const struct reading *reading, const char *what)
{
        resp_write_error(reading->kv->out,
                         "ERR syntax: %s; want KV.TXN [IF key what op operand]... [THEN step...] "
                         "[ELSE step...]",
                         what);
        return false;
}

static bool txn_condition(struct reading *reading)
{
        static const char *const whats[KV_WHAT_COUNT] = {
                [KV_VERSION] = "VERSION", [KV_REVISION] = "REVISION", [KV_CREATED] = "CREATED",
                [KV_SESSION] = "SESSION", [KV_VALUE] = "VALUE",
        };
        static const char *const relations[KV_RELATION_COUNT] = {
                [KV_IS] = "=", [KV_IS_NOT] = "!=", [KV_LESS] = "<", [KV_GREATER] = ">"};
        struct kv_condition condition = {0};
        if (left(reading) < 4)
                return txn_wrong(reading, "IF wants four arguments");
        condition.key = arg(reading, reading->at);
        for (int i = KV_VERSION; i < KV_WHAT_COUNT; i++) {
                if (resp_is(arg(reading, reading->at + 1), whats[i]))
                        condition.what = (enum kv_what)i;
        }
        for (int i = KV_IS; i < KV_RELATION_COUNT; i++) {
                if (bytes_equal(arg(reading, reading->at + 2), bytes_of_str(relations[i])))
                        condition.relation = (enum kv_relation)i;
        }
        if ((int)condition.what == 0 || (int)condition.relation == 0)
                return txn_wrong(reading, "an unknown condition (VALUE, REVISION, VERSION, CREATED "
                                          "or SESSION; =, !=, < or >)");
        condition.value = arg(reading, reading->at + 3);
        if (condition.what != KV_VALUE &&
            !number(reading, reading->at + 3, "the operand", &condition.number))
                return false;
        reading->at += 4;
        kv_build_condition(&reading->build, &condition);
        return true;
}

static bool txn_step(struct reading *reading, bool otherwise)
{
        static const struct {
                const char *name;
                enum kv_op op;
                size_t args;
                uint32_t flags;
        } steps[] = {{"GET", KV_GET, 1, 0},
                     {"PUT", KV_PUT, 2, 0},
                     {"DEL", KV_DELETE, 1, 0},
                     {"RANGE", KV_RANGE, 1, KV_PREFIX}};
        struct bytes name = arg(reading, reading->at++);
        for (size_t i = 0; i < COUNT_OF(steps); i++) {
                if (!resp_is(name, steps[i].name))
                        continue;
                if (left(reading) < steps[i].args)
                        return txn_wrong(reading, "a step lacks an argument");
                struct kv_step step = {.op = steps[i].op, .flags = steps[i].flags};
                step.key = arg(reading, reading->at);
                if (steps[i].args == 2)
                        step.value = arg(reading, reading->at + 1);
                if (reading->kv->request->kv.key.len == 0)
                        reading->kv->request->kv.key = step.key;
                reading->at += steps[i].args;
                kv_build_step(&reading->build, otherwise, &step);
                return true;
        }
        return txn_wrong(reading, "an unknown step");
}

static bool txn_steps(struct reading *reading, bool otherwise)
{
        while (left(reading) > 0 && !resp_is(arg(reading, reading->at), "ELSE") &&
               option_find(arg(reading, reading->at)) == NULL) {
                if (!txn_step(reading, otherwise))
                        return false;
        }
        return true;
}

static bool read_txn(struct reading *reading)
{
        struct request *request = reading->kv->request;
        reading->at = 1;
        request->kv.key = bytes_of(NULL, 0);
        while (left(reading) > 0 && resp_is(arg(reading, reading->at), "IF")) {
                reading->at++;
                if (request->kv.key.len == 0 && left(reading) > 0)
                        request->kv.key = arg(reading, reading->at);
                if (!txn_condition(reading))
                        return false;
        }
        for (int i = 0; i < 2; i++) {
                if (left(reading) == 0 ||
                    !resp_is(arg(reading, reading->at), i == 0 ? "THEN" : "ELSE"))
                        continue;
                reading->at++;
                if (!txn_steps(reading, i == 1))
                        return false;
        }
        return options_take(reading, MAY_STALE | MAY_ID | MAY_ACTOR);
}

/* ---- the table ---- */

static const struct {
        const char *name;
        enum api_form form;
        bool (*read)(struct reading *reading);
} rows[] = {
        {"KV.GET", API_FORM_KV_GET, read_get},
        {"KV.PUT", API_FORM_KV_REVISION, read_put},
        {"KV.CAS", API_FORM_KV_REVISION, read_cas},
        {"KV.DEL", API_FORM_KV_TOTAL, read_del},
        {"KV.RANGE", API_FORM_KV_RANGE, read_range},
        {"KV.HISTORY", API_FORM_KV_HISTORY, read_history},
        {"KV.WATCH", API_FORM_KV_CHANGES, read_watch},
        {"KV.TXN", API_FORM_KV_TXN, read_txn},
        {"KV.COMPACT", API_FORM_KV_REVISION, read_compact},
};

static bool request_end(const struct reading *reading)
{
        struct api_kv *kv = reading->kv;
        if (kv->request->kind == REQUEST_KV_WATCH)
                return true;
        buffer_reset(kv->txn);
        enum err err = kv_build_end(&reading->build, kv->txn);
        if (err != ERR_NONE) {
                resp_write_error(kv->out, "LIMIT %s",
                                 err == ERR_LIMIT ? "the transaction is too large" : err_text(err));
                return false;
        }
        kv->request->kv.txn = buffer_view(kv->txn);
        return true;
}

bool api_kv_request(struct api_kv *kv)
{
        struct bytes name = resp_arg(kv->reader, kv->input, 0);
        struct reading reading = {.kv = kv};
        bool done = false;
        reading.step.key = arg(&reading, 1);
        kv->request->kv.key = reading.step.key;
        kv->request->kv.actor = kv->actor;
        kv_build_init(&reading.build, kv->txn->heap);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (!resp_is(name, rows[i].name))
                        continue;
                kv->form = rows[i].form;
                done = rows[i].read(&reading) && request_end(&reading);
        }
        kv_build_fini(&reading.build);
        return done;
}

/* ---- answers ---- */

struct writing {
        struct buffer *out;
        int protocol;
        struct kv_reading reading;
        struct kv_answer_step step;
        bool stepped;
};

static void write_item(const struct writing *writing, const struct kv_item *item)
{
        resp_write_array(writing->out, 4);
        resp_write_bulk(writing->out, item->key);
        resp_write_bulk(writing->out, item->value);
        resp_write_integer(writing->out, item->revision);
        resp_write_integer(writing->out, item->version);
}

static void write_items(struct writing *writing)
{
        struct kv_item item;
        resp_write_array(writing->out, writing->step.count);
        while (kv_result_item(&writing->reading, &item))
                write_item(writing, &item);
}

static void write_get(struct writing *writing)
{
        struct kv_item item;
        if (!writing->stepped || !kv_result_item(&writing->reading, &item)) {
                resp_write_null(writing->out, writing->protocol);
                return;
        }
        resp_write_array(writing->out, 2);
        resp_write_bulk(writing->out, item.value);
        resp_write_integer(writing->out, item.revision);
}

static void write_revision(struct writing *writing)
{
        if (writing->reading.head.succeeded)
                resp_write_integer(writing->out, writing->reading.head.revision);
        else
                resp_write_null(writing->out, writing->protocol);
}

static void write_total(struct writing *writing)
{
        resp_write_integer(writing->out, writing->stepped ? writing->step.total : 0);
}

static void write_range(struct writing *writing)
{
        resp_write_array(writing->out, 3);
        resp_write_integer(writing->out, writing->reading.head.revision);
        resp_write_integer(writing->out, writing->step.more);
        write_items(writing);
}

static void write_history(struct writing *writing)
{
        struct kv_item item;
        resp_write_array(writing->out, writing->step.count);
        while (kv_result_item(&writing->reading, &item)) {
                resp_write_array(writing->out, 5);
                resp_write_integer(writing->out, item.revision);
                resp_write_integer(writing->out, item.version);
                if (item.version == 0)
                        resp_write_null(writing->out, writing->protocol);
                else
                        resp_write_bulk(writing->out, item.value);
                resp_write_bulk(writing->out, item.actor);
                resp_write_integer(writing->out, item.wall_us / 1000);
        }
}

static void write_changes(struct writing *writing)
{
        struct kv_item item;
        resp_write_array(writing->out, 2);
        resp_write_integer(writing->out, writing->reading.head.revision);
        resp_write_array(writing->out, writing->step.count);
        while (kv_result_item(&writing->reading, &item)) {
                resp_write_array(writing->out, 4);
                resp_write_bulk(writing->out, item.version == 0 ? BYTES("del") : BYTES("put"));
                resp_write_bulk(writing->out, item.key);
                resp_write_bulk(writing->out, item.value);
                resp_write_integer(writing->out, item.revision);
        }
}

static void write_step(struct writing *writing)
{
        switch (writing->step.op) {
        case KV_GET:
                write_get(writing);
                return;
        case KV_RANGE:
        case KV_HISTORY:
                write_items(writing);
                return;
        case KV_PUT:
                resp_write_integer(writing->out, writing->reading.head.revision);
                return;
        case KV_DELETE:
        case KV_COMPACT:
        case KV_CHANGES:
        case KV_OP_COUNT:
                break;
        }
        resp_write_integer(writing->out, writing->step.total);
}

static void write_txn(struct writing *writing)
{
        resp_write_array(writing->out, 3);
        resp_write_integer(writing->out, writing->reading.head.succeeded);
        resp_write_integer(writing->out, writing->reading.head.revision);
        resp_write_array(writing->out, writing->reading.head.step_count);
        while (writing->stepped) {
                write_step(writing);
                writing->stepped = kv_result_step(&writing->reading, &writing->step);
        }
}

bool api_kv_write(struct buffer *out, int protocol, enum api_form form, const struct reply *reply)
{
        static void (*const writers[API_FORM_COUNT])(struct writing * writing) = {
                [API_FORM_KV_GET] = write_get,         [API_FORM_KV_REVISION] = write_revision,
                [API_FORM_KV_TOTAL] = write_total,     [API_FORM_KV_RANGE] = write_range,
                [API_FORM_KV_HISTORY] = write_history, [API_FORM_KV_CHANGES] = write_changes,
                [API_FORM_KV_TXN] = write_txn,
        };
        struct writing writing = {.out = out, .protocol = protocol};
        bool mine = reply->kind == REQUEST_KV || reply->kind == REQUEST_KV_WATCH;
        if (writers[form] == NULL || reply->code != REPLY_OK || !mine ||
            kv_result_open(reply->kv.result, &writing.reading) != ERR_NONE)
                return false;
        writing.stepped = kv_result_step(&writing.reading, &writing.step);
        writers[form](&writing);
        return true;
}
