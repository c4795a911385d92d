/* Reads PostgreSQL's texts line by line with a position that never goes back, so the cost is
 * linear. A text that is none of PostgreSQL's gives false; the caller says which file it was. */
#include "warden/history.h"
#include "base/digits.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_BYTES       8192
#define PAGE_HEADER      24
#define PAGE_HEADER_LONG 40 /* of the first page of a file */

/* ---- small readers ---- */

static bool line_next(struct bytes *rest, struct bytes *ret_line)
{
        if (rest->len == 0)
                return false;
        const uint8_t *end = memchr(rest->ptr, '\n', rest->len);
        size_t len = end == NULL ? rest->len : (size_t)(end - rest->ptr);
        *ret_line = bytes_of(rest->ptr, len);
        len += end != NULL;
        *rest = bytes_of(rest->ptr + len, rest->len - len);
        return true;
}

static struct bytes skip(struct bytes text, size_t len)
{
        return bytes_of(text.ptr + len, text.len - len);
}

static struct bytes trimmed(struct bytes text)
{
        while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t'))
                text = skip(text, 1);
        while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t' ||
                                text.ptr[text.len - 1] == '\r'))
                text.len--;
        return text;
}

/* What stands before the first blank, taken off. */
static struct bytes word_take(struct bytes *rest)
{
        *rest = trimmed(*rest);
        size_t len = 0;
        while (len < rest->len && rest->ptr[len] != ' ' && rest->ptr[len] != '\t')
                len++;
        struct bytes word = bytes_of(rest->ptr, len);
        *rest = trimmed(skip(*rest, len));
        return word;
}

static bool hex_parse(struct bytes text, uint64_t *ret)
{
        uint64_t value = 0;
        if (text.len == 0 || text.len > 8)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                uint8_t c = text.ptr[i];
                unsigned digit = c >= '0' && c <= '9'   ? c - '0' + 0u
                                 : c >= 'A' && c <= 'F' ? c - 'A' + 10u
                                 : c >= 'a' && c <= 'f' ? c - 'a' + 10u
                                                        : 16u;
                if (digit > 15)
                        return false;
                value = value << 4 | digit;
        }
        *ret = value;
        return true;
}

bool history_lsn_parse(struct bytes text, uint64_t *ret_lsn)
{
        const uint8_t *slash = text.len == 0 ? NULL : memchr(text.ptr, '/', text.len);
        uint64_t high, low;
        if (slash == NULL)
                return false;
        size_t at = (size_t)(slash - text.ptr);
        if (!hex_parse(bytes_of(text.ptr, at), &high) || !hex_parse(skip(text, at + 1), &low))
                return false;
        *ret_lsn = high << 32 | low;
        return true;
}

/* "timeline N epoch M". */
static bool epoch_words(struct bytes text, uint32_t *ret_timeline, uint64_t *ret_epoch)
{
        uint64_t timeline, epoch;
        if (!bytes_equal(word_take(&text), BYTES("timeline")) ||
            !digits_parse(word_take(&text), UINT32_MAX, &timeline) ||
            !bytes_equal(word_take(&text), BYTES("epoch")) ||
            !digits_parse(word_take(&text), UINT64_MAX, &epoch) || text.len > 0)
                return false;
        *ret_timeline = (uint32_t)timeline;
        *ret_epoch = epoch;
        return true;
}

bool history_epoch_parse(struct bytes text, uint64_t *ret_epoch)
{
        struct bytes line;
        uint32_t timeline;
        return line_next(&text, &line) && text.len == 0 && epoch_words(line, &timeline, ret_epoch);
}

/* ---- history files ---- */

/* The epoch that a comment gives to what comes after a timeline. */
struct mark {
        uint32_t after;
        uint64_t epoch;
};

static bool mark_parse(struct bytes line, struct mark *ret)
{
        static const struct bytes begin = BYTES_INIT("# meridian: after ");
        return bytes_starts_with(line, begin) &&
               epoch_words(skip(line, begin.len), &ret->after, &ret->epoch);
}

static void line_add(struct history *history, struct history_line line)
{
        if (history->count == HISTORY_LINES_MAX) {
                history->cut = true;
                history->count--;
                memmove(history->lines, history->lines + 1,
                        history->count * sizeof history->lines[0]);
        }
        history->lines[history->count++] = line;
}

static bool history_line_parse(struct bytes text, struct history_line *ret)
{
        uint64_t timeline;
        *ret = (struct history_line){0};
        if (!digits_parse(word_take(&text), UINT32_MAX, &timeline) || timeline == 0)
                return false;
        ret->timeline = (uint32_t)timeline;
        return history_lsn_parse(word_take(&text), &ret->end);
}

/* The lines without epochs; then the epochs, the last comment of each counting. */
static bool lines_parse(struct bytes text, struct history *history)
{
        struct bytes line;
        while (line_next(&text, &line)) {
                struct history_line entry;
                line = trimmed(line);
                if (line.len == 0 || line.ptr[0] == '#')
                        continue;
                if (!history_line_parse(line, &entry) || entry.timeline >= history->timeline)
                        return false;
                if (history->count > 0 &&
                    (history->lines[history->count - 1].timeline >= entry.timeline ||
                     history->lines[history->count - 1].end > entry.end))
                        return false;
                line_add(history, entry);
        }
        return true;
}

