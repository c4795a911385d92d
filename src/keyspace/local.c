/* Changes made here. Each is encoded as the delta that others will get, then merged like theirs,
 * but with no native behind it: so this replica remembers exactly what the others will. A SET or
 * DEL of a plain string takes a short way to the same result. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"
#include "base/put.h"

/* Puts the delta that is in the scratch buffer into the ring. */
void change_publish(struct keyspace *keyspace, struct stamp stamp, struct keyspace_change *ret)
{
        struct bytes delta = buffer_view(&keyspace->delta);
        uint8_t *at = ring_append(&keyspace->ring, stamp.hlc, delta.len);
        if (at != NULL) {
                memcpy(at, delta.ptr, delta.len);
                delta.ptr = at;
        }
        keyspace->stats.local++;
        *ret = (struct keyspace_change){.stamp = stamp, .delta = delta};
}

/* The short way of SET: straight into the ring. */
static enum err set_publish(struct keyspace *keyspace, struct stamp stamp, struct crdt_name name,
                            struct bytes value, uint64_t expire_at_ms, struct keyspace_change *ret)
{
        size_t len = 8 + 1 + put_varint_len(name.db) + put_varint_len(name.key.len) + name.key.len +
                     (expire_at_ms == 0 ? 0 : put_varint_len(expire_at_ms)) + value.len;
        uint8_t *at = ring_append(&keyspace->ring, stamp.hlc, len);
        if (at == NULL) {
                buffer_reset(&keyspace->delta);
                at = buffer_reserve(&keyspace->delta, len);
                if (at == NULL)
                        return ERR_NOMEM;
        }
        uint8_t *from = at;
        at = put_u64(at, stamp.hlc);
        *at++ = expire_at_ms == 0 ? CRDT_OP_SET : CRDT_OP_SET | CRDT_FLAG_EXPIRY;
        at = put_varint(at, name.db);
        at = put_varint(at, name.key.len);
        at = put_bytes(at, name.key);
        if (expire_at_ms != 0)
                at = put_varint(at, expire_at_ms);
        at = put_bytes(at, value);
        CHECK((size_t)(at - from) == len);
        keyspace->stats.local++;
        *ret = (struct keyspace_change){.stamp = stamp, .delta = bytes_of(from, len)};
        return ERR_NONE;
}

/* Begins a delta in the scratch buffer. */
struct buffer *delta_begin(struct keyspace *keyspace, struct stamp stamp, enum crdt_op op,
                           uint8_t flags, struct crdt_name name)
{
        buffer_reset(&keyspace->delta);
        crdt_delta_head(&keyspace->delta, stamp.hlc, op, flags, name);
        return &keyspace->delta;
}

/* Merges what is in the scratch buffer and publishes it. */
enum err delta_end(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                   struct bytes text_before, struct keyspace_change *ret)
{
        struct crdt_delta delta;
        if (keyspace->delta.err != ERR_NONE)
                return keyspace->delta.err;
        enum err err = crdt_delta_decode(buffer_view(&keyspace->delta), stamp.origin, &delta);
        CHECK(err == ERR_NONE);
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
        env.text_before = text_before;
        env.stable = delta.stable;
        enum crdt_type was = crdt_type(crdt);
        crdt_apply(&env, crdt, &delta);
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        if (env.err != ERR_NONE)
                return env.err;
        change_publish(keyspace, stamp, ret);
        return ERR_NONE;
}

/* A key without content forgets the expiry of what it had. */
uint8_t created_flag(const struct entry *entry)
{
        if (entry->node.kind == ENTRY_PACK)
                return entry_type(entry) == CRDT_NONE && crdt_pack_expire_at(entry->pack) != 0
                               ? CRDT_FLAG_CREATED
                               : 0;
        /* Where nothing is known, others may still remember what has been forgotten here. */
        if (entry->node.kind != ENTRY_FULL)
                return entry->node.kind == ENTRY_STRING && entry->hlc == 0 ? CRDT_FLAG_CREATED : 0;
        const struct crdt *crdt = entry->crdt;
        bool unknown = crdt_stamp(crdt).hlc == 0 && crdt->killed.hlc == 0;
        bool created = crdt_type(crdt) == CRDT_NONE && (crdt->expire_at_ms != 0 || unknown);
        return created ? CRDT_FLAG_CREATED : 0;
}

