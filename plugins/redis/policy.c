/* policy.c - what becomes of concurrent writes, by the prefix of a key; and the merge functions.
 *
 *      MERIDIAN.POLICY [DATA prefix typed|last-write|siblings|merge function [PUBLISH]] ...
 *                      [FUNCTION name text] ...
 *
 * takes the place of all that was said before; without arguments it tells what holds. The daemon
 * sends it whenever the topology says so. It is a record of the log and of snapshots, for a replica
 * and a restarted server must come to the same values.
 *
 * A policy works at the writer alone: under last-write and siblings a change is told as the whole
 * value (replace.c), as another kind of delta. What is kept then depends on the delta, so regions
 * agree while a policy changes. Only what is *shown* for several siblings follows the functions
 * here; regions that have the same functions show the same, and a new function shows anew.
 *
 * Fails: a malformed command is refused and changes nothing. */
#include "plugin.h"

#include "merge/merge.h"

enum {
        POLICIES_MAX = 64,
        FUNCTIONS_MAX = 8,
        PREFIX_LEN_MAX = 64,
        TEXT_LEN_MAX = 64 << 10,
};

struct policy_row {
        struct bytes prefix;
        enum policy policy;
        int function; /* index, -1: none */
        bool publish; /* channels that begin so reach other regions (bus.c) */
};

struct function_row {
        struct bytes name;
        struct bytes text;
};

/* Slices point into `saved`, which is the command as it came. */
struct policies {
        struct buffer saved; /* varint count, slice of each argument */
        struct policy_row rows[POLICIES_MAX];
        struct function_row functions[FUNCTIONS_MAX];
        unsigned count;
        unsigned function_count;
        bool first[256]; /* first bytes of prefixes */
        bool all;        /* there is an empty one */
};

static struct policies policies;
static struct buffer merged;

static const char *const policy_names[POLICY_COUNT] = {
        [POLICY_TYPED] = "typed",
        [POLICY_LAST_WRITE] = "last-write",
        [POLICY_SIBLINGS] = "siblings",
        [POLICY_MERGE] = "merge",
};

const char *policy_name(enum policy policy)
{
        return policy_names[policy];
}

/* ---- looking */

static const struct policy_row *row_of(struct bytes key)
{
        const struct policy_row *best = NULL;
        for (unsigned i = 0; i < policies.count; i++) {
                const struct policy_row *row = &policies.rows[i];
                bool fits = row->prefix.len <= key.len &&
                            (row->prefix.len == 0 ||
                             memcmp(row->prefix.ptr, key.ptr, row->prefix.len) == 0);
                if (fits && (best == NULL || row->prefix.len > best->prefix.len))
                        best = row;
        }
        return best;
}

enum policy policy_of(struct bytes key)
{
        if (policies.count == 0 || (!policies.all && (key.len == 0 || !policies.first[*key.ptr])))
                return POLICY_TYPED;
        const struct policy_row *row = row_of(key);
        return row == NULL ? POLICY_TYPED : row->policy;
}

bool policy_publishes(struct bytes channel)
{
        const struct policy_row *row = policies.count == 0 ? NULL : row_of(channel);
        return row != NULL && row->publish;
}

/* ---- what a local write tells */

/* What these tell is the same under every policy. */
static bool event_is_plain(const char *event)
{
        static const char *const plain[] = {"del",     "expire",      "persist",  "expired",
                                            "evicted", "rename_from", "move_from"};
        for (size_t i = 0; i < COUNT_OF(plain); i++) {
                if (strcmp(plain[i], event) == 0)
                        return true;
        }
        return false;
}

static bool is_string(struct redis_context *ctx, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        bool is = open != NULL && redis.KeyType(open) == REDIS_KEY_STRING;
        if (open != NULL)
                redis.CloseKey(open);
        return is;
}

bool policy_notified(struct redis_context *ctx, const char *event, struct crdt_name name,
                     struct redis_string *key)
{
        enum policy policy = policy_of(name.key);
        if (policy == POLICY_LAST_WRITE && strcmp(event, "spop") == 0)
                return true; /* it comes before the change: wrap.c tells what is left */
        if (policy == POLICY_LAST_WRITE && strcmp(event, "del") == 0) {
                replace_forget(name);
                return true;
        }
        if (policy == POLICY_TYPED || event_is_plain(event) ||
            (policy != POLICY_LAST_WRITE && !is_string(ctx, key)))
                return false;
        replace_key(ctx, name, key);
        plugin.stash.used = true;
        return true;
}

