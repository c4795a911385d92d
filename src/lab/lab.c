/* lab.c - the commands of the lab. Each holds `.lab/lock` while it changes something, so that two
 * at once do not mix; each leaves the lab as it found it, or as it was asked to be, or says what is
 * in between and how to get out of it (`lab down` always ends everything). */
#include "lab/lab.h"

#include "lab/lab_priv.h"
#include "term/term.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UP_TIMEOUT_MS    60000
#define START_TIMEOUT_MS 60000
#define STOP_TIMEOUT_MS  8000
#define STAYS_MS         300
#define DISK_BYTES_MIN   (200ull * 1024 * 1024)

const struct lab_region lab_regions[LAB_REGIONS] = {
        {"us-east", "us", "127.10.0.1", "Ashburn, Virginia", 39.04, -77.49},
        {"eu-west", "eu", "127.20.0.1", "Dublin", 53.35, -6.26},
        {"ap-southeast", "ap", "127.30.0.1", "Singapore", 1.35, 103.82},
};

/* ---- small things ---- */

bool lab_error(const char *format, ...)
{
        va_list args;
        lab_waited();
        fputs("meridian: ", stderr);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        return false;
}

void lab_step(const char *what, const char *format, ...)
{
        va_list args;
        lab_waited();
        printf("  %s%s%s ", term_style(TERM_GOOD), term_symbol(TERM_OK), term_style(TERM_PLAIN));
        term_cell(TERM_PLAIN, what, 14);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
        fflush(stdout);
}

static char waiting_for[600];

void lab_waiting(const char *format, ...)
{
        char text[sizeof waiting_for];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (strcmp(text, waiting_for) == 0)
                return;
        memcpy(waiting_for, text, sizeof text);
        if (term_is_tty())
                printf("\r\033[K  %s%s%s waiting        %.100s", term_style(TERM_WARN),
                       term_symbol(TERM_WAIT), term_style(TERM_PLAIN), text);
        else
                printf("  %s waiting        %s\n", term_symbol(TERM_WAIT), text);
        fflush(stdout);
}

void lab_waited(void)
{
        if (waiting_for[0] != '\0' && term_is_tty()) {
                fputs("\r\033[K", stdout);
                fflush(stdout);
        }
        waiting_for[0] = '\0';
}

bool lab_path(char *path, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        int len = vsnprintf(path, LAB_PATH_MAX, format, args);
        va_end(args);
        if (len >= 0 && len < LAB_PATH_MAX)
                return true;
        return lab_error("a path is longer than %d bytes: use a folder nearer to the root",
                         LAB_PATH_MAX);
}

uint64_t lab_now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void lab_sleep_ms(unsigned ms)
{
        struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
        nanosleep(&time, NULL);
}

const struct lab_region *lab_region_find(const char *name)
{
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (strcmp(lab_regions[i].name, name) == 0)
                        return &lab_regions[i];
        }
        lab_error("no region is called \"%s\": the lab has us-east, eu-west and ap-southeast",
                  name);
        return NULL;
}

static int usage(const char *command)
{
        lab_error("usage: meridian lab %s", command);
        return 2;
}

static size_t region_index(const struct lab_region *region)
{
        return (size_t)(region - lab_regions);
}

/* ---- where things are ---- */

static void path_parent(char *path)
{
        char *slash = strrchr(path, '/');
        if (slash != NULL && slash != path)
                *slash = '\0';
}

static bool self_find(char *path)
{
        ssize_t len = readlink("/proc/self/exe", path, LAB_PATH_MAX - 1);
        if (len <= 0)
                return lab_error("/proc/self/exe: %s: is /proc mounted?", strerror(errno));
        path[len] = '\0';
        return true;
}

/* The checkout of this executable: above build/, beside the Makefile. */
static bool root_find(const char *self, char *root)
{
        char mark[LAB_PATH_MAX];
        if (!lab_path(root, "%s", self))
                return false;
        path_parent(root);
        path_parent(root);
        if (!lab_path(mark, "%s/Makefile", root))
                return false;
        if (access(mark, F_OK) == 0)
                return true;
        return lab_error("%s does not lie in a checkout of Meridian (no %s): the lab runs from "
                         "build/meridian of one",
                         self, mark);
}

