/* Each block carries its size in a header of eight bytes, so that what is alive can be counted and
 * limited; what is left of them tells a block from other memory. Blocks that are taken have none:
 * their owner tells the size. */
#include "base/heap.h"

#include "base/check.h"

#include <stdlib.h>

struct block {
        uint64_t word; /* the magic number above BLOCK_SIZE_BITS, the size below */
};

#define BLOCK_SIZE_BITS 48
#define BLOCK_SIZE_MAX  (((uint64_t)1 << BLOCK_SIZE_BITS) - 1)
#define BLOCK_MAGIC     ((uint64_t)0x6d65 << BLOCK_SIZE_BITS)

_Static_assert(sizeof(struct block) == HEAP_ALIGNMENT, "blocks keep alignment");

void heap_init(struct heap *heap, size_t limit_bytes)
{
        heap_init_from(heap, limit_bytes, NULL);
}

void heap_init_from(struct heap *heap, size_t limit_bytes, const struct heap_source *source)
{
        *heap = (struct heap){.source = source, .limit_bytes = limit_bytes};
}

static struct block *block_of(void *ptr)
{
        struct block *block = (struct block *)ptr - 1;
        CHECK((block->word & ~BLOCK_SIZE_MAX) == BLOCK_MAGIC);
        return block;
}

static size_t block_size(const struct block *block)
{
        return block->word & BLOCK_SIZE_MAX;
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
        if (size > BLOCK_SIZE_MAX || heap_refuses(heap, size))
                return NULL;
        size_t total = sizeof(struct block) + size;
        struct block *block =
                heap->source == NULL ? calloc(1, total) : heap->source->alloc(1, total);
        if (block == NULL)
                return NULL;
        block->word = BLOCK_MAGIC | size;
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
        size_t before = block_size(block);
        if (size > BLOCK_SIZE_MAX || heap_refuses(heap, size > before ? size - before : 0))
                return NULL;
        size_t total = sizeof *block + size;
        block = heap->source == NULL ? realloc(block, total) : heap->source->resize(block, total);
        if (block == NULL)
                return NULL;
        block->word = BLOCK_MAGIC | size;
        heap_count(heap, before, size);
        return block + 1;
}

void heap_free(struct heap *heap, void *ptr)
{
        if (ptr == NULL)
                return;
        struct block *block = block_of(ptr);
        CHECK(heap->used_bytes >= block_size(block));
        heap->used_bytes -= block_size(block);
        block->word = 0;
        if (heap->source == NULL)
                free(block);
        else
                heap->source->free(block);
}

void *heap_take(struct heap *heap, size_t size)
{
        CHECK(size > 0);
        if (heap_refuses(heap, size))
                return NULL;
        void *ptr = heap->source == NULL ? calloc(1, size) : heap->source->alloc(1, size);
        if (ptr != NULL)
                heap_count(heap, 0, size);
        return ptr;
}

void *heap_retake(struct heap *heap, void *ptr, size_t size_before, size_t size)
{
        CHECK(size > 0);
        CHECK(heap->used_bytes >= size_before);
        if (size > size_before && heap_refuses(heap, size - size_before))
                return NULL;
        void *moved = heap->source == NULL ? realloc(ptr, size) : heap->source->resize(ptr, size);
        if (moved == NULL && size > size_before)
                return NULL;
        heap_count(heap, size_before, size);
        return moved == NULL ? ptr : moved;
}

void heap_give(struct heap *heap, void *ptr, size_t size)
{
        if (ptr == NULL)
                return;
        CHECK(heap->used_bytes >= size);
        heap->used_bytes -= size;
        if (heap->source == NULL)
                free(ptr);
        else
                heap->source->free(ptr);
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
