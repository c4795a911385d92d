/* faults.c - preloaded into a daemon under test: its wall clock jumps and its disk fails, on word
 * from outside while it runs. The word is a page of numbers (struct faults) in the file that
 * MERIDIAN_FAULTS names, mapped by both sides; without it nothing is changed. The page also tells
 * what has struck, so that a test can see that it has tested something.
 *
 * Disk faults are of files in a folder `data`. A loss of power is a kill in the next write or sync
 * after which each 512 bytes of what was not synced are as before or as after, by chance: so writes
 * are torn, and what was written first may be lost when what was written last is there. A sync that
 * fails loses what it was for: the kernel takes such pages for clean. With `keeps` a journal's are
 * still read, also by the next process (they are noted in a file beside the word's), until power is
 * lost; only what was written again and synced is there then.
 *
 * Two words plant faults that no node can bear, to show that the judge of a history sees them: the
 * steady clocks are moved, and a disk tells of syncs that it has not done.
 *
 * System calls are made directly: what they are called by may be replaced too, as under a
 * sanitizer. A call that fails here does what the system does. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
        SECTOR = 512,
};

struct faults {
        volatile int64_t wall_us;       /* added to the wall clock */
        volatile int64_t steady_us;     /* planted: to the steady clocks */
        volatile int64_t sync_delay_us; /* each sync takes so much longer */
        volatile int64_t sync_errno;    /* 0, or how each sync fails */
        volatile int64_t write_errno;   /* 0, or how each write fails, */
        volatile int64_t write_room;    /* when so many bytes more were written */
        volatile int64_t power;         /* 1: it is lost in the next write or sync */
        volatile int64_t lies;          /* planted: 1: syncs are told, not done */
        volatile int64_t seed;
        volatile int64_t keeps; /* 1: what a failed sync was for is read until power is lost */
        /* What has struck. */
        volatile int64_t jumped, delayed, sync_failed, write_failed, undone, kept;
};

/* What was in a place before a write that is not synced. */
struct before {
        struct before *next; /* the write before it */
        int fd;
        dev_t dev;
        ino_t ino;
        off_t at;
        size_t len;
        uint8_t bytes[];
};

