/* meridiand -c FILE [--check]: runs a node in the foreground, logging to stderr, until SIGTERM
 * or SIGINT. Exit status: 0 stopped in order (or the check found nothing), 1 failed, 2 wrong
 * usage or configuration. */
#include "base/log.h"
#include "meridiand/daemon.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage_text[] = "Usage: meridiand -c FILE [--check]\n"
                                 "\n"
                                 "Runs one node of a Meridian cluster in the foreground.\n"
                                 "\n"
                                 "  -c, --config FILE  the configuration\n"
                                 "      --check        check configuration, topology and "
                                 "certificate, say what PostgreSQL's\n"
                                 "                     data would become, and end\n"
                                 "      --version      print the version and end\n"
                                 "  -h, --help         print this and end\n";

struct arguments {
        const char *config;
        bool check;
};

/* Fills the arguments; otherwise *ret_status is what to end with. */
static bool arguments_parse(int argc, char **argv, struct arguments *arguments, int *ret_status)
{
        static const struct option options[] = {
                {"config", required_argument, NULL, 'c'},
                {"check", no_argument, NULL, 'k'},
                {"version", no_argument, NULL, 'v'},
                {"help", no_argument, NULL, 'h'},
                {NULL, 0, NULL, 0},
        };
        int option;
        *ret_status = 2;
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread runs yet */
        while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
                if (option == 'c') {
                        arguments->config = optarg;
                } else if (option == 'k') {
                        arguments->check = true;
                } else if (option == 'v') {
                        printf("meridiand %s\n", MERIDIAN_VERSION);
                        *ret_status = 0;
                        return false;
                } else {
                        fputs(usage_text, option == 'h' ? stdout : stderr);
                        *ret_status = option == 'h' ? 0 : 2;
                        return false;
                }
        }
        if (optind < argc || arguments->config == NULL) {
                fprintf(stderr, "meridiand: %s\n\n%s",
                        optind < argc ? "an argument too many" : "no configuration; give -c FILE",
                        usage_text);
                return false;
        }
        return true;
}

/* One line for a person who asked for the check. */
static void check_report(const struct daemon *daemon, const char *path, int64_t days_left)
{
        printf("%s is good: node %u of region %s in cluster %s; the certificate ends in %lld "
               "days\n",
               path, daemon->config.node, daemon->config.region, daemon->config.cluster,
               (long long)days_left);
}

static int run(struct daemon *daemon, const struct arguments *arguments)
{
        struct config_error error;
        int64_t days_left;
        if (config_load(arguments->config, &daemon->config, &error) != ERR_NONE) {
                fprintf(stderr, "meridiand: %s\n", error.text);
                return 2;
        }
        log_start("meridiand", daemon->config.log_level);
        if (!daemon_check(daemon, &days_left))
                return 2;
        if (arguments->check) {
                check_report(daemon, arguments->config, days_left);
                return daemon_plan(&daemon->config) ? 0 : 1;
        }
        if (days_left < 30)
                LOG_WARN("certificate", "the certificate ends in %lld days: issue a new one",
                         (long long)days_left);
        system_signals_ignore();
        system_descriptors_raise();
        return daemon_run(daemon);
}

int main(int argc, char **argv)
{
        struct arguments arguments = {NULL, false};
        int status;
        log_start("meridiand", LOG_LEVEL_INFO);
        if (!arguments_parse(argc, argv, &arguments, &status))
                return status;
        struct daemon *daemon = calloc(1, sizeof *daemon);
        if (daemon == NULL) {
                fputs("meridiand: no memory\n", stderr);
                return 1;
        }
        heap_init(&daemon->heap, 0);
        buffer_init(&daemon->board, &daemon->heap);
        daemon->lock_fd = -1;
        status = run(daemon, &arguments);
        heap_free(&daemon->heap, daemon->document);
        free(daemon);
        return status;
}
