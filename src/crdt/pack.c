/* Packs made and opened again. What does not fit is left as it is: making one fails without harm,
 * opening one by running out of memory alone. */
#include "crdt/pack_priv.h"

#include "crdt/zset.h"

#include "base/check.h"
#include "base/put.h"

_Static_assert(CRDT_PACK_ELEMENTS_MAX <= UINT8_MAX, "counted in a byte");
_Static_assert(CRDT_PACK_NAME_MAX <= UINT8_MAX, "length in a byte");
_Static_assert(CLOCK_REGIONS_MAX <= ORIGIN_BITS + 1, "origins fit beside two flags");

enum {
        MAKE_ELEMENTS_MAX = CRDT_PACK_ELEMENTS_MAX * CRDT_PACK_MAKE_PERCENT / 100,
        MAKE_BYTES_MAX = CRDT_PACK_BYTES_MAX * CRDT_PACK_MAKE_PERCENT / 100,
};

static const enum crdt_type types[] = {
        [PACK_COUNTER] = CRDT_STRING, [PACK_HASH] = CRDT_HASH, [PACK_SET] = CRDT_SET,
        [PACK_LIST] = CRDT_LIST,      [PACK_ZSET] = CRDT_ZSET, [PACK_BRIEF] = CRDT_STRING,
        [PACK_STRING] = CRDT_STRING,
};

size_t pack_size(size_t len)
{
        size_t total = offsetof(struct crdt_pack, bytes) + len;
        size_t size = 64;
        if (total <= size)
                return (total + 15) & ~(size_t)15;
        while (size < total && size / 2 * 3 < total)
                size *= 2;
        return size < total ? size / 2 * 3 : size;
}

void crdt_pack_free(const struct table_env *env, struct crdt_pack *pack)
{
        bool brief = pack_type(pack) == PACK_BRIEF;
        heap_give(env->heap, pack, brief ? BRIEF_SIZE : pack_size(pack->len));
}

/* ---- making */

struct writer {
        struct crdt_pack *pack;
        uint8_t *at;
        const uint8_t *end;
        bool full;
};

static uint8_t *writer_room(struct writer *writer, size_t len)
{
        if (writer->full || len > (size_t)(writer->end - writer->at)) {
                writer->full = true;
                return NULL;
        }
        writer->at += len;
        return writer->at - len;
}

static void write_u8(struct writer *writer, uint8_t value)
{
        uint8_t *at = writer_room(writer, 1);
        if (at != NULL)
                *at = value;
}

static void write_u64(struct writer *writer, uint64_t value)
{
        uint8_t *at = writer_room(writer, 8);
        if (at != NULL)
                u64_write(at, value);
}

static void write_dot(struct writer *writer, struct stamp stamp, uint8_t flags)
{
        uint8_t *at = writer_room(writer, DOT_LEN);
        if (at != NULL)
                dot_write_at(at, stamp, flags);
}

static uint64_t varint_read(const uint8_t **at)
{
        uint64_t value = 0;
        unsigned shift = 0;
        for (; (**at & 0x80) != 0; shift += 7)
                value |= (uint64_t)(*(*at)++ & 0x7f) << shift;
        return value | (uint64_t) * (*at)++ << shift;
}

struct list_run pack_run_read(const uint8_t **at)
{
        struct list_run run = {.stamp = dot_read_at(*at), .kind = (enum list_kind)(**at >> 6)};
        *at += DOT_LEN;
        run.first = (uint32_t)varint_read(at);
        run.count = (uint32_t)varint_read(at);
        return run;
}

uint8_t *pack_run_write(uint8_t *at, struct list_run run)
{
        dot_write_at(at, run.stamp, (uint8_t)(run.kind << 6));
        return put_varint(put_varint(at + DOT_LEN, run.first), run.count);
}

