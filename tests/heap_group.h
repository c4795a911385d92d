/* A group of tests over one heap, which must be empty at its end: give heap_group_setup and
 * heap_group_teardown to cmocka_run_group_tests. */
#ifndef MERIDIAN_TESTS_HEAP_GROUP_H
#define MERIDIAN_TESTS_HEAP_GROUP_H

#include "base/heap.h"

static struct heap heap;

static int heap_group_setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        return 0;
}

static int heap_group_teardown(void **state)
{
        (void)state;
        return heap.used_bytes == 0 ? 0 : 1;
}

#endif
