/* Each block carries its size in a header, so that what is alive can be counted and limited. */
#include "base/heap.h"

#include "base/check.h"

#include <stdlib.h>

struct block {
        size_t size;
        size_t magic;
};

enum {
        BLOCK_MAGIC = 0x6d657269,
};

_Static_assert(sizeof(struct block) % _Alignof(max_align_t) == 0, "blocks keep alignment");

void heap_init(struct heap *heap, size_t limit_bytes)
{
        *heap = (struct heap){.limit_bytes = limit_bytes};
}

static struct block *block_of(void *ptr)
{
        struct block *block = (struct block *)ptr - 1;
        CHECK(block->magic == BLOCK_MAGIC);
        return block;
}

static bool heap_refuses(struct heap *heap, size_t grow)
{
        heap->calls++;
        if (heap->fail_at != 0 && heap->calls == heap->fail_at)
                return true;
        return heap->limit_bytes != 0 && grow > heap->limit_bytes - heap->used_bytes;
}

static void heap_count(struct heap *heap, size_t before, size_t after)
{
        heap->used_bytes = heap->used_bytes - before + after;
        if (heap->used_bytes > heap->used_bytes_max)
                heap->used_bytes_max = heap->used_bytes;
}

void *heap_alloc(struct heap *heap, size_t size)
{
        CHECK(size > 0);
        if (size > SIZE_MAX - sizeof(struct block) || heap_refuses(heap, size))
                return NULL;
        struct block *block = calloc(1, sizeof *block + size);
        if (block == NULL)
                return NULL;
        block->size = size;
        block->magic = BLOCK_MAGIC;
        heap_count(heap, 0, size);
        return block + 1;
}

void *heap_alloc_array(struct heap *heap, size_t count, size_t size)
{
        size_t total = 0;
        if (__builtin_mul_overflow(count, size, &total))
                return NULL;
        return heap_alloc(heap, total);
}

void *heap_resize(struct heap *heap, void *ptr, size_t size)
{
        CHECK(size > 0);
        if (ptr == NULL)
                return heap_alloc(heap, size);
        struct block *block = block_of(ptr);
        size_t before = block->size;
        if (size > SIZE_MAX - sizeof *block ||
            heap_refuses(heap, size > before ? size - before : 0))
                return NULL;
        block = realloc(block, sizeof *block + size);
        if (block == NULL)
                return NULL;
        block->size = size;
        heap_count(heap, before, size);
        return block + 1;
}

void heap_free(struct heap *heap, void *ptr)
{
        if (ptr == NULL)
                return;
        struct block *block = block_of(ptr);
        CHECK(heap->used_bytes >= block->size);
        heap->used_bytes -= block->size;
        block->magic = 0;
        free(block);
}

void heap_free_bytes(struct heap *heap, struct bytes data)
{
        union {
                const uint8_t *lent;
                uint8_t *owned;
        } memory = {.lent = data.ptr};
        heap_free(heap, memory.owned);
}

bool heap_copy(struct heap *heap, struct bytes data, struct bytes *ret)
{
        if (data.len == 0) {
                *ret = (struct bytes){0};
                return true;
        }
        void *copy = heap_alloc(heap, data.len);
        if (copy == NULL)
                return false;
        memcpy(copy, data.ptr, data.len);
        *ret = bytes_of(copy, data.len);
        return true;
}
