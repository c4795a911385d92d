/* copies.c - what nodes keep of the changes of other regions' locks, judged by what the regions
 * did. Whatever a node of a region has applied is written down here when it has; a copy, read as
 * who asks for it reads it, is compared with that whenever it has grown, and once more as a whole
 * at the end.
 *
 *   a change that is told      happened there, and is told in its order
 *   one that is left out       lies in a gap that is told
 *   how far a copy knows       never goes back, and is not beyond what the region did
 *   when all is quiet          each copy knows of the last change of its region
 *
 * What no node of a region was seen to apply (it came in a state) is not judged. */
#include "base/buffer.h"
#include "council/council.h"
#include "lock/lock.h"
#include "sim/sim_priv.h"

#include <stdio.h>

struct change {
        uint64_t id;
        uint64_t digest;
};

struct deeds {
        struct change *changes; /* by id */
        size_t count, size;
        uint64_t last;   /* how far they are known */
        uint64_t unseen; /* what happened up to here may lack */
};

struct seen {
        uint64_t generation; /* of the process */
        uint64_t last;
};

struct copies {
        struct deeds deeds[REGIONS_MAX];
        struct seen seen[HOSTS_MAX][REGIONS_MAX];
        struct buffer told;
};

void copies_init(struct sim *sim)
{
        sim->copies = heap_alloc(&sim->heap, sizeof *sim->copies);
        CHECK(sim->copies != NULL);
        buffer_init(&sim->copies->told, &sim->heap);
}

void copies_fini(struct sim *sim)
{
        if (sim->copies == NULL)
                return;
        for (unsigned i = 0; i < REGIONS_MAX; i++)
                heap_free(&sim->heap, sim->copies->deeds[i].changes);
        buffer_fini(&sim->copies->told);
        heap_free(&sim->heap, sim->copies);
}

static uint64_t digest_of(const struct lock_event *event)
{
        uint64_t digest = hash_fnv(HASH_FNV_START, event->key);
        digest = hash_fnv(digest, event->owner) ^ (uint64_t)event->kind << 56;
        return digest ^ event->token.value * 0x9e3779b97f4a7c15u;
}

/* ---- what happened ---- */

static void deed_add(struct sim *sim, struct deeds *deeds, const struct lock_event *event)
{
        if (deeds->count == deeds->size) {
                deeds->size = deeds->size == 0 ? 256 : 2 * deeds->size;
                deeds->changes = heap_resize(&sim->heap, deeds->changes,
                                             deeds->size * sizeof *deeds->changes);
                CHECK(deeds->changes != NULL);
        }
        deeds->changes[deeds->count++] = (struct change){event->id, digest_of(event)};
}

static void deeds_follow(struct sim *sim, const struct host *host)
{
        struct deeds *deeds = &sim->copies->deeds[host->region];
        const struct lock_table *table =
                council_locks(node_council(host->node, WORLD_GROUP_REGION));
        uint64_t last = lock_event_last(table);
        if (last <= deeds->last)
                return;
        if (lock_events_forgotten(table, deeds->last))
                deeds->unseen = last;
        char prefix[8] = {'r', (char)('1' + host->region), ':'};
        struct lock_watch watch = {
                .key = bytes_of_str(prefix), .prefix = true, .after = deeds->last};
        struct lock_event event;
        while (lock_event_next(table, &watch, &event)) {
                deed_add(sim, deeds, &event);
                watch.after = event.id;
        }
        deeds->last = last;
}

