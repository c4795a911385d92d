/* lab_postgres.c - PostgreSQL in the lab. meridiand starts and looks after each region's server;
 * the lab writes what it needs for that, and finds the server again to end it: by its folder, in
 * which every process of the server lives, and no other does. As root the server runs as another
 * user, since PostgreSQL refuses root. */
#include "base/buffer.h"
#include "lab/lab_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define BIN "/usr/lib/postgresql/15/bin"

static bool marker_path(const struct lab *lab, char path[LAB_PATH_MAX])
{
        return lab_path(path, "%s/without-postgres", lab->dir);
}

bool lab_postgres_used(const struct lab *lab)
{
        char path[LAB_PATH_MAX];
        return marker_path(lab, path) && access(path, F_OK) != 0;
}

bool lab_postgres_use(const struct lab *lab, bool use)
{
        char path[LAB_PATH_MAX];
        if (!marker_path(lab, path))
                return false;
        if (!use)
                return lab_file_write(path, BYTES("lab up --without postgres\n"));
        return unlink(path) == 0 || errno == ENOENT || lab_error("%s: %s", path, strerror(errno));
}

static const char *server_user(void)
{
        static const char *const users[] = {"postgres", "nobody"};
        for (size_t i = 0; geteuid() == 0 && i < COUNT_OF(users); i++)
                if (getpwnam(users[i]) != NULL)
                        return users[i];
        return "";
}

/* Every folder above has to let the server's user pass. */
static bool passable(const char *path)
{
        char at[LAB_PATH_MAX];
        struct stat info;
        if (!lab_path(at, "%s", path))
                return false;
        for (char *slash = strrchr(at, '/'); slash != NULL && slash != at;
             slash = strrchr(at, '/')) {
                *slash = '\0';
                if (stat(at, &info) == 0 && (info.st_mode & S_IXOTH) == 0)
                        return lab_error(
                                "PostgreSQL runs as user %s, which may not pass %s: `chmod "
                                "o+x` it, use another folder (MERIDIAN_LAB=/...), or start "
                                "with `lab up --without postgres`",
                                server_user(), at);
        }
        return true;
}

bool lab_postgres_check(const struct lab *lab)
{
        char mark[LAB_PATH_MAX];
        if (access(BIN "/postgres", X_OK) != 0)
                return lab_error("%s/postgres is not there (Debian package postgresql-15): run "
                                 "scripts/install-deps, or `lab up --without postgres`",
                                 BIN);
        if (geteuid() != 0)
                return true;
        if (server_user()[0] == '\0')
                return lab_error(
                        "PostgreSQL refuses root, and there is neither a user postgres nor "
                        "nobody: `lab up --without postgres` does without it");
        return lab_path(mark, "%s/x", lab->dir) && passable(mark) && passable(lab->plugin_postgres);
}

/* ---- files ---- */

static bool password_make(const struct lab *lab)
{
        char path[LAB_PATH_MAX], text[64];
        uint8_t random[16];
        size_t len = 0;
        if (!lab_path(path, "%s/postgres.password", lab->dir))
                return false;
        if (access(path, F_OK) == 0)
                return true;
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
                return lab_error("no random number can be had");
        for (size_t i = 0; i < sizeof random; i++)
                len += (size_t)snprintf(text + len, sizeof text - len, "%02x", random[i]);
        text[len++] = '\n';
        return lab_file_write(path, bytes_of(text, len)) && chmod(path, 0600) == 0;
}

/* The extension's script, as CREATE EXTENSION would read it: the lab's library is not where
 * PostgreSQL looks for extensions. Its first command would end psql. */
static bool script_add(const struct lab *lab, struct buffer *text)
{
        static const char name[] = "MODULE_PATHNAME";
        char path[LAB_PATH_MAX], line[1024];
        if (!lab_path(path, "%s/plugins/postgres/meridian--1.0.sql", lab->root))
                return false;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return lab_error("%s: %s", path, strerror(errno));
        while (fgets(line, sizeof line, file) != NULL) {
                const char *at = strstr(line, name);
                if (line[0] == '\\')
                        continue;
                if (at != NULL)
                        buffer_format(text, "%.*s%s%s", (int)(at - line), line,
                                      lab->plugin_postgres, at + strlen(name));
                else
                        buffer_format(text, "%s", line);
        }
        fclose(file);
        return true;
}

static bool file_save(const struct lab *lab, const struct lab_region *region, const char *name,
                      const struct buffer *text)
{
        char path[LAB_PATH_MAX];
        if (text->err != ERR_NONE)
                return lab_error("out of memory");
        return lab_path(path, "%s/%s/%s", lab->dir, region->name, name) &&
               lab_file_write(path, buffer_view(text));
}

/* "postgres" of the first node, "postgres-2" of the second. */
static void server_name(unsigned node, char text[static 16])
{
        (void)snprintf(text, 16, node == 1 ? "postgres" : "postgres-%u", node);
}

static bool has_server(const struct lab *lab, const struct lab_region *region, unsigned node)
{
        return lab_postgres_used(lab) && node <= lab->servers && !lab_is_witness(lab, region);
}

