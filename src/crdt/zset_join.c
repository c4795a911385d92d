/* What changes of sorted sets do to the members that they name: removals and cuts of what was
 * observed, increments. Fails only by memory, as zset.h says. */
#include "crdt/zset.h"

#include "base/check.h"
#include "crdt/counter.h"
#include "crdt/lists.h"

static void cuts_join(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                      struct cursor *cursor, uint64_t hlc)
{
        unsigned part_last = 0;
        uint64_t count = cursor_varint(cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count cut = cut_read(cursor, UINT64_MAX, &part_last);
                struct crdt_count *own =
                        member == NULL ? NULL : zset_slot(env, crdt, member, cut.origin, cut.life);
                if (own != NULL)
                        count_cut(own, cut.cut_hlc, cut.cut);
        }
        if (member != NULL)
                zset_touch(member, hlc);
}

static void observed_one(struct crdt_env *env, struct crdt *crdt, struct cursor *cursor,
                         uint64_t hlc)
{
        struct zset_member *member = zset_get(env, crdt, name_read(cursor));
        struct zset_shown was = member == NULL ? (struct zset_shown){0} : zset_shown(member);
        region_id origin_last = 0;
        uint64_t dots = cursor_varint(cursor);
        for (uint64_t i = 0; i < dots; i++) {
                struct crdt_dot dot = dot_read(cursor, UINT64_MAX, &origin_last);
                if (member != NULL)
                        zset_dot_remove(env, crdt, member, dot_stamp(dot));
        }
        cuts_join(env, crdt, member, cursor, hlc);
        if (member != NULL)
                zset_changed(env, crdt, member, was);
}

void zset_observed(struct crdt_env *env, struct crdt *crdt, struct bytes elements, uint64_t hlc)
{
        struct cursor cursor = cursor_of(elements);
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor))
                observed_one(env, crdt, &cursor, hlc);
        CHECK(!cursor_failed(&cursor));
}

void zset_cut(struct crdt_env *env, struct crdt *crdt, struct bytes scores, uint64_t hlc)
{
        struct cursor cursor = cursor_of(scores);
        env->scores_cut = env->scores_cut || scores.len > 0;
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                struct zset_member *member = zset_get(env, crdt, name_read(&cursor));
                cuts_join(env, crdt, member, &cursor, hlc);
        }
        CHECK(!cursor_failed(&cursor));
}

void zset_count(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct zset_member *member = zset_get(env, crdt, delta->field);
        struct zset_shown was = member == NULL ? (struct zset_shown){0} : zset_shown(member);
        struct crdt_count *count =
                member == NULL ? NULL
                               : zset_slot(env, crdt, member, delta->stamp.origin, delta->part);
        if (count == NULL)
                return;
        count_raise(count, delta->stamp.hlc, delta->total);
        if ((delta->flags & CRDT_FLAG_CUTS) != 0)
                count_cut(count, delta->cut_hlc, delta->cut);
        zset_touch(member, delta->stamp.hlc);
        zset_changed(env, crdt, member, was);
}