/* What is read, and not on the disk: as it was before, and of each byte whether that is so. */
struct kept {
        struct kept *next; /* of an older write */
        char path[PATH_MAX];
        ino_t ino;
        off_t at;
        size_t len;
        uint8_t bytes[]; /* `len` of them, then `len` times 1: it is on the disk by now */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct faults *faults; /* NULL: none */
static struct before *unsynced;
static struct kept *kept; /* the newest first */
static uint64_t random_state;

static bool kept_path(char path[PATH_MAX])
{
        const char *word = getenv("MERIDIAN_FAULTS");
        int len = word == NULL ? 0 : snprintf(path, PATH_MAX, "%s.kept", word);
        return len > 0 && len < PATH_MAX;
}

static void kept_note(void)
{
        char path[PATH_MAX];
        int fd = kept_path(path) ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
        for (const struct kept *one = kept; fd >= 0 && one != NULL; one = one->next)
                (void)!write(fd, one, sizeof *one + 2 * one->len);
        if (fd >= 0)
                close(fd);
}

static void kept_read(void)
{
        char path[PATH_MAX];
        struct kept head, **link = &kept;
        int fd = kept_path(path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        while (fd >= 0 && read(fd, &head, sizeof head) == (ssize_t)sizeof head) {
                struct kept *one = calloc(1, sizeof *one + 2 * head.len);
                if (one == NULL)
                        break;
                *one = head;
                one->next = NULL;
                (void)!read(fd, one->bytes, 2 * head.len);
                *link = one;
                link = &one->next;
        }
        if (fd >= 0)
                close(fd);
}

static void faults_open(void)
{
        const char *path = getenv("MERIDIAN_FAULTS");
        int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return;
        kept_read();
        void *page = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (page != MAP_FAILED)
                faults = page;
}

static struct faults *faults_get(void)
{
        pthread_once(&once, faults_open);
        return faults;
}

/* ---- clocks ---- */

static int clock_read(clockid_t clock, struct timespec *ret)
{
        long result = syscall(SYS_clock_gettime, clock, ret);
        struct faults *word = faults_get();
        if (result != 0 || word == NULL)
                return (int)result;
        int64_t add_us = 0;
        if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
                add_us = word->wall_us;
        else if (clock == CLOCK_BOOTTIME || clock == CLOCK_MONOTONIC)
                add_us = word->steady_us;
        if (add_us == 0)
                return 0;
        word->jumped++;
        int64_t at_us = (int64_t)ret->tv_sec * 1000000 + ret->tv_nsec / 1000 + add_us;
        if (at_us < 0)
                at_us = 0;
        ret->tv_sec = at_us / 1000000;
        ret->tv_nsec = at_us % 1000000 * 1000;
        return 0;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *ret)
{
        return clock_read(clock, ret);
}

EXPORT int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
        struct timespec at;
        (void)zone;
        if (clock_read(CLOCK_REALTIME, &at) != 0)
                return -1;
        ret->tv_sec = at.tv_sec;
        ret->tv_usec = at.tv_nsec / 1000;
        return 0;
}

EXPORT time_t time(time_t *ret)
{
        struct timespec at = {0};
        (void)clock_read(CLOCK_REALTIME, &at);
        if (ret != NULL)
                *ret = at.tv_sec;
        return at.tv_sec;
}

/* ---- the disk ---- */

static bool path_of(int fd, char path[PATH_MAX])
{
        char link[64];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(link, path, PATH_MAX - 1);
        path[len > 0 ? len : 0] = '\0';
        return len > 0;
}

static bool chosen(int fd)
{
        char path[PATH_MAX];
        struct stat info;
        return path_of(fd, path) && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
               strstr(path, "/data/") != NULL;
}

static bool by_chance(void)
{
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        return random_state >> 63 != 0;
}

/* A sector is as it was before. */
static void undo(const struct before *before, size_t from, size_t len)
{
        struct stat info;
        if (fstat(before->fd, &info) != 0 || info.st_dev != before->dev ||
            info.st_ino != before->ino)
                return; /* closed, and synced before that */
        if (syscall(SYS_pwrite64, before->fd, before->bytes + from, len, before->at + (off_t)from) >
            0)
                faults->undone++;
}

/* The newest write first: what is left is what was before the oldest of those that are undone. */
static void undo_write(const struct before *before, bool all)
{
        size_t from = 0;
        while (from < before->len) {
                size_t len = SECTOR - (size_t)(before->at + (off_t)from) % SECTOR;
                if (len > before->len - from)
                        len = before->len - from;
                if (all || by_chance())
                        undo(before, from, len);
                from += len;
        }
}

/* ---- what is read, and not on the disk ---- */

/* Of a journal in its place: what else is written is not read again where its sync failed. */
static void keep(const struct before *before)
{
        struct kept *one = calloc(1, sizeof *one + 2 * before->len);
        const char *name = NULL;
        if (one != NULL && path_of(before->fd, one->path))
                name = strrchr(one->path, '/');
        if (name == NULL ||
            (strcmp(name, "/journal-global") != 0 && strcmp(name, "/journal-region") != 0)) {
                free(one);
                return;
        }
        one->ino = before->ino;
        one->at = before->at;
        one->len = before->len;
        memcpy(one->bytes, before->bytes, before->len);
        uint8_t *same = one->bytes + one->len;
        (void)!syscall(SYS_pread64, before->fd, same, one->len, one->at);
        for (size_t i = 0; i < one->len; i++)
                same[i] = same[i] == one->bytes[i];
        one->next = kept;
        kept = one;
        faults->kept++;
}

/* Those of which all is on the disk are forgotten: the next file may have their number. */
static void kept_forget(void)
{
        struct kept **link = &kept;
        while (*link != NULL) {
                struct kept *one = *link;
                if (memchr(one->bytes + one->len, 0, one->len) != NULL) {
                        link = &one->next;
                        continue;
                }
                *link = one->next;
                free(one);
        }
        kept_note();
}

/* What was written again is on the disk now. */
static void kept_synced(const struct before *written)
{
        for (struct kept *one = kept; one != NULL; one = one->next) {
                off_t from = one->at > written->at ? one->at : written->at;
                off_t end = one->at + (off_t)one->len;
                if (end > written->at + (off_t)written->len)
                        end = written->at + (off_t)written->len;
                if (one->ino == written->ino && from < end)
                        memset(one->bytes + one->len + (from - one->at), 1, (size_t)(end - from));
        }
}

static void kept_lose(void)
{
        for (const struct kept *one = kept; one != NULL; one = one->next) {
                struct stat info;
                int fd = open(one->path, O_WRONLY | O_CLOEXEC);
                bool same = fd >= 0 && fstat(fd, &info) == 0 && info.st_ino == one->ino;
                for (size_t i = 0; same && i < one->len; i++) {
                        if (one->bytes[one->len + i] == 0)
                                (void)!syscall(SYS_pwrite64, fd, one->bytes + i, (size_t)1,
                                               one->at + (off_t)i);
                }
                if (fd >= 0)
                        close(fd);
        }
        kept = NULL;
        kept_note();
}

static void power_loss(void)
{
        random_state = (uint64_t)faults->seed + 1;
        for (const struct before *before = unsynced; before != NULL; before = before->next)
                undo_write(before, faults->lies != 0);
        kept_lose();
        faults->power = 0;
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;)
                pause();
}

