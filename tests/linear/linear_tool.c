/* linear_tool - judges a recorded history, one operation a line, on standard input:
 *
 *   CALLED RETURNED lock KEY OWNER WHAT [TOKEN]
 *       WHAT: granted held released not-owner use free broken
 *   CALLED RETURNED txn WORD...
 *       if:KEY=VALUE  then:KEY=VALUE  else:KEY=VALUE  saw:KEY=VALUE  no (comparisons do not hold)
 *
 * Times are numbers; RETURNED is - where no answer came. The value - is: none. Names are any words.
 * Prints the verdict and ends with 0 (linearizable), 1 (not), 3 (too hard), 2 (cannot be read). */
#include "linear/linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        LINE_MAX_BYTES = 4096,
        WORDS_MAX = 128,
        NAMES_MAX = 200000,
        HEAP_MAX_MIB = 1024,
};

struct names {
        char *items[NAMES_MAX];
        uint32_t slots[2 * NAMES_MAX];
        uint32_t count;
};

struct history {
        struct linear_op *ops;
        char **lines;
        size_t count, size;
};

static struct names keys, values, owners;
static struct history locks, txns;
static unsigned line_number;

static void refuse(const char *why)
{
        fprintf(stderr, "line %u: %s\n", line_number, why);
        exit(2);
}

static void *grown(void *ptr, size_t size)
{
        void *larger = realloc(ptr, size);
        if (larger == NULL)
                refuse("out of memory");
        return larger;
}

static char *copied(const char *text)
{
        size_t len = strlen(text) + 1;
        return memcpy(grown(NULL, len), text, len);
}

/* The number of a name, from 0. */
static uint32_t name_of(struct names *names, const char *text)
{
        uint64_t hash = 14695981039346656037u;
        for (const char *c = text; *c != '\0'; c++)
                hash = (hash ^ (unsigned char)*c) * 1099511628211u;
        size_t at = hash % (2 * NAMES_MAX);
        while (names->slots[at] != 0 && strcmp(names->items[names->slots[at] - 1], text) != 0)
                at = (at + 1) % (2 * NAMES_MAX);
        if (names->slots[at] != 0)
                return names->slots[at] - 1;
        if (names->count == NAMES_MAX)
                refuse("too many names");
        names->items[names->count] = copied(text);
        names->slots[at] = ++names->count;
        return names->count - 1;
}

static uint64_t number_of(const char *text)
{
        char *end = NULL;
        unsigned long long value = strtoull(text, &end, 10);
        if (*text == '\0' || *end != '\0')
                refuse("a number is missing");
        return value;
}

static struct linear_op *op_add(struct history *history, const char *line)
{
        if (history->count == history->size) {
                history->size = history->size == 0 ? 256 : history->size * 2;
                history->ops = grown(history->ops, history->size * sizeof *history->ops);
                history->lines = grown(history->lines, history->size * sizeof(char *));
        }
        history->lines[history->count] = copied(line);
        struct linear_op *op = &history->ops[history->count++];
        memset(op, 0, sizeof *op);
        return op;
}

static void lock_read(struct linear_op *op, char **words, size_t count)
{
        static const char *const names[LINEAR_LOCK_OP_COUNT] = {
                [LINEAR_GRANTED] = "granted",   [LINEAR_HELD] = "held",
                [LINEAR_RELEASED] = "released", [LINEAR_NOT_OWNER] = "not-owner",
                [LINEAR_USE] = "use",           [LINEAR_FREE] = "free",
                [LINEAR_BROKEN] = "broken",
        };
        if (count < 3)
                refuse("lock KEY OWNER WHAT [TOKEN]");
        op->lock.key = name_of(&keys, words[0]);
        op->lock.owner = name_of(&owners, words[1]) + 1;
        for (int i = 1; i < LINEAR_LOCK_OP_COUNT; i++)
                if (strcmp(names[i], words[2]) == 0)
                        op->lock.op = (enum linear_lock_op)i;
        if (op->lock.op == 0)
                refuse("what happened to the lock?");
        op->lock.token = count > 3 ? number_of(words[3]) : 0;
}

