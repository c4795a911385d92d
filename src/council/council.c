/* Applying commands, one function a kind.
 *
 *   decode -> seen before? answer as then : do it -> outcomes -> the answers are remembered
 *
 * A lock's answer may come long after its command (a wait ends); it then replaces the one
 * remembered, so a repeat gets the newest. Running out of memory in the middle of a
 * change sets `fatal`: what other replicas did is not known here any more, and every
 * later apply fails as well. */
#include "council/council.h"

#include "base/check.h"
#include "base/hash.h"
#include "council/council_priv.h"

enum err council_new(struct heap *heap, const struct council_config *config,
                     struct council **ret_council)
{
        struct council *council = heap_alloc(heap, sizeof *council);
        if (council == NULL)
                return ERR_NOMEM;
        council->heap = heap;
        council->config = *config;
        council->level = 1;
        council->repeats.heap = heap;
        enum err err = lock_table_new(heap, config->seed, &council->locks);
        if (err == ERR_NONE)
                err = kv_new(heap, config->seed, &council->kv);
        if (err != ERR_NONE) {
                lock_table_free(council->locks);
                heap_free(heap, council);
                return err;
        }
        *ret_council = council;
        return ERR_NONE;
}

static void owned_free(struct heap *heap, struct bytes *data)
{
        heap_free_bytes(heap, *data);
        *data = (struct bytes){0};
}

static void audit_free(struct heap *heap, struct audit *audit)
{
        owned_free(heap, &audit->actor);
        owned_free(heap, &audit->what);
        owned_free(heap, &audit->why);
}

void council_free(struct council *council)
{
        if (council == NULL)
                return;
        council_capture_drop(council);
        council_restore_drop(council);
        owned_free(council->heap, &council->document);
        for (size_t i = 0; i < REGION_IDS; i++)
                owned_free(council->heap, &council->regions[i].text);
        for (size_t i = 0; i < COUNCIL_AUDIT_MAX; i++)
                audit_free(council->heap, &council->audit[i]);
        repeats_fini(&council->repeats);
        lock_table_free(council->locks);
        kv_free(council->kv);
        heap_free(council->heap, council->outcomes);
        heap_free(council->heap, council);
}

bool council_audit_add(struct council *council, const struct council_audit *line)
{
        struct audit audit = {.index = line->index, .wall_us = line->wall_us, .row = line->row};
        if (!heap_copy(council->heap, line->actor, &audit.actor) ||
            !heap_copy(council->heap, line->what, &audit.what) ||
            !heap_copy(council->heap, line->why, &audit.why)) {
                audit_free(council->heap, &audit);
                return false;
        }
        size_t at = (council->audit_first + council->audit_count) % COUNCIL_AUDIT_MAX;
        if (council->audit_count == COUNCIL_AUDIT_MAX) {
                audit_free(council->heap, &council->audit[at]);
                council->audit_first = (council->audit_first + 1) % COUNCIL_AUDIT_MAX;
        } else {
                council->audit_count++;
        }
        council->audit[at] = audit;
        return true;
}

bool council_region_set(struct council *council, const struct council_region *region)
{
        struct bytes text;
        if (!heap_copy(council->heap, region->text, &text))
                return false;
        struct region *place = &council->regions[region->region];
        owned_free(council->heap, &place->text);
        *place = (struct region){
                .spoken = true,
                .state = region->state,
                .row = region->row,
                .index = region->index,
                .wall_us = region->wall_us,
                .text = text,
        };
        return true;
}

/* Audits with `what` by a format. */
static void audit_change(struct council *council, const struct council_command *command,
                         uint64_t index, const struct buffer *what)
{
        struct council_audit line = {
                .index = index,
                .wall_us = command->wall_us,
                .actor = command->actor,
                .what = buffer_view(what),
        };
        if (command->kind == COUNCIL_SET_REGION_STATE) {
                line.row = command->region.row;
                line.why = command->region.evidence;
        }
        if (what->err != ERR_NONE || !council_audit_add(council, &line))
                council->fatal = true;
}

