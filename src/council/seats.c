/* seats.c - the rule by which nodes vote, and the way from one membership to another. A step is the
 * first row of a table that has something to do; each row says why it may. */
#include "council/seats.h"

#include "base/check.h"

#include <string.h>

const struct seat *seats_find(const struct seats *seats, uint32_t node)
{
        for (size_t i = 0; i < seats->count; i++)
                if (seats->items[i].member.node == node)
                        return &seats->items[i];
        return NULL;
}

static bool votes(const struct seat *seat)
{
        return seat->member.role != CONSENSUS_LEARNER;
}

size_t seats_votes(const struct seats *seats)
{
        size_t count = 0;
        for (size_t i = 0; i < seats->count; i++)
                count += votes(&seats->items[i]);
        return count;
}

size_t seats_votes_of(const struct seats *seats, uint8_t region)
{
        size_t count = 0;
        for (size_t i = 0; i < seats->count; i++)
                count += seats->items[i].region == region && votes(&seats->items[i]);
        return count;
}

bool seats_survive(const struct seats *seats, uint8_t region)
{
        size_t all = seats_votes(seats);
        return all - seats_votes_of(seats, region) >= all / 2 + 1;
}

/* ---- the rule ---- */

static uint32_t votes_of(const struct topology_region *region, uint32_t most)
{
        if (region->role == TOPOLOGY_ROLE_WITNESS)
                most = 1;
        return region->node_count < most ? region->node_count : most;
}

/* No region has half of the votes. */
static bool balanced(const struct topology *topology, uint32_t most)
{
        uint32_t all = 0;
        uint32_t largest = 0;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                uint32_t count = votes_of(&topology->regions[i], most);
                all += count;
                if (count > largest)
                        largest = count;
        }
        return 2 * largest < all;
}

static uint32_t most_votes(const struct topology *topology)
{
        for (uint32_t most = SEATS_REGION_VOTES_MAX; most > 0; most--)
                if (balanced(topology, most))
                        return most;
        return topology->region_count > 2 ? 1 : SEATS_REGION_VOTES_MAX;
}

static bool add(struct seats *seats, const struct topology_region *region, size_t node,
                enum consensus_member_role role)
{
        if (seats->count == SEATS_MAX)
                return false;
        struct seat *seat = &seats->items[seats->count++];
        *seat = (struct seat){.region = region->id};
        seat->member.node = region->nodes[node].id;
        seat->member.role = role;
        seat->member.priority = role == CONSENSUS_WITNESS ? 0 : SEATS_PRIORITY;
        return true;
}

static bool add_region(struct seats *seats, const struct topology_region *region, uint32_t voting)
{
        for (uint32_t i = 0; i < region->node_count; i++) {
                enum consensus_member_role role = CONSENSUS_LEARNER;
                if (i < voting)
                        role = region->role == TOPOLOGY_ROLE_WITNESS ? CONSENSUS_WITNESS
                                                                     : CONSENSUS_VOTER;
                if (!add(seats, region, i, role))
                        return false;
        }
        return true;
}

static bool wanted_global(const struct topology *topology, struct seats *seats)
{
        uint32_t most = most_votes(topology);
        uint32_t first = 0;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                uint32_t voting = votes_of(&topology->regions[i], most);
                if (i == 0)
                        first = voting;
                else if (topology->region_count == 2 && voting == first && voting > 1)
                        voting--;
                if (!add_region(seats, &topology->regions[i], voting))
                        return false;
        }
        return seats->count > 0;
}

bool seats_wanted(const struct topology *topology, uint8_t region, struct seats *ret)
{
        memset(ret, 0, sizeof *ret);
        if (region == 0)
                return wanted_global(topology, ret);
        const struct topology_region *own = topology_region_by_id(topology, region);
        for (uint32_t i = 0; own != NULL && i < own->node_count; i++)
                if (!add(ret, own, i, CONSENSUS_VOTER))
                        return false;
        return ret->count > 0;
}

/* ---- the way ---- */

struct way {
        const struct seats *now;
        const struct seats *wanted;
        uint32_t self;
        struct seats_step *step;
};

/* Would those who are there be a majority, were that one without a vote? */
static bool can_miss(const struct way *way, const struct seat *gone)
{
        size_t all = 0;
        size_t there = 0;
        for (size_t i = 0; i < way->now->count; i++) {
                const struct seat *seat = &way->now->items[i];
                if (seat == gone || !votes(seat))
                        continue;
                all++;
                there += seat->there;
        }
        return there >= all / 2 + 1;
}

static bool say(struct way *way, enum seats_action action, uint32_t node, const char *why)
{
        way->step->action = action;
        way->step->node = node;
        way->step->why = why;
        return true;
}

static bool set(struct way *way, const struct consensus_member *member, const char *why)
{
        way->step->member = *member;
        return say(way, SEATS_SET, member->node, why);
}

