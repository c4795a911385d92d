/* bugs.c - bugs planted on purpose, each by a switch of the room that it is in. The simulator must
 * find every one within its budget of seeds, or it proves nothing. */
#include "sim/sim_priv.h"

struct planted {
        struct sim_bug bug;
        struct consensus_bugs raft;
        unsigned node;
        unsigned replication;
        unsigned postgres; /* of the model */
};

static const struct planted planted[] = {
        {{"vote-volatile", "a vote is not written to the journal", 3000, 1425},
         {.vote_volatile = true},
         0,
         0,
         0},
        {{"term-volatile", "a term is not written to the journal", 3000, 3400},
         {.term_volatile = true},
         0,
         0,
         0},
        {{"ack-before-sync", "entries count as stored before they are synced", 3000, 0},
         {.ack_before_sync = true},
         0,
         0,
         0},
        {{"send-before-sync", "promises leave before the journal is synced", 8000, 1230},
         {.send_before_sync = true},
         0,
         0,
         0},
        {{"suffix-kept", "a conflicting suffix of the log comes back at a restart", 8000, 0},
         {.suffix_kept = true},
         0,
         0,
         0},
        {{"early-answer", "a release is answered before it is decided", 3000, 500},
         {0},
         NODE_BUG_EARLY_ANSWER,
         0,
         0},
        {{"read-unready", "a new leader answers before it knows what is decided", 3000, 0},
         {.read_unready = true},
         0,
         0,
         0},
        {{"read-unconfirmed", "a leader answers without asking whether it still leads", 3000, 390},
         {.read_unconfirmed = true},
         0,
         0,
         0},
        {{"read-own-copy", "a value is read from the node's own copy", 3000, 0},
         {0},
         NODE_BUG_READ_OWN_COPY,
         0,
         0},
        {{"local-clock", "the lock clock is the leader's own uptime", 3000, 0},
         {0},
         NODE_BUG_LOCAL_CLOCK,
         0,
         0},
        {{"no-quorum", "one observer takes a region out", 3000, 145},
         {0},
         NODE_BUG_NO_QUORUM,
         0,
         0},
        {{"never-return", "a recovered region stays out", 1000, 0},
         {0},
         NODE_BUG_NEVER_RETURN,
         0,
         0},
        {{"early-return", "a region returns before its data has caught up", 3000, 0},
         {0},
         NODE_BUG_EARLY_RETURN,
         0,
         0},
        {{"level-blind", "a level rises without asking who knows it", 3000, 0},
         {0},
         NODE_BUG_LEVEL_BLIND,
         0,
         0},
        {{"no-expiry", "leases of clients that died do not end", 1000, 0},
         {0},
         NODE_BUG_NO_EXPIRY,
         0,
         0},
        {{"resume-at-end", "a stream resumes at its end, not where it broke off", 1000, 0},
         {0},
         0,
         REPLICATION_BUG_RESUME_AT_END,
         0},
        {{"no-pull", "the lost tail is not asked back", 5000, 0},
         {0},
         0,
         REPLICATION_BUG_NO_PULL,
         0},
        {{"no-relay", "nobody but the origin is asked for its stream", 3000, 250},
         {0},
         0,
         REPLICATION_BUG_NO_RELAY,
         0},
        {{"close-early", "a hole closes before all have told what they hold", 3000, 0},
         {0},
         0,
         REPLICATION_BUG_CLOSE_EARLY,
         0},
        {{"no-refill", "what came back is not passed on to who lacks it", 3000, 1190},
         {0},
         0,
         REPLICATION_BUG_NO_REFILL,
         0},
        {{"claim-any", "a standby that has not most takes over", 3000, 190},
         {0},
         NODE_BUG_CLAIM_ANY,
         0,
         0},
        {{"lease-from-answer", "the writer counts its lease from the answer", 3000, 545},
         {0},
         NODE_BUG_LEASE_FROM_ANSWER,
         0,
         0},
        {{"no-margin", "the writer leaves no margin for clocks that drift", 3000, 0},
         {0},
         NODE_BUG_NO_MARGIN,
         0,
         0},
        {{"heir-at-once", "a new leader ends the lease of the writer that it finds", 3000, 90},
         {0},
         NODE_BUG_HEIR_AT_ONCE,
         0,
         0},
        {{"heir-blind", "a new leader ends a lease though it has been renewed", 3000, 190},
         {0},
         NODE_BUG_HEIR_BLIND,
         0,
         0},
        {{"claim-stays", "the claim of a switchover that is off stays in the queue", 3000, 120},
         {0},
         NODE_BUG_CLAIM_STAYS,
         0,
         0},
        {{"no-gate", "a server whose gate has closed takes writes", 3000, 0},
         {0},
         0,
         0,
         SIM_POSTGRES_NO_GATE},
        {{"no-carrier", "nobody takes over the data of a region's dead node", 3000, 510},
         {0},
         NODE_BUG_NO_CARRIER,
         0,
         0},
        {{"strangers", "who is to leave a group is not heard any more at once", 3000, 0},
         {0},
         NODE_BUG_STRANGERS,
         0,
         0},
        {{"set-first", "of several locks only the first is taken", 200, 0},
         {0},
         NODE_BUG_SET_FIRST,
         0,
         0},
        {{"keep-early", "a session is told to live on before that is decided", 1000, 0},
         {0},
         NODE_BUG_KEEP_EARLY,
         0,
         0},
        {{"keys-stay", "keys outlive the sessions that they are bound to", 200, 0},
         {0},
         NODE_BUG_KEYS_STAY,
         0,
         0},
        {{"watch-now", "who watches locks is told what happens from its question on", 200, 0},
         {0},
         NODE_BUG_WATCH_NOW,
         0,
         0},
        {{"copy-no-gap", "what a copy of other regions' locks missed is not told", 300, 0},
         {0},
         NODE_BUG_COPY_NO_GAP,
         0,
         0},
        {{"copy-ahead", "a copy of locks takes its region's now for what it knows", 200, 0},
         {0},
         NODE_BUG_COPY_AHEAD,
         0,
         0},
        {{"copy-mixed", "a copy of locks takes what another region did", 200, 0},
         {0},
         NODE_BUG_COPY_MIXED,
         0,
         0},
        {{"copy-stops", "a copy of locks asks no more after a refusal", 200, 0},
         {0},
         NODE_BUG_COPY_STOPS,
         0,
         0},
        {{"no-limit", "commits go on whatever other regions lack", 3000, 250},
         {0},
         NODE_BUG_NO_LIMIT,
         0,
         0},
        {{"no-aside", "a rewind keeps nothing aside", 3000, 0}, {0}, 0, 0, SIM_POSTGRES_NO_ASIDE},
};

