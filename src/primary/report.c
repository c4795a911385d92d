/* What a node tells of its server, as bytes, and how two servers' histories relate. Reading refuses
 * whatever a well-meaning node would not have written: a lying one can at most be outranked.
 *
 *      u8 version, varint node, u8 region, u8 server, u8 flags, u64 system, varint epoch,
 *      varint timeline, varint written, varint replayed,
 *      u8 lines, (varint timeline falling, varint epoch, varint end) each */
#include "primary/primary.h"

enum {
        VERSION = 1,
        FLAG_CUT = 1,
        FLAG_FOLLOWING = 2,
        FLAG_ELIGIBLE = 4,
};

void primary_report_encode(const struct primary_report *report, struct buffer *buffer)
{
        buffer_u8(buffer, VERSION);
        buffer_varint(buffer, report->node);
        buffer_u8(buffer, report->region);
        buffer_u8(buffer, (uint8_t)report->server);
        buffer_u8(buffer, (uint8_t)((report->lines_cut ? FLAG_CUT : 0) |
                                    (report->following ? FLAG_FOLLOWING : 0) |
                                    (report->eligible ? FLAG_ELIGIBLE : 0)));
        buffer_u64(buffer, report->system);
        buffer_varint(buffer, report->epoch);
        buffer_varint(buffer, report->timeline);
        buffer_varint(buffer, report->written);
        buffer_varint(buffer, report->replayed);
        buffer_u8(buffer, report->line_count);
        for (unsigned i = 0; i < report->line_count; i++) {
                buffer_varint(buffer, report->lines[i].timeline);
                buffer_varint(buffer, report->lines[i].epoch);
                buffer_varint(buffer, report->lines[i].end);
        }
}

static void lines_read(struct cursor *cursor, struct primary_report *report)
{
        uint32_t above = report->timeline;
        report->line_count = (uint8_t)cursor_u8(cursor);
        if (report->line_count > PRIMARY_LINES_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        for (unsigned i = 0; i < report->line_count && !cursor_failed(cursor); i++) {
                struct primary_line *line = &report->lines[i];
                line->timeline = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
                line->epoch = cursor_varint(cursor);
                line->end = cursor_varint(cursor);
                if (line->timeline == 0 || line->timeline >= above)
                        cursor_fail(cursor, ERR_MALFORMED);
                above = line->timeline;
        }
}

enum err primary_report_decode(struct bytes data, struct primary_report *ret)
{
        struct cursor cursor = cursor_of(data);
        struct primary_report report = {0};
        if (cursor_u8(&cursor) != VERSION && !cursor_failed(&cursor))
                return ERR_VERSION;
        report.node = (node_id)cursor_varint_max(&cursor, UINT32_MAX);
        report.region = cursor_u8(&cursor);
        unsigned server = cursor_u8(&cursor);
        unsigned flags = cursor_u8(&cursor);
        report.system = cursor_u64(&cursor);
        report.epoch = cursor_varint(&cursor);
        report.timeline = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        report.written = cursor_varint(&cursor);
        report.replayed = cursor_varint(&cursor);
        lines_read(&cursor, &report);
        bool absent = server == PRIMARY_ABSENT;
        if (server >= PRIMARY_SERVER_COUNT || flags >= FLAG_ELIGIBLE << 1 || report.node == 0 ||
            absent != (report.system == 0) || absent != (report.timeline == 0))
                cursor_fail(&cursor, ERR_MALFORMED);
        enum err err = cursor_done(&cursor);
        if (err != ERR_NONE)
                return err;
        report.server = (enum primary_server)server;
        report.lines_cut = (flags & FLAG_CUT) != 0;
        report.following = (flags & FLAG_FOLLOWING) != 0;
        report.eligible = (flags & FLAG_ELIGIBLE) != 0;
        *ret = report;
        return ERR_NONE;
}

static const struct primary_line *line_of(const struct primary_report *report, uint32_t timeline)
{
        for (unsigned i = 0; i < report->line_count; i++) {
                if (report->lines[i].timeline == timeline)
                        return &report->lines[i];
        }
        return NULL;
}

enum primary_match primary_match(const struct primary_report *own,
                                 const struct primary_report *holder)
{
        if (own->system == 0 || holder->system == 0)
                return PRIMARY_MATCH_UNKNOWN;
        if (own->system != holder->system)
                return PRIMARY_MATCH_FOREIGN;
        if (own->timeline == holder->timeline)
                return own->epoch == holder->epoch ? PRIMARY_MATCH_PREFIX : PRIMARY_MATCH_BROKEN;
        if (own->timeline > holder->timeline) {
                /* a takeover of this one that nobody took part in */
                const struct primary_line *left = line_of(own, holder->timeline);
                return left != NULL && left->epoch == holder->epoch ? PRIMARY_MATCH_DIVERGED
                                                                    : PRIMARY_MATCH_BROKEN;
        }
        const struct primary_line *line = line_of(holder, own->timeline);
        if (line == NULL || line->epoch != own->epoch)
                return PRIMARY_MATCH_BROKEN;
        return own->written <= line->end ? PRIMARY_MATCH_PREFIX : PRIMARY_MATCH_DIVERGED;
}