bool lab_find(char *path, size_t size)
{
        char at[LAB_PATH_MAX];
        char self[LAB_PATH_MAX];
        const char *named = getenv("MERIDIAN_LAB");
        if (named != NULL && named[0] != '\0') {
                int len = snprintf(path, size, "%s", named);
                return (size_t)len < size && access(path, F_OK) == 0;
        }
        if (getcwd(at, sizeof at) == NULL)
                at[0] = '\0';
        while (at[0] != '\0') {
                int len = snprintf(path, size, "%s/.lab", strcmp(at, "/") == 0 ? "" : at);
                if (len > 0 && (size_t)len < size && access(path, F_OK) == 0)
                        return true;
                if (strcmp(at, "/") == 0)
                        break;
                char *slash = strrchr(at, '/');
                slash[slash == at ? 1 : 0] = '\0';
        }
        ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
        if (len <= 0)
                return false;
        self[len] = '\0';
        path_parent(self);
        path_parent(self);
        int written = snprintf(path, size, "%s/.lab", self);
        return written > 0 && (size_t)written < size && access(path, F_OK) == 0;
}

static bool lab_open(struct lab *lab)
{
        const char *named = getenv("MERIDIAN_LAB");
        *lab = (struct lab){0};
        if (!self_find(lab->self) || !root_find(lab->self, lab->root))
                return false;
        if (named == NULL || named[0] == '\0')
                return lab_path(lab->dir, "%s/.lab", lab->root) && lab_nodes_load(lab);
        if (named[0] != '/')
                return lab_error("MERIDIAN_LAB is \"%s\": write a whole path", named);
        return lab_path(lab->dir, "%s", named) && lab_nodes_load(lab);
}

/* Ordinary users' PATH often lacks the folders of system programs. */
static bool program_find(const char *name, char *path)
{
        static const char more[] = ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin";
        const char *search = getenv("PATH");
        char list[8192];
        snprintf(list, sizeof list, "%s%s", search == NULL ? "" : search, more);
        char *rest = NULL;
        for (char *dir = strtok_r(list, ":", &rest); dir != NULL;
             dir = strtok_r(NULL, ":", &rest)) {
                int len = snprintf(path, LAB_PATH_MAX, "%s/%s", dir, name);
                if (len < LAB_PATH_MAX && access(path, X_OK) == 0)
                        return true;
        }
        return false;
}

static bool built_find(char *path, const char *build, const char *file)
{
        if (!lab_path(path, "%s/%s", build, file))
                return false;
        return access(path, R_OK) == 0 || lab_error("%s is missing: run `make` first", path);
}

static bool programs_find(struct lab *lab)
{
        static const struct {
                enum lab_part part;
                const char *package;
        } rows[] = {{LAB_REDIS, "redis-server"}, {LAB_KNOT, "knot"}, {LAB_NGINX, "nginx-core"}};
        char build[LAB_PATH_MAX];
        bool all = true;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                const char *name = lab_part_program(rows[i].part);
                if (!program_find(name, lab->programs[rows[i].part]))
                        all = lab_error("%s is not installed (Debian package %s): run "
                                        "scripts/install-deps",
                                        name, rows[i].package);
        }
        if (!lab_path(build, "%s", lab->self))
                return false;
        path_parent(build);
        memcpy(lab->programs[LAB_BACKEND_1], lab->self, LAB_PATH_MAX);
        memcpy(lab->programs[LAB_BACKEND_2], lab->self, LAB_PATH_MAX);
        return built_find(lab->programs[LAB_MERIDIAND], build, "meridiand") &&
               lab_path(lab->programs[LAB_NODE_2], "%s", lab->programs[LAB_MERIDIAND]) &&
               lab_path(lab->programs[LAB_NODE_3], "%s", lab->programs[LAB_MERIDIAND]) &&
               built_find(lab->plugin_redis, build, "plugins/redis/meridian.so") &&
               built_find(lab->plugin_knot, build, "plugins/knot/mod-meridian.so") &&
               built_find(lab->plugin_nginx, build, "plugins/nginx/ngx_http_meridian_module.so") &&
               lab_path(lab->plugin_postgres, "%s/plugins/postgres/meridian.so", build) && all;
}