static struct council_outcome *outcome_add(struct council *council)
{
        if (council->outcome_count == council->outcome_size) {
                size_t size = council->outcome_size == 0 ? 16 : council->outcome_size * 2;
                struct council_outcome *outcomes =
                        heap_resize(council->heap, council->outcomes, size * sizeof *outcomes);
                if (outcomes == NULL) {
                        council->fatal = true;
                        return NULL;
                }
                council->outcomes = outcomes;
                council->outcome_size = size;
        }
        struct council_outcome *outcome = &council->outcomes[council->outcome_count++];
        *outcome = (struct council_outcome){.kind = COUNCIL_DONE, .epoch = council->epoch};
        return outcome;
}

/* The answer to a command that has an asker. */
static struct council_outcome *outcome_answer(struct council *council,
                                              const struct council_command *command,
                                              enum council_outcome_kind kind, enum err err)
{
        if (command->origin.node == 0)
                return NULL;
        struct council_outcome *outcome = outcome_add(council);
        if (outcome == NULL)
                return NULL;
        outcome->kind = kind;
        outcome->err = err;
        outcome->origin = command->origin;
        return outcome;
}

static void apply_noop(struct council *council, const struct council_command *command,
                       uint64_t index)
{
        (void)index;
        (void)outcome_answer(council, command, COUNCIL_DONE, ERR_NONE);
}

region_id council_region_least(uint64_t regions)
{
        region_id id = 0;
        for (; regions != 0 && (id == 0 || (regions >> (id - 1) & 1) == 0);)
                id++;
        return id;
}

uint64_t council_removed(const struct council *council)
{
        return council->removed;
}

static void apply_topology(struct council *council, const struct council_command *command,
                           uint64_t index)
{
        if (command->topology.epoch_expected != council->epoch) {
                (void)outcome_answer(council, command, COUNCIL_REFUSED, ERR_BUSY);
                return;
        }
        region_id again = council_region_least(command->topology.regions & council->removed);
        if (again != 0) {
                struct council_outcome *refused =
                        outcome_answer(council, command, COUNCIL_REFUSED, ERR_REFUSED);
                if (refused != NULL)
                        refused->region = again;
                return;
        }
        struct bytes document;
        if (!heap_copy(council->heap, command->topology.document, &document)) {
                council->fatal = true;
                return;
        }
        owned_free(council->heap, &council->document);
        council->document = document;
        council->removed |= command->topology.removed;
        council->epoch++;
        struct buffer what;
        buffer_init(&what, council->heap);
        buffer_format(&what, "topology epoch %llu", (unsigned long long)council->epoch);
        audit_change(council, command, index, &what);
        buffer_fini(&what);
        (void)outcome_answer(council, command, COUNCIL_DONE, ERR_NONE);
        struct council_outcome *event = outcome_add(council);
        if (event != NULL)
                event->kind = COUNCIL_TOPOLOGY_EVENT;
}

static uint8_t region_state(const struct council *council, region_id region)
{
        const struct region *place = &council->regions[region];
        return place->spoken ? place->state : council->config.region_state_initial;
}

static enum err region_judge(const struct council *council, const struct council_command *command)
{
        const struct council_config *config = &council->config;
        uint8_t from = command->region.from;
        uint8_t to = command->region.to;
        if (region_state(council, command->region.region) != from)
                return ERR_BUSY;
        if (from == to || (config->region_state_count != 0 && to >= config->region_state_count))
                return ERR_REFUSED;
        if (config->may_move != NULL && !config->may_move(from, to))
                return ERR_REFUSED;
        return ERR_NONE;
}

static void region_fill(struct council_outcome *outcome, const struct council_command *command,
                        uint8_t from)
{
        if (outcome == NULL)
                return;
        outcome->region = command->region.region;
        outcome->from = from;
        outcome->to = command->region.to;
        outcome->row = command->region.row;
        outcome->text = command->region.evidence;
}

