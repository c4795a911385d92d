/* The page: u8 version (1), u8 cut, u64 revision, then for each kind u32 count, u32 length of the
 * items, count offsets of u32, and the items (slices name, value) in the order of names.
 *
 * An item that is found by its offset was checked when the page was opened: offsets rise and each
 * is where the item before it ends. */
#include "base/cursor.h"
#include "board/board.h"

enum {
        PAGE_VERSION = 1,
};

void board_build_init(struct board_build *build, struct heap *heap)
{
        *build = (struct board_build){0};
        for (int kind = 0; kind < BOARD_KINDS; kind++) {
                buffer_init(&build->offsets[kind], heap);
                buffer_init(&build->items[kind], heap);
        }
}

void board_build_fini(struct board_build *build)
{
        for (int kind = 0; kind < BOARD_KINDS; kind++) {
                buffer_fini(&build->offsets[kind]);
                buffer_fini(&build->items[kind]);
        }
}

void board_build_add(struct board_build *build, enum board_kind kind, struct bytes name,
                     struct bytes value)
{
        size_t size = name.len + value.len + (size_t)2 * 5 + 4;
        if (build->bytes + size > BOARD_BYTES_MAX - 64) {
                build->cut = true;
                return;
        }
        build->bytes += size;
        buffer_u32(&build->offsets[kind], (uint32_t)build->items[kind].len);
        buffer_slice(&build->items[kind], name);
        buffer_slice(&build->items[kind], value);
}

enum err board_build_end(const struct board_build *build, uint64_t revision, struct buffer *out)
{
        buffer_u8(out, PAGE_VERSION);
        buffer_u8(out, build->cut);
        buffer_u64(out, revision);
        for (int kind = 0; kind < BOARD_KINDS; kind++) {
                const struct buffer *offsets = &build->offsets[kind];
                const struct buffer *items = &build->items[kind];
                if (offsets->err != ERR_NONE || items->err != ERR_NONE)
                        return ERR_NOMEM;
                buffer_u32(out, (uint32_t)(offsets->len / 4));
                buffer_u32(out, (uint32_t)items->len);
                buffer_bytes(out, buffer_view(offsets));
                buffer_bytes(out, buffer_view(items));
        }
        return out->err == ERR_NONE ? ERR_NONE : ERR_NOMEM;
}

/* ---- reading ---- */

static void item_read(const struct board_list *list, uint32_t i, struct bytes *ret_name,
                      struct bytes *ret_value)
{
        struct cursor at = cursor_of(bytes_of(list->offsets.ptr + (size_t)4 * i, 4));
        uint32_t offset = cursor_u32(&at);
        struct cursor cursor =
                cursor_of(bytes_of(list->items.ptr + offset, list->items.len - offset));
        *ret_name = cursor_slice(&cursor);
        *ret_value = cursor_slice(&cursor);
}

static bool value_valid(enum board_kind kind, struct bytes name, struct bytes value)
{
        struct board_service service;
        switch (kind) {
        case BOARD_FLAGS:
                return flag_valid(value);
        case BOARD_CONFIG:
                return true;
        case BOARD_SERVICES:
                return board_service_parse(name, value, &service) == ERR_NONE;
        case BOARD_KINDS:
                break;
        }
        return false;
}

static bool list_valid(const struct board_list *list, enum board_kind kind)
{
        struct cursor offsets = cursor_of(list->offsets);
        struct cursor items = cursor_of(list->items);
        struct bytes before = {0};
        for (uint32_t i = 0; i < list->count; i++) {
                size_t at = list->items.len - cursor_left(&items);
                bool placed = cursor_u32(&offsets) == at;
                struct bytes name = cursor_slice(&items);
                struct bytes value = cursor_slice(&items);
                if (!placed || cursor_failed(&items) || name.len == 0 ||
                    bytes_compare(before, name) >= 0 || !value_valid(kind, name, value))
                        return false;
                before = name;
        }
        return cursor_done(&items) == ERR_NONE;
}

enum err board_open(struct bytes page, struct board *ret)
{
        struct cursor cursor = cursor_of(page);
        struct board board = {0};
        uint8_t version = cursor_u8(&cursor);
        if (!cursor_failed(&cursor) && version != PAGE_VERSION)
                return ERR_VERSION;
        uint8_t cut = cursor_u8(&cursor);
        board.cut = cut == 1;
        board.revision = cursor_u64(&cursor);
        for (int kind = 0; kind < BOARD_KINDS; kind++) {
                struct board_list *list = &board.lists[kind];
                list->count = cursor_u32(&cursor);
                uint32_t len = cursor_u32(&cursor);
                if (list->count > cursor_left(&cursor) / 4) {
                        cursor_fail(&cursor, ERR_TRUNCATED);
                        break;
                }
                list->offsets = cursor_bytes(&cursor, (size_t)4 * list->count);
                list->items = cursor_bytes(&cursor, len);
                if (!cursor_failed(&cursor) && !list_valid(list, (enum board_kind)kind))
                        cursor_fail(&cursor, ERR_MALFORMED);
        }
        if (cut > 1)
                cursor_fail(&cursor, ERR_MALFORMED);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = board;
        return err;
}

/* The first whose name is not before this one. */
static uint32_t list_from(const struct board_list *list, struct bytes name)
{
        uint32_t low = 0;
        uint32_t high = list->count;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                struct bytes found;
                struct bytes value;
                item_read(list, middle, &found, &value);
                if (bytes_compare(found, name) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

bool board_at(const struct board *board, enum board_kind kind, uint32_t i, struct bytes *ret_name,
              struct bytes *ret_value)
{
        const struct board_list *list = &board->lists[kind];
        if (i >= list->count)
                return false;
        item_read(list, i, ret_name, ret_value);
        return true;
}

bool board_find(const struct board *board, enum board_kind kind, struct bytes name,
                struct bytes *ret_value)
{
        struct bytes found;
        struct bytes value;
        if (!board_at(board, kind, list_from(&board->lists[kind], name), &found, &value) ||
            !bytes_equal(found, name))
                return false;
        *ret_value = value;
        return true;
}

uint32_t board_service_first(const struct board *board, struct bytes name)
{
        uint8_t key[BOARD_LABEL_MAX + 1];
        const struct board_list *list = &board->lists[BOARD_SERVICES];
        if (name.len == 0 || name.len > BOARD_LABEL_MAX)
                return list->count;
        memcpy(key, name.ptr, name.len);
        key[name.len] = '/';
        return list_from(list, bytes_of(key, name.len + 1));
}

bool board_service_at(const struct board *board, uint32_t i, struct board_service *ret)
{
        struct bytes name;
        struct bytes value;
        return board_at(board, BOARD_SERVICES, i, &name, &value) &&
               board_service_parse(name, value, ret) == ERR_NONE;
}
