/* The whole state of one key as bytes, and the merge of two states.
 *
 *      varint db, slice key, varint parts; then the parts that `parts` names, in this order:
 *
 *      LAST     varint types, then a stamp for each type in it
 *      KILLED   stamp
 *      TTL      stamp, varint time (0: none)
 *      BASE     stamp
 *      VALUE    VALUES: slice, the base's text or the opaque value
 *               SAVED: u8 kind (enum crdt_base), signed varint for INT, slice for FLOAT
 *      COUNTS   varint count, (u8 origin rising, u64 clock, totals, u64 cut clock, totals) each
 *      ITEMS    bounds: varint count, (u8 origin rising, u64 clock) each
 *               fields: varint count, (slice name, stamp, u8 1: removed, 2: increments follow;
 *               VALUES and not removed: slice; increments: [SAVED: the base, as in VALUE, u64
 *               clock of the last change] as in COUNTS) each; a stamp of zeros: increments alone
 *               members: varint count, (slice name, varint dots > 0, (u8 origin rising, u64 clock,
 *               u8 removed) each) each
 *      SIBLINGS as siblings.h says
 *      LIST     the list, as in crdt/list_code.c
 *      HLL      as hll.h says
 *      STREAM   stamp of its last change, the stream, as in crdt/stream_code.c
 *      ZSET     the members, as zset.h says
 *      EVICTED  nothing; the content of this key is not whole and says nothing (only alone)
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
#include "crdt/stream.h"
#include "crdt/zset.h"

enum {
        PART_LAST = 1,
        PART_KILLED = 2,
        PART_TTL = 4,
        PART_BASE = 8,
        PART_VALUE = 16,
        PART_COUNTS = 32,
        PART_ITEMS = 64,
        PART_EVICTED = 128,
        PART_SIBLINGS = 256,
        PART_LIST = 512,
        PART_HLL = 1024,
        PART_STREAM = 2048,
        PART_ZSET = 4096,
        PARTS_ALL = 8191,
};

/* ---- encode */

static void last_write(const struct crdt *crdt, struct buffer *buffer)
{
        unsigned types = 0;
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++)
                types |= (unsigned)stamp_is(crdt->last[i]) << i;
        buffer_varint(buffer, types);
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (stamp_is(crdt->last[i]))
                        stamp_write(buffer, crdt->last[i]);
        }
}

/* The text of the base, which a sum may hide. */
static void base_write(const struct crdt_env *env, const struct crdt *crdt, struct buffer *buffer)
{
        struct bytes value = {0};
        if (crdt->counter.base_kind == CRDT_BASE_INT) {
                struct buffer text;
                buffer_init(&text, env->table.heap);
                buffer_format(&text, "%lld", (long long)crdt->counter.base_int);
                buffer_slice(buffer, buffer_view(&text));
                buffer_fini(&text);
                return;
        }
        if (crdt->counter.base_kind == CRDT_BASE_FLOAT)
                value = crdt->counter.base_text;
        else if (env->native == NULL ||
                 !env->native->string_get(env->native->context, env->name, &value))
                value = (struct bytes){0};
        buffer_slice(buffer, value);
}

static void value_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        struct bytes value = {0};
        if (kind == CRDT_STATE_SAVED) {
                counter_base_save(&crdt->counter, buffer);
        } else if (base_alive(crdt)) {
                base_write(env, crdt, buffer);
        } else {
                if (env->native == NULL ||
                    !env->native->opaque_get(env->native->context, env->name, &value))
                        value = (struct bytes){0};
                buffer_slice(buffer, value);
        }
}

static void member_write(struct item *item, struct buffer *buffer)
{
        buffer_slice(buffer, node_key(&item->node));
        buffer_varint(buffer, item->one.count);
        for (unsigned i = 0; i < item->one.count; i++) {
                struct crdt_dot dot = item_dots(item)[i];
                buffer_u8(buffer, dot.origin);
                buffer_u64(buffer, dot.hlc);
                buffer_u8(buffer, dot.removed);
        }
}

static size_t items_count(const struct crdt_items *items)
{
        return items == NULL ? 0 : items->table.count;
}

