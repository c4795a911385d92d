/* keeper.c - the thread that keeps a lock.
 *
 *   fresh --a quarter of the lease--> asking --answered--> fresh
 *                                       |
 *                                       `--margin before the end--> doubtful --answered--> fresh
 *                                                                      |
 *                            refused, or the end has come: lost <------'
 *
 * `until_us` is the only truth: it is moved forward by an answer, by the lease counted from when
 * the question was sent, and is 0 when the lock is lost. Nothing else makes a lock sure.
 *
 * What has to be told is told on time, whatever a node does meanwhile: every wait ends by then, and
 * the question stands. A node has an eighth of the lease to answer, or three times of what answers
 * take here; who is not patient enough for a long way becomes so by being disappointed. */
#include "holder/holder_priv.h"
#include "holder/wait.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PATIENCE_US_MAX 2000000ULL
#define ASK_AGAIN_US    100000ULL

static uint64_t least(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* ---- answers ---- */

bool keeper_take(struct meridian_lock *lock, uint64_t sent_us, uint64_t lease_ms)
{
        uint64_t lease_us =
                lease_ms < lock->ttl_us / 1000 ? lease_ms * 1000 : lock->ttl_us; /* it is capped */
        uint64_t now_us = wait_now_us(), end_us = sent_us + lease_us - lease_us / 20;
        uint64_t took_us = now_us > sent_us ? now_us - sent_us : 0;
        if (sent_us > now_us || end_us <= atomic_load(&lock->until_us))
                return false;
        atomic_store(&lock->until_us, end_us);
        lock->due_us = sent_us + lease_us / 4;
        lock->patience_us = least(lock->ttl_us / 8, PATIENCE_US_MAX);
        if (lock->patience_us < 3 * took_us)
                lock->patience_us = least(3 * took_us, lock->ttl_us / 2);
        return true;
}

bool keeper_ask(struct meridian_lock *lock, uint64_t until_us, uint64_t *ret_sent_us,
                struct answer *ret)
{
        char token[24], ttl[24];
        snprintf(token, sizeof token, "%llu", (unsigned long long)lock->token);
        snprintf(ttl, sizeof ttl, "%llu", (unsigned long long)(lock->ttl_us / 1000));
        const char *words[] = {"LOCK.RENEW", lock->key, lock->owner, token, ttl};
        *ret_sent_us = wait_now_us();
        return door_send(&lock->door, words, 5, until_us, ret);
}

/* ---- news ---- */

static void tell(struct meridian_lock *lock, enum meridian_lock_news news)
{
        if (lock->news != NULL)
                lock->news(lock->context, news);
}

static bool lose(struct meridian_lock *lock)
{
        atomic_store(&lock->until_us, 0);
        tell(lock, MERIDIAN_LOCK_LOST);
        return false;
}

/* When something has to be told, if nothing comes before. */
static uint64_t news_due_us(const struct meridian_lock *lock)
{
        uint64_t until_us = atomic_load(&lock->until_us);
        return lock->doubtful || until_us < lock->margin_us ? until_us : until_us - lock->margin_us;
}

/* Tells what has to be told by now; false: it is lost. */
static bool look(struct meridian_lock *lock)
{
        uint64_t now_us = wait_now_us();
        if (now_us >= atomic_load(&lock->until_us))
                return lose(lock);
        bool near = atomic_load(&lock->until_us) - now_us <= lock->margin_us;
        if (near != lock->doubtful) {
                lock->doubtful = near;
                tell(lock, near ? MERIDIAN_LOCK_DOUBTFUL : MERIDIAN_LOCK_RENEWED);
        }
        return true;
}

/* ---- keeping ---- */

/* Waits; true: the keeper is to end. */
static bool rest(struct meridian_lock *lock, uint64_t until_us)
{
        /* At least a look, so that no keeper is too busy to be ended. */
        struct pollfd item = {.fd = lock->wake_fd, .events = POLLIN};
        return poll(&item, 1, 0) > 0 || wait_for(lock->wake_fd, POLLIN, -1, until_us);
}

/* Another node, after a pause. */
static void ask_again(struct meridian_lock *lock, struct answer *answer)
{
        if (answer->kind != ANSWER_NONE)
                door_next(&lock->door, answer);
        lock->due_us = wait_now_us() + least(lock->ttl_us / 20, ASK_AGAIN_US);
}

/* Waits for the answer, and tells what has to be told meanwhile. WAITING: the node's time is up, or
 * the keeper is to end. False: the lock is lost. */
static bool answer_wait(struct meridian_lock *lock, uint64_t last_us, struct answer *ret)
{
        for (;;) {
                door_wait(&lock->door, least(last_us, news_due_us(lock)), ret);
                if (ret->kind != ANSWER_WAITING)
                        return true;
                if (!look(lock))
                        return false;
                if (wait_now_us() >= last_us || rest(lock, 0))
                        return true;
        }
}

/* One question to one node. False: the lock is lost. */
static bool renew(struct meridian_lock *lock)
{
        struct answer answer;
        uint64_t sent_us, last_us = wait_now_us() + lock->patience_us;
        if (keeper_ask(lock, least(last_us, news_due_us(lock)), &sent_us, &answer) &&
            !answer_wait(lock, last_us, &answer))
                return false;
        if (answer.kind == ANSWER_ERROR && strncmp(answer.text, "NOTOWNER", 8) == 0)
                return lose(lock);
        if (answer.kind == ANSWER_WAITING && rest(lock, 0))
                return true;
        if (answer.kind == ANSWER_WAITING)
                lock->patience_us = least(2 * lock->patience_us, lock->ttl_us / 2);
        if (answer.kind != ANSWER_NUMBERS || answer.count != 1 ||
            !keeper_take(lock, sent_us, answer.numbers[0]))
                ask_again(lock, &answer);
        return look(lock);
}

static void *keep(void *argument)
{
        struct meridian_lock *lock = argument;
        while (!rest(lock, least(lock->due_us, news_due_us(lock)))) {
                if (!look(lock))
                        break;
                if (wait_now_us() >= lock->due_us && !renew(lock))
                        break;
        }
        return NULL;
}

/* The program's signals are not for this thread. */
bool keeper_begin(struct meridian_lock *lock)
{
        sigset_t all, before;
        lock->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (lock->wake_fd < 0)
                return false;
        lock->door.wake_fd = lock->wake_fd;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        bool begun = pthread_create(&lock->thread, NULL, keep, lock) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!begun)
                lock->door.wake_fd = -1;
        return begun;
}

void keeper_end(struct meridian_lock *lock)
{
        uint64_t one = 1;
        (void)!write(lock->wake_fd, &one, sizeof one);
        pthread_join(lock->thread, NULL);
        lock->door.wake_fd = -1;
}
