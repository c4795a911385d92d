/* doors.c - `meridian doors`: the connections by PostgreSQL's doors of one node, as that node knows
 * them: its own clients, and those that come from other nodes' doors to its server. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>

enum {
        DOOR_WIDTH = 8,
        CLIENT_WIDTH = 28,
        SERVER_WIDTH = 18,
        STATE_WIDTH = 10,
};

static const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? "-" : text;
}

static long long number_of(json_t *object, const char *key)
{
        return (long long)json_integer_value(json_object_get(object, key));
}

static void print_session(json_t *session)
{
        bool passed = json_is_true(json_object_get(session, "passed"));
        term_cell(TERM_BOLD, text_of(session, "door"), DOOR_WIDTH);
        term_cell(TERM_PLAIN, text_of(session, "client"), CLIENT_WIDTH);
        term_cell(TERM_PLAIN, text_of(session, "server"), SERVER_WIDTH);
        term_cell(passed ? TERM_GOOD : TERM_PLAIN, text_of(session, "state"), STATE_WIDTH);
        printf("%6llds  epoch %-6lld %lld in, %lld out\n", number_of(session, "seconds"),
               number_of(session, "epoch"), number_of(session, "bytes_from_client"),
               number_of(session, "bytes_to_client"));
}

int cli_doors(struct cli *cli)
{
        size_t i;
        json_t *session;
        struct client_answer answer;
        if (!cli_get(cli, "/postgres-sessions", &answer, NULL))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        json_t *sessions = json_object_get(json, "sessions");
        json_array_foreach(sessions, i, session)
        {
                if (!cli->json)
                        print_session(session);
        }
        if (!cli->json && json_array_size(sessions) == 0)
                printf("no connection is open by a door of %s\n", text_of(json, "node"));
        json_decref(json);
        return CLI_DONE;
}
