/* Opinions, votes, verdicts. What is heard is written down with its time (health_heard,
 * health_reported, health_looked); health_step moves the own opinions on; everything else only
 * reads. Input from peers is bounds-checked in report.c and matched against the topology here: what
 * is not in it is ignored. */
#include "health/health_priv.h"

#include "base/check.h"

enum {
        PART_UP_AFTER = 2,
        PART_DOWN_AFTER = 2,
        PENALTY_SHIFT_MAX = 4,
        CALM_US = 60 * 1000 * 1000,
        PAUSE_HEARTBEATS = 2,
};

void part_hysteresis_init(struct part_hysteresis *part, uint8_t up_after, uint8_t down_after)
{
        CHECK(up_after > 0);
        CHECK(down_after > 0);
        *part = (struct part_hysteresis){.up_after = up_after, .down_after = down_after};
}

bool part_hysteresis_look(struct part_hysteresis *part, bool healthy)
{
        if (!part->known) {
                part->known = true;
                part->up = healthy;
                return true;
        }
        if (part->up == healthy) {
                part->count = 0;
                return false;
        }
        part->count++;
        if (part->count < (healthy ? part->up_after : part->down_after))
                return false;
        part->count = 0;
        part->up = healthy;
        return true;
}

static uint64_t ms_us(uint32_t ms)
{
        return (uint64_t)ms * 1000;
}

uint32_t age_ms(bool ever, uint64_t since_us, uint64_t now_us)
{
        if (!ever)
                return HEALTH_AGE_NEVER;
        uint64_t age = now_us > since_us ? (now_us - since_us) / 1000 : 0;
        return age < HEALTH_AGE_NEVER ? (uint32_t)age : HEALTH_AGE_NEVER - 1;
}

/* The index of a region, or region_count. */
uint32_t region_index(const struct health *health, uint8_t region)
{
        uint32_t i = 0;
        while (i < health->region_count && health->regions[i].id != region)
                i++;
        return i;
}

static struct health_peer *peer_of(struct health *health, uint32_t node)
{
        for (uint32_t i = 0; i < health->peer_count; i++) {
                if (health->peers[i].node == node)
                        return &health->peers[i];
        }
        return NULL;
}

static void peer_init(struct health_peer *peer, uint32_t node)
{
        *peer = (struct health_peer){.node = node};
        for (size_t i = 0; i < TOPOLOGY_REGIONS_MAX; i++)
                peer->ages_ms[i] = HEALTH_AGE_NEVER;
}

static void peers_forget(struct health *health, const struct topology *topology)
{
        uint32_t kept = 0;
        for (uint32_t i = 0; i < health->peer_count; i++) {
                if (topology_node_by_id(topology, health->peers[i].node) != NULL)
                        health->peers[kept++] = health->peers[i];
        }
        health->peer_count = kept;
}

/* Moves what a peer said of regions to their new places. */
static void peer_remap(struct health_peer *peer, const struct health *old_order,
                       const struct health_region *old_regions, uint32_t old_count)
{
        uint8_t opinions[TOPOLOGY_REGIONS_MAX] = {0};
        uint32_t ages[TOPOLOGY_REGIONS_MAX];
        for (uint32_t i = 0; i < TOPOLOGY_REGIONS_MAX; i++)
                ages[i] = HEALTH_AGE_NEVER;
        for (uint32_t i = 0; i < old_count; i++) {
                uint32_t to = region_index(old_order, old_regions[i].id);
                if (to == old_order->region_count)
                        continue;
                opinions[to] = peer->opinions[i];
                ages[to] = peer->ages_ms[i];
        }
        memcpy(peer->opinions, opinions, sizeof opinions);
        memcpy(peer->ages_ms, ages, sizeof ages);
}

static void regions_take(struct health *health, const struct topology *topology, uint64_t now_us)
{
        struct health_region old[TOPOLOGY_REGIONS_MAX];
        uint32_t old_count = health->region_count;
        memcpy(old, health->regions, sizeof old);
        health->region_count = topology->region_count;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                struct health_region *region = &health->regions[i];
                *region = (struct health_region){
                        .id = topology->regions[i].id, .started_us = now_us, .since_us = now_us};
                for (uint32_t k = 0; k < old_count; k++) {
                        if (old[k].id == region->id)
                                *region = old[k];
                }
        }
        for (uint32_t i = 0; i < health->peer_count; i++)
                peer_remap(&health->peers[i], health, old, old_count);
}

