/* status_redis.c - the Redis part of `meridian status`: what regions have not acknowledged of each
 * other's changes, transfers under way, and what each region's servers keep, merge and lack. What
 * a node does not tell, as it is older or does not answer, shows as `?`. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>

#define NAME_WIDTH           24
#define CELL_WIDTH           14
#define BEHIND_WIDTH         26

#define MEMORY_WARN_PERMILLE 950
#define AHEAD_WARN_MS        500

static const char *text_of(json_t *object, const char *key, const char *otherwise)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? otherwise : text;
}

/* Of one region's servers together: what another has not acknowledged. */
struct behind {
        bool known;
        bool state; /* it has to be sent the state of at least one of them */
        double deltas, bytes, ms, ahead_ms;
};

static double number_of(json_t *object, const char *key)
{
        return json_number_value(json_object_get(object, key));
}

static struct behind behind_of(json_t *region, const char *other)
{
        struct behind sum = {0};
        size_t i = 0;
        size_t k = 0;
        json_t *server = NULL;
        json_t *peer = NULL;
        json_array_foreach(json_object_get(json_object_get(region, "redis"), "servers"), i, server)
        {
                json_array_foreach(json_object_get(server, "peers"), k, peer)
                {
                        double ms = number_of(peer, "behind_ms");
                        double ahead_ms = number_of(peer, "clock_ahead_ms");
                        if (strcmp(text_of(peer, "region_name", ""), other) != 0)
                                continue;
                        sum.known = true;
                        sum.state = sum.state || json_is_true(json_object_get(peer, "needs_state"));
                        sum.deltas += number_of(peer, "behind_deltas");
                        sum.bytes += number_of(peer, "behind_bytes");
                        sum.ms = ms > sum.ms ? ms : sum.ms;
                        sum.ahead_ms = ahead_ms > sum.ahead_ms ? ahead_ms : sum.ahead_ms;
                }
        }
        return sum;
}

