/* A state in steps at its edges: what is refused when; a crash at each piece of the new journal,
 * and behind its swap; the same of a state that a leader sends. What happens between nodes is tried
 * in test_histories. */
#include "raft/consensus.h"

#include "base/buffer.h"
#include "base/hash.h"
#include "raft/members.h"
#include "raft/message.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static const uint32_t three[] = {7, 8, 9};

/* A disk: the journal, and the one that is being made beside it. */
struct disk {
        struct buffer journal;
        struct buffer aside;
        uint64_t aside_generation;
        size_t pieces;
        size_t swaps;
};

static void disk_init(struct disk *disk)
{
        *disk = (struct disk){0};
        buffer_init(&disk->journal, &heap);
        buffer_init(&disk->aside, &heap);
}

static void disk_fini(struct disk *disk)
{
        buffer_fini(&disk->journal);
        buffer_fini(&disk->aside);
}

static struct consensus *group_start(size_t voters, struct bytes journal,
                                     struct consensus_recovery *ret)
{
        struct consensus *consensus = NULL;
        struct consensus_config config = {
                .engine = &consensus_core,
                .cluster = 42,
                .group = 1,
                .self = 7,
                .voters = three,
                .voter_count = voters,
                .election_timeout_ms = 800,
                .heartbeat_ms = 100,
                .pre_vote = true,
                .trailing_entries = 2,
                .piece_bytes = 64,
                .restore_waits = voters > 1,
        };
        assert_int_equal(consensus_new(&heap, &config, &consensus), ERR_NONE);
        assert_int_equal(consensus_start(consensus, 1000, journal, 0, ret), ERR_NONE);
        return consensus;
}

static void write_out(struct disk *disk, const struct consensus_write *write)
{
        struct buffer *file = &disk->journal;
        if (write->kind == CONSENSUS_ASIDE || write->kind == CONSENSUS_SWAP) {
                file = &disk->aside;
                disk->aside_generation = write->generation;
                disk->pieces++;
        }
        if (write->offset == 0)
                buffer_reset(file);
        assert_true(write->offset <= file->len);
        file->len = (size_t)write->offset;
        buffer_bytes(file, write->data);
        if (write->kind != CONSENSUS_SWAP)
                return;
        struct buffer old = disk->journal;
        disk->journal = disk->aside;
        disk->aside = old;
        buffer_reset(&disk->aside);
        disk->swaps++;
}

/* One take, whose writes are durable at once. Says how many commands came out. */
static size_t turn(struct consensus *consensus, struct disk *disk)
{
        struct consensus_output output;
        consensus_take(consensus, &output);
        size_t commands = output.command_count;
        for (size_t i = 0; i < output.write_count; i++)
                write_out(disk, &output.writes[i]);
        uint64_t generation = consensus_status(consensus).generation;
        if (disk->aside.len > 0)
                consensus_synced(consensus, 1000, disk->aside_generation, disk->aside.len);
        consensus_synced(consensus, 1000, generation, disk->journal.len);
        return commands;
}

static void turns(struct consensus *consensus, struct disk *disk, size_t count)
{
        while (count-- > 0)
                (void)turn(consensus, disk);
}

static void commands(struct consensus *consensus, struct disk *disk, size_t count)
{
        while (count-- > 0) {
                assert_int_equal(consensus_submit(consensus, 1000, BYTES("command")), ERR_NONE);
                turns(consensus, disk, 2);
        }
}

static void state_of(struct buffer *state)
{
        buffer_init(state, &heap);
        for (uint32_t i = 0; i < 100; i++)
                buffer_u32(state, i);
}

/* What a restart finds: entries up to `last`, and the state where there is one. */
static void recovers(const struct disk *disk, uint64_t last, uint64_t snapshot)
{
        struct consensus_recovery recovery;
        struct consensus_output output;
        struct buffer state;
        struct consensus *consensus = group_start(1, buffer_view(&disk->journal), &recovery);
        assert_int_equal(recovery.last_index, last);
        assert_int_equal(recovery.snapshot_index, snapshot);
        assert_int_equal(recovery.dropped_bytes, 0);
        consensus_take(consensus, &output);
        assert_int_equal(output.restore, snapshot != 0);
        state_of(&state);
        if (output.restore)
                assert_true(bytes_equal(output.restore_state, buffer_view(&state)));
        buffer_fini(&state);
        consensus_free(consensus);
}

