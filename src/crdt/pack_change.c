/* Changes of packs in place: what crdt_apply comes to where the change is newer than all that is
 * known of its element, and nothing else changes by it. All else is refused, and goes the long way.
 *
 * Elements lie one behind the other and are searched from the first; there are few. */
#include "crdt/counter.h"
#include "crdt/lists.h"
#include "crdt/pack_priv.h"

#include "base/check.h"

/* Puts `len` bytes in the place of `gone` at `at`, to be filled by the caller; NULL: too long, or
 * no memory. */
static uint8_t *pack_splice(const struct table_env *env, struct crdt_pack **slot, size_t at,
                            size_t gone, size_t len)
{
        struct crdt_pack *pack = *slot;
        size_t len_was = pack->len;
        size_t len_now = len_was - gone + len;
        size_t tail = len_was - at - gone;
        if (len_now > CRDT_PACK_BYTES_MAX)
                return NULL;
        if (len < gone)
                memmove(pack->bytes + at + len, pack->bytes + at + gone, tail);
        if (pack_size(len_now) != pack_size(len_was)) {
                struct crdt_pack *moved =
                        heap_retake(env->heap, pack, pack_size(len_was), pack_size(len_now));
                if (moved == NULL)
                        return NULL;
                *slot = pack = moved;
        }
        if (len > gone)
                memmove(pack->bytes + at + len, pack->bytes + at + gone, tail);
        pack->len = (uint16_t)len_now;
        return pack->bytes + at;
}

/* ---- fields and members */

/* The element of that name, or the end. */
static uint8_t *element_find(struct crdt_pack *pack, struct bytes name)
{
        uint8_t *at = pack->bytes + pack_body_at(pack);
        size_t extra = pack_extra(pack);
        for (unsigned i = 0; i < pack->count; i++) {
                size_t dots = dots_len(at + 1) + extra;
                if (at[0] == name.len &&
                    (name.len == 0 || memcmp(at + 1 + dots, name.ptr, name.len) == 0))
                        return at;
                at += 1 + dots + at[0];
        }
        return at;
}

static bool at_end(const struct crdt_pack *pack, const uint8_t *at)
{
        return at == pack->bytes + pack->len;
}

static bool element_add(const struct table_env *env, struct crdt_pack **slot, struct bytes name,
                        struct stamp stamp, double score)
{
        size_t extra = pack_extra(*slot);
        if (name.len > CRDT_PACK_NAME_MAX || (*slot)->count == CRDT_PACK_ELEMENTS_MAX)
                return false;
        uint8_t *at = pack_splice(env, slot, (*slot)->len, 0, 1 + DOT_LEN + extra + name.len);
        if (at == NULL)
                return false;
        at[0] = (uint8_t)name.len;
        dot_write_at(at + 1, stamp, 0);
        if (extra > 0)
                memcpy(at + 1 + DOT_LEN, &score, sizeof score);
        if (name.len > 0)
                memcpy(at + 1 + DOT_LEN + extra, name.ptr, name.len);
        (*slot)->count++;
        (*slot)->live++;
        return true;
}

/* A dot of a member: the newest of its origin. */
static bool member_dot(const struct table_env *env, struct crdt_pack **slot, uint8_t *element,
                       struct stamp stamp)
{
        uint8_t *dot = element + 1;
        for (;; dot += DOT_LEN) {
                struct stamp there = dot_read_at(dot);
                if (there.origin == stamp.origin) {
                        if (there.hlc < stamp.hlc)
                                u64_write(dot + 1, stamp.hlc);
                        return true;
                }
                if (there.origin > stamp.origin || (*dot & DOT_MORE) == 0)
                        break;
        }
        bool before = dot_read_at(dot).origin > stamp.origin;
        size_t at = (size_t)(dot - (*slot)->bytes) + (before ? 0 : DOT_LEN);
        dot = pack_splice(env, slot, at, 0, DOT_LEN);
        if (dot == NULL)
                return false;
        dot_write_at(dot, stamp, before ? DOT_MORE : 0);
        if (!before)
                dot[-DOT_LEN] |= DOT_MORE;
        return true;
}

