/* search.c - the search for an order of one part.
 *
 * Calls and answers lie in a list by time. The search walks it from the front: at a call, the
 * operation is tried next if the model lets it; then its call and answer leave the list and the
 * walk begins anew. At an answer nothing more can come before it but operations without an answer,
 * which have a list of their own and are tried last, since most of them are not needed. When none
 * of those helps, the newest choice was wrong: it is put back, and the walk goes on behind it.
 *
 * A set of operations that leads to a state is tried once: both together are remembered as a hash
 * of 128 bits. Two that hash alike would hide a good order; at 2^26 states the chance is below
 * 2^-76.
 *
 * Operations without an answer make the search hard: any of them may or may not be in the set. So a
 * first search lets each of them happen any number of times, and leaves them out of the set. What
 * has no order even so is bad. Else a second search looks for an order in which they happen at most
 * once. */
#include "base/check.h"
#include "base/hash.h"
#include "linear/linear_priv.h"

#define NONE    SIZE_MAX
#define RUN_ANY UINT32_MAX

struct mark {
        uint64_t a;
        uint64_t b;
};

struct tried {
        struct mark *marks; /* all zero: free */
        size_t size;        /* a power of two */
        size_t count;
};

/* A call or an answer. */
struct point {
        uint64_t at;
        size_t next;
        size_t before;
        size_t op;
        size_t match; /* of a call: its answer, or NONE; of an answer: NONE */
        bool call;
};

/* The heads of the two lists. */
enum {
        ANSWERED = 0,
        UNANSWERED = 1,
        HEADS = 2,
};

struct choice {
        size_t point;
        unsigned run; /* of operations without an answer, this one included, up to here */
        bool sure; /* changes nothing, now or later: where there is an order, one begins with it */
        struct linear_state state; /* before it */
};

struct search {
        struct heap *heap;
        linear_step *step;
        linear_idle *idle;
        const struct linear_part *part;
        const struct linear_op *all;
        unsigned run_max;     /* of operations without an answer, one after the other */
        bool cut;             /* a longer run was left out */
        bool often;           /* operations without an answer may happen any number of times */
        struct point *points; /* the heads of the lists, then calls and answers */
        struct choice *choices;
        size_t choice_count, choice_size;
        struct linear_state state;
        struct mark set; /* of the operations that were chosen */
        struct tried tried;
        size_t answered; /* of the choices */
        size_t best;
        size_t best_op;
        size_t blocked; /* the answer that nothing else can come before */
};

static struct mark mark_of(uint64_t kind, const void *data, size_t len)
{
        struct hash_key left = {0x6c696e656172, kind}, right = {0x6d61726b, ~kind};
        return (struct mark){hash_sip(left, bytes_of(data, len)),
                             hash_sip(right, bytes_of(data, len))};
}

static struct mark mark_op(size_t op)
{
        return mark_of(1, &op, sizeof op);
}

static struct mark mark_state(const struct search *search, uint64_t kind,
                              const struct linear_state *state)
{
        return mark_of(kind, state->words, search->part->words * sizeof state->words[0]);
}

static struct mark mark_join(struct mark left, struct mark right)
{
        return (struct mark){left.a ^ right.a, left.b ^ right.b};
}

static struct mark *tried_place(const struct tried *tried, struct mark mark)
{
        size_t at = mark.a & (tried->size - 1);
        while ((tried->marks[at].a | tried->marks[at].b) != 0 &&
               (tried->marks[at].a != mark.a || tried->marks[at].b != mark.b))
                at = (at + 1) & (tried->size - 1);
        return &tried->marks[at];
}

static bool tried_grow(struct heap *heap, struct tried *tried)
{
        if (tried->count * 2 < tried->size)
                return true;
        struct tried larger = {.size = tried->size == 0 ? 1024 : tried->size * 2,
                               .count = tried->count};
        if (tried->count >= LINEAR_TRIED_MAX)
                return false;
        larger.marks = heap_alloc_array(heap, larger.size, sizeof *larger.marks);
        if (larger.marks == NULL)
                return false;
        for (size_t i = 0; i < tried->size; i++)
                if ((tried->marks[i].a | tried->marks[i].b) != 0)
                        *tried_place(&larger, tried->marks[i]) = tried->marks[i];
        heap_free(heap, tried->marks);
        *tried = larger;
        return true;
}

