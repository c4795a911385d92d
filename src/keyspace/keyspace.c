/* The table of keys, the clock, looking and counting. A key that only ever saw SET, or SET and DEL,
 * is kept in 27 bytes beside its name, a counter or few elements in a pack beside that; any other
 * history makes it full, and a change that leaves nothing else behind makes it small again. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

#include <stddef.h>

enum {
        RING_BYTES_MIN = 4096,
};

struct keyspace *keyspace_new(struct heap *heap, const struct keyspace_config *config)
{
        if (!region_valid(config->origin) || config->ring_bytes < RING_BYTES_MIN)
                return NULL;
        struct keyspace *keyspace = heap_alloc(heap, sizeof *keyspace);
        if (keyspace == NULL)
                return NULL;
        keyspace->heap = heap;
        keyspace->config = *config;
        keyspace->env = (struct table_env){heap, config->hash_key};
        keyspace->seen.self = config->origin;
        buffer_init(&keyspace->delta, heap);
        buffer_init(&keyspace->text, heap);
        buffer_init(&keyspace->before, heap);
        if (!ring_init(&keyspace->ring, heap, config->ring_bytes)) {
                keyspace_free(keyspace);
                return NULL;
        }
        return keyspace;
}

static size_t entry_size(size_t key_len)
{
        return offsetof(struct entry, key) + key_len;
}

static void entry_fini(struct keyspace *keyspace, struct entry *entry)
{
        if (entry->node.kind == ENTRY_FULL) {
                crdt_fini(&keyspace->env, entry->crdt);
                heap_free(keyspace->heap, entry->crdt);
        } else if (entry->node.kind == ENTRY_PACK) {
                crdt_pack_free(&keyspace->env, entry->pack);
        }
        heap_give(keyspace->heap, entry, entry_size(entry->node.key_len));
        keyspace->freed++;
}

static bool entry_drop(void *context, struct node *node)
{
        entry_fini(context, entry_of(node));
        return true;
}

void keyspace_free(struct keyspace *keyspace)
{
        if (keyspace == NULL)
                return;
        table_sweep(&keyspace->table, entry_drop, keyspace);
        table_fini(&keyspace->env, &keyspace->table);
        ring_fini(&keyspace->ring);
        relay_fini(keyspace);
        buffer_fini(&keyspace->delta);
        buffer_fini(&keyspace->text);
        buffer_fini(&keyspace->before);
        flushes_free(keyspace);
        scan_places_free(keyspace);
        heap_free(keyspace->heap, keyspace);
}

struct entry *entry_find(struct keyspace *keyspace, struct crdt_name name)
{
        struct node *node =
                table_find(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        return node == NULL ? NULL : entry_of(node);
}

struct entry *entry_get(struct keyspace *keyspace, struct crdt_name name)
{
        CHECK(name_fits(name));
        return entry_get_hashed(keyspace, name,
                                table_hash(&keyspace->env, (uint16_t)name.db, name.key));
}

struct entry *entry_get_hashed(struct keyspace *keyspace, struct crdt_name name, uint64_t hash)
{
        struct node *node = table_find_hashed(&keyspace->env, &keyspace->table, hash,
                                              (uint16_t)name.db, name.key);
        if (node != NULL)
                return entry_of(node);
        struct entry *entry = heap_take(keyspace->heap, entry_size(name.key.len));
        if (entry == NULL)
                return NULL;
        entry->node.key_len = (uint32_t)name.key.len;
        entry->node.space = (uint16_t)name.db;
        entry->node.key_at = offsetof(struct entry, key);
        entry->node.kind = ENTRY_STRING;
        if (name.key.len > 0)
                memcpy(entry->key, name.key.ptr, name.key.len);
        if (!table_insert_hashed(&keyspace->env, &keyspace->table, hash, &entry->node)) {
                heap_give(keyspace->heap, entry, entry_size(name.key.len));
                return NULL;
        }
        keyspace->stats.tombstones++;
        return entry;
}

void entry_remove(struct keyspace *keyspace, struct entry *entry)
{
        CHECK(keyspace->stats.tombstones > 0);
        keyspace->stats.tombstones--;
        table_remove(&keyspace->env, &keyspace->table, &entry->node);
        entry_fini(keyspace, entry);
}

const struct crdt *entry_open(const struct keyspace *keyspace, const struct entry *entry,
                              struct crdt *room)
{
        struct stamp stamp = entry_stamp(entry);
        switch ((enum entry_kind)entry->node.kind) {
        case ENTRY_FULL:
                return entry->crdt;
        case ENTRY_PACK:
                return crdt_pack_open(&keyspace->env, entry->pack, stamp, keyspace->hlc.last, room)
                               ? room
                               : NULL;
        case ENTRY_STRING:
                *room = (struct crdt){.base = stamp, .ttl = stamp, .expire_at_ms = entry->more};
                room->last[CRDT_STRING] = stamp;
                return room;
        case ENTRY_DEAD:
                *room = (struct crdt){.killed = stamp, .ttl = stamp};
                room->base = (struct stamp){entry->more, entry->more_origin};
                room->last[CRDT_STRING] = room->base;
                return room;
        }
        UNREACHABLE("every kind is above");
}

void entry_close(const struct keyspace *keyspace, const struct entry *entry, struct crdt *room)
{
        if (entry->node.kind == ENTRY_PACK)
                crdt_fini(&keyspace->env, room);
}

enum err entry_encode(const struct keyspace *keyspace, const struct entry *entry,
                      const struct crdt_env *env, enum crdt_state_kind kind, struct buffer *buffer)
{
        struct crdt room;
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        if (crdt == NULL)
                return ERR_NOMEM;
        enum err err = crdt_state_encode(env, crdt, kind, buffer);
        entry_close(keyspace, entry, &room);
        return err;
}

uint64_t entry_expire_at(const struct entry *entry)
{
        switch ((enum entry_kind)entry->node.kind) {
        case ENTRY_FULL:
                return crdt_expire_at(entry->crdt);
        case ENTRY_PACK:
                return entry_type(entry) == CRDT_NONE ? 0 : crdt_pack_expire_at(entry->pack);
        case ENTRY_STRING:
                return entry->more;
        case ENTRY_DEAD:
                return 0;
        }
        UNREACHABLE("every kind is above");
}

enum crdt_type entry_type(const struct entry *entry)
{
        if (entry->node.kind == ENTRY_FULL)
                return crdt_type(entry->crdt);
        if (entry->node.kind == ENTRY_PACK)
                return crdt_pack_type(entry->pack);
        bool there = entry->node.kind == ENTRY_STRING && entry->hlc != 0;
        return there ? CRDT_STRING : CRDT_NONE;
}

struct crdt *entry_full(struct keyspace *keyspace, struct entry *entry)
{
        if (entry->node.kind == ENTRY_FULL)
                return entry->crdt;
        struct crdt *crdt = heap_alloc(keyspace->heap, sizeof *crdt);
        if (crdt == NULL)
                return NULL;
        struct crdt room;
        const struct crdt *now = entry_open(keyspace, entry, &room);
        if (now == NULL) {
                heap_free(keyspace->heap, crdt);
                return NULL;
        }
        *crdt = *now; /* and takes what is behind it */
        if (entry->node.kind == ENTRY_PACK)
                crdt_pack_free(&keyspace->env, entry->pack);
        entry->crdt = crdt;
        entry->node.kind = ENTRY_FULL;
        return crdt;
}

