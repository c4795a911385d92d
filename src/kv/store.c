/* Versions: added at the end, dead when the next of their key comes, forgotten in that order.
 *
 *   add -> current -> dead, in the queue -> freed
 *                                       `-> kept, where the key keeps versions -> freed
 *
 * The sums of bytes: `bytes` has each key once, current values, and kept values; `dead_bytes` has
 * the values in the queue with their keys. */
#include "base/check.h"
#include "kv/kv_priv.h"

void kv_store_item(const struct version *version, struct kv_item *ret)
{
        *ret = (struct kv_item){
                .key = version->entry->key,
                .value = version->value,
                .actor = version->actor,
                .created = version->created,
                .revision = version->revision,
                .version = version->count,
                .session = version->session,
                .wall_us = version->wall_us,
        };
}

const struct version *kv_store_at(const struct entry *entry, uint64_t revision)
{
        const struct version *version = entry->newest;
        while (version != NULL && version->revision > revision)
                version = version->older;
        return version != NULL && version->count > 0 ? version : NULL;
}

const struct version *kv_store_live(const struct kv *kv, struct bytes key)
{
        const struct entry *entry = kv_tree_find(kv, key);
        if (entry == NULL || entry->newest->count == 0)
                return NULL;
        return entry->newest;
}

/* ---- bonds ---- */

struct bond *kv_store_bond(const struct kv *kv, uint64_t session)
{
        struct bond *bond = kv->bonds[session % BOND_CHAINS];
        while (bond != NULL && bond->session != session)
                bond = bond->chain;
        return bond;
}

static struct bond *bond_make(struct kv *kv, uint64_t session)
{
        struct bond *bond = kv_store_bond(kv, session);
        if (bond != NULL)
                return bond;
        bond = heap_alloc(kv->heap, sizeof *bond);
        if (bond == NULL)
                return NULL;
        bond->session = session;
        bond->chain = kv->bonds[session % BOND_CHAINS];
        kv->bonds[session % BOND_CHAINS] = bond;
        return bond;
}

static void bond_drop_empty(struct kv *kv, struct bond *bond)
{
        if (bond == NULL || bond->count > 0)
                return;
        struct bond **link = &kv->bonds[bond->session % BOND_CHAINS];
        while (*link != bond)
                link = &(*link)->chain;
        *link = bond->chain;
        heap_free(kv->heap, bond);
}

static void bond_tie(struct bond *bond, struct version *version)
{
        version->bond = bond;
        version->bound_before = bond->last;
        if (bond->last == NULL)
                bond->first = version;
        else
                bond->last->bound_next = version;
        bond->last = version;
        bond->count++;
}

static void bond_untie(struct kv *kv, struct version *version)
{
        struct bond *bond = version->bond;
        if (bond == NULL)
                return;
        if (version->bound_before == NULL)
                bond->first = version->bound_next;
        else
                version->bound_before->bound_next = version->bound_next;
        if (version->bound_next == NULL)
                bond->last = version->bound_before;
        else
                version->bound_next->bound_before = version->bound_before;
        version->bound_next = version->bound_before = NULL;
        version->bond = NULL;
        bond->count--;
        bond_drop_empty(kv, bond);
}

/* ---- adding ---- */

static size_t dead_size(const struct version *version)
{
        return version->entry->key.len + version->value.len;
}

static void dead_push(struct kv *kv, struct version *version, uint64_t revision)
{
        version->dead_at = revision;
        version->dead_next = NULL;
        if (kv->dead_last == NULL)
                kv->dead = version;
        else
                kv->dead_last->dead_next = version;
        kv->dead_last = version;
        kv->dead_count++;
        kv->dead_bytes += dead_size(version);
}

static struct version *version_make(struct kv *kv, const struct kv_item *item)
{
        uint8_t *memory =
                heap_alloc(kv->heap, sizeof(struct version) + item->value.len + item->actor.len);
        if (memory == NULL)
                return NULL;
        struct version *version = (struct version *)(void *)memory;
        uint8_t *at = memory + sizeof *version;
        version->value = bytes_of(at, item->value.len);
        version->actor = bytes_of(at + item->value.len, item->actor.len);
        if (item->value.len > 0)
                memcpy(at, item->value.ptr, item->value.len);
        if (item->actor.len > 0)
                memcpy(at + item->value.len, item->actor.ptr, item->actor.len);
        version->revision = item->revision;
        version->created = item->created;
        version->count = item->version;
        version->session = item->session;
        version->wall_us = item->wall_us;
        return version;
}

static struct entry *entry_make(struct kv *kv, struct bytes key)
{
        struct entry *entry = kv_tree_find(kv, key);
        if (entry != NULL)
                return entry;
        uint8_t *memory = heap_alloc(kv->heap, sizeof(struct entry) + key.len);
        if (memory == NULL)
                return NULL;
        entry = (struct entry *)(void *)memory;
        entry->key = bytes_of(memory + sizeof *entry, key.len);
        memcpy(memory + sizeof *entry, key.ptr, key.len);
        kv_tree_insert(kv, entry);
        kv->bytes += key.len;
        return entry;
}

