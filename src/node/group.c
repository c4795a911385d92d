/* group.c - one Raft group of the node: inputs have been fed to the consensus, now its wishes are
 * carried out: records to the journal, messages to peers, a state to start from, commands to apply.
 * What applying brings (answers, a change of regions) may feed the consensus again, so this goes on
 * until nothing more is wished, which is bounded by what came in.
 *
 * A journal or a council that fails ends this node's part in the group: the group on other nodes
 * goes on without it, and so does everything here that needs no agreement. */
#include "base/check.h"
#include "base/hash.h"
#include "node/node_priv.h"

#define PUMP_ROUNDS_MAX   64
#define GROUP_REGION_BASE 1000
#define TIME_APART_US     20000

static bool may_move(uint8_t from, uint8_t to)
{
        return region_state_may((enum region_state)from, (enum region_state)to,
                                REGION_ACTOR_AUTOMATIC) ||
               region_state_may((enum region_state)from, (enum region_state)to,
                                REGION_ACTOR_OPERATOR);
}

void group_config(const struct node *node, enum world_group group, uint64_t seed,
                  struct consensus_config *ret)
{
        const struct topology_timing *timing = &node->topology->timing;
        bool global = group == WORLD_GROUP_GLOBAL;
        ret->cluster = hash_fnv(HASH_FNV_START, bytes_of_str(node->topology->cluster));
        if (node->config.life != 0)
                ret->cluster = hash_fnv_u64(ret->cluster, node->config.life);
        ret->group = global ? 1 : GROUP_REGION_BASE + (uint32_t)node->region_id;
        ret->self = node->config.self;
        ret->election_timeout_ms = global ? timing->election_ms : timing->region_election_ms;
        ret->heartbeat_ms =
                global ? timing->election_heartbeat_ms : timing->region_election_heartbeat_ms;
        ret->pre_vote = true;
        ret->early_votes = node->config.early_votes;
        ret->seed = hash_fnv_u64(seed, (uint64_t)group + 1);
        ret->snapshot_entries = node->config.snapshot_entries;
        ret->snapshot_bytes = node->config.snapshot_bytes;
        ret->trailing_entries = node->config.trailing_entries;
        ret->piece_bytes = node->config.snapshot_piece_bytes;
        ret->restore_waits = true;
        ret->engine = node->config.raft_engine;
        ret->bugs = node->config.raft_bugs;
}

enum err group_open(struct node *node, enum world_group group)
{
        struct node_group *g = &node->groups[group];
        g->group = group;
        struct council_config council = {.seed = hash_fnv_u64(node->config.self, (uint64_t)group),
                                         .region_state_initial = REGION_JOINING,
                                         .region_state_count = REGION_STATE_COUNT,
                                         .may_move = may_move,
                                         .keys_stay = (node->config.bugs & NODE_BUG_KEYS_STAY) != 0,
                                         .level_max = node->config.level_max};
        return council_new(node->heap, &council, &g->council);
}

void group_close(struct node_group *group)
{
        consensus_free(group->consensus);
        council_free(group->council);
        group->consensus = NULL;
        group->council = NULL;
}

void group_fail(struct node *node, struct node_group *group, const char *why)
{
        if (group->failed || (node->config.bugs & NODE_BUG_KEEP_FAILED) != 0)
                return;
        group->failed = true;
        group->leading = false;
        if (group->consensus != NULL)
                consensus_failed(group->consensus);
        node_note(node, "group-stopped", "This node takes no more part in the %s group: %s.",
                  group->group == WORLD_GROUP_GLOBAL ? "global" : "regional", why);
}

/* The journal is gone, or damaged before its end: what this node promised is lost. Where there are
 * others, it begins empty, and without a vote until they have given it back. */
