/* lab_process.c - starting, finding and ending what runs in the lab.
 *
 * Every process gets a session of its own and writes its pid and its start time (field 22 of
 * /proc/PID/stat) to `.lab/<region>/run/<part>.pid` before it becomes the server. A pid alone may
 * since belong to a stranger; pid and start time together never do. What a dead leader left behind
 * (nginx's workers, after kill -9 of the master) is found by its session, in which no stranger can
 * be, and by its program. */
#include "lab/lab_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct part_row {
        const char *name;
        const char *program;
};

static const struct part_row part_rows[LAB_PARTS] = {
        [LAB_REDIS] = {"redis", "redis-server"},
        [LAB_BACKEND_1] = {"backend-1", "meridian"},
        [LAB_BACKEND_2] = {"backend-2", "meridian"},
        [LAB_MERIDIAND] = {"meridiand", "meridiand"},
        [LAB_KNOT] = {"knot", "knotd"},
        [LAB_NGINX] = {"nginx", "nginx"},
        [LAB_NODE_2] = {"meridiand-2", "meridiand"},
        [LAB_NODE_3] = {"meridiand-3", "meridiand"},
};

const char *lab_part_name(enum lab_part part)
{
        return part_rows[part].name;
}

const char *lab_part_program(enum lab_part part)
{
        return part_rows[part].program;
}

/* What /proc says about a process. */
struct proc {
        pid_t pid;
        char state;
        pid_t session;
        uint64_t start;
};

static bool proc_read(pid_t pid, struct proc *ret)
{
        char path[64];
        char text[1024];
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        ssize_t len = read(fd, text, sizeof text - 1);
        close(fd);
        if (len <= 0)
                return false;
        text[len] = '\0';
        /* The name in brackets may hold anything: fields are counted from the last bracket. */
        const char *at = strrchr(text, ')');
        int session = 0;
        unsigned long long start = 0;
        char state = 0;
        if (at == NULL ||
            sscanf(at + 1,
                   " %c %*d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                   "%llu",
                   &state, &session, &start) != 3)
                return false;
        *ret = (struct proc){.pid = pid, .state = state, .session = session, .start = start};
        return true;
}

static bool proc_dead(const struct proc *proc)
{
        return proc->state == 'Z' || proc->state == 'X';
}

static bool pid_path(char *path, const struct lab *lab, const struct lab_region *region,
                     enum lab_part part)
{
        return lab_path(path, "%s/%s/run/%s.pid", lab->dir, region->name, lab_part_name(part));
}

static bool log_path(char *path, const struct lab *lab, const struct lab_region *region,
                     enum lab_part part)
{
        return lab_path(path, "%s/%s/log/%s.log", lab->dir, region->name, lab_part_name(part));
}

/* What was written down about a part; false where nothing was. */
static bool pid_load(const struct lab *lab, const struct lab_region *region, enum lab_part part,
                     struct proc *ret)
{
        char path[LAB_PATH_MAX];
        if (!pid_path(path, lab, region, part))
                return false;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return false;
        int pid = 0;
        unsigned long long start = 0;
        bool whole = fscanf(file, "%d %llu", &pid, &start) == 2 && pid > 1;
        fclose(file);
        *ret = (struct proc){.pid = pid, .start = start};
        return whole;
}

pid_t lab_process_pid(const struct lab *lab, const struct lab_region *region, enum lab_part part)
{
        struct proc noted;
        struct proc now;
        if (!pid_load(lab, region, part, &noted) || !proc_read(noted.pid, &now))
                return 0;
        return now.start == noted.start && !proc_dead(&now) ? noted.pid : 0;
}

/* Is `pid` running the program of a part. */
static bool proc_runs(pid_t pid, enum lab_part part)
{
        char path[64];
        char target[LAB_PATH_MAX];
        snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len <= 0)
                return false;
        target[len] = '\0';
        const char *name = strrchr(target, '/');
        name = name == NULL ? target : name + 1;
        size_t want = strlen(lab_part_program(part));
        /* A program that was replaced while it runs reads "... (deleted)"; redis-server may be a
         * link to redis-check-rdb. */
        return strncmp(name, lab_part_program(part), want) == 0 ||
               (part == LAB_REDIS && strncmp(name, "redis-", 6) == 0);
}

/* Signals every process of the session `noted.pid` that is ours. */
static int session_signal(const struct proc *noted, enum lab_part part, bool leader, int signal)
{
        int count = 0;
        DIR *dir = opendir("/proc");
        if (dir == NULL)
                return 0;
        for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
                if (!isdigit((unsigned char)entry->d_name[0]))
                        continue;
                struct proc proc;
                if (!proc_read((pid_t)strtol(entry->d_name, NULL, 10), &proc) || proc_dead(&proc))
                        continue;
                if (proc.session != noted->pid || proc.start < noted->start)
                        continue;
                bool is_leader = proc.pid == noted->pid;
                if (is_leader && (!leader || proc.start != noted->start))
                        continue;
                if (!is_leader && !proc_runs(proc.pid, part))
                        continue;
                if (signal == 0 || kill(proc.pid, signal) == 0)
                        count++;
        }
        closedir(dir);
        return count;
}

int lab_process_signal(const struct lab *lab, const struct lab_region *region, enum lab_part part,
                       int signal)
{
        struct proc noted;
        if (!pid_load(lab, region, part, &noted))
                return 0;
        /* SIGTERM is for the leader alone, who ends its own children in order. */
        if (signal == SIGTERM && lab_process_pid(lab, region, part) != 0)
                return kill(noted.pid, SIGTERM) == 0 ? 1 : 0;
        return session_signal(&noted, part, true, signal);
}

