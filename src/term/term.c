#include "term/term.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static bool term_tty;
static bool term_colour;
static bool term_utf8;

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
