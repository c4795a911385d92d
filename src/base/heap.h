/* heap.h - the door to memory. A room never calls malloc: it is handed a heap, which may have a
 * limit and may fail on purpose, so that every allocation can be seen to fail once in a test. */
#ifndef MERIDIAN_BASE_HEAP_H
#define MERIDIAN_BASE_HEAP_H

#include "base/bytes.h"

#include <stddef.h>
#include <stdint.h>

/* Where a heap gets its memory: with the meaning of calloc, realloc and free. */
struct heap_source {
        void *(*alloc)(size_t count, size_t size);
        void *(*resize)(void *ptr, size_t size);
        void (*free)(void *ptr);
};

struct heap {
        const struct heap_source *source; /* NULL: libc */
        size_t limit_bytes;               /* 0: none */
        size_t used_bytes;                /* alive now, headers not counted */
        size_t used_bytes_max;            /* the most that was ever alive */
        uint64_t calls;                   /* allocations asked for since init */
        uint64_t fail_at;                 /* the call (counted from 1) that fails; 0: none */
};

/* A heap over malloc with a limit (0: none). The caller owns the struct. */
void heap_init(struct heap *heap, size_t limit_bytes);

/* The same over another source (kept), such as a server's own allocator, which then counts it. */
void heap_init_from(struct heap *heap, size_t limit_bytes, const struct heap_source *source);

/* Zeroed memory of `size` bytes (> 0), aligned to HEAP_ALIGNMENT, which is enough for all but
 * vectors and long doubles; NULL at the limit. Free with heap_free on the same heap. */
#define HEAP_ALIGNMENT 8
MUST_USE void *heap_alloc(struct heap *heap, size_t size);

/* `count` elements of `size` bytes, zeroed; NULL at the limit or when the product overflows. */
MUST_USE void *heap_alloc_array(struct heap *heap, size_t count, size_t size);

/* Grows or shrinks; what is new is not zeroed. `ptr` may be NULL. NULL at the limit:
 * `ptr` is then still alive. */
MUST_USE void *heap_resize(struct heap *heap, void *ptr, size_t size);

/* Gives memory back; NULL is fine. */
void heap_free(struct heap *heap, void *ptr);

/* The same for blocks whose size the caller knows when it gives them back: they have no header,
 * which counts where there are millions of them. Zeroed; what a resize adds is not. To shrink never
 * fails. heap_free must not see them. */
MUST_USE void *heap_take(struct heap *heap, size_t size);
MUST_USE void *heap_retake(struct heap *heap, void *ptr, size_t size_before, size_t size);
void heap_give(struct heap *heap, void *ptr, size_t size);

/* Gives back memory that is known by its slice, as heap_copy gave it. An empty slice is fine. */
void heap_free_bytes(struct heap *heap, struct bytes data);

/* A copy of a slice; ret->ptr is NULL only where data.len is 0 or memory ran out (then false). */
MUST_USE bool heap_copy(struct heap *heap, struct bytes data, struct bytes *ret);

#endif