static void point_leave(struct search *search, size_t at)
{
        struct point *point = &search->points[at];
        search->points[point->before].next = point->next;
        if (point->next != NONE)
                search->points[point->next].before = point->before;
}

static void point_return(struct search *search, size_t at)
{
        struct point *point = &search->points[at];
        search->points[point->before].next = at;
        if (point->next != NONE)
                search->points[point->next].before = at;
}

enum outcome {
        OUTCOME_NO,
        OUTCOME_YES,
        OUTCOME_NOMEM,
};

static bool choices_grow(struct search *search)
{
        if (search->choice_count < search->choice_size)
                return true;
        size_t size = search->choice_size == 0 ? 256 : 2 * search->choice_size;
        struct choice *choices = heap_resize(search->heap, search->choices, size * sizeof *choices);
        if (choices == NULL)
                return false;
        search->choices = choices;
        search->choice_size = size;
        return true;
}

/* Operations that may happen often stay where they are. */
static bool stays(const struct search *search, const struct point *point)
{
        return search->often && point->match == NONE;
}

static void choice_do(struct search *search, size_t at)
{
        const struct point *point = &search->points[at];
        if (stays(search, point))
                return;
        search->set = mark_join(search->set, mark_op(point->op));
        point_leave(search, at);
        if (point->match != NONE)
                point_leave(search, point->match);
}

static void choice_undo(struct search *search, size_t at)
{
        const struct point *point = &search->points[at];
        if (stays(search, point))
                return;
        search->set = mark_join(search->set, mark_op(point->op));
        if (point->match != NONE)
                point_return(search, point->match);
        point_return(search, at);
}

/* How long the run of operations without an answer is that the choices end with. */
static unsigned run_now(const struct search *search)
{
        return search->choice_count == 0 ? 0 : search->choices[search->choice_count - 1].run;
}

/* What is tried once: the choices and the state, and within a run where it began, which says what
 * may follow. */
static struct mark mark_now(const struct search *search, const struct linear_state *state,
                            bool unanswered)
{
        struct mark mark = mark_join(search->set, mark_state(search, 2, state));
        if (!unanswered || search->run_max == RUN_ANY)
                return mark;
        unsigned run = run_now(search);
        const struct linear_state *start =
                run == 0 ? &search->state : &search->choices[search->choice_count - run].state;
        return mark_join(mark, mark_state(search, 3 + run, start));
}

/* An operation comes into a run, or behind one, only where that is of use. */
static bool needed(struct search *search, const struct point *point)
{
        unsigned run = run_now(search);
        bool good = run < search->run_max;
        if (point->match != NONE && run > 0 && search->run_max != RUN_ANY) {
                struct linear_state state = search->choices[search->choice_count - run].state;
                good = !search->step(search->part, &state, &search->all[point->op]);
        } else if (point->match != NONE) {
                good = true;
        }
        search->cut = search->cut || (!good && search->run_max != 1);
        return good;
}

/* Takes the operation of a call next, where the model lets it and that is new. */
static enum outcome choose(struct search *search, size_t at)
{
        const struct point *point = &search->points[at];
        const struct linear_op *op = &search->all[point->op];
        struct linear_state state = search->state;
        if (!needed(search, point))
                return OUTCOME_NO;
        if (!search->step(search->part, &state, op))
                return OUTCOME_NO;
        bool same = memcmp(&state, &search->state, sizeof state) == 0;
        if (same && point->match == NONE)
                return OUTCOME_NO; /* it may as well never have happened */
        if (!tried_grow(search->heap, &search->tried) || !choices_grow(search))
                return OUTCOME_NOMEM;
        choice_do(search, at);
        struct mark mark = mark_now(search, &state, point->match == NONE);
        struct mark *place = tried_place(&search->tried, mark);
        if ((place->a | place->b) != 0) {
                choice_undo(search, at);
                return OUTCOME_NO;
        }
        *place = mark;
        search->tried.count++;
        search->answered += point->match != NONE;
        unsigned run = point->match == NONE ? run_now(search) + 1 : 0;
        search->choices[search->choice_count++] = (struct choice){
                .point = at, .run = run, .sure = same && search->idle(op), .state = search->state};
        search->state = state;
        return OUTCOME_YES;
}

