/* What must be true of a space between two calls. */
#include "base/check.h"
#include "kv/kv_priv.h"

static void check_versions(const struct kv *kv)
{
        const struct version *before = NULL;
        size_t count = 0;
        for (const struct version *version = kv->first; version != NULL; version = version->next) {
                CHECK(version->before == before);
                CHECK(before == NULL || before->revision <= version->revision);
                CHECK(version->revision > 0 && version->revision <= kv->revision);
                CHECK(version->created <= version->revision);
                CHECK((version->bond != NULL) == (version->session != 0 && version->dead_at == 0));
                CHECK(version->count > 0 || version->dead_at == version->revision);
                CHECK(!version->kept || (version->keep && version->dead_at <= kv->compacted));
                before = version;
                count++;
        }
        CHECK(before == kv->last && count == kv->version_count);
}

static void check_entry(const struct kv *kv, const struct entry *entry, size_t *bytes)
{
        const struct version *newer = NULL;
        size_t kept = 0;
        CHECK(entry->newest != NULL && entry->newest->newer == NULL);
        for (const struct version *version = entry->newest; version != NULL;
             version = version->older) {
                CHECK(version->entry == entry && version->newer == newer);
                CHECK(newer == NULL || newer->revision > version->revision);
                CHECK(newer == NULL || version->dead_at != 0);
                CHECK(newer != NULL || (version->dead_at == 0) == (version->count > 0));
                kept += version->kept;
                *bytes += version->kept || version->dead_at == 0 ? version->value.len : 0;
                CHECK(version->older != NULL || entry->oldest == version);
                newer = version;
        }
        CHECK(kept == entry->kept && kept <= KV_KEPT_MAX);
        *bytes += entry->key.len;
        (void)kv;
}

static void check_tree(const struct kv *kv)
{
        const struct entry *before = NULL;
        size_t count = 0;
        size_t live = 0;
        size_t bytes = 0;
        for (const struct entry *entry = kv_tree_first(kv); entry != NULL;
             entry = kv_tree_next(entry)) {
                CHECK(before == NULL || bytes_compare(before->key, entry->key) < 0);
                CHECK(entry->parent == NULL || entry->parent->priority >= entry->priority);
                check_entry(kv, entry, &bytes);
                live += entry->newest->count > 0;
                before = entry;
                count++;
        }
        CHECK(count == kv->entry_count && live == kv->live_count && bytes == kv->bytes);
}

static void check_dead(const struct kv *kv)
{
        uint64_t before = kv->compacted;
        size_t count = 0;
        size_t bytes = 0;
        for (const struct version *version = kv->dead; version != NULL;
             version = version->dead_next) {
                CHECK(version->dead_at >= before && version->dead_at > kv->compacted);
                CHECK(!version->kept);
                before = version->dead_at;
                bytes += version->entry->key.len + version->value.len;
                count++;
        }
        CHECK(count == kv->dead_count && bytes == kv->dead_bytes);
}

static void check_bonds(const struct kv *kv)
{
        size_t bound = 0;
        size_t found = 0;
        for (size_t i = 0; i < BOND_CHAINS; i++) {
                for (const struct bond *bond = kv->bonds[i]; bond != NULL; bond = bond->chain) {
                        CHECK(bond->count > 0);
                        bound += bond->count;
                }
        }
        for (const struct version *version = kv->first; version != NULL; version = version->next)
                found += version->bond != NULL;
        CHECK(bound == found);
}

void kv_check(const struct kv *kv)
{
        CHECK(kv->compacted <= kv->revision && kv->seen_count <= KV_IDS_MAX);
        check_versions(kv);
        check_tree(kv);
        check_dead(kv);
        check_bonds(kv);
}
