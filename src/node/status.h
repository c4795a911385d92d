/* status.h - what a node knows at one moment, as a plain struct: for `meridian status`, for the
 * status page and for the writer of the view. Nothing in it points anywhere. */
#ifndef MERIDIAN_NODE_STATUS_H
#define MERIDIAN_NODE_STATUS_H

#include "world/world.h"

#define NODE_STATUS_REGIONS_MAX  32
#define NODE_STATUS_NAME_MAX     64
#define NODE_STATUS_WHY_MAX      320
#define NODE_STATUS_NOTE_MAX     480
#define NODE_STATUS_NOTES_MAX    64
#define NODE_STATUS_BACKENDS_MAX 64

/* A part of a region as its own node sees it. */
enum node_part_state {
        NODE_PART_UNKNOWN, /* never probed, not heard lately, or not configured */
        NODE_PART_HEALTHY,
        NODE_PART_UNHEALTHY,
};

/* Replication of one origin's stream into a region's Redis. */
struct node_status_lag {
        region_id origin;
        bool known;        /* false: print null, whatever lag_us holds */
        uint64_t lag_us;   /* age of the oldest change that may be missing; 0: none */
        uint64_t position; /* hlc */
        bool transfer;     /* the origin's state is being taken: the node's own region only */
        uint32_t done_permille;
};

struct node_status_region {
        region_id id;
        char name[NODE_STATUS_NAME_MAX]; /* NUL-terminated */
        const char *state;               /* "active", "down", ...: static, as in the requirements */
        int state_value;                 /* enum topology_state */
        bool routable;                   /* may get traffic now, by what this node knows */
        char why[NODE_STATUS_WHY_MAX];   /* one sentence: why in this state, or why not routable */
        bool self;
        bool witness;          /* votes, and never gets traffic */
        bool leader;           /* the global group's leader lives there */
        bool heard;            /* some node of it was heard within the time allowed */
        uint64_t heard_age_us; /* valid when `heard_ever` */
        bool heard_ever;
        bool capacity_known;
        /* Round-trip time from this region to regions[i]: rtt_us[i]; 0 and false: unknown. */
        bool rtt_known[NODE_STATUS_REGIONS_MAX];
        uint64_t rtt_us[NODE_STATUS_REGIONS_MAX];
        enum node_part_state parts[WORLD_PART_COUNT]; /* BACKEND: healthy when any is */
        bool redis_known;
        bool redis_up;
        struct node_status_lag lags[NODE_STATUS_REGIONS_MAX];
        size_t lag_count;
        uint64_t backends_healthy; /* bit i: backend i in the order of the topology */
        uint32_t backend_count;
        bool copy_known;        /* this node keeps what happens to that region's locks, */
        bool copy_heard;        /* and was told of it once: */
        uint64_t copy_revision; /* up to that one, */
        uint64_t copy_age_us;   /* so long ago; */
        uint64_t copy_changes;  /* so many are kept, */
        uint64_t copy_gaps;     /* and so often some were missed */
};

/* A server of the PostgreSQL cluster, as far as was heard of it lately. */
struct node_status_server {
        node_id node;
        region_id region;
        bool heard;         /* its node has told of it once, the last time */
        uint64_t heard_us;  /* so long ago */
        bool known;         /* false: nothing below counts */
        const char *server; /* "open", "standby", ...: primary/primary.h; static */
        int server_value;   /* enum primary_server */
        bool eligible;      /* may become primary */
        bool following;     /* streams from the lease's holder */
        uint32_t timeline;
        uint64_t epoch;
        uint64_t written, replayed; /* LSN */
        bool behind_known;
        uint64_t behind_bytes; /* what the primary has written and this one has not */
        bool lag_known;
        uint64_t lag_us;     /* age of what it shows */
        bool paused;         /* somebody has paused its replay */
        bool loss_known;     /* nobody holds the lease, and */
        uint64_t loss_bytes; /* a takeover by it would lose so much of what is known */
        bool commit_known;
        uint64_t commit_us; /* a standby's: age of the newest commit that it shows */
};