static enum err group_start_empty(struct node *node, struct node_group *group,
                                  struct consensus_config *config, struct bytes journal,
                                  uint64_t corrupt_at)
{
        struct consensus_recovery recovery;
        bool others = config->voter_count > 1;
        node_note(node, "journal-damaged", "The journal of the %s group is %s at byte %llu. %s",
                  group->group == WORLD_GROUP_GLOBAL ? "global" : "regional",
                  journal.len == 0 ? "lost" : "damaged", (unsigned long long)corrupt_at,
                  others ? "This node begins anew with what its peers hold, and votes again when "
                           "they agree."
                         : "There is nobody who holds a copy: restore it.");
        if (!others)
                return ERR_CORRUPT;
        consensus_free(group->consensus);
        group->consensus = NULL;
        config->amnesiac = true;
        enum err err = consensus_new(node->heap, config, &group->consensus);
        if (err == ERR_UNSUPPORTED)
                return ERR_CORRUPT; /* the library's core knows no way back */
        if (err != ERR_NONE)
                return err;
        return consensus_start(group->consensus, node->now_us / 1000, journal, 0, &recovery);
}

static enum err group_make(struct node *node, struct node_group *group,
                           struct consensus_config *config, struct bytes journal, bool known)
{
        struct consensus_recovery recovery = {0};
        uint32_t voters[CONSENSUS_VOTERS_MAX];
        config->voters = voters;
        for (size_t i = 0; i < config->voter_count; i++)
                voters[i] = config->members[i].node;
        if (config->engine != NULL && config->engine != &consensus_core)
                config->members = NULL; /* the library knows plain voters only */
        enum err err = consensus_new(node->heap, config, &group->consensus);
        if (err == ERR_NONE)
                err = consensus_start(group->consensus, node->now_us / 1000, journal, known,
                                      &recovery);
        if (err == ERR_CORRUPT)
                err = group_start_empty(node, group, config, journal, recovery.corrupt_at);
        group->leaderless_us = node->now_us;
        config->voters = NULL;
        return err;
}

enum err group_start(struct node *node, struct node_group *group, struct bytes journal, bool known)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        struct consensus_config config = {.members = members};
        bool later = journal.len == 0 && !known && members_later(node);
        group->waits = later && group->group == WORLD_GROUP_REGION;
        if (group->waits)
                return ERR_NONE;
        group_config(node, group->group, node->seed, &config);
        config.voter_count = members_first(node, group->group, members);
        config.join = later;
        if (later)
                node_note(node, "joins",
                          "This node begins with epoch %llu of the topology: it waits to be taken "
                          "in. (A new cluster begins with epoch 1.)",
                          (unsigned long long)node->topology->epoch);
        return group_make(node, group, &config, journal, known);
}

enum err group_begin(struct node *node, struct node_group *group, bool join)
{
        struct consensus_member self = {
                .node = node->config.self, .role = CONSENSUS_VOTER, .priority = SEATS_PRIORITY};
        struct consensus_config config = {.members = &self, .voter_count = 1, .join = join};
        group_config(node, group->group, node->seed, &config);
        return group_make(node, group, &config, bytes_of(NULL, 0), false);
}

/* True where something more than a piece of a new journal was written. */
static bool pump_writes(struct node *node, struct node_group *group,
                        const struct consensus_output *output)
{
        static const enum world_effect_kind kinds[] = {
                [CONSENSUS_APPEND] = WORLD_JOURNAL_APPEND,
                [CONSENSUS_REPLACE] = WORLD_JOURNAL_REPLACE,
                [CONSENSUS_ASIDE] = WORLD_JOURNAL_ASIDE,
                [CONSENSUS_SWAP] = WORLD_JOURNAL_SWAP,
        };
        bool any = false;
        for (size_t i = 0; i < output->write_count; i++) {
                const struct consensus_write *write = &output->writes[i];
                struct world_effect effect = {.kind = kinds[write->kind]};
                effect.journal.group = group->group;
                effect.journal.generation = write->generation;
                effect.journal.offset = write->offset;
                effect.journal.data = outbox_copy(&node->outbox, write->data);
                outbox_push(&node->outbox, &effect);
                any = any || write->kind != CONSENSUS_ASIDE;
        }
        return any;
}