static void keep_in_order(const struct stat *info)
{
        size_t count = 0;
        for (const struct before *before = unsynced; before != NULL; before = before->next)
                count++;
        for (; count > 0; count--) {
                const struct before *before = unsynced;
                for (size_t i = 1; i < count; i++)
                        before = before->next;
                if (before->dev == info->st_dev && before->ino == info->st_ino)
                        keep(before);
        }
}

/* What is under a file's unsynced writes is forgotten, or comes back. */
static void settle(int fd, bool lost)
{
        struct before **link = &unsynced;
        struct stat info;
        if (fstat(fd, &info) != 0)
                return;
        bool keeps = lost && faults->keeps != 0;
        if (keeps)
                keep_in_order(&info);
        while (*link != NULL) {
                struct before *before = *link;
                if (before->dev != info.st_dev || before->ino != info.st_ino) {
                        link = &before->next;
                        continue;
                }
                if (lost && !keeps)
                        undo_write(before, true);
                if (!lost)
                        kept_synced(before);
                *link = before->next;
                free(before);
        }
        if (kept != NULL)
                kept_forget();
}

static void remember(int fd, off_t at, size_t len)
{
        struct stat info;
        struct before *before = calloc(1, sizeof *before + len);
        if (before == NULL || fstat(fd, &info) != 0) {
                free(before);
                return;
        }
        /* Behind the end there are zeros. */
        (void)!syscall(SYS_pread64, fd, before->bytes, len, at);
        before->fd = fd;
        before->dev = info.st_dev;
        before->ino = info.st_ino;
        before->at = at;
        before->len = len;
        before->next = unsynced;
        unsynced = before;
}

static ssize_t write_at(int fd, const void *data, size_t len, off_t at)
{
        if (faults_get() == NULL || !chosen(fd))
                return syscall(SYS_pwrite64, fd, data, len, at);
        pthread_mutex_lock(&lock);
        int number = (int)faults->write_errno;
        if (number != 0 && (int64_t)len > faults->write_room)
                len = (size_t)faults->write_room;
        if (number != 0)
                faults->write_room -= (int64_t)len;
        ssize_t done = -1;
        if (number != 0 && len == 0) {
                faults->write_failed++;
        } else {
                remember(fd, at, len);
                done = syscall(SYS_pwrite64, fd, data, len, at);
                number = done < 0 ? errno : 0;
        }
        if (faults->power != 0)
                power_loss();
        pthread_mutex_unlock(&lock);
        if (done < 0)
                errno = number;
        return done;
}

/* With 64 bits of offset the linker's name of this is pwrite64, here and in the daemon. */
EXPORT ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
        return write_at(fd, data, len, at);
}

static int sync_by(long call, int fd)
{
        if (faults_get() == NULL || !chosen(fd))
                return (int)syscall(call, fd);
        if (faults->sync_delay_us > 0) {
                faults->delayed++;
                usleep((useconds_t)faults->sync_delay_us);
        }
        pthread_mutex_lock(&lock);
        if (faults->power != 0)
                power_loss();
        int number = (int)faults->sync_errno, result = -1;
        if (number != 0) {
                faults->sync_failed++;
                settle(fd, true);
        } else if (faults->lies != 0) {
                result = 0;
        } else {
                result = (int)syscall(call, fd);
                number = errno;
                settle(fd, false);
        }
        pthread_mutex_unlock(&lock);
        if (result != 0)
                errno = number;
        return result;
}

EXPORT int fsync(int fd)
{
        return sync_by(SYS_fsync, fd);
}

EXPORT int fdatasync(int fd)
{
        return sync_by(SYS_fdatasync, fd);
}