bool policy_tells_whole(struct bytes key, bool string)
{
        enum policy policy = policy_of(key);
        return policy == POLICY_LAST_WRITE || (string && policy != POLICY_TYPED);
}

/* ---- what is shown for several siblings */

bool policy_show(void *context, struct crdt_name name, const struct crdt_sibling *siblings,
                 size_t count, struct bytes *ret_value)
{
        char why[MERGE_WHY_SIZE] = "";
        struct merge_sibling given[CLOCK_REGIONS_MAX];
        const struct policy_row *row = policies.count == 0 ? NULL : row_of(name.key);
        (void)context;
        if (row == NULL || row->policy != POLICY_MERGE || row->function < 0)
                return false;
        for (size_t i = 0; i < count && i < COUNT_OF(given); i++)
                given[i] = (struct merge_sibling){siblings[i].value, siblings[i].stamp.origin,
                                                  siblings[i].stamp.hlc};
        if (merged.heap == NULL)
                buffer_init(&merged, &plugin.heap);
        buffer_reset(&merged);
        enum merge_result result =
                merge_run(&plugin.heap, policies.functions[row->function].text, given,
                          count < COUNT_OF(given) ? count : COUNT_OF(given), &merged, why);
        if (result != MERGE_DONE) {
                conflict_merge_failed(name, &siblings[count - 1], merge_result_name(result), why);
                return false;
        }
        *ret_value = buffer_view(&merged);
        return true;
}

/* ---- MERIDIAN.POLICY */

static bool policy_read(struct bytes text, enum policy *ret)
{
        for (unsigned i = 0; i < POLICY_COUNT; i++) {
                if (bytes_equal(text, bytes_of_str(policy_names[i]))) {
                        *ret = (enum policy)i;
                        return true;
                }
        }
        return false;
}

static const char *read_data(struct policies *to, struct cursor *cursor, struct bytes *ret_function)
{
        struct policy_row *row = &to->rows[to->count];
        if (to->count == POLICIES_MAX)
                return "MERIDIAN there are more than 64 prefixes";
        row->prefix = cursor_slice(cursor);
        if (!policy_read(cursor_slice(cursor), &row->policy))
                return "MERIDIAN DATA wants a prefix, typed, last-write, siblings or merge, and a "
                       "function";
        *ret_function = cursor_slice(cursor);
        row->function = -1;
        if (row->prefix.len > PREFIX_LEN_MAX)
                return "MERIDIAN a prefix is longer than 64 bytes";
        if ((row->policy == POLICY_MERGE) != (ret_function->len > 0))
                return "MERIDIAN a function belongs to merge, and to it alone";
        to->all = to->all || row->prefix.len == 0;
        if (row->prefix.len > 0)
                to->first[row->prefix.ptr[0]] = true;
        to->count++;
        return NULL;
}

static const char *read_publish(struct policies *to)
{
        if (to->count == 0)
                return "MERIDIAN PUBLISH belongs behind a DATA";
        to->rows[to->count - 1].publish = true;
        return NULL;
}

static const char *read_function(struct policies *to, struct cursor *cursor)
{
        char why[MERGE_WHY_SIZE];
        struct function_row *row = &to->functions[to->function_count];
        if (to->function_count == FUNCTIONS_MAX)
                return "MERIDIAN there are more than 8 functions";
        row->name = cursor_slice(cursor);
        row->text = cursor_slice(cursor);
        if (row->name.len == 0 || row->text.len > TEXT_LEN_MAX)
                return "MERIDIAN FUNCTION wants a name and a text of at most 64 KiB";
        if (!merge_check(&plugin.heap, row->text, why))
                redis.Log(NULL, "warning", "meridian: the merge function '%.*s': %s",
                          BYTES_ARGS(row->name), why);
        to->function_count++;
        return NULL;
}

static const char *functions_find(struct policies *to, const struct bytes *wanted)
{
        for (unsigned i = 0; i < to->count; i++) {
                for (unsigned k = 0; k < to->function_count; k++) {
                        if (wanted[i].len > 0 && bytes_equal(wanted[i], to->functions[k].name))
                                to->rows[i].function = (int)k;
                }
                if (wanted[i].len > 0 && to->rows[i].function < 0)
                        return "MERIDIAN a function is named that is not given";
        }
        return NULL;
}

