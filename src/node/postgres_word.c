/* postgres_word.c - what nodes tell each other of PostgreSQL, as bytes. Any bytes are read; what is
 * malformed is an error, never a word. */
#include "node/node_priv.h"

#include "base/cursor.h"

#define WORD_VERSION 1

void postgres_word_encode(const struct postgres_word *word, struct buffer *out)
{
        buffer_u8(out, WORD_VERSION);
        buffer_varint(out, word->grant);
        buffer_varint(out, word->grant_node);
        buffer_varint(out, word->news.token);
        buffer_varint(out, word->news.epoch);
        buffer_varint(out, word->news.written);
        buffer_varint(out, word->designated);
        buffer_u8(out, word->lag_known ? 1 : 0);
        buffer_varint(out, word->lag_known ? word->lag_us : 0);
        primary_report_encode(&word->report, out);
}

enum err postgres_word_decode(struct bytes data, struct postgres_word *ret)
{
        struct cursor cursor = cursor_of(data);
        struct postgres_word word = {0};
        if (cursor_u8(&cursor) != WORD_VERSION && !cursor_failed(&cursor))
                return ERR_VERSION;
        word.grant = cursor_varint(&cursor);
        word.grant_node = (node_id)cursor_varint_max(&cursor, UINT32_MAX);
        word.news.token = cursor_varint(&cursor);
        word.news.epoch = cursor_varint(&cursor);
        word.news.written = cursor_varint(&cursor);
        word.designated = (node_id)cursor_varint_max(&cursor, UINT32_MAX);
        uint8_t lag_known = cursor_u8(&cursor);
        word.lag_us = cursor_varint(&cursor);
        if (lag_known > 1)
                cursor_fail(&cursor, ERR_MALFORMED);
        word.lag_known = lag_known == 1;
        if (cursor_failed(&cursor))
                return cursor.err;
        enum err err =
                primary_report_decode(cursor_bytes(&cursor, cursor_left(&cursor)), &word.report);
        if (err == ERR_NONE)
                *ret = word;
        return err;
}