static bool stamp_equal(struct stamp a, struct stamp b)
{
        return stamp_compare(a, b) == 0;
}

/* True where all that is known is one string write and perhaps a kill after it. */
static bool crdt_is_plain(const struct crdt *crdt)
{
        return crdt->fields == NULL && crdt->members == NULL && crdt->list == NULL &&
               crdt->stream == NULL && crdt->counter.count_count == 0 && crdt->bound_count == 0 &&
               crdt->last[CRDT_HASH].hlc == 0 && crdt->last[CRDT_SET].hlc == 0 &&
               crdt->last[CRDT_OPAQUE].hlc == 0 && crdt->siblings == NULL &&
               crdt->last[CRDT_SIBLINGS].hlc == 0 && crdt->last[CRDT_LIST].hlc == 0 &&
               crdt->hll == NULL && crdt->last[CRDT_HLL].hlc == 0 &&
               crdt->last[CRDT_STREAM].hlc == 0 && crdt->born.hlc == 0 && crdt->zset == NULL &&
               crdt->last[CRDT_ZSET].hlc == 0 && stamp_equal(crdt->last[CRDT_STRING], crdt->base) &&
               crdt->counter.base_kind == CRDT_BASE_NATIVE && !crdt->evicted && !crdt->partial &&
               !crdt->opaque_lost;
}

