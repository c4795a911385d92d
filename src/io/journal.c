/* One journal: bytes that are appended, and made durable, in the thread pool.
 *
 *      append/replace --> pending --journal_write--> writing (thread: pwrite, fdatasync) --> synced
 *                            ^________ all that comes meanwhile ________|
 *
 * A large new journal comes in pieces (aside.c); its swap is a replacement, all but the last piece
 * of which is written already. A replacement drops what was pending before it (the new content
 * stands for all of it), and what is appended after it goes into the same new file. It is written
 * aside, synced and renamed, and the folder is synced, before it counts.
 *
 * Space is made ready ahead, a mebibyte at a time, as zeros that are really written: so most syncs
 * find the file's size and extents as they were, and need not wait for the file system's own
 * journal. (Space that is only reserved is converted at its first write, which does.) Where there
 * is no room for zeros, the bytes themselves go on to the very end of the disk.
 *
 * Beside it lies a mark from the first time on that bytes of it are durable, made before they are
 * told as such. Where the mark is there and the journal is empty, the journal is lost, not new.
 * Without room for the mark it is tried again at the next write.
 *
 * After an error the journal is dead until the next start: a failed sync may have dropped pages
 * that the kernel then calls clean, so trying again would lie. At the start such pages are read as
 * if the disk had them: so what the journal itself does not know for durable is written again, in
 * its place, and synced, before anybody believes it. */
#include "base/check.h"
#include "io/io_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define JOURNAL_BYTES_MAX ((size_t)1 << 30)

/* How far ahead space is made ready at least once: the file ends at a multiple of it. */
#define READY_STEP        ((uint64_t)1 << 20)

/* Zeros are written in pieces of this size. The page cache makes a large write one large folio, and
 * a sync then looks through all of it for the little that was written. */
#define ZEROS_SIZE        ((size_t)16 << 10)

/* A buffer that has grown beyond this is given back after its write. */
#define BUFFER_KEPT       ((size_t)1 << 20)

static const char *const journal_names[WORLD_GROUP_COUNT] = {
        [WORLD_GROUP_GLOBAL] = "journal-global",
        [WORLD_GROUP_REGION] = "journal-region",
};

static bool all_zero(struct bytes data)
{
        return data.len == 0 ||
               (data.ptr[0] == 0 && memcmp(data.ptr, data.ptr + 1, data.len - 1) == 0);
}