static void pair_add(struct linear_pairs *pairs, char *text)
{
        char *value = strchr(text, '=');
        if (value == NULL)
                refuse("KEY=VALUE is missing");
        *value++ = '\0';
        union {
                const struct linear_pair *in;
                struct linear_pair *out;
        } items = {pairs->items};
        items.out = grown(items.out, (pairs->count + 1) * sizeof *items.out);
        items.out[pairs->count].key = name_of(&keys, text);
        items.out[pairs->count].value =
                strcmp(value, "-") == 0 ? 0 : (uint64_t)name_of(&values, value) + 1;
        pairs->items = items.in;
        pairs->count++;
}

static void txn_read(struct linear_op *op, char **words, size_t count)
{
        op->txn.held = true;
        for (size_t i = 0; i < count; i++) {
                char *word = words[i];
                if (strcmp(word, "no") == 0)
                        op->txn.held = false;
                else if (strncmp(word, "if:", 3) == 0)
                        pair_add(&op->txn.when, word + 3);
                else if (strncmp(word, "then:", 5) == 0)
                        pair_add(&op->txn.then, word + 5);
                else if (strncmp(word, "else:", 5) == 0)
                        pair_add(&op->txn.otherwise, word + 5);
                else if (strncmp(word, "saw:", 4) == 0)
                        pair_add(&op->txn.saw, word + 4);
                else
                        refuse("if: then: else: saw: no");
        }
}

static void line_read(char *line)
{
        char *words[WORDS_MAX], *rest = NULL;
        size_t count = 0;
        char whole[LINE_MAX_BYTES];
        line[strcspn(line, "\n")] = '\0';
        memcpy(whole, line, strlen(line) + 1);
        for (char *word = strtok_r(line, " ", &rest); word != NULL && count < WORDS_MAX;
             word = strtok_r(NULL, " ", &rest))
                words[count++] = word;
        if (count == 0 || words[0][0] == '#')
                return;
        if (count < 4)
                refuse("CALLED RETURNED lock|txn ...");
        bool lock = strcmp(words[2], "lock") == 0;
        if (!lock && strcmp(words[2], "txn") != 0)
                refuse("lock or txn?");
        struct linear_op *op = op_add(lock ? &locks : &txns, whole);
        op->called = number_of(words[0]);
        op->returned = strcmp(words[1], "-") == 0 ? LINEAR_NEVER : number_of(words[1]);
        if (op->returned < op->called)
                refuse("an answer before its call");
        if (lock)
                lock_read(op, words + 3, count - 3);
        else
                txn_read(op, words + 3, count - 3);
}

static int judge(struct heap *heap, enum linear_model model, const struct history *history,
                 const char *name)
{
        static const char *const verdicts[] = {[LINEAR_GOOD] = "linearizable",
                                               [LINEAR_BAD] = "NOT linearizable",
                                               [LINEAR_UNKNOWN] = "too hard to say"};
        if (history->count == 0)
                return 0;
        struct linear_report report =
                linear_check(heap, model, history->ops, history->count, keys.count);
        printf("%s: %zu operations in %zu parts, %llu states tried: %s%s\n", name, history->count,
               report.parts, (unsigned long long)report.tried, verdicts[report.verdict],
               report.often ? ", if what had no answer may have happened more than once" : "");
        if (report.verdict == LINEAR_BAD)
                printf("%s: after %zu of its part there is no place for: %s\n", name, report.after,
                       history->lines[report.op]);
        return report.verdict == LINEAR_GOOD ? 0 : report.verdict == LINEAR_BAD ? 1 : 3;
}

int main(void)
{
        static char line[LINE_MAX_BYTES];
        struct heap heap;
        heap_init(&heap, (size_t)HEAP_MAX_MIB << 20);
        while (fgets(line, sizeof line, stdin) != NULL) {
                line_number++;
                if (strlen(line) == sizeof line - 1)
                        refuse("the line is too long");
                line_read(line);
        }
        int status = judge(&heap, LINEAR_LOCKS, &locks, "locks");
        int other = judge(&heap, LINEAR_VALUES, &txns, "values");
        return status > other ? status : other;
}