static void items_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        buffer_varint(buffer, crdt->bound_count);
        for (unsigned i = 0; i < crdt->bound_count; i++) {
                buffer_u8(buffer, crdt->bounds[i].origin);
                buffer_u64(buffer, crdt->bounds[i].hlc);
        }
        struct table_walk walk = {0};
        buffer_varint(buffer, items_count(crdt->fields));
        for (size_t i = 0; i < items_count(crdt->fields); i++)
                field_write_state(env, item_of(table_next(&crdt->fields->table, &walk)), kind,
                                  buffer);
        walk = (struct table_walk){0};
        buffer_varint(buffer, items_count(crdt->members));
        for (size_t i = 0; i < items_count(crdt->members); i++)
                member_write(item_of(table_next(&crdt->members->table, &walk)), buffer);
}

static unsigned parts_of(const struct crdt *crdt, enum crdt_state_kind kind)
{
        bool value = kind == CRDT_STATE_SAVED ? crdt->counter.base_kind != CRDT_BASE_NATIVE
                                              : base_alive(crdt) || crdt_type(crdt) == CRDT_OPAQUE;
        bool items = crdt->fields != NULL || crdt->members != NULL || crdt->bound_count > 0;
        return (stamp_is(crdt_stamp(crdt)) ? PART_LAST : 0u) |
               (stamp_is(crdt->killed) ? PART_KILLED : 0u) | (stamp_is(crdt->ttl) ? PART_TTL : 0u) |
               (stamp_is(crdt->base) ? PART_BASE : 0u) | (value ? PART_VALUE : 0u) |
               (crdt->counter.count_count > 0 ? PART_COUNTS : 0u) | (items ? PART_ITEMS : 0u) |
               (crdt->siblings != NULL ? PART_SIBLINGS : 0u) | (crdt->hll != NULL ? PART_HLL : 0u) |
               (crdt->list != NULL ? PART_LIST : 0u) |
               (crdt->stream != NULL || stamp_is(crdt->born) ? PART_STREAM : 0u) |
               (crdt->zset != NULL ? PART_ZSET : 0u) | (crdt->evicted ? PART_EVICTED : 0u);
}

enum err crdt_state_encode(const struct crdt_env *env, const struct crdt *crdt,
                           enum crdt_state_kind kind, struct buffer *buffer)
{
        unsigned parts = parts_of(crdt, kind);
        if (crdt->evicted && kind == CRDT_STATE_VALUES)
                parts = PART_EVICTED;
        buffer_varint(buffer, env->name.db);
        buffer_slice(buffer, env->name.key);
        buffer_varint(buffer, parts);
        if ((parts & PART_LAST) != 0)
                last_write(crdt, buffer);
        if ((parts & PART_KILLED) != 0)
                stamp_write(buffer, crdt->killed);
        if ((parts & PART_TTL) != 0) {
                stamp_write(buffer, crdt->ttl);
                buffer_varint(buffer, crdt->expire_at_ms);
        }
        if ((parts & PART_BASE) != 0)
                stamp_write(buffer, crdt->base);
        if ((parts & PART_VALUE) != 0)
                value_write(env, crdt, kind, buffer);
        if ((parts & PART_COUNTS) != 0)
                counter_write(&crdt->counter, buffer);
        if ((parts & PART_ITEMS) != 0)
                items_write(env, crdt, kind, buffer);
        if ((parts & PART_SIBLINGS) != 0)
                siblings_write(env, crdt, kind == CRDT_STATE_VALUES, buffer);
        if ((parts & PART_LIST) != 0)
                list_state_write(env, crdt, kind, buffer);
        if ((parts & PART_HLL) != 0)
                hll_write(env, crdt, kind == CRDT_STATE_VALUES, buffer);
        if ((parts & PART_STREAM) != 0) {
                stamp_write(buffer, crdt->born);
                stream_state_write(env, crdt, kind, buffer);
        }
        if ((parts & PART_ZSET) != 0)
                zset_state_write(crdt, buffer);
        return buffer->err;
}

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

