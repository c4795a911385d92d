/* The report on the wire:
 *
 *      u8 version (1), varint node, u8 parts known, u8 parts down, u8 backends up,
 *      u8 backends known, u8 count, then for each region: u8 id, u8 opinion, varint age in ms
 *
 * Anything else - another version, a part or opinion out of range, a region twice, bytes left
 * over - is refused as a whole. */
#include "health/health.h"

#include "base/cursor.h"

enum {
        REPORT_VERSION = 1,
};

void health_report_encode(const struct health_report *report, struct buffer *buffer)
{
        buffer_u8(buffer, REPORT_VERSION);
        buffer_varint(buffer, report->node);
        buffer_u8(buffer, report->parts_known);
        buffer_u8(buffer, report->parts_down);
        buffer_u8(buffer, report->backends_up);
        buffer_u8(buffer, report->backends_known);
        buffer_u8(buffer, report->region_count);
        for (uint32_t i = 0; i < report->region_count; i++) {
                buffer_u8(buffer, report->regions[i].region);
                buffer_u8(buffer, (uint8_t)report->regions[i].opinion);
                buffer_varint(buffer, report->regions[i].age_ms);
        }
}

static bool parts_valid(const struct health_report *report)
{
        return report->parts_known < 1u << HEALTH_PART_COUNT &&
               (report->parts_down & ~report->parts_known) == 0 &&
               report->backends_known <= TOPOLOGY_BACKENDS_MAX &&
               report->backends_up <= report->backends_known;
}

static void region_read(struct cursor *cursor, struct health_report *report, uint32_t index,
                        uint64_t *seen)
{
        uint8_t region = cursor_u8(cursor);
        uint8_t opinion = cursor_u8(cursor);
        uint32_t age = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        if (cursor_failed(cursor))
                return;
        if (region == 0 || region > TOPOLOGY_REGION_ID_MAX || opinion >= HEALTH_VERDICT_COUNT ||
            (*seen & (1ull << (region - 1))) != 0) {
                cursor_fail(cursor, ERR_MALFORMED);
                return;
        }
        *seen |= 1ull << (region - 1);
        report->regions[index].region = region;
        report->regions[index].opinion = (enum health_verdict)opinion;
        report->regions[index].age_ms = age;
}

enum err health_report_decode(struct bytes data, struct health_report *ret)
{
        struct cursor cursor = cursor_of(data);
        struct health_report report = {0};
        uint64_t seen = 0;
        if (cursor_u8(&cursor) != REPORT_VERSION)
                cursor_fail(&cursor, ERR_MALFORMED);
        report.node = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        report.parts_known = cursor_u8(&cursor);
        report.parts_down = cursor_u8(&cursor);
        report.backends_up = cursor_u8(&cursor);
        report.backends_known = cursor_u8(&cursor);
        report.region_count = cursor_u8(&cursor);
        if (report.node == 0 || !parts_valid(&report) || report.region_count > TOPOLOGY_REGIONS_MAX)
                cursor_fail(&cursor, ERR_MALFORMED);
        for (uint32_t i = 0; i < report.region_count && !cursor_failed(&cursor); i++)
                region_read(&cursor, &report, i, &seen);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = report;
        return err;
}
