/* Slices of a large key (slice.h): the walk of the one who tells, and the marks and judgement of
 * the one who merges. A walk may find the key changed from one slice to the next: what stays is
 * told, as with table_scan, and what is new may be. Nothing fails but memory. */
#include "crdt/slice.h"

#include "base/check.h"
#include "crdt/list.h"
#include "crdt/lists.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

enum {
        MARK_FIRST = 1,
        MARK_LAST = 2,
        MARK_JUDGES = 4,
        ROUND_MAX = UINT8_MAX,
        BITS_MAX = 32,
        EMPTY_BUCKETS_MAX = 8, /* of a table, for each item that a slice may tell */
        JUDGED_TOLD = 8,       /* to judge an item takes so much less than to merge it */
};

enum section {
        SECTION_FIELDS,
        SECTION_MEMBERS,
        SECTION_SCORES,
        SECTION_ELEMENTS,
        SECTION_ENTRIES,
        SECTION_JUDGE,
};

void slice_mark_write(struct crdt_slice_mark mark, struct buffer *buffer)
{
        buffer_u8(buffer, (uint8_t)((mark.first ? MARK_FIRST : 0) | (mark.last ? MARK_LAST : 0) |
                                    (mark.judges ? MARK_JUDGES : 0)));
        if (!mark.judges)
                return;
        buffer_varint(buffer, mark.bits);
        buffer_varint(buffer, mark.class);
}

struct crdt_slice_mark slice_mark_read(struct cursor *cursor)
{
        uint8_t flags = cursor_u8(cursor);
        struct crdt_slice_mark mark = {.there = true,
                                       .first = (flags & MARK_FIRST) != 0,
                                       .last = (flags & MARK_LAST) != 0,
                                       .judges = (flags & MARK_JUDGES) != 0};
        if (flags > (MARK_FIRST | MARK_LAST | MARK_JUDGES))
                cursor_fail(cursor, ERR_MALFORMED);
        if (!mark.judges)
                return mark;
        mark.bits = (uint8_t)cursor_varint_max(cursor, BITS_MAX);
        mark.class = cursor_varint_max(cursor, ((uint64_t)1 << mark.bits) - 1);
        return mark;
}

/* ---- telling */

struct walk {
        const struct crdt_env *env;
        struct slice_budget budget;
        struct slice_body *body;
};

static void field_tell(void *context, struct node *node)
{
        struct walk *walk = context;
        size_t from = walk->body->fields.len;
        field_write_state(walk->env, item_of(node), CRDT_STATE_VALUES, &walk->body->fields);
        walk->body->field_count++;
        slice_spend(&walk->budget, walk->body->fields.len - from);
}

static void member_tell(void *context, struct node *node)
{
        struct walk *walk = context;
        size_t from = walk->body->members.len;
        slice_member_write(item_of(node), &walk->body->members);
        walk->body->member_count++;
        slice_spend(&walk->budget, walk->body->members.len - from);
}

static void score_tell(void *context, struct node *node)
{
        struct walk *walk = context;
        size_t from = walk->body->scores.len;
        zset_member_write(zset_member_of(node), &walk->body->scores);
        walk->body->score_count++;
        slice_spend(&walk->budget, walk->body->scores.len - from);
}

static bool walk_open(const struct walk *walk)
{
        return walk->budget.items > 0 && walk->budget.bytes > 0;
}

/* True where the table is told to its end. */
static bool table_tell(struct walk *walk, struct crdt_slice *slice, const struct table *table,
                       void (*tell)(void *context, struct node *node))
{
        uint64_t buckets = walk->budget.items * EMPTY_BUCKETS_MAX;
        if (table == NULL)
                return true;
        for (; walk_open(walk) && buckets > 0; buckets--) {
                slice->at = table_scan(table, slice->at, tell, walk);
                if (slice->at == 0)
                        return true;
        }
        return false;
}

static bool elements_tell(struct walk *walk, struct crdt_slice *slice, const struct crdt *crdt)
{
        struct slice_body *body = walk->body;
        body->elements_told = true;
        return list_slice_write(walk->env, crdt->list, &slice->point, &walk->budget,
                                &body->elements_range, &body->elements);
}

static bool entries_tell(struct walk *walk, struct crdt_slice *slice, const struct crdt *crdt)
{
        struct slice_body *body = walk->body;
        body->entries_told = true;
        return stream_slice_write(walk->env, crdt->stream, &slice->id, &walk->budget,
                                  &body->entries_range, &body->entries);
}

