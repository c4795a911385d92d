/* files.c - the warden's folder. What is written for the server belongs to the server's user, and
 * is whole or not there at all: written aside, synced, renamed. A failure says which path. */
#include "warden/warden_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/hash.h"

bool fail_set(struct fail *fail, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        (void)vsnprintf(fail->text, sizeof fail->text, format, args);
        va_end(args);
        return false;
}

bool path_set(char path[static WARDEN_PATH_SIZE], const char *format, ...)
{
        va_list args;
        va_start(args, format);
        int len = vsnprintf(path, WARDEN_PATH_SIZE, format, args);
        va_end(args);
        return len >= 0 && len < WARDEN_PATH_SIZE;
}

static bool fail_errno(struct fail *fail, const char *path)
{
        char why[96];
        int number = errno;
        return fail_set(fail, "%s: %s", path, strerror_r(number, why, sizeof why));
}

bool file_there(const char *format, ...)
{
        char path[WARDEN_PATH_SIZE];
        va_list args;
        va_start(args, format);
        int len = vsnprintf(path, sizeof path, format, args);
        va_end(args);
        return len > 0 && len < WARDEN_PATH_SIZE && access(path, F_OK) == 0;
}

void folder_sync(const char *path)
{
        char folder[WARDEN_PATH_SIZE];
        const char *slash = strrchr(path, '/');
        if (slash == NULL || !path_set(folder, "%.*s", (int)(slash - path), path))
                return;
        int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
                (void)fsync(fd);
                close(fd);
        }
}

struct bytes line_take(struct bytes *rest)
{
        const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->ptr, '\n', rest->len);
        size_t len = end == NULL ? rest->len : (size_t)(end - rest->ptr) + 1;
        struct bytes line = bytes_of(rest->ptr, len);
        *rest = bytes_of(rest->ptr + len, rest->len - len);
        return line;
}

struct dirent *dir_next(DIR *dir)
{
        return readdir(dir); /* NOLINT(concurrency-mt-unsafe): each caller has its own */
}

static bool write_all(int fd, struct bytes data)
{
        while (data.len > 0) {
                ssize_t len = write(fd, data.ptr, data.len);
                if (len < 0 && errno == EINTR)
                        continue;
                if (len <= 0)
                        return false;
                data = bytes_of(data.ptr + len, data.len - (size_t)len);
        }
        return true;
}

bool file_write(struct warden *warden, const char *path, struct bytes data, struct fail *fail)
{
        char aside[WARDEN_PATH_SIZE];
        if (!path_set(aside, "%s.new", path))
                return fail_set(fail, "%s: the path is too long", path);
        int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return fail_errno(fail, aside);
        bool whole =
                write_all(fd, data) && fchown(fd, warden->uid, warden->gid) == 0 && fsync(fd) == 0;
        if (!whole)
                (void)fail_errno(fail, aside);
        close(fd);
        if (whole && rename(aside, path) != 0)
                whole = fail_errno(fail, path);
        if (whole)
                folder_sync(path);
        return whole;
}

bool file_read(const char *path, char *text, size_t size, size_t *ret_len)
{
        size_t len = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        while (len < size) {
                ssize_t part = read(fd, text + len, size - len);
                if (part < 0 && errno == EINTR)
                        continue;
                if (part <= 0)
                        break;
                len += (size_t)part;
        }
        close(fd);
        if (len >= size)
                return false;
        text[len] = '\0';
        if (ret_len != NULL)
                *ret_len = len;
        return true;
}

bool folder_make(struct warden *warden, const char *path, struct fail *fail)
{
        struct stat info;
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
                return fail_errno(fail, path);
        if (lstat(path, &info) != 0)
                return fail_errno(fail, path);
        if (!S_ISDIR(info.st_mode))
                return fail_set(fail, "%s is no folder: move it away", path);
        if (info.st_uid != warden->uid && lchown(path, warden->uid, warden->gid) != 0)
                return fail_errno(fail, path);
        return true;
}

/* ---- opening ---- */

static bool user_find(struct warden *warden, struct fail *fail)
{
        char store[4096];
        struct passwd entry;
        struct passwd *found = NULL;
        const char *name = warden->config.user;
        warden->uid = geteuid();
        warden->gid = getegid();
        if (name[0] == '\0' && geteuid() == 0)
                return fail_set(fail, "PostgreSQL does not run as root: name another user by the "
                                      "key 'postgres user'");
        if (name[0] != '\0') {
                if (getpwnam_r(name, &entry, store, sizeof store, &found) != 0 || found == NULL)
                        return fail_set(fail, "there is no user '%s' (key 'postgres user')", name);
                if (geteuid() != 0 && found->pw_uid != geteuid())
                        return fail_set(fail,
                                        "only root can run a server as user '%s': remove "
                                        "the key 'postgres user'",
                                        name);
                if (found->pw_uid == 0)
                        return fail_set(fail, "PostgreSQL does not run as root: name another user "
                                              "by the key 'postgres user'");
                warden->uid = found->pw_uid;
                warden->gid = found->pw_gid;
        }
        (void)snprintf(warden->uid_text, sizeof warden->uid_text, "%u", warden->uid);
        (void)snprintf(warden->gid_text, sizeof warden->gid_text, "%u", warden->gid);
        return true;
}

