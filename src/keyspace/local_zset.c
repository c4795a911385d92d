/* Sorted sets changed here. What a write has seen of a member goes with it: its dots of other
 * origins and its increments. Then the change goes the way of local.c. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

/* What is seen of the members that a ZADD's body names. */
static void body_observed(struct keyspace *keyspace, const struct crdt *crdt, struct bytes body,
                          struct buffer *delta)
{
        region_id self = keyspace->config.origin;
        struct cursor cursor = cursor_of(body);
        uint64_t count = cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct bytes member = cursor_slice(&cursor);
                cursor_u64(&cursor);
                if (crdt_score_observed(&keyspace->env, crdt, member, self))
                        crdt_score_observed_encode(&keyspace->env, crdt, member, self, delta);
        }
        CHECK(!cursor_failed(&cursor));
}

static bool body_has_observed(struct keyspace *keyspace, const struct crdt *crdt, struct bytes body)
{
        struct cursor cursor = cursor_of(body);
        uint64_t count = cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct bytes member = cursor_slice(&cursor);
                cursor_u64(&cursor);
                if (crdt_score_observed(&keyspace->env, crdt, member, keyspace->config.origin))
                        return true;
        }
        return false;
}

enum err scores_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        struct bytes body, struct keyspace_change *ret)
{
        if (change_is_part(entry, CRDT_OP_ZADD, ret))
                return ERR_NONE;
        uint8_t flags;
        if (pack_body(keyspace, entry, CRDT_OP_ZADD, stamp, body, &flags)) {
                buffer_bytes(delta_begin(keyspace, stamp, CRDT_OP_ZADD, flags, entry_name(entry)),
                             body);
                if (keyspace->delta.err != ERR_NONE)
                        return keyspace->delta.err;
                change_publish(keyspace, stamp, ret);
                return ERR_NONE;
        }
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        flags = created_flag(entry);
        if (crdt->zset != NULL && body_has_observed(keyspace, crdt, body))
                flags |= CRDT_FLAG_ELEMENTS;
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_ZADD, flags, entry_name(entry));
        buffer_bytes(delta, body);
        if ((flags & CRDT_FLAG_ELEMENTS) != 0)
                body_observed(keyspace, crdt, body, delta);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

/* The body is made before the stamp is issued: `text` is the room for it. */
enum err keyspace_local_zset_add(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                 const struct keyspace_score *scores, size_t count,
                                 struct keyspace_change *ret)
{
        CHECK(count > 0);
        bool fit = name_fits(name);
        for (size_t i = 0; i < count; i++)
                fit = fit && scores[i].member.len <= CRDT_NAME_LEN_MAX;
        if (!fit)
                return ERR_LIMIT;
        buffer_reset(&keyspace->text);
        buffer_varint(&keyspace->text, count);
        for (size_t i = 0; i < count; i++) {
                buffer_slice(&keyspace->text, scores[i].member);
                crdt_score_encode(&keyspace->text, scores[i].score);
        }
        if (keyspace->text.err != ERR_NONE)
                return keyspace->text.err;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_ZADD, ret))
                return ERR_NONE;
        return scores_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry,
                              buffer_view(&keyspace->text), ret);
}

enum err keyspace_local_zset_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                    struct crdt_name name, const struct bytes *members,
                                    size_t count, struct keyspace_change *ret)
{
        CHECK(count > 0);
        if (!names_fit(name, members, count))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        struct crdt *crdt = entry == NULL ? NULL : entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_ZREM, ret))
                return ERR_NONE;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_ZREM, 0, name);
        buffer_varint(delta, count);
        for (size_t i = 0; i < count; i++)
                crdt_score_observed_encode(&keyspace->env, crdt, members[i], 0, delta);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

static enum err count_tell(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                           struct bytes member, const struct crdt_count *next,
                           struct keyspace_change *ret)
{
        uint8_t flags = created_flag(entry) | crdt_count_flags(next);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_ZCOUNT, flags, entry_name(entry));
        buffer_slice(delta, member);
        crdt_count_encode(delta, next);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err keyspace_local_zset_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                       struct crdt_name name, struct bytes member, double amount,
                                       double after, struct keyspace_change *ret)
{
        if (!names_fit(name, &member, 1))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        struct crdt *crdt = entry == NULL ? NULL : entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_ZCOUNT, ret))
                return ERR_NONE;
        struct crdt_count next;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        if (crdt_score_next(&keyspace->env, crdt, member, stamp, keyspace_life(keyspace), amount,
                            after, &next))
                return count_tell(keyspace, stamp, entry, member, &next, ret);
        buffer_reset(&keyspace->text);
        buffer_varint(&keyspace->text, 1);
        buffer_slice(&keyspace->text, member);
        crdt_score_encode(&keyspace->text, after);
        if (keyspace->text.err != ERR_NONE)
                return keyspace->text.err;
        return scores_publish(keyspace, stamp, entry, buffer_view(&keyspace->text), ret);
}

static const struct entry *look(const struct keyspace *keyspace, struct crdt_name name,
                                uint64_t hash)
{
        const struct node *node =
                table_look_hashed(&keyspace->table, hash, (uint16_t)name.db, name.key);
        const struct entry *entry = (const struct entry *)node;
        return node == NULL || entry_short(entry) ? NULL : entry;
}

enum crdt_member keyspace_zset_look_hashed(const struct keyspace *keyspace, struct crdt_name name,
                                           uint64_t hash, struct bytes member, uint64_t shipped,
                                           double *ret_score)
{
        const struct entry *entry = look(keyspace, name, hash);
        return entry == NULL ? CRDT_MEMBER_ABSENT
                             : entry_zset_look(keyspace, entry, member, 0, shipped, ret_score);
}

enum crdt_member keyspace_zset_look(const struct keyspace *keyspace, struct crdt_name name,
                                    struct bytes member, uint64_t shipped, double *ret_score)
{
        return keyspace_zset_look_hashed(keyspace, name, keyspace_name_hash(keyspace, name), member,
                                         shipped, ret_score);
}

uint64_t keyspace_zset_length(const struct keyspace *keyspace, struct crdt_name name)
{
        const struct entry *entry = look(keyspace, name, keyspace_name_hash(keyspace, name));
        if (entry == NULL)
                return 0;
        return entry->node.kind == ENTRY_PACK ? crdt_pack_length(entry->pack, CRDT_ZSET)
                                              : crdt_zset_length(entry->crdt);
}

void keyspace_zset_each(const struct keyspace *keyspace, struct crdt_name name,
                        void (*each)(void *context, struct bytes member, double score),
                        void *context)
{
        const struct entry *entry = look(keyspace, name, keyspace_name_hash(keyspace, name));
        if (entry != NULL && entry->node.kind == ENTRY_PACK)
                crdt_pack_scores(entry->pack, each, context);
        else if (entry != NULL)
                crdt_zset_each(entry->crdt, each, context);
}
