/* backup.c - `meridian backup FILE` and `meridian restore FILE DATA_DIR`.
 *
 * A backup asks every node for what it holds, while all go on, and keeps of each group what is
 * newest. A restore makes one data folder ready: its daemon begins with the backup at its next
 * start, under a new life, which all nodes of the restored cluster share. */
#include "council/backup.h"
#include "base/buffer.h"
#include "base/heap.h"
#include "meridian/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ASK_TIMEOUT_MS 60000

static bool write_whole(int fd, struct bytes data)
{
        while (data.len > 0) {
                ssize_t len = write(fd, data.ptr, data.len);
                if (len < 0 && errno == EINTR)
                        continue;
                if (len <= 0)
                        return false;
                data = bytes_of(data.ptr + len, data.len - (size_t)len);
        }
        return fsync(fd) == 0;
}

/* Aside, synced, renamed: a file of that name is whole. */
static bool file_put(const char *path, struct bytes data)
{
        char aside[4096];
        if (snprintf(aside, sizeof aside, "%s.new", path) >= (int)sizeof aside)
                return cli_error("the name %s is too long", path) == CLI_DONE;
        int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        bool good = fd >= 0 && write_whole(fd, data);
        int number = errno;
        if (fd >= 0)
                close(fd);
        good = good && rename(aside, path) == 0;
        if (!good) {
                cli_error("cannot write %s: %s", path, strerror(number == 0 ? errno : number));
                (void)unlink(aside);
        }
        return good;
}

static bool file_get(struct heap *heap, const char *path, struct bytes *ret)
{
        struct stat info;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        bool good = fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0 &&
                    (size_t)info.st_size <= BACKUP_BYTES_MAX;
        uint8_t *data = good ? heap_alloc(heap, (size_t)info.st_size) : NULL;
        size_t len = 0;
        while (data != NULL && len < (size_t)info.st_size) {
                ssize_t more = read(fd, data + len, (size_t)info.st_size - len);
                if (more <= 0)
                        break;
                len += (size_t)more;
        }
        if (fd >= 0)
                close(fd);
        *ret = bytes_of(data, len);
        if (data == NULL || len < (size_t)info.st_size)
                cli_error("cannot read %s: %s", path,
                          errno != 0 ? strerror(errno) : "it is no backup");
        return data != NULL && len == (size_t)info.st_size;
}

/* Keeps of each group what is newest. */
static void merge(struct backup *all, const struct backup *one)
{
        for (size_t i = 0; i < one->count; i++) {
                const struct backup_group *group = &one->groups[i];
                struct backup_group *known = NULL;
                for (size_t k = 0; k < all->count; k++)
                        if (bytes_equal(all->groups[k].region, group->region))
                                known = &all->groups[k];
                if (known == NULL && all->count < BACKUP_GROUPS_MAX)
                        all->groups[all->count++] = *group;
                else if (known != NULL && known->index < group->index)
                        *known = *group;
        }
        if (one->wall_us > all->wall_us)
                all->wall_us = one->wall_us;
}

static bool node_take(const struct cli_node *node, struct client_answer *answer, struct backup *all)
{
        struct backup one;
        if (!client_get(node->admin, "/backup", ASK_TIMEOUT_MS, answer)) {
                cli_error("%s does not answer (%s): what only it holds is not in the backup",
                          node->admin, answer->error);
                return false;
        }
        enum err err =
                backup_decode(bytes_of((const uint8_t *)answer->body, answer->body_len), &one);
        if (answer->status != 200 || err != ERR_NONE) {
                cli_error("%s gives no backup (status %ld)", node->admin, answer->status);
                return false;
        }
        if (all->count > 0 && !bytes_equal(all->cluster, one.cluster)) {
                cli_error("%s belongs to another cluster", node->admin);
                return false;
        }
        all->cluster = one.cluster;
        merge(all, &one);
        return true;
}

/* What is in it, for programs. */
static json_t *backup_json(const struct backup *backup, const char *path)
{
        json_t *groups = json_array();
        for (size_t i = 0; i < backup->count; i++) {
                const struct backup_group *group = &backup->groups[i];
                struct bytes name = group->region.len == 0 ? BYTES("global") : group->region;
                (void)json_array_append_new(groups, json_pack("{s:s%, s:I, s:I}", "group",
                                                              (const char *)name.ptr, name.len,
                                                              "bytes", (json_int_t)group->state.len,
                                                              "entry", (json_int_t)group->index));
        }
        return json_pack("{s:s, s:s%, s:f, s:o}", "file", path, "cluster",
                         (const char *)backup->cluster.ptr, backup->cluster.len, "time",
                         (double)backup->wall_us / 1e6, "groups", groups);
}

