/* The leader's side: where each follower stands, and what it is sent.
 *
 *   PROBE ----- its log agrees up to next - 1 ----> REPLICATE     entries flow, bounded in bytes
 *     ^  <----- a refusal: something is missing ------'
 *     |
 *     '-- it has the state -- SNAPSHOT <---- what it needs is gone from the log
 *
 * Every message carries a round and the time of its sending, every answer brings them back: from a
 * majority of them follow reads (reads.c), the lease, and that this leader still leads at all. A
 * heartbeat names the newest entry sent as the previous one, so that a loss shows at once.
 *
 * Late answers: what matched is never unmatched, but for a follower that says that it lost its
 * journal; answers of an earlier life of a follower are dropped. */
#include "base/check.h"
#include "raft/core_priv.h"

static void snapshot_release(struct core *core, struct progress *progress)
{
        snapshot_drop(core, progress->snapshot);
        progress->snapshot = NULL;
        progress->offset = progress->offset_sent = progress->offset_seen = 0;
}

static void probe(struct core *core, struct progress *progress, uint64_t next)
{
        snapshot_release(core, progress);
        progress->state = PROGRESS_PROBE;
        progress->next = next;
        progress->waiting = false;
        progress->flight_head = progress->flight_count = progress->flight_bytes = 0;
}

struct progress *replicate_find(struct core *core, uint32_t node)
{
        for (size_t i = 0; i < core->follower_count; i++) {
                if (core->followers[i].node == node)
                        return &core->followers[i];
        }
        return NULL;
}

bool replicate_active(const struct core *core, const struct progress *progress)
{
        return core->now_ms < progress->active_ms + core->config.election_timeout_ms;
}

static void follower_add(struct core *core, const struct member *member)
{
        void *followers = core->followers;
        size_t size = core->follower_count;
        followers = heap_resize(core->heap, followers, (size + 1) * sizeof *core->followers);
        if (followers == NULL) {
                core_fail(core);
                return;
        }
        core->followers = followers;
        uint64_t round_min = ++core->round;
        core->followers[core->follower_count++] = (struct progress){
                .node = member->node,
                .life = member->life,
                .next = log_last(core) + 1,
                .active_ms = core->now_ms,
                .round_min = round_min,
        };
}

/* Those who are members now: the known ones keep what is known of them. */
void replicate_members(struct core *core)
{
        const struct members *members = &log_regime(core)->members;
        size_t kept = 0;
        for (size_t i = 0; i < core->follower_count; i++) {
                if (members_find(members, core->followers[i].node) == NULL)
                        snapshot_release(core, &core->followers[i]);
                else
                        core->followers[kept++] = core->followers[i];
        }
        core->follower_count = kept;
        for (size_t i = 0; i < members->count; i++) {
                const struct member *member = &members->items[i];
                if (member->node != core->config.self && replicate_find(core, member->node) == NULL)
                        follower_add(core, member);
        }
}

void replicate_begin(struct core *core)
{
        core->follower_count = 0;
        core->round = 0;
        core->round_due = false;
        core->heartbeat_ms = core->now_ms;
        core->placed_ms = core->now_ms;
        core->transferee = 0;
        core->lease_void = false;
        replicate_members(core);
}

void replicate_end(struct core *core)
{
        for (size_t i = 0; i < core->follower_count; i++)
                snapshot_release(core, &core->followers[i]);
        core->follower_count = 0;
        core->transferee = 0;
        reads_refuse(core);
}

/* ---- what is sent ---- */

static uint64_t everywhere(struct core *core)
{
        const struct members *members = &log_regime(core)->members;
        uint64_t least = core->stored;
        for (size_t i = 0; i < members->count; i++) {
                const struct progress *progress = replicate_find(core, members->items[i].node);
                if (progress != NULL && members->items[i].role == CONSENSUS_VOTER &&
                    progress->match < least)
                        least = progress->match;
        }
        return least;
}

