/* message_priv.h - what nodes tell each other: the envelope, and the words that go in it. Encoders
 * append to a buffer, whose error sticks; decoders refuse what is cut short or out of range, and
 * what is in `ret` then means nothing. */
#ifndef MERIDIAN_NODE_MESSAGE_PRIV_H
#define MERIDIAN_NODE_MESSAGE_PRIV_H

#include "base/buffer.h"
#include "health/health.h"
#include "node/node.h"
#include "primary/primary.h"
#include "world/world.h"

/* A message of WORLD_CLASS_CONTROL: u8 version, u8 kind, then the kind's body. In a cluster that
 * was restored: u8 ENVELOPE_LIFE, u64 life, then that. */
#define ENVELOPE_LIFE 0xfe

enum envelope_kind {
        ENVELOPE_RAFT_GLOBAL = 1, /* consensus message of that group */
        ENVELOPE_RAFT_REGION,
        ENVELOPE_GOSSIP,   /* struct gossip */
        ENVELOPE_PROPOSE,  /* u8 group, command: for the leader */
        ENVELOPE_FORWARD,  /* varint id, request: for a node of the region that decides */
        ENVELOPE_ANSWER,   /* varint id, reply */
        ENVELOPE_RESULT,   /* varint id, varint incarnation, reply: of a proposed lock command */
        ENVELOPE_POSTGRES, /* struct postgres_word */
        ENVELOPE_READ,     /* varint id, u8 group, request: for the leader, which answers */
        ENVELOPE_MEMBER,   /* struct member_word */
        ENVELOPE_TOPOLOGY, /* document: a newer one than the receiver knows */
        ENVELOPE_STATES,   /* of the regions, for a witness: u8 version, u8 count, each: u8 region,
                            * u8 state; and what later versions add */
        ENVELOPE_DETAIL,   /* struct postgres_detail */
        ENVELOPE_KIND_COUNT,
};

struct envelope {
        enum envelope_kind kind;
        uint64_t id;            /* FORWARD, ANSWER, READ; RESULT: the command's sequence */
        uint64_t incarnation;   /* RESULT: of the node that proposed */
        enum world_group group; /* PROPOSE, READ */
        struct bytes body;      /* borrowed */
};

void envelope_encode(const struct envelope *envelope, struct buffer *out);
MUST_USE enum err envelope_decode(struct bytes data, struct envelope *ret);

/* What a node tells every other beside its health report. */
struct gossip {
        struct health_report report;
        uint64_t epoch;
        uint64_t term;
        uint32_t leader;
        bool redis_known;
        bool redis_up;
        bool caught_up; /* its data lags little behind every region that it hears */
        uint64_t backends_up;
        uint32_t lag_count;
        struct node_status_lag lags[NODE_STATUS_REGIONS_MAX];
        uint32_t rtt_count;
        struct {
                region_id region;
                uint64_t rtt_us;
        } rtts[NODE_STATUS_REGIONS_MAX];
};

void gossip_encode(const struct gossip *gossip, struct buffer *out);
MUST_USE enum err gossip_decode(struct bytes data, struct gossip *ret);

/* What a node tells every other of its part in groups, with each gossip: u8 version, u8 flags,
 * varint epoch, and what later versions add. */
struct member_word {
        bool region_open; /* it takes part in its region's group, */
        bool holds;       /* and votes there: it has what the group holds */
        bool carries;     /* its region's data: carrier.c */
        bool done;        /* its groups are as the topology wants them */
        uint64_t epoch;   /* of the document that it knows */
        uint8_t level;    /* what it knows of commands; 0: it has not spoken */
};

/* The newest word that went round of somebody who writes. */
struct postgres_news {
        uint64_t token;   /* of the lease under which it does; 0: nobody was heard of */
        uint64_t epoch;   /* of its data */
        uint64_t written; /* at least that far */
};

/* What a node tells every other of PostgreSQL, with each gossip. */
struct postgres_word {
        struct primary_report report;
        uint64_t grant; /* the newest lease that it knows to have been granted, */
        node_id grant_node;
        struct postgres_news news;
        node_id designated; /* the holder's: who is to take over from it */
        bool lag_known;
        uint64_t lag_us;
};

void postgres_word_encode(const struct postgres_word *word, struct buffer *out);
MUST_USE enum err postgres_word_decode(struct bytes data, struct postgres_word *ret);

/* What it tells beside it, for people: no decision rests on it. */
struct postgres_detail {
        bool paused; /* its server's replay */
        bool commit_known;
        uint64_t commit_us; /* age of the newest commit that a standby shows */
        bool exposed_known, exposed_over, exposed_held;
        uint64_t exposed_us, exposed_bytes;
        uint64_t slot_max;
        uint32_t slot_count;
        struct world_postgres_slot slots[WORLD_POSTGRES_SLOTS_MAX];
};

void postgres_detail_encode(const struct postgres_detail *detail, struct buffer *out);

/* What later versions add is passed over. */
MUST_USE enum err postgres_detail_decode(struct bytes data, struct postgres_detail *ret);

#endif
