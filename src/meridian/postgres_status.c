/* postgres_status.c - the PostgreSQL part of `meridian status`: who writes, and each server. */
#include "meridian/cli.h"
#include "term/table.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(json_t *object, const char *key, const char *otherwise)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? otherwise : text;
}

static void cell_number(struct term_table *table, json_t *value, int decimals)
{
        if (json_is_number(value))
                term_table_cell(table, TERM_PLAIN, "%.*f", decimals, json_number_value(value));
        else
                term_table_cell(table, TERM_DIM, "?");
}

static void cell_server(struct term_table *table, json_t *server)
{
        const char *role = text_of(server, "role", "unknown");
        bool primary = strcmp(role, "primary") == 0;
        bool good = primary || json_is_true(json_object_get(server, "following"));
        enum term_style style = good ? TERM_GOOD : TERM_WARN;
        term_table_cell(table, TERM_PLAIN, "%s%s%s %s%s", term_style(style),
                        term_symbol(primary ? TERM_DOT : TERM_RING), term_style(TERM_PLAIN),
                        term_style(TERM_BOLD), text_of(server, "node", "?"));
        term_table_cell(table, style, "%s", text_of(server, "server", "unknown"));
        cell_number(table, json_object_get(server, "timeline"), 0);
        term_table_cell(table, TERM_PLAIN, "%s", text_of(server, "written", "?"));
        if (primary) {
                for (size_t i = 4; i < table->columns; i++)
                        term_table_cell(table, TERM_PLAIN, "%s", "");
                return;
        }
        cell_number(table, json_object_get(server, "lag_bytes"), 0);
        cell_number(table, json_object_get(server, "lag_ms"), 1);
        term_table_cell(table, TERM_WARN, "%s",
                        json_is_true(json_object_get(server, "replay_paused")) ? "replay paused"
                                                                               : "");
}

static void print_servers(json_t *servers)
{
        static const char *const titles[] = {"  server",  "state", "timeline", "written",
                                             "behind, B", "ms",    ""};
        size_t index = 0;
        json_t *server = NULL;
        struct term_table table;
        term_table_init(&table, COUNT_OF(titles));
        for (size_t i = 0; i < COUNT_OF(titles); i++)
                term_table_cell(&table, TERM_DIM, "%s", titles[i]);
        json_array_foreach(servers, index, server)
        {
                cell_server(&table, server);
        }
        term_table_print(&table);
}

/* What no other region has, where there is a limit for it. */
static void print_exposed(json_t *exposed)
{
        json_t *limit_ms = json_object_get(exposed, "limit_ms");
        json_t *limit_bytes = json_object_get(exposed, "limit_bytes");
        bool over = json_is_true(json_object_get(exposed, "over"));
        bool held = json_is_true(json_object_get(exposed, "held"));
        if (!json_is_number(limit_ms) && !json_is_number(limit_bytes))
                return;
        printf("  in no other region: ");
        if (!json_is_number(json_object_get(exposed, "age_ms"))) {
                term_cell(TERM_DIM, "not known", 0);
        } else {
                printf("%sthe last %.0f ms, %lld B%s", term_style(over ? TERM_BAD : TERM_PLAIN),
                       json_number_value(json_object_get(exposed, "age_ms")),
                       (long long)json_integer_value(json_object_get(exposed, "bytes")),
                       term_style(TERM_PLAIN));
        }
        printf("  (limit");
        if (json_is_number(limit_ms))
                printf(" %.0f ms", json_number_value(limit_ms));
        if (json_is_number(limit_bytes))
                printf(" %lld B", (long long)json_integer_value(limit_bytes));
        printf(")%s%s%s\n", term_style(TERM_BAD), held ? "  commits wait" : "",
               term_style(TERM_PLAIN));
}

/* Those that retain much, or that nobody reads by. */
static void print_slots(json_t *slots)
{
        size_t index = 0;
        json_t *slot = NULL;
        json_array_foreach(slots, index, slot)
        {
                double retained = json_number_value(json_object_get(slot, "retained_bytes"));
                double most = json_number_value(json_object_get(slot, "limit_bytes"));
                bool active = json_is_true(json_object_get(slot, "active"));
                bool lost = json_is_true(json_object_get(slot, "lost"));
                if (active && retained < 64e6)
                        continue;
                printf("  slot %s%s%s %s, retains %.0f MB", term_style(TERM_BOLD),
                       text_of(slot, "name", "?"), term_style(TERM_PLAIN),
                       lost     ? "is lost"
                       : active ? "is read by"
                                : "is not read by anybody",
                       retained / 1048576);
                if (most > 0)
                        printf(" of %.0f", most / 1048576);
                putchar('\n');
        }
}

void cli_print_postgres(json_t *postgres)
{
        json_t *lease = json_object_get(postgres, "lease");
        if (!json_is_object(postgres))
                return;
        const char *writer = text_of(postgres, "writer", NULL);
        printf("\n  %sPostgreSQL%s  writer ", term_style(TERM_HEAD), term_style(TERM_PLAIN));
        term_cell(writer != NULL ? TERM_GOOD : TERM_BAD, writer != NULL ? writer : "none", 0);
        long long sync = (long long)json_integer_value(json_object_get(postgres, "sync"));
        printf("  epoch %lld  commits wait for ",
               (long long)json_integer_value(json_object_get(lease, "epoch")));
        if (sync == 0)
                printf("nobody\n");
        else
                printf("%lld elsewhere\n", sync);
        print_exposed(json_object_get(postgres, "exposed"));
        static const char *const sentences[] = {"why", "failed"};
        for (size_t i = 0; i < COUNT_OF(sentences); i++)
                if (json_is_string(json_object_get(postgres, sentences[i]))) {
                        printf("  ");
                        term_sentence(TERM_WARN, text_of(postgres, sentences[i], ""), 2);
                }
        print_servers(json_object_get(postgres, "servers"));
        print_slots(json_object_get(postgres, "slots"));
}