static void send_append(struct core *core, struct progress *progress, uint64_t previous,
                        size_t count)
{
        struct message message = {
                .type = MESSAGE_APPEND,
                .round = {.number = core->round, .sent_ms = core->now_ms},
        };
        message.append.previous_index = previous;
        message.append.previous_term = previous == 0 ? 0 : log_term(core, previous);
        message.append.commit_index = core->commit;
        message.append.everywhere_index = everywhere(core);
        message.append.count = count;
        progress->commit_sent = core->commit;
        post_send(core, progress->node, &message);
}

/* How many entries from `next` on make one message, and their size. */
static size_t message_fill(const struct core *core, uint64_t next, size_t *ret_bytes)
{
        size_t count = 0;
        *ret_bytes = 0;
        while (count < MESSAGE_ENTRIES_MAX) {
                const struct entry *entry = entries_at(&core->entries, next + count);
                if (entry == NULL ||
                    (count > 0 && *ret_bytes + entry->data.len > MESSAGE_APPEND_BYTES))
                        break;
                *ret_bytes += entry->data.len + 16;
                count++;
        }
        return count;
}

static void send_replicate(struct core *core, struct progress *progress)
{
        while (progress->flight_count < FLIGHTS_MAX &&
               progress->flight_bytes < core->config.inflight_bytes) {
                size_t bytes;
                size_t count = message_fill(core, progress->next, &bytes);
                if (count == 0)
                        return;
                send_append(core, progress, progress->next - 1, count);
                progress->next += count;
                progress->flight_bytes += bytes;
                size_t at = (progress->flight_head + progress->flight_count++) % FLIGHTS_MAX;
                progress->flights[at] = (struct flight){.last = progress->next - 1, .bytes = bytes};
        }
}

static bool peer_stateless(const struct core *core, uint32_t node)
{
        const struct member *member = members_find(&log_regime(core)->members, node);
        return member != NULL &&
               (member->role == CONSENSUS_WITNESS || member->wanted == CONSENSUS_WITNESS);
}

static void send_chunk(struct core *core, struct progress *progress, size_t len)
{
        struct snapshot *snapshot = progress->snapshot;
        bool empty = peer_stateless(core, progress->node);
        struct message message = {
                .type = MESSAGE_CHUNK,
                .round = {.number = core->round, .sent_ms = core->now_ms},
        };
        struct buffer members;
        buffer_init(&members, core->heap);
        members_encode(&snapshot->members, &members);
        message.chunk.index = snapshot->index;
        message.chunk.term = snapshot->term;
        message.chunk.members_index = snapshot->members_index;
        message.chunk.members = buffer_view(&members);
        message.chunk.size = empty ? 0 : snapshot->state.len;
        message.chunk.crc = empty ? 0 : snapshot_crc(snapshot);
        message.chunk.offset = empty ? 0 : progress->offset_sent;
        message.chunk.data =
                bytes_of(len == 0 ? NULL : snapshot->state.ptr + progress->offset_sent, len);
        if (members.err == ERR_NONE)
                post_send(core, progress->node, &message);
        buffer_fini(&members);
        progress->offset_sent += len;
}

static void send_chunks(struct core *core, struct progress *progress)
{
        if (progress->waiting || peer_stateless(core, progress->node))
                return;
        size_t size = progress->snapshot->state.len;
        while (progress->offset_sent < size &&
               progress->offset_sent - progress->offset < core->config.inflight_bytes) {
                size_t len = size - (size_t)progress->offset_sent;
                if (len > core->config.chunk_bytes)
                        len = core->config.chunk_bytes;
                send_chunk(core, progress, len);
        }
}

/* An empty chunk asks how much the follower has already. */
static void ask_offset(struct core *core, struct progress *progress)
{
        progress->waiting = true;
        progress->offset_sent = progress->offset;
        send_chunk(core, progress, 0);
}

