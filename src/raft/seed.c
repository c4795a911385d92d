/* seed.c - a journal that begins with a state: what a node starts from after a restore. */
#include "raft/consensus.h"
#include "raft/journal.h"
#include "raft/members.h"

static bool members_of(const struct consensus_config *config, struct members *ret)
{
        *ret = (struct members){0};
        for (size_t i = 0; i < config->voter_count; i++) {
                struct member member = {.role = CONSENSUS_VOTER};
                if (config->members != NULL)
                        member = (struct member){.node = config->members[i].node,
                                                 .role = (uint8_t)config->members[i].role,
                                                 .wanted = (uint8_t)config->members[i].wanted,
                                                 .priority = config->members[i].priority};
                else
                        member.node = config->voters[i];
                if (!members_put(ret, &member))
                        return false;
        }
        return members_able(ret);
}

enum err consensus_seed(struct heap *heap, const struct consensus_config *config, uint64_t index,
                        struct bytes state, struct buffer *out)
{
        struct members members;
        struct buffer encoded;
        if (index == 0 || !members_of(config, &members))
                return ERR_INVALID;
        buffer_init(&encoded, heap);
        members_encode(&members, &encoded);
        const struct journal_identity identity = {.version = JOURNAL_VERSION,
                                                  .cluster = config->cluster,
                                                  .group = config->group,
                                                  .node = config->self};
        const struct journal_meta meta = {.term = 1, .extended = true};
        const struct journal_snapshot snapshot = {.index = index,
                                                  .term = 1,
                                                  .configuration_index = index,
                                                  .configuration = buffer_view(&encoded),
                                                  .state = state};
        journal_write_header(out, &identity);
        journal_write_meta(out, out->len, &meta);
        journal_write_snapshot(out, out->len, &snapshot);
        enum err err = encoded.err != ERR_NONE ? encoded.err : out->err;
        buffer_fini(&encoded);
        return err;
}
