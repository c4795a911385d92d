/* copy.c - what happened to the locks of another table, kept for who reads it when that one is
 * gone: a ring of pages, each with changes as lock_changes_encode writes them.
 *
 *   page: | last id | count | len | change change change ... (free) |
 *
 * Changes are appended to the newest page and forgotten with the oldest, so one of them costs a
 * few dozen bytes and one copy. What is missing in between is a change itself (LOCK_GAP), and what
 * is missing before the first is told from `first`. Whoever reads skips pages by their last id. */
#include "base/check.h"
#include "base/cursor.h"
#include "lock/table.h"

enum {
        PAGE_SIZE = 16384,
        PAGE_HEAD = 16,
        PAGES_MAX = LOCK_COPY_BYTES / PAGE_SIZE,
        CHANGE_BYTES_MAX = LOCK_KEY_BYTES_MAX + LOCK_OWNER_BYTES_MAX + 32,
};

struct page {
        uint64_t last;
        uint32_t count;
        uint32_t len;
        uint8_t data[PAGE_SIZE - PAGE_HEAD];
};

_Static_assert(sizeof(struct page) == PAGE_SIZE, "the head has that size");
_Static_assert(CHANGE_BYTES_MAX < PAGE_SIZE - PAGE_HEAD, "a change fits into a page");

struct lock_copy {
        struct heap *heap;
        struct page *pages[PAGES_MAX]; /* a ring */
        size_t page_first, page_count;
        size_t count;
        uint64_t first, last;
        uint64_t gaps;
        struct buffer change; /* to encode one */
};

static struct page *page_at(const struct lock_copy *copy, size_t i)
{
        return copy->pages[(copy->page_first + i) % PAGES_MAX];
}

static void page_forget(struct lock_copy *copy)
{
        struct page *page = page_at(copy, 0);
        copy->first = page->last;
        copy->count -= page->count;
        heap_free(copy->heap, page);
        copy->page_first = (copy->page_first + 1) % PAGES_MAX;
        copy->page_count--;
}

/* What happened up to `revision` is not known any more. */
static void forget_all(struct lock_copy *copy, uint64_t revision)
{
        while (copy->page_count > 0)
                page_forget(copy);
        copy->first = copy->last = revision;
}

struct lock_copy *lock_copy_new(struct heap *heap)
{
        struct lock_copy *copy = heap_alloc(heap, sizeof *copy);
        if (copy == NULL)
                return NULL;
        copy->heap = heap;
        buffer_init(&copy->change, heap);
        return copy;
}

void lock_copy_free(struct lock_copy *copy)
{
        if (copy == NULL)
                return;
        while (copy->page_count > 0)
                page_forget(copy);
        buffer_fini(&copy->change);
        heap_free(copy->heap, copy);
}

/* The newest page, with room for so much; NULL: no memory. */
static struct page *page_room(struct lock_copy *copy, size_t bytes)
{
        struct page *page = copy->page_count > 0 ? page_at(copy, copy->page_count - 1) : NULL;
        if (page != NULL && bytes <= sizeof page->data - page->len)
                return page;
        if (copy->page_count == PAGES_MAX)
                page_forget(copy);
        page = heap_alloc(copy->heap, sizeof *page);
        if (page != NULL)
                copy->pages[(copy->page_first + copy->page_count++) % PAGES_MAX] = page;
        return page;
}

static bool change_add(struct lock_copy *copy, const struct lock_event *event)
{
        buffer_reset(&copy->change);
        lock_event_encode(event, &copy->change);
        struct page *page = copy->change.err == ERR_NONE ? page_room(copy, copy->change.len) : NULL;
        if (page == NULL)
                return false;
        memcpy(page->data + page->len, copy->change.ptr, copy->change.len);
        page->len += (uint32_t)copy->change.len;
        page->last = copy->last = event->id;
        page->count++;
        copy->count++;
        while (copy->count > LOCK_COPY_MAX)
                page_forget(copy);
        return true;
}

bool lock_copy_take(struct lock_copy *copy, struct bytes changes, uint64_t revision)
{
        struct cursor cursor = cursor_of(changes);
        struct lock_event event;
        while (lock_change_decode(&cursor, &event)) {
                if (event.id <= copy->last)
                        continue;
                if (event.id > revision || event.key.len > LOCK_KEY_BYTES_MAX ||
                    event.owner.len > LOCK_OWNER_BYTES_MAX)
                        return false;
                if (!change_add(copy, &event)) {
                        forget_all(copy, revision);
                        copy->gaps++;
                        return true;
                }
        }
        if (cursor_done(&cursor) != ERR_NONE)
                return false;
        if (revision > copy->last)
                copy->last = revision;
        return true;
}

void lock_copy_skip(struct lock_copy *copy, uint64_t revision)
{
        CHECK(revision > copy->last);
        struct lock_event gap = {.id = revision, .kind = LOCK_GAP, .token.value = copy->last};
        copy->gaps += copy->last > 0;
        if (copy->count == 0 || !change_add(copy, &gap))
                forget_all(copy, revision);
}

void lock_copy_restart(struct lock_copy *copy, uint64_t revision)
{
        copy->gaps++;
        forget_all(copy, revision);
}

struct lock_copy_state lock_copy_state(const struct lock_copy *copy)
{
        return (struct lock_copy_state){.first = copy->first,
                                        .last = copy->last,
                                        .gaps = copy->gaps,
                                        .count = copy->count,
                                        .bytes = copy->page_count * sizeof(struct page)};
}

/* ---- reading ---- */

/* False: the limits of an answer cut it here. */
static bool tell(const struct lock_event *event, size_t begin, struct lock_changes *ret,
                 struct buffer *out)
{
        ret->more = ret->count >= LOCK_CHANGES_MAX || out->len - begin > LOCK_CHANGES_BYTES;
        if (ret->more)
                return false;
        lock_event_encode(event, out);
        ret->last = event->id;
        ret->count++;
        return true;
}

/* False: as above. */
static bool page_tell(const struct page *page, const struct lock_watch *watch, size_t begin,
                      struct lock_changes *ret, struct buffer *out)
{
        struct cursor cursor = cursor_of(bytes_of(page->data, page->len));
        struct lock_event event;
        while (lock_change_decode(&cursor, &event)) {
                bool wanted = event.kind == LOCK_GAP || lock_event_watched(watch, event.key);
                if (event.id > watch->after && wanted && !tell(&event, begin, ret, out))
                        return false;
        }
        CHECK(cursor_done(&cursor) == ERR_NONE);
        return true;
}

void lock_copy_encode(const struct lock_copy *copy, const struct lock_watch *watch,
                      struct lock_changes *ret, struct buffer *out)
{
        size_t begin = out->len;
        *ret = (struct lock_changes){.last = watch->after};
        struct lock_event gap = {.id = copy->first, .kind = LOCK_GAP, .token.value = watch->after};
        if (watch->after < copy->first)
                (void)tell(&gap, begin, ret, out);
        for (size_t i = 0; i < copy->page_count && !ret->more; i++)
                if (page_at(copy, i)->last > watch->after)
                        (void)page_tell(page_at(copy, i), watch, begin, ret, out);
        if (!ret->more && copy->last > watch->after)
                ret->last = copy->last;
}