/* What was asked of a node's server last: of the holder a switchover, of a standby a failover. */
struct node_status_order {
        uint64_t number;   /* grows by one a request, from 1 since the start; 0: none */
        node_id target;    /* who is to take over */
        const char *state; /* "none", "waits", "done", "off"; static */
        bool recorded;     /* the council knows of it: it outlives a restart of the node */
        char why[NODE_STATUS_WHY_MAX]; /* it waits, or is off; else "" */
};

struct node_status_postgres {
        bool present;     /* the topology has such a cluster */
        const char *hold; /* this node's lease: "mine", "another's", "unknown", ...; static */
        node_id holder;   /* of the lease; 0: nobody, or not known */
        bool may_write;   /* this node's lease has not run out, and is the newest known */
        uint64_t grant;   /* token of the newest lease known; 0: none */
        node_id grantee;  /* whom that was given to; 0: none, or not known */
        bool left_known;
        uint64_t left_us; /* own lease: writes are allowed for so long without a renewal */
        const char *wish; /* "none", "away", "here", "force"; static */
        node_id designated;
        struct node_status_order order;
        const char *row; /* id of the row that holds now: docs/primary-rows.md; NULL: all is well */
        char failed[NODE_STATUS_NOTE_MAX]; /* what this node tried last with its server, and why it
                                            * failed; "": it went well */
        bool exposed_known; /* below: what no other region has of the writer's commits */
        bool exposed_over;  /* more than the limit */
        bool exposed_held;  /* and so commits are held */
        uint64_t exposed_us, exposed_bytes;
        uint64_t limit_us, limit_bytes; /* 0: without limit */
        uint64_t slot_max;              /* bytes that a slot of the writer may retain; 0: not known,
                                         * or without limit */
        struct world_postgres_slot slots[WORLD_POSTGRES_SLOTS_MAX];
        size_t slot_count;
        const char *rank; /* of this node's server among all: "best", "behind", ...; static */
        bool loss_known;
        uint64_t loss_bytes; /* that a takeover by this node would lose, as far as is known */
        struct node_status_server servers[NODE_STATUS_REGIONS_MAX];
        size_t server_count;
};

#define NODE_STATUS_MEMBERS_MAX 64

/* A node of the topology, or one that is about to leave the groups. */
struct node_status_member {
        node_id node;
        region_id region; /* 0: it is in the topology no more */
        char name[NODE_STATUS_NAME_MAX];
        const char *role; /* in the global group: "voter", "learner", "witness", "none"; static */
        bool coming;      /* gets a vote as soon as it has caught up */
        bool up;          /* was heard lately; this node itself: true */
        bool leads;       /* the global group */
        bool carries;     /* its region's data */
        bool done;        /* its groups are as the topology wants them, as far as it knows */
};

struct node_status_note {
        uint64_t index; /* grows by one a note, from 1 */
        uint64_t wall_us;
        const char *name; /* static */
        char text[NODE_STATUS_NOTE_MAX];
};

struct node_status {
        node_id node;
        region_id region;
        uint64_t version; /* grows whenever anything that matters to routing changes */
        uint64_t epoch;   /* of the council's topology and states */
        unsigned level;   /* of the global group: what all nodes know (council/council.h) */
        uint64_t term;    /* of the global group */
        bool leads;       /* this node leads the global group */
        bool leader_known;
        node_id leader;
        region_id leader_region;
        bool majority;     /* a majority of the global group is in touch, as far as is known */
        bool region_leads; /* this node leads its region's group */
        bool stopped;      /* a journal failed: this node takes no part in agreement */
        struct node_status_region regions[NODE_STATUS_REGIONS_MAX];
        size_t region_count;
        struct node_status_member members[NODE_STATUS_MEMBERS_MAX];
        size_t member_count;
        struct node_status_postgres postgres;
        struct node_status_note notes[NODE_STATUS_NOTES_MAX]; /* oldest first */
        size_t note_count;
};

#endif
