/* backup.c - the backup's bytes. The checksum is judged first, so damage is told as such. */
#include "council/backup.h"

#include "base/cursor.h"
#include "base/hash.h"

#define MAGIC   "MERIBACK"
#define VERSION 1

void backup_head_encode(const struct backup *backup, struct buffer *out)
{
        buffer_bytes(out, bytes_of_str(MAGIC));
        buffer_u32(out, VERSION);
        buffer_u64(out, backup->life);
        buffer_slice(out, backup->cluster);
        buffer_u64(out, backup->wall_us);
        buffer_varint(out, backup->count);
}

void backup_group_encode(const struct backup_group *group, struct buffer *out)
{
        buffer_slice(out, group->region);
        buffer_varint(out, group->index);
        buffer_varint(out, group->state.len);
}

void backup_encode(const struct backup *backup, struct buffer *out)
{
        size_t begin = out->len;
        backup_head_encode(backup, out);
        for (size_t i = 0; i < backup->count; i++) {
                backup_group_encode(&backup->groups[i], out);
                buffer_bytes(out, backup->groups[i].state);
        }
        if (out->err == ERR_NONE)
                buffer_u32(out, hash_crc32c(0, bytes_of(out->ptr + begin, out->len - begin)));
}

static enum err body_decode(struct bytes body, struct backup *ret)
{
        struct cursor cursor = cursor_of(body);
        (void)cursor_bytes(&cursor, strlen(MAGIC));
        uint32_t version = cursor_u32(&cursor);
        if (!cursor_failed(&cursor) && version != VERSION)
                return ERR_VERSION;
        ret->life = cursor_u64(&cursor);
        ret->cluster = cursor_slice(&cursor);
        ret->wall_us = cursor_u64(&cursor);
        ret->count = cursor_varint_max(&cursor, BACKUP_GROUPS_MAX);
        for (size_t i = 0; i < ret->count && !cursor_failed(&cursor); i++) {
                struct backup_group *group = &ret->groups[i];
                group->region = cursor_slice(&cursor);
                group->index = cursor_varint_max(&cursor, UINT64_MAX >> 2);
                group->state = cursor_slice(&cursor);
        }
        return cursor_done(&cursor);
}

enum err backup_decode(struct bytes data, struct backup *ret)
{
        if (data.len < strlen(MAGIC) + sizeof(uint32_t) ||
            memcmp(data.ptr, MAGIC, strlen(MAGIC)) != 0)
                return ERR_CORRUPT;
        struct bytes body = bytes_of(data.ptr, data.len - sizeof(uint32_t));
        struct cursor end = cursor_of(bytes_of(data.ptr + body.len, sizeof(uint32_t)));
        if (cursor_u32(&end) != hash_crc32c(0, body))
                return ERR_CORRUPT;
        *ret = (struct backup){0};
        return body_decode(body, ret);
}

const struct backup_group *backup_find(const struct backup *backup, struct bytes region)
{
        for (size_t i = 0; i < backup->count; i++)
                if (bytes_equal(backup->groups[i].region, region))
                        return &backup->groups[i];
        return NULL;
}