/* The first after that id. */
static size_t deed_after(const struct deeds *deeds, uint64_t id)
{
        size_t low = 0, high = deeds->count;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (deeds->changes[middle].id <= id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* ---- what is told ---- */

struct reader {
        const struct host *host;
        uint32_t region;
        uint64_t at; /* all up to here is judged */
};

static void check_change(struct sim *sim, struct reader *reader, const struct lock_event *event)
{
        const struct deeds *deeds = &sim->copies->deeds[reader->region];
        size_t next = deed_after(deeds, reader->at);
        bool known = next < deeds->count && deeds->changes[next].id == event->id &&
                     deeds->changes[next].digest == digest_of(event);
        if (event->id <= reader->at)
                sim_violation(sim, "copy: node %u tells change %llu of region %u out of order",
                              reader->host->id, (unsigned long long)event->id, reader->region + 1);
        else if (!known && event->id > deeds->unseen)
                sim_violation(sim,
                              "copy: node %u tells change %llu of region %u, which did another "
                              "thing after %llu",
                              reader->host->id, (unsigned long long)event->id, reader->region + 1,
                              (unsigned long long)reader->at);
        reader->at = event->id;
}

/* Nothing happened after what was judged, up to there. */
static void check_nothing(struct sim *sim, struct reader *reader, uint64_t until)
{
        const struct deeds *deeds = &sim->copies->deeds[reader->region];
        size_t next = deed_after(deeds, reader->at);
        if (next < deeds->count && deeds->changes[next].id <= until)
                sim_violation(sim, "copy: node %u leaves out change %llu of region %u",
                              reader->host->id, (unsigned long long)deeds->changes[next].id,
                              reader->region + 1);
        if (until > reader->at)
                reader->at = until;
}

static void check_gap(struct sim *sim, struct reader *reader, const struct lock_event *gap)
{
        if (gap->id <= gap->token.value)
                sim_violation(sim, "copy: node %u tells a gap of region %u that is none",
                              reader->host->id, reader->region + 1);
        check_nothing(sim, reader, gap->token.value);
        sim_cover(sim, COVER_COPY_GAP);
        reader->at = gap->id;
}

static void copy_read(struct sim *sim, struct reader *reader, const struct lock_copy *copy)
{
        struct buffer *told = &sim->copies->told;
        struct lock_watch watch = {.prefix = true, .after = reader->at};
        struct lock_changes changes = {.more = true};
        while (changes.more && !sim->over) {
                buffer_reset(told);
                lock_copy_encode(copy, &watch, &changes, told);
                struct cursor cursor = cursor_of(buffer_view(told));
                struct lock_event event;
                while (!sim->over && lock_change_decode(&cursor, &event)) {
                        if (event.kind == LOCK_GAP)
                                check_gap(sim, reader, &event);
                        else
                                check_change(sim, reader, &event);
                }
                if (told->err != ERR_NONE || cursor_done(&cursor) != ERR_NONE)
                        sim_violation(sim, "contract: a copy that cannot be read");
                watch.after = changes.last;
        }
        if (!sim->over)
                check_nothing(sim, reader, lock_copy_state(copy).last);
}

static void check_copy(struct sim *sim, const struct host *host, uint32_t region)
{
        const struct lock_copy *copy = node_lock_copy(host->node, (region_id)(region + 1));
        struct seen *seen = &sim->copies->seen[host->index][region];
        if (seen->generation != host->generation)
                *seen = (struct seen){.generation = host->generation};
        if (copy == NULL)
                seen->last = 0; /* not followed, or not any more */
        uint64_t last = copy == NULL ? 0 : lock_copy_state(copy).last;
        if (last == seen->last)
                return;
        if (last < seen->last || last > sim->copies->deeds[region].last)
                sim_violation(sim,
                              "copy: node %u knows region %u up to %llu after %llu, which is at "
                              "%llu",
                              host->id, region + 1, (unsigned long long)last,
                              (unsigned long long)seen->last,
                              (unsigned long long)sim->copies->deeds[region].last);
        struct reader reader = {.host = host, .region = region, .at = seen->last};
        copy_read(sim, &reader, copy);
        seen->last = last;
        sim_cover(sim, COVER_COPY);
}

void copies_check(struct sim *sim, const struct host *host)
{
        if (sim->copies == NULL)
                return;
        deeds_follow(sim, host);
        for (uint32_t i = 0; i < sim->swarm.region_count && !sim->over; i++)
                check_copy(sim, host, i);
}

/* ---- when all is quiet ---- */

static bool has_copies(const struct sim *sim, const struct host *host)
{
        return host_in(sim, host) && sim->redis[host->region].exists;
}

bool copies_converged(struct sim *sim, char *why, size_t size)
{
        for (uint32_t i = 0; i < sim->host_count && sim->copies != NULL; i++) {
                const struct host *host = &sim->hosts[i];
                for (uint32_t k = 0; k < sim->swarm.region_count && has_copies(sim, host); k++) {
                        const struct deeds *deeds = &sim->copies->deeds[k];
                        if (k == host->region || !sim->redis[k].exists || deeds->count == 0)
                                continue;
                        const struct lock_copy *copy =
                                node_lock_copy(host->node, (region_id)(k + 1));
                        uint64_t last = deeds->changes[deeds->count - 1].id;
                        if (copy != NULL && lock_copy_state(copy).last >= last)
                                continue;
                        (void)snprintf(why, size,
                                       "node %u does not know what happened to the locks of region "
                                       "%u up to %llu",
                                       host->id, k + 1, (unsigned long long)last);
                        return false;
                }
        }
        return true;
}

void copies_check_end(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count && sim->copies != NULL; i++) {
                for (uint32_t k = 0; k < sim->swarm.region_count && !sim->over; k++) {
                        struct reader reader = {.host = &sim->hosts[i], .region = k};
                        const struct lock_copy *copy =
                                reader.host->node == NULL
                                        ? NULL
                                        : node_lock_copy(reader.host->node, (region_id)(k + 1));
                        if (copy != NULL)
                                copy_read(sim, &reader, copy);
                }
        }
}
