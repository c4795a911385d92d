/* api_lock_hello.c - what clients of Redis ask of a connection before and beside their commands:
 * who is there, by which protocol, under which name. All is answered at once. */
#include "api/api_door.h"

#include <stdio.h>

static void answer_ping(const struct command *command)
{
        if (command_args(command) == 1)
                resp_write_simple(command->out, "PONG");
        else
                resp_write_bulk(command->out, command_arg(command, 1));
}

static void answer_echo(const struct command *command)
{
        resp_write_bulk(command->out, command_arg(command, 1));
}

static void answer_quit(const struct command *command)
{
        resp_write_simple(command->out, "OK");
        command->client->last = true;
}

static void answer_auth(const struct command *command)
{
        resp_write_error(command->out,
                         "ERR no password is set for this port: connect without AUTH");
}

static void answer_select(const struct command *command)
{
        if (bytes_equal(command_arg(command, 1), BYTES("0")))
                resp_write_simple(command->out, "OK");
        else
                resp_write_error(command->out, "ERR there is only database 0 here");
}

static void answer_reset(const struct command *command)
{
        command->client->protocol = 2;
        command->client->name[0] = '\0';
        resp_write_simple(command->out, "RESET");
}

static void name_set(struct client *client, struct bytes name)
{
        snprintf(client->name, sizeof client->name, "%.*s", BYTES_ARGS(name));
}

static void write_hello(const struct command *command)
{
        struct buffer *out = command->out;
        int protocol = command->client->protocol;
        resp_write_map(out, protocol, 7);
        resp_write_bulk(out, BYTES("server"));
        resp_write_bulk(out, BYTES("meridian"));
        resp_write_bulk(out, BYTES("version"));
        resp_write_bulk(out, BYTES(MERIDIAN_VERSION));
        resp_write_bulk(out, BYTES("proto"));
        resp_write_integer(out, (uint64_t)protocol);
        resp_write_bulk(out, BYTES("id"));
        resp_write_integer(out, command->client->id);
        resp_write_bulk(out, BYTES("mode"));
        resp_write_bulk(out, BYTES("standalone"));
        resp_write_bulk(out, BYTES("role"));
        resp_write_bulk(out, BYTES("master"));
        resp_write_bulk(out, BYTES("modules"));
        resp_write_array(out, 0);
}

static void answer_hello(const struct command *command)
{
        uint64_t version = (uint64_t)command->client->protocol;
        struct bytes name = {0};
        if (command_args(command) > 1 &&
            (!resp_number(command_arg(command, 1), 99, &version) || version < 2 || version > 3)) {
                resp_write_error(command->out, "NOPROTO unsupported protocol version: 2 and 3 are");
                return;
        }
        for (size_t i = 2; i < command_args(command);) {
                if (resp_is(command_arg(command, i), "SETNAME") && i + 1 < command_args(command)) {
                        name = command_arg(command, i + 1);
                        i += 2;
                } else if (resp_is(command_arg(command, i), "AUTH")) {
                        answer_auth(command);
                        return;
                } else {
                        resp_write_error(command->out, "ERR syntax: HELLO [2|3 [SETNAME name]]");
                        return;
                }
        }
        command->client->protocol = (int)version;
        if (name.len > 0)
                name_set(command->client, name);
        write_hello(command);
}

static void answer_client(const struct command *command)
{
        struct bytes what = command_arg(command, 1);
        struct client *client = command->client;
        if (resp_is(what, "ID")) {
                resp_write_integer(command->out, client->id);
        } else if (resp_is(what, "GETNAME")) {
                resp_write_bulk(command->out, bytes_of_str(client->name));
        } else if (resp_is(what, "SETNAME") && command_args(command) == 3) {
                name_set(client, command_arg(command, 2));
                resp_write_simple(command->out, "OK");
        } else if ((resp_is(what, "SETINFO") && command_args(command) == 4) ||
                   resp_is(what, "NO-EVICT") || resp_is(what, "NO-TOUCH")) {
                resp_write_simple(command->out, "OK");
        } else if (resp_is(what, "INFO") || resp_is(what, "LIST")) {
                char text[160];
                snprintf(text, sizeof text, "id=%llu name=%s resp=%d\n",
                         (unsigned long long)client->id, client->name, client->protocol);
                resp_write_bulk(command->out, bytes_of_str(text));
        } else {
                resp_write_error(command->out, "ERR unknown or wrong CLIENT sub-command '%.*s'",
                                 BYTES_ARGS(what));
        }
}

static void answer_info(const struct command *command)
{
        char text[512];
        const struct api_locks *locks = command->client->locks;
        snprintf(text, sizeof text,
                 "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n"
                 "meridian_version:%s\r\nloading:0\r\n# Clients\r\nconnected_clients:%zu\r\n"
                 "# Replication\r\nrole:master\r\n",
                 MERIDIAN_VERSION, locks->client_count);
        resp_write_bulk(command->out, bytes_of_str(text));
}

const struct command_row hello_rows[] = {
        {"PING", 1, 2, "[text]", REQUEST_KIND_COUNT, NULL, answer_ping},
        {"ECHO", 2, 2, "text", REQUEST_KIND_COUNT, NULL, answer_echo},
        {"HELLO", 1, RESP_ARGS_MAX, "[2|3 [SETNAME name]]", REQUEST_KIND_COUNT, NULL, answer_hello},
        {"CLIENT", 2, RESP_ARGS_MAX, "sub-command", REQUEST_KIND_COUNT, NULL, answer_client},
        {"INFO", 1, RESP_ARGS_MAX, "[section]", REQUEST_KIND_COUNT, NULL, answer_info},
        {"SELECT", 2, 2, "0", REQUEST_KIND_COUNT, NULL, answer_select},
        {"AUTH", 2, 3, "password", REQUEST_KIND_COUNT, NULL, answer_auth},
        {"RESET", 1, 1, "", REQUEST_KIND_COUNT, NULL, answer_reset},
        {"QUIT", 1, 1, "", REQUEST_KIND_COUNT, NULL, answer_quit},
};

const size_t hello_row_count = COUNT_OF(hello_rows);