/* Reads `to->saved`. Returns NULL, or what is wrong. */
static const char *policies_read(struct policies *to)
{
        struct bytes wanted[POLICIES_MAX] = {0};
        struct cursor cursor = cursor_of(buffer_view(&to->saved));
        const char *wrong = NULL;
        while (wrong == NULL && cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                struct bytes word = cursor_slice(&cursor);
                if (bytes_equal(word, BYTES("DATA")))
                        wrong = read_data(to, &cursor, &wanted[to->count % POLICIES_MAX]);
                else if (bytes_equal(word, BYTES("PUBLISH")))
                        wrong = read_publish(to);
                else if (bytes_equal(word, BYTES("FUNCTION")))
                        wrong = read_function(to, &cursor);
                else
                        wrong = "MERIDIAN DATA, PUBLISH or FUNCTION is expected";
        }
        if (wrong == NULL && cursor_failed(&cursor))
                wrong = "MERIDIAN something is missing at the end";
        return wrong != NULL ? wrong : functions_find(to, wanted);
}

/* True where it is new. The rows' slices follow the buffer into `policies`. */
static bool policies_take(struct policies *from)
{
        bool same = bytes_equal(buffer_view(&from->saved), buffer_view(&policies.saved));
        if (same) {
                buffer_fini(&from->saved);
                return false;
        }
        if (policies.saved.heap != NULL)
                buffer_fini(&policies.saved);
        policies = *from;
        return true;
}

static void policies_show(struct redis_context *ctx)
{
        bool applying = plugin.applying;
        plugin.applying = true;
        keyspace_siblings_show(plugin.keyspace, native_of(ctx));
        plugin.applying = applying;
}

static int reply_policies(struct redis_context *ctx)
{
        redis.ReplyWithArray(ctx, (long)policies.count);
        for (unsigned i = 0; i < policies.count; i++) {
                const struct policy_row *row = &policies.rows[i];
                const char *name = policy_names[row->policy];
                struct bytes function = bytes_of(NULL, 0);
                if (row->function >= 0)
                        function = policies.functions[row->function].name;
                redis.ReplyWithArray(ctx, row->publish ? 4 : 3);
                redis.ReplyWithStringBuffer(
                        ctx, row->prefix.len == 0 ? "" : (const char *)row->prefix.ptr,
                        row->prefix.len);
                redis.ReplyWithStringBuffer(ctx, name, strlen(name));
                redis.ReplyWithStringBuffer(
                        ctx, function.len == 0 ? "" : (const char *)function.ptr, function.len);
                if (row->publish)
                        redis.ReplyWithStringBuffer(ctx, "publish", 7);
        }
        return REDIS_OK;
}

int policy_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        static struct policies made; /* too large for a stack */
        batch_drain();
        if (argc == 1)
                return reply_policies(ctx);
        memset(&made, 0, sizeof(made));
        buffer_init(&made.saved, &plugin.heap);
        for (int i = 1; i < argc; i++)
                buffer_slice(&made.saved, plugin_bytes(argv[i]));
        plugin_must(made.saved.err, "the policies");
        /* NONE: there are no policies. */
        if (argc == 2 && bytes_equal(plugin_bytes(argv[1]), BYTES("NONE")))
                buffer_reset(&made.saved);
        const char *wrong = policies_read(&made);
        if (wrong != NULL) {
                buffer_fini(&made.saved);
                return redis.ReplyWithError(ctx, wrong);
        }
        if (policies_take(&made)) {
                log_flush(ctx);
                policies_show(ctx);
                redis.ReplicateVerbatim(ctx);
        }
        return redis.ReplyWithSimpleString(ctx, "OK");
}

struct bytes policy_saved(void)
{
        return buffer_view(&policies.saved);
}

bool policy_load(struct bytes saved)
{
        static struct policies made;
        memset(&made, 0, sizeof(made));
        buffer_init(&made.saved, &plugin.heap);
        buffer_bytes(&made.saved, saved);
        plugin_must(made.saved.err, "the policies");
        if (policies_read(&made) != NULL) {
                buffer_fini(&made.saved);
                return false;
        }
        policies_take(&made);
        return true;
}

uint64_t policy_count(void)
{
        return policies.count;
}