bool change_is_part(const struct entry *entry, enum crdt_op op, struct keyspace_change *ret)
{
        if (entry->node.kind != ENTRY_FULL)
                return false;
        enum crdt_type type = crdt_type(entry->crdt);
        bool part = type == CRDT_OPAQUE ||
                    (type == CRDT_SIBLINGS && (op == CRDT_OP_COUNT || op == CRDT_OP_HLL));
        if (part)
                *ret = (struct keyspace_change){
                        .nothing = true, .whole = true, .name = entry_name(entry)};
        return part;
}

/* What is observed of the fields that a body names. */
static void body_elements(struct keyspace *keyspace, const struct crdt *crdt, enum crdt_op op,
                          struct bytes body, struct buffer *delta)
{
        struct cursor cursor = cursor_of(body);
        uint64_t count = cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                crdt_element_encode(&keyspace->env, crdt, cursor_slice(&cursor), delta);
                if (op == CRDT_OP_HSET)
                        cursor_slice(&cursor);
        }
        CHECK(!cursor_failed(&cursor));
}

enum err items_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                       enum crdt_op op, struct bytes body, struct keyspace_change *ret)
{
        if (change_is_part(entry, op, ret))
                return ERR_NONE;
        uint8_t plain;
        if (pack_body(keyspace, entry, op, stamp, body, &plain)) {
                buffer_bytes(delta_begin(keyspace, stamp, op, plain, entry_name(entry)), body);
                if (keyspace->delta.err != ERR_NONE)
                        return keyspace->delta.err;
                change_publish(keyspace, stamp, ret);
                return ERR_NONE;
        }
        bool hash = op == CRDT_OP_HSET || op == CRDT_OP_HDEL;
        uint8_t flags = op == CRDT_OP_HDEL ? 0 : created_flag(entry);
        if (hash && entry->node.kind == ENTRY_FULL && crdt_has_elements(entry->crdt))
                flags |= CRDT_FLAG_ELEMENTS;
        struct buffer *delta = delta_begin(keyspace, stamp, op, flags, entry_name(entry));
        buffer_bytes(delta, body);
        if ((flags & CRDT_FLAG_ELEMENTS) != 0)
                body_elements(keyspace, entry->crdt, op, body, delta);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err change_nothing(struct keyspace_change *ret)
{
        *ret = (struct keyspace_change){.nothing = true};
        return ERR_NONE;
}

static uint8_t known_flag(enum crdt_type was, enum crdt_type now)
{
        return was != CRDT_NONE && was != now ? CRDT_FLAG_KNOWN : 0;
}

static uint64_t expiry_kept(const struct entry *entry, uint64_t expire_at_ms)
{
        return expire_at_ms == KEYSPACE_TTL_KEEP ? entry_expire_at(entry) : expire_at_ms;
}

enum err value_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                       enum crdt_op op, struct bytes value, uint64_t expire_at_ms,
                       struct keyspace_change *ret)
{
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        bool string = op == CRDT_OP_SET;
        uint8_t flags = known_flag(crdt_type(crdt), string ? CRDT_STRING : CRDT_OPAQUE);
        flags |= expire_at_ms != 0 ? CRDT_FLAG_EXPIRY : 0;
        flags |= string && crdt_has_cuts(crdt) ? CRDT_FLAG_CUTS : 0;
        struct buffer *delta = delta_begin(keyspace, stamp, op, flags, entry_name(entry));
        if (expire_at_ms != 0)
                buffer_varint(delta, expire_at_ms);
        if ((flags & CRDT_FLAG_CUTS) != 0)
                crdt_cuts_encode(crdt, delta);
        buffer_bytes(delta, value);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

/* The short way of SET: the key has never been anything but a plain string. */
void entry_set(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
               uint64_t expire_at_ms)
{
        entry_count(keyspace, entry_type(entry), CRDT_STRING);
        entry->node.kind = ENTRY_STRING;
        entry->hlc = stamp.hlc;
        entry->origin = stamp.origin;
        entry->more = expire_at_ms;
        entry->more_origin = 0;
}

enum err keyspace_local_set(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                            struct bytes value, uint64_t expire_at_ms, struct keyspace_change *ret)
{
        if (!name_fits(name) || value.len > CRDT_NAME_LEN_MAX)
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (expire_at_ms == KEYSPACE_TTL_KEEP)
                expire_at_ms = expiry_kept(entry, expire_at_ms);
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        if (!entry_shorten(keyspace, entry))
                return value_publish(keyspace, stamp, entry, CRDT_OP_SET, value, expire_at_ms, ret);
        entry_set(keyspace, entry, stamp, expire_at_ms);
        return set_publish(keyspace, stamp, name, value, expire_at_ms, ret);
}

enum err keyspace_local_opaque(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                               struct bytes value, uint64_t expire_at_ms,
                               struct keyspace_change *ret)
{
        if (!name_fits(name) || value.len > CRDT_NAME_LEN_MAX)
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        return value_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, CRDT_OP_OPAQUE,
                             value, expiry_kept(entry, expire_at_ms), ret);
}

