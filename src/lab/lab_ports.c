/* lab_ports.c - are the lab's addresses and ports free, and if not, who has them.
 *
 * The look is a bind of our own, as the server would do it, so that whatever hinders the server
 * hinders us. Who it is comes from /proc; of another user's process only the port is told. */
#include "lab/lab_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct port_row {
        enum lab_part part; /* that listens there */
        int port;
        bool udp;
        const char *what;
};

static const struct port_row port_rows[] = {
        {LAB_REDIS, LAB_PORT_REDIS, false, "Redis"},
        {LAB_KNOT, LAB_PORT_DNS, false, "DNS"},
        {LAB_KNOT, LAB_PORT_DNS, true, "DNS"},
        {LAB_NGINX, LAB_PORT_EDGE, false, "the edge"},
        {LAB_MERIDIAND, LAB_PORT_ADMIN, false, "administration"},
        {LAB_MERIDIAND, LAB_PORT_LINK, false, "the link"},
        {LAB_MERIDIAND, LAB_PORT_LOCKS, false, "locks"},
        {LAB_MERIDIAND, LAB_PORT_POSTGRES_WRITE, false, "PostgreSQL, to write"},
        {LAB_MERIDIAND, LAB_PORT_POSTGRES_READ, false, "PostgreSQL, to read"},
        {LAB_MERIDIAND, LAB_PORT_POSTGRES_FOLLOW, false, "PostgreSQL, to follow"},
        {LAB_MERIDIAND, LAB_PORT_POSTGRES, false, "PostgreSQL"},
        {LAB_BACKEND_1, LAB_PORT_BACKEND, false, "a sample backend"},
        {LAB_BACKEND_2, LAB_PORT_BACKEND + 1, false, "a sample backend"},
};

/* 0, or the errno of a bind. */
static int bind_try(const char *address, int port, bool udp)
{
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        int one = 1;
        inet_pton(AF_INET, address, &name.sin_addr);
        int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return errno;
        if (!udp)
                setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        int number = bind(fd, (struct sockaddr *)&name, sizeof name) == 0 ? 0 : errno;
        if (number == 0 && !udp && listen(fd, 1) != 0)
                number = errno;
        close(fd);
        return number;
}

/* The inode of the socket that is bound to the port there, or everywhere; 0: not found. */
static unsigned long socket_find(const char *file, const char *address, int port, bool udp)
{
        struct in_addr want;
        char line[512];
        unsigned long found = 0;
        inet_pton(AF_INET, address, &want);
        FILE *table = fopen(file, "re");
        if (table == NULL)
                return 0;
        while (found == 0 && fgets(line, sizeof line, table) != NULL) {
                char host[40];
                unsigned at = 0;
                unsigned state = 0;
                unsigned long inode = 0;
                if (sscanf(line,
                           " %*d: %39[0-9A-Fa-f]:%X %*[0-9A-Fa-f]:%*X %X %*s %*s %*s %*u %*u %lu",
                           host, &at, &state, &inode) != 4 ||
                    at != (unsigned)port || (!udp && state != 0x0a))
                        continue;
                bool any = strspn(host, "0") == strlen(host);
                bool same = strlen(host) == 8 && strtoul(host, NULL, 16) == want.s_addr;
                if (any || same)
                        found = inode;
        }
        fclose(table);
        return found;
}

static bool process_has(pid_t pid, const char *socket_name)
{
        char path[64];
        char target[64];
        bool found = false;
        snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
        DIR *dir = opendir(path);
        if (dir == NULL)
                return false;
        for (struct dirent *entry = readdir(dir); entry != NULL && !found; entry = readdir(dir)) {
                ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
                if (len <= 0)
                        continue;
                target[len] = '\0';
                found = strcmp(target, socket_name) == 0;
        }
        closedir(dir);
        return found;
}

static pid_t socket_owner(unsigned long inode)
{
        char name[64];
        pid_t owner = 0;
        snprintf(name, sizeof name, "socket:[%lu]", inode);
        DIR *dir = opendir("/proc");
        if (dir == NULL)
                return 0;
        for (struct dirent *entry = readdir(dir); entry != NULL && owner == 0;
             entry = readdir(dir)) {
                if (!isdigit((unsigned char)entry->d_name[0]))
                        continue;
                pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
                if (process_has(pid, name))
                        owner = pid;
        }
        closedir(dir);
        return owner;
}

static void read_word(const char *path, char *text, size_t size)
{
        text[0] = '\0';
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return;
        if (fgets(text, (int)size, file) != NULL)
                text[strcspn(text, "\n")] = '\0';
        fclose(file);
}

/* Cuts a folder down to the lab that it lies in; false where it lies in none. */
static bool lab_of(char *dir)
{
        char mark[LAB_PATH_MAX + 16];
        for (char *slash = strrchr(dir, '/'); slash != NULL && slash != dir;
             slash = strrchr(dir, '/')) {
                snprintf(mark, sizeof mark, "%s/started", dir);
                if (access(mark, F_OK) == 0)
                        return true;
                *slash = '\0';
        }
        return false;
}

