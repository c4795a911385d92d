/* Names of elements that were removed before they came: spans sorted by stamp and index, none of
 * which touch, in chunks that are sorted too. A full chunk is cut in two; one that is empty goes.
 * So a name moves a part of one chunk, and now and then the list of chunks, in whatever order
 * names come. Where memory runs out, nothing has changed. */
#include "crdt/list.h"

#include "base/check.h"

enum {
        CHUNK_SPANS = 128,
        CHUNKS_MIN = 4,
};

struct list_gone_chunk {
        unsigned count; /* > 0 */
        struct list_span spans[CHUNK_SPANS];
};

/* Where a span is, or the place before which one belongs: `span` may be the count of its chunk
 * only in the last one. */
struct at {
        size_t chunk;
        unsigned span;
};

void list_gone_free(struct heap *heap, struct list_gone *gone)
{
        for (size_t i = 0; i < gone->chunk_count; i++)
                heap_free(heap, gone->chunks[i]);
        heap_free(heap, gone->chunks);
        *gone = (struct list_gone){0};
}

static int span_compare(struct list_span span, struct stamp stamp, uint32_t index)
{
        struct list_run run = list_run_of(span);
        int order = stamp_compare(run.stamp, stamp);
        if (order != 0)
                return order;
        return run.first + run.count <= index ? -1 : run.first > index;
}

static bool chunk_before(const struct list_gone_chunk *chunk, struct stamp stamp, uint32_t index)
{
        return span_compare(chunk->spans[chunk->count - 1], stamp, index) < 0;
}

/* The first span that ends after the name. */
static struct at seek(const struct list_gone *gone, struct stamp stamp, uint32_t index)
{
        struct at at = {0};
        size_t high = gone->chunk_count;
        while (at.chunk < high) {
                size_t middle = at.chunk + (high - at.chunk) / 2;
                if (chunk_before(gone->chunks[middle], stamp, index))
                        at.chunk = middle + 1;
                else
                        high = middle;
        }
        if (at.chunk == gone->chunk_count)
                return at;
        const struct list_gone_chunk *chunk = gone->chunks[at.chunk];
        unsigned last = chunk->count;
        while (at.span < last) {
                unsigned middle = at.span + (last - at.span) / 2;
                if (span_compare(chunk->spans[middle], stamp, index) < 0)
                        at.span = middle + 1;
                else
                        last = middle;
        }
        return at;
}

static bool at_end(const struct list_gone *gone, struct at at)
{
        return at.chunk == gone->chunk_count;
}

static struct list_run run_at(const struct list_gone *gone, struct at at)
{
        return list_run_of(gone->chunks[at.chunk]->spans[at.span]);
}

bool list_gone_has(const struct list_gone *gone, struct stamp stamp, uint32_t index)
{
        struct at at = seek(gone, stamp, index);
        return !at_end(gone, at) &&
               span_compare(gone->chunks[at.chunk]->spans[at.span], stamp, index) == 0;
}

bool list_gone_any(const struct list_gone *gone, struct stamp stamp)
{
        struct at at = seek(gone, stamp, 0);
        return !at_end(gone, at) && stamp_compare(run_at(gone, at).stamp, stamp) == 0;
}

static void chunk_drop(struct heap *heap, struct list_gone *gone, size_t chunk)
{
        heap_free(heap, gone->chunks[chunk]);
        gone->chunk_count--;
        if (chunk < gone->chunk_count)
                memmove(&gone->chunks[chunk], &gone->chunks[chunk + 1],
                        (gone->chunk_count - chunk) * sizeof *gone->chunks);
        if (gone->chunk_count == 0)
                list_gone_free(heap, gone);
}

/* `at` is that of the next span then. */
static void span_drop(struct heap *heap, struct list_gone *gone, struct at *at)
{
        struct list_gone_chunk *chunk = gone->chunks[at->chunk];
        chunk->count--;
        gone->count--;
        if (at->span < chunk->count)
                memmove(&chunk->spans[at->span], &chunk->spans[at->span + 1],
                        (chunk->count - at->span) * sizeof *chunk->spans);
        else if (chunk->count > 0)
                *at = (struct at){at->chunk + 1, 0};
        else
                at->span = 0;
        if (chunk->count == 0)
                chunk_drop(heap, gone, at->chunk);
}

/* Room for one more chunk in the list of them. */
static bool chunks_room(struct heap *heap, struct list_gone *gone)
{
        if (gone->chunk_count < gone->chunk_size)
                return true;
        size_t size = gone->chunk_size == 0 ? CHUNKS_MIN : gone->chunk_size * 2;
        struct list_gone_chunk **chunks = heap_resize(heap, gone->chunks, size * sizeof *chunks);
        if (chunks == NULL)
                return false;
        gone->chunks = chunks;
        gone->chunk_size = size;
        return true;
}

