/* Text to tokens. Knows blanks, comments (`#` to the end of the line, C comments), words, strings
 * and marks; knows nothing of keys. A byte that has no place here gives a BAD token, after which
 * the parser stops. A word may end in ":", which the parser takes for the assignment of a key. */
#include "base/lexer.h"

void lexer_init(struct lexer *lexer, struct bytes text)
{
        *lexer = (struct lexer){text.ptr, text.ptr, text.ptr, 1};
        if (text.len > 0)
                lexer->end = text.ptr + text.len;
}

static size_t lexer_left(const struct lexer *lexer)
{
        return lexer->at == lexer->end ? 0 : (size_t)(lexer->end - lexer->at);
}

static void lexer_step(struct lexer *lexer)
{
        if (*lexer->at++ == '\n') {
                lexer->line++;
                lexer->line_begin = lexer->at;
        }
}

static struct token lexer_token(const struct lexer *lexer, enum token_kind kind)
{
        return (struct token){
                .kind = kind,
                .line = lexer->line,
                .column = lexer->at == lexer->line_begin
                                  ? 1
                                  : (uint32_t)(lexer->at - lexer->line_begin) + 1,
        };
}

static struct token token_bad(struct token token, const char *fault, const char *cure)
{
        token.kind = TOKEN_BAD;
        token.fault = fault;
        token.cure = cure;
        return token;
}

static bool starts_comment(const struct lexer *lexer)
{
        return lexer_left(lexer) >= 2 && lexer->at[0] == '/' && lexer->at[1] == '*';
}

/* False: the comment has no end. */
static bool skip_comment(struct lexer *lexer)
{
        lexer->at += 2;
        while (lexer_left(lexer) >= 2) {
                if (lexer->at[0] == '*' && lexer->at[1] == '/') {
                        lexer->at += 2;
                        return true;
                }
                lexer_step(lexer);
        }
        return false;
}

static bool is_blank(uint8_t byte)
{
        return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Skips blanks and comments. False: a comment has no end, and *ret_open is where it begins. */
static bool skip_blanks(struct lexer *lexer, struct token *ret_open)
{
        while (lexer_left(lexer) > 0) {
                if (is_blank(*lexer->at)) {
                        lexer_step(lexer);
                } else if (*lexer->at == '#') {
                        while (lexer_left(lexer) > 0 && *lexer->at != '\n')
                                lexer->at++;
                } else if (starts_comment(lexer)) {
                        *ret_open = lexer_token(lexer, TOKEN_BAD);
                        if (!skip_comment(lexer))
                                return false;
                } else {
                        break;
                }
        }
        return true;
}

static bool is_word(uint8_t byte)
{
        return byte > ' ' && byte < 0x7f && strchr("{}[]=,;\"'#", byte) == NULL;
}

static struct token lexer_word(struct lexer *lexer, struct token token)
{
        const uint8_t *begin = lexer->at;
        while (lexer_left(lexer) > 0 && is_word(*lexer->at) && !starts_comment(lexer))
                lexer->at++;
        token.kind = TOKEN_WORD;
        token.text = bytes_of(begin, (size_t)(lexer->at - begin));
        return token;
}

static struct token lexer_string(struct lexer *lexer, struct token token)
{
        uint8_t quote = *lexer->at++;
        const uint8_t *begin = lexer->at;
        while (lexer_left(lexer) > 0 && *lexer->at != quote) {
                if (*lexer->at < ' ' || *lexer->at == 0x7f || *lexer->at == '\\')
                        return token_bad(token, "a string has a byte that no value can have",
                                         "use printable text without backslashes, and close the "
                                         "string on its line");
                lexer->at++;
        }
        if (lexer_left(lexer) == 0)
                return token_bad(token, "a string has no end", "add the missing quote");
        token.kind = TOKEN_WORD;
        token.quoted = true;
        token.text = bytes_of(begin, (size_t)(lexer->at - begin));
        lexer->at++;
        return token;
}

static bool starts_lines(const struct lexer *lexer)
{
        return lexer_left(lexer) >= 3 && memcmp(lexer->at, "\"\"\"", 3) == 0;
}

/* Between triple quotes: any printable text, of many lines, as it stands. */
static struct token lexer_lines(struct lexer *lexer, struct token token)
{
        lexer->at += 3;
        const uint8_t *begin = lexer->at;
        while (lexer_left(lexer) > 0 && !starts_lines(lexer)) {
                if ((*lexer->at < ' ' && !is_blank(*lexer->at)) || *lexer->at >= 0x7f)
                        return token_bad(token, "a text has a byte that is not printable ASCII",
                                         "remove it");
                lexer_step(lexer);
        }
        if (lexer_left(lexer) == 0)
                return token_bad(token, "a text has no end", "add the missing triple quotes");
        token.kind = TOKEN_WORD;
        token.quoted = true;
        token.text = bytes_of(begin, (size_t)(lexer->at - begin));
        lexer->at += 3;
        return token;
}

static enum token_kind mark_kind(uint8_t byte)
{
        static const struct {
                char mark;
                enum token_kind kind;
        } marks[] = {
                {'{', TOKEN_OPEN},       {'}', TOKEN_CLOSE},  {'[', TOKEN_LIST_OPEN},
                {']', TOKEN_LIST_CLOSE}, {'=', TOKEN_ASSIGN}, {';', TOKEN_SEPARATOR},
                {',', TOKEN_SEPARATOR},
        };
        for (size_t i = 0; i < COUNT_OF(marks); i++) {
                if (byte == (uint8_t)marks[i].mark)
                        return marks[i].kind;
        }
        return TOKEN_BAD;
}

static struct token lexer_read(struct lexer *lexer)
{
        struct token token = lexer_token(lexer, TOKEN_END);
        if (lexer_left(lexer) == 0)
                return token;
        uint8_t byte = *lexer->at;
        if (starts_lines(lexer))
                return lexer_lines(lexer, token);
        if (byte == '"' || byte == '\'')
                return lexer_string(lexer, token);
        token.kind = mark_kind(byte);
        if (token.kind != TOKEN_BAD) {
                token.text = bytes_of(lexer->at++, 1);
                return token;
        }
        if (is_word(byte))
                return lexer_word(lexer, token);
        return token_bad(token, "a byte that is not printable ASCII", "remove it");
}

struct token lexer_next(struct lexer *lexer)
{
        uint32_t line = lexer->line;
        struct token open;
        if (!skip_blanks(lexer, &open)) {
                lexer->at = lexer->end;
                return token_bad(open, "a comment has no end", "close it with */");
        }
        struct token token = lexer_read(lexer);
        token.fresh_line = token.line != line;
        return token;
}
