/* lab_up.c - `meridian lab up`: uses what runs where it fits, ends what does not, starts all, waits
 * until it is well, and says what can be tried. */
#include "lab/lab_priv.h"
#include "term/table.h"

#include <sys/stat.h>
#include <time.h>

#define UP_TIMEOUT_MS 60000

static time_t newest_of(const struct lab *lab)
{
        const char *paths[] = {lab->self,         lab->programs[LAB_MERIDIAND],
                               lab->plugin_redis, lab->plugin_knot,
                               lab->plugin_nginx, lab->plugin_postgres};
        time_t newest = 0;
        struct stat file;
        for (size_t i = 0; i < COUNT_OF(paths); i++) {
                if (stat(paths[i], &file) == 0 && file.st_mtime > newest)
                        newest = file.st_mtime;
        }
        return newest;
}

/* Was what runs started from an older build than the one at hand. */
static bool build_is_newer(const struct lab *lab)
{
        char path[LAB_PATH_MAX];
        struct stat file;
        return lab_path(path, "%s/started", lab->dir) &&
               (stat(path, &file) != 0 || file.st_mtime < newest_of(lab));
}

static void cell_row(struct term_table *table, const struct lab *lab, const char *what, int port)
{
        bool node = port == LAB_PORT_LOCKS || port == LAB_PORT_ADMIN;
        term_table_cell(table, TERM_DIM, "%s", what);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (!node && lab_is_witness(lab, &lab_regions[i]))
                        term_table_cell(table, TERM_DIM, "- (a witness)");
                else
                        term_table_cell(table, TERM_PLAIN, "%s:%d", lab_regions[i].address, port);
        }
}

static void print_table(const struct lab *lab)
{
        struct term_table table;
        term_table_init(&table, 1 + LAB_REGIONS);
        term_table_cell(&table, TERM_PLAIN, "%s", "");
        for (size_t i = 0; i < LAB_REGIONS; i++)
                term_table_cell(&table, TERM_HEAD, "%s", lab_regions[i].name);
        term_table_cell(&table, TERM_DIM, "stands in for");
        for (size_t i = 0; i < LAB_REGIONS; i++)
                term_table_cell(&table, TERM_PLAIN, "%s", lab_regions[i].place);
        cell_row(&table, lab, "Redis", LAB_PORT_REDIS);
        if (lab_postgres_used(lab)) {
                cell_row(&table, lab, "PostgreSQL, writes", LAB_PORT_POSTGRES_WRITE);
                cell_row(&table, lab, "PostgreSQL, reads", LAB_PORT_POSTGRES_READ);
        }
        cell_row(&table, lab, "DNS example.test", LAB_PORT_DNS);
        cell_row(&table, lab, "edge, HTTP", LAB_PORT_EDGE);
        cell_row(&table, lab, "locks, RESP", LAB_PORT_LOCKS);
        cell_row(&table, lab, "admin, HTTP", LAB_PORT_ADMIN);
        putchar('\n');
        term_table_print(&table);
}

static void print_try(const struct lab *lab)
{
        static const char *const lines[] = {
                "kdig @127.20.0.1 -p 5353 www.example.test +subnet=81.2.69.160/27 +short",
                "curl -i http://127.20.0.1:8080/",
                "build/meridian lock acquire global:config me 30s",
                "build/meridian lab kill us-east; sleep 3; build/meridian status",
        };
        printf("\n%sTry:%s\n", term_style(TERM_HEAD), term_style(TERM_PLAIN));
        /* What one region has reaches another after the delay of the wide area. */
        printf("  redis-cli -h 127.10.0.1 set word hello; sleep 1; redis-cli -h %s get word\n",
               lab_regions[lab->witness ? 1 : 2].address);
        if (lab_postgres_used(lab))
                printf("  psql postgresql://app:app@127.20.0.1/app -c 'SELECT "
                       "inet_server_addr()'\n");
        for (size_t i = 0; i < COUNT_OF(lines); i++)
                printf("  %s\n", lines[i]);
        printf("\n`build/meridian status` shows all of it; `build/meridian lab down` ends it.\n");
}