/* An empty chunk in that place. */
static struct list_gone_chunk *chunk_add(struct heap *heap, struct list_gone *gone, size_t at)
{
        struct list_gone_chunk *chunk =
                chunks_room(heap, gone) ? heap_alloc(heap, sizeof *chunk) : NULL;
        if (chunk == NULL)
                return NULL;
        if (at < gone->chunk_count)
                memmove(&gone->chunks[at + 1], &gone->chunks[at],
                        (gone->chunk_count - at) * sizeof *gone->chunks);
        gone->chunks[at] = chunk;
        gone->chunk_count++;
        return chunk;
}

/* Names that come in order fill their chunks; else a full one gives half of it away. */
static bool chunk_cut(struct heap *heap, struct list_gone *gone, struct at *at)
{
        struct list_gone_chunk *next = chunk_add(heap, gone, at->chunk + 1);
        if (next == NULL)
                return false;
        struct list_gone_chunk *chunk = gone->chunks[at->chunk];
        unsigned keep = at->span == CHUNK_SPANS ? CHUNK_SPANS : CHUNK_SPANS / 2;
        next->count = CHUNK_SPANS - keep;
        memcpy(next->spans, &chunk->spans[keep], next->count * sizeof *next->spans);
        chunk->count = keep;
        if (at->span > keep || keep == CHUNK_SPANS)
                *at = (struct at){at->chunk + 1, at->span - keep};
        return true;
}

static bool span_add(struct heap *heap, struct list_gone *gone, struct at at, struct list_run run)
{
        /* Behind all there are: at the end of the last chunk. */
        if (at_end(gone, at) && at.chunk > 0)
                at = (struct at){at.chunk - 1, gone->chunks[at.chunk - 1]->count};
        if (gone->chunk_count == 0 && chunk_add(heap, gone, 0) == NULL)
                return false;
        if (gone->chunks[at.chunk]->count == CHUNK_SPANS && !chunk_cut(heap, gone, &at))
                return false;
        struct list_gone_chunk *chunk = gone->chunks[at.chunk];
        if (at.span < chunk->count)
                memmove(&chunk->spans[at.span + 1], &chunk->spans[at.span],
                        (chunk->count - at.span) * sizeof *chunk->spans);
        chunk->spans[at.span] = list_span_of(run);
        chunk->count++;
        gone->count++;
        return true;
}

static bool touches(const struct list_run *run, const struct list_run *there)
{
        return stamp_compare(there->stamp, run->stamp) == 0 &&
               there->first <= run->first + run->count && run->first <= there->first + there->count;
}

static void widen(struct list_run *run, const struct list_run *there)
{
        uint32_t end = run->first + run->count;
        uint32_t there_end = there->first + there->count;
        run->first = there->first < run->first ? there->first : run->first;
        run->count = (end > there_end ? end : there_end) - run->first;
}

bool list_gone_add(struct heap *heap, struct list_gone *gone, struct list_run run)
{
        struct at at = seek(gone, run.stamp, run.first > 0 ? run.first - 1 : 0);
        if (at_end(gone, at))
                return span_add(heap, gone, at, run);
        struct list_run there = run_at(gone, at);
        if (!touches(&run, &there))
                return span_add(heap, gone, at, run);
        /* The first that it touches takes it in, then those behind. */
        widen(&there, &run);
        struct at first = at;
        struct at next = at.span + 1 < gone->chunks[at.chunk]->count
                                 ? (struct at){at.chunk, at.span + 1}
                                 : (struct at){at.chunk + 1, 0};
        while (!at_end(gone, next)) {
                struct list_run behind = run_at(gone, next);
                if (!touches(&there, &behind))
                        break;
                widen(&there, &behind);
                span_drop(heap, gone, &next);
        }
        gone->chunks[first.chunk]->spans[first.span] = list_span_of(there);
        return true;
}

void list_gone_write(const struct list_gone *gone, struct buffer *buffer)
{
        buffer_varint(buffer, gone->count);
        for (size_t i = 0; i < gone->chunk_count; i++)
                for (unsigned k = 0; k < gone->chunks[i]->count; k++)
                        list_run_write(buffer, list_run_of(gone->chunks[i]->spans[k]));
}

void list_gone_prune(struct heap *heap, struct list_gone *gone,
                     bool (*keeps)(const void *context, struct stamp stamp), const void *context)
{
        size_t chunks = 0;
        gone->count = 0;
        for (size_t i = 0; i < gone->chunk_count; i++) {
                struct list_gone_chunk *chunk = gone->chunks[i];
                unsigned kept = 0;
                for (unsigned k = 0; k < chunk->count; k++) {
                        if (keeps(context, list_run_of(chunk->spans[k]).stamp))
                                chunk->spans[kept++] = chunk->spans[k];
                }
                chunk->count = kept;
                gone->count += kept;
                if (kept > 0)
                        gone->chunks[chunks++] = chunk;
                else
                        heap_free(heap, chunk);
        }
        gone->chunk_count = chunks;
        if (chunks == 0)
                list_gone_free(heap, gone);
}