/* The mark says nothing but that it is there. */
static bool mark_make(const struct journal *journal)
{
        static const struct bytes text = BYTES_INIT("this journal was begun\n");
        int fd = open(journal->path_mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return false;
        bool made = io_write_all(fd, text, 0) && fsync(fd) == 0;
        close(fd);
        return made && io_dir_sync(journal->dir);
}

static bool path_set(char path[IO_PATH_MAX], const char *dir, const char *name, const char *end)
{
        int len = snprintf(path, IO_PATH_MAX, "%s/%s%s", dir, name, end);
        return len > 0 && len < IO_PATH_MAX;
}

/* A write of what is there already makes its pages dirty again: they reach the disk now, or the
 * sync fails. Bytes before `known` were told as durable once. */
static bool tail_renew(const struct journal *journal, struct bytes held, uint64_t known)
{
        while (held.len > 0 && held.ptr[held.len - 1] == 0)
                held.len--; /* space made ready */
        size_t from = known < held.len ? (size_t)known : held.len;
        struct bytes tail = bytes_of(held.ptr + from, held.len - from);
        return (tail.len == 0 || io_write_all(journal->fd, tail, from)) &&
               fdatasync(journal->fd) == 0;
}

enum err journal_open(struct journal *journal, uv_loop_t *loop, struct heap *heap, const char *dir,
                      enum world_group group, journal_known *known, uint8_t **ret_data,
                      size_t *ret_len, struct io_error *error)
{
        memset(journal, 0, sizeof *journal);
        journal->loop = loop;
        journal->group = group;
        journal->fd = -1;
        buffer_init(&journal->pending, heap);
        buffer_init(&journal->writing, heap);
        aside_init(&journal->aside, heap);
        journal->pending_fd = journal->writing_fd = -1;
        const char *name = journal_names[group];
        if (!path_set(journal->path_new, dir, name, ".new") ||
            !path_set(journal->aside.path, dir, name, ".next") ||
            !path_set(journal->path_mark, dir, name, ".begun") ||
            !path_set(journal->path, dir, name, ""))
                return io_fail(error, ERR_INVALID, "the name of the folder %s is too long", dir);
        snprintf(journal->dir, IO_PATH_MAX, "%s", dir);
        /* A replacement that was not finished never happened. */
        unlink(journal->path_new);
        unlink(journal->aside.path);
        journal->fd = open(journal->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (journal->fd < 0)
                return io_fail(error, io_err_of_errno(errno), "cannot open the journal %s: %s",
                               journal->path, uv_strerror(-errno));
        enum err err =
                io_file_read(heap, journal->path, JOURNAL_BYTES_MAX, ret_data, ret_len, error);
        if (err != ERR_NONE)
                return err;
        /* What a process that was killed left unsynced counts as durable from here on. */
        struct bytes held = bytes_of(*ret_data, *ret_len);
        if (!tail_renew(journal, held, known == NULL ? 0 : known(held)) || !io_dir_sync(dir))
                return io_fail(error, io_err_of_errno(errno), "cannot sync the journal %s: %s",
                               journal->path, uv_strerror(-errno));
        journal->ready = *ret_len;
        if (all_zero(bytes_of(*ret_data, *ret_len)))
                *ret_len = 0;
        journal->marked = access(journal->path_mark, F_OK) == 0;
        if (!journal->marked && *ret_len > 0)
                journal->marked = mark_make(journal);
        return ERR_NONE;
}

static void pending_fd_close(struct journal *journal)
{
        if (journal->pending_fd >= 0)
                close(journal->pending_fd);
        journal->pending_fd = -1;
}

void journal_close(struct journal *journal)
{
        CHECK(!journal->busy);
        if (journal->fd >= 0)
                close(journal->fd);
        journal->fd = -1;
        pending_fd_close(journal);
        aside_fini(&journal->aside);
        buffer_fini(&journal->pending);
        buffer_fini(&journal->writing);
}

void journal_append(struct journal *journal, uint64_t offset, struct bytes data)
{
        if (journal->failed)
                return;
        if (!journal->begun) {
                CHECK(offset <= journal->ready);
                journal->durable = journal->asked = offset;
                journal->begun = true;
        }
        CHECK(offset == journal->asked);
        buffer_bytes(&journal->pending, data);
        journal->asked += data.len;
}

static void replace_begin(struct journal *journal, uint64_t generation, struct bytes data)
{
        buffer_reset(&journal->pending);
        buffer_bytes(&journal->pending, data);
        journal->pending_replace = true;
        journal->pending_generation = generation;
        journal->begun = true;
}

void journal_replace(struct journal *journal, uint64_t generation, struct bytes data)
{
        if (journal->failed)
                return;
        pending_fd_close(journal);
        aside_drop(&journal->aside);
        replace_begin(journal, generation, data);
        journal->asked = data.len;
}

void journal_swap(struct journal *journal, uint64_t generation, struct bytes data)
{
        if (journal->failed)
                return;
        pending_fd_close(journal);
        journal->pending_fd = aside_take(&journal->aside, generation, &journal->pending_at);
        replace_begin(journal, generation, data);
        journal->asked = journal->pending_at + data.len;
}

/* ---- in the thread pool ---- */

/* Zeros from `end`, or from the size that the file has, to the next step. No error: what cannot be
 * made ready is not needed yet. */
static uint64_t ready_make(int fd, uint64_t end, uint64_t size)
{
        static const uint8_t zeros[ZEROS_SIZE];
        uint64_t at = end > size ? end : size;
        uint64_t goal = (end / READY_STEP + 1) * READY_STEP;
        while (at < goal) {
                size_t len = goal - at < ZEROS_SIZE ? (size_t)(goal - at) : ZEROS_SIZE;
                ssize_t done = pwrite(fd, zeros, len, (off_t)at);
                if (done <= 0)
                        break;
                at += (uint64_t)done;
        }
        return at;
}

static bool append_run(struct journal *journal)
{
        uint64_t end = journal->durable + journal->writing.len;
        if (!io_write_all(journal->fd, buffer_view(&journal->writing), journal->durable))
                return false;
        if (end > journal->ready)
                journal->ready = ready_make(journal->fd, end, journal->ready);
        return fdatasync(journal->fd) == 0;
}

/* A whole file, or the end of one that has all the rest. */
static bool replace_run(struct journal *journal)
{
        bool swap = journal->writing_fd >= 0;
        const char *path = swap ? journal->aside.path : journal->path_new;
        uint64_t at = swap ? journal->writing_at : 0;
        int fd = journal->writing_fd;
        journal->writing_fd = -1;
        if (!swap)
                fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return false;
        bool written = io_write_all(fd, buffer_view(&journal->writing), at);
        uint64_t ready = written ? ready_make(fd, at + journal->writing.len, 0) : 0;
        if (written && fsync(fd) == 0 && rename(path, journal->path) == 0 &&
            io_dir_sync(journal->dir)) {
                close(journal->fd);
                journal->fd = fd;
                journal->ready = ready;
                return true;
        }
        int number = errno;
        close(fd);
        errno = number;
        return false;
}

static void on_work(uv_work_t *work)
{
        struct journal *journal = work->data;
        bool done = journal->writing_replace ? replace_run(journal) : append_run(journal);
        journal->result = done ? 0 : (errno == 0 ? EIO : errno);
        if (done && !journal->marked)
                journal->marked = mark_make(journal);
}

/* ---- on the loop ---- */

void journal_break(struct journal *journal, enum err err)
{
        if (journal->failed)
                return;
        journal->failed = true;
        journal->fail(journal->user, journal, err);
}

static void writing_reset(struct journal *journal)
{
        struct heap *heap = journal->writing.heap;
        if (journal->writing.size > BUFFER_KEPT) {
                buffer_fini(&journal->writing);
                buffer_init(&journal->writing, heap);
        }
        buffer_reset(&journal->writing);
}

static void on_work_done(uv_work_t *work, int status)
{
        struct journal *journal = work->data;
        (void)status; /* never cancelled */
        journal->busy = false;
        if (journal->result != 0) {
                errno = journal->result;
                journal_break(journal, io_err_of_errno(journal->result));
                return;
        }
        if (journal->writing_replace) {
                journal->generation = journal->writing_generation;
                journal->durable = journal->writing_at;
        }
        journal->durable += journal->writing.len;
        writing_reset(journal);
        journal->synced(journal->user, journal, journal->generation, journal->durable);
        journal_write(journal);
}

void journal_write(struct journal *journal)
{
        aside_write(journal);
        bool waiting = journal->pending.len > 0 || journal->pending_replace ||
                       journal->pending.err != ERR_NONE;
        if (journal->failed || journal->busy || !waiting)
                return;
        if (journal->pending.err != ERR_NONE) {
                errno = ENOMEM;
                journal_break(journal, ERR_NOMEM);
                return;
        }
        struct buffer empty = journal->writing;
        journal->writing = journal->pending;
        journal->pending = empty;
        journal->writing_replace = journal->pending_replace;
        journal->writing_generation = journal->pending_generation;
        journal->writing_fd = journal->pending_fd;
        journal->writing_at = journal->pending_fd >= 0 ? journal->pending_at : 0;
        journal->pending_fd = -1;
        journal->pending_replace = false;
        journal->work.data = journal;
        journal->busy = true;
        int result = uv_queue_work(journal->loop, &journal->work, on_work, on_work_done);
        CHECK(result == 0); /* fails only without a work function */
}

bool journal_busy(const struct journal *journal)
{
        return journal->busy || journal->aside.busy;
}