static void entry_drop_empty(struct kv *kv, struct entry *entry)
{
        if (entry->newest != NULL)
                return;
        kv_tree_remove(kv, entry);
        kv->bytes -= entry->key.len;
        entry->parent = kv->garbage_entries;
        kv->garbage_entries = entry;
}

/* The current version of a key makes room for the next one. */
static void version_retire(struct kv *kv, struct version *old, uint64_t revision)
{
        if (old == NULL || old->dead_at != 0)
                return; /* one that deletes was dead from its own revision on */
        bond_untie(kv, old);
        kv->bytes -= old->value.len;
        kv->live_count--;
        dead_push(kv, old, revision);
}

static void version_link(struct kv *kv, struct entry *entry, struct version *version)
{
        version->entry = entry;
        version->older = entry->newest;
        if (entry->newest == NULL)
                entry->oldest = version;
        else
                entry->newest->newer = version;
        entry->newest = version;
        version->before = kv->last;
        if (kv->last != NULL && kv->last->revision == version->revision)
                version->ordinal = kv->last->ordinal + 1;
        if (kv->last == NULL)
                kv->first = version;
        else
                kv->last->next = version;
        kv->last = version;
        kv->version_count++;
        kv->encoded_bytes += kv_version_size(version);
}

struct version *kv_store_add(struct kv *kv, const struct kv_item *item, bool keep)
{
        struct entry *entry = entry_make(kv, item->key);
        if (entry == NULL)
                return NULL;
        struct bond *bond = item->session == 0 ? NULL : bond_make(kv, item->session);
        struct version *version = version_make(kv, item);
        if (version == NULL || (item->session != 0 && bond == NULL)) {
                heap_free(kv->heap, version);
                bond_drop_empty(kv, bond);
                entry_drop_empty(kv, entry);
                return NULL;
        }
        version->keep = keep;
        if (bond != NULL)
                bond_tie(bond, version);
        version_retire(kv, entry->newest, item->revision);
        version_link(kv, entry, version);
        if (version->count == 0) {
                dead_push(kv, version, version->revision);
        } else {
                kv->bytes += version->value.len;
                kv->live_count++;
        }
        return version;
}

/* ---- forgetting ---- */

static void version_forget(struct kv *kv, struct version *version)
{
        struct entry *entry = version->entry;
        kv_capture_save(kv, version);
        if (kv->capture.next == version)
                kv->capture.next = version->next;
        kv->encoded_bytes -= kv_version_size(version);
        if (version->newer == NULL)
                entry->newest = version->older;
        else
                version->newer->older = version->older;
        if (version->older == NULL)
                entry->oldest = version->newer;
        else
                version->older->newer = version->newer;
        if (version->before == NULL)
                kv->first = version->next;
        else
                version->before->next = version->next;
        if (version->next == NULL)
                kv->last = version->before;
        else
                version->next->before = version->before;
        if (version->kept) {
                entry->kept--;
                kv->bytes -= version->value.len;
        }
        kv->version_count--;
        version->dead_next = kv->garbage;
        kv->garbage = version;
        entry_drop_empty(kv, entry);
}

static void version_leave(struct kv *kv, struct version *version)
{
        struct entry *entry = version->entry;
        /* What was kept must stay behind the one that deletes, or it would be seen again. */
        if (version->count == 0 && version->older != NULL && !version->keep) {
                kv_capture_save(kv, version);
                version->keep = true;
        }
        if (!version->keep) {
                version_forget(kv, version);
                return;
        }
        version->kept = true;
        entry->kept++;
        kv->bytes += version->value.len;
        if (entry->kept > KV_KEPT_MAX) {
                CHECK(entry->oldest->kept);
                version_forget(kv, entry->oldest);
        }
}

void kv_store_compact(struct kv *kv, uint64_t revision)
{
        if (revision > kv->compacted)
                kv->compacted = revision;
        while (kv->dead != NULL && kv->dead->dead_at <= kv->compacted) {
                struct version *version = kv->dead;
                kv->dead = version->dead_next;
                if (kv->dead == NULL)
                        kv->dead_last = NULL;
                kv->dead_count--;
                kv->dead_bytes -= dead_size(version);
                version_leave(kv, version);
        }
}

void kv_store_garbage_free(struct kv *kv)
{
        while (kv->garbage != NULL) {
                struct version *version = kv->garbage;
                kv->garbage = version->dead_next;
                heap_free(kv->heap, version);
        }
        while (kv->garbage_entries != NULL) {
                struct entry *entry = kv->garbage_entries;
                kv->garbage_entries = entry->parent;
                heap_free(kv->heap, entry);
        }
}

bool kv_sweep(struct kv *kv, size_t bytes)
{
        kv_capture_end(kv);
        for (size_t left = bytes; kv->first != NULL && left > 0;) {
                struct version *version = kv->first;
                size_t done = kv_version_size(version);
                left -= left < done ? left : done;
                bond_untie(kv, version);
                version_forget(kv, version);
        }
        kv_store_garbage_free(kv);
        return kv->first == NULL;
}

void kv_store_clear(struct kv *kv)
{
        while (!kv_sweep(kv, SIZE_MAX))
                ;
        kv_seen_clear(kv);
        kv->dead = kv->dead_last = NULL;
        kv->dead_count = kv->dead_bytes = kv->bytes = kv->live_count = 0;
}
