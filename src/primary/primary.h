/* primary.h - who may write to a PostgreSQL cluster that spans regions, and what each node has to
 * do with its own server. Decisions only: a node asks again whenever something has changed.
 *
 * The right to write is a lease in the council's lock table. Its token is the cluster's *epoch*: it
 * grows with every takeover and is never used twice. The holder counts its lease from the moment it
 * sent the renewal that was granted, by its own monotonic clock and less a margin for drift; the
 * council counts from the moment it applied it; where its leader changes meanwhile, from when the
 * next one had it. So a holder that is cut off stops, by itself, before the council lets anybody
 * else begin.
 *
 *   takeover      free lease -> the standby that has most claims it -> it looks again at what the
 *                 others have, now that nobody can write -> promotes, or gives the lease back
 *   switchover    the holder holds its writes until the chosen standby has everything, then gives
 *                 the lease back; the chosen one comes first in the order of claims. If it takes
 *                 too long the holder lets its writes go on: nothing has happened
 *   return        a server whose data left the line of the present primary is rewound; where that
 *                 cannot be known to be right, it is made anew from the primary. What only it had
 *                 is kept aside first, by the one who carries the action out
 *
 *   coming back   a former primary that has most, and claims the lease again, starts as a standby
 *                 and is promoted like any other. So each lease under which writes were taken has a
 *                 timeline of its own, begun under its token, and the newest epoch among enough
 *                 servers has all that was ever acknowledged. Were an old timeline to go on under a
 *                 new token, then one that was promoted in between, and never heard, would outrank
 *                 what was acknowledged after it
 *
 * Never: a server opened for writes without a lease of its own; writes under a lease in a timeline
 * that was begun under another; a lease claimed by one that knows of a server with more, but by an
 * operator's force; data of another cluster touched.
 *
 * Terms are PostgreSQL's: a timeline begins with each promotion, at a place (LSN) in the one before
 * it. Timeline numbers alone do not tell two histories apart (two servers may both have begun
 * timeline 2), so the epoch under which a timeline was begun is kept beside it. */
#ifndef MERIDIAN_PRIMARY_PRIMARY_H
#define MERIDIAN_PRIMARY_PRIMARY_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/cursor.h"
#include "base/err.h"
#include "world/world.h"

enum {
        PRIMARY_NODES_MAX = 32,
        PRIMARY_LINES_MAX = 16, /* of a server's history that others are told */
        PRIMARY_SENTENCE_SIZE = 384,
};

/* A node's own server, as its node sees it. */
enum primary_server {
        PRIMARY_ABSENT,  /* there is no data */
        PRIMARY_ASLEEP,  /* a standby's data; does not run */
        PRIMARY_STANDBY, /* runs in recovery */
        PRIMARY_CLOSED,  /* a primary's data; does not run */
        PRIMARY_FENCED,  /* runs as a primary whose gate lets no write through */
        PRIMARY_OPEN,    /* takes writes */
        PRIMARY_HELD,    /* a primary whose writes wait at the gate, for a switchover */
        PRIMARY_SERVER_COUNT,
};

/* The lease, as far as this node knows. */
enum primary_hold {
        PRIMARY_UNKNOWN, /* the council cannot be asked, and ours, if we had one, has run out */
        PRIMARY_FREE,
        PRIMARY_OTHER, /* somebody else has it */
        PRIMARY_MINE,
        PRIMARY_ENDING, /* ours, but it could not be renewed in time: too late to write */
        PRIMARY_HOLD_COUNT,
};

/* Own data beside the lease holder's. */
enum primary_match {
        PRIMARY_MATCH_UNKNOWN,  /* the holder has told nothing yet */
        PRIMARY_MATCH_PREFIX,   /* the holder has all that this one has: it can follow */
        PRIMARY_MATCH_DIVERGED, /* this one has more on a line that the holder has left: rewind */
        PRIMARY_MATCH_BROKEN,   /* cannot be told apart by timelines, or too old: make it anew */
        PRIMARY_MATCH_FOREIGN,  /* another cluster's data: hands off */
        PRIMARY_MATCH_COUNT,
};

/* Own data beside what all others have told. */
enum primary_rank {
        PRIMARY_RANK_UNSURE, /* too few have told what they have */
        PRIMARY_RANK_BEST,
        PRIMARY_RANK_BEHIND, /* another has more, or comes first among equals */
        PRIMARY_RANK_EMPTY,  /* nobody has any data, and everybody has said so */
        PRIMARY_RANK_COUNT,
};

/* What an operator asks of this node's server. */
enum primary_wish {
        PRIMARY_WISH_NONE,
        PRIMARY_WISH_AWAY,  /* of the holder: another server is to take over, nothing lost */
        PRIMARY_WISH_HERE,  /* of a standby: take over when the lease is free, if nothing is lost
                             * beyond the limit */
        PRIMARY_WISH_FORCE, /* the same, whatever is lost */
        PRIMARY_WISH_COUNT,
};