/* ---- counters */

struct crdt_count count_next(const struct keyspace *keyspace, const struct crdt_count *own,
                             bool counted, struct stamp stamp, int64_t whole, double part)
{
        struct crdt_count next = {.hlc = stamp.hlc,
                                  .total = {(uint64_t)whole, part},
                                  .origin = stamp.origin,
                                  .life = keyspace_life(keyspace)};
        if (own == NULL || own->hlc == 0) {
                next.cut_hlc = stamp.hlc - 1;
                return next;
        }
        /* Others may have cut more of it than a life of the same number has here. */
        struct crdt_totals from = own->hlc > own->cut_hlc ? own->total : own->cut;
        next.total.whole += from.whole;
        next.total.part += from.part;
        bool dead = own->hlc > own->cut_hlc && !counted;
        next.cut_hlc = dead ? own->hlc : own->cut_hlc;
        next.cut = dead ? own->total : own->cut;
        return next;
}

/* An origin tells running totals, of which 64 bits are told: what it has added since the last SET
 * may be no more than that. What is added to a sum that has saturated does not show in it. Then the
 * outcome is told as a SET. */
bool count_fits(const struct crdt_count *own, int64_t amount)
{
        int64_t sum;
        return !__builtin_add_overflow((int64_t)(own->total.whole - own->cut.whole), amount, &sum);
}

enum err count_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                       int64_t whole, double part, struct bytes text_before,
                       struct keyspace_change *ret)
{
        if (change_is_part(entry, CRDT_OP_COUNT, ret))
                return ERR_NONE;
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        bool open = crdt_base_open(crdt);
        const struct crdt_count *own =
                crdt_count_of(crdt, keyspace->config.origin, keyspace_life(keyspace));
        if ((own != NULL && !count_fits(own, whole)) || crdt_sum_saturated(crdt)) {
                *ret = (struct keyspace_change){
                        .nothing = true, .whole = true, .name = entry_name(entry)};
                return ERR_NONE;
        }
        uint8_t flags = created_flag(entry);
        bool counted = own != NULL && crdt_counted(crdt, own);
        struct crdt_count next = count_next(keyspace, own, counted, stamp, whole, part);
        flags |= crdt_count_flags(&next);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_COUNT, flags, entry_name(entry));
        crdt_count_encode(delta, &next);
        enum err err = delta_end(keyspace, entry, stamp, text_before, ret);
        if (err == ERR_NONE && open)
                ret->before = text_before;
        return err;
}

/* What the value must be, where that is not `after` already (NULL: it is to be told anyway). */
static enum err change_text(struct keyspace *keyspace, const struct entry *entry,
                            const int64_t *after, struct keyspace_change *ret)
{
        struct crdt room;
        int64_t sum = 0;
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        if (crdt == NULL)
                return ERR_NOMEM;
        buffer_reset(&keyspace->text);
        if (after == NULL || !crdt_sum_whole(crdt, &sum) || sum != *after) {
                ret->rewrite = crdt_text(crdt, &keyspace->text);
                ret->text = buffer_view(&keyspace->text);
        }
        entry_close(keyspace, entry, &room);
        return keyspace->text.err;
}

enum err keyspace_local_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                  struct crdt_name name, int64_t amount, int64_t value_after,
                                  struct keyspace_change *ret)
{
        if (!name_fits(name))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL || !entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        struct crdt room;
        const struct crdt *crdt = entry_open(keyspace, entry, &room);
        struct bytes before = {0};
        if (crdt_base_open(crdt)) {
                buffer_reset(&keyspace->before);
                buffer_format(&keyspace->before, "%lld",
                              (long long)((uint64_t)value_after - (uint64_t)amount));
                before = buffer_view(&keyspace->before);
        }
        enum err err = count_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, amount, 0,
                                     before, ret);
        return err != ERR_NONE || ret->nothing ? err
                                               : change_text(keyspace, entry, &value_after, ret);
}

