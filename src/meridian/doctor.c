/* doctor.c - `meridian doctor`: looks at this machine and its lab, or, where there is none, its
 * node; one line a check: what was looked at, what was found, and what to do where it is wrong.
 * With --json an array of checks. */
#include "config/config.h"
#include "lab/lab.h"
#include "meridian/cli.h"
#include "pki/pki.h"
#include "term/term.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct doctor {
        json_t *checks;            /* with --json; else NULL */
        bool lab;                  /* this machine has one */
        bool witness[LAB_REGIONS]; /* of the lab's regions: as its node says */
        unsigned bad;
};

static void finding(struct doctor *doctor, bool good, const char *what, const char *format, ...)
        PRINTF_LIKE(4, 5);

static void finding(struct doctor *doctor, bool good, const char *what, const char *format, ...)
{
        char found[1024];
        va_list args;
        va_start(args, format);
        vsnprintf(found, sizeof found, format, args);
        va_end(args);
        doctor->bad += good ? 0 : 1;
        if (doctor->checks != NULL) {
                (void)json_array_append_new(
                        doctor->checks,
                        json_pack("{sssbss}", "what", what, "good", (int)good, "found", found));
                return;
        }
        printf("  %s%s%s ", term_style(good ? TERM_GOOD : TERM_BAD),
               term_symbol(good ? TERM_OK : TERM_FAIL), term_style(TERM_PLAIN));
        term_cell(TERM_PLAIN, what, 28);
        term_sentence(TERM_PLAIN, found, 32);
}

/* ---- programs ---- */

static bool program_find(const char *name, char *path, size_t size)
{
        static const char more[] = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:"
                                   "/usr/lib/postgresql/15/bin";
        const char *lists[2] = {getenv("PATH"), more};
        for (size_t i = 0; i < COUNT_OF(lists); i++) {
                for (const char *at = lists[i]; at != NULL && *at != '\0';) {
                        size_t len = strcspn(at, ":");
                        snprintf(path, size, "%.*s/%s", (int)len, at, name);
                        if (access(path, X_OK) == 0)
                                return true;
                        at += len + (at[len] == ':' ? 1 : 0);
                }
        }
        return false;
}

static void look_programs(struct doctor *doctor)
{
        static const struct {
                const char *program;
                const char *package;
        } rows[] = {
                {"redis-server", "redis-server"},
                {"knotd", "knot"},
                {"nginx", "nginx-core"},
                {"postgres", "postgresql-15"},
        };
        char path[512];
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (program_find(rows[i].program, path, sizeof path))
                        finding(doctor, true, rows[i].program, "%s", path);
                else
                        finding(doctor, false, rows[i].program,
                                "not found: run scripts/install-deps (Debian package %s)",
                                rows[i].package);
        }
}

/* ---- the checkout ---- */

static void look_disk(struct doctor *doctor, const char *dir)
{
        struct statvfs disk;
        if (statvfs(dir, &disk) != 0) {
                finding(doctor, false, "disk", "%s: %s", dir, strerror(errno));
                return;
        }
        unsigned long long mb = (unsigned long long)disk.f_bavail * disk.f_frsize >> 20;
        finding(doctor, mb >= 200, "disk", "%llu MB free at %s%s", mb, dir,
                mb >= 200 ? "" : ": make room");
}

static void look_certificate(struct doctor *doctor, const char *name, const struct pki_files *files,
                             const char *renew)
{
        char what[80];
        struct pki_error error = {""};
        int64_t days = 0;
        snprintf(what, sizeof what, "certificate %s", name);
        if (pki_node_verify(files, NULL, &days, &error) == ERR_NONE)
                finding(doctor, days > 30, what, "valid for %lld days%s", (long long)days,
                        days > 30 ? "" : renew);
        else
                finding(doctor, false, what, "%s", error.text);
}

static void look_certificates(struct doctor *doctor, const char *lab)
{
        char ca[1200];
        char cert[1200];
        char key[1200];
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                snprintf(ca, sizeof ca, "%s/pki/%s/ca.crt", lab, lab_regions[i].name);
                snprintf(cert, sizeof cert, "%s/pki/%s/node.crt", lab, lab_regions[i].name);
                snprintf(key, sizeof key, "%s/pki/%s/node.key", lab, lab_regions[i].name);
                struct pki_files files = {.ca = ca, .cert = cert, .key = key, .crl = NULL};
                look_certificate(doctor, lab_regions[i].name, &files,
                                 ": `meridian lab down --wipe`, then `make lab`");
        }
}

/* ---- a node's machine ---- */

static void look_machine(struct doctor *doctor)
{
        static struct config config; /* large */
        struct config_error error;
        const char *path = cli_config_path();
        if (config_load(path, &config, &error) != ERR_NONE) {
                finding(doctor, false, "configuration", "%s", error.text);
                return;
        }
        struct pki_files files = {
                .ca = config.pki_ca, .cert = config.pki_cert, .key = config.pki_key};
        if (config.pki_crl[0] != '\0')
                files.crl = config.pki_crl;
        finding(doctor, true, "configuration", "%s: node %u in %s", path, config.node,
                config.region);
        look_certificate(doctor, config.region, &files,
                         ": `meridian pki node` makes a new one; then restart meridiand");
        look_disk(doctor, config.data_dir);
}

/* ---- what runs ---- */