static bool disk_check(const struct lab *lab)
{
        struct statvfs disk;
        const char *dir = access(lab->dir, F_OK) == 0 ? lab->dir : lab->root;
        if (statvfs(dir, &disk) != 0)
                return lab_error("%s: %s", dir, strerror(errno));
        unsigned long long room = (unsigned long long)disk.f_bavail * disk.f_frsize;
        if (room >= DISK_BYTES_MIN)
                return true;
        return lab_error("%s: %llu MB are left on the disk, the lab wants %llu: make room, then "
                         "try again",
                         dir, room >> 20, DISK_BYTES_MIN >> 20);
}

/* Servers of one user can neither read nor replace what those of another, or root's, left there. */
static bool owner_check(const struct lab *lab)
{
        struct stat info;
        if (stat(lab->dir, &info) != 0 || info.st_uid == geteuid())
                return true;
        const struct passwd *owner = getpwuid(info.st_uid);
        return lab_error("%s belongs to %s: start the lab as that user, or remove it first "
                         "(`lab down --wipe` as that user, or root)",
                         lab->dir, owner == NULL ? "another user" : owner->pw_name);
}

/* One command at a time. The lock goes when the process ends. */
static bool lock_take(const struct lab *lab)
{
        char path[LAB_PATH_MAX];
        if (!lab_dir_make(lab->dir) || !lab_path(path, "%s/lock", lab->dir))
                return false;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
                return lab_error("%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
                return true;
        lab_waiting("another command of this lab");
        for (unsigned i = 0; i < 300; i++) {
                if (flock(fd, LOCK_EX | LOCK_NB) == 0)
                        return true;
                lab_sleep_ms(200);
        }
        close(fd);
        return lab_error("%s is held by another command of this lab: wait for it, or end it", path);
}

/* ---- ending ---- */

static unsigned alive_count(const struct lab *lab, const struct lab_region *region)
{
        unsigned count = 0;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (region == NULL || region == &lab_regions[i])
                                count += lab_process_alive(lab, &lab_regions[i], part) ? 1 : 0;
                }
        }
        return count;
}

static int signal_all(const struct lab *lab, const struct lab_region *region, int signal)
{
        int count = 0;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (region == NULL || region == &lab_regions[i])
                                count += lab_process_signal(lab, &lab_regions[i], part, signal);
                }
                /* Last, or its keeper would start it again. */
                if (region == NULL || region == &lab_regions[i])
                        count += lab_postgres_signal(lab, &lab_regions[i], signal);
        }
        return count;
}

