/* Would it be a deadlock to wait, also through semaphores? Who waits for a semaphore waits for one
 * of its holders, not for all; so there is no circle to look for. What decides is the reduction of
 * the resource graph (Holt 1972): whoever does not wait gives back what it holds, what is free is
 * granted by the rules of lock.h, whoever has got all that it waits for gives back in its turn,
 * until nobody can go on. It ends alike in whatever order that is done, so the order of hashing has
 * no influence on it.
 *
 *   gather:  from the new wait on, the owners whom it may wait for (who hold, and who stand before
 *            it), what these wait for, and so on; for each owner its places
 *   reduce:  the owner who asks gives nothing back. Would the new wait be granted in the end? Then
 *            it is no deadlock
 *   reduce:  now it gives all back, too. Is it granted now? Then it is one, and this wait closes it
 *
 * Where it would still not be granted there is a deadlock of others before it. Then it is their
 * matter, which ends by their time-outs, unless there is a circle besides (deadlock.c).
 *
 * Cost: O(p), p the places gathered: holders and waiters. Beyond STUCK_PLACES_MAX nothing is
 * concluded. */
#include "lock/table.h"

enum {
        STUCK_PLACES_MAX = 131072,
        ASKER = 0,
};

/* An owner that waits, or asks. */
struct stuck_owner {
        struct bytes name;
        uint32_t places; /* the first, and one; 0: none */
        uint32_t left;   /* of its waits, not granted */
        uint32_t todo;   /* the next that gives back, and one */
        bool done;       /* has given back all */
};

/* An owner holds a lock, or waits for it. */
struct stuck_place {
        uint32_t next; /* of the same owner, and one */
        uint32_t queue;
        struct claim *wait; /* NULL: it holds */
};

/* A lock that is waited for. */
struct stuck_queue {
        struct lock *lock;
        struct claim *far;  /* the last waiter that matters */
        struct claim *next; /* the first that is not granted; NULL: all are */
        uint32_t count;     /* of those who hold it, and have given nothing back */
        uint32_t slots;     /* that they asked for */
        uint32_t todo;      /* the next to be looked at, and one */
        bool waits;         /* to be looked at */
};

struct hunt {
        struct lock_table *table;
        struct bytes asker;
        uint32_t queue_todo; /* the first, and one */
        uint32_t owner_todo;
};

/* ---- what is known ---- */

static bool grown(struct lock_table *table, struct lock_scratch *scratch, size_t item)
{
        if (scratch->count < scratch->size)
                return true;
        size_t size = scratch->size == 0 ? 64 : scratch->size * 2;
        void *items = heap_resize(table->heap, scratch->items, size * item);
        if (items == NULL) {
                table->fatal = true;
                return false;
        }
        scratch->items = items;
        scratch->size = size;
        return true;
}

static struct stuck_owner *owner_at(const struct hunt *hunt, size_t i)
{
        return (struct stuck_owner *)hunt->table->stuck.owners.items + i;
}

static struct stuck_place *place_at(const struct hunt *hunt, size_t i)
{
        return (struct stuck_place *)hunt->table->stuck.places.items + i;
}

static struct stuck_queue *queue_at(const struct hunt *hunt, size_t i)
{
        return (struct stuck_queue *)hunt->table->stuck.queues.items + i;
}

static bool is_marked(const struct hunt *hunt, const struct claim *claim)
{
        return claim->waiting->mark == hunt->table->mark;
}

/* The number of an owner; UINT32_MAX: it neither waits nor asks, or memory ran out. */
static uint32_t owner_number(struct hunt *hunt, struct bytes name)
{
        struct lock_table *table = hunt->table;
        struct lock_scratch *owners = &table->stuck.owners;
        uint32_t number = UINT32_MAX;
        if (owners->count > 0 && bytes_equal(name, hunt->asker))
                return 0;
        struct claim *claim = table_owner_chain(table, name);
        while (claim != NULL && !bytes_equal(claim_owner(claim), name))
                claim = claim->waiting->owner_next;
        if (claim != NULL && is_marked(hunt, claim))
                return claim->waiting->stuck;
        if ((claim == NULL && owners->count > 0) ||
            !grown(table, owners, sizeof(struct stuck_owner)))
                return number;
        number = (uint32_t)owners->count++;
        *owner_at(hunt, number) = (struct stuck_owner){.name = name};
        for (; claim != NULL; claim = claim->waiting->owner_next) {
                if (!bytes_equal(claim_owner(claim), name))
                        continue;
                claim->waiting->mark = table->mark;
                claim->waiting->stuck = number;
                claim->waiting->granted = false;
        }
        return number;
}

/* ---- gathering ---- */