/* What it needs is not in the log any more. A witness has no state to give. */
static void begin_snapshot(struct core *core, struct progress *progress)
{
        if (core->snapshot == NULL ||
            (log_stateless(core) && !peer_stateless(core, progress->node))) {
                progress->waiting = true;
                send_append(core, progress, 0, 0);
                return;
        }
        progress->state = PROGRESS_SNAPSHOT;
        progress->snapshot = snapshot_hold(core->snapshot);
        progress->offset = progress->offset_sent = progress->offset_seen = 0;
        ask_offset(core, progress);
}

/* The log still has what begins there, and the term before it. */
static bool can_send(const struct core *core, uint64_t next)
{
        return next == 1 ? core->entries.first == 1 : log_term(core, next - 1) != 0;
}

static void send_probe(struct core *core, struct progress *progress)
{
        uint64_t previous = progress->next - 1;
        if (progress->waiting)
                return;
        if (!can_send(core, progress->next)) {
                begin_snapshot(core, progress);
                return;
        }
        size_t bytes;
        size_t count = message_fill(core, progress->next, &bytes);
        send_append(core, progress, previous, count);
        progress->waiting = true;
}

static void send_due(struct core *core, struct progress *progress)
{
        switch (progress->state) {
        case PROGRESS_PROBE:
                send_probe(core, progress);
                return;
        case PROGRESS_REPLICATE:
                if (!can_send(core, progress->next))
                        probe(core, progress, progress->match + 1);
                else
                        send_replicate(core, progress);
                return;
        case PROGRESS_SNAPSHOT:
                send_chunks(core, progress);
                return;
        }
}

/* Says that this leader leads, and finds out what was lost. */
static void send_heartbeat(struct core *core, struct progress *progress)
{
        switch (progress->state) {
        case PROGRESS_PROBE:
                progress->waiting = false;
                send_probe(core, progress);
                return;
        case PROGRESS_REPLICATE:
                send_append(core, progress, progress->next - 1, 0);
                return;
        case PROGRESS_SNAPSHOT:
                send_append(core, progress, 0, 0);
                return;
        }
}

void replicate_flush(struct core *core)
{
        if (core->role != CORE_LEADER)
                return;
        bool round = core->round_due;
        if (round) {
                core->round++;
                core->round_due = false;
        }
        for (size_t i = 0; i < core->follower_count && !core->failed; i++) {
                struct progress *progress = &core->followers[i];
                size_t before = core->queue_count;
                send_due(core, progress);
                bool idle = progress->state == PROGRESS_REPLICATE && progress->flight_count == 0;
                if (core->queue_count == before &&
                    (round || (idle && progress->commit_sent < core->commit)))
                        send_append(core, progress,
                                    progress->state == PROGRESS_REPLICATE ? progress->next - 1 : 0,
                                    0);
        }
}

/* ---- time ---- */

static bool quorum_active(const struct core *core)
{
        const struct members *members = &log_regime(core)->members;
        size_t active = log_votes(core);
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct member *member = members_find(members, core->followers[i].node);
                if (member != NULL && member_votes(member) &&
                    replicate_active(core, &core->followers[i]))
                        active++;
        }
        return active >= election_quorum(core, members_voting(members));
}

static void heartbeat(struct core *core)
{
        core->heartbeat_ms = core->now_ms + core->config.heartbeat_ms;
        core->round++;
        for (size_t i = 0; i < core->follower_count && !core->failed; i++) {
                struct progress *progress = &core->followers[i];
                send_heartbeat(core, progress);
                if (progress->state != PROGRESS_SNAPSHOT)
                        continue;
                if (progress->waiting || progress->offset == progress->offset_seen)
                        ask_offset(core, progress);
                progress->offset_seen = progress->offset;
        }
}

