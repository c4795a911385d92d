/* api_door.h - private to the lock service's door (RESP): clients, the slots of their answers, and
 * what the files of its commands share. */
#ifndef MERIDIAN_API_API_DOOR_H
#define MERIDIAN_API_API_DOOR_H

#include "api/api_priv.h"
#include "api/resp.h"

struct client;

/* A command whose turn to be answered has not come. */
struct slot {
        struct slot *next;
        struct client *client; /* NULL: it has gone */
        uint64_t number;       /* of the request; 0: none waits */
        enum request_kind kind;
        enum api_form form;
        bool done;
        size_t expected; /* bytes that its answer may have, where that may be many */
        struct buffer reply;
};

struct client {
        uv_tcp_t tcp; /* first: handles are cast back */
        uv_write_t write;
        struct api_locks *locks;
        struct client *previous;
        struct client *next;
        struct client *ready_next;
        struct client *ready_before;
        bool ready; /* in the list of those that are */
        uint64_t id;
        int protocol; /* 2 or 3 */
        char name[64];
        struct resp_reader reader;
        struct buffer input;
        struct buffer output;
        struct buffer sending;
        struct slot *slots;
        struct slot **slots_end;
        size_t slot_count;
        size_t expected; /* by its slots */
        bool reading;
        bool writing;
        bool stepping; /* in client_step: answers wait for its end */
        bool last;     /* nothing more is read; close when all is answered */
        bool closing;
};

struct api_locks {
        uv_tcp_t server; /* first */
        uv_prepare_t prepare;
        unsigned handles; /* of the two, not yet closed */
        struct api *api;
        struct client *ready; /* have something to do at the end of the turn */
        struct slot *slots;   /* not in use */
        struct client *clients;
        size_t client_count;
        uint64_t client_id;
        struct api_scripts scripts;
        bool closing;
};

struct command {
        struct client *client;
        struct bytes input;
        const struct resp_reader *reader;
        struct buffer *out; /* for those that answer at once */
        enum api_form form; /* of the answer to come */
};

struct bytes command_arg(const struct command *command, size_t index);
size_t command_args(const struct command *command);
/* False when the error has been written; `what` is what the number is for. */
bool command_number(const struct command *command, size_t index, const char *what,
                    uint64_t *ret_value);

/* Fills a request from the arguments; false when the error has been written. */
typedef bool command_request(struct command *command, struct request *request);
typedef void command_answer(const struct command *command);

struct command_row {
        const char *name;
        int args_min; /* the name included */
        int args_max;
        const char *usage;
        enum request_kind kind; /* of a request to the node, else REQUEST_KIND_COUNT */
        command_request *request;
        command_answer *answer;
};

/* ---- api_locks.c ---- */

/* Adds a place to the end of the queue, done for now; NULL where memory ran out: the client is then
 * closed after what it has. */
struct slot *slot_add(struct client *client);
/* Where an answer at once goes: to the output when nothing waits before it. NULL as above. */
struct buffer *reply_begin(struct client *client);
void slot_answer(void *who, const struct reply *reply);

/* ---- api_lock_commands.c ---- */

/* The client's reader has a whole command, whose bytes begin `input`. */
void command_run(struct client *client, struct bytes input);

/* ---- api_lock_hello.c: what a client of Redis asks of a connection ---- */

extern const struct command_row hello_rows[];
extern const size_t hello_row_count;

/* ---- api_lock_reply.c ---- */

/* The node's answer to a request of kind `asked`, in RESP. */
void lock_reply_write(struct buffer *out, int protocol, enum request_kind asked,
                      const struct reply *reply);

#endif
