/* commits.c - up to where a primary has committed, and what its slots retain.
 *
 * The log of an idle server grows too, but nobody loses by that. So a look counts the commits that
 * the gate has seen: where none has begun since all of those of the look before had ended, the log
 * has grown by nothing that counts. The counts are read around the place in the log, in the order
 * in which they can only err to the other side. What fails is not told, and looked at again. */
#include "warden/warden_priv.h"

#include <stdlib.h>

#define SLOTS_EVERY_US 1000000
#define ASK_MS         1000
#define LATE_US        2000000 /* a commit that does not wait for the disk is there after that */

void commits_before(struct warden *warden, struct commits *ret)
{
        *ret = (struct commits){.boot = atomic_load(&warden->gate->boot),
                                .ended = atomic_load(&warden->gate->ended)};
}

void commits_after(struct warden *warden, struct commits *now, struct world_postgres *ret)
{
        const struct commits *last = &warden->commits;
        bool none = last->boot == now->boot && last->timeline == ret->timeline &&
                    last->ended == atomic_load(&warden->gate->begun);
        now->timeline = ret->timeline;
        now->last_us = none ? last->last_us : gate_now_us();
        none = none && gate_now_us() > now->last_us + LATE_US;
        now->committed = none ? last->committed : ret->written;
        warden->commits = *now;
        ret->committed = now->committed;
}

static void slots_read(struct warden *warden, const PGresult *result)
{
        int rows = PQntuples(result);
        struct slots *slots = &warden->slots;
        *slots = (struct slots){.next_us = slots->next_us};
        for (int i = 0; i < rows && i < WORLD_POSTGRES_SLOTS_MAX; i++) {
                struct world_postgres_slot *slot = &slots->items[i];
                long long most = strtoll(PQgetvalue(result, i, 0), NULL, 10);
                if (most > 0)
                        slots->most = (uint64_t)most;
                if (PQgetisnull(result, i, 1) != 0)
                        continue;
                (void)snprintf(slot->name, sizeof slot->name, "%s", PQgetvalue(result, i, 1));
                slot->active = PQgetvalue(result, i, 2)[0] == 't';
                slot->lost = PQgetvalue(result, i, 3)[0] == 't';
                slot->retained = strtoull(PQgetvalue(result, i, 4), NULL, 10);
                slots->count++;
        }
}

void slots_look(struct warden *warden, struct world_postgres *ret)
{
        static const char text[] =
                "SELECT pg_size_bytes(current_setting('max_slot_wal_keep_size')), s.* "
                "FROM (SELECT 1) one LEFT JOIN (SELECT slot_name, active, "
                "coalesce(wal_status = 'lost', false), "
                "greatest(coalesce(pg_current_wal_lsn() - restart_lsn, 0), 0)::bigint AS bytes "
                "FROM pg_replication_slots) s ON true ORDER BY s.bytes DESC LIMIT 16";
        struct fail fail;
        struct slots *slots = &warden->slots;
        uint64_t now_us = gate_now_us();
        if (now_us >= slots->next_us && sql_own(warden, &fail)) {
                slots->next_us = now_us + SLOTS_EVERY_US;
                PGresult *result = sql_ask(warden, warden->sql, text, ASK_MS, &fail);
                if (result != NULL)
                        slots_read(warden, result);
                else
                        sql_close(warden);
                PQclear(result);
        }
        ret->slot_max = slots->most;
        ret->slot_count = slots->count;
        memcpy(ret->slots, slots->items, sizeof ret->slots);
}