static void field_write(struct crdt_pack *pack, uint8_t *element, struct stamp stamp)
{
        if ((element[1] & DOT_REMOVED) != 0)
                pack->live++;
        dot_write_at(element + 1, stamp, 0);
}

bool crdt_pack_put(const struct table_env *env, struct crdt_pack **slot, struct bytes name,
                   struct stamp stamp)
{
        enum pack_type type = pack_type(*slot);
        if (type != PACK_HASH && type != PACK_SET)
                return false;
        uint8_t *element = element_find(*slot, name);
        if (at_end(*slot, element))
                return element_add(env, slot, name, stamp, 0);
        if (type == PACK_SET)
                return member_dot(env, slot, element, stamp);
        field_write(*slot, element, stamp);
        return true;
}

bool crdt_pack_hash_delete(struct crdt_pack *pack, struct bytes field, struct stamp stamp)
{
        if (pack_type(pack) != PACK_HASH)
                return false;
        uint8_t *element = element_find(pack, field);
        if (at_end(pack, element) || (element[1] & DOT_REMOVED) != 0)
                return false;
        dot_write_at(element + 1, stamp, DOT_REMOVED);
        pack->live--;
        return true;
}

static void dots_encode(const uint8_t *dot, struct buffer *buffer)
{
        buffer_varint(buffer, dots_len(dot) / DOT_LEN);
        bool more = true;
        for (; more; dot += DOT_LEN) {
                struct stamp stamp = dot_read_at(dot);
                more = (*dot & DOT_MORE) != 0;
                buffer_u8(buffer, stamp.origin);
                buffer_u64(buffer, stamp.hlc);
        }
}

static void element_drop(const struct table_env *env, struct crdt_pack **slot,
                         const uint8_t *element)
{
        size_t at = (size_t)(element - (*slot)->bytes);
        CHECK(pack_splice(env, slot, at, element_len(*slot, element), 0) != NULL);
        (*slot)->count--;
}

static bool dots_seen(const uint8_t *dot, const struct crdt_env *env)
{
        const uint8_t *end = dot + dots_len(dot);
        for (; dot < end; dot += DOT_LEN) {
                if (!env_seen_through(env, dot_read_at(dot)))
                        return false;
        }
        return true;
}

bool crdt_pack_set_remove(const struct crdt_env *env, struct crdt_pack **slot, struct bytes member,
                          struct buffer *dots)
{
        struct crdt_pack *pack = *slot;
        if (pack_type(pack) != PACK_SET)
                return false;
        const uint8_t *element = element_find(pack, member);
        if (at_end(pack, element) || !dots_seen(element + 1, env))
                return false;
        dots_encode(element + 1, dots);
        pack->live--;
        element_drop(&env->table, slot, element);
        return true;
}

enum crdt_member crdt_pack_member(const struct crdt_pack *pack, struct bytes member,
                                  region_id origin, uint64_t shipped)
{
        if (pack_type(pack) != PACK_SET)
                return CRDT_MEMBER_ABSENT;
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        for (unsigned i = 0; i < pack->count; i++, at += element_len(pack, at)) {
                const uint8_t *dot = at + 1;
                size_t dots = dots_len(dot);
                if (at[0] != member.len ||
                    (member.len > 0 && memcmp(dot + dots, member.ptr, member.len) != 0))
                        continue;
                for (; dot < at + 1 + dots; dot += DOT_LEN) {
                        struct stamp stamp = dot_read_at(dot);
                        if (stamp.origin == origin && stamp.hlc > shipped)
                                return CRDT_MEMBER_FRESH;
                }
                return CRDT_MEMBER_THERE;
        }
        return CRDT_MEMBER_ABSENT;
}

/* ---- sorted sets */

