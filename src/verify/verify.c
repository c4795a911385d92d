/* verify.c - digests, and the comparison. Keys that are looked into are kept in chains by bucket,
 * with two readings of every region: this round's and the last one's. Only keys of the first round
 * are candidates; those that are found equal go. Fails only by running out of memory. */
#include "verify/verify.h"

#include "base/check.h"
#include "base/hash.h"

/* ---- digests */

static const struct hash_key name_key = {0x6d6572696469616e, 0x7665726966792d31};

/* A finaliser, so that sums of like numbers do not cancel out (Stafford's thirteenth variant). */
static uint64_t mix(uint64_t value)
{
        value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
        value = (value ^ value >> 27) * 0x94d049bb133111ebu;
        return value ^ value >> 31;
}

uint64_t verify_name(uint32_t db, struct bytes key)
{
        struct hash_key seed = {name_key.k0 ^ db, name_key.k1};
        return hash_sip(seed, key);
}

uint64_t verify_item(uint64_t name, struct bytes item, struct bytes value)
{
        uint64_t first = hash_sip((struct hash_key){name, name_key.k0}, item);
        return hash_sip((struct hash_key){first, name_key.k1}, value);
}

uint64_t verify_piece(uint64_t name, uint64_t at, struct bytes value)
{
        return hash_sip((struct hash_key){mix(name + at), name_key.k1}, value);
}

uint64_t verify_shape(uint64_t name, unsigned type, uint64_t length, uint64_t expire_at_ms)
{
        return mix(mix(mix(name ^ type) + length) + expire_at_ms);
}

uint64_t verify_memory(uint64_t name, uint64_t digest)
{
        return mix(mix(name) ^ digest);
}

/* ---- records */

void verify_record_write(struct buffer *buffer, const struct verify_record *record)
{
        buffer_varint(buffer, record->db);
        buffer_slice(buffer, record->key);
        buffer_u8(buffer, record->begin ? 1 : 0);
        buffer_u8(buffer, record->type);
        buffer_u64(buffer, record->memory);
        buffer_u64(buffer, record->value);
        buffer_u64(buffer, record->hlc);
        buffer_u8(buffer, record->origin);
}

