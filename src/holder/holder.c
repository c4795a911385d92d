/* holder.c - a lock and the thread that keeps it.
 *
 *   fresh --a quarter of the lease--> renewing --answered--> fresh
 *                                        |
 *                                        `--margin before the end--> doubtful --answered--> fresh
 *                                                                       |
 *                             refused, or the end has come: lost <------'
 *
 * `until_us` is the only truth: it is moved forward by an answer, by the lease counted from when
 * the question was sent, and is 0 when the lock is lost. Nothing else makes a lock sure. */
#include "holder/door.h"
#include "holder/meridian_lock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define EXPORT           __attribute__((visibility("default")))

#define TTL_MS_DEFAULT   10000u
#define ASK_US           2000000ULL
#define ASK_AGAIN_US     100000u
#define ACQUIRE_SLACK_US 6000000ULL
#define OWNER_SIZE       264
#define KEY_SIZE         520

struct meridian_lock {
        struct door door;
        char key[KEY_SIZE];
        char owner[OWNER_SIZE];
        uint64_t token;
        uint64_t ttl_us;
        uint64_t margin_us;
        void (*news)(void *context, enum meridian_lock_news news);
        void *context;
        _Atomic uint64_t until_us; /* 0: lost */
        pthread_t thread;
        pthread_mutex_t mutex;
        pthread_cond_t ended_cond;
        bool ended; /* under the mutex */
        bool doubtful;
};

static void say(char *why, size_t why_size, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

static void say(char *why, size_t why_size, const char *format, ...)
{
        va_list args;
        if (why == NULL || why_size == 0)
                return;
        va_start(args, format);
        (void)vsnprintf(why, why_size, format, args);
        va_end(args);
}

/* The end of a lease of which was heard in answer to a question that was sent then. */
static uint64_t lease_end(uint64_t sent_us, uint64_t lease_us)
{
        return sent_us + lease_us - lease_us / 20;
}

EXPORT bool meridian_lock_sure(struct meridian_lock *lock)
{
        return door_now_us() < atomic_load(&lock->until_us);
}

EXPORT unsigned meridian_lock_left_ms(struct meridian_lock *lock)
{
        uint64_t until_us = atomic_load(&lock->until_us), now_us = door_now_us();
        return now_us < until_us ? (unsigned)((until_us - now_us) / 1000) : 0;
}

EXPORT uint64_t meridian_lock_token(const struct meridian_lock *lock)
{
        return lock->token;
}

/* ---- keeping ---- */

/* Sleeps; true: the lock is being released. */
static bool rest(struct meridian_lock *lock, uint64_t us)
{
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)(us / 1000000);
        until.tv_nsec += (long)(us % 1000000) * 1000;
        if (until.tv_nsec >= 1000000000) {
                until.tv_nsec -= 1000000000;
                until.tv_sec++;
        }
        pthread_mutex_lock(&lock->mutex);
        int waited = 0;
        while (!lock->ended && waited == 0)
                waited = pthread_cond_timedwait(&lock->ended_cond, &lock->mutex, &until);
        bool ended = lock->ended;
        pthread_mutex_unlock(&lock->mutex);
        return ended;
}

static void tell(struct meridian_lock *lock, enum meridian_lock_news news)
{
        if (lock->news != NULL)
                lock->news(lock->context, news);
}

/* Tells of a doubt once; false: it is lost. */
static bool look(struct meridian_lock *lock)
{
        uint64_t now_us = door_now_us(), until_us = atomic_load(&lock->until_us);
        if (now_us >= until_us) {
                atomic_store(&lock->until_us, 0);
                tell(lock, MERIDIAN_LOCK_LOST);
                return false;
        }
        if (!lock->doubtful && until_us - now_us <= lock->margin_us) {
                lock->doubtful = true;
                tell(lock, MERIDIAN_LOCK_DOUBTFUL);
        }
        return true;
}

