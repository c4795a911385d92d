/* Who stands for election when, who waits for whom, and what a new leader knows of the time before:
 * one node, whose peers are played. What happens between nodes is tried in test_histories. */
#include "raft/consensus.h"

#include "base/buffer.h"
#include "raft/message.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static const uint32_t three[] = {7, 8, 9};

static bool early;

static struct consensus *group_start(void)
{
        struct consensus *consensus = NULL;
        struct consensus_recovery recovery;
        struct consensus_config config = {
                .engine = &consensus_core,
                .cluster = 42,
                .group = 1,
                .self = 7,
                .voters = three,
                .voter_count = 3,
                .election_timeout_ms = 800,
                .heartbeat_ms = 100,
                .pre_vote = true,
                .early_votes = early,
        };
        assert_int_equal(consensus_new(&heap, &config, &consensus), ERR_NONE);
        assert_int_equal(consensus_start(consensus, 1000, (struct bytes){0}, 0, &recovery),
                         ERR_NONE);
        return consensus;
}

/* Takes what is to be done; what is written is durable at once. */
static void turn(struct consensus *consensus, uint64_t now_ms)
{
        struct consensus_output output;
        consensus_take(consensus, &output);
        struct consensus_status status = consensus_status(consensus);
        consensus_synced(consensus, now_ms, status.generation, status.journal_bytes);
        consensus_take(consensus, &output);
}

static void receive(struct consensus *consensus, uint64_t now_ms, const struct message *message)
{
        struct entries none;
        struct buffer out;
        entries_init(&none, &heap, 1);
        buffer_init(&out, &heap);
        message_encode(message, &none, &out);
        assert_int_equal(consensus_receive(consensus, now_ms, message->from, buffer_view(&out)),
                         ERR_NONE);
        buffer_fini(&out);
        entries_fini(&none);
}

/* A follower that heard its leader at 1000, whose link breaks then where it is told. */
static struct consensus *follower(bool told)
{
        struct message word = {
                .type = MESSAGE_APPEND, .group = 1, .cluster = 42, .from = 8, .to = 7, .term = 5};
        struct consensus *consensus = group_start();
        word.append.previous_index = 1;
        word.append.previous_term = 1;
        receive(consensus, 1000, &word);
        consensus_peer_gone(consensus, 1100, 9); /* not the leader */
        if (told)
                consensus_peer_gone(consensus, 1100, 8);
        return consensus;
}

/* When it stands, by its own clock, from `now_ms` on. */
static uint64_t stands_ms(struct consensus *consensus, uint64_t now_ms)
{
        struct consensus_output output;
        uint64_t end_ms = now_ms + 3000;
        for (; consensus_status(consensus).role == CONSENSUS_FOLLOWER && now_ms < end_ms;
             now_ms++) {
                consensus_tick(consensus, now_ms);
                consensus_take(consensus, &output);
        }
        return now_ms - 1;
}

/* Never before the election timeout, and with a hint soon after it. */
static void test_leader_gone(void **state)
{
        (void)state;
        for (int told = 0; told < 2; told++) {
                struct consensus *consensus = follower(told);
                assert_in_range(stands_ms(consensus, 1100), 1800, told ? 1900 : 2600);
                consensus_free(consensus);
        }
}

/* What node 9 is answered that asks for a vote. */
static bool votes(struct consensus *consensus, uint64_t now_ms, bool pre_vote)
{
        struct message vote = {
                .type = MESSAGE_VOTE, .group = 1, .cluster = 42, .from = 9, .to = 7, .term = 9};
        struct consensus_output output;
        bool granted = false;
        vote.vote.pre_vote = pre_vote;
        vote.vote.last_index = 9;
        vote.vote.last_term = 5;
        receive(consensus, now_ms, &vote);
        for (int i = 0; i < 2; i++) {
                consensus_take(consensus, &output);
                for (size_t k = 0; k < output.message_count; k++) {
                        struct message answer;
                        assert_int_equal(message_decode(output.messages[k].data, &answer),
                                         ERR_NONE);
                        if (answer.type == MESSAGE_VOTE_RESULT && answer.to == 9)
                                granted = answer.vote_result.granted;
                }
                struct consensus_status status = consensus_status(consensus);
                consensus_synced(consensus, now_ms, status.generation, status.journal_bytes);
        }
        return granted;
}

/* Who lost its leader votes and stands early, where that is wanted. */
static void test_early(void **state)
{
        (void)state;
        for (int pre_vote = 0; pre_vote < 2; pre_vote++) {
                struct consensus *consensus = follower(true);
                assert_false(votes(consensus, 1799, pre_vote));
                consensus_free(consensus);
                early = true;
                consensus = follower(true);
                assert_false(votes(consensus, 1199, pre_vote));
                assert_true(votes(consensus, 1200, pre_vote));
                consensus_free(consensus);
                consensus = follower(false); /* another one's link broke */
                assert_false(votes(consensus, 1799, pre_vote));
                consensus_free(consensus);
                consensus = follower(true);
                assert_in_range(stands_ms(consensus, 1100), 1300, 1400);
                consensus_free(consensus);
                early = false;
        }
}

