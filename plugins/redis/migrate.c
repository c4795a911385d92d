/* migrate.c - keys that move to another server of the region's Redis Cluster, with what is
 * remembered of them.
 *
 *   the server that a slot leaves            the server that imports it
 *   SETSLOT MIGRATING: all tombstones of
 *     the slot, and the clock        -----> a companion: taken in at once
 *   MIGRATE k ...: a companion with the
 *     metadata of k, then k itself   -----> the companion is kept until k comes; then k is taken in
 *   each key that is gone here is forgotten
 *   a key dies in a slot that leaves: its
 *     tombstone, before anybody is answered -> taken in
 *
 * A companion is a string under a name of its own in the same slot, made for one MIGRATE and
 * deleted at both ends, so the metadata goes the way of the values: by the same command, over the
 * same connection, with the same credentials. It tells the clock of the server that it comes from,
 * beyond which the other stamps from then on: a write there is later than what it replaces; and how
 * far that server is in the streams of other regions, so that the other takes once more what the
 * first one had not got for the key (src/keyspace/move.c).
 *
 *      u8 version, u8 origin, u64 clock,
 *      then (u8 enum companion_kind, slice key, slice state) each
 *
 * Older builds take what is of COMPANION_SEEN for a state that they cannot read, and go on.
 *
 * A MIGRATE that fails in the middle leaves each key where Redis leaves it; metadata that came
 * without its key is dropped after a while. A companion that does not arrive is sent again. */
#include "plugin.h"

#include "keyspace/shards.h"

#include <stdio.h>
#include <strings.h>

#define COMPANION "meridian:move:"
#define REASON                                                                                     \
        "it would hand keys to a server outside of the regions and delete them in each; use DUMP " \
        "and RESTORE there, and DEL. Keys of a cluster move with their slot: redis-cli --cluster " \
        "reshard"

enum {
        VERSION = 1,
        TIMEOUT_MS = 1000, /* of a companion that goes alone */
        AGAIN_MS = 100,
        ARRIVAL_MS = 10000, /* that a key may take after its metadata */
        NAME_SIZE = 32,
        WALK_STEPS = 1 << 20,
};

enum companion_kind {
        COMPANION_DEAD,  /* of a key without a value */
        COMPANION_VALUE, /* which comes after it */
        COMPANION_SEEN,  /* of no key: keyspace_seen_out */
};

/* Metadata that has come before its key. */
struct arrival {
        struct arrival *next;
        uint64_t at_ms;
        size_t key_len, state_len;
        uint8_t bytes[]; /* key, then state */
};

static struct arrival *arrivals;
static struct buffer companions; /* names that came, to be deleted when the turn ends */
static struct buffer left;       /* u32 db, slice name: may have died in a slot that leaves */
static uint64_t ship_again_ms;
static uint32_t numbers[SHARDS_SLOTS]; /* of a companion in each slot, 0: not looked for yet */

void migrate_init(void)
{
        buffer_init(&companions, &plugin.heap);
        buffer_init(&left, &plugin.heap);
}

static struct bytes numbered(uint32_t number, char text[static NAME_SIZE])
{
        int len = snprintf(text, NAME_SIZE, COMPANION "%u", number);
        return bytes_of(text, (size_t)len);
}

/* A name in that slot. Some 160,000 are tried until there is one for each. */
static struct bytes companion_name(unsigned slot, char text[static NAME_SIZE])
{
        static uint32_t tried;
        while (numbers[slot] == 0) {
                unsigned of = shards_slot(numbered(++tried, text));
                if (numbers[of] == 0)
                        numbers[of] = tried;
        }
        return numbered(numbers[slot], text);
}

static bool is_companion(struct bytes key)
{
        return key.len < NAME_SIZE && bytes_starts_with(key, BYTES(COMPANION));
}

/* ---- the server that a key leaves */

static bool native_there(struct redis_context *ctx, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        if (open != NULL)
                redis.CloseKey(open);
        return open != NULL;
}

static void companion_entry(struct buffer *to, enum companion_kind kind, struct bytes key,
                            const struct buffer *state)
{
        buffer_u8(to, (uint8_t)kind);
        buffer_slice(to, key);
        buffer_slice(to, buffer_view(state));
        plugin_must(state->err, "a companion");
}