static void apply_region(struct council *council, const struct council_command *command,
                         uint64_t index)
{
        uint8_t from = region_state(council, command->region.region);
        enum err err = region_judge(council, command);
        if (err != ERR_NONE) {
                region_fill(outcome_answer(council, command, COUNCIL_REFUSED, err), command, from);
                return;
        }
        struct council_region region = {
                .region = command->region.region,
                .state = command->region.to,
                .row = command->region.row,
                .index = index,
                .wall_us = command->wall_us,
                .text = command->region.evidence,
        };
        if (!council_region_set(council, &region)) {
                council->fatal = true;
                return;
        }
        struct buffer what;
        buffer_init(&what, council->heap);
        buffer_format(&what, "region %u state %u to %u", region.region, from, region.state);
        audit_change(council, command, index, &what);
        buffer_fini(&what);
        region_fill(outcome_answer(council, command, COUNCIL_DONE, ERR_NONE), command, from);
        struct council_outcome *event = outcome_add(council);
        region_fill(event, command, from);
        if (event != NULL)
                event->kind = COUNCIL_REGION_EVENT;
}

static void audit_break(struct council *council, const struct council_command *command,
                        uint64_t index, const struct lock_result *result)
{
        struct buffer what;
        buffer_init(&what, council->heap);
        buffer_format(&what, "lock ");
        buffer_bytes(&what, result->key);
        buffer_format(&what, " taken from ");
        buffer_bytes(&what, result->owner);
        audit_change(council, command, index, &what);
        buffer_fini(&what);
}

static void apply_lock(struct council *council, const struct council_command *command,
                       uint64_t index)
{
        size_t count = 0;
        bool fatal = false;
        const struct lock_result *results =
                lock_apply(council->locks, index, &command->lock, &count, &fatal);
        council->fatal = council->fatal || fatal;
        for (size_t i = 0; i < count; i++) {
                struct council_outcome *outcome = outcome_add(council);
                if (outcome == NULL)
                        return;
                outcome->kind = COUNCIL_LOCK_RESULT;
                outcome->origin = results[i].origin;
                outcome->lock = results[i];
                if (results[i].kind == LOCK_BROKEN)
                        audit_break(council, command, index, &results[i]);
        }
        council_sessions_ended(council, index);
}

static void apply_kv(struct council *council, const struct council_command *command, uint64_t index)
{
        const struct kv_result *result = council_kv_apply(council, command, index);
        struct council_outcome *outcome =
                outcome_answer(council, command, COUNCIL_KV_RESULT, ERR_NONE);
        if (outcome != NULL)
                outcome->kv = result;
}

static void (*const appliers[COUNCIL_COMMAND_COUNT])(struct council *council,
                                                     const struct council_command *command,
                                                     uint64_t index) = {
        [COUNCIL_NOOP] = apply_noop,
        [COUNCIL_SET_TOPOLOGY] = apply_topology,
        [COUNCIL_SET_REGION_STATE] = apply_region,
        [COUNCIL_LOCK] = apply_lock,
        [COUNCIL_KV] = apply_kv,
        [COUNCIL_SET_LEVEL] = council_level_apply,
};

static void answers_keep(struct council *council)
{
        for (size_t i = 0; i < council->outcome_count; i++) {
                const struct council_outcome *outcome = &council->outcomes[i];
                if (outcome->origin.node == 0)
                        continue;
                struct answer answer = {
                        .epoch = outcome->epoch,
                        .token = outcome->lock.token.value,
                        .ttl_ms = outcome->lock.ttl_ms,
                        .kind = outcome->kind,
                        .lock = outcome->lock.kind,
                        .err = outcome->err,
                        .region = outcome->region,
                        .from = outcome->from,
                        .to = outcome->to,
                };
                if (outcome->kind == COUNCIL_KV_RESULT) {
                        answer.kv = outcome->kv->kind;
                        answer.kv_succeeded = outcome->kv->succeeded;
                        answer.token = outcome->kv->revision;
                }
                repeats_keep(&council->repeats, &outcome->origin, &answer);
        }
}

static void answer_again(struct council *council, const struct council_command *command,
                         const struct answer *answer)
{
        struct council_outcome *outcome =
                outcome_answer(council, command, answer->kind, answer->err);
        if (outcome == NULL)
                return;
        outcome->repeat = true;
        outcome->epoch = answer->epoch;
        outcome->region = answer->region;
        outcome->from = answer->from;
        outcome->to = answer->to;
        if (answer->kind == COUNCIL_KV_RESULT) {
                council->kv_repeat = (struct kv_result){.kind = answer->kv,
                                                        .succeeded = answer->kv_succeeded,
                                                        .repeat = true,
                                                        .revision = answer->token};
                outcome->kv = &council->kv_repeat;
                return;
        }
        outcome->lock.kind = answer->lock;
        outcome->lock.origin = command->origin;
        outcome->lock.token.value = answer->token;
        outcome->lock.ttl_ms = answer->ttl_ms;
        if (command->kind == COUNCIL_LOCK) {
                outcome->lock.key = command->lock.key;
                outcome->lock.owner = command->lock.owner;
        }
}

