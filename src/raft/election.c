/* Terms, votes and leadership.
 *
 *              timer                majority would           majority
 *   FOLLOWER --------> PROSPECT ------------------> CANDIDATE --------> LEADER
 *      ^                  |  (pre-vote; no term is spent)  |               |
 *      '--- a leader's word, a higher term ----------------+---------------'
 *
 * A node that has heard a leader within the last election timeout refuses every vote and does not
 * take over the term asked for, so neither one that was removed nor one that was cut off disturbs,
 * and a lease holds. After its start it acts as if it had just heard one: it may have promised so.
 * Only a candidate that the leader itself has sent (transfer) is heard at once.
 *
 * A follower whose link to the leader broke waits the same election timeout, but for less chance on
 * top, and asks again sooner when it is refused. Of two who stand so at once, far apart, one waits
 * for the other (yield).
 *
 * Where votes may be early, a node that has had no link to its leader for an eighth of the election
 * timeout has heard nobody, and one that could vote stands after a quarter. So only a leader that a
 * majority has lost is replaced: one whose link to some broke is kept by the votes of the others,
 * and one whose links stand again at once by all. No lease can be built on that.
 *
 * A refusal carries the true term. One that lost its journal refuses always. */
#include "base/check.h"
#include "raft/core_priv.h"

enum {
        GONE_TIMEOUTS = 4, /* a broken link counts for so long */
        AWAY_PART = 8,     /* of the election timeout: what a link may take to stand again */
};

static bool is_witness(const struct core *core)
{
        const struct member *self = log_self(core);
        return self != NULL && self->role == CONSENSUS_WITNESS;
}

/* A witness stands only where nobody else does. That its leader is gone it sees as soon as the
 * others: who asks it would wait for an answer that cannot come. */
static uint64_t witness_patience(const struct core *core)
{
        return 2 * (uint64_t)core->config.election_timeout_ms;
}

/* Its leader's link broke, and nobody else has stood since. */
static bool leader_gone(const struct core *core)
{
        uint64_t patience = GONE_TIMEOUTS * (uint64_t)core->config.election_timeout_ms;
        return core->gone && core->now_ms < core->gone_ms + patience && !is_witness(core);
}

void election_timer(struct core *core)
{
        uint64_t timeout = core->config.election_timeout_ms;
        if (leader_gone(core)) {
                /* To ask again early spends nothing; to give up a candidacy spends a term. */
                bool candidate = core->role == CORE_CANDIDATE;
                uint64_t least = candidate ? timeout / 2 : timeout / 8;
                uint64_t chance = candidate ? timeout / 2 : timeout / 4;
                core->election_ms = core->now_ms + least + rng_below(&core->rng, chance + 1);
                return;
        }
        core->election_ms = core->now_ms + timeout + rng_below(&core->rng, timeout + 1);
        if (is_witness(core) && core->leader == 0)
                core->election_ms += witness_patience(core);
}

void election_leader_gone(struct core *core, uint32_t peer)
{
        uint64_t timeout = core->config.election_timeout_ms;
        if (core->role != CORE_FOLLOWER || core->leader != peer)
                return;
        if (core->config.early_votes && !core->away) {
                core->away = true;
                core->away_ms = core->now_ms;
        }
        if (is_witness(core))
                return;
        core->gone = true;
        core->gone_ms = core->now_ms;
        uint64_t from = core->heard_ms + timeout;
        if (core->away && core->away_ms + timeout / 4 < from)
                from = core->away_ms + timeout / 4;
        uint64_t at = from + rng_below(&core->rng, timeout / 8 + 1);
        if (at < core->election_ms)
                core->election_ms = at;
}

/* Whether it still leads is for its word to say. One that was away for long is heard again with
 * that. */
static bool leader_away(const struct core *core)
{
        return core->away &&
               core->now_ms >= core->away_ms + core->config.election_timeout_ms / AWAY_PART;
}

void election_leader_back(struct core *core, uint32_t peer)
{
        uint64_t timeout = core->config.election_timeout_ms;
        if (!core->away || core->role != CORE_FOLLOWER || core->leader != peer || leader_away(core))
                return;
        core->away = false;
        uint64_t at = core->heard_ms + timeout + rng_below(&core->rng, timeout / 8 + 1);
        if (core->gone && at > core->election_ms)
                core->election_ms = at;
}

size_t election_quorum(const struct core *core, size_t voting)
{
        size_t quorum = voting / 2 + 1;
        if (core->config.bugs.quorum_half && voting > 1)
                quorum = voting / 2;
        return quorum;
}

