/* view_reader.c - a private, decoded copy of the newest view for the threads of one process.
 *
 * The hot path compares one number in the mapped file with that of the copy in use. When they
 * differ, the first thread to notice takes the new view over (copy, checksum, decode into an idle
 * slot, swap), while all others go on with the old one. So nothing that a request reads can change
 * or be damaged under it, and nothing in the file can make a reader wait: a view that cannot be
 * taken over is refused once, remembered, and left to view_reader_refresh to tell about.
 *
 * A mapping stays until no copy that came from it is in use. */
#include "view/view_format.h"

#include "base/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAPPINGS   (SWAP_SLOTS + 2)
#define BUSY_TRIES 1000

struct mapping {
        const struct view_file *file; /* NULL: free */
        dev_t device;
        ino_t inode;
};

struct view_reader {
        char *path;
        struct swap swap;
        struct view *views; /* SWAP_SLOTS of them */
        int sources[SWAP_SLOTS];
        struct mapping mappings[MAPPINGS];
        int newest;               /* of mappings, -1: none */
        int fd;                   /* of the newest */
        uint8_t *payload;         /* VIEW_PAYLOAD_MAX bytes, for the one who takes over */
        atomic_bool taking;       /* someone takes over: the rest of the struct is theirs */
        _Atomic uint64_t refused; /* the generation that could not be taken over */
};

struct view_reader *view_reader_new(const char *path)
{
        struct view_reader *reader = aligned_alloc(_Alignof(struct view_reader), sizeof *reader);
        if (reader == NULL)
                return NULL;
        memset(reader, 0, sizeof *reader);
        swap_init(&reader->swap);
        atomic_init(&reader->taking, false);
        atomic_init(&reader->refused, 0u);
        reader->newest = -1;
        reader->fd = -1;
        reader->path = strdup(path);
        reader->views = calloc(SWAP_SLOTS, sizeof *reader->views);
        reader->payload = malloc(VIEW_PAYLOAD_MAX);
        if (reader->path == NULL || reader->views == NULL || reader->payload == NULL) {
                view_reader_free(reader);
                return NULL;
        }
        return reader;
}

static void mapping_free(struct mapping *mapping)
{
        if (mapping->file == NULL)
                return;
        union {
                const void *read;
                void *any;
        } address = {.read = mapping->file};
        (void)munmap(address.any, VIEW_FILE_SIZE);
        mapping->file = NULL;
}

void view_reader_free(struct view_reader *reader)
{
        if (reader == NULL)
                return;
        for (size_t i = 0; i < MAPPINGS; i++)
                mapping_free(&reader->mappings[i]);
        if (reader->fd >= 0)
                (void)close(reader->fd);
        free(reader->payload);
        free(reader->views);
        free(reader->path);
        free(reader);
}

/* A page that cannot be read is none: routing does not depend on it. */
static void page_take(struct view *view, struct bytes page)
{
        if (page.len == 0 || page.len > sizeof view->page)
                return;
        memcpy(view->page, page.ptr, page.len);
        if (board_open(bytes_of(view->page, page.len), &view->board) != ERR_NONE)
                view->board = (struct board){0};
}

/* Copies what the mapping has published into an idle slot and makes it current. */
static enum err take_over(struct view_reader *reader, int source, const char **ret_why)
{
        size_t len = 0;
        size_t page_len = 0;
        uint64_t generation = 0;
        const struct view_file *file = reader->mappings[source].file;
        enum err err = view_slot_copy(file, reader->payload, &len, &page_len, &generation, ret_why);
        if (err != ERR_NONE)
                return err;
        int slot = swap_idle_find(&reader->swap);
        *ret_why = "all copies are in use";
        if (slot == SWAP_NONE)
                return ERR_BUSY;
        *ret_why = "the published slot does not hold a view";
        if (view_decode(bytes_of(reader->payload, len), generation, &reader->views[slot]) !=
            ERR_NONE)
                return ERR_CORRUPT;
        page_take(&reader->views[slot], bytes_of(reader->payload + view_page_at(len), page_len));
        reader->sources[slot] = source;
        swap_set(&reader->swap, slot);
        return ERR_NONE;
}

static uint64_t published(const struct view_reader *reader, int slot)
{
        const struct view_file *file = reader->mappings[reader->sources[slot]].file;
        return atomic_load_explicit(&file->header.published, memory_order_acquire);
}

/* Something else was published than what is current: take it over, unless another thread does. */
static void notice(struct view_reader *reader, uint64_t generation)
{
        if (generation == atomic_load_explicit(&reader->refused, memory_order_relaxed))
                return;
        if (atomic_exchange_explicit(&reader->taking, true, memory_order_acquire))
                return;
        int slot = atomic_load(&reader->swap.current);
        const char *why;
        if (published(reader, slot) != reader->views[slot].generation) {
                enum err err = take_over(reader, reader->sources[slot], &why);
                if (err != ERR_NONE && err != ERR_BUSY)
                        atomic_store_explicit(&reader->refused, generation, memory_order_relaxed);
        }
        atomic_store_explicit(&reader->taking, false, memory_order_release);
}

const struct view *view_enter(struct view_reader *reader, unsigned shard)
{
        int slot = swap_enter(&reader->swap, shard);
        if (slot == SWAP_NONE)
                return NULL;
        uint64_t newest = published(reader, slot);
        if (newest == reader->views[slot].generation)
                return &reader->views[slot];
        notice(reader, newest);
        if (atomic_load(&reader->swap.current) == slot)
                return &reader->views[slot];
        swap_leave(&reader->swap, shard, slot);
        slot = swap_enter(&reader->swap, shard);
        return slot == SWAP_NONE ? NULL : &reader->views[slot];
}