bool crdt_state_decode(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max,
                       struct crdt_state *ret)
{
        struct crdt_state state = {.kind = kind};
        state.name.db = (uint32_t)cursor_varint_max(cursor, CRDT_DB_MAX);
        state.name.key = name_read(cursor);
        uint64_t parts = cursor_varint_max(cursor, PARTS_ALL);
        state.head.evicted = (parts & PART_EVICTED) != 0;
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
                state.elements = list_state_check(cursor, kind, hlc_max);
        if ((parts & PART_HLL) != 0)
                hll_check(cursor, hlc_max, &state);
        if ((parts & PART_STREAM) != 0)
                state.head.born = stamp_read(cursor, hlc_max, true);
        if ((parts & PART_STREAM) != 0)
                state.entries = stream_state_check(cursor, kind, hlc_max);
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
                count_join(env, crdt, stamp, told.total);
        if (told.cut_hlc != 0)
                cut_join(env, crdt, told.origin, told.cut_hlc, told.cut);
}

static void merge_counts(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                         const struct crdt_seen *sender)
{
        struct vector told = {0};
        struct cursor cursor = cursor_of(state->counts);
        region_id origin_last = 0;
        uint64_t count = state->counts.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count one = count_read_one(&cursor, UINT64_MAX, &origin_last);
                merge_count(env, crdt, one);
                vector_advance(&told, one.origin, one.hlc);
        }
        if (counter_absent(&crdt->counter, &told, sender))
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
        fields_absent(env, crdt, sender);
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
        members_absent(env, crdt, sender);
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

void crdt_merge(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                const struct crdt_seen *sender)
{
        if (state->head.evicted && state->kind == CRDT_STATE_VALUES)
                return;
        struct stamp opaque = crdt->last[CRDT_OPAQUE];
        change_begin(env, crdt);
        merge_last(env, crdt, state);
        crdt->killed = stamp_max(crdt->killed, state->head.killed);
        merge_ttl(env, crdt, state, sender);
        merge_opaque(env, crdt, state, opaque, sender);
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
        list_state_merge(env, crdt, state->elements, state->kind, sender);
        stream_state_merge(env, crdt, state->entries, state->kind, sender);
        zset_state_merge(env, crdt, state->scores, sender);
        merge_opaque_value(env, crdt, state, opaque);
        enum crdt_type type = crdt_type(crdt);
        if (env->was != CRDT_NONE && type != env->was && type != CRDT_NONE)
                env->conflicts++;
        if (state->kind == CRDT_STATE_SAVED)
                crdt->evicted = state->head.evicted;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                if (sender->vector.hlc[i] > crdt->touched)
                        crdt->touched = sender->vector.hlc[i];
        change_end(env, crdt);
}

/* ---- tombstones */

struct collect {
        struct crdt_env *env;
        struct crdt *crdt;
        uint64_t stable;
        uint64_t count;
};

static bool collect_field(void *context, struct node *node)
{
        struct collect *collect = context;
        if (!field_collect(collect->env, collect->crdt, item_of(node), collect->stable))
                return false;
        collect->count++;
        return item_free(&collect->env->table, item_of(node));
}

static bool member_collect(void *context, struct node *node)
{
        struct collect *collect = context;
        struct item *item = item_of(node);
        /* A member with live dots keeps its removed ones: they go with it, and cost little. */
        for (unsigned i = 0; i < item->one.count; i++) {
                struct crdt_dot dot = item_dots(item)[i];
                if (!dot.removed || !env_seen_through(collect->env, dot_stamp(dot)))
                        return false;
        }
        collect->count++;
        return item_free(&collect->env->table, item);
}

static void items_collect(struct collect *collect, struct crdt_items **slot,
                          bool (*drop)(void *context, struct node *node))
{
        if (*slot == NULL || ((*slot)->table.count == (*slot)->live && (*slot)->tallies == 0))
                return;
        table_sweep(&(*slot)->table, drop, collect);
        if ((*slot)->table.count == 0)
                items_free(&collect->env->table, slot);
}

uint64_t crdt_collect(struct crdt_env *env, struct crdt *crdt, uint64_t stable)
{
        struct collect collect = {.env = env, .crdt = crdt, .stable = stable};
        items_collect(&collect, &crdt->fields, collect_field);
        items_collect(&collect, &crdt->members, member_collect);
        list_prune(env, crdt);
        stream_prune(env, crdt);
        bounds_prune(env, crdt);
        return collect.count + zset_collect(env, crdt, stable);
}