/* Puts the newest choice back; false: there was no other way. */
static bool undo(struct search *search, size_t *ret_at)
{
        while (search->choice_count > 0) {
                const struct choice *choice = &search->choices[--search->choice_count];
                const struct point *point = &search->points[choice->point];
                choice_undo(search, choice->point);
                search->answered -= point->match != NONE;
                search->state = choice->state;
                *ret_at = choice->point;
                if (!choice->sure)
                        return true;
        }
        return false;
}

/* Of the calls without an answer the last before the first answer: most of what happens at all
 * happens soon after its call. */
static size_t unanswered_last(const struct search *search)
{
        size_t at = UNANSWERED;
        for (;;) {
                size_t next = search->points[at].next;
                if (next == NONE || search->points[next].at > search->points[search->blocked].at)
                        return at == UNANSWERED ? NONE : at;
                at = next;
        }
}

/* The next point to look at behind `at`; NONE: all have been tried. After the calls that lie before
 * the first answer come those without an answer, from the last to the first. */
static size_t walk_next(struct search *search, size_t at)
{
        const struct point *points = search->points;
        if (at >= HEADS && points[at].match == NONE)
                return points[at].before == UNANSWERED ? NONE : points[at].before;
        size_t next = points[at].next;
        if (points[next].call)
                return next;
        search->blocked = next;
        return unanswered_last(search);
}

static enum linear_verdict walk(struct search *search)
{
        size_t at = ANSWERED;
        while (search->points[ANSWERED].next != NONE) {
                at = walk_next(search, at);
                if (at != NONE) {
                        enum outcome outcome = choose(search, at);
                        if (outcome == OUTCOME_NOMEM)
                                return LINEAR_UNKNOWN;
                        if (outcome == OUTCOME_YES)
                                at = ANSWERED;
                        continue;
                }
                if (search->answered >= search->best) {
                        search->best = search->answered;
                        search->best_op = search->points[search->blocked].op;
                }
                if (!undo(search, &at))
                        return LINEAR_BAD;
        }
        return LINEAR_GOOD;
}

/* ---- the list ---- */

/* A place in time. A call comes before an answer at the same time: they may have met. */
struct moment {
        uint64_t at;
        size_t op;
        bool answer;
};

static bool moment_before(const struct moment *a, const struct moment *b)
{
        if (a->at != b->at)
                return a->at < b->at;
        return a->answer != b->answer ? b->answer : a->op < b->op;
}

static void moment_sink(struct moment *moments, size_t at, size_t count)
{
        for (size_t child; (child = 2 * at + 1) < count; at = child) {
                if (child + 1 < count && moment_before(&moments[child], &moments[child + 1]))
                        child++;
                if (!moment_before(&moments[at], &moments[child]))
                        return;
                struct moment moved = moments[at];
                moments[at] = moments[child];
                moments[child] = moved;
        }
}

static void moments_sort(struct moment *moments, size_t count)
{
        for (size_t i = count / 2; i > 0; i--)
                moment_sink(moments, i - 1, count);
        for (size_t last = count; last > 1; last--) {
                struct moment moved = moments[0];
                moments[0] = moments[last - 1];
                moments[last - 1] = moved;
                moment_sink(moments, 0, last - 1);
        }
}

static void point_append(struct search *search, size_t *last, size_t at)
{
        search->points[at].before = *last;
        search->points[*last].next = at;
        *last = at;
}

