/* Flags: text -> compiled -> verdict.
 *
 *   compiled  u8 killed, slice salt, u16 share otherwise, u8 rules; each: u16 share, u8 conditions;
 *             each: u8 relation, slice attribute, slice value
 *
 * Whatever is not understood is refused as a whole: a flag that does half of what was meant is
 * worse than none. */
#include "base/cursor.h"
#include "base/hash.h"
#include "board/board.h"

#include <stdio.h>

enum relation {
        RELATION_IS,
        RELATION_IS_NOT,
        RELATION_BEGINS,
        RELATION_COUNT,
};

enum {
        WORDS_MAX = 4 * FLAG_CONDITIONS_MAX + 2,
};

struct words {
        struct bytes list[WORDS_MAX];
        size_t count;
};

struct compiler {
        struct bytes text;
        size_t at;
        char *why;
        unsigned statement;
        bool killed;
        bool otherwise_said;
        struct bytes salt;
        uint32_t otherwise;
        unsigned rule_count;
        struct buffer rules;
};

static enum err wrong(const struct compiler *compiler, const char *what)
{
        if (compiler->why != NULL)
                (void)snprintf(compiler->why, FLAG_WHY_SIZE, "statement %u: %s",
                               compiler->statement, what);
        return ERR_MALFORMED;
}

/* ---- words ---- */

static bool is_end(uint8_t byte)
{
        return byte == ';' || byte == '\n';
}

static bool is_blank(uint8_t byte)
{
        return byte == ' ' || byte == '\t' || byte == '\r';
}

static bool word_read(struct compiler *compiler, struct bytes *ret)
{
        const uint8_t *text = compiler->text.ptr;
        size_t begin = compiler->at;
        bool quoted = text[begin] == '"';
        size_t end = begin + (quoted ? 1 : 0);
        while (end < compiler->text.len && (quoted ? text[end] != '"' && text[end] != '\n'
                                                   : !is_blank(text[end]) && !is_end(text[end])))
                end++;
        if (quoted && (end == compiler->text.len || text[end] != '"'))
                return false;
        *ret = quoted ? bytes_of(text + begin + 1, end - begin - 1)
                      : bytes_of(text + begin, end - begin);
        compiler->at = end + (quoted ? 1 : 0);
        return true;
}

/* The words of the next statement; none at the end of the text. */
static enum err words_read(struct compiler *compiler, struct words *words)
{
        words->count = 0;
        while (compiler->at < compiler->text.len) {
                uint8_t byte = compiler->text.ptr[compiler->at];
                if (is_end(byte) && words->count > 0)
                        break;
                if (is_end(byte) || is_blank(byte)) {
                        compiler->at++;
                        continue;
                }
                if (words->count == WORDS_MAX)
                        return wrong(compiler, "too many conditions");
                if (!word_read(compiler, &words->list[words->count]))
                        return wrong(compiler, "a double quote has no end");
                words->count++;
        }
        return ERR_NONE;
}

static bool word_is(struct bytes word, const char *text)
{
        return bytes_equal(word, bytes_of_str(text));
}

/* "on", "off", "25%", "0.5%". */
static bool share_read(struct bytes word, uint32_t *ret)
{
        uint32_t whole = 0;
        uint32_t unit = FLAG_SHARE_ALL / 100;
        size_t at = 0;
        *ret = word_is(word, "on") ? FLAG_SHARE_ALL : 0;
        if (word_is(word, "on") || word_is(word, "off"))
                return true;
        if (word.len < 2 || word.len > 7 || word.ptr[word.len - 1] != '%')
                return false;
        for (; at < word.len - 1 && word.ptr[at] >= '0' && word.ptr[at] <= '9'; at++)
                whole = whole * 10 + (word.ptr[at] - (uint32_t)'0');
        if (at == 0)
                return false;
        whole *= unit;
        if (word.ptr[at] == '.') {
                for (at++; at < word.len - 1 && word.ptr[at] >= '0' && word.ptr[at] <= '9'; at++) {
                        unit /= 10;
                        if (unit == 0)
                                return false;
                        whole += (word.ptr[at] - (uint32_t)'0') * unit;
                }
        }
        *ret = whole;
        return at == word.len - 1 && whole <= FLAG_SHARE_ALL;
}

/* ---- statements ---- */

