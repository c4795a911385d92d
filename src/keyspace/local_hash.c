/* Hashes changed here: what a write has observed of increments goes with it, then the change goes
 * the way of local.c. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

#include <stdio.h>

/* The body is made before the stamp is issued: `text` is the room for it. */
static enum err body_publish(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                             enum crdt_op op, struct keyspace_change *ret)
{
        if (keyspace->text.err != ERR_NONE)
                return keyspace->text.err;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, op, ret))
                return ERR_NONE;
        return items_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, op,
                             buffer_view(&keyspace->text), ret);
}

enum err keyspace_local_hash_set(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                 const struct keyspace_pair *pairs, size_t count,
                                 struct keyspace_change *ret)
{
        CHECK(count > 0);
        bool fit = name_fits(name);
        for (size_t i = 0; i < count; i++)
                fit = fit && pairs[i].field.len <= CRDT_NAME_LEN_MAX &&
                      pairs[i].value.len <= CRDT_NAME_LEN_MAX;
        if (!fit)
                return ERR_LIMIT;
        buffer_reset(&keyspace->text);
        buffer_varint(&keyspace->text, count);
        for (size_t i = 0; i < count; i++) {
                buffer_slice(&keyspace->text, pairs[i].field);
                buffer_slice(&keyspace->text, pairs[i].value);
        }
        return body_publish(keyspace, wall_ms, name, CRDT_OP_HSET, ret);
}

enum err keyspace_local_hash_delete(struct keyspace *keyspace, uint64_t wall_ms,
                                    struct crdt_name name, const struct bytes *fields, size_t count,
                                    struct keyspace_change *ret)
{
        CHECK(count > 0);
        if (!names_fit(name, fields, count))
                return ERR_LIMIT;
        buffer_reset(&keyspace->text);
        buffer_varint(&keyspace->text, count);
        for (size_t i = 0; i < count; i++)
                buffer_slice(&keyspace->text, fields[i]);
        return body_publish(keyspace, wall_ms, name, CRDT_OP_HDEL, ret);
}

/* ---- increments */

static enum err field_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                              struct bytes field, struct crdt_totals amount, struct bytes before,
                              struct keyspace_change *ret)
{
        struct crdt *crdt = entry->crdt;
        bool counted = false;
        const struct crdt_count *own =
                crdt_field_count(&keyspace->env, crdt, field, keyspace->config.origin,
                                 keyspace_life(keyspace), &counted);
        struct crdt_count next =
                count_next(keyspace, own, counted, stamp, (int64_t)amount.whole, amount.part);
        bool open = crdt_field_open(&keyspace->env, crdt, field);
        uint8_t flags = created_flag(entry);
        flags |= crdt_count_flags(&next) | (open ? CRDT_FLAG_BASE : 0);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_HCOUNT, flags, entry_name(entry));
        buffer_slice(delta, field);
        crdt_count_encode(delta, &next);
        if (open)
                buffer_bytes(delta, before);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

/* Whether the total stays one that can be told. */
static bool amount_fits(struct keyspace *keyspace, const struct entry *entry, struct bytes field,
                        struct crdt_totals amount)
{
        bool counted = false;
        const struct crdt_count *own =
                crdt_field_count(&keyspace->env, entry->crdt, field, keyspace->config.origin,
                                 keyspace_life(keyspace), &counted);
        return own == NULL || (count_fits(own, (int64_t)amount.whole) &&
                               __builtin_isfinite(amount.part + own->total.part));
}

static enum err hash_increment(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                               struct bytes field, struct crdt_totals amount, struct bytes before,
                               struct keyspace_change *ret)
{
        if (!names_fit(name, &field, 1))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL || entry_full(keyspace, entry) == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_HCOUNT, ret))
                return ERR_NONE;
        if (!amount_fits(keyspace, entry, field, amount))
                return ERR_INVALID;
        enum err err = field_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, field,
                                     amount, before, ret);
        if (err != ERR_NONE)
                return err;
        ret->rewrite = crdt_field_text(&keyspace->env, entry->crdt, field, &keyspace->text);
        ret->text = buffer_view(&keyspace->text);
        return keyspace->text.err;
}

enum err keyspace_local_hash_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                       struct crdt_name name, struct bytes field, int64_t amount,
                                       int64_t value_after, struct keyspace_change *ret)
{
        char before[32];
        char after[32];
        int before_len = snprintf(before, sizeof before, "%lld",
                                  (long long)((uint64_t)value_after - (uint64_t)amount));
        int after_len = snprintf(after, sizeof after, "%lld", (long long)value_after);
        enum err err = hash_increment(keyspace, wall_ms, name, field,
                                      (struct crdt_totals){(uint64_t)amount, 0},
                                      bytes_of(before, (size_t)before_len), ret);
        if (err == ERR_NONE && bytes_equal(ret->text, bytes_of(after, (size_t)after_len)))
                ret->rewrite = false;
        return err;
}

enum err keyspace_local_hash_increment_float(struct keyspace *keyspace, uint64_t wall_ms,
                                             struct crdt_name name, struct bytes field,
                                             double amount, struct bytes value_before,
                                             struct keyspace_change *ret)
{
        double before = 0;
        if ((value_before.len > 0 && !crdt_number(value_before, &before)) ||
            !__builtin_isfinite(before + amount))
                return ERR_INVALID;
        if (value_before.len == 0)
                value_before = BYTES("0");
        return hash_increment(keyspace, wall_ms, name, field, crdt_amount(amount, before),
                              value_before, ret);
}
