/* The follower's side: what a leader sends.
 *
 * A message of an older term is answered with the newer one. Entries that stand here already are
 * skipped, conflicting ones are cut with all behind them, and the journal gets the rest. An answer
 * names only what is durable: at once for a heartbeat, after the sync for entries. So lost,
 * repeated and reordered messages cost time only.
 *
 * An entry that conflicts with a committed one, or a second leader in one term, is refused: then
 * somebody has broken a promise, and it is not for this node to follow. */
#include "base/check.h"
#include "base/hash.h"
#include "raft/core_priv.h"

static uint64_t durable_match(const struct core *core)
{
        return core->verified < core->stored ? core->verified : core->stored;
}

static void answer(struct core *core, uint32_t leader)
{
        struct message message = {.type = MESSAGE_APPEND_RESULT, .round = core->round_heard};
        message.append_result.index = durable_match(core);
        message.append_result.amnesiac = core->meta.amnesiac;
        message.append_result.life = core->meta.life;
        if (message.append_result.index > core->acknowledged)
                core->acknowledged = message.append_result.index;
        post_send(core, leader, &message);
}

void follow_synced(struct core *core)
{
        if (core->role == CORE_FOLLOWER && core->leader != 0 &&
            durable_match(core) > core->acknowledged)
                answer(core, core->leader);
}

/* The last place where the logs may agree, with terms no higher than the leader's there. */
static void refuse(struct core *core, const struct message *message)
{
        uint64_t index = message->append.previous_index - 1;
        if (index > log_last(core))
                index = log_last(core);
        while (index > core->commit && log_term(core, index) > message->append.previous_term)
                index--;
        struct message result = {.type = MESSAGE_APPEND_RESULT, .round = message->round};
        result.append_result.rejected = true;
        result.append_result.index = message->append.previous_index;
        result.append_result.hint_index = index;
        result.append_result.hint_term = log_term(core, index);
        result.append_result.amnesiac = core->meta.amnesiac;
        result.append_result.life = core->meta.life;
        post_send(core, message->from, &result);
}

static void refuse_old(struct core *core, const struct message *message)
{
        struct message result = {.type = MESSAGE_APPEND_RESULT};
        result.append_result.rejected = true;
        result.append_result.life = core->meta.life;
        result.append_result.amnesiac = core->meta.amnesiac;
        post_send(core, message->from, &result);
}

/* From here on this node follows the sender. False: the message is old, or must not be. */
static bool accept_leader(struct core *core, const struct message *message, enum err *ret_err)
{
        *ret_err = ERR_NONE;
        if (message->term < core->meta.term) {
                refuse_old(core, message);
                return false;
        }
        if (message->term == core->meta.term &&
            (core->role == CORE_LEADER || (core->leader != 0 && core->leader != message->from))) {
                *ret_err = ERR_MALFORMED;
                return false;
        }
        core->gone = core->away = false;
        if (message->term > core->meta.term || core->role != CORE_FOLLOWER)
                election_step_down(core, message->term, message->from);
        core->leader = message->from;
        core->heard_ms = core->now_ms;
        if (message->round.number >= core->round_heard.number)
                core->round_heard = message->round;
        election_timer(core);
        return !core->failed;
}

/* Skips what is committed here. False: it differs, which cannot be. */
static bool skip_committed(const struct core *core, struct message *message)
{
        while (message->append.previous_index < core->commit && message->append.count > 0) {
                struct entry entry = message_entry(&message->append.items);
                message->append.previous_index++;
                message->append.previous_term = entry.term;
                message->append.count--;
                uint64_t term = log_term(core, message->append.previous_index);
                if (term != 0 && term != entry.term)
                        return false;
        }
        return true;
}

static enum err store(struct core *core, struct message *message)
{
        uint64_t index = message->append.previous_index;
        uint64_t term = log_term(core, index);
        for (size_t i = 0; i < message->append.count && !core->failed; i++) {
                struct entry entry = message_entry(&message->append.items);
                index++;
                if (entry.term < term)
                        return ERR_MALFORMED;
                term = entry.term;
                if (index <= log_last(core)) {
                        if (log_term(core, index) == entry.term)
                                continue;
                        if (index <= core->commit || index <= core->verified)
                                return ERR_MALFORMED;
                        log_cut(core, index);
                }
                log_append(core, entry.term, entry.type, entry.data);
        }
        return ERR_NONE;
}

