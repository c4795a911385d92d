/* Compiling, ordering, explaining. Every region gets a rank of two integers (a class, then a value
 * in it) for the client; ordering is a sort by rank and then id. Nothing here fails: what is
 * unknown ranks last, and where nobody is routable all are (fail open).
 *
 * A distance is compared as a chord: for unit vectors, 1 - dot grows with the angle. It is cut to
 * 2^-44, which is about two metres near zero and far less elsewhere, so noise in the last bits of a
 * double decides nothing. With a bias the angle itself is needed, for the bias stretches it. */
#include "routing/routing.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>

#define UDEG_RADIAN    (3.14159265358979323846 / 180e6)
#define EARTH_RADIUS_M 6371008.8

struct vector {
        double x, y, z;
};

/* Lower is nearer to the front. */
struct rank {
        int64_t value;
        enum routing_reason reason;
        uint8_t tier; /* 0 usable, 1 full, 2 unroutable; then the class, then the value */
        uint8_t class;
};

enum rank_class {
        CLASS_OWN,
        CLASS_KNOWN,
        CLASS_PLACED, /* no round-trip time, but a place: behind the measured ones */
        CLASS_UNPLACED,
};

static struct vector vector_of(int32_t latitude_udeg, int32_t longitude_udeg)
{
        double latitude = latitude_udeg * UDEG_RADIAN;
        double longitude = longitude_udeg * UDEG_RADIAN;
        return (struct vector){cos(latitude) * cos(longitude), cos(latitude) * sin(longitude),
                               sin(latitude)};
}

/* The bias as a factor of distance: +50 halves it, -50 doubles it. */
static double stretch_of(int32_t bias)
{
        return bias >= 0 ? (100 - bias) / 100.0 : 100.0 / (100 + bias);
}

void routing_compile(const struct topology *topology, uint8_t own, const uint32_t *rtt_us,
                     struct routing_table *ret)
{
        memset(ret, 0, sizeof *ret);
        ret->count = topology->region_count;
        ret->own = own;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                const struct topology_region *region = &topology->regions[i];
                struct routing_entry *entry = &ret->entries[i];
                struct vector place = {0};
                if (region->place_known)
                        place = vector_of(region->latitude_udeg, region->longitude_udeg);
                entry->x = place.x;
                entry->y = place.y;
                entry->z = place.z;
                entry->stretch = stretch_of(region->bias);
                entry->rtt_us = rtt_us != NULL ? rtt_us[i] : ROUTING_RTT_UNKNOWN;
                entry->capacity = region->capacity;
                entry->id = region->id;
                entry->place_known = region->place_known ? 1 : 0;
                entry->data = region->role == TOPOLOGY_ROLE_DATA ? 1 : 0;
                memcpy(entry->name, region->name, sizeof entry->name);
                if (region->bias != 0)
                        ret->biased = 1;
        }
}

static bool entry_valid(const struct routing_entry *entry)
{
        return entry->id >= 1 && entry->id <= TOPOLOGY_REGION_ID_MAX && entry->place_known <= 1 &&
               entry->data <= 1 && fabs(entry->x) <= 1.0 && fabs(entry->y) <= 1.0 &&
               fabs(entry->z) <= 1.0 && entry->stretch > 0.0 && entry->stretch <= 100.0 &&
               memchr(entry->name, 0, sizeof entry->name) != NULL;
}

bool routing_table_valid(const struct routing_table *table)
{
        if (table->count > TOPOLOGY_REGIONS_MAX || table->own > TOPOLOGY_REGION_ID_MAX ||
            table->biased > 1)
                return false;
        for (uint32_t i = 0; i < table->count; i++) {
                if (!entry_valid(&table->entries[i]))
                        return false;
        }
        return true;
}

static double chord_of(const struct routing_entry *entry, struct vector place)
{
        double dot = entry->x * place.x + entry->y * place.y + entry->z * place.z;
        return 1.0 - fmax(-1.0, fmin(1.0, dot));
}

static uint32_t metres_of(const struct routing_entry *entry, struct vector place)
{
        return (uint32_t)llround(acos(1.0 - chord_of(entry, place)) * EARTH_RADIUS_M);
}

static int64_t distance_value(const struct routing_table *table, const struct routing_entry *entry,
                              struct vector place)
{
        if (table->biased != 0)
                return llround(metres_of(entry, place) * entry->stretch);
        return (int64_t)(chord_of(entry, place) * 0x1p44);
}