static bool votes_in(const struct core *core, const struct members *members)
{
        const struct member *self = members_find(members, core->config.self);
        return self != NULL && member_votes(self);
}

/* One that was removed, and does not know that this is committed, stands as well (dissertation,
 * 4.2.2): it may be the only one that has the entry. So does a learner that a witness has sent: the
 * only one that has a state. A majority decides for both, and their own vote is not counted. */
static bool electable(const struct core *core)
{
        const struct regime *regime = log_regime(core);
        if (regime == NULL || core->meta.amnesiac || core->arrival.writing)
                return false;
        if (votes_in(core, &regime->members) || (core->transfer_vote && !log_stateless(core)))
                return true;
        return regime > core->regimes && regime->index > core->commit &&
               votes_in(core, &regime[-1].members);
}

static bool elected(const struct core *core, const struct members *members)
{
        size_t votes = 0;
        for (size_t i = 0; i < members->count; i++)
                votes += core->granted[i] && member_votes(&members->items[i]);
        return votes >= election_quorum(core, members_voting(members));
}

void election_step_down(struct core *core, uint64_t term, uint32_t leader)
{
        CHECK(term >= core->meta.term);
        if (core->role == CORE_LEADER)
                replicate_end(core);
        if (term > core->meta.term) {
                core->meta.term = term;
                core->meta.vote = 0;
                log_meta(core);
        }
        core->verified = core->acknowledged = 0;
        core->round_heard = (struct message_round){0};
        core->role = CORE_FOLLOWER;
        core->leader = leader;
        core->transfer_vote = false;
        election_timer(core);
}

/* The barrier commits what earlier terms left, and lets reads and changes begin. A witness writes
 * none: it is to hand over, and an entry that only it has would make it the only one that can lead,
 * also where the one that has the state, and that it could not reach, comes back. */
static void lead(struct core *core)
{
        core->role = CORE_LEADER;
        core->leader = core->config.self;
        core->lead_since_ms = core->now_ms;
        /* A caller may read its clock once for many inputs: what came with this very reading may
         * be younger than that. */
        core->inherited_ms = core->entry_new ? 0 : core->entry_ms;
        replicate_begin(core);
        core->lead_from = UINT64_MAX;
        if (core->config.bugs.no_noop)
                core->lead_from = 0;
        if (core->config.bugs.no_noop || is_witness(core))
                return;
        log_append(core, core->meta.term, ENTRY_BARRIER, (struct bytes){0});
        core->lead_from = log_last(core);
}

static void ask(struct core *core, const struct members *members)
{
        uint64_t last = log_last(core);
        for (size_t i = 0; i < members->count; i++) {
                const struct member *member = &members->items[i];
                if (!member_votes(member) || member->node == core->config.self)
                        continue;
                struct message message = {.type = MESSAGE_VOTE};
                message.vote.last_index = last;
                message.vote.last_term = log_term(core, last);
                message.vote.transfer = core->transfer_vote;
                message.vote.pre_vote = core->role == CORE_PROSPECT;
                post_send(core, member->node, &message);
        }
}

/* Asks as PROSPECT or CANDIDATE; true when it needs nobody else. */
static bool stand(struct core *core, enum core_role role)
{
        const struct members *members = &log_regime(core)->members;
        core->role = role;
        core->leader = 0;
        memset(core->granted, 0, sizeof core->granted);
        for (size_t i = 0; i < members->count; i++)
                core->granted[i] = members->items[i].node == core->config.self;
        election_timer(core);
        ask(core, members);
        return elected(core, members);
}

static void stand_candidate(struct core *core)
{
        core->meta.term++;
        core->meta.vote = core->config.self;
        core->verified = core->acknowledged = 0;
        log_meta(core);
        if (stand(core, CORE_CANDIDATE) && !core->failed)
                lead(core);
}

void election_tick(struct core *core)
{
        if (core->role == CORE_LEADER || core->now_ms < core->election_ms)
                return;
        core->transfer_vote = false;
        if (!electable(core)) {
                core->leader = 0;
                election_timer(core);
        } else if (is_witness(core) && core->leader != 0) {
                core->leader = 0;
                core->election_ms = core->now_ms + witness_patience(core);
        } else if (!core->config.pre_vote || core->config.bugs.vote_volatile ||
                   stand(core, CORE_PROSPECT)) {
                stand_candidate(core);
        }
}