static void entry_pack_elements(struct keyspace *keyspace, struct entry *entry)
{
        struct stamp last;
        struct crdt *crdt = entry->crdt;
        struct crdt_pack *pack = crdt_pack_make(&keyspace->env, crdt, &last);
        if (pack == NULL)
                return;
        entry->node.kind = ENTRY_PACK;
        entry->pack = pack;
        entry->hlc = last.hlc;
        entry->origin = last.origin;
        crdt_fini(&keyspace->env, crdt);
        heap_free(keyspace->heap, crdt);
}

void entry_pack(struct keyspace *keyspace, struct entry *entry)
{
        if (entry->node.kind != ENTRY_FULL)
                return;
        if (!crdt_is_plain(entry->crdt)) {
                entry_pack_elements(keyspace, entry);
                return;
        }
        struct crdt *crdt = entry->crdt;
        bool alive = stamp_before(crdt->killed, crdt->base);
        struct stamp stamp = alive ? crdt->base : crdt->killed;
        if (!stamp_equal(crdt->ttl, stamp) || (!alive && crdt->expire_at_ms != 0)) {
                entry_pack_elements(keyspace, entry);
                return;
        }
        entry->node.kind = alive ? ENTRY_STRING : ENTRY_DEAD;
        entry->hlc = stamp.hlc;
        entry->origin = stamp.origin;
        entry->more = alive ? crdt->expire_at_ms : crdt->base.hlc;
        entry->more_origin = alive ? 0 : crdt->base.origin;
        crdt_fini(&keyspace->env, crdt);
        heap_free(keyspace->heap, crdt);
}

void entry_count(struct keyspace *keyspace, enum crdt_type was, enum crdt_type now)
{
        if ((was == CRDT_NONE) == (now == CRDT_NONE))
                return;
        uint64_t *less = was == CRDT_NONE ? &keyspace->stats.tombstones : &keyspace->stats.keys;
        uint64_t *more = was == CRDT_NONE ? &keyspace->stats.keys : &keyspace->stats.tombstones;
        CHECK(*less > 0);
        *less -= 1;
        *more += 1;
}

struct crdt_env keyspace_env(const struct keyspace *keyspace, const struct crdt_native *native,
                             struct crdt_name name)
{
        return (struct crdt_env){.table = keyspace->env,
                                 .native = native,
                                 .name = name,
                                 .seen = &keyspace->seen,
                                 .level = keyspace->config.several ? &keyspace->level : NULL,
                                 .settled = scan_under_way(keyspace) ? &keyspace->settled : NULL};
}

/* Before the first stamp or position of a life that nobody began: it will be `high` or later. */
static void life_begin(struct keyspace *keyspace, uint64_t high)
{
        if (keyspace->issued)
                return;
        keyspace->recovered = keyspace_recovered(keyspace);
        keyspace->issued = true;
        keyspace->first = high;
}