static void pump_messages(struct node *node, struct node_group *group,
                          const struct consensus_output *output)
{
        for (size_t i = 0; i < output->message_count; i++) {
                struct envelope envelope = {.kind = group->group == WORLD_GROUP_GLOBAL
                                                            ? ENVELOPE_RAFT_GLOBAL
                                                            : ENVELOPE_RAFT_REGION,
                                            .body = output->messages[i].data};
                node_send(node, output->messages[i].peer, &envelope);
        }
}

static void region_changed(struct node *node, const struct council_outcome *outcome)
{
        const char *from = region_state_name((enum region_state)outcome->from);
        const char *to = region_state_name((enum region_state)outcome->to);
        node->counters.region_changes++;
        node_note(node, "region", "Region %s goes from %s to %s. %.*s",
                  node_region_name(node, outcome->region), from, to, BYTES_ARGS(outcome->text));
}

static void pump_outcomes(struct node *node, struct node_group *group,
                          const struct council_outcome *outcomes, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                const struct council_outcome *outcome = &outcomes[i];
                if (outcome->kind == COUNCIL_REGION_EVENT)
                        region_changed(node, outcome);
                else if (outcome->kind == COUNCIL_TOPOLOGY_EVENT)
                        node_adopt_topology(node, council_topology(group->council, NULL));
                else if (outcome->origin.node == node->config.self &&
                         outcome->origin.incarnation == node->incarnation)
                        request_outcome(node, group, outcome);
                else if (group->leading)
                        request_result_send(node, outcome);
        }
}

const char *group_stop_reason(enum err err)
{
        return err == ERR_VERSION ? "its log has a command of a later build, which is to be started"
                                  : err_text(err);
}

static void pump_commands(struct node *node, struct node_group *group,
                          const struct consensus_output *output)
{
        for (size_t i = 0; i < output->command_count && !group->failed; i++) {
                const struct consensus_command *command = &output->commands[i];
                const struct council_outcome *outcomes = NULL;
                size_t count = 0;
                enum err err = council_apply(group->council, command->index, command->term,
                                             command->data, &outcomes, &count);
                if (err != ERR_NONE) {
                        group_fail(node, group, group_stop_reason(err));
                        return;
                }
                pump_outcomes(node, group, outcomes, count);
        }
}

/* Follows leadership: the lock clock begins when this node's state is current. */
static void group_follow(struct node *node, struct node_group *group)
{
        group->status = consensus_status(group->consensus);
        if (group->status.failed)
                group_fail(node, group, "its log cannot go on");
        bool leading =
                group->status.role == CONSENSUS_LEADER && group->status.ready && !group->failed;
        if (leading && !group->leading) {
                uint32_t jump_ms = group->group == WORLD_GROUP_GLOBAL
                                           ? node->topology->timing.election_ms
                                           : node->topology->timing.region_election_ms;
                uint64_t table_ms = lock_table_time(council_locks(group->council));
                if (node->config.bugs & NODE_BUG_LOCAL_CLOCK)
                        table_ms = node->now_us / 1000;
                lock_clock_init(&group->clock, table_ms, node->now_us, jump_ms);
                group->time_last_us = group->time_next_us = node->now_us;
                if (group->group == WORLD_GROUP_GLOBAL)
                        postgres_heir_begin(node);
                node->counters.elections_won++;
                node_note(node, "leader", "This node leads the %s group in term %llu.",
                          group->group == WORLD_GROUP_GLOBAL ? "global" : "regional",
                          (unsigned long long)group->status.term);
        }
        group->leading = leading;
        if (group->status.leader != 0)
                group->leaderless_us = 0;
        else if (group->leaderless_us == 0)
                group->leaderless_us = node->now_us;
}

