/* entries.h - private to raft/: the log in memory, from the oldest entry kept to the newest. */
#ifndef MERIDIAN_RAFT_ENTRIES_H
#define MERIDIAN_RAFT_ENTRIES_H

#include "base/bytes.h"
#include "base/heap.h"

/* The library's entry types, which are also those of the journal and of the wire. */
enum entry_type {
        ENTRY_COMMAND = 1,
        ENTRY_BARRIER,
        ENTRY_CHANGE,
};

struct entry {
        uint64_t term;
        enum entry_type type;
        struct bytes data; /* owned */
};

struct entries {
        struct heap *heap;
        struct entry *items;
        size_t head; /* of the first entry in items */
        size_t count;
        size_t size;
        uint64_t first; /* index of the first entry; of the next one where there is none */
};

/* Empty; the next entry has index `first`. Keeps `heap`. */
void entries_init(struct entries *entries, struct heap *heap, uint64_t first);
void entries_fini(struct entries *entries);

/* Index of the newest entry; first - 1 when empty. */
uint64_t entries_last(const struct entries *entries);

/* NULL when it is not kept. */
const struct entry *entries_at(const struct entries *entries, uint64_t index);

/* Appends a copy. False when memory runs out. */
MUST_USE bool entries_append(struct entries *entries, uint64_t term, enum entry_type type,
                             struct bytes data);

/* Drops all entries from `index` (>= first) on. */
void entries_cut(struct entries *entries, uint64_t index);

/* Drops all entries before `index`, which must be <= last + 1. */
void entries_trim(struct entries *entries, uint64_t index);

/* Drops everything; the next entry has index `first`. */
void entries_clear(struct entries *entries, uint64_t first);

#endif