uint64_t keyspace_stamps(struct keyspace *keyspace, uint64_t wall_ms, unsigned count)
{
        CHECK(count > 0);
        uint64_t hlc = hlc_now(&keyspace->hlc, wall_ms);
        CHECK(hlc > vector_get(&keyspace->seen.vector, keyspace->config.origin));
        CHECK(hlc <= UINT64_MAX - count);
        life_begin(keyspace, hlc);
        keyspace->hlc.last += count - 1;
        return hlc;
}

struct stamp keyspace_issue(struct keyspace *keyspace, uint64_t wall_ms)
{
        region_id self = keyspace->config.origin;
        uint64_t hlc = keyspace_stamps(keyspace, wall_ms, 1);
        vector_advance(&keyspace->seen.vector, self, hlc);
        return (struct stamp){hlc, self};
}

uint64_t keyspace_idle(struct keyspace *keyspace, uint64_t wall_ms)
{
        region_id self = keyspace->config.origin;
        uint64_t wall = hlc_of_ms(wall_ms);
        keyspace->hlc.last = wall > keyspace->hlc.last ? wall : keyspace->hlc.last;
        life_begin(keyspace, keyspace->hlc.last + 1);
        vector_advance(&keyspace->seen.vector, self, keyspace->hlc.last);
        return vector_get(&keyspace->seen.vector, self);
}

const struct vector *keyspace_positions(const struct keyspace *keyspace)
{
        return &keyspace->seen.vector;
}

uint64_t keyspace_recovered(const struct keyspace *keyspace)
{
        return keyspace->issued ? keyspace->recovered
                                : vector_get(&keyspace->seen.vector, keyspace->config.origin);
}

uint64_t keyspace_first(const struct keyspace *keyspace)
{
        return keyspace->issued ? keyspace->first : 0;
}

uint64_t keyspace_ring_first(const struct keyspace *keyspace)
{
        return ring_first(&keyspace->ring);
}

uint64_t keyspace_ring_last(const struct keyspace *keyspace)
{
        return keyspace->ring.count == 0 ? 0 : keyspace->ring.last;
}

void keyspace_unlogged(struct keyspace *keyspace, uint64_t clock)
{
        if (clock == 0)
                ring_forget(&keyspace->ring,
                            vector_get(&keyspace->seen.vector, keyspace->config.origin));
        else
                ring_cut(&keyspace->ring, clock);
}

static struct keyspace_key key_of(const struct entry *entry)
{
        struct stamp stamp = entry_stamp(entry);
        if (entry->node.kind == ENTRY_FULL)
                stamp = crdt_stamp(entry->crdt);
        else if (entry->node.kind == ENTRY_DEAD)
                stamp = (struct stamp){entry->more, entry->more_origin};
        return (struct keyspace_key){.name = entry_name(entry),
                                     .type = entry_type(entry),
                                     .expire_at_ms = entry_expire_at(entry),
                                     .stamp = stamp};
}

bool keyspace_find(const struct keyspace *keyspace, struct crdt_name name, struct keyspace_key *ret)
{
        struct node *node = NULL;
        if (name_fits(name))
                node = table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        if (node == NULL) {
                *ret = (struct keyspace_key){.name = name, .type = CRDT_NONE};
                return false;
        }
        *ret = key_of(entry_of(node));
        return true;
}

struct each {
        void (*each)(void *context, const struct keyspace_key *key);
        void *context;
};

static void each_entry(void *context, struct node *node)
{
        const struct each *each = context;
        struct keyspace_key key = key_of(entry_of(node));
        each->each(each->context, &key);
}

uint64_t keyspace_each(const struct keyspace *keyspace, uint64_t cursor, size_t steps,
                       void (*each)(void *context, const struct keyspace_key *key), void *context)
{
        struct each wrap = {each, context};
        for (size_t i = 0; i < steps; i++) {
                cursor = table_scan(&keyspace->table, cursor, each_entry, &wrap);
                if (cursor == 0)
                        break;
        }
        return cursor;
}