static void marks_apply(struct bytes text, struct history *history)
{
        struct bytes line;
        struct mark mark;
        while (line_next(&text, &line)) {
                if (!mark_parse(trimmed(line), &mark))
                        continue;
                for (unsigned i = 0; i < history->count; i++) {
                        if (history->lines[i].timeline != mark.after)
                                continue;
                        if (i + 1 < history->count)
                                history->lines[i + 1].epoch = mark.epoch;
                        else
                                history->epoch = mark.epoch;
                }
        }
}

bool history_parse(struct bytes text, uint32_t timeline, uint64_t first_epoch, struct history *ret)
{
        struct history history = {.timeline = timeline};
        if (timeline == 0 || text.len > HISTORY_FILE_MAX || !lines_parse(text, &history))
                return false;
        if (history.count == 0)
                history.epoch = first_epoch;
        else if (!history.cut)
                history.lines[0].epoch = first_epoch;
        marks_apply(text, &history);
        *ret = history;
        return true;
}

void history_tell(const struct history *history, struct world_postgres *ret)
{
        ret->timeline = history->timeline;
        ret->epoch = history->epoch;
        ret->lines_cut = history->cut || history->count > WORLD_POSTGRES_LINES_MAX;
        ret->line_count = 0;
        for (unsigned i = history->count; i > 0 && ret->line_count < WORLD_POSTGRES_LINES_MAX; i--)
                ret->lines[ret->line_count++] =
                        (struct world_postgres_line){.timeline = history->lines[i - 1].timeline,
                                                     .epoch = history->lines[i - 1].epoch,
                                                     .end = history->lines[i - 1].end};
}

static struct history_line line_at(const struct history *history, unsigned index, uint64_t end)
{
        if (index < history->count)
                return history->lines[index];
        return (struct history_line){history->timeline, history->epoch, end};
}

bool history_fork(const struct history *own, uint64_t own_end, const struct history *other,
                  uint64_t other_end, uint32_t *ret_timeline, uint64_t *ret_lsn)
{
        bool found = false;
        for (unsigned i = 0; i <= own->count; i++) {
                struct history_line a = line_at(own, i, own_end);
                for (unsigned k = 0; k <= other->count; k++) {
                        struct history_line b = line_at(other, k, other_end);
                        if (a.timeline != b.timeline || a.epoch != b.epoch)
                                continue;
                        *ret_timeline = a.timeline;
                        *ret_lsn = a.end < b.end ? a.end : b.end;
                        found = true;
                }
        }
        return found;
}

/* ---- pg_controldata ---- */

enum control_kind {
        CONTROL_U64,
        CONTROL_U32,
        CONTROL_LSN,
        CONTROL_FLAG,  /* 0, off, or anything else */
        CONTROL_STATE, /* "shut down", "shut down in recovery" */
};

static const struct {
        const char *key;
        enum control_kind kind;
        size_t offset;
} control_rows[] = {
        {"Database system identifier", CONTROL_U64, offsetof(struct history_control, system)},
        {"Latest checkpoint location", CONTROL_LSN, offsetof(struct history_control, checkpoint)},
        {"Latest checkpoint's REDO location", CONTROL_LSN, offsetof(struct history_control, redo)},
        {"Latest checkpoint's TimeLineID", CONTROL_U32, offsetof(struct history_control, timeline)},
        {"Minimum recovery ending location", CONTROL_LSN,
         offsetof(struct history_control, recovered)},
        {"Min recovery ending loc's timeline", CONTROL_U32,
         offsetof(struct history_control, recovered_timeline)},
        {"Bytes per WAL segment", CONTROL_U32, offsetof(struct history_control, segment_bytes)},
        {"pg_control version number", CONTROL_U32, offsetof(struct history_control, version)},
        {"Data page checksum version", CONTROL_FLAG, offsetof(struct history_control, checksums)},
        {"wal_log_hints setting", CONTROL_FLAG, offsetof(struct history_control, hints)},
        {"Database cluster state", CONTROL_STATE, offsetof(struct history_control, clean)},
};

static bool control_store(enum control_kind kind, struct bytes value, void *field)
{
        uint64_t number = 0;
        switch (kind) {
        case CONTROL_U64:
                return digits_parse(value, UINT64_MAX, field);
        case CONTROL_U32:
                if (!digits_parse(value, UINT32_MAX, &number))
                        return false;
                *(uint32_t *)field = (uint32_t)number;
                return true;
        case CONTROL_LSN:
                return history_lsn_parse(value, field);
        case CONTROL_FLAG:
                *(bool *)field =
                        !bytes_equal(value, BYTES("0")) && !bytes_equal(value, BYTES("off"));
                return value.len > 0;
        case CONTROL_STATE:
                *(bool *)field = bytes_starts_with(value, BYTES("shut down")) &&
                                 !bytes_equal(value, BYTES("shutting down"));
                return value.len > 0;
        }
        return false;
}

