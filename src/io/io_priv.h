/* io_priv.h - a journal, as the driver uses it. */
#ifndef MERIDIAN_IO_IO_PRIV_H
#define MERIDIAN_IO_IO_PRIV_H

#include "base/buffer.h"
#include "io/io.h"

#define IO_PATH_MAX 2048

/* Fills an error's text (NULL is fine); returns `err`. */
MUST_USE enum err io_fail(struct io_error *error, enum err err, const char *format, ...)
        PRINTF_LIKE(3, 4);

/* Makes renames and new files in `dir` durable; false with errno. */
bool io_dir_sync(const char *dir);

/* Writes all of `data` at an offset; false with errno. */
bool io_write_all(int fd, struct bytes data, uint64_t offset);

struct journal;

/* Called from the loop: durable up to `offset` of `generation`, or (once) failed. */
typedef void journal_synced(void *user, struct journal *journal, uint64_t generation,
                            uint64_t offset);
typedef void journal_failed(void *user, struct journal *journal, enum err err);

/* A new journal beside the one in use: aside.c. */
struct aside {
        char path[IO_PATH_MAX];
        int fd; /* -1: none */
        bool busy;
        bool fresh; /* the next piece begins a new file */
        uint64_t generation;
        uint64_t durable;
        uint64_t asked; /* bytes asked for */
        struct buffer pending;
        /* Owned by the thread pool while busy, as `fd`. */
        uv_work_t work;
        struct buffer writing;
        uint64_t writing_at;
        bool writing_fresh;
        int result; /* an errno; 0: done */
};

/* One file that grows, ahead of what is written. What is asked for while a write is under way waits
 * in `pending`. */
struct journal {
        uv_loop_t *loop;
        enum world_group group;
        char dir[IO_PATH_MAX];
        char path[IO_PATH_MAX];
        char path_new[IO_PATH_MAX];
        char path_mark[IO_PATH_MAX];
        bool marked; /* the mark is there: bytes of this journal were durable once */
        int fd;
        bool failed;
        bool busy;
        uint64_t generation;
        uint64_t durable; /* bytes of this generation */
        uint64_t ready;   /* size of the file: zeros from the last byte on */
        bool begun;       /* something was asked for: `durable` is what the node says */
        uint64_t asked;   /* bytes of the newest generation asked for */
        struct buffer pending;
        bool pending_replace;
        uint64_t pending_generation;
        int pending_fd; /* of a swap: the new file, with all but what is pending; -1: none */
        uint64_t pending_at;
        struct aside aside;
        /* Owned by the thread pool while busy. */
        uv_work_t work;
        struct buffer writing;
        bool writing_replace;
        uint64_t writing_generation;
        int writing_fd;
        uint64_t writing_at;
        int result; /* an errno; 0: done */
        journal_synced *synced;
        journal_failed *fail;
        void *user;
};

/* Opens (or creates) the file of a group in `dir`, reads all of it and makes it durable: free
 * `ret_data->ptr` with heap_free, also after an error where it is not NULL. `known`: as in
 * io_config. */
typedef uint64_t journal_known(struct bytes journal);
MUST_USE enum err journal_open(struct journal *journal, uv_loop_t *loop, struct heap *heap,
                               const char *dir, enum world_group group, journal_known *known,
                               uint8_t **ret_data, size_t *ret_len, struct io_error *error);

/* Not while busy. */
void journal_close(struct journal *journal);

/* Takes bytes; nothing is written before journal_write. After a failure both do nothing. */
void journal_append(struct journal *journal, uint64_t offset, struct bytes data);
void journal_replace(struct journal *journal, uint64_t generation, struct bytes data);

/* A piece of a new journal, and its last one: it takes the place of the old journal. */
void journal_aside(struct journal *journal, uint64_t generation, uint64_t offset,
                   struct bytes data);
void journal_swap(struct journal *journal, uint64_t generation, struct bytes data);

/* Work is under way: the loop must not end. */
bool journal_busy(const struct journal *journal);

/* The journal is written no more. */
void journal_break(struct journal *journal, enum err err);

/* ---- aside.c ---- */
void aside_init(struct aside *aside, struct heap *heap);
/* Not while busy. */
void aside_fini(struct aside *aside);
/* What was asked for is not wanted any more. */
void aside_drop(struct aside *aside);
/* The file, all of which is durable: the caller owns it now. */
MUST_USE int aside_take(struct aside *aside, uint64_t generation, uint64_t *ret_len);
void aside_write(struct journal *journal);

/* Begins to write what waits, unless a write is under way or nothing waits. */
void journal_write(struct journal *journal);

#endif
