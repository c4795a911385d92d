/* A backup's bytes: there and back; cut at every length, with every bit flipped. */
#include "council/backup.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static void make(struct buffer *out)
{
        struct backup backup = {
                .life = 7, .cluster = BYTES("test"), .wall_us = 1234567, .count = 2};
        backup.groups[0] = (struct backup_group){bytes_of(NULL, 0), 99, BYTES("the global state")};
        backup.groups[1] = (struct backup_group){BYTES("eu-west"), 5, BYTES("")};
        buffer_init(out, &heap);
        backup_encode(&backup, out);
        assert_int_equal(out->err, ERR_NONE);
}

static void test_there_and_back(void **state)
{
        (void)state;
        struct buffer bytes;
        struct backup backup;
        make(&bytes);
        assert_int_equal(backup_decode(buffer_view(&bytes), &backup), ERR_NONE);
        assert_int_equal(backup.life, 7);
        assert_true(bytes_equal(backup.cluster, BYTES("test")));
        assert_int_equal(backup.count, 2);
        const struct backup_group *global = backup_find(&backup, bytes_of(NULL, 0));
        assert_int_equal(global->index, 99);
        assert_true(bytes_equal(global->state, BYTES("the global state")));
        assert_int_equal(backup_find(&backup, BYTES("eu-west"))->state.len, 0);
        assert_null(backup_find(&backup, BYTES("us-east")));
        buffer_fini(&bytes);
}

static void test_damage(void **state)
{
        (void)state;
        struct buffer bytes;
        struct backup backup;
        make(&bytes);
        for (size_t len = 0; len < bytes.len; len++)
                assert_int_equal(backup_decode(bytes_of(bytes.ptr, len), &backup), ERR_CORRUPT);
        for (size_t bit = 0; bit < bytes.len * 8; bit++) {
                bytes.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_equal(backup_decode(buffer_view(&bytes), &backup), ERR_CORRUPT);
                bytes.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(backup_decode(buffer_view(&bytes), &backup), ERR_NONE);
        buffer_fini(&bytes);
}

/* What has a good checksum and makes no sense. */
static void test_nonsense(void **state)
{
        (void)state;
        struct backup backup = {.cluster = BYTES("test"), .count = 1};
        struct buffer bytes;
        backup.groups[0] = (struct backup_group){bytes_of(NULL, 0), UINT64_MAX, BYTES("x")};
        buffer_init(&bytes, &heap);
        backup_encode(&backup, &bytes);
        assert_int_equal(backup_decode(buffer_view(&bytes), &backup), ERR_MALFORMED);
        buffer_fini(&bytes);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_there_and_back),
                                           cmocka_unit_test(test_damage),
                                           cmocka_unit_test(test_nonsense)};
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
