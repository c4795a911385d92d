/* What concerns the process alone. Nothing here can fail in a way that should stop the daemon,
 * except that no randomness can be had. */
#include "base/check.h"
#include "base/log.h"
#include "meridiand/daemon.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DESCRIPTORS_WISHED 65536
#define DESCRIPTORS_ENOUGH 4096

void system_descriptors_raise(void)
{
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
                return;
        rlim_t wished = limit.rlim_max < DESCRIPTORS_WISHED ? limit.rlim_max : DESCRIPTORS_WISHED;
        if (limit.rlim_cur >= wished)
                return;
        limit.rlim_cur = wished;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || wished < DESCRIPTORS_ENOUGH)
                LOG_WARN("descriptors",
                         "at most %llu connections and files can be open; raise the limit "
                         "(LimitNOFILE=, ulimit -n)",
                         (unsigned long long)limit.rlim_cur);
}

void system_signals_ignore(void)
{
        struct sigaction ignore = {.sa_handler = SIG_IGN};
        sigaction(SIGPIPE, &ignore, NULL);
        sigaction(SIGXFSZ, &ignore, NULL);
}

void system_notify(const char *state)
{
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody here changes the environment */
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        if (path == NULL || path[0] == '\0' || strlen(path) >= sizeof to.sun_path)
                return;
        size_t len = strlen(path);
        memcpy(to.sun_path, path, len);
        if (path[0] == '@')
                to.sun_path[0] = '\0';
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return;
        socklen_t to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
        if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, to_len) <
            0)
                LOG_WARN("notify", "systemd cannot be told: NOTIFY_SOCKET is %s", path);
        close(fd);
}

uint64_t system_seed(void)
{
        uint64_t seed = 0;
        ssize_t len = getrandom(&seed, sizeof seed, 0);
        CHECK(len == (ssize_t)sizeof seed); /* as many as this are never cut short */
        return seed;
}