static void companion_begin(struct buffer *to)
{
        struct buffer seen;
        buffer_init(to, &plugin.heap);
        buffer_init(&seen, &plugin.heap);
        buffer_u8(to, VERSION);
        buffer_u8(to, plugin.config.origin);
        buffer_u64(to, keyspace_clock(plugin.keyspace));
        keyspace_seen_out(plugin.keyspace, &seen);
        companion_entry(to, COMPANION_SEEN, BYTES(""), &seen);
        buffer_fini(&seen);
}

/* False: nothing is remembered of it. */
static bool companion_add(struct buffer *to, struct crdt_name name, enum companion_kind kind)
{
        struct buffer state;
        buffer_init(&state, &plugin.heap);
        enum err err = keyspace_move_out(plugin.keyspace, name, &state);
        if (err == ERR_NONE)
                companion_entry(to, kind, name.key, &state);
        buffer_fini(&state);
        plugin_must(err == ERR_NOT_FOUND ? to->err : err, "a key that moves");
        return err == ERR_NONE;
}

/* By the store's own door: commands on a key that is not there are sent elsewhere by now. */
static void companion_put(struct redis_context *ctx, struct redis_string *name, struct bytes value)
{
        struct redis_string *text = redis.CreateString(NULL, (const char *)value.ptr, value.len);
        struct redis_key *open = redis.OpenKey(ctx, name, REDIS_READ | REDIS_WRITE);
        redis.StringSet(open, text);
        redis.CloseKey(open);
        redis.FreeString(NULL, text);
}

static void companion_drop(struct redis_context *ctx, struct redis_string *name)
{
        struct redis_key *open = redis.OpenKey(ctx, name, REDIS_READ | REDIS_WRITE);
        if (open == NULL)
                return;
        redis.DeleteKey(open);
        redis.CloseKey(open);
}

static void gone(struct crdt_name name)
{
        keyspace_forget(plugin.keyspace, name);
        log_forget(name);
}

/* The words of a MIGRATE: where the one key stands, or KEYS. */
struct words {
        struct redis_string **argv;
        int argc;
        int keys;  /* the first of them */
        int after; /* behind the last */
        bool copy;
};

static bool word_is(const struct redis_string *word, const char *text)
{
        struct bytes bytes = plugin_bytes(word);
        return bytes.len == strlen(text) &&
               strncasecmp((const char *)bytes.ptr, text, bytes.len) == 0;
}

static struct words words_read(struct redis_string **argv, int argc)
{
        struct words words = {argv, argc, 3, 4, false};
        for (int i = 6; i < argc; i++) {
                words.copy = words.copy || word_is(argv[i], "copy");
                if (word_is(argv[i], "auth"))
                        i++;
                else if (word_is(argv[i], "auth2"))
                        i += 2;
                else if (word_is(argv[i], "keys") && plugin_bytes(argv[3]).len == 0) {
                        words.keys = i + 1;
                        words.after = argc;
                        break;
                }
        }
        return words;
}

/* All keys are of one slot that leaves this server. */
static bool words_fit(struct redis_context *ctx, const struct words *words)
{
        if (!cluster_enabled() || words->copy || words->keys >= words->after)
                return false;
        unsigned slot = shards_slot(plugin_bytes(words->argv[words->keys]));
        for (int i = words->keys; i < words->after; i++)
                if (shards_slot(plugin_bytes(words->argv[i])) != slot)
                        return false;
        return cluster_leaving(ctx, slot) != NULL;
}

static struct redis_reply *migrate_call(struct redis_context *ctx, const struct words *words,
                                        struct redis_string *companion)
{
        size_t count = 0;
        struct redis_string **argv =
                plugin_array((size_t)words->argc + 3, sizeof(struct redis_string *), "words");
        struct redis_string *none = redis.CreateString(NULL, "", 0);
        struct redis_string *keys = redis.CreateString(NULL, "KEYS", 4);
        int options =
                words->after == words->argc && words->keys > 4 ? words->keys - 1 : words->argc;
        for (int i = 1; i < options; i++)
                argv[count++] = i == 3 ? none : words->argv[i];
        argv[count++] = keys;
        argv[count++] = companion;
        for (int i = words->keys; i < words->after; i++)
                argv[count++] = words->argv[i];
        plugin.applying = true;
        struct redis_reply *reply = redis.Call(ctx, "MIGRATE", "!0CEv", argv, count);
        plugin.applying = false;
        redis.FreeString(NULL, none);
        redis.FreeString(NULL, keys);
        heap_free(&plugin.heap, argv);
        return reply;
}