static void peers_take(struct health *health, const struct topology *topology)
{
        for (uint32_t r = 0; r < topology->region_count; r++) {
                const struct topology_region *region = &topology->regions[r];
                for (uint32_t n = 0; n < region->node_count; n++) {
                        struct health_peer *peer = peer_of(health, region->nodes[n].id);
                        if (peer == NULL) {
                                CHECK(health->peer_count < TOPOLOGY_NODES_MAX);
                                peer = &health->peers[health->peer_count++];
                                peer_init(peer, region->nodes[n].id);
                        }
                        peer->region_index = (uint8_t)r;
                }
        }
}

void health_reconfigure(struct health *health, const struct topology *topology, uint64_t now_us)
{
        const struct topology_region *own = topology_region_of_node(topology, health->own_node);
        if (own == NULL)
                return;
        peers_forget(health, topology);
        regions_take(health, topology, now_us);
        peers_take(health, topology);
        health->timing = topology->timing;
        health->own_index = (uint8_t)topology_region_index(topology, own);
        health->regions[health->own_index].opinion = HEALTH_UP;
        for (uint32_t i = own->backend_count; i < TOPOLOGY_BACKENDS_MAX; i++)
                part_hysteresis_init(&health->backends[i], PART_UP_AFTER, PART_DOWN_AFTER);
}

void health_init(struct health *health, const struct topology *topology, uint32_t own_node,
                 uint64_t now_us)
{
        CHECK(topology_node_by_id(topology, own_node) != NULL);
        memset(health, 0, sizeof *health);
        health->own_node = own_node;
        health->stepped_us = now_us;
        for (size_t i = 0; i < COUNT_OF(health->parts); i++)
                part_hysteresis_init(&health->parts[i], PART_UP_AFTER, PART_DOWN_AFTER);
        for (size_t i = 0; i < COUNT_OF(health->backends); i++)
                part_hysteresis_init(&health->backends[i], PART_UP_AFTER, PART_DOWN_AFTER);
        health_reconfigure(health, topology, now_us);
}

static uint64_t region_silence(const struct health_region *region, uint64_t now_us)
{
        uint64_t since = region->ever_heard ? region->heard_us : region->started_us;
        return now_us > since ? now_us - since : 0;
}

void health_heard(struct health *health, uint32_t node, uint64_t now_us)
{
        struct health_peer *peer = peer_of(health, node);
        if (peer == NULL || node == health->own_node)
                return;
        peer->ever_heard = true;
        peer->heard_us = now_us;
        struct health_region *region = &health->regions[peer->region_index];
        bool broken = !region->ever_heard || region->streak_us == 0 ||
                      region_silence(region, now_us) >= ms_us(health->timing.suspect_after_ms);
        if (broken)
                region->streak_us = now_us;
        region->ever_heard = true;
        region->heard_us = now_us;
}

bool health_reported(struct health *health, const struct health_report *report, uint64_t now_us)
{
        struct health_peer *peer = peer_of(health, report->node);
        if (peer == NULL || report->node == health->own_node)
                return false;
        health_heard(health, report->node, now_us);
        uint8_t opinions[TOPOLOGY_REGIONS_MAX] = {0};
        for (uint32_t i = 0; i < TOPOLOGY_REGIONS_MAX; i++)
                peer->ages_ms[i] = HEALTH_AGE_NEVER;
        for (uint32_t i = 0; i < report->region_count; i++) {
                uint32_t index = region_index(health, report->regions[i].region);
                if (index == health->region_count)
                        continue;
                opinions[index] = (uint8_t)report->regions[i].opinion;
                peer->ages_ms[index] = report->regions[i].age_ms;
        }
        bool changed = !peer->ever_reported ||
                       memcmp(opinions, peer->opinions, sizeof opinions) != 0 ||
                       peer->parts_known != report->parts_known ||
                       peer->parts_down != report->parts_down ||
                       peer->backends_up != report->backends_up ||
                       peer->backends_known != report->backends_known;
        memcpy(peer->opinions, opinions, sizeof opinions);
        peer->parts_known = report->parts_known;
        peer->parts_down = report->parts_down;
        peer->backends_up = report->backends_up;
        peer->backends_known = report->backends_known;
        peer->ever_reported = true;
        peer->reported_us = now_us;
        return changed;
}