bool crdt_pack_score_put(const struct table_env *env, struct crdt_pack **slot, struct bytes name,
                         struct stamp stamp, double score)
{
        if (pack_type(*slot) != PACK_ZSET)
                return false;
        uint8_t *element = element_find(*slot, name);
        if (at_end(*slot, element))
                return element_add(env, slot, name, stamp, score);
        struct stamp there = dot_read_at(element + 1);
        if (there.origin != stamp.origin || there.hlc >= stamp.hlc)
                return false;
        dot_write_at(element + 1, stamp, 0);
        memcpy(element + 1 + DOT_LEN, &score, sizeof score);
        return true;
}

void crdt_pack_scores(const struct crdt_pack *pack,
                      void (*each)(void *context, struct bytes member, double score), void *context)
{
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        for (unsigned i = 0; i < pack->count && pack_type(pack) == PACK_ZSET; i++) {
                const uint8_t *score = at + 1 + DOT_LEN;
                each(context, bytes_of(score + sizeof(double), at[0]), score_read_at(score));
                at += element_len(pack, at);
        }
}

enum crdt_member crdt_pack_score(const struct crdt_pack *pack, struct bytes member,
                                 region_id origin, uint64_t shipped, double *ret_score)
{
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        for (unsigned i = 0; i < pack->count && pack_type(pack) == PACK_ZSET; i++) {
                const uint8_t *score = at + 1 + DOT_LEN;
                struct stamp stamp = dot_read_at(at + 1);
                if (bytes_equal(bytes_of(score + sizeof(double), at[0]), member)) {
                        *ret_score = score_read_at(score);
                        return stamp.origin == origin && stamp.hlc > shipped ? CRDT_MEMBER_FRESH
                                                                             : CRDT_MEMBER_THERE;
                }
                at += element_len(pack, at);
        }
        return CRDT_MEMBER_ABSENT;
}

/* ---- counters */

static bool brief_increment(struct crdt_pack *pack, uint8_t life, struct stamp last,
                            struct stamp stamp, int64_t amount, struct crdt_count *ret)
{
        int64_t sum;
        if (pack->ttl_origin != stamp.origin || pack->flags >> BRIEF_LIFE_AT != life ||
            last.hlc < pack->ttl_hlc || __builtin_add_overflow(brief_total(pack), amount, &sum) ||
            !brief_fits(sum))
                return false;
        brief_write(pack, sum);
        brief_part(pack, stamp, sum, ret);
        return true;
}

bool crdt_pack_increment(struct crdt_pack *pack, uint8_t life, struct stamp last,
                         struct stamp stamp, int64_t amount, struct crdt_count *ret)
{
        region_id origin = stamp.origin;
        if (pack_type(pack) == PACK_BRIEF)
                return last.origin == origin &&
                       brief_increment(pack, life, last, stamp, amount, ret);
        if (pack_type(pack) != PACK_COUNTER || last.origin != origin)
                return false;
        uint8_t *at = pack->bytes + pack_body_at(pack);
        uint8_t *own = NULL;
        bool based = (pack->flags & PACK_BASED) != 0;
        bool lives = (*at & COUNTER_LIVES) != 0;
        bool whole = (*at++ & ~COUNTER_LIVES) == CRDT_BASE_INT;
        at += based ? DOT_LEN : 0;
        if ((based && !whole) || (whole && !crdt_adds_up((int64_t)u64_read(at))))
                return false;
        at += whole ? 8 : 0;
        for (unsigned i = 0; i < pack->count; i++) {
                uint8_t tag = *at++;
                bool cut = (tag & PART_CUT) != 0;
                uint8_t part_life = lives ? *at++ : 0;
                at += (tag & PART_LAST) != 0 ? 0 : 8;
                struct crdt_count part = {.hlc = stamp.hlc,
                                          .total = {u64_read(at), 0},
                                          .cut_hlc = u64_read(at + 8),
                                          .cut = {cut ? u64_read(at + 16) : 0, 0},
                                          .origin = origin,
                                          .life = part_life};
                if (!crdt_adds_up((int64_t)(part.total.whole - part.cut.whole)))
                        return false;
                if ((tag & PART_LAST) != 0) {
                        own = at;
                        *ret = part;
                }
                at += 16 + (cut ? 8 : 0);
        }
        if (own == NULL || ret->life != life || last.hlc <= ret->cut_hlc)
                return false;
        ret->total.whole += (uint64_t)amount;
        u64_write(own, ret->total.whole);
        return true;
}

