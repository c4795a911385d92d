/* restore.c - from a backup to journals. The order makes it safe to die anywhere: the file that
 * asks for all this goes last. */
#include "meridiand/restore.h"

#include "base/buffer.h"
#include "base/log.h"
#include "council/backup.h"
#include "io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES 2048

static bool path_of(char path[PATH_BYTES], const char *dir, const char *name)
{
        int len = snprintf(path, PATH_BYTES, "%s/%s", dir, name);
        if (len > 0 && len < PATH_BYTES)
                return true;
        LOG_ERROR("restore", "the name of the folder %s is too long", dir);
        return false;
}

/* The backup, whose bytes are to be freed; NULL bytes: there is none. */
static bool backup_read(struct heap *heap, const char *dir, struct bytes *ret_data,
                        struct backup *ret)
{
        char path[PATH_BYTES];
        struct io_error error;
        uint8_t *data = NULL;
        size_t len = 0;
        *ret_data = bytes_of(NULL, 0);
        if (!path_of(path, dir, "restore"))
                return false;
        enum err err = io_file_read(heap, path, BACKUP_BYTES_MAX, &data, &len, &error);
        if (err == ERR_NOT_FOUND || (err != ERR_NONE && access(path, F_OK) != 0))
                return true;
        if (err != ERR_NONE) {
                LOG_ERROR("restore", "%s", error.text);
                return false;
        }
        err = backup_decode(bytes_of(data, len), ret);
        if (err == ERR_NONE && ret->life != 0) {
                *ret_data = bytes_of(data, len);
                return true;
        }
        LOG_ERROR("restore", "%s cannot be used (%s): put it there with `meridian restore`", path,
                  err == ERR_NONE ? "it is a plain backup" : err_text(err));
        heap_free(heap, data);
        return false;
}

bool restore_life(struct heap *heap, const char *dir, uint64_t *ret_life)
{
        static struct backup backup;
        char path[PATH_BYTES];
        struct bytes data;
        uint8_t *text = NULL;
        size_t len = 0;
        *ret_life = 0;
        if (!backup_read(heap, dir, &data, &backup) || !path_of(path, dir, "life"))
                return false;
        if (data.ptr != NULL) {
                *ret_life = backup.life;
                heap_free_bytes(heap, data);
                return true;
        }
        if (access(path, F_OK) != 0)
                return true;
        struct io_error error;
        char digits[32] = "";
        if (io_file_read(heap, path, sizeof digits - 1, &text, &len, &error) != ERR_NONE) {
                LOG_ERROR("restore", "%s", error.text);
                return false;
        }
        memcpy(digits, text, len);
        heap_free(heap, text);
        *ret_life = strtoull(digits, NULL, 16);
        if (*ret_life == 0)
                LOG_ERROR("restore", "%s holds no number: write the one of the other nodes into it",
                          path);
        return *ret_life != 0;
}

static bool journal_put(struct heap *heap, const char *dir, struct node *node,
                        const struct backup *backup, enum world_group group, const char *name)
{
        char path[PATH_BYTES];
        struct io_error error = {{0}};
        struct buffer out;
        buffer_init(&out, heap);
        enum err err = node_restore(node, group, backup, &out);
        if (err == ERR_NONE && out.len > 0 && path_of(path, dir, name))
                err = io_file_write(path, buffer_view(&out), 0600, &error);
        buffer_fini(&out);
        if (err == ERR_NONE)
                return true;
        LOG_ERROR("restore", "the backup cannot be restored: %s",
                  error.text[0] != '\0' ? error.text
                  : err == ERR_REFUSED  ? "it is of a cluster of another name"
                                        : err_text(err));
        return false;
}

static bool text_put(const char *dir, const char *name, const char *text)
{
        char path[PATH_BYTES];
        struct io_error error;
        if (!path_of(path, dir, name))
                return false;
        if (io_file_write(path, bytes_of_str(text), 0600, &error) == ERR_NONE)
                return true;
        LOG_ERROR("restore", "%s", error.text);
        return false;
}

/* Whoever asked before the backup had smaller numbers: seconds since 1970 are beyond any count. */
static bool numbers_put(const char *dir, uint64_t life, uint64_t *incarnation)
{
        char text[32];
        uint64_t now = (uint64_t)time(NULL);
        if (now > *incarnation)
                *incarnation = now;
        snprintf(text, sizeof text, "%llx\n", (unsigned long long)life);
        if (!text_put(dir, "life", text))
                return false;
        snprintf(text, sizeof text, "%llu\n", (unsigned long long)*incarnation);
        return text_put(dir, "incarnation", text);
}

bool restore_begin(struct heap *heap, const char *dir, struct node *node, uint64_t *incarnation)
{
        static struct backup backup;
        char path[PATH_BYTES];
        struct bytes data;
        if (!backup_read(heap, dir, &data, &backup))
                return false;
        if (data.ptr == NULL)
                return true;
        bool good = journal_put(heap, dir, node, &backup, WORLD_GROUP_GLOBAL, "journal-global") &&
                    journal_put(heap, dir, node, &backup, WORLD_GROUP_REGION, "journal-region") &&
                    numbers_put(dir, backup.life, incarnation) && path_of(path, dir, "restore");
        if (good && unlink(path) != 0) {
                LOG_ERROR("restore", "cannot remove %s", path);
                good = false;
        }
        if (good)
                LOG_INFO("restore", "begins with a backup; this life of the cluster is %llx",
                         (unsigned long long)backup.life);
        heap_free_bytes(heap, data);
        return good;
}