/* `wait` is NULL where it holds. False: it is nobody who waits, and gives back at once. */
static bool place_add(struct hunt *hunt, struct bytes name, uint32_t queue, struct claim *wait)
{
        struct lock_scratch *places = &hunt->table->stuck.places;
        uint32_t number = owner_number(hunt, name);
        if (number == UINT32_MAX || !grown(hunt->table, places, sizeof(struct stuck_place)))
                return false;
        struct stuck_owner *owner = owner_at(hunt, number);
        *place_at(hunt, places->count) =
                (struct stuck_place){.next = owner->places, .queue = queue, .wait = wait};
        owner->places = (uint32_t)++places->count;
        owner->left += wait != NULL;
        return true;
}

/* The queue in which `claim` stands; it is known from the first of it. */
static struct stuck_queue *queue_of(struct hunt *hunt, const struct claim *claim)
{
        struct lock *lock = claim->lock;
        struct waiting *first = lock->waiters.first->waiting;
        struct lock_scratch *queues = &hunt->table->stuck.queues;
        if (first->queue_mark == hunt->table->mark)
                return queue_at(hunt, first->queue);
        if (!grown(hunt->table, queues, sizeof(struct stuck_queue)))
                return NULL;
        uint32_t number = (uint32_t)queues->count++;
        *queue_at(hunt, number) = (struct stuck_queue){
                .lock = lock, .next = lock->waiters.first, .slots = lock->slots};
        first->queue_mark = hunt->table->mark;
        first->queue = number;
        for (const struct claim *held = lock->holders.first; held != NULL; held = held->next)
                queue_at(hunt, number)->count += place_add(hunt, claim_owner(held), number, NULL);
        return queue_at(hunt, number);
}

/* All up to `claim` matter. */
static void queue_reach(struct hunt *hunt, struct claim *claim)
{
        struct stuck_queue *queue = queue_of(hunt, claim);
        if (queue == NULL ||
            (queue->far != NULL && queue->far->timer.number >= claim->timer.number))
                return;
        const struct claim *known = queue->far;
        uint32_t number = claim->lock->waiters.first->waiting->queue;
        queue->far = claim;
        for (; claim != known; claim = claim->before)
                (void)place_add(hunt, claim_owner(claim), number, claim);
}

static bool is_too_much(const struct hunt *hunt)
{
        return hunt->table->fatal || hunt->table->stuck.places.count > STUCK_PLACES_MAX;
}

/* Whoever is known waits for these. False: too much. */
static bool gather(struct hunt *hunt)
{
        for (size_t i = 0; i < hunt->table->stuck.owners.count; i++) {
                struct bytes name = owner_at(hunt, i)->name;
                struct claim *claim = table_owner_chain(hunt->table, name);
                for (; claim != NULL; claim = claim->waiting->owner_next) {
                        if (bytes_equal(claim_owner(claim), name))
                                queue_reach(hunt, claim);
                        if (is_too_much(hunt))
                                return false;
                }
        }
        return !is_too_much(hunt);
}

/* ---- reducing ---- */

static struct stuck_owner *owner_of(const struct hunt *hunt, const struct claim *claim)
{
        return owner_at(hunt, claim->waiting->stuck);
}

static struct stuck_queue *queue_known(const struct hunt *hunt, const struct claim *claim)
{
        return queue_at(hunt, claim->lock->waiters.first->waiting->queue);
}

static void queue_todo(struct hunt *hunt, struct stuck_queue *queue)
{
        if (queue->waits)
                return;
        queue->waits = true;
        queue->todo = hunt->queue_todo;
        hunt->queue_todo = (uint32_t)(queue - queue_at(hunt, 0)) + 1;
}

static void owner_todo(struct hunt *hunt, struct stuck_owner *owner)
{
        owner->todo = hunt->owner_todo;
        hunt->owner_todo = (uint32_t)(owner - owner_at(hunt, 0)) + 1;
}

static bool has_room(const struct stuck_queue *queue, uint32_t slots)
{
        return queue->count == 0 ||
               (queue->slots == slots && queue->count < slots && queue->count < LOCK_HOLDERS_MAX);
}

/* It is next, with all of its set, and there is room. */
static bool is_ready(const struct hunt *hunt, const struct claim *claim)
{
        const struct claim *one = claim;
        do {
                const struct stuck_queue *queue = queue_known(hunt, one);
                if (queue->next != one || !has_room(queue, one->slots))
                        return false;
                one = one->waiting->set_next;
        } while (one != NULL && one != claim);
        return true;
}