/* A timeline that a server has left: followed up to `end`, begun under `epoch`. */
struct primary_line {
        uint32_t timeline;
        uint64_t epoch;
        uint64_t end;
};

/* What a node tells all others of its server. */
struct primary_report {
        node_id node;
        region_id region;
        enum primary_server server;
        uint64_t system;   /* the cluster's identifier; 0: no data */
        uint64_t epoch;    /* under which its timeline was begun; 0: none of ours (adopted) */
        uint32_t timeline; /* the present one; 0: no data */
        uint64_t written;  /* LSN: a primary has flushed, a standby has received up to here */
        uint64_t replayed;
        uint8_t line_count; /* of the timelines before, newest first */
        struct primary_line lines[PRIMARY_LINES_MAX];
        bool lines_cut; /* there are older ones */
        bool following; /* a standby that streams from the holder */
        bool eligible;  /* may become primary (not a witness, not drained, not a delayed one) */
};

/* Appends a report; at most about 450 bytes. */
void primary_report_encode(const struct primary_report *report, struct buffer *buffer);

/* Reads one, from any bytes: *ret is set only on success. ERR_TRUNCATED, ERR_MALFORMED,
 * ERR_VERSION. */
MUST_USE enum err primary_report_decode(struct bytes data, struct primary_report *ret);

/* How `own` relates to `holder`. */
enum primary_match primary_match(const struct primary_report *own,
                                 const struct primary_report *holder);

/* What is known of one server when ranking. */
struct primary_candidate {
        struct primary_report report; /* node and region always, the rest where it is fresh */
        bool fresh;                   /* told lately: no older than the caller's limit */
        bool gone;                    /* held for down by a majority: not waited for */
        uint32_t priority;            /* among equals the smaller one comes first */
};

struct primary_rules {
        unsigned sync;      /* a commit waits for so many standbys of other regions (where all are
                             * of one: for so many of that); 0: asynchronous */
        bool automatic;     /* take over without being asked */
        uint64_t loss_max;  /* bytes that may be lost without asking; where sync is 0 */
        node_id designated; /* comes first among equals; 0: none */
        region_id region;   /* of the last primary: comes next among equals; 0: none */
        uint64_t epoch;     /* the newest epoch ever heard of, */
        uint64_t written;   /* and how far its primary had written, as last heard */
};

struct primary_standing {
        enum primary_rank rank;
        node_id best;   /* of those that are fresh and eligible; 0: none */
        bool latest;    /* own data was begun under the newest epoch known */
        uint64_t loss;  /* bytes that are known to have been written and that `self` has not;
                         * UINT64_MAX: it has nothing of the newest epoch, so nobody knows */
        bool loss_over; /* more than the rules allow */
};

/* Ranks `self` among the candidates (itself included; count <= PRIMARY_NODES_MAX). Order: newest
 * epoch, then most data, then the designated one, one in the last primary's region, the smallest
 * priority, the smallest node id.
 *
 * Sure is: all that are not gone have told. With `sync` k each acknowledged commit is on its
 * primary and k others, of other regions; so those that have not told must not be, whoever of them
 * was the primary, one and k of other regions. With a server in each of n + 1 regions: n - k + 1
 * have to tell. Or all tell, whatever they have. That one of them was the primary is not enough:
 * who was promoted after it may not have been heard. What was not acknowledged is no loss then. */
struct primary_standing primary_rank(const struct primary_candidate *candidates, size_t count,
                                     node_id self, const struct primary_rules *rules);

/* Bytes that are known to have been written and that `own` has not; UINT64_MAX: it has nothing of
 * the newest epoch, so nobody knows. */
uint64_t primary_loss(const struct primary_report *own, const struct primary_rules *rules);

/* ---- what other regions have ------------------------------------------------------------------
 *
 * A primary's commits that no other region knows: how many bytes of log, and how old the oldest
 * may be. The age is never told too small, and within a day at most by a sample and a third of
 * itself too great. Times are monotonic microseconds, places are LSN of one timeline. */

enum {
        PRIMARY_MARKS_MAX = 64,
};

/* Until `at_us` nothing was committed behind `lsn`. */
struct primary_mark {
        uint64_t lsn;
        uint64_t at_us;
};

struct primary_exposure {
        uint64_t epoch; /* of the timeline; 0: nothing was sampled */
        uint64_t begun; /* committed as of the first sample */
        uint64_t known; /* so far another region has it; 0: none has told of this timeline */
        bool over;      /* more than the limit: as of the last primary_exposure_look */
        unsigned count;
        struct primary_mark marks[PRIMARY_MARKS_MAX]; /* oldest first; only the first may be known
                                                       * elsewhere */
};

/* 0: without limit. */
struct primary_limit {
        uint64_t age_us;
        uint64_t bytes;
};

/* The primary of the timeline that was begun under `epoch` had committed nothing behind `lsn` at
 * that time. Another epoch begins anew; `held`: commits are held since before that. Samples of an
 * earlier time than the last one's change nothing. */
