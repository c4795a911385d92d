/* doors.c - `meridian doors`: the connections by PostgreSQL's doors of one node, as that node knows
 * them: its own clients, and those that come from other nodes' doors to its server. */
#include "meridian/cli.h"
#include "term/table.h"

#include <stdio.h>

static const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? "-" : text;
}

static long long number_of(json_t *object, const char *key)
{
        return (long long)json_integer_value(json_object_get(object, key));
}

static void cell_session(struct term_table *table, json_t *session)
{
        char in[24];
        char out[24];
        bool passed = json_is_true(json_object_get(session, "passed"));
        cli_bytes_text((double)number_of(session, "bytes_from_client"), in, sizeof in);
        cli_bytes_text((double)number_of(session, "bytes_to_client"), out, sizeof out);
        term_table_cell(table, TERM_BOLD, "%s", text_of(session, "door"));
        term_table_cell(table, TERM_PLAIN, "%s", text_of(session, "client"));
        term_table_cell(table, TERM_PLAIN, "%s", text_of(session, "server"));
        term_table_cell(table, passed ? TERM_GOOD : TERM_PLAIN, "%s", text_of(session, "state"));
        term_table_cell(table, TERM_PLAIN, "%lld s", number_of(session, "seconds"));
        term_table_cell(table, TERM_PLAIN, "%lld", number_of(session, "epoch"));
        term_table_cell(table, TERM_PLAIN, "%s", in);
        term_table_cell(table, TERM_PLAIN, "%s", out);
}

static void print_sessions(json_t *sessions)
{
        static const char *const titles[] = {"door", "client", "server", "state",
                                             "for",  "epoch",  "in",     "out"};
        size_t i;
        json_t *session;
        struct term_table table;
        term_table_init(&table, COUNT_OF(titles));
        for (size_t k = 0; k < COUNT_OF(titles); k++)
                term_table_cell(&table, TERM_DIM, "%s", titles[k]);
        json_array_foreach(sessions, i, session)
        {
                cell_session(&table, session);
        }
        term_table_print(&table);
}

int cli_doors(struct cli *cli)
{
        struct client_answer answer;
        if (!cli_get(cli, "/postgres-sessions", &answer, NULL))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        json_t *sessions = json_object_get(json, "sessions");
        if (cli->json)
                cli_print_json(json);
        else if (json_array_size(sessions) == 0)
                printf("no connection is open by a door of %s\n", text_of(json, "node"));
        else
                print_sessions(sessions);
        json_decref(json);
        return CLI_DONE;
}