static bool relation_read(struct bytes word, uint8_t *ret)
{
        static const char *const names[RELATION_COUNT] = {"is", "is-not", "begins"};
        for (unsigned i = 0; i < RELATION_COUNT; i++) {
                if (word_is(word, names[i])) {
                        *ret = (uint8_t)i;
                        return true;
                }
        }
        return false;
}

/* when A is V [and A is V]... SHARE */
static enum err when_compile(struct compiler *compiler, const struct words *words)
{
        uint32_t share = 0;
        if (words->count < 5 || (words->count - 1) % 4 != 0)
                return wrong(compiler, "want: when ATTRIBUTE is VALUE [and ...] SHARE");
        if (!share_read(words->list[words->count - 1], &share))
                return wrong(compiler, "a share is on, off or a percentage such as 2.5%");
        if (compiler->rule_count == FLAG_RULES_MAX)
                return wrong(compiler, "too many rules");
        size_t conditions = (words->count - 1) / 4;
        buffer_u16(&compiler->rules, (uint16_t)share);
        buffer_u8(&compiler->rules, (uint8_t)conditions);
        for (size_t i = 0; i < conditions; i++) {
                const struct bytes *word = &words->list[1 + 4 * i];
                uint8_t relation = 0;
                if (!relation_read(word[1], &relation))
                        return wrong(compiler, "a condition is: ATTRIBUTE is, is-not or begins "
                                               "VALUE");
                if (i > 0 && !word_is(word[-1], "and"))
                        return wrong(compiler, "between two conditions stands: and");
                buffer_u8(&compiler->rules, relation);
                buffer_slice(&compiler->rules, word[0]);
                buffer_slice(&compiler->rules, word[2]);
        }
        compiler->rule_count++;
        return ERR_NONE;
}

static enum err statement_compile(struct compiler *compiler, const struct words *words)
{
        struct bytes first = words->list[0];
        if (word_is(first, "killed") && words->count == 1) {
                compiler->killed = true;
                return ERR_NONE;
        }
        if (word_is(first, "salt") && words->count == 2 && words->list[1].len <= BOARD_NAME_MAX) {
                compiler->salt = words->list[1];
                return ERR_NONE;
        }
        if (word_is(first, "otherwise") && words->count == 2) {
                if (compiler->otherwise_said)
                        return wrong(compiler, "otherwise is said twice");
                compiler->otherwise_said = true;
                if (!share_read(words->list[1], &compiler->otherwise))
                        return wrong(compiler, "a share is on, off or a percentage such as 2.5%");
                return ERR_NONE;
        }
        if (word_is(first, "when"))
                return when_compile(compiler, words);
        return wrong(compiler, "want killed, salt WORD, when ... or otherwise SHARE");
}

static enum err statements_compile(struct compiler *compiler)
{
        struct words words;
        for (;;) {
                compiler->statement++;
                enum err err = words_read(compiler, &words);
                if (err != ERR_NONE || words.count == 0)
                        return err;
                err = statement_compile(compiler, &words);
                if (err != ERR_NONE)
                        return err;
        }
}

enum err flag_compile(struct bytes name, struct bytes text, struct buffer *out,
                      char why[FLAG_WHY_SIZE])
{
        struct compiler compiler = {.text = text, .salt = name};
        compiler.why = why;
        if (text.len > FLAG_TEXT_BYTES_MAX) {
                (void)wrong(&compiler, "the text is too long");
                return ERR_LIMIT;
        }
        buffer_init(&compiler.rules, out->heap);
        enum err err = statements_compile(&compiler);
        if (err == ERR_NONE) {
                buffer_u8(out, compiler.killed);
                buffer_slice(out, compiler.salt);
                buffer_u16(out, (uint16_t)compiler.otherwise);
                buffer_u8(out, (uint8_t)compiler.rule_count);
                buffer_bytes(out, buffer_view(&compiler.rules));
                if (out->err != ERR_NONE || compiler.rules.err != ERR_NONE)
                        err = ERR_NOMEM;
        }
        buffer_fini(&compiler.rules);
        return err;
}

/* ---- evaluating ---- */

struct condition {
        uint8_t relation;
        struct bytes attribute;
        struct bytes value;
};