enum err follow_append(struct core *core, struct message *message)
{
        enum err err;
        if (!accept_leader(core, message, &err))
                return err;
        core->everywhere = message->append.everywhere_index;
        if (core->arrival.writing) {
                answer(core, message->from);
                return ERR_NONE;
        }
        if (!skip_committed(core, message))
                return ERR_MALFORMED;
        uint64_t previous = message->append.previous_index;
        if (previous > core->commit &&
            (previous > log_last(core) ||
             log_term(core, previous) != message->append.previous_term)) {
                refuse(core, message);
                return ERR_NONE;
        }
        size_t count = message->append.count;
        err = store(core, message);
        if (err != ERR_NONE)
                return err;
        uint64_t agreed = previous + count;
        if (agreed > core->verified)
                core->verified = agreed;
        uint64_t commit = message->append.commit_index;
        if (commit > core->verified)
                commit = core->verified;
        if (commit > core->commit)
                core->commit = commit;
        if (count == 0 || durable_match(core) == core->verified)
                answer(core, message->from);
        return ERR_NONE;
}

static void answer_chunk(struct core *core, const struct message *message)
{
        const struct arrival *arrival = &core->arrival;
        struct message result = {.type = MESSAGE_CHUNK_RESULT, .round = message->round};
        result.chunk_result.index = arrival->index;
        result.chunk_result.term = arrival->term;
        result.chunk_result.offset =
                arrival->whole || arrival->writing ? arrival->size : arrival->state.len;
        result.chunk_result.amnesiac = core->meta.amnesiac;
        result.chunk_result.life = core->meta.life;
        post_send(core, message->from, &result);
}

static bool chunk_is_ours(const struct arrival *arrival, const struct message *message)
{
        return arrival->open && arrival->index == message->chunk.index &&
               arrival->term == message->chunk.term && arrival->size == message->chunk.size &&
               arrival->crc == message->chunk.crc;
}

static void arrival_open(struct core *core, const struct message *message)
{
        struct arrival *arrival = &core->arrival;
        arrival_close(core);
        arrival->open = members_decode(message->chunk.members, &arrival->members);
        CHECK(arrival->open);
        arrival->index = message->chunk.index;
        arrival->term = message->chunk.term;
        arrival->members_index = message->chunk.members_index;
        arrival->size = message->chunk.size;
        arrival->crc = message->chunk.crc;
}

static void chunk_add(struct core *core, const struct message *message)
{
        struct arrival *arrival = &core->arrival;
        if (message->chunk.offset == arrival->state.len) {
                buffer_bytes(&arrival->state, message->chunk.data);
                arrival->sum = hash_crc32c(arrival->sum, message->chunk.data);
        }
        if (arrival->state.err != ERR_NONE) {
                arrival_close(core); /* no memory now: asked for again */
                return;
        }
        if (arrival->state.len < arrival->size)
                return;
        if (arrival->sum == arrival->crc)
                arrival_begin(core);
        else
                arrival_close(core);
}

enum err follow_chunk(struct core *core, const struct message *message)
{
        struct arrival *arrival = &core->arrival;
        enum err err;
        if (message->chunk.size > core->config.snapshot_bytes_max)
                return ERR_LIMIT;
        if (!accept_leader(core, message, &err))
                return err;
        if (arrival->whole || arrival->writing) {
                answer_chunk(core, message);
                return ERR_NONE;
        }
        uint64_t index = message->chunk.index;
        if (index <= core->commit || log_term(core, index) == message->chunk.term) {
                /* All of it stands here: the leader knows no better yet. */
                if (index > core->verified)
                        core->verified = index;
                answer(core, message->from);
                return ERR_NONE;
        }
        if (index <= core->verified)
                return ERR_MALFORMED; /* not what this leader said before */
        if (!chunk_is_ours(arrival, message)) {
                if (arrival->open && arrival->leader_term == core->meta.term &&
                    index <= arrival->index)
                        return ERR_NONE; /* late */
                arrival_open(core, message);
        }
        arrival->leader_term = core->meta.term;
        chunk_add(core, message);
        if (arrival->open)
                answer_chunk(core, message);
        return ERR_NONE;
}