void group_pump(struct node *node, struct node_group *group)
{
        if (group->consensus == NULL)
                return;
        for (int round = 0; round < PUMP_ROUNDS_MAX; round++) {
                struct consensus_output output;
                consensus_take(group->consensus, &output);
                group->wake_ms = output.wake_ms;
                bool written = pump_writes(node, group, &output);
                pump_messages(node, group, &output);
                if (output.restore)
                        restoring_begin(node, group, &output);
                pump_commands(node, group, &output);
                if (output.command_count > 0) {
                        values_changed(node, group);
                        watch_locks_changed(node, group);
                }
                if (!group->failed)
                        read_ready(node, group, output.reads, output.read_count);
                if (output.restore || output.command_count > 0 || output.changed)
                        node->look = true;
                if (output.restore)
                        restoring_carried_out(node, group);
                bool more = written || output.message_count > 0 || output.restore ||
                            output.command_count > 0 || output.changed;
                if (output.snapshot_wished && !group->failed && snapshot_begin(node, group))
                        more = true;
                group_follow(node, group);
                if (!more)
                        break;
        }
}

bool group_propose(struct node *node, struct node_group *group,
                   const struct council_command *command)
{
        if (!group->leading || members_give_way(node, group, command))
                return false;
        if (command->kind != COUNCIL_SET_LEVEL &&
            council_command_level(command) > council_level(group->council))
                return false;
        struct council_command stamped = *command;
        if (stamped.kind == COUNCIL_LOCK) {
                stamped.lock.now_ms = lock_clock_read(&group->clock, node->now_us);
                group->time_last_us = node->now_us;
                if (group->group == WORLD_GROUP_GLOBAL)
                        postgres_heir_proposed(node, &stamped.lock);
        }
        buffer_reset(&node->scratch);
        council_command_encode(&stamped, &node->scratch);
        if (node->scratch.err != ERR_NONE)
                return false;
        enum err err = consensus_submit(group->consensus, node->now_us / 1000,
                                        buffer_view(&node->scratch));
        if (err == ERR_NONE)
                node->counters.proposals++;
        return err == ERR_NONE;
}

static bool time_due(struct node *node, struct node_group *group)
{
        const struct lock_table *table = council_locks(group->council);
        if (lock_table_idle(table) || node->now_us < group->time_next_us)
                return false;
        uint64_t at_ms = lock_clock_read(&group->clock, node->now_us);
        return at_ms >= lock_next_deadline(table) ||
               node->now_us >= group->time_last_us + LOCK_CHECKPOINT_MS * 1000;
}

void group_tick(struct node *node, struct node_group *group)
{
        snapshot_tick(node, group);
        restoring_tick(node, group);
        if (!group->leading || (node->config.bugs & NODE_BUG_NO_EXPIRY) != 0)
                return;
        (void)lock_clock_read(&group->clock, node->now_us);
        if (group->group == WORLD_GROUP_GLOBAL)
                postgres_heir_tick(node);
        if (!time_due(node, group))
                return;
        struct council_command command = {.kind = COUNCIL_LOCK, .wall_us = node->wall_us};
        command.lock.op = LOCK_TIME;
        group->time_next_us = node->now_us + TIME_APART_US;
        (void)group_propose(node, group, &command);
}

uint64_t group_wake_us(const struct node *node, const struct node_group *group)
{
        if (group->consensus == NULL || group->failed)
                return restoring_wake_us(group);
        uint64_t wake_us = group->wake_ms >= UINT64_MAX / 1000 ? UINT64_MAX : group->wake_ms * 1000;
        if (snapshot_wake_us(group) < wake_us)
                wake_us = snapshot_wake_us(group);
        if (restoring_wake_us(group) < wake_us)
                wake_us = restoring_wake_us(group);
        const struct lock_table *table = council_locks(group->council);
        if (!group->leading || lock_table_idle(table) ||
            (node->config.bugs & NODE_BUG_NO_EXPIRY) != 0)
                return wake_us;
        uint64_t due_us = lock_clock_when(&group->clock, lock_next_deadline(table));
        uint64_t check_us = group->time_last_us + LOCK_CHECKPOINT_MS * 1000;
        if (check_us < due_us)
                due_us = check_us;
        if (due_us < group->time_next_us)
                due_us = group->time_next_us;
        if (group->group == WORLD_GROUP_GLOBAL && postgres_heir_wake_us(node) < due_us)
                due_us = postgres_heir_wake_us(node);
        return due_us < wake_us ? due_us : wake_us;
}
