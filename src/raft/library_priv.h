/* library_priv.h - private to raft/: the state behind the oracle and what its files do for each
 * other. library.c takes inputs and drives the library; library_store.c owns journal, log and
 * snapshot, library_recover.c what a start finds of them; library_exchange.c owns messages. */
#ifndef MERIDIAN_RAFT_LIBRARY_PRIV_H
#define MERIDIAN_RAFT_LIBRARY_PRIV_H

#include "base/buffer.h"
#include "raft/consensus.h"
#include "raft/engine.h"
#include "raft/entries.h"
#include "raft/journal.h"
#include "raft/library.h"
#include "raft/library_message.h"

#include <raft.h>

#define INDEX_MAX (UINT64_MAX >> 2)

/* When the journal is durable up to `end`, so are the entries up to `last`. */
struct mark {
        uint64_t end;
        uint64_t last;
};

/* A message that waits for the journal to be durable up to `need`. */
struct outgoing {
        uint32_t peer;
        uint64_t need;
        struct bytes data; /* owned */
};

/* A state that stands for all entries up to `index`. */
struct snapshot {
        uint64_t index; /* 0: there is none */
        uint64_t term;
        uint64_t configuration_index;
        struct bytes configuration; /* owned */
        struct bytes state;         /* owned */
};

struct library {
        struct heap *heap;
        struct consensus_config config;
        uint32_t voters[CONSENSUS_VOTERS_MAX];
        struct raft raft;
        bool raft_open;
        uint64_t now_ms;
        bool started;
        bool failed;

        /* What is replicated. */
        struct entries entries;
        struct snapshot snapshot;
        struct snapshot install; /* from the leader, on its way to the disk */
        uint64_t applied;
        uint64_t applied_taken; /* at the last take */
        uint64_t lead_from;     /* as leader: ready when applied up to here */

        /* The journal. Offsets are of the current generation. */
        uint64_t generation;
        uint64_t written;
        uint64_t durable;
        uint64_t base; /* size of the journal when this generation began */
        uint64_t meta_need;
        uint64_t install_need;
        uint64_t stored;          /* entries known to be durable, to be told to the library */
        struct journal_meta meta; /* as last written */
        struct buffer pending;    /* not taken yet */
        bool pending_replace;
        struct mark *marks;
        size_t mark_count;
        size_t mark_size;

        /* Out. */
        struct outgoing *queue;
        size_t queue_count;
        size_t queue_size;
        bool answering_old_term;
        size_t released; /* of the queue's head: handed out by the last take */
        struct consensus_message *messages;
        size_t messages_size;
        struct consensus_command *commands;
        size_t command_count;
        size_t command_size;
        struct consensus_write write;
        bool restore;
        bool taken;                   /* the output above is out: forget it at the next input */
        struct consensus_status told; /* at the last take */

        /* In: commands waiting to become one entry, each as a slice. */
        struct buffer batch;
};

/* From now on nothing is promised: memory or disk failed, or the log broke a promise. */
void library_fail(struct library *consensus);

/* Feeds one event to the library and carries out its update. Returns the library's error. */
int library_step(struct library *consensus, struct raft_event *event);

/* library_recover.c */
MUST_USE enum err store_recover(struct library *consensus, struct bytes journal, uint64_t synced,
                                struct consensus_recovery *ret);
/* The event RAFT_START from what was recovered. */
MUST_USE enum err store_begin(struct library *consensus);

/* library_store.c */
void store_init(struct library *consensus);
void store_fini(struct library *consensus);
struct journal_identity store_identity(const struct library *consensus);
/* A new generation begins with what `pending` is about to get. */
void store_replace_begin(struct library *consensus);
/* The record of an entry, and the entry in memory; false when that runs out. */
MUST_USE bool store_entry(struct library *consensus, uint64_t index, const struct raft_entry *item);
void store_meta(struct library *consensus);
void store_entries(struct library *consensus, uint64_t index, const struct raft_entry *items,
                   size_t count);
/* A state from the leader replaces the journal; `consensus->install` has it. */
void store_install(struct library *consensus);
/* A state of our own replaces the journal up to its index; takes `state` over. */
MUST_USE enum err store_compact(struct library *consensus, struct bytes state);
/* Tells the library what has become durable. */
void store_synced(struct library *consensus);
/* A configuration in the library's form; false when memory runs out. */
MUST_USE bool store_configuration(struct bytes encoded, struct raft_configuration *ret);
void snapshot_fini(struct library *consensus, struct snapshot *snapshot);

/* library_exchange.c */
void exchange_send(struct library *consensus, const struct raft_message *from_library);
MUST_USE enum err exchange_receive(struct library *consensus, uint32_t from, struct bytes data);
/* Moves what may leave into `messages`; returns how many. */
size_t exchange_release(struct library *consensus);
/* Gives back what the last release handed out. */
void exchange_forget(struct library *consensus);
void exchange_fini(struct library *consensus);

#endif