int migrate_run(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        struct words words = words_read(argv, argc);
        struct buffer value;
        bool any = false;
        if (!words_fit(ctx, &words)) {
                plugin.refused++;
                return redis.ReplyWithError(ctx, "MERIDIAN 'migrate' is refused: " REASON);
        }
        if (plugin.dirty.len > 0)
                local_stamp_dirty(ctx);
        bool *was = plugin_array((size_t)argc, sizeof(bool), "keys");
        companion_begin(&value);
        for (int i = words.keys; i < words.after; i++) {
                was[i] = native_there(ctx, argv[i]);
                any = any || was[i];
                if (was[i])
                        (void)companion_add(&value, (struct crdt_name){0, plugin_bytes(argv[i])},
                                            COMPANION_VALUE);
        }
        plugin_must(value.err, "a companion");
        char room[NAME_SIZE];
        struct bytes text = companion_name(shards_slot(plugin_bytes(argv[words.keys])), room);
        struct redis_string *name = redis.CreateString(NULL, (const char *)text.ptr, text.len);
        companion_put(ctx, name, buffer_view(&value));
        struct redis_reply *reply = any ? migrate_call(ctx, &words, name) : NULL;
        companion_drop(ctx, name);
        for (int i = words.keys; i < words.after; i++)
                if (was[i] && !native_there(ctx, argv[i]))
                        gone((struct crdt_name){0, plugin_bytes(argv[i])});
        int status = REDIS_OK;
        if (!any)
                status = redis.ReplyWithSimpleString(ctx, "NOKEY");
        else if (reply == NULL)
                status = redis.ReplyWithError(ctx, "ERR refused");
        else
                status = redis.ReplyWithCallReply(ctx, reply);
        if (reply != NULL)
                redis.FreeCallReply(reply);
        redis.FreeString(NULL, name);
        buffer_fini(&value);
        heap_free(&plugin.heap, was);
        return status;
}

/* ---- what died in a slot that leaves */

void migrate_touched(struct crdt_name name)
{
        if (cluster_leaves() && cluster_leaving(NULL, shards_slot(name.key)) != NULL)
                local_dirty(&left, name);
}

static void touched(void *context, struct crdt_name name)
{
        (void)context;
        migrate_touched(name);
}

void migrate_merged(struct bytes deltas)
{
        if (cluster_leaves())
                keyspace_names(deltas, touched, NULL);
}

static void tombstone(void *context, const struct keyspace_key *key)
{
        const struct leaving *leaving = context;
        if (key->type == CRDT_NONE && shards_slot(key->name.key) == leaving->slot)
                local_dirty(&left, key->name);
}

void migrate_slot_leaves(const struct leaving *leaving)
{
        struct leaving one = *leaving;
        if (keyspace_stats(plugin.keyspace).tombstones > 0)
                (void)keyspace_each(plugin.keyspace, 0, WALK_STEPS, tombstone, &one);
}

bool migrate_name_there(struct redis_context *ctx, struct crdt_name name)
{
        struct redis_string *key =
                redis.CreateString(NULL, (const char *)name.key.ptr, name.key.len);
        bool there = native_there(ctx, key);
        redis.FreeString(NULL, key);
        return there;
}

/* To the password that this server uses for its own primary, as all of a cluster share one. */
static struct redis_reply *companion_call(struct redis_context *ctx, const struct leaving *leaving,
                                          struct redis_string *name)
{
        struct redis_reply *reply = NULL;
        struct redis_reply *password = redis.Call(ctx, "CONFIG", "cc", "GET", "masterauth");
        size_t len = 0;
        const char *text = NULL;
        if (password != NULL && redis.CallReplyType(password) == REDIS_REPLY_ARRAY &&
            redis.CallReplyLength(password) == 2)
                text = redis.CallReplyStringPtr(redis.CallReplyArrayElement(password, 1), &len);
        plugin.applying = true;
        if (len > 0)
                reply = redis.Call(ctx, "MIGRATE", "Eclsllccb", leaving->host,
                                   (long long)leaving->port, name, 0LL, (long long)TIMEOUT_MS,
                                   "REPLACE", "AUTH", text, len);
        else
                reply = redis.Call(ctx, "MIGRATE", "Eclsllc", leaving->host,
                                   (long long)leaving->port, name, 0LL, (long long)TIMEOUT_MS,
                                   "REPLACE");
        plugin.applying = false;
        if (password != NULL)
                redis.FreeCallReply(password);
        return reply;
}

