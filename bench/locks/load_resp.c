/* load_resp.c - Meridian's door: RESP, a connection for each client. An answer is complete when its
 * last line has come; only the first lines are looked at. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
        char text[160];
        size_t len;
        unsigned left; /* lines to come of an array or a bulk string */
        bool good;
};

static uint32_t resp_conns(uint32_t clients, uint32_t conns)
{
        (void)conns;
        return clients;
}

static void resp_open(struct load_conn *conn)
{
        conn->door = calloc(1, sizeof(struct line));
        if (conn->door == NULL)
                load_die("out of memory");
}

static void resp_send(struct load_conn *conn, const char *const *words, int count)
{
        char text[512];
        int len = snprintf(text, sizeof text, "*%d\r\n", count);
        for (int i = 0; i < count; i++)
                len += snprintf(text + len, sizeof text - (size_t)len, "$%zu\r\n%s\r\n",
                                strlen(words[i]), words[i]);
        load_write(conn, text, (size_t)len);
}

static void resp_ask(struct load_client *client)
{
        char owner[32], token[32];
        snprintf(owner, sizeof owner, "client-%u", client->index);
        snprintf(token, sizeof token, "%llu", (unsigned long long)client->token);
        const char *acquire[] = {"LOCK.ACQUIRE", client->key, owner, "60000"};
        const char *release[] = {"LOCK.RELEASE", client->key, owner, token};
        resp_send(client->conn, client->step == LOAD_ACQUIRE ? acquire : release, 4);
}

static void values_ask(struct load_client *client)
{
        const char *put[] = {"KV.PUT", client->key, "0123456789abcdef0123456789abcdef"};
        const char *get[] = {"KV.GET", client->key};
        resp_send(client->conn, client->step == LOAD_ACQUIRE ? put : get,
                  client->step == LOAD_ACQUIRE ? 3 : 2);
}

/* A value is put once, then read over and over; `stale`: as the asked node knows it. */
static void reads_ask(struct load_client *client, bool stale)
{
        const char *put[] = {"KV.PUT", client->key, "0123456789abcdef0123456789abcdef"};
        const char *get[] = {"KV.GET", client->key, "STALE"};
        if (client->step == LOAD_SETUP)
                resp_send(client->conn, put, 3);
        else
                resp_send(client->conn, get, stale ? 3 : 2);
}

static void fresh_ask(struct load_client *client)
{
        reads_ask(client, false);
}

static void stale_ask(struct load_client *client)
{
        reads_ask(client, true);
}

/* One line without its end; true when the answer is complete. */
static bool resp_line(struct load_client *client, struct line *line)
{
        bool first = line->left == 0;
        char mark = line->text[0];
        if (first) {
                line->good = mark != '-' && !(mark == '$' && line->text[1] == '-') && mark != '_' &&
                             strcmp(line->text, ":0") != 0;
                if (mark == '*')
                        line->left = (unsigned)strtoul(line->text + 1, NULL, 10) + 1;
                else
                        line->left = mark == '$' && line->good ? 2 : 1;
        } else if (mark == '$' && line->text[1] != '-') {
                line->left++;
        } else if (mark == ':' && client->step == LOAD_ACQUIRE && line->left == 2) {
                client->token = strtoull(line->text + 1, NULL, 10);
        }
        return --line->left == 0;
}

static void resp_came(struct load_conn *conn, const uint8_t *data, size_t len)
{
        struct line *line = conn->door;
        for (size_t i = 0; i < len; i++) {
                if (data[i] != '\n') {
                        if (line->len < sizeof line->text - 1)
                                line->text[line->len++] = (char)data[i];
                        continue;
                }
                if (line->len > 0 && line->text[line->len - 1] == '\r')
                        line->len--;
                line->text[line->len] = '\0';
                line->len = 0;
                if (!resp_line(conn->client, line))
                        continue;
                if (!line->good && getenv("LOAD_TELL") != NULL)
                        fprintf(stderr, "%s\n", line->text);
                load_answered(conn->client, line->good);
        }
}

const struct load_door load_resp = {"meridian", resp_conns, resp_open, resp_ask,
                                    resp_came,  NULL,       false};
const struct load_door load_resp_values = {"meridian-values", resp_conns, resp_open, values_ask,
                                           resp_came,         NULL,       false};
const struct load_door load_resp_reads = {"meridian-reads", resp_conns, resp_open, fresh_ask,
                                          resp_came,        NULL,       true};
const struct load_door load_resp_stale = {"meridian-stale", resp_conns, resp_open, stale_ask,
                                          resp_came,        NULL,       true};
