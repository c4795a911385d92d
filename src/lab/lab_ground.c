/* lab_ground.c - what every command of the lab stands on: what is said to a person, where the lab
 * and its programs are, whether they can run here, and the lock that keeps two commands apart. */
#include "lab/lab_priv.h"
#include "term/term.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define DISK_BYTES_MIN (200ull * 1024 * 1024)

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
        /* A line that is drawn again must not be broken. */
        int room = term_columns() > 40 ? (int)term_columns() - 19 : 60;
        if (term_is_tty())
                printf("\r\033[K  %s%s%s waiting       %.*s", term_style(TERM_WARN),
                       term_symbol(TERM_WAIT), term_style(TERM_PLAIN), room, text);
        else
                printf("  %s waiting       %s\n", term_symbol(TERM_WAIT), text);
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

int lab_usage(const char *command)
{
        lab_error("usage: meridian lab %s", command);
        return 2;
}

size_t lab_region_index(const struct lab_region *region)
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

bool lab_open(struct lab *lab)
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

bool lab_open_made(struct lab *lab)
{
        char path[LAB_PATH_MAX];
        if (!lab_open(lab) || !lab_path(path, "%s/topology.conf", lab->dir))
                return false;
        return access(path, F_OK) == 0 ||
               lab_error("there is no lab in %s: `make lab` starts one", lab->dir);
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

bool lab_programs_find(struct lab *lab)
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

bool lab_disk_check(const struct lab *lab)
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
bool lab_owner_check(const struct lab *lab)
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
bool lab_lock_take(const struct lab *lab)
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