void replicate_tick(struct core *core)
{
        if (core->role != CORE_LEADER)
                return;
        if (!quorum_active(core)) {
                election_step_down(core, core->meta.term, 0);
                return;
        }
        if (core->transferee != 0 && core->now_ms >= core->transfer_until_ms)
                core->transferee = 0;
        if (core->now_ms < core->heartbeat_ms)
                return;
        heartbeat(core);
        change_tick(core);
        transfer_place(core);
}

uint64_t replicate_wake(const struct core *core)
{
        return core->heartbeat_ms;
}

/* ---- answers ---- */

/* What is known of this follower is void: only answers to what is sent from now on count. */
static void start_over(struct core *core, struct progress *progress, bool amnesiac, uint64_t life)
{
        progress->life = life;
        progress->amnesiac = amnesiac;
        progress->match = 0;
        progress->begin_known = false;
        progress->round_min = ++core->round;
        probe(core, progress, log_last(core) + 1);
}

/* False: it is of an earlier life of this follower, or the first of a new one. */
static bool same_life(struct core *core, struct progress *progress, const struct message *message,
                      bool amnesiac, uint64_t life)
{
        const struct member *member = members_find(&log_regime(core)->members, progress->node);
        if (message->round.number < progress->round_min)
                return false;
        bool stranger = amnesiac || member == NULL || member->life != life;
        if (stranger == progress->amnesiac && (!stranger || progress->life == life))
                return true;
        start_over(core, progress, stranger, life);
        return false;
}

static void heard(struct core *core, struct progress *progress, const struct message *message)
{
        const struct message_round *round = &message->round;
        progress->active_ms = core->now_ms;
        progress->heard = true;
        if (round->number > core->round || round->sent_ms > core->now_ms)
                return;
        if (round->number > progress->round)
                progress->round = round->number;
        if (round->number > 0 && round->sent_ms > progress->sent_ms)
                progress->sent_ms = round->sent_ms;
}

static void refused(struct core *core, struct progress *progress, const struct message *message)
{
        uint64_t previous = message->append_result.index;
        uint64_t index = message->append_result.hint_index;
        if (progress->state == PROGRESS_SNAPSHOT || previous <= progress->match ||
            previous > log_last(core) || index >= previous ||
            (progress->state == PROGRESS_PROBE && previous != progress->next - 1))
                return;
        while (index > progress->match && log_term(core, index) > message->append_result.hint_term)
                index--;
        if (index < progress->match)
                index = progress->match;
        probe(core, progress, index + 1);
}

static void flights_land(struct progress *progress)
{
        while (progress->flight_count > 0 &&
               progress->flights[progress->flight_head].last <= progress->match) {
                progress->flight_bytes -= progress->flights[progress->flight_head].bytes;
                progress->flight_head = (progress->flight_head + 1) % FLIGHTS_MAX;
                progress->flight_count--;
        }
}

static void accepted(struct core *core, struct progress *progress, uint64_t index)
{
        if (index > log_last(core))
                return;
        if (index > progress->match)
                progress->match = index;
        flights_land(progress);
        bool whole = progress->state == PROGRESS_SNAPSHOT &&
                     progress->match >= progress->snapshot->index;
        if (whole || (progress->state == PROGRESS_PROBE && progress->match + 1 >= progress->next)) {
                if (whole || !progress->begin_known)
                        progress->begin = progress->match;
                progress->begin_known = true;
                probe(core, progress, progress->match + 1);
                progress->state = PROGRESS_REPLICATE;
        }
        if (progress->next <= progress->match)
                progress->next = progress->match + 1;
        replicate_commit(core);
        if (core->transferee == progress->node)
                transfer_try(core);
}

void replicate_append_result(struct core *core, const struct message *message)
{
        if (message->term > core->meta.term) {
                election_step_down(core, message->term, 0);
                return;
        }
        struct progress *progress = NULL;
        if (core->role == CORE_LEADER && message->term == core->meta.term)
                progress = replicate_find(core, message->from);
        if (progress == NULL || !same_life(core, progress, message, message->append_result.amnesiac,
                                           message->append_result.life))
                return;
        heard(core, progress, message);
        if (message->append_result.rejected)
                refused(core, progress, message);
        else
                accepted(core, progress, message->append_result.index);
}