static void bytes_text(double bytes, char *text, size_t size)
{
        static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
        size_t unit = 0;
        for (; bytes >= 1000 && unit + 1 < COUNT_OF(units); unit++)
                bytes /= 1000;
        snprintf(text, size, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

static void print_behind(json_t *row, json_t *column)
{
        char bytes[24];
        char cell[64];
        struct behind behind = behind_of(row, text_of(column, "name", ""));
        bytes_text(behind.bytes, bytes, sizeof bytes);
        if (row == column || !behind.known)
                snprintf(cell, sizeof cell, "%s", row == column ? "-" : "?");
        else if (behind.state)
                snprintf(cell, sizeof cell, "needs the state");
        else if (behind.deltas > 0)
                snprintf(cell, sizeof cell, "%.0f, %s, %.1f s", behind.deltas, bytes,
                         behind.ms / 1000);
        else
                snprintf(cell, sizeof cell, "0");
        term_cell(behind.known && behind.deltas > 0 ? TERM_PLAIN : TERM_DIM, cell, BEHIND_WIDTH);
}

/* Each region's own node knows what the others have not acknowledged of its changes. */
static void print_backlogs(json_t *regions)
{
        size_t row_index = 0;
        size_t column_index = 0;
        json_t *row = NULL;
        json_t *column = NULL;
        printf("\n  ");
        term_cell(TERM_DIM, "Redis: not acknowledged", NAME_WIDTH + 2);
        json_array_foreach(regions, column_index, column)
        {
                char title[96];
                snprintf(title, sizeof title, "by %s", text_of(column, "name", "?"));
                term_cell(TERM_DIM, title, BEHIND_WIDTH);
        }
        putchar('\n');
        json_array_foreach(regions, row_index, row)
        {
                printf("  ");
                term_cell(TERM_PLAIN, text_of(row, "name", "?"), NAME_WIDTH + 2);
                json_array_foreach(regions, column_index, column)
                {
                        print_behind(row, column);
                }
                putchar('\n');
        }
}

static void print_transfers(json_t *regions)
{
        size_t i = 0;
        json_t *region = NULL;
        json_array_foreach(regions, i, region)
        {
                const char *origin = NULL;
                json_t *done = NULL;
                json_object_foreach(json_object_get(json_object_get(region, "redis"), "transfers"),
                                    origin, done)
                {
                        printf("  %s takes the whole state of %s: %.1f %%\n",
                               text_of(region, "name", "?"), origin, json_number_value(done));
                }
        }
}

/* ---- what the servers keep */

/* Of one region's servers together. */
struct kept {
        bool known;
        double keys, tombstones, backlog, backlog_max, merge_rate, ahead_ms, conflicts, evicted;
};

static struct kept kept_of(json_t *region)
{
        struct kept sum = {0};
        size_t i = 0;
        size_t k = 0;
        json_t *server = NULL;
        json_t *peer = NULL;
        json_array_foreach(json_object_get(json_object_get(region, "redis"), "servers"), i, server)
        {
                sum.known = true;
                sum.keys += number_of(server, "keys");
                sum.tombstones += number_of(server, "tombstones");
                sum.backlog += number_of(server, "backlog_bytes");
                sum.backlog_max += number_of(server, "backlog_bytes_max");
                sum.merge_rate += number_of(server, "merge_rate");
                sum.conflicts += number_of(server, "conflicts");
                sum.evicted += number_of(server, "evicted");
                json_array_foreach(json_object_get(server, "peers"), k, peer)
                {
                        double ahead_ms = number_of(peer, "clock_ahead_ms");
                        sum.ahead_ms = ahead_ms > sum.ahead_ms ? ahead_ms : sum.ahead_ms;
                }
        }
        return sum;
}

static void print_number(double value, const char *unit, bool warn)
{
        char cell[48];
        snprintf(cell, sizeof cell, "%.0f%s", value, unit);
        term_cell(warn ? TERM_WARN : value > 0 ? TERM_PLAIN : TERM_DIM, cell, CELL_WIDTH);
}

static void print_kept(json_t *region)
{
        char used[24];
        char max[24];
        char cell[64];
        struct kept kept = kept_of(region);
        printf("  ");
        term_cell(TERM_PLAIN, text_of(region, "name", "?"), NAME_WIDTH + 2);
        if (!kept.known) {
                printf("%s?%s\n", term_style(TERM_DIM), term_style(TERM_PLAIN));
                return;
        }
        bytes_text(kept.backlog, used, sizeof used);
        bytes_text(kept.backlog_max, max, sizeof max);
        snprintf(cell, sizeof cell, "%s of %s", used, max);
        print_number(kept.keys, "", false);
        print_number(kept.tombstones, "", false);
        term_cell(TERM_PLAIN, cell, BEHIND_WIDTH - 4);
        print_number(kept.merge_rate, "/s", false);
        print_number(kept.ahead_ms, " ms", kept.ahead_ms > AHEAD_WARN_MS);
        print_number(kept.conflicts, "", false);
        print_number(kept.evicted, "", kept.evicted > 0);
        putchar('\n');
}

/* What of a server needs somebody's attention. */
static void print_memory(json_t *region)
{
        size_t i = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(json_object_get(region, "redis"), "servers"), i, server)
        {
                const char *policy = text_of(server, "maxmemory_policy", "?");
                double permille = number_of(server, "memory_permille");
                double evicted = number_of(server, "evicted");
                if (permille >= MEMORY_WARN_PERMILLE)
                        printf("  %s%s%s %s uses %.1f %% of its maxmemory (%s): when it is full, "
                               "what other regions send waits or keys are evicted\n",
                               term_style(TERM_WARN), term_symbol(TERM_RING),
                               term_style(TERM_PLAIN), text_of(server, "endpoint", "?"),
                               permille / 10, policy);
                if (evicted > 0)
                        printf("  %s%s%s %s has evicted %.0f keys (%s), which other regions still "
                               "have: `meridian verify` names them\n",
                               term_style(TERM_WARN), term_symbol(TERM_RING),
                               term_style(TERM_PLAIN), text_of(server, "endpoint", "?"), evicted,
                               policy);
        }
}

static void print_servers(json_t *regions)
{
        static const char *const titles[] = {"keys", "tombstones"};
        static const char *const others[] = {"merged", "clocks ahead", "conflicts", "evicted"};
        size_t i = 0;
        json_t *region = NULL;
        printf("\n  ");
        term_cell(TERM_DIM, "Redis: keeps", NAME_WIDTH + 2);
        for (size_t k = 0; k < COUNT_OF(titles); k++)
                term_cell(TERM_DIM, titles[k], CELL_WIDTH);
        term_cell(TERM_DIM, "backlog", BEHIND_WIDTH - 4);
        for (size_t k = 0; k < COUNT_OF(others); k++)
                term_cell(TERM_DIM, others[k], CELL_WIDTH);
        putchar('\n');
        json_array_foreach(regions, i, region)
        {
                print_kept(region);
        }
        json_array_foreach(regions, i, region)
        {
                print_memory(region);
        }
}

void cli_print_redis(json_t *regions)
{
        print_backlogs(regions);
        print_transfers(regions);
        print_servers(regions);
}