/* Asks for a renewal; an answer moves the end, counted from the question. */
static void renew_ask(struct meridian_lock *lock, uint64_t last_us, struct door_answer *ret)
{
        char token[24], ttl[24];
        uint64_t sent_us = door_now_us();
        snprintf(token, sizeof token, "%llu", (unsigned long long)lock->token);
        snprintf(ttl, sizeof ttl, "%llu", (unsigned long long)(lock->ttl_us / 1000));
        const char *words[] = {"LOCK.RENEW", lock->key, lock->owner, token, ttl};
        door_ask(&lock->door, words, 5, last_us, ret);
        if (ret->kind != DOOR_NUMBERS || ret->count != 1)
                return;
        uint64_t lease_us = ret->numbers[0] * 1000;
        uint64_t end_us = lease_end(sent_us, lease_us < lock->ttl_us ? lease_us : lock->ttl_us);
        if (end_us > atomic_load(&lock->until_us))
                atomic_store(&lock->until_us, end_us);
}

/* One attempt, which ends before the next thing has to be told, and leaves time for another node.
 * False: the lock is gone. */
static bool renew(struct meridian_lock *lock)
{
        uint64_t now_us = door_now_us(), until_us = atomic_load(&lock->until_us);
        uint64_t last_us = until_us - (lock->doubtful ? 0 : lock->margin_us);
        struct door_answer answer;
        if (now_us + lock->ttl_us / 8 < last_us)
                last_us = now_us + lock->ttl_us / 8;
        renew_ask(lock, last_us, &answer);
        if (answer.kind == DOOR_NUMBERS) {
                bool well = door_now_us() + lock->margin_us < atomic_load(&lock->until_us);
                if (lock->doubtful && well) {
                        lock->doubtful = false;
                        tell(lock, MERIDIAN_LOCK_RENEWED);
                }
                return true;
        }
        if (answer.kind == DOOR_ERROR && strncmp(answer.text, "NOTOWNER", 8) == 0) {
                atomic_store(&lock->until_us, 0);
                tell(lock, MERIDIAN_LOCK_LOST);
                return false;
        }
        if (answer.kind == DOOR_ERROR)
                door_next(&lock->door);
        return true;
}

/* When the next renewal is due: a quarter of the lease after the last one. */
static uint64_t renew_due_us(const struct meridian_lock *lock)
{
        uint64_t whole_us = lease_end(0, lock->ttl_us);
        return atomic_load(&lock->until_us) - whole_us + lock->ttl_us / 4;
}

static void *keep(void *argument)
{
        struct meridian_lock *lock = argument;
        for (;;) {
                uint64_t now_us = door_now_us(), due_us = renew_due_us(lock);
                uint64_t pause_us =
                        lock->ttl_us / 20 < ASK_AGAIN_US ? lock->ttl_us / 20 : ASK_AGAIN_US;
                if (rest(lock, due_us > now_us ? due_us - now_us : pause_us) || !look(lock) ||
                    !renew(lock) || !look(lock))
                        return NULL;
        }
}

/* ---- acquiring ---- */

static void owner_make(char owner[OWNER_SIZE], const char *wished)
{
        char host[128] = "";
        uint64_t number = 0;
        if (wished != NULL) {
                snprintf(owner, OWNER_SIZE, "%s", wished);
                return;
        }
        (void)gethostname(host, sizeof host - 1);
        if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
                number = door_now_us();
        snprintf(owner, OWNER_SIZE, "%s:%ld:%016llx", host, (long)getpid(),
                 (unsigned long long)number);
}

struct words {
        const char *items[16];
        size_t count;
        char numbers[4][24];
        size_t number_count;
};

static void word(struct words *words, const char *text)
{
        words->items[words->count++] = text;
}

static void word_number(struct words *words, const char *name, uint64_t value)
{
        char *text = words->numbers[words->number_count++];
        snprintf(text, sizeof words->numbers[0], "%llu", (unsigned long long)value);
        if (name != NULL)
                word(words, name);
        word(words, text);
}