/* A socket's path has room for 107 bytes: where home lies deeper it is in /tmp. */
static bool socket_place(struct warden *warden)
{
        struct sockaddr_un address;
        char *path = warden->paths.socket;
        if (!path_set(path, "%s/socket", warden->config.home))
                return false;
        if (strlen(path) + strlen("/.s.PGSQL.65535.lock") < sizeof address.sun_path)
                return true;
        uint64_t hash = hash_fnv(HASH_FNV_START, bytes_of_str(warden->config.home));
        return path_set(path, "/tmp/meridian-%016llx", (unsigned long long)hash);
}

static bool paths_set(struct warden *warden, struct fail *fail)
{
        struct paths *paths = &warden->paths;
        const char *home = warden->config.home;
        bool fit = warden->config.data[0] != '\0' ? path_set(paths->data, "%s", warden->config.data)
                                                  : path_set(paths->data, "%s/data", home);
        fit = fit && path_set(paths->data_new, "%s.new", paths->data) &&
              path_set(paths->rewinding, "%s/rewinding", warden->config.home) &&
              path_set(paths->gate, "%s/gate", home) &&
              path_set(paths->log, "%s/server.log", home) &&
              path_set(paths->pgpass, "%s/pgpass", home) &&
              path_set(paths->hba, "%s/pg_hba.conf", home) &&
              path_set(paths->ident, "%s/pg_ident.conf", home) &&
              path_set(paths->aside, "%s/kept-aside", home) && socket_place(warden) &&
              path_set(paths->doors, "%s/doors", paths->socket);
        fit = fit && strlen(paths->data) + 64 < WARDEN_PATH_SIZE;
        /* They stand in quotes in the server's configuration. */
        if (!fit || strpbrk(home, "'\\\n") != NULL || strpbrk(paths->data, "'\\\n") != NULL)
                return fail_set(fail, "%s: the path is too long, or has a quote in it", home);
        return home[0] == '/' && paths->data[0] == '/'
                       ? true
                       : fail_set(fail, "%s: write the whole path", home);
}

static bool gate_map(struct warden *warden, struct fail *fail)
{
        const char *path = warden->paths.gate;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return fail_errno(fail, path);
        void *memory = MAP_FAILED;
        if (fchown(fd, warden->uid, warden->gid) == 0 && ftruncate(fd, GATE_SIZE) == 0)
                memory = mmap(NULL, GATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                (void)fail_errno(fail, path);
        close(fd);
        if (memory == MAP_FAILED)
                return false;
        warden->gate = memory;
        atomic_store(&warden->gate->magic, GATE_MAGIC);
        return true;
}

static bool password_read(struct warden *warden, struct fail *fail)
{
        const char *path = warden->config.password;
        char *text = warden->password;
        if (!file_read(path, text, sizeof warden->password, NULL))
                return fail_set(fail,
                                "%s cannot be read, or is longer than 255 bytes: it holds the "
                                "password of the role " ROLE " (the same on all nodes)",
                                path);
        text[strcspn(text, "\r\n")] = '\0';
        for (const char *at = text; *at != '\0'; at++)
                if (*at < '!' || *at > '~' || *at == '\'' || *at == '\\' || *at == ':')
                        return fail_set(fail,
                                        "%s: the password may hold printable characters but "
                                        "blanks, quotes, backslashes and colons",
                                        path);
        return strlen(text) >= 8
                       ? true
                       : fail_set(fail, "%s: the password has less than 8 characters", path);
}

static bool pgpass_write(struct warden *warden, struct fail *fail)
{
        char text[512];
        int len = snprintf(text, sizeof text, "*:*:*:" ROLE ":%s\n", warden->password);
        return file_write(warden, warden->paths.pgpass, bytes_of(text, (size_t)len), fail);
}

static bool programs_check(struct warden *warden, struct fail *fail)
{
        static const char *const names[] = {"postgres",       "initdb",          "pg_ctl",
                                            "pg_controldata", "pg_basebackup",   "pg_rewind",
                                            "pg_waldump",     "pg_verifybackup", "psql"};
        for (size_t i = 0; i < COUNT_OF(names); i++)
                if (!file_there("%s/%s", warden->config.bin, names[i]))
                        return fail_set(fail,
                                        "%s has no %s: install postgresql-15, or correct the "
                                        "key 'postgres bin'",
                                        warden->config.bin, names[i]);
        return true;
}

bool files_find(struct warden *warden, struct fail *fail)
{
        return user_find(warden, fail) && programs_check(warden, fail) && paths_set(warden, fail);
}

bool files_open(struct warden *warden, struct fail *fail)
{
        struct paths *paths = &warden->paths;
        if (!files_find(warden, fail) || !password_read(warden, fail) ||
            !folder_make(warden, warden->config.home, fail) ||
            !folder_make(warden, paths->socket, fail) || !folder_make(warden, paths->aside, fail) ||
            !pgpass_write(warden, fail))
                return false;
        if (warden->config.archive[0] != '\0' && !folder_make(warden, warden->config.archive, fail))
                return false;
        return gate_map(warden, fail);
}

void files_close(struct warden *warden)
{
        if (warden->gate != NULL)
                (void)munmap(warden->gate, GATE_SIZE);
        warden->gate = NULL;
}
