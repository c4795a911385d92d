/* postgres_priv.h - a node's part in PostgreSQL: what it keeps, and what the files postgres*.c do
 * for each other and for the node. Units are in the names; times are the node's monotonic clock. */
#ifndef MERIDIAN_NODE_POSTGRES_PRIV_H
#define MERIDIAN_NODE_POSTGRES_PRIV_H

#include "council/request.h"
#include "node/message_priv.h"
#include "node/node.h"
#include "primary/primary.h"

struct asker;
struct node;

struct postgres_detailed {
        node_id node; /* 0: this place is free */
        uint64_t at_us;
        struct postgres_detail detail;
};

struct postgres_heard {
        node_id node; /* 0: this place is free */
        uint64_t at_us;
        struct postgres_word word;
};

/* A request to the council on behalf of this node. */
struct postgres_ask {
        uint64_t id; /* 0: free */
        enum request_kind kind;
        uint64_t sent_us;
        uint64_t token; /* of the lease; the number of the order */
        bool order;     /* it is about the order's lock, not the lease */
};

#define POSTGRES_ASKS_MAX  16
#define POSTGRES_OWNER_MAX 48
#define POSTGRES_ORDER_MAX 96
#define POSTGRES_KEY_MAX   64

/* A writer's lease that this leader found in the table: postgres_heir.c. */
struct postgres_heir {
        uint64_t token; /* 0: none, or the holder has been heard since */
        uint64_t due_us;
        char owner[POSTGRES_OWNER_MAX];
};

struct postgres {
        bool seen; /* the server was seen at all, */
        uint64_t seen_us;
        uint64_t begun_us; /* the first look at the others; 0: not yet */
        struct world_postgres server;
        bool stale;   /* something was done since; */
        bool adopted; /* at the start: a lease that the gate remembers was taken over */
        struct postgres_heard heard[PRIMARY_NODES_MAX];

        struct postgres_heir heir;
        struct primary_lease lease;
        char owner[POSTGRES_OWNER_MAX]; /* of the lease, as the council knows it */
        uint64_t released;              /* the newest token that was given back: counts no more */
        struct postgres_ask asks[POSTGRES_ASKS_MAX];
        uint64_t ask_last;
        bool claiming;
        bool queued;         /* that claim waits for the holder to give it back; */
        bool withdrawn;      /* but it will not: the claim is taken back */
        uint64_t claimed_us; /* the present one was granted then */
        uint64_t claim_next_us, renew_next_us;

        enum primary_hold hold; /* as of the last look */
        node_id holder;         /* whoever the council says; 0: none, or not known */
        uint64_t grant;
        node_id grant_node;
        struct postgres_news news;
        struct primary_standing standing;

        enum primary_action action; /* under way; NOTHING: none is */
        uint64_t action_number;
        uint64_t action_last;
        bool fenced; /* the last one was a fence, and went well */
        uint64_t action_since_us;
        uint64_t pause_until_us;                /* after a failure */
        char failed[NODE_STATUS_NOTE_MAX - 60]; /* the sentence of the last one; "": it went well */
        uint64_t failed_told_us;
        unsigned start_fails; /* in a row: the server was to run, and does not */
        uint64_t start_fail_first_us, start_fail_last_us;
        uint64_t gate_token, gate_until_us;
        bool gate_limited;
        struct primary_exposure exposure;
        bool limited;     /* commits are to wait until other regions have caught up */
        uint64_t over_us; /* they were beyond the limit last */
        struct postgres_detailed details[PRIMARY_NODES_MAX];
        uint64_t detail_next_us;
        unsigned alarms; /* that were told, and are not over: postgres_limit.c */
        uint64_t watch_next_us;

        enum primary_wish wish;
        node_id designated; /* AWAY */
        uint64_t wish_until_us;
        uint64_t handed_epoch,
                handed_written;         /* of the timeline that was handed over last: its end */
        struct node_status_order order; /* the wish, or what became of the last one */
        char order_owner[POSTGRES_ORDER_MAX]; /* its lock's in the council; "": there is none */
        uint64_t order_token;                 /* 0: it is not known to be granted */
        uint64_t order_next_us;