static uint64_t entry_digest(const struct keyspace *keyspace, const struct entry *entry)
{
        struct crdt room;
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        uint64_t digest = crdt == NULL ? 0 : crdt_digest(crdt, entry_name(entry), false);
        if (crdt != NULL)
                entry_close(keyspace, entry, &room);
        return digest;
}

uint64_t keyspace_digest(const struct keyspace *keyspace)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL; node = table_next(&keyspace->table, &walk)) {
                sum += entry_digest(keyspace, entry_of(node));
        }
        return sum;
}

uint64_t keyspace_key_digest(const struct keyspace *keyspace, struct crdt_name name)
{
        struct node *node = NULL;
        if (name_fits(name))
                node = table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        return node == NULL ? 0 : entry_digest(keyspace, entry_of(node));
}

struct keyspace_behind keyspace_behind(const struct keyspace *keyspace, region_id region)
{
        region_id self = keyspace->config.origin;
        if (!region_valid(region) || region == self || !member_is(keyspace, region))
                return (struct keyspace_behind){0};
        uint64_t known = vector_get(&keyspace->known[region], self);
        uint64_t acked = vector_get(&keyspace->acked, region);
        acked = known > acked ? known : acked;
        struct ring_rest rest = ring_rest(&keyspace->ring, acked);
        return (struct keyspace_behind){.member = true,
                                        .state = acked < keyspace->ring.dropped,
                                        .acked = acked,
                                        .deltas = rest.count,
                                        .bytes = rest.bytes,
                                        .oldest = rest.first};
}

struct keyspace_stats keyspace_stats(const struct keyspace *keyspace)
{
        struct keyspace_stats stats = keyspace->stats;
        stats.bytes = keyspace->heap->used_bytes;
        stats.ring_bytes = keyspace->ring.head - keyspace->ring.tail;
        stats.ring_count = keyspace->ring.count;
        return stats;
}

enum err keyspace_key_gone(struct keyspace *keyspace, struct crdt_name name)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (entry == NULL || entry_type(entry) == CRDT_NONE)
                return ERR_NONE;
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        enum crdt_type was = crdt_type(crdt);
        crdt_evict(&keyspace->env, crdt);
        crdt->touched = keyspace->hlc.last;
        entry_count(keyspace, was, crdt_type(crdt));
        return ERR_NONE;
}

/* ---- tombstones */

enum err keyspace_members(struct keyspace *keyspace, const region_id *regions, size_t count)
{
        uint64_t members = 0;
        for (size_t i = 0; i < count; i++) {
                if (!region_valid(regions[i]))
                        return ERR_INVALID;
                members |= 1ull << (regions[i] - 1);
        }
        keyspace->members = members | 1ull << (keyspace->config.origin - 1);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (!member_is(keyspace, i)) /* it is heard no more */
                        vector_advance(&keyspace->level, (region_id)i,
                                       vector_get(&keyspace->seen.vector, (region_id)i));
        }
        keyspace->settled = (struct vector){{0}};
        return ERR_NONE;
}

void keyspace_acked(struct keyspace *keyspace, region_id region, uint64_t position)
{
        if (region_valid(region))
                vector_advance(&keyspace->acked, region, position);
}

bool member_is(const struct keyspace *keyspace, unsigned region)
{
        return (keyspace->members >> (region - 1) & 1) != 0;
}

uint64_t keyspace_solid(const struct keyspace *keyspace, region_id origin)
{
        uint64_t solid = seen_solid(&keyspace->seen, origin);
        uint64_t level = vector_get(&keyspace->level, origin);
        bool all = !keyspace->config.several || origin == keyspace->config.origin;
        return all || solid < level ? solid : level;
}

/* Only what a member has told in its stream counts: what it wrote before it had seen that much has
 * come by then. An acknowledgement comes by another way, and ahead of such writes. */
static uint64_t member_knows(const struct keyspace *keyspace, region_id member, region_id origin)
{
        if (member == keyspace->config.origin)
                return keyspace_solid(keyspace, origin);
        return vector_get(&keyspace->known[member], origin);
}