/* What a query says about where to measure from, worked out once for all regions. */
struct origin {
        enum {
                ORIGIN_PLACE, /* the client's own place */
                ORIGIN_OWN,   /* the own region, by time and then by its place */
        } kind;
        bool placed;
        struct vector place;
};

static struct origin origin_of(const struct routing_table *table, const struct routing_query *query)
{
        struct origin origin = {.kind = ORIGIN_OWN};
        if (query->place.known && !query->by_rtt) {
                origin.kind = ORIGIN_PLACE;
                origin.placed = true;
                origin.place = vector_of(query->place.latitude_udeg, query->place.longitude_udeg);
                return origin;
        }
        for (uint32_t i = 0; i < table->count; i++) {
                const struct routing_entry *entry = &table->entries[i];
                if (entry->id == table->own && entry->place_known != 0) {
                        origin.placed = true;
                        origin.place = (struct vector){entry->x, entry->y, entry->z};
                }
        }
        return origin;
}

static struct rank rank_nearest(const struct routing_table *table, const struct origin *origin,
                                const struct routing_entry *entry)
{
        struct rank rank = {.class = CLASS_UNPLACED, .reason = ROUTING_UNPLACED};
        bool placed = origin->placed && entry->place_known != 0;
        if (origin->kind == ORIGIN_PLACE && placed) {
                rank.class = CLASS_KNOWN;
                rank.value = distance_value(table, entry, origin->place);
                rank.reason = ROUTING_NEAREST_PLACE;
        } else if (origin->kind == ORIGIN_OWN && entry->id == table->own) {
                rank.class = CLASS_OWN;
                rank.reason = ROUTING_OWN;
        } else if (entry->rtt_us != ROUTING_RTT_UNKNOWN) {
                /* Also for a client with a place, when the region has none: behind the placed. */
                rank.class = origin->kind == ORIGIN_OWN ? CLASS_KNOWN : CLASS_PLACED;
                rank.value = entry->rtt_us;
                rank.reason = ROUTING_NEAREST_RTT;
        } else if (origin->kind == ORIGIN_OWN && placed) {
                rank.class = CLASS_PLACED;
                rank.value = distance_value(table, entry, origin->place);
                rank.reason = ROUTING_OWN_PLACE;
        }
        return rank;
}

static int order_position(const struct routing_query *query, uint8_t id)
{
        for (size_t i = 0; i < query->order_count; i++) {
                if (query->order[i] == id)
                        return (int)i;
        }
        return -1;
}

/* The rank of a region, or false when it is no candidate at all. */
static bool rank_of(const struct routing_table *table, const struct routing_hint *hints,
                    const struct routing_query *query, const struct origin *origin, uint32_t index,
                    struct rank *ret)
{
        const struct routing_entry *entry = &table->entries[index];
        if (entry->data == 0)
                return false;
        if (query->policy == TOPOLOGY_POLICY_NEAREST) {
                *ret = rank_nearest(table, origin, entry);
        } else {
                int position = order_position(query, entry->id);
                if (position < 0)
                        return false;
                *ret = (struct rank){
                        .class = CLASS_KNOWN, .value = position, .reason = ROUTING_NAMED};
        }
        if (!hints[index].routable)
                ret->tier = 2;
        else if (hints[index].load_per_mille >= ROUTING_LOAD_FULL)
                ret->tier = 1;
        return true;
}

static bool rank_before(const struct rank *a, uint8_t a_id, const struct rank *b, uint8_t b_id)
{
        if (a->tier != b->tier)
                return a->tier < b->tier;
        if (a->class != b->class)
                return a->class < b->class;
        if (a->value != b->value)
                return a->value < b->value;
        return a_id < b_id;
}

static enum routing_reason reason_of(const struct rank *rank, bool fail_open)
{
        if (rank->tier == 2)
                return fail_open ? ROUTING_FAIL_OPEN : ROUTING_UNROUTABLE;
        return rank->tier == 1 ? ROUTING_FULL : rank->reason;
}

