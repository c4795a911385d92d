/* lab_run.c - processes of the lab as a whole: starting what is missing in a region, ending what
 * runs, and the commands that do so: start, kill, down. */
#include "lab/lab_priv.h"
#include "term/term.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000
#define STOP_TIMEOUT_MS  8000
#define STAYS_MS         300

/* ---- ending ---- */

unsigned lab_alive_count(const struct lab *lab, const struct lab_region *region)
{
        unsigned count = 0;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (region == NULL || region == &lab_regions[i])
                                count += lab_process_alive(lab, &lab_regions[i], part) ? 1 : 0;
                }
        }
        return count;
}

int lab_signal_all(const struct lab *lab, const struct lab_region *region, int signal)
{
        int count = 0;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (region == NULL || region == &lab_regions[i])
                                count += lab_process_signal(lab, &lab_regions[i], part, signal);
                }
                /* Last, or its keeper would start it again. */
                if (region == NULL || region == &lab_regions[i])
                        count += lab_postgres_signal(lab, &lab_regions[i], 0, signal);
        }
        return count;
}

/* Ends what runs: kindly, then not. True where nothing is left. */
bool lab_stop_all(const struct lab *lab, const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        if (lab_signal_all(lab, region, 0) == 0)
                return true;
        lab_signal_all(lab, region, SIGTERM);
        for (int left = lab_signal_all(lab, region, 0); left > 0 && lab_now_ms() < until;
             left = lab_signal_all(lab, region, 0)) {
                lab_waiting("%d processes to end", left);
                lab_sleep_ms(50);
        }
        lab_waited();
        until = lab_now_ms() + STOP_TIMEOUT_MS;
        while (lab_signal_all(lab, region, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(20);
        return lab_signal_all(lab, region, 0) == 0 ||
               lab_error("some processes of the lab in %s do not end", lab->dir);
}

/* Workers of a master that was killed hold its ports: they go first. */
static void orphans_end(const struct lab *lab, const struct lab_region *region, enum lab_part part)
{
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        while (!lab_process_alive(lab, region, part) &&
               lab_process_signal(lab, region, part, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
}

/* ---- beginning ---- */

/* What a server that was killed wrote down of itself may name a stranger, or its own remains, by
 * now: Knot would take it for a running server and refuse to start. */
static bool remains_remove(const struct lab *lab, const struct lab_region *region)
{
        char path[LAB_PATH_MAX];
        if (!lab_path(path, "%s/%s/run/knot/knot.pid", lab->dir, region->name))
                return false;
        return lab_process_alive(lab, region, LAB_KNOT) || unlink(path) == 0 || errno == ENOENT ||
               lab_error("%s: %s", path, strerror(errno));
}

bool lab_region_start(const struct lab *lab, const struct lab_region *region)
{
        if (!remains_remove(lab, region))
                return false;
        for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                if (!lab_part_used(lab, region, part) || lab_process_alive(lab, region, part))
                        continue;
                orphans_end(lab, region, part);
                if (!lab_process_start(lab, region, part))
                        return false;
        }
        return true;
}

/* A node that has just been started answers only when its link is there: ask until it does. */
bool lab_region_wan(const struct lab *lab, const struct lab_wan *wan,
                    const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + START_TIMEOUT_MS;
        while (!lab_wan_apply(lab, wan, lab_region_index(region), false)) {
                if (lab->nodes == 1 && !lab_process_alive(lab, region, LAB_MERIDIAND)) {
                        lab_process_log_show(lab, region, LAB_MERIDIAND);
                        return lab_error("meridiand of %s has ended", region->name);
                }
                if (lab_now_ms() > until)
                        return lab_wan_apply(lab, wan, lab_region_index(region), true);
                lab_waiting("%s: meridiand does not answer yet", region->name);
                lab_sleep_ms(50);
        }
        lab_waited();
        return true;
}

/* ---- all of it ---- */

/* Removes a folder and all that is in it; symbolic links are not followed. */
static bool wipe(const char *dir)
{
        pid_t pid = fork();
        if (pid == 0) {
                execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
                _exit(127);
        }
        int status = 0;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                return lab_error("%s could not be removed", dir);
        return true;
}

int lab_command_down(int argc, char **argv)
{
        static struct lab lab;
        bool clean = argc == 2 && strcmp(argv[1], "--wipe") == 0;
        if (argc > 1 && !clean)
                return lab_usage("down [--wipe]");
        if (!lab_open(&lab))
                return 1;
        if (access(lab.dir, F_OK) != 0) {
                printf("no lab has been started in %s\n", lab.dir);
                return 0;
        }
        if (!lab_lock_take(&lab))
                return 1;
        unsigned alive = lab_alive_count(&lab, NULL);
        if (!lab_stop_all(&lab, NULL))
                return 1;
        lab_step("processes", "%u ended, none is left", alive);
        if (clean && !wipe(lab.dir))
                return 1;
        if (clean)
                lab_step("data", "removed");
        else
                lab_step("data", "stays in %s (`lab down --wipe` removes it)", lab.dir);
        return 0;
}

/* ---- one region ---- */

static int node_kill(const struct lab *lab, const struct lab_region *region, unsigned node)
{
        enum lab_part part = lab_node_part(node);
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        if (lab_process_signal(lab, region, part, SIGKILL) == 0)
                return lab_error("node %u of %s does not run", node, region->name) ? 0 : 1;
        while (lab_process_signal(lab, region, part, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
        while (lab_postgres_signal(lab, region, node, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
        lab_step(region->name, "%s killed (SIGKILL)", lab_part_name(part));
        return 0;
}

int lab_command_kill(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *region = NULL;
        unsigned node = 0;
        if (argc != 2)
                return lab_usage("kill REGION[/NODE]");
        if (!lab_open_made(&lab) || !lab_node_find(&lab, argv[1], &region, &node) ||
            !lab_lock_take(&lab))
                return 1;
        if (node != 0)
                return node_kill(&lab, region, node);
        int killed = 0;
        uint64_t until = lab_now_ms() + STOP_TIMEOUT_MS;
        for (enum lab_part part = 0; part < LAB_PARTS; part++)
                killed += lab_process_signal(&lab, region, part, SIGKILL);
        killed += lab_postgres_signal(&lab, region, 0, SIGKILL);
        while (lab_signal_all(&lab, region, SIGKILL) > 0 && lab_now_ms() < until)
                lab_sleep_ms(5);
        if (killed == 0)
                return lab_error("nothing of %s runs", region->name) ? 0 : 1;
        lab_step(region->name, "%d processes killed (SIGKILL)", killed);
        return 0;
}

/* A server that cannot run says so and ends soon after its start. */
static bool region_stays(const struct lab *lab, const struct lab_region *region)
{
        uint64_t until = lab_now_ms() + STAYS_MS;
        while (lab_now_ms() < until) {
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (!lab_part_used(lab, region, part) ||
                            lab_process_alive(lab, region, part))
                                continue;
                        lab_process_log_show(lab, region, part);
                        return lab_error("%s of %s has ended", lab_part_name(part), region->name);
                }
                lab_sleep_ms(20);
        }
        return true;
}

int lab_command_start(int argc, char **argv)
{
        static struct lab lab;
        struct lab_wan wan;
        const struct lab_region *region = NULL;
        unsigned node = 0;
        if (argc != 2)
                return lab_usage("start REGION[/NODE]");
        if (!lab_open_made(&lab) || !lab_node_find(&lab, argv[1], &region, &node) ||
            !lab_owner_check(&lab) || !lab_programs_find(&lab) ||
            (lab_postgres_used(&lab) && !lab_postgres_check(&lab)) || !lab_lock_take(&lab))
                return 1;
        for (enum lab_part part = 0; part < LAB_PARTS; part++)
                orphans_end(&lab, region, part);
        if (!lab_ports_free(&lab, region) || !lab_files_write(&lab) || !lab_wan_load(&lab, &wan) ||
            !lab_region_start(&lab, region) || !lab_region_wan(&lab, &wan, region) ||
            !region_stays(&lab, region))
                return 1;
        lab_step(region->name, "started; `meridian status` shows when it is active again");
        return 0;
}
