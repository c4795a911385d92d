/* What the module answers, checked for its form: the server is ours, but its version may not be. A
 * reply of another form is REPLY_STRANGE, never a crash. */
#include "base/digits.h"
#include "engine/engine_priv.h"
#include "keyspace/keyspace.h"

#include <stdio.h>

static bool is_integer(const redisReply *reply)
{
        return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

static bool is_array(const redisReply *reply, size_t elements)
{
        return reply->type == REDIS_REPLY_ARRAY && reply->elements == elements;
}

static struct bytes text_of(const redisReply *reply)
{
        return bytes_of(reply->str, reply->len);
}

static bool error_starts(const redisReply *reply, const char *word)
{
        return reply->type == REDIS_REPLY_ERROR &&
               bytes_starts_with(text_of(reply), bytes_of_str(word));
}

/* A number in text, all digits. */
static enum reply_kind refusal_of(const redisReply *reply, uint64_t *ret_position)
{
        if (!error_starts(reply, "GAP"))
                return reply->type == REDIS_REPLY_ERROR ? REPLY_REFUSED : REPLY_STRANGE;
        struct bytes text = text_of(reply);
        *ret_position = 0;
        if (text.len > 4)
                (void)digits_parse(bytes_of(text.ptr + 4, text.len - 4), UINT64_MAX, ret_position);
        return REPLY_GAP;
}

static bool vector_read(const redisReply *reply, struct positions *ret)
{
        ret->count = 0;
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements > COUNT_OF(ret->items))
                return false;
        for (size_t i = 0; i < reply->elements; i++) {
                const redisReply *pair = reply->element[i];
                if (!is_array(pair, 2) || !is_integer(pair->element[0]) ||
                    !is_integer(pair->element[1]) || pair->element[0]->integer < 1 ||
                    pair->element[0]->integer > TOPOLOGY_REGION_ID_MAX)
                        return false;
                ret->items[ret->count++] = (struct world_position){
                        .origin = (region_id)pair->element[0]->integer,
                        .hlc = (uint64_t)pair->element[1]->integer,
                };
        }
        return true;
}

static bool is_holes(const redisReply *reply)
{
        return reply->type == REDIS_REPLY_STRING && reply->len % WORLD_HOLE_LEN == 0 &&
               reply->len <= (size_t)WORLD_HOLE_LEN * WORLD_HOLES_MAX;
}

/* [origin, table, cursor, position] as texts, or nothing. */
static void resume_read(const redisReply *reply, struct world_event *event)
{
        uint64_t number[4];
        if (!is_array(reply, COUNT_OF(number)))
                return;
        for (size_t i = 0; i < COUNT_OF(number); i++) {
                if (reply->element[i]->type != REDIS_REPLY_STRING ||
                    !digits_parse(text_of(reply->element[i]), UINT64_MAX, &number[i]))
                        return;
        }
        if (number[0] > TOPOLOGY_REGION_ID_MAX)
                return;
        event->redis_up.resume_of = (region_id)number[0];
        event->redis_up.resume = (struct world_resume){number[1], number[2], number[3]};
}

enum reply_kind reply_positions(const redisReply *reply, region_id *ret_origin,
                                struct world_event *ret_event, struct positions *ret_positions)
{
        if (reply->type == REDIS_REPLY_ERROR)
                return REPLY_REFUSED;
        bool resumes = is_array(reply, 8);
        if ((!resumes && !is_array(reply, 7)) || !vector_read(reply->element[5], ret_positions) ||
            !is_holes(reply->element[6]))
                return REPLY_STRANGE;
        for (size_t i = 0; i < 5; i++) {
                if (!is_integer(reply->element[i]))
                        return REPLY_STRANGE;
        }
        if (reply->element[0]->integer > TOPOLOGY_REGION_ID_MAX)
                return REPLY_STRANGE;
        *ret_origin = (region_id)reply->element[0]->integer;
        *ret_event = (struct world_event){.kind = WORLD_REDIS_UP};
        ret_event->redis_up.incarnation = (uint64_t)reply->element[1]->integer;
        ret_event->redis_up.recovered = (uint64_t)reply->element[2]->integer;
        ret_event->redis_up.first = (uint64_t)reply->element[3]->integer;
        ret_event->redis_up.positions = ret_positions->items;
        ret_event->redis_up.count = ret_positions->count;
        ret_event->redis_up.holes = text_of(reply->element[6]);
        if (resumes)
                resume_read(reply->element[7], ret_event);
        return REPLY_GOOD;
}

enum reply_kind reply_tail(const redisReply *reply, struct world_event *ret_event)
{
        uint64_t position = 0;
        *ret_event = (struct world_event){.kind = WORLD_REDIS_TAILED};
        if (!is_array(reply, 3)) {
                enum reply_kind kind = refusal_of(reply, &position);
                ret_event->tailed.gap = kind == REPLY_GAP;
                ret_event->tailed.last = position;
                return kind;
        }
        if (!is_integer(reply->element[0]) || !is_integer(reply->element[1]) ||
            reply->element[2]->type != REDIS_REPLY_STRING)
                return REPLY_STRANGE;
        ret_event->tailed.last = (uint64_t)reply->element[0]->integer;
        ret_event->tailed.deltas = text_of(reply->element[2]);
        return REPLY_GOOD;
}