void bug_postgres(struct sim *sim)
{
        if (sim->options.bug >= 0 && (size_t)sim->options.bug < COUNT_OF(planted))
                sim->postgres_bugs = planted[sim->options.bug].postgres;
}

bool bug_wants_stale(const struct sim *sim)
{
        return sim->options.bug < 0 || (size_t)sim->options.bug >= COUNT_OF(planted) ||
               planted[sim->options.bug].raft.read_unconfirmed;
}

bool bug_wants_sets(const struct sim *sim)
{
        return sim->options.bug < 0 || (size_t)sim->options.bug >= COUNT_OF(planted) ||
               (planted[sim->options.bug].node & (NODE_BUG_SET_FIRST | NODE_BUG_KEEP_EARLY |
                                                  NODE_BUG_KEYS_STAY | NODE_BUG_WATCH_NOW)) != 0;
}

bool bug_wants_orders(const struct sim *sim)
{
        return sim->options.bug < 0 || (size_t)sim->options.bug >= COUNT_OF(planted) ||
               (planted[sim->options.bug].node & NODE_BUG_CLAIM_STAYS) != 0;
}

bool bug_wants_copies(const struct sim *sim)
{
        if (sim->options.bug < 0 || (size_t)sim->options.bug >= COUNT_OF(planted))
                return sim->options.seed % 3 == 0;
        return (planted[sim->options.bug].node & (NODE_BUG_COPY_NO_GAP | NODE_BUG_COPY_AHEAD |
                                                  NODE_BUG_COPY_MIXED | NODE_BUG_COPY_STOPS)) != 0;
}

void bug_apply(const struct sim *sim, struct node_config *config)
{
        config->raft_engine = sim->options.raft;
        if (sim->options.bug < 0 || (size_t)sim->options.bug >= COUNT_OF(planted))
                return;
        const struct planted *bug = &planted[sim->options.bug];
        config->raft_bugs = bug->raft;
        config->bugs = bug->node;
        config->replication_bugs = bug->replication;
}

const struct sim_bug *sim_bugs(size_t *ret_count)
{
        static struct sim_bug bugs[COUNT_OF(planted)];
        for (size_t i = 0; i < COUNT_OF(planted); i++)
                bugs[i] = planted[i].bug;
        *ret_count = COUNT_OF(planted);
        return bugs;
}