/* "redis-server, pid 12, of the lab in /home/u/other": what is known of who has a port. False: it
 * is of a lab that was named before, which has most of them. */
static bool owner_describe(const struct lab *lab, pid_t pid, char *text, size_t size)
{
        static char named[LAB_PATH_MAX];
        char path[64];
        char name[64];
        char cwd[LAB_PATH_MAX];
        if (pid == 0) {
                snprintf(text, size, "another user's process (as root: ss -ltnup)");
                return true;
        }
        snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
        read_word(path, name, sizeof name);
        snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
        ssize_t len = readlink(path, cwd, sizeof cwd - 1);
        cwd[len > 0 ? len : 0] = '\0';
        if (!lab_of(cwd)) {
                snprintf(text, size, "%s, pid %d: end it", name, (int)pid);
                return true;
        }
        if (strcmp(cwd, named) == 0)
                return false;
        memcpy(named, cwd, sizeof named);
        size_t len_root = strlen(cwd) - strlen("/.lab");
        if (strlen(cwd) > strlen("/.lab") && strcmp(cwd + len_root, "/.lab") == 0)
                snprintf(text, size, "%s, pid %d, of the lab in %.*s: run `make -C %.*s lab-down`",
                         name, (int)pid, (int)len_root, cwd, (int)len_root, cwd);
        else
                snprintf(text, size,
                         "%s, pid %d, of the lab in %s: run `MERIDIAN_LAB=%s %s lab down`", name,
                         (int)pid, cwd, cwd, lab->self);
        return true;
}

/* Of the region's nodes the one that a row is of. */
static unsigned node_of(const struct port_row *row)
{
        return row->part == LAB_NODE_2 ? 2 : row->part == LAB_NODE_3 ? 3 : 1;
}

static bool port_free(const struct lab *lab, const struct lab_region *region,
                      const struct port_row *row)
{
        char who[LAB_PATH_MAX * 4];
        bool postgres =
                row->port >= LAB_PORT_POSTGRES_WRITE && row->port <= LAB_PORT_POSTGRES_FOLLOW;
        if (lab_process_alive(lab, region, row->part) || (postgres && !lab_postgres_used(lab)) ||
            (row->port == LAB_PORT_POSTGRES &&
             lab_postgres_signal(lab, region, node_of(row), 0) > 0))
                return true;
        int number = bind_try(region->address, row->port, row->udp);
        if (number == 0)
                return true;
        const char *kind = row->udp ? "UDP" : "TCP";
        if (number != EADDRINUSE)
                return lab_error("%s:%d (%s, %s) cannot be used: %s", region->address, row->port,
                                 kind, row->what, strerror(number));
        unsigned long inode = socket_find(row->udp ? "/proc/net/udp" : "/proc/net/tcp",
                                          region->address, row->port, row->udp);
        if (inode == 0)
                inode = socket_find(row->udp ? "/proc/net/udp6" : "/proc/net/tcp6", region->address,
                                    row->port, row->udp);
        if (!owner_describe(lab, inode == 0 ? 0 : socket_owner(inode), who, sizeof who))
                return false;
        return lab_error("%s:%d (%s, %s of %s) is in use by %s", region->address, row->port, kind,
                         row->what, region->name, who);
}

/* The doors of the other nodes, at addresses of their own. */
static bool nodes_free(const struct lab *lab, size_t index)
{
        static const int ports[] = {LAB_PORT_ADMIN,         LAB_PORT_LINK,
                                    LAB_PORT_LOCKS,         LAB_PORT_POSTGRES_WRITE,
                                    LAB_PORT_POSTGRES_READ, LAB_PORT_POSTGRES_FOLLOW,
                                    LAB_PORT_POSTGRES};
        bool all_free = true;
        for (unsigned node = 2; node <= lab_nodes_of(lab, &lab_regions[index]); node++) {
                struct lab_region at = lab_regions[index];
                char address[LAB_ADDRESS_SIZE];
                lab_node_address(&lab_regions[index], node, address);
                at.address = address;
                size_t count = node <= lab->servers ? COUNT_OF(ports) : 3;
                for (size_t i = 0; i < count; i++) {
                        struct port_row row = {lab_node_part(node), ports[i], false, "a node"};
                        all_free = port_free(lab, &at, &row) && all_free;
                }
        }
        return all_free;
}

bool lab_ports_free(const struct lab *lab, const struct lab_region *region)
{
        bool all_free = true;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (region != NULL && region != &lab_regions[i])
                        continue;
                for (size_t j = 0; j < COUNT_OF(port_rows); j++)
                        all_free = port_free(lab, &lab_regions[i], &port_rows[j]) && all_free;
                all_free = nodes_free(lab, i) && all_free;
        }
        return all_free;
}
