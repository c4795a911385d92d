/* The memory of what was asked: by node, a ring of answers by sequence. A new incarnation forgets
 * the old one's; a full table forgets whoever has been silent the longest. */
#include "base/check.h"
#include "council/council_priv.h"

static size_t asker_place(const struct repeats *repeats, uint32_t node)
{
        size_t low = 0;
        size_t high = repeats->count;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (repeats->askers[middle].node < node)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static struct asker *asker_find(struct repeats *repeats, uint32_t node)
{
        size_t at = asker_place(repeats, node);
        if (at == repeats->count || repeats->askers[at].node != node)
                return NULL;
        return &repeats->askers[at];
}

static void asker_free(struct repeats *repeats, struct asker *asker)
{
        for (size_t i = 0; i < REPEATS_PAGES; i++)
                heap_free(repeats->heap, asker->pages[i]);
}

static struct answer *place_of(const struct asker *asker, uint64_t sequence)
{
        size_t at = sequence % COUNCIL_REPEATS_MAX;
        struct answer *page = asker->pages[at / REPEATS_PAGE];
        return page == NULL ? NULL : &page[at % REPEATS_PAGE];
}

struct answer *repeats_place(struct repeats *repeats, struct asker *asker, uint64_t sequence)
{
        struct answer **page = &asker->pages[sequence % COUNCIL_REPEATS_MAX / REPEATS_PAGE];
        if (*page == NULL)
                *page = heap_alloc_array(repeats->heap, REPEATS_PAGE, sizeof **page);
        return place_of(asker, sequence);
}

const struct answer *repeats_answer(const struct asker *asker, uint64_t sequence)
{
        const struct answer *answer = place_of(asker, sequence);
        return answer != NULL && answer->sequence == sequence ? answer : NULL;
}

static void asker_forget_silent(struct repeats *repeats)
{
        size_t silent = 0;
        for (size_t i = 1; i < repeats->count; i++) {
                if (repeats->askers[i].index < repeats->askers[silent].index)
                        silent = i;
        }
        asker_free(repeats, &repeats->askers[silent]);
        repeats->count--;
        memmove(&repeats->askers[silent], &repeats->askers[silent + 1],
                (repeats->count - silent) * sizeof repeats->askers[0]);
}

struct asker *repeats_asker(struct repeats *repeats, uint32_t node)
{
        struct asker *asker = asker_find(repeats, node);
        if (asker != NULL)
                return asker;
        if (repeats->count == COUNCIL_NODES_MAX)
                asker_forget_silent(repeats);
        size_t at = asker_place(repeats, node);
        memmove(&repeats->askers[at + 1], &repeats->askers[at],
                (repeats->count - at) * sizeof repeats->askers[0]);
        repeats->count++;
        repeats->askers[at] = (struct asker){.node = node};
        return &repeats->askers[at];
}

void repeats_fini(struct repeats *repeats)
{
        for (size_t i = 0; i < repeats->count; i++)
                asker_free(repeats, &repeats->askers[i]);
        repeats->count = 0;
}

static void asker_restart(struct asker *asker, uint64_t incarnation)
{
        asker->incarnation = incarnation;
        asker->highest = 0;
        for (size_t i = 0; i < REPEATS_PAGES; i++)
                if (asker->pages[i] != NULL)
                        memset(asker->pages[i], 0, REPEATS_PAGE * sizeof *asker->pages[i]);
}

enum repeat repeats_look(struct repeats *repeats, const struct lock_origin *origin, uint64_t index,
                         struct answer *ret)
{
        CHECK(origin->node != 0 && origin->sequence != 0);
        struct asker *asker = repeats_asker(repeats, origin->node);
        if (asker == NULL)
                return REPEAT_NOMEM;
        if (origin->incarnation < asker->incarnation)
                return REPEAT_OLD;
        if (origin->incarnation > asker->incarnation)
                asker_restart(asker, origin->incarnation);
        if (asker->highest >= COUNCIL_REPEATS_MAX &&
            origin->sequence <= asker->highest - COUNCIL_REPEATS_MAX)
                return REPEAT_OLD;
        asker->index = index;
        struct answer *answer = repeats_place(repeats, asker, origin->sequence);
        if (answer == NULL)
                return REPEAT_NOMEM;
        if (answer->sequence == origin->sequence) {
                *ret = *answer;
                return REPEAT_KNOWN;
        }
        *answer = (struct answer){.sequence = origin->sequence, .kind = COUNCIL_DONE};
        if (origin->sequence > asker->highest)
                asker->highest = origin->sequence;
        return REPEAT_NEW;
}

void repeats_keep(struct repeats *repeats, const struct lock_origin *origin,
                  const struct answer *answer)
{
        struct asker *asker = asker_find(repeats, origin->node);
        if (asker == NULL || asker->incarnation != origin->incarnation)
                return;
        struct answer *place = place_of(asker, origin->sequence);
        if (place == NULL || place->sequence != origin->sequence)
                return;
        *place = *answer;
        place->sequence = origin->sequence;
}
