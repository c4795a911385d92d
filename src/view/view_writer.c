/* view_writer.c - the view's file: created or taken over, and published into.
 *
 * Opening: lock the file (one writer), look whether it is whole, and go on with its generation. A
 * file that is not is left as it is for those who have it mapped; a new one is made aside, locked,
 * and renamed over it. Space is allocated at once, so that a full disk is an error of opening and
 * never a signal while publishing. */
#include "view/view_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_TRIES 8

struct view_writer {
        struct view_file *file;
        int fd; /* holds the lock */
        struct heap heap;
        struct buffer payload;
};

/* Where the reasons go. */
struct excuse {
        const char *path;
        char *why;
        size_t why_size;
};

static enum err excuse_say(const struct excuse *excuse, enum err err, const char *reason)
{
        if (excuse->why != NULL && excuse->why_size > 0)
                (void)snprintf(excuse->why, excuse->why_size, "view %s: %s", excuse->path, reason);
        return err;
}

static enum err excuse_errno(const struct excuse *excuse, const char *doing)
{
        char text[128];
        int code = errno;
        (void)snprintf(text, sizeof text, "%s: %s", doing, strerrordesc_np(code));
        bool full = code == ENOSPC || code == EDQUOT;
        return excuse_say(excuse, full ? ERR_NOSPACE : ERR_IO, text);
}

static struct view_file *file_map(int fd)
{
        void *mapped = mmap(NULL, VIEW_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return mapped == MAP_FAILED ? NULL : mapped;
}

static void header_write(struct view_file *file)
{
        struct view_header *header = &file->header;
        memcpy(header->magic, "MERIVIEW", sizeof header->magic);
        header->version = VIEW_FORMAT_VERSION;
        header->byte_order = VIEW_BYTE_ORDER;
        header->file_size = VIEW_FILE_SIZE;
        header->slot_size = VIEW_SLOT_SIZE;
        header->crc = hash_crc32c(0, bytes_of(header, offsetof(struct view_header, crc)));
}

/* Is what the file holds good enough to go on with? */
static bool file_whole(const struct view_file *file)
{
        const char *why;
        uint64_t generation = 0;
        size_t len = 0;
        size_t page_len = 0;
        if (view_header_check(&file->header, VIEW_FILE_SIZE, &why) != ERR_NONE)
                return false;
        uint8_t *payload = malloc(VIEW_PAYLOAD_MAX);
        struct view *view = malloc(sizeof *view);
        bool whole = false;
        if (payload != NULL && view != NULL) {
                enum err err = view_slot_copy(file, payload, &len, &page_len, &generation, &why);
                whole = err == ERR_NOT_FOUND ||
                        (err == ERR_NONE &&
                         view_decode(bytes_of(payload, len), generation, view) == ERR_NONE);
        }
        free(view);
        free(payload);
        return whole;
}

static enum err file_permit(int fd, long group, const struct excuse *excuse)
{
        if (group >= 0 && fchown(fd, (uid_t)-1, (gid_t)group) != 0)
                return excuse_errno(excuse, "giving it to the group");
        if (fchmod(fd, 0640) != 0)
                return excuse_errno(excuse, "setting its mode");
        return ERR_NONE;
}

/* A new file beside the old one, whole but empty, and locked. */
static enum err file_make(const char *name, int fd, long group, struct view_file **ret,
                          const struct excuse *excuse)
{
        if (flock(fd, LOCK_EX | LOCK_NB) != 0)
                return excuse_errno(excuse, "locking a new one");
        int code = posix_fallocate(fd, 0, VIEW_FILE_SIZE);
        if (code != 0) {
                errno = code;
                return excuse_errno(excuse, "allocating its space");
        }
        enum err err = file_permit(fd, group, excuse);
        if (err != ERR_NONE)
                return err;
        struct view_file *file = file_map(fd);
        if (file == NULL)
                return excuse_errno(excuse, "mapping it");
        header_write(file);
        if (rename(name, excuse->path) != 0) {
                err = excuse_errno(excuse, "renaming a new one over it");
                (void)munmap(file, VIEW_FILE_SIZE);
                return err;
        }
        *ret = file;
        return ERR_NONE;
}

static enum err file_create(struct view_writer *writer, long group, const struct excuse *excuse)
{
        char name[4096];
        int len = snprintf(name, sizeof name, "%s.XXXXXX", excuse->path);
        if (len < 0 || (size_t)len >= sizeof name)
                return excuse_say(excuse, ERR_IO, "the path is too long");
        int fd = mkostemp(name, O_CLOEXEC);
        if (fd < 0)
                return excuse_errno(excuse, "creating it");
        enum err err = file_make(name, fd, group, &writer->file, excuse);
        if (err != ERR_NONE) {
                (void)unlink(name);
                (void)close(fd);
                return err;
        }
        writer->fd = fd;
        return ERR_NONE;
}

/* Locks an existing file, unless another one took its place while we waited
 * for it: ERR_NOT_FOUND. */
static enum err file_lock(int fd, struct stat *ret_info, const struct excuse *excuse)
{
        struct stat named;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
                if (errno == EWOULDBLOCK)
                        return excuse_say(excuse, ERR_BUSY, "another process writes it");
                return excuse_errno(excuse, "locking it");
        }
        if (fstat(fd, ret_info) != 0)
                return excuse_errno(excuse, "looking at it");
        if (stat(excuse->path, &named) != 0 || named.st_dev != ret_info->st_dev ||
            named.st_ino != ret_info->st_ino)
                return ERR_NOT_FOUND;
        if (!S_ISREG(ret_info->st_mode))
                return excuse_say(excuse, ERR_IO, "it is not a regular file");
        return ERR_NONE;
}