/* [position, holes, positions of all at the end of a state]; without holes the position alone. */
static bool merged_read(const redisReply *reply, struct world_event *ret_event,
                        struct positions *ret_positions)
{
        if (!is_array(reply, 3) || !is_integer(reply->element[0]) || !is_holes(reply->element[1]) ||
            !vector_read(reply->element[2], ret_positions))
                return false;
        ret_event->merged.position = (uint64_t)reply->element[0]->integer;
        ret_event->merged.holes = text_of(reply->element[1]);
        ret_event->merged.positions = ret_positions->items;
        ret_event->merged.position_count = ret_positions->count;
        return true;
}

enum reply_kind reply_merge(const redisReply *reply, struct world_event *ret_event,
                            struct positions *ret_positions)
{
        *ret_event = (struct world_event){.kind = WORLD_REDIS_MERGED};
        if (merged_read(reply, ret_event, ret_positions))
                return REPLY_GOOD;
        if (is_integer(reply)) {
                ret_event->merged.position = (uint64_t)reply->integer;
                ret_event->merged.holes = BYTES("");
                return REPLY_GOOD;
        }
        if (reply->type == REDIS_REPLY_STATUS)
                return REPLY_GOOD;
        enum reply_kind kind = refusal_of(reply, &ret_event->merged.position);
        ret_event->merged.gap = kind == REPLY_GAP;
        if (kind == REPLY_REFUSED)
                ret_event->merged.err = reply_err(reply);
        else if (kind == REPLY_STRANGE)
                ret_event->merged.err = ERR_MALFORMED;
        return kind;
}

enum reply_kind reply_scan(const redisReply *reply, struct world_event *ret_event,
                           struct positions *ret_positions)
{
        uint64_t cursor = 0;
        *ret_event = (struct world_event){.kind = WORLD_REDIS_SCANNED};
        if (reply->type == REDIS_REPLY_ERROR) {
                ret_event->scanned.err = reply_err(reply);
                return REPLY_REFUSED;
        }
        ret_event->scanned.err = ERR_MALFORMED;
        if (!is_array(reply, 3) || !vector_read(reply->element[1], ret_positions) ||
            reply->element[2]->type != REDIS_REPLY_STRING)
                return REPLY_STRANGE;
        const redisReply *next = reply->element[0];
        if (is_integer(next))
                cursor = (uint64_t)next->integer;
        else if (next->type != REDIS_REPLY_STRING ||
                 !digits_parse(text_of(next), UINT64_MAX, &cursor))
                return REPLY_STRANGE;
        ret_event->scanned.err = ERR_NONE;
        ret_event->scanned.cursor = cursor;
        ret_event->scanned.done_permille = keyspace_scan_permille(cursor);
        ret_event->scanned.table = keyspace_state_table(text_of(reply->element[2]));
        ret_event->scanned.state = text_of(reply->element[2]);
        ret_event->scanned.positions = ret_positions->items;
        ret_event->scanned.position_count = ret_positions->count;
        return REPLY_GOOD;
}

enum err reply_err(const redisReply *reply)
{
        static const struct {
                const char *word;
                enum err err;
        } words[] = {
                {"CLUSTERDOWN", ERR_BUSY}, {"LAYOUT", ERR_BUSY},
                {"LOADING", ERR_BUSY},     {"BUSY", ERR_BUSY},
                {"TRYAGAIN", ERR_BUSY},    {"OOM", ERR_LIMIT},
                {"MISCONF", ERR_IO},       {"DRIFT", ERR_REFUSED},
                {"READONLY", ERR_REFUSED}, {"NOAUTH", ERR_REFUSED},
                {"NOPERM", ERR_REFUSED},   {"MERIDIAN clients are paused", ERR_BUSY},
        };
        for (size_t i = 0; i < COUNT_OF(words); i++) {
                if (error_starts(reply, words[i].word))
                        return words[i].err;
        }
        return ERR_INVALID;
}

bool reply_is_denied(const redisReply *reply)
{
        return error_starts(reply, "NOPERM");
}

bool reply_is_unknown_command(const redisReply *reply)
{
        return error_starts(reply, "ERR unknown command");
}

void reply_refusal(const struct topology_endpoint *endpoint, const redisReply *reply,
                   char text[ENGINE_TEXT_SIZE])
{
        char host[TOPOLOGY_ENDPOINT_TEXT];
        topology_endpoint_text(endpoint, host);
        (void)snprintf(text, ENGINE_TEXT_SIZE, "Redis at %s refuses: %.*s", host,
                       (int)(reply->len < 120 ? reply->len : 120), reply->str);
}
