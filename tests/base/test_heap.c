#include "base/heap.h"

#include "../cmocka_all.h"

#include <stdlib.h>

static void test_counts_what_is_alive(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 0);
        uint8_t *a = heap_alloc(&heap, 100);
        assert_non_null(a);
        for (int i = 0; i < 100; i++)
                assert_int_equal(a[i], 0);
        a = heap_resize(&heap, a, 300);
        assert_int_equal(heap.used_bytes, 300);
        a = heap_resize(&heap, a, 50);
        assert_int_equal(heap.used_bytes, 50);
        assert_int_equal(heap.used_bytes_max, 300);
        heap_free(&heap, a);
        heap_free(&heap, NULL);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_taken_has_no_header(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 100);
        uint8_t *a = heap_take(&heap, 40);
        assert_non_null(a);
        for (int i = 0; i < 40; i++)
                assert_int_equal(a[i], 0);
        assert_null(heap_take(&heap, 61));
        assert_null(heap_retake(&heap, a, 40, 101));
        a = heap_retake(&heap, a, 40, 100);
        assert_non_null(a);
        assert_int_equal(heap.used_bytes, 100);
        heap_give(&heap, a, 100);
        heap_give(&heap, NULL, 0);
        assert_int_equal(heap.used_bytes, 0);
        heap.fail_at = heap.calls + 1;
        assert_null(heap_take(&heap, 1));
}

static void test_limit(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 100);
        void *a = heap_alloc(&heap, 100);
        assert_non_null(a);
        assert_null(heap_alloc(&heap, 1));
        assert_null(heap_resize(&heap, a, 101));
        assert_int_equal(heap.used_bytes, 100); /* a refused growth leaves the block alive */
        heap_free(&heap, a);
        assert_null(heap_alloc(&heap, 101));
        a = heap_alloc(&heap, 1);
        assert_non_null(a);
        heap_free(&heap, a);
}

static void test_sizes_that_overflow(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 0);
        assert_null(heap_alloc_array(&heap, SIZE_MAX / 2, 3));
        assert_null(heap_alloc(&heap, SIZE_MAX));
        assert_null(heap_resize(&heap, NULL, SIZE_MAX - 8));
        assert_int_equal(heap.used_bytes, 0);
}

static void test_the_nth_call_fails_once(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 0);
        heap.fail_at = 2;
        void *a = heap_alloc(&heap, 8);
        assert_non_null(a);
        assert_null(heap_alloc(&heap, 8));
        void *b = heap_alloc(&heap, 8);
        assert_non_null(b);
        heap_free(&heap, a);
        heap_free(&heap, b);
}

static void test_copy(void **state)
{
        (void)state;
        struct heap heap;
        struct bytes copy;
        heap_init(&heap, 4);
        assert_true(heap_copy(&heap, BYTES(""), &copy));
        assert_null(copy.ptr);
        assert_true(heap_copy(&heap, BYTES("abcd"), &copy));
        assert_true(bytes_equal(copy, BYTES("abcd")));
        struct bytes refused = BYTES("untouched");
        assert_false(heap_copy(&heap, BYTES("x"), &refused));
        assert_true(bytes_equal(refused, BYTES("untouched")));
        heap_free_bytes(&heap, copy);
}

static unsigned source_blocks;

static void *source_alloc(size_t count, size_t size)
{
        void *ptr = calloc(count, size);
        assert_non_null(ptr);
        source_blocks++;
        return ptr;
}

static void *source_resize(void *ptr, size_t size)
{
        return realloc(ptr, size);
}

static void source_free(void *ptr)
{
        source_blocks--;
        free(ptr);
}

static void test_another_source(void **state)
{
        (void)state;
        static const struct heap_source source = {source_alloc, source_resize, source_free};
        struct heap heap;
        heap_init_from(&heap, 0, &source);
        unsigned char *a = heap_alloc(&heap, 100);
        assert_non_null(a);
        assert_int_equal((uintptr_t)a % HEAP_ALIGNMENT, 0);
        for (unsigned i = 0; i < 100; i++)
                assert_int_equal(a[i], 0);
        assert_int_equal(source_blocks, 1);
        a[99] = 7;
        a = heap_resize(&heap, a, 5000);
        assert_non_null(a);
        assert_int_equal(a[99], 7);
        assert_int_equal(heap.used_bytes, 5000);
        heap_free(&heap, a);
        assert_int_equal(source_blocks, 0);
        assert_int_equal(heap.used_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_counts_what_is_alive),
                cmocka_unit_test(test_taken_has_no_header),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_sizes_that_overflow),
                cmocka_unit_test(test_the_nth_call_fails_once),
                cmocka_unit_test(test_copy),
                cmocka_unit_test(test_another_source),
        };
        return cmocka_run_group_tests_name("base/heap", tests, NULL, NULL);
}