static void part_make(struct writer *writer, const struct crdt_count *count, struct stamp last,
                      bool lives)
{
        static const double zero;
        struct stamp stamp = {count->hlc, count->origin};
        bool is_last = stamp_compare(stamp, last) == 0;
        if (memcmp(&count->total.part, &zero, sizeof zero) != 0 ||
            memcmp(&count->cut.part, &zero, sizeof zero) != 0) {
                writer->full = true; /* a float */
                return;
        }
        bool cut = count->cut.whole != 0;
        write_u8(writer,
                 (uint8_t)((count->origin - 1) | (is_last ? PART_LAST : 0) | (cut ? PART_CUT : 0)));
        if (lives)
                write_u8(writer, count->life);
        if (!is_last)
                write_u64(writer, count->hlc);
        write_u64(writer, count->total.whole);
        write_u64(writer, count->cut_hlc);
        if (cut)
                write_u64(writer, count->cut.whole);
}

static void counter_make(struct writer *writer, const struct crdt *crdt, struct stamp last)
{
        const struct crdt_counter *counter = &crdt->counter;
        if ((counter->base_kind != CRDT_BASE_NATIVE && counter->base_kind != CRDT_BASE_INT) ||
            counter->count_count == 0) {
                writer->full = true;
                return;
        }
        bool lives = false;
        for (unsigned i = 0; i < counter->count_count; i++)
                lives = lives || counter->counts[i].life != 0;
        write_u8(writer, (uint8_t)(counter->base_kind | (lives ? COUNTER_LIVES : 0)));
        if (stamp_is(crdt->base)) {
                writer->pack->flags |= PACK_BASED;
                write_dot(writer, crdt->base, 0);
        }
        if (counter->base_kind == CRDT_BASE_INT)
                write_u64(writer, (uint64_t)counter->base_int);
        writer->pack->count = counter->count_count;
        for (unsigned i = 0; i < counter->count_count; i++)
                part_make(writer, &counter->counts[i], last, lives);
}

/* Removals that are remembered of a set's member do not fit. */
static bool element_fits(struct item *item, bool set)
{
        if (item->node.kind != ITEM_PLAIN || item->node.key_len > CRDT_PACK_NAME_MAX ||
            item->one.count == 0)
                return false;
        for (unsigned i = 0; set && i < item->one.count; i++) {
                if (item_dots(item)[i].removed)
                        return false;
        }
        return true;
}

static void items_make(struct writer *writer, const struct crdt_items *items, bool set)
{
        struct table_walk walk = {0};
        if (items == NULL || items->live == 0 || items->table.count > MAKE_ELEMENTS_MAX ||
            items->tallies > 0) {
                writer->full = true;
                return;
        }
        writer->pack->live = (uint8_t)items->live;
        writer->pack->count = (uint8_t)items->table.count;
        struct node *node = table_next(&items->table, &walk);
        for (; node != NULL && !writer->full; node = table_next(&items->table, &walk)) {
                struct item *item = item_of(node);
                if (!element_fits(item, set)) {
                        writer->full = true;
                        return;
                }
                write_u8(writer, (uint8_t)node->key_len);
                for (unsigned i = 0; i < item->one.count; i++) {
                        const struct crdt_dot *dot = &item_dots(item)[i];
                        write_dot(writer, dot_stamp(*dot),
                                  (uint8_t)((dot->removed ? DOT_REMOVED : 0) |
                                            (i + 1u < item->one.count ? DOT_MORE : 0)));
                }
                uint8_t *at = writer_room(writer, node->key_len);
                if (at != NULL && node->key_len > 0)
                        memcpy(at, node_key(node).ptr, node->key_len);
        }
}

static void list_make(struct writer *writer, const struct crdt_list *list)
{
        struct list_at at = {0};
        unsigned count = 0;
        if (list == NULL || list->length == 0 || list->gone.count > 0 || list->values.count > 0 ||
            list->places.count > 0) {
                writer->full = true;
                return;
        }
        struct list_run run = list_next(list, &at);
        for (; run.count > 0 && !writer->full; run = list_next(list, &at)) {
                uint8_t *room = writer_room(writer, RUN_LEN_MAX);
                if (room == NULL || count == MAKE_ELEMENTS_MAX) {
                        writer->full = true;
                        return;
                }
                writer->at = pack_run_write(room, run);
                count++;
        }
        writer->pack->count = (uint8_t)count;
}