bool history_control_parse(struct bytes text, struct history_control *ret)
{
        struct history_control control = {0};
        struct bytes line;
        unsigned seen = 0;
        _Static_assert(COUNT_OF(control_rows) < 32, "a bit each");
        while (line_next(&text, &line)) {
                const uint8_t *colon = line.len == 0 ? NULL : memchr(line.ptr, ':', line.len);
                if (colon == NULL)
                        continue;
                size_t at = (size_t)(colon - line.ptr);
                for (size_t i = 0; i < COUNT_OF(control_rows); i++) {
                        if (!bytes_equal(bytes_of(line.ptr, at), bytes_of_str(control_rows[i].key)))
                                continue;
                        if (!control_store(control_rows[i].kind, trimmed(skip(line, at + 1)),
                                           (uint8_t *)&control + control_rows[i].offset))
                                return false;
                        seen |= 1u << i;
                }
        }
        bool sound = control.system != 0 && control.timeline != 0 &&
                     control.segment_bytes >= 1u << 20 &&
                     (control.segment_bytes & (control.segment_bytes - 1)) == 0;
        if (seen != (1u << COUNT_OF(control_rows)) - 1 || !sound)
                return false;
        *ret = control;
        return true;
}

/* ---- pg_waldump ---- */

/* The last place of `what` in the text; its length where it is not there. */
static size_t find_last(struct bytes text, struct bytes what)
{
        for (size_t at = text.len; at >= what.len; at--)
                if (memcmp(text.ptr + at - what.len, what.ptr, what.len) == 0)
                        return at - what.len;
        return text.len;
}

static struct bytes until(struct bytes text, const char *ends)
{
        size_t len = 0;
        while (len < text.len && strchr(ends, text.ptr[len]) == NULL)
                len++;
        return bytes_of(text.ptr, len);
}

bool history_waldump_last(struct bytes text, uint64_t *ret_lsn)
{
        static const struct bytes what = BYTES_INIT("error in WAL record at ");
        size_t at = find_last(text, what);
        return at < text.len &&
               history_lsn_parse(until(skip(text, at + what.len), ": \n"), ret_lsn);
}

bool history_waldump_missing(struct bytes text, uint32_t timeline, uint32_t segment_bytes,
                             uint64_t *ret_lsn)
{
        static const struct bytes what = BYTES_INIT("could not find file \"");
        char name[25] = "", begin[9];
        size_t at = find_last(text, what);
        if (at == text.len || segment_bytes < PAGE_BYTES ||
            (segment_bytes & (segment_bytes - 1)) != 0)
                return false;
        struct bytes file = until(skip(text, at + what.len), "\"\n");
        if (file.len != 24)
                return false;
        memcpy(name, file.ptr, file.len);
        (void)snprintf(begin, sizeof begin, "%08X", timeline);
        if (memcmp(name, begin, 8) != 0 || strspn(name, "0123456789ABCDEF") != 24)
                return false;
        uint64_t low = strtoull(name + 16, NULL, 16);
        name[16] = '\0';
        *ret_lsn = (strtoull(name + 8, NULL, 16) << 32) + low * segment_bytes;
        return true;
}

bool history_waldump_end(struct bytes text, uint32_t segment_bytes, uint64_t *ret_end)
{
        static const struct bytes len_key = BYTES_INIT("len (rec/tot):");
        static const struct bytes lsn_key = BYTES_INIT(", lsn: ");
        uint64_t len, lsn;
        if (segment_bytes < PAGE_BYTES || (segment_bytes & (segment_bytes - 1)) != 0)
                return false;
        size_t at = find_last(text, len_key);
        if (at == text.len)
                return false;
        struct bytes line = until(skip(text, at + len_key.len), "\n");
        const uint8_t *slash = line.len == 0 ? NULL : memchr(line.ptr, '/', line.len);
        if (slash == NULL)
                return false;
        struct bytes total = trimmed(until(skip(line, (size_t)(slash - line.ptr) + 1), ","));
        size_t place = find_last(line, lsn_key);
        if (place == line.len || !digits_parse(total, UINT32_MAX, &len) || len == 0 ||
            !history_lsn_parse(until(skip(line, place + lsn_key.len), ","), &lsn))
                return false;
        *ret_end = history_record_end(lsn, len, segment_bytes);
        return true;
}

uint64_t history_record_end(uint64_t lsn, uint64_t len, uint32_t segment_bytes)
{
        uint64_t at = lsn;
        while (len > 0) {
                if (at % PAGE_BYTES == 0)
                        at += at % segment_bytes == 0 ? PAGE_HEADER_LONG : PAGE_HEADER;
                uint64_t room = PAGE_BYTES - at % PAGE_BYTES;
                uint64_t part = len < room ? len : room;
                at += part;
                len -= part;
        }
        return (at + 7) & ~(uint64_t)7;
}
