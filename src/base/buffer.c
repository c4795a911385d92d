/* buffer.c - a buffer doubles when it is full. The first failure sticks in `err`, and what is
 * written after it is dropped. */
#include "base/buffer.h"

#include "base/check.h"
#include "base/put.h"

#include <stdarg.h>
#include <stdio.h>

enum {
        BUFFER_SIZE_MIN = 64,
};

void buffer_init(struct buffer *buffer, struct heap *heap)
{
        *buffer = (struct buffer){.heap = heap};
}

void buffer_fini(struct buffer *buffer)
{
        heap_free(buffer->heap, buffer->ptr);
        *buffer = (struct buffer){.heap = buffer->heap};
}

void buffer_reset(struct buffer *buffer)
{
        buffer->len = 0;
        buffer->err = ERR_NONE;
}

void buffer_trim(struct buffer *buffer, size_t keep)
{
        if (buffer->size > keep)
                buffer_fini(buffer);
        buffer_reset(buffer);
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t len)
{
        CHECK(buffer->len <= buffer->size);
        if (buffer->err != ERR_NONE)
                return NULL;
        if (len <= buffer->size - buffer->len && buffer->ptr != NULL)
                return buffer->ptr + buffer->len;
        size_t size = buffer->size < BUFFER_SIZE_MIN ? BUFFER_SIZE_MIN : buffer->size;
        while (size - buffer->len < len && size <= SIZE_MAX / 2)
                size *= 2;
        uint8_t *ptr =
                size - buffer->len < len ? NULL : heap_resize(buffer->heap, buffer->ptr, size);
        if (ptr == NULL) {
                buffer->err = ERR_NOMEM;
                return NULL;
        }
        buffer->ptr = ptr;
        buffer->size = size;
        return ptr + buffer->len;
}

void buffer_commit(struct buffer *buffer, size_t len)
{
        CHECK(len <= buffer->size - buffer->len);
        buffer->len += len;
}

void buffer_bytes(struct buffer *buffer, struct bytes data)
{
        if (data.len == 0)
                return;
        uint8_t *at = buffer_reserve(buffer, data.len);
        if (at == NULL)
                return;
        memcpy(at, data.ptr, data.len);
        buffer->len += data.len;
}

static void buffer_fixed(struct buffer *buffer, uint64_t value, size_t width)
{
        uint8_t *at = buffer_reserve(buffer, width);
        if (at == NULL)
                return;
        for (size_t i = 0; i < width; i++)
                at[i] = (uint8_t)(value >> (8 * i));
        buffer->len += width;
}

void buffer_u8(struct buffer *buffer, uint8_t value)
{
        buffer_fixed(buffer, value, 1);
}

void buffer_u16(struct buffer *buffer, uint16_t value)
{
        buffer_fixed(buffer, value, 2);
}

void buffer_u32(struct buffer *buffer, uint32_t value)
{
        buffer_fixed(buffer, value, 4);
}

void buffer_u64(struct buffer *buffer, uint64_t value)
{
        uint8_t *at = buffer_reserve(buffer, 8);
        if (at != NULL)
                buffer->len = (size_t)(put_u64(at, value) - buffer->ptr);
}

void buffer_varint(struct buffer *buffer, uint64_t value)
{
        uint8_t *at = buffer_reserve(buffer, 10);
        if (at == NULL)
                return;
        buffer->len = (size_t)(put_varint(at, value) - buffer->ptr);
}

void buffer_varint_signed(struct buffer *buffer, int64_t value)
{
        buffer_varint(buffer, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

void buffer_slice(struct buffer *buffer, struct bytes data)
{
        buffer_varint(buffer, data.len);
        buffer_bytes(buffer, data);
}

void buffer_format(struct buffer *buffer, const char *format, ...)
{
        va_list args;
        va_list again;
        va_start(args, format);
        va_copy(again, args);
        int len = vsnprintf(NULL, 0, format, args);
        va_end(args);
        CHECK(len >= 0);
        uint8_t *at = buffer_reserve(buffer, (size_t)len + 1);
        if (at != NULL) {
                vsnprintf((char *)at, (size_t)len + 1, format, again);
                buffer->len += (size_t)len;
        }
        va_end(again);
}

void buffer_patch_u32(struct buffer *buffer, size_t at, uint32_t value)
{
        if (buffer->err != ERR_NONE)
                return;
        CHECK(buffer->len >= 4 && at <= buffer->len - 4);
        for (size_t i = 0; i < 4; i++)
                buffer->ptr[at + i] = (uint8_t)(value >> (8 * i));
}

void buffer_consume(struct buffer *buffer, size_t len)
{
        CHECK(len <= buffer->len);
        if (len == 0)
                return;
        memmove(buffer->ptr, buffer->ptr + len, buffer->len - len);
        buffer->len -= len;
}