static double wall_now(void)
{
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A witness has no servers to look for. */
static void witnesses_mark(struct doctor *doctor, json_t *regions)
{
        size_t index;
        json_t *region;
        json_array_foreach(regions, index, region)
        {
                const char *name = json_string_value(json_object_get(region, "name"));
                for (size_t i = 0; name != NULL && i < LAB_REGIONS; i++)
                        if (strcmp(lab_regions[i].name, name) == 0 &&
                            json_is_true(json_object_get(region, "witness")))
                                doctor->witness[i] = true;
        }
}

/* The node's own server, where it has one: what it is, and whether it keeps up. */
static void look_postgres(struct doctor *doctor, json_t *postgres)
{
        size_t i;
        json_t *server;
        char what[128];
        const char *self = json_string_value(json_object_get(postgres, "self"));
        const char *writer = json_string_value(json_object_get(postgres, "writer"));
        snprintf(what, sizeof what, "PostgreSQL %s", self == NULL ? "" : self);
        json_array_foreach(json_object_get(postgres, "servers"), i, server)
        {
                const char *node = json_string_value(json_object_get(server, "node"));
                const char *role = json_string_value(json_object_get(server, "role"));
                const char *state = json_string_value(json_object_get(server, "server"));
                if (self == NULL || node == NULL || role == NULL || strcmp(self, node) != 0)
                        continue;
                bool good = strcmp(role, "standby") == 0
                                    ? json_is_true(json_object_get(server, "following"))
                                    : strcmp(role, "primary") == 0;
                finding(doctor, good && writer != NULL, what, "%s (%s), the writer is %s%s", role,
                        state == NULL ? "?" : state, writer == NULL ? "not known" : writer,
                        good ? "" : ": `meridian status` and `meridian events` say why");
        }
}

static void look_node(struct doctor *doctor, const struct cli_node *node)
{
        struct client_answer answer;
        char what[128];
        snprintf(what, sizeof what, "node %s", node->admin);
        if (!client_get(node->admin, "/status", 3000, &answer) || answer.status != 200) {
                finding(doctor, false, what, "%s: %s",
                        answer.status == 0 ? answer.error : "refuses to tell its status",
                        doctor->lab ? "`meridian lab start REGION`, or `make lab`"
                                    : "does meridiand run? (systemctl status meridiand)");
                client_answer_fini(&answer);
                return;
        }
        json_t *json = json_loads(answer.body, 0, NULL);
        const char *region = json_string_value(json_object_get(json, "region"));
        bool majority = json_is_true(json_object_get(json, "majority"));
        bool stopped = json_is_true(json_object_get(json, "stopped"));
        json_t *time = json_object_get(json, "time");
        finding(doctor, json != NULL && majority && !stopped, what, "%s, %s%s",
                region == NULL ? "?" : region, majority ? "with a majority" : "without a majority",
                stopped ? ", its journal failed: look at its log, then start it again" : "");
        if (json_is_number(time)) {
                double off = json_number_value(time) - wall_now();
                snprintf(what, sizeof what, "clock %s", node->admin);
                finding(doctor, off < 1 && off > -1, what, "%.3f s from this machine's%s", off,
                        off < 1 && off > -1 ? "" : ": set it by NTP (chrony)");
        }
        look_postgres(doctor, json_object_get(json, "postgres"));
        witnesses_mark(doctor, json_object_get(json, "regions"));
        json_decref(json);
        client_answer_fini(&answer);
}

static bool module_listed(const redisReply *reply)
{
        for (size_t i = 0; reply != NULL && i < reply->elements; i++) {
                const redisReply *module = reply->element[i];
                for (size_t j = 0; j < module->elements; j++) {
                        if (module->element[j]->type == REDIS_REPLY_STRING &&
                            strcmp(module->element[j]->str, "meridian") == 0)
                                return true;
                }
        }
        return false;
}

static void look_redis(struct doctor *doctor, const struct lab_region *region)
{
        struct timeval timeout = {.tv_sec = 2};
        char what[64];
        snprintf(what, sizeof what, "Redis %s", region->name);
        redisContext *context = redisConnectWithTimeout(region->address, LAB_PORT_REDIS, timeout);
        if (context == NULL || context->err != 0) {
                finding(doctor, false, what, "%s:%d: %s: `meridian lab start %s`", region->address,
                        LAB_PORT_REDIS, context == NULL ? "out of memory" : context->errstr,
                        region->name);
        } else {
                redisReply *reply = redisCommand(context, "MODULE LIST");
                bool listed = module_listed(reply);
                finding(doctor, listed, what, "%s",
                        listed ? "the module is loaded"
                               : "runs without the module: look at loadmodule in its redis.conf");
                freeReplyObject(reply);
        }
        redisFree(context);
}

int cli_doctor(struct cli *cli)
{
        struct doctor doctor = {.checks = cli->json ? json_array() : NULL};
        char lab[1024];
        bool found = lab_find(lab, sizeof lab);
        doctor.lab = found;
        if (!found && access(cli_config_path(), F_OK) == 0) {
                look_machine(&doctor);
        } else {
                look_programs(&doctor);
                look_disk(&doctor, found ? lab : ".");
        }
        if (found)
                look_certificates(&doctor, lab);
        /* What is wrong with the configuration was a finding above. */
        bool named = cli_nodes_find(cli);
        for (size_t i = 0; named && i < cli->node_count; i++)
                look_node(&doctor, &cli->nodes[i]);
        for (size_t i = 0; found && i < LAB_REGIONS; i++)
                if (!doctor.witness[i])
                        look_redis(&doctor, &lab_regions[i]);
        if (doctor.checks != NULL)
                cli_print_json(doctor.checks);
        else if (doctor.bad == 0)
                printf("all is well\n");
        else
                printf("%u %s wrong\n", doctor.bad, doctor.bad == 1 ? "thing is" : "things are");
        json_decref(doctor.checks);
        return doctor.bad == 0 ? CLI_DONE : CLI_FAILED;
}