static void claim_grant(struct hunt *hunt, struct claim *claim)
{
        struct stuck_queue *queue = queue_known(hunt, claim);
        struct stuck_owner *owner = owner_of(hunt, claim);
        queue->slots = claim->slots;
        queue->count++;
        queue->next = claim == queue->far ? NULL : claim->next;
        claim->waiting->granted = true;
        queue_todo(hunt, queue);
        if (--owner->left == 0 && owner != owner_at(hunt, ASKER))
                owner_todo(hunt, owner);
}

/* Grants what is ready; who has given up its waits is passed over. */
static void queue_look(struct hunt *hunt, struct stuck_queue *queue)
{
        while (queue->next != NULL && owner_of(hunt, queue->next)->done)
                queue->next = queue->next == queue->far ? NULL : queue->next->next;
        struct claim *claim = queue->next, *one = claim;
        if (claim == NULL || !is_ready(hunt, claim))
                return;
        do {
                struct claim *next = one->waiting->set_next;
                claim_grant(hunt, one);
                one = next;
        } while (one != NULL && one != claim);
}

static void owner_give_back(struct hunt *hunt, struct stuck_owner *owner)
{
        owner->done = true;
        for (uint32_t i = owner->places; i != 0; i = place_at(hunt, i - 1)->next) {
                const struct stuck_place *place = place_at(hunt, i - 1);
                struct stuck_queue *queue = queue_at(hunt, place->queue);
                queue->count -= place->wait == NULL || place->wait->waiting->granted;
                queue_todo(hunt, queue);
        }
}

static void reduce(struct hunt *hunt)
{
        for (;;) {
                if (hunt->owner_todo != 0) {
                        struct stuck_owner *owner = owner_at(hunt, hunt->owner_todo - 1);
                        hunt->owner_todo = owner->todo;
                        owner_give_back(hunt, owner);
                } else if (hunt->queue_todo != 0) {
                        struct stuck_queue *queue = queue_at(hunt, hunt->queue_todo - 1);
                        hunt->queue_todo = queue->todo;
                        queue->waits = false;
                        queue_look(hunt, queue);
                } else {
                        return;
                }
        }
}

/* ---- the question ---- */

static void lock_reach(struct hunt *hunt, const struct lock *lock)
{
        for (const struct claim *held = lock->holders.first; held != NULL; held = held->next)
                (void)owner_number(hunt, claim_owner(held));
        if (lock->waiters.last != NULL)
                queue_reach(hunt, lock->waiters.last);
}

/* Is one more at the end of the queue granted? */
static bool is_granted(struct hunt *hunt, const struct lock *lock, uint32_t slots)
{
        if (lock->waiters.last != NULL) {
                const struct stuck_queue *queue = queue_known(hunt, lock->waiters.last);
                return queue->next == NULL && has_room(queue, slots);
        }
        struct stuck_queue queue = {.slots = lock->slots};
        for (const struct claim *held = lock->holders.first; held != NULL; held = held->next) {
                uint32_t number = owner_number(hunt, claim_owner(held));
                queue.count += number != UINT32_MAX && !owner_at(hunt, number)->done;
        }
        return has_room(&queue, slots);
}

static bool all_granted(struct hunt *hunt, struct lock *const *locks, size_t count, uint32_t slots)
{
        for (size_t i = 0; i < count; i++)
                if (locks[i] != NULL && !is_granted(hunt, locks[i], slots))
                        return false;
        return true;
}

static bool is_closed_by(struct hunt *hunt, struct lock *const *locks, size_t count, uint32_t slots)
{
        for (size_t i = 0; i < hunt->table->stuck.queues.count; i++)
                queue_todo(hunt, queue_at(hunt, i));
        reduce(hunt);
        if (all_granted(hunt, locks, count, slots))
                return false;
        owner_give_back(hunt, owner_at(hunt, ASKER));
        reduce(hunt);
        return all_granted(hunt, locks, count, slots);
}

bool lock_stuck(struct lock_table *table, struct lock *const *locks, size_t count,
                struct bytes owner, uint32_t slots)
{
        struct hunt hunt = {.table = table, .asker = owner};
        table->mark++;
        table->stuck.owners.count = 0;
        table->stuck.places.count = 0;
        table->stuck.queues.count = 0;
        (void)owner_number(&hunt, owner);
        for (size_t i = 0; i < count && !is_too_much(&hunt); i++)
                if (locks[i] != NULL)
                        lock_reach(&hunt, locks[i]);
        if (gather(&hunt) && is_closed_by(&hunt, locks, count, slots))
                return true;
        for (size_t i = 0; i < count; i++)
                if (locks[i] != NULL && lock_deadlock(table, locks[i], owner, slots))
                        return true;
        return false;
}

void lock_stuck_free(struct lock_table *table)
{
        heap_free(table->heap, table->stuck.owners.items);
        heap_free(table->heap, table->stuck.places.items);
        heap_free(table->heap, table->stuck.queues.items);
}
