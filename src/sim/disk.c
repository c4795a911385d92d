/* disk.c - journals, byte by byte. What is written is in memory until a sync that began after it
 * has ended. A crash keeps all that was synced and any prefix of the rest, whose end may be
 * damaged. A replacement is atomic: the old journal or the whole new one, never a mixture. */
#include "sim/sim_priv.h"

static uint64_t sync_time(struct sim *sim)
{
        return sim->swarm.sync_us + sim_below(sim, STREAM_DISK, sim->swarm.sync_jitter_us + 1);
}

static void begin_sync(struct sim *sim, struct host *host, uint32_t group)
{
        struct sim_journal *journal = &host->journals[group];
        const struct buffer *bytes = journal->replacing ? &journal->next : &journal->bytes;
        if (journal->syncing || host->disk_broken)
                return;
        if (!journal->replacing && bytes->len == journal->synced)
                return;
        journal->syncing = true;
        journal->sync_to = bytes->len;
        journal->sync_id++;
        struct sim_event event = {.at_us = sim->now_us + sync_time(sim),
                                  .kind = EVENT_SYNC,
                                  .a = host->index,
                                  .b = group,
                                  .generation = journal->sync_id};
        queue_push(&sim->queue, &event);
}

/* Told by an event of its own: `b` is beyond the groups. */
static void aside_begin_sync(struct sim *sim, struct host *host, uint32_t group)
{
        struct sim_journal *journal = &host->journals[group];
        if (journal->aside_syncing || host->disk_broken ||
            journal->aside.len == journal->aside_synced)
                return;
        journal->aside_syncing = true;
        journal->aside_sync_to = journal->aside.len;
        journal->aside_sync_id++;
        struct sim_event event = {.at_us = sim->now_us + sync_time(sim),
                                  .kind = EVENT_SYNC,
                                  .a = host->index,
                                  .b = WORLD_GROUP_COUNT + group,
                                  .generation = journal->aside_sync_id};
        queue_push(&sim->queue, &event);
}

static void aside_drop(struct sim_journal *journal)
{
        buffer_reset(&journal->aside);
        journal->aside_synced = 0;
        journal->aside_syncing = false;
        journal->aside_sync_id++;
}

static void aside_append(struct sim *sim, struct sim_journal *journal,
                         const struct world_effect *effect)
{
        if (effect->journal.offset == 0) {
                aside_drop(journal);
                journal->aside_generation = effect->journal.generation;
        }
        if (effect->journal.generation != journal->aside_generation ||
            effect->journal.offset != journal->aside.len)
                sim_violation(sim, "contract: a piece at %llu of %zu of a new journal",
                              (unsigned long long)effect->journal.offset, journal->aside.len);
        buffer_bytes(&journal->aside, effect->journal.data);
}

/* What was written aside is a replacement now, with its last piece. */
static void aside_swap(struct sim *sim, struct sim_journal *journal,
                       const struct world_effect *effect)
{
        if (journal->aside_synced != journal->aside.len)
                sim_violation(sim, "contract: a swap of a journal that is not durable");
        aside_append(sim, journal, effect);
        buffer_reset(&journal->next);
        struct buffer old = journal->next;
        journal->next = journal->aside;
        journal->aside = old;
        aside_drop(journal);
        journal->replacing = true;
        journal->next_generation = effect->journal.generation;
        journal->syncing = false;
        journal->sync_id++;
        sim_cover(sim, COVER_SNAPSHOT);
}

static void fail(struct sim *sim, struct host *host, enum world_group group)
{
        struct world_event event = {.kind = WORLD_JOURNAL_FAILED};
        event.journal_failed.group = group;
        event.journal_failed.err = ERR_NOSPACE;
        sim_post(sim, host, 1, parcel_new(sim, &event, bytes_of(NULL, 0)));
}

/* Space made ready is found again after a crash, as zeros; the node goes on before them. */
static void zeros_overwrite(struct sim *sim, struct sim_journal *journal, uint64_t offset)
{
        bool zeros = offset <= journal->bytes.len;
        for (size_t i = (size_t)offset; zeros && i < journal->bytes.len; i++)
                zeros = journal->bytes.ptr[i] == 0;
        if (!zeros || (offset < journal->bytes.len && journal->syncing)) {
                sim_violation(sim, "contract: append at %llu of %zu", (unsigned long long)offset,
                              journal->bytes.len);
                return;
        }
        journal->bytes.len = (size_t)offset;
        if (journal->synced > journal->bytes.len)
                journal->synced = journal->bytes.len;
}

