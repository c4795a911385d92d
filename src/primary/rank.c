/* Who has most, and whether enough have told to be sure of it. Cannot fail. */
#include "primary/primary.h"

#include "base/check.h"

static bool has_data(const struct primary_candidate *candidate)
{
        return candidate->report.server != PRIMARY_ABSENT;
}

/* Does `a` come before `b`? */
static bool before(const struct primary_candidate *first, const struct primary_candidate *second,
                   const struct primary_rules *rules)
{
        const struct primary_report *a = &first->report;
        const struct primary_report *b = &second->report;
        if (a->epoch != b->epoch)
                return a->epoch > b->epoch;
        if (a->written != b->written)
                return a->written > b->written;
        if ((a->node == rules->designated) != (b->node == rules->designated))
                return a->node == rules->designated;
        if ((a->region == rules->region) != (b->region == rules->region))
                return a->region == rules->region;
        if (first->priority != second->priority)
                return first->priority < second->priority;
        return a->node < b->node;
}

static const struct primary_candidate *best_of(const struct primary_candidate *candidates,
                                               size_t count, uint64_t system,
                                               const struct primary_rules *rules)
{
        const struct primary_candidate *best = NULL;
        for (size_t i = 0; i < count; i++) {
                const struct primary_report *report = &candidates[i].report;
                if (!candidates[i].fresh || !report->eligible || !has_data(&candidates[i]) ||
                    report->system != system)
                        continue;
                if (best == NULL || before(&candidates[i], best, rules))
                        best = &candidates[i];
        }
        return best;
}

static bool has_told(const struct primary_candidate *candidate, uint64_t system)
{
        return candidate->fresh && candidate->report.system == system;
}

static bool one_region(const struct primary_candidate *candidates, size_t count)
{
        for (size_t i = 1; i < count; i++) {
                if (candidates[i].report.region != candidates[0].report.region)
                        return false;
        }
        return true;
}

/* May an acknowledged commit be known to nobody but those that have not told? That would be its
 * primary, and `sync` of those that it waited for: of other regions, where there are any. */
static bool hidden(const struct primary_candidate *candidates, size_t count, uint64_t system,
                   const struct primary_rules *rules)
{
        bool alone = one_region(candidates, count);
        for (size_t i = 0; i < count; i++) {
                unsigned others = 0;
                for (size_t j = 0; j < count; j++) {
                        bool waited = j != i && (alone || candidates[j].report.region !=
                                                                  candidates[i].report.region);
                        others += waited && !has_told(&candidates[j], system);
                }
                if (!has_told(&candidates[i], system) && others >= rules->sync)
                        return true;
        }
        return false;
}

static bool sure(const struct primary_candidate *candidates, size_t count, uint64_t system,
                 const struct primary_rules *rules)
{
        bool all = true;
        for (size_t i = 0; i < count; i++) {
                if (!candidates[i].fresh && !candidates[i].gone)
                        return false;
                all = all && candidates[i].fresh;
        }
        return rules->sync == 0 || all || !hidden(candidates, count, system, rules);
}

static bool all_empty(const struct primary_candidate *candidates, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (!candidates[i].fresh || has_data(&candidates[i]))
                        return false;
        }
        return true;
}

static bool somebody_has(const struct primary_candidate *candidates, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (candidates[i].fresh && has_data(&candidates[i]))
                        return true;
        }
        return false;
}

uint64_t primary_loss(const struct primary_report *own, const struct primary_rules *rules)
{
        if (own->epoch < rules->epoch)
                return UINT64_MAX;
        if (own->epoch > rules->epoch || own->written >= rules->written)
                return 0;
        return rules->written - own->written;
}

struct primary_standing primary_rank(const struct primary_candidate *candidates, size_t count,
                                     node_id self, const struct primary_rules *rules)
{
        struct primary_standing ret = {.rank = PRIMARY_RANK_UNSURE};
        const struct primary_candidate *own = NULL;
        CHECK(count <= PRIMARY_NODES_MAX);
        for (size_t i = 0; i < count; i++) {
                if (candidates[i].report.node == self)
                        own = &candidates[i];
        }
        if (own == NULL || !own->fresh)
                return ret;
        if (all_empty(candidates, count)) {
                ret.rank = PRIMARY_RANK_EMPTY;
                return ret;
        }
        if (!has_data(own)) {
                if (somebody_has(candidates, count))
                        ret.rank = PRIMARY_RANK_BEHIND;
                return ret;
        }
        const struct primary_candidate *best =
                best_of(candidates, count, own->report.system, rules);
        ret.best = best == NULL ? 0 : best->report.node;
        ret.latest = own->report.epoch >= rules->epoch;
        ret.loss = primary_loss(&own->report, rules);
        ret.loss_over = ret.loss == UINT64_MAX || (rules->sync == 0 && ret.loss > rules->loss_max);
        if (best != own)
                ret.rank = PRIMARY_RANK_BEHIND;
        else if (sure(candidates, count, own->report.system, rules))
                ret.rank = PRIMARY_RANK_BEST;
        return ret;
}
