/* step.c - see step.h. Without memory for an object the line is left out. */
#include "meridian/step.h"
#include "term/term.h"

#include <stdarg.h>
#include <stdio.h>

enum {
        STEP_WIDTH = 11,
};

static const struct {
        const char *word;
        enum term_style style;
        enum term_symbol symbol;
} states[STEP_STATE_COUNT] = {
        [STEP_STATE_DONE] = {"done", TERM_GOOD, TERM_OK},
        [STEP_STATE_WARNING] = {"warning", TERM_WARN, TERM_RING},
        [STEP_STATE_FAILED] = {"failed", TERM_BAD, TERM_FAIL},
};

static bool as_json; /* of the one command that this process runs */

void step_begin(const struct cli *cli, const char *title)
{
        as_json = cli->json;
        if (!as_json && title != NULL)
                printf("%s%s%s\n", term_style(TERM_HEAD), title, term_style(TERM_PLAIN));
}

static void json_tell(enum step_state state, const char *name, json_t *more, const char *text)
{
        json_t *json = json_pack("{s:s, s:s, s:s}", "step", name, "state", states[state].word,
                                 "text", text);
        if (json != NULL && more != NULL)
                (void)json_object_update(json, more);
        if (json != NULL)
                cli_print_json_line(json);
        json_decref(json);
}

void step_tell(enum step_state state, const char *name, json_t *more, const char *format, ...)
{
        char text[1024];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (as_json) {
                json_tell(state, name, more, text);
        } else {
                printf("  %s%s%s ", term_style(states[state].style),
                       term_symbol(states[state].symbol), term_style(TERM_PLAIN));
                term_cell(TERM_BOLD, name, STEP_WIDTH);
                term_sentence(TERM_PLAIN, text, STEP_WIDTH + 4);
        }
        fflush(stdout);
        json_decref(more);
}

int step_end(int status)
{
        if (as_json)
                json_tell(status == CLI_DONE ? STEP_STATE_DONE : STEP_STATE_FAILED, "end", NULL,
                          status == CLI_DONE ? "done" : "not done");
        fflush(stdout);
        return status;
}
