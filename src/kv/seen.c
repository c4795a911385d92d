/* The ids of transactions that were applied: a ring, the oldest forgotten first, and chains by
 * hash to find one. */
#include "base/check.h"
#include "base/hash.h"
#include "kv/kv_priv.h"

static uint32_t *head_of(const struct kv *kv, struct bytes id)
{
        struct hash_key secret = {kv->seed, 0x6964};
        return &kv->seen_heads[hash_sip(secret, id) % ID_CHAINS];
}

const struct seen *kv_seen_find(const struct kv *kv, struct bytes id)
{
        if (kv->seen == NULL)
                return NULL;
        for (uint32_t at = *head_of(kv, id); at != 0; at = kv->seen[at - 1].chain) {
                if (bytes_equal(kv->seen[at - 1].id, id))
                        return &kv->seen[at - 1];
        }
        return NULL;
}

static void seen_forget_first(struct kv *kv)
{
        struct seen *seen = &kv->seen[kv->seen_first];
        uint32_t number = (uint32_t)kv->seen_first + 1;
        uint32_t *link = head_of(kv, seen->id);
        while (*link != number) {
                CHECK(*link != 0);
                link = &kv->seen[*link - 1].chain;
        }
        *link = seen->chain;
        heap_free_bytes(kv->heap, seen->id);
        kv->seen_first = (kv->seen_first + 1) % KV_IDS_MAX;
        kv->seen_count--;
}

static bool seen_open(struct kv *kv)
{
        if (kv->seen != NULL)
                return true;
        kv->seen_heads = heap_alloc_array(kv->heap, ID_CHAINS, sizeof *kv->seen_heads);
        kv->seen = heap_alloc_array(kv->heap, KV_IDS_MAX, sizeof *kv->seen);
        if (kv->seen != NULL && kv->seen_heads != NULL)
                return true;
        heap_free(kv->heap, kv->seen);
        heap_free(kv->heap, kv->seen_heads);
        kv->seen = NULL;
        kv->seen_heads = NULL;
        return false;
}

bool kv_seen_add(struct kv *kv, struct bytes id, uint64_t revision, bool succeeded)
{
        struct bytes copy;
        if (!seen_open(kv) || !heap_copy(kv->heap, id, &copy))
                return false;
        if (kv->seen_count == KV_IDS_MAX)
                seen_forget_first(kv);
        size_t at = (kv->seen_first + kv->seen_count) % KV_IDS_MAX;
        uint32_t *head = head_of(kv, copy);
        kv->seen[at] = (struct seen){copy, revision, succeeded, *head};
        *head = (uint32_t)at + 1;
        kv->seen_count++;
        return true;
}

void kv_seen_clear(struct kv *kv)
{
        while (kv->seen_count > 0)
                seen_forget_first(kv);
        heap_free(kv->heap, kv->seen);
        heap_free(kv->heap, kv->seen_heads);
        kv->seen = NULL;
        kv->seen_heads = NULL;
        kv->seen_first = 0;
}