/* Ends what runs: kindly, then not. True where nothing is left. */
static bool stop_all(const struct lab *lab, const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        if (signal_all(lab, region, 0) == 0)
                return true;
        signal_all(lab, region, SIGTERM);
        for (int left = signal_all(lab, region, 0); left > 0 && lab_now_ms() < until;
             left = signal_all(lab, region, 0)) {
                lab_waiting("%d processes to end", left);
                lab_sleep_ms(50);
        }
        lab_waited();
        until = lab_now_ms() + STOP_TIMEOUT_MS;
        while (signal_all(lab, region, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(20);
        return signal_all(lab, region, 0) == 0 ||
               lab_error("some processes of the lab in %s do not end", lab->dir);
}

/* Workers of a master that was killed hold its ports: they go first. */
static void orphans_end(const struct lab *lab, const struct lab_region *region, enum lab_part part)
{
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        while (!lab_process_alive(lab, region, part) &&
               lab_process_signal(lab, region, part, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
}

/* ---- beginning ---- */

/* What a server that was killed wrote down of itself may name a stranger, or its own remains, by
 * now: Knot would take it for a running server and refuse to start. */
static bool remains_remove(const struct lab *lab, const struct lab_region *region)
{
        char path[LAB_PATH_MAX];
        if (!lab_path(path, "%s/%s/run/knot/knot.pid", lab->dir, region->name))
                return false;
        return lab_process_alive(lab, region, LAB_KNOT) || unlink(path) == 0 || errno == ENOENT ||
               lab_error("%s: %s", path, strerror(errno));
}

static bool region_start(const struct lab *lab, const struct lab_region *region)
{
        if (!remains_remove(lab, region))
                return false;
        for (enum lab_part part = 0; part < lab_parts(lab); part++) {
                if (lab_process_alive(lab, region, part))
                        continue;
                orphans_end(lab, region, part);
                if (!lab_process_start(lab, region, part))
                        return false;
        }
        return true;
}

/* A node that has just been started answers only when its link is there: ask until it does. */
static bool wan_apply(const struct lab *lab, const struct lab_wan *wan,
                      const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + START_TIMEOUT_MS;
        while (!lab_wan_apply(lab, wan, region_index(region), false)) {
                if (lab->nodes == 1 && !lab_process_alive(lab, region, LAB_MERIDIAND)) {
                        lab_process_log_show(lab, region, LAB_MERIDIAND);
                        return lab_error("meridiand of %s has ended", region->name);
                }
                if (lab_now_ms() > until)
                        return lab_wan_apply(lab, wan, region_index(region), true);
                lab_waiting("%s: meridiand does not answer yet", region->name);
                lab_sleep_ms(50);
        }
        lab_waited();
        return true;
}

static time_t newest_of(const struct lab *lab)
{
        const char *paths[] = {lab->self,         lab->programs[LAB_MERIDIAND],
                               lab->plugin_redis, lab->plugin_knot,
                               lab->plugin_nginx, lab->plugin_postgres};
        time_t newest = 0;
        struct stat file;
        for (size_t i = 0; i < COUNT_OF(paths); i++) {
                if (stat(paths[i], &file) == 0 && file.st_mtime > newest)
                        newest = file.st_mtime;
        }
        return newest;
}

/* Was what runs started from an older build than the one at hand. */
static bool build_is_newer(const struct lab *lab)
{
        char path[LAB_PATH_MAX];
        struct stat file;
        return lab_path(path, "%s/started", lab->dir) &&
               (stat(path, &file) != 0 || file.st_mtime < newest_of(lab));
}

#define LABEL_WIDTH 20

static void print_row(const char *what, int port, const char *scheme)
{
        char cell[64];
        term_cell(TERM_DIM, what, LABEL_WIDTH);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                snprintf(cell, sizeof cell, "%s%s:%d", scheme, lab_regions[i].address, port);
                term_cell(TERM_PLAIN, cell, 26);
        }
        putchar('\n');
}

static void print_table(bool postgres)
{
        putchar('\n');
        term_cell(TERM_PLAIN, "", LABEL_WIDTH);
        for (size_t i = 0; i < LAB_REGIONS; i++)
                term_cell(TERM_HEAD, lab_regions[i].name, 26);
        putchar('\n');
        term_cell(TERM_DIM, "stands in for", LABEL_WIDTH);
        for (size_t i = 0; i < LAB_REGIONS; i++)
                term_cell(TERM_PLAIN, lab_regions[i].place, 26);
        putchar('\n');
        print_row("Redis", LAB_PORT_REDIS, "");
        if (postgres) {
                print_row("PostgreSQL, writes", LAB_PORT_POSTGRES_WRITE, "");
                print_row("PostgreSQL, reads", LAB_PORT_POSTGRES_READ, "");
        }
        print_row("DNS example.test", LAB_PORT_DNS, "");
        print_row("edge", LAB_PORT_EDGE, "http://");
        print_row("locks (RESP)", LAB_PORT_LOCKS, "");
        print_row("administration", LAB_PORT_ADMIN, "http://");
}

static void print_try(void)
{
        static const char *const lines[] = {
                /* What one region has reaches another after the delay of the wide area. */
                "redis-cli -h 127.10.0.1 set word hello; sleep 1; redis-cli -h 127.30.0.1 get word",
                "psql postgresql://app:app@127.20.0.1/app -c 'SELECT inet_server_addr()'",
                "kdig @127.20.0.1 -p 5353 www.example.test +subnet=81.2.69.160/27 +short",
                "curl -i http://127.20.0.1:8080/",
                "build/meridian lock acquire global:config me 30s",
                "build/meridian lab kill us-east; sleep 3; build/meridian status",
        };
        printf("\n%sTry:%s\n", term_style(TERM_HEAD), term_style(TERM_PLAIN));
        for (size_t i = 0; i < COUNT_OF(lines); i++)
                printf("  %s\n", lines[i]);
        printf("\n`build/meridian status` shows all of it; `build/meridian lab down` ends it.\n");
}

/* Ends what cannot be used again. *ret_reuse: all runs, from this build. */
static bool up_earlier(const struct lab *lab, bool postgres, bool *ret_reuse)
{
        unsigned alive = alive_count(lab, NULL);
        bool same = lab_postgres_used(lab) == postgres;
        *ret_reuse = alive == LAB_REGIONS * lab_parts(lab) && !build_is_newer(lab) && same;
        if (*ret_reuse)
                return true;
        if (signal_all(lab, NULL, 0) > 0) {
                const char *why = alive != LAB_REGIONS * lab_parts(lab) ? "only a part of it runs"
                                  : same ? "it runs from an older build"
                                         : "it has other parts";
                if (!stop_all(lab, NULL))
                        return false;
                lab_step("earlier lab", "ended (%s); its data stays", why);
        }
        return lab_postgres_use(lab, postgres);
}

static bool up_start(const struct lab *lab)
{
        struct lab_wan wan = {0};
        char path[LAB_PATH_MAX];
        if (!lab_ports_free(lab, NULL))
                return false;
        lab_step("ports", "free");
        if (!lab_files_write(lab) || !lab_wan_save(lab, &wan))
                return false;
        lab_step("files", "certificates, geo database, topology and configurations in %s",
                 lab->dir);
        if (!lab_path(path, "%s/started", lab->dir) || !lab_file_write(path, BYTES("started\n")))
                return false;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (!region_start(lab, &lab_regions[i]))
                        return false;
                lab_step(lab_regions[i].name, "redis-server, knotd, nginx, %s, 2 backends%s",
                         lab->nodes == 1   ? "meridiand"
                         : lab->nodes == 2 ? "2 nodes of meridiand"
                                           : "3 nodes of meridiand",
                         lab_postgres_used(lab) ? ", PostgreSQL" : "");
        }
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (!wan_apply(lab, &wan, &lab_regions[i]))
                        return false;
        }
        lab_step("wide area",
                 "round trips us-east/eu-west %u ms, us-east/ap-southeast %u ms, "
                 "eu-west/ap-southeast %u ms",
                 lab_wan_rtt_ms(0, 1), lab_wan_rtt_ms(0, 2), lab_wan_rtt_ms(1, 2));
        return true;
}

static int command_up(int argc, char **argv)
{
        static struct lab lab;
        bool reuse = false;
        bool without = false;
        unsigned nodes = 0;
        uint64_t begin = lab_now_ms();
        for (int i = 1; i < argc; i += 2) {
                const char *value = i + 1 < argc ? argv[i + 1] : "";
                if (strcmp(argv[i], "--without") == 0 && strcmp(value, "postgres") == 0)
                        without = true;
                else if (strcmp(argv[i], "--nodes") == 0 && value[0] >= '1' &&
                         value[0] <= '0' + LAB_NODES_MAX && value[1] == '\0')
                        nodes = (unsigned)(value[0] - '0');
                else
                        return usage("up [--nodes 1..3] [--without postgres]");
        }
        if (!lab_open(&lab) || !owner_check(&lab) || !programs_find(&lab) || !disk_check(&lab) ||
            (!without && !lab_postgres_check(&lab)) || !lock_take(&lab) ||
            (nodes != 0 && !lab_nodes_use(&lab, nodes)) || !up_earlier(&lab, !without, &reuse))
                return 1;
        if (reuse)
                lab_step("earlier lab", "runs already, from this build");
        else if (!up_start(&lab)) {
                stop_all(&lab, NULL);
                return 1;
        }
        if (!lab_health_wait(&lab, NULL, UP_TIMEOUT_MS))
                return 1;
        lab_step("health", "all three regions are active, after %.1f s",
                 (double)(lab_now_ms() - begin) / 1000);
        if (lab_postgres_used(&lab) && lab_postgres_signal(&lab, &lab_regions[0], 0) == 0)
                lab_step("PostgreSQL",
                         "not there: the topology that this lab agreed on earlier has "
                         "none; `lab down --wipe` begins anew");
        print_table(lab_postgres_used(&lab));
        print_try();
        return 0;
}

/* Removes a folder and all that is in it; symbolic links are not followed. */
static bool wipe(const char *dir)
{
        pid_t pid = fork();
        if (pid == 0) {
                execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
                _exit(127);
        }
        int status = 0;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                return lab_error("%s could not be removed", dir);
        return true;
}

static int command_down(int argc, char **argv)
{
        static struct lab lab;
        bool clean = argc == 2 && strcmp(argv[1], "--wipe") == 0;
        if (argc > 1 && !clean)
                return usage("down [--wipe]");
        if (!lab_open(&lab))
                return 1;
        if (access(lab.dir, F_OK) != 0) {
                printf("no lab has been started in %s\n", lab.root);
                return 0;
        }
        if (!lock_take(&lab))
                return 1;
        unsigned alive = alive_count(&lab, NULL);
        if (!stop_all(&lab, NULL))
                return 1;
        lab_step("processes", "%u ended, none is left", alive);
        if (clean && !wipe(lab.dir))
                return 1;
        lab_step("data", clean ? "removed" : "stays in .lab (`lab down --wipe` removes it)");
        return 0;
}

/* ---- one region ---- */

static int node_kill(const struct lab *lab, const struct lab_region *region, unsigned node)
{
        enum lab_part part = lab_node_part(node);
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        if (lab_process_signal(lab, region, part, SIGKILL) == 0)
                return lab_error("node %u of %s does not run", node, region->name) ? 0 : 1;
        while (lab_process_signal(lab, region, part, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
        lab_step(region->name, "%s killed (SIGKILL)", lab_part_name(part));
        return 0;
}

static int command_kill(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *region = NULL;
        unsigned node = 0;
        if (argc != 2)
                return usage("kill REGION[/NODE]");
        if (!lab_open(&lab) || !lab_node_find(&lab, argv[1], &region, &node) || !lock_take(&lab))
                return 1;
        if (node != 0)
                return node_kill(&lab, region, node);
        int killed = 0;
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        for (enum lab_part part = 0; part < LAB_PARTS; part++)
                killed += lab_process_signal(&lab, region, part, SIGKILL);
        killed += lab_postgres_signal(&lab, region, SIGKILL);
        while (signal_all(&lab, region, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
        if (killed == 0)
                return lab_error("nothing of %s runs", region->name) ? 0 : 1;
        lab_step(region->name, "%d processes killed (SIGKILL)", killed);
        return 0;
}

/* A server that cannot run says so and ends soon after its start. */
static bool region_stays(const struct lab *lab, const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + STAYS_MS;
        while (lab_now_ms() < until) {
                for (enum lab_part part = 0; part < lab_parts(lab); part++) {
                        if (lab_process_alive(lab, region, part))
                                continue;
                        lab_process_log_show(lab, region, part);
                        return lab_error("%s of %s has ended", lab_part_name(part), region->name);
                }
                lab_sleep_ms(20);
        }
        return true;
}

static int command_start(int argc, char **argv)
{
        static struct lab lab;
        struct lab_wan wan;
        const struct lab_region *region = NULL;
        unsigned node = 0;
        if (argc != 2)
                return usage("start REGION[/NODE]");
        if (!lab_open(&lab) || !lab_node_find(&lab, argv[1], &region, &node) ||
            !owner_check(&lab) || !programs_find(&lab) ||
            (lab_postgres_used(&lab) && !lab_postgres_check(&lab)) || !lock_take(&lab))
                return 1;
        for (enum lab_part part = 0; part < LAB_PARTS; part++)
                orphans_end(&lab, region, part);
        if (!lab_ports_free(&lab, region) || !lab_files_write(&lab) || !lab_wan_load(&lab, &wan) ||
            !region_start(&lab, region) || !wan_apply(&lab, &wan, region) ||
            !region_stays(&lab, region))
                return 1;
        lab_step(region->name, "started; `meridian status` shows when it is active again");
        return 0;
}

/* ---- the wide area ---- */

/* "300ms", "1s", "250us" or "300" (milliseconds). */
static bool duration_parse(const char *text, uint64_t *ret_us)
{
        static const struct {
                const char *unit;
                uint64_t us;
        } units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"", 1000}};
        char *end = NULL;
        errno = 0;
        unsigned long value = strtoul(text, &end, 10);
        for (size_t i = 0; i < COUNT_OF(units); i++) {
                if (text[0] >= '0' && text[0] <= '9' && errno == 0 && value <= 60000000 &&
                    strcmp(end, units[i].unit) == 0 && value * units[i].us <= 60000000) {
                        *ret_us = value * units[i].us;
                        return true;
                }
        }
        return lab_error("\"%s\" is no time: write 300ms or 1s, at most 60s", text);
}

/* "5%" or "0.5%". */
static bool loss_parse(const char *text, uint32_t *ret_per_mille)
{
        char *end = NULL;
        double percent = strtod(text, &end);
        if (end == text || strcmp(end, "%") != 0 || !(percent >= 0 && percent <= 100))
                return lab_error("\"%s\" is no share: write 5%%, at most 100%%", text);
        *ret_per_mille = (uint32_t)(percent * 10 + 0.5);
        return true;
}

/* Loads, lets `change` set the pair (NULL: all pairs plain), saves, tells both ends that live. */
static int wan_change(const struct lab *lab, const struct lab_region *a, const struct lab_region *b,
                      const struct lab_wan_pair *add, bool heal)
{
        struct lab_wan wan;
        if (!lab_wan_load(lab, &wan))
                return 1;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (size_t j = 0; j < LAB_REGIONS; j++) {
                        struct lab_wan_pair *pair = &wan.pairs[i][j];
                        bool meant = (a == NULL) ||
                                     (i == region_index(a) && j == region_index(b)) ||
                                     (j == region_index(a) && i == region_index(b));
                        if (!meant)
                                continue;
                        if (heal)
                                *pair = (struct lab_wan_pair){0};
                        pair->cut = pair->cut || add->cut;
                        pair->slow_us = add->slow_us > 0 ? add->slow_us : pair->slow_us;
                        pair->loss_per_mille = add->loss_per_mille > 0 ? add->loss_per_mille
                                                                       : pair->loss_per_mille;
                }
        }
        bool done = lab_wan_save(lab, &wan);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                bool meant = a == NULL || i == region_index(a) || i == region_index(b);
                if (meant &&
                    (lab->nodes > 1 || lab_process_alive(lab, &lab_regions[i], LAB_MERIDIAND)))
                        done = lab_wan_apply(lab, &wan, i, true) && done;
        }
        return done ? 0 : 1;
}

/* Opens the lab and finds the two regions of argv[1] and argv[2]. */
static bool pair_open(struct lab *lab, char **argv, const struct lab_region **ret_a,
                      const struct lab_region **ret_b)
{
        *ret_a = lab_region_find(argv[1]);
        *ret_b = *ret_a == NULL ? NULL : lab_region_find(argv[2]);
        if (*ret_a == NULL || *ret_b == NULL)
                return false;
        if (*ret_a == *ret_b)
                return lab_error("%s twice: name two regions", argv[1]);
        return lab_open(lab) && lock_take(lab);
}

static int command_partition(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {.cut = true};
        if (argc != 3)
                return usage("partition REGION REGION");
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("partition", "nothing passes between %s and %s; `lab heal` ends it", a->name,
                 b->name);
        return 0;
}

static int command_heal(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 1 && argc != 3)
                return usage("heal [REGION REGION]");
        bool open = argc == 3 ? pair_open(&lab, argv, &a, &b) : lab_open(&lab) && lock_take(&lab);
        if (!open || wan_change(&lab, a, b, &pair, true) != 0)
                return 1;
        if (a == NULL)
                lab_step("heal", "all links are as between the real regions");
        else
                lab_step("heal", "the link between %s and %s is as between the real regions",
                         a->name, b->name);
        return 0;
}

