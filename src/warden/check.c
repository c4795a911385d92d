/* check.c - what PostgreSQL refuses to start for, found before it is asked: who made the data
 * folder, whose it is, who may read it, whether the address is free. Each sentence says what is
 * wrong, where, and what to do. What is found too late, as the world changes in between, stands in
 * the server's log or in the program's own words; for those that are known there is advice. */
#include "warden/warden_priv.h"

#include <errno.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define VERSION "15" /* for which the extension, and what this room reads, are made */

static bool version_check(const struct warden *warden, const char *data, struct fail *fail)
{
        char path[WARDEN_PATH_SIZE], version[16];
        if (!path_set(path, "%s/PG_VERSION", data) ||
            !file_read(path, version, sizeof version, NULL))
                return fail_set(fail,
                                "%s cannot be read, so %s is no whole cluster: restore it, or move "
                                "the folder away, and it is made anew from the primary",
                                path, data);
        version[strcspn(version, "\r\n")] = '\0';
        if (strcmp(version, VERSION) == 0)
                return true;
        return fail_set(fail,
                        "%s was made by PostgreSQL %s, and %s is of " VERSION ": upgrade it "
                        "(pg_upgrade), or move it away, and it is made anew from the primary",
                        data, version, warden->config.bin);
}

static void user_name(uid_t uid, char *name, size_t size)
{
        char store[4096];
        struct passwd entry;
        struct passwd *found = NULL;
        if (getpwuid_r(uid, &entry, store, sizeof store, &found) == 0 && found != NULL)
                (void)snprintf(name, size, "%s", found->pw_name);
        else
                (void)snprintf(name, size, "%u", uid);
}

bool check_owner(const struct warden *warden, struct fail *fail)
{
        const char *data = warden->paths.data;
        char theirs[WARDEN_NAME_SIZE], ours[WARDEN_NAME_SIZE];
        struct stat info;
        if (stat(data, &info) != 0 && errno == ENOENT)
                return true;
        if (stat(data, &info) != 0)
                return fail_set(fail, "%s cannot be seen (error %d)", data, errno);
        if (info.st_uid != warden->uid) {
                user_name(info.st_uid, theirs, sizeof theirs);
                user_name(warden->uid, ours, sizeof ours);
                return fail_set(fail,
                                "%s belongs to %s, and the server runs as %s: `chown -R %s %s`, or "
                                "correct the key 'postgres user'",
                                data, theirs, ours, ours, data);
        }
        if ((info.st_mode & (S_IWGRP | S_IRWXO)) != 0)
                return fail_set(fail,
                                "%s is open to other users (mode %03o), which PostgreSQL refuses: "
                                "`chmod 700 %s`",
                                data, info.st_mode & 0777u, data);
        if ((info.st_mode & S_IRWXU) != S_IRWXU)
                return fail_set(fail, "%s is closed to its owner (mode %03o): `chmod 700 %s`", data,
                                info.st_mode & 0777u, data);
        return true;
}

bool check_folder(const struct warden *warden, struct fail *fail)
{
        return check_owner(warden, fail) && version_check(warden, warden->paths.data, fail);
}

/* 0, or why the address cannot be listened on. */
static int bind_try(const struct addrinfo *place)
{
        static const int on = 1;
        int fd = socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int number = fd < 0 ? errno : 0;
        if (number != 0)
                return number;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, place->ai_addr, place->ai_addrlen) != 0 || listen(fd, 1) != 0)
                number = errno;
        close(fd);
        return number;
}

bool check_address(const struct warden *warden, struct fail *fail)
{
        const struct topology_endpoint *listen_at = &warden->config.listen;
        char host[TOPOLOGY_ADDRESS_TEXT], port[8];
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
        struct addrinfo *place = NULL;
        (void)topology_address_text(&listen_at->address, host);
        (void)snprintf(port, sizeof port, "%u", listen_at->port);
        if (getaddrinfo(host, port, &hints, &place) != 0 || place == NULL)
                return true; /* PostgreSQL says what is wrong with it */
        int number = bind_try(place);
        freeaddrinfo(place);
        if (number == EADDRINUSE)
                return fail_set(fail,
                                "%s:%s is in use by another program (`ss -tlnp` names it): end it, "
                                "or name another address by the key 'postgres server'",
                                host, port);
        if (number == EADDRNOTAVAIL)
                return fail_set(fail,
                                "%s is no address of this machine: correct the key 'postgres "
                                "server'",
                                host);
        return true;
}

bool check_room(const char *path, uint64_t *ret_free, uint64_t *ret_size)
{
        struct statvfs disk;
        if (statvfs(path, &disk) != 0)
                return false;
        *ret_free = (uint64_t)disk.f_bavail * disk.f_frsize;
        *ret_size = (uint64_t)disk.f_blocks * disk.f_frsize;
        return true;
}

/* ---- advice ---- */

enum place {
        PLACE_DATA,
        PLACE_PASSWORD,
};

static const struct {
        const char *words;
        const char *before;
        enum place place;
        const char *behind;
} advices[] = {
        {"No space left on device", "make room where", PLACE_DATA, " is"},
        {"Disk quota exceeded", "make room where", PLACE_DATA, " is"},
        {"Read-only file system", "the system has taken the disk away of", PLACE_DATA,
         ": its log says why"},
        {"password authentication failed", "the password in", PLACE_PASSWORD,
         " has to be the same on all nodes"},
        {"checksum error occurred", "the other server's own files are damaged, and nothing came to",
         PLACE_DATA, ""},
};

void check_advise(const struct warden *warden, struct fail *fail)
{
        char advice[WARDEN_TEXT_SIZE / 2];
        size_t len = strlen(fail->text);
        for (size_t i = 0; i < COUNT_OF(advices); i++) {
                if (strstr(fail->text, advices[i].words) == NULL)
                        continue;
                (void)snprintf(advice, sizeof advice, "; %s %.150s%s", advices[i].before,
                               advices[i].place == PLACE_PASSWORD ? warden->config.password
                                                                  : warden->paths.data,
                               advices[i].behind);
                /* The end of what was said goes where there is no room. */
                size_t most = sizeof fail->text - 1 - strlen(advice);
                if (len > most)
                        len = most;
                memcpy(fail->text + len, advice, strlen(advice) + 1);
                return;
        }
}
