/* info.c - the section `meridian` of INFO. The server puts the module's name before each field. */
#include "plugin.h"

#include <stdio.h>

void info_write(struct redis_info *info, int crash)
{
        if (crash || plugin.keyspace == NULL)
                return;
        batch_drain();
        struct keyspace_stats stats = keyspace_stats(plugin.keyspace);
        const struct vector *positions = keyspace_positions(plugin.keyspace);
        /* How long a region may have been away and still be told deltas, not a state. */
        uint64_t oldest_ms = hlc_ms(keyspace_ring_first(plugin.keyspace));
        uint64_t now_ms = plugin_now_ms();
        uint64_t span_ms = stats.ring_count > 0 && now_ms > oldest_ms ? now_ms - oldest_ms : 0;
        const struct {
                const char *name;
                uint64_t value;
        } rows[] = {
                {"origin", plugin.config.origin},
                {"position", vector_get(positions, plugin.config.origin)},
                {"recovered", keyspace_recovered(plugin.keyspace)},
                {"first", keyspace_first(plugin.keyspace)},
                {"clock_reserved", keyspace_reserved(plugin.keyspace)},
                {"holes", keyspace_seen(plugin.keyspace)->hole_count},
                {"ring_bytes", stats.ring_bytes},
                {"ring_bytes_max", plugin.config.ring_bytes},
                {"ring_deltas", stats.ring_count},
                {"ring_span_ms", span_ms},
                {"keys", stats.keys},
                {"tombstones", stats.tombstones},
                {"tombstones_collected", stats.collected},
                {"metadata_bytes", stats.bytes},
                {"local_deltas", stats.local},
                {"merged_deltas", stats.applied},
                {"skipped_deltas", stats.skipped},
                {"conflicts", stats.conflicts},
                {"drift_refused", stats.refused},
                {"commands_refused", plugin.refused},
                {"stamped_anew", plugin.stamped_anew},
                {"evicted_keys", plugin.evicted},
        };
        redis.InfoAddSection(info, "");
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                redis.InfoAddFieldULongLong(info, rows[i].name, rows[i].value);
        conflict_info(info);
        bus_info(info);
        status_info(info);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                char name[32];
                if (positions->hlc[i] == 0 || i == plugin.config.origin)
                        continue;
                snprintf(name, sizeof(name), "position_%u", i);
                redis.InfoAddFieldULongLong(info, name, positions->hlc[i]);
        }
}
