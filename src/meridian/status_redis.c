/* status_redis.c - the Redis part of `meridian status`: what regions have not acknowledged of each
 * other's changes, transfers under way, and what each region's servers keep, merge and lack. What
 * a node does not tell, as it is older or does not answer, shows as `?`. */
#include "meridian/evacuate.h"
#include "term/table.h"

#include <stdio.h>

#define MEMORY_WARN_PERMILLE 950
#define AHEAD_WARN_MS        500

static const char *text_of(json_t *object, const char *key, const char *otherwise)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? otherwise : text;
}

static double number_of(json_t *object, const char *key)
{
        return json_number_value(json_object_get(object, key));
}

struct behind cli_behind_of(json_t *region, const char *other)
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

void cli_bytes_text(double bytes, char *text, size_t size)
{
        static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
        size_t unit = 0;
        for (; bytes >= 1000 && unit + 1 < COUNT_OF(units); unit++)
                bytes /= 1000;
        snprintf(text, size, unit == 0 || bytes >= 10 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

static void cell_behind(struct term_table *table, json_t *row, json_t *column)
{
        char bytes[24];
        struct behind behind = cli_behind_of(row, text_of(column, "name", ""));
        cli_bytes_text(behind.bytes, bytes, sizeof bytes);
        if (row == column || !behind.known)
                term_table_cell(table, TERM_DIM, row == column ? "-" : "?");
        else if (behind.state)
                term_table_cell(table, TERM_WARN, "needs the state");
        else if (behind.deltas > 0)
                term_table_cell(table, TERM_PLAIN, "%.0f (%s), %.1f s", behind.deltas, bytes,
                                behind.ms / 1000);
        else
                term_table_cell(table, TERM_DIM, "0");
}

static bool is_witness(json_t *region)
{
        return json_is_true(json_object_get(region, "witness"));
}

/* Each region's own node knows what the others have not acknowledged of its changes. */
static void print_backlogs(json_t *regions)
{
        size_t row_index = 0;
        size_t column_index = 0;
        size_t columns = 1;
        json_t *row = NULL;
        json_t *column = NULL;
        struct term_table table;
        json_array_foreach(regions, column_index, column)
        {
                columns += !is_witness(column);
        }
        term_table_init(&table, columns);
        term_table_cell(&table, TERM_DIM, "Redis: changes not acknowledged");
        json_array_foreach(regions, column_index, column)
        {
                if (!is_witness(column))
                        term_table_cell(&table, TERM_DIM, "by %s", text_of(column, "name", "?"));
        }
        json_array_foreach(regions, row_index, row)
        {
                if (is_witness(row))
                        continue;
                term_table_cell(&table, TERM_PLAIN, "%s", text_of(row, "name", "?"));
                json_array_foreach(regions, column_index, column)
                {
                        if (!is_witness(column))
                                cell_behind(&table, row, column);
                }
        }
        putchar('\n');
        term_table_print(&table);
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
        double keys, tombstones, backlog, backlog_max, merge_rate, ahead_ms, conflicts;
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
                json_array_foreach(json_object_get(server, "peers"), k, peer)
                {
                        double ahead_ms = number_of(peer, "clock_ahead_ms");
                        sum.ahead_ms = ahead_ms > sum.ahead_ms ? ahead_ms : sum.ahead_ms;
                }
        }
        return sum;
}

static void cell_number(struct term_table *table, double value, const char *unit, bool warn)
{
        term_table_cell(table,
                        warn        ? TERM_WARN
                        : value > 0 ? TERM_PLAIN
                                    : TERM_DIM,
                        "%.0f%s", value, unit);
}

static void cell_kept(struct term_table *table, json_t *region)
{
        char used[24];
        char max[24];
        struct kept kept = kept_of(region);
        term_table_cell(table, TERM_PLAIN, "%s", text_of(region, "name", "?"));
        if (!kept.known) {
                for (size_t i = 1; i < table->columns; i++)
                        term_table_cell(table, TERM_DIM, "?");
                return;
        }
        cli_bytes_text(kept.backlog, used, sizeof used);
        cli_bytes_text(kept.backlog_max, max, sizeof max);
        cell_number(table, kept.keys, "", false);
        cell_number(table, kept.tombstones, "", false);
        term_table_cell(table, TERM_PLAIN, "%s of %s", used, max);
        cell_number(table, kept.merge_rate, "/s", false);
        cell_number(table, kept.ahead_ms, " ms", kept.ahead_ms > AHEAD_WARN_MS);
        cell_number(table, kept.conflicts, "", false);
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
        static const char *const titles[] = {"Redis: keeps", "keys",  "tombstones", "backlog",
                                             "merged",       "drift", "conflicts"};
        size_t i = 0;
        json_t *region = NULL;
        struct term_table table;
        term_table_init(&table, COUNT_OF(titles));
        for (size_t k = 0; k < COUNT_OF(titles); k++)
                term_table_cell(&table, TERM_DIM, "%s", titles[k]);
        json_array_foreach(regions, i, region)
        {
                if (!is_witness(region))
                        cell_kept(&table, region);
        }
        putchar('\n');
        term_table_print(&table);
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
