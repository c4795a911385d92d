/* holder.c - to get a lock, to ask whether it is sure, and to give it back. Who keeps it meanwhile
 * is keeper.c.
 *
 * A lock belongs to the process that got it. A page that the kernel clears in every child holds the
 * process's number: in a child no lock of its parent is sure, and none is given back. */
#include "holder/holder_priv.h"
#include "holder/wait.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define EXPORT         __attribute__((visibility("default")))

#define TTL_MS_DEFAULT 10000u

struct holder_times holder_times = {
        .ask_us = 2000000,
        .dial_us = 1000000,
        .slack_us = 6000000,
        .pause_us = 100000,
        .probe_us = 1000000,
        .look_us = 2000000,
        .release_us = 2000000,
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

/* ---- processes ---- */

static pthread_once_t page_once = PTHREAD_ONCE_INIT;
static _Atomic uint64_t *page; /* NULL: there is none to be had; in it 0: not numbered yet */
static _Atomic uint64_t last_process;

static void page_make(void)
{
        void *made = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
        if (made == MAP_FAILED)
                return;
        if (madvise(made, sizeof *page, MADV_WIPEONFORK) == 0)
                page = made;
        else
                munmap(made, sizeof *page);
}

/* The number of this process among those that use the library, from its ancestors on; 0: it cannot
 * be told from a child, so it must hold nothing. */
static uint64_t process_number(void)
{
        uint64_t none = 0;
        pthread_once(&page_once, page_make);
        if (page == NULL)
                return 0;
        if (atomic_load(page) == 0)
                (void)atomic_compare_exchange_strong(page, &none,
                                                     atomic_fetch_add(&last_process, 1) + 1);
        return atomic_load(page);
}

static bool is_ours(const struct meridian_lock *lock)
{
        return atomic_load(page) == lock->process;
}

/* ---- what a lock says ---- */

EXPORT bool meridian_lock_sure(struct meridian_lock *lock)
{
        return is_ours(lock) && wait_now_us() < atomic_load(&lock->until_us);
}

EXPORT unsigned meridian_lock_left_ms(struct meridian_lock *lock)
{
        uint64_t until_us = atomic_load(&lock->until_us), now_us = wait_now_us();
        return is_ours(lock) && now_us < until_us ? (unsigned)((until_us - now_us) / 1000) : 0;
}

EXPORT uint64_t meridian_lock_token(const struct meridian_lock *lock)
{
        return lock->token;
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
                number = wait_now_us();
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

/* Waits for the answer; a node that is silent is looked at now and then, as one that stands still
 * keeps its connections. */
static void answer_wait(struct door *door, uint64_t last_us, struct answer *ret)
{
        uint64_t pause_us = holder_times.probe_us;
        for (;;) {
                uint64_t next_us = wait_now_us() + pause_us;
                door_wait(door, next_us < last_us ? next_us : last_us, ret);
                if (ret->kind != ANSWER_WAITING)
                        return;
                uint64_t look_us = next_us + holder_times.look_us;
                if (next_us >= last_us || !door_alive(door, look_us < last_us ? look_us : last_us))
                        break;
                if (pause_us < 8 * holder_times.probe_us)
                        pause_us *= 2;
        }
        door_next(door, ret);
}

/* May another node, or the same one a little later, know better? */
static bool worth_asking_again(const struct answer *answer)
{
        static const char *const words[] = {"NOMAJORITY", "NOTLEADER", "UNREACHABLE",
                                            "TIMEOUT",    "LIMIT",     "INTERNAL"};
        if (answer->kind != ANSWER_ERROR)
                return true; /* none, or one that answers no question of ours */
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
                if (strncmp(answer->text, words[i], strlen(words[i])) == 0)
                        return true;
        return false;
}

static bool is_grant(const struct answer *answer)
{
        return answer->kind == ANSWER_NUMBERS && answer->count == 2 && answer->numbers[0] > 0;
}

/* Why there is no lock, from an answer of a node. */
static void say_answer(const struct door *door, const struct answer *answer, char *why,
                       size_t why_size)
{
        if (answer->kind == ANSWER_NONE || answer->kind == ANSWER_ERROR)
                say(why, why_size, "%s", answer->text);
        else
                say(why, why_size, "%s is no lock door, by what it answers",
                    door->nodes[door->at].text);
}

/* Where the same owner asks again it gets what it has: so a lost answer costs nothing but time. */
static enum meridian_lock_status acquire(struct meridian_lock *lock,
                                         const struct meridian_lock_options *options, char *why,
                                         size_t why_size)
{
        uint64_t begun_us = wait_now_us(), wait_us = (uint64_t)options->wait_ms * 1000;
        uint64_t end_us = begun_us + wait_us + holder_times.slack_us;
        for (;;) {
                struct words words;
                struct answer answer;
                uint64_t sent_us = wait_now_us(), passed_us = sent_us - begun_us;
                uint64_t left_us = passed_us < wait_us ? wait_us - passed_us : 0;
                uint64_t last_us = sent_us + left_us + 2 * holder_times.ask_us;
                acquire_words(lock, options, left_us / 1000, &words);
                if (door_send(&lock->door, words.items, words.count, sent_us + holder_times.dial_us,
                              &answer))
                        answer_wait(&lock->door, last_us < end_us ? last_us : end_us, &answer);
                if (is_grant(&answer)) {
                        lock->token = answer.numbers[0];
                        (void)keeper_take(lock, sent_us, answer.numbers[1]);
                        return MERIDIAN_LOCK_OK;
                }
                if (answer.kind == ANSWER_NIL) {
                        say(why, why_size, "%s is held by somebody else", lock->key);
                        return MERIDIAN_LOCK_HELD;
                }
                say_answer(&lock->door, &answer, why, why_size);
                if (!worth_asking_again(&answer))
                        return MERIDIAN_LOCK_REFUSED;
                if (answer.kind != ANSWER_NONE)
                        door_next(&lock->door, &answer);
                if (wait_now_us() >= end_us)
                        return MERIDIAN_LOCK_UNREACHABLE;
                struct timespec pause = {.tv_nsec = (long)holder_times.pause_us * 1000};
                nanosleep(&pause, NULL);
        }
}

/* The lease began when the wait ended, and only its least is known: from the question. Where too
 * little is left by that, a renewal tells more. */
static bool confirmed(struct meridian_lock *lock)
{
        uint64_t end_us = wait_now_us() + holder_times.ask_us;
        for (size_t i = 0; i <= lock->door.node_count; i++) {
                struct answer answer = {.kind = ANSWER_NONE};
                uint64_t sent_us, now_us = wait_now_us();
                if (now_us + 2 * lock->margin_us < atomic_load(&lock->until_us))
                        return true;
                if (now_us >= end_us)
                        break;
                uint64_t last_us = now_us + (end_us - now_us) / 2;
                if (keeper_ask(lock, last_us, &sent_us, &answer))
                        door_wait(&lock->door, last_us, &answer);
                bool good = answer.kind == ANSWER_NUMBERS && answer.count == 1 &&
                            keeper_take(lock, sent_us, answer.numbers[0]);
                if (good)
                        break;
                if (answer.kind != ANSWER_NONE)
                        door_next(&lock->door, &answer);
        }
        return meridian_lock_sure(lock);
}

static void lock_free(struct meridian_lock *lock)
{
        if (lock->wake_fd >= 0)
                close(lock->wake_fd);
        door_close(&lock->door);
        free(lock);
}

/* REFUSED: a node's name is none. */
static enum meridian_lock_status lock_new(const struct meridian_lock_options *options,
                                          const char *key, uint64_t process,
                                          struct meridian_lock **ret_lock, char *why,
                                          size_t why_size)
{
        struct meridian_lock *lock = calloc(1, sizeof *lock);
        if (lock == NULL)
                return MERIDIAN_LOCK_NOMEM;
        snprintf(lock->key, sizeof lock->key, "%s", key);
        owner_make(lock->owner, options->owner);
        unsigned ttl_ms = options->ttl_ms == 0 ? TTL_MS_DEFAULT : options->ttl_ms;
        lock->ttl_us = (uint64_t)ttl_ms * 1000;
        lock->margin_us =
                options->margin_ms == 0 ? lock->ttl_us / 4 : (uint64_t)options->margin_ms * 1000;
        lock->process = process;
        lock->news = options->news;
        lock->context = options->context;
        lock->wake_fd = -1;
        enum meridian_lock_status status =
                door_open(&lock->door, options->nodes, options->node_count);
        if (status == MERIDIAN_LOCK_OK) {
                *ret_lock = lock;
                return status;
        }
        if (status == MERIDIAN_LOCK_REFUSED) {
                const char *name = options->nodes[lock->door.node_count];
                say(why, why_size, "'%s' is no node: HOST:PORT, [ADDRESS]:PORT",
                    name == NULL ? "" : name);
        }
        lock_free(lock);
        return status;
}

/* True when a node has said that it is not ours any more. */
static bool release_ask(struct meridian_lock *lock, uint64_t end_us)
{
        char token[24];
        bool sent = false;
        snprintf(token, sizeof token, "%llu", (unsigned long long)lock->token);
        const char *words[] = {"LOCK.RELEASE", lock->key, lock->owner, token};
        for (size_t i = 0; i <= lock->door.node_count && wait_now_us() < end_us; i++) {
                struct answer answer;
                uint64_t now_us = wait_now_us();
                door_ask(&lock->door, words, 4, now_us + (end_us - now_us) / 2, &answer);
                /* 0: not held; where an answer was lost before, that one may have done it. */
                if (answer.kind == ANSWER_NUMBERS && answer.count == 1 && answer.numbers[0] < 2)
                        return answer.numbers[0] == 1 || sent;
                sent = true;
                if (answer.kind != ANSWER_NONE)
                        door_next(&lock->door, &answer);
        }
        return false;
}

static bool options_good(const struct meridian_lock_options *options, const char *key)
{
        if (options == NULL || key == NULL || options->nodes == NULL)
                return false;
        unsigned ttl_ms = options->ttl_ms == 0 ? TTL_MS_DEFAULT : options->ttl_ms;
        return ttl_ms >= MERIDIAN_LOCK_TTL_MS_MIN && options->margin_ms < ttl_ms / 2 &&
               key[0] != '\0' && strlen(key) < KEY_SIZE && options->node_count > 0 &&
               options->node_count <= DOOR_NODES_MAX &&
               (options->owner == NULL || strlen(options->owner) < OWNER_SIZE);
}

EXPORT enum meridian_lock_status meridian_lock_acquire(const struct meridian_lock_options *options,
                                                       const char *key,
                                                       struct meridian_lock **ret_lock, char *why,
                                                       size_t why_size)
{
        struct meridian_lock *lock = NULL;
        if (ret_lock != NULL)
                *ret_lock = NULL;
        if (ret_lock == NULL || !options_good(options, key)) {
                say(why, why_size,
                    "a lock has a key of 1 to %d bytes, 1 to %d nodes, at least %d ms to live and "
                    "a margin of less than half of that",
                    KEY_SIZE - 1, DOOR_NODES_MAX, MERIDIAN_LOCK_TTL_MS_MIN);
                return MERIDIAN_LOCK_REFUSED;
        }
        say(why, why_size, "out of memory, descriptors or threads");
        uint64_t process = process_number();
        if (process == 0)
                return MERIDIAN_LOCK_NOMEM;
        enum meridian_lock_status status = lock_new(options, key, process, &lock, why, why_size);
        if (status != MERIDIAN_LOCK_OK)
                return status;
        status = acquire(lock, options, why, why_size);
        bool granted = status == MERIDIAN_LOCK_OK;
        if (granted && !confirmed(lock)) {
                say(why, why_size, "%s was granted, but its lease could not be renewed in time",
                    key);
                status = MERIDIAN_LOCK_UNREACHABLE;
        }
        if (status == MERIDIAN_LOCK_OK && !keeper_begin(lock)) {
                say(why, why_size, "out of memory, descriptors or threads");
                status = MERIDIAN_LOCK_NOMEM;
        }
        if (status == MERIDIAN_LOCK_OK) {
                *ret_lock = lock;
                say(why, why_size, "%s", "");
                return status;
        }
        if (granted)
                (void)release_ask(lock, wait_now_us() + holder_times.release_us);
        lock_free(lock);
        return status;
}

EXPORT bool meridian_lock_release(struct meridian_lock *lock)
{
        if (lock == NULL)
                return true;
        if (!is_ours(lock)) {
                lock_free(lock); /* the parent's: its descriptors are closed here only */
                return false;
        }
        if (pthread_equal(lock->thread, pthread_self()) != 0)
                return false; /* by its own news */
        keeper_end(lock);
        uint64_t end_us = wait_now_us() + holder_times.release_us;
        uint64_t until_us = atomic_load(&lock->until_us);
        bool released = release_ask(lock, until_us < end_us ? until_us : end_us);
        lock_free(lock);
        return released;
}
