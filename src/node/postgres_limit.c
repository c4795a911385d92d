/* postgres_limit.c - how far the other regions are behind this node's primary, beside the limit of
 * the topology (rpo, rpo_bytes), and what else of its server people have to know of in time.
 *
 * The primary's looks say up to where it has committed, the words of the others what they have
 * (primary_exposure). Beyond the limit it is told, and with rpo_hold the gate makes new commits
 * wait: nothing of them is written meanwhile, so whoever streams catches up. They go on when half
 * of the limit is met, when the setting is gone, and when the server is another one. A node that
 * is stopped lets go of nothing: its gate closes with its lease, and who waits is refused. */
#include "node/node_priv.h"

#include <stdio.h>

#define OVER_US 5000000 /* within the limit for so long: the alarm is over */

enum alarm {
        ALARM_RPO = 1,
        ALARM_PAUSED = 2,
        ALARM_SLOT = 4,
};

/* True where it begins, or ends: to be told. */
static bool alarm_turns(struct postgres *postgres, enum alarm alarm, bool there)
{
        if (((postgres->alarms & alarm) != 0) == there)
                return false;
        postgres->alarms ^= alarm;
        return true;
}

/* May that one take over, and lives where what it has outlives this region, if any does? */
static bool keeps(const struct node *node, node_id id)
{
        const struct topology_postgres *rules = &node->topology->postgres;
        const struct topology_region *region = topology_region_of_node(node->topology, id);
        bool alone = true;
        for (uint32_t i = 0; i < rules->never_count; i++)
                if (rules->never[i] == id)
                        return false;
        for (uint32_t i = 0; i < rules->node_count; i++) {
                const struct topology_region *other =
                        topology_region_of_node(node->topology, rules->nodes[i]);
                alone = alone && other != NULL && other->id == node->region_id;
        }
        return id != node->config.self && postgres_listed(node, id) && region != NULL &&
               (alone || region->id != node->region_id);
}

static void known_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *own = &postgres->server;
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                const struct postgres_heard *heard = &postgres->heard[i];
                const struct primary_report *report = &heard->word.report;
                /* An old word counts: what was received once is there. */
                if (heard->node != 0 && keeps(node, heard->node) && report->system == own->system &&
                    report->timeline == own->timeline && report->epoch == own->epoch)
                        primary_exposure_known(&postgres->exposure, report->written);
        }
}

static void rpo_tell(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct primary_exposure *exposure = &postgres->exposure;
        if (exposure->over)
                postgres->over_us = node->now_us;
        bool there =
                exposure->over || ((postgres->alarms & ALARM_RPO) != 0 && exposure->count > 0 &&
                                   node->now_us < postgres->over_us + OVER_US);
        if (!alarm_turns(postgres, ALARM_RPO, there))
                return;
        const char *name = postgres_name(node, node->config.self);
        unsigned long long bytes = primary_exposure_bytes(exposure);
        unsigned long long age_ms = primary_exposure_age_us(exposure, node->now_us) / 1000;
        if (there)
                node_note(node, "postgres-alarm",
                          "PostgreSQL: of what %s has committed no other region has the last %llu "
                          "ms (%llu bytes), which is more than the limit (rpo): %s.",
                          name, age_ms, bytes,
                          postgres->limited ? "commits wait until one has caught up"
                                            : "commits go on, and would be lost with it");
        else if (exposure->count > 0)
                node_note(node, "postgres",
                          "PostgreSQL: another region has what %s has committed, but for the last "
                          "%llu ms (%llu bytes): the limit (rpo) is met again.",
                          name, age_ms, bytes);
}

static void rpo_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        const struct topology_postgres *rules = &node->topology->postgres;
        struct primary_limit limit = {1000ull * rules->rpo_ms, rules->rpo_bytes};
        bool writes = postgres_writes((enum primary_server)server->server);
        bool limited = postgres->limited;
        if (!writes || postgres->lease.token == 0 || server->epoch != postgres->lease.token) {
                postgres->exposure = (struct primary_exposure){0};
                postgres->limited = false;
        } else {
                primary_exposure_sample(&postgres->exposure, server->epoch, server->committed,
                                        server->looked_us != 0 ? server->looked_us
                                                               : postgres->seen_us,
                                        server->limited);
                known_look(node);
                bool over = primary_exposure_look(&postgres->exposure, &limit, node->now_us);
                postgres->limited =
                        over && rules->rpo_hold && (node->config.bugs & NODE_BUG_NO_LIMIT) == 0;
        }
        if (postgres->limited != limited)
                postgres->detail_next_us = node->now_us;
        rpo_tell(node);
}

static void paused_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        bool there = server->server == PRIMARY_STANDBY && server->paused;
        const char *name = postgres_name(node, node->config.self);
        if (!alarm_turns(postgres, ALARM_PAUSED, there))
                return;
        if (there)
                node_note(
                        node, "postgres-alarm",
                        "PostgreSQL: the replay of %s is paused: its readers see old data. SELECT "
                        "pg_wal_replay_resume() there ends it.",
                        name);
        else
                node_note(node, "postgres", "PostgreSQL: the replay of %s is not paused any more.",
                          name);
}

/* What it retains is at three quarters of what it may; NULL: none does. */
static const struct world_postgres_slot *slot_near(const struct world_postgres *server)
{
        if (!postgres_writes((enum primary_server)server->server))
                return NULL;
        for (unsigned i = 0; i < server->slot_count; i++) {
                const struct world_postgres_slot *slot = &server->slots[i];
                if (slot->lost ||
                    (server->slot_max != 0 && slot->retained > server->slot_max / 4 * 3))
                        return slot;
        }
        return NULL;
}

static void slot_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        const struct world_postgres_slot *slot = slot_near(server);
        const char *name = postgres_name(node, node->config.self);
        if (!alarm_turns(postgres, ALARM_SLOT, slot != NULL))
                return;
        if (slot == NULL)
                node_note(node, "postgres", "PostgreSQL: no slot of %s is near its limit any more.",
                          name);
        else if (slot->lost)
                node_note(
                        node, "postgres-alarm",
                        "PostgreSQL: the slot %s of %s has let go of its log: who reads by it has "
                        "to be made anew.",
                        slot->name, name);
        else
                node_note(node, "postgres-alarm",
                          "PostgreSQL: the slot %s of %s retains %llu of the %llu MB that it may "
                          "(max_slot_wal_keep_size), then its reader has to be made anew: start "
                          "the reader, or drop the slot.",
                          slot->name, name, (unsigned long long)(slot->retained >> 20),
                          (unsigned long long)(server->slot_max >> 20));
}

void postgres_limit_look(struct node *node)
{
        rpo_look(node);
        paused_look(node);
        slot_look(node);
}