void disk_append(struct sim *sim, struct host *host, const struct world_effect *effect)
{
        enum world_group group = effect->journal.group;
        struct sim_journal *journal = &host->journals[group];
        if (host->disk_broken) {
                fail(sim, host, group);
                return;
        }
        if (effect->kind == WORLD_JOURNAL_REPLACE) {
                journal->replacing = true;
                journal->next_generation = effect->journal.generation;
                buffer_reset(&journal->next);
                buffer_bytes(&journal->next, effect->journal.data);
                journal->syncing = false;
                journal->sync_id++;
                aside_drop(journal);
                sim_cover(sim, COVER_SNAPSHOT);
        } else if (effect->kind == WORLD_JOURNAL_SWAP) {
                aside_swap(sim, journal, effect);
        } else if (effect->kind == WORLD_JOURNAL_ASIDE) {
                aside_append(sim, journal, effect);
                aside_begin_sync(sim, host, group);
        } else if (journal->replacing && effect->journal.generation == journal->next_generation) {
                buffer_bytes(&journal->next, effect->journal.data);
        } else if (effect->journal.generation == journal->generation) {
                zeros_overwrite(sim, journal, effect->journal.offset);
                buffer_bytes(&journal->bytes, effect->journal.data);
        } else {
                sim_violation(sim, "contract: append to generation %llu, which is not there",
                              (unsigned long long)effect->journal.generation);
        }
        CHECK(journal->bytes.err == ERR_NONE && journal->next.err == ERR_NONE &&
              journal->aside.err == ERR_NONE);
        begin_sync(sim, host, group);
        faults_while_writing(sim, host, journal->replacing || journal->aside.len > 0);
}

static void swap(struct sim_journal *journal)
{
        struct buffer old = journal->bytes;
        journal->bytes = journal->next;
        journal->next = old;
        journal->generation = journal->next_generation;
        journal->replacing = false;
}

static void told(struct sim *sim, struct host *host, uint32_t group, uint64_t generation,
                 uint64_t offset)
{
        struct world_event event = {.kind = WORLD_JOURNAL_SYNCED};
        host->journals[group].known = true;
        event.synced.group = (enum world_group)group;
        event.synced.generation = generation;
        event.synced.offset = offset;
        sim_post(sim, host, 0, parcel_new(sim, &event, bytes_of(NULL, 0)));
}

static void aside_sync_done(struct sim *sim, struct host *host, uint32_t group, uint64_t id)
{
        struct sim_journal *journal = &host->journals[group];
        if (!journal->aside_syncing || journal->aside_sync_id != id || host->node == NULL)
                return;
        journal->aside_syncing = false;
        journal->aside_synced = journal->aside_sync_to;
        told(sim, host, group, journal->aside_generation, journal->aside_synced);
        aside_begin_sync(sim, host, group);
}

void disk_sync_done(struct sim *sim, struct host *host, uint32_t group, uint64_t id)
{
        if (group >= WORLD_GROUP_COUNT) {
                aside_sync_done(sim, host, group - WORLD_GROUP_COUNT, id);
                return;
        }
        struct sim_journal *journal = &host->journals[group];
        if (!journal->syncing || journal->sync_id != id || host->node == NULL)
                return;
        journal->syncing = false;
        if (journal->replacing)
                swap(journal);
        journal->synced = journal->sync_to;
        told(sim, host, group, journal->generation, journal->synced);
        begin_sync(sim, host, group);
}

static void tear(struct sim *sim, struct sim_journal *journal)
{
        size_t loose = journal->bytes.len - journal->synced;
        size_t kept = (size_t)sim_below(sim, STREAM_DISK, loose + 1);
        if (kept < loose)
                sim_cover(sim, COVER_CRASH_UNSYNCED);
        journal->bytes.len = journal->synced + kept;
        if (kept == 0 || sim_chance(sim, STREAM_DISK, 500))
                return;
        size_t damaged = 1 + (size_t)sim_below(sim, STREAM_DISK, kept < 64 ? kept : 64);
        for (size_t i = 0; i < damaged; i++)
                if (sim_chance(sim, STREAM_DISK, 300))
                        journal->bytes.ptr[journal->bytes.len - 1 - i] ^=
                                (uint8_t)(1 + sim_below(sim, STREAM_DISK, 255));
        sim_cover(sim, COVER_CRASH_TORN);
}

/* What was made ready and not written yet. No random draw: the seeds stay what they are. */
static void space_ready(struct sim_journal *journal)
{
        for (uint64_t i = 0; i < journal->sync_id % 97; i++)
                buffer_u8(&journal->bytes, 0);
        CHECK(journal->bytes.err == ERR_NONE);
}

void disk_crash(struct sim *sim, struct host *host)
{
        for (uint32_t i = 0; i < WORLD_GROUP_COUNT; i++) {
                struct sim_journal *journal = &host->journals[i];
                if (journal->replacing) {
                        sim_cover(sim, COVER_CRASH_REPLACE);
                        /* The rename may have reached the disk with all that the file held then. */
                        if (sim_chance(sim, STREAM_DISK, 300)) {
                                size_t whole = journal->sync_to;
                                swap(journal);
                                journal->synced =
                                        whole < journal->bytes.len ? whole : journal->bytes.len;
                        }
                }
                tear(sim, journal);
                journal->replacing = journal->syncing = false;
                journal->sync_id++;
                journal->generation = 0;
                buffer_reset(&journal->next);
                aside_drop(journal);
                if (journal->sync_id % 3 == 0)
                        space_ready(journal);
                journal->synced = journal->bytes.len;
        }
}