/* A leader whose link stands again at once, or that is heard, is kept. */
static void test_kept(void **state)
{
        (void)state;
        struct message word = {
                .type = MESSAGE_APPEND, .group = 1, .cluster = 42, .from = 8, .to = 7, .term = 5};
        word.append.previous_index = 1;
        word.append.previous_term = 1;
        early = true;
        struct consensus *consensus = follower(true);
        consensus_peer_back(consensus, 1199, 8);
        assert_false(votes(consensus, 1799, true));
        assert_in_range(stands_ms(consensus, 1199), 1800, 1900);
        consensus_free(consensus);
        consensus = follower(true); /* it took too long: its word counts, not the link */
        consensus_peer_back(consensus, 1200, 8);
        assert_true(votes(consensus, 1201, true));
        receive(consensus, 1250, &word);
        assert_false(votes(consensus, 2049, true));
        assert_in_range(stands_ms(consensus, 1250), 2050, 2850);
        consensus_free(consensus);
        consensus = follower(true); /* once more, which counts from then */
        consensus_peer_back(consensus, 1150, 8);
        consensus_peer_gone(consensus, 1160, 8);
        assert_false(votes(consensus, 1259, true));
        assert_true(votes(consensus, 1260, true));
        consensus_free(consensus);
        early = false;
}

/* Of two that stand at once the one with less in its log, or the later number, waits: once. */
static void test_one_yields(void **state)
{
        (void)state;
        struct consensus *consensus = follower(true);
        struct message vote = {
                .type = MESSAGE_VOTE, .group = 1, .cluster = 42, .from = 9, .to = 7, .term = 5};
        uint64_t now_ms = stands_ms(consensus, 1100);
        vote.vote.pre_vote = true;
        vote.vote.last_index = consensus_status(consensus).last_index;
        vote.vote.last_term = 1;
        receive(consensus, now_ms + 1, &vote);
        assert_int_equal(consensus_status(consensus).role, CONSENSUS_CANDIDATE);
        vote.vote.last_term = 5;
        receive(consensus, now_ms + 2, &vote);
        assert_int_equal(consensus_status(consensus).role, CONSENSUS_FOLLOWER);
        assert_in_range(stands_ms(consensus, now_ms + 2), now_ms + 800, now_ms + 1700);
        receive(consensus, now_ms + 1700, &vote);
        assert_int_equal(consensus_status(consensus).role, CONSENSUS_CANDIDATE);
        consensus_free(consensus);
}

static void voted(struct consensus *consensus, uint64_t now_ms, bool pre_vote)
{
        struct message result = {
                .type = MESSAGE_VOTE_RESULT, .group = 1, .cluster = 42, .from = 9, .to = 7};
        result.term = consensus_status(consensus).term;
        result.vote_result.granted = true;
        result.vote_result.pre_vote = pre_vote;
        result.vote_result.asked_term = result.term + pre_vote;
        receive(consensus, now_ms, &result);
        turn(consensus, now_ms);
}

/* A leader knows since when it has what others wrote: from the first reading of the clock behind
 * the newest entry, whatever word came later. */
static void test_inherited(void **state)
{
        (void)state;
        struct entries list;
        struct buffer out;
        struct message word = {
                .type = MESSAGE_APPEND, .group = 1, .cluster = 42, .from = 8, .to = 7, .term = 5};
        struct consensus *consensus = follower(false);
        entries_init(&list, &heap, 2);
        buffer_init(&out, &heap);
        assert_true(entries_append(&list, 5, ENTRY_COMMAND, BYTES("\7command")));
        word.append.previous_index = word.append.previous_term = word.append.count = 1;
        message_encode(&word, &list, &out);
        assert_int_equal(consensus_receive(consensus, 1200, 8, buffer_view(&out)), ERR_NONE);
        turn(consensus, 1200);
        consensus_tick(consensus, 1203);
        assert_int_equal(consensus_receive(consensus, 1300, 8, buffer_view(&out)), ERR_NONE);
        turn(consensus, 1300);
        uint64_t now_ms = stands_ms(consensus, 1300);
        assert_int_equal(consensus_status(consensus).inherited_ms, 0);
        voted(consensus, now_ms, true);
        voted(consensus, now_ms, false);
        assert_int_equal(consensus_status(consensus).role, CONSENSUS_LEADER);
        assert_int_equal(consensus_status(consensus).inherited_ms, 1204);
        consensus_free(consensus);
        buffer_fini(&out);
        entries_fini(&list);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_leader_gone), cmocka_unit_test(test_early),
                cmocka_unit_test(test_kept),        cmocka_unit_test(test_one_yields),
                cmocka_unit_test(test_inherited),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
