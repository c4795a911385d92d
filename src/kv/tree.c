/* The keys in order: a treap (Seidel and Aragon, 1996). Priorities are a keyed hash of the key, so
 * its shape depends on neither the order of writes nor on who chooses keys, and a key is found in
 * O(log n) steps as expected. Without recursion: entries know their parents. */
#include "base/hash.h"
#include "kv/kv_priv.h"

struct entry *kv_tree_find(const struct kv *kv, struct bytes key)
{
        struct entry *entry = kv->root;
        while (entry != NULL) {
                int order = bytes_compare(key, entry->key);
                if (order == 0)
                        return entry;
                entry = order < 0 ? entry->left : entry->right;
        }
        return NULL;
}

struct entry *kv_tree_from(const struct kv *kv, struct bytes key, bool strictly)
{
        struct entry *entry = kv->root;
        struct entry *best = NULL;
        while (entry != NULL) {
                int order = bytes_compare(entry->key, key);
                if (order > 0 || (order == 0 && !strictly)) {
                        best = entry;
                        entry = entry->left;
                } else {
                        entry = entry->right;
                }
        }
        return best;
}

struct entry *kv_tree_first(const struct kv *kv)
{
        struct entry *entry = kv->root;
        while (entry != NULL && entry->left != NULL)
                entry = entry->left;
        return entry;
}

struct entry *kv_tree_next(const struct entry *entry)
{
        struct entry *next = entry->right;
        if (next != NULL) {
                while (next->left != NULL)
                        next = next->left;
                return next;
        }
        next = entry->parent;
        while (next != NULL && next->right == entry) {
                entry = next;
                next = next->parent;
        }
        return next;
}

/* Where the parent points to this entry. */
static struct entry **link_of(struct kv *kv, const struct entry *entry)
{
        struct entry *parent = entry->parent;
        if (parent == NULL)
                return &kv->root;
        return parent->left == entry ? &parent->left : &parent->right;
}

/* The entry takes its parent's place, and that becomes its child. */
static void rotate_up(struct kv *kv, struct entry *entry)
{
        struct entry *parent = entry->parent;
        struct entry **link = link_of(kv, parent);
        struct entry *moved;
        if (parent->left == entry) {
                moved = entry->right;
                parent->left = moved;
                entry->right = parent;
        } else {
                moved = entry->left;
                parent->right = moved;
                entry->left = parent;
        }
        if (moved != NULL)
                moved->parent = parent;
        entry->parent = parent->parent;
        parent->parent = entry;
        *link = entry;
}

void kv_tree_insert(struct kv *kv, struct entry *entry)
{
        struct hash_key secret = {kv->seed, 0x6b76};
        struct entry **link = &kv->root;
        entry->priority = hash_sip(secret, entry->key);
        entry->parent = entry->left = entry->right = NULL;
        while (*link != NULL) {
                entry->parent = *link;
                link = bytes_compare(entry->key, (*link)->key) < 0 ? &(*link)->left
                                                                   : &(*link)->right;
        }
        *link = entry;
        while (entry->parent != NULL && entry->parent->priority < entry->priority)
                rotate_up(kv, entry);
        kv->entry_count++;
}

void kv_tree_remove(struct kv *kv, struct entry *entry)
{
        while (entry->left != NULL || entry->right != NULL) {
                bool left =
                        entry->right == NULL ||
                        (entry->left != NULL && entry->left->priority >= entry->right->priority);
                rotate_up(kv, left ? entry->left : entry->right);
        }
        *link_of(kv, entry) = NULL;
        kv->entry_count--;
}
