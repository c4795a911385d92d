/* Levels: what belongs to which, that a group's only rises, and what a build says that knows
 * less. */
#include "council/council.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static struct council *council_open(uint8_t level_max)
{
        struct council_config config = {.level_max = level_max};
        struct council *council = NULL;
        assert_int_equal(council_new(&heap, &config, &council), ERR_NONE);
        return council;
}

static enum err apply(struct council *council, uint64_t index, struct bytes command)
{
        const struct council_outcome *outcomes;
        size_t count;
        enum err err = council_apply(council, index, 1, command, &outcomes, &count);
        if (err != ERR_NONE)
                assert_int_equal(count, 0);
        return err;
}

static enum err raise_to(struct council *council, uint64_t index, uint8_t level)
{
        struct council_command command = {
                .kind = COUNCIL_SET_LEVEL, .actor = BYTES("automatic"), .level = level};
        struct buffer out;
        buffer_init(&out, &heap);
        council_command_encode(&command, &out);
        assert_int_equal(out.err, ERR_NONE);
        enum err err = apply(council, index, buffer_view(&out));
        buffer_fini(&out);
        return err;
}

static void test_every_command_has_a_level(void **state)
{
        (void)state;
        for (unsigned kind = COUNCIL_NOOP; kind < COUNCIL_COMMAND_COUNT; kind++) {
                struct council_command command = {.kind = (enum council_command_kind)kind};
                assert_in_range(council_command_level(&command), 1, COUNCIL_LEVEL);
        }
}

static void test_a_level_only_rises_and_is_audited(void **state)
{
        (void)state;
        struct council *council = council_open(0);
        assert_int_equal(council_level(council), 1);
        assert_int_equal(raise_to(council, 1, 2), ERR_NONE);
        assert_int_equal(council_level(council), 2);
        assert_int_equal(raise_to(council, 2, 1), ERR_NONE);
        assert_int_equal(council_level(council), 2);
        assert_int_equal(council_audit_count(council), 1);
        assert_true(bytes_equal(council_audit_at(council, 0).what, BYTES("level 1 -> 2")));
        council_free(council);
}

static void test_an_older_build_stops_instead_of_skipping(void **state)
{
        (void)state;
        struct council *old = council_open(1);
        assert_int_equal(raise_to(old, 1, 2), ERR_VERSION);
        assert_int_equal(council_level(old), 1);
        /* So does this build, at what a later one will have said. */
        struct council *council = council_open(0);
        static const uint8_t later[] = {1, COUNCIL_COMMAND_COUNT, 0, 0, 0, 0, 0};
        assert_int_equal(apply(council, 1, bytes_of(later, sizeof later)), ERR_VERSION);
        /* What is no command at all is skipped, alike everywhere. */
        assert_int_equal(apply(council, 2, bytes_of(later, 1)), ERR_NONE);
        council_free(council);
        council_free(old);
}

static void test_a_state_keeps_the_level(void **state)
{
        (void)state;
        struct council *council = council_open(0);
        struct council *other = council_open(0);
        struct council *old = council_open(1);
        struct buffer low;
        struct buffer high;
        buffer_init(&low, &heap);
        buffer_init(&high, &heap);
        council_snapshot(council, &low);
        assert_int_equal(buffer_view(&low).ptr[0], 1); /* as builds of level 1 read it */
        assert_int_equal(raise_to(council, 1, 2), ERR_NONE);
        council_snapshot(council, &high);
        assert_int_equal(council_restore(old, buffer_view(&low)), ERR_NONE);
        assert_int_equal(council_restore(old, buffer_view(&high)), ERR_VERSION);
        assert_int_equal(council_level(old), 1);
        assert_int_equal(council_restore(other, buffer_view(&high)), ERR_NONE);
        assert_int_equal(council_level(other), 2);
        assert_int_equal(council_digest(other), council_digest(council));
        for (size_t len = 0; len < buffer_view(&high).len; len++)
                assert_int_not_equal(council_restore(other, bytes_of(buffer_view(&high).ptr, len)),
                                     ERR_NONE);
        buffer_fini(&low);
        buffer_fini(&high);
        council_free(old);
        council_free(other);
        council_free(council);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_command_has_a_level),
                cmocka_unit_test(test_a_level_only_rises_and_is_audited),
                cmocka_unit_test(test_an_older_build_stops_instead_of_skipping),
                cmocka_unit_test(test_a_state_keeps_the_level),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