/* Without one that is away the majority is smaller. */
static bool remove_away(struct way *way)
{
        for (size_t i = 0; i < way->now->count; i++) {
                const struct seat *seat = &way->now->items[i];
                uint32_t node = seat->member.node;
                if (!seat->there && node != way->self && seats_find(way->wanted, node) == NULL &&
                    can_miss(way, seat))
                        return say(way, SEATS_REMOVE, node, "takes out one that is away");
        }
        return false;
}

/* A learner counts for nothing. */
static bool remove_learner(struct way *way)
{
        for (size_t i = 0; i < way->now->count; i++) {
                const struct seat *seat = &way->now->items[i];
                if (!votes(seat) && seats_find(way->wanted, seat->member.node) == NULL)
                        return say(way, SEATS_REMOVE, seat->member.node, "takes out a learner");
        }
        return false;
}

/* Who is to come begins as a learner and gets its vote when it has caught up. */
static bool take_in(struct way *way)
{
        for (size_t i = 0; i < way->wanted->count; i++) {
                const struct consensus_member *member = &way->wanted->items[i].member;
                if (seats_find(way->now, member->node) == NULL)
                        return set(way, member, "takes in");
        }
        return false;
}

/* Up: a vote for who learns, or none any more for one on its way to it. */
static bool promise(struct way *way)
{
        for (size_t i = 0; i < way->wanted->count; i++) {
                const struct seat *wanted = &way->wanted->items[i];
                const struct seat *seat = seats_find(way->now, wanted->member.node);
                unsigned role = votes(wanted) ? wanted->member.role : 0;
                if (seat != NULL && !votes(seat) && (unsigned)seat->member.wanted != role)
                        return set(way, &wanted->member,
                                   role != 0 ? "gives a vote to" : "gives no vote to");
        }
        return false;
}

static bool set_priority(struct way *way)
{
        for (size_t i = 0; i < way->wanted->count; i++) {
                const struct seat *wanted = &way->wanted->items[i];
                const struct seat *seat = seats_find(way->now, wanted->member.node);
                if (seat == NULL || seat->member.priority == wanted->member.priority)
                        continue;
                struct consensus_member member = seat->member;
                member.priority = wanted->member.priority;
                return set(way, &member, "gives another priority to");
        }
        return false;
}

/* All who are to have a vote have it before anybody who is there loses his. */
static bool wait_for_votes(struct way *way)
{
        for (size_t i = 0; i < way->wanted->count; i++) {
                const struct seat *wanted = &way->wanted->items[i];
                const struct seat *seat = seats_find(way->now, wanted->member.node);
                if (votes(wanted) && seat != NULL && !votes(seat))
                        return say(way, SEATS_WAIT, wanted->member.node,
                                   seat->there ? "waits until it has caught up"
                                               : "waits until it runs");
        }
        return false;
}

static const struct seat *heir(const struct way *way)
{
        const struct seat *best = NULL;
        for (size_t i = 0; i < way->wanted->count; i++) {
                const struct seat *wanted = &way->wanted->items[i];
                const struct seat *seat = seats_find(way->now, wanted->member.node);
                if (seat != NULL && seat->there && seat->member.role == CONSENSUS_VOTER &&
                    wanted->member.role == CONSENSUS_VOTER && seat->member.node != way->self &&
                    (best == NULL || wanted->member.priority > best->member.priority))
                        best = wanted;
        }
        return best;
}

/* Down or out: who has a vote and is to have none. He who leads is the last. */
static bool lower(struct way *way)
{
        const struct seat *kept = NULL;
        for (size_t i = 0; i < way->now->count; i++) {
                const struct seat *seat = &way->now->items[i];
                const struct seat *wanted = seats_find(way->wanted, seat->member.node);
                if (!votes(seat) || (wanted != NULL && votes(wanted)))
                        continue;
                kept = seat;
                if (seat->member.node == way->self || !can_miss(way, seat))
                        continue;
                if (wanted == NULL)
                        return say(way, SEATS_REMOVE, seat->member.node, "takes out");
                return set(way, &wanted->member, "takes the vote of");
        }
        if (kept == NULL)
                return false;
        const struct seat *next = kept->member.node == way->self ? heir(way) : NULL;
        if (next != NULL)
                return say(way, SEATS_HAND_OVER, next->member.node, "hands the lead over to");
        return say(way, SEATS_WAIT, kept->member.node,
                   "waits for a majority without the one that is to go");
}

static bool done(struct way *way)
{
        return say(way, SEATS_DONE, 0, "is as wanted");
}

void seats_next(const struct seats *now, const struct seats *wanted, uint32_t self,
                struct seats_step *ret)
{
        static bool (*const rows[])(struct way *) = {
                remove_away,  remove_learner, take_in, promise,
                set_priority, wait_for_votes, lower,   done,
        };
        struct way way = {now, wanted, self, ret};
        *ret = (struct seats_step){0};
        size_t i = 0;
        while (!rows[i](&way))
                CHECK(++i < COUNT_OF(rows));
}