static bool reply_is_ok(struct redis_reply *reply)
{
        size_t len = 0;
        const char *text = reply == NULL ? NULL : redis.CallReplyStringPtr(reply, &len);
        return text != NULL && redis.CallReplyType(reply) != REDIS_REPLY_ERROR &&
               bytes_equal(bytes_of(text, len), BYTES("OK"));
}

/* Sends a companion alone. False, and a word in the log: the other server does not take it. */
static bool companion_ship(struct redis_context *ctx, const struct leaving *leaving,
                           struct bytes value)
{
        char room[NAME_SIZE];
        struct bytes text = companion_name(leaving->slot, room);
        struct redis_string *name = redis.CreateString(NULL, (const char *)text.ptr, text.len);
        companion_put(ctx, name, value);
        struct redis_reply *reply = companion_call(ctx, leaving, name);
        bool done = reply_is_ok(reply);
        size_t len = 0;
        const char *why = reply == NULL ? "refused" : redis.CallReplyStringPtr(reply, &len);
        if (!done)
                redis.Log(ctx, "warning",
                          "meridian: what is remembered of slot %u does not go to %s:%u yet: %.*s",
                          leaving->slot, leaving->host, leaving->port, why == NULL ? 0 : (int)len,
                          why == NULL ? "" : why);
        companion_drop(ctx, name);
        if (reply != NULL)
                redis.FreeCallReply(reply);
        redis.FreeString(NULL, name);
        return done;
}

/* Of the keys in `left`, those of one slot that are not there any more. */
static bool slot_ship(struct redis_context *ctx, const struct leaving *leaving)
{
        struct buffer value;
        bool any = !leaving->told;
        companion_begin(&value);
        struct cursor cursor = cursor_of(buffer_view(&left));
        while (cursor_left(&cursor) > 0) {
                struct crdt_name name = local_listed(&cursor);
                if (shards_slot(name.key) == leaving->slot && !migrate_name_there(ctx, name))
                        any = companion_add(&value, name, COMPANION_DEAD) || any;
        }
        plugin_must(value.err, "a companion");
        bool done = !any || companion_ship(ctx, leaving, buffer_view(&value));
        buffer_fini(&value);
        cursor = cursor_of(buffer_view(&left));
        while (done && cursor_left(&cursor) > 0) {
                struct crdt_name name = local_listed(&cursor);
                struct keyspace_key key;
                if (shards_slot(name.key) == leaving->slot && !migrate_name_there(ctx, name) &&
                    keyspace_find(plugin.keyspace, name, &key))
                        gone(name);
        }
        return done;
}

static void left_ship(struct redis_context *ctx)
{
        uint64_t now_ms = plugin_now_ms();
        bool done = true;
        if (now_ms < ship_again_ms)
                return;
        for (unsigned i = 0; i < cluster_leaves(); i++) {
                struct leaving *leaving = cluster_leaving_at(i);
                bool sent = (leaving->told && left.len == 0) || slot_ship(ctx, leaving);
                leaving->told = leaving->told || sent;
                done = done && sent;
        }
        ship_again_ms = done ? 0 : now_ms + AGAIN_MS;
        if (done)
                buffer_reset(&left);
}

/* ---- the server that a key comes to */

static void moved_in(struct bytes state)
{
        enum err err = keyspace_move_in(plugin.keyspace, NULL, state);
        if (err == ERR_NOMEM)
                plugin_must(err, "a key that moves");
        if (err == ERR_NONE)
                log_moved(keyspace_clock(plugin.keyspace), state);
}

static void seen_in(struct redis_context *ctx, struct bytes seen)
{
        bool less;
        if (keyspace_seen_in(plugin.keyspace, seen, &less) != ERR_NONE)
                redis.Log(ctx, "warning",
                          "meridian: keys come from a server of another version: what other "
                          "regions change meanwhile may be missing here (meridian verify tells)");
        else if (less)
                log_seen(seen);
}

