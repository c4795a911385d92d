/* pack_priv.h - the bytes of a pack. Behind the head:
 *
 *      EXPIRES  u64 time of expiry
 *      KILLED   u64 clock, u8 origin
 *      counter  u8 enum crdt_base | LIVES; BASED: u64 clock, u8 origin; of an INT: u64 number; then
 *               parts
 *      part     u8 flags | origin - 1; LIVES: u8 life; u64 clock, but with LAST; u64 total;
 *               u64 clock of the cut; CUT: u64 cut
 *      element  u8 length of the name; dots; of a sorted set, the 64 bits of the score; the name
 *      dot      u8 flags | origin - 1 (MORE dots follow, by rising origin; REMOVED), u64 clock
 *      run      u8 kind << 6 | origin - 1, u64 clock, varint first, varint count
 *
 * A field has one dot, and so has a member of a sorted set. In the byte order of the machine.
 *
 * A PACK_BRIEF has no body: its part is that of the last write, was created with the first and cut
 * by nothing else, six bytes of the head are its total, and the high bits of the flags its life. */
#ifndef MERIDIAN_CRDT_PACK_PRIV_H
#define MERIDIAN_CRDT_PACK_PRIV_H

#include "crdt/list.h"
#include "crdt/pack.h"

#include <stddef.h>

enum pack_flag {
        PACK_TYPE = 7, /* enum pack_type */
        PACK_EXPIRES = 8,
        PACK_KILLED = 16,
        PACK_BASED = 32,   /* not of a PACK_BRIEF */
        BRIEF_LIFE_AT = 5, /* of a PACK_BRIEF: the life, three bits */
};

enum pack_type {
        PACK_COUNTER,
        PACK_HASH,
        PACK_SET,
        PACK_LIST,
        PACK_ZSET,
        PACK_BRIEF,  /* a counter that has had no more than increments of one origin: see below */
        PACK_STRING, /* a SET, and an expiry that was told later: no body */
};

enum {
        DOT_REMOVED = 0x80,
        DOT_MORE = 0x40,
        PART_LAST = 0x80,
        PART_CUT = 0x40,
        COUNTER_LIVES = 0x80,
        ORIGIN_BITS = 0x3f,
        DOT_LEN = 9,
        RUN_LEN_MAX = 9 + 4 + 4,
};

struct crdt_pack {
        uint64_t ttl_hlc;
        uint16_t len; /* of bytes[]; with live, count and two bytes: the total of a PACK_BRIEF */
        uint8_t flags;
        uint8_t ttl_origin;
        uint8_t live;  /* fields, members: those that are visible */
        uint8_t count; /* elements, parts or runs */
        uint8_t bytes[];
};

static inline enum pack_type pack_type(const struct crdt_pack *pack)
{
        return (enum pack_type)(pack->flags & PACK_TYPE);
}

enum {
        BRIEF_BITS = 48,
        BRIEF_SIZE = 16,
};

_Static_assert(offsetof(struct crdt_pack, bytes) + 2 == BRIEF_SIZE, "the end of the total");
_Static_assert(CRDT_LIVES_MAX < 8, "a life has three bits");

static inline bool brief_fits(int64_t total)
{
        return total >= -(INT64_C(1) << (BRIEF_BITS - 1)) && total < INT64_C(1) << (BRIEF_BITS - 1);
}

/* The upper four bytes of the total stand from `live` on, in the byte order of the machine. */
static inline int64_t brief_total(const struct crdt_pack *pack)
{
        int32_t high;
        memcpy(&high, (const uint8_t *)pack + offsetof(struct crdt_pack, live), sizeof high);
        return (int64_t)((uint64_t)(int64_t)high << 16 | pack->len);
}

static inline void brief_write(struct crdt_pack *pack, int64_t total)
{
        uint32_t high = (uint32_t)((uint64_t)total >> 16);
        pack->len = (uint16_t)(uint64_t)total;
        memcpy((uint8_t *)pack + offsetof(struct crdt_pack, live), &high, sizeof high);
}

/* Its part; the last write had the stamp `last`. Field by field: a processor waits for what was
 * stored in pieces and is then read as one. */
static inline void brief_part(const struct crdt_pack *pack, struct stamp last, int64_t total,
                              struct crdt_count *ret)
{
        ret->hlc = last.hlc;
        ret->total.whole = (uint64_t)total;
        ret->total.part = 0;
        ret->cut_hlc = pack->ttl_hlc - 1;
        ret->cut.whole = 0;
        ret->cut.part = 0;
        ret->origin = pack->ttl_origin;
        ret->life = pack->flags >> BRIEF_LIFE_AT;
}

static inline uint64_t u64_read(const uint8_t *at)
{
        uint64_t value;
        memcpy(&value, at, sizeof value);
        return value;
}

static inline void u64_write(uint8_t *at, uint64_t value)
{
        memcpy(at, &value, sizeof value);
}

static inline struct stamp dot_read_at(const uint8_t *at)
{
        return (struct stamp){u64_read(at + 1), (region_id)((at[0] & ORIGIN_BITS) + 1)};
}

static inline void dot_write_at(uint8_t *at, struct stamp stamp, uint8_t flags)
{
        at[0] = (uint8_t)(flags | (stamp.origin - 1));
        u64_write(at + 1, stamp.hlc);
}

/* Where the killed stamp is, and what follows. */
static inline size_t pack_killed_at(const struct crdt_pack *pack)
{
        return (pack->flags & PACK_EXPIRES) != 0 ? 8 : 0;
}

static inline size_t pack_body_at(const struct crdt_pack *pack)
{
        return pack_killed_at(pack) + ((pack->flags & PACK_KILLED) != 0 ? DOT_LEN : 0);
}

static inline struct stamp pack_killed(const struct crdt_pack *pack)
{
        return (pack->flags & PACK_KILLED) != 0 ? dot_read_at(pack->bytes + pack_killed_at(pack))
                                                : (struct stamp){0};
}

/* Nothing is visible. */
static inline bool pack_empty(const struct crdt_pack *pack)
{
        enum pack_type type = pack_type(pack);
        if (type == PACK_BRIEF || type == PACK_STRING)
                return false;
        return (type == PACK_HASH ? pack->live : pack->count) == 0;
}

/* How long an element's dots are. */
static inline size_t dots_len(const uint8_t *dots)
{
        size_t len = DOT_LEN;
        for (; (*dots & DOT_MORE) != 0; dots += DOT_LEN)
                len += DOT_LEN;
        return len;
}

/* What is between an element's dots and its name. */
static inline size_t pack_extra(const struct crdt_pack *pack)
{
        return pack_type(pack) == PACK_ZSET ? sizeof(double) : 0;
}

static inline size_t element_len(const struct crdt_pack *pack, const uint8_t *element)
{
        return 1 + dots_len(element + 1) + pack_extra(pack) + element[0];
}

static inline double score_read_at(const uint8_t *at)
{
        double score;
        memcpy(&score, at, sizeof score);
        return score;
}

/* At `at`, which is moved behind it. */
struct list_run pack_run_read(const uint8_t **at);
uint8_t *pack_run_write(uint8_t *at, struct list_run run);

/* The size of the block for that many bytes: one that allocators have, with room to grow. */
size_t pack_size(size_t len);

#endif