/* `calls` is scratch: where the call of each operation lies. */
static void points_fill(struct search *search, const struct moment *moments, size_t count,
                        size_t *calls)
{
        size_t last[HEADS] = {ANSWERED, UNANSWERED};
        for (size_t i = 0; i < HEADS; i++)
                search->points[i] = (struct point){.next = NONE, .match = NONE};
        for (size_t i = 0; i < count; i++) {
                size_t at = i + HEADS;
                const struct linear_op *op = &search->all[moments[i].op];
                search->points[at] = (struct point){.at = moments[i].at,
                                                    .next = NONE,
                                                    .op = moments[i].op,
                                                    .match = NONE,
                                                    .call = !moments[i].answer};
                if (moments[i].answer)
                        search->points[calls[moments[i].op]].match = at;
                else
                        calls[moments[i].op] = at;
                point_append(search, &last[op->returned == LINEAR_NEVER ? UNANSWERED : ANSWERED],
                             at);
        }
}

static bool points_make(struct search *search, size_t all_count, const size_t *ops, size_t count)
{
        struct moment *moments = heap_alloc_array(search->heap, 2 * count, sizeof *moments);
        size_t *calls = heap_alloc_array(search->heap, all_count, sizeof *calls);
        search->points = heap_alloc_array(search->heap, 2 * count + HEADS, sizeof *search->points);
        bool made = moments != NULL && calls != NULL && search->points != NULL;
        size_t found = 0;
        for (size_t i = 0; made && i < count; i++) {
                const struct linear_op *op = &search->all[ops[i]];
                CHECK(op->returned >= op->called);
                moments[found++] = (struct moment){op->called, ops[i], false};
                if (op->returned != LINEAR_NEVER)
                        moments[found++] = (struct moment){op->returned, ops[i], true};
        }
        if (made) {
                moments_sort(moments, found);
                points_fill(search, moments, found, calls);
        }
        heap_free(search->heap, moments);
        heap_free(search->heap, calls);
        return made;
}

static enum linear_verdict search_once(struct search *search, bool often, unsigned run_max,
                                       struct linear_report *report)
{
        search->often = often;
        search->run_max = run_max;
        search->cut = false;
        enum linear_verdict verdict = walk(search);
        report->op = search->best_op;
        report->after = search->best;
        report->tried += search->tried.count;
        /* The choices of a good order are undone, so that the lists are whole again. */
        size_t at;
        while (search->choice_count > 0 && undo(search, &at))
                continue;
        heap_free(search->heap, search->tried.marks);
        search->tried = (struct tried){0};
        search->best = search->answered = 0;
        search->state = (struct linear_state){{0}};
        return verdict == LINEAR_BAD && search->cut && run_max != RUN_ANY ? LINEAR_UNKNOWN
                                                                          : verdict;
}

static enum linear_verdict search_all(struct search *search, unsigned run_max,
                                      struct linear_report *report)
{
        enum linear_verdict verdict = search_once(search, true, run_max, report);
        if (verdict == LINEAR_UNKNOWN)
                verdict = search_once(search, true, RUN_ANY, report);
        if (verdict != LINEAR_GOOD || search->points[UNANSWERED].next == NONE)
                return verdict;
        verdict = search_once(search, false, run_max, report);
        if (verdict == LINEAR_UNKNOWN)
                verdict = search_once(search, false, RUN_ANY, report);
        if (verdict != LINEAR_UNKNOWN)
                return verdict;
        report->often = true;
        return LINEAR_GOOD;
}

void linear_search(struct heap *heap, enum linear_model model, const struct linear_part *part,
                   const struct linear_op *all, size_t all_count, const size_t *ops, size_t count,
                   struct linear_report *report)
{
        bool locks = model == LINEAR_LOCKS;
        struct search search = {.heap = heap, .part = part, .all = all};
        search.step = locks ? linear_step_locks : linear_step_values;
        search.idle = locks ? linear_idle_locks : linear_idle_values;
        report->verdict = LINEAR_UNKNOWN;
        if (points_make(&search, all_count, ops, count))
                report->verdict = search_all(&search, locks ? 1 : 3, report);
        heap_free(heap, search.points);
        heap_free(heap, search.choices);
}
