/* lock_run.c - `meridian lock run KEY [options] -- COMMAND`: a command under a lock.
 *
 *   got --> running --the command ends--> released: its status
 *              |
 *              `--doubtful: TERM--> ending --the command ends, or the lock is renewed too late-->
 *              76
 *                                     `--half of what is left has passed: KILL
 *
 * A command whose lock is in doubt is ended while the lock is still sure. What this program cannot
 * do for it: when both are stopped (by a signal, or by the machine) the command goes on for a
 * moment when they are let go. So the command finds its token in MERIDIAN_LOCK_TOKEN, for the
 * resource. */
#include "holder/meridian_lock.h"
#include "meridian/cli.h"
#include "meridian/lock_options.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
        STATUS_HELD = 75, /* EX_TEMPFAIL */
        STATUS_ENDED = 76,
        STATUS_NO_COMMAND = 127,
        STATUS_SIGNAL = 128,
        LOOK_MS = 5,
};

static _Atomic bool doubtful;
static volatile sig_atomic_t passed_on; /* a signal for the command */

static void on_news(void *context, enum meridian_lock_news news)
{
        (void)context;
        atomic_store(&doubtful, news != MERIDIAN_LOCK_RENEWED);
}

static void on_signal(int number)
{
        passed_on = number;
}

static pid_t start(char **argv, uint64_t token)
{
        char text[32];
        snprintf(text, sizeof text, "%llu", (unsigned long long)token);
        pid_t parent = getpid();
        pid_t child = fork();
        if (child != 0)
                return child;
        (void)setenv("MERIDIAN_LOCK_TOKEN", text, 1);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
                (void)execvp(argv[0], argv);
        fprintf(stderr, "meridian: cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(STATUS_NO_COMMAND);
}

static int status_of(int status)
{
        return WIFSIGNALED(status) ? STATUS_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Waits for the end of the command, and ends it where the lock is in doubt. */
static int attend(struct meridian_lock *lock, pid_t child)
{
        unsigned kill_at_ms = 0; /* what is left of the lock then; 0: not told to end yet */
        int status = 0;
        for (;;) {
                struct timespec pause = {.tv_nsec = (long)LOOK_MS * 1000000};
                pid_t ended = waitpid(child, &status, WNOHANG);
                if (ended == child)
                        return kill_at_ms != 0 ? STATUS_ENDED : status_of(status);
                if (ended < 0 && errno != EINTR)
                        return cli_error("the command is gone: %s", strerror(errno));
                if (passed_on != 0) {
                        (void)kill(child, passed_on);
                        passed_on = 0;
                }
                unsigned left_ms = meridian_lock_left_ms(lock);
                if (kill_at_ms == 0 && (atomic_load(&doubtful) || left_ms == 0)) {
                        cli_error("the lock is in doubt: the command is ended");
                        kill_at_ms = left_ms / 2 + 1;
                        (void)kill(child, SIGTERM);
                }
                if (kill_at_ms != 0 && left_ms < kill_at_ms)
                        (void)kill(child, SIGKILL);
                (void)nanosleep(&pause, NULL);
        }
}

static int run(struct meridian_lock *lock, char **argv)
{
        struct sigaction action = {.sa_handler = on_signal};
        static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
        for (size_t i = 0; i < COUNT_OF(numbers); i++)
                (void)sigaction(numbers[i], &action, NULL);
        pid_t child = start(argv, meridian_lock_token(lock));
        if (child < 0)
                return cli_error("cannot start a process: %s", strerror(errno));
        return attend(lock, child);
}

int cli_lock_run(const struct cli *cli, int argc, char **argv)
{
        struct lock_options wishes = {0};
        char doors[CLI_NODES_MAX][96], why[256] = "";
        const char *nodes[CLI_NODES_MAX];
        int at = 1;
        bool good = argc > 1 && lock_options_read(&wishes, argc, argv, &at) && at + 1 < argc &&
                    strcmp(argv[at], "--") == 0;
        if (!good) {
                cli_error("usage: meridian lock run KEY [--lease TIME] [--wait TIME] "
                          "[--owner NAME] [--shared | --slots N] [--delay TIME] -- COMMAND "
                          "[ARGUMENT]...");
                return CLI_USAGE;
        }
        for (size_t i = 0; i < cli->node_count; i++) {
                snprintf(doors[i], sizeof doors[i], "%s:%u", cli->nodes[i].host,
                         cli->nodes[i].lock_port);
                nodes[i] = doors[i];
        }
        if (cli->node_count == 0)
                return cli_nodes_unnamed();
        struct meridian_lock_options options = {.nodes = nodes,
                                                .node_count = cli->node_count,
                                                .owner = wishes.owner,
                                                .ttl_ms = (unsigned)wishes.lease_ms,
                                                .wait_ms = (unsigned)wishes.wait_ms,
                                                .slots = (unsigned)wishes.slots,
                                                .shared = wishes.shared,
                                                .delay_ms = (unsigned)wishes.delay_ms,
                                                .news = on_news};
        struct meridian_lock *lock = NULL;
        enum meridian_lock_status status =
                meridian_lock_acquire(&options, argv[0], &lock, why, sizeof why);
        if (status != MERIDIAN_LOCK_OK) {
                cli_error("%s", why);
                return status == MERIDIAN_LOCK_REFUSED ? CLI_USAGE : STATUS_HELD;
        }
        int ended = run(lock, argv + at + 1);
        (void)meridian_lock_release(lock);
        return ended;
}