bool verify_record_read(struct cursor *cursor, struct verify_record *ret)
{
        struct verify_record record = {0};
        if (cursor_left(cursor) == 0 || cursor_failed(cursor))
                return false;
        record.db = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        record.key = cursor_slice(cursor);
        uint8_t begin = cursor_u8(cursor);
        record.begin = begin == 1;
        record.type = cursor_u8(cursor);
        record.memory = cursor_u64(cursor);
        record.value = cursor_u64(cursor);
        record.hlc = cursor_u64(cursor);
        record.origin = cursor_u8(cursor);
        if (begin > 1 || record.key.len > VERIFY_KEY_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return false;
        *ret = record;
        return true;
}

/* ---- the comparison */

struct candidate {
        struct candidate *next;
        uint32_t db;
        uint32_t key_len;
        bool judged; /* different */
        uint8_t *key;
        struct verify_side sides[]; /* this round's, then the last one's */
};

struct sum {
        uint64_t sum;
        uint64_t keys;
};

struct verify {
        struct heap *heap;
        unsigned regions;
        unsigned rounds; /* that are over */
        struct sum *sums;
        struct candidate *heads[VERIFY_BUCKETS];
};

struct verify *verify_new(struct heap *heap, unsigned regions)
{
        CHECK(regions > 0 && regions <= VERIFY_REGIONS_MAX);
        struct verify *verify = heap_alloc(heap, sizeof *verify);
        if (verify == NULL)
                return NULL;
        verify->heap = heap;
        verify->regions = regions;
        verify->sums =
                heap_alloc_array(heap, (size_t)regions * VERIFY_BUCKETS, sizeof *verify->sums);
        if (verify->sums == NULL) {
                heap_free(heap, verify);
                return NULL;
        }
        return verify;
}

static void candidate_free(struct verify *verify, struct candidate *candidate)
{
        heap_free(verify->heap, candidate->key);
        heap_free(verify->heap, candidate);
}

void verify_free(struct verify *verify)
{
        if (verify == NULL)
                return;
        for (unsigned i = 0; i < VERIFY_BUCKETS; i++) {
                for (struct candidate *next, *at = verify->heads[i]; at != NULL; at = next) {
                        next = at->next;
                        candidate_free(verify, at);
                }
        }
        heap_free(verify->heap, verify->sums);
        heap_free(verify->heap, verify);
}

static struct sum *sum_of(const struct verify *verify, unsigned region, uint32_t bucket)
{
        return &verify->sums[(size_t)region * VERIFY_BUCKETS + bucket];
}

void verify_sum(struct verify *verify, unsigned region, uint32_t bucket, uint64_t keys,
                uint64_t sum)
{
        if (region >= verify->regions || bucket >= VERIFY_BUCKETS)
                return;
        sum_of(verify, region, bucket)->keys += keys;
        sum_of(verify, region, bucket)->sum += sum;
}

uint64_t verify_keys(const struct verify *verify, unsigned region)
{
        uint64_t keys = 0;
        for (uint32_t bucket = 0; bucket < VERIFY_BUCKETS; bucket++)
                keys += sum_of(verify, region, bucket)->keys;
        return keys;
}

/* The most keys that a region has in the bucket, where the regions differ; else 0. */
static uint64_t bucket_differs(const struct verify *verify, uint32_t bucket)
{
        const struct sum *first = sum_of(verify, 0, bucket);
        uint64_t most = first->keys;
        bool differs = false;
        for (unsigned region = 1; region < verify->regions; region++) {
                const struct sum *sum = sum_of(verify, region, bucket);
                differs = differs || sum->sum != first->sum || sum->keys != first->keys;
                most = sum->keys > most ? sum->keys : most;
        }
        if (!differs)
                return 0;
        return most == 0 ? 1 : most;
}

static void map_set(uint8_t *map, uint32_t bucket)
{
        map[bucket / 8] = (uint8_t)(map[bucket / 8] | 1u << bucket % 8);
}

unsigned verify_choose(const struct verify *verify, uint64_t keys_max,
                       uint8_t map[static VERIFY_MAP_LEN], unsigned *ret_chosen)
{
        unsigned count = 0;
        unsigned chosen = 0;
        uint64_t keys = 0;
        memset(map, 0, VERIFY_MAP_LEN);
        for (uint32_t bucket = 0; bucket < VERIFY_BUCKETS; bucket++) {
                uint64_t here = bucket_differs(verify, bucket);
                if (here == 0)
                        continue;
                count++;
                if (keys >= keys_max)
                        continue;
                keys += here;
                chosen++;
                map_set(map, bucket);
        }
        *ret_chosen = chosen;
        return count;
}

static struct candidate *candidate_find(struct verify *verify, uint32_t bucket, uint32_t db,
                                        struct bytes key)
{
        struct candidate *at = verify->heads[bucket];
        while (at != NULL && !(at->db == db && bytes_equal(bytes_of(at->key, at->key_len), key)))
                at = at->next;
        return at;
}

static struct candidate *candidate_new(struct verify *verify, uint32_t bucket, uint32_t db,
                                       struct bytes key)
{
        size_t sides = sizeof(struct verify_side) * 2 * verify->regions;
        struct candidate *candidate = heap_alloc(verify->heap, sizeof *candidate + sides);
        if (candidate == NULL)
                return NULL;
        candidate->key = heap_alloc(verify->heap, key.len + 1);
        if (candidate->key == NULL) {
                heap_free(verify->heap, candidate);
                return NULL;
        }
        if (key.len > 0)
                memcpy(candidate->key, key.ptr, key.len);
        candidate->key_len = (uint32_t)key.len;
        candidate->db = db;
        candidate->next = verify->heads[bucket];
        verify->heads[bucket] = candidate;
        return candidate;
}

/* A key that a walk met twice is taken as it was the last time. */
static void side_take(struct verify_side *side, const struct verify_record *record)
{
        if (record->begin)
                *side = (struct verify_side){.there = true,
                                             .type = record->type,
                                             .origin = record->origin,
                                             .memory = record->memory,
                                             .hlc = record->hlc};
        side->value += record->value;
}

enum err verify_records(struct verify *verify, unsigned region, struct bytes records)
{
        struct verify_record record;
        struct cursor cursor = cursor_of(records);
        CHECK(region < verify->regions);
        while (verify_record_read(&cursor, &record)) {
                uint32_t bucket = verify_bucket(verify_name(record.db, record.key));
                struct candidate *candidate = candidate_find(verify, bucket, record.db, record.key);
                if (candidate == NULL && verify->rounds == 0) {
                        candidate = candidate_new(verify, bucket, record.db, record.key);
                        if (candidate == NULL)
                                return ERR_NOMEM;
                }
                if (candidate != NULL && !candidate->judged)
                        side_take(&candidate->sides[region], &record);
        }
        return cursor_done(&cursor);
}

static bool side_same(const struct verify_side *a, const struct verify_side *b)
{
        return a->there == b->there && a->type == b->type && a->origin == b->origin &&
               a->memory == b->memory && a->value == b->value && a->hlc == b->hlc;
}

static bool sides_agree(const struct verify *verify, const struct candidate *candidate)
{
        for (unsigned region = 1; region < verify->regions; region++)
                if (!side_same(&candidate->sides[region], &candidate->sides[0]))
                        return false;
        return true;
}

static bool sides_stand(const struct verify *verify, const struct candidate *candidate)
{
        const struct verify_side *now = candidate->sides;
        const struct verify_side *before = candidate->sides + verify->regions;
        for (unsigned region = 0; region < verify->regions; region++)
                if (!side_same(&now[region], &before[region]))
                        return false;
        return true;
}

enum judgement {
        JUDGED_EQUAL,
        JUDGED_DIFFERENT,
        JUDGED_OPEN,
};

static enum judgement judge(const struct verify *verify, const struct candidate *candidate)
{
        if (candidate->judged)
                return JUDGED_DIFFERENT;
        if (sides_agree(verify, candidate))
                return JUDGED_EQUAL;
        return verify->rounds > 0 && sides_stand(verify, candidate) ? JUDGED_DIFFERENT
                                                                    : JUDGED_OPEN;
}

/* This round's readings become the last one's. */
static void turn_over(const struct verify *verify, struct candidate *candidate)
{
        size_t size = sizeof(struct verify_side) * verify->regions;
        memcpy(candidate->sides + verify->regions, candidate->sides, size);
        memset(candidate->sides, 0, size);
}

uint64_t verify_round_end(struct verify *verify, uint8_t map[static VERIFY_MAP_LEN])
{
        uint64_t open = 0;
        memset(map, 0, VERIFY_MAP_LEN);
        for (uint32_t bucket = 0; bucket < VERIFY_BUCKETS; bucket++) {
                struct candidate **at = &verify->heads[bucket];
                while (*at != NULL) {
                        struct candidate *candidate = *at;
                        enum judgement judgement = judge(verify, candidate);
                        if (judgement == JUDGED_EQUAL) {
                                *at = candidate->next;
                                candidate_free(verify, candidate);
                                continue;
                        }
                        if (!candidate->judged)
                                turn_over(verify, candidate);
                        candidate->judged = judgement == JUDGED_DIFFERENT;
                        if (judgement == JUDGED_OPEN) {
                                open++;
                                map_set(map, bucket);
                        }
                        at = &candidate->next;
                }
        }
        verify->rounds++;
        return open;
}

void verify_each(const struct verify *verify,
                 void (*each)(void *context, const struct verify_key *key), void *context)
{
        for (uint32_t bucket = 0; bucket < VERIFY_BUCKETS; bucket++) {
                const struct candidate *at = verify->heads[bucket];
                for (; at != NULL; at = at->next) {
                        const struct verify_side *sides = at->sides + verify->regions;
                        struct verify_key key = {
                                .verdict = at->judged ? VERIFY_DIFFERENT : VERIFY_MOVING,
                                .db = at->db,
                                .key = bytes_of(at->key, at->key_len),
                                .sides = sides,
                        };
                        for (unsigned i = 0; i < verify->regions; i++) {
                                key.missing = key.missing || !sides[i].there || sides[i].type == 0;
                                key.value = key.value || sides[i].value != sides[0].value;
                        }
                        each(context, &key);
                }
        }
}
