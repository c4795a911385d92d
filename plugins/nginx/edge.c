/* edge.c - backends as sets: a region has at most 64, so healthy, tried and marked ones are words,
 * and "the next in turn" is a bit of what is left. Nothing here fails; no backend is an answer. */
#include "edge.h"

#include "base/check.h"

/* Which backends count, from the best to the last resort. The first that has any is used. */
enum tier {
        TIER_ROUTABLE, /* healthy, in a region that may be routed to */
        TIER_HEALTHY,  /* healthy, wherever */
        TIER_ALL,
        TIER_COUNT,
};

static const char *const route_names[EDGE_ROUTE_COUNT] = {
        [EDGE_ROUTE_NONE] = "no-backend",
        [EDGE_ROUTE_OWN_REGION] = "own-region",
        [EDGE_ROUTE_NEAREST_REGION] = "nearest-region",
        [EDGE_ROUTE_FAIL_OPEN] = "fail-open",
        [EDGE_ROUTE_SERVER_LINES] = "server-lines",
};

const char *edge_route_name(enum edge_route route)
{
        return route < EDGE_ROUTE_COUNT ? route_names[route] : "";
}

static bool endpoint_equal(const struct topology_endpoint *a, const struct topology_endpoint *b)
{
        return a->port == b->port && a->address.family == b->address.family &&
               memcmp(a->address.bytes, b->address.bytes, sizeof a->address.bytes) == 0;
}