/* Takes over what is there, or replaces it while its lock is held. */
static enum err file_take_over(struct view_writer *writer, int fd, long group,
                               const struct excuse *excuse)
{
        struct stat info = {0};
        enum err err = file_lock(fd, &info, excuse);
        if (err != ERR_NONE)
                return err;
        if (info.st_size == (off_t)VIEW_FILE_SIZE) {
                struct view_file *file = file_map(fd);
                if (file == NULL)
                        return excuse_errno(excuse, "mapping it");
                if (file_whole(file)) {
                        writer->file = file;
                        writer->fd = fd;
                        return file_permit(fd, group, excuse);
                }
                (void)munmap(file, VIEW_FILE_SIZE);
        }
        return file_create(writer, group, excuse);
}

static enum err file_open(struct view_writer *writer, long group, const struct excuse *excuse)
{
        for (unsigned i = 0; i < OPEN_TRIES; i++) {
                int fd = open(excuse->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
                if (fd < 0 && errno == ENOENT)
                        return file_create(writer, group, excuse);
                if (fd < 0)
                        return excuse_errno(excuse, "opening it");
                enum err err = file_take_over(writer, fd, group, excuse);
                if (writer->fd != fd)
                        (void)close(fd);
                if (err != ERR_NOT_FOUND)
                        return err;
        }
        return excuse_say(excuse, ERR_BUSY, "other processes keep replacing it");
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `why` is written by way of the excuse */
enum err view_writer_open(const char *path, long group, struct view_writer **ret, char *why,
                          size_t why_size)
{
        struct excuse excuse = {path, why, why_size};
        struct view_writer *writer = calloc(1, sizeof *writer);
        if (writer == NULL)
                return excuse_say(&excuse, ERR_NOMEM, err_text(ERR_NOMEM));
        writer->fd = -1;
        heap_init(&writer->heap, 0);
        buffer_init(&writer->payload, &writer->heap);
        enum err err = file_open(writer, group, &excuse);
        if (err != ERR_NONE) {
                view_writer_close(writer);
                return err;
        }
        *ret = writer;
        return ERR_NONE;
}

void view_writer_close(struct view_writer *writer)
{
        if (writer == NULL)
                return;
        buffer_fini(&writer->payload);
        if (writer->file != NULL)
                (void)munmap(writer->file, VIEW_FILE_SIZE);
        if (writer->fd >= 0)
                (void)close(writer->fd);
        free(writer);
}

uint64_t view_writer_generation(const struct view_writer *writer)
{
        return atomic_load_explicit(&writer->file->header.published, memory_order_relaxed);
}

void view_writer_page(const struct view_writer *writer, struct buffer *out)
{
        size_t len = 0;
        size_t page_len = 0;
        uint64_t generation = 0;
        const char *why;
        uint8_t *payload = malloc(VIEW_PAYLOAD_MAX);
        if (payload != NULL &&
            view_slot_copy(writer->file, payload, &len, &page_len, &generation, &why) == ERR_NONE)
                buffer_bytes(out, bytes_of(payload + view_page_at(len), page_len));
        free(payload);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
        atomic_store_explicit(word, value, memory_order_release);
}

static void words_write(_Atomic uint64_t *words, struct bytes data)
{
        for (size_t at = 0; at < data.len; at += 8) {
                uint64_t word = 0;
                size_t left = data.len - at;
                memcpy(&word, data.ptr + at, left < sizeof word ? left : sizeof word);
                store(&words[at / 8], word);
        }
}

/* Every store is a release: none becomes visible before the one above it. */
static void slot_write(struct view_slot *slot, uint64_t generation, struct bytes payload,
                       struct bytes page)
{
        store(&slot->sequence, 0);
        words_write(slot->words, payload);
        words_write(&slot->words[view_page_at(payload.len) / 8], page);
        store(&slot->len, payload.len);
        store(&slot->crc, view_slot_crc(generation, payload));
        store(&slot->page_len, page.len);
        store(&slot->page_crc, view_slot_crc(generation, page));
        store(&slot->sequence, generation);
}

enum err view_publish(struct view_writer *writer, const struct view_content *content)
{
        buffer_reset(&writer->payload);
        enum err err = view_encode(content, &writer->payload);
        if (err != ERR_NONE)
                return err;
        struct bytes payload = buffer_view(&writer->payload);
        if (payload.len > VIEW_PAYLOAD_MAX || content->page.len > BOARD_BYTES_MAX)
                return ERR_LIMIT;
        if (content->page.len > VIEW_PAYLOAD_MAX - view_page_at(payload.len))
                return ERR_LIMIT;
        uint64_t generation = view_writer_generation(writer) + 1;
        slot_write(&writer->file->slots[generation % 2], generation, payload, content->page);
        store(&writer->file->header.published, generation);
        return ERR_NONE;
}