bool lab_postgres_files(const struct lab *lab, const struct lab_region *region, unsigned node,
                        struct buffer *text)
{
        char own[LAB_ADDRESS_SIZE], name[16], file[64];
        if (!has_server(lab, region, node))
                return true;
        if (!password_make(lab))
                return false;
        lab_node_address(region, node, own);
        server_name(node, name);
        buffer_reset(text);
        buffer_format(text, "CREATE ROLE app LOGIN PASSWORD 'app';\n"
                            "CREATE DATABASE app OWNER app;\n"
                            "\\connect app\n"
                            "CREATE SCHEMA meridian;\n"
                            "SET search_path = meridian;\n");
        if (!script_add(lab, text))
                return false;
        buffer_format(text, "CREATE USER MAPPING FOR app SERVER meridian_writer "
                            "OPTIONS (password 'app');\n");
        (void)snprintf(file, sizeof file, "%s.init.sql", name);
        if (!file_save(lab, region, file, text))
                return false;
        buffer_reset(text);
        buffer_format(text,
                      "shared_buffers = '16MB'\n"
                      "max_connections = 100\n"
                      "min_wal_size = '32MB'\n"
                      "max_wal_size = '128MB'\n"
                      "wal_keep_size = '64MB'\n"
                      "max_slot_wal_keep_size = '256MB'\n"
                      "meridian.writer = 'host=%s port=%d'\n",
                      own, LAB_PORT_POSTGRES_WRITE);
        (void)snprintf(file, sizeof file, "%s.settings.conf", name);
        return file_save(lab, region, file, text);
}

void lab_postgres_conf(const struct lab *lab, const struct lab_region *region, unsigned node,
                       struct buffer *text)
{
        const char *user = server_user();
        char own[LAB_ADDRESS_SIZE], name[16];
        lab_node_address(region, node, own);
        if (lab_postgres_used(lab) && !has_server(lab, region, node))
                buffer_format(text,
                              "postgres {\n        write     \"%s:%d\";\n"
                              "        read      \"%s:%d\";\n}\n",
                              own, LAB_PORT_POSTGRES_WRITE, own, LAB_PORT_POSTGRES_READ);
        if (!has_server(lab, region, node))
                return;
        server_name(node, name);
        buffer_format(text,
                      "postgres {\n"
                      "        server    \"%s:%d\";\n"
                      "        write     \"%s:%d\";\n"
                      "        read      \"%s:%d\";\n"
                      "        follow    \"%s:%d\";\n",
                      own, LAB_PORT_POSTGRES, own, LAB_PORT_POSTGRES_WRITE, own,
                      LAB_PORT_POSTGRES_READ, own, LAB_PORT_POSTGRES_FOLLOW);
        buffer_format(text,
                      "        bin       \"%s\";\n"
                      "        home      \"%s/%s/data/%s\";\n"
                      "        password  \"%s/postgres.password\";\n"
                      "        library   \"%s\";\n"
                      "        init      \"%s/%s/%s.init.sql\";\n"
                      "        settings  \"%s/%s/%s.settings.conf\";\n",
                      BIN, lab->dir, region->name, name, lab->dir, lab->plugin_postgres, lab->dir,
                      region->name, name, lab->dir, region->name, name);
        if (user[0] != '\0')
                buffer_format(text, "        user      %s;\n", user);
        buffer_format(text, "}\n");
}

/* ---- ending ---- */

/* Does the process live in the region's folder of PostgreSQL? */
static bool lives_there(const char *pid, const char *home)
{
        char path[300], target[LAB_PATH_MAX];
        snprintf(path, sizeof path, "/proc/%s/cwd", pid);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len <= 0)
                return false;
        target[len] = '\0';
        size_t want = strlen(home);
        return strncmp(target, home, want) == 0 && (target[want] == '\0' || target[want] == '/');
}

static pid_t postmaster(const char *home)
{
        char path[LAB_PATH_MAX];
        int pid = 0;
        if (!lab_path(path, "%s/data/postmaster.pid", home))
                return 0;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return 0;
        if (fscanf(file, "%d", &pid) != 1 || pid <= 1)
                pid = 0;
        fclose(file);
        return pid;
}

static int home_signal(const char *home, int signal)
{
        int count = 0;
        pid_t leader = postmaster(home);
        DIR *dir = opendir("/proc");
        if (dir == NULL)
                return 0;
        for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
                if (!isdigit((unsigned char)entry->d_name[0]) || !lives_there(entry->d_name, home))
                        continue;
                pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
                /* Kindly: its postmaster ends all others, with a checkpoint. */
                if (signal == SIGTERM)
                        count += pid == leader && kill(pid, SIGINT) == 0;
                else
                        count += signal == 0 || kill(pid, signal) == 0;
        }
        closedir(dir);
        return count;
}

int lab_postgres_signal(const struct lab *lab, const struct lab_region *region, unsigned node,
                        int signal)
{
        char home[PATH_MAX], wish[LAB_PATH_MAX], name[16];
        int count = 0;
        for (unsigned i = 1; i <= lab->servers; i++) {
                server_name(i, name);
                if ((node == 0 || node == i) &&
                    lab_path(wish, "%s/%s/data/%s", lab->dir, region->name, name) &&
                    realpath(wish, home) != NULL)
                        count += home_signal(home, signal);
        }
        return count;
}