static int command_slow(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 4)
                return usage("slow REGION REGION 300ms");
        if (!duration_parse(argv[3], &pair.slow_us))
                return 2;
        pair.slow_us /= 2;
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("slow", "round trips between %s and %s take %s longer", a->name, b->name, argv[3]);
        return 0;
}

static int command_lose(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 4)
                return usage("lose REGION REGION 5%");
        if (!loss_parse(argv[3], &pair.loss_per_mille))
                return 2;
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("lose", "%s of what passes between %s and %s is lost on its first way", argv[3],
                 a->name, b->name);
        return 0;
}

/* ---- looking ---- */

static void status_links(const struct lab *lab)
{
        struct lab_wan wan;
        if (!lab_wan_load(lab, &wan))
                return;
        for (size_t a = 0; a < LAB_REGIONS; a++) {
                for (size_t b = a + 1; b < LAB_REGIONS; b++) {
                        const struct lab_wan_pair *pair = &wan.pairs[a][b];
                        printf("  %-12s %s %-14s %u ms", lab_regions[a].name,
                               term_symbol(TERM_ARROW), lab_regions[b].name, lab_wan_rtt_ms(a, b));
                        if (pair->slow_us > 0)
                                printf(", slowed by %llu ms",
                                       (unsigned long long)pair->slow_us / 500);
                        if (pair->loss_per_mille > 0)
                                printf(", loses %u.%u%%", pair->loss_per_mille / 10,
                                       pair->loss_per_mille % 10);
                        printf("%s\n", pair->cut ? ", cut" : "");
                }
        }
}

