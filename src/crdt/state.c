/* The whole state of one key as bytes, and the merge of two states.
 *
 *      varint db, slice key, varint parts; then the parts that `parts` names, in this order:
 *
 *      SLICE    which slice of a large key this is, as slice.h says
 *      LAST     varint types, then a stamp for each type in it
 *      KILLED   stamp
 *      TTL      stamp, varint time (0: none)
 *      BASE     stamp
 *      VALUE    VALUES: slice, the base's text or the opaque value
 *               SAVED: u8 kind (enum crdt_base), signed varint for INT, slice for FLOAT
 *      COUNTS   varint count, (part rising, u64 clock, totals, u64 cut clock, totals) each;
 *               parts as in crdt.h
 *      ITEMS    bounds: varint count, (u8 origin rising, u64 clock) each
 *               fields: varint count, (slice name, stamp, u8 1: removed, 2: increments follow;
 *               VALUES and not removed: slice; increments: [SAVED: the base, as in VALUE, u64
 *               clock of the last change] as in COUNTS) each; a stamp of zeros: increments alone
 *               members: varint count, (slice name, varint dots > 0, (u8 origin rising, u64 clock,
 *               u8 removed) each) each
 *      SIBLINGS as siblings.h says
 *      LIST     [SLICE: the range of places] the list, as in crdt/list_code.c
 *      HLL      as hll.h says
 *      STREAM   stamp of its last change, [SLICE: u8 1: some is told, the range of ids] the stream,
 *               as in crdt/stream_code.c
 *      ZSET     the members, as zset.h says
 *      EVICTED  nothing; the content of this key is not whole and says nothing. VALUES: alone, or
 *               with BASE, whose clock no change of the key that the sender had seen is beyond
 *      PARTIAL  SAVED: nothing; crdt.partial
 *
 * Merging rests on two vectors: what the sender had seen and does not show has died there;
 * what this side has seen and does not have has died here (Bieniusa, Zawirski, Preguiça,
 * Shapiro, Baquero, Balegas, Duarte: "An optimized conflict-free replicated set", 2012, taken
 * to every kind of part). */
#include "base/check.h"
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/hll.h"
#include "crdt/list.h"
#include "crdt/lists.h"
#include "crdt/siblings.h"
#include "crdt/slice.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

/* ---- decode: each list has one reader, used for the check and for the merge */

static bool flag_read(struct cursor *cursor)
{
        uint8_t flag = cursor_u8(cursor);
        if (flag > 1)
                cursor_fail(cursor, ERR_MALFORMED);
        return flag == 1;
}

struct member_told {
        struct bytes name;
        struct crdt_dot dots[CLOCK_REGIONS_MAX];
        uint64_t count;
};