static void test_pieces(void **state)
{
        (void)state;
        struct consensus_recovery recovery;
        struct buffer given;
        struct disk disk;
        disk_init(&disk);
        struct consensus *consensus = group_start(1, (struct bytes){0}, &recovery);
        turns(consensus, &disk, 3);
        commands(consensus, &disk, 8);
        uint64_t index = consensus_status(consensus).applied_index;
        state_of(&given);
        assert_int_equal(consensus_snapshot_give(consensus, &given), ERR_NOT_FOUND);
        assert_int_equal(consensus_snapshot_begin(consensus), ERR_NONE);
        assert_int_equal(consensus_snapshot_begin(consensus), ERR_BUSY);
        assert_int_equal(consensus_snapshot(consensus, BYTES("another")), ERR_BUSY);
        commands(consensus, &disk, 3);
        assert_int_equal(consensus_snapshot_give(consensus, &given), ERR_NONE);
        assert_int_equal(given.len, 0);
        while (disk.swaps == 0) {
                recovers(&disk, consensus_status(consensus).last_index, 0);
                if (disk.pieces < 5)
                        commands(consensus, &disk, 1);
                else
                        (void)turn(consensus, &disk);
        }
        assert_true(disk.pieces > 5);
        turns(consensus, &disk, 3);
        assert_int_equal(consensus_status(consensus).snapshot_index, index);
        recovers(&disk, consensus_status(consensus).last_index, index);
        commands(consensus, &disk, 3);
        recovers(&disk, consensus_status(consensus).last_index, index);
        consensus_free(consensus);
        buffer_fini(&given);
        disk_fini(&disk);
}

static void test_given_up(void **state)
{
        (void)state;
        struct consensus_recovery recovery;
        struct buffer given;
        struct disk disk;
        disk_init(&disk);
        struct consensus *consensus = group_start(1, (struct bytes){0}, &recovery);
        turns(consensus, &disk, 3);
        commands(consensus, &disk, 4);
        assert_int_equal(consensus_snapshot_begin(consensus), ERR_NONE);
        consensus_snapshot_drop(consensus);
        state_of(&given);
        assert_int_equal(consensus_snapshot_give(consensus, &given), ERR_NOT_FOUND);
        buffer_reset(&given);
        assert_int_equal(consensus_snapshot_begin(consensus), ERR_NONE);
        assert_int_equal(consensus_snapshot_give(consensus, &given), ERR_INVALID);
        consensus_free(consensus); /* in the middle of it */
        buffer_fini(&given);
        disk_fini(&disk);
}

/* ---- a leader's state ---- */

enum {
        ARRIVED = 50, /* the state is as of that entry */
        CHUNK = 150,
};

static void receive(struct consensus *consensus, struct message *message, struct entries *entries)
{
        struct buffer out;
        message->group = 1;
        message->cluster = 42;
        message->from = 8;
        message->to = 7;
        message->term = 5;
        buffer_init(&out, &heap);
        message_encode(message, entries, &out);
        assert_int_equal(consensus_receive(consensus, 1000, 8, buffer_view(&out)), ERR_NONE);
        buffer_fini(&out);
}

/* Entries behind `previous`, each with one command; all up to the last is committed. */
static void append(struct consensus *consensus, uint64_t previous, uint64_t term, size_t count)
{
        struct entries entries;
        struct message message = {.type = MESSAGE_APPEND};
        entries_init(&entries, &heap, previous + 1);
        for (size_t i = 0; i < count; i++)
                assert_true(entries_append(&entries, 5, ENTRY_COMMAND, BYTES("\7command")));
        message.append.previous_index = previous;
        message.append.previous_term = term;
        message.append.commit_index = previous + count;
        message.append.count = count;
        receive(consensus, &message, &entries);
        entries_fini(&entries);
}

static void members_of_three(struct buffer *out)
{
        struct members members = {0};
        buffer_init(out, &heap);
        for (size_t i = 0; i < 3; i++)
                assert_true(members_put(
                        &members, &(struct member){.node = three[i], .role = CONSENSUS_VOTER}));
        members_encode(&members, out);
}

/* All chunks of the state, the last one with a flipped bit where it is `damaged`. What is on the
 * disk stays as it was. */