static void status_part(const char *name, bool runs)
{
        printf(" %s%s%s %s", term_style(runs ? TERM_GOOD : TERM_BAD),
               term_symbol(runs ? TERM_OK : TERM_FAIL), term_style(TERM_PLAIN), name);
}

static int command_status(int argc, char **argv)
{
        static struct lab lab;
        (void)argc;
        (void)argv;
        if (!lab_open(&lab))
                return 1;
        printf("lab in %s\n\n", lab.dir);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                term_cell(TERM_HEAD, lab_regions[i].name, 14);
                for (enum lab_part part = 0; part < lab_parts(&lab); part++) {
                        pid_t pid = lab_process_pid(&lab, &lab_regions[i], part);
                        status_part(lab_part_name(part), pid != 0);
                        if (pid != 0)
                                printf(" (%d)", (int)pid);
                }
                if (lab_postgres_used(&lab))
                        status_part("postgres", lab_postgres_signal(&lab, &lab_regions[i], 0) > 0);
                putchar('\n');
        }
        putchar('\n');
        status_links(&lab);
        return alive_count(&lab, NULL) == LAB_REGIONS * lab_parts(&lab) ? 0 : 1;
}

static int command_certificate(int argc, char **argv)
{
        static struct lab lab;
        if (argc != 3)
                return usage("certificate REGION ID");
        return lab_open(&lab) && owner_check(&lab) ? lab_certificate(&lab, argv[1], argv[2]) : 1;
}