/* An ask for the lock, with what is left of the wait. */
static void acquire_words(const struct meridian_lock *lock,
                          const struct meridian_lock_options *options, uint64_t wait_ms,
                          struct words *ret)
{
        *ret = (struct words){.count = 0};
        word(ret, "LOCK.ACQUIRE");
        word(ret, lock->key);
        word(ret, lock->owner);
        word_number(ret, NULL, lock->ttl_us / 1000);
        if (wait_ms > 0)
                word_number(ret, "WAIT", wait_ms);
        if (options->shared)
                word(ret, "SHARED");
        else if (options->slots > 1)
                word_number(ret, "SLOTS", options->slots);
        if (options->delay_ms > 0)
                word_number(ret, "DELAY", options->delay_ms);
}

/* Where the same owner asks again it gets what it has: so a lost answer costs nothing but time. */
static enum meridian_lock_status acquire(struct meridian_lock *lock,
                                         const struct meridian_lock_options *options, char *why,
                                         size_t why_size)
{
        uint64_t begun_us = door_now_us(), wait_us = (uint64_t)options->wait_ms * 1000;
        for (;;) {
                struct words words;
                struct door_answer answer;
                uint64_t sent_us = door_now_us(), passed_us = sent_us - begun_us;
                uint64_t left_us = passed_us < wait_us ? wait_us - passed_us : 0;
                acquire_words(lock, options, left_us / 1000, &words);
                door_ask(&lock->door, words.items, words.count, sent_us + left_us + 2 * ASK_US,
                         &answer);
                if (answer.kind == DOOR_NUMBERS && answer.count == 2) {
                        lock->token = answer.numbers[0];
                        uint64_t lease_us = answer.numbers[1] * 1000;
                        if (lease_us > lock->ttl_us)
                                lease_us = lock->ttl_us;
                        atomic_store(&lock->until_us, lease_end(sent_us, lease_us));
                        return MERIDIAN_LOCK_OK;
                }
                if (answer.kind == DOOR_NIL) {
                        say(why, why_size, "%s is held by somebody else", lock->key);
                        return MERIDIAN_LOCK_HELD;
                }
                bool elsewhere = answer.kind == DOOR_NONE ||
                                 strncmp(answer.text, "NOMAJORITY", 10) == 0 ||
                                 strncmp(answer.text, "TIMEOUT", 7) == 0 ||
                                 strncmp(answer.text, "UNREACHABLE", 11) == 0 ||
                                 strncmp(answer.text, "LIMIT", 5) == 0;
                say(why, why_size, "%s", answer.text);
                if (!elsewhere)
                        return MERIDIAN_LOCK_REFUSED;
                if (answer.kind == DOOR_ERROR)
                        door_next(&lock->door);
                if (door_now_us() >= begun_us + wait_us + ACQUIRE_SLACK_US)
                        return MERIDIAN_LOCK_UNREACHABLE;
                struct timespec pause = {.tv_nsec = (long)ASK_AGAIN_US * 1000};
                nanosleep(&pause, NULL);
        }
}

/* The lease began when the wait ended, and only its least is known: from the question. Where too
 * little is left by that, a renewal tells more. */
static bool confirmed(struct meridian_lock *lock)
{
        struct door_answer answer;
        for (size_t i = 0; i < lock->door.node_count; i++) {
                if (door_now_us() + 2 * lock->margin_us < atomic_load(&lock->until_us))
                        return true;
                renew_ask(lock, door_now_us() + lock->ttl_us / 2, &answer);
                if (answer.kind == DOOR_ERROR)
                        door_next(&lock->door);
        }
        return meridian_lock_sure(lock);
}

static void lock_free(struct meridian_lock *lock)
{
        door_close(&lock->door);
        pthread_cond_destroy(&lock->ended_cond);
        pthread_mutex_destroy(&lock->mutex);
        free(lock);
}