bool crdt_forgettable(const struct crdt_env *env, const struct crdt *crdt, uint64_t stable)
{
        (void)env;
        if (crdt_type(crdt) != CRDT_NONE || crdt->evicted || crdt->bound_count > 0 ||
            crdt->fields != NULL || crdt->members != NULL || crdt->list != NULL ||
            crdt->stream != NULL || crdt->zset != NULL)
                return false;
        /* Whoever forgets such a time makes the key anew without a word about it, and whoever has
         * not forgotten it yet lets it strike. */
        if (crdt->expire_at_ms != 0)
                return false;
        uint64_t newest = siblings_newest(crdt);
        newest = crdt->touched > newest ? crdt->touched : newest;
        newest = crdt_stamp(crdt).hlc > newest ? crdt_stamp(crdt).hlc : newest;
        newest = crdt->killed.hlc > newest ? crdt->killed.hlc : newest;
        newest = crdt->born.hlc > newest ? crdt->born.hlc : newest;
        newest = crdt->ttl.hlc > newest ? crdt->ttl.hlc : newest;
        uint64_t counted = counter_newest(&crdt->counter);
        newest = counted > newest ? counted : newest;
        return newest <= stable;
}

/* ---- digest */

static uint64_t digest_stamp(uint64_t hash, struct stamp stamp)
{
        return hash_fnv_u64(hash_fnv_u64(hash, stamp.hlc), stamp.origin);
}

/* A sum over elements, so that their order does not count. */
static uint64_t digest_items(const struct crdt_items *items)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        for (size_t n = 0; n < items_count(items); n++) {
                struct item *item = item_of(table_next(&items->table, &walk));
                const struct crdt_dot *dots = item_dots(item);
                uint64_t hash = hash_fnv(HASH_FNV_START, node_key(&item->node));
                bool any = false;
                for (unsigned i = 0; i < item->one.count; i++) {
                        if (dots[i].removed)
                                continue;
                        hash = hash_fnv_u64(digest_stamp(hash, dot_stamp(dots[i])),
                                            dots[i].removed);
                        any = true;
                }
                sum += any ? hash : 0;
        }
        return sum;
}

uint64_t crdt_digest(const struct crdt *crdt, struct crdt_name name, bool all)
{
        enum crdt_type type = crdt_type(crdt);
        if (!all && type == CRDT_NONE)
                return 0;
        uint64_t hash = hash_fnv_u64(hash_fnv(HASH_FNV_START, name.key), name.db);
        hash = hash_fnv_u64(hash, type);
        hash = hash_fnv_u64(hash, crdt_expire_at(crdt));
        hash = digest_stamp(hash, base_alive(crdt) || all ? crdt->base : (struct stamp){0});
        hash = counter_digest(hash, &crdt->counter, crdt_rival(crdt, CRDT_STRING), all);
        hash = hash_fnv_u64(hash, fields_digest(crdt, all));
        hash = hash_fnv_u64(hash, digest_items(crdt->members));
        for (unsigned i = 0; crdt->siblings != NULL && i < crdt->siblings->count; i++)
                hash = digest_stamp(hash, crdt->siblings->list[i].stamp);
        if (crdt->list != NULL && crdt->list->length > 0)
                hash = hash_fnv_u64(hash, list_digest(crdt->list));
        if (crdt->stream != NULL && crdt->stream->count > 0)
                hash = hash_fnv_u64(hash, stream_digest(crdt->stream));
        uint64_t scores = zset_digest(crdt, all);
        if (scores != 0)
                hash = hash_fnv_u64(hash, scores);
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (all || (i == CRDT_OPAQUE && type == CRDT_OPAQUE))
                        hash = digest_stamp(hash, crdt->last[i]);
        }
        if (!all)
                return hash;
        /* A kill before the base says nothing that the base does not say. */
        bool moot = stamp_before(crdt->killed, crdt->base);
        hash = digest_stamp(hash, moot ? (struct stamp){0} : crdt->killed);
        hash = digest_stamp(hash, crdt->ttl);
        return hash_fnv_u64(hash, crdt->expire_at_ms);
}