enum err keyspace_local_increment_float(struct keyspace *keyspace, uint64_t wall_ms,
                                        struct crdt_name name, double amount,
                                        struct bytes value_before, struct keyspace_change *ret)
{
        double before = 0;
        if (!name_fits(name))
                return ERR_LIMIT;
        if ((value_before.len > 0 && !crdt_number(value_before, &before)) ||
            !__builtin_isfinite(before + amount))
                return ERR_INVALID;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (value_before.len == 0)
                value_before = BYTES("0");
        struct crdt_totals more = crdt_amount(amount, before);
        enum err err = count_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry,
                                     (int64_t)more.whole, more.part, value_before, ret);
        return err != ERR_NONE || ret->nothing ? err : change_text(keyspace, entry, NULL, ret);
}

enum err keyspace_local_sibling(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                struct bytes value, uint64_t expire_at_ms,
                                struct keyspace_change *ret)
{
        if (!name_fits(name) || value.len > CRDT_NAME_LEN_MAX)
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        struct crdt *crdt = entry == NULL ? NULL : entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        expire_at_ms = expiry_kept(entry, expire_at_ms);
        uint8_t flags = known_flag(crdt_type(crdt), CRDT_SIBLINGS);
        flags |= expire_at_ms != 0 ? CRDT_FLAG_EXPIRY : 0;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_SIBLING, flags, name);
        if (expire_at_ms != 0)
                buffer_varint(delta, expire_at_ms);
        crdt_siblings_cuts(crdt, delta);
        buffer_bytes(delta, value);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

/* ---- the idle stream */

enum {
        TELL_MS = 2000, /* a log that is synced each second has what is older than that */
};

/* Up to where everything of each stream is here, and what is had of those that are removed. */
static void telling_note(struct keyspace *keyspace, uint64_t wall_ms)
{
        struct telling *telling = &keyspace->telling;
        telling->wall_ms = wall_ms;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                telling->seen.hlc[i] = seen_solid(&keyspace->seen, (region_id)i);
        removed_tell(keyspace, &telling->gone);
}

/* What was noted, less what was found to be a hole since. */
static struct telling telling_take(struct keyspace *keyspace, uint64_t wall_ms)
{
        struct telling noted = keyspace->telling;
        telling_note(keyspace, wall_ms);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                if (keyspace->telling.seen.hlc[i] < noted.seen.hlc[i])
                        noted.seen.hlc[i] = keyspace->telling.seen.hlc[i];
        return noted;
}

static bool telling_news(const struct keyspace *keyspace, const struct telling *telling)
{
        struct vector others = telling->seen;
        region_id self = keyspace->config.origin;
        others.hlc[self] = keyspace->told.hlc[self];
        return !vector_includes(&keyspace->told, &others) ||
               memcmp(&keyspace->told_gone, &telling->gone, sizeof telling->gone) != 0;
}

/* What the others must know to collect their tombstones. They forget by it, so it must not be lost
 * here: it is told some time after it was so. */
static void tell_seen(struct keyspace *keyspace, uint64_t wall_ms, struct keyspace_change *ret)
{
        uint64_t noted_ms = keyspace->telling.wall_ms;
        if (keyspace->members == 0)
                return;
        if (noted_ms == 0 || wall_ms < noted_ms)
                telling_note(keyspace, wall_ms);
        if (wall_ms - keyspace->telling.wall_ms < TELL_MS)
                return;
        struct telling telling = telling_take(keyspace, wall_ms);
        if (!telling_news(keyspace, &telling))
                return;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_SEEN, CRDT_FLAG_GONE, (struct crdt_name){0});
        vector_encode(&telling.seen, delta);
        crdt_gone_write(&telling.gone, delta);
        if (delta->err != ERR_NONE)
                return; /* told another time */
        change_publish(keyspace, stamp, ret);
        keyspace->told = telling.seen;
        keyspace->told_gone = telling.gone;
}

uint64_t keyspace_heartbeat(struct keyspace *keyspace, uint64_t wall_ms,
                            struct keyspace_change *ret)
{
        *ret = (struct keyspace_change){.nothing = true};
        (void)keyspace_idle(keyspace, wall_ms);
        tell_seen(keyspace, wall_ms, ret);
        uint64_t position = keyspace_idle(keyspace, wall_ms);
        keyspace->given = position > keyspace->given ? position : keyspace->given;
        return position;
}
