/* clock.c - lives of this server's stream, and the clock that is reserved for them
 * (keyspace/life.c).
 *
 * The reservation is kept in `meridian.<origin>.clock` in the server's directory, for the AOF may
 * lose its end: u32 "MCL" and version, u64 clock, u32 CRC-32C of both, little-endian. A thread
 * writes it twice a second; the main thread waits for it only where stamps may be beyond what is
 * durable: at the begin of a life, and after a jump of a clock. No delta leaves the process before:
 * the clock is seen to at the end of each turn, when the replies leave, and before each reply that
 * holds stamps, for a script that runs long lets replies of its own turn go.
 *
 * Where the file cannot be written, a warning says so once and the server goes on: then the clock
 * is as good as the log, and a crash that loses its end, together with a wall clock that goes back,
 * may give a stamp again. */
#include "plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum {
        CLOCK_MAGIC = 0x014c434d,
        CLOCK_LEN = 4 + 8 + 4,
};

static struct {
        char path[64];
        int file; /* < 0: none */
        bool warned;
        bool thread_on;
        uint64_t durable; /* as the main thread knows it */
        _Atomic uint64_t written;
        pthread_mutex_t lock;
        pthread_cond_t wanted;
        uint64_t want; /* under the lock */
} kept = {.file = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER};

static void put_le(uint8_t *at, uint64_t value, unsigned len)
{
        for (unsigned i = 0; i < len; i++)
                at[i] = (uint8_t)(value >> (8 * i));
}

static bool file_write(uint64_t clock)
{
        uint8_t image[CLOCK_LEN];
        put_le(image, CLOCK_MAGIC, 4);
        put_le(image + 4, clock, 8);
        put_le(image + 12, hash_crc32c(0, bytes_of(image, 12)), 4);
        return kept.file >= 0 && pwrite(kept.file, image, sizeof(image), 0) == CLOCK_LEN &&
               fdatasync(kept.file) == 0;
}

/* 0 where there is none that is whole. */
static uint64_t file_read(void)
{
        uint8_t image[CLOCK_LEN];
        if (pread(kept.file, image, sizeof(image), 0) != CLOCK_LEN)
                return 0;
        struct cursor cursor = cursor_of(bytes_of(image, sizeof(image)));
        uint32_t magic = cursor_u32(&cursor);
        uint64_t clock = cursor_u64(&cursor);
        uint32_t crc = cursor_u32(&cursor);
        return magic == CLOCK_MAGIC && crc == hash_crc32c(0, bytes_of(image, 12)) ? clock : 0;
}

static void warn(const char *what)
{
        if (!kept.warned)
                redis.Log(NULL, "warning",
                          "meridian: %s '%s': %s. After a crash that loses the end of the log the "
                          "clock may not be known.",
                          what, kept.path, strerrordesc_np(errno));
        kept.warned = true;
}

static void *thread_run(void *context)
{
        (void)context;
        uint64_t done = 0;
        for (;;) {
                pthread_mutex_lock(&kept.lock);
                while (kept.want <= done)
                        pthread_cond_wait(&kept.wanted, &kept.lock);
                done = kept.want;
                bool good = file_write(done);
                pthread_mutex_unlock(&kept.lock);
                if (good)
                        atomic_store(&kept.written, done);
        }
        return NULL;
}

static void file_open(void)
{
        snprintf(kept.path, sizeof(kept.path), "meridian.%u.clock", (unsigned)plugin.config.origin);
        kept.file = open(kept.path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (kept.file < 0) {
                warn("cannot open");
                return;
        }
        pthread_t thread;
        kept.thread_on = pthread_create(&thread, NULL, thread_run, NULL) == 0;
        if (kept.thread_on)
                pthread_detach(thread);
}

/* Now, and in this thread. */
static void keep_now(uint64_t clock)
{
        pthread_mutex_lock(&kept.lock);
        kept.want = clock > kept.want ? clock : kept.want;
        if (!file_write(kept.want))
                warn("cannot write");
        pthread_mutex_unlock(&kept.lock);
        /* Where it failed, the warning has said what that means. */
        kept.durable = clock;
}

void clock_turn(void)
{
        struct keyspace_change change;
        plugin_must(keyspace_reserve(plugin.keyspace, plugin_stamp_ms(), &change), "the clock");
        if (!change.nothing)
                log_frame(change.delta, false);
        uint64_t written = atomic_load(&kept.written);
        kept.durable = written > kept.durable ? written : kept.durable;
        uint64_t reserved = keyspace_reserved(plugin.keyspace);
        if (keyspace_clock_bare(plugin.keyspace, kept.durable) || !kept.thread_on) {
                if (reserved > kept.durable)
                        keep_now(reserved);
        } else if (!change.nothing) {
                pthread_mutex_lock(&kept.lock);
                kept.want = reserved > kept.want ? reserved : kept.want;
                pthread_cond_signal(&kept.wanted);
                pthread_mutex_unlock(&kept.lock);
        }
}

void clock_out(void)
{
        if (plugin.begun && !plugin.replica && !plugin.loading)
                clock_turn();
}

void clock_begin(void)
{
        struct keyspace_change change;
        if (kept.file < 0)
                file_open();
        if (kept.file >= 0)
                keyspace_floor(plugin.keyspace, file_read());
        plugin_must(keyspace_begin(plugin.keyspace, plugin_now_ms(), &change), "a life");
        local_changed(&change);
        clock_turn();
        plugin.begun = true;
        redis.Log(NULL, "notice",
                  "meridian: a life begins: recovered up to %llu, goes on from %llu",
                  (unsigned long long)keyspace_recovered(plugin.keyspace),
                  (unsigned long long)keyspace_first(plugin.keyspace));
}