/* Of members that have one dot and no increments. */
static void zset_make(struct writer *writer, const struct crdt_zset *zset)
{
        struct table_walk walk = {0};
        if (zset == NULL || zset->table.count == 0 || zset->table.count > MAKE_ELEMENTS_MAX) {
                writer->full = true;
                return;
        }
        writer->pack->live = (uint8_t)zset->table.count;
        writer->pack->count = (uint8_t)zset->table.count;
        struct node *node = table_next(&zset->table, &walk);
        for (; node != NULL && !writer->full; node = table_next(&zset->table, &walk)) {
                const struct zset_member *member = zset_member_of(node);
                if (member->more != NULL || member->one.count != 1 || member->one.removed ||
                    node->key_len > CRDT_PACK_NAME_MAX) {
                        writer->full = true;
                        return;
                }
                write_u8(writer, (uint8_t)node->key_len);
                write_dot(writer, zset_stamp(&member->one), 0);
                uint8_t *at = writer_room(writer, sizeof member->one.score + node->key_len);
                if (at == NULL)
                        return;
                memcpy(at, &member->one.score, sizeof member->one.score);
                if (node->key_len > 0)
                        memcpy(at + sizeof member->one.score, node_key(node).ptr, node->key_len);
        }
}

/* The only type of which anything is known; false where it is not one that is packed. */
static bool only_type(const struct crdt *crdt, enum pack_type *ret)
{
        unsigned known = 0;
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++)
                known |= (unsigned)stamp_is(crdt->last[i]) << i;
        for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
                if (known != 1u << types[i])
                        continue;
                *ret = (enum pack_type)i;
                return true;
        }
        return false;
}

/* Nothing is there but key-level stamps and the part of that type. */
static bool only_part(const struct crdt *crdt, enum pack_type type)
{
        bool counter = type == PACK_COUNTER;
        bool base = stamp_is(crdt->base) || crdt->counter.count_count > 0 ||
                    crdt->counter.base_kind != CRDT_BASE_NATIVE;
        return !crdt->evicted && !crdt->partial && !crdt->opaque_lost && crdt->bound_count == 0 &&
               !stamp_is(crdt->born) && crdt->siblings == NULL && crdt->hll == NULL &&
               crdt->stream == NULL && (crdt->zset == NULL || type == PACK_ZSET) &&
               (counter || !base) && (crdt->fields == NULL || type == PACK_HASH) &&
               (crdt->members == NULL || type == PACK_SET) &&
               (crdt->list == NULL || type == PACK_LIST);
}

static void body_make(struct writer *writer, const struct crdt *crdt, enum pack_type type,
                      struct stamp last)
{
        switch (type) {
        case PACK_COUNTER:
                counter_make(writer, crdt, last);
                break;
        case PACK_HASH:
                items_make(writer, crdt->fields, false);
                break;
        case PACK_SET:
                items_make(writer, crdt->members, true);
                break;
        case PACK_LIST:
                list_make(writer, crdt->list);
                break;
        case PACK_ZSET:
                zset_make(writer, crdt->zset);
                break;
        case PACK_STRING:
                break;
        case PACK_BRIEF:
                UNREACHABLE("brief_make makes it");
        }
}

static struct crdt_pack *brief_new(const struct table_env *env, struct stamp stamp, uint8_t life,
                                   int64_t total)
{
        struct crdt_pack *pack = heap_take(env->heap, BRIEF_SIZE);
        if (pack == NULL)
                return NULL;
        pack->ttl_hlc = stamp.hlc;
        pack->ttl_origin = stamp.origin;
        pack->flags = (uint8_t)(PACK_BRIEF | life << BRIEF_LIFE_AT);
        brief_write(pack, total);
        return pack;
}

