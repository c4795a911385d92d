/* The key-value space of a group: transactions of its log, and what the end of a lock session takes
 * with it. A transaction that only reads is not remembered as a repeat: it may be carried out as
 * often as it comes. */
#include "council/council_priv.h"

static bool session_alive(void *context, uint64_t session, struct bytes owner)
{
        const struct council *council = context;
        return lock_session_alive(council->locks, session, owner);
}

const struct kv_result *council_kv_apply(struct council *council,
                                         const struct council_command *command, uint64_t index)
{
        bool fatal = false;
        struct kv_call call = {
                .index = index,
                .wall_us = command->wall_us,
                .actor = command->actor,
                .session_alive = session_alive,
                .context = council,
        };
        council->kv_used = true;
        const struct kv_result *result = kv_apply(council->kv, &call, command->kv, &fatal);
        council->fatal = council->fatal || fatal;
        return result;
}

void council_sessions_ended(struct council *council, uint64_t index)
{
        size_t count = 0;
        const uint64_t *ended = lock_sessions_ended(council->locks, &count);
        struct kv_call call = {.index = index, .actor = BYTES("session end")};
        for (size_t i = 0; i < count && !council->config.keys_stay; i++) {
                bool fatal = false;
                kv_session_ended(council->kv, &call, ended[i], &fatal);
                council->fatal = council->fatal || fatal;
        }
}

bool council_kv_reads(const struct council_command *command)
{
        struct kv_txn txn;
        return kv_txn_decode(command->kv, &txn) == ERR_NONE && !txn.writes && txn.id.len == 0;
}

const struct kv *council_kv(const struct council *council)
{
        return council->kv;
}

const struct kv_result *council_kv_read(struct council *council, const struct kv_txn *txn)
{
        bool fatal = false;
        const struct kv_result *result = kv_read(council->kv, txn, &fatal);
        return fatal ? NULL : result;
}

const struct kv_result *council_kv_changes(struct council *council, struct bytes prefix,
                                           uint64_t after)
{
        bool fatal = false;
        const struct kv_result *result = kv_changes(council->kv, prefix, after, &fatal);
        return fatal ? NULL : result;
}