static size_t tables_count(const struct crdt *crdt)
{
        return (crdt->fields == NULL ? 0 : crdt->fields->table.count) +
               (crdt->members == NULL ? 0 : crdt->members->table.count) +
               (crdt->zset == NULL ? 0 : crdt->zset->table.count);
}

/* One class a slice. A single one goes with the last of the elements. */
static bool judge_tell(struct walk *walk, struct crdt_slice *slice)
{
        struct crdt_slice_mark *mark = &walk->body->mark;
        if (slice->bits > 0 && !walk_open(walk))
                return false;
        mark->judges = true;
        mark->bits = slice->bits;
        mark->class = slice->at++;
        mark->last = slice->at >> slice->bits != 0;
        walk->budget.items = 0;
        return mark->last;
}

/* True where the section is at its end. */
static bool section_tell(struct walk *walk, struct crdt_slice *slice, const struct crdt *crdt)
{
        switch ((enum section)slice->section) {
        case SECTION_FIELDS:
                return table_tell(walk, slice, crdt->fields == NULL ? NULL : &crdt->fields->table,
                                  field_tell);
        case SECTION_MEMBERS:
                return table_tell(walk, slice, crdt->members == NULL ? NULL : &crdt->members->table,
                                  member_tell);
        case SECTION_SCORES:
                return table_tell(walk, slice, crdt->zset == NULL ? NULL : &crdt->zset->table,
                                  score_tell);
        case SECTION_ELEMENTS:
                return elements_tell(walk, slice, crdt);
        case SECTION_ENTRIES:
                return entries_tell(walk, slice, crdt);
        case SECTION_JUDGE:
                return judge_tell(walk, slice);
        }
        UNREACHABLE("every section is above");
}

static uint8_t bits_for(uint64_t count, uint64_t items_max)
{
        uint8_t bits = 0;
        while (bits < BITS_MAX && items_max << bits < count)
                bits++;
        return bits;
}

static void section_next(struct crdt_slice *slice, const struct crdt *crdt, uint64_t items_max)
{
        slice->section++;
        slice->at = 0;
        if (slice->section == SECTION_JUDGE)
                slice->bits = bits_for(tables_count(crdt), items_max * JUDGED_TOLD);
}

static bool section_waits(const struct walk *walk, const struct crdt_slice *slice)
{
        return slice->section == SECTION_JUDGE ? slice->bits > 0 && !walk_open(walk)
                                               : !walk_open(walk);
}

enum err crdt_slice_encode(const struct crdt_env *env, const struct crdt *crdt,
                           struct crdt_slice *slice, uint64_t items_max, uint64_t bytes_max,
                           struct buffer *buffer, bool *ret_done)
{
        struct slice_body body;
        *ret_done = crdt->evicted || crdt->partial;
        if (*ret_done)
                return crdt_state_encode(env, crdt, CRDT_STATE_VALUES, buffer);
        slice_body_init(&body, env->table.heap);
        body.mark.first = !slice->begun;
        slice->begun = true;
        struct walk walk = {env, {items_max, bytes_max}, &body};
        while (!body.mark.last && !section_waits(&walk, slice)) {
                if (!section_tell(&walk, slice, crdt) || body.mark.last)
                        break;
                section_next(slice, crdt, items_max);
        }
        enum err err = slice_body_write(env, crdt, &body, buffer);
        *ret_done = body.mark.last;
        slice_body_fini(&body);
        return err;
}

void crdt_slice_fini(struct crdt_slice *slice)
{
        buffer_fini(&slice->point);
}

/* ---- merging */

static void items_unmark(const struct crdt_items *items)
{
        struct table_walk walk = {0};
        struct node *node = items == NULL ? NULL : table_next(&items->table, &walk);
        for (; node != NULL; node = table_next(&items->table, &walk))
                item_of(node)->one.mark = 0;
}

static void scores_unmark(const struct crdt_zset *zset)
{
        struct table_walk walk = {0};
        struct node *node = zset == NULL ? NULL : table_next(&zset->table, &walk);
        for (; node != NULL; node = table_next(&zset->table, &walk))
                zset_member_of(node)->one.mark = 0;
}

void slice_round_begin(struct crdt *crdt)
{
        if (crdt->round == ROUND_MAX) {
                items_unmark(crdt->fields);
                items_unmark(crdt->members);
                scores_unmark(crdt->zset);
                crdt->round = 0;
        }
        crdt->round++;
}

void slice_judge(struct crdt_env *env, struct crdt *crdt, struct crdt_slice_mark mark,
                 const struct crdt_seen *begin)
{
        struct table_class class = {mark.bits, mark.class};
        fields_absent(env, crdt, begin, class);
        members_absent(env, crdt, begin, class);
        zset_absent(env, crdt, begin, class);
}