bool lab_process_alive(const struct lab *lab, const struct lab_region *region, enum lab_part part)
{
        return lab_process_pid(lab, region, part) != 0;
}

#define ARGS_MAX 16

/* The command line of a part; strings live in `store`. */
struct command {
        char store[ARGS_MAX][LAB_PATH_MAX];
        char *argv[ARGS_MAX + 1];
        size_t count;
};

static bool argument(struct command *command, const char *text)
{
        if (command->count == ARGS_MAX || !lab_path(command->store[command->count], "%s", text))
                return false;
        command->argv[command->count] = command->store[command->count];
        command->argv[++command->count] = NULL;
        return true;
}

static bool argument_file(struct command *command, const struct lab *lab,
                          const struct lab_region *region, const char *file)
{
        char path[LAB_PATH_MAX];
        return lab_path(path, "%s/%s/%s", lab->dir, region->name, file) && argument(command, path);
}

static bool arguments_backend(struct command *command, const struct lab_region *region,
                              enum lab_part part)
{
        char listen[64];
        char name[32];
        int number = part == LAB_BACKEND_1 ? 1 : 2;
        snprintf(listen, sizeof listen, "%s:%d", region->address, LAB_PORT_BACKEND + number - 1);
        snprintf(name, sizeof name, "%s-%d", region->name, number);
        return argument(command, "lab") && argument(command, "backend") &&
               argument(command, "--listen") && argument(command, listen) &&
               argument(command, "--region") && argument(command, region->name) &&
               argument(command, "--name") && argument(command, name);
}

static bool arguments(struct command *command, const struct lab *lab,
                      const struct lab_region *region, enum lab_part part)
{
        if (!argument(command, lab->programs[part]))
                return false;
        switch (part) {
        case LAB_REDIS:
                return argument_file(command, lab, region, "redis.conf");
        case LAB_BACKEND_1:
        case LAB_BACKEND_2:
                return arguments_backend(command, region, part);
        case LAB_MERIDIAND:
        case LAB_KNOT:
                return argument(command, "-c") &&
                       argument_file(command, lab, region,
                                     part == LAB_KNOT ? "knot.conf" : "meridiand.conf");
        case LAB_NODE_2:
        case LAB_NODE_3:
                return argument(command, "-c") &&
                       argument_file(command, lab, region,
                                     part == LAB_NODE_2 ? "meridiand-2.conf" : "meridiand-3.conf");
        case LAB_NGINX:
                return argument(command, "-p") && argument_file(command, lab, region, "") &&
                       argument(command, "-e") &&
                       argument_file(command, lab, region, "log/nginx.log") &&
                       argument(command, "-c") && argument_file(command, lab, region, "nginx.conf");
        case LAB_PARTS:
                break;
        }
        return false;
}

/* In the child: a session, a log, a pid file, then the server. Returns only on failure; errno. */
static void child(const struct command *command, const char *dir, const char *log,
                  const char *pid_file)
{
        struct proc self;
        char line[64];
        if (setsid() < 0 || chdir(dir) != 0)
                return;
        int null = open("/dev/null", O_RDONLY);
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (null < 0 || out < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
                return;
        if (!proc_read(getpid(), &self))
                return;
        int len = snprintf(line, sizeof line, "%d %llu\n", (int)self.pid,
                           (unsigned long long)self.start);
        int fd = open(pid_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, line, (size_t)len) != len)
                return;
        for (int other = 3; other < 64; other++)
                (void)fcntl(other, F_SETFD, FD_CLOEXEC);
        execv(command->argv[0], command->argv);
}

/* Returns errno of a start that failed, or 0. */
static int spawn(const struct command *command, const char *dir, const char *log,
                 const char *pid_file)
{
        int report[2];
        if (pipe2(report, O_CLOEXEC) != 0)
                return errno;
        pid_t pid = fork();
        if (pid == 0) {
                child(command, dir, log, pid_file);
                int number = errno;
                ssize_t written = write(report[1], &number, sizeof number);
                (void)written;
                _exit(127);
        }
        int number = pid < 0 ? errno : 0;
        close(report[1]);
        /* Nothing to read means that the pipe was closed by a successful exec. */
        if (pid > 0 && read(report[0], &number, sizeof number) != (ssize_t)sizeof number)
                number = 0;
        close(report[0]);
        if (pid > 0 && number != 0)
                waitpid(pid, NULL, 0);
        return number;
}

bool lab_process_start(const struct lab *lab, const struct lab_region *region, enum lab_part part)
{
        static struct command command;
        char dir[LAB_PATH_MAX];
        char log[LAB_PATH_MAX];
        char pid_file[LAB_PATH_MAX];
        command.count = 0;
        if (!arguments(&command, lab, region, part) || !pid_path(pid_file, lab, region, part) ||
            !log_path(log, lab, region, part) || !lab_path(dir, "%s/%s", lab->dir, region->name))
                return false;
        int number = spawn(&command, dir, log, pid_file);
        if (number != 0)
                return lab_error("%s of %s cannot be started: %s: %s", lab_part_name(part),
                                 region->name, lab->programs[part], strerror(number));
        return true;
}

void lab_process_log_show(const struct lab *lab, const struct lab_region *region,
                          enum lab_part part)
{
        enum {
                TAIL = 1500
        };
        char path[LAB_PATH_MAX];
        char text[TAIL + 1];
        if (!log_path(path, lab, region, part))
                return;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return;
        if (fseek(file, -TAIL, SEEK_END) != 0)
                rewind(file);
        size_t len = fread(text, 1, TAIL, file);
        fclose(file);
        text[len] = '\0';
        const char *begin = len == TAIL ? strchr(text, '\n') : NULL;
        fprintf(stderr, "--- the end of %s\n%s\n---\n", path, begin == NULL ? text : begin + 1);
}