static void tell(const struct backup *backup)
{
        time_t seconds = (time_t)(backup->wall_us / 1000000);
        char when[64] = "";
        struct tm parts;
        if (gmtime_r(&seconds, &parts) != NULL)
                strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &parts);
        printf("cluster %.*s, %s\n", BYTES_ARGS(backup->cluster), when);
        for (size_t i = 0; i < backup->count; i++) {
                const struct backup_group *group = &backup->groups[i];
                printf("  %.*s: %zu bytes, up to entry %" PRIu64 "\n",
                       BYTES_ARGS(group->region.len == 0 ? BYTES("global") : group->region),
                       group->state.len, group->index);
        }
}

static bool file_make(const char *path, const struct backup *backup)
{
        struct heap heap;
        struct buffer out;
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        backup_encode(backup, &out);
        bool good = out.err == ERR_NONE;
        if (!good)
                cli_error("out of memory");
        good = good && file_put(path, buffer_view(&out));
        buffer_fini(&out);
        return good;
}

int cli_backup(struct cli *cli)
{
        static struct client_answer answers[CLI_NODES_MAX];
        static struct backup all;
        bool whole = cli->node_count > 0;
        if (cli->node_count == 0)
                return cli_error("no node is known: name all with --node HOST:PORT");
        for (size_t i = 0; i < cli->node_count; i++)
                whole = node_take(&cli->nodes[i], &answers[i], &all) && whole;
        bool good = all.count > 0 && file_make(cli->argv[0], &all);
        json_t *json = good && cli->json ? backup_json(&all, cli->argv[0]) : NULL;
        if (json != NULL) {
                (void)json_object_set_new(json, "whole", json_boolean(whole));
                cli_print_json(json);
        } else if (good) {
                tell(&all);
        }
        json_decref(json);
        for (size_t i = 0; i < cli->node_count; i++)
                client_answer_fini(&answers[i]);
        return good && whole ? CLI_DONE : CLI_FAILED;
}

/* A folder in which no daemon has ever run, or whose journals were moved away. */
static bool folder_free(const char *folder)
{
        static const char *const names[] = {"journal-global", "journal-region", "restore"};
        if (access(folder, F_OK) != 0)
                return cli_error("there is no folder %s: make it, for the user of meridiand",
                                 folder) == CLI_DONE;
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                char path[4096];
                struct stat info;
                if (snprintf(path, sizeof path, "%s/%s", folder, names[i]) >= (int)sizeof path)
                        return cli_error("the name %s is too long", folder) == CLI_DONE;
                if (stat(path, &info) == 0)
                        return cli_error("%s is there: stop the daemon and move it away first",
                                         path) == CLI_DONE;
        }
        return true;
}

static bool life_choose(struct cli *cli, uint64_t *ret)
{
        char *end = NULL;
        if (cli->argc == 2) {
                while (*ret == 0)
                        if (getrandom(ret, sizeof *ret, 0) != (ssize_t)sizeof *ret)
                                return cli_error("no random number: %s", strerror(errno)) ==
                                       CLI_DONE;
                return true;
        }
        if (cli->argc == 4 && strcmp(cli->argv[2], "--life") == 0)
                *ret = strtoull(cli->argv[3], &end, 16);
        if (end == NULL || *end != '\0' || *ret == 0)
                return cli_error("usage: meridian restore FILE DATA_DIR [--life NUMBER]") ==
                       CLI_DONE;
        return true;
}

int cli_restore(struct cli *cli)
{
        static struct backup backup;
        struct heap heap;
        struct bytes data;
        char path[4096];
        uint64_t life = 0;
        if (!life_choose(cli, &life))
                return CLI_USAGE;
        heap_init(&heap, 0);
        if (!file_get(&heap, cli->argv[0], &data))
                return CLI_FAILED;
        enum err err = backup_decode(data, &backup);
        bool good = err == ERR_NONE && folder_free(cli->argv[1]);
        if (err != ERR_NONE)
                cli_error("%s is no backup that can be used: %s", cli->argv[0], err_text(err));
        snprintf(path, sizeof path, "%s/restore", cli->argv[1]);
        backup.life = life;
        good = good && file_make(path, &backup);
        if (good && cli->json) {
                char number[24];
                snprintf(number, sizeof number, "%" PRIx64, life);
                json_t *json = backup_json(&backup, cli->argv[0]);
                (void)json_object_set_new(json, "data_dir", json_string(cli->argv[1]));
                (void)json_object_set_new(json, "life", json_string(number));
                cli_print_json(json);
                json_decref(json);
        } else if (good) {
                tell(&backup);
                printf("ready in %s. On every other node, each stopped and its data folder "
                       "emptied:\n"
                       "  meridian restore FILE DATA_DIR --life %" PRIx64 "\n"
                       "then start them all. Tokens and revisions go on %" PRIu64
                       " beyond the backup.\n",
                       cli->argv[1], life, (uint64_t)BACKUP_JUMP);
        }
        heap_free_bytes(&heap, data);
        return good ? CLI_DONE : CLI_FAILED;
}
