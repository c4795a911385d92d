/* library_message.h - private to raft/: the messages of the library as bytes, and back with every
 * check that the library leaves to assertions.
 *
 *   u8 version (1), u8 type, varints: group, cluster, sender, receiver, term, then by type
 *   1 APPEND          previous index, previous term, commit index, count,
 *                     each: term, u8 type, slice
 *   2 APPEND_RESULT   rejected index, last index, u16 features, u16 capacity
 *   3 VOTE            last index, last term, u8 flags (1 disrupt leader, 2 pre-vote)
 *   4 VOTE_RESULT     u8 flags (1 granted, 2 pre-vote), u16 features, u16 capacity
 *   5 INSTALL         last index, last term, configuration index, slice configuration, slice state
 *   6 TIMEOUT_NOW     last index, last term */
#ifndef MERIDIAN_RAFT_LIBRARY_MESSAGE_H
#define MERIDIAN_RAFT_LIBRARY_MESSAGE_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "raft/entries.h"

enum library_message_type {
        LIBRARY_APPEND = 1,
        LIBRARY_APPEND_RESULT,
        LIBRARY_VOTE,
        LIBRARY_VOTE_RESULT,
        LIBRARY_INSTALL,
        LIBRARY_TIMEOUT_NOW,
};

/* Entries of one message: LIBRARY_APPEND_BYTES of data, but at least one entry. */
#define LIBRARY_APPEND_BYTES ((size_t)1024 * 1024)
#define LIBRARY_ENTRIES_MAX  4096

struct library_message {
        enum library_message_type type;
        uint32_t group;
        uint64_t cluster;
        uint32_t from;
        uint32_t to;
        uint64_t term;
        union {
                struct {
                        uint64_t previous_index;
                        uint64_t previous_term;
                        uint64_t commit_index;
                        size_t count;
                        struct bytes items; /* encoded; read with library_message_entry */
                } append;
                struct {
                        uint64_t rejected;
                        uint64_t last_index;
                        uint16_t features;
                        uint16_t capacity;
                } append_result;
                struct {
                        uint64_t last_index;
                        uint64_t last_term;
                        bool disrupt_leader;
                        bool pre_vote;
                } vote;
                struct {
                        bool granted;
                        bool pre_vote;
                        uint16_t features;
                        uint16_t capacity;
                } vote_result;
                struct {
                        uint64_t last_index;
                        uint64_t last_term;
                        uint64_t configuration_index;
                        struct bytes configuration;
                        struct bytes state;
                } install;
                struct {
                        uint64_t last_index;
                        uint64_t last_term;
                } timeout_now;
        };
};

/* For APPEND the items are taken from `entries`, `count` of them behind
 * previous_index; they must be there. */
void library_message_encode(const struct library_message *message, const struct entries *entries,
                            struct buffer *out);

/* Borrows from `data`. Complete: every length, range, order of terms. ERR_TRUNCATED,
 * ERR_MALFORMED, ERR_VERSION. */
MUST_USE enum err library_message_decode(struct bytes data, struct library_message *ret);

/* The next of append.items, which moves on. Only after a good decode, `count` times. */
struct entry library_message_entry(struct bytes *items);

#endif