/* The hysteresis of an own part, or NULL when there is none such. */
static struct part_hysteresis *part_at(struct health *health, enum health_part part, uint32_t index)
{
        if (part == HEALTH_PART_BACKEND)
                return index < TOPOLOGY_BACKENDS_MAX ? &health->backends[index] : NULL;
        return (unsigned)part < HEALTH_PART_BACKEND ? &health->parts[part] : NULL;
}

bool health_looked(struct health *health, enum health_part part, uint32_t index, bool healthy)
{
        struct part_hysteresis *hysteresis = part_at(health, part, index);
        return hysteresis != NULL && part_hysteresis_look(hysteresis, healthy);
}

bool health_part_up(const struct health *health, enum health_part part, uint32_t index,
                    bool *ret_known)
{
        static const struct part_hysteresis none;
        const struct part_hysteresis *hysteresis = &none;
        if (part == HEALTH_PART_BACKEND && index < TOPOLOGY_BACKENDS_MAX)
                hysteresis = &health->backends[index];
        else if ((unsigned)part < HEALTH_PART_BACKEND)
                hysteresis = &health->parts[part];
        if (ret_known != NULL)
                *ret_known = hysteresis->known;
        return hysteresis->known && hysteresis->up;
}

/* Steps */

static uint64_t recover_us(const struct health *health, const struct health_region *region)
{
        uint32_t shift = region->falls > 0 ? region->falls - 1 : 0;
        return ms_us(health->timing.recover_after_ms) << shift;
}

static enum health_verdict opinion_next(const struct health *health,
                                        const struct health_region *region, uint64_t now_us)
{
        const struct topology_timing *timing = &health->timing;
        uint64_t silence = region_silence(region, now_us);
        bool heard = region->ever_heard && silence < ms_us(timing->suspect_after_ms);
        switch (region->opinion) {
        case HEALTH_UNKNOWN:
                if (region->ever_heard)
                        return HEALTH_UP;
                return silence >= ms_us(timing->recover_after_ms) ? HEALTH_DOWN : HEALTH_UNKNOWN;
        case HEALTH_UP:
        case HEALTH_SUSPECT:
                if (heard)
                        return HEALTH_UP;
                return silence >= ms_us(timing->down_after_ms) ? HEALTH_DOWN : HEALTH_SUSPECT;
        case HEALTH_DOWN:
                return heard && now_us - region->streak_us >= recover_us(health, region)
                               ? HEALTH_UP
                               : HEALTH_DOWN;
        case HEALTH_VERDICT_COUNT:
                break;
        }
        UNREACHABLE("an opinion out of range");
}

static bool region_step(const struct health *health, struct health_region *region, uint64_t now_us)
{
        while (region->falls > 0 && now_us - region->calm_us >= CALM_US) {
                region->falls--;
                region->calm_us += CALM_US;
        }
        enum health_verdict next = opinion_next(health, region, now_us);
        if (next == region->opinion)
                return false;
        if (next == HEALTH_DOWN && region->opinion != HEALTH_UNKNOWN) {
                if (region->falls <= PENALTY_SHIFT_MAX)
                        region->falls++;
                region->calm_us = now_us;
        }
        if (next == HEALTH_DOWN)
                region->streak_us = 0;
        region->opinion = next;
        region->since_us = now_us;
        return true;
}

static void earlier(uint64_t at_us, uint64_t now_us, uint64_t *next_us)
{
        if (at_us > now_us && at_us < *next_us)
                *next_us = at_us;
}

