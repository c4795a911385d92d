/* From opinions to votes, from votes to verdicts, and the evidence for both. Only reads. */
#include "health/health_priv.h"

#include "base/check.h"

#include <stdio.h>

/* Does the word of a peer count? It must be young, and from a region that is heard. */
static bool peer_fresh(const struct health *health, const struct health_peer *peer, uint64_t now_us)
{
        return peer->ever_reported &&
               now_us - peer->reported_us < (uint64_t)health->timing.down_after_ms * 1000 &&
               (peer->region_index == health->own_index ||
                health->regions[peer->region_index].opinion != HEALTH_DOWN);
}

/* Two nodes of one region: the one that hears more is right. */
static enum health_verdict opinion_join(enum health_verdict a, enum health_verdict b)
{
        static const uint8_t weight[HEALTH_VERDICT_COUNT] = {
                [HEALTH_UP] = 3, [HEALTH_SUSPECT] = 2, [HEALTH_UNKNOWN] = 1, [HEALTH_DOWN] = 0};
        return weight[a] >= weight[b] ? a : b;
}

static void observer_add(struct health_observer *observer, enum health_verdict opinion,
                         uint32_t age, uint32_t report_age)
{
        observer->vote = observer->fresh ? opinion_join(observer->vote, opinion) : opinion;
        if (!observer->fresh || age < observer->age_ms)
                observer->age_ms = age;
        if (!observer->fresh || report_age < observer->report_age_ms)
                observer->report_age_ms = report_age;
        observer->fresh = true;
}

/* What the region `observer` says about the region `subject`; both are indexes. */
static struct health_observer observer_of(const struct health *health, uint32_t observer,
                                          uint32_t subject, uint64_t now_us)
{
        struct health_observer ret = {
                .region = health->regions[observer].id,
                .vote = HEALTH_UNKNOWN,
                .age_ms = HEALTH_AGE_NEVER,
                .report_age_ms = HEALTH_AGE_NEVER,
        };
        const struct health_region *region = &health->regions[subject];
        if (observer == health->own_index)
                observer_add(&ret, region->opinion,
                             age_ms(region->ever_heard, region->heard_us, now_us), 0);
        for (uint32_t i = 0; i < health->peer_count; i++) {
                const struct health_peer *peer = &health->peers[i];
                if (peer->region_index == observer && peer_fresh(health, peer, now_us))
                        observer_add(&ret, (enum health_verdict)peer->opinions[subject],
                                     peer->ages_ms[subject],
                                     age_ms(true, peer->reported_us, now_us));
        }
        return ret;
}

static enum health_self self_of(uint8_t known, uint8_t down, uint8_t backends_known,
                                uint8_t backends_up)
{
        static const uint8_t needed =
                1u << HEALTH_PART_REDIS | 1u << HEALTH_PART_EDGE | 1u << HEALTH_PART_BACKEND;
        if ((known & down & needed) != 0)
                return HEALTH_SELF_FAILED;
        return (known & down) != 0 || backends_up < backends_known ? HEALTH_SELF_DEGRADED
                                                                   : HEALTH_SELF_OK;
}

static enum health_self own_self(const struct health *health)
{
        struct health_report own = {0};
        own_parts(health, &own);
        return self_of(own.parts_known, own.parts_down, own.backends_known, own.backends_up);
}

enum health_self health_self(const struct health *health, uint8_t region, uint64_t now_us)
{
        uint32_t index = region_index(health, region);
        uint32_t counts[HEALTH_SELF_COUNT] = {0};
        if (index == health->region_count)
                return HEALTH_SELF_OK;
        if (index == health->own_index)
                counts[own_self(health)]++;
        for (uint32_t i = 0; i < health->peer_count; i++) {
                const struct health_peer *peer = &health->peers[i];
                if (peer->region_index == index && peer_fresh(health, peer, now_us))
                        counts[self_of(peer->parts_known, peer->parts_down, peer->backends_known,
                                       peer->backends_up)]++;
        }
        if (counts[HEALTH_SELF_FAILED] > 0 &&
            counts[HEALTH_SELF_OK] + counts[HEALTH_SELF_DEGRADED] == 0)
                return HEALTH_SELF_FAILED;
        return counts[HEALTH_SELF_FAILED] + counts[HEALTH_SELF_DEGRADED] > 0 ? HEALTH_SELF_DEGRADED
                                                                             : HEALTH_SELF_OK;
}

void health_parts(const struct health *health, uint8_t region, uint8_t *ret_known,
                  uint8_t *ret_down)
{
        uint32_t index = region_index(health, region);
        struct health_report parts = {0};
        if (index == health->own_index)
                own_parts(health, &parts);
        for (uint32_t i = 0; i < health->peer_count; i++) {
                if (health->peers[i].region_index != index || !health->peers[i].ever_reported)
                        continue;
                parts.parts_known |= health->peers[i].parts_known;
                parts.parts_down |= health->peers[i].parts_down;
        }
        *ret_known = parts.parts_known;
        *ret_down = parts.parts_down;
}

bool health_majority(const struct health *health, uint64_t now_us)
{
        uint32_t heard = 0;
        for (uint32_t i = 0; i < health->region_count; i++) {
                const struct health_region *region = &health->regions[i];
                uint32_t age = age_ms(region->ever_heard, region->heard_us, now_us);
                heard += i == health->own_index || age < health->timing.down_after_ms ? 1 : 0;
        }
        return heard >= health->region_count / 2 + 1;
}