/* Ends what cannot be used again. *ret_reuse: all runs, from this build. */
static bool up_earlier(const struct lab *lab, bool postgres, bool *ret_reuse)
{
        unsigned alive = lab_alive_count(lab, NULL);
        bool same = lab_postgres_used(lab) == postgres;
        *ret_reuse = alive == lab_part_count(lab) && !build_is_newer(lab) && same;
        if (*ret_reuse)
                return true;
        if (lab_signal_all(lab, NULL, 0) > 0) {
                const char *why = alive != lab_part_count(lab) ? "only a part of it runs"
                                  : same                       ? "it runs from an older build"
                                                               : "it has other parts";
                if (!lab_stop_all(lab, NULL))
                        return false;
                lab_step("earlier lab", "ended (%s); its data stays", why);
        }
        return lab_postgres_use(lab, postgres);
}

static bool up_start(const struct lab *lab)
{
        struct lab_wan wan = {0};
        char path[LAB_PATH_MAX];
        if (!lab_ports_free(lab, NULL))
                return false;
        lab_step("ports", "free");
        if (!lab_files_write(lab) || !lab_wan_save(lab, &wan))
                return false;
        lab_step("files", "certificates, geo database, topology and configurations in %s",
                 lab->dir);
        if (!lab_path(path, "%s/started", lab->dir) || !lab_file_write(path, BYTES("started\n")))
                return false;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (!lab_region_start(lab, &lab_regions[i]))
                        return false;
                if (lab_is_witness(lab, &lab_regions[i]))
                        lab_step(lab_regions[i].name, "meridiand, a witness: it votes");
                else
                        lab_step(lab_regions[i].name,
                                 "redis-server, knotd, nginx, %s, 2 backends%s",
                                 lab->nodes == 1   ? "meridiand"
                                 : lab->nodes == 2 ? "2 nodes of meridiand"
                                                   : "3 nodes of meridiand",
                                 lab_postgres_used(lab) ? ", PostgreSQL" : "");
        }
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                if (!lab_region_wan(lab, &wan, &lab_regions[i]))
                        return false;
        }
        lab_step("wide area",
                 "round trips us-east/eu-west %u ms, us-east/ap-southeast %u ms, "
                 "eu-west/ap-southeast %u ms",
                 lab_wan_rtt_ms(0, 1), lab_wan_rtt_ms(0, 2), lab_wan_rtt_ms(1, 2));
        return true;
}

int lab_command_up(int argc, char **argv)
{
        static struct lab lab;
        bool reuse = false;
        bool without = false;
        bool witness = false;
        unsigned nodes = 0, servers = 0;
        uint64_t begin = lab_now_ms();
        for (int i = 1; i < argc; i += 2) {
                const char *value = i + 1 < argc ? argv[i + 1] : "";
                if (strcmp(argv[i], "--witness") == 0) {
                        witness = true;
                        i--;
                } else if (strcmp(argv[i], "--without") == 0 && strcmp(value, "postgres") == 0)
                        without = true;
                else if (strcmp(argv[i], "--nodes") == 0 && value[0] >= '1' &&
                         value[0] <= '0' + LAB_NODES_MAX && value[1] == '\0')
                        nodes = (unsigned)(value[0] - '0');
                else if (strcmp(argv[i], "--servers") == 0 && value[0] >= '1' &&
                         value[0] <= '0' + LAB_NODES_MAX && value[1] == '\0')
                        servers = (unsigned)(value[0] - '0');
                else
                        return lab_usage("up [--nodes 1..3] [--servers 1..3] [--witness] "
                                         "[--without postgres]");
        }
        if (!lab_open(&lab) || !lab_owner_check(&lab) || !lab_programs_find(&lab) ||
            !lab_disk_check(&lab) || (!without && !lab_postgres_check(&lab)) ||
            !lab_lock_take(&lab) ||
            ((nodes != 0 || servers != 0 || witness) &&
             !lab_nodes_use(&lab, nodes != 0 ? nodes : lab.nodes, servers != 0 ? servers : 1,
                            witness)) ||
            !up_earlier(&lab, !without, &reuse))
                return 1;
        if (reuse)
                lab_step("earlier lab", "runs already, from this build");
        else if (!up_start(&lab)) {
                lab_stop_all(&lab, NULL);
                return 1;
        }
        if (!lab_health_wait(&lab, NULL, UP_TIMEOUT_MS))
                return 1;
        lab_step("health", "all three regions are active, after %.1f s",
                 (double)(lab_now_ms() - begin) / 1000);
        if (lab_postgres_used(&lab) && lab_postgres_signal(&lab, &lab_regions[0], 0, 0) == 0)
                lab_step("PostgreSQL",
                         "not there: the topology that this lab agreed on earlier has "
                         "none; `lab down --wipe` begins anew");
        print_table(&lab);
        print_try(&lab);
        return 0;
}