uint64_t keyspace_known_to_all(const struct keyspace *keyspace, region_id origin)
{
        uint64_t least = UINT64_MAX;
        for (unsigned member = 1; member <= CLOCK_REGIONS_MAX; member++) {
                if (!member_is(keyspace, member))
                        continue;
                uint64_t known = member_knows(keyspace, (region_id)member, origin);
                least = known < least ? known : least;
        }
        return least;
}

uint64_t keyspace_stable(const struct keyspace *keyspace)
{
        uint64_t stable =
                keyspace->members == 0 ? 0 : seen_solid(&keyspace->seen, keyspace->config.origin);
        for (unsigned origin = 1; origin <= CLOCK_REGIONS_MAX && stable > 0; origin++) {
                if (!member_is(keyspace, origin) && removed_settled(keyspace, (region_id)origin))
                        continue;
                uint64_t known = keyspace_known_to_all(keyspace, (region_id)origin);
                stable = known < stable ? known : stable;
        }
        return stable;
}

uint64_t keyspace_kills_known(const struct keyspace *keyspace)
{
        uint64_t stable = keyspace_stable(keyspace);
        return stable > keyspace->collected_to ? stable : keyspace->collected_to;
}

enum {
        COLLECT_BATCH = 64,
};

struct collect {
        struct keyspace *keyspace;
        uint64_t stable;
        uint64_t collected;
        unsigned count;
        struct entry *forget[COLLECT_BATCH];
};

static void collect_entry(void *context, struct node *node)
{
        struct collect *collect = context;
        struct keyspace *keyspace = collect->keyspace;
        struct entry *entry = entry_of(node);
        struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
        struct crdt room;
        if (entry->node.kind == ENTRY_PACK) {
                collect->collected +=
                        crdt_pack_collect(&keyspace->env, &entry->pack, collect->stable);
                /* A pack does not know when it was emptied: it counts as now. */
                if (entry_type(entry) != CRDT_NONE || entry_full(keyspace, entry) == NULL)
                        return;
        }
        if (entry->node.kind == ENTRY_FULL)
                collect->collected += crdt_collect(&env, entry->crdt, collect->stable);
        if (collect->count < COLLECT_BATCH &&
            crdt_forgettable(&env, entry_open(keyspace, entry, &room), collect->stable))
                collect->forget[collect->count++] = entry;
}

/* What a change has pointed to is not borrowed any more. */
static void scratch_trim(struct keyspace *keyspace)
{
        struct buffer *all[] = {&keyspace->delta, &keyspace->text, &keyspace->before};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                if (all[i]->size > SCRATCH_KEEP_BYTES)
                        buffer_trim(all[i], SCRATCH_KEEP_BYTES);
        }
}

static void settle(struct keyspace *keyspace)
{
        if (!scan_under_way(keyspace))
                return;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                keyspace->settled.hlc[i] =
                        keyspace->members == 0 ? 0 : keyspace_known_to_all(keyspace, (region_id)i);
}

uint64_t keyspace_collect(struct keyspace *keyspace, size_t steps)
{
        settle(keyspace);
        struct collect collect = {.keyspace = keyspace, .stable = keyspace_stable(keyspace)};
        flushes_prune(keyspace);
        scratch_trim(keyspace);
        if (collect.stable == 0)
                return 0;
        if (collect.stable > keyspace->collected_to)
                keyspace->collected_to = collect.stable;
        for (size_t i = 0; i < steps; i++) {
                keyspace->collect_cursor = table_scan(&keyspace->table, keyspace->collect_cursor,
                                                      collect_entry, &collect);
                for (; collect.count > 0; collect.collected++)
                        entry_remove(keyspace, collect.forget[--collect.count]);
                if (keyspace->collect_cursor == 0)
                        break;
        }
        keyspace->stats.collected += collect.collected;
        return collect.collected;
}