/* ---- lists */

bool crdt_pack_push(const struct table_env *env, struct crdt_pack **slot, bool head, uint32_t count,
                    struct stamp stamp)
{
        uint8_t bytes[RUN_LEN_MAX];
        struct list_run run = {
                .stamp = stamp, .kind = head ? LIST_HEAD : LIST_TAIL, .count = count};
        if (pack_type(*slot) != PACK_LIST || (*slot)->count == CRDT_PACK_ELEMENTS_MAX)
                return false;
        size_t len = (size_t)(pack_run_write(bytes, run) - bytes);
        uint8_t *at = pack_splice(env, slot, head ? pack_body_at(*slot) : (*slot)->len, 0, len);
        if (at == NULL)
                return false;
        memcpy(at, bytes, len);
        (*slot)->count++;
        return true;
}

bool crdt_pack_pop(const struct crdt_env *env, struct crdt_pack **slot, bool head,
                   struct buffer *name)
{
        struct crdt_pack *pack = *slot;
        uint8_t bytes[RUN_LEN_MAX];
        if (pack_type(pack) != PACK_LIST || pack->count == 0)
                return false;
        const uint8_t *at = pack->bytes + pack_body_at(pack);
        const uint8_t *from = at;
        struct list_run run = pack_run_read(&at);
        for (unsigned i = 1; i < pack->count && !head; i++) {
                from = at;
                run = pack_run_read(&at);
        }
        if (!env_seen(env, run.stamp))
                return false;
        struct list_run gone = run;
        gone.first += head ? 0 : run.count - 1;
        gone.count = 1;
        list_run_write(name, gone);
        run.first += head;
        run.count--;
        size_t len = run.count == 0 ? 0 : (size_t)(pack_run_write(bytes, run) - bytes);
        size_t place = (size_t)(from - pack->bytes);
        if (run.count == 0)
                pack->count--;
        uint8_t *to = pack_splice(&env->table, slot, place, (size_t)(at - from), len);
        if (to == NULL)
                return false;
        memcpy(to, bytes, len);
        return true;
}

/* ---- expiry */

bool crdt_pack_expire(const struct table_env *env, struct crdt_pack **slot, struct stamp stamp,
                      uint64_t expire_at_ms)
{
        if (pack_type(*slot) == PACK_BRIEF)
                return false;
        size_t len_was = (*slot)->flags & PACK_EXPIRES ? 8 : 0;
        size_t len = expire_at_ms != 0 ? 8 : 0;
        uint8_t *at = pack_splice(env, slot, 0, len_was, len);
        if (at == NULL)
                return false;
        struct crdt_pack *pack = *slot;
        pack->flags = (uint8_t)((pack->flags & ~PACK_EXPIRES) | (len > 0 ? PACK_EXPIRES : 0));
        if (len > 0)
                u64_write(at, expire_at_ms);
        pack->ttl_hlc = stamp.hlc;
        pack->ttl_origin = stamp.origin;
        return true;
}

/* ---- changes of other regions */

/* A field that is not older than the delta's: both stay, and there may be a conflict. */
static bool hash_fresh(struct crdt_pack *pack, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                const uint8_t *element = element_find(pack, name_read(&cursor));
                name_read(&cursor);
                if (!at_end(pack, element) && !stamp_before(dot_read_at(element + 1), delta->stamp))
                        return false;
        }
        return true;
}

static bool apply_hset(struct crdt_env *env, struct crdt_pack **slot,
                       const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        if (delta->elements.len > 0 || !hash_fresh(*slot, delta))
                return false;
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes field = name_read(&cursor);
                struct bytes value = name_read(&cursor);
                if (!crdt_pack_put(&env->table, slot, field, delta->stamp))
                        return false;
                if (env->native != NULL)
                        env->native->hash_set(env->native->context, env->name, field, value);
        }
        return true;
}

