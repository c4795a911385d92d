/* What the tests of the lock table share: its snapshot, which must give the same one again. Their
 * heap is that of heap_group.h. */
#ifndef MERIDIAN_TESTS_LOCK_RELOAD_H
#define MERIDIAN_TESTS_LOCK_RELOAD_H

#include "base/buffer.h"
#include "lock/lock.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

/* Replaces the table by one that is made from its snapshot. */
static void lock_reload(struct lock_table **table, uint64_t seed)
{
        struct buffer one;
        struct buffer two;
        buffer_init(&one, &heap);
        buffer_init(&two, &heap);
        struct lock_table *fresh = NULL;
        assert_int_equal(lock_table_new(&heap, seed + 99, &fresh), ERR_NONE);
        lock_table_encode(*table, &one);
        assert_int_equal(lock_table_decode(fresh, buffer_view(&one)), ERR_NONE);
        lock_table_encode(fresh, &two);
        assert_true(bytes_equal(buffer_view(&one), buffer_view(&two)));
        lock_table_free(*table);
        *table = fresh;
        buffer_fini(&one);
        buffer_fini(&two);
}

#endif