static struct condition condition_read(struct cursor *cursor)
{
        struct condition condition = {.relation = cursor_u8(cursor)};
        condition.attribute = cursor_slice(cursor);
        condition.value = cursor_slice(cursor);
        if (condition.relation >= RELATION_COUNT)
                cursor_fail(cursor, ERR_MALFORMED);
        return condition;
}

static uint32_t share_decode(struct cursor *cursor)
{
        uint16_t share = cursor_u16(cursor);
        if (share > FLAG_SHARE_ALL)
                cursor_fail(cursor, ERR_MALFORMED);
        return share;
}

bool flag_valid(struct bytes compiled)
{
        struct cursor cursor = cursor_of(compiled);
        uint8_t killed = cursor_u8(&cursor);
        (void)cursor_slice(&cursor);
        (void)share_decode(&cursor);
        uint8_t rules = cursor_u8(&cursor);
        for (uint8_t i = 0; i < rules && !cursor_failed(&cursor); i++) {
                (void)share_decode(&cursor);
                uint8_t conditions = cursor_u8(&cursor);
                for (uint8_t j = 0; j < conditions && !cursor_failed(&cursor); j++)
                        (void)condition_read(&cursor);
        }
        return killed <= 1 && cursor_done(&cursor) == ERR_NONE;
}

uint32_t flag_bucket(struct bytes salt, struct bytes user)
{
        static const struct hash_key key = {0x6d6572696469616e, 0x666c61672d763031};
        uint8_t joined[BOARD_NAME_MAX + 1 + 256];
        size_t salt_len = salt.len < BOARD_NAME_MAX ? salt.len : BOARD_NAME_MAX;
        size_t user_len = user.len < 256 ? user.len : 256;
        if (salt_len > 0)
                memcpy(joined, salt.ptr, salt_len);
        joined[salt_len] = 0;
        if (user_len > 0)
                memcpy(joined + salt_len + 1, user.ptr, user_len);
        uint64_t hash = hash_sip(key, bytes_of(joined, salt_len + 1 + user_len));
        return (uint32_t)((hash >> 32) * FLAG_SHARE_ALL >> 32);
}

/* False: the client has no such attribute. */
static bool attribute_find(const struct flag_client *client, struct bytes name, struct bytes *ret)
{
        if (word_is(name, "user") || word_is(name, "region")) {
                *ret = name.ptr[0] == 'u' ? client->user : client->region;
                return true;
        }
        for (size_t i = 0; i < client->attribute_count; i++) {
                if (bytes_equal(client->attributes[i].name, name)) {
                        *ret = client->attributes[i].value;
                        return true;
                }
        }
        return false;
}

static bool condition_holds(const struct condition *condition, const struct flag_client *client)
{
        struct bytes value = {0};
        bool there = attribute_find(client, condition->attribute, &value);
        switch ((enum relation)condition->relation) {
        case RELATION_IS:
                return there && bytes_equal(value, condition->value);
        case RELATION_IS_NOT:
                return !there || !bytes_equal(value, condition->value);
        case RELATION_BEGINS:
                return there && bytes_starts_with(value, condition->value);
        case RELATION_COUNT:
                break;
        }
        return false;
}

static bool rule_fits(struct cursor *cursor, const struct flag_client *client)
{
        bool fits = true;
        uint8_t conditions = cursor_u8(cursor);
        for (uint8_t i = 0; i < conditions; i++) {
                struct condition condition = condition_read(cursor);
                fits = fits && condition_holds(&condition, client);
        }
        return fits;
}

struct flag_verdict flag_evaluate(struct bytes compiled, const struct flag_client *client)
{
        struct cursor cursor = cursor_of(compiled);
        struct flag_verdict verdict = {.reason = FLAG_OTHERWISE};
        if (cursor_u8(&cursor) != 0) {
                verdict.reason = FLAG_KILLED;
                return verdict;
        }
        struct bytes salt = cursor_slice(&cursor);
        verdict.share = share_decode(&cursor);
        uint8_t rules = cursor_u8(&cursor);
        for (uint8_t i = 0; i < rules; i++) {
                uint32_t share = share_decode(&cursor);
                if (!rule_fits(&cursor, client))
                        continue;
                verdict.reason = FLAG_RULE;
                verdict.rule = i + 1u;
                verdict.share = share;
                break;
        }
        verdict.bucket = flag_bucket(salt, client->user);
        verdict.on = verdict.bucket < verdict.share && !cursor_failed(&cursor);
        return verdict;
}
