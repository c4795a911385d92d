/* term.c - what the terminal can do is asked once, at the start, and its size whenever it may
 * have changed. Nothing fails: one that tells nothing gets plain text. */
#include "term/term.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SENTENCE_WIDTH_MIN 24 /* with less room, lines are not broken */

static bool term_tty;
static bool term_colour;
static bool term_utf8;
static size_t columns;
static size_t rows;

static const char *const styles[TERM_STYLE_COUNT] = {
        [TERM_PLAIN] = "\033[0m", [TERM_BOLD] = "\033[1m",  [TERM_DIM] = "\033[2m",
        [TERM_GOOD] = "\033[32m", [TERM_WARN] = "\033[33m", [TERM_BAD] = "\033[31;1m",
        [TERM_HEAD] = "\033[1m",
};

static const char *const symbols[TERM_SYMBOL_COUNT][2] = {
        [TERM_OK] = {"+", "✓"},  [TERM_FAIL] = {"x", "✗"}, [TERM_WAIT] = {".", "…"},
        [TERM_DOT] = {"*", "●"}, [TERM_RING] = {"o", "○"}, [TERM_ARROW] = {"->", "→"},
};

static bool locale_is_utf8(void)
{
        static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
                const char *value = getenv(names[i]);
                if (value != NULL && value[0] != '\0')
                        return strcasestr(value, "utf-8") != NULL ||
                               strcasestr(value, "utf8") != NULL;
        }
        return false;
}

void term_start(void)
{
        const char *kind = getenv("TERM");
        const char *no_colour = getenv("NO_COLOR");
        bool dumb = kind == NULL || strcmp(kind, "dumb") == 0;
        term_tty = isatty(STDOUT_FILENO) != 0 && !dumb;
        term_colour = term_tty && (no_colour == NULL || no_colour[0] == '\0');
        term_utf8 = locale_is_utf8();
        term_measure();
}

void term_measure(void)
{
        struct winsize size = {0};
        bool known = term_tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
        columns = known ? size.ws_col : 0;
        rows = known ? size.ws_row : 0;
}

size_t term_columns(void)
{
        return columns;
}

size_t term_rows(void)
{
        return rows;
}

bool term_is_tty(void)
{
        return term_tty;
}

const char *term_style(enum term_style style)
{
        return term_colour ? styles[style] : "";
}

const char *term_symbol(enum term_symbol symbol)
{
        return symbols[symbol][term_utf8 ? 1 : 0];
}

size_t term_width(const char *text)
{
        size_t width = 0;
        for (const char *at = text; *at != '\0'; at++) {
                if (*at == '\033') {
                        while (*at != '\0' && *at != 'm')
                                at++;
                        if (*at == '\0')
                                break;
                } else if (((uint8_t)*at & 0xc0) != 0x80) {
                        width++;
                }
        }
        return width;
}

void term_cell(enum term_style style, const char *text, size_t width)
{
        printf("%s%s%s", term_style(style), text, term_style(TERM_PLAIN));
        for (size_t used = term_width(text); used < width; used++)
                putchar(' ');
}

/* The bytes of the words that fit into `room` columns; at least one word. */
static size_t words_fit(const char *text, size_t room)
{
        size_t fits = 0;
        size_t width = 0;
        size_t at = 0;
        for (; text[at] != '\0'; at++) {
                if (text[at] == ' ') {
                        if (width > room && fits > 0)
                                return fits;
                        fits = at;
                }
                if (((uint8_t)text[at] & 0xc0) != 0x80)
                        width++;
        }
        return width <= room || fits == 0 ? at : fits;
}

void term_sentence(enum term_style style, const char *text, size_t indent)
{
        bool broken = columns >= indent + SENTENCE_WIDTH_MIN;
        size_t len = broken ? words_fit(text, columns - indent) : strlen(text);
        printf("%s%.*s", term_style(style), (int)len, text);
        for (text += len; *text != '\0'; text += len) {
                text += strspn(text, " ");
                len = words_fit(text, columns - indent);
                printf("\n%*s%.*s", (int)indent, "", (int)len, text);
        }
        printf("%s\n", term_style(TERM_PLAIN));
}