/* ---- the table ---- */

const struct lab_command lab_commands[] = {
        {"up", "[--nodes N] [--without postgres]",
         "start three regions, of one to three nodes, and wait until all is well"},
        {"down", "[--wipe]", "end everything; --wipe removes the data too"},
        {"status", "", "what runs, and how the links are; exit 1 unless all runs"},
        {"kill", "REGION[/NODE]", "kill -9 everything of a region, or one node of it"},
        {"start", "REGION[/NODE]", "start what is missing in a region"},
        {"partition", "REGION REGION", "let nothing pass between two regions"},
        {"heal", "[REGION REGION]", "undo partition, slow and lose"},
        {"slow", "REGION REGION TIME", "make round trips longer, e.g. by 300ms"},
        {"lose", "REGION REGION SHARE", "lose packets, e.g. 5%"},
        {"certificate", "REGION ID", "make a certificate for a node that you add yourself"},
        {"backend", "--listen HOST:PORT --region NAME", "run one sample backend"},
        {NULL, NULL, NULL},
};

static int (*const handlers[])(int argc, char **argv) = {
        command_up,    command_down,        command_status, command_kill,
        command_start, command_partition,   command_heal,   command_slow,
        command_lose,  command_certificate, lab_backend,
};
_Static_assert(COUNT_OF(handlers) + 1 == COUNT_OF(lab_commands), "a handler for each command");

int lab_main(int argc, char **argv)
{
        for (size_t i = 0; argc > 0 && lab_commands[i].name != NULL; i++) {
                if (strcmp(argv[0], lab_commands[i].name) == 0)
                        return handlers[i](argc, argv);
        }
        FILE *out = argc == 0 || strcmp(argv[0], "help") == 0 ? stdout : stderr;
        if (out == stderr)
                lab_error("no command \"lab %s\"; there are:", argv[0]);
        for (size_t i = 0; lab_commands[i].name != NULL; i++)
                fprintf(out, "  meridian lab %-10s %-34s %s\n", lab_commands[i].name,
                        lab_commands[i].arguments, lab_commands[i].help);
        return out == stdout ? 0 : 2;
}
