/* consistency.c - what a read on this standby waits for.
 *
 * A token is TIMELINE:POSITION in hexadecimal (00000001:0/3000148): a commit is here when this
 * standby has replayed that position on that timeline or on one that grew out of it. A token of an
 * older timeline whose position lies beyond the point where the next one began names a commit that
 * a failover has lost: that is an error at once, not a wait. A wait that lasts longer than
 * meridian.read_timeout is an error (57014), so a read is never silently old. */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "consistency.h"
#include "forward.h"

#define POLL_FAST_MS  1
#define POLL_SLOW_MS  10
#define POLL_FAST_FOR 50

static struct consistency_token own;
/* the primary committed for us, and where is not known: it must be asked */
static bool own_unknown;

bool consistency_parse(const char *text, struct consistency_token *ret)
{
        uint32 timeline;
        uint32 high;
        uint32 low;
        int end = 0;
        if (strlen(text) > 26 || strspn(text, "0123456789abcdefABCDEF:/") != strlen(text))
                return false;
        if (sscanf(text, "%8X:%8X/%8X%n", &timeline, &high, &low, &end) != 3 || text[end] != '\0')
                return false;
        if (timeline == 0)
                return false;
        *ret = (struct consistency_token){.timeline = timeline,
                                          .position = ((uint64)high << 32) | low};
        return true;
}

char *consistency_text(struct consistency_token token)
{
        return psprintf("%08X:%X/%X", token.timeline, LSN_FORMAT_ARGS(token.position));
}

bool consistency_check_token(char **text, void **extra, GucSource source)
{
        struct consistency_token token;
        (void)extra;
        (void)source;
        if (*text == NULL || **text == '\0' || consistency_parse(*text, &token))
                return true;
        GUC_check_errdetail("A commit token looks like 00000001:0/3000148.");
        return false;
}

struct consistency_token consistency_own(void)
{
        if (own_unknown && RecoveryInProgress()) {
                XLogRecPtr position = remote_position();
                own = (struct consistency_token){.timeline = remote.timeline, .position = position};
                own_unknown = false;
        }
        return own;
}

void consistency_committed(TimeLineID timeline, XLogRecPtr position)
{
        own_unknown = position == InvalidXLogRecPtr;
        if (!own_unknown)
                own = (struct consistency_token){.timeline = timeline, .position = position};
}

/* A token of another timeline: whether the history of this standby contains it. */
static void check_history(struct consistency_token token, TimeLineID ours)
{
        TimeLineID next;
        List *history = readTimeLineHistory(ours);
        XLogRecPtr end = InvalidXLogRecPtr;
        ListCell *cell;
        foreach (cell, history) {
                TimeLineHistoryEntry *entry = lfirst(cell);
                if (entry->tli == token.timeline)
                        end = tliSwitchPoint(token.timeline, history, &next);
        }
        if (end == InvalidXLogRecPtr || token.position > end)
                ereport(ERROR,
                        (errcode(ERRCODE_TRANSACTION_ROLLBACK),
                         errmsg("the commit %s was lost in a failover", consistency_text(token)),
                         errdetail("The cluster is on timeline %u, which does not contain it.",
                                   ours)));
}

static bool here(struct consistency_token token)
{
        TimeLineID ours;
        XLogRecPtr replayed;
        if (!RecoveryInProgress()) {
                ours = GetWALInsertionTimeLine();
                replayed = GetXLogInsertRecPtr();
        } else {
                replayed = GetXLogReplayRecPtr(&ours);
        }
        if (ours < token.timeline)
                return false;
        if (ours > token.timeline) {
                check_history(token, ours);
                return true;
        }
        return replayed >= token.position;
}

static bool wait_until(struct consistency_token token, int ms_max)
{
        TimestampTz start = GetCurrentTimestamp();
        if (token.position == InvalidXLogRecPtr || here(token))
                return true;
        forward_counters.waits++;
        for (;;) {
                long waited = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
                if (ms_max > 0 && waited >= ms_max)
                        return false;
                int what = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
                                     waited < POLL_FAST_FOR ? POLL_FAST_MS : POLL_SLOW_MS,
                                     PG_WAIT_EXTENSION);
                if ((what & WL_LATCH_SET) != 0)
                        ResetLatch(MyLatch);
                CHECK_FOR_INTERRUPTS();
                if (here(token))
                        return true;
        }
}

void consistency_wait_token(struct consistency_token token)
{
        if (wait_until(token, forward_config.read_timeout_ms))
                return;
        TimeLineID ours;
        XLogRecPtr replayed = GetXLogReplayRecPtr(&ours);
        ereport(ERROR,
                (errcode(ERRCODE_QUERY_CANCELED),
                 errmsg("this standby did not catch up within meridian.read_timeout"),
                 errdetail("Commit %s is awaited; %08X:%X/%X is replayed.", consistency_text(token),
                           ours, LSN_FORMAT_ARGS(replayed)),
                 errhint("Raise meridian.read_timeout, or read with meridian.read_consistency = "
                         "eventual.")));
}

bool consistency_wanted(void)
{
        if (forward_config.read_after != NULL && forward_config.read_after[0] != '\0')
                return true;
        if (forward_config.read_consistency == FORWARD_GLOBAL)
                return true;
        return forward_config.read_consistency == FORWARD_SESSION &&
               (own_unknown || own.position != InvalidXLogRecPtr);
}

void consistency_wait(void)
{
        struct consistency_token token;
        if (!RecoveryInProgress())
                return;
        if (forward_config.read_after != NULL &&
            consistency_parse(forward_config.read_after, &token))
                consistency_wait_token(token);
        if (forward_config.read_consistency == FORWARD_SESSION)
                consistency_wait_token(consistency_own());
        if (forward_config.read_consistency == FORWARD_GLOBAL) {
                token.position = remote_position();
                token.timeline = remote.timeline;
                consistency_wait_token(token);
        }
}

bool consistency_wait_own(int ms)
{
        return wait_until(consistency_own(), ms);
}
