/* io.h - a world by libuv (world/world.h): the files of a node, and the driver that runs a node on
 * a loop. It knows neither nodes nor links: both are reached through tables of functions.
 *
 * A node's data folder (mode 0700):
 *
 *   lock               held by flock while a daemon runs
 *   incarnation        a decimal number, one more at every start
 *   journal-global     } what WORLD_JOURNAL_APPEND wrote, byte for byte, and then zeros: space made
 *   journal-region     } ready, to a multiple of 1 MiB where the disk has room
 *   journal-*.new      a WORLD_JOURNAL_REPLACE under way; removed at a start
 *   journal-*.begun    a mark: bytes of that journal were durable once, so an empty one is lost
 *   journal-*.next     a new journal in pieces (WORLD_JOURNAL_ASIDE); removed at a start
 *
 * Journals: all bytes appended while a write is under way go out together in the next one (pwrite,
 * then one fdatasync, both in the thread pool). After the first failure a journal is never written
 * again, since what the kernel then holds is unknown: WORLD_JOURNAL_FAILED, once. Offsets count
 * from the first byte of the file, recovered bytes included. A file of nothing but zeros is handed
 * over as an empty one. The generation is 0 at every start. */
#ifndef MERIDIAN_IO_IO_H
#define MERIDIAN_IO_IO_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "world/world.h"

#include <uv.h>

/* What went wrong, where and what to do, for a person. */
struct io_error {
        char text[640];
};

/* ---- files ---- */

/* Creates `dir` and what is missing above it (0700 for new ones). */
MUST_USE enum err io_dir_make(const char *dir, struct io_error *error);

/* Takes the lock of a data folder for the life of the process. ERR_BUSY: another process holds it;
 * the text says its pid. io_dir_unlock gives it back. */
MUST_USE enum err io_dir_lock(const char *dir, int *ret_fd, struct io_error *error);
void io_dir_unlock(int fd);

/* Counts this start: reads, adds one, writes durably. ERR_CORRUPT when the file holds no number. */
MUST_USE enum err io_incarnation_next(const char *dir, uint64_t *ret_incarnation,
                                      struct io_error *error);

/* A whole file of at most `size_max` bytes; free with heap_free(heap, ret->ptr). ERR_NOT_FOUND,
 * ERR_LIMIT, ERR_NOMEM, ERR_IO. */
MUST_USE enum err io_file_read(struct heap *heap, const char *path, size_t size_max,
                               uint8_t **ret_ptr, size_t *ret_len, struct io_error *error);

/* Replaces a file durably: written aside (`path`.new), synced, renamed, folder synced. */
MUST_USE enum err io_file_write(const char *path, struct bytes data, unsigned mode,
                                struct io_error *error);

/* The error of the world for an errno: ENOSPC and EDQUOT are ERR_NOSPACE, ... */
MUST_USE enum err io_err_of_errno(int number);

/* ---- the driver ---- */

/* The node, as the driver sees it. */
struct io_node {
        void *node;
        void (*step)(void *node, const struct world_event *event,
                     struct world_effects *ret_effects);
};

/* Who carries out the effects that are not the driver's own. Called in the order of the effects;
 * each may call io_driver_event, which then only queues. */
struct io_ports {
        void *user;
        void (*send)(void *user, node_id peer, enum world_class class, struct bytes data);
        void (*reply)(void *user, uint64_t request, struct bytes data);
        void (*publish)(void *user);
        void (*note)(void *user, uint64_t wall_us, const char *name, struct bytes text);
        /* WORLD_REDIS_*: the effect as it is. */
        void (*redis)(void *user, const struct world_effect *effect);
        /* WORLD_POSTGRES_*: the effect as it is. NULL where there is none to look after. */
        void (*postgres)(void *user, const struct world_effect *effect);
        /* Called after every turn in which the node stepped, when no effects
         * are left. May be NULL. */
        void (*turned)(void *user);
};

struct io_config {
        uv_loop_t *loop;
        struct heap *heap;    /* kept */
        const char *data_dir; /* exists, locked by the caller; borrowed for the call */
        uint64_t incarnation;
        uint64_t seed;
        /* Up to where a journal's own records say that it was durable: what lies behind is written
         * again at the start. NULL: all of it. */
        uint64_t (*journal_known)(struct bytes journal);
        struct io_node node;
        struct io_ports ports;
};

struct io_driver;

/* Opens the journals, hands all their bytes to the node (which cuts a torn end by a replacement),
 * and steps the node with WORLD_START from inside the call: the
 * ports must be ready. */
MUST_USE enum err io_driver_new(const struct io_config *config, struct io_driver **ret_driver,
                                struct io_error *error);

/* Gives the node an event; `now_us` and `wall_us` are filled in by the driver. Slices are borrowed
 * for the call. From within an effect it is copied and queued. ERR_NOMEM: could not be queued. */
MUST_USE enum err io_driver_event(struct io_driver *driver, const struct world_event *event);

/* The driver's clocks, as the node sees them: read once a turn. */
uint64_t io_driver_now_us(struct io_driver *driver);
uint64_t io_driver_wall_us(struct io_driver *driver);

/* Stops: no event reaches the node any more; writes under way are finished; `closed` is called when
 * the loop holds nothing of it. Then io_driver_free. */
void io_driver_close(struct io_driver *driver, void (*closed)(void *user), void *user);
void io_driver_free(struct io_driver *driver);

#endif
