/* history_priv.h - what the files of a group's history share.
 *
 *   history.c         the order of events, the clients, the end
 *   history_node.c    a node: its effects, its state machine, what it says is checked
 *   history_net.c     its disk, and the messages
 *   history_faults.c  what goes wrong, and the change of members */
#ifndef TESTS_RAFT_HISTORY_PRIV_H
#define TESTS_RAFT_HISTORY_PRIV_H

#include "history.h"

#include "base/buffer.h"
#include "base/rng.h"

#include <stdio.h>

enum {
        NODES = 7,
        LOG_MAX = 6000,
        MESSAGES_MAX = 8192,
        TERMS_MAX = 4000,
        READS_MAX = 4096,
        FAULTS_END_MS = 5000,
        END_MS = 40000,
        ELECTION_MS = 150,
        HEARTBEAT_MS = 40,
        DRIFT_PER_MILLE = 200,
};

struct disk {
        struct buffer file;
        size_t synced;
        uint64_t generation;
        bool replacing; /* `next` is written aside, not renamed yet */
        struct buffer next;
        uint64_t next_generation;
        uint64_t sync_at; /* 0: no sync under way */
        size_t sync_len;
        struct buffer aside; /* a new journal, in pieces: a crash loses it */
        uint64_t aside_generation;
        uint64_t aside_at; /* the sync of its pieces */
};

struct node {
        struct heap heap;
        struct consensus *consensus;
        struct disk disk;
        bool exists; /* was ever started */
        bool join;
        bool lost;      /* its disk */
        bool forgot;    /* and is not a full member again, up or down */
        bool witness;   /* for ever: a witness's journal holds no state to go on with */
        uint64_t up_at; /* restart then */
        uint64_t paused_until;
        uint64_t clock_offset;
        unsigned clock_per_mille;
        uint64_t wake_ms;
        uint64_t count;
        uint32_t ids[LOG_MAX];
        bool marked;         /* a state is being put together, */
        uint64_t mark_count; /* of so many commands */
        unsigned broken;     /* links, by peer */
        bool restoring;      /* a state that came out is not taken over yet */
        struct bytes restore_state;
};

struct message {
        uint64_t at;
        uint64_t order;
        unsigned from;
        unsigned to;
        struct bytes data;
};

struct read {
        bool open;
        unsigned node;
        bool lease;
        uint64_t count; /* applied anywhere when it began */
};

struct world {
        struct history_options options;
        struct history_result result;
        struct rng rng;
        uint64_t now;
        struct heap heap;
        struct node nodes[NODES];
        struct message messages[MESSAGES_MAX]; /* a heap by time */
        size_t message_count;
        uint64_t order;
        uint64_t link_last[NODES][NODES];
        bool cut[NODES][NODES];
        uint64_t client_at;
        uint64_t fault_at;
        uint64_t delay_ms;
        uint64_t disk_ms;
        unsigned crash;
        unsigned cuts;
        unsigned loss;
        unsigned repeat;
        unsigned change;
        unsigned lose_disk;
        unsigned pause;
        unsigned voters;
        size_t piece_bytes;
        bool witness;
        bool ordered;
        bool healed;
        uint64_t target;
        uint32_t log[LOG_MAX];
        uint64_t log_count;
        uint8_t leaders[TERMS_MAX];
        uint32_t next_id;
        struct read reads[READS_MAX];
        uint64_t next_read;
};

static inline void violate(struct world *w, const char *what)
{
        if (w->result.violation == NULL) {
                w->result.violation = what;
                w->result.at_ms = w->now;
        }
}

static inline bool chance(struct world *w, unsigned per_mille)
{
        return rng_chance(&w->rng, per_mille);
}

static inline uint64_t below(struct world *w, uint64_t bound)
{
        return rng_below(&w->rng, bound);
}

static inline uint64_t clock_of(const struct world *w, const struct node *node)
{
        return node->clock_offset + w->now * node->clock_per_mille / 1000;
}

/* When this node's clock shows `clock`. */
static inline uint64_t real_of(const struct node *node, uint64_t clock)
{
        if (clock <= node->clock_offset)
                return 0;
        if (clock - node->clock_offset > UINT64_MAX / 2000)
                return UINT64_MAX;
        return ((clock - node->clock_offset) * 1000 + node->clock_per_mille - 1) /
               node->clock_per_mille;
}

#define TRACE(w, ...)                                                                              \
        do {                                                                                       \
                if ((w)->options.trace) {                                                          \
                        printf("%6llu ", (unsigned long long)(w)->now);                            \
                        printf(__VA_ARGS__);                                                       \
                        printf("\n");                                                              \
                }                                                                                  \
        } while (0)

/* history_net.c */
void disk_write(struct world *w, struct disk *disk, const struct consensus_write *write);
/* The replacement takes the journal's place. */
void disk_swap(struct disk *disk);
/* What was not synced is lost in part, or torn. */
void disk_crash(struct world *w, struct disk *disk);
void net_send(struct world *w, unsigned from, const struct consensus_message *message);
void message_push(struct world *w, struct message message);
struct message message_pop(struct world *w);
/* All that are under way from or to a node. */
void messages_drop(struct world *w, unsigned at);

/* history_node.c */
void node_start(struct world *w, unsigned at);
/* Carries out what its consensus wishes, and checks what it says. */
void node_pump(struct world *w, unsigned at);
void node_crash(struct world *w, unsigned at);
void node_synced(struct world *w, unsigned at);
/* Most of the others hear that their links to it broke. */
void node_links_break(struct world *w, unsigned at);
/* Some of its own, to who runs. */
void node_links_mend(struct world *w, unsigned at);
void node_aside_synced(struct world *w, unsigned at);
/* The next message arrives. */
void node_deliver(struct world *w);

/* history_faults.c */
void faults_step(struct world *w);
void faults_heal(struct world *w);

#endif