static void arrival_add(struct bytes key, struct bytes state)
{
        struct arrival *arrival = heap_alloc(&plugin.heap, sizeof(*arrival) + key.len + state.len);
        plugin_must(arrival == NULL ? ERR_NOMEM : ERR_NONE, "a key that moves");
        *arrival = (struct arrival){.next = arrivals,
                                    .at_ms = plugin_now_ms(),
                                    .key_len = key.len,
                                    .state_len = state.len};
        if (key.len > 0)
                memcpy(arrival->bytes, key.ptr, key.len);
        memcpy(arrival->bytes + key.len, state.ptr, state.len);
        arrivals = arrival;
}

static struct bytes arrival_key(const struct arrival *arrival)
{
        return bytes_of(arrival->bytes, arrival->key_len);
}

static void companion_read(struct redis_context *ctx, struct bytes value)
{
        struct cursor cursor = cursor_of(value);
        uint8_t version = cursor_u8(&cursor);
        uint8_t origin = cursor_u8(&cursor);
        uint64_t clock = cursor_u64(&cursor);
        if (cursor_failed(&cursor) || version != VERSION || origin != plugin.config.origin ||
            keyspace_clock_observe(plugin.keyspace, plugin_now_ms(), clock) != ERR_NONE) {
                redis.Log(
                        ctx, "warning",
                        "meridian: keys come from a server of another region, of another version, "
                        "or with a clock beyond the bound: they count as written here");
                return;
        }
        while (cursor_left(&cursor) > 0) {
                uint8_t kind = cursor_u8(&cursor);
                struct bytes key = cursor_slice(&cursor);
                struct bytes state = cursor_slice(&cursor);
                if (cursor_failed(&cursor))
                        break;
                if (kind == COMPANION_SEEN)
                        seen_in(ctx, state);
                else if (kind == COMPANION_VALUE)
                        arrival_add(key, state);
                else
                        moved_in(state);
        }
}

static void companion_came(struct redis_context *ctx, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        size_t len = 0;
        const char *text = open == NULL ? NULL : redis.StringDMA(open, &len, REDIS_READ);
        if (text != NULL)
                companion_read(ctx, bytes_of(text, len));
        if (open != NULL)
                redis.CloseKey(open);
        buffer_slice(&companions, plugin_bytes(key));
        plugin_must(companions.err, "a companion");
}

bool migrate_restored(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        if (!cluster_enabled() || name.db != 0)
                return false;
        if (is_companion(name.key)) {
                companion_came(ctx, key);
                return true;
        }
        for (struct arrival **at = &arrivals; *at != NULL; at = &(*at)->next) {
                struct arrival *arrival = *at;
                if (!bytes_equal(arrival_key(arrival), name.key))
                        continue;
                *at = arrival->next;
                moved_in(bytes_of(arrival->bytes + arrival->key_len, arrival->state_len));
                heap_free(&plugin.heap, arrival);
                return true;
        }
        return false;
}

static void arrivals_expire(void)
{
        uint64_t now_ms = plugin_now_ms();
        for (struct arrival **at = &arrivals; *at != NULL;) {
                struct arrival *arrival = *at;
                if (now_ms < arrival->at_ms + ARRIVAL_MS) {
                        at = &arrival->next;
                        continue;
                }
                *at = arrival->next;
                heap_free(&plugin.heap, arrival);
        }
}

/* Redis logs that they came; so their end is told, too. */
static void companions_drop(struct redis_context *ctx)
{
        struct cursor cursor = cursor_of(buffer_view(&companions));
        while (cursor_left(&cursor) > 0) {
                struct bytes text = cursor_slice(&cursor);
                struct redis_string *name =
                        redis.CreateString(NULL, (const char *)text.ptr, text.len);
                companion_drop(ctx, name);
                redis.Replicate(ctx, "DEL", "s", name);
                redis.FreeString(NULL, name);
        }
        buffer_reset(&companions);
}

void migrate_turn(struct redis_context *ctx)
{
        if (companions.len > 0)
                companions_drop(ctx);
        if (arrivals != NULL)
                arrivals_expire();
        if (cluster_look(ctx))
                left_ship(ctx);
        else if (left.len > 0)
                buffer_reset(&left);
}