/* Whether all that is known is told by a brief one. */
static bool is_brief(const struct crdt *crdt, struct stamp last)
{
        static const double zero;
        const struct crdt_count *part = crdt->counter.counts;
        return crdt->counter.count_count == 1 && crdt->counter.base_kind == CRDT_BASE_NATIVE &&
               !stamp_is(crdt->base) && !stamp_is(crdt->killed) && crdt->expire_at_ms == 0 &&
               part->hlc == last.hlc && part->origin == last.origin &&
               part->origin == crdt->ttl.origin && part->cut_hlc + 1 == crdt->ttl.hlc &&
               part->cut.whole == 0 && memcmp(&part->cut.part, &zero, sizeof zero) == 0 &&
               memcmp(&part->total.part, &zero, sizeof zero) == 0 &&
               brief_fits((int64_t)part->total.whole);
}

/* Most that are kept whole are that, and are asked at each change. */
static bool is_large(const struct crdt *crdt)
{
        return (crdt->zset != NULL && crdt->zset->table.count > MAKE_ELEMENTS_MAX) ||
               (crdt->fields != NULL && crdt->fields->table.count > MAKE_ELEMENTS_MAX) ||
               (crdt->members != NULL && crdt->members->table.count > MAKE_ELEMENTS_MAX);
}

/* Nothing has been added to the last SET. */
static bool is_string(const struct crdt *crdt, struct stamp last)
{
        return crdt->counter.count_count == 0 && crdt->counter.base_kind == CRDT_BASE_NATIVE &&
               stamp_compare(crdt->base, last) == 0;
}

struct crdt_pack *crdt_pack_make(const struct table_env *env, const struct crdt *crdt,
                                 struct stamp *ret_last)
{
        union {
                struct crdt_pack pack;
                uint64_t aligned[MAKE_BYTES_MAX / sizeof(uint64_t) + 2];
        } room;
        enum pack_type type = PACK_COUNTER;
        if (is_large(crdt) || crdt->open || !only_type(crdt, &type) || !only_part(crdt, type) ||
            crdt_type(crdt) != types[type])
                return NULL;
        struct stamp last = crdt->last[types[type]];
        if (type == PACK_COUNTER && is_string(crdt, last))
                type = PACK_STRING;
        if (type == PACK_COUNTER && is_brief(crdt, last)) {
                *ret_last = last;
                return brief_new(env, crdt->ttl, crdt->counter.counts->life,
                                 (int64_t)crdt->counter.counts->total.whole);
        }
        uint8_t *bytes = (uint8_t *)&room + offsetof(struct crdt_pack, bytes);
        struct writer writer = {&room.pack, bytes, bytes + MAKE_BYTES_MAX, false};
        room.pack = (struct crdt_pack){
                .ttl_hlc = crdt->ttl.hlc, .ttl_origin = crdt->ttl.origin, .flags = (uint8_t)type};
        if (crdt->expire_at_ms != 0) {
                room.pack.flags |= PACK_EXPIRES;
                write_u64(&writer, crdt->expire_at_ms);
        }
        if (stamp_is(crdt->killed)) {
                room.pack.flags |= PACK_KILLED;
                write_dot(&writer, crdt->killed, 0);
        }
        body_make(&writer, crdt, type, last);
        size_t len = (size_t)(writer.at - bytes);
        struct crdt_pack *pack = writer.full ? NULL : heap_take(env->heap, pack_size(len));
        if (pack == NULL)
                return NULL;
        room.pack.len = (uint16_t)len;
        memcpy(pack, &room, offsetof(struct crdt_pack, bytes) + len);
        *ret_last = last;
        return pack;
}

static struct crdt_pack *pack_new(const struct table_env *env, enum pack_type type, size_t len,
                                  struct stamp stamp)
{
        struct crdt_pack *pack = heap_take(env->heap, pack_size(len));
        if (pack == NULL)
                return NULL;
        *pack = (struct crdt_pack){.ttl_hlc = stamp.hlc,
                                   .ttl_origin = stamp.origin,
                                   .flags = (uint8_t)type,
                                   .len = (uint16_t)len};
        return pack;
}

struct crdt_pack *crdt_pack_new(const struct table_env *env, enum crdt_type type,
                                struct stamp stamp)
{
        unsigned i = PACK_HASH;
        while (types[i] != type)
                i++;
        return pack_new(env, (enum pack_type)i, 0, stamp);
}