static void member_read(struct cursor *cursor, uint64_t hlc_max, struct member_told *ret)
{
        region_id origin_last = 0;
        ret->name = name_read(cursor);
        ret->count = cursor_varint_max(cursor, CLOCK_REGIONS_MAX);
        if (ret->count == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        for (uint64_t i = 0; i < ret->count && !cursor_failed(cursor); i++) {
                ret->dots[i] = dot_read(cursor, hlc_max, &origin_last);
                ret->dots[i].removed = flag_read(cursor);
        }
}

static void last_read(struct cursor *cursor, uint64_t hlc_max, struct crdt *head)
{
        uint64_t types = cursor_varint_max(cursor, (1u << CRDT_TYPE_COUNT) - 1);
        if (types == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if ((types >> i & 1) != 0)
                        head->last[i] = stamp_read(cursor, hlc_max, false);
        }
}

static void value_read(struct cursor *cursor, struct crdt_state *state)
{
        state->value_there = true;
        if (state->kind == CRDT_STATE_VALUES) {
                state->value = name_read(cursor);
                return;
        }
        state->value = counter_base_read(cursor, &state->head.counter);
}

static void items_check(struct cursor *cursor, uint64_t hlc_max, struct crdt_state *state)
{
        struct member_told member;
        region_id origin_last = 0;
        const uint8_t *from = cursor->at;
        uint64_t count = count_read(cursor, 9);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                dot_read(cursor, hlc_max, &origin_last);
        state->bounds = cursor_since(cursor, from);
        from = cursor->at;
        count = count_read(cursor, 11);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                field_read_state(cursor, state->kind, hlc_max);
        state->fields = cursor_since(cursor, from);
        from = cursor->at;
        count = count_read(cursor, 12);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                member_read(cursor, hlc_max, &member);
        state->members = cursor_since(cursor, from);
}

static void elements_check(struct cursor *cursor, uint64_t hlc_max, bool slice,
                           struct crdt_state *state)
{
        state->elements_told = true;
        if (slice)
                state->elements_range = list_range_check(cursor, hlc_max);
        state->elements = list_state_check(cursor, state->kind, hlc_max);
}

static void entries_check(struct cursor *cursor, uint64_t hlc_max, bool slice,
                          struct crdt_state *state)
{
        state->head.born = stamp_read(cursor, hlc_max, true);
        state->entries_told = !slice || flag_read(cursor);
        if (!state->entries_told)
                return;
        if (slice)
                state->entries_range = stream_range_check(cursor);
        state->entries = stream_state_check(cursor, state->kind, hlc_max);
}

bool crdt_state_decode(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max,
                       struct crdt_state *ret)
{
        struct crdt_state state = {.kind = kind};
        state.name.db = (uint32_t)cursor_varint_max(cursor, CRDT_DB_MAX);
        state.name.key = name_read(cursor);
        uint64_t parts = cursor_varint_max(cursor, PARTS_ALL);
        state.head.evicted = (parts & PART_EVICTED) != 0;
        state.head.partial = (parts & PART_PARTIAL) != 0;
        bool slice = (parts & PART_SLICE) != 0;
        if ((slice && kind != CRDT_STATE_VALUES) ||
            (state.head.partial && kind != CRDT_STATE_SAVED))
                cursor_fail(cursor, ERR_MALFORMED);
        if (slice)
                state.mark = slice_mark_read(cursor);
        if ((parts & PART_LAST) != 0)
                last_read(cursor, hlc_max, &state.head);
        if ((parts & PART_KILLED) != 0)
                state.head.killed = stamp_read(cursor, hlc_max, false);
        if ((parts & PART_TTL) != 0) {
                state.head.ttl = stamp_read(cursor, hlc_max, false);
                state.head.expire_at_ms = cursor_varint(cursor);
        }
        if ((parts & PART_BASE) != 0)
                state.head.base = stamp_read(cursor, hlc_max, false);
        if ((parts & PART_VALUE) != 0)
                value_read(cursor, &state);
        if ((parts & PART_COUNTS) != 0)
                state.counts = counter_check(cursor, hlc_max);
        if ((parts & PART_ITEMS) != 0)
                items_check(cursor, hlc_max, &state);
        if ((parts & PART_SIBLINGS) != 0)
                siblings_check(cursor, hlc_max, &state);
        if ((parts & PART_LIST) != 0)
                elements_check(cursor, hlc_max, slice, &state);
        if ((parts & PART_HLL) != 0)
                hll_check(cursor, hlc_max, &state);
        if ((parts & PART_STREAM) != 0)
                entries_check(cursor, hlc_max, slice, &state);
        if ((parts & PART_ZSET) != 0)
                state.scores = zset_state_check(cursor, hlc_max);
        if (cursor_failed(cursor))
                return false;
        *ret = state;
        return true;
}

/* ---- merge */

static void merge_last(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state)
{
        (void)env;
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (i != CRDT_HLL)
                        crdt->last[i] = stamp_max(crdt->last[i], state->head.last[i]);
        }
}

static void merge_ttl(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                      const struct crdt_seen *sender)
{
        struct stamp told = state->head.ttl;
        struct stamp own = crdt->ttl;
        if (stamp_before(told, own) && crdt_seen_covers(sender, own))
                ttl_join(crdt, own, 0);
        else if (stamp_is(told) && !(stamp_before(own, told) && env_seen(env, told)))
                ttl_join(crdt, told, state->head.expire_at_ms);
}

