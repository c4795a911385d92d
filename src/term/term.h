/* term.h - printing for people: colours and symbols where the terminal has them, plain text where
 * it has not (a pipe, TERM=dumb, NO_COLOR, a locale without UTF-8). */
#ifndef MERIDIAN_TERM_TERM_H
#define MERIDIAN_TERM_TERM_H

#include <stdbool.h>
#include <stddef.h>

enum term_style {
        TERM_PLAIN,
        TERM_BOLD,
        TERM_DIM,
        TERM_GOOD,
        TERM_WARN,
        TERM_BAD,
        TERM_HEAD,
        TERM_STYLE_COUNT,
};

enum term_symbol {
        TERM_OK,
        TERM_FAIL,
        TERM_WAIT,
        TERM_DOT,
        TERM_RING,
        TERM_ARROW,
        TERM_SYMBOL_COUNT,
};

/* Looks at stdout and the environment; call it once, first. */
void term_start(void);

/* True where stdout is a terminal on which a line may be drawn again. */
bool term_is_tty(void);

/* Looks at how large the terminal is; term_start() has done so. */
void term_measure(void);

/* Columns and rows of the terminal at the last look; 0: stdout is none. */
size_t term_columns(void);
size_t term_rows(void);

/* The sequence that begins a style; "" where colours are off. term_style(TERM_PLAIN) ends it. */
const char *term_style(enum term_style style);

/* A symbol of one column. */
const char *term_symbol(enum term_symbol symbol);

/* Columns that a UTF-8 text takes, escape sequences not counted. */
size_t term_width(const char *text);

/* Prints `text` in a style, then spaces up to `width` columns. */
void term_cell(enum term_style style, const char *text, size_t width);

/* Prints a sentence and a new line. The cursor stands at column `indent`; lines that the terminal
 * has no room for are broken between words, and begin there. */
void term_sentence(enum term_style style, const char *text, size_t indent);

#endif