void routing_order(const struct routing_table *table, const struct routing_hint *hints,
                   const struct routing_query *query, struct routing_route *ret)
{
        struct rank ranks[TOPOLOGY_REGIONS_MAX] = {0};
        struct origin origin = origin_of(table, query);
        memset(ret, 0, sizeof *ret);
        for (uint32_t i = 0; i < table->count; i++) {
                struct rank rank;
                if (!rank_of(table, hints, query, &origin, i, &rank))
                        continue;
                size_t at = ret->count++;
                uint8_t id = table->entries[i].id;
                for (;
                     at > 0 && rank_before(&rank, id, &ranks[at - 1], ret->choices[at - 1].region);
                     at--) {
                        ranks[at] = ranks[at - 1];
                        ret->choices[at] = ret->choices[at - 1];
                }
                ranks[at] = rank;
                ret->choices[at] = (struct routing_choice){
                        .region = id,
                        .index = (uint8_t)i,
                        .distance_m = routing_distance_m(table, i, query->place),
                        .rtt_us = table->entries[i].rtt_us,
                };
                ret->usable_count += rank.tier < 2 ? 1 : 0;
        }
        ret->fail_open = ret->usable_count == 0 && ret->count > 0;
        if (ret->fail_open)
                ret->usable_count = ret->count;
        for (size_t i = 0; i < ret->count; i++)
                ret->choices[i].reason = reason_of(&ranks[i], ret->fail_open);
}

int routing_best(const struct routing_table *table, const struct routing_hint *hints,
                 const struct routing_query *query, bool *ret_fail_open)
{
        struct rank best = {0};
        struct origin origin = origin_of(table, query);
        int index = -1;
        for (uint32_t i = 0; i < table->count; i++) {
                struct rank rank;
                if (!rank_of(table, hints, query, &origin, i, &rank))
                        continue;
                if (index < 0 ||
                    rank_before(&rank, table->entries[i].id, &best, table->entries[index].id)) {
                        best = rank;
                        index = (int)i;
                }
        }
        if (ret_fail_open != NULL)
                *ret_fail_open = index >= 0 && best.tier == 2;
        return index;
}

uint32_t routing_distance_m(const struct routing_table *table, size_t index,
                            struct routing_place place)
{
        CHECK(index < table->count);
        if (!place.known || table->entries[index].place_known == 0)
                return UINT32_MAX;
        return metres_of(&table->entries[index],
                         vector_of(place.latitude_udeg, place.longitude_udeg));
}

static const struct {
        const char *name;
        const char *sentence;
} reasons[ROUTING_REASON_COUNT] = {
        [ROUTING_NEAREST_PLACE] = {"nearest-place", "by distance from the client"},
        [ROUTING_NEAREST_RTT] = {"nearest-rtt", "by measured round-trip time from this region"},
        [ROUTING_OWN] = {"own", "this region itself, since the client's place is not known"},
        [ROUTING_OWN_PLACE] = {"own-place",
                               "by distance from this region, round-trip time unknown"},
        [ROUTING_NAMED] = {"named", "the policy names it"},
        [ROUTING_UNPLACED] = {"unplaced", "neither its place nor a round-trip time is known"},
        [ROUTING_FULL] = {"full", "its load is at its capacity: behind those with room"},
        [ROUTING_FAIL_OPEN] = {"fail-open", "no region is routable, so all are (fail open)"},
        [ROUTING_UNROUTABLE] = {"unroutable", "skipped: it is not routable now"},
};

const char *routing_reason_name(enum routing_reason reason)
{
        return (unsigned)reason < ROUTING_REASON_COUNT ? reasons[reason].name : "unknown";
}

const char *routing_explain(const struct routing_table *table, const struct routing_query *query,
                            const struct routing_choice *choice,
                            char text[static ROUTING_SENTENCE_SIZE])
{
        CHECK(choice->index < table->count);
        CHECK((unsigned)choice->reason < ROUTING_REASON_COUNT);
        const struct routing_entry *entry = &table->entries[choice->index];
        char distance[48] = "", rtt[48] = "";
        const char *sentence = reasons[choice->reason].sentence;
        if (choice->reason == ROUTING_OWN && query->by_rtt)
                sentence = "this region itself";
        if (choice->distance_m != UINT32_MAX)
                (void)snprintf(distance, sizeof distance, ", %u km away",
                               choice->distance_m / 1000);
        if (choice->rtt_us != ROUTING_RTT_UNKNOWN && choice->region != table->own)
                (void)snprintf(rtt, sizeof rtt, ", %u.%u ms round trip", choice->rtt_us / 1000,
                               choice->rtt_us % 1000 / 100);
        (void)snprintf(text, ROUTING_SENTENCE_SIZE, "%s: %s%s%s", entry->name, sentence, distance,
                       rtt);
        return text;
}