static void merge_bounds(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state)
{
        struct cursor cursor = cursor_of(state->bounds);
        region_id origin_last = 0;
        uint64_t count = state->bounds.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++)
                bounds_join(env, crdt, dot_stamp(dot_read(&cursor, UINT64_MAX, &origin_last)));
}

static void merge_count(struct crdt_env *env, struct crdt *crdt, struct crdt_count told)
{
        struct stamp stamp = {told.hlc, told.origin};
        if (told.hlc != 0 && !env_seen(env, stamp))
                count_join(env, crdt, stamp, told.life, told.total);
        if (told.cut_hlc != 0)
                cut_join(env, crdt, &told);
}

static void merge_counts(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                         const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(state->counts);
        unsigned part_last = 0;
        uint64_t count = state->counts.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count one = count_read_one(&cursor, UINT64_MAX, &part_last);
                merge_count(env, crdt, one);
        }
        if (counter_absent(&crdt->counter, state->counts, sender))
                env->string_dirty = true;
}

/* Returns whether the value that came is the new base. */
static void merge_base(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                       const struct crdt_seen *sender)
{
        struct stamp told = state->head.base;
        if (stamp_before(crdt->base, told)) {
                if (env_seen(env, told))
                        crdt->killed = stamp_max(crdt->killed, told);
                base_set(env, crdt, told);
                if (state->kind == CRDT_STATE_SAVED &&
                    state->head.counter.base_kind == CRDT_BASE_FLOAT)
                        base_learn(env, crdt, state->value);
                else
                        crdt->counter.base_kind = state->head.counter.base_kind;
                crdt->counter.base_int = state->head.counter.base_int;
        } else if (stamp_before(told, crdt->base) && crdt_seen_covers(sender, crdt->base)) {
                crdt->killed = stamp_max(crdt->killed, crdt->base);
        }
}

static void merge_fields(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                         const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(state->fields);
        uint64_t count = state->fields.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct field_told field = field_read_state(&cursor, state->kind, UINT64_MAX);
                field_merge(env, crdt, &field, sender);
        }
}

static void merge_member(struct crdt_env *env, struct crdt *crdt, const struct member_told *member,
                         const struct crdt_seen *sender)
{
        struct vector told = {0};
        for (uint64_t i = 0; i < member->count; i++) {
                struct crdt_dot dot = member->dots[i];
                vector_advance(&told, dot.origin, dot.hlc);
                if (dot.removed)
                        member_remove(env, crdt, member->name, dot_stamp(dot));
                else if (!env_seen(env, dot_stamp(dot)))
                        member_add(env, crdt, member->name, dot_stamp(dot));
        }
        member_absent_dots(env, crdt, member->name, &told, sender);
}

static void merge_members(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                          const struct crdt_seen *sender)
{
        struct member_told member;
        struct cursor cursor = cursor_of(state->members);
        uint64_t count = state->members.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                member_read(&cursor, UINT64_MAX, &member);
                merge_member(env, crdt, &member, sender);
        }
}

static void merge_opaque(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                         struct stamp own, const struct crdt_seen *sender)
{
        struct stamp told = state->head.last[CRDT_OPAQUE];
        if (stamp_before(told, own) && crdt_seen_covers(sender, own))
                crdt->killed = stamp_max(crdt->killed, own);
        if (!stamp_before(own, told))
                return;
        if (env_seen(env, told))
                crdt->killed = stamp_max(crdt->killed, told);
        crdt->opaque_lost = false;
        content_shows(crdt);
}

/* An empty stream is there by the stamp of its last change alone. */
static void merge_born(struct crdt_env *env, struct crdt *crdt, struct stamp told,
                       const struct crdt_seen *sender)
{
        struct stamp own = crdt->born;
        crdt->born = stamp_max(own, told);
        if (stamp_before(told, own) && crdt_seen_covers(sender, own))
                crdt->killed = stamp_max(crdt->killed, own);
        if (stamp_before(own, told) && env_seen(env, told))
                crdt->killed = stamp_max(crdt->killed, told);
}