void view_leave(struct view_reader *reader, unsigned shard, const struct view *view)
{
        swap_leave(&reader->swap, shard, (int)(view - reader->views));
}

/* Mappings that neither the newest file nor any copy in use refers to. */
static void mappings_sweep(struct view_reader *reader)
{
        for (int i = 0; i < MAPPINGS; i++) {
                bool used = i == reader->newest;
                for (int slot = 0; slot < SWAP_SLOTS; slot++)
                        used |= reader->sources[slot] == i && !swap_idle(&reader->swap, slot);
                if (!used)
                        mapping_free(&reader->mappings[i]);
        }
}

static int mapping_find_free(const struct view_reader *reader)
{
        for (int i = 0; i < MAPPINGS; i++) {
                if (reader->mappings[i].file == NULL)
                        return i;
        }
        return -1;
}

/* A file that shrank under us would end the process at the next look. Its pages are replaced by
 * empty ones, in which nothing is published; the copy in use stays. */
static void mapping_blank(struct mapping *mapping)
{
        union {
                const void *read;
                void *any;
        } address = {.read = mapping->file};
        (void)mmap(address.any, VIEW_FILE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                   -1, 0);
        mapping->device = 0;
        mapping->inode = 0;
}

static enum err errno_why(int code, const char **ret_why)
{
        *ret_why = strerrordesc_np(code);
        return code == ENOENT || code == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
}

static enum err file_map(int fd, const struct stat *info, struct mapping *mapping,
                         const char **ret_why)
{
        struct view_header header;
        memset(&header, 0, sizeof header);
        *ret_why = "it is not a regular file";
        if (!S_ISREG(info->st_mode))
                return ERR_CORRUPT;
        if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header) {
                *ret_why = "offset 0: the file ends within its header";
                return ERR_TRUNCATED;
        }
        enum err err = view_header_check(&header, (uint64_t)info->st_size, ret_why);
        if (err != ERR_NONE)
                return err;
        void *mapped = mmap(NULL, VIEW_FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED)
                return errno_why(errno, ret_why);
        *mapping = (struct mapping){mapped, info->st_dev, info->st_ino};
        return ERR_NONE;
}

static void newest_set(struct view_reader *reader, int index, int fd)
{
        if (reader->fd >= 0)
                (void)close(reader->fd);
        reader->fd = fd;
        reader->newest = index;
        atomic_store_explicit(&reader->refused, 0u, memory_order_relaxed);
}

/* Another file than the one that is mapped: it becomes the newest if it holds a view. */
static enum err file_adopt(struct view_reader *reader, const char **ret_why)
{
        struct stat info;
        int fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return errno_why(errno, ret_why);
        int index = mapping_find_free(reader);
        enum err err = ERR_NONE;
        if (fstat(fd, &info) != 0)
                err = errno_why(errno, ret_why);
        if (err == ERR_NONE && index < 0) {
                *ret_why = "all mappings are in use";
                err = ERR_BUSY;
        }
        if (err == ERR_NONE)
                err = file_map(fd, &info, &reader->mappings[index < 0 ? 0 : index], ret_why);
        if (err != ERR_NONE) {
                (void)close(fd);
                return err;
        }
        err = take_over(reader, index, ret_why);
        if (err == ERR_NONE) {
                newest_set(reader, index, fd);
                return ERR_NONE;
        }
        mapping_free(&reader->mappings[index]);
        (void)close(fd);
        return err;
}

/* The file that is mapped already: is it still whole, and what it has published good? */
static enum err file_recheck(struct view_reader *reader, const char **ret_why)
{
        struct stat info;
        struct mapping *mapping = &reader->mappings[reader->newest];
        if (fstat(reader->fd, &info) == 0 && info.st_size < (off_t)VIEW_FILE_SIZE) {
                mapping_blank(mapping);
                *ret_why = "the file was cut off while it was in use";
                return ERR_TRUNCATED;
        }
        int slot = atomic_load(&reader->swap.current);
        if (reader->sources[slot] == reader->newest &&
            published(reader, slot) == reader->views[slot].generation)
                return ERR_NONE;
        return take_over(reader, reader->newest, ret_why);
}

static bool newest_is(const struct view_reader *reader, const struct stat *info)
{
        if (reader->newest < 0)
                return false;
        const struct mapping *mapping = &reader->mappings[reader->newest];
        return mapping->device == info->st_dev && mapping->inode == info->st_ino;
}

static enum err refresh(struct view_reader *reader, const char **ret_why)
{
        struct stat info;
        mappings_sweep(reader);
        if (stat(reader->path, &info) != 0)
                return errno_why(errno, ret_why);
        if (newest_is(reader, &info))
                return file_recheck(reader, ret_why);
        return file_adopt(reader, ret_why);
}

static bool taking_begin(struct view_reader *reader)
{
        for (unsigned i = 0; i < BUSY_TRIES; i++) {
                if (!atomic_exchange_explicit(&reader->taking, true, memory_order_acquire))
                        return true;
                (void)sched_yield();
        }
        return false;
}

enum err view_reader_refresh(struct view_reader *reader, char *why, size_t why_size)
{
        const char *reason = "another thread takes it over";
        enum err err = ERR_BUSY;
        if (taking_begin(reader)) {
                err = refresh(reader, &reason);
                atomic_store_explicit(&reader->taking, false, memory_order_release);
        }
        if (err != ERR_NONE && why != NULL && why_size > 0)
                (void)snprintf(why, why_size, "view %s: %s", reader->path, reason);
        return err;
}