static void chunks(struct consensus *consensus, struct disk *disk, bool damaged)
{
        struct buffer members;
        struct buffer state;
        members_of_three(&members);
        state_of(&state);
        struct message message = {.type = MESSAGE_CHUNK};
        message.chunk.index = ARRIVED;
        message.chunk.term = 5;
        message.chunk.members_index = 1;
        message.chunk.members = buffer_view(&members);
        message.chunk.size = state.len;
        message.chunk.crc = hash_crc32c(0, buffer_view(&state));
        for (size_t at = 0; at < state.len; at += CHUNK) {
                size_t len = state.len - at < CHUNK ? state.len - at : CHUNK;
                message.chunk.offset = at;
                message.chunk.data = bytes_of(state.ptr + at, len);
                state.ptr[at] ^= damaged && at + len == state.len;
                receive(consensus, &message, NULL);
                recovers(disk, consensus_status(consensus).last_index, 0);
                assert_int_equal(disk->swaps, 0);
        }
        buffer_fini(&state);
        buffer_fini(&members);
}

static struct consensus *follower(struct disk *disk)
{
        struct consensus_recovery recovery;
        disk_init(disk);
        struct consensus *consensus = group_start(3, (struct bytes){0}, &recovery);
        turns(consensus, disk, 2);
        append(consensus, 1, 1, 2);
        turns(consensus, disk, 2);
        chunks(consensus, disk, true);
        turns(consensus, disk, 20);
        assert_int_equal(disk->pieces, 0);
        return consensus;
}

/* A crash at each piece leaves the old log whole; it goes on, and answers. */
static void test_arrival(void **state)
{
        (void)state;
        struct consensus_output output;
        struct disk disk;
        struct consensus *consensus = follower(&disk);
        chunks(consensus, &disk, false);
        append(consensus, 3, 5, 1);
        while (disk.swaps == 0) {
                assert_true(disk.pieces < 100);
                recovers(&disk, consensus_status(consensus).stored_index, 0);
                append(consensus, 4, 5, 0);
                (void)turn(consensus, &disk);
        }
        assert_true(disk.pieces > 5);
        recovers(&disk, ARRIVED, ARRIVED);
        assert_int_equal(consensus_status(consensus).applied_index, ARRIVED);
        append(consensus, ARRIVED, 5, 1);
        consensus_take(consensus, &output);
        assert_true(output.restore && output.restore_waits);
        assert_int_equal(output.command_count, 0);
        struct bytes kept = output.restore_state;
        for (size_t i = 0; i < output.write_count; i++)
                write_out(&disk, &output.writes[i]);
        turns(consensus, &disk, 3);
        append(consensus, ARRIVED + 1, 5, 1);
        assert_int_equal(turn(consensus, &disk) + turn(consensus, &disk), 0);
        struct buffer whole;
        state_of(&whole);
        assert_true(bytes_equal(kept, buffer_view(&whole)));
        buffer_fini(&whole);
        consensus_restored(consensus);
        assert_int_equal(turn(consensus, &disk), 2);
        consensus_restored(consensus); /* nothing waits */
        recovers(&disk, ARRIVED + 2, ARRIVED);
        consensus_free(consensus);
        disk_fini(&disk);
}

/* The log comes as far by itself while the state is written: it is not needed any more. */
static void test_arrival_late(void **state)
{
        (void)state;
        struct disk disk;
        struct consensus *consensus = follower(&disk);
        chunks(consensus, &disk, false);
        turns(consensus, &disk, 4);
        assert_true(disk.pieces > 0);
        append(consensus, 3, 5, ARRIVED);
        size_t commands = 0;
        for (int i = 0; i < 40; i++)
                commands += turn(consensus, &disk);
        assert_int_equal(commands, ARRIVED);
        assert_int_equal(disk.swaps, 0);
        assert_int_equal(consensus_status(consensus).snapshot_index, 0);
        recovers(&disk, ARRIVED + 3, 0);
        chunks(consensus, &disk, false); /* nor is it later */
        turns(consensus, &disk, 10);
        recovers(&disk, ARRIVED + 3, 0);
        consensus_free(consensus);
        disk_fini(&disk);
}

/* Freed at each step of the way. */
static void test_arrival_given_up(void **state)
{
        (void)state;
        for (size_t steps = 0; steps < 16; steps++) {
                struct disk disk;
                struct consensus *consensus = follower(&disk);
                chunks(consensus, &disk, false);
                turns(consensus, &disk, steps);
                consensus_free(consensus);
                disk_fini(&disk);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pieces),           cmocka_unit_test(test_given_up),
                cmocka_unit_test(test_arrival),          cmocka_unit_test(test_arrival_late),
                cmocka_unit_test(test_arrival_given_up),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