static struct meridian_lock *lock_new(const struct meridian_lock_options *options, const char *key)
{
        struct meridian_lock *lock = calloc(1, sizeof *lock);
        pthread_condattr_t attributes;
        if (lock == NULL)
                return NULL;
        pthread_mutex_init(&lock->mutex, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&lock->ended_cond, &attributes);
        pthread_condattr_destroy(&attributes);
        snprintf(lock->key, sizeof lock->key, "%s", key);
        owner_make(lock->owner, options->owner);
        unsigned ttl_ms = options->ttl_ms == 0 ? TTL_MS_DEFAULT : options->ttl_ms;
        lock->ttl_us = (uint64_t)ttl_ms * 1000;
        lock->margin_us =
                options->margin_ms == 0 ? lock->ttl_us / 4 : (uint64_t)options->margin_ms * 1000;
        lock->news = options->news;
        lock->context = options->context;
        if (!door_open(&lock->door, options->nodes, options->node_count)) {
                lock_free(lock);
                return NULL;
        }
        return lock;
}

static bool release_ask(struct meridian_lock *lock)
{
        char token[24];
        snprintf(token, sizeof token, "%llu", (unsigned long long)lock->token);
        const char *words[] = {"LOCK.RELEASE", lock->key, lock->owner, token};
        uint64_t end_us = door_now_us() + ASK_US, until_us = atomic_load(&lock->until_us);
        if (until_us < end_us)
                end_us = until_us; /* then it ends by itself */
        for (size_t i = 0; i <= lock->door.node_count && door_now_us() < end_us; i++) {
                struct door_answer answer;
                uint64_t now_us = door_now_us();
                door_ask(&lock->door, words, 4, now_us + (end_us - now_us) / 2, &answer);
                if (answer.kind == DOOR_NUMBERS)
                        return answer.count == 1 && answer.numbers[0] == 1;
                if (answer.kind == DOOR_ERROR)
                        door_next(&lock->door);
        }
        return false;
}

EXPORT enum meridian_lock_status meridian_lock_acquire(const struct meridian_lock_options *options,
                                                       const char *key,
                                                       struct meridian_lock **ret_lock, char *why,
                                                       size_t why_size)
{
        *ret_lock = NULL;
        unsigned ttl_ms = options->ttl_ms == 0 ? TTL_MS_DEFAULT : options->ttl_ms;
        if (ttl_ms < MERIDIAN_LOCK_TTL_MS_MIN || strlen(key) >= KEY_SIZE ||
            options->node_count == 0 || options->node_count > DOOR_NODES_MAX ||
            options->margin_ms >= ttl_ms / 2 ||
            (options->owner != NULL && strlen(options->owner) >= OWNER_SIZE)) {
                say(why, why_size,
                    "a lock has a key of 1 to %d bytes, 1 to %d nodes, at least %d ms to live and "
                    "a "
                    "margin of less than half of that",
                    KEY_SIZE - 1, DOOR_NODES_MAX, MERIDIAN_LOCK_TTL_MS_MIN);
                return MERIDIAN_LOCK_REFUSED;
        }
        struct meridian_lock *lock = lock_new(options, key);
        if (lock == NULL)
                return MERIDIAN_LOCK_NOMEM;
        enum meridian_lock_status status = acquire(lock, options, why, why_size);
        if (status == MERIDIAN_LOCK_OK && !confirmed(lock)) {
                say(why, why_size, "%s was granted, but its lease could not be renewed in time",
                    key);
                status = MERIDIAN_LOCK_UNREACHABLE;
        }
        if (status == MERIDIAN_LOCK_OK && pthread_create(&lock->thread, NULL, keep, lock) != 0) {
                (void)release_ask(lock);
                status = MERIDIAN_LOCK_NOMEM;
        }
        if (status == MERIDIAN_LOCK_OK)
                *ret_lock = lock;
        else
                lock_free(lock);
        return status;
}

EXPORT bool meridian_lock_release(struct meridian_lock *lock)
{
        if (lock == NULL)
                return true;
        pthread_mutex_lock(&lock->mutex);
        lock->ended = true;
        pthread_cond_signal(&lock->ended_cond);
        pthread_mutex_unlock(&lock->mutex);
        pthread_join(lock->thread, NULL);
        bool released = release_ask(lock);
        lock_free(lock);
        return released;
}