        const struct primary_row *row; /* that fits now, */
        uint64_t row_since_us;
        bool row_told;
        bool dirty;
        uint64_t next_us;
        uint64_t tell_next_us;
};

/* postgres.c */
void postgres_event(struct node *node, const struct world_event *event);
MUST_USE enum err postgres_came(struct node *node, node_id from, struct bytes data);
void postgres_tell(struct node *node);
void postgres_tick(struct node *node);
uint64_t postgres_wake_us(const struct node *node);
bool postgres_writes(enum primary_server server);
bool postgres_listed(const struct node *node, node_id id);
bool postgres_eligible(const struct node *node, node_id id);
/* This node's server was looked at lately. */
bool postgres_seen_fresh(const struct node *node);

/* This node's region is isolated: its server may not write, and its lease is not renewed. */
bool postgres_barred(const struct node *node);

/* What was heard of that node lately, or NULL. */
const struct postgres_word *postgres_word_of(const struct node *node, node_id id);
const char *postgres_name(const struct node *node, node_id id);

void postgres_report(const struct node *node, struct primary_report *ret);

/* By what servers are ranked, as far as this node knows. */
void postgres_rules(const struct node *node, struct primary_rules *ret);

/* postgres_act.c */
const struct primary_row *postgres_decide(struct node *node);

/* Does what the row says, where nothing else is under way. */
void postgres_carry_out(struct node *node, const struct primary_row *row);
void postgres_row_tell(struct node *node, const struct primary_row *row);

/* Tells the gate of a lease that was renewed, and whether commits wait. */
void postgres_gate_renew(struct node *node);

/* Who is about to be handed the lease is to know its data's end as soon as the holder's last word
 * has come. */
void postgres_watch_look(struct node *node);

/* postgres_limit.c */
void postgres_limit_look(struct node *node);

/* postgres_status.c */
void postgres_status(const struct node *node, uint64_t now_us, struct node_status_postgres *ret);
void postgres_detail_tell(struct node *node);
MUST_USE enum err postgres_detail_came(struct node *node, node_id from, struct bytes data);

/* postgres_heir.c */
/* This node begins to lead the global group. */
void postgres_heir_begin(struct node *node);
/* It is about to propose a command to it. */
void postgres_heir_proposed(struct node *node, const struct lock_command *command);
void postgres_heir_tick(struct node *node);
uint64_t postgres_heir_wake_us(const struct node *node);

/* postgres_lease.c */
struct bytes postgres_lease_key(const struct node *node, char text[static POSTGRES_KEY_MAX]);
/* The node of an owner's name; 0: it is none of ours (somebody else took the lock by hand). */
node_id postgres_owner_node(struct bytes owner);
uint64_t postgres_margin_us(const struct node *node);
/* Looks at the lease, own and in the council's table: hold, holder, grant. */
void postgres_lease_look(struct node *node);
void postgres_lease_renew(struct node *node);
void postgres_lease_claim(struct node *node);
void postgres_lease_release(struct node *node);
void postgres_answered(struct node *node, uint64_t id, const struct reply *reply);

/* Asks the council on behalf of this node: `what` says the kind, the token and whose lock it is;
 * the rest is in the request. False: too many are under way. */
bool postgres_ask(struct node *node, const struct postgres_ask *what,
                  const struct request *request);

/* postgres_order.c: a wish has begun; each turn; the council has answered. */
void postgres_order_begin(struct node *node);
void postgres_order_look(struct node *node);
void postgres_order_answered(struct node *node, const struct postgres_ask *ask,
                             const struct reply *reply);

/* postgres_wish.c */
void postgres_request(struct node *node, struct asker asker, const struct request *request,
                      struct bytes data);
void postgres_wish_look(struct node *node);

/* The lease was given back: for a switchover, to the chosen one. */
void postgres_wish_released(struct node *node);

/* An action for the wish failed; it is tried again for as long as the wish stands. */
void postgres_wish_failed(struct node *node, struct bytes why);
enum primary_wish postgres_wish_of(const struct node *node);
node_id postgres_designated(const struct node *node);
bool postgres_ready(const struct node *node);

#endif