struct crdt_pack *crdt_pack_string_new(const struct table_env *env, struct stamp ttl,
                                       uint64_t expire_at_ms)
{
        struct crdt_pack *pack = pack_new(env, PACK_STRING, expire_at_ms != 0 ? 8 : 0, ttl);
        if (pack == NULL || expire_at_ms == 0)
                return pack;
        pack->flags |= PACK_EXPIRES;
        u64_write(pack->bytes, expire_at_ms);
        return pack;
}

/* Up to the increment everything is cut: others may remember what has been forgotten here. */
struct crdt_pack *crdt_pack_count_new(const struct table_env *env, struct stamp stamp, uint8_t life,
                                      int64_t amount, struct crdt_count *ret)
{
        *ret = (struct crdt_count){.hlc = stamp.hlc,
                                   .total = {(uint64_t)amount, 0},
                                   .cut_hlc = stamp.hlc - 1,
                                   .origin = stamp.origin,
                                   .life = life};
        if (brief_fits(amount))
                return brief_new(env, stamp, life, amount);
        size_t at = life != 0 ? 3 : 2;
        struct crdt_pack *pack = pack_new(env, PACK_COUNTER, at + 16, stamp);
        if (pack == NULL)
                return NULL;
        pack->count = 1;
        pack->bytes[0] = (uint8_t)(CRDT_BASE_NATIVE | (life != 0 ? COUNTER_LIVES : 0));
        pack->bytes[1] = (uint8_t)(PART_LAST | (stamp.origin - 1));
        if (life != 0)
                pack->bytes[2] = life;
        u64_write(pack->bytes + at, ret->total.whole);
        u64_write(pack->bytes + at + 8, ret->cut_hlc);
        return pack;
}

/* ---- opening */

static bool counter_open(const struct table_env *env, const struct crdt_pack *pack,
                         struct stamp last, struct crdt *crdt)
{
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        struct crdt_counter *counter = &crdt->counter;
        bool lives = (*at & COUNTER_LIVES) != 0;
        counter->base_kind = *at++ & (uint8_t)~COUNTER_LIVES;
        if ((pack->flags & PACK_BASED) != 0) {
                crdt->base = dot_read_at(at);
                at += DOT_LEN;
        }
        if (counter->base_kind == CRDT_BASE_INT) {
                counter->base_int = (int64_t)u64_read(at);
                at += 8;
        }
        counter->counts = heap_alloc_array(env->heap, pack->count, sizeof *counter->counts);
        if (counter->counts == NULL)
                return false;
        counter->count_count = pack->count;
        for (unsigned i = 0; i < pack->count; i++) {
                struct crdt_count *count = &counter->counts[i];
                uint8_t tag = *at++;
                count->origin = (region_id)((tag & ORIGIN_BITS) + 1);
                count->life = lives ? *at++ : 0;
                count->hlc = last.hlc;
                if ((tag & PART_LAST) == 0) {
                        count->hlc = u64_read(at);
                        at += 8;
                }
                count->total.whole = u64_read(at);
                count->cut_hlc = u64_read(at + 8);
                at += 16;
                if ((tag & PART_CUT) != 0) {
                        count->cut.whole = u64_read(at);
                        at += 8;
                }
        }
        return true;
}

static bool brief_open(const struct table_env *env, const struct crdt_pack *pack, struct stamp last,
                       struct crdt *crdt)
{
        struct crdt_counter *counter = &crdt->counter;
        counter->counts = heap_alloc_array(env->heap, 1, sizeof *counter->counts);
        if (counter->counts == NULL)
                return false;
        counter->base_kind = CRDT_BASE_NATIVE;
        counter->count_count = 1;
        brief_part(pack, last, brief_total(pack), &counter->counts[0]);
        return true;
}

