/* What a road's connections are, for people: a list that is made when somebody asks. Bytes are
 * those that the kernel counted on the client's, or the server's, socket, so a client that its
 * server has taken over costs nothing until then. */
#include "road/pass.h"
#include "road/road_priv.h"

#include <arpa/inet.h>

static const char *const state_names[] = {
        [WAY_FIRST] = "greeting", [WAY_WAITING] = "waiting", [WAY_OPENING] = "opening",
        [WAY_OPEN] = "open",      [WAY_PASSED] = "passed",   [WAY_REFUSING] = "refusing",
        [WAY_CLOSED] = "closed",
};

static void client_name(const struct way *way, struct road_session *session)
{
        struct sockaddr_storage name;
        struct pass_ask place = {0};
        int len = sizeof name;
        session->client[0] = '\0';
        if (way->plugs[0].made &&
            uv_tcp_getpeername(&way->plugs[0].tcp, (struct sockaddr *)&name, &len) == 0 &&
            pass_place(&name, &place) &&
            inet_ntop(place.family, place.address, session->client, sizeof session->client) != NULL)
                session->client_port = place.port;
}

static void count(const struct way *way, struct road_session *session)
{
        uint64_t came, sent;
        uv_os_fd_t fd = -1;
        if (!way->plugs[0].made || uv_fileno((const uv_handle_t *)&way->plugs[0].tcp, &fd) != 0 ||
            !pass_counts(fd, &came, &sent))
                return;
        /* The socket of a far way is the server's: what comes by it is what the client gets. */
        session->from_client = way->near ? came : sent;
        session->to_client = way->near ? sent : came;
}

void road_sessions(const struct road *road,
                   void (*each)(void *user, const struct road_session *session), void *user)
{
        uint64_t now_us = road_now_us(road);
        for (const struct way *way = road->ways; way != NULL; way = way->next) {
                struct road_session session = {
                        .door = way->door,
                        .state = state_names[way->state],
                        .peer = way->near ? 0 : way->tunnel.peer,
                        .server = way->target,
                        .epoch = way->epoch,
                        .age_us = now_us - way->begun_us,
                };
                if (way->courier || way->cancel || way->state == WAY_CLOSED)
                        continue;
                if (way->near)
                        client_name(way, &session);
                count(way, &session);
                each(user, &session);
        }
}