static bool apply_sadd(struct crdt_env *env, struct crdt_pack **slot,
                       const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes member = name_read(&cursor);
                unsigned was = (*slot)->live;
                if (!crdt_pack_put(&env->table, slot, member, delta->stamp))
                        return false;
                if (env->native != NULL && (*slot)->live > was)
                        env->native->set_add(env->native->context, env->name, member);
        }
        return true;
}

static bool apply_zadd(struct crdt_env *env, struct crdt_pack **slot,
                       const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        if (delta->elements.len > 0)
                return false;
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes member = name_read(&cursor);
                double score = crdt_score_read(&cursor);
                if (!crdt_pack_score_put(&env->table, slot, member, delta->stamp, score))
                        return false;
                if (env->native != NULL)
                        env->native->zset_add(env->native->context, env->name, member, score);
        }
        return true;
}

/* A push that is later than all others stands at the end. */
static bool apply_push(struct crdt_env *env, struct crdt_pack **slot, struct stamp last,
                       const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        uint8_t where = cursor_u8(&cursor);
        bool head = where == CRDT_LIST_HEAD;
        if (where > CRDT_LIST_HEAD || delta->stamp.hlc <= last.hlc)
                return false;
        uint64_t rank = head || env->native == NULL ? 0 : crdt_pack_length(*slot, CRDT_LIST);
        uint64_t count = cursor_varint(&cursor);
        if (!crdt_pack_push(&env->table, slot, head, (uint32_t)count, delta->stamp))
                return false;
        for (uint64_t i = 0; i < count && env->native != NULL; i++)
                env->native->list_insert(env->native->context, env->name, rank + i,
                                         name_read(&cursor));
        return true;
}

bool crdt_pack_apply(struct crdt_env *env, struct crdt_pack **slot, struct stamp last,
                     const struct crdt_delta *delta)
{
        struct crdt_pack *pack = *slot;
        struct stamp ttl = {pack->ttl_hlc, pack->ttl_origin};
        bool created = (delta->flags & CRDT_FLAG_CREATED) != 0 && stamp_before(ttl, delta->stamp);
        if (((created || pack_empty(pack)) && (pack->flags & PACK_EXPIRES) != 0) ||
            !stamp_before(pack_killed(pack), delta->stamp))
                return false;
        bool done = false;
        if (delta->op == CRDT_OP_HSET && pack_type(pack) == PACK_HASH)
                done = apply_hset(env, slot, delta);
        else if (delta->op == CRDT_OP_SADD && pack_type(pack) == PACK_SET)
                done = apply_sadd(env, slot, delta);
        else if (delta->op == CRDT_OP_LIST_INSERT && pack_type(pack) == PACK_LIST)
                done = apply_push(env, slot, last, delta);
        else if (delta->op == CRDT_OP_ZADD && pack_type(pack) == PACK_ZSET)
                done = apply_zadd(env, slot, delta);
        if (done && created) {
                (*slot)->ttl_hlc = delta->stamp.hlc;
                (*slot)->ttl_origin = delta->stamp.origin;
        }
        return done;
}

/* ---- what need not be remembered */

uint64_t crdt_pack_collect(const struct table_env *env, struct crdt_pack **slot, uint64_t stable)
{
        uint64_t count = 0;
        if (pack_type(*slot) != PACK_HASH || (*slot)->live == (*slot)->count)
                return 0;
        size_t at = pack_body_at(*slot);
        while (at < (*slot)->len) {
                const uint8_t *element = (*slot)->bytes + at;
                bool goes = (element[1] & DOT_REMOVED) != 0 && u64_read(element + 2) <= stable;
                if (goes)
                        element_drop(env, slot, element);
                else
                        at += element_len(*slot, element);
                count += goes;
        }
        return count;
}
