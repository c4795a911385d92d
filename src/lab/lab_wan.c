/* lab_wan.c - the wide area between the lab's regions: round-trip times as between real regions
 * (us-east-1, eu-west-1, ap-southeast-1; median), and what was done to them on command. Kept in
 * `.lab/wan`, one line a pair, so that a node that starts again gets the same. */
#include "client/client.h"
#include "lab/lab_priv.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

static const unsigned rtt_ms[LAB_REGIONS][LAB_REGIONS] = {
        {0, 70, 220},
        {70, 0, 179},
        {220, 179, 0},
};

unsigned lab_wan_rtt_ms(size_t a, size_t b)
{
        return rtt_ms[a][b];
}

bool lab_wan_load(const struct lab *lab, struct lab_wan *ret_wan)
{
        char path[LAB_PATH_MAX];
        *ret_wan = (struct lab_wan){0};
        if (!lab_path(path, "%s/wan", lab->dir))
                return false;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return errno == ENOENT || lab_error("%s: %s", path, strerror(errno));
        unsigned a = 0;
        unsigned b = 0;
        unsigned loss = 0;
        unsigned cut = 0;
        unsigned long long slow = 0;
        while (fscanf(file, "%u %u %llu %u %u", &a, &b, &slow, &loss, &cut) == 5) {
                if (a >= LAB_REGIONS || b >= LAB_REGIONS)
                        continue;
                struct lab_wan_pair pair = {slow, loss, cut != 0};
                ret_wan->pairs[a][b] = pair;
                ret_wan->pairs[b][a] = pair;
        }
        fclose(file);
        return true;
}

bool lab_wan_save(const struct lab *lab, const struct lab_wan *wan)
{
        char path[LAB_PATH_MAX];
        char text[LAB_REGIONS * LAB_REGIONS * 80];
        size_t len = 0;
        for (size_t a = 0; a < LAB_REGIONS; a++) {
                for (size_t b = a + 1; b < LAB_REGIONS; b++) {
                        const struct lab_wan_pair *pair = &wan->pairs[a][b];
                        len += (size_t)snprintf(text + len, sizeof text - len,
                                                "%zu %zu %llu %u %u\n", a, b,
                                                (unsigned long long)pair->slow_us,
                                                pair->loss_per_mille, pair->cut ? 1u : 0u);
                }
        }
        return lab_path(path, "%s/wan", lab->dir) && lab_file_write(path, bytes_of(text, len));
}

static bool link_post(const struct lab_wan *wan, size_t from, unsigned number, size_t to, bool loud)
{
        char node[64];
        const struct lab_wan_pair *pair = &wan->pairs[from][to];
        char address[LAB_ADDRESS_SIZE];
        lab_node_address(&lab_regions[from], number, address);
        snprintf(node, sizeof node, "%s:%d", address, LAB_PORT_ADMIN);
        json_t *body =
                json_pack("{s:s, s:I, s:I, s:i, s:b}", "region", lab_regions[to].name, "delay_us",
                          (json_int_t)rtt_ms[from][to] * 500, "slow_us", (json_int_t)pair->slow_us,
                          "loss_per_mille", (int)pair->loss_per_mille, "cut", (int)pair->cut);
        char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
        json_decref(body);
        if (text == NULL)
                return lab_error("out of memory");
        struct client_answer answer;
        bool answered = client_post(node, "/lab/link", bytes_of_str(text), 3000, &answer);
        /* A region that was taken out of the topology has no link to change. */
        bool gone = answered && strstr(answer.body, "\"not found\"") != NULL;
        bool done = gone || (answered && answer.status == 200);
        if (!done && loud)
                lab_error("%s does not change its link to %s: %s", lab_regions[from].name,
                          lab_regions[to].name, answered ? answer.body : answer.error);
        client_answer_fini(&answer);
        free(text);
        return done;
}

/* A node that does not run learns it at its start. */
bool lab_wan_apply(const struct lab *lab, const struct lab_wan *wan, size_t from, bool loud)
{
        bool done = true;
        for (unsigned node = 1; node <= lab->nodes; node++) {
                if (lab->nodes > 1 &&
                    !lab_process_alive(lab, &lab_regions[from], lab_node_part(node)))
                        continue;
                for (size_t to = 0; to < LAB_REGIONS && done; to++)
                        if (to != from)
                                done = link_post(wan, from, node, to, loud);
        }
        return done;
}
