/* lexer.h - the tokens of Meridian's documents (topology, daemon configuration), in the syntax that
 * the neighbours' users know: `key value;`, `key = value`, `section { ... }`, lists in brackets,
 * texts of many lines between triple quotes, comments by `#` or as in C. Knows no keys: a parser
 * with a table of them stands above it. */
#ifndef MERIDIAN_BASE_LEXER_H
#define MERIDIAN_BASE_LEXER_H

#include "base/bytes.h"

enum token_kind {
        TOKEN_END,
        TOKEN_WORD, /* bare or quoted */
        TOKEN_OPEN,
        TOKEN_CLOSE,
        TOKEN_LIST_OPEN,
        TOKEN_LIST_CLOSE,
        TOKEN_ASSIGN,
        TOKEN_SEPARATOR, /* ";" or "," */
        TOKEN_BAD,
};

struct token {
        enum token_kind kind;
        bool quoted;
        bool fresh_line;   /* a newline lies between this token and the one before */
        struct bytes text; /* borrowed; of a string without the quotes */
        uint32_t line;
        uint32_t column;
        const char *fault; /* BAD: what is wrong; static */
        const char *cure;
};

struct lexer {
        const uint8_t *at;
        const uint8_t *end;
        const uint8_t *line_begin;
        uint32_t line;
};

/* Borrows `text` for the lexer's life. */
void lexer_init(struct lexer *lexer, struct bytes text);

/* The next token; END for ever at the end. After BAD the rest of the text has no meaning. */
struct token lexer_next(struct lexer *lexer);

#endif
