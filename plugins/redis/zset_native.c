/* zset_native.c - how a merge changes a sorted set. Adds to one key that follow each other are
 * gathered, and go to the server as one ZADD: a command of its own for each would cost more than
 * what it does. They are put when another key or another kind of change comes, and when the native
 * is closed; so a key's changes keep their order. Of a member that comes twice the later score
 * counts, as within one ZADD. A short set gets them one by one: newer servers choose its encoding
 * by how many a command names, though most may be there already. So does any set while keyspace
 * notifications are wanted, of which each change has its own.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

#include <stdio.h>

enum {
        SCORE_TEXT = 40,
        GATHERED_MAX = 512,
        GATHERED_BYTES_MAX = 256 << 10,
        SHORT_MAX = 1024, /* members of a short set: more than any server packs together */
};

#define SCORE_WHOLE 9e15 /* doubles below it have all whole numbers */

static struct {
        uint32_t db;
        struct redis_string *key; /* NULL: nothing is gathered */
        size_t words;
        size_t bytes;
        struct redis_string *word[2 * GATHERED_MAX]; /* score, member, ... */
} native;

static struct redis_string *string_of(struct bytes text)
{
        return redis.CreateString(NULL, text.len == 0 ? "" : (const char *)text.ptr, text.len);
}

/* The score as Redis reads it back to the last bit. Most are whole numbers, which take a tenth of
 * the time that printing takes. */
static struct bytes score_text(char room[static SCORE_TEXT], double score)
{
        char *end = room + SCORE_TEXT;
        char *at = end;
        if (!(score > -SCORE_WHOLE && score < SCORE_WHOLE) || score < (double)(int64_t)score ||
            score > (double)(int64_t)score)
                return bytes_of(room, (size_t)snprintf(room, SCORE_TEXT, "%.17g", score));
        uint64_t rest = (uint64_t)(score < 0 ? -score : score);
        do
                *--at = (char)('0' + rest % 10);
        while ((rest /= 10) != 0);
        if (score < 0)
                *--at = '-';
        return bytes_of(at, (size_t)(end - at));
}

static bool is_short(struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(native_context(), key, REDIS_READ);
        bool is = open == NULL || redis.ValueLength(open) <= SHORT_MAX;
        if (open != NULL)
                redis.CloseKey(open);
        return is;
}

void zset_native_close(void)
{
        struct redis_string *key = native.key;
        if (key == NULL)
                return;
        native.key = NULL; /* what the calls run may come here again */
        redis.SelectDb(native_context(), (int)native.db);
        bool single = native.words > 2 && (notify_wanted() || is_short(key));
        size_t step = single ? 2 : native.words;
        for (size_t at = 0; at < native.words; at += step) {
                struct redis_reply *reply =
                        redis.Call(native_context(), "ZADD", "sv", key, native.word + at, step);
                if (reply != NULL)
                        redis.FreeCallReply(reply);
        }
        for (size_t i = 0; i < native.words; i++)
                redis.FreeString(NULL, native.word[i]);
        redis.FreeString(NULL, key);
        native.words = 0;
        native.bytes = 0;
}

static void gather_begin(struct crdt_name name)
{
        if (native.key != NULL && native.db == name.db && native.words < COUNT_OF(native.word) &&
            native.bytes < GATHERED_BYTES_MAX && bytes_equal(plugin_bytes(native.key), name.key))
                return;
        native_close();
        native.key = string_of(name.key);
        native.db = name.db;
}

void zset_native_add(void *context, struct crdt_name name, struct bytes member, double score)
{
        (void)context;
        char room[SCORE_TEXT];
        if (plugin.quiet)
                return;
        gather_begin(name);
        native.word[native.words++] = string_of(score_text(room, score));
        native.word[native.words++] = string_of(member);
        native.bytes += member.len;
}

void zset_native_remove(void *context, struct crdt_name name, struct bytes member)
{
        (void)context;
        if (plugin.quiet)
                return;
        native_close();
        struct redis_context *ctx = native_context();
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *key = string_of(name.key);
        struct redis_string *word = string_of(member);
        struct redis_reply *reply = redis.Call(ctx, "ZREM", "ss", key, word);
        if (reply != NULL)
                redis.FreeCallReply(reply);
        redis.FreeString(NULL, word);
        redis.FreeString(NULL, key);
}