static void region_deadlines(const struct health *health, const struct health_region *region,
                             uint64_t now_us, uint64_t *next_us)
{
        const struct topology_timing *timing = &health->timing;
        if (!region->ever_heard) {
                earlier(region->started_us + ms_us(timing->recover_after_ms), now_us, next_us);
                return;
        }
        earlier(region->heard_us + ms_us(timing->suspect_after_ms), now_us, next_us);
        earlier(region->heard_us + ms_us(timing->down_after_ms), now_us, next_us);
        if (region->opinion == HEALTH_DOWN)
                earlier(region->streak_us + recover_us(health, region), now_us, next_us);
}

static void forward(uint64_t *at_us, uint64_t by_us, uint64_t now_us)
{
        *at_us = now_us - *at_us > by_us ? *at_us + by_us : now_us;
}

/* This node was away: its absence is not the others' silence. */
static void absence_forgive(struct health *health, uint64_t by_us, uint64_t now_us)
{
        for (uint32_t i = 0; i < health->region_count; i++) {
                forward(&health->regions[i].heard_us, by_us, now_us);
                forward(&health->regions[i].started_us, by_us, now_us);
        }
        for (uint32_t i = 0; i < health->peer_count; i++) {
                forward(&health->peers[i].heard_us, by_us, now_us);
                forward(&health->peers[i].reported_us, by_us, now_us);
        }
}

struct health_step health_step(struct health *health, uint64_t now_us)
{
        CHECK(now_us >= health->stepped_us);
        uint64_t allowed = PAUSE_HEARTBEATS * ms_us(health->timing.heartbeat_ms);
        uint64_t gap = now_us - health->stepped_us;
        if (gap > allowed)
                absence_forgive(health, gap - allowed, now_us);
        health->stepped_us = now_us;
        struct health_step step = {.next_us = now_us + ms_us(health->timing.heartbeat_ms)};
        for (uint32_t i = 0; i < health->region_count; i++) {
                if (i == health->own_index)
                        continue;
                step.changed |= region_step(health, &health->regions[i], now_us);
                region_deadlines(health, &health->regions[i], now_us, &step.next_us);
        }
        return step;
}

/* Own parts */

void own_parts(const struct health *health, struct health_report *ret)
{
        for (unsigned i = 0; i < HEALTH_PART_BACKEND; i++) {
                if (health->parts[i].known)
                        ret->parts_known |= (uint8_t)(1u << i);
                if (health->parts[i].known && !health->parts[i].up)
                        ret->parts_down |= (uint8_t)(1u << i);
        }
        for (size_t i = 0; i < TOPOLOGY_BACKENDS_MAX; i++) {
                if (!health->backends[i].known)
                        continue;
                ret->backends_known++;
                if (health->backends[i].up)
                        ret->backends_up++;
        }
        if (ret->backends_known > 0)
                ret->parts_known |= 1u << HEALTH_PART_BACKEND;
        if (ret->backends_known > 0 && ret->backends_up == 0)
                ret->parts_down |= 1u << HEALTH_PART_BACKEND;
}

void health_report_make(const struct health *health, uint64_t now_us, struct health_report *ret)
{
        *ret = (struct health_report){
                .node = health->own_node,
                .region_count = (uint8_t)health->region_count,
        };
        own_parts(health, ret);
        for (uint32_t i = 0; i < health->region_count; i++) {
                const struct health_region *region = &health->regions[i];
                bool own = i == health->own_index;
                ret->regions[i].region = region->id;
                ret->regions[i].opinion = region->opinion;
                ret->regions[i].age_ms =
                        own ? 0 : age_ms(region->ever_heard, region->heard_us, now_us);
        }
}

/* Ages */

uint32_t health_age_node_ms(const struct health *health, uint32_t node, uint64_t now_us)
{
        if (node == health->own_node)
                return 0;
        for (uint32_t i = 0; i < health->peer_count; i++) {
                const struct health_peer *peer = &health->peers[i];
                if (peer->node == node)
                        return age_ms(peer->ever_heard, peer->heard_us, now_us);
        }
        return HEALTH_AGE_NEVER;
}

uint32_t health_age_region_ms(const struct health *health, uint8_t region, uint64_t now_us)
{
        uint32_t index = region_index(health, region);
        if (index == health->region_count)
                return HEALTH_AGE_NEVER;
        if (index == health->own_index)
                return 0;
        return age_ms(health->regions[index].ever_heard, health->regions[index].heard_us, now_us);
}