static void apply_once(struct council *council, const struct council_command *command,
                       uint64_t index)
{
        struct answer answer;
        enum repeat repeat = REPEAT_NEW;
        /* To look changes nothing, so a repeat may look again: it sees the holder's name, too. */
        bool looks = (command->kind == COUNCIL_LOCK && command->lock.op == LOCK_LOOK) ||
                     (command->kind == COUNCIL_KV && council_kv_reads(command));
        if (command->origin.node != 0 && !looks)
                repeat = repeats_look(&council->repeats, &command->origin, index, &answer);
        switch (repeat) {
        case REPEAT_NEW:
                appliers[command->kind](council, command, index);
                answers_keep(council);
                return;
        case REPEAT_KNOWN:
                answer_again(council, command, &answer);
                return;
        case REPEAT_OLD: {
                struct council_outcome *outcome =
                        outcome_answer(council, command, COUNCIL_REFUSED, ERR_EXISTS);
                if (outcome != NULL)
                        outcome->repeat = true;
                return;
        }
        case REPEAT_NOMEM:
                council->fatal = true;
                return;
        }
}

enum err council_apply(struct council *council, uint64_t index, uint64_t term, struct bytes command,
                       const struct council_outcome **ret_outcomes, size_t *ret_count)
{
        (void)term;
        CHECK(index >= council->applied);
        council->outcome_count = 0;
        council->applied = index;
        struct council_command decoded;
        enum err err = council_command_decode(command, &decoded);
        if (err == ERR_NONE &&
            council_command_level(&decoded) > council_level_known(&council->config))
                err = ERR_VERSION;
        if (err == ERR_NONE)
                apply_once(council, &decoded, index);
        *ret_outcomes = council->outcomes;
        *ret_count = council->outcome_count;
        return council->fatal ? ERR_NOMEM : err == ERR_VERSION ? err : ERR_NONE;
}

uint64_t council_applied_index(const struct council *council)
{
        return council->applied;
}

struct bytes council_topology(const struct council *council, uint64_t *ret_epoch)
{
        if (ret_epoch != NULL)
                *ret_epoch = council->epoch;
        return council->document;
}

struct council_region council_region(const struct council *council, region_id region)
{
        const struct region *place = &council->regions[region];
        return (struct council_region){
                .region = region,
                .state = region_state(council, region),
                .row = place->row,
                .index = place->index,
                .wall_us = place->wall_us,
                .text = place->text,
        };
}

bool council_region_at(const struct council *council, size_t i, struct council_region *ret)
{
        for (unsigned region = 1; region < REGION_IDS; region++) {
                if (!council->regions[region].spoken)
                        continue;
                if (i-- == 0) {
                        *ret = council_region(council, (region_id)region);
                        return true;
                }
        }
        return false;
}

size_t council_audit_count(const struct council *council)
{
        return council->audit_count;
}

struct council_audit council_audit_at(const struct council *council, size_t i)
{
        CHECK(i < council->audit_count);
        const struct audit *audit = &council->audit[(council->audit_first + i) % COUNCIL_AUDIT_MAX];
        return (struct council_audit){
                .index = audit->index,
                .wall_us = audit->wall_us,
                .actor = audit->actor,
                .what = audit->what,
                .row = audit->row,
                .why = audit->why,
        };
}

const struct lock_table *council_locks(const struct council *council)
{
        return council->locks;
}

uint64_t council_digest(const struct council *council)
{
        struct buffer out;
        buffer_init(&out, council->heap);
        council_snapshot(council, &out);
        uint64_t digest = out.err == ERR_NONE ? hash_fnv(HASH_FNV_START, buffer_view(&out)) : 0;
        buffer_fini(&out);
        return digest;
}
