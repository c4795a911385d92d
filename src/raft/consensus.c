/* The door: checks the configuration, and passes every call to the core behind it. */
#include "raft/consensus.h"

#include "raft/engine.h"
#include "raft/journal.h"

struct consensus {
        struct heap *heap;
        const struct consensus_engine *engine;
        void *core;
};

static uint32_t member_node(const struct consensus_config *config, size_t at)
{
        return config->members != NULL ? config->members[at].node : config->voters[at];
}

static bool members_valid(const struct consensus_config *config)
{
        bool self = false;
        bool voter = false;
        for (size_t i = 0; i < config->voter_count; i++) {
                uint32_t node = member_node(config, i);
                if (node == 0)
                        return false;
                self = self || node == config->self;
                voter = voter || config->members == NULL ||
                        config->members[i].role == CONSENSUS_VOTER;
                for (size_t j = 0; j < i; j++) {
                        if (member_node(config, j) == node)
                                return false;
                }
        }
        return self && voter;
}

static bool config_valid(const struct consensus_config *config)
{
        if (config->self == 0 || config->voter_count > CONSENSUS_VOTERS_MAX ||
            config->election_timeout_ms < 10 || config->election_timeout_ms > 60000 ||
            config->heartbeat_ms == 0 || config->heartbeat_ms > config->election_timeout_ms / 2 ||
            config->drift_per_mille > 900)
                return false;
        return config->join || (config->voter_count > 0 && members_valid(config));
}

enum err consensus_new(struct heap *heap, const struct consensus_config *config,
                       struct consensus **ret_consensus)
{
        if (!config_valid(config))
                return ERR_INVALID;
        struct consensus *consensus = heap_alloc(heap, sizeof *consensus);
        if (consensus == NULL)
                return ERR_NOMEM;
        consensus->heap = heap;
        consensus->engine = config->engine != NULL ? config->engine : &consensus_core;
        enum err err = consensus->engine->open(heap, config, &consensus->core);
        if (err != ERR_NONE)
                heap_free(heap, consensus);
        else
                *ret_consensus = consensus;
        return err;
}

void consensus_free(struct consensus *consensus)
{
        if (consensus == NULL)
                return;
        consensus->engine->close(consensus->core);
        heap_free(consensus->heap, consensus);
}

enum err consensus_start(struct consensus *consensus, uint64_t now_ms, struct bytes journal,
                         uint64_t synced, struct consensus_recovery *ret)
{
        return consensus->engine->start(consensus->core, now_ms, journal, synced, ret);
}

void consensus_tick(struct consensus *consensus, uint64_t now_ms)
{
        consensus->engine->tick(consensus->core, now_ms);
}

enum err consensus_receive(struct consensus *consensus, uint64_t now_ms, uint32_t from,
                           struct bytes data)
{
        return consensus->engine->receive(consensus->core, now_ms, from, data);
}

enum err consensus_submit(struct consensus *consensus, uint64_t now_ms, struct bytes command)
{
        return consensus->engine->submit(consensus->core, now_ms, command);
}

void consensus_synced(struct consensus *consensus, uint64_t now_ms, uint64_t generation,
                      uint64_t offset)
{
        consensus->engine->synced(consensus->core, now_ms, generation, offset);
}

void consensus_failed(struct consensus *consensus)
{
        consensus->engine->fail(consensus->core);
}

enum err consensus_snapshot(struct consensus *consensus, struct bytes state)
{
        return consensus->engine->snapshot(consensus->core, state);
}

enum err consensus_snapshot_begin(struct consensus *consensus)
{
        if (consensus->engine->snapshot_begin == NULL)
                return ERR_UNSUPPORTED;
        return consensus->engine->snapshot_begin(consensus->core);
}

enum err consensus_snapshot_give(struct consensus *consensus, struct buffer *state)
{
        if (consensus->engine->snapshot_give == NULL)
                return ERR_UNSUPPORTED;
        return consensus->engine->snapshot_give(consensus->core, state);
}

void consensus_snapshot_drop(struct consensus *consensus)
{
        if (consensus->engine->snapshot_drop != NULL)
                consensus->engine->snapshot_drop(consensus->core);
}

void consensus_restored(struct consensus *consensus)
{
        if (consensus->engine->restored != NULL)
                consensus->engine->restored(consensus->core);
}

enum err consensus_transfer(struct consensus *consensus, uint64_t now_ms, uint32_t peer)
{
        return consensus->engine->transfer(consensus->core, now_ms, peer);
}

void consensus_take(struct consensus *consensus, struct consensus_output *ret)
{
        consensus->engine->take(consensus->core, ret);
}

struct consensus_status consensus_status(const struct consensus *consensus)
{
        return consensus->engine->status(consensus->core);
}

bool consensus_has_majority(const struct consensus *consensus, uint64_t now_ms)
{
        return consensus->engine->has_majority(consensus->core, now_ms);
}

enum err consensus_read(struct consensus *consensus, uint64_t now_ms, uint64_t id, bool lease)
{
        if (consensus->engine->read == NULL)
                return ERR_UNSUPPORTED;
        return consensus->engine->read(consensus->core, now_ms, id, lease);
}

void consensus_peer_gone(struct consensus *consensus, uint64_t now_ms, uint32_t peer)
{
        if (consensus->engine->peer_gone != NULL)
                consensus->engine->peer_gone(consensus->core, now_ms, peer);
}

void consensus_peer_back(struct consensus *consensus, uint64_t now_ms, uint32_t peer)
{
        if (consensus->engine->peer_back != NULL)
                consensus->engine->peer_back(consensus->core, now_ms, peer);
}

bool consensus_lease_held(const struct consensus *consensus, uint64_t now_ms)
{
        return consensus->engine->lease_held != NULL &&
               consensus->engine->lease_held(consensus->core, now_ms);
}

enum err consensus_member_set(struct consensus *consensus, uint64_t now_ms,
                              const struct consensus_member *member)
{
        if (consensus->engine->member_set == NULL)
                return ERR_UNSUPPORTED;
        return consensus->engine->member_set(consensus->core, now_ms, member);
}

enum err consensus_member_remove(struct consensus *consensus, uint64_t now_ms, uint32_t node)
{
        if (consensus->engine->member_remove == NULL)
                return ERR_UNSUPPORTED;
        return consensus->engine->member_remove(consensus->core, now_ms, node);
}

size_t consensus_members(const struct consensus *consensus, struct consensus_member *ret,
                         size_t size)
{
        if (consensus->engine->members == NULL)
                return 0;
        return consensus->engine->members(consensus->core, ret, size);
}

uint64_t consensus_journal_known(struct bytes journal)
{
        return journal_known(journal);
}

const char *consensus_role_name(enum consensus_role role)
{
        switch (role) {
        case CONSENSUS_FOLLOWER:
                return "follower";
        case CONSENSUS_CANDIDATE:
                return "candidate";
        case CONSENSUS_LEADER:
                return "leader";
        }
        return "unknown";
}
