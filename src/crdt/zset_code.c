/* Sorted sets as bytes: what deltas say of members, the state of a set, and the merge of one. The
 * layouts are in zset.h and crdt.h. Bytes from outside are checked once, by the same readers that
 * the merge uses; a reader marks the cursor where an element is not as it must be. */
#include "crdt/zset.h"

#include "crdt/counter.h"
#include "crdt/lists.h"

#include "base/hash.h"

enum {
        TOLD_TALLY = 2,
        DOT_REMOVED = 1,
        DOT_LEN_MIN = 10,
        MEMBER_LEN_MIN = 3,
};

static uint64_t score_bits(double score)
{
        uint64_t bits = 0;
        memcpy(&bits, &score, sizeof bits);
        return bits;
}

void crdt_score_encode(struct buffer *buffer, double score)
{
        buffer_u64(buffer, score_bits(score));
}

double crdt_score_read(struct cursor *cursor)
{
        double score = 0;
        uint64_t bits = cursor_u64(cursor);
        memcpy(&score, &bits, sizeof score);
        if (!__builtin_isnan(score))
                return score;
        cursor_fail(cursor, ERR_MALFORMED);
        return 0;
}

/* ---- what was seen */

static void cuts_skip(struct cursor *cursor, uint64_t hlc_max)
{
        enum {
                LEN_MIN = 11,
        };
        unsigned part_last = 0;
        uint64_t count = count_read(cursor, LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                cut_read(cursor, hlc_max, &part_last);
}

void zset_cut_check(struct cursor *cursor, uint64_t hlc_max)
{
        name_read(cursor);
        cuts_skip(cursor, hlc_max);
}

struct bytes crdt_score_seen_read(struct cursor *cursor)
{
        struct cursor from = *cursor;
        zset_observed_check(cursor, UINT64_MAX);
        return name_read(&from);
}

void zset_observed_check(struct cursor *cursor, uint64_t hlc_max)
{
        enum {
                LEN_MIN = 9,
        };
        region_id origin_last = 0;
        name_read(cursor);
        uint64_t count = count_read(cursor, LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                dot_read(cursor, hlc_max, &origin_last);
        cuts_skip(cursor, hlc_max);
}

static void dots_encode(struct zset_member *member, region_id except, struct buffer *buffer)
{
        struct vector dots = {{0}};
        const struct zset_dot *dot = zset_dots(member);
        for (unsigned i = 0; i < member->one.count; i++) {
                if (!dot[i].removed && dot[i].origin != except)
                        vector_advance(&dots, dot[i].origin, dot[i].hlc);
        }
        vector_encode(&dots, buffer);
}

static bool uncut(const struct zset_member *member)
{
        return zset_tallied(member) && counter_uncut(&member->more->counter);
}

static void cuts_encode(const struct zset_member *member, struct buffer *buffer)
{
        if (uncut(member))
                counter_cuts_encode(&member->more->counter, buffer);
        else
                buffer_varint(buffer, 0);
}

bool crdt_score_observed(const struct table_env *env, const struct crdt *crdt, struct bytes name,
                         region_id origin)
{
        struct zset_member *member = zset_look(env, crdt, name);
        if (member == NULL || (member->more == NULL && member->one.origin == origin))
                return false;
        const struct zset_dot *dots = zset_dots(member);
        bool others = uncut(member);
        for (unsigned i = 0; i < member->one.count; i++)
                others = others || (!dots[i].removed && dots[i].origin != origin);
        return others;
}

void crdt_score_observed_encode(const struct table_env *env, const struct crdt *crdt,
                                struct bytes name, region_id except, struct buffer *buffer)
{
        struct zset_member *member = zset_look(env, crdt, name);
        buffer_slice(buffer, name);
        if (member == NULL) {
                buffer_varint(buffer, 0);
                buffer_varint(buffer, 0);
                return;
        }
        dots_encode(member, except, buffer);
        cuts_encode(member, buffer);
}

bool crdt_has_scores(const struct crdt *crdt)
{
        return crdt->zset != NULL && crdt->zset->tallies > 0;
}

void crdt_scores_encode(const struct crdt *crdt, struct buffer *buffer)
{
        struct table_walk walk = {0};
        struct node *node = crdt->zset == NULL ? NULL : table_next(&crdt->zset->table, &walk);
        for (; node != NULL; node = table_next(&crdt->zset->table, &walk)) {
                const struct zset_member *member = zset_member_of(node);
                if (!uncut(member))
                        continue;
                buffer_slice(buffer, node_key(node));
                counter_cuts_encode(&member->more->counter, buffer);
        }
}

void zset_bounds(const struct crdt_zset *zset, struct vector *bounds)
{
        struct table_walk walk = {0};
        struct node *node = table_next(&zset->table, &walk);
        for (; node != NULL; node = table_next(&zset->table, &walk)) {
                struct zset_member *member = zset_member_of(node);
                const struct zset_dot *dots = zset_dots(member);
                for (unsigned i = 0; i < member->one.count; i++) {
                        if (!dots[i].removed)
                                vector_advance(bounds, dots[i].origin, dots[i].hlc);
                }
        }
}

/* ---- state */

void zset_member_write(struct zset_member *member, struct buffer *buffer)
{
        const struct zset_dot *dots = zset_dots(member);
        buffer_slice(buffer, node_key(&member->node));
        buffer_u8(buffer, zset_tallied(member) ? TOLD_TALLY : 0);
        buffer_varint(buffer, member->one.count);
        for (unsigned i = 0; i < member->one.count; i++) {
                buffer_u8(buffer, dots[i].origin);
                buffer_u64(buffer, dots[i].hlc);
                buffer_u8(buffer, dots[i].removed ? DOT_REMOVED : 0);
                if (!dots[i].removed)
                        crdt_score_encode(buffer, dots[i].score);
        }
        if (!zset_tallied(member))
                return;
        buffer_u64(buffer, member->more->touched);
        counter_write(&member->more->counter, buffer);
}

void zset_state_write(const struct crdt *crdt, struct buffer *buffer)
{
        struct table_walk walk = {0};
        buffer_varint(buffer, crdt->zset->table.count);
        struct node *node = table_next(&crdt->zset->table, &walk);
        for (; node != NULL; node = table_next(&crdt->zset->table, &walk))
                zset_member_write(zset_member_of(node), buffer);
}

static struct zset_dot told_dot(struct cursor *cursor, uint64_t hlc_max, region_id *origin_last)
{
        struct crdt_dot stamp = dot_read(cursor, hlc_max, origin_last);
        struct zset_dot dot = {.hlc = stamp.hlc, .origin = stamp.origin};
        uint8_t flags = cursor_u8(cursor);
        dot.removed = flags == DOT_REMOVED;
        if (flags > DOT_REMOVED)
                cursor_fail(cursor, ERR_MALFORMED);
        if (!dot.removed)
                dot.score = crdt_score_read(cursor);
        return dot;
}

static void told_read(struct cursor *cursor, uint64_t hlc_max, struct zset_told *ret)
{
        region_id origin_last = 0;
        ret->name = name_read(cursor);
        uint8_t flags = cursor_u8(cursor);
        ret->dot_count = (unsigned)cursor_varint_max(cursor, CLOCK_REGIONS_MAX);
        if ((flags & ~TOLD_TALLY) != 0 || (ret->dot_count == 0 && flags == 0))
                cursor_fail(cursor, ERR_MALFORMED);
        for (unsigned i = 0; i < ret->dot_count && !cursor_failed(cursor); i++)
                ret->dots[i] = told_dot(cursor, hlc_max, &origin_last);
        ret->counts = (struct bytes){0};
        ret->touched = 0;
        if ((flags & TOLD_TALLY) == 0)
                return;
        ret->touched = cursor_u64(cursor);
        ret->counts = counter_check(cursor, hlc_max);
}

struct bytes zset_state_check(struct cursor *cursor, uint64_t hlc_max)
{
        struct zset_told told;
        const uint8_t *from = cursor->at;
        uint64_t count = count_read(cursor, MEMBER_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                told_read(cursor, hlc_max, &told);
        return cursor_since(cursor, from);
}

/* ---- merge */

static void merge_dots(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                       const struct zset_told *told, const struct crdt_seen *sender)
{
        struct vector clocks = {{0}};
        for (unsigned i = 0; i < told->dot_count; i++) {
                const struct zset_dot *dot = &told->dots[i];
                const struct zset_dot *own = zset_dot(member, dot->origin);
                vector_advance(&clocks, dot->origin, dot->hlc);
                if (dot->removed)
                        zset_dot_remove(env, crdt, member, zset_stamp(dot));
                else if (!env_seen(env, zset_stamp(dot)) &&
                         !dot_dead(crdt, CRDT_ZSET, zset_stamp(dot)) &&
                         (own == NULL || own->hlc < dot->hlc))
                        zset_dot_put(env, member, zset_stamp(dot), dot->score, false);
        }
        for (unsigned i = member->one.count; i > 0; i--) {
                struct zset_dot own = zset_dots(member)[i - 1];
                if (!own.removed && !vector_covers(&clocks, zset_stamp(&own)) &&
                    crdt_seen_covers(sender, zset_stamp(&own)))
                        zset_dot_retire(env, member, i - 1);
        }
}

static void merge_counts(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                         const struct zset_told *told, const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(told->counts);
        unsigned part_last = 0;
        uint64_t count = told->counts.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count one = count_read_one(&cursor, UINT64_MAX, &part_last);
                struct crdt_count *own = zset_slot(env, crdt, member, one.origin, one.life);
                if (own == NULL)
                        return;
                if (one.hlc != 0 && !env_seen(env, (struct stamp){one.hlc, one.origin}))
                        count_raise(own, one.hlc, one.total);
                if (one.cut_hlc != 0)
                        count_cut(own, one.cut_hlc, one.cut);
        }
        if (!zset_tallied(member))
                return;
        counter_absent(&member->more->counter, told->counts, sender);
        zset_touch(member, told->touched);
        zset_touch(member, vector_newest(&sender->vector));
}

static void merge_member(struct crdt_env *env, struct crdt *crdt, const struct zset_told *told,
                         const struct crdt_seen *sender)
{
        struct zset_member *member = zset_get(env, crdt, told->name);
        if (member == NULL)
                return;
        struct zset_shown was = zset_shown(member);
        merge_dots(env, crdt, member, told, sender);
        merge_counts(env, crdt, member, told, sender);
        member->one.mark = crdt->round;
        zset_changed(env, crdt, member, was);
}

void zset_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes members,
                      const struct crdt_seen *sender)
{
        struct zset_told told;
        struct cursor cursor = cursor_of(members);
        uint64_t count = members.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                told_read(&cursor, UINT64_MAX, &told);
                merge_member(env, crdt, &told, sender);
        }
}

/* ---- digest */

static uint64_t member_digest(const struct crdt *crdt, struct zset_member *member, bool all)
{
        const struct zset_dot *dots = zset_dots(member);
        uint64_t hash = hash_fnv(HASH_FNV_START, node_key(&member->node));
        bool any = false;
        for (unsigned i = 0; i < member->one.count; i++) {
                if (dots[i].removed)
                        continue;
                hash = hash_fnv_u64(hash_fnv_u64(hash, dots[i].hlc), dots[i].origin);
                hash = hash_fnv_u64(hash, score_bits(dots[i].score));
                any = true;
        }
        if (zset_tallied(member)) {
                struct stamp rival = crdt_rival(crdt, CRDT_ZSET);
                hash = counter_digest(hash, &member->more->counter, rival, all);
                any = any || all || counter_counts(&member->more->counter, rival);
        }
        return any ? hash : 0;
}

/* A sum, so that the order of the table does not count. */
uint64_t zset_digest(const struct crdt *crdt, bool all)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        struct node *node = crdt->zset == NULL ? NULL : table_next(&crdt->zset->table, &walk);
        for (; node != NULL; node = table_next(&crdt->zset->table, &walk))
                sum += member_digest(crdt, zset_member_of(node), all);
        return sum;
}
