/* exposure.c - how much of a primary's commits no other region has, and since when. The marks are
 * samples; where one has to go, what lies behind it counts as older than it is, never as younger.
 * Cannot fail. */
#include "primary/primary.h"

static const struct primary_mark *last_mark(const struct primary_exposure *exposure)
{
        return &exposure->marks[exposure->count - 1];
}

/* One goes whose neighbours are close together, beside how old they are. */
static void marks_thin(struct primary_exposure *exposure)
{
        const struct primary_mark *marks = exposure->marks;
        unsigned drop = 1;
        uint64_t least = UINT64_MAX;
        for (unsigned i = 1; i + 1 < exposure->count; i++) {
                uint64_t gap_us = marks[i + 1].at_us - marks[i - 1].at_us;
                uint64_t age_us = last_mark(exposure)->at_us - marks[i - 1].at_us;
                uint64_t share = gap_us * 1024 / (age_us + 1);
                if (share < least) {
                        least = share;
                        drop = i;
                }
        }
        exposure->count--;
        memmove(exposure->marks + drop, exposure->marks + drop + 1,
                (exposure->count - drop) * sizeof exposure->marks[0]);
}

void primary_exposure_sample(struct primary_exposure *exposure, uint64_t epoch, uint64_t lsn,
                             uint64_t at_us, bool held)
{
        struct primary_mark mark = {lsn, at_us};
        if (epoch != exposure->epoch || exposure->count == 0) {
                *exposure = (struct primary_exposure){
                        .epoch = epoch, .begun = lsn, .over = held, .count = 1};
                exposure->marks[0] = mark;
                return;
        }
        struct primary_mark *last = &exposure->marks[exposure->count - 1];
        if (at_us < last->at_us || lsn < last->lsn)
                return;
        if (lsn == last->lsn) {
                last->at_us = at_us;
                return;
        }
        if (exposure->count == PRIMARY_MARKS_MAX)
                marks_thin(exposure);
        exposure->marks[exposure->count++] = mark;
}

void primary_exposure_known(struct primary_exposure *exposure, uint64_t lsn)
{
        unsigned first = 0;
        if (lsn <= exposure->known)
                return;
        exposure->known = lsn;
        while (first + 1 < exposure->count && exposure->marks[first + 1].lsn <= lsn)
                first++;
        if (first == 0)
                return;
        exposure->count -= first;
        memmove(exposure->marks, exposure->marks + first,
                exposure->count * sizeof exposure->marks[0]);
}

uint64_t primary_exposure_bytes(const struct primary_exposure *exposure)
{
        if (exposure->count == 0)
                return 0;
        uint64_t known = exposure->known != 0 ? exposure->known : exposure->begun;
        uint64_t lsn = last_mark(exposure)->lsn;
        return lsn > known ? lsn - known : 0;
}

uint64_t primary_exposure_age_us(const struct primary_exposure *exposure, uint64_t now_us)
{
        if (primary_exposure_bytes(exposure) == 0 || now_us < exposure->marks[0].at_us)
                return 0;
        return now_us - exposure->marks[0].at_us;
}

bool primary_exposure_look(struct primary_exposure *exposure, const struct primary_limit *limit,
                           uint64_t now_us)
{
        uint64_t share = exposure->over ? 2 : 1;
        uint64_t age_us = primary_exposure_age_us(exposure, now_us);
        uint64_t bytes = primary_exposure_bytes(exposure);
        bool limited = limit->age_us != 0 || limit->bytes != 0;
        bool before = exposure->over && exposure->known < exposure->begun;
        exposure->over =
                limited && (before || (limit->age_us != 0 && age_us > limit->age_us / share) ||
                            (limit->bytes != 0 && bytes > limit->bytes / share));
        return exposure->over;
}