static enum health_verdict verdict_of(const struct health *health, uint32_t subject,
                                      const struct health_evidence *evidence, bool some_down)
{
        enum health_verdict own = health->regions[subject].opinion;
        if (evidence->votes_down >= evidence->votes_needed)
                return HEALTH_DOWN;
        if (own == HEALTH_UNKNOWN)
                return HEALTH_UNKNOWN;
        return some_down || own != HEALTH_UP ? HEALTH_SUSPECT : HEALTH_UP;
}

static void evidence_collect(const struct health *health, uint32_t subject, uint64_t now_us,
                             struct health_evidence *ret)
{
        bool some_down = false;
        ret->votes_needed = health->region_count / 2 + 1;
        for (uint32_t i = 0; i < health->region_count; i++) {
                if (i == subject)
                        continue;
                struct health_observer observer = observer_of(health, i, subject, now_us);
                ret->observers[ret->observer_count++] = observer;
                if (observer.fresh && observer.vote == HEALTH_DOWN) {
                        ret->votes_down++;
                        some_down = true;
                }
        }
        ret->verdict = verdict_of(health, subject, ret, some_down);
}

bool health_evidence(const struct health *health, uint8_t region, uint64_t now_us,
                     struct health_evidence *ret)
{
        uint32_t subject = region_index(health, region);
        if (subject == health->region_count)
                return false;
        *ret = (struct health_evidence){.region = region};
        evidence_collect(health, subject, now_us, ret);
        ret->self = health_self(health, region, now_us);
        health_parts(health, region, &ret->parts_known, &ret->parts_down);
        return true;
}

enum health_verdict health_verdict(const struct health *health, uint8_t region, uint64_t now_us)
{
        uint32_t subject = region_index(health, region);
        if (subject == health->region_count)
                return HEALTH_UNKNOWN;
        struct health_evidence evidence = {0};
        evidence_collect(health, subject, now_us, &evidence);
        return evidence.verdict;
}

/* Text */

static const char *const verdict_names[HEALTH_VERDICT_COUNT] = {
        [HEALTH_UNKNOWN] = "unknown",
        [HEALTH_UP] = "up",
        [HEALTH_SUSPECT] = "suspect",
        [HEALTH_DOWN] = "down",
};

static const char *const self_names[HEALTH_SELF_COUNT] = {
        [HEALTH_SELF_OK] = "ok",
        [HEALTH_SELF_DEGRADED] = "degraded",
        [HEALTH_SELF_FAILED] = "failed",
};

static const char *const part_names[HEALTH_PART_COUNT] = {
        [HEALTH_PART_REDIS] = "redis",      [HEALTH_PART_DNS] = "dns",
        [HEALTH_PART_EDGE] = "edge",        [HEALTH_PART_POSTGRES] = "postgres",
        [HEALTH_PART_BACKEND] = "backends",
};

const char *health_verdict_name(enum health_verdict verdict)
{
        return (unsigned)verdict < HEALTH_VERDICT_COUNT ? verdict_names[verdict] : "unknown";
}

const char *health_self_name(enum health_self self)
{
        return (unsigned)self < HEALTH_SELF_COUNT ? self_names[self] : "unknown";
}

const char *health_part_name(enum health_part part)
{
        return (unsigned)part < HEALTH_PART_COUNT ? part_names[part] : "unknown";
}

const char *health_parts_text(uint8_t parts, char *text, size_t size)
{
        CHECK(size > 0);
        size_t used = 0;
        text[0] = 0;
        for (unsigned i = 0; i < HEALTH_PART_COUNT && used < size; i++) {
                if ((parts & (1u << i)) != 0)
                        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                                 used > 0 ? ", " : "", part_names[i]);
        }
        return text;
}

static size_t observer_text(const struct health_observer *observer, const struct topology *topology,
                            bool first, char *text, size_t size)
{
        const struct topology_region *region = topology_region_by_id(topology, observer->region);
        const char *name = region != NULL ? region->name : "a removed region";
        if (observer->age_ms == HEALTH_AGE_NEVER)
                return (size_t)snprintf(text, size, "%s%s never heard it", first ? ": " : ", ",
                                        name);
        uint32_t tenths = observer->age_ms / 100;
        return (size_t)snprintf(text, size, "%s%s for %u.%u s", first ? ": " : ", ", name,
                                tenths / 10, tenths % 10);
}

const char *health_evidence_text(const struct health_evidence *evidence,
                                 const struct topology *topology,
                                 char text[static HEALTH_SENTENCE_SIZE])
{
        char parts[64];
        size_t size = HEALTH_SENTENCE_SIZE;
        size_t used = (size_t)snprintf(text, size, "%s", health_verdict_name(evidence->verdict));
        if (evidence->votes_down > 0)
                used += (size_t)snprintf(text + used, size - used,
                                         ": not heard by %u of %u regions needed",
                                         evidence->votes_down, evidence->votes_needed);
        bool first = true;
        for (uint32_t i = 0; i < evidence->observer_count && used < size; i++) {
                const struct health_observer *observer = &evidence->observers[i];
                if (!observer->fresh || observer->vote != HEALTH_DOWN)
                        continue;
                used += observer_text(observer, topology, first, text + used, size - used);
                first = false;
        }
        if (evidence->self != HEALTH_SELF_OK && used < size)
                (void)snprintf(text + used, size - used, "; says of itself: %s (%s down)",
                               health_self_name(evidence->self),
                               health_parts_text(evidence->parts_down, parts, sizeof parts));
        return text;
}