static void merge_opaque_value(struct crdt_env *env, struct crdt *crdt,
                               const struct crdt_state *state, struct stamp own)
{
        if (!stamp_before(own, crdt->last[CRDT_OPAQUE]) || crdt_type(crdt) != CRDT_OPAQUE)
                return;
        env->written = true;
        if (env->native != NULL && state->value_there)
                env->native->opaque_set(env->native->context, env->name, state->value,
                                        crdt_expire_at(crdt));
}

/* The sender's content is not whole and is not told, though its vector says that it had seen all of
 * it. Where that is adopted, what is here is whole only if it has all that the sender had seen. */
static void merge_evicted(const struct crdt_env *env, struct crdt *crdt,
                          const struct crdt_state *state, const struct crdt_seen *sender)
{
        uint64_t most = stamp_is(state->head.base) ? state->head.base.hlc : UINT64_MAX;
        bool whole = true;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && whole; i++) {
                uint64_t told = sender->vector.hlc[i];
                struct stamp last = {told < most ? told : most, (region_id)i};
                whole = !stamp_is(last) || env_seen_through(env, last);
        }
        if (whole || crdt->evicted)
                return;
        uint64_t newest = vector_newest(&sender->vector);
        crdt->partial = true;
        crdt->touched = newest > crdt->touched ? newest : crdt->touched;
}

void crdt_merge(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                const struct crdt_seen *sender)
{
        crdt->open = state->mark.there && !state->mark.last;
        if (state->head.evicted && state->kind == CRDT_STATE_VALUES) {
                merge_evicted(env, crdt, state, sender);
                return;
        }
        struct stamp opaque = crdt->last[CRDT_OPAQUE];
        if (!state->mark.there || state->mark.first || crdt->round == 0)
                slice_round_begin(crdt);
        change_begin(env, crdt);
        env->bounds_rose = crdt->bound_count > 0; /* its parts are not compared with them */
        merge_last(env, crdt, state);
        crdt->killed = stamp_max(crdt->killed, state->head.killed);
        merge_ttl(env, crdt, state, sender);
        merge_opaque(env, crdt, state, opaque, sender);
        if (state->head.evicted)
                crdt->opaque_lost = true;
        merge_born(env, crdt, state->head.born, sender);
        merge_bounds(env, crdt, state);
        merge_base(env, crdt, state, sender);
        merge_counts(env, crdt, state, sender);
        merge_siblings(env, crdt, state, sender);
        bool registers = merge_hll(env, crdt, state, sender);
        change_settle(env, crdt);
        string_sync(env, crdt, state->value);
        if (registers)
                merge_hll_registers(env, crdt, state);
        merge_fields(env, crdt, state, sender);
        merge_members(env, crdt, state, sender);
        zset_state_merge(env, crdt, state->scores, sender);
        if (!state->mark.there)
                slice_judge(env, crdt, state->mark, sender);
        else if (state->mark.judges && state->begin != NULL)
                slice_judge(env, crdt, state->mark, state->begin);
        if (!state->mark.there || state->elements_told)
                list_state_merge(env, crdt, state->elements, state->elements_range, state->kind,
                                 sender);
        if (!state->mark.there || state->entries_told)
                stream_state_merge(env, crdt, state->entries, state->entries_range, state->kind,
                                   sender);
        merge_opaque_value(env, crdt, state, opaque);
        enum crdt_type type = crdt_type(crdt);
        if (env->was != CRDT_NONE && type != env->was && type != CRDT_NONE)
                env->conflicts++;
        if (state->kind == CRDT_STATE_SAVED)
                crdt->evicted = state->head.evicted;
        if (state->kind == CRDT_STATE_SAVED)
                crdt->partial = state->head.partial;
        uint64_t newest = vector_newest(&sender->vector);
        crdt->touched = newest > crdt->touched ? newest : crdt->touched;
        change_end(env, crdt);
}
