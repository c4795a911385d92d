/* child.c - runs a program as the server's user and waits for it, looking at the server as often
 * as is due meanwhile. A program that is to end gets SIGTERM and, two seconds later, SIGKILL, with
 * all that it started. What an older daemon left is known by its folder. */
#include "warden/warden_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

#define ARGUMENTS_MAX 40
#define END_MS        2000
#define SLICE_MS      20

static char *const environment[] = {(char[]){"LC_ALL=C"}, (char[]){"TZ=UTC"},
                                    (char[]){"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, NULL};

/* A run of a program. */
struct child {
        pid_t pid;
        int out;
        int err;
};

/* Keeps the end of what comes. */
static void tail_add(char *text, size_t size, size_t *len, const char *data, size_t data_len)
{
        if (data_len > size - 1) {
                data += data_len - (size - 1);
                data_len = size - 1;
        }
        if (*len + data_len > size - 1) {
                size_t drop = *len + data_len - (size - 1);
                memmove(text, text + drop, *len - drop);
                *len -= drop;
        }
        memcpy(text + *len, data, data_len);
        *len += data_len;
        text[*len] = '\0';
}

/* False at the end of the stream. */
static bool drain(int fd, char *text, size_t size, size_t *len)
{
        char part[4096];
        for (;;) {
                ssize_t got = read(fd, part, sizeof part);
                if (got > 0)
                        tail_add(text, size, len, part, (size_t)got);
                else if (got == 0)
                        return false;
                else if (errno != EINTR)
                        return errno == EAGAIN;
        }
}

static int actions_fill(posix_spawn_file_actions_t *actions, const struct warden *warden,
                        const int out[2], const int err[2])
{
        int number = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
        if (number == 0)
                number = posix_spawn_file_actions_adddup2(actions, out[1], 1);
        if (number == 0)
                number = posix_spawn_file_actions_adddup2(actions, err[1], 2);
        if (number == 0)
                number = posix_spawn_file_actions_addchdir_np(actions, warden->config.home);
        return number;
}

static int spawn(const struct warden *warden, char *const *argv, const int out[2], const int err[2],
                 pid_t *ret_pid)
{
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t all, none;
        sigfillset(&all);
        sigemptyset(&none);
        if (posix_spawn_file_actions_init(&actions) != 0)
                return ENOMEM;
        if (posix_spawnattr_init(&attributes) != 0) {
                posix_spawn_file_actions_destroy(&actions);
                return ENOMEM;
        }
        int number = actions_fill(&actions, warden, out, err);
        if (number == 0)
                number = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP |
                                                                       POSIX_SPAWN_SETSIGMASK |
                                                                       POSIX_SPAWN_SETSIGDEF);
        if (number == 0)
                number = posix_spawnattr_setsigdefault(&attributes, &all);
        if (number == 0)
                number = posix_spawnattr_setsigmask(&attributes, &none);
        if (number == 0)
                number = posix_spawn(ret_pid, argv[0], &actions, &attributes, argv, environment);
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return number;
}

static int child_begin(const struct warden *warden, char *const *argv, struct child *ret)
{
        int out[2], err[2];
        if (pipe2(out, O_CLOEXEC | O_NONBLOCK) != 0)
                return errno;
        if (pipe2(err, O_CLOEXEC | O_NONBLOCK) != 0) {
                int number = errno;
                close(out[0]);
                close(out[1]);
                return number;
        }
        /* The program's own ends block. */
        (void)fcntl(out[1], F_SETFL, 0);
        (void)fcntl(err[1], F_SETFL, 0);
        int number = spawn(warden, argv, out, err, &ret->pid);
        close(out[1]);
        close(err[1]);
        ret->out = out[0];
        ret->err = err[0];
        if (number != 0) {
                close(out[0]);
                close(err[0]);
        }
        return number;
}

static void child_wait(struct warden *warden, const struct child *child, struct child_text *text)
{
        bool out = true, err = true;
        int status = 0;
        uint64_t ending_us = 0;
        for (;;) {
                struct pollfd fds[2] = {{out ? child->out : -1, POLLIN, 0},
                                        {err ? child->err : -1, POLLIN, 0}};
                (void)poll(fds, 2, SLICE_MS);
                out = out && drain(child->out, text->out, sizeof text->out, &text->out_len);
                err = err && drain(child->err, text->err, sizeof text->err, &text->err_len);
                if (waitpid(child->pid, &status, WNOHANG) == child->pid)
                        break;
                uint64_t now_us = gate_now_us();
                if (!warden_pause(warden, 0) && ending_us == 0) {
                        ending_us = now_us;
                        (void)kill(-child->pid, SIGTERM);
                } else if (ending_us != 0 && now_us > ending_us + 1000ull * END_MS) {
                        (void)kill(-child->pid, SIGKILL);
                }
        }
        /* What it started may hold the other ends for longer. */
        if (out)
                (void)drain(child->out, text->out, sizeof text->out, &text->out_len);
        if (err)
                (void)drain(child->err, text->err, sizeof text->err, &text->err_len);
        text->status = WIFEXITED(status) && ending_us == 0 ? WEXITSTATUS(status) : -1;
}

/* The command line: by setpriv where the daemon is root. */
static bool command_line(const struct warden *warden, const char *program,
                         const char *const *arguments, char path[static WARDEN_PATH_SIZE],
                         const char *argv[static ARGUMENTS_MAX])
{
        size_t count = 0;
        if (program[0] == '/' ? !path_set(path, "%s", program)
                              : !path_set(path, "%s/%s", warden->config.bin, program))
                return false;
        if (geteuid() == 0) {
                argv[count++] = "/usr/bin/setpriv";
                argv[count++] = "--reuid";
                argv[count++] = warden->uid_text;
                argv[count++] = "--regid";
                argv[count++] = warden->gid_text;
                argv[count++] = "--init-groups";
                argv[count++] = "--";
        }
        argv[count++] = path;
        while (*arguments != NULL && count + 1 < ARGUMENTS_MAX)
                argv[count++] = *arguments++;
        CHECK(*arguments == NULL);
        argv[count] = NULL;
        return true;
}

/* The last lines of its stderr, in one. */
static bool child_fails(const char *program, const struct child_text *text, struct fail *fail)
{
        char why[CHILD_ERR_SIZE];
        const char *name = strrchr(program, '/');
        size_t begin = text->err_len > 240 ? text->err_len - 240 : 0;
        size_t len = 0;
        for (size_t i = begin; i < text->err_len; i++)
                why[len++] = text->err[i] == '\n' || text->err[i] == '\t' ? ' ' : text->err[i];
        while (len > 0 && why[len - 1] == ' ')
                len--;
        why[len] = '\0';
        name = name == NULL ? program : name + 1;
        if (text->status < 0)
                return fail_set(fail, "%s was ended%s%s", name, len > 0 ? ": " : "", why);
        return fail_set(fail, "%s ended with status %d%s%s", name, text->status,
                        len > 0 ? ": " : "", why);
}

bool child_run(struct warden *warden, const char *program, const char *const *arguments,
               struct child_text *ret_text, struct fail *fail)
{
        static const char *const none[] = {NULL};
        const char *argv[ARGUMENTS_MAX];
        char *mutable[ARGUMENTS_MAX];
        char path[WARDEN_PATH_SIZE], why[96];
        struct child child = {.out = -1, .err = -1};
        *ret_text = (struct child_text){0};
        if (!command_line(warden, program, arguments == NULL ? none : arguments, path, argv))
                return fail_set(fail, "%s: the path is too long", program);
        memcpy(mutable, argv, sizeof mutable);
        int number = child_begin(warden, mutable, &child);
        if (number != 0)
                return fail_set(fail, "%s cannot be started: %s", path,
                                strerror_r(number, why, sizeof why));
        child_wait(warden, &child, ret_text);
        close(child.out);
        close(child.err);
        return ret_text->status == 0 || child_fails(program, ret_text, fail);
}

unsigned child_signal_in(const char *folder, int signal)
{
        char path[64 + sizeof((struct dirent *)0)->d_name], target[WARDEN_PATH_SIZE];
        unsigned count = 0;
        DIR *dir = opendir("/proc");
        if (dir == NULL)
                return 0;
        for (struct dirent *entry = dir_next(dir); entry != NULL; entry = dir_next(dir)) {
                char *end = NULL;
                long pid = strtol(entry->d_name, &end, 10);
                if (pid <= 1 || *end != '\0' || pid == getpid())
                        continue;
                (void)snprintf(path, sizeof path, "/proc/%s/cwd", entry->d_name);
                ssize_t len = readlink(path, target, sizeof target - 1);
                if (len <= 0)
                        continue;
                target[len] = '\0';
                if (strcmp(target, folder) == 0)
                        count += kill((pid_t)pid, signal) == 0;
        }
        closedir(dir);
        return count;
}

void child_orphans_end(struct warden *warden)
{
        char real[PATH_MAX];
        if (realpath(warden->config.home, real) != NULL)
                (void)child_signal_in(real, SIGKILL);
}