static bool items_open(const struct table_env *env, const struct crdt_pack *pack,
                       struct crdt_items **slot)
{
        struct crdt_env change = {.table = *env};
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        for (unsigned i = 0; i < pack->count; i++) {
                const uint8_t *dot = at + 1;
                struct bytes name = bytes_of(dot + dots_len(dot), at[0]);
                struct item *item = items_add(&change, slot, name, items_hash(&change, name));
                if (item == NULL)
                        return false;
                at += element_len(pack, at);
                bool more = true;
                for (; more && change.err == ERR_NONE; dot += DOT_LEN) {
                        more = (*dot & DOT_MORE) != 0;
                        item_dot_put(&change, item, dot_read_at(dot), (*dot & DOT_REMOVED) != 0);
                }
                if (change.err != ERR_NONE)
                        return false;
        }
        if (*slot != NULL)
                (*slot)->live = pack->live;
        return true;
}

static bool list_open(const struct table_env *env, const struct crdt_pack *pack,
                      struct crdt_list **slot)
{
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        if (pack->count == 0)
                return true;
        *slot = heap_alloc(env->heap, sizeof **slot);
        for (unsigned i = 0; *slot != NULL && i < pack->count; i++) {
                struct list_at end = list_seek(*slot, (*slot)->length);
                if (!list_put(env->heap, *slot, end, pack_run_read(&at)))
                        return false;
        }
        return *slot != NULL;
}

static bool zset_open(const struct table_env *env, const struct crdt_pack *pack, struct crdt *crdt)
{
        struct crdt_env change = {.table = *env};
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        for (unsigned i = 0; i < pack->count && change.err == ERR_NONE; i++) {
                const uint8_t *score = at + 1 + DOT_LEN;
                struct bytes name = bytes_of(score + sizeof(double), at[0]);
                zset_load(&change, crdt, name, dot_read_at(at + 1), score_read_at(score));
                at += element_len(pack, at);
        }
        return change.err == ERR_NONE;
}

static bool body_open(const struct table_env *env, const struct crdt_pack *pack, struct stamp last,
                      struct crdt *crdt)
{
        switch (pack_type(pack)) {
        case PACK_COUNTER:
                return counter_open(env, pack, last, crdt);
        case PACK_HASH:
                return items_open(env, pack, &crdt->fields);
        case PACK_SET:
                return items_open(env, pack, &crdt->members);
        case PACK_LIST:
                return list_open(env, pack, &crdt->list);
        case PACK_ZSET:
                return zset_open(env, pack, crdt);
        case PACK_BRIEF:
                return brief_open(env, pack, last, crdt);
        case PACK_STRING:
                crdt->base = last;
                return true;
        }
        UNREACHABLE("every type is above");
}

bool crdt_pack_open(const struct table_env *env, const struct crdt_pack *pack, struct stamp last,
                    uint64_t touched, struct crdt *ret)
{
        struct crdt crdt = {.ttl = {pack->ttl_hlc, pack->ttl_origin},
                            .expire_at_ms = crdt_pack_expire_at(pack),
                            .killed = pack_killed(pack),
                            .touched = touched > last.hlc ? touched : last.hlc};
        crdt.last[types[pack_type(pack)]] = last;
        if (!body_open(env, pack, last, &crdt)) {
                crdt_fini(env, &crdt);
                return false;
        }
        *ret = crdt;
        return true;
}

/* ---- looking */

enum crdt_type crdt_pack_kind(const struct crdt_pack *pack)
{
        return types[pack_type(pack)];
}

bool crdt_pack_is_string(const struct crdt_pack *pack)
{
        return pack_type(pack) == PACK_STRING;
}

enum crdt_type crdt_pack_type(const struct crdt_pack *pack)
{
        return pack_empty(pack) ? CRDT_NONE : types[pack_type(pack)];
}

uint64_t crdt_pack_expire_at(const struct crdt_pack *pack)
{
        return (pack->flags & PACK_EXPIRES) != 0 ? u64_read(pack->bytes) : 0;
}

uint64_t crdt_pack_length(const struct crdt_pack *pack, enum crdt_type type)
{
        uint64_t length = 0;
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        if (types[pack_type(pack)] != type || type == CRDT_STRING)
                return 0;
        if (type != CRDT_LIST)
                return pack->live;
        for (unsigned i = 0; i < pack->count; i++)
                length += pack_run_read(&at).count;
        return length;
}