void primary_exposure_sample(struct primary_exposure *exposure, uint64_t epoch, uint64_t lsn,
                             uint64_t at_us, bool held);

/* A server of another region has this timeline up to `lsn`. */
void primary_exposure_known(struct primary_exposure *exposure, uint64_t lsn);

uint64_t primary_exposure_bytes(const struct primary_exposure *exposure);
uint64_t primary_exposure_age_us(const struct primary_exposure *exposure, uint64_t now_us);

/* Sets and returns `over`. It begins beyond the limit, and ends at half of it: who holds commits
 * until then does not hold them again at once. Where they were held before the first sample, it
 * ends when all that was there then is known elsewhere, too. */
bool primary_exposure_look(struct primary_exposure *exposure, const struct primary_limit *limit,
                           uint64_t now_us);

/* ---- rows ------------------------------------------------------------------------------------ */

enum primary_action {
        PRIMARY_DO_NOTHING, /* but say the sentence, where the row has one */
        PRIMARY_DO_INIT,    /* make a new cluster here (initdb), and open it */
        PRIMARY_DO_CLONE,   /* make a standby from the holder (base backup) */
        PRIMARY_DO_START,   /* start as a standby of the holder, if one is known */
        PRIMARY_DO_FOLLOW,  /* stream from the holder from now on */
        PRIMARY_DO_REWIND,  /* keep aside what only this one has; rewind; start as a standby */
        PRIMARY_DO_REBUILD, /* keep aside; make it anew from the holder */
        PRIMARY_DO_CLAIM,   /* ask the council for the lease */
        PRIMARY_DO_RELEASE, /* give it back */
        PRIMARY_DO_PROMOTE, /* end recovery and open, under the lease's token as epoch */
        PRIMARY_DO_OPEN,    /* a primary that was held goes on: start if need be, open the gate */
        PRIMARY_DO_HOLD,    /* new writes wait at the gate */
        PRIMARY_DO_FENCE,   /* close the gate, cut the sessions, and stop the server */
        PRIMARY_ACTION_COUNT,
};

struct primary_input {
        enum primary_server server;
        enum primary_hold hold;
        enum primary_match match;
        enum primary_rank rank;
        enum primary_wish wish;
        bool latest;    /* as in primary_standing */
        bool loss_over; /* as in primary_standing */
        bool automatic; /* takeovers without being asked are allowed */
        bool ready;     /* AWAY: the chosen standby is close enough to begin, or (held) has all */
        bool following; /* the standby streams from the holder */
        bool founder;   /* where nobody has data, this node is to begin */
};

struct primary_row {
        const char *id;
        uint8_t servers; /* masks of 1 << value: the row matches where all bits meet */
        uint8_t holds, matches, ranks, wishes;
        uint8_t latest, loss_over, automatic, ready, following, founder; /* 1 no, 2 yes, 3 either */
        enum primary_action action;
        bool alarm;           /* it waits for a person */
        const char *sentence; /* with {node}, {other}, {loss}; NULL: nothing to say */
};

/* The row for an input, or NULL: all is well. A row that fences is to be carried out at once, even
 * when something else is under way; all others only when nothing is. Static. */
const struct primary_row *primary_decide(const struct primary_input *input);

/* All rows, static. */
const struct primary_row *primary_rows(size_t *ret_count);

/* The row of an id, or NULL. */
const struct primary_row *primary_row_by_id(struct bytes id);

/* The sentence with its placeholders filled in, cut to fit; "" where there is none. Returns
 * `text`. */
const char *primary_sentence(const struct primary_row *row, const char *node, const char *other,
                             uint64_t loss, char text[static PRIMARY_SENTENCE_SIZE]);

/* The table as Markdown: docs/primary-rows.md. */
void primary_markdown(struct buffer *buffer);

/* ---- the holder's side of the lease ---------------------------------------------------------- */

/* Times are monotonic microseconds. */
struct primary_lease {
        uint64_t token;    /* 0: none */
        uint64_t until_us; /* may write before this */
};

/* A request for `ttl_us` of lease that had left at `sent_us` was granted, under this token. Answers
 * may come in any order: the end never goes back under one token. */
void primary_lease_granted(struct primary_lease *lease, uint64_t token, uint64_t sent_us,
                           uint64_t ttl_us);

/* It was refused, released, or is known to be another's. */
void primary_lease_lost(struct primary_lease *lease);

/* The lease, for a node that holds one: MINE, ENDING, or (after its end) UNKNOWN; UNKNOWN also
 * where there is none. ENDING begins `margin` before the end, in which the fence has to close. */
enum primary_hold primary_lease_hold(const struct primary_lease *lease, uint64_t now_us,
                                     uint64_t margin_us);

/* "open", "mine", "diverged", ...; static. */
const char *primary_server_name(enum primary_server server);
const char *primary_hold_name(enum primary_hold hold);
const char *primary_match_name(enum primary_match match);
const char *primary_rank_name(enum primary_rank rank);
const char *primary_wish_name(enum primary_wish wish);
const char *primary_action_name(enum primary_action action);

#endif
