/* postgres_status.c - the PostgreSQL part of `meridian status`: who writes, and each server. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(json_t *object, const char *key, const char *otherwise)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? otherwise : text;
}

static void cell_number(json_t *value, int decimals, size_t width)
{
        char cell[48] = "?";
        if (json_is_number(value))
                snprintf(cell, sizeof cell, "%.*f", decimals, json_number_value(value));
        term_cell(json_is_number(value) ? TERM_PLAIN : TERM_DIM, cell, width);
}

static void print_server(json_t *server)
{
        const char *role = text_of(server, "role", "unknown");
        const char *word = text_of(server, "server", "unknown");
        bool primary = strcmp(role, "primary") == 0;
        bool good = primary || json_is_true(json_object_get(server, "following"));
        printf("  %s%s%s ", term_style(good ? TERM_GOOD : TERM_WARN),
               term_symbol(primary ? TERM_DOT : TERM_RING), term_style(TERM_PLAIN));
        term_cell(TERM_BOLD, text_of(server, "node", "?"), 24);
        term_cell(good ? TERM_GOOD : TERM_WARN, word, 14);
        cell_number(json_object_get(server, "timeline"), 0, 10);
        term_cell(TERM_PLAIN, text_of(server, "written", "?"), 14);
        if (primary) {
                putchar('\n');
                return;
        }
        cell_number(json_object_get(server, "lag_bytes"), 0, 12);
        cell_number(json_object_get(server, "lag_ms"), 1, 8);
        putchar('\n');
}

void cli_print_postgres(json_t *postgres)
{
        size_t index = 0;
        json_t *server = NULL;
        json_t *lease = json_object_get(postgres, "lease");
        if (!json_is_object(postgres))
                return;
        const char *writer = text_of(postgres, "writer", NULL);
        printf("\n  %sPostgreSQL%s  writer ", term_style(TERM_HEAD), term_style(TERM_PLAIN));
        term_cell(writer != NULL ? TERM_GOOD : TERM_BAD, writer != NULL ? writer : "none", 0);
        printf("  epoch %lld  commits wait for %lld\n",
               (long long)json_integer_value(json_object_get(lease, "epoch")),
               (long long)json_integer_value(json_object_get(postgres, "sync")));
        static const char *const sentences[] = {"why", "failed"};
        for (size_t i = 0; i < COUNT_OF(sentences); i++)
                if (json_is_string(json_object_get(postgres, sentences[i])))
                        printf("  %s%s%s\n", term_style(TERM_WARN),
                               text_of(postgres, sentences[i], ""), term_style(TERM_PLAIN));
        printf("  ");
        term_cell(TERM_DIM, "server", 26);
        term_cell(TERM_DIM, "state", 14);
        term_cell(TERM_DIM, "timeline", 10);
        term_cell(TERM_DIM, "written", 14);
        term_cell(TERM_DIM, "behind, B", 12);
        term_cell(TERM_DIM, "ms", 8);
        putchar('\n');
        json_array_foreach(json_object_get(postgres, "servers"), index, server)
        {
                print_server(server);
        }
}
