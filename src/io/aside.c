/* A new journal that is written beside the old one, in pieces, each durable before it is told.
 *
 *   piece --> pending --aside_write--> writing (thread: pwrite, fdatasync) --> synced
 *                ^________ all that comes meanwhile ________|
 *
 * It has a work item of its own, so what goes to the journal in use does not wait for it. The swap
 * is the journal's work: it takes the file over from here. A failure ends the journal's part, as
 * one of its own does. */
#include "base/check.h"
#include "io/io_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void aside_init(struct aside *aside, struct heap *heap)
{
        aside->fd = -1;
        buffer_init(&aside->pending, heap);
        buffer_init(&aside->writing, heap);
}

void aside_fini(struct aside *aside)
{
        CHECK(!aside->busy);
        if (aside->fd >= 0)
                close(aside->fd);
        aside->fd = -1;
        buffer_fini(&aside->pending);
        buffer_fini(&aside->writing);
}

void aside_drop(struct aside *aside)
{
        buffer_reset(&aside->pending);
        aside->asked = aside->durable = 0;
        aside->fresh = true; /* what is being written now, too, is of the past */
}

void journal_aside(struct journal *journal, uint64_t generation, uint64_t offset, struct bytes data)
{
        struct aside *aside = &journal->aside;
        if (journal->failed)
                return;
        if (offset == 0) {
                aside_drop(aside);
                aside->generation = generation;
        }
        CHECK(generation == aside->generation && offset == aside->asked);
        buffer_bytes(&aside->pending, data);
        aside->asked += data.len;
}

int aside_take(struct aside *aside, uint64_t generation, uint64_t *ret_len)
{
        CHECK(generation == aside->generation && !aside->busy && aside->asked > 0);
        CHECK(aside->durable == aside->asked && aside->fd >= 0);
        int fd = aside->fd;
        *ret_len = aside->durable;
        aside->fd = -1;
        aside_drop(aside);
        return fd;
}

/* ---- in the thread pool ---- */

static bool piece_run(struct aside *aside)
{
        if (aside->writing_fresh) {
                if (aside->fd >= 0)
                        close(aside->fd);
                aside->fd = open(aside->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                if (aside->fd < 0)
                        return false;
        }
        return io_write_all(aside->fd, buffer_view(&aside->writing), aside->writing_at) &&
               fdatasync(aside->fd) == 0;
}

static void on_work(uv_work_t *work)
{
        struct journal *journal = work->data;
        struct aside *aside = &journal->aside;
        aside->result = piece_run(aside) ? 0 : (errno == 0 ? EIO : errno);
}

/* ---- on the loop ---- */

static void on_work_done(uv_work_t *work, int status)
{
        struct journal *journal = work->data;
        struct aside *aside = &journal->aside;
        (void)status; /* never cancelled */
        aside->busy = false;
        size_t len = aside->writing.len;
        buffer_reset(&aside->writing);
        if (aside->result != 0) {
                errno = aside->result;
                journal_break(journal, io_err_of_errno(aside->result));
                return;
        }
        if (!aside->fresh) {
                aside->durable = aside->writing_at + len;
                journal->synced(journal->user, journal, aside->generation, aside->durable);
        }
        aside_write(journal);
}

void aside_write(struct journal *journal)
{
        struct aside *aside = &journal->aside;
        bool waiting = aside->pending.len > 0 || aside->pending.err != ERR_NONE;
        if (journal->failed || aside->busy || !waiting)
                return;
        if (aside->pending.err != ERR_NONE) {
                errno = ENOMEM;
                journal_break(journal, ERR_NOMEM);
                return;
        }
        struct buffer empty = aside->writing;
        aside->writing = aside->pending;
        aside->pending = empty;
        aside->writing_at = aside->asked - aside->writing.len;
        aside->writing_fresh = aside->fresh;
        aside->fresh = false;
        aside->work.data = journal;
        aside->busy = true;
        int result = uv_queue_work(journal->loop, &aside->work, on_work, on_work_done);
        CHECK(result == 0); /* fails only without a work function */
}