void replicate_chunk_result(struct core *core, const struct message *message)
{
        if (message->term > core->meta.term) {
                election_step_down(core, message->term, 0);
                return;
        }
        struct progress *progress = NULL;
        if (core->role == CORE_LEADER && message->term == core->meta.term)
                progress = replicate_find(core, message->from);
        if (progress == NULL || !same_life(core, progress, message, message->chunk_result.amnesiac,
                                           message->chunk_result.life))
                return;
        heard(core, progress, message);
        uint64_t offset = message->chunk_result.offset;
        if (progress->state != PROGRESS_SNAPSHOT ||
            progress->snapshot->index != message->chunk_result.index ||
            progress->snapshot->term != message->chunk_result.term ||
            offset > progress->snapshot->state.len)
                return;
        if (progress->waiting) {
                progress->waiting = false;
                progress->offset = progress->offset_sent = offset;
        } else if (offset > progress->offset) {
                progress->offset = offset;
                if (progress->offset_sent < offset)
                        progress->offset_sent = offset;
        }
}

/* ---- commit ---- */

void replicate_commit(struct core *core)
{
        const struct members *members = &log_regime(core)->members;
        uint64_t matches[CONSENSUS_VOTERS_MAX];
        size_t count = 0;
        for (size_t i = 0; i < members->count; i++) {
                const struct member *member = &members->items[i];
                if (!member_votes(member))
                        continue;
                const struct progress *progress = replicate_find(core, member->node);
                /* Of an amnesiac as well: it votes for nobody, so each majority that elects and
                 * each that has stored share another member. */
                uint64_t match = progress == NULL ? 0 : progress->match;
                if (member->node == core->config.self)
                        match = core->stored;
                size_t at = count++;
                for (; at > 0 && matches[at - 1] < match; at--)
                        matches[at] = matches[at - 1];
                matches[at] = match;
        }
        if (count == 0)
                return;
        uint64_t index = matches[election_quorum(core, count) - 1];
        /* Entries of older terms are committed by one of this term behind them (section 5.4.2). */
        if (index > core->commit &&
            (log_term(core, index) == core->meta.term || core->config.bugs.old_term_commit))
                core->commit = index;
}

uint64_t replicate_needed(const struct core *core)
{
        uint64_t needed = UINT64_MAX;
        if (core->role != CORE_LEADER || core->written > 8 * core->config.snapshot_bytes)
                return needed;
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct progress *progress = &core->followers[i];
                uint64_t next = progress->snapshot != NULL ? progress->snapshot->index + 1
                                                           : progress->match + 1;
                if (replicate_active(core, progress) && progress->state != PROGRESS_PROBE &&
                    next < needed)
                        needed = next;
        }
        return needed;
}

bool replicate_lease(const struct core *core, uint64_t now_ms)
{
        if (core->role != CORE_LEADER || core->lease_void || core->config.early_votes ||
            !core_ready(core))
                return false;
        const struct consensus_bugs *bugs = &core->config.bugs;
        const struct members *members = &log_regime(core)->members;
        uint64_t length = (uint64_t)core->config.election_timeout_ms *
                          (1000 - core->config.drift_per_mille) / 1000;
        if (bugs->lease_no_drift)
                length = core->config.election_timeout_ms;
        size_t fresh = log_votes(core);
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct progress *progress = &core->followers[i];
                const struct member *member = members_find(members, progress->node);
                uint64_t since = bugs->lease_no_drift ? progress->active_ms : progress->sent_ms;
                if (member != NULL && member_votes(member) && progress->round > 0 &&
                    now_ms < since + length)
                        fresh++;
        }
        return fresh >= election_quorum(core, members_voting(members));
}