static bool log_up_to_date(const struct core *core, const struct message *message)
{
        uint64_t last = log_last(core);
        uint64_t term = log_term(core, last);
        if (message->vote.last_term != term && !core->config.bugs.log_by_length)
                return message->vote.last_term > term;
        if (core->config.bugs.log_strict)
                return message->vote.last_index > last;
        return message->vote.last_index >= last;
}

static bool leader_alive(const struct core *core)
{
        if (core->role == CORE_LEADER)
                return true;
        return !leader_away(core) &&
               core->now_ms < core->heard_ms + core->config.election_timeout_ms;
}

/* Of two that stand at once. The same at both, but for what they know of members. */
static bool comes_first(const struct core *core, const struct message *message)
{
        uint64_t last = log_last(core);
        uint64_t term = log_term(core, last);
        if (message->vote.last_term != term || message->vote.last_index != last)
                return message->vote.last_term > term ||
                       (message->vote.last_term == term && message->vote.last_index > last);
        const struct member *self = log_self(core);
        const struct member *other = members_find(&log_regime(core)->members, message->from);
        if (self == NULL || other == NULL || other->role != CONSENSUS_VOTER)
                return false;
        return other->priority != self->priority ? other->priority > self->priority
                                                 : other->node < self->node;
}

/* With so little chance in it two ask within the time that a message takes between regions, become
 * candidates, and vote for themselves, again and again. So one of them waits for the other: once,
 * as it may be one that is heard and does not hear. */
static void yield(struct core *core, const struct message *message)
{
        if (core->role != CORE_PROSPECT || !leader_gone(core) || !comes_first(core, message))
                return;
        core->gone = false;
        core->role = CORE_FOLLOWER;
        election_timer(core);
}

static void answer(struct core *core, const struct message *to, uint64_t asked, bool granted)
{
        struct message message = {.type = MESSAGE_VOTE_RESULT};
        message.vote_result.granted = granted;
        message.vote_result.pre_vote = to->vote.pre_vote;
        message.vote_result.asked_term = asked;
        post_send(core, to->from, &message);
}

static bool may_vote(const struct core *core, const struct message *message)
{
        return !core->meta.amnesiac && log_up_to_date(core, message);
}

void election_vote(struct core *core, const struct message *message)
{
        bool pre_vote = message->vote.pre_vote;
        uint64_t asked = message->term + (pre_vote ? 1 : 0);
        if (asked < core->meta.term || (leader_alive(core) && !message->vote.transfer)) {
                answer(core, message, asked, false);
                return;
        }
        if (pre_vote) {
                bool granted = asked > core->meta.term && may_vote(core, message);
                if (granted)
                        yield(core, message);
                answer(core, message, asked, granted);
                return;
        }
        if (asked > core->meta.term)
                election_step_down(core, asked, 0);
        bool granted = may_vote(core, message) && core->role == CORE_FOLLOWER &&
                       (core->meta.vote == 0 || core->meta.vote == message->from);
        if (granted && core->meta.vote == 0) {
                core->meta.vote = message->from;
                core->gone = false; /* somebody stands, who may win */
                log_meta(core);
                election_timer(core);
        }
        answer(core, message, asked, granted);
}

void election_vote_result(struct core *core, const struct message *message)
{
        if (message->term > core->meta.term) {
                election_step_down(core, message->term, 0);
                return;
        }
        bool pre_vote = core->role == CORE_PROSPECT;
        if ((!pre_vote && core->role != CORE_CANDIDATE) || !electable(core) ||
            message->vote_result.pre_vote != pre_vote || !message->vote_result.granted ||
            message->vote_result.asked_term != core->meta.term + (pre_vote ? 1 : 0))
                return;
        const struct members *members = &log_regime(core)->members;
        for (size_t i = 0; i < members->count; i++) {
                if (members->items[i].node == message->from)
                        core->granted[i] = true;
        }
        if (!elected(core, members))
                return;
        if (pre_vote)
                stand_candidate(core);
        else
                lead(core);
}

/* Also one that is no voter any more by entries of which it does not know that they are committed:
 * a witness that leads, and has not got them, can hand over to nobody else then. */
void election_timeout_now(struct core *core, const struct message *message)
{
        if (message->term != core->meta.term || core->role == CORE_LEADER || is_witness(core))
                return;
        core->transfer_vote = true;
        if (electable(core))
                stand_candidate(core);
        else
                core->transfer_vote = false;
}
