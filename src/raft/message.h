/* message.h - private to raft/: what cores say to each other, as bytes and back. Decoding checks
 * everything that can be checked without the log; the core looks at the rest.
 *
 *   u8 version (2), u8 type, varints: group, cluster, sender, receiver, term, then by type
 *   1 APPEND          previous index, previous term, commit index, everywhere index, round, sent,
 *                     count, each: term, u8 type, slice
 *   2 APPEND_RESULT   u8 flags (1 rejected, 2 amnesiac), index, hint index, hint term, round, sent,
 *                     life
 *   3 VOTE            last index, last term, u8 flags (1 transfer, 2 pre-vote)
 *   4 VOTE_RESULT     u8 flags (1 granted, 2 pre-vote), term asked for
 *   5 CHUNK           index, term, index of the members, slice members, size, u32 CRC-32C of the
 *                     whole, offset, round, sent, slice data
 *   6 CHUNK_RESULT    u8 flags (2 amnesiac), index, term, offset wanted, round, sent, life
 *   7 TIMEOUT_NOW     last index, last term
 *
 * The term in the head is always the sender's own true term: in a refused pre-vote too, or those
 * with the longest log and those with the highest term wait for each other for ever. Version 1 is
 * the library's; the two cores do not talk to each other. */
#ifndef MERIDIAN_RAFT_MESSAGE_H
#define MERIDIAN_RAFT_MESSAGE_H

#include "base/buffer.h"
#include "raft/entries.h"
#include "raft/members.h"

#define MESSAGE_APPEND_BYTES ((size_t)1024 * 1024)
#define MESSAGE_ENTRIES_MAX  4096
#define RAFT_INDEX_MAX       (UINT64_MAX >> 2)

enum message_type {
        MESSAGE_APPEND = 1,
        MESSAGE_APPEND_RESULT,
        MESSAGE_VOTE,
        MESSAGE_VOTE_RESULT,
        MESSAGE_CHUNK,
        MESSAGE_CHUNK_RESULT,
        MESSAGE_TIMEOUT_NOW,
};

/* What a leader's message carries and its answer brings back: proof that it still led. */
struct message_round {
        uint64_t number;
        uint64_t sent_ms; /* by the leader's clock */
};

struct message {
        enum message_type type;
        uint32_t group;
        uint64_t cluster;
        uint32_t from;
        uint32_t to;
        uint64_t term;
        struct message_round round;
        union {
                struct {
                        uint64_t previous_index;
                        uint64_t previous_term;
                        uint64_t commit_index;
                        uint64_t everywhere_index; /* on all members that apply */
                        size_t count;
                        struct bytes items; /* encoded; read with message_entry */
                } append;
                struct {
                        bool rejected;
                        bool amnesiac;
                        uint64_t index; /* rejected: the previous index; else: durable up to it */
                        uint64_t hint_index;
                        uint64_t hint_term;
                        uint64_t life;
                } append_result;
                struct {
                        uint64_t last_index;
                        uint64_t last_term;
                        bool transfer;
                        bool pre_vote;
                } vote;
                struct {
                        bool granted;
                        bool pre_vote;
                        uint64_t asked_term;
                } vote_result;
                struct {
                        uint64_t index;
                        uint64_t term;
                        uint64_t members_index;
                        struct bytes members;
                        uint64_t size;
                        uint32_t crc;
                        uint64_t offset;
                        struct bytes data;
                } chunk;
                struct {
                        uint64_t index;
                        uint64_t term;
                        uint64_t offset;
                        bool amnesiac;
                        uint64_t life;
                } chunk_result;
                struct {
                        uint64_t last_index;
                        uint64_t last_term;
                } timeout_now;
        };
};

/* For APPEND the items are taken from `entries`, `count` of them behind previous_index. */
void message_encode(const struct message *message, const struct entries *entries,
                    struct buffer *out);

/* Borrows from `data`. ERR_TRUNCATED, ERR_MALFORMED, ERR_VERSION. */
MUST_USE enum err message_decode(struct bytes data, struct message *ret);

/* The next of append.items, which moves on. Only after a good decode, `count` times. */
struct entry message_entry(struct bytes *items);

#endif