static uint64_t bits_below(unsigned count)
{
        return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

/* The backends of a region that count in this tier. */
static uint64_t eligible(const struct view *view, size_t index, enum tier tier, bool usable)
{
        const struct view_region *region = &view->regions[index];
        uint64_t all = bits_below(region->backend_count);
        if (region->state == REGION_ISOLATED || (tier == TIER_ROUTABLE && !usable))
                return 0;
        return tier == TIER_ALL ? all : all & region->backends_healthy;
}

static uint64_t tried_in(const struct view_region *region, const struct edge_tried *tried)
{
        uint64_t found = 0;
        for (size_t t = 0; t < tried->count; t++) {
                for (uint32_t i = 0; i < region->backend_count; i++) {
                        if (endpoint_equal(&region->backends[i], &tried->backends[t]))
                                found |= UINT64_C(1) << i;
                }
        }
        return found;
}

static uint64_t marked_in(const struct view_region *region, const struct edge_marks *marks,
                          uint64_t now_ms)
{
        uint64_t found = 0;
        for (size_t m = 0; m < marks->count; m++) {
                if (marks->items[m].until_ms <= now_ms)
                        continue;
                for (uint32_t i = 0; i < region->backend_count; i++) {
                        if (endpoint_equal(&region->backends[i], &marks->items[m].backend))
                                found |= UINT64_C(1) << i;
                }
        }
        return found;
}

/* The position of the n-th bit that is set, n < their count. */
static unsigned bit_nth(uint64_t bits, unsigned n)
{
        CHECK(bits != 0);
        while (n-- > 0)
                bits &= bits - 1;
        return (unsigned)__builtin_ctzll(bits);
}

static void choice_make(const struct view *view, size_t index, uint64_t left, enum tier tier,
                        uint32_t *turn, struct edge_choice *ret)
{
        const struct view_region *region = &view->regions[index];
        unsigned bit = bit_nth(left, (*turn)++ % (unsigned)__builtin_popcountll(left));
        bool own = (int)index == view->self_index;
        ret->route = own ? EDGE_ROUTE_OWN_REGION : EDGE_ROUTE_NEAREST_REGION;
        if (tier != TIER_ROUTABLE)
                ret->route = EDGE_ROUTE_FAIL_OPEN;
        ret->backend = region->backends[bit];
        memcpy(ret->region, region->name, sizeof ret->region);
}

static void route_make(const struct view *view, struct routing_route *ret)
{
        struct routing_query query = {.policy = TOPOLOGY_POLICY_NEAREST, .by_rtt = true};
        routing_order(&view->table, view->hints, &query, ret);
}

static uint64_t route_eligible(const struct view *view, const struct routing_route *route, size_t i,
                               enum tier tier)
{
        bool usable = i < route->usable_count && !route->fail_open;
        return eligible(view, route->choices[i].index, tier, usable);
}

/* The first tier that has any backend. TIER_COUNT: none has. */
static enum tier tier_find(const struct view *view, const struct routing_route *route,
                           size_t *ret_count)
{
        for (enum tier tier = TIER_ROUTABLE; tier < TIER_COUNT; tier++) {
                size_t count = 0;
                for (size_t i = 0; i < route->count; i++)
                        count += (size_t)__builtin_popcountll(route_eligible(view, route, i, tier));
                *ret_count = count;
                if (count > 0)
                        return tier;
        }
        return TIER_COUNT;
}

/* What nearly every request comes to: the own region is well, and nothing has failed. */
static bool choose_own(const struct view *view, uint32_t *turn, struct edge_choice *ret)
{
        if (view->self_index < 0)
                return false;
        size_t own = (size_t)view->self_index;
        const struct routing_hint *hint = &view->hints[own];
        if (!hint->routable || hint->load_per_mille >= ROUTING_LOAD_FULL)
                return false;
        uint64_t left = eligible(view, own, TIER_ROUTABLE, true);
        if (left == 0)
                return false;
        choice_make(view, own, left, TIER_ROUTABLE, turn, ret);
        return true;
}

bool edge_choose(const struct view *view, const struct edge_marks *marks, uint64_t now_ms,
                 const struct edge_tried *tried, uint32_t *turn, struct edge_choice *ret)
{
        if (tried->count == 0 && marks->count == 0 && choose_own(view, turn, ret))
                return true;

        struct routing_route route;
        size_t count = 0;
        ret->route = EDGE_ROUTE_NONE;
        route_make(view, &route);
        enum tier tier = tier_find(view, &route, &count);
        if (tier == TIER_COUNT || tried->count >= EDGE_TRIES_MAX)
                return false;
        for (int with_marked = 0; with_marked < 2; with_marked++) {
                for (size_t i = 0; i < route.count; i++) {
                        size_t index = route.choices[i].index;
                        const struct view_region *region = &view->regions[index];
                        uint64_t left = route_eligible(view, &route, i, tier);
                        left &= ~tried_in(region, tried);
                        if (with_marked == 0)
                                left &= ~marked_in(region, marks, now_ms);
                        if (left == 0)
                                continue;
                        choice_make(view, index, left, tier, turn, ret);
                        return true;
                }
        }
        return false;
}

/* Without an order, which nearly every request can do without. */
static size_t count_routable(const struct view *view)
{
        size_t count = 0;
        for (uint32_t i = 0; i < view->region_count; i++) {
                bool usable = view->hints[i].routable && view->regions[i].data;
                count += (size_t)__builtin_popcountll(eligible(view, i, TIER_ROUTABLE, usable));
        }
        return count;
}

size_t edge_count(const struct view *view)
{
        struct routing_route route;
        size_t count = count_routable(view);
        if (count == 0) {
                route_make(view, &route);
                (void)tier_find(view, &route, &count);
        }
        return count < EDGE_TRIES_MAX ? count : EDGE_TRIES_MAX;
}

/* Decimal digits of a number below 100000, from `at` on; returns what comes after. */
static char *digits_put(char *at, unsigned value)
{
        char digits[5];
        unsigned count = 0;
        do {
                digits[count++] = (char)('0' + value % 10);
                value /= 10;
        } while (value > 0);
        while (count > 0)
                *at++ = digits[--count];
        return at;
}

size_t edge_backend_text(const struct topology_endpoint *backend,
                         char text[static TOPOLOGY_ENDPOINT_TEXT])
{
        if (backend->address.family != 4)
                return strlen(topology_endpoint_text(backend, text));
        char *at = text;
        for (unsigned i = 0; i < 4; i++) {
                at = digits_put(at, backend->address.bytes[i]);
                *at++ = i < 3 ? '.' : ':';
        }
        at = digits_put(at, backend->port);
        *at = '\0';
        return (size_t)(at - text);
}

/* Backends of a region mostly differ in the last octet of IPv4, in the last one, or in the port. */
static size_t texts_place(const struct topology_endpoint *backend)
{
        const uint8_t *octets = backend->address.bytes;
        return (size_t)(octets[3] + octets[15] + backend->port) % EDGE_TEXTS;
}

size_t edge_texts_get(struct edge_texts *texts, const struct topology_endpoint *backend,
                      char text[static TOPOLOGY_ENDPOINT_TEXT])
{
        size_t place = texts_place(backend);
        size_t len = texts->items[place].len;
        if (len == 0 || !endpoint_equal(&texts->items[place].backend, backend)) {
                len = edge_backend_text(backend, texts->items[place].text);
                texts->items[place].len = len;
                texts->items[place].backend = *backend;
        }
        memcpy(text, texts->items[place].text, len + 1);
        return len;
}

/* Takes away what has run out. */
static void marks_expire(struct edge_marks *marks, uint64_t now_ms)
{
        for (size_t i = 0; i < marks->count;) {
                if (marks->items[i].until_ms <= now_ms)
                        marks->items[i] = marks->items[--marks->count];
                else
                        i++;
        }
}

void edge_mark(struct edge_marks *marks, const struct topology_endpoint *backend, uint64_t now_ms)
{
        marks_expire(marks, now_ms);
        edge_unmark(marks, backend);
        if (marks->count == EDGE_MARKS_MAX)
                return;
        marks->items[marks->count].backend = *backend;
        marks->items[marks->count].until_ms = now_ms + EDGE_MARK_MS;
        marks->count++;
}

void edge_unmark(struct edge_marks *marks, const struct topology_endpoint *backend)
{
        for (size_t i = 0; i < marks->count; i++) {
                if (endpoint_equal(&marks->items[i].backend, backend)) {
                        marks->items[i] = marks->items[--marks->count];
                        return;
                }
        }
}
